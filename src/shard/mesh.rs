//! How shards talk: one bounded ring per ordered pair, one batch per pair and turn, a doorbell only for sleepers.
//!
//! Decides when a batch leaves and when another request fits; not what is in it. Called by `outbound` (send, flush)
//! and by the loop (take, sleep). Invariants:
//!
//! - Nothing blocks: a full ring leaves the batch where it is, and it grows on. What can be in it is bounded, because
//!   a request takes one of [`MESH_CREDITS`] until its answer comes, an answer is owed for one of the other side's
//!   requests, and what takes no credit is pulled only while [`Mesh::room`] says so. Deliveries have credits of their
//!   own: a shard places them without asking anyone, so they come back whatever else waits.
//! - Messages of a pair arrive in the order they were sent.
//! - A shard never sends to itself.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use crossbeam_queue::ArrayQueue;
use crossbeam_utils::CachePadded;
use zeroize::Zeroizing;

use super::signal::Signal;
use crate::access::guard::Admission;
use crate::broker::route::MeshMessage;
use crate::ids::ShardId;
use crate::limits::{MESH_BATCH_MESSAGES_MAX, MESH_CREDITS, MESH_RING_BATCHES, SHARDS_MAX};
use crate::reactor::{Doorbell, Socket};
use crate::transport::Transport;

/// A connection on its one move to its home shard. The socket is watched by nobody in between.
#[derive(Debug)]
pub struct Adopted {
    /// The socket; the receiver watches and closes it.
    pub socket: Socket,
    /// Who connected.
    pub peer: SocketAddr,
    /// At which listener.
    pub listener: u32,
    /// What its bytes go through; established, and nothing of it is on its way.
    pub transport: Option<Box<Transport>>,
    /// What was read, unwrapped and not handled: the whole CONNECT, and what came behind it.
    pub unread: Zeroizing<Vec<u8>>,
    /// As what it was let in.
    pub admission: Box<Admission>,
}

/// What one shard tells another in one turn.
#[derive(Debug, Default)]
pub struct Batch {
    /// In order.
    pub messages: Vec<MeshMessage>,
    /// Independent of the messages.
    pub adopted: Vec<Adopted>,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.adopted.is_empty()
    }
}

type Ring = ArrayQueue<Batch>;

// A slot of the queue is the batch and a stamp; the queue itself is two padded counters and a pointer. The vectors a
// batch points to exist only while something is under way.
const RING_BYTES: usize = MESH_RING_BATCHES * (size_of::<Batch>() + size_of::<usize>()) + size_of::<Ring>();
const _: () = assert!(SHARDS_MAX * SHARDS_MAX * RING_BYTES <= 4 << 20, "ring memory grows with the square");

/// Where to reach a shard; shared by all.
#[derive(Default)]
struct Inbox {
    signal: CachePadded<Signal>,
    /// Set when that shard's reactor exists. Before, the shard is awake by definition: it looks before its first wait.
    doorbell: OnceLock<Arc<dyn Doorbell>>,
}

/// One direction to one other shard.
struct Outgoing {
    ring: Arc<Ring>,
    batch: Batch,
    requests: Credit,
    deliveries: Credit,
}

/// What may be asked of one other shard.
#[derive(Default)]
struct Credit {
    /// Requests without an answer.
    outstanding: u32,
    /// `room` was used up: the broker is owed a word when there is some again.
    full: bool,
}

impl Credit {
    fn take(&mut self) {
        self.outstanding += 1;
    }

    fn give_back(&mut self) {
        assert!(self.outstanding > 0, "an answer without a request");
        self.outstanding -= 1;
    }

    /// Whether there was no room and is some. Half, so that the broker goes on in strides and not message by message.
    fn is_full_no_more(&self) -> bool {
        self.full && self.outstanding <= MESH_CREDITS / 2
    }
}

