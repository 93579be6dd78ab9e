//! From a CONNECT with credentials to the broker: who waits for whom, and what a proxy in front may say.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::bytes::{CONNACK_V3, PINGREQ, PINGRESP, Start, connect_v3, packet};
use super::rig::{PeerId, Rig, name_at_home_in};
use crate::access::certificate::NameFrom;
use crate::access::guard::{AccountSource, Check, Guard, Method};
use crate::access::keeper::{Keeper, Sources};
use crate::access::tokens;
use crate::limits::{HANDSHAKE_TIME_MS, PROXY_HEADER_BYTES_MAX};
use crate::reactor::{Socket, sim};
use crate::shard::entrance::Guarded;
use crate::shard::wrapped::{Acceptor, Listening};
use crate::transport::proxy::Trusted;
use crate::workers::{Work, Workers};

/// Argon2id of `secret`, as cheap as it may be.
const USERS: &str = "alice:$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$HASH\n";

/// Workers that work when the test says so, and take so many.
struct Lazy {
    #[expect(clippy::vec_box, reason = "as they come, and as they are executed")]
    checks: Mutex<Vec<Box<Check>>>,
    room: usize,
}

impl Workers<Box<Check>> for Lazy {
    fn begin(&self, check: Box<Check>) -> Result<(), Box<Check>> {
        let mut checks = self.checks.lock().unwrap();
        if checks.len() >= self.room {
            return Err(check);
        }
        checks.push(check);
        Ok(())
    }
}

/// Shards of which the first has a listener that asks for passwords.
struct Front {
    rig: Rig,
    listener: Socket,
    workers: Arc<Lazy>,
}

/// With these users, and these keys for tokens.
fn keeper(account: AccountSource, users: &str, keys: &[&str]) -> Arc<Keeper> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(users.as_bytes()).unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/access/tokens/fixtures");
    let sources = Sources {
        account,
        password_file: Some(file.path().to_owned()),
        token_keys: keys.iter().map(|name| fixtures.join(name)).collect(),
        tokens: tokens::Settings { issuer: None, audience: None, account_claim: "sub".to_owned() },
        certificate_name: NameFrom::CommonName,
        hook: None,
        rules: None,
        hash_key: [0; 16],
    };
    let mut number = 0;
    let random = || {
        number += 1;
        number
    };
    Arc::new(Keeper::read(&sources, None, random).unwrap())
}

fn argon2_of(password: &str) -> String {
    let params = argon2::Params::new(8, 1, 1, Some(32)).unwrap();
    let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let mut hash = [0; 32];
    argon2.hash_password_into(password.as_bytes(), b"somesaltsomesalt", &mut hash).unwrap();
    data_encoding::BASE64_NOPAD.encode(&hash)
}

/// What asks for passwords, with users that were read just now.
fn acceptor(account: AccountSource, workers: &Arc<Lazy>) -> Acceptor {
    let users = USERS.replace("HASH", &argon2_of("secret"));
    guarded(Method::Password, keeper(account, &users, &[]), workers)
}

fn guarded(method: Method, keeper: Arc<Keeper>, workers: &Arc<Lazy>) -> Acceptor {
    let guarded = Guarded {
        guard: Arc::new(Guard::new("front", &[method], keeper)),
        tokens: workers.clone(),
        passwords: workers.clone(),
        hook: workers.clone(),
    };
    Acceptor { guarded: Some(guarded), ..Acceptor::default() }
}

impl Front {
    fn new(shards: u16, account: AccountSource, room: usize) -> Front {
        let mut rig = Rig::with(shards, sim::Settings::default(), |_| {});
        let listener = rig.world.listen("127.0.0.1:2883".parse().unwrap()).unwrap();
        let workers = Arc::new(Lazy { checks: Mutex::default(), room });
        let acceptor = acceptor(account, &workers);
        rig.shard(0).listen(vec![Listening { socket: listener, acceptor }]);
        rig.run_ms(1);
        Front { rig, listener, workers }
    }

    fn peer(&mut self) -> PeerId {
        self.rig.peer_at(self.listener)
    }

    /// Lets the workers do all there is; how much that was.
    fn work(&mut self) -> usize {
        let checks = std::mem::take(&mut *self.workers.checks.lock().unwrap());
        let count = checks.len();
        for checked in Work::execute_together(checks) {
            self.rig.shard(0).checked(checked);
        }
        self.rig.run_ms(5);
        count
    }
}

/// CONNECT of version 3.1.1 with a user name and a password.
fn connect_with(client_id: &str, user: &str, password: &str) -> Vec<u8> {
    let mut body = connect_v3(client_id, Start::Clean, 0).split_off(2);
    body[7] |= 0xC0;
    for text in [user, password] {
        body.extend_from_slice(&(text.len() as u16).to_be_bytes());
        body.extend_from_slice(text.as_bytes());
    }
    packet(0x10, &body)
}

