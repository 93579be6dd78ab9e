//! How much of its memory the process has in use: of what its control group, its host and its configuration let it have, the one of
//! which least is left.
//!
//! Decides nothing: the shards are told when that changes, and their brokers decide what gives way. A thread of its own looks, for
//! reading what the kernel says takes some tens of microseconds.
//!
//! | may have | in use |
//! |---|---|
//! | `memory_bytes_max` of the configuration | resident pages of the process that no file has (`/proc/self/statm`) |
//! | `memory.max` of its control group (v2), or of one above | `memory.current` without `inactive_file`, which the kernel gives back by itself |
//! | `MemTotal` of the host | that without `MemAvailable` |

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::watch::{Command, Control};
use crate::limits::MEMORY_LOOK_MS;

/// Bytes of a page of memory, of which `statm` counts.
const PAGE_BYTES: u64 = 4_096;

/// Where to look. A test has files of its own there.
#[derive(Clone, Debug)]
struct Sources {
    proc: PathBuf,
    groups: PathBuf,
    bytes_max: Option<u64>,
}

impl Sources {
    /// In percent of what there may be, rounded down; 0 of what cannot be read.
    fn look(&self) -> u8 {
        let own = self.bytes_max.and_then(|max| Some((self.resident()?, max)));
        let all = [own, self.group(), self.host()];
        let percent = |(used, max): (u64, u64)| used.saturating_mul(100) / max.max(1);
        let most = all.into_iter().flatten().map(percent).max().unwrap_or(0);
        u8::try_from(most).unwrap_or(u8::MAX).min(100)
    }

    fn resident(&self) -> Option<u64> {
        let text = fs::read_to_string(self.proc.join("self/statm")).ok()?;
        let mut pages = text.split_whitespace().skip(1).map(str::parse::<u64>);
        let (resident, shared) = (pages.next()?.ok()?, pages.next()?.ok()?);
        resident.saturating_sub(shared).checked_mul(PAGE_BYTES)
    }

    /// Of the group that has least left: what holds for one holds for those in it.
    fn group(&self) -> Option<(u64, u64)> {
        let text = fs::read_to_string(self.proc.join("self/cgroup")).ok()?;
        // The line of version 2 [cgroups(7)].
        let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let folder = self.groups.join(path);
        let folders = folder.ancestors().take_while(|folder| folder.starts_with(&self.groups));
        let left =
            |(used, max): &(u64, u64)| max.saturating_sub(*used) as u128 * 1_000 / u128::from(*max).max(1);
        folders.filter_map(of_group).min_by_key(left)
    }

    fn host(&self) -> Option<(u64, u64)> {
        let text = fs::read_to_string(self.proc.join("meminfo")).ok()?;
        let (total, available) = (field(&text, "MemTotal:")?, field(&text, "MemAvailable:")?);
        Some((total.saturating_sub(available), total))
    }
}

fn of_group(folder: &Path) -> Option<(u64, u64)> {
    let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
    // "max" is no bound, and no number.
    let max = read("memory.max")?.trim().parse().ok()?;
    let current: u64 = read("memory.current")?.trim().parse().ok()?;
    let cached = read("memory.stat").and_then(|text| field(&text, "inactive_file")).unwrap_or(0);
    Some((current.saturating_sub(cached), max))
}

/// The number behind that name, at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Starts the thread that tells the shards.
pub(super) fn watch(controls: Vec<Arc<Control>>, bytes_max: Option<u64>) -> io::Result<()> {
    let sources = Sources { proc: "/proc".into(), groups: "/sys/fs/cgroup".into(), bytes_max };
    thread::Builder::new().name("memory".into()).spawn(move || {
        let mut told = 0;
        loop {
            let percent = sources.look();
            if percent != told {
                told = percent;
                controls.iter().for_each(|control| control.post(Command::MemoryInUse(percent)));
            }
            pause();
        }
    })?;
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a thread that does nothing else; no shard waits for it")]
fn pause() {
    thread::sleep(Duration::from_millis(MEMORY_LOOK_MS));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(files: &[(&str, &str)]) -> (tempfile::TempDir, Sources) {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let (proc, groups) = (folder.path().join("proc"), folder.path().join("groups"));
        (folder, Sources { proc, groups, bytes_max: None })
    }

    const HOST: (&str, &str) = ("proc/meminfo", "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  700 kB\n");

    #[test]
    fn what_can_be_given_back_is_not_in_use() {
        assert_eq!(sources(&[HOST]).1.look(), 30);
        let group = [
            ("proc/self/cgroup", "12:cpu:/x\n0::/system.slice/ironpost.service\n"),
            ("groups/system.slice/ironpost.service/memory.max", "1000\n"),
            ("groups/system.slice/ironpost.service/memory.current", "900\n"),
            ("groups/system.slice/ironpost.service/memory.stat", "anon 5\ninactive_file 400\n"),
        ];
        assert_eq!(sources(&group).1.look(), 50);
    }

    #[test]
    fn the_bound_of_which_least_is_left_counts() {
        let files = [
            HOST,
            ("proc/self/statm", "9999 23 3 4 5 6 7\n"),
            ("proc/self/cgroup", "0::/a/b\n"),
            ("groups/a/b/memory.max", "max\n"),
            ("groups/a/b/memory.current", "7\n"),
            ("groups/a/memory.max", "100\n"),
            ("groups/a/memory.current", "90\n"),
        ];
        let (_folder, mut sources) = sources(&files);
        assert_eq!(sources.look(), 90, "a group above has a bound");
        sources.bytes_max = Some(20 * PAGE_BYTES * 100 / 95);
        assert_eq!(sources.look(), 95, "the process's own");
        sources.bytes_max = Some(1);
        assert_eq!(sources.look(), 100);
    }

    #[test]
    fn what_cannot_be_read_bounds_nothing() {
        assert_eq!(sources(&[("proc/self/cgroup", "0::/gone\n"), ("proc/meminfo", "")]).1.look(), 0);
    }

    #[test]
    fn this_host_says_something() {
        let sources =
            Sources { proc: "/proc".into(), groups: "/sys/fs/cgroup".into(), bytes_max: Some(1 << 20) };
        assert_eq!(sources.look(), 100, "a test has more than a mebibyte");
        assert!(sources.host().is_some_and(|(used, total)| used < total));
    }
}
