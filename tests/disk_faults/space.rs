//! No room: refused, never lost, and over by itself.

use std::time::Duration;

use crate::broker::clock;
use crate::bytes::{self, Connect, Packet, Publish};
use crate::client::Client;
use crate::load::{self, Books};
use crate::process::{Process, Start};
use crate::volume::Volume;

const MIB: u64 = 1 << 20;

/// Bytes of a message.
const SIZE: usize = 16 << 10;

/// More than the first segments hold.
const MANY: u32 = 3_000;

/// How soon publishers notice that there is room: segments are freed, and growing is tried again, once a second.
const NOTICED: Duration = Duration::from_secs(15);

/// Publishes until something is accepted again.
fn wait_for_room(books: &mut Books, client: &mut Client) {
    let begun = clock();
    while books.publish(client, 5, 1, 1, SIZE).accepted == 0 {
        assert!(begun.elapsed() < NOTICED, "there is room, and publishers are refused");
        client.hears_within(Duration::from_millis(50));
    }
}

/// What a broker without room for messages still does, and what it refuses.
fn refuses_and_serves(process: &Process) {
    let mut publisher = load::publisher(process.address, 5);
    publisher.publish(&Publish::new(load::TOPIC, "x").qos(2, 1));
    assert!(matches!(publisher.receive(), Packet::Ack { kind: 5, reason: 0x97, .. }));
    assert_eq!(publisher.publish_acknowledged(Publish::new(load::TOPIC, "x")), 0x97);
    let mut old = load::publisher(process.address, 4);
    old.publish(&Publish::new(load::TOPIC, "x").qos(1, 1));
    old.expect_close();
    // A session of its own would need the disk; one that ends with its connection does not.
    let mut new = Client::at(process.address, 5);
    new.send(&Connect::durable("new").bytes());
    new.expect_refused(0x97);
    let mut passing = Client::connect_at(process.address, &Connect::v5("passing"));
    assert_eq!(passing.subscribe("chat", 0), 0);
    publisher.publish(&Publish::new("chat", "hello"));
    passing.expect("hello");
}

fn is_full(reactor: &'static str) {
    let Some(volume) = Volume::new(192 * MIB) else { return };
    let data = volume.data();
    let start = Start { reactor, ..Start::on(&data) };
    let process = Process::start(start);
    load::subscribe_away(process.address);
    volume.take_room(0);
    let mut books = Books::default();
    let mut publisher = load::publisher(process.address, 5);
    let told = books.publish_until_refused(&mut publisher, 5, MANY, SIZE);
    assert!(told.refused > 0 && told.accepted > 500, "{told:?}");
    refuses_and_serves(&process);
    // Killed while others try, and started with no more room than before.
    let mut other = load::publisher(process.address, 5);
    other.send_regardless(&Publish::new(load::TOPIC, "99999999").qos(1, 1).bytes(5));
    process.kill();
    let mut process = Process::start(start);
    let mut publisher = load::publisher(process.address, 5);
    books.publish_until_refused(&mut publisher, 5, MANY, SIZE);
    refuses_and_serves(&process);
    assert!(process.serves().contains("journal_cannot_grow"), "{}", process.serves());
    // Readers make room.
    assert!(books.drain(process.address, 300) >= 300);
    process.kill();
    let process = Process::start(start);
    books.settle(process.address);
    load::subscribe_anew(process.address);
    let mut publisher = load::publisher(process.address, 5);
    wait_for_room(&mut books, &mut publisher);
    let told = books.publish_until_refused(&mut publisher, 5, MANY, SIZE);
    assert!(told.refused > 0, "{told:?}");
    // And so does whoever removes a file.
    volume.give_room();
    wait_for_room(&mut books, &mut publisher);
    let told = books.publish_until_refused(&mut publisher, 5, 400, SIZE);
    assert_eq!((told.refused, told.unanswered), (0, 0));
    books.settle(process.address);
    println!("{reactor}: {books}");
    assert_eq!(process.terminate().status, Some(0));
}

#[test]
fn a_full_disk_refuses_publishers_and_loses_nothing_with_epoll() {
    is_full("epoll");
}

