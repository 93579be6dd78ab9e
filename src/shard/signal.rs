//! The doorbell's decision: when does a sender have to wake the receiving shard.
//!
//! One [`Signal`] per shard, shared by all. A sender posts its bit *after* its batch is in the ring; the receiver
//! takes the bits and then drains those rings. A system call is paid only if the receiver has published that it is
//! about to wait. Decides nothing else; called by `mesh`.
//!
//! Why no wake-up is lost: the sender does {bit, fence, read `asleep`}, the receiver does {`asleep`, fence, read bits}.
//! With both fences sequentially consistent at least one of the two sees the other's write, so either the receiver
//! does not wait or the sender rings. The test below lets loom try every interleaving and every permitted reordering:
//! `RUSTFLAGS="--cfg loom" cargo test --release --lib shard::signal`.

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use crate::ids::ShardId;
use crate::limits::SHARDS_MAX;

const _: () = assert!(SHARDS_MAX <= u64::BITS as usize, "one bit per sender");

/// Which shards have posted something for this one, and whether it waits for that.
#[derive(Debug)]
pub struct Signal {
    pending: AtomicU64,
    asleep: AtomicBool,
}

impl Default for Signal {
    fn default() -> Self {
        Signal { pending: AtomicU64::new(0), asleep: AtomicBool::new(false) }
    }
}

impl Signal {
    /// Sender: a batch of `from` is in its ring. Returns whether to ring.
    #[must_use]
    pub fn post(&self, from: ShardId) -> bool {
        // Release: who takes the bit sees the batch.
        self.pending.fetch_or(1 << from.0, Ordering::Release);
        fence(Ordering::SeqCst);
        // Of several senders that find the receiver asleep, the first rings.
        self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed)
    }

    /// Receiver: the bits posted since the last call.
    pub fn take(&self) -> u64 {
        if self.pending.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        self.pending.swap(0, Ordering::Acquire)
    }

    /// Receiver: about to wait. False: something is there, do not.
    #[must_use]
    pub fn fall_asleep(&self) -> bool {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.pending.load(Ordering::Relaxed) == 0 {
            return true;
        }
        self.asleep.store(false, Ordering::Relaxed);
        false
    }

    /// Receiver: the wait is over.
    pub fn wake_up(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_post_to_a_sleeper_rings() {
        let signal = Signal::default();
        assert!(!signal.post(ShardId(1)), "it is awake");
        assert!(!signal.fall_asleep(), "something is there");
        assert_eq!(signal.take(), 1 << 1);
        assert!(signal.fall_asleep());
        assert!(signal.post(ShardId(0)));
        assert!(!signal.post(ShardId(63)));
        signal.wake_up();
        assert_eq!(signal.take(), 1 | 1 << 63);
        assert_eq!(signal.take(), 0);
    }
}

#[cfg(all(test, loom))]
mod model {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// The ring is a counter here, the doorbell another; whoever would wait with a batch in the ring and an unrung
    /// doorbell would wait for ever.
    fn nobody_sleeps_on_a_batch(senders: u16) {
        let signal = Arc::new(Signal::default());
        let ring = Arc::new(AtomicU32::new(0));
        let bell = Arc::new(AtomicU32::new(0));
        let threads: Vec<_> = (0..senders)
            .map(|from| {
                let (signal, ring, bell) = (signal.clone(), ring.clone(), bell.clone());
                loom::thread::spawn(move || {
                    ring.fetch_add(1, Ordering::Relaxed);
                    if signal.post(ShardId(from)) {
                        bell.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let mut drained = 0;
        if signal.take() != 0 {
            drained = ring.swap(0, Ordering::Relaxed);
        }
        let waits = signal.fall_asleep();
        for thread in threads {
            thread.join().expect("the sender ended");
        }
        assert!(drained <= u32::from(senders));
        if waits && drained < u32::from(senders) {
            assert!(bell.load(Ordering::Relaxed) > 0, "a batch is there, the receiver waits, nobody rang");
        }
        signal.wake_up();
        if signal.take() != 0 {
            drained += ring.swap(0, Ordering::Relaxed);
        }
        assert_eq!(drained, u32::from(senders), "a bit stands for every batch that was not taken");
    }

    #[test]
    fn one_sender_never_leaves_the_receiver_asleep() {
        loom::model(|| nobody_sleeps_on_a_batch(1));
    }

    #[test]
    fn two_senders_never_leave_the_receiver_asleep() {
        // Three threads without a bound take hours; every known bug of this kind shows within three preemptions.
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| nobody_sleeps_on_a_batch(2));
    }
}
