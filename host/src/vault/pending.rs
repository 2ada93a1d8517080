//! Authorizations that wait for their callback.

use std::collections::BTreeSet;

use super::contents::{decode, encode};
use super::datastore::PendingRow;
use super::envelope::{Fault, Field, Item, Place};
use super::error::VaultError;
use super::vault::Vault;
use crate::clock::{Timestamp, from_milliseconds};
use crate::id::{AccountAlias, Digest, Generation, Owner, ProviderId, Scope};
use crate::secret::CodeVerifier;

/// An authorization that was started and waits for its callback. It can be taken once.
#[derive(Debug)]
pub struct Pending {
    /// The digest of the `state` parameter; the value itself is with the browser only.
    pub state_hash: Digest,
    /// Who connects.
    pub owner: Owner,
    /// At which provider.
    pub provider: ProviderId,
    /// Under which name.
    pub account: AccountAlias,
    /// The scopes that are asked for.
    pub scopes: BTreeSet<Scope>,
    /// The PKCE verifier.
    pub verifier: CodeVerifier,
    /// The OpenID nonce, where one was sent.
    pub nonce: Option<String>,
    /// The redirect URI that was sent.
    pub redirect_uri: String,
    /// From then on it is refused.
    pub expires_at: Timestamp,
}

impl Vault {
    /// Stores a started authorization, sealed with its owner's key. Those that have expired are removed.
    pub async fn put_pending(&self, pending: Pending) -> Result<(), VaultError> {
        let expires_at = pending.expires_at.as_millisecond().to_string();
        let scopes = pending.scopes.iter().map(Scope::as_str).collect::<Vec<_>>().join(" ");
        let parts = encode(&[
            pending.account.as_str().as_bytes(),
            scopes.as_bytes(),
            pending.verifier.expose().as_bytes(),
            if pending.nonce.is_some() { b"nonce" } else { b"none" },
            pending.nonce.as_deref().unwrap_or_default().as_bytes(),
            pending.redirect_uri.as_bytes(),
            expires_at.as_bytes(),
        ]);
        let state = *pending.state_hash.as_bytes();
        let place = self.pending_place(&pending.owner, &pending.provider, &state);
        let record = self.seal_record(&place, &parts).await?;
        let row = PendingRow {
            state,
            owner: pending.owner,
            provider: pending.provider,
            expires_at: pending.expires_at,
            record,
        };
        self.store.put_pending(row, self.clock.now()).await
    }

    /// Takes the authorization that was started with this `state`. `None`: it is unknown, expired, or was taken before.
    pub async fn take_pending(&self, state: &str) -> Result<Option<Pending>, VaultError> {
        let state_hash = Digest::of(state.as_bytes());
        let Some(row) = self.store.take_pending(*state_hash.as_bytes()).await? else { return Ok(None) };
        let place = self.pending_place(&row.owner, &row.provider, &row.state);
        let opened = self.open_record(&place, &row.record)?;
        let contents = || VaultError::record(&place, Fault::Contents);
        let [account, scopes, verifier, has_nonce, nonce, redirect_uri, expires_at] =
            decode(&opened).ok_or_else(contents)?;
        // The moment in the record counts; the column is for finding what can be removed.
        let expires_at = expires_at.parse().ok().and_then(from_milliseconds).ok_or_else(contents)?;
        if self.clock.now() >= expires_at {
            return Ok(None);
        }
        let scopes =
            scopes.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>().map_err(|_| contents())?;
        Ok(Some(Pending {
            state_hash,
            account: account.parse().map_err(|_| contents())?,
            scopes,
            verifier: CodeVerifier::new(verifier.to_owned()),
            nonce: (has_nonce == "nonce").then(|| nonce.to_owned()),
            redirect_uri: redirect_uri.to_owned(),
            expires_at,
            owner: row.owner,
            provider: row.provider,
        }))
    }

    fn pending_place<'a>(&self, owner: &'a Owner, provider: &'a ProviderId, state: &'a [u8; 32]) -> Place<'a> {
        Place {
            vault: self.id,
            owner,
            provider: Some(provider),
            item: Item::Pending(state),
            field: Field::PendingAuthorization,
            generation: Generation(0),
        }
    }
}
