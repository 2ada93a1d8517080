//! The built skills.

use std::path::{Path, PathBuf};

/// A skill's component, its manifest beside it as `skill.toml`.
///
/// # Panics
///
/// It has not been built; the message says which command builds it.
pub fn component(name: &str) -> PathBuf {
    let path = root().join("target/skills").join(name).join("component.wasm");
    assert!(path.is_file(), "{} is not there: `cargo xtask build-skills` builds the skills", path.display());
    path
}

/// The folder of the workspace.
///
/// # Panics
///
/// Never: the tests are a folder of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a folder of the workspace")
}
