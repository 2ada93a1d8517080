//! The two servers: ours in a home of its own, and the one that ours is measured against.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::clients::Clients;
use crate::run::{command, output, root, run, step};

/// The judge's version.
const VERSION: &str = "48.0.8";

/// Each of them has calls of its own.
const USERS: usize = 8;

/// The skill can ask for a token, and does not.
const MANIFEST: &str = "\
[skill]
name = \"echo\"
version = \"0.1.0\"
description = \"Says back what it is told\"
[[service]]
name = \"github\"
provider = \"github\"
scopes = [\"repo\"]
optional = true
reason = \"to measure\"
[[service.request]]
origin = \"https://api.github.com\"
";

const PERMISSIONS: &str = "\
[[grant]]
skill = \"echo\"
approval = \"none\"
users = [\"*\"]
service = \"github\"
provider = \"github\"
scopes = [\"repo\"]
use = \"inject\"
";

/// A process that ends with this value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running `clawcoil serve` with a skill that says back what it is told.
pub(super) struct Serve {
    process: Process,
    home: PathBuf,
    address: SocketAddr,
    tokens: Vec<String>,
}

impl Serve {
    /// Starts it, on one core or on all.
    pub(super) fn start(core: Option<u32>) -> Result<Self> {
        let folder = root().join("target/prove/load");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        let (home, skill) = (folder.join("home"), folder.join("skill"));
        fs::create_dir_all(&skill)?;
        let guests = root().join("tests/guests/target/wasm32-wasip2/release");
        fs::copy(guests.join("echo.wasm"), skill.join("component.wasm")).context("the guests are not built")?;
        fs::write(skill.join("skill.toml"), MANIFEST)?;
        let told = |arguments: &[&str]| output(Command::new(program()).arg("--home").arg(&home).args(arguments));
        told(&["init", "--no-recovery"])?;
        told(&["skill", "add", &skill.join("component.wasm").to_string_lossy()])?;
        fs::write(home.join("permissions.toml"), PERMISSIONS)?;
        fs::write(home.join("serve.toml"), "[limits]\nrequests_per_minute = 1000000\n")?;
        let mut tokens = Vec::new();
        for user in 0..USERS {
            let made = told(&["token", "create", "--json", "--agent", "load", "--user", &format!("user-{user}")])?;
            let made: Value = serde_json::from_str(&made)?;
            tokens.push(made.get("token").and_then(Value::as_str).context("no token was made")?.to_owned());
        }
        let mut serve = pinned(core, &program());
        serve.arg("--home").arg(&home).args(["serve", "--listen", "127.0.0.1:0"]);
        let (process, line) = started(&mut serve)?;
        let address = line.split_once("http://").and_then(|(_, rest)| rest.split_whitespace().next());
        let address = address.and_then(|text| text.trim_end_matches('.').parse().ok());
        Ok(Self { process, home, address: address.with_context(|| format!("it does not listen: {line}"))?, tokens })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn token(&self) -> Result<&str> {
        self.tokens.first().map(String::as_str).context("there is no token")
    }

    /// So many clients that call the skill.
    pub(super) fn calls(&self, clients: usize) -> Clients {
        let body = json!({ "skill": "echo", "tool": "echo", "input": { "text": "hello" } }).to_string();
        let requests = self.tokens.iter().cycle().take(clients).map(|token| {
            format!(
                "POST /v1/invocations HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\n\
                 content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                self.address,
                body.len()
            )
        });
        Clients::new(self.address, requests.map(String::into_bytes).collect())
    }

    /// What a command says about this home.
    pub(super) fn told(&self, arguments: &[&str]) -> Result<String> {
        output(Command::new(program()).arg("--home").arg(&self.home).args(arguments))
    }

    /// Its resident memory, in bytes.
    pub(super) fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no memory is told")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib << 10)
    }
}

/// `wasmtime serve`.
pub(super) struct Judge(PathBuf);

/// A running judge.
pub(super) struct Judging {
    _process: Process,
    address: SocketAddr,
}

/// The judge, which is built where it is not there: that takes long, and is done once.
pub(super) fn judge() -> Result<Judge> {
    let folder = root().join("target/tools");
    #[expect(clippy::disallowed_methods, reason = "who has it elsewhere says so")]
    let named = std::env::var_os("WASMTIME").map(PathBuf::from);
    let program = named.unwrap_or_else(|| folder.join("bin/wasmtime"));
    if !program.is_file() {
        step("cargo install wasmtime-cli");
        let install = ["install", "wasmtime-cli", "--version", VERSION, "--locked", "--root"];
        run(command("cargo", &install).arg(&folder))?;
    }
    let version = output(Command::new(&program).arg("--version"))?;
    if !version.contains(VERSION) {
        bail!("{} is {}, and not {VERSION}", program.display(), version.trim());
    }
    Ok(Judge(program))
}

impl Judge {
    /// Starts it on one core, with the component that answers everything.
    pub(super) fn start(&self, core: u32) -> Result<Judging> {
        let hello = root().join("tests/guests/target/wasm32-wasip2/release/hello.wasm");
        let mut serve = pinned(Some(core), &self.0);
        serve.args(["serve", "--addr", "127.0.0.1:0"]).arg(hello);
        let (process, line) = started(&mut serve)?;
        let address = line.split_once("http://").map(|(_, rest)| rest.trim().trim_end_matches('/'));
        let address = address.and_then(|text| text.parse().ok());
        Ok(Judging { _process: process, address: address.with_context(|| format!("it does not listen: {line}"))? })
    }
}

impl Judging {
    pub(super) fn calls(&self, clients: usize) -> Clients {
        let request = format!("GET / HTTP/1.1\r\nhost: {}\r\n\r\n", self.address);
        Clients::new(self.address, vec![request.into_bytes(); clients])
    }
}

fn program() -> PathBuf {
    root().join("target/release/clawcoil")
}

fn pinned(core: Option<u32>, program: &Path) -> Command {
    match core {
        None => Command::new(program),
        Some(core) => {
            let mut command = Command::new("taskset");
            command.args(["--cpu-list", &core.to_string()]).arg(program);
            command
        }
    }
}

/// Starts a server, and gives the line in which it says where it listens: on stdout, or on stderr.
fn started(command: &mut Command) -> Result<(Process, String)> {
    let (reader, writer) = std::io::pipe()?;
    let child = command.stdout(writer.try_clone()?).stderr(writer).stdin(Stdio::null()).spawn();
    // Else this process itself would keep the pipe open.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let process = Process(child.context("the server could not be started")?);
    let mut reader = BufReader::new(reader);
    let mut line = String::new();
    while !line.contains("http://") {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            bail!("the server has ended before it listened");
        }
    }
    // What else it says is nothing that is waited for, and must not fill the pipe.
    std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
    Ok((process, line))
}

/// Keeps all threads of this process on one core.
pub(super) fn this_process_on(core: u32) -> Result<()> {
    taskset(&core.to_string())
}

/// Lets this process run everywhere.
pub(super) fn this_process_everywhere() -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    taskset(&format!("0-{}", cores.max(2) - 1))
}

fn taskset(cores: &str) -> Result<()> {
    let own = std::process::id().to_string();
    output(Command::new("taskset").args(["--all-tasks", "--cpu-list", "--pid", cores, &own])).map(drop)
}
