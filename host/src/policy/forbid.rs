//! One rule that beats every grant.

use std::ops::Range;

use super::manifest::Use;
use super::pattern::Pattern;
use super::request::OriginRule;
use crate::diagnostic::{Diagnostic, Line, Table};
use crate::id::{Caller, ProviderId, Scope, ServiceName, SkillName};

/// One `[[forbid]]`: all that it names must be so for it to hold.
#[derive(Debug, Clone)]
pub(super) struct Forbid {
    pub(super) skill: Option<Pattern>,
    pub(super) clients: Option<Vec<Pattern>>,
    pub(super) users: Option<Vec<Pattern>>,
    pub(super) service: Option<ServiceName>,
    pub(super) provider: Option<ProviderId>,
    pub(super) what: What,
    pub(super) reason: Option<Box<str>>,
    pub(super) line: Line,
    pub(super) places: Places,
}

/// What is forbidden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// Everything.
    Everything,
    /// Requests to an origin.
    Origin(OriginRule),
    /// Some scopes.
    Scopes(Vec<Scope>),
    /// The token in the clear.
    Reveal,
}

#[derive(Debug, Clone)]
pub(super) struct Places {
    pub(super) file: usize,
    pub(super) provider: Range<usize>,
}

impl Forbid {
    /// Whether the rule is about this skill and caller.
    pub(super) fn concerns(&self, skill: &SkillName, caller: &Caller) -> bool {
        let any = |patterns: &Option<Vec<Pattern>>, text: &str| {
            patterns.as_ref().is_none_or(|patterns| patterns.iter().any(|pattern| pattern.matches(text)))
        };
        self.skill.as_ref().is_none_or(|pattern| pattern.matches(skill.as_str()))
            && any(&self.clients, caller.client.as_str())
            && any(&self.users, caller.user.as_str())
    }

    /// Whether it forbids a user all use of a skill's service, from whatever program.
    pub(super) fn is_all_of(&self, skill: &SkillName, user: &str, service: Option<&ServiceName>) -> bool {
        self.what == What::Everything
            && self.clients.is_none()
            && self.provider.is_none()
            && self.skill.as_ref().is_none_or(|pattern| pattern.matches(skill.as_str()))
            && self.users.as_ref().is_none_or(|users| users.iter().any(|pattern| pattern.matches(user)))
            && self.service.as_ref().is_none_or(|name| Some(name) == service)
    }

    /// Whether the rule is about this service, given that it is about the skill and caller.
    pub(super) fn concerns_service(&self, service: &ServiceName, provider: &ProviderId) -> bool {
        self.service.as_ref().is_none_or(|name| name == service)
            && self.provider.as_ref().is_none_or(|id| id == provider)
    }

    /// Whether the rule is about requests without a credential, given that it is about the skill and caller.
    pub(super) fn concerns_plain(&self) -> bool {
        self.service.is_none() && self.provider.is_none()
    }

    pub(super) fn read(table: &mut Table<'_>, file: usize) -> Self {
        table.examples(&[
            ("skill", "\"gmail-send\""),
            ("users", "[\"contractor-*\"]"),
            ("clients", "[\"ci\"]"),
            ("provider", "\"salesforce\""),
            ("origin", "\"https://api.example.com\""),
            ("scopes", "[\"repo\"]"),
            ("reason", "\"customer data stays inside\""),
        ]);
        let skill = table.opt_parsed::<Pattern>("skill");
        let patterns =
            |list: Vec<crate::diagnostic::Located<Pattern>>| list.into_iter().map(|item| item.value).collect();
        let clients = table.opt_list::<Pattern>("clients").map(patterns);
        let users = table.opt_list::<Pattern>("users").map(patterns);
        let service = table.opt_parsed::<ServiceName>("service");
        let provider = table.opt_parsed::<ProviderId>("provider");
        let origin = table.opt_parsed::<OriginRule>("origin");
        let scopes = table.opt_list::<Scope>("scopes");
        let reveal = table.opt_word("use", &[("reveal", Use::Reveal)]);
        let reason = table.opt_string("reason").map(Into::into);
        let selectors = ["skill", "clients", "users", "service", "provider", "origin", "scopes", "use"];
        if !selectors.iter().any(|key| table.has(key)) {
            let diagnostic =
                Diagnostic::new(table.span(), "this forbids everything to everybody").label("it names nothing");
            table.push(diagnostic.help(
                "name what is forbidden, by one or several of skill, clients, users, service, provider, origin, scopes, use",
            ));
        }
        for key in ["clients", "users", "scopes"] {
            if table.is_empty_list(key) {
                let diagnostic =
                    Diagnostic::new(table.span_of(key), format!("an empty list of `{key}` forbids nothing"));
                table.push(diagnostic.help(format!("leave `{key}` out to forbid it for all, or remove the rule")));
            }
        }
        let kinds: Vec<_> = ["origin", "scopes", "use"].into_iter().filter(|key| table.has(key)).collect();
        if let [first, second, ..] = *kinds {
            let message = format!("a rule forbids by `{first}` or by `{second}`, not by both");
            let diagnostic = Diagnostic::new(table.span_of(second), message).related(table.span_of(first), "the first");
            table.push(diagnostic.help("write two [[forbid]]"));
        }
        if origin == Some(OriginRule::ApiOrigin) {
            let diagnostic =
                Diagnostic::new(table.span_of("origin"), "`{api_origin}` is another origin for each connection");
            table.push(diagnostic.help("name the host, or forbid the `provider`"));
        }
        let what = match (origin, scopes, reveal) {
            (Some(origin), ..) => What::Origin(origin),
            (_, Some(scopes), _) => What::Scopes(scopes.into_iter().map(|scope| scope.value).collect()),
            (_, _, Some(_)) => What::Reveal,
            (None, None, None) => What::Everything,
        };
        let places = Places { file, provider: table.span_of("provider") };
        Self { skill, clients, users, service, provider, what, reason, line: table.line(), places }
    }
}
