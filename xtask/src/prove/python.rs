//! The judges that are written in Python, in an environment of their own.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::run::{command, root, run, step};

/// Installs what `tests/judges/requirements.txt` pins, unless it is there, and says where the programs are.
pub(super) fn programs() -> Result<PathBuf> {
    let wanted = root().join("tests/judges/requirements.txt");
    let folder = root().join("target/prove/python");
    let installed = folder.join("installed.txt");
    let text = fs::read_to_string(&wanted).with_context(|| format!("{} can't be read", wanted.display()))?;
    if !fs::read_to_string(&installed).is_ok_and(|before| before == text) {
        step("pip install of the judges");
        fs::create_dir_all(root().join("target/prove"))?;
        run(&mut command("python3", &["-m", "venv", "target/prove/python"]))
            .context("Python 3 with its module venv is needed (Debian: apt-get install python3-venv)")?;
        let requirements = ["install", "--quiet", "--disable-pip-version-check", "-r", "tests/judges/requirements.txt"];
        run(&mut command("target/prove/python/bin/pip", &requirements))?;
        fs::write(&installed, text)?;
    }
    Ok(folder.join("bin"))
}
