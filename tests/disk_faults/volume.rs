//! An ext4 in an image file: full, read-only, or failing at chosen places.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::disk::{Disk, Make, run};

const PAGE: u64 = 4_096;

/// A mounted image, and what takes its room.
pub struct Volume {
    disk: Disk,
    /// Below the image; unmounted after it.
    thin: Option<Thin>,
}

/// Part of a file, in bytes, and where it lies in the image.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    pub logical: u64,
    pub physical: u64,
    pub bytes: u64,
}

impl Volume {
    /// `None`, and a line that says why, where that is not permitted.
    pub fn new(bytes: u64) -> Option<Volume> {
        Volume::formatted(bytes, "has_journal")
    }

    /// The same without a log of its own: all of its metadata is at the front, and nothing but files behind.
    pub fn plain(bytes: u64) -> Option<Volume> {
        Volume::formatted(bytes, "^has_journal")
    }

    fn formatted(bytes: u64, features: &'static str) -> Option<Volume> {
        let parent = std::env::temp_dir();
        let make = Make { bytes, parent: &parent, features, mount_options: "errors=remount-ro" };
        Volume::made(Disk::make(&make), None)
    }

    /// With the image in a file system of memory that has no more room than that: what the image promises is not all
    /// there.
    pub fn thin(bytes: u64, room: u64) -> Option<Volume> {
        let thin = match Thin::new(room) {
            Ok(thin) => thin,
            Err(reason) => return Volume::made(Err(reason), None),
        };
        let parent = thin.directory.path();
        let make = Make { bytes, parent, features: "has_journal", mount_options: "errors=remount-ro" };
        Volume::made(Disk::make(&make), Some(thin))
    }

    fn made(disk: Result<Disk, String>, thin: Option<Thin>) -> Option<Volume> {
        match disk {
            Ok(disk) => Some(Volume { disk, thin }),
            Err(reason) => {
                eprintln!("skipped: no image can be mounted here: {reason}");
                None
            }
        }
    }

    pub fn data(&self) -> PathBuf {
        self.disk.mount_point().join("data")
    }

    /// Bytes that are free.
    pub fn room(&self) -> u64 {
        let text = must("df", &["--output=avail", "-B1", &self.disk.mount_point().display().to_string()]);
        text.lines().nth(1).and_then(|line| line.trim().parse().ok()).expect("a number in the output of df")
    }

    /// A file of somebody else takes all room but that.
    pub fn take_room(&self, but: u64) {
        let bytes = self.room().saturating_sub(but) / PAGE * PAGE;
        // Its own metadata takes some too.
        let path = self.foreign();
        let taken = run("fallocate", &["-l", &bytes.to_string(), &path]);
        if taken.is_err() {
            must("fallocate", &["-l", &bytes.saturating_sub(64 << 10).to_string(), &path]);
        }
        assert!(self.room() <= but + (128 << 10), "{} bytes are left", self.room());
    }

    /// It goes.
    pub fn give_room(&self) {
        std::fs::remove_file(self.foreign()).expect("the foreign file can be removed");
    }

    fn foreign(&self) -> String {
        self.disk.mount_point().join("foreign").display().to_string()
    }

    /// Every write, sync and read fails from now on.
    pub fn shut_down(&self) {
        self.disk.shut_down().expect("the file system can be shut down");
    }

    /// The file system finds an error in itself, and the kernel makes it read-only.
    pub fn find_error(&self) {
        let device = self.disk.device.clone().expect("attached");
        let name = Path::new(&device).file_name().expect("a device has a name").to_owned();
        let trigger = Path::new("/sys/fs/ext4").join(name).join("trigger_fs_error");
        std::fs::write(trigger, "1").expect("the kernel can be told of an error");
    }

    /// Somebody mounts it again in that way, in place.
    pub fn remount(&self, how: &str) -> Result<(), String> {
        let options = format!("remount,{how}");
        run("mount", &["-o", &options, &self.disk.mount_point().display().to_string()]).map(drop)
    }

    /// Unmounts, repairs and mounts again.
    pub fn repair(&mut self) {
        self.disk.unmount().expect("it can be unmounted");
        self.check_and_mount();
    }

    fn check_and_mount(&mut self) {
        let device = self.disk.device.clone().expect("attached");
        // Its exit status is 1 if it found something to correct.
        let _ = run("e2fsck", &["-f", "-y", &device]);
        must("e2fsck", &["-f", "-n", &device]);
        self.disk.mount().expect("it can be mounted again");
    }

