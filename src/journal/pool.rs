//! The pool: which files hold the log, what is kept and checkpoints, which are free, and how it grows.
//!
//! Decides which file is written next and when one more is wanted. Does no I/O: a segment is taken into use by whoever
//! writes its header; freed when it is durable that nothing needs it; made by a background thread, smaller where the disk has
//! no room for a usual one.
//!
//! Segments of the log are in sequence order and the last one is being written; where one was given up there is a gap
//! in the order. Freed ones are reused oldest first. While a backup copies, those that it copies are not reused (`pin`).

use std::collections::VecDeque;

use super::format::{Kind, SegmentHeader};
use super::kept::Kept;
use super::pin::Pin;
use super::segment::{self, Segment, Vacant, mix, name};
use super::storage::Storage;
use super::{Options, error};
use crate::ids::Lsn;
use crate::limits;
use crate::reactor::{Errno, File};
use crate::time::Nanos;

/// A segment to be made: zeros written and synced, outside of any shard's turn.
#[derive(Debug)]
#[must_use = "the journal waits for `grown`"]
pub struct GrowRequest {
    name: String,
    bytes: u64,
    /// If the disk has no room for that many, and as many do.
    or_bytes: Option<u64>,
}

impl GrowRequest {
    /// Make it. Blocks for as long as the disk takes to write a segment.
    pub fn execute<S: Storage>(self, storage: &S) -> Grown {
        self.made(|name, bytes| storage.create(name, bytes).map_err(|error| error::errno(&error)))
    }

    fn made(self, mut create: impl FnMut(&str, u64) -> Result<File, Errno>) -> Grown {
        let GrowRequest { name, bytes, or_bytes } = self;
        match (create(&name, bytes), or_bytes) {
            (Err(errno), Some(bytes)) if errno.is_lack_of_room() => {
                let result = create(&name, bytes);
                Grown { name, bytes, result }
            }
            (result, _) => Grown { name, bytes, result },
        }
    }
}

/// What came of a [`GrowRequest`].
#[derive(Debug)]
pub struct Grown {
    name: String,
    bytes: u64,
    result: Result<File, Errno>,
}

impl Grown {
    /// The file's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// A segment with checkpoints.
#[derive(Debug)]
pub(super) struct Checkpoints {
    pub file: File,
    pub name: Box<str>,
    pub header: SegmentHeader,
    /// Where the next block goes.
    pub end: u64,
}

/// All files of a journal.
#[derive(Debug)]
pub(super) struct Pool {
    live: VecDeque<Segment>,
    /// In no order.
    pub kept: Vec<Kept>,
    /// In sequence order.
    pub checkpoints: VecDeque<Checkpoints>,
    free: VecDeque<Vacant>,
    /// What a backup is copying.
    pub pin: Option<Pin>,
    /// For the next checkpoint, which must not wait for a free segment: it is what frees them.
    slot: Option<Vacant>,
    /// Segments freed so far.
    pub freed: u64,
    /// For the name of the next file.
    next_number: u32,
    seed: u64,
    segment_bytes: u64,
    /// Size of the first ones, and of those made where a disk has no room for more.
    segment_bytes_first: u64,
    segments_max: usize,
    reserve: usize,
    growth: Growth,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Growth {
    /// Nothing asked for.
    Idle,
    /// A request is with the background thread.
    Asked {
        /// The one before it failed.
        refused: bool,
    },
    /// The last one failed; not tried again before then.
    Refused { retry_at: Nanos },
}

impl Pool {
    /// `live` in sequence order.
    pub fn new(
        options: &Options,
        seed: u64,
        live: VecDeque<Segment>,
        kept: Vec<Kept>,
        checkpoints: VecDeque<Checkpoints>,
        free: VecDeque<Vacant>,
        next_number: u32,
    ) -> Pool {
        Pool {
            live,
            kept,
            checkpoints,
            free,
            pin: None,
            slot: None,
            freed: 0,
            next_number,
            seed,
            segment_bytes: options.segment_bytes,
            segment_bytes_first: options.segment_bytes_first,
            segments_max: options.segments_max,
            reserve: options.reserve,
            growth: Growth::Idle,
        }
    }

    /// The one being written; `None` before the first.
    pub fn open(&self) -> Option<&Segment> {
        self.live.back()
    }

    pub fn open_mut(&mut self) -> &mut Segment {
        self.live.back_mut().expect("a block is written only into an open segment")
    }

    /// Oldest first.
    pub fn live(&self) -> &VecDeque<Segment> {
        &self.live
    }

    pub fn live_count(&self) -> usize {
        self.live.len()
    }

    pub fn free_count(&self) -> usize {
        self.free.len()
    }

