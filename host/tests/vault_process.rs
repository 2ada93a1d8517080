//! What the vault promises when its process dies or is looked at: each test runs this same binary again as a child.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends where something is wrong"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use clawcoil::clock::{Clock, SystemClock};
use clawcoil::id::{Digest, Owner};
use clawcoil::identity::{Identity, Recovery};
use clawcoil::secret::{AccessToken, ClientSecret, CodeVerifier, RefreshToken};
use clawcoil::vault::{ClaimOutcome, ClientRegistration, Kind, NewConnection, Pending, TokenSet, Vault};
use clawcoil_canary as canary;

/// The child's task and folder stand after this in its arguments, where the test harness takes them for a filter.
const CHILD: &str = "child_process";

fn child(task: &str, folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([CHILD, "--exact", "--nocapture", "--test-threads=1"])
        .env("CLAWCOIL_TEST_TASK", task)
        .env("CLAWCOIL_TEST_FOLDER", folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Not a rule of its own: what the children run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "the child's orders come in its environment")]
async fn child_process() {
    let (Ok(task), Ok(folder)) = (std::env::var("CLAWCOIL_TEST_TASK"), std::env::var("CLAWCOIL_TEST_FOLDER")) else {
        return;
    };
    match task.as_str() {
        "commit" => commit_for_ever(Path::new(&folder)).await,
        "harden" => harden(),
        other => panic!("{other}"),
    }
}

fn identity(folder: &Path) -> Identity {
    let (certificate, key) = (folder.join("agent.crt"), folder.join("agent.key"));
    if key.exists() {
        Identity::load(&certificate, &key).unwrap()
    } else {
        Identity::generate(&certificate, &key, &SystemClock::new()).unwrap()
    }
}

fn connection(user: &str) -> NewConnection {
    NewConnection {
        owner: Owner::User(user.parse().unwrap()),
        provider: "google".parse().unwrap(),
        account: "default".parse().unwrap(),
        kind: Kind::AuthorizationCode,
        scopes: ["send".parse().unwrap()].into(),
    }
}

fn tokens(access: &str, refresh: &str) -> TokenSet {
    canary::plant(canary::Kind::AccessToken, access);
    canary::plant(canary::Kind::RefreshToken, refresh);
    TokenSet {
        access: AccessToken::new(access.to_owned()),
        refresh: Some(RefreshToken::new(refresh.to_owned())),
        token_type: "Bearer".to_owned(),
        expires_in: Some(Duration::from_hours(1)),
        requested_at: SystemClock::new().now(),
        scopes: None,
        api_origin: None,
        account_label: None,
        grant_ends_at: None,
    }
}

