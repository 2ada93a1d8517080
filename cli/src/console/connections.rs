//! The connected accounts: how they are, and ending them.

use std::collections::BTreeSet;
use std::time::Duration;

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use clawcoil::audit::{Decision, Event, EventKind};
use clawcoil::clock::Timestamp;
use clawcoil::connect::{ConnectError, Disconnected};
use clawcoil::id::{AccountAlias, ConnectionId, Owner};
use clawcoil::vault::{Connection, Kind as Got, State as Standing};
use serde::Deserialize;

use super::access::Access;
use super::browser::Visitor;
use super::form::{Form, Nothing};
use super::moment::Moment;
use super::page::{self, Page, Pages, Place};
use super::trouble::Trouble;
use super::words::{ScopeWords, shown};
use crate::serve::{App, Kind, Problem, Shared};

/// Connections on one page.
const ON_A_PAGE: usize = 50;
/// A grant that ends within this time is worth a word.
const SOON: Duration = Duration::from_hours(7 * 24);
/// A refresh that is later than this is overdue: the schedule looks more often.
const LATE: i64 = 120;

/// How a connection is, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Health {
    /// `good`, `warn` or `bad`.
    pub(super) tone: &'static str,
    /// In two or three words.
    pub(super) words: &'static str,
    /// Why, where it is not good.
    pub(super) why: Option<String>,
}

impl Health {
    pub(super) fn of(connection: &Connection, now: Timestamp) -> Self {
        let say = |tone, words, why: &str| Self { tone, words, why: (!why.is_empty()).then(|| why.to_owned()) };
        match connection.state {
            Standing::NeedsReconnect { reason, .. } => {
                let why = format!("{}: nothing can use it until it is connected again", reason.explanation());
                return say("bad", "Reconnect", &why);
            }
            Standing::Unconfirmed => {
                return say("warn", "Not confirmed", "its user has not said yet that it is the right account");
            }
            Standing::Active => {}
        }
        let passed = |at: Option<Timestamp>, by: i64| at.is_some_and(|at| now.as_second() - at.as_second() > by);
        let soon = now.saturating_add(SOON).unwrap_or(Timestamp::MAX);
        if passed(connection.refresh_at, LATE) {
            say("warn", "Refresh overdue", "the provider could not be reached, or nothing has served in the meantime")
        } else if passed(connection.expires_at, 0) && connection.refresh_at.is_none() {
            say("bad", "Expired", "the provider gave nothing to renew it with: it has to be connected again")
        } else if connection.grant_ends_at.is_some_and(|ends| ends < soon) {
            say(
                "warn",
                "Ends soon",
                "the provider ends the grant itself, however often it is renewed: connect it again before",
            )
        } else {
            say("good", "Healthy", "")
        }
    }
}

/// A connection on a list.
pub(super) struct Row {
    pub(super) id: ConnectionId,
    pub(super) provider: String,
    pub(super) label: Option<String>,
    pub(super) account: Option<String>,
    pub(super) owner: String,
    pub(super) health: Health,
    pub(super) last_used: Option<Moment>,
    pub(super) refresh: Option<Moment>,
    pub(super) ends: Option<Moment>,
}

