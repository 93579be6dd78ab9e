//! The books of scenario `day`: what each phone was sent on each stream, what it has, and what it still waits for.
//!
//! Decides what is wrong: a message that a phone should not have got, one that is missing or out of its stream's order.
//! A repeat is allowed at QoS 1 (a phone that went away before it acknowledged gets the message again) and counted.
//! Called by `load`.
//!
//! Invariant: a stream to a contact has one ledger; one to a group has as many as it has members, one behind the other.

use anyhow::{Context, Result, ensure};

use super::people::{CONTACTS, Destination, People};
use crate::load::ledger::{Ledger, Totals};

pub struct Books {
    ledgers: Vec<Ledger>,
    /// By sender: where the ledgers of its stream to its group begin.
    group_at: Vec<usize>,
    /// By phone: sent to it and not there yet.
    awaited: Vec<u64>,
    awaited_all: u64,
}

impl Books {
    pub fn new(people: &People) -> Books {
        let mut next = people.phones() * CONTACTS;
        let mut group_at = Vec::with_capacity(people.phones());
        for phone in 0..people.phones() {
            group_at.push(next);
            next += people.group(phone).len();
        }
        let awaited = vec![0; people.phones()];
        Books { ledgers: vec![Ledger::default(); next], group_at, awaited, awaited_all: 0 }
    }

    /// Books a message that is being sent: its sequence number in its stream.
    pub fn send(&mut self, people: &People, sender: usize, destination: Destination) -> u64 {
        let (first, recipients) = match destination {
            Destination::Contact(number) => {
                let contact = people.contact(sender, number);
                (sender * CONTACTS + number, contact..contact + 1)
            }
            Destination::Group => (self.group_at[sender], people.group(sender)),
        };
        let sequence = self.ledgers[first].sent;
        for (place, recipient) in recipients.enumerate() {
            self.ledgers[first + place].sent += 1;
            self.awaited[recipient] += 1;
            self.awaited_all += 1;
        }
        sequence
    }

    /// Books what a phone got; whether it is the first of its message.
    pub fn arrive(&mut self, people: &People, phone: usize, stream: u32, sequence: u64) -> Result<bool> {
        let (sender, destination) =
            people.of_stream(stream).with_context(|| format!("a message of stream {stream}"))?;
        let at = match destination {
            Destination::Contact(number) => {
                ensure!(people.contact(sender, number) == phone, "a message of {sender} for somebody else");
                sender * CONTACTS + number
            }
            Destination::Group => {
                let group = people.group(sender);
                ensure!(group.contains(&phone), "a message of {sender} for another group");
                self.group_at[sender] + phone - group.start
            }
        };
        let ledger = &mut self.ledgers[at];
        let before = ledger.outstanding();
        let first = ledger.arrived(sequence).with_context(|| format!("from {sender} to {destination:?}"))?;
        // What was passed over is not awaited any more either: it is wrong, and the totals say so.
        let done = before - ledger.outstanding();
        self.awaited[phone] -= done;
        self.awaited_all -= done;
        Ok(first)
    }

    /// Sent to that phone and not there yet.
    pub fn awaited(&self, phone: usize) -> u64 {
        self.awaited[phone]
    }

    /// Sent to anybody and not there yet.
    pub fn awaited_all(&self) -> u64 {
        self.awaited_all
    }

    /// One message to a group counts for each of its members.
    pub fn totals(&self) -> Totals {
        Totals::of(self.ledgers.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_to_a_group_is_awaited_by_each_member_and_one_to_a_contact_by_it() {
        let people = People::new(25);
        let mut books = Books::new(&people);
        assert_eq!(books.send(&people, 3, Destination::Group), 0);
        assert_eq!(books.send(&people, 3, Destination::Group), 1);
        assert_eq!(books.send(&people, 3, Destination::Contact(0)), 0);
        assert_eq!(books.awaited_all(), 2 * people.group(3).len() as u64 + 1);
        let stream = people.stream(3, Destination::Group);
        for member in people.group(3) {
            assert!(books.arrive(&people, member, stream, 0).unwrap());
            assert!(!books.arrive(&people, member, stream, 0).unwrap(), "again");
            assert!(books.arrive(&people, member, stream, 1).unwrap());
        }
        assert_eq!(books.awaited(people.contact(3, 0)), 1);
        let totals = books.totals();
        assert_eq!((totals.outstanding, totals.repeated), (1, people.group(3).len() as u64));
        assert_eq!(totals.failures(1).len(), 1, "{totals:?}");
    }

    #[test]
    fn what_is_not_for_a_phone_or_was_never_sent_is_an_error() {
        let people = People::new(25);
        let mut books = Books::new(&people);
        books.send(&people, 3, Destination::Contact(1));
        let stream = people.stream(3, Destination::Contact(1));
        assert!(books.arrive(&people, people.contact(3, 2), stream, 0).is_err(), "not for it");
        assert!(books.arrive(&people, people.contact(3, 1), stream, 1).is_err(), "never sent");
        let group = people.stream(3, Destination::Group);
        assert!(books.arrive(&people, 24, group, 0).is_err(), "not in the group");
        assert!(books.arrive(&people, 0, 25 * 6, 0).is_err(), "no such stream");
    }

    #[test]
    fn a_gap_is_not_awaited_for_ever_but_is_a_failure() {
        let people = People::new(25);
        let mut books = Books::new(&people);
        let (phone, stream) = (people.contact(0, 0), people.stream(0, Destination::Contact(0)));
        for sequence in 0..3 {
            assert_eq!(books.send(&people, 0, Destination::Contact(0)), sequence);
        }
        assert!(books.arrive(&people, phone, stream, 2).unwrap());
        assert_eq!((books.awaited(phone), books.awaited_all()), (0, 0));
        assert_eq!(books.totals().skipped, 2);
        assert_eq!(books.totals().failures(1).len(), 1);
    }
}
