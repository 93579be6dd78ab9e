//! What the broker owes, judged from what clients see and from nothing else.
//!
//! # What is promised (README, "What an acknowledgement promises")
//!
//! A message at QoS 1 or 2 that its publisher has seen acknowledged (PUBACK, PUBREC) is *owed* to every session that
//! was subscribed to its topic at QoS 1 or 2 *for sure*: SUBACK had arrived before the PUBLISH was sent, and until the
//! acknowledgement arrived no UNSUBSCRIBE was sent and the session could not have ended. It is owed until that
//! client has it, and no longer only if
//!
//! - the session has ended (the broker says so by `session present` = 0, which must be a possible end: a clean start,
//!   an expiry that can have passed, a connection that the session did not outlive), or
//! - its expiry can have passed, or
//! - the session's queue was full, or its shard's disk was, and the client was told of a gap, as many as are missing
//!   (small queues and failed disks only). A session that is not on disk can be told nothing, nor can version 3.1.1:
//!   "has no place for it, and then only the log says it". Or
//! - it was published at QoS 2 and the client unsubscribed before it came: PUBREC says that the message is on disk in
//!   its publisher's home, from where it goes to who is subscribed then.
//!
//! A refused message (0x97) is owed to nobody. "No matching subscribers" (0x10) is a lie if a session on disk was
//! subscribed for sure; not if it ends with its connection (expiry 0), which the broker may have closed before its
//! client knows. A message for a shared subscription is owed to the group: some member must have it, as long as there
//! is, without a pause, a member whose session is on disk and does not end. Not at QoS 2, if a member's session has
//! ended since, whose subscription was at QoS 2: what was sent to it, and perhaps never came, must not be sent to
//! another [MQTT-4.8.2-5].
//!
//! # What must not happen, ever
//!
//! - A client gets what was not sent, or not on that topic, or at more than the granted QoS.
//! - A session gets a message by no subscription that can have been in force since it was sent.
//! - A message sent at QoS 2 comes twice at QoS 2, by one subscription; retained copies and wills are other messages.
//!   Not judged: what a member of a shared subscription left behind, which may be handed on once more after a crash.
//! - Two messages of one publisher, one topic and one QoS come first in another order than they were sent, to a client
//!   that was subscribed for sure before, except through a shared subscription. One QoS is that of both, as they were
//!   sent and as they come: `[MQTT-4.6.0-6]` speaks of the packets to consumers, and of two that come at different
//!   QoS (the client subscribed once more between them) the one at QoS 2 is known after a crash to have been begun,
//!   and goes again first. A subscription without the client's own messages is none for these.
//! - `session present` contradicts what the client knows.
//!
//! What one packet may say after another on a connection is `client`'s business. Order of events is a counter
//! (`tick`) that each event seen by a client advances; expiry is judged by the world's clock.

use std::collections::{BTreeMap, BTreeSet};

use ironpost::time::{Nanos, UnixMs};
use ironpost::wire::{QoS, ReasonCode};

use crate::scenario::SHARED;
use crate::sessions::{Existence, Session, Subscription};

/// A message, by the number in its payload.
pub type MessageId = u32;

/// A moment, by the number of things that clients have seen before.
pub type Tick = u64;

/// What a clock reading may be off by when one end of a connection knows of its end and the other does not.
pub const CLOCK_MARGIN_MS: u64 = 1_500;

/// What kind of message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Ordinary,
    /// It is published by the broker, some time after its CONNECT, or never.
    Will,
}

/// A message that was sent.
#[derive(Debug)]
pub struct Message {
    pub publisher: usize,
    pub topic: &'static str,
    pub qos: QoS,
    pub retain: bool,
    pub kind: Kind,
    pub first_sent: Tick,
    /// Of the last copy, which is the one that counts at QoS 1.
    pub last_sent: Tick,
    /// When it can have expired.
    pub expires: UnixMs,
    pub answered: Option<Tick>,
}

/// A message that a group must get.
#[derive(Debug)]
struct GroupDebt {
    message: MessageId,
    group: &'static str,
}

/// A session that has ended with its connection, as its client knows. The broker may not know yet, and give it what a
/// group is owed.
#[derive(Debug)]
struct Ghost {
    client: usize,
    until: UnixMs,
    groups: Vec<&'static str>,
}

