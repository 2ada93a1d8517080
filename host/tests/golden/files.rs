//! The files that people write.

use std::collections::BTreeMap;

use clawcoil::diagnostic::{Diagnostics, Source};
use clawcoil::id::ProviderId;
use clawcoil::policy::{Manifest, Permissions, Placement, ProviderFacts, Slot};
use clawcoil::provider::Catalogue;

use super::{Case, files};

pub(super) fn manifests() -> Vec<Case> {
    each("manifest", |source| Manifest::parse(source).map(drop))
}

/// First as the host reads it at its start, then as `clawcoil policy check` holds it against what is installed.
pub(super) fn permissions() -> Vec<Case> {
    each("permissions", |source| {
        let permissions = Permissions::parse(std::slice::from_ref(source))?;
        let installed = files("installed", "toml").into_iter().map(|(_, path)| {
            let source = Source::open(&path).expect("the installed manifest is there");
            Manifest::parse(&source).expect("the installed manifest is in order")
        });
        permissions.check(&installed.collect::<Vec<_>>(), &facts())
    })
}

pub(super) fn providers() -> Vec<Case> {
    each("provider", |source| Catalogue::with(std::slice::from_ref(source)).map(drop))
}

fn each(kind: &str, read: impl Fn(&Source) -> Result<(), Diagnostics>) -> Vec<Case> {
    let cases = files(kind, "toml").into_iter().map(|(name, path)| {
        let bytes = std::fs::read(&path).expect("the file can be read");
        let answer = Source::from_bytes(format!("{name}.toml"), bytes).and_then(|source| read(&source));
        Case::new(name, answer)
    });
    cases.collect()
}

fn facts() -> BTreeMap<ProviderId, ProviderFacts> {
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
