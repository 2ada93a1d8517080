//! `clawcoil audit`

use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Subcommand};
use clawcoil::audit::{self, Decision, Entry, EventKind, Filter};
use clawcoil::clock::Timestamp;
use clawcoil::diagnostic::parse_duration;
use clawcoil::host::Home;
use clawcoil::id::{
    ClientName, ConnectionId, CredentialName, ExplanationId, InvocationId, ProviderId, ServiceName, SkillName, UserId,
};
use serde_json::{Value, json};

use super::agent;
use crate::exit::Failure;
use crate::output::{Output, printable, write};
use crate::settings::Settings;

/// What happened
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clawcoil audit tail --user alice                       what was done for alice lately
  clawcoil audit verify                                  whether the log is whole")]
pub(crate) struct AuditCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the last entries
    #[command(after_help = "\
Examples:
  clawcoil audit tail
  clawcoil audit tail --user alice --skill gmail-send --lines 100
  clawcoil audit tail --kind released --since 2h
  clawcoil audit tail --explanation why_0123456789abcdef0123456789abcdef    why it was refused")]
    Tail(Tail),
    /// Write entries to stdout as lines of JSON, oldest first
    ///
    /// Each line is the entry as it stands in the log, with a first member `file` that names the chain.
    #[command(after_help = "\
Examples:
  clawcoil audit export > audit.jsonl
  clawcoil audit export --since 2026-11-01 --until 2026-12-01 --decision denied
  clawcoil audit export --user alice --kind released | jq .origin")]
    Export(Export),
    /// Check that no entry was changed, moved, added or taken away
    ///
    /// Checkpoints beside the log and in the places that audit.toml names are checked too: against one that lies where nobody
    /// who can cut the log can reach it, a cut is noticed.
    #[command(after_help = "\
Examples:
  clawcoil audit verify
  clawcoil audit verify --against /mnt/witness/agent
  clawcoil audit verify --against kept.checkpoint")]
    Verify(Verify),
    /// Show how far the log has come, signed, to be kept elsewhere
    ///
    /// Each is a signed note (C2SP tlog-checkpoint) over the entries of one file of the log. `audit verify --against` takes them.
    #[command(after_help = "\
Examples:
  clawcoil audit checkpoints > kept.checkpoint
  clawcoil audit checkpoints --json     also the keys that verifiers of signed notes take")]
    Checkpoints,
}

#[derive(Debug, Args)]
struct Tail {
    /// How many
    #[arg(long, short = 'n', default_value_t = 20)]
    lines: usize,

    #[command(flatten)]
    which: Which,

    /// Also that programs opened the log, which each command does
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args)]
struct Verify {
    /// A folder or a file with checkpoints that were kept elsewhere
    #[arg(long, value_name = "PATH")]
    against: Vec<PathBuf>,
}

#[derive(Debug, Args)]
struct Export {
    #[command(flatten)]
    which: Which,
}

/// Which entries; all conditions must hold.
#[derive(Debug, Args)]
struct Which {
    /// Only of this kind
    #[arg(long, value_parser = kind())]
    kind: Option<EventKind>,

    /// Only what was decided, or ended, so
    #[arg(long, value_parser = decision())]
    decision: Option<Decision>,

    /// Only about this user
    #[arg(long)]
    user: Option<UserId>,

    /// Only about this program
    #[arg(long)]
    client: Option<ClientName>,

    /// Only about this credential, as `clawcoil token list` names it
    #[arg(long, value_name = "NAME")]
    credential: Option<CredentialName>,

    /// Only about this skill
    #[arg(long)]
    skill: Option<SkillName>,

    /// Only about this service of a skill
    #[arg(long)]
    service: Option<ServiceName>,

    /// Only about this provider
    #[arg(long)]
    provider: Option<ProviderId>,

    /// Only about this connection
    #[arg(long, value_name = "ID")]
    connection: Option<ConnectionId>,

    /// Only of this call
    #[arg(long, value_name = "ID")]
    invocation: Option<InvocationId>,

    /// Only the decisions behind this refusal
    #[arg(long, value_name = "ID")]
    explanation: Option<ExplanationId>,

    /// Only from then on: a time, a date (UTC), or how long ago, as 90m, 2h, 7d
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,

    /// Only before then
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
}

impl Which {
    fn filter(self, without_opened: bool) -> Filter {
        Filter {
            kind: self.kind,
            decision: self.decision,
            user: self.user,
            client: self.client,
            credential: self.credential,
            skill: self.skill,
            service: self.service,
            provider: self.provider,
            connection: self.connection,
            invocation: self.invocation,
            explanation: self.explanation,
            since: self.since,
            until: self.until,
            without_opened,
        }
    }
}

fn kind() -> impl clap::builder::TypedValueParser<Value = EventKind> {
    PossibleValuesParser::new(EventKind::ALL.iter().map(|kind| kind.as_str())).try_map(|word| word.parse())
}

fn decision() -> impl clap::builder::TypedValueParser<Value = Decision> {
    PossibleValuesParser::new(Decision::ALL.iter().map(|decision| decision.as_str())).try_map(|word| word.parse())
}