    /// Index of the segment of the log that holds that record.
    pub fn find(&self, lsn: Lsn) -> Option<usize> {
        let index = self.live.partition_point(|segment| segment.header.first_lsn <= lsn).checked_sub(1)?;
        (lsn < self.live[index].next_lsn).then_some(index)
    }

    pub fn get_mut(&mut self, index: usize) -> &mut Segment {
        &mut self.live[index]
    }

    /// Index among `kept` of a segment that holds that record, and where its frame is. `first` is looked at first.
    pub fn find_kept(&self, lsn: Lsn, first: usize) -> Option<(usize, u64)> {
        let likely = self.kept.get(first).and_then(|kept| kept.find(lsn)).map(|offset| (first, offset));
        likely
            .or_else(|| self.kept.iter().enumerate().find_map(|(index, kept)| Some((index, kept.find(lsn)?))))
    }

    /// Whether that segment of records is there.
    pub fn has(&self, (kind, sequence): (Kind, u64)) -> bool {
        match kind {
            Kind::Log => self.live.iter().any(|segment| segment.header.sequence == sequence),
            _ => self.kept.iter().any(|kept| kept.header.sequence == sequence),
        }
    }

    /// Forget every map.
    pub fn unmap(&mut self) {
        self.live.iter_mut().for_each(|segment| segment.map = None);
        self.kept.iter_mut().for_each(|kept| kept.map = None);
    }

    /// Whether a block of that size can be placed now.
    pub fn has_room(&self, block_bytes: u64) -> bool {
        self.open().is_some_and(|segment| segment.room() >= block_bytes) || self.free_fits(block_bytes)
    }

    fn free_fits(&self, block_bytes: u64) -> bool {
        self.free.iter().any(|vacant| vacant.capacity() >= block_bytes)
    }

    /// Take the first free segment that a block of that size fits, with a new epoch for its next life.
    pub fn take(&mut self, block_bytes: u64, kind: Kind, sequence: u64) -> Option<(Vacant, u64)> {
        let slot = self.slot.take_if(|slot| kind == Kind::Checkpoint && slot.capacity() >= block_bytes);
        let vacant = slot.or_else(|| {
            let index = self.free.iter().position(|vacant| vacant.capacity() >= block_bytes)?;
            self.free.remove(index)
        })?;
        let mut epoch = mix(self.seed ^ mix(sequence) ^ (kind as u64) << 56);
        while epoch == 0 || epoch == vacant.epoch {
            epoch = mix(epoch);
        }
        assert!(epoch != vacant.epoch, "I8: each life of a segment has its own epoch");
        Some((vacant, epoch))
    }

    /// A segment whose header is durable is the one to write from now on.
    pub fn push(&mut self, segment: Segment) {
        if let Some(last) = self.open() {
            assert!(last.header.sequence + 1 == segment.header.sequence, "segments are used in sequence");
        }
        self.live.push_back(segment);
    }

    /// Whether a segment of the log would be freed.
    pub fn would_free(&self, oldest_live: Lsn) -> bool {
        self.live.get(1).is_some_and(|_| self.live[0].next_lsn <= oldest_live)
    }

    /// Free every segment of records that are all below. The caller has made that durable.
    pub fn free_below(&mut self, oldest_live: Lsn) {
        while self.would_free(oldest_live) {
            let segment = self.live.pop_front().expect("there are two");
            self.free_log(segment);
        }
        self.free_kept(|kept| kept.last_lsn() < oldest_live);
    }

    /// Free the sealed segments of the log with these sequences.
    pub fn free_given_up(&mut self, sequences: &[u64]) {
        let open = self.live.pop_back();
        for segment in std::mem::take(&mut self.live) {
            if sequences.contains(&segment.header.sequence) {
                self.free_log(segment);
            } else {
                self.live.push_back(segment);
            }
        }
        self.live.extend(open);
    }

    fn free_log(&mut self, segment: Segment) {
        // Its map, if it has one, ends here: nothing maps a file that is written.
        self.freed += 1;
        let Segment { file, name, header, .. } = segment;
        self.set_free(file, name, &header);
    }

    fn set_free(&mut self, file: File, name: Box<str>, header: &SegmentHeader) {
        let vacant = Vacant { file, name, bytes: header.bytes, epoch: header.epoch };
        match &mut self.pin {
            Some(pin) if pin.has(header) => pin.hold(vacant),
            _ => self.free.push_back(vacant),
        }
    }

    /// Free what a backup copied.
    pub fn unpin(&mut self) -> Option<Pin> {
        let mut pin = self.pin.take()?;
        self.free.extend(pin.held.drain(..));
        Some(pin)
    }

    /// Segments that are free but for a backup.
    pub fn held_count(&self) -> usize {
        self.pin.as_ref().map_or(0, |pin| pin.held.len())
    }

