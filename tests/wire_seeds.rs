//! The fuzz targets' seeds: a few dozen inputs each, kept under `tests/fuzz/seeds` and run here as ordinary tests.
//!
//! `cargo test --test wire_seeds -- --ignored` writes them again, after the generator learned something.

mod packets;

use std::path::{Path, PathBuf};

use ironpost::wire::{Version, decode};
use packets::{Choices, Random, check, damaged, valid};

const COUNT: usize = 32;
const TARGETS: [&str; 4] = ["decode_v3", "decode_v5", "frame_stream", "roundtrip"];

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds").join(target)
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder(target))
        .expect("the seeds are kept")
        .map(|entry| entry.expect("readable").path())
        .collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("readable")).collect()
}

/// One input for a target.
fn seed(target: &str, random: &mut Random, number: usize) -> Vec<u8> {
    let mut bytes = [0; 64];
    random.fill(&mut bytes);
    let mut choices = Choices::new(&bytes);
    match target {
        "decode_v3" => {
            valid(&mut choices, if number.is_multiple_of(4) { Version::V31 } else { Version::V311 }, true)
        }
        "decode_v5" => valid(&mut choices, Version::V5, true),
        "frame_stream" => {
            let mut input = vec![3, bytes[60] % 8, bytes[61] % 8, bytes[62]];
            for _ in 0..1 + number % 3 {
                input.extend(valid(&mut choices, Version::V5, true));
            }
            input
        }
        _ => [&[number as u8], bytes.as_slice()].concat(),
    }
}

#[test]
#[ignore = "writes files"]
fn write_the_seeds() {
    for target in TARGETS {
        std::fs::create_dir_all(folder(target)).expect("writable");
        let mut random = Random(7);
        for number in 0..COUNT {
            let path = folder(target).join(format!("{number:02}"));
            std::fs::write(path, seed(target, &mut random, number)).expect("writable");
        }
    }
}

#[test]
fn every_seed_holds() {
    for target in TARGETS {
        assert!(seeds(target).len() >= COUNT, "{target}");
    }
    for seed in seeds("decode_v5") {
        assert!(decode::packet(&seed, Some(Version::V5)).is_ok());
        check::frame(&seed, Version::V5);
    }
    for seed in seeds("decode_v3") {
        assert!(
            decode::packet(&seed, Some(Version::V311)).or(decode::packet(&seed, Some(Version::V31))).is_ok()
        );
        check::frame(&seed, Version::V31);
        check::frame(&seed, Version::V311);
    }
    for seed in seeds("frame_stream") {
        let (sizes, stream) = seed[1..].split_at(usize::from(seed[0]));
        let (packets, error) = check::cut(stream, sizes, 1_000);
        assert_eq!((packets.is_empty(), error), (false, None));
        assert_eq!((packets, error), check::cut(stream, &[], 1_000));
    }
    for seed in seeds("roundtrip") {
        let version = [Version::V31, Version::V311, Version::V5][usize::from(seed[0]) % 3];
        let mut choices = Choices::new(&seed[1..]);
        let frame = valid(&mut choices, version, true);
        check::frame(&frame, version);
        check::frame(&damaged(&mut choices, &frame), version);
    }
}
