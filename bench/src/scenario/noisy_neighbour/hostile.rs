//! Hostile clients on a thread of their own, while a window is noisy.
//!
//! Their thread is in the idle scheduling class, on the load's CPU unless it is given another: it has what the
//! well-behaved clients' loop leaves, and leaves the CPU when that loop wants it. So their clock is not held up (`sent
//! late` shows it), and the server's CPU is never touched. Its writes are small for the same reason.
//!
//! Decides when to write what `noise` composes, and counts what the server makes of it. A client that the server ends or
//! refuses comes back a moment later, as a hostile one would.
//!
//! Invariants: bytes handed to a link are counted once the kernel has them all; a client's `composed[..taken]` has been
//! handed to its link.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};

use super::noise::{Noise, Script};
use crate::client::codec::{self, Connect, Frame, kind};
use crate::client::dial;
use crate::client::link::{Arrived, Link};
use crate::measure::{clock, process};
use crate::poll::{Interest, Poller};

/// A client that was ended or refused comes back after this.
const RETURN: Duration = Duration::from_millis(100);

/// Nothing to write: wait for the server this long, then look whether it is time to stop.
const WAIT: Duration = Duration::from_millis(5);

/// Rounds of writes of one client before the others have their turn.
const ROUNDS_PER_TURN: usize = 64;

/// Source addresses of these clients are far from those of the well-behaved: theirs may be limited by address.
const FIRST_SOURCE: usize = 1_000_000;

/// A packet of `max-packets` that was not accepted is halved down to this.
const PACKET_BYTES_MIN: usize = 1 << 10;

/// What a read takes at most.
const SCRATCH_BYTES: usize = 64 << 10;

/// Whom to harm, and how.
#[derive(Clone, Debug)]
pub struct Orders {
    pub target: SocketAddr,
    pub script: Script,
    pub clients: usize,
    /// The CPU to run on instead of the load's.
    pub cpu: Option<usize>,
}

/// What they did and what the server made of it.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub seconds: f64,
    /// Taken by the kernel.
    pub bytes: u64,
    pub answers: u64,
    /// Connections that were made; in the flood, those that came as far as they were meant to.
    pub connections: u64,
    /// Connections that the server ended.
    pub ended: u64,
    /// Connections, subscriptions and messages that it refused.
    pub refused: u64,
    /// The packet size that `max-packets` came down to.
    pub packet_bytes: usize,
    pub cpu_us: f64,
    /// What a program tried, by its own count.
    pub attempts: u64,
    /// What the server did that it must not do, or the program.
    pub violations: Vec<String>,
    /// All that a program said of itself.
    pub said: Value,
}

impl Tally {
    pub fn to_json(&self) -> Value {
        json!({
            "seconds": self.seconds, "bytes": self.bytes, "answers": self.answers, "connections": self.connections,
            "ended": self.ended, "refused": self.refused, "packet_bytes": self.packet_bytes, "cpu_us": self.cpu_us,
            "attempts": self.attempts, "violations": self.violations, "said": self.said,
        })
    }
}

/// The thread.
pub struct Hostile {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Tally>>,
}

impl Hostile {
    pub fn start(orders: Orders) -> Result<Hostile> {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let body = move || Crowd::new(orders)?.run(&asked);
        let thread =
            std::thread::Builder::new().name("hostile".to_owned()).spawn(body).context("a thread")?;
        Ok(Hostile { stop, thread })
    }

    /// Asks it to stop, which it does within moments.
    pub fn ask_to_stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub fn has_stopped(&self) -> bool {
        self.thread.is_finished()
    }

