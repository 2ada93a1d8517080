//! Links that sign somebody in, once. The owner of the vault makes them at the command line.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clawcoil::clock::{Clock, Timestamp, random};
use clawcoil::host::Host;
use clawcoil::id::{Generation, Owner};
use clawcoil::vault::{Document, Vault, VaultError};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Role;

const KIND: &str = "sign-in-link";

/// How long a link is good.
const LIFE: Duration = Duration::from_mins(5);

/// What a link does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    /// As whom it signs in.
    pub(crate) role: Role,
    /// The path that is shown then.
    pub(crate) next: String,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    role: String,
    user: Option<String>,
    next: String,
}

/// The links of one agent.
pub(crate) struct Links<'a> {
    vault: &'a Vault,
    clock: Arc<dyn Clock>,
}

impl<'a> Links<'a> {
    pub(crate) fn of(host: &'a Host) -> Self {
        Self::in_vault(host.vault(), Arc::clone(host.clock()))
    }

    pub(crate) fn in_vault(vault: &'a Vault, clock: Arc<dyn Clock>) -> Self {
        Self { vault, clock }
    }

    /// Makes a link: its path, and until when it is good.
    pub(crate) async fn make(&self, link: &Link) -> Result<(Zeroizing<String>, Timestamp), VaultError> {
        let bytes = Zeroizing::new(random::<32>(self.clock.as_ref()));
        let secret = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(*bytes));
        let expires_at = self.clock.now().saturating_add(LIFE).unwrap_or(Timestamp::MAX);
        let user = link.role.user();
        let stored = Stored {
            role: link.role.as_str().to_owned(),
            user: user.map(ToString::to_string),
            next: link.next.clone(),
        };
        let document = Document {
            kind: KIND,
            lookup: self.vault.lookup_of(KIND, &secret),
            owner: user.cloned().map_or(Owner::Agent, Owner::User),
            expires_at: Some(expires_at),
            contents: serde_json::to_string(&stored).unwrap_or_default().into(),
            revision: Generation(0),
        };
        self.vault.put_document(&document).await?;
        Ok((Zeroizing::new(format!("/sign-in/link/{}", *secret)), expires_at))
    }

    /// What a link would do. Looking uses it up no more than a chat that previews it does.
    pub(crate) fn look(&self, secret: &str) -> Result<Option<Link>, VaultError> {
        Ok(self.vault.document(KIND, &self.vault.lookup_of(KIND, secret))?.as_ref().and_then(read))
    }

    /// Uses a link. Of several who try, one does.
    pub(crate) async fn take(&self, secret: &str) -> Result<Option<Link>, VaultError> {
        Ok(self.vault.take_document(KIND, &self.vault.lookup_of(KIND, secret)).await?.as_ref().and_then(read))
    }
}

fn read(document: &Document) -> Option<Link> {
    let Stored { role, user, next } = serde_json::from_str(&document.contents).ok()?;
    Some(Link { role: Role::read(&role, user.as_deref())?, next })
}
