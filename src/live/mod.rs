//! Which records of a shard's journal are still needed: exactly, record by record.
//!
//! A record is *live* while replay would miss it. The broker says so as things happen; the journal asks: what is not
//! live need not be kept, and after a checkpoint replay gets the live records alone. So this set, with the few facts
//! below, says of every acknowledgement, release and end so far what it changed, and none of those has to be carried
//! forward.
//!
//! A record can be needed more than once: a message by each recipient that it lists, and by its body's users. It is
//! live until the last need is gone. What is not said by a record's being live:
//!
//! - which of the recipients that it lists need it no more (`gone`);
//! - whether an `Inbound` record is still to be routed, and whether its packet id is still taken.
//!
//! Memory: about 200 bytes per 256 numbers of which any is live, about 60 more for a record that is needed by several.

mod chunks;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Range, RangeInclusive};

use self::chunks::Chunks;
use crate::ids::{Lsn, SessionKey};

/// Numbers in one chunk.
pub const CHUNK_LSNS: u64 = 256;

/// What a record without a body is taken to weigh: its frame and a few numbers.
const NOTE_BYTES: u64 = 64;

/// What a record with a body weighs beside it: frame, lengths, one recipient.
const HEAD_BYTES: u64 = 96;

/// One bit for each number of a chunk.
pub type Bits = [u64; 4];

/// Live records; see the module documentation.
#[derive(Debug, Default)]
pub struct LiveSet {
    chunks: Chunks,
    shared: BTreeMap<Lsn, Shared>,
    /// `Inbound` records that are still to be routed.
    unrouted: BTreeSet<Lsn>,
    /// `Inbound` records whose packet id is taken.
    taken: BTreeSet<Lsn>,
    session_key_max: SessionKey,
    count: u64,
}

/// A record that several need, or that not all need any more that it lists.
#[derive(Debug, Default)]
struct Shared {
    needs: u32,
    /// Recipients that the record lists, if more than one.
    listed: u32,
    gone: Gone,
}

/// A record's recipients that need it no more, by their place in its list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Gone {
    /// Of the first 64.
    Few(u64),
    /// Of any number.
    Many(Box<[u64]>),
}

impl Default for Gone {
    fn default() -> Gone {
        Gone::Few(0)
    }
}

impl Gone {
    /// From words of 64 places each.
    pub fn from_words(words: &[u64]) -> Gone {
        match words {
            [] => Gone::Few(0),
            [one] => Gone::Few(*one),
            many => Gone::Many(many.into()),
        }
    }

    /// 64 places in each.
    pub fn words(&self) -> &[u64] {
        match self {
            Gone::Few(word) => std::slice::from_ref(word),
            Gone::Many(words) => words,
        }
    }

    /// Whether the recipient in that place is.
    pub fn contains(&self, place: u32) -> bool {
        let word = self.words().get(place as usize / 64).copied().unwrap_or(0);
        word >> (place % 64) & 1 == 1
    }

    /// Whether nobody is.
    pub fn is_empty(&self) -> bool {
        self.words().iter().all(|word| *word == 0)
    }

    /// False if it was before.
    fn insert(&mut self, place: u32) -> bool {
        let index = place as usize / 64;
        if index >= self.words().len() {
            let mut words = self.words().to_vec();
            words.resize(index + 1, 0);
            *self = Gone::Many(words.into());
        }
        let word = match self {
            Gone::Few(word) => word,
            Gone::Many(words) => &mut words[index],
        };
        let bit = 1 << (place % 64);
        let fresh = *word & bit == 0;
        *word |= bit;
        fresh
    }
}

/// What is known of a live record beside what it says itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts<'a> {
    /// Recipients of its list that it is not for any more.
    pub gone: Option<&'a Gone>,
    /// Of an `Inbound`: it is routed.
    pub routed: bool,
    /// Of an `Inbound`: its packet id is free.
    pub released: bool,
}

impl Facts<'static> {
    /// Nothing: the record is as it was written.
    pub const NONE: Facts<'static> = Facts { gone: None, routed: false, released: false };
}

/// How much of a range is live.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Estimate {
    /// Records, exactly.
    pub records: u64,
    /// Bytes on disk, about: those of bodies by the mean of their chunk.
    pub bytes: u64,
}

