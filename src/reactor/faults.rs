//! A reactor that makes another one as unpleasant as the contract allows, by a seed: for tests of whoever uses one.
//!
//! What is injected is what kernels do: sends that take less, completions that come later, readiness without a
//! reason, nothing to read after readiness (then readiness again), connections that break, no descriptors for an
//! accept, failing writes and syncs. Each has a rate per thousand; a rate of 0 leaves it out. The contract holds
//! for the wrapped reactor as for the bare one, and `tests/reactor_contract` checks it.
//!
//! A failed write may have been performed or not, and so may a failed sync: the wrapper tosses for it. A connection
//! that breaks here does not break for the peer until its owner closes it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::{Completion, Doorbell, Errno, Op, Random, Reactor, Socket, Token};
use crate::time::{Nanos, Now};

/// How often per thousand. The default is never.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Sends that take at most a part.
    pub short_send: u32,
    /// Completions that come one to three turns later; not those of `Recv`, which the contract ties to its turn.
    pub delay: u32,
    /// Turns that report readiness of some watched socket without a reason.
    pub spurious_ready: u32,
    /// Receives that find nothing though something is there; readiness is reported again.
    pub would_block: u32,
    /// Accepted connections before which a lack of descriptors is reported.
    pub accept_exhausted: u32,
    /// Turns in which some watched socket breaks.
    pub reset: u32,
    /// Writes that fail with `EIO`.
    pub write_error: u32,
    /// Writes that fail with `ENOSPC`.
    pub write_full: u32,
    /// Syncs that fail with `EIO`.
    pub sync_error: u32,
}

impl Settings {
    /// Everything that costs time but no connection and no byte, often.
    pub fn harmless() -> Settings {
        Settings {
            short_send: 300,
            delay: 300,
            spurious_ready: 200,
            would_block: 200,
            accept_exhausted: 100,
            ..Settings::default()
        }
    }
}

/// See the module documentation.
pub struct Faults<R> {
    inner: R,
    settings: Settings,
    random: Random,
    /// Every watched socket by its token.
    watched: BTreeMap<Token, Socket>,
    /// Broken sockets; `true` until the error has been reported.
    broken: BTreeMap<i32, bool>,
    /// What was cut off a buffer on its way to the kernel, by the send's token.
    tails: BTreeMap<Token, Vec<u8>>,
    /// Writes and syncs whose success is a failure.
    failing: BTreeMap<Token, VecDeque<Option<Errno>>>,
    /// Sockets with a receive on its way to the inner reactor: a later one must not end before it.
    receiving: BTreeSet<i32>,
    /// Readiness owed to whoever was told that there was nothing.
    owed: BTreeSet<Token>,
    /// Completions made up here, for this turn.
    made_up: Vec<Completion>,
    /// Completions held back, and for how many turns more.
    delayed: VecDeque<(u32, Completion)>,
}

impl<R: Reactor> Faults<R> {
    /// `inner`, with faults drawn from `seed`.
    pub fn new(inner: R, seed: u64, settings: Settings) -> Faults<R> {
        Faults {
            inner,
            settings,
            random: Random::new(seed),
            watched: BTreeMap::new(),
            broken: BTreeMap::new(),
            tails: BTreeMap::new(),
            failing: BTreeMap::new(),
            receiving: BTreeSet::new(),
            owed: BTreeSet::new(),
            made_up: Vec::new(),
            delayed: VecDeque::new(),
        }
    }

    /// The wrapped reactor.
    pub fn inner(&self) -> &R {
        &self.inner
    }

