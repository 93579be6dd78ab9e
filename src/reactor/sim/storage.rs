//! One directory of the simulated disk, as the journal's storage.
//!
//! Calls block, that is, they take time on the world's clock, and are done when they return. Clones share the open
//! files and the lock, which end with the last clone; a crash ends both at once.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use super::{State, to_io};
use crate::journal::storage::Storage;
use crate::reactor::{Errno, File};
use crate::time::Nanos;

/// See the module documentation.
#[derive(Clone)]
pub struct SimStorage {
    handle: Rc<Handle>,
}

struct Handle {
    state: Rc<RefCell<State>>,
    directory: String,
    owner: u64,
    life: Cell<u64>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Not while a panic unwinds through the world.
        if let Ok(mut state) = self.state.try_borrow_mut() {
            state.disk.release(self.owner);
        }
    }
}

impl SimStorage {
    pub(super) fn new(state: Rc<RefCell<State>>, directory: &str) -> SimStorage {
        let mut world = state.borrow_mut();
        world.disk.make_directory(directory);
        let (owner, life) = (world.disk.new_owner(), Cell::new(world.life));
        drop(world);
        SimStorage { handle: Rc::new(Handle { state, directory: directory.to_owned(), owner, life }) }
    }

    /// Flip bits of one byte of a file behind everybody's back, as a bad sector that passes the drive's own check.
    pub fn damage(&self, name: &str, offset: u64, flip: u8) -> io::Result<()> {
        self.with(|state| state.disk.damage(&self.handle.directory, name, offset, flip))
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let state = &mut *self.handle.state.borrow_mut();
        assert_eq!(self.handle.life.get(), state.life, "a storage of a process that died in a crash");
        act(state)
    }

    fn slowly<T>(&self, range: impl FnOnce(&State) -> (u64, u64), act: impl FnOnce(&mut State) -> T) -> T {
        self.with(|state| {
            let latency = state.core.draw(range(state));
            state.core.advance_to(Nanos(state.core.now().0 + latency));
            act(state)
        })
    }
}

fn sync_latency(state: &State) -> (u64, u64) {
    state.core.settings.sync_latency_ns
}

fn write_latency(state: &State) -> (u64, u64) {
    state.core.settings.write_latency_ns
}

impl Storage for SimStorage {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.with(|state| state.disk.list(&self.handle.directory)))
    }

    fn open(&self, name: &str) -> io::Result<File> {
        self.with(|state| state.disk.open(&self.handle.directory, name, self.handle.owner))
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<File> {
        let Handle { directory, owner, .. } = &*self.handle;
        self.slowly(sync_latency, |state| state.disk.create(directory, name, bytes, *owner, &mut state.core))
    }

    fn len(&self, file: File) -> io::Result<u64> {
        self.with(|state| state.disk.bytes(file)).map_err(to_io)
    }

    fn read_at(&self, file: File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let count = self.with(|state| state.disk.read(file, offset, buffer)).map_err(to_io)?;
        if count == buffer.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn write_at(&self, file: File, offset: u64, buffer: &[u8]) -> io::Result<()> {
        self.slowly(write_latency, |state| state.disk.write_now(file, offset, buffer, &mut state.core))
            .map_err(to_io)
    }

    fn sync(&self, file: File) -> io::Result<()> {
        self.slowly(sync_latency, |state| state.disk.sync_at_once(file, &mut state.core)).map_err(to_io)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.slowly(sync_latency, |state| {
            state.disk.sync_directory(&self.handle.directory);
            Ok::<(), Errno>(())
        })
        .map_err(to_io)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.with(|state| state.disk.remove(&self.handle.directory, name))
    }

    fn lock(&self) -> io::Result<()> {
        self.with(|state| state.disk.lock(&self.handle.directory, self.handle.owner))
    }

    fn describe(&self, name: &str) -> String {
        format!("{}/{name} (simulated)", self.handle.directory)
    }
}
