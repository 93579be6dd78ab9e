//! Bounds of who may connect, and what they may do: what each is, why that number, what a peer sees when it is reached.

// --- Who may connect ---

/// Bytes of the name of an account. Beyond: who proves it is not let in.
pub const ACCOUNT_BYTES_MAX: usize = 255;

/// Bytes of a file of users, keys or rules: a million rules fit. Beyond: the broker does not start, or goes on with what it has.
pub const ACCESS_FILE_BYTES_MAX: u64 = 256 << 20;

/// Threads of a process that look at passwords; half of the cores, at most so many. Each takes the memory that a password is hashed in,
/// 19 MiB.
pub const PASSWORD_THREADS_MAX: usize = 4;

/// Passwords of one shard that wait to be looked at: what one thread does in ten seconds, after which nobody waits any more. Beyond:
/// CONNACK 0x89.
pub const PASSWORDS_PENDING_MAX: usize = 512;

/// Threads of a process that wait for the site's own service: so many questions are under way at a time.
pub const HOOK_THREADS: usize = 16;

/// Questions of one shard that wait for a thread. Beyond: CONNACK 0x89.
pub const HOOK_PENDING_MAX: usize = 1_024;

/// Default of how long the site's own service may take, and its ceiling: who connects is closed after `HANDSHAKE_TIME_MS`.
pub const HOOK_TIMEOUT_MS_DEFAULT: u32 = 2_000;
/// Its ceiling: see above.
pub const HOOK_TIMEOUT_MS_MAX: u32 = super::HANDSHAKE_TIME_MS as u32;

/// Default of how long an answer of that service holds: longer than a network takes to come back, shorter than somebody who was shut
/// out takes to notice.
pub const HOOK_CACHE_S_DEFAULT: u32 = 60;

// --- How often ---

/// Tokens of a rate per unit of time. 1 TiB per second is more than any network card carries. Beyond: the setting is refused.
pub const RATE_TOKENS_MAX: u64 = 1 << 40;

/// The shortest unit of time, a second. Whoever wants it smoother asks for a smaller burst. Below: as above.
pub const RATE_PER_NS_MIN: u64 = 1_000_000_000;

/// The longest unit of time, a day: a quota per week is a matter of accounting. Beyond: as above.
pub const RATE_PER_NS_MAX: u64 = 24 * 60 * 60 * RATE_PER_NS_MIN;

/// How long the smallest burst takes to come. Less, and rounding to nanoseconds would make the rate visibly slower. Below: as above.
pub const RATE_BURST_NS_MIN: u64 = 1_000;

/// How long the largest burst takes to come, so the longest that anybody is locked out by a setting. Beyond: as above.
pub const RATE_BURST_NS_MAX: u64 = 7 * RATE_PER_NS_MAX;

/// From so many nanoseconds per token on, a token costs whole ones: a rate of 30 a second lets 30 through one by one, and not 29.
pub const RATE_TOKEN_WHOLE_NS_MIN: u64 = 10_000;

// What comes in one unit of time is a burst, at every rate; and the largest burst is a number, its time too.
const _: () = assert!(RATE_BURST_NS_MIN <= RATE_PER_NS_MIN && RATE_PER_NS_MAX <= RATE_BURST_NS_MAX);
const _: () = assert!(RATE_BURST_NS_MAX / RATE_PER_NS_MIN <= u64::MAX / RATE_TOKENS_MAX);
const _: () = assert!(RATE_TOKEN_WHOLE_NS_MIN > 0 && RATE_BURST_NS_MAX < u64::MAX / 2);

/// Networks that a process remembers to have used up something of a limit. Beyond: the one that will have paid soonest is forgotten.
pub const RATE_ADDRESSES_MAX: usize = 1 << 18;

/// Tables that these are spread over, each behind a lock of its own.
pub const RATE_ADDRESS_TABLES: usize = 64;

/// Clients and accounts that one shard remembers to have used up something of a limit. Beyond: as above.
pub const RATE_WHO_MAX: usize = 1 << 20;

/// How long a whole burst of a client or an account takes to come, at least, for what is used up of it to outlive a restart. With less
/// a restart costs whoever waits for it more than the burst gives.
pub const RATE_KEPT_MS: u64 = 60_000;

/// Into so many parts a burst is divided: what is used up is written down that far ahead, so that many times per burst at most. More
/// parts are more writing, fewer cost whoever is limited more after a crash.
pub const RATE_KEPT_PARTS: u64 = 16;

