//! What an operator expects of the permissions: cases that are asked of the policy, as tests are.
//!
//! ```toml
//! [[case]]
//! name = "alice may send, and only that"
//! client = "cli"                      # absent: "cli"
//! user = "alice"
//! skill = "gmail-send"                # an installed skill; or manifest = "skill.toml", any version of which counts as approved
//! service = "gmail"
//! scopes = ["https://www.googleapis.com/auth/gmail.send"]
//! account = "work"
//! method = "POST"                     # absent: GET
//! url = "https://gmail.googleapis.com/gmail/v1/users/me/messages/send"
//! at = 2027-06-30                     # absent: now
//! expect = "allowed"
//!
//! [[case]]
//! user = "contractor-7"
//! skill = "gmail-send"
//! service = "gmail"
//! reveal = true
//! expect = "denied"
//! code = "forbidden"                  # absent: for whatever reason
//! ```
//!
//! A case with a `url` is about that request, one with `reveal` about the token in the clear, one with a `service` alone about
//! `get-token`, and one with none of them about whether the skill can start.

use std::collections::BTreeMap;
use std::fmt;

use http::{Method, Uri};
use jiff::tz::TimeZone;

use super::decide::{Effective, Route};
use super::denial::{Denial, DenialCode};
use super::effective::{Policy, Skill};
use super::manifest::Manifest;
use super::origin::Origin;
use super::target::Target;
use crate::clock::Timestamp;
use crate::diagnostic::{Diagnostic, Diagnostics, Line, Located, Source, Table, did_you_mean};
use crate::id::{AccountAlias, Caller, ClientName, Digest, Scope, ServiceName, SkillName, UserId};

/// The cases of a file.
#[derive(Debug, Clone)]
pub struct Cases {
    source: Source,
    cases: Vec<Case>,
}

/// One question, and the answer that is expected.
#[derive(Debug, Clone)]
pub struct Case {
    /// As the operator calls it; absent: it is called by what it asks.
    pub name: Option<String>,
    /// Who calls, for whom.
    pub caller: Caller,
    /// Of which skill.
    pub subject: Subject,
    /// Where the case stands.
    pub line: Line,
    service: Option<Located<ServiceName>>,
    scopes: Vec<Located<Scope>>,
    account: Option<AccountAlias>,
    audience: Option<String>,
    target: Option<Target>,
    api_origin: Option<Origin>,
    reveal: bool,
    at: Option<Timestamp>,
    expected: Expected,
}

/// Which skill a case is about.
#[derive(Debug, Clone)]
pub enum Subject {
    /// The installed one of this name, in its installed version.
    Installed(Located<SkillName>),
    /// The one that this manifest declares, in whatever version.
    Manifest(Located<String>),
}

#[derive(Debug, Clone)]
struct Expected {
    allowed: bool,
    code: Option<DenialCode>,
    rule: Option<String>,
}

/// What the policy answered, and whether that was expected.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The answer: the rule that allows, where one rule does, or the refusal.
    pub answer: Result<Option<Line>, Box<Denial>>,
    /// What is not as it was expected to be.
    pub unexpected: Option<String>,
}

impl Verdict {
    /// Whether the answer is the one that was expected.
    pub fn is_as_expected(&self) -> bool {
        self.unexpected.is_none()
    }
}

impl Cases {
    /// Reads the cases of a file.
    ///
    /// # Errors
    ///
    /// All that is wrong with them at once.
    pub fn parse(source: &Source) -> Result<Self, Diagnostics> {
        let cases = Table::read(source, |root| {
            if !root.has("case") {
                let diagnostic = Diagnostic::new(root.span(), "`case` is missing").label("there is nothing to test");
                let help = "for example:\n[[case]]\nuser = \"alice\"\nskill = \"gmail-send\"\nexpect = \"allowed\"";
                root.push_missing("case", diagnostic.help(help));
            }
            Some(root.tables("case", Case::read))
        })?;
        Ok(Self { source: source.clone(), cases })
    }

