//! Salvage: what brokers have after their damaged journals were salvaged is what those had, but for what the report says.
//!
//! The random run of the checkpoint tests makes records, `disk` a journal of them, with checkpoints, kept records and
//! recycled segments, and damages it. Then every entry of a queue, subscription, packet id, retained message and message
//! under way is looked for on both sides, in words in which no number of a record or session occurs:
//!
//! - What is there afterwards and was not before was there once, and the report says that such may come again.
//! - What was there before and is not afterwards needed a record that the report says is lost.
//! - What is there on both sides has kept its order.
//! - Without damage, all of it is there, and the brokers go on as if nothing had been.

use super::disk::{self, Disk, Wear};
use super::random::Random;
use super::reshard::{Journals, Seen, digest, words_of};
use super::run::Run;
use std::collections::BTreeSet;

use super::*;
use crate::broker::stored::Queued;
use crate::ids::OriginKey;
use crate::journal::Evidence;
use crate::record::{Recipient, Record};
use crate::reshard::Totals;
use crate::salvage::{Report, State, carried};

/// A journal in memory.
type Encoded = Vec<(Lsn, Vec<u8>)>;

/// Something that a broker has, and the records without which it would not.
struct Thing {
    /// Whose, or of what topic.
    of: String,
    words: String,
    shard: usize,
    records: Vec<Lsn>,
    /// The one in another shard.
    far: Option<(usize, Lsn)>,
}

#[derive(Default, Debug)]
struct Tally {
    runs: usize,
    whole: usize,
    shards_gone: usize,
    kept: usize,
    missing: usize,
    /// Missing ones that the report tells of each by itself.
    certain: usize,
    came_again: usize,
    sessions_lost: usize,
    unrouted: usize,
    placed: usize,
    spent: usize,
    /// Missing ones, or that came again, because of records behind the last one that is known to have been written.
    untold: usize,
}

/// Brokers that have replayed these journals and decided nothing.
fn replayed(settings: &Settings, now: Now, journals: Vec<Encoded>) -> Vec<Bench> {
    let one = |(shard, journal): (ShardId, Encoded)| {
        let broker = Broker::new(settings.clone(), shard);
        let mut bench = Bench { broker, world: World::default(), now, durable: journal.len() };
        for (lsn, bytes) in &journal {
            let record = journal::decoded(bytes);
            bench.handle(Input::Replay { lsn: *lsn, record, facts: Facts::NONE });
        }
        bench.world.journal = journal;
        bench
    };
    (0..).map(ShardId).zip(journals).map(one).collect()
}

fn journals(shards: &[Bench]) -> Vec<Encoded> {
    shards.iter().map(|bench| bench.world.journal.clone()).collect()
}

fn things(shards: &[Bench]) -> Vec<Thing> {
    let mut things = Vec::new();
    let keys = |bench: &Bench| bench.broker.origins.placed().map(|(key, _)| key).collect::<Vec<_>>();
    let had: BTreeSet<OriginKey> = shards.iter().flat_map(keys).collect();
    for (shard, bench) in shards.iter().enumerate() {
        let broker = &bench.broker;
        for slot in broker.sessions.written() {
            let session = broker.sessions.get(slot);
            if !session.identity.is_empty() {
                of_session(bench, slot, &had, &mut things);
            }
        }
        let all = broker.retained.scan("#", "", u32::MAX, |topic, held| {
            let body = broker.messages.get(held.message).lsn;
            let words = format!("retained {}", words_of(bench, body));
            things.push(Thing {
                of: topic.to_owned(),
                words,
                shard,
                records: vec![held.record, body],
                far: None,
            });
            true
        });
        assert!(all.is_none());
        for (names, limit, full_at, record) in broker.spent.records() {
            let words = format!("spent of {limit} until {full_at:?}");
            things.push(Thing { of: names.concat(), words, shard, records: vec![record], far: None });
        }
        for lsn in broker.live.unrouted_from(Lsn::NONE) {
            let words = format!("to be routed {}", words_of(bench, lsn));
            things.push(Thing { of: String::new(), words, shard, records: vec![lsn], far: None });
        }
    }
    placed(shards, &mut things);
    things
}

