//! The installed skills: a folder each, with the component and its manifest; and new versions of them that wait for approval.

mod pending;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::diagnostic::{Diagnostics, Source};
use crate::id::{Digest, SkillName};
use crate::policy::Manifest;

pub use pending::Pending;

const COMPONENT: &str = "component.wasm";
const MANIFEST: &str = "skill.toml";

/// A component larger than this is not read, in bytes. The runtime has its own cap for what it compiles.
const LARGEST_COMPONENT: u64 = 256 << 20;
/// A manifest larger than this is not read, in bytes.
const LARGEST_MANIFEST: u64 = 1 << 20;

/// What went wrong with the folder of skills.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No skill of this name.
    #[error("no skill {name} is installed; installed: {installed}. Add it with `clawcoil skill add <component.wasm>`")]
    NotInstalled {
        /// The name that was asked for.
        name: SkillName,
        /// Those that are, for a person to read.
        installed: String,
    },
    /// The manifest has errors.
    #[error(transparent)]
    Manifest(#[from] Diagnostics),
    /// No manifest stands beside the component.
    #[error(
        "{component} has no manifest beside it; name it with `--manifest`, or write {expected} (`[skill]` with name, version and description, a `[[service]]` for each account it needs)"
    )]
    NoManifest {
        /// The component.
        component: String,
        /// Where a manifest was looked for.
        expected: String,
    },
    /// A file is larger than is sensible.
    #[error("{path} has {size} bytes, more than the {limit} that are read")]
    TooLarge {
        /// The file.
        path: String,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A folder of the registry holds a manifest of another skill.
    #[error(
        "{path} names the skill {found}, but stands in the folder of {expected}; remove the folder and add the skill again"
    )]
    Misplaced {
        /// The manifest.
        path: String,
        /// The name in it.
        found: SkillName,
        /// The folder's name.
        expected: SkillName,
    },
    /// No new version of the skill waits.
    #[error("no new version of {0} waits for approval; `clawcoil skill pending` shows those that do")]
    NothingPending(SkillName),
    /// Another version waits than the one that was looked at.
    #[error(
        "another version of {0} waits now than the one that was looked at; look again with `clawcoil skill pending {0}`"
    )]
    PendingChanged(SkillName),
    /// The file system said no.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file or folder.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A skill that is installed: its manifest, its code, and the digest of both.
#[derive(Debug, Clone)]
pub struct InstalledSkill {
    /// What it declares.
    pub manifest: Manifest,
    /// SHA-256 over manifest and component. A grant pins it.
    pub digest: Digest,
    /// The component's bytes.
    pub component: Arc<[u8]>,
    /// The manifest's file, for messages.
    pub manifest_path: PathBuf,
}

impl InstalledSkill {
    /// Its name.
    pub fn name(&self) -> &SkillName {
        &self.manifest.name
    }
}

/// The folder of installed skills.
#[derive(Debug, Clone)]
pub struct Registry {
    folder: PathBuf,
}

impl Registry {
    /// A registry in this folder, which need not exist yet.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Reads a component and the manifest beside it, without installing anything.
    ///
    /// The manifest is `skill.toml` in the component's folder, or the file that is given.
    pub fn read(component: &Path, manifest: Option<&Path>) -> Result<InstalledSkill, RegistryError> {
        Self::read_with_text(component, manifest).map(|(skill, _)| skill)
    }

    /// The skill, and the very text of the manifest that was parsed.
    fn read_with_text(component: &Path, manifest: Option<&Path>) -> Result<(InstalledSkill, Source), RegistryError> {
        let manifest_path = match manifest {
            Some(path) => path.to_owned(),
            None => component.with_file_name(MANIFEST),
        };
        let bytes = read(component, LARGEST_COMPONENT)?;
        if manifest.is_none() && !manifest_path.exists() {
            return Err(RegistryError::NoManifest {
                component: component.display().to_string(),
                expected: manifest_path.display().to_string(),
            });
        }
        let text = read(&manifest_path, LARGEST_MANIFEST)?;
        let source = Source::from_bytes(manifest_path.display().to_string(), text)?;
        let manifest = Manifest::parse(&source)?;
        let digest = manifest.skill_digest(&Digest::of(&bytes));
        Ok((InstalledSkill { manifest, digest, component: bytes.into(), manifest_path }, source))
    }

    /// Installs a skill; one of the same name is replaced. Either the whole skill is there afterwards, or the old one still is.
    pub fn add(&self, component: &Path, manifest: Option<&Path>) -> Result<InstalledSkill, RegistryError> {
        let (mut skill, text) = Self::read_with_text(component, manifest)?;
        let folder = self.folder.join(skill.name().as_str());
        self.write_whole(&skill, &text, &folder)?;
        skill.manifest_path = folder.join(MANIFEST);
        Ok(skill)
    }

    /// Either the whole skill is in the folder afterwards, or what was there before.
    fn write_whole(&self, skill: &InstalledSkill, text: &Source, folder: &Path) -> Result<(), RegistryError> {
        let staging = self.folder.join(format!(".{}.{}", skill.name(), std::process::id()));
        fs::create_dir_all(&staging).map_err(io_error("create", &staging))?;
        let written = write(&staging.join(COMPONENT), &skill.component)
            .and_then(|()| write(&staging.join(MANIFEST), text.text().as_bytes()))
            .and_then(|()| replace_folder(&staging, folder));
        if written.is_err() {
            // The first error is the one to tell; a staging folder that stays is overwritten next time.
            let _ = fs::remove_dir_all(&staging);
        }
        written
    }

