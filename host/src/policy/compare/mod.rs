//! What one policy allows that another does not: by what they decide, not by what they say.
//!
//! Both are asked the same questions, with a name or a path for each class of them that no rule tells apart. What is left over is
//! what an operator changes by saving a file, or by approving a new version of a skill.

mod classes;
mod probe;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use self::classes::Group;
use self::probe::{Answers, Atom, Space, limits};
use super::effective::{Policy, Skill};
use crate::clock::Timestamp;
use crate::id::{Caller, ServiceName, SkillName};

/// A policy, and the skills that it is asked about: each name once.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    /// The policy.
    pub policy: &'a Policy,
    /// The skills, in the version that is meant.
    pub skills: &'a [Skill<'a>],
}

impl<'a> Side<'a> {
    fn skill(&self, name: &SkillName) -> Option<Skill<'a>> {
        self.skills.iter().find(|skill| skill.manifest.name == *name).copied()
    }
}

/// What the new policy allows beyond the old one, and short of it. It prints as an operator reads it.
///
/// How often a token may be used is compared by the most that any grant gives a caller.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Allowed by the new policy only.
    pub more: Vec<Reach>,
    /// Allowed by the old policy only.
    pub less: Vec<Reach>,
    /// There were more combinations of patterns than are looked at, so that something may be missing.
    pub incomplete: bool,
    /// Skills that grants name and that neither side knows: what would be granted to them can't be said.
    pub unknown: Vec<SkillName>,
}

/// What is allowed by one of two policies only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reach {
    /// To which skill; absent: to all.
    pub skill: Option<SkillName>,
    /// With which service; absent: without one.
    pub service: Option<ServiceName>,
    /// For whom: names, and patterns that stand for others.
    pub users: Vec<String>,
    /// Called by which programs; empty: by any.
    pub clients: Vec<String>,
    /// From which moment on; absent: at once.
    pub from: Option<Timestamp>,
    /// What, a line each.
    pub what: Vec<String>,
}

/// Which service, from when, what.
type Finding = (Option<ServiceName>, Option<Timestamp>, Vec<String>);

/// The places of the users and the programs for which it is so.
type Found = BTreeMap<Finding, BTreeMap<usize, BTreeSet<usize>>>;

impl Comparison {
    /// Compares two policies from this moment on.
    pub fn between(old: Side<'_>, new: Side<'_>, now: Timestamp) -> Self {
        let mut all = Self::default();
        let sides = [old, new];
        let names: BTreeSet<&SkillName> =
            sides.iter().flat_map(|side| side.skills).map(|skill| &skill.manifest.name).collect();
        let granted = sides.iter().flat_map(|side| side.policy.permissions().granted()).map(|(skill, _)| skill);
        let unknown: BTreeSet<&SkillName> = granted.filter(|skill| !names.contains(skill)).collect();
        all.unknown = unknown.into_iter().cloned().collect();
        for name in names {
            all.skill(name, old, new, now);
        }
        all.addresses(old.policy, new.policy);
        all.more.sort();
        all.less.sort();
        all
    }

    /// Whether both allow the same.
    pub fn is_empty(&self) -> bool {
        self.more.is_empty() && self.less.is_empty()
    }

    fn skill(&mut self, name: &SkillName, old: Side<'_>, new: Side<'_>, now: Timestamp) {
        let (was, is) = (old.skill(name), new.skill(name));
        let space = Space::of(name, [(old.policy, was), (new.policy, is)]);
        let ((users, all_users), (clients, all_clients)) = (space.users(), space.clients());
        self.incomplete |= !all_users || !all_clients || !space.complete();
        let moments = space.moments(now);
        let (mut more, mut less) = (Found::new(), Found::new());
        for (client, by) in clients.iter().enumerate() {
            for (user, whom) in users.iter().enumerate() {
                let Some(caller) = caller(by, whom) else { continue };
                let [mut gained, mut lost] = [Answers::new(), Answers::new()];
                for (index, at) in moments.iter().enumerate() {
                    let had = space.answers(old.policy, was, &caller, *at);
                    let has = space.answers(new.policy, is, &caller, *at);
                    let from = (index > 0).then_some(*at);
                    for (found, so_far, winner, loser) in
                        [(&mut more, &mut gained, &has, &had), (&mut less, &mut lost, &had, &has)]
                    {
                        for (service, what) in only(&space, winner, loser, so_far) {
                            let at = found.entry((service, from, what)).or_default();
                            at.entry(user).or_default().insert(client);
                        }
                    }
                }
            }
        }
        self.more.extend(reaches(name, more, &users, &clients));
        self.less.extend(reaches(name, less, &users, &clients));
        if let (Some(was), Some(is)) = (was, is) {
            self.limits(name, (old.policy, &was), (new.policy, &is));
        }
    }

    fn limits(&mut self, name: &SkillName, old: (&Policy, &Skill<'_>), new: (&Policy, &Skill<'_>)) {
        let (was, is) = (limits(old.0, old.1), limits(new.0, new.1));
        let number = |number: u64, what: &str| (u128::from(number), format!("{what} up to {number}"));
        let each = |limits: super::EffectiveLimits| {
            [
                number(limits.memory, "bytes of memory"),
                number(limits.result, "bytes of result"),
                number(limits.log, "bytes of log"),
                number(u64::from(limits.calls_per_user), "calls of one user at once"),
                (limits.time.as_nanos(), format!("time up to {:?}", limits.time)),
            ]
        };
        let (mut more, mut less) = (Vec::new(), Vec::new());
        for ((was, had), (is, has)) in each(was).into_iter().zip(each(is)) {
            match is.cmp(&was) {
                std::cmp::Ordering::Greater => more.push(has),
                std::cmp::Ordering::Less => less.push(had),
                std::cmp::Ordering::Equal => {}
            }
        }
        self.more.extend(for_everybody(Some(name), more));
        self.less.extend(for_everybody(Some(name), less));
    }

