//! The background schedule: tokens are refreshed before anybody meets an expired one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};

use super::Broker;

/// Due connections claimed at a time.
const BATCH: usize = 32;
/// Refreshes under way at a time.
const AT_ONCE: usize = 16;
/// The schedule looks at the vault at least this often, since another process may have stored something due sooner.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);
/// And at most this often.
const SHORTEST_SLEEP: Duration = Duration::from_millis(100);

/// A running schedule. Dropping it stops the claims; refreshes under way go on to their end.
#[must_use = "dropping it stops the schedule"]
#[derive(Debug)]
pub struct Schedule {
    stop: Arc<Notify>,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Schedule {
    /// Stops claiming and waits until the loop has ended.
    pub async fn stop(mut self) {
        self.stop.notify_one();
        if let Some(task) = self.task.take()
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the refresh schedule ended badly");
        }
    }
}

impl Drop for Schedule {
    fn drop(&mut self) {
        self.stop.notify_one();
    }
}

impl Broker {
    /// Starts the schedule in a task of its own.
    pub fn start_schedule(&self) -> Schedule {
        let stop = Arc::new(Notify::new());
        let (broker, stopped) = (self.clone(), Arc::clone(&stop));
        let task = tokio::spawn(async move {
            let slots = Arc::new(Semaphore::new(AT_ONCE));
            loop {
                // What the log could not be told at its time, by this process or by one that has died.
                broker.tell().await;
                let pause = broker.refresh_what_is_due(&slots).await;
                tokio::select! {
                    () = stopped.notified() => break,
                    () = broker.0.parts.clock.sleep(pause) => {}
                }
            }
        });
        Schedule { stop, task: Some(task) }
    }

    /// Claims what is due and starts its refreshes; returns how long nothing will be due.
    async fn refresh_what_is_due(&self, slots: &Arc<Semaphore>) -> Duration {
        loop {
            let free = slots.available_permits().min(BATCH);
            if free == 0 {
                return SHORTEST_SLEEP;
            }
            let claims = match self.0.parts.vault.claim_due(free).await {
                Ok(claims) => claims,
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "due refreshes could not be claimed");
                    return LONGEST_SLEEP;
                }
            };
            let full = claims.len() == free;
            for claim in claims {
                let slot = Arc::clone(slots).acquire_owned().await;
                self.start_claimed(claim, slot.ok());
            }
            if !full {
                break;
            }
        }
        match self.0.parts.vault.next_due() {
            Ok(Some(due)) => {
                let wait = due.duration_since(self.0.parts.clock.now());
                Duration::try_from(wait).unwrap_or_default().clamp(SHORTEST_SLEEP, LONGEST_SLEEP)
            }
            Ok(None) => LONGEST_SLEEP,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the next due refresh could not be read");
                LONGEST_SLEEP
            }
        }
    }
}
