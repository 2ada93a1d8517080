//! Each example skill, run as a component against an API of the service's shape.

#![expect(
    clippy::panic,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends where something is not as it should be"
)]

use std::collections::BTreeSet;
use std::path::PathBuf;

use clawcoil::host::InvokeError;
use clawcoil::runtime::End;
use clawcoil::vault::Kind;
use clawcoil_tests::{Agent, AuthorizationServer, Scripted, canary};
use serde_json::{Value, json};

const KEY: &str = "canary-credential-Zx81Qp";

/// A receiver's key of Standard Webhooks.
const HOOK_KEY: &str = "whsec_Y2FuYXJ5LWhvb2sta2V5LUtMOTk=";

fn server() -> AuthorizationServer {
    AuthorizationServer::start(3600, &json!({ KEY: "alice", HOOK_KEY: "alice" }))
}

async fn call(agent: &Agent, skill: &str, tool: &str, input: &Value) -> End {
    let outcome = agent.call("alice", skill, tool, input).await.unwrap_or_else(|error| panic!("{error}"));
    for secret in [KEY, HOOK_KEY] {
        assert_eq!(canary::find(format!("{:?} {:?}", outcome.end, outcome.logs).as_bytes(), secret), None);
    }
    outcome.end
}

fn value(end: End) -> Value {
    match end {
        End::Value(value) => value,
        other => panic!("{other:?}"),
    }
}

/// The case of a tool's error, and what it holds.
fn tool_error(end: End) -> (String, Value) {
    let End::ToolError(error) = end else { panic!("{end:?}") };
    match error {
        Value::String(case) => (case, Value::Null),
        Value::Object(map) => map.into_iter().next().expect("a case"),
        other => panic!("{other}"),
    }
}

/// The host keeps what was connected, and nothing of it is to be read in its files.
fn assert_nothing_is_readable_in_the_files_of(agent: &Agent) {
    assert_eq!(
        canary::files_with(agent.folder(), &[KEY, HOOK_KEY, AuthorizationServer::SECRET]),
        Vec::<PathBuf>::new()
    );
}

/// The last request, which must have had a credential of alice's.
async fn last_request(server: &AuthorizationServer) -> Value {
    let request = server.requests().await.pop().expect("a request");
    assert_eq!(request["subject"], "alice", "{request:#}");
    request
}

#[tokio::test]
async fn gmail_send_sends_and_reports_that_it_sees_no_token() {
    let server = server();
    let agent = Agent::new(&server, &["gmail-send"]).await;
    agent.grant("gmail-send", "alice");
    agent
        .connect_fixed("alice", "google", Kind::StaticBearer, &["https://www.googleapis.com/auth/gmail.send"], KEY)
        .await;

    let input = json!({ "to": ["bob@example.com"], "subject": "Grüße", "body": "Hallo", "cc": null });
    let sent = value(call(&agent, "gmail-send", "send", &input).await);
    assert!(sent["thread-id"].is_string(), "{sent}");
    let request = last_request(&server).await;
    assert_eq!(request["path"], "/gmail/v1/users/me/messages/send");
    assert_eq!(request["headers"]["authorization"], format!("Bearer {KEY}"));

    let report = value(call(&agent, "gmail-send", "self-check", &json!({})).await);
    assert_eq!(report["scopes"], json!(["https://www.googleapis.com/auth/gmail.send"]));
    assert_eq!((&report["environment"], &report["arguments"]), (&json!([]), &json!([])));
    assert_eq!(report["sees-files"], false);

    let injected = json!({ "to": ["bob@example.com"], "subject": "x\r\nBcc: eve@example.com", "body": "" });
    assert_eq!(tool_error(call(&agent, "gmail-send", "send", &injected).await).0, "invalid-argument");
    let limit = json!({ "error": { "message": "slow down", "errors": [{ "reason": "rateLimitExceeded" }] } });
    let path = "/gmail/v1/users/me/messages/send";
    server.script(&[Scripted::answer(path, 403, &json!({ "retry-after": "7" }), &limit)]).await;
    assert_eq!(tool_error(call(&agent, "gmail-send", "send", &input).await), ("rate-limited".to_owned(), json!(7)));
    assert_nothing_is_readable_in_the_files_of(&agent);
}

