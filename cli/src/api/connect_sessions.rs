//! Connect sessions, for agents that ask and apps that confirm.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use clawcoil::clock::Timestamp;
use clawcoil::id::{AccountAlias, Caller, Digest, ProviderId, Scope as AccountScope, SkillName};
use serde::{Deserialize, Serialize};
use serde_json::json;
use url::Url;
use utoipa::ToSchema;

use super::body::{Json as JsonBody, Path, parsed};
use super::calls;
use super::key::{Key, Keys, REPLAYED, used_otherwise};
use crate::callers::Scope;
use crate::connecting::{NewSession, Refusal, Session, SessionState, Sessions};
use crate::serve::{App, Bearer, Kind, Problem, Shared};

/// A session that is asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewConnectSession {
    /// Where the account is.
    #[schema(example = "google")]
    provider: String,
    /// The owner's name for the account; `default` where it is left out.
    account: Option<String>,
    /// Which scopes; with a skill, those that it was granted.
    #[serde(default)]
    scopes: Vec<String>,
    /// For which skill.
    #[schema(example = "gmail-send")]
    skill: Option<String>,
    /// Where the browser goes back to, for apps that know their users: one of the host's `return_urls`.
    #[schema(format = "uri")]
    return_url: Option<String>,
}

/// A session as it stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConnectSession)]
pub(crate) struct ConnectSessionBody {
    #[schema(example = "cs_0123456789abcdefghijkl")]
    id: String,
    /// What the user opens, and nobody else.
    #[schema(format = "uri")]
    url: String,
    /// How far the person is.
    #[schema(value_type = SessionStateBody)]
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
    #[schema(format = DateTime)]
    expires_at: String,
}

/// How far the person is.
#[derive(ToSchema)]
#[schema(as = ConnectSessionState, rename_all = "kebab-case")]
#[expect(dead_code, reason = "it only describes `SessionState::as_str`")]
enum SessionStateBody {
    Waiting,
    AtProvider,
    Unconfirmed,
    Connected,
    Declined,
    Failed,
    Expired,
}

/// What was connected.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Connected)]
pub(crate) struct ConnectedBody {
    #[schema(example = "con_0123456789abcdef0123456789abcdef")]
    id: String,
    /// Which account it is, in the provider's words.
    account_label: Option<String>,
}

/// What the app's browser brought back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Confirmation {
    /// The `code` with which the browser came back.
    code: String,
}

/// Ask for an account of the caller's user
///
/// The answer has the address that the user opens in a browser. Nobody but that user gets anywhere with it.
///
/// With an `Idempotency-Key` one session is made, however often the request is sent: for 24 hours the same request with the same key
/// gets the answer of the first, and the header `Idempotent-Replayed`; ask at its address for how the session stands since. The same
/// key with another request is an error, 422. A request that was refused leaves its key free.
#[utoipa::path(post, path = "/v1/connect-sessions", tag = "connect sessions", operation_id = "createConnectSession",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "The caller's own name for this request, 1 to 255 characters.",
            pattern = "^[!#-~]{1,255}$", example = "8e03978e-40d5-43e8-bc93-6894a57f9324"),
    ),
    request_body = NewConnectSession, security(("bearer" = ["connect"])), responses(
        (status = 201, description = "The session waits for its user", body = ConnectSessionBody,
            headers(
                ("Location" = String, description = "Where the session is"),
                ("Idempotent-Replayed" = Option<String>, description = "`true`: the answer of an earlier request"),
            )),
        (status = 404, description = "There is no such provider or skill"),
        (status = 409, description = "Nothing here can prove that whoever opens the address is that user"),
    ))]
pub(crate) async fn create(
    State(app): State<Shared>,
    bearer: Bearer,
    headers: HeaderMap,
    JsonBody(new): JsonBody<NewConnectSession>,
) -> Result<Response, Problem> {
    let caller = bearer.caller(Scope::Connect)?;
    let key = Key::of(&headers)?;
    let new = new.read(caller)?;
    let (session, replayed) = match key {
        None => (app.sessions.create(&app, Sessions::name(&app), new).await?, false),
        Some(key) => once(&app, &key, new).await?,
    };
    let location = format!("/v1/connect-sessions/{}", session.id);
    let body = body(&app, session)?;
    let mut response = (StatusCode::CREATED, [(header::LOCATION, location)], Json(body)).into_response();
    if replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// For which request a key was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Claim {
    /// A digest of the request.
    request: String,
    /// The session that was made for it, or is to be.
    session: String,
}

