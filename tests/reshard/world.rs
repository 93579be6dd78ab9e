//! What is in the data directory: sessions that are away with full queues and deliveries half done, members of a shared
//! subscription, retained messages, a publisher whose packet id is taken; and what each has to get in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use crate::bytes::{self, Connect, Packet, Publish};
use crate::client::Client;

const SESSIONS: usize = 12;
const MESSAGES: usize = 8;
const RETAINED: usize = 10;
const JOBS: usize = 12;

/// The packet id that the publisher does not release.
const TAKEN_ID: u16 = 777;

/// How long nothing must come before all is taken to have come.
const QUIET: Duration = Duration::from_millis(200);

/// What a session got: by topic and QoS, in order.
type Got = BTreeMap<(String, u8), Vec<String>>;

/// What has been delivered so far.
pub struct World {
    got: Vec<Got>,
    /// By session: the packet id of a message that it has received at QoS 2 and not released.
    received: BTreeMap<usize, u16>,
}

fn name(session: usize) -> String {
    format!("away-{session}")
}

fn payload(number: usize) -> String {
    format!("message {number:03}")
}

impl World {
    pub fn fill(address: SocketAddr) -> World {
        for session in 0..SESSIONS {
            let mut away = Client::connect_at(address, &Connect::durable(&name(session)));
            assert_eq!(away.subscribe(&format!("in/{session}"), 2), 2);
            assert_eq!(away.subscribe("all/#", 1), 1);
            assert_eq!(away.subscribe("$share/workers/job/+", 2), 2);
            away.disconnect();
        }
        let mut publisher = Client::connect_at(address, &Connect::durable("publisher"));
        for number in 0..MESSAGES {
            for session in 0..SESSIONS {
                let publish = Publish::new(&format!("in/{session}"), &payload(number));
                if number.is_multiple_of(2) {
                    publisher.publish_exactly_once(publish);
                } else {
                    assert_eq!(publisher.publish_acknowledged(publish), 0);
                }
            }
            assert_eq!(publisher.publish_acknowledged(Publish::new("all/news", &payload(number))), 0);
        }
        for number in 0..JOBS {
            publisher.publish_exactly_once(Publish::new(&format!("job/{}", number % 4), &payload(number)));
        }
        for number in 0..RETAINED {
            let publish = Publish::new(&format!("kept/{number}/x"), &payload(number)).retain();
            assert!([0, 0x10].contains(&publisher.publish_acknowledged(publish)));
        }
        publisher.publish(&Publish::new("in/0", &payload(MESSAGES)).qos(2, TAKEN_ID));
        assert_eq!(publisher.receive_other(), bytes::success(5, TAKEN_ID));
        publisher.fail();
        let mut world = World { got: vec![Got::new(); SESSIONS], received: BTreeMap::new() };
        for session in 0..4 {
            world.leave_half_done(address, session);
        }
        world
    }

    /// Take what is in flight up to the first message at QoS 2: only received, or not even that.
    fn leave_half_done(&mut self, address: SocketAddr, session: usize) {
        let mut away = Client::connect_at(address, &Connect::durable(&name(session)));
        assert!(away.present);
        loop {
            let publish = away.receive_publish();
            if publish.qos == 2 && session.is_multiple_of(2) {
                away.send(&bytes::ack(5, publish.id));
                assert_eq!(away.receive_other(), bytes::success(6, publish.id));
                self.received.insert(session, publish.id);
                self.note(session, &publish);
            }
            if publish.qos == 2 {
                return away.fail();
            }
            self.note(session, &publish);
            away.acknowledge(&publish);
        }
    }

    fn note(&mut self, session: usize, publish: &Publish) {
        let list = self.got[session].entry((publish.topic.clone(), publish.qos)).or_default();
        let again = list.iter().any(|text| *text == publish.text());
        assert!(!again || publish.qos == 1, "{publish:?} came twice to session {session}");
        // A kill may lose an acknowledgement, and QoS 1 promises no more.
        if !again {
            list.push(publish.text().to_owned());
        }
    }

