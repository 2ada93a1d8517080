//! One refresh of one generation.

use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, watch};
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use super::{Broker, BrokerError, Running};
use crate::audit::{Decision, EventKind};
use crate::clock::Timestamp;
use crate::connect::token_set;
use crate::id::{ConnectionId, Generation};
use crate::net::FetchLimits;
use crate::oauth::{self, Client, ErrorKind, Outcome, Transport};
use crate::vault::{self, Claim, ClaimOutcome, Connection, Kind, ReconnectReason, RefreshFailure, VaultError};

/// How often a waiter asks whether another process has finished the refresh that it holds the claim of.
const POLL: Duration = Duration::from_millis(50);
/// A second attempt is made only where this much of the time for both is left.
const SECOND_TRY: Duration = Duration::from_secs(5);
/// How long a caller waits for a claim that somebody else holds before it is told to come back.
const WAIT: Duration = Duration::from_secs(10);

impl Broker {
    /// Starts the refresh of this generation in a task of its own, or joins the one that is under way.
    pub(super) fn start_refresh(&self, connection: ConnectionId, base: Generation) -> Running {
        let mut running = self.0.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = running.get(&connection).filter(|running| running.borrow().is_none()) {
            return running.clone();
        }
        let (done, waiting) = watch::channel(None);
        running.insert(connection, waiting.clone());
        drop(running);
        let (broker, cause) = (self.clone(), Span::current());
        tokio::spawn(async move {
            let ended = broker.refresh_generation(connection, base, cause).await;
            broker.finish(connection, &done, ended);
        });
        waiting
    }