/// Eight tasks refresh a connection each as fast as they can, and tell each generation that was acknowledged.
async fn commit_for_ever(folder: &Path) {
    let clock = Arc::new(SystemClock::new());
    let vault = Arc::new(Vault::open(&folder.join("vault.db"), &identity(folder), clock).await.unwrap());
    let mut tasks = Vec::new();
    for user in 0..8 {
        let vault = Arc::clone(&vault);
        tasks.push(tokio::spawn(async move {
            let owner = Owner::User(format!("user{user}").parse().unwrap());
            let mut current = Arc::clone(&vault.connections(Some(&owner)).unwrap()[0]);
            while current.generation.0 < u64::MAX {
                let outcome = vault.claim(current.id, current.generation).await.unwrap();
                let ClaimOutcome::Claimed(claim) = outcome else { panic!("{outcome:?}") };
                let refresh = format!("refresh-{user}-{}", current.generation.0 + 1);
                current = vault.commit(claim, tokens("access", &refresh)).await.unwrap();
                println!("\nacknowledged {user} {}", current.generation);
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

/// How often the process is killed: more where the run is to prove something.
#[expect(clippy::disallowed_methods, reason = "how much is tried is for the run to say, not for a clock")]
fn rounds() -> usize {
    if std::env::var_os("CLAWCOIL_PROVE").is_some() { 60 } else { 6 }
}

#[tokio::test]
async fn each_acknowledged_commit_is_there_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vault.db");
    let clock = Arc::new(SystemClock::new());
    let vault = Vault::create(&path, &identity(folder.path()), &Recovery::none(), clock.clone()).await.unwrap();
    for round in 0..rounds() {
        // Fresh connections, since a claim that was cut off holds for its lease.
        for user in 0..8 {
            vault
                .connect(connection(&format!("user{user}")), tokens("access", &format!("refresh-{user}-1")), true)
                .await
                .unwrap();
        }
        let mut child = child("commit", folder.path());
        let mut acknowledged = BTreeMap::new();
        let mut count = 0;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some(rest) = line.strip_prefix("acknowledged ") {
                let (user, generation) = rest.split_once(' ').unwrap();
                acknowledged.insert(user.to_owned(), generation.parse::<u64>().unwrap());
                count += 1;
                if count == 100 + 37 * (round % 6) {
                    // SIGKILL. What was told before it is read on, up to the end of the pipe.
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        assert!(count >= 100, "round {round}: only {count} commits");
        for (user, generation) in acknowledged {
            let owner = Owner::User(format!("user{user}").parse().unwrap());
            let found = &vault.connections(Some(&owner)).unwrap()[0];
            // One commit may have been made and not told.
            assert!(
                (generation..=generation + 1).contains(&found.generation.0),
                "round {round}: {generation}, {found:?}"
            );
            let removed = vault.disconnect(found.id).await.unwrap().unwrap();
            assert_eq!(removed.refresh.unwrap().expose(), format!("refresh-{user}-{}", found.generation));
            assert_eq!(removed.access.unwrap().expose(), "access");
        }
    }
}

fn harden() {
    clawcoil::identity::harden_process().unwrap();
    let status = std::fs::read_to_string("/proc/self/limits").unwrap();
    let core = status.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    println!("\ncore {}", core.split_whitespace().skip(4).take(2).collect::<Vec<_>>().join(" "));
    // A process that is not dumpable has its memory owned by root; as root only the limit can be seen.
    println!("\ndumpable {:?}", rustix::process::dumpable_behavior().unwrap());
}

#[test]
fn a_hardened_process_leaves_no_core_and_is_not_dumpable() {
    let folder = tempfile::tempdir().unwrap();
    let output = child("harden", folder.path()).wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("\ncore 0 0\n") && text.contains("\ndumpable NotDumpable\n"), "{text}");
}

#[tokio::test]
async fn no_file_beside_the_vault_holds_a_token_in_any_form() {
    const CANARY: [&str; 5] = [
        "canary-access+4f2a/9c1b=",
        "canary-refresh~77aa&31",
        "canary-secret%zz!x",
        "canary-verifier_0b1d",
        "canary-second$55?y",
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vault.db");
    let clock = Arc::new(SystemClock::new());
    let vault = Vault::create(&path, &identity(folder.path()), &Recovery::none(), clock.clone()).await.unwrap();
    let (c, _) = vault.connect(connection("alice"), tokens(CANARY[0], CANARY[1]), false).await.unwrap();
    vault.confirm(c.id).await.unwrap();
    let google = "google".parse().unwrap();
    canary::plant(canary::Kind::ClientSecret, CANARY[2]);
    canary::plant(canary::Kind::CodeVerifier, CANARY[3]);
    let secret = Some(ClientSecret::new(CANARY[2].to_owned()));
    vault
        .put_client(&google, ClientRegistration { client_id: "known".to_owned(), client_secret: secret })
        .await
        .unwrap();
    let pending = Pending {
        state_hash: Digest::of(b"state"),
        owner: c.owner.clone(),
        provider: google,
        account: c.account.clone(),
        scopes: c.scopes.clone(),
        verifier: CodeVerifier::new(CANARY[3].to_owned()),
        nonce: None,
        redirect_uri: "http://127.0.0.1/".to_owned(),
        expires_at: clock.now() + Duration::from_mins(10),
    };
    vault.put_pending(pending).await.unwrap();
    let ClaimOutcome::Claimed(claim) = vault.claim(c.id, c.generation).await.unwrap() else { panic!("not claimed") };
    vault.commit(claim, tokens(CANARY[4], CANARY[1])).await.unwrap();
    vault.connect(connection("bob"), tokens(CANARY[0], CANARY[1]), true).await.unwrap();

    // Copied by another process while the vault is open: closing a file here would drop SQLite's locks on it.
    let copy = tempfile::tempdir().unwrap();
    let copied = Command::new("cp").arg("-r").arg(folder.path()).arg(copy.path().join("all")).status().unwrap();
    assert!(copied.success());
    let mut searched = Vec::new();
    for entry in std::fs::read_dir(copy.path().join("all")).unwrap() {
        let entry = entry.unwrap();
        let bytes = std::fs::read(entry.path()).unwrap();
        searched.push(entry.file_name().into_string().unwrap());
        assert_eq!(canary::find_any(&bytes, &CANARY), None, "in {}", entry.path().display());
    }
    searched.sort();
    assert_eq!(searched, ["agent.crt", "agent.key", "vault.db", "vault.db-shm", "vault.db-wal"]);
    // The search finds what is there in the clear.
    let all = std::fs::read(copy.path().join("all/vault.db-wal")).unwrap();
    assert!(all.windows(10).any(|window| window == b"user alice"));
}
