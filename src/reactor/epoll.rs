//! The reactor on epoll (mio) and plain system calls: complete on every Linux, and the measure for the other.
//!
//! Two epoll sets. The first holds every watched connection, for reading. The second holds the sockets on which a
//! send is blocked, for writing, and is itself an entry of the first: so an idle connection costs one entry and no
//! user memory, and a socket with room produces no events for it. The alternative, one registration for both
//! directions, wakes the shard once per acknowledged window of every busy connection and needs a table from token to
//! blocked send.
//!
//! File operations go to one companion thread (`files`). Everything else is performed on this thread within `turn`,
//! without blocking.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll};
use slab::Slab;

use super::alarm::Alarm;
use super::files::{FileOp, FileThread};
use super::listeners::Listeners;
use super::readiness::{self, ALARM, BLOCKED_SENDS, Bell, DOORBELL};
use super::{Completion, Doorbell, Errno, Op, Reactor, Settings, Socket, Token, calls};
use crate::hash::ByNumber;
use crate::time::{Nanos, Now};

/// A send that found the socket full and waits for room.
struct BlockedSend {
    socket: Socket,
    token: Token,
    buffer: Vec<u8>,
    from: usize,
}

/// See the module documentation.
pub struct Epoll {
    poll: Poll,
    events: Events,
    blocked_poll: Poll,
    blocked_events: Events,
    blocked: Slab<BlockedSend>,
    /// Socket to slot in `blocked`; never iterated.
    blocked_by_socket: ByNumber<i32, usize>,
    listeners: Listeners,
    files: FileThread,
    /// File operations that the companion thread has no room for yet.
    files_waiting: VecDeque<FileOp>,
    queue: VecDeque<Op>,
    operations_max: usize,
    bell: Arc<Bell>,
    alarm: Alarm,
    now: Now,
}

impl Epoll {
    /// A reactor with its two epoll sets, its doorbell and its companion thread, which inherits the caller's
    /// processor affinity: create the reactor before pinning the shard's thread.
    pub fn new(settings: Settings) -> io::Result<Epoll> {
        let poll = Poll::new()?;
        let blocked_poll = Poll::new()?;
        let inner: RawFd = blocked_poll.as_raw_fd();
        let number = readiness::number(BLOCKED_SENDS);
        poll.registry().register(&mut SourceFd(&inner), number, Interest::READABLE)?;
        let bell = Bell::new(poll.registry())?;
        let alarm = Alarm::new(poll.registry())?;
        Ok(Epoll {
            poll,
            events: Events::with_capacity(settings.events_max.max(1)),
            blocked_poll,
            blocked_events: Events::with_capacity(settings.events_max.max(1)),
            blocked: Slab::new(),
            blocked_by_socket: ByNumber::default(),
            listeners: Listeners::new(&settings),
            files: FileThread::start(Arc::clone(&bell))?,
            files_waiting: VecDeque::new(),
            queue: VecDeque::new(),
            operations_max: settings.operations_max.max(1),
            bell,
            alarm,
            now: calls::read_clocks(),
        })
    }

    fn perform(&mut self, op: Op, out: &mut Vec<Completion>) {
        match op {
            Op::Listen { socket, token } => self.listeners.add(self.poll.registry(), socket, token, out),
            Op::Watch { socket, token } => {
                if !readiness::watch(self.poll.registry(), socket, token) {
                    out.push(Completion::Ready { token });
                }
            }
            Op::Recv { socket, token, mut buffer } => {
                assert!(buffer.capacity() > 0, "a Recv without room would read as the end of the stream");
                let result = calls::receive(socket, &mut buffer);
                out.push(Completion::Received { token, buffer, result });
            }
            Op::Send { socket, token, buffer, from } => {
                self.send(BlockedSend { socket, token, buffer, from }, out);
            }
            Op::Detach { socket, token } => {
                assert!(!self.blocked_by_socket.contains_key(&socket.0), "Detach with a Send in flight");
                readiness::deregister(self.poll.registry(), socket);
                out.push(Completion::Detached { token, socket });
            }
            Op::Close { socket, token } => self.close(socket, token, out),
            Op::Write { .. } | Op::Sync { .. } => {
                let Ok(file_op) = FileOp::from_op(op) else {
                    unreachable!("a Write or a Sync is a file operation")
                };
                self.files_waiting.push_back(file_op);
            }
        }
    }

    fn send(&mut self, send: BlockedSend, out: &mut Vec<Completion>) {
        assert!(send.from < send.buffer.len(), "a Send of nothing");
        match calls::send(send.socket, &send.buffer[send.from..]) {
            Err(Errno(libc::EAGAIN)) => self.block(send, out),
            result => out.push(sent(send, result)),
        }
    }

