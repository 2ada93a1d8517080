//! What the sandbox's authorization server remembers: requests waiting for consent, codes, grants, tokens.
//!
//! It knows no HTTP. Codes and tokens are remembered by their digests, as a real server would; they are in the clear only in
//! the answer that hands them out.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clawcoil::clock::{Clock, Timestamp, random};
use clawcoil::id::Digest;

use super::Settings;

/// How long a person may look at the consent page, and a client may keep a code (RFC 6749 section 4.1.2: at most ten minutes).
const SHORT_LIVED: Duration = Duration::from_mins(10);

/// Somebody who can consent. Made up, as the domain says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Person {
    /// The name to sign in with.
    pub(crate) login: &'static str,
    /// For people.
    pub(crate) name: &'static str,
    /// `.example` is reserved (RFC 2606): nothing can ever be delivered there.
    pub(crate) email: &'static str,
}

/// Everybody who has an account in the sandbox.
pub(crate) const PEOPLE: [Person; 2] = [
    Person { login: "ada", name: "Ada Sandbox", email: "ada@sandbox.example" },
    Person { login: "grace", name: "Grace Sandbox", email: "grace@sandbox.example" },
];

/// A client's request that waits for a person's consent.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) redirect_uri: String,
    pub(super) state: Option<String>,
    pub(super) challenge: String,
    pub(super) scopes: BTreeSet<String>,
}

/// Why the token endpoint says no, as RFC 6749 section 5.2 has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    InvalidRequest(&'static str),
    InvalidClient,
    InvalidGrant(&'static str),
    InvalidScope,
    UnsupportedGrantType,
}

/// Tokens, just made.
pub(super) struct Issued {
    pub(super) access: String,
    pub(super) refresh: Option<String>,
    pub(super) expires_in: Duration,
    pub(super) scopes: BTreeSet<String>,
    pub(super) person: Option<Person>,
}

/// What is behind an access token that is good.
#[derive(Debug, Clone)]
pub(super) struct Holder {
    pub(super) person: Option<Person>,
    pub(super) scopes: BTreeSet<String>,
    pub(super) expires_at: Timestamp,
}

pub(super) struct Ledger {
    clock: Arc<dyn Clock>,
    settings: Settings,
    waiting: HashMap<Digest, (Request, Timestamp)>,
    codes: HashMap<Digest, Code>,
    grants: Vec<Grant>,
    access: HashMap<Digest, Access>,
    refresh: HashMap<Digest, Refresh>,
}

struct Code {
    request: Request,
    person: Person,
    expires_at: Timestamp,
    /// The grant that it was exchanged for: a second use ends it (RFC 6749 section 4.1.2).
    exchanged: Option<usize>,
}

struct Grant {
    person: Option<Person>,
    scopes: BTreeSet<String>,
    ended: bool,
}

struct Access {
    grant: usize,
    scopes: BTreeSet<String>,
    expires_at: Timestamp,
}

struct Refresh {
    grant: usize,
    replaced: bool,
}

