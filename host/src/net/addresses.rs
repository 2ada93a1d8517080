//! Which addresses may be dialled.
//!
//! Only public unicast addresses are, unless the operator admits more. The rule is applied to the address that is about to be
//! dialled and not to the name, so that no spelling of a name and no answer of a DNS server gets around it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::endpoint::Endpoint;

/// Why an address is not dialled unless an operator admits it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressClass {
    /// `0.0.0.0/8` and `::`: reaches this machine on many systems (RFC 1122 section 3.2.1.3).
    Unspecified,
    /// `127.0.0.0/8` and `::1`.
    Loopback,
    /// `10/8`, `172.16/12`, `192.168/16` (RFC 1918), `fc00::/7` (RFC 4193) and the retired `fec0::/10`.
    Private,
    /// `169.254/16` (RFC 3927) and `fe80::/10`.
    LinkLocal,
    /// An address where a cloud gives its machines their credentials.
    Metadata,
    /// `100.64/10`: behind a carrier's translator (RFC 6598).
    Shared,
    /// `198.18/15` (RFC 2544) and `2001:2::/48`.
    Benchmarking,
    /// `192.0.0/24` and `2001::/23`, kept for protocols (RFC 6890).
    Protocol,
    /// Examples in documents (RFC 5737, RFC 3849, RFC 9637).
    Documentation,
    /// Multicast and broadcast.
    Multicast,
    /// Not given out: `240/4`, and what is outside `2000::/3` in IPv6.
    Reserved,
    /// Carries an IPv4 address inside (IPv4-compatible, 6to4, Teredo, NAT64 of one network): where it ends is decided by others.
    Tunnel,
}

impl fmt::Display for AddressClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unspecified => "an unspecified address",
            Self::Loopback => "a loopback address",
            Self::Private => "a private address",
            Self::LinkLocal => "a link-local address",
            Self::Metadata => "a cloud metadata address",
            Self::Shared => "an address behind a carrier's translator",
            Self::Benchmarking => "a benchmarking address",
            Self::Protocol => "an address kept for protocols",
            Self::Documentation => "a documentation address",
            Self::Multicast => "a multicast address",
            Self::Reserved => "a reserved address",
            Self::Tunnel => "an IPv6 address that carries an IPv4 address",
        })
    }
}

/// The class of an address that is not public, or `None` for a public one.
///
/// An IPv4-mapped address (RFC 4291 section 2.5.5.2) and one under the well-known NAT64 prefix `64:ff9b::/96` (RFC 6052) have
/// the class of the IPv4 address inside.
pub fn class(address: IpAddr) -> Option<AddressClass> {
    match address {
        IpAddr::V4(v4) => class_v4(v4),
        IpAddr::V6(v6) => class_v6(v6),
    }
}

fn class_v4(address: Ipv4Addr) -> Option<AddressClass> {
    // The wire server of Azure and the metadata services of Alibaba and Oracle lie outside 169.254/16.
    const METADATA: [[u8; 4]; 4] = [[169, 254, 169, 254], [168, 63, 129, 16], [100, 100, 100, 200], [192, 0, 0, 192]];
    if METADATA.contains(&address.octets()) {
        return Some(AddressClass::Metadata);
    }
    match address.octets() {
        [0, ..] => Some(AddressClass::Unspecified),
        [127, ..] => Some(AddressClass::Loopback),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Some(AddressClass::Private),
        [169, 254, ..] => Some(AddressClass::LinkLocal),
        [100, 64..=127, ..] => Some(AddressClass::Shared),
        [198, 18 | 19, ..] => Some(AddressClass::Benchmarking),
        [192, 0, 0, _] => Some(AddressClass::Protocol),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Some(AddressClass::Documentation),
        // The relay of 6to4 (RFC 7526).
        [192, 88, 99, _] => Some(AddressClass::Tunnel),
        [224..=239, ..] | [255, 255, 255, 255] => Some(AddressClass::Multicast),
        [240..=255, ..] => Some(AddressClass::Reserved),
        _ => None,
    }
}