#[tokio::test]
async fn github_issue_writes_a_placeholder_that_the_host_swaps() {
    let server = server();
    let agent = Agent::new(&server, &["github-issue"]).await;
    agent.grant("github-issue", "alice");
    agent.connect_fixed("alice", "github", Kind::StaticBearer, &["repo"], KEY).await;

    let input = json!({ "repository": "octo/hello", "title": "Broken", "body": "See log", "labels": ["bug"] });
    let issue = value(call(&agent, "github-issue", "create", &input).await);
    let url = issue["url"].as_str().unwrap();
    assert!(url.starts_with("https://github.com/octo/hello/issues/"), "{issue}");
    let request = last_request(&server).await;
    assert_eq!(request["headers"]["authorization"], format!("Bearer {KEY}"));
    assert_eq!(request["headers"]["x-github-api-version"], "2022-11-28");
    assert_eq!(request["headers"]["accept"], "application/vnd.github+json");
    let body: Value = serde_json::from_str(request["body"].as_str().unwrap()).unwrap();
    assert_eq!(body, json!({ "title": "Broken", "body": "See log", "labels": ["bug"] }));

    let path = "/repos/octo/hello/issues";
    for (status, headers, expected) in [
        (404, json!({}), ("not-found", Value::Null)),
        (403, json!({}), ("forbidden", json!("no"))),
        (403, json!({ "retry-after": "60" }), ("rate-limited", json!(60))),
        (429, json!({ "retry-after": "3" }), ("rate-limited", json!(3))),
        (422, json!({}), ("refused", json!("no"))),
    ] {
        server.script(&[Scripted::answer(path, status, &headers, &json!({ "message": "no" }))]).await;
        let (case, held) = tool_error(call(&agent, "github-issue", "create", &input).await);
        assert_eq!((case.as_str(), held), expected);
    }
    assert_nothing_is_readable_in_the_files_of(&agent);
}

#[tokio::test]
async fn slack_post_knows_nothing_of_tokens_and_takes_ok_false_for_an_error() {
    let server = server();
    let agent = Agent::new(&server, &["slack-post"]).await;
    agent.grant("slack-post", "alice");
    agent.connect_fixed("alice", "slack", Kind::StaticBearer, &["chat:write"], KEY).await;
    let ready = agent.host.ready(&"slack-post".parse().unwrap()).await.unwrap();
    let ours: Vec<_> = ready.component.imports().iter().filter(|import| import.starts_with("clawcoil:")).collect();
    assert!(ours.is_empty(), "{ours:?}");

    let input = json!({ "channel": "#general", "text": "Lunch?" });
    let posted = value(call(&agent, "slack-post", "post", &input).await);
    assert_eq!(posted["channel"], "#general");
    last_request(&server).await;

    let refused = json!({ "ok": false, "error": "not_in_channel" });
    server.script(&[Scripted::answer("/api/chat.postMessage", 200, &json!({}), &refused)]).await;
    let error = tool_error(call(&agent, "slack-post", "post", &input).await);
    assert_eq!(error, ("forbidden".to_owned(), json!("not_in_channel")));
    assert_nothing_is_readable_in_the_files_of(&agent);
}

#[tokio::test]
async fn salesforce_update_speaks_to_the_organisation_of_its_connection() {
    let server = server();
    let agent = Agent::new(&server, &["salesforce-update"]).await;
    agent.grant("salesforce-update", "alice");
    let connection = agent.connect("alice", "salesforce", &["api"]).await;
    let origin = connection.api_origin.as_ref().map(ToString::to_string);
    assert_eq!(origin.as_deref(), Some("https://acme.my.salesforce.com"));

    let input = json!({
        "object": "Account", "id": "001D000000INjVe",
        "fields": [{ "name": "Phone", "value": { "text": "555 0100" } }, { "name": "Fax", "value": "empty" }],
    });
    value(call(&agent, "salesforce-update", "update", &input).await);
    let request = last_request(&server).await;
    assert_eq!(request["method"], "PATCH");
    assert_eq!(request["path"], "/services/data/v62.0/sobjects/Account/001D000000INjVe");
    assert_eq!(
        serde_json::from_str::<Value>(request["body"].as_str().unwrap()).unwrap(),
        json!({ "Phone": "555 0100", "Fax": null })
    );

    let wrong =
        json!({ "object": "Account", "id": "001D000000INjVe", "fields": [{ "name": "phone", "value": "empty" }] });
    let (case, words) = tool_error(call(&agent, "salesforce-update", "update", &wrong).await);
    assert_eq!(case, "refused");
    assert!(words.as_str().unwrap().starts_with("INVALID_FIELD"), "{words}");
    assert_nothing_is_readable_in_the_files_of(&agent);
}