/// Messages under way that a shard must not take again when they are routed again.
fn placed(shards: &[Bench], things: &mut Vec<Thing>) {
    for (shard, bench) in shards.iter().enumerate() {
        for (key, records) in bench.broker.origins.placed() {
            let home = &shards[key.shard.index()];
            if home.broker.live.unrouted_from(key.lsn).next() == Some(key.lsn) {
                let words = format!("placed in {shard} {}", words_of(home, key.lsn));
                let far = Some((key.shard.index(), key.lsn));
                things.push(Thing { of: String::new(), words, shard, records: records.to_vec(), far });
            }
        }
    }
}

/// `had`: keys of what some shard has already. An entry that was handed on under one of them is no more.
fn of_session(bench: &Bench, slot: u32, had: &BTreeSet<OriginKey>, things: &mut Vec<Thing>) {
    let broker = &bench.broker;
    let shard = broker.shard.index();
    let is_elsewhere = |list: Lsn, place: u32| {
        let key = |lsn| OriginKey { shard: broker.shard, lsn };
        broker.handed_on.get(&(list, place)).is_some_and(|note| had.contains(&key(note.lsn())))
    };
    let session = broker.sessions.get(slot);
    let mut add = |words: String, mut records: Vec<Lsn>| {
        records.push(session.record);
        things.push(Thing { of: session.identity.to_string(), words, shard, records, far: None });
    };
    add("session".to_owned(), Vec::new());
    for subscription in session.subscriptions.as_slice() {
        let text = broker.subscriptions.text(subscription.filter);
        let grant = broker.subscriptions.grant(subscription.filter, slot);
        add(format!("subscribes {text} {grant:?}"), vec![subscription.record]);
    }
    for (packet_id, lsn) in session.inbound.iter().flat_map(|inbound| inbound.iter()) {
        add(format!("inbound {packet_id}: {}", words_of(bench, *lsn)), vec![*lsn]);
    }
    let Some(delivery) = session.delivery.as_deref() else { return };
    let packet_ids: BTreeSet<u16> = delivery.in_flight.iter().map(|one| one.packet_id.get()).collect();
    assert_eq!(packet_ids.len(), delivery.in_flight.len(), "a packet id is of one delivery");
    for one in &delivery.in_flight {
        let message = broker.messages.get(one.entry.message);
        let owed = &message.owed.as_slice()[one.entry.owed as usize];
        if is_elsewhere(owed.list, owed.place) {
            continue;
        }
        let ids = broker.subscription_ids.resolve(&owed.subscription_id);
        let words = entry_words(bench, message.lsn, (owed.qos, owed.retain, owed.group), ids);
        add(words, vec![message.lsn, owed.list]);
        let flight = format!("in flight {} {:?} {}", one.packet_id, one.phase, words_of(bench, message.lsn));
        let notes = [one.begun, one.received].into_iter().filter(|record| record.is_some());
        add(flight, [message.lsn, owed.list].into_iter().chain(notes).collect());
    }
    for queued in delivery.queue.iter() {
        let Queued::Stored(stored) = queued else { panic!("replay stores every entry") };
        if is_elsewhere(stored.list(), stored.place) {
            continue;
        }
        let ids = broker.subscription_ids.resolve(&stored.subscription_id);
        let words = entry_words(bench, stored.body, (stored.qos, stored.retain(), stored.group()), ids);
        add(words, vec![stored.body, stored.list()]);
    }
}

fn entry_words(
    bench: &Bench,
    body: Lsn,
    (qos, retain, group): (QoS, bool, Option<u16>),
    ids: &[u32],
) -> String {
    format!("queue {qos:?} {retain} {ids:?} {group:?}: {}", words_of(bench, body))
}

/// Everything that was ever listed for a session, or said of one.
fn ever(shards: &[Bench]) -> BTreeMap<(String, String), usize> {
    let mut ever = BTreeMap::new();
    for bench in shards {
        let mut names: BTreeMap<SessionKey, String> = BTreeMap::new();
        for (_, bytes) in &bench.world.journal {
            if let Record::Session { key, client_id, .. } = journal::decoded(bytes) {
                names.insert(key, client_id.to_owned());
            }
        }
        let mut list = |body: Lsn, recipients: Vec<Recipient>| {
            let mut all = recipients.iter().peekable();
            while let Some(first) = all.next() {
                let more = std::iter::from_fn(|| all.next_if(|next| next.more));
                let ids: Vec<u32> = std::iter::once(first)
                    .chain(more)
                    .map(|one| one.subscription_id)
                    .filter(|id| *id != 0)
                    .collect();
                let group = first.shared.then_some(first.group);
                let words = entry_words(bench, body, (first.qos, first.retain, group), &ids);
                if let Some(name) = names.get(&first.session) {
                    *ever.entry((name.clone(), words)).or_insert(0) += 1;
                }
            }
        };
        for (lsn, bytes) in &bench.world.journal {
            match journal::decoded(bytes) {
                Record::Message { recipients, .. } => list(*lsn, recipients.iter().collect()),
                Record::Deliver { message, recipients } => list(message, recipients.iter().collect()),
                _ => {}
            }
        }
    }
    ever
}

