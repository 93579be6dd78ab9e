//! What the simulated world promises its users: the same seed gives the same trace, and a disk that is as forgetful
//! as a real one.

use super::{ClientEnd, CrashKind, DiskFault, Settings, SimReactor, SimStorage, World};
use crate::journal::storage::Storage;
use crate::reactor::{self, Completion, Errno, File, Op, Reactor, Socket, Token};
use crate::time::Nanos;

fn world(seed: u64) -> World {
    World::new(seed, Settings { writeback_per_mille: 0, ..Settings::default() })
}

fn content(storage: &SimStorage, file: File) -> Vec<u8> {
    let mut bytes = vec![0; storage.len(file).unwrap() as usize];
    storage.read_at(file, 0, &mut bytes).unwrap();
    bytes
}

fn reopened(world: &World, directory: &str, name: &str) -> (SimStorage, File) {
    let storage = world.directory(directory);
    let file = storage.open(name).unwrap();
    (storage, file)
}

/// Synced ones, then unsynced twos over all of them; what is there after the crash.
fn ones_then_unsynced_twos(seed: u64, kind: CrashKind) -> Vec<u8> {
    let world = world(seed);
    let storage = world.directory("shard-0");
    let file = storage.create("a", 64 << 10).unwrap();
    storage.write_at(file, 0, &[1; 64 << 10]).unwrap();
    storage.sync(file).unwrap();
    storage.write_at(file, 0, &[2; 64 << 10]).unwrap();
    world.crash(kind);
    let (storage, file) = reopened(&world, "shard-0", "a");
    content(&storage, file)
}

#[test]
fn a_kill_loses_nothing_that_was_written() {
    for seed in 0..20 {
        assert!(ones_then_unsynced_twos(seed, CrashKind::Kill).iter().all(|&byte| byte == 2));
    }
}

#[test]
fn a_power_cut_keeps_drops_and_tears_unsynced_pages_in_whole_sectors() {
    let (mut kept, mut dropped, mut torn) = (0, 0, 0);
    for seed in 0..20 {
        let bytes = ones_then_unsynced_twos(seed, CrashKind::PowerCut);
        for page in bytes.chunks(4_096) {
            for sector in page.chunks(512) {
                assert!(
                    sector.iter().all(|&byte| byte == sector[0]),
                    "a sector is written whole or not at all"
                );
                assert!(sector[0] == 1 || sector[0] == 2, "synced bytes are not lost");
            }
            match page.iter().filter(|&&byte| byte == 2).count() {
                0 => dropped += 1,
                4_096 => kept += 1,
                _ => torn += 1,
            }
        }
    }
    assert!(kept > 50 && dropped > 50 && torn > 50, "kept {kept}, dropped {dropped}, torn {torn}");
}

#[test]
fn what_was_synced_survives_every_power_cut() {
    for seed in 0..50 {
        let world = world(seed);
        let storage = world.directory("d");
        let file = storage.create("a", 0).unwrap();
        storage.write_at(file, 100, b"kept").unwrap();
        storage.sync(file).unwrap();
        for _ in 0..3 {
            world.crash(CrashKind::PowerCut);
            let (storage, file) = reopened(&world, "d", "a");
            assert_eq!(&content(&storage, file)[100..], b"kept");
        }
    }
}

#[test]
fn after_a_failed_sync_the_data_is_gone_though_the_next_sync_succeeds() {
    let world = world(1);
    let storage = world.directory("d");
    let file = storage.create("a", 4_096).unwrap();
    storage.write_at(file, 0, b"lost").unwrap();
    world.fail_next(DiskFault::Sync(Errno(libc::EIO)));
    assert_eq!(storage.sync(file).unwrap_err().raw_os_error(), Some(libc::EIO));
    storage.sync(file).unwrap();
    assert_eq!(&content(&storage, file)[..4], [0; 4], "read from the device again");
    world.crash(CrashKind::PowerCut);
    let (storage, file) = reopened(&world, "d", "a");
    assert_eq!(&content(&storage, file)[..4], [0; 4]);
}

#[test]
fn pages_that_a_failed_sync_leaves_readable_are_lost_by_the_next_power_cut_at_times() {
    let mut lost = 0;
    for seed in 0..30 {
        let settings = Settings { failed_sync_keeps_cache_per_mille: 1_000, ..Settings::default() };
        let world = World::new(seed, settings);
        let storage = world.directory("d");
        let file = storage.create("a", 4_096).unwrap();
        storage.write_at(file, 0, b"lost").unwrap();
        world.fail_next(DiskFault::Sync(Errno(libc::EIO)));
        storage.sync(file).unwrap_err();
        storage.sync(file).unwrap();
        assert_eq!(&content(&storage, file)[..4], b"lost");
        world.crash(CrashKind::PowerCut);
        let (storage, file) = reopened(&world, "d", "a");
        lost += usize::from(content(&storage, file)[..4] == [0; 4]);
    }
    assert!(lost > 5, "{lost}");
}

