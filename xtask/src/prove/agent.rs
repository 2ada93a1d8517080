//! An agent of its own for the judges, set up by the commands that an operator types.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::run::{command, output, root};

/// The program, as `cargo build` makes it.
pub(super) const PROGRAM: &str = "target/debug/clawcoil";

/// A new agent in a folder of its own.
pub(super) struct Agent {
    folder: PathBuf,
}

impl Agent {
    /// In `target/prove/NAME`, where nothing of an earlier one is left.
    pub(super) fn new(name: &str) -> Result<Self> {
        let agent = Self { folder: fresh(name)? };
        agent.json(&["init", "--no-recovery"])?;
        Ok(agent)
    }

    /// What belongs to it is in here.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A command of the operator.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(&root().join(PROGRAM).to_string_lossy(), arguments);
        command.env("CLAWCOIL_HOME", self.folder.join("home")).env("HOME", &self.folder).stdin(Stdio::null());
        command
    }

    /// Its answer, where it must succeed.
    pub(super) fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = output(self.command(arguments).arg("--json"))?;
        serde_json::from_str(&text)
            .with_context(|| format!("`clawcoil {}` did not answer in JSON", arguments.join(" ")))
    }

    /// Starts `clawcoil serve` on a free port; what it logs is kept in the folder.
    pub(super) fn serve(&self) -> Result<(Running, String)> {
        let log = fs::File::create(self.folder.join("serve.log"))?;
        let mut serve = self.command(&["serve", "--listen", "127.0.0.1:0", "--json"]);
        let mut running = Running::start(serve.stderr(log), None)?;
        let mut said = String::new();
        loop {
            said.push_str(&running.line()?);
            if let Ok(told) = serde_json::from_str::<Value>(&said) {
                let origin =
                    told.get("listening").and_then(Value::as_str).context("it does not say where it listens")?;
                return Ok((running, origin.to_owned()));
            }
        }
    }
}

/// An empty folder in `target/prove`.
pub(super) fn fresh(name: &str) -> Result<PathBuf> {
    let folder = root().join("target/prove").join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("{} could not be removed", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("{} could not be made", folder.display()))?;
    Ok(folder)
}

/// A program that runs beside us. It is killed with this value.
pub(super) struct Running {
    process: Child,
    output: BufReader<ChildStdout>,
}

impl Running {
    /// Starts it and writes this to its standard input, which ends then.
    pub(super) fn start(command: &mut Command, input: Option<&str>) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() }).stdout(Stdio::piped());
        let mut process = command.spawn().with_context(|| format!("`{name}` could not be started"))?;
        let output = process.stdout.take().context("its output is not piped")?;
        let mut running = Self { process, output: BufReader::new(output) };
        if let (Some(text), Some(mut stdin)) = (input, running.process.stdin.take()) {
            stdin.write_all(text.as_bytes()).with_context(|| format!("`{name}` does not read"))?;
        }
        Ok(running)
    }

    /// The next line that it says.
    pub(super) fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            bail!("it ended ({}) before it was ready", self.process.wait()?);
        }
        Ok(line)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
