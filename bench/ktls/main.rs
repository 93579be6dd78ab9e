//! What a TLS 1.3 session costs when rustls has shaken hands and the kernel carries its records from then on (kTLS), beside
//! one that rustls keeps; and what becomes of it when the client renews its key, which every implementation must bear
//! [RFC 8446 4.6.3].
//!
//! Both ends are in this process, over loopback. `bench/ktls/run` executes it in a virtual host, because not every kernel has
//! the module. Memory is the server's: what its side has asked the allocator for, and how the kernel's slab has grown, for
//! each of many connections that were made and then used once in both directions.
//!
//! - `count`: bytes in use, by an allocator that counts
//! - `kernel`: the socket's side: keys handed over, records with their type
//! - `session`: the server's side of a handshake, without buffers, as the broker has it

mod count;
mod kernel;
mod session;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedCipherSuite,
    server::ServerConnectionData,
};

use session::Session;

/// Connections of each row: enough that the slab's pages do not blur it.
const CONNECTIONS: usize = 2_000;

const PING: &[u8] = b"a message as short as a ping";

fn main() -> Result<()> {
    println!("{}", fs::read_to_string("/proc/version").unwrap_or_default().trim());
    println!(
        "bytes for each of {CONNECTIONS} idle sessions     user: rustls   kernel: rustls   user: kTLS   kernel: kTLS"
    );
    for suite in ring::DEFAULT_CIPHER_SUITES {
        if suite.version() == &rustls::version::TLS13 {
            let [rustls, kernel, kept, handed] = measure(*suite)?;
            println!("{:38} {rustls:17} {kernel:16} {kept:12} {handed:14}", format!("{:?}", suite.suite()));
        }
    }
    key_update()
}

