//! Changes of tokens reach the audit log, once, whatever happens in between.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::audit::{AuditLog, Entry, FileSink, Filter, Opening, Settings, Sink, read};

/// A file that takes entries, until it is told to take no more.
struct Valve {
    file: FileSink,
    closed: Arc<AtomicBool>,
}

impl Sink for Valve {
    fn append(&self, line: &[u8]) -> io::Result<()> {
        if self.closed.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { self.file.append(line) }
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

impl Fixture {
    fn log(&self) -> AuditLog {
        let (key, settings) = (self.vault.audit_key(), Settings::default());
        let opening = Opening { key: &key, agent: None, epoch: None, settings: &settings };
        AuditLog::open(&self.folder.path().join("audit"), &opening, Arc::new(self.clock.clone())).unwrap()
    }

    fn told(&self) -> Vec<Entry> {
        let filter = Filter { without_opened: true, ..Filter::default() };
        read(&self.folder.path().join("audit"), &self.vault.audit_key(), &filter).unwrap()
    }

    fn told_kinds(&self) -> Vec<String> {
        self.told().into_iter().map(|entry| entry.kind).collect()
    }
}

#[tokio::test]
async fn each_change_of_tokens_is_told_in_its_order_and_once() {
    let f = Fixture::new().await;
    let log = f.log();
    let tokens = f.tokens("a", Some("r"));
    let (c, _) = f.vault.connect(new_connection("alice", "google"), tokens, false).await.unwrap();
    f.vault.confirm(c.id).await.unwrap();
    let ClaimOutcome::Claimed(claim) = f.vault.claim(c.id, c.generation).await.unwrap() else { panic!() };
    let c = f.vault.commit(claim, f.tokens("b", Some("s"))).await.unwrap();
    f.vault.tell(&log).await.unwrap();
    let ClaimOutcome::Claimed(claim) = f.vault.claim(c.id, c.generation).await.unwrap() else { panic!() };
    let ended = RefreshFailure::Permanent { reason: ReconnectReason::Refused };
    f.vault.fail(claim, ended).await.unwrap();
    f.vault.disconnect(c.id).await.unwrap().unwrap();
    for _ in 0..3 {
        f.vault.tell(&log).await.unwrap();
    }
    assert_eq!(f.told_kinds(), ["connected", "confirmed", "refreshed", "needs-reconnect", "disconnected"]);
    let told = f.told();
    assert!(told.iter().all(|entry| entry.connection == Some(c.id.to_string()) && entry.change.is_some()));
    assert_eq!(told.iter().map(|entry| entry.generation).collect::<Vec<_>>(), [1, 1, 2, 2, 2].map(Some));
}

#[tokio::test]
async fn a_change_that_did_not_happen_leaves_nothing_to_tell() {
    let f = Fixture::new().await;
    let log = f.log();
    let c = f.connect("alice", "google").await;
    let ClaimOutcome::Claimed(claim) = f.vault.claim(c.id, c.generation).await.unwrap() else { panic!() };
    f.vault.disconnect(c.id).await.unwrap();
    assert!(f.vault.commit(claim, f.tokens("b", None)).await.is_err());
    assert!(f.vault.disconnect(c.id).await.unwrap().is_none());
    f.vault.tell(&log).await.unwrap();
    assert_eq!(f.told_kinds(), ["connected", "disconnected"]);
}

#[tokio::test]
async fn what_happens_while_the_log_takes_no_entry_is_told_when_it_does() {
    let f = Fixture::new().await;
    let (folder, closed) = (f.folder.path().join("audit"), Arc::new(AtomicBool::new(false)));
    std::fs::create_dir(&folder).unwrap();
    let file = FileSink::open(&folder.join("valve.jsonl")).unwrap().unwrap();
    let (key, settings) = (f.vault.audit_key(), Settings::default());
    let opening = Opening { key: &key, agent: None, epoch: None, settings: &settings };
    let valve = Box::new(Valve { file, closed: Arc::clone(&closed) });
    let log = AuditLog::with_sink("valve", valve, &opening, Arc::new(f.clock.clone())).unwrap();
    closed.store(true, Ordering::SeqCst);
    let c = f.connect("alice", "google").await;
    assert!(matches!(f.vault.tell(&log).await, Err(Untold::Audit(_))));
    f.vault.disconnect(c.id).await.unwrap();
    // Longer than a process holds what it has to tell.
    f.clock.advance(Duration::from_hours(1));
    assert!(matches!(f.vault.tell(&log).await, Err(Untold::Audit(_))));
    closed.store(false, Ordering::SeqCst);
    f.vault.tell(&log).await.unwrap();
    assert_eq!(f.told_kinds(), ["connected", "disconnected"]);
    assert_eq!(f.told()[0].detail.as_deref(), Some("it happened at 2027-01-15T08:00:00Z"));
}

#[tokio::test]
async fn the_changes_of_a_process_that_died_are_told_by_another() {
    let f = Fixture::new().await;
    let log = f.log();
    let other = f.open().await.unwrap();
    f.connect("alice", "google").await;
    other.tell(&log).await.unwrap();
    assert!(f.told().is_empty(), "its process may be about to tell");
    f.clock.advance(Duration::from_mins(1));
    other.tell(&log).await.unwrap();
    assert_eq!(f.told_kinds(), ["connected"]);
    f.vault.tell(&log).await.unwrap();
    assert_eq!(f.told().len(), 1);
}

#[tokio::test]
async fn a_change_that_was_told_right_before_its_process_died_is_not_told_again() {
    let f = Fixture::new().await;
    let log = f.log();
    let other = f.open().await.unwrap();
    f.connect("alice", "google").await;
    let sql = f.intruder();
    sql.execute_batch("CREATE TEMP TABLE kept AS SELECT * FROM documents").unwrap();
    f.vault.tell(&log).await.unwrap();
    // As if the row had not been removed any more.
    sql.execute_batch("INSERT INTO documents SELECT * FROM kept").unwrap();
    f.clock.advance(Duration::from_mins(1));
    other.tell(&log).await.unwrap();
    assert_eq!(f.told_kinds(), ["connected"]);
    let left: i64 = sql.query_row("SELECT count(*) FROM documents", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_change_that_was_tampered_with_does_not_keep_the_others_from_being_told() {
    let f = Fixture::new().await;
    let log = f.log();
    f.connect("alice", "google").await;
    f.intruder().execute("UPDATE documents SET record = zeroblob(length(record))", []).unwrap();
    f.connect("bob", "google").await;
    f.vault.tell(&log).await.unwrap();
    assert_eq!(f.told_kinds(), ["connected"]);
}
