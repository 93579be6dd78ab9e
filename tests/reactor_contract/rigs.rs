//! The worlds that the contract is checked in: the kernel with real sockets on the loopback device and a real file,
//! and the simulated one.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ironpost::journal::storage::Storage;
use ironpost::reactor::faults::{self, Faults};
use ironpost::reactor::sim::{self, ClientEnd, SimStorage, World};
use ironpost::reactor::{self, File, Reactor, Settings, Socket};

/// The far end of a connection. No call waits.
pub trait Peer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize>;
    fn shut_down_write(&mut self);
    fn reset(self: Box<Self>);
}

/// A world.
pub trait Rig {
    fn reactor(&mut self) -> Box<dyn Reactor>;
    fn listen(&mut self) -> Socket;
    fn duplicate(&mut self, socket: Socket) -> Socket;
    fn connect(&mut self, listener: Socket) -> Box<dyn Peer>;
    /// An empty file.
    fn file(&mut self) -> File;
    fn content(&mut self, file: File) -> Vec<u8>;
    /// From now on no socket can be opened; `false`: as before.
    fn exhaust_descriptors(&mut self, exhausted: bool);
    /// More than both ends of a connection hold.
    fn bytes_beyond_room(&self) -> usize;
    /// Whether another thread's doorbell can end a wait here.
    fn has_threads(&self) -> bool;
    /// Whether completions may be made up, by the wrapper.
    fn has_faults(&self) -> bool;
}

static ALONE: Mutex<()> = Mutex::new(());

/// Held by each case that runs on the kernel.
pub fn alone() -> MutexGuard<'static, ()> {
    // A case that failed leaves nothing behind that matters to the next.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wrapped(reactor: Box<dyn Reactor>, faults: &mut Option<u64>) -> Box<dyn Reactor> {
    match faults {
        None => reactor,
        Some(seed) => {
            *seed += 100;
            Box::new(Faults::new(reactor, *seed, faults::Settings::harmless()))
        }
    }
}

pub struct Kernel {
    make: fn() -> Box<dyn Reactor>,
    faults: Option<u64>,
    files: Vec<std::fs::File>,
    descriptors_before: Option<libc::rlimit>,
}

impl Kernel {
    pub fn new(faults: Option<u64>, make: fn() -> Box<dyn Reactor>) -> Kernel {
        Kernel { make, faults, files: Vec::new(), descriptors_before: None }
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.exhaust_descriptors(false);
    }
}

impl Rig for Kernel {
    fn reactor(&mut self) -> Box<dyn Reactor> {
        wrapped((self.make)(), &mut self.faults)
    }

    fn listen(&mut self) -> Socket {
        reactor::listen("127.0.0.1:0".parse().unwrap()).unwrap()
    }

    fn duplicate(&mut self, socket: Socket) -> Socket {
        reactor::duplicate(socket).unwrap()
    }

    fn connect(&mut self, listener: Socket) -> Box<dyn Peer> {
        let stream = TcpStream::connect(reactor::local_address(listener).unwrap()).unwrap();
        stream.set_nonblocking(true).unwrap();
        Box::new(stream)
    }

    fn file(&mut self) -> File {
        let file = tempfile::tempfile().unwrap();
        let handle = File(file.as_raw_fd());
        self.files.push(file);
        handle
    }

    fn content(&mut self, file: File) -> Vec<u8> {
        let file = self.files.iter().find(|each| each.as_raw_fd() == file.0).unwrap();
        let mut content = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut content, 0).unwrap();
        content
    }

    fn exhaust_descriptors(&mut self, exhausted: bool) {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        if exhausted {
            // SAFETY: a whole rlimit that outlives the call.
            assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0);
            self.descriptors_before = Some(limit);
            limit.rlim_cur = 3;
        } else if let Some(before) = self.descriptors_before.take() {
            limit = before;
        } else {
            return;
        }
        // SAFETY: as above.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
    }

    fn bytes_beyond_room(&self) -> usize {
        8 << 20
    }

    fn has_threads(&self) -> bool {
        true
    }

    fn has_faults(&self) -> bool {
        self.faults.is_some()
    }
}

impl Peer for TcpStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Write::write(self, bytes)
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        Read::read(self, into)
    }

    fn shut_down_write(&mut self) {
        self.shutdown(Shutdown::Write).unwrap();
    }

    fn reset(self: Box<Self>) {
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        let length = size_of::<libc::linger>() as libc::socklen_t;
        // SAFETY: a whole linger that outlives the call. Closing then sends a reset.
        let result = unsafe {
            let fd = self.as_raw_fd();
            libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), length)
        };
        assert_eq!(result, 0);
    }
}

pub struct Simulated {
    world: World,
    storage: SimStorage,
    faults: Option<u64>,
    settings: Settings,
    made: u16,
}

impl Simulated {
    pub fn new(seed: u64, faults: Option<u64>, settings: Settings) -> Simulated {
        let world = World::new(seed, sim::Settings::default());
        let storage = world.directory("contract");
        Simulated { world, storage, faults, settings, made: 0 }
    }
}

impl Rig for Simulated {
    fn reactor(&mut self) -> Box<dyn Reactor> {
        wrapped(Box::new(self.world.reactor(self.settings.clone())), &mut self.faults)
    }

    fn listen(&mut self) -> Socket {
        self.world.listen("127.0.0.1:0".parse().unwrap()).unwrap()
    }

    fn duplicate(&mut self, socket: Socket) -> Socket {
        self.world.duplicate(socket).unwrap()
    }

    fn connect(&mut self, listener: Socket) -> Box<dyn Peer> {
        Box::new(self.world.connect(listener).unwrap())
    }

    fn file(&mut self) -> File {
        self.made += 1;
        self.storage.create(&format!("file-{}", self.made), 0).unwrap()
    }

    fn content(&mut self, file: File) -> Vec<u8> {
        let mut content = vec![0; self.storage.len(file).unwrap() as usize];
        self.storage.read_at(file, 0, &mut content).unwrap();
        content
    }

    fn exhaust_descriptors(&mut self, exhausted: bool) {
        self.world.limit_descriptors(if exhausted { 1 } else { 100_000 });
    }

    fn bytes_beyond_room(&self) -> usize {
        3 * sim::Settings::default().socket_bytes_max
    }

    fn has_threads(&self) -> bool {
        false
    }

    fn has_faults(&self) -> bool {
        self.faults.is_some()
    }
}

impl Peer for ClientEnd {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.try_write(bytes)
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.try_read(into)
    }

    fn shut_down_write(&mut self) {
        ClientEnd::shut_down_write(self);
    }

    fn reset(self: Box<Self>) {
        ClientEnd::reset(*self);
    }
}
