//! Who gets a message: matching, merging per session, and handing one entry to each queue, a few per call.
//!
//! One task at a time, in order, so that messages of one publisher and topic stay in order. Matching copies the
//! handles of the matching subscriptions once; queueing them is pulled by budget; then one request goes to each other
//! interested shard, waiting for room there if need be.
//!
//! What only this shard has to do stands in a line of its own, so that it never waits for what has to wait: an owner
//! waits for room at a shard that itself waits for ours, and only the deliveries that both have done make that room.
//! A topic has one owner, so the two lines do not disturb its order.

use std::collections::VecDeque;

use super::delivery::{Copy, Taken};
use super::effect::{Effect, Effects, Event};
use super::messages::Sender;
use super::route::{Audience, MeshMessage};
use super::subscriptions::{Entry, FilterId, Grant, group_tag};
use super::{Broker, Budget};
use crate::content::Content;
use crate::ids::{SessionKey, ShardId};
use crate::wire::{QoS, ReasonCode};

/// Whom a task is for.
#[derive(Debug)]
pub(super) enum Scope {
    /// This shard owns the topic: everyone, everywhere.
    Owner,
    /// The owner asked: these subscriptions of this shard.
    Here(Audience),
    /// The owner, for one shared subscription only (`$share/GROUP/FILTER`).
    Group(Box<str>),
    /// One session of this shard: a retained message for a new subscription. The key, because its slot may be another
    /// session's by then.
    Session(Match, SessionKey),
}

/// A message to be placed.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) message: u32,
    pub(super) scope: Scope,
}

/// A session that gets a copy, by one subscription.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Match {
    pub(super) session: u32,
    pub(super) grant: Grant,
    /// The shared subscription that it is by; the session has it until the match is served or chosen anew.
    pub(super) group: Option<FilterId>,
}

/// In which line a session was chosen that has left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chosen {
    here: bool,
    everywhere: bool,
}

/// Tasks in order, and the state of the first.
#[derive(Debug, Default)]
struct Line {
    queue: VecDeque<Task>,
    /// The first task has been matched.
    matched: bool,
    /// Its matches, sorted by session; `next` is the first not yet queued.
    matches: Vec<Match>,
    next: usize,
    /// Some durable recipient cannot be expected to acknowledge at once.
    urgent: bool,
    /// Durable ordinary recipients that had no room for it.
    skipped: Vec<u32>,
    /// Other shards that are interested, and in what.
    remote: Vec<(ShardId, Audience)>,
    /// Shared subscriptions that the owner asked for and that have no member here any more.
    missed: Vec<Box<str>>,
}

/// The two lines, and which of them is being worked on.
#[derive(Debug, Default)]
pub(super) struct Placing {
    /// Tasks for everyone everywhere: they may have to wait for other shards.
    everywhere: Line,
    /// Tasks for sessions of this shard.
    here: Line,
    at_here: bool,
}

impl Line {
    /// Where the matches of a session are that have not been served; found in the order that they have, for a wide
    /// fan-out may be waiting.
    fn waiting_for(&self, session: u32) -> std::ops::Range<usize> {
        let waiting = &self.matches[self.next..];
        let start = waiting.partition_point(|one| one.session < session);
        let end = waiting.partition_point(|one| one.session <= session);
        self.next + start..self.next + end
    }
}

impl Placing {
    pub(super) fn push(&mut self, task: Task) {
        let line = match task.scope {
            Scope::Owner | Scope::Group(_) => &mut self.everywhere,
            Scope::Here(_) | Scope::Session(..) => &mut self.here,
        };
        line.queue.push_back(task);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        self.everywhere.queue.len() + self.here.queue.len()
    }

    /// A session's slot is given back: who was matched and not yet served is no more.
    pub(super) fn forget_session(&mut self, slot: u32) {
        for line in [&mut self.everywhere, &mut self.here] {
            let waiting = line.waiting_for(slot);
            line.matches.drain(waiting);
        }
    }

