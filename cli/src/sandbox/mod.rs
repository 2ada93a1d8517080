//! The sandbox: a small authorization server and small mail, issue, chat and record APIs, for the demo and for skill
//! developers. Never for real accounts.
//!
//! It listens on loopback only, its people are made up, and it forgets everything when it stops. It speaks the real
//! providers' paths and shapes, so that an operator only has to point a catalogue entry's origins at it.

mod apis;
mod authorize;
mod entries;
mod journal;
mod ledger;
mod message;
mod page;
mod token;
mod vendor;

use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{Form, Query, State};
use axum::http::HeaderMap;
use axum::routing::{delete, get, patch, post};
use axum::{Json, Router};
use clawcoil::clock::Clock;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) use entries::{ENTRIES, entry};
use journal::{Entry, Journal};
use ledger::Ledger;
use ledger::Person;
pub(crate) use page::escaped;
use vendor::Vendor;

/// What can be chosen about a sandbox.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The port on 127.0.0.1; 0: any that is free.
    pub(crate) port: u16,
    /// How long an access token is good.
    pub(crate) access_lifetime: Duration,
    /// The one client that is registered.
    pub(crate) client_id: String,
    /// Its secret. Not secret: it opens nothing but this sandbox.
    pub(crate) client_secret: String,
}

impl Default for Settings {
    /// Any free port, tokens for an hour, the client `sandbox` with the secret `sandbox-secret`.
    fn default() -> Self {
        Self {
            port: 0,
            access_lifetime: Duration::from_hours(1),
            client_id: "sandbox".to_owned(),
            client_secret: "sandbox-secret".to_owned(),
        }
    }
}

/// A sandbox that is being served. It stops when this is dropped.
pub(crate) struct Sandbox {
    inner: Shared,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<io::Result<()>>,
}

type Shared = Arc<Inner>;

struct Inner {
    settings: Settings,
    clock: Arc<dyn Clock>,
    /// Where the sandbox is: its issuer, and the origin of its APIs.
    origin: String,
    ledger: Mutex<Ledger>,
    journal: Mutex<Journal>,
    numbers: AtomicU64,
}

impl Inner {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    fn record(&self, api: &'static str, what: &str, person: Option<Person>, token: Option<String>, content: Value) {
        let entry = Entry {
            at: self.clock.now().to_string(),
            api,
            what: what.to_owned(),
            person: person.map(|person| person.email),
            token,
            content,
        };
        self.journal.lock().unwrap_or_else(PoisonError::into_inner).add(entry);
    }
}

impl Sandbox {
    /// Starts serving on 127.0.0.1.
    pub(crate) async fn start(settings: Settings, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, settings.port)).await?;
        let origin = format!("http://{}", listener.local_addr()?);
        let inner = Arc::new(Inner {
            ledger: Mutex::new(Ledger::new(settings.clone(), clock.clone())),
            settings,
            clock,
            origin,
            journal: Mutex::default(),
            numbers: AtomicU64::new(1),
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let app = router(inner.clone());
        let server = tokio::spawn(async move {
            let end = async {
                // An error says that the other end is gone, which means the same.
                let _ = stopped.await;
            };
            axum::serve(listener, app).with_graceful_shutdown(end).await
        });
        Ok(Self { inner, stop: Some(stop), server })
    }

    /// Scheme, host and port, no path.
    pub(crate) fn origin(&self) -> &str {
        &self.inner.origin
    }

    /// Stops it and waits until it has stopped.
    pub(crate) async fn stop(mut self) -> io::Result<()> {
        self.stop.take();
        self.server.await.map_err(io::Error::other)?
    }
}

fn router(shared: Shared) -> Router {
    let mut router = Router::new()
        .route("/", get(about))
        .route("/sandbox/style.css", get(page::style))
        .route("/sandbox/inbox", get(inbox))
        .route("/sandbox/log", get(log))
        .route("/gmail/v1/users/{user}/messages/send", post(apis::send_mail))
        .route("/gmail/v1/users/me/profile", get(apis::mail_profile))
        .route("/v1/userinfo", get(apis::user_info))
        .route("/oauth2/v3/userinfo", get(apis::user_info))
        .route("/services/oauth2/userinfo", get(apis::user_info))
        .route("/repos/{owner}/{repository}/issues", post(apis::create_issue))
        .route("/user", get(apis::github_user))
        .route("/api/chat.postMessage", post(apis::post_message))
        .route("/api/auth.test", get(apis::chat_identity).post(apis::chat_identity))
        .route("/services/data/{version}/sobjects/{object}/{id}", patch(apis::update_record));
    for paths in vendor::PATHS {
        let vendor = paths.vendor;
        router = router
            .route(
                paths.authorize,
                get(async move |State(shared), Query(asked)| authorize::show(vendor, &shared, &asked))
                    .post(authorize::decide),
            )
            .route(
                paths.token,
                post(async move |State(shared), headers: HeaderMap, Form(asked)| {
                    token::token(vendor, &shared, &headers, &asked)
                }),
            );
        router = match (vendor, paths.revoke) {
            (_, None) => router,
            (Vendor::GitHub, Some(path)) => router.route(path, delete(token::delete)),
            (Vendor::Slack, Some(path)) => router.route(path, get(apis::chat_revoke).post(apis::chat_revoke)),
            (_, Some(path)) => router.route(
                path,
                post(async move |State(shared), headers: HeaderMap, Form(asked)| {
                    token::revoke(vendor, &shared, &headers, &asked)
                }),
            ),
        };
        if let Some(path) = paths.introspect {
            router = router.route(path, post(token::introspect));
        }
    }
    router.with_state(shared)
}

async fn about() -> &'static str {
    "ClawCoil's sandbox: an authorization server and mail, issue, chat and record APIs, for the demo and for skill \
     developers. Nothing here is a real account.\n\n/sandbox/inbox  what arrived at the APIs\n/sandbox/log    everything\n"
}

/// What arrived at the APIs.
async fn inbox(State(shared): State<Shared>) -> Json<Value> {
    entries(&shared, |entry| entry.api != "authorization")
}

/// Everything, the authorization server's doings as well.
async fn log(State(shared): State<Shared>) -> Json<Value> {
    entries(&shared, |_| true)
}

fn entries(shared: &Shared, wanted: impl Fn(&Entry) -> bool) -> Json<Value> {
    let journal = shared.journal.lock().unwrap_or_else(PoisonError::into_inner);
    Json(json!({ "version": 1, "entries": journal.entries().filter(|entry| wanted(entry)).collect::<Vec<_>>() }))
}

#[cfg(test)]
mod tests;
