//! Pages of entries, the newest first.

use askama::Template;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use clawcoil::audit::{self, Filter, Mark};
use clawcoil::id::SkillName;
use serde::Deserialize;

use super::filter::Wanted;
use super::{Row, decisions, kinds, reading, unreadable};
use crate::console::browser::Visitor;
use crate::console::page::{self, Page, Place};
use crate::console::trouble::Trouble;
use crate::serve::{Kind, Problem, Shared};

/// Entries on one page.
const ON_A_PAGE: usize = 50;

#[derive(Template)]
#[template(path = "audit.html")]
struct List {
    page: Page,
    wanted: Wanted,
    kinds: Vec<(&'static str, String, bool)>,
    decisions: Vec<(&'static str, String, bool)>,
    skills: Vec<SkillName>,
    rows: Vec<Row>,
    /// The page of older entries.
    older: Option<String>,
    /// The newest page.
    newest: Option<String>,
    export: String,
    /// What of the question is none.
    wrong: Option<String>,
}

/// The entries that are asked for.
pub(in super::super) async fn list(
    State(app): State<Shared>,
    visitor: Visitor,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Trouble> {
    let (entries, wrong) = match wanted.filter(app.host.clock().now()) {
        Ok(filter) => {
            let before = Mark::parse(&wanted.before);
            (
                reading(&app, move |folder, key| audit::page(folder, key, &filter, before.as_ref(), ON_A_PAGE)).await?,
                None,
            )
        }
        Err(why) => (Ok((Vec::new(), None)), Some(why)),
    };
    let (entries, older) = entries.map_err(|error| unreadable(&error))?;
    let list = List {
        page: Page::of("Audit", &visitor, Place::Audit),
        kinds: kinds(&wanted.kind),
        decisions: decisions(&wanted.decision),
        skills: app.host.registry().names().map_err(Problem::from)?,
        rows: entries.into_iter().map(Row::from).collect(),
        older: older.map(|mark| format!("/audit?{}", wanted.query(&[("before", &mark.to_string())]))),
        newest: (!wanted.before.is_empty()).then(|| format!("/audit?{}", wanted.query(&[]))),
        export: format!("/audit/export?{}", wanted.query(&[])),
        wrong,
        wanted,
    };
    let status = if list.wrong.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    Ok(page::render(status, &list))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in super::super) struct From {
    before: String,
}

#[derive(Template)]
#[template(path = "calls.html")]
struct Own {
    page: Page,
    rows: Vec<Row>,
    older: Option<String>,
    newest: bool,
}

/// A user's own calls.
pub(in super::super) async fn own(
    State(app): State<Shared>,
    visitor: Visitor,
    Query(From { before }): Query<From>,
) -> Result<Response, Trouble> {
    let Some(user) = visitor.role.user().cloned() else {
        return Err(Problem::new(Kind::Forbidden, "these are the calls of users").into());
    };
    let filter = Filter { user: Some(user), kind: Some(audit::EventKind::Invoked), ..Filter::default() };
    let from = Mark::parse(&before);
    let read = reading(&app, move |folder, key| audit::page(folder, key, &filter, from.as_ref(), ON_A_PAGE)).await?;
    let (entries, older) = read.map_err(|error| unreadable(&error))?;
    let query = |mark: Mark| {
        url::form_urlencoded::Serializer::new("/calls?".to_owned()).append_pair("before", &mark.to_string()).finish()
    };
    let own = Own {
        page: Page::of("My calls", &visitor, Place::Calls),
        rows: entries.into_iter().map(Row::from).collect(),
        older: older.map(query),
        newest: !before.is_empty(),
    };
    Ok(page::render(StatusCode::OK, &own))
}
