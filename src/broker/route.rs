//! What brokers of different shards say to each other.
//!
//! A publish goes from its publisher's home to the owner of its topic, and from there one entry goes to each
//! interested shard. Requests (`Publish`, `Deliver`, `RetainedPull`, `Redistribute`) take one credit of the pair
//! (sender, receiver), given back by the answer that says the receiver is done *placing* (`Placed`, `Delivered`,
//! `Retained`); answers and settlements take none, because each is owed for a request that was counted. So what can be
//! waiting in a receiver is bounded by credits, and no answer ever waits for room.
//!
//! `Deliver` has credits of its own, and is placed without waiting for any: else two shards whose credits were used up
//! by publishes for each other could wait for each other's deliveries for ever.

use super::statistics::Deltas;
use crate::content::Content;
use crate::ids::{OriginKey, PublisherKey};
use crate::time::UnixMs;
use crate::wire::QoS;

/// A message body on its way: owned, because it crosses threads.
#[derive(Clone, PartialEq, Debug)]
pub struct Parcel {
    /// Shared, so a fan-out over shards copies nothing.
    pub content: Content,
    /// Published QoS.
    pub qos: QoS,
    /// Published retain flag.
    pub retain: bool,
    /// When it was accepted.
    pub accepted_at: UnixMs,
    /// When it expires.
    pub expires_at: UnixMs,
    /// Who published it, for no-local and for the order of its messages.
    pub publisher: PublisherKey,
    /// Set if it came by QoS 2.
    pub origin: Option<OriginKey>,
}

/// Which subscriptions of the receiving shard an entry is for.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Audience {
    /// Every ordinary subscription that matches.
    pub ordinary: bool,
    /// One member of each of these shared subscriptions (`$share/GROUP/FILTER`).
    pub shared: Vec<Box<str>>,
}

/// One message between shards.
#[derive(Clone, PartialEq, Debug)]
pub enum MeshMessage {
    /// To the owner of the topic: store if retained, find who is interested.
    Publish {
        /// Names the sender's waiting entry; 0 at QoS 0.
        token: u64,
        /// The message.
        parcel: Parcel,
    },
    /// To an interested shard: queue it for your sessions.
    Deliver {
        /// Names the owner's waiting entry; 0 at QoS 0.
        token: u64,
        /// The message.
        parcel: Parcel,
        /// For whom.
        audience: Audience,
    },
    /// Answer to `Publish` and `Redistribute`: every queue that takes it has it. Gives the credit back.
    Placed {
        /// From the request.
        token: u64,
        /// Sessions that took it.
        placed: u32,
        /// Sessions whose queue was full.
        refused: u32,
    },
    /// The same, in answer to `Deliver`.
    Delivered {
        /// From the request.
        token: u64,
        /// Sessions that took it.
        placed: u32,
        /// Sessions whose queue was full.
        refused: u32,
        /// Shared subscriptions of the audience whose last member here had left before it came: the owner, who has
        /// heard of that by now, finds a member elsewhere.
        missed: Vec<Box<str>>,
    },
    /// Settlement of a `Publish` or `Deliver` at QoS 1 or 2: every session that took it has acknowledged it or holds
    /// it durably. Comes after `Placed`.
    Settled {
        /// From the request.
        token: u64,
    },
    /// The sender has gained its first, or lost its last, subscriber to that filter (with `$share/` prefix if
    /// shared), or its number of members of that shared subscription changed. Idempotent: the count replaces.
    Interest {
        /// Answered by `InterestKnown` with the same number if not 0.
        token: u64,
        /// The subscription filter.
        filter: Box<str>,
        /// How many sessions of the sender subscribe; 0 removes.
        members: u32,
    },
    /// Answer to `Interest`.
    InterestKnown {
        /// From the request.
        token: u64,
        /// Messages retained from now on have a higher number, and reach the subscription as they come.
        retained: u64,
    },
    /// Send retained messages that match, after that topic, at most so many.
    RetainedPull {
        /// Names the sender's cursor.
        token: u64,
        /// The subscription filter.
        filter: Box<str>,
        /// Where the last answer ended; empty at the start.
        after: Box<str>,
        /// At most so many messages in the answer.
        count: u32,
        /// None with a higher number than this.
        number_max: u64,
    },
    /// Answer to `RetainedPull`. Gives the credit back.
    Retained {
        /// From the request.
        token: u64,
        /// Matching messages, in topic order.
        parcels: Vec<Parcel>,
        /// Where to go on; `None` when there is no more.
        next: Option<Box<str>>,
    },
    /// A member of a shared subscription left with this message unacknowledged and no other member is here: the
    /// owner of the topic finds one elsewhere. Answered like `Publish`.
    Redistribute {
        /// Names the sender's entry, which keeps the message until `Settled`.
        token: u64,
        /// The message.
        parcel: Parcel,
        /// `$share/GROUP/FILTER`.
        shared: Box<str>,
    },
    /// To the home of a QoS 2 key at the start, and from there to the owner of the topic right before the message, which
    /// comes again: that shared subscription already has it.
    SharePlaced {
        /// Of the message.
        key: OriginKey,
        /// The shared subscription, as a hash (`subscriptions::group_tag`).
        group: u16,
    },
    /// Every QoS 2 key of the sender below that LSN is settled and durably so: forget it.
    OriginReleased {
        /// Sender and LSN.
        mark: OriginKey,
    },
    /// Counters for `$SYS`, as deltas since the last.
    Counters {
        /// See `broker::statistics` for the order. Boxed: rare, and every message of a ring has the size of the largest.
        deltas: Box<Deltas>,
    },
    /// Recovery: the sender has sent all its interest, and every `SharePlaced` to the home of a key.
    InterestComplete,
}
