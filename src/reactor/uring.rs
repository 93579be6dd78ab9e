//! The reactor on io_uring: the receives, sends, writes and syncs of a turn in one system call.
//!
//! Readiness is the epoll set's, because an armed operation of the ring costs the kernel 256 to 866 bytes per connection
//! against 208 (measured on Linux 6.18); and it is the set that a turn waits on, because a wait of the ring costs more
//! (13 µs of 76 for a lone PINGREQ on Linux 6.18, `bench/README.md`): the set is what ends it, and it has to be armed again each time. The ring is an entry of the set, as are the doorbell
//! and the listening sockets: it reports that something which had to wait has ended. Accepting, watching and closing
//! are plain calls, shared with or equal to those of `epoll`.
//!
//! Receives are submitted only for ready sockets, with `MSG_DONTWAIT`, and so end while they are submitted. A send
//! that finds no room waits inside the kernel. Closing never cancels (the kernel's table of cancellable operations is
//! small): it shuts the socket down, which ends a waiting send, and closes when that has come back. `receive` and
//! `send` are plain calls: the ring saves system calls where there are many, and costs more than it saves where there
//! are not.
//!
//! **Lending.** The kernel reads and writes the buffers of operations in flight behind the compiler's back, so each
//! lies in `operations` from submission to completion and is touched by nothing else; moving the `Vec` that owns it
//! does not move the bytes. Dropping the reactor ends the waiting operations and waits for all; if that takes longer
//! than [`DROP_WAIT_NS`], what is still lent is leaked on purpose.
//!
//! The ring belongs to the thread of the first turn (single issuer, deferred task work: completions are processed
//! only when that thread asks, not by interrupting it); older kernels get a plainer ring.

mod ended;
mod setup;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use io_uring::types::{Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, opcode, squeue};
use mio::{Events, Poll};
use slab::Slab;

use self::ended::Ended;
pub(super) use self::setup::check;
use self::setup::{COMPLETIONS, build_ring};
use super::alarm::Alarm;
use super::listeners::Listeners;
use super::readiness::{self, ALARM, Bell, DOORBELL, RING};
use super::{Completion, Doorbell, Errno, File, Op, Reactor, Settings, Socket, Token, calls};
use crate::hash::ByNumber;
use crate::time::{Nanos, Now};

/// Threads the kernel may start for file operations that would block. The journal has one block in flight.
const KERNEL_WORKERS: u32 = 2;

/// How long dropping waits for operations in flight: longer than a slow disk takes for a sync.
const DROP_WAIT_NS: u64 = 30_000_000_000;

/// What is lent to the kernel, by the number that its completion carries.
enum InFlight {
    Recv {
        socket: Socket,
        token: Token,
        buffer: Vec<u8>,
    },
    /// `polling`: waiting for room before it is tried again.
    Send {
        socket: Socket,
        token: Token,
        buffer: Vec<u8>,
        from: usize,
        polling: bool,
    },
    /// `done` bytes are written.
    Write {
        file: File,
        token: Token,
        offset: u64,
        buffer: Vec<u8>,
        done: usize,
    },
    Sync {
        file: File,
        token: Token,
    },
}

/// A socket that is not to be heard of any more.
#[derive(Clone, Copy)]
enum Leaving {
    Detach { socket: Socket, token: Token },
    Close { socket: Socket, token: Token },
}

/// See the module documentation.
pub struct Uring {
    ring: IoUring,
    /// The ring was made disabled and is enabled by the thread that takes the first turn.
    enabled: bool,
    poll: Poll,
    events: Events,
    operations: Slab<InFlight>,
    /// Receives in flight; a turn does not end before they have.
    receives: usize,
    /// Socket to slot of its send; never iterated.
    sends: ByNumber<i32, usize>,
    /// To be detached or closed when what was submitted before has been performed.
    leaving: Vec<Leaving>,
    /// Shut down, to be closed when the send comes back; never iterated.
    closing_after_send: ByNumber<i32, Token>,
    listeners: Listeners,
    queue: VecDeque<Op>,
    operations_max: usize,
    bell: Arc<Bell>,
    alarm: Alarm,
    ended: Ended,
    now: Now,
    /// Completions just taken from the ring.
    reaped: Vec<(u64, i32)>,
}

