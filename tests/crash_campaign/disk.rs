//! A file system that can be made to crash: ext4 in an image file, mounted through a loop device.
//!
//! `EXT4_IOC_SHUTDOWN` without flushing the log stops it as a power failure would: what was not synced is not on the
//! image, and every call from then on fails with EIO. Unmounting drops the page cache, so that the next mount sees
//! only what a sync had promised; killing the process alone loses nothing that was written. Needs root.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::broker::clock;

/// `_IOR('X', 125, __u32)` of fs/ext4/ext4.h.
const EXT4_IOC_SHUTDOWN: libc::Ioctl = 0x8004_587D_u32 as libc::Ioctl;

/// Do not write the log first: what it holds is lost.
const EXT4_GOING_FLAGS_NOLOGFLUSH: u32 = 2;

/// Of the campaign's.
const IMAGE_BYTES: u64 = 768 << 20;

/// Names of the directories that hold an image and its mount point; the process that made it follows.
const PREFIX: &str = "ironpost-crash-";

/// How long the kernel may keep files of an ended process open: a ring is torn down after its process.
const UNMOUNT_TIME: Duration = Duration::from_secs(10);

/// A mounted image. Dropping it leaves nothing behind.
pub struct Disk {
    directory: TempDir,
    mount_options: &'static str,
    pub device: Option<String>,
    mounted: bool,
}

/// What an image is like.
pub struct Make<'a> {
    pub bytes: u64,
    /// Where the image lies.
    pub parent: &'a Path,
    pub features: &'static str,
    pub mount_options: &'static str,
}

impl Disk {
    /// Makes, formats and mounts one. The error says why that is not possible here.
    pub fn new() -> Result<Disk, String> {
        let parent = std::env::temp_dir();
        Disk::make(&Make {
            bytes: IMAGE_BYTES,
            parent: &parent,
            features: "has_journal",
            mount_options: "defaults",
        })
    }

    /// The same of another kind. All of its room is root's too.
    pub fn make(make: &Make) -> Result<Disk, String> {
        remove_leftovers();
        let name = format!("{PREFIX}{}-", std::process::id());
        let directory = tempfile::Builder::new().prefix(&name).tempdir_in(make.parent);
        let directory = directory.map_err(|error| error.to_string())?;
        let mut disk = Disk { directory, mount_options: make.mount_options, device: None, mounted: false };
        let image = disk.image();
        File::create(&image)
            .and_then(|file| file.set_len(make.bytes))
            .and_then(|()| std::fs::create_dir(disk.mount_point()))
            .map_err(|error| format!("no image: {error}"))?;
        let image = image.display().to_string();
        run("mkfs.ext4", &["-q", "-F", "-m", "0", "-b", "4096", "-O", make.features, &image])?;
        disk.device = Some(run("losetup", &["--find", "--show", &image])?.trim().to_owned());
        disk.mount()?;
        Ok(disk)
    }

    pub fn image(&self) -> PathBuf {
        self.directory.path().join("image")
    }

    pub fn mount_point(&self) -> PathBuf {
        self.directory.path().join("mounted")
    }

    /// The crash.
    pub fn shut_down(&self) -> io::Result<()> {
        let root = File::open(self.mount_point())?;
        let flags = EXT4_GOING_FLAGS_NOLOGFLUSH;
        // SAFETY: the call reads one u32 through the pointer, which is valid for the call, and touches no other memory
        // of ours; the descriptor is open. The standard library has no call for it.
        let result = unsafe { libc::ioctl(root.as_raw_fd(), EXT4_IOC_SHUTDOWN, &raw const flags) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Power comes back: what the page cache still had is gone, and the file system's own log is replayed.
    pub fn mount_again(&mut self) -> Result<(), String> {
        self.unmount()?;
        self.mount()
    }

    /// Unmounts in order, lets `fsck.ext4` look without changing anything, and mounts again.
    pub fn check(&mut self) -> Result<(), String> {
        self.unmount()?;
        let device = self.device.clone().expect("attached since it was made");
        run("fsck.ext4", &["-n", "-f", &device])?;
        self.mount()
    }

    pub fn mount(&mut self) -> Result<(), String> {
        let device = self.device.clone().expect("attached since it was made");
        let mount_point = self.mount_point().display().to_string();
        run("mount", &["-t", "ext4", "-o", self.mount_options, &device, &mount_point])?;
        self.mounted = true;
        Ok(())
    }

    pub fn unmount(&mut self) -> Result<(), String> {
        let begun = clock();
        let mount_point = self.mount_point().display().to_string();
        loop {
            match run("umount", &[&mount_point]) {
                Ok(_) => {
                    self.mounted = false;
                    return Ok(());
                }
                Err(error) if begun.elapsed() > UNMOUNT_TIME => return Err(error),
                Err(_) => std::thread::yield_now(),
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let undone = if self.mounted { self.unmount() } else { Ok(()) };
        let undone = undone.and(match &self.device {
            Some(device) => run("losetup", &["--detach", device]).map(drop),
            None => Ok(()),
        });
        if let Err(error) = undone {
            eprintln!("not cleaned up: {error}");
        }
    }
}

/// What a run left behind that could not clean up, because it was killed itself.
fn remove_leftovers() {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        let (Some(device), Some(mount_point)) = (fields.next(), fields.next()) else { continue };
        let Some((_, rest)) = mount_point.split_once(PREFIX) else { continue };
        let maker = rest.split('-').next().unwrap_or_default();
        if device.starts_with("/dev/loop") && !Path::new("/proc").join(maker).exists() {
            eprintln!("an earlier run left {device} at {mount_point}: removed");
            let removed = run("umount", &[mount_point]).and_then(|_| run("losetup", &["--detach", device]));
            let directory = Path::new(mount_point).parent().map(std::fs::remove_dir_all);
            if let (Err(error), _) = (removed, directory) {
                eprintln!("not removed: {error}");
            }
        }
    }
}

/// Runs a command to its end; its output, or what it complained about.
pub fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    // Debian keeps these where only root looks.
    let search = "/usr/sbin:/usr/bin:/sbin:/bin";
    let output = Command::new(program).args(arguments).env("PATH", search).output();
    let output = output.map_err(|error| format!("cannot run {program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&said).trim()))
}
