//! Damage at rest of a journal that goes by a checkpoint: records kept of two copies, segments that were given up and hold
//! what was live once, a short tail behind the checkpoint. As in `exhaustive`, each bit, sector and page.
//!
//! Judged by what is live: all of it comes back as it was written and with the facts of the checkpoint, or opening says
//! where it is not; what was dead when the checkpoint was begun does not come back. And `verify` says the same as opening,
//! and what is evident of a damaged journal is true, and is everything but what is said to be lost.

use std::collections::{BTreeMap, BTreeSet};

use ironpost::ids::Lsn;
use ironpost::journal::{self, Evidence, JournalError, Problem};
use ironpost::live::{Facts, LiveSet};

use crate::disk::Disk;
use crate::exhaustive::{Author, Image, PAGE, Past, SECTOR, is_large, is_small, stride};
use crate::{Model, Options, at, check, tiny};

/// Ten segments, of which every record that lives long is copied out.
fn sizes() -> Options {
    let bytes = 7 * PAGE as u64;
    Options {
        segment_bytes: bytes,
        segment_bytes_first: bytes,
        segments_first: 10,
        segments_max: 10,
        reserve: 1,
        checkpoint_tail_bytes: 10 * PAGE as u64,
        reclaim_quiet_ms: 0,
        ..tiny()
    }
}

/// How many records a record outlives.
fn age_max(lsn: u64) -> u64 {
    match lsn % 16 {
        3 => 170,
        11 => 90,
        _ => 18,
    }
}

fn is_live(lsn: u64, last: u64) -> bool {
    lsn + age_max(lsn) > last
}

/// Facts that a record has from the moment it is written.
fn gone(lsn: u64) -> Option<u32> {
    lsn.is_multiple_of(3).then_some(1)
}

fn live(author: &Author) -> LiveSet {
    let last = author.journal.last_lsn().0;
    let mut live = LiveSet::default();
    for lsn in (1..=last).filter(|lsn| is_live(*lsn, last)) {
        live.add_listed(Lsn(lsn), 100, 3);
        if let Some(place) = gone(lsn) {
            live.recipient_gone(Lsn(lsn), place);
        }
        live.set_unrouted(Lsn(lsn), lsn.is_multiple_of(5));
        live.set_taken(Lsn(lsn), lsn.is_multiple_of(7));
    }
    live
}

fn are_facts(lsn: u64, facts: &Facts<'_>, covered: bool) -> bool {
    if !covered {
        return *facts == Facts::NONE;
    }
    let is_gone = |place| facts.gone.is_some_and(|gone| gone.contains(place));
    (0..3).all(|place| is_gone(place) == (gone(lsn) == Some(place)))
        && facts.routed != lsn.is_multiple_of(5)
        && facts.released != lsn.is_multiple_of(7)
}

struct Worn {
    image: Image,
    model: Model,
    past: [Past; 2],
    last: u64,
}

#[derive(Default, Debug)]
struct Tally {
    tried: usize,
    detected: usize,
    harmless: usize,
    /// Of those, by an older checkpoint than the last one.
    older: usize,
    /// Records of all damaged journals that are said to be lost, and live ones that were saved.
    lost: u64,
    saved: u64,
}

impl Worn {
    fn new() -> Worn {
        let mut author = Author::new(sizes());
        author.live = Some(live);
        // Until it has wear enough, and then until the last checkpoint has a tail that is not empty and short.
        let mut rounds = 0;
        loop {
            rounds += 1;
            assert!(rounds < 2_000, "{:?}", author.journal.statistics());
            (0..3).for_each(|_| author.append(is_small));
            if rounds % 5 == 0 {
                author.append(is_large);
            }
            author.settle(at(rounds), None);
            author.journal.observe(&live(&author), at(rounds));
            author.settle(at(rounds), None);
            let statistics = author.journal.statistics();
            let tail = author.journal.tail_bytes();
            let worn = statistics.checkpoints >= 6 && statistics.segments_copied >= 6;
            if worn && (1..=3 * PAGE as u64).contains(&tail) && statistics.segments_freed > 8 {
                break;
            }
        }
        author.journal.witness();
        author.settle(at(rounds), None);
        let last = author.journal.last_lsn().0;
        assert_eq!(author.journal.durable(), Lsn(last));
        println!("{:?}, {:?} segments", author.journal.statistics(), author.journal.segments());
        Worn { image: author.disk.image(), model: author.model, past: author.past, last }
    }

    /// Opens and replays; the last record that the checkpoint in use covers.
    fn replay(&self, disk: &Disk) -> Result<u64, JournalError> {
        let mut journal = journal::open(disk.handle(), sizes(), 4, at(0))?;
        let mut found = BTreeMap::new();
        let mut facts = Vec::new();
        let replayed = journal.replay(&mut |lsn, record, of_record| {
            check(&self.model, lsn, &record);
            assert!(found.last_key_value().is_none_or(|(last, ())| *last < lsn.0), "in order");
            found.insert(lsn.0, ());
            facts.push((lsn.0, of_record.gone.cloned(), of_record.routed, of_record.released));
        })?;
        let covered = replayed.checkpoint.0;
        for lsn in (1..=self.last).filter(|lsn| is_live(*lsn, self.last)) {
            assert!(
                found.contains_key(&lsn),
                "LOST IN SILENCE: {lsn} of {}, checkpoint {covered}",
                self.last
            );
        }
        for (lsn, gone, routed, released) in facts {
            let facts = Facts { gone: gone.as_ref(), routed, released };
            assert!(are_facts(lsn, &facts, lsn <= covered), "record {lsn}, checkpoint {covered}: {facts:?}");
            assert!(lsn > covered || is_live(lsn, covered), "RESURRECTED: {lsn}, checkpoint {covered}");
        }
        Ok(covered)
    }

