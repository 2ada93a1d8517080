//! SQLite: the file, its schema, and every statement.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection as Sql, OptionalExtension, Params, named_params, params};

use super::documents::{insert_document, keep_documents};
use super::row::{
    connection_row, key_row, millis, namespace_text, owner_text, parse_namespace, parse_owner, scopes_text, timestamp,
};
use super::schema::{make_file, migrate, open_file};
use super::stamp::{Stamp, Watch};
use super::writer::Writer;
use super::{
    ClientRow, ConnectionRow, DocumentRow, KeyRow, Namespace, PendingRow, RecoveryCopy, RecoveryRow, VaultRow,
};
use crate::clock::Timestamp;
use crate::id::{AgentId, ConnectionId, Digest, Generation, Owner, ProviderId, VaultId};
use crate::vault::connection::State;
use crate::vault::error::VaultError;

const CONNECTION: &str = "SELECT id, owner, provider, account, kind, scopes, api_origin, account_label, token_type, state,
    reason, since, generation, created_at, last_used_at, expires_at, refresh_at, grant_ends_at, access, refresh, previous
    FROM connections WHERE vault = ?1 ";

/// Readers that wait for use. More are opened when they are all busy, and closed again afterwards.
const IDLE_READERS: usize = 8;

/// An SQLite database that holds vaults, seen from one of them.
#[derive(Debug)]
pub(crate) struct Sqlite {
    pub(super) path: PathBuf,
    /// The number of the vault in this file.
    pub(super) vault: i64,
    pub(super) writer: Writer,
    readers: Mutex<Vec<Sql>>,
    watch: Watch,
}

impl Sqlite {
    /// Makes a vault, and the file and its folder if there are none.
    pub(crate) fn create(path: &Path, row: &VaultRow, derived: &KeyRow) -> Result<Self, VaultError> {
        make_file(path)?;
        let mut sql = open_file(path)?;
        migrate(path, &mut sql, true)?;
        if read_vault(path, &sql, row.agent).is_ok() {
            return Err(VaultError::Exists { path: path.into(), agent: row.agent });
        }
        let fail = |source| failed(path, "make the vault", source);
        let transaction = sql.transaction().map_err(fail)?;
        let (recipient, recovery) = row.recovery.as_ref().map(|r| (&r.recipient, &r.wrapped)).unzip();
        transaction
            .execute(
                "INSERT INTO vaults (id, root_version, check_record, recovery_recipient, recovery, epoch, created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, 1, ?6)",
                params![row.id.as_bytes(), row.root_version, row.check, recipient, recovery, millis(row.created_at)],
            )
            .map_err(fail)?;
        let vault = transaction.last_insert_rowid();
        transaction
            .execute(
                "INSERT INTO seals (agent, vault, wrapped) VALUES (?1, ?2, ?3)",
                params![row.agent.as_bytes(), vault, row.wrapped],
            )
            .map_err(fail)?;
        insert_key(&transaction, vault, derived).map_err(fail)?;
        transaction.commit().map_err(fail)?;
        Self::start(path, vault, sql)
    }

    /// Opens the vault of an agent.
    pub(crate) fn open(path: &Path, agent: AgentId) -> Result<(Self, VaultRow, KeyRow), VaultError> {
        let mut sql = open_file(path)?;
        migrate(path, &mut sql, false)?;
        let (vault, row) = read_vault(path, &sql, agent)?;
        let derived = read_key(path, &sql, vault, &Namespace::Derived)?.ok_or_else(|| VaultError::Value {
            table: "keys",
            column: "namespace",
            row: format!("the own key of {}", row.id),
        })?;
        Ok((Self::start(path, vault, sql)?, row, derived))
    }

    /// The recovery copies in a file.
    pub(crate) fn recoveries(path: &Path) -> Result<Vec<RecoveryCopy>, VaultError> {
        let mut sql = open_file(path)?;
        migrate(path, &mut sql, false)?;
        let fail = |source| failed(path, "read the recovery copies", source);
        let mut statement = sql
            .prepare("SELECT id, vault, root_version, check_record, recovery FROM vaults WHERE recovery IS NOT NULL")
            .map_err(fail)?;
        let rows = statement
            .query_map([], |row| {
                let vault = VaultId::from_bytes(row.get(0)?);
                let agents = agents_of(&sql, row.get(1)?)?;
                let (root_version, check, wrapped) = (row.get(2)?, row.get(3)?, row.get(4)?);
                Ok(RecoveryCopy { vault, agents, root_version, check, wrapped })
            })
            .map_err(fail)?;
        rows.collect::<Result<_, _>>().map_err(fail)
    }

