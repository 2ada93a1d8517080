//! Bearer tokens that the operator gives to programs.
//!
//! Only a keyed digest of a token is stored, and beside it, sealed, what it is for: whoever reads the database can't use a token,
//! and whoever writes it can't make one or widen one.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clawcoil::clock::{Clock, Timestamp, from_milliseconds, random};
use clawcoil::host::Host;
use clawcoil::id::{ClientName, Generation, Owner};
use clawcoil::recall::Recall;
use clawcoil::vault::{Document, Lookup, Stamp, Vault, VaultError};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Authenticated, Scope, Subject};

/// How each token begins, so that scanners of source code recognise one.
pub(crate) const PREFIX: &str = "claw_";

/// How the name of each begins.
const NAME: &str = "tok_";

const KIND: &str = "caller-token";

/// So many tokens are known without a look at the vault.
const MOST_SHOWN: usize = 4096;

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

/// Who the tokens that were shown lately belong to, as long as nothing is committed to the vault. The tokens themselves are not kept.
pub(crate) struct Shown(Recall<Lookup, ShownToken>);

#[derive(Clone)]
struct ShownToken {
    stamp: Stamp,
    expires_at: Option<Timestamp>,
    authenticated: Arc<Authenticated>,
}

impl ShownToken {
    fn is_good(&self, stamp: Stamp, clock: &dyn Clock) -> bool {
        stamp == self.stamp && self.expires_at.is_none_or(|at| clock.now() < at)
    }
}

impl Default for Shown {
    fn default() -> Self {
        Self(Recall::new(MOST_SHOWN))
    }
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
    pub(crate) fn authenticate(&self, shown: &Shown, text: &str) -> Result<Option<Arc<Authenticated>>, VaultError> {
        if !text.starts_with(PREFIX) {
            return Ok(None);
        }
        let lookup = self.vault.lookup_of(KIND, text);
        // Taken before the token is read: a commit in between makes the stamp too old, never too new.
        let stamp = self.vault.stamp();
        let known =
            |token: &ShownToken| token.is_good(stamp, self.clock.as_ref()).then(|| Arc::clone(&token.authenticated));
        if let Some(authenticated) = shown.0.read(&lookup, known).flatten() {
            return Ok(Some(authenticated));
        }
        let document = self.vault.document(KIND, &lookup)?;
        let Some(CallerToken { name, client, subject, scopes, expires_at, .. }) = document.as_ref().and_then(read)
        else {
            return Ok(None);
        };
        let authenticated = Arc::new(Authenticated { credential: name, client, subject, scopes });
        shown.0.put(lookup, ShownToken { stamp, expires_at, authenticated: Arc::clone(&authenticated) });
        Ok(Some(authenticated))
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
        // Another may have been faster.
        let ended = self.vault.take_document(KIND, &document.lookup).await?;
        Ok(ended.map(|_| token))
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
        created_at: from_milliseconds(stored.created_at)?,
        expires_at: document.expires_at,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clawcoil::clock::ManualClock;
    use clawcoil::host::{Home, init};
    use clawcoil::identity::Recovery;

    use super::*;

    #[tokio::test]
    async fn a_token_that_is_known_is_not_looked_up_again_until_it_is_revoked_or_expires() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path().join("home"));
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        init(&home, &Recovery::none(), Arc::new(clock.clone())).await.unwrap();
        let host = Host::builder(home).clock(Arc::new(clock.clone())).open().await.unwrap();
        let (tokens, shown) = (Tokens::of(&host), Shown::default());
        let new = |expires_at| NewToken {
            client: "bot".parse().unwrap(),
            subject: Subject::User("alice".parse().unwrap()),
            scopes: [Scope::Invoke].into(),
            expires_at,
        };
        let until = clock.now().saturating_add(Duration::from_mins(1)).unwrap();
        let (_, expiring) = tokens.issue(new(Some(until))).await.unwrap();
        let (revoked, text) = tokens.issue(new(None)).await.unwrap();
        let of = |text: &str| tokens.authenticate(&shown, text).unwrap();
        for text in [&expiring, &text] {
            let (first, again) = (of(text).unwrap(), of(text).unwrap());
            assert!(Arc::ptr_eq(&first, &again), "it was looked up again");
        }
        let mut wrong = text.to_string();
        wrong.replace_range(10..11, if wrong.get(10..11) == Some("A") { "B" } else { "A" });
        assert!(of(&wrong).is_none());
        clock.advance(Duration::from_mins(1));
        assert!(of(&expiring).is_none(), "it has expired, and nothing was written since");
        assert!(of(&text).is_some());
        tokens.revoke(&revoked.name).await.unwrap().unwrap();
        assert!(of(&text).is_none(), "it was revoked");
    }
}
