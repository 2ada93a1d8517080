//! The policy in force: what a skill may do for a user, why, and the operator's own words.

use std::collections::{BTreeMap, BTreeSet};

use askama::Template;
use axum::extract::{Query, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::Response;
use clawcoil::diagnostic::{Line, Source};
use clawcoil::host::Ready;
use clawcoil::id::{Caller, Owner, ServiceName, SkillName, UserId};
use clawcoil::policy::{Denial, Effective, Explanation, Permissions, Route, Target, Use};
use clawcoil::vault::{Found, State as ConnectionState};
use serde::Deserialize;

use super::browser::Visitor;
use super::page::{self, Page, Place};
use super::trouble::Trouble;
use super::words::{Ticked, shown};
use crate::serve::{App, Problem, Shared};

/// So many users are offered for choosing.
const OFFERED: usize = 200;
/// The program that is meant where none is named: the command line.
const CLIENT: &str = "cli";

/// About whom and what is asked.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Question {
    #[serde(default)]
    user: String,
    #[serde(default)]
    skill: String,
    #[serde(default)]
    client: String,
    #[serde(default)]
    method: String,
    #[serde(default)]
    url: String,
}

/// A place in the permissions, and where it is on the page.
struct Rule {
    /// `permissions.toml:12`
    place: String,
    /// `#f0-12`, where the file is shown.
    anchor: Option<String>,
}

