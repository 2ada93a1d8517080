//! What a person does with a session: open it, go to the provider, come back, say whether it was the right account.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clawcoil::audit::{Decision, EventKind};
use clawcoil::clock::random;
use clawcoil::connect::ConnectError;
use clawcoil::id::{ClientName, ConnectionId, Digest, Generation, Owner, UserId};
use clawcoil::oauth::ErrorKind;
use clawcoil::vault::{Connection, Document};
use serde::{Deserialize, Serialize};
use url::Url;
use zeroize::Zeroizing;

use super::redirect::redirect_uri;
use super::sessions::{Sessions, note, unknown, update};
use super::{Session, SessionState};
use crate::exit::chain;
use crate::serve::{App, Kind, Problem};

const ATTEMPT: &str = "connect-attempt";

/// Who opens a link, as far as their browser proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Opener {
    /// Signed in as this user.
    User(UserId),
    /// Signed in, and no user: an operator's account is not connected in a user's name.
    Staff,
    /// Not signed in.
    Unknown,
}

/// A browser, by the name of its session with this host: what is begun in one browser is not ended in another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Browser<'a>(pub(crate) &'a str);

/// Why a session is not opened for somebody. It tells nothing of the session.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// They have to sign in first.
    SignIn,
    /// They are somebody else than the one who was asked.
    NotAsked,
    /// It is over, or what is asked does not fit where it stands.
    Over(SessionState),
    /// There is none, or it can't be done now.
    Problem(Problem),
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SignIn => f.write_str("sign in first"),
            Self::NotAsked => f.write_str("this link is for somebody else"),
            Self::Over(state) => write!(f, "the connect session is {}", state.as_str()),
            Self::Problem(problem) => f.write_str(problem.detail()),
        }
    }
}

/// A person who is on the way to the provider.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) session: Session,
    /// The provider's consent page.
    pub(crate) url: Url,
}

/// A person who has come back.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) session: Session,
    /// What to say where nothing was connected and it is worth trying again.
    pub(crate) mishap: Option<String>,
    /// For the app: proves once that its browser was here.
    pub(crate) code: Option<Zeroizing<String>>,
}

/// Binds what comes back from a provider to the session and the browser for which it was begun.
#[derive(Serialize, Deserialize)]
struct Attempt {
    session: String,
    browser: String,
}

impl Sessions {
    /// The session, for somebody who opens its link.
    pub(crate) fn opened(&self, app: &App, id: &str, opener: &Opener) -> Result<Session, Refusal> {
        let session = self.get(app, id)?.ok_or_else(unknown)?;
        let app_confirms = session.return_url.is_some();
        match opener {
            Opener::User(user) if *user == session.user => Ok(session),
            Opener::Unknown if app_confirms => Ok(session),
            Opener::Unknown => Err(Refusal::SignIn),
            Opener::User(_) | Opener::Staff => {
                // That it is refused does not depend on the entry.
                let _ = note(app, EventKind::ConnectRefused, Decision::Denied, &session);
                Err(Refusal::NotAsked)
            }
        }
    }

    /// The person goes on: begins the authorization, bound to their browser.
    pub(crate) async fn begin(
        &self,
        app: &App,
        id: &str,
        opener: &Opener,
        browser: Browser<'_>,
    ) -> Result<Begun, Refusal> {
        let session = self.opened(app, id, opener)?;
        if !matches!(session.state, SessionState::Waiting | SessionState::AtProvider) {
            return Err(Refusal::Over(session.state));
        }
        note(app, EventKind::ConnectOpened, Decision::Allowed, &session)?;
        let entry = app.host.catalogue().get(&session.provider).ok_or_else(unknown)?;
        let redirect =
            redirect_uri(entry, &app.origins).map_err(|error| Problem::new(Kind::Unavailable, error.to_string()))?;
        let owner = Owner::User(session.user.clone());
        let connector = app.host.connector();
        let started = connector
            .start(&owner, &session.provider, &session.account, &session.scopes, &redirect)
            .await
            .map_err(|error| Problem::new(Kind::Unavailable, chain(&error)))?;
        let state = state_of(&started.url).ok_or_else(unknown)?;
        let attempt = Attempt { session: id.to_owned(), browser: browser.0.to_owned() };
        let vault = app.host.vault();
        let document = Document {
            kind: ATTEMPT,
            lookup: vault.lookup_of(ATTEMPT, &state),
            owner,
            expires_at: Some(started.expires_at),
            contents: serde_json::to_string(&attempt).unwrap_or_default().into(),
            revision: Generation(0),
        };
        vault.put_document(&document).await.map_err(Problem::from)?;
        let session = update(app, id, |session, _| match session.state {
            SessionState::Waiting | SessionState::AtProvider => {
                session.state = SessionState::AtProvider;
                Ok(())
            }
            _ => Err(Refusal::Over(session.state.clone())),
        })
        .await?;
        Ok(Begun { session, url: started.url })
    }

