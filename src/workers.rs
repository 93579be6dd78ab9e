//! Threads for what takes too long for a shard's turn: the public-key part of handshakes, passwords, tokens, and asking others.
//!
//! A handshake costs as much as a hundred messages, and a password as much as ten thousand, so a storm of them, done by the
//! shards, would be felt by everybody who is connected. Here each shard has a line of its own, the threads take from the lines in
//! turn, and they run at a low priority: where there are no cores to spare, the kernel gives them what the shards leave, and those
//! who connect wait. There is one pool for each kind of work, so that what is slow of one kind holds up nothing of another.
//! What the work is, whoever has it done says; called by `shard`.
//!
//! Work that is cheaper done together can be: a thread then takes several of one line, and hands back all that came of them with
//! one ring, which is one turn of the shard instead of many. It never waits for more to come.
//!
//! A line is bounded: beyond, the work is given back, and whoever asked for it is refused.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::ids::ShardId;
use crate::limits::WORKER_NICENESS;

/// Something to be done elsewhere.
pub trait Work: Send + 'static {
    /// What comes of it.
    type Done;

    /// Does it, here and now.
    fn execute(self) -> Self::Done;

    /// Does several, and what comes of each is what [`execute`](Work::execute) would have made of it; in their order.
    fn execute_together(work: Vec<Self>) -> Vec<Self::Done>
    where
        Self: Sized,
    {
        work.into_iter().map(Self::execute).collect()
    }
}

/// Where a shard's work goes. What comes of it comes back through the shard's own door.
pub trait Workers<W>: Send + Sync {
    /// Takes one, or gives it back if too many wait.
    fn begin(&self, work: W) -> Result<(), W>;
}

/// How what came of it gets to a shard.
pub type Return<W> = Box<dyn Fn(Vec<<W as Work>::Done>) + Send + Sync>;

/// How much there may be.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Threads.
    pub threads: usize,
    /// That wait, of each shard.
    pub line_max: usize,
    /// That a thread takes at once.
    pub together_max: usize,
}

/// The threads of a process for one kind of work.
pub struct Pool<W: Work> {
    lines: Mutex<Lines<W>>,
    some: Condvar,
    returns: Vec<Return<W>>,
    bounds: Bounds,
}

/// One for each shard.
struct Lines<W> {
    waiting: Vec<VecDeque<W>>,
    /// Whose turn it is.
    next: usize,
}

impl<W> Lines<W> {
    /// The next work, and whose it is: after each shard's the next shard's. One thread's share of that line, of so many threads
    /// that take from it, and at most so much.
    fn take(&mut self, threads: usize, together_max: usize) -> Option<(usize, Vec<W>)> {
        let shards = self.waiting.len();
        let found = (0..shards)
            .map(|step| (self.next + step) % shards)
            .find(|shard| !self.waiting[*shard].is_empty())?;
        self.next = found + 1;
        let line = &mut self.waiting[found];
        let share = line.len().div_ceil(threads).min(together_max);
        Some((found, line.drain(..share).collect()))
    }
}

impl<W: Work> Pool<W> {
    /// Threads of that name, for the shards to which `returns` lead.
    pub fn start(name: &str, bounds: Bounds, returns: Vec<Return<W>>) -> io::Result<Arc<Pool<W>>> {
        let bounds = Bounds { threads: bounds.threads.max(1), ..bounds };
        let waiting = returns.iter().map(|_| VecDeque::new()).collect();
        let lines = Mutex::new(Lines { waiting, next: 0 });
        let pool = Arc::new(Pool { lines, some: Condvar::new(), returns, bounds });
        for number in 0..bounds.threads {
            let pool = pool.clone();
            thread::Builder::new().name(format!("{name}-{number}")).spawn(move || pool.work())?;
        }
        Ok(pool)
    }

    /// That shard's end of it.
    pub fn of(self: &Arc<Pool<W>>, shard: ShardId) -> Arc<dyn Workers<W>> {
        Arc::new(End { pool: self.clone(), shard })
    }