fn class_v6(address: Ipv6Addr) -> Option<AddressClass> {
    const METADATA: [Ipv6Addr; 2] =
        [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];
    if METADATA.contains(&address) {
        return Some(AddressClass::Metadata);
    }
    let [.., a, b, c, d] = address.octets();
    let inside = Ipv4Addr::new(a, b, c, d);
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some(AddressClass::Unspecified),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some(AddressClass::Loopback),
        [0, 0, 0, 0, 0, 0xffff, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => class_v4(inside),
        // IPv4-compatible, IPv4-translated (RFC 2765), NAT64 of one network (RFC 8215), 6to4, Teredo.
        [0, 0, 0, 0, 0 | 0xffff, 0, _, _] | [0x64, 0xff9b, 1, ..] | [0x2001, 0, ..] | [0x2002, ..] => {
            Some(AddressClass::Tunnel)
        }
        [0x2001, 2, 0, ..] => Some(AddressClass::Benchmarking),
        [0x2001, 0..=0x1ff, ..] => Some(AddressClass::Protocol),
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Some(AddressClass::Documentation),
        [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => Some(AddressClass::Private),
        [0xfe80..=0xfebf, ..] => Some(AddressClass::LinkLocal),
        [0xff00..=0xffff, ..] => Some(AddressClass::Multicast),
        [0x2000..=0x3fff, ..] => None,
        _ => Some(AddressClass::Reserved),
    }
}

/// What an operator admits beyond public addresses.
///
/// The default admits nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressRules {
    /// Ranges, as the permissions name them. A metadata address is admitted only by a range of that one address.
    pub private: Vec<IpNet>,
    /// Addresses with a port that the operator wrote literally as an origin. They count only where the origin asked for is that
    /// literal; a name that resolves to one of them is refused.
    pub literal: BTreeSet<SocketAddr>,
}

/// An address that is not dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{address} is {class}; an operator can admit a range of addresses under `[network]` in the permissions")]
pub struct RefusedAddress {
    /// The address.
    pub address: IpAddr,
    /// What it is.
    pub class: AddressClass,
}

impl AddressRules {
    /// Admits an endpoint that the operator wrote, if it is written as an address or as `localhost`. A name admits nothing.
    pub fn admit(&mut self, endpoint: &Endpoint) {
        let addresses = endpoint.literal().unwrap_or_default();
        self.literal.extend(addresses.iter().map(|ip| SocketAddr::new(ip.to_canonical(), endpoint.port())));
    }

