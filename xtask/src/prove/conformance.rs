//! What the conformance suite of the Model Context Protocol says, held against the list of what does not apply.
//!
//! The suite itself compares only the scenarios that count for a revision. Here every scenario that was played must either pass
//! or be listed, and what is listed must not pass.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};

/// One run of the suite.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Played {
    /// With how many checks each.
    passed: BTreeMap<String, u32>,
    /// A check of theirs failed, or warned.
    fell_short: BTreeSet<String>,
    /// They looked at nothing here.
    empty: BTreeSet<String>,
}

/// The scenarios that don't apply.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listed {
    whole: BTreeSet<String>,
    /// Of these, some checks.
    in_part: BTreeSet<String>,
}

impl Played {
    /// Reads the closing lines of the suite: `✓ NAME: N passed, M failed`, and `~ NAME[:CHECK]` for each that it expected.
    pub(super) fn read(output: &str) -> Self {
        let mut played = Self::default();
        let mut expected = BTreeSet::new();
        for line in output.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix("~ ") {
                expected.insert(scenario(name));
            }
            let Some((name, passed, failed)) = line.strip_prefix(['✓', '✗']).and_then(counts) else { continue };
            match (line.starts_with('✗') || failed > 0, passed) {
                (true, _) => drop(played.fell_short.insert(name)),
                (false, 0) => drop(played.empty.insert(name)),
                (false, _) => drop(played.passed.insert(name, passed)),
            }
        }
        for name in expected {
            played.passed.remove(&name);
            played.fell_short.insert(name);
        }
        played
    }

    /// What came of it in a line; an error where the list and the run do not agree.
    pub(super) fn judged(&self, listed: &Listed) -> Result<String> {
        if self.passed.is_empty() {
            bail!("no scenario was played");
        }
        let is_listed = |name: &&String| listed.whole.contains(*name) || listed.in_part.contains(*name);
        let unlisted: Vec<_> = self.fell_short.iter().filter(|name| !is_listed(name)).cloned().collect();
        if !unlisted.is_empty() {
            bail!("not passed, and not listed: {}", unlisted.join(", "));
        }
        let stale: Vec<_> = self.passed.keys().filter(is_listed).cloned().collect();
        if !stale.is_empty() {
            bail!("listed, and passed: {}", stale.join(", "));
        }
        let in_part = self.fell_short.intersection(&listed.in_part).count();
        let checks: u32 = self.passed.values().sum();
        let mut told = vec![format!("{} scenarios passed ({checks} checks)", self.passed.len())];
        if in_part > 0 {
            told.push(format!("{in_part} but for checks that are listed"));
        }
        told.push(format!("{} listed with a reason", self.fell_short.len() - in_part));
        if !self.empty.is_empty() {
            told.push(format!("{} had nothing to look at", self.empty.len()));
        }
        Ok(told.join(", "))
    }
}

impl Listed {
    /// Reads a list as the suite does: `- NAME` and `- NAME:CHECK`.
    pub(super) fn read(list: &str) -> Self {
        let mut listed = Self::default();
        for entry in list.lines().filter_map(|line| line.trim().strip_prefix("- ")) {
            let set = if entry.contains(':') { &mut listed.in_part } else { &mut listed.whole };
            set.insert(scenario(entry));
        }
        listed
    }
}

fn scenario(name: &str) -> String {
    name.split(':').next().unwrap_or(name).trim().to_owned()
}

fn counts(line: &str) -> Option<(String, u32, u32)> {
    let (name, counts) = line.split_once(": ")?;
    let (passed, failed) = counts.split_once(" passed, ")?;
    Some((name.trim().to_owned(), passed.parse().ok()?, failed.split(' ').next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
Running …
✓ tools-list: 2 passed, 0 failed
✗ prompts-list: 1 passed, 1 failed
✓ asks: 1 passed, 0 failed
✓ tasks: 0 passed, 0 failed

Total: 4 passed, 1 failed
  ~ prompts-list
  ~ asks
";

    #[test]
    fn everything_passes_or_is_listed() {
        let played = Played::read(OUTPUT);
        let told = played.judged(&Listed::read("server:\n  # why\n  - prompts-list\n  - asks:some-check\n")).unwrap();
        assert_eq!(
            told,
            "1 scenarios passed (2 checks), 1 but for checks that are listed, 1 listed with a reason, 1 had nothing to look at"
        );
        let error = played.judged(&Listed::read("  - prompts-list\n")).unwrap_err().to_string();
        assert_eq!(error, "not passed, and not listed: asks");
    }

    #[test]
    fn what_is_listed_and_passes_is_stale_and_a_run_of_nothing_is_no_proof() {
        let played = Played::read(OUTPUT);
        let error = played.judged(&Listed::read("- prompts-list\n- asks\n- tools-list")).unwrap_err().to_string();
        assert_eq!(error, "listed, and passed: tools-list");
        assert!(Played::read("it crashed").judged(&Listed::default()).is_err());
    }
}
