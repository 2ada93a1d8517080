//! Starting other programs from the project's root, their output streaming through.

use std::io::{self, PipeReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, anyhow, bail};

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_owned()
}

/// What `cargo run` tells this program of its own package. Build scripts would take it for theirs, and what depends on them would
/// be built anew each time that cargo is started from here and then by hand.
const OF_THIS_PACKAGE: [&str; 9] = [
    "CARGO_MANIFEST_DIR",
    "CARGO_MANIFEST_PATH",
    "CARGO_PKG_NAME",
    "CARGO_PKG_VERSION",
    "CARGO_PKG_VERSION_MAJOR",
    "CARGO_PKG_VERSION_MINOR",
    "CARGO_PKG_VERSION_PATCH",
    "CARGO_PKG_VERSION_PRE",
    "CARGO_MANIFEST_LINKS",
];

/// Says on stderr what starts now.
pub(crate) fn step(what: &str) {
    eprintln!("== {what}");
}

/// The command, to be run in the project's root.
pub(crate) fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    // Where things are built is known, whatever the surroundings say.
    command.args(arguments).current_dir(root()).env_remove("CARGO_TARGET_DIR").env_remove("CARGO_BUILD_TARGET");
    for variable in OF_THIS_PACKAGE {
        command.env_remove(variable);
    }
    command
}

/// Runs the command to its end; anything but success is an error that shows the command as one would type it.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    let status = command.status().with_context(|| format!("`{shown}` could not be started"))?;
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    Ok(())
}

/// Runs the command to its end, like [`run`]; what it writes to stdout and stderr goes to `read` in the order in which it was
/// written.
pub(crate) fn run_piped(command: &mut Command, read: impl FnOnce(PipeReader) -> io::Result<()>) -> Result<()> {
    let shown = shown(command);
    let (reader, writer) = io::pipe()?;
    let mut child = command.stdout(writer.try_clone()?).stderr(writer).spawn();
    // Else this process itself would keep the pipe open.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let child = child.as_mut().map_err(|error| anyhow!("`{shown}` could not be started: {error}"))?;
    let read = read(reader);
    let status = child.wait().with_context(|| format!("`{shown}` could not be waited for"))?;
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    read.with_context(|| format!("the output of `{shown}` could not be kept"))
}

/// Runs the command and gives what it wrote to stdout.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let output = command.output().with_context(|| format!("`{shown}` could not be started"))?;
    if !output.status.success() {
        bail!("`{shown}` failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ");
    match command.get_current_dir().filter(|folder| *folder != root()) {
        Some(folder) => format!("(cd {} && {line})", folder.display()),
        None => line,
    }
}
