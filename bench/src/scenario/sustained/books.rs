//! The books of scenario `sustained`: for each session what it was sent, what was refused, what arrived, what expired.
//!
//! Decides what is wrong, stricter than `ledger` because more is known. Sessions here acknowledge what arrives at once
//! and say goodbye before they go, so nothing may arrive twice even at QoS 1: what does was acknowledged and came back.
//! A message that is missing must have been refused to its sender, or have been old enough to expire when the next one
//! arrived; one that arrives must not have been refused, nor be older than that.

use std::collections::VecDeque;

use anyhow::{Result, ensure};

/// How exactly expiry is kept: brokers count in seconds, and a message takes its time to them.
const EXPIRY_SLACK_NS: u64 = 3_000_000_000;

/// What becomes of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Comes and goes; its messages do not expire.
    Returning,
    /// Never comes back, and its messages do not expire: its queue is full at some time, and stays so.
    Full,
    /// Never comes back, and its messages expire.
    Expiring,
}

/// One session's books.
#[derive(Clone, Debug)]
pub struct Books {
    pub kind: Kind,
    /// The next sequence number to send; also how many were sent.
    pub sent: u64,
    /// Acknowledged to their sender and not refused.
    pub accepted: u64,
    /// First and last of each run of sequence numbers that were refused.
    refused: Vec<(u64, u64)>,
    /// The next sequence number that may arrive.
    next: u64,
    arrived: u64,
    /// Of those that expire and have not been looked at yet: sequence number, and when it was sent.
    sent_ns: VecDeque<(u64, u64)>,
    wrong: Wrong,
    expired: u64,
}

/// What went wrong, in messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wrong {
    pub lost: u64,
    /// Arrived although it, or a later one, had arrived before and was acknowledged.
    pub repeated: u64,
    /// Arrived although its sender was told that it was refused.
    pub refused_yet_arrived: u64,
    /// Arrived long after it had expired.
    pub expired_yet_arrived: u64,
    /// Refused although the session's queue cannot have been full.
    pub refused_needlessly: u64,
}

impl Books {
    pub fn new(kind: Kind) -> Books {
        Books {
            kind,
            sent: 0,
            accepted: 0,
            refused: Vec::new(),
            next: 0,
            arrived: 0,
            sent_ns: VecDeque::new(),
            wrong: Wrong::default(),
            expired: 0,
        }
    }

    /// Books a message that is being sent; its sequence number.
    pub fn send(&mut self, now_ns: u64, expiry_ns: u64) -> u64 {
        let sequence = self.sent;
        self.sent += 1;
        if self.kind == Kind::Expiring {
            // What has long expired is not looked up any more; it is known to be older than the oldest kept.
            while self
                .sent_ns
                .front()
                .is_some_and(|(_, at_ns)| at_ns + expiry_ns + 20 * EXPIRY_SLACK_NS < now_ns)
            {
                self.sent_ns.pop_front();
            }
            self.sent_ns.push_back((sequence, now_ns));
        }
        sequence
    }

    /// The sender was told that the message is taken.
    pub fn accept(&mut self) {
        self.accepted += 1;
    }

    /// The sender was told that there is no room.
    pub fn refuse(&mut self, sequence: u64) {
        self.wrong.refused_needlessly += u64::from(self.kind != Kind::Full);
        match self.refused.last_mut() {
            Some((_, last)) if *last + 1 == sequence => *last = sequence,
            _ => self.refused.push((sequence, sequence)),
        }
    }

    fn is_refused(&self, sequence: u64) -> bool {
        let at = self.refused.partition_point(|(_, last)| *last < sequence);
        self.refused.get(at).is_some_and(|(first, _)| *first <= sequence)
    }

    /// Books an arrival.
    pub fn arrive(&mut self, sequence: u64, sent_ns: u64, now_ns: u64, expiry_ns: u64) -> Result<()> {
        ensure!(sequence < self.sent, "message {sequence} arrived, of {} that were sent", self.sent);
        if sequence < self.next {
            self.wrong.repeated += 1;
            return Ok(());
        }
        self.skip_to(sequence, now_ns, expiry_ns);
        self.wrong.refused_yet_arrived += u64::from(self.is_refused(sequence));
        let expired = self.kind == Kind::Expiring && now_ns > sent_ns + expiry_ns + EXPIRY_SLACK_NS;
        self.wrong.expired_yet_arrived += u64::from(expired);
        self.next = sequence + 1;
        self.arrived += 1;
        Ok(())
    }

