//! The folder of a test run.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The variable of the environment that names the folder of a test run, in full.
pub const RUN: &str = "CLAWCOIL_TEST_RUN";

static FOLDER: LazyLock<Option<PathBuf>> = LazyLock::new(folder);

#[expect(clippy::disallowed_methods, reason = "whoever starts a test run says so in the environment")]
fn folder() -> Option<PathBuf> {
    std::env::var_os(RUN).filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

/// Whether this process is part of a test run that is searched at its end.
pub fn is_on() -> bool {
    FOLDER.is_some()
}

/// Where the outputs of a run are.
pub(crate) fn outputs(run: &Path) -> PathBuf {
    run.join("outputs")
}

/// Where a run's canaries are noted: beside the outputs, since the notes hold what the outputs must not.
pub(crate) fn canaries(run: &Path) -> PathBuf {
    run.join("canaries")
}

/// A new file for what something of this name puts out; `None` outside of a run.
pub(crate) fn output(name: &str) -> Option<File> {
    Some(create(&outputs(FOLDER.as_ref()?), &format!("{name}.log")))
}

/// A new file for the canaries of this process; `None` outside of a run.
pub(crate) fn notes() -> Option<File> {
    Some(create(&canaries(FOLDER.as_ref()?), &format!("{}.jsonl", process_name())))
}

/// The names of this process' package and program, without what cargo appends to it.
#[expect(clippy::disallowed_methods, reason = "cargo says in the environment which package it runs")]
pub(crate) fn process_name() -> String {
    let package = std::env::var("CARGO_PKG_NAME").unwrap_or_else(|_| "unknown".to_owned());
    format!("{package}.{}", program())
}

fn program() -> String {
    let program = std::env::current_exe().ok();
    let stem = program.as_deref().and_then(Path::file_stem).map(|stem| stem.to_string_lossy().into_owned());
    let stem = stem.unwrap_or_else(|| "unknown".to_owned());
    match stem.rsplit_once('-') {
        Some((name, digits)) if digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            name.to_owned()
        }
        _ => stem,
    }
}

fn create(folder: &Path, name: &str) -> File {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    fs::create_dir_all(folder).expect("the folder of the test run can be written");
    let path = folder.join(format!("{}-{}-{name}", process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)));
    let file = OpenOptions::new().append(true).create_new(true).open(&path);
    file.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
