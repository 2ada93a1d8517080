//! The flows against an authorization server that others wrote: `oidc-provider`, with rotation of refresh tokens on.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use clawcoil::id::Owner;
use clawcoil::runtime::End;
use clawcoil::vault::State;
use clawcoil_tests::{Agent, AuthorizationServer, Browser, Scripted};
use serde_json::{Value, json};
use tokio::sync::Barrier;

const GMAIL: &str = "https://www.googleapis.com/auth/gmail.send";

fn mail(to: &str) -> Value {
    json!({ "to": [to], "subject": "Hello", "body": "From a test" })
}

async fn agent_with_mail(server: &AuthorizationServer) -> Agent {
    let agent = Agent::new(server, &["gmail-send"]).await;
    agent.grant("gmail-send", "*");
    agent
}

async fn send_mail(agent: &Agent, user: &str) -> End {
    let outcome = agent.call(user, "gmail-send", "send", &mail("bob@example.com")).await;
    outcome.unwrap_or_else(|error| panic!("{error}")).end
}

/// What the server has to say about refreshes: each refresh token was presented once, all were accepted.
fn assert_one_refresh_per_generation(events: &[Value], generations: u64) {
    let refreshes: Vec<_> =
        events.iter().filter(|event| event["event"] == "token" && event["grant_type"] == "refresh_token").collect();
    let failed: Vec<_> = refreshes.iter().filter(|event| event.get("error").is_some()).collect();
    assert!(failed.is_empty(), "refused refreshes: {failed:#?}");
    let presented: BTreeSet<_> = refreshes.iter().map(|event| event["refresh_token_presented"].to_string()).collect();
    assert_eq!(presented.len(), refreshes.len(), "a refresh token was presented twice");
    assert_eq!(refreshes.len() as u64, generations, "one refresh for each new generation");
    assert!(!events.iter().any(|event| event["event"] == "grant-revoked"), "the server saw a replay");
}

#[tokio::test]
async fn an_account_that_is_connected_in_a_browser_sends_mail() {
    let server = AuthorizationServer::start(3600, &json!({}));
    let agent = agent_with_mail(&server).await;
    let connection = agent.connect("alice", "google", &[GMAIL]).await;
    assert_eq!(connection.state, State::Active);

    let End::Value(sent) = send_mail(&agent, "alice").await else { panic!("not sent") };
    assert!(sent["id"].is_string(), "{sent}");
    let requests = server.requests().await;
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0]["subject"], "alice");
    assert_eq!(requests[0]["status"], 200);
    let codes = server.events_of("token").await;
    assert_eq!(codes.len(), 1);
    assert_eq!(codes[0]["grant_type"], "authorization_code");
}

#[tokio::test]
async fn an_unconfirmed_connection_gives_no_token() {
    let server = AuthorizationServer::start(3600, &json!({}));
    let agent = agent_with_mail(&server).await;
    let owner = Owner::User("alice".parse().unwrap());
    let back = "http://127.0.0.1:47123/callback/google".parse().unwrap();
    let scopes = BTreeSet::from([GMAIL.parse().unwrap()]);
    let connector = agent.host.connector();
    let account = "default".parse().unwrap();
    let started = connector.start(&owner, &"google".parse().unwrap(), &account, &scopes, &back).await.unwrap();
    let answer = Browser::new().consent(started.url, "mallory", &back).await;
    let connection = connector.callback(&owner, answer.query().unwrap()).await.unwrap();
    assert_eq!(connection.state, State::Unconfirmed);
    let refused = agent.call("alice", "gmail-send", "send", &mail("bob@example.com")).await;
    assert!(matches!(refused, Err(clawcoil::host::InvokeError::ActionRequired(_))), "{refused:?}");
    assert!(server.requests().await.is_empty());
}