    /// Gives a vault to another agent, and takes it from those that had it.
    pub(crate) fn replace_seals(path: &Path, id: VaultId, agent: AgentId, wrapped: &[u8]) -> Result<(), VaultError> {
        let mut sql = open_file(path)?;
        let fail = |source| failed(path, "store the new seal", source);
        let transaction = sql.transaction().map_err(fail)?;
        let vault: i64 = transaction
            .query_row("SELECT vault FROM vaults WHERE id = ?1", [id.as_bytes()], |row| row.get(0))
            .map_err(fail)?;
        transaction.execute("DELETE FROM seals WHERE vault = ?1", [vault]).map_err(fail)?;
        transaction
            .execute(
                "INSERT INTO seals (agent, vault, wrapped) VALUES (?1, ?2, ?3)",
                params![agent.as_bytes(), vault, wrapped],
            )
            .map_err(fail)?;
        bump(&transaction, vault).map_err(fail)?;
        transaction.commit().map_err(fail)
    }

    fn start(path: &Path, vault: i64, sql: Sql) -> Result<Self, VaultError> {
        let watch =
            Watch::open(path).map_err(|source| VaultError::Io { operation: "watch", path: path.into(), source })?;
        let writer = Writer::start(path, sql)?;
        Ok(Self { path: path.into(), vault, writer, readers: Mutex::default(), watch })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The stamp of this moment, to be taken before what it vouches for is read.
    pub(crate) fn stamp(&self) -> Stamp {
        self.watch.now()
    }

    pub(crate) fn epoch(&self) -> Result<u64, VaultError> {
        self.read("read the epoch", |sql| {
            statement(sql, "SELECT epoch FROM vaults WHERE vault = ?1")?.query_row([self.vault], |row| row.get(0))
        })
    }

    // Keys.

    pub(crate) fn key(&self, namespace: &Namespace) -> Result<Option<KeyRow>, VaultError> {
        self.with_reader(|sql| read_key(&self.path, sql, self.vault, namespace))
    }

    /// Stores a key unless its namespace has one. Refused when the vault has another root key by now.
    pub(crate) async fn add_key(&self, row: KeyRow) -> Result<(), VaultError> {
        let (vault, path) = (self.vault, self.path.clone());
        self.writer
            .write("store a key", move |sql| {
                let fail = |source| failed(&path, "store a key", source);
                let version: u64 = sql
                    .query_row("SELECT root_version FROM vaults WHERE vault = ?1", [vault], |row| row.get(0))
                    .map_err(fail)?;
                if version != row.root_version {
                    return Err(VaultError::RootReplaced);
                }
                insert_key(sql, vault, &row).map_err(fail)?;
                bump(sql, vault).map_err(fail)
            })
            .await
    }

    /// All keys, the number of seals, and the recovery recipient: what a new root key has to be given to.
    pub(crate) fn under_root(&self) -> Result<(Vec<KeyRow>, usize, Option<String>), VaultError> {
        let (seals, recipient) = self.read("read the seals", |sql| {
            sql.query_row(
                "SELECT (SELECT count(*) FROM seals WHERE vault = ?1), recovery_recipient FROM vaults WHERE vault = ?1",
                [self.vault],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
        })?;
        let rows = self.with_reader(|sql| {
            let fail = |source| failed(&self.path, "read the keys", source);
            let mut statement =
                statement(sql, "SELECT namespace, id, root_version, wrapped FROM keys WHERE vault = ?1")
                    .map_err(fail)?;
            let mut rows = statement.query([self.vault]).map_err(fail)?;
            let mut keys = Vec::new();
            while let Some(row) = rows.next().map_err(fail)? {
                let text: String = row.get(0).map_err(fail)?;
                let namespace = parse_namespace(&text).ok_or_else(|| VaultError::Value {
                    table: "keys",
                    column: "namespace",
                    row: "a key".to_owned(),
                })?;
                keys.push(key_row(namespace, row).map_err(fail)?);
            }
            Ok(keys)
        })?;
        Ok((rows, seals, recipient))
    }

    /// Puts a new root key in the place of the one before, in one transaction with all that is sealed with it, and removes
    /// all that the owner has. Refused when a key was added meanwhile or the root is another by now. The documents that are given
    /// take the places of those of the owner with these revisions; refused when one of that kind is left then. With each of the
    /// owner's connections goes what is to be told of its end; refused when one has none.
    pub(crate) async fn shred(
        &self,
        owner: &Owner,
        new: VaultRow,
        keys: Vec<KeyRow>,
        kind: &'static str,
        kept: Vec<(Generation, DocumentRow)>,
        ends: Vec<(ConnectionId, DocumentRow)>,
    ) -> Result<(), VaultError> {
        let (vault, path, namespace, user) = (self.vault, self.path.clone(), Namespace::of(owner), owner.clone());
        let owner = owner_text(owner);
        self.writer
            .write("shred a user", move |sql| {
                let fail = |source| failed(&path, "shred a user", source);
                if !keep_documents(sql, vault, &owner, kind, &kept).map_err(fail)? {
                    return Err(VaultError::ChangedMeanwhile { owner: user.clone() });
                }
                let ids = connection_ids(sql, vault, &owner).map_err(fail)?;
                if ids.iter().any(|id| ends.iter().all(|(ended, _)| ended != id)) {
                    return Err(VaultError::ChangedMeanwhile { owner: user.clone() });
                }
                for (_, end) in ends.iter().filter(|(ended, _)| ids.contains(ended)) {
                    insert_document(sql, vault, end).map_err(fail)?;
                }
                for table in ["connections", "pending", "documents"] {
                    sql.execute(&format!("DELETE FROM {table} WHERE vault = ?1 AND owner = ?2"), params![vault, owner])
                        .map_err(fail)?;
                }
                sql.execute(
                    "DELETE FROM keys WHERE vault = ?1 AND namespace = ?2",
                    params![vault, namespace_text(&namespace)],
                )
                .map_err(fail)?;
                let (recipient, recovery) = new.recovery.as_ref().map(|r| (&r.recipient, &r.wrapped)).unzip();
                let updated = sql
                    .execute(
                        "UPDATE vaults SET root_version = ?2, check_record = ?3, recovery_recipient = ?4, recovery = ?5
                         WHERE vault = ?1 AND root_version = ?2 - 1",
                        params![vault, new.root_version, new.check, recipient, recovery],
                    )
                    .map_err(fail)?;
                sql.execute(
                    "UPDATE seals SET wrapped = ?2 WHERE vault = ?1 AND agent = ?3",
                    params![vault, new.wrapped, new.agent.as_bytes()],
                )
                .map_err(fail)?;
                for key in &keys {
                    sql.execute(
                        "UPDATE keys SET wrapped = ?3, root_version = ?4 WHERE vault = ?1 AND id = ?2",
                        params![vault, key.id.0, key.wrapped, key.root_version],
                    )
                    .map_err(fail)?;
                }
                let left: usize = sql
                    .query_row(
                        "SELECT count(*) FROM keys WHERE vault = ?1 AND root_version != ?2",
                        params![vault, new.root_version],
                        |row| row.get(0),
                    )
                    .map_err(fail)?;
                if updated != 1 || left != 0 {
                    return Err(VaultError::RootReplaced);
                }
                bump(sql, vault).map_err(fail)
            })
            .await?;
        // What was deleted also leaves the write-ahead log. A reader in the way is not an error: the log is overwritten later.
        self.with_reader(|sql| {
            let _ = sql.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            Ok(())
        })
    }

    // Connections.

    /// Stores a connection in the place of the owner's one before of the same provider and account. An unconfirmed one replaces
    /// unconfirmed ones only. Gives what went.
    pub(crate) async fn put_connection(
        &self,
        row: ConnectionRow,
        changes: Vec<(ConnectionId, DocumentRow)>,
    ) -> Result<Vec<ConnectionRow>, VaultError> {
        const BEFORE: &str =
            "vault = ?1 AND owner = ?2 AND provider = ?3 AND account = ?4 AND (?5 OR state = 'unconfirmed')";
        let (vault, path) = (self.vault, self.path.clone());
        self.writer.write("store a connection", move |sql| {
            let fail = |source| failed(&path, "store a connection", source);
            let c = &row.connection;
            let (owner, confirmed) = (owner_text(&c.owner), c.state != State::Unconfirmed);
            let replaced = params![vault, owner, c.provider.as_str(), c.account.as_str(), confirmed];
            let before = connections_where(&path, sql, &format!("AND {BEFORE}"), replaced)?;
            put_changes(sql, vault, &fail, c.id, &before, &changes)?;
            statement(sql, &format!("DELETE FROM connections WHERE {BEFORE}"))
                .and_then(|mut s| s.execute(replaced))
                .map_err(fail)?;
            statement(
                sql,
                "INSERT INTO connections (id, vault, owner, provider, account, kind, scopes, api_origin, account_label,
                    token_type, state, generation, created_at, expires_at, refresh_at, grant_ends_at, access, refresh, due_at)
                 VALUES (:id, :vault, :owner, :provider, :account, :kind, :scopes, :api_origin, :account_label,
                    :token_type, :state, :generation, :created_at, :expires_at, :refresh_at, :grant_ends_at, :access, :refresh, :due_at)",
            )
            .and_then(|mut s| s.execute(named_params! {
                ":id": c.id.as_bytes(), ":vault": vault, ":owner": owner_text(&c.owner), ":provider": c.provider.as_str(),
                ":account": c.account.as_str(), ":kind": c.kind.as_str(), ":scopes": scopes_text(&c.scopes),
                ":api_origin": c.api_origin.as_ref().map(ToString::to_string), ":account_label": c.account_label,
                ":token_type": c.token_type, ":state": c.state.as_str(), ":generation": c.generation.0,
                ":created_at": millis(c.created_at), ":expires_at": c.expires_at.map(millis),
                ":refresh_at": c.refresh_at.map(millis), ":grant_ends_at": c.grant_ends_at.map(millis),
                ":access": row.access, ":refresh": row.refresh,
                ":due_at": c.refresh_at.filter(|_| c.state == State::Active).map(millis),
            }))
            .and_then(|_| bump(sql, vault))
            .map_err(fail)?;
            Ok(before)
        })
        .await
    }

    pub(crate) fn connection(&self, id: ConnectionId) -> Result<Option<ConnectionRow>, VaultError> {
        Ok(self.connections_where("AND id = ?2", params![self.vault, id.as_bytes()])?.pop())
    }

    pub(crate) fn connections(&self, owner: Option<&Owner>) -> Result<Vec<ConnectionRow>, VaultError> {
        match owner {
            Some(owner) => self
                .connections_where("AND owner = ?2 ORDER BY provider, account", params![self.vault, owner_text(owner)]),
            None => self.connections_where("ORDER BY owner, provider, account", params![self.vault]),
        }
    }

    /// The names of an owner's connections: one whose row was edited or damaged has a name like the others.
    pub(crate) fn connection_ids(&self, owner: &Owner) -> Result<Vec<ConnectionId>, VaultError> {
        self.read("read the connections", |sql| connection_ids(sql, self.vault, &owner_text(owner)))
    }

    fn connections_where(&self, clause: &str, params: impl Params) -> Result<Vec<ConnectionRow>, VaultError> {
        self.with_reader(|sql| connections_where(&self.path, sql, clause, params))
    }

    /// Makes an unconfirmed connection usable, with its tokens sealed as such, in the place of those before, and gives what they
    /// were.
    pub(crate) async fn confirm(
        &self,
        id: ConnectionId,
        base: Generation,
        access: Vec<u8>,
        refresh: Option<Vec<u8>>,
        changes: Vec<(ConnectionId, DocumentRow)>,
    ) -> Result<Vec<ConnectionRow>, VaultError> {
        const BEFORE: &str = "vault = ?1 AND id != ?2 AND (owner, provider, account) =
            (SELECT owner, provider, account FROM connections
             WHERE vault = ?1 AND id = ?2 AND generation = ?3 AND state = 'unconfirmed')";
        let (vault, path) = (self.vault, self.path.clone());
        self.writer
            .write("confirm a connection", move |sql| {
                let fail = |source| failed(&path, "confirm a connection", source);
                let of_this = params![vault, id.as_bytes(), base.0];
                let before = connections_where(&path, sql, &format!("AND {BEFORE}"), of_this)?;
                statement(sql, &format!("DELETE FROM connections WHERE {BEFORE}"))
                    .and_then(|mut s| s.execute(of_this))
                    .map_err(fail)?;
                let updated = statement(
                    sql,
                    "UPDATE connections SET state = 'active', access = ?4, refresh = ?5, due_at = refresh_at
                     WHERE vault = ?1 AND id = ?2 AND generation = ?3 AND state = 'unconfirmed'",
                )
                .and_then(|mut s| s.execute(params![vault, id.as_bytes(), base.0, access, refresh]))
                .map_err(fail)?;
                if updated != 1 {
                    return Err(VaultError::Moved { connection: id, base });
                }
                put_changes(sql, vault, &fail, id, &before, &changes)?;
                bump(sql, vault).map_err(fail)?;
                Ok(before)
            })
            .await
    }

    /// Removes a connection, and gives what it was.
    pub(crate) async fn remove_connection(
        &self,
        id: ConnectionId,
        change: Option<DocumentRow>,
    ) -> Result<Option<ConnectionRow>, VaultError> {
        let (vault, path) = (self.vault, self.path.clone());
        self.writer
            .write("remove a connection", move |sql| {
                let fail = |source| failed(&path, "remove a connection", source);
                let found = one_connection(&path, sql, vault, id)?;
                statement(sql, "DELETE FROM connections WHERE vault = ?1 AND id = ?2")
                    .and_then(|mut s| s.execute(params![vault, id.as_bytes()]))
                    .and_then(|removed| match &change {
                        Some(change) if removed == 1 => insert_document(sql, vault, change),
                        _ => Ok(false),
                    })
                    .and_then(|_| bump(sql, vault))
                    .map_err(fail)?;
                Ok(found)
            })
            .await
    }

    /// Notes a use. The refresh token of before the last rotation goes: the new access token works.
    pub(crate) fn used(&self, id: ConnectionId, generation: Generation, at: Timestamp) {
        let (vault, path) = (self.vault, self.path.clone());
        self.writer.write_later("note a use", move |sql| {
            statement(
                sql,
                "UPDATE connections SET last_used_at = ?4, previous = NULL WHERE vault = ?1 AND id = ?2 AND generation = ?3",
            )
            .and_then(|mut s| s.execute(params![vault, id.as_bytes(), generation.0, millis(at)]))
            .and_then(|_| bump(sql, vault))
            .map_err(|source| failed(&path, "note a use", source))
        });
    }

    // Clients and pending authorizations.

    pub(crate) async fn put_client(&self, row: ClientRow) -> Result<(), VaultError> {
        let vault = self.vault;
        self.write("store a client", move |sql| {
            statement(sql, "INSERT OR REPLACE INTO clients (vault, provider, record) VALUES (?1, ?2, ?3)")?
                .execute(params![vault, row.provider.as_str(), row.record])?;
            bump(sql, vault)
        })
        .await
    }

    pub(crate) fn client(&self, provider: &ProviderId) -> Result<Option<Vec<u8>>, VaultError> {
        self.read("read a client", |sql| {
            statement(sql, "SELECT record FROM clients WHERE vault = ?1 AND provider = ?2")?
                .query_row(params![self.vault, provider.as_str()], |row| row.get(0))
                .optional()
        })
    }

    pub(crate) fn clients(&self) -> Result<Vec<ProviderId>, VaultError> {
        let names: Vec<String> = self.read("read the clients", |sql| {
            statement(sql, "SELECT provider FROM clients WHERE vault = ?1 ORDER BY provider")?
                .query_map([self.vault], |row| row.get(0))?
                .collect()
        })?;
        let bad = || VaultError::Value { table: "clients", column: "provider", row: "a client".to_owned() };
        names.iter().map(|name| name.parse().map_err(|_| bad())).collect()
    }

    pub(crate) async fn remove_client(&self, provider: &ProviderId) -> Result<bool, VaultError> {
        let (vault, provider) = (self.vault, provider.clone());
        self.write("remove a client", move |sql| {
            let removed = statement(sql, "DELETE FROM clients WHERE vault = ?1 AND provider = ?2")?
                .execute(params![vault, provider.as_str()])?;
            bump(sql, vault)?;
            Ok(removed == 1)
        })
        .await
    }

    pub(crate) async fn put_pending(&self, row: PendingRow, now: Timestamp) -> Result<(), VaultError> {
        let vault = self.vault;
        self.write("store a pending authorization", move |sql| {
            statement(sql, "DELETE FROM pending WHERE vault = ?1 AND expires_at <= ?2")?.execute(params![vault, millis(now)])?;
            statement(sql, "INSERT INTO pending (vault, state, owner, provider, expires_at, record) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
                .execute(params![vault, row.state, owner_text(&row.owner), row.provider.as_str(), millis(row.expires_at), row.record])?;
            bump(sql, vault)
        })
        .await
    }

    /// Takes a pending authorization out: only one caller gets it.
    pub(crate) async fn take_pending(&self, state: [u8; 32]) -> Result<Option<PendingRow>, VaultError> {
        let (vault, path) = (self.vault, self.path.clone());
        self.writer
            .write("take a pending authorization", move |sql| {
                let fail = |source| failed(&path, "take a pending authorization", source);
                let found = statement(
                    sql,
                    "DELETE FROM pending WHERE vault = ?1 AND state = ?2 RETURNING owner, provider, expires_at, record",
                )
                .map_err(fail)?
                .query_row(params![vault, state], |row| {
                    Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?, row.get(3)?))
                })
                .optional()
                .map_err(fail)?;
                let Some((owner, provider, expires_at, record)) = found else { return Ok(None) };
                bump(sql, vault).map_err(fail)?;
                let bad =
                    |column| VaultError::Value { table: "pending", column, row: "a pending authorization".to_owned() };
                Ok(Some(PendingRow {
                    state,
                    owner: parse_owner(&owner).ok_or_else(|| bad("owner"))?,
                    provider: provider.parse().map_err(|_| bad("provider"))?,
                    expires_at: timestamp(expires_at).ok_or_else(|| bad("expires_at"))?,
                    record,
                }))
            })
            .await
    }

