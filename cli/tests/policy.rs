//! What an operator does with a policy: tests it, compares it, learns what a skill needs.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

struct Agent(tempfile::TempDir);

const MANIFEST: &str = "\
[skill]
name = \"mail\"
version = \"1.0.0\"
description = \"Send mail\"
[[service]]
name = \"gmail\"
provider = \"google\"
scopes = [\"https://www.googleapis.com/auth/gmail.send\"]
request = [{ origin = \"https://gmail.googleapis.com\", methods = [\"POST\"] }]
";

impl Agent {
    /// A folder with permissions and a manifest, and without an agent: tests of permissions need none.
    fn with_permissions(permissions: &str) -> Self {
        let agent = Self(tempfile::tempdir().unwrap());
        fs::create_dir(agent.folder()).unwrap();
        agent.write("permissions.toml", permissions);
        agent.write("skill.toml", MANIFEST);
        agent
    }

    fn folder(&self) -> PathBuf {
        self.0.path().join("agent")
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder().join(name), text).unwrap();
    }

    fn run(&self, arguments: &[&str], code: i32) -> (String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_clawcoil"));
        command.arg("--home").arg(self.folder()).args(arguments).env_remove("RUST_LOG").stdin(Stdio::null());
        let Output { status, stdout, stderr } = command.current_dir(self.folder()).output().unwrap();
        let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
        assert_eq!(status.code(), Some(code), "{arguments:?}: {stderr}{stdout}");
        (stdout, stderr)
    }

    fn json(&self, arguments: &[&str], code: i32) -> Value {
        serde_json::from_str(&self.run(&[arguments, &["--json"]].concat(), code).0).unwrap()
    }
}

fn grant(users: &str) -> String {
    format!(
        "[[grant]]\nskill = \"mail\"\ndigest = \"sha256:{}\"\nusers = [{users}]\nservice = \"gmail\"\nprovider = \"google\"\n\
         scopes = [\"https://www.googleapis.com/auth/gmail.send\"]\n",
        "0".repeat(64)
    )
}

const CASES: &str = "\
[[case]]
name = \"alice may send\"
manifest = \"skill.toml\"
user = \"alice\"
service = \"gmail\"
method = \"POST\"
url = \"https://gmail.googleapis.com/gmail/v1/users/me/messages/send\"
expect = \"allowed\"

[[case]]
name = \"and may not read\"
manifest = \"skill.toml\"
user = \"alice\"
service = \"gmail\"
url = \"https://gmail.googleapis.com/gmail/v1/users/me/messages\"
expect = \"denied\"

[[case]]
manifest = \"skill.toml\"
user = \"bob\"
expect = \"denied\"
";

#[test]
fn cases_that_are_answered_as_expected_end_with_0_and_others_with_1_and_the_explanation() {
    let agent = Agent::with_permissions(&grant("\"alice\""));
    agent.write("permissions.test.toml", CASES);
    let (passed, _) = agent.run(&["policy", "test"], 0);
    assert!(passed.contains("alice may send") && passed.contains("3 as expected, 0 not"), "{passed}");

    agent.write("permissions.toml", &grant("\"alice\", \"bob\""));
    let (failed, stderr) = agent.run(&["policy", "test"], 1);
    assert!(failed.contains("permissions.test.toml:18: skill.toml for bob"), "{failed}");
    assert!(failed.contains("expected to be denied, and is allowed") && stderr.is_empty(), "{failed}{stderr}");

    // Before they are saved: other permissions, the same cases.
    agent.write("new.toml", "");
    let report = agent.json(&["policy", "test", "permissions.test.toml", "--permissions", "new.toml"], 1);
    assert_eq!((&report["passed"], &report["failed"]), (&2.into(), &1.into()));
    let case = &report["cases"][0];
    assert_eq!((&case["name"], &case["line"], &case["allowed"]), (&"alice may send".into(), &1.into(), &false.into()));
    assert!(case["denial"]["allow"][0]["lines"].as_str().unwrap().contains("[[grant]]"), "{case}");
}

#[test]
fn cases_with_errors_and_no_cases_at_all_are_errors_with_the_way_out() {
    let agent = Agent::with_permissions("");
    assert!(agent.run(&["policy", "test"], 1).1.contains("policy test --help"));
    agent.write("a.toml", "[[case]]\nuser = \"alice\"\nskil = \"mail\"\nexpect = \"denied\"\n");
    agent.write("b.toml", "[[case]]\nuser = \"alice\"\nskill = \"mail\"\nexpect = \"denied\"\n");
    let (_, errors) = agent.run(&["policy", "test", "a.toml", "b.toml"], 1);
    for part in ["a.toml:3:1", "did you mean `skill`?", "b.toml:3:9", "no skill `mail` is installed"] {
        assert!(errors.contains(part), "{part} is not in:\n{errors}");
    }
}

impl Agent {
    /// The skill is there as an installed one is; nothing here runs it.
    fn install(&self) -> String {
        let folder = self.folder().join("skills/mail");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("skill.toml"), MANIFEST).unwrap();
        fs::write(folder.join("component.wasm"), "not compiled").unwrap();
        let listed = self.json(&["skill", "list"], 0);
        listed["skills"][0]["digest"].as_str().unwrap().to_owned()
    }
}

#[test]
fn a_difference_is_told_before_the_permissions_are_saved_and_wording_makes_none() {
    let agent = Agent::with_permissions("");
    let digest = agent.install();
    let granted = |users: &str| grant(users).replace(&format!("sha256:{}", "0".repeat(64)), &digest);
    agent.write("permissions.toml", &granted("\"alice\", \"bob\""));
    let forbid = "[[forbid]]\nusers = [\"bob\"]\nprovider = \"google\"\n";
    agent.write("new.toml", &format!("{}{forbid}", granted("\"alice\", \"bob\", \"team:*\"")));
    let (text, _) = agent.run(&["policy", "diff", "new.toml"], 0);
    let reach = "    scope https://www.googleapis.com/auth/gmail.send\n    POST https://gmail.googleapis.com\n";
    let expected = format!(
        "allows more:\n  mail, service gmail, for team:*\n{reach}allows less:\n  mail, service gmail, for bob\n{reach}"
    );
    assert_eq!(text, expected);
    agent.run(&["policy", "diff", "new.toml", "--no-more"], 1);
    agent.write("only-less.toml", &granted("\"alice\""));
    let report = agent.json(&["policy", "diff", "only-less.toml", "--no-more"], 0);
    assert_eq!((&report["more"], &report["less"][0]["users"][0]), (&serde_json::json!([]), &"bob".into()));

    agent.write("reworded.toml", &format!("# In other words.\n{}\n{}", granted("\"bob\""), granted("\"alice\"")));
    assert_eq!(agent.run(&["policy", "diff", "reworded.toml"], 0).0, "allows the same\n");
    assert!(agent.run(&["policy", "diff"], 1).1.contains("no policy has been in force yet"));
    assert!(agent.run(&["policy", "diff", "sha256:12"], 1).1.contains("none of the policies"));
    agent.write("broken.toml", "[[grant]]\nskil = \"mail\"\n");
    assert!(agent.run(&["policy", "diff", "broken.toml"], 1).1.contains("did you mean `skill`?"));
}

#[test]
fn a_difference_with_a_new_version_is_what_approving_it_would_come_to() {
    let agent = Agent::with_permissions("");
    let digest = agent.install();
    let scopes = "\"https://www.googleapis.com/auth/gmail.send\", \"https://mail.google.com/\"";
    let granted = grant("\"alice\"").replace(&format!("sha256:{}", "0".repeat(64)), &digest);
    agent.write("permissions.toml", &granted.replace("\"https://www.googleapis.com/auth/gmail.send\"", scopes));
    let author = agent.0.path().join("author");
    fs::create_dir(&author).unwrap();
    fs::write(author.join("mail.wasm"), "new code").unwrap();
    fs::write(author.join("skill.toml"), MANIFEST.replace("\"https://www.googleapis.com/auth/gmail.send\"", scopes))
        .unwrap();
    let (text, _) = agent.run(&["policy", "diff", "--skill", author.to_str().unwrap()], 0);
    assert_eq!(text, "allows more:\n  mail, service gmail, for alice\n    scope https://mail.google.com/\n");
}

/// The built example skills.
fn skills() -> PathBuf {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("target/skills");
    assert!(folder.join("gmail-send").is_dir(), "the skills are not built: run `cargo xtask build-skills`");
    folder
}

/// An agent with gmail-send, and nothing granted.
fn with_gmail_send() -> Agent {
    let agent = Agent(tempfile::tempdir().unwrap());
    fs::create_dir(agent.folder()).unwrap();
    agent.run(&["init", "--no-recovery"], 0);
    agent.run(&["skill", "add", skills().join("gmail-send").to_str().unwrap()], 0);
    agent
}

#[test]
fn learning_shows_the_least_that_is_to_be_granted_and_grants_nothing() {
    let agent = with_gmail_send();
    let permissions = fs::read_to_string(agent.folder().join("permissions.toml")).unwrap();
    let learn =
        ["policy", "learn", "gmail-send", "send", "--user", "alice", "to=bob@example.com", "subject=Hi", "body=Hello"];
    let lesson = agent.json(&learn, 0);
    let grants = lesson["grants"].as_str().unwrap();
    let path = "paths = [\"/gmail/v1/users/me/messages/send\"]";
    assert!(grants.contains(path) && grants.contains("methods = [\"POST\"]"), "{lesson}");
    assert_eq!(fs::read_to_string(agent.folder().join("permissions.toml")).unwrap(), permissions);
    let send = ["run", "gmail-send", "send", "--user", "alice", "to=bob@example.com", "subject=Hi", "body=Hello"];
    agent.run(&send, 5);

    let (text, _) = agent.run(&learn, 0);
    assert!(text.contains("The least that allows it") && text.contains("Nothing was sent"), "{text}");
    agent.write("permissions.toml", &format!("{permissions}\n{grants}\n"));
    agent.run(&["policy", "check"], 0);
    assert_eq!(agent.json(&learn, 0)["grants"], "");
    // Granted, and nobody is connected.
    agent.run(&send, 4);
    let (log, _) = agent.run(&["audit", "tail", "--lines", "20"], 0);
    assert!(log.contains("only learns"), "{log}");
    agent.run(&["audit", "verify"], 0);
}