    /// What it did; waits for it if it has not stopped.
    pub fn join(self) -> Result<Tally> {
        self.thread.join().map_err(|_| anyhow!("the hostile clients' thread panicked"))?
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// To be dialled when its time has come.
    Away(Instant),
    Connecting,
    Ready,
    /// Subscribed and never to be read.
    Stalled,
}

struct Client {
    stage: Stage,
    link: Option<Link>,
    composed: Vec<u8>,
    taken: usize,
    /// With the link, not yet with the kernel.
    pending: u64,
    round: u64,
    unanswered: u64,
    /// Of this connection.
    answers: u64,
    /// It closes as soon as it is connected, without a CONNECT.
    bare: bool,
}

struct Crowd {
    orders: Orders,
    poller: Poller,
    clients: Vec<Client>,
    scratch: Vec<u8>,
    tally: Tally,
    dialled: usize,
}

impl Crowd {
    fn new(orders: Orders) -> Result<Crowd> {
        let away = clock::now();
        let client = |_| Client {
            stage: Stage::Away(away),
            link: None,
            composed: Vec::new(),
            taken: 0,
            pending: 0,
            round: 0,
            unanswered: 0,
            answers: 0,
            bare: false,
        };
        let clients = (0..orders.script.noise.connections(orders.clients)).map(client).collect();
        let poller = Poller::new().context("an epoll set")?;
        let scratch = vec![0; SCRATCH_BYTES];
        Ok(Crowd { orders, poller, clients, scratch, tally: Tally::default(), dialled: 0 })
    }

    fn run(mut self, stop: &AtomicBool) -> Result<Tally> {
        if let Some(cpu) = self.orders.cpu {
            process::pin_to(cpu)?;
        }
        process::step_back()?;
        let begin = clock::now();
        while !stop.load(Ordering::Relaxed) {
            let mut busy = false;
            for index in 0..self.clients.len() {
                busy |= self.act(index);
            }
            let count = self.poller.wait(Some(if busy { Duration::ZERO } else { WAIT }))?;
            for event in 0..count {
                let ready = self.poller.ready(event);
                let index = ready.token as usize;
                if ready.writable {
                    self.writable(index);
                }
                if ready.readable {
                    self.read(index)?;
                }
            }
        }
        self.tally.seconds = begin.elapsed().as_secs_f64();
        self.count_ended_unseen();
        self.tally.packet_bytes = self.orders.script.packet_bytes;
        self.tally.cpu_us = process::own_thread_cpu_us()?;
        Ok(self.tally)
    }

    /// Dials client `index` or writes for it; whether there is more to write at once.
    fn act(&mut self, index: usize) -> bool {
        match self.clients[index].stage {
            Stage::Away(until) if until <= clock::now() => self.dial(index),
            Stage::Ready => return self.write(index),
            _ => {}
        }
        false
    }

    fn dial(&mut self, index: usize) {
        let source = FIRST_SOURCE + self.dialled;
        self.dialled += 1;
        let Script { noise, version, .. } = self.orders.script;
        let dialled = dial::dial(self.orders.target, source).and_then(|stream| {
            if noise == Noise::Stalled {
                dial::narrow(&stream)?;
            }
            Link::register(stream, &self.poller, index as u64, Interest::ReadWrite)
        });
        let Ok(mut link) = dialled else { return self.away(index) };
        let bare = noise == Noise::ConnectFlood && source.is_multiple_of(2);
        if !bare {
            let client_id = format!("hostile-{}-{source}", std::process::id());
            let client_id = client_id.as_bytes();
            let connect =
                Connect { version, client_id, clean: true, keep_alive_s: 1_200, session_expiry_s: 0 };
            codec::encode_connect(&mut link.outbound, &connect, None);
        }
        let client = &mut self.clients[index];
        client.link = Some(link);
        client.stage = Stage::Connecting;
        client.composed.clear();
        (client.taken, client.pending, client.unanswered, client.answers) = (0, 0, 0, 0);
        client.bare = bare;
    }

    /// Its connection is over; it comes back in a moment.
    fn away(&mut self, index: usize) {
        let client = &mut self.clients[index];
        client.link = None;
        client.stage = Stage::Away(clock::now() + RETURN);
    }

