//! What a skill declares: `skill.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use super::limits::LimitRules;
use super::request::{OriginRule, Purpose, RequestRule};
use crate::diagnostic::{Diagnostic, Diagnostics, Line, Located, Source, Table};
use crate::id::{Digest, ProviderId, Scope, ServiceName, SkillName};

/// How a service's token may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Use {
    /// The host puts it on requests; the skill never sees it.
    Inject,
    /// As before, and the skill may also ask for the token itself.
    Reveal,
}

impl Use {
    pub(super) const WORDS: [(&'static str, Self); 2] = [("inject", Self::Inject), ("reveal", Self::Reveal)];

    /// `inject` or `reveal`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inject => "inject",
            Self::Reveal => "reveal",
        }
    }
}

/// How it is known which service a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Select {
    /// By where it goes: every request that matches gets the credential.
    Destination,
    /// By the placeholder in it: a request without one is not this service's.
    Placeholder,
}

/// A service that a skill needs: a provider, scopes, and where the requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceDeclaration {
    /// What the code passes to `get-token`.
    pub name: ServiceName,
    /// The provider.
    pub provider: ProviderId,
    /// The scopes; empty where the provider has none.
    pub scopes: BTreeSet<Scope>,
    /// How the token is used.
    pub use_: Use,
    /// Whether a call may start without the connection.
    pub optional: bool,
    /// Why, in words for the person who connects the account.
    pub reason: Option<String>,
    /// How requests are told from those of other services.
    pub select: Select,
    /// Where the requests go.
    pub requests: Vec<RequestRule>,
    /// Where the service is declared.
    pub line: Line,
}

/// What an author says of a tool beyond its type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolWords {
    /// A name for people.
    pub title: Option<String>,
    /// What the tool does.
    pub description: Option<String>,
    /// What each argument means, by the argument's name.
    pub arguments: BTreeMap<String, String>,
}

/// A skill's version, as in `1.2.3` or `1.2.3-beta.1`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version(Box<str>);

impl Version {
    /// The version as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Version {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (numbers, rest) = text.split_at(text.find(['-', '+']).unwrap_or(text.len()));
        let number = |part: &str| (1..=9).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        let good_rest = rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"-+.".contains(&b)) && rest.len() != 1;
        if text.len() <= 64 && numbers.split('.').count() == 3 && numbers.split('.').all(number) && good_rest {
            Ok(Self(text.into()))
        } else {
            Err("a version is three numbers, as in \"1.2.3\", and may go on after a hyphen, as in \"1.2.3-beta.1\"")
        }
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// What a skill declares: the author's word, which never decides by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The skill.
    pub name: SkillName,
    /// Its version.
    pub version: Version,
    /// What it does, in one sentence.
    pub description: String,
    /// The accounts it needs.
    pub services: Vec<Arc<ServiceDeclaration>>,
    /// Where it goes without a credential.
    pub requests: Arc<[RequestRule]>,
    /// What it wishes for of the machine.
    pub limits: LimitRules,
    /// Words about its tools, by name.
    pub tools: BTreeMap<String, ToolWords>,
    /// Where the skill is named.
    pub line: Line,
    text: Digest,
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    ///
    /// All that is wrong with it at once.
    pub fn parse(source: &Source) -> Result<Self, Diagnostics> {
        Table::read(source, |root| {
            if !root.has("skill") {
                let diagnostic =
                    Diagnostic::new(root.span(), "`skill` is missing").label("a manifest begins with [skill]");
                let help = "for example:\n[skill]\nname = \"gmail-send\"\nversion = \"0.1.0\"\n\
                     description = \"Send an email from your Gmail account\"";
                root.push_missing("skill", diagnostic.help(help));
            }
            let skill = root.opt_table("skill", |skill| {
                skill.examples(&[
                    ("name", "\"gmail-send\""),
                    ("version", "\"0.1.0\""),
                    ("description", "\"Send an email from your Gmail account\""),
                ]);
                let (name, version) = (skill.parsed::<SkillName>("name"), skill.parsed::<Version>("version"));
                let description = sentence(skill, "description", 300);
                if !skill.has("description") {
                    skill.string("description");
                }
                Some((name?, version?, description?, skill.line()))
            });
            let services = root.tables("service", read_service);
            let requests = root.tables("request", |table| RequestRule::read(table, Purpose::Plain)).into();
            let limits = root.opt_table("limits", |table| Some(LimitRules::read(table, false))).unwrap_or_default();
            let tools = root.named_tables("tool", |name, table| Some(read_tool(name, table))).into_iter().collect();
            check_services(root, &services);
            let (name, version, description, line) = skill?;
            let services = services.into_iter().map(|service| Arc::new(service.value)).collect();
            let text = Digest::of(source.text().as_bytes());
            Some(Self { name, version, description, services, requests, limits, tools, line, text })
        })
    }

    /// The digest that a grant pins: it covers the component and the manifest's text.
    pub fn skill_digest(&self, component: &Digest) -> Digest {
        let mut bytes = b"clawcoil skill v1\0".to_vec();
        bytes.extend_from_slice(component.as_bytes());
        bytes.extend_from_slice(self.text.as_bytes());
        Digest::of(&bytes)
    }

    /// A service by its name.
    pub fn service(&self, name: &str) -> Option<&ServiceDeclaration> {
        self.services.iter().map(|service| &**service).find(|service| service.name.as_str() == name)
    }
}

