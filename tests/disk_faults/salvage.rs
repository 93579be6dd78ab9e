//! `ironpost journal salvage` and `inspect` on directories that a real broker wrote and that were damaged then: the start
//! is refused with the command, the command changes nothing in them, and a broker on the new directory delivers everything
//! but what the report misses.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::load::{self, Books};
use crate::process::{Ended, Process, Start};
use crate::refusals::tree;
use crate::volume::Volume;

/// What every payload has a piece of.
const PAYLOAD: &str = "xxxxxxxx";

const SEGMENT_BYTES: usize = 8 << 20;

fn journal(command: &str, data: &Path, more: &[&str]) -> Ended {
    let output = Command::new(env!("CARGO_BIN_EXE_ironpost"))
        .args(["journal", command, "--data"])
        .arg(data)
        .args(more)
        .output()
        .expect("the program can be started");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).expect("text");
    assert!(!said.contains("panicked"), "{said}");
    Ended { status: output.status.code(), said }
}

/// It ends with that status, says all of that, and has changed nothing. Returns all that it said.
fn salvage(data: &Path, to: &Path, status: i32, words: &[&str], more: &[&str]) -> String {
    let before = tree(data);
    let to = to.to_str().expect("a path of ours");
    let ended = journal("salvage", data, &[&["--to", to], more].concat());
    assert_eq!(ended.status, Some(status), "{}", ended.said);
    words
        .iter()
        .for_each(|word| assert!(ended.said.contains(word), "no word of {word:?} in:\n{}", ended.said));
    assert!(tree(data) == before, "salvage changed something in {}", data.display());
    ended.said
}

/// The sum of the numbers behind that name in JSON.
fn sum(json: &str, name: &str) -> u64 {
    let digits = |rest: &str| rest.chars().take_while(char::is_ascii_digit).collect::<String>();
    json.split(&format!("\"{name}\":"))
        .skip(1)
        .map(|rest| digits(rest).parse::<u64>().expect("a number"))
        .sum()
}

/// A broker that was killed with a queue of so many rounds of 100 messages.
fn killed(data: &Path, shards: u16, rounds: u32) -> Books {
    let (process, books) = filled(data, shards, rounds);
    process.kill();
    books
}

/// A broker with such a queue.
fn filled(data: &Path, shards: u16, rounds: u32) -> (Process, Books) {
    let process = Process::start(Start { shards, ..Start::on(data) });
    load::subscribe_away(process.address);
    let mut books = Books::default();
    let mut publisher = load::publisher(process.address, 5);
    for _ in 0..rounds {
        for qos in [1, 2] {
            assert_eq!(books.publish(&mut publisher, 5, qos, 50, 4 << 10).accepted, 50);
        }
    }
    (process, books)
}

/// Segments of the queue, and the places of its messages in them.
fn queue(data: &Path) -> Vec<(PathBuf, Vec<u8>, Vec<usize>)> {
    let places = |content: &[u8]| -> Vec<usize> {
        let hits = content.windows(9).enumerate().filter(|(_, window)| window.starts_with(b"store0000"));
        hits.map(|(at, _)| at).collect()
    };
    let segments = tree(data).into_iter().filter(|(_, content)| content.len() >= SEGMENT_BYTES);
    let with_places = segments.map(|(path, content)| {
        let places = places(&content);
        (path, content, places)
    });
    with_places.filter(|(_, _, places)| !places.is_empty()).collect()
}

/// The new directory is sound, a broker starts on it, and delivers what the report says that it has; what else is owed is
/// among the lost.
fn has_the_rest(mut books: Books, to: &Path, shards: u16, report: &str) -> usize {
    let verified = journal("verify", to, &[]);
    assert_eq!(verified.status, Some(0), "{}", verified.said);
    let (owed, queued, under_way) = (books.owed(), sum(report, "queued"), sum(report, "under_way"));
    let process = Process::start(Start { shards, ..Start::on(to) });
    let taken = books.drain_what_there_is(process.address);
    let missing = books.owed();
    // Of those under way, some are in the queue already.
    assert!((queued..=queued + under_way).contains(&(taken as u64)), "{taken}: {report}");
    assert!(missing + taken >= owed && missing as u64 <= sum(report, "records_lost"), "{missing}: {report}");
    assert_eq!(process.terminate().status, Some(0));
    missing
}