    /// Every second of some takes one message, wholly; the rest leave half done what is in flight.
    pub fn take_some(&mut self, address: SocketAddr) {
        for session in (0..8).step_by(2) {
            let mut away = Client::connect_at(address, &Connect::durable(&name(session)));
            assert!(away.present, "session {session} is gone");
            self.finish_received(&mut away, session);
            let publish = away.receive_publish();
            self.note(session, &publish);
            away.acknowledge(&publish);
            // So that the last acknowledgement was read before the process is killed.
            away.fail();
        }
        for session in 8..SESSIONS {
            self.leave_half_done(address, session);
        }
    }

    /// PUBREL comes for what was received, and nothing else of it.
    fn finish_received(&mut self, away: &mut Client, session: usize) {
        if let Some(id) = self.received.remove(&session) {
            assert_eq!(away.receive_other(), bytes::success(6, id), "session {session}");
            away.send(&bytes::ack(7, id));
        }
    }

    /// Everybody takes everything; it is what was published.
    pub fn take_all(&mut self, address: SocketAddr) {
        // It has not been told that its packet id is free: its message comes again, and is not delivered again.
        let mut publisher = Client::connect_at(address, &Connect::durable("publisher"));
        assert!(publisher.present);
        publisher.publish(&Publish::new("in/0", &payload(MESSAGES)).qos(2, TAKEN_ID).dup());
        assert_eq!(publisher.receive_other(), bytes::success(5, TAKEN_ID));
        publisher.send(&bytes::ack(6, TAKEN_ID));
        assert_eq!(publisher.receive_other(), bytes::success(7, TAKEN_ID));
        for session in 0..SESSIONS {
            let mut away = Client::connect_at(address, &Connect::durable(&name(session)));
            assert!(away.present, "session {session} is gone");
            self.finish_received(&mut away, session);
            while away.hears_within(QUIET) {
                match away.receive() {
                    Packet::Publish(publish) => {
                        self.note(session, &publish);
                        away.send(&bytes::ack(if publish.qos == 2 { 5 } else { 4 }, publish.id));
                    }
                    // Also of what was completed when the process was killed: that may not have been on disk.
                    Packet::Ack { kind: 6, id, .. } => away.send(&bytes::ack(7, id)),
                    other => panic!("{other:?} to session {session}"),
                }
            }
        }
        self.is_complete();
        let mut reader = Client::connect_at(address, &Connect::v5("reader"));
        assert_eq!(reader.subscribe("kept/#", 1), 1);
        let mut kept = BTreeSet::new();
        for _ in 0..RETAINED {
            let publish = reader.receive_publish();
            assert!(publish.retain);
            kept.insert((publish.topic.clone(), publish.text().to_owned()));
            reader.acknowledge(&publish);
        }
        let expected = (0..RETAINED).map(|number| (format!("kept/{number}/x"), payload(number)));
        assert_eq!(kept, expected.collect());
        // Subscriptions are as they were: one copy to everybody.
        assert_eq!(publisher.publish_acknowledged(Publish::new("all/news", "the last")), 0);
        for session in 0..SESSIONS {
            let mut away = Client::connect_at(address, &Connect::durable(&name(session)));
            away.take("the last");
            away.expect_nothing();
        }
    }

    fn is_complete(&self) {
        let numbers = |of: fn(usize) -> bool| (0..MESSAGES).filter(move |number| of(*number)).map(payload);
        let mut jobs = BTreeSet::new();
        for (session, got) in self.got.iter().enumerate() {
            let list = |topic: &str, qos| got.get(&(topic.to_owned(), qos)).cloned().unwrap_or_default();
            let own = format!("in/{session}");
            let mut exactly_once: Vec<String> = numbers(|number| number.is_multiple_of(2)).collect();
            exactly_once.extend((session == 0).then(|| payload(MESSAGES)));
            assert_eq!(list(&own, 2), exactly_once, "session {session}");
            assert_eq!(list(&own, 1), numbers(|number| number % 2 == 1).collect::<Vec<_>>(), "{session}");
            assert_eq!(list("all/news", 1), numbers(|_| true).collect::<Vec<_>>(), "session {session}");
            for number in 0..4 {
                let mine = list(&format!("job/{number}"), 2);
                assert!(mine.is_sorted(), "session {session}: {mine:?}");
                for job in mine {
                    assert!(jobs.insert(job), "a job came to two members");
                }
            }
        }
        assert_eq!(jobs, (0..JOBS).map(payload).collect());
    }
}