    /// From now on at these rates.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
    }

    fn submit_receive(&mut self, socket: Socket, token: Token, mut buffer: Vec<u8>) {
        let first = !self.receiving.contains(&socket.0);
        let result = if let Some(ended) = self.read_broken(socket) {
            ended
        } else if first && self.random.per_mille(self.settings.would_block) {
            self.owed.insert(token);
            Err(Errno(libc::EAGAIN))
        } else {
            self.receiving.insert(socket.0);
            return self.inner.submit(Op::Recv { socket, token, buffer });
        };
        buffer.clear();
        self.made_up.push(Completion::Received { token, buffer, result });
    }

    /// What a read of a broken socket says.
    fn read_broken(&mut self, socket: Socket) -> Option<Result<usize, Errno>> {
        let unreported = self.broken.get_mut(&socket.0)?;
        Some(if std::mem::take(unreported) { Err(Errno(libc::ECONNRESET)) } else { Ok(0) })
    }

    fn submit_send(&mut self, socket: Socket, token: Token, mut buffer: Vec<u8>, from: usize) {
        if self.broken.contains_key(&socket.0) {
            let result = Err(Errno(libc::EPIPE));
            return self.made_up.push(Completion::Sent { token, buffer, from, result });
        }
        let count = buffer.len() - from;
        if count > 1 && self.random.per_mille(self.settings.short_send) {
            let kept = from + self.random.between(1, count as u64 - 1) as usize;
            self.tails.insert(token, buffer.split_off(kept));
        }
        self.inner.submit(Op::Send { socket, token, buffer, from });
    }

    fn write(&mut self, op: Op, token: Token) {
        let error = self.random.per_mille(self.settings.write_error).then_some(Errno(libc::EIO));
        let full = self.random.per_mille(self.settings.write_full).then_some(Errno(libc::ENOSPC));
        match (error.or(full), op) {
            (Some(errno), Op::Write { buffer, .. }) if self.random.per_mille(500) => {
                self.made_up.push(Completion::Written { token, buffer, result: Err(errno) });
            }
            (failure, op) => self.pass_on(op, token, failure),
        }
    }

    fn sync(&mut self, op: Op, token: Token) {
        let failure = self.random.per_mille(self.settings.sync_error).then_some(Errno(libc::EIO));
        match failure {
            Some(errno) if self.random.per_mille(500) => {
                self.made_up.push(Completion::Synced { token, result: Err(errno) });
            }
            failure => self.pass_on(op, token, failure),
        }
    }

    /// Perform a file operation whose result will be `failure`, if that is one.
    fn pass_on(&mut self, op: Op, token: Token, failure: Option<Errno>) {
        self.failing.entry(token).or_default().push_back(failure);
        self.inner.submit(op);
    }

    fn take_failure(&mut self, token: Token) -> Option<Errno> {
        let queue = self.failing.get_mut(&token)?;
        let failure = queue.pop_front().flatten();
        if queue.is_empty() {
            self.failing.remove(&token);
        }
        failure
    }

    fn any_watched(&mut self) -> Option<(Token, Socket)> {
        if self.watched.is_empty() {
            return None;
        }
        let chosen = self.random.below(self.watched.len() as u64) as usize;
        self.watched.iter().nth(chosen).map(|(token, socket)| (*token, *socket))
    }

    /// Faults that hit whoever is there.
    fn strike(&mut self) {
        if self.random.per_mille(self.settings.spurious_ready)
            && let Some((token, _)) = self.any_watched()
        {
            self.made_up.push(Completion::Ready { token });
        }
        if self.random.per_mille(self.settings.reset)
            && let Some((token, socket)) = self.any_watched()
            && !self.broken.contains_key(&socket.0)
        {
            self.broken.insert(socket.0, true);
            self.made_up.push(Completion::Ready { token });
        }
    }

    /// One completion of the inner reactor on its way out.
    fn translate(&mut self, completion: Completion, out: &mut Vec<Completion>) {
        let completion = match completion {
            Completion::Accepted { token, result: Ok(connection) } => {
                if self.random.per_mille(self.settings.accept_exhausted) {
                    let failed = Completion::Accepted { token, result: Err(Errno(libc::EMFILE)) };
                    self.hold_or_tell(token, failed, out);
                }
                Completion::Accepted { token, result: Ok(connection) }
            }
            Completion::Sent { token, mut buffer, from, result } => {
                if let Some(tail) = self.tails.remove(&token) {
                    buffer.extend_from_slice(&tail);
                }
                Completion::Sent { token, buffer, from, result }
            }
            Completion::Written { token, buffer, result } => {
                let failure = self.take_failure(token);
                Completion::Written { token, buffer, result: failure.map_or(result, Err) }
            }
            Completion::Synced { token, result } => {
                let failure = self.take_failure(token);
                Completion::Synced { token, result: failure.map_or(result, Err) }
            }
            other => other,
        };
        match &completion {
            // A receive ends in its turn, whatever is held back.
            Completion::Received { .. } => out.push(completion),
            Completion::Closed { token } | Completion::Detached { token, .. } => {
                let token = *token;
                self.release(token, out);
                out.push(completion);
            }
            Completion::Accepted { token, .. }
            | Completion::Ready { token }
            | Completion::Sent { token, .. }
            | Completion::Written { token, .. }
            | Completion::Synced { token, .. } => {
                let token = *token;
                self.hold_or_tell(token, completion, out);
            }
        }
    }

    fn hold_or_tell(&mut self, token: Token, completion: Completion, out: &mut Vec<Completion>) {
        if self.random.per_mille(self.settings.delay) {
            let turns = self.random.between(1, 3) as u32;
            self.delayed.push_back((turns, completion));
        } else {
            self.release(token, out);
            out.push(completion);
        }
    }

    /// What was held back for that token comes before anything newer.
    fn release(&mut self, token: Token, out: &mut Vec<Completion>) {
        let mut index = 0;
        while index < self.delayed.len() {
            if self.delayed[index].1.token() == token {
                out.extend(self.delayed.remove(index).map(|(_, completion)| completion));
            } else {
                index += 1;
            }
        }
    }

    /// What was held back long enough, each after what was held back before it for the same token.
    fn release_due(&mut self, out: &mut Vec<Completion>) {
        self.delayed.iter_mut().for_each(|(turns, _)| *turns = turns.saturating_sub(1));
        while let Some(position) = self.delayed.iter().position(|(turns, _)| *turns == 0) {
            let token = self.delayed[position].1.token();
            self.release(token, out);
        }
    }
}

