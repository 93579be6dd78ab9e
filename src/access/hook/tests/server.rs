//! A server on a free port of this host, which reads requests and lets a test answer them, well or badly.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// A request that was read.
pub struct Request {
    pub connection: usize,
    pub head: String,
    pub body: Vec<u8>,
}

/// Bytes to and from a client, encrypted or not.
pub trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// Answers; false ends the connection.
type Behaviour = dyn Fn(&Request, &mut dyn Stream) -> bool + Send + Sync;

pub struct Server {
    pub url: String,
    pub port: u16,
    accepted: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
    closed: mpsc::Receiver<()>,
}

impl Server {
    /// Answers every request so.
    pub fn start(behaviour: impl Fn(&Request, &mut dyn Stream) -> bool + Send + Sync + 'static) -> Server {
        let behaviour: Arc<Behaviour> = Arc::new(behaviour);
        Server::serve("http", move |mut stream, connection| {
            converse(&mut stream, connection, &*behaviour);
        })
    }

    /// The same over TLS.
    pub fn start_tls(
        config: Arc<rustls::ServerConfig>,
        behaviour: impl Fn(&Request, &mut dyn Stream) -> bool + Send + Sync + 'static,
    ) -> Server {
        let behaviour: Arc<Behaviour> = Arc::new(behaviour);
        Server::serve("https", move |stream, connection| {
            let session = rustls::ServerConnection::new(Arc::clone(&config)).expect("a session");
            let mut stream = rustls::StreamOwned::new(session, stream);
            converse(&mut stream, connection, &*behaviour);
        })
    }

    /// Does with each connection, in a thread of its own, what the test says.
    pub fn serve(scheme: &str, each: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let (accepted, stopped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (ended, closed) = mpsc::channel();
        let (each, count, stop) = (Arc::new(each), Arc::clone(&accepted), Arc::clone(&stopped));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let connection = count.fetch_add(1, Ordering::SeqCst);
                let (each, ended) = (Arc::clone(&each), ended.clone());
                std::thread::spawn(move || {
                    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
                    each(stream, connection);
                    let _ = ended.send(());
                });
            }
        });
        Server { url: format!("{scheme}://127.0.0.1:{port}/"), port, accepted, stopped, closed }
    }

    /// How many connections there were.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Waits until one more connection has ended on this side.
    pub fn wait_until_closed(&self) {
        self.closed.recv_timeout(Duration::from_secs(60)).expect("a connection ends");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn converse(stream: &mut dyn Stream, connection: usize, behaviour: &Behaviour) {
    while let Some(request) = read_request(stream, connection) {
        if !behaviour(&request, stream) {
            return;
        }
    }
}

pub fn read_request(stream: &mut dyn Stream, connection: usize) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("a head of text");
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    let mut body = vec![0; length.expect("a body of known length")];
    stream.read_exact(&mut body).ok()?;
    Some(Request { connection, head, body })
}

/// A whole response.
pub fn answer(status: &str, body: &str) -> Vec<u8> {
    // A 204 has no length [RFC 9110 8.6].
    let length =
        if status.starts_with("204") { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("HTTP/1.1 {status}\r\n{length}Content-Type: application/json\r\n\r\n{body}").into_bytes()
}

/// Waits between bytes.
pub struct Pause {
    receiver: mpsc::Receiver<()>,
    /// Kept, and never used, so that the other end waits.
    _sender: mpsc::Sender<()>,
}

impl Pause {
    pub fn new() -> Pause {
        let (_sender, receiver) = mpsc::channel();
        Pause { receiver, _sender }
    }

    pub fn wait_ms(&self, wait_ms: u64) {
        let _ = self.receiver.recv_timeout(Duration::from_millis(wait_ms));
    }
}

/// One byte every 100 ms, over and over, for up to a minute, until nobody takes them.
pub fn dribble(stream: &mut dyn Write, bytes: &[u8]) {
    let pause = Pause::new();
    for byte in bytes.iter().cycle().take(600) {
        if stream.write_all(&[*byte]).and_then(|()| stream.flush()).is_err() {
            return;
        }
        pause.wait_ms(100);
    }
}
