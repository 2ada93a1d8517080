//! Skills and their tools, as far as the caller may use them.

use axum::Json;
use axum::extract::State;
use clawcoil::host::Ready;
use clawcoil::id::SkillName;
use clawcoil::runtime::Tool;
use serde::Serialize;
use serde_json::Value;

use super::body::Path;
use crate::callers::Scope;
use crate::serve::{Bearer, Kind, Problem, Shared};

/// A skill that the caller may call.
#[derive(Debug, Serialize)]
pub(crate) struct SkillBody {
    name: String,
    version: String,
    description: String,
    digest: String,
    tools: Vec<ToolBody>,
}

/// A tool of a skill.
#[derive(Debug, Serialize)]
pub(crate) struct ToolBody {
    name: String,
    title: Option<String>,
    description: Option<String>,
    /// JSON Schema of the arguments.
    input_schema: Value,
    /// JSON Schema of the result.
    output_schema: Value,
}

/// A list of skills.
#[derive(Debug, Serialize)]
pub(crate) struct Skills {
    skills: Vec<SkillBody>,
}

/// Every skill that the caller's policy lets start.
pub(crate) async fn list(State(app): State<Shared>, bearer: Bearer) -> Result<Json<Skills>, Problem> {
    let caller = bearer.caller(Scope::Invoke)?;
    let mut skills = Vec::new();
    for name in app.host.registry().names()? {
        // A skill that can't be read or compiled is the operator's to mend; it hides no other.
        let Ok(ready) = app.host.ready(&name).await else { continue };
        if app.host.effective(&ready, &caller).denied_services().next().is_none() {
            skills.push(body(&ready));
        }
    }
    Ok(Json(Skills { skills }))
}

/// One skill.
pub(crate) async fn show(
    State(app): State<Shared>,
    bearer: Bearer,
    Path(name): Path<String>,
) -> Result<Json<SkillBody>, Problem> {
    bearer.caller(Scope::Invoke)?;
    let name: SkillName = name.parse().map_err(|error| Problem::new(Kind::NotFound, format!("{error}")))?;
    let ready = app.host.ready(&name).await?;
    Ok(Json(body(&ready)))
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
