//! The books on one topic with many subscribers: who has which message, and when a message had reached how many.
//!
//! Decides what counts as lost, repeated or invented when each message goes to everybody, and which arrivals of a
//! message are its milestones: the first, the one that makes half, the one that makes 99 in 100, the last. Arrivals
//! come in the order of time, so a milestone is a count and needs no list of times. Called by `fan_out`.
//!
//! Invariants: `flights[n]` is message `under_way_from + n`; a message is counted for a subscriber once; a subscriber
//! that joins later owes nothing of what was sent before.

use std::collections::VecDeque;

use anyhow::{Result, ensure};

use crate::measure::latency::Latency;

/// From when a message was due until it had reached so many of its subscribers.
pub struct Times {
    pub first: Latency,
    pub half: Latency,
    /// 99 in 100 of them.
    pub most: Latency,
    pub last: Latency,
}

impl Times {
    pub fn new() -> Result<Times> {
        Ok(Times {
            first: Latency::new()?,
            half: Latency::new()?,
            most: Latency::new()?,
            last: Latency::new()?,
        })
    }

    /// Records the arrival that is number `count` of `subscribers`.
    fn record(&mut self, count: usize, subscribers: usize, due_ns: u64, now_ns: u64) {
        // One arrival may be several milestones: with one subscriber it is all four.
        if count == 1 {
            self.first.record(due_ns, now_ns);
        }
        if count == subscribers.div_ceil(2) {
            self.half.record(due_ns, now_ns);
        }
        if count == (subscribers * 99).div_ceil(100) {
            self.most.record(due_ns, now_ns);
        }
        if count == subscribers {
            self.last.record(due_ns, now_ns);
        }
    }
}

/// One message that has not reached everybody.
struct Flight {
    due_ns: u64,
    arrived: usize,
}

/// What was sent and who has it.
#[derive(Default)]
pub struct Books {
    /// By subscriber: the number that may arrive next.
    next: Vec<u64>,
    flights: VecDeque<Flight>,
    under_way_from: u64,
    /// Deliveries: one message at one subscriber.
    pub arrived: u64,
    /// Passed over: lost, or late.
    pub skipped: u64,
    pub repeated: u64,
}

impl Books {
    /// How many messages were sent.
    pub fn sent(&self) -> u64 {
        self.under_way_from + self.flights.len() as u64
    }

    /// From now on there are so many subscribers; only while nothing is under way.
    pub fn join(&mut self, subscribers: usize) {
        debug_assert!(self.is_complete() && subscribers >= self.next.len());
        self.next.resize(subscribers, self.sent());
    }

    /// Everybody has every message.
    pub fn is_complete(&self) -> bool {
        self.flights.is_empty()
    }

    /// Books a message: its number.
    pub fn send(&mut self, due_ns: u64) -> u64 {
        self.flights.push_back(Flight { due_ns, arrived: 0 });
        self.sent() - 1
    }

    /// Books the arrival of message `number` at a subscriber.
    pub fn arrive(&mut self, subscriber: usize, number: u64, now_ns: u64, times: &mut Times) -> Result<()> {
        ensure!(number < self.sent(), "message {number} arrived, of {} that were sent", self.sent());
        let next = &mut self.next[subscriber];
        if number < *next {
            self.repeated += 1;
            return Ok(());
        }
        self.skipped += number - *next;
        *next = number + 1;
        self.arrived += 1;
        let under_way = number.checked_sub(self.under_way_from);
        let flight = under_way.and_then(|position| self.flights.get_mut(position as usize));
        let flight = flight.expect("a message leaves the flights when nobody expects it any more");
        flight.arrived += 1;
        let subscribers = self.next.len();
        times.record(flight.arrived, subscribers, flight.due_ns, now_ns);
        while self.flights.front().is_some_and(|flight| flight.arrived == subscribers) {
            self.flights.pop_front();
            self.under_way_from += 1;
        }
        Ok(())
    }

