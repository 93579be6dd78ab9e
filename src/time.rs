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

impl Now {
    /// When a deadline on the wall clock comes on the other one.
    pub fn mono_at(&self, wall: UnixMs) -> Nanos {
        if wall == UnixMs::NEVER { Nanos::NEVER } else { self.mono.plus_ms(self.wall.ms_until(wall)) }
    }
}

/// A wall clock that goes on as the other one does, whatever is done to the system's.
///
/// Somebody who sets the system's clock forward must not make every message expire, nor one who sets it back keep them
/// for ever. So it is read once, at start, and never counts from before what was already written down: a clock that
/// stands too early then is taken to stand where it stood last. (That it stands too late at start cannot be told from
/// having been off for long.)
#[derive(Clone, Copy, Debug)]
pub struct SteadyClock {
    /// What the wall clock says when the other one says 0, in milliseconds.
    wall_at_zero: i128,
}

impl SteadyClock {
    /// Goes on from that reading.
    pub fn from(now: Now) -> SteadyClock {
        SteadyClock { wall_at_zero: i128::from(now.wall.0) - i128::from(now.mono.0 / 1_000_000) }
    }

    /// It is not earlier than that at that moment. Returns by how many milliseconds it was.
    pub fn is_not_before(&mut self, latest: UnixMs, now: Now) -> u64 {
        let behind = self.read(now).wall.ms_until(latest);
        self.wall_at_zero += i128::from(behind);
        behind
    }

    /// The reading, with the steady time in place of the system's.
    #[must_use]
    pub fn read(&self, now: Now) -> Now {
        let wall = self.wall_at_zero + i128::from(now.mono.0 / 1_000_000);
        Now { mono: now.mono, wall: UnixMs(u64::try_from(wall.max(0)).unwrap_or(u64::MAX)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(mono_ms: u64, wall: u64) -> Now {
        Now { mono: Nanos(mono_ms * 1_000_000), wall: UnixMs(wall) }
    }

    #[test]
    fn a_clock_that_is_set_changes_nothing() {
        let clock = SteadyClock::from(now(500, 10_000));
        for wall in [0, 11_000, u64::MAX] {
            assert_eq!(clock.read(now(1_500, wall)), now(1_500, 11_000));
        }
    }

    #[test]
    fn a_clock_that_starts_too_early_goes_on_from_what_was_written_last() {
        let start = now(u64::from(u32::MAX), 1_000);
        let mut clock = SteadyClock::from(start);
        assert_eq!(clock.is_not_before(UnixMs(90_000), start), 89_000);
        assert_eq!(clock.read(start).wall, UnixMs(90_000));
        assert_eq!(clock.is_not_before(UnixMs(50_000), start), 0);
        assert_eq!(clock.read(start).wall, UnixMs(90_000));
    }
}