    /// A session leaves a shared subscription: whether it was chosen for a message in one of the lines (`at_here`), and
    /// has not been served. It is no more.
    fn take_choice(&mut self, at_here: bool, session: u32, group: FilterId) -> bool {
        self.at_here = at_here;
        let line = self.line_mut();
        let waiting = line.waiting_for(session);
        let mine = |one: &Match| one.group == Some(group);
        let Some(index) = line.matches[waiting.clone()].iter().position(mine) else { return false };
        line.matches.remove(waiting.start + index);
        true
    }

    fn line(&self) -> &Line {
        if self.at_here { &self.here } else { &self.everywhere }
    }

    fn line_mut(&mut self) -> &mut Line {
        if self.at_here { &mut self.here } else { &mut self.everywhere }
    }
}

impl Broker {
    /// Place messages, as far as the budget and the other shards' room go. None before every shard has told its
    /// interest: a will that is due at the start, or a QoS 2 message that another shard routes again, would miss those
    /// who have not been heard of.
    pub(super) fn place_messages(&mut self, budget: &mut Budget, effects: &mut impl Effects) -> bool {
        if !self.knows_all_interest() {
            return false;
        }
        // Neither line takes all there is from the other.
        let mut half = Budget(budget.0.div_ceil(2));
        budget.0 -= half.0;
        self.placing.at_here = true;
        let more_here = self.place_line(&mut half, effects);
        budget.0 += half.0;
        self.placing.at_here = false;
        self.place_line(budget, effects) || more_here
    }

    /// One line, as far as that goes.
    fn place_line(&mut self, budget: &mut Budget, effects: &mut impl Effects) -> bool {
        while !self.placing.line().queue.is_empty() {
            if budget.is_spent() {
                return true;
            }
            if !self.placing.line().matched {
                budget.take();
                self.match_first(effects);
            }
            while self.placing.line().next < self.placing.line().matches.len() {
                if !budget.take() {
                    return true;
                }
                self.queue_next_match(effects);
            }
            if !self.ask_other_shards(effects) {
                return false;
            }
            self.finish_first(effects);
        }
        false
    }

    /// Find who is interested in the first task's message.
    fn match_first(&mut self, effects: &mut impl Effects) {
        let line = self.placing.line_mut();
        let Some(task) = line.queue.front() else { return };
        let (message, mut matches) = (task.message, std::mem::take(&mut line.matches));
        matches.clear();
        line.remote.clear();
        line.missed.clear();
        line.next = 0;
        line.urgent = false;
        line.skipped.clear();
        line.matched = true;
        let stored = self.messages.get(message);
        // Routed again after a crash: what ordinary subscribers here were to get is in their queues. Other shards judge for
        // themselves; but who has it of a shared subscription may be anywhere, and is known.
        let repeat = self.origins.placed_before(stored.origin);
        let topic = stored.content.as_ref().map_or("", Content::topic);
        let mut groups: Vec<FilterId> = Vec::new();
        let Line { queue, remote, missed, .. } = self.placing.line_mut();
        let Some(task) = queue.front() else { return };
        match &task.scope {
            Scope::Owner => self.subscriptions.walk(topic, |filter, entry| {
                if entry.is_shared() {
                    groups.push(filter);
                } else {
                    take_ordinary(entry, &mut matches);
                    entry.remote().iter().for_each(|(shard, _)| audience(remote, *shard).ordinary = true);
                }
            }),
            Scope::Here(wanted) => {
                if wanted.ordinary {
                    self.subscriptions.walk(topic, |_, entry| {
                        if !entry.is_shared() {
                            take_ordinary(entry, &mut matches);
                        }
                    });
                }
                for text in &wanted.shared {
                    match self.subscriptions.find(text) {
                        Some(group) if self.subscriptions.entry(group).members() > 0 => groups.push(group),
                        _ => missed.push(text.clone()),
                    }
                }
            }
            Scope::Group(text) => groups.extend(self.subscriptions.find(text)),
            Scope::Session(one, key) => {
                matches.extend(self.sessions.get_if(one.session, *key).is_some().then_some(*one));
            }
        }
        let here_only = matches!(task.scope, Scope::Here(_));
        let is_for_everyone = matches!(task.scope, Scope::Owner);
        let is_retain_for_owner = is_for_everyone && stored.retain && !repeat;
        if repeat {
            matches.clear();
        }
        if is_for_everyone {
            let shares = self.origins.take_shares(stored.origin);
            self.leave_out(&shares, &mut groups);
        }
        for group in groups {
            self.choose_member(group, here_only, &mut matches);
        }
        sort(&mut matches);
        self.costly.matched(self.messages.get(message).publisher, matches.len());
        self.placing.line_mut().matches = matches;
        if is_retain_for_owner && !self.retain_message(message, effects) && self.sender_can_be_told(message) {
            // Refused as a whole, or the publisher could not be told.
            self.placing.line_mut().matches.clear();
            self.placing.line_mut().remote.clear();
        }
    }