impl Ledger {
    pub(super) fn new(settings: Settings, clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            settings,
            waiting: HashMap::new(),
            codes: HashMap::new(),
            grants: Vec::new(),
            access: HashMap::new(),
            refresh: HashMap::new(),
        }
    }

    /// Whether this is the sandbox's client with its secret.
    pub(super) fn authenticate(&self, id: &str, secret: &str) -> Result<(), Refusal> {
        // Digests are compared, so that how long it takes says nothing of the secret.
        let known = Digest::of(self.settings.client_secret.as_bytes()) == Digest::of(secret.as_bytes());
        if id == self.settings.client_id && known { Ok(()) } else { Err(Refusal::InvalidClient) }
    }

    /// Keeps a request until somebody consents; gives the name under which the consent form sends it back.
    pub(super) fn ask(&mut self, request: Request) -> String {
        let name = self.random_text();
        self.waiting.insert(Digest::of(name.as_bytes()), (request, self.later(SHORT_LIVED)));
        name
    }

    /// The person's answer. The request is used up by it; `None`: there is no such request any more.
    pub(super) fn answer(&mut self, name: &str, person: Option<Person>) -> Option<(Request, Option<String>)> {
        let (request, until) = self.waiting.remove(&Digest::of(name.as_bytes()))?;
        if self.clock.now() >= until {
            return None;
        }
        let Some(person) = person else { return Some((request, None)) };
        let code = self.random_text();
        let expires_at = self.later(SHORT_LIVED);
        let kept = Code { request: request.clone(), person, expires_at, exchanged: None };
        self.codes.insert(Digest::of(code.as_bytes()), kept);
        Some((request, Some(code)))
    }

    /// A code and its verifier for tokens (RFC 6749 section 4.1.3, RFC 7636 section 4.6).
    pub(super) fn exchange(&mut self, code: &str, redirect_uri: &str, verifier: &str) -> Result<Issued, Refusal> {
        let now = self.clock.now();
        let grants = self.grants.len();
        let kept =
            self.codes.get_mut(&Digest::of(code.as_bytes())).ok_or(Refusal::InvalidGrant("there is no such code"))?;
        if let Some(grant) = kept.exchanged {
            self.end(grant);
            return Err(Refusal::InvalidGrant("the code was used before; its tokens are ended"));
        }
        if now >= kept.expires_at {
            return Err(Refusal::InvalidGrant("the code is too old"));
        }
        if kept.request.redirect_uri != redirect_uri {
            return Err(Refusal::InvalidGrant("redirect_uri is not the one of the request"));
        }
        if URL_SAFE_NO_PAD.encode(Digest::of(verifier.as_bytes()).as_bytes()) != kept.request.challenge {
            return Err(Refusal::InvalidGrant("code_verifier does not fit code_challenge"));
        }
        kept.exchanged = Some(grants);
        let grant = Grant { person: Some(kept.person), scopes: kept.request.scopes.clone(), ended: false };
        let scopes = grant.scopes.clone();
        self.grants.push(grant);
        Ok(self.issue(grants, scopes, true))
    }

    /// New tokens for an old refresh token (RFC 6749 section 6). The old one is used up; shown again, it ends the grant (RFC
    /// 9700 section 4.14.2).
    pub(super) fn refresh(&mut self, token: &str, scopes: Option<BTreeSet<String>>) -> Result<Issued, Refusal> {
        let kept = self
            .refresh
            .get_mut(&Digest::of(token.as_bytes()))
            .ok_or(Refusal::InvalidGrant("there is no such refresh token"))?;
        let index = kept.grant;
        if kept.replaced {
            self.end(index);
            return Err(Refusal::InvalidGrant("the refresh token was used before; the grant is ended"));
        }
        let grant = self.grants.get(index).filter(|grant| !grant.ended);
        let granted = &grant.ok_or(Refusal::InvalidGrant("the grant is ended"))?.scopes;
        let scopes = scopes.unwrap_or_else(|| granted.clone());
        if !scopes.is_subset(granted) {
            return Err(Refusal::InvalidScope);
        }
        kept.replaced = true;
        Ok(self.issue(index, scopes, true))
    }

    /// A token for the client itself (RFC 6749 section 4.4): no person, no refresh token.
    pub(super) fn client_credentials(&mut self, scopes: BTreeSet<String>) -> Issued {
        self.grants.push(Grant { person: None, scopes: scopes.clone(), ended: false });
        self.issue(self.grants.len() - 1, scopes, false)
    }

    /// Ends the grant behind a token of either kind; an unknown one is fine (RFC 7009 section 2.2).
    pub(super) fn revoke(&mut self, token: &str) -> Option<Person> {
        let digest = Digest::of(token.as_bytes());
        let of_access = self.access.get(&digest).map(|access| access.grant);
        let grant = of_access.or_else(|| self.refresh.get(&digest).map(|refresh| refresh.grant))?;
        self.end(grant);
        self.grants.get(grant)?.person
    }

    /// Whose access token this is; `None`: it is unknown, expired or ended.
    pub(super) fn holder(&self, token: &str) -> Option<Holder> {
        let access = self.access.get(&Digest::of(token.as_bytes()))?;
        let grant = self.grants.get(access.grant)?;
        (!grant.ended && self.clock.now() < access.expires_at).then(|| Holder {
            person: grant.person,
            scopes: access.scopes.clone(),
            expires_at: access.expires_at,
        })
    }

    fn issue(&mut self, grant: usize, scopes: BTreeSet<String>, with_refresh: bool) -> Issued {
        let access = self.random_text();
        let expires_in = self.settings.access_lifetime;
        let kept = Access { grant, scopes: scopes.clone(), expires_at: self.later(expires_in) };
        self.access.insert(Digest::of(access.as_bytes()), kept);
        let refresh = with_refresh.then(|| {
            let token = self.random_text();
            self.refresh.insert(Digest::of(token.as_bytes()), Refresh { grant, replaced: false });
            token
        });
        let person = self.grants.get(grant).and_then(|grant| grant.person);
        Issued { access, refresh, expires_in, scopes, person }
    }

    fn end(&mut self, grant: usize) {
        if let Some(grant) = self.grants.get_mut(grant) {
            grant.ended = true;
        }
    }

    fn later(&self, after: Duration) -> Timestamp {
        self.clock.now().saturating_add(after).unwrap_or(Timestamp::MAX)
    }

    /// 256 random bits. The prefix lets a scan for leaked secrets know them as worthless.
    fn random_text(&self) -> String {
        format!("sandbox-{}", URL_SAFE_NO_PAD.encode(random::<32>(&*self.clock)))
    }
}

