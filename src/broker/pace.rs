//! Publishers go no faster than this shard. It reads from nobody while it has its hands full with placing messages. Whoever
//! publishes while it is far behind with that, which other shards may be the cause of, or while the disk is behind with
//! writing them, is paused, and resumed when half of that is done.
//!
//! Nothing that a paused client could do is waited for, so pausing cannot lock up; its acknowledgements and pings are
//! handled meanwhile, and its keep alive does not run out. Without this a client that sends QoS 0 messages faster than
//! they are placed would fill the memory, because nothing acknowledges them. When the disk's reserve is reached nobody
//! is paused: publishes are refused, which costs nothing and is seen.

use std::collections::VecDeque;

use super::Broker;
use super::effect::{Effect, Effects};
use super::overload::Step;
use crate::ids::ConnectionId;
use crate::limits::{UNPLACED_MESSAGES_AHEAD, UNPLACED_MESSAGES_MAX};

/// Each has some packets parked as a rule. If all these were resumed who could publish one before the bound is reached, most
/// would be paused again after one.
const RESUMED_PER_TURN_MAX: usize = 256;

/// Who waits, and for what.
#[derive(Debug, Default)]
pub(super) struct Pace {
    waiting: VecDeque<ConnectionId>,
    /// Too much waits for the disk.
    pub(super) disk_is_behind: bool,
    /// Too much waits to be placed; until half of that does. Meanwhile everybody who publishes is paused: where some were not,
    /// they could keep it above the half, and those who wait would wait for ever.
    placing_is_behind: bool,
}

impl Broker {
    /// Whether more is to be read from clients: not before what they have sent is on its way.
    pub fn keeps_up(&self) -> bool {
        self.placing.len() < UNPLACED_MESSAGES_AHEAD
    }

    /// Whether what is published at QoS 1 and 2 is refused.
    pub(super) fn refuses_publishes(&self) -> bool {
        self.disk_reserve_reached || self.gives_way(Step::PublishesRefused)
    }

    /// Whether whoever publishes has to wait.
    fn is_behind(&mut self) -> bool {
        let unplaced = self.placing.len() + self.outbox.len();
        let pace = &mut self.pace;
        pace.placing_is_behind = match pace.placing_is_behind {
            true => unplaced > UNPLACED_MESSAGES_MAX / 2,
            false => unplaced >= UNPLACED_MESSAGES_MAX,
        };
        let is_behind = pace.placing_is_behind || pace.disk_is_behind;
        (is_behind || self.gives_way(Step::PublishersWait)) && !self.refuses_publishes()
    }

    /// After a publish: its connection may have to wait before the next.
    pub(super) fn pause_if_behind(&mut self, id: ConnectionId, effects: &mut impl Effects) {
        if !self.is_behind() {
            return;
        }
        let Some(connection) = self.connections.get_mut(id) else { return };
        let was_paused = connection.is_paused();
        if std::mem::replace(&mut connection.waits, true) {
            return;
        }
        self.pace.waiting.push_back(id);
        if !was_paused {
            effects.perform(Effect::Pause { connection: id });
        }
    }

    /// It has used up what it may send for now, or may send again.
    pub(super) fn throttle(&mut self, id: ConnectionId, on: bool, effects: &mut impl Effects) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let was_paused = connection.is_paused();
        connection.throttled = on;
        match (was_paused, connection.is_paused()) {
            (false, true) => effects.perform(Effect::Pause { connection: id }),
            (true, false) => effects.perform(Effect::Resume { connection: id }),
            _ => {}
        }
    }

    /// Let those go on who have waited longest, as many in a turn as may publish before the bound is reached again. That is
    /// in no budget: it is little, and a shard that is always busy would have nothing left for it.
    pub(super) fn resume_publishers(&mut self, effects: &mut impl Effects) -> bool {
        for _ in 0..RESUMED_PER_TURN_MAX {
            if self.pace.waiting.is_empty() || self.is_behind() {
                return false;
            }
            let Some(id) = self.pace.waiting.pop_front() else { return false };
            // It may have ended meanwhile.
            let Some(connection) = self.connections.get_mut(id) else { continue };
            connection.waits = false;
            if !connection.is_paused() {
                effects.perform(Effect::Resume { connection: id });
            }
        }
        !self.pace.waiting.is_empty()
    }
}
