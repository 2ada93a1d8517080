//! The operator's grants as they are written, for people and programs that look at them. Nothing is decided by these.

use super::grant::{Allowed, Grant};
use super::manifest::Use;
use super::permissions::Permissions;
use super::request::RequestRule;
use crate::clock::Timestamp;
use crate::diagnostic::Line;
use crate::id::{AccountAlias, Digest, ProviderId, Scope, ServiceName, SkillName};

/// One `[[grant]]`, as it is written.
#[derive(Debug, Clone)]
pub struct ListedGrant {
    /// Where it stands.
    pub line: Line,
    /// For which skill.
    pub skill: SkillName,
    /// For which version of it; absent: any.
    pub digest: Option<Digest>,
    /// Patterns of the programs that may call.
    pub clients: Vec<String>,
    /// Patterns of the users for whom it is.
    pub users: Vec<String>,
    /// How often it may be used.
    pub rate: Option<String>,
    /// From then on it doesn't hold.
    pub ends: Option<Timestamp>,
    /// The use of an account; absent: requests without a credential.
    pub service: Option<ListedService>,
    /// Where requests may go; absent: to the provider's own API.
    pub requests: Option<Vec<RequestRule>>,
}

/// The account that a grant is about.
#[derive(Debug, Clone)]
pub struct ListedService {
    /// The skill's name for it.
    pub name: ServiceName,
    /// At which provider.
    pub provider: ProviderId,
    /// Whether it is the agent's own.
    pub as_agent: bool,
    /// Which of the user's accounts; absent: any.
    pub accounts: Option<Vec<AccountAlias>>,
    /// Which scopes.
    pub scopes: Vec<Scope>,
    /// The most that may be done with the token.
    pub use_: Use,
}

impl Permissions {
    /// All grants, in the order in which they are written.
    pub fn listed(&self) -> impl Iterator<Item = ListedGrant> {
        self.grants.iter().map(Grant::listed)
    }
}

impl Grant {
    fn listed(&self) -> ListedGrant {
        let texts = |patterns: &[super::Pattern]| patterns.iter().map(ToString::to_string).collect();
        let (service, requests) = match &self.allowed {
            Allowed::Requests(requests) => (None, Some(requests.to_vec())),
            Allowed::Service(granted) => {
                let service = ListedService {
                    name: granted.service.clone(),
                    provider: granted.provider.clone(),
                    as_agent: granted.as_agent,
                    accounts: granted.accounts.clone(),
                    scopes: granted.scopes.iter().map(|scope| scope.value.clone()).collect(),
                    use_: granted.use_,
                };
                (Some(service), granted.requests.clone())
            }
        };
        ListedGrant {
            line: self.line.clone(),
            skill: self.skill.clone(),
            digest: self.digest,
            clients: texts(&self.clients),
            users: texts(&self.users),
            rate: self.rate.as_ref().map(ToString::to_string),
            ends: self.ends,
            service,
            requests,
        }
    }
}