    /// Where a file lies.
    pub fn extents(&self, file: &Path) -> Vec<Extent> {
        must("sync", &["-f", &file.display().to_string()]);
        let text = must("filefrag", &["-v", "-b4096", &file.display().to_string()]);
        let number = |field: &str| field.trim().trim_end_matches(':').parse::<u64>().ok();
        text.lines()
            .filter_map(|line| {
                // "   0:        0..    2047:      34816..     36863:   2048:             last,eof"
                let fields: Vec<&str> = line.split([':', '.']).filter(|field| !field.is_empty()).collect();
                let [_, from, _, physical, _, length, ..] = fields[..] else { return None };
                let (logical, physical) = (number(from)? * PAGE, number(physical)? * PAGE);
                Some(Extent { logical, physical, bytes: number(length)? * PAGE })
            })
            .collect()
    }

    /// The image has no room for that part of a file any more, which must hold zeros only: writing there fails when the
    /// kernel comes to it.
    pub fn starve(&self, file: &Path, from: u64, to: u64) {
        let image = self.disk.image().display().to_string();
        for extent in self.extents(file) {
            let (begin, end) = (extent.logical.max(from), (extent.logical + extent.bytes).min(to));
            if begin < end {
                let offset = (extent.physical + begin - extent.logical).to_string();
                must("fallocate", &["-p", "-o", &offset, "-l", &(end - begin).to_string(), &image]);
            }
        }
        self.thin.as_ref().expect("made thin").fill();
    }

    /// There is room for it again.
    pub fn feed(&self) {
        self.thin.as_ref().expect("made thin").empty();
    }

    /// The device ends before the first place of that part of a file: reading behind it fails. Returns what was there.
    pub fn cut(&self, file: &Path, from: u64) -> Cut {
        let extents = self.extents(file);
        let places = extents.iter().filter(|extent| extent.logical + extent.bytes > from);
        let place = places.map(|extent| extent.physical + from.saturating_sub(extent.logical)).min();
        let place = place.expect("the file has bytes there");
        let image = OpenOptions::new().read(true).write(true).open(self.disk.image()).expect("an image");
        must("sync", &["-f", &self.disk.mount_point().display().to_string()]);
        let end = image.metadata().expect("a length").len();
        let mut bytes = vec![0; usize::try_from(end - place).expect("fits memory")];
        image.read_exact_at(&mut bytes, place).expect("the image can be read");
        image.set_len(place).expect("the image can be cut");
        // What the kernel remembers of the file must not hide that.
        for entry in std::fs::read_dir(file.parent().expect("in a directory")).expect("a directory").flatten()
        {
            must(
                "dd",
                &[
                    &format!("of={}", entry.path().display()),
                    "oflag=nocache",
                    "conv=notrunc,fdatasync",
                    "count=0",
                    "status=none",
                ],
            );
        }
        Cut { place, bytes }
    }

    /// Another device, with all that was there.
    pub fn mend(&mut self, cut: &Cut) {
        self.disk.unmount().expect("it can be unmounted");
        let image = OpenOptions::new().write(true).open(self.disk.image()).expect("an image");
        image.write_all_at(&cut.bytes, cut.place).expect("the image can be written");
        self.check_and_mount();
    }
}

/// What a shorter device does not have.
pub struct Cut {
    place: u64,
    bytes: Vec<u8>,
}

/// A file system of memory that is too small.
struct Thin {
    directory: TempDir,
}

impl Thin {
    fn new(room: u64) -> Result<Thin, String> {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let size = format!("size={room}");
        run("mount", &["-t", "tmpfs", "-o", &size, "none", &directory.path().display().to_string()])?;
        Ok(Thin { directory })
    }

    fn filler(&self) -> PathBuf {
        self.directory.path().join("filler")
    }

    /// To the last byte.
    fn fill(&self) {
        let mut file = File::create(self.filler()).expect("an empty file takes no room");
        let zeros = vec![0; 1 << 20];
        while file.write_all(&zeros).is_ok() {}
    }

    fn empty(&self) {
        std::fs::remove_file(self.filler()).expect("the filler can be removed");
    }
}

impl Drop for Thin {
    fn drop(&mut self) {
        if let Err(error) = run("umount", &[&self.directory.path().display().to_string()]) {
            eprintln!("not cleaned up: {error}");
        }
    }
}

/// A command that cannot fail where the image could be mounted.
fn must(program: &str, arguments: &[&str]) -> String {
    run(program, arguments).unwrap_or_else(|error| panic!("{error}"))
}
