//! `ironpost journal verify` on directories that a real broker wrote: it changes nothing, and says what is damaged.

use std::path::Path;
use std::process::Command;

use crate::load::{self, Books};
use crate::process::{Ended, Process, Start};
use crate::refusals::{cut, tree};

fn verify(data: &Path, more: &[&str]) -> Ended {
    let output = Command::new(env!("CARGO_BIN_EXE_ironpost"))
        .args(["journal", "verify", "--data"])
        .arg(data)
        .args(more)
        .output()
        .expect("the program can be started");
    let said = [output.stdout, output.stderr].concat();
    Ended { status: output.status.code(), said: String::from_utf8(said).expect("text") }
}

/// It ends with that status, says all of that, and has changed nothing.
fn says(data: &Path, status: i32, words: &[&str]) {
    let before = tree(data);
    for more in [&[][..], &["--json"]] {
        let ended = verify(data, more);
        assert_eq!(ended.status, Some(status), "{}", ended.said);
        let words = words.iter().filter(|_| more.is_empty());
        words.for_each(|word| assert!(ended.said.contains(word), "no word of {word:?} in:\n{}", ended.said));
        let json = format!("{{\"sound\":{},\"shards\":[", status == 0);
        assert!(more.is_empty() || status == 2 || ended.said.starts_with(&json), "{}", ended.said);
        assert!(!ended.said.contains("panicked"), "{}", ended.said);
    }
    assert!(tree(data) == before, "looking at {} changed something", data.display());
}

#[test]
fn verify_tells_a_sound_directory_from_a_damaged_one_and_changes_neither() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let start = Start { shards: 2, ..Start::on(&data) };
    let process = Process::start(start);
    load::subscribe_away(process.address);
    let mut books = Books::default();
    let mut publisher = load::publisher(process.address, 5);
    for _ in 0..4 {
        assert_eq!(books.publish(&mut publisher, 5, 1, 50, 1 << 10).accepted, 50);
    }
    let beside = verify(&data, &[]);
    assert_eq!(beside.status, Some(2), "{}", beside.said);
    assert!(beside.said.contains("another process uses it") && beside.said.contains("fuser -v"));
    // After a kill there is no witness, and perhaps a torn block: sound all the same.
    process.kill();
    says(&data, 0, &["shard 0: sound", "shard 1: sound", "checkpoint in use: none"]);
    let process = Process::start(start);
    assert_eq!(process.terminate().status, Some(0));
    says(&data, 0, &["shard 0: sound", "shard 1: sound"]);

    let segment = |content: &[u8]| content.windows(5).position(|window| window == b"store");
    let kept = tree(&data);
    let (path, content) = kept.iter().find(|(_, content)| segment(content).is_some()).expect("the queue");
    let at = segment(content).expect("just found there");
    let mut damaged = content.clone();
    damaged[at] ^= 1;
    std::fs::write(path, &damaged).unwrap();
    let name = path.display().to_string();
    says(&data, 1, &["DAMAGED", "defect:", &name, "at byte", "no valid block", "lost:", "what to do"]);
    Process::refuses(start).expect(&[&name]);
    std::fs::write(path, content).unwrap();
    cut(5_000)(path);
    says(&data, 1, &["DAMAGED", &name, "5000"]);
    std::fs::write(path, content).unwrap();

    let meta = data.join("meta");
    std::fs::rename(&meta, directory.path().join("meta")).unwrap();
    says(&data, 2, &["it is missing, but there are journals beside it"]);
    std::fs::rename(directory.path().join("meta"), &meta).unwrap();
    let shard = data.join("shard-001");
    std::fs::rename(&shard, directory.path().join("away")).unwrap();
    says(&data, 1, &["shard 1: DAMAGED", "the journal that was here is gone"]);
    std::fs::rename(directory.path().join("away"), &shard).unwrap();
    let nowhere = verify(&directory.path().join("nowhere"), &[]);
    assert_eq!(nowhere.status, Some(2));
    assert!(nowhere.said.contains("name the data directory with --data"), "{}", nowhere.said);

    let process = Process::start(start);
    books.settle(process.address);
}
