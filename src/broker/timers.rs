//! Deadlines of the broker that are minutes or days away: session and message expiry, and wills.
//!
//! Whatever has deadlines is in the table once at most, and knows where: so the table grows with the sessions and wills that
//! there are, and not with how often they come and go. A deadline that moves further away may be left where it is; what fires
//! too early is put back.

use std::collections::BTreeSet;

use super::effect::Effects;
use super::{Broker, Budget};
use crate::ids::SessionKey;
use crate::time::Nanos;

/// What is due.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Due {
    /// The pending will of that session.
    Will { key: SessionKey },
    /// The session in that slot ends, or a message in its queue expires.
    Session { slot: u32 },
    /// What the connection in that slot was let in with expires.
    Passport { slot: u32 },
    /// A retained message expires, if it is still there.
    Retained,
    /// What was used up of some rate limit has come again.
    Spent,
}

/// Deadlines, earliest first.
#[derive(Debug, Default)]
pub(super) struct Timers {
    entries: BTreeSet<(Nanos, Due)>,
}

impl Timers {
    /// Move a deadline. `known` is where it stands, `NEVER` if it is not in the table.
    pub(super) fn set(&mut self, known: &mut Nanos, at: Nanos, due: Due) {
        if *known == at {
            return;
        }
        if *known < Nanos::NEVER {
            let stood = self.entries.remove(&(*known, due));
            assert!(stood, "whoever has a deadline knows where it stands");
        }
        if at < Nanos::NEVER {
            self.entries.insert((at, due));
        }
        *known = at;
    }

    /// Move a deadline there if it stands later.
    pub(super) fn set_earlier(&mut self, known: &mut Nanos, at: Nanos, due: Due) {
        if at < *known {
            self.set(known, at, due);
        }
    }

    pub(super) fn next(&self) -> Nanos {
        self.entries.first().map_or(Nanos::NEVER, |(at, _)| *at)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

impl Broker {
    /// Put a session's deadline where the earliest of what it waits for is.
    pub(super) fn set_session_timer(&mut self, slot: u32) {
        let session = self.sessions.get_mut(slot);
        if session.ended {
            return;
        }
        let expiry = session.delivery.as_deref().and_then(|delivery| delivery.look_through_at);
        let at = session.ends_at.min(expiry.unwrap_or(Nanos::NEVER));
        self.timers.set(&mut session.timer_at, at, Due::Session { slot });
    }

    fn session_is_due(&mut self, slot: u32, effects: &mut impl Effects) {
        let session = self.sessions.get_mut(slot);
        session.timer_at = Nanos::NEVER;
        if session.ends_at <= self.now.mono {
            self.end_session(slot, effects);
        } else {
            self.look_through(slot, effects);
            self.set_session_timer(slot);
        }
    }

    /// Do what is due.
    pub(super) fn fire_timers(&mut self, budget: &mut Budget, effects: &mut impl Effects) {
        while self.timers.next() <= self.now.mono && budget.take() {
            match self.timers.entries.pop_first() {
                Some((_, Due::Will { key })) => self.will_is_due(key),
                Some((_, Due::Session { slot })) => self.session_is_due(slot, effects),
                Some((_, Due::Passport { slot })) => self.passport_is_due(slot, effects),
                Some((_, Due::Retained)) => self.expire_retained(effects),
                Some((_, Due::Spent)) => self.forget_whole_limits(),
                None => return,
            }
        }
    }
}
