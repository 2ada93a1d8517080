//! What is allowed by one side only, in words.

use std::collections::{BTreeMap, BTreeSet};

use super::probe::{Atom, OTHER_METHOD, Service};

/// The lines for what one side allows a caller and the other does not. `gained` is part of `winner`, and nothing of it of `loser`.
pub(super) fn of(
    asked: &Service,
    gained: &BTreeSet<Atom>,
    winner: &BTreeSet<Atom>,
    loser: &BTreeSet<Atom>,
) -> Vec<String> {
    let words = Words { asked, winner, whole: loser.is_empty() };
    let mut lines = Vec::new();
    let mut left = gained.clone();
    if !words.whole {
        words.accounts(&mut left, loser, &mut lines);
        words.audiences(&mut left, loser, &mut lines);
    }
    words.scopes(&left, &mut lines);
    let revealed: BTreeSet<usize> = left
        .iter()
        .filter_map(|atom| if let Atom::Reveal { account } = atom { Some(*account) } else { None })
        .collect();
    if !revealed.is_empty() {
        lines.push(format!("the skill sees the token itself{}", words.with(&revealed)));
    }
    words.requests(&left, &mut lines);
    words.others(&left, &mut lines);
    if lines.is_empty() {
        lines.push("the service".to_owned());
    }
    lines
}

struct Words<'a> {
    asked: &'a Service,
    winner: &'a BTreeSet<Atom>,
    /// The other side allows nothing of the service.
    whole: bool,
}

fn account_of(atom: &Atom) -> Option<usize> {
    match atom {
        Atom::Token { account, .. }
        | Atom::Reveal { account }
        | Atom::Request { account, .. }
        | Atom::After { account, .. } => Some(*account),
        Atom::Owner { .. } | Atom::Default(_) | Atom::Rate(_) => None,
    }
}