impl LiveSet {
    /// The record is needed once more. `body_bytes`: of its topic, properties and payload; 0 if it has none, or if
    /// that is not known because the record is live already.
    pub fn add(&mut self, lsn: Lsn, body_bytes: usize) {
        assert!(lsn.is_some(), "a record has a number");
        let chunk = self.chunks.of(lsn.0 / CHUNK_LSNS);
        let (word, bit) = place(lsn);
        if chunk.live[word] & bit != 0 {
            if let Some(shared) = self.shared.get_mut(&lsn) {
                shared.needs += 1;
            } else if chunk.twice[word] & bit == 0 {
                chunk.twice[word] |= bit;
            } else {
                self.share(lsn).needs += 1;
            }
            return;
        }
        chunk.live[word] |= bit;
        if body_bytes > 0 {
            chunk.bodies[word] |= bit;
            chunk.body_bytes += body_bytes as u64 + HEAD_BYTES;
        }
        self.count += 1;
    }

    /// The record lists so many recipients (1 at least), each of whom needs it.
    pub fn add_listed(&mut self, lsn: Lsn, body_bytes: usize, recipients: u32) {
        assert!(recipients > 0, "a record that lists nobody is needed by nobody for that");
        self.add(lsn, body_bytes);
        if recipients > 1 {
            let shared = self.share(lsn);
            shared.needs += recipients - 1;
            shared.listed = recipients;
        }
    }

    /// Counts the needs of a live record apart.
    fn share(&mut self, lsn: Lsn) -> &mut Shared {
        let chunk = self.chunks.of(lsn.0 / CHUNK_LSNS);
        let (word, bit) = place(lsn);
        let needs = if chunk.twice[word] & bit == 0 { 1 } else { 2 };
        chunk.twice[word] &= !bit;
        self.shared.entry(lsn).or_insert(Shared { needs, ..Shared::default() })
    }

    /// One need less.
    pub fn remove(&mut self, lsn: Lsn) {
        let chunk = self.chunks.get_mut(lsn.0 / CHUNK_LSNS);
        let (word, bit) = place(lsn);
        let chunk = chunk.filter(|chunk| chunk.live[word] & bit != 0);
        let chunk = chunk.expect("every removal follows its addition");
        if chunk.twice[word] & bit != 0 {
            chunk.twice[word] &= !bit;
            return;
        }
        if let Some(shared) = self.shared.get_mut(&lsn) {
            shared.needs -= 1;
            let (needs, plain) = (shared.needs, shared.listed <= 1 && shared.gone.is_empty());
            if needs == 0 || needs == 1 && plain {
                self.shared.remove(&lsn);
            }
            if needs > 0 {
                return;
            }
        }
        self.die(lsn);
    }

    /// A recipient that the record lists in that place needs it no more.
    pub fn recipient_gone(&mut self, lsn: Lsn, place: u32) {
        if let Some(shared) = self.shared.get_mut(&lsn) {
            assert!(shared.gone.insert(place), "a recipient is gone once");
        } else {
            assert!(place == 0, "a record that lists several is shared");
            if self.is_needed_twice(lsn) {
                self.share(lsn).gone.insert(0);
            }
        }
        self.remove(lsn);
    }

    fn die(&mut self, lsn: Lsn) {
        let number = lsn.0 / CHUNK_LSNS;
        let chunk = self.chunks.get_mut(number).expect("a live record is in a chunk");
        let (word, bit) = place(lsn);
        chunk.live[word] &= !bit;
        if chunk.bodies[word] & bit != 0 {
            chunk.body_bytes -= chunk.body_bytes / ones(&chunk.bodies);
            chunk.bodies[word] &= !bit;
        }
        if chunk.live == [0; 4] {
            self.chunks.remove(number);
        }
        self.count -= 1;
    }

    /// An `Inbound` record is to be routed; or everyone has it.
    pub fn set_unrouted(&mut self, inbound: Lsn, unrouted: bool) {
        if unrouted {
            self.unrouted.insert(inbound);
        } else {
            self.unrouted.remove(&inbound);
        }
    }

    /// The packet id of an `Inbound` record is taken; or it is free.
    pub fn set_taken(&mut self, inbound: Lsn, taken: bool) {
        if taken {
            self.taken.insert(inbound);
        } else {
            self.taken.remove(&inbound);
        }
    }

    /// That key is used: no session may get it again, also when no record says so any more.
    pub fn session_key_is_used(&mut self, key: SessionKey) {
        self.session_key_max = self.session_key_max.max(key);
    }

