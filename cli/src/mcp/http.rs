//! The protocol at `/mcp`, by streamable HTTP.
//!
//! ```text
//! guard (Host, Origin) → admit (who calls, and whose session) → rmcp → Server
//! ```
//!
//! Clients of the newest revision send requests that stand alone. Older ones have a session; it belongs to the caller who began
//! it, and nobody else can send to it, read from it or end it.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRequestParts as _, Request, State};
use axum::http::header;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use clawcoil::id::Caller;
use rmcp::transport::streamable_http_server::session::local::{LocalSessionManager, SessionConfig};
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tokio_util::sync::CancellationToken;

use super::metadata;
use super::server::{Callers, Server};
use super::sessions::Book;
use crate::callers::{Refused, Scope};
use crate::serve::{Bearer, Kind, Problem, Shared};

/// Where it is served.
pub(super) const PATH: &str = "/mcp";

/// The largest request body, in bytes.
const MAX_BODY: usize = 8 << 20;
/// How long a session lives without a request; one that waits for a person makes none.
const IDLE: Duration = Duration::from_mins(30);

/// In which header a client of an older revision names its session.
const SESSION: &str = "mcp-session-id";

/// Who sends a request, once it is known.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    pub(super) caller: Caller,
    /// It may ask for connections, too.
    pub(super) may_connect: bool,
}

/// The routes of the protocol, and of what tells clients how to get in.
pub(crate) fn router(app: &Shared) -> Router<Shared> {
    let mut manager = LocalSessionManager::default();
    let mut idle = SessionConfig::default();
    idle.keep_alive = Some(IDLE);
    manager.session_config = idle;
    let book = Arc::new(Book::new(manager));

    let server = Server::new(Arc::clone(app), Callers::Senders);
    let streams = CancellationToken::new();
    tokio::spawn(end_streams(Arc::clone(app), streams.clone()));
    let config = StreamableHttpServerConfig::default()
        // The guard has checked both, for all that is served.
        .with_allowed_hosts(Vec::<String>::new())
        .with_json_response(true)
        .with_max_request_body_bytes(MAX_BODY)
        .with_cancellation_token(streams);
    let service = StreamableHttpService::new(move || Ok(server.for_another()), Arc::clone(&book), config);
    let gate = Gate { app: Arc::clone(app), book };
    Router::new().route_service(PATH, service).route_layer(from_fn_with_state(gate, admit)).merge(metadata::router())
}

/// Lets the calls under way end before it ends the streams that would never end by themselves.
async fn end_streams(app: Shared, streams: CancellationToken) {
    app.stopping.cancelled().await;
    tokio::select! {
        () = app.interrupting.cancelled() => {}
        () = app.under_way.idle() => {}
    }
    // What was interrupted says so, before its stream ends.
    app.under_way.idle().await;
    streams.cancel();
}

#[derive(Clone)]
struct Gate {
    app: Shared,
    book: Arc<Book>,
}

async fn admit(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let sender = match sender(&mut parts, &gate.app).await {
        Ok(sender) => sender,
        Err(problem) => return problem.into_response(),
    };
    let caller = sender.caller.clone();
    let named = parts.headers.get(SESSION).and_then(|value| value.to_str().ok());
    if named.is_some_and(|session| !gate.book.is_of(session, &caller)) {
        return Problem::new(Kind::NotFound, "this caller has no such session: begin a new one").into_response();
    }
    parts.extensions.insert(sender);
    Book::sent_by(caller, next.run(Request::from_parts(parts, body))).await
}

/// Who sends this, or what it lacks: where to get a credential, and all scopes at once.
async fn sender(parts: &mut axum::http::request::Parts, app: &Shared) -> Result<Sender, Problem> {
    let metadata = app.origins.url(&metadata::path_of(PATH));
    let challenge = |error: &str| {
        format!("Bearer {error}resource_metadata=\"{metadata}\", scope=\"{} {}\"", Scope::Invoke, Scope::Connect)
    };
    let shown = parts.headers.contains_key(header::AUTHORIZATION);
    let bearer = Bearer::from_request_parts(parts, app).await.map_err(|problem| match problem.kind() {
        Kind::Unauthenticated => {
            let error = if shown { "error=\"invalid_token\", " } else { "" };
            problem.with_header(header::WWW_AUTHENTICATE, &challenge(error))
        }
        _ => problem,
    })?;
    if let Err(refused @ Refused::Scope(_)) = bearer.authenticated().require(Scope::Invoke) {
        let header = challenge("error=\"insufficient_scope\", ");
        return Err(Problem::from(refused).with_header(header::WWW_AUTHENTICATE, &header));
    }
    let caller = bearer.caller(Scope::Invoke)?;
    let may_connect = bearer.authenticated().require(Scope::Connect).is_ok();
    Ok(Sender { caller, may_connect })
}
