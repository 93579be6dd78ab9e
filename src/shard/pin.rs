//! Which processor a shard's thread runs on.
//!
//! Shard i gets the i-th processor this process may use, round and round. Failing to pin costs speed, not
//! correctness, so it is reported and otherwise ignored. Called by `serve`, once per thread.
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

/// Binds the calling thread to that processor.
pub fn pin(processor: usize) -> io::Result<()> {
    if processor >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: all-zero bytes are a valid cpu_set_t; the index is below CPU_SETSIZE; the pointer passed to the kernel
    // is to a set of the size given, only read; 0 is this thread.
    let result = unsafe {
        libc::CPU_SET(processor, set.assume_init_mut());
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), set.as_ptr())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_may_use_one_processor() {
        std::thread::spawn(|| {
            let last = *allowed().unwrap().last().expect("this thread runs on some processor");
            pin(last).unwrap();
            assert_eq!(allowed().unwrap(), [last]);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_processor_that_does_not_exist_is_refused() {
        assert!(pin(usize::MAX).is_err());
        assert!(pin(libc::CPU_SETSIZE as usize - 1).is_err());
    }
}
