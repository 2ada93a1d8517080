//! What a skill tried, and the least that would have allowed it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use http::Method;

use super::decide::Effective;
use super::edit::{NewGrant, NewServiceGrant, list};
use super::manifest::{Manifest, Select, ServiceDeclaration, Use};
use super::origin::Origin;
use super::request::{OriginRule, PathRule, RequestRule};
use super::target::Target;
use crate::clock::Timestamp;
use crate::id::{AccountAlias, Digest, Scope, ServiceName, SkillName, UserId};

/// No more is kept of one run: a skill that tries forever must not fill the memory.
const MOST_ATTEMPTS: usize = 1_000;

/// One thing that a skill tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// It asked for a token.
    Token {
        /// Of which service, in the skill's words.
        service: String,
        /// With which scopes; empty: all that it declares.
        scopes: Vec<String>,
        /// Of which account.
        account: Option<String>,
        /// For which audience.
        audience: Option<String>,
    },
    /// It asked to see the token of this service.
    Reveal {
        /// Of which service.
        service: ServiceName,
    },
    /// It sent a request.
    Request {
        /// With the placeholder of this service in it.
        with: Option<ServiceName>,
        /// Where to.
        target: Target,
    },
}

/// What a skill tried in one run, each thing once.
#[derive(Debug, Clone, Default)]
pub struct Attempts {
    all: Vec<Attempt>,
    /// Where each service's API would live, for rules that say `{api_origin}`.
    api_origins: BTreeMap<ServiceName, Origin>,
}

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Lesson {
    /// What was tried, and whether it is granted by now.
    pub tried: Vec<(Attempt, bool)>,
    /// The least that is to be granted for all of it, besides what is granted.
    pub grants: Vec<NewGrant>,
    /// Services without which the skill does not start, and which it did not use in this run. They are among the grants.
    pub unused: Vec<ServiceName>,
    /// Lines for the manifest, for what it does not declare.
    pub undeclared: String,
}

/// Which request belongs to which service.
enum Claim<'m> {
    Service(&'m ServiceDeclaration),
    Plain,
    Undeclared,
}

impl Attempts {
    /// Nothing yet. The origins are where the services' APIs are said to live.
    pub fn new(api_origins: BTreeMap<ServiceName, Origin>) -> Self {
        Self { all: Vec::new(), api_origins }
    }

    /// Notes what was tried.
    pub fn note(&mut self, attempt: Attempt) {
        if self.all.len() < MOST_ATTEMPTS && !self.all.contains(&attempt) {
            self.all.push(attempt);
        }
    }

    /// What follows for one user: each grant is for the version of this digest, and nothing in it is more than was tried.
    pub fn lesson(
        &self,
        manifest: &Manifest,
        digest: Digest,
        user: &UserId,
        effective: &Effective,
        now: Timestamp,
    ) -> Lesson {
        let tried: Vec<_> = self
            .all
            .iter()
            .map(|attempt| (attempt.clone(), self.is_granted(attempt, manifest, effective, now)))
            .collect();
        let mut grants = Vec::new();
        let mut unused = Vec::new();
        for declared in &manifest.services {
            let own: Vec<_> = tried.iter().filter(|(attempt, _)| self.is_of(attempt, declared, manifest)).collect();
            if own.is_empty() && !declared.optional && effective.service(&declared.name).is_err() {
                unused.push(declared.name.clone());
                grants.push(NewGrant::for_service(&manifest.name, digest, declared, user));
            }
            // One decision is made by one grant alone, so the grant is for all that was tried of the service.
            if own.iter().any(|(_, granted)| !granted) {
                let attempts: Vec<_> = own.into_iter().map(|(attempt, _)| attempt).collect();
                grants.push(self.grant(&manifest.name, digest, declared, user, &attempts));
            }
        }
        let plain = tried.iter().filter(|(_, granted)| !granted).filter_map(|(attempt, _)| match attempt {
            Attempt::Request { with: None, target } if matches!(self.claim(target, manifest), Claim::Plain) => {
                Some(target)
            }
            _ => None,
        });
        for rule in exact_rules(plain, None) {
            grants.push(NewGrant::for_request(&manifest.name, digest, rule, user));
        }
        Lesson { tried, grants, unused, undeclared: self.undeclared(manifest) }
    }

