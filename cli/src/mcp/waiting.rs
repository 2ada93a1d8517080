//! How many calls of one caller wait for a person at the same time.
//!
//! A call of an older client waits for up to half an hour, also where the client has gone meanwhile: it might come back for the
//! answer. Without a bound, calls that nobody waits for would fill the memory with their arguments.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use clawcoil::id::{Caller, ClientName, UserId};

/// More than a person is asked at once.
const MOST: usize = 16;

/// The calls that wait.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<HashMap<(ClientName, UserId), usize>>);

impl Waiting {
    fn counts(&self) -> MutexGuard<'_, HashMap<(ClientName, UserId), usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another one waits, until this value goes. `None`: too many do.
    pub(super) fn begin(&self, caller: &Caller) -> Option<Place<'_>> {
        let of = (caller.client.clone(), caller.user.clone());
        let mut counts = self.counts();
        let count = counts.entry(of.clone()).or_default();
        if *count >= MOST {
            return None;
        }
        *count += 1;
        Some(Place { waiting: self, of })
    }
}

/// One that waits.
#[derive(Debug)]
pub(super) struct Place<'a> {
    waiting: &'a Waiting,
    of: (ClientName, UserId),
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut counts = self.waiting.counts();
        if let Some(count) = counts.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.of);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_has_a_bounded_number_and_takes_nobody_elses() {
        let caller = |client: &str, user: &str| Caller::new(client.parse().unwrap(), user.parse().unwrap());
        let waiting = Waiting::default();
        let alice = caller("bot", "alice");
        let mut places: Vec<_> = (0..MOST).map(|_| waiting.begin(&alice).unwrap()).collect();
        assert!(waiting.begin(&alice).is_none());
        assert!(waiting.begin(&caller("bot", "bob")).is_some() && waiting.begin(&caller("other", "alice")).is_some());
        places.pop();
        assert!(waiting.begin(&alice).is_some());
        drop(places);
        assert!(waiting.counts().is_empty(), "nothing is kept of callers who don't wait");
    }
}
