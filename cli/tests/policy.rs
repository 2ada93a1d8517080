//! What an operator does with a policy: tests it, compares it, learns what a skill needs.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

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
    assert!(failed.contains("FAILED permissions.test.toml:18: skill.toml for bob"), "{failed}");
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
