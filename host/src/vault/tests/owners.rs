//! Users, agents and processes apart.

use super::*;
use crate::id::{Digest, UserId};

#[tokio::test]
async fn a_token_comes_back_for_its_owner_also_after_opening_again() {
    let f = Fixture::new().await;
    let c = f.connect("alice", "google").await;
    assert_eq!(read(&f.vault, "alice", "google", c.id).unwrap(), "access-alice-google");
    let again = f.open().await.unwrap();
    assert_eq!(read(&again, "alice", "google", c.id).unwrap(), "access-alice-google");
    assert_eq!(*again.connections(Some(&user("alice"))).unwrap()[0], *c);
    assert_eq!(again.audit_key().expose(), f.vault.audit_key().expose());
    assert_ne!(f.vault.cache_key().expose(), f.vault.audit_key().expose());
}

#[tokio::test]
async fn a_permit_opens_its_own_owners_provider_and_account_only() {
    let f = Fixture::new().await;
    let c = f.connect("alice", "google").await;
    f.connect("bob", "google").await;
    let foreign = read(&f.vault, "bob", "google", c.id).unwrap_err().to_string();
    assert_eq!(
        foreign,
        format!(
            "bob has no connection {}: it was disconnected, or belongs to somebody else; ask for the connections again",
            c.id
        )
    );
    let provider_error = read(&f.vault, "alice", "github", c.id).unwrap_err();
    assert!(matches!(provider_error, VaultError::NotPermitted { .. }), "{provider_error}");
    let other = "work".parse().unwrap();
    let account_error = f.vault.open_access(&user("alice"), &provider("google"), Some(&other), &c.id).unwrap_err();
    assert_eq!(
        account_error.to_string(),
        format!(
            "the permit is for account work at google and connection {} is account default at google: nothing was opened",
            c.id
        )
    );
}

#[tokio::test]
async fn an_unconfirmed_connection_gives_no_token_until_it_is_confirmed() {
    let f = Fixture::new().await;
    let (c, _) = f.vault.connect(new_connection("alice", "google"), f.tokens("secret", None), false).await.unwrap();
    assert!(matches!(read(&f.vault, "alice", "google", c.id), Err(VaultError::Unconfirmed { .. })));
    // Whoever edits the column gets nothing: the token is sealed as an unconfirmed one.
    f.intruder().execute("UPDATE connections SET state = 'active'", []).unwrap();
    let error = read(&f.vault, "alice", "google", c.id).unwrap_err();
    assert!(matches!(error, VaultError::Record { fault: Fault::Misplaced, .. }), "{error}");
    f.intruder().execute("UPDATE connections SET state = 'unconfirmed'", []).unwrap();
    f.vault.confirm(c.id).await.unwrap();
    assert_eq!(read(&f.vault, "alice", "google", c.id).unwrap(), "secret");
}

#[tokio::test]
async fn an_unconfirmed_connection_leaves_the_one_before_alone_until_it_is_confirmed() {
    let f = Fixture::new().await;
    let old = f.connect("alice", "google").await;
    let found = |f: &Fixture| {
        let (owner, provider) = (Owner::User("alice".parse().unwrap()), "google".parse().unwrap());
        match f.vault.find(&owner, &provider, None).unwrap() {
            Found::One(connection) => connection.id,
            other => panic!("{other:?}"),
        }
    };
    let connect = async || f.vault.connect(new_connection("alice", "google"), f.tokens("new", Some("r")), false).await;
    // Declined: the old one goes on. Begun twice: the newer attempt counts.
    let (declined, replaced) = connect().await.unwrap();
    assert!(replaced.is_empty(), "{replaced:?}");
    assert_eq!(found(&f), old.id);
    f.vault.disconnect(declined.id).await.unwrap().unwrap();
    assert_eq!(read(&f.vault, "alice", "google", old.id).unwrap(), "access-alice-google");
    let (first, _) = connect().await.unwrap();
    let (new, replaced) = connect().await.unwrap();
    let [before] = &replaced[..] else { panic!("{replaced:?}") };
    assert_eq!((before.connection.id, before.refresh.as_ref().unwrap().expose()), (first.id, "r"));
    assert_eq!(f.vault.connections(None).unwrap().len(), 2);
    f.vault.confirm(new.id).await.unwrap();
    assert_eq!((found(&f), f.vault.connections(None).unwrap().len()), (new.id, 1));
    assert_eq!(read(&f.vault, "alice", "google", new.id).unwrap(), "new");
    assert!(read(&f.vault, "alice", "google", old.id).is_err());
}

