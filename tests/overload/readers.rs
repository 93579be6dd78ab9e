//! A client that does not read: its output (`OUTPUT_BYTES_MAX`) and its queue are bounded, and nobody else waits for it.

use crate::broker::{Broker, Start};
use crate::bytes::Publish;
use crate::client::Client;
use crate::neighbours::Neighbours;

#[test]
fn a_reader_that_stops_reading_delays_nobody_and_goes_on_with_what_fits_its_queue() {
    let config = "[broker]\nqueue_messages_max = 50\nsys_interval_s = 0\n".into();
    let broker = Broker::start_with(Start { config, ..Start::default() });
    let mut neighbours = Neighbours::of(&broker);
    let mut stopped = Client::v5(&broker, "stopped");
    let mut reading = Client::v5(&broker, "reading");
    for client in [&mut stopped, &mut reading] {
        assert_eq!(client.subscribe("news", 0), 0);
    }
    let mut publisher = Client::v5(&broker, "publisher");
    // The kernel's buffers hold several megabytes, the broker's own a quarter of one, the queue 50 of these.
    let text = "x".repeat(100_000);
    for number in 0..300 {
        publisher.publish(&Publish::new("news", &format!("{number} {text}")));
        reading.expect(&format!("{number} {text}"));
    }
    neighbours.go_on();
    let mut last = None;
    let mut seen = 0;
    publisher.publish(&Publish::new("news", "over"));
    publisher.expect_nothing();
    reading.expect("over");
    // Everything that was queued, in order, with a gap where the queue was full.
    while stopped.hears_within(std::time::Duration::from_millis(500)) {
        let publish = stopped.receive_publish();
        let number: u32 = publish.text().split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
        assert!(last.is_none_or(|last| last < number), "{number} after {last:?}");
        last = Some(number);
        seen += 1;
    }
    assert!((51..290).contains(&seen), "{seen} of 300");
    publisher.publish(&Publish::new("news", "again"));
    stopped.expect("again");
    neighbours.go_on();
}
