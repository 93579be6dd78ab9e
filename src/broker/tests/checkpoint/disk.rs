//! A journal that a broker's records were written to as they came, with checkpoints and segments that were given up, on a
//! disk in memory that can be damaged.

use std::cell::RefCell;
use std::io;

use super::random::Random;
use super::*;
use crate::journal::storage::Storage;
use crate::journal::{Io, IoDone, Journal, JournalError, Options};
use crate::reactor::File;
use crate::record::Record;

const PAGE: usize = 4_096;
const SECTOR: usize = 512;

/// Files by their order; a name may be gone.
#[derive(Default)]
pub(super) struct Disk(RefCell<Vec<(String, Vec<u8>)>>);

impl Disk {
    fn with<T>(&self, file: File, act: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        act(&mut self.0.borrow_mut()[usize::try_from(file.0).expect("a file of this disk")].1)
    }

    /// One of the ways in which a disk fails. Half of them hit what was written last in their file, or first.
    pub(super) fn damage(&self, random: &mut Random) {
        let mut files = self.0.borrow_mut();
        let index = random.below(files.len());
        if random.one_in(6) {
            files.remove(index);
            return;
        }
        let content = &mut files[index].1;
        let used = content.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
        let at = random.below(used);
        match random.below(4) {
            0 => content[at] ^= 1 << random.below(8),
            1 => content[at / SECTOR * SECTOR..][..SECTOR].fill(0),
            2 => content[at / PAGE * PAGE..][..PAGE].fill(0),
            _ => {
                let end = content.len().min(at / PAGE * PAGE + PAGE * (1 + random.below(4)));
                content[at / PAGE * PAGE..end].iter_mut().for_each(|byte| *byte = byte.wrapping_add(1));
            }
        }
    }
}

impl Storage for &Disk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.borrow().iter().map(|(name, _)| name.clone()).collect())
    }

    fn open(&self, name: &str) -> io::Result<File> {
        let index = self.0.borrow().iter().position(|(known, _)| known == name);
        Ok(File(i32::try_from(index.ok_or(io::ErrorKind::NotFound)?).expect("few")))
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<File> {
        let content = vec![0; usize::try_from(bytes).expect("small")];
        self.0.borrow_mut().push((name.to_owned(), content));
        self.open(name)
    }

    fn len(&self, file: File) -> io::Result<u64> {
        Ok(self.with(file, |content| content.len() as u64))
    }

    fn read_at(&self, file: File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let begin = usize::try_from(offset).expect("small");
        self.with(file, |content| {
            let from = content.get(begin..begin + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            buffer.copy_from_slice(from);
            Ok(())
        })
    }

    fn write_at(&self, file: File, offset: u64, buffer: &[u8]) -> io::Result<()> {
        let begin = usize::try_from(offset).expect("small");
        self.with(file, |content| content[begin..begin + buffer.len()].copy_from_slice(buffer));
        Ok(())
    }

    fn sync(&self, _: File) -> io::Result<()> {
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        unreachable!("nothing is removed from a journal that was closed well")
    }

    fn lock(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Segments of five blocks, so that there are many.
pub(super) fn options(shard: ShardId, shards: u16) -> Options {
    let bytes = 6 * PAGE as u64;
    Options {
        segment_bytes: bytes,
        segment_bytes_first: bytes,
        segments_first: 4,
        segments_max: 400,
        reserve: 1,
        checkpoint_tail_bytes: 10 * PAGE as u64,
        reclaim_quiet_ms: 0,
        ..Options::new(shard, shards, [0; 16])
    }
}

/// How often that took place: a test without it would show little.
#[derive(Default, Debug)]
pub(super) struct Wear {
    pub(super) checkpoints: u64,
    pub(super) copied: u64,
    pub(super) freed: u64,
}

/// These records in a journal, some to a block, which knows all the while what is live.
pub(super) fn written(bench: &Bench, shards: u16, random: &mut Random, wear: &mut Wear) -> Disk {
    let disk = Disk::default();
    let (settings, shard) = (bench.broker.settings.clone(), bench.broker.shard);
    let mut now = Now { mono: Nanos(1), wall: UnixMs(1) };
    let mut journal = journal::open(&disk, options(shard, shards), 7, now).expect("memory does not fail");
    let mut reader =
        Bench { broker: Broker::new(settings, shard), world: World::default(), now: bench.now, durable: 0 };
    // Bodies whose first user is still to come: replay does not know yet that they are live, as the broker did that wrote
    // them, so no checkpoint may be written meanwhile.
    let mut open: Vec<Lsn> = Vec::new();
    for (lsn, bytes) in &bench.world.journal {
        let record = journal::decoded(bytes);
        journal.append(*lsn, &record);
        reader.handle(Input::Replay { lsn: *lsn, record, facts: Facts::NONE });
        open.retain(|body| !uses(&record, *body));
        if matches!(record, Record::Message { recipients, .. } if recipients.is_empty()) {
            open.push(*lsn);
        }
        if random.one_in(3) && open.is_empty() {
            now = Now { mono: now.mono.plus_ms(10), wall: UnixMs(now.wall.0 + 10) };
            journal.observe(reader.broker.live(), now);
            settle(&mut journal, &disk, &reader.broker, now).expect("memory does not fail");
        }
    }
    journal.witness();
    settle(&mut journal, &disk, &reader.broker, now).expect("memory does not fail");
    let statistics = journal.statistics();
    wear.checkpoints += statistics.checkpoints;
    wear.copied += statistics.records_copied;
    wear.freed += statistics.segments_freed;
    disk
}

fn uses(record: &Record<'_>, body: Lsn) -> bool {
    matches!(record, Record::Deliver { message, .. } | Record::Retained { message } if *message == body)
}

fn settle<'a>(
    journal: &mut Journal<&'a Disk>,
    disk: &'a Disk,
    broker: &Broker,
    now: Now,
) -> Result<(), JournalError> {
    for _ in 0..10_000 {
        let done = match journal.commit(broker.live(), now)? {
            Some(Io::Write { file, offset, buffer }) => {
                disk.write_at(file, offset, &buffer).expect("memory does not fail");
                IoDone::Written { buffer, result: Ok(()) }
            }
            Some(Io::Sync { .. }) => IoDone::Synced { result: Ok(()) },
            None => match journal.grow(now) {
                Some(request) => {
                    journal.grown(request.execute(&disk), now)?;
                    continue;
                }
                None => return Ok(()),
            },
        };
        journal.completed(done, broker.live(), now)?;
    }
    panic!("the journal always has more to do");
}
