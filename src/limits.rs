//! Every bound in the program: what it is, why that number, what a peer sees when it is reached.
//!
//! A bound that an operator may change is a field of the configuration whose default stands here. Those of who may connect, and what
//! they may do, stand in `limits/access.rs`, and are named like the others.

mod access;

pub use access::*;

// --- Connections ---

/// Connections of one shard. 2 M on one host is the goal; one shard alone may hold them all. Beyond: the new one is
/// closed at once. The limit of open files comes first on most hosts: then connections wait in the backlog.
pub const CONNECTIONS_PER_SHARD_MAX: usize = 1 << 22;

/// Sessions of one shard, connected or not. Beyond: CONNACK 0x97.
pub const SESSIONS_PER_SHARD_MAX: usize = 1 << 22;

/// Bytes of a client id. The protocol asks for 23 at least; device ids and UUIDs fit many times. Beyond: CONNACK 0x85.
pub const CLIENT_ID_BYTES_MAX: usize = 256;

/// Connections that have not sent a whole CONNECT yet, per shard. Beyond: the one that we have waited for longest is closed; if there
/// is none, because all that are there have said something that is looked at, the new one.
pub const HANDSHAKES_PENDING_MAX: usize = 4_096;

/// Time from accept to a whole CONNECT. Beyond: closed. Long enough for a phone on a bad network.
pub const HANDSHAKE_TIME_MS: u64 = 10_000;

/// Threads of a process that shake hands. They share what the shards leave.
pub const HANDSHAKE_THREADS_MAX: usize = 8;

/// Tokens that one thread verifies together, if so many wait: more take no less each, and those who wait would wait for all of them.
pub const TOKENS_TOGETHER_MAX: usize = 16;

/// How far these step back behind everybody else, as `nice` counts.
pub const WORKER_NICENESS: i32 = 10;

/// What a transport keeps of what is not yet a whole TLS record or handshake message. A record is at most 16 KiB and some
/// bytes [RFC 8446 5.2]; a chain of client certificates may be longer. Beyond: closed with an alert.
pub const TLS_PARTIAL_BYTES_MAX: usize = 64 << 10;

/// What opens a WebSocket, request line and headers. Beyond: answered with 431 and closed. Browsers send below 1 KiB, and
/// cookies.
pub const HTTP_REQUEST_BYTES_MAX: usize = 8 << 10;

// --- Output ---

/// Time for the last output of a connection to leave once it is to be closed. Beyond: closed without it.
pub const CLOSE_TIME_MS: u64 = 5_000;

/// Connections that the kernel completes and holds before we accept them. The kernel's own ceiling
/// (`net.core.somaxconn`, 4,096 by default) applies on top; a shard takes `ACCEPTS_PER_TURN_MAX` per turn. Beyond: SYNs are dropped and
/// the client's kernel repeats them.
pub const LISTEN_BACKLOG: i32 = 16_384;

/// Connections accepted from one listening socket in one turn, so that a login storm does not starve those who are
/// connected: each costs as much as several messages. The rest wait in the backlog.
pub const ACCEPTS_PER_TURN_MAX: usize = 2;

/// Pause after accepting failed for want of descriptors or memory: long enough to cost nothing while it lasts, short
/// enough that a waiting client does not time out.
pub const ACCEPT_RETRY_MS: u64 = 100;

// --- Packets ---

/// Default of the largest packet we take, fixed header included. Beyond: DISCONNECT 0x95. Announced in CONNACK.
pub const PACKET_BYTES_DEFAULT: u32 = 1 << 20;

/// Hard ceiling of that setting: a record must fit a journal segment with room to spare.
pub const PACKET_BYTES_MAX: u32 = 16 << 20;

/// Packet size before CONNECT is accepted: client id, will and credentials fit; a stranger gets no more memory.
pub const CONNECT_BYTES_MAX: u32 = 64 << 10;

/// Bytes of a topic name or filter. The protocol allows 65,535; nobody addresses devices that way. Beyond: 0x90 on
/// PUBLISH, 0x8F in SUBACK.
pub const TOPIC_BYTES_MAX: usize = 1_024;

