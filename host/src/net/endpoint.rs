//! Where a connection goes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::policy::{Origin, Scheme};

/// A scheme, a host and a port.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    tls: bool,
    host: Box<str>,
    port: u16,
}

/// An address that names no endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    /// Neither `http` nor `https`.
    #[error("the scheme is neither http nor https")]
    Scheme,
    /// No host.
    #[error("there is no host")]
    Host,
    /// A user name or password before the host.
    #[error("there is a user name or a password before the host")]
    UserInfo,
}

impl Endpoint {
    /// `host` as in a URI: an IPv6 literal may stand in brackets.
    pub fn new(tls: bool, host: &str, port: u16) -> Self {
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        Self { tls, host: bare.to_ascii_lowercase().into(), port }
    }

    /// The endpoint of an absolute URI.
    pub fn of(uri: &http::Uri) -> Result<Self, InvalidEndpoint> {
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(InvalidEndpoint::Scheme),
        };
        let authority = uri.authority().ok_or(InvalidEndpoint::Host)?;
        if authority.as_str().contains('@') {
            return Err(InvalidEndpoint::UserInfo);
        }
        match authority.host() {
            "" | "[]" => Err(InvalidEndpoint::Host),
            host => Ok(Self::new(tls, host, authority.port_u16().unwrap_or(if tls { 443 } else { 80 }))),
        }
    }

    /// Whether TLS is spoken.
    pub fn tls(&self) -> bool {
        self.tls
    }

    /// The host, lower-case, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The host's addresses where it needs no look-up: it is written as an address, or it is `localhost`, which is always this
    /// machine (RFC 6761 section 6.3).
    pub fn literal(&self) -> Option<Vec<IpAddr>> {
        if &*self.host == "localhost" || self.host.ends_with(".localhost") {
            return Some(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        self.host.parse().ok().map(|address| vec![address])
    }

    /// Whether the host is written as this machine: `localhost` or a loopback address.
    pub fn is_this_machine(&self) -> bool {
        self.literal().is_some_and(|addresses| addresses.iter().all(|address| address.to_canonical().is_loopback()))
    }

    /// Host and port as in a `Host` header: the port is left out where it is the scheme's own.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.to_string() };
        match (self.tls, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

impl From<&Origin> for Endpoint {
    fn from(origin: &Origin) -> Self {
        Self::new(origin.scheme() == Scheme::Https, &origin.host().to_string(), origin.port())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_read_from_a_uri_and_written_back() {
        for (uri, shown) in [
            ("https://API.example.com/x?y", "https://api.example.com"),
            ("https://api.example.com:443/", "https://api.example.com"),
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
            ("https://[2001:db8::1]/", "https://[2001:db8::1]"),
        ] {
            assert_eq!(Endpoint::of(&uri.parse().unwrap()).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn a_uri_with_userinfo_or_without_scheme_is_no_endpoint() {
        assert_eq!(Endpoint::of(&"https://a:b@example.com/".parse().unwrap()), Err(InvalidEndpoint::UserInfo));
        assert_eq!(Endpoint::of(&"/path".parse().unwrap()), Err(InvalidEndpoint::Scheme));
        assert_eq!(Endpoint::of(&"ftp://example.com/".parse().unwrap()), Err(InvalidEndpoint::Scheme));
    }
}
