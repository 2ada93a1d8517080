//! One refresh per generation, and no rotated token lost.

use super::*;
use crate::id::Generation;

async fn claim(vault: &Vault, c: &Connection) -> Claim {
    match vault.claim(c.id, c.generation).await.unwrap() {
        ClaimOutcome::Claimed(claim) => claim,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_life_of_a_token_that_ends_after_all_time_breaks_no_row() {
    let f = Fixture::new().await;
    let tokens = TokenSet { expires_in: Some(Duration::from_secs(u64::MAX)), ..f.tokens("endless", None) };
    let c = f.vault.connect(new_connection("alice", "google"), tokens, true).await.unwrap().0;
    assert_eq!(read(&f.open().await.unwrap(), "alice", "google", c.id).unwrap(), "endless");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_tasks_get_one_claim_per_generation() {
    let f = Fixture::new().await;
    let mut c = f.connect("alice", "google").await;
    let vaults = [Arc::new(f.open().await.unwrap()), Arc::new(f.open().await.unwrap())];
    for _ in 0..5 {
        let tasks: Vec<_> = (0..50)
            .map(|i| {
                let (vault, id, base) = (Arc::clone(&vaults[i % 2]), c.id, c.generation);
                tokio::spawn(async move { vault.claim(id, base).await.unwrap() })
            })
            .collect();
        let mut claims = Vec::new();
        for task in tasks {
            match task.await.unwrap() {
                ClaimOutcome::Claimed(claim) => claims.push(claim),
                ClaimOutcome::Busy { until } => assert_eq!(until, f.clock.now() + LEASE),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(claims.len(), 1);
        let tokens = f.tokens("next", Some("next-refresh"));
        c = f.vault.commit(claims.pop().unwrap(), tokens).await.unwrap();
    }
    assert_eq!(c.generation, Generation(6));
    assert!(matches!(f.vault.claim(c.id, Generation(5)).await.unwrap(), ClaimOutcome::Moved(Generation(6))));
}

#[tokio::test]
async fn what_is_due_is_claimed_once_and_again_when_its_new_time_comes() {
    let f = Fixture::new().await;
    let c = f.connect("alice", "google").await;
    f.connect("bob", "google").await;
    assert_eq!(f.vault.claim_due(10).await.unwrap().len(), 0);
    f.clock.advance(Duration::from_secs(2939));
    assert_eq!(f.vault.claim_due(10).await.unwrap().len(), 0);
    f.clock.advance(Duration::from_secs(61));
    assert!(f.vault.next_due().unwrap().unwrap() <= f.clock.now());
    assert_eq!(f.vault.claim_due(1).await.unwrap().len(), 1);
    let rest = f.vault.claim_due(10).await.unwrap();
    assert_eq!(rest.len(), 1);
    assert_eq!(f.vault.claim_due(10).await.unwrap().len(), 0);
    // Both leases run out: attempts of which nobody knows how they ended.
    f.clock.advance(LEASE);
    let mut again = f.vault.claim_due(10).await.unwrap();
    assert_eq!(again.len(), 2);
    assert!(again.iter().all(Claim::after_unknown));
    let mine = again.remove(again.iter().position(|claim| claim.id() == c.id).unwrap());
    assert_eq!(f.vault.refresh_token(&mine).unwrap().expose(), "refresh-alice-google");
    let next = f.vault.commit(mine, f.tokens("second", Some("second-refresh"))).await.unwrap();
    assert_eq!((next.generation, next.expires_at), (Generation(2), Some(f.clock.now() + Duration::from_hours(1))));
    assert_eq!(read(&f.vault, "alice", "google", c.id).unwrap(), "second");
}

#[tokio::test]
async fn a_late_answer_counts_while_its_generation_is_current_and_not_after() {
    let f = Fixture::new().await;
    let c = f.connect("alice", "google").await;
    let slow = claim(&f.vault, &c).await;
    f.clock.advance(LEASE);
    let other = claim(&f.vault, &c).await;
    assert!(other.after_unknown() && other.fence() > slow.fence());
    // The second attempt is refused while the first one's answer is on its way.
    f.vault.fail(other, RefreshFailure::Permanent { reason: ReconnectReason::Refused }).await.unwrap();
    let error = read(&f.vault, "alice", "google", c.id).unwrap_err();
    assert!(matches!(error, VaultError::NeedsReconnect { reason: ReconnectReason::RotationLost, .. }), "{error}");
    let third = f.vault.claim(c.id, c.generation).await.unwrap();
    assert!(matches!(third, ClaimOutcome::Ended));
    f.vault.commit(slow, f.tokens("late", Some("late-refresh"))).await.unwrap();
    assert_eq!(read(&f.vault, "alice", "google", c.id).unwrap(), "late");

    let c = f.vault.connection(c.id).unwrap().unwrap();
    let slow = claim(&f.vault, &c).await;
    f.clock.advance(LEASE);
    let fast = claim(&f.vault, &c).await;
    f.vault.commit(fast, f.tokens("fast", None)).await.unwrap();
    assert!(matches!(f.vault.commit(slow, f.tokens("too late", None)).await, Err(VaultError::Moved { .. })));
    assert_eq!(read(&f.vault, "alice", "google", c.id).unwrap(), "fast");
}

#[tokio::test]
async fn an_attempt_of_unknown_outcome_parks_until_it_can_no_longer_return() {
    let f = Fixture::new().await;
    let c = f.connect("alice", "google").await;
    let lost = claim(&f.vault, &c).await;
    let until = lost.until();
    f.vault.fail(lost, RefreshFailure::Unknown).await.unwrap();
    // The valid token goes on being served.
    assert_eq!(read(&f.vault, "alice", "google", c.id).unwrap(), "access-alice-google");
    match f.vault.claim(c.id, c.generation).await.unwrap() {
        ClaimOutcome::Busy { until: busy } => assert_eq!(busy, until),
        other => panic!("{other:?}"),
    }
    f.clock.advance(LEASE);
    let next = f.vault.claim_due(1).await.unwrap().pop().unwrap();
    assert!(next.after_unknown());
    assert_eq!(f.vault.refresh_token(&next).unwrap().expose(), "refresh-alice-google");
    // What is unknown stays unknown over an outage.
    f.vault.fail(next, RefreshFailure::Transient { retry_at: f.clock.now() }).await.unwrap();
    assert!(claim(&f.vault, &c).await.after_unknown());
}

#[tokio::test]
async fn an_outage_never_ends_a_connection_and_a_refusal_does() {
    let f = Fixture::new().await;
    let c = f.connect("alice", "google").await;
    for _ in 0..20 {
        let attempt = claim(&f.vault, &c).await;
        f.vault.fail(attempt, RefreshFailure::Transient { retry_at: f.clock.now() }).await.unwrap();
    }
    assert_eq!(read(&f.vault, "alice", "google", c.id).unwrap(), "access-alice-google");
    let attempt = claim(&f.vault, &c).await;
    f.vault.fail(attempt, RefreshFailure::Permanent { reason: ReconnectReason::Refused }).await.unwrap();
    let over = f.vault.connection(c.id).unwrap().unwrap();
    assert_eq!(over.state, State::NeedsReconnect { reason: ReconnectReason::Refused, since: f.clock.now() });
    assert_eq!(over.refresh_at, None);
    f.clock.advance(Duration::from_secs(100_000));
    assert_eq!(f.vault.claim_due(10).await.unwrap().len(), 0);
}

#[tokio::test]
async fn a_refusal_of_a_claim_that_was_overtaken_changes_nothing() {
    let f = Fixture::new().await;
    let c = f.connect("alice", "google").await;
    let slow = claim(&f.vault, &c).await;
    f.clock.advance(LEASE);
    let fast = claim(&f.vault, &c).await;
    f.vault.fail(slow, RefreshFailure::Permanent { reason: ReconnectReason::Refused }).await.unwrap();
    assert!(matches!(f.vault.claim(c.id, c.generation).await.unwrap(), ClaimOutcome::Busy { .. }));
    f.vault.commit(fast, f.tokens("second", None)).await.unwrap();
    assert_eq!(read(&f.vault, "alice", "google", c.id).unwrap(), "second");
}

#[tokio::test]
async fn the_old_refresh_token_stays_until_the_new_access_token_was_used() {
    let f = Fixture::new().await;
    let c = f.connect("alice", "google").await;
    let first = claim(&f.vault, &c).await;
    let c = f.vault.commit(first, f.tokens("second", Some("second-refresh"))).await.unwrap();
    let second = claim(&f.vault, &c).await;
    assert_eq!(f.vault.refresh_token(&second).unwrap().expose(), "second-refresh");
    assert_eq!(f.vault.previous_refresh_token(&second).unwrap().unwrap().expose(), "refresh-alice-google");
    f.vault.mark_used(c.id, Generation(1));
    f.vault.mark_used(c.id, c.generation);
    // A write after the note: the note is durable when this is.
    f.connect("bob", "google").await;
    assert!(f.vault.previous_refresh_token(&second).unwrap().is_none());
    assert_eq!(f.vault.connection(c.id).unwrap().unwrap().last_used_at, Some(f.clock.now()));
    // Within the minute it is not written again.
    let epoch = f.vault.epoch().unwrap();
    f.vault.mark_used(c.id, c.generation);
    f.vault.fail(second, RefreshFailure::Transient { retry_at: f.clock.now() }).await.unwrap();
    assert_eq!(f.vault.epoch().unwrap(), epoch + 1);
}

#[tokio::test]
async fn an_answer_without_a_refresh_token_keeps_the_one_there_is() {
    let f = Fixture::new().await;
    let c = f.connect("alice", "google").await;
    let first = claim(&f.vault, &c).await;
    let c = f.vault.commit(first, f.tokens("second", None)).await.unwrap();
    assert!(c.refresh_at.is_some());
    let second = claim(&f.vault, &c).await;
    assert_eq!(f.vault.refresh_token(&second).unwrap().expose(), "refresh-alice-google");
}

#[tokio::test]
async fn a_rotated_token_is_stored_also_when_the_old_one_is_damaged() {
    let f = Fixture::new().await;
    let c = f.connect("alice", "google").await;
    f.intruder().execute("UPDATE connections SET refresh = x'00'", []).unwrap();
    let lost = claim(&f.vault, &c).await;
    assert!(matches!(f.vault.refresh_token(&lost), Err(VaultError::Record { .. })));
    f.vault.commit(lost, f.tokens("second", Some("good"))).await.unwrap();
    let c = f.vault.connection(c.id).unwrap().unwrap();
    assert_eq!(f.vault.refresh_token(&claim(&f.vault, &c).await).unwrap().expose(), "good");
}

#[tokio::test]
async fn a_key_that_never_changes_is_never_due() {
    let f = Fixture::new().await;
    let new = NewConnection { kind: Kind::ApiKey, ..new_connection("agent", "weather") };
    let tokens = TokenSet { expires_in: None, ..f.tokens("key", None) };
    let (c, _) = f.vault.connect(new, tokens, true).await.unwrap();
    assert_eq!((c.refresh_at, c.expires_at), (None, None));
    let claimed = claim(&f.vault, &c).await;
    let error = f.vault.refresh_token(&claimed).unwrap_err();
    assert!(matches!(error, VaultError::NoRefreshToken { .. }), "{error}");
}

#[tokio::test]
async fn finding_what_is_due_costs_with_what_is_due() {
    let f = Fixture::new().await;
    let plan: String = f
        .intruder()
        .query_row(
            "EXPLAIN QUERY PLAN SELECT id FROM connections INDEXED BY connections_due
             WHERE vault = 1 AND due_at <= 5 ORDER BY due_at LIMIT 10",
            [],
            |row| row.get("detail"),
        )
        .unwrap();
    assert_eq!(plan, "SEARCH connections USING INDEX connections_due (vault=? AND due_at<?)");
}

#[tokio::test]
async fn new_tokens_that_could_not_be_stored_are_stored_when_it_goes_again() {
    let f = Fixture::new().await;
    let c = f.connect("alice", "google").await;
    let ClaimOutcome::Claimed(claim) = f.vault.claim(c.id, c.generation).await.unwrap() else { panic!("not claimed") };
    let full = "CREATE TRIGGER full BEFORE UPDATE OF access ON connections BEGIN SELECT RAISE(ABORT, 'full'); END";
    f.intruder().execute(full, []).unwrap();
    let client = ClientRegistration { client_id: "me".to_owned(), client_secret: None };
    let (fresh, ()) = tokio::join!(f.vault.commit(claim, f.tokens("new", Some("rotated"))), async {
        // The writer takes them in turn: once the client is stored, the first attempt at the tokens is over.
        f.vault.put_client(&"acme".parse().unwrap(), client).await.unwrap();
        assert_eq!(f.vault.connection(c.id).unwrap().unwrap().generation, c.generation);
        f.intruder().execute("DROP TRIGGER full", []).unwrap();
        f.clock.advance(std::time::Duration::from_secs(1));
    });
    assert_eq!(fresh.unwrap().generation, c.generation.next());
    assert_eq!(read(&f.vault, "alice", "google", c.id).unwrap(), "new");
}
