//! The installed skills: what they can do, what they need, and new versions that wait for an operator's word.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use clawcoil::audit::Event;
use clawcoil::host::{InvokeError, Ready};
use clawcoil::id::{Digest, SkillName};
use clawcoil::policy::{Need, RequestRule, Use};
use clawcoil::registry::{Pending, RegistryError};
use clawcoil::runtime::Tool;
use serde::Deserialize;
use serde_json::Value;

use super::browser::Visitor;
use super::form::Form;
use super::page::{self, Page, Place};
use super::trouble::Trouble;
use super::words::{Ticked, shown};
use crate::exit::Failure;
use crate::serve::{App, Kind, Problem, Shared};
use crate::upgrades;

/// The import without which a component can't be given a token.
const REVEAL: &str = "clawcoil:skill/reveal";

/// A skill on the list.
struct Row {
    name: SkillName,
    version: String,
    description: String,
    tools: usize,
    services: Vec<String>,
    can_see_tokens: bool,
    /// A new version waits.
    waits: bool,
    /// It can't be used: why.
    broken: Option<String>,
}

impl Row {
    fn of(name: SkillName, ready: Result<&Ready, &InvokeError>, waits: bool) -> Self {
        let row = Self {
            name,
            version: String::new(),
            description: String::new(),
            tools: 0,
            services: Vec::new(),
            can_see_tokens: false,
            waits,
            broken: None,
        };
        match ready {
            Ok(ready) => Self {
                version: ready.manifest.version.to_string(),
                description: shown(&ready.manifest.description),
                tools: ready.component.tools().len(),
                services: ready.manifest.services.iter().map(|service| service.provider.to_string()).collect(),
                can_see_tokens: can_see_tokens(ready),
                ..row
            },
            Err(error) => Self { broken: Some(shown(&crate::exit::chain(error))), ..row },
        }
    }
}

#[derive(Template)]
#[template(path = "skills.html")]
struct List {
    page: Page,
    rows: Vec<Row>,
}

/// All of them.
pub(super) async fn list(State(app): State<Shared>, visitor: Visitor) -> Result<Response, Trouble> {
    let registry = app.host.registry();
    let waiting = registry.pending_names().map_err(Problem::from)?;
    let mut rows = Vec::new();
    for name in registry.names().map_err(Problem::from)? {
        let ready = app.host.ready(&name).await;
        let waits = waiting.contains(&name);
        rows.push(Row::of(name, ready.as_deref(), waits));
    }
    rows.sort_by_key(|row| !row.waits);
    Ok(page::render(StatusCode::OK, &List { page: Page::of("Skills", &visitor, Place::Skills), rows }))
}

/// A tool of a skill.
struct ToolWords {
    name: String,
    title: Option<String>,
    description: Option<String>,
    arguments: Vec<Argument>,
    input_schema: String,
    output_schema: String,
}

struct Argument {
    name: String,
    kind: String,
    required: bool,
    words: Option<String>,
}

/// What a skill needs of one account.
struct Service {
    name: String,
    provider: String,
    reason: Option<String>,
    optional: bool,
    reveals: bool,
    scopes: Vec<String>,
    requests: Vec<String>,
}

/// A new version that waits.
struct Upgrade {
    from: String,
    to: String,
    digest: Digest,
    more: Vec<Ticked>,
    less: Vec<Ticked>,
    words: Vec<Ticked>,
}

impl Upgrade {
    fn of(pending: &Pending) -> Self {
        let lines = |needs: &[Need]| needs.iter().map(|need| Ticked::of(&need.to_string())).collect();
        Self {
            from: pending.installed.version.to_string(),
            to: pending.manifest.version.to_string(),
            digest: pending.digest,
            more: lines(&pending.difference.more),
            less: lines(&pending.difference.less),
            words: lines(&pending.difference.words),
        }
    }
}

#[derive(Template)]
#[template(path = "skill.html")]
struct One {
    page: Page,
    row: Row,
    digest: Option<Digest>,
    tools: Vec<ToolWords>,
    /// Exports that are no tools, and why.
    left_out: Vec<(String, String)>,
    services: Vec<Service>,
    requests: Vec<String>,
    imports: Vec<String>,
    upgrade: Option<Upgrade>,
    /// A new version waits and can't be shown: why.
    unreadable: Option<String>,
    /// For whom it is granted, as the permissions say.
    users: Vec<String>,
}