    /// What is missing at the end is judged like what was passed over.
    pub fn close(&mut self, now_ns: u64, expiry_ns: u64) {
        self.skip_to(self.sent, now_ns, expiry_ns);
    }

    fn skip_to(&mut self, sequence: u64, now_ns: u64, expiry_ns: u64) {
        for missing in self.next..sequence {
            while self.sent_ns.front().is_some_and(|(kept, _)| *kept < missing) {
                self.sent_ns.pop_front();
            }
            let sent_ns = self.sent_ns.front().filter(|(kept, _)| *kept == missing).map(|(_, at_ns)| *at_ns);
            let old = sent_ns.is_none_or(|sent_ns| now_ns + EXPIRY_SLACK_NS >= sent_ns + expiry_ns);
            match self.kind {
                _ if self.is_refused(missing) => {}
                Kind::Expiring if old => self.expired += 1,
                _ => self.wrong.lost += 1,
            }
        }
        self.next = self.next.max(sequence);
    }

    /// Nothing can arrive any more.
    pub fn is_complete(&self) -> bool {
        (self.next..self.sent).all(|sequence| self.is_refused(sequence))
    }

    /// Messages that the broker has to keep now.
    pub fn live(&self, now_ns: u64, expiry_ns: u64) -> u64 {
        match self.kind {
            // One may arrive before its sender is told.
            Kind::Returning | Kind::Full => self.accepted.saturating_sub(self.arrived),
            Kind::Expiring => {
                let expired = self.sent_ns.partition_point(|(_, at_ns)| at_ns + expiry_ns < now_ns);
                (self.sent_ns.len() - expired) as u64
            }
        }
    }
}

/// The books of all sessions together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub sent: u64,
    pub accepted: u64,
    pub refused: u64,
    pub arrived: u64,
    pub expired: u64,
    pub wrong: Wrong,
}

