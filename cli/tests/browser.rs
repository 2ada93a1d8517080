//! The pages in Chromium: what people see, press and hear. The scenarios are in `tests/browser`.
//!
//! The main path is played in every run; all of them with `CLAWCOIL_PROVE` (`cargo xtask prove browser`), which also names
//! with `CLAWCOIL_PICTURES` the folder for pictures of the pages.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "how much is played is said by the environment")]

mod served;

use std::io::Write as _;
use std::process::{Command, Stdio};

use clawcoil::vault::Kind;
use clawcoil_tests::skills::{self, root};
use serde_json::json;

use served::stage::{Stage, wants_more};

/// Plays scenarios of this script against a stage; `main` is the one that is played in every run.
async fn play(script: &str, main: &str, stage: &Stage) {
    let folder = root().join("tests/browser");
    assert!(
        folder.join("node_modules/playwright-core").is_dir(),
        "the packages of {} are not installed: `cargo xtask setup` installs them",
        folder.display()
    );
    let all = std::env::var_os("CLAWCOIL_PROVE").is_some();
    let settings = json!({
        "command": [env!("CARGO_BIN_EXE_clawcoil"), "--home", stage.home()],
        "origin": stage.served.origin.origin().ascii_serialization(),
        "provider": stage.provider.origin(),
        "token": stage.token,
        "tokens": { "bob": served::token(&stage.home(), "bot", "bob", &["connect"]) },
        "pictures": std::env::var("CLAWCOIL_PICTURES").ok(),
        "scenarios": if all { json!(null) } else { json!([main]) },
    });
    let mut node = Command::new("node")
        .arg(script)
        .current_dir(&folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(node.stdin.take().unwrap(), "{settings}").unwrap();
    let output = tokio::task::spawn_blocking(move || node.wait_with_output().unwrap()).await.unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{errors}");
    assert!(said.contains("passed "), "{said}{errors}");
    println!("{said}");
}

/// People may sign in at the same server at which their accounts are.
const SIGN_IN: &str = "[console]\nissuer = \"PROVIDER\"\nclient_id = \"console\"\noperators = [\"ops-*\"]\n";

const SEND: &str = "https://www.googleapis.com/auth/gmail.send";

#[tokio::test(flavor = "multi_thread")]
async fn a_person_connects_an_account_by_keyboard_and_every_page_is_accessible() {
    let stage = Stage::with(SIGN_IN, &["--listen", "127.0.0.1:0"]).await;
    play("connect.mjs", "connect by keyboard", &stage).await;
}

/// A stage on which things have happened: accounts that are well and not, calls, refusals, a new version that waits.
async fn lived_in() -> Stage {
    let stage = Stage::with(SIGN_IN, &["--listen", "127.0.0.1:0"]).await;
    for user in ["alice", "bob", "team-sales/carol"] {
        stage.agent.connect(user, "google", &[SEND]).await;
    }
    stage.agent.connect_fixed("alice", "openweather", Kind::ApiKey, &[], "a key of the console's tests").await;
    for skill in ["weather", "github-issue", "signed-webhook"] {
        stage.agent.host.registry().add(&skills::component(skill), None).unwrap();
    }
    let mail = json!({ "to": ["grace@example.com"], "subject": "Hi", "body": "Hello" });
    for _ in 0..12 {
        // Nothing answers where mail goes in these tests: such calls fail, and are shown as failed.
        let _ = stage.agent.call("alice", "gmail-send", "send", &mail).await;
    }
    for (skill, tool) in [("weather", "current"), ("github-issue", "create")] {
        let _ = stage.agent.call("bob", skill, tool, &json!({})).await;
    }
    stage.propose(wants_more);
    stage
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_finds_everything_in_the_console_and_every_page_is_accessible() {
    play("console.mjs", "an operator looks around", &lived_in().await).await;
}
