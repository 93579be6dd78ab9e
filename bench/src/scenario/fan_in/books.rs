//! The books on one topic with many publishers: each message at one member, once, and each publisher's in its order.
//!
//! Decides what counts as lost, repeated or out of order. One subscriber is a group of one member. With several members
//! that share a subscription a publisher's messages spread over them, so the numbers that one member sees have gaps:
//! in order means that at no member a lower number of a publisher comes after a higher one. Called by `fan_in`.
//!
//! Invariant: of a publisher have arrived all numbers below `all_below`, and those in `beyond`, which are above it.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

/// One publisher's messages.
#[derive(Clone, Debug, Default)]
struct Stream {
    sent: u64,
    all_below: u64,
    beyond: BTreeSet<u64>,
}

impl Stream {
    fn arrived(&self) -> u64 {
        self.all_below + self.beyond.len() as u64
    }

    /// Books a number; whether it is its first time.
    fn arrive(&mut self, number: u64) -> bool {
        if number < self.all_below || (number > self.all_below && !self.beyond.insert(number)) {
            return false;
        }
        if number == self.all_below {
            self.all_below += 1;
            while self.beyond.remove(&self.all_below) {
                self.all_below += 1;
            }
        }
        true
    }
}

/// All publishers' messages, and which member took how many.
pub struct Books {
    streams: Vec<Stream>,
    /// By member, then by publisher: the least number that is in order there.
    next: Vec<Vec<u64>>,
    /// How many messages each member has taken.
    pub taken: Vec<u64>,
    pub repeated: u64,
    disordered: u64,
}

impl Books {
    pub fn new(members: usize) -> Books {
        Books {
            streams: Vec::new(),
            next: vec![Vec::new(); members],
            taken: vec![0; members],
            repeated: 0,
            disordered: 0,
        }
    }

    /// From now on there are so many publishers.
    pub fn join(&mut self, publishers: usize) {
        self.streams.resize(publishers, Stream::default());
        self.next.iter_mut().for_each(|next| next.resize(publishers, 0));
    }

    /// Books a message of `publisher`: its number.
    pub fn send(&mut self, publisher: usize) -> u64 {
        self.streams[publisher].sent += 1;
        self.streams[publisher].sent - 1
    }

    /// Books an arrival; whether it is the first of its message.
    pub fn arrive(&mut self, member: usize, publisher: usize, number: u64) -> Result<bool> {
        let stream = self.streams.get_mut(publisher).context("a message of a publisher that is not there")?;
        ensure!(number < stream.sent, "message {number} arrived, of {} that were sent", stream.sent);
        if !stream.arrive(number) {
            self.repeated += 1;
            return Ok(false);
        }
        let next = &mut self.next[member][publisher];
        self.disordered += u64::from(number < *next);
        *next = (*next).max(number + 1);
        self.taken[member] += 1;
        Ok(true)
    }

    /// Messages of `publisher` that have not arrived.
    pub fn outstanding(&self, publisher: usize) -> u64 {
        self.streams[publisher].sent - self.streams[publisher].arrived()
    }

    pub fn sent(&self) -> u64 {
        self.streams.iter().map(|stream| stream.sent).sum()
    }

    pub fn arrived(&self) -> u64 {
        self.taken.iter().sum()
    }

    /// What was wrong. A repeated message is allowed at QoS 1 only, and not in a group: nobody left it, so nothing had
    /// to be given to another member.
    pub fn failures(&self, qos: u8) -> Vec<String> {
        let mut failures = Vec::new();
        let mut check = |wrong: u64, what: &str| {
            if wrong > 0 {
                failures.push(format!("{wrong} of {} messages {what}", self.sent()));
            }
        };
        check(self.sent() - self.arrived(), "had not arrived at the end: lost");
        check(self.disordered, "came after a later one of their publisher");
        if qos != 1 || self.taken.len() > 1 {
            check(self.repeated, "arrived twice");
        }
        failures
    }
}

/// How evenly members took turns: what the busiest and what the idlest took, as parts of the mean.
pub fn turns(taken: &[u64]) -> Option<(f64, f64)> {
    let mean = taken.iter().sum::<u64>() as f64 / taken.len() as f64;
    let (most, least) = (*taken.iter().max()?, *taken.iter().min()?);
    (mean > 0.0).then(|| (most as f64 / mean, least as f64 / mean))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn books(members: usize, publishers: usize, each: u64) -> Books {
        let mut books = Books::new(members);
        books.join(publishers);
        for publisher in 0..publishers {
            (0..each).for_each(|number| assert_eq!(books.send(publisher), number));
        }
        books
    }

    #[test]
    fn messages_that_members_take_in_turn_are_complete_and_in_order() {
        let mut books = books(2, 1, 6);
        // One member is slower: the order over both is not the order sent, which is no fault.
        for (member, number) in [(0, 0), (0, 2), (1, 1), (0, 4), (1, 3), (1, 5)] {
            assert!(books.arrive(member, 0, number).unwrap());
        }
        assert_eq!((books.outstanding(0), books.arrived(), &books.taken), (0, 6, &vec![3, 3]));
        assert!(books.failures(1).is_empty() && books.streams[0].beyond.is_empty());
    }

    #[test]
    fn a_message_at_two_members_is_a_failure_at_every_qos() {
        for qos in 0..=2 {
            let mut books = books(2, 1, 1);
            assert!(books.arrive(0, 0, 0).unwrap() && !books.arrive(1, 0, 0).unwrap());
            assert_eq!(books.failures(qos), ["1 of 1 messages arrived twice"]);
        }
    }

    #[test]
    fn one_subscriber_may_get_a_message_twice_at_qos_1_only() {
        let mut books = books(1, 1, 1);
        assert!(books.arrive(0, 0, 0).unwrap() && !books.arrive(0, 0, 0).unwrap());
        assert!(books.failures(1).is_empty());
        assert_eq!((books.failures(0).len(), books.failures(2).len()), (1, 1));
    }

    #[test]
    fn what_is_lost_or_late_or_invented_is_told_apart() {
        let mut books = books(1, 2, 4);
        for (publisher, number) in [(0, 0), (0, 2), (0, 1), (1, 0), (1, 1), (1, 3)] {
            assert!(books.arrive(0, publisher, number).unwrap());
        }
        assert_eq!((books.outstanding(0), books.outstanding(1)), (1, 1));
        let failures = books.failures(1);
        assert!(failures[0].starts_with("2 of 8") && failures[1].starts_with("1 of 8"), "{failures:?}");
        assert!(books.arrive(0, 0, 4).is_err() && books.arrive(0, 2, 0).is_err());
    }

    #[test]
    fn turns_are_parts_of_the_mean() {
        assert_eq!(turns(&[30, 10, 20]), Some((1.5, 0.5)));
        assert_eq!((turns(&[0, 0]), turns(&[])), (None, None));
    }
}
