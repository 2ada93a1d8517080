//! The log as a whole: what is written is found, and what was changed is named.

mod checkpoints;
mod hanging;
mod sinks;

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
    open_with(dir, clock, &Settings::default())
}

fn open_with(dir: &Path, clock: &Arc<ManualClock>, settings: &Settings) -> AuditLog {
    clock.advance(Duration::from_secs(1));
    let (key, agent) = (key(), AgentId::of_spki(b"agent"));
    let opening = Opening { key: &key, agent: Some(agent), epoch: None, settings };
    AuditLog::open(dir, &opening, Arc::clone(clock) as Arc<dyn Clock>).unwrap()
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.div_ceil(4)))]

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