#[test]
fn nothing_is_answered_until_the_password_was_looked_at_and_then_in_order() {
    let mut front = Front::new(1, AccountSource::Username, 9);
    let peer = front.peer();
    front.rig.say(peer, &[&connect_with("phone", "alice", "secret")[..], &PINGREQ].concat());
    front.rig.run_ms(50);
    assert!(front.rig.take_heard(peer).is_empty());
    // What comes meanwhile waits in the kernel.
    front.rig.say(peer, &PINGREQ);
    assert_eq!(front.work(), 1);
    assert_eq!(front.rig.take_heard(peer), [&CONNACK_V3[..], &PINGRESP, &PINGRESP].concat());
}

#[test]
fn a_wrong_password_an_unknown_user_and_no_password_let_nobody_in() {
    let mut front = Front::new(1, AccountSource::Username, 9);
    for (packet, code, checks) in [
        (connect_with("phone", "alice", "guess"), 4, 1),
        (connect_with("phone", "mallory", "secret"), 4, 1),
        (connect_v3("phone", Start::Clean, 0), 5, 0),
    ] {
        let peer = front.peer();
        front.rig.say(peer, &packet);
        front.rig.run_ms(5);
        assert_eq!(front.work(), checks);
        let (packets, _) = front.rig.end(peer);
        assert_eq!(packets, [vec![0x20, 2, 0, code]]);
    }
    assert_eq!(front.rig.connections(), 0);
}

#[test]
fn who_is_gone_is_not_looked_at() {
    let mut front = Front::new(1, AccountSource::Username, 9);
    let peer = front.peer();
    front.rig.say(peer, &connect_with("phone", "alice", "secret"));
    front.rig.run_ms(HANDSHAKE_TIME_MS + 100);
    assert!(front.rig.ended_at(peer).is_some(), "no worker has answered in time");
    let check = front.workers.checks.lock().unwrap().pop().unwrap();
    assert!(check.is_over().load(Ordering::Relaxed), "so that no thread is spent on it");
    let checked = check.execute();
    assert!(checked.result.is_err(), "the password would have been right");
    front.rig.shard(0).checked(checked);
    front.rig.run_ms(5);
    assert_eq!(front.rig.connections(), 0);
}

#[test]
fn tokens_that_are_looked_at_together_are_judged_each_by_its_own_keys() {
    let mut front = Front::new(1, AccountSource::Username, 9);
    let token = include_str!("../../access/tokens/fixtures/eddsa.token");
    for keys in ["keys.jwks", "es256.pem"] {
        let keeper = keeper(AccountSource::Username, "", &[keys]);
        let acceptor = guarded(Method::Token, keeper, &front.workers);
        front.rig.shard(0).present(vec![Acceptor::default(), acceptor]);
        for _ in 0..3 {
            let peer = front.peer();
            front.rig.say(peer, &connect_with("sensor-17", "", token));
            front.rig.run_ms(5);
        }
    }
    let checks = std::mem::take(&mut *front.workers.checks.lock().unwrap());
    checks[1].is_over().store(true, Ordering::Relaxed);
    let whose: Vec<_> = checks.iter().map(|check| format!("{check:?}")).collect();
    let checked = Work::execute_together(checks);
    let results: Vec<_> = checked.iter().map(|checked| checked.result.is_ok()).collect();
    // One is gone, and for the last three there is no key.
    assert_eq!(results, [true, false, true, false, false, false]);
    for (whose, checked) in whose.iter().zip(&checked) {
        assert!(whose.contains(&format!("{:?}", checked.connection)), "in their order: {whose}");
    }
}

#[test]
fn what_was_found_out_before_users_were_read_again_is_found_out_anew() {
    let mut front = Front::new(1, AccountSource::Username, 9);
    let peer = front.peer();
    front.rig.say(peer, &connect_with("phone", "alice", "secret"));
    front.rig.run_ms(5);
    // The listener of the rig is the first.
    let others = vec![Acceptor::default(), acceptor(AccountSource::Username, &front.workers)];
    front.rig.shard(0).present(others);
    assert_eq!(front.work(), 1);
    assert!(front.rig.take_heard(peer).is_empty(), "by users that may be gone");
    assert_eq!(front.work(), 1);
    assert_eq!(front.rig.take_heard(peer), CONNACK_V3);
}

#[test]
fn when_too_many_wait_the_next_is_told_to_come_again() {
    let mut front = Front::new(1, AccountSource::Username, 1);
    let (first, second) = (front.peer(), front.peer());
    front.rig.say(first, &connect_with("phone", "alice", "secret"));
    front.rig.run_ms(5);
    front.rig.say(second, &connect_with("tablet", "alice", "secret"));
    let (packets, _) = front.rig.end(second);
    assert_eq!(packets, [vec![0x20, 2, 0, 3]], "the server is unavailable");
    // So often that they would count as attempts under way, if they were not given back.
    for _ in 0..20 {
        let another = front.peer();
        front.rig.say(another, &connect_with("watch", "alice", "secret"));
        front.rig.run_ms(5);
    }
    assert_eq!(front.work(), 1);
    assert_eq!(front.rig.take_heard(first), CONNACK_V3);
    let last = front.peer();
    front.rig.say(last, &connect_with("last", "alice", "secret"));
    front.rig.run_ms(5);
    assert_eq!(front.work(), 1, "there is room again, and nobody waits for it");
    assert_eq!(front.rig.take_heard(last), CONNACK_V3);
}

