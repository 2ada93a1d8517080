//! Whose session is whose.
//!
//! The transport knows a session by its id alone; whoever has a credential and learns an id could use it. So each is held to
//! the caller who began it from the moment it is made until it ends, and callers have no more than a bounded number.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use clawcoil::id::Caller;
use futures_util::Stream;
use rmcp::model::{ClientJsonRpcMessage, ServerJsonRpcMessage};
use rmcp::transport::streamable_http_server::session::local::{LocalSessionManager, LocalSessionManagerError};
use rmcp::transport::streamable_http_server::session::{ServerSseMessage, SessionId, SessionManager};

/// How many sessions one caller may have. The oldest ends where another is begun.
const MOST: usize = 2048;
/// How many sessions one program may have, for whomever it calls.
const MOST_OF_CLIENT: usize = 4 * MOST;

tokio::task_local! {
    /// Who sends the request that is handled.
    static SENDER: Caller;
}

/// The sessions that are open, and who began them.
pub(super) struct Book {
    manager: LocalSessionManager,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    of: HashMap<SessionId, Entry>,
    /// Counts the sessions; the smallest number is the oldest.
    count: u64,
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

impl Entries {
    fn add(&mut self, session: SessionId, caller: Caller) {
        self.of.insert(session, Entry { caller, number: self.count });
        self.count += 1;
    }

    /// The oldest of those that have too many to begin another.
    fn one_too_many(&self, caller: &Caller) -> Option<SessionId> {
        let oldest_of = |most: usize, counts: &dyn Fn(&Entry) -> bool| {
            let counted = self.of.iter().filter(|(_, entry)| counts(entry));
            let (mut count, mut oldest) = (0, None::<(&SessionId, &Entry)>);
            for entry in counted {
                count += 1;
                oldest = oldest.filter(|oldest| oldest.1.number < entry.1.number).or(Some(entry));
            }
            oldest.filter(|_| count >= most).map(|(id, _)| id.clone())
        };
        oldest_of(MOST, &|entry| entry.is_of(caller))
            .or_else(|| oldest_of(MOST_OF_CLIENT, &|entry| entry.caller.client == caller.client))
    }
}

impl Book {
    pub(super) fn new(manager: LocalSessionManager) -> Self {
        Self { manager, entries: Mutex::default() }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the session is open, and this caller's.
    pub(super) fn is_of(&self, session: &str, caller: &Caller) -> bool {
        self.entries().of.get(session).is_some_and(|entry| entry.is_of(caller))
    }

    /// Handles a request; a session that begins in it is this caller's.
    pub(super) async fn sent_by<T>(caller: Caller, handling: impl Future<Output = T>) -> T {
        SENDER.scope(caller, handling).await
    }
}

impl SessionManager for Book {
    type Error = LocalSessionManagerError;
    type Transport = <LocalSessionManager as SessionManager>::Transport;

    async fn create_session(&self) -> Result<(SessionId, Self::Transport), Self::Error> {
        // Without a caller it would be nobody's.
        let caller = SENDER
            .try_with(Clone::clone)
            .map_err(|_| LocalSessionManagerError::SessionNotFound(SessionId::from("of nobody")))?;
        let oldest = self.entries().one_too_many(&caller);
        if let Some(oldest) = oldest {
            self.close_session(&oldest).await?;
        }
        let (id, transport) = self.manager.create_session().await?;
        self.entries().add(id.clone(), caller);
        Ok((id, transport))
    }

    async fn close_session(&self, id: &SessionId) -> Result<(), Self::Error> {
        self.entries().of.remove(id);
        self.manager.close_session(id).await
    }

    async fn initialize_session(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage, Self::Error> {
        self.manager.initialize_session(id, message).await
    }

    async fn has_session(&self, id: &SessionId) -> Result<bool, Self::Error> {
        self.manager.has_session(id).await
    }

    async fn create_stream(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        self.manager.create_stream(id, message).await
    }

    async fn accept_message(&self, id: &SessionId, message: ClientJsonRpcMessage) -> Result<(), Self::Error> {
        self.manager.accept_message(id, message).await
    }

    async fn create_standalone_stream(
        &self,
        id: &SessionId,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        self.manager.create_standalone_stream(id).await
    }

    async fn resume(
        &self,
        id: &SessionId,
        last_event_id: String,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        self.manager.resume(id, last_event_id).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(client: &str, user: &str) -> Caller {
        Caller { client: client.parse().unwrap(), user: user.parse().unwrap(), credential: None }
    }

    #[tokio::test]
    async fn a_session_is_its_callers_alone_until_it_ends() {
        let book = Book::new(LocalSessionManager::default());
        let alice = caller("bot", "alice");
        let (id, _transport) = Book::sent_by(alice.clone(), book.create_session()).await.unwrap();
        assert!(book.is_of(&id, &alice));
        assert!(!book.is_of(&id, &caller("bot", "bob")), "another user of the same program");
        assert!(!book.is_of(&id, &caller("other", "alice")), "another program of the same user");
        assert!(!book.is_of("s2", &alice), "one that never was");
        let renewed = Caller { credential: Some("tok_2".parse().unwrap()), ..alice.clone() };
        assert!(book.is_of(&id, &renewed), "the same program with a new token");
        book.close_session(&id).await.unwrap();
        assert!(!book.is_of(&id, &alice) && book.entries().of.is_empty());
        assert!(book.create_session().await.is_err(), "a session of nobody");
    }

    #[tokio::test]
    async fn who_has_too_many_sessions_loses_the_oldest_and_nobody_elses() {
        let book = Book::new(LocalSessionManager::default());
        let (alice, bob) = (caller("bot", "alice"), caller("other", "bob"));
        let (bobs, _transport) = Book::sent_by(bob.clone(), book.create_session()).await.unwrap();
        let (first, _transport) = Book::sent_by(alice.clone(), book.create_session()).await.unwrap();
        for number in 1..MOST {
            book.entries().add(format!("s{number}").into(), alice.clone());
        }
        Book::sent_by(alice.clone(), book.create_session()).await.unwrap();
        assert!(!book.is_of(&first, &alice) && !book.has_session(&first).await.unwrap());
        assert!(book.is_of("s1", &alice) && book.is_of(&bobs, &bob));
        assert_eq!(book.entries().of.len(), MOST + 1);
    }

    #[test]
    fn a_program_that_calls_for_many_users_is_bounded_too() {
        let mut entries = Entries::default();
        for number in 0..MOST_OF_CLIENT {
            entries.add(format!("s{number}").into(), caller("bot", &format!("user-{number}")));
        }
        assert_eq!(entries.one_too_many(&caller("bot", "one-more")).as_deref(), Some("s0"));
        assert_eq!(entries.one_too_many(&caller("other", "one-more")), None);
    }
}
