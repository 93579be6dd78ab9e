//! What a token allows: topic filters with publish and subscribe (RFC 9431, section 3, AIF-MQTT).
//!
//! Made when a token is checked, kept with its connection, asked for each publish and subscription. The filters stand in
//! one text. There are few, so they are compared one by one; nothing is denied, and none of them allows nothing. `%u` and
//! `%c` are levels like any other: who made the token knew whom it was for.

use crate::limits::{GRANT_BYTES_MAX, GRANTS_MAX};

use super::Action;
use super::filter::{check, covers};
use crate::wire::topic::matches;

/// See the module.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Grants {
    filters: Box<str>,
    list: Box<[Grant]>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Grant {
    /// Where its filter ends, and the next begins.
    end: u16,
    publish: bool,
    subscribe: bool,
}

impl Grants {
    /// Takes filters with whether they may be published and subscribed to; says what is wrong with them.
    pub fn new<'a>(list: impl IntoIterator<Item = (&'a str, bool, bool)>) -> Result<Grants, String> {
        let (mut filters, mut grants) = (String::new(), Vec::new());
        for (filter, publish, subscribe) in list {
            if grants.len() == GRANTS_MAX {
                return Err(format!("more than {GRANTS_MAX} topic filters"));
            }
            if filters.len() + filter.len() > GRANT_BYTES_MAX {
                return Err(format!("topic filters of more than {GRANT_BYTES_MAX} bytes"));
            }
            check(filter).map_err(|fault| fault.cause)?;
            filters.push_str(filter);
            let end = u16::try_from(filters.len()).expect("a const assertion says that the limit fits");
            grants.push(Grant { end, publish, subscribe });
        }
        Ok(Grants { filters: filters.into_boxed_str(), list: grants.into_boxed_slice() })
    }

    /// Whether something may be done with a valid topic name or, to subscribe, a valid filter without its
    /// `$share/GROUP/`. Retained values and wills are published.
    pub fn permits(&self, action: Action, topic: &str) -> bool {
        let mut start = 0;
        self.list.iter().any(|grant| {
            let filter = &self.filters[start..usize::from(grant.end)];
            start = usize::from(grant.end);
            match action {
                Action::Subscribe => grant.subscribe && covers(filter, topic),
                Action::Publish | Action::Retain | Action::Will => grant.publish && matches(filter, topic),
            }
        })
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.filters.len() + size_of_val(&*self.list)
    }
}
