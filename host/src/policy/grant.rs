//! One rule that allows.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::edit::NewGrant;
use super::manifest::Use;
use super::origin::Origin;
use super::pattern::Pattern;
use super::rate::Rate;
use super::request::{Purpose, RequestRule};
use crate::clock::Timestamp;
use crate::diagnostic::{Diagnostic, Line, Located, Table};
use crate::id::{AccountAlias, Caller, Digest, ProviderId, Scope, ServiceName, SkillName};

/// One `[[grant]]`.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    pub(super) skill: SkillName,
    /// The one version that is approved; absent: `approval = "none"`, any version.
    pub(super) digest: Option<Digest>,
    pub(super) clients: Vec<Pattern>,
    pub(super) users: Vec<Pattern>,
    pub(super) rate: Option<Rate>,
    /// The first moment at which it no longer holds.
    pub(super) ends: Option<Timestamp>,
    pub(super) allowed: Allowed,
    /// A digest of what the grant says, whatever its place in the file.
    pub(super) key: Digest,
    pub(super) line: Line,
    pub(super) places: Places,
}

/// What a grant allows.
#[derive(Debug, Clone)]
pub(super) enum Allowed {
    /// The use of an account.
    Service(Arc<ServiceGrant>),
    /// Requests without a credential.
    Requests(Arc<[RequestRule]>),
}

#[derive(Debug, Clone)]
pub(super) struct ServiceGrant {
    pub(super) service: ServiceName,
    pub(super) provider: ProviderId,
    pub(super) as_agent: bool,
    pub(super) accounts: Option<Vec<AccountAlias>>,
    pub(super) scopes: Vec<Located<Scope>>,
    pub(super) audiences: Vec<String>,
    pub(super) use_: Use,
    /// Absent: the API origins of the provider.
    pub(super) requests: Option<Vec<RequestRule>>,
    pub(super) reveal_with: Vec<Origin>,
}

/// Where its values stand, for errors that are found later.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub(super) file: usize,
    pub(super) skill: Range<usize>,
    pub(super) service: Range<usize>,
    pub(super) provider: Range<usize>,
    pub(super) scopes: Vec<Range<usize>>,
}

impl Grant {
    pub(super) fn is_for(&self, caller: &Caller) -> bool {
        self.clients.iter().any(|pattern| pattern.matches(caller.client.as_str()))
            && self.users.iter().any(|pattern| pattern.matches(caller.user.as_str()))
    }

    /// Whether this grant alone gives all that another would.
    pub(super) fn covers(&self, wanted: &NewGrant) -> bool {
        let named = |patterns: &[Pattern], texts: &[String]| {
            texts.iter().all(|text| patterns.iter().any(|pattern| pattern.matches(text) || pattern.as_str() == text))
        };
        let for_all = || self.clients.contains(&Pattern::everything());
        let clients = if wanted.clients.is_empty() { for_all() } else { named(&self.clients, &wanted.clients) };
        let version = self.digest.is_none() || self.digest == wanted.digest;
        let often = Rate::covers(self.rate, wanted.rate);
        let long = self.ends.is_none_or(|ends| wanted.expires.and_then(day_after).is_some_and(|other| ends >= other));
        let requests = |rules: &[RequestRule]| {
            wanted.requests.iter().all(|rule| rules.iter().any(|known| known.to_string() == rule.to_string()))
        };
        let allowed = match (&self.allowed, &wanted.service) {
            (Allowed::Requests(rules), None) => requests(rules),
            (Allowed::Service(service), Some(other)) => {
                service.service == other.service
                    && service.provider == other.provider
                    && service.as_agent == other.as_agent
                    && service.use_ >= other.use_
                    && service.accounts.as_ref().is_none_or(|accounts| {
                        !other.accounts.is_empty() && other.accounts.iter().all(|account| accounts.contains(account))
                    })
                    && other.scopes.iter().all(|scope| service.scopes.iter().any(|known| known.value == *scope))
                    && other.audiences.iter().all(|audience| service.audiences.contains(audience))
                    && match &service.requests {
                        None => wanted.requests.is_empty(),
                        Some(rules) => !wanted.requests.is_empty() && requests(rules),
                    }
            }
            _ => false,
        };
        self.skill == wanted.skill
            && version
            && clients
            && named(&self.users, &wanted.users)
            && often
            && long
            && allowed
    }

