//! `clawcoil policy test`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use clawcoil::diagnostic::{Diagnostics, Source};
use clawcoil::host::Home;
use clawcoil::id::{Digest, SkillName};
use clawcoil::policy::{Case, Cases, Manifest, Permissions, Policy, Subject, Verdict};
use clawcoil::registry::Registry;
use serde_json::{Value, json};

use super::super::{agent, provider};
use super::{denial_json, permissions_at};
use crate::exit::Failure;
use crate::output::{Output, Table};
use crate::settings::Settings;

/// Ask the permissions what they should answer: each [[case]] of a file
///
/// A case names a caller, a skill and what it asks for, and says whether that is to be allowed or denied. The exit code is 1 where
/// an answer is not the expected one. Nothing is called and nothing changes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clawcoil policy test                                    permissions.test.toml of the agent
  clawcoil policy test cases.toml more-cases/             files, and folders of them
  clawcoil policy test --permissions new.toml             before they are saved

A case, of which all but user, skill and expect may be absent:
  [[case]]
  user = \"alice\"
  skill = \"gmail-send\"            # or manifest = \"skill.toml\": any version counts as approved
  service = \"gmail\"               # absent: whether the skill can start
  scopes = [\"…\"]
  account = \"work\"
  method = \"POST\"
  url = \"https://…\"               # a request; or reveal = true: the token in the clear
  at = 2027-06-30                 # absent: now
  expect = \"denied\"               # or \"allowed\"
  code = \"forbidden\"              # why
  rule = \"permissions.toml:12\"    # by which rule")]
pub(crate) struct Test {
    /// Files with cases, and folders of such files; default: permissions.test.toml and permissions.test.d beside the permissions
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Other permissions than the agent's: a file, or a folder of files
    #[arg(long, value_name = "PATH")]
    permissions: Option<PathBuf>,
}

struct Asked {
    file: String,
    case: Case,
    verdict: Verdict,
}

impl Test {
    pub(super) fn run(self, settings: &Settings, output: &Output) -> Result<(), Failure> {
        let home = agent::home(settings)?;
        let sources = match &self.permissions {
            Some(path) => permissions_at(path)?,
            None => home.permission_sources()?,
        };
        let policy = Policy::new(Permissions::parse(&sources)?, provider::catalogue(&home)?.facts());
        let asked = self.ask(&home, &policy)?;
        let failed = asked.iter().filter(|asked| !asked.verdict.is_as_expected()).count();
        let object = json!({
            "policy": policy.hash().to_string(), "passed": asked.len() - failed, "failed": failed,
            "cases": asked.iter().map(to_json).collect::<Vec<_>>(),
        });
        output.answer(object, || shown(&asked, failed, output))?;
        if failed > 0 { Err(Failure::already_told()) } else { Ok(()) }
    }

    fn ask(&self, home: &Home, policy: &Policy) -> Result<Vec<Asked>, Failure> {
        let now = agent::clock().now();
        let registry = Registry::in_folder(home.skills());
        let installed = registry.names()?;
        let mut skills = Skills { registry, known: BTreeMap::new() };
        let mut asked = Vec::new();
        let mut wrong: Vec<Diagnostics> = Vec::new();
        for path in self.paths(home)? {
            let read = Source::open(&path).and_then(|source| Cases::parse(&source));
            let cases = match read {
                Ok(cases) => cases,
                Err(errors) => {
                    wrong.push(errors);
                    continue;
                }
            };
            for case in cases.iter() {
                skills.read(case, &path, &installed)?;
            }
            if let Err(errors) = cases.check(&installed, |case| skills.of(case, &path).map(|(manifest, _)| manifest)) {
                wrong.push(errors);
                continue;
            }
            for case in cases.iter() {
                if let Some((manifest, digest)) = skills.of(case, &path) {
                    let verdict = case.run(policy, manifest, *digest, now);
                    asked.push(Asked { file: path.display().to_string(), case: case.clone(), verdict });
                }
            }
        }
        match wrong.into_iter().reduce(Diagnostics::and) {
            Some(errors) => Err(errors.into()),
            None => Ok(asked),
        }
    }

