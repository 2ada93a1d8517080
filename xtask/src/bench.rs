//! Runs the benches, which compare the program with what it is to reach, and shows the comparison.

use std::fs;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::run::{command, root, run, step};
use crate::{setup, skills};

/// `cargo xtask bench`: an error where a figure that has something to reach does not reach it.
pub(crate) fn bench(arguments: &[String]) -> Result<()> {
    setup::wasm_target()?;
    skills::build()?;
    step("cargo bench");
    run(command("cargo", &["bench", "--package", "clawcoil"]).args(arguments))?;

    let path = root().join("target/bench/summary.json");
    let text = fs::read_to_string(&path).with_context(|| format!("the benches did not write {}", path.display()))?;
    let summary: Value = serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))?;
    let figures = summary.as_object().with_context(|| format!("{} holds no figures", path.display()))?;

    println!("{:<32} {:>12} {:>10}  ", "", "measured", "reach");
    let mut short = Vec::new();
    for (name, figure) in figures {
        let number = |key: &str| figure.get(key).and_then(Value::as_f64);
        let holds = figure.get("holds").and_then(Value::as_bool);
        let value = number("value").map_or_else(|| "?".to_owned(), |value| format!("{value:.3}"));
        let reach = number("reach").map_or_else(String::new, |reach| format!("{reach}"));
        let verdict = match holds {
            Some(true) => "holds",
            Some(false) => "DOES NOT HOLD",
            None => "",
        };
        println!("{name:<32} {value:>12} {reach:>10}  {verdict}");
        if holds == Some(false) {
            short.push(name.as_str());
        }
    }
    if !short.is_empty() {
        bail!("not reached: {}", short.join(", "));
    }
    Ok(())
}
