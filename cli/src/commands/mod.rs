//! The commands, one a file.

mod agent;
mod audit;
mod callback;
mod completions;
mod connect;
mod connections;
mod console;
mod demo;
mod doctor;
mod grant;
mod init;
mod mcp;
mod policy;
mod provider;
mod recover;
mod run;
mod sandbox;
mod serve;
mod skill;
mod token;

use clap::{Parser, Subcommand};
use url::Url;

use crate::exit::Failure;
use crate::output::Output;
use crate::settings::{Settings, SettingsArgs};

pub(crate) use agent::replace_file;
pub(crate) use grant::lock_permissions;
pub(crate) use policy::denial_json;

/// How wide help is at most.
const WIDTH: usize = 100;

/// Runs untrusted agent skills with your accounts, without handing them your tokens
#[derive(Debug, Parser)]
#[command(name = "clawcoil", version, propagate_version = true, max_term_width = WIDTH, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,

    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  clawcoil demo                                   see all of it work, without an account
  clawcoil init                                   make this agent's identity and vault
  clawcoil connect google --user alice            connect an account, in the browser
  clawcoil run gmail-send send --user alice to=bob@example.com subject=Hi body=Hello

Exit codes:
  0 done   1 error   2 not understood   3 cancelled   4 an account must be connected first
  5 denied by policy   6 the skill failed or hit a limit   130 interrupted";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(demo::Demo),
    Init(init::Init),
    Recover(recover::Recover),
    Provider(provider::ProviderCommand),
    Connect(connect::Connect),
    Connections(connections::Connections),
    Skill(skill::Skill),
    Grant(grant::Grant),
    Revoke(grant::Revoke),
    Policy(policy::PolicyCommand),
    Run(run::Run),
    Serve(serve::Serve),
    Console(console::Console),
    Mcp(mcp::Mcp),
    Token(token::TokenCommand),
    Audit(audit::AuditCommand),
    Doctor(doctor::Doctor),
    Sandbox(sandbox::Sandbox),
    Completions(completions::Completions),
}

impl Command {
    /// Whether Ctrl-C breaks it off; it is the ordinary end of a server.
    pub(crate) fn is_interruptible(&self) -> bool {
        !matches!(self, Self::Sandbox(_) | Self::Serve(_))
    }

    /// Does what was asked for.
    pub(crate) async fn run(self, settings: &Settings, output: &Output) -> Result<(), Failure> {
        match self {
            Self::Demo(command) => command.run(settings, output).await,
            Self::Init(command) => command.run(settings, output).await,
            Self::Recover(command) => command.run(settings, output).await,
            Self::Provider(command) => command.run(settings, output).await,
            Self::Connect(command) => command.run(settings, output).await,
            Self::Connections(command) => command.run(settings, output).await,
            Self::Skill(command) => command.run(settings, output).await,
            Self::Grant(command) => command.run(settings, output),
            Self::Revoke(command) => command.run(settings, output),
            Self::Policy(command) => command.run(settings, output).await,
            Self::Run(command) => command.run(settings, output).await,
            Self::Serve(command) => command.run(settings, output).await,
            Self::Console(command) => command.run(settings, output).await,
            Self::Mcp(command) => command.run(settings, output).await,
            Self::Token(command) => command.run(settings, output).await,
            Self::Audit(command) => command.run(settings, output).await,
            Self::Doctor(command) => command.run(settings, output).await,
            Self::Sandbox(command) => command.run(output).await,
            Self::Completions(command) => command.run(),
        }
    }
}

/// An address that is given as an argument.
fn address(text: &str) -> Result<Url, String> {
    text.parse().map_err(|_| "an address with its scheme, as https://skills.example.com".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// All commands, by the words that one types, with what stands below their help.
    fn commands(command: &clap::Command, words: &str, found: &mut Vec<(String, String)>) {
        let words = format!("{words}{}", command.get_name());
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        found.push((words.clone(), help));
        command.get_subcommands().for_each(|command| commands(command, &format!("{words} "), found));
    }

    #[test]
    fn each_command_shows_how_it_is_used() {
        let command = Cli::command();
        command.clone().debug_assert();
        let mut found = Vec::new();
        commands(&command, "", &mut found);
        assert!(found.len() > 25, "{found:?}");
        for (words, help) in found {
            assert!(help.contains("Examples:") && help.contains(&words), "`{words} --help` has no example");
            // What is longer is broken where it happens to end.
            let long = help.lines().find(|line| line.chars().count() > WIDTH);
            assert_eq!(long, None, "of `{words} --help` does not fit");
        }
    }

    #[test]
    fn no_argument_takes_a_secret() {
        fn check(command: &clap::Command) {
            for argument in command.get_arguments() {
                let name = argument.get_id().as_str();
                let secret = ["secret", "token", "password", "key"].iter().any(|word| name.contains(word));
                let harmless = matches!(name, "no_secret" | "token_lifetime");
                assert!(!secret || harmless, "--{name} of {}: others can see arguments", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
