//! How long a newcomer waits for the first success. The commands are those of README.md, read from it, so that what it says is
//! what is measured.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::agent::{PROGRAM, Running, fresh};
use crate::run::{command, root, run, step};

/// How long the demo may take once it is built.
const DEMO: Duration = Duration::from_secs(10);
/// How many commands it may take until an agent calls a tool.
const MOST_COMMANDS: usize = 5;
/// Under which heading they stand.
const STEPS: &str = "## First steps";
/// The command that does not end by itself.
const SERVES: &str = "clawcoil serve";

pub(super) fn prove() -> Result<()> {
    let path = root().join("README.md");
    let readme = fs::read_to_string(&path).with_context(|| format!("{} could not be read", path.display()))?;
    let demo = commands(&readme, "# ClawCoil").into_iter().next().context("README.md begins with no command")?;
    let steps = commands(&readme, STEPS);
    if steps.is_empty() || steps.len() > MOST_COMMANDS {
        bail!("{} commands stand under {STEPS:?}; at most {MOST_COMMANDS} are to", steps.len());
    }

    step("the demo, which builds everything first");
    run(&mut shell(&demo, None))?;
    let took = timed(|| run(&mut shell(&demo, None)))?;
    println!("  {:>5.1} s  {demo}", took.as_secs_f64());
    if took > DEMO {
        bail!("the demo took {:.1} s; at most {} s are to pass", took.as_secs_f64(), DEMO.as_secs());
    }

    let home = fresh("first")?;
    let mut serving = None;
    let mut all = Duration::ZERO;
    for line in &steps {
        let took = timed(|| {
            let mut shell = shell(line, Some(&home));
            if line.starts_with(SERVES) {
                let mut running = Running::start(&mut shell, None)?;
                running.line().with_context(|| format!("`{line}`"))?;
                serving = Some(running);
                return Ok(());
            }
            run(&mut shell)
        })?;
        all += took;
        println!("  {:>5.1} s  {line}", took.as_secs_f64());
    }
    let _serving = serving.context("no command serves")?;
    let took = timed(|| agent_calls(&home))?;
    all += took;
    println!("  {:>5.1} s  the agent calls the tool", took.as_secs_f64());
    println!("{} commands and {:.1} s to the first tool call of an agent", steps.len(), all.as_secs_f64());
    Ok(())
}

/// The commands of the first block of code after a heading.
fn commands(text: &str, heading: &str) -> Vec<String> {
    let after = text.lines().skip_while(|line| *line != heading).skip(1).skip_while(|line| !line.starts_with("```sh"));
    let lines = after.skip(1).take_while(|line| !line.starts_with("```"));
    let command = |line: &str| line.split('#').next().unwrap_or(line).trim().to_owned();
    lines.map(command).filter(|line| !line.is_empty()).collect()
}

/// The line as somebody types it in the project's folder, with the built program in the path, and nothing set up.
fn shell(line: &str, home: Option<&Path>) -> Command {
    let mut shell = command("sh", &["-c", &format!("exec {line}")]);
    if let Some(home) = home {
        let program = root().join(PROGRAM);
        let folder = program.parent().unwrap_or(&program).to_string_lossy().into_owned();
        shell.env("PATH", format!("{folder}:/usr/local/bin:/usr/bin:/bin")).env("HOME", home);
        for variable in ["CLAWCOIL_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "OPENCLAW_CONFIG_PATH"] {
            shell.env_remove(variable);
        }
    }
    shell
}

/// An agent starts the server that stands in its configuration now, and calls its first tool.
fn agent_calls(home: &Path) -> Result<()> {
    let file = home.join(".openclaw/openclaw.json");
    let text = fs::read_to_string(&file).with_context(|| format!("{} could not be read", file.display()))?;
    let configuration: Value = serde_json::from_str(&text)?;
    let mut entry = configuration.pointer("/mcp/servers/clawcoil").context("no server stands there")?.clone();
    if let Some(entry) = entry.as_object_mut() {
        entry.insert("mode".to_owned(), json!("auto"));
    }
    let call = json!({ "call": "dice_roll", "arguments": { "count": 2, "sides": 6 } });

    let mut client = Running::start(
        command("node", &["tests/node/mcp-client.mjs"]).env("HOME", home),
        Some(&format!("{entry}\n{call}\n")),
    )?;
    loop {
        let said: Value = serde_json::from_str(&client.line()?)?;
        let Some(result) = said.get("result") else { continue };
        return match result.pointer("/structuredContent/total").and_then(Value::as_u64) {
            Some(2..=12) => Ok(()),
            _ => bail!("the tool said {result}"),
        };
    }
}

#[expect(clippy::disallowed_methods, reason = "this is what is measured")]
fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_those_of_the_block_without_what_is_said_of_them() {
        let text = "# A\n```sh\none --all   # first\n```\n## B\nwords\n\n```sh\ntwo   # second\n# nothing\n\nthree\n```\n```sh\nfour\n```\n";
        assert_eq!(commands(text, "## B"), ["two", "three"]);
        assert_eq!(commands(text, "# A"), ["one --all"]);
        assert_eq!(commands(text, "## C"), Vec::<String>::new());
    }
}
