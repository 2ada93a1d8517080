//! Changes of tokens reach the audit log, once, whatever happens in between.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};

use super::*;
use crate::audit::{AuditError, AuditLog, Entry, FileSink, Filter, Opening, Settings, Sink, read};
use crate::vault::datastore::{DocumentRow, VaultRow};

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
async fn a_log_that_can_t_be_read_holds_up_what_another_process_left_and_nothing_else() {
    let f = Fixture::new().await;
    let log = f.log();
    let other = f.open().await.unwrap();
    f.connect("alice", "google").await;
    f.clock.advance(Duration::from_mins(1));
    let (tokens, new) = (f.tokens("b", None), new_connection("bob", "google"));
    other.connect(new, tokens, true).await.unwrap();
    // Files of the log are not read through links.
    let link = f.folder.path().join("audit/zzz.jsonl");
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    assert!(matches!(other.tell(&log).await, Err(Untold::Audit(AuditError::Folder { .. }))));
    std::fs::remove_file(&link).unwrap();
    assert_eq!(f.told().len(), 1, "its own change waits too");
    other.tell(&log).await.unwrap();
    let tags = ["bob", "alice"].map(|user| Some(crate::audit::user_tag(&f.vault.audit_key(), &user.parse().unwrap())));
    assert_eq!(f.told().into_iter().map(|entry| entry.user).collect::<Vec<_>>(), tags);
}

