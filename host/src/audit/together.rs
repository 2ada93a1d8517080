//! Entries of calls that end at about the same time are handed to the system together: they share the call of it.
//!
//! Who has an entry lets all go on that can at this moment, and then writes what has come together, unless another has done so.
//! Nobody depends on another's going on. Where nobody else comes, as on a host with little to do, waiting is for nothing, and is not
//! tried again soon.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use tokio::sync::oneshot::{self, error::TryRecvError};

use crate::id::InvocationId;

use super::event::Event;
use super::log::{AuditError, PATIENCE, Position, Shared};

/// So many are written at once at the most.
const MOST: usize = 64;
/// So often in a row nobody else may come before waiting is given up, and after so many entries it is tried again.
const HOPE: u32 = 8;
const AGAIN: u32 = 64;

/// The entries that wait.
#[derive(Default)]
pub(super) struct Together {
    waiting: Mutex<VecDeque<Waiting>>,
    hope: AtomicU32,
    /// Entries that were written alone since waiting was given up.
    alone: AtomicU32,
}

struct Waiting {
    members: Vec<u8>,
    invocation: Option<InvocationId>,
    answer: oneshot::Sender<Result<Position, AuditError>>,
}

impl Together {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether others are likely to come.
    fn is_worth_it(&self) -> bool {
        self.hope.load(Ordering::Relaxed) > 0 || self.alone.fetch_add(1, Ordering::Relaxed) % AGAIN == AGAIN - 1
    }

    fn came(&self, entries: usize) {
        let hope = if entries > 1 { HOPE } else { self.hope.load(Ordering::Relaxed).saturating_sub(1) };
        self.hope.store(hope, Ordering::Relaxed);
    }
}

/// What has been brought is written also where whoever brought it goes away, and what comes of it is told.
struct Brought<'a> {
    log: &'a Shared,
    invocation: Option<InvocationId>,
    written: oneshot::Receiver<Result<Position, AuditError>>,
    is_told: bool,
}

impl Drop for Brought<'_> {
    fn drop(&mut self) {
        if self.is_told {
            return;
        }
        self.log.write_waiting();
        // Whoever writes it from now on finds that nobody waits.
        self.written.close();
        if let Ok(Err(error)) = self.written.try_recv() {
            self.log.tell_operator(self.invocation, &error);
        }
    }
}

