//! Everything a change must pass: the quick checks first, then `cargo test` and the search of what it put out, so that their
//! closing lines end the output.

use std::time::Instant;

use anyhow::{Result, bail};
use serde_json::json;

use crate::run::{command, root, run, step};
use crate::{setup, skills, test_run};

/// `cargo xtask test`. A failing check of style does not keep the tests from running; all failures are named at the end.
pub(crate) fn test() -> Result<()> {
    setup::install()?;
    skills::build()?;
    let mut checks = Checks::default();
    checks.run("cargo fmt --check", || {
        run(&mut command("cargo", &["fmt", "--all", "--check"]))?;
        in_each_skill_workspace(&["fmt", "--all", "--check"])
    });
    // The guests of the tests are made for the sandbox alone: the host's tests run them.
    checks.run("the skills' own tests", || run(command("cargo", &["test"]).current_dir(root().join(skills::EXAMPLES))));
    checks.run("cargo clippy", || {
        run(&mut command("cargo", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
    });
    checks.run("cargo doc", || {
        run(command("cargo", &["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
    });
    checks.run("cargo test", test_run::cargo_test);
    checks.run("search for secrets in what the tests put out", test_run::search);
    checks.finish()
}

fn in_each_skill_workspace(arguments: &[&str]) -> Result<()> {
    for workspace in skills::workspaces()? {
        run(command("cargo", arguments).current_dir(workspace))?;
    }
    Ok(())
}

/// Checks, of which each runs whatever became of those before.
#[derive(Default)]
pub(crate) struct Checks(Vec<Check>);

struct Check {
    name: &'static str,
    failure: Option<String>,
    seconds: u64,
}

impl Checks {
    #[expect(clippy::disallowed_methods, reason = "how long a check of the project took is nothing a test drives")]
    pub(crate) fn run(&mut self, name: &'static str, check: impl FnOnce() -> Result<()>) {
        step(name);
        let start = Instant::now();
        let failure = check().err().map(|error| format!("{error:#}"));
        self.0.push(Check { name, failure, seconds: start.elapsed().as_secs() });
    }

    pub(crate) fn summary(&self) -> serde_json::Value {
        let checks = self
            .0
            .iter()
            .map(|check| json!({ "name": check.name, "passed": check.failure.is_none(), "seconds": check.seconds }));
        json!({ "version": 1, "checks": checks.collect::<Vec<_>>() })
    }

    pub(crate) fn finish(self) -> Result<()> {
        let failed: Vec<String> =
            self.0.into_iter().filter_map(|check| Some(format!("{}: {}", check.name, check.failure?))).collect();
        if failed.is_empty() {
            return Ok(());
        }
        bail!("not everything passed\n  {}", failed.join("\n  "))
    }
}
