//! Databases that are no vaults, or damaged ones.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clawcoil::clock::{SystemClock, Timestamp};
use clawcoil::id::{ConnectionId, Owner, ProviderId, VaultId};
use clawcoil::identity::{Identity, Recovery};
use clawcoil::secret::{AccessToken, ClientSecret, RefreshToken};
use clawcoil::vault::{ClaimOutcome, ClientRegistration, Kind, NewConnection, TokenSet, Vault, VaultError};

use super::Case;
use super::identities::without;

/// A vault with one connection and one client.
struct Fixture {
    folder: tempfile::TempDir,
    identity: Identity,
    connection: ConnectionId,
    vault: VaultId,
}

fn identity(folder: &Path, name: &str) -> Identity {
    let file = |ending: &str| folder.join(format!("{name}.{ending}"));
    Identity::generate(&file("crt"), &file("key"), &SystemClock::new()).expect("an identity")
}

fn google() -> ProviderId {
    "google".parse().expect("a provider")
}

fn alice() -> Owner {
    Owner::User("alice".parse().expect("a user"))
}

impl Fixture {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let identity = identity(folder.path(), "agent");
        let clock = Arc::new(SystemClock::new());
        let path = folder.path().join("vault.db");
        let vault = Vault::create(&path, &identity, &Recovery::none(), clock).await.expect("a vault");
        let new = NewConnection {
            owner: alice(),
            provider: google(),
            account: "default".parse().expect("an account"),
            kind: Kind::AuthorizationCode,
            scopes: ["read".parse().expect("a scope")].into(),
        };
        let tokens = TokenSet {
            access: AccessToken::new("access".to_owned()),
            refresh: Some(RefreshToken::new("refresh".to_owned())),
            token_type: "Bearer".to_owned(),
            expires_in: Some(Duration::from_hours(1)),
            requested_at: Timestamp::from_second(1_800_000_000).expect("a time"),
            scopes: None,
            api_origin: None,
            account_label: None,
            grant_ends_at: None,
        };
        let connection = vault.connect(new, tokens, true).await.expect("a connection").0.id;
        let secret = Some(ClientSecret::new("secret".to_owned()));
        let client = ClientRegistration { client_id: "client".to_owned(), client_secret: secret };
        vault.put_client(&google(), client).await.expect("a client");
        Self { folder, identity, connection, vault: vault.id() }
    }

    /// A copy that is a whole vault.
    fn copy(&self, to: &Path) {
        let sql = rusqlite::Connection::open(self.folder.path().join("vault.db")).expect("the database opens");
        sql.execute("VACUUM INTO ?1", [to.to_str()]).expect("it can be copied");
    }

    /// Opens it and reads all that is in it, until the first error.
    async fn read(&self, path: &Path, identity: &Identity) -> Result<(), VaultError> {
        let vault = Vault::open(path, identity, Arc::new(SystemClock::new())).await?;
        vault.client(&google())?;
        for connection in vault.connections(Some(&alice()))? {
            if let ClaimOutcome::Claimed(claim) = vault.claim(connection.id, connection.generation).await? {
                vault.refresh_token(&claim)?;
            }
        }
        Ok(())
    }

    async fn case(&self, name: &str, path: &Path, given: &Identity) -> Case {
        let answer = self.read(path, given).await.map_err(|error| {
            without(&error.to_string(), self.folder.path())
                .replace(&self.identity.agent_id().to_string(), "AGENT")
                .replace(&given.agent_id().to_string(), "OTHER-AGENT")
                .replace(&self.connection.to_string(), "CONNECTION")
                .replace(&self.vault.to_string(), "VAULT")
        });
        Case::new(name, answer)
    }
}

/// What another program may do to a copy of the database, as SQL.
const EDITS: &[(&str, &str)] = &[
    ("of-a-newer-program", "PRAGMA user_version = 99"),
    ("application-of-another-program", "PRAGMA application_id = 7"),
    ("no-vault", "DELETE FROM seals"),
    ("no-table-of-keys", "DROP TABLE keys"),
    ("no-table-of-connections", "DROP TABLE connections"),
    ("no-column-of-clients", "ALTER TABLE clients DROP COLUMN record"),
    ("no-keys", "DELETE FROM keys WHERE namespace <> 'derived'"),
    ("keys-of-another-root", "UPDATE keys SET root_version = 9"),
    ("key-is-cut", "UPDATE keys SET wrapped = x'01'"),
    ("seal-is-cut", "UPDATE seals SET wrapped = x'01'"),
    ("check-record-is-cut", "UPDATE vaults SET check_record = x'43'"),
    ("root-key-of-another-version", "UPDATE vaults SET root_version = 2"),
    ("record-is-cut", "UPDATE clients SET record = x'434c'"),
    ("record-is-empty", "UPDATE clients SET record = x''"),
    (
        "record-has-a-flipped-bit",
        "UPDATE clients SET record = CAST(substr(record, 1, length(record) - 1)
            || CASE substr(record, -1) WHEN x'00' THEN x'01' ELSE x'00' END AS BLOB)",
    ),
    ("record-of-another-field", "UPDATE connections SET refresh = access"),
    ("record-of-another-owner", "UPDATE connections SET refresh = (SELECT record FROM clients)"),
    ("record-of-another-account", "UPDATE connections SET account = 'work'"),
    ("record-of-another-generation", "UPDATE connections SET generation = generation + 1"),
    ("provider-is-no-name", "UPDATE connections SET provider = 'Not A Name'"),
    ("account-is-empty", "UPDATE connections SET account = ''"),
    ("kind-is-unknown", "UPDATE connections SET kind = 'magic'"),
    ("scopes-are-none", "UPDATE connections SET scopes = 'a\"b'"),
    ("api-origin-is-none", "UPDATE connections SET api_origin = 'nowhere'"),
    ("state-is-unknown", "UPDATE connections SET state = 'asleep'"),
    ("generation-is-negative", "UPDATE connections SET generation = -1"),
    ("time-is-out-of-range", "UPDATE connections SET created_at = 9223372036854775807"),
];

pub(super) async fn databases() -> Vec<Case> {
    let f = Fixture::new().await;
    let path = |name: &str| f.folder.path().join(format!("{name}.db"));
    let mut cases = Vec::new();
    for (name, sql) in EDITS {
        f.copy(&path(name));
        let edited = rusqlite::Connection::open(path(name)).and_then(|file| file.execute_batch(sql));
        edited.expect("the copy can be edited");
        cases.push(f.case(name, &path(name), &f.identity).await);
    }
    std::fs::write(path("empty"), "").expect("a file");
    std::fs::create_dir(path("folder")).expect("a folder");
    std::fs::write(path("not-sqlite"), vec![0x5a; 8192]).expect("a file");
    f.copy(&path("truncated"));
    let file = std::fs::OpenOptions::new().write(true).open(path("truncated")).expect("the copy opens");
    file.set_len(4096 * 3).expect("it can be cut");
    let foreign = rusqlite::Connection::open(path("of-another-program")).expect("a database");
    foreign.execute_batch("CREATE TABLE t (x)").expect("a table");
    for name in ["missing", "empty", "folder", "not-sqlite", "truncated", "of-another-program"] {
        cases.push(f.case(name, &path(name), &f.identity).await);
    }
    f.copy(&path("of-another-agent"));
    let other = identity(f.folder.path(), "other");
    cases.push(f.case("of-another-agent", &path("of-another-agent"), &other).await);
    cases
}
