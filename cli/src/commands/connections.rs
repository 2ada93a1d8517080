//! `clawcoil connections`

use clap::{Args, Subcommand};
use clawcoil::connect::{ConnectError, Disconnected, Gone};
use clawcoil::id::{ConnectionId, Owner, UserId};
use clawcoil::vault::{Connection, State};
use serde_json::{Value, json};

use super::agent;
use crate::exit::{Failure, chain};
use crate::output::{Output, Table, texts};
use crate::settings::Settings;

/// The accounts that are connected
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clawcoil connections list --user alice                 what is connected, and its id
  clawcoil connections show con_0123456789abcdef0123456789abcdef
  clawcoil connections disconnect con_0123456789abcdef0123456789abcdef")]
pub(crate) struct Connections {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List them
    #[command(after_help = "Examples:\n  clawcoil connections list\n  clawcoil connections list --user alice --json")]
    List {
        /// Only this user's
        #[arg(long, conflicts_with = "agent")]
        user: Option<UserId>,
        /// Only the agent's own
        #[arg(long)]
        agent: bool,
    },
    /// Show all that is known of one
    #[command(after_help = "Examples:\n  clawcoil connections show con_0123456789abcdef0123456789abcdef")]
    Show {
        /// Which
        connection: ConnectionId,
    },
    /// Remove one: its tokens here, then at the provider
    #[command(after_help = "Examples:\n  clawcoil connections disconnect con_0123456789abcdef0123456789abcdef")]
    Disconnect {
        /// Which
        connection: ConnectionId,
    },
}

impl Connections {
    pub(crate) async fn run(self, settings: &Settings, output: &Output) -> Result<(), Failure> {
        match self.action {
            Action::List { user, agent } => {
                let owner = user.map(Owner::User).or(agent.then_some(Owner::Agent));
                list(owner.as_ref(), settings, output).await
            }
            Action::Show { connection } => show(connection, settings, output).await,
            Action::Disconnect { connection } => disconnect(connection, settings, output).await,
        }
    }
}

async fn list(owner: Option<&Owner>, settings: &Settings, output: &Output) -> Result<(), Failure> {
    let vault = agent::open_vault(&agent::existing_home(settings)?).await?;
    let connections = vault.connections(owner)?;
    let objects: Vec<Value> = connections.iter().map(|connection| to_json(connection)).collect();
    output.answer(json!({ "connections": objects }), || {
        if connections.is_empty() {
            return "No account is connected. Next: clawcoil connect PROVIDER --user …".to_owned();
        }
        let mut table = Table::new(&["connection", "user", "provider", "account", "who", "state"]);
        for connection in &connections {
            table.row([
                connection.id.to_string(),
                connection.owner.to_string(),
                connection.provider.to_string(),
                connection.account.to_string(),
                connection.account_label.clone().unwrap_or_default(),
                state(connection),
            ]);
        }
        table.render()
    })
}

async fn show(id: ConnectionId, settings: &Settings, output: &Output) -> Result<(), Failure> {
    let vault = agent::open_vault(&agent::existing_home(settings)?).await?;
    let connection = vault
        .connection(id)?
        .ok_or_else(|| Failure::error(format!("there is no connection {id}; see `clawcoil connections list`")))?;
    output.answer(json!({ "connection": to_json(&connection) }), || describe(&connection))
}

async fn disconnect(id: ConnectionId, settings: &Settings, output: &Output) -> Result<(), Failure> {
    let host = agent::open_even_if_broken(settings).await?;
    let progress = output.progress("ending the tokens at the provider");
    let gone = host.connector().disconnect(id).await;
    drop(progress);
    let gone = gone.map_err(|error| unrecorded(error, output))?;
    let connection = &gone.connection;
    let revoked = match &gone.revoked {
        Some(Ok(())) => json!("ended"),
        Some(Err(_)) => json!("failed"),
        None => json!("not offered"),
    };
    output.answer(json!({ "connection": to_json(connection), "at_provider": revoked }), || {
        format!("{} of {} is removed. {}", connection.provider, connection.owner, at_provider(&gone))
    })
}

