//! How the end of a call is told: one match on how it ended, one on why it did not start.

use clawcoil::host::Outcome;
use clawcoil::runtime::End;
use rmcp::model::{CallToolResult, ContentBlock};
use serde_json::{Map, Value, json};

use super::tools::{Structure, WRAPPED};
use crate::exit::action_json;
use crate::serve::{Problem, denial_for_callers};

/// Under which key of `_meta` stands what is for programs.
const META: &str = "clawcoil/invocation";
/// Under which key of `_meta` stands a problem document (RFC 9457).
const PROBLEM: &str = "clawcoil/problem";

/// The skill has run.
pub(super) fn ended(outcome: &Outcome, structure: Structure) -> CallToolResult {
    let mut result = match &outcome.end {
        End::Value(value) => structured(value, structure),
        End::ToolError(error) => CallToolResult::error(text(&words(error))),
        End::Trapped(trapped) => CallToolResult::error(text(&format!("The skill failed: {trapped}"))),
        End::Limit(limit) => CallToolResult::error(text(&format!("The skill was ended: {limit}"))),
    };
    // What the host refused is said to the agent also where the skill keeps it to itself.
    if result.is_error == Some(true) {
        let refused = outcome.denials.iter().map(ToString::to_string);
        let needed = outcome.actions.iter().map(|action| format!("{action}; {}", action.command));
        result.content.extend(refused.chain(needed).map(ContentBlock::text));
    }
    let mut meta = json!({ "id": outcome.invocation.to_string() });
    if let Value::Object(meta) = &mut meta {
        let mut list = |name: &str, values: Vec<Value>| {
            if !values.is_empty() {
                meta.insert(name.to_owned(), values.into());
            }
        };
        list("denials", outcome.denials.iter().map(denial_for_callers).collect());
        list("actions", outcome.actions.iter().map(action_json).collect());
    }
    with_meta(result, META, meta)
}

/// The skill has not run.
pub(super) fn refused(problem: &Problem) -> CallToolResult {
    let result = CallToolResult::error(text(&format!("{}: {}", problem.kind().title(), problem.detail())));
    with_meta(result, PROBLEM, problem.to_json())
}

/// A result, as an object for programs and as text for models.
fn structured(value: &Value, structure: Structure) -> CallToolResult {
    let mut result = CallToolResult::success(text(&match (structure, value) {
        (Structure::Nothing, _) => "Done.".to_owned(),
        (_, value) => words(value),
    }));
    result.structured_content = match structure {
        Structure::Nothing => None,
        Structure::Object => Some(value.clone()),
        Structure::Wrapped => Some(Map::from_iter([(WRAPPED.to_owned(), value.clone())]).into()),
    };
    result
}

/// Text as it is, and everything else as JSON.
fn words(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn text(text: &str) -> Vec<ContentBlock> {
    vec![ContentBlock::text(text)]
}

/// The same, with something for programs.
pub(super) fn with_meta(result: CallToolResult, key: &str, value: Value) -> CallToolResult {
    let mut meta = result.meta.clone().unwrap_or_default();
    meta.insert(key.to_owned(), value);
    result.with_meta(Some(meta))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::Kind;

    #[test]
    fn a_result_is_an_object_for_programs_and_text_for_models() {
        let result = structured(&json!({ "id": "1" }), Structure::Object);
        assert_eq!(result.structured_content, Some(json!({ "id": "1" })));
        let wrapped = structured(&json!("sent"), Structure::Wrapped);
        assert_eq!(wrapped.structured_content, Some(json!({ "result": "sent" })));
        assert_eq!(serde_json::to_value(&wrapped.content).unwrap()[0]["text"], "sent", "text is not quoted");
        assert_eq!(structured(&Value::Null, Structure::Nothing).structured_content, None);
    }

    #[test]
    fn a_refusal_is_a_tool_error_with_the_problem_for_programs() {
        let told = serde_json::to_value(refused(&Problem::new(Kind::TooMany, "busy"))).unwrap();
        assert_eq!(told["isError"], true);
        assert_eq!(told["content"][0]["text"], "Too much at once: busy");
        assert_eq!(told["_meta"][PROBLEM]["status"], 429);
    }
}
