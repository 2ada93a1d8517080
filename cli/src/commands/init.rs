//! `clawcoil init`

use clap::Args;
use clawcoil::host::{self, InitError};
use clawcoil::identity::{Recovery, RecoveryKey};
use serde_json::json;

use super::agent;
use crate::exit::Failure;
use crate::output::Output;
use crate::settings::Settings;

/// Make this agent: its identity, its vault, and permissions that grant nothing
#[derive(Debug, Args)]
#[command(after_help = "\
Whoever loses the agent's private key has lost every connection, unless there is a recovery key. At
a terminal `init` makes one and shows it once; elsewhere say which of the two you want.

Examples:
  clawcoil init                         show a new recovery key, once
  clawcoil init --recovery-to age1ql3…  a key that you have already, made with age-keygen
  clawcoil init --no-recovery --home /srv/agent")]
pub(crate) struct Init {
    /// Who can recover the vault: an age X25519 recipient, whose secret you keep elsewhere
    #[arg(long, value_name = "RECIPIENT", conflicts_with = "no_recovery")]
    recovery_to: Option<String>,

    /// Nobody can recover the vault
    #[arg(long)]
    no_recovery: bool,
}

impl Init {
    pub(crate) async fn run(self, settings: &Settings, output: &Output) -> Result<(), Failure> {
        let home = agent::home(settings)?;
        let (recovery, key) = self.recovery(output)?;
        if let Some(key) = key {
            // Whoever gives up here has no agent yet, and so none whose recovery key was never written down.
            if agent::existing_home(settings).is_ok() {
                return Err(InitError::Exists(home.folder().display().to_string()).into());
            }
            show_once(output, &key).await?;
        }
        let made = host::init(&home, &recovery, agent::clock()).await?;
        let folder = home.folder().display().to_string();
        let object = json!({ "agent": made.agent.to_string(), "home": folder, "recovery": recovery.recipient() });
        output.answer(object, || {
            let recovery =
                recovery.recipient().unwrap_or_else(|| "none: keep a copy of identity.key in a safe place".to_owned());
            format!(
                "This agent is {}\nhome       {folder}\nrecovery   {recovery}\n\n\
                 Next: clawcoil provider list, then clawcoil provider add …",
                made.agent
            )
        })
    }

    fn recovery(&self, output: &Output) -> Result<(Recovery, Option<RecoveryKey>), Failure> {
        match &self.recovery_to {
            Some(recipient) => Ok((Recovery::to(recipient)?, None)),
            None if self.no_recovery => Ok((Recovery::none(), None)),
            None if output.interactive() => {
                let (recovery, key) = Recovery::generate();
                Ok((recovery, Some(key)))
            }
            None => Err(Failure::usage(
                "a new recovery key is shown at a terminal only: say --recovery-to RECIPIENT, or --no-recovery",
            )),
        }
    }
}

/// The key goes to the terminal and nowhere else: not to stdout, which may be a file.
async fn show_once(output: &Output, key: &RecoveryKey) -> Result<(), Failure> {
    output.note("This is the recovery key. It opens the vault if the agent's own key is lost. Write it down and keep it elsewhere;");
    output.note("it is not stored and not shown again:\n");
    output.note(format_args!("    {}\n", key.expose().as_str()));
    while !output.confirm("Have you written it down?", "--recovery-to or --no-recovery").await? {}
    Ok(())
}
