//! Calls of skills: waited for, or begun and asked for later.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use clawcoil::id::{Caller, InvocationId, SkillName};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::answer::{InvocationBody, Summary};
use super::body::{Json as JsonBody, Path, Query, parsed};
use super::calls::{self, Begun, Calls, Came, NewCall, Record};
use super::key::{Key, REPLAYED};
use super::page::Page;
use super::prefer::Preferences;
use crate::callers::Scope;
use crate::serve::{App, Bearer, Kind, Problem, Shared};

/// The longest that a caller may give a call, in seconds.
const LONGEST: u32 = 86_400;

/// How a call is asked for.
pub(crate) struct Wishes {
    /// Whether the caller may call at all is said first.
    key: Result<Option<Key>, Problem>,
    preferred: Preferences,
}

impl<S: Sync> FromRequestParts<S> for Wishes {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self { key: Key::of(&parts.headers), preferred: Preferences::of(&parts.headers) })
    }
}

/// A call that is asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object with `skill`, `tool`, `input` and `timeout`")]
pub(crate) struct NewInvocation {
    #[schema(example = "gmail-send")]
    skill: String,
    /// May be left out where the skill has one tool.
    #[schema(example = "send")]
    tool: Option<String>,
    /// One member for each parameter.
    #[serde(default)]
    #[schema(value_type = Object)]
    input: Map<String, Value>,
    /// After so many seconds the skill is ended, if its own limit is not reached before.
    #[schema(minimum = 1, maximum = 86_400)]
    timeout: Option<u32>,
}

/// Which calls are asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Which {
    /// Only those that stand so.
    state: Option<calls::State>,
    /// Only those of this skill.
    skill: Option<String>,
    /// How many entries at most: 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<usize>,
    /// Where the page begins: `next_cursor` of the page before.
    #[param(max_length = 1024)]
    cursor: Option<String>,
}

/// A page of calls.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Invocations {
    /// The latest first.
    invocations: Vec<Summary>,
    /// The `cursor` of the next page, if there is one.
    next_cursor: Option<String>,
}

/// Call a tool of a skill
///
/// The answer comes when the call has ended, unless the request says `Prefer: respond-async` (RFC 7240): then it comes at once, with
/// the address where the call is, or after `wait` seconds if the call has not ended by then (`Prefer: respond-async, wait=10`).
///
/// With an `Idempotency-Key` the call is made once, however often the request is sent: for 24 hours the same request with the same key
/// gets the answer of the first, and the header `Idempotent-Replayed`. While the first is under way it gets 409, and so it does where
/// the host ended in the middle (`/problems/outcome-unknown`): such a call is never made again by itself. The same key with another
/// request is an error, 422. A call that did not start, because of a missing grant or account, leaves its key free.
#[utoipa::path(post, path = "/v1/invocations", tag = "invocations", operation_id = "createInvocation",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "The caller's own name for this request, 1 to 255 characters.",
            pattern = "^[!#-~]{1,255}$", example = "8e03978e-40d5-43e8-bc93-6894a57f9324"),
        ("Prefer" = Option<String>, Header, description = "`respond-async`, and `wait` in seconds", example = "respond-async, wait=10"),
    ),
    request_body(content = NewInvocation, examples(
        ("mail" = (summary = "Send a mail", value = json!({
            "skill": "gmail-send", "tool": "send",
            "input": { "to": ["bob@example.com"], "subject": "Hi", "body": "Hello" }, "timeout": 20,
        }))),
    )),
    security(("bearer" = ["invoke"])), responses(
        (status = 200, description = "The call has ended", body = InvocationBody,
            headers(("Idempotent-Replayed" = Option<String>, description = "`true`: the answer of an earlier request"))),
        (status = 202, description = "The call runs; ask at its address for what comes of it", body = InvocationBody, headers(
            ("Location" = String, description = "Where the call is"),
            ("Preference-Applied" = String, description = "`respond-async`"),
        )),
        (status = 404, description = "There is no such skill or tool"),
        (status = 409, description = "An account must be connected first, and nothing of the skill has run; or the key's first \
                                      request is under way or has come to nothing that is known"),
        (status = 502, description = "The skill trapped or hit a limit"),
    ))]
pub(crate) async fn create(
    State(app): State<Shared>,
    bearer: Bearer,
    Wishes { key, preferred }: Wishes,
    JsonBody(new): JsonBody<NewInvocation>,
) -> Result<Response, Problem> {
    let caller = bearer.caller(Scope::Invoke)?;
    let key = key?;
    let new = new.read(caller.clone())?;
    if key.is_none() && !preferred.respond_async {
        return once(&app, new).await;
    }
    // What is no skill of this host is said at once.
    app.host.ready(&new.skill).await?;
    let (record, answer, replayed) = match app.calls.begin(&app, new, key).await? {
        Begun::New(kept) => {
            let answer = match preferred {
                Preferences { respond_async: true, wait: None } => return Ok(accepted(&kept.record)),
                Preferences { respond_async: true, wait: Some(wait) } => {
                    tokio::time::timeout(wait, kept.ended()).await.unwrap_or_default()
                }
                Preferences { respond_async: false, .. } => kept.ended().await,
            };
            (find(&app, &caller, kept.record.id())?, answer, false)
        }
        Begun::Before(record) => {
            let answer = Calls::answer(&app, &record)?;
            (*record, answer, true)
        }
    };
    let mut response = match record.state() {
        calls::State::Running if preferred.respond_async => accepted(&record),
        calls::State::Running => calls::still_running(record.id()).into_response(),
        calls::State::Unknown => calls::outcome_unknown(record.id()).into_response(),
        calls::State::Succeeded | calls::State::Failed | calls::State::Cancelled => {
            InvocationBody::of(&record, answer).respond()
        }
    };
    if replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// The calls of this caller
///
/// Those that were begun with `Prefer: respond-async` or with an `Idempotency-Key`, for 24 hours. Other calls are told to whoever waits
/// for them, and stand in the audit log.
#[utoipa::path(get, path = "/v1/invocations", tag = "invocations", operation_id = "listInvocations", params(Which),
    security(("bearer" = ["invoke"])), responses((status = 200, description = "A page of calls", body = Invocations)))]
