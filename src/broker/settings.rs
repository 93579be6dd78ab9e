//! What bounds the broker's decisions. Most an operator may set, and `config` validates them; the last few only a test
//! makes smaller than in `limits`, where they are too large to be reached.

use std::sync::Arc;

use crate::access::permissions::Permissions;
use crate::limits;
use crate::placement::Placement;

/// Settings of one shard's broker.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where accounts and topics live.
    pub placement: Placement,
    /// How long a message whose recipients are all online may wait for their acknowledgements before it is written. The
    /// default, and what it trades: `limits::HOLD_MS_DEFAULT`.
    pub hold_ms: u32,
    /// Unacknowledged deliveries to one client, at most.
    pub send_window: u16,
    /// Largest packet taken; announced in CONNACK.
    pub packet_bytes_max: u32,
    /// Longest session expiry granted, in seconds.
    pub session_expiry_max_s: u32,
    /// Keep alive imposed on clients that ask for none or a longer one; 0 imposes none.
    pub keep_alive_max_s: u16,
    /// Messages queued for one session.
    pub queue_messages_max: u32,
    /// Bytes queued for one session.
    pub queue_bytes_max: u64,
    /// Entries in all queues of the shard together.
    pub queued_messages_max: u64,
    /// Message bodies kept in memory.
    pub resident_bytes_max: u64,
    /// Seconds between `$SYS` publications; 0 publishes none.
    pub sys_interval_s: u32,
    /// Who may do what, until `Input::Permissions` says otherwise.
    pub permissions: Arc<Permissions>,
    /// `limits::SESSIONS_PER_SHARD_MAX`.
    pub sessions_max: usize,
    /// `limits::RETAINED_MESSAGES_MAX`.
    pub retained_messages_max: usize,
    /// `limits::RETAINED_BYTES_MAX`.
    pub retained_bytes_max: u64,
    /// `limits::RATE_KEPT_MAX`.
    pub spent_max: usize,
    /// Key of the tables that are indexed by what peers choose.
    pub hash_key: [u8; 16],
}

impl Settings {
    /// The defaults, for one shard.
    pub fn with_placement(placement: Placement) -> Settings {
        Settings {
            permissions: Arc::new(Permissions::open(placement.clone())),
            placement,
            hold_ms: limits::HOLD_MS_DEFAULT,
            send_window: limits::SEND_WINDOW_DEFAULT,
            packet_bytes_max: limits::PACKET_BYTES_DEFAULT,
            session_expiry_max_s: u32::MAX,
            keep_alive_max_s: 0,
            queue_messages_max: limits::QUEUE_MESSAGES_DEFAULT,
            queue_bytes_max: limits::QUEUE_BYTES_DEFAULT,
            queued_messages_max: limits::QUEUED_MESSAGES_DEFAULT,
            resident_bytes_max: limits::RESIDENT_BYTES_DEFAULT,
            sys_interval_s: 10,
            sessions_max: limits::SESSIONS_PER_SHARD_MAX,
            retained_messages_max: limits::RETAINED_MESSAGES_MAX,
            retained_bytes_max: limits::RETAINED_BYTES_MAX,
            spent_max: limits::RATE_KEPT_MAX,
            hash_key: [0; 16],
        }
    }
}