/// Levels of a topic name or filter: bounds the depth of every walk over the subscription tree. Same answers.
pub const TOPIC_LEVELS_MAX: usize = 32;

/// Topic aliases we accept from a client; the topic alias maximum in CONNACK. Beyond: DISCONNECT 0x94.
pub const TOPIC_ALIASES_IN_MAX: u16 = 32;

/// Topic aliases we use towards a client, at most what it allows.
pub const TOPIC_ALIASES_OUT_MAX: u16 = 16;

// --- Subscriptions ---

/// Subscriptions of one session. Beyond: SUBACK 0x97.
pub const SUBSCRIPTIONS_PER_SESSION_MAX: usize = 1_024;

/// Filters of one SUBSCRIBE or UNSUBSCRIBE: as many as a session can have. A packet of a megabyte names 250,000, and is handled in
/// one turn, which others wait for. Beyond: SUBACK 0x97 for those after; UNSUBACK cannot refuse in 3.1.1, so the connection
/// ends, with 0x97.
pub const FILTERS_PER_PACKET_MAX: usize = SUBSCRIPTIONS_PER_SESSION_MAX;

/// What is read of a connection that was refused, so that it gets to read why. Beyond: closed at once, and what was said is lost.
pub const LINGER_BYTES_MAX: usize = PACKET_BYTES_MAX as usize;

/// Filters of one session whose owner cannot be told: who needs many of them wants `#`. Beyond: SUBACK 0x97.
pub const BROAD_FILTERS_PER_SESSION_MAX: usize = 64;

/// Filters whose owner cannot be told (wildcard in the placement key), per shard: each is known to every shard.
/// Beyond: SUBACK 0x97.
pub const BROAD_FILTERS_PER_SHARD_MAX: usize = 4_096;

// --- From a publisher ---

/// QoS 1 and 2 publishes we take from one client before the first is acknowledged; the receive maximum in CONNACK.
/// Beyond: DISCONNECT 0x93 (v5), reader paused (v3).
pub const RECEIVE_MAXIMUM: u16 = 1_024;

/// Publishes parked of a paused connection whose acknowledgements are still parsed. Beyond: nothing more is read from
/// it, and if that lasts `PARKED_STALL_MS`, closed.
pub const PARKED_BYTES_MAX: usize = 64 << 10;

/// How long a paused connection whose parked bytes have reached `PARKED_BYTES_MAX` may stay so before it is closed.
/// Acknowledgements sit behind publishes in one stream: if it is these that the pause waits for, no one can go on.
pub const PARKED_STALL_MS: u64 = 30_000;

/// Bytes read from one connection in one turn: a hot socket gets this much, then everyone else's turn comes. Two of
/// the largest common device messages, and small enough that what is read stays in the cache until it is parsed.
pub const RECEIVE_BYTES: usize = 16 << 10;

/// Packets of one connection handled in one turn, where SUBSCRIBE, UNSUBSCRIBE and PINGREQ count more than once: 16 KiB of
/// the smallest would be 8,192, and keep everybody waiting for a millisecond. The rest waits for the next turn, and
/// nothing more is read meanwhile. As many as a window of messages, so that a client that keeps to one never notices.
pub const WORK_PER_TURN_MAX: usize = 128;

/// A packet that is so much work is heavy: a SUBSCRIBE with more than 128 bytes, a message like one of its sender that matched 768
/// subscriptions. In one turn `WORK_PER_TURN_MAX` of such work is done, whoever it is for, and the rest of it waits for the next.
pub const WORK_HEAVY_MIN: usize = 48;

/// How long a connection waits behind a heavy packet, for each unit of its work: eight times what it takes,
/// some 2 µs. Acknowledgements and pings do not wait. Who subscribes to 50 filters at once is not heard for 3 ms.
pub const WORK_WAIT_NS: u64 = 16_000;

