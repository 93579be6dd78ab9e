//! What a broker says of itself below `$SYS/broker/`, where it says it: what was recorded, and what the journal wrote.
//!
//! Decides which topics are asked and when a value can be believed to be newer than an event: it is published once a
//! second and may be a second old then, so the third publication after the event. A broker without these topics is
//! driven all the same; the figures made of them are missing then.
//!
//! Invariant: [`System::counters`] are all of one publication.

use anyhow::{Result, bail};

use crate::client::codec::{self, Frame, Publish, Version, kind};

/// The filter that a run's observer subscribes to.
pub const FILTER: &str = "$SYS/broker/#";

/// Below `$SYS/broker/`, in the order of the fields of [`Counters`]. The last is the last one of each publication.
const TOPICS: [&[u8]; 8] = [
    b"$SYS/broker/messages/recorded",
    b"$SYS/broker/messages/queued",
    b"$SYS/broker/messages/refused",
    b"$SYS/broker/messages/expired",
    b"$SYS/broker/journal/bytes",
    b"$SYS/broker/journal/bytes/appended",
    b"$SYS/broker/journal/bytes/copied",
    b"$SYS/broker/journal/syncs",
];

/// How many publications later a value is surely newer than something that has happened.
const ROUNDS_LATER: u64 = 3;

/// The numbers that the broker has published last.
#[derive(Debug, Default)]
pub struct System {
    /// Of the publication that is arriving.
    arriving: [Option<u64>; TOPICS.len()],
    counters: Option<Counters>,
    rounds: u64,
}

/// Counters since the broker's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages written to the journal with their recipients.
    pub recorded: u64,
    /// Messages in queues now: a level.
    pub queued: u64,
    pub refused: u64,
    pub expired: u64,
    /// Bytes written to the journal: records with their blocks' heads and padding, copies and checkpoints.
    pub bytes: u64,
    /// Bytes of records.
    pub appended: u64,
    /// Bytes of blocks of records that were copied so that their segment could be given up.
    pub copied: u64,
    pub syncs: u64,
}

impl System {
    /// A frame for the client that observes.
    pub fn on_frame(&mut self, version: Version, frame: &Frame<'_>) -> Result<()> {
        if frame.kind() != kind::PUBLISH {
            bail!("the observer of {FILTER} got packet type {}", frame.kind());
        }
        self.arrived(&codec::parse_publish(frame, version)?);
        Ok(())
    }

    fn arrived(&mut self, publish: &Publish<'_>) {
        let Some(index) = TOPICS.iter().position(|topic| *topic == publish.topic) else { return };
        self.arriving[index] = std::str::from_utf8(publish.payload).ok().and_then(|text| text.parse().ok());
        if index == TOPICS.len() - 1 {
            self.rounds += 1;
            self.counters = gathered(self.arriving);
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
        self.counters
    }
}

/// `None` unless each has been told.
fn gathered(values: [Option<u64>; TOPICS.len()]) -> Option<Counters> {
    let [recorded, queued, refused, expired, bytes, appended, copied, syncs] = values;
    Some(Counters {
        recorded: recorded?,
        queued: queued?,
        refused: refused?,
        expired: expired?,
        bytes: bytes?,
        appended: appended?,
        copied: copied?,
        syncs: syncs?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tell(system: &mut System, topic: &[u8], payload: &str) {
        system.arrived(&Publish { qos: 0, topic, packet_id: 0, payload: payload.as_bytes() });
    }

    #[test]
    fn counters_are_known_once_each_has_been_told_and_other_topics_do_not_matter() {
        let mut system = System::default();
        for (index, topic) in TOPICS.iter().enumerate() {
            assert_eq!(system.counters(), None);
            tell(&mut system, b"$SYS/broker/uptime", "3 seconds");
            tell(&mut system, topic, &(10 * index).to_string());
        }
        let expected = Counters {
            recorded: 0,
            queued: 10,
            refused: 20,
            expired: 30,
            bytes: 40,
            appended: 50,
            copied: 60,
            syncs: 70,
        };
        assert_eq!(system.counters(), Some(expected));
        // The next publication has begun, and not ended.
        tell(&mut system, TOPICS[4], "4000");
        assert_eq!(system.counters(), Some(expected));
        tell(&mut system, TOPICS[7], "71");
        assert_eq!(system.counters(), Some(Counters { bytes: 4_000, syncs: 71, ..expected }));
    }

    #[test]
    fn a_value_counts_as_newer_after_three_publications() {
        let mut system = System::default();
        tell(&mut system, TOPICS[7], "1");
        let later = system.later();
        for told in 1..=3 {
            assert!(!system.has_reached(later), "after {} publications", told - 1);
            tell(&mut system, TOPICS[7], "1");
        }
        assert!(system.has_reached(later));
    }
}