    /// Leave out the shared subscriptions that already have the message. Where two go by the same tag, which one has it is
    /// not known: then none is left out, for that could not be made up for.
    fn leave_out(&self, shares: &[u16], groups: &mut Vec<FilterId>) {
        if shares.is_empty() {
            return;
        }
        let tag = |group: &FilterId| group_tag(self.subscriptions.text(*group));
        let tags: Vec<u16> = groups.iter().map(tag).collect();
        let is_ambiguous = |tag: u16| tags.iter().filter(|one| **one == tag).count() > 1;
        groups.retain(|group| !shares.contains(&tag(group)) || is_ambiguous(tag(group)));
    }

    /// One member of a shared subscription `[MQTT-4.8.2-4]`: shards take turns by their number of members.
    fn choose_member(&mut self, group: FilterId, here_only: bool, matches: &mut Vec<Match>) {
        let turn = self.subscriptions.pick_turn(group);
        let entry = self.subscriptions.entry(group);
        let local = u32::try_from(entry.local().len()).expect("bounded by SESSIONS_PER_SHARD_MAX");
        let elsewhere: u32 =
            if here_only { 0 } else { entry.remote().iter().map(|(_, members)| members).sum() };
        let Some(mut place) = turn.checked_rem(local + elsewhere) else { return };
        if place >= local {
            place -= local;
            for (shard, members) in entry.remote() {
                if place < *members {
                    audience(&mut self.placing.line_mut().remote, *shard).shared.push(entry.text().into());
                    return;
                }
                place -= members;
            }
            return;
        }
        // The one whose turn it is, or the next that is connected.
        let members = entry.local();
        let at = |offset: u32| &members[((place + offset) % local) as usize];
        let chosen = (0..local.min(64)).map(at).find(|member| self.online(member.session).is_some());
        let member = chosen.unwrap_or_else(|| at(0));
        matches.push(Match { session: member.session, grant: member.grant, group: Some(group) });
    }

    /// A session has left a shared subscription: another member takes its place where it was chosen and not yet served.
    pub(super) fn choose_anew(&mut self, chosen: Chosen, text: &str) {
        let lines = [(chosen.here, true), (chosen.everywhere, false)];
        for (_, at_here) in lines.into_iter().filter(|(chosen, _)| *chosen) {
            self.placing.at_here = at_here;
            let group = self.subscriptions.find(text);
            let here = |group: &FilterId| !at_here || self.subscriptions.entry(*group).members() > 0;
            let Some(group) = group.filter(here) else {
                if at_here {
                    self.placing.line_mut().missed.push(text.into());
                }
                continue;
            };
            let line = self.placing.line_mut();
            let mut waiting = line.matches.split_off(line.next);
            self.choose_member(group, at_here, &mut waiting);
            sort(&mut waiting);
            self.placing.line_mut().matches.append(&mut waiting);
        }
    }

    /// Whether a session that leaves a shared subscription was chosen by it and is not served yet; it is not any more.
    pub(super) fn take_choices(&mut self, session: u32, group: FilterId) -> Chosen {
        let here = self.placing.take_choice(true, session, group);
        Chosen { here, everywhere: self.placing.take_choice(false, session, group) }
    }

