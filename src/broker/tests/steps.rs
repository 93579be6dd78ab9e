//! What gives way under pressure, in which order, and that it comes back by itself; and clients that are made to wait.

use super::*;
use crate::broker::overload::{Pressure, STEPS, Step};

impl Bench {
    fn feel(&mut self, pressure: Pressure) {
        self.handle(Input::Pressure { pressure });
        self.settle();
    }

    fn entered(&self) -> Vec<Step> {
        STEPS.into_iter().filter(|step| self.broker.gives_way(*step)).collect()
    }

    fn answer(&mut self, slot: u32, qos: QoS) -> Vec<String> {
        self.publish(slot, "a", qos, u16::from(qos != QoS::AtMostOnce) * 7, "m");
        self.settle();
        self.seen(slot)
    }
}

const CALM: Pressure = Pressure { lag: 0, memory: 0, output: 0, journal: 0, space: 0 };

fn memory(memory: u8) -> Pressure {
    Pressure { memory, ..CALM }
}

/// A publisher, 9, and a subscriber to "a", 1.
fn pair() -> Bench {
    let mut bench = Bench::new();
    bench.connect(9, "publisher", true, 0);
    bench.connect(1, "subscriber", true, 0);
    bench.subscribe(1, "a", 1);
    bench.seen(9);
    bench.seen(1);
    bench
}

#[test]
fn steps_are_entered_one_after_the_other_and_left_ten_percent_lower() {
    let mut bench = Bench::new();
    for (percent, count) in
        [(49, 0), (50, 1), (60, 2), (70, 3), (80, 4), (90, 5), (99, 5), (100, 6), (250, 6)]
    {
        bench.feel(memory(percent));
        assert_eq!(bench.entered(), STEPS[..count], "at {percent} %");
    }
    for (percent, count) in
        [(90, 6), (89, 5), (80, 5), (79, 4), (69, 3), (60, 3), (50, 2), (41, 1), (40, 1), (39, 0)]
    {
        bench.feel(memory(percent));
        assert_eq!(bench.entered(), STEPS[..count], "down to {percent} %");
    }
    assert_eq!(bench.broker.overload.times, [1; 6], "each was entered once");
}

#[test]
fn each_pressure_moves_what_relieves_it() {
    let all = |pressure| {
        let mut bench = Bench::new();
        bench.feel(pressure);
        bench.entered()
    };
    let [retained, newcomers, qos0, publishers, refused, publishes] = STEPS;
    assert_eq!(all(Pressure { lag: 100, ..CALM }), [retained, newcomers, qos0, publishers, refused]);
    assert_eq!(all(Pressure { memory: 100, ..CALM }), STEPS);
    assert_eq!(
        all(Pressure { output: 100, ..CALM }),
        [retained, newcomers, qos0],
        "who does not read keeps nobody from publishing"
    );
    assert_eq!(all(Pressure { journal: 100, ..CALM }), [retained, newcomers, publishers]);
    assert_eq!(all(Pressure { space: 100, ..CALM }), [publishes]);
}

#[test]
fn at_50_percent_retained_messages_wait_and_deliveries_do_not() {
    let mut bench = pair();
    bench.publish_with(9, "kept", QoS::AtLeastOnce, 7, "kept", true);
    bench.settle();
    bench.seen(9);
    bench.feel(memory(50));
    bench.connect(2, "late", true, 0);
    bench.subscribe(2, "kept", 1);
    assert_eq!(bench.seen(2), ["CONNACK false Success", "SUBACK"]);
    assert_eq!(bench.answer(9, QoS::AtMostOnce), Vec::<String>::new());
    assert_eq!(bench.seen(1), ["PUBLISH 0 0 m"]);
    bench.feel(CALM);
    assert_eq!(bench.seen(2), ["PUBLISH 1 1 kept"], "late, and not lost");
}

#[test]
fn at_70_percent_qos_0_is_dropped_and_qos_1_is_not() {
    let mut bench = pair();
    bench.feel(memory(70));
    bench.answer(9, QoS::AtMostOnce);
    assert_eq!(bench.seen(1), Vec::<String>::new());
    assert_eq!(bench.broker.statistics.dropped, 1, "and counted");
    bench.publish(9, "a", QoS::AtLeastOnce, 7, "m");
    assert_eq!(bench.seen(1), ["PUBLISH 1 1 m"]);
    bench.ack(1, 0x40, 1);
    bench.settle();
    assert_eq!(bench.seen(9), ["Puback 7 Success"]);
    bench.feel(memory(59));
    bench.answer(9, QoS::AtMostOnce);
    assert_eq!(bench.seen(1), ["PUBLISH 0 0 m"]);
}