    /// Runs a claim that the schedule has made, so that callers in this process can wait for it.
    pub(super) fn start_claimed(&self, claim: Claim, slot: Option<OwnedSemaphorePermit>) {
        let connection = claim.id();
        let (done, waiting) = watch::channel(None);
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner).insert(connection, waiting);
        let broker = self.clone();
        tokio::spawn(async move {
            let ended = broker.run(claim, Span::none()).await;
            drop(slot);
            broker.finish(connection, &done, ended);
        });
    }

    fn finish(
        &self,
        connection: ConnectionId,
        done: &watch::Sender<Option<Result<(), BrokerError>>>,
        ended: Result<(), BrokerError>,
    ) {
        if let Err(error) = &ended {
            tracing::warn!(%connection, %error, "a refresh failed");
        }
        // The answer is there before the entry goes, so that nobody finds neither.
        done.send_replace(Some(ended));
        let mut running = self.0.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.get(&connection).is_some_and(|waiting| waiting.same_channel(&done.subscribe())) {
            running.remove(&connection);
        }
    }

    async fn refresh_generation(
        &self,
        connection: ConnectionId,
        base: Generation,
        cause: Span,
    ) -> Result<(), BrokerError> {
        let start = self.0.parts.clock.monotonic();
        loop {
            match self.0.parts.vault.claim(connection, base).await? {
                ClaimOutcome::Claimed(claim) => return self.run(claim, cause).await,
                ClaimOutcome::Moved(_) => return Ok(()),
                ClaimOutcome::Ended => return Err(BrokerError::Gone),
                ClaimOutcome::Busy { until } => {
                    // A lease of another process, or a pause after a failure.
                    let left = Duration::try_from(until.duration_since(self.0.parts.clock.now())).unwrap_or_default();
                    if self.0.parts.clock.monotonic().saturating_sub(start) >= WAIT {
                        let message = "the token has expired, and the refresh of it has not come to an end".to_owned();
                        return Err(BrokerError::Unavailable { retry_after: Some(left), message });
                    }
                    self.0.parts.clock.sleep(POLL).await;
                }
            }
        }
    }

    /// Does what was claimed, in a span of its own: a refresh is for all who wait for it, and goes on when they have left. It is
    /// linked to what has begun it.
    async fn run(&self, claim: Claim, cause: Span) -> Result<(), BrokerError> {
        let provider = claim.connection().provider.clone();
        let span = tracing::info_span!(
            parent: None,
            "refresh",
            otel.status_code = Empty,
            clawcoil.provider = %provider,
            error.type = Empty,
        );
        span.follows_from(&cause);
        drop(cause);
        let ended = self.replace_tokens(claim).instrument(span.clone()).await;
        if ended.is_err() {
            span.record("error.type", word(&ended));
            span.record("otel.status_code", "ERROR");
        }
        self.0.parts.observer.refreshed(&provider, word(&ended));
        ended
    }

    async fn replace_tokens(&self, claim: Claim) -> Result<(), BrokerError> {
        let inner = &self.0;
        let connection = claim.connection().clone();
        let Some(provider) = inner.parts.catalogue.get(&connection.provider) else {
            let message = "the catalogue has no such provider any more; add it again with `clawcoil provider add`";
            return self.give_back(claim, &connection, configuration(&connection, message)).await;
        };
        if let Some(pause) = inner.breakers.pause(&connection.provider, inner.parts.clock.as_ref()) {
            let retry_at = self.in_a_while(pause);
            inner.parts.vault.fail(claim, RefreshFailure::Transient { retry_at }).await?;
            let message = format!("{} has failed several times and is left alone for a while", connection.provider);
            return Err(BrokerError::Unavailable { retry_after: Some(pause), message });
        }
        let registration = inner.parts.vault.client(&connection.provider)?;
        let Some(registration) = registration else {
            let message = "no client is registered; set it with `clawcoil provider add`";
            return self.give_back(claim, &connection, configuration(&connection, message)).await;
        };
        let Some(server) = provider.server() else {
            return self.give_back(claim, &connection, configuration(&connection, "it has no token endpoint")).await;
        };
        let client = Client {
            id: &registration.client_id,
            secret: registration.client_secret.as_ref(),
            auth: server.client_auth,
        };
        // Where the old access token dies at once, the requests that carry it finish first.
        let _closed =
            if provider.drains { inner.gates.close(connection.id, inner.parts.clock.as_ref()).await } else { None };
        let rules = provider.address_rules(&inner.parts.private);
        let via = Transport {
            net: &inner.parts.net,
            rules: &rules,
            limits: FetchLimits { total: vault::CALL, ..FetchLimits::default() },
            clock: inner.parts.clock.as_ref(),
        };
        let answer = match connection.kind {
            Kind::AuthorizationCode => match inner.parts.vault.refresh_token(&claim) {
                Ok(token) => {
                    let start = inner.parts.clock.monotonic();
                    let answer = oauth::refresh::refresh(&via, server, &client, &token).await;
                    match answer {
                        Err(error) if error.is_permanent() => {
                            // The newest token was never used with success: the one before may still be the good one. Both
                            // attempts together keep to the time of one, so that the lease outlives them.
                            let left = vault::CALL.saturating_sub(inner.parts.clock.monotonic().saturating_sub(start));
                            match inner.parts.vault.previous_refresh_token(&claim) {
                                Ok(Some(before)) if left >= SECOND_TRY => {
                                    let limits = FetchLimits { total: left, ..via.limits };
                                    let via = Transport { limits, ..via };
                                    oauth::refresh::refresh(&via, server, &client, &before).await
                                }
                                _ => Err(error),
                            }
                        }
                        answer => answer,
                    }
                }
                Err(VaultError::NoRefreshToken { .. }) => {
                    return self.end(claim, ReconnectReason::GrantEnded).await;
                }
                Err(error) => return Err(error.into()),
            },
            Kind::ClientCredentials => {
                oauth::client_credentials::request(&via, server, &client, &connection.scopes).await
            }
            Kind::ApiKey | Kind::Basic | Kind::StaticBearer => {
                return self
                    .give_back(claim, &connection, configuration(&connection, "its credential does not expire"))
                    .await;
            }
        };
        match answer {
            Ok(tokens) => {
                inner.breakers.succeeded(&connection.provider);
                let tokens = token_set(provider, tokens);
                inner.parts.vault.commit(claim, tokens).await?;
                self.tell().await;
                Ok(())
            }
            Err(error) => self.failed(claim, &connection, error).await,
        }
    }

    async fn failed(&self, claim: Claim, connection: &Connection, mut error: oauth::Error) -> Result<(), BrokerError> {
        let inner = &self.0;
        self.note_failure(connection, error.to_string()).await;
        if let Some(token) = error.take_rescued() {
            // The provider has rotated: without this token the grant would be lost.
            inner.parts.vault.keep_refresh(claim, token).await?;
            self.tell().await;
            return Err(BrokerError::unavailable(error.to_string()));
        }
        match error.kind() {
            ErrorKind::InvalidGrant => {
                let reason =
                    if claim.after_unknown() { ReconnectReason::RotationLost } else { ReconnectReason::Refused };
                self.end(claim, reason).await
            }
            ErrorKind::InvalidClient | ErrorKind::Unsupported | ErrorKind::MissingSecret | ErrorKind::InvalidScope => {
                self.give_back(claim, connection, configuration(connection, &error.to_string())).await
            }
            _ => {
                let wait = inner.breakers.failed(&connection.provider, error.retry_after(), inner.parts.clock.as_ref());
                let failure = match error.outcome() {
                    Outcome::Unknown if connection.kind == Kind::AuthorizationCode => RefreshFailure::Unknown,
                    // Without a refresh token there is nothing to lose by asking again.
                    Outcome::Unknown | Outcome::NotDone => {
                        RefreshFailure::Transient { retry_at: self.in_a_while(wait) }
                    }
                };
                inner.parts.vault.fail(claim, failure).await?;
                Err(BrokerError::Unavailable { retry_after: Some(wait), message: error.to_string() })
            }
        }
    }

    /// The grant is over: only a person can begin a new one.
    async fn end(&self, claim: Claim, reason: ReconnectReason) -> Result<(), BrokerError> {
        self.0.parts.vault.fail(claim, RefreshFailure::Permanent { reason }).await?;
        self.tell().await;
        Err(BrokerError::Gone)
    }

    /// The operator has something to mend; nobody's grant is dropped for it.
    async fn give_back(&self, claim: Claim, connection: &Connection, error: BrokerError) -> Result<(), BrokerError> {
        let wait = self.0.breakers.failed(&connection.provider, None, self.0.parts.clock.as_ref());
        self.0.parts.vault.fail(claim, RefreshFailure::Transient { retry_at: self.in_a_while(wait) }).await?;
        Err(error)
    }

    fn in_a_while(&self, wait: Duration) -> Timestamp {
        self.0.parts.clock.now().saturating_add(wait).unwrap_or(Timestamp::MAX)
    }

    /// Brings the changes of tokens into the audit log. They are safe already, and so is what is to be told of them: where that
    /// fails it is told later. Whether a token is released depends on the entry of its release alone.
    pub(super) async fn tell(&self) {
        if let Err(error) = self.0.parts.vault.tell(&self.0.parts.audit).await {
            tracing::error!(error = &error as &dyn std::error::Error, "the audit log does not tell of a change yet");
        }
    }

    /// Notes a failure, which changes nothing.
    async fn note_failure(&self, connection: &Connection, detail: String) {
        let noted = self.0.parts.note(EventKind::RefreshFailed, Decision::Failed, connection, Some(detail)).await;
        if let Err(error) = noted {
            tracing::error!(error = &error as &dyn std::error::Error, "a failed refresh is missing in the audit log");
        }
    }
}

/// How a refresh ended, in one word.
fn word(ended: &Result<(), BrokerError>) -> &'static str {
    match ended {
        Ok(()) => "refreshed",
        Err(BrokerError::Gone | BrokerError::ActionRequired(_)) => "ended",
        Err(BrokerError::Unavailable { .. }) => "unavailable",
        Err(BrokerError::Configuration { .. }) => "configuration",
        Err(BrokerError::Audit(_) | BrokerError::Vault(_)) => "failed",
    }
}

fn configuration(connection: &Connection, message: &str) -> BrokerError {
    BrokerError::Configuration { provider: connection.provider.clone(), message: message.to_owned() }
}
