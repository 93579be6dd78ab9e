//! Hot sockets and quiet ones: nobody takes more than a read per turn, and everybody gets one.

use super::bytes::{PINGREQ, PINGRESP, packet, puback, publish_v3, subscribe_v3};
use super::pressure::memory_for;
use super::rig::{PeerId, Rig};
use crate::broker::overload::Step;
use crate::limits::{
    ADVANCE_BUDGET, ADVANCE_BYTES_PER_UNIT, RECEIVE_BYTES, RECEIVES_PER_TURN_MAX, WORK_HEAVY_MIN, WORK_HUGE,
    WORK_PER_TURN_MAX, WORK_WAIT_NS,
};
use crate::reactor::sim;

/// Nothing is late and nothing is short: what is counted in turns does not depend on the seed.
fn at_once() -> sim::Settings {
    sim::Settings {
        network_latency_ns: (0, 0),
        short_transfer_per_mille: 0,
        backlog_max: 1_024,
        ..sim::Settings::default()
    }
}

/// Gives it far more to say than its socket holds.
fn make_hot(rig: &mut Rig, peer: PeerId, bytes: usize) {
    let publish = publish_v3(0, "to/nobody", &[0; 1_000]);
    rig.say(peer, &publish.repeat(bytes / publish.len()));
}

/// One turn of the only shard, between two looks of every peer at its socket.
fn turn(rig: &mut Rig) {
    rig.pump();
    rig.turn(0);
    rig.world.step();
    rig.pump();
}

#[test]
fn a_hot_socket_is_read_once_per_turn() {
    let mut rig = Rig::with(1, at_once(), |_| {});
    let hot = rig.client_v3("hot");
    make_hot(&mut rig, hot, 4 << 20);
    for _ in 0..10 {
        turn(&mut rig);
    }
    let mut before = rig.unsaid(hot);
    for _ in 0..50 {
        turn(&mut rig);
        let taken = before - rig.unsaid(hot);
        assert!(taken <= RECEIVE_BYTES, "{taken} bytes in one turn");
        before = rig.unsaid(hot);
    }
    assert!(before < (4 << 20) - 25 * RECEIVE_BYTES, "it is read in most turns: {before} bytes are left");
}

#[test]
fn small_packets_have_no_longer_a_turn_because_many_fit_a_read() {
    let mut rig = Rig::with(1, at_once(), |_| {});
    let hot = rig.client_v3("hot");
    // A ping counts eight times.
    let pings_max = WORK_PER_TURN_MAX / 8;
    let count = 5 * pings_max + 1;
    assert!(count * PINGREQ.len() < RECEIVE_BYTES, "they come in one read");
    rig.say(hot, &PINGREQ.repeat(count));
    let mut answers = Vec::new();
    while answers.iter().sum::<usize>() < count {
        assert!(answers.len() < 20, "{answers:?}");
        turn(&mut rig);
        answers.push(rig.packets(hot).len());
    }
    let mut answered = 0;
    for (turns, answers) in (1..).zip(answers) {
        answered += answers;
        assert!(answered <= turns * pings_max, "{answered} answers after {turns} turns");
    }
}

#[test]
fn a_quiet_client_is_answered_at_once_beside_a_few_that_always_have_more() {
    let mut rig = Rig::with(1, at_once(), |_| {});
    let quiet = rig.client_v3("quiet");
    let hot: Vec<_> = (0..2).map(|number| rig.client_v3(&format!("hot-{number}"))).collect();
    hot.iter().for_each(|peer| rig.say(*peer, &PINGREQ.repeat(100_000)));
    for _ in 0..30 {
        turn(&mut rig);
        rig.say(quiet, &PINGREQ);
        let mut turns = 0;
        while rig.packets(quiet) != [PINGRESP] {
            turns += 1;
            assert!(turns <= 3, "no answer after {turns} turns");
            turn(&mut rig);
        }
    }
    assert!(hot.iter().all(|peer| rig.unsaid(*peer) > 0), "they have more to say");
}

#[test]
fn a_quiet_client_is_answered_within_a_few_turns_beside_more_hot_ones_than_a_turn_reads_from() {
    let mut rig = Rig::with(1, at_once(), |_| {});
    let quiet = rig.client_v3("quiet");
    let hot: Vec<_> =
        (0..RECEIVES_PER_TURN_MAX + 50).map(|number| rig.client_v3(&format!("hot-{number}"))).collect();
    hot.iter().for_each(|peer| make_hot(&mut rig, *peer, 512 << 10));
    for _ in 0..5 {
        turn(&mut rig);
    }
    assert!(hot.iter().all(|peer| rig.unsaid(*peer) > 0), "they have more to say");
    rig.say(quiet, &PINGREQ);
    let mut turns = 0;
    while rig.packets(quiet) != [PINGRESP] {
        turns += 1;
        assert!(turns <= 8, "no answer after {turns} turns");
        turn(&mut rig);
    }
    assert!(hot.iter().all(|peer| rig.unsaid(*peer) > 0), "they still have");
    // Nor does a hot one starve behind the others. They bring more than is placed, so they are paused and go on in turn,
    // each with what it has parked before anything more is read from it: a round takes many turns.
    let before: Vec<_> = hot.iter().map(|peer| rig.unsaid(*peer)).collect();
    for _ in 0..400 {
        turn(&mut rig);
    }
    assert!(hot.iter().zip(before).all(|(peer, before)| rig.unsaid(*peer) < before), "one was not read");
}