impl Row {
    pub(super) fn of(app: &App, connection: &Connection) -> Self {
        let now = app.host.clock().now();
        let moment = |at: Option<Timestamp>| at.map(|at| Moment::from_now(at, now));
        Self {
            id: connection.id,
            provider: provider_name(app, connection),
            label: connection.account_label.as_deref().map(shown),
            // An account without a name is told by ours.
            account: Some(connection.account.to_string())
                .filter(|account| account != AccountAlias::DEFAULT || connection.account_label.is_none()),
            owner: owner(&connection.owner),
            health: Health::of(connection, now),
            last_used: moment(connection.last_used_at),
            refresh: moment(connection.refresh_at),
            ends: moment(connection.grant_ends_at),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Wanted {
    #[serde(default)]
    user: String,
    #[serde(default)]
    provider: String,
    #[serde(default)]
    health: String,
    #[serde(default)]
    page: usize,
}

impl Wanted {
    fn is_everything(&self) -> bool {
        self.user.is_empty() && self.provider.is_empty() && self.health.is_empty()
    }
}

#[derive(Template)]
#[template(path = "connections.html")]
struct List {
    page: Page,
    wanted: Wanted,
    providers: BTreeSet<String>,
    rows: Vec<Row>,
    pages: Pages,
}

/// All of them.
pub(super) async fn list(
    State(app): State<Shared>,
    visitor: Visitor,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Trouble> {
    let mut all = app.host.vault().connections(None)?;
    all.retain(|connection| visitor.role.sees(&connection.owner));
    let providers = all.iter().map(|connection| connection.provider.to_string()).collect();
    let now = app.host.clock().now();
    all.retain(|connection| {
        (wanted.user.is_empty() || owner(&connection.owner) == wanted.user.trim())
            && (wanted.provider.is_empty() || connection.provider.as_str() == wanted.provider)
            && (wanted.health.is_empty() || Health::of(connection, now).tone == wanted.health)
    });
    // What wants somebody's attention comes first.
    let urgency = |connection: &Connection| match Health::of(connection, now).tone {
        "bad" => 0,
        "warn" => 1,
        _ => 2,
    };
    all.sort_by_cached_key(|c| (urgency(c), owner(&c.owner), c.provider.to_string(), c.account.to_string()));
    let pages = Pages::of(
        "/connections",
        &[("user", &wanted.user), ("provider", &wanted.provider), ("health", &wanted.health)],
        wanted.page,
        all.len(),
        ON_A_PAGE,
    );
    let rows = all.iter().skip(pages.first()).take(ON_A_PAGE).map(|connection| Row::of(&app, connection)).collect();
    let page = Page::of("Connections", &visitor, Place::Connections);
    Ok(page::render(StatusCode::OK, &List { page, wanted, providers, rows, pages }))
}

#[derive(Template)]
#[template(path = "connection.html")]
struct One {
    page: Page,
    row: Row,
    /// How its tokens are got, in words.
    got: &'static str,
    scopes: Vec<ScopeWords>,
    api: Option<String>,
    created: Moment,
    expires: Option<Moment>,
    generation: u64,
    may_end: bool,
    /// What is typed to connect it again.
    command: String,
    is_staff: bool,
}

/// One of them.
pub(super) async fn show(
    State(app): State<Shared>,
    visitor: Visitor,
    Path(id): Path<String>,
) -> Result<Response, Trouble> {
    let connection = seen(&app, &visitor, &id)?;
    let now = app.host.clock().now();
    let row = Row::of(&app, &connection);
    let entry = app.host.catalogue().get(&connection.provider);
    let words = |scope: &clawcoil::id::Scope| ScopeWords {
        scope: scope.to_string(),
        words: entry.and_then(|entry| entry.scope_words.get(scope).cloned()),
    };
    let whose = match &connection.owner {
        Owner::User(user) => format!("--user {user}"),
        Owner::Agent => "--agent".to_owned(),
    };
    let named = row
        .account
        .as_ref()
        .filter(|account| *account != AccountAlias::DEFAULT)
        .map(|account| format!(" --account {account}"))
        .unwrap_or_default();
    let title = row.label.clone().unwrap_or_else(|| format!("{} of {}", row.provider, row.owner));
    let one = One {
        page: Page::of(title, &visitor, Place::Connections),
        got: match connection.kind {
            Got::AuthorizationCode => "A person consented",
            Got::ClientCredentials => "The agent as itself, by client credentials",
            Got::ApiKey => "An API key that was stored",
            Got::Basic => "A name and a password that were stored",
            Got::StaticBearer => "A token that was stored and never changes",
        },
        scopes: connection.scopes.iter().map(words).collect(),
        api: connection.api_origin.as_ref().map(ToString::to_string),
        created: Moment::at(connection.created_at),
        expires: connection.expires_at.map(|at| Moment::from_now(at, now)),
        generation: connection.generation.0,
        may_end: visitor.role.may_end(&connection.owner),
        command: format!("clawcoil connect {} {whose}{named}", connection.provider),
        is_staff: visitor.role.may(Access::Staff),
        row,
    };
    Ok(page::render(StatusCode::OK, &one))
}

#[derive(Template)]
#[template(path = "disconnect.html")]
struct Ask {
    page: Page,
    row: Row,
    /// Whether the provider can be asked to end the tokens.
    revocable: bool,
}

/// Asks whether it is meant.
pub(super) async fn ask(
    State(app): State<Shared>,
    visitor: Visitor,
    Path(id): Path<String>,
) -> Result<Response, Trouble> {
    let connection = seen(&app, &visitor, &id)?;
    let entry = app.host.catalogue().get(&connection.provider);
    let server = entry.and_then(clawcoil::provider::Provider::server);
    let row = Row::of(&app, &connection);
    let page = Page::of(format!("Disconnect {}?", row.provider), &visitor, Place::Connections);
    let revocable = server.is_some_and(|server| server.revocation.is_some());
    Ok(page::render(StatusCode::OK, &Ask { page, row, revocable }))
}

/// Ends it: its tokens here, then at the provider.
pub(super) async fn end(
    State(app): State<Shared>,
    visitor: Visitor,
    Path(id): Path<String>,
    Form { fields: Nothing {}, .. }: Form<Nothing>,
) -> Result<Response, Trouble> {
    let connection = seen(&app, &visitor, &id)?;
    if !visitor.role.may_end(&connection.owner) {
        return Err(Problem::new(Kind::Forbidden, "you may not end this connection").into());
    }
    // Taking access away is never held up by the log.
    let asked = Event {
        decision: Decision::Allowed,
        user: connection.owner.user().cloned(),
        provider: Some(connection.provider.clone()),
        connection: Some(connection.id),
        detail: Some(format!("asked for by the {}", visitor.words())),
        ..Event::new(EventKind::DisconnectAsked)
    };
    if let Err(error) = app.host.audit().append_aside(asked).await {
        tracing::error!(%error, "who disconnects is missing in the audit log");
    }
    let told = match app.host.connector().disconnect(connection.id).await {
        Ok(gone) => at_provider(&app, &gone),
        Err(ConnectError::Unrecorded { gone, .. }) => {
            let ended: Vec<String> = gone.ended.iter().map(|gone| at_provider(&app, gone)).collect();
            format!("{}\nThe audit log does not tell of it yet: the operator must act.", ended.join("\n"))
        }
        // Somebody was faster.
        Err(ConnectError::UnknownConnection(_)) => return Ok(Redirect::to("/").into_response()),
        Err(error) => return Err(Problem::internal(&error).into()),
    };
    let name = provider_name(&app, &connection);
    let who = connection.account_label.as_deref().map_or_else(|| "The account".to_owned(), shown);
    let text = format!("{who} is removed from this host. {told}");
    let mut page = Page::of(format!("{name} is disconnected"), &visitor, Place::Connections);
    page.back =
        Some(if visitor.role.may(Access::Staff) { ("/connections", "All connections") } else { ("/", "My accounts") });
    Ok(page::notice(&page, StatusCode::OK, &text))
}

/// The connection of this id, if the visitor sees it. What is not theirs is not there.
fn seen(app: &App, visitor: &Visitor, id: &str) -> Result<std::sync::Arc<Connection>, Trouble> {
    let id: Option<ConnectionId> = id.parse().ok();
    let found = id.map(|id| app.host.vault().connection(id)).transpose()?.flatten();
    let seen = found.filter(|connection| visitor.role.sees(&connection.owner));
    let gone = "There is no such connection. It was disconnected, or connected anew under another name.";
    Ok(seen.ok_or_else(|| Problem::new(Kind::NotFound, gone))?)
}

fn at_provider(app: &App, gone: &Disconnected) -> String {
    let name = provider_name(app, &gone.connection);
    match &gone.revoked {
        Some(Ok(())) => format!("{name} has ended its tokens."),
        Some(Err(_)) => format!("{name} did not end its tokens: end them in the account’s own settings there."),
        None => format!("{name} offers no way to end its tokens: end them in the account’s own settings there."),
    }
}

fn provider_name(app: &App, connection: &Connection) -> String {
    let entry = app.host.catalogue().get(&connection.provider);
    entry.map_or_else(|| connection.provider.to_string(), |entry| entry.name.clone())
}

/// Whose it is, for people.
pub(super) fn owner(owner: &Owner) -> String {
    match owner {
        Owner::User(user) => user.to_string(),
        Owner::Agent => "the agent".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use clawcoil::id::Generation;
    use clawcoil::vault::ReconnectReason;

    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn connection() -> Connection {
        Connection {
            id: ConnectionId::from_bytes([7; 16]),
            owner: Owner::Agent,
            provider: "google".parse().unwrap(),
            account: "default".parse().unwrap(),
            kind: Got::AuthorizationCode,
            scopes: BTreeSet::new(),
            api_origin: None,
            account_label: None,
            token_type: "Bearer".to_owned(),
            state: Standing::Active,
            generation: Generation(1),
            created_at: now(),
            last_used_at: None,
            expires_at: Some(at(3600)),
            refresh_at: Some(at(3000)),
            grant_ends_at: None,
        }
    }

    #[test]
    fn the_health_of_a_connection_says_what_is_wrong_before_it_fails() {
        let of = |connection: &Connection| Health::of(connection, now()).words;
        assert_eq!(of(&connection()), "Healthy");
        assert_eq!(
            of(&Connection { refresh_at: Some(at(-60)), ..connection() }),
            "Healthy",
            "the schedule is about to"
        );
        assert_eq!(of(&Connection { refresh_at: Some(at(-600)), ..connection() }), "Refresh overdue");
        assert_eq!(of(&Connection { refresh_at: None, expires_at: Some(at(-1)), ..connection() }), "Expired");
        assert_eq!(of(&Connection { grant_ends_at: Some(at(86_400)), ..connection() }), "Ends soon");
        assert_eq!(of(&Connection { grant_ends_at: Some(at(30 * 86_400)), ..connection() }), "Healthy");
        assert_eq!(of(&Connection { state: Standing::Unconfirmed, ..connection() }), "Not confirmed");
        let over = Standing::NeedsReconnect { reason: ReconnectReason::Refused, since: now() };
        assert_eq!(of(&Connection { state: over, ..connection() }), "Reconnect");
    }
}
