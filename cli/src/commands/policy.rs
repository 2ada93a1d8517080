//! `clawcoil policy`

mod diff;
mod learn;
mod test;

use clap::{Args, Subcommand};
use clawcoil::diagnostic::{Diagnostics, Source, did_you_mean};
use clawcoil::host::Home;
use clawcoil::id::{Caller, ClientName, ServiceName, SkillName, UserId};
use clawcoil::policy::{Denial, Explanation, Manifest, Permissions, Policy, Skill};
use clawcoil::registry::{InstalledSkill, Registry};
use serde_json::{Value, json};

use super::{agent, provider};
use crate::exit::Failure;
use crate::output::{Output, texts};
use crate::settings::Settings;

/// What is allowed, and why
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clawcoil policy check                                  after permissions.toml was edited
  clawcoil policy explain --skill gmail-send --user alice     why something is allowed or not")]
pub(crate) struct PolicyCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Check the permissions, the providers, and the installed skills' manifests against each other
    #[command(after_help = "Examples:\n  clawcoil policy check")]
    Check,
    /// Say whether a skill may use a service for a user, with the rule that decides, or the lines that would allow it
    #[command(
        after_help = "Examples:\n  clawcoil policy explain --skill gmail-send --user alice\n  clawcoil policy explain --skill gmail-send --user alice --service gmail --json"
    )]
    Explain(Explain),
    Test(test::Test),
    Diff(diff::Diff),
    Learn(learn::Learn),
}

#[derive(Debug, Args)]
struct Explain {
    /// The skill
    #[arg(long)]
    skill: SkillName,

    /// For whom
    #[arg(long)]
    user: UserId,

    /// Which service; default: all that the skill declares
    #[arg(long)]
    service: Option<ServiceName>,

    /// Called by which program
    #[arg(long, default_value = agent::CLIENT)]
    client: ClientName,
}

impl PolicyCommand {
    pub(crate) async fn run(self, settings: &Settings, output: &Output) -> Result<(), Failure> {
        match self.action {
            Action::Check => check(&agent::existing_home(settings)?, output),
            Action::Explain(explain) => explain.run(&agent::existing_home(settings)?, output),
            Action::Test(test) => test.run(settings, output),
            Action::Diff(diff) => diff.run(settings, output),
            Action::Learn(learn) => learn.run(settings, output).await,
        }
    }
}

/// The permissions in a file, or in the files of a folder: `permissions.toml` and `permissions.d` in it, as an agent has them, or
/// else its own.
fn permissions_at(path: &std::path::Path) -> Result<Vec<Source>, Failure> {
    if !path.is_dir() {
        return Ok(vec![Source::open(path)?]);
    }
    let as_home = Home::at(path);
    if as_home.permissions().exists() || as_home.permissions_folder().exists() {
        return Ok(as_home.permission_sources()?);
    }
    test::toml_files(path)?.iter().map(|file| Ok(Source::open(file)?)).collect()
}

/// What is to be said about all files together.
pub(super) struct Checked {
    pub(super) errors: Option<Diagnostics>,
    /// What gives nothing away and hinders nothing.
    pub(super) warnings: Option<Diagnostics>,
}

/// Looks at all files at once.
pub(super) fn checked(home: &Home) -> Result<Checked, Failure> {
    let mut found: Vec<Diagnostics> = Vec::new();
    let registry = Registry::in_folder(home.skills());
    let mut manifests: Vec<Manifest> = Vec::new();
    for name in registry.names()? {
        match registry.get(&name) {
            Ok(skill) => manifests.push(skill.manifest),
            Err(clawcoil::registry::RegistryError::Manifest(errors)) => found.push(errors),
            Err(error) => return Err(error.into()),
        }
    }
    let facts = match clawcoil::provider::Catalogue::with(&home.provider_sources()?) {
        Ok(catalogue) => Some(catalogue.facts()),
        Err(errors) => {
            found.push(errors);
            None
        }
    };
    match (Permissions::parse(&home.permission_sources()?), facts) {
        (Err(errors), _) => found.push(errors),
        (Ok(permissions), Some(facts)) => found.extend(permissions.check(&manifests, &facts).err()),
        (Ok(_), None) => {}
    }
    let (errors, warnings) = found.into_iter().reduce(Diagnostics::and).map_or((None, None), Diagnostics::by_severity);
    Ok(Checked { errors, warnings })
}

