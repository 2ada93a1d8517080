//! Where a request goes: scheme, host and port.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Why a text is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidOrigin(pub(super) &'static str);

/// How a server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// In the clear; for loopback only.
    Http,
    /// With TLS.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that is meant where none is written.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// A server by name or by address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A DNS name: ASCII, lower case, without a dot at the end.
    Name(Box<str>),
    /// An address, written as such.
    Address(IpAddr),
}

impl Host {
    /// Whether this is this machine itself: `localhost`, a name under it, or a loopback address.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Name(name) => &**name == "localhost" || name.ends_with(".localhost"),
            Self::Address(address) => address.is_loopback(),
        }
    }
}

impl FromStr for Host {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(InvalidOrigin("an IPv6 address ends with `]`"))?;
            // A zone (`%eth0`) is not part of what the standard library reads as an address.
            let address: Ipv6Addr = inner.parse().map_err(|_| InvalidOrigin("this is not an IPv6 address"))?;
            return Ok(Self::Address(address.into()));
        }
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Ok(Self::Address(address.into()));
        }
        name(text).map(Self::Name)
    }
}

fn name(text: &str) -> Result<Box<str>, InvalidOrigin> {
    if text.is_empty() {
        return Err(InvalidOrigin("the host is missing"));
    }
    if !text.is_ascii() {
        return Err(InvalidOrigin("a host is written in ASCII; an international name in its `xn--` form"));
    }
    if text.ends_with('.') {
        return Err(InvalidOrigin("a host has no dot at its end"));
    }
    if text.len() > 253 || text.split('.').any(|label| label.is_empty() || label.len() > 63) {
        return Err(InvalidOrigin("each part of a host name has 1 to 63 characters, the whole at most 253"));
    }
    let good = |label: &str| {
        label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if !text.split('.').all(good) {
        return Err(InvalidOrigin("a host name has only letters, digits, dots, and hyphens inside"));
    }
    // Resolvers and browsers read `127.1`, `0x7f.1` and `2130706433` as addresses.
    let last = text.rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    if last.bytes().all(|b| b.is_ascii_digit()) || hex.is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit())) {
        return Err(InvalidOrigin("this is neither a host name nor an IPv4 address of four plain numbers"));
    }
    Ok(text.to_ascii_lowercase().into())
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// Scheme, host and port; `http` only where the host is loopback.
///
/// Parsing is strict: no user name, no path, no international characters, no port 0, nothing that another program might
/// read as another host. The default port may be written and is dropped.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    scheme: Scheme,
    host: Host,
    port: u16,
}

impl Origin {
    /// How the server is spoken to.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The server.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Puts an origin together from its written parts; a missing port is the scheme's own.
    pub(super) fn from_parts(scheme: &str, host: &str, port: Option<&str>) -> Result<Self, InvalidOrigin> {
        let scheme = match scheme {
            "https" => Scheme::Https,
            "http" => Scheme::Http,
            _ => return Err(InvalidOrigin("an origin begins with `https://`")),
        };
        let host: Host = host.parse()?;
        let port = match port {
            None => scheme.default_port(),
            Some(port) => parse_port(port)?,
        };
        if scheme == Scheme::Http && !host.is_loopback() {
            return Err(InvalidOrigin("plain http is for loopback only; write https"));
        }
        Ok(Self { scheme, host, port })
    }
}

fn parse_port(text: &str) -> Result<u16, InvalidOrigin> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    let port = if plain { text.parse().ok() } else { None };
    port.ok_or(InvalidOrigin("a port is a number from 1 to 65535"))
}

/// Splits `host:port`; an IPv6 address keeps its brackets.
pub(super) fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

impl FromStr for Origin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let (scheme, rest) = text.split_once("://").ok_or(InvalidOrigin("an origin begins with `https://`"))?;
        if rest.contains('@') {
            return Err(InvalidOrigin("an origin has no user name or password"));
        }
        if rest.contains('*') {
            return Err(InvalidOrigin("`*` can't stand here; write the host in full"));
        }
        if rest.contains(['/', '?', '#', '\\']) {
            return Err(InvalidOrigin("an origin ends after the host and port: no path, no final slash"));
        }
        let (host, port) = split_port(rest);
        Self::from_parts(scheme, host, port)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.host)?;
        if self.port == self.scheme.default_port() { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_origin_is_shown_as_it_is_compared() {
        for (text, shown) in [
            ("https://API.GitHub.com", "https://api.github.com"),
            ("https://api.github.com:443", "https://api.github.com"),
            ("https://api.github.com:8443", "https://api.github.com:8443"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://localhost", "http://localhost"),
            ("https://[2001:DB8::1]:8443", "https://[2001:db8::1]:8443"),
            ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
        ] {
            assert_eq!(text.parse::<Origin>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_could_be_read_as_another_host_is_no_origin() {
        for bad in [
            "",
            "*",
            "api.github.com",
            "//api.github.com",
            "ftp://api.github.com",
            "HTTPS://api.github.com",
            "https://",
            "https://:443",
            "https://a:b@c.example",
            "https://api.github.com@evil.example",
            "https://api.github.com/",
            "https://api.github.com\\@evil.example",
            "https://api.github.com#evil.example",
            "https://api.github.com.",
            "https://api..github.com",
            "https://.github.com",
            "https://-a.example",
            "https://a_b.example",
            "https://api.github.com:0",
            "https://api.github.com:",
            "https://api.github.com:+443",
            "https://api.github.com:0443",
            "https://api.github.com:65536",
            "https://api.github.com: 443",
            "https://ａpi.github.com",
            "https://api。github.com",
            "https://api%2egithub.com",
            "https://127.1",
            "https://0x7f.1",
            "https://0x7f000001",
            "https://2130706433",
            "https://0177.0.0.1",
            "https://1.2.3.4.5",
            "https://[::1",
            "https://::1",
            "https://[fe80::1%25eth0]",
            "https://[::ffff:1.2.3.4]x",
            "http://api.github.com",
            "http://127.0.0.1.example",
            "http://10.0.0.1",
            "http://localhost.example",
            "https://a b.example",
            "https://a\n.example",
        ] {
            assert!(bad.parse::<Origin>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_without_panic_and_what_parses_is_read_back_the_same(
            text in "(https?://)?[a-zA-Z0-9.:@/\\\\%\\[\\]*\u{e9}-]{0,24}(:[0-9]{0,6})?"
        ) {
            if let Ok(origin) = text.parse::<Origin>() {
                prop_assert_eq!(origin.to_string().parse::<Origin>().unwrap(), origin);
            }
        }
    }
}