pub(crate) async fn list(
    State(app): State<Shared>,
    bearer: Bearer,
    Query(which): Query<Which>,
) -> Result<Json<Invocations>, Problem> {
    let caller = bearer.caller(Scope::Invoke)?;
    let page = Page::read("invocations", which.limit, which.cursor.as_deref())?;
    let records = app.calls.list(&app, &caller)?.into_iter().filter(|record| {
        which.state.is_none_or(|state| record.state() == state)
            && which.skill.as_ref().is_none_or(|skill| record.skill == *skill)
    });
    let (invocations, next_cursor) = page.cut(records.map(|record| (record.key(), Summary::of(&record))));
    Ok(Json(Invocations { invocations, next_cursor }))
}

/// A call of this caller
///
/// With `Prefer: wait=10` the answer to a call that runs comes when it has ended, or after 10 seconds.
#[utoipa::path(get, path = "/v1/invocations/{id}", tag = "invocations", operation_id = "getInvocation",
    params(
        ("id" = String, Path, description = "Its id", example = "inv_0123456789abcdef0123456789abcdef"),
        ("Prefer" = Option<String>, Header, description = "`wait` in seconds", example = "wait=10"),
    ), security(("bearer" = ["invoke"])), responses(
        (status = 200, description = "The call as it stands, with its result if it has ended", body = InvocationBody),
        (status = 404, description = "There is no such call of this caller, or it was forgotten"),
    ))]
pub(crate) async fn show(
    State(app): State<Shared>,
    bearer: Bearer,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<InvocationBody>, Problem> {
    let caller = bearer.caller(Scope::Invoke)?;
    if let Some(wait) = Preferences::of(&headers).wait {
        find(&app, &caller, &id)?;
        app.calls.wait(&id, wait).await;
    }
    body(&app, &find(&app, &caller, &id)?).map(Json)
}

/// Cancel a call
///
/// The skill is ended where it stands. The answer comes when it has ended; a call that had ended before stays as it is.
#[utoipa::path(post, path = "/v1/invocations/{id}/cancel", tag = "invocations", operation_id = "cancelInvocation",
    params(("id" = String, Path, description = "Its id")), security(("bearer" = ["invoke"])), responses(
        (status = 200, description = "The call has ended", body = InvocationBody),
        (status = 404, description = "There is no such call of this caller, or it was forgotten"),
        (status = 409, description = "The call runs in another process of this host"),
    ))]
pub(crate) async fn cancel(
    State(app): State<Shared>,
    bearer: Bearer,
    Path(id): Path<String>,
) -> Result<Json<InvocationBody>, Problem> {
    let caller = bearer.caller(Scope::Invoke)?;
    let record = find(&app, &caller, &id)?;
    if record.state() == calls::State::Running {
        let id: InvocationId = super::body::named(record.id())?;
        app.calls.cancel(&id).await;
    }
    let record = find(&app, &caller, &id)?;
    if record.state() == calls::State::Running {
        let detail = "the call runs in another process of this host; ask the server at which it was begun";
        return Err(Problem::new(Kind::Conflict, detail));
    }
    body(&app, &record).map(Json)
}

impl NewInvocation {
    fn read(self, caller: Caller) -> Result<NewCall, Problem> {
        if self.timeout.is_some_and(|seconds| !(1..=LONGEST).contains(&seconds)) {
            return Err(Problem::new(Kind::Invalid, format!("`timeout` is 1 to {LONGEST} seconds")));
        }
        Ok(NewCall {
            caller,
            skill: parsed::<SkillName>(&self.skill)?,
            tool: self.tool,
            input: Value::Object(self.input),
            timeout: self.timeout.map(|seconds| Duration::from_secs(seconds.into())),
        })
    }
}

/// Calls, waits, and keeps nothing. A caller that goes away ends the skill.
async fn once(app: &App, new: NewCall) -> Result<Response, Problem> {
    let clock = app.host.clock();
    let created_at = clock.now();
    // Apart, so that what is handed on until it is polled stays small.
    match Box::pin(calls::invoke(app, app.host.new_invocation(), &new)).await {
        Came::Ended(outcome) => Ok(InvocationBody::once(&new, *outcome, [created_at, clock.now()]).respond()),
        Came::TimedOut(problem) | Came::NotRun(problem) => Err(problem),
    }
}

fn accepted(record: &Record) -> Response {
    let headers = [
        (header::LOCATION, format!("/v1/invocations/{}", record.id())),
        (HeaderName::from_static("preference-applied"), "respond-async".to_owned()),
    ];
    (StatusCode::ACCEPTED, headers, Json(InvocationBody::of(record, None))).into_response()
}

fn find(app: &App, caller: &Caller, id: &str) -> Result<Record, Problem> {
    app.calls.find(app, caller, id)?.ok_or_else(|| {
        let detail = "there is no such call of this caller, or it was forgotten: calls are kept for a day if they were begun with \
                      `Prefer: respond-async` or an Idempotency-Key";
        Problem::new(Kind::NotFound, detail)
    })
}

fn body(app: &App, record: &Record) -> Result<InvocationBody, Problem> {
    Ok(InvocationBody::of(record, Calls::answer(app, record)?))
}
