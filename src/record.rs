//! What the journal of a shard can say: the durable events of the broker, as values that borrow.
//!
//! The broker writes them (`Effect::Append`) and reads them back at start (`Input::Replay`); the journal only gives
//! each a frame and a place. A record's type number is frozen: another shape is another type. Every table that must
//! survive is rebuilt from these alone, so the doc of each variant says what replaying it does.
//!
//! It also says until when the record is *live* (`live`): after a checkpoint replay gets only those, in order, with
//! their facts, and then everything written since. So two things hold for each type. What undoes a record and is not
//! live itself kills it in the same call; and replaying what undoes a record, when that is dead already, does nothing.

use crate::ids::{Lsn, OriginKey, SessionKey};
use crate::time::UnixMs;
use crate::wire::{PacketId, QoS, SubscribeOptions, Version};

/// One durable recipient of a message. 16 bytes on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Recipient {
    /// The session, in the shard whose journal this is. `NONE`: somebody who was done when the list was written anew.
    pub session: SessionKey,
    /// The QoS to deliver at: min(published, granted); never 0.
    pub qos: QoS,
    /// The retain flag to deliver with.
    pub retain: bool,
    /// The entry came through a shared subscription: when the session ends it goes to another member.
    pub shared: bool,
    /// Which shared subscription, as a hash of its text; 0 if it is not shared, or was written before this was.
    pub group: u16,
    /// The single matching subscription identifier, or 0 for none. Several: the entry's identifiers follow in
    /// further recipients of the same session, marked `more`.
    pub subscription_id: u32,
    /// This only adds a subscription identifier to the recipient before it.
    pub more: bool,
}

impl Recipient {
    /// Size of one recipient in a record: session u64, subscription id u32, QoS u8, flags u8, group u16; little
    /// endian.
    pub const WIRE_BYTES: usize = 16;

    /// The form in a record.
    pub fn to_wire(&self) -> [u8; Recipient::WIRE_BYTES] {
        let mut bytes = [0; Recipient::WIRE_BYTES];
        bytes[..8].copy_from_slice(&self.session.0.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.subscription_id.to_le_bytes());
        bytes[12] = self.qos as u8;
        bytes[13] = u8::from(self.retain) | u8::from(self.shared) << 1 | u8::from(self.more) << 2;
        bytes[14..].copy_from_slice(&self.group.to_le_bytes());
        bytes
    }

    /// `None` if the bytes are not what `to_wire` makes. The journal's checksum has passed before, so that means a
    /// record of a version that this program does not know.
    fn from_wire(bytes: &[u8; Recipient::WIRE_BYTES]) -> Option<Recipient> {
        let [s0, s1, s2, s3, s4, s5, s6, s7, i0, i1, i2, i3, qos, flags, g0, g1] = *bytes;
        let qos = QoS::from_bits(qos).filter(|qos| *qos != QoS::AtMostOnce)?;
        let group = u16::from_le_bytes([g0, g1]);
        if flags > 0b111 || group != 0 && flags & 2 == 0 {
            return None;
        }
        Some(Recipient {
            session: SessionKey(u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7])),
            qos,
            retain: flags & 1 != 0,
            shared: flags & 2 != 0,
            group,
            subscription_id: u32::from_le_bytes([i0, i1, i2, i3]),
            more: flags & 4 != 0,
        })
    }
}

/// The recipients of a record: the broker's slice when it is written, the record's own bytes when it is read back.
///
/// Compares by content, so a record read back equals the one written.
#[derive(Clone, Copy)]
pub struct Recipients<'a>(Form<'a>);

