//! The books on one stream of numbered messages: what was sent, what arrived, and what was wrong with that.
//!
//! Decides what counts as lost, duplicated or misrouted; every scenario that moves messages fails its run by it, so
//! that a broker cannot look fast by being wrong. A payload begins with the 20 bytes written by [`stamp`]:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | sequence number in the stream, little endian |
//! | 8 | 8 | send time in nanoseconds since the run's start |
//! | 16 | 4 | stream |

use anyhow::{Result, ensure};

/// The least payload that holds a stamp.
pub const STAMP_BYTES: usize = 20;

/// Writes a stamp to the front of `payload`.
pub fn stamp(payload: &mut [u8], stream: u32, sequence: u64, sent_ns: u64) {
    payload[..8].copy_from_slice(&sequence.to_le_bytes());
    payload[8..16].copy_from_slice(&sent_ns.to_le_bytes());
    payload[16..STAMP_BYTES].copy_from_slice(&stream.to_le_bytes());
}

/// The stream, sequence number and send time in a payload.
pub fn read_stamp(payload: &[u8]) -> Result<(u32, u64, u64)> {
    ensure!(payload.len() >= STAMP_BYTES, "a payload of {} bytes, which was never sent", payload.len());
    let word =
        |at: usize| u64::from_le_bytes(payload[at..at + 8].try_into().expect("eight bytes were sliced"));
    let stream = u32::from_le_bytes(payload[16..STAMP_BYTES].try_into().expect("four bytes were sliced"));
    Ok((stream, word(0), word(8)))
}

/// One stream's books.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ledger {
    /// The next sequence number to send; also how many were sent.
    pub sent: u64,
    /// The next sequence number that may arrive.
    pub expected: u64,
    /// Sequence numbers passed over: lost, or late.
    pub skipped: u64,
    /// Arrived although a later or the same one had arrived before.
    pub repeated: u64,
}

impl Ledger {
    /// Books an arrival; whether it is the first of its message.
    pub fn arrived(&mut self, sequence: u64) -> Result<bool> {
        ensure!(sequence < self.sent, "message {sequence} arrived, of {} that were sent", self.sent);
        if sequence < self.expected {
            self.repeated += 1;
            return Ok(false);
        }
        self.skipped += sequence - self.expected;
        self.expected = sequence + 1;
        Ok(true)
    }

    /// Sent and not yet arrived.
    pub fn outstanding(&self) -> u64 {
        self.sent - self.expected
    }
}

/// The books of all streams together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub sent: u64,
    pub arrived: u64,
    pub skipped: u64,
    pub repeated: u64,
    pub outstanding: u64,
}

impl Totals {
    pub fn of<'a>(ledgers: impl Iterator<Item = &'a Ledger>) -> Totals {
        ledgers.fold(Totals::default(), |sum, ledger| Totals {
            sent: sum.sent + ledger.sent,
            arrived: sum.arrived + ledger.expected - ledger.skipped,
            skipped: sum.skipped + ledger.skipped,
            repeated: sum.repeated + ledger.repeated,
            outstanding: sum.outstanding + ledger.outstanding(),
        })
    }

    /// What was wrong. A repeated message is allowed at QoS 1 only.
    pub fn failures(&self, qos: u8) -> Vec<String> {
        let mut failures = Vec::new();
        let mut check = |wrong: u64, what: &str| {
            if wrong > 0 {
                failures.push(format!("{wrong} of {} messages {what}", self.sent));
            }
        };
        check(self.outstanding, "had not arrived at the end");
        check(self.skipped, "were lost or out of order");
        if qos != 1 {
            check(self.repeated, "arrived twice or out of order");
        }
        failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_comes_back_and_a_short_payload_is_an_error() {
        let mut payload = [0; 24];
        stamp(&mut payload, 7, 1 << 40, 99);
        assert_eq!(read_stamp(&payload).unwrap(), (7, 1 << 40, 99));
        assert!(read_stamp(&payload[..19]).is_err());
    }

    #[test]
    fn losses_repeats_and_inventions_are_told_apart() {
        let mut ledger = Ledger { sent: 6, ..Ledger::default() };
        for (sequence, first) in [(0, true), (1, true), (1, false), (4, true), (3, false)] {
            assert_eq!(ledger.arrived(sequence).unwrap(), first, "{sequence}");
        }
        assert!(ledger.arrived(6).is_err(), "never sent");
        let totals = Totals::of([ledger].iter());
        assert_eq!(totals, Totals { sent: 6, arrived: 3, skipped: 2, repeated: 2, outstanding: 1 });
        assert_eq!(totals.failures(1).len(), 2);
        assert_eq!(totals.failures(2).len(), 3);
    }

    #[test]
    fn a_complete_stream_has_no_failures() {
        let mut ledger = Ledger { sent: 3, ..Ledger::default() };
        (0..3).for_each(|sequence| assert!(ledger.arrived(sequence).unwrap()));
        for qos in 0..=2 {
            assert!(Totals::of([ledger].iter()).failures(qos).is_empty());
        }
    }
}
