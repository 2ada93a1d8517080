//! Why there is no token, sorted by who must act.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::audit::AuditError;
use crate::id::{AccountAlias, Owner, ProviderId, Scope, ServiceName};
use crate::vault::{Connection, ReconnectReason, VaultError};

/// Why a person has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No account is connected.
    NotConnected,
    /// Several are, and none was chosen.
    AccountNotChosen,
    /// The person has not yet confirmed the account that was connected.
    NotConfirmed,
    /// The grant's own life is over, or its rotation was lost.
    Expired,
    /// The person or the provider ended it.
    Revoked,
    /// The connection lacks scopes.
    MissingScopes,
}

impl Reason {
    /// In one word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotConnected => "not-connected",
            Self::AccountNotChosen => "account-not-chosen",
            Self::NotConfirmed => "not-confirmed",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::MissingScopes => "missing-scopes",
        }
    }
}

/// What a person has to do before a service can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeededAction {
    /// Why.
    pub reason: Reason,
    /// The service, as the skill's manifest names it.
    pub service: ServiceName,
    /// The provider.
    pub provider: ProviderId,
    /// The account, where one was asked for.
    pub account: Option<AccountAlias>,
    /// The scopes that the connection lacks.
    pub missing_scopes: Vec<Scope>,
    /// A sentence that says what to do. It names no user, so that it can be shown to a skill.
    pub message: String,
    /// The command that does it, for people at the host's own command line.
    pub command: String,
}

impl NeededAction {
    pub(super) fn connect(
        service: &ServiceName,
        owner: &Owner,
        provider: &ProviderId,
        account: Option<&AccountAlias>,
        scopes: &BTreeSet<Scope>,
    ) -> Self {
        let which = account.map(|account| format!(" (account {account})")).unwrap_or_default();
        Self {
            reason: Reason::NotConnected,
            service: service.clone(),
            provider: provider.clone(),
            account: account.cloned(),
            missing_scopes: Vec::new(),
            message: format!("no {provider} account{which} is connected for the service {service}"),
            command: command(owner, provider, account, scopes),
        }
    }

    pub(super) fn choose(service: &ServiceName, provider: &ProviderId, aliases: &[AccountAlias]) -> Self {
        let names: Vec<_> = aliases.iter().map(AccountAlias::as_str).collect();
        Self {
            reason: Reason::AccountNotChosen,
            service: service.clone(),
            provider: provider.clone(),
            account: None,
            missing_scopes: Vec::new(),
            message: format!(
                "several {provider} accounts are connected ({}); name one of them, or connect one as `default`",
                names.join(", ")
            ),
            command: "clawcoil connections list".to_owned(),
        }
    }

    pub(super) fn confirm(service: &ServiceName, connection: &Connection) -> Self {
        Self::of(
            service,
            connection,
            Reason::NotConfirmed,
            "is connected, but its owner has not confirmed that it is the right one",
        )
    }

    pub(super) fn reconnect(service: &ServiceName, connection: &Connection, why: ReconnectReason) -> Self {
        let reason = match why {
            ReconnectReason::Refused => Reason::Revoked,
            ReconnectReason::RotationLost | ReconnectReason::GrantEnded => Reason::Expired,
        };
        Self::of(service, connection, reason, &format!("has to be connected again: {}", why.explanation()))
    }

    pub(super) fn scopes(service: &ServiceName, connection: &Connection, missing: Vec<Scope>) -> Self {
        let names: Vec<_> = missing.iter().map(Scope::as_str).collect();
        let what = format!("was connected without the scopes {}", names.join(", "));
        let all = connection.scopes.iter().chain(&missing).cloned().collect();
        let (owner, provider, account) = (&connection.owner, &connection.provider, &connection.account);
        Self {
            command: command(owner, provider, Some(account), &all),
            missing_scopes: missing,
            ..Self::of(service, connection, Reason::MissingScopes, &what)
        }
    }

    fn of(service: &ServiceName, connection: &Connection, reason: Reason, what: &str) -> Self {
        let (provider, account) = (&connection.provider, &connection.account);
        Self {
            reason,
            service: service.clone(),
            provider: provider.clone(),
            account: Some(account.clone()),
            missing_scopes: Vec::new(),
            message: format!("the {provider} account {account} {what}"),
            command: command(&connection.owner, provider, Some(account), &connection.scopes),
        }
    }
}

fn command(owner: &Owner, provider: &ProviderId, account: Option<&AccountAlias>, scopes: &BTreeSet<Scope>) -> String {
    let mut command = match owner {
        Owner::Agent => format!("clawcoil connect {provider} --agent"),
        Owner::User(user) => format!("clawcoil connect {provider} --user {user}"),
    };
    if let Some(account) = account.filter(|account| !account.is_default()) {
        command.push_str(" --account ");
        command.push_str(account.as_str());
    }
    for scope in scopes {
        command.push_str(" --scope ");
        command.push_str(scope.as_str());
    }
    command
}

impl fmt::Display for NeededAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Why there is no token. Clones are cheap: everybody who waited for one refresh gets the same answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BrokerError {
    /// A person has to act.
    #[error("{0}")]
    ActionRequired(Box<NeededAction>),
    /// The provider, or the way to it, has to come back first.
    #[error("{message}")]
    Unavailable {
        /// When to ask again, where that is known.
        retry_after: Option<Duration>,
        /// What happened.
        message: String,
    },
    /// The operator has to mend the provider's configuration.
    #[error("the configuration of {provider} does not work: {message}")]
    Configuration {
        /// The provider.
        provider: ProviderId,
        /// What is wrong and how to mend it.
        message: String,
    },
    /// The connection has been removed.
    #[error("the connection has been removed")]
    Gone,
    /// No token is released without its entry in the audit log.
    #[error("no token is released because its audit entry could not be written; see `clawcoil doctor`")]
    Audit(#[source] Arc<AuditError>),
    /// The vault said no.
    #[error("the vault has no token to give")]
    Vault(#[source] Arc<VaultError>),
}

impl BrokerError {
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::Unavailable { retry_after: None, message: message.into() }
    }
}

impl From<NeededAction> for BrokerError {
    fn from(action: NeededAction) -> Self {
        Self::ActionRequired(Box::new(action))
    }
}

impl From<AuditError> for BrokerError {
    fn from(error: AuditError) -> Self {
        Self::Audit(Arc::new(error))
    }
}

impl From<VaultError> for BrokerError {
    fn from(error: VaultError) -> Self {
        Self::Vault(Arc::new(error))
    }
}