#[test]
fn a_sync_in_flight_at_a_power_cut_has_promised_nothing() {
    let mut lost = 0;
    for seed in 0..30 {
        let world = world(seed);
        let storage = world.directory("d");
        let file = storage.create("a", 4_096).unwrap();
        let mut reactor = world.reactor(reactor::Settings::default());
        reactor.submit(Op::Write { file, token: Token(1), offset: 0, buffer: b"new".to_vec() });
        let mut completions = Vec::new();
        while completions.is_empty() {
            reactor.turn(Nanos::NEVER, &mut completions);
        }
        reactor.submit(Op::Sync { file, token: Token(2) });
        let at_once = reactor.now().mono;
        reactor.turn(at_once, &mut completions);
        assert_eq!(completions.len(), 1, "the sync takes its time");
        world.crash(CrashKind::PowerCut);
        let (storage, file) = reopened(&world, "d", "a");
        lost += usize::from(content(&storage, file)[..3] != *b"new");
    }
    assert!(lost > 5 && lost < 30, "{lost}");
}

#[test]
fn a_removal_that_was_not_synced_may_be_undone_and_one_that_was_may_not() {
    let mut back = 0;
    for seed in 0..30 {
        let world = world(seed);
        let storage = world.directory("d");
        for name in ["a", "b", "c"] {
            storage.create(name, 4_096).unwrap();
        }
        storage.remove("a").unwrap();
        storage.sync_directory().unwrap();
        storage.remove("b").unwrap();
        world.crash(CrashKind::Kill);
        assert_eq!(world.directory("d").list().unwrap(), ["c"], "a kill loses no removal");
        world.crash(CrashKind::PowerCut);
        let names = world.directory("d").list().unwrap();
        assert!(!names.contains(&"a".to_owned()) && names.contains(&"c".to_owned()), "{names:?}");
        back += usize::from(names.len() == 2);
    }
    assert!(back > 5 && back < 25, "{back}");
}

#[test]
fn a_full_disk_refuses_growth_and_takes_overwrites() {
    let world = world(1);
    world.limit_disk(16 << 10);
    let storage = world.directory("d");
    let file = storage.create("a", 12 << 10).unwrap();
    assert_eq!(storage.create("b", 8 << 10).unwrap_err().raw_os_error(), Some(libc::ENOSPC));
    assert_eq!(storage.list().unwrap(), ["a"], "nothing is left of it");
    storage.write_at(file, 0, &[1; 12 << 10]).unwrap();
    storage.write_at(file, 12 << 10, &[1; 4 << 10]).unwrap();
    assert_eq!(storage.write_at(file, 16 << 10, b"x").unwrap_err().raw_os_error(), Some(libc::ENOSPC));
    drop(storage);
    let storage = world.directory("d");
    storage.remove("a").unwrap();
    storage.create("b", 8 << 10).unwrap();
}

#[test]
fn injected_faults_hit_once_and_reads_can_fail() {
    let world = world(1);
    let storage = world.directory("d");
    let file = storage.create("a", 4_096).unwrap();
    world.fail_next(DiskFault::Read(Errno(libc::EIO)));
    world.fail_next(DiskFault::Write(Errno(libc::ENOSPC)));
    assert_eq!(storage.write_at(file, 0, b"x").unwrap_err().raw_os_error(), Some(libc::ENOSPC));
    storage.write_at(file, 0, b"x").unwrap();
    let mut byte = [0];
    assert_eq!(storage.read_at(file, 0, &mut byte).unwrap_err().raw_os_error(), Some(libc::EIO));
    storage.read_at(file, 0, &mut byte).unwrap();
    assert_eq!(&byte, b"x");
    storage.damage("a", 0, 0x80).unwrap();
    storage.read_at(file, 0, &mut byte).unwrap();
    assert_eq!(byte, [b'x' ^ 0x80]);
}

