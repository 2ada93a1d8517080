//! `clawcoil connect`

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::sync::Arc;

use clap::{ArgGroup, Args};
use clawcoil::connect::{ConnectError, Connector, PATIENCE};
use clawcoil::host::Host;
use clawcoil::id::{AccountAlias, Owner, ProviderId, Scope, SkillName, UserId};
use clawcoil::policy::Placement;
use clawcoil::provider::{Kind, Provider};
use clawcoil::secret::AccessToken;
use clawcoil::vault::{self, Connection};
use serde_json::json;
use url::Url;

use super::callback::Callback;
use super::{agent, connections, provider};
use crate::exit::{Code, Failure};
use crate::output::Output;
use crate::settings::Settings;

/// Connect an account: in the browser, by client credentials, or with a key
///
/// The account can be used once its owner has seen which one was connected and has said yes.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("owner").args(["user", "agent"]).required(true))]
#[command(after_help = "\
Examples:
  clawcoil connect google --user alice --skill gmail-send    what the skill declares, no more
  clawcoil connect github --user alice --account work --scope repo
  clawcoil connect reports --agent                           the agent itself, by client credentials
  clawcoil connect weather --user alice < key                an API key, from stdin or a prompt")]
pub(crate) struct Connect {
    /// The provider
    provider: ProviderId,

    /// Whose account it is
    #[arg(long)]
    user: Option<UserId>,

    /// The agent's own account
    #[arg(long)]
    agent: bool,

    /// The owner's name for it, for who has several
    #[arg(long, default_value = AccountAlias::DEFAULT)]
    account: AccountAlias,

    /// A scope to ask for; may be given several times
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<Scope>,

    /// Ask for the scopes that this skill declares
    #[arg(long, value_name = "SKILL")]
    skill: Option<SkillName>,

    /// Print the address, open no browser
    #[arg(long)]
    no_browser: bool,

    /// Take the account that comes, without asking whether it is the right one
    #[arg(long)]
    yes: bool,
}

impl Connect {
    pub(crate) async fn run(self, settings: &Settings, output: &Output) -> Result<(), Failure> {
        let host = agent::open(settings).await?;
        let entry = provider::known(host.catalogue(), &self.provider)?;
        let owner = self.user.clone().map_or(Owner::Agent, Owner::User);
        let scopes = self.scopes(&host)?;
        let connection = match &entry.kind {
            Kind::Oauth(_) => {
                let browser = !self.no_browser && settings.desktop && output.interactive();
                self.in_browser(&host, entry, &owner, &scopes, browser, output).await?
            }
            Kind::ClientCredentials(_) if owner == Owner::Agent => {
                host.connector().client_credentials(&self.provider, &self.account, &scopes).await?
            }
            Kind::ClientCredentials(_) => {
                let message =
                    format!("{} knows programs, not people: connect it for the agent, with --agent", entry.name);
                return Err(Failure::usage(message));
            }
            Kind::ApiKey => {
                let secret = AccessToken::new(output.secret(&format!("Key for {}", entry.name)).await?);
                let kind = kind_of_key(&entry.placement);
                host.connector().fixed(&owner, &self.provider, &self.account, kind, &scopes, secret).await?
            }
        };
        output.answer(json!({ "connection": connections::to_json(&connection) }), || {
            format!("{}\n\nNext: clawcoil grant SKILL{}", connections::describe(&connection), whose(&owner))
        })
    }

    /// What was asked for, and what the skill declares for this provider.
    fn scopes(&self, host: &Host) -> Result<BTreeSet<Scope>, Failure> {
        let mut scopes: BTreeSet<Scope> = self.scopes.iter().cloned().collect();
        if let Some(name) = &self.skill {
            let manifest = host.registry().get(name)?.manifest;
            let services: Vec<_> =
                manifest.services.iter().filter(|service| service.provider == self.provider).collect();
            if services.is_empty() {
                return Err(Failure::usage(format!("skill {name} declares no service of provider {}", self.provider)));
            }
            scopes.extend(services.iter().flat_map(|service| service.scopes.iter().cloned()));
        }
        Ok(scopes)
    }