#[tokio::test]
async fn internal_report_acts_as_the_agent_itself() {
    let server = server();
    let agent = Agent::new(&server, &["internal-report"]).await;
    agent.grant_as_agent("internal-report", "alice");
    let scopes = BTreeSet::from(["reports.read".parse().unwrap()]);
    let (company, account) = ("company".parse().unwrap(), "default".parse().unwrap());
    agent.host.connector().client_credentials(&company, &account, &scopes).await.unwrap();

    let input = json!({ "name": "orders", "month": "2026-10" });
    let report = value(call(&agent, "internal-report", "monthly", &input).await);
    assert_eq!(report, json!({ "name": "orders", "month": "2026-10", "rows": [{ "label": "orders", "value": 42.0 }] }));
    let request = server.requests().await.pop().unwrap();
    assert_eq!((&request["subject"], &request["query"]["month"]), (&json!("machine"), &json!("2026-10")));

    let denied = agent.call("mallory", "internal-report", "monthly", &input).await;
    assert!(matches!(denied, Err(InvokeError::Denied(_))), "{denied:?}");
    assert_nothing_is_readable_in_the_files_of(&agent);
}

#[tokio::test]
async fn weather_gets_its_key_into_the_query() {
    let server = server();
    let agent = Agent::new(&server, &["weather"]).await;
    agent.grant("weather", "alice");
    agent.connect_fixed("alice", "openweather", Kind::ApiKey, &[], KEY).await;

    let weather = value(call(&agent, "weather", "current", &json!({ "place": "São Paulo,BR" })).await);
    assert_eq!(weather["description"], "clear sky");
    let request = last_request(&server).await;
    assert_eq!(request["query"], json!({ "q": "São Paulo,BR", "units": "metric", "appid": KEY }));

    let nowhere = tool_error(call(&agent, "weather", "current", &json!({ "place": "Nowhere" })).await);
    assert_eq!(nowhere.0, "place-not-found");
    assert_nothing_is_readable_in_the_files_of(&agent);
}

#[tokio::test]
async fn signed_webhook_signs_with_the_revealed_key_and_needs_the_grant_for_it() {
    let server = server();
    let agent = Agent::new(&server, &["signed-webhook"]).await;
    agent.connect_fixed("alice", "webhook", Kind::ApiKey, &[], HOOK_KEY).await;
    let input = json!({ "hook": "billing", "event": "invoice.paid", "data": "{\"invoice\":7}", "id": "msg_1" });
    let denied = agent.call("alice", "signed-webhook", "deliver", &input).await;
    assert!(matches!(denied, Err(InvokeError::Denied(_))), "{denied:?}");

    agent.grant("signed-webhook", "alice");
    let delivered = value(call(&agent, "signed-webhook", "deliver", &input).await);
    assert_eq!(delivered, json!({ "id": "msg_1" }));
    // The receiver has checked the signature: that is how it knows alice.
    let request = last_request(&server).await;
    assert_eq!((&request["path"], &request["status"]), (&json!("/hooks/billing"), &json!(200)));
    assert_eq!(request["headers"].get("authorization"), None);
    assert_nothing_is_readable_in_the_files_of(&agent);
}

#[tokio::test]
async fn dice_need_nothing_of_anybody() {
    let agent = Agent::new(&server(), &["dice"]).await;
    let rolled = value(call(&agent, "dice", "roll", &json!({ "count": 20, "sides": 6 })).await);
    let dice: Vec<u64> = rolled["dice"].as_array().expect("a list").iter().filter_map(Value::as_u64).collect();
    assert!(dice.len() == 20 && dice.iter().all(|die| (1..=6).contains(die)), "{rolled}");
    assert_eq!(rolled["total"], dice.iter().sum::<u64>());
    let End::ToolError(none) = call(&agent, "dice", "roll", &json!({ "count": 0, "sides": 6 })).await else {
        panic!("no dice were rolled");
    };
    assert_eq!(none, "from 1 to 100 dice can be rolled, and not 0");
}
