//! What all shards draw from: the buckets of addresses, of listeners, and of all together.
//!
//! Those of listeners and of all are one word each, taken from without a lock. Those of addresses are in tables behind locks,
//! which only a process that has limits for addresses ever takes, each for some tens of nanoseconds: an address is in one of
//! [`ADDRESS_TABLES`], so shards seldom meet.

use std::hash::Hasher;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use siphasher::sip::SipHasher13;

use super::{Buckets, Limits, Rates, Scope, SharedBucket, WHATS, What};
use crate::limits::{RATE_ADDRESS_TABLES, RATE_ADDRESSES_MAX};
use crate::time::Nanos;

/// See the module documentation.
#[derive(Debug)]
pub struct Shared {
    rates: Rates,
    all: [SharedBucket; WHATS.len()],
    listeners: Vec<[SharedBucket; WHATS.len()]>,
    /// Of each limit that addresses have: a table is for one rate.
    addresses: [Vec<Mutex<Buckets>>; WHATS.len()],
    key: [u8; 16],
}

impl Shared {
    /// All of them full. `key` is as random as can be had: who connects chooses addresses.
    pub fn new(rates: Rates, key: [u8; 16]) -> Shared {
        let row = |_: &Limits| std::array::from_fn(|_| SharedBucket::default());
        let each = RATE_ADDRESSES_MAX / RATE_ADDRESS_TABLES;
        Shared {
            all: std::array::from_fn(|_| SharedBucket::default()),
            listeners: rates.by_listener.iter().map(row).collect(),
            addresses: WHATS.map(|what| {
                let limit = rates.by_scope[Scope::Address as usize][what as usize];
                let tables = limit.map_or(0, |_| RATE_ADDRESS_TABLES);
                (0..tables).map(|_| Mutex::new(Buckets::new(each))).collect()
            }),
            rates,
            key,
        }
    }

    /// What is limited.
    pub fn rates(&self) -> &Rates {
        &self.rates
    }

    /// Of the network that an address is in; `None` for who has none: a process of this host.
    pub fn address(&self, address: IpAddr) -> Option<u64> {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        match address.to_canonical() {
            address if address.is_unspecified() => return None,
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.rates.prefix_v4)).unwrap_or(0);
                hasher.write_u8(4);
                hasher.write_u32(address.to_bits() & mask);
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.rates.prefix_v6)).unwrap_or(0);
                hasher.write_u8(6);
                hasher.write_u128(address.to_bits() & mask);
            }
        }
        Some(hasher.finish())
    }

    /// A keyed hash of a name.
    pub fn name(&self, parts: [&str; 2]) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        for part in parts {
            hasher.write(part.as_bytes());
            // No text has this byte.
            hasher.write_u8(0xFF);
        }
        hasher.finish()
    }

    /// Pays, if there is enough; else says when there will be.
    pub(super) fn take(
        &self,
        scope: Scope,
        what: What,
        (address, listener): (Option<u64>, u32),
        cost: u64,
        now: Nanos,
    ) -> Result<(), Nanos> {
        let Some(rate) = self.rates.of(scope, what, listener) else { return Ok(()) };
        match scope {
            Scope::Global => self.all[what as usize].take(&rate, cost, now),
            Scope::Listener => self.listeners[listener as usize][what as usize].take(&rate, cost, now),
            Scope::Address => match address {
                Some(address) => {
                    self.with_address(address, what, |buckets, key| buckets.take(key, &rate, cost, now))
                }
                None => Ok(()),
            },
            Scope::Client | Scope::Account => unreachable!("these belong to one shard"),
        }
    }

    /// Pays; says until when to wait, if there was not enough.
    pub(super) fn take_with_debt(
        &self,
        scope: Scope,
        what: What,
        (address, listener): (Option<u64>, u32),
        cost: u64,
        now: Nanos,
    ) -> Option<Nanos> {
        let rate = self.rates.of(scope, what, listener)?;
        match scope {
            Scope::Global => self.all[what as usize].take_with_debt(&rate, cost, now),
            Scope::Listener => {
                self.listeners[listener as usize][what as usize].take_with_debt(&rate, cost, now)
            }
            Scope::Address => self
                .with_address(address?, what, |buckets, key| buckets.take_with_debt(key, &rate, cost, now)),
            Scope::Client | Scope::Account => unreachable!("these belong to one shard"),
        }
    }

    fn with_address<T>(&self, address: u64, what: What, act: impl FnOnce(&mut Buckets, u64) -> T) -> T {
        let table = &self.addresses[what as usize][address as usize % RATE_ADDRESS_TABLES];
        // A thread that ended while it had this has not left half of anything.
        let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut table, address)
    }
}
