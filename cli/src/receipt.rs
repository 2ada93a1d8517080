//! What a call did, as programs are told it: by `clawcoil run`, and by the API.

use clawcoil::host::Receipt;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a call did, short enough to be kept by whoever called.
///
/// Together with the audit log it is a proof: the entry of this number in this chain has this hash.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = Receipt)]
pub(crate) struct ReceiptBody {
    invocation: String,
    skill: String,
    /// Which version of the skill.
    skill_digest: String,
    tool: String,
    /// The permissions under which the call began.
    policy: String,
    /// Where its requests went.
    origins: Vec<String>,
    /// Whose tokens it used, and which.
    credentials: Vec<UsedCredential>,
    /// The chain of the audit log.
    chain: String,
    /// The number of the call's entry. Absent where the log took none.
    entry: Option<u64>,
    /// The hash of that entry.
    hash: Option<String>,
}

/// The tokens that a call used.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct UsedCredential {
    #[schema(example = "con_0123456789abcdef0123456789abcdef")]
    connection: String,
    generation: u64,
}

impl From<Receipt> for ReceiptBody {
    fn from(receipt: Receipt) -> Self {
        let credentials = receipt.credentials.iter().map(|(connection, generation)| UsedCredential {
            connection: connection.to_string(),
            generation: generation.0,
        });
        Self {
            invocation: receipt.invocation.to_string(),
            skill: receipt.skill.to_string(),
            skill_digest: receipt.skill_digest.to_string(),
            tool: receipt.tool,
            policy: receipt.policy_hash.to_string(),
            credentials: credentials.collect(),
            origins: receipt.origins,
            chain: receipt.chain,
            entry: receipt.position.map(|position| position.seq),
            hash: receipt.position.map(|position| position.hash.to_string()),
        }
    }
}