    /// The cases in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Case> {
        self.cases.iter()
    }

    /// Holds the names in the cases against the skills that they are about. `manifest_of` finds a case's manifest.
    ///
    /// # Errors
    ///
    /// Each skill that is not installed, and each service and scope that is likely misspelled: a case that expects a refusal
    /// would pass by its mistake.
    pub fn check<'m>(
        &self,
        installed: &[SkillName],
        manifest_of: impl Fn(&Case) -> Option<&'m Manifest>,
    ) -> Result<(), Diagnostics> {
        let found = self.cases.iter().flat_map(|case| case.wrong_names(installed, manifest_of(case))).collect();
        Diagnostics::of(&self.source, found).map_or(Ok(()), Err)
    }
}

const EXAMPLES: &[(&str, &str)] = &[
    ("user", "\"alice\""),
    ("client", "\"cli\""),
    ("skill", "\"gmail-send\""),
    ("manifest", "\"gmail-send/skill.toml\""),
    ("service", "\"gmail\""),
    ("scopes", "[\"https://www.googleapis.com/auth/gmail.send\"]"),
    ("url", "\"https://gmail.googleapis.com/gmail/v1/users/me/messages/send\""),
    ("expect", "\"denied\""),
];

impl Case {
    fn read(table: &mut Table<'_>) -> Option<Self> {
        table.examples(EXAMPLES);
        let name = table.opt_string("name");
        let user = table.parsed::<UserId>("user");
        let client = if table.has("client") { table.parsed::<ClientName>("client") } else { "cli".parse().ok() };
        let subject = read_subject(table);
        let service = located(table, "service", Table::opt_parsed::<ServiceName>);
        let scopes = table.opt_list::<Scope>("scopes").unwrap_or_default();
        let account = table.opt_parsed::<AccountAlias>("account");
        let audience = table.opt_string("audience");
        let reveal = table.opt_bool("reveal").unwrap_or(false);
        let api_origin = table.opt_parsed::<Origin>("api_origin");
        let method = table.opt_parsed_by("method", |text| Method::from_bytes(text.as_bytes())).unwrap_or(Method::GET);
        let target = table.opt_parsed_by("url", |text| {
            let uri = text.parse::<Uri>().map_err(|error| error.to_string())?;
            Target::parse(&method, &uri).map_err(|error| error.to_string())
        });
        let at = table.opt_date("at").and_then(|date| TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok());
        let expected = read_expected(table);
        needs(table, &["scopes", "account", "audience", "reveal", "api_origin"], "service");
        needs(table, &["method", "api_origin"], "url");
        if reveal && table.has("url") {
            let diagnostic = Diagnostic::new(table.span_of("reveal"), "a case asks for the token or sends a request");
            table.push(diagnostic.related(table.span_of("url"), "the request").help("write two [[case]]"));
        }
        let line = table.line();
        let caller = Caller::new(client?, user?);
        let (subject, expected) = (subject?, expected?);
        Some(Self {
            name,
            caller,
            subject,
            line,
            service,
            scopes,
            account,
            audience,
            target,
            api_origin,
            reveal,
            at,
            expected,
        })
    }

    /// Asks the policy. Without a digest each grant of the skill counts as approved for this version.
    pub fn run(&self, policy: &Policy, manifest: &Manifest, digest: Option<Digest>, now: Timestamp) -> Verdict {
        let any_version;
        let (policy, digest) = if let Some(digest) = digest {
            (policy, digest)
        } else {
            any_version = policy.for_any_version(&manifest.name);
            (&any_version, Digest::of(b"any version"))
        };
        let at = self.at.unwrap_or(now);
        let effective = policy.effective(&Skill { manifest, digest }, &self.caller, at);
        let answer = self.ask(&effective, at).map_err(Box::new);
        let unexpected = self.expected.violated(&answer);
        Verdict { answer, unexpected }
    }