/// One of them.
pub(super) async fn show(
    State(app): State<Shared>,
    visitor: Visitor,
    Path(name): Path<String>,
) -> Result<Response, Trouble> {
    let name = known(&app, &name)?;
    let waits = app.host.registry().pending_names().map_err(Problem::from)?.contains(&name);
    let (upgrade, unreadable) = if waits {
        match upgrades::pending(app.host.home(), app.host.runtime(), &name).await {
            Ok(pending) => (Some(Upgrade::of(&pending)), None),
            Err(failure) => (None, Some(failure.to_string())),
        }
    } else {
        (None, None)
    };
    let policy = app.host.policy();
    let granted = policy.permissions().granted().filter(|(skill, _)| **skill == name);
    let mut users: Vec<String> = granted.flat_map(|(_, users)| users).collect();
    users.sort();
    users.dedup();
    let ready = app.host.ready(&name).await;
    let page = Page::of(name.to_string(), &visitor, Place::Skills);
    let mut one = One {
        page,
        row: Row::of(name, ready.as_deref(), waits),
        digest: None,
        tools: Vec::new(),
        left_out: Vec::new(),
        services: Vec::new(),
        requests: Vec::new(),
        imports: Vec::new(),
        upgrade,
        unreadable,
        users,
    };
    if let Ok(ready) = ready {
        let manifest = &ready.manifest;
        one.digest = Some(ready.digest);
        one.tools = ready.component.tools().iter().map(|found| tool(&ready, found)).collect();
        let left_out = ready.component.left_out().iter();
        one.left_out = left_out.map(|export| (shown(&export.export), export.reason.clone())).collect();
        one.services = manifest
            .services
            .iter()
            .map(|service| Service {
                name: service.name.to_string(),
                provider: service.provider.to_string(),
                reason: service.reason.as_deref().map(shown),
                optional: service.optional,
                reveals: service.use_ == Use::Reveal,
                scopes: service.scopes.iter().map(ToString::to_string).collect(),
                requests: texts(&service.requests),
            })
            .collect();
        one.requests = texts(&manifest.requests);
        one.imports = ready.component.imports().iter().map(|import| shown(import)).collect();
    }
    Ok(page::render(StatusCode::OK, &one))
}

/// Which version is meant: the one that was looked at.
#[derive(Debug, Deserialize)]
pub(super) struct LookedAt {
    digest: String,
}

/// Puts the version that was looked at in the place of the one in use.
pub(super) async fn approve(
    State(app): State<Shared>,
    visitor: Visitor,
    Path(name): Path<String>,
    Form { fields: LookedAt { digest }, .. }: Form<LookedAt>,
) -> Result<Response, Trouble> {
    let name = known(&app, &name)?;
    let pending = upgrades::pending(app.host.home(), app.host.runtime(), &name).await?;
    if digest != pending.digest.to_string() {
        return Err(Problem::from(RegistryError::PendingChanged(name)).into());
    }
    let done = {
        let (app, pending, who) = (app, pending.clone(), visitor.words());
        tokio::task::spawn_blocking(move || {
            upgrades::approve(app.host.home(), &pending, |event| record(&app, event, "approved", &who))
        })
    };
    let files = done.await.map_err(|error| Problem::internal(&error))??;
    let mut lines = vec![format!(
        "{name} {} is in use instead of {}. The grants that were pinned to the old version are pinned to the new one.",
        pending.manifest.version, pending.installed.version
    )];
    lines.extend(files.iter().map(|file| {
        let count = file.changes.len();
        let word = if count == 1 { "line" } else { "lines" };
        format!("Changed in {}: {count} {word}.", file_name(&file.name))
    }));
    if pending.difference.wants_more() {
        lines.push(format!(
            "The grants say what they said before. To grant what it wants more: clawcoil grant {name} --user …"
        ));
    }
    Ok(done_page(&visitor, "Approved", &lines.join("\n")))
}

/// Throws the version away that was looked at.
pub(super) async fn reject(
    State(app): State<Shared>,
    visitor: Visitor,
    Path(name): Path<String>,
    Form { fields: LookedAt { digest }, .. }: Form<LookedAt>,
) -> Result<Response, Trouble> {
    let name = known(&app, &name)?;
    let waiting = app.host.registry().pending(&name).ok().flatten();
    // What can't be read has no digest to hold it to, and can be thrown away all the same.
    if waiting.is_some_and(|waiting| waiting.digest.to_string() != digest) {
        return Err(Problem::from(RegistryError::PendingChanged(name)).into());
    }
    let done = {
        let (app, name, who) = (app, name.clone(), visitor.words());
        tokio::task::spawn_blocking(move || {
            upgrades::reject(app.host.home(), &name, |event| record(&app, event, "rejected", &who))
        })
    };
    done.await.map_err(|error| Problem::internal(&error))??;
    let text = format!("The new version of {name} is gone; the installed one stays in use.");
    Ok(done_page(&visitor, "Rejected", &text))
}