#[tokio::test]
async fn the_answer_of_a_redirect_is_good_once_and_for_its_own_user() {
    let server = AuthorizationServer::start(3600, &json!({}));
    let agent = agent_with_mail(&server).await;
    let back = "http://127.0.0.1:47123/callback/google".parse().unwrap();
    let scopes = BTreeSet::from([GMAIL.parse().unwrap()]);
    let connector = agent.host.connector();
    let (alice, bob) = (Owner::User("alice".parse().unwrap()), Owner::User("bob".parse().unwrap()));
    let (google, account) = ("google".parse().unwrap(), "default".parse().unwrap());

    let started = connector.start(&alice, &google, &account, &scopes, &back).await.unwrap();
    let answer = Browser::new().consent(started.url, "alice", &back).await;
    let query = answer.query().unwrap();
    connector.callback(&bob, query).await.expect_err("alice's answer was taken for bob");
    connector.callback(&alice, query).await.expect_err("an answer that somebody else presented is used up");

    let started = connector.start(&alice, &google, &account, &scopes, &back).await.unwrap();
    let answer = Browser::new().consent(started.url, "alice", &back).await;
    let query = answer.query().unwrap();
    let elsewhere = query.replace("iss=http%3A%2F%2F127.0.0.1", "iss=http%3A%2F%2F127.0.0.2");
    assert_ne!(elsewhere, query);
    connector.callback(&alice, &elsewhere).await.expect_err("an answer of another issuer was taken (RFC 9207)");

    let started = connector.start(&alice, &google, &account, &scopes, &back).await.unwrap();
    let answer = Browser::new().consent(started.url, "alice", &back).await;
    let query = answer.query().unwrap();
    connector.callback(&alice, query).await.unwrap();
    connector.callback(&alice, query).await.expect_err("an answer was taken twice");
}

#[tokio::test]
async fn a_machine_gets_its_token_by_client_credentials() {
    let server = AuthorizationServer::start(3600, &json!({}));
    let agent = Agent::new(&server, &["internal-report"]).await;
    agent.grant_as_agent("internal-report", "*");
    let scopes = BTreeSet::from(["reports.read".parse().unwrap()]);
    let (company, account) = ("company".parse().unwrap(), "default".parse().unwrap());
    agent.host.connector().client_credentials(&company, &account, &scopes).await.unwrap();

    let input = json!({ "name": "orders", "month": "2026-10" });
    let outcome = agent.call("alice", "internal-report", "monthly", &input).await.unwrap();
    let End::Value(report) = outcome.end else { panic!("{:?}", outcome.end) };
    assert_eq!(report["rows"][0]["label"], "orders");
    assert_eq!(server.requests().await[0]["subject"], "machine");
}

#[tokio::test]
async fn disconnecting_revokes_the_grant_at_the_server() {
    let server = AuthorizationServer::start(3600, &json!({}));
    let agent = agent_with_mail(&server).await;
    let connection = agent.connect("alice", "google", &[GMAIL]).await;
    let gone = agent.host.connector().disconnect(connection.id).await.unwrap();
    assert!(matches!(gone.revoked, Some(Ok(()))), "{:?}", gone.revoked);
    assert_eq!(server.events_of("grant-revoked").await.len(), 1);
    let refused = agent.call("alice", "gmail-send", "send", &mail("bob@example.com")).await;
    assert!(matches!(refused, Err(clawcoil::host::InvokeError::ActionRequired(_))), "{refused:?}");
}

/// How many expiries there are: more where the run is to prove something.
#[expect(clippy::disallowed_methods, reason = "how much is tried is for the run to say, not for a clock")]
fn expiries() -> usize {
    if std::env::var_os("CLAWCOIL_PROVE").is_some() { 60 } else { 10 }
}

/// 200 calls by 8 tasks over 10 expiries. The server's clock is the real one, so its tokens have to run out in real time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refresh_is_done_once_per_generation() {
    const LIFETIME: Duration = Duration::from_secs(2);
    const TASKS: usize = 8;
    let server = AuthorizationServer::start(2, &json!({}));
    let agent = Arc::new(agent_with_mail(&server).await);
    let connection = agent.connect("alice", "google", &[GMAIL]).await;
    let first = connection.generation.0;
    send_mail(&agent, "alice").await;

    // The first half of the expiries a call meets; of the second half the schedule gets ahead.
    let expiries = expiries();
    let mut schedule = None;
    let mut calls = 0;
    for expiry in 0..expiries {
        if expiry == expiries / 2 {
            schedule = Some(agent.host.start_schedule());
        }
        // The server lets a token live a second longer than it says.
        tokio::time::sleep(LIFETIME + Duration::from_secs(1)).await;
        let start = Arc::new(Barrier::new(TASKS));
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let (agent, start) = (Arc::clone(&agent), Arc::clone(&start));
                // 20 calls for each expiry.
                let count = if task < 4 { 3 } else { 2 };
                tokio::spawn(async move {
                    start.wait().await;
                    let mut ends = Vec::new();
                    for _ in 0..count {
                        ends.push(send_mail(&agent, "alice").await);
                    }
                    ends
                })
            })
            .collect();
        for task in tasks {
            for end in task.await.unwrap() {
                assert!(matches!(end, End::Value(_)), "a skill saw an error: {end:?}");
                calls += 1;
            }
        }
    }
    assert_eq!(calls, 20 * expiries);
    if let Some(schedule) = schedule {
        schedule.stop().await;
    }
    let generations = settled(&agent, connection.id, first).await;
    assert!(generations >= expiries as u64, "{generations} refreshes over {expiries} expiries");
    assert_one_refresh_per_generation(&server.events().await, generations);
    assert!(server.requests().await.iter().all(|request| request["status"] == 200 && request["subject"] == "alice"));
}

