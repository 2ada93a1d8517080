//! How many calls one user may have at once, and how many may wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, TryAcquireError};

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
    users: papaya::HashMap<UserId, Arc<Places>>,
    /// When so many users are known, those without calls are forgotten.
    tidy_at: AtomicUsize,
}

/// So many users may be known, whether they have calls or not.
const TIDY_AT: usize = 1024;

/// The places of one user. Closed when they are forgotten.
#[derive(Debug)]
struct Places {
    free: Semaphore,
    waiting: AtomicUsize,
}

/// A call's place. It is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<Places>);

impl Gate {
    pub(super) fn new(settings: GateSettings) -> Self {
        Self { settings, users: papaya::HashMap::new(), tidy_at: AtomicUsize::new(TIDY_AT) }
    }

    /// A place for a call of this user, at once or after waiting.
    pub(super) async fn enter(&self, user: &UserId) -> Result<Place, Busy> {
        loop {
            let places = self.places(user);
            match places.free.try_acquire().map(SemaphorePermit::forget) {
                Ok(()) => return Ok(Place(places)),
                Err(TryAcquireError::NoPermits) => {}
                // Forgotten in this moment.
                Err(TryAcquireError::Closed) => continue,
            }
            let _waiting = Waiting::join(&places, self.settings.queue_per_user).ok_or(Busy::new(BusyWith::User))?;
            match tokio::time::timeout(self.settings.longest_wait, places.free.acquire()).await {
                Ok(Ok(permit)) => {
                    permit.forget();
                    return Ok(Place(Arc::clone(&places)));
                }
                // Forgotten, since the last call of this user ended just before.
                Ok(Err(_)) => {}
                Err(_) => return Err(Busy::new(BusyWith::User)),
            }
        }
    }

    fn places(&self, user: &UserId) -> Arc<Places> {
        let users = self.users.pin();
        if let Some(places) = users.get(user).filter(|places| !places.free.is_closed()) {
            return Arc::clone(places);
        }
        if users.len() >= self.tidy_at.load(Ordering::Relaxed) {
            users.retain(|_, places| !self.closed(places));
            // Not again before it is worth the walk.
            self.tidy_at.store(TIDY_AT.max(2 * users.len()), Ordering::Relaxed);
        }
        let new = || Places { free: Semaphore::new(self.settings.calls_per_user), waiting: AtomicUsize::new(0) };
        Arc::clone(users.get_or_insert_with(user.clone(), || Arc::new(new())))
    }

    /// Closes the places of a user without calls. Whoever took a share of them just now finds them closed.
    fn closed(&self, places: &Places) -> bool {
        let all = u32::try_from(self.settings.calls_per_user).unwrap_or(u32::MAX);
        let idle = places.free.try_acquire_many(all).map(SemaphorePermit::forget).is_ok();
        if idle {
            places.free.close();
        }
        places.free.is_closed()
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
        self.0.free.add_permits(1);
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
        let _again = gate.enter(&ann).await.unwrap();
    }

    #[tokio::test]
    async fn of_many_users_those_without_calls_are_forgotten_and_the_others_keep_their_bound() {
        let gate = gate(1, 0);
        let ann: UserId = "ann".parse().unwrap();
        let running = gate.enter(&ann).await.unwrap();
        for number in 0..3 * TIDY_AT {
            drop(gate.enter(&format!("user{number}").parse().unwrap()).await.unwrap());
            assert!(gate.users.len() <= TIDY_AT);
        }
        assert!(gate.enter(&ann).await.is_err(), "the place that is taken was forgotten");
        drop(running);
        let _again = gate.enter(&ann).await.unwrap();
    }

    #[tokio::test]
    async fn whoever_finds_forgotten_places_gets_new_ones() {
        let gate = gate(1, 0);
        let ann: UserId = "ann".parse().unwrap();
        drop(gate.enter(&ann).await.unwrap());
        let forgotten = gate.places(&ann);
        assert!(gate.closed(&forgotten));
        gate.users.pin().remove(&ann);
        let _new = gate.enter(&ann).await.unwrap();
        assert!(forgotten.free.try_acquire().is_err());
    }

    #[tokio::test]
    async fn a_call_that_gives_up_waiting_leaves_no_trace() {
        let gate = gate(1, 1);
        let ann: UserId = "ann".parse().unwrap();
        let running = gate.enter(&ann).await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(1), gate.enter(&ann)).await.is_err());
        assert_eq!(running.0.waiting.load(Ordering::Relaxed), 0);
        drop(running);
        let _again = gate.enter(&ann).await.unwrap();
    }
}
