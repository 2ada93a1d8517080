//! The lines that would allow what was refused, ready to paste.

use std::collections::BTreeSet;
use std::fmt;

use super::decide::Effective;
use super::denial::{Denial, DenialCode, Proposal};
use super::edit::{NewGrant, list};
use super::effective::{Decision, EffectiveService, Granted, Refusal, Service};
use super::manifest::{ServiceDeclaration, Use};
use super::request::{OriginRule, RequestRule};
use super::target::Target;
use crate::id::{Owner, Scope, ServiceName};

/// Why a service may be used, or may not.
#[derive(Debug, Clone)]
pub enum Explanation {
    /// It may, and this is how far.
    Granted {
        /// The service.
        service: Box<EffectiveService>,
        /// What the manifest declares and no grant gives.
        missing_scopes: BTreeSet<Scope>,
        /// The grants that apply, with their lines.
        rules: Vec<crate::diagnostic::Line>,
    },
    /// It may not.
    Denied(Box<Denial>),
}

impl Effective {
    /// Why the caller may use a service of this skill, or may not, with the rule that decided.
    pub fn explain(&self, service: &ServiceName) -> Explanation {
        match (self.find(service.as_str()), self.service(service)) {
            (Ok(found), Ok(granted)) => Explanation::Granted {
                service: Box::new(granted.clone()),
                missing_scopes: found.declared.scopes.difference(&granted.scopes).cloned().collect(),
                rules: found.granted.iter().map(|granted| granted.line.clone()).collect(),
            },
            (Err(denial), _) | (_, Err(denial)) => Explanation::Denied(Box::new(denial)),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (service, missing, rules) = match self {
            Self::Denied(denial) => return denial.explain().fmt(f),
            Self::Granted { service, missing_scopes, rules } => (service, missing_scopes, rules),
        };
        let rules: Vec<_> = rules.iter().map(ToString::to_string).collect();
        write!(f, "granted: service `{}` of provider `{}`", service.name, service.provider)?;
        write!(f, "\n  decided by {}", rules.join(", "))?;
        match &service.owner {
            Owner::Agent => f.write_str("\n  account: the agent's own")?,
            Owner::User(_) => match &service.accounts {
                None => f.write_str("\n  account: any of the user's")?,
                Some(accounts) => write!(f, "\n  account: {}", texts(accounts).join(", "))?,
            },
        }
        for scope in &service.scopes {
            write!(f, "\n  scope: {scope}")?;
        }
        for scope in missing {
            write!(f, "\n  scope declared, not granted: {scope}")?;
        }
        f.write_str(match service.use_ {
            Use::Inject => "\n  use: the host puts the token on requests, the skill can't see it",
            Use::Reveal => "\n  use: the skill may see the token itself",
        })?;
        for request in service.requests() {
            write!(f, "\n  may go to: {request}")?;
        }
        if service.requests().is_empty() {
            f.write_str("\n  may go to: nowhere: what the manifest declares and what the grant lets through have nothing in common")?;
        }
        Ok(())
    }
}

fn texts<T: ToString>(values: impl IntoIterator<Item = T>) -> Vec<String> {
    values.into_iter().map(|value| value.to_string()).collect()
}

fn in_permissions(lines: String) -> Proposal {
    Proposal { file: "the permissions, as a new rule".to_owned(), at: None, lines }
}

fn in_manifest(decision: &Decision, lines: String) -> Proposal {
    Proposal { file: format!("the manifest of `{}`", decision.skill), at: None, lines }
}

fn in_declaration(declared: &ServiceDeclaration, lines: String) -> Proposal {
    Proposal { file: "the manifest, in the [[service]]".to_owned(), at: Some(declared.line.clone()), lines }
}

fn in_grant(granted: &Granted, lines: String) -> Proposal {
    Proposal { file: "the permissions, in the [[grant]]".to_owned(), at: Some(granted.line.clone()), lines }
}

/// A whole grant for a declared service.
pub(super) fn grant(decision: &Decision, declared: &ServiceDeclaration) -> Vec<Proposal> {
    vec![in_permissions(
        NewGrant::for_service(&decision.skill, decision.skill_digest, declared, &decision.caller.user).lines(),
    )]
}

/// A service that the manifest does not declare.
pub(super) fn service(decision: &Decision, name: &str) -> Vec<Proposal> {
    let Ok(name) = name.parse::<ServiceName>() else { return Vec::new() };
    let lines = format!(
        "[[service]]\nname = \"{name}\"\nprovider = \"…\"\nscopes = [\"…\"]\n[[service.request]]\norigin = \"https://…\"\n"
    );
    vec![in_manifest(decision, lines)]
}

/// A scope that is not granted, or not even declared.
pub(super) fn scope(
    decision: &Decision,
    declared: &ServiceDeclaration,
    scope: &str,
    undeclared: bool,
) -> Vec<Proposal> {
    let Ok(scope) = scope.parse::<Scope>() else { return Vec::new() };
    let all: BTreeSet<_> = declared.scopes.iter().chain([&scope]).collect();
    let lines = format!("scopes = {}\n", list(&all));
    let permissions = format!("the permissions, in the [[grant]] of `{}` for `{}`", decision.skill, declared.name);
    let granted = Proposal { file: permissions, at: None, lines: lines.clone() };
    if undeclared { vec![in_declaration(declared, lines), granted] } else { vec![granted] }
}

/// One more value in a list of the grant.
pub(super) fn key_in_grant(granted: &Granted, key: &str, value: &str) -> Proposal {
    let mut values = match key {
        "accounts" => texts(granted.grant.accounts.iter().flatten()),
        "audiences" => granted.grant.audiences.clone(),
        _ => texts(&granted.grant.reveal_with),
    };
    values.push(value.to_owned());
    in_grant(granted, format!("{key} = {}\n", list(&values)))
}

/// One more destination in the grant.
pub(super) fn request_in_grant(service: &Service, target: &Target) -> Vec<Proposal> {
    let Some(granted) = service.granted.first() else { return Vec::new() };
    let mut lines = String::new();
    if granted.grant.requests.is_none() {
        // A grant without `request` means the provider's own origins; the first one written replaces them.
        for rule in granted.facts.api_origins.iter().filter(|rule| matches!(rule, OriginRule::Literal(_))) {
            lines.extend(["[[grant.request]]\norigin = \"", &rule.to_string(), "\"\n"]);
        }
    }
    lines += &request_lines("grant.request", target);
    vec![in_grant(granted, lines)]
}

/// One more destination in the manifest, and in the grant.
pub(super) fn request_in_manifest(service: &Service, target: &Target) -> Vec<Proposal> {
    let mut both = vec![in_declaration(&service.declared, request_lines("service.request", target))];
    let granted = service.granted.first();
    let passes = granted.is_some_and(|granted| match &granted.grant.requests {
        None => granted.facts.names(target.origin()),
        Some(rules) => rules.iter().any(|rule| rule.matches(target, None)),
    });
    if !passes {
        both.extend(request_in_grant(service, target));
    }
    both
}

/// A destination without a credential.
pub(super) fn plain(decision: &Decision, target: &Target, undeclared: bool) -> Vec<Proposal> {
    let grant = in_permissions(
        NewGrant::for_request(&decision.skill, decision.skill_digest, rule(target), &decision.caller.user).lines(),
    );
    if undeclared { vec![in_manifest(decision, request_lines("request", target)), grant] } else { vec![grant] }
}

/// The token in the clear.
pub(super) fn reveal(service: &Service, undeclared: bool) -> Vec<Proposal> {
    let line = "use = \"reveal\"\n";
    let mut both = Vec::new();
    if undeclared {
        both.push(in_declaration(&service.declared, format!("{line}reason = \"…\"\n")));
    }
    if let Some(granted) = service.granted.first() {
        both.push(in_grant(granted, line.to_owned()));
    }
    both
}

/// What brings a grant back that no longer holds.
pub(super) fn renewal(decision: &Decision, refusal: &Refusal) -> Vec<Proposal> {
    let Some(line) = &refusal.rule else { return Vec::new() };
    let lines = match refusal.code {
        DenialCode::ApprovalPending => format!("digest = \"{}\"\n", decision.skill_digest),
        DenialCode::Expired => "expires = YYYY-MM-DD   # a later day, or no such line\n".to_owned(),
        _ => return Vec::new(),
    };
    vec![Proposal { file: "the permissions, in the [[grant]]".to_owned(), at: Some(line.clone()), lines }]
}

fn rule(target: &Target) -> RequestRule {
    RequestRule {
        origin: OriginRule::Literal(target.origin().clone()),
        methods: Some(vec![target.method().clone()]),
        paths: target.path().as_str().parse().into_iter().collect(),
        line: None,
    }
}

fn request_lines(header: &str, target: &Target) -> String {
    format!(
        "[[{header}]]\norigin = \"{}\"\nmethods = {}\npaths = {}\n",
        target.origin(),
        list([target.method()]),
        list([target.path()])
    )
}
