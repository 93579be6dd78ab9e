//! What a process costs: its CPU time, its memory, and the kernel's memory beside it. Also which CPU runs what.
//!
//! Decides where each figure comes from: CPU from the process's CPU clock (nanoseconds) with user and system split by
//! `/proc/PID/stat` (ticks of 10 ms); user memory from `smaps_rollup`; kernel memory from `Slab` in `/proc/meminfo` and
//! the caches of `/proc/slabinfo`. It reads and never changes another process. Called by the scenarios.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::mem;
use std::ops::Add;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// CPU time spent so far, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CpuTime {
    /// User and system together, exact.
    pub total_us: f64,
    /// Rounded to clock ticks.
    pub user_us: f64,
    /// Rounded to clock ticks.
    pub system_us: f64,
}

/// The CPU time of process `pid`, all its threads together.
pub fn cpu_time(pid: u32) -> Result<CpuTime> {
    let stat =
        fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} is gone"))?;
    let (user_us, system_us) =
        parse_stat(&stat).with_context(|| format!("/proc/{pid}/stat is not understood"))?;
    let mut clock: libc::clockid_t = 0;
    // SAFETY: `clock` lives across the call, which writes one clockid_t; an unknown process is an error code.
    let found = unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &mut clock) };
    if found != 0 {
        bail!("process {pid} has no CPU clock: {}", io::Error::from_raw_os_error(found));
    }
    Ok(CpuTime { total_us: read_clock_us(clock)?, user_us, system_us })
}

