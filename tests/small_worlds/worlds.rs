//! One small world: what may happen in it, and what must be true after it was ended at some moment.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Mutex;

use ironpost::placement::Placement;
use ironpost::time::{Nanos, Now, UnixMs};
use ironpost::wire::QoS;

use crate::clients::{Books, Client, RETAINED_TOPIC, SUBSCRIBERS, TOPIC, words};
use crate::disk::{Disk, Image};
use crate::history;
use crate::process::{Moved, Process};

/// What the worlds of one sweep have in common.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub name: &'static str,
    pub shards: u16,
    pub hold_ms: u32,
    /// The subscribers are members of one shared subscription.
    pub grouped: bool,
    /// The journal writes checkpoints and empties segments all the time.
    pub checkpoints: bool,
}

impl Kind {
    pub fn placement(&self) -> Placement {
        Placement::new(self.shards, [0; 16], None).expect("no pattern")
    }
}

/// What may happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    PublishOnce,
    PublishExactlyOnce,
    RetainOnce,
    RetainExactlyOnce,
    FirstAnswers,
    SecondAnswers,
    FirstLeavesOrReturns,
    SecondLeavesOrReturns,
    FirstStartsAnew,
    TimePasses,
}

/// All of them.
pub const OPERATIONS: [Operation; 10] = [
    Operation::PublishOnce,
    Operation::PublishExactlyOnce,
    Operation::RetainOnce,
    Operation::RetainExactlyOnce,
    Operation::FirstAnswers,
    Operation::SecondAnswers,
    Operation::FirstLeavesOrReturns,
    Operation::SecondLeavesOrReturns,
    Operation::FirstStartsAnew,
    Operation::TimePasses,
];

/// How far the disks come between two operations. When the last has happened all of them finish.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pace {
    /// They finish.
    Prompt,
    /// Each makes one operation of its own.
    Slow,
    /// They do nothing.
    Stuck,
}

/// Which clients are which.
const PUBLISHER: usize = SUBSCRIBERS;

/// After so many operations recovery may die as well; after more there are enough worlds without.
const OPERATIONS_NESTED_MAX: usize = 3;

/// Messages in the queue of a subscriber that is away, at most.
const QUEUE_MAX: u32 = 60;

/// Rounds in which everything that is owed has arrived, or never will.
const ROUNDS_MAX: u32 = 1_000;

/// The clients and what they know.
#[derive(Clone, Debug)]
struct Outsiders {
    clients: Vec<Client>,
    books: Books,
}

/// What crashes have left, disks and clients, as hashes: many ways lead to the same, and all that follows is the same.
#[derive(Default)]
pub struct Seen(Mutex<BTreeSet<u64>>);

impl Seen {
    fn is_new(&self, left: u64) -> bool {
        self.0.lock().expect("nobody panics in between").insert(left)
    }
}

/// What follows a crash.
#[derive(Clone, Copy, Hash, Debug)]
enum Depth {
    /// The process ends once more when all is at rest.
    Twice,
    Once,
    /// It was the second crash.
    Nested,
}

/// What was tried.
#[derive(Clone, Copy, Default, Debug)]
pub struct Tried {
    pub crashes: u64,
    /// Crashes that left what another had left before.
    pub alike: u64,
    /// After which a journal was recovered by a checkpoint.
    pub by_checkpoint: u64,
    /// In the middle of recovery from an earlier one.
    pub nested: u64,
    /// Records that had been copied out of their segments by the end.
    pub copied: u64,
}

/// See the module documentation.
pub struct World<'a> {
    kind: Kind,
    seen: &'a Seen,
    process: Process,
    outsiders: Outsiders,
    /// Crashes are tried from now on.
    trying: bool,
    /// Also in the middle of recovery.
    nested: bool,
    pub tried: Tried,
}

