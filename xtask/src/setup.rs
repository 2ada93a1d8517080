//! What a bare machine lacks: the target that skills compile to, and the packages of the Node.js servers in the tests.

use anyhow::{Context as _, Result, bail};

use crate::run::{command, output, root, run, step};

/// What Rust skills compile to.
pub(crate) const TARGET: &str = "wasm32-wasip2";

/// Installs what is missing; does nothing, quickly, where nothing is.
pub(crate) fn install() -> Result<()> {
    wasm_target()?;
    node_packages()
}

/// The target that skills compile to.
pub(crate) fn wasm_target() -> Result<()> {
    if target_is_installed()? {
        return Ok(());
    }
    step(&format!("rustup target add {TARGET}"));
    run(&mut command("rustup", &["target", "add", TARGET])).with_context(|| {
        format!("the target {TARGET}, which skills compile to, is missing; with rustup (https://rustup.rs): rustup target add {TARGET}")
    })
}

/// Asks the compiler itself, so that a toolchain without rustup that has the target is fine, too.
fn target_is_installed() -> Result<bool> {
    let folder = output(&mut command("rustc", &["--print", "target-libdir", "--target", TARGET]))
        .context("the Rust compiler is needed: install it with rustup (https://rustup.rs)")?;
    Ok(std::path::Path::new(folder.trim()).is_dir())
}

fn node_packages() -> Result<()> {
    let folder = root().join("tests/node");
    let lock = folder.join("package-lock.json");
    if !lock.is_file() {
        return Ok(());
    }
    // npm writes this file when it is done: newer than the lock file means that there is nothing to do.
    let installed = folder.join("node_modules/.package-lock.json");
    let changed = |path: &std::path::Path| path.metadata().and_then(|data| data.modified()).ok();
    if changed(&installed).is_some_and(|at| changed(&lock).is_some_and(|lock| at >= lock)) {
        return Ok(());
    }
    step("npm ci in tests/node");
    let Ok(version) = output(&mut command("node", &["--version"])) else {
        bail!(
            "Node.js 20 or newer is needed: the tests run against a certified authorization server written in it (https://nodejs.org)"
        );
    };
    run(command("npm", &["ci", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(&folder))
        .with_context(|| format!("the packages of tests/node could not be installed (node {})", version.trim()))
}
