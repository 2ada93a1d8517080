//! `clawcoil recover`

use clap::Args;
use clawcoil::host::{self, InitError};
use clawcoil::id::AgentId;
use clawcoil::identity::RecoveryKey;
use serde_json::json;

use super::agent;
use crate::exit::Failure;
use crate::output::Output;
use crate::settings::Settings;

/// Give the vault of an agent whose private key is lost to a new identity
#[derive(Debug, Args)]
#[command(after_help = "\
The recovery key was shown once when the agent was made, or is the age identity of
`init --recovery-to`. It is typed at the prompt, or read from stdin; it is never an argument. The
lost identity opens the vault no more.

The keys that seal the tokens stay the same: who has the old identity's key and an older copy of
the database can still open both. If the key may have been stolen, disconnect the accounts, and
connect them in a new home.

Examples:
  clawcoil recover
  clawcoil recover < recovery-key.txt
  clawcoil recover --agent sha256:2b1c… < recovery-key.txt   where the key opens several vaults")]
pub(crate) struct Recover {
    /// The agent whose identity is lost, where the key opens the vaults of several
    #[arg(long, value_name = "ID")]
    agent: Option<AgentId>,
}

impl Recover {
    pub(crate) async fn run(self, settings: &Settings, output: &Output) -> Result<(), Failure> {
        let home = agent::home(settings)?;
        if !home.database().exists() {
            let folder = home.folder().display();
            return Err(Failure::error(format!("there is no vault in {folder}; name its folder with `--home`")));
        }
        // Asked for before the key, so that nobody types it in vain.
        for file in [home.certificate(), home.key()] {
            if file.exists() {
                return Err(InitError::Exists(file.display().to_string()).into());
            }
        }
        let key: RecoveryKey = output.secret("The recovery key").await?.trim().parse()?;
        let made = host::recover(&home, &key, self.agent, agent::clock()).await?;
        let folder = home.folder().display().to_string();
        output.answer(json!({ "agent": made.agent.to_string(), "home": folder }), || {
            format!("The vault in {folder} belongs to a new identity now: {}", made.agent)
        })
    }
}
