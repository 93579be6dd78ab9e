//! A reactor under test, what it has said, and the steps that many cases share.

use ironpost::reactor::{Completion, Errno, Op, Reactor, Socket, Token};

use crate::rigs::{Peer, Rig};

/// Turns after which a case gives up, of at most 5 ms each.
pub const TURNS_MAX: usize = 2_000;

pub const LISTENER: Token = Token(1_000_000);

/// A reactor and what it has said.
pub struct Bench<'a> {
    pub rig: &'a mut dyn Rig,
    pub reactor: Box<dyn Reactor>,
    pub heard: Vec<Completion>,
    pub tokens: u64,
}

impl<'a> Bench<'a> {
    pub fn new(rig: &'a mut dyn Rig) -> Bench<'a> {
        let reactor = rig.reactor();
        Bench { rig, reactor, heard: Vec::new(), tokens: 0 }
    }

    pub fn token(&mut self) -> Token {
        self.tokens += 1;
        Token(self.tokens)
    }

    pub fn submit(&mut self, op: Op) {
        assert!(self.reactor.room() > 0);
        self.reactor.submit(op);
    }

    pub fn turn(&mut self) {
        let deadline = self.reactor.now().mono.plus_ms(5);
        self.reactor.turn(deadline, &mut self.heard);
    }

    /// Take the first completion for which `wanted` answers something, taking turns until it is there.
    pub fn wait_for<T>(&mut self, what: &str, wanted: impl Fn(&Completion) -> Option<T>) -> (T, Completion) {
        for _ in 0..TURNS_MAX {
            if let Some(position) = self.heard.iter().position(|each| wanted(each).is_some()) {
                let completion = self.heard.remove(position);
                return (wanted(&completion).unwrap(), completion);
            }
            self.turn();
        }
        panic!("{what} did not come; heard instead: {:?}", self.heard);
    }

    pub fn accept(&mut self) -> Socket {
        let accepted = |each: &Completion| match each {
            Completion::Accepted { token: LISTENER, result: Ok((socket, _)) } => Some(*socket),
            _ => None,
        };
        self.wait_for("a connection", accepted).0
    }

    /// Both ends of a new connection; the near one is watched.
    pub fn connected(&mut self, listener: Socket) -> (Socket, Token, Box<dyn Peer>) {
        let peer = self.rig.connect(listener);
        let socket = self.accept();
        let token = self.token();
        self.submit(Op::Watch { socket, token });
        (socket, token, peer)
    }

    pub fn listening(&mut self) -> Socket {
        let socket = self.rig.listen();
        self.submit(Op::Listen { socket, token: LISTENER });
        socket
    }

    pub fn ready(&mut self, token: Token) {
        self.wait_for("readiness", |each| {
            matches!(each, Completion::Ready { token: its } if *its == token).then_some(())
        });
    }

    pub fn receive(&mut self, socket: Socket, token: Token) -> Result<Vec<u8>, Errno> {
        self.submit(Op::Recv { socket, token, buffer: Vec::with_capacity(64) });
        self.turn();
        let position = self.heard.iter().position(|each| is_received(each, token));
        match self.heard.remove(position.expect("a receive completes in its turn")) {
            Completion::Received { buffer, result, .. } => {
                assert_eq!(result.unwrap_or(0), buffer.len());
                result.map(|_| buffer)
            }
            other => panic!("{other:?}"),
        }
    }

    /// Read as the contract wants: on readiness, until a receive does not fill its buffer. EAGAIN waits on.
    pub fn receive_until(
        &mut self,
        socket: Socket,
        token: Token,
        enough: impl Fn(&[u8], bool) -> bool,
    ) -> (Vec<u8>, bool) {
        let (mut bytes, mut ended) = (Vec::new(), false);
        while !enough(&bytes, ended) {
            self.ready(token);
            loop {
                match self.receive(socket, token) {
                    Ok(part) => {
                        ended |= part.is_empty();
                        bytes.extend_from_slice(&part);
                        if part.len() < 64 {
                            break;
                        }
                    }
                    Err(Errno(libc::EAGAIN)) => break,
                    Err(errno) => panic!("{errno}"),
                }
            }
        }
        (bytes, ended)
    }

    pub fn sent(&mut self, token: Token) -> (Vec<u8>, usize, Result<usize, Errno>) {
        let is_sent = |each: &Completion| {
            matches!(each, Completion::Sent { token: its, .. } if *its == token).then_some(())
        };
        match self.wait_for("the end of a send", is_sent).1 {
            Completion::Sent { buffer, from, result, .. } => (buffer, from, result),
            other => panic!("{other:?}"),
        }
    }

    pub fn closed(&mut self, token: Token) {
        self.wait_for("Closed", |each| {
            matches!(each, Completion::Closed { token: its } if *its == token).then_some(())
        });
    }

    /// Fill the socket until a send does not come back; that send's token is the socket's.
    pub fn fill(&mut self, socket: Socket, token: Token) {
        for _ in 0..1_000 {
            self.submit(Op::Send { socket, token, buffer: vec![7; 1 << 20], from: 0 });
            let mut done = false;
            for _ in 0..20 {
                self.turn();
                let position = self
                    .heard
                    .iter()
                    .position(|each| matches!(each, Completion::Sent { token: its, .. } if *its == token));
                if let Some(position) = position {
                    self.heard.remove(position);
                    done = true;
                    break;
                }
            }
            if !done {
                return;
            }
        }
        panic!("the socket is never full");
    }
}

pub fn is_received(completion: &Completion, token: Token) -> bool {
    matches!(completion, Completion::Received { token: its, .. } if *its == token)
}

pub fn write_all(bench: &mut Bench, peer: &mut dyn Peer, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match peer.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => bench.turn(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// What the peer gets until the end of the stream or that many bytes.
pub fn read_some(bench: &mut Bench, peer: &mut dyn Peer, max: usize) -> (Vec<u8>, bool) {
    let (mut bytes, mut part) = (Vec::new(), vec![0; 1 << 16]);
    for _ in 0..TURNS_MAX {
        match peer.read(&mut part) {
            Ok(0) => return (bytes, true),
            Ok(count) => bytes.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => bench.turn(),
            Err(error) => panic!("the peer's read failed: {error}"),
        }
        if bytes.len() >= max {
            return (bytes, false);
        }
    }
    panic!("the peer got only {} bytes", bytes.len());
}
