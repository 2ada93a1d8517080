//! `clawcoil token create|list|revoke`

use std::collections::BTreeSet;
use std::time::Duration;

use clap::{Args, Subcommand};
use clawcoil::audit::{Event, EventKind};
use clawcoil::clock::Timestamp;
use clawcoil::id::{ClientName, UserId};
use clawcoil::policy::Pattern;
use serde_json::{Value, json};

use super::agent;
use crate::callers::{CallerToken, NewToken, PREFIX, Scope, Subject, Tokens};
use crate::exit::Failure;
use crate::output::{Output, Table, texts};
use crate::settings::Settings;

/// Give programs the right to call this host, and take it back
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clawcoil token create --agent mail-agent --user alice
  clawcoil token list
  clawcoil token revoke tok_…")]
pub(crate) struct TokenCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Create(Create),
    List(List),
    Revoke(Revoke),
}

/// Make a token for a program; it is shown once
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clawcoil token create --agent mail-agent --user alice
  clawcoil token create --agent mail-agent --user alice --scope invoke --scope connect --expires 90d
  clawcoil token create --agent hub --act-as 'team-a/*'    it names the user with each request
  clawcoil token create --agent ops --scope admin --expires 8h")]
struct Create {
    /// The program, as permissions know it
    #[arg(long, value_name = "CLIENT")]
    agent: ClientName,

    /// For which user it calls
    #[arg(long, conflicts_with = "act_as")]
    user: Option<UserId>,

    /// It names the user with each request, within this pattern; such a token can do nothing but invoke
    #[arg(long, value_name = "PATTERN")]
    act_as: Option<Pattern>,

    /// What it may do; may be repeated
    #[arg(long = "scope", value_name = "SCOPE", value_enum, default_value = "invoke")]
    scopes: Vec<Scope>,

    /// When it ends, as 8h or 90d; `never` must be said
    #[arg(long, value_name = "SPAN", default_value = "90d")]
    expires: String,
}

/// The tokens that are good
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clawcoil token list
  clawcoil token list --json")]
struct List {}

/// End a token at once
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clawcoil token revoke tok_4fQx0cL2mVza")]
struct Revoke {
    /// The token's name, from `clawcoil token list`
    name: String,
}

impl TokenCommand {
    pub(crate) async fn run(self, settings: &Settings, output: &Output) -> Result<(), Failure> {
        let home = agent::existing_home(settings)?;
        let vault = agent::open_vault(&home).await?;
        let tokens = Tokens::in_vault(&vault, agent::clock());
        match self.action {
            Action::Create(create) => {
                let new = create.new_token()?;
                let (token, text) = tokens.issue(new).await?;
                if let Err(failure) = agent::record(&home, &vault, &event(EventKind::TokenCreated, &token)) {
                    // Nobody has seen it yet. Where this fails too, it is in the list of tokens.
                    let _gone = tokens.revoke(&token.name).await;
                    return Err(failure);
                }
                let mut object = token_json(&token);
                if let Some(object) = object.as_object_mut() {
                    object.insert("token".to_owned(), json!(*text));
                }
                let shown =
                    output.answer(object, || format!("{}\n\nIt is shown this once: {}", describe(&token), *text));
                if shown.is_err() {
                    // Nobody has seen it, and nobody would look for it.
                    tokens.revoke(&token.name).await?;
                    agent::record(&home, &vault, &event(EventKind::TokenRevoked, &token))?;
                }
                shown
            }
            Action::List(List {}) => {
                let list = tokens.list()?;
                let object = json!({ "tokens": list.iter().map(token_json).collect::<Vec<_>>() });
                output.answer(object, || {
                    let mut table = Table::new(&["name", "client", "for", "scopes", "until"]);
                    for token in &list {
                        table.row([
                            token.name.clone(),
                            token.client.to_string(),
                            subject(&token.subject),
                            texts(&token.scopes).join(", "),
                            token.expires_at.map_or_else(|| "it is revoked".to_owned(), |at| format!("{at:.0}")),
                        ]);
                    }
                    table.render()
                })
            }
            Action::Revoke(Revoke { name }) => match tokens.revoke(&name).await? {
                Some(token) => {
                    let recorded = agent::record(&home, &vault, &event(EventKind::TokenRevoked, &token));
                    let answered =
                        output.answer(token_json(&token), || format!("{} can't be used any more.", token.name));
                    recorded.and(answered)
                }
                None if name.starts_with(PREFIX) => Err(Failure::usage(
                    "that is the token itself: say its name, which begins with tok_ and is in `clawcoil token list`",
                )),
                None => Err(Failure::error(format!(
                    "there is no token {name:?}; `clawcoil token list` shows those that are good"
                ))),
            },
        }
    }
}