/// What both ends need for handshakes with one cipher suite.
struct Site {
    listener: TcpListener,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Site {
    fn new(suite: SupportedCipherSuite) -> Result<Site> {
        let provider = Arc::new(CryptoProvider { cipher_suites: vec![suite], ..ring::default_provider() });
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let certificate = certified.cert.der().clone();
        let key =
            PrivateKeyDer::try_from(certified.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)?;
        server.enable_secret_extraction = true;
        server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        server.ticketer = ring::Ticketer::new()?;
        server.send_tls13_tickets = 1;
        let mut roots = RootCertStore::empty();
        roots.add(certificate)?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        Ok(Site { listener, server: Arc::new(server), client: Arc::new(client) })
    }

    fn connect(&self) -> Result<(TcpStream, TcpStream)> {
        let client = TcpStream::connect(self.listener.local_addr()?)?;
        Ok((client, self.listener.accept()?.0))
    }

    fn shake_hands(
        &self,
        client: &mut TcpStream,
        server: &mut TcpStream,
    ) -> Result<(ClientConnection, Session)> {
        let mut ours = ClientConnection::new(self.client.clone(), ServerName::try_from("localhost")?)?;
        let mut theirs = count::on_behalf_of_the_server(|| Session::new(self.server.clone()))?;
        loop {
            while ours.wants_write() {
                ours.write_tls(client)?;
            }
            if theirs.is_established() && !ours.is_handshaking() {
                return Ok((ours, theirs));
            }
            let (mut records, mut answer) = (read(server)?, room());
            count::on_behalf_of_the_server(|| theirs.receive(&mut records, &mut answer))?;
            server.write_all(&answer)?;
            if !answer.is_empty() {
                ours.read_tls(client)?;
                ours.process_new_packets()?;
            }
        }
    }
}

/// For more than is sent at once here. It is not counted: the broker's shard has one for all of its connections.
fn room() -> Vec<u8> {
    Vec::with_capacity(1 << 15)
}

/// What has arrived, or arrives next.
fn read(socket: &mut TcpStream) -> Result<Vec<u8>> {
    let mut bytes = room();
    bytes.resize(bytes.capacity(), 0);
    let length = socket.read(&mut bytes)?;
    ensure!(length > 0, "the other end has closed");
    bytes.truncate(length);
    Ok(bytes)
}

fn client_says(ours: &mut ClientConnection, client: &mut TcpStream, what: &[u8]) -> Result<()> {
    ours.writer().write_all(what)?;
    while ours.wants_write() {
        ours.write_tls(client)?;
    }
    Ok(())
}

fn client_hears(ours: &mut ClientConnection, client: &mut TcpStream) -> Result<Vec<u8>> {
    let mut heard = vec![0; PING.len()];
    let mut have = 0;
    while have < heard.len() {
        ours.read_tls(client)?;
        ours.process_new_packets()?;
        match ours.reader().read(&mut heard[have..]) {
            Ok(length) => have += length,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(heard)
}

/// Bytes of one session: of the server's allocator and of the kernel's slab with rustls; the same with the kernel.
fn measure(suite: SupportedCipherSuite) -> Result<[i64; 4]> {
    let site = Site::new(suite)?;
    let each = |bytes: i64| bytes / CONNECTIONS as i64;
    let mut pairs = Vec::new();
    for _ in 0..CONNECTIONS {
        pairs.push(site.connect()?);
    }
    // Both have sent and received, so that the kernel's side of a connection is as large as it gets.
    for (client, server) in &mut pairs {
        client.write_all(PING)?;
        read(server)?;
        server.write_all(PING)?;
        read(client)?;
    }
    let (before, slab_before) = (count::of_the_server(), slab()?);
    let mut shaken = Vec::new();
    for (client, server) in &mut pairs {
        let (mut ours, mut theirs) = site.shake_hands(client, server)?;
        client_says(&mut ours, client, PING)?;
        let (mut records, mut answer) = (read(server)?, room());
        count::on_behalf_of_the_server(|| {
            theirs.receive(&mut records, &mut answer)?;
            theirs.say(PING, &mut answer)
        })?;
        server.write_all(&answer)?;
        ensure!(client_hears(&mut ours, client)? == PING);
        shaken.push((ours, theirs));
    }
    let (rustls, slab_rustls) = (count::of_the_server() - before, slab()? - slab_before);
    let mut handed = Vec::new();
    for ((client, server), (mut ours, theirs)) in pairs.iter_mut().zip(shaken) {
        // What rustls keeps to renew keys with is kept: without it no KeyUpdate can be answered.
        let kept = count::on_behalf_of_the_server(|| hand_over(theirs, server))?;
        client_says(&mut ours, client, PING)?;
        ensure!(read(server)? == PING, "the kernel has deciphered something else");
        server.write_all(PING)?;
        ensure!(client_hears(&mut ours, client)? == PING, "the kernel has enciphered something else");
        handed.push(kept);
    }
    let (kernel, slab_kernel) = (count::of_the_server() - before, slab()? - slab_before);
    Ok([each(rustls), each(slab_rustls), each(kernel), each(slab_kernel)])
}

type Kept = Box<rustls::kernel::KernelConnection<ServerConnectionData>>;

fn hand_over(session: Session, socket: &TcpStream) -> Result<Kept> {
    let (secrets, kept) = session.into_kernel()?;
    kernel::begin(socket).context("TCP_ULP")?;
    kernel::keys(socket, libc::TLS_TX, &secrets.tx).context("TLS_TX")?;
    kernel::keys(socket, kernel::TLS_RX, &secrets.rx).context("TLS_RX")?;
    Ok(Box::new(kept))
}

/// The client renews the key that it sends with, and says something under the new one.
fn key_update() -> Result<()> {
    let site = Site::new(ring::cipher_suite::TLS13_AES_128_GCM_SHA256)?;
    let (mut client, mut server) = site.connect()?;
    let (mut ours, theirs) = site.shake_hands(&mut client, &mut server)?;
    let mut kept = hand_over(theirs, &server)?;
    ours.refresh_traffic_keys()?;
    client_says(&mut ours, &mut client, PING)?;

    println!("\nwhat the server sees when a client renews its key, which it must bear [RFC 8446 4.6.3]:");
    let plain = server.read(&mut [0; 64]);
    println!("  read without room for a record's type: {plain:?}");
    let (kind, content) = kernel::record(&server)?;
    println!(
        "  a record of type {kind}, {} bytes: {content:?} (22 and 24 are handshake and KeyUpdate)",
        content.len()
    );
    let (sequence, secret) = kept.update_rx_secret()?;
    let renewed = kernel::keys(&server, kernel::TLS_RX, &(sequence, secret));
    println!("  the kernel is given the new key: {renewed:?}");
    match kernel::record(&server) {
        Ok((kind, content)) if content == PING => {
            println!(
                "  and the message behind it: a record of type {kind}, all of it\nresult: the session goes on"
            );
            Ok(())
        }
        Ok((kind, content)) => bail!("a record of type {kind} that nobody has sent: {content:?}"),
        Err(error) => {
            println!(
                "  and the message behind it: {error}\nresult: the session ends, and the client has kept to the protocol"
            );
            Ok(())
        }
    }
}

/// Bytes in the kernel's slab.
fn slab() -> Result<i64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line =
        text.lines().find_map(|line| line.strip_prefix("Slab:")).context("/proc/meminfo has no Slab")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<i64>()? * 1024)
}
