//! Between columns and types: nothing is read that isn't typed.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::Arc;

use rusqlite::Row;
use rusqlite::types::FromSql;

use super::{ConnectionRow, KeyRow, Namespace};
use crate::clock::{Timestamp, from_milliseconds};
use crate::id::{ConnectionId, Generation, Owner, Scope};
use crate::vault::connection::{Connection, State};
use crate::vault::envelope::KeyId;
use crate::vault::error::VaultError;

pub(super) fn millis(at: Timestamp) -> i64 {
    at.as_millisecond()
}

pub(super) fn timestamp(millis: i64) -> Option<Timestamp> {
    from_milliseconds(millis)
}

pub(super) fn owner_text(owner: &Owner) -> String {
    match owner {
        Owner::Agent => "agent".to_owned(),
        Owner::User(user) => format!("user {user}"),
    }
}

pub(super) fn parse_owner(text: &str) -> Option<Owner> {
    match text {
        "agent" => Some(Owner::Agent),
        _ => text.strip_prefix("user ").and_then(|user| user.parse().ok()).map(Owner::User),
    }
}

pub(super) fn namespace_text(namespace: &Namespace) -> String {
    match namespace {
        Namespace::Owner(owner) => owner_text(owner),
        Namespace::Derived => "derived".to_owned(),
    }
}

pub(super) fn parse_namespace(text: &str) -> Option<Namespace> {
    if text == "derived" { Some(Namespace::Derived) } else { parse_owner(text).map(Namespace::Owner) }
}

pub(super) fn scopes_text(scopes: &BTreeSet<Scope>) -> String {
    scopes.iter().map(Scope::as_str).collect::<Vec<_>>().join(" ")
}

/// The reason and the moment of a state that has them.
pub(super) fn reason(state: &State) -> Option<(&'static str, i64)> {
    match state {
        State::NeedsReconnect { reason, since } => Some((reason.as_str(), millis(*since))),
        State::Unconfirmed | State::Active => None,
    }
}

pub(super) fn key_row(namespace: Namespace, row: &Row<'_>) -> rusqlite::Result<KeyRow> {
    Ok(KeyRow {
        namespace,
        id: KeyId(row.get("id")?),
        root_version: row.get("root_version")?,
        wrapped: row.get("wrapped")?,
    })
}

/// Reads the columns of one connection; each error names it and the column.
pub(super) fn connection_row(row: &Row<'_>) -> Result<ConnectionRow, VaultError> {
    let id = row.get("id").map(ConnectionId::from_bytes).map_err(|_| value("id", "a connection".to_owned()))?;
    let columns = Columns { row, id };
    let state: String = columns.get("state")?;
    let state = match state.as_str() {
        "unconfirmed" => State::Unconfirmed,
        "active" => State::Active,
        "needs-reconnect" => State::NeedsReconnect {
            reason: columns.parse("reason")?,
            since: columns.time("since")?.ok_or_else(|| columns.bad("since"))?,
        },
        _ => return Err(columns.bad("state")),
    };
    let scopes: String = columns.get("scopes")?;
    let connection = Connection {
        id,
        owner: parse_owner(&columns.get::<String>("owner")?).ok_or_else(|| columns.bad("owner"))?,
        provider: columns.parse("provider")?,
        account: columns.parse("account")?,
        kind: columns.parse("kind")?,
        scopes: scopes
            .split_ascii_whitespace()
            .map(|scope| scope.parse().map_err(|_| columns.bad("scopes")))
            .collect::<Result<_, _>>()?,
        api_origin: columns
            .get::<Option<String>>("api_origin")?
            .map(|text| text.parse().map_err(|_| columns.bad("api_origin")))
            .transpose()?,
        account_label: columns.get("account_label")?,
        token_type: columns.get("token_type")?,
        state,
        generation: Generation(columns.get("generation")?),
        created_at: columns.time("created_at")?.ok_or_else(|| columns.bad("created_at"))?,
        last_used_at: columns.time("last_used_at")?,
        expires_at: columns.time("expires_at")?,
        refresh_at: columns.time("refresh_at")?,
        grant_ends_at: columns.time("grant_ends_at")?,
    };
    Ok(ConnectionRow {
        connection: Arc::new(connection),
        access: columns.get("access")?,
        refresh: columns.get("refresh")?,
        previous: columns.get("previous")?,
    })
}

struct Columns<'a> {
    row: &'a Row<'a>,
    id: ConnectionId,
}

impl Columns<'_> {
    fn bad(&self, column: &'static str) -> VaultError {
        value(column, format!("connection {}", self.id))
    }

    fn get<T: FromSql>(&self, column: &'static str) -> Result<T, VaultError> {
        self.row.get(column).map_err(|_| self.bad(column))
    }

    fn parse<T: FromStr>(&self, column: &'static str) -> Result<T, VaultError> {
        self.get::<String>(column)?.parse().map_err(|_| self.bad(column))
    }

    fn time(&self, column: &'static str) -> Result<Option<Timestamp>, VaultError> {
        self.get::<Option<i64>>(column)?.map(|millis| timestamp(millis).ok_or_else(|| self.bad(column))).transpose()
    }
}

fn value(column: &'static str, row: String) -> VaultError {
    VaultError::Value { table: "connections", column, row }
}
