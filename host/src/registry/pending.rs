//! New versions of installed skills that wait for an operator's approval. The old version stays in use meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{COMPONENT, InstalledSkill, Registry, RegistryError, io_error, replace_folder};
use crate::id::{Digest, SkillName};
use crate::policy::{Difference, Manifest, Need, NeedKind};
use crate::runtime::Component;

/// A new version of a skill that waits, and what it wants otherwise than the one in use.
#[derive(Debug, Clone)]
pub struct Pending {
    /// What the new version declares.
    pub manifest: Arc<Manifest>,
    /// What grants will pin once it is approved. Approve this one, not whichever waits then.
    pub digest: Digest,
    /// What the version in use declares.
    pub installed: Arc<Manifest>,
    /// What grants pin now.
    pub installed_digest: Digest,
    /// What it declares, imports and exports otherwise.
    pub difference: Difference,
}

impl Pending {
    /// Holds a new version against the one in use, each with its compiled component.
    pub fn between(old: (&InstalledSkill, &Component), new: (&InstalledSkill, &Component)) -> Self {
        let ((old, was), (new, is)) = (old, new);
        let mut difference = Difference::between(&old.manifest, &new.manifest);
        imports(was, is, &mut difference);
        tools(was, is, &mut difference);
        Self {
            manifest: Arc::new(new.manifest.clone()),
            digest: new.digest,
            installed: Arc::new(old.manifest.clone()),
            installed_digest: old.digest,
            difference,
        }
    }
}

/// Interfaces by name: that one was built against another version of an interface asks for nothing.
fn imports(was: &Component, is: &Component, difference: &mut Difference) {
    fn names(component: &Component) -> BTreeSet<&str> {
        component.imports().iter().map(|import| import.split('@').next().unwrap_or(import)).collect()
    }
    let need = |name: &&str| Need { kind: NeedKind::Import, service: None, text: format!("imports {name}") };
    let (was, is) = (names(was), names(is));
    difference.more.extend(is.difference(&was).map(need));
    difference.less.extend(was.difference(&is).map(need));
}

fn tools(was: &Component, is: &Component, difference: &mut Difference) {
    let by_name = |component: &Component| -> BTreeMap<String, (String, String)> {
        let tools = component.tools().iter();
        tools
            .map(|tool| (tool.name().to_owned(), (tool.input_schema().to_string(), tool.output_schema().to_string())))
            .collect()
    };
    let need = |kind, text| Need { kind, service: None, text };
    let (was, is) = (by_name(was), by_name(is));
    for (name, (takes, gives)) in &is {
        match was.get(name) {
            None => difference.words.push(need(NeedKind::Tool, format!("a new tool `{name}`"))),
            Some((took, gave)) => {
                if took != takes {
                    let text = format!("tool `{name}` takes something else: {takes} instead of {took}");
                    difference.words.push(need(NeedKind::Schema, text));
                }
                if gave != gives {
                    let text = format!("tool `{name}` gives something else: {gives} instead of {gave}");
                    difference.words.push(need(NeedKind::Schema, text));
                }
            }
        }
    }
    let gone = was.keys().filter(|name| !is.contains_key(*name));
    difference.words.extend(gone.map(|name| need(NeedKind::Tool, format!("no tool `{name}` any more"))));
}

impl Registry {
    /// Puts a new version of an installed skill where it waits. One that waited before is replaced; the installed one stays.
    pub fn propose(&self, component: &Path, manifest: Option<&Path>) -> Result<InstalledSkill, RegistryError> {
        let (skill, text) = Self::read_with_text(component, manifest)?;
        self.write_whole(&skill, &text, &self.waiting(skill.name()))?;
        Ok(skill)
    }

    /// The version of this skill that waits, if one does.
    pub fn pending(&self, name: &SkillName) -> Result<Option<InstalledSkill>, RegistryError> {
        let folder = self.waiting(name);
        if folder.join(COMPONENT).exists() { Self::read_in(&folder, name).map(Some) } else { Ok(None) }
    }

    /// The skills of which a new version waits, in order.
    pub fn pending_names(&self) -> Result<Vec<SkillName>, RegistryError> {
        let mut names = self.names()?;
        names.retain(|name| self.waiting(name).join(COMPONENT).exists());
        Ok(names)
    }

