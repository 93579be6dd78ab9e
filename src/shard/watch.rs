//! What is said between the process's own thread and those of the shards: commands one way, reports the other; and the thread that
//! waits for reports.
//!
//! Decides how long a stop may take. Called by `serve`, which decides the order of everything else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::backup::Ask;
use super::serve::{ServeError, clock};
use super::shard::{Recovered, State};
use super::socket::Told;
use super::wrapped::{Acceptor, Listening};
use crate::access::guard::Checked;
use crate::access::permissions::Permissions;
use crate::ids::ShardId;
use crate::journal::Grown;
use crate::rates::Shared;
use crate::reactor::Doorbell;
use crate::transport::handshake::Shaken;

/// Of the time for draining, the part that is left for the last sync.
const STOP_SHARE: u32 = 10;

/// How soon it is looked whether a shard has taken what it was told.
const LOOK: Duration = Duration::from_millis(1);

/// From this thread to a shard's.
#[derive(Debug)]
pub(super) enum Command {
    Listen(Vec<Listening>),
    /// What those who connect get from now on, by listener.
    Present(Vec<Acceptor>),
    /// A worker has shaken hands.
    Handshaken(Vec<Shaken>),
    /// A worker has found out whether somebody may come in.
    Checked(Vec<Checked>),
    /// Who may do what from now on.
    Permit(Arc<Permissions>),
    /// How often, and how much, from now on.
    Limit(Arc<Shared>),
    /// How much memory is in use, in percent of what there may be.
    MemoryInUse(u8),
    Grown(Grown),
    /// Part of the backup with that number.
    Backup(u64, Ask),
    Drain,
    Stop,
}

/// From the others to this thread.
pub(super) enum Report {
    Recovered(ShardId, Recovered, Duration),
    State(ShardId, State),
    Ended(ShardId, Result<(), ServeError>),
    Signal,
    /// To read files again.
    Reload,
}

/// How a shard's thread is told something while it works.
#[derive(Default)]
pub(super) struct Control {
    pub(super) commands: Mutex<Vec<Command>>,
    /// Spares a lock per turn.
    pub(super) waiting: AtomicBool,
    pub(super) doorbell: OnceLock<Arc<dyn Doorbell>>,
}

impl Control {
    pub(super) fn post(&self, command: Command) {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).push(command);
        self.waiting.store(true, Ordering::Release);
        // Not set yet: the shard takes the lock once between setting it and its first wait.
        if let Some(doorbell) = self.doorbell.get() {
            doorbell.ring();
        }
    }

    pub(super) fn take(&self) -> Vec<Command> {
        self.waiting.store(false, Ordering::Relaxed);
        std::mem::take(&mut *self.commands.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What the shards have reported.
pub(super) struct Watch {
    pub(super) received: Receiver<Report>,
    /// So that there is always somebody who could report.
    pub(super) _reports: Sender<Report>,
    /// What the shards say to whoever makes a backup, until somebody listens to it.
    pub(super) answers: Option<Receiver<Told>>,
    pub(super) controls: Vec<Arc<Control>>,
    pub(super) states: Vec<State>,
}

/// How waiting for the shards ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Waited {
    Reached,
    Signal,
    TooLate,
}

impl Watch {
    /// Waits until every shard has reached that state.
    pub(super) fn until(&mut self, state: State, deadline: Option<Instant>) -> Result<Waited, ServeError> {
        while self.states.iter().any(|reached| *reached < state) {
            match self.next(deadline)? {
                Some(Report::Signal) => return Ok(Waited::Signal),
                Some(_) => {}
                None => return Ok(Waited::TooLate),
            }
        }
        Ok(Waited::Reached)
    }

    /// Waits until every shard has taken what it was told: it obeys before its next turn.
    pub(super) fn until_taken(&mut self) -> Result<Waited, ServeError> {
        while self.controls.iter().any(|control| control.waiting.load(Ordering::Acquire)) {
            if let Some(Report::Signal) = self.next(Some(clock() + LOOK))? {
                return Ok(Waited::Signal);
            }
        }
        Ok(Waited::Reached)
    }

    /// Until it is time to stop.
    pub(super) fn until_signal(&mut self, mut reload: impl FnMut(&[Arc<Control>])) -> Result<(), ServeError> {
        loop {
            match self.next(None)? {
                Some(Report::Signal) => return Ok(()),
                Some(Report::Reload) => reload(&self.controls),
                _ => {}
            }
        }
    }

    /// The next report, after taking note of it; `None` at the deadline. A shard that failed is an error.
    pub(super) fn next(&mut self, deadline: Option<Instant>) -> Result<Option<Report>, ServeError> {
        let report = match deadline {
            None => self.received.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(deadline) => self.received.recv_timeout(deadline.saturating_duration_since(clock())),
        };
        let report = match report {
            Ok(report) => report,
            Err(RecvTimeoutError::Timeout) => return Ok(None),
            Err(RecvTimeoutError::Disconnected) => unreachable!("one sender is kept here"),
        };
        match &report {
            Report::Recovered(shard, recovered, time) => {
                let Recovered { replayed, sessions, queued } = recovered;
                tracing::info!(
                    event = "recovered",
                    shard = shard.0,
                    seconds = time.as_millis() as f64 / 1_000.0,
                    sessions,
                    queued,
                    records = replayed.records,
                    bytes = replayed.bytes,
                    checkpoint = replayed.checkpoint.0,
                    checkpointed = replayed.checkpointed
                );
            }
            Report::State(shard, state) => self.states[shard.index()] = *state,
            Report::Ended(..) | Report::Signal | Report::Reload => {}
        }
        if let Report::Ended(shard, result) = report {
            result?;
            self.states[shard.index()] = State::Stopped;
            return Ok(Some(Report::State(shard, State::Stopped)));
        }
        Ok(Some(report))
    }

    /// Stops every shard, within that time.
    pub(super) fn stop(&mut self, drain_ms: u32) -> Result<(), ServeError> {
        let begun = clock();
        let bound = Duration::from_millis(drain_ms.into());
        tracing::info!(event = "draining", bound_ms = drain_ms);
        self.tell_all(|| Command::Drain);
        let drained = self.until(State::Drained, Some(begun + bound - bound / STOP_SHARE))?;
        if drained == Waited::Signal {
            tracing::warn!(event = "stopped", "told twice to stop: clients were not all told");
            return Ok(());
        }
        self.tell_all(|| Command::Stop);
        let stopped = self.until(State::Stopped, Some(begun + bound))?;
        if drained == Waited::Reached && stopped == Waited::Reached {
            tracing::info!(event = "stopped");
        } else {
            tracing::warn!(
                event = "stopped",
                "the time to drain is over; what was not acknowledged may be lost"
            );
        }
        Ok(())
    }

    pub(super) fn tell_all(&self, command: impl Fn() -> Command) {
        self.controls.iter().for_each(|control| control.post(command()));
    }
}
