//! `clawcoil skill`

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use clawcoil::audit::{Event, EventKind};
use clawcoil::host::Home;
use clawcoil::id::{Digest, SkillName};
use clawcoil::policy::{Manifest, RequestRule, Use};
use clawcoil::registry::{InstalledSkill, Pending, Registry, RegistryError};
use clawcoil::runtime::{Component, EngineSettings, Runtime, Settings as RuntimeSettings, Tool};
use serde_json::{Value, json};

use super::agent;
use super::grant::{change, shown_change};
use crate::exit::Failure;
use crate::output::{Output, Table, printable, texts};
use crate::settings::Settings;
use crate::upgrades;

/// The interface that lets a skill see a token.
const REVEAL: &str = "clawcoil:skill/reveal";

/// The installed skills
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clawcoil skill inspect ./gmail-send                    look at it before it is installed
  clawcoil skill add ./gmail-send
  clawcoil skill list
  clawcoil skill remove gmail-send")]
pub(crate) struct Skill {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Install a skill, or a new version of one
    ///
    /// Where a grant is pinned to the version in use, the new one waits until it is approved, and the old one stays in use.
    #[command(
        after_help = "Examples:\n  clawcoil skill add gmail_send.wasm     its manifest, skill.toml, stands beside it\n  clawcoil skill add ./gmail-send        a folder with skill.toml and one component"
    )]
    Add {
        /// The component, or a folder that holds it
        path: PathBuf,
        /// The manifest, where it does not stand beside the component as skill.toml
        #[arg(long, value_name = "FILE")]
        manifest: Option<PathBuf>,
    },
    /// List them
    #[command(after_help = "Examples:\n  clawcoil skill list")]
    List,
    /// Show what a skill declares, exports and imports
    #[command(
        after_help = "Examples:\n  clawcoil skill inspect gmail_send.wasm     before it is installed\n  clawcoil skill inspect gmail-send --schemas"
    )]
    Inspect {
        /// The name of an installed skill, or the path of a component
        skill: String,
        /// The manifest, where it does not stand beside the component as skill.toml
        #[arg(long, value_name = "FILE")]
        manifest: Option<PathBuf>,
        /// Show the JSON Schema of each tool as well
        #[arg(long)]
        schemas: bool,
    },
    /// Show what new versions want that wait for approval
    #[command(after_help = "Examples:\n  clawcoil skill pending\n  clawcoil skill pending gmail-send --json")]
    Pending {
        /// Which; default: all
        skill: Option<SkillName>,
    },
    /// Approve a new version: the grants that are pinned to the old one are pinned to it, and it takes its place
    #[command(
        after_help = "Examples:\n  clawcoil skill approve gmail-send\n  clawcoil skill approve gmail-send --digest sha256:…     only the version that was looked at"
    )]
    Approve {
        /// Which
        skill: SkillName,
        /// Only if this is the version that waits
        #[arg(long)]
        digest: Option<Digest>,
    },
    /// Throw a new version away that waits for approval
    #[command(after_help = "Examples:\n  clawcoil skill reject gmail-send")]
    Reject {
        /// Which
        skill: SkillName,
    },
    /// Remove one; its grants stay, and do nothing without it
    #[command(after_help = "Examples:\n  clawcoil skill remove gmail-send")]
    Remove {
        /// Which
        skill: SkillName,
    },
}

impl Skill {
    pub(crate) async fn run(self, settings: &Settings, output: &Output) -> Result<(), Failure> {
        let home = agent::home(settings)?;
        let registry = Registry::in_folder(home.skills());
        match self.action {
            Action::Add { path, manifest } => {
                let home = agent::existing_home(settings)?;
                add(&home, &path, manifest.as_deref(), output).await
            }
            Action::List => {
                // An agent that is not there has not just no skills.
                if !home.folder().is_dir() {
                    agent::existing_home(settings)?;
                }
                list(&registry, output)
            }
            Action::Inspect { skill, manifest, schemas } => {
                let read = match skill.parse::<SkillName>() {
                    Ok(name) if !Path::new(&skill).exists() => registry.get(&name)?,
                    _ => Registry::read(&component_in(Path::new(&skill))?, manifest.as_deref())?,
                };
                inspect(&read, schemas, output).await
            }
            Action::Pending { skill } => pending(&agent::existing_home(settings)?, skill, output).await,
            Action::Approve { skill, digest } => {
                approve(&agent::existing_home(settings)?, &skill, digest, output).await
            }
            Action::Reject { skill } => {
                let home = agent::existing_home(settings)?;
                let vault = agent::open_vault(&home).await?;
                upgrades::reject(&home, &skill, |event| agent::record(&home, &vault, event))?;
                output.answer(json!({ "skill": skill.as_str() }), || {
                    format!("The new version of {skill} is gone; the installed one stays in use.")
                })
            }
            Action::Remove { skill } => {
                let vault = agent::open_vault(&agent::existing_home(settings)?).await?;
                registry.remove(&skill)?;
                let event = Event { skill: Some(skill.clone()), ..Event::new(EventKind::SkillRemoved) };
                agent::record(&home, &vault, &event)?;
                output.answer(json!({ "skill": skill.as_str() }), || format!("{skill} is removed."))
            }
        }
    }
}