/// For each so much work in one packet, which counts as 4 ms for which everybody waits, its connection waits as long again for each unit: what
/// takes a shard that long is to be seldom. Who subscribes to 1,000 filters in one packet is not heard for a tenth of a second.
pub const WORK_HUGE: usize = 2_048;

/// What a connection that has more to say than a turn handles is answered gathers to this many bytes, or until it has been
/// heard out.
pub const SENT_TOGETHER_BYTES: usize = 4 << 10;

/// From this size a PUBLISH is received into the place where its message stays, and smaller ones are copied there: that
/// is 4 receives.
pub const LARGE_PACKET_BYTES_MIN: usize = 64 << 10;

/// Connections read from in one turn: with `RECEIVE_BYTES` the receive memory of a shard (4 MiB).
pub const RECEIVES_PER_TURN_MAX: usize = 256;

/// Messages taken from clients and not yet in every queue, beyond which a shard reads from nobody. They are its own work for a
/// turn or so, unless another shard has no room; what clients send meanwhile waits in their sockets, and all of them wait
/// alike.
pub const UNPLACED_MESSAGES_AHEAD: usize = 2_048;

/// The same, with those that wait for room towards another shard. Beyond: whoever publishes is paused (read no further,
/// `PARKED_BYTES_MAX`) until half of them are placed. So many come of packets that were read together and are small.
pub const UNPLACED_MESSAGES_MAX: usize = 16_384;

/// Bytes of records that wait for the disk, per shard. Beyond: whoever publishes is paused until half of them are
/// written. 64 blocks: a disk that is merely slow is used to the full.
pub const JOURNAL_BACKLOG_BYTES_MAX: usize = 64 << 20;

// --- To a subscriber ---

/// Unacknowledged deliveries to one v3 client, which cannot state its own, and ceiling for v5 clients.
pub const SEND_WINDOW_DEFAULT: u16 = 128;

/// Default of messages queued for one session. Beyond: if nobody else gets the message, its publisher is told (PUBACK
/// 0x97; 3.1.1: closed); else the others get it, and this session is told of the gap in its next CONNACK.
pub const QUEUE_MESSAGES_DEFAULT: u32 = 100_000;

/// Default of bytes queued for one session, counted as topic + properties + payload. Beyond: as above.
pub const QUEUE_BYTES_DEFAULT: u64 = 64 << 20;

/// Default of entries in all queues of a shard together. One of a session that is away, or far behind, takes 32 bytes of
/// memory however large the disk is; one that is about to be sent has its message's head as well, some 250: 0.5 to 4 GiB
/// per shard. Beyond: as with one session's full queue.
pub const QUEUED_MESSAGES_DEFAULT: u64 = 1 << 24;

/// Default of message bodies kept in memory per shard. From half of it on, messages' heads included, what is on disk and
/// for sessions that are away is left there alone. Beyond it, what is on disk is dropped and read back when it is due;
/// what cannot be on disk (QoS 0, sessions that end with their connection) is refused like for a full queue, except to
/// sessions that have less than `QUEUE_BYTES_ASSURED` waiting.
pub const RESIDENT_BYTES_DEFAULT: u64 = 256 << 20;

/// What a session may have queued in memory although the shard's bodies have reached `RESIDENT_BYTES_DEFAULT`: as much
/// as keeps a reader busy that keeps up, so that those who do not read cost those who do nothing.
pub const QUEUE_BYTES_ASSURED: u64 = 64 << 10;

/// Output of one connection that waits for the peer to read. Beyond: deliveries stop being pulled for it.
pub const OUTPUT_BYTES_MAX: usize = 256 << 10;

/// How long output may make no progress before the connection is closed as a slow reader.
pub const OUTPUT_STALL_MS: u64 = 30_000;

/// Retained messages per shard. Beyond: a publish at QoS 1 is refused as a whole (PUBACK 0x97; 3.1.1: closed); one whose
/// sender cannot be told any more (QoS 0 and 2, wills) is delivered and not retained.
pub const RETAINED_MESSAGES_MAX: usize = 1 << 20;

/// Bytes of retained messages per shard: they stay in memory. Beyond: as above.
pub const RETAINED_BYTES_MAX: u64 = 1 << 30;

