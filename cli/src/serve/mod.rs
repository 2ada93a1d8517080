//! `clawcoil serve`: the host for programs and browsers, over HTTP.
//!
//! ```text
//! connection → guard (Host, Origin, size) → route → Bearer (who calls) → handler → Host
//! ```
//!
//! Each surface is a router of its own over one [`App`]: the API ([`crate::api`]) is for programs. Nothing is anonymous but
//! health, and what a browser needs to sign in.

mod auth;
pub(crate) mod config;
mod guard;
mod listen;
mod problem;
mod rates;
mod watch;

use std::sync::Arc;

use axum::Router;
use axum::middleware;
use clawcoil::host::Host;

use crate::callers::Keys;

pub(crate) use auth::Bearer;
pub(crate) use config::Config;
pub(crate) use guard::Origins;
pub(crate) use listen::{Listening, Place};
pub(crate) use problem::{Kind, Problem};
pub(crate) use rates::Rates;
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
    /// How often callers may ask.
    pub(crate) rates: Rates,
    /// Tells what has changed.
    pub(crate) changes: Changes,
    /// Connect sessions.
    pub(crate) sessions: crate::connecting::Sessions,
}

/// What handlers get as their state.
pub(crate) type Shared = Arc<App>;

/// Everything that is served.
pub(crate) fn router(app: Shared) -> Router {
    Router::new()
        .merge(crate::api::router())
        .merge(crate::console::router(&app))
        .fallback(async || Problem::new(Kind::NotFound, "nothing is served at this address"))
        .method_not_allowed_fallback(async || {
            Problem::new(Kind::MethodNotAllowed, "this resource doesn't know the method")
        })
        .layer(middleware::from_fn_with_state(Arc::clone(&app), guard::check))
        .with_state(app)
}