    // Reading and writing.

    pub(super) async fn write<R, F>(&self, operation: &'static str, job: F) -> Result<R, VaultError>
    where
        R: Send + 'static,
        F: FnOnce(&Sql) -> rusqlite::Result<R> + Send + 'static,
    {
        let path = self.path.clone();
        self.writer.write(operation, move |sql| job(sql).map_err(|source| failed(&path, operation, source))).await
    }

    pub(super) fn read<R>(
        &self,
        operation: &'static str,
        query: impl FnOnce(&Sql) -> rusqlite::Result<R>,
    ) -> Result<R, VaultError> {
        self.with_reader(|sql| query(sql).map_err(|source| failed(&self.path, operation, source)))
    }

    fn with_reader<R>(&self, query: impl FnOnce(&Sql) -> Result<R, VaultError>) -> Result<R, VaultError> {
        let idle = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let reader = match idle {
            Some(reader) => reader,
            None => open_file(&self.path)?,
        };
        let result = query(&reader);
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < IDLE_READERS {
            readers.push(reader);
        }
        result
    }
}

/// The failure of a statement, sorted by what there is to do.
pub(super) fn failed(path: &Path, operation: &'static str, source: rusqlite::Error) -> VaultError {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match source.sqlite_error_code() {
        Some(NotADatabase) => VaultError::NotAVault { path: path.into(), why: "it is not an SQLite database" },
        Some(DatabaseCorrupt) => VaultError::Corrupt { path: path.into(), source },
        _ => VaultError::Database { path: path.into(), operation, source },
    }
}