/// See the module documentation.
pub struct Oracle {
    pub tick: Tick,
    pub messages: Vec<Message>,
    pub sessions: Vec<Session>,
    group_debts: Vec<GroupDebt>,
    /// When last a group had no steady member, and whether it had one when last judged.
    unsteady: BTreeMap<&'static str, Tick>,
    steady: BTreeSet<&'static str>,
    ghosts: Vec<Ghost>,
    /// When last a member of a shared subscription may have left.
    departed: Tick,
    /// Which clients can be told of a gap: those of version 5.
    is_v5: Vec<bool>,
    /// Shared subscriptions at QoS 2 of a client's session that may be over, and when last one of a group was.
    perhaps_ended: BTreeSet<(usize, &'static str)>,
    ended: BTreeMap<&'static str, Tick>,
    /// What any client has got, in whatever session.
    arrived: BTreeSet<MessageId>,
    small_queues: bool,
    /// For the record: client operations, deliveries, acknowledgements.
    pub operations: u32,
    pub deliveries: u32,
    pub acknowledged: u32,
    history: Option<Vec<String>>,
}

impl Oracle {
    /// Of clients that are of version 5, or not.
    pub fn new(is_v5: Vec<bool>, small_queues: bool, with_history: bool) -> Oracle {
        Oracle {
            tick: 1,
            messages: Vec::new(),
            sessions: is_v5.iter().map(|_| Session::default()).collect(),
            group_debts: Vec::new(),
            unsteady: SHARED.iter().map(|group| (*group, 0)).collect(),
            steady: BTreeSet::new(),
            ghosts: Vec::new(),
            departed: 0,
            is_v5,
            perhaps_ended: BTreeSet::new(),
            ended: BTreeMap::new(),
            arrived: BTreeSet::new(),
            small_queues,
            operations: 0,
            deliveries: 0,
            acknowledged: 0,
            history: with_history.then(Vec::new),
        }
    }

    /// Writes down what happened, if this run is told to.
    pub fn note(&mut self, at: Nanos, line: impl FnOnce() -> String) {
        if let Some(history) = &mut self.history {
            history.push(format!("{:>12.6} #{} {}", at.0 as f64 / 1e9, self.tick, line()));
        }
    }

    /// What was written down.
    pub fn history(&mut self) -> Vec<String> {
        self.history.take().unwrap_or_default()
    }

    /// The next moment.
    pub fn moment(&mut self) -> Tick {
        self.tick += 1;
        self.tick
    }

    /// A new message is about to be sent for the first time.
    pub fn sends(&mut self, mut message: Message) -> MessageId {
        let tick = self.moment();
        message.first_sent = tick;
        message.last_sent = tick;
        self.messages.push(message);
        (self.messages.len() - 1) as MessageId
    }

    /// A message is sent again.
    pub fn sends_again(&mut self, id: MessageId) {
        let tick = self.moment();
        self.messages[id as usize].last_sent = tick;
    }

