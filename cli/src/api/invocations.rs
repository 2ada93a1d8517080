//! Calls of skills.

use axum::Json;
use axum::extract::State;
use clawcoil::host::Outcome;
use clawcoil::id::SkillName;
use clawcoil::runtime::End;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::body::Json as JsonBody;
use crate::callers::Scope;
use crate::commands::denial_json;
use crate::exit::action_json;
use crate::serve::{Bearer, Kind, Problem, Shared};

/// A call that is asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewInvocation {
    #[schema(example = "gmail-send")]
    skill: String,
    /// May be left out where the skill has one tool.
    tool: Option<String>,
    /// One member for each parameter.
    #[serde(default)]
    #[schema(value_type = Object)]
    input: Map<String, Value>,
}

/// A call that has ended, with a result or with the skill's own word that it failed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Invocation)]
pub(crate) struct InvocationBody {
    id: String,
    /// The result. Absent where the skill says that it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
    /// What the skill says of its failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_error: Option<Value>,
    /// What policy refused during the call.
    #[schema(value_type = Vec<super::document::Denial>)]
    denials: Vec<Value>,
    /// What people have to do before the call could have done all that it tried.
    #[schema(value_type = Vec<super::document::Action>)]
    actions: Vec<Value>,
    /// What the skill printed.
    log: String,
}

/// Call a tool of a skill
///
/// The answer comes when the call has ended.
#[utoipa::path(post, path = "/v1/invocations", tag = "invocations", operation_id = "createInvocation",
    request_body = NewInvocation, security(("bearer" = ["invoke"])), responses(
        (status = 200, description = "The call has ended", body = InvocationBody),
        (status = 404, description = "There is no such skill or tool"),
        (status = 409, description = "An account must be connected first; nothing of the skill has run"),
        (status = 502, description = "The skill trapped or hit a limit"),
    ))]
pub(crate) async fn create(
    State(app): State<Shared>,
    bearer: Bearer,
    JsonBody(new): JsonBody<NewInvocation>,
) -> Result<Json<InvocationBody>, Problem> {
    let caller = bearer.caller(Scope::Invoke)?;
    let skill: SkillName = new.skill.parse().map_err(|error| Problem::new(Kind::Invalid, format!("{error}")))?;
    let outcome = app.host.invoke(&caller, &skill, new.tool.as_deref(), &Value::Object(new.input)).await?;
    ended(outcome).map(Json)
}

fn ended(outcome: Outcome) -> Result<InvocationBody, Problem> {
    let (result, tool_error) = match outcome.end {
        End::Value(value) => (Some(value), None),
        End::ToolError(error) => (None, Some(error)),
        End::Trapped(trapped) => return Err(failed(&outcome.invocation, &trapped.to_string())),
        End::Limit(limit) => return Err(failed(&outcome.invocation, &limit.to_string())),
    };
    Ok(InvocationBody {
        id: outcome.invocation.to_string(),
        result,
        tool_error,
        denials: outcome.denials.iter().map(denial_json).collect(),
        actions: outcome.actions.iter().map(action_json).collect(),
        log: outcome.logs.text,
    })
}

fn failed(invocation: &clawcoil::id::InvocationId, why: &str) -> Problem {
    Problem::new(Kind::SkillFailed, why).with("invocation", Value::from(invocation.to_string()))
}
