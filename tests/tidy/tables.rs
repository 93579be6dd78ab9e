//! What the rules consult: who may import whom, budgets, exceptions and their reasons.
//!
//! A row here is a decision; a change of one belongs into the commit that needs it, with its reason in the row.

/// Lines of a file, tests included.
pub const FILE_LINES_MAX: usize = 600;

/// Lines of a function, from its name to its closing brace: a screen.
pub const FUNCTION_LINES_MAX: usize = 70;

/// Longer files: path, lines allowed, reason.
pub const LONG_FILES: &[(&str, usize, &str)] = &[];

/// Longer functions: path, name, reason.
pub const LONG_FUNCTIONS: &[(&str, &str, &str)] =
    &[("src/journal/decode/tests.rs", "samples", "a table: one sample of each record type, read as a list")];

/// Words that fit anything and therefore name nothing.
pub const VAGUE_WORDS: &[&str] = &["util", "utils", "helper", "helpers", "manager", "common", "misc"];

/// Where `unsafe` may stand: the files that talk to the kernel or share memory with it.
pub const UNSAFE_FILES: &[&str] = &[
    "src/allocator.rs",               // what an allocator promises, and the calls that keep it
    "src/content.rs",                 // text that was text when it was put there
    "src/reactor/", // descriptors, the ring's shared memory, buffers owned by operations in flight
    "tests/crash_campaign/disk.rs", // the ioctl that stops a file system
    "tests/reactor_contract/rigs.rs", // raw sockets and files, to see the kernel from the other side
    "src/shard/mesh/", // pinning a thread to its core, the doorbell's eventfd
    "src/shard/pin.rs", // sched_setaffinity
    "src/workers.rs", // the priority of a thread
    "src/shard/large.rs", // memory that is filled before it is read
    "src/shard/listen.rs", // socket options that the standard library does not set
    "src/journal/storage.rs", // pwrite, fdatasync and locks on descriptors that the reactor also uses
    "src/journal/reader.rs", // a mapping of a sealed segment
    "bench/ktls/",  // an allocator that counts, and the kernel's formats of keys and records
    "bench/src/",   // the load generator drives tens of thousands of sockets by plain system calls
];

/// Limits that nothing keeps to yet. Goes when the parts that keep to them are in the tree.
pub const LIMITS_PENDING: &[&str] = &[];

