//! The subscription identifiers of a queue entry in 32 bits: none, one in place, or a handle to several.

use slab::Slab;

const SEVERAL: u32 = 1 << 31;

/// Lists of two or more identifiers, which only overlapping subscriptions of one session make.
#[derive(Debug, Default)]
pub(super) struct SubscriptionIds {
    lists: Slab<Box<[u32]>>,
}

impl SubscriptionIds {
    /// A handle for those identifiers; to be released when the entry goes.
    pub(super) fn intern(&mut self, ids: &[u32]) -> u32 {
        match ids {
            [] => 0,
            [id] => *id,
            _ => {
                SEVERAL
                    | u32::try_from(self.lists.insert(ids.into())).expect("fewer lists than queue entries")
            }
        }
    }

    /// The identifiers behind a handle.
    pub(super) fn resolve<'a>(&'a self, handle: &'a u32) -> &'a [u32] {
        match *handle {
            0 => &[],
            several if several & SEVERAL != 0 => &self.lists[(several & !SEVERAL) as usize],
            _ => std::slice::from_ref(handle),
        }
    }

    /// The entry is gone.
    pub(super) fn release(&mut self, handle: u32) {
        if handle & SEVERAL != 0 {
            self.lists.remove((handle & !SEVERAL) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_resolves_to_what_was_interned_until_it_is_released() {
        let mut ids = SubscriptionIds::default();
        let several = ids.intern(&[7, 268_435_455]);
        assert_eq!(ids.resolve(&several), [7, 268_435_455]);
        let one = ids.intern(&[268_435_455]);
        assert_eq!(ids.resolve(&one), [268_435_455]);
        let none = ids.intern(&[]);
        assert_eq!(ids.resolve(&none), [0_u32; 0]);
        [one, none, several].into_iter().for_each(|handle| ids.release(handle));
        assert!(ids.lists.is_empty());
    }
}
