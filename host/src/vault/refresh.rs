//! Claiming a generation and replacing it.

use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::connection::{Connection, Kind, ReconnectReason, TokenSet, later};
use super::datastore::{ClaimRow, Claimed, ConnectionRow, GivenBack, Lessee};
use super::envelope::Field;
use super::error::VaultError;
use super::lease::{Claim, ClaimOutcome, LEASE, RefreshFailure};
use super::vault::{Vault, text};
use crate::audit::{Decision, EventKind};
use crate::clock::Timestamp;
use crate::id::{ConnectionId, Generation};
use crate::secret::{AccessToken, RefreshToken};

/// New tokens that could not be stored are tried again after this long, then after twice as long, and so on.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(5);

impl Vault {
    /// Claims connections whose refresh is due, at most `limit`. The cost grows with what is due, not with what is stored.
    pub async fn claim_due(&self, limit: usize) -> Result<Vec<Claim>, VaultError> {
        let lessee = self.lessee();
        let rows = self.store.claim_due(lessee, limit).await?;
        Ok(rows.into_iter().map(|row| claim(row, lessee)).collect())
    }

    /// When the next refresh is due, of whatever connection.
    pub fn next_due(&self) -> Result<Option<Timestamp>, VaultError> {
        self.store.next_due()
    }

    /// Claims one connection, if it is still at this generation and nobody else has it.
    pub async fn claim(&self, id: ConnectionId, base: Generation) -> Result<ClaimOutcome, VaultError> {
        let lessee = self.lessee();
        Ok(match self.store.claim(id, base, lessee).await? {
            Claimed::Yes(row) => ClaimOutcome::Claimed(claim(row, lessee)),
            Claimed::Busy(until) => ClaimOutcome::Busy { until },
            Claimed::Moved(generation) => ClaimOutcome::Moved(generation),
            Claimed::Ended => ClaimOutcome::Ended,
        })
    }

    /// The refresh token of a claimed generation.
    pub fn refresh_token(&self, claim: &Claim) -> Result<RefreshToken, VaultError> {
        let row = self.row_at(claim)?;
        let connection = &row.connection;
        let record = row.refresh.as_deref().ok_or_else(|| VaultError::NoRefreshToken {
            owner: connection.owner.clone(),
            connection: connection.id,
            generation: connection.generation,
        })?;
        let place = self.place(connection, Field::RefreshToken);
        Ok(RefreshToken::new(text(|| place, self.open_record(&place, record)?)?))
    }

    /// The refresh token before the last rotation, while no use of the new access token has been noted. Good for one try
    /// when the provider refuses the newer one.
    pub fn previous_refresh_token(&self, claim: &Claim) -> Result<Option<RefreshToken>, VaultError> {
        let row = self.row_at(claim)?;
        let Some(record) = row.previous.as_deref() else { return Ok(None) };
        let place = self.place(&row.connection, Field::PreviousRefreshToken);
        Ok(Some(RefreshToken::new(text(|| place, self.open_record(&place, record)?)?)))
    }

