//! Pressure as it is measured, and what newcomers and publishers notice of it.

use super::bytes::{CONNACK_V3, PINGREQ, PINGRESP, Start, connect_v3, puback, publish_v3};
use super::rig::Rig;
use crate::broker::overload::Step;
use crate::limits::{NEWCOMERS_PER_S, PRESSURE_LOOK_MS};

/// Memory in use, in percent of what there is, at which a step is entered.
pub(super) fn memory_for(step: Step) -> u8 {
    80 + (50 + 10 * step as u8) / 5
}

#[test]
fn newcomers_wait_under_pressure_and_who_is_here_does_not() {
    let mut rig = Rig::new();
    let here = rig.client_v3("here");
    rig.shard(0).memory_in_use(memory_for(Step::NewcomersWait));
    rig.turn(0);
    let count = 3 * NEWCOMERS_PER_S as usize;
    let newcomers: Vec<_> = (0..count).map(|_| rig.peer()).collect();
    for (number, peer) in newcomers.iter().enumerate() {
        rig.say(*peer, &connect_v3(&format!("newcomer-{number}"), Start::Clean, 0));
    }
    let mut answered = 0;
    for second in 1..=3 {
        rig.say(here, &PINGREQ);
        assert_eq!(rig.packet(here), PINGRESP);
        rig.run_ms(1_000);
        answered = newcomers.iter().filter(|peer| rig.has_heard(**peer)).count();
        let expected = (second * NEWCOMERS_PER_S) as usize;
        assert!(answered >= expected && answered <= expected + expected / 4 + 6, "{answered} of {expected}");
    }
    assert!(answered == count, "all of them, in time");
    newcomers.into_iter().for_each(|peer| assert_eq!(rig.packet(peer), CONNACK_V3));
}

#[test]
fn newcomers_beyond_what_can_be_heard_in_time_are_closed_and_the_line_moves_on() {
    let mut rig = Rig::new();
    rig.shard(0).memory_in_use(memory_for(Step::NewcomersWait));
    rig.turn(0);
    // What is heard in five seconds, the burst, and as many again.
    let count = 10 * NEWCOMERS_PER_S as usize;
    let newcomers: Vec<_> = (0..count).map(|_| rig.peer()).collect();
    rig.run_ms(1_000);
    let closed = newcomers.iter().filter(|peer| rig.ended_at(**peer).is_some()).count();
    let heard = 5 * NEWCOMERS_PER_S as usize;
    assert!(closed >= count - heard - heard / 4 && closed < count - heard + heard / 4, "{closed}");
    rig.run_ms(12_000);
    let late = rig.peer();
    rig.say(late, &connect_v3("late", Start::Clean, 0));
    rig.run_ms(100);
    assert_eq!(rig.packet(late), CONNACK_V3, "those that were closed are not waited for");
}

#[test]
fn publishers_wait_for_memory_and_go_on_when_there_is_some() {
    let mut rig = Rig::new();
    let publisher = rig.client_v3("publisher");
    rig.shard(0).memory_in_use(memory_for(Step::PublishersWait));
    rig.turn(0);
    for packet_id in 1..=3 {
        rig.say(publisher, &publish_v3(packet_id, "a", b"m"));
    }
    rig.say(publisher, &PINGREQ);
    rig.run_ms(5_000);
    assert_eq!(rig.packets(publisher), [puback(1).to_vec(), PINGRESP.to_vec()]);
    rig.shard(0).memory_in_use(80);
    rig.turn(0);
    rig.run_ms(PRESSURE_LOOK_MS);
    assert_eq!(rig.packets(publisher), [puback(2), puback(3)]);
}

#[test]
fn turns_that_are_long_again_and_again_are_lag_and_one_alone_is_not() {
    use crate::shard::pressure::Gauge;
    use crate::time::Nanos;
    let ms = |ms: u64| Nanos(0).plus_ms(ms);
    let mut gauge = Gauge::default();
    gauge.turned(ms(0), ms(900));
    gauge.turned(ms(900), ms(901));
    assert_eq!(gauge.lag_ms(), 0);
    gauge.turned(ms(1_000), ms(1_400));
    assert_eq!(gauge.lag_ms(), 1, "it may have been interrupted");
    gauge.turned(ms(1_400), ms(1_700));
    gauge.turned(ms(1_700), ms(2_200));
    assert_eq!(gauge.lag_ms(), 300);
    assert_eq!(gauge.lag_ms(), 0, "no turn is no lag");
}