/// Lets all go on that can at this moment. What a runtime offers for this waits until nothing can go on any more, which may take long
/// beside skills that compute.
async fn after_the_others() {
    let mut is_first = true;
    poll_fn(|cx| {
        if !std::mem::take(&mut is_first) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Shared {
    /// Writes an entry, with those of others where such come. The entry is on its way as soon as this is polled: it is written also
    /// where nobody waits for it any more.
    pub(super) async fn append_together(&self, event: &Event) -> Result<Position, AuditError> {
        if !self.together.is_worth_it() {
            return self.append(event).map(|(position, _)| position);
        }
        let mut members = Vec::with_capacity(1024);
        event.write(&mut members, self.tag_of(event).as_deref());
        let (answer, written) = oneshot::channel();
        let invocation = event.invocation;
        self.together.waiting().push_back(Waiting { members, invocation, answer });
        let mut brought = Brought { log: self, invocation, written, is_told: false };
        after_the_others().await;
        self.write_waiting();
        let written = match brought.written.try_recv() {
            // Another is writing it at this moment, which is waited for no longer than if it were written here.
            Err(TryRecvError::Empty) => tokio::select! {
                biased;
                written = &mut brought.written => written.ok(),
                () = self.clock.sleep(PATIENCE) => return Err(AuditError::Hanging),
            },
            written => written.ok(),
        };
        brought.is_told = true;
        written.unwrap_or(Err(AuditError::Hanging))
    }

    /// Writes what waits, until nothing does. What others bring in the meantime they write themselves.
    fn write_waiting(&self) {
        let mut left = self.together.waiting().len();
        while left > 0 {
            let group: Vec<_> = {
                let mut waiting = self.together.waiting();
                let size = waiting.len().min(left).min(MOST);
                waiting.drain(..size).collect()
            };
            if group.is_empty() {
                return;
            }
            left -= group.len();
            self.together.came(group.len());
            self.write_group(group);
        }
    }

    fn write_group(&self, group: Vec<Waiting>) {
        let written = self.write_all(group.iter().map(|entry| entry.members.as_slice()));
        match written {
            Ok(positions) => {
                for (entry, position) in group.into_iter().zip(positions) {
                    // Who has gone away needs no answer.
                    let _ = entry.answer.send(Ok(position));
                }
            }
            // A disk that is nearly full has room for some of them.
            Err(AuditError::Write(error)) if group.len() > 1 && is_full(&error) => {
                for entry in group {
                    self.write_group(vec![entry]);
                }
            }
            Err(error) => group.into_iter().for_each(|entry| self.refuse(entry, again(&error))),
        }
    }

    /// Tells who waits, or else the operator.
    fn refuse(&self, entry: Waiting, error: AuditError) {
        if let Err(Err(error)) = entry.answer.send(Err(error)) {
            self.tell_operator(entry.invocation, &error);
        }
    }

    /// Whoever writes it may be at another call.
    fn tell_operator(&self, invocation: Option<InvocationId>, error: &AuditError) {
        self.failures.note(self.clock.as_ref());
        let invocation = invocation.map(|invocation| invocation.to_string());
        let error = error as &dyn std::error::Error;
        tracing::error!(parent: None, invocation, error, "an entry is missing in the audit log");
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// The same for each of a group. There are no others when an entry is written.
fn again(error: &AuditError) -> AuditError {
    match error {
        AuditError::Write(error) => AuditError::Write(io::Error::new(error.kind(), error.to_string())),
        AuditError::NotDurable => AuditError::NotDurable,
        _ => AuditError::Hanging,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::{Context, Waker};

    use futures_util::future::join_all;

    use super::super::event::EventKind;
    use super::super::log::{AuditLog, Opening};
    use super::super::settings::Settings;
    use super::super::sink::Sink;
    use super::super::{Filter, read, verify};
    use super::*;
    use crate::clock::{Clock, ManualClock, SystemClock, Timestamp};
    use crate::secret::Key;

    fn key() -> Key {
        Key::fill_with(|key| key.fill(7))
    }

    fn called(number: usize) -> Event {
        Event { detail: Some(number.to_string()), ..Event::new(EventKind::Invoked) }
    }

    /// Appends so many at the same time.
    async fn append(log: &AuditLog, entries: usize) -> Vec<Result<Position, AuditError>> {
        let events: Vec<_> = (0..entries).map(called).collect();
        join_all(events.iter().map(|event| log.append_with_others(event))).await
    }

    /// Takes what it is given at once, unless it is to fail.
    #[derive(Default)]
    struct Counted {
        pieces: Mutex<Vec<usize>>,
        fails: Mutex<bool>,
        /// Whoever has it keeps the sink from going on.
        gate: Mutex<()>,
        begun: AtomicU32,
    }

    impl Sink for Arc<Counted> {
        fn append(&self, lines: &[u8]) -> io::Result<()> {
            self.begun.fetch_add(1, Ordering::SeqCst);
            drop(self.gate.lock().unwrap());
            if *self.fails.lock().unwrap() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.pieces.lock().unwrap().push(lines.split_inclusive(|byte| *byte == b'\n').count());
            Ok(())
        }

        fn sync(&self) -> io::Result<()> {
            Ok(())
        }

        fn is_local(&self) -> bool {
            true
        }
    }

    fn counted() -> (Arc<Counted>, AuditLog) {
        counted_by(Arc::new(SystemClock::new()))
    }

    fn counted_by(clock: Arc<dyn Clock>) -> (Arc<Counted>, AuditLog) {
        let (counted, key, settings) = (Arc::new(Counted::default()), key(), Settings::default());
        let opening = Opening { key: &key, agent: None, epoch: None, settings: &settings };
        let log = AuditLog::with_sink("counted", Box::new(Arc::clone(&counted)), &opening, clock);
        let log = log.unwrap();
        log.shared.together.came(2);
        (counted, log)
    }

    #[tokio::test]
    async fn entries_that_come_at_the_same_time_are_handed_on_together_and_no_more_than_64() {
        let (sink, log) = counted();
        let positions: Vec<_> = append(&log, 150).await.into_iter().map(|position| position.unwrap().seq).collect();
        assert_eq!(positions, (1..=150).collect::<Vec<_>>(), "each waiter has the place of its own entry");
        assert_eq!(*sink.pieces.lock().unwrap(), [1, 64, 64, 22]);
    }

    #[tokio::test]
    async fn whoever_comes_alone_stops_waiting_for_others_until_it_is_tried_again() {
        let (sink, log) = counted();
        for number in 0..200 {
            log.append_with_others(&called(number)).await.unwrap();
        }
        assert_eq!(log.shared.together.hope.load(Ordering::Relaxed), 0);
        assert!(sink.pieces.lock().unwrap().iter().all(|lines| *lines == 1));
        // Others come again: found out within as many entries as it takes to be tried.
        append(&log, 200).await;
        assert!(sink.pieces.lock().unwrap().iter().any(|lines| *lines > 1));
    }

    #[tokio::test]
    async fn an_entry_is_written_although_nobody_waits_for_it_any_more() {
        let (sink, log) = counted();
        let (first, second) = (called(1), called(2));
        {
            let mut waiting = Box::pin(log.append_with_others(&first));
            let mut other = Box::pin(log.append_with_others(&second));
            let mut context = Context::from_waker(Waker::noop());
            assert!(waiting.as_mut().poll(&mut context).is_pending());
            assert!(other.as_mut().poll(&mut context).is_pending());
            drop(waiting);
            assert_eq!(other.await.unwrap().seq, 2);
        }
        assert_eq!(*sink.pieces.lock().unwrap(), [1, 2]);
        *sink.fails.lock().unwrap() = true;
        let mut waiting = Box::pin(log.append_with_others(&first));
        assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        drop(waiting);
        assert_eq!(log.failures(), 1, "that it is missing is told to the operator");
    }

    #[tokio::test]
    async fn nobody_depends_on_another_who_does_not_go_on() {
        let (sink, log) = counted();
        let (first, second) = (called(1), called(2));
        let mut stuck = Box::pin(log.append_with_others(&first));
        assert!(stuck.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(log.append_with_others(&second).await.unwrap().seq, 2);
        assert_eq!(*sink.pieces.lock().unwrap(), [1, 2]);
        assert_eq!(stuck.await.unwrap().seq, 1);
    }

    #[test]
    fn whoever_waits_for_what_another_writes_hears_after_two_seconds_that_it_hangs() {
        let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
        let (sink, log) = counted_by(Arc::clone(&clock) as Arc<dyn Clock>);
        let (first, second) = (called(1), called(2));
        let mut waiting = Box::pin(log.append_with_others(&first));
        let mut poll = || waiting.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(poll().is_pending());
        std::thread::scope(|scope| {
            let gate = sink.gate.lock().unwrap();
            let other = scope.spawn(|| {
                let mut other = Box::pin(log.append_with_others(&second));
                loop {
                    if let Poll::Ready(written) = other.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                        break written;
                    }
                }
            });
            while sink.begun.load(Ordering::SeqCst) < 2 {
                std::thread::yield_now();
            }
            assert!(poll().is_pending());
            clock.advance(PATIENCE);
            assert!(matches!(poll(), Poll::Ready(Err(AuditError::Hanging))));
            drop(gate);
            assert_eq!(other.join().unwrap().unwrap().seq, 2);
        });
        assert_eq!(*sink.pieces.lock().unwrap(), [1, 2]);
    }

    #[tokio::test]
    async fn where_the_log_takes_nothing_each_who_waits_is_told_and_the_chain_goes_on_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (key, settings, clock) = (key(), Settings::default(), Arc::new(SystemClock::new()));
        let (sink, failing) = counted();
        *sink.fails.lock().unwrap() = true;
        let refused = append(&failing, 3).await;
        assert!(refused.iter().all(|refused| matches!(refused, Err(AuditError::Write(_)))), "{refused:?}");
        assert_eq!(failing.failures(), 3);
        *sink.fails.lock().unwrap() = false;
        assert_eq!(failing.append(&called(4)).unwrap().seq, 1, "nothing of them counts");

        let opening = Opening { key: &key, agent: None, epoch: Some(3), settings: &settings };
        let log = AuditLog::open(dir.path(), &opening, clock).unwrap();
        log.shared.together.came(2);
        let positions = append(&log, 20).await;
        drop(log);
        assert_eq!(verify(dir.path(), &key).unwrap().entries, 21);
        let calls = Filter { kind: Some(EventKind::Invoked), ..Filter::default() };
        for (entry, position) in read(dir.path(), &key, &calls).unwrap().iter().zip(positions) {
            let position = position.unwrap();
            let hash = hex::encode(position.hash.as_bytes());
            assert!(entry.seq == position.seq && entry.json.contains(&hash), "{hash}: {}", entry.json);
        }
    }
}
