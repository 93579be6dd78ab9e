//! The journal against crashes: what was said to be durable is there afterwards, in order, and nothing else.
//!
//! - `crashes`: random load and thousands of crashes, on a disk in memory and on a real directory
//! - `damage`: flipped bits, lost pages, another past; the golden segment
//! - `exhaustive`: every bit, sector and page of a small journal
//! - `worn`: the same of one with a checkpoint, kept records and segments that were given up
//! - `pinned`: what stays as it is for somebody who copies it
//! - `opening`: what is refused at start, and with which cure
//! - `commit`: group commit, witness, fail-stop, full disk
//! - `pace`: copying keeps pace with appending
//! - `disk`: the disk in memory, which keeps, drops or tears every sector that was not synced
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

mod commit;
mod crashes;
mod damage;
mod disk;
mod exhaustive;
mod opening;
mod pace;
mod pinned;
mod worn;

use std::collections::BTreeMap;

use ironpost::ids::{Lsn, OriginKey, SessionKey, ShardId};
use ironpost::journal::{Io, IoDone, Journal, JournalError, Options, Storage};
use ironpost::live::LiveSet;
use ironpost::record::{Body, Recipient, Recipients, Record, WillRecord};
use ironpost::time::{Nanos, Now, UnixMs};
use ironpost::wire::{PacketId, QoS, SubscribeOptions, Version};

use disk::Random;

fn options() -> Options {
    Options {
        segment_bytes: 64 << 10,
        segment_bytes_first: 32 << 10,
        segments_max: 8,
        reserve: 1,
        ..Options::new(ShardId(1), 4, [9; 16])
    }
}

/// A small journal: four segments of five pages, three of them for blocks.
fn tiny() -> Options {
    Options { segment_bytes: 20 << 10, segment_bytes_first: 20 << 10, segments_max: 4, ..options() }
}

fn at(ms: u64) -> Now {
    Now { mono: Nanos(ms * 1_000_000), wall: UnixMs(ms) }
}

/// The record that belongs to a number: every type, sizes from nothing to more than a page.
fn with_record<R>(number: u64, then: impl FnOnce(&Record<'_>) -> R) -> R {
    let mut random = Random(number);
    let key = SessionKey(random.next());
    let message = Lsn(random.next());
    let packet_id = PacketId::new(1 + random.below(65_535) as u16).unwrap();
    let size = match random.below(40) {
        0 => random.below(30_000),
        1..6 => random.below(3_000),
        _ => random.below(100),
    };
    let payload: Vec<u8> = (0..size).map(|_| random.next() as u8).collect();
    let topic = format!("u/{}/inbox", random.below(1_000));
    let body = Body {
        topic: &topic,
        forward: &payload[..payload.len() / 7],
        payload: &payload,
        qos: QoS::AtLeastOnce,
        retain: random.below(2) == 0,
        accepted_at: UnixMs(random.next()),
        expires_at: UnixMs::NEVER,
    };
    let recipient = |n: u64| Recipient {
        session: SessionKey(n),
        qos: QoS::ExactlyOnce,
        retain: false,
        shared: n.is_multiple_of(2),
        group: 0,
        subscription_id: n as u32,
        more: false,
    };
    let recipients: Vec<Recipient> = (0..random.below(5)).map(recipient).collect();
    let recipients = Recipients::from(&recipients[..]);
    let origin = OriginKey { shard: ShardId(2), lsn: message };
    let will = WillRecord { body, delay_s: 1, message_expiry_s: 2 };
    let record = match random.below(8) {
        0 | 1 => Record::Message { body, origin: Some(origin), recipients },
        2 => Record::Message { body, origin: None, recipients },
        3 => Record::Inbound { key, packet_id, body },
        4 => Record::Acknowledged { key, message, packet_id: Some(packet_id).filter(|_| size > 50) },
        5 => Record::Session {
            key,
            account: "",
            client_id: &topic,
            version: Version::V5,
            expiry_s: 9,
            will: Some(will),
        },
        6 => Record::Subscribed {
            key,
            filter: &topic,
            options: SubscribeOptions::default(),
            subscription_id: 0,
        },
        // The golden segment is older than these two.
        _ if number > 1_000 && random.below(3) == 0 => Record::DeliveryDone { list: message, place: 3 },
        _ if number > 1_000 && random.below(2) == 0 => {
            Record::DeliveryBegun { list: message, place: 3, packet_id }
        }
        _ => Record::Sent { key, message, packet_id },
    };
    then(&record)
}

/// Do at once what the journal wants, until it wants nothing.
fn settle<S: Storage>(journal: &mut Journal<S>, disk: &S, now: Now) {
    settle_with(journal, disk, &LiveSet::default(), now);
}

/// The same, with what is live: for what `observe` sets going.
fn settle_with<S: Storage>(journal: &mut Journal<S>, disk: &S, live: &LiveSet, now: Now) {
    for _ in 0..100_000 {
        if !operate(journal, disk, live, now) && !journal.wants_turn(live) {
            return;
        }
    }
    panic!("a journal comes to rest");
}

/// One operation, from its begin to its end; false if there is none.
fn operate<S: Storage>(journal: &mut Journal<S>, disk: &S, live: &LiveSet, now: Now) -> bool {
    let Some(io) = journal.commit(live, now).unwrap() else { return false };
    let done = match io {
        Io::Write { file, offset, buffer } => {
            disk.write_at(file, offset, &buffer).unwrap();
            IoDone::Written { buffer, result: Ok(()) }
        }
        Io::Sync { file } => {
            disk.sync(file).unwrap();
            IoDone::Synced { result: Ok(()) }
        }
    };
    journal.completed(done, live, now).unwrap();
    true
}

/// What a journal must know: LSN to number of the record.
type Model = BTreeMap<u64, u64>;

/// Replay, and compare each record with the model.
fn replay<S: Storage>(journal: &mut Journal<S>, model: &Model) -> Result<Vec<u64>, JournalError> {
    let mut found = Vec::new();
    journal.replay(&mut |lsn, record, _| {
        check(model, lsn, &record);
        found.push(lsn.0);
    })?;
    Ok(found)
}

fn check(model: &Model, lsn: Lsn, record: &Record<'_>) {
    let number = model.get(&lsn.0).unwrap_or_else(|| panic!("record {} was never written", lsn.0));
    with_record(*number, |written| assert_eq!(record, written, "record {}", lsn.0));
}

/// Records from that one on are live.
fn live_from(model: &Model, first: u64) -> LiveSet {
    let mut live = LiveSet::default();
    model.range(first..).for_each(|(lsn, _)| live.add(Lsn(*lsn), 100));
    live
}