    fn digest_of_words(&self) -> Digest {
        let rules = |rules: &[RequestRule]| {
            let mut texts: Vec<_> = rules.iter().map(RequestRule::to_string).collect();
            texts.sort();
            texts
        };
        let allowed = match &self.allowed {
            Allowed::Requests(requests) => format!("{:?}", rules(requests)),
            Allowed::Service(service) => {
                let scopes: Vec<_> = service.scopes.iter().map(|scope| &scope.value).collect();
                let ServiceGrant {
                    service, provider, as_agent, accounts, audiences, use_, requests, reveal_with, ..
                } = &**service;
                let requests = requests.as_deref().map(rules);
                format!("{:?}", (service, provider, as_agent, accounts, scopes, audiences, use_, requests, reveal_with))
            }
        };
        let Self { skill, digest, clients, users, rate, ends, .. } = self;
        Digest::of(format!("{:?} {allowed}", (skill, digest, clients, users, rate, ends)).as_bytes())
    }

    pub(super) fn read(table: &mut Table<'_>, file: usize) -> Option<Self> {
        table.examples(EXAMPLES);
        let skill = table.parsed::<SkillName>("skill");
        let digest = read_approval(table);
        let clients = table.opt_list::<Pattern>("clients").map_or(vec![Pattern::everything()], values);
        let users = read_users(table);
        let rate = table.opt_parsed::<Rate>("rate");
        let ends = table.opt_date("expires").and_then(day_after);
        let (allowed, scope_places) = if table.has("service") { read_service(table) } else { read_requests(table) };
        let places = Places {
            file,
            skill: table.span_of("skill"),
            service: table.span_of("service"),
            provider: table.span_of("provider"),
            scopes: scope_places,
        };
        for key in ["clients", "users", "accounts", "audiences", "request"] {
            if table.is_empty_list(key) {
                let diagnostic =
                    Diagnostic::new(table.span_of(key), format!("an empty list of `{key}` grants nothing"));
                table.push(diagnostic.help(format!(
                    "fill the list, or remove the grant{}",
                    match key {
                        "accounts" => "; without `accounts` any account may be used",
                        "request" => "; without `request` the token goes to the provider's API origins",
                        _ => "",
                    }
                )));
            }
        }
        let line = table.line();
        let (skill, digest, allowed, key) = (skill?, digest?, allowed?, Digest::from_bytes([0; 32]));
        let mut grant = Self { skill, digest, clients, users, rate, ends, allowed, key, line, places };
        grant.key = grant.digest_of_words();
        Some(grant)
    }
}

const EXAMPLES: &[(&str, &str)] = &[
    ("skill", "\"gmail-send\""),
    ("clients", "[\"*\"]"),
    ("users", "[\"alice\", \"team:sales/*\"]"),
    ("service", "\"gmail\""),
    ("provider", "\"google\""),
    ("scopes", "[\"https://www.googleapis.com/auth/gmail.send\"]"),
    ("accounts", "[\"work\"]"),
    ("request", "[{ origin = \"https://api.example.com\" }]"),
    ("rate", "\"60/min\""),
    ("expires", "2027-06-30"),
    ("reveal_with", "[\"https://api.example.com\"]"),
];

fn values<T>(list: Vec<Located<T>>) -> Vec<T> {
    list.into_iter().map(|item| item.value).collect()
}

fn day_after(date: Date) -> Option<Timestamp> {
    TimeZone::UTC.to_timestamp(date.tomorrow().ok()?.at(0, 0, 0, 0)).ok()
}

fn read_users(table: &mut Table<'_>) -> Vec<Pattern> {
    if !table.has("users") {
        let diagnostic = Diagnostic::new(table.span(), "`users` is missing").label("for whom is this?");
        let help = "for example: users = [\"alice\", \"team:sales/*\"], or users = [\"*\"] for everybody";
        table.push_missing("users", diagnostic.help(help));
    }
    table.opt_list::<Pattern>("users").map_or(Vec::new(), values)
}