    /// Free segments of kept records. One that is being written stays.
    pub fn free_kept(&mut self, mut given_up: impl FnMut(&Kept) -> bool) {
        for kept in std::mem::take(&mut self.kept) {
            if !kept.sealed || !given_up(&kept) {
                self.kept.push(kept);
                continue;
            }
            self.freed += 1;
            let Kept { file, name, header, .. } = kept;
            self.set_free(file, name, &header);
        }
    }

    /// Free the segments whose checkpoints are all older than that one's first segment.
    pub fn free_checkpoints(&mut self, first_sequence: u64) {
        while let Some(old) = self.checkpoints.pop_front_if(|old| old.header.sequence < first_sequence) {
            self.freed += 1;
            let Checkpoints { file, name, header, .. } = old;
            if self.pin.as_ref().is_some_and(|pin| pin.has(&header)) {
                self.set_free(file, name, &header);
                continue;
            }
            let vacant = Vacant { file, name, bytes: header.bytes, epoch: header.epoch };
            self.free.extend(self.slot.replace(vacant));
        }
    }

    /// Set a free segment aside for the next checkpoint, if none is and more than the reserve are free.
    pub fn keep_slot(&mut self) {
        if self.wants_slot() && self.free.len() > self.reserve {
            self.slot = self.free.pop_front();
        }
    }

    fn wants_slot(&self) -> bool {
        self.slot.is_none() && self.is_roomy()
    }

    /// Set one aside that had checkpoints before, if it is free.
    pub fn keep_slot_of(&mut self, name: &str) {
        if self.slot.is_none() {
            let index = self.free.iter().position(|vacant| &*vacant.name == name);
            self.slot = index.and_then(|index| self.free.remove(index));
        }
    }

    /// Whether the next checkpoint has a segment of its own.
    pub fn has_slot(&self) -> bool {
        self.slot.is_some()
    }

    /// Whether there are enough segments for some to be emptied into others.
    pub fn is_roomy(&self) -> bool {
        self.in_use() + self.free.len() >= limits::RECLAIM_SEGMENTS_MIN
    }

    pub fn reserve_reached(&self) -> bool {
        let refused = matches!(self.growth, Growth::Refused { .. } | Growth::Asked { refused: true });
        self.free.len() < self.reserve && (refused || self.is_full())
    }

    /// Whether the reserve is touched and more is on its way: what needs room waits for that.
    pub fn waits_for_room(&self) -> bool {
        self.free.len() < self.reserve && matches!(self.growth, Growth::Asked { refused: false })
    }

    /// Break the pin if it would be for its sake that the reserve is reached.
    fn relieve(&mut self) {
        if self.pin.is_some() && self.reserve_reached() {
            let _broken = self.unpin();
        }
    }

    /// Segments that are not free.
    pub fn in_use(&self) -> usize {
        self.live.len() + self.kept.len() + self.checkpoints.len() + usize::from(self.slot.is_some())
    }

    fn is_full(&self) -> bool {
        self.in_use() + self.held_count() + self.free.len() >= self.segments_max
    }

    fn wants_growth(&self, block_bytes: u64) -> bool {
        let wanted = self.reserve + usize::from(self.wants_slot());
        !self.is_full() && (self.free.len() <= wanted || !self.has_room(block_bytes))
    }

    /// Ask for one more segment, if that is due. `soon`: some are about to be freed, so only a lack is a reason.
    pub fn grow(&mut self, block_bytes: u64, soon: bool, now: Nanos) -> Option<GrowRequest> {
        self.relieve();
        let refused = match self.growth {
            Growth::Idle => false,
            Growth::Refused { retry_at } if retry_at <= now => true,
            Growth::Refused { .. } | Growth::Asked { .. } => return None,
        };
        let enough = soon && self.free.len() >= self.reserve && self.has_room(block_bytes);
        if enough || !self.wants_growth(block_bytes) {
            return None;
        }
        let name = name(self.next_number);
        self.next_number += 1;
        self.growth = Growth::Asked { refused };
        let (bytes, fewer) = (self.segment_bytes, self.segment_bytes_first);
        let fits = fewer < bytes && block_bytes <= segment::capacity(fewer);
        let or_bytes = fits.then_some(fewer);
        Some(GrowRequest { name, bytes, or_bytes })
    }

    pub fn grown(&mut self, grown: Grown, now: Nanos) -> Result<(), Errno> {
        assert!(matches!(self.growth, Growth::Asked { .. }), "one segment is made at a time, on request");
        let Grown { name, bytes, result } = grown;
        match result {
            Ok(file) => {
                self.growth = Growth::Idle;
                self.free.push_back(Vacant { file, name: name.into(), bytes, epoch: 0 });
                Ok(())
            }
            Err(errno) => {
                self.growth = Growth::Refused { retry_at: now.plus_ms(limits::GROW_RETRY_MS) };
                self.relieve();
                Err(errno)
            }
        }
    }