/// The component that a path means: the file itself, or the one component in a folder.
pub(super) fn component_in(path: &Path) -> Result<PathBuf, Failure> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let entries =
        path.read_dir().map_err(|error| Failure::error(format!("{} can't be read: {error}", path.display())))?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| file.extension().is_some_and(|ending| ending == "wasm"))
        .collect();
    match (found.pop(), found.is_empty()) {
        (Some(only), true) => Ok(only),
        (Some(_), false) => Err(Failure::usage(format!("{} holds several components: name one", path.display()))),
        (None, _) => Err(Failure::usage(format!(
            "{} holds no component: build the skill with `cargo build --release --target wasm32-wasip2` and name the .wasm file",
            path.display()
        ))),
    }
}

/// An engine to compile components and look at them. Nothing of them runs.
fn looking() -> Result<Runtime, Failure> {
    let engine = EngineSettings { concurrent_calls: 8, warm_memory: 0 };
    Ok(Runtime::new(RuntimeSettings { engine, ..RuntimeSettings::default() })?)
}

async fn add(home: &Home, path: &Path, manifest: Option<&Path>, output: &Output) -> Result<(), Failure> {
    let registry = Registry::in_folder(home.skills());
    let vault = agent::open_vault(home).await?;
    let component = component_in(path)?;
    let progress = output.progress("compiling");
    let candidate = Registry::read(&component, manifest)?;
    let runtime = looking()?;
    let compiled = runtime.compile(candidate.component.clone()).await?;
    drop(progress);
    let before = registry.get(candidate.name()).ok().filter(|before| before.digest != candidate.digest);
    if let Some(before) = &before
        && upgrades::must_be_approved(home, before)?
    {
        registry.propose(&component, manifest)?;
        let pending = upgrades::pending(home, &runtime, candidate.name()).await?;
        agent::record(home, &vault, &upgrades::event(EventKind::SkillProposed, &pending))?;
        let object = json!({ "skill": pending.manifest.name.as_str(), "pending": upgrades::to_json(&pending) });
        return output.answer(object, || with_next(&pending));
    }
    let skill = registry.add(&component, manifest)?;
    if registry.pending(skill.name()).is_ok_and(|waits| waits.is_some()) {
        // What waited was newer than a version that is not in use any more.
        registry.reject(skill.name())?;
    }
    let event = Event {
        skill: Some(skill.name().clone()),
        skill_digest: Some(skill.digest),
        ..Event::new(EventKind::SkillAdded)
    };
    agent::record(home, &vault, &event)?;
    let tools: Vec<&str> = compiled.tools().iter().map(clawcoil::runtime::Tool::name).collect();
    let object = json!({
        "skill": skill.name().as_str(), "skill_version": skill.manifest.version.as_str(), "digest": skill.digest.to_string(),
        "tools": tools, "replaced": before.as_ref().map(|before| before.digest.to_string()),
    });
    output.answer(object, || {
        let mut lines =
            vec![format!("{} {} is installed. Tools: {}", skill.name(), skill.manifest.version, tools.join(", "))];
        lines.extend(before.as_ref().map(|before| {
            let version = &before.manifest.version;
            format!("It replaces version {version}, for which no approval was asked: no grant is pinned to it.")
        }));
        let (name, manifest) = (skill.name(), &skill.manifest);
        lines.push(if manifest.services.is_empty() && manifest.requests.is_empty() {
            format!("\nIt asks for nothing, so it needs no grant. Next: clawcoil run {name} … --user …")
        } else {
            format!("\nNext: clawcoil grant {name} --user …")
        });
        lines.join("\n")
    })
}