/// How many refreshes there have been, once none is under way any more.
async fn settled(agent: &Agent, id: clawcoil::id::ConnectionId, first: u64) -> u64 {
    let mut seen = agent.connection(id).generation.0;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = agent.connection(id).generation.0;
        if now == seen {
            return now - first;
        }
        seen = now;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_wait_for_the_one_refresh_however_slow_it_is() {
    let server = AuthorizationServer::start(2, &json!({}));
    let agent = Arc::new(agent_with_mail(&server).await);
    let connection = agent.connect("alice", "google", &[GMAIL]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    server.script(&[Scripted::slow("/token", 700)]).await;
    let calls: Vec<_> = (0..16)
        .map(|_| {
            let agent = Arc::clone(&agent);
            tokio::spawn(async move { send_mail(&agent, "alice").await })
        })
        .collect();
    for call in calls {
        let end = call.await.unwrap();
        assert!(matches!(end, End::Value(_)), "{end:?}");
    }
    let generations = settled(&agent, connection.id, connection.generation.0).await;
    assert_one_refresh_per_generation(&server.events().await, generations);
}

#[tokio::test]
async fn an_outage_of_the_token_endpoint_ends_no_connection() {
    let server = AuthorizationServer::start(1, &json!({}));
    let agent = agent_with_mail(&server).await;
    let connection = agent.connect("alice", "google", &[GMAIL]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let html = json!("<html>down for maintenance</html>");
    server.script(&[Scripted::answer("/token", 503, &json!({ "retry-after": "1" }), &html)]).await;
    let end = send_mail(&agent, "alice").await;
    assert!(
        matches!(&end, End::ToolError(error) if error.get("unreachable").is_some() || error["tag"] == "unreachable"),
        "{end:?}"
    );
    assert_eq!(agent.connection(connection.id).state, State::Active);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_carries_the_token_of_its_own_user() {
    const CALLS: usize = 10_000;
    let server = AuthorizationServer::start(3600, &json!({}));
    let agent = Arc::new(agent_with_mail(&server).await);
    let users = ["alice", "bob"];
    for user in users {
        agent.connect(user, "google", &[GMAIL]).await;
    }
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            let agent = Arc::clone(&agent);
            tokio::spawn(async move {
                for call in 0..CALLS / 16 {
                    let user = users[(task + call) % 2];
                    let outcome = agent.call(user, "gmail-send", "send", &mail(&format!("{user}@example.com"))).await;
                    let end = outcome.unwrap_or_else(|error| panic!("{error}")).end;
                    assert!(matches!(end, End::Value(_)), "{end:?}");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let mut counts = BTreeMap::new();
    for request in server.requests().await {
        let body: Value = serde_json::from_str(request["body"].as_str().unwrap()).unwrap();
        let message = base64_url(body["raw"].as_str().unwrap());
        let subject = request["subject"].as_str().unwrap().to_owned();
        assert!(message.contains(&format!("To: {subject}@example.com\r\n")), "{subject} got the token for {message}");
        *counts.entry(subject).or_insert(0_usize) += 1;
    }
    assert_eq!(counts, BTreeMap::from(users.map(|user| (user.to_owned(), CALLS / 2))));
}

fn base64_url(text: &str) -> String {
    use base64::Engine as _;
    String::from_utf8(base64::engine::general_purpose::URL_SAFE.decode(text).unwrap()).unwrap()
}
