//! Limits of time: who makes no progress is let go. The clock is the real one, so everything waits at once.

use std::io::Read;
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use ironpost::limits;

use crate::broker::{Broker, Start, clock};
use crate::bytes::{self, Connect, Publish};
use crate::client::Client;
use crate::neighbours::Neighbours;

/// More files than a shell usually allows.
fn allow_files(count: usize) -> bool {
    let own = std::process::id().to_string();
    let raised = Command::new("prlimit").args(["--pid", &own, &format!("--nofile={count}:")]).status();
    raised.is_ok_and(|status| status.success())
}

fn stranger(broker: &Broker, number: usize) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(broker.address())?;
    if number.is_multiple_of(2) {
        let connect = Connect::v5(&format!("stranger {number}")).bytes();
        std::io::Write::write_all(&mut stream, &connect[..connect.len() / 2])?;
    }
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    Ok(stream)
}

/// When the broker closed it, without a word.
fn closed_at(stream: &mut TcpStream) -> Instant {
    match stream.read(&mut [0]) {
        Ok(0) => {}
        Ok(_) => panic!("nothing was asked and nothing is answered"),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
    clock()
}

#[test]
fn strangers_have_ten_seconds_and_beyond_4096_of_them_the_oldest_gives_way() {
    let broker = Broker::start_with(Start { shards: Some(1), ..Start::default() });
    let mut neighbours = Neighbours::of(&broker);
    if !allow_files(2 * limits::HANDSHAKES_PENDING_MAX) {
        println!("not run: this process may not open {} files", 2 * limits::HANDSHAKES_PENDING_MAX);
        return;
    }
    let opened = clock();
    let mut strangers: Vec<TcpStream> = (0..limits::HANDSHAKES_PENDING_MAX)
        .map(|number| stranger(&broker, number).expect("the kernel takes it"))
        .collect();
    let mut one_more = Client::v5(&broker, "one more");
    one_more.expect_nothing();
    closed_at(&mut strangers.remove(0));
    let allowed = Duration::from_millis(limits::HANDSHAKE_TIME_MS);
    assert!(opened.elapsed() < allowed, "the time of the first is not over yet, or this shows nothing");
    neighbours.go_on();
    let first = closed_at(&mut strangers[0]).duration_since(opened);
    for stranger in &mut strangers[1..] {
        let _ = closed_at(stranger);
    }
    let last = opened.elapsed();
    assert!(first >= allowed - Duration::from_millis(100) && last < 2 * allowed, "{first:?} to {last:?}");
    Client::v5(&broker, "late").expect_nothing();
    neighbours.go_on();
}

/// Fills a subscriber's output until no more fits, and leaves it unread.
fn stalled_reader(broker: &Broker) -> Client {
    let mut reader = Client::connect(broker, &Connect::v5("stalled"));
    reader.subscribe("stall/#", 0);
    let mut publisher = Client::v5(broker, "pushes");
    let text = "x".repeat(60_000);
    // Twice what the kernel's buffers take on loopback, and the broker's own.
    for _ in 0..300 {
        publisher.publish(&Publish::new("stall/it", &text));
    }
    publisher.expect_nothing();
    reader
}

/// Begins more exchanges than it may and never ends one: what it sends behind them is parked.
fn stalled_publisher(broker: &Broker) -> Client {
    let mut publisher = Client::connect(broker, &Connect::v3("parked"));
    let exchanges = limits::RECEIVE_MAXIMUM + 1;
    let bytes = |id: u16| Publish::new("parked/it", "x").qos(2, id).bytes(4);
    publisher.send(&(1..=exchanges).flat_map(bytes).collect::<Vec<u8>>());
    for id in 1..=exchanges {
        assert_eq!(publisher.receive(), bytes::success(5, id));
    }
    let text = "x".repeat(1_000);
    for number in 1..=(limits::PARKED_BYTES_MAX / 1_000) as u16 + 1 {
        publisher.publish(&Publish::new("parked/it", &text).qos(2, exchanges + number));
    }
    publisher
}

#[test]
fn who_neither_reads_nor_ends_its_exchanges_is_closed_after_thirty_seconds() {
    let broker = Broker::start();
    let mut neighbours = Neighbours::of(&broker);
    let begun = clock();
    let mut publisher = stalled_publisher(&broker);
    let mut reader = stalled_reader(&broker);
    let stalled = clock();
    neighbours.go_on();
    let parked = Duration::from_millis(limits::PARKED_STALL_MS);
    publisher.be_patient(2 * parked);
    let closed = publisher.wait_for_end();
    assert!(closed >= begun + parked && closed < stalled + 2 * parked, "{:?}", closed - begun);
    // The reader gets what was on its way, and then the end: not the rest.
    let output = Duration::from_millis(limits::OUTPUT_STALL_MS);
    while clock() < stalled + output + Duration::from_millis(2 * limits::SWEEP_MS) {
        neighbours.go_on();
    }
    let read = reader.read_to_end();
    assert!(read < 300 * 60_000, "{read} bytes");
    neighbours.go_on();
    Client::v5(&broker, "stalled").expect_nothing();
}
