//! The proof that a decision was made.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::effective::Granted;
use super::origin::Origin;
use super::rate::Rate;
use crate::diagnostic::Line;
use crate::id::{AccountAlias, Caller, Digest, ExplanationId, Owner, ProviderId, Scope, ServiceName, SkillName};

/// What the access token may be used for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// The host puts it on a request to this origin.
    Inject {
        /// Where the request goes.
        origin: Origin,
    },
    /// The skill gets it in the clear.
    Reveal,
}

/// A decision of policy that one access token may be used once.
///
/// Only [`Effective`](super::Effective) makes one, and the vault's one read of a plaintext token takes one. It is good for the
/// moment: ask again for each release.
///
/// ```compile_fail,E0451
/// let permit = clawcoil::policy::Permit { granted: todo!(), account: None, purpose: clawcoil::policy::Purpose::Reveal };
/// ```
/// ```compile_fail,E0624
/// let permit = clawcoil::policy::Permit::new(todo!(), None, clawcoil::policy::Purpose::Reveal);
/// ```
/// ```compile_fail,E0599
/// fn twice(permit: clawcoil::policy::Permit) -> (clawcoil::policy::Permit, clawcoil::policy::Permit) { (permit.clone(), permit) }
/// ```
#[derive(Debug)]
pub struct Permit {
    granted: Arc<Granted>,
    account: Option<AccountAlias>,
    purpose: Purpose,
}

impl Permit {
    pub(super) fn new(granted: Arc<Granted>, account: Option<AccountAlias>, purpose: Purpose) -> Self {
        Self { granted, account, purpose }
    }

    /// Whose connection.
    pub fn owner(&self) -> &Owner {
        &self.granted.owner
    }

    /// At which provider.
    pub fn provider(&self) -> &ProviderId {
        &self.granted.declared.provider
    }

    /// The skill's name for it.
    pub fn service(&self) -> &ServiceName {
        &self.granted.declared.name
    }

    /// The skill that uses it.
    pub fn skill(&self) -> &SkillName {
        &self.granted.decision.skill
    }

    /// For whom the call runs.
    pub fn caller(&self) -> &Caller {
        &self.granted.decision.caller
    }

    /// Which account; absent: the owner's default at this provider, whatever its alias.
    pub fn account(&self) -> Option<&AccountAlias> {
        self.account.as_ref()
    }

    /// The scopes that are declared and granted.
    pub fn scopes(&self) -> &BTreeSet<Scope> {
        &self.granted.scopes
    }

    /// What for.
    pub fn purpose(&self) -> &Purpose {
        &self.purpose
    }

    /// The grant that allowed it.
    pub fn rule(&self) -> &Line {
        &self.granted.line
    }

    /// The policy that was asked.
    pub fn policy_hash(&self) -> &Digest {
        &self.granted.decision.policy_hash
    }

    /// How often the grant may be used; [`Rates`](super::Rates) counts.
    pub fn rate(&self) -> Option<Rate> {
        self.granted.rate
    }

    /// What the grant says, as a digest: it stays when the lines around it move.
    pub(super) fn grant(&self) -> &Digest {
        &self.granted.key
    }

    pub(super) fn explanation(&self, question: &str) -> ExplanationId {
        self.granted.decision.explanation(&format!("{question} {}", self.granted.declared.name))
    }
}