    /// The highest session key ever used.
    pub fn session_key_max(&self) -> SessionKey {
        self.session_key_max
    }

    /// Whether the record is live.
    pub fn contains(&self, lsn: Lsn) -> bool {
        let (word, bit) = place(lsn);
        self.chunks.get(lsn.0 / CHUNK_LSNS).is_some_and(|chunk| chunk.live[word] & bit != 0)
    }

    fn is_needed_twice(&self, lsn: Lsn) -> bool {
        let (word, bit) = place(lsn);
        self.chunks.get(lsn.0 / CHUNK_LSNS).is_some_and(|chunk| chunk.twice[word] & bit != 0)
    }

    /// Those of these that are live. They are best in order: a chunk is looked up once for all that are in it.
    pub fn only_live(&self, lsns: impl Iterator<Item = Lsn>) -> impl Iterator<Item = Lsn> {
        let (mut number, mut chunk) = (u64::MAX, None);
        lsns.filter(move |lsn| {
            if lsn.0 / CHUNK_LSNS != number {
                number = lsn.0 / CHUNK_LSNS;
                chunk = self.chunks.get(number);
            }
            let (word, bit) = place(*lsn);
            chunk.is_some_and(|chunk| chunk.live[word] & bit != 0)
        })
    }

    /// What replay has to be told about a live record.
    pub fn facts(&self, lsn: Lsn) -> Facts<'_> {
        let gone = self.shared.get(&lsn).map(|shared| &shared.gone).filter(|gone| !gone.is_empty());
        Facts { gone, routed: !self.unrouted.contains(&lsn), released: !self.taken.contains(&lsn) }
    }

    /// Live records.
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Whether nothing is live.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The oldest live record.
    pub fn oldest(&self) -> Option<Lsn> {
        let (number, chunk) = self.chunks.range(..).next()?;
        lsns(number, &chunk.live).next()
    }

    /// How much of that range is live.
    pub fn estimate(&self, range: Range<Lsn>) -> Estimate {
        let mut estimate = Estimate::default();
        if range.start >= range.end {
            return estimate;
        }
        let last = Lsn(range.end.0 - 1);
        for (number, chunk) in self.chunks.range(range.start.0 / CHUNK_LSNS..=last.0 / CHUNK_LSNS) {
            let mask = mask(number, &(range.start..=last));
            let (live, bodies) = (ones(&and(&chunk.live, &mask)), ones(&and(&chunk.bodies, &mask)));
            estimate.records += live;
            estimate.bytes += (live - bodies) * NOTE_BYTES;
            estimate.bytes += chunk.body_bytes * bodies / ones(&chunk.bodies).max(1);
        }
        estimate
    }

    /// How many need the record.
    #[cfg(test)]
    pub(crate) fn needs(&self, lsn: Lsn) -> u32 {
        let unshared = u32::from(self.contains(lsn)) + u32::from(self.is_needed_twice(lsn));
        self.shared.get(&lsn).map_or(unshared, |shared| shared.needs)
    }

    /// Every chunk from that number on: its number, and which of its records are live.
    pub fn chunks_from(&self, number: u64) -> impl Iterator<Item = (u64, &Bits)> {
        self.chunks.range(number..).map(|(number, chunk)| (number, &chunk.live))
    }

    /// Every live record from that one on some of whose recipients are gone, in order. To be written down before, or
    /// in the same moment as, that the record is live: of one that dies between the two, it would seem that nobody is.
    pub fn gone_from(&self, lsn: Lsn) -> impl Iterator<Item = (Lsn, &Gone)> {
        self.shared
            .range(lsn..)
            .filter(|(_, shared)| !shared.gone.is_empty())
            .map(|(lsn, shared)| (*lsn, &shared.gone))
    }

    /// `Inbound` records from that one on that are still to be routed, in order.
    pub fn unrouted_from(&self, lsn: Lsn) -> impl Iterator<Item = Lsn> {
        self.unrouted.range(lsn..).copied()
    }

    /// `Inbound` records from that one on whose packet id is taken, in order.
    pub fn taken_from(&self, lsn: Lsn) -> impl Iterator<Item = Lsn> {
        self.taken.range(lsn..).copied()
    }
}

/// The bits of a chunk without those of numbers above the last one.
pub fn up_to(number: u64, bits: &Bits, last: Lsn) -> Bits {
    if (number + 1) * CHUNK_LSNS - 1 <= last.0 {
        *bits
    } else {
        and(bits, &mask(number, &(Lsn::NONE..=last)))
    }
}