/// A text for people, of one line and bounded.
fn sentence(table: &mut Table<'_>, key: &str, max: usize) -> Option<String> {
    table.opt_parsed_by(key, |text| {
        if text.chars().any(char::is_control) {
            Err("it is one line, without control characters".to_owned())
        } else if text.trim().is_empty() {
            Err("it says nothing".to_owned())
        } else if text.chars().count() > max {
            Err(format!("it is longer than {max} characters"))
        } else {
            Ok(text.to_owned())
        }
    })
}

fn read_service(table: &mut Table<'_>) -> Option<Located<ServiceDeclaration>> {
    table.examples(&[
        ("name", "\"gmail\""),
        ("provider", "\"google\""),
        ("scopes", "[\"https://www.googleapis.com/auth/gmail.send\"]"),
        ("reason", "\"to send the message you asked for\""),
        ("request", "[{ origin = \"https://gmail.googleapis.com\" }]"),
    ]);
    let name = table.parsed::<ServiceName>("name");
    let provider = table.parsed::<ProviderId>("provider");
    let scopes = table.opt_list::<Scope>("scopes").unwrap_or_default();
    let use_ = table.opt_word("use", &Use::WORDS).unwrap_or(Use::Inject);
    let optional = table.opt_bool("optional").unwrap_or(false);
    let select = [("destination", Select::Destination), ("placeholder", Select::Placeholder)];
    let select = table.opt_word("select", &select).unwrap_or(Select::Destination);
    let reason = sentence(table, "reason", 300);
    let requests = table.tables("request", |table| RequestRule::read(table, Purpose::Credential));
    if use_ == Use::Reveal && !table.has("reason") {
        let diagnostic = Diagnostic::new(table.span_of("use"), "a service that reveals its token needs a `reason`");
        table.push(diagnostic.label("the skill would see the token").help(
            "the person reads the reason before connecting: reason = \"to sign the webhook with it\"\n\
             if the host can put the token on the requests instead, write use = \"inject\"",
        ));
    }
    if use_ == Use::Inject && !table.has("request") {
        let name = name.as_ref().map_or("…", ServiceName::as_str);
        let message = format!("service `{name}` does not say where its requests go");
        let diagnostic =
            Diagnostic::new(table.span(), message).label("without a [[service.request]] its token goes nowhere");
        let help = "add below it:\n[[service.request]]\norigin = \"https://api.example.com\"\nmethods = [\"POST\"]";
        table.push_missing("request", diagnostic.help(help));
    }
    let (span, line) = (table.span_of("name"), table.line());
    let scopes = scopes.into_iter().map(|scope| scope.value).collect();
    let (name, provider) = (name?, provider?);
    let value = ServiceDeclaration { name, provider, scopes, use_, optional, reason, select, requests, line };
    Some(Located { value, span })
}

fn read_tool(name: Located<String>, table: &mut Table<'_>) -> (String, ToolWords) {
    let good = name.value.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !good || !name.value.starts_with(|c: char| c.is_ascii_lowercase()) {
        let diagnostic = Diagnostic::new(name.span, format!("{:?} can't be the name of a tool", name.value));
        table.push(
            diagnostic.label("a tool is named as in its WIT: lower-case letters, digits and hyphens, a letter first"),
        );
    }
    let (title, description) = (sentence(table, "title", 100), text(table, "description"));
    let mut arguments = BTreeMap::new();
    for (argument, words) in table.named_strings("arguments") {
        arguments.insert(argument.value, words.value);
    }
    (name.value, ToolWords { title, description, arguments })
}

/// A text for people and models, of several lines.
fn text(table: &mut Table<'_>, key: &str) -> Option<String> {
    table.opt_parsed_by(key, |text| {
        let hostile = |c: char| c.is_control() && c != '\n' && c != '\t';
        if text.contains(hostile) || text.len() > 4_000 {
            Err("it has at most 4000 bytes and no control characters")
        } else {
            Ok(text.to_owned())
        }
    })
}

/// What can be wrong between two services.
fn check_services(root: &Table<'_>, services: &[Located<ServiceDeclaration>]) {
    for (index, later) in services.iter().enumerate() {
        for earlier in services.iter().take(index) {
            let (a, b) = (&earlier.value, &later.value);
            if a.name == b.name {
                let diagnostic = Diagnostic::new(later.span.clone(), format!("two services are called `{}`", b.name));
                root.push(
                    diagnostic
                        .related(earlier.span.clone(), "the first")
                        .help("`get-token` needs a name for each: rename one"),
                );
            } else if claims_same(a, b) {
                root.push(both_claim(&later.span, &earlier.span, a, b));
            }
        }
    }
}

fn claims_same(a: &ServiceDeclaration, b: &ServiceDeclaration) -> bool {
    let by_destination = a.select == Select::Destination && b.select == Select::Destination;
    // Two providers have no API origin in common.
    let apart = |x: &RequestRule| a.provider != b.provider && x.origin == OriginRule::ApiOrigin;
    by_destination && a.requests.iter().any(|x| b.requests.iter().any(|y| x.overlaps(y) && !apart(x)))
}

fn both_claim(
    later: &Range<usize>,
    earlier: &Range<usize>,
    a: &ServiceDeclaration,
    b: &ServiceDeclaration,
) -> Diagnostic {
    let both = a.requests.iter().find(|x| b.requests.iter().any(|y| x.overlaps(y)));
    let place = both.map_or(String::new(), |rule| format!(" to {}", rule.origin));
    let message = format!("services `{}` and `{}` both claim requests{place}", a.name, b.name);
    Diagnostic::new(later.clone(), message)
        .label("which credential should such a request get?")
        .related(earlier.clone(), "the other")
        .help("give them different `methods` or `paths`, or write select = \"placeholder\" in one of them:\nits token then goes only on requests that carry its placeholder")
}
