//! What is refused before anything is looked at: requests for other hosts, and of foreign pages.
//!
//! A page that someone visits can send requests to a host on loopback, and can make a name of its own resolve to it. Both are
//! seen here: the `Host` must be one of ours, and so must the `Origin` where a browser sends one.

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderValue, header};
use url::Url;

use super::{Kind, Problem, health, metrics};

/// The origins that are this host's own.
#[derive(Debug, Clone)]
pub(crate) struct Origins {
    /// As browsers and clients are told; no path.
    public: Url,
    /// `host` or `host:port`, lower case.
    hosts: Vec<String>,
}

impl Origins {
    /// The public address, and others under which the same host may be called.
    pub(crate) fn new(public: Url, others: impl IntoIterator<Item = String>) -> Self {
        let mut hosts: Vec<String> = authority(&public).into_iter().collect();
        hosts.extend(others.into_iter().map(|host| host.to_ascii_lowercase()));
        Self { public, hosts }
    }

    /// The address of a path, for someone else to open.
    pub(crate) fn url(&self, path: &str) -> Url {
        let mut url = self.public.clone();
        url.set_path(path);
        url
    }

    /// Scheme, host and port.
    pub(crate) fn origin(&self) -> String {
        self.public.origin().ascii_serialization()
    }

    /// Whether it is reached over TLS.
    pub(crate) fn is_https(&self) -> bool {
        self.public.scheme() == "https"
    }

    /// Whether nobody else hears what browsers say.
    pub(crate) fn is_private(&self) -> bool {
        self.is_https() || self.is_loopback()
    }

    /// The port, where only this machine reaches it.
    pub(crate) fn loopback_port(&self) -> Option<u16> {
        self.public.port_or_known_default().filter(|_| self.is_loopback())
    }

    /// Where a browser on this machine is led that calls the host by another of its names: cookies are kept by name.
    pub(crate) fn by_its_name(&self, host: &str, uri: &axum::http::Uri) -> Option<Url> {
        if !self.is_loopback() || authority(&self.public).is_some_and(|own| own.eq_ignore_ascii_case(host)) {
            return None;
        }
        let mut url = self.url(uri.path());
        url.set_query(uri.query());
        Some(url)
    }

    /// Whether only this machine reaches it, without TLS.
    pub(crate) fn is_loopback(&self) -> bool {
        self.public.scheme() == "http"
            && match self.public.host() {
                Some(url::Host::Ipv4(address)) => address.is_loopback(),
                Some(url::Host::Ipv6(address)) => address.is_loopback(),
                Some(url::Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
                None => false,
            }
    }

    fn is_own_host(&self, value: &HeaderValue) -> bool {
        value.to_str().is_ok_and(|host| self.hosts.iter().any(|own| own.eq_ignore_ascii_case(host)))
    }

    /// Whether a request calls this host by a name of its own, and comes from no page of another.
    pub(super) fn are_of(&self, headers: &HeaderMap) -> bool {
        let mut hosts = headers.get_all(header::HOST).iter();
        matches!((hosts.next(), hosts.next()), (Some(host), None) if self.is_own_host(host))
            && headers.get_all(header::ORIGIN).iter().all(|origin| self.is_own_origin(origin))
    }

    fn is_own_origin(&self, value: &HeaderValue) -> bool {
        let Some(url) = value.to_str().ok().and_then(|text| text.parse::<Url>().ok()) else { return false };
        url.origin() == self.public.origin()
            || (url.scheme() == self.public.scheme() && authority(&url).is_some_and(|host| self.hosts.contains(&host)))
    }
}

fn authority(url: &Url) -> Option<String> {
    let host = url.host_str()?.to_ascii_lowercase();
    Some(match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host,
    })
}

/// Lets a request through that is for this host, and of its own pages or of no page. Probes and who collects figures call by address.
pub(super) fn check(origins: &Origins, request: &Request) -> Result<(), Problem> {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    if health::ROUTES.contains(&route) || route == metrics::ROUTE {
        return Ok(());
    }
    let headers = request.headers();
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(Problem::new(Kind::BadRequest, "a request names its host once"));
    };
    if !origins.is_own_host(host) {
        return Err(Problem::new(
            Kind::Foreign,
            "this host is not called by that name; the operator names it with `serve --public-url`",
        ));
    }
    if headers.get_all(header::ORIGIN).iter().any(|origin| !origins.is_own_origin(origin)) {
        return Err(Problem::new(Kind::Foreign, "pages of other sites may not call this host"));
    }
    Ok(())
}
