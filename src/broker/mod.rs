//! The deterministic heart: decides, and does nothing else.
//!
//! A `Broker` is a plain value. It has no clock, no I/O, no thread and no randomness: what it needs to know comes in
//! as an [`Input`] with the time, what it wants done goes out as an [`Effect`]. The same inputs yield the same effects,
//! so a test or a simulator can drive it in one line and a journal can rebuild it by replaying records through the
//! same door.
//!
//! Calls are of three kinds:
//! - `handle` takes one input and yields at most a constant number of effects;
//! - `advance` *pulls* everything plural (fan-out, deliveries, retained messages, released acknowledgements) at the
//!   pace of its budget, fairly between connections;
//! - the questions (`next_deadline`, `oldest_live`, `live`, `names`, `spent`, `ready`, `drained`) change nothing.
//!
//! State is split by lifetime: `connection` < `session` < shard. What happens to a PUBLISH reads in this order:
//! `publish` (taken from a client) → `place` (who gets it) → `delivery` (sent to each) → `acknowledge` (each says so)
//! → `settle` (the sender is answered). The invariants that must hold at every moment are asserted where they are
//! made; I1, I6, I10, I11 and I13 of the journal's list are kept here.
//!
//! What of the journal is still needed is said as things happen (`needs`): replaying those records alone, with their
//! facts, gives the state that replaying all of them would.
#![forbid(unsafe_code)]

pub mod effect;
pub mod input;
pub mod route;
pub mod settings;
pub mod subscriptions;

mod acknowledge;
mod await_durable;
mod connect;
mod connection;
mod costly;
mod delivery;
mod disconnect;
mod expiry;
mod few;
mod hand_on;
mod interest;
mod keep_alive;
mod mesh;
mod messages;
mod missed;
mod needs;
mod origins;
pub mod overload;
mod pace;
mod place;
mod postponed;
mod publish;
mod replay;
mod replay_messages;
mod retained;
mod retained_pull;
mod rights;
mod session;
mod session_end;
mod settle;
mod spent;
mod statistics;
mod stored;
mod subscribe;
mod subscription_ids;
mod timers;
mod transmit;
mod unwritten;
mod will;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use effect::{Effect, Effects};
use input::Input;
use settings::Settings;

use self::await_durable::AwaitDurable;
use self::connect::Name;
use self::connection::{Connection, Connections};
use self::costly::Costly;
use self::interest::Announcement;
use self::keep_alive::KeepAlive;
use self::mesh::Outbox;
use self::messages::Messages;
use self::missed::Missed;
use self::needs::Notes;
use self::origins::Origins;
use self::overload::{Overload, Step};
use self::pace::Pace;
use self::place::Placing;
use self::postponed::Postponed;
use self::retained::Retained;
use self::retained_pull::RetainedPulls;
use self::rights::Rights;
use self::session::{PendingWill, Sessions, SpareDeliveries};
use self::session_end::{Ending, Ends};
use self::settle::Held;
use self::spent::Spent;
use self::statistics::Statistics;
use self::stored::Storing;
use self::subscribe::PendingSubacks;
use self::subscription_ids::SubscriptionIds;
use self::subscriptions::Subscriptions;
use self::timers::Timers;
use self::unwritten::Unwritten;
use crate::ids::{ConnectionId, Lsn, SessionKey, ShardId};
use crate::live::LiveSet;
use crate::record::Record;
use crate::time::{Nanos, Now};
use crate::wire::{Packet, ReasonCode};

/// The broker of one shard. See the module documentation.
#[derive(Debug)]
pub struct Broker {
    settings: Settings,
    shard: ShardId,
    /// The time of the present call.
    now: Now,
    /// The last record appended.
    lsn: Lsn,
    /// Every record up to here is on disk.
    durable: Lsn,
    live: LiveSet,
    notes: Notes,
    connections: Connections,
    keep_alive: KeepAlive,
    sessions: Sessions,
    spare_deliveries: SpareDeliveries,
    wills: BTreeMap<SessionKey, PendingWill>,
    ending: VecDeque<Ending>,
    /// Ended sessions whose record waits for that many entries to arrive elsewhere.
    departing: BTreeMap<SessionKey, u32>,
    handed_on: hand_on::Notes,
    ends: Ends,
    subscriptions: Subscriptions,
    subscription_ids: SubscriptionIds,
    subacks: PendingSubacks,
    /// Filters with a subscriber here that every shard has to know.
    broad_filters: usize,
    messages: Messages,
    retained: Retained,
    /// When the first retained message expires, or one that is gone would have.
    look_at_retained_at: Nanos,
    retained_pulls: RetainedPulls,
    spent: Spent,
    rights: Rights,
    placing: Placing,
    missed: Missed,
    pace: Pace,
    costly: Costly,
    overload: Overload,
    held: VecDeque<Held>,
    unwritten: Unwritten,
    awaiting: AwaitDurable,
    storing: Storing,
    /// Slots of sessions that may have something to send.
    ready: VecDeque<u32>,
    /// Sessions that wait for a body to be read back, by its record.
    fetching: BTreeMap<Lsn, transmit::Fetch>,
    outbox: Outbox,
    origins: Origins,
    postponed: Postponed,
    announcement: Announcement,
    replay: Option<Box<replay::Replay>>,
    /// Messages to be routed again, in order.
    restored: VecDeque<u32>,
    timers: Timers,
    statistics: Statistics,
    disk_reserve_reached: bool,
    draining: Option<u32>,
    /// How often `advance` has to look through everything though the last time it found nothing more to do.
    looks: u8,
    /// When it has something to do all the same.
    due_at: Nanos,
}