#[test]
fn publishers_who_send_more_than_is_placed_are_all_read_alike() {
    // limits::UNPLACED_MESSAGES_AHEAD
    let mut rig = Rig::with(1, at_once(), |_| {});
    let _recipient = rig.subscriber_v3("recipient", "to/all", 0);
    let publishers: Vec<PeerId> =
        (0..200).map(|number| rig.client_v3(&format!("publisher-{number}"))).collect();
    let publish = publish_v3(0, "to/all", &[0; 1_000]);
    let said = 50 * RECEIVE_BYTES;
    for publisher in &publishers {
        rig.say(*publisher, &publish.repeat(said / publish.len()));
    }
    let left = |rig: &Rig| {
        let left: Vec<usize> = publishers.iter().map(|publisher| rig.unsaid(*publisher)).collect();
        (left.iter().min().copied().unwrap(), left.iter().max().copied().unwrap())
    };
    while left(&rig).0 > said / 2 {
        turn(&mut rig);
        assert_eq!(rig.parked_bytes_max(), 0, "what they send waits in their sockets");
    }
    let (least, most) = left(&rig);
    assert!(most - least <= 2 * RECEIVE_BYTES, "one has {least} bytes left, another {most}");
}

/// A SUBSCRIBE to 50 filters.
fn subscribe_many(packet_id: u16) -> Vec<u8> {
    subscribe_to(50, packet_id)
}

fn subscribe_to(count: usize, packet_id: u16) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    for number in 0..count {
        let filter = format!("one/of/many/{packet_id:02}/{number:02}/filters");
        body.extend_from_slice(&(filter.len() as u16).to_be_bytes());
        body.extend_from_slice(filter.as_bytes());
        body.push(0);
    }
    packet(0x82, &body)
}

/// As how much work a SUBSCRIBE to so many filters counts, and how long what is said behind it waits, in nanoseconds.
fn wait_behind(filters: usize) -> (usize, u64) {
    let mut rig = Rig::with(1, at_once(), |_| {});
    let client = rig.client_v3("subscribes");
    let heavy = subscribe_to(filters, 1);
    let begun = rig.now();
    rig.say(client, &[&heavy[..], &subscribe_v3(2, "a", 0)].concat());
    let mut subacks = 0;
    while subacks < 2 {
        rig.step();
        subacks += rig.packets(client).len();
    }
    (32 + heavy.len() / 8, rig.now().0 - begun.0)
}

#[test]
fn who_sends_a_heavy_packet_waits_and_who_sends_a_huge_one_longer() {
    let (work, waited) = wait_behind(4);
    assert!(work < WORK_HEAVY_MIN && waited < WORK_WAIT_NS, "{work}: {waited} ns");
    for filters in [5, 400] {
        let (work, waited) = wait_behind(filters);
        let least = work as u64 * WORK_WAIT_NS;
        assert!((WORK_HEAVY_MIN..WORK_HUGE).contains(&work), "{work}");
        assert!((least..least + least / 4).contains(&waited), "{work}: {waited} ns, {least} at least");
    }
    let (work, waited) = wait_behind(1_000);
    let least = 2 * work as u64 * WORK_WAIT_NS;
    assert!((WORK_HUGE..2 * WORK_HUGE).contains(&work), "{work}");
    assert!((least..least + least / 4).contains(&waited), "{work}: {waited} ns, {least} at least");
}

#[test]
fn who_sends_packets_that_are_much_work_waits_between_them_and_pings_do_not() {
    let mut rig = Rig::with(1, at_once(), |_| {});
    let client = rig.client_v3("subscribes");
    let begun = rig.now();
    for packet_id in 1..=10 {
        rig.say(client, &subscribe_many(packet_id));
    }
    rig.say(client, &PINGREQ);
    rig.run_ms(10);
    let heard = rig.packets(client);
    assert!(heard.contains(&PINGRESP.to_vec()), "{} packets", heard.len());
    let mut subacks = heard.len() - 1;
    while subacks < 10 {
        rig.run_ms(1);
        subacks += rig.packets(client).len();
    }
    let work = (32 + subscribe_many(1).len() / 8) as u64;
    let least_ms = 9 * work * WORK_WAIT_NS / 1_000_000;
    let took_ms = rig.now().ms_since(begun);
    assert!((least_ms..3 * least_ms).contains(&took_ms), "{took_ms} ms, {least_ms} at least");
}

