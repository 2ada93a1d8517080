//! Where an agent's files are.

use std::fs;
use std::path::{Path, PathBuf};

use crate::audit;
use crate::diagnostic::{Diagnostics, Source};

/// The folder of one agent.
///
/// ```text
/// identity.pem  identity.key   the agent's certificate and private key (0600)
/// vault.db                     tokens, encrypted
/// permissions.toml             what the operator grants; permissions.d/*.toml besides
/// providers.d/*.toml           the operator's own providers
/// policies/                    permissions that were in force, by their hash
/// skills/                      installed skills, a folder each
/// audit/                       the audit log, a file for each writing process, and its checkpoints
/// audit.toml                   how the audit log is kept
/// cache/                       compiled components
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    folder: PathBuf,
}

impl Home {
    /// The home in this folder, which need not exist yet.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The agent's certificate (PEM).
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("identity.pem")
    }

    /// The agent's private key (PKCS#8 PEM, mode 0600).
    pub fn key(&self) -> PathBuf {
        self.folder.join("identity.key")
    }

    /// The vault's database.
    pub fn database(&self) -> PathBuf {
        self.folder.join("vault.db")
    }

    /// The operator's permissions.
    pub fn permissions(&self) -> PathBuf {
        self.folder.join("permissions.toml")
    }

    /// More permissions, a file each.
    pub fn permissions_folder(&self) -> PathBuf {
        self.folder.join("permissions.d")
    }

    /// The operator's own providers, a file each.
    pub fn providers_folder(&self) -> PathBuf {
        self.folder.join("providers.d")
    }

    /// Installed skills.
    pub fn skills(&self) -> PathBuf {
        self.folder.join("skills")
    }

    /// The audit log.
    pub fn audit(&self) -> PathBuf {
        self.folder.join("audit")
    }

    /// How the audit log is kept.
    pub fn audit_file(&self) -> PathBuf {
        self.folder.join("audit.toml")
    }

    /// What `audit.toml` says; the defaults where there is none.
    pub fn audit_settings(&self) -> Result<audit::Settings, Diagnostics> {
        if self.audit_file().exists() {
            audit::Settings::parse(&Source::open(&self.audit_file())?)
        } else {
            Ok(audit::Settings::default())
        }
    }

    /// Compiled components.
    pub fn cache(&self) -> PathBuf {
        self.folder.join("cache")
    }

    /// The permissions files that exist, `permissions.toml` first, then the folder's in the order of their names.
    pub fn permission_sources(&self) -> Result<Vec<Source>, Diagnostics> {
        let mut sources = Vec::new();
        if self.permissions().exists() {
            sources.push(Source::open(&self.permissions())?);
        }
        sources.extend(read_folder(&self.permissions_folder())?);
        Ok(sources)
    }

    /// The operator's provider files in the order of their names.
    pub fn provider_sources(&self) -> Result<Vec<Source>, Diagnostics> {
        read_folder(&self.providers_folder())
    }
}

fn read_folder(folder: &Path) -> Result<Vec<Source>, Diagnostics> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    // A file that is passed over could hold a `forbid`: what can't be listed is an error.
    let listed =
        fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<Result<_, _>>());
    let mut paths: Vec<PathBuf> = match listed {
        Ok(paths) => paths,
        Err(_) => vec![Source::open(folder).map(|_| folder.to_owned())?],
    };
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "toml"));
    paths.sort();
    paths.iter().map(|path| Source::open(path)).collect()
}
