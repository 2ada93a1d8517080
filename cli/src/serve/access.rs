//! The access log: one line for each request, for operators who want to see who asks for what and how it ends.
//!
//! It is off unless it is asked for (`serve --access-log`, or a filter that lets its target through), as what matters is in the audit
//! log and in the figures, and costs a look at a flag then. A line has the method, the route as it is written in the API's description,
//! the status, the time until the head of the answer, the name of the program, and the id of the request. It never has what a client
//! wrote into an address, neither the parts of its path nor its query, and no user.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::Request;
use axum::http::StatusCode;
use clawcoil::id::ClientName;
use tracing::Level;

use super::RequestId;

/// The target of its lines, as filters name it.
macro_rules! target {
    () => {
        "clawcoil::access"
    };
}

/// What lets its lines through.
pub(crate) const ON: &str = concat!(target!(), "=info");
/// What keeps them back where all else of this program is let through.
pub(crate) const OFF: &str = concat!(target!(), "=off");

/// Whether there is an access log, which is settled when a server begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct AccessLog {
    is_read: bool,
}

/// A line that is written when the request has its answer.
pub(super) struct Line(Asker);

/// Which program asks, as soon as its credential is known.
#[derive(Debug, Clone, Default)]
pub(super) struct Asker(Arc<OnceLock<ClientName>>);

impl Asker {
    pub(super) fn is(&self, client: &ClientName) {
        // The first that is known is the one.
        let _ = self.0.set(client.clone());
    }
}

impl AccessLog {
    pub(super) fn new() -> Self {
        // Filters of single layers remember on the thread what they were asked last, and answer the next span of that thread with it
        // (tokio-rs/tracing#2519): who asks without writing loses a span. So it is asked on a thread that ends.
        let asked = std::thread::spawn(|| tracing::enabled!(target: target!(), Level::INFO));
        Self { is_read: asked.join().unwrap_or_default() }
    }

    /// The line of this request, if anybody reads it.
    pub(super) fn line(self, request: &mut Request) -> Option<Line> {
        if !self.is_read {
            return None;
        }
        let asker = Asker::default();
        request.extensions_mut().insert(asker.clone());
        Some(Line(asker))
    }
}

impl Line {
    /// The request has its answer.
    pub(super) fn end(self, method: &str, route: &str, status: StatusCode, took: Duration) {
        let id = RequestId::current();
        tracing::info!(
            target: target!(),
            parent: None,
            method,
            route,
            status = status.as_u16(),
            ms = (took.as_secs_f64() * 1e6).round() / 1e3,
            client = self.0.0.get().map(ClientName::as_str),
            request_id = id.as_ref().map(RequestId::as_str),
            "request"
        );
    }
}
