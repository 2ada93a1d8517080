//! Where egress gets its tokens.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;

use crate::audit::Event;
use crate::broker::{Broker, BrokerError, Reason, Released};
use crate::id::{AccountAlias, ConnectionId, Generation, Owner, ProviderId, Scope, ServiceName};
use crate::policy::Permit;
use crate::vault::Connection;

/// Gives out tokens against permits. [`Broker`] does; tests have their own.
#[async_trait]
pub trait Credentials: Send + Sync + 'static {
    /// The connection that a service of this owner uses, or what a person has to do first.
    fn connection(
        &self,
        service: &ServiceName,
        owner: &Owner,
        provider: &ProviderId,
        account: Option<&AccountAlias>,
        scopes: &BTreeSet<Scope>,
    ) -> Result<Arc<Connection>, BrokerError>;

    /// The connection of the first of these accounts that is connected; without a list, of the owner's default.
    fn first_connection(
        &self,
        service: &ServiceName,
        owner: &Owner,
        provider: &ProviderId,
        accounts: Option<&[AccountAlias]>,
        scopes: &BTreeSet<Scope>,
    ) -> Result<Arc<Connection>, BrokerError> {
        let mut missing = None;
        for account in accounts.unwrap_or_default() {
            match self.connection(service, owner, provider, Some(account), scopes) {
                Err(BrokerError::ActionRequired(action))
                    if matches!(action.reason, Reason::NotConnected | Reason::NotConfirmed) =>
                {
                    missing.get_or_insert(BrokerError::ActionRequired(action));
                }
                found => return found,
            }
        }
        missing.map_or_else(|| self.connection(service, owner, provider, None, scopes), Err)
    }

    /// The access token that the permit allows, fresh. The audit entry leaves the process before this returns.
    async fn release(&self, permit: &Permit, connection: ConnectionId, event: Event) -> Result<Released, BrokerError>;

    /// An API took a token of this generation.
    fn used(&self, connection: ConnectionId, generation: Generation);

    /// An API refused a token of this generation; `true` where there is a newer one now.
    async fn rejected(&self, connection: ConnectionId, generation: Generation) -> Result<bool, BrokerError>;
}

#[async_trait]
impl Credentials for Broker {
    fn connection(
        &self,
        service: &ServiceName,
        owner: &Owner,
        provider: &ProviderId,
        account: Option<&AccountAlias>,
        scopes: &BTreeSet<Scope>,
    ) -> Result<Arc<Connection>, BrokerError> {
        self.connection(service, owner, provider, account, scopes)
    }

    async fn release(&self, permit: &Permit, connection: ConnectionId, event: Event) -> Result<Released, BrokerError> {
        self.release(permit, connection, event).await
    }

    fn used(&self, connection: ConnectionId, generation: Generation) {
        self.used(connection, generation);
    }

    async fn rejected(&self, connection: ConnectionId, generation: Generation) -> Result<bool, BrokerError> {
        self.rejected(connection, generation).await
    }
}