/// One shard's end of every ring.
pub struct Mesh {
    me: ShardId,
    inboxes: Arc<[Inbox]>,
    /// By shard; the entry of this shard is there and stays unused.
    outgoing: Vec<Outgoing>,
    /// By shard, as above.
    incoming: Vec<Arc<Ring>>,
    /// Emptied batches, to be filled again.
    spare: Vec<Batch>,
    /// Some batch did not fit its ring.
    held_back: bool,
}

impl Mesh {
    /// The ends for that many shards, in order.
    pub fn ends(shards: u16) -> Vec<Mesh> {
        assert!(usize::from(shards) <= SHARDS_MAX);
        let n = usize::from(shards);
        let inboxes: Arc<[Inbox]> = (0..n).map(|_| Inbox::default()).collect();
        let rings: Vec<Vec<Arc<Ring>>> =
            (0..n).map(|_| (0..n).map(|_| Arc::new(ArrayQueue::new(MESH_RING_BATCHES))).collect()).collect();
        (0..shards)
            .map(|me| Mesh {
                me: ShardId(me),
                inboxes: inboxes.clone(),
                outgoing: rings[usize::from(me)]
                    .iter()
                    .map(|ring| Outgoing {
                        ring: ring.clone(),
                        batch: Batch::default(),
                        requests: Credit::default(),
                        deliveries: Credit::default(),
                    })
                    .collect(),
                incoming: rings.iter().map(|from| from[usize::from(me)].clone()).collect(),
                spare: Vec::new(),
                held_back: false,
            })
            .collect()
    }

    /// Which shard this end belongs to.
    pub fn me(&self) -> ShardId {
        self.me
    }

    /// How others end this shard's wait. Once, before the first `fall_asleep`.
    pub fn set_doorbell(&mut self, doorbell: Arc<dyn Doorbell>) {
        let set = self.inboxes[self.me.index()].doorbell.set(doorbell);
        assert!(set.is_ok(), "a shard has one reactor");
    }

    /// Whether another request to that shard may be made; false means `full_no_more` will name it.
    pub fn room(&self, to: ShardId) -> bool {
        !self.outgoing[to.index()].requests.full
    }

    /// The same for another delivery.
    pub fn deliver_room(&self, to: ShardId) -> bool {
        !self.outgoing[to.index()].deliveries.full
    }

    /// Adds to the batch for that shard.
    pub fn send(&mut self, to: ShardId, message: MeshMessage) {
        assert!(to != self.me, "a shard does not write to itself");
        let outgoing = &mut self.outgoing[to.index()];
        match takes_credit(&message) {
            Takes::Request => outgoing.requests.take(),
            Takes::Delivery => outgoing.deliveries.take(),
            Takes::Nothing => {}
        }
        outgoing.batch.messages.push(message);
        let batch_is_full = outgoing.batch.messages.len() >= MESH_BATCH_MESSAGES_MAX;
        for credit in [&mut outgoing.requests, &mut outgoing.deliveries] {
            credit.full |= credit.outstanding >= MESH_CREDITS || batch_is_full;
        }
    }

    /// Hands a connection over.
    pub fn adopt(&mut self, to: ShardId, adopted: Adopted) {
        assert!(to != self.me, "a connection at home stays there");
        self.outgoing[to.index()].batch.adopted.push(adopted);
    }

    /// Hands every batch over whose ring has room; returns whether none is left.
    pub fn flush(&mut self) -> bool {
        self.held_back = false;
        for (to, outgoing) in self.outgoing.iter_mut().enumerate() {
            if outgoing.batch.is_empty() {
                continue;
            }
            let batch = std::mem::replace(&mut outgoing.batch, self.spare.pop().unwrap_or_default());
            if let Err(batch) = outgoing.ring.push(batch) {
                let unused = std::mem::replace(&mut outgoing.batch, batch);
                self.spare.push(unused);
                self.held_back = true;
                continue;
            }
            let inbox = &self.inboxes[to];
            if inbox.signal.post(self.me)
                && let Some(doorbell) = inbox.doorbell.get()
            {
                doorbell.ring();
            }
        }
        !self.held_back
    }

