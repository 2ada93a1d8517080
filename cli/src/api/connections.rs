//! Connected accounts, without their tokens.

use axum::Json;
use axum::extract::State;
use clawcoil::clock::Timestamp;
use clawcoil::id::{ConnectionId, Owner, ProviderId, UserId};
use clawcoil::vault::{self, Connection};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::body::{Path, Query, filtered, named};
use super::page::Page;
use crate::callers::{Refused, Scope};
use crate::output::texts;
use crate::serve::{App, Bearer, Kind, Problem, Shared};

/// A connected account.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Connection)]
pub(crate) struct ConnectionBody {
    #[schema(example = "con_0123456789abcdef0123456789abcdef")]
    id: String,
    /// Whose it is; absent: the agent's own.
    #[schema(example = "alice")]
    user: Option<String>,
    #[schema(example = "google")]
    provider: String,
    /// The owner's name for it.
    #[schema(example = "default")]
    account: String,
    /// Which account it is, in the provider's words.
    account_label: Option<String>,
    /// How its tokens are got.
    #[schema(example = "authorization-code")]
    kind: &'static str,
    scopes: Vec<String>,
    /// Where its API is, where that is not the same for all accounts.
    api_origin: Option<String>,
    #[schema(value_type = ConnectionStateBody)]
    state: &'static str,
    /// Why it has to be connected again.
    #[schema(example = "refused")]
    reason: Option<&'static str>,
    /// Counts its tokens.
    generation: u64,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    last_used_at: Option<String>,
    /// When the access token expires.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// When it is refreshed next.
    #[schema(format = DateTime)]
    refresh_at: Option<String>,
    /// When the provider ends the grant, whatever is refreshed.
    #[schema(format = DateTime)]
    grant_ends_at: Option<String>,
}

/// How an account stands.
#[derive(ToSchema)]
#[schema(as = ConnectionState, rename_all = "kebab-case")]
#[expect(dead_code, reason = "it only describes `State::as_str`")]
enum ConnectionStateBody {
    Unconfirmed,
    Active,
    NeedsReconnect,
}

/// A page of connected accounts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Connections {
    /// The oldest first.
    connections: Vec<ConnectionBody>,
    /// The `cursor` of the next page, if there is one.
    next_cursor: Option<String>,
}

/// An account that was disconnected.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Disconnected {
    /// As it was.
    connection: ConnectionBody,
    /// What became of its tokens at the provider: `ended`, `failed` (a person ends them in the account's settings), or `not-offered`
    /// (the provider has no way to).
    #[schema(value_type = AtProvider)]
    at_provider: &'static str,
}

/// What became of the tokens of a removed account.
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
#[expect(dead_code, reason = "it only describes `Disconnected::at_provider`")]
enum AtProvider {
    Ended,
    Failed,
    NotOffered,
}

/// Which accounts are asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Which {
    /// Only those of this user.
    #[param(example = "alice", pattern = r"^[A-Za-z0-9][A-Za-z0-9._@:/+\-]{0,127}$")]
    user: Option<String>,
    /// Only those at this provider.
    #[param(example = "google", pattern = "^[a-z][a-z0-9-]{0,63}$")]
    provider: Option<String>,
    /// How many entries at most: 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<usize>,
    /// Where the page begins: `next_cursor` of the page before.
    #[param(max_length = 1024)]
    cursor: Option<String>,
}

/// Whose accounts a credential reaches.
enum Reach {
    /// An operator's credential.
    All,
    Own(UserId),
}

impl Reach {
    fn of(bearer: &Bearer) -> Result<Self, Problem> {
        if bearer.authenticated().require(Scope::Admin).is_ok() {
            return Ok(Self::All);
        }
        bearer.caller(Scope::Connect).map(|caller| Self::Own(caller.user))
    }

    fn covers(&self, owner: &Owner) -> bool {
        match self {
            Self::All => true,
            Self::Own(user) => owner.user() == Some(user),
        }
    }
}

/// The connected accounts
///
/// With the scope `connect` those of the caller's user, with `admin` all.
#[utoipa::path(get, path = "/v1/connections", tag = "connections", operation_id = "listConnections", params(Which),
    security(("bearer" = ["connect"]), ("bearer" = ["admin"])),
    responses((status = 200, description = "A page of accounts", body = Connections)))]
