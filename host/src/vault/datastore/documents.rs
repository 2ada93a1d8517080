//! Documents, as statements.

use rusqlite::{Connection as Sql, OptionalExtension as _, Row, params};

use super::DocumentRow;
use super::row::{millis, owner_text, parse_owner, timestamp};
use super::sqlite::{Sqlite, bump, failed, statement};
use crate::clock::Timestamp;
use crate::id::{Generation, Owner};
use crate::vault::error::VaultError;

const COLUMNS: &str = "lookup, owner, expires_at, revision, record";

impl Sqlite {
    /// Whether there was no document of this kind and lookup key yet.
    pub(crate) async fn put_document(&self, row: DocumentRow, now: Timestamp) -> Result<bool, VaultError> {
        let vault = self.vault;
        self.write("store a document", move |sql| {
            statement(sql, "DELETE FROM documents WHERE vault = ?1 AND expires_at <= ?2")?
                .execute(params![vault, millis(now)])?;
            let added = insert_document(sql, vault, &row)?;
            bump(sql, vault)?;
            Ok(added)
        })
        .await
    }

    /// Whether the document still had this revision.
    pub(crate) async fn replace_document(&self, row: DocumentRow, read: Generation) -> Result<bool, VaultError> {
        let vault = self.vault;
        self.write("replace a document", move |sql| {
            let changed = statement(
                sql,
                "UPDATE documents SET expires_at = ?5, revision = ?6, record = ?7
                 WHERE vault = ?1 AND kind = ?2 AND lookup = ?3 AND owner = ?4 AND revision = ?8",
            )?
            .execute(params![
                vault,
                row.kind,
                row.lookup,
                owner_text(&row.owner),
                row.expires_at.map(millis),
                row.revision.0,
                row.record,
                read.0
            ])?;
            bump(sql, vault)?;
            Ok(changed == 1)
        })
        .await
    }

    pub(crate) fn document(&self, kind: &'static str, lookup: [u8; 32]) -> Result<Option<DocumentRow>, VaultError> {
        let columns = self.read("read a document", |sql| {
            statement(sql, &format!("SELECT {COLUMNS} FROM documents WHERE vault = ?1 AND kind = ?2 AND lookup = ?3"))?
                .query_row(params![self.vault, kind, lookup], columns)
                .optional()
        })?;
        columns.map(|columns| document_row(kind, columns)).transpose()
    }

    pub(crate) fn documents(&self, kind: &'static str, owner: Option<&Owner>) -> Result<Vec<DocumentRow>, VaultError> {
        let owner = owner.map(owner_text);
        let found: Vec<Columns> = self.read("read the documents", |sql| {
            statement(
                sql,
                &format!(
                    "SELECT {COLUMNS} FROM documents WHERE vault = ?1 AND kind = ?2 AND (?3 IS NULL OR owner = ?3) ORDER BY rowid"
                ),
            )?
            .query_map(params![self.vault, kind, owner], columns)?
            .collect()
        })?;
        found.into_iter().map(|columns| document_row(kind, columns)).collect()
    }

    /// Takes a document out: only one caller gets it.
    pub(crate) async fn take_document(
        &self,
        kind: &'static str,
        lookup: [u8; 32],
    ) -> Result<Option<DocumentRow>, VaultError> {
        let (vault, path) = (self.vault, self.path.clone());
        self.writer
            .write("take a document", move |sql| {
                let fail = |source| failed(&path, "take a document", source);
                let found = statement(
                    sql,
                    &format!(
                        "DELETE FROM documents WHERE vault = ?1 AND kind = ?2 AND lookup = ?3 RETURNING {COLUMNS}"
                    ),
                )
                .and_then(|mut statement| statement.query_row(params![vault, kind, lookup], columns).optional())
                .map_err(fail)?;
                let Some(found) = found else { return Ok(None) };
                bump(sql, vault).map_err(fail)?;
                document_row(kind, found).map(Some)
            })
            .await
    }
}

/// Stores a document, in whatever transaction; whether there was none of this kind and lookup key yet.
pub(super) fn insert_document(sql: &Sql, vault: i64, row: &DocumentRow) -> rusqlite::Result<bool> {
    let added = statement(
        sql,
        "INSERT OR IGNORE INTO documents (vault, kind, lookup, owner, expires_at, revision, record)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        vault,
        row.kind,
        row.lookup,
        owner_text(&row.owner),
        row.expires_at.map(millis),
        row.revision.0,
        row.record
    ])?;
    Ok(added == 1)
}

type Columns = ([u8; 32], String, Option<i64>, u64, Vec<u8>);

fn columns(row: &Row<'_>) -> rusqlite::Result<Columns> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
}

fn document_row(kind: &'static str, columns: Columns) -> Result<DocumentRow, VaultError> {
    let bad = |column| VaultError::Value { table: "documents", column, row: format!("a {kind}") };
    let (lookup, owner, expires_at, revision, record) = columns;
    Ok(DocumentRow {
        kind,
        lookup,
        owner: parse_owner(&owner).ok_or_else(|| bad("owner"))?,
        expires_at: expires_at.map(|at| timestamp(at).ok_or_else(|| bad("expires_at"))).transpose()?,
        revision: Generation(revision),
        record,
    })
}
