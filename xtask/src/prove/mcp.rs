//! The judges of the Model Context Protocol, all written by others: the conformance suite in both revisions, the inspector, the
//! official clients for TypeScript and Python, and OpenClaw.
//!
//! They meet the real program: `clawcoil serve` and `clawcoil mcp`, with a skill whose tools have the names that the suite
//! calls. It declares no service, so there is nothing to grant.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::agent::{Agent, Running};
use super::conformance::{Listed, Played};
use super::judges::{NAMED, Packages};
use super::python;
use crate::run::{command, output, root, run, run_piped, step};

/// The tools of the conformance skill, as agents see them.
const TOOLS: [&str; 5] =
    ["test_error_handling", "test_logging_tool", "test_simple_text", "test_sleep", "test_streaming_elicitation"];
/// What one of them says.
const SENTENCE: &str = "This is a simple text response for testing.";

/// Tests of `cli/tests/mcp.rs` in which no client speaks.
const WITHOUT_CLIENT: [&str; 3] = ["without_a_credential", "a_session_is", "install_never"];

pub(super) fn prove() -> Result<()> {
    step("the program");
    // As the tests build it, so that nothing is built twice.
    run(&mut command("cargo", &["test", "--workspace", "--test", "mcp", "--no-run"]))?;
    let agent = Agent::new("mcp")?;
    agent.json(&["skill", "add", &root().join("target/skills/conformance").to_string_lossy()])?;
    let made = agent.json(&["token", "create", "--agent", "judge", "--user", "alice", "--scope", "invoke"])?;
    let token = made.get("token").and_then(Value::as_str).context("no token was made")?;
    let (_serving, origin) = agent.serve()?;
    let judges = Packages::install(NAMED, "node")?;

    let mut verdicts = Verdicts::default();
    for (package, revision) in [
        ("@modelcontextprotocol/conformance", "2026-07-28"),
        ("@modelcontextprotocol/conformance", "2025-11-25"),
        ("conformance-before", "2025-11-25"),
    ] {
        let name = format!("conformance {}, revision {revision}", judges.version(package)?);
        verdicts.add(&name, conformance(&judges, &agent, package, revision, &origin, token));
    }
    let inspector = judges.version("@modelcontextprotocol/inspector")?;
    for era in ["legacy", "modern"] {
        verdicts.add(&format!("inspector {inspector}, {era}"), inspect(&judges, &agent, era, &origin, token));
    }
    verdicts.add("the official TypeScript client", typescript());
    verdicts.add("the official Python client", python_client());
    verdicts.add("OpenClaw", openclaw(&agent, &origin, token));
    verdicts.finish()
}

/// What each judge found.
#[derive(Default)]
struct Verdicts(Vec<(String, Result<String>)>);

impl Verdicts {
    fn add(&mut self, judge: &str, verdict: Result<String>) {
        let line = match &verdict {
            Ok(counts) => format!("{judge}: {counts}"),
            Err(error) => format!("{judge}: FAILED: {error:#}"),
        };
        step(&line);
        self.0.push((line, verdict));
    }

    fn finish(self) -> Result<()> {
        println!("The judges of the Model Context Protocol:");
        for (line, _) in &self.0 {
            println!("  {line}");
        }
        let failed = self.0.iter().filter(|(_, verdict)| verdict.is_err()).count();
        if failed > 0 {
            bail!("{failed} of {} judges found something", self.0.len());
        }
        Ok(())
    }
}

/// The suite can't send a credential: a proxy puts it on.
fn conformance(
    judges: &Packages,
    agent: &Agent,
    package: &str,
    revision: &str,
    origin: &str,
    token: &str,
) -> Result<String> {
    let mut proxy = Running::start(&mut command("node", &["tests/judges/credential-proxy.mjs", origin]), Some(token))?;
    let ready = proxy.line()?;
    let url = format!("{}/mcp", ready.trim().strip_prefix("READY ").context("the proxy is not ready")?);
    let list = root().join(NAMED).join(format!("conformance-{revision}.yml"));
    let results = agent.folder().join(format!("{}-{revision}", package.replace(['@', '/'], "")));
    let list_text = fs::read_to_string(&list).with_context(|| format!("{} could not be read", list.display()))?;

    let entry = format!("{package}/dist/index.js");
    let mut suite = judges.program(&entry, &["server", "--url", &url, "--expected-failures"]);
    suite.arg(&list).arg("-o").arg(results);
    // The suite before knows no sets of requirements.
    if package != "conformance-before" {
        suite.args(["--requirements", revision]);
    }
    let text = heard(&mut suite)?;
    Played::read(&text).judged(&Listed::read(&list_text))
}

