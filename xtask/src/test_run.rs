//! `cargo test` with all that it and its processes put out kept, and the search of that for the secrets that the tests planted.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, PipeReader, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clawcoil_canary::{Kind, RUN, scan};

use crate::run::{command, root, run_piped};

/// The programs that must have traced, or the search has looked at nothing.
const TRACING: [&str; 11] = [
    "clawcoil-tests.attacks",
    "clawcoil-tests.audit",
    "clawcoil-tests.exfiltration",
    "clawcoil-tests.isolation",
    "clawcoil-tests.neighbours",
    "clawcoil-tests.oauth",
    "clawcoil-tests.refresh",
    "clawcoil-tests.skills",
    "clawcoil.clawcoil",
    "a-life",
    "command",
];

/// Emptied at the beginning of each run.
fn folder() -> PathBuf {
    root().join("target/test-run")
}

/// Runs all tests. Shown is what `cargo test` always shows; kept is also what the tests that passed have printed.
pub(crate) fn cargo_test() -> Result<()> {
    let folder = folder();
    scan::begin(&folder).with_context(|| format!("{} can't be emptied", folder.display()))?;
    let printed = scan::printed(&folder).with_context(|| format!("{} can't be written", folder.display()))?;
    let mut tests = command("cargo", &["test", "--workspace", "--no-fail-fast", "--", "--show-output"]);
    run_piped(tests.env(RUN, &folder), move |output| show(output, printed))
}

/// Copies the lines to a file, and to stdout those that are not what a passed test has printed.
fn show(output: PipeReader, mut file: File) -> io::Result<()> {
    let mut output = BufReader::new(output);
    let (mut line, mut section) = (Vec::new(), Section::Results);
    while output.read_until(b'\n', &mut line)? > 0 {
        file.write_all(&line)?;
        section = section.after(&line);
        if section != Section::Passed {
            io::stdout().write_all(&line)?;
        }
        line.clear();
    }
    Ok(())
}

/// Where in the output of one program's tests a line stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    /// The tests' names and results.
    Results,
    /// What tests that passed have printed, and their names.
    Passed,
    /// What tests that failed have printed: from here on all is shown up to the next program.
    Failed,
}

impl Section {
    fn after(self, line: &[u8]) -> Self {
        match (self, line.trim_ascii_end()) {
            (_, line) if line.starts_with(b"test result: ") => Self::Results,
            (Self::Results, b"successes:") => Self::Passed,
            (Self::Results | Self::Passed, b"failures:") => Self::Failed,
            (section, _) => section,
        }
    }
}

/// Searches the run's outputs for each secret that was planted in it.
pub(crate) fn search() -> Result<()> {
    let folder = folder();
    let scanned = scan::scan(&folder).with_context(|| format!("{} can't be searched", folder.display()))?;
    let canaries: usize = scanned.canaries.values().sum();
    let lines = format!(
        "{} outputs ({} MB) were searched for {canaries} secrets in {} forms: {} found",
        scanned.files,
        scanned.bytes / 1_000_000,
        scanned.forms,
        scanned.leaks.len()
    );
    if !scanned.leaks.is_empty() {
        let leaks: Vec<_> = scanned.leaks.iter().map(ToString::to_string).collect();
        bail!("{lines}\n    {}", leaks.join("\n    "));
    }
    let unplanted: Vec<_> =
        Kind::ALL.iter().filter(|kind| !scanned.canaries.contains_key(kind)).map(|kind| kind.name()).collect();
    if !unplanted.is_empty() {
        bail!("the tests have planted no {}: nothing was searched for", unplanted.join(", "));
    }
    let traced: BTreeSet<_> = scanned.traced.keys().map(String::as_str).collect();
    let silent: Vec<_> = TRACING.into_iter().filter(|program| !traced.contains(program)).collect();
    if !silent.is_empty() {
        bail!("nothing at TRACE was written by {} (only by {traced:?})", silent.join(", "));
    }
    scan::prove(&folder).context("the search is not to be trusted")?;
    println!("{lines}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passed_tests_print_is_not_shown_and_what_failed_ones_print_is() {
        let output = "running 2 tests\ntest a ... ok\ntest b ... FAILED\n\nsuccesses:\n\n---- a stdout ----\nnoise\n\n\
                      successes:\n    a\n\nfailures:\n\n---- b stdout ----\nsuccesses:\nwhy\n\nfailures:\n    b\n\n\
                      test result: FAILED. 1 passed\n\nrunning 0 tests\n";
        let mut section = Section::Results;
        let mut shown = String::new();
        for line in output.split_inclusive('\n') {
            section = section.after(line.as_bytes());
            if section != Section::Passed {
                shown.push_str(line);
            }
        }
        assert_eq!(
            shown,
            "running 2 tests\ntest a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b stdout ----\nsuccesses:\nwhy\n\n\
             failures:\n    b\n\ntest result: FAILED. 1 passed\n\nrunning 0 tests\n"
        );
    }
}
