//! What people are told about the files they wrote: each broken file in `tests/golden/KIND/` stands beside the exact text of
//! its errors. `UPDATE_GOLDEN=1` writes the texts anew; read what changed.
#![expect(clippy::expect_used, reason = "the functions of a test may fail it too")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clawcoil::diagnostic::{Diagnostics, Source};
use clawcoil::id::ProviderId;
use clawcoil::policy::{Manifest, Permissions, Placement, ProviderFacts, Slot};

/// A kind of file: its folder, and how it is read.
type Kind = (&'static str, fn(&Source) -> Result<(), Diagnostics>);

const KINDS: &[Kind] = &[("manifest", read_manifest), ("permissions", read_permissions)];

fn read_manifest(source: &Source) -> Result<(), Diagnostics> {
    Manifest::parse(source).map(drop)
}

/// First as the host reads it at its start, then as `clawcoil policy check` holds it against what is installed.
fn read_permissions(source: &Source) -> Result<(), Diagnostics> {
    let permissions = Permissions::parse(std::slice::from_ref(source))?;
    let installed = files(&golden().join("installed")).into_iter().map(|path| {
        let source = Source::open(&path).expect("the installed manifest is there");
        Manifest::parse(&source).expect("the installed manifest is in order")
    });
    permissions.check(&installed.collect::<Vec<_>>(), &providers())
}

fn providers() -> BTreeMap<ProviderId, ProviderFacts> {
    let facts = |origin: &str| ProviderFacts {
        api_origins: vec![origin.parse().expect("an origin")],
        api_origin_pattern: None,
        placement: Placement::Bearer,
        slots: vec![Slot::AuthorizationBearer],
    };
    [("google", "https://gmail.googleapis.com"), ("github", "https://api.github.com"), ("slack", "https://slack.com")]
        .map(|(id, origin)| (id.parse().expect("a provider"), facts(origin)))
        .into()
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    files
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a switch of this test")]
fn each_broken_file_is_answered_with_its_golden_text() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = String::new();
    for (kind, read) in KINDS {
        for path in files(&golden().join(kind)) {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            let bytes = std::fs::read(&path).expect("the file can be read");
            let answer = match Source::from_bytes(&*name, bytes).and_then(|source| read(&source)) {
                Ok(()) => "no error\n".to_owned(),
                Err(diagnostics) => format!("{diagnostics}\n"),
            };
            let expected = path.with_extension("stderr");
            if update {
                std::fs::write(&expected, &answer).expect("the golden text can be written");
            } else if std::fs::read_to_string(&expected).unwrap_or_default() != answer {
                writeln!(wrong, "--- {kind}/{name} is now answered with:\n{answer}").expect("a String takes text");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}UPDATE_GOLDEN=1 accepts the new texts");
}