    fn paths(&self, home: &Home) -> Result<Vec<PathBuf>, Failure> {
        let mut paths = Vec::new();
        for path in &self.files {
            if path.is_dir() { paths.extend(toml_files(path)?) } else { paths.push(path.clone()) }
        }
        if self.files.is_empty() {
            let (file, folder) =
                (home.folder().join("permissions.test.toml"), home.folder().join("permissions.test.d"));
            if file.exists() {
                paths.push(file.clone());
            }
            if folder.is_dir() {
                paths.extend(toml_files(&folder)?);
            }
            if paths.is_empty() {
                let message = format!(
                    "there are no cases: write {}, or name a file; `clawcoil policy test --help` shows a case",
                    file.display()
                );
                return Err(Failure::error(message));
            }
        }
        Ok(paths)
    }
}

/// The files of a folder in the order of their names.
pub(super) fn toml_files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let cant = |error: std::io::Error| Failure::error(format!("{} can't be listed: {error}", folder.display()));
    let entries = folder.read_dir().map_err(cant)?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>().map_err(cant)?;
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "toml"));
    paths.sort();
    if paths.is_empty() {
        return Err(Failure::error(format!("{} holds no file that ends with .toml", folder.display())));
    }
    Ok(paths)
}

/// The manifests that cases are about, and the digest where the skill is installed.
struct Skills {
    registry: Registry,
    known: BTreeMap<Key, (Manifest, Option<Digest>)>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Installed(SkillName),
    Manifest(PathBuf),
}

/// A manifest's path is meant from where the cases stand.
fn key(case: &Case, file: &Path) -> Key {
    match &case.subject {
        Subject::Installed(name) => Key::Installed(name.value.clone()),
        Subject::Manifest(path) => Key::Manifest(file.with_file_name("").join(&path.value)),
    }
}

impl Skills {
    fn read(&mut self, case: &Case, file: &Path, installed: &[SkillName]) -> Result<(), Failure> {
        let key = key(case, file);
        if self.known.contains_key(&key) {
            return Ok(());
        }
        let skill = match &key {
            Key::Installed(name) if installed.contains(name) => {
                let skill = self.registry.get(name)?;
                (skill.manifest, Some(skill.digest))
            }
            Key::Installed(_) => return Ok(()),
            Key::Manifest(path) => (Manifest::parse(&Source::open(path)?)?, None),
        };
        self.known.insert(key, skill);
        Ok(())
    }

    fn of(&self, case: &Case, file: &Path) -> Option<&(Manifest, Option<Digest>)> {
        self.known.get(&key(case, file))
    }
}

fn to_json(asked: &Asked) -> Value {
    let Asked { file, case, verdict } = asked;
    let (rule, denial) = match &verdict.answer {
        Ok(rule) => (rule.as_ref(), None),
        Err(denial) => (denial.rule.as_ref(), Some(denial_json(denial))),
    };
    json!({
        "file": file, "line": case.line.number(), "name": case.to_string(), "passed": verdict.is_as_expected(),
        "allowed": verdict.answer.is_ok(), "rule": rule.map(ToString::to_string), "denial": denial,
        "unexpected": verdict.unexpected,
    })
}

fn shown(asked: &[Asked], failed: usize, output: &Output) -> String {
    let mut table = Table::new(&["", "case", "answer", "decided by"]);
    for Asked { case, verdict, .. } in asked {
        let (answer, rule) = match &verdict.answer {
            Ok(rule) => ("allowed".to_owned(), rule.as_ref()),
            Err(denial) => (format!("denied ({})", denial.code.as_str()), denial.rule.as_ref()),
        };
        let mark = if verdict.is_as_expected() { "ok" } else { "FAILED" };
        table.row([
            mark.to_owned(),
            case.to_string(),
            answer,
            rule.map_or("the default".to_owned(), ToString::to_string),
        ]);
    }
    let mut lines = vec![table.render()];
    for Asked { case, verdict, .. } in asked {
        let Some(unexpected) = &verdict.unexpected else { continue };
        lines.push(format!("{} {}: {case}\n  {unexpected}", output.styled("31;1", "FAILED"), case.line));
        if let Err(denial) = &verdict.answer {
            lines.extend(denial.explain().to_string().lines().map(|line| format!("  {line}")));
        }
        lines.push(String::new());
    }
    lines.push(format!("{} as expected, {failed} not", asked.len() - failed));
    lines.join("\n")
}
