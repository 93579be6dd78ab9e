//! The control socket: who runs `ironpost backup` on this host asks the broker here, in its data directory.
//!
//! Decides who may ask, and how many at a time, and leads the shards through a backup (`backup` says why in three phases).
//! It has threads of its own, which may wait; the shards hear of it as of any other command, between two turns. Nothing here
//! reads or writes a journal.
//!
//! Only the broker's user (and root) can connect: the socket has mode 0600, and gets its name after that. Each connection
//! has a thread, and there are few; requests are short, and waited for briefly. Whatever happens to whoever asked, his
//! connection ends, and with it what was kept for him.

use std::fs;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, TryLockError};
use std::thread;
use std::time::Duration;

use super::backup::{Answer, Ask, Reason};
use crate::backup::protocol::{self, Cut};
use crate::ids::ShardId;
use crate::limits::{BACKUP_ANSWER_MS, CONTROL_CONNECTIONS_MAX, CONTROL_MS};

/// How often it is looked whether what is kept is so still.
const LOOK: Duration = Duration::from_millis(100);

/// How one shard is told to answer.
pub(super) type Tell = Box<dyn Fn(u64, Ask) + Send>;

/// An answer of a shard.
pub(super) struct Told {
    pub shard: ShardId,
    /// The backup that it is to.
    pub session: u64,
    pub answer: Answer,
    /// How long the last ask kept the shard from everything else.
    pub busy: Duration,
}

/// The shards, as seen from here. Whoever has it leads a backup.
pub(super) struct Desk {
    pub shards: Vec<Tell>,
    pub answers: Receiver<Told>,
    /// The number of the last backup.
    pub session: u64,
}

