//! What stands between a log-in and a hook that decides it over HTTP: answers that are remembered, and a breaker that leaves
//! a hook alone which does not answer.
//!
//! [`Answers`] remembers, under a keyed hash of who asked with what, whether they were let in. No name and no password is kept,
//! not even for the time of a call; the hash is 128 bits of SipHash-2-4 under a key that never leaves the process, so nobody
//! outside can look for two logins with the same one. [`Breaker`] decides whether the hook is asked at all. Neither does I/O or
//! reads a clock: `now_ms` is milliseconds of a clock that should not go back. Called by `access` in front of the hook, and
//! with its outcome.
//!
//! Invariants: an answer is never older than its lifetime, even if the clock goes back; at most [`limits::ANSWERS_MAX`] are
//! kept; who floods with wrong passwords displaces what expires within [`limits::ANSWER_NEGATIVE_MS_MAX`] only.
//!
//! # The breaker
//!
//! | state | event | next | the hook is |
//! |---|---|---|---|
//! | closed, f failures | admit | closed, f failures | asked |
//! | closed, f failures | success | closed, 0 failures | |
//! | closed, f < 4 failures | failure | closed, f + 1 failures | |
//! | closed, 4 failures | failure | open for 1 s | |
//! | open, not over | admit | open | left alone |
//! | open, over | admit | half-open | asked once: the probe |
//! | half-open | admit | half-open | left alone |
//! | half-open, probe overdue | admit | half-open | asked: another probe |
//! | half-open | success of the probe | closed, 0 failures | |
//! | half-open | failure of the probe | open for twice as long, 30 s at most | |
//! | any | outcome of what was asked in an earlier state | the same | |

use std::collections::BTreeSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use siphasher::sip128::{Hasher128, SipHasher24};

use crate::hash::ByNumber;
use crate::limits;

/// Who asks to be let in.
#[derive(Clone, Copy)]
pub struct Login<'a> {
    /// The account. `None`: it names none, which is not the same as an empty name.
    pub username: Option<&'a str>,
    /// Its password, empty if there is none.
    pub password: &'a [u8],
    /// Of the session.
    pub client_id: &'a str,
    /// From where. `None`: a Unix socket.
    pub source: Option<IpAddr>,
    /// At which listener.
    pub listener: &'a str,
}

impl fmt::Debug for Login<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Login(..)")
    }
}

/// What the hook said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision<T> {
    /// Let in, with what it said beside that.
    Allow(T),
    /// Refused.
    Deny,
}

/// Answers that are remembered. See the module documentation.
pub struct Answers<T> {
    key: [u8; 16],
    by_login: ByNumber<Digest, Answer<T>>,
    /// Every answer once, by when it expires.
    by_end: BTreeSet<(u64, Digest)>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Digest(u128);

impl Hash for Digest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64((self.0 >> 64) as u64);
    }
}

struct Answer<T> {
    decision: Decision<T>,
    from_ms: u64,
    end_ms: u64,
}

impl<T> fmt::Debug for Answers<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Answers").field("count", &self.by_login.len()).finish_non_exhaustive()
    }
}

impl<T: Clone> Answers<T> {
    /// None yet. `key` is random and secret.
    pub fn new(key: [u8; 16]) -> Answers<T> {
        Answers { key, by_login: ByNumber::default(), by_end: BTreeSet::new() }
    }

    /// What the hook said to the same login within the time that answers are kept.
    pub fn find(&mut self, login: &Login<'_>, now_ms: u64) -> Option<Decision<T>> {
        let digest = self.digest(login);
        let answer = self.by_login.get(&digest)?;
        if (answer.from_ms..answer.end_ms).contains(&now_ms) {
            return Some(answer.decision.clone());
        }
        self.remove(digest);
        None
    }

    /// Remembers what the hook said for that long, a refusal for [`limits::ANSWER_NEGATIVE_MS_MAX`] at most.
    pub fn remember(&mut self, login: &Login<'_>, decision: Decision<T>, cache_s: u32, now_ms: u64) {
        let cache_ms = u64::from(cache_s) * 1_000;
        let digest = self.digest(login);
        self.remove(digest);
        let kept_ms = match decision {
            Decision::Allow(_) => cache_ms,
            Decision::Deny => cache_ms.min(limits::ANSWER_NEGATIVE_MS_MAX),
        };
        if kept_ms == 0 {
            return;
        }
        if self.by_login.len() == limits::ANSWERS_MAX
            && let Some(&(_, soonest)) = self.by_end.first()
        {
            self.remove(soonest);
        }
        let end_ms = now_ms.saturating_add(kept_ms);
        self.by_login.insert(digest, Answer { decision, from_ms: now_ms, end_ms });
        self.by_end.insert((end_ms, digest));
    }