/// Looks after the last input: what comes last in one (a session that is to end, an entry that is placed) may be what
/// something before it waits for.
const LOOKS: u8 = 2;

impl Broker {
    /// A broker that has seen nothing yet. Replay comes first, also if there is nothing to replay.
    pub fn new(settings: Settings, shard: ShardId) -> Broker {
        let hash_key = settings.hash_key;
        Broker {
            shard,
            now: Now::default(),
            lsn: Lsn::NONE,
            durable: Lsn::NONE,
            live: LiveSet::default(),
            notes: Notes::default(),
            connections: Connections::default(),
            keep_alive: KeepAlive::default(),
            sessions: Sessions::new(hash_key),
            spare_deliveries: SpareDeliveries::default(),
            wills: BTreeMap::new(),
            ending: VecDeque::new(),
            departing: BTreeMap::new(),
            handed_on: BTreeMap::new(),
            ends: Ends::default(),
            subscriptions: Subscriptions::new(hash_key),
            subscription_ids: SubscriptionIds::default(),
            subacks: PendingSubacks::default(),
            broad_filters: 0,
            messages: Messages::new(settings.resident_bytes_max),
            retained: Retained::new(),
            look_at_retained_at: Nanos::NEVER,
            retained_pulls: RetainedPulls::default(),
            spent: Spent::new(settings.spent_max),
            rights: Rights::new(Arc::clone(&settings.permissions)),
            placing: Placing::default(),
            missed: Missed::default(),
            pace: Pace::default(),
            costly: Costly::default(),
            overload: Overload::default(),
            held: VecDeque::new(),
            unwritten: Unwritten::default(),
            awaiting: AwaitDurable::default(),
            storing: Storing::default(),
            ready: VecDeque::new(),
            fetching: BTreeMap::new(),
            outbox: Outbox::new(settings.placement.shards()),
            origins: Origins::new(settings.placement.shards()),
            postponed: Postponed::default(),
            announcement: Announcement::new(settings.placement.shards()),
            replay: Some(Box::default()),
            restored: VecDeque::new(),
            timers: Timers::default(),
            statistics: Statistics::default(),
            disk_reserve_reached: false,
            draining: None,
            looks: LOOKS,
            due_at: Nanos::NEVER,
            settings,
        }
    }

