//! Messages that expire in a queue nobody reads, or as the retained one of a topic nobody asks for: they leave it, and free
//! what they hold, without being read.
//!
//! A queue is looked through when the first of its messages has expired, and then not again for a while, which is the
//! longer the longer it is: so looking costs at most a hundredth of a millisecond per second and thousand entries. (A
//! message whose turn comes is checked on its own.)

use super::Broker;
use super::delivery::Gone;
use super::effect::Effects;
use super::stored::Queued;
use super::timers::Due;
use crate::record::Record;
use crate::time::{Nanos, UnixMs};

/// How soon a queue is looked through again at the earliest, for each thousand entries or part of it.
const AGAIN_MS: u64 = 1_000;

/// Messages that leave at once. If there are more, it goes on in the next call.
const EXPIRED_MAX: usize = 256;

impl Broker {
    /// A message in that session's queue expires then.
    pub(super) fn queue_expires(&mut self, slot: u32, expires_at: UnixMs) {
        if expires_at == UnixMs::NEVER {
            return;
        }
        let at = self.now.mono_at(expires_at);
        self.look_through_at(slot, at);
    }

    fn look_through_at(&mut self, slot: u32, at: Nanos) {
        let session = self.sessions.get_mut(slot);
        let delivery = session.delivery();
        if delivery.look_through_at.is_none_or(|known| at < known) {
            delivery.look_through_at = Some(at);
            self.timers.set_earlier(&mut session.timer_at, at, Due::Session { slot });
        }
    }

    /// After replay: when the first message of that session's queue expires.
    pub(super) fn queue_expires_after_replay(&mut self, slot: u32) {
        let Some(delivery) = self.sessions.get(slot).delivery.as_deref() else { return };
        if let Some(first) = delivery.queue.iter().map(|queued| self.message_expires_at(queued)).min() {
            self.queue_expires(slot, first);
        }
    }

    fn message_expires_at(&self, queued: Queued) -> UnixMs {
        match queued {
            Queued::Stored(stored) => stored.expires_at(),
            Queued::Here(entry) => self.messages.get(entry.message).expires_at,
        }
    }

    /// Look through that session's queue, if the time for it has come.
    pub(super) fn look_through(&mut self, slot: u32, effects: &mut impl Effects) {
        let session = self.sessions.get_mut(slot);
        if session.ended {
            return;
        }
        let Some(delivery) = session.delivery.as_deref_mut() else { return };
        if delivery.look_through_at.is_none_or(|at| at > self.now.mono) {
            return;
        }
        delivery.look_through_at = None;
        let now = self.now.wall;
        let (mut expired, mut next) = (Vec::new(), UnixMs::NEVER);
        let mut queue = std::mem::take(&mut delivery.queue);
        queue.retain(|queued| {
            let expires_at = self.message_expires_at(*queued);
            if expires_at <= now && expired.len() < EXPIRED_MAX {
                expired.push(*queued);
                return false;
            }
            next = next.min(expires_at);
            true
        });
        let wait_ms = AGAIN_MS * (queue.len() as u64).div_ceil(1_000).max(1);
        let again = if next > now { self.now.mono.plus_ms(wait_ms) } else { self.now.mono };
        self.sessions.get_mut(slot).delivery().queue = queue;
        self.queue_shrank(slot);
        for queued in expired {
            self.statistics.expired += 1;
            match queued {
                Queued::Here(entry) => self.entry_done(slot, entry, Gone::Noted, effects),
                Queued::Stored(stored) => self.stored_done(slot, stored, Gone::Noted, effects),
            }
        }
        if next < UnixMs::NEVER {
            let at = self.now.mono_at(next).max(again);
            self.look_through_at(slot, at);
        }
        self.make_ready(slot);
    }

    /// What is retained may expire earlier than before: at the end of replay, and with every message.
    pub(super) fn retained_may_expire(&mut self) {
        let Some((first, _)) = self.retained.first_to_expire() else { return };
        let at = self.now.mono_at(first);
        // One that was set for what is gone fires, finds nothing, and is set again.
        self.timers.set_earlier(&mut self.look_at_retained_at, at, Due::Retained);
    }

    /// Retained messages that have expired leave.
    pub(super) fn expire_retained(&mut self, effects: &mut impl Effects) {
        self.look_at_retained_at = Nanos::NEVER;
        for _ in 0..EXPIRED_MAX {
            let first = self.retained.first_to_expire();
            let Some((_, slot)) = first.filter(|(expires_at, _)| *expires_at <= self.now.wall) else { break };
            let body = self.messages.get(slot).body().expect("retained bodies stay in memory");
            let topic = Box::<str>::from(body.topic);
            let held = self.retained.clear(&topic).expect("what expires is held");
            assert!(held.message == slot, "one message is retained for a topic");
            self.unpin(held, None);
            if held.record.is_some() {
                self.append(Record::RetainedCleared { topic: &topic }, effects);
            }
        }
        self.retained_may_expire();
    }
}
