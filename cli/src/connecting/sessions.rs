//! The sessions of one host.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clawcoil::audit::{Decision, Event, EventKind};
use clawcoil::broker::NeededAction;
use clawcoil::clock::{Timestamp, random};
use clawcoil::id::{AccountAlias, Caller, Generation, Owner, ProviderId, Scope, SkillName, UserId};
use clawcoil::provider::Kind as ProviderKind;
use clawcoil::vault::{Document, Vault, VaultError};
use serde_json::json;
use url::Url;

use super::redirect::redirect_uri;
use super::stored::{KIND, Stored};
use super::{NewSession, Session, SessionState};
use crate::exit::Failure;
use crate::serve::{App, Kind, Problem};

/// How long a person has from the asking to the confirming.
const LIFE: Duration = Duration::from_mins(30);
/// A session with less to live is not handed out again.
const WORTHWHILE: Duration = Duration::from_mins(5);
/// How many sessions of one user may be open: links that nobody opens are no reason to fill the vault.
const MOST_OPEN: usize = 50;
/// How long a waiting call trusts that it is told of a change.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// By what this host can tell that the opener of a link is the user who was asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Proofs {
    /// The browser is on this machine, and the owner of the vault signs it in by a command.
    pub(crate) local: bool,
    /// People sign in at an identity provider.
    pub(crate) sign_in: bool,
    /// Where browsers may go back to: apps that know their users and confirm over the API.
    pub(crate) return_urls: Vec<Url>,
}

/// Makes sessions and says how they stand.
#[derive(Debug)]
pub(crate) struct Sessions {
    proofs: Proofs,
}

impl Sessions {
    pub(crate) fn new(proofs: Proofs) -> Self {
        Self { proofs }
    }

    /// The name of a session that is to be made.
    pub(crate) fn name(app: &App) -> String {
        format!("cs_{}", BASE64_URL_SAFE_NO_PAD.encode(random::<18>(app.host.clock().as_ref())))
    }

    /// Makes a session of this name, or returns the one that has it. What can't come to a good end is refused here, with who
    /// must act.
    pub(crate) async fn create(&self, app: &App, id: String, new: NewSession) -> Result<Session, Problem> {
        self.provable(new.return_url.as_ref())?;
        connectable(app, &new.provider)?;
        let scopes = wanted(app, &new).await?;
        let owner = Owner::User(new.user.clone());
        let open = app.host.vault().documents(KIND, Some(&owner))?;
        let open = open.iter().filter_map(|document| read(app, document)).filter(|session| !session.state.is_final());
        if open.count() >= MOST_OPEN {
            let detail =
                format!("{MOST_OPEN} connect sessions of this user are open already; wait until some have ended");
            return Err(Problem::new(Kind::TooMany, detail).retry_after(WORTHWHILE));
        }
        let end = app.host.clock().now().saturating_add(LIFE).unwrap_or(Timestamp::MAX);
        // As precisely as it is kept, so that it is told the same every time.
        let expires_at = Timestamp::from_millisecond(end.as_millisecond()).unwrap_or(end);
        let session = Session {
            url: app.origins.url(&format!("/connect/{id}")),
            id,
            user: new.user,
            client: new.client,
            provider: new.provider,
            account: new.account.map_or_else(default_account, Ok)?,
            scopes,
            skill: new.skill,
            return_url: new.return_url,
            state: SessionState::Waiting,
            expires_at,
        };
        note(app, EventKind::ConnectAsked, Decision::Allowed, &session)?;
        let lookup = app.host.vault().lookup_of(KIND, &session.id);
        let document = Stored::of(&session, None).document(&session, lookup, Generation(0));
        match app.host.vault().put_document(&document).await {
            Ok(()) => Ok(session),
            Err(VaultError::DocumentExists) => self.get(app, &session.id)?.ok_or_else(unknown),
            Err(error) => Err(error.into()),
        }
    }