    /// PUBACK, or the first PUBREC. `disk_failed`: at QoS 1 a shard without disk may have skipped sessions of its own.
    pub fn answered(&mut self, id: MessageId, reason: ReasonCode, disk_failed: bool, now: UnixMs) {
        let tick = self.moment();
        let message = &mut self.messages[id as usize];
        if message.answered.replace(tick).is_some() || reason.is_failure() {
            return;
        }
        self.acknowledged += 1;
        let message = &self.messages[id as usize];
        let since = if message.qos == QoS::ExactlyOnce { message.first_sent } else { message.last_sent };
        let skipping = self.small_queues || disk_failed && message.qos == QoS::AtLeastOnce;
        let mut groups: BTreeSet<&'static str> = BTreeSet::new();
        for (index, session) in self.sessions.iter_mut().enumerate() {
            if !session.surely_exists(now) {
                continue;
            }
            let sure = |one: &&Subscription| {
                one.matches(message.topic) && one.sure_since.is_some_and(|at| at <= since)
            };
            let own = index == message.publisher;
            let ordinary = session
                .subscriptions
                .iter()
                .filter(sure)
                .any(|one| !one.is_shared() && one.qos != QoS::AtMostOnce && !(own && one.no_local));
            // It may be over for the broker already if it ends with a connection that is still up for its client.
            let lasts = session.durable && session.expiry_s > 0;
            if ordinary && reason == ReasonCode::NoMatchingSubscribers && lasts {
                panic!(
                    "message {id} was answered with \"no matching subscribers\", but client {index} is subscribed"
                );
            }
            let told = if session.durable { self.is_v5[index] || !skipping } else { !self.small_queues };
            if ordinary && told && !session.has(id) {
                session.owed.insert(id);
            }
            groups.extend(
                session.subscriptions.iter().filter(sure).filter(|one| one.is_shared()).map(|one| one.filter),
            );
        }
        for group in groups {
            let steady = self.unsteady.get(group).is_none_or(|last| *last < since);
            let begun =
                message.qos == QoS::ExactlyOnce && self.ended.get(group).is_some_and(|at| *at >= since);
            if steady && !begun && !self.arrived.contains(&id) && !skipping {
                self.group_debts.push(GroupDebt { message: id, group });
            }
        }
    }

    /// A connection is over, for all that its client knows.
    pub fn connection_over(&mut self, client: usize, now: UnixMs) {
        self.session_ends(client);
        let session = &self.sessions[client];
        if session.expiry_s == 0 {
            let groups = session.subscriptions.iter().filter(|one| one.is_shared()).map(|one| one.filter);
            let until = UnixMs(now.0 + CLOCK_MARGIN_MS);
            self.ghosts.push(Ghost { client, until, groups: groups.collect() });
        }
        self.sessions[client].connection_over(now);
        self.judge_groups();
    }

    /// Time passes.
    pub fn time_is(&mut self, now: UnixMs) {
        let before = self.ghosts.len();
        self.ghosts.retain(|ghost| now < ghost.until);
        if self.ghosts.len() != before {
            self.judge_groups();
        }
    }

    /// A client's next session has begun: the broker knows of the end of the last.
    pub fn session_begins(&mut self, client: usize) {
        self.ghosts.retain(|ghost| ghost.client != client);
    }

    /// A session may end: a message that its client had through a shared subscription goes to another member.
    pub fn session_ends(&mut self, client: usize) {
        let shared: Vec<&Subscription> =
            self.sessions[client].subscriptions.iter().filter(|one| one.is_shared()).collect();
        if !shared.is_empty() {
            self.departed = self.tick;
        }
        let exactly_once = shared.iter().filter(|one| one.qos == QoS::ExactlyOnce);
        self.perhaps_ended.extend(exactly_once.map(|one| (client, one.filter)));
    }

    /// The broker has said that there is no session: what was begun at QoS 2 has ended with it [MQTT-4.8.2-5].
    pub fn session_has_ended(&mut self, client: usize) {
        let Oracle { perhaps_ended, ended, group_debts, messages, .. } = self;
        for (_, group) in perhaps_ended.extract_if((client, "")..(client + 1, ""), |_| true) {
            ended.insert(group, self.tick);
            group_debts.retain(|debt| {
                debt.group != group || messages[debt.message as usize].qos != QoS::ExactlyOnce
            });
        }
    }

    /// Something about a session changed: groups without a steady member are owed nothing any more.
    pub fn judge_groups(&mut self) {
        for group in SHARED {
            let haunted = self.ghosts.iter().any(|ghost| ghost.groups.contains(group));
            let was_steady = self.steady.remove(group);
            let steady = !haunted && group_is_steady(&self.sessions, group);
            if steady {
                self.steady.insert(group);
            }
            if !steady || !was_steady {
                self.unsteady.insert(group, self.tick);
                self.group_debts.retain(|debt| debt.group != *group);
            }
        }
    }

    /// Some client has got a message.
    fn arrives(&mut self, id: MessageId) -> Tick {
        self.deliveries += 1;
        self.arrived.insert(id);
        self.group_debts.retain(|debt| debt.message != id);
        self.moment()
    }