#[test]
fn who_was_let_in_goes_home_and_is_not_asked_again() {
    let mut front = Front::new(2, AccountSource::ClientId, 9);
    // The account is at home in one of them, whatever the client ids.
    let away = front.peer();
    let elsewhere = name_at_home_in(1, 2);
    front.rig.say(away, &connect_with(&elsewhere, "alice", "secret"));
    front.rig.run_ms(5);
    assert_eq!(front.work(), 1);
    let (packets, _) = front.rig.end(away);
    assert_eq!(packets, [vec![0x20, 2, 0, 2]], "it has proven another name than its client id");
    let mut front = Front::new(2, AccountSource::Username, 9);
    let peers = [front.peer(), front.peer()];
    for (peer, client_id) in peers.iter().zip(["one", "two"]) {
        front.rig.say(*peer, &connect_with(client_id, "alice", "secret"));
    }
    front.rig.run_ms(5);
    assert_eq!(front.work(), 2);
    assert!(peers.iter().all(|peer| front.rig.take_heard(*peer) == CONNACK_V3));
    let connections = front.rig.connections_of_each();
    assert!(connections.contains(&2), "{connections:?}");
    assert_eq!(front.work(), 0);
}

#[test]
fn what_is_only_stated_meets_no_session_of_what_is_proven() {
    let mut front = Front::new(1, AccountSource::ClientId, 9);
    let proven = front.peer();
    front.rig.say(proven, &connect_with("alice", "alice", "secret"));
    front.rig.run_ms(5);
    front.work();
    assert_eq!(front.rig.take_heard(proven), CONNACK_V3);
    // The listener of the rig asks for nothing.
    let stated = front.rig.client_v3("alice");
    front.rig.run_ms(50);
    assert_eq!((front.rig.ended_at(proven), front.rig.ended_at(stated)), (None, None));
}

/// A listener that takes connections of proxies in that network.
fn proxied(network: &str) -> (Rig, Socket) {
    let mut rig = Rig::new();
    let listener = rig.world.listen("127.0.0.1:3883".parse().unwrap()).unwrap();
    let proxies = Some(Arc::new(Trusted::parse([network]).unwrap()));
    let acceptor = Acceptor { proxies, ..Acceptor::default() };
    rig.shard(0).listen(vec![Listening { socket: listener, acceptor }]);
    rig.run_ms(1);
    (rig, listener)
}

#[test]
fn a_proxy_header_comes_first_however_it_is_cut() {
    let header = b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 1883\r\n";
    let whole = [&header[..], &connect_v3("phone", Start::Clean, 0), &PINGREQ].concat();
    for piece in [1, 7, header.len() - 1, header.len(), header.len() + 3, whole.len()] {
        let (mut rig, listener) = proxied("0.0.0.0/0");
        let peer = rig.peer_at(listener);
        for bytes in whole.chunks(piece) {
            rig.say(peer, bytes);
            rig.run_ms(1);
        }
        rig.run_ms(5);
        assert_eq!(rig.take_heard(peer), [&CONNACK_V3[..], &PINGRESP].concat(), "pieces of {piece}");
    }
}

#[test]
fn without_a_header_or_with_too_long_a_one_the_connection_is_closed_at_once() {
    let long = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff"[..], &[0; PROXY_HEADER_BYTES_MAX]].concat();
    for bytes in [connect_v3("phone", Start::Clean, 0), long, b"PROXY TCP4 nonsense\r\n".to_vec()] {
        let (mut rig, listener) = proxied("0.0.0.0/0");
        let peer = rig.peer_at(listener);
        let begun = rig.now();
        rig.say(peer, &bytes);
        let (packets, at) = rig.end(peer);
        assert!(packets.is_empty(), "{packets:02x?}");
        assert!(at.ms_since(begun) < 100);
        assert_eq!(rig.connections(), 0);
    }
}

#[test]
fn who_is_no_proxy_is_closed_whatever_it_says() {
    let (mut rig, listener) = proxied("203.0.113.0/24");
    let peer = rig.peer_at(listener);
    rig.say(peer, b"PROXY TCP4 203.0.113.7 198.51.100.1 40000 1883\r\n");
    let (packets, _) = rig.end(peer);
    assert!(packets.is_empty(), "{packets:02x?}");
    assert_eq!(rig.connections(), 0);
}