    /// A session for each thing that this caller's user has to do before the skill can be called: one that waits already, or
    /// a new one. What only the operator can do, as connecting the agent's own account, is in none.
    pub(crate) async fn for_actions(
        &self,
        app: &App,
        caller: &Caller,
        skill: &SkillName,
        actions: &[NeededAction],
    ) -> Result<Vec<Session>, Problem> {
        let ready = app.host.ready(skill).await?;
        let effective = app.host.effective(&ready, caller);
        let owner = Owner::User(caller.user.clone());
        let mut sessions: Vec<Session> = Vec::new();
        for action in actions {
            let Ok(service) = effective.service(&action.service) else { continue };
            if service.owner != owner {
                continue;
            }
            let account = action.account.clone().map_or_else(default_account, Ok)?;
            // A connection that is made anew takes the place of the one before: it must not lose what other skills use.
            let before = app.host.vault().connections(Some(&owner))?;
            let before = before.iter().filter(|c| c.provider == action.provider && c.account == account);
            let mut scopes: BTreeSet<Scope> = before.flat_map(|connection| connection.scopes.iter().cloned()).collect();
            scopes.extend(service.scopes_of(Some(&account)).iter().cloned());
            scopes.extend(action.missing_scopes.iter().cloned());
            let new = NewSession {
                client: caller.client.clone(),
                user: caller.user.clone(),
                provider: action.provider.clone(),
                account: Some(account),
                scopes,
                skill: Some(skill.clone()),
                return_url: None,
            };
            if let Some(known) = sessions.iter().find(|session| asks_the_same(session, &new)) {
                sessions.push(known.clone());
                continue;
            }
            let waiting = Self::waiting(app, &new)?;
            sessions.push(match waiting {
                Some(session) => session,
                None => self.create(app, Self::name(app), new).await?,
            });
        }
        Ok(sessions)
    }

    /// The session of this id, as it stands. `None`: there is none, or it was forgotten a day after its end.
    #[expect(clippy::unused_self, reason = "sessions are looked up by the one who has them")]
    pub(crate) fn get(&self, app: &App, id: &str) -> Result<Option<Session>, Problem> {
        let lookup = app.host.vault().lookup_of(KIND, id);
        Ok(app.host.vault().document(KIND, &lookup)?.and_then(|document| read(app, &document)))
    }

    /// The sessions of a user that somebody still has to act on, the newest first.
    #[expect(clippy::unused_self, reason = "sessions are looked up by the one who has them")]
    pub(crate) fn open(&self, app: &App, owner: &Owner) -> Result<Vec<Session>, Problem> {
        let documents = app.host.vault().documents(KIND, Some(owner))?;
        let open = documents.iter().rev().filter_map(|document| read(app, document));
        Ok(open.filter(|session| !session.state.is_final()).collect())
    }

    /// Waits until nothing changes the session any more, at most for this long; then it is returned as it stands.
    pub(crate) async fn settled(&self, app: &App, id: &str, until: Duration) -> Result<Session, Problem> {
        let clock = app.host.clock();
        let end = clock.monotonic().saturating_add(until);
        let mut changes = app.changes.subscribe();
        loop {
            let session = self.get(app, id)?.ok_or_else(unknown)?;
            let left = end.saturating_sub(clock.monotonic());
            if session.state.is_final() || left.is_zero() {
                return Ok(session);
            }
            tokio::select! {
                // Lagging behind, or a change of something else: the session is looked at all the same.
                _ = changes.recv() => {}
                () = clock.sleep(left.min(LOOK_AGAIN)) => {}
            }
        }
    }

    /// Ends what nobody has confirmed in time, here and at the provider.
    pub(crate) async fn tidy(&self, app: &App) {
        let Ok(documents) = app.host.vault().documents(KIND, None) else { return };
        for document in documents {
            let left =
                serde_json::from_str::<Stored>(&document.contents).ok().and_then(|stored| stored.left(&app.origins));
            let Some(session) = left else { continue };
            let SessionState::Unconfirmed(connection) = session.state else { continue };
            if app.host.clock().now() < session.expires_at {
                continue;
            }
            let expired = update(app, &session.id, |session, _| {
                session.state = SessionState::Expired;
                Ok::<(), Problem>(())
            });
            if expired.await.is_ok()
                && let Err(error) = app.host.connector().disconnect(connection).await
            {
                tracing::warn!(%error, "an account that nobody confirmed could not be disconnected");
            }
        }
    }

