//! Everything durable of a broker as lines of text, in which nothing depends on where it lies in memory.

use super::*;
use crate::broker::session::{Entry, NO_SLOT, Session};
use crate::broker::stored::Queued;

pub(super) fn digest(bench: &mut Bench) -> Vec<String> {
    let Bench { broker, world, durable, .. } = bench;
    let written = world.journal[*durable..].iter();
    let mut lines: Vec<_> =
        written.map(|(lsn, bytes)| format!("writes {lsn:?} {:?}", journal::decoded(bytes))).collect();
    // What died with sessions that ended in the same call.
    broker.let_go(&mut crate::broker::Budget(u32::MAX));
    for slot in broker.sessions.written() {
        session(broker, slot, &mut lines);
    }
    for (key, pending) in &broker.wills {
        lines.push(format!("will of {key:?}: {pending:?}"));
    }
    let topics = broker.retained.scan("#", "", u32::MAX, |topic, held| {
        let message = broker.messages.get(held.message);
        lines.push(format!("retained {topic}: {:?} by {:?}", message.lsn, held.record));
        assert!(message.is_pinned() && message.content.is_some(), "a retained body is in memory");
        true
    });
    assert!(topics.is_none());
    for slot in &broker.restored {
        let message = broker.messages.get(*slot);
        lines.push(format!("to be routed: {:?} of {:?}", message.lsn, message.publisher));
    }
    lines.push(format!("{:?}", broker.origins));
    let handed_on = broker.handed_on.iter();
    lines.extend(handed_on.map(|(entry, handed_on)| format!("{entry:?} goes on as {:?}", handed_on.lsn())));
    lines.push(format!("{:?}", broker.notes));
    lines.extend(broker.spent().map(|spent| format!("spent {spent:?}")));
    lines.push(format!("next session {:?}, {:?}", broker.sessions.next_key(), broker.live.session_key_max()));
    let live = &broker.live;
    for (number, bits) in live.chunks_from(0) {
        for lsn in crate::live::lsns(number, bits) {
            let facts = live.facts(lsn);
            let gone = facts.gone.map(crate::live::Gone::words);
            let (routed, released) = (facts.routed, facts.released);
            lines.push(format!("live {lsn:?}: {gone:?} {routed} {released}, {} needs", live.needs(lsn)));
        }
    }
    lines.push(format!("to be routed {:?}", live.unrouted_from(crate::ids::Lsn::NONE).collect::<Vec<_>>()));
    lines.push(format!("taken {:?}", live.taken_from(crate::ids::Lsn::NONE).collect::<Vec<_>>()));
    lines
}

fn session(broker: &Broker, slot: u32, lines: &mut Vec<String>) {
    let session = broker.sessions.get(slot);
    assert!(session.connection == NO_SLOT);
    let Session { key, identity, expiry_s, version, record, disconnected, ends_at, inbound, skipped, .. } =
        session;
    lines.push(format!(
        "{key:?} {identity:?} {version:?}: expires {expiry_s} at {ends_at:?}, {record:?} {disconnected:?}, \
         inbound {inbound:?}, skipped {skipped}, will {:?}, ended {}",
        session.will, session.ended
    ));
    let mut subscriptions: Vec<String> = session
        .subscriptions
        .as_slice()
        .iter()
        .map(|subscription| {
            let text = broker.subscriptions.text(subscription.filter);
            let grant = broker.subscriptions.grant(subscription.filter, slot);
            format!("{key:?} subscribes {text} {grant:?} by {:?}", subscription.record)
        })
        .collect();
    subscriptions.sort();
    lines.append(&mut subscriptions);
    let Some(delivery) = session.delivery.as_deref() else { return };
    for in_flight in &delivery.in_flight {
        lines.push(format!(
            "{key:?} in flight {} {:?} {:?} {:?}: {}",
            in_flight.packet_id,
            in_flight.phase,
            in_flight.begun,
            in_flight.received,
            entry(broker, &in_flight.entry)
        ));
    }
    lines.extend(
        delivery.queue.iter().map(|queued| format!("{key:?} queue: {}", queued_entry(broker, queued))),
    );
    let mut left: Vec<String> = delivery.left.iter().map(|left| format!("{key:?} left {left:?}")).collect();
    left.sort();
    lines.append(&mut left);
    lines.push(format!("{key:?} {} bytes", delivery.bytes));
}

fn queued_entry(broker: &Broker, queued: Queued) -> String {
    let stored = match queued {
        Queued::Here(here) => return entry(broker, &here),
        Queued::Stored(stored) => stored,
    };
    let ids = broker.subscription_ids.resolve(&stored.subscription_id);
    format!(
        "{:?} as {:?}[{}] {:?} {} {ids:?} {:?} until {:?}",
        stored.body,
        stored.list(),
        stored.place,
        stored.qos,
        stored.retain(),
        stored.group(),
        stored.expires_at()
    )
}

fn entry(broker: &Broker, entry: &Entry) -> String {
    let message = broker.messages.get(entry.message);
    let owed = &message.owed.as_slice()[entry.owed as usize];
    let ids = broker.subscription_ids.resolve(&entry.subscription_id);
    format!(
        "{:?} as {:?}[{}] {:?} {} {ids:?} {:?} until {:?}",
        message.lsn, owed.list, owed.place, owed.qos, owed.retain, owed.group, message.expires_at
    )
}
