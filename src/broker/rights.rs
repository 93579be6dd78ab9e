//! What connections may do, as far as the broker has to ask: before it takes a publish, a subscription or a will.
//!
//! What is permitted `access::permissions` decides. Where nothing is enforced, asking costs one branch. When permissions change, each
//! connection's subscriptions are judged again, a few connections per call; those of a session that is away are judged when its
//! client comes back. What is in a queue by a subscription that was taken back is judged before it is sent.

use std::sync::Arc;

use super::effect::{CloseReason, Effects};
use super::timers::Due;
use super::{Broker, Budget};
use crate::access::passport::Passport;
use crate::access::permissions::{Bearer, Permissions};
use crate::access::rules::Action;
use crate::hash::ByNumber;
use crate::ids::ConnectionId;
use crate::time::Nanos;
use crate::wire::{Connect, Publish, ReasonCode, topic};

/// What connections may.
#[derive(Debug)]
pub(super) struct Rights {
    permissions: Arc<Permissions>,
    /// Whether they are enforced: at hand, because each publish and each delivery asks.
    is_enforced: bool,
    /// Of connections, by slot, that have more than an account.
    passports: ByNumber<u64, Held>,
    /// The next connection whose subscriptions are to be judged, after permissions have changed.
    judging: Option<u32>,
}

/// The passport of a connection that is there.
#[derive(Debug)]
struct Held {
    passport: Passport,
    timer_at: Nanos,
}

/// Of a connection whose account is proven, and no more than that.
static PROVEN: Passport =
    Passport { is_proven: true, groups: Vec::new(), grants: None, expires_at: None, reply: None };

impl Rights {
    pub(super) fn new(permissions: Arc<Permissions>) -> Rights {
        let is_enforced = permissions.is_enforced();
        Rights { permissions, is_enforced, passports: ByNumber::default(), judging: None }
    }

    #[cfg(test)]
    pub(super) fn permissions(&self) -> Arc<Permissions> {
        self.permissions.clone()
    }
}

impl Broker {
    /// Other permissions hold from now on.
    pub(super) fn permissions_changed(&mut self, permissions: Arc<Permissions>) {
        self.rights.is_enforced = permissions.is_enforced();
        self.rights.permissions = permissions;
        self.rights.judging = Some(0);
    }