    /// The installed skill of this name.
    pub fn get(&self, name: &SkillName) -> Result<InstalledSkill, RegistryError> {
        let folder = self.folder.join(name.as_str());
        if !folder.join(COMPONENT).exists() {
            let names: Vec<_> = self.names()?.iter().map(ToString::to_string).collect();
            let installed = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Err(RegistryError::NotInstalled { name: name.clone(), installed });
        }
        Self::read_in(&folder, name)
    }

    /// The skill in a folder, which must be the one that the folder is named for.
    fn read_in(folder: &Path, name: &SkillName) -> Result<InstalledSkill, RegistryError> {
        let manifest = folder.join(MANIFEST);
        let skill = Self::read(&folder.join(COMPONENT), Some(&manifest))?;
        if skill.name() != name {
            let path = manifest.display().to_string();
            return Err(RegistryError::Misplaced { path, found: skill.name().clone(), expected: name.clone() });
        }
        Ok(skill)
    }

    /// The names of the installed skills, in order.
    pub fn names(&self) -> Result<Vec<SkillName>, RegistryError> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io_error("list", &self.folder)(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(io_error("list", &self.folder))?;
            // Staging folders and what a person left there have names that no skill can have, or no component.
            if let Some(Ok(name)) = entry.file_name().to_str().map(str::parse)
                && entry.path().join(COMPONENT).exists()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Removes a skill, and a version of it that waits. Its grants stay in the permissions, where they do nothing without it.
    pub fn remove(&self, name: &SkillName) -> Result<(), RegistryError> {
        let skill = self.get(name).map(|_| ());
        let folder = self.folder.join(name.as_str());
        if let Err(error @ RegistryError::NotInstalled { .. }) = skill {
            return Err(error);
        }
        // A skill that can't be read can still be removed.
        fs::remove_dir_all(&folder).map_err(io_error("remove", &folder))?;
        self.clear_pending(name)
    }

    /// A cheap mark of the installed files: while it stays the same, [`get`](Self::get) would return the same skill.
    pub fn stamp(&self, name: &SkillName) -> Option<Stamp> {
        let folder = self.folder.join(name.as_str());
        Some(Stamp(stamp(&folder.join(COMPONENT))?, stamp(&folder.join(MANIFEST))?))
    }
}

/// See [`Registry::stamp`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp(FileStamp, FileStamp);

type FileStamp = (u64, u64, i64, i64);

fn stamp(path: &Path) -> Option<FileStamp> {
    use std::os::unix::fs::MetadataExt as _;
    let data = fs::metadata(path).ok()?;
    Some((data.ino(), data.size(), data.mtime(), data.mtime_nsec()))
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RegistryError {
    let path = path.display().to_string();
    move |source| RegistryError::Io { action, path, source }
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, RegistryError> {
    let size = fs::metadata(path).map_err(io_error("read", path))?.len();
    if size > limit {
        return Err(RegistryError::TooLarge { path: path.display().to_string(), size, limit });
    }
    fs::read(path).map_err(io_error("read", path))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), RegistryError> {
    use io::Write as _;
    let mut file = fs::File::create(path).map_err(io_error("write", path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io_error("write", path))
}

fn replace_folder(new: &Path, place: &Path) -> Result<(), RegistryError> {
    let old = place.with_file_name(format!(
        ".{}.old",
        place.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    ));
    if old.exists() {
        fs::remove_dir_all(&old).map_err(io_error("remove", &old))?;
    }
    let had = place.exists();
    if had {
        fs::rename(place, &old).map_err(io_error("replace", place))?;
    }
    if let Err(error) = fs::rename(new, place) {
        if had {
            fs::rename(&old, place).map_err(io_error("put back", place))?;
        }
        return Err(io_error("replace", place)(error));
    }
    if had {
        fs::remove_dir_all(&old).map_err(io_error("remove", &old))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::pending::tests::author;
    use super::*;

    const TEXT: &str = pending::tests::TEXT;

    #[test]
    fn a_skill_is_found_as_it_was_added_and_replaced_whole() {
        let home = tempfile::tempdir().unwrap();
        let registry = Registry::in_folder(home.path().join("skills"));
        let first = author(b"one", TEXT);
        let added = registry.add(&first.path().join("echo.wasm"), None).unwrap();
        let name = added.name().clone();
        assert_eq!(registry.get(&name).unwrap().digest, added.digest);
        let stamp = registry.stamp(&name);
        let second = author(b"two", TEXT);
        let replaced = registry.add(&second.path().join("echo.wasm"), None).unwrap();
        assert_ne!(replaced.digest, added.digest);
        assert_ne!(registry.stamp(&name), stamp);
        assert_eq!(*registry.get(&name).unwrap().component, *b"two");
        assert_eq!(registry.names().unwrap(), std::slice::from_ref(&name));
        registry.remove(&name).unwrap();
        assert!(matches!(registry.get(&name), Err(RegistryError::NotInstalled { .. })));
    }

    #[test]
    fn a_manifest_with_errors_leaves_the_installed_skill_alone() {
        let home = tempfile::tempdir().unwrap();
        let registry = Registry::in_folder(home.path());
        let good = author(b"one", TEXT);
        let name = registry.add(&good.path().join("echo.wasm"), None).unwrap().name().clone();
        let bad = author(b"two", &TEXT.replace("version", "vresion"));
        assert!(matches!(registry.add(&bad.path().join("echo.wasm"), None), Err(RegistryError::Manifest(_))));
        assert_eq!(*registry.get(&name).unwrap().component, *b"one");
    }
}
