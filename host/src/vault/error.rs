//! What can go wrong in a vault, by the place and the way out; never with the secret.

use std::path::PathBuf;

use super::connection::ReconnectReason;
use super::envelope::{Fault, Place};
use crate::id::{AgentId, ConnectionId, Generation, Owner};
use crate::identity::{RecoveryError, SealError};

/// An error of the vault.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// No such file.
    #[error("{}: no such vault: name the file that has it, or restore it from a backup; `clawcoil init` makes a new agent, with an identity of its own", .0.display())]
    Missing(PathBuf),
    /// The file is something else.
    #[error("{}: not a vault of ClawCoil ({why}): name the right file, or restore it from a backup", .path.display())]
    NotAVault {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        why: &'static str,
    },
    /// A newer program wrote the file.
    #[error("{}: the vault has schema {found}, and this program knows up to {known}: use the newer version that wrote it", .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest that this program knows.
        known: i64,
    },
    /// SQLite finds the file damaged.
    #[error("{}: the database is damaged: restore it from a backup (keep this file; `sqlite3 FILE .recover` may save rows)", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// A statement failed.
    #[error("{}: can't {operation}: {}", .path.display(), way_out(.source))]
    Database {
        /// The file.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The system did not let us read or write.
    #[error("{}: can't {operation} it: check the folder and who may access it", .path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A column holds what no version of the program writes.
    #[error(
        "the database has in column {column} of table {table} what no version of this program writes: {row} was edited or damaged: restore the database from a backup, or disconnect and connect again"
    )]
    Value {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// Which row.
        row: String,
    },
    /// A document of this kind and lookup key is there already.
    #[error("a document of the same kind and name is stored already")]
    DocumentExists,
    /// A document is larger than any has a reason to be.
    #[error("a document of {found} bytes is too large to store: at most {max}")]
    DocumentTooLarge {
        /// Its size in bytes.
        found: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The agent has a vault in this file.
    #[error("{}: {agent} has a vault here already: open it, or name another file", .path.display())]
    Exists {
        /// The file.
        path: PathBuf,
        /// The agent.
        agent: AgentId,
    },
    /// The vault belongs to another agent.
    #[error("{}: this vault opens with the identity of {}, and the identity in use is {given}: name the certificate and key that made the vault, or restore access with its recovery key", .path.display(), list(.wanted))]
    WrongIdentity {
        /// The file.
        path: PathBuf,
        /// Who has a vault here.
        wanted: Vec<AgentId>,
        /// Who asked.
        given: AgentId,
    },
    /// The root key can't be unwrapped.
    #[error("{}: the root key of the vault can't be unwrapped for {agent}: restore the database from a backup, or use the recovery key", .path.display())]
    Seal {
        /// The file.
        path: PathBuf,
        /// The agent.
        agent: AgentId,
        /// Why not.
        source: SealError,
    },
    /// The root key is not the one of this vault.
    #[error("{}: the root key does not fit this vault's check record: its rows come from different databases, or were edited: restore it from a backup", .path.display())]
    WrongRoot {
        /// The file.
        path: PathBuf,
        /// What is wrong with the check record.
        source: Fault,
    },
    /// Another process gave the vault a new root key.
    #[error("the vault has a new root key since it was opened: open it again (restart this process)")]
    RootReplaced,
    /// A user can't be shredded just now.
    #[error("a connection of {owner} changed while {owner} was to be shredded, and nothing was done: try again")]
    ChangedMeanwhile {
        /// Who.
        owner: Owner,
    },
    /// The recovery copy failed.
    #[error("the recovery copy of the root key failed")]
    Recovery(#[from] RecoveryError),
    /// There is no recovery copy.
    #[error("{}: the vault was made without a recovery copy: only the agent's own key opens it", .0.display())]
    NoRecovery(PathBuf),
    /// The recovery key opens more than one vault.
    #[error("{}: the recovery key opens the vaults of {}: name the agent whose identity is lost with `--agent`", .path.display(), list(.agents))]
    SeveralRecoveries {
        /// The file.
        path: PathBuf,
        /// Whose they are.
        agents: Vec<AgentId>,
    },
    /// The vault was recovered, and something else is wrong with it.
    #[error("{}: the vault belongs to the new identity now, and does not open: keep the identity's files, and mend this", .path.display())]
    RecoveredAndShut {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<VaultError>,
    },
    /// More identities than this one would lose their access.
    #[error("the vault is sealed for {} other identities, and this one can't seal a new root key for them: remove them first, and add them again afterwards", .0)]
    OtherSeals(usize),
    /// A record can't be opened.
    #[error(
        "{place} can't be opened: {fault}: restore the database from a backup, or disconnect and connect again (for a client: `clawcoil provider add` again)"
    )]
    Record {
        /// Where it is.
        place: String,
        /// What is wrong with it.
        fault: Fault,
    },
    /// The owner of a record has no key.
    #[error(
        "{owner} has no key in this vault, so nothing of it can be opened: it was shredded, or its row was removed; restore the database from a backup if that was not meant"
    )]
    NoKey {
        /// Whose.
        owner: Owner,
    },
    /// The owner has no such connection.
    #[error(
        "{owner} has no connection {connection}: it was disconnected, or belongs to somebody else; ask for the connections again"
    )]
    NoConnection {
        /// Whose.
        owner: Owner,
        /// Which.
        connection: ConnectionId,
    },
    /// The permit is for something else than this connection.
    #[error("the permit is for {permitted} and connection {connection} is {actual}: nothing was opened")]
    NotPermitted {
        /// Which.
        connection: ConnectionId,
        /// What the permit allows.
        permitted: String,
        /// What was asked for.
        actual: String,
    },
    /// Its user has not confirmed it.
    #[error(
        "connection {connection} of {owner} is not confirmed: its user must look at the account that was connected, and confirm it"
    )]
    Unconfirmed {
        /// Whose.
        owner: Owner,
        /// Which.
        connection: ConnectionId,
    },
    /// It is over.
    #[error("connection {connection} of {owner} is over ({}): its user must connect again", .reason.explanation())]
    NeedsReconnect {
        /// Whose.
        owner: Owner,
        /// Which.
        connection: ConnectionId,
        /// Why.
        reason: ReconnectReason,
    },
    /// It has no refresh token.
    #[error(
        "connection {connection} of {owner} has no refresh token (generation {generation}): its user must connect again when it expires"
    )]
    NoRefreshToken {
        /// Whose.
        owner: Owner,
        /// Which.
        connection: ConnectionId,
        /// As of which generation.
        generation: Generation,
    },
    /// The generation was replaced by somebody else.
    #[error(
        "connection {connection} is no longer at generation {base}: it was refreshed, replaced or removed meanwhile; read it again"
    )]
    Moved {
        /// Which.
        connection: ConnectionId,
        /// The generation that was expected.
        base: Generation,
    },
    /// The thread that writes has ended.
    #[error("{}: the vault's writer has stopped: restart this process", .0.display())]
    Stopped(PathBuf),
}

impl VaultError {
    pub(crate) fn record(place: &Place<'_>, fault: Fault) -> Self {
        Self::Record { place: place.to_string(), fault }
    }
}

fn list(agents: &[AgentId]) -> String {
    match agents {
        [] => "no agent".to_owned(),
        agents => agents.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "),
    }
}

fn way_out(error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
            "another program holds the database: end it, or try again"
        }
        Some(rusqlite::ErrorCode::DiskFull) => "the disk is full: make room",
        Some(
            rusqlite::ErrorCode::ReadOnly | rusqlite::ErrorCode::PermissionDenied | rusqlite::ErrorCode::CannotOpen,
        ) => "the file or its folder can't be written: check who may access them",
        Some(rusqlite::ErrorCode::SystemIoFailure) => "the disk failed: check it, and restore from a backup if need be",
        _ => "the database refused it: if another program changed its tables, restore it from a backup",
    }
}
