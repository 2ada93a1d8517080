//! Who wraps the root key.

use async_trait::async_trait;

use crate::clock::Clock;
use crate::id::{AgentId, VaultId};
use crate::secret::Key;

/// Wraps the root key of a vault so that only this agent can unwrap it.
///
/// What [`wrap`](Seal::wrap) gives is bound to the vault and to the agent: it opens for no other pair of them. The vault
/// stores it and reads nothing of it. A seal may live in another process or machine, so both ways are async.
#[async_trait]
pub trait Seal: Send + Sync {
    /// The agent whose key this is.
    fn id(&self) -> AgentId;

    /// Wraps a root key. Two wraps of one key have nothing in common.
    async fn wrap(&self, vault: &VaultId, root: &Key, clock: &dyn Clock) -> Result<Vec<u8>, SealError>;

    /// Unwraps what [`wrap`](Seal::wrap) gave for the same vault.
    async fn unwrap(&self, vault: &VaultId, wrapped: &[u8]) -> Result<Key, SealError>;
}

/// Why a seal did not wrap or unwrap.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The wrap was made by another agent or for another vault, or its header was changed.
    #[error("the wrapped root key was not made by this agent for this vault")]
    Foreign,
    /// The wrap is this agent's, and some of its bytes have changed since.
    #[error("the wrapped root key is damaged")]
    Damaged,
    /// The wrap has a form that this program does not know.
    #[error(
        "the wrapped root key has form {0}, which this version does not know: use the version that wrote it, or a newer one"
    )]
    UnknownForm(u8),
    /// The service or device that holds the key did not answer as it should.
    #[error("the key of the agent can't be used")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}
