//! Which of a person's accounts a skill acts with where it names none, and what several grants come to.

#![expect(clippy::panic, reason = "a test ends where something is not as it should be")]

use std::sync::{Arc, OnceLock};

use clawcoil::broker::Reason;
use clawcoil::host::{Host, InvokeError};
use clawcoil::id::ConnectionId;
use clawcoil::runtime::End;
use clawcoil_tests::guest::{PROBE_GRANT, PROBE_MANIFEST};
use clawcoil_tests::{GuestAgent, Seen, Upstream};
use serde_json::{Value, json};

/// The probe's manifest, but that it does not start without an account.
fn manifest() -> String {
    PROBE_MANIFEST.replace("scopes = [\"repo\"]\noptional = true\n", "scopes = [\"repo\", \"gist\"]\n")
}

fn token(account: &str) -> String {
    format!("accounts-canary-7Rw-{account}")
}

/// Grants with these additional lines, in this order.
fn grants(more: &[&str]) -> String {
    let grant = |more: &&str| format!("{PROBE_GRANT}{more}\n");
    more.iter().map(grant).collect()
}

async fn agent(grants: &str, server: &Upstream) -> GuestAgent {
    agent_with(&manifest(), grants, server).await
}

async fn agent_with(manifest: &str, grants: &str, server: &Upstream) -> GuestAgent {
    let providers = format!("[provider.github.override]\n\"https://api.github.com\" = \"{}\"\n", server.origin());
    GuestAgent::new("probe", manifest, grants, &providers, &[]).await
}

async fn connect(agent: &GuestAgent, account: &str) -> ConnectionId {
    agent.connect_account("alice", account, "github", &["repo"], &token(account)).await
}

/// The account whose token a request carried.
fn carried(request: &Seen) -> String {
    request.authorization().and_then(|token| token.rsplit('-').next()).unwrap_or_default().to_owned()
}

