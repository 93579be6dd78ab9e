//! The simulated disk: a page cache in front of a device, and what is left of the two after a crash.
//!
//! A write changes the cache. A sync takes the pages that are dirty when it begins and has them on the device when
//! it ends. A process that dies leaves the cache as it is; a power cut leaves the device, plus of each page that
//! differed, independently: all, nothing, or some of its 512-byte sectors. Directory entries that were not synced are
//! kept or lost one by one. After a failed sync nothing is dirty any more: what was to be synced is gone, whatever a
//! later sync says.
//!
//! A page that was never written is absent and reads as zeros.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::rc::Rc;

use super::core::{self, Core, Notice};
use crate::reactor::{Completion, Errno, File, Token};
use crate::time::Nanos;

/// What happens to the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CrashKind {
    /// The process dies (`kill -9`): the page cache survives.
    Kill,
    /// The power is cut: what was not synced is at the seed's mercy.
    PowerCut,
}

/// A failure to inject, with the error it gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskFault {
    /// A write fails, some of its bytes having been written.
    Write(Errno),
    /// A sync fails.
    Sync(Errno),
    /// A read fails.
    Read(Errno),
}

/// An operation in flight.
pub(super) type OperationId = u64;

const PAGE: usize = 4_096;
const SECTOR: usize = 512;

#[derive(Clone)]
struct Page {
    /// A later content has a higher number.
    version: u64,
    bytes: [u8; PAGE],
}

type Pages = BTreeMap<u64, Rc<Page>>;

#[derive(Default)]
struct Inode {
    cache: Pages,
    device: Pages,
    dirty: BTreeSet<u64>,
    bytes: u64,
    device_bytes: u64,
}

#[derive(Default)]
struct Directory {
    entries: BTreeMap<String, u64>,
    device: BTreeMap<String, u64>,
    /// The storage handle that holds the lock.
    locked_by: Option<u64>,
}

enum InFlight {
    Write { shard: usize, file: File, token: Token, offset: u64, buffer: Vec<u8> },
    Sync { shard: usize, file: File, token: Token, snapshot: Snapshot },
}

/// What a sync will have made durable.
struct Snapshot {
    inode: u64,
    pages: Pages,
    bytes: u64,
}

struct OpenFile {
    inode: u64,
    /// The storage handle that opened it.
    owner: u64,
}

#[derive(Default)]
pub(super) struct Disk {
    directories: BTreeMap<String, Directory>,
    inodes: BTreeMap<u64, Inode>,
    open: BTreeMap<i32, OpenFile>,
    in_flight: BTreeMap<OperationId, InFlight>,
    faults: VecDeque<DiskFault>,
    made: u64,
}