impl Uring {
    /// A reactor with its ring and its epoll set; an error says what the kernel lacks. It may be made on any thread,
    /// and stays on the one that takes its first turn.
    pub fn new(settings: Settings) -> io::Result<Uring> {
        check().map_err(|missing| io::Error::new(io::ErrorKind::Unsupported, missing))?;
        let mut ring = build_ring()?;
        let poll = Poll::new()?;
        let bell = Bell::new(poll.registry())?;
        let alarm = Alarm::new(poll.registry())?;
        let ended = Ended::new(&mut ring, poll.registry())?;
        Ok(Uring {
            ring,
            enabled: false,
            poll,
            events: Events::with_capacity(settings.events_max.max(1)),
            operations: Slab::new(),
            receives: 0,
            sends: ByNumber::default(),
            leaving: Vec::new(),
            closing_after_send: ByNumber::default(),
            listeners: Listeners::new(&settings),
            queue: VecDeque::new(),
            operations_max: settings.operations_max.max(1),
            bell,
            alarm,
            ended,
            now: calls::read_clocks(),
            reaped: Vec::with_capacity(COMPLETIONS as usize),
        })
    }

    fn enable(&mut self) {
        if !std::mem::replace(&mut self.enabled, true) {
            let submitter = self.ring.submitter();
            submitter.register_enable_rings().expect("a ring that was made disabled can be enabled once");
            // Since Linux 5.15. Without it the kernel starts as many threads as it finds work for: few, here.
            let _unbounded = submitter.register_iowq_max_workers(&mut [KERNEL_WORKERS, KERNEL_WORKERS]);
        }
    }

    /// Begin one operation; what is plain calls is done at once.
    fn start(&mut self, op: Op, out: &mut Vec<Completion>) {
        let in_flight = match op {
            Op::Listen { socket, token } => {
                return self.listeners.add(self.poll.registry(), socket, token, out);
            }
            Op::Watch { socket, token } => {
                if !readiness::watch(self.poll.registry(), socket, token) {
                    out.push(Completion::Ready { token });
                }
                return;
            }
            Op::Detach { socket, token } => {
                assert!(!self.sends.contains_key(&socket.0), "Detach with a Send in flight");
                return self.leaving.push(Leaving::Detach { socket, token });
            }
            Op::Close { socket, token } => return self.leaving.push(Leaving::Close { socket, token }),
            Op::Recv { socket, token, mut buffer } => {
                assert!(buffer.capacity() > 0, "a Recv without room would read as the end of the stream");
                buffer.clear();
                self.receives += 1;
                InFlight::Recv { socket, token, buffer }
            }
            Op::Send { socket, token, buffer, from } => {
                assert!(from < buffer.len(), "a Send of nothing");
                let second = self.sends.insert(socket.0, self.operations.vacant_key());
                assert!(second.is_none(), "a second Send in flight on one socket");
                InFlight::Send { socket, token, buffer, from, polling: false }
            }
            Op::Write { token, buffer, .. } if buffer.is_empty() => {
                return out.push(Completion::Written { token, buffer, result: Ok(()) });
            }
            Op::Write { file, token, offset, buffer } => {
                InFlight::Write { file, token, offset, buffer, done: 0 }
            }
            Op::Sync { file, token } => InFlight::Sync { file, token },
        };
        let slot = self.operations.insert(in_flight);
        self.submit_slot(slot);
    }

    /// Hand the operation in `slot` to the kernel, or hand it over again for what is left of it.
    fn submit_slot(&mut self, slot: usize) {
        let entry = match &mut self.operations[slot] {
            InFlight::Recv { socket, buffer, .. } => {
                let length = clamp(buffer.capacity());
                opcode::Recv::new(Fd(socket.0), buffer.as_mut_ptr(), length).flags(libc::MSG_DONTWAIT).build()
            }
            InFlight::Send { socket, polling: true, .. } => {
                opcode::PollAdd::new(Fd(socket.0), libc::POLLOUT as u32).build()
            }
            InFlight::Send { socket, buffer, from, .. } => {
                let bytes = &buffer[*from..];
                let length = clamp(bytes.len());
                opcode::Send::new(Fd(socket.0), bytes.as_ptr(), length).flags(libc::MSG_NOSIGNAL).build()
            }
            InFlight::Write { file, offset, buffer, done, .. } => {
                let bytes = &buffer[*done..];
                let at = *offset + *done as u64;
                opcode::Write::new(Fd(file.0), bytes.as_ptr(), clamp(bytes.len())).offset(at).build()
            }
            InFlight::Sync { file, .. } => opcode::Fsync::new(Fd(file.0)).flags(FsyncFlags::DATASYNC).build(),
        };
        self.push(entry.user_data(slot as u64));
    }

    fn push(&mut self, entry: squeue::Entry) {
        loop {
            // SAFETY: the buffer that `entry` points to lies in `operations`, is owned there until the completion with the
            // same user data has been taken, and is not touched in between; `drop` waits for it or leaks it.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            // Full: let the kernel take what is there. Errors (interrupted, completions to be taken first) leave it
            // full, and pass: completions that find no room are kept aside by the kernel.
            if self.ring.submit().is_err() {
                self.take_completions();
            }
        }
    }