    async fn in_browser(
        &self,
        host: &Host,
        entry: &Provider,
        owner: &Owner,
        scopes: &BTreeSet<Scope>,
        browser: bool,
        output: &Output,
    ) -> Result<Arc<Connection>, Failure> {
        if !self.yes && !output.interactive() {
            return Err(Failure::usage(
                "somebody has to look at the account that is connected: run this at a terminal, or say --yes",
            ));
        }
        let callback = Callback::listen(entry).await?;
        let started = host.connector().start(owner, &self.provider, &self.account, scopes, callback.redirect()).await?;
        show_address(&started.url, browser, output);
        let progress = output.progress("waiting for the consent in the browser; Ctrl-C gives up");
        let connection = wait(host.connector(), callback, owner).await?;
        drop(progress);
        if self.yes || self.accepts(&connection, owner, output).await? {
            let confirmed = host.connector().confirm(connection.id).await;
            let confirmed = confirmed.map_err(|error| connections::unrecorded(error, output))?;
            connections::tell_gone(&confirmed.replaced, output);
            return Ok(confirmed.connection);
        }
        // Unconfirmed tokens are of no use to anybody; the provider is told so.
        let gone = host.connector().disconnect(connection.id).await;
        let gone = gone.map_err(|error| connections::unrecorded(error, output))?;
        if !matches!(gone.revoked, Some(Ok(()))) {
            output.note(connections::at_provider(&gone));
        }
        Err(Failure::new(Code::Cancelled, "nothing was connected: you said that it was not the right account"))
    }

    async fn accepts(&self, connection: &Connection, owner: &Owner, output: &Output) -> Result<bool, Failure> {
        let who = connection.account_label.as_deref().unwrap_or("an account whose name the provider does not say");
        let question = format!("{}: {who}. Is this the account that {owner} wants to use?", self.provider);
        output.confirm(&question, "--yes").await
    }
}

/// Shows where to consent, and opens the browser there if wanted.
pub(super) fn show_address(url: &Url, browser: bool, output: &Output) {
    let opened = browser && open_browser(url.as_str());
    let doing = if opened { "Your browser opens. If it does not, go to" } else { "Go to" };
    output.note(format_args!("{doing}\n\n  {url}\n"));
}

/// Waits for an answer of the browser that is a real one. Others at this machine can open the callback's address, too: what
/// belongs to no attempt of ours ends nothing.
pub(super) async fn wait(
    connector: &Connector,
    mut callback: Callback,
    owner: &Owner,
) -> Result<Arc<Connection>, Failure> {
    let answer = async {
        loop {
            let answer = callback.next().await?;
            match connector.callback(owner, answer.query()).await {
                Ok(connection) => {
                    let who = connection.account_label.as_deref().unwrap_or("your account");
                    answer
                        .respond(&format!("Connected: {who}. You can close this window and go back to the terminal."))
                        .await;
                    return Ok(connection);
                }
                Err(error @ (ConnectError::UnknownState | ConnectError::Redirect(_))) => {
                    answer.respond(&format!("This answer was not taken: {error}")).await;
                }
                Err(error) => {
                    answer.respond("Nothing was connected. The terminal says why.").await;
                    return Err(error.into());
                }
            }
        }
    };
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(connection) => connection,
        Err(_) => Err(Failure::new(Code::Cancelled, "nobody consented within ten minutes: start again")),
    }
}

/// How a key that was typed in is meant to be sent.
fn kind_of_key(placement: &Placement) -> vault::Kind {
    match placement {
        Placement::Bearer => vault::Kind::StaticBearer,
        Placement::Basic { .. } => vault::Kind::Basic,
        Placement::Header { .. } | Placement::Query { .. } | Placement::JsonPointer { .. } => vault::Kind::ApiKey,
    }
}

fn whose(owner: &Owner) -> String {
    match owner {
        Owner::Agent => " --as-agent --user …".to_owned(),
        Owner::User(user) => format!(" --user {user}"),
    }
}

fn open_browser(url: &str) -> bool {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let quiet = || Stdio::null();
    Command::new(program).arg(url).stdin(quiet()).stdout(quiet()).stderr(quiet()).spawn().is_ok()
}
