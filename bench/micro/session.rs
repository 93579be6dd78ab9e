//! CONNECT of a durable session: a new one, and one that returns and leaves again. With the records that this takes, durable
//! before CONNACK; without what it costs to write them.

use std::hint::black_box;

use ironpost::broker::input::Input;
use ironpost::ids::ConnectionId;
use ironpost::wire::QoS;

use crate::Case;
use crate::world::{World, connect, first_in};

pub const CASES: &[Case] = &[
    Case { name: "session/new", turns: NEW_MAX / 2, run: arrive },
    Case { name: "session/return-and-leave", turns: 200, run: return_and_leave },
];

/// That are there already: with these and the new ones no table grows while it is counted.
const SESSIONS: u32 = 1_100;
const NEW_MAX: u32 = 400;
const EXPIRY_S: u32 = 604_800;

fn arrive(turns: u32) {
    let mut world = populated();
    let names: Vec<String> = (0..NEW_MAX).map(|number| format!("new-{number:04}")).collect();
    let records = world.seen.records;
    for (slot, name) in (SESSIONS..).zip(&names).take(turns as usize) {
        world.connect(first_in(slot), black_box(&connect(name, EXPIRY_S)));
    }
    assert_eq!(world.seen.connacks, u64::from(SESSIONS + turns));
    assert_eq!((world.seen.resumed, world.seen.refusals), (0, 0));
    assert_eq!(world.seen.records - records, u64::from(turns), "the session");
}

fn return_and_leave(turns: u32) {
    let mut world = populated();
    let names: Vec<String> = (0..SESSIONS).map(name).collect();
    for slot in 0..SESSIONS {
        world.handle(Input::Closed { connection: first_in(slot) });
        world.settle();
    }
    let records = world.seen.records;
    for (slot, name) in (0..SESSIONS).zip(&names).take(turns as usize) {
        let connection = ConnectionId { slot, generation: 2 };
        world.connect(connection, black_box(&connect(name, EXPIRY_S)));
        world.handle(Input::Closed { connection });
        world.settle();
    }
    assert_eq!((world.seen.resumed, world.seen.refusals), (u64::from(turns), 0));
    assert_eq!(
        world.seen.records - records,
        2 * u64::from(turns),
        "that it is connected, and that it is not"
    );
}

/// Durable sessions, connected, each with one subscription.
fn populated() -> World {
    let mut world = World::new();
    for number in 0..SESSIONS {
        world.connect(first_in(number), &connect(&name(number), EXPIRY_S));
        world.subscribe(first_in(number), &format!("u/{number}/inbox"), QoS::AtLeastOnce);
    }
    world
}

fn name(number: u32) -> String {
    format!("client-{number:04}")
}
