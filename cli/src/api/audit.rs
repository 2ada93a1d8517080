//! The audit log, for operators.

use axum::Json;
use axum::extract::State;
use clawcoil::audit::{self, Filter, Mark};
use clawcoil::clock::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::body::{Query, filtered};
use super::page::{Page, no_cursor};
use crate::callers::Scope;
use crate::serve::{Bearer, Kind, Problem, Shared};

/// Which entries are asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Which {
    /// Only of this kind.
    #[param(example = "released")]
    kind: Option<String>,
    /// Only what was decided, or ended, so: `allowed`, `denied`, `failed`.
    #[param(example = "denied")]
    decision: Option<String>,
    /// Only about this user.
    #[param(example = "alice")]
    user: Option<String>,
    /// Only of calls by this program.
    #[param(example = "mail-agent")]
    client: Option<String>,
    /// Only of calls with this credential.
    #[param(example = "tok_4fQx0cL2mVza")]
    credential: Option<String>,
    /// Only about this skill.
    #[param(example = "gmail-send")]
    skill: Option<String>,
    /// Only about this service of a skill.
    #[param(example = "gmail")]
    service: Option<String>,
    /// Only about this provider.
    #[param(example = "google")]
    provider: Option<String>,
    /// Only about this connection.
    #[param(example = "con_0123456789abcdef0123456789abcdef")]
    connection: Option<String>,
    /// Only of this call.
    #[param(example = "inv_0123456789abcdef0123456789abcdef")]
    invocation: Option<String>,
    /// Only the decisions behind this refusal.
    #[param(example = "why_0123456789abcdef0123456789abcdef")]
    explanation: Option<String>,
    /// Only from then on.
    #[param(format = DateTime, example = "2026-11-24T00:00:00Z")]
    since: Option<String>,
    /// Only before then.
    #[param(format = DateTime, example = "2026-11-25T00:00:00Z")]
    until: Option<String>,
    /// Also that processes opened the log.
    #[serde(default)]
    all: bool,
    /// How many entries at most: 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<usize>,
    /// Where the page begins: `next_cursor` of the page before.
    #[param(max_length = 1024)]
    cursor: Option<String>,
}

/// A page of the audit log.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditEntries {
    /// The latest first.
    #[schema(value_type = Vec<AuditEntry>)]
    entries: Vec<Value>,
    /// The `cursor` of the next page, if there is one.
    next_cursor: Option<String>,
}

/// An entry of the audit log, as it stands there, with the file in which it does.
///
/// What an entry has no word for is absent. A user is named by a tag, which only who has the vault can tell.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it only describes `Entry::exported`")]
struct AuditEntry {
    /// The chain of entries that it is part of.
    file: String,
    /// Its number in the chain.
    seq: u64,
    #[schema(format = DateTime)]
    time: String,
    /// The clock was set back, then or before: the latest time of the entries before this one.
    #[schema(format = DateTime)]
    after: Option<String>,
    /// What happened.
    #[schema(example = "released")]
    kind: String,
    /// How it was decided, or how it ended.
    #[schema(example = "allowed")]
    decision: Option<String>,
    invocation: Option<String>,
    client: Option<String>,
    credential: Option<String>,
    user: Option<String>,
    skill: Option<String>,
    /// Which version of the skill.
    skill_digest: Option<String>,
    tool: Option<String>,
    service: Option<String>,
    provider: Option<String>,
    connection: Option<String>,
    scopes: Option<Vec<String>>,
    origin: Option<String>,
    method: Option<String>,
    /// The line of the permissions that decided.
    rule: Option<String>,
    /// The permissions that were in force.
    policy: Option<String>,
    /// Which of the connection's tokens.
    generation: Option<u64>,
    /// Which change of tokens.
    change: Option<String>,
    /// How long the call took, in milliseconds.
    took_ms: Option<u64>,
    explanation: Option<String>,
    detail: Option<String>,
    /// How many changes the vault had seen, where the log was told.
    epoch: Option<u64>,
    /// Of an entry `opened`: the version of the log's format.
    format: Option<u64>,
    /// Of an entry `opened`: the chain itself.
    chain: Option<String>,
    /// Of an entry `opened`: the agent whose log it is.
    agent: Option<String>,
    /// Of an entry `opened`: where the other chains ended then.
    #[schema(value_type = Option<Vec<Object>>)]
    heads: Option<Vec<Value>>,
    /// The hash of the entry before.
    prev: String,
    hash: String,
    /// Only who has the vault can make it.
    mac: String,
}

impl Which {
    fn filter(&self) -> Result<Filter, Problem> {
        Ok(Filter {
            user: filtered("user", self.user.as_deref())?,
            client: filtered("client", self.client.as_deref())?,
            credential: filtered("credential", self.credential.as_deref())?,
            skill: filtered("skill", self.skill.as_deref())?,
            service: filtered("service", self.service.as_deref())?,
            provider: filtered("provider", self.provider.as_deref())?,
            kind: filtered("kind", self.kind.as_deref())?,
            decision: filtered("decision", self.decision.as_deref())?,
            invocation: filtered("invocation", self.invocation.as_deref())?,
            connection: filtered("connection", self.connection.as_deref())?,
            explanation: filtered("explanation", self.explanation.as_deref())?,
            since: moment("since", self.since.as_deref())?,
            until: moment("until", self.until.as_deref())?,
            without_opened: !self.all,
        })
    }
}

fn moment(name: &str, text: Option<&str>) -> Result<Option<Timestamp>, Problem> {
    let help = format!("after the ?: {name}: write it as 2027-06-30T12:00:00Z");
    filtered(name, text).map_err(|_| Problem::new(Kind::BadRequest, help))
}

/// The audit log
///
/// The entries of all processes of this agent, the latest first. `clawcoil audit verify` says whether the log is whole.
#[utoipa::path(get, path = "/v1/audit", tag = "audit", operation_id = "listAuditEntries", params(Which),
    security(("bearer" = ["admin"])), responses((status = 200, description = "A page of entries", body = AuditEntries)))]
pub(crate) async fn list(
    State(app): State<Shared>,
    bearer: Bearer,
    Query(which): Query<Which>,
) -> Result<Json<AuditEntries>, Problem> {
    bearer.authenticated().require(Scope::Admin)?;
    let page = Page::read("audit", which.limit, which.cursor.as_deref())?;
    let filter = which.filter()?;
    let before = page.after.as_deref().map(|mark| Mark::parse(mark).ok_or_else(no_cursor)).transpose()?;
    let (folder, key, limit) = (app.host.home().audit(), app.host.vault().audit_key(), page.limit);
    let read = move || audit::page(&folder, &key, &filter, before.as_ref(), limit);
    let read = tokio::task::spawn_blocking(read).await.map_err(|error| Problem::internal(&error))?;
    let (entries, last) = read.map_err(|error| {
        tracing::error!(%error, "the audit log can't be read");
        Problem::new(Kind::Unavailable, "the audit log can't be read; its operator finds the reason in the log")
    })?;
    let next_cursor = last.map(|mark| page.cursor(&mark.to_string()));
    let entries = entries.iter().filter_map(|entry| serde_json::from_str(&entry.exported()).ok()).collect();
    Ok(Json(AuditEntries { entries, next_cursor }))
}