#[test]
fn a_full_disk_refuses_publishers_and_loses_nothing_with_io_uring() {
    is_full("uring");
}

#[test]
fn readers_one_message_at_a_time_drain_a_full_disk() {
    let Some(volume) = Volume::new(128 * MIB) else { return };
    let data = volume.data();
    let process = Process::start(Start { config: "send_window = 1", ..Start::on(&data) });
    load::subscribe_away(process.address);
    volume.take_room(0);
    let mut books = Books::default();
    let mut publisher = load::publisher(process.address, 5);
    let told = books.publish_until_refused(&mut publisher, 5, MANY, SIZE + SIZE / 2);
    assert!(told.refused > 0 && told.accepted > 100, "{told:?}");
    books.settle(process.address);
    load::subscribe_anew(process.address);
    wait_for_room(&mut books, &mut publisher);
    books.settle(process.address);
}

#[test]
fn a_broker_that_waits_for_room_leaves_the_disk_alone() {
    let Some(volume) = Volume::new(128 * MIB) else { return };
    let data = volume.data();
    let process = Process::start(Start::on(&data));
    load::subscribe_away(process.address);
    // Not enough for the next segment, not even for a small one, and much for others.
    volume.take_room(7 * MIB);
    let mut books = Books::default();
    let mut publisher = load::publisher(process.address, 5);
    assert!(books.publish_until_refused(&mut publisher, 5, MANY, SIZE).refused > 0);
    let written = || {
        let text = std::fs::read_to_string(format!("/proc/{}/io", process.id())).expect("it runs");
        let line = text.lines().find_map(|line| line.strip_prefix("wchar: ")).expect("a line of that name");
        line.parse::<u64>().expect("a number")
    };
    let (before, begun) = (written(), clock());
    let mut least = u64::MAX;
    while begun.elapsed() < Duration::from_secs(4) {
        least = least.min(volume.room());
        publisher.hears_within(Duration::from_millis(20));
    }
    let wrote = written() - before;
    println!("{wrote} bytes written in 4 s, at least {least} free");
    assert!(wrote < MIB, "{wrote} bytes written while nobody publishes");
    assert!(least > 6 * MIB, "others had only {least} bytes");
}

/// Segments of the usual size would leave most of it unused.
#[test]
fn a_small_disk_is_used_up_in_small_segments() {
    let Some(volume) = Volume::new(192 * MIB) else { return };
    let process = Process::start(Start::on(&volume.data()));
    load::subscribe_away(process.address);
    volume.take_room(36 * MIB);
    let mut books = Books::default();
    let mut publisher = load::publisher(process.address, 5);
    // All of them would be more than a queue may hold, and then there is another reason to refuse some.
    let told = books.publish_until_refused(&mut publisher, 5, MANY + 800, SIZE);
    println!("{told:?}, {} bytes are free", volume.room());
    assert!(told.refused > 0 && volume.room() < 9 * MIB, "{told:?}, {} bytes are free", volume.room());
    books.settle(process.address);
}

#[test]
fn a_first_start_without_room_says_what_to_do_and_the_next_one_with_room_serves() {
    let Some(volume) = Volume::new(128 * MIB) else { return };
    let data = volume.data();
    for (room, shards) in [(0, 1), (60 << 10, 1), (20 * MIB, 1), (40 * MIB, 2)] {
        volume.take_room(room);
        let start = Start { shards, ..Start::on(&data) };
        let ended = Process::refuses(start);
        let words =
            ["No space left on device (os error 28)", "free space on the file system of", "df -h", "--data"];
        ended.expect(&words);
        volume.give_room();
        let mut process = Process::start(start);
        process.serves();
        let mut client = Client::connect_at(process.address, &Connect::durable("away"));
        assert_eq!(client.subscribe(load::TOPIC, 1), 1);
        let id = client.id();
        client.publish(&Publish::new(load::TOPIC, "x").qos(1, id));
        client.take("x");
        assert_eq!(client.receive(), bytes::success(4, id));
        process.kill();
        std::fs::remove_dir_all(&data).expect("the data can be removed");
    }
}
