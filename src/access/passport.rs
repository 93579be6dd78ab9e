//! What somebody who was let in has proven, and was granted beyond what everybody of that account may.
//!
//! Made by [`super::guard`], carried to the connection's home, kept by the broker for as long as the connection lives.

use super::rules::Grants;
use crate::time::UnixMs;

/// See the module documentation.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Passport {
    /// Whether the account is proven. One that is only stated is none, as far as permissions are concerned.
    pub is_proven: bool,
    /// Groups beside those of the rules.
    pub groups: Vec<Box<str>>,
    /// All that it may do, if that was said.
    pub grants: Option<Grants>,
    /// When it ends, if it does: the connection ends then.
    pub expires_at: Option<UnixMs>,
    /// What CONNACK says back.
    pub reply: Option<Box<Reply>>,
}

/// The end of an exchange of proofs, for CONNACK [MQTT-4.12.0-5].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// The authentication method.
    pub method: Box<str>,
    /// Its last data.
    pub data: Box<[u8]>,
}

/// Of somebody who has proven nothing.
pub static UNPROVEN: Passport =
    Passport { is_proven: false, groups: Vec::new(), grants: None, expires_at: None, reply: None };

impl Passport {
    /// Whether it says no more than whether the account is proven.
    pub fn is_plain(&self) -> bool {
        self.groups.is_empty() && self.grants.is_none() && self.expires_at.is_none()
    }
}
