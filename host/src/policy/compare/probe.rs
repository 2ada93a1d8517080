//! The questions that are put to both policies, and their answers.

use std::collections::{BTreeMap, BTreeSet};

use http::{Method, Uri};

use super::super::effective::{Policy, Skill};
use super::super::forbid::{Forbid, What};
use super::super::grant::{Allowed, Grant, ServiceGrant};
use super::super::limits::EffectiveLimits;
use super::super::manifest::ServiceDeclaration;
use super::super::origin::Origin;
use super::super::pattern::Pattern;
use super::super::permit::Permit;
use super::super::rate::Rate;
use super::super::request::{OriginRule, PathRule, RequestRule};
use super::super::target::Target;
use super::super::{Effective, Route};
use super::classes::{self, Classes, Group};
use crate::clock::Timestamp;
use crate::id::{AccountAlias, Caller, Owner, ServiceName, SkillName};

/// A method that no rule names, for all that none does.
pub(super) const OTHER_METHOD: &str = "X-OTHER";

/// One thing that is allowed. The numbers are places in the lists of the [`Service`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Atom {
    Token {
        scopes: usize,
        account: usize,
        audience: usize,
    },
    Reveal {
        account: usize,
    },
    /// `own`: only where the origin is the connection's own API.
    Request {
        account: usize,
        origin: usize,
        own: bool,
        method: usize,
        path: usize,
    },
    /// After the skill has seen the token.
    After {
        account: usize,
        origin: usize,
        method: usize,
        path: usize,
    },
    Owner {
        agent: bool,
    },
    /// Which account it is where none is asked for.
    Default(AccountAlias),
    /// At least as often as this rate of the list; the place after the last stands for any number.
    Rate(usize),
}

/// What one policy allows a caller, by service; without one: requests without a credential.
pub(super) type Answers = BTreeMap<Option<ServiceName>, BTreeSet<Atom>>;

/// Where requests may be tried to go.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Each origin, and how it is called.
    pub(super) origins: Vec<(Origin, String)>,
    pub(super) methods: Vec<Method>,
    pub(super) paths: Vec<classes::Class>,
    complete: bool,
}

/// What can be asked about a service, or about requests without one.
#[derive(Debug, Default)]
pub(super) struct Service {
    pub(super) scopes: Vec<Vec<String>>,
    /// The default account, those that rules name, and one that none does.
    pub(super) accounts: Vec<Option<AccountAlias>>,
    pub(super) audiences: Vec<Option<String>>,
    pub(super) rates: Vec<Rate>,
    pub(super) places: Places,
}

pub(super) type Sides<'a> = [(&'a Policy, Option<Skill<'a>>); 2];

/// All that is asked about one skill.
pub(super) struct Space<'a> {
    sides: Sides<'a>,
    grants: Vec<&'a Grant>,
    pub(super) services: BTreeMap<Option<ServiceName>, Service>,
}

impl<'a> Space<'a> {
    pub(super) fn of(name: &SkillName, sides: Sides<'a>) -> Self {
        let grants = sides.iter().flat_map(|(policy, _)| &policy.permissions().grants);
        let mut space =
            Self { sides, grants: grants.filter(|grant| grant.skill == *name).collect(), services: BTreeMap::new() };
        let manifests = || sides.iter().filter_map(|(_, skill)| skill.map(|skill| skill.manifest));
        let names: BTreeSet<&ServiceName> =
            manifests().flat_map(|m| &m.services).map(|service| &service.name).collect();
        for service in names {
            let declared = manifests().filter_map(|manifest| manifest.service(service.as_str())).collect::<Vec<_>>();
            let asked = space.service(service, &declared);
            space.services.insert(Some(service.clone()), asked);
        }
        let declared = manifests().flat_map(|manifest| manifest.requests.iter());
        let granted = space.grants.iter().filter_map(|grant| match &grant.allowed {
            Allowed::Requests(requests) => Some(requests.iter()),
            Allowed::Service(_) => None,
        });
        let rules = declared.chain(granted.flatten()).collect::<Vec<_>>();
        let places = space.places(&rules, &[]);
        space.services.insert(None, Service { places, ..Service::default() });
        space
    }

    pub(super) fn complete(&self) -> bool {
        self.services.values().all(|service| service.places.complete)
    }

    /// Users that the rules tell apart, and whether these are all.
    pub(super) fn users(&self) -> (Vec<Group>, bool) {
        let forbidden = self.forbids().filter_map(|forbid| forbid.users.as_deref());
        told_apart(&self.grants.iter().map(|grant| &*grant.users).chain(forbidden).collect::<Vec<_>>())
    }

    /// Programs that the rules tell apart, and whether these are all.
    pub(super) fn clients(&self) -> (Vec<Group>, bool) {
        let forbidden = self.forbids().filter_map(|forbid| forbid.clients.as_deref());
        told_apart(&self.grants.iter().map(|grant| &*grant.clients).chain(forbidden).collect::<Vec<_>>())
    }

