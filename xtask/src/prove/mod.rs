//! `cargo xtask prove`: what takes longer than a change should wait for: big counts, and judges that others wrote.

mod agent;
mod api;
mod browser;
mod conformance;
mod contract;
mod first;
mod judges;
mod load;
mod mcp;
mod python;

use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::check::Checks;
use crate::run::{command, root, run};
use crate::{setup, skills};

/// A part: its name, and what it runs.
type Part = (&'static str, fn() -> Result<()>);

const PARTS: &[Part] = &[
    ("counts", counts),
    ("browser", browser::prove),
    ("api", api::prove),
    ("mcp", mcp::prove),
    ("first", first::prove),
    ("contract", contract::prove),
    ("load", load::prove),
];

/// Runs the parts of these names, or all.
pub(crate) fn prove(names: &[String]) -> Result<()> {
    if let Some(unknown) = names.iter().find(|name| !PARTS.iter().any(|(part, _)| part == name)) {
        let known: Vec<_> = PARTS.iter().map(|(part, _)| *part).collect();
        bail!("there is no part {unknown}; there are {}", known.join(", "));
    }
    setup::install()?;
    skills::build()?;
    let mut checks = Checks::default();
    for (name, part) in PARTS.iter().filter(|(name, _)| names.is_empty() || names.iter().any(|wanted| wanted == name)) {
        checks.run(name, part);
    }
    let folder = root().join("target/prove");
    fs::create_dir_all(&folder).with_context(|| format!("{} could not be made", folder.display()))?;
    let summary = folder.join("summary.json");
    fs::write(&summary, format!("{:#}\n", checks.summary()))
        .with_context(|| format!("{} could not be written", summary.display()))?;
    eprintln!("written to {}", summary.display());
    checks.finish()
}

/// The same tests, the property tests and whatever asks for `CLAWCOIL_PROVE` with big counts.
fn counts() -> Result<()> {
    // Optimised, with its assertions as they were: the properties of policy took three times as long without.
    let optimised = "profile.dev.package.clawcoil.opt-level=2";
    let mut tests = command("cargo", &["test", "--workspace", "--no-fail-fast", "--config", optimised]);
    run(tests.env("CLAWCOIL_PROVE", "1").env("PROPTEST_CASES", "20000"))
}
