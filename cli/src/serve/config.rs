//! `serve.toml`: what `clawcoil serve` is told beyond its flags. A flag wins over the file.
//!
//! ```toml
//! listen = "127.0.0.1:8418"                      # or "unix:/run/clawcoil.sock"
//! public_url = "https://skills.example.com"
//! return_urls = ["https://app.example.com/connected"]
//!
//! [[identity_provider]]                          # whose JWTs are taken as credentials
//! issuer = "https://login.example.com"
//! audience = "https://skills.example.com"
//! user_claim = "sub"
//! client_claim = "client_id"                     # or client = "portal", for all of them
//! scopes = ["invoke", "connect"]
//!
//! [console]                                      # sign-in by OpenID Connect
//! issuer = "https://login.example.com"
//! client_id = "clawcoil-console"
//! operators = ["ops-*"]
//!
//! [[unix]]                                       # local programs at a Unix socket, by who runs them
//! uid = 1001
//! client = "mail-agent"
//! user = "alice"
//! scopes = ["invoke"]
//!
//! [limits]
//! requests_per_minute = 600                      # of one credential
//! connections = 4096                             # of all
//! drain_seconds = 25                             # how long calls may take to finish when the server stops
//!
//! [traces]                                       # OpenTelemetry, by OTLP over HTTP
//! endpoint = "http://127.0.0.1:4318"             # OTEL_EXPORTER_OTLP_ENDPOINT wins
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use clawcoil::diagnostic::{Diagnostic, Diagnostics, Source, Table};
use clawcoil::host::Home;
use clawcoil::id::{ClientName, UserId};
use clawcoil::policy::Pattern;
use url::Url;

use super::Place;
use crate::callers::{ClientFrom, IdentityProvider, Peer, Scope, Subject};

/// The file's name, in the agent's home.
pub(crate) const FILE: &str = "serve.toml";

/// Requests that one caller may make in a minute.
const REQUESTS: u32 = 600;
/// Connections at once.
const CONNECTIONS: usize = 4096;
/// A little less than most supervisors wait before they kill.
const DRAIN: Duration = Duration::from_secs(25);

/// What the file says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Config {
    /// Where to listen.
    pub(crate) listen: Option<Place>,
    /// How browsers and programs reach this host.
    pub(crate) public_url: Option<Url>,
    /// Where an embedding app may be sent back to after a connection.
    pub(crate) return_urls: Vec<Url>,
    /// Whose JWTs are credentials.
    pub(crate) identity_providers: Vec<IdentityProvider>,
    /// How people sign in to the console.
    pub(crate) console: Option<SignIn>,
    /// Who is who at the Unix socket.
    pub(crate) peers: Vec<Peer>,
    /// What a caller may ask for.
    pub(crate) limits: Limits,
    /// Where traces go.
    pub(crate) collector: Option<Url>,
}

/// Sign-in by OpenID Connect.
#[derive(Debug, Clone)]
pub(crate) struct SignIn {
    /// The issuer.
    pub(crate) issuer: Url,
    /// This host's client there.
    pub(crate) client_id: String,
    /// Which claim is the user.
    pub(crate) user_claim: String,
    /// Users who may change things.
    pub(crate) operators: Vec<Pattern>,
    /// Users who may read everything.
    pub(crate) auditors: Vec<Pattern>,
}

/// What a caller may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Requests in a minute.
    pub(crate) requests_per_minute: u32,
    /// Connections at once, of all callers.
    pub(crate) connections: usize,
    /// How long what is under way may take to finish when the server stops.
    pub(crate) drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { requests_per_minute: REQUESTS, connections: CONNECTIONS, drain: DRAIN }
    }
}

impl Limits {
    fn read(table: &mut Table<'_>) -> Self {
        table.examples(&[("requests_per_minute", "600"), ("connections", "4096"), ("drain_seconds", "25")]);
        let requests = table.opt_integer("requests_per_minute", 1..=1_000_000);
        let connections = table.opt_integer("connections", 16..=1_000_000);
        let drain = table.opt_integer("drain_seconds", 0..=3600);
        Self {
            requests_per_minute: requests.and_then(|n| u32::try_from(n).ok()).unwrap_or(REQUESTS),
            connections: connections.and_then(|n| usize::try_from(n).ok()).unwrap_or(CONNECTIONS),
            drain: drain.and_then(|n| u64::try_from(n).ok()).map_or(DRAIN, Duration::from_secs),
        }
    }
}

impl Config {
    /// Reads the file of this home, if there is one.
    pub(crate) fn of(home: &Home) -> Result<Self, Diagnostics> {
        let path = home.folder().join(FILE);
        if path.exists() { Self::parse(&Source::open(&path)?) } else { Ok(Self::default()) }
    }

