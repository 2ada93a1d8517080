//! The thread that makes entries durable, and tells the witness of them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::Notify;

use super::log::{AuditError, GLANCE, PATIENCE, Shared};
use super::witness::Witness;

/// The pause after lines were made durable, before the next ones are, where nobody waits for them.
const REST: Duration = Duration::from_millis(500);

/// What is known of the entries' durability.
#[derive(Default)]
pub(super) struct Durable {
    /// The number of the first entry that is not known to be durable.
    upto: AtomicU64,
    /// Signals that it has risen, or that it never will.
    risen: Notify,
    /// Since when lines are being made durable: microseconds of the clock plus one, zero for not now.
    syncing: AtomicU64,
    /// The last of these that took too long.
    hung: AtomicU64,
    failed: AtomicBool,
    /// Why what was written isn't where it belongs. The flag tells whether there is something.
    astray: Mutex<Option<String>>,
    is_astray: AtomicBool,
    wishes: Mutex<Wishes>,
    /// Signals the thread.
    wake: Condvar,
    /// Signals that the thread has ended.
    ended: Condvar,
}

#[derive(Default)]
struct Wishes {
    closing: bool,
    ended: bool,
    /// Somebody waits until the entries before this number are durable.
    wanted: u64,
}

impl Durable {
    fn wishes(&self) -> MutexGuard<'_, Wishes> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the thread that there is something to do.
    pub(super) fn wake(&self) {
        // Taken, so that the thread doesn't fall asleep between its look at the flag and this.
        drop(self.wishes());
        self.wake.notify_one();
    }
}

impl Shared {
    fn micros(&self) -> u64 {
        u64::try_from(self.clock.monotonic().as_micros()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// Whether lines have been being made durable for too long.
    fn syncs_for_too_long(&self) -> bool {
        let durable = &self.durable;
        let since = durable.syncing.load(Ordering::Acquire);
        for _ in 0..3 {
            let is_over = self.micros().saturating_sub(since) >= u64::try_from(PATIENCE.as_micros()).unwrap_or(0);
            if since == 0 || !is_over || since != durable.syncing.load(Ordering::Acquire) {
                return false;
            }
            // Whoever comes while it is known waits for nothing.
            if since == durable.hung.load(Ordering::Acquire) {
                return true;
            }
            // A clock that jumps must not make a healthy disk look like a hanging one: some real time passes too.
            std::thread::sleep(GLANCE);
        }
        durable.hung.store(since, Ordering::Release);
        true
    }

    pub(super) fn check_durability(&self) -> Result<(), AuditError> {
        if self.durable.failed.load(Ordering::Acquire) {
            return Err(AuditError::NotDurable);
        }
        if self.syncs_for_too_long() { Err(AuditError::Hanging) } else { Ok(()) }
    }

    /// Whether the log's file was found where it belongs, the last time it was looked for.
    pub(super) fn check_place(&self) -> Result<(), AuditError> {
        if self.durable.is_astray.load(Ordering::Acquire) {
            let astray = self.durable.astray.lock().unwrap_or_else(PoisonError::into_inner).clone();
            return astray.map_or(Ok(()), |why| Err(AuditError::Astray { why }));
        }
        Ok(())
    }

    /// Looks for the file. Whether it is there.
    fn look(&self) -> bool {
        let looked = self.sink.check();
        let mut astray = self.durable.astray.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = &looked
            && astray.is_none()
        {
            tracing::error!(%error, "the audit log is not where it belongs; no token is released");
        }
        *astray = looked.err().map(|error| error.to_string());
        self.durable.is_astray.store(astray.is_some(), Ordering::Release);
        astray.is_none()
    }

    /// Whether each place takes checkpoints, as far as is known.
    pub(super) fn check_checkpoints(&self) -> Result<(), AuditError> {
        self.witness.as_ref().map_or(Ok(()), Witness::check)
    }

    /// Waits until the entries before this number are durable.
    pub(super) async fn until_durable(&self, number: u64) -> Result<(), AuditError> {
        {
            let mut wishes = self.durable.wishes();
            wishes.wanted = wishes.wanted.max(number);
        }
        self.durable.wake.notify_one();
        let too_long = self.clock.sleep(PATIENCE);
        tokio::pin!(too_long);
        loop {
            let risen = self.durable.risen.notified();
            tokio::pin!(risen);
            // Registered before the look, so that nothing is missed between the two.
            risen.as_mut().enable();
            if self.durable.upto.load(Ordering::Acquire) >= number {
                return Ok(());
            }
            if self.durable.failed.load(Ordering::Acquire) {
                return Err(AuditError::NotDurable);
            }
            tokio::select! {
                () = risen => {}
                () = &mut too_long => return Err(AuditError::Hanging),
            }
        }
    }

    /// What the thread does until the log is closed.
    fn keep_durable(&self) {
        let durable = &self.durable;
        let mut is_there = true;
        loop {
            let idle = |wishes: &mut Wishes| is_there && !wishes.closing && !self.dirty.load(Ordering::Acquire);
            let wishes = durable.wake.wait_while(durable.wishes(), idle).unwrap_or_else(PoisonError::into_inner);
            let closing = wishes.closing;
            drop(wishes);
            if self.dirty.swap(false, Ordering::AcqRel) {
                let (upto, hashes) = self.take_written();
                durable.syncing.store(self.micros(), Ordering::Release);
                if self.sink.sync().is_ok() {
                    is_there = self.look();
                    durable.upto.store(upto, Ordering::Release);
                    // What failed once is never durable: no checkpoint is made of it.
                    if let Some(witness) = self.witness.as_ref().filter(|_| !durable.failed.load(Ordering::Acquire)) {
                        witness.saw(&hashes);
                    }
                } else {
                    // After a failed `fsync(2)` the system may have dropped what it could not write: it stays failed.
                    durable.failed.store(true, Ordering::Release);
                }
                durable.syncing.store(0, Ordering::Release);
                durable.risen.notify_waiters();
            } else if !is_there {
                is_there = self.look();
            }
            if closing {
                break;
            }
            let unwanted =
                |wishes: &mut Wishes| !wishes.closing && wishes.wanted <= durable.upto.load(Ordering::Acquire);
            drop(durable.wake.wait_timeout_while(durable.wishes(), REST, unwanted));
        }
    }
}

/// The running thread. Dropping it makes durable what was written.
pub(super) struct Syncer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    pub(super) fn start(shared: &Arc<Shared>) -> std::io::Result<Self> {
        let thread = std::thread::Builder::new().name("audit-sync".to_owned()).spawn({
            let shared = Arc::clone(shared);
            move || {
                shared.keep_durable();
                shared.durable.wishes().ended = true;
                shared.durable.ended.notify_all();
            }
        })?;
        Ok(Self { shared: Arc::clone(shared), thread: Some(thread) })
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        let durable = &self.shared.durable;
        let mut wishes = durable.wishes();
        wishes.closing = true;
        durable.wake.notify_one();
        let (wishes, _) = durable
            .ended
            .wait_timeout_while(wishes, PATIENCE, |wishes| !wishes.ended)
            .unwrap_or_else(PoisonError::into_inner);
        let ended = wishes.ended;
        drop(wishes);
        if let Some(thread) = self.thread.take().filter(|_| ended) {
            // It panics nowhere; and if it did, there is nothing left to do about it here.
            let _ = thread.join();
        }
    }
}