    /// Hand over what was begun, until all of it is with the kernel and no receive is; take what has ended.
    fn perform(&mut self, out: &mut Vec<Completion>) {
        while self.receives > 0 || !self.reaped.is_empty() || !self.ring.submission().is_empty() {
            self.ask(out);
        }
    }

    /// One system call of the ring, which waits for nothing, and what it brings.
    fn ask(&mut self, out: &mut Vec<Completion>) {
        self.enter(None).expect("a ring that has worked takes submissions from its thread");
        self.report(out);
    }

    /// Submit, and wait for a completion until then, if at all.
    fn enter(&mut self, until: Option<Nanos>) -> io::Result<()> {
        let submissions = clamp(self.ring.submission().len());
        let submitter = self.ring.submitter();
        let result = match until {
            // To ask for events, if only for none, is what makes the kernel do the deferred work. To wait for one for no
            // time would do so too, and set a timer.
            // SAFETY: what the submissions point to is lent, as `push` says; there is no argument.
            None => unsafe {
                submitter.enter::<libc::sigset_t>(submissions, 0, EnterFlags::GETEVENTS.bits(), None)
            },
            Some(until) => {
                let wait_ns = until.0.saturating_sub(calls::read_monotonic().0);
                let wait = Timespec::from(Duration::from_nanos(wait_ns));
                submitter.submit_with_args(1, &SubmitArgs::new().timespec(&wait))
            }
        };
        self.take_completions();
        match result {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // Nothing happened in time; a signal; or completions had to be taken first, which has been done.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    fn take_completions(&mut self) {
        let mut queue = self.ring.completion();
        queue.sync();
        self.reaped.extend(queue.map(|entry| (entry.user_data(), entry.result())));
    }

    /// Translate what was taken from the ring.
    fn report(&mut self, out: &mut Vec<Completion>) {
        let mut reaped = std::mem::take(&mut self.reaped);
        for &(slot, result) in &reaped {
            self.finish(slot as usize, result, out);
        }
        reaped.clear();
        // Finishing may have pushed, and pushing may have taken further ones.
        if self.reaped.is_empty() {
            self.reaped = reaped;
        }
    }

    /// Take what the set reports now, waiting at most until `until`; answers whether the doorbell was rung.
    fn wait(&mut self, until: Option<Nanos>, out: &mut Vec<Completion>) -> bool {
        let timeout = match until {
            None => Some(Duration::ZERO),
            Some(until) => {
                self.alarm.by(until);
                None
            }
        };
        let lends = !self.operations.is_empty();
        let announced = lends && timeout.is_none();
        let timeout =
            if announced && self.ended.announce(&mut self.ring) { Some(Duration::ZERO) } else { timeout };
        let polled = self.poll.poll(&mut self.events, timeout);
        if announced {
            self.ended.announce_no_more(&mut self.ring);
        }
        if lends && self.ended.is_any(&mut self.ring) {
            self.ask(out);
        }
        if polled.is_err() {
            // Only a signal interrupts; whoever handles it rings the doorbell.
            return false;
        }
        let mut rung = false;
        for event in &self.events {
            match Token(event.token().0 as u64) {
                DOORBELL => rung = true,
                ALARM => self.alarm.rang(),
                RING => {}
                token if self.listeners.take_event(token) => {}
                token => readiness::report(token, event.is_read_closed(), out),
            }
        }
        rung && self.bell.take()
    }

    fn finish(&mut self, slot: usize, result: i32, out: &mut Vec<Completion>) {
        let outcome = usize::try_from(result).map_err(|_| Errno(-result));
        if self.goes_on(slot, outcome) {
            return self.submit_slot(slot);
        }
        match self.operations.remove(slot) {
            InFlight::Recv { token, mut buffer, .. } => {
                self.receives -= 1;
                if let Ok(count) = outcome {
                    assert!(count <= buffer.capacity(), "the kernel received more than there was room for");
                    // SAFETY: the kernel wrote that many bytes at the beginning of the buffer, and has ended.
                    unsafe { buffer.set_len(count) };
                }
                out.push(Completion::Received { token, buffer, result: outcome });
            }
            InFlight::Send { socket, token, buffer, from, .. } => {
                self.sends.remove(&socket.0);
                out.push(Completion::Sent { token, buffer, from, result: outcome });
                if let Some(token) = self.closing_after_send.remove(&socket.0) {
                    close_now(&mut self.listeners, socket, token, out);
                }
            }
            InFlight::Write { token, buffer, .. } => {
                let result = match outcome {
                    // A regular file takes at least one byte or says why not.
                    Ok(0) => Err(Errno(libc::EIO)),
                    other => other.map(|_| ()),
                };
                out.push(Completion::Written { token, buffer, result });
            }
            InFlight::Sync { token, .. } => {
                out.push(Completion::Synced { token, result: outcome.map(|_| ()) })
            }
        }
    }

    /// Whether the operation is to be handed to the kernel once more: interrupted, short, or now with room.
    fn goes_on(&mut self, slot: usize, outcome: Result<usize, Errno>) -> bool {
        match (&mut self.operations[slot], outcome) {
            (_, Err(Errno(libc::EINTR))) => true,
            (InFlight::Send { polling, .. }, Err(Errno(libc::EAGAIN))) => {
                *polling = true;
                true
            }
            // Room, or a failure of the socket that the send will meet; a failure to poll is one of the send.
            (InFlight::Send { polling, .. }, Ok(_)) if *polling => {
                *polling = false;
                true
            }
            (InFlight::Write { .. }, Err(Errno(libc::EAGAIN))) => true,
            (InFlight::Write { done, buffer, .. }, Ok(count)) if count > 0 => {
                *done += count;
                *done < buffer.len()
            }
            _ => false,
        }
    }

    /// Detach and close what was asked to be, now that what was submitted before has been performed.
    fn leave(&mut self, out: &mut Vec<Completion>) {
        for each in std::mem::take(&mut self.leaving) {
            let (Leaving::Detach { socket, .. } | Leaving::Close { socket, .. }) = each;
            // Explicitly, because an entry outlives its descriptor while a duplicate of it is open somewhere.
            readiness::deregister(self.poll.registry(), socket);
            match each {
                Leaving::Detach { socket, token } => out.push(Completion::Detached { token, socket }),
                Leaving::Close { socket, token } if self.sends.contains_key(&socket.0) => {
                    calls::shut_down(socket);
                    let second = self.closing_after_send.insert(socket.0, token);
                    assert!(second.is_none(), "a socket closed twice");
                }
                Leaving::Close { socket, token } => close_now(&mut self.listeners, socket, token, out),
            }
        }
    }
}

fn close_now(listeners: &mut Listeners, socket: Socket, token: Token, out: &mut Vec<Completion>) {
    listeners.remove(socket);
    calls::discard_received(socket);
    calls::close(socket);
    out.push(Completion::Closed { token });
}

/// The ring counts in 32 bits; what is beyond is a short transfer.
fn clamp(length: usize) -> u32 {
    length.min(1 << 30) as u32
}

impl Reactor for Uring {
    fn now(&self) -> Now {
        self.now
    }

