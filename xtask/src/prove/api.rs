//! The HTTP API against what it says of itself: schemathesis makes requests of all kinds out of the served OpenAPI document, right
//! and wrong ones, and holds every answer against it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::python;
use crate::run::{command, output, root, run};
use crate::skills;

pub(super) fn prove() -> Result<()> {
    let schemathesis = python::programs()?.join("schemathesis");
    // The same build as that of the tests.
    run(&mut command("cargo", &["test", "--workspace", "--test", "api", "--no-run"]))?;
    let folder = root().join("target/prove/api");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let agent = Agent { home: folder.join("home") };
    let token = agent.set_up()?;
    let served = Served::start(&agent)?;
    let mut judge = Command::new(schemathesis);
    judge.current_dir(&folder).env("CLAWCOIL_TOKEN", token);
    let config = root().join("tests/judges/schemathesis.toml");
    judge.arg("--config-file").arg(config).args(["run", &format!("{}/openapi.json", served.origin)]);
    judge.args(["--checks", "all", "--max-examples", "200", "--report", "junit", "--report-dir", "reports"]);
    run(&mut judge).with_context(|| format!("what the server says of it stands in {}", agent.log().display()))
}

/// An agent with two skills, one of them without a need for accounts.
struct Agent {
    home: PathBuf,
}

impl Agent {
    fn clawcoil(&self, arguments: &[&str]) -> Command {
        let mut command = command("target/debug/clawcoil", arguments);
        command.arg("--home").arg(&self.home).arg("--json").stdin(Stdio::null());
        command
    }

    fn log(&self) -> PathBuf {
        self.home.with_extension("log")
    }

    /// Makes it, and a token for everything.
    fn set_up(&self) -> Result<String> {
        let skill = |name: &str| skills::collected().join(name).to_string_lossy().into_owned();
        for arguments in [
            &["init", "--no-recovery"][..],
            &["skill", "add", &skill("conformance")],
            &["skill", "add", &skill("gmail-send")],
            &["grant", "gmail-send", "--user", "alice"],
            &["provider", "add", "google", "--client-id", "judged", "--no-secret"],
        ] {
            output(&mut self.clawcoil(arguments))?;
        }
        fs::write(self.home.join("serve.toml"), "[limits]\nrequests_per_minute = 1_000_000\n")?;
        let scopes = ["--scope", "invoke", "--scope", "connect", "--scope", "admin"];
        let arguments = [&["token", "create", "--agent", "judge", "--user", "alice"][..], &scopes].concat();
        let made: Value = serde_json::from_str(&output(&mut self.clawcoil(&arguments))?)?;
        Ok(made.get("token").and_then(Value::as_str).context("no token was made")?.to_owned())
    }
}

/// A running `clawcoil serve`, killed with this value.
struct Served {
    process: Child,
    origin: String,
}

impl Served {
    fn start(agent: &Agent) -> Result<Self> {
        let mut serve = agent.clawcoil(&["serve", "--listen", "127.0.0.1:0"]);
        let log = fs::File::create(agent.log())?;
        let mut process = serve.stdout(Stdio::piped()).stderr(log).spawn().context("serve could not be started")?;
        let mut said = String::new();
        let mut lines = BufReader::new(process.stdout.take().context("it has an output")?);
        while serde_json::from_str::<Value>(&said).is_err() {
            if lines.read_line(&mut said)? == 0 {
                bail!("clawcoil serve ended: {said}");
            }
        }
        let said: Value = serde_json::from_str(&said)?;
        let origin =
            said.get("listening").and_then(Value::as_str).context("it does not say where it listens")?.to_owned();
        Ok(Self { process, origin })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