pub(super) fn statement<'a>(sql: &'a Sql, text: &str) -> rusqlite::Result<rusqlite::CachedStatement<'a>> {
    sql.prepare_cached(text)
}

/// Each change raises the epoch of its vault.
pub(super) fn bump(sql: &Sql, vault: i64) -> rusqlite::Result<()> {
    statement(sql, "UPDATE vaults SET epoch = epoch + 1 WHERE vault = ?1")?.execute([vault]).map(|_| ())
}

fn insert_key(sql: &Sql, vault: i64, row: &KeyRow) -> rusqlite::Result<()> {
    statement(
        sql,
        "INSERT INTO keys (vault, namespace, id, root_version, wrapped) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (vault, namespace) DO NOTHING",
    )?
    .execute(params![vault, namespace_text(&row.namespace), row.id.0, row.root_version, row.wrapped])
    .map(|_| ())
}

fn read_key(path: &Path, sql: &Sql, vault: i64, namespace: &Namespace) -> Result<Option<KeyRow>, VaultError> {
    statement(sql, "SELECT namespace, id, root_version, wrapped FROM keys WHERE vault = ?1 AND namespace = ?2")
        .and_then(|mut s| {
            s.query_row(params![vault, namespace_text(namespace)], |row| key_row(namespace.clone(), row)).optional()
        })
        .map_err(|source| failed(path, "read a key", source))
}