    fn ask(&self, effective: &Effective, at: Timestamp) -> Result<Option<Line>, Denial> {
        let Some(Located { value: service, .. }) = &self.service else {
            return match &self.target {
                Some(target) => match effective.route(target, &BTreeMap::new())? {
                    Route::Plain { rule } | Route::Service { rule, .. } => Ok(Some(rule)),
                },
                None => effective.denied_services().next().map_or(Ok(None), Err),
            };
        };
        let asks_elsewhere = self.reveal || self.target.is_some();
        let mut rule = None;
        if !asks_elsewhere || !self.scopes.is_empty() || self.audience.is_some() {
            let scopes: Vec<String> = self.scopes.iter().map(|scope| scope.value.to_string()).collect();
            let account = self.account.as_ref().map(AccountAlias::as_str);
            let selected = effective.token(service.as_str(), &scopes, account, self.audience.as_deref(), at)?;
            rule = Some(selected.rule);
        }
        if self.reveal {
            rule = Some(effective.permit_reveal(service, self.account.as_ref(), at)?.rule().clone());
        }
        if let Some(target) = &self.target {
            let (account, api_origin) = (self.account.as_ref(), self.api_origin.as_ref());
            rule = Some(effective.permit_inject(service, target, account, api_origin, at)?.rule().clone());
        }
        Ok(rule)
    }

    fn wrong_names(&self, installed: &[SkillName], manifest: Option<&Manifest>) -> Vec<Diagnostic> {
        let Some(manifest) = manifest else {
            let Subject::Installed(name) = &self.subject else { return Vec::new() };
            let diagnostic = Diagnostic::new(name.span.clone(), format!("no skill `{}` is installed", name.value));
            return vec![match did_you_mean(name.value.as_str(), installed.iter().map(SkillName::as_str)) {
                Some(near) => diagnostic.label(format!("did you mean `{near}`?")),
                None => {
                    diagnostic.help("name an installed skill, or the file of one's manifest: manifest = \"skill.toml\"")
                }
            }];
        };
        let Some(service) = &self.service else { return Vec::new() };
        let Some(declared) = manifest.service(service.value.as_str()) else {
            let message = format!("the manifest of `{}` declares no service `{}`", manifest.name, service.value);
            let diagnostic = Diagnostic::new(service.span.clone(), message);
            let known: Vec<_> = manifest.services.iter().map(|declared| declared.name.as_str()).collect();
            return vec![match did_you_mean(service.value.as_str(), known.iter().copied()) {
                Some(near) => diagnostic.label(format!("did you mean `{near}`?")),
                None if known.is_empty() => diagnostic.label("it declares none"),
                None => diagnostic.label(format!("it declares {}", known.join(", "))),
            }];
        };
        let misspelled = self.scopes.iter().filter_map(|scope| {
            let known = declared.scopes.iter().map(Scope::as_str);
            let near =
                (!declared.scopes.contains(&scope.value)).then(|| did_you_mean(scope.value.as_str(), known))??;
            let message = format!("service `{}` declares no scope {:?}", declared.name, scope.value);
            Some(Diagnostic::new(scope.span.clone(), message).label(format!("did you mean {near:?}?")))
        });
        misspelled.collect()
    }
}

impl fmt::Display for Case {
    /// The name, or else what is asked.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            return f.write_str(name);
        }
        let skill = match &self.subject {
            Subject::Installed(name) => name.value.as_str(),
            Subject::Manifest(path) => &path.value,
        };
        write!(f, "{} for {}", skill, self.caller.user)?;
        if self.caller.client.as_str() != "cli" {
            write!(f, " by {}", self.caller.client)?;
        }
        match (&self.service, self.reveal) {
            (Some(service), true) => write!(f, ": reveal {}", service.value)?,
            (Some(service), false) => write!(f, ": {}", service.value)?,
            (None, _) => {}
        }
        for scope in &self.scopes {
            write!(f, " {}", scope.value)?;
        }
        match &self.target {
            Some(target) => write!(f, ": {target}"),
            None => Ok(()),
        }
    }
}

