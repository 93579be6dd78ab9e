//! What a client can know of its session at the broker, and so what the broker may say about it.
//!
//! A session is followed from `session present` = 0 to the next one. Between, it exists for sure, or may have ended.
//! Called by `client` when something happens to a connection or a subscription; asked by `oracle`.

use std::collections::{BTreeMap, BTreeSet};

use ironpost::time::UnixMs;
use ironpost::wire::QoS;

use crate::oracle::{CLOCK_MARGIN_MS, Got, Message, MessageId, Tick};

/// Whether there is a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Existence {
    #[default]
    None,
    /// There is, unless `ends_at` has passed.
    Sure,
    /// There may be: what it was like is not known.
    Maybe,
}

/// A subscription that is or may be in force.
#[derive(Clone, Debug)]
pub struct Subscription {
    pub filter: &'static str,
    pub qos: QoS,
    pub no_local: bool,
    /// SUBSCRIBE was sent.
    pub requested: Tick,
    /// SUBACK arrived, and no UNSUBSCRIBE was sent since.
    pub sure_since: Option<Tick>,
    /// UNSUBACK arrived.
    pub ended: Option<Tick>,
}

impl Subscription {
    pub fn is_shared(&self) -> bool {
        self.filter.starts_with("$share/")
    }

    pub fn matches(&self, topic: &str) -> bool {
        let filter = match self.filter.strip_prefix("$share/") {
            Some(rest) => rest.split_once('/').unwrap().1,
            None => self.filter,
        };
        filter_matches(filter, topic)
    }
}