    /// Installs the version that waits, if it is the one with this digest. Grants that pin the old one don't hold for it: see
    /// [`move_pins`](crate::policy::move_pins).
    pub fn accept(&self, name: &SkillName, digest: Digest) -> Result<InstalledSkill, RegistryError> {
        let pending = self.pending(name)?.ok_or_else(|| RegistryError::NothingPending(name.clone()))?;
        if pending.digest != digest {
            return Err(RegistryError::PendingChanged(name.clone()));
        }
        replace_folder(&self.waiting(name), &self.folder.join(name.as_str()))?;
        self.get(name)
    }

    /// Throws the version that waits away.
    pub fn reject(&self, name: &SkillName) -> Result<(), RegistryError> {
        if !self.waiting(name).exists() {
            return Err(RegistryError::NothingPending(name.clone()));
        }
        self.clear_pending(name)
    }

    pub(super) fn clear_pending(&self, name: &SkillName) -> Result<(), RegistryError> {
        let folder = self.waiting(name);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", &folder)(error)),
            _ => Ok(()),
        }
    }

    /// No skill has a name that begins with a dot.
    fn waiting(&self, name: &SkillName) -> PathBuf {
        self.folder.join(format!(".{name}.pending"))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::MANIFEST;
    use super::*;

    pub(crate) const TEXT: &str = "[skill]\nname = \"echo\"\nversion = \"1.0.0\"\ndescription = \"Says it again\"\n";

    pub(crate) fn author(component: &[u8], manifest: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("echo.wasm"), component).unwrap();
        fs::write(folder.path().join(MANIFEST), manifest).unwrap();
        folder
    }

    #[test]
    fn a_version_that_waits_leaves_the_one_in_use_alone_until_it_is_accepted() {
        let home = tempfile::tempdir().unwrap();
        let registry = Registry::in_folder(home.path().join("skills"));
        let old = registry.add(&author(b"one", TEXT).path().join("echo.wasm"), None).unwrap();
        let name = old.name().clone();
        let stamp = registry.stamp(&name);
        assert!(registry.pending(&name).unwrap().is_none());
        assert!(matches!(registry.accept(&name, old.digest), Err(RegistryError::NothingPending(_))));
        assert!(matches!(registry.reject(&name), Err(RegistryError::NothingPending(_))));

        let new = registry.propose(&author(b"two", TEXT).path().join("echo.wasm"), None).unwrap();
        assert_eq!(registry.get(&name).unwrap().digest, old.digest);
        assert_eq!(registry.stamp(&name), stamp);
        assert_eq!(registry.names().unwrap(), std::slice::from_ref(&name));
        assert_eq!(registry.pending_names().unwrap(), std::slice::from_ref(&name));
        assert_eq!(registry.pending(&name).unwrap().unwrap().digest, new.digest);

        // A third version came between the look and the word: what was looked at is not what waits.
        let third = registry.propose(&author(b"three", TEXT).path().join("echo.wasm"), None).unwrap();
        assert!(matches!(registry.accept(&name, new.digest), Err(RegistryError::PendingChanged(_))));
        assert_eq!(registry.get(&name).unwrap().digest, old.digest);
        assert_eq!(registry.accept(&name, third.digest).unwrap().digest, third.digest);
        assert_eq!(*registry.get(&name).unwrap().component, *b"three");
        assert!(registry.pending(&name).unwrap().is_none());
    }

    #[test]
    fn a_version_that_is_rejected_is_gone_and_so_is_one_whose_skill_is_removed() {
        let home = tempfile::tempdir().unwrap();
        let registry = Registry::in_folder(home.path());
        let name = registry.add(&author(b"one", TEXT).path().join("echo.wasm"), None).unwrap().name().clone();
        let propose = || registry.propose(&author(b"two", TEXT).path().join("echo.wasm"), None).unwrap();
        propose();
        registry.reject(&name).unwrap();
        assert!(registry.pending(&name).unwrap().is_none());
        propose();
        registry.remove(&name).unwrap();
        assert!(registry.pending(&name).unwrap().is_none());
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    }
}
