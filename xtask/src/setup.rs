//! What a bare machine lacks: the target that skills compile to, and the packages of the Node.js servers in the tests.

use anyhow::{Context as _, Result, bail};

use crate::run::{command, output, root, run, step};

/// What Rust skills compile to.
pub(crate) const TARGET: &str = "wasm32-wasip2";

/// Where tests are written in JavaScript.
const NODE_FOLDERS: [&str; 2] = ["tests/node", "tests/browser"];

/// Where the tests look for a browser, unless the variable `CHROMIUM` names one.
const BROWSERS: [&str; 3] = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

/// Installs what is missing; does nothing, quickly, where nothing is.
pub(crate) fn install() -> Result<()> {
    wasm_target()?;
    for folder in NODE_FOLDERS {
        node_packages(folder)?;
    }
    browser()
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

/// The browser in which the pages are tested. Where it can't be installed from here, the tests of pages say so.
fn browser() -> Result<()> {
    #[expect(clippy::disallowed_methods, reason = "the tests look at the same variable")]
    let named = std::env::var_os("CHROMIUM").is_some();
    let there = BROWSERS.iter().any(|place| std::path::Path::new(place).exists());
    if there || named {
        return Ok(());
    }
    let root = output(&mut command("id", &["-u"])).is_ok_and(|id| id.trim() == "0");
    if !root || output(&mut command("apt-get", &["--version"])).is_err() {
        eprintln!("Chromium is not installed: the tests of pages need it (Debian: apt-get install chromium)");
        return Ok(());
    }
    step("apt-get install chromium");
    let quiet = ["install", "--yes", "--quiet", "--no-install-recommends", "chromium", "fonts-dejavu-core"];
    run(command("apt-get", &["update", "--quiet"]).env("DEBIAN_FRONTEND", "noninteractive"))
        .and_then(|()| run(command("apt-get", &quiet).env("DEBIAN_FRONTEND", "noninteractive")))
        .context("Chromium, in which the pages are tested, could not be installed")
}

/// The packages of the lock file in this folder of the project. No script of a package is run.
pub(crate) fn node_packages(folder: &str) -> Result<()> {
    let name = folder;
    let folder = root().join(folder);
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
    step(&format!("npm ci in {name}"));
    let Ok(version) = output(&mut command("node", &["--version"])) else {
        bail!(
            "Node.js 20 or newer is needed: the tests run against a certified authorization server written in it (https://nodejs.org)"
        );
    };
    run(command("npm", &["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(&folder))
        .with_context(|| format!("the packages of {name} could not be installed (node {})", version.trim()))
}
