//! What a checkpoint says of the records up to it.

use super::random::Random;
use super::*;
use crate::live::{Gone, LiveSet};

/// Which records are live at one moment, and what replay has to be told of them.
pub(super) struct Moment {
    live: BTreeMap<Lsn, Told>,
    session_key_max: SessionKey,
}

#[derive(Clone, Default)]
struct Told {
    gone: Option<Gone>,
    unrouted: bool,
    taken: bool,
}

/// A look at the live records.
pub(super) struct Look {
    /// The last record that it speaks of.
    pub(super) last: Lsn,
    first: Moment,
    /// The last record when it was over, and the deaths up to there.
    pub(super) second: Option<(Lsn, Moment)>,
    /// The process that began it has died.
    pub(super) over: bool,
}

impl Moment {
    fn of(live: &LiveSet) -> Moment {
        let lsns = live.chunks_from(0).flat_map(|(number, bits)| crate::live::lsns(number, bits));
        let told = |lsn: Lsn| {
            let facts = live.facts(lsn);
            Told { gone: facts.gone.cloned(), unrouted: !facts.routed, taken: !facts.released }
        };
        Moment { live: lsns.map(|lsn| (lsn, told(lsn))).collect(), session_key_max: live.session_key_max() }
    }
}

impl Look {
    pub(super) fn begin(broker: &Broker) -> Look {
        Look { last: broker.lsn, first: Moment::of(&broker.live), second: None, over: false }
    }

    pub(super) fn finish(&mut self, broker: &Broker) {
        self.second = Some((broker.lsn, Moment::of(&broker.live)));
    }

    /// The record with which all that it saw is explained.
    pub(super) fn end(&self) -> Lsn {
        self.second.as_ref().map_or(self.last, |(end, _)| *end)
    }

    /// In words, what it says of a record.
    pub(super) fn kind(&self, lsn: Lsn) -> &'static str {
        let later = self.second.as_ref().map_or(&self.first, |(_, second)| second);
        match (self.first.live.contains_key(&lsn), later.live.contains_key(&lsn)) {
            (true, true) => "live ",
            (true, false) => "died ",
            _ => "dead ",
        }
    }

    /// Which of the two moments counts for one thing that is written down, by what the journal does.
    fn moment(&self, manner: Manner, random: &mut Random) -> &Moment {
        match &self.second {
            Some((_, second)) if manner == Manner::Second || manner == Manner::Either && random.one_in(2) => {
                second
            }
            _ => &self.first,
        }
    }

    /// What it says of a record, if that is live. Who is gone has to be written down before, or with, what is live: a
    /// record that has died between the two would else seem to be for all of them. What is not routed and which packet
    /// ids are taken may be written down at any time.
    fn told(&self, lsn: Lsn, manner: Manner, random: &mut Random) -> Option<Told> {
        let told = self.moment(manner, random).live.get(&lsn)?;
        let before = self.first.live.get(&lsn).filter(|_| manner == Manner::Either && random.one_in(2));
        let dead = Told::default();
        let mut either = || self.moment(manner, random).live.get(&lsn).unwrap_or(&dead);
        Some(Told {
            gone: before.unwrap_or(told).gone.clone(),
            unrouted: either().unrouted,
            taken: either().taken,
        })
    }
}

/// When the journal writes down what is live.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    /// At the first moment of a look.
    First,
    /// At the second.
    Second,
    /// Each thing by itself, between the two.
    Either,
}

impl Bench {
    /// A broker that has replayed those of these records that the look says, and all that came after it.
    pub(super) fn from_live(
        (settings, shard, now): (Settings, ShardId, Now),
        journal: &[(Lsn, Vec<u8>)],
        look: &Look,
        random: &mut Random,
    ) -> Bench {
        let broker = Broker::new(settings, shard);
        let mut bench = Bench { broker, world: World::default(), now, durable: journal.len() };
        let manner = random.one_of(&[Manner::First, Manner::Second, Manner::Either]);
        for (lsn, bytes) in journal {
            let record = journal::decoded(bytes);
            if *lsn > look.last {
                bench.handle(Input::Replay { lsn: *lsn, record, facts: Facts::NONE });
            } else if let Some(told) = look.told(*lsn, manner, random) {
                let (gone, routed, released) = (told.gone.as_ref(), !told.unrouted, !told.taken);
                bench.handle(Input::Replay { lsn: *lsn, record, facts: Facts { gone, routed, released } });
            }
        }
        bench.world.journal = journal.to_vec();
        let lsn = journal.last().map_or(Lsn::NONE, |(lsn, _)| *lsn);
        let session_key_max = look.moment(manner, random).session_key_max;
        bench.handle(Input::Replayed { lsn, session_key_max });
        bench
    }
}