/// Default of the hold setting, chosen from the curve in bench/README.md: a LAN's acknowledgements come within 20 ms
/// even on a disturbed machine, phones' take a round trip of 20 to 500. At 100 ms a fifth of a phone mixture is never
/// written, and 99 of 100 senders wait no longer than some 130. 200 ms saves 15 messages in 100 more and costs 90 ms more.
pub const HOLD_MS_DEFAULT: u32 = 100;

/// Ceiling of the hold setting: a sender that waits longer for its acknowledgement sends again.
pub const HOLD_MS_MAX: u32 = 10_000;

// --- The loop of a shard ---

/// Work units for the broker in one turn: bounds how long inputs wait while backlogs are delivered, some 2 ms. Less would
/// cut what a client gets at once into several writes, which cost more than the messages in them.
pub const ADVANCE_BUDGET: u32 = 4_096;

/// Bytes sent to a client that count as a unit of `ADVANCE_BUDGET`: so 512 KiB leave in one turn, whoever makes a large message
/// go to many.
pub const ADVANCE_BYTES_PER_UNIT: usize = 128;

/// Bodies read back from disk in one turn. The rest wait for the next: what others have sent comes in between.
pub const FETCHES_PER_TURN_MAX: usize = 256;

/// How often a shard looks for stalled connections and for journal segments to release.
pub const SWEEP_MS: u64 = 1_000;

/// A block of memory from this size on is worth looking for when it was freed: it holds pages that can be given back
/// alone. Tables and buffers that grew are larger, what one message or session needs is smaller.
pub const LARGE_BLOCK_BYTES_MIN: usize = 64 << 10;

/// How many sweeps look for memory to give back after a large block was freed: the allocator leaves it for a second
/// before that, and what is freed in pieces behind it gets its second too.
pub const LOOKS_FOR_FREE_MEMORY: u8 = 4;

/// Buffers of each kind that a shard keeps for the next connection that needs one.
pub const BUFFERS_KEPT_MAX: usize = 1_024;

/// Larger buffers are not kept: with the number above, 32 MiB per shard at most, for they are kept alone and as output.
pub const BUFFER_BYTES_KEPT_MAX: usize = 16 << 10;

/// Operations submitted to a reactor between two turns. A turn's receives and sends are batched into one system call
/// by this many at most; the owner keeps the rest. Invisible to a peer.
pub const REACTOR_OPERATIONS_MAX: usize = 4_096;

/// Operations of a reactor kept free for the journal, whose next one must not wait behind a thousand sends.
pub const REACTOR_OPERATIONS_RESERVED: usize = 4;

/// Readiness events taken from the kernel in one turn; the rest wait there. Invisible to a peer.
pub const REACTOR_EVENTS_MAX: usize = 1_024;

/// Connections that are read from, and connections that are sent to, by calls of their own within a turn. Where there
/// are more, their operations go to the kernel together, before the next turn. Invisible to a peer.
pub const DIRECT_CALLS_MAX: usize = 4;

/// Default of the time a graceful stop may take; afterwards the process ends with what it has.
pub const DRAIN_MS_DEFAULT: u32 = 10_000;

/// Ceiling of that setting: systemd kills a unit that takes 90 s to stop.
pub const DRAIN_MS_MAX: u32 = 80_000;

// --- When it is too much ---

/// How often a shard measures what weighs on it, while it has turns.
pub const PRESSURE_LOOK_MS: u64 = 250;

/// A turn of that length, and no shorter one for two looks, is all the lag that a shard can bear: who is connected notices half of it.
pub const OVERLOAD_LAG_MS: u64 = 500;

/// Output of all connections of a shard together that peers have not taken, and all that it can bear: 2,048 times what one may have
/// waiting. Not below, because who does not read is closed after `OUTPUT_STALL_MS`.
pub const OVERLOAD_OUTPUT_BYTES: usize = 512 << 20;