    /// When growing should be tried again, if it failed and is still wanted.
    pub fn retry_at(&self, block_bytes: u64) -> Option<Nanos> {
        match self.growth {
            Growth::Refused { retry_at } if self.wants_growth(block_bytes) => Some(retry_at),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ShardId;

    fn pool(reserve: usize, free: usize) -> Pool {
        let options = Options { segments_max: 4, reserve, ..Options::new(ShardId(0), 1, [0; 16]) };
        let vacant =
            |n: usize| Vacant { file: File(n as i32), name: name(n as u32).into(), bytes: 8 << 20, epoch: 0 };
        Pool::new(
            &options,
            1,
            VecDeque::new(),
            Vec::new(),
            VecDeque::new(),
            (0..free).map(vacant).collect(),
            free as u32,
        )
    }

    fn refusal(request: GrowRequest) -> Grown {
        Grown { name: request.name, bytes: request.bytes, result: Err(Errno(libc::ENOSPC)) }
    }

    #[test]
    fn a_full_disk_reaches_the_reserve_and_room_ends_that() {
        let mut pool = pool(2, 1);
        assert!(!pool.reserve_reached() && !pool.waits_for_room(), "it may still grow");
        let request = pool.grow(0, false, Nanos(0)).expect("below the reserve");
        assert!(pool.grow(0, false, Nanos(0)).is_none(), "one at a time");
        assert!(
            pool.waits_for_room() && !pool.reserve_reached(),
            "what needs room waits until that is decided"
        );
        assert_eq!(pool.grown(refusal(request), Nanos(0)), Err(Errno(libc::ENOSPC)));
        assert!(pool.reserve_reached());
        assert!(pool.grow(0, false, Nanos(1)).is_none(), "not at once again");
        let retry_at = pool.retry_at(0).expect("still wanted");
        let request = pool.grow(0, false, retry_at).expect("due");
        assert!(pool.reserve_reached() && !pool.waits_for_room(), "while it is tried again");
        let grown = Grown { name: request.name, bytes: request.bytes, result: Ok(File(9)) };
        pool.grown(grown, retry_at).expect("it grew");
        assert!(!pool.reserve_reached() && !pool.waits_for_room());
    }

    #[test]
    fn where_there_is_no_room_for_a_large_segment_a_small_one_is_made() {
        let request = |block_bytes| pool(0, 0).grow(block_bytes, false, Nanos(0)).expect("nothing is free");
        let small = limits::SEGMENT_BYTES_FIRST;
        let tried = |room, block_bytes| {
            let mut tried = Vec::new();
            let grown = request(block_bytes).made(|_, bytes| {
                tried.push(bytes);
                if bytes <= room { Ok(File(9)) } else { Err(Errno(libc::ENOSPC)) }
            });
            (tried, grown.bytes, grown.result.is_ok())
        };
        let large = limits::SEGMENT_BYTES_DEFAULT;
        assert_eq!(tried(u64::MAX, 0), (vec![large], large, true));
        assert_eq!(tried(large - 1, 0), (vec![large, small], small, true));
        assert_eq!(tried(small - 1, 0), (vec![large, small], small, false));
        assert_eq!(
            tried(large - 1, small),
            (vec![large], large, false),
            "a block that the small one does not fit"
        );
        let failed = request(0).made(|_, _| Err(Errno(libc::EIO)));
        assert_eq!(failed.bytes, large, "what fails for another reason is not tried again");
    }

    #[test]
    fn the_pool_grows_for_a_block_that_no_segment_fits() {
        let mut pool = pool(0, 3);
        assert!(pool.grow(4_096, false, Nanos(0)).is_none());
        assert!(pool.take(16 << 20, Kind::Log, 1).is_none());
        assert!(pool.grow(16 << 20, false, Nanos(0)).is_some());
    }

    /// `limits::SEGMENTS_MAX`, made small: what the broker then does is that of any other reserve.
    #[test]
    fn a_pool_of_the_most_segments_does_not_grow() {
        let mut pool = pool(9, 4);
        assert!(pool.grow(0, false, Nanos(0)).is_none());
        assert!(pool.reserve_reached());
    }

    #[test]
    fn epochs_differ_between_lives_whatever_the_seed() {
        for seed in 0..1_000 {
            let mut pool = pool(0, 1);
            pool.seed = seed;
            let clash = mix(seed ^ mix(1));
            pool.free[0].epoch = clash;
            let (_, epoch) = pool.take(0, Kind::Log, 1).expect("one is free");
            assert!(epoch != clash && epoch != 0);
        }
    }
}
