//! Why the answer was no, and what would make it yes.

use std::fmt;

use crate::diagnostic::Line;
use crate::id::ExplanationId;

/// What was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DenialCode {
    /// The manifest declares no such service.
    Undeclared,
    /// No grant covers the service for this caller.
    ServiceNotGranted,
    /// No grant has all these scopes.
    ScopeNotGranted,
    /// No grant names this audience.
    AudienceNotGranted,
    /// No grant names this account.
    AccountNotGranted,
    /// The access token itself was asked for, and no grant says `use = "reveal"`.
    RevealNotGranted,
    /// The request goes where manifest and grant together don't let it go.
    RequestNotGranted,
    /// The request carries a token that the skill was not given.
    CarriesToken,
    /// Two services of the manifest claim the request.
    Ambiguous,
    /// The operator approved another version of this skill.
    ApprovalPending,
    /// The grant has expired.
    Expired,
    /// A `[[forbid]]` says no.
    Forbidden,
    /// More requests than the grant's rate.
    RateExceeded,
}

impl DenialCode {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Undeclared,
        Self::ServiceNotGranted,
        Self::ScopeNotGranted,
        Self::AudienceNotGranted,
        Self::AccountNotGranted,
        Self::RevealNotGranted,
        Self::RequestNotGranted,
        Self::Ambiguous,
        Self::ApprovalPending,
        Self::Expired,
        Self::Forbidden,
        Self::RateExceeded,
    ];

    /// A word for logs and machine-readable answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Undeclared => "undeclared",
            Self::ServiceNotGranted => "service-not-granted",
            Self::ScopeNotGranted => "scope-not-granted",
            Self::AudienceNotGranted => "audience-not-granted",
            Self::AccountNotGranted => "account-not-granted",
            Self::RevealNotGranted => "reveal-not-granted",
            Self::RequestNotGranted => "request-not-granted",
            Self::CarriesToken => "carries-token",
            Self::Ambiguous => "ambiguous",
            Self::ApprovalPending => "approval-pending",
            Self::Expired => "expired",
            Self::Forbidden => "forbidden",
            Self::RateExceeded => "rate-exceeded",
        }
    }
}

/// Who can change the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Culprit {
    /// Whoever writes the permissions.
    Operator,
    /// Whoever wrote the skill and its manifest.
    SkillAuthor,
    /// Whoever called, by asking for less or later.
    Caller,
}

/// Lines that would allow what was refused, ready to paste.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Whose file the lines belong to, the manifest or the permissions, and in which part of it.
    pub file: String,
    /// Where that part stands; absent where the lines make one of their own.
    pub at: Option<Line>,
    /// The lines.
    pub lines: String,
}

impl Proposal {
    /// Where the lines belong, in words.
    pub fn place(&self) -> String {
        match &self.at {
            Some(line) => format!("{} at {line}", self.file),
            None => self.file.clone(),
        }
    }
}

/// A refusal.
///
/// It prints as its message, which may go to the skill: it names neither the user nor the operator's files. The rest is for
/// operators.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({id})")]
pub struct Denial {
    /// The same question under the same policy has the same id.
    pub id: ExplanationId,
    /// What was refused.
    pub code: DenialCode,
    /// One sentence without the id.
    pub message: String,
    /// The rule that decided; absent where nothing allows it.
    pub rule: Option<Line>,
    /// The operator's own words, from a `[[forbid]]`.
    pub reason: Option<Box<str>>,
    /// Who can change it.
    pub culprit: Culprit,
    /// What would allow it, all of it together; empty where no added line would.
    pub allow: Box<[Proposal]>,
    /// For a rate: when asking again may work.
    pub retry_after: Option<std::time::Duration>,
}

impl Denial {
    /// The same for callers, who learn no folder of the operator's machine.
    #[must_use]
    pub fn without_folders(&self) -> Self {
        let mut denial = self.clone();
        let lines = denial.allow.iter_mut().filter_map(|proposal| proposal.at.as_mut());
        for line in denial.rule.iter_mut().chain(lines) {
            *line = line.without_folders();
        }
        denial
    }

    /// Everything, for an operator's terminal.
    pub fn explain(&self) -> impl fmt::Display + '_ {
        Explained(self)
    }
}

struct Explained<'d>(&'d Denial);

impl fmt::Display for Explained<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let denial = self.0;
        write!(f, "denied: {}", denial.message)?;
        match &denial.rule {
            Some(line) => write!(f, "\n  decided by {line}")?,
            None => f.write_str("\n  decided by the default: what is not granted is denied")?,
        }
        if let Some(reason) = &denial.reason {
            write!(f, "\n  the operator says: {reason}")?;
        }
        write!(f, "\n  explanation {}", denial.id)?;
        for proposal in &denial.allow {
            write!(f, "\n\nto allow it, in {}:\n", proposal.place())?;
            for line in proposal.lines.lines() {
                write!(f, "\n    {line}")?;
            }
        }
        Ok(())
    }
}
