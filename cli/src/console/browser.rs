//! Browsers that have a session with this host, and who is signed in there.
//!
//! The cookie holds 256 random bits; what they open is a document in the vault, under a keyed digest of them. So a session
//! survives a restart, ends when it is taken out of the vault, and can't be made by who reads or writes the database.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clawcoil::clock::{Clock, Timestamp, random};
use clawcoil::id::{Digest, Generation, Owner, UserId};
use clawcoil::vault::{Document, Vault, VaultError};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Trouble;
use crate::connecting::Opener;
use crate::serve::{App, Kind, Origins, Problem, Shared};

const KIND: &str = "browser-session";

/// How long somebody stays signed in. Who has everything at hand signs in anew each working day.
const STAFF_LIFE: Duration = Duration::from_hours(8);
const USER_LIFE: Duration = Duration::from_hours(12);
/// How long a browser is known in which nobody is signed in.
const GUEST_LIFE: Duration = Duration::from_hours(1);

/// What somebody may do here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Role {
    /// Sees everything and changes what operators change.
    Operator,
    /// Sees everything and changes nothing.
    Auditor,
    /// Sees and ends their own connections.
    User(UserId),
}

impl Role {
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Auditor => "auditor",
            Self::User(_) => "user",
        }
    }

    /// Whether they see what belongs to others.
    pub(crate) const fn is_staff(&self) -> bool {
        matches!(self, Self::Operator | Self::Auditor)
    }

    pub(super) fn user(&self) -> Option<&UserId> {
        match self {
            Self::User(user) => Some(user),
            Self::Operator | Self::Auditor => None,
        }
    }

    /// From the two words of a stored document.
    pub(super) fn read(word: &str, user: Option<&str>) -> Option<Self> {
        match (word, user) {
            ("operator", None) => Some(Self::Operator),
            ("auditor", None) => Some(Self::Auditor),
            ("user", Some(user)) => user.parse().ok().map(Self::User),
            _ => None,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => user.fmt(f),
            Self::Operator | Self::Auditor => f.write_str(self.as_str()),
        }
    }
}

/// A browser that is known, whether or not somebody is signed in.
#[derive(Debug, Clone)]
pub(crate) struct BrowserSession {
    /// Its name, which is no secret.
    pub(crate) id: String,
    /// Who is signed in.
    pub(crate) role: Option<Role>,
    /// What the identity provider calls them, where it was it that said who they are.
    pub(crate) name: Option<String>,
    /// What each form of this browser carries.
    pub(crate) csrf: String,
    pub(crate) expires_at: Timestamp,
}

/// As it is stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    id: String,
    role: Option<String>,
    user: Option<String>,
    name: Option<String>,
    csrf: String,
}

impl BrowserSession {
    /// Begins a session in a browser. The second value is for its `Set-Cookie`.
    pub(crate) async fn begin(
        app: &App,
        role: Option<Role>,
        name: Option<String>,
    ) -> Result<(Self, HeaderValue), Problem> {
        if !app.origins.is_private() {
            return Err(Problem::new(
                Kind::Unavailable,
                "nobody signs in where others can listen: the operator serves this host over https (--public-url https://…), or on loopback",
            ));
        }
        let clock: &Arc<dyn Clock> = app.host.clock();
        let text = |bytes: [u8; 32]| Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(*Zeroizing::new(bytes)));
        let secret = text(random(clock.as_ref()));
        let life = match &role {
            Some(Role::Operator | Role::Auditor) => STAFF_LIFE,
            Some(Role::User(_)) => USER_LIFE,
            None => GUEST_LIFE,
        };
        let session = Self {
            id: format!("bs_{}", BASE64_URL_SAFE_NO_PAD.encode(random::<12>(clock.as_ref()))),
            role,
            name,
            csrf: text(random(clock.as_ref())).to_string(),
            expires_at: clock.now().saturating_add(life).unwrap_or(Timestamp::MAX),
        };
        let stored = Stored {
            id: session.id.clone(),
            role: session.role.as_ref().map(|role| role.as_str().to_owned()),
            user: session.user().map(ToString::to_string),
            name: session.name.clone(),
            csrf: session.csrf.clone(),
        };
        let vault = app.host.vault();
        let document = Document {
            kind: KIND,
            lookup: vault.lookup_of(KIND, &secret),
            owner: session.user().cloned().map_or(Owner::Agent, Owner::User),
            expires_at: Some(session.expires_at),
            contents: serde_json::to_string(&stored).unwrap_or_default().into(),
            revision: Generation(0),
        };
        vault.put_document(&document).await?;
        Ok((session, set_cookie(&app.origins, &secret, life)))
    }

    /// The session of the browser that sent these headers.
    pub(crate) fn of(app: &App, headers: &HeaderMap) -> Result<Option<Self>, VaultError> {
        let Some(secret) = cookie(headers, &cookie_name(&app.origins)) else { return Ok(None) };
        let vault: &Vault = app.host.vault();
        let document = vault.document(KIND, &vault.lookup_of(KIND, secret))?;
        Ok(document.as_ref().and_then(read))
    }

    /// Ends the session. The value is for a `Set-Cookie` that takes the cookie away.
    pub(crate) async fn end(app: &App, headers: &HeaderMap) -> Result<HeaderValue, VaultError> {
        if let Some(secret) = cookie(headers, &cookie_name(&app.origins)) {
            let vault = app.host.vault();
            vault.take_document(KIND, &vault.lookup_of(KIND, secret)).await?;
        }
        Ok(set_cookie(&app.origins, "", Duration::ZERO))
    }

    /// The user who is signed in; operators are none.
    pub(crate) fn user(&self) -> Option<&UserId> {
        self.role.as_ref().and_then(Role::user)
    }

    /// Whom this browser proves.
    pub(crate) fn opener(&self) -> Opener {
        match &self.role {
            Some(Role::User(user)) => Opener::User(user.clone()),
            Some(Role::Operator | Role::Auditor) => Opener::Staff,
            None => Opener::Unknown,
        }
    }

    /// Whether a form came from a page of this session.
    pub(super) fn is_own_form(&self, csrf: &str) -> bool {
        // Digests are compared: how long that takes tells nothing about the value.
        Digest::of(csrf.as_bytes()) == Digest::of(self.csrf.as_bytes())
    }
}