/// The numbers whose bits are set in a chunk, ascending.
pub fn lsns(number: u64, bits: &Bits) -> impl Iterator<Item = Lsn> {
    let bits = *bits;
    (0..CHUNK_LSNS)
        .filter(move |offset| {
            let (word, bit) = place(Lsn(*offset));
            bits[word] & bit != 0
        })
        .map(move |offset| Lsn(number * CHUNK_LSNS + offset))
}

/// Word and bit of a number in its chunk.
pub fn place(lsn: Lsn) -> (usize, u64) {
    let offset = lsn.0 % CHUNK_LSNS;
    (usize::try_from(offset / 64).expect("one of four"), 1 << (offset % 64))
}

fn mask(number: u64, range: &RangeInclusive<Lsn>) -> Bits {
    let first = number * CHUNK_LSNS;
    let low = range.start().0.max(first) - first;
    let high = range.end().0.min(first + CHUNK_LSNS - 1) - first;
    std::array::from_fn(|word| {
        let begin = word as u64 * 64;
        let from = low.saturating_sub(begin).min(64);
        let to = (high + 1).saturating_sub(begin).min(64);
        let below = |bits: u64| if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
        below(to) & !below(from)
    })
}

fn and(a: &Bits, b: &Bits) -> Bits {
    std::array::from_fn(|word| a[word] & b[word])
}

