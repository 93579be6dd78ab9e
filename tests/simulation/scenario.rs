//! What one seed draws before anything happens: the shape of the broker, its host, its clients and their topics.
//!
//! Decides nothing that happens later; `driver` does. Small numbers everywhere (windows, queues, segments, sockets),
//! because a bound that is never reached is never tested.

use ironpost::broker::settings::Settings;
use ironpost::limits;
use ironpost::placement::Placement;
use ironpost::reactor::{Random, sim};
use ironpost::wire::Version;

/// Topics that clients publish to.
pub const TOPICS: &[&str] =
    &["a/1", "a/2", "b/1", "b/2", "a/1/x", "c/3/y/z", "u/c0/in", "u/c1/in", "u/c2/in", "d"];

/// Filters that clients subscribe to: exact, with wildcards inside one owner, and with wildcards that every shard has
/// to know.
pub const FILTERS: &[&str] = &[
    "a/1", "a/2", "b/1", "b/2", "a/1/x", "c/3/y/z", "u/c0/in", "u/c1/in", "d", "#", "+/1", "+/2", "a/#",
    "a/1/#", "b/+", "c/3/+/z", "u/+/in", "u/c1/#", "+/+/#",
];

/// Shared subscriptions: of one owner, and of all.
pub const SHARED: &[&str] = &["$share/g/a/1", "$share/g/b/+", "$share/h/#", "$share/g/d"];

/// Topics with retained messages, apart from the others so that it is clear which message is the retained one.
pub const RETAINED_TOPICS: &[&str] = &["r/1", "r/2", "q/1/r"];

/// Topics of wills.
pub const WILL_TOPICS: &[&str] = &["w/1", "a/w"];

/// One client's habits.
#[derive(Clone, Debug)]
pub struct Habits {
    pub version: Version,
    /// How often per thousand it asks for a session that outlives its connection.
    pub durable: u32,
    pub receive_maximum: Option<u16>,
    pub topic_alias_maximum: u16,
    /// How often per thousand it starts to withhold acknowledgements when it could.
    pub slow: u32,
    /// Whether it subscribes at all.
    pub subscribes: bool,
}

/// See the module documentation.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    pub shards: u16,
    pub hold_ms: u32,
    /// Whether the reactor is wrapped in a fault injector.
    pub faults: bool,
    /// Whether queues are so small that they fill.
    pub small_queues: bool,
    pub queue_messages_max: u32,
    pub resident_bytes_max: u64,
    pub send_window: u16,
    pub pattern: Option<&'static str>,
    pub hash_key: [u8; 16],
    pub clients: Vec<Habits>,
    /// Client operations before the faults end.
    pub operations: u32,
    /// Of these, the ones after which something happens to the broker.
    pub upsets: Vec<(u32, Upset)>,
    /// How often per thousand steps of the world a client does something.
    pub pace: u32,
    /// Share of publishes at QoS 2, per thousand; the rest is mostly QoS 1.
    pub exactly_once: u32,
    pub shared_subscriptions: bool,
    pub world: sim::Settings,
}

/// What happens to the whole broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Upset {
    /// The process dies.
    Kill,
    /// The host loses its power.
    PowerCut,
    /// The next write of a journal fails: the broker has to stop.
    WriteError,
    /// The next sync fails.
    SyncError,
    /// A graceful stop.
    Drain,
    /// Nothing, for some seconds.
    Lull,
}

impl Scenario {
    /// Everything follows from the seed.
    pub fn draw(seed: u64) -> Scenario {
        let random = &mut Random::new(seed ^ 0x5CEA_A210);
        let shards = random.between(1, 4) as u16;
        let small_queues = random.per_mille(250);
        let mut hash_key = [0; 16];
        hash_key[..8].copy_from_slice(&random.next_u64().to_le_bytes());
        let operations = 1_000 + random.below(200) as u32;
        let hold_ms = if random.per_mille(350) { 0 } else { random.between(1, 200) as u32 };
        let clients = (0..random.between(4, 8)).map(|_| habits(random, small_queues)).collect();
        Scenario {
            seed,
            shards,
            hold_ms,
            faults: random.per_mille(400),
            small_queues,
            queue_messages_max: if small_queues { random.between(3, 20) as u32 } else { 100_000 },
            resident_bytes_max: if random.per_mille(500) { random.below(2_000) } else { 64 << 20 },
            send_window: random.between(1, 40) as u16,
            pattern: random.per_mille(500).then_some("u/{account}/#"),
            hash_key,
            clients,
            operations,
            upsets: upsets(random, operations),
            pace: random.between(20, 500) as u32,
            exactly_once: [0, 300, 300, 600, 1_000][random.below(5) as usize],
            shared_subscriptions: random.per_mille(400),
            world: world(random),
        }
    }

    /// The settings of one shard's broker.
    pub fn broker(&self) -> Settings {
        let placement = Placement::new(self.shards, self.hash_key, self.pattern).unwrap();
        Settings {
            hold_ms: self.hold_ms,
            send_window: self.send_window,
            queue_messages_max: self.queue_messages_max,
            resident_bytes_max: self.resident_bytes_max,
            sys_interval_s: 0,
            hash_key: self.hash_key,
            ..Settings::with_placement(placement)
        }
    }
}

fn habits(random: &mut Random, small_queues: bool) -> Habits {
    let version = if random.per_mille(600) { Version::V5 } else { Version::V311 };
    let limited = random.per_mille(500);
    Habits {
        version,
        durable: [0, 500, 900, 1_000][random.below(4) as usize],
        receive_maximum: limited.then(|| random.between(1, 12) as u16),
        topic_alias_maximum: random.below(4) as u16,
        slow: [0, 50, 300][random.below(3) as usize],
        // Only version 5 can be told of a gap.
        subscribes: random.per_mille(850) && (version == Version::V5 || !small_queues),
    }
}

/// At least one crash; then whatever else.
fn upsets(random: &mut Random, operations: u32) -> Vec<(u32, Upset)> {
    let mut kinds = vec![if random.per_mille(650) { Upset::PowerCut } else { Upset::Kill }];
    for _ in 0..random.below(5) {
        kinds.push(match random.below(12) {
            0..4 => Upset::PowerCut,
            4..6 => Upset::Kill,
            6 => Upset::WriteError,
            7 => Upset::SyncError,
            8 | 9 => Upset::Drain,
            _ => Upset::Lull,
        });
    }
    let mut upsets: Vec<(u32, Upset)> =
        kinds.into_iter().map(|kind| (random.below(u64::from(operations)) as u32, kind)).collect();
    upsets.sort_by_key(|(at, _)| *at);
    upsets
}

fn world(random: &mut Random) -> sim::Settings {
    let slow_disk = random.per_mille(300);
    sim::Settings {
        turns_wait: false,
        network_latency_ns: (10_000, [200_000, 2_000_000, 10_000_000][random.below(3) as usize]),
        socket_bytes_max: [1_024, 8 << 10, 64 << 10][random.below(3) as usize],
        short_transfer_per_mille: [0, 100, 300][random.below(3) as usize],
        sync_latency_ns: if slow_disk { (1_000_000, 40_000_000) } else { (20_000, 3_000_000) },
        writeback_per_mille: [0, 100, 500][random.below(3) as usize],
        failed_sync_keeps_cache_per_mille: [0, 500][random.below(2) as usize],
        ..sim::Settings::default()
    }
}

const _: () = assert!(limits::RECEIVE_MAXIMUM > 64, "clients here never reach the broker's receive maximum");