    /// The server has ended it.
    fn ended(&mut self, index: usize) {
        let client = &self.clients[index];
        self.tally.ended += 1;
        let Script { noise, packet_bytes, .. } = &mut self.orders.script;
        if *noise == Noise::MaxPackets && client.stage == Stage::Ready && client.answers == 0 {
            *packet_bytes = (*packet_bytes / 2).max(PACKET_BYTES_MIN);
        }
        self.away(index);
    }

    fn writable(&mut self, index: usize) {
        if self.clients[index].bare {
            // It has connected, and that was all.
            self.tally.connections += 1;
            return self.again(index);
        }
        self.flush(index);
    }

    /// Closes at once and connects anew.
    fn again(&mut self, index: usize) {
        self.clients[index].link = None;
        self.dial(index);
    }

    /// Hands out some writes; whether it could go on.
    fn write(&mut self, index: usize) -> bool {
        let noise = self.orders.script.noise;
        for _ in 0..ROUNDS_PER_TURN {
            let client = &mut self.clients[index];
            let Some(link) = &mut client.link else { return false };
            if !link.outbound.is_empty() {
                return false;
            }
            if client.taken == client.composed.len() {
                if client.unanswered >= noise.unanswered_max() {
                    return false;
                }
                client.composed.clear();
                client.taken = 0;
                client.unanswered += self.orders.script.compose(index, client.round, &mut client.composed);
                client.round += 1;
            }
            let end = (client.taken + noise.write_bytes()).min(client.composed.len());
            link.outbound.extend_from_slice(&client.composed[client.taken..end]);
            client.pending = (end - client.taken) as u64;
            client.taken = end;
            self.flush(index);
        }
        true
    }

    fn flush(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let Some(link) = &mut client.link else { return };
        if link.flush(&self.poller).is_err() {
            return self.ended(index);
        }
        if link.outbound.is_empty() {
            self.tally.bytes += std::mem::take(&mut client.pending);
        }
    }

    fn read(&mut self, index: usize) -> Result<()> {
        let Some(link) = &mut self.clients[index].link else { return Ok(()) };
        let end = match link.read(&mut self.scratch) {
            Ok(Arrived::Bytes(end)) => end,
            Ok(Arrived::Nothing) => return Ok(()),
            Ok(Arrived::End) | Err(_) => {
                self.ended(index);
                return Ok(());
            }
        };
        let scratch = std::mem::take(&mut self.scratch);
        let mut bytes = &scratch[..end];
        while let Some(frame) = codec::split_frame(bytes)? {
            self.on_frame(index, &frame)?;
            bytes = &bytes[frame.bytes.len()..];
            if self.clients[index].link.is_none() || self.clients[index].stage == Stage::Connecting {
                // A new connection: what is left was for the last one.
                bytes = &[];
            }
        }
        if let Some(link) = &mut self.clients[index].link {
            link.keep(bytes);
        }
        self.scratch = scratch;
        Ok(())
    }

    fn on_frame(&mut self, index: usize, frame: &Frame<'_>) -> Result<()> {
        let Script { noise, version, .. } = self.orders.script;
        match (self.clients[index].stage, frame.kind()) {
            (Stage::Connecting, kind::CONNACK) => {
                if codec::parse_connack(frame, version)?.reason != 0 {
                    self.tally.refused += 1;
                    self.away(index);
                    return Ok(());
                }
                self.tally.connections += 1;
                self.clients[index].stage = Stage::Ready;
                match noise {
                    Noise::ConnectFlood => self.again(index),
                    Noise::Stalled => self.subscribe(index),
                    _ => {}
                }
            }
            (Stage::Ready, kind::SUBACK) if noise == Noise::Stalled => {
                self.tally.refused += u64::from(codec::parse_suback(frame, version)? >= 0x80);
                let client = &mut self.clients[index];
                client.stage = Stage::Stalled;
                if let Some(link) = &mut client.link {
                    link.pause(&self.poller, true).context("not reading any more")?;
                }
            }
            (_, kind::PUBACK | kind::SUBACK | kind::UNSUBACK | kind::PINGRESP) => {
                let refused = match frame.kind() {
                    kind::PUBACK => codec::parse_ack(frame)?.1 >= 0x80,
                    kind::SUBACK => codec::parse_suback(frame, version)? >= 0x80,
                    _ => false,
                };
                self.tally.refused += u64::from(refused);
                let client = &mut self.clients[index];
                client.unanswered = client.unanswered.saturating_sub(1);
                client.answers += 1;
                self.tally.answers += 1;
            }
            // What the well-behaved publish, for a filter of the churn; or the server's last words.
            _ => {}
        }
        Ok(())
    }