fn ones(bits: &Bits) -> u64 {
    bits.iter().map(|word| u64::from(word.count_ones())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::Random;

    #[test]
    fn a_record_is_live_until_its_last_need_is_gone() {
        let mut live = LiveSet::default();
        live.add(Lsn(5), 100);
        live.add(Lsn(5), 0);
        live.remove(Lsn(5));
        assert!(live.contains(Lsn(5)));
        assert!(live.shared.is_empty(), "one need takes no room of its own");
        live.remove(Lsn(5));
        assert!(!live.contains(Lsn(5)) && live.is_empty() && live.chunks.range(..).next().is_none());
    }

    /// Against a plain count, and a plain list of who is gone.
    #[test]
    fn needs_are_counted_in_whatever_order_they_come_and_go() {
        let mut random = Random::new(4);
        let (mut live, mut model) = (LiveSet::default(), BTreeMap::<Lsn, (u32, u32, BTreeSet<u32>)>::new());
        for _ in 0..50_000 {
            let lsn = Lsn(1 + random.below(3 * CHUNK_LSNS));
            let known = model.get(&lsn).cloned();
            match (random.below(4), known) {
                (0, None) => {
                    let listed = 1 + random.below(3) as u32;
                    live.add_listed(lsn, 100, listed);
                    model.insert(lsn, (listed, listed, BTreeSet::new()));
                }
                // Of one that was live before anyone was known to be listed.
                (0, Some((needs, 1, gone))) if gone.is_empty() && random.per_mille(200) => {
                    let listed = 1 + random.below(3) as u32;
                    live.add_listed(lsn, 0, listed);
                    model.insert(lsn, (needs + listed, listed, gone));
                }
                (1, Some((needs, listed, gone))) => {
                    live.add(lsn, 0);
                    model.insert(lsn, (needs + 1, listed, gone));
                }
                (2, Some((needs, listed, mut gone))) if (gone.len() as u32) < listed => {
                    let place = (0..listed).find(|place| !gone.contains(place)).unwrap();
                    live.recipient_gone(lsn, place);
                    gone.insert(place);
                    model.insert(lsn, (needs - 1, listed, gone));
                }
                // Of those that are no recipients.
                (3, Some((needs, listed, gone))) if needs > listed - gone.len() as u32 => {
                    live.remove(lsn);
                    model.insert(lsn, (needs - 1, listed, gone));
                }
                _ => {}
            }
            model.retain(|_, (needs, _, _)| *needs > 0);
            assert_eq!(live.needs(lsn), model.get(&lsn).map_or(0, |(needs, _, _)| *needs));
            let gone: Vec<u32> = (0..4)
                .filter(|place| live.facts(lsn).gone.is_some_and(|gone| gone.contains(*place)))
                .collect();
            assert_eq!(
                gone,
                model.get(&lsn).map_or_else(Vec::new, |(_, _, gone)| gone.iter().copied().collect())
            );
        }
        assert_eq!(live.len(), model.len() as u64);
        assert!(live.chunks_from(0).flat_map(|(number, bits)| lsns(number, bits)).eq(model.into_keys()));
    }

    #[test]
    fn those_that_are_live_are_told_from_the_others_in_any_order() {
        let mut live = LiveSet::default();
        let chunk = CHUNK_LSNS;
        [3, 5, chunk, 3 * chunk + 1].into_iter().for_each(|number| live.add(Lsn(number), 0));
        let some = |numbers: &[u64]| -> Vec<u64> {
            live.only_live(numbers.iter().copied().map(Lsn)).map(|lsn| lsn.0).collect()
        };
        assert_eq!(
            some(&[3, 4, 5, chunk - 1, chunk, 2 * chunk + 3, 3 * chunk + 1]),
            [3, 5, chunk, 3 * chunk + 1]
        );
        assert_eq!(some(&[3 * chunk + 1, 5, chunk + 5, 5]), [3 * chunk + 1, 5, 5]);
        assert_eq!(some(&[]), [0; 0]);
    }

    #[test]
    fn recipients_that_are_gone_are_known_as_long_as_the_record_is_live() {
        let mut live = LiveSet::default();
        live.add_listed(Lsn(9), 10, 130);
        for place in (0..130).filter(|place| *place != 77) {
            live.recipient_gone(Lsn(9), place);
        }
        let gone = live.facts(Lsn(9)).gone.expect("most are gone");
        assert!((0..130).all(|place| gone.contains(place) == (place != 77)));
        assert_eq!(live.gone_from(Lsn(0)).count(), 1);
        live.recipient_gone(Lsn(9), 77);
        assert!(live.is_empty() && live.shared.is_empty());
    }

    #[test]
    fn the_only_recipient_is_known_to_be_gone_while_the_body_has_another_user() {
        let mut live = LiveSet::default();
        live.add(Lsn(3), 10);
        live.add_listed(Lsn(3), 10, 1);
        live.recipient_gone(Lsn(3), 0);
        assert!(live.facts(Lsn(3)).gone.is_some_and(|gone| gone.contains(0)));
        live.remove(Lsn(3));
        assert!(live.is_empty() && live.shared.is_empty());
    }

    #[test]
    fn the_oldest_and_what_is_live_of_a_range_are_exact_in_number() {
        let mut live = LiveSet::default();
        for lsn in (1..=2_000).step_by(3) {
            live.add(Lsn(lsn), 1_000);
        }
        assert_eq!(live.oldest(), Some(Lsn(1)));
        for range in [1..2_001, 255..257, 256..512, 300..301, 64..64, 1_000..1_999] {
            let expected = range.clone().filter(|lsn| lsn % 3 == 1).count() as u64;
            let estimate = live.estimate(Lsn(range.start)..Lsn(range.end));
            assert_eq!(
                estimate,
                Estimate { records: expected, bytes: expected * (1_000 + HEAD_BYTES) },
                "{range:?}"
            );
        }
        live.remove(Lsn(1));
        assert_eq!(live.oldest(), Some(Lsn(4)));
        assert_eq!(live.len(), 666);
    }

    #[test]
    fn what_is_left_of_a_chunk_weighs_the_mean_of_it() {
        let mut live = LiveSet::default();
        live.add(Lsn(1), 300);
        live.add(Lsn(2), 100);
        live.add(Lsn(3), 0);
        assert_eq!(live.estimate(Lsn(1)..Lsn(4)).bytes, 400 + 2 * HEAD_BYTES + NOTE_BYTES);
        live.remove(Lsn(2));
        assert_eq!(live.estimate(Lsn(1)..Lsn(4)).bytes, 200 + HEAD_BYTES + NOTE_BYTES);
        live.remove(Lsn(1));
        assert_eq!(live.estimate(Lsn(1)..Lsn(4)).bytes, NOTE_BYTES);
    }

    #[test]
    fn facts_of_inbound_records_are_kept_apart() {
        let mut live = LiveSet::default();
        live.set_unrouted(Lsn(7), true);
        live.set_taken(Lsn(7), true);
        let facts = |live: &LiveSet| (live.facts(Lsn(7)).routed, live.facts(Lsn(7)).released);
        assert_eq!(facts(&live), (false, false));
        live.set_unrouted(Lsn(7), false);
        assert_eq!(facts(&live), (true, false));
        live.set_taken(Lsn(7), false);
        assert_eq!(facts(&live), (true, true));
    }
}
