//! Whose word is taken for who connects: the networks of the proxies in front of us.
//!
//! A PROXY header is only as good as its sender, so a listener that takes them takes connections from these networks alone
//! [proxy-protocol.txt 2]. Read from the configuration; asked once per connection, by `shard`.
//!
//! Invariant: an IPv4 address is the same address when it is written as IPv6 (`::ffff:a.b.c.d`), in a network and in a question,
//! and is in IPv4 networks alone: `::/0` is every IPv6 address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::limits;

/// Networks. See the module documentation.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Trusted {
    networks: Vec<Network>,
}

/// A text that names no network. Its words are for the operator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrustedError {
    /// What is wrong.
    pub cause: String,
    /// What to write instead.
    pub cure: String,
}

impl fmt::Display for TrustedError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}\n  cure: {}", self.cause, self.cure)
    }
}

impl std::error::Error for TrustedError {}

impl Trusted {
    /// From texts like `10.0.0.0/8`, `2001:db8::/32` or a single address; at most [`limits::TRUSTED_NETWORKS_MAX`].
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Trusted, TrustedError> {
        let mut networks = Vec::new();
        for text in texts {
            if networks.len() == limits::TRUSTED_NETWORKS_MAX {
                return Err(TrustedError {
                    cause: format!("more than {} networks", limits::TRUSTED_NETWORKS_MAX),
                    cure: "name larger networks that hold several of these".to_owned(),
                });
            }
            networks.push(Network::parse(text)?);
        }
        Ok(Trusted { networks })
    }

    /// As they could be written.
    pub fn texts(&self) -> Vec<String> {
        self.networks.iter().map(|network| format!("{}/{}", network.first, network.bits)).collect()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty()
    }

    /// Whether one of the networks holds that address.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(address.to_canonical()))
    }
}

/// Addresses whose first `bits` bits are those of `first`, and all others of `first` are 0. `first` is canonical.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Network {
    first: IpAddr,
    bits: u32,
}

impl Network {
    fn parse(text: &str) -> Result<Network, TrustedError> {
        let wrong = |cause: String| TrustedError {
            cause,
            cure: "write an address, or a network like 10.0.0.0/8 or 2001:db8::/32".to_owned(),
        };
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let written: IpAddr =
            address.parse().map_err(|_| wrong(format!("{text:?} does not begin with an IP address")))?;
        let width = width(written);
        let written_bits = match bits {
            None => width,
            Some(bits) => {
                let is_number = !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit());
                let number = bits.parse().ok().filter(|&number: &u32| is_number && number <= width);
                number.ok_or_else(|| {
                    wrong(format!("{text:?} has no number from 0 to {width} behind the slash"))
                })?
            }
        };
        let masked = masked(written, written_bits);
        if masked != written {
            return Err(TrustedError {
                cause: format!("{text:?} is an address in a network, not the network"),
                cure: format!("write {masked}/{written_bits}, or {written} for this address alone"),
            });
        }
        // As it is no address within, a network in here has all of the 96 bits in front.
        let first = written.to_canonical();
        Ok(Network { first, bits: written_bits - (width - self::width(first)) })
    }

    fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.first.is_ipv4() && masked(address, self.bits) == self.first
    }
}

/// Bits of an address of that family.
fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { Ipv4Addr::BITS } else { Ipv6Addr::BITS }
}

/// The address with all but its first bits 0.
fn masked(address: IpAddr, bits: u32) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(Ipv4Addr::BITS - bits).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(Ipv6Addr::BITS - bits).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(network: &str, address: &str) -> bool {
        Trusted::parse([network]).expect(network).contains(address.parse().expect(address))
    }

    #[test]
    fn a_network_holds_its_addresses_and_no_others() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::ffff:9.1.2.3"),
            ("192.0.2.128/25", "192.0.2.128", "192.0.2.127"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("192.0.2.7/32", "192.0.2.7", "192.0.2.8"),
            ("0.0.0.0/0", "255.255.255.255", "2001:db8::1"),
            ("::/0", "2001:db8::1", "192.0.2.7"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("2001:db8::1", "2001:db8::1", "2001:db8::2"),
            ("2001:db8::/127", "2001:db8::1", "2001:db8::2"),
            ("::ffff:10.0.0.0/104", "10.1.2.3", "11.0.0.0"),
            ("::ffff:192.0.2.7", "192.0.2.7", "192.0.2.8"),
        ] {
            assert!(contains(network, inside), "{network} holds {inside}");
            assert!(!contains(network, outside), "{network} does not hold {outside}");
        }
        assert!(!Trusted::default().contains(Ipv4Addr::LOCALHOST.into()));
    }

    #[test]
    fn an_address_in_a_network_is_refused_and_the_network_proposed() {
        for (text, cure) in [
            ("10.1.2.3/8", "write 10.0.0.0/8, or 10.1.2.3 for this address alone"),
            ("2001:db8::1/32", "write 2001:db8::/32, or 2001:db8::1 for this address alone"),
            ("::ffff:10.0.0.1/95", "write ::fffe:0:0/95, or ::ffff:10.0.0.1 for this address alone"),
            ("1.0.0.0/0", "write 0.0.0.0/0, or 1.0.0.0 for this address alone"),
        ] {
            assert_eq!(Trusted::parse([text]).expect_err(text).cure, cure);
        }
    }

    #[test]
    fn what_names_no_network_is_refused_with_its_text() {
        for text in [
            "",
            "/",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "10.0.0/8",
            "010.0.0.0/8",
            "::/129",
            "proxy.example",
            "10.0.0.0 /8",
            "10.0.0.0/99999999999999999999",
            "[::1]",
        ] {
            let error = Trusted::parse([text]).expect_err(text);
            assert!(error.cause.contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn there_are_so_many_networks_and_no_more() {
        let texts = |count| std::iter::repeat_n("10.0.0.0/8", count);
        assert!(Trusted::parse(texts(limits::TRUSTED_NETWORKS_MAX)).is_ok());
        assert!(Trusted::parse(texts(limits::TRUSTED_NETWORKS_MAX + 1)).is_err());
    }
}