impl<'a> World<'a> {
    /// Everybody is connected and subscribed, and all of it is on disk. A crash that leaves what was seen is not tried again.
    pub fn new(kind: Kind, seen: &'a Seen) -> World<'a> {
        let disks: Vec<Disk> = (0..kind.shards).map(|_| Disk::default()).collect();
        let now = Now { mono: Nanos(1_000_000_000), wall: UnixMs(1_767_225_600_000) };
        let process = Process::start(&kind, &disks, now).expect("a new disk");
        let outsiders = Outsiders::of(&kind);
        let mut world =
            World { kind, seen, process, outsiders, trying: false, nested: false, tried: Tried::default() };
        world.drain();
        if kind.checkpoints {
            world.leave_a_queue();
        }
        world
    }

    /// The first subscriber is away, and every segment has messages for it: little else in it is live, and few are free.
    fn leave_a_queue(&mut self) {
        self.leave_or_return(0);
        for _ in 0..QUEUE_MAX {
            self.publish(QoS::AtLeastOnce, false);
            self.exchange();
            self.finish();
            while self.answer(1) {}
            self.finish();
            if self.process.free_segments_min() <= 3 {
                return;
            }
        }
        panic!("segments stay free");
    }

    /// The operations in turn; then every crash at every moment from the beginning of the last is tried. False: one of
    /// them could not happen.
    pub fn play(&mut self, operations: &[Operation], pace: Pace) -> bool {
        let last = operations.len() - 1;
        self.nested = operations.len() <= OPERATIONS_NESTED_MAX;
        for (index, operation) in operations.iter().enumerate() {
            self.trying = index == last;
            history::note(|| format!("{operation:?}"));
            if !self.perform(*operation) {
                return false;
            }
            self.exchange();
            match pace {
                Pace::Prompt => self.finish(),
                Pace::Slow => {
                    (0..self.process.shards()).for_each(|shard| {
                        self.disk_moves(shard);
                    });
                }
                Pace::Stuck => {}
            }
        }
        self.finish();
        self.tried.copied = self.process.copied();
        true
    }

    fn perform(&mut self, operation: Operation) -> bool {
        match operation {
            Operation::PublishOnce => self.publish(QoS::AtLeastOnce, false),
            Operation::PublishExactlyOnce => self.publish(QoS::ExactlyOnce, false),
            Operation::RetainOnce => self.publish(QoS::AtLeastOnce, true),
            Operation::RetainExactlyOnce => self.publish(QoS::ExactlyOnce, true),
            Operation::FirstAnswers => self.answer(0),
            Operation::SecondAnswers => self.answer(1),
            Operation::FirstLeavesOrReturns => self.leave_or_return(0),
            Operation::SecondLeavesOrReturns => self.leave_or_return(1),
            Operation::FirstStartsAnew => self.connect(0, true),
            Operation::TimePasses => {
                self.process.wait_ms(150);
                true
            }
        }
    }

    fn publish(&mut self, qos: QoS, retain: bool) -> bool {
        let Outsiders { clients, books } = &mut self.outsiders;
        let mut owed = [clients[0].subscribed, clients[1].subscribed];
        owed[1] &= !retain;
        let publisher = &mut clients[PUBLISHER];
        if publisher.accepted {
            publisher.publishes(qos, retain, owed, books);
        }
        publisher.accepted
    }

    fn answer(&mut self, who: usize) -> bool {
        let Outsiders { clients, books } = &mut self.outsiders;
        let client = &mut clients[who];
        let (Some(slot), Some((bytes, finished))) = (client.slot, client.answers()) else { return false };
        history::note(|| format!("  {} -> {}", client.name, words(&bytes)));
        self.process.packet(client.home, slot, &bytes);
        if let Some(number) = finished {
            books.receipts[number][who].finished = Some(self.process.lsns(client.home).0);
        }
        true
    }

    fn leave_or_return(&mut self, who: usize) -> bool {
        let client = &mut self.outsiders.clients[who];
        match client.slot {
            Some(slot) if client.accepted => {
                client.disconnected();
                self.process.closed(client.home, slot);
                true
            }
            Some(_) => false,
            None => self.connect(who, false),
        }
    }

    fn connect(&mut self, number: usize, clean_start: bool) -> bool {
        let Outsiders { clients, books } = &mut self.outsiders;
        let client = &mut clients[number];
        if let Some(slot) = client.slot {
            if !client.accepted {
                return false;
            }
            self.process.closed(client.home, slot);
            client.disconnected();
        }
        let home = client.home;
        let (slot, connect) = client.connects(number, clean_start, books);
        history::note(|| format!("  {} -> CONNECT, clean start {}", connect.client_id, connect.clean_start));
        self.process.connect(home, slot, &connect);
        true
    }

    /// Packets go back and forth until nobody has anything to say.
    fn exchange(&mut self) {
        loop {
            self.try_crashes();
            let mut rests = true;
            for shard in 0..self.process.shards() {
                for (slot, bytes) in self.process.take_sent(shard) {
                    let Outsiders { clients, books } = &mut self.outsiders;
                    if let Some(client) = clients.iter_mut().find(|client| client.slot == Some(slot)) {
                        history::note(|| format!("  {} <- {}", client.name, words(&bytes)));
                        client.hears(&bytes, books);
                        rests = false;
                    }
                }
            }
            for client in &mut self.outsiders.clients {
                while let (Some(slot), Some(bytes)) = (client.slot, client.says.pop_front()) {
                    history::note(|| format!("  {} -> {}", client.name, words(&bytes)));
                    self.process.packet(client.home, slot, &bytes);
                    rests = false;
                }
            }
            if rests {
                return;
            }
        }
    }

    /// A disk makes what it is to make next. False: nothing.
    fn disk_moves(&mut self, shard: usize) -> bool {
        let moved = self.process.disk_moves(shard);
        if moved == Moved::Nothing {
            return false;
        }
        history::note(|| format!("shard {shard}: {moved:?}"));
        self.try_crashes();
        self.process.tell(shard);
        self.exchange();
        true
    }

    /// The disks make all that they are to make.
    fn finish(&mut self) {
        for _ in 0..ROUNDS_MAX {
            if !(0..self.process.shards()).any(|shard| self.disk_moves(shard)) {
                return;
            }
        }
        panic!("the disks do not come to rest");
    }

    /// Everything that a crash may leave at this moment is tried.
    fn try_crashes(&mut self) {
        if !self.trying {
            return;
        }
        let mut left = vec![Vec::new()];
        for image in self.process.images() {
            let survivors = image.survivors();
            left = left
                .iter()
                .flat_map(|images: &Vec<Image>| {
                    survivors.iter().map(|one| [images.clone(), vec![one.clone()]].concat())
                })
                .collect();
        }
        let outsiders = self.outsiders.after_crash(|shard| self.process.lsns(shard).1);
        let mut known = DefaultHasher::new();
        (format!("{outsiders:?}"), self.process.now.wall.0).hash(&mut known);
        let length = history::length();
        for (index, images) in left.into_iter().enumerate() {
            if !self.is_new(&known, if index == 0 { Depth::Twice } else { Depth::Once }, &images) {
                continue;
            }
            history::note(|| format!("a crash, and what survives it is number {index}"));
            self.try_crash(&images, (&outsiders, &known), index == 0);
            history::forget_from(length);
        }
    }

    /// Whether no crash has left those images yet to clients who know that.
    fn is_new(&mut self, known: &DefaultHasher, depth: Depth, images: &[Image]) -> bool {
        let mut left = known.clone();
        depth.hash(&mut left);
        images.iter().for_each(|image| image.hash_found(&mut left));
        let is_new = self.seen.is_new(left.finish());
        self.tried.alike += u64::from(!is_new);
        is_new
    }

    /// The process starts again on what is left, and may die once more while it recovers.
    fn try_crash(&mut self, images: &[Image], (outsiders, known): (&Outsiders, &DefaultHasher), twice: bool) {
        let now = Now { mono: Nanos(1_000_000_000), wall: self.process.now.wall };
        for operations in 0.. {
            let disks: Vec<Disk> = images.iter().cloned().map(Disk::of).collect();
            if self.nested {
                disks.iter().for_each(|disk| disk.die_after(operations));
            }
            if let Ok(process) = Process::start(&self.kind, &disks, now) {
                disks.iter().for_each(Disk::live);
                self.count(&process, false);
                return self.judge(process, outsiders.clone(), twice);
            }
            history::note(|| format!("recovery ends after {operations} operations of a disk"));
            let before: Vec<Vec<Image>> = disks.iter().map(|disk| disk.image().survivors()).collect();
            // Only one of the disks was written to when it died; the others lose nothing.
            for (index, survivors) in before.iter().enumerate() {
                for survivor in survivors.iter().skip(usize::from(index > 0)) {
                    let mut left: Vec<Image> = disks.iter().map(|disk| disk.image().synced()).collect();
                    left[index] = survivor.clone();
                    if !self.is_new(known, Depth::Nested, &left) {
                        continue;
                    }
                    let disks: Vec<Disk> = left.into_iter().map(Disk::of).collect();
                    let process = Process::start(&self.kind, &disks, now).expect("a second recovery");
                    self.count(&process, true);
                    self.judge(process, outsiders.clone(), false);
                }
            }
        }
    }

    fn count(&mut self, process: &Process, nested: bool) {
        self.tried.crashes += 1;
        self.tried.nested += u64::from(nested);
        self.tried.by_checkpoint += u64::from(process.by_checkpoint);
    }

    /// Everybody returns and gets what is owed, and nothing else; also if the process then ends once more.
    fn judge(&self, process: Process, outsiders: Outsiders, twice: bool) {
        let mut world = World {
            kind: self.kind,
            seen: self.seen,
            process,
            outsiders,
            trying: false,
            nested: false,
            tried: Tried::default(),
        };
        world.drain();
        let debts = world.outsiders.books.debts();
        assert!(debts.is_empty(), "{debts:?}");
        assert_eq!(world.process.queued(), 0, "nobody wants what is in the queues");
        if !twice {
            return;
        }
        world.look_at_retained();
        let disks: Vec<Disk> = world.process.images().into_iter().map(Disk::of).collect();
        world.outsiders = world.outsiders.after_crash(|shard| world.process.lsns(shard).1);
        let receipts = format!("{:?}", world.outsiders.books.receipts);
        world.process = Process::start(&world.kind, &disks, world.process.now).expect("a sound disk");
        world.drain();
        assert_eq!(receipts, format!("{:?}", world.outsiders.books.receipts), "nothing was owed any more");
    }

    /// Everybody connects, answers and waits until nothing moves.
    fn drain(&mut self) {
        let mut quiet = 0;
        for _ in 0..ROUNDS_MAX {
            let mut moved = false;
            if self.process.ready() {
                for number in 0..self.outsiders.clients.len() {
                    if self.outsiders.clients[number].slot.is_none() {
                        moved |= self.connect(number, false);
                    }
                }
            }
            self.exchange();
            (0..SUBSCRIBERS).for_each(|who| {
                while self.answer(who) {
                    moved = true;
                }
            });
            self.exchange();
            for shard in 0..self.process.shards() {
                moved |= self.disk_moves(shard);
            }
            quiet = if moved { 0 } else { quiet + 1 };
            if quiet == 2 {
                break;
            }
            if !moved {
                self.process.wait_ms(200);
            }
        }
        for client in &self.outsiders.clients {
            assert!(client.is_done(), "{client:?} waits");
        }
    }

    /// The last retained message is the one that a new subscriber gets.
    fn look_at_retained(&mut self) {
        let Outsiders { clients, books } = &mut self.outsiders;
        let retained = || books.messages.iter().filter(|message| message.retain);
        // At QoS 1 and sent again, an earlier one may have come behind a later one at QoS 2.
        if retained().any(|message| message.again)
            && retained().any(|message| message.qos == QoS::ExactlyOnce)
        {
            return;
        }
        let Some(last) = books.messages.iter().rposition(|message| message.retain) else { return };
        let before = books.receipts[last][1].retained;
        clients[1].wants(RETAINED_TOPIC);
        self.drain();
        assert_eq!(
            self.outsiders.books.receipts[last][1].retained,
            before + 1,
            "retained message {last} is gone"
        );
    }
}

impl Outsiders {
    /// With two shards: the publisher and the first subscriber on one, the second and the owner of the topic on the other.
    fn of(kind: &Kind) -> Outsiders {
        let placement = kind.placement();
        let there = placement.owner(TOPIC).index();
        let here = if kind.shards == 1 { 0 } else { 1 - there };
        let named = |role: &str, home: usize| {
            let names = (0..1_000).map(|number| format!("{role}-{number}"));
            names
                .into_iter()
                .find(|name| placement.home(name).index() == home)
                .expect("a name for each shard")
        };
        let filter = if kind.grouped { format!("$share/group/{TOPIC}") } else { TOPIC.to_owned() };
        let first = vec![filter.clone(), RETAINED_TOPIC.to_owned()];
        let clients = vec![
            Client::subscriber(0, named("first", here), here, first),
            Client::subscriber(1, named("second", there), there, vec![filter]),
            Client::publisher(named("publisher", here), here),
        ];
        Outsiders { clients, books: Books::new(kind.grouped) }
    }

    /// What they know when the process has ended, with journals that were as far as that.
    fn after_crash(&self, durable: impl Fn(usize) -> ironpost::ids::Lsn) -> Outsiders {
        let mut left = self.clone();
        left.clients.iter_mut().for_each(Client::disconnected);
        for receipts in &mut left.books.receipts {
            for (who, receipt) in receipts.iter_mut().enumerate() {
                receipt.finished = receipt.finished.filter(|lsn| *lsn <= durable(self.clients[who].home));
            }
        }
        left
    }
}