/// `2026-11-24T08:00:00Z`, `2026-11-24`, or `2h` for two hours ago.
fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    if let Ok(time) = format!("{text}T00:00:00Z").parse() {
        return Ok(time);
    }
    let ago = parse_duration(text).ok().and_then(|ago| agent::clock().now().saturating_sub(ago).ok());
    ago.ok_or_else(|| "write a time as 2026-11-24T08:00:00Z, a date as 2026-11-24, or how long ago as 2h".to_owned())
}

impl AuditCommand {
    pub(crate) async fn run(self, settings: &Settings, output: &Output) -> Result<(), Failure> {
        let home = agent::existing_home(settings)?;
        let key = agent::open_vault(&home).await?.audit_key();
        match self.action {
            Action::Tail(tail) => {
                let filter = tail.which.filter(!tail.all);
                let entries = audit::tail(&home.audit(), &key, &filter, tail.lines);
                show(&entries.map_err(|error| unreadable(&home, &error))?, output)
            }
            Action::Export(export) => {
                let entries = audit::entries(&home.audit(), &key, &export.which.filter(false));
                for entry in entries.map_err(|error| unreadable(&home, &error))? {
                    write(&entry.map_err(|error| unreadable(&home, &error))?.exported())?;
                }
                Ok(())
            }
            Action::Checkpoints => {
                let newest = audit::checkpoints(&home.audit(), &key)?;
                let objects: Vec<Value> = newest
                    .iter()
                    .map(|checkpoint| {
                        json!({
                            "file": checkpoint.chain, "entries": checkpoint.size, "root": checkpoint.root.to_string(),
                            "note": checkpoint.note, "verifier": checkpoint.verifier,
                        })
                    })
                    .collect();
                output.answer(json!({ "checkpoints": objects }), || {
                    newest.iter().map(|checkpoint| checkpoint.note.as_str()).collect()
                })
            }
            Action::Verify(verify) => {
                let mut places = home.audit_settings()?.witnesses();
                places.extend(verify.against.iter().cloned());
                let summary = audit::verify_with(&home.audit(), &key, &places)?;
                if let Some(place) = verify.against.iter().find(|place| summary.silent.contains(place)) {
                    return Err(Failure::error(format!(
                        "{} has no checkpoint of this log, so nothing was compared with it; `clawcoil audit checkpoints` gives those to keep",
                        place.display()
                    )));
                }
                let object = json!({
                    "chains": summary.chains, "entries": summary.entries, "checkpoints": summary.checkpoints,
                    "torn": summary.torn, "epoch": summary.epoch, "silent": summary.silent,
                });
                output.answer(object, || {
                    let intact = format!(
                        "{} entries in {} files: nothing was changed, added or taken away. {} signed checkpoints agree.",
                        summary.entries, summary.chains, summary.checkpoints
                    );
                    let torn = summary.torn.iter().map(|chain| {
                        format!("{chain} ends within an entry: a process died while it wrote. Nothing was released under that entry.")
                    });
                    let silent = summary.silent.iter().map(|place| silence(place));
                    std::iter::once(intact).chain(torn).chain(silent).collect::<Vec<_>>().join("\n")
                })
            }
        }
    }
}

/// A place that is to have checkpoints, and has none.
pub(super) fn silence(place: &Path) -> String {
    format!(
        "{} has no checkpoint of this log: nothing has been written since audit.toml names it, or somebody has emptied it",
        place.display()
    )
}

fn unreadable(home: &Home, error: &std::io::Error) -> Failure {
    Failure::error(format!("the audit log in {} can't be read: {error}", home.audit().display()))
}

fn show(entries: &[Entry], output: &Output) -> Result<(), Failure> {
    let objects: Vec<Value> = entries.iter().filter_map(|entry| serde_json::from_str(&entry.json).ok()).collect();
    output.answer(json!({ "entries": objects }), || {
        if entries.is_empty() {
            return "There is no such entry.".to_owned();
        }
        entries.iter().map(line).collect::<Vec<_>>().join("\n")
    })
}

fn line(entry: &Entry) -> String {
    let mut words = vec![format!("{:.0}", entry.time), entry.kind.clone()];
    words.extend(entry.decision.clone());
    let skill = entry.skill.as_ref().map(|skill| match &entry.tool {
        Some(tool) => format!("{skill}.{tool}"),
        None => skill.clone(),
    });
    if skill.is_none() {
        // What people and operators do.
        words.extend([&entry.client, &entry.credential].into_iter().flatten().cloned());
    }
    words.extend(skill);
    words.extend(entry.service.as_ref().or(entry.provider.as_ref()).map(|service| format!("at {service}")));
    let request = [entry.method.as_deref(), entry.origin.as_deref()];
    words.extend(request.into_iter().flatten().map(str::to_owned));
    words.extend(entry.rule.as_ref().map(|rule| format!("by {rule}")));
    words.extend(entry.explanation.clone());
    words.extend(entry.detail.as_ref().map(|detail| format!("({detail})")));
    printable(&words.join("  "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_a_date_or_how_long_ago() {
        let time = |text: &str| moment(text).unwrap().to_string();
        assert_eq!(time("2026-11-24T08:00:00+01:00"), "2026-11-24T07:00:00Z");
        assert_eq!(time("2026-11-24"), "2026-11-24T00:00:00Z");
        assert!(moment("2h").unwrap() < agent::clock().now());
        for wrong in ["", "yesterday", "2026-13-01", "2", "99999999999999999999d"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }
}
