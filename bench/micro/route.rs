//! A PUBLISH on its way through the broker: to 1, 10 and 1,000 of 1,000 connected subscribers, and to one who is away.
//!
//! From the decoded packet to the last effect; at QoS 1 with the acknowledgements of all recipients, so that the broker is
//! where it was.

use std::hint::black_box;

use ironpost::broker::input::Input;
use ironpost::ids::ConnectionId;
use ironpost::wire::{Ack, AckKind, Packet, QoS, ReasonCode};

use crate::Case;
use crate::world::{World, connect, first_in, publish};

pub const CASES: &[Case] = &[
    Case { name: "route/qos0-to-1", turns: 200, run: |turns| to_connected(turns, ONE, QoS::AtMostOnce) },
    Case { name: "route/qos0-to-10", turns: 100, run: |turns| to_connected(turns, TEN, QoS::AtMostOnce) },
    Case { name: "route/qos0-to-1000", turns: 10, run: |turns| to_connected(turns, ALL, QoS::AtMostOnce) },
    Case { name: "route/qos1-to-1", turns: 200, run: |turns| to_connected(turns, ONE, QoS::AtLeastOnce) },
    Case { name: "route/qos1-to-10", turns: 100, run: |turns| to_connected(turns, TEN, QoS::AtLeastOnce) },
    Case { name: "route/qos1-to-1000", turns: 10, run: |turns| to_connected(turns, ALL, QoS::AtLeastOnce) },
    Case { name: "route/qos1-stored", turns: 1_000, run: to_one_who_is_away },
];

const SUBSCRIBERS: u32 = 1_000;
const PUBLISHER: ConnectionId = ConnectionId { slot: SUBSCRIBERS, generation: 1 };

/// A topic, and how many get what is published there.
type Load = (&'static str, u64);
/// By an exact filter, one of as many as there are subscribers.
const ONE: Load = ("u/17/inbox", 1);
/// By a filter with a wildcard.
const TEN: Load = ("room/7/small", 10);
const ALL: Load = ("room/7/all", SUBSCRIBERS as u64);

fn to_connected(turns: u32, (topic, recipients): Load, qos: QoS) {
    let mut world = populated();
    let packet = Packet::Publish(publish(topic, qos));
    let records = world.seen.records;
    let mut unacknowledged = Vec::with_capacity(SUBSCRIBERS as usize);
    for _ in 0..turns {
        world.handle(Input::Packet { connection: PUBLISHER, packet: black_box(&packet) });
        world.advance();
        std::mem::swap(&mut unacknowledged, &mut world.seen.unacknowledged);
        for (connection, packet_id) in unacknowledged.drain(..) {
            let (kind, reason) = (AckKind::Puback, ReasonCode::Success);
            let ack = Packet::Ack(Ack { kind, packet_id, reason, reason_string: None });
            world.handle(Input::Packet { connection, packet: black_box(&ack) });
        }
        world.advance();
    }
    assert_eq!(world.seen.publishes, u64::from(turns) * recipients);
    let answers = if qos == QoS::AtMostOnce { 0 } else { u64::from(turns) };
    assert_eq!(world.seen.pubacks, answers, "each publish is answered as soon as all have acknowledged it");
    assert_eq!(world.seen.records, records, "what is acknowledged at once is not written");
    assert_eq!(world.seen.refusals, 0);
}

/// Written down for one durable session that is away, made durable, answered. The queue grows meanwhile.
fn to_one_who_is_away(turns: u32) {
    let mut world = populated();
    world.handle(Input::Closed { connection: first_in(17) });
    world.settle();
    let packet = Packet::Publish(publish(ONE.0, QoS::AtLeastOnce));
    let records = world.seen.records;
    for _ in 0..turns {
        world.handle(Input::Packet { connection: PUBLISHER, packet: black_box(&packet) });
        world.settle();
    }
    assert_eq!(world.seen.pubacks, u64::from(turns));
    assert_eq!(world.seen.records - records, u64::from(turns));
    assert_eq!((world.seen.publishes, world.seen.refusals), (0, 0));
}

/// Durable sessions, connected, each with a filter of its own; all with one that has a wildcard, ten with another.
fn populated() -> World {
    let mut world = World::new();
    for number in 0..SUBSCRIBERS {
        let connection = first_in(number);
        world.connect(connection, &connect(&format!("client-{number}"), 3_600));
        world.subscribe(connection, &format!("u/{number}/inbox"), QoS::AtLeastOnce);
        world.subscribe(connection, "room/+/all", QoS::AtLeastOnce);
        if number % 100 == 0 {
            world.subscribe(connection, "room/+/small", QoS::AtLeastOnce);
        }
    }
    world.connect(PUBLISHER, &connect("publisher", 0));
    assert_eq!(world.seen.connacks, u64::from(SUBSCRIBERS) + 1);
    world
}
