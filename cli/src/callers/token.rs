//! Bearer tokens that the operator gives to programs.
//!
//! Only a keyed digest of a token is stored, and beside it, sealed, what it is for: whoever reads the database can't use a token,
//! and whoever writes it can't make one or widen one.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clawcoil::clock::{Clock, Timestamp, random};
use clawcoil::host::Host;
use clawcoil::id::{ClientName, Generation, Owner};
use clawcoil::vault::{Document, Vault, VaultError};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Authenticated, Scope, Subject};

/// How each token begins, so that scanners of source code recognise one.
const PREFIX: &str = "claw_";

/// How the name of each begins.
const NAME: &str = "tok_";

const KIND: &str = "caller-token";

/// What a new token is for.
#[derive(Debug)]
pub(crate) struct NewToken {
    pub(crate) client: ClientName,
    pub(crate) subject: Subject,
    pub(crate) scopes: BTreeSet<Scope>,
    pub(crate) expires_at: Option<Timestamp>,
}

/// A token, without what it opens with.
#[derive(Debug, Clone)]
pub(crate) struct CallerToken {
    /// Its name, for lists and for revoking it.
    pub(crate) name: String,
    pub(crate) client: ClientName,
    pub(crate) subject: Subject,
    pub(crate) scopes: BTreeSet<Scope>,
    pub(crate) created_at: Timestamp,
    pub(crate) expires_at: Option<Timestamp>,
}

/// As it is stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    name: String,
    client: String,
    user: Option<String>,
    act_as: Option<String>,
    scopes: Vec<String>,
    created_at: i64,
}

/// The tokens of one agent.
pub(crate) struct Tokens<'a> {
    vault: &'a Vault,
    clock: Arc<dyn Clock>,
}

impl<'a> Tokens<'a> {
    pub(crate) fn of(host: &'a Host) -> Self {
        Self::in_vault(host.vault(), Arc::clone(host.clock()))
    }

    pub(crate) fn in_vault(vault: &'a Vault, clock: Arc<dyn Clock>) -> Self {
        Self { vault, clock }
    }

    /// Makes a token. It is shown once and stored nowhere.
    pub(crate) async fn issue(&self, new: NewToken) -> Result<(CallerToken, Zeroizing<String>), VaultError> {
        let secret = Zeroizing::new(random::<32>(self.clock.as_ref()));
        let text = Zeroizing::new(format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(*secret)));
        let name = format!("{NAME}{}", BASE64_URL_SAFE_NO_PAD.encode(random::<9>(self.clock.as_ref())));
        let NewToken { client, subject, scopes, expires_at } = new;
        let token = CallerToken { name, client, subject, scopes, created_at: self.clock.now(), expires_at };
        let (user, act_as) = match &token.subject {
            Subject::User(user) => (Some(user.to_string()), None),
            Subject::ActAs(pattern) => (None, Some(pattern.to_string())),
            Subject::Nobody => (None, None),
        };
        let stored = Stored {
            name: token.name.clone(),
            client: token.client.to_string(),
            user,
            act_as,
            scopes: token.scopes.iter().map(ToString::to_string).collect(),
            created_at: token.created_at.as_millisecond(),
        };
        let contents = serde_json::to_string(&stored).unwrap_or_default();
        let lookup = self.vault.lookup_of(KIND, &text);
        self.vault
            .put_document(&Document {
                kind: KIND,
                lookup,
                owner: owner(&token.subject),
                expires_at,
                contents: contents.into(),
                revision: Generation(0),
            })
            .await?;
        Ok((token, text))
    }

    /// Who shows this token; `None`: nobody that is known, or it has expired or was revoked.
    pub(crate) fn authenticate(&self, text: &str) -> Result<Option<Authenticated>, VaultError> {
        if !text.starts_with(PREFIX) {
            return Ok(None);
        }
        let document = self.vault.document(KIND, &self.vault.lookup_of(KIND, text))?;
        Ok(document.as_ref().and_then(read).map(|token| Authenticated {
            credential: token.name,
            client: token.client,
            subject: token.subject,
            scopes: token.scopes,
        }))
    }

    /// Whether a credential of this name, good before, is good still. Others than our own can't be revoked.
    pub(crate) fn is_good(&self, credential: &str) -> Result<bool, VaultError> {
        Ok(!credential.starts_with(NAME) || self.list()?.iter().any(|token| token.name == credential))
    }

    /// All that have not expired.
    pub(crate) fn list(&self) -> Result<Vec<CallerToken>, VaultError> {
        Ok(self.vault.documents(KIND, None)?.iter().filter_map(read).collect())
    }

    /// Ends a token; `None`: there is none of this name.
    pub(crate) async fn revoke(&self, name: &str) -> Result<Option<CallerToken>, VaultError> {
        let documents = self.vault.documents(KIND, None)?;
        let Some((document, token)) = documents
            .iter()
            .filter_map(|document| Some((document, read(document)?)))
            .find(|(_, token)| token.name == name)
        else {
            return Ok(None);
        };
        self.vault.take_document(KIND, &document.lookup).await?;
        Ok(Some(token))
    }
}

/// A token for one user goes with the user.
fn owner(subject: &Subject) -> Owner {
    match subject {
        Subject::User(user) => Owner::User(user.clone()),
        Subject::ActAs(_) | Subject::Nobody => Owner::Agent,
    }
}

fn read(document: &Document) -> Option<CallerToken> {
    let stored: Stored = serde_json::from_str(&document.contents).ok()?;
    let subject = match (stored.user, stored.act_as) {
        (Some(user), None) => Subject::User(user.parse().ok()?),
        (None, Some(pattern)) => Subject::ActAs(pattern.parse().ok()?),
        (None, None) => Subject::Nobody,
        (Some(_), Some(_)) => return None,
    };
    Some(CallerToken {
        name: stored.name,
        client: stored.client.parse().ok()?,
        subject,
        scopes: stored.scopes.iter().map(|scope| scope.parse().ok()).collect::<Option<_>>()?,
        created_at: Timestamp::from_millisecond(stored.created_at).ok()?,
        expires_at: document.expires_at,
    })
}
