//! How many calls one user may have at once, and how many may wait.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::id::UserId;

/// How many calls one user may have at once, and how many may wait.
#[derive(Debug, Clone)]
pub struct GateSettings {
    /// Calls of one user at the same time. Default 64.
    pub calls_per_user: usize,
    /// Calls of one user that wait for a place. Default 256.
    pub queue_per_user: usize,
    /// How long a call may wait. Default 10 s.
    pub longest_wait: Duration,
}

impl Default for GateSettings {
    fn default() -> Self {
        Self { calls_per_user: 64, queue_per_user: 256, longest_wait: Duration::from_secs(10) }
    }
}

/// There is no place for this call just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("busy: {what}; try again in {} s", retry_after.as_secs_f32().ceil())]
pub struct Busy {
    /// What there is too much of.
    pub what: BusyWith,
    /// When another try makes sense.
    pub retry_after: Duration,
}

/// What there is too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BusyWith {
    /// This user's calls.
    #[error("this user has as many calls running and waiting as one user may have")]
    User,
    /// Everybody's calls.
    #[error("as many calls are running as this host has room for")]
    Host,
}

impl Busy {
    pub(super) fn new(what: BusyWith) -> Self {
        Self { what, retry_after: Duration::from_secs(1) }
    }
}

/// Lets calls in.
#[derive(Debug)]
pub(super) struct Gate {
    settings: GateSettings,
    users: Arc<Users>,
}

type Users = Mutex<HashMap<UserId, Arc<Places>>>;

#[derive(Debug)]
struct Places {
    free: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// A call's place. It is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    /// Absent only while it is being dropped.
    permit: Option<OwnedSemaphorePermit>,
    places: Arc<Places>,
    user: UserId,
    users: Arc<Users>,
}

impl Gate {
    pub(super) fn new(settings: GateSettings) -> Self {
        Self { settings, users: Arc::default() }
    }

    /// A place for a call of this user, at once or after waiting.
    pub(super) async fn enter(&self, user: &UserId) -> Result<Place, Busy> {
        let places = {
            let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(places) = users.get(user) {
                Arc::clone(places)
            } else {
                let free = Arc::new(Semaphore::new(self.settings.calls_per_user));
                let places = Arc::new(Places { free, waiting: AtomicUsize::new(0) });
                users.insert(user.clone(), Arc::clone(&places));
                places
            }
        };
        // Made first, so that the user's entry is cleared whatever happens below.
        let mut place =
            Place { permit: None, places: Arc::clone(&places), user: user.clone(), users: Arc::clone(&self.users) };
        if let Ok(permit) = Arc::clone(&places.free).try_acquire_owned() {
            place.permit = Some(permit);
            return Ok(place);
        }
        let _waiting = Waiting::join(&places, self.settings.queue_per_user).ok_or(Busy::new(BusyWith::User))?;
        let permit = tokio::time::timeout(self.settings.longest_wait, Arc::clone(&places.free).acquire_owned()).await;
        match permit {
            Ok(Ok(permit)) => {
                place.permit = Some(permit);
                Ok(place)
            }
            _ => Err(Busy::new(BusyWith::User)),
        }
    }
}

/// Counts a waiting call for as long as it waits, also when it gives up.
struct Waiting<'a>(&'a Places);

impl<'a> Waiting<'a> {
    fn join(places: &'a Places, most: usize) -> Option<Self> {
        let waiting = Self(places);
        (places.waiting.fetch_add(1, Ordering::Relaxed) < most).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.permit.take());
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        // The map's own and this one: nobody else has or waits for a place, and nobody can while the lock is held.
        if Arc::strong_count(&self.places) == 2 {
            users.remove(&self.user);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(calls: usize, queue: usize) -> Gate {
        Gate::new(GateSettings { calls_per_user: calls, queue_per_user: queue, longest_wait: Duration::from_mins(1) })
    }

    #[tokio::test]
    async fn one_user_s_calls_are_bounded_and_another_s_are_not_touched() {
        let gate = gate(2, 0);
        let (ann, bob) = ("ann".parse().unwrap(), "bob".parse().unwrap());
        let _first = gate.enter(&ann).await.unwrap();
        let second = gate.enter(&ann).await.unwrap();
        let busy = gate.enter(&ann).await.unwrap_err();
        assert_eq!(
            busy.to_string(),
            "busy: this user has as many calls running and waiting as one user may have; try again in 1 s"
        );
        let _other = gate.enter(&bob).await.unwrap();
        drop(second);
        let _again = gate.enter(&ann).await.unwrap();
    }

    #[tokio::test]
    async fn a_waiting_call_gets_the_place_that_becomes_free_and_the_queue_is_bounded() {
        let gate = Arc::new(gate(1, 1));
        let ann: UserId = "ann".parse().unwrap();
        let running = gate.enter(&ann).await.unwrap();
        let waiting = tokio::spawn({
            let (gate, ann) = (Arc::clone(&gate), ann.clone());
            async move { gate.enter(&ann).await }
        });
        tokio::task::yield_now().await;
        assert!(gate.enter(&ann).await.is_err());
        drop(running);
        drop(waiting.await.unwrap().unwrap());
        assert!(gate.users.lock().unwrap().is_empty(), "nothing is kept of a user without calls");
    }

    #[tokio::test]
    async fn a_call_that_gives_up_waiting_leaves_no_trace() {
        let gate = gate(1, 1);
        let ann: UserId = "ann".parse().unwrap();
        let running = gate.enter(&ann).await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(1), gate.enter(&ann)).await.is_err());
        assert_eq!(running.places.waiting.load(Ordering::Relaxed), 0);
        drop(running);
        assert!(gate.users.lock().unwrap().is_empty());
    }
}
