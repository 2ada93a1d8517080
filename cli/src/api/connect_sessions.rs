//! Connect sessions, for agents that ask and apps that confirm.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use clawcoil::id::{AccountAlias, Caller, ProviderId, Scope as AccountScope, SkillName};
use serde::{Deserialize, Serialize};
use url::Url;

use super::body::{Json as JsonBody, Path};
use crate::callers::Scope;
use crate::connecting::{NewSession, Refusal, Session, SessionState};
use crate::serve::{App, Bearer, Kind, Problem, Shared};

/// A session that is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewConnectSession {
    provider: String,
    /// The owner's name for the account; `default` where it is left out.
    account: Option<String>,
    /// Which scopes; with a skill, those that it was granted.
    #[serde(default)]
    scopes: Vec<String>,
    /// For which skill.
    skill: Option<String>,
    /// Where the browser goes back to, for apps that know their users: one of the host's `return_urls`.
    return_url: Option<String>,
}

/// A session as it stands.
#[derive(Debug, Serialize)]
pub(crate) struct ConnectSessionBody {
    id: String,
    /// What the user opens, and nobody else.
    url: String,
    /// `waiting`, `at-provider`, `unconfirmed`, `connected`, `declined`, `failed` or `expired`.
    state: &'static str,
    /// Whether nothing changes it any more.
    settled: bool,
    provider: String,
    account: String,
    scopes: Vec<String>,
    skill: Option<String>,
    /// What was connected, once there is something.
    connection: Option<ConnectedBody>,
    /// Why it failed.
    reason: Option<String>,
    expires_at: String,
}

/// What was connected.
#[derive(Debug, Serialize)]
pub(crate) struct ConnectedBody {
    id: String,
    /// Which account it is, in the provider's words.
    account_label: Option<String>,
}

/// What the app's browser brought back.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Confirmation {
    code: String,
}

/// Asks for an account of the caller's user.
pub(crate) async fn create(
    State(app): State<Shared>,
    bearer: Bearer,
    JsonBody(new): JsonBody<NewConnectSession>,
) -> Result<Response, Problem> {
    let caller = bearer.caller(Scope::Connect)?;
    let session = app.sessions.create(&app, new.read(caller)?).await?;
    let location = format!("/v1/connect-sessions/{}", session.id);
    let body = body(&app, session)?;
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(body)).into_response())
}

/// A session that this caller asked for.
pub(crate) async fn show(
    State(app): State<Shared>,
    bearer: Bearer,
    Path(id): Path<String>,
) -> Result<Json<ConnectSessionBody>, Problem> {
    let caller = bearer.caller(Scope::Connect)?;
    let session = app.sessions.get(&app, &id)?.filter(|session| asked(session, &caller)).ok_or_else(unknown)?;
    body(&app, session).map(Json)
}

/// The app says in its user's name that the account is the right one.
pub(crate) async fn confirm(
    State(app): State<Shared>,
    bearer: Bearer,
    Path(id): Path<String>,
    JsonBody(Confirmation { code }): JsonBody<Confirmation>,
) -> Result<Json<ConnectSessionBody>, Problem> {
    let caller = bearer.caller(Scope::Connect)?;
    let confirmed = app.sessions.confirm_by_code(&app, &id, &caller.client, &caller.user, &code).await;
    body(&app, confirmed.map_err(problem)?).map(Json)
}

/// The app says in its user's name that it is not.
pub(crate) async fn decline(
    State(app): State<Shared>,
    bearer: Bearer,
    Path(id): Path<String>,
) -> Result<Json<ConnectSessionBody>, Problem> {
    let caller = bearer.caller(Scope::Connect)?;
    let session = app.sessions.get(&app, &id)?.filter(|session| asked(session, &caller)).ok_or_else(unknown)?;
    let opener = crate::connecting::Opener::User(caller.user);
    body(&app, app.sessions.decline(&app, &session.id, &opener).await.map_err(problem)?).map(Json)
}

impl NewConnectSession {
    fn read(self, caller: Caller) -> Result<NewSession, Problem> {
        fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Problem> {
            text.parse().map_err(|error| Problem::new(Kind::Invalid, format!("{error}")))
        }
        let scopes: BTreeSet<AccountScope> = self.scopes.iter().map(|scope| parsed(scope)).collect::<Result<_, _>>()?;
        Ok(NewSession {
            client: caller.client,
            user: caller.user,
            provider: parsed::<ProviderId>(&self.provider)?,
            account: self.account.as_deref().map(parsed::<AccountAlias>).transpose()?,
            scopes,
            skill: self.skill.as_deref().map(parsed::<SkillName>).transpose()?,
            return_url: self.return_url.as_deref().map(parsed::<Url>).transpose()?,
        })
    }
}

fn asked(session: &Session, caller: &Caller) -> bool {
    session.client == caller.client && session.user == caller.user
}

fn unknown() -> Problem {
    Problem::new(Kind::NotFound, "there is no such connect session of this caller")
}

fn problem(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::Problem(problem) => problem,
        Refusal::SignIn | Refusal::NotAsked => unknown(),
        Refusal::Over(_) => Problem::new(Kind::Conflict, refusal.to_string()),
    }
}

fn body(app: &App, session: Session) -> Result<ConnectSessionBody, Problem> {
    let connection = match session.state.connection() {
        None => None,
        Some(id) => {
            let known = app.host.vault().connection(id)?;
            let account_label = known.and_then(|connection| connection.account_label.clone());
            Some(ConnectedBody { id: id.to_string(), account_label })
        }
    };
    Ok(ConnectSessionBody {
        url: session.url.to_string(),
        state: session.state.as_str(),
        settled: session.state.is_final(),
        provider: session.provider.to_string(),
        account: session.account.to_string(),
        scopes: session.scopes.iter().map(ToString::to_string).collect(),
        skill: session.skill.as_ref().map(ToString::to_string),
        connection,
        reason: if let SessionState::Failed(why) = &session.state { Some(why.clone()) } else { None },
        expires_at: session.expires_at.to_string(),
        id: session.id,
    })
}
