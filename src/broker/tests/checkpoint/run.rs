//! The run: what happens next, and the crashes.

use super::client::Client;
use super::digest::digest;
use super::look::Look;
use super::random::Random;
use super::*;
use crate::ids::OriginKey;
use crate::wire::{Disconnect, ReasonCode, Will};

const TOPICS: [&str; 4] = ["a/x", "a/y", "b/x", "c/z"];
const FILTERS: [&str; 8] =
    ["a/x", "a/#", "+/x", "b/x", "$share/g/a/#", "$share/g/a/#", "$share/h/a/x", "$share/g/#"];
const EXPIRIES: [u32; 5] = [0, 5, 60, 1_000, u32::MAX];
const PACKET_IDS: usize = 12;

pub(super) struct Run {
    seed: u64,
    random: Random,
    shards: Vec<Bench>,
    clients: Vec<Client>,
    /// Of each shard, the newest.
    looks: Vec<Option<Look>>,
    /// By hearer and origin: below which keys are forgotten.
    marks: BTreeMap<(usize, ShardId), Lsn>,
    published: u32,
    /// What is told of rate limits: drawn apart, so that seeds without it mean what they did.
    pub(super) spending: Option<Random>,
    /// How often two brokers were compared.
    pub(super) compared: u32,
}

impl Run {
    pub(super) fn new(count: u16, seed: u64) -> Run {
        Run::with(count, seed, |_| {})
    }

    pub(super) fn with(count: u16, seed: u64, adjust: impl Fn(&mut Settings)) -> Run {
        let mut random = Random(seed);
        let mut settings = settings_for(count);
        settings.queue_messages_max = random.one_of(&[3, 6, 1_000]);
        settings.send_window = random.one_of(&[1, 2, 5]);
        settings.resident_bytes_max = random.one_of(&[40, 1 << 20]);
        settings.hold_ms = random.one_of(&[0, 100, 2_000]);
        adjust(&mut settings);
        let bench = |shard| Bench::of_shard(settings.clone(), ShardId(shard));
        let shards: Vec<Bench> = (0..count).map(bench).collect();
        let clients = (0..6).map(|number| Client::new(number, number % shards.len())).collect();
        Run::of(shards, clients, random, seed)
    }

    /// The same where each client is at home as the placement says.
    pub(super) fn at_home(count: u16, seed: u64) -> Run {
        let mut run = Run::new(count, seed);
        let placement = run.shards[0].broker.settings.placement.clone();
        run.clients.iter_mut().for_each(|client| client.home = placement.home(&client.name).index());
        run
    }

    fn of(shards: Vec<Bench>, clients: Vec<Client>, random: Random, seed: u64) -> Run {
        let looks = shards.iter().map(|_| None).collect();
        let marks = BTreeMap::new();
        let spending = Some(Random(seed ^ 0x5BE7));
        let mut run =
            Run { seed, random, shards, clients, looks, marks, published: 0, spending, compared: 0 };
        run.become_ready();
        run
    }

    /// With these shards, where each client is at home as the placement says.
    pub(super) fn go_on(shards: Vec<Bench>, seed: u64) -> Run {
        let placement = shards[0].broker.settings.placement.clone();
        let client = |number| {
            let mut client = Client::new(number, 0);
            client.home = placement.home(&client.name).index();
            client
        };
        Run::of(shards, (0..6).map(client).collect(), Random(seed), seed)
    }

    /// The shards as the last crash left them.
    pub(super) fn stopped(self) -> Vec<Bench> {
        self.shards
    }

    /// The process dies once more, and comes back without clients until all that it has accepted is routed.
    pub(super) fn settled(mut self) -> Vec<Bench> {
        self.crash();
        for _ in 0..1_000 {
            self.shards.iter_mut().for_each(Bench::settle);
            let mut said = false;
            for from in 0..self.shards.len() {
                let origin = ShardId(u16::try_from(from).expect("few"));
                for (to, message) in std::mem::take(&mut self.shards[from].world.mesh) {
                    said = true;
                    self.shards[to.index()].handle(Input::Mesh { from: origin, message });
                }
            }
            let is_settled =
                |bench: &Bench| bench.broker.origins.all_routed() && bench.broker.departing.is_empty();
            if !said && self.shards.iter().all(is_settled) {
                return self.shards;
            }
            if !said {
                // Something waits for `hold`.
                self.shards.iter_mut().for_each(|shard| shard.wait_ms(50));
            }
        }
        panic!("seed {}: something is never routed", self.seed);
    }