    /// Take one input.
    pub fn handle(&mut self, now: Now, input: Input<'_>, effects: &mut impl Effects) {
        self.now = now;
        // A ping is most of what most clients ever say. It is answered at once.
        if !matches!(input, Input::Packet { packet: Packet::Pingreq, .. }) {
            self.looks = LOOKS;
        }
        match input {
            Input::Connect { connection, connect, client_id, assigned, account, passport, peer: _ } => {
                let name = Name { account, client_id, assigned };
                self.connect(connection, connect, &name, passport, effects);
            }
            Input::Packet { connection, packet } => self.packet(connection, packet, None, effects),
            Input::Large { connection, packet, body } => {
                self.packet(connection, packet, Some(body), effects);
            }
            Input::Heard { connection } => self.keep_alive.heard(connection, now.mono),
            Input::Refused { connection, packet: Packet::Subscribe(subscribe) } => {
                self.keep_alive.heard(connection, now.mono);
                self.subscribe(connection, subscribe, Some(ReasonCode::QuotaExceeded), effects);
            }
            Input::Refused { connection, .. } => {
                self.refuse_packet(connection, ReasonCode::MessageRateTooHigh, effects);
            }
            Input::Throttled { connection, on } => self.throttle(connection, on, effects),
            Input::Exceeded { exceeded } => self.statistics.exceeded = exceeded,
            Input::Spent { account, client_id, limit, full_at } => {
                self.spend([account, client_id], limit, full_at, effects);
            }
            Input::Malformed { connection, reason } => self.refuse_packet(connection, reason, effects),
            Input::Closed { connection } => self.connection_lost(connection, effects),
            Input::Drained { connection } => self.output_drained(connection),
            Input::Durable { lsn } => {
                assert!(
                    lsn >= self.durable && lsn <= self.lsn,
                    "the durable mark moves forward over what exists"
                );
                self.durable = lsn;
            }
            Input::Fetched { lsn, body } => self.body_fetched(lsn, &body),
            Input::DiskReserve { reached } => self.disk_reserve_reached = reached,
            Input::Pressure { pressure } => self.feel(&pressure, effects),
            Input::DiskBehind { behind } => self.pace.disk_is_behind = behind,
            Input::Journal { bytes_written, bytes_appended, bytes_copied, syncs } => {
                self.statistics.journal = [bytes_written, bytes_appended, bytes_copied, syncs];
            }
            Input::Mesh { from, message } => self.mesh_message(from, message, effects),
            Input::MeshRoom { to } => {
                self.outbox.has_room(to);
                self.retained_pulls.mesh_has_room();
            }
            Input::Replay { lsn, record, facts } => self.replay_record(lsn, &record, &facts),
            Input::Replayed { lsn, session_key_max } => {
                assert!(lsn >= self.lsn, "the newest record is not older than those that were replayed");
                self.lsn = lsn;
                self.durable = lsn;
                self.session_key_is_used(session_key_max);
                self.replayed(effects);
            }
            Input::HoldBack { on } => self.postponed.switch(on),
            Input::Permissions { permissions } => self.permissions_changed(permissions),
            Input::Drain => self.draining = Some(self.draining.unwrap_or(0)),
        }
    }

    /// Do pending plural work worth about `budget` units (a unit is one queue entry touched or one packet sent).
    /// True if more could be done right now.
    pub fn advance(&mut self, now: Now, budget: u32, effects: &mut impl Effects) -> bool {
        // To look at every line of work costs more than a ping, most of it in memory that is not in the cache.
        if now.mono >= self.due_at {
            self.looks = LOOKS;
        } else if self.looks == 0 {
            return false;
        }
        self.now = now;
        let more = self.work(budget, effects);
        self.looks = if more { LOOKS } else { self.looks - 1 };
        self.due_at = self.earliest_deadline();
        more
    }

    fn work(&mut self, budget: u32, effects: &mut impl Effects) -> bool {
        // Half is for deliveries: else publishers who never pause would leave nothing for those who read.
        let mut delivery = Budget(budget / 2);
        let mut budget = Budget(budget - budget / 2);
        self.fire_timers(&mut budget, effects);
        self.sweep_keep_alive(effects);
        self.publish_statistics(effects);
        let mut more = false;
        // What makes messages comes before what places them, and that before what delivers them.
        more |= self.release_durable(&mut budget, effects);
        more |= self.release_held(&mut budget, effects);
        more |= self.take_postponed(&mut budget, effects);
        more |= self.drain_connections(&mut budget, effects);
        more |= self.end_sessions(&mut budget, effects);
        more |= self.judge_connections(&mut budget, effects);
        more |= self.announce_interest(&mut budget, effects);
        more |= self.route_restored(&mut budget, effects);
        // A quarter at most: whoever subscribes without end would leave nothing for those who publish.
        let retained_waits = self.gives_way(Step::RetainedWaits);
        if !retained_waits {
            let mut pulling = Budget(budget.0.div_ceil(4));
            budget.0 -= pulling.0;
            self.pull_retained(&mut pulling, effects);
            budget.0 += pulling.0;
        }
        more |= self.flush_outbox(&mut budget, effects);
        more |= self.place_missed(&mut budget, effects);
        more |= self.place_messages(&mut budget, effects);
        more |= self.resume_publishers(effects);
        more |= self.store_entries(&mut budget);
        delivery.0 += budget.0;
        more |= self.deliver_ready(&mut delivery, effects);
        // Queues may have become shorter just now.
        more || !retained_waits && self.retained_pulls.can_go_on()
    }

    /// When `advance` must be called again at the latest.
    pub fn next_deadline(&self) -> Nanos {
        if self.looks > 0 { self.earliest_deadline() } else { self.due_at }
    }

    fn earliest_deadline(&self) -> Nanos {
        let held = self.held.front().map_or(Nanos::NEVER, |held| held.until);
        held.min(self.timers.next()).min(self.keep_alive.next()).min(self.statistics.next(&self.settings))
    }

    /// Records below this are needed no more.
    pub fn oldest_live(&self) -> Lsn {
        self.live.oldest().unwrap_or(self.lsn.next())
    }

