//! Time as the core sees it: two numbers handed in with every call.
//!
//! `mono` orders and measures; `wall` is written to disk and compared after a restart. Nothing below `shard/` reads a
//! clock. All arithmetic saturates: a clock that jumps may make something early or late, never wrong or negative.

/// Nanoseconds on a clock that never goes back; its zero is arbitrary and differs per start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Nanos(pub u64);

impl Nanos {
    /// Later than everything.
    pub const NEVER: Nanos = Nanos(u64::MAX);

    /// `self` plus that many milliseconds.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Nanos {
        Nanos(self.0.saturating_add(ms.saturating_mul(1_000_000)))
    }

    /// `self` plus that many seconds.
    #[must_use]
    pub fn plus_s(self, s: u64) -> Nanos {
        self.plus_ms(s.saturating_mul(1_000))
    }

    /// Milliseconds from `earlier` to `self`, rounded down, 0 if `earlier` is later.
    pub fn ms_since(self, earlier: Nanos) -> u64 {
        self.0.saturating_sub(earlier.0) / 1_000_000
    }
}

/// Milliseconds since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct UnixMs(pub u64);

impl UnixMs {
    /// Later than everything; written to disk for "does not expire".
    pub const NEVER: UnixMs = UnixMs(u64::MAX);

    /// `self` plus that many seconds.
    #[must_use]
    pub fn plus_s(self, s: u64) -> UnixMs {
        UnixMs(self.0.saturating_add(s.saturating_mul(1_000)))
    }

    /// Milliseconds from `self` to `later`, 0 if `later` is not later.
    pub fn ms_until(self, later: UnixMs) -> u64 {
        later.0.saturating_sub(self.0)
    }
}

/// One reading of both clocks, taken once per turn of a shard's loop.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// For ordering and intervals.
    pub mono: Nanos,
    /// For what outlives the process.
    pub wall: UnixMs,
}
