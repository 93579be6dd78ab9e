//! A file system that nothing can be written to.

use crate::load::{self, Books};
use crate::process::{Process, Start};
use crate::volume::Volume;

const BYTES: u64 = 128 << 20;

const WORDS: [&str; 2] = ["Read-only file system (os error 30)", "remount the file system of"];

#[test]
fn nothing_is_acknowledged_any_more_when_the_kernel_makes_the_file_system_read_only() {
    for reactor in ["epoll", "uring"] {
        let Some(mut volume) = Volume::new(BYTES) else { return };
        let data = volume.data();
        let start = Start { reactor, ..Start::on(&data) };
        let process = Process::start(start);
        load::subscribe_away(process.address);
        let mut books = Books::default();
        let mut publisher = load::publisher(process.address, 5);
        assert_eq!(books.publish(&mut publisher, 5, 2, 100, 100).accepted, 100);
        volume.find_error();
        let told = books.publish(&mut publisher, 5, 1, 100, 100);
        assert_eq!((told.accepted, told.unanswered), (0, 100));
        process.end().expect(&WORDS).expect(&["segment-000001 at byte", "start again"]);
        Process::refuses(start).expect(&WORDS);
        volume.repair();
        let process = Process::start(start);
        books.settle(process.address);
        println!("{reactor}: {books}");
    }
}

#[test]
fn a_file_system_in_use_stays_writable_and_a_start_on_a_read_only_one_says_what_to_do() {
    let Some(volume) = Volume::new(BYTES) else { return };
    let data = volume.data();
    let start = Start::on(&data);
    let process = Process::start(start);
    load::subscribe_away(process.address);
    let mut books = Books::default();
    let mut publisher = load::publisher(process.address, 5);
    // The kernel does not do that below files that are open for writing.
    volume.remount("ro").expect_err("the file system is busy");
    assert_eq!(books.publish(&mut publisher, 5, 1, 100, 100).accepted, 100);
    assert_eq!(process.terminate().status, Some(0));
    volume.remount("ro").expect("nobody uses it");
    Process::refuses(start).expect(&WORDS).expect(&["cannot lock"]);
    let new = volume.data().with_file_name("new");
    Process::refuses(Start::on(&new)).expect(&WORDS).expect(&["cannot make the directory"]);
    volume.remount("rw").expect("nothing is wrong with it");
    books.settle(Process::start(start).address);
}
