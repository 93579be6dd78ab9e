//! What a turn does for the shard's journal: what it has ended, what it wants next, what is read back from it.
//!
//! Decides when it is looked at: each look costs memory that is not in the cache, so a journal of which nothing was asked
//! rests until its own deadline. Called by the loop.

use crate::broker::input::Input;
use crate::journal::{GrowRequest, Grown, Io, IoDone, Storage};
use crate::limits::{FETCHES_PER_TURN_MAX, JOURNAL_BACKLOG_BYTES_MAX};
use crate::reactor::{Op, Reactor};
use crate::time::Nanos;

use super::shard::{Fatal, Shard};
use super::target::Target;

impl<R: Reactor, S: Storage> Shard<R, S> {
    /// A segment to be made elsewhere, if the journal wants one.
    pub fn grow(&mut self) -> Option<GrowRequest> {
        if std::mem::take(&mut self.may_grow) { self.out.journal.grow(self.now) } else { None }
    }

    /// What became of that.
    pub fn grown(&mut self, grown: Grown) {
        self.out.journal_stirred = true;
        self.more = true;
        if let Err(error) = self.out.journal.grown(grown, self.now) {
            tracing::warn!(event = "journal_cannot_grow", shard = self.id().0, %error, cure = error.cure());
        }
    }

    /// Whether nothing was asked of the journal since it had nothing to do.
    pub(super) fn journal_rests(&self) -> bool {
        !self.out.journal_stirred && self.now.mono < self.journal_rests_until
    }

    pub(super) fn journal_deadline(&self) -> Nanos {
        self.out.journal.next_deadline().unwrap_or(Nanos::NEVER)
    }

    pub(super) fn journal_done(&mut self, done: IoDone) -> Result<(), Fatal> {
        self.journal_busy = false;
        self.out.journal_stirred = true;
        match self.out.journal.completed(done, self.broker.live(), self.now) {
            Ok(Some(lsn)) => self.input(Input::Durable { lsn }),
            Ok(None) => {}
            Err(error) => return Err(self.fatal(error)),
        }
        Ok(())
    }

    /// Tells the broker how the disk does.
    pub(super) fn watch_journal(&mut self) {
        let reached = self.out.journal.reserve_reached();
        if reached != self.reserve_reached {
            self.reserve_reached = reached;
            self.input(Input::DiskReserve { reached });
            self.gauge.look_now();
        }
        let bytes_max =
            if self.disk_behind { JOURNAL_BACKLOG_BYTES_MAX / 2 } else { JOURNAL_BACKLOG_BYTES_MAX };
        let behind = self.out.journal.pending_bytes() >= bytes_max || self.out.journal.waits_for_room();
        if behind != self.disk_behind {
            self.disk_behind = behind;
            self.input(Input::DiskBehind { behind });
        }
    }

    /// Reads back what the broker asked for. A record that cannot be read back was promised and is lost: fatal.
    pub(super) fn fetch(&mut self) -> Result<(), Fatal> {
        for _ in 0..FETCHES_PER_TURN_MAX {
            let Some(lsn) = self.out.fetches.pop_front() else { break };
            let mut fetched = std::mem::take(&mut self.fetched);
            let read = self.out.journal.read(lsn, &mut |record| fetched.keep(&record));
            if let Err(error) = read {
                return Err(self.fatal(error));
            }
            self.input(Input::Fetched { lsn, body: fetched.body() });
            self.fetched = fetched;
            self.more = true;
        }
        Ok(())
    }

    pub(super) fn commit(&mut self) -> Result<(), Fatal> {
        if self.journal_busy || self.journal_rests() {
            return Ok(());
        }
        self.out.journal_stirred = false;
        self.may_grow = true;
        let io = self.out.journal.commit(self.broker.live(), self.now).map_err(|error| self.fatal(error))?;
        let Some(io) = io else {
            let wants_turn = self.out.journal.wants_turn(self.broker.live());
            self.journal_rests_until = if wants_turn { Nanos(0) } else { self.journal_deadline() };
            return Ok(());
        };
        self.journal_rests_until = Nanos(0);
        let token = Target::Journal.token();
        self.journal_busy = true;
        self.reactor.submit(match io {
            Io::Write { file, offset, buffer } => Op::Write { file, token, offset, buffer },
            Io::Sync { file } => Op::Sync { file, token },
        });
        Ok(())
    }
}