    fn waiting(app: &App, new: &NewSession) -> Result<Option<Session>, Problem> {
        let documents = app.host.vault().documents(KIND, Some(&Owner::User(new.user.clone())))?;
        let worthwhile = app.host.clock().now().saturating_add(WORTHWHILE).unwrap_or(Timestamp::MAX);
        let mut sessions = documents.iter().filter_map(|document| read(app, document));
        Ok(sessions.find(|session| {
            asks_the_same(session, new)
                && matches!(session.state, SessionState::Waiting | SessionState::AtProvider)
                && session.expires_at > worthwhile
        }))
    }

    /// Whether an opener could be known at all.
    fn provable(&self, return_url: Option<&Url>) -> Result<(), Problem> {
        let Proofs { local, sign_in, return_urls } = &self.proofs;
        match return_url {
            Some(url) if return_urls.contains(url) => Ok(()),
            Some(url) => Err(Problem::new(
                Kind::Invalid,
                format!(
                    "browsers don't go back to {url}: the operator lists such addresses as `return_urls` in serve.toml"
                ),
            )),
            None if *local || *sign_in => Ok(()),
            None if !return_urls.is_empty() => Err(Problem::new(
                Kind::Invalid,
                "nobody signs in at this host, so the request must name its `return_url`, and your app confirms who came back",
            )),
            None => Err(Problem::new(
                Kind::Unavailable,
                "this host can't tell who opens a link, so it makes none: the operator sets up sign-in ([console] in serve.toml), \
                 lists `return_urls` of apps that know their users, or serves on loopback",
            )),
        }
    }
}

fn default_account() -> Result<AccountAlias, Problem> {
    AccountAlias::DEFAULT.parse().map_err(|error| Problem::internal(&error))
}

fn asks_the_same(session: &Session, new: &NewSession) -> bool {
    session.client == new.client
        && session.user == new.user
        && session.provider == new.provider
        && new.account.as_ref() == Some(&session.account)
        && session.scopes == new.scopes
        && session.skill == new.skill
        && session.return_url == new.return_url
}

/// Whether accounts of this provider can be connected by people, at this host.
fn connectable(app: &App, provider: &ProviderId) -> Result<(), Problem> {
    let Some(entry) = app.host.catalogue().get(provider) else {
        return Err(Problem::new(Kind::NotFound, format!("there is no provider {provider} in the catalogue")));
    };
    match &entry.kind {
        ProviderKind::Oauth(_) => {}
        ProviderKind::ApiKey => {
            let detail = format!(
                "{} has no consent page: whoever has its key stores it with `clawcoil connect {provider} --user …`",
                entry.name
            );
            return Err(Problem::new(Kind::Invalid, detail));
        }
        ProviderKind::ClientCredentials(_) => {
            let detail = format!("{} knows programs, not people: the operator connects it for the agent", entry.name);
            return Err(Problem::new(Kind::Invalid, detail));
        }
    }
    let operator = |detail| Problem::new(Kind::Unavailable, format!("the operator must act: {detail}"));
    if app.host.vault().client(provider)?.is_none() {
        return Err(operator(format!(
            "no client of {provider} is stored; register one and run `clawcoil provider add {provider}`"
        )));
    }
    redirect_uri(entry, &app.origins).map(drop).map_err(|error| operator(error.to_string()))
}