    fn is_granted(&self, attempt: &Attempt, manifest: &Manifest, effective: &Effective, now: Timestamp) -> bool {
        match attempt {
            Attempt::Token { service, scopes, account, audience } => {
                let missing = |name: &ServiceName| match effective.service(name) {
                    Ok(granted) => manifest.service(name.as_str()).is_some_and(|it| it.scopes != granted.scopes),
                    Err(_) => true,
                };
                effective.token(service, scopes, account.as_deref(), audience.as_deref(), now).is_ok()
                    && !(scopes.is_empty() && service.parse().is_ok_and(|name| missing(&name)))
            }
            Attempt::Reveal { service } => effective.permit_reveal(service, None, now).is_ok(),
            Attempt::Request { with, target } => match (with, self.claim(target, manifest)) {
                (Some(service), _) => self.may_go(service, target, effective, now),
                (None, Claim::Service(declared)) => self.may_go(&declared.name, target, effective, now),
                (None, _) => effective.route(target, &BTreeMap::new()).is_ok(),
            },
        }
    }

    fn may_go(&self, service: &ServiceName, target: &Target, effective: &Effective, now: Timestamp) -> bool {
        effective.permit_inject(service, target, None, self.api_origins.get(service), now).is_ok()
    }

    fn is_of(&self, attempt: &Attempt, declared: &ServiceDeclaration, manifest: &Manifest) -> bool {
        match attempt {
            Attempt::Token { service, .. } => *service == declared.name.as_str(),
            Attempt::Reveal { service } | Attempt::Request { with: Some(service), .. } => *service == declared.name,
            Attempt::Request { with: None, target } => {
                matches!(self.claim(target, manifest), Claim::Service(claiming) if claiming.name == declared.name)
            }
        }
    }

