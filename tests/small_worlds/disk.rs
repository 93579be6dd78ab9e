//! A disk in memory whose whole state is a value: copied in an instant, and with a list of all that a crash may leave of
//! it.
//!
//! A crash keeps or drops each 512-byte sector that was written since the last sync of its file, by itself. So what it
//! may leave is every subset of the sectors in which the device and the page cache differ.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::rc::Rc;

use ironpost::journal::Storage;
use ironpost::reactor::File;

const PAGE: usize = 4_096;
const SECTOR: usize = 512;

/// Up to so many sectors every subset is a crash of its own; beyond, see [`Image::survivors`].
const SECTORS_ALL_SUBSETS: usize = 8;

/// What a page has, and its hash if that was asked for: images share most of their pages.
#[derive(Clone, Debug)]
struct Page {
    bytes: [u8; PAGE],
    hash: Cell<Option<u64>>,
}

impl Page {
    fn zeros() -> Page {
        Page { bytes: [0; PAGE], hash: Cell::new(None) }
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..][..bytes.len()].copy_from_slice(bytes);
        self.hash.set(None);
    }

    fn hash(&self) -> u64 {
        let hash = self.hash.get().unwrap_or_else(|| {
            let mut hasher = DefaultHasher::new();
            self.bytes.hash(&mut hasher);
            hasher.finish()
        });
        self.hash.set(Some(hash));
        hash
    }
}

#[derive(Clone, Debug)]
struct Content {
    name: String,
    cached: Vec<Rc<Page>>,
    /// What the device has where it may differ.
    device: BTreeMap<usize, Rc<Page>>,
}

/// What is on the disk, and what the kernel still has to write to it.
#[derive(Clone, Default, Debug)]
pub struct Image {
    files: Vec<Content>,
}

/// A sector that reached the device before a crash: file, page, sector of the page.
type Place = (usize, usize, usize);

impl Image {
    /// Every image that a loss of power may leave of this one; the first is that of a mere end of the process, after which
    /// everything is there.
    ///
    /// All subsets of up to eight sectors. Of more, which only a block of several pages has: every subset of its pages,
    /// and with each page torn in every place, forwards and backwards, the others there.
    pub fn survivors(&self) -> Vec<Image> {
        let differing = self.differing();
        if differing.len() <= SECTORS_ALL_SUBSETS {
            return subsets(differing.len())
                .map(|bits| self.with_lost(&differing, |at| bits >> at & 1 == 1))
                .collect();
        }
        let mut pages: Vec<(usize, usize)> = differing.iter().map(|(file, page, _)| (*file, *page)).collect();
        pages.dedup();
        assert!(
            pages.len() <= SECTORS_ALL_SUBSETS,
            "{} pages of one block are more than there should be",
            pages.len()
        );
        let page_of = |at: usize| pages.iter().position(|page| *page == (differing[at].0, differing[at].1));
        let mut images: Vec<Image> = subsets(pages.len())
            .map(|bits| {
                self.with_lost(&differing, |at| page_of(at).is_some_and(|page| bits >> page & 1 == 1))
            })
            .collect();
        for page in 0..pages.len() {
            for torn in 1..PAGE / SECTOR {
                images.push(
                    self.with_lost(&differing, |at| page_of(at) == Some(page) && differing[at].2 >= torn),
                );
                images.push(
                    self.with_lost(&differing, |at| page_of(at) == Some(page) && differing[at].2 < torn),
                );
            }
        }
        images
    }

    /// Hashes what a process would find after a crash that has left this.
    pub fn hash_found(&self, hasher: &mut impl Hasher) {
        for file in &self.files {
            (&file.name, file.cached.len()).hash(hasher);
            file.cached.iter().for_each(|page| hasher.write_u64(page.hash()));
        }
    }

    /// After a loss of power that came when everything was written.
    pub fn synced(mut self) -> Image {
        self.files.iter_mut().for_each(|file| file.device.clear());
        self
    }

    /// Sectors that are not on the device as they were written.
    fn differing(&self) -> Vec<Place> {
        let mut places = Vec::new();
        for (number, file) in self.files.iter().enumerate() {
            for (index, device) in &file.device {
                let cached = &file.cached[*index];
                let differs = |sector: &usize| cached.bytes[range(*sector)] != device.bytes[range(*sector)];
                places.extend((0..PAGE / SECTOR).filter(differs).map(|sector| (number, *index, sector)));
            }
        }
        places
    }

