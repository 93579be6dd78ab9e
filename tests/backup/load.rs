//! Publishers, readers and sessions that end, at work while backups are made; what each was told; and what a broker must
//! have that is started on one of those.
//!
//! Every message has a text of its own, so a set of texts says what must be there. It is entered as accepted when its PUBACK
//! or PUBREC has come, and as consumed before its acknowledgement is sent: so a backup that began later has it, and one
//! that had ended by then has it too.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::broker::clock;
use crate::bytes::{self, Connect, Packet, Publish};
use crate::client::Client;
use crate::pause_ms;

/// Texts of messages.
pub type Messages = BTreeSet<String>;

const SESSIONS: usize = 6;
/// Of those, the ones that read.
const READERS: usize = 3;
const PUBLISHERS: usize = 3;
/// Under way at once.
const WINDOW: usize = 24;
const PAYLOAD: usize = 2_000;
/// How long nothing must come before all is taken to have come.
const QUIET: Duration = Duration::from_millis(400);
/// How long what is owed may take.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Books {
    sent: Mutex<Messages>,
    accepted: Mutex<Messages>,
    consumed: Mutex<Messages>,
    sessions_ended: AtomicU64,
    rests: AtomicBool,
    stop: AtomicBool,
}

impl Books {
    fn enter(list: &Mutex<Messages>, text: &str) {
        list.lock().unwrap_or_else(PoisonError::into_inner).insert(text.to_owned());
    }

    fn all(list: &Mutex<Messages>) -> Messages {
        list.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits while publishers are to rest; false at the end.
    fn goes_on(&self) -> bool {
        while self.rests.load(Ordering::Relaxed) && !self.stop.load(Ordering::Relaxed) {
            pause_ms(5);
        }
        !self.stop.load(Ordering::Relaxed)
    }
}

/// See the module documentation.
pub struct Load {
    books: Arc<Books>,
    threads: Vec<JoinHandle<()>>,
    seed: u64,
}

fn session(number: usize) -> String {
    format!("session-{number}")
}

/// What comes before the payload's first blank says all.
fn name(text: &str) -> String {
    text.split(' ').next().unwrap_or_default().to_owned()
}

impl Load {
    pub fn begin(address: SocketAddr) -> Load {
        for number in 0..SESSIONS {
            let mut away = Client::connect_at(address, &Connect::durable(&session(number)));
            assert_eq!(away.subscribe(&format!("in/{number}"), 2), 2);
            away.disconnect();
        }
        let mut stays = Client::connect_at(address, &Connect::durable("stays"));
        assert_eq!(stays.subscribe("$share/g/job/+", 2), 2);
        stays.disconnect();
        let books: Arc<Books> = Arc::default();
        let mut threads = Vec::new();
        let mut start = |act: Box<dyn FnOnce(&Books) + Send>| {
            let books = books.clone();
            threads.push(std::thread::spawn(move || act(&books)));
        };
        for number in 0..PUBLISHERS {
            start(Box::new(move |books| publish(address, number, books)));
        }
        for number in 0..READERS {
            start(Box::new(move |books| read(address, number, books)));
        }
        start(Box::new(move |books| come_and_end(address, books)));
        Load { books, threads, seed: 7 }
    }

    pub fn random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.seed >> 33
    }

    /// Publishers go on, or have a rest: what is published while somebody only looks has to be looked through too.
    pub fn rest(&self, rests: bool) {
        self.books.rests.store(rests, Ordering::Relaxed);
    }

    pub fn run_for(&self, time: Duration) {
        self.rest(false);
        let (begun, before) = (clock(), self.accepted().len());
        while begun.elapsed() < time || self.accepted().len() == before {
            assert!(begun.elapsed() < PATIENCE, "nothing is accepted any more");
            assert!(self.threads.iter().all(|thread| !thread.is_finished()), "a client has failed");
            pause_ms(20);
        }
    }

    pub fn accepted(&self) -> Messages {
        Books::all(&self.books.accepted)
    }

    pub fn consumed(&self) -> Messages {
        Books::all(&self.books.consumed)
    }

    pub fn end(&mut self) -> String {
        self.books.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().expect("a client does not fail"));
        self.to_string()
    }

    /// Take everything that a broker has there. What was accepted `before` and not consumed `after` must be among it, and
    /// nothing that was not sent; at QoS 2 nothing comes twice to one session.
    pub fn drain(&self, address: SocketAddr, before: &Messages, after: &Messages) {
        let mut got: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let names = (0..SESSIONS).map(session).chain(["stays".to_owned(), "ends".to_owned()]);
        let owed: Arc<Mutex<Messages>> = Arc::new(Mutex::new(before.difference(after).cloned().collect()));
        let drain = |id: String| {
            let (owed, client_id) = (owed.clone(), id.clone());
            (id, std::thread::spawn(move || drain_one(address, &client_id, &owed)))
        };
        let threads: Vec<_> = names.map(drain).collect();
        for (client_id, thread) in threads {
            for text in thread.join().expect("a session can be drained") {
                got.entry(text).or_default().push(client_id.clone());
            }
        }
        let sent = Books::all(&self.books.sent);
        let invented: Vec<&String> = got.keys().filter(|text| !sent.contains(*text)).collect();
        assert!(invented.is_empty(), "nobody sent {invented:?}");
        let owed = before.difference(after);
        let lost: Vec<&String> = owed.clone().filter(|text| !got.contains_key(*text)).collect();
        assert!(
            lost.is_empty(),
            "LOST {} of {}, the first: {:?}",
            lost.len(),
            owed.count(),
            &lost[..lost.len().min(5)]
        );
        let own = |text: &String, client_id: &String| {
            text.starts_with("job") || text.contains(&format!("/{client_id}/"))
        };
        assert!(got.iter().all(|(text, ids)| ids.iter().all(|id| own(text, id))), "mixed up");
    }
}