#[test]
fn a_reader_gets_everything_that_the_report_on_a_damaged_journal_does_not_miss() {
    let directory = tempfile::tempdir().unwrap();
    let (data, to) = (directory.path().join("data"), directory.path().join("new"));
    let books = killed(&data, 2, 10);
    // The reader's home has more of them than the publisher's, if that is another.
    let home = queue(&data).into_iter().max_by_key(|(_, _, places)| places.len());
    let (path, mut content, places) = home.expect("a queue");
    for at in [places.len() / 4, places.len() / 2] {
        content[places[at]] ^= 4;
    }
    std::fs::write(&path, &content).unwrap();
    Process::refuses(Start { shards: 2, ..Start::on(&data) })
        .expect(&["ironpost journal salvage --to NEW_DIRECTORY"]);

    let inside = data.join("new");
    salvage(&data, &inside, 2, &["inside the damaged directory"], &[]);
    assert!(!inside.exists());
    let words = salvage(&data, &to, 1, &["DAMAGED", "lost:", "client \"away\"", "something is missing"], &[]);
    let [text, json] = ["salvage-report.txt", "salvage-report.json"]
        .map(|name| std::fs::read_to_string(to.join(name)).expect("the report is in the new directory"));
    assert!(words.contains(&text), "{text}");
    assert!(json.contains("\"client_id\":\"away\"") && json.contains(path.to_str().unwrap()), "{json}");
    salvage(&data, &to, 2, &["there is something in it", "empty"], &[]);
    let missing = has_the_rest(books, &to, 2, &json);
    assert!(missing > 0, "the damage hit messages");
    println!("{missing} of 1000 messages are missing, {} records were lost", sum(&json, "records_lost"));
}

#[test]
fn what_the_other_shards_have_is_salvaged_where_one_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let (data, to) = (directory.path().join("data"), directory.path().join("new"));
    let (process, books) = filled(&data, 2, 2);
    // Nothing is under way any more, so one shard has it all.
    assert_eq!(process.terminate().status, Some(0));
    let of_reader = journal("inspect", &data, &["--session", "away", "--needed"]).said;
    let other = if of_reader.starts_with("shard=0 ") { "shard-001" } else { "shard-000" };
    std::fs::rename(data.join(other), directory.path().join("away")).unwrap();
    Process::refuses(Start { shards: 2, ..Start::on(&data) }).expect(&["ironpost journal salvage --to"]);
    let json = salvage(&data, &to, 1, &["\"state\":\"missing\"", "\"state\":\"whole\""], &["--json"]);
    assert_eq!(has_the_rest(books, &to, 2, &json), 0);
}

#[test]
fn nothing_is_missing_of_a_sound_directory_and_a_running_one_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (data, to) = (directory.path().join("data"), directory.path().join("new"));
    let mut books = killed(&data, 3, 3);
    let start = Start { shards: 3, ..Start::on(&data) };
    let process = Process::start(start);
    // The broker writes meanwhile, so nothing is compared.
    let beside = journal("salvage", &data, &["--to", to.to_str().unwrap()]);
    assert_eq!(beside.status, Some(2), "{}", beside.said);
    assert!(beside.said.contains("another process uses it") && !to.exists(), "{}", beside.said);
    books.drain(process.address, 120);
    process.kill();
    salvage(&data, &to, 0, &["nothing is missing", "whole"], &[]);
    let process = Process::start(Start { shards: 3, ..Start::on(&to) });
    books.settle(process.address);
}