/// Makes the session of a key, if the key has none yet. With it comes whether it had.
///
/// The key names the session before there is one: a host that ends in between makes it when the request comes again.
async fn once(app: &App, key: &Key, new: NewSession) -> Result<(Session, bool), Problem> {
    let caller = Caller::new(new.client.clone(), new.user.clone());
    let keys = Keys { vault: app.host.vault(), route: "POST /v1/connect-sessions", caller: &caller };
    let claim = Claim { request: digest(&new), session: Sessions::name(app) };
    let until = app.host.clock().now().saturating_add(calls::MEMORY).unwrap_or(Timestamp::MAX);
    let claimed = match keys.claim(key, &claim, until).await? {
        None => claim,
        Some(before) if before.request != claim.request => return Err(used_otherwise()),
        Some(before) => match app.sessions.get(app, &before.session)? {
            // All else is as it was when the session was made.
            Some(made) => return Ok((Session { state: SessionState::Waiting, ..made }, true)),
            None => before,
        },
    };
    let made = app.sessions.create(app, claimed.session.clone(), new).await;
    // Another request with this key may have made it at the same moment.
    if made.is_err() && app.sessions.get(app, &claimed.session)?.is_none() {
        keys.release(key).await?;
    }
    made.map(|session| (session, false))
}

/// Two requests of one key are the same if they have the same digest.
fn digest(new: &NewSession) -> String {
    let NewSession { provider, account, scopes, skill, return_url, client: _, user: _ } = new;
    let scopes: Vec<&str> = scopes.iter().map(AccountScope::as_str).collect();
    let (account, skill) = (account.as_ref().map(AccountAlias::as_str), skill.as_ref().map(SkillName::as_str));
    let request = json!([provider.as_str(), account, scopes, skill, return_url.as_ref().map(Url::as_str)]);
    Digest::of(request.to_string().as_bytes()).to_string()
}

/// A session that this caller asked for
#[utoipa::path(get, path = "/v1/connect-sessions/{id}", tag = "connect sessions", operation_id = "getConnectSession",
    params(("id" = String, Path, description = "Its id")), security(("bearer" = ["connect"])), responses(
        (status = 200, description = "The session as it stands", body = ConnectSessionBody),
        (status = 404, description = "There is no such session of this caller"),
    ))]
pub(crate) async fn show(
    State(app): State<Shared>,
    bearer: Bearer,
    Path(id): Path<String>,
) -> Result<Json<ConnectSessionBody>, Problem> {
    let caller = bearer.caller(Scope::Connect)?;
    let session = app.sessions.get(&app, &id)?.filter(|session| asked(session, &caller)).ok_or_else(unknown)?;
    body(&app, session).map(Json)
}

/// Confirm the account in the user's name
///
/// For apps whose user came back from the browser with a code: the app says that the account shown is the right one.
#[utoipa::path(post, path = "/v1/connect-sessions/{id}/confirm", tag = "connect sessions",
    operation_id = "confirmConnectSession", params(("id" = String, Path, description = "Its id")),
    request_body = Confirmation, security(("bearer" = ["connect"])), responses(
        (status = 200, description = "The account is connected", body = ConnectSessionBody),
        (status = 404, description = "There is no such session of this caller"),
        (status = 409, description = "The session is over, or not as far as that"),
    ))]
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

/// Decline in the user's name
///
/// What was connected and not confirmed is removed.
#[utoipa::path(post, path = "/v1/connect-sessions/{id}/decline", tag = "connect sessions",
    operation_id = "declineConnectSession", params(("id" = String, Path, description = "Its id")),
    security(("bearer" = ["connect"])), responses(
        (status = 200, description = "Nothing is connected", body = ConnectSessionBody),
        (status = 404, description = "There is no such session of this caller"),
        (status = 409, description = "The session is over"),
    ))]
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

#[cfg(test)]
mod tests {
    use clawcoil::vault::ClientRegistration;

    use super::*;

    #[tokio::test]
    async fn a_key_whose_host_ended_before_its_session_was_made_makes_it_when_it_comes_again() {
        let (_folder, app) = super::super::tests::app().await;
        let client = ClientRegistration { client_id: "tests".to_owned(), client_secret: None };
        app.host.vault().put_client(&"google".parse().unwrap(), client).await.unwrap();
        let caller = Caller::new("bot".parse().unwrap(), "alice".parse().unwrap());
        let new = || NewSession {
            client: caller.client.clone(),
            user: caller.user.clone(),
            provider: "google".parse().unwrap(),
            account: None,
            scopes: BTreeSet::new(),
            skill: None,
            return_url: None,
        };
        let key: Key = "lost".parse().unwrap();
        let keys = Keys { vault: app.host.vault(), route: "POST /v1/connect-sessions", caller: &caller };
        let claim = Claim { request: digest(&new()), session: "cs_lost".to_owned() };
        assert!(
            keys.claim(&key, &claim, app.host.clock().now().saturating_add(calls::MEMORY).unwrap())
                .await
                .unwrap()
                .is_none()
        );
        for replayed in [false, true] {
            let (session, again) = once(&app, &key, new()).await.unwrap();
            assert_eq!((session.id.as_str(), again), ("cs_lost", replayed));
        }
    }
}
