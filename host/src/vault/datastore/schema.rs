//! The file and its schema.

use std::fs::{DirBuilder, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::sqlite::failed;
use crate::vault::error::VaultError;

/// Marks the file as ours (`PRAGMA application_id`): "CLAW".
const APPLICATION: i64 = 0x434c_4157;

/// Append-only: what stands here has run somewhere. The schema's number is how many of them have run.
///
/// Tables are rowid tables: a record of a kilobyte reads five times faster from them than from WITHOUT ROWID tables.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE vaults (
        vault INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, root_version INTEGER NOT NULL, check_record BLOB NOT NULL,
        recovery_recipient TEXT, recovery BLOB, epoch INTEGER NOT NULL, created_at INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE seals (
        agent BLOB NOT NULL UNIQUE, vault INTEGER NOT NULL REFERENCES vaults, wrapped BLOB NOT NULL
    ) STRICT;
    CREATE TABLE keys (
        vault INTEGER NOT NULL REFERENCES vaults, namespace TEXT NOT NULL, id BLOB NOT NULL,
        root_version INTEGER NOT NULL, wrapped BLOB NOT NULL, UNIQUE (vault, namespace)
    ) STRICT;
    CREATE TABLE connections (
        id BLOB NOT NULL UNIQUE, vault INTEGER NOT NULL REFERENCES vaults,
        owner TEXT NOT NULL, provider TEXT NOT NULL, account TEXT NOT NULL, kind TEXT NOT NULL, scopes TEXT NOT NULL,
        api_origin TEXT, account_label TEXT, token_type TEXT NOT NULL, state TEXT NOT NULL, reason TEXT, since INTEGER,
        generation INTEGER NOT NULL, created_at INTEGER NOT NULL, last_used_at INTEGER, expires_at INTEGER,
        refresh_at INTEGER, grant_ends_at INTEGER,
        access BLOB NOT NULL, refresh BLOB, previous BLOB,
        due_at INTEGER, lease_owner BLOB, lease_until INTEGER, fence INTEGER NOT NULL DEFAULT 0,
        outcome_unknown INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE UNIQUE INDEX connections_account ON connections (vault, owner, provider, account, state = 'unconfirmed');
    CREATE INDEX connections_due ON connections (vault, due_at) WHERE due_at IS NOT NULL;
    CREATE TABLE clients (
        vault INTEGER NOT NULL REFERENCES vaults, provider TEXT NOT NULL, record BLOB NOT NULL, UNIQUE (vault, provider)
    ) STRICT;
    CREATE TABLE pending (
        vault INTEGER NOT NULL REFERENCES vaults, state BLOB NOT NULL, owner TEXT NOT NULL, provider TEXT NOT NULL,
        expires_at INTEGER NOT NULL, record BLOB NOT NULL, UNIQUE (vault, state)
    ) STRICT;
    CREATE INDEX pending_expires ON pending (vault, expires_at);
",
    "
    CREATE TABLE documents (
        vault INTEGER NOT NULL REFERENCES vaults, kind TEXT NOT NULL, lookup BLOB NOT NULL, owner TEXT NOT NULL,
        expires_at INTEGER, revision INTEGER NOT NULL, record BLOB NOT NULL, UNIQUE (vault, kind, lookup)
    ) STRICT;
    CREATE INDEX documents_owner ON documents (vault, kind, owner);
    CREATE INDEX documents_expires ON documents (vault, expires_at) WHERE expires_at IS NOT NULL;
",
];

/// How long a statement waits for another process.
const BUSY: Duration = Duration::from_secs(5);

/// Makes an empty file with mode 0600, and its folder with mode 0700 if there is none. SQLite gives the files that it puts
/// beside it the same mode.
pub(super) fn make_file(path: &Path) -> Result<(), VaultError> {
    let fail = |operation| move |source| VaultError::Io { operation, path: path.into(), source };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(fail("make the folder of"))?;
    }
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => file.sync_all().map_err(fail("create")),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(fail("create")(error)),
    }
}

/// Opens a file that exists.
pub(super) fn open_file(path: &Path) -> Result<Connection, VaultError> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Err(VaultError::NotAVault { path: path.into(), why: "it is not a file" }),
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(VaultError::Missing(path.into())),
        Err(source) => return Err(VaultError::Io { operation: "open", path: path.into(), source }),
    }
    let fail = |source| failed(path, "open the database", source);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(fail)?;
    connection.busy_timeout(BUSY).map_err(fail)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection
        .execute_batch(
            "PRAGMA foreign_keys = ON; PRAGMA secure_delete = ON; PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF;
             PRAGMA cell_size_check = ON; PRAGMA synchronous = FULL;",
        )
        .map_err(fail)?;
    Ok(connection)
}

/// Checks whose file it is, and brings its schema up to date. An empty file is taken only by who makes a vault.
pub(super) fn migrate(path: &Path, connection: &mut Connection, create: bool) -> Result<(), VaultError> {
    let fail = |source| failed(path, "read the schema", source);
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let read = |connection: &Connection| -> rusqlite::Result<(i64, i64, i64)> {
        let one = |text| connection.query_row(text, [], |row| row.get(0));
        Ok((one("PRAGMA application_id")?, one("PRAGMA user_version")?, one("SELECT count(*) FROM sqlite_schema")?))
    };
    let (application, found, objects) = read(connection).map_err(fail)?;
    let empty = application == 0 && found == 0 && objects == 0;
    if empty && !create {
        return Err(VaultError::NotAVault { path: path.into(), why: "it is empty" });
    }
    if !empty && application != APPLICATION {
        return Err(VaultError::NotAVault { path: path.into(), why: "it is the SQLite database of another program" });
    }
    if found > known {
        return Err(VaultError::Newer { path: path.into(), found, known });
    }
    // The mode is stored in the file; who reads a database that is not ours must not change it.
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(fail)?;
    if mode != "wal" {
        return Err(VaultError::NotAVault { path: path.into(), why: "its file system can't hold a write-ahead log" });
    }
    if found == known {
        return Ok(());
    }
    let fail = |source| failed(path, "bring the schema up to date", source);
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(fail)?;
    // Another process may have been faster.
    let (_, found, _) = read(&transaction).map_err(fail)?;
    for migration in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        transaction.execute_batch(migration).map_err(fail)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION).map_err(fail)?;
    transaction.pragma_update(None, "user_version", known).map_err(fail)?;
    transaction.commit().map_err(fail)
}
