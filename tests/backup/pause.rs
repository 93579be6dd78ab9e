//! How much a client notices of a backup: two of them, each with one thing under way at a time, before and while it is made.
//! One pings, which the shard answers by itself; the other publishes to a session that is away, which waits for the disk.
//!
//! ```text
//! BACKUP_MIB=4096 cargo test --release --test backup pause -- --nocapture
//! ```
//!
//! prints percentiles of both, and how long pinning kept the shard from its work, as the program measures it. `BACKUP_RATE`
//! (MiB/s) goes to the program.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::broker::clock;
use crate::bytes::{Connect, PINGREQ, Packet, Publish};
use crate::client::Client;
use crate::process::{Process, Start};
use crate::{backup, done, pause_ms, setting};

/// What the issue promises.
const PAUSE_MS_MAX: f64 = 10.0;

const MESSAGE_BYTES: usize = 256 << 10;

fn fill(address: SocketAddr, mib: u64) {
    let mut away = Client::connect_at(address, &Connect::durable("away"));
    assert_eq!(away.subscribe("store/#", 1), 1);
    away.disconnect();
    let mut publisher = Client::connect_at(address, &Connect::v5("filler"));
    let payload = "x".repeat(MESSAGE_BYTES);
    let count = mib * (1 << 20) / MESSAGE_BYTES as u64;
    let (mut sent, mut acknowledged) = (0, 0);
    while acknowledged < count {
        while sent < count && sent - acknowledged < 32 {
            publisher.publish(&Publish::new("store/a", &payload).qos(1, (sent % 60_000) as u16 + 1));
            sent += 1;
        }
        assert!(matches!(publisher.receive_other(), Packet::Ack { kind: 4, reason: 0, .. }));
        acknowledged += 1;
    }
}

/// Does that again and again until told. Milliseconds that each took, sorted.
fn measure(stop: &AtomicBool, mut act: impl FnMut()) -> Vec<f64> {
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let begun = clock();
        act();
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        pause_ms(1);
    }
    times.sort_by(f64::total_cmp);
    times
}

fn percentiles(times: &[f64]) -> String {
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    let (p50, p99, p999) = (at(0.5), at(0.99), at(0.999));
    format!("{:6} times, p50 {p50:.2}, p99 {p99:.2}, p99.9 {p999:.2}, longest {:.2} ms", times.len(), at(1.0))
}

/// Both clients while that happens.
fn while_it<T>(address: SocketAddr, what: &str, it: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    let (result, pings, publishes) = std::thread::scope(|scope| {
        let pings = scope.spawn(|| {
            let mut client = Client::connect_at(address, &Connect::v5("pings"));
            measure(&stop, || {
                client.send(PINGREQ);
                assert_eq!(client.receive(), Packet::Pingresp);
            })
        });
        let publishes = scope.spawn(|| {
            let mut client = Client::connect_at(address, &Connect::v5("publishes"));
            measure(&stop, || assert_eq!(client.publish_acknowledged(Publish::new("store/b", "small")), 0))
        });
        let result = it();
        stop.store(true, Ordering::Relaxed);
        (result, pings.join().unwrap(), publishes.join().unwrap())
    });
    eprintln!("{what}: ping      {}", percentiles(&pings));
    eprintln!("{what}: durable   {}", percentiles(&publishes));
    result
}

fn pause_in(text: &str) -> f64 {
    let rest = text.split("for more than ").nth(1).unwrap_or_else(|| panic!("{text}"));
    rest.split(' ').next().and_then(|number| number.parse().ok()).expect("a number of ms")
}

#[test]
fn a_backup_pauses_a_shard_for_less_than_10_ms() {
    let mib = setting("BACKUP_MIB").unwrap_or(96);
    let rate = setting("BACKUP_RATE").map(|rate| rate.to_string());
    let more: Vec<&str> = rate.iter().flat_map(|rate| ["--rate", rate]).collect();
    let temporary = tempfile::tempdir().unwrap();
    let (data, target) = (temporary.path().join("data"), temporary.path().join("backup"));
    let config = "queue_bytes_max = 1099511627776\nqueue_messages_max = 10000000";
    let process = Process::start(Start { config, ..Start::on(&data) });
    fill(process.address, mib);
    let seconds = if mib > 256 { 20 } else { 1 };
    while_it(process.address, "without    ", || pause_ms(seconds * 1_000));
    let mut shortest = f64::MAX;
    for which in ["the first  ", "the second ", "the third  "] {
        let text =
            while_it(process.address, which, || done(&backup(&data, &target, &more).output().unwrap()));
        eprint!("{text}");
        // Another process may have the processor just then; all three times is no accident.
        shortest = shortest.min(pause_in(&text));
    }
    assert!(shortest < PAUSE_MS_MAX, "{shortest} ms");
    while_it(process.address, "afterwards ", || pause_ms(seconds * 1_000));
}
