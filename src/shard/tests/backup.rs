//! What a shard does for a backup: in which order it answers, and when it keeps things no longer.

use super::bytes::{Start, connect_v3, publish_v3, subscribe_v3};
use super::rig::Rig;
use crate::limits::BACKUP_MS_MAX;
use crate::reactor::sim;
use crate::shard::backup::{Answer, Ask, Reason};

fn answers(rig: &mut Rig) -> Vec<(u64, Answer)> {
    std::iter::from_fn(|| rig.shard(0).answer()).collect()
}

/// Cut and pinned, for the backup with that number.
fn pinned(rig: &mut Rig, session: u64) {
    rig.shard(0).ask(session, Ask::HoldBack);
    // As the doorbell would have it.
    rig.turn(0);
    rig.run_ms(50);
    rig.shard(0).ask(session, Ask::Cut);
    rig.shard(0).ask(session, Ask::GoOn);
    let said = answers(rig);
    assert!(
        matches!(&said[..], [(_, Answer::HeldBack), (_, Answer::Cut(parts)), (_, Answer::WentOn)] if !parts.is_empty()),
        "{said:?}"
    );
    assert!(said.iter().all(|(of, _)| *of == session));
    assert!(rig.shard(0).journal().is_pinned());
}

#[test]
fn it_answers_when_what_it_has_written_is_durable_and_not_before() {
    let mut rig = Rig::new();
    let reader = rig.peer();
    rig.say(reader, &connect_v3("kept", Start::Kept, 0));
    rig.packet(reader);
    rig.say(reader, &subscribe_v3(1, "t", 1));
    rig.packet(reader);
    rig.finish(reader);
    rig.run_ms(20);
    let writer = rig.client_v3("writer");
    let mut waited = 0;
    for round in 0..40 {
        rig.say(writer, &publish_v3(round + 1, "t", b"something"));
        let begun = rig.now();
        while rig.shard(0).journal().pending_bytes() == 0 && rig.now() < begun.plus_ms(200) {
            rig.step();
        }
        let session = u64::from(round) + 1;
        let appended = rig.shard(0).journal().last_lsn();
        rig.shard(0).ask(session, Ask::HoldBack);
        assert!(answers(&mut rig).is_empty(), "not in the same breath");
        let said = loop {
            rig.step();
            let durable = rig.shard(0).journal().durable();
            let said = answers(&mut rig);
            waited += u32::from(durable < appended);
            assert!(said.is_empty() || durable >= appended, "{said:?} at {durable:?} of {appended:?}");
            if !said.is_empty() {
                break said;
            }
        };
        assert_eq!(said, [(session, Answer::HeldBack)]);
        rig.shard(0).ask(session, Ask::Unpin);
        assert_eq!(answers(&mut rig), [(session, Answer::No(Reason::NotBegun))]);
    }
    assert!(waited > 0, "the disk was always faster");
}

#[test]
fn it_keeps_what_there_is_until_told() {
    let mut rig = Rig::with(2, sim::Settings::default(), |_| {});
    pinned(&mut rig, 7);
    rig.run_ms(5_000);
    assert!(answers(&mut rig).is_empty() && rig.shard(0).journal().is_pinned());
    rig.shard(0).ask(7, Ask::Unpin);
    let said = answers(&mut rig);
    assert!(matches!(said[..], [(7, Answer::Unpinned { held: 0, ms: 4_000.. })]), "{said:?}");
    assert!(!rig.shard(0).journal().is_pinned());
}

#[test]
fn it_keeps_nothing_for_a_backup_that_another_follows_or_that_takes_longer_than_a_day() {
    let mut rig = Rig::new();
    pinned(&mut rig, 1);
    pinned(&mut rig, 2);
    rig.shard(0).ask(1, Ask::Unpin);
    assert_eq!(answers(&mut rig), [(1, Answer::No(Reason::NotBegun))], "that was given up for the other");
    pinned(&mut rig, 3);
    rig.run_ms(BACKUP_MS_MAX - 10_000);
    assert!(answers(&mut rig).is_empty());
    rig.run_ms(20_000);
    assert_eq!(answers(&mut rig), [(3, Answer::No(Reason::TooLong))]);
    assert!(!rig.shard(0).journal().is_pinned());
}

#[test]
fn it_says_so_when_the_broker_stops_and_begins_no_other() {
    let mut rig = Rig::new();
    pinned(&mut rig, 1);
    rig.drain(0);
    assert_eq!(answers(&mut rig), [(1, Answer::No(Reason::Stopping))]);
    rig.shard(0).ask(2, Ask::HoldBack);
    rig.shard(0).ask(2, Ask::Cut);
    let said = answers(&mut rig);
    assert_eq!(said[0], (2, Answer::No(Reason::Stopping)));
    assert!(matches!(said[1], (2, Answer::No(_))), "{said:?}");
    assert!(!rig.shard(0).journal().is_pinned());
}