fn read(document: &Document) -> Option<BrowserSession> {
    let Stored { id, role, user, name, csrf } = serde_json::from_str(&document.contents).ok()?;
    let role = match role {
        Some(word) => Some(Role::read(&word, user.as_deref())?),
        None => None,
    };
    Some(BrowserSession { id, role, name, csrf, expires_at: document.expires_at? })
}

/// Somebody who is signed in.
#[derive(Debug, Clone)]
pub(crate) struct Visitor {
    pub(crate) session: BrowserSession,
    pub(crate) role: Role,
}

impl Visitor {
    pub(super) fn signed_in(session: BrowserSession) -> Option<Self> {
        let role = session.role.clone()?;
        Some(Self { session, role })
    }

    /// Who did something here, for the audit log.
    pub(crate) fn words(&self) -> String {
        match (&self.role, &self.session.name) {
            (Role::User(user), _) => format!("user {user} at the console"),
            (role, Some(name)) => format!("{} {name} at the console", role.as_str()),
            (role, None) => format!("{} at the console, signed in by a link of the command line", role.as_str()),
        }
    }
}

impl FromRequestParts<Shared> for Visitor {
    type Rejection = Trouble;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Result<Self, Trouble> {
        // The gate before the page has looked already.
        if let Some(visitor) = parts.extensions.get::<Self>() {
            return Ok(visitor.clone());
        }
        let known = BrowserSession::of(app, &parts.headers)?;
        known.and_then(Self::signed_in).ok_or_else(|| Trouble::sign_in(&parts.method, &parts.uri))
    }
}

impl OptionalFromRequestParts<Shared> for Visitor {
    type Rejection = Trouble;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Result<Option<Self>, Trouble> {
        Ok(BrowserSession::of(app, &parts.headers)?.and_then(Self::signed_in))
    }
}

impl OptionalFromRequestParts<Shared> for BrowserSession {
    type Rejection = Trouble;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Result<Option<Self>, Trouble> {
        Ok(Self::of(app, &parts.headers)?)
    }
}

/// On https the name itself keeps other hosts from setting it. On loopback all ports share their cookies.
fn cookie_name(origins: &Origins) -> String {
    match origins.loopback_port() {
        Some(port) => format!("clawcoil-{port}"),
        None => "__Host-clawcoil".to_owned(),
    }
}

fn set_cookie(origins: &Origins, secret: &str, life: Duration) -> HeaderValue {
    let secure = if origins.loopback_port().is_some() { "" } else { "; Secure" };
    let text = format!(
        "{}={secret}; Path=/; HttpOnly; SameSite=Lax; Max-Age={}{secure}",
        cookie_name(origins),
        life.as_secs()
    );
    let mut value = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

/// The one cookie of this name. Where there are two, another server set one of them: neither counts.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut named = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value);
    match (named.next(), named.next()) {
        (Some(value), None) if !value.is_empty() => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (header::COOKIE, HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn a_cookie_counts_only_where_it_comes_once() {
        assert_eq!(cookie(&headers(&["a=1; clawcoil-8418=x; b=2"]), "clawcoil-8418"), Some("x"));
        assert_eq!(cookie(&headers(&["a=1", "clawcoil-8418=x"]), "clawcoil-8418"), Some("x"));
        assert_eq!(cookie(&headers(&["clawcoil-8418=x; clawcoil-8418=y"]), "clawcoil-8418"), None);
        assert_eq!(cookie(&headers(&["clawcoil-8419=x"]), "clawcoil-8418"), None);
        assert_eq!(cookie(&headers(&["clawcoil-8418="]), "clawcoil-8418"), None);
    }

    #[test]
    fn the_cookie_is_for_this_host_alone_and_on_https_for_https_alone() {
        let of = |public: &str| {
            let origins = Origins::new(public.parse().unwrap(), []);
            set_cookie(&origins, "s", Duration::from_mins(1)).to_str().unwrap().to_owned()
        };
        let expected = "__Host-clawcoil=s; Path=/; HttpOnly; SameSite=Lax; Max-Age=60; Secure";
        assert_eq!(of("https://skills.example.com"), expected);
        assert_eq!(of("http://127.0.0.1:8418"), "clawcoil-8418=s; Path=/; HttpOnly; SameSite=Lax; Max-Age=60");
    }

    #[test]
    fn a_role_that_no_version_writes_is_none() {
        assert_eq!(Role::read("user", Some("alice")), Some(Role::User("alice".parse().unwrap())));
        for (word, user) in [("user", None), ("operator", Some("alice")), ("admin", None), ("user", Some("*"))] {
            assert_eq!(Role::read(word, user), None, "{word} {user:?}");
        }
    }

    proptest! {
        #[test]
        fn any_cookie_header_is_read_without_panic(text in "[ -~]{0,40}") {
            let value = HeaderValue::from_str(&text).unwrap();
            let found = cookie(&HeaderMap::from_iter([(header::COOKIE, value)]), "clawcoil-8418").map(str::to_owned);
            let named = |value: String| text.contains(&format!("clawcoil-8418={value}"));
            prop_assert!(found.is_none_or(named));
        }
    }
}
