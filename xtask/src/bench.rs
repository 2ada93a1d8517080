//! Runs the benches, which compare the program with what it is to reach and show the comparison.

use std::fs;
use std::io::ErrorKind;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::run::{command, root, run, step};
use crate::{setup, skills};

/// `cargo xtask bench`: an error where a figure that has something to reach does not reach it.
pub(crate) fn bench(arguments: &[String]) -> Result<()> {
    setup::wasm_target()?;
    skills::build()?;
    let path = root().join("target/bench/summary.json");
    // What an earlier run has measured says nothing of this one.
    if let Err(error) = fs::remove_file(&path)
        && error.kind() != ErrorKind::NotFound
    {
        return Err(error).with_context(|| format!("{} can't be removed", path.display()));
    }
    step("cargo bench");
    run(command("cargo", &["bench", "--package", "clawcoil", "--bench", "hot"]).args(arguments))?;

    let text = fs::read_to_string(&path).with_context(|| format!("the benches did not write {}", path.display()))?;
    let summary: Value = serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))?;
    let figures = summary.as_object().with_context(|| format!("{} holds no figures", path.display()))?;
    let short: Vec<&str> = figures
        .iter()
        .filter(|(_, figure)| figure.get("holds").and_then(Value::as_bool) != Some(true))
        .map(|(name, _)| name.as_str())
        .collect();
    if short.is_empty() {
        step("all that is to be reached is reached");
        Ok(())
    } else {
        bail!("not reached: {}", short.join(", "))
    }
}
