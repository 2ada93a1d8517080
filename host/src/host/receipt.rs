//! What a call did with whose authority, short enough to be kept by whoever called.

use crate::audit::Position;
use crate::id::{ConnectionId, Digest, Generation, InvocationId, SkillName};

/// The receipt of a call: what ran, under which policy, what it reached with which credentials, and where the audit log tells
/// of it. It names no user and holds no secret.
///
/// It is no proof by itself. Together with the log it is: the entry at this position has this hash, and
/// [`verify`](crate::audit::verify()) says whether the log is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The call.
    pub invocation: InvocationId,
    /// The skill.
    pub skill: SkillName,
    /// Which version of it.
    pub skill_digest: Digest,
    /// Which of its tools.
    pub tool: String,
    /// The policy under which it began.
    pub policy_hash: Digest,
    /// The origins to which requests went, in order of their names.
    pub origins: Vec<String>,
    /// The connections whose tokens were used, and which generation of each.
    pub credentials: Vec<(ConnectionId, Generation)>,
    /// The chain of the audit log.
    pub chain: String,
    /// Where the call's entry stands in it. Absent where the log took no entry when the call was over.
    pub position: Option<Position>,
}
