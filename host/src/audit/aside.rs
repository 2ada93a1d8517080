//! A thread for what may hang: whoever waits for it waits for two seconds at the most, and one thread at the most hangs.
//!
//! It is a thread of its own and not one of the runtime's for blocking work: a runtime that ends waits for those, however long
//! they hang.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use crate::clock::Clock;

use super::log::{AuditError, GLANCE, PATIENCE};

type Job = Box<dyn FnOnce() + Send>;

/// The thread, begun with the first job. It ends when this is dropped and the job under way has ended.
pub(super) struct Aside {
    name: &'static str,
    clock: Arc<dyn Clock>,
    shared: Arc<Shared>,
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
}

#[derive(Default)]
struct Shared {
    /// Since when a job is under way.
    since: Mutex<Option<Duration>>,
    /// Signal that none is any more.
    free: Notify,
    freed: Condvar,
}

enum Turn {
    Ours,
    Busy,
    Stuck,
}

/// The end of a job, also of one that panics.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        *self.0.since() = None;
        self.0.freed.notify_one();
        self.0.free.notify_waiters();
    }
}

impl Shared {
    fn since(&self) -> MutexGuard<'_, Option<Duration>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Aside {
    pub(super) fn new(name: &'static str, clock: Arc<dyn Clock>) -> Self {
        Self { name, clock, shared: Arc::default(), jobs: Mutex::default() }
    }

    /// Does this on the thread. Where it is not done in two seconds, or something else has been under way for that long, the
    /// answer is [`AuditError::Hanging`]; what has begun goes on all the same.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, AuditError> {
        self.run_within(PATIENCE, work).await
    }

    /// The same with another patience for this one.
    pub(super) async fn run_within<T: Send + 'static>(
        &self,
        patience: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, AuditError> {
        let too_long = self.clock.sleep(patience);
        tokio::pin!(too_long);
        loop {
            let free = self.shared.free.notified();
            tokio::pin!(free);
            // Registered before the look, so that nothing is missed between the two.
            free.as_mut().enable();
            match self.turn(&mut self.shared.since()) {
                Turn::Ours => break,
                Turn::Stuck => return Err(AuditError::Hanging),
                Turn::Busy => {}
            }
            tokio::select! {
                () = free => {}
                () = &mut too_long => return Err(AuditError::Hanging),
            }
        }
        let (sender, receiver) = oneshot::channel();
        self.begin(work, move |done| {
            // Nobody waits any more where it took too long.
            let _ = sender.send(done);
        })?;
        tokio::select! {
            biased;
            done = receiver => done.map_err(|_| AuditError::Hanging),
            () = too_long => Err(AuditError::Hanging),
        }
    }

    /// What [`run`](Self::run) does, for who can't wait otherwise than by blocking.
    pub(super) fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, AuditError> {
        let begun = self.clock.monotonic();
        let mut glances = 0;
        // A clock that jumps must not make a healthy disk look like a hanging one: some real time passes too.
        let mut is_over = move |clock: &dyn Clock| {
            glances += 1;
            glances > 3 && clock.monotonic().saturating_sub(begun) >= PATIENCE
        };
        let mut since = self.shared.since();
        loop {
            match self.turn(&mut since) {
                Turn::Ours => break,
                Turn::Stuck => return Err(AuditError::Hanging),
                Turn::Busy if is_over(self.clock.as_ref()) => return Err(AuditError::Hanging),
                Turn::Busy => {}
            }
            since = self.shared.freed.wait_timeout(since, GLANCE).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(since);
        let (sender, receiver) = mpsc::channel();
        self.begin(work, move |done| {
            let _ = sender.send(done);
        })?;
        loop {
            match receiver.recv_timeout(GLANCE) {
                Ok(done) => return Ok(done),
                Err(mpsc::RecvTimeoutError::Disconnected) => return Err(AuditError::Hanging),
                Err(mpsc::RecvTimeoutError::Timeout) if is_over(self.clock.as_ref()) => {
                    return Err(AuditError::Hanging);
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Whether a job has been under way for too long.
    pub(super) fn is_stuck(&self) -> bool {
        let since = *self.shared.since();
        since.is_some_and(|since| self.clock.monotonic().saturating_sub(since) >= PATIENCE)
    }

    #[cfg(test)]
    pub(super) fn is_free(&self) -> bool {
        self.shared.since().is_none()
    }

    /// Takes the thread, where it is free.
    fn turn(&self, since: &mut Option<Duration>) -> Turn {
        let now = self.clock.monotonic();
        match *since {
            None => {
                *since = Some(now);
                Turn::Ours
            }
            Some(since) if now.saturating_sub(since) >= PATIENCE => Turn::Stuck,
            Some(_) => Turn::Busy,
        }
    }

    fn begin<T: 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
        tell: impl FnOnce(T) + Send + 'static,
    ) -> Result<(), AuditError> {
        let ending = Ending(Arc::clone(&self.shared));
        let job: Job = Box::new(move || {
            let done = work();
            // Before it is told, so that who waits for this finds the thread free.
            drop(ending);
            tell(done);
        });
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let job = match &*jobs {
            Some(thread) => match thread.send(job) {
                Ok(()) => return Ok(()),
                // A job has panicked, and the thread with it.
                Err(mpsc::SendError(job)) => job,
            },
            None => job,
        };
        let (sender, queue) = mpsc::channel::<Job>();
        // The queue is in the hands of the thread, which ends when the sender is gone.
        let _ = sender.send(job);
        std::thread::Builder::new()
            .name(self.name.to_owned())
            .spawn(move || queue.into_iter().for_each(|job| job()))
            .map_err(AuditError::Write)?;
        *jobs = Some(sender);
        Ok(())
    }
}