fn with_next(pending: &Pending) -> String {
    let name = &pending.manifest.name;
    format!("{}\n\nNext: clawcoil skill approve {name}, or clawcoil skill reject {name}", upgrades::shown(pending))
}

async fn pending(home: &Home, skill: Option<SkillName>, output: &Output) -> Result<(), Failure> {
    let names = match skill {
        Some(skill) => vec![skill],
        None => Registry::in_folder(home.skills()).pending_names()?,
    };
    let runtime = looking()?;
    let mut waiting = Vec::new();
    for name in &names {
        waiting.push(upgrades::pending(home, &runtime, name).await?);
    }
    let objects: Vec<Value> = waiting.iter().map(upgrades::to_json).collect();
    output.answer(json!({ "pending": objects }), || match waiting.as_slice() {
        [] => "No new version waits for approval.".to_owned(),
        waiting => waiting.iter().map(with_next).collect::<Vec<_>>().join("\n\n"),
    })
}

async fn approve(home: &Home, skill: &SkillName, digest: Option<Digest>, output: &Output) -> Result<(), Failure> {
    let pending = upgrades::pending(home, &looking()?, skill).await?;
    if digest.is_some_and(|digest| digest != pending.digest) {
        return Err(RegistryError::PendingChanged(skill.clone()).into());
    }
    let vault = agent::open_vault(home).await?;
    let files = upgrades::approve(home, &pending, |event| agent::record(home, &vault, event))?;
    let changes = files
        .iter()
        .map(|file| json!({ "file": file.name, "changes": file.changes.iter().map(change).collect::<Vec<_>>() }));
    let mut object = upgrades::to_json(&pending);
    if let Some(object) = object.as_object_mut() {
        object.insert("files".to_owned(), changes.collect());
    }
    output.answer(object, || {
        let Pending { manifest, installed, difference, .. } = &pending;
        let mut lines = vec![format!("{} {} is in use instead of {}.", manifest.name, manifest.version, installed.version)];
        lines.extend(difference.to_string().lines().map(printable));
        for file in &files {
            lines.push(file.name.clone());
            lines.extend(file.changes.iter().map(|change| shown_change(change, output)));
        }
        if difference.wants_more() {
            lines.push(format!(
                "\nThe grants say what they said before. Next, to grant what it wants more: clawcoil grant {skill} --user …"
            ));
        }
        lines.join("\n")
    })
}

fn list(registry: &Registry, output: &Output) -> Result<(), Failure> {
    let mut skills = Vec::new();
    for name in registry.names()? {
        skills.push(registry.get(&name)?);
    }
    let waiting = registry.pending_names()?;
    let objects = skills.iter().map(|skill| {
        json!({
            "new_version_waits": waiting.contains(skill.name()),
            "skill": skill.name().as_str(), "skill_version": skill.manifest.version.as_str(),
            "digest": skill.digest.to_string(), "description": skill.manifest.description,
        })
    });
    output.answer(json!({ "skills": objects.collect::<Vec<_>>() }), || {
        if skills.is_empty() {
            return "No skill is installed. Next: clawcoil skill add COMPONENT".to_owned();
        }
        let mut table = Table::new(&["skill", "version", "services", "description"]);
        for skill in &skills {
            let services: Vec<&str> = skill.manifest.services.iter().map(|service| service.name.as_str()).collect();
            let manifest = &skill.manifest;
            table.row([
                manifest.name.to_string(),
                manifest.version.to_string(),
                services.join(" "),
                manifest.description.clone(),
            ]);
        }
        let mut lines = vec![table.render()];
        lines.extend(
            waiting
                .iter()
                .map(|name| format!("A new version of {name} waits for approval: clawcoil skill pending {name}")),
        );
        lines.join("\n")
    })
}

async fn inspect(skill: &InstalledSkill, schemas: bool, output: &Output) -> Result<(), Failure> {
    let component = looking()?.compile(skill.component.clone()).await?;
    output.answer(inspected(skill, &component), || shown(skill, &component, schemas))
}

