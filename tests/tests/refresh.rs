//! Refreshing where it is hardest: several hosts on one vault, and an answer that never came.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use clawcoil::broker::Reason;
use clawcoil::clock::{ManualClock, Timestamp};
use clawcoil::host::{Host, InvokeError};
use clawcoil::id::Caller;
use clawcoil::runtime::End;
use clawcoil::vault::{ReconnectReason, State};
use clawcoil_tests::{Agent, AuthorizationServer, Scripted};
use serde_json::{Value, json};

const GMAIL: &str = "https://www.googleapis.com/auth/gmail.send";

async fn send_mail(host: &Host) -> End {
    let caller = Caller::new("test".parse().unwrap(), "alice".parse().unwrap());
    let mail = json!({ "to": ["bob@example.com"], "subject": "Hello", "body": "From a test" });
    let outcome = host.invoke(&caller, &"gmail-send".parse().unwrap(), Some("send"), &mail).await;
    outcome.unwrap_or_else(|error| panic!("{error}")).end
}

fn refreshes(events: &[Value]) -> Vec<&Value> {
    events.iter().filter(|event| event["event"] == "token" && event["grant_type"] == "refresh_token").collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hosts_on_one_vault_refresh_a_generation_once() {
    let server = AuthorizationServer::start(2, &json!({}));
    let agent = Agent::new(&server, &["gmail-send"]).await;
    agent.grant("gmail-send", "*");
    let first = agent.connect("alice", "google", &[GMAIL]).await.generation.0;
    let hosts = [Arc::clone(&agent.host), Arc::new(agent.another_host().await)];
    // The server's clock is the real one: its token has to run out in real time.
    tokio::time::sleep(Duration::from_secs(2)).await;
    server.script(&[Scripted::slow("/token", 300)]).await;
    let calls: Vec<_> = (0..16)
        .map(|call| {
            let host = Arc::clone(&hosts[call % 2]);
            tokio::spawn(async move { send_mail(&host).await })
        })
        .collect();
    for call in calls {
        let end = call.await.unwrap();
        assert!(matches!(end, End::Value(_)), "{end:?}");
    }
    let generations = agent.host.vault().connections(None).unwrap()[0].generation.0 - first;
    let events = server.events().await;
    let presented: BTreeSet<_> =
        refreshes(&events).iter().map(|event| event["refresh_token_presented"].to_string()).collect();
    assert_eq!(presented.len(), refreshes(&events).len(), "a refresh token was presented twice");
    assert!(generations >= 1 && refreshes(&events).iter().all(|event| event.get("error").is_none()), "{events:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_whose_answer_was_lost_is_tried_again_only_when_it_can_no_longer_return_and_told_as_such() {
    let server = AuthorizationServer::start(3600, &json!({}));
    let clock = ManualClock::at(Timestamp::from_second(2_000_000_000).unwrap());
    let agent = Agent::with_clock(&server, &["gmail-send"], Arc::new(clock.clone())).await;
    agent.grant("gmail-send", "*");
    let connection = agent.connect("alice", "google", &[GMAIL]).await;
    clock.advance(Duration::from_secs(3590));
    server.script(&[Scripted::lost("/token")]).await;
    let end = send_mail(&agent.host).await;
    assert!(matches!(end, End::ToolError(_)), "{end:?}");
    assert_eq!(agent.connection(connection.id).state, State::Active, "nobody said that the grant is over");
    assert_eq!(refreshes(&server.events().await).len(), 1);

    clock.advance(clawcoil::vault::LEASE + Duration::from_secs(1));
    let end = send_mail(&agent.host).await;
    assert!(matches!(end, End::ToolError(_)), "{end:?}");
    let State::NeedsReconnect { reason, .. } = agent.connection(connection.id).state else { panic!("still active") };
    assert_eq!(reason, ReconnectReason::RotationLost);
    assert_eq!(refreshes(&server.events().await).len(), 2);
}

#[tokio::test]
async fn a_grant_that_ended_at_the_provider_is_told_at_once_with_the_command_that_mends_it() {
    let server = AuthorizationServer::start(3600, &json!({}));
    let clock = ManualClock::at(Timestamp::from_second(2_000_000_000).unwrap());
    let agent = Agent::with_clock(&server, &["gmail-send"], Arc::new(clock.clone())).await;
    agent.grant("gmail-send", "*");
    agent.connect("alice", "google", &[GMAIL]).await;
    clock.advance(Duration::from_secs(3590));
    server.script(&[Scripted::answer("/token", 400, &json!({}), &json!({ "error": "invalid_grant" }))]).await;
    let mail = json!({ "to": ["bob@example.com"], "subject": "Hello", "body": "From a test" });
    let outcome = agent.call("alice", "gmail-send", "send", &mail).await.unwrap();
    assert!(matches!(outcome.end, End::ToolError(_)), "{:?}", outcome.end);
    let [action] = outcome.actions.as_slice() else { panic!("{:?}", outcome.actions) };
    assert_eq!(action.reason, Reason::Revoked);
    assert_eq!(action.command, format!("clawcoil connect google --user alice --scope {GMAIL}"));
    // Before the next call the guest is not even started.
    let Err(InvokeError::ActionRequired(actions)) = agent.call("alice", "gmail-send", "send", &mail).await else {
        panic!("it was started")
    };
    assert_eq!(actions, outcome.actions);
}
