//! Another number of shards: what brokers have after the records of others were re-homed is what those had.
//!
//! The same random run as for checkpoints makes the state; `reshard::rehome` moves it, from shards to shards in a
//! chain, with more of the run in between. What is compared is everything durable, in words in which neither a shard
//! nor a number of a record or session occurs.

use super::run::Run;
use super::*;
use crate::broker::session::{Entry, PendingWill};
use crate::broker::stored::Queued;
use crate::journal::JournalError;
use crate::record::{Body, Record};
use crate::reshard::{Rehoming, Sink, Source, Totals};

struct Records<'a>(&'a [(Lsn, Vec<u8>)]);

impl Source for Records<'_> {
    fn replay(&mut self, apply: &mut dyn FnMut(Lsn, Record<'_>, Facts<'_>)) -> Result<(), JournalError> {
        self.0.iter().for_each(|(lsn, bytes)| apply(*lsn, journal::decoded(bytes), Facts::NONE));
        Ok(())
    }

    fn read(&mut self, lsn: Lsn, apply: &mut dyn FnMut(Record<'_>)) -> Result<(), JournalError> {
        let index = self.0.binary_search_by_key(&lsn, |(lsn, _)| *lsn).expect("a record that was replayed");
        apply(journal::decoded(&self.0[index].1));
        Ok(())
    }
}

#[derive(Default)]
pub(super) struct Journals(pub(super) Vec<Vec<(Lsn, Vec<u8>)>>);

impl Sink for Journals {
    fn append(&mut self, shard: ShardId, record: &Record<'_>) -> Result<Lsn, JournalError> {
        let journal = &mut self.0[shard.index()];
        let lsn = Lsn(journal.len() as u64 + 1);
        journal.push((lsn, journal::encoded(lsn, record)));
        Ok(lsn)
    }
}

/// How often each kind of state was compared: a test without some would show little.
#[derive(Default, Debug)]
pub(super) struct Seen {
    queued: usize,
    in_flight: usize,
    released: usize,
    inbound: usize,
    retained: usize,
    wills: usize,
    skipped: usize,
    left: usize,
    spent: usize,
}

/// The brokers as a process that starts now has them, before it has done anything.
fn started(shards: &[Bench]) -> Vec<Bench> {
    let start = |bench: &Bench| {
        let (settings, shard) = (bench.broker.settings.clone(), bench.broker.shard);
        Bench::start(settings, shard, bench.now, bench.world.journal.clone())
    };
    shards.iter().map(start).collect()
}

fn reshard(from: &[Bench], count: u16) -> (Vec<Bench>, Vec<Totals>) {
    let mut settings = from[0].broker.settings.clone();
    settings.placement = settings_for(count).placement;
    let mut rehoming = Rehoming::new(settings.placement.clone());
    let mut journals = Journals(vec![Vec::new(); count.into()]);
    for bench in from {
        let mut records = Records(&bench.world.journal);
        let (settings, shard) = (bench.broker.settings.clone(), bench.broker.shard);
        rehoming.shard(settings, shard, &mut records, &mut journals).expect("memory does not fail");
    }
    assert_eq!(rehoming.unrouted(), 0);
    let totals = rehoming.totals().to_vec();
    let now = from[0].now;
    let journals = (0..).map(ShardId).zip(journals.0);
    (journals.map(|(shard, journal)| Bench::start(settings.clone(), shard, now, journal)).collect(), totals)
}

/// See the module documentation.
pub(super) fn digest(shards: &[Bench], seen: &mut Seen) -> Vec<String> {
    let mut lines = Vec::new();
    for bench in shards {
        let broker = &bench.broker;
        for slot in broker.sessions.written() {
            lines.push(session(bench, slot, seen));
        }
        for PendingWill { will, due, durable, .. } in broker.wills.values() {
            seen.wills += 1;
            lines.push(format!("will {will:?} due {due:?}, {durable}"));
        }
        let all = broker.retained.scan("#", "", u32::MAX, |topic, held| {
            seen.retained += 1;
            assert_eq!(broker.settings.placement.owner(topic), broker.shard);
            lines.push(format!("retained {}", body(bench, held.message)));
            true
        });
        assert!(all.is_none());
        for spent in broker.spent() {
            seen.spent += 1;
            lines.push(format!("spent {spent:?}"));
        }
    }
    lines.sort();
    lines
}

fn session(bench: &Bench, slot: u32, seen: &mut Seen) -> String {
    let broker = &bench.broker;
    let session = broker.sessions.get(slot);
    let mut lines = vec![format!(
        "{:?} {:?}: expires {} at {:?}, skipped {}, will {:?}",
        session.identity, session.version, session.expiry_s, session.ends_at, session.skipped, session.will
    )];
    seen.skipped += usize::from(session.skipped > 0);
    let subscriptions = session.subscriptions.as_slice().iter().map(|subscription| {
        let text = broker.subscriptions.text(subscription.filter);
        format!("subscribes {text} {:?}", broker.subscriptions.grant(subscription.filter, slot))
    });
    let left = session.delivery.iter().flat_map(|delivery| &delivery.left);
    let left = left.map(|left| format!("left {}", left.group));
    seen.left += left.clone().count();
    let mut sorted: Vec<String> = subscriptions.chain(left).collect();
    sorted.sort();
    lines.append(&mut sorted);
    for (packet_id, lsn) in session.inbound.iter().flat_map(|inbound| inbound.iter()) {
        seen.inbound += 1;
        lines.push(format!("inbound {packet_id}: {}", words_of(bench, *lsn)));
    }
    if let Some(delivery) = session.delivery.as_deref() {
        for one in &delivery.in_flight {
            seen.in_flight += 1;
            seen.released += usize::from(one.received.is_some());
            let (begun, received) = (one.begun.is_some(), one.received.is_some());
            let entry = entry(bench, &one.entry);
            lines.push(format!("in flight {} {:?} {begun} {received}: {entry}", one.packet_id, one.phase));
        }
        seen.queued += delivery.queue.len();
        lines.extend(delivery.queue.iter().map(|queued| format!("queue: {}", queued_entry(bench, queued))));
        lines.push(format!("{} bytes", delivery.bytes));
    }
    lines.join("\n  ")
}