/// The pinned digest, or none where the operator gave up pinning. `None` after an error.
#[expect(clippy::option_option, reason = "an error, no pin, a pin")]
fn read_approval(table: &mut Table<'_>) -> Option<Option<Digest>> {
    let digest = table.opt_parsed::<Digest>("digest");
    let each_upgrade = table.opt_word("approval", &[("none", false), ("each-upgrade", true)]);
    match (table.has("digest"), each_upgrade) {
        (true, Some(false)) => {
            let diagnostic = Diagnostic::new(table.span_of("approval"), "a grant without approval has no `digest`");
            table.push(
                diagnostic
                    .label("this says that any version will do")
                    .related(table.span_of("digest"), "and this names the one that was approved")
                    .help("remove one of the two"),
            );
            None
        }
        (true, _) => digest.map(Some),
        (false, Some(false)) => Some(None),
        (false, _) => {
            let diagnostic =
                Diagnostic::new(table.span(), "`digest` is missing").label("which version of the skill is this for?");
            let help = "`clawcoil grant` writes the digest of the version that is installed;\n\
                 approval = \"none\" grants it to every version that will ever be installed under this name";
            table.push_missing("digest", diagnostic.help(help));
            None
        }
    }
}

fn read_service(table: &mut Table<'_>) -> (Option<Allowed>, Vec<Range<usize>>) {
    let service = table.parsed::<ServiceName>("service");
    let provider = table.parsed::<ProviderId>("provider");
    let as_agent = table.opt_word("as", &[("user", false), ("agent", true)]).unwrap_or(false);
    let accounts = table.opt_list::<AccountAlias>("accounts").map(values);
    let scopes = table.opt_list::<Scope>("scopes").unwrap_or_default();
    let audiences = table.opt_strings("audiences").map_or(Vec::new(), values);
    let use_ = table.opt_word("use", &Use::WORDS).unwrap_or(Use::Inject);
    let requests = table.tables("request", |table| RequestRule::read(table, Purpose::Credential));
    let reveal_with = table.opt_list::<Origin>("reveal_with").map_or(Vec::new(), values);
    if table.has("reveal_with") && use_ != Use::Reveal {
        let diagnostic =
            Diagnostic::new(table.span_of("reveal_with"), "`reveal_with` is for a grant that reveals the token");
        table.push(diagnostic.label("this grant does not").help("remove it, or write use = \"reveal\""));
    }
    let requests = table.has("request").then_some(requests);
    let places = scopes.iter().map(|scope| scope.span.clone()).collect();
    let (Some(service), Some(provider)) = (service, provider) else { return (None, places) };
    let grant = ServiceGrant { service, provider, as_agent, accounts, scopes, audiences, use_, requests, reveal_with };
    (Some(Allowed::Service(Arc::new(grant))), places)
}

fn read_requests(table: &mut Table<'_>) -> (Option<Allowed>, Vec<Range<usize>>) {
    let requests = table.tables("request", |table| RequestRule::read(table, Purpose::Plain));
    let service_keys = ["service", "provider", "as", "accounts", "scopes", "audiences", "use", "reveal_with"]
        .map(|key| (key, table.has(key)));
    let written: BTreeMap<_, _> = service_keys.into_iter().filter(|(_, written)| *written).collect();
    if let Some(key) = ["provider", "scopes", "accounts", "use", "as", "audiences", "reveal_with"]
        .iter()
        .find(|key| written.contains_key(*key))
    {
        let diagnostic = Diagnostic::new(table.span_of(key), "`service` is missing");
        table.push(diagnostic.label(format!("`{key}` is about a service: which?")).help(
            "for example: service = \"gmail\", as the skill's manifest calls it; `clawcoil skill inspect` shows the names",
        ));
    } else if !table.has("request") {
        let diagnostic =
            Diagnostic::new(table.span(), "this grants nothing").label("neither a `service` nor a `request`");
        table.push(diagnostic.help(
            "name an account: service = \"gmail\" and provider = \"google\";\n\
             or where the skill may go without one: request = [{ origin = \"https://api.example.com\" }]",
        ));
    }
    // Known keys all the same, so that they are not called unknown too.
    for (key, _) in service_keys {
        table.know(key);
    }
    (Some(Allowed::Requests(requests.into())), Vec::new())
}