#[test]
fn much_work_of_many_clients_is_done_a_packet_a_turn_and_nobody_else_waits() {
    let mut rig = Rig::with(1, at_once(), |_| {});
    let quiet = rig.client_v3("quiet");
    let clients: Vec<_> = (0..20).map(|number| rig.client_v3(&format!("subscribes-{number}"))).collect();
    clients.iter().for_each(|client| rig.say(*client, &subscribe_many(1)));
    let (mut answered, mut turns) = (0, 0);
    while answered < clients.len() {
        rig.say(quiet, &PINGREQ);
        let begun = turns;
        while rig.packets(quiet) != [PINGRESP] {
            turn(&mut rig);
            turns += 1;
            assert!(turns - begun <= 4, "no answer in four turns, beside {answered} that were answered");
        }
        answered += clients.iter().map(|client| rig.packets(*client).len()).sum::<usize>();
        assert!(answered <= turns, "{answered} in {turns} turns");
        assert!(turns < 100, "{answered} were answered");
    }
}

#[test]
fn much_work_that_was_parked_by_many_is_done_a_packet_a_turn_too() {
    let mut rig = Rig::with(1, at_once(), |_| {});
    let clients: Vec<_> = (0..20).map(|number| rig.client_v3(&format!("subscribes-{number}"))).collect();
    rig.shard(0).memory_in_use(memory_for(Step::PublishersWait));
    rig.turn(0);
    // Who publishes waits from then on, and all of them go on at the same time.
    let both = [publish_v3(1, "to/nobody", b"m"), subscribe_many(1)].concat();
    clients.iter().for_each(|client| rig.say(*client, &both));
    rig.run_ms(100);
    for client in &clients {
        assert_eq!(rig.packets(*client), [puback(1)]);
    }
    rig.shard(0).memory_in_use(0);
    let (mut answered, mut turns) = (0, 1);
    for _ in 0..1_000 {
        rig.step();
        turns += usize::from(answered > 0);
        answered += clients.iter().map(|client| rig.packets(*client).len()).sum::<usize>();
        assert!(answered <= turns, "{answered} in {turns} turns");
    }
    assert_eq!(answered, clients.len());
}

#[test]
fn a_large_message_to_many_leaves_in_several_turns() {
    let most = ADVANCE_BUDGET as usize * ADVANCE_BYTES_PER_UNIT;
    let mut rig = Rig::with(1, at_once(), |_| {});
    let subscribers: Vec<_> =
        (0..50).map(|number| rig.subscriber_v3(&format!("subscriber-{number}"), "to/all", 0)).collect();
    let publisher = rig.client_v3("publisher");
    let message = publish_v3(0, "to/all", &[7; 32 << 10]);
    rig.say(publisher, &message);
    // What is heard after a turn may be of that one and the last.
    let (mut heard, mut turns) = (0, 1);
    while heard < subscribers.len() * message.len() {
        turn(&mut rig);
        turns += usize::from(heard > 0);
        heard += subscribers.iter().map(|subscriber| rig.take_heard(*subscriber).len()).sum::<usize>();
        assert!(heard <= turns * (most + message.len()), "{heard} bytes in {turns} turns");
        assert!(turns < 100, "{heard} bytes");
    }
}

#[test]
fn who_publishes_what_matches_thousands_of_subscriptions_waits_in_between() {
    // Also if each packet's end comes with the beginning of the next.
    publish_what_matches_thousands(0);
    publish_what_matches_thousands(10);
}

fn publish_what_matches_thousands(begins_at: usize) {
    let mut rig = Rig::with(1, at_once(), |_| {});
    for number in 0..5 {
        let subscriber = rig.client_v3(&format!("subscriber-{number}"));
        for bits in 0..512_u16 {
            let level = |bit: u16| if bits >> bit & 1 == 1 { "+" } else { "w" };
            let filter = (0..9).map(level).collect::<Vec<_>>().join("/");
            rig.say(subscriber, &subscribe_v3(bits + 1, &filter, 0));
        }
    }
    let witness = rig.subscriber_v3("witness", "w/w/w/w/w/w/w/w/w", 0);
    rig.run_ms(1_000);
    let publisher = rig.client_v3("publisher");
    let begun = rig.now();
    let packet = publish_v3(0, "w/w/w/w/w/w/w/w/w", b"w");
    let all = packet.repeat(20);
    let (first, rest) = all.split_at(begins_at);
    rig.say(publisher, first);
    for bytes in rest.chunks(packet.len()) {
        rig.say(publisher, bytes);
        // What one costs is known when the next one comes.
        rig.run_ms(1);
    }
    let mut delivered = 0;
    while delivered < 20 {
        rig.run_ms(1);
        delivered += rig.packets(witness).len();
    }
    let took_ms = rig.now().ms_since(begun);
    let least_ms = 18 * (5 * 512 / 16) * WORK_WAIT_NS / 1_000_000;
    assert!((least_ms..3 * least_ms).contains(&took_ms), "{took_ms} ms, {least_ms} at least, {begins_at}");
}
