//! What one call did: its receipt, and every entry of it.

use std::collections::BTreeSet;

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use clawcoil::audit::{self, Entry, MOST_FOR_A_CALL, OfCall};
use clawcoil::clock::Timestamp;
use clawcoil::id::{InvocationId, UserId};
use serde::Deserialize;

use super::{Row, reading, unreadable};
use crate::console::browser::Visitor;
use crate::console::moment::{Moment, took};
use crate::console::page::{self, Page, Place};
use crate::console::trouble::Trouble;
use crate::console::words::shown;
use crate::serve::{App, Kind, Problem, Shared};

/// What the call's entries come to.
struct Receipt {
    id: String,
    skill: Option<String>,
    tool: Option<String>,
    client: Option<String>,
    ended: Option<String>,
    tone: &'static str,
    at: Option<Moment>,
    took: Option<String>,
    skill_digest: Option<String>,
    policy: Option<String>,
    origins: BTreeSet<String>,
    /// The connections, and which generation of each.
    credentials: BTreeSet<(String, u64)>,
    revealed: bool,
    /// The chain, the entry's number and its hash.
    position: Option<(String, u64, String)>,
}

impl Receipt {
    fn of(id: InvocationId, entries: &[Entry]) -> Self {
        let ended = entries.iter().rev().find(|entry| entry.kind == "invoked");
        let any = ended.or_else(|| entries.first());
        let member = |name: &str| -> Option<String> {
            let whole: serde_json::Value = serde_json::from_str(&any?.json).ok()?;
            whole.get(name).and_then(serde_json::Value::as_str).map(shown)
        };
        let released = || entries.iter().filter(|entry| matches!(entry.kind.as_str(), "released" | "revealed"));
        let requested = entries.iter().filter(|entry| matches!(entry.kind.as_str(), "released" | "requested"));
        Self {
            id: id.to_string(),
            skill: any.and_then(|entry| entry.skill.clone()),
            tool: any.and_then(|entry| entry.tool.as_deref()).map(shown),
            client: any.and_then(|entry| entry.client.clone()),
            ended: ended.and_then(|entry| entry.decision.as_deref()).map(|decision| {
                match decision {
                    "allowed" => "Succeeded",
                    "denied" => "Refused",
                    _ => "Failed",
                }
                .to_owned()
            }),
            tone: match ended.and_then(|entry| entry.decision.as_deref()) {
                Some("allowed") => "good",
                Some("denied") => "warn",
                _ => "bad",
            },
            at: any.map(|entry| Moment::at(entry.time)),
            took: ended.and_then(|entry| entry.took_ms).map(took),
            skill_digest: member("skill_digest"),
            policy: member("policy"),
            origins: requested.filter_map(|entry| entry.origin.as_deref()).map(shown).collect(),
            credentials: released().filter_map(|entry| Some((entry.connection.clone()?, entry.generation?))).collect(),
            revealed: entries.iter().any(|entry| entry.kind == "revealed"),
            position: ended.map(|entry| (shown(&entry.chain), entry.seq, member("hash").unwrap_or_default())),
        }
    }
}

#[derive(Template)]
#[template(path = "call.html")]
struct Call {
    page: Page,
    receipt: Receipt,
    rows: Vec<Row>,
    /// Whose page it is: one of the staff's has links to what is about everybody.
    is_staff: bool,
    /// The log was not read as far as the call may go.
    is_cut: bool,
    most: String,
}

/// From where in the log a call is looked for: the time of one of its entries. Without it, from its end.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in super::super) struct Near {
    at: String,
}

/// A call, for the staff.
pub(in super::super) async fn show(
    State(app): State<Shared>,
    visitor: Visitor,
    Path(id): Path<String>,
    Query(near): Query<Near>,
) -> Result<Response, Trouble> {
    found(&app, &visitor, &id, None, &near).await
}

/// A call, for the user for whom it was made.
pub(in super::super) async fn own(
    State(app): State<Shared>,
    visitor: Visitor,
    Path(id): Path<String>,
    Query(near): Query<Near>,
) -> Result<Response, Trouble> {
    let user = visitor.role.user().cloned().ok_or_else(none)?;
    found(&app, &visitor, &id, Some(user), &near).await
}

async fn found(app: &App, visitor: &Visitor, id: &str, user: Option<UserId>, near: &Near) -> Result<Response, Trouble> {
    let id: InvocationId = id.parse().map_err(|_| none())?;
    let is_staff = user.is_none();
    // What is no time doesn't restrict.
    let at: Option<Timestamp> = near.at.parse().ok();
    let read = reading(app, move |folder, key| audit::of_call(folder, key, id, user.as_ref(), at)).await?;
    let OfCall { entries, is_cut, .. } = read.map_err(|error| unreadable(&error))?;
    if entries.is_empty() {
        return Err(if is_cut { none_in_reach(is_staff) } else { none() }.into());
    }
    let receipt = Receipt::of(id, &entries);
    let title = match (&receipt.skill, &receipt.tool) {
        (Some(skill), Some(tool)) => format!("{skill}.{tool}"),
        _ => "A call".to_owned(),
    };
    let place = if is_staff { Place::Audit } else { Place::Calls };
    let rows = entries.into_iter().map(Row::from).collect();
    let call = Call { page: Page::of(title, visitor, place), receipt, rows, is_staff, is_cut, most: most() };
    Ok(page::render(StatusCode::OK, &call))
}

fn none() -> Problem {
    Problem::new(Kind::NotFound, "The log tells of no such call.")
}

/// Of a log that was not read to its beginning.
fn none_in_reach(is_staff: bool) -> Problem {
    let (most, list) = (most(), if is_staff { "the list of the audit log" } else { "the list of your calls" });
    Problem::new(
        Kind::NotFound,
        format!(
            "{most} of the log were looked through, and none of it tells of such a call. If it was long ago, open it from {list}."
        ),
    )
}

/// As much of the log as is read for a call, in words.
fn most() -> String {
    format!("{} MiB", MOST_FOR_A_CALL >> 20)
}
