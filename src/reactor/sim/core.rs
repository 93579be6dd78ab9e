//! What every part of the simulated world shares: the clock, the agenda of coming events, the seed's numbers, the
//! trace, and the notices that wait for a shard's next turn. Decides nothing.

use std::collections::{BTreeMap, VecDeque};

use super::super::{Completion, Random};
use super::{Settings, disk, network};
use crate::time::{Nanos, Now, UnixMs};

/// Something that will happen.
pub(super) enum Event {
    Network(network::Event),
    Disk(disk::OperationId),
    /// Only so that the clock stops there.
    Wake,
}

/// Something that a shard is told in its next turn.
pub(super) enum Notice {
    /// That end of a connection became ready; told only if it is still watched then.
    Ready { end: u64 },
    /// An operation ended. Completions with one `key` keep their order; others are mixed.
    Done { key: u64, completion: Completion },
}

/// The wall clock when the world begins, 2026-01-01, so that no time is 0 by accident.
const WALL_AT_START_MS: u64 = 1_767_225_600_000;

/// Likewise for the monotonic clock.
const MONO_AT_START_NS: u64 = 1_000_000_000;

pub(super) struct Core {
    pub(super) settings: Settings,
    pub(super) random: Random,
    now: Nanos,
    /// By how much somebody has set the wall clock.
    pub(super) wall_set_by_ms: i64,
    agenda: BTreeMap<(Nanos, u64), Event>,
    sequence: u64,
    trace: u64,
    notices: Vec<VecDeque<Notice>>,
}

impl Core {
    pub(super) fn new(seed: u64, settings: Settings) -> Core {
        Core {
            settings,
            random: Random::new(seed),
            now: Nanos(MONO_AT_START_NS),
            wall_set_by_ms: 0,
            agenda: BTreeMap::new(),
            sequence: 0,
            trace: 0xCBF2_9CE4_8422_2325,
            notices: Vec::new(),
        }
    }

    pub(super) fn now(&self) -> Nanos {
        self.now
    }

    pub(super) fn clocks(&self) -> Now {
        let since = (self.now.0 - MONO_AT_START_NS) / 1_000_000;
        Now {
            mono: self.now,
            wall: UnixMs((WALL_AT_START_MS + since).saturating_add_signed(self.wall_set_by_ms)),
        }
    }

    pub(super) fn draw(&mut self, range: (u64, u64)) -> u64 {
        self.random.between(range.0, range.1)
    }

    /// Events at one instant happen in the order in which they were scheduled.
    pub(super) fn schedule(&mut self, at: Nanos, event: Event) {
        self.agenda.insert((at.max(self.now), self.sequence), event);
        self.sequence += 1;
    }

    pub(super) fn next_at(&self) -> Option<Nanos> {
        self.agenda.first_key_value().map(|(&(at, _), _)| at)
    }

    pub(super) fn take_due(&mut self) -> Option<Event> {
        let entry = self.agenda.first_entry()?;
        (entry.key().0 <= self.now).then(|| entry.remove())
    }

    /// The clock never goes back.
    pub(super) fn advance_to(&mut self, at: Nanos) {
        self.now = self.now.max(at);
    }

    /// Add to the trace: FNV-1a over the time and the words.
    pub(super) fn note(&mut self, words: &[u64]) {
        for &word in [self.now.0].iter().chain(words) {
            for byte in word.to_le_bytes() {
                self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
            }
        }
    }

    pub(super) fn note_bytes(&mut self, kind: u64, id: u64, bytes: &[u8]) {
        let mut hash = 0xCBF2_9CE4_8422_2325u64;
        for &byte in bytes {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
        self.note(&[kind, id, bytes.len() as u64, hash]);
    }

    pub(super) fn trace_hash(&self) -> u64 {
        self.trace
    }

    pub(super) fn add_shard(&mut self) -> usize {
        self.notices.push(VecDeque::new());
        self.notices.len() - 1
    }

    pub(super) fn tell(&mut self, shard: usize, notice: Notice) {
        self.notices[shard].push_back(notice);
    }

    pub(super) fn has_notices(&self, shard: usize) -> bool {
        !self.notices[shard].is_empty()
    }

    pub(super) fn take_notice(&mut self, shard: usize) -> Option<Notice> {
        self.notices[shard].pop_front()
    }

    pub(super) fn forget_notices(&mut self) {
        self.notices.iter_mut().for_each(VecDeque::clear);
    }
}