    /// Whether a batch waits for room in its ring: then the wait must be short, for nobody will ring.
    pub fn held_back(&self) -> bool {
        self.held_back
    }

    /// Whether nothing is under way from here.
    pub fn is_idle(&self) -> bool {
        self.outgoing.iter().all(|outgoing| outgoing.batch.is_empty())
    }

    /// Everything that has arrived, in order per sender: at most a ring's worth from each.
    pub fn take(&mut self, batches: &mut Vec<(ShardId, Batch)>) {
        let mut senders = self.inboxes[self.me.index()].signal.take();
        while senders != 0 {
            let from = senders.trailing_zeros() as u16;
            senders &= senders - 1;
            while let Some(batch) = self.incoming[usize::from(from)].pop() {
                batches.push((ShardId(from), batch));
            }
        }
    }

    /// Takes a batch back after it was handled.
    pub fn recycle(&mut self, batch: Batch) {
        debug_assert!(batch.is_empty());
        // Traffic is about as much out as in, so one per neighbour is enough; a vector that a burst made large goes.
        if self.spare.len() < self.outgoing.len() && batch.messages.capacity() <= MESH_BATCH_MESSAGES_MAX {
            self.spare.push(batch);
        }
    }

    /// Notes the credit that a message from that shard gives back. To be called for each, before it is handled.
    pub fn credit(&mut self, from: ShardId, message: &MeshMessage) {
        let outgoing = &mut self.outgoing[from.index()];
        match message {
            MeshMessage::Placed { .. } | MeshMessage::Retained { .. } => outgoing.requests.give_back(),
            MeshMessage::Delivered { .. } => outgoing.deliveries.give_back(),
            _ => {}
        }
    }

    /// A shard that had no `room`, for requests or for deliveries, and has some again; each is named once.
    pub fn full_no_more(&mut self) -> Option<ShardId> {
        let (to, outgoing) = self.outgoing.iter_mut().enumerate().find(|(_, outgoing)| {
            outgoing.batch.messages.len() <= MESH_BATCH_MESSAGES_MAX / 2
                && (outgoing.requests.is_full_no_more() || outgoing.deliveries.is_full_no_more())
        })?;
        for credit in [&mut outgoing.requests, &mut outgoing.deliveries] {
            credit.full &= !credit.is_full_no_more();
        }
        Some(ShardId(u16::try_from(to).expect("at most SHARDS_MAX")))
    }

    /// Publishes that this shard is about to wait; false: something has arrived, do not.
    #[must_use]
    pub fn fall_asleep(&self) -> bool {
        self.is_alone() || self.inboxes[self.me.index()].signal.fall_asleep()
    }

    /// The wait is over.
    pub fn wake_up(&self) {
        if !self.is_alone() {
            self.inboxes[self.me.index()].signal.wake_up();
        }
    }

    /// There is nobody to exchange anything with.
    pub fn is_alone(&self) -> bool {
        self.outgoing.len() == 1
    }
}

/// Whose credit a message takes.
enum Takes {
    Request,
    Delivery,
    Nothing,
}

fn takes_credit(message: &MeshMessage) -> Takes {
    match message {
        MeshMessage::Publish { .. } | MeshMessage::RetainedPull { .. } | MeshMessage::Redistribute { .. } => {
            Takes::Request
        }
        MeshMessage::Deliver { .. } => Takes::Delivery,
        MeshMessage::Placed { .. }
        | MeshMessage::Delivered { .. }
        | MeshMessage::Settled { .. }
        | MeshMessage::Interest { .. }
        | MeshMessage::InterestKnown { .. }
        | MeshMessage::Retained { .. }
        | MeshMessage::SharePlaced { .. }
        | MeshMessage::OriginReleased { .. }
        | MeshMessage::Counters { .. }
        | MeshMessage::InterestComplete => Takes::Nothing,
    }
}

#[cfg(test)]
mod tests;