    fn forbids(&self) -> impl Iterator<Item = &'a Forbid> {
        self.sides.iter().flat_map(|(policy, _)| &policy.permissions().forbids)
    }

    /// Now, and each moment at which a grant ends.
    pub(super) fn moments(&self, now: Timestamp) -> Vec<Timestamp> {
        let ends: BTreeSet<Timestamp> =
            self.grants.iter().filter_map(|grant| grant.ends).filter(|ends| *ends > now).collect();
        std::iter::once(now).chain(ends).collect()
    }

    fn service(&self, name: &ServiceName, declared: &[&ServiceDeclaration]) -> Service {
        let granted: Vec<&ServiceGrant> = self
            .grants
            .iter()
            .filter_map(|grant| match &grant.allowed {
                Allowed::Service(service) if service.service == *name => Some(&**service),
                _ => None,
            })
            .collect();
        let known: BTreeSet<&str> =
            declared.iter().flat_map(|declared| &declared.scopes).map(crate::id::Scope::as_str).collect();
        let mut scopes: BTreeSet<Vec<String>> = known.iter().map(|scope| vec![(*scope).to_owned()]).collect();
        scopes.insert(Vec::new());
        // What one grant gives together may be more than what two give each by itself. A forbid takes away from it.
        let forbids = self.sides.iter().flat_map(|(policy, _)| &policy.permissions().forbids);
        let forbidden: Vec<BTreeSet<&str>> = forbids
            .filter_map(|forbid| match &forbid.what {
                What::Scopes(scopes) => Some(scopes.iter().map(crate::id::Scope::as_str).collect()),
                _ => None,
            })
            .collect();
        for grant in &granted {
            let all: BTreeSet<&str> =
                grant.scopes.iter().map(|scope| scope.value.as_str()).filter(|scope| known.contains(scope)).collect();
            let mut sets = vec![all];
            for forbidden in forbidden.iter().take(6) {
                let less: Vec<_> = sets.iter().map(|set| set.difference(forbidden).copied().collect()).collect();
                sets.extend(less);
            }
            scopes.extend(sets.into_iter().map(|set| set.into_iter().map(ToOwned::to_owned).collect()));
        }
        let named: BTreeSet<&AccountAlias> =
            granted.iter().filter_map(|grant| grant.accounts.as_ref()).flatten().collect();
        let mut other = "another".to_owned();
        while named.iter().any(|alias| alias.as_str() == other) {
            other.push('-');
        }
        let mut accounts = vec![None];
        accounts.extend(named.into_iter().cloned().map(Some));
        accounts.extend(other.parse().ok().map(Some));
        let audiences: BTreeSet<&String> = granted.iter().flat_map(|grant| &grant.audiences).collect();
        let audiences = std::iter::once(None).chain(audiences.into_iter().cloned().map(Some)).collect();
        let mut rates: Vec<Rate> = self.grants.iter().filter_map(|grant| grant.rate).collect();
        rates.sort_by_key(|rate| Rate::generosity(Some(*rate)));
        rates.dedup();
        let declared_rules = declared.iter().flat_map(|declared| &declared.requests);
        let rules: Vec<_> =
            declared_rules.chain(granted.iter().filter_map(|grant| grant.requests.as_ref()).flatten()).collect();
        let mut more: Vec<OriginRule> =
            granted.iter().flat_map(|grant| &grant.reveal_with).cloned().map(OriginRule::Literal).collect();
        for (policy, _) in &self.sides {
            for facts in declared.iter().filter_map(|declared| policy.facts(&declared.provider)) {
                more.extend(facts.api_origins.iter().chain(&facts.api_origin_pattern).cloned());
            }
        }
        let places = self.places(&rules, &more);
        Service { scopes: scopes.into_iter().collect(), accounts, audiences, rates, places }
    }

    fn places(&self, rules: &[&RequestRule], more: &[OriginRule]) -> Places {
        let forbids = self.sides.iter().flat_map(|(policy, _)| &policy.permissions().forbids);
        let forbidden = forbids.filter_map(|forbid| match &forbid.what {
            What::Origin(origin) => Some(origin),
            _ => None,
        });
        let named: BTreeSet<&OriginRule> = rules.iter().map(|rule| &rule.origin).chain(more).chain(forbidden).collect();
        let mut origins: BTreeMap<Origin, String> = BTreeMap::new();
        for rule in &named {
            match rule {
                OriginRule::Literal(origin) => {
                    origins.insert(origin.clone(), origin.to_string());
                }
                OriginRule::Suffix { suffix, port } => {
                    let origin = (0..9).find_map(|number| {
                        let origin: Origin = format!("https://any{number}{suffix}:{port}").parse().ok()?;
                        (!named.contains(&OriginRule::Literal(origin.clone()))).then_some(origin)
                    });
                    if let Some(origin) = origin {
                        origins.entry(origin).or_insert_with(|| rule.to_string());
                    }
                }
                OriginRule::ApiOrigin => {}
            }
        }
        let mut methods: Vec<Method> = Vec::new();
        for method in rules.iter().filter_map(|rule| rule.methods.as_ref()).flatten() {
            if !methods.contains(method) {
                methods.push(method.clone());
            }
        }
        methods.extend(Method::from_bytes(OTHER_METHOD.as_bytes()).ok());
        let paths: BTreeSet<PathRule> = rules.iter().flat_map(|rule| &rule.paths).cloned().collect();
        let Classes { all: paths, complete } = classes::of_paths(&paths);
        Places { origins: origins.into_iter().collect(), methods, paths, complete }
    }

    /// What one side allows a caller at one moment.
    pub(super) fn answers(&self, policy: &Policy, skill: Option<Skill<'_>>, caller: &Caller, at: Timestamp) -> Answers {
        let Some(skill) = skill else { return Answers::new() };
        let effective = policy.effective(&skill, caller, at);
        let mut all = Answers::new();
        for (name, asked) in &self.services {
            let atoms = match name {
                Some(name) => of_service(&effective, name, asked, at),
                None => without_service(&effective, &asked.places),
            };
            if !atoms.is_empty() {
                all.insert(name.clone(), atoms);
            }
        }
        all
    }
}

