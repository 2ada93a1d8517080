//! From a permit to a fresh access token.
//!
//! Only the broker decides whether a token is fresh. One generation is refreshed once: in this process everybody waits for the
//! same task, across processes for the same claim in the vault. A refresh runs in a task of its own, so that a caller who goes
//! away can't lose a token that the provider has already rotated.

mod breaker;
mod error;
mod gate;
mod refresh;
mod schedule;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::audit::{self, Decision, EventKind};
use crate::connect::Parts;
use crate::id::{AccountAlias, ConnectionId, Generation, Owner, ProviderId, Scope, ServiceName};
use crate::policy::Permit;
use crate::secret::AccessToken;
use crate::vault::{Access, Connection, Found, Kind, State, VaultError};

pub use error::{BrokerError, NeededAction, Reason};
pub use gate::InFlight;
pub use schedule::Schedule;

/// A token that expires sooner than this, or than a twentieth of its life if that is less, is not given out.
const MARGIN: Duration = Duration::from_secs(30);

/// After a refresh that an API's 401 asked for, the next one of that kind waits this long: an API that answers 401 for a
/// reason of its own must not make the host hammer the token endpoint.
const PAUSE_AFTER_REJECTION: Duration = Duration::from_mins(1);

/// A connection that was refreshed while the entry of a release was written has another one made, so often at the most.
const MOST_MOVES: usize = 3;

/// Hands out fresh access tokens against permits. Clones share everything.
#[derive(Clone)]
pub struct Broker(Arc<Inner>);

struct Inner {
    parts: Parts,
    gates: gate::Gates,
    breakers: breaker::Breakers,
    running: Mutex<HashMap<ConnectionId, Running>>,
    rejected: Mutex<HashMap<ConnectionId, Duration>>,
}

/// A refresh under way; the value is `None` until it has ended.
type Running = watch::Receiver<Option<Result<(), BrokerError>>>;

/// An access token on its way to a request. The entry in the audit log has been made.
pub struct Released {
    /// The token.
    pub token: AccessToken,
    /// What is known of it: its generation, its type, when it expires.
    pub connection: Arc<Connection>,
    /// Held while the request is under way, where a refresh would kill the token.
    pub in_flight: Option<InFlight>,
}

enum Freshness {
    Fresh,
    Due,
    Stale,
}