#[cfg(test)]
mod tests {
    use clawcoil::clock::ManualClock;

    use super::*;

    const VERIFIER: &str = "a-verifier-of-at-least-forty-three-characters";
    const REDIRECT: &str = "http://127.0.0.1:1/callback";

    fn ledger() -> (Ledger, ManualClock) {
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        let settings = Settings { access_lifetime: Duration::from_mins(1), ..Settings::default() };
        (Ledger::new(settings, Arc::new(clock.clone())), clock)
    }

    fn request(scopes: &[&str]) -> Request {
        Request {
            redirect_uri: REDIRECT.to_owned(),
            state: None,
            challenge: URL_SAFE_NO_PAD.encode(Digest::of(VERIFIER.as_bytes()).as_bytes()),
            scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
        }
    }

    fn code(ledger: &mut Ledger) -> String {
        let name = ledger.ask(request(&["mail", "issues"]));
        ledger.answer(&name, Some(PEOPLE[0])).unwrap().1.unwrap()
    }

    #[test]
    fn a_code_is_exchanged_once_and_a_second_use_ends_what_the_first_one_gave() {
        let (mut ledger, _) = ledger();
        let code = code(&mut ledger);
        let issued = ledger.exchange(&code, REDIRECT, VERIFIER).unwrap();
        assert_eq!(ledger.holder(&issued.access).unwrap().person, Some(PEOPLE[0]));
        assert!(matches!(ledger.exchange(&code, REDIRECT, VERIFIER), Err(Refusal::InvalidGrant(_))));
        assert!(ledger.holder(&issued.access).is_none());
        assert!(ledger.refresh(&issued.refresh.unwrap(), None).is_err());
    }

    #[test]
    fn a_code_needs_its_own_verifier_and_redirect_uri() {
        let (mut ledger, _) = ledger();
        let code = code(&mut ledger);
        assert!(ledger.exchange(&code, REDIRECT, "another").is_err());
        assert!(ledger.exchange(&code, "http://127.0.0.1:2/callback", VERIFIER).is_err());
        assert!(ledger.exchange(&code, REDIRECT, VERIFIER).is_ok());
    }

    #[test]
    fn a_consent_is_given_once_and_in_time() {
        let (mut ledger, clock) = ledger();
        let name = ledger.ask(request(&[]));
        assert!(ledger.answer(&name, None).unwrap().1.is_none());
        assert!(ledger.answer(&name, Some(PEOPLE[0])).is_none());
        let late = ledger.ask(request(&[]));
        clock.advance(SHORT_LIVED);
        assert!(ledger.answer(&late, Some(PEOPLE[0])).is_none());
    }

    #[test]
    fn a_refresh_token_is_used_once_and_its_replay_ends_the_grant() {
        let (mut ledger, _) = ledger();
        let code = code(&mut ledger);
        let first = ledger.exchange(&code, REDIRECT, VERIFIER).unwrap();
        let old = first.refresh.unwrap();
        let second = ledger.refresh(&old, None).unwrap();
        assert!(ledger.holder(&second.access).is_some());
        assert!(ledger.refresh(&old, None).is_err());
        assert!(ledger.holder(&second.access).is_none(), "the newer tokens end, too");
        assert!(ledger.refresh(&second.refresh.unwrap(), None).is_err());
    }

    #[test]
    fn an_access_token_ends_with_its_lifetime_or_with_its_grant() {
        let (mut ledger, clock) = ledger();
        let code = code(&mut ledger);
        let first = ledger.exchange(&code, REDIRECT, VERIFIER).unwrap();
        clock.advance(Duration::from_mins(1));
        assert!(ledger.holder(&first.access).is_none());
        let second = ledger.refresh(&first.refresh.unwrap(), None).unwrap();
        assert!(ledger.holder(&second.access).is_some());
        ledger.revoke(&second.access);
        assert!(ledger.holder(&second.access).is_none());
    }

    #[test]
    fn a_refresh_never_widens_the_scopes() {
        let (mut ledger, _) = ledger();
        let code = code(&mut ledger);
        let first = ledger.exchange(&code, REDIRECT, VERIFIER).unwrap().refresh.unwrap();
        let scopes = |names: &[&str]| Some(names.iter().map(|&name| name.to_owned()).collect());
        assert_eq!(ledger.refresh(&first, scopes(&["mail", "more"])).err(), Some(Refusal::InvalidScope));
        assert_eq!(ledger.refresh(&first, scopes(&["mail"])).unwrap().scopes.len(), 1);
    }
}