/// Limits that no test has to name, and why.
pub const LIMITS_UNTESTED: &[(&str, &str)] = &[
    (
        "CLOSE_TIME_MS",
        "seen only by a peer that neither reads nor leaves; src/shard's tests have the clock for it",
    ),
    ("HANDSHAKE_THREADS_MAX", "invisible: how many share what the shards leave"),
    ("TOKENS_TOGETHER_MAX", "invisible: each gets what it would get alone, only sooner or later"),
    ("WORKER_NICENESS", "a priority, not a bound"),
    ("LISTEN_BACKLOG", "the kernel keeps to it, below its own ceiling"),
    ("ACCEPTS_PER_TURN_MAX", "the reactor's contract counts them, whatever their number"),
    ("ACCEPT_RETRY_MS", "invisible: how soon a connection is accepted after there were no descriptors"),
    ("PACKET_BYTES_MAX", "ceiling of a setting; the settings' tests have one of each kind"),
    ("RECEIVE_BYTES", "fairness within a turn, not an outcome"),
    ("SENT_TOGETHER_BYTES", "invisible: how answers are cut into packets of TCP"),
    ("RECEIVES_PER_TURN_MAX", "fairness within a turn, not an outcome"),
    ("SEND_WINDOW_DEFAULT", "default of a setting; the test sets another"),
    ("HOLD_MS_DEFAULT", "default of a setting; tests read it from the settings"),
    ("HOLD_MS_MAX", "ceiling of a setting"),
    ("ACCESS_FILE_BYTES_MAX", "only an operator can reach it; 256 MiB of one are not made for a test"),
    ("PASSWORD_FILE_BYTES_MAX", "the same"),
    ("PASSWORD_THREADS_MAX", "invisible: how many share what the shards leave"),
    ("PASSWORDS_PENDING_MAX", "the line of each pool is bounded by the same code; its test fills one"),
    ("HOOK_THREADS", "invisible: who waits for one"),
    ("HOOK_PENDING_MAX", "as PASSWORDS_PENDING_MAX"),
    ("HOOK_CACHE_S_DEFAULT", "default of a setting"),
    ("HOOK_IDLE_MS_MAX", "invisible: when a connection is made anew"),
    ("BACK_OFF_SOURCE_FREE", "the test of the policy says it in numbers, as README.md does"),
    ("BACK_OFF_SOURCE_FIRST_MS", "the same"),
    ("BACK_OFF_SOURCE_MS_MAX", "the same"),
    ("BACK_OFF_ACCOUNT_MS", "the same"),
    ("BACK_OFF_FAMILIAR_MS", "the same"),
    ("BREAKER_FIRST_MS", "the test of the table says it in numbers, as the table does"),
    ("BREAKER_MS_MAX", "the same"),
    ("ANSWER_NEGATIVE_MS_MAX", "the test of the cache says it in numbers"),
    ("TOKEN_RSA_BITS_MIN", "only an operator can reach it; tested with keys of other sizes"),
    ("TOKEN_RSA_BITS_MAX", "the same"),
    (
        "RATE_ADDRESSES_MAX",
        "the table is tested with a small bound; whoever has as many networks is let in as before",
    ),
    ("RATE_ADDRESS_TABLES", "invisible: who waits for whose lock"),
    ("RATE_WHO_MAX", "as RATE_ADDRESSES_MAX"),
    ("RATE_BURST_NS_MIN", "only an operator can reach it; the tests of rates have it in numbers"),
    ("RATE_BURST_NS_MAX", "the same"),
    ("RATE_QUIET_MS", "invisible to a peer: how often the log says it"),
    (
        "OVERLOAD_LAG_MS",
        "the scale of a pressure; the tests of the broker have it in percent, as README.md does",
    ),
    ("OVERLOAD_OUTPUT_BYTES", "the same"),
    ("OVERLOAD_MEMORY_FROM_PERCENT", "the same"),
    ("OVERLOAD_MARGIN", "the test of the steps says it in numbers"),
    ("MEMORY_LOOK_MS", "how late a pressure may be noticed"),
    ("ADVANCE_BUDGET", "fairness within a turn, not an outcome"),
    ("FETCHES_PER_TURN_MAX", "fairness within a turn, not an outcome"),
    ("SWEEP_MS", "how late a limit of time may be, and named where that matters"),
    ("LARGE_BLOCK_BYTES_MIN", "invisible: whether free memory is looked for"),
    ("LOOKS_FOR_FREE_MEMORY", "invisible: how often; the allocator's test counts them"),
    ("REACTOR_OPERATIONS_MAX", "the reactor's contract fills it, whatever its number"),
    ("REACTOR_OPERATIONS_RESERVED", "invisible: what waits leaves in the next turn"),
    ("REACTOR_EVENTS_MAX", "invisible: what waits is taken in the next turn"),
    ("DIRECT_CALLS_MAX", "invisible: the simulated world declines such calls at times"),
    ("DRAIN_MS_DEFAULT", "default of a setting"),
    ("DRAIN_MS_MAX", "ceiling of a setting"),
    ("SHARDS_MAX", "nothing a peer can reach; the settings and the data directory refuse more"),
    ("MESH_RETRY_MS", "invisible: how soon a batch is tried again"),
    ("SEGMENT_BYTES_DEFAULT", "a size, not a bound"),
    ("SEGMENTS_AHEAD", "invisible: when segments are emptied; the journal's crash test counts how many"),
    ("RECLAIM_SEGMENTS_MIN", "invisible: smaller pools are recycled from one end, as the journal's tests do"),
    ("RECLAIM_QUIET_MS", "a time, not a bound; the journal's tests set others"),
    ("COPIES_PER_CHECKPOINT", "invisible: how often segments are freed together"),
    ("CHECKPOINT_TAIL_BYTES", "how much a start replays; the journal's tests set others"),
    ("GROW_RETRY_MS", "how soon room on the disk is noticed"),
    ("BLOCK_BYTES_MAX", "a size, not an outcome"),
    ("WITNESS_MS", "invisible to a peer; tests of the journal use its deadline"),
    ("SEGMENT_MAPS_MAX", "invisible: a segment is mapped again"),
    ("BLOCKS_STEPPED_MAX", "invisible: a block is stepped over again"),
    ("FILE_OPERATIONS_MAX", "the journal has one in flight"),
    ("BACKUP_ANSWER_MS", "only a disk that hangs comes to it"),
    ("BACKUP_SYNC_BYTES", "a pace, not an outcome"),
    ("CONTROL_MS", "no client of the broker can reach it; tests/backup/refusals holds it against the socket"),
    ("CONTROL_CONNECTIONS_MAX", "the same"),
];

