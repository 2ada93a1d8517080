//! The first page.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use clawcoil::id::Owner;

use super::browser::{Role, Visitor};
use super::page::{self, Page, Place};
use super::trouble::Trouble;
use crate::connecting::Session;
use crate::serve::Shared;

#[derive(Template)]
#[template(path = "home.html")]
struct Home {
    page: Page,
    /// Who is asked to connect something.
    waiting: Vec<Session>,
    is_user: bool,
}

/// What waits for whoever is signed in.
pub(super) async fn show(State(app): State<Shared>, visitor: Visitor) -> Result<Response, Trouble> {
    let waiting = match &visitor.role {
        Role::User(user) => app.sessions.open(&app, &Owner::User(user.clone()))?,
        Role::Operator | Role::Auditor => Vec::new(),
    };
    let is_user = visitor.role.user().is_some();
    let title = if is_user { "My accounts" } else { "Overview" };
    let page = Page::of(title, &visitor, Place::Home);
    Ok(page::render(StatusCode::OK, &Home { page, waiting, is_user }))
}
