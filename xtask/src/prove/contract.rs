//! `wit/` as the tools of the component model read it: the program `wasm-tools` itself.

use anyhow::{Context as _, Result, bail};

use crate::run::{command, output, root, run, step};

/// What is installed where nobody has installed one.
const VERSION: &str = "1.263.0";

pub(super) fn prove() -> Result<()> {
    let folder = root().join("target/judges/wasm-tools");
    let own = folder.join("bin/wasm-tools");
    let mut program = "wasm-tools".to_owned();
    if own.is_file() || output(&mut command(&program, &["--version"])).is_err() {
        program = own.to_string_lossy().into_owned();
    }
    if !own.is_file() && program != "wasm-tools" {
        step("cargo install wasm-tools");
        let install = ["install", "wasm-tools", "--locked", "--no-default-features", "--features", "component"];
        run(command("cargo", &install).args(["--version", VERSION, "--root"]).arg(&folder))
            .context("wasm-tools could not be installed")?;
    }
    let version = output(&mut command(&program, &["--version"]))?;
    let text = output(&mut command(&program, &["component", "wit", "wit/"]))?;
    let worlds: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("world ")?.split(' ').next()).collect();
    if worlds.is_empty() {
        bail!("wasm-tools reads no world: {text}");
    }
    println!("{}: wit/ is read, with the worlds {}", version.trim(), worlds.join(", "));
    Ok(())
}