/// Lists strictly, so that a schema that some client can't read is an error, and calls; then the same by stdio.
fn inspect(judges: &Packages, agent: &Agent, era: &str, origin: &str, token: &str) -> Result<String> {
    let (url, header) = (format!("{origin}/mcp"), format!("Authorization: Bearer {token}"));
    let http = ["--server-url", &url, "--transport", "http", "--header", &header];
    let program = root().join(super::agent::PROGRAM).to_string_lossy().into_owned();
    let home = agent.folder().join("home").to_string_lossy().into_owned();
    let stdio = ["--", &program, "mcp", "--user", "alice", "--home", &home];
    let ask = |words: &[&str], behind: &[&str]| -> Result<Value> {
        let always = ["--cli", "--format", "json", "-q", "--protocol-era", era];
        let all = [&always[..], words, behind].concat();
        let mut inspector = judges.program("@modelcontextprotocol/inspector/clients/launcher/build/index.js", &all);
        let text = output(inspector.env("HOME", agent.folder()))?;
        let told: Value = serde_json::from_str(&text).with_context(|| format!("it does not say JSON: {text}"))?;
        told.get("result").cloned().with_context(|| format!("there is no result: {text}"))
    };
    for reach in [&http[..], &stdio[..]] {
        let tools = ask(&["--method", "tools/list", "--strict"], reach)?;
        has_tools(tools.get("tools"), "")?;
        let called = ask(&["--method", "tools/call", "--tool-name", "test_simple_text"], reach)?;
        let said = called.pointer("/structuredContent/result").and_then(Value::as_str);
        if said != Some(SENTENCE) {
            bail!("the tool said {called}");
        }
    }
    Ok(format!("{} tools listed strictly and one called, over HTTP and stdio", TOOLS.len()))
}

fn has_tools(tools: Option<&Value>, prefix: &str) -> Result<()> {
    let name = |tool: &Value| tool.as_str().or_else(|| tool.get("name")?.as_str()).map(str::to_owned);
    let mut names: Vec<String> = tools.and_then(Value::as_array).into_iter().flatten().filter_map(name).collect();
    names.sort();
    if names != TOOLS.map(|tool| format!("{prefix}{tool}")) {
        bail!("the tools are not the skill's: {}", names.join(", "));
    }
    Ok(())
}

/// The tests of the project play with this client: list, call, connect by a link, decline, cancel, hear of changes.
fn typescript() -> Result<String> {
    let package = root().join("tests/node/node_modules/@modelcontextprotocol/client/package.json");
    let text = fs::read_to_string(&package).with_context(|| format!("{} could not be read", package.display()))?;
    let package: Value = serde_json::from_str(&text)?;
    let version = package.get("version").and_then(Value::as_str).unwrap_or("?");
    Ok(format!("version {version}: {}", tests(None)?))
}

/// The same tests with the other client.
fn python_client() -> Result<String> {
    let interpreter = python::programs()?.join("python");
    let client = json!([interpreter, root().join(NAMED).join("client.py")]);
    let version = "from importlib.metadata import version; print(version('mcp'))";
    let version = output(&mut command(&interpreter.to_string_lossy(), &["-c", version]))?;
    Ok(format!("version {}: {}", version.trim(), tests(Some(&client.to_string()))?))
}

fn tests(client: Option<&str>) -> Result<String> {
    let mut tests = command("cargo", &["test", "--workspace", "--test", "mcp", "--"]);
    tests.args(WITHOUT_CLIENT.iter().flat_map(|test| ["--skip", test]));
    if let Some(client) = client {
        tests.env("CLAWCOIL_MCP_CLIENT", client);
    }
    let text = heard(&mut tests)?;
    let passed = text.lines().find_map(|line| line.strip_prefix("test result: ok. ")?.split(' ').next());
    let passed: u32 = passed.and_then(|count| count.parse().ok()).context("the tests say no count")?;
    if passed == 0 {
        bail!("no test was run");
    }
    Ok(format!("{passed} tests passed: list, call, connect by a link, decline, cancel, hear of changes"))
}

/// The agent reads what `clawcoil mcp install` wrote for it, both ways, and lists the tools.
fn openclaw(agent: &Agent, origin: &str, token: &str) -> Result<String> {
    let packages = Packages::install(&format!("{NAMED}/openclaw"), "openclaw")?;
    let version = packages.version("openclaw")?;
    let url = format!("{origin}/mcp");
    for (name, reach) in [("command", ["--user", "alice"]), ("url", ["--url", &url])] {
        let home = agent.folder().join(format!("openclaw-{name}"));
        let install = [&["mcp", "install", "openclaw", "--yes", "--json"][..], &reach].concat();
        output(agent.command(&install).env("HOME", &home))?;
        let mut probe = packages.program("openclaw/openclaw.mjs", &["mcp", "probe", "clawcoil", "--json"]);
        let text = output(at_home(&mut probe, &home).env("CLAWCOIL_TOKEN", token))?;
        // It may say something about itself before.
        let json = text.find('{').and_then(|at| text.get(at..)).unwrap_or_default();
        let told: Value = serde_json::from_str(json).with_context(|| format!("it does not say JSON: {text}"))?;
        has_tools(told.get("tools"), "clawcoil__").with_context(|| format!("by {name}"))?;
    }
    Ok(format!("version {version}: {} tools listed, by command and by URL, from what was installed", TOOLS.len()))
}

fn at_home<'a>(program: &'a mut Command, home: &Path) -> &'a mut Command {
    program.env("HOME", home).env_remove("OPENCLAW_CONFIG_PATH").env_remove("XDG_CONFIG_HOME")
}

/// Runs the command to its end, shows what it says on stderr, and gives it.
fn heard(command: &mut Command) -> Result<String> {
    let mut said = String::new();
    run_piped(command, |reader| {
        for line in BufReader::new(reader).lines() {
            let line = line?;
            eprintln!("{line}");
            said.push_str(&line);
            said.push('\n');
        }
        Ok(())
    })?;
    Ok(said)
}