/// Memory in use, in percent of what the process may have, at which that begins to weigh; all of it is 100 percent.
pub const OVERLOAD_MEMORY_FROM_PERCENT: u64 = 80;

/// How often the memory of the process and of its host is looked at.
pub const MEMORY_LOOK_MS: u64 = 500;

/// How far below the percentage at which something gave way it does so no longer.
pub const OVERLOAD_MARGIN: u8 = 10;

/// Connections of one shard that are heard in a second while newcomers wait.
pub const NEWCOMERS_PER_S: u64 = 50;

// --- Between shards ---

/// Shards of one data directory. Bounds the mesh, which is N² rings.
pub const SHARDS_MAX: usize = 64;

/// Credits of one shard towards another: requests that may wait there unplaced.
pub const MESH_CREDITS: u32 = 1_024;

/// Messages in one batch between two shards before what takes no credit (interest, counters) has to wait. Invisible to
/// a peer.
pub const MESH_BATCH_MESSAGES_MAX: usize = 4_096;

/// Batches in the ring of an ordered pair: a receiver that falls this many turns behind makes its senders batch more.
pub const MESH_RING_BATCHES: usize = 8;

/// How soon a batch that found its ring full is tried again. Nobody rings for it.
pub const MESH_RETRY_MS: u64 = 1;

// --- The journal ---

/// How long a start waits for the lock of a process that is being taken apart. Beyond: it is another one at work, and
/// the start fails with the cure.
pub const LOCK_WAIT_MS: u64 = 3_000;

/// How often it looks.
pub const LOCK_RETRY_MS: u64 = 20;

/// Segments of one journal: 4 TiB at 64 MiB each; bounds the table at open.
pub const SEGMENTS_MAX: usize = 65_536;

/// Size of a journal segment once the pool grows. Large enough that switching (one extra sync) is rare, small enough
/// that one live record does not pin much.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;

/// Segments that a new journal starts with, and their size: what a first start writes per shard, within a second.
pub const SEGMENTS_FIRST: usize = 4;
/// See `SEGMENTS_FIRST`. Also the size of segments that are made when a disk has no room for a larger one: so that of a small
/// disk nothing much is left unused.
pub const SEGMENT_BYTES_FIRST: u64 = 8 << 20;

/// Free segments kept for acknowledgements and sessions. Below, when no more can be made: publishes are refused.
pub const SEGMENTS_RESERVE: usize = 2;

/// Free segments above the reserve below which those that are half empty are emptied, before the pool grows.
pub const SEGMENTS_AHEAD: usize = 1;

/// Segments below which none is emptied into others: two for checkpoints, one that is copied into, the reserve, and
/// some to choose from. A smaller pool is recycled from the log's old end only.
pub const RECLAIM_SEGMENTS_MIN: usize = 8;

/// A segment in which records died a moment ago will soon need no copying, or less: it is left alone for so long.
pub const RECLAIM_QUIET_MS: u64 = 15_000;

/// Segments emptied before a checkpoint frees them together. More would save checkpoints and hold their room longer.
pub const COPIES_PER_CHECKPOINT: usize = 4;

/// Log behind the last checkpoint at which the next is written: half of what a start is to replay at most, because the
/// log goes on while it is written.
pub const CHECKPOINT_TAIL_BYTES: u64 = 128 << 20;

/// Wait before growing a journal is tried again after the disk was full.
pub const GROW_RETRY_MS: u64 = 1_000;

/// Records of one commit block, in bytes: what arrives while a block syncs. More bytes make the next sync longer than
/// its latency gain; a single larger record still gets a block of its own.
pub const BLOCK_BYTES_MAX: usize = 1 << 20;

/// Idle time after which the last commit block is covered by an empty one.
pub const WITNESS_MS: u64 = 100;

/// Sealed segments of one journal that are mapped at once. The kernel allows 65,530 maps per process by default.
pub const SEGMENT_MAPS_MAX: usize = 256;

/// Blocks of one journal of which it is remembered where their records are, once one was read: some 1.3 KB for a block
/// of small messages.
pub const BLOCKS_STEPPED_MAX: usize = 4_096;