impl fmt::Display for Load {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ended = self.books.sessions_ended.load(Ordering::Relaxed);
        let (accepted, consumed) = (self.accepted().len(), self.consumed().len());
        write!(formatter, "{accepted} accepted, {consumed} consumed, {ended} sessions ended")
    }
}

/// A window of messages, and the next when all of it is answered.
fn publish(address: SocketAddr, publisher: usize, books: &Books) {
    let mut client = Client::connect_at(address, &Connect::durable(&format!("publisher-{publisher}")));
    let padding = "x".repeat(PAYLOAD);
    let mut number = 0_usize;
    while books.goes_on() {
        let (mut window, mut packets) = (BTreeMap::new(), Vec::new());
        for index in 0..WINDOW {
            number += 1;
            let to = number % (SESSIONS + 1);
            let (topic, text) = if to == SESSIONS {
                (format!("job/{}", number % 5), format!("job/{publisher}/{number}"))
            } else {
                (format!("in/{to}"), format!("in/{}/{publisher}/{number}", session(to)))
            };
            let id = index as u16 + 1;
            Books::enter(&books.sent, &text);
            let publish = Publish::new(&topic, &format!("{text} {padding}"));
            packets.extend(publish.qos(if number.is_multiple_of(2) { 1 } else { 2 }, id).bytes(5));
            window.insert(id, text);
        }
        client.send(&packets);
        while !window.is_empty() {
            match client.receive_other() {
                Packet::Ack { kind: 4, id, reason, .. } => {
                    assert_eq!(reason, 0);
                    Books::enter(&books.accepted, &window.remove(&id).expect("it is under way"));
                }
                Packet::Ack { kind: 5, id, reason, .. } => {
                    assert_eq!(reason, 0);
                    Books::enter(&books.accepted, &window[&id]);
                    client.send(&bytes::ack(6, id));
                }
                Packet::Ack { kind: 7, id, .. } => drop(window.remove(&id)),
                other => panic!("{other:?} to a publisher"),
            }
        }
    }
}

fn read(address: SocketAddr, number: usize, books: &Books) {
    let mut client = Client::connect_at(address, &Connect::durable(&session(number)));
    while !books.stop.load(Ordering::Relaxed) {
        if !client.hears_within(Duration::from_millis(20)) {
            continue;
        }
        match client.receive() {
            Packet::Publish(publish) => {
                Books::enter(&books.consumed, &name(publish.text()));
                client.send(&bytes::ack(if publish.qos == 2 { 5 } else { 4 }, publish.id));
            }
            Packet::Ack { kind: 6, id, .. } => client.send(&bytes::ack(7, id)),
            other => panic!("{other:?} to a reader"),
        }
    }
}

/// A member of the shared subscription that is away for a moment, and then ends: what it has goes to the other one.
fn come_and_end(address: SocketAddr, books: &Books) {
    while books.goes_on() {
        let mut comes = Client::connect_at(address, &Connect::durable("ends"));
        // At QoS 2 a delivery that was begun ends with its session [MQTT-4.8.2-5].
        assert_eq!(comes.subscribe("$share/g/job/+", 1), 1);
        comes.fail();
        pause_ms(15);
        Client::connect_at(address, &Connect::v5("ends")).disconnect();
        books.sessions_ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// Until everything that is owed to anybody has come, and then what comes besides.
fn drain_one(address: SocketAddr, client_id: &str, owed: &Mutex<Messages>) -> Vec<String> {
    let begun = clock();
    let waits = || {
        let owed = owed.lock().unwrap_or_else(PoisonError::into_inner);
        !owed.is_empty() && begun.elapsed() < PATIENCE
    };
    let mut client = Client::connect_at(address, &Connect::durable(client_id));
    assert!(client.present || client_id == "ends", "the session {client_id} is gone");
    let (mut texts, mut exactly_once) = (Vec::new(), BTreeSet::new());
    loop {
        if !client.hears_within(QUIET) {
            if waits() {
                continue;
            }
            break;
        }
        match client.receive() {
            Packet::Publish(publish) => {
                let text = name(publish.text());
                // The end of a session is repeated after a crash, and so is what it hands on.
                let may_repeat = publish.qos == 1 || text.starts_with("job");
                assert!(exactly_once.insert(text.clone()) || may_repeat, "{text} came twice at QoS 2");
                owed.lock().unwrap_or_else(PoisonError::into_inner).remove(&text);
                texts.push(text);
                client.send(&bytes::ack(if publish.qos == 2 { 5 } else { 4 }, publish.id));
            }
            Packet::Ack { kind: 6, id, .. } => client.send(&bytes::ack(7, id)),
            other => panic!("{other:?} to {client_id}"),
        }
    }
    client.disconnect();
    texts
}
