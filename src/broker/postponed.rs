//! What is held back while a backup is taken: settlements that would let go of something here because another shard has it,
//! and new messages at QoS 2 on their way to another shard.
//!
//! A backup is one cut through the journal of each shard, at slightly different moments. One shard's cut is what a crash
//! leaves; only between shards can cuts disagree. Three records say "that is elsewhere now": `Routed` (an inbound message
//! at QoS 2 has been placed), the end of a session whose shared entries were handed on, and the one that withdraws a
//! will that was published. If the cut of their journal has one of them and the cut of the shard that took the message was
//! before it took it, the backup has the message nowhere. So while this is on, the settlements that lead to those records
//! wait here; each shard begins when told, before any cut is made, and goes on when all are. `src/backup` has the
//! argument as a whole.
//!
//! The other way around, a message that is accepted at QoS 2 after the cut here must not be in a later one over there: a broker
//! that is restored gives its number, which is its key, to another message, and that would be dropped there as a
//! repeat. So what is accepted waits too, and nothing is handed on under a new key (`hand_on`).
//!
//! Nobody waits for what waits here: senders at QoS 2 have had their PUBREC, wills and ended sessions have no sender.

use std::collections::VecDeque;

use super::effect::Effects;
use super::messages::MessageId;
use super::{Broker, Budget};
use crate::ids::{Lsn, SessionKey};
use crate::limits::POSTPONED_SETTLEMENTS_MAX;

/// What is settled, or begins.
#[derive(Clone, Copy, Debug)]
pub(super) enum Settlement {
    /// An inbound message of this shard is on disk, and may go its way.
    Accepted { message: u32 },
    /// An inbound message of this shard.
    Inbound(Lsn),
    /// The message that a will was published as.
    Will(SessionKey, MessageId),
    /// An entry of an ended session.
    Departed(SessionKey),
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Postponed {
    on: bool,
    queue: VecDeque<Settlement>,
}

impl Postponed {
    pub(super) fn is_on(&self) -> bool {
        self.on
    }

    pub(super) fn switch(&mut self, on: bool) {
        self.on = on;
    }

    /// Whether the settlement waits; it does not if nothing has to, or too much does already. What is accepted does not
    /// overtake what was before.
    pub(super) fn wait(&mut self, settlement: Settlement) -> bool {
        self.on &= self.queue.len() < POSTPONED_SETTLEMENTS_MAX;
        let in_turn = matches!(settlement, Settlement::Accepted { .. }) && !self.queue.is_empty();
        if self.on || in_turn {
            self.queue.push_back(settlement);
        }
        self.on || in_turn
    }

    fn next(&mut self) -> Option<Settlement> {
        if self.on { None } else { self.queue.pop_front() }
    }

    fn is_due(&self) -> bool {
        !self.on && !self.queue.is_empty()
    }
}

impl Broker {
    /// Whether what `Input::HoldBack` asked for is so still: it ends by itself when too much waits.
    pub fn holds_back(&self) -> bool {
        self.postponed.is_on()
    }

    /// At once, or when it may be.
    pub(super) fn settlement(&mut self, settlement: Settlement, effects: &mut impl Effects) {
        if !self.postponed.wait(settlement) {
            self.take_settlement(settlement, effects);
        }
    }

    fn take_settlement(&mut self, settlement: Settlement, effects: &mut impl Effects) {
        match settlement {
            Settlement::Accepted { message } => self.route(message),
            Settlement::Inbound(inbound) => self.inbound_settled(inbound, effects),
            Settlement::Will(key, message) => self.will_settled(key, message, effects),
            Settlement::Departed(key) => self.departed_settled(key, effects),
        }
    }

    /// Do what waited.
    pub(super) fn take_postponed(&mut self, budget: &mut Budget, effects: &mut impl Effects) -> bool {
        while self.postponed.is_due() && budget.take() {
            if let Some(settlement) = self.postponed.next() {
                self.take_settlement(settlement, effects);
            }
        }
        self.postponed.is_due()
    }
}