/// Everything that a thing needs.
fn needs(thing: &Thing) -> impl Iterator<Item = (usize, Lsn)> {
    thing.records.iter().map(|lsn| (thing.shard, *lsn)).chain(thing.far)
}

/// The report says that one of these records is lost.
fn is_accounted(report: &Report, thing: &Thing) -> bool {
    needs(thing).any(|(shard, lsn)| {
        let shard = &report.shards[shard];
        shard.state == State::Missing || shard.lost.iter().any(|lost| lost.lsns.contains(&lsn))
    })
}

fn count(things: &[Thing]) -> BTreeMap<(&str, &str), usize> {
    let mut counts = BTreeMap::new();
    for thing in things {
        *counts.entry((&*thing.of, &*thing.words)).or_insert(0) += 1;
    }
    counts
}

struct Case {
    seed: u64,
    before: Vec<Bench>,
    after: Vec<Bench>,
    report: Report,
}

impl Case {
    fn judge(&self, tally: &mut Tally) {
        let (before, after) = (things(&self.before), things(&self.after));
        let (had, has) = (count(&before), count(&after));
        let Case { seed, report, .. } = self;
        for ((of, words), number) in &has {
            let more = number.saturating_sub(had.get(&(*of, *words)).copied().unwrap_or(0));
            tally.kept += number - more;
            if more == 0 {
                continue;
            }
            let untold = self.untold();
            assert!(
                report.again() || untold || self.may_begin_anew(words),
                "seed {seed}: {of} {words}\n{report:#?}"
            );
            tally.came_again += more;
            tally.untold += if report.again() { 0 } else { more };
        }
        let ever = ever(&self.before);
        for ((of, words), number) in has.iter().filter(|((_, words), _)| words.starts_with("queue")) {
            let listed = ever.get(&((*of).to_owned(), (*words).to_owned())).copied().unwrap_or(0);
            assert!(*number <= listed, "seed {seed}: INVENTED for {of}: {words}");
        }
        let mut left = has.clone();
        let mut missing = Vec::new();
        // Of several that look the same it may be any that is missing: those that are not accounted for come first.
        let (plain, accounted): (Vec<&Thing>, Vec<&Thing>) =
            before.iter().partition(|thing| !is_accounted(report, thing));
        for thing in plain.into_iter().chain(accounted) {
            match left.get_mut(&(&*thing.of, &*thing.words)).filter(|left| **left > 0) {
                Some(left) => *left -= 1,
                None => missing.push(thing),
            }
        }
        for thing in missing {
            let is_untold = needs(thing).any(|(shard, lsn)| lsn > report.shards[shard].last);
            let is_accounted = is_accounted(report, thing);
            tally.untold += usize::from(!is_accounted);
            assert!(
                is_accounted || is_untold,
                "seed {seed}: LOST IN SILENCE: {} of {} ({:?})\n{report:#?}",
                thing.words,
                thing.of,
                thing.records
            );
            tally.missing += 1;
            tally.certain += usize::from(self.is_certain(thing));
        }
        self.orders_are_kept(&before, &after);
    }

    /// The last block of a journal, or its last segment, is gone without a trace.
    fn untold(&self) -> bool {
        let last = |bench: &Bench| bench.world.journal.last().map_or(Lsn::NONE, |(lsn, _)| *lsn);
        self.before.iter().zip(&self.report.shards).any(|(bench, report)| report.last < last(bench))
    }