#[test]
fn at_80_percent_who_publishes_waits_and_goes_on_by_itself() {
    let mut bench = pair();
    bench.feel(memory(80));
    assert_eq!(bench.answer(9, QoS::AtLeastOnce), Vec::<String>::new());
    assert_eq!(bench.seen(1), ["PUBLISH 1 1 m"], "it was taken");
    assert_eq!(bench.world.paused, [(9, true)]);
    bench.ack(1, 0x40, 1);
    bench.packet(9, &[0xC0, 0]);
    assert_eq!(
        bench.seen(9),
        ["Puback 7 Success", "Pingresp"],
        "acknowledgements and pings come before publishes"
    );
    bench.feel(memory(75));
    assert_eq!(bench.world.paused, [(9, true)], "not yet");
    bench.feel(memory(69));
    assert_eq!(bench.world.paused, [(9, true), (9, false)]);
}

#[test]
fn at_90_percent_who_has_no_session_is_refused_and_who_has_one_is_not() {
    let mut bench = pair();
    bench.connect(2, "old", true, 100);
    bench.handle(Input::Closed { connection: id(2) });
    bench.settle();
    bench.seen(2);
    bench.feel(memory(90));
    bench.connect(3, "new", true, 0);
    assert_eq!(bench.seen(3), ["CONNACK false Server busy"]);
    bench.connect(4, "old", false, 100);
    assert_eq!(bench.seen(4), ["CONNACK true Success"]);
    bench.feel(CALM);
    bench.connect(5, "new", true, 0);
    assert_eq!(bench.seen(5), ["CONNACK false Success"]);
}

#[test]
fn at_100_percent_publishes_are_refused_and_nobody_waits() {
    let mut bench = pair();
    bench.feel(memory(80));
    bench.answer(9, QoS::AtLeastOnce);
    bench.ack(1, 0x40, 1);
    bench.settle();
    bench.seen(9);
    bench.feel(memory(100));
    assert_eq!(bench.world.paused, [(9, true), (9, false)], "to be told");
    assert_eq!(bench.answer(9, QoS::AtLeastOnce), ["Puback 7 Quota exceeded"]);
    assert_eq!(bench.answer(9, QoS::ExactlyOnce), ["Pubrec 7 Quota exceeded"]);
    bench.feel(CALM);
    bench.seen(1);
    bench.publish(9, "a", QoS::AtLeastOnce, 7, "m");
    assert_eq!(bench.seen(1).len(), 1, "it is taken");
}

#[test]
fn who_is_throttled_is_paused_until_it_may_go_on_and_no_reason_ends_another() {
    let mut bench = pair();
    let throttle = |bench: &mut Bench, on| bench.handle(Input::Throttled { connection: id(9), on });
    throttle(&mut bench, true);
    throttle(&mut bench, true);
    throttle(&mut bench, false);
    assert_eq!(bench.world.paused, [(9, true), (9, false)]);
    bench.world.paused.clear();
    bench.feel(memory(80));
    bench.answer(9, QoS::AtLeastOnce);
    throttle(&mut bench, true);
    assert_eq!(bench.world.paused, [(9, true)], "it is already");
    bench.feel(CALM);
    assert_eq!(bench.world.paused, [(9, true)], "its own limit still holds");
    throttle(&mut bench, false);
    assert_eq!(bench.world.paused, [(9, true), (9, false)]);
}

#[test]
fn the_keep_alive_of_who_is_throttled_does_not_run_out() {
    let mut bench = Bench::new();
    bench.connect_as(9, &Connect { keep_alive: 10, ..connect("publisher") });
    bench.seen(9);
    bench.handle(Input::Throttled { connection: id(9), on: true });
    for _ in 0..10 {
        bench.wait_ms(10_000);
    }
    assert_eq!(bench.world.closed, []);
    bench.handle(Input::Throttled { connection: id(9), on: false });
    for _ in 0..4 {
        bench.wait_ms(5_000);
    }
    assert_eq!(bench.world.closed, [(9, CloseReason::KeepAlive)], "from there on it does");
}

#[test]
fn a_subscribe_in_excess_is_refused_and_a_publish_ends_the_connection() {
    let mut bench = pair();
    let bytes = [0x82, 11, 0, 9, 0, 0, 1, b'b', 1, 0, 1, b'c', 1];
    let packet = wire::decode::packet(&bytes, Some(Version::V5)).unwrap();
    bench.handle(Input::Refused { connection: id(1), packet: &packet });
    bench.settle();
    assert_eq!(
        bench.world.sent.remove(&1).unwrap(),
        [[0x90, 5, 0, 9, 0, 0x97, 0x97]],
        "quota exceeded, each"
    );
    bench.publish(9, "b", QoS::AtMostOnce, 0, "m");
    assert_eq!(bench.seen(1), Vec::<String>::new(), "it is not subscribed");
    let packet = Packet::Publish(publish("a", QoS::AtMostOnce, 0, "m"));
    bench.handle(Input::Refused { connection: id(9), packet: &packet });
    bench.settle();
    assert_eq!(bench.seen(9), ["DISCONNECT Message rate too high"]);
    assert_eq!(bench.world.closed, [(9, CloseReason::Limit)]);
    assert_eq!(bench.seen(1), Vec::<String>::new(), "and it is not taken");
}
