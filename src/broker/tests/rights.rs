//! What connections may do: asked before anything is taken, asked again when the rules change.

use std::sync::Arc;

use super::*;
use crate::access::passport::Passport;
use crate::access::permissions::Permissions;
use crate::access::rules::{Grants, Rules};
use crate::wire::Will;

const PATTERN: &str = "u/{account}/#";

fn permissions(rules: Option<&str>) -> Arc<Permissions> {
    let rules = rules.map(|text| Arc::new(Rules::parse(text, [0; 16]).expect("good rules")));
    let placement = Placement::new(1, [0; 16], Some(PATTERN)).expect("a good pattern");
    Arc::new(Permissions::new(rules, placement, true))
}

fn proven() -> Passport {
    Passport { is_proven: true, ..Passport::default() }
}

impl Bench {
    fn guarded(rules: Option<&str>) -> Bench {
        Bench::with(Settings { permissions: permissions(rules), ..settings() })
    }

    fn enter(&mut self, slot: u32, account: &str, client_id: &str, passport: &Passport) {
        let connect = Connect { session_expiry: Some(100), clean_start: false, ..connect(client_id) };
        self.enter_with(slot, account, &connect, passport);
    }

    fn enter_with(&mut self, slot: u32, account: &str, connect: &Connect<'_>, passport: &Passport) {
        self.handle(Input::Connect {
            connection: id(slot),
            connect,
            client_id: connect.client_id,
            assigned: false,
            account,
            passport,
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        });
        self.settle();
    }

    fn suback(&mut self, slot: u32, filter: &str) -> u8 {
        self.world.sent.remove(&slot);
        self.subscribe(slot, filter, 1);
        let suback = &self.world.sent[&slot][0];
        assert_eq!(suback[0], 0x90);
        let reason = suback[suback.len() - 1];
        self.world.sent.remove(&slot);
        reason
    }
}

#[test]
fn topics_of_an_account_are_its_own_unless_a_rule_says_otherwise() {
    let mut bench = Bench::guarded(Some("allow publish everyone u/+/inbox\ndefault allow"));
    bench.enter(1, "alice", "phone", &proven());
    bench.enter(2, "bob", "phone", &proven());
    assert_eq!(bench.suback(2, "u/bob/#"), 1);
    for (filter, reason) in [
        ("u/alice/#", 1),
        ("u/bob/#", 0x87),
        ("u/+/inbox", 0x87),
        ("#", 0x87),
        ("$share/g/u/bob/#", 0x87),
        ("$share/g/u/alice/#", 1),
        ("elsewhere/#", 1),
    ] {
        assert_eq!(bench.suback(1, filter), reason, "{filter}");
    }
    bench.publish(1, "u/bob/inbox", QoS::AtLeastOnce, 1, "a letter");
    bench.publish(1, "u/bob/secrets", QoS::AtLeastOnce, 2, "a forged one");
    bench.publish(1, "u/bob/secrets", QoS::AtMostOnce, 0, "another");
    bench.publish(1, "u/bob/secrets", QoS::ExactlyOnce, 3, "a third");
    bench.settle();
    assert_eq!(bench.seen(2), ["PUBLISH 1 1 a letter"]);
    bench.ack(2, 0x40, 1);
    assert_eq!(bench.seen(1), ["Puback 1 Success", "Puback 2 Not authorized", "Pubrec 3 Not authorized"],);
    assert_eq!(bench.broker.statistics.unauthorized, 3);
}

#[test]
fn what_is_only_stated_owns_nothing() {
    let mut bench = Bench::guarded(None);
    bench.enter(1, "alice", "phone", &Passport::default());
    assert_eq!(bench.suback(1, "u/alice/#"), 0x87);
    assert_eq!(bench.suback(1, "elsewhere"), 1, "there is no rule against it");
}

#[test]
fn to_retain_needs_a_permission_of_its_own() {
    let mut bench = Bench::guarded(Some("deny retain everyone #\ndefault allow"));
    bench.enter(1, "alice", "phone", &proven());
    bench.seen(1);
    bench.publish_with(1, "a", QoS::AtLeastOnce, 1, "kept", true);
    bench.publish_with(1, "a", QoS::AtLeastOnce, 2, "not kept", false);
    bench.settle();
    assert_eq!(bench.seen(1), ["Puback 1 Not authorized", "Puback 2 No matching subscribers"]);
    assert_eq!(bench.broker.retained.len(), 0);
}

#[test]
fn a_will_that_is_not_permitted_lets_nobody_in() {
    let mut bench = Bench::guarded(None);
    let will = |topic| Will {
        qos: QoS::AtMostOnce,
        retain: false,
        delay: None,
        message_expiry: None,
        forward: Properties::EMPTY,
        topic,
        payload: b"farewell",
    };
    for (slot, topic, answer) in [
        (1, "u/bob/x", "CONNACK false Not authorized"),
        (2, "u/alice/x", "CONNACK false Success"),
        (3, "$SYS/broker/version", "CONNACK false Not authorized"),
    ] {
        let connect = Connect { will: Some(will(topic)), ..connect("phone") };
        bench.enter_with(slot, "alice", &connect, &proven());
        assert_eq!(bench.seen(slot), [answer], "{topic}");
    }
}

