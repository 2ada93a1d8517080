//! A running server and its permissions: what is saved is in force within a second, and what is broken changes nothing.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

/// An agent with gmail-send and nothing granted, served.
struct Served {
    folder: tempfile::TempDir,
    process: Child,
    address: String,
    token: String,
}

impl Served {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let run = |arguments: &[&str]| {
            let output = command(folder.path(), arguments).output().unwrap();
            assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        run(&["init", "--no-recovery"]);
        run(&["skill", "add", skills().join("gmail-send").to_str().unwrap()]);
        let created: Value =
            serde_json::from_str(&run(&["token", "create", "--agent", "bot", "--user", "alice", "--json"])).unwrap();
        let token = created["token"].as_str().unwrap_or_else(|| panic!("{created}")).to_owned();
        let mut process =
            command(folder.path(), &["serve", "--listen", "127.0.0.1:0", "--json", "-v"]).spawn().unwrap();
        let mut document = String::new();
        for line in BufReader::new(process.stdout.as_mut().unwrap()).lines() {
            let line = line.unwrap();
            document.push_str(&line);
            // The document ends with the brace at the beginning of a line.
            if line == "}" {
                break;
            }
        }
        let document: Value = serde_json::from_str(&document).unwrap();
        let address = document["listening"].as_str().unwrap().strip_prefix("http://").unwrap().to_owned();
        Self { folder, process, address, token }
    }

    fn permissions(&self) -> PathBuf {
        self.folder.path().join("agent/permissions.toml")
    }

    /// The kind of problem that a call meets.
    fn call(&self) -> String {
        let body = json!({
            "skill": "gmail-send", "tool": "send",
            "input": { "to": ["bob@example.com"], "subject": "Hi", "body": "Hello" },
        })
        .to_string();
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(
            stream,
            "POST /v1/invocations HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            self.token,
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let problem: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer}"));
        problem["type"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    /// Waits for another answer than before, a second at the most.
    fn within_a_second(&self, kind: &str) {
        let mut last = String::new();
        for _ in 0..50 {
            last = self.call();
            if last.ends_with(kind) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("after a second the answer is still {last}, not {kind}");
    }

    /// The entries about policies in the audit log: how each ended, and its rule.
    fn loaded(&self) -> Vec<(String, String)> {
        let output = command(self.folder.path(), &["audit", "tail", "--lines", "200", "--json"]).output().unwrap();
        let tail: Value = serde_json::from_slice(&output.stdout).unwrap();
        let entries = tail["entries"].as_array().unwrap_or_else(|| panic!("{tail}")).iter();
        let loaded = entries.filter(|entry| entry["kind"] == "policy-loaded");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        loaded.map(|entry| (text(&entry["decision"]), text(&entry["rule"]))).collect()
    }

    fn until_loaded(&self, count: usize) -> (String, String) {
        for _ in 0..50 {
            let loaded = self.loaded();
            if loaded.len() >= count {
                return loaded[count - 1].clone();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the log tells of {:?} only", self.loaded());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clawcoil"));
    command.arg("--home").arg(folder.join("agent")).args(arguments).env_remove("RUST_LOG").stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// The built example skills.
fn skills() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("target/skills");
    assert!(folder.join("gmail-send").is_dir(), "the skills are not built: run `cargo xtask build-skills`");
    folder
}

const GRANT: &str = "\
[[grant]]
skill = \"gmail-send\"
approval = \"none\"
users = [\"alice\"]
service = \"gmail\"
provider = \"google\"
scopes = [\"https://www.googleapis.com/auth/gmail.send\"]
";

#[test]
fn saved_permissions_are_in_force_within_a_second_and_broken_ones_leave_those_before() {
    let served = Served::start();
    assert!(served.call().ends_with("denied"));

    // Granted: the answer is that somebody has to connect.
    fs::write(served.permissions(), GRANT).unwrap();
    served.within_a_second("connection-needed");
    assert_eq!(served.until_loaded(1).0, "allowed");

    // Broken: what was granted stays, and the log says where the error is.
    fs::write(served.permissions(), "# broken\n\ngrants = 1\n").unwrap();
    let (decision, rule) = served.until_loaded(2);
    assert_eq!(decision, "failed");
    assert!(rule.ends_with("permissions.toml:3"), "{rule}");
    assert!(served.call().ends_with("connection-needed"));

    // Taken back.
    fs::write(served.permissions(), "").unwrap();
    served.within_a_second("denied");
    assert_eq!(served.until_loaded(3).0, "allowed");
}

#[test]
fn a_hangup_reads_the_permissions_again_and_ends_nothing() {
    let served = Served::start();
    let sent = Command::new("kill").args(["-HUP", &served.process.id().to_string()]).status().unwrap();
    assert!(sent.success());
    assert_eq!(served.until_loaded(1).0, "allowed", "nothing has changed, and it is read all the same");
    assert!(served.call().ends_with("denied"));
}