    /// Stores the answer to a refresh as the next generation.
    ///
    /// It is accepted while the claimed generation is the current one, even if the lease has run out: on a server that
    /// rotates strictly this answer holds the only good token there is. Else it is [`VaultError::Moved`].
    pub async fn commit(&self, claim: Claim, tokens: TokenSet) -> Result<Arc<Connection>, VaultError> {
        let row = self.row_at(&claim)?;
        let base = row.connection.generation;
        let old = self.old_refresh(&row, tokens.refresh.is_some())?;
        let has_refresh = old.is_some() || tokens.refresh.is_some();
        let next = Connection {
            generation: base.next(),
            state: row.connection.state.refreshed(),
            ..(*row.connection).clone()
        };
        let next = Arc::new(next.with(&tokens, has_refresh, &*self.clock));
        let access = self.seal_record(&self.access_place(&next), tokens.access.expose().as_bytes()).await?;
        let seal = async |field, secret: &[u8]| self.seal_record(&self.place(&next, field), secret).await;
        let (refresh, previous) = match (&tokens.refresh, &old) {
            (Some(new), Some(old)) => (
                Some(seal(Field::RefreshToken, new.expose().as_bytes()).await?),
                Some(seal(Field::PreviousRefreshToken, old).await?),
            ),
            (Some(new), None) => (Some(seal(Field::RefreshToken, new.expose().as_bytes()).await?), None),
            (None, Some(old)) => (Some(seal(Field::RefreshToken, old).await?), None),
            (None, None) => (None, None),
        };
        let change = self.change(EventKind::Refreshed, Decision::Allowed, &next, None).await?;
        let row = ConnectionRow { connection: Arc::clone(&next), access, refresh, previous };
        let mut wait = FIRST_RETRY;
        loop {
            match self.store.commit(base, row.clone(), change.clone()).await {
                Ok(()) => return Ok(next),
                // A full disk or a lock that is held: while the lease holds, nothing else can bring these tokens back.
                Err(error @ (VaultError::Database { .. } | VaultError::Io { .. }))
                    if self.clock.now() < claim.until =>
                {
                    tracing::error!(%error, "new tokens could not be stored yet; trying again");
                    self.clock.sleep(wait).await;
                    wait = (wait * 2).min(LONGEST_RETRY);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Keeps a new refresh token that came without a usable access token: on a server that rotates it is the only good one.
    /// The access token stays what it was, and so does its end; the next refresh is planned for what is left of it.
    pub async fn keep_refresh(&self, claim: Claim, refresh: RefreshToken) -> Result<Arc<Connection>, VaultError> {
        let row = self.row_at(&claim)?;
        let place = self.access_place(&row.connection);
        let access = AccessToken::new(text(|| place, self.open_record(&place, &row.access)?)?);
        let now = self.clock.now();
        let left = |at: Timestamp| Duration::try_from(at.duration_since(now)).unwrap_or_default();
        let tokens = TokenSet {
            access,
            refresh: Some(refresh),
            token_type: row.connection.token_type.clone(),
            expires_in: row.connection.expires_at.map(left),
            requested_at: now,
            scopes: None,
            api_origin: None,
            account_label: None,
            grant_ends_at: None,
        };
        self.commit(claim, tokens).await
    }

    /// Gives a claim back without new tokens.
    ///
    /// A permanent failure ends the connection, unless the generation moved or somebody claimed it later: they decide then.
    pub async fn fail(&self, claim: Claim, failure: RefreshFailure) -> Result<(), VaultError> {
        let how = match failure {
            RefreshFailure::Permanent { reason } => {
                let reason = if claim.after_unknown { ReconnectReason::RotationLost } else { reason };
                let detail = Some(reason.explanation());
                let change =
                    self.change(EventKind::NeedsReconnect, Decision::Failed, &claim.connection, detail).await?;
                GivenBack::Ended(claim.connection.state.ended(reason, self.clock.now()), Box::new(change))
            }
            RefreshFailure::Transient { retry_at } => GivenBack::Until { at: retry_at, unknown: false },
            RefreshFailure::Unknown => GivenBack::Until { at: claim.until, unknown: true },
        };
        self.store.give_back(claim.id(), claim.base(), claim.fence, how).await
    }

    /// The present refresh token's bytes. One that can't be opened is an error only where nothing takes its place: a
    /// rotated token must not be lost to it.
    fn old_refresh(&self, row: &ConnectionRow, replaced: bool) -> Result<Option<Zeroizing<Vec<u8>>>, VaultError> {
        if row.connection.kind == Kind::ClientCredentials {
            return Ok(None);
        }
        let Some(record) = row.refresh.as_deref() else { return Ok(None) };
        match self.open_record(&self.place(&row.connection, Field::RefreshToken), record) {
            Ok(secret) => Ok(Some(secret)),
            Err(error) if replaced => {
                tracing::warn!(%error, "the refresh token that was replaced can't be opened");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The claimed connection, if it is still at the claimed generation.
    fn row_at(&self, claim: &Claim) -> Result<ConnectionRow, VaultError> {
        let row = self.store.connection(claim.id())?;
        row.filter(|row| row.connection.generation == claim.base())
            .ok_or_else(|| VaultError::Moved { connection: claim.id(), base: claim.base() })
    }

    fn lessee(&self) -> Lessee {
        let now = self.clock.now();
        Lessee { id: self.lessee, now, until: later(now, LEASE) }
    }
}

fn claim(row: ClaimRow, lessee: Lessee) -> Claim {
    Claim { connection: row.connection, fence: row.fence, until: lessee.until, after_unknown: row.after_unknown }
}