    fn subscribe(&mut self, index: usize) {
        let Script { version, .. } = self.orders.script;
        let filter = self.orders.script.busy_filter();
        if let Some(link) = &mut self.clients[index].link {
            codec::encode_subscribe(&mut link.outbound, version, 1, filter.as_bytes(), Noise::qos(index));
        }
        self.flush(index);
    }

    /// A client that does not read does not see its end either: looks now, reading what fits into its small buffer.
    fn count_ended_unseen(&mut self) {
        for client in self.clients.iter_mut().filter(|client| client.stage == Stage::Stalled) {
            let Some(link) = &mut client.link else { continue };
            // What is read is not looked at, so no beginning of a packet is kept.
            for _ in 0..ROUNDS_PER_TURN {
                match link.read(&mut self.scratch) {
                    Ok(Arrived::Bytes(_)) => {}
                    Ok(Arrived::Nothing) => break,
                    Ok(Arrived::End) | Err(_) => {
                        self.tally.ended += 1;
                        break;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::codec::Version;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    fn orders(listener: &TcpListener, noise: Noise) -> Orders {
        let prefix = "p".to_owned();
        Orders {
            target: listener.local_addr().unwrap(),
            script: Script { noise, version: Version::V311, prefix, packet_bytes: 1 << 20 },
            clients: 1,
            cpu: None,
        }
    }

    /// Accepts one connection and its CONNECT.
    fn accept(listener: &TcpListener) -> std::net::TcpStream {
        let (mut peer, _) = listener.accept().unwrap();
        let mut head = [0; 2];
        peer.read_exact(&mut head).unwrap();
        let mut body = vec![0; usize::from(head[1])];
        peer.read_exact(&mut body).unwrap();
        peer.write_all(&[kind::CONNACK << 4, 2, 0, 0]).unwrap();
        peer
    }

    #[test]
    fn a_server_that_ends_a_client_is_counted_and_gets_smaller_packets() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let hostile = Hostile::start(orders(&listener, Noise::MaxPackets)).unwrap();
        let mut peer = accept(&listener);
        // The first bytes of the packet are there: it took the CONNACK.
        peer.read_exact(&mut [0; 100]).unwrap();
        drop(peer);
        let _again = accept(&listener);
        hostile.ask_to_stop();
        let tally = hostile.join().unwrap();
        assert_eq!((tally.ended, tally.packet_bytes), (1, 1 << 19));
    }

    #[test]
    fn every_second_connection_of_the_flood_has_no_connect() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let hostile = Hostile::start(orders(&listener, Noise::ConnectFlood)).unwrap();
        let mut bare = 0;
        for _ in 0..200 {
            let (mut peer, _) = listener.accept().unwrap();
            let mut head = [0; 2];
            // A bare one is closed without a byte; the others wait for their answer.
            match peer.read(&mut head) {
                Ok(0) => bare += 1,
                Ok(_) => peer.write_all(&[kind::CONNACK << 4, 2, 0, 0]).unwrap(),
                Err(error) => panic!("{error}"),
            }
        }
        hostile.ask_to_stop();
        let tally = hostile.join().unwrap();
        assert!((80..=120).contains(&bare), "{bare}");
        assert!(tally.connections >= 180 && tally.ended <= 20, "{tally:?}");
    }
}
