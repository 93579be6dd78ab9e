//! A message with one recipient into the journal: appended to a block that many share, and as a block of its own.
//!
//! With the checksums, the copy for the reactor and the steps of the commit; without the kernel, which is said to have
//! written and synced at once. Only the first segments exist as files.

use std::hint::black_box;

use ironpost::ids::{Lsn, SessionKey, ShardId};
use ironpost::journal::{self, Io, IoDone, Journal, Options, storage};
use ironpost::live::LiveSet;
use ironpost::record::{Body, Recipient, Recipients, Record};
use ironpost::time::{Nanos, Now, UnixMs};
use ironpost::wire::QoS;

use crate::Case;
use crate::world::PAYLOAD;

pub const CASES: &[Case] = &[
    Case { name: "journal/append-256-to-a-block", turns: 16 * 256, run: |turns| append(turns, 256) },
    Case { name: "journal/append-1-to-a-block", turns: 200, run: |turns| append(turns, 1) },
];

const NOW: Now = Now { mono: Nanos(1), wall: UnixMs(1_000_000) };

/// Nothing is dead, so nothing is reclaimed.
static NOTHING_OBSERVED: std::sync::LazyLock<LiveSet> = std::sync::LazyLock::new(LiveSet::default);

fn append(turns: u32, records_per_block: u32) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut journal = open(&directory);
    let recipients = [Recipient {
        session: SessionKey(17),
        qos: QoS::AtLeastOnce,
        retain: false,
        shared: false,
        group: 0,
        subscription_id: 0,
        more: false,
    }];
    let record = Record::Message { body: BODY, origin: None, recipients: Recipients::from(&recipients[..]) };
    for number in 1..=u64::from(turns) {
        journal.append(Lsn(number), black_box(&record));
        if number.is_multiple_of(u64::from(records_per_block)) {
            commit(&mut journal);
        }
    }
    assert_eq!(journal.durable(), Lsn(u64::from(turns)));
    let statistics = journal.statistics();
    assert_eq!(statistics.records, u64::from(turns));
    assert_eq!(statistics.blocks, u64::from(turns / records_per_block), "no segment ends meanwhile");
}

const BODY: Body<'static> = Body {
    topic: "u/1234567/inbox",
    forward: &[],
    payload: &PAYLOAD,
    qos: QoS::AtLeastOnce,
    retain: false,
    accepted_at: UnixMs(1_000_000),
    expires_at: UnixMs::NEVER,
};

fn open(directory: &tempfile::TempDir) -> Journal<storage::Directory> {
    let storage = storage::Directory::open(directory.path()).expect("it was just made");
    let options = Options { segments_first: 1, ..Options::new(ShardId(0), 1, [7; 16]) };
    journal::open(storage, options, 1, NOW).expect("a new journal")
}

/// Everything appended becomes durable.
fn commit(journal: &mut Journal<storage::Directory>) {
    let live = &*NOTHING_OBSERVED;
    while let Some(io) = journal.commit(live, NOW).expect("nothing is read") {
        let done = match black_box(io) {
            Io::Write { buffer, .. } => IoDone::Written { buffer, result: Ok(()) },
            Io::Sync { .. } => IoDone::Synced { result: Ok(()) },
        };
        journal.completed(done, live, NOW).expect("it went well");
    }
}