#[test]
fn a_will_that_is_permitted_no_more_is_not_left() {
    let mut bench = Bench::guarded(Some("default allow"));
    bench.enter(1, "bob", "server", &proven());
    bench.suback(1, "news");
    let will = Will {
        qos: QoS::AtMostOnce,
        retain: false,
        delay: None,
        message_expiry: None,
        forward: Properties::EMPTY,
        topic: "news",
        payload: b"farewell",
    };
    for (slot, rules, seen) in [(2, "default allow", 1), (3, "deny will everyone news\ndefault allow", 0)] {
        bench.handle(Input::Permissions { permissions: permissions(Some("default allow")) });
        bench.settle();
        let connect = Connect { will: Some(will), ..connect("phone") };
        bench.enter_with(slot, "alice", &connect, &proven());
        bench.handle(Input::Permissions { permissions: permissions(Some(rules)) });
        bench.settle();
        bench.handle(Input::Closed { connection: id(slot) });
        bench.settle();
        assert_eq!(bench.seen(1).len(), seen, "{rules}");
    }
}

#[test]
fn what_a_token_grants_is_all_there_is() {
    let mut bench = Bench::guarded(Some("deny publish everyone a/secret\ndefault allow"));
    let grants = Grants::new([("a/#", true, false), ("b", false, true)]).expect("good grants");
    bench.enter(1, "alice", "probe", &Passport { grants: Some(grants), ..proven() });
    bench.seen(1);
    for (number, topic) in [(1, "a/x"), (2, "a/secret"), (3, "b"), (4, "u/alice/x")] {
        bench.publish(1, topic, QoS::AtLeastOnce, number, "");
    }
    bench.settle();
    assert_eq!(
        bench.seen(1),
        [
            "Puback 1 No matching subscribers",
            "Puback 2 Not authorized",
            "Puback 3 Not authorized",
            "Puback 4 Not authorized"
        ],
    );
    assert_eq!((bench.suback(1, "b"), bench.suback(1, "a/x"), bench.suback(1, "u/alice/#")), (1, 0x87, 0x87));
}

#[test]
fn other_rules_take_subscriptions_back_and_what_they_have_left_in_queues() {
    let mut bench = Bench::guarded(Some("default allow"));
    bench.enter(1, "alice", "phone", &proven());
    bench.enter(2, "bob", "server", &proven());
    assert_eq!((bench.suback(1, "a/#"), bench.suback(1, "b")), (1, 1));
    bench.world.no_room = true;
    for (number, topic) in [(1, "a/x"), (2, "b"), (3, "a/y"), (4, "b")] {
        bench.publish(2, topic, QoS::AtLeastOnce, number, topic);
    }
    bench.settle();
    let others = permissions(Some("deny subscribe account:alice a/#\ndefault allow"));
    bench.handle(Input::Permissions { permissions: others });
    bench.settle();
    bench.publish(2, "a/z", QoS::AtLeastOnce, 5, "too late");
    bench.world.no_room = false;
    bench.handle(Input::Drained { connection: id(1) });
    bench.settle();
    let sent = bench.seen(1);
    assert_eq!(sent, ["PUBLISH 1 2 b", "PUBLISH 1 4 b"], "the numbers of the others are used up");
    assert_eq!(bench.suback(1, "a/x"), 0x87);
    bench.ack(1, 0x40, 2);
    bench.ack(1, 0x40, 4);
    assert_eq!(bench.broker.held().1, 0, "nothing is left of what was withheld");
}

#[test]
fn what_was_taken_back_from_somebody_who_was_away_is_not_there_when_it_is_back() {
    for crash in [false, true] {
        let mut bench = Bench::guarded(Some("default allow"));
        bench.enter(1, "alice", "phone", &proven());
        bench.enter(2, "bob", "server", &proven());
        assert_eq!((bench.suback(1, "a"), bench.suback(1, "b")), (1, 1));
        bench.handle(Input::Closed { connection: id(1) });
        bench.publish(2, "a", QoS::AtLeastOnce, 1, "a");
        bench.publish(2, "b", QoS::AtLeastOnce, 2, "b");
        bench.settle();
        let others = permissions(Some("deny subscribe account:alice a\ndefault allow"));
        if crash {
            bench = bench.crash();
        }
        bench.handle(Input::Permissions { permissions: others });
        bench.settle();
        bench.enter(3, "alice", "phone", &proven());
        let sent = bench.seen(3);
        assert_eq!(sent.len(), 2, "crash: {crash}: {sent:?}");
        assert!(sent[0] == "CONNACK true Success" && sent[1].ends_with(" b"), "crash: {crash}: {sent:?}");
        let permissions = bench.broker.rights.permissions();
        let mut bench = bench.crash_with(Settings { permissions, ..settings() });
        bench.enter(3, "alice", "phone", &proven());
        let sent = bench.seen(3);
        assert!(!sent.iter().any(|sent| sent.ends_with(" a")), "also after another: {sent:?}");
        bench.enter(4, "bob", "other", &proven());
        bench.publish(4, "a", QoS::AtLeastOnce, 3, "more");
        bench.settle();
        assert!(bench.seen(4).contains(&"Puback 3 No matching subscribers".to_owned()));
    }
}

#[test]
fn what_somebody_was_let_in_with_expires_and_so_does_the_connection() {
    let mut bench = Bench::guarded(None);
    let expires_at = Some(UnixMs(bench.now.wall.0 + 5_000));
    bench.enter(1, "alice", "phone", &Passport { expires_at, ..proven() });
    bench.enter(2, "alice", "tablet", &proven());
    bench.seen(1);
    bench.seen(2);
    bench.wait_ms(4_999);
    assert!(bench.seen(1).is_empty());
    bench.wait_ms(2);
    assert_eq!(bench.seen(1), ["DISCONNECT Maximum connect time"]);
    assert_eq!(bench.world.closed, [(1, CloseReason::NotAuthorized)]);
    assert!(bench.seen(2).is_empty());
    // Its slot may be another's, whose proof does not expire.
    bench.handle(Input::Closed { connection: id(2) });
    bench.enter(2, "alice", "watch", &proven());
    bench.wait_ms(100_000);
    assert_eq!(bench.world.closed.len(), 1);
}
