//! Who writes to whom in scenario `day`, and how much.
//!
//! Decides contacts, groups and streams, all by arithmetic on the phones' numbers, and the sizes of messages. Called by
//! `books` and `load`.
//!
//! Each phone has [`CONTACTS`] contacts, to each of which it writes one by one, and belongs to one group of 3 to 7. A
//! stream is one sender's messages to one contact or to its group: inside it MQTT promises order `[MQTT-4.6.0-5]`.
//! A group's message comes back to its sender too, which MQTT 3.1.1 cannot prevent; it counts as one that goes out.
//! The share of messages to groups is such that a message goes to two recipients on average.
//!
//! Invariants: a phone is not its own contact and has none twice; groups are ranges of numbers, so a member's place in its
//! group is its number minus the group's first.

use std::ops::Range;

use crate::load::ledger::STAMP_BYTES;
use crate::load::random::Random;

/// To so many others a phone writes one by one. What matters is that streams are many and short; the number is a choice.
pub const CONTACTS: usize = 5;

/// Sizes of groups, in turn.
const GROUP_SIZES: [usize; 5] = [3, 4, 5, 6, 7];

/// How many recipients a message has on average.
const RECIPIENTS_MEAN: f64 = 2.0;

/// Sizes are log-normal with this σ: with a median of 200 B a tenth is above 720 B, and one in 790 is cut at 4 KiB.
const PAYLOAD_SIGMA: f64 = 1.0;

/// The greatest message.
pub const PAYLOAD_BYTES_MAX: usize = 4_096;

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The sender's contact of that number.
    Contact(usize),
    /// The sender's group.
    Group,
}

/// All phones and who knows whom.
pub struct People {
    phones: usize,
    groups: Vec<Range<usize>>,
    group_of: Vec<usize>,
    /// Share of the messages that go to groups.
    pub group_share: f64,
}

impl People {
    /// So many phones, at least 20.
    pub fn new(phones: usize) -> People {
        let mut groups: Vec<Range<usize>> = Vec::new();
        let mut sizes = GROUP_SIZES.into_iter().cycle();
        let mut first = 0;
        while first < phones {
            let size = sizes.next().unwrap_or(1);
            match groups.last_mut() {
                // Too few are left for a group of their own.
                Some(last) if phones - first < GROUP_SIZES[0] => last.end = phones,
                _ => groups.push(first..(first + size).min(phones)),
            }
            first = groups.last().map_or(phones, |last| last.end);
        }
        let group_of = groups.iter().enumerate().flat_map(|(index, group)| group.clone().map(move |_| index));
        let group_of: Vec<usize> = group_of.collect();
        // Senders are drawn, not groups, so a large group is written to more often.
        let seen = groups.iter().map(|group| group.len() * group.len()).sum::<usize>() as f64 / phones as f64;
        People { phones, groups, group_of, group_share: (RECIPIENTS_MEAN - 1.0) / (seen - 1.0) }
    }

    pub fn phones(&self) -> usize {
        self.phones
    }

    /// How many groups there are.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Contact number `number` of a phone.
    pub fn contact(&self, phone: usize, number: usize) -> usize {
        (phone + 1 + number * ((self.phones - 1) / CONTACTS)) % self.phones
    }

    /// The number of a phone's group.
    pub fn group_number(&self, phone: usize) -> usize {
        self.group_of[phone]
    }

    /// The members of a phone's group.
    pub fn group(&self, phone: usize) -> Range<usize> {
        self.groups[self.group_of[phone]].clone()
    }

    /// The stream of what a phone writes to there.
    pub fn stream(&self, sender: usize, destination: Destination) -> u32 {
        match destination {
            Destination::Contact(number) => (sender * CONTACTS + number) as u32,
            Destination::Group => (self.phones * CONTACTS + sender) as u32,
        }
    }

    /// Whose stream that is and where it goes; `None` if there is no such stream.
    pub fn of_stream(&self, stream: u32) -> Option<(usize, Destination)> {
        let stream = stream as usize;
        let single = self.phones * CONTACTS;
        match stream {
            _ if stream < single => Some((stream / CONTACTS, Destination::Contact(stream % CONTACTS))),
            _ if stream < single + self.phones => Some((stream - single, Destination::Group)),
            _ => None,
        }
    }

    /// Where a sender's next message goes.
    pub fn draw(&self, random: &mut Random) -> Destination {
        if random.unit() <= self.group_share {
            Destination::Group
        } else {
            Destination::Contact(random.below(CONTACTS))
        }
    }
}

/// The size of a message.
pub fn payload_bytes(median: u32, random: &mut Random) -> usize {
    let drawn = f64::from(median) * (PAYLOAD_SIGMA * random.normal()).exp();
    (drawn as usize).clamp(STAMP_BYTES, PAYLOAD_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contacts_are_others_and_all_different() {
        for phones in [20, 21, 5_000] {
            let people = People::new(phones);
            for phone in [0, 7, phones - 1] {
                let mut contacts: Vec<usize> =
                    (0..CONTACTS).map(|number| people.contact(phone, number)).collect();
                assert!(contacts.iter().all(|contact| *contact < phones && *contact != phone));
                contacts.sort_unstable();
                contacts.dedup();
                assert_eq!(contacts.len(), CONTACTS, "{phones} phones, {phone}");
            }
        }
    }

    #[test]
    fn everybody_is_in_one_group_of_at_least_three() {
        for phones in 20..80 {
            let people = People::new(phones);
            let mut next = 0;
            for group in &people.groups {
                assert_eq!(group.start, next);
                assert!((3..=9).contains(&group.len()), "{phones} phones, {group:?}");
                next = group.end;
            }
            assert_eq!(next, phones);
            assert!((0..phones).all(|phone| people.group(phone).contains(&phone)));
        }
    }

    #[test]
    fn a_message_goes_to_two_recipients_on_average() {
        let (people, mut random) = (People::new(5_000), Random::new(5));
        let recipients = |_: &usize| {
            let sender = random.below(5_000);
            match people.draw(&mut random) {
                Destination::Contact(_) => 1,
                Destination::Group => people.group(sender).len(),
            }
        };
        let mean = (0..100_000).collect::<Vec<_>>().iter().map(recipients).sum::<usize>() as f64 / 1e5;
        assert!((mean - 2.0).abs() < 0.03, "{mean}");
    }

    #[test]
    fn a_stream_tells_its_sender_and_where_it_goes() {
        let people = People::new(25);
        for sender in [0, 24] {
            let each = (0..CONTACTS).map(Destination::Contact).chain([Destination::Group]);
            for destination in each {
                let stream = people.stream(sender, destination);
                assert_eq!(people.of_stream(stream), Some((sender, destination)));
            }
        }
        assert_eq!(people.of_stream(25 * 6), None);
    }

    #[test]
    fn sizes_have_their_median_and_hold_a_stamp() {
        let mut random = Random::new(1);
        let mut sizes: Vec<usize> = (0..100_000).map(|_| payload_bytes(200, &mut random)).collect();
        sizes.sort_unstable();
        assert!(sizes[50_000].abs_diff(200) < 4, "{}", sizes[50_000]);
        assert!(sizes[90_000].abs_diff(720) < 20, "{}", sizes[90_000]);
        assert_eq!((sizes[0], sizes[99_999]), (STAMP_BYTES, PAYLOAD_BYTES_MAX));
    }
}