    fn judge(&self, newest: u64, name: &str, at_byte: usize, piece: &[u8], tally: &mut Tally) {
        let place = at_byte..at_byte + piece.len();
        if self.image[name][place.clone()] == *piece {
            return;
        }
        tally.tried += 1;
        let disk = Disk::of(&self.image);
        disk.put(name, at_byte, piece);
        let before = disk.image();
        let verdict = journal::verify(disk.handle(), &sizes()).unwrap_or_else(|error| panic!("{error}"));
        assert!(disk.image() == before, "{name} {place:?}: looking changes nothing");
        let evidence = Evidence::gather(disk.handle(), &sizes(), false).unwrap();
        let outcome = self.replay(&disk);
        assert_eq!(verdict.is_sound(), outcome.is_ok(), "{name} {place:?}: {:?}", verdict.refusal);
        match outcome {
            Err(error) => {
                let Problem::Corrupt { expected, found, .. } = &error.problem else {
                    panic!("{name} {place:?}: {error}")
                };
                assert!(!expected.is_empty() && !found.is_empty(), "{error}");
                assert!(disk.image() == before, "refusing {name} {place:?} changed something");
                let named = verdict.flaws.iter().any(|flaw| {
                    flaw.file == name
                        && (flaw.offset as usize..flaw.offset as usize + 4 * PAGE).contains(&at_byte)
                });
                assert!(named, "{name} {place:?} is not among {:?}", verdict.flaws);
                tally.detected += 1;
                self.is_true(&evidence, tally);
            }
            Ok(covered) => {
                assert!(covered == 0 || verdict.checkpoint == Some(Lsn(covered)), "{name} {place:?}");
                tally.harmless += 1;
                tally.older += usize::from(covered != newest);
            }
        }
    }

    /// What is evident was written so, and what of it is live and not there is said to be lost.
    fn is_true(&self, evidence: &Evidence<crate::disk::Handle>, tally: &mut Tally) {
        let mut found = BTreeSet::new();
        let mut visit = |one: &journal::Evident<'_>| {
            check(&self.model, one.lsn, &one.record);
            found.insert(one.lsn.0);
            Ok(())
        };
        evidence.visit(&mut visit).unwrap();
        for lsn in (1..=self.last).filter(|lsn| is_live(*lsn, self.last)) {
            let lost = evidence.lost().iter().any(|lost| lost.lsns.contains(&Lsn(lsn)));
            assert!(lost != found.contains(&lsn), "record {lsn} is lost {lost}, and the other way round");
            tally.lost += u64::from(lost);
            tally.saved += u64::from(!lost);
        }
    }
}

#[test]
fn no_damage_of_a_journal_that_goes_by_a_checkpoint_is_silent() {
    let worn = Worn::new();
    let newest = worn.replay(&Disk::of(&worn.image)).unwrap();
    let sound = journal::verify(Disk::of(&worn.image).handle(), &sizes()).unwrap();
    assert!(sound.is_sound() && sound.flaws.is_empty() && sound.lost.is_empty(), "{sound:?}");
    assert_eq!((sound.checkpoint, sound.last_lsn), (Some(Lsn(newest)), Lsn(worn.last)));
    let [_, kept, checkpoints, free] = sound.segments;
    assert!(kept >= 2 && checkpoints >= 1 && free >= 2, "{:?}", sound.segments);
    let mut tallies: Vec<(String, Tally)> = Vec::new();
    let mut bits = Tally::default();
    for (name, content) in &worn.image {
        for bit in (0..content.len() * 8).step_by(3 * stride()) {
            worn.judge(newest, name, bit / 8, &[content[bit / 8] ^ 1 << (bit % 8)], &mut bits);
        }
    }
    tallies.push(("flipped bits".to_owned(), bits));
    for (unit, past) in [SECTOR, PAGE].into_iter().zip(&worn.past) {
        let (mut zeroed, mut stale) = (Tally::default(), Tally::default());
        for (name, content) in &worn.image {
            for index in 0..content.len() / unit {
                worn.judge(newest, name, index * unit, &vec![0; unit], &mut zeroed);
                for state in past.get(&(name.clone(), index)).into_iter().flatten() {
                    worn.judge(newest, name, index * unit, state, &mut stale);
                }
            }
        }
        tallies.push((format!("zeroed pieces of {unit} bytes"), zeroed));
        tallies.push((format!("stale pieces of {unit} bytes"), stale));
    }
    tallies.iter().for_each(|(what, tally)| println!("worn, {what}: {tally:?}"));
    let sum = |of: fn(&Tally) -> u64| tallies.iter().map(|(_, tally)| of(tally)).sum::<u64>();
    assert!(sum(|tally| tally.detected as u64) > 300 && sum(|tally| tally.older as u64) > 0);
    assert!(sum(|tally| tally.saved) > sum(|tally| tally.lost), "damage of a piece costs a block");
}
