//! Skills and their tools, as far as the caller may use them.

use axum::Json;
use axum::extract::State;
use clawcoil::host::Ready;
use clawcoil::id::{Caller, SkillName};
use clawcoil::runtime::Tool;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::body::{Path, Query, named};
use super::page::PageQuery;
use crate::callers::Scope;
use crate::serve::{App, Bearer, Kind, Problem, Shared};

/// A skill that the caller may call.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Skill)]
pub(crate) struct SkillBody {
    #[schema(example = "gmail-send")]
    name: String,
    version: String,
    description: String,
    /// Of its component and manifest; grants name the version that they approve by it.
    #[schema(pattern = "^sha256:[0-9a-f]{64}$")]
    digest: String,
    tools: Vec<ToolBody>,
}

/// A tool of a skill.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Tool)]
pub(crate) struct ToolBody {
    #[schema(example = "send")]
    name: String,
    title: Option<String>,
    description: Option<String>,
    /// JSON Schema of the arguments.
    #[schema(value_type = Object)]
    input_schema: Value,
    /// JSON Schema of the result.
    #[schema(value_type = Object)]
    output_schema: Value,
}

/// A page of skills.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Skills {
    /// By name.
    skills: Vec<SkillBody>,
    /// The `cursor` of the next page, if there is one.
    next_cursor: Option<String>,
}

/// The skills that the caller may call
///
/// Every skill that the operator's policy lets start for this caller.
#[utoipa::path(get, path = "/v1/skills", tag = "skills", operation_id = "listSkills", params(PageQuery),
    security(("bearer" = ["invoke"])), responses((status = 200, description = "A page of skills", body = Skills)))]
pub(crate) async fn list(
    State(app): State<Shared>,
    bearer: Bearer,
    Query(query): Query<PageQuery>,
) -> Result<Json<Skills>, Problem> {
    let caller = bearer.caller(Scope::Invoke)?;
    let page = query.of("skills")?;
    let mut names = app.host.registry().names()?;
    names.sort();
    let mut skills = Vec::new();
    for name in names.into_iter().filter(|name| page.is_due(name.as_str())) {
        if skills.len() > page.limit {
            break;
        }
        // A skill that can't be read or compiled is the operator's to mend; it hides no other.
        let Ok(ready) = app.host.ready(&name).await else { continue };
        if may_start(&app, &ready, &caller) {
            skills.push((name.to_string(), body(&ready)));
        }
    }
    let (skills, next_cursor) = page.cut(skills);
    Ok(Json(Skills { skills, next_cursor }))
}

/// One skill
#[utoipa::path(get, path = "/v1/skills/{skill}", tag = "skills", operation_id = "getSkill",
    params(("skill" = String, Path, description = "Its name", example = "gmail-send")),
    security(("bearer" = ["invoke"])), responses(
        (status = 200, description = "The skill", body = SkillBody),
        (status = 404, description = "There is no such skill, or the caller may not call it"),
    ))]
pub(crate) async fn show(
    State(app): State<Shared>,
    bearer: Bearer,
    Path(skill): Path<String>,
) -> Result<Json<SkillBody>, Problem> {
    let caller = bearer.caller(Scope::Invoke)?;
    let name: SkillName = named(&skill)?;
    // Whether there is a skill that the caller may not call is not the caller's to know.
    let ready = app.host.ready(&name).await.ok().filter(|ready| may_start(&app, ready, &caller));
    let ready = ready.ok_or_else(|| {
        Problem::new(
            Kind::NotFound,
            format!("there is no skill {name} for this caller; what may be called, the operator grants"),
        )
    })?;
    Ok(Json(body(&ready)))
}

/// Whether policy lets the skill start for the caller: all that it can't do without is granted.
fn may_start(app: &App, ready: &Ready, caller: &Caller) -> bool {
    let effective = app.host.effective(ready, caller);
    effective.denied_services().next().is_none() && ready.component.check_imports(effective.linked()).is_ok()
}

fn body(ready: &Ready) -> SkillBody {
    SkillBody {
        name: ready.manifest.name.to_string(),
        version: ready.manifest.version.to_string(),
        description: ready.manifest.description.clone(),
        digest: ready.digest.to_string(),
        tools: ready.component.tools().iter().map(|tool| tool_body(ready, tool)).collect(),
    }
}

fn tool_body(ready: &Ready, tool: &Tool) -> ToolBody {
    let words = ready.manifest.tools.get(tool.name());
    ToolBody {
        name: tool.name().to_owned(),
        title: words.and_then(|words| words.title.clone()),
        description: words.and_then(|words| words.description.clone()),
        input_schema: tool.input_schema().clone(),
        output_schema: tool.output_schema().clone(),
    }
}