    /// Deliveries that have not happened, of what was not passed over.
    pub fn outstanding(&self) -> u64 {
        let sent = self.sent();
        self.next.iter().map(|next| sent - next).sum()
    }

    /// What was wrong. A repeated message is allowed at QoS 1 only.
    pub fn failures(&self, qos: u8) -> Vec<String> {
        let mut failures = Vec::new();
        let mut check = |wrong: u64, what: &str| {
            if wrong > 0 {
                failures.push(format!("{wrong} deliveries of {} messages {what}", self.sent()));
            }
        };
        check(self.outstanding(), "had not arrived at the end");
        check(self.skipped, "were lost or out of order");
        if qos != 1 {
            check(self.repeated, "came twice or out of order");
        }
        failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn books(subscribers: usize) -> (Books, Times) {
        let mut books = Books::default();
        books.join(subscribers);
        (books, Times::new().unwrap())
    }

    #[test]
    fn the_milestones_of_a_message_are_counts_of_its_arrivals() {
        let (mut books, mut times) = books(200);
        assert_eq!(books.send(1_000_000), 0);
        for subscriber in 0..200 {
            assert!(!books.is_complete());
            books.arrive(subscriber, 0, 1_000_000 + (subscriber as u64 + 1) * 1_000_000, &mut times).unwrap();
        }
        assert!(books.is_complete() && books.failures(2).is_empty());
        let about = |latency: &Latency, ms: f64| (latency.longest_ms() / ms - 1.0).abs() < 0.01;
        assert!(about(&times.first, 1.0) && about(&times.half, 100.0));
        assert!(about(&times.most, 198.0) && about(&times.last, 200.0));
        assert_eq!((times.first.count(), times.last.count()), (1, 1));
    }

    #[test]
    fn one_subscriber_is_the_first_and_the_last() {
        let (mut books, mut times) = books(1);
        books.send(0);
        books.arrive(0, 0, 5, &mut times).unwrap();
        let counts = [&times.first, &times.half, &times.most, &times.last].map(Latency::count);
        assert_eq!(counts, [1; 4]);
    }

    #[test]
    fn a_message_that_one_subscriber_never_got_is_not_complete() {
        let (mut books, mut times) = books(2);
        (0..3).for_each(|number| assert_eq!(books.send(0), number));
        for (subscriber, number) in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 2)] {
            books.arrive(subscriber, number, 9, &mut times).unwrap();
        }
        assert_eq!((books.skipped, books.outstanding(), books.is_complete()), (1, 0, false));
        assert_eq!(books.failures(1).len(), 1);
        // Message 2 reached both, so its time counts; message 1 never will.
        assert_eq!(times.last.count(), 2);
    }

    #[test]
    fn what_comes_twice_is_repeated_and_what_was_never_sent_is_an_error() {
        let (mut books, mut times) = books(1);
        books.send(0);
        books.arrive(0, 0, 1, &mut times).unwrap();
        books.arrive(0, 0, 2, &mut times).unwrap();
        assert_eq!((books.arrived, books.repeated), (1, 1));
        assert!(books.failures(1).is_empty());
        assert_eq!((books.failures(0).len(), books.failures(2).len()), (1, 1));
        assert!(books.arrive(0, 1, 3, &mut times).is_err());
    }

    #[test]
    fn who_joins_later_owes_nothing_of_what_was_sent_before() {
        let (mut books, mut times) = books(1);
        books.send(0);
        assert_eq!(books.outstanding(), 1);
        books.arrive(0, 0, 1, &mut times).unwrap();
        books.join(3);
        assert_eq!(books.outstanding(), 0);
        assert_eq!(books.send(0), 1);
        assert_eq!(books.outstanding(), 3);
        for subscriber in [2, 0, 1] {
            books.arrive(subscriber, 1, 2, &mut times).unwrap();
        }
        assert!(books.is_complete() && books.failures(0).is_empty());
    }
}