impl Words<'_> {
    fn account(&self, place: usize) -> String {
        match self.asked.accounts.get(place) {
            Some(Some(_)) if place + 1 == self.asked.accounts.len() => "any other account".to_owned(),
            Some(Some(alias)) => format!("account {alias}"),
            _ => "no account named".to_owned(),
        }
    }

    /// With which accounts; nothing where it is with all that the side allows at all.
    fn with(&self, accounts: &BTreeSet<usize>) -> String {
        let all: BTreeSet<usize> = self.winner.iter().filter_map(account_of).collect();
        if *accounts == all {
            return String::new();
        }
        let names: Vec<String> = accounts.iter().map(|place| self.account(*place)).collect();
        format!(", with {}", names.join(" or "))
    }

    /// Accounts that one side does not allow at all.
    fn accounts(&self, left: &mut BTreeSet<Atom>, loser: &BTreeSet<Atom>, lines: &mut Vec<String>) {
        let had: BTreeSet<usize> = loser.iter().filter_map(account_of).collect();
        let new: BTreeSet<usize> =
            left.iter().filter_map(account_of).filter(|account| !had.contains(account)).collect();
        lines.extend(new.iter().map(|account| self.account(*account)));
        left.retain(|atom| account_of(atom).is_none_or(|account| !new.contains(&account)));
    }

    fn audiences(&self, left: &mut BTreeSet<Atom>, loser: &BTreeSet<Atom>, lines: &mut Vec<String>) {
        let audience = |atom: &Atom| if let Atom::Token { audience, .. } = atom { Some(*audience) } else { None };
        let had: BTreeSet<usize> = loser.iter().filter_map(audience).collect();
        let new: BTreeSet<usize> =
            left.iter().filter_map(audience).filter(|audience| !had.contains(audience)).collect();
        for named in new.iter().filter_map(|place| self.asked.audiences.get(*place)?.as_ref()) {
            lines.push(format!("audience {named:?}"));
        }
        left.retain(|atom| audience(atom).is_none_or(|audience| !new.contains(&audience)));
    }

    fn scopes(&self, left: &BTreeSet<Atom>, lines: &mut Vec<String>) {
        let mut by_set: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for atom in left {
            if let Atom::Token { scopes, account, .. } = atom {
                by_set.entry(*scopes).or_default().insert(*account);
            }
        }
        let set = |place: usize| self.asked.scopes.get(place).map_or(&[][..], Vec::as_slice);
        let alone: BTreeSet<&String> =
            by_set.keys().filter_map(|place| if let [only] = set(*place) { Some(only) } else { None }).collect();
        for (place, accounts) in &by_set {
            let with = self.with(accounts);
            match set(*place) {
                [] => {}
                [only] => lines.push(format!("scope {only}{with}")),
                several if several.iter().any(|scope| alone.contains(scope)) => {}
                several => lines.push(format!("scopes {} together{with}", several.join(" "))),
            }
        }
    }

    fn requests(&self, left: &BTreeSet<Atom>, lines: &mut Vec<String>) {
        // By where and on which terms: the methods of each path.
        type Terms = (usize, bool, BTreeSet<usize>);
        let mut accounts: BTreeMap<(usize, bool, usize, usize), BTreeSet<usize>> = BTreeMap::new();
        for atom in left {
            if let Atom::Request { account, origin, own, method, path } = atom {
                accounts.entry((*origin, *own, *method, *path)).or_default().insert(*account);
            }
        }
        let mut places: BTreeMap<Terms, BTreeMap<usize, BTreeSet<usize>>> = BTreeMap::new();
        for ((origin, own, method, path), with) in &accounts {
            // What goes there in any case is not said again for a connection that has its API there.
            if *own && self.winner.iter().any(|atom| matches!(atom, Atom::Request { origin: o, own: false, method: m, path: p, .. } if (o, m, p) == (origin, method, path))) {
                continue;
            }
            places.entry((*origin, *own, with.clone())).or_default().entry(*path).or_default().insert(*method);
        }
        for ((origin, own, with), by_path) in places {
            let Some((_, name)) = self.asked.places.origins.get(origin) else { continue };
            let own = if own { ", where that is the connection's own" } else { "" };
            let with = self.with(&with);
            let everywhere = by_path.len() == self.asked.places.paths.len();
            let mut by_methods: BTreeMap<&BTreeSet<usize>, Vec<&str>> = BTreeMap::new();
            for (path, methods) in &by_path {
                let label = self.asked.places.paths.get(*path).map_or("", |class| class.label.as_str());
                by_methods.entry(methods).or_default().push(label);
            }
            let alike = by_methods.len() == 1;
            for (methods, mut paths) in by_methods {
                paths.sort_unstable();
                paths.dedup();
                let paths = if everywhere && alike { String::new() } else { paths.join(", ") };
                lines.push(format!("{} {name}{paths}{own}{with}", self.methods(methods)));
            }
        }
    }

    fn methods(&self, places: &BTreeSet<usize>) -> String {
        if places.len() == self.asked.places.methods.len() {
            return "any method".to_owned();
        }
        let name = |place: &usize| match self.asked.places.methods.get(*place).map(http::Method::as_str) {
            Some(OTHER_METHOD) | None => "any other method",
            Some(name) => name,
        };
        places.iter().map(name).collect::<Vec<_>>().join("|")
    }

    fn others(&self, left: &BTreeSet<Atom>, lines: &mut Vec<String>) {
        // What goes there with the account in any case is not said again.
        let goes_there = |account, origin, method, path| {
            self.winner.contains(&Atom::Request { account, origin, own: false, method, path })
        };
        let mut after: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for atom in left {
            if let Atom::After { account, origin, method, path } = *atom
                && !goes_there(account, origin, method, path)
            {
                after.entry(origin).or_default().insert(account);
            }
        }
        for (origin, accounts) in after {
            let name = self.asked.places.origins.get(origin).map_or("", |(_, name)| name.as_str());
            let with = self.with(&accounts);
            lines.push(format!("requests to {name} after the skill has seen the token{with}"));
        }
        for atom in left {
            match atom {
                Atom::Owner { agent: true } => lines.push("the agent's own account".to_owned()),
                Atom::Owner { agent: false } if !self.whole => lines.push("the user's own account".to_owned()),
                Atom::Default(alias) if !self.whole => lines.push(format!("account {alias} where none is named")),
                _ => {}
            }
        }
        let most = left.iter().filter_map(|atom| if let Atom::Rate(place) = atom { Some(*place) } else { None }).max();
        match most.map(|most| self.asked.rates.get(most)) {
            Some(Some(rate)) => lines.push(format!("up to {rate}")),
            Some(None) if !self.whole => lines.push("as often as wanted".to_owned()),
            _ => {}
        }
    }
}
