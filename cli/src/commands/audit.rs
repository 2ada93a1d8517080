//! `clawcoil audit`

use clap::{Args, Subcommand};
use clawcoil::audit::{self, Entry, Filter};
use clawcoil::id::{ExplanationId, InvocationId, SkillName, UserId};
use serde_json::{Value, json};

use super::agent;
use crate::exit::Failure;
use crate::output::{Output, printable};
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
    #[command(
        after_help = "Examples:\n  clawcoil audit tail\n  clawcoil audit tail --user alice --skill gmail-send --lines 100\n  clawcoil audit tail --explanation why_0123456789abcdef0123456789abcdef     the decision behind a refusal"
    )]
    Tail(Tail),
    /// Check that no entry was changed, moved, added or taken away
    #[command(after_help = "Examples:\n  clawcoil audit verify")]
    Verify,
}

#[derive(Debug, Args)]
struct Tail {
    /// How many
    #[arg(long, short = 'n', default_value_t = 20)]
    lines: usize,

    /// Only about this user
    #[arg(long)]
    user: Option<UserId>,

    /// Only about this skill
    #[arg(long)]
    skill: Option<SkillName>,

    /// Only of this call
    #[arg(long)]
    invocation: Option<InvocationId>,

    /// Only the decisions behind this refusal
    #[arg(long)]
    explanation: Option<ExplanationId>,

    /// Also that programs opened the log, which each command does
    #[arg(long)]
    all: bool,
}

impl AuditCommand {
    pub(crate) async fn run(self, settings: &Settings, output: &Output) -> Result<(), Failure> {
        let home = agent::existing_home(settings)?;
        let key = agent::open_vault(&home).await?.audit_key();
        match self.action {
            Action::Tail(tail) => {
                let filter = Filter {
                    user: tail.user,
                    skill: tail.skill,
                    invocation: tail.invocation,
                    explanation: tail.explanation,
                    without_opened: !tail.all,
                    ..Filter::default()
                };
                let entries = audit::tail(&home.audit(), &key, &filter, tail.lines).map_err(|error| {
                    Failure::error(format!("the audit log in {} can't be read: {error}", home.audit().display()))
                })?;
                show(&entries, output)
            }
            Action::Verify => {
                let summary = audit::verify(&home.audit(), &key)?;
                let object = json!({
                    "chains": summary.chains, "entries": summary.entries, "torn": summary.torn, "epoch": summary.epoch,
                });
                output.answer(object, || {
                    let intact = format!(
                        "{} entries in {} files: nothing was changed, added or taken away.",
                        summary.entries, summary.chains
                    );
                    let torn = summary.torn.iter().map(|chain| {
                        format!("{chain} ends within an entry: a process died while it wrote. Nothing was released under that entry.")
                    });
                    std::iter::once(intact).chain(torn).collect::<Vec<_>>().join("\n")
                })
            }
        }
    }
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
    words.extend(skill);
    words.extend(entry.service.as_ref().or(entry.provider.as_ref()).map(|service| format!("at {service}")));
    let request = [entry.method.as_deref(), entry.origin.as_deref()];
    words.extend(request.into_iter().flatten().map(str::to_owned));
    words.extend(entry.rule.as_ref().map(|rule| format!("by {rule}")));
    words.extend(entry.explanation.clone());
    words.extend(entry.detail.as_ref().map(|detail| format!("({detail})")));
    printable(&words.join("  "))
}
