//! Names and paths that stand for all others which no rule tells apart.
//!
//! The texts that a set of patterns can match fall into classes: two texts are in one class if each pattern says the same of both.
//! All patterns are followed letter by letter at once, so that also a class is found that lies where three of them meet.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::super::pattern::Pattern;
use super::super::request::PathRule;

/// So many states are looked at. Patterns that people write need a few hundred.
const MOST_STATES: usize = 20_000;

/// One class: a text that stands for it, and how it is called.
#[derive(Debug, Clone)]
pub(super) struct Class {
    pub(super) text: String,
    pub(super) label: String,
}

/// Classes for which all rules are the same: of a thousand users that one grant names, one is asked about.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) text: String,
    pub(super) labels: Vec<String>,
}

/// The classes that were found.
#[derive(Debug, Default)]
pub(super) struct Classes {
    pub(super) all: Vec<Class>,
    /// Whether these are all.
    pub(super) complete: bool,
}

impl Classes {
    /// Takes those together of which the rules say the same.
    pub(super) fn grouped(self, says: impl Fn(&str) -> Vec<bool>) -> Vec<Group> {
        let mut groups: BTreeMap<Vec<bool>, Group> = BTreeMap::new();
        for Class { text, label } in self.all {
            let group = groups.entry(says(&text)).or_insert_with(|| Group { text, labels: Vec::new() });
            group.labels.push(label);
        }
        groups.into_values().collect()
    }
}

/// The classes of names that these patterns can tell apart.
pub(super) fn of_names(patterns: &BTreeSet<Pattern>) -> Classes {
    let (open, literal): (Vec<&Pattern>, Vec<&Pattern>) =
        patterns.iter().partition(|pattern| pattern.as_str().contains('*'));
    let literal: BTreeSet<&str> = literal.into_iter().map(Pattern::as_str).collect();
    let mut alphabet: BTreeSet<char> = patterns.iter().flat_map(|pattern| pattern.as_str().chars()).collect();
    alphabet.remove(&'*');
    // A letter that stands in no pattern, for all such letters. If each stands in one, those that do stand for themselves.
    let mut letters = ('a'..='z').rev().chain('A'..='Z').chain('0'..='9');
    alphabet.extend(letters.find(|letter| !alphabet.contains(letter)));
    let mut found: BTreeMap<Vec<bool>, String> = BTreeMap::new();
    let begins_literal = |text: &str| literal.range(text..).next().is_some_and(|literal| literal.starts_with(text));
    let start: Vec<Positions> = open.iter().map(|pattern| Positions::start(pattern)).collect();
    let complete = explore(
        (Some(String::new()), start),
        |(prefix, at)| {
            let first = prefix.as_ref().is_some_and(String::is_empty);
            let letters = alphabet.iter().filter(move |letter| !first || letter.is_ascii_alphanumeric());
            let next = letters.map(|&letter| {
                let prefix = prefix.as_ref().map(|prefix| format!("{prefix}{letter}"));
                let prefix = prefix.filter(|text| begins_literal(text));
                (letter, (prefix, at.iter().zip(&open).map(|(at, pattern)| at.after(pattern, letter)).collect()))
            });
            next.collect()
        },
        |letters: &[char], (_, at)| {
            let text: String = letters.iter().collect();
            if !text.is_empty() && !literal.contains(text.as_str()) {
                let signature = at.iter().zip(&open).map(|(at, pattern)| at.accepts(pattern)).collect();
                found.entry(signature).or_insert(text);
            }
        },
    );
    let named = literal.iter().filter(|text| text.starts_with(|c: char| c.is_ascii_alphanumeric()));
    let mut all: Vec<Class> = named.map(|text| Class { text: (*text).to_owned(), label: (*text).to_owned() }).collect();
    all.extend(found.into_iter().map(|(signature, text)| {
        let matched = open.iter().zip(signature).filter(|(pattern, matches)| *matches && pattern.as_str() != "*");
        let matched: Vec<&str> = matched.map(|(pattern, _)| pattern.as_str()).collect();
        let label = match &*matched {
            [] if all_are_open(&literal, &open) => "everybody".to_owned(),
            [] => "everybody else".to_owned(),
            matched => matched.join(" and "),
        };
        Class { text, label }
    }));
    Classes { all, complete }
}

fn all_are_open(literal: &BTreeSet<&str>, open: &[&Pattern]) -> bool {
    literal.is_empty() && open.iter().all(|pattern| pattern.as_str() == "*")
}

/// The places in a pattern up to which the text so far may have been matched. A pattern has at most 128 characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Positions([u128; 2]);

impl Positions {
    fn start(pattern: &Pattern) -> Self {
        let mut at = Self([0; 2]);
        at.reach(pattern.as_str().as_bytes(), 0);
        at
    }

    /// A star may stand for nothing.
    fn reach(&mut self, pattern: &[u8], place: usize) {
        let mut place = place;
        self.put(place);
        while pattern.get(place) == Some(&b'*') {
            place += 1;
            self.put(place);
        }
    }

    fn put(&mut self, place: usize) {
        let [low, high] = &mut self.0;
        let half = if place < 128 { low } else { high };
        *half |= 1 << (place % 128);
    }

    fn has(self, place: usize) -> bool {
        let [low, high] = self.0;
        (if place < 128 { low } else { high }) >> (place % 128) & 1 == 1
    }

