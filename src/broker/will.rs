//! Wills: kept with the session while it is connected, pending once the connection ended, published when due.
//!
//! A pending will outlives its session (its table is its own), is published as any message, and is withdrawn from
//! the journal only when everyone owed has it.

use super::Broker;
use super::effect::Effects;
use super::messages::{MessageId, Sender};
use super::route::Parcel;
use super::session::{PendingWill, Will};
use super::timers::Due;
use crate::content::Content;
use crate::ids::{Lsn, PublisherKey, SessionKey};
use crate::record::{Body, Record, WillRecord};
use crate::time::{Nanos, UnixMs};
use crate::wire;

/// As CONNECT brought it.
pub(super) fn from_connect(will: &wire::Will<'_>) -> Will {
    Will {
        topic: will.topic.into(),
        forward: will.forward.forwarded().collect::<Vec<_>>().concat().into(),
        payload: will.payload.into(),
        qos: will.qos,
        retain: will.retain,
        delay_s: will.delay.unwrap_or(0),
        message_expiry_s: will.message_expiry.unwrap_or(u32::MAX),
    }
}

/// As the journal keeps it.
pub(super) fn record(will: &Will, now: UnixMs) -> WillRecord<'_> {
    WillRecord {
        body: Body {
            topic: &will.topic,
            forward: &will.forward,
            payload: &will.payload,
            qos: will.qos,
            retain: will.retain,
            accepted_at: now,
            expires_at: UnixMs::NEVER,
        },
        delay_s: will.delay_s,
        message_expiry_s: will.message_expiry_s,
    }
}

/// As the journal kept it.
pub(super) fn from_record(will: &WillRecord<'_>) -> Will {
    Will {
        topic: will.body.topic.into(),
        forward: will.body.forward.into(),
        payload: will.body.payload.into(),
        qos: will.body.qos,
        retain: will.body.retain,
        delay_s: will.delay_s,
        message_expiry_s: will.message_expiry_s,
    }
}

impl Broker {
    /// The connection ended badly: the will is due then. `record` is the `Session` record that holds it, if any.
    pub(super) fn will_pending(&mut self, key: SessionKey, will: Will, due: UnixMs, record: Lsn) {
        if record.is_some() {
            self.live.add(record, 0);
        }
        let durable = record.is_some();
        let (at, mut timer_at) = (self.now.mono_at(due), Nanos::NEVER);
        self.timers.set(&mut timer_at, at, Due::Will { key });
        let pending =
            PendingWill { will, due, timer_at, durable, publishing: None, record, ended: Lsn::NONE };
        let replaced = self.wills.insert(key, pending);
        assert!(replaced.is_none(), "a session has one connection and so one will at a time");
    }

    /// The client is back before its will was due.
    pub(super) fn withdraw_will(&mut self, slot: u32, effects: &mut impl Effects) {
        let key = self.sessions.get(slot).key;
        if self.wills.get(&key).is_some_and(|pending| pending.publishing.is_none()) {
            self.will_gone(key, effects);
        } else if let Some(pending) = self.wills.remove(&key) {
            // It is being published; from here on it is only a message. The new connection may bring a new will.
            self.forget_will(key, pending);
        }
    }

    /// Everyone owed has the message of a will. If its client came back meanwhile, the pending one is another.
    pub(super) fn will_settled(&mut self, key: SessionKey, message: MessageId, effects: &mut impl Effects) {
        if self.wills.get(&key).is_some_and(|pending| pending.publishing == Some(message)) {
            self.will_gone(key, effects);
        }
    }

    /// Forget a pending will.
    fn will_gone(&mut self, key: SessionKey, effects: &mut impl Effects) {
        let Some(pending) = self.wills.remove(&key) else { return };
        if pending.durable {
            if self.is_written(key) {
                let record = self.append(Record::WillGone { key }, effects);
                self.will_gone_is_noted(key, record);
            } else {
                // So that nothing is left of the session, also if replay has its `Session` record and not its end.
                let _ = self.append(Record::SessionEnded { key, will_due: UnixMs::NEVER }, effects);
            }
        }
        self.forget_will(key, pending);
    }

    pub(super) fn forget_will(&mut self, key: SessionKey, mut pending: PendingWill) {
        self.timers.set(&mut pending.timer_at, Nanos::NEVER, Due::Will { key });
        for record in [pending.record, pending.ended].into_iter().filter(|record| record.is_some()) {
            self.live.remove(record);
        }
    }

    /// Publish it, if it is still there and its time has come.
    pub(super) fn will_is_due(&mut self, key: SessionKey) {
        let now = self.now;
        let pending = self.wills.get_mut(&key).expect("a timer goes with its will");
        pending.timer_at = Nanos::NEVER;
        if pending.publishing.is_some() {
            return;
        }
        if pending.due > now.wall {
            // The wall clock went back; ask again when it should be there.
            let at = now.mono_at(pending.due);
            self.timers.set(&mut pending.timer_at, at, Due::Will { key });
            return;
        }
        let now = now.wall;
        let will = &pending.will;
        let expires_at = match will.message_expiry_s {
            u32::MAX => UnixMs::NEVER,
            seconds => now.plus_s(u64::from(seconds)),
        };
        let parcel = Parcel {
            content: Content::new(&will.topic, std::iter::once(&*will.forward), &will.payload),
            qos: will.qos,
            retain: will.retain,
            accepted_at: now,
            expires_at,
            publisher: PublisherKey::NOBODY,
            origin: None,
        };
        let message = self.messages.insert(parcel, Sender::Will { key });
        pending.publishing = Some(message);
        self.route(message.slot);
    }
}