    /// Addresses that are not public and may be reached.
    fn addresses(&mut self, old: &Policy, new: &Policy) {
        let beyond = |a: &Policy, b: &Policy| {
            let others = &b.network().private;
            let nets = a.network().private.iter().filter(|net| !others.iter().any(|other| other.contains(*net)));
            nets.map(|net| format!("addresses in {net}")).collect::<Vec<_>>()
        };
        self.more.extend(for_everybody(None, beyond(new, old)));
        self.less.extend(for_everybody(None, beyond(old, new)));
    }
}

fn for_everybody(skill: Option<&SkillName>, what: Vec<String>) -> Option<Reach> {
    let users = vec!["everybody".to_owned()];
    let reach = Reach { skill: skill.cloned(), service: None, users, clients: Vec::new(), from: None, what };
    (!reach.what.is_empty()).then_some(reach)
}

fn caller(client: &Group, user: &Group) -> Option<Caller> {
    // A pattern that no name can match tells nothing apart.
    Some(Caller::new(client.text.parse().ok()?, user.text.parse().ok()?))
}

/// What only one side allows, in words, and noted so that it is not said again for a later moment.
fn only(
    space: &Space<'_>,
    winner: &Answers,
    loser: &Answers,
    so_far: &mut Answers,
) -> Vec<(Option<ServiceName>, Vec<String>)> {
    let none: BTreeSet<Atom> = BTreeSet::new();
    let mut found = Vec::new();
    for (service, atoms) in winner {
        let Some(asked) = space.services.get(service) else { continue };
        let others = loser.get(service).unwrap_or(&none);
        let known = so_far.entry(service.clone()).or_default();
        let new: BTreeSet<Atom> = atoms.difference(others).filter(|atom| !known.contains(*atom)).cloned().collect();
        if !new.is_empty() {
            found.push((service.clone(), words::of(asked, &new, atoms, others)));
            known.extend(new);
        }
    }
    found
}

/// Takes together who is told the same.
fn reaches(skill: &SkillName, found: Found, users: &[Group], clients: &[Group]) -> Vec<Reach> {
    let mut all = Vec::new();
    for ((service, from, what), by_user) in found {
        let mut by_clients: BTreeMap<BTreeSet<usize>, Vec<usize>> = BTreeMap::new();
        for (user, programs) in by_user {
            by_clients.entry(programs).or_default().push(user);
        }
        for (programs, whom) in by_clients {
            let users = if whom.len() == users.len() {
                vec!["everybody".to_owned()]
            } else {
                labels(users, &whom, "everybody else")
            };
            let programs: Vec<usize> = programs.into_iter().collect();
            let clients = if programs.len() == clients.len() {
                Vec::new()
            } else {
                labels(clients, &programs, "any other program")
            };
            let (service, what) = (service.clone(), what.clone());
            all.push(Reach { skill: Some(skill.clone()), service, users, clients, from, what });
        }
    }
    all
}

/// How these groups are called.
fn labels(groups: &[Group], places: &[usize], others: &str) -> Vec<String> {
    let chosen = places.iter().filter_map(|place| groups.get(*place)).flat_map(|group| &group.labels);
    let mut labels: Vec<String> = chosen
        .map(|label| match &**label {
            "everybody else" => others.to_owned(),
            label => label.to_owned(),
        })
        .collect();
    labels.sort();
    labels.dedup();
    labels
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            f.write_str("allows the same")?;
        }
        let mut gap = "";
        for (heading, reaches) in [("allows more:", &self.more), ("allows less:", &self.less)] {
            if reaches.is_empty() {
                continue;
            }
            write!(f, "{gap}{heading}")?;
            gap = "\n";
            for reach in reaches {
                write!(f, "\n  {reach}")?;
                for line in &reach.what {
                    write!(f, "\n    {line}")?;
                }
            }
        }
        if self.incomplete {
            f.write_str("\nThe patterns have more combinations than are looked at: something may be missing here.")?;
        }
        for skill in &self.unknown {
            write!(f, "\nSkill {skill} is not installed: what is granted to it is not compared.")?;
        }
        Ok(())
    }
}

impl Reach {
    /// In one line, and without the names of users and programs.
    pub fn without_users(&self) -> String {
        let what = self.what.join(", ");
        match (&self.skill, &self.service) {
            (Some(skill), Some(service)) => format!("{skill} with {service}: {what}"),
            (Some(skill), None) => format!("{skill}: {what}"),
            (None, _) => format!("all skills: {what}"),
        }
    }
}

impl fmt::Display for Reach {
    /// To whom, without what.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.skill, &self.service) {
            (Some(skill), Some(service)) => write!(f, "{skill}, service {service}")?,
            (Some(skill), None) => write!(f, "{skill}, without an account")?,
            (None, _) => f.write_str("all skills")?,
        }
        write!(f, ", for {}", self.users.join(", "))?;
        if !self.clients.is_empty() {
            write!(f, ", called by {}", self.clients.join(", "))?;
        }
        match self.from {
            Some(from) => write!(f, ", from {from} on"),
            None => Ok(()),
        }
    }
}