/// Of each list of patterns it matters whether one of them matches.
fn told_apart(lists: &[&[Pattern]]) -> (Vec<Group>, bool) {
    let patterns: BTreeSet<Pattern> = lists.iter().copied().flatten().cloned().collect();
    let classes = classes::of_names(&patterns);
    let complete = classes.complete;
    let groups =
        classes.grouped(|text| lists.iter().map(|list| list.iter().any(|pattern| pattern.matches(text))).collect());
    (groups, complete)
}

/// What a skill may use of the machine.
pub(super) fn limits(policy: &Policy, skill: &Skill<'_>) -> EffectiveLimits {
    skill.manifest.limits.effective(&policy.permissions().limits)
}

impl Places {
    fn targets(&self) -> impl Iterator<Item = ((usize, usize, usize), Target)> {
        self.origins.iter().enumerate().flat_map(move |(origin, (to, _))| {
            self.paths.iter().enumerate().flat_map(move |(path, class)| {
                let uri = format!("{to}{}", class.text).parse::<Uri>().ok();
                self.methods.iter().enumerate().filter_map(move |(method, name)| {
                    let target = Target::parse(name, uri.as_ref()?).ok()?;
                    Some(((origin, method, path), target))
                })
            })
        })
    }
}

fn without_service(effective: &Effective, places: &Places) -> BTreeSet<Atom> {
    let no_origins = BTreeMap::new();
    let allowed =
        places.targets().filter(|(_, target)| matches!(effective.route(target, &no_origins), Ok(Route::Plain { .. })));
    allowed.map(|((origin, method, path), _)| Atom::Request { account: 0, origin, own: false, method, path }).collect()
}

fn of_service(effective: &Effective, name: &ServiceName, asked: &Service, at: Timestamp) -> BTreeSet<Atom> {
    let mut atoms = BTreeSet::new();
    // Nothing of a service is allowed that is not granted.
    if effective.service(name).is_err() {
        return atoms;
    }
    let mut often: Option<usize> = None;
    let mut permitted = |permit: &Permit| {
        let place = permit
            .rate()
            .map_or(asked.rates.len(), |rate| asked.rates.iter().position(|known| *known == rate).unwrap_or_default());
        often = often.max(Some(place));
    };
    for (account, alias) in asked.accounts.iter().enumerate() {
        let text = alias.as_ref().map(AccountAlias::as_str);
        for (scopes, set) in asked.scopes.iter().enumerate() {
            for (audience, named) in asked.audiences.iter().enumerate() {
                if let Ok(selected) = effective.token(name.as_str(), set, text, named.as_deref(), at) {
                    atoms.insert(Atom::Token { scopes, account, audience });
                    atoms.insert(Atom::Owner { agent: selected.owner == Owner::Agent });
                    if alias.is_none() {
                        atoms.extend(selected.accounts.into_iter().next().flatten().map(Atom::Default));
                    }
                }
            }
        }
        if let Ok(permit) = effective.permit_reveal(name, alias.as_ref(), at) {
            permitted(&permit);
            atoms.insert(Atom::Reveal { account });
        }
        for ((origin, method, path), target) in asked.places.targets() {
            for own in [false, true] {
                let api_origin = own.then_some(target.origin());
                if let Ok(permit) = effective.permit_inject(name, &target, alias.as_ref(), api_origin, at) {
                    permitted(&permit);
                    atoms.insert(Atom::Request { account, origin, own, method, path });
                }
            }
        }
    }
    for (account, alias) in asked.accounts.iter().enumerate() {
        for ((origin, method, path), target) in asked.places.targets() {
            if effective.reveal_confinement(name, alias.as_ref(), &target, None, at).is_ok() {
                atoms.insert(Atom::After { account, origin, method, path });
            }
        }
    }
    atoms.extend(often.into_iter().flat_map(|place| (0..=place).map(Atom::Rate)));
    atoms
}