/// Module below `src/`, and the modules it may import besides itself.
///
/// The order is that of the data: what stands higher never imports what stands lower. `broker` and `wire` are the
/// two whose rows must not grow: they stay values that a test builds in one line.
pub const MODULES: &[(&str, &[&str])] = &[
    ("limits", &[]),
    ("allocator", &["limits"]),
    ("content", &[]),
    ("json", &[]),
    ("time", &[]),
    ("ids", &[]),
    ("hash", &[]),
    ("live", &["hash", "ids"]),
    ("wire", &["limits"]),
    ("placement", &["ids", "limits"]),
    ("record", &["ids", "time", "wire"]),
    ("rates", &["hash", "limits", "time"]),
    ("workers", &["ids", "limits"]),
    ("access", &["hash", "ids", "limits", "placement", "time", "wire", "workers"]),
    (
        "broker",
        &["access", "content", "hash", "ids", "limits", "live", "placement", "record", "time", "wire"],
    ),
    ("reactor", &["hash", "limits", "time"]),
    ("journal", &["ids", "limits", "live", "reactor", "record", "time", "wire"]),
    ("backup", &["ids", "journal", "limits"]),
    ("transport", &["ids", "limits", "workers"]),
    ("config", &["access", "broker", "limits", "placement", "rates", "transport"]),
    ("log", &["config"]),
    (
        "shard",
        &[
            "access",
            "allocator", // memory to give back
            "backup",    // what is said on the control socket
            "broker",
            "config",
            "hash",
            "ids",
            "journal",
            "limits",
            "live",
            "placement",
            "rates",
            "reactor",
            "record",
            "time",
            "transport",
            "wire",
            "workers",
        ],
    ),
    ("client", &["limits", "wire"]),
    (
        "reshard",
        &[
            "broker",
            "config",
            "ids",
            "journal",
            "limits",
            "live",
            "placement",
            "record",
            "shard",
            "time",
            "wire",
        ],
    ),
    (
        "salvage",
        &[
            "broker",
            "config",
            "ids",
            "journal",
            "json",
            "limits",
            "live",
            "placement",
            "record",
            "reshard",
            "shard",
            "time",
            "wire",
        ],
    ),
    (
        "command",
        &[
            "access", "backup", "client", "config", "ids", "journal", "json", "limits", "live", "log",
            "rates", // the words of a limit in a record
            "reactor", "record", "reshard", "salvage", "shard", "time", "wire",
        ],
    ),
    ("lib", &[]),
    ("main", &["allocator", "command"]),
];

/// Imports that a folder may make beyond its row: path prefix, module, reason.
pub const IMPORT_EXCEPTIONS: &[(&str, &str, &str)] = &[(
    "src/reactor/sim/",
    "journal",
    "the simulated disk is a `Storage` of the journal, which only tests use",
)];

