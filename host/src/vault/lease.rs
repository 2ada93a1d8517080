//! The right to refresh one generation of one connection, for a while.

use std::sync::Arc;
use std::time::Duration;

use super::connection::{Connection, ReconnectReason};
use crate::clock::Timestamp;
use crate::id::{ConnectionId, Generation};

/// How long a claim holds.
pub const LEASE: Duration = Duration::from_mins(1);

/// How long the call to the provider may take, all in all: well under [`LEASE`], so that an attempt can no longer return
/// when its lease ends.
pub const CALL: Duration = Duration::from_secs(30);

/// The right to refresh one generation of one connection.
///
/// It is durable before it is given out: the record of an attempt whose outcome is not known yet. It ends with
/// [`commit`](super::Vault::commit) or [`fail`](super::Vault::fail). One that is dropped holds until its lease ends and
/// then counts as an attempt of unknown outcome.
#[derive(Debug)]
#[must_use = "a claim that is dropped blocks the connection until its lease ends"]
pub struct Claim {
    pub(crate) connection: Arc<Connection>,
    pub(crate) fence: u64,
    pub(crate) until: Timestamp,
    pub(crate) after_unknown: bool,
}

impl Claim {
    /// The connection as it was when it was claimed.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Which connection.
    pub fn id(&self) -> ConnectionId {
        self.connection.id
    }

    /// The generation that is to be replaced.
    pub fn base(&self) -> Generation {
        self.connection.generation
    }

    /// Counts the claims of this connection; a later one has a higher fence.
    pub fn fence(&self) -> u64 {
        self.fence
    }

    /// When the lease ends.
    pub fn until(&self) -> Timestamp {
        self.until
    }

    /// Whether an earlier attempt with the same refresh token has an outcome that nobody knows. A refusal then means that
    /// the rotation was lost.
    pub fn after_unknown(&self) -> bool {
        self.after_unknown
    }
}

/// What came of asking for a claim.
#[derive(Debug)]
pub enum ClaimOutcome {
    /// It is yours.
    Claimed(Claim),
    /// Somebody else has it, or an attempt of unknown outcome may still return.
    Busy {
        /// When to ask again at the latest.
        until: Timestamp,
    },
    /// The generation was replaced meanwhile: read again.
    Moved(Generation),
    /// The connection is gone, over, or not confirmed.
    Ended,
}

/// How a refresh failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshFailure {
    /// The provider says that the grant is over.
    Permanent {
        /// Why.
        reason: ReconnectReason,
    },
    /// It may work later; the provider did not replace the token.
    Transient {
        /// When to try again.
        retry_at: Timestamp,
    },
    /// The request went out and no answer came: the provider may have replaced the token. Nobody asks again until this
    /// attempt can no longer return.
    Unknown,
}