/// Limits of clients and accounts of one shard of which it is written down how far they are used up: 50 MB, and half of that on disk.
/// Beyond: the one that is whole again first is as after no restart at all.
pub const RATE_KEPT_MAX: usize = 1 << 18;

const _: () = assert!(RATE_KEPT_PARTS > 0 && RATE_KEPT_PARTS < RATE_KEPT_MS && RATE_KEPT_MAX <= RATE_WHO_MAX);

/// How long the log is silent about a limit that it has written about.
pub const RATE_QUIET_MS: u64 = 10_000;

/// How long a handshake waits at most for its turn among those that are limited: half of the time that it has. Beyond: closed.
pub const RATE_HANDSHAKE_WAIT_MS: u64 = super::HANDSHAKE_TIME_MS / 2;

const _: () =
    assert!(RATE_ADDRESS_TABLES.is_power_of_two() && RATE_ADDRESSES_MAX.is_multiple_of(RATE_ADDRESS_TABLES));

// --- In front of a listener ---

/// Bytes of a PROXY header of version 1, its line end included: the longest there is, by the specification. Beyond: closed.
pub const PROXY_LINE_BYTES_MAX: usize = 107;

/// Bytes behind the first 16 of a PROXY header of version 2. Two addresses take 216 at most; the rest is for what a proxy says of
/// TLS, names and tenants, which we skip. Beyond: closed at the length's first byte that says so.
pub const PROXY_BLOCK_BYTES_MAX: usize = 2_048;

/// Bytes of either.
pub const PROXY_HEADER_BYTES_MAX: usize = 16 + PROXY_BLOCK_BYTES_MAX;
const _: () = assert!(PROXY_LINE_BYTES_MAX <= PROXY_HEADER_BYTES_MAX);

/// Networks that may say who connects. They are looked through one after the other for each connection. Beyond: the
/// configuration is refused.
pub const TRUSTED_NETWORKS_MAX: usize = 256;

// --- Who tries credentials ---

/// Sources, accounts, pairs of them that failed, and pairs that succeeded: entries of each that a process remembers.
/// Beyond: the one that matters least is forgotten.
pub const BACK_OFF_ENTRIES_MAX: usize = 65_536;

/// Attempts of one source that have no verdict yet: what an attacker gains by trying in parallel, and how many devices
/// behind one address are checked at a time before they are known. Beyond: wait `BACK_OFF_PENDING_MS`.
pub const BACK_OFF_SOURCE_PENDING_MAX: u16 = 16;

/// The same for one account: a fleet that shares one shares this too.
pub const BACK_OFF_ACCOUNT_PENDING_MAX: u16 = 64;

/// How soon somebody may try again who found too many attempts without a verdict.
pub const BACK_OFF_PENDING_MS: u64 = 100;

/// Failures of one source in a row that cost it nothing: a person who mistypes, a device with an old password for a while.
pub const BACK_OFF_SOURCE_FREE: u32 = 5;

/// Wait after the first failure that is not free; it doubles with each.
pub const BACK_OFF_SOURCE_FIRST_MS: u64 = 1_000;

/// Ceiling of that wait: one attempt a minute is no search, and nobody who found the right password waits longer.
pub const BACK_OFF_SOURCE_MS_MAX: u64 = 60_000;

/// Failures at one account, from wherever, after which strangers to it get one attempt per `BACK_OFF_ACCOUNT_MS`.
pub const BACK_OFF_ACCOUNT_FREE: u32 = 20;

/// Between two attempts of strangers at an account under attack: 86,400 a day.
pub const BACK_OFF_ACCOUNT_MS: u64 = 1_000;

/// Time without a failure after which failures are forgotten.
pub const BACK_OFF_FORGET_MS: u64 = 600_000;

/// How long a source that succeeded with an account is no stranger to it: devices stay connected for weeks.
pub const BACK_OFF_FAMILIAR_MS: u64 = 30 * 24 * 60 * 60 * 1_000;

/// How long an attempt may be without a verdict until it counts no more: longer than any check takes.
pub const BACK_OFF_ATTEMPT_MS: u64 = 30_000;

/// Answers of a hook that are remembered. Beyond: the one that expires soonest is forgotten, and its asker asks again.
pub const ANSWERS_MAX: usize = 65_536;

/// How long a refusal is remembered at most, so that who repairs an account is let in soon.
pub const ANSWER_NEGATIVE_MS_MAX: u64 = 5_000;

/// Failures of a hook in a row after which it is left alone.
pub const BREAKER_FAILURES_MAX: u32 = 5;

/// For how long, the first time; it doubles with each probe that fails.
pub const BREAKER_FIRST_MS: u64 = 1_000;