impl Disk {
    fn number(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    pub(super) fn inject(&mut self, fault: DiskFault) {
        self.faults.push_back(fault);
    }

    fn take_fault(&mut self, wanted: impl Fn(&DiskFault) -> Option<Errno>) -> Option<Errno> {
        let position = self.faults.iter().position(|fault| wanted(fault).is_some())?;
        self.faults.remove(position).and_then(|fault| wanted(&fault))
    }

    // Operations of a reactor.

    pub(super) fn write(
        &mut self,
        shard: usize,
        file: File,
        (token, offset, buffer): (Token, u64, Vec<u8>),
        core: &mut Core,
    ) {
        let latency = core.draw(core.settings.write_latency_ns);
        self.start(InFlight::Write { shard, file, token, offset, buffer }, latency, core);
    }

    pub(super) fn sync(&mut self, shard: usize, file: File, token: Token, core: &mut Core) {
        let latency = core.draw(core.settings.sync_latency_ns);
        let snapshot = self.snapshot(file);
        self.start(InFlight::Sync { shard, file, token, snapshot }, latency, core);
    }

    fn start(&mut self, operation: InFlight, latency: u64, core: &mut Core) {
        let id = self.number();
        self.in_flight.insert(id, operation);
        core.schedule(Nanos(core.now().0 + latency), core::Event::Disk(id));
    }

    pub(super) fn finish(&mut self, id: OperationId, core: &mut Core) {
        // Gone if a crash came first.
        let Some(operation) = self.in_flight.remove(&id) else { return };
        let (shard, completion) = match operation {
            InFlight::Write { shard, file, token, offset, buffer } => {
                let result = self.write_now(file, offset, &buffer, core);
                (shard, Completion::Written { token, buffer, result })
            }
            InFlight::Sync { shard, file, token, snapshot } => {
                let result = self.sync_now(file, snapshot, core);
                (shard, Completion::Synced { token, result })
            }
        };
        core.tell(shard, Notice::Done { key: (1 << 40) | id, completion });
    }

    // The same, at once.

    pub(super) fn write_now(
        &mut self,
        file: File,
        offset: u64,
        bytes: &[u8],
        core: &mut Core,
    ) -> Result<(), Errno> {
        let inode_id = self.inode_of(file)?;
        core.note_bytes(0x20, inode_id, bytes);
        let injected = self.take_fault(|fault| match fault {
            DiskFault::Write(errno) => Some(*errno),
            _ => None,
        });
        let drawn = core.random.per_mille(core.settings.write_error_per_mille).then_some(Errno(libc::EIO));
        let end = offset.checked_add(bytes.len() as u64).ok_or(Errno(libc::EFBIG))?;
        let growth = end.saturating_sub(self.inodes[&inode_id].bytes);
        let full = growth > 0 && self.bytes_used() + growth > core.settings.disk_bytes_max;
        let failure = injected.or(drawn).or(full.then_some(Errno(libc::ENOSPC)));
        let count = match failure {
            Some(Errno(libc::ENOSPC)) if growth > 0 => 0,
            Some(_) => core.random.below(bytes.len() as u64 + 1) as usize,
            None => bytes.len(),
        };
        self.put(inode_id, offset, &bytes[..count]);
        if core.random.per_mille(core.settings.writeback_per_mille) {
            self.write_back_one(inode_id, core);
        }
        failure.map_or(Ok(()), Err)
    }

    fn put(&mut self, inode_id: u64, offset: u64, bytes: &[u8]) {
        let version = self.number();
        let inode = self.inodes.get_mut(&inode_id).expect("an open file keeps its inode");
        let mut done = 0;
        while done < bytes.len() {
            let position = offset + done as u64;
            let (index, within) = (position / PAGE as u64, (position % PAGE as u64) as usize);
            let count = (PAGE - within).min(bytes.len() - done);
            let page =
                inode.cache.entry(index).or_insert_with(|| Rc::new(Page { version, bytes: [0; PAGE] }));
            let page = Rc::make_mut(page);
            page.version = version;
            page.bytes[within..within + count].copy_from_slice(&bytes[done..done + count]);
            inode.dirty.insert(index);
            done += count;
        }
        inode.bytes = inode.bytes.max(offset + bytes.len() as u64);
    }

    /// The kernel writes a dirty page when it likes.
    fn write_back_one(&mut self, inode_id: u64, core: &mut Core) {
        let inode = self.inodes.get_mut(&inode_id).expect("an open file keeps its inode");
        if inode.dirty.is_empty() {
            return;
        }
        let chosen = core.random.below(inode.dirty.len() as u64) as usize;
        if let Some(index) = inode.dirty.iter().nth(chosen).copied()
            && let Some(page) = inode.cache.get(&index)
        {
            // Still dirty as far as a sync is concerned, which must write the length too.
            inode.device.insert(index, Rc::clone(page));
        }
    }

    fn snapshot(&self, file: File) -> Snapshot {
        let Ok(id) = self.inode_of(file) else { return Snapshot { inode: 0, pages: Pages::new(), bytes: 0 } };
        let inode = &self.inodes[&id];
        let dirty = inode.dirty.iter().filter_map(|index| Some((*index, Rc::clone(inode.cache.get(index)?))));
        Snapshot { inode: id, pages: dirty.collect(), bytes: inode.bytes }
    }

    fn sync_now(&mut self, file: File, snapshot: Snapshot, core: &mut Core) -> Result<(), Errno> {
        self.inode_of(file)?;
        core.note(&[0x21, snapshot.inode, snapshot.pages.len() as u64]);
        let injected = self.take_fault(|fault| match fault {
            DiskFault::Sync(errno) => Some(*errno),
            _ => None,
        });
        let drawn = core.random.per_mille(core.settings.sync_error_per_mille).then_some(Errno(libc::EIO));
        let inode = self.inodes.get_mut(&snapshot.inode).expect("an open file keeps its inode");
        if let Some(errno) = injected.or(drawn) {
            inode.forget(snapshot, core);
            return Err(errno);
        }
        for (index, page) in snapshot.pages {
            if inode.cache.get(&index).is_some_and(|cached| cached.version == page.version) {
                inode.dirty.remove(&index);
            }
            // Two syncs may overlap; the older content must not replace the newer.
            if inode.device.get(&index).is_none_or(|durable| durable.version <= page.version) {
                inode.device.insert(index, page);
            }
        }
        inode.device_bytes = inode.device_bytes.max(snapshot.bytes);
        Ok(())
    }

    // What a storage does.

    pub(super) fn sync_at_once(&mut self, file: File, core: &mut Core) -> Result<(), Errno> {
        let snapshot = self.snapshot(file);
        self.sync_now(file, snapshot, core)
    }

    pub(super) fn read(&mut self, file: File, offset: u64, into: &mut [u8]) -> Result<usize, Errno> {
        let inode_id = self.inode_of(file)?;
        let injected = self.take_fault(|fault| match fault {
            DiskFault::Read(errno) => Some(*errno),
            _ => None,
        });
        if let Some(errno) = injected {
            return Err(errno);
        }
        let inode = &self.inodes[&inode_id];
        let count = inode.bytes.saturating_sub(offset).min(into.len() as u64) as usize;
        copy_out(&inode.cache, offset, &mut into[..count]);
        Ok(count)
    }

    pub(super) fn bytes(&self, file: File) -> Result<u64, Errno> {
        Ok(self.inodes[&self.inode_of(file)?].bytes)
    }

    pub(super) fn make_directory(&mut self, directory: &str) {
        self.directories.entry(directory.to_owned()).or_default();
    }

    pub(super) fn list(&self, directory: &str) -> Vec<String> {
        self.directories[directory].entries.keys().cloned().collect()
    }

    pub(super) fn open(&mut self, directory: &str, name: &str, owner: u64) -> io::Result<File> {
        let inode = self.directories[directory].entries.get(name).copied();
        let inode = inode.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?;
        let mut descriptor = 3;
        while self.open.contains_key(&descriptor) {
            descriptor += 1;
        }
        self.open.insert(descriptor, OpenFile { inode, owner });
        Ok(File(descriptor))
    }

    /// A new file of zeros, durable with its entry when this returns.
    pub(super) fn create(
        &mut self,
        directory: &str,
        name: &str,
        bytes: u64,
        owner: u64,
        core: &mut Core,
    ) -> io::Result<File> {
        if self.directories[directory].entries.contains_key(name) {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        let injected = self.take_fault(|fault| match fault {
            DiskFault::Write(errno) | DiskFault::Sync(errno) => Some(*errno),
            DiskFault::Read(_) => None,
        });
        let full = self.bytes_used() + bytes > core.settings.disk_bytes_max;
        if let Some(errno) = injected.or(full.then_some(Errno(libc::ENOSPC))) {
            return Err(super::to_io(errno));
        }
        let inode = self.number();
        self.inodes.insert(inode, Inode { bytes, device_bytes: bytes, ..Inode::default() });
        let entries = self.directories.get_mut(directory).expect("made with its handle");
        entries.entries.insert(name.to_owned(), inode);
        entries.device = entries.entries.clone();
        core.note_bytes(0x22, inode, name.as_bytes());
        self.open(directory, name, owner)
    }

    pub(super) fn remove(&mut self, directory: &str, name: &str) -> io::Result<()> {
        let entries = &mut self.directories.get_mut(directory).expect("made with its handle").entries;
        entries.remove(name).map(|_| ()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
    }

    pub(super) fn sync_directory(&mut self, directory: &str) {
        let directory = self.directories.get_mut(directory).expect("made with its handle");
        directory.device = directory.entries.clone();
    }

    pub(super) fn lock(&mut self, directory: &str, owner: u64) -> io::Result<()> {
        let lock = &mut self.directories.get_mut(directory).expect("made with its handle").locked_by;
        match *lock {
            Some(holder) if holder != owner => Err(io::Error::from_raw_os_error(libc::EWOULDBLOCK)),
            _ => {
                *lock = Some(owner);
                Ok(())
            }
        }
    }

    pub(super) fn new_owner(&mut self) -> u64 {
        self.number()
    }

    /// A storage handle is gone, and with it its files and its lock.
    pub(super) fn release(&mut self, owner: u64) {
        self.open.retain(|_, open| open.owner != owner);
        for directory in self.directories.values_mut() {
            directory.locked_by = directory.locked_by.filter(|&holder| holder != owner);
        }
    }

    /// Change a byte behind everybody's back, on the device and in the cache.
    pub(super) fn damage(&mut self, directory: &str, name: &str, offset: u64, flip: u8) -> io::Result<()> {
        let inode = self.directories[directory].entries.get(name).copied();
        let inode = inode.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?;
        let inode = self.inodes.get_mut(&inode).expect("an entry keeps its inode");
        let (index, within) = (offset / PAGE as u64, (offset % PAGE as u64) as usize);
        for pages in [&mut inode.cache, &mut inode.device] {
            let page = pages.entry(index).or_insert_with(|| Rc::new(Page { version: 0, bytes: [0; PAGE] }));
            Rc::make_mut(page).bytes[within] ^= flip;
        }
        Ok(())
    }

    fn inode_of(&self, file: File) -> Result<u64, Errno> {
        self.open.get(&file.0).map(|open| open.inode).ok_or(Errno(libc::EBADF))
    }

    /// What takes room: files with a name, and files that are open.
    fn bytes_used(&self) -> u64 {
        let named = self.directories.values().flat_map(|directory| directory.entries.values());
        let used: BTreeSet<u64> = named.copied().chain(self.open.values().map(|open| open.inode)).collect();
        used.iter().map(|id| self.inodes[id].bytes.next_multiple_of(PAGE as u64)).sum()
    }

    /// See the module documentation.
    pub(super) fn crash(&mut self, kind: CrashKind, core: &mut Core) {
        for (_, operation) in std::mem::take(&mut self.in_flight) {
            // A write in flight got as far as the seed says; a sync in flight promised nothing yet.
            if let InFlight::Write { file, offset, buffer, .. } = operation
                && let Ok(inode) = self.inode_of(file)
            {
                let count = core.random.below(buffer.len() as u64 + 1) as usize;
                self.put(inode, offset, &buffer[..count]);
            }
        }
        self.open.clear();
        self.faults.clear();
        for directory in self.directories.values_mut() {
            directory.locked_by = None;
            if kind == CrashKind::PowerCut {
                directory.cut_power(core);
            }
        }
        // Also those whose removal was not synced: a later power cut may bring them back.
        let kept =
            self.directories.values().flat_map(|each| each.entries.values().chain(each.device.values()));
        let kept: BTreeSet<u64> = kept.copied().collect();
        self.inodes.retain(|id, _| kept.contains(id));
        if kind == CrashKind::PowerCut {
            let mut version = self.made;
            self.inodes.values_mut().for_each(|inode| inode.cut_power(&mut version, core));
            self.made = version;
        }
    }
}

impl Directory {
    /// Each change since the last sync is kept or lost by itself.
    fn cut_power(&mut self, core: &mut Core) {
        let names: BTreeSet<String> = self.entries.keys().chain(self.device.keys()).cloned().collect();
        for name in names {
            let (new, old) = (self.entries.get(&name).copied(), self.device.get(&name).copied());
            if new != old && core.random.per_mille(500) {
                match old {
                    Some(inode) => self.entries.insert(name, inode),
                    None => self.entries.remove(&name),
                };
            }
        }
        self.device = self.entries.clone();
    }
}

impl Inode {
    /// A sync failed: its pages are no longer dirty and not durable.
    fn forget(&mut self, snapshot: Snapshot, core: &mut Core) {
        for index in snapshot.pages.keys() {
            self.dirty.remove(index);
            if core.random.per_mille(core.settings.failed_sync_keeps_cache_per_mille) {
                continue;
            }
            match self.device.get(index) {
                Some(page) => self.cache.insert(*index, Rc::clone(page)),
                None => self.cache.remove(index),
            };
        }
    }

    fn cut_power(&mut self, version: &mut u64, core: &mut Core) {
        let indexes: BTreeSet<u64> = self.cache.keys().chain(self.device.keys()).copied().collect();
        for index in indexes {
            let (cached, durable) = (self.cache.get(&index).cloned(), self.device.get(&index).cloned());
            let same = match (&cached, &durable) {
                (Some(cached), Some(durable)) => cached.version == durable.version,
                _ => false,
            };
            if let (false, Some(cached)) = (same, cached) {
                *version += 1;
                if let Some(left) = torn(&cached, durable.as_deref(), *version, core) {
                    self.device.insert(index, Rc::new(left));
                }
            }
        }
        // The length reached the device, or did not, or a part of it did.
        if self.bytes > self.device_bytes {
            self.device_bytes = core.random.between(self.device_bytes, self.bytes);
        } else {
            self.device_bytes = self.bytes;
        }
        self.bytes = self.device_bytes;
        self.device.retain(|index, _| index * (PAGE as u64) < self.bytes);
        if let Some(mut last) = self.device.last_entry()
            && let Ok(kept) = usize::try_from(self.bytes - last.key() * PAGE as u64)
            && kept < PAGE
        {
            // Beyond the length there is nothing, and growing again finds zeros.
            Rc::make_mut(last.get_mut()).bytes[kept..].fill(0);
        }
        self.cache = self.device.clone();
        self.dirty.clear();
    }
}

/// What the device has of a page that was not synced; `None`: what it had.
fn torn(cached: &Page, durable: Option<&Page>, version: u64, core: &mut Core) -> Option<Page> {
    match core.random.below(3) {
        0 => None,
        1 => Some(Page { version, bytes: cached.bytes }),
        _ => {
            let mut bytes = durable.map_or([0; PAGE], |page| page.bytes);
            for at in (0..PAGE).step_by(SECTOR) {
                if core.random.per_mille(500) {
                    bytes[at..at + SECTOR].copy_from_slice(&cached.bytes[at..at + SECTOR]);
                }
            }
            Some(Page { version, bytes })
        }
    }
}

fn copy_out(pages: &Pages, offset: u64, into: &mut [u8]) {
    let mut done = 0;
    while done < into.len() {
        let position = offset + done as u64;
        let (index, within) = (position / PAGE as u64, (position % PAGE as u64) as usize);
        let count = (PAGE - within).min(into.len() - done);
        match pages.get(&index) {
            Some(page) => into[done..done + count].copy_from_slice(&page.bytes[within..within + count]),
            None => into[done..done + count].fill(0),
        }
        done += count;
    }
}