    /// A lost record may have said how far a delivery was, or that a session is over whose will was still to come; or what
    /// the retained message of some topic is now.
    fn may_begin_anew(&self, words: &str) -> bool {
        let retained = self.report.shards.iter().any(|shard| !shard.retained.is_empty());
        !self.report.is_whole() && (words.starts_with("in flight") || words == "session")
            || retained && words.starts_with("retained")
    }

    /// A message whose list is there: the report names it, and the session.
    fn is_certain(&self, thing: &Thing) -> bool {
        let shard = &self.report.shards[thing.shard];
        let is_lost = |lsn: &Lsn| shard.lost.iter().any(|lost| lost.lsns.contains(lsn));
        let [body, list, session] = *thing.records else { return false };
        let only_body = thing.words.starts_with("queue") && is_lost(&body) && !is_lost(&list);
        let is_untold = list > shard.last || session > shard.last;
        if !only_body || is_lost(&session) || is_untold || shard.state == State::Missing {
            return false;
        }
        let told = shard.sessions.iter().any(|loss| {
            loss.name.as_ref().is_some_and(|name| name.client_id == thing.of) && loss.certain.contains(&body)
        });
        assert!(told, "seed {}: {} of {}\n{:#?}", self.seed, thing.words, thing.of, self.report);
        true
    }

    fn orders_are_kept(&self, before: &[Thing], after: &[Thing]) {
        // What was there twice may be any of the two.
        let once = |things: &[Thing]| {
            let counts = count(things);
            let queues = things.iter().filter(|thing| thing.words.starts_with("queue"));
            let once: Vec<(String, String)> = queues
                .filter(|thing| counts[&(&*thing.of, &*thing.words)] == 1)
                .map(|thing| (thing.of.clone(), thing.words.clone()))
                .collect();
            once
        };
        let (mut had, mut has) = (once(before), once(after));
        had.retain(|one| has.contains(one));
        has.retain(|one| had.contains(one));
        let by_session = |all: &[(String, String)]| {
            let mut by_session: BTreeMap<String, Vec<String>> = BTreeMap::new();
            all.iter().for_each(|(of, words)| by_session.entry(of.clone()).or_default().push(words.clone()));
            by_session
        };
        // In flight first, then the queue; where the state of a delivery was lost, it waits in its queue's place again.
        if self.report.is_whole() {
            assert_eq!(by_session(&had), by_session(&has), "seed {}", self.seed);
        }
    }
}

/// Shards that start on what salvage makes of the journals that these leave, which are sound.
pub(in crate::broker::tests) fn through_salvage(shards: Vec<Bench>) -> Vec<Bench> {
    let (settings, now) = (shards[0].broker.settings.clone(), shards[0].now);
    let durable = shards.into_iter().map(|bench| bench.world.journal[..bench.durable].to_vec());
    let stopped = replayed(&settings, now, durable.collect());
    let (report, journals) = salvaged(0, &stopped, 0, &mut Wear::default());
    assert!(report.is_whole(), "{report:#?}");
    let start = |(shard, journal)| Bench::start(settings.clone(), shard, now, journal);
    (0..).map(ShardId).zip(journals).map(start).collect()
}

/// The journals of these shards, damaged by that many strokes, through salvage.
fn salvaged(seed: u64, shards: &[Bench], strokes: usize, wear: &mut Wear) -> (Report, Vec<Encoded>) {
    let mut random = Random(seed ^ 0x5A1);
    let count = u16::try_from(shards.len()).expect("few");
    let mut disks: Vec<Option<Disk>> =
        shards.iter().map(|bench| Some(disk::written(bench, count, &mut random, wear))).collect();
    for _ in 0..strokes {
        let index = random.below(disks.len());
        match &mut disks[index] {
            disk if random.one_in(12) => *disk = None,
            Some(disk) => disk.damage(&mut random),
            None => {}
        }
    }
    let found: Vec<_> = (0..)
        .map(ShardId)
        .zip(&disks)
        .map(|(shard, disk)| disk.as_ref().map(|disk| gather(disk, shard, count)))
        .collect();
    let mut journals = Journals(vec![Vec::new(); shards.len()]);
    let settings = &shards[0].broker.settings;
    let report = carried(&found, settings, &mut journals).expect("memory does not fail");
    (report, journals.0)
}

fn gather(disk: &Disk, shard: ShardId, shards: u16) -> Evidence<&Disk> {
    Evidence::gather(disk, &disk::options(shard, shards), false).expect("memory can be read")
}

