//! Subscribers who take their time: each of their messages is acknowledged a fixed time after it arrived.
//!
//! Decides which pairs have such a subscriber, and when an acknowledgement is due. Called by `load`.
//!
//! What it is for: a broker may answer a publisher at once, or wait for its subscribers first. With subscribers that
//! acknowledge in the turn in which a message arrives, the two cannot be told apart.
//!
//! Invariant: everybody is late by the same time, so the order in which acknowledgements are due is the order of arrival,
//! which MQTT asks for `[MQTT-4.6.0-2]`, and a queue is enough. It holds no more than the packet identifiers in use:
//! 65,535 for a subscriber.

use std::collections::VecDeque;
use std::time::Duration;

use crate::client::codec;
use crate::client::fleet::Links;

/// Who is late, and what they still owe.
#[derive(Debug)]
pub struct Late {
    percent: u32,
    delay_ns: u64,
    owed: VecDeque<Owed>,
}

#[derive(Debug)]
struct Owed {
    due_ns: u64,
    client: u32,
    packet_id: u16,
}

impl Late {
    /// So many of a hundred subscribers acknowledge so much later.
    pub fn new(percent: u32, delay_ms: u32) -> Late {
        Late { percent, delay_ns: u64::from(delay_ms) * 1_000_000, owed: VecDeque::new() }
    }

    /// Whether the subscriber of that pair is late: evenly spread, and with any share at least the first one.
    pub fn is_late(&self, pair: usize) -> bool {
        let before = |pairs: usize| (pairs as u64 * u64::from(self.percent)).div_ceil(100);
        before(pair + 1) > before(pair)
    }

    /// Client `client` got a message at `now_ns`, and acknowledges it later.
    pub fn owe(&mut self, client: usize, packet_id: u16, now_ns: u64) {
        self.owed.push_back(Owed { due_ns: now_ns + self.delay_ns, client: client as u32, packet_id });
    }

    /// Sends the acknowledgements that are due: packets of that kind.
    pub fn pay(&mut self, links: &mut Links, ack_kind: u8, now_ns: u64) {
        while let Some(&Owed { due_ns, client, packet_id }) = self.owed.front()
            && due_ns <= now_ns
        {
            self.owed.pop_front();
            codec::encode_ack(links.outbound(client as usize), ack_kind, packet_id);
        }
    }

    /// Nothing is owed.
    pub fn is_settled(&self) -> bool {
        self.owed.is_empty()
    }

    /// How long until the next one is due; no longer than `most`.
    pub fn wait(&self, now_ns: u64, most: Duration) -> Duration {
        let next = self.owed.front();
        next.map_or(most, |owed| Duration::from_nanos(owed.due_ns.saturating_sub(now_ns)).min(most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn late_of(percent: u32, pairs: usize) -> Vec<usize> {
        let late = Late::new(percent, 1);
        (0..pairs).filter(|pair| late.is_late(*pair)).collect()
    }

    #[test]
    fn a_share_of_the_subscribers_is_late_evenly_spread() {
        assert_eq!(late_of(10, 30), [0, 10, 20]);
        assert_eq!(late_of(25, 8), [0, 4]);
        assert_eq!(late_of(0, 1_000).len(), 0);
        assert_eq!(late_of(100, 7).len(), 7);
        assert_eq!(late_of(10, 1), [0], "a share of one pair is that pair");
    }

    #[test]
    fn what_is_owed_is_due_in_the_order_of_arrival() {
        let mut late = Late::new(100, 2);
        let most = Duration::from_secs(1);
        assert!(late.is_settled() && late.wait(0, most) == most);
        late.owe(3, 7, 1_000_000);
        late.owe(1, 9, 1_500_000);
        assert_eq!(late.wait(1_000_000, most), Duration::from_millis(2));
        assert_eq!(late.wait(9_000_000, most), Duration::ZERO);
        let mut links = Links::default();
        late.pay(&mut links, 4, 2_999_999);
        assert_eq!(late.owed.len(), 2, "nothing is due yet");
    }
}