/// Tells what was replaced, and what became of its tokens.
pub(super) fn tell_gone(gone: &Gone, output: &Output) {
    for gone in &gone.ended {
        let who = gone.connection.account_label.as_deref().unwrap_or("An account");
        output.note(format_args!("{who} is removed here. {}", at_provider(gone)));
    }
    for old in &gone.left_alive {
        let (who, provider) = (old.account_label.as_deref().unwrap_or("What was connected before"), &old.provider);
        output.note(format_args!(
            "{who} is removed here. Its tokens were not ended at {provider}, as they may be the same account's as the new \
             ones: if it is another account, end them in its own settings there."
        ));
    }
}

/// The failure that something was done and not recorded, after telling what was done.
pub(super) fn unrecorded(error: ConnectError, output: &Output) -> Failure {
    if let ConnectError::Unrecorded { gone, .. } = &error {
        tell_gone(gone, output);
    }
    error.into()
}

/// What became of a removed connection's tokens at its provider, for people.
pub(super) fn at_provider(gone: &Disconnected) -> String {
    let provider = &gone.connection.provider;
    match &gone.revoked {
        Some(Ok(())) => format!("{provider} has ended its tokens."),
        Some(Err(error)) => format!(
            "{provider} did not end its tokens ({}): end them in the account's own settings there.",
            chain(error)
        ),
        None => {
            format!("{provider} offers no way to end its tokens: end them in the account's own settings there.")
        }
    }
}

fn state(connection: &Connection) -> String {
    match &connection.state {
        State::NeedsReconnect { reason, .. } => format!("{}: {}", connection.state.as_str(), reason.explanation()),
        other => other.as_str().to_owned(),
    }
}

/// A connection for programs.
pub(super) fn to_json(connection: &Connection) -> Value {
    let time = |at: Option<clawcoil::clock::Timestamp>| at.map(|at| at.to_string());
    let owner = match &connection.owner {
        Owner::Agent => Value::Null,
        Owner::User(user) => json!(user.as_str()),
    };
    json!({
        "id": connection.id.to_string(),
        "user": owner,
        "agent": connection.owner == Owner::Agent,
        "provider": connection.provider.as_str(),
        "account": connection.account.as_str(),
        "who": connection.account_label,
        "kind": connection.kind.as_str(),
        "scopes": texts(&connection.scopes),
        "api_origin": connection.api_origin.as_ref().map(ToString::to_string),
        "state": connection.state.as_str(),
        "reason": match &connection.state {
            State::NeedsReconnect { reason, .. } => json!(reason.as_str()),
            State::Unconfirmed | State::Active => Value::Null,
        },
        "generation": connection.generation.0,
        "created_at": connection.created_at.to_string(),
        "last_used_at": time(connection.last_used_at),
        "expires_at": time(connection.expires_at),
        "refresh_at": time(connection.refresh_at),
        "grant_ends_at": time(connection.grant_ends_at),
    })
}

/// A connection for people.
pub(super) fn describe(connection: &Connection) -> String {
    let time =
        |at: Option<clawcoil::clock::Timestamp>, none: &str| at.map_or_else(|| none.to_owned(), |at| at.to_string());
    let scopes = texts(&connection.scopes).join(" ");
    let mut lines = vec![
        format!("connection     {}", connection.id),
        format!("user           {}", connection.owner),
        format!("provider       {} ({})", connection.provider, connection.kind.as_str()),
        format!("account        {}", connection.account),
        format!("who            {}", connection.account_label.as_deref().unwrap_or("the provider did not say")),
        format!("state          {}", state(connection)),
        format!("scopes         {scopes}"),
    ];
    lines.extend(connection.api_origin.as_ref().map(|origin| format!("API            {origin}")));
    lines.push(format!("connected      {}", connection.created_at));
    lines.push(format!("last used      {}", time(connection.last_used_at, "never")));
    lines.push(format!("token expires  {}", time(connection.expires_at, "never, or the provider did not say")));
    lines.push(format!("next refresh   {}", time(connection.refresh_at, "none planned")));
    lines.push(format!("grant ends     {}", time(connection.grant_ends_at, "not known to end")));
    lines.join("\n")
}
