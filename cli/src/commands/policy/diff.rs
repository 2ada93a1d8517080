//! `clawcoil policy diff`

use std::path::{Path, PathBuf};

use clap::Args;
use clawcoil::diagnostic::Source;
use clawcoil::host::Home;
use clawcoil::policy::{Comparison, Permissions, Policy, Reach, Side, Skill};
use clawcoil::registry::{InstalledSkill, Registry};
use serde_json::{Value, json};

use super::super::skill::component_in;
use super::super::{agent, provider};
use super::permissions_at;
use crate::exit::Failure;
use crate::output::{Output, printable, texts};
use crate::settings::Settings;

/// Say what other permissions would allow, or no longer allow, before they are saved
///
/// What is compared is what both decide: for each installed skill, each service, and the users and programs that the rules tell
/// apart. Comments, order and wording make no difference. Without arguments the agent's permissions are compared with those that
/// came into force last.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clawcoil policy diff                          what is in force, and what the files say now
  clawcoil policy diff new.toml                 the agent's permissions, and these
  clawcoil policy diff old.toml new/            a file or a folder of files each
  clawcoil policy diff sha256:1f2e3d            what had this hash (the audit log has it), and now
  clawcoil policy diff --skill gmail_send.wasm  what a new version would get, were it approved
  clawcoil policy diff new.toml --no-more       ends with 1 where it allows more")]
pub(crate) struct Diff {
    /// With two places the first is the old one; a single file is the new one, a single hash the old one
    #[arg(value_name = "PERMISSIONS", num_args = 0..=2)]
    places: Vec<String>,

    /// With this version of a skill on the new side, as if it were approved: a component, or a folder that holds it
    #[arg(long, value_name = "PATH")]
    skill: Option<PathBuf>,

    /// End with 1 where the new side allows more
    #[arg(long)]
    no_more: bool,
}

impl Diff {
    pub(super) fn run(self, settings: &Settings, output: &Output) -> Result<(), Failure> {
        let home = agent::home(settings)?;
        let facts = provider::catalogue(&home)?.facts();
        let (old, new) = self.sources(&home)?;
        let policy = |sources: &[Source]| -> Result<Policy, Failure> {
            Ok(Policy::new(Permissions::parse(sources)?, facts.clone()))
        };
        let (old, mut new) = (policy(&old)?, policy(&new)?);
        let registry = Registry::in_folder(home.skills());
        let mut installed = Vec::new();
        for name in registry.names()? {
            installed.push(registry.get(&name)?);
        }
        let mut with_candidate = installed.clone();
        if let Some(path) = &self.skill {
            let candidate = Registry::read(&component_in(path)?, None)?;
            if let Some(before) = installed.iter().find(|skill| skill.name() == candidate.name()) {
                new = new.with_pins_moved(candidate.name(), before.digest, candidate.digest);
            }
            with_candidate.retain(|skill| skill.name() != candidate.name());
            with_candidate.push(candidate);
        }
        let (was, is) = (skills(&installed), skills(&with_candidate));
        let now = agent::clock().now();
        let found = Comparison::between(Side { policy: &old, skills: &was }, Side { policy: &new, skills: &is }, now);
        let object = json!({
            "old": old.hash().to_string(), "new": new.hash().to_string(), "same": found.is_empty(),
            "more": found.more.iter().map(reach).collect::<Vec<_>>(),
            "less": found.less.iter().map(reach).collect::<Vec<_>>(),
            "complete": !found.incomplete, "not_installed": texts(&found.unknown),
        });
        let allows_more = !found.more.is_empty();
        output.answer(object, || {
            found.to_string().lines().map(|line| coloured(line, output)).collect::<Vec<_>>().join("\n")
        })?;
        if self.no_more && allows_more { Err(Failure::already_told()) } else { Ok(()) }
    }

    /// The old permissions and the new ones.
    fn sources(&self, home: &Home) -> Result<(Vec<Source>, Vec<Source>), Failure> {
        let files = || Ok::<_, Failure>(home.permission_sources()?);
        match &*self.places {
            [] if self.skill.is_some() => Ok((files()?, files()?)),
            [] => {
                let kept = home.last_policy().map_err(|error| unreadable(&error))?;
                let kept = kept.ok_or_else(|| {
                    Failure::error(
                        "no policy has been in force yet, as far as this agent remembers; name a file to compare with",
                    )
                })?;
                Ok((kept, files()?))
            }
            [only] if is_hash(only) => Ok((at(home, only)?, files()?)),
            [only] => Ok((files()?, at(home, only)?)),
            [old, new, ..] => Ok((at(home, old)?, at(home, new)?)),
        }
    }
}

fn is_hash(place: &str) -> bool {
    place.starts_with("sha256:")
}

fn at(home: &Home, place: &str) -> Result<Vec<Source>, Failure> {
    if !is_hash(place) {
        return permissions_at(Path::new(place));
    }
    let kept = home.policy_of(place).map_err(|error| unreadable(&error))?;
    kept.ok_or_else(|| {
        Failure::error(format!(
            "{place} names none of the policies that are kept, or several; the audit log has the whole hash, and the latest hundred are kept"
        ))
    })
}

fn unreadable(error: &std::io::Error) -> Failure {
    Failure::error(format!("the policies that were in force can't be read: {error}"))
}

fn skills(installed: &[InstalledSkill]) -> Vec<Skill<'_>> {
    installed.iter().map(|skill| Skill { manifest: &skill.manifest, digest: skill.digest }).collect()
}

fn coloured(line: &str, output: &Output) -> String {
    let line = printable(line);
    match &*line {
        "allows more:" => output.styled("33;1", &line),
        "allows less:" => output.styled("36;1", &line),
        _ => line,
    }
}

fn reach(reach: &Reach) -> Value {
    let Reach { skill, service, users, clients, from, what } = reach;
    json!({
        "skill": skill.as_ref().map(ToString::to_string), "service": service.as_ref().map(ToString::to_string),
        "users": users, "clients": clients, "from": from.map(|from| from.to_string()), "what": what,
    })
}
