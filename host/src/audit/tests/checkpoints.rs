//! Signed checkpoints.

use super::*;

fn settings() -> Settings {
    Settings { checkpoint_every: 3, ..Settings::default() }
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