    pub(super) fn go(&mut self, steps: u32) {
        for _ in 0..steps {
            match self.random.below(100) {
                0..40 => self.client_acts(),
                40..55 => self.client_answers(),
                55..60 => self.time_passes(),
                60..70 => self.disk_goes_on(),
                70..80 => self.shards_talk(),
                80..88 => self.look(),
                88..99 => self.suppose(),
                _ => self.crash(),
            }
            self.limits_are_used_up();
            self.brokers_go_on();
            self.clients_hear();
        }
        self.crash();
    }

    fn limits_are_used_up(&mut self) {
        let Some(random) = self.spending.as_mut() else { return };
        if !random.one_in(8) {
            return;
        }
        let client = &self.clients[random.below(self.clients.len())];
        let bench = &mut self.shards[client.home];
        let [account, client_id] = random.one_of(&[["", &*client.name], [&*client.name, ""]]);
        let full_at = UnixMs(bench.now.wall.0 + random.one_of(&[1, 5_000, 60_000, 600_000]));
        let limit = random.one_of(&[0, 3]);
        bench.handle(Input::Spent { account, client_id, limit, full_at });
    }

    fn client_acts(&mut self) {
        let number = self.random.below(self.clients.len());
        let client = &self.clients[number];
        let Some(slot) = client.connection else { return self.connect(number) };
        if !client.accepted {
            // It may be gone before it is let in.
            if self.random.one_in(8) {
                self.leave(number, slot);
            }
            return;
        }
        match self.random.below(20) {
            0..3 => self.subscribe(number, slot),
            3..5 => self.unsubscribe(number, slot),
            5..17 => self.publish(number, slot),
            17 => self.connect(number),
            _ => self.leave(number, slot),
        }
    }

    fn connect(&mut self, number: usize) {
        let slot = self.clients[number].begin(number);
        let (random, client) = (&mut self.random, &self.clients[number]);
        let topic = random.one_of(&TOPICS);
        let will = Will {
            qos: random.one_of(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]),
            retain: random.one_in(4),
            delay: random.one_of(&[None, Some(3), Some(30)]),
            message_expiry: None,
            topic,
            forward: Properties::EMPTY,
            payload: b"will",
        };
        let connect = Connect {
            session_expiry: Some(random.one_of(&EXPIRIES)),
            clean_start: random.one_in(5),
            will: random.one_in(2).then_some(will),
            ..connect(&client.name)
        };
        let input = Input::Connect {
            connection: id(slot),
            connect: &connect,
            client_id: connect.client_id,
            assigned: false,
            account: "",
            passport: &crate::access::passport::UNPROVEN,
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        self.shards[client.home].handle(input);
    }

    fn leave(&mut self, number: usize, slot: u32) {
        let (random, client) = (&mut self.random, &mut self.clients[number]);
        let reason = random.one_of(&[ReasonCode::Success, ReasonCode::DisconnectWithWill]);
        let session_expiry = Some(random.one_of(&EXPIRIES)).filter(|_| random.one_in(3));
        let packet = Packet::Disconnect(Disconnect {
            reason,
            session_expiry,
            reason_string: None,
            server_reference: None,
        });
        let connection = id(slot);
        let told = client.accepted && random.one_in(2);
        client.end();
        self.shards[client.home].handle(match told {
            true => Input::Packet { connection, packet: &packet },
            false => Input::Closed { connection },
        });
    }

    fn subscribe(&mut self, number: usize, slot: u32) {
        let filter = self.random.one_of(&FILTERS);
        let mut bytes = vec![0x82, 0, 0, 9];
        match self.random.below(3) {
            0 => bytes.push(0),
            id => bytes.extend([2, 0x0B, u8::try_from(id).expect("small")]),
        }
        bytes.extend([0, u8::try_from(filter.len()).expect("short")]);
        bytes.extend(filter.as_bytes());
        bytes.push(self.random.one_of(&[0, 1, 2, 1, 2, 0b1010]));
        bytes[1] = u8::try_from(bytes.len() - 2).expect("short");
        self.shards[self.clients[number].home].take(slot, &bytes);
    }

