//! One provider.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipnet::IpNet;
use url::Url;

use crate::id::{ProviderId, Scope};
use crate::net::{AddressRules, Endpoint};
use crate::oauth::Server;
use crate::policy::{Origin, OriginRule, Placement, ProviderFacts, Slot};

/// How an account of a provider is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A person consents in a browser.
    Oauth(Box<Server>),
    /// The agent as itself.
    ClientCredentials(Box<Server>),
    /// A key that is pasted once.
    ApiKey,
}

/// What happens to a refresh token when it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// It stays.
    None,
    /// A new one may come; the old one goes on for a while.
    Replaces,
    /// A new one comes, and the old one is dead at once.
    SingleUse,
    /// A new one comes, and the old one goes on for this long.
    Grace(Duration),
}

/// Which loopback addresses a provider accepts as redirect (RFC 8252 section 7.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loopback {
    /// On this host, at any port.
    AnyPort(LoopbackHost),
    /// On this host, at the one port that was registered.
    Port(LoopbackHost, u16),
    /// None: it wants an https address.
    Refused,
}

/// How the loopback host is written in a redirect address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoopbackHost {
    /// `127.0.0.1`.
    Address,
    /// `localhost`.
    Name,
}

/// The port of the redirect address at providers that want it registered.
pub const CALLBACK_PORT: u16 = 8976;

impl Loopback {
    /// The redirect address for a listener at this port. `None` where the provider refuses loopback, or wants another port.
    pub fn redirect(&self, provider: &ProviderId, port: u16) -> Option<Url> {
        let (host, wanted) = match self {
            Self::AnyPort(host) => (host, port),
            Self::Port(host, wanted) => (host, *wanted),
            Self::Refused => return None,
        };
        let host = host.as_str();
        if port == wanted { Url::parse(&format!("http://{host}:{port}/callback/{provider}")).ok() } else { None }
    }

    /// The port to listen at; 0 is any.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::AnyPort(_) => Some(0),
            Self::Port(_, port) => Some(*port),
            Self::Refused => None,
        }
    }

    /// What an operator registers at the provider.
    pub fn to_register(&self, provider: &ProviderId) -> Option<String> {
        match self {
            Self::AnyPort(host) => Some(format!("http://{}/callback/{provider}", host.as_str())),
            Self::Port(host, port) => Some(format!("http://{}:{port}/callback/{provider}", host.as_str())),
            Self::Refused => None,
        }
    }
}

impl LoopbackHost {
    fn as_str(self) -> &'static str {
        match self {
            Self::Address => "127.0.0.1",
            Self::Name => "localhost",
        }
    }
}

/// What is particular about one provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// Under what name grants and manifests know it.
    pub id: ProviderId,
    /// Its name for people.
    pub name: String,
    /// How its accounts are connected, and the authorization server.
    pub kind: Kind,
    /// The page where its documentation begins.
    pub documentation: Option<Url>,
    /// The page where a client is registered.
    pub register: Option<Url>,
    /// Whether the server is known to check PKCE. It is sent in any case.
    pub pkce: bool,
    /// Scopes that are always asked for, because without them there is no refresh token.
    pub always_scopes: BTreeSet<Scope>,
    /// What scopes mean, for the people who are asked for them.
    pub scope_words: BTreeMap<Scope, String>,
    /// The life of an access token whose answer does not say it; absent: it has no end.
    pub lifetime: Option<Duration>,
    /// What happens to a refresh token when it is used.
    pub rotation: Rotation,
    /// A refresh ends the old access token, so running requests finish first.
    pub drains: bool,
    /// When the grant ends, however often it is refreshed, counted from the connecting.
    pub grant_ends: Option<Duration>,
    /// When the grant ends if it is not used.
    pub idle_ends: Option<Duration>,
    /// Where its API lives.
    pub api_origins: Vec<OriginRule>,
    /// What a connection's own API origin must look like, where the token answer names one.
    pub api_origin_pattern: Option<OriginRule>,
    /// How the credential is put on a request.
    pub placement: Placement,
    /// Where a placeholder may stand.
    pub slots: Vec<Slot>,
    /// Which loopback redirect addresses it accepts.
    pub loopback: Loopback,
    /// Words for operators.
    pub note: Option<String>,
    /// The operator's stand-ins for API origins: egress dials the value where a request goes to the key.
    pub overrides: BTreeMap<Origin, Origin>,
    /// The operator's stand-in for the origin that token answers name.
    pub api_origin_override: Option<Origin>,
}