    fn after(self, pattern: &Pattern, letter: char) -> Self {
        let pattern = pattern.as_str().as_bytes();
        let mut next = Self([0; 2]);
        for (place, expected) in pattern.iter().enumerate().filter(|(place, _)| self.has(*place)) {
            match *expected {
                b'*' => next.reach(pattern, place),
                expected if char::from(expected) == letter => next.reach(pattern, place + 1),
                _ => {}
            }
        }
        next
    }

    fn accepts(self, pattern: &Pattern) -> bool {
        self.has(pattern.as_str().len())
    }
}

/// The classes of paths that these rules can tell apart. Each text is a path that can be asked for.
pub(super) fn of_paths(rules: &BTreeSet<PathRule>) -> Classes {
    let mut alphabet: BTreeSet<&str> = rules.iter().flat_map(PathRule::literals).collect();
    let mut fresh = "any".to_owned();
    while alphabet.contains(fresh.as_str()) {
        fresh.push('-');
    }
    let others = [fresh, String::new()];
    alphabet.extend(others.iter().map(String::as_str));
    let mut found: BTreeMap<Vec<bool>, String> = BTreeMap::new();
    let start: Vec<Option<usize>> = vec![Some(0); rules.len()];
    let complete = explore(
        (0_u8, start),
        |(begun, at)| {
            // Nothing follows a first segment that is empty: a path begins with one slash.
            let segments = alphabet.iter().filter(|_| *begun < 2);
            let next = segments.map(|&segment| {
                let begun = if *begun == 0 && segment.is_empty() { 2 } else { 1 };
                let at = at.iter().zip(rules).map(|(at, rule)| rule.step((*at)?, segment)).collect();
                (segment, (begun, at))
            });
            next.collect()
        },
        |segments: &[&str], (begun, at)| {
            if *begun > 0 {
                let signature = at.iter().zip(rules).map(|(at, rule)| at.is_some_and(|at| rule.ends(at))).collect();
                found.entry(signature).or_insert_with(|| format!("/{}", segments.join("/")));
            }
        },
    );
    let all = found.into_iter().map(|(signature, text)| {
        let matched = rules.iter().zip(signature).filter(|(_, matches)| *matches).map(|(rule, _)| rule);
        // Of the rules that mean it the one that says most is the best name.
        let best = matched.max_by_key(|rule| (rule.literals().count(), !rule.to_string().ends_with("/**")));
        let label =
            best.map_or(if rules.is_empty() { "" } else { " on any other path" }.to_owned(), ToString::to_string);
        Class { text, label }
    });
    Classes { all: all.collect(), complete }
}

/// Visits each state that can be reached, with the shortest way to it. Says whether all were visited.
fn explore<S: Ord + Clone, L: Copy>(
    start: S,
    next: impl Fn(&S) -> Vec<(L, S)>,
    mut visit: impl FnMut(&[L], &S),
) -> bool {
    let mut seen = BTreeSet::from([start.clone()]);
    let mut queue = VecDeque::from([(Vec::new(), start)]);
    while let Some((way, state)) = queue.pop_front() {
        visit(&way, &state);
        for (letter, state) in next(&state) {
            if !seen.contains(&state) {
                if seen.len() == MOST_STATES {
                    return false;
                }
                seen.insert(state.clone());
                queue.push_back(([&*way, &[letter]].concat(), state));
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use http::Method;
    use proptest::prelude::*;

    use super::super::super::target::Target;
    use super::*;

    fn signature(patterns: &BTreeSet<Pattern>, text: &str) -> Vec<bool> {
        patterns.iter().map(|pattern| pattern.matches(text)).collect()
    }

    #[test]
    fn a_class_is_found_where_three_patterns_meet() {
        let patterns = ["a*", "*b*", "*c"].map(|text| text.parse().unwrap()).into();
        let classes = of_names(&patterns);
        assert!(classes.complete);
        assert!(classes.all.iter().any(|class| signature(&patterns, &class.text) == [true, true, true]));
        assert_eq!(classes.all.len(), 8);
    }

    proptest! {
        #[test]
        fn each_name_has_one_that_stands_for_it(
            patterns in proptest::collection::btree_set("[ab*][ab*]{0,3}", 0..4), name in "[abx]{1,6}"
        ) {
            let patterns: BTreeSet<Pattern> = patterns.iter().map(|text| text.parse().unwrap()).collect();
            let classes = of_names(&patterns);
            prop_assert!(classes.complete);
            let wanted = signature(&patterns, &name);
            prop_assert!(classes.all.iter().any(|class| signature(&patterns, &class.text) == wanted), "{:?}", classes);
        }

        #[test]
        fn each_path_has_one_that_stands_for_it(
            rules in proptest::collection::btree_set("(/[ab*]?){1,3}(/\\*\\*)?", 0..4), path in "(/[abx]?){1,5}"
        ) {
            let rules: BTreeSet<PathRule> = rules.iter().filter_map(|text| text.parse().ok()).collect();
            let signature = |path: &str| {
                let target = Target::parse(&Method::GET, &format!("https://api.example{path}").parse().unwrap()).ok()?;
                Some(rules.iter().map(|rule| rule.matches(target.path())).collect::<Vec<_>>())
            };
            let classes = of_paths(&rules);
            prop_assert!(classes.complete);
            if let Some(wanted) = signature(&path) {
                prop_assert!(classes.all.iter().any(|class| signature(&class.text).as_ref() == Some(&wanted)), "{:?}", classes);
            }
        }
    }
}
