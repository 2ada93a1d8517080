//! The HTTP API, for programs. Its wire types are its own: what the library's types look like is not promised to anyone.

mod body;
mod connect_sessions;
mod invocations;
mod skills;

use axum::Router;
use axum::routing::{get, post};

use crate::serve::Shared;

/// The largest request body, in bytes.
const MAX_BODY: usize = 8 << 20;

/// The routes of the API.
pub(crate) fn router() -> Router<Shared> {
    Router::new()
        .route("/v1/skills", get(skills::list))
        .route("/v1/skills/{skill}", get(skills::show))
        .route("/v1/invocations", post(invocations::create))
        .route("/v1/connect-sessions", post(connect_sessions::create))
        .route("/v1/connect-sessions/{id}", get(connect_sessions::show))
        .route("/v1/connect-sessions/{id}/confirm", post(connect_sessions::confirm))
        .route("/v1/connect-sessions/{id}/decline", post(connect_sessions::decline))
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY))
}
