//! `clawcoil console`

use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Args;
use clawcoil::id::UserId;
use clawcoil::secret::ClientSecret;
use serde_json::json;
use url::Url;

use super::{address, agent};
use crate::connecting::check_asked;
use crate::console::{Link, Links, Role, keep_client_secret};
use crate::exit::Failure;
use crate::output::Output;
use crate::settings::Settings;

/// How long a server of this machine may take to answer that it is there.
const PATIENCE: Duration = Duration::from_secs(1);

/// Sign in at the console of the running `clawcoil serve`, by a link that is good once
///
/// The link is good for five minutes, and signs in whoever opens it: give it to nobody but the person for whom you make it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clawcoil console                                   as an operator, in the browser
  clawcoil console --user alice                      as a user, to connect accounts and end them
  clawcoil console --user alice --connect cs_…       to the account that an agent asks for
  clawcoil console --auditor --print                 print the link, open nothing
  clawcoil console --set-client < secret             for sign-in at an identity provider")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct Console {
    /// As this user
    #[arg(long, value_name = "USER", conflicts_with_all = ["operator", "auditor"])]
    user: Option<UserId>,

    /// As an operator; the default
    #[arg(long, conflicts_with = "auditor")]
    operator: bool,

    /// As somebody who sees everything and changes nothing
    #[arg(long)]
    auditor: bool,

    /// Show this connect session then
    #[arg(long, value_name = "SESSION", requires = "user", conflicts_with_all = ["operator", "auditor"])]
    connect: Option<String>,

    /// Where browsers reach `clawcoil serve`; default: `public_url` or `listen` of serve.toml, or
    /// <http://127.0.0.1:8418>
    #[arg(long, value_name = "URL", value_parser = address)]
    url: Option<Url>,

    /// Print the link, open no browser
    #[arg(long)]
    print: bool,

    /// Instead: store the secret of this host's client at the identity provider ([console] of serve.toml); it is asked for,
    /// or read from stdin. A public client needs none
    #[arg(long, conflicts_with_all = ["user", "operator", "auditor", "connect", "url", "print"])]
    set_client: bool,
}

impl Console {
    pub(crate) async fn run(self, settings: &Settings, output: &Output) -> Result<(), Failure> {
        let home = agent::existing_home(settings)?;
        let vault = agent::open_vault(&home).await?;
        if self.set_client {
            let secret = ClientSecret::new(output.secret("Secret of the client at the identity provider").await?);
            keep_client_secret(&vault, &secret).await?;
            let told = "Stored. It is used from the next sign-in on.";
            return output.answer(json!({ "client_secret": "stored" }), || told.to_owned());
        }
        let base = match self.url.clone() {
            Some(url) => url,
            None => super::serve::expected_origins(&home)?.url("/"),
        };
        if let (Some(session), Some(user)) = (&self.connect, &self.user) {
            check_asked(&vault, session, user)?;
        }
        let role = match (&self.user, self.auditor) {
            (Some(user), _) => Role::User(user.clone()),
            (None, true) => Role::Auditor,
            (None, false) => Role::Operator,
        };
        let next = self.connect.as_ref().map_or_else(|| "/".to_owned(), |session| format!("/connect/{session}"));
        let who = role.to_string();
        let (path, expires_at) = Links::in_vault(&vault, agent::clock()).make(&Link { role, next }).await?;
        let url =
            base.join(&path).map_err(|error| Failure::usage(format!("{base} is no address of a server: {error}")))?;
        let answers = !is_silent(&base).await;
        if !answers {
            output
                .note(format!("Nothing listens at {base} yet: start `clawcoil serve`, or say with --url where it is."));
        }
        let opened = answers && !self.print && settings.desktop && output.interactive() && open(&url);
        output.answer(json!({ "url": url.as_str(), "expires_at": expires_at.to_string(), "as": who }), || {
            let doing = if opened { "Your browser opens. If it does not, go to" } else { "Go to" };
            format!("{doing}\n\n  {url}\n\nThe link signs in as {who}, once, within five minutes.")
        })
    }
}

/// Whether nobody listens there, as far as this machine can tell: what others serve is not asked.
async fn is_silent(base: &Url) -> bool {
    let addresses = base.socket_addrs(|| None).unwrap_or_default();
    if addresses.is_empty() || !addresses.iter().all(|address| address.ip().is_loopback()) {
        return false;
    }
    let connected = tokio::time::timeout(PATIENCE, tokio::net::TcpStream::connect(addresses.as_slice())).await;
    matches!(connected, Ok(Err(_)))
}

fn open(url: &Url) -> bool {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let quiet = || Stdio::null();
    Command::new(program).arg(url.as_str()).stdin(quiet()).stdout(quiet()).stderr(quiet()).spawn().is_ok()
}