    fn block(&mut self, send: BlockedSend, out: &mut Vec<Completion>) {
        let fd: RawFd = send.socket.0;
        let entry = self.blocked.vacant_entry();
        let number = mio::Token(entry.key());
        // Registering reports room that appeared since the attempt, so that none is missed.
        match self.blocked_poll.registry().register(&mut SourceFd(&fd), number, Interest::WRITABLE) {
            Ok(()) => {
                let second = self.blocked_by_socket.insert(fd, entry.key());
                assert!(second.is_none(), "a second Send in flight on one socket");
                entry.insert(send);
            }
            Err(error) => out.push(sent(send, Err(calls::errno_of(&error)))),
        }
    }

    fn unblock(&mut self, slot: usize) -> BlockedSend {
        let send = self.blocked.remove(slot);
        self.blocked_by_socket.remove(&send.socket.0);
        readiness::deregister(self.blocked_poll.registry(), send.socket);
        send
    }

    /// Try every blocked send whose socket reported room or failed.
    fn retry_blocked(&mut self, out: &mut Vec<Completion>) {
        loop {
            if self.blocked_poll.poll(&mut self.blocked_events, Some(Duration::ZERO)).is_err() {
                // Interrupted: the set keeps what it has to say.
                continue;
            }
            // Taken out while sends change the tables.
            let events = std::mem::replace(&mut self.blocked_events, Events::with_capacity(0));
            let mut count = 0;
            for event in &events {
                count += 1;
                self.retry(event.token().0, out);
            }
            let capacity = events.capacity();
            self.blocked_events = events;
            // The outer set reports a change once; so the inner one is emptied now.
            if count < capacity {
                return;
            }
        }
    }

    fn retry(&mut self, slot: usize, out: &mut Vec<Completion>) {
        let Some(send) = self.blocked.get(slot) else { return };
        match calls::send(send.socket, &send.buffer[send.from..]) {
            Err(Errno(libc::EAGAIN)) => {}
            result => {
                let send = self.unblock(slot);
                out.push(sent(send, result));
            }
        }
    }

    fn close(&mut self, socket: Socket, token: Token, out: &mut Vec<Completion>) {
        if let Some(&slot) = self.blocked_by_socket.get(&socket.0) {
            let send = self.unblock(slot);
            out.push(sent(send, Err(Errno(libc::ECANCELED))));
        }
        self.listeners.remove(socket);
        // Explicitly, because an entry outlives its descriptor while a duplicate of it is open somewhere.
        readiness::deregister(self.poll.registry(), socket);
        calls::discard_received(socket);
        calls::close(socket);
        out.push(Completion::Closed { token });
    }

    fn feed_files(&mut self) {
        while self.files.has_room() {
            let Some(op) = self.files_waiting.pop_front() else { return };
            self.files.submit(op);
        }
    }

    /// Take what the kernel reports now, waiting at most until `until`; answers whether the doorbell was rung.
    fn poll_once(&mut self, until: Option<Nanos>, out: &mut Vec<Completion>) -> bool {
        let timeout = match until {
            None => Some(Duration::ZERO),
            Some(until) => {
                self.alarm.by(until);
                None
            }
        };
        if self.poll.poll(&mut self.events, timeout).is_err() {
            // Only a signal interrupts; whoever handles it rings the doorbell.
            return false;
        }
        let (mut rung, mut writable) = (false, false);
        for event in &self.events {
            let number = Token(event.token().0 as u64);
            match number {
                DOORBELL => rung = true,
                ALARM => self.alarm.rang(),
                BLOCKED_SENDS => writable = true,
                _ if self.listeners.take_event(number) => {}
                token => readiness::report(token, event.is_read_closed(), out),
            }
        }
        if writable {
            self.retry_blocked(out);
        }
        rung && self.bell.take()
    }
}

fn sent(send: BlockedSend, result: Result<usize, Errno>) -> Completion {
    Completion::Sent { token: send.token, buffer: send.buffer, from: send.from, result }
}

impl Reactor for Epoll {
    fn now(&self) -> Now {
        self.now
    }

    fn room(&self) -> usize {
        self.operations_max.saturating_sub(self.queue.len() + self.files_waiting.len())
    }

    fn submit(&mut self, op: Op) {
        debug_assert!(self.room() > 0, "submit without room");
        self.queue.push_back(op);
    }

    fn turn(&mut self, deadline: Nanos, completions: &mut Vec<Completion>) {
        let before = completions.len();
        while let Some(op) = self.queue.pop_front() {
            self.perform(op, completions);
        }
        let mut rung = self.bell.take();
        self.feed_files();
        self.files.collect(completions);
        loop {
            self.feed_files();
            let at_hand = rung || completions.len() > before || self.files.collect(completions);
            let accept_due = self.listeners.due();
            let passed = deadline.min(accept_due) <= self.now.mono;
            let until = if at_hand || passed { None } else { Some(deadline.min(accept_due)) };
            rung |= self.poll_once(until, completions);
            self.files.collect(completions);
            self.now = calls::read_clocks();
            if self.listeners.due() <= self.now.mono {
                self.listeners.accept(self.now.mono, completions);
            }
            if at_hand || rung || completions.len() > before || deadline <= self.now.mono {
                self.feed_files();
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
