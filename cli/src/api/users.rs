//! The users that the agent knows, for operators.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use clawcoil::id::UserId;
use clawcoil::vault;
use serde::Serialize;
use utoipa::ToSchema;

use super::body::Query;
use super::page::PageQuery;
use crate::callers::{Scope, Subject, Tokens};
use crate::serve::{Bearer, Problem, Shared};

/// A user.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = User)]
pub(crate) struct UserBody {
    #[schema(example = "alice")]
    user: String,
    /// Accounts that are connected.
    connections: usize,
    /// Accounts of those that have to be connected again.
    needs_reconnect: usize,
    /// Tokens of this host with which programs call for this user.
    credentials: usize,
}

/// A page of users.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Users {
    /// By name.
    users: Vec<UserBody>,
    /// The `cursor` of the next page, if there is one.
    next_cursor: Option<String>,
}

/// The users that the agent knows
///
/// Those who have an account connected, and those for whom a program has a token. There may be others, whom an identity provider
/// knows.
#[utoipa::path(get, path = "/v1/users", tag = "users", operation_id = "listUsers", params(PageQuery),
    security(("bearer" = ["admin"])), responses((status = 200, description = "A page of users", body = Users)))]
pub(crate) async fn list(
    State(app): State<Shared>,
    bearer: Bearer,
    Query(query): Query<PageQuery>,
) -> Result<Json<Users>, Problem> {
    bearer.authenticated().require(Scope::Admin)?;
    let page = query.of("users")?;
    let mut users: BTreeMap<UserId, UserBody> = BTreeMap::new();
    for connection in app.host.vault().connections(None)? {
        if let Some(user) = connection.owner.user() {
            let entry = users.entry(user.clone()).or_default();
            entry.connections += 1;
            entry.needs_reconnect += usize::from(matches!(connection.state, vault::State::NeedsReconnect { .. }));
        }
    }
    for token in Tokens::of(&app.host).list()? {
        if let Subject::User(user) = token.subject {
            users.entry(user).or_default().credentials += 1;
        }
    }
    let users = users.into_iter().map(|(user, body)| (user.to_string(), UserBody { user: user.to_string(), ..body }));
    let (users, next_cursor) = page.cut(users);
    Ok(Json(Users { users, next_cursor }))
}
