//! Whether the log is what was written.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use clawcoil::audit::{self, Summary, VerifyError};

use super::reading;
use crate::console::browser::Visitor;
use crate::console::moment::Moment;
use crate::console::page::{self, Page, Place};
use crate::console::trouble::Trouble;
use crate::serve::Shared;

#[derive(Template)]
#[template(path = "verify.html")]
struct Checked {
    page: Page,
    at: Moment,
    whole: Option<Summary>,
    /// What is wrong, and where.
    bad: Option<String>,
}

/// Checks all of it, now.
pub(in super::super) async fn verify(State(app): State<Shared>, visitor: Visitor) -> Result<Response, Trouble> {
    let settings = app.host.home().audit_settings();
    let witnesses = settings.map(|settings| settings.witnesses());
    let at = Moment::at(app.host.clock().now());
    let (whole, bad) = match witnesses {
        Err(errors) => (None, Some(errors.to_string())),
        Ok(witnesses) => match reading(&app, move |folder, key| audit::verify_with(folder, key, &witnesses)).await? {
            Ok(summary) => (Some(summary), None),
            Err(error @ (VerifyError::Read { .. } | VerifyError::ReadCheckpoints { .. })) => {
                (None, Some(crate::exit::chain(&error)))
            }
            Err(error) => (None, Some(error.to_string())),
        },
    };
    let title = if whole.is_some() { "The log is whole" } else { "The log is not what was written" };
    let page = Page::of(title, &visitor, Place::Audit);
    Ok(page::render(StatusCode::OK, &Checked { page, at, whole, bad }))
}
