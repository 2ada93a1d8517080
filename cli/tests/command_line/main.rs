//! The command as people and scripts use it: a process, its exit code, its two outputs.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod log;
mod versions;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::Receiver;

use clawcoil_canary as canary;
use serde_json::Value;

const MAIL: [&str; 5] = ["gmail-send", "send", "to=grace@sandbox.example", "subject=Hello", "body=How are you?"];

/// An agent's home that is gone after the test.
struct Agent(tempfile::TempDir);

impl Agent {
    fn without_home() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn new() -> Self {
        let agent = Self::without_home();
        agent.succeeds(&["init", "--no-recovery"]);
        canary::plant_key(&std::fs::read_to_string(agent.folder().join("identity.key")).unwrap());
        agent
    }

    fn folder(&self) -> PathBuf {
        self.0.path().join("agent")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_clawcoil"));
        command.arg("--home").arg(self.folder()).args(arguments).env_remove("RUST_LOG").stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if canary::is_on() {
            // All of it, to be searched; the tests look at what is said without it.
            command.env("RUST_LOG", canary::FILTER);
            // What the types of secrets let through must be found, not hidden by the net behind them.
            command.env("CLAWCOIL_DANGEROUS_UNREDACTED_LOG", "1");
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        said(self.command(arguments).output().unwrap())
    }

    fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// What it writes to stderr.
    fn fails(&self, arguments: &[&str], code: i32) -> String {
        let output = self.run(arguments);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}{}", text(&output.stdout));
        assert!(stderr.lines().any(|line| line.starts_with("error: ")), "{stderr}");
        stderr
    }

    /// Arguments that are not understood; what is told names the way out.
    fn fails_usage(&self, arguments: &[&str], told: &str) {
        let stderr = self.fails(arguments, 2);
        assert!(stderr.contains(told), "{stderr}");
    }

    fn json(&self, arguments: &[&str], code: i32) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stderr));
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(document["version"], 1);
        document
    }

    /// Connects alice's account as a person would: reads the address, consents there, and the callback comes back.
    fn connect(&self) {
        let mut connecting =
            Running::start(self.command(&["connect", "google", "--user", "alice", "--skill", "gmail-send", "--yes"]));
        let address = connecting.line_with("http://");
        let page = get(&address);
        let (_, rest) = page.split_once("name=\"request\" value=\"").unwrap_or_else(|| panic!("{page}"));
        let (request, _) = rest.split_once('"').unwrap();
        let form = format!("request={request}&account=ada&decision=allow");
        let answer = http("POST", &address, &form);
        let callback =
            answer.lines().find_map(|line| line.strip_prefix("location: ")).unwrap_or_else(|| panic!("{answer}"));
        assert!(get(callback.trim()).contains("You can close this window"));
        assert!(connecting.process.wait().unwrap().success());
    }
}

/// What a command that has ended wrote, without what it logged.
fn said(output: Output) -> Output {
    canary::keep("command", &output.stdout);
    Output { stderr: canary::without_log("command", &output.stderr), ..output }
}

/// A command beside the test. What it writes to stderr is read as it comes, so that it never waits for a reader.
struct Running {
    process: Child,
    lines: Receiver<String>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut process = command.spawn().unwrap();
        let lines = canary::lines("command", process.stderr.take().unwrap());
        Self { process, lines }
    }

    /// The first line of its stderr that contains the words, without the space around it.
    fn line_with(&self, words: &str) -> String {
        let found = self.lines.iter().find(|line| line.contains(words));
        found.unwrap_or_else(|| panic!("no {words}")).trim().to_owned()
    }
}

/// A sandbox in a process of its own.
struct Sandbox {
    running: Running,
    origin: String,
}

impl Sandbox {
    fn start(agent: &Agent) -> Self {
        // Codes and tokens of a sandbox begin like this, and have 256 bits in base64 after it.
        canary::plant_prefix(canary::Kind::AccessToken, "sandbox-", 43);
        let mut running = Running::start(agent.command(&["sandbox", "--port", "0", "--json"]));
        let mut document = String::new();
        // The document ends with the brace at the beginning of a line.
        for line in BufReader::new(running.process.stdout.as_mut().unwrap()).lines() {
            let line = line.unwrap();
            document.push_str(&line);
            if line == "}" {
                break;
            }
        }
        let document: Value = serde_json::from_str(&document).unwrap();
        Self { running, origin: document["origin"].as_str().unwrap().to_owned() }
    }

