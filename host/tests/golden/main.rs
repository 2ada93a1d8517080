//! What people are told about what they brought: each broken thing in `tests/golden/KIND/` has the exact text of its error
//! beside it, in `NAME.stderr`. `UPDATE_GOLDEN=1` writes the texts anew; read what changed.
//!
//! Manifests, permissions, provider files, components and arguments lie there as they are. Databases and identities are
//! broken by the code here: no key belongs into a repository.
#![expect(clippy::expect_used, reason = "the functions of a test may fail it too")]

mod components;
mod databases;
mod files;
mod identities;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// A broken thing and what is said about it.
struct Case {
    name: String,
    answer: String,
}

impl Case {
    /// What was made of the thing, which must be nothing.
    fn new<T>(name: impl Into<String>, answer: Result<T, impl std::fmt::Display>) -> Self {
        let answer = answer.err().map(|error| format!("{error}\n")).unwrap_or_default();
        Self { name: name.into(), answer }
    }
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The files of a kind that end like this, in order, with their names without the ending.
fn files(kind: &str, ending: &str) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(golden().join(kind)).expect("the folder is there");
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == ending))
        .map(|path| (path.file_stem().expect("a name").to_string_lossy().into_owned(), path))
        .collect();
    files.sort();
    files
}

/// Holds the answers to the golden texts of their kind, and each golden text to a case that is still there.
#[expect(clippy::disallowed_methods, reason = "the switch of this test")]
fn hold(kind: &str, cases: Vec<Case>) {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = String::new();
    let names: BTreeSet<_> = cases.iter().map(|case| case.name.clone()).collect();
    assert_eq!(names.len(), cases.len(), "two cases of one name share a text");
    for case in cases {
        if case.answer.is_empty() {
            writeln!(wrong, "--- {kind}/{} is not broken", case.name).expect("a String takes text");
            continue;
        }
        let expected = golden().join(kind).join(format!("{}.stderr", case.name));
        if update {
            std::fs::create_dir_all(golden().join(kind)).expect("the folder can be made");
            std::fs::write(&expected, &case.answer).expect("the golden text can be written");
        } else if std::fs::read_to_string(&expected).unwrap_or_default() != case.answer {
            let Case { name, answer } = case;
            writeln!(wrong, "--- {kind}/{name} is now answered with:\n{answer}").expect("a String takes text");
        }
    }
    for (name, path) in files(kind, "stderr") {
        if !names.contains(&name) {
            writeln!(wrong, "--- {} belongs to no case: remove it", path.display()).expect("a String takes text");
        }
    }
    assert!(wrong.is_empty(), "{wrong}UPDATE_GOLDEN=1 accepts the new texts");
}

#[test]
fn each_broken_manifest_is_answered_with_its_golden_text() {
    hold("manifest", files::manifests());
}

#[test]
fn each_broken_permissions_file_is_answered_with_its_golden_text() {
    hold("permissions", files::permissions());
}

#[test]
fn each_broken_provider_file_is_answered_with_its_golden_text() {
    hold("provider", files::providers());
}

#[tokio::test]
async fn each_broken_component_is_answered_with_its_golden_text() {
    hold("component", components::components().await);
}

#[tokio::test]
async fn arguments_that_do_not_fit_are_answered_with_their_golden_text() {
    hold("arguments", components::arguments().await);
}

#[tokio::test]
async fn each_broken_database_is_answered_with_its_golden_text() {
    hold("database", databases::databases().await);
}

#[test]
fn each_broken_identity_is_answered_with_its_golden_text() {
    hold("identity", identities::identities());
}
