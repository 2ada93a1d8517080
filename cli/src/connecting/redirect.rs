//! Where a provider sends browsers back to.

use clawcoil::provider::{Loopback, LoopbackHost, Provider};
use url::Url;

use crate::serve::Origins;

/// A provider that sends nobody back to this host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{provider} sends browsers back to https addresses only, and this host is reached at {origin}: serve it behind TLS and say so with --public-url https://…"
)]
pub(crate) struct NoRedirect {
    provider: String,
    origin: String,
}

/// The redirect address of a provider for this host, as it must be registered there.
///
/// On https it is the public address. On loopback the host is written as the provider wants it (RFC 8252 section 7.3): a
/// browser that comes back to `localhost` is led to the address under which it knows this host.
pub(crate) fn redirect_uri(entry: &Provider, origins: &Origins) -> Result<Url, NoRedirect> {
    let mut url = origins.url(&format!("/callback/{}", entry.id));
    if url.scheme() == "https" {
        return Ok(url);
    }
    let host = match &entry.loopback {
        Loopback::AnyPort(host) | Loopback::Port(host, _) if origins.is_loopback() => host,
        Loopback::AnyPort(_) | Loopback::Port(..) | Loopback::Refused => {
            return Err(NoRedirect { provider: entry.name.clone(), origin: origins.origin() });
        }
    };
    let host = match host {
        LoopbackHost::Address => "127.0.0.1",
        LoopbackHost::Name => "localhost",
    };
    // A loopback URL has a host that can be replaced.
    let _ = url.set_host(Some(host));
    Ok(url)
}

#[cfg(test)]
mod tests {
    use clawcoil::provider::Catalogue;

    use super::*;

    fn redirect(loopback: Loopback, public: &str) -> Result<String, NoRedirect> {
        let mut entry = Catalogue::builtin().unwrap().get(&"google".parse().unwrap()).unwrap().clone();
        entry.loopback = loopback;
        redirect_uri(&entry, &Origins::new(public.parse().unwrap(), [])).map(String::from)
    }

    #[test]
    fn a_public_host_has_one_address_for_each_provider() {
        for loopback in [Loopback::Refused, Loopback::Port(LoopbackHost::Name, 8976)] {
            let found = redirect(loopback, "https://skills.example.com");
            assert_eq!(found.unwrap(), "https://skills.example.com/callback/google");
        }
    }

    #[test]
    fn on_loopback_the_host_is_written_as_the_provider_wants_it() {
        let found = |loopback| redirect(loopback, "http://127.0.0.1:8418").unwrap();
        assert_eq!(found(Loopback::AnyPort(LoopbackHost::Address)), "http://127.0.0.1:8418/callback/google");
        assert_eq!(found(Loopback::Port(LoopbackHost::Name, 8976)), "http://localhost:8418/callback/google");
    }

    #[test]
    fn without_tls_a_provider_that_wants_https_is_refused_and_so_is_every_address_off_loopback() {
        assert!(redirect(Loopback::Refused, "http://127.0.0.1:8418").is_err());
        assert!(redirect(Loopback::AnyPort(LoopbackHost::Address), "http://skills.example.com").is_err());
    }
}
