//! What `$SYS` says of what the broker and its journal did.

use super::*;

/// The value that a new subscriber of that topic below `$SYS/broker/` is given.
fn value(bench: &mut Bench, slot: u32, name: &str) -> String {
    bench.connect(slot, &format!("observer-{name}"), true, 0);
    bench.seen(slot);
    bench.subscribe(slot, &format!("$SYS/broker/{name}"), 0);
    let seen = bench.seen(slot);
    let published = seen.iter().find(|packet| packet.starts_with("PUBLISH"));
    published.and_then(|packet| packet.split(' ').next_back()).expect("the value is retained").to_owned()
}

#[test]
fn what_was_acknowledged_and_what_of_it_was_recorded_is_told_with_the_journals_figures() {
    let mut bench = Bench::with(Settings { sys_interval_s: 1, ..settings() });
    bench.connect(1, "subscriber", true, 1_000);
    bench.subscribe(1, "a/b", 1);
    bench.connect(2, "publisher", true, 0);
    for packet_id in 1..=3 {
        bench.publish(2, "a/b", QoS::AtLeastOnce, packet_id, "m");
    }
    for packet_id in 1..=2 {
        bench.ack(1, 0x40, packet_id);
    }
    bench.wait_ms(u64::from(settings().hold_ms));
    bench.sync();
    bench.handle(Input::Journal { bytes_written: 8_192, bytes_appended: 700, bytes_copied: 90, syncs: 5 });
    bench.wait_ms(1_000);
    assert_eq!(value(&mut bench, 3, "messages/acknowledged"), "3");
    assert_eq!(value(&mut bench, 4, "messages/recorded"), "1", "two were acknowledged in time");
    assert_eq!(value(&mut bench, 5, "journal/bytes"), "8192");
    assert_eq!(value(&mut bench, 6, "journal/syncs"), "5");
}
