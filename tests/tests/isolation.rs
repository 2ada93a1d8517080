//! Many users of one skill at the same time: what is one user's stays with that user.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends where something is not as it should be"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use clawcoil::audit::{self, EventKind, Filter};
use clawcoil::host::{InvokeError, Outcome};
use clawcoil::id::Caller;
use clawcoil::runtime::End;
use clawcoil_tests::guest::PROBE_GRANT;
use clawcoil_tests::{GuestAgent, Seen, Upstream};
use serde_json::{Value, json};

const MANIFEST: &str = "\
[skill]
name = \"probe\"
version = \"0.1.0\"
description = \"Try what it is told\"
[[service]]
name = \"github\"
provider = \"github\"
scopes = [\"repo\"]
reason = \"to test\"
[[service.request]]
origin = \"https://api.github.com\"
";

const USERS: [&str; 2] = ["alice", "bob"];
const AT_ONCE: usize = 16;

/// How many calls there are: more where the run is to prove something.
#[expect(clippy::disallowed_methods, reason = "how much is tried is for the run to say, not for a clock")]
fn calls() -> usize {
    if std::env::var_os("CLAWCOIL_PROVE").is_some() { 200_000 } else { 10_000 }
}

fn token(user: &str) -> String {
    format!("isolated-canary-7Hq2-{user}")
}

/// Whose token a request carries.
fn carried(request: &Seen) -> Option<&'static str> {
    USERS.into_iter().find(|user| request.authorization() == Some(&format!("Bearer {}", token(user))))
}

async fn agent(server: &Upstream) -> GuestAgent {
    let stand_in = format!("[provider.github.override]\n\"https://api.github.com\" = \"{}\"\n", server.origin());
    GuestAgent::new("probe", MANIFEST, PROBE_GRANT, &stand_in, &[]).await
}

async fn connect(agent: &GuestAgent, user: &str, account: &str) {
    agent.connect_account(user, account, "github", &["repo"], &token(user)).await;
}

async fn call(agent: &GuestAgent, user: &str, tool: &str, input: &Value) -> Result<Outcome, InvokeError> {
    let caller = Caller::new("tests".parse().unwrap(), user.parse().unwrap());
    agent.host.invoke(&caller, &"probe".parse().unwrap(), Some(tool), input).await
}

/// One call for a user, whose request says in its path for whom it should be; every other call uses a placeholder.
async fn one(agent: &GuestAgent, number: usize) {
    let user = USERS[number % USERS.len()];
    let url = format!("https://api.github.com/for/{user}");
    let outcome = if (number / USERS.len()).is_multiple_of(2) {
        let input = json!({ "method": "GET", "url": url, "headers": [], "body": "" });
        call(agent, user, "fetch", &input).await
    } else {
        let input = json!({
            "service": "github", "method": "POST", "url": url, "body": "{}",
            "header": ["authorization", "Bearer {placeholder}"],
        });
        call(agent, user, "placeholder", &input).await
    };
    let outcome = outcome.unwrap_or_else(|error| panic!("call {number}: {error}"));
    let End::Value(answer) = outcome.end else { panic!("call {number}: {:?}", outcome.end) };
    assert_eq!(answer["body"], json!(user), "call {number} for {user} was answered for another");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_ten_thousand_interleaved_requests_carries_the_token_of_its_own_user() {
    let server = Upstream::start(|request| (200, carried(request).unwrap_or("nobody").to_owned())).await;
    let agent = Arc::new(agent(&server).await);
    for user in USERS {
        connect(&agent, user, "default").await;
    }
    let calls = calls();
    let next = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (agent, next) = (Arc::clone(&agent), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= calls {
                        return;
                    }
                    one(&agent, number).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let requests = server.requests();
    assert_eq!(requests.len(), calls);
    for user in USERS {
        let path = format!("/for/{user}");
        let own: Vec<_> = requests.iter().filter(|request| request.path == path).collect();
        assert_eq!(own.len(), calls / USERS.len(), "{user}");
        for request in own {
            assert_eq!(request.authorization(), Some(format!("Bearer {}", token(user)).as_str()), "for {user}");
        }
        let filter = Filter { user: Some(user.parse().unwrap()), kind: Some(EventKind::Released), ..Filter::default() };
        let log = audit::read(&agent.host.home().audit(), &agent.host.vault().audit_key(), &filter).unwrap();
        assert_eq!(log.len(), calls / USERS.len(), "one entry for each release of {user}");
    }
}

#[tokio::test]
async fn a_user_without_an_account_gets_nobody_elses() {
    let server = Upstream::plain().await;
    let agent = agent(&server).await;
    connect(&agent, "alice", "default").await;
    let input = json!({ "method": "GET", "url": "https://api.github.com/user", "headers": [], "body": "" });
    let refused = call(&agent, "bob", "fetch", &input).await;
    assert!(matches!(refused, Err(InvokeError::ActionRequired(_))), "{refused:?}");
    server.assert_untouched().await;
}

#[tokio::test]
async fn an_account_of_another_user_is_refused_in_the_words_for_one_that_nobody_has() {
    let server = Upstream::plain().await;
    let agent = agent(&server).await;
    connect(&agent, "alice", "work").await;
    connect(&agent, "bob", "home").await;
    let mut words = Vec::new();
    for account in ["work", "none"] {
        let input = json!({ "service": "github", "scopes": [], "account": account });
        let outcome = call(&agent, "bob", "ask", &input).await.unwrap();
        let End::ToolError(Value::String(text)) = outcome.end else { panic!("bob got {:?}", outcome.end) };
        words.push(text.replace(account, "ACCOUNT"));
    }
    assert_eq!(words[0], words[1], "bob's skill learns which accounts alice has");
    let own = call(&agent, "alice", "ask", &json!({ "service": "github", "scopes": [], "account": "work" })).await;
    assert!(matches!(own.unwrap().end, End::Value(_)));
}
