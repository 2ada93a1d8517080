//! How a server ends: nothing new is begun, what is under way finishes, and what does not finish in time is told.
//!
//! ```text
//! SIGTERM, Ctrl-C → stopping (not ready, no new calls) → idle, or the time to finish is over, or a second signal
//!                 → interrupting (guests end, callers get a 503) → answers are sent → the listener closes
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderValue, Method, header};
use axum::response::Response;
use tokio::sync::Notify;

use super::{App, Kind, Problem};

/// What begins work that a server which is about to end would not finish: method and route.
const BEGINS: [&str; 2] = ["/v1/invocations", "/v1/connect-sessions"];

/// How long handlers that were interrupted have to say so.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Counts what is under way: requests that do something, and calls that outlive their request. Clones share the count.
#[derive(Debug, Clone, Default)]
pub(crate) struct UnderWay(Arc<Count>);

#[derive(Debug, Default)]
struct Count {
    now: AtomicUsize,
    none: Notify,
}

impl UnderWay {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Counts one until the value is dropped.
    pub(crate) fn begin(&self) -> Working {
        self.0.now.fetch_add(1, Ordering::SeqCst);
        Working(Arc::clone(&self.0))
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.now.load(Ordering::SeqCst)
    }

    /// Waits until there is none.
    pub(crate) async fn idle(&self) {
        loop {
            // What ends after this was made is noticed by it.
            let none = self.0.none.notified();
            if self.count() == 0 {
                return;
            }
            none.await;
        }
    }
}

/// Something that is under way.
#[derive(Debug)]
pub(crate) struct Working(Arc<Count>);

impl Drop for Working {
    fn drop(&mut self) {
        if self.0.now.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.none.notify_waiters();
        }
    }
}

impl App {
    /// The answer to a call that ends because the server does.
    pub(crate) fn ending() -> Problem {
        Problem::new(Kind::Unavailable, "the host is shutting down; what it was doing for this request was ended")
            .retry_after(Duration::from_secs(1))
    }

    /// Stops: lets what is under way finish within `drain`, or until `hurry` is ready, then ends the rest. When this returns,
    /// nothing is left but answers on their way.
    pub(crate) async fn stop(&self, drain: Duration, hurry: impl Future<Output = ()>) {
        self.stopping.cancel();
        tracing::info!(under_way = self.under_way.count(), "stopping: what is under way may finish");
        tokio::select! {
            () = self.under_way.idle() => {}
            () = tokio::time::sleep(drain) => {}
            () = hurry => {}
        }
        let left = self.under_way.count();
        if left > 0 {
            tracing::warn!(left, "ended what did not finish in time");
        }
        self.interrupting.cancel();
        self.calls.end(Duration::ZERO).await;
        let _ = tokio::time::timeout(LAST_WORDS, self.under_way.idle()).await;
    }
}

/// Lets a request in, unless it begins something while the server stops. The server waits for what comes back.
pub(super) fn admit(app: &App, request: &Request) -> Result<Option<Working>, Problem> {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let begins = *request.method() == Method::POST && BEGINS.contains(&route);
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    // Counted before it is looked whether the server stops: else it could stop between the two.
    let working = (!reads).then(|| app.under_way.begin());
    if begins && app.stopping.is_cancelled() {
        return Err(Problem::new(Kind::Unavailable, "the host is shutting down and begins nothing new")
            .retry_after(Duration::from_secs(1)));
    }
    Ok(working)
}

/// What comes of this; nothing where the time to finish is over before.
pub(super) async fn unless_interrupted<T>(app: &App, answering: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        answer = answering => Some(answer),
        () = app.interrupting.cancelled() => None,
    }
}

/// A client that keeps its connection learns with its answer that it may not for longer.
pub(super) fn part(app: &App, response: &mut Response) {
    if app.stopping.is_cancelled() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_idle_when_everything_that_was_begun_has_ended() {
        let under_way = UnderWay::new();
        under_way.idle().await;
        let (one, two) = (under_way.begin(), under_way.clone().begin());
        assert_eq!(under_way.count(), 2);
        let waiting = tokio::spawn({
            let under_way = under_way.clone();
            async move { under_way.idle().await }
        });
        drop(one);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(two);
        waiting.await.unwrap();
    }
}
