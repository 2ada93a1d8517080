//! The operator's clients at the providers.

use super::contents::{decode, encode};
use super::datastore::ClientRow;
use super::envelope::{Fault, Field, Item, Place};
use super::error::VaultError;
use super::vault::Vault;
use crate::id::{Generation, Owner, ProviderId};
use crate::secret::ClientSecret;

/// How the operator is registered at a provider. Sealed with the agent's own key.
#[derive(Debug)]
pub struct ClientRegistration {
    /// The client identifier (RFC 6749 section 2.2).
    pub client_id: String,
    /// Its secret, where the provider gave one.
    pub client_secret: Option<ClientSecret>,
}

impl Vault {
    /// Stores a client, in the place of the one before.
    pub async fn put_client(&self, provider: &ProviderId, client: ClientRegistration) -> Result<(), VaultError> {
        let parts = match &client.client_secret {
            Some(secret) => encode(&[client.client_id.as_bytes(), b"secret", secret.expose().as_bytes()]),
            None => encode(&[client.client_id.as_bytes(), b"public", b""]),
        };
        let record = self.seal_record(&self.client_place(provider), &parts).await?;
        self.store.put_client(ClientRow { provider: provider.clone(), record }).await
    }

    /// The client at a provider.
    pub fn client(&self, provider: &ProviderId) -> Result<Option<ClientRegistration>, VaultError> {
        let Some(record) = self.store.client(provider)? else { return Ok(None) };
        let place = self.client_place(provider);
        let opened = self.open_record(&place, &record)?;
        let client_secret = |kind, secret: &str| match kind {
            "secret" => Some(Some(ClientSecret::new(secret.to_owned()))),
            "public" => Some(None),
            _ => None,
        };
        decode(&opened)
            .and_then(|[id, kind, secret]| {
                Some(ClientRegistration { client_id: id.to_owned(), client_secret: client_secret(kind, secret)? })
            })
            .map(Some)
            .ok_or_else(|| VaultError::record(&place, Fault::Contents))
    }

    /// The providers at which there is a client.
    pub fn clients(&self) -> Result<Vec<ProviderId>, VaultError> {
        self.store.clients()
    }

    /// Removes a client; whether there was one. Connections that were made with it can't be refreshed any more.
    pub async fn remove_client(&self, provider: &ProviderId) -> Result<bool, VaultError> {
        self.store.remove_client(provider).await
    }

    fn client_place<'a>(&self, provider: &'a ProviderId) -> Place<'a> {
        Place {
            vault: self.id,
            owner: &Owner::Agent,
            provider: Some(provider),
            item: Item::Client,
            field: Field::ClientRegistration,
            generation: Generation(0),
        }
    }
}