/// Which account a request of the skill is made with under these grants, or which is missing before it starts.
async fn used(grants: &str, connected: &[&str]) -> Result<String, Option<String>> {
    let server = Upstream::plain().await;
    let agent = agent(grants, &server).await;
    for account in connected {
        connect(&agent, account).await;
    }
    let input = json!({ "method": "GET", "url": "https://api.github.com/user", "headers": [], "body": "" });
    match agent.call("fetch", &input).await {
        Ok(outcome) => {
            assert!(matches!(outcome.end, End::Value(_)), "{grants}{connected:?}: {:?}", outcome.end);
            Ok(server.requests().first().map(carried).unwrap_or_default())
        }
        Err(InvokeError::ActionRequired(actions)) => {
            Err(actions.first().and_then(|action| action.account.as_ref()).map(ToString::to_string))
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn where_no_account_is_named_the_one_that_the_grants_mean_first_and_that_is_connected_is_used() {
    let any = "";
    let of = |list: &str| format!("accounts = {list}");
    let (default, work, zoo, both) =
        (of("[\"default\"]"), of("[\"work\"]"), of("[\"zoo\"]"), of("[\"work\", \"club\"]"));
    let all = ["club", "default", "work", "zoo"];
    for (lines, connected, expected) in [
        (vec![any], &all[..], Ok("default")),
        // A grant for one account beside one for any changes nothing.
        (vec![any, &work], &all, Ok("default")),
        (vec![any, &work], &["zoo"], Ok("zoo")),
        // Where the default can't be told, the accounts that the other grants name are left.
        (vec![any, &work], &["club", "work"], Ok("work")),
        // Another account beside the default does not take its place.
        (vec![&default, &work], &all, Ok("default")),
        (vec![&default, &zoo], &all, Ok("default")),
        // A list is in the operator's order; several lists are in that of the alphabet.
        (vec![&both], &all, Ok("work")),
        (vec![&zoo, &both], &all, Ok("work")),
        // What is not connected is passed over, and nothing that is not granted is used instead.
        (vec![&both], &["club", "default"], Ok("club")),
        (vec![&work, &zoo], &["default", "zoo"], Ok("zoo")),
        (vec![&work, &zoo], &["default"], Err("work")),
    ] {
        let expected = expected.map(ToOwned::to_owned).map_err(|account| Some(account.to_owned()));
        assert_eq!(used(&grants(&lines), connected).await, expected, "{lines:?} {connected:?}");
        let turned: Vec<_> = lines.iter().rev().copied().collect();
        assert_eq!(used(&grants(&turned), connected).await, expected, "{turned:?} {connected:?}");
    }
}

#[tokio::test]
async fn each_account_is_asked_for_the_scopes_of_its_own_grants() {
    let other = grants(&["accounts = [\"club\"]"]).replace("scopes = [\"repo\"]\n", "scopes = [\"gist\"]\n");
    let server = Upstream::plain().await;
    let agent = agent(&format!("{other}{}", grants(&["accounts = [\"work\"]"])), &server).await;
    connect(&agent, "work").await;
    // The account that comes first is not there; the one that is needs no scope of the other's grant.
    let input = json!({ "method": "GET", "url": "https://api.github.com/user", "headers": [], "body": "" });
    let outcome = agent.call("fetch", &input).await.unwrap();
    assert!(matches!(outcome.end, End::Value(_)), "{:?}", outcome.end);
    assert_eq!(carried(&server.requests()[0]), "work");
}

#[tokio::test]
async fn an_account_that_lacks_a_scope_is_to_be_connected_again_also_where_requests_go_to_its_own_origin() {
    let manifest = manifest()
        .replace("\"https://api.github.com\"", "\"{api_origin}\"")
        .replace("reason =", "optional = true\nreason =");
    let wanted = grants(&[""]).replace("scopes = [\"repo\"]\n", "scopes = [\"repo\", \"gist\"]\n");
    let server = Upstream::plain().await;
    let agent = agent_with(&manifest, &wanted, &server).await;
    connect(&agent, "default").await;
    let input = json!({ "method": "GET", "url": "https://api.github.com/user", "headers": [], "body": "" });
    let outcome = agent.call("fetch", &input).await.unwrap();
    let words = format!("{:?}", outcome.end);
    assert!(matches!(outcome.end, End::ToolError(_)) && !words.contains("declare"), "{words}");
    assert_eq!(outcome.actions[0].reason, Reason::MissingScopes, "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_has_begun_with_one_account_does_not_go_on_with_another() {
    let ending: Arc<OnceLock<(Arc<Host>, ConnectionId)>> = Arc::default();
    let server = Upstream::start({
        let ending = Arc::clone(&ending);
        move |_| {
            let (host, id) = ending.get().unwrap();
            tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(host.connector().disconnect(*id)).unwrap()
            });
            (200, "{}".to_owned())
        }
    })
    .await;
    let agent = agent(&grants(&["accounts = [\"default\", \"work\"]"]), &server).await;
    let default = connect(&agent, "default").await;
    connect(&agent, "work").await;
    assert!(ending.set((Arc::clone(&agent.host), default)).is_ok());
    let input = json!({ "method": "GET", "url": "https://api.github.com/user" });
    let outcome = agent.call("fetch-twice", &input).await.unwrap();
    let End::Value(Value::Array(ends)) = outcome.end else { panic!("{:?}", outcome.end) };
    assert_eq!(ends[0]["ok"]["status"], 200, "{ends:?}");
    assert!(ends[1]["err"].is_string(), "{ends:?}");
    assert_eq!(server.requests().iter().map(carried).collect::<Vec<_>>(), ["default"]);
    assert_eq!(outcome.actions[0].account.as_ref().map(ToString::to_string).as_deref(), Some("default"));
}

#[tokio::test]
async fn an_account_that_may_not_go_there_does_not_stand_in_the_way_of_one_that_may_and_is_not_told_of() {
    let request =
        |method: &str| format!("request = [{{ origin = \"https://api.github.com\", methods = [\"{method}\"] }}]");
    let mut first = grants(&[&format!("accounts = [\"default\"]\n{}", request("POST"))]);
    first = first.replace("scopes = [\"repo\"]\n", "scopes = [\"gist\"]\n");
    let second = grants(&[&format!("accounts = [\"work\"]\n{}", request("GET"))]);
    let manifest = manifest().replace("reason =", "optional = true\nreason =");
    let input = json!({ "method": "GET", "url": "https://api.github.com/user", "headers": [], "body": "" });

    // The default account lacks what only its own grant asks for.
    let server = Upstream::plain().await;
    let agent = agent_with(&manifest, &format!("{first}{second}"), &server).await;
    connect(&agent, "default").await;
    let outcome = agent.call("fetch", &input).await.unwrap();
    assert!(matches!(outcome.end, End::ToolError(_)), "{:?}", outcome.end);
    assert_eq!(outcome.actions[0].account.as_ref().map(ToString::to_string).as_deref(), Some("work"));
    connect(&agent, "work").await;
    let outcome = agent.call("fetch", &input).await.unwrap();
    assert!(matches!(outcome.end, End::Value(_)), "{:?}", outcome.end);
    assert_eq!(carried(&server.requests()[0]), "work");

    // A grant for any account that goes elsewhere tells nothing of which are connected.
    let any = grants(&[&request("POST")]);
    let server = Upstream::plain().await;
    let agent = agent_with(&manifest, &format!("{any}{second}"), &server).await;
    for account in ["club", "home"] {
        connect(&agent, account).await;
    }
    let outcome = agent.call("fetch", &input).await.unwrap();
    let words = format!("{:?}", outcome.end);
    assert!(matches!(outcome.end, End::ToolError(_)) && words.contains("work"), "{words}");
    assert!(!words.contains("club") && !words.contains("home"), "{words}");
}
