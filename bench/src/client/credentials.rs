//! A name and a password for servers that let nobody in without.
//!
//! Decides how they stand in a CONNECT (the name is empty, so that a server takes the client identifier for it), and what they are
//! where any will do. That a server wants some is known when it is started, and a scenario knows only its address, so the addresses
//! that do are kept here for the whole program: `server` adds one when it starts such a broker and takes it away when that ends;
//! `fleet` asks once for all its clients. A scenario that is about passwords gives its fleet others.
//!
//! They are added to a finished CONNECT: both are its last fields, behind a will if there is one.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Any will do where these are needed: who asks for a password here does not look at it.
pub const ANY_PASSWORD: &[u8] = b"any";

/// Bits of a CONNECT's flags.
const HAS_NAME_AND_PASSWORD: u8 = 0b1100_0000;

static ADDRESSES: Mutex<BTreeSet<SocketAddr>> = Mutex::new(BTreeSet::new());

/// Who connects to `address` brings a password from now on.
pub fn require_at(address: SocketAddr) {
    addresses().insert(address);
}

/// The server at `address` is gone; the next one there may be another.
pub fn forget(address: SocketAddr) {
    addresses().remove(&address);
}

pub fn are_required_at(address: SocketAddr) -> bool {
    addresses().contains(&address)
}

/// Adds a name and that password to the CONNECT that `packet` is.
pub fn add(packet: &mut Vec<u8>, password: &[u8]) {
    let length_end = 1 + packet[1..].iter().take_while(|byte| **byte >= 0x80).count() + 1;
    let mut body = packet.split_off(length_end);
    // The flags stand behind the protocol's name, which has its length before it, and the level.
    let flags = 2 + usize::from(u16::from_be_bytes([body[0], body[1]])) + 1;
    body[flags] |= HAS_NAME_AND_PASSWORD;
    body.extend_from_slice(&[0, 0]);
    body.extend_from_slice(&(password.len() as u16).to_be_bytes());
    body.extend_from_slice(password);
    packet.truncate(1);
    super::codec::put_variable_integer(packet, body.len());
    packet.append(&mut body);
}

/// Nothing can be half done while the lock is held.
fn addresses() -> MutexGuard<'static, BTreeSet<SocketAddr>> {
    ADDRESSES.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::codec::{Connect, Version, encode_connect};

    fn connect(version: Version, client_id: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        let connect = Connect { version, client_id, clean: true, keep_alive_s: 5, session_expiry_s: 0 };
        encode_connect(&mut packet, &connect, None);
        packet
    }

    #[test]
    fn a_connect_gets_both_flags_both_fields_and_its_new_length() {
        let mut packet = connect(Version::V311, b"me");
        add(&mut packet, ANY_PASSWORD);
        assert_eq!(packet, b"\x10\x15\x00\x04MQTT\x04\xc2\x00\x05\x00\x02me\x00\x00\x00\x03any");
    }

    #[test]
    fn a_length_may_need_one_byte_more_than_before() {
        let mut packet = connect(Version::V5, &[b'x'; 112]);
        assert_eq!(packet[1], 125);
        add(&mut packet, ANY_PASSWORD);
        assert_eq!(packet[1..3], [0x84, 0x01]);
        assert_eq!(packet.len(), 3 + 132);
    }

    #[test]
    fn who_is_gone_needs_no_password_any_more() {
        let address: SocketAddr = "127.9.9.9:9".parse().unwrap();
        assert!(!are_required_at(address));
        require_at(address);
        assert!(are_required_at(address));
        forget(address);
        assert!(!are_required_at(address));
    }
}