    /// Forgets everything: accounts were changed.
    pub fn clear(&mut self) {
        self.by_login.clear();
        self.by_end.clear();
    }

    fn remove(&mut self, digest: Digest) {
        if let Some(answer) = self.by_login.remove(&digest) {
            self.by_end.remove(&(answer.end_ms, digest));
        }
    }

    /// Each part is hashed behind its length, so that no two logins are the same bytes.
    fn digest(&self, login: &Login<'_>) -> Digest {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        let mut add = |part: Option<&[u8]>| {
            let length = part.map_or(u64::MAX, |part| part.len() as u64);
            hasher.write(&length.to_le_bytes());
            hasher.write(part.unwrap_or_default());
        };
        add(login.username.map(str::as_bytes));
        add(Some(login.password));
        add(Some(login.listener.as_bytes()));
        add(Some(login.client_id.as_bytes()));
        match login.source.map(|source| source.to_canonical()) {
            None => add(None),
            Some(IpAddr::V4(source)) => add(Some(&source.octets())),
            Some(IpAddr::V6(source)) => add(Some(&source.octets())),
        }
        Digest(hasher.finish128().as_u128())
    }
}

/// Decides whether a hook is asked. See the table in the module documentation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Breaker {
    state: State,
    /// Counts changes of state, so that late outcomes are known.
    generation: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Closed { failures: u32 },
    Open { since_ms: u64, open_ms: u64 },
    HalfOpen { since_ms: u64, open_ms: u64 },
}

/// That the hook may be asked once. To be given back with the outcome.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "whoever asks the hook says how it went"]
pub struct Admission {
    generation: u64,
}

/// How asking went. A refusal is an answer, and a success here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The hook answered.
    Success,
    /// It did not, or not in time, or with what is no answer.
    Failure,
}

impl Default for Breaker {
    fn default() -> Breaker {
        Breaker { state: State::Closed { failures: 0 }, generation: 0 }
    }
}

impl Breaker {
    /// Whether the hook may be asked; if not, after how many milliseconds it is worth trying again.
    pub fn admit(&mut self, now_ms: u64) -> Result<Admission, u64> {
        match self.state {
            State::Closed { .. } => {}
            State::Open { since_ms, open_ms } | State::HalfOpen { since_ms, open_ms } => {
                let wait_ms = match self.state {
                    State::HalfOpen { .. } => limits::BREAKER_PROBE_MS,
                    State::Closed { .. } | State::Open { .. } => open_ms,
                };
                // A clock that went back must not keep it open: then the time is taken to be over.
                let elapsed_ms = now_ms.checked_sub(since_ms).unwrap_or(wait_ms);
                if elapsed_ms < wait_ms {
                    return Err(wait_ms - elapsed_ms);
                }
                self.become_state(State::HalfOpen { since_ms: now_ms, open_ms });
            }
        }
        Ok(Admission { generation: self.generation })
    }

    /// How asking went.
    pub fn settle(&mut self, admission: Admission, outcome: Outcome, now_ms: u64) {
        if admission.generation != self.generation {
            return;
        }
        match (self.state, outcome) {
            (State::Closed { .. }, Outcome::Success) => self.state = State::Closed { failures: 0 },
            (State::HalfOpen { .. }, Outcome::Success) => self.become_state(State::Closed { failures: 0 }),
            (State::Closed { failures }, Outcome::Failure) if failures + 1 < limits::BREAKER_FAILURES_MAX => {
                self.state = State::Closed { failures: failures + 1 };
            }
            (State::Closed { .. }, Outcome::Failure) => {
                self.become_state(State::Open { since_ms: now_ms, open_ms: limits::BREAKER_FIRST_MS });
            }
            (State::HalfOpen { open_ms, .. }, Outcome::Failure) => {
                let open_ms = (2 * open_ms).min(limits::BREAKER_MS_MAX);
                self.become_state(State::Open { since_ms: now_ms, open_ms });
            }
            // Nothing is admitted in this state, so nothing comes back from it.
            (State::Open { .. }, _) => {}
        }
    }

    fn become_state(&mut self, state: State) {
        self.state = state;
        self.generation = self.generation.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests;
