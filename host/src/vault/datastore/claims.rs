//! Claims and what ends them, as statements.

use std::path::Path;

use rusqlite::{Connection as Sql, named_params, params};

use super::documents::insert_document;
use super::row::{millis, reason, scopes_text, timestamp};
use super::sqlite::{Sqlite, bump, failed, one_connection, statement};
use super::{ClaimRow, Claimed, ConnectionRow, DocumentRow, GivenBack};
use crate::clock::Timestamp;
use crate::id::{ConnectionId, Generation};
use crate::vault::connection::State;
use crate::vault::error::VaultError;

/// Who claims, when, and until when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lessee {
    pub(crate) id: [u8; 16],
    pub(crate) now: Timestamp,
    pub(crate) until: Timestamp,
}

impl Sqlite {
    /// Claims what is due, the longest due first.
    pub(crate) async fn claim_due(&self, lessee: Lessee, limit: usize) -> Result<Vec<ClaimRow>, VaultError> {
        let (vault, path) = (self.vault, self.path.clone());
        self.writer
            .write("claim what is due", move |sql| {
                let fail = |source| failed(&path, "claim what is due", source);
                let due: Vec<[u8; 16]> = statement(
                    sql,
                    "SELECT id FROM connections INDEXED BY connections_due WHERE vault = ?1 AND due_at <= ?2 ORDER BY due_at LIMIT ?3",
                )
                .map_err(fail)?
                .query_map(params![vault, millis(lessee.now), limit], |row| row.get(0))
                .and_then(Iterator::collect)
                .map_err(fail)?;
                let mut claims = Vec::with_capacity(due.len());
                for id in due {
                    let id = ConnectionId::from_bytes(id);
                    if let Claimed::Yes(claim) = claim(&path, sql, vault, id, None, lessee)? {
                        claims.push(claim);
                    }
                }
                Ok(claims)
            })
            .await
    }

    pub(crate) fn next_due(&self) -> Result<Option<Timestamp>, VaultError> {
        let due: Option<i64> = self.read("read what is due next", |sql| {
            statement(sql, "SELECT min(due_at) FROM connections WHERE vault = ?1 AND due_at IS NOT NULL")?
                .query_row([self.vault], |row| row.get(0))
        })?;
        Ok(due.and_then(timestamp))
    }

    pub(crate) async fn claim(
        &self,
        id: ConnectionId,
        base: Generation,
        lessee: Lessee,
    ) -> Result<Claimed, VaultError> {
        let (vault, path) = (self.vault, self.path.clone());
        self.writer.write("claim a connection", move |sql| claim(&path, sql, vault, id, Some(base), lessee)).await
    }

    /// Stores new tokens, if their base is still the current generation: whoever holds the lease by now.
    pub(crate) async fn commit(
        &self,
        base: Generation,
        row: ConnectionRow,
        change: DocumentRow,
    ) -> Result<(), VaultError> {
        let vault = self.vault;
        let id = row.connection.id;
        let changed = self
            .write("store new tokens", move |sql| {
                let c = &row.connection;
                let changed = statement(
                    sql,
                    "UPDATE connections SET generation = :generation, scopes = :scopes, api_origin = :api_origin,
                        account_label = :account_label, token_type = :token_type, state = :state, reason = NULL, since = NULL,
                        expires_at = :expires_at, refresh_at = :refresh_at, due_at = :refresh_at, grant_ends_at = :grant_ends_at,
                        access = :access, refresh = :refresh, previous = :previous,
                        lease_owner = NULL, lease_until = NULL, outcome_unknown = 0
                     WHERE vault = :vault AND id = :id AND generation = :base",
                )?
                .execute(named_params! {
                    ":id": c.id.as_bytes(), ":vault": vault, ":base": base.0, ":generation": c.generation.0,
                    ":scopes": scopes_text(&c.scopes), ":api_origin": c.api_origin.as_ref().map(ToString::to_string),
                    ":account_label": c.account_label, ":token_type": c.token_type, ":state": c.state.as_str(),
                    ":expires_at": c.expires_at.map(millis), ":refresh_at": c.refresh_at.map(millis),
                    ":grant_ends_at": c.grant_ends_at.map(millis),
                    ":access": row.access, ":refresh": row.refresh, ":previous": row.previous,
                })?;
                if changed == 1 {
                    insert_document(sql, vault, &change)?;
                }
                bump(sql, vault)?;
                Ok(changed)
            })
            .await?;
        if changed == 1 { Ok(()) } else { Err(VaultError::Moved { connection: id, base }) }
    }

