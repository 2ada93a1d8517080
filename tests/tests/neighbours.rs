//! What an attack on the host's resources leaves for the others, with everything on one thread.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

use std::fs;
use std::pin::pin;

use clawcoil::host::{InvokeError, Outcome};
use clawcoil::id::Caller;
use clawcoil::runtime::End;
use clawcoil_tests::GuestAgent;
use serde_json::{Value, json};

const TOKEN: &str = "neighbours-canary-51xQ-token";
/// An attack that nothing else ends runs so long.
const SECONDS: u64 = 1;
/// What the process may keep, all that idle slots of the engine keep warm included.
const MOST_KEPT: u64 = 64 << 20;

fn manifest(skill: &str, use_: &str) -> String {
    format!(
        "[skill]\nname = \"{skill}\"\nversion = \"0.1.0\"\ndescription = \"Try what it is told\"\n\
         [[service]]\nname = \"service\"\nprovider = \"github\"\nscopes = [\"repo\"]\nuse = \"{use_}\"\nreason = \"to test\"\n\
         optional = true\n[[service.request]]\norigin = \"https://api.github.com\"\n"
    )
}

fn granted(skill: &str, use_: &str) -> String {
    format!(
        "[[grant]]\nskill = \"{skill}\"\napproval = \"none\"\nusers = [\"*\"]\nservice = \"service\"\n\
         provider = \"github\"\nscopes = [\"repo\"]\nuse = \"{use_}\"\n"
    )
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Must {
    /// Run until its time is over, while others are served.
    RunOut,
    /// Run into another bound.
    Limit,
    Trap,
    Fail,
    Value,
}

/// Every function of the guest `attacks`, and what must come of it.
fn attacks() -> Vec<(&'static str, Value, Must)> {
    vec![
        ("loop-forever", json!({}), Must::RunOut),
        ("spin-on-clock", json!({}), Must::RunOut),
        ("sleep", json!({ "milliseconds": 3_600_000 }), Must::RunOut),
        ("wait-for-token", json!({}), Must::Value),
        ("recurse-forever", json!({}), Must::Limit),
        ("grow-memory", json!({}), Must::Limit),
        ("return-text", json!({ "length": 16 << 20 }), Must::Limit),
        ("return-numbers", json!({ "count": 1 << 20 }), Must::Limit),
        ("flood-log", json!({ "lines": 5_000 }), Must::Value),
        ("flood-tokens", json!({ "count": 1_000_000 }), Must::Limit),
        ("hold-tokens", json!({ "count": 1_000_000 }), Must::Limit),
        ("hold-clocks", json!({ "count": 1_000_000 }), Must::Limit),
        ("take-random", json!({ "length": 1_u64 << 40 }), Must::Trap),
        ("panic", json!({ "message": "\u{1b}[2Jboo" }), Must::Trap),
        ("exit", json!({ "status": 3 }), Must::Trap),
        ("read-file", json!({ "path": "/etc/passwd" }), Must::Fail),
        ("list-folders", json!({}), Must::Value),
        ("read-environment", json!({}), Must::Value),
        ("read-input", json!({}), Must::Value),
        ("fetch", json!({ "authority": "api.test", "method": "GET", "header-name": "" }), Must::Fail),
        ("flood-requests", json!({ "count": 1_000_000 }), Must::Limit),
        ("reveal", json!({}), Must::Value),
        ("remember", json!({}), Must::Value),
    ]
}

fn resident() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size() as u64
}

async fn neighbour(agent: &GuestAgent) {
    let caller = Caller::new("tests".parse().unwrap(), "bob".parse().unwrap());
    let input = json!({ "text": "hello" });
    let outcome = agent.host.invoke(&caller, &"echo".parse().unwrap(), Some("echo"), &input).await;
    assert_eq!(outcome.unwrap().end, End::Value(json!("hello")));
    // A call can end without having waited for anything; the clock of the runtime has to get its turn too.
    tokio::task::yield_now().await;
}

/// The end of an attack, and how many calls of a neighbour ended while it ran.
async fn attacked(agent: &GuestAgent, tool: &str, input: &Value) -> (Result<Outcome, InvokeError>, usize) {
    let mut attack = pin!(agent.call(tool, input));
    let mut served = 0;
    loop {
        tokio::select! {
            end = &mut attack => return (end, served),
            () = neighbour(agent) => served += 1,
        }
    }
}

#[tokio::test]
async fn during_and_after_each_attack_the_neighbours_are_served_and_the_memory_comes_back() {
    let permissions =
        format!("[limits]\ntime = \"{SECONDS}s\"\n{}{}", granted("attacks", "reveal"), granted("echo", "inject"));
    let agent = GuestAgent::new("attacks", &manifest("attacks", "reveal"), &permissions, "", &[]).await;
    agent.install("echo", &manifest("echo", "inject"));
    agent.connect("github", &["repo"], TOKEN).await;

    let ready = agent.host.ready(&"attacks".parse().unwrap()).await.unwrap();
    let mut functions: Vec<_> = ready.component.tools().iter().map(|tool| tool.name().to_owned()).collect();
    let mut tried: Vec<_> = attacks().into_iter().map(|(tool, ..)| tool.to_owned()).collect();
    functions.sort_unstable();
    tried.sort_unstable();
    assert_eq!(functions, tried, "each function of the guest is tried");

    neighbour(&agent).await;
    let before = resident();
    for (tool, input, must) in attacks() {
        for _ in 0..3 {
            let (outcome, served) = attacked(&agent, tool, &input).await;
            let outcome = outcome.unwrap_or_else(|error| panic!("{tool}: {error}"));
            let came = match &outcome.end {
                End::Limit(_) if must == Must::RunOut => Must::RunOut,
                End::Limit(_) => Must::Limit,
                End::Trapped(_) => Must::Trap,
                End::ToolError(_) => Must::Fail,
                End::Value(_) => Must::Value,
            };
            assert_eq!(came, must, "{tool}: {:?}", outcome.end);
            assert!(must != Must::RunOut || served >= 10, "{tool}: only {served} calls of a neighbour ended beside it");
            assert!(!format!("{outcome:?}").contains(TOKEN), "{tool}: {outcome:?}");
            neighbour(&agent).await;
        }
        let kept = resident().saturating_sub(before);
        assert!(kept <= MOST_KEPT, "after {tool} the process keeps {} MiB more", kept >> 20);
    }
}