    fn with_lost(&self, places: &[Place], is_lost: impl Fn(usize) -> bool) -> Image {
        let mut left = self.clone();
        for (at, (file, page, sector)) in places.iter().enumerate() {
            if is_lost(at) {
                let old = &self.files[*file].device[page];
                let page = Rc::make_mut(&mut left.files[*file].cached[*page]);
                page.write(range(*sector).start, &old.bytes[range(*sector)]);
            }
        }
        left.files.iter_mut().for_each(|file| file.device.clear());
        left
    }
}

/// As bits; the empty one first.
fn subsets(count: usize) -> std::ops::Range<usize> {
    0..1 << count
}

fn range(sector: usize) -> std::ops::Range<usize> {
    sector * SECTOR..(sector + 1) * SECTOR
}

/// The disk of one process. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    image: Rc<RefCell<Image>>,
    /// Writes and syncs after which the process dies: each further one fails.
    operations_left: Rc<Cell<Option<u32>>>,
}

impl Disk {
    pub fn of(image: Image) -> Disk {
        Disk { image: Rc::new(RefCell::new(image)), operations_left: Rc::default() }
    }

    pub fn image(&self) -> Image {
        self.image.borrow().clone()
    }

    pub fn die_after(&self, operations: u32) {
        self.operations_left.set(Some(operations));
    }

    /// Nothing fails any more.
    pub fn live(&self) {
        self.operations_left.set(None);
    }

    fn take_operation(&self) -> io::Result<()> {
        if let Some(left) = self.operations_left.get() {
            let left = left.checked_sub(1).ok_or_else(|| io::Error::from_raw_os_error(libc::EIO))?;
            self.operations_left.set(Some(left));
        }
        Ok(())
    }
}

impl Storage for Disk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.image.borrow().files.iter().map(|file| file.name.clone()).collect())
    }

    fn open(&self, name: &str) -> io::Result<File> {
        let image = self.image.borrow();
        let index = image.files.iter().position(|file| file.name == name).ok_or(io::ErrorKind::NotFound)?;
        Ok(File(index as i32))
    }

    /// Durable when it returns, as the trait demands: no part of it can be lost.
    fn create(&self, name: &str, bytes: u64) -> io::Result<File> {
        self.take_operation()?;
        let mut image = self.image.borrow_mut();
        assert!(image.files.iter().all(|file| file.name != name), "{name} is new");
        let zeros = Rc::new(Page::zeros());
        let cached = vec![zeros; bytes as usize / PAGE];
        image.files.push(Content { name: name.to_owned(), cached, device: BTreeMap::new() });
        Ok(File(image.files.len() as i32 - 1))
    }

    fn len(&self, file: File) -> io::Result<u64> {
        Ok((self.image.borrow().files[file.0 as usize].cached.len() * PAGE) as u64)
    }

    fn read_at(&self, file: File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let image = self.image.borrow();
        let pages = &image.files[file.0 as usize].cached;
        let mut done = 0;
        while done < buffer.len() {
            let at = offset as usize + done;
            let count = (PAGE - at % PAGE).min(buffer.len() - done);
            buffer[done..done + count].copy_from_slice(&pages[at / PAGE].bytes[at % PAGE..][..count]);
            done += count;
        }
        Ok(())
    }

    fn write_at(&self, file: File, offset: u64, buffer: &[u8]) -> io::Result<()> {
        self.take_operation()?;
        let mut image = self.image.borrow_mut();
        let Content { cached, device, .. } = &mut image.files[file.0 as usize];
        let mut done = 0;
        while done < buffer.len() {
            let at = offset as usize + done;
            let count = (PAGE - at % PAGE).min(buffer.len() - done);
            let page = &mut cached[at / PAGE];
            device.entry(at / PAGE).or_insert_with(|| Rc::clone(page));
            Rc::make_mut(page).write(at % PAGE, &buffer[done..done + count]);
            done += count;
        }
        Ok(())
    }

    /// One without anything to do is no moment of its own.
    fn sync(&self, file: File) -> io::Result<()> {
        if self.image.borrow().files[file.0 as usize].device.is_empty() {
            return Ok(());
        }
        self.take_operation()?;
        self.image.borrow_mut().files[file.0 as usize].device.clear();
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        unimplemented!("nothing here leaves {name} behind")
    }

    fn lock(&self) -> io::Result<()> {
        Ok(())
    }
}
