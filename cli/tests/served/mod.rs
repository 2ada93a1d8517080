//! `clawcoil serve` as a process, and requests to it.

#![allow(dead_code, reason = "each test file uses its part of this")]

pub(crate) mod stage;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use clawcoil_canary as canary;
use clawcoil_tests::http::{Answer, send};
use http::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use url::Url;

/// The command, for the home in this folder.
pub(crate) fn clawcoil(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clawcoil"));
    command.arg("--home").arg(home).args(arguments).env_remove("RUST_LOG").stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    if canary::is_on() {
        command.env("RUST_LOG", canary::FILTER);
        // What the types of secrets let through must be found, not hidden by the net behind them.
        command.env("CLAWCOIL_DANGEROUS_UNREDACTED_LOG", "1");
    }
    command
}

/// Runs the command to its end.
pub(crate) fn run(home: &Path, arguments: &[&str]) -> Output {
    let output = clawcoil(home, arguments).output().unwrap();
    canary::keep("command", &output.stdout);
    Output { stderr: canary::without_log("command", &output.stderr), ..output }
}

/// Its answer as JSON, where it must succeed.
pub(crate) fn json(home: &Path, arguments: &[&str]) -> Value {
    let output = run(home, &[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A running `clawcoil serve`. It is killed with this value.
pub(crate) struct Served {
    process: Child,
    home: PathBuf,
    /// Where it is reached.
    pub(crate) origin: Url,
}

impl Served {
    /// Starts it on a free port.
    pub(crate) fn start(home: &Path) -> Self {
        Self::with(home, &["--listen", "127.0.0.1:0"])
    }

    /// Starts it with these arguments.
    pub(crate) fn with(home: &Path, arguments: &[&str]) -> Self {
        Self::of(&mut clawcoil(home, &[&["serve", "--json"], arguments].concat()), home)
    }

    /// Starts this command, which is `serve --json`.
    pub(crate) fn of(command: &mut Command, home: &Path) -> Self {
        let mut process = command.spawn().unwrap();
        let log = process.stderr.take().map(|stderr| canary::lines("serve", stderr));
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut text = String::new();
        while serde_json::from_str::<Value>(&text).is_err() {
            if output.read_line(&mut text).unwrap() == 0 {
                let _ = process.wait();
                panic!("it does not serve: {text}{}", log.iter().flatten().collect::<Vec<_>>().join("\n"));
            }
        }
        canary::copy("serve", output);
        let said: Value = serde_json::from_str(&text).unwrap();
        let origin = said["listening"].as_str().unwrap().parse().unwrap();
        Self { process, home: home.to_owned(), origin }
    }

    /// Kills it as the system does when memory is short, and starts it again in the same place.
    pub(crate) fn killed_and_started_again(mut self) -> Self {
        let place = self.origin.as_str().trim_start_matches("http://").trim_end_matches('/').to_owned();
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        Self::with(&self.home.clone(), &["--listen", &place])
    }

    /// Sends its process a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits until its process has ended by itself.
    pub(crate) async fn ended(mut self) -> ExitStatus {
        tokio::task::spawn_blocking(move || self.process.wait().unwrap()).await.unwrap()
    }

    pub(crate) fn at(&self, path: &str) -> Url {
        self.origin.join(path).unwrap()
    }

    /// A program's request.
    pub(crate) async fn api(&self, method: Method, path: &str, token: &str, body: &Value) -> Answer {
        let bearer = format!("Bearer {token}");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        send(method, &self.at(path), &headers, body).await
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A program's token for a user.
pub(crate) fn token(home: &Path, client: &str, user: &str, scopes: &[&str]) -> String {
    let scopes = scopes.iter().flat_map(|scope| ["--scope", scope]);
    let arguments: Vec<&str> =
        ["token", "create", "--agent", client, "--user", user].into_iter().chain(scopes).collect();
    json(home, &arguments)["token"].as_str().unwrap().to_owned()
}

/// Where a form of the connect page goes.
pub(crate) fn action(session: &Value, what: &str) -> String {
    format!("/connect/{}/{what}", session["id"].as_str().unwrap())
}