    /// Queue the message for the next session, with everything its subscriptions say taken together.
    fn queue_next_match(&mut self, effects: &mut impl Effects) {
        let message = self.placing.line().queue.front().expect("a task is being placed").message;
        let first = self.placing.line().matches[self.placing.line().next];
        let publisher = self.messages.get(message).publisher;
        let published = (self.messages.get(message).qos, self.messages.get(message).retain);
        let for_new_subscription = matches!(self.placing.line().queue[0].scope, Scope::Session(..));
        let mut qos: Option<QoS> = None;
        let mut retain = for_new_subscription;
        let mut ids: [u32; 16] = [0; 16];
        let mut id_count = 0;
        let shared = first.group.is_some();
        while let Some(one) = self.placing.line().matches.get(self.placing.line().next).copied() {
            if one.session != first.session || one.group.is_some() != shared {
                break;
            }
            self.placing.line_mut().next += 1;
            let options = one.grant.options;
            // [MQTT-3.8.3-3]
            if !(options.no_local && publisher == self.sessions.publisher(first.session)) {
                qos = qos.max(Some(options.qos));
                retain |= options.retain_as_published && published.1;
                if one.grant.subscription_id != 0 && id_count < ids.len() {
                    ids[id_count] = one.grant.subscription_id;
                    id_count += 1;
                }
            }
            if shared {
                break;
            }
        }
        let Some(granted) = qos else { return };
        let copy = Copy {
            qos: granted.min(published.0),
            retain,
            group: first.group.map(|group| group_tag(self.subscriptions.text(group))),
            subscription_id: self.subscription_ids.intern(&ids[..id_count]),
        };
        match self.enqueue(first.session, message, copy) {
            Taken::Queued { urgent } => {
                self.placing.line_mut().urgent |= urgent;
                self.messages.get_mut(message).taken += 1;
            }
            Taken::Full => {
                self.messages.get_mut(message).refused += 1;
                self.skip(first.session, copy.qos, shared, effects);
            }
            Taken::Nobody => {}
        }
    }

    /// The session's queue was full. If it was the only recipient and the publisher can be told, that is all, and it
    /// gets no second copy either; else the session has a gap, and is told at its next CONNACK. At QoS 1 and 2 the mark
    /// is on disk before the message is acknowledged.
    fn skip(&mut self, slot: u32, qos: QoS, shared: bool, effects: &mut impl Effects) {
        self.statistics.refused += 1;
        let Some(task) = self.placing.line().queue.front() else { return };
        let message = task.message;
        let sole = self.placing.line().matches.iter().all(|one| one.session == slot)
            && self.placing.line().remote.is_empty()
            && matches!(task.scope, Scope::Owner);
        if sole && self.messages.get(message).taken == 0 && self.sender_can_be_told(message) {
            let line = self.placing.line_mut();
            line.next = line.matches.len();
            return;
        }
        let session = self.sessions.get_mut(slot);
        session.skipped = session.skipped.saturating_add(1);
        let (key, skipped, durable) = (session.key, u64::from(session.skipped), session.durable());
        if skipped == 1 {
            let client_id = self.sessions.get(slot).client_id();
            effects.perform(Effect::Log(Event::QueueFull { client_id }));
        }
        if durable && qos != QoS::AtMostOnce {
            let lsn = self.append(crate::record::Record::Gap { key, skipped }, effects);
            self.gap_is_noted(key, lsn, skipped);
            self.cover_table(message, lsn);
            // What one member of a shared subscription misses may still come to any of them: they share no order.
            if !shared {
                self.placing.line_mut().skipped.push(slot);
            }
        }
    }

    /// Whether a refusal reaches the publisher: at QoS 2 PUBREC has left before, and nobody waits for a will.
    pub(super) fn sender_can_be_told(&self, message: u32) -> bool {
        let message = self.messages.get(message);
        message.qos == QoS::AtLeastOnce
            && matches!(message.sender, Sender::Client { .. } | Sender::Shard { .. } | Sender::Owner { .. })
    }