    fn lines(&self) -> MutexGuard<'_, Lines<W>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        step_back();
        loop {
            let mut lines = self.lines();
            let (shard, work) = loop {
                match lines.take(self.bounds.threads, self.bounds.together_max) {
                    Some(work) => break work,
                    None => lines = self.some.wait(lines).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(lines);
            self.returns[shard](W::execute_together(work));
        }
    }
}

/// A pool as one shard sees it.
struct End<W: Work> {
    pool: Arc<Pool<W>>,
    shard: ShardId,
}

impl<W: Work> Workers<W> for End<W> {
    fn begin(&self, work: W) -> Result<(), W> {
        let mut lines = self.pool.lines();
        let line = &mut lines.waiting[self.shard.index()];
        if line.len() >= self.pool.bounds.line_max {
            return Err(work);
        }
        line.push_back(work);
        drop(lines);
        self.pool.some.notify_one();
        Ok(())
    }
}

/// Lets whoever else has work go first. On Linux this is of the thread that calls it.
fn step_back() {
    // SAFETY: no pointer is passed.
    let result =
        unsafe { libc::setpriority(libc::PRIO_PROCESS, libc::gettid() as libc::id_t, WORKER_NICENESS) };
    if result != 0 {
        let error = io::Error::last_os_error();
        tracing::warn!(event = "not_nice", %error, "handshakes run at the priority of the shards");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Number(u32);

    impl Work for Number {
        type Done = u32;

        fn execute(self) -> u32 {
            self.0 + 1
        }
    }

    #[test]
    fn shards_are_served_in_turn_however_long_one_of_their_lines_is() {
        let mut lines = Lines { waiting: vec![VecDeque::new(), VecDeque::new(), VecDeque::new()], next: 0 };
        (0..4).for_each(|number| lines.waiting[0].push_back(number));
        lines.waiting[2].push_back(9);
        let order: Vec<_> = std::iter::from_fn(|| lines.take(1, 1)).collect();
        assert_eq!(order, [(0, vec![0]), (2, vec![9]), (0, vec![1]), (0, vec![2]), (0, vec![3])]);
    }

    #[test]
    fn a_thread_takes_its_share_of_a_line_and_not_more_than_it_may() {
        let mut lines = Lines { waiting: vec![(0..9).collect::<VecDeque<_>>()], next: 0 };
        let order: Vec<_> = std::iter::from_fn(|| lines.take(2, 3)).map(|(_, work)| work).collect();
        assert_eq!(order, [vec![0, 1, 2], vec![3, 4, 5], vec![6, 7], vec![8]]);
    }

    #[test]
    fn what_is_done_comes_back_to_the_shard_that_gave_it() {
        let (sender, received) = std::sync::mpsc::channel();
        let returns = (0..2).map(|shard| {
            let sender = sender.clone();
            let back: Return<Number> = Box::new(move |done| sender.send((shard, done)).unwrap());
            back
        });
        let bounds = Bounds { threads: 2, line_max: 1, together_max: 1 };
        let pool = Pool::start("number", bounds, returns.collect()).unwrap();
        assert!(pool.of(ShardId(1)).begin(Number(3)).is_ok());
        assert_eq!(received.recv().unwrap(), (1, vec![4]));
    }

    #[test]
    fn a_full_line_gives_back_and_leaves_the_others_alone() {
        let lines = Mutex::new(Lines { waiting: vec![VecDeque::new(), VecDeque::new()], next: 0 });
        // Without a thread nothing is taken from it.
        let returns: Vec<Return<Number>> = vec![Box::new(drop), Box::new(drop)];
        let bounds = Bounds { threads: 1, line_max: 2, together_max: 1 };
        let pool = Arc::new(Pool { lines, some: Condvar::new(), returns, bounds });
        let (first, second) = (pool.of(ShardId(0)), pool.of(ShardId(1)));
        assert!(first.begin(Number(1)).is_ok() && first.begin(Number(2)).is_ok());
        assert!(first.begin(Number(3)).is_err_and(|back| back.0 == 3));
        assert!(second.begin(Number(4)).is_ok());
    }
}
