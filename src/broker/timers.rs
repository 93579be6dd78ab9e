//! Deadlines of the broker that are minutes or days away: session and message expiry, and wills. One ordered table; an entry that
//! no longer applies is recognised when it fires, never searched for.

use std::collections::BTreeMap;

use super::effect::Effects;
use super::{Broker, Budget};
use crate::ids::SessionKey;
use crate::time::Nanos;

/// What is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Due {
    /// The session in that slot, if it still has that key and its end has come.
    SessionEnd { slot: u32, key: SessionKey },
    /// A message in the queue of the session in that slot expires, if it still has that key.
    Expiry { slot: u32, key: SessionKey },
    /// The pending will of that session.
    Will { key: SessionKey },
    /// A retained message expires, if it is still there.
    Retained,
}

/// Deadlines, earliest first; the number keeps those of one instant apart.
#[derive(Debug, Default)]
pub(super) struct Timers {
    entries: BTreeMap<(Nanos, u64), Due>,
    next_number: u64,
}

impl Timers {
    pub(super) fn set(&mut self, at: Nanos, due: Due) {
        if at < Nanos::NEVER {
            self.entries.insert((at, self.next_number), due);
            self.next_number += 1;
        }
    }

    pub(super) fn next(&self) -> Nanos {
        self.entries.first_key_value().map_or(Nanos::NEVER, |((at, _), _)| *at)
    }

    fn pop(&mut self, now: Nanos) -> Option<Due> {
        let entry = self.entries.first_entry().filter(|entry| entry.key().0 <= now)?;
        Some(entry.remove())
    }
}

impl Broker {
    /// Do what is due.
    pub(super) fn fire_timers(&mut self, budget: &mut Budget, effects: &mut impl Effects) {
        while self.timers.next() <= self.now.mono && budget.take() {
            match self.timers.pop(self.now.mono) {
                Some(Due::SessionEnd { slot, key }) => self.session_end_is_due(slot, key, effects),
                Some(Due::Expiry { slot, key }) => self.look_through(slot, key, effects),
                Some(Due::Will { key }) => self.will_is_due(key),
                Some(Due::Retained) => self.expire_retained(effects),
                None => return,
            }
        }
    }
}