impl Broker {
    /// A broker over these parts.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(Inner {
            parts,
            gates: gate::Gates::default(),
            breakers: breaker::Breakers::default(),
            running: Mutex::default(),
            rejected: Mutex::default(),
        }))
    }

    /// The connection that a service of this owner uses, or what a person has to do first.
    ///
    /// Without an account: the one named `default`, else the only one there is.
    pub fn connection(
        &self,
        service: &ServiceName,
        owner: &Owner,
        provider: &ProviderId,
        account: Option<&AccountAlias>,
        scopes: &BTreeSet<Scope>,
    ) -> Result<Arc<Connection>, BrokerError> {
        let connection = match self.0.parts.vault.find(owner, provider, account)? {
            Found::One(connection) => connection,
            Found::None => return Err(NeededAction::connect(service, owner, provider, account, scopes).into()),
            Found::Several(aliases) => return Err(NeededAction::choose(service, provider, &aliases).into()),
        };
        match &connection.state {
            State::Active => {
                let missing: Vec<_> = scopes.difference(&connection.scopes).cloned().collect();
                if missing.is_empty() {
                    Ok(connection)
                } else {
                    Err(NeededAction::scopes(service, &connection, missing).into())
                }
            }
            State::Unconfirmed => Err(NeededAction::confirm(service, &connection).into()),
            State::NeedsReconnect { reason, .. } => Err(NeededAction::reconnect(service, &connection, *reason).into()),
        }
    }

    /// The same connection, in whatever state it is.
    pub fn stored(
        &self,
        owner: &Owner,
        provider: &ProviderId,
        account: Option<&AccountAlias>,
    ) -> Option<Arc<Connection>> {
        match self.0.parts.vault.find(owner, provider, account) {
            Ok(Found::One(connection)) => Some(connection),
            _ => None,
        }
    }

    /// The access token that the permit allows, fresh; the audit entry leaves the process before this returns.
    ///
    /// `event` says for what; the connection, its generation and the permit's own words are filled in here. The token is
    /// decrypted after the entry is written. Where the connection has ended by then, a second entry says that it was refused;
    /// where it was refreshed, the new token has an entry of its own.
    pub async fn release(
        &self,
        permit: &Permit,
        connection: ConnectionId,
        mut event: audit::Event,
    ) -> Result<Released, BrokerError> {
        let inner = &self.0;
        let (vault, audit) = (&inner.parts.vault, &inner.parts.audit);
        let drains = inner.parts.catalogue.get(permit.provider()).is_some_and(|provider| provider.drains);
        let mut known = self.fresh(permit, connection).await.map_err(|error| self.for_people(permit, error))?;
        let in_flight = if drains {
            let guard = inner.gates.enter(connection).await;
            // A refresh may have ended while the gate was closed, and with it the token that was known before.
            known = vault.usable(permit, &connection)?;
            Some(guard)
        } else {
            None
        };
        event.connection = Some(connection);
        let mut moved = 0;
        loop {
            event.generation = Some(known.generation);
            audit.append_for_release(&event).await.inspect_err(|error| {
                tracing::error!(error = error as &dyn std::error::Error, "no token is released");
            })?;
            // Writing the entry may have taken seconds.
            let error = match vault.access_token_at(permit, &connection, known.generation) {
                Ok(Access { token, connection }) => return Ok(Released { token, connection, in_flight }),
                Err(VaultError::Moved { .. }) if moved < MOST_MOVES => match vault.usable(permit, &connection) {
                    Ok(newer) => {
                        moved += 1;
                        known = newer;
                        continue;
                    }
                    Err(error) => error,
                },
                Err(error) => error,
            };
            let detail =
                "the connection changed while the entry of its release was written, and its token was not released";
            let refused = audit::Event {
                kind: EventKind::Denied,
                decision: Decision::Denied,
                detail: Some(detail.to_owned()),
                ..event
            };
            let invocation = refused.invocation.map(|invocation| invocation.to_string());
            if let Err(error) = audit.append_aside(refused).await {
                // The answer is no in any case; without the entry it is the more so.
                let error = &error as &dyn std::error::Error;
                tracing::error!(invocation, error, "a refusal is missing in the audit log");
            }
            return Err(self.for_people(permit, error.into()));
        }
    }

    /// A connection that ended meanwhile is something for a person to act on.
    fn for_people(&self, permit: &Permit, error: BrokerError) -> BrokerError {
        match error {
            BrokerError::Gone | BrokerError::Vault(_) => {}
            other => return other,
        }
        let (service, owner, provider) = (permit.service(), permit.owner(), permit.provider());
        match self.connection(service, owner, provider, permit.account(), permit.scopes()) {
            Err(action @ BrokerError::ActionRequired(_)) => action,
            _ => error,
        }
    }

    /// The connection once its token is fresh. Nothing is decrypted.
    async fn fresh(&self, permit: &Permit, id: ConnectionId) -> Result<Arc<Connection>, BrokerError> {
        let connection = self.0.parts.vault.usable(permit, &id)?;
        match self.freshness(&connection) {
            Freshness::Fresh => Ok(connection),
            Freshness::Due => {
                // The valid token goes on being served while the new one is fetched.
                drop(self.start_refresh(id, connection.generation));
                Ok(connection)
            }
            Freshness::Stale => {
                self.refresh(id).await?;
                let connection = self.0.parts.vault.usable(permit, &id)?;
                match self.freshness(&connection) {
                    Freshness::Stale => Err(BrokerError::Unavailable {
                        retry_after: None,
                        message: format!("{} gave a token that has already expired", permit.provider()),
                    }),
                    Freshness::Fresh | Freshness::Due => Ok(connection),
                }
            }
        }
    }

    fn freshness(&self, access: &Connection) -> Freshness {
        let now = self.0.parts.clock.now();
        let Some(expires_at) = access.expires_at else { return Freshness::Fresh };
        let life = access.refresh_at.map_or(MARGIN * 20, |refresh_at| {
            // `refresh_at` is at 5/6 of the life or earlier: what follows it is at least a sixth.
            Duration::try_from(expires_at.duration_since(refresh_at)).unwrap_or_default() * 6
        });
        let margin = MARGIN.min(life / 20);
        if now.saturating_add(margin).is_ok_and(|soon| soon >= expires_at) {
            Freshness::Stale
        } else if access.refresh_at.is_some_and(|refresh_at| refresh_at <= now) {
            Freshness::Due
        } else {
            Freshness::Fresh
        }
    }

    /// An API took a token of this generation: the refresh token of before is not needed any more.
    pub fn used(&self, connection: ConnectionId, generation: Generation) {
        self.0.parts.vault.mark_used(connection, generation);
    }

    /// An API answered 401 to this generation. Gets a new one, at most once a generation and not more often than once a minute;
    /// `true` where there is a newer token now.
    pub async fn rejected(&self, connection: ConnectionId, generation: Generation) -> Result<bool, BrokerError> {
        let current = self.0.parts.vault.connection(connection)?;
        match current {
            None => return Ok(false),
            Some(current) if current.generation != generation => return Ok(true),
            Some(current) if !renews(current.kind) => return Ok(false),
            Some(_) => {}
        }
        let now = self.0.parts.clock.monotonic();
        {
            let mut rejected = self.0.rejected.lock().unwrap_or_else(PoisonError::into_inner);
            rejected.retain(|_, until| *until > now);
            if rejected.contains_key(&connection) {
                return Ok(false);
            }
            rejected.insert(connection, now + PAUSE_AFTER_REJECTION);
        }
        self.wait_for(self.start_refresh(connection, generation)).await?;
        Ok(true)
    }

    /// Refreshes a connection now, or waits for the refresh that is under way.
    pub async fn refresh(&self, connection: ConnectionId) -> Result<(), BrokerError> {
        let Some(current) = self.0.parts.vault.connection(connection)? else {
            return Err(BrokerError::Gone);
        };
        self.wait_for(self.start_refresh(connection, current.generation)).await
    }

    /// Waits until no refresh is under way in this process. A program does this before it ends: a provider that has rotated
    /// already would otherwise have its answer go to nobody.
    pub async fn settle(&self) {
        loop {
            let running: Vec<Running> = {
                let running = self.0.running.lock().unwrap_or_else(PoisonError::into_inner);
                running.values().filter(|running| running.borrow().is_none()).cloned().collect()
            };
            if running.is_empty() {
                return;
            }
            for refresh in running {
                // How it ended is told to those who need the token.
                let _ = self.wait_for(refresh).await;
            }
        }
    }

    async fn wait_for(&self, mut running: Running) -> Result<(), BrokerError> {
        match running.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone().unwrap_or(Ok(())),
            // The task ended without a word: the runtime is shutting down.
            Err(_) => Err(BrokerError::unavailable("the host is shutting down")),
        }
    }
}

fn renews(kind: Kind) -> bool {
    match kind {
        Kind::AuthorizationCode | Kind::ClientCredentials => true,
        Kind::ApiKey | Kind::Basic | Kind::StaticBearer => false,
    }
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").finish_non_exhaustive()
    }
}
