//! The demo from a bare clone.

use anyhow::Result;

use crate::run::{command, run, step};
use crate::{setup, skills};

/// Builds what the demo needs and runs it; it makes and removes a home of its own.
pub(crate) fn demo(arguments: &[String]) -> Result<()> {
    setup::wasm_target()?;
    skills::build()?;
    step("the program");
    // With what the tests use of the libraries, so that they need not be built again for those.
    run(&mut command("cargo", &["build", "--workspace", "--bin", "clawcoil"]))?;
    step("the demo");
    let skills = skills::collected();
    run(command("target/debug/clawcoil", &["demo", "--skills"]).arg(skills).args(arguments))
}