    /// A client has got a message, for the first time as far as its packet identifiers can tell.
    pub fn delivered(
        &mut self,
        client: usize,
        id: MessageId,
        topic: &str,
        qos: QoS,
        retained: bool,
        dup: bool,
    ) {
        let tick = self.arrives(id);
        let Some(message) = self.messages.get(id as usize) else {
            panic!("client {client} got message {id}, which nobody sent");
        };
        assert_eq!(message.topic, topic, "message {id} reached client {client} on another topic");
        assert!(
            qos <= message.qos,
            "message {id} reached client {client} at a higher QoS than it was sent at"
        );
        let session = &mut self.sessions[client];
        let routes = session.routes(message, qos);
        assert!(
            routes > 0,
            "client {client} got message {id} ({topic}, {qos:?}), but has no subscription that was in force since"
        );
        session.owed.remove(&id);
        if retained {
            assert!(message.retain, "message {id} came as a retained one, but was not sent as one");
            session.got_retained.insert(id);
            return;
        }
        let handed_on = session.may_share(topic) && self.departed >= message.first_sent;
        let copies = session.got.entry(id).or_default();
        copies.count += 1;
        let first = copies.count == 1;
        copies.exactly_once += u32::from(qos == QoS::ExactlyOnce);
        if message.kind == Kind::Will {
            return;
        }
        assert!(
            copies.exactly_once <= routes || handed_on,
            "client {client} got message {id} ({topic}) {} times at QoS 2 by {routes} subscription(s){}",
            copies.exactly_once,
            if dup { ", the last marked as a repeat" } else { "" }
        );
        if first && !session.may_share(topic) {
            let stream = (message.publisher, message.topic, message.qos as u8, qos as u8);
            let own = client == message.publisher;
            let last = session.order.get(&stream).copied().unwrap_or(0);
            // The first copy may have expired or found the queue full, and a repeat not.
            let changed = message.last_sent > message.first_sent
                && (self.small_queues || message.expires != UnixMs::NEVER);
            // Who subscribes later may get a repeat, or what is routed again after a crash.
            assert!(
                last <= id || changed || !session.subscribed_since(topic, message.first_sent, own),
                "client {client} got message {id} of client {} on {topic} after the later message {last}",
                message.publisher
            );
            session.order.insert(stream, last.max(id));
        }
        if let (QoS::AtLeastOnce, Kind::Ordinary, Some(answered)) =
            (message.qos, message.kind, message.answered)
        {
            let known = session.requested_before(topic, answered);
            assert!(
                known,
                "client {client} got message {id}, answered at #{answered}, though it subscribed later (#{tick})"
            );
        }
    }

    /// What is still owed, as text; expired messages and told gaps are not.
    pub fn debts(&self, now: UnixMs) -> Vec<String> {
        let mut debts = Vec::new();
        for (client, session) in self.sessions.iter().enumerate() {
            let missing: Vec<MessageId> =
                session.owed.iter().copied().filter(|id| self.messages[*id as usize].expires > now).collect();
            if missing.len() > session.gaps_told as usize {
                debts.push(format!(
                    "client {client} is owed {missing:?} and was told of {} gap(s)",
                    session.gaps_told
                ));
            }
        }
        let groups =
            self.group_debts.iter().filter(|debt| self.messages[debt.message as usize].expires > now);
        debts.extend(groups.map(|debt| format!("nobody of {} got message {}", debt.group, debt.message)));
        debts
    }
}

/// Whether the group has a member that stays, and none that may lose messages: by its end, or at QoS 0.
fn group_is_steady(sessions: &[Session], group: &str) -> bool {
    let mut steady = false;
    for session in sessions {
        for one in session.subscriptions.iter().filter(|one| one.filter == group && one.ended.is_none()) {
            let passing = !session.durable && session.existence != Existence::None;
            if passing || one.qos == QoS::AtMostOnce {
                return false;
            }
            steady |= one.sure_since.is_some()
                && session.existence == Existence::Sure
                && session.expiry_s == u32::MAX;
        }
    }
    steady
}

/// What a session got of one message.
#[derive(Clone, Copy, Debug, Default)]
pub struct Copies {
    pub count: u32,
    pub exactly_once: u32,
}

/// What a session got, by message.
pub type Got = BTreeMap<MessageId, Copies>;