fn check(home: &Home, output: &Output) -> Result<(), Failure> {
    let found = checked(home)?;
    let warnings: Vec<String> = found
        .warnings
        .iter()
        .flat_map(Diagnostics::iter)
        .map(|(line, warning)| format!("{line}: {}", warning.message()))
        .collect();
    if let Some(warnings) = found.warnings.filter(|_| !output.is_json()) {
        output.note(Failure::from(warnings));
    }
    if let Some(errors) = found.errors {
        return Err(Failure::from(errors).with_details(json!({ "warnings": warnings })));
    }
    let files: Vec<String> = home
        .permission_sources()?
        .iter()
        .chain(&home.provider_sources()?)
        .map(|source| source.name().to_owned())
        .collect();
    output.answer(json!({ "files": files, "warnings": warnings }), || match files.len() {
        0 => "There are no permissions: every skill is denied everything.".to_owned(),
        _ if warnings.is_empty() => format!("In order: {}", files.join(", ")),
        _ => format!("No errors: {}", files.join(", ")),
    })
}

impl Explain {
    fn run(self, home: &Home, output: &Output) -> Result<(), Failure> {
        let skill = Registry::in_folder(home.skills()).get(&self.skill)?;
        let policy = Policy::new(Permissions::parse(&home.permission_sources()?)?, provider::catalogue(home)?.facts());
        let caller = Caller::new(self.client, self.user);
        let installed = Skill { manifest: &skill.manifest, digest: skill.digest };
        let effective = policy.effective(&installed, &caller, agent::clock().now());
        let services: Vec<ServiceName> = match self.service {
            Some(service) if skill.manifest.services.iter().any(|declared| declared.name == service) => vec![service],
            Some(service) => return Err(undeclared(&skill, &service)),
            None => skill.manifest.services.iter().map(|service| service.name.clone()).collect(),
        };
        let explained: Vec<(ServiceName, Explanation)> =
            services.into_iter().map(|service| (service.clone(), effective.explain(&service))).collect();
        let objects: Vec<Value> =
            explained.iter().map(|(service, explanation)| to_json(service, explanation)).collect();
        let object = json!({ "skill": self.skill.as_str(), "policy": policy.hash().to_string(), "services": objects });
        output.answer(object, || match explained.as_slice() {
            [] => format!("{} declares no service.", self.skill),
            explained => {
                explained.iter().map(|(_, explanation)| explanation.to_string()).collect::<Vec<_>>().join("\n\n")
            }
        })
    }
}

/// A name that is misspelled is no question of policy.
fn undeclared(skill: &InstalledSkill, service: &ServiceName) -> Failure {
    let declared: Vec<_> = skill.manifest.services.iter().map(|declared| declared.name.as_str()).collect();
    let meant = did_you_mean(service.as_str(), declared.iter().copied());
    let meant = meant.map(|name| format!("; did you mean {name}?")).unwrap_or_default();
    let known = if declared.is_empty() { "none".to_owned() } else { declared.join(", ") };
    let name = &skill.manifest.name;
    Failure::usage(format!("the skill {name} declares no service {service}{meant}\nservices that it declares: {known}"))
}

fn to_json(service: &ServiceName, explanation: &Explanation) -> Value {
    match explanation {
        Explanation::Granted { service: granted, missing_scopes, rules } => json!({
            "service": service.as_str(),
            "granted": true,
            "provider": granted.provider.as_str(),
            "use": granted.use_.as_str(),
            "scopes": texts(&granted.scopes),
            "missing_scopes": texts(missing_scopes),
            "requests": texts(granted.requests()),
            "rules": texts(rules),
        }),
        Explanation::Denied(denial) => {
            let mut object = denial_json(denial);
            if let Some(object) = object.as_object_mut() {
                object.insert("service".to_owned(), json!(service.as_str()));
                object.insert("granted".to_owned(), json!(false));
            }
            object
        }
    }
}

/// A refusal, for programs of the operator.
pub(crate) fn denial_json(denial: &Denial) -> Value {
    let allow = denial.allow.iter().map(|proposal| json!({ "in": proposal.place(), "lines": proposal.lines }));
    json!({
        "explanation": denial.id.to_string(),
        "denied": denial.code.as_str(),
        "message": denial.message,
        "rule": denial.rule.as_ref().map(ToString::to_string),
        "reason": denial.reason,
        "allow": allow.collect::<Vec<_>>(),
    })
}