    /// The records that replay would miss, as of the last one appended. What made others dead may not be on disk yet.
    pub fn live(&self) -> &LiveSet {
        &self.live
    }

    /// The same, of a broker that is needed no more.
    pub fn into_live(self) -> LiveSet {
        self.live
    }

    /// Sessions, and entries in all their queues.
    pub fn held(&self) -> (u64, u64) {
        (self.sessions.len() as u64, self.statistics.queued)
    }

    /// Account, which is empty where it is the client id, and client id of a connection.
    pub fn names(&self, id: ConnectionId) -> Option<[&str; 2]> {
        let session = self.sessions.get(self.connections.get(id)?.session);
        Some([session.account(), session.client_id()])
    }

    /// Whether clients may be let in: everything stored is restored, every shard knows who wants what, and what is
    /// routed again is on its way, before anything that its publishers send next.
    pub fn ready(&self) -> bool {
        self.knows_all_interest() && self.restored.is_empty()
    }

    /// Whether recipients can be told: every shard has said what it wants.
    fn knows_all_interest(&self) -> bool {
        self.replay.is_none() && self.announcement.complete()
    }

    /// After `Input::Drain`: whether every client has been told, nothing is on its way to disk, and nothing of this shard
    /// on its way to another: what it accepted at QoS 2 is routed, what ended sessions shared has been handed on.
    pub fn drained(&self) -> bool {
        self.draining.is_some()
            && self.connections.len() == 0
            && self.placing.is_empty()
            && self.held.is_empty()
            && self.ending.is_empty()
            && self.departing.is_empty()
            && self.origins.all_routed()
    }

    /// One packet of a connection, past CONNECT.
    fn packet(
        &mut self,
        id: ConnectionId,
        packet: &Packet<'_>,
        body: Option<&Arc<[u8]>>,
        effects: &mut impl Effects,
    ) {
        let Some(connection) = self.connections.get(id) else { return };
        let version = connection.version;
        self.keep_alive.heard(id, self.now.mono);
        self.statistics.received(packet);
        self.gap_heard(id, effects);
        match packet {
            Packet::Publish(publish) => self.publish(id, publish, body, effects),
            Packet::Ack(ack) => self.acknowledge(id, ack, effects),
            Packet::Subscribe(subscribe) => self.subscribe(id, subscribe, None, effects),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(id, unsubscribe, effects),
            Packet::Pingreq => {
                effects.perform(Effect::Send { connection: id, version, packet: Packet::Pingresp })
            }
            Packet::Disconnect(disconnect) => self.disconnect(id, disconnect, effects),
            // A second CONNECT [MQTT-3.1.0-2], an AUTH without a method agreed on [MQTT-4.12.0-6], or a packet only a
            // server may send.
            Packet::Connect(_)
            | Packet::Auth(_)
            | Packet::Connack(_)
            | Packet::Suback(_)
            | Packet::Unsuback(_)
            | Packet::Pingresp => self.refuse_packet(id, ReasonCode::ProtocolError, effects),
        }
    }

    /// Append a record and return its number.
    fn append(&mut self, record: Record<'_>, effects: &mut impl Effects) -> Lsn {
        self.lsn = self.lsn.next();
        effects.perform(Effect::Append { lsn: self.lsn, record });
        self.lsn
    }

    /// The session's connection, if it has one that may be sent to.
    fn online(&self, session: u32) -> Option<(ConnectionId, &Connection)> {
        let id = self.connections.id_in(self.sessions.get(session).connection)?;
        let connection = self.connections.get(id)?;
        (!connection.awaiting_connack).then_some((id, connection))
    }

    /// The session may have something to send now.
    fn make_ready(&mut self, slot: u32) {
        let session = self.sessions.get_mut(slot);
        if !session.ready && session.connection != session::NO_SLOT && session.delivery.is_some() {
            session.ready = true;
            self.ready.push_back(slot);
        }
    }
}

/// What one `advance` may still do.
#[derive(Debug)]
struct Budget(u32);

impl Budget {
    /// Take one unit; false when there is none left.
    fn take(&mut self) -> bool {
        self.take_many(1)
    }

    /// Take some units at once; the last of them may overdraw.
    fn take_many(&mut self, units: u32) -> bool {
        if self.0 == 0 {
            return false;
        }
        self.0 = self.0.saturating_sub(units);
        true
    }

    /// As many units as that many bytes of messages count.
    fn take_bytes(&mut self, bytes: usize) {
        self.0 = self.0.saturating_sub((bytes / crate::limits::ADVANCE_BYTES_PER_UNIT) as u32);
    }

    fn is_spent(&self) -> bool {
        self.0 == 0
    }
}