fn done_page(visitor: &Visitor, title: &str, text: &str) -> Response {
    let mut page = Page::of(title, visitor, Place::Skills);
    page.back = Some(("/skills", "All skills"));
    page::notice(&page, StatusCode::OK, text)
}

/// Writes down what an operator said, and who it was.
fn record(app: &App, event: &Event, what: &str, who: &str) -> Result<(), Failure> {
    let said = format!("{what} by the {who}");
    let detail = event.detail.as_ref().map_or_else(|| said.clone(), |detail| format!("{said}: {detail}"));
    app.host.audit().append(&Event { detail: Some(detail), ..event.clone() })?;
    Ok(())
}

impl From<Failure> for Trouble {
    /// What an operator's command would say: it is operators who read it here.
    fn from(failure: Failure) -> Self {
        Problem::new(Kind::Conflict, failure.to_string()).into()
    }
}

fn known(app: &App, name: &str) -> Result<SkillName, Problem> {
    let none = || Problem::new(Kind::NotFound, "No skill of this name is installed.");
    let name: SkillName = name.parse().map_err(|_| none())?;
    let names = app.host.registry().names()?;
    names.contains(&name).then_some(name).ok_or_else(none)
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn texts(rules: &[RequestRule]) -> Vec<String> {
    rules.iter().map(ToString::to_string).collect()
}

/// The import list proves it: without this import there is no function that would give a token.
fn can_see_tokens(ready: &Ready) -> bool {
    ready.component.imports().iter().any(|import| import.starts_with(REVEAL))
}

fn tool(ready: &Ready, tool: &Tool) -> ToolWords {
    let said = ready.manifest.tools.get(tool.name());
    let schema = tool.input_schema();
    let required = tool.required();
    let properties = schema.get("properties").and_then(Value::as_object);
    let mut arguments: Vec<Argument> = properties
        .into_iter()
        .flatten()
        .map(|(name, property)| Argument {
            name: name.clone(),
            kind: kind(property),
            required: required.contains(&name.as_str()),
            words: said.and_then(|said| said.arguments.get(name)).map(|words| shown(words)),
        })
        .collect();
    arguments.sort_by_key(|argument| !argument.required);
    let pretty = |schema: &Value| serde_json::to_string_pretty(schema).unwrap_or_default();
    ToolWords {
        name: tool.name().to_owned(),
        title: said.and_then(|said| said.title.as_deref()).map(shown),
        description: said.and_then(|said| said.description.as_deref()).map(shown),
        arguments,
        input_schema: pretty(schema),
        output_schema: pretty(tool.output_schema()),
    }
}

/// What a value is, in a word or two; its whole schema says more.
fn kind(schema: &Value) -> String {
    let variants = ["anyOf", "oneOf"].iter().find_map(|key| schema.get(key).and_then(Value::as_array));
    if let Some(variants) = variants {
        let mut kinds: Vec<String> = variants.iter().map(kind).filter(|kind| kind != "null").collect();
        kinds.dedup();
        return if kinds.len() > 3 { "one of several".to_owned() } else { kinds.join(" or ") };
    }
    let named = match schema.get("type") {
        Some(Value::String(name)) => Some(name.as_str()),
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).find(|name| *name != "null"),
        _ => None,
    };
    match (named, schema.get("items")) {
        (Some("array"), Some(items)) if items.is_object() => format!("list of {}", kind(items)),
        (Some("array"), _) => "list".to_owned(),
        (Some("string"), _) => "text".to_owned(),
        (Some("boolean"), _) => "yes or no".to_owned(),
        (Some(other), _) => other.to_owned(),
        (None, _) => "value".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_an_argument_is_can_be_said_in_a_word_or_two() {
        let of = |schema: Value| kind(&schema);
        assert_eq!(of(json!({ "type": "array", "items": { "type": "string" } })), "list of text");
        assert_eq!(of(json!({ "anyOf": [{ "type": "integer" }, { "type": "null" }] })), "integer");
        assert_eq!(of(json!({ "type": ["string", "null"] })), "text");
        assert_eq!(of(json!(true)), "value");
    }
}
