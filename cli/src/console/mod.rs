//! Pages for people: signing in, connecting an account, and the operator's views.
//!
//! Pages are rendered here, from `cli/templates`, and work without scripts. Each answer carries a policy that lets a browser
//! run, load and send nothing that is not from here, and each form a value that another site can't know.
//!
//! A handler takes [`Visitor`] for somebody who is signed in, [`Form`] for what a form brings, and answers with
//! [`Page::render`]; what goes wrong is a [`Trouble`], which becomes a page as well.

mod assets;
mod browser;
mod connect;
mod form;
mod home;
mod link;
mod oidc;
mod page;
mod sign_in;
mod trouble;
mod words;

use std::sync::Arc;

use axum::Router;
use axum::middleware;
use axum::routing::{get, post};

use crate::serve::Shared;

pub(crate) use browser::{BrowserSession, Role};
pub(crate) use link::{Link, Links};
pub(crate) use oidc::{CALLBACK, keep_client_secret};

pub(crate) use trouble::Trouble;

/// The largest form, in bytes.
const MAX_FORM: usize = 64 << 10;

/// The routes for browsers.
pub(crate) fn router(app: &Shared) -> Router<Shared> {
    Router::new()
        .route("/", get(home::show))
        .route("/sign-in", get(sign_in::show))
        .route("/sign-in/provider", get(oidc::begin))
        .route(oidc::CALLBACK, get(oidc::callback))
        .route("/sign-in/link/{secret}", get(sign_in::offer).post(sign_in::accept))
        .route("/sign-out", post(sign_in::sign_out))
        .route("/connect/{session}", get(connect::show))
        .route("/connect/{session}/continue", post(connect::go_on))
        .route("/connect/{session}/confirm", post(connect::confirm))
        .route("/connect/{session}/decline", post(connect::decline))
        .route("/callback/{provider}", get(connect::callback))
        .layer(axum::extract::DefaultBodyLimit::max(MAX_FORM))
        .layer(middleware::from_fn_with_state(Arc::clone(app), page::protect))
        .route("/static/{digest}/{name}", get(assets::serve))
}
