//! Why a request has no answer, or a handle no token.

use crate::audit::AuditError;
use crate::broker::{BrokerError, NeededAction};
use crate::net::NetError;
use crate::policy::Denial;

use super::BoxError;
use super::headers::EncodedAnswer;

/// Why a request has no answer, or a handle no token.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// It was refused. The text carries the explanation id and may go to the skill.
    #[error(transparent)]
    Denied(Box<Denial>),
    /// A person has to act first.
    #[error("{0}")]
    ActionRequired(Box<NeededAction>),
    /// There is no token to be had just now.
    #[error(transparent)]
    Broker(BrokerError),
    /// No handle of this call has this number.
    #[error("this token handle does not belong to this call")]
    UnknownHandle,
    /// A body that must be whole before it can be sent is too large.
    #[error("a request body that carries a credential, or might carry a placeholder, has at most {0} bytes")]
    BodyTooLarge(usize),
    /// The guest broke its body off.
    #[error("the request's body ended with an error")]
    Body(#[source] BoxError),
    /// The network.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The answer could hide the credential.
    #[error(transparent)]
    EncodedAnswer(#[from] EncodedAnswer),
    /// Without an audit entry nothing goes out.
    #[error("the request was not sent because its audit entry could not be written")]
    Audit(#[from] AuditError),
}

impl From<Denial> for EgressError {
    fn from(denial: Denial) -> Self {
        Self::Denied(Box::new(denial))
    }
}

impl From<BrokerError> for EgressError {
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::ActionRequired(action) => Self::ActionRequired(action),
            other => Self::Broker(other),
        }
    }
}
