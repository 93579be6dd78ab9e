//! What one old shard holds, record by record, into the shards where it is at home from now on.
//!
//! The broker itself says what is live: its replay of the old journal ends with the exact set of records that matter
//! and their facts (`live`), the same that a checkpoint would write down. Each of them is read back in order and becomes
//! what says the same of the new shards:
//!
//! - a session, its subscriptions, will, gap and packet ids go to the home of its account, under a new key;
//! - a message becomes one record per shard where somebody still has to get it, with those recipients. All entries of a
//!   session come from one old shard, in the order of its records, so its queue keeps its order;
//! - a retained message goes to the owner of its topic;
//! - what is used up of a rate limit goes to the home of whose it is;
//! - a QoS 2 message that is routed, and whose packet id is not free, leaves that packet id, noted as routed.
//!
//! Not carried: what is dead, what belongs to sessions that are over, and keys of QoS 2 messages. A key says that *this
//! shard* has its copies. Where two shards become one, of which only one had them, or one becomes two, there is no such
//! answer; so every message has to be routed to its end before (`Rehoming::unrouted` is 0), and then no key matters.
//!
//! Where every shard stays what it is (`salvage`), a key keeps its meaning, and messages may be under way: first all
//! shards `carry_inbound`, which says under which number each message is routed from now on, and then what has its key in
//! any shard follows with the new one (`carry`). Who is on a list with a key says who has had the message, so such a list is
//! carried whole, with no session for those who are done. What an ended session was handing on has keys as well: if
//! another shard has it, the session has not.

use std::collections::{BTreeMap, BTreeSet};

use crate::broker::Broker;
use crate::broker::effect::{Effect, Effects};
use crate::broker::input::Input;
use crate::broker::settings::Settings;
use crate::ids::{ConnectionId, Lsn, OriginKey, SessionKey, ShardId};
use crate::journal::{Journal, JournalError, Storage};
use crate::live::{self, Facts, LiveSet};
use crate::placement::Placement;
use crate::record::{Recipient, Recipients, Record};
use crate::time::Now;
use crate::wire::QoS;

/// An old journal.
pub trait Source {
    /// Every record that is needed, in order. Once.
    fn replay(&mut self, apply: &mut dyn FnMut(Lsn, Record<'_>, Facts<'_>)) -> Result<(), JournalError>;