    /// A connection has its session: it shows its passport.
    pub(super) fn keep_passport(&mut self, id: ConnectionId, passport: &Passport) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.is_proven = passport.is_proven;
        if let Some(reply) = &passport.reply {
            connection.exchange().reply = Some(reply.clone());
        }
        if passport.is_plain() {
            return;
        }
        let mut timer_at = Nanos::NEVER;
        if let Some(expires_at) = passport.expires_at {
            let at = self.now.mono_at(expires_at);
            self.timers.set(&mut timer_at, at, Due::Passport { slot: id.slot });
        }
        let passport = Passport { reply: None, ..passport.clone() };
        self.rights.passports.insert(id.slot.into(), Held { passport, timer_at });
    }

    /// The connection is gone.
    pub(super) fn forget_passport(&mut self, id: ConnectionId) {
        if self.rights.passports.is_empty() {
            return;
        }
        if let Some(mut held) = self.rights.passports.remove(&u64::from(id.slot)) {
            self.timers.set(&mut held.timer_at, Nanos::NEVER, Due::Passport { slot: id.slot });
        }
    }

    /// What somebody was let in with has expired: the connection ends [MQTT5 3.14.2.1, 0xA0].
    pub(super) fn passport_is_due(&mut self, slot: u32, effects: &mut impl Effects) {
        let held = self.rights.passports.get_mut(&u64::from(slot)).expect("a timer goes with its passport");
        held.timer_at = Nanos::NEVER;
        let expires_at = held.passport.expires_at.expect("it has a timer");
        if expires_at > self.now.wall {
            // The wall clock went back; ask again when it should be there.
            let at = self.now.mono_at(expires_at);
            self.timers.set(&mut held.timer_at, at, Due::Passport { slot });
            return;
        }
        if let Some(id) = self.connections.id_in(slot) {
            self.close(id, Some(ReasonCode::MaximumConnectTime), CloseReason::NotAuthorized, effects);
        }
    }

    /// Whether a connection may publish that.
    pub(super) fn may_publish(&self, id: ConnectionId, topic: &str, publish: &Publish<'_>) -> bool {
        !self.rights.is_enforced
            || self.may(id, Action::Publish, topic)
                && (!publish.retain || self.may(id, Action::Retain, topic))
    }

    /// Whether a client that is about to be let in may leave its will.
    pub(super) fn may_leave(
        &self,
        connect: &Connect<'_>,
        account: &str,
        client_id: &str,
        passport: &Passport,
    ) -> bool {
        let Some(will) = &connect.will else { return true };
        // That is ours alone, whatever the rules.
        if will.topic.starts_with("$SYS") {
            return false;
        }
        if !self.rights.is_enforced {
            return true;
        }
        let bearer = Bearer { account: own_account(account, client_id), client_id, passport };
        let may = |action| self.rights.permissions.permits(action, &bearer, will.topic);
        may(Action::Will) && (!will.retain || may(Action::Retain))
    }

    /// Whether the session's connection may subscribe to that filter, prefix included, or get what is retained for that topic.
    pub(super) fn may_subscribe(&self, slot: u32, filter: &str) -> bool {
        if !self.rights.is_enforced {
            return true;
        }
        let filter = topic::split_shared(filter).map_or(filter, |(_, filter)| filter);
        match self.connections.id_in(self.sessions.get(slot).connection) {
            Some(id) => self.may(id, Action::Subscribe, filter),
            // Nobody is there to be asked; what it has is judged when it comes back.
            None => true,
        }
    }

    fn may(&self, id: ConnectionId, action: Action, topic: &str) -> bool {
        let Some(connection) = self.connections.get(id) else { return false };
        let session = self.sessions.get(connection.session);
        let plain = if connection.is_proven { &PROVEN } else { &crate::access::passport::UNPROVEN };
        let passport = self.rights.passports.get(&u64::from(id.slot)).map_or(plain, |held| &held.passport);
        let client_id = session.client_id();
        let bearer = Bearer { account: own_account(session.account(), client_id), client_id, passport };
        self.rights.permissions.permits(action, &bearer, topic)
    }

    /// Takes back the subscriptions that a session's connection may not have (any more).
    pub(super) fn judge_subscriptions(&mut self, slot: u32, effects: &mut impl Effects) {
        if !self.rights.is_enforced {
            return;
        }
        let filters = self.sessions.get(slot).subscriptions.as_slice().iter().map(|mine| mine.filter);
        let refused: Vec<Box<str>> = filters
            .map(|filter| self.subscriptions.text(filter))
            .filter(|text| !self.may_subscribe(slot, text))
            .map(Box::from)
            .collect();
        for text in &refused {
            let Some(filter) = self.subscriptions.find(text) else { continue };
            self.unsubscribe_one(slot, filter, text, effects);
        }
        if !refused.is_empty() {
            self.sessions.get_mut(slot).delivery().is_suspect = true;
        }
    }

    /// Takes back the will that a session's connection may not leave any more.
    fn judge_will(&mut self, id: ConnectionId, slot: u32) {
        let Some(will) = self.sessions.get(slot).will.as_deref() else { return };
        let may = self.may(id, Action::Will, &will.topic)
            && (!will.retain || self.may(id, Action::Retain, &will.topic));
        if !may {
            self.sessions.get_mut(slot).will = None;
        }
    }

    /// What is in a session's queue may be by subscriptions that were taken back, now or before a restart: it is judged by its topics.
    pub(super) fn suspect_queue(&mut self, slot: u32) {
        if let Some(delivery) = self.sessions.get_mut(slot).delivery.as_deref_mut() {
            delivery.is_suspect = true;
        }
    }

    /// After permissions have changed: judges the subscriptions of some connections.
    pub(super) fn judge_connections(&mut self, budget: &mut Budget, effects: &mut impl Effects) -> bool {
        while let Some(slot) = self.rights.judging {
            if slot >= self.connections.slots() {
                self.rights.judging = None;
                break;
            }
            if !budget.take() {
                return true;
            }
            self.rights.judging = Some(slot + 1);
            let Some(connection) = self.connections.id_in(slot).and_then(|id| self.connections.get(id))
            else {
                continue;
            };
            let session = connection.session;
            if let Some(id) = self.connections.id_in(slot) {
                self.judge_will(id, session);
            }
            let _ = budget.take_many(self.sessions.get(session).subscriptions.len() as u32);
            self.judge_subscriptions(session, effects);
        }
        false
    }

    /// Whether a message whose body is in memory, in the queue of a session, may be sent: some of what is there may be by
    /// subscriptions that were taken back.
    pub(super) fn may_receive(&self, slot: u32, message: u32) -> bool {
        if !self.rights.is_enforced {
            return true;
        }
        let delivery = self.sessions.get(slot).delivery.as_deref();
        if delivery.is_none_or(|delivery| !delivery.is_suspect) {
            return true;
        }
        let content = self.messages.get(message).content.as_ref();
        content.is_none_or(|content| self.may_subscribe(slot, content.topic()))
    }
}

/// The account that a session with an empty one has.
fn own_account<'a>(account: &'a str, client_id: &'a str) -> &'a str {
    if account.is_empty() { client_id } else { account }
}
