//! The HTTP API, for programs. Its wire types are its own: what the library's types look like is not promised to anyone.
//!
//! Each handler describes itself, and the OpenAPI document ([`document`]) is made of these descriptions: what is served and
//! what is described can't drift apart.

mod answer;
mod audit;
mod body;
mod calls;
mod connect_sessions;
mod connections;
mod document;
mod grants;
mod invocations;
mod key;
mod page;
mod prefer;
mod skills;
mod users;

use axum::Router;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::serve::Shared;

pub(crate) use calls::Calls;

/// The largest request body, in bytes.
const MAX_BODY: usize = 8 << 20;

/// The routes of the API.
pub(crate) fn router() -> Router<Shared> {
    let (router, _) = described().split_for_parts();
    router.layer(axum::extract::DefaultBodyLimit::max(MAX_BODY))
}

fn described() -> OpenApiRouter<Shared> {
    OpenApiRouter::with_openapi(document::outline())
        .routes(routes!(skills::list))
        .routes(routes!(skills::show))
        .routes(routes!(grants::effective))
        .routes(routes!(invocations::list, invocations::create))
        .routes(routes!(invocations::show))
        .routes(routes!(invocations::cancel))
        .routes(routes!(connect_sessions::create))
        .routes(routes!(connect_sessions::show))
        .routes(routes!(connect_sessions::confirm))
        .routes(routes!(connect_sessions::decline))
        .routes(routes!(connections::list))
        .routes(routes!(connections::show, connections::disconnect))
        .routes(routes!(users::list))
        .routes(routes!(grants::list))
        .routes(routes!(audit::list))
        .routes(routes!(document::show))
}