/// A crate of Cargo.toml, or a part of the standard library that touches the world, and the paths that may name it.
pub const CRATES: &[(&str, &[&str])] = &[
    ("std::env", &["src/command/"]), // its arguments and STATE_DIRECTORY
    // keeper, hook: files that the configuration names; unix_socket: a place in the file system
    (
        "std::fs",
        &[
            "src/journal/",
            "src/backup/",
            "src/shard/",
            "src/config/",
            "src/command/",
            "src/access/keeper.rs",
            "src/access/hook.rs",
            "src/reactor/unix_socket.rs",
        ],
    ),
    ("std::net::Tcp", &["src/shard/", "src/reactor/", "src/client/"]),
    // broker: its socket; passwd: owner and mode of a file, and whether there is a terminal
    (
        "std::os",
        &[
            "src/reactor/",
            "src/shard/",
            "src/journal/storage.rs",
            "src/backup/broker.rs",
            "src/command/passwd",
        ],
    ),
    ("std::process", &["src/main.rs", "src/command/", "src/shard/", "src/journal/"]),
    // directory: counts the usable cores; copy: keeps a rate; workers: are threads; connection: looks a name up in one
    (
        "std::thread",
        &[
            "src/shard/",
            "src/reactor/",
            "src/journal/directory.rs",
            "src/backup/copy.rs",
            "src/workers.rs",
            "src/access/hook/connection.rs",
        ],
    ),
    ("clap", &["src/command/"]),
    ("argon2", &["src/access/passwords.rs"]),
    ("base64", &["src/access/passwords.rs", "src/access/scram.rs"]),
    ("bytes", &["src/access/hook.rs", "src/access/hook/", "src/wire/"]), // wire: a module of its own of that name
    ("crc32c", &["src/journal/", "src/transport/proxy.rs"]),
    ("crossbeam_queue", &["src/shard/", "src/reactor/"]),
    ("crossbeam_utils", &["src/shard/"]),
    ("data_encoding", &["src/access/"]),
    ("der", &["src/access/tokens/"]),
    ("ed25519_dalek", &["src/access/tokens/"]),
    ("getrandom", &["src/command/passwd.rs"]),
    ("hashbrown", &["src/broker/", "src/hash.rs", "src/access/"]),
    ("hmac", &["src/access/scram.rs"]),
    ("io_uring", &["src/reactor/"]),
    // error: errno names; workers: a thread's priority
    (
        "libc",
        &["src/reactor/", "src/shard/", "src/journal/storage.rs", "src/journal/error.rs", "src/workers.rs"],
    ),
    ("libmimalloc_sys", &["src/allocator.rs"]),
    ("memmap2", &["src/journal/"]),
    ("mimalloc", &["src/allocator.rs"]),
    ("mio", &["src/reactor/"]),
    ("pbkdf2", &["src/access/scram.rs"]),
    ("pem", &["src/access/tokens/"]),
    ("pkcs1", &["src/access/tokens/"]),
    ("ring", &["src/access/tokens/"]),
    ("rkyv", &["src/journal/"]),
    ("rpassword", &["src/command/passwd.rs"]),
    ("rustls", &["src/transport/", "src/access/hook"]),
    ("serde_json", &["src/access/"]),
    ("sha2", &["src/access/scram.rs"]),
    ("signal_hook", &["src/shard/", "src/command/"]),
    ("siphasher", &["src/placement.rs", "src/broker/", "src/shard/", "src/access/", "src/rates/shared.rs"]),
    ("slab", &["src/broker/", "src/shard/", "src/reactor/"]),
    ("spki", &["src/access/tokens/"]),
    ("stringprep", &["src/access/"]),
    ("subtle", &["src/access/"]),
    ("toml", &["src/config/"]),
    (
        "tracing",
        &[
            "src/log.rs",
            "src/command/",
            "src/shard/",
            "src/reactor/",
            "src/journal/",
            "src/workers.rs",
            "src/access/keeper.rs",
        ],
    ),
    ("tracing_subscriber", &["src/log.rs"]),
    ("tungstenite", &["src/transport/websocket.rs"]),
    ("ureq", &["src/access/hook.rs", "src/access/hook/"]),
    ("webpki", &["src/transport/certificates.rs"]),
    ("x509_parser", &["src/access/certificate.rs"]),
    ("zeroize", &["src/access/", "src/shard/", "src/command/passwd"]),
];
