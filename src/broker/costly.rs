//! Who publishes what matches so many subscriptions that each message costs as much as many others do.
//!
//! Remembers the last few of them, so that the shard handles fewer packets of theirs in a turn ([`Broker::publish_work`]), and lets
//! them wait in between ([`Broker::take_work`]): all others wait for what one client makes the shard do. What a message matches is
//! known only when it is placed, so it is the next one that pays.
//! With several shards only the shard that owns the topic knows; there the budget of `advance` and the credits of the mesh hold.

use super::Broker;
use crate::ids::{ConnectionId, PublisherKey};

/// Matches of a message that are in the price of every message.
const MATCHES_FREE: usize = 32;

/// Matches beyond that which cost as much as a packet: some 2 µs.
const MATCHES_PER_PACKET: usize = 16;

/// How many are remembered. More at a time divide the turn among themselves.
const REMEMBERED_MAX: usize = 16;

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Costly {
    all: Vec<(PublisherKey, usize)>,
    next: usize,
    /// Of the packets handled since it was taken.
    work: usize,
}

impl Costly {
    /// A message of that client matched so many subscriptions.
    #[inline]
    pub(super) fn matched(&mut self, publisher: PublisherKey, matches: usize) {
        if (matches > MATCHES_FREE || !self.all.is_empty()) && publisher != PublisherKey::NOBODY {
            self.note(publisher, matches);
        }
    }

    #[cold]
    fn note(&mut self, publisher: PublisherKey, matches: usize) {
        let place = self.all.iter().position(|(other, _)| *other == publisher);
        match place {
            Some(place) if matches <= MATCHES_FREE => drop(self.all.swap_remove(place)),
            Some(place) => self.all[place].1 = matches,
            None if matches <= MATCHES_FREE => {}
            None if self.all.len() < REMEMBERED_MAX => self.all.push((publisher, matches)),
            None => {
                self.next = (self.next + 1) % REMEMBERED_MAX;
                self.all[self.next] = (publisher, matches);
            }
        }
    }
}

impl Broker {
    /// A client has published: what that will cost, by its last message.
    #[inline]
    pub(super) fn expect_cost(&mut self, id: ConnectionId) {
        if !self.costly.all.is_empty() {
            self.look_up_cost(id);
        }
    }

    #[cold]
    fn look_up_cost(&mut self, id: ConnectionId) {
        self.costly.work += self.publish_work(id);
    }

    /// As how many packets more a message of that client counts, by its last one.
    pub fn publish_work(&mut self, id: ConnectionId) -> usize {
        if self.costly.all.is_empty() {
            return 0;
        }
        let publisher = self.publisher(id);
        let known = self.costly.all.iter().find(|(other, _)| *other == publisher);
        known.map_or(0, |(_, matches)| matches / MATCHES_PER_PACKET)
    }

    /// What was handled since the last call costs as much as so many packets more.
    pub fn take_work(&mut self) -> usize {
        std::mem::take(&mut self.costly.work)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_costly_is_remembered_until_it_is_not() {
        let mut costly = Costly::default();
        costly.matched(PublisherKey(1), MATCHES_FREE);
        assert_eq!(costly.all, []);
        costly.matched(PublisherKey(1), 500);
        costly.matched(PublisherKey(2), 1);
        costly.matched(PublisherKey(1), 600);
        assert_eq!(costly.all, [(PublisherKey(1), 600)]);
        costly.matched(PublisherKey(1), 1);
        assert_eq!(costly.all, []);
    }

    #[test]
    fn of_more_than_can_be_remembered_the_last_are() {
        let mut costly = Costly::default();
        (0..100).for_each(|publisher| costly.matched(PublisherKey(publisher), 100));
        let mut all: Vec<u64> = costly.all.iter().map(|(publisher, _)| publisher.0).collect();
        all.sort_unstable();
        assert_eq!(all, Vec::from_iter(84..100));
    }
}