/// Why something is as it is.
struct Why {
    name: String,
    provider: Option<String>,
    granted: bool,
    /// One sentence, where it is refused.
    message: Option<Ticked>,
    rules: Vec<Rule>,
    /// The operator's words of a `[[forbid]]`.
    reason: Option<String>,
    /// Under this the refusal is in the audit log.
    explanation: Option<String>,
    facts: Vec<(&'static str, Vec<String>)>,
    /// What would allow it: where, and the lines.
    proposals: Vec<(Ticked, String)>,
}

/// The answer for a skill and a user.
struct Answer {
    skill: SkillName,
    user: UserId,
    client: String,
    services: Vec<Why>,
    /// Of one request that was asked about.
    request: Option<Why>,
    /// That what was asked about is no request: why.
    no_request: Option<String>,
    limits: Vec<(&'static str, String)>,
}

/// A file of permissions, line by line.
struct File {
    name: String,
    lines: Vec<(String, String)>,
}

#[derive(Template)]
#[template(path = "policy.html")]
struct View {
    page: Page,
    question: Question,
    skills: Vec<SkillName>,
    users: BTreeSet<String>,
    /// What of the question is no name.
    wrong: Option<String>,
    answer: Option<Answer>,
    hash: String,
    /// The files on disk have errors, and are not in force.
    errors: Option<String>,
    files: Vec<File>,
    home: String,
}

/// The policy in force, and the answer to a question.
pub(super) async fn show(
    State(app): State<Shared>,
    visitor: Visitor,
    Query(question): Query<Question>,
) -> Result<Response, Trouble> {
    let policy = app.host.policy();
    let hash = policy.hash().to_string();
    let on_disk = app.host.home().permission_sources();
    let errors =
        on_disk.clone().and_then(|sources| Permissions::parse(&sources)).err().map(|errors| errors.to_string());
    // The lines that decided are those of the files as they were read.
    let in_force = app.host.home().policy_of(&hash).ok().flatten();
    let sources = in_force.unwrap_or_else(|| on_disk.unwrap_or_default());
    let skills = app.host.registry().names().map_err(Problem::from)?;
    let mut wrong = None;
    let mut answer = None;
    if !question.user.is_empty() || !question.skill.is_empty() {
        match answered(&app, &question, &sources).await? {
            Ok(found) => answer = Some(found),
            Err(why) => wrong = Some(why),
        }
    }
    let view = View {
        page: Page::of("Policy", &visitor, Place::Policy),
        question,
        skills,
        users: users(&app)?,
        wrong,
        answer,
        hash,
        errors,
        files: sources.iter().enumerate().map(|(number, source)| file(number, source)).collect(),
        home: app.host.home().permissions().display().to_string(),
    };
    Ok(page::render(StatusCode::OK, &view))
}

async fn answered(app: &App, question: &Question, sources: &[Source]) -> Result<Result<Answer, String>, Problem> {
    let Ok(user) = question.user.trim().parse::<UserId>() else {
        return Ok(Err("Name a user, as the programs that call name them: alice, or team-sales/carol.".to_owned()));
    };
    let client = if question.client.trim().is_empty() { CLIENT } else { question.client.trim() };
    let Ok(client) = client.parse() else {
        return Ok(Err("That is no name that a program can have.".to_owned()));
    };
    let Ok(skill) = question.skill.parse::<SkillName>() else {
        return Ok(Err("Choose a skill.".to_owned()));
    };
    let ready = match app.host.ready(&skill).await {
        Ok(ready) => ready,
        Err(error) => return Ok(Err(format!("The skill can’t be used: {}", crate::exit::chain(&error)))),
    };
    let caller = Caller { client, user, credential: None };
    let effective = app.host.effective(&ready, &caller);
    let names = ready.manifest.services.iter().map(|service| &service.name);
    let services = names.map(|name| service(&effective.explain(name), name, sources)).collect();
    let (mut request, mut no_request) = (None, None);
    if !question.url.trim().is_empty() {
        match target(&question.method, question.url.trim()) {
            Ok(target) => request = Some(routed(app, &ready, &caller, &effective, &target, sources)?),
            Err(why) => no_request = Some(why),
        }
    }
    let limits = effective.limits();
    let limits = vec![
        ("Time", format!("{} s", limits.time.as_secs())),
        ("Memory", size(limits.memory)),
        ("Result", size(limits.result)),
        ("Log", size(limits.log)),
        ("Calls at once", limits.calls_per_user.to_string()),
    ];
    let client = caller.client.to_string();
    Ok(Ok(Answer { skill, user: caller.user, client, services, request, no_request, limits }))
}

fn service(explanation: &Explanation, name: &ServiceName, sources: &[Source]) -> Why {
    let (granted, missing, rules) = match explanation {
        Explanation::Denied(denial) => return refused(name.to_string(), denial, sources),
        Explanation::Granted { service, missing_scopes, rules } => (service, missing_scopes, rules),
    };
    let texts = |values: &BTreeSet<_>| values.iter().map(ToString::to_string).collect::<Vec<_>>();
    let account = match (&granted.owner, &granted.accounts) {
        (Owner::Agent, _) => vec!["the agent’s own".to_owned()],
        (Owner::User(_), None) => vec!["any of the user’s".to_owned()],
        (Owner::User(_), Some(accounts)) => accounts.iter().map(ToString::to_string).collect(),
    };
    let requests = granted.requests();
    let goes = if requests.is_empty() {
        vec!["nowhere: what the manifest declares and what the grant lets through have nothing in common".to_owned()]
    } else {
        requests.iter().map(ToString::to_string).collect()
    };
    let use_ = match granted.use_ {
        Use::Inject => "the host puts the token on requests; the skill can’t see it",
        Use::Reveal => "the skill may see the token itself",
    };
    let mut facts = vec![("Use", vec![use_.to_owned()]), ("Account", account), ("May go to", goes)];
    if !granted.scopes.is_empty() {
        facts.push(("Scopes", texts(&granted.scopes)));
    }
    if !missing.is_empty() {
        facts.push(("Declared, not granted", texts(missing)));
    }
    Why {
        name: name.to_string(),
        provider: Some(granted.provider.to_string()),
        granted: true,
        message: None,
        rules: rules.iter().map(|line| rule(line, sources)).collect(),
        reason: None,
        explanation: None,
        facts,
        proposals: Vec::new(),
    }
}

/// Where one request would go, and why.
fn routed(
    app: &App,
    ready: &Ready,
    caller: &Caller,
    effective: &Effective,
    target: &Target,
    sources: &[Source],
) -> Result<Why, Problem> {
    let mut origins = BTreeMap::new();
    for declared in &ready.manifest.services {
        let Ok(granted) = effective.service(&declared.name) else { continue };
        for account in granted.candidates() {
            let found = app.host.vault().find(&granted.owner, &granted.provider, account.as_ref())?;
            if let Found::One(connection) = found
                && connection.state != ConnectionState::Unconfirmed
            {
                origins.extend(connection.api_origin.clone().map(|origin| (declared.name.clone(), origin)));
                break;
            }
        }
    }
    tracing::trace!(user = %caller.user, "a request is asked about");
    let name = target.to_string();
    let allowed = |words: String, line: &Line| Why {
        name: name.clone(),
        provider: None,
        granted: true,
        message: Some(Ticked::of(&words)),
        rules: vec![rule(line, sources)],
        reason: None,
        explanation: None,
        facts: Vec::new(),
        proposals: Vec::new(),
    };
    Ok(match effective.route(target, &origins) {
        Ok(Route::Plain { rule }) => allowed("It goes out as it is, without a credential.".to_owned(), &rule),
        Ok(Route::Service { service, rule }) => {
            allowed(format!("It goes out with the credential of {service}."), &rule)
        }
        Err(denial) => refused(name.clone(), &denial, sources),
    })
}

fn refused(name: String, denial: &Denial, sources: &[Source]) -> Why {
    let short = denial.without_folders();
    let proposals = short.allow.iter().map(|proposal| (Ticked::of(&proposal.place()), proposal.lines.clone()));
    Why {
        name,
        provider: None,
        granted: false,
        message: Some(Ticked::sentence(&denial.message)),
        rules: denial.rule.iter().map(|line| rule(line, sources)).collect(),
        reason: denial.reason.as_deref().map(shown),
        explanation: Some(denial.id.to_string()),
        facts: Vec::new(),
        proposals: proposals.collect(),
    }
}

fn target(method: &str, url: &str) -> Result<Target, String> {
    let method: Method = if method.is_empty() { "GET" } else { method }.parse().map_err(|_| "That is no method.")?;
    let uri: Uri = url.parse().map_err(|_| "Write a whole address: https://api.example.com/v1/things".to_owned())?;
    Target::parse(&method, &uri).map_err(|error| error.to_string())
}

fn rule(line: &Line, sources: &[Source]) -> Rule {
    let number = sources.iter().position(|source| source.name() == line.file());
    Rule { place: line.without_folders().to_string(), anchor: number.map(|number| anchor(number, line.number())) }
}

fn anchor(file: usize, line: usize) -> String {
    format!("f{file}-{line}")
}

fn file(number: usize, source: &Source) -> File {
    let lines = source.text().lines().enumerate();
    File {
        name: source.name().rsplit('/').next().unwrap_or_default().to_owned(),
        lines: lines.map(|(at, text)| (anchor(number, at + 1), shown(&text.replace('\t', "    ")))).collect(),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..1_048_576 => format!("{} KiB", bytes / 1024),
        _ => format!("{} MiB", bytes / 1_048_576),
    }
}

/// Users that are known here: those who have connected something, and those whom a grant names.
fn users(app: &App) -> Result<BTreeSet<String>, Problem> {
    let connections = app.host.vault().connections(None)?;
    let mut users: BTreeSet<String> =
        connections.iter().filter_map(|connection| connection.owner.user()).map(ToString::to_string).collect();
    let policy = app.host.policy();
    let named = policy.permissions().granted().flat_map(|(_, users)| users);
    users.extend(named.filter(|user| !user.contains('*')));
    Ok(users.into_iter().take(OFFERED).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_rule_leads_to_its_line_on_the_page() {
        let source = Source::new("/home/the agent/permissions.toml", "a\nb\n");
        let found = rule(&source.line(2), std::slice::from_ref(&source));
        assert_eq!((found.place.as_str(), found.anchor.as_deref()), ("permissions.toml:2", Some("f0-2")));
        let shown = file(0, &source);
        assert_eq!(shown.name, "permissions.toml");
        assert_eq!(shown.lines[1], ("f0-2".to_owned(), "b".to_owned()));
        assert_eq!(rule(&source.line(0), &[]).anchor, None, "the file is not shown");
    }

    proptest! {
        #[test]
        fn whatever_is_asked_about_is_a_request_or_is_refused_in_words(method in ".{0,8}", url in ".{0,60}") {
            if let Err(why) = target(&method, &url) {
                prop_assert!(!why.is_empty());
            }
        }
    }
}
