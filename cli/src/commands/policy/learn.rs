//! `clawcoil policy learn`

use clap::Args;
use clawcoil::host::Learned;
use clawcoil::id::{SkillName, UserId};
use clawcoil::policy::Attempt;
use clawcoil::runtime::End;
use serde_json::{Value, json};

use super::super::{agent, run};
use crate::exit::Failure;
use crate::output::{Output, Table, printable, read_stdin};
use crate::settings::Settings;

/// Run a skill with everything denied, and show the least that would have to be granted for what it tried
///
/// Nothing is sent, no token is given, and nothing is granted: paste the lines that you want to allow. A request is refused, so what
/// a skill would do after its answer is not seen; allow the first, and learn again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clawcoil policy learn gmail-send send --user alice to=bob@example.com subject=Hi body=Hello
  clawcoil policy learn weather --user alice place=Paris
  clawcoil policy learn gmail-send --user alice --input - --json < mail.json")]
pub(crate) struct Learn {
    /// The skill
    skill: SkillName,

    /// The tool; may be left out where the skill has only one
    #[arg(value_name = "TOOL")]
    tool: Option<String>,

    /// Arguments
    #[arg(value_name = "KEY=VALUE")]
    arguments: Vec<String>,

    /// For whom the lines are to be
    #[arg(long)]
    user: UserId,

    /// All arguments as one JSON object; - reads it from stdin
    #[arg(long, value_name = "JSON", conflicts_with = "arguments")]
    input: Option<String>,
}

impl Learn {
    pub(super) async fn run(mut self, settings: &Settings, output: &Output) -> Result<(), Failure> {
        // `learn weather city=Paris`: the first word is an argument, not a tool.
        if let Some(first) = self.tool.take_if(|tool| tool.contains('=')) {
            self.arguments.insert(0, first);
        }
        let input = match self.input.as_deref() {
            Some("-") => Some(read_stdin().await?),
            Some(text) => Some(text.to_owned()),
            None => None,
        };
        let host = agent::open(settings).await?;
        let progress = output.progress("compiling");
        let ready = host.ready(&self.skill).await?;
        drop(progress);
        let tool = match self.tool.as_deref() {
            Some(name) => ready.component.tool(name),
            None => Some(ready.component.tools()).and_then(|tools| if let [only] = tools { Some(only) } else { None }),
        };
        let input = match input {
            Some(text) => run::object(&text)?,
            None => Value::Object(run::arguments(&self.arguments, tool)?),
        };
        let caller = agent::caller(&self.user)?;
        let learned = host.learn(&caller, &self.skill, self.tool.as_deref(), &input).await?;
        if !output.is_json() {
            run::show_logs(&self.skill, &learned.logs, output);
        }
        let lesson = &learned.lesson;
        let grants: String = lesson.grants.iter().map(|grant| grant.lines() + "\n").collect();
        let tried = lesson.tried.iter().map(|(attempt, granted)| to_json(attempt, *granted)).collect::<Vec<_>>();
        let object = json!({
            "skill": self.skill.as_str(), "tried": tried, "grants": grants.trim_end(),
            "unused_services": crate::output::texts(&lesson.unused), "manifest": lesson.undeclared,
            "ended": ended(&learned.end),
        });
        output.answer(object, || self.shown(&learned, &grants))
    }

    fn shown(&self, learned: &Learned, grants: &str) -> String {
        let lesson = &learned.lesson;
        let mut lines = Vec::new();
        if lesson.tried.is_empty() {
            lines.push(format!("{} tried nothing that would have to be granted.", self.skill));
        } else {
            let mut table = Table::new(&["tried", "granted"]);
            for (attempt, granted) in &lesson.tried {
                table.row([printable(&words(attempt)), if *granted { "yes" } else { "no" }.to_owned()]);
            }
            lines.push(table.render());
        }
        lines.push(format!("It ended: {}. Nothing was sent, and no token was given.", ended(&learned.end)));
        for service in &lesson.unused {
            lines.push(format!(
                "Service {service} was not used in this run; the skill does not start without it, so it is below with all that is declared."
            ));
        }
        if !lesson.undeclared.is_empty() {
            lines.push("\nIts manifest does not declare all of it. For its author:\n".to_owned());
            lines.extend(lesson.undeclared.lines().map(|line| format!("    {}", printable(line))));
        }
        if grants.is_empty() {
            lines.push("There is nothing to grant.".to_owned());
        } else {
            lines.push("\nThe least that allows it, for the permissions:\n".to_owned());
            lines
                .extend(grants.trim_end().lines().map(|line| format!("    {}", printable(line)).trim_end().to_owned()));
        }
        lines.join("\n")
    }
}

fn words(attempt: &Attempt) -> String {
    match attempt {
        Attempt::Token { service, scopes, account, audience } => {
            let mut text = format!("the token of {service}");
            if !scopes.is_empty() {
                text.push_str(" for ");
                text.push_str(&scopes.join(" "));
            }
            if let Some(account) = account {
                text.push_str(", account ");
                text.push_str(account.as_str());
            }
            if let Some(audience) = audience {
                text.push_str(", audience ");
                text.push_str(audience.as_str());
            }
            text
        }
        Attempt::Reveal { service } => format!("to see the token of {service}"),
        Attempt::Request { with: Some(service), target } => format!("{target} with the token of {service}"),
        Attempt::Request { with: None, target } => target.to_string(),
    }
}

fn to_json(attempt: &Attempt, granted: bool) -> Value {
    match attempt {
        Attempt::Token { service, scopes, account, audience } => json!({
            "kind": "token", "service": service, "scopes": scopes, "account": account, "audience": audience,
            "granted": granted,
        }),
        Attempt::Reveal { service } => json!({ "kind": "reveal", "service": service.as_str(), "granted": granted }),
        Attempt::Request { with, target } => json!({
            "kind": "request", "service": with.as_ref().map(ToString::to_string), "method": target.method().as_str(),
            "origin": target.origin().to_string(), "path": target.path().as_str(), "granted": granted,
        }),
    }
}

fn ended(end: &End) -> String {
    match end {
        End::Value(_) => "with a result".to_owned(),
        End::ToolError(error) => format!("it says that it failed: {}", printable(&error.to_string())),
        End::Trapped(trapped) => format!("not well: {trapped}"),
        End::Limit(limit) => limit.to_string(),
    }
}