#[test]
fn the_lock_is_exclusive_until_its_holder_is_gone() {
    let world = world(1);
    let first = world.directory("d");
    first.lock().unwrap();
    let second = world.directory("d");
    assert_eq!(second.lock().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    let clone = first.clone();
    drop(first);
    assert!(second.lock().is_err(), "a clone still holds it");
    drop(clone);
    second.lock().unwrap();
    world.crash(CrashKind::Kill);
    world.directory("d").lock().unwrap();
}

/// A shard that sends back what it receives.
struct Echo {
    reactor: SimReactor,
    /// Output of each connection that has not been taken yet.
    connections: Vec<(Socket, Vec<u8>, bool)>,
    completions: Vec<Completion>,
}

impl Echo {
    fn new(world: &World, listener: Socket) -> Echo {
        let mut reactor = world.reactor(reactor::Settings::default());
        let socket = world.duplicate(listener).unwrap();
        reactor.submit(Op::Listen { socket, token: Token(1 << 32) });
        Echo { reactor, connections: Vec::new(), completions: Vec::new() }
    }

    fn receive(&mut self, token: Token) {
        let socket = self.connections[token.0 as usize].0;
        self.reactor.submit(Op::Recv { socket, token, buffer: Vec::with_capacity(512) });
    }

    fn send(&mut self, token: Token) {
        let (socket, output, sending) = &mut self.connections[token.0 as usize];
        if !output.is_empty() && !std::mem::replace(sending, true) {
            self.reactor.submit(Op::Send { socket: *socket, token, buffer: std::mem::take(output), from: 0 });
        }
    }

    fn run(&mut self) {
        let mut completions = std::mem::take(&mut self.completions);
        self.reactor.turn(Nanos::NEVER, &mut completions);
        for completion in completions.drain(..) {
            match completion {
                Completion::Accepted { result, .. } => {
                    let token = Token(self.connections.len() as u64);
                    let socket = result.unwrap().0;
                    self.connections.push((socket, Vec::new(), false));
                    self.reactor.submit(Op::Watch { socket, token });
                }
                Completion::Ready { token } => self.receive(token),
                Completion::Received { token, buffer, result: Ok(count) } if count > 0 => {
                    self.connections[token.0 as usize].1.extend_from_slice(&buffer);
                    self.send(token);
                    if count == buffer.capacity() {
                        self.receive(token);
                    }
                }
                Completion::Sent { token, buffer, from, result } => {
                    let rest = buffer[from + result.unwrap()..].to_vec();
                    let (_, output, sending) = &mut self.connections[token.0 as usize];
                    *sending = false;
                    output.splice(0..0, rest);
                    self.send(token);
                }
                _ => {}
            }
        }
        self.completions = completions;
    }
}

/// Two shards, clients that send through small windows: what came back, and the trace.
fn echo_through_two_shards(seed: u64) -> (Vec<Vec<u8>>, u64) {
    let settings = Settings { turns_wait: false, socket_bytes_max: 700, ..Settings::default() };
    let world = World::new(seed, settings);
    let listener = world.listen("127.0.0.1:1883".parse().unwrap()).unwrap();
    let mut shards = [Echo::new(&world, listener), Echo::new(&world, listener)];
    let mut clients: Vec<ClientEnd> = (0..8).map(|_| world.connect(listener).unwrap()).collect();
    let message: Vec<u8> = (0..5_000u32).map(|number| number as u8).collect();
    let mut sent = vec![0; clients.len()];
    let mut echoed = vec![Vec::new(); clients.len()];
    for _ in 0..100_000 {
        for index in world.runnable() {
            shards[index].run();
        }
        for (index, client) in clients.iter_mut().enumerate() {
            sent[index] += client.try_write(&message[sent[index]..]).unwrap_or(0);
            let mut bytes = [0; 300];
            while let Ok(count) = client.try_read(&mut bytes)
                && count > 0
            {
                echoed[index].extend_from_slice(&bytes[..count]);
            }
        }
        if !world.advance_to_next_event() {
            break;
        }
    }
    assert!(shards.iter().all(|shard| !shard.connections.is_empty()), "both shards accept");
    (echoed, world.trace_hash())
}

#[test]
fn two_shards_echo_every_byte_in_order_and_the_seed_decides_the_trace() {
    let message: Vec<u8> = (0..5_000u32).map(|number| number as u8).collect();
    let mut traces = std::collections::BTreeSet::new();
    for seed in 0..10 {
        let (echoed, trace) = echo_through_two_shards(seed);
        assert!(echoed.iter().all(|bytes| *bytes == message), "seed {seed}");
        assert_eq!(echo_through_two_shards(seed).1, trace, "seed {seed}");
        traces.insert(trace);
    }
    assert_eq!(traces.len(), 10, "other seeds, other traces");
}

#[test]
fn clients_see_a_crash_as_an_end_or_a_reset_and_can_connect_again() {
    for (seed, kind) in [(1, CrashKind::Kill), (2, CrashKind::PowerCut)] {
        let settings = Settings { turns_wait: false, ..Settings::default() };
        let world = World::new(seed, settings);
        let address = "127.0.0.1:1883".parse().unwrap();
        let listener = world.listen(address).unwrap();
        let mut shard = Echo::new(&world, listener);
        let mut client = world.connect(listener).unwrap();
        while shard.connections.is_empty() {
            shard.run();
            world.step();
        }
        world.crash(kind);
        drop(shard);
        while world.step() {}
        let end = client.try_read(&mut [0; 8]);
        match kind {
            CrashKind::Kill => assert_eq!(end.unwrap(), 0, "its process closed the socket"),
            CrashKind::PowerCut => assert_eq!(end.unwrap_err().raw_os_error(), Some(libc::ECONNRESET)),
        }
        let mut refused = world.connect_to(address);
        while world.step() {}
        assert_eq!(refused.try_read(&mut [0; 8]).unwrap_err().raw_os_error(), Some(libc::ECONNRESET));
        world.listen(address).unwrap();
    }
}
