//! Where a refresh kills the old access token at once (GitHub Apps, GitLab), requests that still carry it finish first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::clock::Clock;
use crate::id::ConnectionId;

/// How long a refresh waits for the requests under way.
const PATIENCE: Duration = Duration::from_secs(10);

/// Held by a request that carries a token which the next refresh would kill.
pub type InFlight = OwnedRwLockReadGuard<()>;

/// One gate a connection, made when it is first used and forgotten when nobody holds it.
#[derive(Default)]
pub(super) struct Gates(Mutex<HashMap<ConnectionId, Arc<RwLock<()>>>>);

impl Gates {
    fn gate(&self, id: ConnectionId) -> Arc<RwLock<()>> {
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if gates.len() > 1024 {
            gates.retain(|_, gate| Arc::strong_count(gate) > 1);
        }
        Arc::clone(gates.entry(id).or_default())
    }

    /// Enters a request; waits while a refresh is waiting or running, since the lock is fair.
    pub(super) async fn enter(&self, id: ConnectionId) -> InFlight {
        self.gate(id).read_owned().await
    }

    /// Closes the gate once those inside have left, or after [`PATIENCE`] in any case.
    pub(super) async fn close(&self, id: ConnectionId, clock: &dyn Clock) -> Option<OwnedRwLockWriteGuard<()>> {
        tokio::select! {
            closed = self.gate(id).write_owned() => Some(closed),
            () = clock.sleep(PATIENCE) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, Timestamp};

    #[tokio::test]
    async fn a_refresh_waits_for_requests_under_way_and_new_ones_wait_for_it() {
        let (gates, clock) = (Arc::new(Gates::default()), ManualClock::at(Timestamp::UNIX_EPOCH));
        let id = ConnectionId::from_bytes([1; 16]);
        let inside = gates.enter(id).await;
        let closing = tokio::spawn({
            let (gates, clock) = (Arc::clone(&gates), clock.clone());
            async move { gates.close(id, &clock).await.is_some() }
        });
        tokio::task::yield_now().await;
        let late = tokio::spawn({
            let gates = Arc::clone(&gates);
            async move { drop(gates.enter(id).await) }
        });
        tokio::task::yield_now().await;
        assert!(!closing.is_finished() && !late.is_finished());
        drop(inside);
        assert!(closing.await.unwrap());
        late.await.unwrap();
    }

    #[tokio::test]
    async fn a_request_that_never_ends_holds_a_refresh_for_ten_seconds_at_most() {
        let (gates, clock) = (Arc::new(Gates::default()), ManualClock::at(Timestamp::UNIX_EPOCH));
        let id = ConnectionId::from_bytes([2; 16]);
        let _inside = gates.enter(id).await;
        let closing = tokio::spawn({
            let (gates, clock) = (Arc::clone(&gates), clock.clone());
            async move { gates.close(id, &clock).await.is_none() }
        });
        tokio::task::yield_now().await;
        clock.advance(PATIENCE);
        assert!(closing.await.unwrap());
    }
}