    /// Gives a claim back. Nothing happens when the generation moved or somebody claimed later: they decide.
    pub(crate) async fn give_back(
        &self,
        id: ConnectionId,
        base: Generation,
        fence: u64,
        how: GivenBack,
    ) -> Result<(), VaultError> {
        let vault = self.vault;
        self.write("give a claim back", move |sql| {
            const WHERE: &str = "WHERE vault = ?1 AND id = ?2 AND generation = ?3 AND fence = ?4";
            let key = (vault, id.as_bytes(), base.0, fence);
            match how {
                GivenBack::Ended(state, change) => {
                    let (reason, since) = reason(&state).unzip();
                    let ended = statement(
                        sql,
                        &format!(
                            "UPDATE connections SET state = ?5, reason = ?6, since = ?7, refresh_at = NULL, due_at = NULL,
                                lease_owner = NULL, lease_until = NULL, outcome_unknown = 0 {WHERE}"
                        ),
                    )?
                    .execute(params![key.0, key.1, key.2, key.3, state.as_str(), reason, since])?;
                    if ended == 1 {
                        insert_document(sql, vault, &change)?;
                    }
                }
                GivenBack::Until { at, unknown } => {
                    // An attempt of unknown outcome keeps its lease: nobody may ask before it can no longer return.
                    let lease = unknown.then(|| millis(at));
                    statement(
                        sql,
                        &format!(
                            "UPDATE connections SET due_at = ?5, lease_owner = NULL, lease_until = ?6,
                                outcome_unknown = outcome_unknown OR ?7 {WHERE}"
                        ),
                    )?
                    .execute(params![key.0, key.1, key.2, key.3, millis(at), lease, unknown])?;
                }
            }
            bump(sql, vault)
        })
        .await
    }
}

fn claim(
    path: &Path,
    sql: &Sql,
    vault: i64,
    id: ConnectionId,
    base: Option<Generation>,
    lessee: Lessee,
) -> Result<Claimed, VaultError> {
    let fail = |source| failed(path, "claim a connection", source);
    let Some(row) = one_connection(path, sql, vault, id)? else { return Ok(Claimed::Ended) };
    let connection = row.connection;
    if base.is_some_and(|base| base != connection.generation) {
        return Ok(Claimed::Moved(connection.generation));
    }
    if connection.state != State::Active {
        return Ok(Claimed::Ended);
    }
    let (held, fence, unknown, until): (bool, u64, bool, Option<i64>) =
        statement(sql, "SELECT lease_owner IS NOT NULL, fence, outcome_unknown, lease_until FROM connections WHERE vault = ?1 AND id = ?2")
            .and_then(|mut s| {
                s.query_row(params![vault, id.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
            })
            .map_err(fail)?;
    if let Some(until) = until.filter(|until| *until > millis(lessee.now)) {
        return Ok(Claimed::Busy(timestamp(until).unwrap_or(Timestamp::MAX)));
    }
    // A lease that ran out was an attempt of which nobody knows how it ended.
    let after_unknown = unknown || held;
    statement(
        sql,
        "UPDATE connections SET lease_owner = ?3, lease_until = ?4, due_at = ?4, fence = fence + 1, outcome_unknown = ?5
         WHERE vault = ?1 AND id = ?2",
    )
    .and_then(|mut s| s.execute(params![vault, id.as_bytes(), lessee.id, millis(lessee.until), after_unknown]))
    .and_then(|_| bump(sql, vault))
    .map_err(fail)?;
    Ok(Claimed::Yes(ClaimRow { connection, fence: fence + 1, after_unknown }))
}
