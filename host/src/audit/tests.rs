//! The log as a whole: what is written is found, and what was changed is named.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::clock::{Clock, ManualClock, Timestamp};
use crate::id::{AgentId, UserId};
use crate::secret::Key;

fn key() -> Key {
    Key::fill_with(|key| key.fill(7))
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(Timestamp::from_second(1_800_000_000).unwrap()))
}

fn open(dir: &Path, clock: &Arc<ManualClock>) -> AuditLog {
    clock.advance(Duration::from_secs(1));
    let (key, agent) = (key(), AgentId::of_spki(b"agent"));
    AuditLog::open(
        dir,
        &Opening { key: &key, agent: Some(agent), epoch: None, settings: &Settings::default() },
        Arc::clone(clock) as Arc<dyn Clock>,
    )
    .unwrap()
}

fn event(detail: &str) -> Event {
    Event { user: Some("alice".parse().unwrap()), detail: Some(detail.to_owned()), ..Event::new(EventKind::Released) }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    files
}

fn fault(dir: &Path) -> (u64, Fault) {
    match verify(dir, &key()) {
        Err(VerifyError::Bad(bad)) => (bad.entry, bad.fault),
        other => panic!("{other:?}"),
    }
}

/// A folder with one chain of the opening and this many entries.
fn one_chain(entries: usize) -> (tempfile::TempDir, PathBuf, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &clock());
    for n in 0..entries {
        log.append(&event(&format!("entry {n}"))).unwrap();
    }
    drop(log);
    let path = files(dir.path()).remove(0);
    let bytes = fs::read(&path).unwrap();
    (dir, path, bytes)
}

#[test]
fn what_is_written_checks_and_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let clock = clock();
    let log = open(dir.path(), &clock);
    let first = log.append(&event("one\n{\"seq\":2}")).unwrap();
    let bob = Event { user: Some("bob".parse().unwrap()), epoch: Some(9), ..Event::new(EventKind::Refreshed) };
    let second = log.append(&bob).unwrap();
    assert_eq!((first.seq, second.seq), (1, 2));
    let summary = verify(dir.path(), &key()).unwrap();
    assert_eq!((summary.chains, summary.entries, summary.epoch), (1, 3, Some(9)));

    let of_alice = Filter { user: Some("alice".parse().unwrap()), ..Filter::default() };
    let found = read(dir.path(), &key(), &of_alice).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].detail.as_deref(), Some("one\n{\"seq\":2}"));
    assert_eq!(tail(dir.path(), &key(), &Filter::default(), 1).unwrap()[0].seq, 2);
    let refreshed = Filter { kind: Some(EventKind::Refreshed), ..Filter::default() };
    assert_eq!(read(dir.path(), &key(), &refreshed).unwrap().len(), 1);
}

#[test]
fn a_user_is_never_written_by_name_and_other_keys_give_other_tags() {
    let (_dir, _, bytes) = one_chain(3);
    assert!(!String::from_utf8(bytes).unwrap().contains("alice"));
    let user: UserId = "alice".parse().unwrap();
    let other = Key::fill_with(|key| key.fill(8));
    assert_ne!(chain::Keys::new(&key()).user_tag(&user), chain::Keys::new(&other).user_tag(&user));
}

#[test]
fn the_files_belong_to_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("audit");
    drop(open(&dir, &clock()));
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(&files(&dir)[0]).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_pipe_or_a_folder_that_is_called_like_a_chain_stops_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe.jsonl");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    fs::create_dir(dir.path().join("folder.jsonl")).unwrap();
    let (ended, checked) = std::sync::mpsc::channel();
    std::thread::spawn({
        let dir = dir.path().to_owned();
        move || {
            open(&dir, &clock()).append(&event("written")).unwrap();
            let read = read(&dir, &key(), &Filter::default()).unwrap();
            let newest = newest(&dir, &key(), &Filter::default(), None).unwrap().count();
            ended.send((verify(&dir, &key()).unwrap().entries, read.len(), newest))
        }
    });
    assert_eq!(checked.recv_timeout(Duration::from_secs(10)).expect("it waits for the pipe"), (2, 2, 2));
}

#[test]
fn two_processes_write_two_chains_and_later_ones_go_on_with_the_older() {
    let dir = tempfile::tempdir().unwrap();
    let clock = clock();
    let one = open(dir.path(), &clock);
    let two = open(dir.path(), &clock);
    assert_ne!(one.chain(), two.chain());
    let names = [one.chain().to_owned(), two.chain().to_owned()];
    clock.advance(Duration::from_secs(1));
    two.append(&event("two")).unwrap();
    drop((one, two));
    for n in 0..6 {
        let log = open(dir.path(), &clock);
        assert_eq!(log.chain(), names[n % 2]);
        log.append(&event("again")).unwrap();
    }
    assert_eq!(verify(dir.path(), &key()).unwrap().chains, 2);
}

#[test]
fn a_tail_that_was_cut_is_noticed_once_another_process_has_seen_it() {
    let (dir, path, bytes) = one_chain(5);
    drop(open(dir.path(), &clock()));
    let lines: Vec<_> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    fs::write(&path, lines[..4].concat()).unwrap();
    let (entry, fault) = fault(dir.path());
    assert_eq!(entry, 4);
    assert!(matches!(fault, Fault::CutOff { seen: 5, .. }), "{fault}");
}

#[test]
fn a_file_that_was_deleted_is_noticed() {
    let (dir, path, _) = one_chain(2);
    drop(open(dir.path(), &clock()));
    fs::remove_file(path).unwrap();
    assert!(matches!(fault(dir.path()).1, Fault::Deleted { seen: 2, .. }));
}

#[test]
fn a_chain_that_was_written_anew_with_the_key_is_noticed() {
    let (dir, path, _) = one_chain(2);
    let later = clock();
    later.advance(Duration::from_secs(5));
    drop(open(dir.path(), &later));
    let name = path.file_stem().unwrap().to_str().unwrap();
    fs::remove_file(&path).unwrap();
    let sink = FileSink::open(&path).unwrap().unwrap();
    let key = key();
    let forged = AuditLog::with_sink(
        name,
        Box::new(sink),
        &Opening { key: &key, agent: None, epoch: None, settings: &Settings::default() },
        later,
    )
    .unwrap();
    for _ in 0..9 {
        forged.append(&event("innocent")).unwrap();
    }
    drop(forged);
    assert!(matches!(fault(dir.path()).1, Fault::Replaced { .. }));
}

