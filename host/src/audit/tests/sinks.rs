//! Copies of the log in other places, and a log whose files change under it.

use super::*;

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
