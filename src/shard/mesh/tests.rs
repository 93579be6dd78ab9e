//! Order, credits, back-pressure and the wake-up, with the real rings.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use super::*;

fn settled(token: u64) -> MeshMessage {
    MeshMessage::Settled { token }
}

fn pull(token: u64) -> MeshMessage {
    MeshMessage::RetainedPull { token, filter: "a/b".into(), after: "".into(), count: 1, number_max: 9 }
}

fn pair() -> (Mesh, Mesh) {
    let mut ends = Mesh::ends(2);
    let second = ends.pop().unwrap();
    (ends.pop().unwrap(), second)
}

fn tokens(mesh: &mut Mesh) -> Vec<u64> {
    let mut batches = Vec::new();
    mesh.take(&mut batches);
    let mut tokens = Vec::new();
    for (_, mut batch) in batches {
        tokens.extend(batch.messages.drain(..).map(|message| match message {
            MeshMessage::Settled { token } | MeshMessage::RetainedPull { token, .. } => token,
            other => panic!("unexpected {other:?}"),
        }));
        mesh.recycle(batch);
    }
    tokens
}

#[test]
fn a_turn_is_one_batch_and_order_is_kept() {
    let (mut a, mut b) = pair();
    for token in 1..=5 {
        a.send(ShardId(1), settled(token));
    }
    assert!(tokens(&mut b).is_empty(), "nothing leaves before the flush");
    assert!(a.flush());
    assert_eq!(a.outgoing[1].ring.len(), 1);
    assert_eq!(tokens(&mut b), [1, 2, 3, 4, 5]);
    assert!(a.is_idle());
}

#[test]
fn a_full_ring_holds_the_batch_back_and_loses_nothing() {
    let (mut a, mut b) = pair();
    let turns = MESH_RING_BATCHES as u64 + 3;
    for token in 0..turns {
        a.send(ShardId(1), settled(token));
        assert_eq!(a.flush(), token < MESH_RING_BATCHES as u64);
    }
    assert!(a.held_back() && !a.is_idle());
    assert_eq!(tokens(&mut b).len(), MESH_RING_BATCHES);
    assert!(a.flush());
    assert_eq!(tokens(&mut b), (MESH_RING_BATCHES as u64..turns).collect::<Vec<_>>());
}

#[test]
fn requests_end_with_the_credits_and_go_on_with_the_answers() {
    let (mut a, _b) = pair();
    let to = ShardId(1);
    for token in 0..u64::from(MESH_CREDITS) {
        assert!(a.room(to));
        a.send(to, pull(token));
    }
    assert!(!a.room(to));
    assert!(a.flush());
    assert_eq!(a.full_no_more(), None);
    let answer = MeshMessage::Retained { token: 1, parcels: Vec::new(), next: None };
    for _ in 0..MESH_CREDITS / 2 {
        assert!(!a.room(to));
        a.credit(to, &answer);
        a.credit(to, &settled(1));
    }
    assert_eq!(a.full_no_more(), Some(to));
    assert_eq!(a.full_no_more(), None, "each is named once");
    assert!(a.room(to));
}

#[test]
fn deliveries_have_room_when_every_request_waits() {
    use crate::broker::route::{Audience, Parcel};
    let (mut a, _b) = pair();
    let to = ShardId(1);
    (0..u64::from(MESH_CREDITS)).for_each(|token| a.send(to, pull(token)));
    assert!(!a.room(to));
    let parcel = Parcel {
        content: crate::content::Content::new("a/b", std::iter::empty(), b""),
        qos: crate::wire::QoS::AtMostOnce,
        retain: false,
        accepted_at: crate::time::UnixMs(0),
        expires_at: crate::time::UnixMs::NEVER,
        publisher: crate::ids::PublisherKey::NOBODY,
        origin: None,
    };
    for _ in 0..MESH_CREDITS {
        assert!(a.deliver_room(to));
        a.send(to, MeshMessage::Deliver { token: 0, parcel: parcel.clone(), audience: Audience::default() });
    }
    assert!(!a.deliver_room(to));
    a.flush();
    for _ in 0..MESH_CREDITS / 2 {
        a.credit(to, &MeshMessage::Delivered { token: 0, placed: 1, refused: 0, missed: Vec::new() });
    }
    assert_eq!(a.full_no_more(), Some(to));
    assert!(a.deliver_room(to) && !a.room(to), "the one answer is not taken for the other");
}