fn inspected(skill: &InstalledSkill, component: &Component) -> Value {
    let manifest = &skill.manifest;
    let requests = |rules: &[RequestRule]| texts(rules);
    let tools = component.tools().iter().map(|tool| {
        let words = manifest.tools.get(tool.name());
        json!({
            "name": tool.name(), "interface": tool.interface(), "title": words.and_then(|words| words.title.as_ref()),
            "description": words.and_then(|words| words.description.as_ref()),
            "input_schema": tool.input_schema(), "output_schema": tool.output_schema(),
        })
    });
    let services = manifest.services.iter().map(|service| {
        json!({
            "name": service.name.as_str(), "provider": service.provider.as_str(), "use": service.use_.as_str(),
            "optional": service.optional, "reason": service.reason, "requests": requests(&service.requests),
            "scopes": texts(&service.scopes),
        })
    });
    let left_out =
        component.left_out().iter().map(|export| json!({ "export": export.export, "reason": export.reason }));
    json!({
        "skill": manifest.name.as_str(), "skill_version": manifest.version.as_str(), "description": manifest.description,
        "digest": skill.digest.to_string(), "tools": tools.collect::<Vec<_>>(), "services": services.collect::<Vec<_>>(),
        "requests": requests(&manifest.requests), "imports": component.imports(),
        "exports_left_out": left_out.collect::<Vec<_>>(), "can_see_tokens": can_see_tokens(component),
    })
}

/// The import list proves it: without this import there is no function that would give a token.
pub(super) fn can_see_tokens(component: &Component) -> bool {
    component.imports().iter().any(|import| import.starts_with(REVEAL))
}

fn shown(skill: &InstalledSkill, component: &Component, schemas: bool) -> String {
    let manifest = &skill.manifest;
    let mut lines = vec![
        format!("{} {}: {}", manifest.name, manifest.version, printable(&manifest.description)),
        format!("{}", skill.digest),
        String::new(),
        if can_see_tokens(component) {
            "This skill can see a token where you grant `use = \"reveal\"`: it imports clawcoil:skill/reveal."
                .to_owned()
        } else {
            "This skill can't see your token: it imports nothing that would give it one.".to_owned()
        },
    ];
    lines.push("\nTools".to_owned());
    for tool in component.tools() {
        let words = manifest.tools.get(tool.name());
        let said = words.and_then(|words| words.description.as_ref().or(words.title.as_ref()));
        let said = said.map_or_else(
            || format!("no description: add [tool.{}] to the manifest", tool.name()),
            |said| printable(said),
        );
        lines.push(format!("  {}({})  {said}", tool.name(), arguments(tool)));
        if schemas {
            lines.push(format!("    takes {}\n    gives {}", tool.input_schema(), tool.output_schema()));
        }
    }
    for export in component.left_out() {
        lines.push(format!("  not a tool: {}: {}", printable(&export.export), export.reason));
    }
    services(manifest, &mut lines);
    lines.push("\nImports".to_owned());
    lines.extend(component.imports().iter().map(|import| format!("  {}", printable(import))));
    lines.join("\n")
}

fn services(manifest: &Manifest, lines: &mut Vec<String>) {
    if !manifest.services.is_empty() {
        lines.push("\nServices".to_owned());
    }
    for service in &manifest.services {
        let optional = if service.optional { ", optional" } else { "" };
        lines.push(format!(
            "  {} at {} (use = \"{}\"{optional})",
            service.name,
            service.provider,
            service.use_.as_str()
        ));
        lines.extend(service.reason.as_ref().map(|reason| format!("    why: {}", printable(reason))));
        if service.use_ == Use::Reveal {
            lines.push("    it wants to see the token itself".to_owned());
        }
        lines.extend(service.scopes.iter().map(|scope| format!("    scope {scope}")));
        lines.extend(service.requests.iter().map(|request| format!("    to {request}")));
    }
    if !manifest.requests.is_empty() {
        lines.push("\nWithout a credential".to_owned());
        lines.extend(manifest.requests.iter().map(|request| format!("  to {request}")));
    }
}

/// The names of the arguments, those that may be left out last and with a question mark.
fn arguments(tool: &Tool) -> String {
    let required = tool.required();
    let properties = tool.input_schema().get("properties").and_then(Value::as_object);
    let all = properties.into_iter().flat_map(|properties| properties.keys());
    let optional = all.filter(|name| !required.contains(&name.as_str())).map(|name| format!("{name}?"));
    required.iter().map(|&name| name.to_owned()).chain(optional).collect::<Vec<_>>().join(", ")
}
