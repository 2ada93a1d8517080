//! The first page: what waits for whoever is signed in, and how everything is.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use clawcoil::id::{Owner, ProviderId, UserId};

use super::activity::{Glance, Plot, Totals};
use super::browser::{Role, Visitor};
use super::connections::{Health, Row};
use super::moment::{Moment, took};
use super::page::{self, Page, Place};
use super::trouble::Trouble;
use crate::serve::{App, Problem, Shared};

/// The first page of whoever is signed in.
pub(super) async fn show(State(app): State<Shared>, visitor: Visitor) -> Result<Response, Trouble> {
    match &visitor.role {
        Role::User(user) => own(&app, &visitor, user),
        Role::Operator | Role::Auditor => {
            let glance = Glance::of(&app).await;
            overview(&app, &visitor, glance)
        }
    }
}

/// Somebody asks for an account.
struct Asked {
    id: String,
    client: String,
    provider: String,
    skill: Option<String>,
    until: Moment,
}

#[derive(Template)]
#[template(path = "home.html")]
struct Own {
    page: Page,
    waiting: Vec<Asked>,
    rows: Vec<Row>,
}

/// A user's accounts, and who asks for more.
fn own(app: &App, visitor: &Visitor, user: &UserId) -> Result<Response, Trouble> {
    let owner = Owner::User(user.clone());
    let now = app.host.clock().now();
    let provider =
        |id: &ProviderId| app.host.catalogue().get(id).map_or_else(|| id.to_string(), |entry| entry.name.clone());
    let waiting = app.sessions.open(app, &owner)?;
    let waiting = waiting
        .into_iter()
        .map(|session| Asked {
            client: session.client.to_string(),
            provider: provider(&session.provider),
            skill: session.skill.as_ref().map(ToString::to_string),
            until: Moment::from_now(session.expires_at, now),
            id: session.id,
        })
        .collect();
    let rows = app.host.vault().connections(Some(&owner))?;
    let rows = rows.iter().map(|connection| Row::of(app, connection)).collect();
    let page = Page::of("My accounts", visitor, Place::Home);
    Ok(page::render(StatusCode::OK, &Own { page, waiting, rows }))
}

/// Something that somebody has to look at.
struct Need {
    tone: &'static str,
    kind: &'static str,
    words: String,
    link: String,
    doing: &'static str,
}

/// A step from nothing to the first call.
struct Step {
    done: bool,
    words: &'static str,
    command: String,
}

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    page: Page,
    connections: usize,
    unwell: usize,
    users: usize,
    skills: usize,
    upgrades: usize,
    grants: usize,
    policy: String,
    /// What happened in the last hour.
    hour: Totals,
    plots: Vec<Plot>,
    ticks: Vec<String>,
    words: &'static str,
    /// Half of the calls in it took no longer.
    half: Option<String>,
    needs: Vec<Need>,
    /// How to get going, until the first account is connected.
    steps: Vec<Step>,
}

/// How everything is.
fn overview(app: &App, visitor: &Visitor, glance: Glance) -> Result<Response, Trouble> {
    let host = &app.host;
    let now = host.clock().now();
    let connections = host.vault().connections(None)?;
    let mut needs = Vec::new();
    let permissions =
        host.home().permission_sources().and_then(|sources| clawcoil::policy::Permissions::parse(&sources));
    if let Err(errors) = permissions {
        needs.push(Need {
            tone: "bad",
            kind: "Policy",
            words: match errors.len() {
                1 => "The permissions have an error; those before stay in force.".to_owned(),
                many => format!("The permissions have {many} errors; those before stay in force."),
            },
            link: "/policy".to_owned(),
            doing: "See where",
        });
    }
    let upgrades = host.registry().pending_names().map_err(Problem::from)?;
    for name in &upgrades {
        needs.push(Need {
            tone: "info",
            kind: "Skill",
            words: format!("A new version of {name} waits for approval."),
            link: format!("/skills/{name}"),
            doing: "Compare",
        });
    }
    let unwell: Vec<_> = connections.iter().filter(|connection| Health::of(connection, now).tone != "good").collect();
    for connection in unwell.iter().take(MOST_NAMED) {
        let row = Row::of(app, connection);
        needs.push(Need {
            tone: row.health.tone,
            kind: "Connection",
            words: format!("{} of {}: {}", row.provider, row.owner, row.health.words.to_lowercase()),
            link: format!("/connections/{}", row.id),
            doing: "Look",
        });
    }
    if unwell.len() > MOST_NAMED {
        needs.push(Need {
            tone: "warn",
            kind: "Connection",
            words: format!("{} more connections are not well.", unwell.len() - MOST_NAMED),
            link: "/connections".to_owned(),
            doing: "See all",
        });
    }
    let skills = host.registry().names().map_err(Problem::from)?;
    let policy = host.policy();
    let grants = policy.permissions().granted().count();
    let users: std::collections::BTreeSet<_> =
        connections.iter().filter_map(|connection| connection.owner.user()).collect();
    let steps = if connections.is_empty() || skills.is_empty() || grants == 0 {
        let skill = skills.first().map_or_else(|| "SKILL".to_owned(), ToString::to_string);
        let clients =
            host.catalogue().iter().any(|entry| host.vault().client(&entry.id).is_ok_and(|known| known.is_some()));
        let step = |done, words, command: &str| Step { done, words, command: command.to_owned() };
        vec![
            step(!skills.is_empty(), "Install a skill", "clawcoil skill add ./my-skill"),
            step(clients, "Store this host’s client at a provider", "clawcoil provider add google"),
            step(grants > 0, "Grant the skill what it needs", &format!("clawcoil grant {skill} --user alice")),
            step(!connections.is_empty(), "Connect an account", "clawcoil connect google --user alice"),
        ]
    } else {
        Vec::new()
    };
    let page = Page::of("Overview", visitor, Place::Home);
    let overview = Overview {
        page,
        connections: connections.len(),
        unwell: unwell.len(),
        users: users.len(),
        skills: skills.len(),
        upgrades: upgrades.len(),
        grants,
        policy: policy.hash().to_string().chars().skip("sha256:".len()).take(12).collect(),
        half: glance.totals.took(0.5).map(took),
        hour: glance.totals,
        plots: glance.plots,
        ticks: glance.ticks,
        words: glance.words,
        needs,
        steps,
    };
    Ok(page::render(StatusCode::OK, &overview))
}

/// So many connections that are not well are named.
const MOST_NAMED: usize = 10;