#[derive(Clone, Copy)]
enum Form<'a> {
    Slice(&'a [Recipient]),
    /// Whole recipients, each of which decodes.
    Wire(&'a [u8]),
}

impl<'a> Recipients<'a> {
    /// Nobody.
    pub const EMPTY: Recipients<'static> = Recipients(Form::Slice(&[]));

    /// The recipients in those bytes; `None` if they are not whole, valid ones.
    pub fn from_wire(bytes: &'a [u8]) -> Option<Recipients<'a>> {
        let (recipients, rest) = bytes.as_chunks();
        let valid = rest.is_empty() && recipients.iter().all(|one| Recipient::from_wire(one).is_some());
        valid.then_some(Recipients(Form::Wire(bytes)))
    }

    /// How many.
    pub fn len(&self) -> usize {
        match self.0 {
            Form::Slice(slice) => slice.len(),
            Form::Wire(bytes) => bytes.len() / Recipient::WIRE_BYTES,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Each of them, in order.
    pub fn iter(&self) -> RecipientsIter<'a> {
        match self.0 {
            Form::Slice(slice) => RecipientsIter(Remaining::Slice(slice.iter())),
            Form::Wire(bytes) => RecipientsIter(Remaining::Wire(bytes.as_chunks().0.iter())),
        }
    }
}

impl<'a> From<&'a [Recipient]> for Recipients<'a> {
    fn from(slice: &'a [Recipient]) -> Recipients<'a> {
        Recipients(Form::Slice(slice))
    }
}

impl<'a> IntoIterator for Recipients<'a> {
    type Item = Recipient;
    type IntoIter = RecipientsIter<'a>;

    fn into_iter(self) -> RecipientsIter<'a> {
        self.iter()
    }
}

impl PartialEq for Recipients<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl std::fmt::Debug for Recipients<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_list().entries(self.iter()).finish()
    }
}

/// Iterator over [`Recipients`].
#[derive(Clone, Debug)]
pub struct RecipientsIter<'a>(Remaining<'a>);

#[derive(Clone, Debug)]
enum Remaining<'a> {
    Slice(std::slice::Iter<'a, Recipient>),
    Wire(std::slice::Iter<'a, [u8; Recipient::WIRE_BYTES]>),
}

impl Iterator for RecipientsIter<'_> {
    type Item = Recipient;

    fn next(&mut self) -> Option<Recipient> {
        match &mut self.0 {
            Remaining::Slice(slice) => slice.next().copied(),
            Remaining::Wire(wire) => Some(
                Recipient::from_wire(wire.next()?).expect("`Recipients::from_wire` has validated every one"),
            ),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.0 {
            Remaining::Slice(slice) => slice.size_hint(),
            Remaining::Wire(wire) => wire.size_hint(),
        }
    }
}

impl ExactSizeIterator for RecipientsIter<'_> {}

/// The body of a message: what does not depend on who receives it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Body<'a> {
    /// A valid topic name.
    pub topic: &'a str,
    /// v5 properties that pass through.
    pub forward: &'a [u8],
    /// Opaque.
    pub payload: &'a [u8],
    /// The QoS it was published at.
    pub qos: QoS,
    /// The retain flag it was published with.
    pub retain: bool,
    /// When it was accepted.
    pub accepted_at: UnixMs,
    /// When it expires, `NEVER` if it does not.
    pub expires_at: UnixMs,
}

/// A will as it is kept.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct WillRecord<'a> {
    /// Topic, properties, payload, QoS and retain flag; `expires_at` unused.
    pub body: Body<'a>,
    /// Seconds between the end of the connection and publication.
    pub delay_s: u32,
    /// Message expiry in seconds from publication; `u32::MAX` for none.
    pub message_expiry_s: u32,
}