#[tokio::test]
async fn an_unconfirmed_refresh_token_is_not_to_be_had_by_editing_the_state() {
    let f = Fixture::new().await;
    let (c, _) = f.vault.connect(new_connection("alice", "google"), f.tokens("a", Some("r")), false).await.unwrap();
    f.intruder().execute("UPDATE connections SET state = 'active', due_at = 1", []).unwrap();
    let ClaimOutcome::Claimed(claim) = f.vault.claim(c.id, c.generation).await.unwrap() else { panic!("not claimed") };
    let error = f.vault.refresh_token(&claim).unwrap_err();
    assert!(matches!(error, VaultError::Record { fault: Fault::Misplaced, .. }), "{error}");
}

#[tokio::test]
async fn what_another_vault_of_this_process_changed_is_seen_at_once() {
    let f = Fixture::new().await;
    let c = f.connect("alice", "google").await;
    let other = f.open().await.unwrap();
    for _ in 0..2 {
        assert_eq!(read(&other, "alice", "google", c.id).unwrap(), "access-alice-google");
    }
    let ClaimOutcome::Claimed(claim) = f.vault.claim(c.id, c.generation).await.unwrap() else { panic!("not claimed") };
    f.vault.commit(claim, f.tokens("second", None)).await.unwrap();
    assert_eq!(read(&other, "alice", "google", c.id).unwrap(), "second");
    f.vault.disconnect(c.id).await.unwrap().unwrap();
    assert!(matches!(read(&other, "alice", "google", c.id), Err(VaultError::NoConnection { .. })));
    assert_eq!(other.find(&user("alice"), &provider("google"), None).unwrap(), Found::None);
}

#[tokio::test]
async fn disconnecting_gives_both_tokens_for_revoking_once() {
    let f = Fixture::new().await;
    let c = f.connect("alice", "google").await;
    let removed = f.vault.disconnect(c.id).await.unwrap().unwrap();
    assert_eq!(removed.access.unwrap().expose(), "access-alice-google");
    assert_eq!(removed.refresh.unwrap().expose(), "refresh-alice-google");
    assert!(f.vault.disconnect(c.id).await.unwrap().is_none());
}

#[tokio::test]
async fn without_an_account_the_only_one_or_the_default_is_found() {
    let f = Fixture::new().await;
    let connect = async |account: &str| {
        let new = NewConnection { account: account.parse().unwrap(), ..new_connection("alice", "google") };
        f.vault.connect(new, f.tokens("token", None), true).await.unwrap().0
    };
    let find = || f.vault.find(&user("alice"), &provider("google"), None).unwrap();
    assert_eq!(find(), Found::None);
    let work = connect("work").await;
    assert_eq!(find(), Found::One(work));
    connect("home").await;
    assert_eq!(find(), Found::Several(vec!["home".parse().unwrap(), "work".parse().unwrap()]));
    let default = connect("default").await;
    assert_eq!(find(), Found::One(default));
}

#[tokio::test]
async fn connecting_again_replaces_and_the_old_claim_can_not_come_back() {
    let f = Fixture::new().await;
    let old = f.connect("alice", "google").await;
    let ClaimOutcome::Claimed(claim) = f.vault.claim(old.id, old.generation).await.unwrap() else {
        panic!("not claimed")
    };
    let new = f.connect("alice", "google").await;
    assert!(matches!(f.vault.commit(claim, f.tokens("late", None)).await, Err(VaultError::Moved { .. })));
    assert_eq!(f.vault.connections(None).unwrap(), [new]);
}

