//! The vault's rules, held against real database files.

mod broken;
mod documents;
mod outbox;
mod owners;
mod refreshes;
mod tampering;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clawcoil_canary as canary;

use super::*;
use crate::clock::{Clock, ManualClock, SystemClock, Timestamp};
use crate::id::{ConnectionId, Generation, Owner, ProviderId};
use crate::identity::{Identity, Recovery};
use crate::secret::{AccessToken, RefreshToken};

/// A folder with one agent's identity and vault.
struct Fixture {
    folder: tempfile::TempDir,
    identity: Identity,
    clock: ManualClock,
    vault: Vault,
}

impl Fixture {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::at(Timestamp::from_second(1_800_000_000).unwrap());
        let identity = new_identity(folder.path(), "agent");
        let vault =
            Vault::create(&folder.path().join("vault.db"), &identity, &Recovery::none(), Arc::new(clock.clone()))
                .await
                .unwrap();
        Self { folder, identity, clock, vault }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("vault.db")
    }

    async fn open(&self) -> Result<Vault, VaultError> {
        Vault::open(&self.path(), &self.identity, Arc::new(self.clock.clone())).await
    }

    async fn connect(&self, user: &str, provider: &str) -> Arc<Connection> {
        let tokens = self.tokens(&format!("access-{user}-{provider}"), Some(&format!("refresh-{user}-{provider}")));
        self.vault.connect(new_connection(user, provider), tokens, true).await.unwrap().0
    }

    fn tokens(&self, access: &str, refresh: Option<&str>) -> TokenSet {
        canary::plant(canary::Kind::AccessToken, access);
        canary::plant(canary::Kind::RefreshToken, refresh.unwrap_or_default());
        TokenSet {
            access: AccessToken::new(access.to_owned()),
            refresh: refresh.map(|token| RefreshToken::new(token.to_owned())),
            token_type: "Bearer".to_owned(),
            expires_in: Some(Duration::from_hours(1)),
            requested_at: self.clock.now(),
            scopes: None,
            api_origin: None,
            account_label: None,
            grant_ends_at: None,
        }
    }

    /// Another program with the database file.
    fn intruder(&self) -> rusqlite::Connection {
        let sql = rusqlite::Connection::open(self.path()).unwrap();
        sql.execute_batch("PRAGMA synchronous = OFF").unwrap();
        sql
    }
}

fn new_identity(folder: &Path, name: &str) -> Identity {
    let (certificate, key) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
    let identity = Identity::generate(&certificate, &key, &SystemClock::new()).unwrap();
    canary::plant_key(&std::fs::read_to_string(key).unwrap());
    identity
}

fn user(name: &str) -> Owner {
    Owner::User(name.parse().unwrap())
}

fn provider(name: &str) -> ProviderId {
    name.parse().unwrap()
}

fn new_connection(owner: &str, at: &str) -> NewConnection {
    NewConnection {
        owner: if owner == "agent" { Owner::Agent } else { user(owner) },
        provider: provider(at),
        account: "default".parse().unwrap(),
        kind: Kind::AuthorizationCode,
        scopes: ["read".parse().unwrap(), "send".parse().unwrap()].into(),
    }
}

/// The access token as a permit for this owner and provider would get it.
fn read(vault: &Vault, owner: &str, at: &str, id: ConnectionId) -> Result<String, VaultError> {
    vault.open_access(&user(owner), &provider(at), None, &id).map(|access| access.token.expose().to_owned())
}