/// Listen in that data directory, which this process has locked: a socket that is there is a dead one's.
pub(super) fn open(data: &Path, desk: Desk) -> io::Result<()> {
    let path = protocol::socket(data);
    let unnamed = path.with_extension("new");
    for old in [&path, &unnamed] {
        match fs::remove_file(old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let listener = UnixListener::bind(&unnamed)?;
    fs::set_permissions(&unnamed, fs::Permissions::from_mode(0o600))?;
    // Whoever was faster than that.
    listener.set_nonblocking(true)?;
    while listener.accept().is_ok() {}
    listener.set_nonblocking(false)?;
    fs::rename(&unnamed, &path)?;
    thread::Builder::new().name("control".into()).spawn(move || accept(&listener, desk))?;
    Ok(())
}

/// At an orderly end.
pub(super) fn close(data: &Path) {
    // If it cannot be removed, the next start replaces it.
    let _tried = fs::remove_file(protocol::socket(data));
}

fn accept(listener: &UnixListener, desk: Desk) {
    let (desk, open) = (Arc::new(Mutex::new(desk)), Arc::new(AtomicUsize::new(0)));
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            // No descriptors, for example: they come back.
            wait(LOOK);
            continue;
        };
        if open.fetch_add(1, Ordering::Relaxed) >= CONTROL_CONNECTIONS_MAX {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (desk, leaving) = (desk.clone(), Leaving(open.clone()));
        let talk = move || {
            let _leaving = leaving;
            attend(stream, &desk);
        };
        // If there is no thread to be had, the connection is closed.
        let _tried = thread::Builder::new().name("control-connection".into()).spawn(talk);
    }
}

/// One connection less.
struct Leaving(Arc<AtomicUsize>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn attend(mut stream: UnixStream, desk: &Mutex<Desk>) {
    let bound = Some(Duration::from_millis(CONTROL_MS));
    if stream.set_read_timeout(bound).and_then(|()| stream.set_write_timeout(bound)).is_err() {
        return;
    }
    // What cannot be said to somebody who has left is not said.
    match protocol::read_line(&mut BufReader::new(&stream)) {
        Ok(line) if line == protocol::REQUEST => {}
        Ok(_) => {
            return drop(protocol::refuse(
                &mut stream,
                "this broker is of another version than `ironpost backup`",
            ));
        }
        Err(_) => return,
    }
    match desk.try_lock() {
        Ok(mut desk) => back_up(&mut stream, &mut desk),
        Err(TryLockError::WouldBlock) => {
            drop(protocol::refuse(
                &mut stream,
                "another backup of this broker is under way: wait for it to end",
            ));
        }
        Err(TryLockError::Poisoned(_)) => {
            drop(protocol::refuse(&mut stream, "an earlier backup ended by a bug"))
        }
    }
}

fn back_up(stream: &mut UnixStream, desk: &mut Desk) {
    desk.session += 1;
    let session = desk.session;
    let outcome = desk.cuts().and_then(|cuts| {
        tracing::info!(
            event = "backup_begun",
            session,
            segments = cuts.iter().map(|cut| cut.parts.len()).sum::<usize>(),
            pinned_us = cuts.iter().map(|cut| cut.nanos).max().unwrap_or(0) / 1_000,
        );
        protocol::write_cuts(stream, &cuts).map_err(|_| LEFT)?;
        drop(cuts);
        desk.until_done(stream)
    });
    let (held, ms, kept) = desk.release();
    match outcome.and_then(|bytes| kept.map(|()| bytes)) {
        Ok((copied, linked)) => {
            tracing::info!(
                event = "backup_done",
                session,
                bytes_copied = copied,
                bytes_linked = linked,
                pinned_s = ms as f64 / 1_000.0,
                segments_held = held,
            );
            drop(stream.write_all(format!("{}\n", protocol::YES).as_bytes()));
        }
        Err(reason) => {
            tracing::warn!(
                event = "backup_failed",
                session,
                reason,
                pinned_s = ms as f64 / 1_000.0,
                segments_held = held
            );
            drop(protocol::refuse(stream, reason));
        }
    }
}

const LEFT: &str = "whoever made it has left";

impl Desk {
    /// The three phases.
    fn cuts(&mut self) -> Result<Vec<Cut>, &'static str> {
        self.all(Ask::HoldBack)?;
        let cuts = self.all(Ask::Cut);
        let went_on = self.all(Ask::GoOn);
        let cuts = cuts?;
        went_on?;
        let cuts = cuts.into_iter().map(|Told { shard, answer, busy, .. }| match answer {
            Answer::Cut(parts) => Ok(Cut { shard, parts, nanos: busy.as_nanos() as u64 }),
            _ => Err(Reason::NotBegun.text()),
        });
        cuts.collect()
    }

    /// Ask every shard, and wait for all of them. In their order.
    fn all(&mut self, ask: Ask) -> Result<Vec<Told>, &'static str> {
        self.shards.iter().for_each(|tell| tell(self.session, ask));
        let mut answers: Vec<Option<Told>> = self.shards.iter().map(|_| None).collect();
        let mut refused = None;
        while answers.iter().any(Option::is_none) {
            let told = self.next()?;
            if let Answer::No(reason) = told.answer {
                refused = Some(reason.text());
            }
            let index = told.shard.index();
            answers[index] = Some(told);
        }
        refused.map_or_else(|| Ok(answers.into_iter().flatten().collect()), Err)
    }

    /// The next answer that is to this backup.
    fn next(&self) -> Result<Told, &'static str> {
        loop {
            match self.answers.recv_timeout(Duration::from_millis(BACKUP_ANSWER_MS)) {
                Ok(told) if told.session == self.session => return Ok(told),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    return Err("a shard does not answer: its disk takes too long, or it is overloaded");
                }
                Err(RecvTimeoutError::Disconnected) => return Err(Reason::Stopping.text()),
            }
        }
    }

    /// Until everything is copied, or cannot be. Bytes copied and linked.
    fn until_done(&mut self, stream: &UnixStream) -> Result<(u64, u64), &'static str> {
        stream.set_read_timeout(Some(LOOK)).map_err(|_| LEFT)?;
        let (mut stream, mut heard, mut byte) = (stream, Vec::new(), [0]);
        loop {
            match stream.read(&mut byte) {
                Ok(0) => return Err(LEFT),
                Ok(_) if byte[0] == b'\n' => {
                    let line = String::from_utf8(heard).unwrap_or_default();
                    return protocol::parse_done(&line).ok_or(LEFT);
                }
                Ok(_) if heard.len() >= crate::limits::CONTROL_LINE_BYTES_MAX => return Err(LEFT),
                Ok(_) => heard.push(byte[0]),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(LEFT),
            }
            if let Ok(Told { session, answer: Answer::No(reason), .. }) = self.answers.try_recv()
                && session == self.session
            {
                return Err(reason.text());
            }
        }
    }

    /// Keep nothing any more. How many segments were kept from reuse, for how long at most; and whether all were kept until
    /// now.
    fn release(&mut self) -> (usize, u64, Result<(), &'static str>) {
        self.shards.iter().for_each(|tell| tell(self.session, Ask::Unpin));
        let (mut held, mut longest, mut kept, mut refused) = (0, 0, 0, Err(Reason::NotBegun.text()));
        let mut answered = 0;
        while answered < self.shards.len() {
            match self.next().map(|told| told.answer) {
                Ok(Answer::Unpinned { held: more, ms }) => {
                    (held, longest, kept) = (held + more, longest.max(ms), kept + 1);
                    answered += 1;
                }
                Ok(Answer::No(Reason::NotBegun)) => answered += 1,
                Ok(Answer::No(reason)) => refused = Err(reason.text()),
                // Of a phase that was waited for no longer.
                Ok(Answer::HeldBack | Answer::Cut(_) | Answer::WentOn) => {}
                Err(reason) => return (held, longest, Err(reason)),
            }
        }
        (held, longest, if kept == self.shards.len() { Ok(()) } else { refused })
    }
}

#[expect(clippy::disallowed_methods, reason = "in a thread of its own that has nothing else to do")]
fn wait(time: Duration) {
    thread::sleep(time);
}