/// Ceiling of that: how late it may be noticed that a hook is back.
pub const BREAKER_MS_MAX: u64 = 30_000;

/// How long a probe may be without an outcome until another one is made.
pub const BREAKER_PROBE_MS: u64 = 30_000;

const _: () = assert!(BACK_OFF_SOURCE_FIRST_MS <= BACK_OFF_SOURCE_MS_MAX);
const _: () =
    assert!(BACK_OFF_SOURCE_MS_MAX < BACK_OFF_FORGET_MS && BACK_OFF_ACCOUNT_MS < BACK_OFF_FORGET_MS);
const _: () = assert!(BACK_OFF_ATTEMPT_MS < BACK_OFF_FORGET_MS && BACK_OFF_FORGET_MS < BACK_OFF_FAMILIAR_MS);
const _: () = assert!(BREAKER_FIRST_MS <= BREAKER_MS_MAX && BREAKER_FAILURES_MAX > 0);

// --- Passwords ---

/// Bytes of a user name in the password file. One byte of length is what most systems keep. Beyond: refused, never matched.
pub const USER_NAME_BYTES_MAX: usize = ACCOUNT_BYTES_MAX;

/// Bytes of a password. Passphrases and tokens fit; whoever sends 64 KiB only wants us to hash them. Beyond: refused unhashed.
pub const PASSWORD_BYTES_MAX: usize = 1_024;

/// Bytes of a line of the password file. Name, PHC string and SCRAM keys come to 700 at most. Beyond: the file is refused.
pub const PASSWORD_LINE_BYTES_MAX: usize = 1_024;

/// Bytes of a password file: a million users with both kinds. Beyond: it is not read.
pub const PASSWORD_FILE_BYTES_MAX: u64 = 256 << 20;

/// Memory that one hash may ask for. A login takes it for as long as it is verified. Beyond: the file is refused.
pub const ARGON2_MEMORY_KIB_MAX: u32 = 256 << 10;

/// Passes over that memory. With the memory above, seconds. Beyond: the file is refused.
pub const ARGON2_PASSES_MAX: u32 = 16;

/// Lanes of it. They run one after another, so more only help an attacker who has the cores. Beyond: the file is refused.
pub const ARGON2_LANES_MAX: u32 = 4;

/// Bytes of a SCRAM message: a name of 255 bytes, each escaped as three, and a nonce. Beyond: authentication fails.
pub const SCRAM_MESSAGE_BYTES_MAX: usize = 1_024;

/// Fewest iterations of a key, what RFC 7677 4 asks for. Below: the file is refused.
pub const SCRAM_ITERATIONS_MIN: u32 = 4_096;

/// Most iterations of a key: more than two seconds of a server's core, and more of a device that has to wait for it. Beyond: the file is refused.
pub const SCRAM_ITERATIONS_MAX: u32 = 10_000_000;

/// Most bytes of a salt, of either kind. 16 are enough; nobody writes more than 64. Beyond: the file is refused.
pub const PASSWORD_SALT_BYTES_MAX: usize = 64;

// --- Tokens ---

/// Bytes of a token. A password may have 64 KiB; 64 permissions of ordinary topics fit 8 KiB. Beyond: refused unread.
pub const TOKEN_BYTES_MAX: usize = 8 << 10;
/// How far the clocks of issuer and broker may differ, in seconds, where a token says from when and until when it holds.
pub const TOKEN_LEEWAY_S: u64 = 30;
/// The latest time in a token, 9999-12-31T23:59:59Z: what follows it overflows somebody's milliseconds. Beyond: refused.
pub const TOKEN_TIME_MAX_S: u64 = 253_402_300_799;
/// Names in one object of a token or a key file: each is compared with those before it. Beyond: refused.
pub const TOKEN_NAMES_MAX: usize = 64;
/// Bytes of an account, a group or a key's id: one byte of length in what stores them. Beyond: refused.
pub const TOKEN_TEXT_BYTES_MAX: usize = ACCOUNT_BYTES_MAX;
/// Groups of a token. Beyond: refused.
pub const TOKEN_GROUPS_MAX: usize = 32;
/// Permissions of a token, each of which may be looked at for each PUBLISH. Beyond: refused.
pub const TOKEN_PERMISSIONS_MAX: usize = 64;
/// Keys that are tried for one token: a stranger's CONNECT costs at most this many verifications. Later keys are not tried.
pub const TOKEN_KEYS_TRIED_MAX: usize = 8;
/// Keys of all files. Beyond: the files are refused.
pub const TOKEN_KEYS_MAX: usize = 64;
/// Bytes of one key file: 64 RSA keys of 4,096 bits with their certificates fit. Beyond: refused.
pub const TOKEN_KEY_FILE_BYTES_MAX: usize = 1 << 20;
/// The smallest RSA key, in bits [RFC 7518 3.3].
pub const TOKEN_RSA_BITS_MIN: usize = 2_048;
/// The largest RSA key, in bits: verification grows with the square. Beyond: refused.
pub const TOKEN_RSA_BITS_MAX: usize = 4_096;
/// Verified tokens that one shard remembers. The oldest half goes first.
pub const TOKENS_SEEN_MAX: usize = 65_536;
/// Bytes that these may hold, by their own count: tokens differ in size by a factor of fifty. The oldest half goes first.
pub const TOKENS_SEEN_BYTES_MAX: usize = 32 << 20;

