//! Who counts as one client, and which networks a user has named.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use serde::Deserialize;

use crate::limits::RATE_CLIENT_BITS;

/// Who counts as one client: an address. Of a public IPv6 address the network counts, because whoever
/// has one address of it has them all; neighbours in a private network are told apart.
pub(crate) fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !(v6.is_unicast_link_local() || v6.is_unique_local() || v6.is_loopback()) => {
            let host_bits = Ipv6Addr::BITS - RATE_CLIENT_BITS;
            Ipv6Addr::from_bits(v6.to_bits() >> host_bits << host_bits).into()
        }
        other => other,
    }
}

/// A network, written as `192.168.1.0/24` or `fd00::/8`; a single address is a network of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Net {
    address: IpAddr,
    bits: u32,
}

/// A word that is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a network is written as 192.168.1.0/24, fd00::/8 or 192.168.1.7: the first address, and how many bits are the network's"
)]
pub struct NetError;

impl Net {
    /// Whether the address belongs to it; an IPv4 address also in its IPv6 form.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && first(address, self.bits) == self.address
    }
}

impl FromStr for Net {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, NetError> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetError)?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => all,
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                bits.parse().ok().filter(|&bits| bits <= all).ok_or(NetError)?
            }
            Some(_) => return Err(NetError),
        };
        // Addresses are compared in their short form: a network of mapped ones is not meant.
        let is_mapped = address.to_canonical() != address;
        if is_mapped || first(address, bits) != address { Err(NetError) } else { Ok(Self { address, bits }) }
    }
}

impl TryFrom<String> for Net {
    type Error = NetError;

    fn try_from(text: String) -> Result<Self, NetError> {
        text.parse()
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// The first address of the network that has so many bits of this address.
fn first(address: IpAddr, bits: u32) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(u32::BITS.saturating_sub(bits)).unwrap_or(0);
            std::net::Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(u128::BITS.saturating_sub(bits)).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_client_is_an_address_or_a_public_network_of_ipv6() {
        for (one, other, is_same) in [
            ("192.0.2.1", "192.0.2.2", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.2", false),
            ("2001:db8::1", "2001:db8::ffff:1:2:3", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("fe80::1", "fe80::2", false),
            ("fd00::1", "fd00::2", false),
            ("::1", "::2", false),
        ] {
            assert_eq!(client_of(address(one)) == client_of(address(other)), is_same, "{one} and {other}");
        }
    }

    #[test]
    fn a_network_holds_its_addresses_and_no_others() {
        for (net, inside, outside) in [
            ("192.168.1.0/24", "192.168.1.255", "192.168.2.0"),
            ("192.168.1.0/24", "::ffff:192.168.1.9", "::ffff:192.168.0.9"),
            ("10.0.0.1", "10.0.0.1", "10.0.0.2"),
            ("0.0.0.0/0", "255.1.2.3", "::1"),
            ("::/0", "fd00::1", "10.0.0.1"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("2001:db8::7/128", "2001:db8::7", "2001:db8::8"),
        ] {
            let parsed: Net = net.parse().unwrap();
            assert!(parsed.contains(address(inside)), "{net} {inside}");
            assert!(!parsed.contains(address(outside)), "{net} {outside}");
        }
        for text in [
            "",
            "x",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "::ffff:10.0.0.0/120",
            "::/129",
        ] {
            assert_eq!(text.parse::<Net>(), Err(NetError), "{text}");
        }
    }
}