impl Expected {
    fn violated(&self, answer: &Result<Option<Line>, Box<Denial>>) -> Option<String> {
        let rule = match answer {
            Ok(rule) => rule.as_ref(),
            Err(denial) => denial.rule.as_ref(),
        };
        match answer {
            Ok(_) if !self.allowed => {
                let by = rule.map_or(String::new(), |rule| format!(" by {rule}"));
                return Some(format!("expected to be denied, and is allowed{by}"));
            }
            Err(denial) if self.allowed => return Some(format!("expected to be allowed, and is denied: {denial}")),
            Err(denial) => {
                if let Some(code) = self.code.filter(|code| *code != denial.code) {
                    let (expected, is) = (code.as_str(), denial.code.as_str());
                    return Some(format!("expected to be denied as {expected}, and is denied as {is}"));
                }
            }
            Ok(_) => {}
        }
        let expected = self.rule.as_ref()?;
        let text = rule.map_or("no rule".to_owned(), ToString::to_string);
        let same = text == *expected || text.strip_suffix(expected.as_str()).is_some_and(|path| path.ends_with('/'));
        (!same).then(|| format!("expected to be decided by {expected}, and is decided by {text}"))
    }
}

fn located<'s, T>(
    table: &mut Table<'s>,
    key: &str,
    read: impl FnOnce(&mut Table<'s>, &str) -> Option<T>,
) -> Option<Located<T>> {
    let value = read(table, key)?;
    Some(Located { value, span: table.span_of(key) })
}

fn read_subject(table: &mut Table<'_>) -> Option<Subject> {
    if table.has("skill") && table.has("manifest") {
        table.know("manifest");
        let diagnostic = Diagnostic::new(table.span_of("manifest"), "a case is about one skill");
        table.push(diagnostic.related(table.span_of("skill"), "the installed one").help("remove one of the two"));
    }
    if table.has("manifest") {
        let manifest = located(table, "manifest", Table::opt_string).map(Subject::Manifest);
        table.know("skill");
        return manifest;
    }
    if !table.has("skill") {
        let diagnostic = Diagnostic::new(table.span(), "`skill` is missing").label("which skill is this about?");
        let help = "for example: skill = \"gmail-send\", or manifest = \"gmail-send/skill.toml\" for one that is not installed";
        table.push_missing("skill", diagnostic.help(help));
    }
    located(table, "skill", Table::opt_parsed).map(Subject::Installed)
}

fn read_expected(table: &mut Table<'_>) -> Option<Expected> {
    if !table.has("expect") {
        let diagnostic = Diagnostic::new(table.span(), "`expect` is missing").label("what is to be the answer?");
        table.push_missing("expect", diagnostic.help("expect = \"allowed\", or expect = \"denied\""));
    }
    let allowed = table.opt_word("expect", &[("allowed", true), ("denied", false)]);
    let words: Vec<_> = DenialCode::ALL.iter().map(|code| (code.as_str(), *code)).collect();
    let code = table.opt_word("code", &words);
    let rule = table.opt_parsed_by("rule", |text| match text.rsplit_once(':') {
        Some((file, line)) if !file.is_empty() && line.parse::<usize>().is_ok() => Ok(text.to_owned()),
        _ => Err("a rule is named by its file and line, as in \"permissions.toml:12\""),
    });
    if allowed == Some(true) && table.has("code") {
        let diagnostic = Diagnostic::new(table.span_of("code"), "`code` says why something is denied");
        table.push(diagnostic.related(table.span_of("expect"), "this is to be allowed").help("remove one of the two"));
    }
    Some(Expected { allowed: allowed?, code, rule })
}

/// Keys that say nothing without another.
fn needs(table: &mut Table<'_>, keys: &[&str], other: &str) {
    if table.has(other) {
        return;
    }
    if let Some(key) = keys.iter().find(|key| table.has(key)) {
        let diagnostic = Diagnostic::new(table.span_of(key), format!("`{key}` says nothing without `{other}`"));
        table.push(diagnostic.help(format!("add {other} = \"…\", or remove `{key}`")));
    }
}
