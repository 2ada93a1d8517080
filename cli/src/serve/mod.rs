//! `clawcoil serve`: the host for programs and browsers, over HTTP.
//!
//! ```text
//! connection (bounds) → route → id → figures → guard (Host, Origin) → stop → Bearer (who calls) → handler → Host
//! ```
//!
//! Each surface is a router of its own over one [`App`]: the API ([`crate::api`]) is for programs, MCP ([`crate::mcp`]) for agents. Nothing is anonymous but
//! health, and what a browser needs to sign in.

mod access;
mod around;
mod auth;
pub(crate) mod config;
mod guard;
mod health;
mod listen;
mod metrics;
mod patience;
mod problem;
mod rates;
mod request_id;
mod seats;
mod stop;
mod traces;
mod watch;

use std::sync::Arc;

use axum::Router;
use clawcoil::host::Host;
use tokio_util::sync::CancellationToken;

use crate::api::Calls;
use crate::callers::{Keys, Shown};
use crate::connecting::{Proofs, Sessions};
use crate::console::Activity;

pub(crate) use access::{OFF as ACCESS_OFF, ON as ACCESS_ON};
pub(crate) use auth::{Anybody, Bearer, USER};
pub(crate) use config::Config;
pub(crate) use guard::Origins;
pub(crate) use listen::{Listening, Peer, Place};
pub(crate) use metrics::{Counting, Metrics};
pub(crate) use problem::{Kind, Problem, denial_for_callers};
pub(crate) use rates::Rates;
pub(crate) use request_id::{Origin as RequestOrigin, RequestId};
pub(crate) use stop::{UnderWay, Working};
pub(crate) use traces::{Traces, of_mcp};
pub(crate) use watch::{Change, Changes};

/// What all handlers share.
pub(crate) struct App {
    pub(crate) host: Arc<Host>,
    /// How browsers and clients reach this host.
    pub(crate) origins: Origins,
    /// What the operator said of serving.
    pub(crate) config: Config,
    /// The keys of identity providers.
    pub(crate) keys: Keys,
    /// Who showed which token lately.
    pub(crate) shown: Shown,
    /// How often callers may ask.
    pub(crate) rates: Rates,
    /// Tells what has changed.
    pub(crate) changes: Changes,
    /// Connect sessions.
    pub(crate) sessions: Sessions,
    /// Calls that outlive their requests.
    pub(crate) calls: Calls,
    /// What happened lately, for the console.
    pub(crate) activity: Activity,
    /// Cancelled when the server begins to stop: streams that would never end by themselves end then, and no call begins.
    pub(crate) stopping: CancellationToken,
    /// Cancelled when the time to finish is over: calls that are still running end then.
    pub(crate) interrupting: CancellationToken,
    /// What a server that stops waits for.
    pub(crate) under_way: UnderWay,
    /// What was found when somebody last asked whether all is well.
    health: health::Health,
    /// Whether there is a line for each request.
    access: access::AccessLog,
    /// What is counted; absent where nobody is served it.
    metrics: Option<Metrics>,
    counters: metrics::Counters,
}

impl App {
    /// Over an open host, as the operator's settings say.
    pub(crate) fn new(host: Arc<Host>, origins: Origins, config: Config) -> Self {
        let proofs = Proofs {
            local: origins.is_loopback(),
            sign_in: config.console.is_some(),
            return_urls: config.return_urls.clone(),
        };
        Self {
            host,
            origins,
            rates: Rates::new(config.limits),
            config,
            keys: Keys::default(),
            shown: Shown::default(),
            changes: Changes::new(),
            sessions: Sessions::new(proofs),
            calls: Calls::new(),
            activity: Activity::default(),
            stopping: CancellationToken::new(),
            interrupting: CancellationToken::new(),
            under_way: UnderWay::new(),
            health: health::Health::default(),
            access: access::AccessLog::new(),
            metrics: None,
            counters: metrics::Counters::default(),
        }
    }

    /// The same, with figures at `/metrics`.
    pub(crate) fn with_metrics(self, metrics: Metrics) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    /// Keeps what is counted small, until it is dropped.
    pub(crate) async fn keep_metrics(&self) {
        match &self.metrics {
            Some(metrics) => metrics.upkeep(self.host.clock().as_ref()).await,
            None => std::future::pending().await,
        }
    }
}

/// What handlers get as their state.
pub(crate) type Shared = Arc<App>;

/// Everything that is served.
pub(crate) fn router(app: Shared) -> Router {
    let routes =
        Router::new().merge(crate::api::router()).merge(crate::console::router(&app)).merge(crate::mcp::router(&app));
    guarded(app, routes)
}

/// The pages alone, for the person at a program that listens nowhere else.
pub(crate) fn pages(app: Shared) -> Router {
    let routes = crate::console::router(&app);
    guarded(app, routes)
}

fn guarded(app: Shared, routes: Router<Shared>) -> Router {
    routes
        .fallback(async || Problem::new(Kind::NotFound, "nothing is served at this address"))
        .method_not_allowed_fallback(async || {
            Problem::new(Kind::MethodNotAllowed, "this resource doesn't know the method")
        })
        .merge(health::router())
        .merge(metrics::router())
        .layer(around::Around(Arc::clone(&app)))
        .with_state(app)
}
