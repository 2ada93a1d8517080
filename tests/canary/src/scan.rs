//! The search of a whole test run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::canaries::{Canary, Kind, noted};
use crate::run;
use crate::search::{Search, files};

/// Each line at that level has this word.
const TRACE: &str = " TRACE ";

/// What was searched, and what was found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Scanned {
    /// How many files.
    pub files: usize,
    /// How long they were together.
    pub bytes: usize,
    /// How many different secrets were looked for, by their kind.
    pub canaries: BTreeMap<Kind, usize>,
    /// In how many forms together.
    pub forms: usize,
    /// The programs that wrote lines at TRACE, and how many files of theirs have some.
    pub traced: BTreeMap<String, usize>,
    /// The secrets that were found.
    pub leaks: Vec<Leak>,
}

/// A secret in an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leak {
    /// Where.
    pub file: PathBuf,
    /// How many bytes stand before it.
    pub at: usize,
    /// Which one, without saying it: `access token 3 of oauth`.
    pub canary: String,
    /// In which form.
    pub form: &'static str,
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, byte {}: {} ({})", self.file.display(), self.at, self.canary, self.form)
    }
}

/// Prepares an empty folder for a run.
pub fn begin(run: &Path) -> io::Result<()> {
    match fs::remove_dir_all(run) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir_all(run::canaries(run))?;
    fs::create_dir_all(run::outputs(run))
}

/// The file for what the run itself prints.
pub fn printed(run: &Path) -> io::Result<File> {
    File::create(run::outputs(run).join("printed.log"))
}

/// Searches the outputs of a run for all secrets that were noted in it.
pub fn scan(run: &Path) -> io::Result<Scanned> {
    search(&run::outputs(run), &noted(run)?)
}

fn search(outputs: &Path, canaries: &[Canary]) -> io::Result<Scanned> {
    let search = Search::of(canaries.iter().map(|canary| (canary.secret.as_slice(), canary.then)));
    let mut scanned = Scanned { forms: search.forms(), ..Scanned::default() };
    for canary in canaries {
        *scanned.canaries.entry(canary.kind).or_default() += 1;
    }
    for path in files(outputs)? {
        let mut traced = false;
        let mut seen = BTreeSet::new();
        scanned.bytes += search.each(
            File::open(&path)?,
            |piece| traced = traced || String::from_utf8_lossy(piece).contains(TRACE),
            |found| {
                // One place of each secret is enough to act on.
                if seen.insert(found.secret)
                    && let Some(canary) = canaries.get(found.secret)
                {
                    let canary = canary.name.clone();
                    scanned.leaks.push(Leak { file: path.clone(), at: found.at, canary, form: found.form });
                }
            },
        )?;
        scanned.files += 1;
        if traced {
            *scanned.traced.entry(program(&path)).or_default() += 1;
        }
    }
    Ok(scanned)
}

/// The program that an output is of: what stands behind the numbers in its name.
fn program(path: &Path) -> String {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    name.splitn(3, '-').last().unwrap_or_default().to_owned()
}

/// Copies an output of the run, writes one secret of each kind behind it, and sees that the search finds each of them.
///
/// # Errors
///
/// The kinds that were not found, or what can't be read or written.
pub fn prove(run: &Path) -> io::Result<()> {
    let canaries = noted(run)?;
    let place = run.join("planted");
    fs::create_dir_all(&place)?;
    let outputs = files(&run::outputs(run))?;
    let output = outputs.first().map(fs::read).transpose()?.unwrap_or_default();
    for kind in Kind::ALL {
        let Some(canary) = canaries.iter().find(|canary| canary.kind == *kind && canary.then == 0) else { continue };
        for form in [canary.secret.clone(), STANDARD.encode(&canary.secret).into(), hex::encode(&canary.secret).into()]
        {
            fs::write(place.join("planted.log"), [&output[..], &form, b"\n"].concat())?;
            let scanned = search(&place, &canaries)?;
            if !scanned.leaks.iter().any(|leak| leak.canary == canary.name && leak.at == output.len()) {
                return Err(io::Error::other(format!("the search does not find a planted {}", kind.name())));
            }
        }
    }
    fs::remove_dir_all(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run in which one secret was noted, and these outputs were kept.
    fn run_with(outputs: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        begin(folder.path()).unwrap();
        let hex = hex::encode("a-planted-secret");
        let note = format!("{{\"kind\":\"API key\",\"hex\":\"{hex}\",\"then\":0,\"from\":\"a-test\"}}\n");
        for notes in ["1-0-one.jsonl", "2-0-other.jsonl"] {
            fs::write(run::canaries(folder.path()).join(notes), &note).unwrap();
        }
        for (name, text) in outputs {
            fs::write(run::outputs(folder.path()).join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn a_leak_is_told_with_its_file_its_place_and_its_name_without_the_secret() {
        let run = run_with(&[
            ("1-0-good.log", "2026-11-24T11:03:07.123456Z TRACE a: b\n"),
            ("1-1-a-bad-one.log", "0123456789 a-planted-secret and YS1wbGFudGVkLXNlY3JldA"),
        ]);
        let scanned = scan(run.path()).unwrap();
        assert_eq!((scanned.files, &scanned.canaries), (2, &BTreeMap::from([(Kind::ApiKey, 1)])));
        assert_eq!(scanned.traced, BTreeMap::from([("good".to_owned(), 1)]));
        let [leak] = &scanned.leaks[..] else { panic!("{:?}", scanned.leaks) };
        let told = leak.to_string();
        assert!(told.ends_with("1-1-a-bad-one.log, byte 11: API key 1 of a-test (raw)"), "{told}");
    }

    #[test]
    fn an_empty_run_has_nothing_to_search_for_and_traced_nothing() {
        let folder = tempfile::tempdir().unwrap();
        begin(folder.path()).unwrap();
        let scanned = scan(folder.path()).unwrap();
        assert!(scanned.canaries.is_empty() && scanned.traced.is_empty());
    }

    #[test]
    fn the_search_proves_itself_on_a_copy_and_leaves_the_run_as_it_was() {
        let run = run_with(&[("1-0-good.log", "much else\n")]);
        prove(run.path()).unwrap();
        assert!(scan(run.path()).unwrap().leaks.is_empty());
        assert!(!run.path().join("planted").exists());
    }

    #[test]
    fn notes_that_are_none_are_an_error() {
        let run = run_with(&[]);
        fs::write(run::canaries(run.path()).join("3-0-broken.jsonl"), "{}\n").unwrap();
        assert!(scan(run.path()).unwrap_err().to_string().contains("3-0-broken.jsonl"));
    }
}
