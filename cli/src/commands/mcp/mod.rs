//! `clawcoil mcp`

mod clients;
mod entry;
mod install;

use std::sync::Arc;

use clap::{Args, Subcommand};
use clawcoil::id::{Caller, ClientName, UserId};

use super::agent;
use crate::exit::Failure;
use crate::mcp;
use crate::output::Output;
use crate::serve::Config;
use crate::settings::Settings;

/// Serve skills as tools to an agent on this machine, by the Model Context Protocol on stdin and stdout
///
/// The agent starts it by itself. Over HTTP, `clawcoil serve` serves the same at /mcp.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Examples:
  clawcoil mcp install openclaw --user alice    tell an agent of it
  clawcoil mcp --user alice                     as an agent's configuration names it
  clawcoil mcp --user alice --client my-agent   where permissions tell programs apart"
)]
pub(crate) struct Mcp {
    #[command(subcommand)]
    command: Option<McpCommand>,

    /// For whom
    #[arg(long, required = true)]
    user: Option<UserId>,

    /// As which program the permissions know the agent; default: mcp
    #[arg(long, value_name = "NAME")]
    client: Option<ClientName>,
}

#[derive(Debug, Subcommand)]
enum McpCommand {
    Install(install::Install),
}

/// As which program permissions know an agent that starts `clawcoil mcp`.
const CLIENT: &str = "mcp";

impl Mcp {
    pub(crate) async fn run(self, settings: &Settings, output: &Output) -> Result<(), Failure> {
        let user = match (self.command, self.user) {
            (Some(McpCommand::Install(install)), _) => return install.run(settings, output).await,
            (None, Some(user)) => user,
            (None, None) => return Err(Failure::usage("say for whom, with --user")),
        };
        let client = match self.client {
            Some(client) => client,
            None => CLIENT.parse().map_err(|error| Failure::error(format!("{error}")))?,
        };
        let config = Config::of(&agent::existing_home(settings)?)?;
        let host = Arc::new(agent::open(settings).await?);
        let _schedule = host.start_schedule();
        mcp::serve(host, config, Caller { client, user, credential: None }).await
    }
}