impl<R: Reactor> Reactor for Faults<R> {
    fn now(&self) -> Now {
        self.inner.now()
    }

    fn room(&self) -> usize {
        self.inner.room().saturating_sub(self.made_up.len())
    }

    fn submit(&mut self, op: Op) {
        match op {
            Op::Recv { socket, token, buffer } => self.submit_receive(socket, token, buffer),
            Op::Send { socket, token, buffer, from } => self.submit_send(socket, token, buffer, from),
            Op::Write { token, .. } => self.write(op, token),
            Op::Sync { token, .. } => self.sync(op, token),
            Op::Watch { socket, token } => {
                self.watched.insert(token, socket);
                self.inner.submit(op);
            }
            Op::Detach { socket, .. } | Op::Close { socket, .. } => {
                self.watched.retain(|_, watched| *watched != socket);
                self.broken.remove(&socket.0);
                self.inner.submit(op);
            }
            Op::Listen { .. } => self.inner.submit(op),
        }
    }

    fn turn(&mut self, deadline: Nanos, completions: &mut Vec<Completion>) {
        // The made-up ones of a socket precede what the inner reactor says of it, its `Closed` above all.
        let owed = std::mem::take(&mut self.owed);
        let still_watched = owed.into_iter().filter(|token| self.watched.contains_key(token));
        let owed: Vec<Completion> = still_watched.map(|token| Completion::Ready { token }).collect();
        self.strike();
        let before = completions.len();
        completions.append(&mut self.made_up);
        completions.extend(owed);
        self.release_due(completions);
        let until = if completions.len() > before {
            Nanos(0)
        } else if self.delayed.is_empty() {
            deadline
        } else {
            deadline.min(self.inner.now().mono.plus_ms(1))
        };
        let mut heard = Vec::new();
        self.inner.turn(until, &mut heard);
        self.receiving.clear();
        for completion in heard {
            self.translate(completion, completions);
        }
    }

    fn receive(&mut self, socket: Socket, buffer: &mut Vec<u8>) -> Option<Result<usize, Errno>> {
        buffer.clear();
        if let Some(ended) = self.read_broken(socket) {
            return Some(ended);
        }
        let token = self.watched.iter().find_map(|(token, watched)| (*watched == socket).then_some(*token));
        if let Some(token) = token
            && self.random.per_mille(self.settings.would_block)
        {
            self.owed.insert(token);
            return Some(Err(Errno(libc::EAGAIN)));
        }
        self.inner.receive(socket, buffer)
    }

    fn send(&mut self, socket: Socket, bytes: &[u8]) -> Option<Result<usize, Errno>> {
        if self.broken.contains_key(&socket.0) {
            return Some(Err(Errno(libc::EPIPE)));
        }
        let kept = if bytes.len() > 1 && self.random.per_mille(self.settings.short_send) {
            self.random.between(1, bytes.len() as u64 - 1) as usize
        } else {
            bytes.len()
        };
        self.inner.send(socket, &bytes[..kept])
    }

    fn doorbell(&self) -> Arc<dyn Doorbell> {
        self.inner.doorbell()
    }
}