#[test]
fn what_a_lost_meta_file_said_is_found_in_the_segments() {
    let directory = tempfile::tempdir().unwrap();
    let (data, to) = (directory.path().join("data"), directory.path().join("new"));
    let mut books = killed(&data, 2, 1);
    let meta = data.join("meta");
    let mut content = std::fs::read(&meta).unwrap();
    content[20] ^= 1;
    std::fs::write(&meta, content).unwrap();
    Process::refuses(Start { shards: 2, ..Start::on(&data) }).expect(&["ironpost journal salvage --to"]);
    salvage(&data, &to, 0, &["meta", "what it said is in the segments", "nothing is missing"], &[]);
    std::fs::remove_dir_all(&to).unwrap();
    std::fs::remove_file(&meta).unwrap();
    Process::refuses(Start { shards: 2, ..Start::on(&data) }).expect(&["ironpost journal salvage --to"]);
    // Journals of another number of shards beside them, and nobody knows which count.
    std::fs::create_dir(data.join("shard-000.1")).unwrap();
    for (path, content) in tree(&data.join("shard-000")) {
        std::fs::write(data.join("shard-000.1").join(path.file_name().unwrap()), content).unwrap();
    }
    salvage(&data, &to, 2, &["it is missing, but there are journals beside it"], &[]);
    assert!(!to.exists());
    std::fs::remove_dir_all(data.join("shard-000.1")).unwrap();
    salvage(&data, &to, 0, &["nothing is missing"], &[]);
    let process = Process::start(Start { shards: 2, ..Start::on(&to) });
    books.settle(process.address);
}

#[test]
fn a_disk_that_fills_up_leaves_no_data_directory() {
    let Some(volume) = Volume::new(48 << 20) else { return };
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut books = killed(&data, 2, 1);
    let to = volume.data();
    salvage(&data, &to, 2, &["there are", "MiB", "what to do: free space", "is no data directory"], &[]);
    assert!(!to.join("meta").exists());
    Process::refuses(Start { shards: 2, ..Start::on(&to) });
    let process = Process::start(Start { shards: 2, ..Start::on(&data) });
    books.settle(process.address);
}

#[test]
fn inspect_shows_every_record_and_no_payload() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let (process, _) = filled(&data, 2, 2);
    assert_eq!(process.terminate().status, Some(0));
    let before = tree(&data);
    let lines = |more: &[&str], status: i32| -> Vec<String> {
        let ended = journal("inspect", &data, more);
        assert_eq!(ended.status, Some(status), "{}", ended.said);
        assert!(!ended.said.contains(PAYLOAD), "a payload");
        ended.said.lines().map(str::to_owned).collect()
    };
    let count = |lines: &[String], word: &str| lines.iter().filter(|line| line.contains(word)).count();
    let all = lines(&[], 0);
    // 100 at QoS 1, and 100 at QoS 2 with their way in.
    assert_eq!(count(&all, "type=\"Inbound\""), 100);
    assert_eq!(count(&all, "topic=\"store\" qos=1"), 100);
    assert_eq!(count(&all, "client_id=\"away\""), 1);
    assert_eq!(count(&all, ": sound, a start needs"), 2);
    let json = lines(&["--json"], 0);
    assert_eq!(json.len(), all.len());
    assert!(json.iter().all(|line| line.starts_with("{\"shard\":") && line.ends_with('}')), "{json:?}");
    assert_eq!(count(&json, "\"payload_bytes\":4104,"), count(&all, "payload_bytes=4104 "));
    let some = lines(&["--from", "5", "--to", "8", "--json", "--shard", "0"], 0);
    assert!((1..=5).contains(&some.len()), "{some:?}");
    let away = lines(&["--session", "away", "--needed"], 0);
    assert_eq!(count(&away, "type=\"Inbound\""), 0);
    assert!(count(&away, "type=\"Message\"") + count(&away, "type=\"Deliver\"") >= 200, "{}", away.len());
    let publisher = lines(&["--session", "publisher"], 0);
    assert_eq!(count(&publisher, "topic="), 0, "its session does not outlive its connection");
    let segments = lines(&["--segments"], 0);
    assert_eq!(count(&segments, "kind=\"log\" state=\"in use\""), 2, "{segments:?}");
    assert_eq!(count(&segments, "kind=\"unused\" state=\"free\""), 6, "{segments:?}");
    lines(&["--shard", "2"], 2);
    assert!(tree(&data) == before, "looking changed something");

    let (path, mut content, places) = queue(&data).pop().expect("a queue");
    content[places[places.len() / 2]] ^= 4;
    std::fs::write(&path, &content).unwrap();
    let damaged = lines(&["--json"], 1);
    assert!(damaged.len() < all.len() && count(&damaged, "\"sound\":false") == 1, "{damaged:?}");
    assert_eq!(count(&damaged, "\"lost\":[{\"first\":"), 1, "{:?}", damaged.last());
    let segments = lines(&["--segments"], 1);
    assert_eq!(count(&segments, "state=\"damaged\""), 1, "{segments:?}");
}