fn case(seed: u64, count: u16, strokes: usize, (tally, wear): (&mut Tally, &mut Wear)) -> Case {
    let mut run = Run::at_home(count, seed);
    run.go(250);
    let shards = run.stopped();
    let (settings, now) = (shards[0].broker.settings.clone(), shards[0].now);
    let (report, new) = salvaged(seed, &shards, strokes, wear);
    let before = replayed(&settings, now, journals(&shards));
    let after = replayed(&settings, now, new);
    for (bench, Totals { sessions, queued, .. }) in after.iter().zip(&report.totals) {
        assert_eq!(bench.broker.held(), (*sessions, *queued), "seed {seed}: as the report says");
    }
    tally.runs += 1;
    tally.whole += usize::from(report.is_whole());
    tally.shards_gone += report.shards.iter().filter(|one| one.state == State::Missing).count();
    tally.sessions_lost +=
        report.shards.iter().flat_map(|one| &one.sessions).filter(|one| one.whole.is_some()).count();
    tally.unrouted +=
        after.iter().map(|bench| bench.broker.live.unrouted_from(Lsn::NONE).count()).sum::<usize>();
    let mut under_way = Vec::new();
    placed(&after, &mut under_way);
    tally.placed += under_way.len();
    tally.spent += after.iter().map(|bench| bench.broker.spent().count()).sum::<usize>();
    Case { seed, before, after, report }
}

fn damaged(seeds: std::ops::Range<u64>) -> (Tally, Wear) {
    let (mut tally, mut wear) = (Tally::default(), Wear::default());
    for seed in seeds {
        let count = [1, 2, 3][usize::try_from(seed % 3).expect("small")];
        let strokes = 1 + usize::try_from(seed % 4).expect("small");
        let case = case(seed, count, strokes, (&mut tally, &mut wear));
        case.judge(&mut tally);
        // They can go on, whatever is missing.
        let now = case.after[0].now;
        let started = case.after.iter().map(|bench| {
            let (settings, shard) = (bench.broker.settings.clone(), bench.broker.shard);
            Bench::start(settings, shard, now, bench.world.journal.clone())
        });
        Run::go_on(started.collect(), seed).go(40);
    }
    (tally, wear)
}

#[test]
fn what_is_missing_after_salvage_is_in_the_report_and_nothing_is_invented() {
    let (tally, wear) = damaged(0..120);
    println!("{tally:?} {wear:?}");
    let Tally {
        runs,
        whole,
        shards_gone,
        kept,
        missing,
        certain,
        came_again,
        sessions_lost,
        unrouted,
        placed,
        spent,
        untold,
    } = tally;
    for count in [
        shards_gone,
        kept,
        missing,
        certain,
        came_again,
        sessions_lost,
        unrouted,
        placed,
        spent,
        whole,
        runs - whole,
    ] {
        assert!(count > 0, "{tally:?}");
    }
    assert!(untold * 4 < missing, "{tally:?}");
    let Wear { checkpoints, copied, freed } = wear;
    assert!(checkpoints > 0 && copied > 0 && freed > 0, "{wear:?}");
}

/// The same for longer: `SEED=1 SEEDS=1000 cargo test --release --lib salvage -- --ignored --nocapture`.
#[test]
#[ignore = "minutes"]
#[expect(clippy::disallowed_methods, reason = "a seed is not a setting")]
fn what_is_missing_after_salvage_is_in_the_report_in_many_runs() {
    let number = |name: &str, otherwise| {
        std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok()).unwrap_or(otherwise)
    };
    let first = number("SEED", 1_000);
    let (tally, wear) = damaged(first..first + number("SEEDS", 1_000));
    println!("{tally:?} {wear:?}");
    assert!(tally.missing > 0);
}

