//! What has changed, told to open pages as it happens (server-sent events).
//!
//! An event names only what kind of thing changed; the page then asks for itself again, and gets what its reader may see. A
//! user is told of what is their own alone. Streams end when the server stops, and when who listens is not signed in any more.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use clawcoil::id::{Owner, UserId};
use futures_util::stream::{self, Stream};
use tokio::sync::Notify;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::activity::{self, Activity, Heard};
use super::browser::{BrowserSession, Role, Visitor};
use super::trouble::Trouble;
use crate::serve::{Change, Kind, Problem, Shared};

/// What happens within this time is told together.
const TOGETHER: Duration = Duration::from_millis(400);
/// How often is looked whether who listens is still signed in, and a sign of life is sent.
const ALIVE: Duration = Duration::from_secs(20);
/// So many pages of one sign-in may listen at once.
const MOST: usize = 32;

/// The pages that listen.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    /// How many of each sign-in.
    by_session: Arc<Mutex<HashMap<String, usize>>>,
    /// Somebody has signed out: whoever listens looks whether it was they.
    signed_out: Notify,
}

/// One page that listens.
struct Listener {
    all: Arc<Mutex<HashMap<String, usize>>>,
    session: String,
}

impl Listeners {
    /// Ends the streams of those who have signed out.
    pub(super) fn look(&self) {
        self.signed_out.notify_waiters();
    }

    fn begin(&self, session: &str) -> Option<Listener> {
        let mut all = self.by_session.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(session.to_owned()).or_default();
        if *count >= MOST {
            return None;
        }
        *count += 1;
        Some(Listener { all: Arc::clone(&self.by_session), session: session.to_owned() })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.session) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.session);
            }
        }
    }
}

/// Tells one page of what changes.
pub(super) async fn stream(
    State(app): State<Shared>,
    visitor: Visitor,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Trouble> {
    let Some(listener) = app.activity.listeners.begin(&visitor.session.id) else {
        let text = "so many pages listen already; close some";
        return Err(Problem::new(Kind::TooMany, text).retry_after(ALIVE).into());
    };
    let heard = Activity::followed(&app).await.subscribe();
    let changes = app.changes.subscribe();
    let own = visitor.role.user().map(|user| Own::of(&app, user));
    let told = Told { app, headers, role: visitor.role, own, changes, heard, _listener: listener, greeted: false };
    let events = stream::unfold(told, |mut told| async move { told.next().await.map(|event| (Ok(event), told)) });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(ALIVE)))
}

/// What a user's pages show, and under which tag the log has them.
struct Own {
    user: UserId,
    tag: String,
    shown: u64,
}

impl Own {
    fn of(app: &Shared, user: &UserId) -> Self {
        Self { user: user.clone(), tag: activity::tag(app, user), shown: Self::shown(app, user) }
    }

    /// Changes with whatever of theirs is shown.
    fn shown(app: &Shared, user: &UserId) -> u64 {
        let owner = Owner::User(user.clone());
        let mut hasher = DefaultHasher::new();
        for connection in app.host.vault().connections(Some(&owner)).unwrap_or_default() {
            format!("{connection:?}").hash(&mut hasher);
        }
        for session in app.sessions.open(app, &owner).unwrap_or_default() {
            (session.id, session.state.as_str()).hash(&mut hasher);
        }
        hasher.finish()
    }
}

struct Told {
    app: Shared,
    headers: HeaderMap,
    role: Role,
    own: Option<Own>,
    changes: Receiver<Change>,
    heard: Receiver<Heard>,
    _listener: Listener,
    greeted: bool,
}

impl Told {
    /// The next event; `None`: the stream is over.
    async fn next(&mut self) -> Option<Event> {
        if !self.greeted {
            self.greeted = true;
            return Some(Event::default().event("hello").data(self.role.as_str()).retry(Duration::from_secs(3)));
        }
        loop {
            let mut topics = BTreeSet::new();
            let app = Arc::clone(&self.app);
            tokio::select! {
                () = app.stopping.cancelled() => return None,
                () = app.host.clock().sleep(ALIVE) => {}
                () = app.activity.listeners.signed_out.notified() => {}
                change = self.changes.recv() => self.changed(caught(change)?, &mut topics),
                heard = self.heard.recv() => self.happened(caught(heard)?.as_ref(), &mut topics),
            }
            app.host.clock().sleep(TOGETHER).await;
            while let Ok(change) = self.changes.try_recv() {
                self.changed(Some(change), &mut topics);
            }
            while let Ok(heard) = self.heard.try_recv() {
                self.happened(Some(&heard), &mut topics);
            }
            if !self.is_signed_in() {
                return None;
            }
            if !topics.is_empty() {
                let topics: Vec<&str> = topics.into_iter().collect();
                return Some(Event::default().event("changed").data(topics.join(" ")));
            }
        }
    }

    fn changed(&mut self, change: Option<Change>, topics: &mut BTreeSet<&'static str>) {
        match &mut self.own {
            Some(own) => {
                let shown = Own::shown(&self.app, &own.user);
                if shown != own.shown {
                    own.shown = shown;
                    topics.insert("connections");
                }
            }
            None => match change {
                Some(Change::Vault) => drop(topics.insert("connections")),
                Some(Change::Policy) => drop(topics.insert("policy")),
                Some(Change::Skills) => drop(topics.insert("skills")),
                None => topics.extend(["connections", "policy", "skills"]),
            },
        }
    }

    fn happened(&self, heard: Option<&Heard>, topics: &mut BTreeSet<&'static str>) {
        let theirs = |own: &Own| heard.is_none_or(|heard| heard.users.contains(&own.tag));
        match &self.own {
            Some(own) if theirs(own) => drop(topics.insert("calls")),
            Some(_) => {}
            None => drop(topics.insert("activity")),
        }
    }

    fn is_signed_in(&self) -> bool {
        let known = BrowserSession::of(&self.app, &self.headers).ok().flatten();
        known.is_some_and(|session| session.role.as_ref() == Some(&self.role))
    }
}

/// What was received. The inner `None`: so much that it was lost, and everything counts as changed. The outer one: nothing will
/// come any more.
#[expect(clippy::option_option, reason = "the end, a loss, a value")]
fn caught<T>(received: Result<T, RecvError>) -> Option<Option<T>> {
    match received {
        Ok(value) => Some(Some(value)),
        Err(RecvError::Lagged(_)) => Some(None),
        Err(RecvError::Closed) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sign_in_has_so_many_listening_pages_and_no_more() {
        let listening = Listeners::default();
        let mut open: Vec<_> = (0..MOST).map(|_| listening.begin("bs_1").unwrap()).collect();
        assert!(listening.begin("bs_1").is_none());
        assert!(listening.begin("bs_2").is_some(), "another one has its own");
        open.pop();
        assert!(listening.begin("bs_1").is_some());
        drop(open);
        assert!(listening.by_session.lock().unwrap().is_empty(), "nothing is kept of those who have gone");
    }
}
