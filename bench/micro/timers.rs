//! What passing time costs with 10,000 sessions: a sweep that finds nothing, and the end of one whose time has come.

use ironpost::broker::input::Input;
use ironpost::wire::QoS;

use crate::Case;
use crate::world::{World, connect, first_in};

pub const CASES: &[Case] = &[
    Case { name: "timers/sweep-nothing-due", turns: 50, run: sweep },
    Case { name: "timers/session-due", turns: 50, run: end },
];

const SESSIONS: u32 = 10_000;
/// How long the first one is kept; each of the next a second longer.
const EXPIRY_S: u32 = 3_600;
/// How often the broker looks for clients that are silent.
const SWEEP_MS: u64 = 250;

/// Everybody is connected and was heard of lately.
fn sweep(turns: u32) {
    let mut world = populated();
    let records = world.seen.records;
    for _ in 0..turns {
        assert_eq!(world.broker.next_deadline(), world.now.mono.plus_ms(SWEEP_MS), "the sweep");
        world.wait_ms(SWEEP_MS);
        world.settle();
    }
    assert_eq!((world.seen.records, world.seen.refusals), (records, 0));
    assert_eq!(world.broker.held().0, u64::from(SESSIONS));
}

/// Everybody is away; each turn one session ends, with its subscription.
fn end(turns: u32) {
    let mut world = populated();
    for slot in 0..SESSIONS {
        world.handle(Input::Closed { connection: first_in(slot) });
        world.settle();
    }
    world.wait_ms(u64::from(EXPIRY_S - 1) * 1_000);
    world.settle();
    assert_eq!(world.seen.ended, 0);
    for _ in 0..turns {
        world.wait_ms(1_000);
        world.settle();
    }
    assert_eq!(world.seen.ended, u64::from(turns));
    assert_eq!(world.broker.held().0, u64::from(SESSIONS - turns));
}

fn populated() -> World {
    let mut world = World::new();
    for number in 0..SESSIONS {
        world.connect(first_in(number), &connect(&format!("client-{number}"), EXPIRY_S + number));
        world.subscribe(first_in(number), &format!("u/{number}/inbox"), QoS::AtLeastOnce);
    }
    world
}