impl Totals {
    pub fn of<'a>(all: impl Iterator<Item = &'a Books>) -> Totals {
        let mut sum = Totals::default();
        for books in all {
            sum.sent += books.sent;
            sum.accepted += books.accepted;
            sum.refused += books.refused.iter().map(|(first, last)| last - first + 1).sum::<u64>();
            sum.arrived += books.arrived;
            sum.expired += books.expired;
            let Wrong { lost, repeated, refused_yet_arrived, expired_yet_arrived, refused_needlessly } =
                books.wrong;
            sum.wrong.lost += lost;
            sum.wrong.repeated += repeated;
            sum.wrong.refused_yet_arrived += refused_yet_arrived;
            sum.wrong.expired_yet_arrived += expired_yet_arrived;
            sum.wrong.refused_needlessly += refused_needlessly;
        }
        sum
    }

    /// What was wrong, in words.
    pub fn failures(&self) -> Vec<String> {
        let Wrong { lost, repeated, refused_yet_arrived, expired_yet_arrived, refused_needlessly } =
            self.wrong;
        let entries = [
            (lost, "were lost, or arrived out of order"),
            (repeated, "arrived again after they had been acknowledged"),
            (refused_yet_arrived, "were refused, and arrived all the same"),
            (expired_yet_arrived, "arrived long after they had expired"),
            (refused_needlessly, "were refused for sessions whose queues were not to be full"),
        ];
        let wrong = entries.into_iter().filter(|(count, _)| *count > 0);
        wrong.map(|(count, what)| format!("books: {count} of {} messages {what}", self.sent)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const EXPIRY: u64 = 60 * SECOND;

    fn sent(kind: Kind, count: u64) -> Books {
        let mut books = Books::new(kind);
        (0..count).for_each(|sequence| {
            assert_eq!(books.send(sequence * SECOND, EXPIRY), sequence);
            books.accept();
        });
        books
    }

    #[test]
    fn a_session_that_gets_everything_in_order_has_clean_books() {
        let mut books = sent(Kind::Returning, 3);
        assert_eq!(books.live(0, EXPIRY), 3);
        (0..3).for_each(|sequence| books.arrive(sequence, 0, 500 * SECOND, EXPIRY).unwrap());
        assert!(books.is_complete() && books.live(0, EXPIRY) == 0);
        books.close(500 * SECOND, EXPIRY);
        let totals = Totals::of([books].iter());
        assert_eq!((totals.arrived, totals.failures().len()), (3, 0));
    }

    #[test]
    fn a_gap_a_repeat_and_an_invention_are_found() {
        let mut books = sent(Kind::Returning, 4);
        assert!(books.arrive(4, 0, SECOND, EXPIRY).is_err());
        books.arrive(1, 0, SECOND, EXPIRY).unwrap();
        books.arrive(1, 0, SECOND, EXPIRY).unwrap();
        assert!(!books.is_complete());
        books.close(SECOND, EXPIRY);
        let totals = Totals::of([books].iter());
        assert_eq!(totals.wrong, Wrong { lost: 3, repeated: 1, ..Wrong::default() });
        assert_eq!(totals.failures().len(), 2);
    }

    #[test]
    fn what_was_refused_is_not_missed_but_must_not_arrive_either() {
        let mut books = Books::new(Kind::Full);
        (0..6).for_each(|sequence| assert_eq!(books.send(0, EXPIRY), sequence));
        (0..2).for_each(|_| books.accept());
        [2, 3, 5].into_iter().for_each(|sequence| books.refuse(sequence));
        books.accept();
        (0..2).for_each(|sequence| books.arrive(sequence, 0, 0, EXPIRY).unwrap());
        assert!(!books.is_complete(), "4 was accepted");
        let mut other = books.clone();
        books.arrive(4, 0, 0, EXPIRY).unwrap();
        assert!(books.is_complete());
        books.close(0, EXPIRY);
        assert_eq!(Totals::of([books].iter()).failures(), Vec::<String>::new());
        other.arrive(3, 0, 0, EXPIRY).unwrap();
        other.close(0, EXPIRY);
        let wrong = Wrong { lost: 1, refused_yet_arrived: 1, ..Wrong::default() };
        assert_eq!(Totals::of([other].iter()).wrong, wrong);
    }

    #[test]
    fn a_refusal_for_a_session_that_comes_back_is_wrong() {
        let mut books = Books::new(Kind::Returning);
        let sequence = books.send(0, EXPIRY);
        books.refuse(sequence);
        assert_eq!(Totals::of([books].iter()).wrong.refused_needlessly, 1);
    }

    #[test]
    fn old_messages_may_expire_and_young_ones_may_not() {
        // Sent at 0, 1, .. 99 s; at 100 s those from before 40 s have expired, give or take 3 s.
        let books = sent(Kind::Expiring, 100);
        assert_eq!(books.live(100 * SECOND, EXPIRY), 60);
        for (first, wrong) in [
            (40, Wrong::default()),
            (43, Wrong::default()),
            (46, Wrong { lost: 2, ..Wrong::default() }),
            (35, Wrong { expired_yet_arrived: 2, ..Wrong::default() }),
        ] {
            let mut books = books.clone();
            for sequence in first..100 {
                books.arrive(sequence, sequence * SECOND, 100 * SECOND, EXPIRY).unwrap();
            }
            books.close(100 * SECOND, EXPIRY);
            assert_eq!(Totals::of([books].iter()).wrong, wrong, "from {first}");
        }
    }

    #[test]
    fn what_expired_long_ago_is_forgotten_and_still_not_missed() {
        let books = sent(Kind::Expiring, 1_000);
        assert!(books.sent_ns.len() < 130, "{}", books.sent_ns.len());
        let mut books = books.clone();
        books.arrive(999, 999 * SECOND, 1_000 * SECOND, EXPIRY).unwrap();
        let totals = Totals::of([books].iter());
        // Of those passed over, 944 to 998 were less than 57 s old.
        assert_eq!((totals.expired, totals.wrong.lost), (944, 55));
    }
}
