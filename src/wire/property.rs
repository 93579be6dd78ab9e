//! The properties of MQTT 5: identifiers, types, and where each may stand.

/// A validated run of properties, without the length in front, borrowed from a packet.
///
/// `hop` remembers whether the run holds properties that belong to one hop only (message expiry 0x02, subscription
/// identifier 0x0B, will delay 0x18, topic alias 0x23); if not, the run is forwarded as one slice.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Properties<'a> {
    pub(super) raw: &'a [u8],
    pub(super) hop: bool,
}

impl<'a> Properties<'a> {
    /// No properties.
    pub const EMPTY: Properties<'static> = Properties { raw: &[], hop: false };

    /// Trusts that `raw` was taken from [`Properties::forwarded`] of a decoded packet; used for what was stored.
    pub fn from_stored(raw: &'a [u8]) -> Properties<'a> {
        Properties { raw, hop: false }
    }
}