impl Create {
    fn new_token(self) -> Result<NewToken, Failure> {
        let scopes: BTreeSet<Scope> = self.scopes.into_iter().collect();
        let subject = match (self.user, self.act_as) {
            (Some(user), _) => Subject::User(user),
            (None, Some(_)) if scopes != [Scope::Invoke].into() => {
                return Err(Failure::usage(
                    "a token that names its users itself can have no scope but invoke: whoever holds it could connect or change anything for all of them",
                ));
            }
            (None, Some(pattern)) => Subject::ActAs(pattern),
            (None, None) if scopes == [Scope::Admin].into() => Subject::Nobody,
            (None, None) => {
                return Err(Failure::usage("for whom? say --user, or --act-as and a pattern of users"));
            }
        };
        let expires_at = match self.expires.as_str() {
            "never" => None,
            text => Some(until(text)?),
        };
        Ok(NewToken { client: self.agent, subject, scopes, expires_at })
    }
}

/// Ten years.
const LONGEST: Duration = Duration::from_hours(3650 * 24);

fn until(text: &str) -> Result<Timestamp, Failure> {
    let wrong = || Failure::usage(format!("--expires {text:?} is no span: write 8h, 90d, or never"));
    let span: jiff::SignedDuration = {
        let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
        let number: u32 = number.parse().map_err(|_| wrong())?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return Err(wrong()),
        };
        jiff::SignedDuration::from_secs(i64::from(number) * seconds)
    };
    let span = Duration::try_from(span).map_err(|_| wrong())?;
    if span.is_zero() || span > LONGEST {
        return Err(Failure::usage(format!("--expires {text:?}: from 1s to 3650d, or never")));
    }
    agent::clock().now().saturating_add(span).map_err(|_| wrong())
}

fn subject(subject: &Subject) -> String {
    match subject {
        Subject::User(user) => user.to_string(),
        Subject::ActAs(pattern) => format!("any of {pattern}"),
        Subject::Nobody => "nobody".to_owned(),
    }
}

fn describe(token: &CallerToken) -> String {
    let (scopes, until) = (texts(&token.scopes).join(", "), until_when(token));
    format!("{} lets {} call for {} ({scopes}), {until}.", token.name, token.client, subject(&token.subject))
}

fn until_when(token: &CallerToken) -> String {
    token.expires_at.map_or_else(|| "until it is revoked".to_owned(), |at| format!("until {at:.0}"))
}

/// What the audit log is told of a token. For users the log has tags; a pattern that fits more than one stands there as it is.
fn event(kind: EventKind, token: &CallerToken) -> Event {
    let user = match &token.subject {
        Subject::User(user) => Some(user.clone()),
        Subject::ActAs(pattern) => pattern.only().and_then(|user| user.parse().ok()),
        Subject::Nobody => None,
    };
    let act_as = match (&token.subject, &user) {
        (Subject::ActAs(_), Some(_)) => ", act-as".to_owned(),
        (Subject::ActAs(pattern), None) => format!(", act-as {pattern}"),
        (Subject::User(_) | Subject::Nobody, _) => String::new(),
    };
    let detail = format!("{}{act_as}, {}", texts(&token.scopes).join(", "), until_when(token));
    Event {
        client: Some(token.client.clone()),
        credential: token.name.parse().ok(),
        user,
        detail: Some(detail),
        ..Event::new(kind)
    }
}

fn token_json(token: &CallerToken) -> Value {
    let (user, act_as) = match &token.subject {
        Subject::User(user) => (Some(user.as_str()), None),
        Subject::ActAs(pattern) => (None, Some(pattern.as_str())),
        Subject::Nobody => (None, None),
    };
    json!({
        "name": token.name,
        "client": token.client.as_str(),
        "user": user,
        "act_as": act_as,
        "scopes": texts(&token.scopes),
        "created_at": token.created_at.to_string(),
        "expires_at": token.expires_at.map(|at| at.to_string()),
    })
}
