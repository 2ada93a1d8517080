//! Builds the example skills and the guests of the tests, each workspace by itself, as a skill developer would.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::run::{command, root, run, step};
use crate::setup::TARGET;

/// The folder of the example skills.
pub(crate) const EXAMPLES: &str = "skills-examples";

/// Where the built skills are collected: `target/skills/NAME/{component.wasm, skill.toml}`.
pub(crate) fn collected() -> PathBuf {
    root().join("target/skills")
}

/// The folders that hold a workspace of skills.
pub(crate) fn workspaces() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in [EXAMPLES, "tests/guests"] {
        let folder = root().join(folder);
        if folder.join("Cargo.toml").is_file() {
            found.push(folder);
        } else if folder.is_dir() {
            found.extend(subfolders(&folder)?.into_iter().filter(|folder| folder.join("Cargo.toml").is_file()));
        }
    }
    Ok(found)
}

/// Builds all of them and collects those that have a manifest.
pub(crate) fn build() -> Result<()> {
    for workspace in workspaces()? {
        step(&format!("skills of {}", workspace.strip_prefix(root()).unwrap_or(&workspace).display()));
        run(command("cargo", &["build", "--release", "--target", TARGET]).current_dir(&workspace))?;
        collect(&workspace)?;
    }
    Ok(())
}

fn collect(workspace: &Path) -> Result<()> {
    let built = workspace.join("target").join(TARGET).join("release");
    let mut skills = subfolders(workspace)?;
    skills.push(workspace.to_owned());
    for skill in skills {
        let manifest = skill.join("skill.toml");
        let Some(name) = skill.file_name().and_then(|name| name.to_str()) else { continue };
        let component = built.join(format!("{}.wasm", name.replace('-', "_")));
        if manifest.is_file() && component.is_file() {
            let folder = collected().join(name);
            fs::create_dir_all(&folder).with_context(|| format!("{} could not be made", folder.display()))?;
            copy(&manifest, &folder.join("skill.toml"))?;
            copy(&component, &folder.join("component.wasm"))?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("{} could not be copied to {}", from.display(), to.display()))?;
    Ok(())
}

fn subfolders(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("{} could not be read", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
