//! Where egress gets its tokens.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;

use crate::audit::Event;
use crate::broker::{Broker, BrokerError, NeededAction, Reason, Released};
use crate::id::{AccountAlias, ConnectionId, Generation, Owner, ProviderId, Scope, ServiceName};
use crate::policy::{EffectiveService, Permit};
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

    /// The connection that a service means where a skill names no account: of the first candidate that is connected and suits.
    ///
    /// An account that is connected and can't be used is an error, and none after it is used instead. `scopes`: those of each
    /// account, if absent. Where all are connected and none suits, the answer is the first of them.
    fn first_connection(
        &self,
        service: &EffectiveService,
        candidates: &[Option<AccountAlias>],
        scopes: Option<&BTreeSet<Scope>>,
        suits: &mut dyn FnMut(&Connection) -> bool,
    ) -> Result<Arc<Connection>, BrokerError> {
        let (mut unsuited, mut missing) = (None, None::<Box<NeededAction>>);
        for account in candidates.iter().map(Option::as_ref) {
            let of = |account: Option<&AccountAlias>| {
                let wanted = scopes.map_or_else(|| service.scopes_of(account), Cow::Borrowed);
                self.connection(&service.name, &service.owner, &service.provider, account, &wanted)
            };
            // The owner's default may be in other grants by its alias, and is asked for their scopes too.
            let wants_more = |found: &Connection| {
                account.is_none()
                    && scopes.is_none()
                    && service.scopes_of(None) != service.scopes_of(Some(&found.account))
            };
            let found =
                of(account).and_then(|found| if wants_more(&found) { of(Some(&found.account)) } else { Ok(found) });
            match found {
                Ok(connection) if suits(&connection) => return Ok(connection),
                Ok(connection) => unsuited = unsuited.or(Some(connection)),
                Err(BrokerError::ActionRequired(action)) => match (action.reason, &missing) {
                    // To confirm what was connected is less than to connect another.
                    (Reason::NotConfirmed, Some(known)) if known.reason == Reason::NotConnected => {
                        missing = Some(action);
                    }
                    (Reason::NotConnected | Reason::NotConfirmed | Reason::AccountNotChosen, _) => {
                        missing = missing.or(Some(action));
                    }
                    _ => return Err(BrokerError::ActionRequired(action)),
                },
                Err(error) => return Err(error),
            }
        }
        match (missing, unsuited) {
            (Some(action), _) => Err(BrokerError::ActionRequired(action)),
            (None, Some(connection)) => Ok(connection),
            // There is no candidate where nothing is granted, which policy says.
            (None, None) => self.connection(&service.name, &service.owner, &service.provider, None, &service.scopes),
        }
    }

    /// The connection that is meant, in whatever state it is.
    fn stored(&self, owner: &Owner, provider: &ProviderId, account: Option<&AccountAlias>) -> Option<Arc<Connection>>;

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

    fn stored(&self, owner: &Owner, provider: &ProviderId, account: Option<&AccountAlias>) -> Option<Arc<Connection>> {
        self.stored(owner, provider, account)
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