/// This process's own CPU time in microseconds.
pub fn own_cpu_us() -> Result<f64> {
    read_clock_us(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// The calling thread's own CPU time in microseconds.
pub fn own_thread_cpu_us() -> Result<f64> {
    read_clock_us(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// From now on the calling thread runs only while no ordinary thread wants its CPU, and stops at once when one does.
pub fn step_back() -> Result<()> {
    let parameter = libc::sched_param { sched_priority: 0 };
    // SAFETY: 0 is the calling thread; `parameter` lives across the call, which only reads it.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &parameter) } < 0 {
        return Err(io::Error::last_os_error()).context("entering the idle scheduling class");
    }
    Ok(())
}

fn read_clock_us(clock: libc::clockid_t) -> Result<f64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` lives across the call, which writes one timespec.
    if unsafe { libc::clock_gettime(clock, &mut time) } < 0 {
        return Err(io::Error::last_os_error()).context("reading a CPU clock");
    }
    Ok(time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3)
}

/// User and system microseconds from a line of `/proc/PID/stat`. The command's name may hold spaces and parentheses.
fn parse_stat(stat: &str) -> Option<(f64, f64)> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    // Fields 14 and 15 of proc(5), counted from field 3. USER_HZ is 100 on every Linux architecture of today.
    Some((ticks(11)? * 10_000.0, ticks(12)? * 10_000.0))
}

/// Context switches of a process, voluntary and forced, all its threads together.
pub fn context_switches(pid: u32) -> Result<u64> {
    sum_over_threads(pid, "status", |status| {
        let field = |name| kilobytes_or_count(status, name).unwrap_or(0);
        Some(field("voluntary_ctxt_switches:") + field("nonvoluntary_ctxt_switches:"))
    })
}

/// How long the threads of a process were ready to run while something else had their CPU, in microseconds, all
/// together: a server of several busy threads may have waited longer than the clock went.
pub fn kept_waiting_us(pid: u32) -> Result<f64> {
    sum_over_threads(pid, "schedstat", parse_schedstat)
}

/// The CPU time of a process by the names of its threads, in microseconds. Threads that are numbered (`token-0`, `token-1`) are
/// one name (`token`). A thread that ends meanwhile is left out.
pub fn cpu_by_thread(pid: u32) -> Result<BTreeMap<String, f64>> {
    let threads = format!("/proc/{pid}/task");
    let mut by_name = BTreeMap::new();
    for thread in fs::read_dir(&threads).with_context(|| format!("reading {threads}"))? {
        let path = thread?.path();
        let file = |name: &str| fs::read_to_string(path.join(name)).ok();
        let Some((name, schedstat)) = file("comm").zip(file("schedstat")) else { continue };
        // The run time, in nanoseconds, where `stat` has clock ticks.
        let run_ns = schedstat.split_whitespace().next().and_then(|number| number.parse::<f64>().ok());
        let run_us = run_ns.with_context(|| format!("{}/schedstat is not understood", path.display()))? / 1e3;
        *by_name.entry(without_number(name.trim()).to_owned()).or_insert(0.0) += run_us;
    }
    Ok(by_name)
}

fn without_number(name: &str) -> &str {
    match name.rsplit_once('-') {
        Some((kind, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => kind,
        _ => name,
    }
}

/// What a file of `/proc/PID/task/TID` says, added up. A thread that ends meanwhile is left out.
fn sum_over_threads<T: Default + Add<Output = T>>(
    pid: u32,
    file: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<T> {
    let threads = format!("/proc/{pid}/task");
    let mut sum = T::default();
    for thread in fs::read_dir(&threads).with_context(|| format!("reading {threads}"))? {
        let path = thread?.path().join(file);
        let Ok(text) = fs::read_to_string(&path) else { continue };
        sum = sum + parse(&text).with_context(|| format!("{} is not understood", path.display()))?;
    }
    Ok(sum)
}

fn parse_schedstat(schedstat: &str) -> Option<f64> {
    Some(schedstat.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1e3)
}

/// A process's user memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Memory {
    pub resident: f64,
    pub proportional: f64,
    /// Pages that no other process maps.
    pub private: f64,
    pub anonymous: f64,
}

/// The memory of process `pid`.
pub fn memory(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let rollup = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    parse_rollup(&rollup).with_context(|| format!("{path} is not understood"))
}

fn parse_rollup(rollup: &str) -> Option<Memory> {
    let bytes = |name| kilobytes_or_count(rollup, name).map(|kilobytes| kilobytes as f64 * 1024.0);
    Some(Memory {
        resident: bytes("Rss:")?,
        proportional: bytes("Pss:")?,
        private: bytes("Private_Clean:")? + bytes("Private_Dirty:")?,
        anonymous: bytes("Anonymous:")?,
    })
}

/// The number behind `name` at the beginning of a line.
fn kilobytes_or_count(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// What of a process is in memory, in bytes, from the counters of its address space: cheap, where `memory` walks it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Resident {
    pub total: f64,
    /// Without what maps a file.
    pub anonymous: f64,
}

/// The resident memory of process `pid`.
pub fn resident(pid: u32) -> Result<Resident> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    parse_resident(&status).with_context(|| format!("{path} is not understood"))
}

fn parse_resident(status: &str) -> Option<Resident> {
    let bytes = |name| kilobytes_or_count(status, name).map(|kilobytes| kilobytes as f64 * 1024.0);
    Some(Resident { total: bytes("VmRSS:")?, anonymous: bytes("RssAnon:")? })
}

/// The kernel's memory, in bytes: the whole of `Slab`, and each cache by name where `/proc/slabinfo` may be read.
#[derive(Clone, Debug, Default)]
pub struct Slab {
    pub total: f64,
    pub caches: BTreeMap<String, f64>,
}

/// Reads the kernel's slab memory.
pub fn slab() -> Result<Slab> {
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    let total =
        kilobytes_or_count(&meminfo, "Slab:").context("/proc/meminfo has no Slab line")? as f64 * 1024.0;
    // Only root may read it; without it the total still stands.
    let caches = fs::read_to_string("/proc/slabinfo").map(|text| parse_slabinfo(&text)).unwrap_or_default();
    Ok(Slab { total, caches })
}

/// What could still be allocated on this machine without swapping, in bytes, by the kernel's own estimate.
pub fn available() -> Result<f64> {
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    let kilobytes =
        kilobytes_or_count(&meminfo, "MemAvailable:").context("/proc/meminfo has no MemAvailable line")?;
    Ok(kilobytes as f64 * 1024.0)
}

/// Bytes of the pages each cache holds: slabs times pages per slab.
fn parse_slabinfo(text: &str) -> BTreeMap<String, f64> {
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let pages_per_slab: f64 = fields.get(5)?.parse().ok()?;
        let slabs: f64 = fields.get(14)?.parse().ok()?;
        Some((fields[0].to_owned(), slabs * pages_per_slab * 4096.0))
    };
    text.lines().filter_map(line).collect()
}

/// What `command` starts is killed when the thread that starts it ends, however it ends.
pub fn end_with_this(command: &mut Command) {
    // SAFETY: between fork and exec this calls only prctl, which is async-signal-safe, and allocates nothing.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
}

/// Puts the threads that process `pid` has into the idle scheduling class, as [`step_back`] does, or back out of it, as far
/// as that is allowed. A thread that ends meanwhile is left out.
pub fn set_back(pid: u32, is_back: bool) {
    let class = if is_back { libc::SCHED_IDLE } else { libc::SCHED_OTHER };
    let parameter = libc::sched_param { sched_priority: 0 };
    for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let Some(thread) = thread.file_name().to_str().and_then(|number| number.parse().ok()) else {
            continue;
        };
        // SAFETY: `parameter` lives across the call, which only reads it. A refusal leaves things as they were.
        unsafe { libc::sched_setscheduler(thread, class, &parameter) };
    }
}

/// What `command` starts is on that CPU.
pub fn place(command: &mut Command, cpu: usize) {
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    if cpu < libc::CPU_SETSIZE as usize {
        // SAFETY: `cpu` is below CPU_SETSIZE, so it is inside the set.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    let pin = move || {
        // SAFETY: the call only reads what pointer and size describe, which is the closure's.
        match unsafe { libc::sched_setaffinity(0, mem::size_of_val(&set), &set) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec the closure makes one plain system call and allocates nothing.
    unsafe { command.pre_exec(pin) };
}

/// Moves the calling thread, and what it starts from now on, to one CPU.
pub fn pin_to(cpu: usize) -> Result<()> {
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    if cpu >= libc::CPU_SETSIZE as usize {
        bail!("there is no CPU {cpu}");
    }
    // SAFETY: `cpu` is below CPU_SETSIZE, so it is inside the set.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the pointer and the size describe `set`, which the call only reads.
    if unsafe { libc::sched_setaffinity(0, mem::size_of_val(&set), &set) } < 0 {
        return Err(io::Error::last_os_error()).with_context(|| format!("pinning to CPU {cpu}"));
    }
    Ok(())
}

/// The CPUs that this thread may run on.
pub fn allowed_cpus() -> Vec<usize> {
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the pointer and the size describe `set`, which the call fills. Where it fails, the set stays empty.
    unsafe { libc::sched_getaffinity(0, mem::size_of_val(&set), &mut set) };
    // SAFETY: each number is below CPU_SETSIZE, so it is inside the set.
    (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect()
}

/// Lets this process, and what it starts from now on, hold as many descriptors as the hard limit allows.
pub fn raise_descriptor_limit() -> Result<()> {
    let mut limit = descriptor_limit()?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the pointer is to `limit`, which the call only reads.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } < 0 {
        return Err(io::Error::last_os_error()).context("raising the limit of open descriptors");
    }
    Ok(())
}

/// An error if this process may not hold `count` descriptors: before a load is half open, and not with EMFILE.
pub fn need_descriptors(count: u64) -> Result<()> {
    let most = descriptor_limit()?.rlim_cur;
    ensure!(
        count <= most,
        "this needs {count} descriptors, and a process may hold {most} here (`ulimit -Hn`, RLIMIT_NOFILE)"
    );
    Ok(())
}

fn descriptor_limit() -> Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` lives across the call, which writes one rlimit.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } < 0 {
        return Err(io::Error::last_os_error()).context("reading the limit of open descriptors");
    }
    Ok(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_raised_to_what_is_allowed_and_one_more_is_an_error_that_says_so() {
        raise_descriptor_limit().unwrap();
        let limit = descriptor_limit().unwrap();
        assert_eq!(limit.rlim_cur, limit.rlim_max);
        need_descriptors(limit.rlim_max).unwrap();
        if let Some(more) = limit.rlim_max.checked_add(1) {
            assert!(need_descriptors(more).unwrap_err().to_string().contains(&limit.rlim_max.to_string()));
        }
    }

    #[test]
    fn a_stat_line_with_a_difficult_name_gives_user_and_system() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 123 45 0 0 20 0 1 0 5 0 0";
        assert_eq!(parse_stat(stat), Some((1_230_000.0, 450_000.0)));
    }

    #[test]
    fn schedstat_gives_the_wait_behind_the_run_time() {
        assert_eq!(parse_schedstat("9000 2500 3\n"), Some(2.5));
        assert_eq!(parse_schedstat("9000"), None);
    }

    #[test]
    fn threads_that_are_numbered_have_one_name() {
        for (name, kind) in [("token-0", "token"), ("journal-growth", "journal-growth"), ("main", "main")] {
            assert_eq!(without_number(name), kind);
        }
        let by_name = cpu_by_thread(std::process::id()).unwrap();
        assert!(by_name.values().sum::<f64>() > 0.0, "{by_name:?}");
    }

    #[test]
    fn a_thread_that_steps_back_is_in_the_idle_class() {
        let policy = std::thread::spawn(|| {
            step_back().unwrap();
            let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
            // Field 41 of proc(5), counted from field 3.
            stat.rsplit_once(')').unwrap().1.split_whitespace().nth(38).unwrap().to_owned()
        });
        assert_eq!(policy.join().unwrap(), libc::SCHED_IDLE.to_string());
    }

    #[test]
    fn what_is_placed_is_there_and_what_is_set_back_is_in_the_idle_class() {
        // Fields 39 (the CPU) and 41 (the class) of proc(5), counted from field 3.
        let fields = |pid: u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            let fields: Vec<String> =
                stat.rsplit_once(')').unwrap().1.split_whitespace().map(str::to_owned).collect();
            (fields[36].parse::<usize>().unwrap(), fields[38].parse::<libc::c_int>().unwrap())
        };
        let cpu = *allowed_cpus().last().unwrap();
        let mut command = Command::new("sleep");
        place(command.arg("60"), cpu);
        end_with_this(&mut command);
        let mut child = command.spawn().unwrap();
        assert_eq!(fields(child.id()), (cpu, libc::SCHED_OTHER));
        set_back(child.id(), true);
        assert_eq!(fields(child.id()).1, libc::SCHED_IDLE);
        child.kill().unwrap();
        child.wait().unwrap();
        place(&mut command, libc::CPU_SETSIZE as usize);
        assert!(command.spawn().is_err(), "there is no such CPU");
    }

    #[test]
    fn a_rollup_adds_up_what_is_private() {
        let rollup = "0-1 ---p 0 0 0 [rollup]\nRss: 100 kB\nPss: 60 kB\nPss_Dirty: 1 kB\nPrivate_Clean: 8 kB\n\
                      Private_Dirty: 40 kB\nAnonymous: 39 kB\n";
        let memory = parse_rollup(rollup).unwrap();
        assert_eq!(memory.private, 48.0 * 1024.0);
        assert_eq!(memory.proportional, 60.0 * 1024.0);
        assert!(parse_rollup("Rss: 1 kB\n").is_none());
    }

    #[test]
    fn a_status_tells_what_is_resident_with_and_without_files() {
        let status = "Name:\tx\nVmRSS:\t  300 kB\nRssAnon:\t  200 kB\nRssFile:\t  100 kB\n";
        let resident = parse_resident(status).unwrap();
        assert_eq!((resident.total, resident.anonymous), (300.0 * 1024.0, 200.0 * 1024.0));
        assert!(parse_resident("Name:\tx\n").is_none());
    }

    #[test]
    fn slabinfo_gives_bytes_by_cache_and_skips_its_head() {
        let text = "slabinfo - version: 2.1\n# name <active_objs> ...\n\
                    TCP 10 24 2368 13 8 : tunables 0 0 0 : slabdata 3 3 0\n";
        let caches = parse_slabinfo(text);
        assert_eq!(caches.get("TCP"), Some(&(3.0 * 8.0 * 4096.0)));
        assert_eq!(caches.len(), 1);
    }

    #[test]
    fn this_process_has_spent_time_and_memory() {
        let pid = std::process::id();
        let spent = cpu_time(pid).unwrap();
        assert!(spent.total_us > 0.0 && own_cpu_us().unwrap() >= spent.total_us);
        let of_thread_us = own_thread_cpu_us().unwrap();
        assert!(of_thread_us > 0.0 && of_thread_us <= own_cpu_us().unwrap());
        assert!(context_switches(pid).unwrap() > 0 && kept_waiting_us(pid).unwrap() >= 0.0);
        let memory = memory(pid).unwrap();
        assert!(memory.private > 0.0 && memory.resident >= memory.private);
        assert!(slab().unwrap().total > 0.0 && available().unwrap() > 0.0);
    }
}