// --- Rules ---

/// Rules in one file. At 100 to 200 bytes each that is below 200 MB. Beyond: the file is refused.
pub const RULES_MAX: usize = 1_000_000;
/// Bytes of a rule file: room for `RULES_MAX` rules of 256 bytes, and positions fit in 32 bits. Beyond: refused.
pub const RULE_FILE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bytes of a line: the longest string of the protocol and what stands around it. Beyond: refused.
pub const RULE_LINE_BYTES_MAX: usize = 66_000;
/// Bytes of a name or filter in a rule: the longest string of the protocol, and 16 bits for its length.
pub const RULE_NAME_BYTES_MAX: usize = 65_535;
/// Levels of a rule's filter: bounds the depth of every walk over the rules. Beyond: refused.
pub const RULE_LEVELS_MAX: usize = 32;
/// Members of all groups together, each counted once per group. Beyond: the file is refused.
pub const GROUP_MEMBERS_MAX: usize = 1_000_000;
/// Groups that one account is a member of: each costs a walk per decision. Beyond: the file is refused.
pub const GROUPS_PER_ACCOUNT_MAX: usize = 64;
/// Steps (groups looked up, nodes visited) of one decision. Beyond: refused, as if denied.
pub const RULE_STEPS_MAX: u32 = 4_096;
/// Topic filters that one token grants. Beyond: the token is refused.
pub const GRANTS_MAX: usize = 64;
/// Bytes of all topic filters that one token grants, held per connection. Beyond: the token is refused.
pub const GRANT_BYTES_MAX: usize = 4_096;

const _: () = assert!(GRANT_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(RULE_NAME_BYTES_MAX <= u16::MAX as usize && RULE_NAME_BYTES_MAX < RULE_LINE_BYTES_MAX);
const _: () = assert!(RULE_LEVELS_MAX < 64, "one bit per level in a word");

// --- The site's own service ---

/// Bytes of its answer's body. Every bound of what is in it, filled, fits. Beyond: the client is refused, as if there were
/// no answer.
pub const HOOK_ANSWER_BYTES_MAX: u64 = 64 << 10;

/// Bytes of its answer's status line and headers. Beyond: as above.
pub const HOOK_HEADER_BYTES_MAX: usize = 16 << 10;

/// Bytes of its URL. Beyond: the settings are refused.
pub const HOOK_URL_BYTES_MAX: usize = 2 << 10;

/// Bytes of the secret that we show it. A signed token has about 1 KiB; it is sent in one header, out of one buffer.
/// Beyond: the settings are refused.
pub const HOOK_BEARER_BYTES_MAX: usize = 4 << 10;

/// Connections to it that wait for the next question, at most.
pub const HOOK_IDLE_CONNECTIONS_MAX: usize = 16;

/// How long one waits. Less than the 5 s after which widespread servers close it themselves: a question sent as they do is
/// lost.
pub const HOOK_IDLE_MS_MAX: u64 = 4_000;

/// Addresses of its name that are tried; the first half the time, each other half of what the one before it had.
pub const HOOK_ADDRESSES_MAX: usize = 8;

/// Characters of a cause that names what others said (of a certificate, of the kernel).
pub const HOOK_CAUSE_CHARACTERS_MAX: usize = 200;

/// Groups of a client. Beyond: refused, as if there were no answer.
pub const HOOK_GROUPS_MAX: usize = 32;

/// Filters with permissions of a client. Beyond: as above.
pub const HOOK_PERMISSIONS_MAX: usize = 64;

/// Bytes of an account, and of a group. Beyond: as above.
pub const HOOK_NAME_BYTES_MAX: usize = ACCOUNT_BYTES_MAX;