/// Journal writes and syncs handed to the thread that performs them. The journal keeps one block in flight.
pub const FILE_OPERATIONS_MAX: usize = 64;

// --- Backups ---

/// Settlements, and messages accepted at QoS 2, that wait while a backup's cuts are made. Beyond: they wait no longer, and
/// the backup fails: its shards took too long. Some seconds' worth of a busy shard.
pub const POSTPONED_SETTLEMENTS_MAX: usize = 1 << 18;

/// How long a shard may take to answer what a backup asks of it: it waits for one block to be on disk. Beyond: the backup
/// fails with a word about the disk.
pub const BACKUP_ANSWER_MS: u64 = 10_000;

/// How long segments may be kept from reuse for a backup. Beyond: it fails, and they are free. A day: 4 TiB at 50 MiB/s.
pub const BACKUP_MS_MAX: u64 = 24 * 60 * 60 * 1_000;

/// Bytes of a request on the control socket, and of any line of an answer. Beyond: closed.
pub const CONTROL_LINE_BYTES_MAX: usize = 256;

/// How long a request on the control socket may take to come, and an answer to be taken. Beyond: closed.
pub const CONTROL_MS: u64 = 5_000;

/// Connections on the control socket at a time. Beyond: closed at once. One backup, and some who are told that it is
/// under way.
pub const CONTROL_CONNECTIONS_MAX: usize = 4;

/// Bytes that a backup writes before it waits for them to be on disk: what a broker's sync on the same disk may have to wait
/// for.
pub const BACKUP_SYNC_BYTES: u64 = 4 << 20;

// --- How they relate ---

const _: () = assert!(CONNECT_BYTES_MAX < PACKET_BYTES_DEFAULT && PACKET_BYTES_DEFAULT <= PACKET_BYTES_MAX);
const _: () = assert!(SESSIONS_PER_SHARD_MAX >= CONNECTIONS_PER_SHARD_MAX);
const _: () = assert!(ACCEPTS_PER_TURN_MAX <= HANDSHAKES_PENDING_MAX);
const _: () = assert!(BROAD_FILTERS_PER_SESSION_MAX * 64 <= BROAD_FILTERS_PER_SHARD_MAX);
const _: () = assert!(TOPIC_LEVELS_MAX <= TOPIC_BYTES_MAX);
const _: () = assert!(UNPLACED_MESSAGES_AHEAD < UNPLACED_MESSAGES_MAX / 2);
const _: () = assert!(PARKED_BYTES_MAX >= RECEIVE_BYTES && OUTPUT_BYTES_MAX >= RECEIVE_BYTES);
const _: () =
    assert!(QUEUE_BYTES_ASSURED < QUEUE_BYTES_DEFAULT && QUEUE_BYTES_DEFAULT <= RESIDENT_BYTES_DEFAULT);
const _: () = assert!(QUEUE_MESSAGES_DEFAULT as u64 <= QUEUED_MESSAGES_DEFAULT);
const _: () = assert!(DRAIN_MS_DEFAULT <= DRAIN_MS_MAX);
const _: () = assert!(HOLD_MS_DEFAULT <= HOLD_MS_MAX);
const _: () = assert!(
    PACKET_BYTES_MAX as usize <= JOURNAL_BACKLOG_BYTES_MAX && BLOCK_BYTES_MAX <= JOURNAL_BACKLOG_BYTES_MAX
);
const _: () = assert!(SEGMENTS_FIRST as u64 * SEGMENT_BYTES_FIRST <= 32 << 20);
const _: () = assert!(SEGMENTS_RESERVE < SEGMENTS_FIRST && SEGMENTS_FIRST <= SEGMENTS_MAX);
const _: () = assert!(2 * BLOCK_BYTES_MAX as u64 <= SEGMENT_BYTES_FIRST);
const _: () = assert!(2 * PACKET_BYTES_MAX as u64 <= SEGMENT_BYTES_DEFAULT);
const _: () = assert!(SEGMENT_MAPS_MAX * SHARDS_MAX < 32_768);
