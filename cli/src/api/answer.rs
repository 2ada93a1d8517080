//! What is told of a call: how it stands, what came of it.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use clawcoil::clock::Timestamp;
use clawcoil::host::Outcome;
use clawcoil::id::{Digest, InvocationId};
use clawcoil::runtime::End;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::calls::{NewCall, Record, State, outcome_unknown};
use super::document::{Action, Denial, ProblemDocument};
use crate::exit::action_json;
use crate::receipt::ReceiptBody;
use crate::serve::{Kind, Problem, denial_for_callers};

/// The bytes that most answers fit into.
const USUAL: usize = 2048;

/// A call.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Invocation)]
pub(super) struct InvocationBody {
    #[serde(flatten)]
    #[schema(inline)]
    summary: Summary,
    #[serde(flatten)]
    #[schema(inline)]
    answer: Answer,
}

/// What came of a call, as it is told and kept.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub(super) struct Answer {
    /// The result. Absent where there is none: the call runs, or failed.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    result: Option<Value>,
    /// What the skill itself says of its failure.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    tool_error: Option<Value>,
    /// What policy refused during the call.
    #[schema(value_type = Vec<Denial>)]
    denials: Vec<Value>,
    /// What people have to do before the call could have done all that it tried.
    #[schema(value_type = Vec<Action>)]
    actions: Vec<Value>,
    /// What the skill printed.
    log: String,
    /// What the call did with whose authority, and where the audit log tells of it. Absent where the skill did not run to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<ReceiptBody>,
    /// Why it failed or did not start, where the skill doesn't say it itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ProblemDocument>)]
    problem: Option<Value>,
}

/// A result may be `null`, which is another thing than none.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// A call, without what came of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InvocationSummary)]
pub(super) struct Summary {
    #[schema(example = "inv_0123456789abcdef0123456789abcdef")]
    id: String,
    state: State,
    #[schema(example = "gmail-send")]
    skill: String,
    /// Absent where the caller named none.
    #[schema(example = "send")]
    tool: Option<String>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    ended_at: Option<String>,
    /// Until then it can be asked for. Absent where it can't.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
}

impl Summary {
    pub(super) fn of(record: &Record) -> Self {
        Self {
            id: record.id().to_owned(),
            state: record.state(),
            skill: record.skill.clone(),
            tool: record.tool.clone(),
            created_at: record.created_at().to_string(),
            ended_at: record.ended_at().map(|at| at.to_string()),
            expires_at: Some(record.expires_at().to_string()),
        }
    }
}

impl InvocationBody {
    /// A kept call, with what came of it if it has ended.
    pub(super) fn of(record: &Record, answer: Option<Answer>) -> Self {
        let answer = answer.unwrap_or_else(|| match record.state() {
            State::Running => Answer::default(),
            State::Unknown => problem(&outcome_unknown(record.id())),
            State::Succeeded | State::Failed | State::Cancelled => problem(&not_kept(record)),
        });
        Self { summary: Summary::of(record), answer }
    }

    /// A call that is told once and not kept.
    pub(super) fn once(new: &NewCall, outcome: Outcome, times: [Timestamp; 2]) -> Self {
        let id = outcome.invocation.to_string();
        let (state, answer) = ended(outcome);
        let [created_at, ended_at] = times.map(|time| time.to_string());
        let (skill, tool) = (new.skill.to_string(), new.tool.clone());
        let ended_at = Some(ended_at);
        Self { summary: Summary { id, state, skill, tool, created_at, ended_at, expires_at: None }, answer }
    }

    /// The answer to whoever waited for the end: the call, or why there is no result.
    pub(super) fn respond(self) -> Response {
        let Some(problem) = self.answer.problem else {
            let mut body = Vec::with_capacity(USUAL);
            return match serde_json::to_writer(&mut body, &self) {
                Ok(()) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
                Err(error) => Problem::internal(&error).into_response(),
            };
        };
        let status = problem.get("status").and_then(Value::as_u64).and_then(|status| u16::try_from(status).ok());
        let status = status.and_then(|status| StatusCode::from_u16(status).ok());
        let seconds = problem.get("retry_after").and_then(Value::as_u64);
        let mut response = (status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.extend(seconds.map(|seconds| (header::RETRY_AFTER, seconds.into())));
        response
    }
}

/// How a call ended, as it is kept.
pub(super) fn ended(outcome: Outcome) -> (State, Answer) {
    let Outcome { invocation, end, logs, denials, actions, receipt, .. } = outcome;
    let mut answer = Answer {
        denials: denials.iter().map(denial_for_callers).collect(),
        actions: actions.iter().map(action_json).collect(),
        log: logs.text,
        receipt: Some(receipt.into()),
        ..Answer::default()
    };
    let state = match end {
        End::Value(value) => {
            answer.result = Some(value);
            State::Succeeded
        }
        End::ToolError(error) => {
            answer.tool_error = Some(error);
            State::Failed
        }
        End::Trapped(trapped) => {
            answer.problem = Some(failed_with(&invocation, &trapped.to_string(), &answer));
            State::Failed
        }
        End::Limit(limit) => {
            answer.problem = Some(failed_with(&invocation, &limit.to_string(), &answer));
            State::Failed
        }
    };
    (state, answer)
}

/// A call that came to nothing, as it is kept.
pub(super) fn problem(problem: &Problem) -> Answer {
    Answer { problem: Some(problem.to_json()), ..Answer::default() }
}

/// The skill ended without a result.
pub(super) fn failed(invocation: &InvocationId, why: &str) -> Problem {
    Problem::new(Kind::SkillFailed, why).with("invocation", Value::from(invocation.to_string()))
}

/// The same, with all else that is known: whoever waits gets this alone.
fn failed_with(invocation: &InvocationId, why: &str, known: &Answer) -> Value {
    let known = serde_json::to_value(known)
        .ok()
        .and_then(|known| if let Value::Object(known) = known { Some(known) } else { None });
    let known = known.into_iter().flatten().filter(|(_, value)| value.as_array().is_none_or(|list| !list.is_empty()));
    let known = known.filter(|(_, value)| value.as_str() != Some(""));
    known.fold(failed(invocation, why), |problem, (name, value)| problem.with(&name, value)).to_json()
}

fn not_kept(record: &Record) -> Problem {
    let detail = "the call has ended, but its answer was too large to be kept";
    Problem::new(Kind::OutcomeUnknown, detail).with("invocation", Value::from(record.id()))
}

/// Two requests of one key are the same if they have the same digest.
pub(super) fn digest(new: &NewCall) -> String {
    let timeout = new.timeout.map(|timeout| timeout.as_secs());
    // Members of objects are sorted: their order makes no other request.
    let request = json!([new.skill.as_str(), new.tool, new.input, timeout]);
    Digest::of(request.to_string().as_bytes()).to_string()
}
