//! `clawcoil sandbox`

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use clawcoil::clock::SystemClock;
use serde_json::json;

use crate::exit::Failure;
use crate::output::Output;
use crate::sandbox::{self, Settings};

/// The port, if nobody says otherwise; `provider add --sandbox` looks for it there.
const PORT: u16 = 8417;

/// Serve a sandbox for skill developers: an authorization server, mail, issues, chat and records on this machine
///
/// Its people are made up and it forgets everything when it stops. Never for real accounts.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clawcoil sandbox                       serve until Ctrl-C
  clawcoil sandbox --token-lifetime 10   tokens that expire while you watch")]
pub(crate) struct Sandbox {
    /// The port on 127.0.0.1; 0 takes any that is free
    #[arg(long, default_value_t = PORT)]
    port: u16,

    /// For how many seconds an access token is good
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u32).range(1..))]
    token_lifetime: u32,
}

impl Sandbox {
    pub(crate) async fn run(self, output: &Output) -> Result<(), Failure> {
        let access_lifetime = Duration::from_secs(self.token_lifetime.into());
        let settings = Settings { port: self.port, access_lifetime, ..Settings::default() };
        let (id, secret) = (settings.client_id.clone(), settings.client_secret.clone());
        let served = sandbox::Sandbox::start(settings, Arc::new(SystemClock::new())).await.map_err(|error| {
            Failure::error(format!("127.0.0.1:{} can't be served: {error}; take another with --port", self.port))
        })?;
        let origin = served.origin();
        // What the command assumes where nothing is said.
        let place = if self.port == PORT { String::new() } else { format!(" {origin}") };
        let object = json!({ "origin": origin, "client_id": id, "client_secret": secret });
        output.answer(object, || {
            format!(
                "ClawCoil's sandbox, for skill developers. Nothing here is a real account.\n\n\
                 origin         {origin}   (mail, issues, chat and records as the real APIs have them)\n\
                 client         {id}, its secret: {secret}\n\
                 what arrived   {origin}/sandbox/inbox\n\
                 everything     {origin}/sandbox/log\n\n\
                 Next, in another terminal: clawcoil provider add google --sandbox{place}\n\n\
                 Ctrl-C stops it."
            )
        })?;
        stopped().await?;
        served.stop().await.map_err(|error| Failure::error(format!("the sandbox ended badly: {error}")))
    }
}

/// Waits for Ctrl-C, which is the ordinary end of a server.
async fn stopped() -> Result<(), Failure> {
    tokio::signal::ctrl_c().await.map_err(|error| Failure::error(format!("Ctrl-C can't be listened for: {error}")))
}