    /// One request to each other interested shard. False: a ring is full; come back when it has room.
    fn ask_other_shards(&mut self, effects: &mut impl Effects) -> bool {
        while let Some((shard, _)) = self.placing.line().remote.last() {
            let to = *shard;
            if !effects.mesh_deliver_room(to) {
                return false;
            }
            let Some((_, audience)) = self.placing.line_mut().remote.pop() else { return true };
            let slot = self.placing.line().queue.front().expect("a task is being placed").message;
            let id = self.messages.id(slot);
            let message = self.messages.get_mut(slot);
            let tracked = message.qos != QoS::AtMostOnce;
            let parcel = message.parcel().expect("a message is placed with its body in memory");
            if tracked {
                message.remote.unplaced += 1;
                message.remote.unsettled += 1;
                if !std::mem::replace(&mut message.travelling, true) {
                    self.messages.retain(slot);
                }
            }
            let token = if tracked { id.token() } else { 0 };
            effects.perform(Effect::Mesh { to, message: MeshMessage::Deliver { token, parcel, audience } });
        }
        true
    }

    /// Every queue that takes the message has it.
    fn finish_first(&mut self, effects: &mut impl Effects) {
        let task = self.placing.line_mut().queue.pop_front().expect("a task is being placed");
        self.placing.line_mut().matched = false;
        self.placing.line_mut().matches.clear();
        self.placing.line_mut().next = 0;
        self.statistics.placed += 1;
        let urgent = self.placing.line().urgent;
        let skipped = std::mem::take(&mut self.placing.line_mut().skipped);
        let message = self.messages.get(task.message);
        let keyed = message.origin.is_some();
        // Routed again after a crash it could find room where it had none, behind later ones of its publisher; or be
        // retained again, where that was undone by a later one.
        let retained = message.retain && matches!(task.scope, Scope::Owner);
        let noted = keyed && (retained || !skipped.is_empty());
        self.placed(task.message, urgent, noted, effects);
        for slot in skipped.into_iter().filter(|_| noted) {
            // It may have ended meanwhile.
            if self.sessions.exists(slot) {
                self.sessions.get_mut(slot).delivery().skip_noted = self.lsn;
            }
        }
    }

    /// The outcome as the publisher sees it.
    pub(super) fn outcome(&self, slot: u32) -> ReasonCode {
        let message = self.messages.get(slot);
        match (message.taken, message.refused) {
            (0, 0) => ReasonCode::NoMatchingSubscribers,
            (0, 1) => ReasonCode::QuotaExceeded,
            _ => ReasonCode::Success,
        }
    }

    /// Whether the placing shard still has to tell another one.
    pub(super) fn answer_placed(&mut self, slot: u32, effects: &mut impl Effects) {
        let message = self.messages.get_mut(slot);
        if message.answered || !message.placed || message.remote.unplaced > 0 {
            return;
        }
        message.answered = true;
        let (placed, refused) = (message.taken, message.refused);
        let (to, message) = match message.sender {
            Sender::Shard { shard, token } => (shard, MeshMessage::Placed { token, placed, refused }),
            Sender::Owner { shard, token } => {
                // It is answered at once when it is placed, as the first of its line.
                let missed = std::mem::take(&mut self.placing.here.missed);
                (shard, MeshMessage::Delivered { token, placed, refused, missed })
            }
            Sender::Again { token } => return self.remote_placed(token, placed, refused, effects),
            _ => return,
        };
        effects.perform(Effect::Mesh { to, message });
    }
}

/// Sorted by session, ordinary before shared, so that copies to merge are neighbours; the sort is stable and the walk's
/// order is fixed, so the same state gives the same order.
fn sort(matches: &mut [Match]) {
    matches.sort_by_key(|one| (one.session, one.group.is_some()));
}

fn take_ordinary(entry: &Entry, matches: &mut Vec<Match>) {
    matches.extend(entry.local().iter().map(|subscriber| Match {
        session: subscriber.session,
        grant: subscriber.grant,
        group: None,
    }));
}

fn audience(remote: &mut Vec<(ShardId, Audience)>, shard: ShardId) -> &mut Audience {
    let index = remote.iter().position(|(other, _)| *other == shard).unwrap_or_else(|| {
        remote.push((shard, Audience::default()));
        remote.len() - 1
    });
    &mut remote[index].1
}