#[tokio::test]
async fn two_agents_share_a_file_and_nothing_else() {
    let f = Fixture::new().await;
    let c = f.connect("alice", "google").await;
    let second = new_identity(f.folder.path(), "second");
    let error = Vault::open(&f.path(), &second, Arc::new(f.clock.clone())).await.unwrap_err().to_string();
    let text = "this vault opens with the identity of";
    let (id, other) = (f.identity.agent_id(), second.agent_id());
    assert_eq!(
        error,
        format!(
            "{}: {text} {id}, and the identity in use is {other}: name the certificate and key that made the vault, or restore access with its recovery key",
            f.path().display()
        )
    );
    let theirs = Vault::create(&f.path(), &second, &Recovery::none(), Arc::new(f.clock.clone())).await.unwrap();
    assert!(matches!(read(&theirs, "alice", "google", c.id), Err(VaultError::NoConnection { .. })));
    assert_eq!(theirs.connections(None).unwrap(), []);
    let again = Vault::create(&f.path(), &second, &Recovery::none(), Arc::new(f.clock.clone())).await;
    assert!(matches!(again, Err(VaultError::Exists { .. })));

    // Rows of the first agent moved to the second, the keys as well.
    let tokens = f.tokens("theirs", None);
    theirs.connect(new_connection("alice", "github"), tokens, true).await.unwrap();
    f.intruder().execute("UPDATE connections SET vault = 2 WHERE id = ?1", [c.id.as_bytes()]).unwrap();
    let error = read(&theirs, "alice", "google", c.id).unwrap_err();
    assert!(matches!(error, VaultError::Record { fault: Fault::ForeignKey, .. }), "{error}");
    f.intruder()
        .execute_batch(
            "DELETE FROM keys WHERE vault = 2 AND namespace = 'user alice';
             UPDATE keys SET vault = 2 WHERE namespace = 'user alice';",
        )
        .unwrap();
    let error = read(&theirs, "alice", "google", c.id).unwrap_err();
    assert!(matches!(error, VaultError::Record { fault: Fault::ForeignKey, .. }), "{error}");
    // And the seal: the first agent's wrap under the second agent's name.
    f.intruder()
        .execute_batch("UPDATE seals SET wrapped = (SELECT wrapped FROM seals WHERE vault = 1) WHERE vault = 2")
        .unwrap();
    let error = Vault::open(&f.path(), &second, Arc::new(f.clock.clone())).await.unwrap_err();
    assert!(matches!(error, VaultError::Seal { .. }), "{error}");
}

