//! What a shard does for a backup: it holds back, it says what there is, it goes on; and keeps that until told.
//!
//! Decides when each of these is done, and when what was pinned is kept no longer: its journal says so (the disk is
//! full), the time is over, or the broker stops. Why there are three phases is in `backup`. Asked by `socket` through the
//! loop of the thread, between turns; answers are fetched there.

use std::collections::VecDeque;

use crate::broker::input::Input;
use crate::ids::Lsn;
use crate::journal::{Part, Storage};
use crate::limits::BACKUP_MS_MAX;
use crate::reactor::Reactor;
use crate::time::Nanos;

use super::Shard;

/// What a shard is asked, in this order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    /// Say of nothing more that another shard has it, and answer when what is written is durable.
    HoldBack,
    /// What is there? Keep it.
    Cut,
    /// Hold back no longer.
    GoOn,
    /// Keep it no longer, and hold back no longer.
    Unpin,
}

/// What it says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It holds back, and what it has written is durable.
    HeldBack,
    /// That is there.
    Cut(Vec<Part>),
    /// It has held back until now.
    WentOn,
    /// It has kept what was there until now.
    Unpinned {
        /// How many segments were kept from reuse.
        held: usize,
        /// For how long.
        ms: u64,
    },
    /// No, or no longer.
    No(Reason),
}

/// Why not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// The reserve was reached.
    DiskFull,
    /// `BACKUP_MS_MAX`.
    TooLong,
    /// The broker stops.
    Stopping,
    /// More than `POSTPONED_SETTLEMENTS_MAX` waited.
    TooMuchWaits,
    /// Nothing was begun, or it was ended.
    NotBegun,
}

impl Reason {
    /// For whoever wants the backup.
    pub fn text(self) -> &'static str {
        match self {
            Reason::DiskFull => {
                "the disk is full, and the broker needs the segments that were kept for it: free some space, or back up to \
                 another disk"
            }
            Reason::TooLong => "it took longer than a day",
            Reason::Stopping => "the broker is stopping",
            Reason::TooMuchWaits => {
                "the shards did not come to a common moment in time: is the disk overloaded?"
            }
            Reason::NotBegun => "it was ended before",
        }
    }
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Backup {
    /// Whose asks are answered: an answer that was given up waiting for must not be taken for the next one's.
    session: u64,
    /// Answer once that is durable.
    awaits: Option<Lsn>,
    pinned_at: Option<Nanos>,
    answers: VecDeque<(u64, Answer)>,
}

impl Backup {
    fn say(&mut self, answer: Answer) {
        self.answers.push_back((self.session, answer));
    }
}

impl<R: Reactor, S: Storage> Shard<R, S> {
    /// Part of a backup with that number. `answer` has the answer, perhaps after some turns.
    pub fn ask(&mut self, session: u64, ask: Ask) {
        if session != self.backup.session {
            self.end_backup(None);
            self.backup.session = session;
        }
        match ask {
            Ask::HoldBack if self.is_draining() => self.backup.say(Answer::No(Reason::Stopping)),
            Ask::HoldBack => {
                self.input(Input::HoldBack { on: true });
                self.backup.awaits = Some(self.out.journal.last_lsn());
            }
            Ask::Cut if !self.broker.holds_back() || self.backup.pinned_at.is_some() => {
                self.backup.say(Answer::No(Reason::TooMuchWaits));
            }
            Ask::Cut => {
                let parts = self.out.journal.pin();
                self.backup.pinned_at = Some(self.now.mono);
                self.backup.say(Answer::Cut(parts));
            }
            Ask::GoOn => {
                let held = self.broker.holds_back();
                self.input(Input::HoldBack { on: false });
                self.backup.awaits = None;
                self.backup.say(if held { Answer::WentOn } else { Answer::No(Reason::TooMuchWaits) });
            }
            Ask::Unpin => {
                self.input(Input::HoldBack { on: false });
                self.backup.awaits = None;
                let pinned_at = self.backup.pinned_at.take();
                let held = self.out.journal.unpin();
                self.backup.say(match (held, pinned_at) {
                    (Some(held), Some(at)) => {
                        Answer::Unpinned { held, ms: (self.now.mono.0 - at.0) / 1_000_000 }
                    }
                    _ => Answer::No(Reason::NotBegun),
                });
            }
        }
        self.out.journal_stirred = true;
        self.more = true;
    }

    /// What there is to say, with the number of the backup.
    pub fn answer(&mut self) -> Option<(u64, Answer)> {
        self.backup.answers.pop_front()
    }

    /// Once per turn.
    pub(super) fn watch_backup(&mut self) {
        if self.backup.awaits.is_some_and(|lsn| lsn <= self.out.journal.durable()) {
            self.backup.awaits = None;
            self.backup.say(Answer::HeldBack);
        }
        let Some(at) = self.backup.pinned_at else { return };
        if !self.out.journal.is_pinned() {
            self.end_backup(Some(Reason::DiskFull));
        } else if self.now.mono > at.plus_ms(BACKUP_MS_MAX) {
            self.end_backup(Some(Reason::TooLong));
        }
    }

    /// Give up whatever is under way.
    pub(super) fn end_backup(&mut self, reason: Option<Reason>) {
        let holds = self.broker.holds_back();
        if holds {
            self.input(Input::HoldBack { on: false });
            self.more = true;
        }
        let _held = self.out.journal.unpin();
        self.out.journal_stirred = true;
        self.backup.awaits = None;
        if (self.backup.pinned_at.take().is_some() || holds)
            && let Some(reason) = reason
        {
            self.backup.say(Answer::No(reason));
        }
    }
}
