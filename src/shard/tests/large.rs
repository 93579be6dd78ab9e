//! A large PUBLISH, which is received in another way than small ones, seen from outside: nobody can tell.

use super::bytes::{PINGREQ, PINGRESP, Start, connect_v5, publish_v3, publish_with, subscribe_v3};
use super::parking;
use super::rig::{PeerId, Rig};
use crate::limits::LARGE_PACKET_BYTES_MIN;

/// Message expiry 60 s, a user property, an alias: of three kinds of bytes one is passed on.
const EXPIRES: [u8; 5] = [0x02, 0, 0, 0, 60];
const USER: [u8; 7] = [0x26, 0, 1, b'a', 0, 1, b'b'];
const ALIAS: [u8; 3] = [0x23, 0, 1];
const TEXT: [u8; 2] = [0x01, 1];

/// Topic, properties, payload, and which of the properties are passed on.
type Case<'a> = (&'a str, Vec<&'a [u8]>, Vec<u8>, Vec<&'a [u8]>);

fn payload(seed: u8) -> Vec<u8> {
    (0..2 * LARGE_PACKET_BYTES_MIN + 100 * usize::from(seed)).map(|place| (place / 7) as u8 ^ seed).collect()
}

fn client_v5(rig: &mut Rig, client_id: &str) -> PeerId {
    let peer = rig.peer();
    rig.say(peer, &connect_v5(client_id, Start::Clean, 0));
    assert_eq!(rig.packet(peer)[0], 0x20);
    peer
}

#[test]
fn whatever_fields_it_has_it_arrives_as_it_was_sent_and_so_does_what_is_behind_it() {
    let mut rig = Rig::new();
    let reader = client_v5(&mut rig, "reader");
    let mut subscribe = subscribe_v3(1, "large", 0);
    // No properties.
    subscribe[1] += 1;
    subscribe.insert(4, 0);
    rig.say(reader, &subscribe);
    assert_eq!(rig.packet(reader)[0], 0x90);
    let writer = client_v5(&mut rig, "writer");
    let text = vec![b'x'; LARGE_PACKET_BYTES_MIN];
    let cases: [Case<'_>; 5] = [
        ("large", vec![], payload(1), vec![]),
        ("large", vec![&EXPIRES, &USER, &ALIAS], payload(2), vec![&EXPIRES, &USER]),
        ("", vec![&ALIAS, &USER], payload(3), vec![&USER]),
        ("large", vec![&TEXT], text, vec![&TEXT]),
        ("large", vec![&USER], b"small".to_vec(), vec![&USER]),
    ];
    let mut wanted = Vec::new();
    for (topic, properties, payload, forwarded) in &cases {
        rig.say(writer, &publish_with(topic, &properties.concat(), payload));
        wanted.push(publish_with("large", &forwarded.concat(), payload));
    }
    rig.say(writer, &PINGREQ);
    rig.run_until("everything is said", |rig| rig.unsaid(writer) == 0);
    rig.run_ms(900);
    assert!(rig.packets(reader) == wanted, "not the same packets");
    assert_eq!(rig.packets(writer), [PINGRESP]);
}

#[test]
fn one_that_claims_to_be_text_and_is_none_is_refused_when_all_of_it_is_there() {
    let mut rig = Rig::new();
    let writer = client_v5(&mut rig, "writer");
    let mut payload = vec![b'x'; LARGE_PACKET_BYTES_MIN];
    *payload.last_mut().unwrap() = 0xFF;
    let packet = publish_with("large", &TEXT, &payload);
    let (last, others) = packet.split_last().unwrap();
    rig.say(writer, others);
    rig.run_ms(1_000);
    assert_eq!(rig.packets(writer), Vec::<Vec<u8>>::new());
    rig.say(writer, &[*last]);
    assert_eq!(rig.packet(writer), [0xE0, 1, 0x99]);
}

#[test]
fn one_of_a_publisher_that_is_paused_waits_like_any_other() {
    let (mut rig, recipient, publisher) = parking::with_paused_publisher();
    let watcher = rig.subscriber_v3("watcher", "parked", 0);
    let packet = publish_v3(0, "parked", &payload(9));
    rig.say(publisher, &packet);
    rig.run_until("everything is said", |rig| rig.unsaid(publisher) == 0);
    rig.run_ms(1_000);
    assert_eq!(rig.packets(watcher), Vec::<Vec<u8>>::new());
    parking::acknowledge_all(&mut rig, recipient);
    assert!(rig.packets(watcher) == [packet], "not the same packet");
}

#[test]
fn one_whose_publisher_is_gone_before_its_end_is_forgotten() {
    let mut rig = Rig::new();
    let watcher = rig.subscriber_v3("watcher", "large", 0);
    let packet = publish_v3(0, "large", &payload(4));
    let first = rig.client_v3("writer");
    rig.say(first, &packet[..packet.len() - 1]);
    rig.run_until("all but the end is said", |rig| rig.unsaid(first) == 0);
    rig.finish(first);
    rig.end(first);
    let second = rig.client_v3("writer");
    rig.say(second, &packet[..LARGE_PACKET_BYTES_MIN]);
    rig.run_ms(100);
    rig.say(second, &packet[LARGE_PACKET_BYTES_MIN..]);
    rig.run_ms(1_000);
    assert!(rig.packets(watcher) == [packet], "not the same packet");
}