/// Where the record is lost that says that a packet id is free, that it is given again says it.
#[test]
fn a_packet_id_that_is_given_again_was_free() {
    let key = SessionKey(1);
    let body = |topic| crate::record::Body {
        topic,
        forward: &[],
        payload: b"x",
        qos: QoS::ExactlyOnce,
        retain: false,
        accepted_at: UnixMs(1),
        expires_at: UnixMs::NEVER,
    };
    let to = [Recipient {
        session: key,
        qos: QoS::ExactlyOnce,
        retain: false,
        shared: false,
        group: 0,
        subscription_id: 0,
        more: false,
    }];
    let packet_id = PacketId::new(5).expect("not 0");
    let message = |topic| Record::Message { body: body(topic), origin: None, recipients: (&to[..]).into() };
    let inbound = |topic| Record::Inbound { key, packet_id, body: body(topic) };
    let begun = |list| Record::DeliveryBegun { list: Lsn(list), place: 0, packet_id };
    let (client_id, account) = ("me", "");
    let session =
        Record::Session { key, account, client_id, version: Version::V5, expiry_s: u32::MAX, will: None };
    let records = [
        session,
        message("first"),
        begun(2),
        // Not here: it is done.
        message("second"),
        begun(4),
        inbound("first"),
        Record::Routed { inbound: Lsn(6) },
        // Not here: it is released.
        inbound("second"),
        Record::Routed { inbound: Lsn(8) },
    ];
    let journal: Encoded =
        (1..).map(Lsn).zip(&records).map(|(lsn, record)| (lsn, journal::encoded(lsn, record))).collect();
    let shards = replayed(&settings(), Now::default(), vec![journal]);
    let words: Vec<String> = things(&shards).into_iter().map(|thing| thing.words).collect();
    assert!(words.iter().all(|words| !words.contains("first")), "{words:?}");
    assert!(words.iter().any(|words| words.starts_with("in flight 5 Sent second")), "{words:?}");
    let journal = shards[0].world.journal.clone();
    let started = Bench::start(settings(), ShardId(0), Now::default(), journal);
    let live: Vec<u64> = (1..=9).filter(|lsn| started.broker.live.contains(Lsn(*lsn))).collect();
    assert_eq!(live, [1, 4, 5, 8], "what had the packet id before is needed no more");
}

/// An entry of a queue, by its session; of a shared subscription by what it is alone, for which member gets it depends on
/// whose turn it is.
fn who_gets_what(thing: &Thing) -> Option<String> {
    let rest = thing.words.strip_prefix("queue ")?;
    let (grant, body) = rest.split_once(": ").expect("an entry has a body");
    Some(if grant.ends_with("None") { format!("{} {rest}", thing.of) } else { format!("shared {body}") })
}

#[test]
fn salvage_of_what_is_sound_changes_nothing_and_misses_nothing() {
    let (mut tally, mut wear, mut settled) = (Tally::default(), Wear::default(), 0);
    for seed in 0..60 {
        let count = [1, 3][usize::try_from(seed % 2).expect("small")];
        let case = case(seed, count, 0, (&mut tally, &mut wear));
        assert!(case.report.is_whole() && !case.report.again(), "seed {seed}: {:#?}", case.report);
        case.judge(&mut tally);
        assert_eq!(tally.missing + tally.came_again, 0);
        let start = |benches: &[Bench]| -> Vec<Bench> {
            let one = |bench: &Bench| {
                let (settings, shard) = (bench.broker.settings.clone(), bench.broker.shard);
                Bench::start(settings, shard, bench.now, bench.world.journal.clone())
            };
            benches.iter().map(one).collect()
        };
        let (before, after) = (start(&case.before), start(&case.after));
        let mut seen = Seen::default();
        assert_eq!(digest(&before, &mut seen), digest(&after, &mut seen), "seed {seed}");
        if case.before[0].broker.settings.queue_messages_max < 1_000 {
            // Who is skipped because its queue is full depends on which member of a group gets what.
            continue;
        }
        // What is under way comes to its end, and once: with keys that were not carried there would be more.
        let settle = |shards| journals(&Run::go_on(shards, seed).settled());
        let [before, after] = [before, after].map(|shards| {
            let (settings, now) = (shards[0].broker.settings.clone(), shards[0].now);
            let things = things(&replayed(&settings, now, settle(shards)));
            let mut entries: Vec<String> = things.iter().filter_map(who_gets_what).collect();
            entries.sort();
            // A will that is due at a crash is published again after it, and when that is, the dice say.
            entries.dedup_by(|one, next| one == next && one.contains("\"will\""));
            entries
        });
        settled += before.len();
        assert_eq!(before, after, "seed {seed}, settled");
    }
    assert!(settled > 0, "nothing was compared when all was at its end");
    assert!(tally.unrouted > 0 && tally.placed > 0 && wear.checkpoints > 0, "{tally:?} {wear:?}");
}
