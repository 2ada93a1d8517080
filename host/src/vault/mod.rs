//! Tokens at rest.
//!
//! A [`Vault`] opens with the identity of one agent. It keeps the [`Connection`]s of the agent's users and of the agent
//! itself, each owner's under a key of its own, and gives out an access token only for a [`Permit`](crate::policy::Permit).
//!
//! What is on disk is metadata in the clear and sealed records. A record opens only where it was written: with this vault's
//! root key, its owner's key, and for this provider, connection, field and generation. What is in memory between two uses is
//! ciphertext too.
//!
//! Not protected here: who can write the database can remove rows or restore an old state of it. [`Vault::epoch`] rises
//! with every change, for a witness outside the database.

mod access;
mod client;
mod connection;
mod contents;
mod datastore;
mod document;
mod envelope;
mod error;
mod keyring;
mod lease;
mod outbox;
mod pending;
mod refresh;
#[cfg(test)]
mod tests;
#[expect(clippy::module_inception, reason = "the noun of this file is the vault")]
mod vault;

pub use access::{Access, Found, Removed};
pub use client::ClientRegistration;
pub use connection::{Connection, Kind, NewConnection, ReconnectReason, State, TokenSet};
pub use datastore::Stamp;
pub use document::{Document, Lookup};
pub use envelope::Fault;
pub use error::VaultError;
pub use lease::{CALL, Claim, ClaimOutcome, LEASE, RefreshFailure};
pub use outbox::Untold;
pub use pending::Pending;
pub use vault::Vault;