    fn inbox(&self) -> Vec<Value> {
        let answer = get(&format!("{}/sandbox/inbox", self.origin));
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str::<Value>(body).unwrap()["entries"].as_array().unwrap().clone()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.running.process.kill();
        let _ = self.running.process.wait();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn get(url: &str) -> String {
    http("GET", url, "")
}

/// One request on a connection of its own, to this machine.
fn http(method: &str, url: &str, form: &str) -> String {
    let rest = url.strip_prefix("http://").unwrap();
    let (authority, path) = rest.split_once('/').unwrap();
    let mut stream = TcpStream::connect(authority).unwrap();
    let length = form.len();
    let kind = "application/x-www-form-urlencoded";
    write!(stream, "{method} /{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{form}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The built example skills.
fn skills() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("target/skills");
    assert!(folder.join("gmail-send").is_dir(), "the skills are not built: run `cargo xtask build-skills`");
    folder
}

#[test]
fn the_demo_tells_its_story_within_ten_seconds_and_without_a_terminal() {
    let agent = Agent::without_home();
    let start = std::time::SystemTime::UNIX_EPOCH;
    let seconds = || start.elapsed().unwrap().as_secs();
    let begun = seconds();
    let story = agent.succeeds(&["demo", "--skills", skills().to_str().unwrap()]);
    assert!(seconds() - begun <= 10, "{story}");
    assert!(story.contains("[[grant]]"), "the lines that would allow it: {story}");
    assert!(story.lines().count() < 35, "{story}");
    assert!(!agent.folder().exists(), "the demo has a home of its own");
}

#[test]
fn without_built_skills_the_demo_says_how_to_build_them() {
    let agent = Agent::without_home();
    assert!(agent.fails(&["demo", "--skills", "/nowhere"], 1).contains("cargo xtask demo"));
}

#[test]
fn the_whole_line_from_init_to_disconnect() {
    let agent = Agent::new();
    let sandbox = Sandbox::start(&agent);
    agent.succeeds(&["provider", "add", "google", "--sandbox", &sandbox.origin]);
    agent.succeeds(&["skill", "add", skills().join("gmail-send").to_str().unwrap()]);
    let inspected = agent.succeeds(&["skill", "inspect", "gmail-send"]);
    assert!(inspected.contains("This skill can't see your token"), "{inspected}");
    let send = [&["run"], &MAIL[..], &["--user", "alice"]].concat();

    // Not granted: refused, with the lines that would allow it; pasted, they do.
    let refused = agent.fails(&send, 5);
    assert!(refused.contains("[[grant]]") && refused.contains("why_"), "{refused}");
    let refused = agent.json(&send, 5);
    let lines = refused["error"]["denials"][0]["allow"][0]["lines"].as_str().unwrap();
    let permissions = agent.folder().join("permissions.toml");
    let before = std::fs::read_to_string(&permissions).unwrap();
    std::fs::write(&permissions, format!("{before}\n{lines}")).unwrap();
    agent.succeeds(&["policy", "check"]);
    let explained = agent.succeeds(&["policy", "explain", "--skill", "gmail-send", "--user", "alice"]);
    assert!(explained.starts_with("granted: ") && explained.contains("permissions.toml:"), "{explained}");
    let misspelled = ["policy", "explain", "--skill", "gmail-send", "--user", "alice", "--service", "gmial"];
    assert!(agent.fails(&misspelled, 2).contains("did you mean gmail?"));
    let again = agent.succeeds(&["grant", "gmail-send", "--user", "alice"]);
    assert!(again.contains("granted to alice already"), "{again}");

    // Granted, and nobody is connected: the command that connects.
    assert!(agent.fails(&send, 4).contains("clawcoil connect google --user alice"));
    let entries = agent.json(&["audit", "tail", "--kind", "invoked", "-n", "1"], 0);
    assert_eq!(entries["entries"][0]["detail"], "gmail: not-connected");
    agent.connect();
    let connections = agent.json(&["connections", "list", "--user", "alice"], 0);
    let connection = &connections["connections"][0];
    assert_eq!((&connection["who"], &connection["state"]), (&"ada@sandbox.example".into(), &"active".into()));

    let mail = agent.json(&send, 0);
    assert!(mail["result"]["id"].is_string(), "{mail}");
    let receipt = &mail["receipt"];
    assert_eq!(receipt["invocation"], mail["invocation"]);
    assert_eq!(receipt["credentials"][0]["connection"], connection["id"]);
    assert_eq!(receipt["origins"], serde_json::json!(["https://gmail.googleapis.com"]));
    let entry = agent.json(&["audit", "tail", "--invocation", mail["invocation"].as_str().unwrap()], 0);
    let hashes: Vec<_> = entry["entries"].as_array().unwrap().iter().map(|entry| &entry["hash"]).collect();
    let hash = receipt["hash"].as_str().unwrap().trim_start_matches("sha256:");
    assert!(hashes.iter().any(|found| **found == hash), "{receipt} {hashes:?}");
    let arrived = sandbox.inbox();
    assert_eq!(arrived.len(), 1);
    assert_eq!(arrived[0]["content"]["text"], "How are you?");
    assert!(agent.fails(&[&["run"], &MAIL[..], &["--user", "bob"]].concat(), 5).contains("no grant"));

    // A word that is no argument of the tool, and a tool that isn't there: the caller's mistakes.
    agent.fails(&["run", "gmail-send", "send", "--user", "alice", "colour=red"], 2);
    agent.fails(&["run", "gmail-send", "sned", "--user", "alice"], 2);

    agent.succeeds(&["revoke", "gmail-send", "--user", "alice"]);
    assert_eq!(std::fs::read_to_string(&permissions).unwrap().trim_end(), before.trim_end(), "comments stay");
    agent.fails(&send, 5);

    let id = connection["id"].as_str().unwrap();
    assert!(agent.succeeds(&["connections", "disconnect", id]).contains("has ended its tokens"));
    assert!(agent.fails(&["connections", "show", id], 1).contains("no connection"));

    let tail = agent.succeeds(&["audit", "tail", "--user", "alice", "--lines", "100"]);
    for kind in ["connected", "released", "denied", "disconnected"] {
        assert!(tail.contains(kind), "{kind}: {tail}");
    }
    assert!(agent.succeeds(&["audit", "verify"]).contains("nothing was changed"));
    agent.succeeds(&["doctor"]);

    // And the log notices a change.
    let log = std::fs::read_dir(agent.folder().join("audit")).unwrap().map(|entry| entry.unwrap().path());
    let log =
        log.filter(|path| std::fs::read_to_string(path).is_ok_and(|text| text.contains("released"))).last().unwrap();
    let changed = std::fs::read_to_string(&log).unwrap().replace("released", "requested");
    std::fs::write(&log, changed).unwrap();
    let bad = agent.fails(&["audit", "verify"], 1);
    assert!(bad.contains(log.to_str().unwrap()), "{bad}");
    assert_eq!(agent.run(&["doctor"]).status.code(), Some(1));
}

#[test]
fn a_command_that_is_not_understood_ends_with_2_and_says_so_on_stderr() {
    let agent = Agent::without_home();
    for wrong in [&["nonsense"][..], &[], &["connect", "google"], &["run", "Gmail", "--user", "alice"], &["init"]] {
        let output = agent.run(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{wrong:?}");
    }
    assert!(!agent.folder().exists());
}

#[test]
fn where_no_agent_is_each_command_says_how_to_make_one() {
    let agent = Agent::without_home();
    for command in [
        &["connections", "list"][..],
        &["audit", "verify"],
        &["doctor"],
        &["grant", "a", "--user", "b"],
        &["run", "a", "--user", "b"],
        &["connect", "google", "--user", "a", "--yes"],
    ] {
        assert!(agent.fails(command, 1).contains("clawcoil init"), "{command:?}");
    }
    let error = agent.json(&["doctor"], 1);
    assert_eq!(error["error"]["code"], "error");
}

#[test]
fn a_recovery_key_is_never_shown_where_it_could_be_kept_by_accident() {
    let agent = Agent::without_home();
    let output = agent.run(&["init"]);
    assert_eq!(output.status.code(), Some(2));
    let shown = text(&output.stdout) + &text(&output.stderr);
    assert!(!shown.contains("AGE-SECRET-KEY"), "{shown}");
    assert!(agent.fails(&["init", "--recovery-to", "AGE-SECRET-KEY-1QQQ"], 1).contains("recipient"));
    assert!(!agent.folder().join("vault.db").exists());
}

#[test]
fn files_with_errors_show_all_of_them_with_their_places() {
    let agent = Agent::new();
    std::fs::write(
        agent.folder().join("permissions.toml"),
        "[[grant]]\nskil = \"a\"\nusers = [\"alice\"]\n\n[[forbid]]\nuser = [\"bob\"]\n",
    )
    .unwrap();
    let errors = agent.fails(&["policy", "check"], 1);
    assert!(errors.contains("permissions.toml:2:1") && errors.contains("did you mean `skill`?"), "{errors}");
    assert!(errors.contains("permissions.toml:6:1"), "{errors}");
}

#[test]
fn a_client_secret_is_read_from_stdin_and_shown_nowhere() {
    let agent = Agent::new();
    let mut command =
        agent.command(&["provider", "add", "google", "--client-id", "123", "--verbose", "--verbose", "--verbose"]);
    canary::plant(canary::Kind::ClientSecret, "canary-of-the-client");
    let mut process = command.stdin(Stdio::piped()).spawn().unwrap();
    process.stdin.take().unwrap().write_all(b"canary-of-the-client\n").unwrap();
    let output = process.wait_with_output().unwrap();
    canary::keep("command", &output.stderr);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let shown =
        text(&output.stdout) + &text(&output.stderr) + &agent.succeeds(&["provider", "show", "google", "--json"]);
    assert!(!shown.contains("canary"), "{shown}");
    for file in ["vault.db", "vault.db-wal"] {
        let bytes = std::fs::read(agent.folder().join(file)).unwrap_or_default();
        assert!(!bytes.windows(6).any(|window| window == b"canary"), "{file}");
    }
    assert!(agent.fails(&["provider", "add", "google", "--client-id", "123"], 2).contains("stdin"));
}

#[test]
fn ctrl_c_while_a_person_is_waited_for_ends_with_130_and_connects_nothing() {
    let agent = Agent::new();
    let sandbox = Sandbox::start(&agent);
    agent.succeeds(&["provider", "add", "google", "--sandbox", &sandbox.origin]);
    let mut connecting =
        Running::start(agent.command(&["connect", "google", "--user", "alice", "--scope", "a", "--yes"]));
    connecting.line_with("http://");
    let interrupted = Command::new("kill").args(["-INT", &connecting.process.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    assert_eq!(connecting.process.wait().unwrap().code(), Some(130));
    let list = agent.json(&["connections", "list"], 0);
    assert_eq!(list["connections"], serde_json::json!([]));
}

#[test]
fn an_answer_that_belongs_to_no_attempt_does_not_end_the_waiting() {
    let agent = Agent::new();
    let sandbox = Sandbox::start(&agent);
    agent.succeeds(&["provider", "add", "google", "--sandbox", &sandbox.origin]);
    let mut connecting =
        Running::start(agent.command(&["connect", "google", "--user", "alice", "--scope", "a", "--yes"]));
    let address = connecting.line_with("http://");
    let (_, redirect) = address.split_once("redirect_uri=").unwrap();
    let redirect = redirect.split('&').next().unwrap().replace("%3A", ":").replace("%2F", "/");
    for forged in ["?code=a&state=forged", "?state=", "", "?error=access_denied&state=forged"] {
        assert!(get(&format!("{redirect}{forged}")).contains("was not taken"), "{forged}");
    }
    assert!(connecting.process.try_wait().unwrap().is_none(), "it still waits");
    connecting.process.kill().unwrap();
    connecting.process.wait().unwrap();
}

#[test]
fn grants_and_revocations_at_the_same_time_lose_nothing() {
    let agent = Agent::new();
    agent.succeeds(&["skill", "add", skills().join("gmail-send").to_str().unwrap()]);
    let users: Vec<_> = (0..6).map(|n| format!("user{n}")).collect();
    let all = |verb: &str| {
        let running: Vec<_> =
            users.iter().map(|user| Running::start(agent.command(&[verb, "gmail-send", "--user", user]))).collect();
        for mut command in running {
            assert!(command.process.wait().unwrap().success());
        }
        std::fs::read_to_string(agent.folder().join("permissions.toml")).unwrap()
    };
    let granted = all("grant");
    assert!(users.iter().all(|user| granted.contains(&format!("\"{user}\""))), "{granted}");
    let revoked = all("revoke");
    assert!(!revoked.contains("user"), "{revoked}");
}

#[test]
fn revoking_what_was_never_granted_is_an_error_that_names_what_was() {
    let agent = Agent::new();
    agent.succeeds(&["skill", "add", skills().join("gmail-send").to_str().unwrap()]);
    agent.succeeds(&["grant", "gmail-send", "--user", "alice"]);
    assert!(agent.fails(&["revoke", "gmail-snd", "--user", "alice"], 1).contains("gmail-send"));
    assert!(agent.fails(&["revoke", "gmail-send", "--user", "bob"], 1).contains("alice"));
    let service = agent.fails(&["revoke", "gmail-send", "--user", "alice", "--service", "gmial"], 1);
    assert!(service.contains("did you mean gmail?\nservices granted to it: gmail"), "{service}");
    agent.succeeds(&["skill", "remove", "gmail-send"]);
    agent.succeeds(&["revoke", "gmail-send", "--user", "alice"]);
}

#[test]
fn access_that_a_revocation_can_not_take_away_is_an_error_with_the_lines_that_would() {
    let agent = Agent::new();
    agent.succeeds(&["skill", "add", skills().join("gmail-send").to_str().unwrap()]);
    agent.succeeds(&["grant", "gmail-send", "--user", "bob"]);
    let file = agent.folder().join("permissions.toml");
    let everybody = std::fs::read_to_string(&file).unwrap().replace("\"bob\"", "\"*\"");
    std::fs::write(&file, &everybody).unwrap();
    let revoke = ["revoke", "gmail-send", "--user", "bob"];
    let said = agent.fails(&revoke, 1);
    assert!(said.contains("is still granted to bob, by ") && said.contains("permissions.toml:4; "), "{said}");
    let answer = agent.json(&revoke, 1);
    let lines = answer["error"]["forbid"].as_str().unwrap();
    assert!(said.contains(lines), "{said}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), everybody);

    std::fs::write(&file, format!("{everybody}\n{lines}")).unwrap();
    assert!(agent.succeeds(&revoke).contains("forbids it"));
    let denied = agent.succeeds(&["policy", "explain", "--skill", "gmail-send", "--user", "bob"]);
    assert!(denied.contains("forbid"), "{denied}");
    let misspelled = everybody.replace("gmail-send", "gmail-sent");
    std::fs::write(&file, misspelled).unwrap();
    let checked = agent.run(&["policy", "check"]);
    let warning = text(&checked.stderr);
    assert!(warning.contains("no skill `gmail-sent` is installed"), "{warning}");
}

#[test]
fn arguments_that_are_not_understood_are_an_error_object_for_programs_too() {
    let agent = Agent::without_home();
    for words in [&["connections", "lsit"][..], &["grant"], &["connections", "show", "7"], &[]] {
        let answer = agent.json(words, 2);
        assert_eq!(answer["error"]["code"], "usage", "{words:?}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(!message.starts_with("error") && !message.contains("ConnectionId"), "{message}");
    }
    assert!(agent.run(&["grant"]).stdout.is_empty(), "people are told on stderr alone");
}

#[test]
fn outputs_that_are_closed_cause_no_panic() {
    let agent = Agent::new();
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    let ends = |arguments: &[&str]| agent.command(arguments).stdout(closed()).stderr(closed()).status().unwrap().code();
    assert_eq!(ends(&["completions", "bash"]), Some(0), "the reader has what it wanted");
    assert_eq!(ends(&["provider", "list"]), Some(0));
    assert_eq!(ends(&["doctor", "-vvv"]), Some(0), "a log that nobody reads ends nothing");
    assert_eq!(ends(&["skill", "inspect", "nowhere.wasm"]), Some(1), "an error stays one");
    std::fs::write(agent.folder().join("permissions.toml"), "[[grant]\n").unwrap();
    assert_eq!(ends(&["doctor"]), Some(1), "what is broken stays so");
}

#[test]
fn what_is_logged_into_a_file_has_no_colours() {
    let output = Agent::new().command(&["doctor", "-vvv"]).env_remove("NO_COLOR").output().unwrap();
    canary::keep("command", &output.stderr);
    let logged = text(&output.stderr);
    assert!(logged.contains(" DEBUG ") && !logged.contains('\x1b'), "{logged}");
}

#[test]
fn a_component_that_got_damaged_is_found_by_the_doctor() {
    let agent = Agent::new();
    agent.succeeds(&["skill", "add", skills().join("gmail-send").to_str().unwrap()]);
    agent.succeeds(&["doctor"]);
    std::fs::write(agent.folder().join("skills/gmail-send/component.wasm"), "garbage").unwrap();
    let findings = agent.json(&["doctor"], 1);
    let bad: Vec<_> = findings["findings"].as_array().unwrap().iter().filter(|one| one["health"] == "bad").collect();
    assert_eq!(bad.len(), 1, "{findings}");
    assert_eq!(bad[0]["about"], "skills");
    assert!(bad[0]["text"].as_str().unwrap().contains("gmail-send can't be used"), "{findings}");
    assert!(
        agent
            .fails(&[&["run"], &MAIL[..], &["--user", "alice"]].concat(), 1)
            .contains("the skill gmail-send can't be compiled")
    );
}

#[test]
fn what_is_removed_leaves_warnings_and_no_errors() {
    let agent = Agent::new();
    let author = tempfile::tempdir().unwrap();
    let file = |name: &str| author.path().join(name);
    std::fs::copy(skills().join("gmail-send/component.wasm"), file("component.wasm")).unwrap();
    let manifest = std::fs::read_to_string(skills().join("gmail-send/skill.toml")).unwrap();
    std::fs::write(file("skill.toml"), manifest.replace("\"google\"", "\"acme\"")).unwrap();
    let entry = "[provider.acme]\nname = \"Acme\"\nauthorize = \"https://acme.example/authorize\"\n\
                 token = \"https://acme.example/token\"\napi-origins = [\"https://gmail.googleapis.com\"]\n";
    std::fs::write(file("acme.toml"), entry).unwrap();

    // An entry without a client is not ready, and says what is missing.
    let add = ["provider", "add", "acme", "--file", file("acme.toml").to_str().unwrap()].map(str::to_owned);
    let added = agent.succeeds(&add.each_ref().map(String::as_str));
    assert!(!added.contains("ready") && added.contains("clawcoil provider add acme --client-id ID"), "{added}");

    agent.succeeds(&["skill", "add", author.path().to_str().unwrap()]);
    agent.succeeds(&["grant", "gmail-send", "--user", "alice"]);
    assert!(agent.succeeds(&["policy", "check"]).starts_with("In order"));
    for remove in [["provider", "remove", "acme"], ["skill", "remove", "gmail-send"]] {
        agent.succeeds(&remove);
        let checked = agent.run(&["policy", "check"]);
        assert_eq!(checked.status.code(), Some(0), "{remove:?}");
        let told = text(&checked.stderr);
        assert!(told.contains("warning: ") && !told.contains("error"), "{told}");
        assert_eq!(agent.json(&["policy", "check"], 0)["warnings"].as_array().unwrap().len(), 1);
        assert!(agent.succeeds(&["doctor"]).contains("warning: "));
    }
}

#[test]
fn a_skill_that_wants_the_token_itself_gets_it_only_where_that_is_said() {
    let agent = Agent::new();
    agent.succeeds(&["skill", "add", skills().join("signed-webhook").to_str().unwrap()]);
    let provider = concat!(env!("CARGO_MANIFEST_DIR"), "/../skills-examples/signed-webhook/provider.toml");
    agent.succeeds(&["provider", "add", "webhook", "--file", provider]);
    agent.fails_usage(&["grant", "signed-webhook", "--user", "alice"], "--use reveal");
    let granted = agent.succeeds(&["grant", "signed-webhook", "--user", "alice", "--use", "reveal"]);
    assert!(granted.contains("use = \"reveal\"") && !granted.contains("already"), "{granted}");

    // Less than what is granted takes nothing back, which is said.
    let narrower = ["grant", "signed-webhook", "--user", "alice", "--use", "inject"];
    let told = agent.succeeds(&narrower);
    assert!(told.contains("the skill may see the token") && told.contains("stays as it is"), "{told}");
    let revoke = ["revoke", "signed-webhook", "--user", "alice", "--service", "receiver"];
    assert!(told.contains(&format!("`clawcoil {}` first", revoke.join(" "))), "{told}");
    agent.succeeds(&revoke);
    let told = agent.succeeds(&narrower);
    assert!(told.contains("use = \"inject\"") && !told.contains("already"), "{told}");
}

#[test]
fn what_a_grant_gives_only_in_part_is_not_called_granted() {
    let agent = Agent::new();
    let permissions = agent.folder().join("permissions.toml");
    agent.succeeds(&["skill", "add", skills().join("gmail-send").to_str().unwrap()]);
    let plain = ["grant", "gmail-send", "--user", "alice"];
    let bounded = |more: &[&'static str]| [&plain[..], more].concat();
    let before = std::fs::read_to_string(&permissions).unwrap();
    for bounds in [&["--account", "work"][..], &["--rate", "2/min"], &["--expires", "2999-12-30"]] {
        std::fs::write(&permissions, &before).unwrap();
        let told = agent.succeeds(&bounded(bounds));
        assert!(told.contains("[[grant]]") && !told.contains("already"), "{told}");
        // The same again is there; all of it is not.
        assert!(agent.succeeds(&bounded(bounds)).contains("stays as it is"), "{bounds:?}");
        let told = agent.succeeds(&plain);
        assert!(told.contains("[[grant]]") && !told.contains("already") && !told.contains("add up"), "{told}");
        assert!(agent.succeeds(&plain).contains("stays as it is"));
        let told = agent.succeeds(&bounded(bounds));
        assert!(told.contains("Grants add up") && told.contains("stays as it is"), "{told}");
    }
    // Fewer in a day are more at once.
    std::fs::write(&permissions, &before).unwrap();
    agent.succeeds(&bounded(&["--rate", "2/min"]));
    assert!(agent.succeeds(&bounded(&["--rate", "100/h"])).contains("[[grant]]"));
    assert!(agent.succeeds(&bounded(&["--rate", "1/min"])).contains("stays as it is"));
    // A hand-written one that lets the token go nowhere, or for one program alone.
    for line in
        ["clients = [\"cli\"]", "request = [{ origin = \"https://gmail.googleapis.com\", methods = [\"GET\"] }]"]
    {
        std::fs::write(&permissions, &before).unwrap();
        agent.succeeds(&plain);
        let narrow = std::fs::read_to_string(&permissions).unwrap().replace("use = ", &format!("{line}\nuse = "));
        std::fs::write(&permissions, narrow).unwrap();
        assert!(agent.succeeds(&plain).contains("[[grant]]"), "{line}");
    }
    let both = agent.fails(&bounded(&["--as-agent"]), 1);
    assert!(both.contains("both as the user and as the agent"), "{both}");
}

#[test]
fn a_provider_that_nobody_knows_is_named_with_what_adds_it_and_no_grant_is_written_twice() {
    let agent = Agent::new();
    agent.succeeds(&["skill", "add", skills().join("signed-webhook").to_str().unwrap()]);
    let grant = ["grant", "signed-webhook", "--user", "alice", "--use", "reveal"];
    agent.succeeds(&grant);
    let told = agent.succeeds(&grant);
    assert!(told.contains("provider add webhook") && told.contains("stays as it is"), "{told}");
    let explained = agent.run(&["policy", "explain", "--skill", "signed-webhook", "--user", "alice"]);
    let explained = format!("{}{}", text(&explained.stdout), text(&explained.stderr));
    assert!(explained.contains("provider add webhook") && !explained.contains("[[grant]]\n"), "{explained}");
}

#[test]
fn a_home_that_others_can_look_into_is_noted_by_the_doctor() {
    use std::os::unix::fs::PermissionsExt as _;
    let agent = Agent::new();
    assert!(!agent.succeeds(&["doctor"]).contains("chmod 700"));
    std::fs::set_permissions(agent.folder(), std::fs::Permissions::from_mode(0o750)).unwrap();
    assert!(agent.succeeds(&["doctor"]).contains("chmod 700"));
}

#[test]
fn a_grant_that_could_give_nothing_is_refused() {
    let agent = Agent::new();
    agent.succeeds(&["skill", "add", skills().join("gmail-send").to_str().unwrap()]);
    let permissions = || std::fs::read_to_string(agent.folder().join("permissions.toml")).unwrap();
    let before = permissions();
    let over = agent.fails(&["grant", "gmail-send", "--user", "alice", "--expires", "2020-01-31"], 2);
    assert!(over.contains("2020-01-31 is over"), "{over}");
    let more = agent.fails(&["grant", "gmail-send", "--user", "alice", "--use", "reveal"], 2);
    assert!(more.contains("declares use = \"inject\""), "{more}");
    assert_eq!(permissions(), before);
    agent.succeeds(&["grant", "gmail-send", "--user", "alice", "--expires", "9999-12-30", "--use", "inject"]);
}

#[test]
fn a_skill_that_asks_for_nothing_needs_no_grant_and_nobody_is_sent_to_make_one() {
    let agent = Agent::new();
    let added = agent.succeeds(&["skill", "add", skills().join("dice").to_str().unwrap()]);
    assert!(added.contains("clawcoil run dice") && !added.contains("clawcoil grant"), "{added}");
    let refused = agent.fails(&["grant", "dice", "--user", "alice"], 2);
    assert!(refused.contains("dice asks for nothing, so it needs no grant"), "{refused}");
    let refused = agent.fails(&["grant", "dice", "--user", "alice", "--service", "mail"], 2);
    assert!(refused.contains("declares no service mail"), "{refused}");
}

#[test]
fn the_console_is_looked_for_where_the_server_listens() {
    let agent = Agent::new();
    std::fs::write(agent.folder().join("serve.toml"), "listen = \"127.0.0.1:1\"\n").unwrap();
    let shown = agent.run(&["console", "--print"]);
    assert!(text(&shown.stdout).contains("http://127.0.0.1:1/sign-in/link/"), "{}", text(&shown.stdout));
    assert!(text(&shown.stderr).contains("start `clawcoil serve`"), "{}", text(&shown.stderr));
    // Whether somebody else's server is up can't be told from here.
    let elsewhere = agent.run(&["console", "--print", "--url", "https://192.0.2.1"]);
    assert!(!text(&elsewhere.stderr).contains("Nothing listens"), "{}", text(&elsewhere.stderr));
}

#[test]
fn an_error_in_a_file_is_called_one_once() {
    let agent = Agent::new();
    std::fs::write(agent.folder().join("permissions.toml"), "[[grant]\n").unwrap();
    let told = agent.fails(&["policy", "check"], 1);
    assert!(!told.contains("error: error:"), "{told}");
    let findings = agent.json(&["doctor"], 1);
    assert_eq!(findings.to_string().matches("permissions.toml:1").count(), 1, "{findings}");
}

#[test]
fn a_lost_identity_is_replaced_with_the_recovery_key_and_with_nothing_else() {
    use clawcoil::identity::Recovery;
    let (recovery, key) = Recovery::generate();
    canary::plant(canary::Kind::RecoveryKey, key.expose().as_bytes());
    let agent = Agent::without_home();
    assert!(agent.fails(&["recover"], 1).contains("there is no vault in "));
    agent.succeeds(&["init", "--recovery-to", &recovery.recipient().unwrap()]);
    let file = |name: &str| agent.folder().join(name);
    // While the identity is there, nothing is to be recovered.
    agent.fails(&["recover"], 1);
    std::fs::remove_file(file("identity.key")).unwrap();
    std::fs::remove_file(file("identity.pem")).unwrap();
    let recover = |secret: &str| {
        let mut process = agent.command(&["recover"]).stdin(Stdio::piped()).spawn().unwrap();
        process.stdin.take().unwrap().write_all(secret.as_bytes()).unwrap();
        said(process.wait_with_output().unwrap())
    };
    let (_, foreign) = Recovery::generate();
    assert_eq!(recover(&foreign.expose()).status.code(), Some(1));
    assert!(!file("identity.key").exists(), "an identity that opens nothing stays");
    // In a file with comments, as `age-keygen` writes it.
    let done = recover(&format!("# created: 2026-11-24\n# public key: age1…\n{}\n", key.expose().as_str()));
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    assert!(!text(&done.stdout).contains(key.expose().as_str()));
    agent.succeeds(&["doctor"]);
    agent.succeeds(&["audit", "verify"]);
    let told = agent.succeeds(&["audit", "tail", "--kind", "recovered"]);
    assert!(told.contains("the vault was given to sha256:"), "{told}");
}
