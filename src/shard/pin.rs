//! Which processor a shard's thread runs on.
//!
//! Shard i gets the i-th processor this process may use, round and round. Where fewer shards than processors leave enough
//! of these over, all other threads stay on those ([`left_over`]): a password that is hashed on a shard's processor, however low its
//! priority, moved the p99 of established clients from 0.15 to 5 ms, because the scheduler pays it what it is owed in
//! slices of milliseconds. Failing to pin costs speed, not correctness, so it is reported and otherwise ignored. Called by
//! `serve`.
//!
//! `unsafe`: the two system calls have no wrapper in the standard library.

use std::io;
use std::mem::MaybeUninit;

/// The processors this process may use, ascending.
pub fn allowed() -> io::Result<Vec<usize>> {
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: the pointer is to a cpu_set_t of the size given, which the kernel fills at most; 0 is this thread.
    let result = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), set.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all-zero bytes are a valid (empty) cpu_set_t, and the call has filled in the rest.
    let set = unsafe { set.assume_init() };
    let processors = 0..libc::CPU_SETSIZE as usize;
    // SAFETY: `CPU_ISSET` reads one bit of a set that outlives the call, at an index below CPU_SETSIZE.
    Ok(processors.filter(|processor| unsafe { libc::CPU_ISSET(*processor, &set) }).collect())
}

/// Of so many processors at least one is left over, or the threads beside the shards stay on all: handshakes after an outage
/// would take too long.
const PROCESSORS_PER_LEFT_OVER: usize = 8;

/// The processors for whatever is not a shard, of those that this process may use; none if the shards need all.
pub fn left_over(processors: &[usize], shards: usize) -> &[usize] {
    let left = processors.get(shards..).unwrap_or_default();
    if left.len() * PROCESSORS_PER_LEFT_OVER < processors.len() { &[] } else { left }
}

/// Binds the calling thread, and those that it starts, to these processors.
pub fn pin(processors: &[usize]) -> io::Result<()> {
    if processors.iter().any(|processor| *processor >= libc::CPU_SETSIZE as usize) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: all-zero bytes are a valid (empty) cpu_set_t.
    let set = unsafe { set.assume_init_mut() };
    for processor in processors {
        // SAFETY: the index is below CPU_SETSIZE.
        unsafe { libc::CPU_SET(*processor, set) };
    }
    // SAFETY: the pointer passed to the kernel is to a set of the size given, only read; 0 is this thread.
    let result = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), set) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_and_those_it_starts_may_use_these_processors() {
        std::thread::spawn(|| {
            let last = *allowed().unwrap().last().expect("this thread runs on some processor");
            pin(&[last]).unwrap();
            assert_eq!(allowed().unwrap(), [last]);
            assert_eq!(std::thread::spawn(allowed).join().unwrap().unwrap(), [last]);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_processor_that_does_not_exist_is_refused() {
        assert!(pin(&[usize::MAX]).is_err());
        assert!(pin(&[libc::CPU_SETSIZE as usize - 1]).is_err());
    }

    #[test]
    fn what_shards_leave_over_is_for_the_others_if_it_is_enough() {
        let left_over_of =
            |processors: usize, shards| left_over(&Vec::from_iter(0..processors), shards).to_vec();
        assert_eq!(left_over(&[3, 5], 1), [5]);
        assert_eq!(left_over_of(8, 7), [7]);
        for (processors, shards) in [(9, 8), (2, 2), (2, 5), (0, 1)] {
            assert!(left_over_of(processors, shards).is_empty(), "{processors} {shards}");
        }
    }
}
