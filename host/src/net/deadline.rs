//! The time that an exchange and each of its stages may take.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::error::Fault;
use crate::clock::Clock;

/// The end of an exchange, on the monotonic clock.
#[derive(Clone)]
pub(super) struct Deadline {
    clock: Arc<dyn Clock>,
    ends_at: Duration,
}

impl Deadline {
    pub(super) fn after(clock: Arc<dyn Clock>, total: Duration) -> Self {
        let ends_at = clock.monotonic().saturating_add(total);
        Self { clock, ends_at }
    }

    pub(super) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// How long a stage may take that may take `limit` at most, and what is wrong when it takes longer.
    fn stage(&self, limit: Duration) -> (Duration, Fault) {
        let left = self.ends_at.saturating_sub(self.clock.monotonic());
        if left < limit { (left, Fault::Deadline) } else { (limit, Fault::Timeout) }
    }

    /// Runs one stage.
    pub(super) async fn within<T>(&self, limit: Duration, stage: impl Future<Output = T>) -> Result<T, Fault> {
        let (time, fault) = self.stage(limit);
        tokio::select! {
            biased;
            done = stage => Ok(done),
            () = self.clock.sleep(time) => Err(fault),
        }
    }
}

/// The limit on the time between two pieces of a body. The clock is asked only while nothing arrives.
pub(super) struct Idle {
    deadline: Deadline,
    limit: Duration,
    waiting: Option<Waiting>,
}

struct Waiting {
    sleep: Pin<Box<dyn Future<Output = ()> + Send>>,
    fault: Fault,
}

impl Idle {
    pub(super) fn new(deadline: Deadline, limit: Duration) -> Self {
        Self { deadline, limit, waiting: None }
    }

    /// Something arrived. A body that drips forever ends at the exchange's own deadline.
    pub(super) fn progress(&mut self) -> Result<(), Fault> {
        self.waiting = None;
        match self.deadline.stage(self.limit) {
            (Duration::ZERO, fault) => Err(fault),
            _ => Ok(()),
        }
    }

    /// Nothing arrived: ready with the fault when that has lasted too long.
    pub(super) fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<Fault> {
        let Waiting { sleep, fault } = self.waiting.get_or_insert_with(|| {
            let (time, fault) = self.deadline.stage(self.limit);
            Waiting { sleep: self.deadline.clock.sleep(time), fault }
        });
        sleep.as_mut().poll(cx).map(|()| *fault)
    }
}
