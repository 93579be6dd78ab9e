//! Acknowledgements that subscribers owe, each due at a time of its own.
//!
//! Decides the order in which they are due, and nothing else: how long somebody takes is drawn by the caller, which also
//! sends the packet and knows whether the connection still stands. Called by the scenarios whose recipients are people.
//!
//! Invariants: what is due at one time keeps the order in which it was owed. A heap, because delays differ; where they do
//! not, a queue does (`scenario/flow/late.rs`).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// An acknowledgement to be sent. The order of the fields is that of the queue; `order` keeps those of one time apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owed {
    pub at_ns: u64,
    order: u64,
    pub client: usize,
    /// Which of its connections the message came on: on a later one it is void.
    pub connection: u32,
    pub packet_id: u16,
    pub arrived_ns: u64,
}

/// Everything that is owed.
#[derive(Debug, Default)]
pub struct Acknowledgements {
    owed: BinaryHeap<Reverse<Owed>>,
    order: u64,
}

impl Acknowledgements {
    /// Client `client` got packet `packet_id` on that connection at `arrived_ns`, and acknowledges it at `at_ns`.
    pub fn owe(&mut self, client: usize, connection: u32, packet_id: u16, arrived_ns: u64, at_ns: u64) {
        self.order += 1;
        self.owed.push(Reverse(Owed { at_ns, order: self.order, client, connection, packet_id, arrived_ns }));
    }

    /// Takes the next one that is due.
    pub fn take(&mut self, now_ns: u64) -> Option<Owed> {
        self.owed.peek().filter(|owed| owed.0.at_ns <= now_ns)?;
        self.owed.pop().map(|owed| owed.0)
    }

    /// When the next one is due; `u64::MAX` if none is.
    pub fn next_ns(&self) -> u64 {
        self.owed.peek().map_or(u64::MAX, |owed| owed.0.at_ns)
    }

    /// Everything is due now, in the order in which it was owed.
    pub fn hasten(&mut self) {
        let owed = std::mem::take(&mut self.owed).into_iter();
        self.owed = owed.map(|owed| Reverse(Owed { at_ns: 0, ..owed.0 })).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(owed: &mut Acknowledgements, now_ns: u64) -> Vec<u16> {
        std::iter::from_fn(|| owed.take(now_ns)).map(|owed| owed.packet_id).collect()
    }

    #[test]
    fn what_is_due_comes_by_time_and_what_is_due_together_in_the_order_of_arrival() {
        let mut owed = Acknowledgements::default();
        assert_eq!(owed.next_ns(), u64::MAX);
        for (packet_id, at_ns) in [(1, 50), (2, 20), (3, 50), (4, u64::MAX)] {
            owed.owe(0, 0, packet_id, 10, at_ns);
        }
        assert_eq!(owed.next_ns(), 20);
        assert!(packets(&mut owed, 19).is_empty());
        assert_eq!(packets(&mut owed, 60), [2, 1, 3]);
        owed.hasten();
        assert_eq!(packets(&mut owed, 0), [4]);
    }

    #[test]
    fn what_is_hastened_keeps_the_order_of_arrival() {
        let mut owed = Acknowledgements::default();
        (1..=100).for_each(|packet_id| owed.owe(0, 0, packet_id, 0, 1_000 - u64::from(packet_id)));
        owed.hasten();
        assert_eq!(packets(&mut owed, 0), (1..=100).collect::<Vec<_>>());
    }
}
