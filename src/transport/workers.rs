//! Threads for what takes too long for a shard's turn: the public-key part of handshakes.
//!
//! A handshake costs as much as a hundred messages, so a storm of them, done by the shards, would be felt by everybody
//! who is connected. Here each shard has a line of its own, the threads take from the lines in turn, and they run at a low
//! priority: where there are no cores to spare, the kernel gives them what the shards leave, and those who connect wait.
//!
//! A line is bounded by the connections that wait for their CONNECT
//! ([`HANDSHAKES_PENDING_MAX`](crate::limits::HANDSHAKES_PENDING_MAX)), each of which has one job at most.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::{Broken, Transport};
use crate::ids::{ConnectionId, ShardId};
use crate::limits::WORKER_NICENESS;

/// What is to be done: bytes that were received, for a transport that is not established.
pub struct Job {
    /// Whose.
    pub connection: ConnectionId,
    /// Its transport.
    pub transport: Box<Transport>,
    /// What was received.
    pub bytes: Vec<u8>,
}

/// What came of it.
#[derive(Debug)]
pub struct Done {
    /// Whose.
    pub connection: ConnectionId,
    /// Its transport.
    pub transport: Box<Transport>,
    /// What the peer has said behind its handshake.
    pub plain: Vec<u8>,
    /// Whether it goes on.
    pub result: Result<(), Broken>,
}

impl Job {
    /// Does it, here and now.
    pub fn execute(self) -> Done {
        let Job { connection, mut transport, mut bytes } = self;
        let mut plain = Vec::new();
        let result = transport.receive(&mut bytes, &mut plain);
        Done { connection, transport, plain, result }
    }
}

/// Where a shard's jobs go. They come back through the shard's own door.
pub trait Workers: Send + Sync {
    /// Takes one.
    fn begin(&self, job: Job);
}

/// How a job comes back to a shard.
pub type Return = Box<dyn Fn(Done) + Send + Sync>;

/// The threads of a process.
pub struct Pool {
    lines: Mutex<Lines>,
    some: Condvar,
    returns: Vec<Return>,
}

/// One for each shard.
struct Lines {
    jobs: Vec<VecDeque<Job>>,
    /// Whose turn it is.
    next: usize,
}

impl Lines {
    /// The next job, and whose it is: after each shard's the next shard's.
    fn take(&mut self) -> Option<(usize, Job)> {
        let shards = self.jobs.len();
        let found = (0..shards)
            .map(|step| (self.next + step) % shards)
            .find(|shard| !self.jobs[*shard].is_empty())?;
        self.next = found + 1;
        let job = self.jobs[found].pop_front()?;
        Some((found, job))
    }
}

impl Pool {
    /// So many threads, for the shards to which `returns` lead.
    pub fn start(threads: usize, returns: Vec<Return>) -> io::Result<Arc<Pool>> {
        let jobs = returns.iter().map(|_| VecDeque::new()).collect();
        let lines = Mutex::new(Lines { jobs, next: 0 });
        let pool = Arc::new(Pool { lines, some: Condvar::new(), returns });
        for number in 0..threads.max(1) {
            let pool = pool.clone();
            thread::Builder::new().name(format!("handshake-{number}")).spawn(move || pool.work())?;
        }
        Ok(pool)
    }

    /// That shard's end of it.
    pub fn of(self: &Arc<Pool>, shard: ShardId) -> Arc<dyn Workers> {
        Arc::new(End { pool: self.clone(), shard })
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        step_back();
        loop {
            let mut lines = self.lines();
            let (shard, job) = loop {
                match lines.take() {
                    Some(job) => break job,
                    None => lines = self.some.wait(lines).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(lines);
            self.returns[shard](job.execute());
        }
    }
}

/// A pool as one shard sees it.
struct End {
    pool: Arc<Pool>,
    shard: ShardId,
}

impl Workers for End {
    fn begin(&self, job: Job) {
        self.pool.lines().jobs[self.shard.index()].push_back(job);
        self.pool.some.notify_one();
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

    #[test]
    fn shards_are_served_in_turn_however_long_one_of_their_lines_is() {
        let layers = crate::transport::tests::credentials::Credentials::new(&["localhost"]).layers();
        let job = |slot| Job {
            connection: ConnectionId { slot, generation: 0 },
            transport: Box::new(Transport::new(&layers)),
            bytes: Vec::new(),
        };
        let mut lines = Lines { jobs: vec![VecDeque::new(), VecDeque::new(), VecDeque::new()], next: 0 };
        (0..4).for_each(|slot| lines.jobs[0].push_back(job(slot)));
        lines.jobs[2].push_back(job(9));
        let order: Vec<_> =
            std::iter::from_fn(|| lines.take()).map(|(shard, job)| (shard, job.connection.slot)).collect();
        assert_eq!(order, [(0, 0), (2, 9), (0, 1), (0, 2), (0, 3)]);
    }

    #[test]
    fn a_job_comes_back_to_the_shard_that_gave_it() {
        let (sender, received) = std::sync::mpsc::channel();
        let returns = (0..2).map(|shard| {
            let sender = sender.clone();
            let back: Return = Box::new(move |done: Done| drop(sender.send((shard, done))));
            back
        });
        let pool = Pool::start(2, returns.collect()).unwrap();
        let transport = Box::new(Transport::new(
            &crate::transport::tests::credentials::Credentials::new(&["localhost"]).layers(),
        ));
        let connection = ConnectionId { slot: 3, generation: 4 };
        pool.of(ShardId(1)).begin(Job { connection, transport, bytes: b"GET / HTTP/1.1".to_vec() });
        let (shard, done) = received.recv().unwrap();
        assert_eq!((shard, done.connection), (1, connection));
        assert!(matches!(done.result, Err(Broken::Peer(_))), "{:?}", done.result);
        assert!(done.transport.wants_to_send(), "an alert");
    }
}