    /// One of them again.
    fn read(&mut self, lsn: Lsn, apply: &mut dyn FnMut(Record<'_>)) -> Result<(), JournalError>;
}

impl<S: Storage> Source for Journal<S> {
    fn replay(&mut self, apply: &mut dyn FnMut(Lsn, Record<'_>, Facts<'_>)) -> Result<(), JournalError> {
        if self.last_lsn().is_some() {
            Journal::replay(self, apply)?;
        }
        Ok(())
    }

    fn read(&mut self, lsn: Lsn, apply: &mut dyn FnMut(Record<'_>)) -> Result<(), JournalError> {
        Journal::read(self, lsn, apply)
    }
}

/// The new journals.
pub trait Sink {
    /// Append to the journal of that shard; the record's number there.
    fn append(&mut self, shard: ShardId, record: &Record<'_>) -> Result<Lsn, JournalError>;
}

/// What a new shard has got.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Sessions that are not over.
    pub sessions: u64,
    /// Entries in all their queues.
    pub queued: u64,
    /// Retained messages.
    pub retained: u64,
}

impl Totals {
    /// As a broker counts them.
    pub fn held(&self) -> (u64, u64) {
        (self.sessions, self.queued)
    }
}

/// Re-homes old shards, one after the other.
#[derive(Debug)]
pub struct Rehoming {
    to: Placement,
    /// By new shard.
    keys: Vec<SessionKey>,
    totals: Vec<Totals>,
    unrouted: u64,
    /// Keys of QoS 2 messages that go on being routed: the old one, and the new.
    routes: BTreeMap<OriginKey, OriginKey>,
    /// Old keys of which a shard that was surveyed has a list.
    placed: BTreeSet<OriginKey>,
}

impl Rehoming {
    /// To shards with nothing in them yet.
    pub fn new(to: Placement) -> Rehoming {
        let shards = usize::from(to.shards());
        Rehoming {
            to,
            keys: vec![SessionKey::NONE; shards],
            totals: vec![Totals::default(); shards],
            unrouted: 0,
            routes: BTreeMap::new(),
            placed: BTreeSet::new(),
        }
    }

    /// What each new shard has got so far.
    pub fn totals(&self) -> &[Totals] {
        &self.totals
    }

    /// Messages that were still to be routed. Nothing else is lost, but these are: what was made must not be used.
    pub fn unrouted(&self) -> u64 {
        self.unrouted
    }

    /// Messages that go on being routed: those that were carried so.
    pub fn under_way(&self) -> u64 {
        self.routes.len() as u64
    }

    /// One old shard: `settings` are those of its broker.
    pub fn shard(
        &mut self,
        settings: Settings,
        shard: ShardId,
        source: &mut impl Source,
        sink: &mut impl Sink,
    ) -> Result<(), JournalError> {
        let mut old = self.survey(settings, shard, source)?;
        self.carry(&mut old, source, sink)
    }

    /// See what is live in an old shard.
    pub fn survey(
        &mut self,
        settings: Settings,
        shard: ShardId,
        source: &mut impl Source,
    ) -> Result<Old, JournalError> {
        let mut broker = Broker::new(settings, shard);
        let (mut homes, mut ended) = (BTreeMap::new(), BTreeSet::new());
        // Records that speak of the body of another; that have a key; that are one.
        let (mut users, mut placed, mut handed_on) = (Vec::new(), Vec::new(), BTreeMap::new());
        source.replay(&mut |lsn, record, facts| {
            match record {
                Record::Session { key, account, client_id, .. } => {
                    let name = if account.is_empty() { client_id } else { account };
                    homes.insert(key, self.to.home(name));
                }
                Record::SessionEnded { key, .. } => {
                    ended.insert(key);
                }
                Record::Deliver { .. } | Record::Retained { .. } | Record::Sent { .. } => users.push(lsn),
                Record::Message { origin: Some(key), recipients, .. } if !recipients.is_empty() => {
                    placed.push((lsn, key));
                }
                Record::HandedOn { list, place } => {
                    handed_on.insert((list, place), lsn);
                }
                _ => {}
            }
            broker.handle(Now::default(), Input::Replay { lsn, record, facts }, &mut NoEffects);
        })?;
        let live = broker.into_live();
        let placed = placed.into_iter().filter(|(lsn, _)| live.contains(*lsn));
        self.placed.extend(placed.map(|(_, key)| key));
        handed_on.retain(|_, lsn| live.contains(*lsn));
        let mut old = Old { shard, homes, ended, handed_on, ..Old::default() };
        for lsn in users.into_iter().filter(|lsn| live.contains(*lsn)) {
            old.note_user(lsn, source, &self.to)?;
        }
        Ok(Old { live, ..old })
    }

    /// QoS 2 messages that came to an old shard and are still to be routed, or whose packet ids are taken, to the same
    /// shard. Before `carry` for any.
    pub fn carry_inbound(
        &mut self,
        old: &mut Old,
        source: &mut impl Source,
        sink: &mut impl Sink,
    ) -> Result<(), JournalError> {
        let (unrouted, taken) = (old.live.unrouted_from(Lsn::NONE), old.live.taken_from(Lsn::NONE));
        let inbound: BTreeSet<Lsn> = unrouted.chain(taken).collect();
        for lsn in inbound {
            let mut result = Ok(());
            source.read(lsn, &mut |record| result = self.inbound(old, lsn, &record, sink))?;
            result?;
        }
        Ok(())
    }

    fn inbound(
        &mut self,
        old: &mut Old,
        lsn: Lsn,
        record: &Record<'_>,
        sink: &mut impl Sink,
    ) -> Result<(), JournalError> {
        let Record::Inbound { key, packet_id, body } = *record else {
            unreachable!("only `Inbound` records are routed, and only theirs are packet ids that are taken")
        };
        let (shard, Facts { routed, released, .. }) = (old.shard, old.live.facts(lsn));
        let session = if old.ended.contains(&key) { None } else { self.session(old, key) };
        let session = session.filter(|(home, _)| *home == shard);
        if routed && session.is_none() {
            return Ok(());
        }
        // Whoever it was, the message goes on.
        let key = session.map_or(SessionKey::NONE, |(_, key)| key);
        let inbound = sink.append(shard, &Record::Inbound { key, packet_id, body })?;
        old.carried.insert(lsn);
        if routed {
            // For whoever needs its body, that goes where it did: behind this, no `Retained` finds it any more.
            sink.append(shard, &Record::Routed { inbound })?;
        } else {
            old.bodies.insert((lsn, shard), inbound);
            self.routes.insert(OriginKey { shard, lsn }, OriginKey { shard, lsn: inbound });
            old.keyed.insert(lsn);
        }
        if released && session.is_some() {
            sink.append(shard, &Record::Released { key, packet_id })?;
        }
        Ok(())
    }

    /// Everything else that is live there.
    pub fn carry(
        &mut self,
        old: &mut Old,
        source: &mut impl Source,
        sink: &mut impl Sink,
    ) -> Result<(), JournalError> {
        let live = std::mem::take(&mut old.live);
        for (number, bits) in live.chunks_from(0) {
            for lsn in live::lsns(number, bits) {
                let mut result = Ok(());
                source.read(lsn, &mut |record| {
                    result = self.record(old, (lsn, &record, live.facts(lsn)), sink);
                })?;
                result?;
            }
        }
        Ok(())
    }

    fn record(
        &mut self,
        old: &mut Old,
        (lsn, record, facts): (Lsn, &Record<'_>, Facts<'_>),
        sink: &mut impl Sink,
    ) -> Result<(), JournalError> {
        match *record {
            Record::Message { .. } => self.message(old, (lsn, record, facts), sink),
            Record::Inbound { key, packet_id, body } => {
                if !old.carried.contains(&lsn) {
                    self.unrouted += u64::from(!facts.routed);
                    if !facts.released
                        && let Some((home, key)) = self.session(old, key)
                    {
                        let inbound = sink.append(home, &Record::Inbound { key, packet_id, body })?;
                        sink.append(home, &Record::Routed { inbound })?;
                    }
                }
                let message = Record::Message { body, origin: None, recipients: Recipients::EMPTY };
                self.message(old, (lsn, &message, facts), sink)
            }
            Record::Deliver { message, recipients } => {
                let keyed = old.keyed.contains(&message);
                let mut lists = self.list(old, (lsn, recipients, facts), keyed);
                if lists.is_empty() && keyed {
                    // It says that the message was placed here.
                    lists.insert(old.shard, List::default());
                }
                for (home, list) in lists {
                    let body = old.body(message, home);
                    let record = Record::Deliver { message: body, recipients: list.recipients() };
                    let new = sink.append(home, &record)?;
                    old.note_list(lsn, &list, home, new);
                }
                Ok(())
            }
            Record::DeliveryBegun { list, place, packet_id } => {
                if let Some((home, list, place)) = old.lists.get(&(list, place)).copied() {
                    sink.append(home, &Record::DeliveryBegun { list, place, packet_id })?;
                }
                Ok(())
            }
            // The session is over, and hands on again, under a new key, what no other shard has yet (`list`).
            Record::HandedOn { .. } => Ok(()),
            Record::Retained { message } => {
                let home = old.owners[&lsn];
                self.totals[home.index()].retained += 1;
                sink.append(home, &Record::Retained { message: old.body(message, home) })?;
                Ok(())
            }
            Record::Spent { account, client_id, .. } => {
                let home = self.to.home(if account.is_empty() { client_id } else { account });
                sink.append(home, record)?;
                Ok(())
            }
            _ => self.of_session(old, record, sink),
        }
    }

    /// A record of nothing but a session.
    fn of_session(
        &mut self,
        old: &mut Old,
        record: &Record<'_>,
        sink: &mut impl Sink,
    ) -> Result<(), JournalError> {
        let mut mapped = *record;
        let key = match &mut mapped {
            Record::Session { key, .. }
            | Record::Disconnected { key, .. }
            | Record::WillGone { key }
            | Record::SessionEnded { key, .. }
            | Record::Subscribed { key, .. }
            | Record::Unsubscribed { key, .. }
            | Record::Sent { key, .. }
            | Record::Received { key, .. }
            | Record::Gap { key, .. } => key,
            other => unreachable!("{other:?} is never live"),
        };
        let Some((home, new)) = self.session(old, *key) else { return Ok(()) };
        let old_key = std::mem::replace(key, new);
        match &mut mapped {
            Record::Session { .. } => {
                self.totals[home.index()].sessions += u64::from(old.named.insert(old_key));
            }
            Record::SessionEnded { .. } => {
                self.totals[home.index()].sessions -= u64::from(old.named.remove(&old_key));
            }
            Record::Sent { message, .. } => *message = old.body(*message, home),
            _ => {}
        }
        sink.append(home, &mapped)?;
        Ok(())
    }

    /// A body, where somebody has to get it, and where something speaks of it later.
    fn message(
        &mut self,
        old: &mut Old,
        (lsn, record, facts): (Lsn, &Record<'_>, Facts<'_>),
        sink: &mut impl Sink,
    ) -> Result<(), JournalError> {
        let Record::Message { body, origin, recipients } = *record else {
            unreachable!("called with a `Message`")
        };
        let origin = origin.and_then(|origin| self.routes.get(&origin).copied());
        let mut lists = self.list(old, (lsn, recipients, facts), origin.is_some());
        if origin.is_some() {
            let _ = lists.entry(old.shard).or_default();
            old.keyed.insert(lsn);
            old.needed.insert((lsn, old.shard));
        }
        let needed: Vec<ShardId> = old.needed_of(lsn).collect();
        for home in needed.into_iter().filter(|home| !old.bodies.contains_key(&(lsn, *home))) {
            let _ = lists.entry(home).or_default();
        }
        for (home, list) in lists {
            let origin = origin.filter(|_| home == old.shard);
            let new = sink.append(home, &Record::Message { body, origin, recipients: list.recipients() })?;
            old.note_list(lsn, &list, home, new);
            if old.needed.contains(&(lsn, home)) {
                old.bodies.insert((lsn, home), new);
            }
        }
        Ok(())
    }

    /// Those who still have to get something, by their new home; if it has a key, the others too.
    fn list(
        &mut self,
        old: &mut Old,
        (lsn, recipients, facts): (Lsn, Recipients<'_>, Facts<'_>),
        keyed: bool,
    ) -> BTreeMap<ShardId, List> {
        let mut lists: BTreeMap<ShardId, List> = BTreeMap::new();
        let mut all = recipients.iter().peekable();
        let mut place = 0;
        while let Some(first) = all.next() {
            let handed_on =
                old.handed_on.get(&(lsn, place)).map(|lsn| OriginKey { shard: old.shard, lsn: *lsn });
            let is_gone = facts.gone.is_some_and(|gone| gone.contains(place))
                || old.ended.contains(&first.session)
                || handed_on.is_some_and(|key| self.placed.contains(&key));
            let session = if is_gone { None } else { self.session(old, first.session) };
            let list = session.map(|(home, key)| (home, lists.entry(home).or_default(), key));
            let more = std::iter::from_fn(|| all.next_if(|next| next.more));
            match list {
                Some((home, list, session)) => {
                    if first.qos == QoS::ExactlyOnce {
                        list.exactly_once.push((place, list.entries));
                    }
                    list.entries += 1;
                    list.recipients.push(Recipient { session, ..first });
                    list.recipients.extend(more.map(|more| Recipient { session, ..more }));
                    self.totals[home.index()].queued += 1;
                }
                None => {
                    more.for_each(drop);
                    if keyed {
                        let list = lists.entry(old.shard).or_default();
                        list.entries += 1;
                        list.recipients.push(Recipient { session: SessionKey::NONE, ..first });
                    }
                }
            }
            place += 1;
        }
        lists
    }

    /// Where a session is at home, and its key there; none if it was over before the records that speak of it.
    fn session(&mut self, old: &mut Old, key: SessionKey) -> Option<(ShardId, SessionKey)> {
        let home = *old.homes.get(&key)?;
        let next = &mut self.keys[home.index()];
        let new = old.keys.entry(key).or_insert_with(|| {
            next.0 += 1;
            *next
        });
        Some((home, *new))
    }
}

/// The recipients of a message in one new shard.
#[derive(Debug, Default)]
struct List {
    recipients: Vec<Recipient>,
    /// Those without `more`.
    entries: u32,
    /// At QoS 2: the old place and the new one.
    exactly_once: Vec<(u32, u32)>,
}

impl List {
    fn recipients(&self) -> Recipients<'_> {
        (&*self.recipients).into()
    }
}

/// What is known of an old shard. All of it goes with it.
#[derive(Debug, Default)]
pub struct Old {
    shard: ShardId,
    live: LiveSet,
    homes: BTreeMap<SessionKey, ShardId>,
    /// Sessions that are over: what was listed for them behind their end is for nobody.
    ended: BTreeSet<SessionKey>,
    /// The new ones.
    keys: BTreeMap<SessionKey, SessionKey>,
    /// Sessions whose own record was carried, and that are not over.
    named: BTreeSet<SessionKey>,
    /// `Inbound` records that were carried before everything else.
    carried: BTreeSet<Lsn>,
    /// Messages that go on being routed from somewhere: what says that they were placed here is carried.
    keyed: BTreeSet<Lsn>,
    /// `HandedOn` records, by what they speak of.
    handed_on: BTreeMap<(Lsn, u32), Lsn>,
    /// Where something other than its own list needs the body of a record.
    needed: BTreeSet<(Lsn, ShardId)>,
    /// Which record has it there.
    bodies: BTreeMap<(Lsn, ShardId), Lsn>,
    /// Who owns the topic that a `Retained` record speaks of.
    owners: BTreeMap<Lsn, ShardId>,
    /// Entries at QoS 2 by the old list and place: the new ones.
    lists: BTreeMap<(Lsn, u32), (ShardId, Lsn, u32)>,
}

impl Old {
    /// What is live there, until it is carried.
    pub fn live(&self) -> &LiveSet {
        &self.live
    }

    /// A record speaks of the body of another: where that will be needed.
    fn note_user(&mut self, lsn: Lsn, source: &mut impl Source, to: &Placement) -> Result<(), JournalError> {
        let mut retained = None;
        source.read(lsn, &mut |record| match record {
            Record::Deliver { message, recipients } => {
                let homes = recipients.iter().filter_map(|recipient| self.homes.get(&recipient.session));
                self.needed.extend(homes.map(|home| (message, *home)));
            }
            Record::Sent { key, message, .. } => {
                self.needed.extend(self.homes.get(&key).map(|home| (message, *home)));
            }
            Record::Retained { message } => retained = Some(message),
            other => unreachable!("{other:?} has a body of its own, or none"),
        })?;
        let Some(message) = retained else { return Ok(()) };
        source.read(message, &mut |record| {
            let (Record::Message { body, .. } | Record::Inbound { body, .. }) = record else {
                unreachable!("a live `Retained` was replayed, and so names a body")
            };
            let owner = to.owner(body.topic);
            self.needed.insert((message, owner));
            self.owners.insert(lsn, owner);
        })
    }

    fn needed_of(&self, lsn: Lsn) -> impl Iterator<Item = ShardId> {
        self.needed.range((lsn, ShardId(0))..=(lsn, ShardId(u16::MAX))).map(|(_, shard)| *shard)
    }

    fn body(&self, message: Lsn, home: ShardId) -> Lsn {
        *self.bodies.get(&(message, home)).expect("what a live record speaks of is live, and comes before it")
    }

    fn note_list(&mut self, old: Lsn, list: &List, home: ShardId, new: Lsn) {
        for (place, new_place) in &list.exactly_once {
            self.lists.insert((old, *place), (home, new, *new_place));
        }
    }
}

/// Replay may say that something does not fit; nothing else is there to be done.
pub(super) struct NoEffects;

impl Effects for NoEffects {
    fn perform(&mut self, effect: Effect<'_>) {
        assert!(matches!(effect, Effect::Log(_)), "replay acts on nothing: {effect:?}");
    }

    fn room(&self, _: ConnectionId) -> usize {
        0
    }

    fn mesh_room(&self, _: ShardId) -> bool {
        false
    }

    fn mesh_deliver_room(&self, _: ShardId) -> bool {
        false
    }
}