fn read_vault(path: &Path, sql: &Sql, agent: AgentId) -> Result<(i64, VaultRow), VaultError> {
    let fail = |source| failed(path, "read the vault", source);
    let found = sql
        .query_row(
            "SELECT vault, id, root_version, check_record, recovery_recipient, recovery, created_at, wrapped
             FROM seals JOIN vaults USING (vault) WHERE agent = ?1",
            [agent.as_bytes()],
            |row| {
                let recovery = row.get::<_, Option<_>>(4)?.zip(row.get::<_, Option<_>>(5)?);
                let vault = VaultRow {
                    id: VaultId::from_bytes(row.get(1)?),
                    root_version: row.get(2)?,
                    check: row.get(3)?,
                    recovery: recovery.map(|(recipient, wrapped)| RecoveryRow { recipient, wrapped }),
                    agent,
                    wrapped: row.get(7)?,
                    created_at: timestamp(row.get(6)?).unwrap_or(Timestamp::UNIX_EPOCH),
                };
                Ok((row.get(0)?, vault))
            },
        )
        .optional()
        .map_err(fail)?;
    if let Some(found) = found {
        return Ok(found);
    }
    let mut agents = sql.prepare("SELECT agent FROM seals ORDER BY rowid").map_err(fail)?;
    let wanted: Vec<AgentId> = agents
        .query_map([], |row| Ok(AgentId::from_digest(Digest::from_bytes(row.get(0)?))))
        .and_then(Iterator::collect)
        .map_err(fail)?;
    if wanted.is_empty() {
        return Err(VaultError::NotAVault { path: path.into(), why: "it holds no vault" });
    }
    Err(VaultError::WrongIdentity { path: path.into(), wanted, given: agent })
}