    /// The browser has come back from the provider with this query.
    pub(crate) async fn arrived(&self, app: &App, query: &str, browser: Browser<'_>) -> Result<Arrived, Refusal> {
        let lost = || {
            Problem::new(
                Kind::NotFound,
                "what the provider sent belongs to nothing that was begun in this browser: open the link that you were given again",
            )
        };
        let vault = app.host.vault();
        let state = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "state").map(|(_, v)| v);
        let lookup = state.map(|state| vault.lookup_of(ATTEMPT, &state)).ok_or_else(lost)?;
        let known = vault.document(ATTEMPT, &lookup).map_err(Problem::from)?.ok_or_else(lost)?;
        let attempt: Attempt = serde_json::from_str(&known.contents).map_err(|_| lost())?;
        if attempt.browser != browser.0 {
            // Whoever begun it may still come back; who else has the address gets nothing by it.
            return Err(lost().into());
        }
        if vault.take_document(ATTEMPT, &lookup).await.map_err(Problem::from)?.is_none() {
            return Err(lost().into());
        }
        let id = attempt.session;
        let session = self.get(app, &id)?.ok_or_else(unknown)?;
        if session.state != SessionState::AtProvider {
            return Err(Refusal::Over(session.state));
        }
        let owner = Owner::User(session.user.clone());
        let (state, mishap) = match app.host.connector().callback(&owner, query).await {
            Ok(connection) => (SessionState::Unconfirmed(connection.id), None),
            Err(error) => after(&error),
        };
        let code = (session.return_url.is_some() && state.connection().is_some())
            .then(|| Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(random::<24>(app.host.clock().as_ref()))));
        let digest = code.as_ref().map(|code| Digest::of(code.as_bytes()).to_string());
        let made = state.connection();
        let done = update(app, &id, |session, code| match session.state {
            SessionState::AtProvider => {
                session.state = state.clone();
                code.clone_from(&digest);
                Ok(())
            }
            _ => Err(Refusal::Over(session.state.clone())),
        });
        let session = match done.await {
            Ok(session) => session,
            Err(refusal) => {
                // It ended meanwhile: what was just connected is nobody's.
                self.forget(app, made).await;
                return Err(refusal);
            }
        };
        if session.state == SessionState::Declined {
            let _ = note(app, EventKind::ConnectDeclined, Decision::Denied, &session);
        }
        Ok(Arrived { session, mishap, code })
    }

    /// The person looked at the account and wants it.
    pub(crate) async fn confirm(&self, app: &App, id: &str, opener: &Opener) -> Result<Session, Refusal> {
        let session = self.opened(app, id, opener)?;
        if session.return_url.is_some() && *opener == Opener::Unknown {
            // A browser alone proves nothing there; the app does.
            return Err(Refusal::SignIn);
        }
        self.confirmed(app, &session).await
    }

    /// The embedding app confirms as its user, with the code that its browser brought back.
    pub(crate) async fn confirm_by_code(
        &self,
        app: &App,
        id: &str,
        client: &ClientName,
        user: &UserId,
        code: &str,
    ) -> Result<Session, Refusal> {
        let session = self.get(app, id)?.filter(|session| session.client == *client && session.user == *user);
        let session = session.ok_or_else(unknown)?;
        let given = Digest::of(code.as_bytes()).to_string();
        // The code goes with the first good use; a wrong one changes nothing.
        let taken = update(app, id, |session, code| match (&session.state, code.take()) {
            (SessionState::Unconfirmed(_), Some(expected)) if expected == given => Ok(()),
            (SessionState::Unconfirmed(_), _) => {
                Err(Problem::new(Kind::Forbidden, "the code is not the one that the browser brought back"))
            }
            (state, _) => Err(Problem::new(Kind::Conflict, format!("the connect session is {}", state.as_str()))),
        });
        taken.await?;
        self.confirmed(app, &session).await
    }

    async fn confirmed(&self, app: &App, session: &Session) -> Result<Session, Refusal> {
        let SessionState::Unconfirmed(connection) = session.state else {
            return Err(Refusal::Over(session.state.clone()));
        };
        // The connection first: a session that says connected must be true.
        match app.host.connector().confirm(connection).await {
            Ok(_) => {}
            Err(ConnectError::UnknownConnection(_)) => return Err(Refusal::Over(SessionState::Expired)),
            Err(error) => return Err(Problem::new(Kind::Unavailable, chain(&error)).into()),
        }
        update(app, &session.id, |session, _| match session.state {
            SessionState::Unconfirmed(_) | SessionState::Connected(_) | SessionState::Expired => {
                session.state = SessionState::Connected(connection);
                Ok(())
            }
            _ => Err(Refusal::Over(session.state.clone())),
        })
        .await
    }

    /// The person says no: to being asked, or to the account that was connected, which is disconnected then.
    pub(crate) async fn decline(&self, app: &App, id: &str, opener: &Opener) -> Result<Session, Refusal> {
        let before = self.opened(app, id, opener)?;
        let session = update(app, id, |session, code| {
            if session.state.is_final() {
                return Err(Refusal::Over(session.state.clone()));
            }
            session.state = SessionState::Declined;
            *code = None;
            Ok(())
        })
        .await?;
        self.forget(app, before.state.connection()).await;
        // That it was declined stands, whether or not it can be told.
        let _ = note(app, EventKind::ConnectDeclined, Decision::Denied, &session);
        Ok(session)
    }

    /// What the person is asked to confirm.
    #[expect(clippy::unused_self, reason = "sessions are looked up by the one who has them")]
    pub(crate) fn connection(&self, app: &App, session: &Session) -> Result<Option<Arc<Connection>>, Problem> {
        let Some(id) = session.state.connection() else { return Ok(None) };
        Ok(app.host.vault().connection(id)?)
    }

    /// Disconnects what nobody wants, here and at the provider.
    async fn forget(&self, app: &App, connection: Option<ConnectionId>) {
        let Some(id) = connection else { return };
        match app.host.connector().disconnect(id).await {
            Ok(_) | Err(ConnectError::UnknownConnection(_)) => {}
            // It can't be used in any case: it was never confirmed.
            Err(error) => tracing::warn!(error = chain(&error), "an account that was not wanted stays unconfirmed"),
        }
    }
}

/// Where a session stands after an answer that connected nothing, and what the person is told.
fn after(error: &ConnectError) -> (SessionState, Option<String>) {
    let again = |why: String| (SessionState::Waiting, Some(why));
    match error {
        ConnectError::OAuth(oauth) => match oauth.kind() {
            ErrorKind::Denied => (SessionState::Declined, None),
            ErrorKind::Transient { .. } | ErrorKind::Network | ErrorKind::InvalidGrant => again(chain(error)),
            _ => (SessionState::Failed(chain(error)), None),
        },
        ConnectError::UnknownState | ConnectError::Redirect(_) => again(chain(error)),
        // The tokens are stored and the log does not tell: they stay unusable, and the operator has to act first.
        _ => (SessionState::Failed(chain(error)), None),
    }
}

fn state_of(url: &Url) -> Option<String> {
    url.query_pairs().find(|(name, _)| name == "state").map(|(_, state)| state.into_owned())
}