#[tokio::test]
async fn a_shredded_user_is_gone_and_the_others_are_not() {
    let f = Fixture::new().await;
    let (alice, bob) = (f.connect("alice", "google").await, f.connect("bob", "google").await);
    let before = f.intruder();
    let old: (Vec<u8>, Vec<u8>) = before
        .query_row(
            "SELECT wrapped, access FROM keys, connections WHERE namespace = 'user alice' AND owner = namespace",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .unwrap();
    drop(before);
    let stale = f.open().await.unwrap();
    f.vault.shred(&"alice".parse::<UserId>().unwrap(), &f.identity).await.unwrap();
    assert!(matches!(read(&f.vault, "alice", "google", alice.id), Err(VaultError::NoConnection { .. })));
    for vault in [&f.vault, &f.open().await.unwrap()] {
        assert_eq!(read(vault, "bob", "google", bob.id).unwrap(), "access-bob-google");
        assert_eq!(vault.audit_key().expose(), f.vault.audit_key().expose());
    }
    // Neither the key nor the token is left in any file.
    let copy = tempfile::tempdir().unwrap();
    // By another process: closing a file here would drop the locks that SQLite has on it.
    let copied = std::process::Command::new("cp").arg("-r").arg(f.folder.path()).arg(copy.path().join("all")).status();
    assert!(copied.unwrap().success());
    for name in ["vault.db", "vault.db-wal"] {
        let bytes = std::fs::read(copy.path().join("all").join(name)).unwrap();
        for secret in [&old.0, &old.1] {
            assert!(!bytes.windows(secret.len()).any(|window| window == &secret[..]), "{name}");
        }
    }
    // The user may come back, with a key of a new name. A process with the old root says what to do.
    let back = f.connect("alice", "google").await;
    assert_eq!(read(&f.vault, "alice", "google", back.id).unwrap(), "access-alice-google");
    let error = read(&stale, "alice", "google", back.id).unwrap_err();
    assert!(matches!(error, VaultError::RootReplaced), "{error}");
}

#[tokio::test]
async fn the_recovery_key_gives_the_vault_to_a_new_identity() {
    let f = Fixture::new().await;
    let (path, clock) = (f.folder.path().join("other.db"), Arc::new(f.clock.clone()));
    let (recovery, key) = Recovery::generate();
    canary::plant(canary::Kind::RecoveryKey, key.expose().as_bytes());
    let vault = Vault::create(&path, &f.identity, &recovery, clock.clone()).await.unwrap();
    let (c, _) = vault.connect(new_connection("alice", "google"), f.tokens("kept", None), true).await.unwrap();
    // The copy follows a new root key.
    vault.shred(&"nobody".parse().unwrap(), &f.identity).await.unwrap();
    drop(vault);
    let new = new_identity(f.folder.path(), "new");
    let (_, wrong) = Recovery::generate();
    let refused = Vault::recover(&path, &wrong, None, &new, clock.clone()).await.unwrap_err();
    assert!(matches!(refused, VaultError::Recovery(crate::identity::RecoveryError::WrongKey)), "{refused}");
    let vault = Vault::recover(&path, &key, None, &new, clock.clone()).await.unwrap();
    assert_eq!(read(&vault, "alice", "google", c.id).unwrap(), "kept");
    assert!(matches!(Vault::open(&path, &f.identity, clock.clone()).await, Err(VaultError::WrongIdentity { .. })));
    let none = Vault::recover(&f.path(), &key, None, &new, clock).await.unwrap_err();
    assert!(matches!(none, VaultError::NoRecovery(_)), "{none}");
}

#[tokio::test]
async fn of_several_vaults_under_one_recovery_key_the_named_one_is_recovered() {
    let f = Fixture::new().await;
    let (path, clock) = (f.folder.path().join("shared.db"), Arc::new(f.clock.clone()));
    let (recovery, key) = Recovery::generate();
    canary::plant(canary::Kind::RecoveryKey, key.expose().as_bytes());
    let second = new_identity(f.folder.path(), "second");
    let (one, two) = (f.identity.agent_id(), second.agent_id());
    drop(Vault::create(&path, &f.identity, &recovery, clock.clone()).await.unwrap());
    let vault = Vault::create(&path, &second, &recovery, clock.clone()).await.unwrap();
    let (c, _) = vault.connect(new_connection("alice", "google"), f.tokens("theirs", None), true).await.unwrap();
    drop(vault);
    let new = new_identity(f.folder.path(), "new");
    let refused = Vault::recover(&path, &key, None, &new, clock.clone()).await.unwrap_err();
    assert!(refused.to_string().contains(&format!("{one} or {two}")), "{refused}");
    let refused = Vault::recover(&path, &key, Some(new.agent_id()), &new, clock.clone()).await.unwrap_err();
    assert!(matches!(refused, VaultError::WrongIdentity { .. }), "{refused}");
    let vault = Vault::recover(&path, &key, Some(two), &new, clock.clone()).await.unwrap();
    assert_eq!(read(&vault, "alice", "google", c.id).unwrap(), "theirs");
    Vault::open(&path, &f.identity, clock).await.expect("the other agent's vault is as it was");
}

#[tokio::test]
async fn a_client_is_kept_and_removed() {
    let f = Fixture::new().await;
    let google = provider("google");
    assert!(f.vault.client(&google).unwrap().is_none());
    let client = ClientRegistration {
        client_id: "id".to_owned(),
        client_secret: Some(crate::secret::ClientSecret::new("hush".to_owned())),
    };
    f.vault.put_client(&google, client).await.unwrap();
    f.vault
        .put_client(&provider("x"), ClientRegistration { client_id: "y".to_owned(), client_secret: None })
        .await
        .unwrap();
    let client = f.vault.client(&google).unwrap().unwrap();
    assert_eq!((client.client_id.as_str(), client.client_secret.unwrap().expose()), ("id", "hush"));
    assert!(f.vault.client(&provider("x")).unwrap().unwrap().client_secret.is_none());
    assert_eq!(f.vault.clients().unwrap(), [google.clone(), provider("x")]);
    f.intruder().execute("UPDATE clients SET provider = 'github' WHERE provider = 'google'", []).unwrap();
    assert!(matches!(f.vault.client(&provider("github")), Err(VaultError::Record { fault: Fault::Misplaced, .. })));
    assert!(f.vault.remove_client(&provider("github")).await.unwrap());
    assert!(!f.vault.remove_client(&provider("github")).await.unwrap());
}

#[tokio::test]
async fn a_pending_authorization_is_taken_once_and_not_after_it_expired() {
    let f = Fixture::new().await;
    let pending = |state: &str| Pending {
        state_hash: Digest::of(state.as_bytes()),
        owner: user("alice"),
        provider: provider("google"),
        account: "work".parse().unwrap(),
        scopes: ["send".parse().unwrap()].into(),
        verifier: crate::secret::CodeVerifier::new("verifier".to_owned()),
        nonce: Some(String::new()),
        redirect_uri: "http://127.0.0.1/callback".to_owned(),
        expires_at: f.clock.now() + Duration::from_mins(10),
    };
    f.vault.put_pending(pending("one")).await.unwrap();
    f.vault.put_pending(pending("two")).await.unwrap();
    assert!(f.vault.take_pending("three").await.unwrap().is_none());
    let taken = f.vault.take_pending("one").await.unwrap().unwrap();
    assert_eq!(
        (taken.verifier.expose(), taken.nonce.as_deref(), taken.account.as_str()),
        ("verifier", Some(""), "work")
    );
    assert!(f.vault.take_pending("one").await.unwrap().is_none());
    // Another user's name on it makes it worthless.
    f.connect("bob", "google").await;
    f.intruder().execute("UPDATE pending SET owner = 'user bob'", []).unwrap();
    assert!(f.vault.take_pending("two").await.is_err());
    f.vault.put_pending(pending("late")).await.unwrap();
    f.clock.advance(Duration::from_mins(10));
    assert!(f.vault.take_pending("late").await.unwrap().is_none());
}

#[tokio::test]
async fn each_change_raises_the_epoch() {
    let f = Fixture::new().await;
    let mut last = f.vault.epoch().unwrap();
    let mut rose = |what: &str| {
        let now = f.vault.epoch().unwrap();
        assert!(now > last, "{what}");
        last = now;
    };
    let c = f.connect("alice", "google").await;
    rose("connect");
    let ClaimOutcome::Claimed(claim) = f.vault.claim(c.id, c.generation).await.unwrap() else { panic!("not claimed") };
    rose("claim");
    f.vault.fail(claim, RefreshFailure::Transient { retry_at: f.clock.now() }).await.unwrap();
    rose("fail");
    f.vault.disconnect(c.id).await.unwrap();
    rose("disconnect");
}

/// A permit that policy made, for a skill that reveals.
fn permit(f: &Fixture, owner: &str, at: &str) -> crate::policy::Permit {
    use crate::diagnostic::Source;
    use crate::policy::{Manifest, OriginRule, Permissions, Placement, Policy, ProviderFacts, Skill, Slot};
    let manifest = format!(
        "[skill]\nname = \"s\"\nversion = \"1.0.0\"\ndescription = \"d\"\n[[service]]\nname = \"svc\"\nprovider = \"{at}\"\n\
         scopes = [\"read\"]\nuse = \"reveal\"\nreason = \"to sign\"\n[[service.request]]\norigin = \"https://api.example.com\"\n"
    );
    let manifest = Manifest::parse(&Source::new("skill.toml", &manifest)).unwrap();
    let permissions = format!(
        "[[grant]]\nskill = \"s\"\napproval = \"none\"\nclients = [\"*\"]\nusers = [\"*\"]\nservice = \"svc\"\nprovider = \"{at}\"\n\
         scopes = [\"read\"]\nuse = \"reveal\"\n"
    );
    let permissions = Permissions::parse(&[Source::new("permissions.toml", &permissions)]).unwrap();
    let facts = ProviderFacts {
        api_origins: vec![OriginRule::Literal("https://api.example.com".parse().unwrap())],
        api_origin_pattern: None,
        placement: Placement::Bearer,
        slots: vec![Slot::AuthorizationBearer],
    };
    let policy = Policy::new(permissions, [(provider(at), facts)].into());
    let skill = Skill { manifest: &manifest, digest: Digest::of(b"s") };
    let caller = crate::id::Caller::new("cli".parse().unwrap(), owner.parse().unwrap());
    policy
        .effective(&skill, &caller, f.clock.now())
        .permit_reveal(&"svc".parse().unwrap(), None, f.clock.now())
        .unwrap()
}

#[tokio::test]
async fn a_permit_of_policy_opens_its_own_users_token_and_no_others() {
    let f = Fixture::new().await;
    let (alice, bob) = (f.connect("alice", "google").await, f.connect("bob", "google").await);
    let permit = permit(&f, "alice", "google");
    assert_eq!(f.vault.access_token(&permit, &alice.id).unwrap().token.expose(), "access-alice-google");
    assert!(matches!(f.vault.access_token(&permit, &bob.id), Err(VaultError::NoConnection { .. })));
}
