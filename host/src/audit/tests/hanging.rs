//! A log or a disk that fails, hangs or is slow.

use super::*;

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
fn what_is_kept_of_entries_that_are_not_durable_has_a_bound() {
    let (sink, log) = told(&clock());
    // The opening is on the disk, and the thread has nothing to do.
    drop(sink.sync_seen.wait_while(sink.synced.lock().unwrap(), |synced| *synced < 1).unwrap());
    log.fill_pending();
    assert!(matches!(log.append(&event("one too many")), Err(AuditError::Hanging)));
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