    fn unsubscribe(&mut self, number: usize, slot: u32) {
        let filter = self.random.one_of(&FILTERS);
        let length = u8::try_from(filter.len()).expect("short");
        let mut bytes = vec![0xA2, length + 5, 0, 9, 0, 0, length];
        bytes.extend(filter.as_bytes());
        self.shards[self.clients[number].home].take(slot, &bytes);
    }

    fn publish(&mut self, number: usize, slot: u32) {
        let (random, client) = (&mut self.random, &mut self.clients[number]);
        let qos = random.one_of(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]);
        let mut packet_id = 0;
        if qos != QoS::AtMostOnce {
            packet_id = u16::try_from(1 + random.below(PACKET_IDS)).expect("few");
            if !client.publishing.insert(packet_id) {
                return;
            }
        }
        self.published += 1;
        let payload = if random.one_in(10) { String::new() } else { format!("message {}", self.published) };
        let packet = Packet::Publish(Publish {
            retain: random.one_in(5),
            message_expiry: random.one_of(&[None, None, None, Some(4)]),
            ..publish(random.one_of(&TOPICS), qos, packet_id, &payload)
        });
        self.shards[client.home].handle(Input::Packet { connection: id(slot), packet: &packet });
    }

    fn client_answers(&mut self) {
        let number = self.random.below(self.clients.len());
        let client = &mut self.clients[number];
        let (Some(slot), false) = (client.connection, client.owed.is_empty()) else { return };
        // What it has had for longest, most often; out of order it is only at QoS 1.
        let mut index = if self.random.one_in(3) { self.random.below(client.owed.len()) } else { 0 };
        if client.owed[index].0 != 0x40 {
            index = 0;
        }
        let (first_byte, packet_id) = client.owed.remove(index);
        let [high, low] = packet_id.to_be_bytes();
        let refuses = first_byte == 0x50 && self.random.one_in(10);
        let bytes: &[u8] =
            if refuses { &[first_byte, 3, high, low, 0x80] } else { &[first_byte, 2, high, low] };
        self.shards[client.home].take(slot, bytes);
    }

    fn time_passes(&mut self) {
        let ms = self.random.one_of(&[10, 100, 1_000, 6_000, 40_000]);
        for bench in &mut self.shards {
            bench.now = Now { mono: bench.now.mono.plus_ms(ms), wall: UnixMs(bench.now.wall.0 + ms) };
        }
    }

    /// The disk of one shard is further than it was.
    fn disk_goes_on(&mut self) {
        let bench = &mut self.shards[self.random.below(self.looks.len())];
        let behind = bench.world.journal.len() - bench.durable;
        if behind > 0 {
            bench.durable += 1 + self.random.below(behind);
            let (lsn, _) = bench.world.journal[bench.durable - 1];
            bench.handle(Input::Durable { lsn });
        }
    }

    /// Some of what one shard has to say, in order.
    fn shards_talk(&mut self) {
        let from = self.random.below(self.shards.len());
        let all = self.shards[from].world.mesh.len();
        let some = if self.random.one_in(2) { all } else { self.random.below(all + 1) };
        let said: Vec<_> = self.shards[from].world.mesh.drain(..some).collect();
        let from = ShardId(u16::try_from(from).expect("few"));
        for (to, message) in said {
            if let MeshMessage::OriginReleased { mark } = message {
                self.marks.insert((to.index(), from), mark.lsn);
            }
            self.shards[to.index()].handle(Input::Mesh { from, message });
        }
    }

    fn brokers_go_on(&mut self) {
        for bench in &mut self.shards {
            match self.random.below(4) {
                0 => {}
                1 => bench.advance_by(u32::try_from(1 + self.random.below(8)).expect("few")),
                _ => bench.advance(),
            }
        }
    }

    fn clients_hear(&mut self) {
        for client in &mut self.clients {
            let world = &mut self.shards[client.home].world;
            if let Some(slot) = client.connection {
                world.sent.remove(&slot).iter().flatten().for_each(|bytes| client.hear(bytes));
                if world.closed.iter().any(|(closed, _)| *closed == slot) {
                    client.end();
                }
            }
        }
        for bench in &mut self.shards {
            bench.world.closed.clear();
            bench.world.sent.clear();
            bench.world.paused.clear();
        }
    }

    /// See which records of a shard are live; or see once more what has died since.
    fn look(&mut self) {
        let index = self.random.below(self.shards.len());
        let broker = &self.shards[index].broker;
        match &mut self.looks[index] {
            Some(look) if look.second.is_none() && !look.over && self.random.one_in(2) => look.finish(broker),
            look => *look = Some(Look::begin(broker)),
        }
    }

    /// If the process had died with the disk as far as somewhere behind the look.
    fn suppose(&mut self) {
        let index = self.random.below(self.shards.len());
        let Some(look) = &self.looks[index] else { return };
        let written = self.shards[index].world.journal.len();
        let end = usize::try_from(look.end().0).expect("few");
        let durable = end + self.random.below(written - end + 1);
        let _ = self.replay_both(index, durable);
    }

    /// Replay as much of a shard's journal in both ways; the result is from its live records.
    fn replay_both(&mut self, index: usize, durable: usize) -> Bench {
        let bench = &self.shards[index];
        let (settings, shard) = (bench.broker.settings.clone(), bench.broker.shard);
        let records = &bench.world.journal[..durable];
        assert!(records.last().is_none_or(|(lsn, _)| lsn.0 == records.len() as u64));
        let mut all = Bench::start(settings.clone(), shard, bench.now, records.to_vec());
        let Some(look) = self.looks[index].as_ref().filter(|look| look.end().0 <= records.len() as u64)
        else {
            return all;
        };
        let mut live = Bench::from_live((settings, shard, bench.now), records, look, &mut self.random);
        for ((hearer, origin), lsn) in &self.marks {
            if *hearer == index {
                // Every shard tells it when it starts.
                for bench in [&mut live, &mut all] {
                    let mark = OriginKey { shard: *origin, lsn: *lsn };
                    bench
                        .handle(Input::Mesh { from: *origin, message: MeshMessage::OriginReleased { mark } });
                }
            }
        }
        let (from_live, from_all) = (digest(&mut live), digest(&mut all));
        if from_live != from_all {
            let only = |some: &[String], others: &[String]| {
                let only: Vec<_> = some.iter().filter(|line| !others.contains(line)).cloned().collect();
                only.join("\n  ")
            };
            let known = |lsn: Lsn| if lsn > look.last { "" } else { look.kind(lsn) };
            let journal = records.iter().map(|(lsn, bytes)| (lsn, known(*lsn), journal::decoded(bytes)));
            let journal: Vec<_> =
                journal.map(|(lsn, known, record)| format!("{lsn:?} {known}{record:?}")).collect();
            panic!(
                "seed {}, shard {index}: {}\nlook {:?}..{:?}\nfrom live records only:\n  {}\nfrom all only:\n  {}",
                self.seed,
                journal.join("\n"),
                look.last,
                look.end(),
                only(&from_live, &from_all),
                only(&from_all, &from_live)
            );
        }
        self.compared += 1;
        live
    }

    /// It happens: all shards of the process, each with what its disk has.
    fn crash(&mut self) {
        for index in 0..self.shards.len() {
            let bench = &self.shards[index];
            let durable = bench.durable + self.random.below(bench.world.journal.len() - bench.durable + 1);
            self.looks[index] = self.looks[index].take().filter(|look| look.end().0 <= durable as u64);
            self.looks[index].iter_mut().for_each(|look| look.over = true);
            self.shards[index] = self.replay_both(index, durable);
        }
        self.clients.iter_mut().for_each(Client::end);
        self.become_ready();
    }

    fn become_ready(&mut self) {
        for _ in 0..10_000 {
            if self.shards.iter().all(|bench| bench.broker.ready()) {
                return;
            }
            match self.random.below(10) {
                0..2 => self.disk_goes_on(),
                2..8 => self.shards_talk(),
                8 => self.look(),
                _ => self.suppose(),
            }
            self.brokers_go_on();
        }
        panic!("seed {}: the shards do not become ready", self.seed);
    }
}
