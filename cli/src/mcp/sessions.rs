//! Whose session is whose.
//!
//! The transport knows a session by its id alone; whoever has a credential and learns an id could use it. So each is held to
//! the caller who began it, and a caller has no more than a bounded number.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clawcoil::id::Caller;
use rmcp::transport::streamable_http_server::session::SessionManager as _;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;

/// How many sessions one caller may have. The oldest ends where another is begun.
const MOST: usize = 2048;

/// The sessions that were begun, and by whom.
pub(super) struct Book {
    manager: Arc<LocalSessionManager>,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    of: HashMap<String, Entry>,
    /// Counts the sessions; the smallest number is the oldest.
    count: u64,
    /// From how many on it is worth looking for those that have ended by themselves.
    tidy_at: usize,
}

struct Entry {
    caller: Caller,
    number: u64,
}

impl Entry {
    /// A program may show a new credential within a session: its access token is renewed every hour.
    fn is_of(&self, caller: &Caller) -> bool {
        self.caller.client == caller.client && self.caller.user == caller.user
    }
}

impl Book {
    pub(super) fn new(manager: Arc<LocalSessionManager>) -> Self {
        Self { manager, entries: Mutex::default() }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the session is this caller's.
    pub(super) fn is_of(&self, session: &str, caller: &Caller) -> bool {
        self.entries().of.get(session).is_some_and(|entry| entry.is_of(caller))
    }

    /// The session has ended.
    pub(super) fn remove(&self, session: &str) {
        self.entries().of.remove(session);
    }

    /// The caller has begun a session.
    pub(super) async fn add(&self, session: &str, caller: Caller) {
        let (tidy, oldest) = {
            let mut entries = self.entries();
            let own = entries.of.iter().filter(|(_, entry)| entry.is_of(&caller));
            let (mut count, mut oldest) = (0, None::<(&String, &Entry)>);
            for entry in own {
                count += 1;
                oldest = oldest.filter(|oldest| oldest.1.number < entry.1.number).or(Some(entry));
            }
            let oldest = oldest.filter(|_| count >= MOST).map(|(id, _)| id.clone());
            let number = entries.count;
            entries.count += 1;
            entries.of.insert(session.to_owned(), Entry { caller, number });
            if let Some(oldest) = &oldest {
                entries.of.remove(oldest);
            }
            let tidy: Vec<String> = if entries.of.len() > entries.tidy_at.max(MOST) {
                entries.of.keys().cloned().collect()
            } else {
                Vec::new()
            };
            (tidy, oldest)
        };
        if let Some(oldest) = oldest {
            // It may have ended already.
            let _ = self.manager.close_session(&oldest.into()).await;
        }
        if tidy.is_empty() {
            return;
        }
        for session in tidy {
            if !self.manager.has_session(&session.as_str().into()).await.unwrap_or(false) {
                self.remove(&session);
            }
        }
        let mut entries = self.entries();
        entries.tidy_at = entries.of.len() * 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(client: &str, user: &str) -> Caller {
        Caller { client: client.parse().unwrap(), user: user.parse().unwrap(), credential: None }
    }

    #[tokio::test]
    async fn a_session_is_its_callers_alone() {
        let book = Book::new(Arc::default());
        let alice = caller("bot", "alice");
        book.add("s1", alice.clone()).await;
        assert!(book.is_of("s1", &alice));
        assert!(!book.is_of("s1", &caller("bot", "bob")), "another user of the same program");
        assert!(!book.is_of("s1", &caller("other", "alice")), "another program of the same user");
        assert!(!book.is_of("s2", &alice), "one that never was");
        let renewed = Caller { credential: Some("tok_2".parse().unwrap()), ..alice.clone() };
        assert!(book.is_of("s1", &renewed), "the same program with a new token");
        book.remove("s1");
        assert!(!book.is_of("s1", &alice));
    }

    #[tokio::test]
    async fn a_caller_with_too_many_sessions_loses_the_oldest_and_nobody_elses() {
        let book = Book::new(Arc::default());
        let (alice, bob) = (caller("bot", "alice"), caller("bot", "bob"));
        book.add("bobs", bob.clone()).await;
        for number in 0..MOST {
            book.add(&format!("s{number}"), alice.clone()).await;
        }
        // Those that the transport doesn't know any more were forgotten with the first that was one too many.
        book.add("one-more", alice.clone()).await;
        assert!(!book.is_of("s0", &alice));
        assert!(book.entries().of.len() <= MOST + 1);
    }
}