/// Section 4.7 of the standard, for topics that do not begin with `$`.
pub fn filter_matches(filter: &str, topic: &str) -> bool {
    let mut levels = topic.split('/');
    for expected in filter.split('/') {
        match (expected, levels.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (literal, Some(level)) if literal == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

/// See the module documentation.
#[derive(Debug)]
pub struct Session {
    pub existence: Existence,
    pub connected: bool,
    /// It outlives its connection.
    pub durable: bool,
    pub expiry_s: u32,
    /// When it can have ended, and when it must have; while it is not connected.
    pub ends_at: UnixMs,
    pub ended_by: UnixMs,
    pub subscriptions: Vec<Subscription>,
    pub owed: BTreeSet<MessageId>,
    pub got: Got,
    pub got_retained: BTreeSet<MessageId>,
    /// The latest message that came first, by publisher, topic, and QoS as sent and as delivered.
    pub order: BTreeMap<(usize, &'static str, u8, u8), MessageId>,
    pub gaps_told: u32,
}

impl Default for Session {
    fn default() -> Self {
        Session {
            existence: Existence::None,
            connected: false,
            durable: false,
            expiry_s: 0,
            ends_at: UnixMs::NEVER,
            ended_by: UnixMs::NEVER,
            subscriptions: Vec::new(),
            owed: BTreeSet::new(),
            got: BTreeMap::new(),
            got_retained: BTreeSet::new(),
            order: BTreeMap::new(),
            gaps_told: 0,
        }
    }
}

/// What a CONNECT asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub clean: bool,
    pub expiry_s: u32,
}

impl Session {
    /// Whether it cannot have ended.
    pub fn surely_exists(&self, now: UnixMs) -> bool {
        self.existence == Existence::Sure && (self.connected || now < self.ends_at)
    }

    /// Whether the client has that message.
    pub fn has(&self, id: MessageId) -> bool {
        self.got.contains_key(&id) || self.got_retained.contains(&id)
    }

    /// A CONNECT leaves.
    pub fn connect_sent(&mut self, asked: Asked) {
        if asked.clean && self.existence == Existence::Sure {
            self.existence = Existence::Maybe;
        }
    }

    /// It was accepted. Panics if `present` cannot be.
    pub fn accepted(&mut self, client: usize, asked: Asked, present: bool, now: UnixMs) {
        if asked.clean {
            assert!(!present, "client {client} asked for a clean start and was told of a session");
        }
        if present {
            assert!(
                self.existence != Existence::None,
                "client {client} was told of a session, but the last one has ended"
            );
            assert!(now < self.ended_by, "client {client} was told of a session that must have expired");
        } else {
            assert!(
                asked.clean || !self.surely_exists(now),
                "client {client} was told that there is no session, but there must be one"
            );
            *self = Session::default();
        }
        self.existence = Existence::Sure;
        self.connected = true;
        self.durable = (present && self.durable) || asked.expiry_s > 0;
        self.expiry_s = asked.expiry_s;
        self.ends_at = UnixMs::NEVER;
        self.ended_by = UnixMs::NEVER;
    }

    /// The connection is over; `expiry_s` is what the broker may have been told last.
    pub fn connection_over(&mut self, now: UnixMs) {
        self.connected = false;
        if self.expiry_s == 0 {
            *self = Session::default();
            return;
        }
        self.runs_out(self.expiry_s, now);
    }

    fn runs_out(&mut self, expiry_s: u32, now: UnixMs) {
        if expiry_s != u32::MAX {
            let early = UnixMs(now.0.saturating_sub(CLOCK_MARGIN_MS));
            self.ends_at = self.ends_at.min(early.plus_s(u64::from(expiry_s)));
            self.ended_by = UnixMs(now.0 + 2 * CLOCK_MARGIN_MS).plus_s(u64::from(expiry_s));
        }
    }

    /// A CONNECT got no answer before its connection ended: it was handled or not.
    pub fn connect_unanswered(&mut self, asked: Asked, now: UnixMs) {
        match self.existence {
            Existence::None if asked.expiry_s > 0 => self.existence = Existence::Maybe,
            Existence::None | Existence::Maybe => {}
            Existence::Sure => self.runs_out(asked.expiry_s, now),
        }
        self.ended_by = UnixMs::NEVER;
    }

    /// DISCONNECT with another expiry was sent; it was handled or not.
    pub fn disconnect_sent(&mut self, expiry_s: u32, now: UnixMs) {
        if expiry_s == 0 {
            self.existence = Existence::Maybe;
        }
        self.runs_out(expiry_s, now);
        self.ended_by = UnixMs::NEVER;
    }

    /// The broker was restarted: clocks of sessions that were connected at the crash run from now.
    pub fn broker_recovered(&mut self, now: UnixMs) {
        if !self.connected && self.expiry_s != u32::MAX && self.ended_by != UnixMs::NEVER {
            self.ended_by = UnixMs(now.0 + 2 * CLOCK_MARGIN_MS).plus_s(u64::from(self.expiry_s));
        }
    }

    /// SUBSCRIBE leaves.
    pub fn subscribe_sent(&mut self, filter: &'static str, qos: QoS, no_local: bool, tick: Tick) {
        if self.in_force(filter).is_none() {
            let (sure_since, ended) = (None, None);
            let requested = tick;
            self.subscriptions.push(Subscription { filter, qos, no_local, requested, sure_since, ended });
        }
    }

    /// SUBACK arrived.
    pub fn subscribed(&mut self, filter: &str, tick: Tick) {
        if let Some(one) = self.in_force_mut(filter) {
            one.sure_since.get_or_insert(tick);
        }
    }

    /// UNSUBSCRIBE leaves: from here on the subscription may be gone.
    pub fn unsubscribe_sent(&mut self, filter: &str, messages: &[Message]) {
        if let Some(one) = self.in_force_mut(filter) {
            one.sure_since = None;
        }
        let Session { owed, subscriptions, .. } = self;
        owed.retain(|id| {
            let message = &messages[*id as usize];
            let still = |one: &Subscription| {
                one.sure_since.is_some() && one.matches(message.topic) && !one.is_shared()
            };
            message.qos != QoS::ExactlyOnce || subscriptions.iter().any(still)
        });
    }

    /// UNSUBACK arrived.
    pub fn unsubscribed(&mut self, filter: &str, tick: Tick) {
        if let Some(one) = self.in_force_mut(filter) {
            one.ended = Some(tick);
        }
    }

    /// The subscription to that filter which may be in force.
    pub fn in_force(&self, filter: &str) -> Option<&Subscription> {
        self.subscriptions.iter().find(|one| one.filter == filter && one.ended.is_none())
    }

    fn in_force_mut(&mut self, filter: &str) -> Option<&mut Subscription> {
        self.subscriptions.iter_mut().find(|one| one.filter == filter && one.ended.is_none())
    }

    /// By how many subscriptions, taken separately, the message can have come at that QoS: all ordinary ones are one.
    pub fn routes(&self, message: &Message, qos: QoS) -> u32 {
        let mut ordinary = false;
        let mut groups = BTreeSet::new();
        for one in &self.subscriptions {
            let in_force = one.ended.is_none_or(|ended| ended >= message.first_sent);
            if in_force && one.qos >= qos && one.matches(message.topic) {
                if one.is_shared() {
                    groups.insert(one.filter);
                } else {
                    ordinary = true;
                }
            }
        }
        u32::from(ordinary) + groups.len() as u32
    }

    /// Whether a message on that topic can have come through a shared subscription.
    pub fn may_share(&self, topic: &str) -> bool {
        self.subscriptions.iter().any(|one| one.is_shared() && one.matches(topic))
    }

    /// Whether it has been subscribed to that topic for sure since that moment, each time by itself. `own`: to what
    /// its client sends there.
    pub fn subscribed_since(&self, topic: &str, tick: Tick, own: bool) -> bool {
        let sure = |one: &Subscription| {
            let since = one.sure_since.is_some_and(|since| since <= tick);
            since && one.qos != QoS::AtMostOnce && !(own && one.no_local)
        };
        self.subscriptions.iter().any(|one| !one.is_shared() && sure(one) && one.matches(topic))
    }

    /// Whether a subscription for that topic was asked for before that moment.
    pub fn requested_before(&self, topic: &str, tick: Tick) -> bool {
        self.subscriptions.iter().any(|one| one.matches(topic) && (one.requested <= tick || one.is_shared()))
    }
}
