//! All providers that a host knows.

use std::collections::BTreeMap;

use super::draft::Draft;
use super::entry::Provider;
use crate::diagnostic::{Diagnostic, Diagnostics, Source, Table};
use crate::id::ProviderId;
use crate::policy::ProviderFacts;

const BUILT_IN: &str = include_str!("providers.toml");

/// The built-in providers with the operator's additions and changes.
#[derive(Debug, Clone)]
pub struct Catalogue {
    drafts: BTreeMap<ProviderId, Draft>,
    providers: BTreeMap<ProviderId, Provider>,
}

impl Catalogue {
    /// The built-in providers.
    pub fn builtin() -> Result<Self, Diagnostics> {
        Self::with(&[])
    }

    /// The built-in providers, with these files over them in their order.
    ///
    /// # Errors
    ///
    /// All errors of all files.
    pub fn with(files: &[Source]) -> Result<Self, Diagnostics> {
        let mut catalogue = Self { drafts: BTreeMap::new(), providers: BTreeMap::new() };
        catalogue.read(&Source::new("built-in providers.toml", BUILT_IN))?;
        let mut errors: Option<Diagnostics> = None;
        for file in files {
            if let Err(found) = catalogue.read(file) {
                errors = Some(match errors {
                    Some(earlier) => earlier.and(found),
                    None => found,
                });
            }
        }
        errors.map_or(Ok(catalogue), Err)
    }

    fn read(&mut self, file: &Source) -> Result<(), Diagnostics> {
        let entries = Table::read(file, |root| {
            let entries = root.named_tables("provider", |name, table| {
                let id = name.value.parse::<ProviderId>().map_err(|error| {
                    let diagnostic = Diagnostic::new(name.span.clone(), "this is no name of a provider");
                    table.push(diagnostic.label(error.rule().to_owned()));
                });
                let base = id.as_ref().ok().and_then(|id| self.drafts.get(id)).cloned().unwrap_or_default();
                let draft = base.read(table);
                // Under a name that is none, what else is wrong is told all the same.
                let built_as = id.clone().or_else(|()| "unnamed".parse()).ok()?;
                let provider = draft.build(&built_as, table);
                Some((id.ok()?, draft, provider.ok()?))
            });
            Some(entries)
        })?;
        for (id, draft, provider) in entries {
            self.drafts.insert(id.clone(), draft);
            self.providers.insert(id, provider);
        }
        Ok(())
    }

    /// The provider of this name.
    pub fn get(&self, id: &ProviderId) -> Option<&Provider> {
        self.providers.get(id)
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Provider> {
        self.providers.values()
    }

    /// What policy must know.
    pub fn facts(&self) -> BTreeMap<ProviderId, ProviderFacts> {
        self.providers.iter().map(|(id, provider)| (id.clone(), provider.facts())).collect()
    }
}