    /// Says whether the address may be dialled. `literal` tells that the origin asked for was written as this address.
    pub fn judge(&self, address: SocketAddr, literal: bool) -> Result<(), RefusedAddress> {
        let ip = address.ip().to_canonical();
        let Some(class) = class(ip) else { return Ok(()) };
        if literal && self.literal.contains(&SocketAddr::new(ip, address.port())) {
            return Ok(());
        }
        let admitted = self.private.iter().any(|range| {
            range.contains(&ip) && (class != AddressClass::Metadata || range.prefix_len() == range.max_prefix_len())
        });
        if admitted { Ok(()) } else { Err(RefusedAddress { address: address.ip(), class }) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn class_of(text: &str) -> Option<AddressClass> {
        class(text.parse().unwrap())
    }

    #[test]
    fn each_class_of_special_addresses_is_refused_at_its_first_and_last_address() {
        use AddressClass::*;
        let table = [
            ("0.0.0.0", Unspecified),
            ("0.255.255.255", Unspecified),
            ("::", Unspecified),
            ("127.0.0.1", Loopback),
            ("127.255.255.255", Loopback),
            ("::1", Loopback),
            ("10.0.0.0", Private),
            ("10.255.255.255", Private),
            ("172.16.0.0", Private),
            ("172.31.255.255", Private),
            ("192.168.0.0", Private),
            ("192.168.255.255", Private),
            ("fc00::", Private),
            ("fdff:ffff::1", Private),
            ("fec0::1", Private),
            ("169.254.0.0", LinkLocal),
            ("169.254.255.255", LinkLocal),
            ("fe80::1", LinkLocal),
            ("febf::1", LinkLocal),
            ("169.254.169.254", Metadata),
            ("fd00:ec2::254", Metadata),
            ("fd20:ce::254", Metadata),
            ("168.63.129.16", Metadata),
            ("100.100.100.200", Metadata),
            ("192.0.0.192", Metadata),
            ("100.64.0.0", Shared),
            ("100.127.255.255", Shared),
            ("198.18.0.0", Benchmarking),
            ("198.19.255.255", Benchmarking),
            ("2001:2::1", Benchmarking),
            ("192.0.0.0", Protocol),
            ("192.0.0.255", Protocol),
            ("2001:1ff::1", Protocol),
            ("192.0.2.1", Documentation),
            ("198.51.100.1", Documentation),
            ("203.0.113.1", Documentation),
            ("2001:db8::1", Documentation),
            ("3fff::1", Documentation),
            ("224.0.0.0", Multicast),
            ("239.255.255.255", Multicast),
            ("255.255.255.255", Multicast),
            ("ff02::1", Multicast),
            ("240.0.0.0", Reserved),
            ("255.255.255.254", Reserved),
            ("100::1", Reserved),
            ("4000::1", Reserved),
            ("5f00::1", Reserved),
            ("192.88.99.1", Tunnel),
            ("::8.8.8.8", Tunnel),
            ("::127.0.0.1", Tunnel),
            ("::ffff:0:127.0.0.1", Tunnel),
            ("64:ff9b:1::8.8.8.8", Tunnel),
            ("2002:0808:0808::1", Tunnel),
            ("2002:7f00:0001::1", Tunnel),
            ("2001::1", Tunnel),
            ("::ffff:127.0.0.1", Loopback),
            ("::ffff:169.254.169.254", Metadata),
            ("::ffff:10.1.2.3", Private),
            ("64:ff9b::10.1.2.3", Private),
            ("64:ff9b::169.254.169.254", Metadata),
            ("64:ff9b::127.0.0.1", Loopback),
        ];
        for (address, expected) in table {
            assert_eq!(class_of(address), Some(expected), "{address}");
        }
    }

    #[test]
    fn public_addresses_are_dialled_also_through_nat64() {
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700::1111",
            "2001:4860:4860::8888",
            "2a00::1",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
        ] {
            assert_eq!(class_of(address), None, "{address}");
        }
    }

    #[test]
    fn a_range_admits_its_addresses_and_their_mapped_form_and_nothing_else() {
        let rules = AddressRules { private: vec!["10.1.0.0/16".parse().unwrap()], ..AddressRules::default() };
        for (address, admitted) in [
            ("10.1.2.3:443", true),
            ("[::ffff:10.1.2.3]:443", true),
            ("10.2.0.1:443", false),
            ("[64:ff9b::10.1.2.3]:443", false),
            ("127.0.0.1:443", false),
        ] {
            assert_eq!(rules.judge(address.parse().unwrap(), false).is_ok(), admitted, "{address}");
        }
    }

    #[test]
    fn a_wide_range_does_not_admit_a_metadata_address() {
        let address = "169.254.169.254:80".parse().unwrap();
        let mut rules = AddressRules { private: vec!["0.0.0.0/0".parse().unwrap()], ..AddressRules::default() };
        assert!(rules.judge(address, false).is_err());
        rules.private.push("169.254.169.254/32".parse().unwrap());
        assert!(rules.judge(address, false).is_ok());
    }

    #[test]
    fn a_literal_is_admitted_only_as_a_literal_and_at_its_port() {
        let rules =
            AddressRules { literal: BTreeSet::from(["127.0.0.1:8080".parse().unwrap()]), ..AddressRules::default() };
        assert!(rules.judge("127.0.0.1:8080".parse().unwrap(), true).is_ok());
        assert!(rules.judge("127.0.0.1:8080".parse().unwrap(), false).is_err());
        assert!(rules.judge("127.0.0.1:8081".parse().unwrap(), true).is_err());
        assert!(rules.judge("127.0.0.2:8080".parse().unwrap(), true).is_err());
    }

    proptest! {
        #[test]
        fn an_embedded_address_is_never_judged_milder_than_itself(octets: [u8; 4]) {
            let v4 = Ipv4Addr::from(octets);
            let [a, b, c, d] = octets;
            if class_v4(v4).is_some() {
                let mapped = v4.to_ipv6_mapped();
                let compatible = Ipv6Addr::from(u128::from(u32::from(v4)));
                let nat64 = Ipv6Addr::from((0x64_ff9b_u128 << 96) | u128::from(u32::from(v4)));
                let six_to_four = Ipv6Addr::from([0x20, 0x02, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
                for v6 in [mapped, compatible, nat64, six_to_four] {
                    prop_assert!(class(IpAddr::V6(v6)).is_some(), "{}", v6);
                }
            }
        }
    }
}