/// An API origin in a token answer that is not used: a credential would follow it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidApiOrigin {
    /// No origin at all.
    #[error("{provider}: the token answer names an API origin that is none; tell the provider")]
    Syntax {
        /// The provider.
        provider: ProviderId,
    },
    /// An origin outside the catalogue's pattern.
    #[error(
        "{provider}: the token answer names {found} as its API origin, which the catalogue does not admit ({expected}); if it is \
         right, set `api-origin-pattern` in a provider file"
    )]
    Foreign {
        /// The provider.
        provider: ProviderId,
        /// The origin.
        found: Origin,
        /// The pattern.
        expected: String,
    },
}

impl Provider {
    /// The authorization server, where there is one.
    pub fn server(&self) -> Option<&Server> {
        match &self.kind {
            Kind::Oauth(server) | Kind::ClientCredentials(server) => Some(server),
            Kind::ApiKey => None,
        }
    }

    /// The scopes to ask for so that a connection has these.
    pub fn requested_scopes(&self, scopes: &BTreeSet<Scope>) -> BTreeSet<Scope> {
        scopes.union(&self.always_scopes).cloned().collect()
    }

    /// The API origin of a connection, from what its token answer says: judged by the catalogue's pattern, or replaced by the
    /// operator's stand-in. `None` where this provider's answers name none.
    pub fn api_origin(&self, said: Option<&str>) -> Result<Option<Origin>, InvalidApiOrigin> {
        if let Some(stand_in) = &self.api_origin_override {
            return Ok(Some(stand_in.clone()));
        }
        let Some(said) = said else { return Ok(None) };
        let origin: Origin = said
            .strip_suffix('/')
            .unwrap_or(said)
            .parse()
            .map_err(|_| InvalidApiOrigin::Syntax { provider: self.id.clone() })?;
        if self.facts().admits_api_origin(&origin) {
            return Ok(Some(origin));
        }
        let expected = self.api_origin_pattern.as_ref().map_or_else(|| "it has no pattern".into(), ToString::to_string);
        Err(InvalidApiOrigin::Foreign { provider: self.id.clone(), found: origin, expected })
    }

    /// The one literal origin of the API where a connection names none: the first of the catalogue.
    pub fn default_api_origin(&self) -> Option<&Origin> {
        self.api_origin_override.as_ref().or_else(|| {
            self.api_origins.iter().find_map(|rule| match rule {
                OriginRule::Literal(origin) => Some(origin),
                OriginRule::Suffix { .. } | OriginRule::ApiOrigin => None,
            })
        })
    }

    /// Which addresses the authorization server may have: public ones, the operator's ranges, and what this provider's file
    /// names literally.
    pub fn address_rules(&self, private: &[IpNet]) -> AddressRules {
        let mut rules = AddressRules { private: private.to_vec(), ..AddressRules::default() };
        if let Some(server) = self.server() {
            let urls = [
                server.authorize.as_ref(),
                Some(&server.token),
                server.refresh.as_ref(),
                server.introspect.as_ref(),
                server.revocation.as_ref().map(|revocation| &revocation.url),
            ];
            for url in urls.into_iter().flatten() {
                let port = url.port_or_known_default().unwrap_or(443);
                rules.admit(&Endpoint::new(url.scheme() == "https", url.host_str().unwrap_or_default(), port));
            }
        }
        rules
    }

    /// What policy must know.
    pub fn facts(&self) -> ProviderFacts {
        let mut api_origins = self.api_origins.clone();
        api_origins.extend(self.api_origin_override.clone().map(OriginRule::Literal));
        ProviderFacts {
            api_origins,
            api_origin_pattern: self.api_origin_pattern.clone(),
            placement: self.placement.clone(),
            slots: self.slots.clone(),
        }
    }
}
