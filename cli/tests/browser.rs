//! The pages in Chromium: what people see, press and hear. The scenarios are in `tests/browser`.
//!
//! The main path is played in every run; all of them with `CLAWCOIL_PROVE` (`cargo xtask prove browser`), which also names
//! with `CLAWCOIL_PICTURES` the folder for pictures of the pages.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "how much is played is said by the environment")]

mod served;

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use clawcoil::clock::{Clock, ManualClock, SystemClock};
use clawcoil::vault::Kind;
use clawcoil_tests::Agent;
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

/// A stage on which things have happened for most of an hour: accounts, calls that took long and not, refusals, a new version
/// that waits.
async fn lived_in() -> Stage {
    let began = SystemClock::new().now().checked_sub(Duration::from_mins(56)).unwrap();
    let clock = ManualClock::at(began);
    let life = async |agent: &Agent| {
        for user in ["alice", "bob", "team-sales/carol"] {
            agent.connect(user, "google", &[SEND]).await;
        }
        agent.connect_fixed("alice", "openweather", Kind::ApiKey, &[], "a key of the console's tests").await;
        for skill in ["weather", "github-issue", "signed-webhook"] {
            agent.host.registry().add(&skills::component(skill), None).unwrap();
        }
        let mail = json!({ "to": ["grace@example.com"], "subject": "Hi", "body": "Hello" });
        for minute in 0..55_u64 {
            for call in 0..(minute * 7 % 5 + minute % 3) {
                let user = ["alice", "bob", "team-sales/carol"][usize::try_from(call % 3).unwrap()];
                let took = Duration::from_millis(90 + minute * 37 % 240 + call * 31);
                let (outcome, ()) = tokio::join!(agent.call(user, "gmail-send", "send", &mail), async {
                    clock.advance(took);
                });
                outcome.unwrap();
            }
            if minute % 11 == 4 {
                agent.call("bob", "weather", "current", &json!({})).await.unwrap_err();
                agent.call("bob", "github-issue", "create", &json!({})).await.unwrap_err();
            }
            if minute % 17 == 9 {
                // A call that does not fit its tool is one that failed.
                let _ = agent.call("alice", "gmail-send", "send", &json!({ "to": 7 })).await;
            }
            // A minute must not pass within a refresh: it would look cut off.
            agent.host.broker().settle().await;
            let spent = clock.now().duration_since(began).unsigned_abs();
            clock.advance(Duration::from_mins(minute + 1).saturating_sub(spent));
        }
    };
    let clock: Arc<dyn Clock> = Arc::new(clock.clone());
    let stage = Stage::lived(SIGN_IN, &["--listen", "127.0.0.1:0"], clock, life).await;
    stage.propose(wants_more);
    stage
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_finds_everything_in_the_console_and_every_page_is_accessible() {
    play("console.mjs", "an operator looks around", &lived_in().await).await;
}
