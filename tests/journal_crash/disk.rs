//! A disk in memory that forgets: every 512-byte sector written since the last sync of its file survives a crash or
//! not, by chance, alone or with its page or with all others.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;

use ironpost::journal::Storage;
use ironpost::reactor::File;

const SECTOR: usize = 512;

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }
}

/// Names the seed when a test fails.
pub struct SayOnPanic(pub u64);

impl Drop for SayOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let next = self.0 + 1;
            println!("IRONPOST_CRASH_SEEDS={}..{next} cargo test --test journal_crash", self.0);
        }
    }
}

#[derive(Default, Debug)]
struct Content {
    name: String,
    durable: Vec<u8>,
    cached: Vec<u8>,
    /// Sectors in which the two may differ.
    dirty: BTreeSet<usize>,
}

#[derive(Default, Debug)]
struct Shared {
    files: RefCell<Vec<Content>>,
    /// Which handle has the lock.
    locked: Cell<Option<u64>>,
    handles: Cell<u64>,
    full: Cell<bool>,
}

/// The disk.
#[derive(Default)]
pub struct Disk(Rc<Shared>);

impl Disk {
    /// With those files, durable.
    pub fn of(image: &BTreeMap<String, Vec<u8>>) -> Disk {
        let disk = Disk::default();
        for (name, bytes) in image {
            let content = Content {
                name: name.clone(),
                durable: bytes.clone(),
                cached: bytes.clone(),
                dirty: BTreeSet::new(),
            };
            disk.0.files.borrow_mut().push(content);
        }
        disk
    }

    pub fn of_flipped(image: &BTreeMap<String, Vec<u8>>, name: &str, bit: usize) -> Disk {
        let disk = Disk::of(image);
        disk.flip(name, bit);
        disk
    }

    pub fn handle(&self) -> Handle {
        self.0.handles.set(self.0.handles.get() + 1);
        Handle { shared: self.0.clone(), number: self.0.handles.get() }
    }

    pub fn image(&self) -> BTreeMap<String, Vec<u8>> {
        self.0.files.borrow().iter().map(|file| (file.name.clone(), file.cached.clone())).collect()
    }

    pub fn set_full(&self, full: bool) {
        self.0.full.set(full);
    }

    pub fn unlock(&self) {
        self.0.locked.set(None);
    }

    pub fn write(&self, file: File, offset: u64, bytes: &[u8]) {
        self.0.write(file, offset, bytes);
    }

    pub fn sync(&self, file: File) {
        self.0.sync(file);
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut [u8])) {
        let mut files = self.0.files.borrow_mut();
        let file = files.iter_mut().find(|file| file.name == name).expect("a file of that name");
        change(&mut file.cached);
        file.durable.clone_from(&file.cached);
    }

    /// Damage at rest.
    pub fn flip(&self, name: &str, bit: usize) {
        self.change(name, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
    }

    /// Other bytes.
    pub fn put(&self, name: &str, offset: usize, piece: &[u8]) {
        self.change(name, |bytes| bytes[offset..offset + piece.len()].copy_from_slice(piece));
    }

    /// A page that was lost.
    pub fn zero(&self, name: &str, offset: usize) {
        self.change(name, |bytes| bytes[offset..offset + 4_096].fill(0));
    }

    /// Power off and on; or only the end of the process, after which the kernel still has what was not synced.
    pub fn crash(&self, random: &mut Random) {
        let kind = random.below(5);
        if kind == 4 {
            return;
        }
        for file in self.0.files.borrow_mut().iter_mut() {
            let mut fate = BTreeMap::new();
            for sector in std::mem::take(&mut file.dirty) {
                let unit = if kind == 0 { sector } else { sector * SECTOR / 4_096 };
                let kept = match kind {
                    0 | 1 => *fate.entry(unit).or_insert_with(|| random.below(2) == 0),
                    2 => true,
                    _ => false,
                };
                if kept {
                    let range = sector * SECTOR..(sector + 1) * SECTOR;
                    file.durable[range.clone()].copy_from_slice(&file.cached[range]);
                }
            }
            file.cached.clone_from(&file.durable);
        }
    }
}

impl Shared {
    fn write(&self, file: File, offset: u64, bytes: &[u8]) {
        let mut files = self.files.borrow_mut();
        let file = &mut files[file.0 as usize];
        let start = offset as usize;
        file.cached[start..start + bytes.len()].copy_from_slice(bytes);
        if !bytes.is_empty() {
            file.dirty.extend(start / SECTOR..=(start + bytes.len() - 1) / SECTOR);
        }
    }

    fn sync(&self, file: File) {
        let mut files = self.files.borrow_mut();
        let Content { durable, cached, dirty, .. } = &mut files[file.0 as usize];
        for sector in std::mem::take(dirty) {
            let range = sector * SECTOR..(sector + 1) * SECTOR;
            durable[range.clone()].copy_from_slice(&cached[range]);
        }
    }
}

/// One process's view of the disk.
#[derive(Debug)]
pub struct Handle {
    shared: Rc<Shared>,
    number: u64,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.shared.locked.get() == Some(self.number) {
            self.shared.locked.set(None);
        }
    }
}

impl Storage for Handle {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.shared.files.borrow().iter().map(|file| file.name.clone()).collect())
    }

    fn open(&self, name: &str) -> io::Result<File> {
        let files = self.shared.files.borrow();
        let index = files.iter().position(|file| file.name == name).ok_or(io::ErrorKind::NotFound)?;
        Ok(File(index as i32))
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<File> {
        if self.shared.full.get() {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        let zeros = vec![0; bytes as usize];
        let mut files = self.shared.files.borrow_mut();
        assert!(files.iter().all(|file| file.name != name), "{name} is new");
        let dirty = BTreeSet::new();
        files.push(Content { name: name.to_owned(), durable: zeros.clone(), cached: zeros, dirty });
        Ok(File(files.len() as i32 - 1))
    }

    fn len(&self, file: File) -> io::Result<u64> {
        Ok(self.shared.files.borrow()[file.0 as usize].cached.len() as u64)
    }

    fn read_at(&self, file: File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let files = self.shared.files.borrow();
        buffer.copy_from_slice(&files[file.0 as usize].cached[offset as usize..][..buffer.len()]);
        Ok(())
    }

    fn write_at(&self, file: File, offset: u64, buffer: &[u8]) -> io::Result<()> {
        self.shared.write(file, offset, buffer);
        Ok(())
    }

    fn sync(&self, file: File) -> io::Result<()> {
        self.shared.sync(file);
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        unimplemented!("nothing here leaves {name} behind")
    }

    fn lock(&self) -> io::Result<()> {
        if self.shared.locked.get().is_some() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.shared.locked.set(Some(self.number));
        Ok(())
    }
}