fn connections_where(
    path: &Path,
    sql: &Sql,
    clause: &str,
    params: impl Params,
) -> Result<Vec<ConnectionRow>, VaultError> {
    let fail = |source| failed(path, "read connections", source);
    let mut statement = statement(sql, &format!("{CONNECTION}{clause}")).map_err(fail)?;
    let mut rows = statement.query(params).map_err(fail)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(fail)? {
        found.push(connection_row(row)?);
    }
    Ok(found)
}

fn connection_ids(sql: &Sql, vault: i64, owner: &str) -> rusqlite::Result<Vec<ConnectionId>> {
    let text = "SELECT id FROM connections WHERE vault = ?1 AND owner = ?2 ORDER BY provider, account";
    let ids = statement(sql, text)?
        .query_map(params![vault, owner], |row| row.get::<_, Vec<u8>>(0))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    // What is no name can't be told of.
    Ok(ids.into_iter().filter_map(|id| id.try_into().ok()).map(ConnectionId::from_bytes).collect())
}

fn agents_of(sql: &Sql, vault: i64) -> rusqlite::Result<Vec<AgentId>> {
    statement(sql, "SELECT agent FROM seals WHERE vault = ?1 ORDER BY rowid")?
        .query_map([vault], |row| row.get(0).map(|bytes| AgentId::from_digest(Digest::from_bytes(bytes))))?
        .collect()
}

/// Stores what is to be told of a connection and of those that it takes the place of. Where one of these came to be after that
/// was written down, it would go untold: nothing is done then.
fn put_changes(
    sql: &Sql,
    vault: i64,
    fail: &impl Fn(rusqlite::Error) -> VaultError,
    id: ConnectionId,
    before: &[ConnectionRow],
    changes: &[(ConnectionId, DocumentRow)],
) -> Result<(), VaultError> {
    for old in before.iter().map(|row| &row.connection) {
        if !changes.iter().any(|(changed, _)| *changed == old.id) {
            return Err(VaultError::Moved { connection: old.id, base: old.generation });
        }
    }
    for (changed, row) in changes {
        if *changed == id || before.iter().any(|before| before.connection.id == *changed) {
            insert_document(sql, vault, row).map_err(fail)?;
        }
    }
    Ok(())
}

pub(super) fn one_connection(
    path: &Path,
    sql: &Sql,
    vault: i64,
    id: ConnectionId,
) -> Result<Option<ConnectionRow>, VaultError> {
    Ok(connections_where(path, sql, "AND id = ?2", params![vault, id.as_bytes()])?.pop())
}