/// The scopes to ask for. A skill gets those that it declares and was granted, and no more.
async fn wanted(app: &App, new: &NewSession) -> Result<BTreeSet<Scope>, Problem> {
    let Some(skill) = &new.skill else { return Ok(new.scopes.clone()) };
    let ready = app.host.ready(skill).await?;
    let caller = Caller::new(new.client.clone(), new.user.clone());
    let effective = app.host.effective(&ready, &caller);
    let mut services = effective.granted().filter(|service| service.provider == new.provider).peekable();
    if services.peek().is_none() {
        let detail = format!("skill {skill} was granted no service of {} for this caller", new.provider);
        return Err(Problem::new(Kind::Denied, detail));
    }
    let granted: BTreeSet<Scope> = services.flat_map(|service| service.scopes.iter().cloned()).collect();
    if new.scopes.is_empty() {
        return Ok(granted);
    }
    let held = app.host.vault().connections(Some(&Owner::User(new.user.clone())))?;
    let held = held.iter().filter(|connection| connection.provider == new.provider);
    let kept: BTreeSet<Scope> = held.flat_map(|connection| connection.scopes.iter().cloned()).collect();
    let more = new.scopes.iter().find(|scope| !granted.contains(*scope) && !kept.contains(*scope));
    match more {
        None => Ok(new.scopes.clone()),
        Some(scope) => {
            let detail = format!("skill {skill} was not granted the scope {scope} of {}", new.provider);
            Err(Problem::new(Kind::Denied, detail).with("scope", json!(scope.as_str())))
        }
    }
}

const UNKNOWN: &str = "there is no such connect session: it ended long ago, or never was one";

pub(super) fn unknown() -> Problem {
    Problem::new(Kind::NotFound, UNKNOWN)
}

/// Says no to a link for somebody else than the one who was asked, in words for who makes the link.
pub(crate) fn check_asked(vault: &Vault, id: &str, user: &UserId) -> Result<(), Failure> {
    match vault.document(KIND, &vault.lookup_of(KIND, id))?.map(|document| document.owner) {
        Some(Owner::User(asked)) if asked == *user => Ok(()),
        Some(asked) => Err(Failure::usage(format!("in {id}, {asked} is asked to connect an account, not {user}"))),
        None => Err(Failure::usage(format!("{id}: {UNKNOWN}"))),
    }
}

/// The session in a document, as it stands now.
fn read(app: &App, document: &Document) -> Option<Session> {
    let stored: Stored = serde_json::from_str(&document.contents).ok()?;
    let mut session = stored.left(&app.origins)?;
    if !session.state.is_final() && app.host.clock().now() >= session.expires_at {
        session.state = SessionState::Expired;
    }
    Some(session)
}

/// Changes a session, whoever else changes it at the same moment. `change` gets the session as it stands, and the digest of
/// the code with which an app confirms; it says no with an error.
pub(super) async fn update<E: From<Problem>>(
    app: &App,
    id: &str,
    change: impl Fn(&mut Session, &mut Option<String>) -> Result<(), E>,
) -> Result<Session, E> {
    let vault = app.host.vault();
    let lookup = vault.lookup_of(KIND, id);
    loop {
        let document = vault.document(KIND, &lookup).map_err(Problem::from)?.ok_or_else(unknown)?;
        let mut session = read(app, &document).ok_or_else(unknown)?;
        let mut code = serde_json::from_str::<Stored>(&document.contents).ok().and_then(|stored| stored.code);
        change(&mut session, &mut code)?;
        let changed = Stored::of(&session, code).document(&session, lookup, document.revision);
        if vault.replace_document(&changed).await.map_err(Problem::from)? {
            return Ok(session);
        }
    }
}

/// Writes down what happened to a session.
pub(super) fn note(app: &App, kind: EventKind, decision: Decision, session: &Session) -> Result<(), Problem> {
    let event = Event {
        decision,
        client: Some(session.client.clone()),
        user: Some(session.user.clone()),
        skill: session.skill.clone(),
        provider: Some(session.provider.clone()),
        scopes: session.scopes.iter().cloned().collect(),
        connection: session.state.connection(),
        ..Event::new(kind)
    };
    app.host.audit().append(&event).map(drop).map_err(|error| {
        tracing::error!(%error, "the audit log can't be written");
        Problem::new(
            Kind::Unavailable,
            "the audit log can't be written, so no account is connected; the operator must act",
        )
    })
}