/// A durable event.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Record<'a> {
    /// A session exists, connected. Replay: create it, or replace what is known of it (subscriptions stay).
    ///
    /// Live until the next one of that session, or its end; and as long as the will in it is pending.
    Session {
        /// Its name in all later records.
        key: SessionKey,
        /// Empty where the account is the client id.
        account: &'a str,
        /// Client identifier.
        client_id: &'a str,
        /// Protocol of its latest connection.
        version: Version,
        /// Seconds it outlives its connection; `u32::MAX` for ever.
        expiry_s: u32,
        /// Set while it is connected.
        will: Option<WillRecord<'a>>,
    },
    /// The connection ended. Replay: the session expires `expiry_s` after `at`, the will is due as said.
    ///
    /// Live until the session is connected again or ends.
    Disconnected {
        /// Which session.
        key: SessionKey,
        /// When.
        at: UnixMs,
        /// Possibly changed by DISCONNECT.
        expiry_s: u32,
        /// When the will is to be published; `NEVER` if there is none any more.
        will_due: UnixMs,
    },
    /// The will of a session that is not over was published or withdrawn.
    ///
    /// Live as long as the `Session` record with that will: until the next one, or the session's end.
    WillGone {
        /// Which session.
        key: SessionKey,
    },
    /// The session and everything queued for it is gone. Replay: drop it; a will that is due outlives it. Written once
    /// more, with `NEVER`, when such a will is published.
    ///
    /// Live as long as the will outlives it: the `Session` record is, which must not bring it back.
    SessionEnded {
        /// Which session.
        key: SessionKey,
        /// When its will is to be published; `NEVER` if there is none.
        will_due: UnixMs,
    },
    /// A subscription exists. Replay: add or replace.
    ///
    /// Live until the next one of that session and filter, its `Unsubscribed`, or the session's end.
    Subscribed {
        /// Which session.
        key: SessionKey,
        /// With its `$share/` prefix, if any.
        filter: &'a str,
        /// As granted.
        options: SubscribeOptions,
        /// 0 for none.
        subscription_id: u32,
    },
    /// A subscription is gone. Replay: remove it; what came through it, if it was shared, is still handed on if the
    /// session ends.
    ///
    /// Live if it was shared, until the session subscribes again, has nothing in its queue, or ends.
    Unsubscribed {
        /// Which session.
        key: SessionKey,
        /// As in `Subscribed`.
        filter: &'a str,
    },
    /// A message and who has to get it here. Replay: queue it for each recipient that is not `gone`, in LSN order.
    ///
    /// Live until every recipient is done; as long as the body is needed, for recipients that a `Deliver` lists or as a
    /// retained message; and until its key may be forgotten, which says that it was placed: for the shared subscriptions
    /// that recipients are listed by, and for all ordinary ones here if one of the recipients has it by an ordinary one.
    Message {
        /// What is sent.
        body: Body<'a>,
        /// Set if it came by QoS 2 from another shard: replay remembers the key.
        origin: Option<OriginKey>,
        /// Who still had to acknowledge it when the record was built.
        recipients: Recipients<'a>,
    },
    /// More recipients of a message recorded earlier (or of an `Inbound`). Replay: queue it for each that is not `gone`.
    ///
    /// Live until every one is done; and until the message's key may be forgotten, which says the same as in `Message`; if
    /// nobody is listed, that for ordinary subscriptions it was placed.
    Deliver {
        /// The `Message` or `Inbound` record.
        message: Lsn,
        /// Who.
        recipients: Recipients<'a>,
    },
    /// A recipient acknowledged a recorded message (PUBACK, PUBCOMP), or the entry expired or was refused.
    ///
    /// Only read: it does not say which copy is meant where a session has several. `DeliveryDone` does. Never live.
    Acknowledged {
        /// Who.
        key: SessionKey,
        /// What.
        message: Lsn,
        /// Of the delivery, if it was at QoS 2: a session may have a second copy, through a shared subscription.
        packet_id: Option<PacketId>,
    },
    /// A QoS 2 PUBLISH arrived. Replay: the packet id is taken; without `Routed` the message is routed again under
    /// the key (this shard, this LSN).
    ///
    /// Live until it is routed, until its packet id is free (both are facts), and as long as the body is needed.
    Inbound {
        /// The publisher's session; `SessionKey::NONE` if that session does not outlive its connection.
        key: SessionKey,
        /// Packet id in that session.
        packet_id: PacketId,
        /// What was published.
        body: Body<'a>,
    },
    /// Every recipient shard has the inbound message: it need not be routed again. Never live.
    Routed {
        /// The `Inbound` record.
        inbound: Lsn,
    },
    /// PUBREL arrived: the packet id is free. Never live.
    Released {
        /// The publisher's session.
        key: SessionKey,
        /// Packet id in that session.
        packet_id: PacketId,
    },
    /// A QoS 2 message to a client got its packet id. Replay: the entry is in flight under that id.
    ///
    /// Only read: it does not say which copy is meant where a session has several. `DeliveryBegun` does. Live as that.
    Sent {
        /// The recipient.
        key: SessionKey,
        /// The message.
        message: Lsn,
        /// Packet id in that session.
        packet_id: PacketId,
    },
    /// PUBREC arrived for it: from here on only PUBREL may be sent.
    ///
    /// Live while it is in flight.
    Received {
        /// The recipient.
        key: SessionKey,
        /// Packet id in that session.
        packet_id: PacketId,
    },
    /// The retained message of its topic is the body of that record. Replay: replace.
    ///
    /// Live while that is so.
    Retained {
        /// A `Message` or `Inbound` record of this shard.
        message: Lsn,
    },
    /// The topic has no retained message any more. Never live.
    RetainedCleared {
        /// Which topic.
        topic: &'a str,
    },
    /// Messages for that session were refused because its queue was full.
    ///
    /// Live until the next one of that session, unless it says 0, and until the session's end.
    Gap {
        /// Which session.
        key: SessionKey,
        /// How many its client is not known to have been told of. Replay: replace.
        skipped: u64,
    },
    /// No key of that origin shard below that LSN will be routed here again. Never live, and not written: every shard
    /// tells its mark again when it starts.
    OriginReleased {
        /// Origin shard and the LSN below which keys may be forgotten.
        mark: OriginKey,
    },
    /// A recipient is done with a recorded message: it acknowledged it (PUBACK, PUBCOMP), or the entry expired or was
    /// refused. Replay: it leaves the queue. Never live.
    DeliveryDone {
        /// The `Message` or `Deliver` record that lists it.
        list: Lsn,
        /// Its place in that list, of those without `more`.
        place: u32,
    },
    /// A QoS 2 message to a client got its packet id. Replay: the entry is in flight under that id.
    ///
    /// Live while it is.
    DeliveryBegun {
        /// The `Message` or `Deliver` record that lists the recipient.
        list: Lsn,
        /// Its place in that list, of those without `more`.
        place: u32,
        /// Packet id in its session.
        packet_id: PacketId,
    },
    /// A QoS 2 message in the queue of a session that is over goes to another member of the shared subscription that it
    /// came through, under the key (this shard, this LSN). Replay: it goes under that key again.
    ///
    /// Live until the end of the session is written.
    HandedOn {
        /// The `Message` or `Deliver` record that lists the session.
        list: Lsn,
        /// Its place in that list, of those without `more`.
        place: u32,
    },
    /// A client, or all clients of an account together, have used up so much of a rate limit. Replay: that limit is whole again
    /// for them at that time; 0: nothing is known of that any more.
    ///
    /// Live until the next one of the same and of the same limit, or until that time has passed, so never with 0.
    Spent {
        /// Empty where it is the client id.
        account: &'a str,
        /// Empty if it is the account's limit.
        client_id: &'a str,
        /// Which; `rates::number_of` has the numbers.
        limit: u8,
        /// When.
        full_at: UnixMs,
    },
}

impl Record<'_> {
    /// What the clock said when what it records happened, if it says so.
    pub fn happened_at(&self) -> Option<UnixMs> {
        match self {
            Record::Message { body, .. } | Record::Inbound { body, .. } => Some(body.accepted_at),
            Record::Disconnected { at, .. } => Some(*at),
            _ => None,
        }
    }
}
