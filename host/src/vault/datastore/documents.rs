//! Documents, as statements.

use rusqlite::{Connection as Sql, OptionalExtension as _, Row, params};

use super::DocumentRow;
use super::row::{millis, owner_text, parse_owner, timestamp};
use super::sqlite::{Sqlite, bump, failed, statement};
use crate::clock::Timestamp;
use crate::id::{Generation, Owner};
use crate::vault::error::VaultError;

/// A document by itself.
pub(crate) struct Apart {
    /// The number of its row.
    pub(crate) number: i64,
    /// What the row holds, as it was found.
    pub(crate) record: Vec<u8>,
    /// The document, or what is wrong with its row.
    pub(crate) read: Result<DocumentRow, VaultError>,
}

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

    /// Each document of a kind by itself, in the order in which they were stored, so that one that was edited or damaged keeps
    /// no other from being read.
    pub(crate) fn documents_apart(&self, kind: &'static str) -> Result<Vec<Apart>, VaultError> {
        let found: Vec<(i64, Vec<u8>, Result<Columns, &'static str>)> = self.read("read the documents", |sql| {
            let text = format!("SELECT {COLUMNS}, rowid FROM documents WHERE vault = ?1 AND kind = ?2 ORDER BY rowid");
            statement(sql, &text)?
                .query_map(params![self.vault, kind], |row| {
                    let columns = match columns(row) {
                        Ok(columns) => Ok(columns),
                        Err(error) => Err(bad_column(&error).ok_or(error)?),
                    };
                    Ok((row.get(5)?, row.get(4)?, columns))
                })?
                .collect()
        })?;
        let one = |(number, record, columns): (i64, Vec<u8>, Result<Columns, &'static str>)| {
            let read = columns.map_err(|column| bad(kind, column)).and_then(|columns| document_row(kind, columns));
            Apart { number, record, read }
        };
        Ok(found.into_iter().map(one).collect())
    }

    /// How many documents there are of a kind.
    pub(crate) fn count_documents(&self, kind: &'static str) -> Result<usize, VaultError> {
        self.read("count the documents", |sql| {
            statement(sql, "SELECT count(*) FROM documents WHERE vault = ?1 AND kind = ?2")?
                .query_row(params![self.vault, kind], |row| row.get(0))
        })
    }

    /// Puts the document in this row among those of another kind, and stores one in its place. Whether it was still there, with
    /// this record: rows get new records, and numbers new rows.
    pub(crate) async fn set_document_aside(
        &self,
        number: i64,
        record: Vec<u8>,
        kind: &'static str,
        aside: &'static str,
        instead: DocumentRow,
    ) -> Result<bool, VaultError> {
        let vault = self.vault;
        self.write("set a document aside", move |sql| {
            let changed = statement(
                sql,
                "UPDATE OR IGNORE documents SET kind = ?4 WHERE rowid = ?1 AND vault = ?2 AND kind = ?3 AND record = ?5",
            )?
            .execute(params![number, vault, kind, aside, record])?;
            if changed == 1 {
                insert_document(sql, vault, &instead)?;
                bump(sql, vault)?;
            }
            Ok(changed == 1)
        })
        .await
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

/// Puts these in the places of an owner's documents with these revisions; whether the owner has none of this kind left.
pub(super) fn keep_documents(
    sql: &Sql,
    vault: i64,
    owner: &str,
    kind: &'static str,
    kept: &[(Generation, DocumentRow)],
) -> rusqlite::Result<bool> {
    for (revision, row) in kept {
        statement(
            sql,
            "UPDATE documents SET owner = ?5, revision = ?6, record = ?7
             WHERE vault = ?1 AND kind = ?2 AND lookup = ?3 AND owner = ?4 AND revision = ?8",
        )?
        .execute(params![
            vault,
            row.kind,
            row.lookup,
            owner,
            owner_text(&row.owner),
            row.revision.0,
            row.record,
            revision.0
        ])?;
    }
    let left: usize = statement(sql, "SELECT count(*) FROM documents WHERE vault = ?1 AND kind = ?2 AND owner = ?3")?
        .query_row(params![vault, kind, owner], |row| row.get(0))?;
    Ok(left == 0)
}

type Columns = ([u8; 32], String, Option<i64>, u64, Vec<u8>);

fn columns(row: &Row<'_>) -> rusqlite::Result<Columns> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
}

/// The column whose contents are the error, if they are.
fn bad_column(error: &rusqlite::Error) -> Option<&'static str> {
    match *error {
        rusqlite::Error::FromSqlConversionFailure(column, ..)
        | rusqlite::Error::IntegralValueOutOfRange(column, _)
        | rusqlite::Error::Utf8Error(column, _)
        | rusqlite::Error::InvalidColumnType(column, ..) => COLUMNS.split(", ").nth(column),
        _ => None,
    }
}

fn document_row(kind: &'static str, columns: Columns) -> Result<DocumentRow, VaultError> {
    let bad = |column| bad(kind, column);
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

fn bad(kind: &str, column: &'static str) -> VaultError {
    VaultError::Value { table: "documents", column, row: format!("a {kind}") }
}