    pub(crate) fn parse(source: &Source) -> Result<Self, Diagnostics> {
        Table::read(source, |root| {
            root.examples(&[
                ("listen", "\"127.0.0.1:8418\""),
                ("public_url", "\"https://skills.example.com\""),
                ("return_urls", "[\"https://app.example.com/connected\"]"),
            ]);
            let listen = root.opt_parsed("listen");
            let public_url = root.opt_parsed_by("public_url", public_url);
            let return_urls = root.opt_list_by("return_urls", return_url).unwrap_or_default();
            let identity_providers = root.tables("identity_provider", identity_provider);
            let console = root.opt_table("console", SignIn::read);
            let peers = root.tables("unix", peer);
            let traces = root.opt_table("traces", |table| {
                table.examples(&[("endpoint", "\"http://127.0.0.1:4318\"")]);
                let endpoint = table.opt_parsed_by("endpoint", key_address);
                if endpoint.is_none() && !table.has("endpoint") {
                    let missing = Diagnostic::new(table.span(), "where traces go is not said");
                    table.push_missing("endpoint", missing.help("give `endpoint = \"http://127.0.0.1:4318\"`"));
                }
                endpoint
            });
            let limits = root.opt_table("limits", |table| Some(Limits::read(table)));
            Some(Self {
                listen,
                public_url,
                return_urls: return_urls.into_iter().map(|url| url.value).collect(),
                identity_providers,
                console,
                peers,
                limits: limits.unwrap_or_default(),
                collector: traces,
            })
        })
    }
}

fn identity_provider(table: &mut Table<'_>) -> Option<IdentityProvider> {
    table.examples(&[
        ("issuer", "\"https://login.example.com\""),
        ("audience", "\"https://skills.example.com\""),
        ("user_claim", "\"sub\""),
        ("client_claim", "\"client_id\""),
        ("client", "\"portal\""),
        ("scopes", "[\"invoke\"]"),
    ]);
    let issuer = table.parsed::<Issuer>("issuer");
    let audience = table.string("audience");
    let user_claim = table.opt_string("user_claim").unwrap_or_else(|| "sub".to_owned());
    let (named, claim) = (table.opt_parsed::<ClientName>("client"), table.opt_string("client_claim"));
    let client = match (named, claim) {
        (Some(name), None) => Some(ClientFrom::Fixed(name)),
        (None, Some(claim)) => Some(ClientFrom::Claim(claim)),
        (Some(_), Some(_)) => {
            let both = Diagnostic::new(table.span_of("client_claim"), "the program is named twice");
            table.push(both.help("give `client` for all JWTs of this issuer, or the claim that has it"));
            None
        }
        (None, None) => {
            if !table.has("client") && !table.has("client_claim") {
                let missing = Diagnostic::new(table.span(), "which program calls is not said");
                table.push(missing.help("give `client = \"portal\"`, or `client_claim = \"client_id\"`"));
            }
            None
        }
    };
    let scopes = scopes(table);
    let jwks_uri = table.opt_parsed_by("jwks_uri", key_address);
    Some(IdentityProvider {
        issuer: issuer?.0,
        audience: audience?,
        user_claim,
        client: client?,
        scopes: scopes?,
        jwks_uri,
    })
}

/// An issuer identifier: an address whose text is kept as it stands.
struct Issuer(String);

impl std::str::FromStr for Issuer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        key_address(text).map(|_| Self(text.to_owned()))
    }
}

impl SignIn {
    fn read(table: &mut Table<'_>) -> Option<Self> {
        table.examples(&[
            ("issuer", "\"https://login.example.com\""),
            ("client_id", "\"clawcoil-console\""),
            ("operators", "[\"ops-*\"]"),
            ("auditors", "[\"audit-*\"]"),
        ]);
        let issuer = table.parsed::<Issuer>("issuer").and_then(|issuer| issuer.0.parse().ok());
        let client_id = table.string("client_id");
        let user_claim = table.opt_string("user_claim").unwrap_or_else(|| "sub".to_owned());
        let operators = table.opt_list::<Pattern>("operators").unwrap_or_default();
        let auditors = table.opt_list::<Pattern>("auditors").unwrap_or_default();
        let values = |list: Vec<clawcoil::diagnostic::Located<Pattern>>| list.into_iter().map(|p| p.value).collect();
        Some(Self {
            issuer: issuer?,
            client_id: client_id?,
            user_claim,
            operators: values(operators),
            auditors: values(auditors),
        })
    }
}