#[tokio::test]
async fn changes_that_can_t_be_read_are_set_aside_and_named_and_all_others_are_told() {
    let f = Fixture::new().await;
    let log = f.log();
    let sql = f.intruder();
    for name in ["alice", "bob", "carol", "eve", "frank"] {
        f.connect(name, "google").await;
    }
    let documents: Vec<i64> = {
        let mut statement = sql.prepare("SELECT rowid FROM documents ORDER BY rowid").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    sql.execute("UPDATE documents SET record = zeroblob(length(record)) WHERE rowid = ?1", [documents[0]]).unwrap();
    sql.execute("UPDATE documents SET owner = 'nobody at all' WHERE rowid = ?1", [documents[1]]).unwrap();
    sql.execute("UPDATE documents SET lookup = x'00' WHERE rowid = ?1", [documents[2]]).unwrap();
    sql.execute("UPDATE documents SET owner = CAST(x'ff' AS TEXT) WHERE rowid = ?1", [documents[3]]).unwrap();
    sql.execute("UPDATE documents SET revision = -1 WHERE rowid = ?1", [documents[4]]).unwrap();
    let no_change = Document {
        kind: crate::vault::outbox::KIND,
        lookup: [7; 32],
        owner: user("alice"),
        expires_at: None,
        contents: "{\"kind\":\"nothing that happens\"}".to_owned().into(),
        revision: Generation(0),
    };
    f.vault.put_document(&no_change).await.unwrap();
    f.connect("dave", "google").await;
    f.vault.tell(&log).await.unwrap();
    let unreadable = ["change-unreadable"; 6];
    assert_eq!(f.told_kinds(), [&unreadable[..], &["connected"]].concat());
    assert_eq!(f.vault.unreadable_changes().unwrap(), 6);
    f.vault.tell(&log).await.unwrap();
    assert_eq!(f.told().len(), 7, "told again");
    let kept: i64 = sql.query_row("SELECT count(*) FROM documents", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, 6, "what can't be read is not thrown away");
}

#[tokio::test]
async fn what_is_untold_of_a_user_who_is_shredded_is_told_all_the_same() {
    let f = Fixture::new().await;
    let log = f.log();
    let c = f.connect("alice", "google").await;
    f.vault.disconnect(c.id).await.unwrap();
    f.connect("alice", "github").await;
    f.vault.shred(&"alice".parse().unwrap(), &f.identity).await.unwrap();
    f.vault.tell(&log).await.unwrap();
    assert_eq!(f.told_kinds(), ["connected", "disconnected", "connected", "disconnected"]);
    let tag = crate::audit::user_tag(&f.vault.audit_key(), &"alice".parse().unwrap());
    assert!(f.told().iter().all(|entry| entry.user.as_ref() == Some(&tag)));
    // Nothing of the user is left then.
    let left: i64 = f.intruder().query_row("SELECT count(*) FROM documents", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn the_end_of_each_connection_of_a_user_who_is_shredded_is_told_once() {
    let f = Fixture::new().await;
    let log = f.log();
    let (mail, code) = (f.connect("alice", "google").await, f.connect("alice", "github").await);
    f.connect("bob", "google").await;
    f.vault.tell(&log).await.unwrap();
    // One whose row says nothing but its name.
    let damaged = "UPDATE connections SET state = 'nonsense' WHERE id = ?1";
    assert_eq!(f.intruder().execute(damaged, [code.id.as_bytes()]).unwrap(), 1);
    f.vault.shred(&"alice".parse().unwrap(), &f.identity).await.unwrap();
    for _ in 0..2 {
        f.vault.tell(&log).await.unwrap();
    }
    let tag = crate::audit::user_tag(&f.vault.audit_key(), &"alice".parse().unwrap());
    let told = f.told();
    let ends: Vec<_> = told
        .iter()
        .filter(|entry| entry.kind == "disconnected")
        .map(|entry| (entry.connection.clone().unwrap(), entry.provider.as_deref(), entry.user.as_ref()))
        .collect();
    assert_eq!(told.len(), 3 + 2);
    assert_eq!(ends, [(code.id.to_string(), None, Some(&tag)), (mail.id.to_string(), Some("google"), Some(&tag))]);
    assert!(told[4].detail.as_deref().unwrap().contains("not ended at the provider"), "{told:?}");
}

#[tokio::test]
async fn a_user_who_gets_a_connection_while_being_shredded_is_not_shredded_without_an_entry() {
    let f = Fixture::new().await;
    f.connect("alice", "google").await;
    let owner = user("alice");
    let ends = f.vault.ends_for_the_agent(&owner).await.unwrap();
    assert_eq!(ends.len(), 1);
    f.connect("alice", "github").await;
    f.intruder().execute("DELETE FROM documents", []).unwrap();
    let new = VaultRow {
        id: f.vault.id(),
        root_version: 2,
        check: Vec::new(),
        recovery: None,
        agent: f.vault.agent(),
        wrapped: Vec::new(),
        created_at: f.clock.now(),
    };
    let refused = f.vault.store.shred(&owner, new, Vec::new(), crate::vault::outbox::KIND, Vec::new(), ends).await;
    assert!(matches!(refused, Err(VaultError::ChangedMeanwhile { .. })), "{refused:?}");
    assert_eq!(f.vault.store.connections(Some(&owner)).unwrap().len(), 2);
}

#[tokio::test]
async fn what_a_user_leaves_that_can_t_be_read_does_not_keep_the_user_from_being_shredded() {
    let f = Fixture::new().await;
    let log = f.log();
    f.connect("alice", "google").await;
    f.intruder().execute("UPDATE documents SET record = zeroblob(length(record))", []).unwrap();
    f.vault.shred(&"alice".parse().unwrap(), &f.identity).await.unwrap();
    f.vault.tell(&log).await.unwrap();
    assert_eq!(f.told_kinds(), ["change-unreadable", "disconnected"]);
}

#[tokio::test]
async fn a_change_that_was_sealed_anew_after_it_was_read_is_not_set_aside() {
    let f = Fixture::new().await;
    let log = f.log();
    f.connect("alice", "google").await;
    // Read with the key of a user who is shredded right then, so that it can't be opened any more.
    let read = f.vault.store.documents_apart(crate::vault::outbox::KIND).unwrap().remove(0);
    f.vault.shred(&"alice".parse().unwrap(), &f.identity).await.unwrap();
    let instead = DocumentRow { lookup: [7; 32], ..read.read.unwrap() };
    let set_aside = f.vault.store.set_document_aside(read.number, read.record, instead.kind, "aside", instead);
    assert!(!set_aside.await.unwrap());
    f.vault.tell(&log).await.unwrap();
    assert_eq!(f.told_kinds(), ["connected", "disconnected"]);
}

#[tokio::test]
async fn a_disconnect_with_a_damaged_key_is_told_like_any_other() {
    let f = Fixture::new().await;
    let log = f.log();
    let c = f.connect("alice", "google").await;
    f.vault.tell(&log).await.unwrap();
    f.intruder()
        .execute("UPDATE keys SET wrapped = zeroblob(length(wrapped)) WHERE namespace LIKE '%alice%'", [])
        .unwrap();
    // Without what is at hand of the key.
    let vault = f.open().await.unwrap();
    let removed = vault.disconnect(c.id).await.unwrap().unwrap();
    assert!(removed.access.is_none() && removed.is_kept);
    vault.tell(&log).await.unwrap();
    assert_eq!(f.told_kinds(), ["connected", "disconnected"]);
    assert_eq!(f.told()[1].connection, Some(c.id.to_string()));
}

#[tokio::test]
async fn a_disconnect_without_any_key_is_done_and_says_that_nothing_is_kept_of_it() {
    let f = Fixture::new().await;
    let c = f.connect("alice", "google").await;
    // The agent has a key of its own from its first connection on.
    f.connect("agent", "google").await;
    let damaged = "UPDATE keys SET wrapped = zeroblob(length(wrapped)) WHERE namespace != 'derived'";
    assert_eq!(f.intruder().execute(damaged, []).unwrap(), 2);
    let vault = f.open().await.unwrap();
    let removed = vault.disconnect(c.id).await.unwrap().unwrap();
    assert!(!removed.is_kept);
    assert!(vault.connection(c.id).unwrap().is_none());
}

/// A file that takes entries, and hangs until the gate is opened.
struct Gate {
    file: FileSink,
    begun: Arc<AtomicUsize>,
    shut: Arc<(Mutex<bool>, Condvar)>,
}

impl Sink for Gate {
    fn append(&self, line: &[u8]) -> io::Result<()> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        drop(self.shut.1.wait_while(self.shut.0.lock().unwrap(), |shut| *shut).unwrap());
        self.file.append(line)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

/// Opens a gate when it is dropped, also where a test ends early: nothing may wait for it for good.
struct Opened(Arc<(Mutex<bool>, Condvar)>);

impl Drop for Opened {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = false;
        self.0.1.notify_all();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_hangs_holds_up_who_tells_for_two_seconds_once_and_gets_all_when_it_answers() {
    let f = Fixture::new().await;
    let folder = f.folder.path().join("audit");
    std::fs::create_dir(&folder).unwrap();
    let file = FileSink::open(&folder.join("gate.jsonl")).unwrap().unwrap();
    let (begun, shut) = (Arc::new(AtomicUsize::new(0)), Arc::new((Mutex::new(false), Condvar::new())));
    let gate = Box::new(Gate { file, begun: Arc::clone(&begun), shut: Arc::clone(&shut) });
    let (key, settings) = (f.vault.audit_key(), Settings::default());
    let opening = Opening { key: &key, agent: None, epoch: None, settings: &settings };
    let log = Arc::new(AuditLog::with_sink("gate", gate, &opening, Arc::new(f.clock.clone())).unwrap());
    *shut.0.lock().unwrap() = true;
    let opened = Opened(Arc::clone(&shut));
    // What is not held up is done in no time; this is far more.
    let patience = Duration::from_secs(10);
    let vault = Arc::new(f.open().await.unwrap());
    let c = vault.connect(new_connection("alice", "google"), f.tokens("a", None), true).await.unwrap().0;
    let first = tokio::spawn({
        let (vault, log) = (Arc::clone(&vault), Arc::clone(&log));
        async move { vault.tell(&log).await }
    });
    // The opening, and the change.
    while begun.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    assert!(!first.is_finished());
    f.clock.advance(Duration::from_secs(2));
    let first = tokio::time::timeout(patience, first).await.expect("it is held up").unwrap();
    assert!(matches!(first, Err(Untold::Audit(AuditError::Hanging))), "{first:?}");
    // What takes away goes on, and nobody waits any more, or hangs with the first.
    vault.disconnect(c.id).await.unwrap().unwrap();
    for _ in 0..3 {
        let next = tokio::time::timeout(patience, vault.tell(&log)).await.expect("it is held up");
        assert!(matches!(next, Err(Untold::Audit(AuditError::Hanging))), "{next:?}");
    }
    assert_eq!(begun.load(Ordering::SeqCst), 2, "a second thread hangs");
    drop(opened);
    while vault.tell(&log).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(f.told_kinds(), ["connected", "disconnected"]);
}
