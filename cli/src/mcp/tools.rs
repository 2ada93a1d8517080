//! The tools of a caller, as the protocol describes them.

use std::borrow::Cow;
use std::sync::Arc;

use clawcoil::host::{Host, Ready};
use clawcoil::id::{Caller, ProviderId, SkillName};
use clawcoil::policy::{Effective, EffectiveService, RequestRule, Use};
use clawcoil::runtime;
use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use serde_json::{Map, Value, json};

use super::names::{is_name, skill_of, tool_name};
use crate::serve::Problem;

/// Under which member a result stands that is no object: the protocol's structured content is one.
pub(super) const WRAPPED: &str = "result";

/// A tool that a caller may call now.
pub(super) struct Offered {
    /// What agents call it.
    pub(super) name: String,
    pub(super) skill: SkillName,
    /// What the skill calls it.
    pub(super) tool: String,
    ready: Arc<Ready>,
    effective: Effective,
}

/// How a tool's result becomes structured content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Structure {
    /// There is none.
    Nothing,
    /// It is an object already.
    Object,
    /// It stands under [`WRAPPED`].
    Wrapped,
}

/// Every tool that the caller's policy lets start, sorted by name.
pub(super) async fn offered(host: &Host, caller: &Caller) -> Result<Vec<Offered>, Problem> {
    let mut tools = Vec::new();
    for skill in host.registry().names()? {
        tools.extend(of_skill(host, caller, &skill).await);
    }
    tools.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tools)
}

/// The tool of this name, if the caller may call it.
pub(super) async fn find(host: &Host, caller: &Caller, name: &str) -> Result<Option<Offered>, Problem> {
    if !is_name(name) {
        return Ok(None);
    }
    let tools = match skill_of(name) {
        Some(skill) => of_skill(host, caller, &skill).await,
        None => offered(host, caller).await?,
    };
    Ok(tools.into_iter().find(|tool| tool.name == name))
}

/// A skill that can't be read or compiled is the operator's to mend; it hides no other, and has no tools.
async fn of_skill(host: &Host, caller: &Caller, skill: &SkillName) -> Vec<Offered> {
    let Ok(ready) = host.ready(skill).await else { return Vec::new() };
    let effective = host.effective(&ready, caller);
    let starts =
        effective.denied_services().next().is_none() && ready.component.check_imports(effective.linked()).is_ok();
    if !starts {
        return Vec::new();
    }
    let tool = |tool: &runtime::Tool| Offered {
        name: tool_name(skill, tool.name()),
        skill: skill.clone(),
        tool: tool.name().to_owned(),
        ready: Arc::clone(&ready),
        effective: effective.clone(),
    };
    ready.component.tools().iter().map(tool).collect()
}

impl Offered {
    /// As agents are told.
    pub(super) fn describe(&self) -> Tool {
        let words = self.ready.manifest.tools.get(&self.tool);
        let description =
            words.and_then(|words| words.description.as_deref()).unwrap_or(&self.ready.manifest.description);
        let input = self.ready.component.tool(&self.tool).map(|tool| {
            let empty = std::collections::BTreeMap::new();
            described(tool.input_schema(), words.map_or(&empty, |words| &words.arguments))
        });
        let mut tool = Tool::new_with_raw(
            self.name.clone(),
            Some(Cow::Owned(description.to_owned())),
            Arc::new(input.unwrap_or_default()),
        )
        .with_annotations(annotations(&self.effective, &self.ready.manifest.requests));
        if let Some(title) = words.and_then(|words| words.title.clone()) {
            tool = tool.with_title(title);
        }
        match self.output() {
            (Structure::Nothing, _) => tool,
            (_, schema) => tool.with_raw_output_schema(Arc::new(schema)),
        }
    }

    /// Whether the skill may see the tokens of this provider.
    pub(super) fn reveals(&self, provider: &ProviderId) -> bool {
        self.effective.granted().any(|service| service.provider == *provider && service.use_ == Use::Reveal)
    }

    /// How results become structured content.
    pub(super) fn structure(&self) -> Structure {
        self.output().0
    }

    fn output(&self) -> (Structure, JsonObject) {
        let schema = self.ready.component.tool(&self.tool).map(|tool| tool.output_schema().clone());
        let Some(Value::Object(mut schema)) = schema else { return (Structure::Nothing, Map::new()) };
        match schema.get("type").and_then(Value::as_str) {
            Some("null") => (Structure::Nothing, schema),
            Some("object") => (Structure::Object, schema),
            _ => {
                // The dialect is said once, at the top.
                let dialect = schema.remove("$schema");
                let wrapped = json!({
                    "type": "object", "properties": { WRAPPED: schema },
                    "required": [WRAPPED], "additionalProperties": false,
                });
                let mut object = Map::from_iter(dialect.map(|dialect| ("$schema".to_owned(), dialect)));
                if let Value::Object(wrapped) = wrapped {
                    object.extend(wrapped);
                }
                (Structure::Wrapped, object)
            }
        }
    }
}

/// The schema of the arguments, with the author's words for each.
fn described(schema: &Value, words: &std::collections::BTreeMap<String, String>) -> JsonObject {
    let mut schema = schema.as_object().cloned().unwrap_or_default();
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        for (argument, text) in words {
            if let Some(Value::Object(property)) = properties.get_mut(argument) {
                property.insert("description".to_owned(), Value::from(text.as_str()));
            }
        }
    }
    schema
}

/// What the tool can do to the world, from what is let through and not from its author's word.
///
/// A tool that reaches nothing, or only reads, changes nothing. Whether one that may write also destroys is not to be seen
/// from its requests; so it is said that it may.
fn annotations(effective: &Effective, plain: &[RequestRule]) -> ToolAnnotations {
    let services: Vec<RequestRule> = effective.granted().flat_map(EffectiveService::requests).collect();
    let reveals = effective.granted().any(|service| service.use_ == Use::Reveal);
    hints(services.iter().chain(plain), reveals)
}

fn hints<'a>(mut rules: impl Iterator<Item = &'a RequestRule> + Clone, reveals: bool) -> ToolAnnotations {
    let reads = |rule: &RequestRule| {
        rule.methods.as_ref().is_some_and(|methods| methods.iter().all(axum::http::Method::is_safe))
    };
    let open = reveals || rules.clone().next().is_some();
    let read_only = !reveals && rules.all(reads);
    ToolAnnotations::new().read_only(read_only).destructive(!read_only).open_world(open)
}