#[test]
fn what_takes_no_credit_is_bounded_by_the_batch() {
    let (mut a, mut b) = pair();
    let to = ShardId(1);
    let mut sent = 0;
    while a.room(to) {
        a.send(to, settled(sent));
        sent += 1;
    }
    assert_eq!(sent as usize, MESH_BATCH_MESSAGES_MAX);
    a.flush();
    assert_eq!(a.full_no_more(), Some(to));
    assert_eq!(tokens(&mut b).len(), MESH_BATCH_MESSAGES_MAX);
}

#[test]
#[should_panic(expected = "an answer without a request")]
fn an_answer_nobody_asked_for_is_a_bug() {
    let (mut a, _b) = pair();
    a.credit(ShardId(1), &MeshMessage::Placed { token: 9, placed: 0, refused: 0 });
}

/// A doorbell made of a condition variable that counts its rings.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
    rings: AtomicU32,
}

impl Doorbell for Bell {
    fn ring(&self) {
        self.rings.fetch_add(1, Ordering::Relaxed);
        *self.rung.lock().unwrap() = true;
        self.changed.notify_one();
    }
}

impl Bell {
    fn wait(&self) {
        let rung = self.rung.lock().unwrap();
        let (mut rung, timeout) =
            self.changed.wait_timeout_while(rung, Duration::from_secs(20), |rung| !*rung).unwrap();
        assert!(!timeout.timed_out(), "asleep with a batch in the ring");
        *rung = false;
    }
}

#[test]
fn a_sleeper_is_always_woken_and_sees_everything_in_order() {
    const MESSAGES: u64 = 20_000;
    let mut ends = Mesh::ends(3);
    let mut receiver = ends.remove(0);
    let bell = Arc::new(Bell::default());
    receiver.set_doorbell(bell.clone());
    let senders: Vec<_> = ends
        .into_iter()
        .map(|mut mesh| {
            std::thread::spawn(move || {
                for token in 0..MESSAGES {
                    mesh.send(ShardId(0), settled(token));
                    // Flush in uneven strides, so that the receiver falls asleep at every possible moment.
                    if token % 7 < 3 {
                        mesh.flush();
                    }
                }
                while !mesh.flush() {
                    std::thread::yield_now();
                }
            })
        })
        .collect();
    let mut expected = [0; 3];
    let mut batches = Vec::new();
    while expected[1] + expected[2] < 2 * MESSAGES {
        if receiver.fall_asleep() {
            bell.wait();
        }
        receiver.wake_up();
        receiver.take(&mut batches);
        for (from, mut batch) in batches.drain(..) {
            for message in batch.messages.drain(..) {
                assert_eq!(message, settled(expected[from.index()]), "from {from:?}");
                expected[from.index()] += 1;
            }
            receiver.recycle(batch);
        }
    }
    for sender in senders {
        sender.join().unwrap();
    }
    assert!(bell.rings.load(Ordering::Relaxed) > 0);
}

#[test]
fn nobody_rings_for_a_shard_that_is_awake() {
    let (mut a, mut b) = pair();
    let bell = Arc::new(Bell::default());
    b.set_doorbell(bell.clone());
    a.send(ShardId(1), settled(1));
    a.flush();
    assert_eq!(bell.rings.load(Ordering::Relaxed), 0);
    assert!(!b.fall_asleep(), "the batch is there");
    assert_eq!(tokens(&mut b), [1]);
    assert!(b.fall_asleep());
    a.send(ShardId(1), settled(2));
    a.flush();
    assert_eq!(bell.rings.load(Ordering::Relaxed), 1);
}