fn queued_entry(bench: &Bench, queued: Queued) -> String {
    let stored = match queued {
        Queued::Here(here) => return entry(bench, &here),
        Queued::Stored(stored) => stored,
    };
    let ids = bench.broker.subscription_ids.resolve(&stored.subscription_id);
    let body = words_of(bench, stored.body);
    format!("{:?} {} {ids:?} {:?}: {body}", stored.qos, stored.retain(), stored.group())
}

fn entry(bench: &Bench, entry: &Entry) -> String {
    let broker = &bench.broker;
    let owed = &broker.messages.get(entry.message).owed.as_slice()[entry.owed as usize];
    let ids = broker.subscription_ids.resolve(&owed.subscription_id);
    format!("{:?} {} {ids:?} {:?}: {}", owed.qos, owed.retain, owed.group, body(bench, entry.message))
}

fn body(bench: &Bench, message: u32) -> String {
    words_of(bench, bench.broker.messages.get(message).lsn)
}

pub(super) fn words_of(bench: &Bench, lsn: Lsn) -> String {
    let (_, bytes) = &bench.world.journal[usize::try_from(lsn.0 - 1).expect("few")];
    match journal::decoded(bytes) {
        Record::Message { body, .. } | Record::Inbound { body, .. } => {
            let Body { topic, forward, payload, qos, retain, accepted_at, expires_at } = body;
            let text = std::str::from_utf8(payload).expect("the run publishes text");
            format!("{topic} {forward:?} {text:?} {qos:?} {retain} from {accepted_at:?} to {expires_at:?}")
        }
        other => panic!("{other:?} has no body"),
    }
}

fn assert_same(seed: u64, count: u16, before: &[String], after: &[String]) {
    let only = |some: &[String], others: &[String]| {
        some.iter().filter(|line| !others.contains(line)).cloned().collect::<Vec<_>>().join("\n")
    };
    assert!(
        before == after,
        "seed {seed}, to {count} shards\nbefore only:\n{}\nafter only:\n{}",
        only(before, after),
        only(after, before)
    );
}

/// Each session is at home, and each shard holds as much as was said.
fn assert_in_place((seed, before): (u64, &[String]), shards: &[Bench], totals: &[Totals]) {
    for (bench, totals) in shards.iter().zip(totals) {
        let broker = &bench.broker;
        for slot in broker.sessions.written() {
            let session = broker.sessions.get(slot);
            let name = if session.account().is_empty() { session.client_id() } else { session.account() };
            assert_eq!(broker.settings.placement.home(name), broker.shard);
        }
        for ([account, client_id], ..) in broker.spent() {
            let name = if account.is_empty() { client_id } else { account };
            assert_eq!(broker.settings.placement.home(name), broker.shard);
        }
        assert_eq!(broker.retained.len() as u64, totals.retained);
        let held = (totals.sessions, totals.queued);
        assert_eq!(broker.held(), held, "seed {seed}: {}", before.join("\n"));
    }
}

fn chains(seeds: std::ops::Range<u64>, steps: u32, spend: bool) -> Seen {
    let mut seen = Seen::default();
    for seed in seeds {
        let mut run = Run::new(8, seed);
        run.spending.take_if(|_| !spend);
        run.go(steps);
        let mut shards = run.settled();
        for count in [1, 2, 8, 3] {
            let before = digest(&started(&shards), &mut seen);
            let (after, totals) = reshard(&shards, count);
            assert_same(seed, count, &before, &digest(&after, &mut seen));
            assert_in_place((seed, &before), &after, &totals);
            let mut run = Run::go_on(after, seed ^ u64::from(count));
            run.spending.take_if(|_| !spend);
            run.go(steps / 2);
            shards = run.settled();
        }
    }
    seen
}

#[test]
fn every_session_is_the_same_after_any_number_of_other_numbers_of_shards() {
    let seen = chains(0..60, 250, true);
    let Seen { queued, in_flight, released, inbound, retained, wills, skipped, left, spent } = seen;
    for count in [queued, in_flight, released, inbound, retained, wills, skipped, left, spent] {
        assert!(count > 0, "{seen:?}");
    }
}

/// Something waited for what would not come: for a key that was never released, for a member that was never there.
#[test]
fn seeds_that_failed_once() {
    for seed in [4_052, 10_416] {
        let seen = chains(seed..seed + 1, 400, false);
        assert!(seen.wills > 0, "{seen:?}");
    }
}

/// The same for longer: `SEED=1 SEEDS=1000 cargo test --lib other_numbers -- --ignored`.
#[test]
#[ignore = "minutes"]
#[expect(clippy::disallowed_methods, reason = "a seed is not a setting")]
fn every_session_is_the_same_after_many_other_numbers_of_shards() {
    let number = |name: &str, otherwise| {
        std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok()).unwrap_or(otherwise)
    };
    let first = number("SEED", 1_000);
    let seen = chains(first..first + number("SEEDS", 500), 400, true);
    assert!(seen.queued > 0, "{seen:?}");
}