    fn claim<'m>(&self, target: &Target, manifest: &'m Manifest) -> Claim<'m> {
        let claiming = manifest
            .services
            .iter()
            .find(|declared| declared.select == Select::Destination && self.declares(declared, target));
        match claiming {
            Some(declared) => Claim::Service(declared),
            None if manifest.requests.iter().any(|rule| rule.matches(target, None)) => Claim::Plain,
            None => Claim::Undeclared,
        }
    }

    fn declares(&self, declared: &ServiceDeclaration, target: &Target) -> bool {
        let api_origin = self.api_origins.get(&declared.name);
        declared.requests.iter().any(|rule| rule.matches(target, api_origin))
    }

    fn grant(
        &self,
        skill: &SkillName,
        digest: Digest,
        declared: &ServiceDeclaration,
        user: &UserId,
        attempts: &[&Attempt],
    ) -> NewGrant {
        let mut scopes: BTreeSet<Scope> = BTreeSet::new();
        let (mut accounts, mut any_account) = (BTreeSet::new(), false);
        let mut audiences = BTreeSet::new();
        let (mut says_scopes, mut reveals) = (false, false);
        let mut targets = Vec::new();
        for attempt in attempts {
            match attempt {
                Attempt::Token { scopes: asked, account, audience, .. } => {
                    let asked: BTreeSet<_> = asked.iter().filter_map(|scope| scope.parse().ok()).collect();
                    let all = if asked.is_empty() { declared.scopes.clone() } else { asked };
                    says_scopes = true;
                    scopes.extend(all.intersection(&declared.scopes).cloned());
                    match account.as_ref().and_then(|account| account.parse::<AccountAlias>().ok()) {
                        Some(account) => drop(accounts.insert(account)),
                        None => any_account = true,
                    }
                    audiences.extend(audience.clone());
                }
                Attempt::Reveal { .. } => reveals = true,
                Attempt::Request { target, .. } => {
                    // What the manifest does not declare is not for a grant to give.
                    if self.declares(declared, target) {
                        targets.push(target);
                    }
                }
            }
        }
        if !says_scopes {
            scopes.clone_from(&declared.scopes);
        }
        let own = declared.requests.iter().any(|rule| rule.origin == OriginRule::ApiOrigin);
        let api_origin = self.api_origins.get(&declared.name).filter(|_| own);
        let requests = exact_rules(targets.into_iter(), api_origin);
        let service = NewServiceGrant {
            scopes: scopes.into_iter().collect(),
            accounts: if any_account { Vec::new() } else { accounts.into_iter().collect() },
            audiences: audiences.into_iter().collect(),
            use_: if reveals { declared.use_ } else { Use::Inject },
            service: declared.name.clone(),
            provider: declared.provider.clone(),
            as_agent: false,
        };
        NewGrant { service: Some(service), requests, ..NewGrant::for_service(skill, digest, declared, user) }
    }

    /// The smallest lines that would declare what the manifest does not.
    fn undeclared(&self, manifest: &Manifest) -> String {
        let mut lines = String::new();
        let mut services: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let mut more_scopes: BTreeMap<&ServiceName, BTreeSet<Scope>> = BTreeMap::new();
        for attempt in &self.all {
            let Attempt::Token { service, scopes, .. } = attempt else { continue };
            match manifest.service(service) {
                None if service.parse::<ServiceName>().is_ok() => {
                    services.entry(service).or_default().extend(scopes.iter().map(String::as_str));
                }
                Some(declared) => {
                    let new = scopes.iter().filter_map(|scope| scope.parse::<Scope>().ok());
                    let new: BTreeSet<_> = new.filter(|scope| !declared.scopes.contains(scope)).collect();
                    if !new.is_empty() {
                        more_scopes.entry(&declared.name).or_insert_with(|| declared.scopes.clone()).extend(new);
                    }
                }
                None => {}
            }
        }
        for (service, scopes) in services {
            // Writing to a `String` can't fail.
            let _ = write!(lines, "[[service]]\nname = \"{service}\"\nprovider = \"…\"\n");
            if !scopes.is_empty() {
                let _ = writeln!(lines, "scopes = {}", list(scopes));
            }
            lines += "[[service.request]]\norigin = \"https://…\"\n\n";
        }
        for (service, scopes) in more_scopes {
            let _ = write!(lines, "# in the [[service]] `{service}`\nscopes = {}\n\n", list(&scopes));
        }
        let revealed = self.all.iter().filter_map(|attempt| match attempt {
            Attempt::Reveal { service } => manifest.service(service.as_str()).filter(|it| it.use_ == Use::Inject),
            _ => None,
        });
        for declared in revealed {
            let _ = write!(lines, "# in the [[service]] `{}`\nuse = \"reveal\"\nreason = \"…\"\n\n", declared.name);
        }
        let undeclared = self.all.iter().filter_map(|attempt| match attempt {
            Attempt::Request { with, target } => {
                let by_service = with.as_ref().and_then(|service| manifest.service(service.as_str()));
                let declared = match by_service {
                    Some(declared) => self.declares(declared, target),
                    None => !matches!(self.claim(target, manifest), Claim::Undeclared),
                };
                (!declared).then_some((with.as_ref(), target))
            }
            _ => None,
        });
        let mut by_service: BTreeMap<Option<&ServiceName>, Vec<&Target>> = BTreeMap::new();
        for (with, target) in undeclared {
            by_service.entry(with).or_default().push(target);
        }
        for (with, targets) in by_service {
            let header = match with {
                Some(service) => format!("# in the [[service]] `{service}`\n[[service.request]]\n"),
                None => "[[request]]\n".to_owned(),
            };
            for rule in exact_rules(targets.into_iter(), None) {
                let methods = rule.methods.iter().flatten();
                let _ = write!(
                    lines,
                    "{header}origin = \"{}\"\nmethods = {}\npaths = {}\n\n",
                    rule.origin,
                    list(methods),
                    list(&rule.paths)
                );
            }
        }
        lines.trim_end().to_owned()
    }
}

/// Rules that mean these requests and no others. A target whose path can't be written as a rule is left out.
fn exact_rules<'t>(targets: impl Iterator<Item = &'t Target>, api_origin: Option<&Origin>) -> Vec<RequestRule> {
    let mut by_place: BTreeMap<(OriginRule, String), (Method, BTreeSet<PathRule>)> = BTreeMap::new();
    for target in targets {
        // A star in a rule would mean other paths too.
        let path = Some(target.path().as_str()).filter(|path| !path.contains('*'));
        let Some(Ok(path)) = path.map(str::parse::<PathRule>) else { continue };
        let origin = if api_origin == Some(target.origin()) {
            OriginRule::ApiOrigin
        } else {
            OriginRule::Literal(target.origin().clone())
        };
        let place = (origin, target.method().to_string());
        by_place.entry(place).or_insert_with(|| (target.method().clone(), BTreeSet::new())).1.insert(path);
    }
    let rule = |((origin, _), (method, paths)): ((OriginRule, String), (Method, BTreeSet<PathRule>))| RequestRule {
        origin,
        methods: Some(vec![method]),
        paths: paths.into_iter().collect(),
        line: None,
    };
    by_place.into_iter().map(rule).collect()
}