pub(crate) async fn list(
    State(app): State<Shared>,
    bearer: Bearer,
    Query(which): Query<Which>,
) -> Result<Json<Connections>, Problem> {
    let reach = Reach::of(&bearer)?;
    let page = Page::read("connections", which.limit, which.cursor.as_deref())?;
    let provider = filtered::<ProviderId>("provider", which.provider.as_deref())?;
    let owner = match (filtered::<UserId>("user", which.user.as_deref())?, &reach) {
        (None, Reach::All) => None,
        (Some(user), Reach::All) => Some(Owner::User(user)),
        (Some(user), Reach::Own(own)) if user != *own => return Err(Refused::OtherUser.into()),
        (_, Reach::Own(own)) => Some(Owner::User(own.clone())),
    };
    let mut connections = app.host.vault().connections(owner.as_ref())?;
    connections.retain(|connection| provider.as_ref().is_none_or(|provider| connection.provider == *provider));
    let mut keyed: Vec<_> = connections.into_iter().map(|connection| (key(&connection), connection)).collect();
    keyed.sort_by(|(a, _), (b, _)| a.cmp(b));
    let (connections, next_cursor) = page.cut(keyed);
    Ok(Json(Connections { connections: connections.iter().map(|connection| body(connection)).collect(), next_cursor }))
}

/// A connected account
#[utoipa::path(get, path = "/v1/connections/{id}", tag = "connections", operation_id = "getConnection",
    params(("id" = String, Path, description = "Its id", example = "con_0123456789abcdef0123456789abcdef")),
    security(("bearer" = ["connect"]), ("bearer" = ["admin"])), responses(
        (status = 200, description = "The account", body = ConnectionBody),
        (status = 404, description = "There is no such account, or it is somebody else's"),
    ))]
pub(crate) async fn show(
    State(app): State<Shared>,
    bearer: Bearer,
    Path(id): Path<String>,
) -> Result<Json<ConnectionBody>, Problem> {
    find(&app, &bearer, &id).map(|connection| Json(body(&connection)))
}

/// Disconnect an account
///
/// Its tokens are removed here and ended at the provider, where the provider has a way to.
#[utoipa::path(delete, path = "/v1/connections/{id}", tag = "connections", operation_id = "disconnect",
    params(("id" = String, Path, description = "Its id")),
    security(("bearer" = ["connect"]), ("bearer" = ["admin"])), responses(
        (status = 200, description = "It is disconnected", body = Disconnected),
        (status = 404, description = "There is no such account, or it is somebody else's"),
    ))]
pub(crate) async fn disconnect(
    State(app): State<Shared>,
    bearer: Bearer,
    Path(id): Path<String>,
) -> Result<Json<Disconnected>, Problem> {
    let found = find(&app, &bearer, &id)?;
    let gone = app.host.connector().disconnect(found.id).await?;
    let at_provider = match &gone.revoked {
        Some(Ok(())) => "ended",
        Some(Err(_)) => "failed",
        None => "not-offered",
    };
    Ok(Json(Disconnected { connection: body(&gone.connection), at_provider }))
}

fn find(app: &App, bearer: &Bearer, id: &str) -> Result<std::sync::Arc<Connection>, Problem> {
    let reach = Reach::of(bearer)?;
    let found = app.host.vault().connection(named::<ConnectionId>(id)?)?;
    found
        .filter(|connection| reach.covers(&connection.owner))
        .ok_or_else(|| Problem::new(Kind::NotFound, "there is no such account that this credential may see"))
}

fn key(connection: &Connection) -> String {
    format!("{:020}{}", connection.created_at.as_millisecond(), connection.id)
}

fn body(connection: &Connection) -> ConnectionBody {
    let time = |at: Option<Timestamp>| at.map(|at| at.to_string());
    ConnectionBody {
        id: connection.id.to_string(),
        user: connection.owner.user().map(ToString::to_string),
        provider: connection.provider.to_string(),
        account: connection.account.to_string(),
        account_label: connection.account_label.clone(),
        kind: connection.kind.as_str(),
        scopes: texts(&connection.scopes),
        api_origin: connection.api_origin.as_ref().map(ToString::to_string),
        state: connection.state.as_str(),
        reason: match &connection.state {
            vault::State::NeedsReconnect { reason, .. } => Some(reason.as_str()),
            vault::State::Unconfirmed | vault::State::Active => None,
        },
        generation: connection.generation.0,
        created_at: connection.created_at.to_string(),
        last_used_at: time(connection.last_used_at),
        expires_at: time(connection.expires_at),
        refresh_at: time(connection.refresh_at),
        grant_ends_at: time(connection.grant_ends_at),
    }
}
