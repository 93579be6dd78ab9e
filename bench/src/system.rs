//! What a broker says of itself below `$SYS/broker/`, where it says it: what was recorded, and what the journal wrote.
//!
//! Decides which topics are asked and when a value can be believed to be newer than an event: it is published once a
//! second and may be a second old then, so the third publication after the event. A broker without these topics is
//! driven all the same; the figures made of them are missing then.

use std::collections::BTreeMap;

use crate::client::codec::Publish;

/// The filter that a run's observer subscribes to.
pub const FILTER: &str = "$SYS/broker/#";

const RECORDED: &str = "$SYS/broker/messages/recorded";
const BYTES: &str = "$SYS/broker/journal/bytes";
/// The last one of each publication.
const SYNCS: &str = "$SYS/broker/journal/syncs";

/// How many publications later a value is surely newer than something that has happened.
const ROUNDS_LATER: u64 = 3;

/// The numbers that the broker has published last.
#[derive(Debug, Default)]
pub struct System {
    values: BTreeMap<&'static str, u64>,
    rounds: u64,
}

/// Counters since the broker's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Messages written to the journal with their recipients.
    pub recorded: u64,
    /// Bytes written to the journal.
    pub bytes: u64,
    pub syncs: u64,
}

impl System {
    pub fn arrived(&mut self, publish: &Publish<'_>) {
        let known = [RECORDED, BYTES, SYNCS].into_iter().find(|topic| topic.as_bytes() == publish.topic);
        let value = std::str::from_utf8(publish.payload).ok().and_then(|text| text.parse().ok());
        if let (Some(topic), Some(value)) = (known, value) {
            self.values.insert(topic, value);
            self.rounds += u64::from(topic == SYNCS);
        }
    }

    /// The last publication that there must have been before `counters` tell of everything up to now.
    pub fn later(&self) -> u64 {
        self.rounds + ROUNDS_LATER
    }

    pub fn has_reached(&self, round: u64) -> bool {
        self.rounds >= round
    }

    /// `None`: this broker does not tell.
    pub fn counters(&self) -> Option<Counters> {
        let value = |topic| self.values.get(topic).copied();
        Some(Counters { recorded: value(RECORDED)?, bytes: value(BYTES)?, syncs: value(SYNCS)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tell(system: &mut System, topic: &str, payload: &str) {
        let publish = Publish { qos: 0, topic: topic.as_bytes(), packet_id: 0, payload: payload.as_bytes() };
        system.arrived(&publish);
    }

    #[test]
    fn counters_are_known_once_each_has_been_told_and_other_topics_do_not_matter() {
        let mut system = System::default();
        tell(&mut system, RECORDED, "7");
        tell(&mut system, BYTES, "4096");
        tell(&mut system, "$SYS/broker/uptime", "3 seconds");
        assert_eq!(system.counters(), None);
        tell(&mut system, SYNCS, "2");
        assert_eq!(system.counters(), Some(Counters { recorded: 7, bytes: 4_096, syncs: 2 }));
    }

    #[test]
    fn a_value_counts_as_newer_after_three_publications() {
        let mut system = System::default();
        tell(&mut system, SYNCS, "1");
        let later = system.later();
        for told in 1..=3 {
            assert!(!system.has_reached(later), "after {} publications", told - 1);
            tell(&mut system, SYNCS, "1");
        }
        assert!(system.has_reached(later));
    }
}
