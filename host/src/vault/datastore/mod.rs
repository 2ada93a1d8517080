//! Rows: what is stored, typed, and nothing of how.
//!
//! The seam between the vault and its database. Above it nobody knows SQL; below it nobody knows keys: secrets pass it
//! as sealed records.

mod claims;
mod documents;
mod row;
mod schema;
mod sqlite;
mod stamp;
mod writer;

use std::sync::Arc;

pub(crate) use claims::Lessee;
pub(crate) use documents::Apart;
pub(crate) use sqlite::Sqlite as Datastore;
pub use stamp::Stamp;

use super::connection::Connection;
use super::envelope::KeyId;
use crate::clock::Timestamp;
use crate::id::{AgentId, Generation, Owner, ProviderId, VaultId};

/// Whose key a row of `keys` holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Namespace {
    Owner(Owner),
    Derived,
}

impl Namespace {
    pub(crate) fn of(owner: &Owner) -> Self {
        Self::Owner(owner.clone())
    }

    pub(crate) fn owner(&self) -> &Owner {
        match self {
            Self::Owner(owner) => owner,
            Self::Derived => &Owner::Agent,
        }
    }
}

/// A vault, and its root key as one agent has it.
#[derive(Debug, Clone)]
pub(crate) struct VaultRow {
    pub(crate) id: VaultId,
    pub(crate) root_version: u64,
    pub(crate) check: Vec<u8>,
    pub(crate) recovery: Option<RecoveryRow>,
    pub(crate) agent: AgentId,
    pub(crate) wrapped: Vec<u8>,
    pub(crate) created_at: Timestamp,
}

/// The root key for the recovery recipient.
#[derive(Debug, Clone)]
pub(crate) struct RecoveryRow {
    pub(crate) recipient: String,
    pub(crate) wrapped: Vec<u8>,
}

/// What opens a vault without its agent.
#[derive(Debug)]
pub(crate) struct RecoveryCopy {
    pub(crate) vault: VaultId,
    /// Whose vault it is.
    pub(crate) agents: Vec<AgentId>,
    pub(crate) root_version: u64,
    pub(crate) check: Vec<u8>,
    pub(crate) wrapped: Vec<u8>,
}

/// The key of a namespace, sealed with the root key.
#[derive(Debug, Clone)]
pub(crate) struct KeyRow {
    pub(crate) namespace: Namespace,
    pub(crate) id: KeyId,
    pub(crate) root_version: u64,
    pub(crate) wrapped: Vec<u8>,
}

/// A connection and its sealed tokens.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionRow {
    pub(crate) connection: Arc<Connection>,
    pub(crate) access: Vec<u8>,
    pub(crate) refresh: Option<Vec<u8>>,
    /// The refresh token before the last rotation, until the new access token was used with success.
    pub(crate) previous: Option<Vec<u8>>,
}

/// A claim as it was stored.
#[derive(Debug)]
pub(crate) struct ClaimRow {
    pub(crate) connection: Arc<Connection>,
    pub(crate) fence: u64,
    pub(crate) after_unknown: bool,
}

/// What came of a claim for one connection.
#[derive(Debug)]
pub(crate) enum Claimed {
    Yes(ClaimRow),
    Busy(Timestamp),
    Moved(Generation),
    Ended,
}

/// How a claim is given back without new tokens.
#[derive(Debug)]
pub(crate) enum GivenBack {
    /// The connection is over, and what the audit log is to tell of that.
    Ended(super::connection::State, Box<DocumentRow>),
    /// Try again then. `unknown`: the attempt's outcome is.
    Until { at: Timestamp, unknown: bool },
}

/// An operator's client, sealed.
#[derive(Debug)]
pub(crate) struct ClientRow {
    pub(crate) provider: ProviderId,
    pub(crate) record: Vec<u8>,
}

/// A pending authorization, sealed.
#[derive(Debug)]
pub(crate) struct PendingRow {
    pub(crate) state: [u8; 32],
    pub(crate) owner: Owner,
    pub(crate) provider: ProviderId,
    pub(crate) expires_at: Timestamp,
    pub(crate) record: Vec<u8>,
}

/// A document, sealed.
#[derive(Debug, Clone)]
pub(crate) struct DocumentRow {
    pub(crate) kind: &'static str,
    pub(crate) lookup: [u8; 32],
    pub(crate) owner: Owner,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) revision: Generation,
    pub(crate) record: Vec<u8>,
}
