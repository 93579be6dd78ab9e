//! A publisher that must wait: its acknowledgements and pings are handled, everything else is parked, up to a bound.
//!
//! The broker pauses a version 3 client that has more unacknowledged publishes than the receive maximum. Here they
//! stay unacknowledged because their recipient does not acknowledge and `hold` is long.

use super::bytes::{PINGREQ, PINGRESP, packet_id_of, puback, publish_v3};
use super::rig::{PeerId, Rig};
use crate::limits::{PARKED_BYTES_MAX, PARKED_STALL_MS, RECEIVE_BYTES, RECEIVE_MAXIMUM, SEND_WINDOW_DEFAULT};
use crate::reactor::sim;

const HOLD_MS: u32 = 3_600_000;

/// A publisher that is paused, and the only recipient of what it publishes, which acknowledges nothing by itself.
pub(super) fn with_paused_publisher() -> (Rig, PeerId, PeerId) {
    let mut rig = Rig::with(1, sim::Settings::default(), |settings| settings.hold_ms = HOLD_MS);
    let recipient = rig.subscriber_v3("recipient", "wait/for/it", 1);
    let publisher = rig.client_v3("publisher");
    for packet_id in 1..=RECEIVE_MAXIMUM + 1 {
        rig.say(publisher, &publish_v3(packet_id, "wait/for/it", b"held"));
    }
    rig.run_ms(2_000);
    assert_eq!(rig.packets(publisher), Vec::<Vec<u8>>::new(), "nothing is acknowledged");
    (rig, recipient, publisher)
}

/// Acknowledges what has arrived; how much that was.
fn acknowledge(rig: &mut Rig, recipient: PeerId) -> usize {
    let deliveries = rig.packets(recipient);
    for delivery in &deliveries {
        rig.say(recipient, &puback(packet_id_of(delivery)));
    }
    deliveries.len()
}

/// Acknowledges until the pause is over and everything has arrived.
pub(super) fn acknowledge_all(rig: &mut Rig, recipient: PeerId) {
    for _ in 0..=RECEIVE_MAXIMUM / SEND_WINDOW_DEFAULT {
        acknowledge(rig, recipient);
        rig.run_ms(100);
    }
}

#[test]
fn a_paused_publisher_is_parked_and_its_pings_are_answered() {
    let (mut rig, _, publisher) = with_paused_publisher();
    let parked = publish_v3(0, "elsewhere", &[0; 100]);
    rig.say(publisher, &parked);
    rig.say(publisher, &PINGREQ);
    assert_eq!(rig.packet(publisher), PINGRESP);
    assert_eq!(rig.parked_bytes_max(), parked.len());
}

#[test]
fn what_was_parked_is_handled_in_order_when_the_pause_is_over() {
    let (mut rig, recipient, publisher) = with_paused_publisher();
    let watcher = rig.subscriber_v3("watcher", "parked", 0);
    // More than one turn handles.
    let parked: Vec<_> = (0..300_u16).map(|number| publish_v3(0, "parked", &number.to_be_bytes())).collect();
    parked.iter().for_each(|publish| rig.say(publisher, publish));
    rig.run_ms(1_000);
    assert_eq!(rig.packets(watcher), Vec::<Vec<u8>>::new());
    let mut acknowledged = 0;
    // A window at a time; half the receive maximum has to be over.
    for _ in 0..=RECEIVE_MAXIMUM / SEND_WINDOW_DEFAULT {
        acknowledged += acknowledge(&mut rig, recipient);
        rig.run_ms(100);
    }
    assert_eq!(acknowledged, usize::from(RECEIVE_MAXIMUM) + 1);
    assert_eq!(rig.packets(watcher), parked);
    assert_eq!(rig.parked_bytes_max(), 0);
    let acknowledgements: Vec<_> = (1..=RECEIVE_MAXIMUM + 1).map(puback).collect();
    assert_eq!(rig.packets(publisher), acknowledgements);
}

#[test]
fn acknowledgements_behind_parked_publishes_are_handled() {
    // The publisher is its own recipient: only its own acknowledgements can end its pause.
    let mut rig = Rig::with(1, sim::Settings::default(), |settings| settings.hold_ms = HOLD_MS);
    let both = rig.subscriber_v3("both", "to/itself", 1);
    for packet_id in 1..=RECEIVE_MAXIMUM + 1 {
        rig.say(both, &publish_v3(packet_id, "to/itself", b"held"));
    }
    rig.say(both, &publish_v3(2_000, "to/itself", b"parked"));
    rig.run_ms(1_000);
    let mut deliveries = 0;
    for _ in 0..=RECEIVE_MAXIMUM / SEND_WINDOW_DEFAULT + 1 {
        for packet in rig.packets(both) {
            if packet[0] & 0xF0 == 0x30 {
                deliveries += 1;
                rig.say(both, &puback(packet_id_of(&packet)));
            }
        }
        rig.run_ms(100);
    }
    assert_eq!(deliveries, usize::from(RECEIVE_MAXIMUM) + 2, "the parked one too");
    assert_eq!((rig.ended_at(both), rig.parked_bytes_max()), (None, 0));
}

#[test]
fn a_publisher_that_stays_paused_with_too_much_parked_is_closed() {
    let (mut rig, _, publisher) = with_paused_publisher();
    let large = publish_v3(0, "elsewhere", &[0; 1_000]);
    let begun = rig.now();
    for _ in 0..4 * PARKED_BYTES_MAX / large.len() {
        rig.say(publisher, &large);
    }
    rig.run_ms(PARKED_STALL_MS - 1_000);
    let parked = rig.parked_bytes_max();
    assert!((PARKED_BYTES_MAX..PARKED_BYTES_MAX + RECEIVE_BYTES + large.len()).contains(&parked), "{parked}");
    assert!(rig.unsaid(publisher) > 0, "no more is read");
    assert_eq!(rig.ended_at(publisher), None, "closed early");
    let (_, at) = rig.end(publisher);
    super::handshake::assert_closed_within(begun, at, PARKED_STALL_MS..PARKED_STALL_MS + 2_000);
}

#[test]
fn a_publisher_that_is_paused_and_parks_little_is_kept() {
    let (mut rig, _, publisher) = with_paused_publisher();
    rig.say(publisher, &publish_v3(0, "elsewhere", &[0; 1_000]));
    rig.run_ms(3 * PARKED_STALL_MS);
    assert_eq!(rig.ended_at(publisher), None);
}

#[test]
fn what_was_parked_before_the_end_of_the_stream_counts_once_the_pause_is_over() {
    let (mut rig, recipient, publisher) = with_paused_publisher();
    let watcher = rig.subscriber_v3("watcher", "parked", 0);
    rig.say(publisher, &publish_v3(0, "parked", b"last words"));
    rig.finish(publisher);
    rig.run_ms(1_000);
    assert_eq!(rig.packets(watcher), Vec::<Vec<u8>>::new());
    acknowledge_all(&mut rig, recipient);
    assert_eq!(rig.packets(watcher), [publish_v3(0, "parked", b"last words")]);
    rig.end(publisher);
}