fn peer(table: &mut Table<'_>) -> Option<Peer> {
    table.examples(&[
        ("uid", "1001"),
        ("client", "\"mail-agent\""),
        ("user", "\"alice\""),
        ("act_as", "\"team-a/*\""),
        ("scopes", "[\"invoke\"]"),
    ]);
    let uid = table.opt_integer("uid", 0..=i64::from(u32::MAX)).and_then(|uid| u32::try_from(uid).ok());
    if uid.is_none() && !table.has("uid") {
        let missing = Diagnostic::new(table.span(), "whose processes are meant is not said");
        table.push_missing("uid", missing.help("give `uid = 1001`; `id -u` shows yours"));
    }
    let client = table.parsed::<ClientName>("client");
    let (user, act_as) = (table.opt_parsed::<UserId>("user"), table.opt_parsed::<Pattern>("act_as"));
    let scopes = scopes(table);
    let subject = match (user, act_as) {
        (Some(user), None) => Subject::User(user),
        (None, Some(pattern)) => Subject::ActAs(pattern),
        (None, None) => Subject::Nobody,
        (Some(_), Some(_)) => {
            let both = Diagnostic::new(table.span_of("act_as"), "for whom it calls is said twice");
            table.push(both.help("give `user`, or `act_as` for a program that names the user with each request"));
            return None;
        }
    };
    let scopes = scopes?;
    if matches!(subject, Subject::ActAs(_)) && scopes != [Scope::Invoke].into() {
        let wide = Diagnostic::new(table.span_of("scopes"), "a program that names its users may do nothing but invoke");
        table.push(wide.help("give `scopes = [\"invoke\"]`, or one `user`"));
        return None;
    }
    Some(Peer { uid: uid?, client: client?, subject, scopes })
}

fn scopes(table: &mut Table<'_>) -> Option<BTreeSet<Scope>> {
    let given = table.has("scopes");
    let scopes = table.opt_list::<Scope>("scopes");
    match scopes {
        Some(scopes) => Some(scopes.into_iter().map(|scope| scope.value).collect()),
        None if given => None,
        None => Some([Scope::Invoke].into()),
    }
}

fn public_url(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|_| "an address as https://skills.example.com".to_owned())?;
    is_origin(&url).then_some(url).ok_or_else(|| "a public address is http(s)://host[:port] and no more".to_owned())
}

/// Whether an address is scheme, host and port alone.
pub(crate) fn is_origin(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
        && url.host().is_some()
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none()
}

fn return_url(text: &str) -> Result<Url, String> {
    let url = key_address(text)?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("the part after ? or # is this host's to add".to_owned());
    }
    Ok(url)
}

pub(super) fn key_address(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|_| "an address as https://login.example.com".to_owned())?;
    let loopback = match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    if url.scheme() == "https" || (url.scheme() == "http" && loopback) {
        Ok(url)
    } else {
        Err("it must be https (http only on loopback)".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(text: &str) -> String {
        Config::parse(&Source::new("serve.toml", text)).unwrap_err().to_string()
    }

    #[test]
    fn a_whole_file_is_read() {
        let config = Config::parse(&Source::new(
            "serve.toml",
            "listen = \"unix:/run/c.sock\"\npublic_url = \"https://c.example.com\"\nreturn_urls = [\"https://a.example.com/b\"]\n\
             [[identity_provider]]\nissuer = \"https://i.example.com\"\naudience = \"a\"\nclient_claim = \"azp\"\nscopes = [\"invoke\", \"connect\"]\n\
             [console]\nissuer = \"https://i.example.com\"\nclient_id = \"c\"\noperators = [\"ops-*\"]\n\
             [[unix]]\nuid = 7\nclient = \"c\"\nact_as = \"a*\"\n[limits]\nrequests_per_minute = 5\n",
        ))
        .unwrap();
        assert_eq!(config.listen, Some(Place::Unix("/run/c.sock".into())));
        let [provider] = config.identity_providers.as_slice() else { panic!("{config:?}") };
        assert_eq!((provider.user_claim.as_str(), provider.scopes.len()), ("sub", 2));
        assert_eq!(config.peers[0].scopes, [Scope::Invoke].into());
        assert_eq!(config.limits.requests_per_minute, 5);
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once_with_its_place_and_the_way_out() {
        let text = errors(
            "listn = \"x\"\npublic_url = \"https://c.example.com/path\"\n[[identity_provider]]\nissuer = \"http://i.example.com\"\naudience = \"a\"\n\
             [[unix]]\nclient = \"c\"\nact_as = \"a*\"\nscopes = [\"admin\"]\n",
        );
        for part in [
            "listen",
            "http(s)://host[:port]",
            "must be https",
            "which program calls is not said",
            "whose processes are meant",
            "nothing but invoke",
        ] {
            assert!(text.contains(part), "{part:?} is missing in:\n{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in "(?s).{0,300}") {
            let _ = Config::parse(&Source::new("serve.toml", text));
        }
    }
}