    fn room(&self) -> usize {
        self.operations_max.saturating_sub(self.queue.len())
    }

    fn submit(&mut self, op: Op) {
        debug_assert!(self.room() > 0, "submit without room");
        self.queue.push_back(op);
    }

    fn turn(&mut self, deadline: Nanos, completions: &mut Vec<Completion>) {
        let before = completions.len();
        self.enable();
        while let Some(op) = self.queue.pop_front() {
            self.start(op, completions);
        }
        let mut rung = self.bell.take();
        loop {
            self.perform(completions);
            self.leave(completions);
            let at_hand = rung || completions.len() > before;
            let due = deadline.min(self.listeners.due());
            let until = if at_hand || due <= self.now.mono { None } else { Some(due) };
            rung |= self.wait(until, completions);
            self.now = calls::read_clocks();
            if self.listeners.due() <= self.now.mono {
                self.listeners.accept(self.now.mono, completions);
            }
            if rung || completions.len() > before || deadline <= self.now.mono {
                return;
            }
        }
    }

    fn receive(&mut self, socket: Socket, buffer: &mut Vec<u8>) -> Option<Result<usize, Errno>> {
        Some(calls::receive(socket, buffer))
    }

    fn send(&mut self, socket: Socket, bytes: &[u8]) -> Option<Result<usize, Errno>> {
        Some(calls::send(socket, bytes))
    }

    fn doorbell(&self) -> Arc<dyn Doorbell> {
        Arc::clone(&self.bell) as Arc<dyn Doorbell>
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        self.queue.clear();
        for (_, operation) in &self.operations {
            if let InFlight::Send { socket, .. } = operation {
                calls::shut_down(*socket);
            }
        }
        let give_up = Nanos(calls::read_monotonic().0.saturating_add(DROP_WAIT_NS));
        let mut unheard = Vec::new();
        while !self.operations.is_empty() && calls::read_monotonic() < give_up {
            // From another thread than the ring's this fails at once.
            if self.enter(Some(give_up)).is_err() {
                break;
            }
            self.report(&mut unheard);
        }
        if !self.operations.is_empty() {
            std::mem::forget(std::mem::take(&mut self.operations));
        }
    }
}
