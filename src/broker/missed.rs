//! Messages for a shared subscription whose last member on the chosen shard had left before they came there.
//!
//! The owner chose the shard by what it knew; its answer names what nobody there took. The news of the leaving was
//! sent before that answer, so the owner chooses anew among the members that are left, until one takes the message or
//! there is none. The message is stored once more for it, as a part of the first, which is settled when that is.

use std::collections::VecDeque;

use super::effect::Effects;
use super::messages::{MessageId, Sender};
use super::place::{Scope, Task};
use super::{Broker, Budget};

/// The messages, and for which shared subscription.
#[derive(Debug, Default)]
pub(super) struct Missed(VecDeque<(MessageId, Box<str>)>);

impl Broker {
    /// Nobody of these shared subscriptions was where the message was sent to. At QoS 0, without a token, that is all.
    pub(super) fn take_missed(&mut self, token: u64, missed: Vec<Box<str>>) {
        let id = MessageId::from_token(token);
        for group in missed {
            let Some(message) = self.messages.find(id) else { return };
            message.remote.unplaced += 1;
            message.remote.unsettled += 1;
            self.missed.0.push_back((id, group));
        }
    }

    /// Choose anew.
    pub(super) fn place_missed(&mut self, budget: &mut Budget, effects: &mut impl Effects) -> bool {
        while let Some((id, _)) = self.missed.0.front() {
            let id = *id;
            if !budget.take() {
                return true;
            }
            let Some(parcel) = self.messages.get(id.slot).parcel() else {
                // It was recorded, and has left memory since.
                self.fetch(id.slot, None, effects);
                return false;
            };
            let Some((_, group)) = self.missed.0.pop_front() else { return false };
            // With a record of its own: it may be one of many that the first one's record speaks of.
            let again = self.messages.insert(parcel, Sender::Again { token: id.token() });
            self.placing.push(Task { message: again.slot, scope: Scope::Group(group) });
        }
        false
    }
}