#[test]
fn a_file_that_was_renamed_or_swapped_is_noticed() {
    let (dir, path, bytes) = one_chain(1);
    fs::rename(&path, dir.path().join("20270101T000000Z-0011223344556677.jsonl")).unwrap();
    assert_eq!(fault(dir.path()), (0, Fault::NotOpened));
    fs::write(&path, b"").unwrap();
    fs::remove_file(dir.path().join("20270101T000000Z-0011223344556677.jsonl")).unwrap();
    assert_eq!(fault(dir.path()), (0, Fault::Empty));
    fs::write(&path, bytes).unwrap();
    assert!(verify(dir.path(), &key()).is_ok());
}

#[test]
fn the_log_of_another_vault_is_told_apart_from_an_edit() {
    let (dir, ..) = one_chain(1);
    match verify(dir.path(), &Key::fill_with(|key| key.fill(9))) {
        Err(VerifyError::Bad(bad)) => assert_eq!((bad.entry, bad.fault), (0, Fault::OtherKey)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_kind_of_change_is_named() {
    let (dir, path, bytes) = one_chain(5);
    let lines: Vec<_> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let cases: [(&[usize], u64, Fault); 4] = [
        (&[0, 1, 3, 4, 5], 2, Fault::Missing { until: 2 }),
        (&[0, 1, 3, 2, 4, 5], 2, Fault::Missing { until: 2 }),
        (&[0, 1, 2, 2, 3, 4, 5], 3, Fault::Repeated { number: 2 }),
        (&[1, 2, 3], 0, Fault::Missing { until: 0 }),
    ];
    for (order, entry, expected) in cases {
        fs::write(&path, order.iter().map(|n| lines[*n]).collect::<Vec<_>>().concat()).unwrap();
        assert_eq!(fault(dir.path()), (entry, expected));
    }
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert_eq!(fault(dir.path()), (5, Fault::Torn));
    fs::write(&path, [&bytes[..], b"\n"].concat()).unwrap();
    assert_eq!(fault(dir.path()), (6, Fault::Edited));
}

#[test]
fn an_entry_that_follows_another_history_is_a_fork() {
    let (dir, path, bytes) = one_chain(3);
    let (_other, _, other) = one_chain(3);
    let own: Vec<_> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let foreign: Vec<_> = other.split_inclusive(|byte| *byte == b'\n').collect();
    fs::write(&path, [own[0], own[1], foreign[2], foreign[3]].concat()).unwrap();
    assert_eq!(fault(dir.path()), (2, Fault::Forked));
}

#[test]
fn a_line_torn_by_a_crash_is_left_noted_and_not_gone_on_with() {
    let (dir, path, bytes) = one_chain(3);
    fs::write(&path, &bytes[..bytes.len() - 20]).unwrap();
    // A process that dies makes no last checkpoint.
    fs::remove_file(path.with_extension("checkpoint")).unwrap();
    let clock = clock();
    clock.advance(Duration::from_mins(1));
    let log = open(dir.path(), &clock);
    assert_ne!(Some(log.chain()), path.file_stem().unwrap().to_str());
    let summary = verify(dir.path(), &key()).unwrap();
    assert_eq!(summary.torn, [path.file_stem().unwrap().to_str().unwrap()]);
}

#[test]
fn a_first_line_torn_by_a_crash_is_begun_again_and_nothing_else_is() {
    let (dir, path, bytes) = one_chain(0);
    let chain = path.file_stem().unwrap().to_str().unwrap();
    for cut in [1, 20, bytes.len() - 1] {
        fs::write(&path, &bytes[..cut]).unwrap();
        let _ = fs::remove_file(path.with_extension("checkpoint"));
        assert_eq!(fault(dir.path()), (0, Fault::Torn));
        let log = open(dir.path(), &clock());
        assert_eq!(log.chain(), chain);
        drop(log);
        verify(dir.path(), &key()).unwrap();
    }
    // Something else, and a whole line of another key.
    for text in ["hello".to_owned(), String::from_utf8_lossy(&bytes).replace("\"mac\":\"", "\"mac\":\"0")] {
        fs::write(&path, &text).unwrap();
        let log = open(dir.path(), &clock());
        assert_ne!(log.chain(), chain);
        drop(log);
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        files(dir.path()).iter().filter(|other| **other != path).for_each(|other| fs::remove_file(other).unwrap());
    }
}

#[test]
fn the_epoch_survives_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let clock = clock();
    let log = open(dir.path(), &clock);
    log.append(&Event { epoch: Some(41), ..Event::new(EventKind::Connected) }).unwrap();
    log.append(&event("later")).unwrap();
    drop(log);
    assert_eq!(open(dir.path(), &clock).last_epoch(), Some(41));
}

/// A sink that does as it is told.
#[derive(Default)]
struct Told {
    fail: AtomicBool,
    hang: Mutex<bool>,
    go_on: Condvar,
    begun: AtomicUsize,
    lines: AtomicUsize,
    fail_sync: AtomicBool,
    synced: Mutex<usize>,
    sync_seen: Condvar,
}

struct Handle(Arc<Told>);

impl Sink for Handle {
    fn append(&self, _line: &[u8]) -> io::Result<()> {
        self.0.begun.fetch_add(1, Ordering::SeqCst);
        drop(self.0.go_on.wait_while(self.0.hang.lock().unwrap(), |hang| *hang).unwrap());
        if self.0.fail.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.lines.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        // Before it is seen: who has seen it may say that the next one fails.
        let fails = self.0.fail_sync.load(Ordering::SeqCst);
        *self.0.synced.lock().unwrap() += 1;
        self.0.sync_seen.notify_all();
        if fails { Err(io::ErrorKind::Other.into()) } else { Ok(()) }
    }
}

fn told(clock: &Arc<ManualClock>) -> (Arc<Told>, Arc<AuditLog>) {
    let told = Arc::new(Told::default());
    let (key, clock) = (key(), Arc::clone(clock) as Arc<dyn Clock>);
    let opening = Opening { key: &key, agent: None, epoch: None, settings: &Settings::default() };
    let log = AuditLog::with_sink("told", Box::new(Handle(Arc::clone(&told))), &opening, clock).unwrap();
    (told, Arc::new(log))
}

#[test]
fn a_sink_that_fails_is_an_error_and_works_again_when_it_does() {
    let (sink, log) = told(&clock());
    sink.fail.store(true, Ordering::SeqCst);
    assert!(matches!(log.append(&event("lost")), Err(AuditError::Write(_))));
    sink.fail.store(false, Ordering::SeqCst);
    assert_eq!(log.append(&event("kept")).unwrap().seq, 1);
}

/// Lets a sink go on, also where a test ends early: nothing may wait for it for good.
struct GoesOn(Arc<Told>);

impl Drop for GoesOn {
    fn drop(&mut self) {
        *self.0.hang.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = false;
        self.0.go_on.notify_all();
    }
}

fn hang(sink: &Arc<Told>) -> GoesOn {
    *sink.hang.lock().unwrap() = true;
    GoesOn(Arc::clone(sink))
}

async fn until_begun(sink: &Told, lines: usize) {
    while sink.begun.load(Ordering::SeqCst) < lines {
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_sink_that_hangs_for_two_seconds_is_an_error_for_everyone() {
    let clock = clock();
    let (sink, log) = told(&clock);
    let hangs = hang(&sink);
    let (ended, stuck) = std::sync::mpsc::channel();
    std::thread::spawn({
        let log = Arc::clone(&log);
        move || ended.send(log.append(&event("stuck")))
    });
    // The opening, and this one.
    while sink.begun.load(Ordering::SeqCst) < 2 {
        std::thread::yield_now();
    }
    clock.advance(Duration::from_secs(3));
    let stuck = stuck.recv_timeout(Duration::from_secs(10)).expect("it is held up");
    assert!(matches!(stuck, Err(AuditError::Hanging)), "{stuck:?}");
    assert!(matches!(log.append(&event("denied")), Err(AuditError::Hanging)));
    assert_eq!(sink.begun.load(Ordering::SeqCst), 2);
    drop(hangs);
    while log.append(&event("again")).is_err() {
        std::thread::yield_now();
    }
}

/// What is not held up is done in no time; this is far more.
async fn not_held_up<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), work).await.expect("it is held up")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_ends_in_two_seconds_where_the_log_itself_hangs_and_those_after_it_at_once() {
    let clock = clock();
    let (sink, log) = told(&clock);
    let hangs = hang(&sink);
    let held = tokio::spawn({
        let log = Arc::clone(&log);
        async move { log.append_for_release(&event("held")).await }
    });
    until_begun(&sink, 2).await;
    assert!(!held.is_finished());
    clock.advance(Duration::from_secs(2));
    assert!(matches!(not_held_up(held).await.unwrap(), Err(AuditError::Hanging)));
    let next = not_held_up(log.append_for_release(&event("next"))).await;
    assert!(matches!(next, Err(AuditError::Hanging)), "{next:?}");
    assert_eq!(sink.begun.load(Ordering::SeqCst), 2, "a second thread hangs");
    drop(hangs);
    while log.append_for_release(&event("again")).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_taken_away_is_written_while_changes_are_looked_for() {
    let clock = clock();
    let (_, log) = told(&clock);
    let (read_on, reading) = std::sync::mpsc::channel::<()>();
    let looking = tokio::spawn({
        let log = Arc::clone(&log);
        // Ends when the sender is dropped, also where the test ends early.
        async move { log.telling.run(move || reading.recv().is_err()).await }
    });
    while log.telling.is_free() {
        tokio::task::yield_now().await;
    }
    clock.advance(Duration::from_secs(2));
    assert!(matches!(log.check_telling(), Err(AuditError::Hanging)));
    assert_eq!(not_held_up(log.append_aside(event("taken away"))).await.unwrap().seq, 1);
    drop(read_on);
    // It has waited for too long itself, or heard the end first.
    assert!(matches!(looking.await.unwrap(), Ok(true) | Err(AuditError::Hanging)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_hangs_as_it_is_opened_is_an_error_in_time() {
    let (clock, sink) = (clock(), Arc::new(Told::default()));
    let hangs = hang(&sink);
    let opening = AuditLog::open_within(Duration::from_secs(2), Arc::clone(&clock) as Arc<dyn Clock>, {
        let (sink, clock) = (Box::new(Handle(Arc::clone(&sink))), Arc::clone(&clock) as Arc<dyn Clock>);
        move || {
            let (key, settings) = (key(), Settings::default());
            let opening = Opening { key: &key, agent: None, epoch: None, settings: &settings };
            AuditLog::with_sink("hung", sink, &opening, clock)
        }
    });
    let opening = tokio::spawn(opening);
    until_begun(&sink, 1).await;
    clock.advance(Duration::from_secs(2));
    assert!(matches!(not_held_up(opening).await.unwrap(), Err(AuditError::Hanging)));
    drop(hangs);
}

/// A sink whose lines are made durable when its other end is dropped.
struct Slow {
    syncing: AtomicBool,
    hangs: Mutex<std::sync::mpsc::Receiver<()>>,
}

struct SlowHandle(Arc<Slow>);

impl Sink for SlowHandle {
    fn append(&self, _line: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.syncing.store(true, Ordering::SeqCst);
        let _ = self.0.hangs.lock().unwrap().recv();
        Ok(())
    }

    fn is_local(&self) -> bool {
        true
    }
}

#[test]
fn a_disk_that_is_known_to_hang_is_waited_for_by_nobody() {
    let clock = clock();
    let (end, hangs) = std::sync::mpsc::channel::<()>();
    let slow = Arc::new(Slow { syncing: AtomicBool::new(false), hangs: Mutex::new(hangs) });
    let (key, time) = (key(), Arc::clone(&clock) as Arc<dyn Clock>);
    let opening = Opening { key: &key, agent: None, epoch: None, settings: &Settings::default() };
    let log = AuditLog::with_sink("slow", Box::new(SlowHandle(Arc::clone(&slow))), &opening, time).unwrap();
    // Dropped before the log is, which waits for the disk.
    let goes_on = end;
    while !slow.syncing.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
    clock.advance(Duration::from_secs(2));
    let real = crate::clock::SystemClock::new();
    let begun = real.monotonic();
    for _ in 0..200 {
        assert!(matches!(log.append(&event("refused")), Err(AuditError::Hanging)));
    }
    // Three looks at it, for each, would take twelve seconds.
    let took = real.monotonic().saturating_sub(begun);
    assert!(took < Duration::from_secs(4), "{took:?}");
    drop(goes_on);
    while log.append(&event("again")).is_err() {
        std::thread::yield_now();
    }
}

#[test]
fn lines_are_made_durable_without_being_asked_and_a_failure_of_that_stays() {
    let (sink, log) = told(&clock());
    let first = sink.sync_seen.wait_while(sink.synced.lock().unwrap(), |synced| *synced < 1).unwrap();
    drop(first);
    sink.fail_sync.store(true, Ordering::SeqCst);
    log.append(&event("more")).unwrap();
    drop(sink.sync_seen.wait_while(sink.synced.lock().unwrap(), |synced| *synced < 2).unwrap());
    while !matches!(log.append(&event("refused")), Err(AuditError::NotDurable)) {
        std::thread::yield_now();
    }
}

#[test]
fn many_threads_write_one_sound_chain() {
    let dir = tempfile::tempdir().unwrap();
    let log = Arc::new(open(dir.path(), &clock()));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let log = Arc::clone(&log);
            std::thread::spawn(move || (0..200).for_each(|_| assert!(log.append(&event("one of many")).is_ok())))
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(verify(dir.path(), &key()).unwrap().entries, 1601);
}

#[test]
fn entries_of_several_chains_come_in_the_order_of_their_times_and_within_a_span() {
    let dir = tempfile::tempdir().unwrap();
    let clock = clock();
    let logs = [open(dir.path(), &clock), open(dir.path(), &clock)];
    let start = clock.now();
    for n in 0..6 {
        clock.advance(Duration::from_secs(1));
        logs[n % 2].append(&event(&n.to_string())).unwrap();
    }
    let details = |filter: Filter| -> Vec<String> {
        let filter = Filter { kind: Some(EventKind::Released), ..filter };
        entries(dir.path(), &key(), &filter).unwrap().map(|entry| entry.unwrap().detail.unwrap()).collect()
    };
    let after = |seconds| Some(start + Duration::from_secs(seconds));
    assert_eq!(details(Filter::default()), ["0", "1", "2", "3", "4", "5"]);
    assert_eq!(details(Filter { since: after(2), until: after(5), ..Filter::default() }), ["1", "2", "3"]);
}

#[test]
fn each_filter_finds_what_it_names_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &clock());
    let connection = crate::id::ConnectionId::from_bytes([5; 16]);
    let named = Event {
        client: Some("bot".parse().unwrap()),
        credential: Some("tok_a".parse().unwrap()),
        service: Some("mail".parse().unwrap()),
        provider: Some("google".parse().unwrap()),
        connection: Some(connection),
        decision: Decision::Failed,
        ..event("named")
    };
    log.append(&named).unwrap();
    log.append(&Event { client: Some("cli".parse().unwrap()), ..event("other") }).unwrap();
    let filters = [
        Filter { client: named.client.clone(), ..Filter::default() },
        Filter { credential: named.credential.clone(), ..Filter::default() },
        Filter { service: named.service.clone(), ..Filter::default() },
        Filter { provider: named.provider.clone(), ..Filter::default() },
        Filter { connection: Some(connection), ..Filter::default() },
        Filter { decision: Some(Decision::Failed), ..Filter::default() },
    ];
    for filter in filters {
        let found = read(dir.path(), &key(), &filter).unwrap();
        assert_eq!(
            found.iter().map(|entry| entry.detail.as_deref()).collect::<Vec<_>>(),
            [Some("named")],
            "{filter:?}"
        );
    }
}

// Checkpoints.

fn settings() -> Settings {
    Settings { checkpoint_every: 3, ..Settings::default() }
}

fn open_with(dir: &Path, clock: &Arc<ManualClock>, settings: &Settings) -> AuditLog {
    clock.advance(Duration::from_secs(1));
    let (key, agent) = (key(), AgentId::of_spki(b"agent"));
    let opening = Opening { key: &key, agent: Some(agent), epoch: None, settings };
    AuditLog::open(dir, &opening, Arc::clone(clock) as Arc<dyn Clock>).unwrap()
}

/// A folder with one chain of the opening and five entries, closed, and another place with its checkpoint.
fn witnessed() -> (tempfile::TempDir, tempfile::TempDir, PathBuf, Vec<u8>) {
    let (dir, witness) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let settings = Settings { checkpoints: vec![witness.path().to_owned()], ..settings() };
    let log = open_with(dir.path(), &clock(), &settings);
    for n in 0..5 {
        log.append(&event(&format!("entry {n}"))).unwrap();
    }
    drop(log);
    let path = files(dir.path()).remove(0);
    let bytes = fs::read(&path).unwrap();
    (dir, witness, path, bytes)
}

#[track_caller]
fn fault_with(dir: &Path, witness: &Path) -> (u64, Fault) {
    match verify_with(dir, &key(), &[witness.to_owned()]) {
        Err(VerifyError::Bad(bad)) => (bad.entry, bad.fault),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_clean_end_leaves_a_signed_checkpoint_over_all_entries() {
    let (dir, witness, ..) = witnessed();
    let newest = checkpoints(dir.path(), &key()).unwrap();
    assert_eq!((newest.len(), newest[0].size), (1, 6));
    assert_eq!(checkpoints(witness.path(), &key()).unwrap()[0].root, newest[0].root);
    // One in each place; and before them others, if the disk was asked for a part of the entries.
    assert!(verify_with(dir.path(), &key(), &[witness.path().to_owned()]).unwrap().checkpoints >= 2);
    let other = Key::fill_with(|key| key.fill(8));
    assert!(checkpoints(dir.path(), &other).unwrap().is_empty(), "another vault's are none of ours");
}

#[test]
fn a_chain_that_goes_on_is_signed_as_a_whole() {
    let (dir, _, path, _) = witnessed();
    let clock = clock();
    clock.advance(Duration::from_mins(1));
    // The chain that was written last is left alone, so the second goes on with the first after a third.
    for _ in 0..4 {
        open_with(dir.path(), &clock, &settings()).append(&event("later")).unwrap();
    }
    let entries = fs::read_to_string(&path).unwrap().lines().count() as u64;
    assert!(entries > 6);
    let name = path.file_stem().unwrap().to_str().unwrap();
    let of_first: Vec<_> =
        checkpoints(dir.path(), &key()).unwrap().into_iter().filter(|checkpoint| checkpoint.chain == name).collect();
    assert_eq!(of_first[0].size, entries);
    verify(dir.path(), &key()).unwrap();
}

#[test]
fn a_tail_that_was_cut_is_noticed_by_the_checkpoint_in_another_place() {
    let (dir, witness, path, bytes) = witnessed();
    let lines: Vec<_> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    fs::write(&path, lines[..4].concat()).unwrap();
    // Its own folder's checkpoint tells as well.
    assert!(matches!(fault(dir.path()), (4, Fault::CutBelowCheckpoint { size: 6, .. })));
    fs::remove_file(path.with_extension("checkpoint")).unwrap();
    assert!(verify(dir.path(), &key()).is_ok(), "who can cut the log can cut what lies beside it");
    assert!(matches!(fault_with(dir.path(), witness.path()), (4, Fault::CutBelowCheckpoint { size: 6, .. })));
    // Given as a file that somebody kept.
    let kept = witness.path().join(path.file_stem().unwrap()).with_extension("checkpoint");
    assert!(matches!(fault_with(dir.path(), &kept), (4, Fault::CutBelowCheckpoint { size: 6, .. })));
}

#[test]
fn a_chain_written_anew_with_the_key_contradicts_the_checkpoint_in_another_place() {
    let (dir, witness, path, _) = witnessed();
    let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
    fs::remove_file(&path).unwrap();
    fs::remove_file(path.with_extension("checkpoint")).unwrap();
    assert!(matches!(fault_with(dir.path(), witness.path()), (0, Fault::MissingCheckpointed { size: 6, .. })));
    let key = key();
    let opening = Opening { key: &key, agent: None, epoch: None, settings: &settings() };
    let sink = Box::new(FileSink::open(&path).unwrap().unwrap());
    let forged = AuditLog::with_sink(&name, sink, &opening, clock()).unwrap();
    for _ in 0..9 {
        forged.append(&event("innocent")).unwrap();
    }
    drop(forged);
    assert!(verify(dir.path(), &key).is_ok());
    assert!(matches!(fault_with(dir.path(), witness.path()), (0, Fault::NotOfCheckpoint { size: 6, .. })));
}

#[test]
fn each_kind_of_change_is_named_with_checkpoints_too() {
    let (dir, witness, path, bytes) = witnessed();
    let lines: Vec<_> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let (_other, _, other) = one_chain(5);
    let foreign: Vec<_> = other.split_inclusive(|byte| *byte == b'\n').collect();
    let edited = String::from_utf8(lines[3].to_vec()).unwrap().replace("entry 2", "entry 9").into_bytes();
    let cases: [(Vec<&[u8]>, u64, Fault); 5] = [
        ([&lines[..2], &lines[3..]].concat(), 2, Fault::Missing { until: 2 }),
        (vec![lines[0], lines[1], lines[3], lines[2], lines[4], lines[5]], 2, Fault::Missing { until: 2 }),
        ([&lines[..3], &lines[2..]].concat(), 3, Fault::Repeated { number: 2 }),
        (vec![lines[0], lines[1], lines[2], &edited, lines[4], lines[5]], 3, Fault::Edited),
        ([&lines[..2], &foreign[2..]].concat(), 2, Fault::Forked),
    ];
    for (changed, entry, expected) in cases {
        fs::write(&path, changed.concat()).unwrap();
        assert_eq!(fault_with(dir.path(), witness.path()), (entry, expected));
    }
}

#[test]
fn a_checkpoint_that_was_changed_is_named_and_one_of_another_vault_passed_over() {
    let (dir, witness, path, _) = witnessed();
    let kept = witness.path().join(path.file_stem().unwrap()).with_extension("checkpoint");
    let note = fs::read_to_string(&kept).unwrap();
    fs::write(&kept, note.replace("\n6\n", "\n2\n")).unwrap();
    let verified = verify_with(dir.path(), &key(), &[witness.path().to_owned()]);
    assert!(matches!(&verified, Err(VerifyError::Checkpoint(bad)) if bad.file == kept), "{verified:?}");
    let other = Key::fill_with(|key| key.fill(8));
    fs::write(&kept, checkpoint::Signer::new(&other).sign("x", 99, [1; 32])).unwrap();
    verify_with(dir.path(), &key(), &[witness.path().to_owned()]).unwrap();
}

#[tokio::test]
async fn checkpoints_come_with_the_entries_and_not_only_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_with(dir.path(), &clock(), &Settings { strict: true, ..settings() });
    for n in 0..7 {
        log.append_for_release(&event(&n.to_string())).await.unwrap();
    }
    // The thread goes on by itself.
    while checkpoints(dir.path(), &key()).unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    drop(log);
    verify(dir.path(), &key()).unwrap();
}

#[tokio::test]
async fn a_place_that_takes_no_checkpoint_keeps_tokens_in_and_lets_other_entries_pass() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = elsewhere.path().join("a-file");
    fs::write(&file, "").unwrap();
    let settings = Settings { checkpoint_every: 1, checkpoints: vec![file.clone()], ..Settings::default() };
    let log = open_with(dir.path(), &clock(), &settings);
    while log.append_for_release(&event("token")).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(matches!(log.append_for_release(&event("token")).await, Err(AuditError::Checkpoint { .. })));
    log.append(&Event::new(EventKind::Disconnected)).unwrap();
    fs::remove_file(&file).unwrap();
    while log.append_for_release(&event("token")).await.is_err() {
        tokio::task::yield_now().await;
    }
    drop(log);
    verify_with(dir.path(), &key(), &[file]).unwrap();
}

#[tokio::test]
async fn a_place_for_checkpoints_that_hangs_keeps_tokens_in_and_holds_up_nothing_else() {
    use std::os::unix::fs::OpenOptionsExt as _;
    let (good, hanging) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // A full pipe under the file's name: whoever writes to it waits, in the kernel, until somebody reads.
    let pipe = hanging.path().join("told.checkpoint");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap();
    let mut stuffed = fs::OpenOptions::new().read(true).write(true).custom_flags(nonblock).open(&pipe).unwrap();
    while io::Write::write(&mut stuffed, &[0; 512]).is_ok() {}

    let (told, clock, key) = (Arc::new(Told::default()), clock(), key());
    let checkpoints_in = [hanging.path(), good.path()].map(Path::to_owned).to_vec();
    let settings = Settings { checkpoint_every: 1, checkpoints: checkpoints_in, ..Settings::default() };
    let opening = Opening { key: &key, agent: None, epoch: None, settings: &settings };
    let sink = Box::new(Handle(Arc::clone(&told)));
    let log = AuditLog::with_sink("told", sink, &opening, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    let denied = loop {
        clock.advance(Duration::from_secs(2));
        match log.append_for_release(&event("token")).await {
            Ok(_) => tokio::task::yield_now().await,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(&denied, AuditError::CheckpointHanging { place } if *place == hanging.path().display().to_string())
    );
    assert!(!log.is_healthy(Duration::ZERO));
    // The disk gets the entries of what takes away all the same, and the other place its checkpoints.
    for n in 0..3 {
        let before = *told.synced.lock().unwrap();
        log.append(&Event::new(EventKind::Disconnected)).unwrap();
        let limit = Duration::from_secs(20);
        let synced = told.sync_seen.wait_timeout_while(told.synced.lock().unwrap(), limit, |synced| *synced == before);
        assert!(!synced.unwrap().1.timed_out(), "entry {n} of a disconnect is not made durable");
    }
    let entries = told.lines.load(Ordering::SeqCst) as u64;
    while checkpoints(good.path(), &key).unwrap().first().is_none_or(|newest| newest.size < entries) {
        tokio::task::yield_now().await;
    }
    // It is read from again, and then a file.
    fs::remove_file(&pipe).unwrap();
    while io::Read::read(&mut stuffed, &mut [0; 4096]).is_ok() {}
    while log.append_for_release(&event("token")).await.is_err() {
        tokio::task::yield_now().await;
    }
    drop(log);
    assert_eq!(checkpoints(hanging.path(), &key).unwrap()[0].root, checkpoints(good.path(), &key).unwrap()[0].root);
}

#[test]
fn a_log_that_changed_under_a_process_that_went_on_with_it_gets_no_checkpoint() {
    let (dir, _, path, bytes) = witnessed();
    let clock = clock();
    clock.advance(Duration::from_mins(1));
    drop(open_with(dir.path(), &clock, &settings()));
    let log = open_with(dir.path(), &clock, &settings());
    assert_eq!(Some(log.chain()), path.file_stem().unwrap().to_str());
    // The opening is the seventh entry; it is changed where it stands.
    let mut file = fs::read(&path).unwrap();
    let at = file.windows(8).rposition(|part| part == b"\"hash\":\"").unwrap() + 8;
    assert!(at > bytes.len());
    file[at..at + 64].fill(b'0');
    fs::write(&path, file).unwrap();
    drop(log);
    let newest = checkpoints(dir.path(), &key());
    let name = path.file_stem().unwrap().to_str().unwrap();
    assert_eq!(newest.unwrap().iter().find(|newest| newest.chain == name).unwrap().size, 6);
}

#[test]
fn what_is_kept_of_entries_that_are_not_durable_has_a_bound() {
    let (sink, log) = told(&clock());
    // The opening is on the disk, and the thread has nothing to do.
    drop(sink.sync_seen.wait_while(sink.synced.lock().unwrap(), |synced| *synced < 1).unwrap());
    log.fill_pending();
    assert!(matches!(log.append(&event("one too many")), Err(AuditError::Hanging)));
}

// Other sinks, and strict mode.

fn log_to(destination: Destination, dir: &Path, clock: &Arc<ManualClock>) -> AuditLog {
    open_with(dir, clock, &Settings { sinks: vec![destination], ..Settings::default() })
}

#[tokio::test]
async fn another_sink_that_hangs_for_two_seconds_keeps_tokens_in_and_lets_other_entries_pass() {
    let (dir, clock, told) = (tempfile::tempdir().unwrap(), clock(), Arc::new(Told::default()));
    let sink: Arc<dyn Sink> = Arc::new(Handle(Arc::clone(&told)));
    let log = Arc::new(log_to(Destination::Sink("collector".to_owned(), sink), dir.path(), &clock));
    log.append_for_release(&event("good")).await.unwrap();
    *told.hang.lock().unwrap() = true;
    let waiting = tokio::spawn({
        let log = Arc::clone(&log);
        async move { log.append_for_release(&event("held")).await }
    });
    // The opening, the good one, and the one that it holds.
    while told.begun.load(Ordering::SeqCst) < 3 {
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished());
    log.append(&Event::new(EventKind::Disconnected)).unwrap();
    clock.advance(Duration::from_secs(2));
    let held = waiting.await.unwrap();
    assert!(matches!(&held, Err(AuditError::ElsewhereHanging { sink }) if sink == "collector"), "{held:?}");
    let next = log.append_for_release(&event("next")).await;
    assert!(matches!(next, Err(AuditError::ElsewhereHanging { .. })), "{next:?}");
    let kept = read(dir.path(), &key(), &Filter::default()).unwrap();
    assert!(kept.iter().all(|entry| entry.detail.as_deref() != Some("next")), "refused before it was written");
    *told.hang.lock().unwrap() = false;
    told.go_on.notify_all();
    while log.append_for_release(&event("again")).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn another_sink_that_fails_keeps_tokens_in_until_it_has_all_lines() {
    let (dir, told) = (tempfile::tempdir().unwrap(), Arc::new(Told::default()));
    let sink: Arc<dyn Sink> = Arc::new(Handle(Arc::clone(&told)));
    told.fail.store(true, Ordering::SeqCst);
    let log = log_to(Destination::Sink("collector".to_owned(), sink), dir.path(), &clock());
    let refused = log.append_for_release(&event("token")).await;
    assert!(matches!(&refused, Err(AuditError::Elsewhere { sink, .. }) if sink == "collector"), "{refused:?}");
    log.append(&Event::new(EventKind::Disconnected)).unwrap();
    told.fail.store(false, Ordering::SeqCst);
    let mut tries = 0;
    while log.append_for_release(&event("token")).await.is_err() {
        tries += 1;
        tokio::task::yield_now().await;
    }
    assert!(tries > 0);
    drop(log);
    assert_eq!(told.lines.load(Ordering::SeqCst), read(dir.path(), &key(), &Filter::default()).unwrap().len());
}

#[tokio::test]
async fn a_folder_has_the_same_files_and_checks_like_the_log() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let clock = clock();
    let to_copy = || Destination::Folder(copy.path().to_owned());
    for _ in 0..3 {
        let log = log_to(to_copy(), dir.path(), &clock);
        for n in 0..3 {
            log.append_for_release(&event(&n.to_string())).await.unwrap();
        }
    }
    for path in files(dir.path()) {
        let copied = copy.path().join(path.file_name().unwrap());
        assert_eq!(fs::read(&path).unwrap(), fs::read(copied).unwrap());
    }
    verify(copy.path(), &key()).unwrap();
    // What it missed is made good.
    let behind = files(copy.path()).remove(0);
    fs::write(&behind, b"").unwrap();
    for _ in 0..2 {
        log_to(to_copy(), dir.path(), &clock).append_for_release(&event("more")).await.unwrap();
    }
    verify_with(copy.path(), &key(), &[dir.path().to_owned()]).unwrap();
}

#[tokio::test]
async fn copies_that_killed_processes_left_behind_are_brought_up_by_the_next() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let clock = clock();
    let to_copy = || Destination::Folder(copy.path().to_owned());
    for n in 0..3 {
        log_to(to_copy(), dir.path(), &clock).append_for_release(&event(&n.to_string())).await.unwrap();
    }
    // The last line of one did not arrive, and nothing of another; the youngest is not gone on with by the next process.
    let copies = files(copy.path());
    for (path, lines) in copies.iter().zip([1, 0]) {
        let text = fs::read_to_string(path).unwrap();
        fs::write(path, text.split_inclusive('\n').take(lines).collect::<String>()).unwrap();
    }
    let log = log_to(to_copy(), dir.path(), &clock);
    log.append_for_release(&event("next")).await.unwrap();
    verify(copy.path(), &key()).unwrap();
    for path in files(dir.path()) {
        assert_eq!(fs::read(&path).unwrap(), fs::read(copy.path().join(path.file_name().unwrap())).unwrap());
    }
}

#[tokio::test]
async fn a_copy_that_has_more_than_the_log_is_left_alone_and_keeps_tokens_in() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let clock = clock();
    let to_copy = || Destination::Folder(copy.path().to_owned());
    for _ in 0..2 {
        log_to(to_copy(), dir.path(), &clock).append_for_release(&event("one")).await.unwrap();
    }
    let first = files(dir.path()).remove(0);
    let lines = fs::read_to_string(&first).unwrap();
    fs::write(&first, lines.split_inclusive('\n').next().unwrap()).unwrap();
    fs::remove_file(first.with_extension("checkpoint")).unwrap();
    let log = log_to(to_copy(), dir.path(), &clock);
    assert_eq!(Some(log.chain()), first.file_stem().unwrap().to_str());
    let refused = log.append_for_release(&event("two")).await;
    assert!(matches!(refused, Err(AuditError::Elsewhere { .. })), "{refused:?}");
    drop(log);
    assert_eq!(fs::read_to_string(copy.path().join(first.file_name().unwrap())).unwrap(), lines);
}

#[tokio::test]
async fn a_log_that_is_cut_while_it_is_written_keeps_tokens_in() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let log = log_to(Destination::Folder(copy.path().to_owned()), dir.path(), &clock());
    for n in 0..3 {
        log.append_for_release(&event(&n.to_string())).await.unwrap();
    }
    let (own, copied) = (files(dir.path()).remove(0), files(copy.path()).remove(0));
    let before = fs::read(&copied).unwrap();
    fs::OpenOptions::new().write(true).open(&own).unwrap().set_len(10).unwrap();
    for _ in 0..2 {
        let refused = log.append_for_release(&event("after")).await;
        // Whichever sees it first: the copy, or the log itself after the next sync.
        let is_seen = matches!(refused, Err(AuditError::Elsewhere { .. } | AuditError::Astray { .. }));
        assert!(is_seen, "{refused:?}");
    }
    assert_eq!(fs::read(&copied).unwrap(), before, "the proof that it was cut is gone");
}

/// Waits until the log refuses, and says what it says then.
async fn refusal(log: &AuditLog) -> AuditError {
    loop {
        match log.append_for_release(&event("token")).await {
            Ok(_) => tokio::task::yield_now().await,
            Err(error) => return error,
        }
    }
}

#[tokio::test]
async fn a_log_that_is_moved_replaced_or_cut_while_it_is_written_keeps_tokens_in_until_it_is_back() {
    for strict in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let log = open_with(dir.path(), &clock(), &Settings { strict, ..Settings::default() });
        log.append_for_release(&event("one")).await.unwrap();
        let own = files(dir.path()).remove(0);
        let away = dir.path().join("away");
        let rename = |from: &Path, to: &Path| fs::rename(from, to).unwrap();
        for replaced in [false, true] {
            rename(&own, &away);
            if replaced {
                fs::copy(&away, &own).unwrap();
            }
            let refused = if strict {
                // Not one token.
                log.append_for_release(&event("token")).await.unwrap_err()
            } else {
                refusal(&log).await
            };
            assert!(matches!(refused, AuditError::Astray { .. }), "{refused}");
            assert!(!log.is_healthy(Duration::ZERO));
            log.append(&Event::new(EventKind::Disconnected)).unwrap();
            rename(&away, &own);
            while log.append_for_release(&event("again")).await.is_err() {
                tokio::task::yield_now().await;
            }
        }
        verify(dir.path(), &key()).unwrap();
        fs::OpenOptions::new().write(true).open(&own).unwrap().set_len(10).unwrap();
        let refused = refusal(&log).await;
        assert!(matches!(refused, AuditError::Astray { .. }), "{refused}");
    }
}

#[tokio::test]
async fn a_copy_that_is_replaced_while_it_is_written_keeps_tokens_in_and_is_made_good() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let log = log_to(Destination::Folder(copy.path().to_owned()), dir.path(), &clock());
    log.append_for_release(&event("one")).await.unwrap();
    let (own, copied) = (files(dir.path()).remove(0), files(copy.path()).remove(0));
    for contents in [Some(fs::read(&copied).unwrap()), Some(Vec::new()), None] {
        fs::remove_file(&copied).unwrap();
        if let Some(contents) = contents {
            fs::write(&copied, contents).unwrap();
        }
        let refused = log.append_for_release(&event("two")).await;
        assert!(matches!(refused, Err(AuditError::Elsewhere { .. })), "{refused:?}");
        while log.append_for_release(&event("again")).await.is_err() {
            tokio::task::yield_now().await;
        }
        assert_eq!(fs::read(&copied).unwrap(), fs::read(&own).unwrap());
    }
}

#[tokio::test]
async fn a_copy_is_not_made_good_from_a_log_that_was_cut_or_replaced() {
    for replaced in [false, true] {
        let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let log = log_to(Destination::Folder(copy.path().to_owned()), dir.path(), &clock());
        for n in 0..3 {
            log.append_for_release(&event(&n.to_string())).await.unwrap();
        }
        let (own, copied) = (files(dir.path()).remove(0), files(copy.path()).remove(0));
        let bytes = fs::read(&own).unwrap();
        let first = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        if replaced {
            fs::remove_file(&own).unwrap();
            fs::write(&own, &bytes).unwrap();
        } else {
            fs::OpenOptions::new().write(true).open(&own).unwrap().set_len(first as u64).unwrap();
        }
        // Both at once: what the copy knew is gone as well.
        fs::remove_file(&copied).unwrap();
        let told: Vec<_> = {
            let mut told = Vec::new();
            for _ in 0..3 {
                told.push(log.append_for_release(&event("after")).await);
            }
            told
        };
        assert!(told.iter().all(Result::is_err), "{told:?}");
        drop(log);
        let made = fs::read(&copied).unwrap_or_default();
        assert!(made.is_empty(), "a copy of what was cut looks like one of the whole");
    }
}

#[tokio::test]
async fn checkpoints_go_on_in_a_new_file_where_theirs_was_moved_away() {
    let (dir, witness) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let checkpoints_in = vec![witness.path().to_owned()];
    let settings = Settings { checkpoint_every: 1, checkpoints: checkpoints_in, ..Settings::default() };
    let log = open_with(dir.path(), &clock(), &settings);
    let kept = witness.path().join(log.chain()).with_extension("checkpoint");
    while fs::read(&kept).unwrap_or_default().is_empty() {
        tokio::task::yield_now().await;
    }
    fs::rename(&kept, witness.path().join("rotated")).unwrap();
    let before = log.append(&event("more")).unwrap();
    while checkpoints(witness.path(), &key()).unwrap().first().is_none_or(|newest| newest.size <= before.seq) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_socket_gets_each_line_and_is_called_again_when_it_was_gone() {
    let (dir, run) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = run.path().join("collector.sock");
    let lines_of = |socket: std::os::unix::net::UnixStream, most| {
        use io::BufRead as _;
        io::BufReader::new(socket).lines().take(most).collect::<Result<Vec<_>, _>>().unwrap()
    };
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let log = log_to(Destination::Socket(path.clone()), dir.path(), &clock());
    log.append_for_release(&event("one")).await.unwrap();
    let got = lines_of(listener.accept().unwrap().0, 2);
    assert!(got[0].contains("opened") && got[1].contains("\"detail\":\"one\""), "{got:?}");
    drop(listener);
    fs::remove_file(&path).unwrap();
    assert!(log.append_for_release(&event("two")).await.is_err());
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    while log.append_for_release(&event("three")).await.is_err() {
        tokio::task::yield_now().await;
    }
    let got = lines_of(listener.accept().unwrap().0, 2);
    assert!(got[0].contains("\"detail\":\"two\""), "{got:?}");
}

#[tokio::test]
async fn a_program_gets_each_line_up_to_the_end() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let out = out.path().join("lines");
    let words = ["sh", "-c", "cat > \"$0\"", out.to_str().unwrap()].map(str::to_owned).to_vec();
    let log = log_to(Destination::Command(words), dir.path(), &clock());
    for n in 0..20 {
        log.append_for_release(&event(&n.to_string())).await.unwrap();
    }
    drop(log);
    assert_eq!(fs::read(&files(dir.path())[0]).unwrap(), fs::read(out).unwrap());
    let none = Destination::Command(vec!["/nonexistent/program".to_owned()]);
    let log = log_to(none, dir.path(), &clock());
    assert!(matches!(log.append_for_release(&event("x")).await, Err(AuditError::Elsewhere { .. })));
}

#[tokio::test]
async fn a_program_that_does_not_read_on_keeps_tokens_in() {
    let (dir, told, clock) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), clock());
    let (has_read, goes_on) = (told.path().join("has-read"), told.path().join("goes-on"));
    let script = "read -r one; : > \"$0\"; while [ ! -e \"$1\" ]; do sleep 0.02; done; exec cat > /dev/null";
    let words = ["sh", "-c", script, has_read.to_str().unwrap(), goes_on.to_str().unwrap()];
    let log = Arc::new(log_to(Destination::Command(words.map(str::to_owned).to_vec()), dir.path(), &clock));
    while !has_read.exists() {
        tokio::task::yield_now().await;
    }
    let waiting = tokio::spawn({
        let log = Arc::clone(&log);
        async move { log.append_for_release(&event("not read")).await }
    });
    while !waiting.is_finished() {
        clock.advance(Duration::from_secs(2));
        tokio::task::yield_now().await;
    }
    let held = waiting.await.unwrap();
    assert!(matches!(held, Err(AuditError::ElsewhereHanging { .. })), "{held:?}");
    log.append(&Event::new(EventKind::Disconnected)).unwrap();
    fs::write(&goes_on, "").unwrap();
    while log.append_for_release(&event("read")).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn in_strict_mode_a_release_waits_for_the_disk() {
    let (told, clock) = (Arc::new(Told::default()), clock());
    let (key, settings) = (key(), Settings { strict: true, ..Settings::default() });
    let opening = Opening { key: &key, agent: None, epoch: None, settings: &settings };
    let sink = Box::new(Handle(Arc::clone(&told)));
    let log = AuditLog::with_sink("told", sink, &opening, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    for n in 0..3 {
        let before = *told.synced.lock().unwrap();
        log.append_for_release(&event(&n.to_string())).await.unwrap();
        assert!(*told.synced.lock().unwrap() > before || before > 0);
    }
    told.fail_sync.store(true, Ordering::SeqCst);
    let refused = log.append_for_release(&event("lost")).await;
    assert!(matches!(refused, Err(AuditError::NotDurable)), "{refused:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_exported_gives_the_files_back(details in prop::collection::vec(any::<String>(), 0..12), logs in 1_usize..4) {
        let (dir, back, clock) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), clock());
        let logs: Vec<_> = (0..logs).map(|_| open(dir.path(), &clock)).collect();
        for (n, detail) in details.iter().enumerate() {
            logs[n % logs.len()].append(&event(detail)).unwrap();
        }
        drop(logs);
        for entry in entries(dir.path(), &key(), &Filter::default()).unwrap() {
            let line = entry.unwrap().exported();
            prop_assert!(serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&line).is_ok());
            let entry = Entry::imported(&line).unwrap();
            let mut file = fs::OpenOptions::new().append(true).create(true).open(back.path().join(entry.chain).with_extension("jsonl")).unwrap();
            io::Write::write_all(&mut file, format!("{}\n", entry.json).as_bytes()).unwrap();
        }
        for path in files(dir.path()) {
            prop_assert_eq!(fs::read(&path).unwrap(), fs::read(back.path().join(path.file_name().unwrap())).unwrap());
        }
    }

    #[test]
    fn any_text_is_imported_without_a_panic(text in ".{0,200}") {
        let _ = Entry::imported(&text);
        let _ = Entry::imported(&format!("{{\"file\":{text}"));
    }

    #[test]
    fn any_change_of_a_byte_is_found(at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let (dir, path, mut bytes) = one_chain(4);
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != to);
        bytes[at] = to;
        fs::write(path, bytes).unwrap();
        prop_assert!(verify(dir.path(), &key()).is_err());
    }

    #[test]
    fn any_other_order_or_choice_of_lines_is_found(order in prop::collection::vec(0usize..5, 0..8)) {
        let (dir, path, bytes) = one_chain(4);
        let lines: Vec<_> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
        prop_assume!(!order.iter().copied().eq(0..lines.len()));
        fs::write(path, order.iter().map(|n| lines[*n]).collect::<Vec<_>>().concat()).unwrap();
        prop_assert!(verify(dir.path(), &key()).is_err());
    }

    #[test]
    fn any_bytes_in_any_file_are_answered_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in any::<prop::sample::Index>()) {
        let (dir, path, good) = one_chain(2);
        let cut = cut.index(good.len());
        fs::write(path, [&good[..cut], &bytes, &good[cut..]].concat()).unwrap();
        prop_assert_eq!(verify(dir.path(), &key()).is_ok(), bytes.is_empty());
        let _ = read(dir.path(), &key(), &Filter::default()).unwrap();
        drop(open(dir.path(), &clock()));
    }

    #[test]
    fn parsing_any_text_as_an_entry_never_panics(text in ".{0,200}") {
        let _ = Entry::parse("chain", text.as_bytes());
        let _ = chain::Keys::new(&key()).check_alone(text.as_bytes());
    }
}
