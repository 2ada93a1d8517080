//! The HTTP API, against real servers.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod served;

use clawcoil::audit::{self, Filter};
use clawcoil_tests::guest::ATTACKS_MANIFEST;
use clawcoil_tests::http::{Answer, send};
use clawcoil_tests::{GuestAgent, skills};
use http::{Method, StatusCode, header};
use rustix::process::Signal;
use serde_json::{Value, json};

use served::{Served, token};

const GRANT: &str = "[[grant]]\nskill = \"attacks\"\napproval = \"none\"\nusers = [\"alice\", \"bob\"]\nservice = \"service\"\n\
     provider = \"github\"\nscopes = [\"repo\"]\nuse = \"reveal\"\n";

/// An agent whose skill does what it is told, served, and a program's token for alice.
struct Stage {
    agent: GuestAgent,
    served: Served,
    token: String,
}

impl Stage {
    async fn new() -> Self {
        Self::with(GRANT).await
    }

    async fn with(permissions: &str) -> Self {
        let agent = GuestAgent::new("attacks", ATTACKS_MANIFEST, permissions, "", &[]).await;
        agent.host.registry().add(&skills::component("conformance"), None).unwrap();
        let home = agent.host.home().folder();
        let served = Served::start(home);
        let token = token(home, "bot", "alice", &["invoke"]);
        Self { agent, served, token }
    }

    async fn get(&self, path: &str) -> Answer {
        self.served.api(Method::GET, path, &self.token, &Value::Null).await
    }

    /// Asks for a call of a tool with these headers.
    async fn call_as(&self, token: &str, tool: &str, input: Value, headers: &[(&str, &str)]) -> Answer {
        let bearer = format!("Bearer {token}");
        let headers = [&[("authorization", bearer.as_str()), ("content-type", "application/json")], headers].concat();
        let body = json!({ "skill": "attacks", "tool": tool, "input": input }).to_string();
        send(Method::POST, &self.served.at("/v1/invocations"), &headers, body).await
    }

    async fn call(&self, tool: &str, input: Value, headers: &[(&str, &str)]) -> Answer {
        self.call_as(&self.token, tool, input, headers).await
    }

    /// The call as it stands when it has ended.
    async fn ended(&self, id: &str) -> Value {
        let bearer = format!("Bearer {}", self.token);
        let headers = [("authorization", bearer.as_str()), ("prefer", "wait=30")];
        send(Method::GET, &self.served.at(&format!("/v1/invocations/{id}")), &headers, "").await.json()
    }

    /// How often the audit log says that the skill was called.
    fn calls_in_the_log(&self) -> usize {
        let host = &self.agent.host;
        let entries = audit::tail(&host.home().audit(), &host.vault().audit_key(), &Filter::default(), 1_000).unwrap();
        entries.iter().filter(|entry| entry.kind == "invoked").count()
    }

    fn killed_and_started_again(self) -> Self {
        Self { served: self.served.killed_and_started_again(), ..self }
    }

    fn token_for(&self, client: &str, user: &str, scopes: &[&str]) -> String {
        token(self.agent.host.home().folder(), client, user, scopes)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_is_for_anybody_and_is_the_one_that_is_checked_in() {
    let stage = Stage::new().await;
    let answer = send(Method::GET, &stage.served.at("/openapi.json"), &[], "").await;
    assert_eq!(
        (answer.status, &answer.headers[header::CONTENT_TYPE]),
        (StatusCode::OK, &"application/json".parse().unwrap())
    );
    assert_eq!(answer.text(), std::fs::read_to_string(skills::root().join("docs/openapi.json")).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn skills_come_in_pages_and_only_those_that_the_caller_may_call() {
    let stage = Stage::new().await;
    let names = |answer: &Value| -> Vec<String> {
        answer["skills"].as_array().unwrap().iter().map(|skill| skill["name"].as_str().unwrap().to_owned()).collect()
    };
    let first = stage.get("/v1/skills?limit=1").await.json();
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = stage.get(&format!("/v1/skills?limit=1&cursor={cursor}")).await.json();
    assert_eq!((names(&first), names(&second)), (vec!["attacks".to_owned()], vec!["test".to_owned()]));
    assert_eq!(second["next_cursor"], Value::Null);
    for path in ["/v1/skills?limit=0", "/v1/skills?limit=all", "/v1/skills?cursor=x", "/v1/skills?color=red"] {
        let answer = stage.get(path).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}: {}", answer.text());
        assert_eq!(answer.headers[header::CONTENT_TYPE], "application/problem+json", "{path}");
    }

    // Nobody has let carol reveal, without which the skill does not start.
    let carol = stage.token_for("bot", "carol", &["invoke"]);
    let all = stage.served.api(Method::GET, "/v1/skills", &carol, &Value::Null).await.json();
    assert_eq!(names(&all), ["test"]);
    for skill in ["attacks", "nothing", "No-Name!"] {
        let answer = stage.served.api(Method::GET, &format!("/v1/skills/{skill}"), &carol, &Value::Null).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{skill}: {}", answer.text());
    }
    assert_eq!(stage.get("/v1/skills/attacks").await.json()["tools"][0]["name"], "loop-forever");
}

const ASYNC: (&str, &str) = ("prefer", "respond-async");

fn id(answer: &Answer) -> String {
    answer.json()["id"].as_str().unwrap().to_owned()
}

fn kind(answer: &Answer) -> String {
    answer.json()["type"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_not_waited_for_is_asked_for_later() {
    let stage = Stage::new().await;
    let answer = stage.call("sleep", json!({ "milliseconds": 300 }), &[ASYNC]).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text());
    assert_eq!(
        (&answer.json()["state"], &answer.headers["preference-applied"]),
        (&json!("running"), &"respond-async".parse().unwrap())
    );
    let id = id(&answer);
    assert_eq!(answer.headers[header::LOCATION], format!("/v1/invocations/{id}"));
    let ended = stage.ended(&id).await;
    assert_eq!((&ended["state"], &ended["result"], &ended["id"]), (&json!("succeeded"), &Value::Null, &json!(id)));
    assert!(ended["ended_at"].is_string() && ended["expires_at"].is_string(), "{ended}");

    // Who waits a little for a quick call gets it at once.
    let quick = stage.call("return-text", json!({ "length": 3 }), &[("prefer", "respond-async, wait=30")]).await;
    assert_eq!((quick.status, &quick.json()["result"]), (StatusCode::OK, &json!("xxx")));

    // Failures are told there as well.
    for (tool, input, kind) in [
        ("panic", json!({ "message": "x" }), "/problems/skill-failed"),
        ("sleep", json!({ "milliseconds": "long" }), "/problems/invalid-input"),
        ("nothing", json!({}), "/problems/not-found"),
    ] {
        let answer = stage.call(tool, input, &[ASYNC]).await;
        let ended = stage.ended(&self::id(&answer)).await;
        assert_eq!((&ended["state"], &ended["problem"]["type"]), (&json!("failed"), &json!(kind)), "{tool}: {ended}");
        assert_eq!(ended["problem"]["invocation"], ended["id"]);
    }

    // They are listed, the latest first, in pages.
    let first = stage.get("/v1/invocations?limit=4").await.json();
    let second =
        stage.get(&format!("/v1/invocations?limit=4&cursor={}", first["next_cursor"].as_str().unwrap())).await.json();
    let tools: Vec<_> = [&first, &second]
        .into_iter()
        .flat_map(|page| page["invocations"].as_array().unwrap())
        .map(|call| call["tool"].as_str().unwrap())
        .collect();
    assert_eq!(tools, ["nothing", "sleep", "panic", "return-text", "sleep"]);
    assert_eq!(stage.get("/v1/invocations?state=succeeded").await.json()["invocations"].as_array().unwrap().len(), 2);
    assert_eq!(stage.get("/v1/invocations?state=asleep").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_call_ends_in_the_middle_of_a_loop() {
    let stage = Stage::new().await;
    // By then it loops.
    let begun = stage.call("loop-forever", json!({}), &[("prefer", "respond-async, wait=1")]).await;
    assert_eq!(begun.status, StatusCode::ACCEPTED, "{}", begun.text());
    let id = id(&begun);
    assert_eq!(
        (stage.get(&format!("/v1/invocations/{id}")).await.json()["state"].clone(), stage.calls_in_the_log()),
        (json!("running"), 0)
    );
    let cancel = format!("/v1/invocations/{id}/cancel");
    for _ in 0..2 {
        let answer = stage.served.api(Method::POST, &cancel, &stage.token, &Value::Null).await;
        assert_eq!(
            (answer.status, &answer.json()["state"]),
            (StatusCode::OK, &json!("cancelled")),
            "{}",
            answer.text()
        );
        // The entry is written when all of the guest is gone.
        assert_eq!(stage.calls_in_the_log(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_takes_longer_than_its_caller_gives_it_is_ended() {
    let stage = Stage::new().await;
    // Compiling, which the first call does, counts as well.
    let compiled = json!({ "skill": "attacks", "tool": "remember" });
    stage.served.api(Method::POST, "/v1/invocations", &stage.token, &compiled).await;
    let before = stage.calls_in_the_log();
    let body = json!({ "skill": "attacks", "tool": "loop-forever", "timeout": 1 });
    let answer = stage.served.api(Method::POST, "/v1/invocations", &stage.token, &body).await;
    assert_eq!((answer.status, kind(&answer)), (StatusCode::BAD_GATEWAY, "/problems/skill-failed".to_owned()));
    // The skill's own limit would have ended it later.
    assert!(answer.text().contains("which is what its caller gave it"), "{}", answer.text());
    assert_eq!(stage.calls_in_the_log(), before + 1);
    for wrong in [0, 86_401] {
        let body = json!({ "skill": "attacks", "tool": "remember", "timeout": wrong });
        let answer = stage.served.api(Method::POST, "/v1/invocations", &stage.token, &body).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_seen_by_the_caller_who_made_it_and_by_nobody_else() {
    let stage = Stage::new().await;
    let id = id(&stage.call("loop-forever", json!({}), &[ASYNC]).await);
    for (client, user) in [("bot", "bob"), ("other", "alice")] {
        let token = stage.token_for(client, user, &["invoke"]);
        for (method, path) in
            [(Method::GET, format!("/v1/invocations/{id}")), (Method::POST, format!("/v1/invocations/{id}/cancel"))]
        {
            let answer = stage.served.api(method, &path, &token, &Value::Null).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{client} {user} {path}");
        }
        let list = stage.served.api(Method::GET, "/v1/invocations", &token, &Value::Null).await.json();
        assert_eq!(list["invocations"], json!([]));
    }
    assert_eq!(stage.get(&format!("/v1/invocations/{id}")).await.json()["state"], "running");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_has_so_many_calls_running_and_no_more() {
    let stage = Stage::new().await;
    for number in 0..32 {
        let answer = stage.call("sleep", json!({ "milliseconds": 60_000 }), &[ASYNC]).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{number}: {}", answer.text());
    }
    let key = ("idempotency-key", "one-too-many");
    let answer = stage.call("remember", json!({}), &[ASYNC, key]).await;
    assert_eq!((answer.status, kind(&answer)), (StatusCode::TOO_MANY_REQUESTS, "/problems/too-many".to_owned()));
    assert_eq!(answer.headers[header::RETRY_AFTER], "1");
    // Others are not touched, and neither are calls that are waited for.
    let bob = stage.token_for("bot", "bob", &["invoke"]);
    assert_eq!(stage.call_as(&bob, "remember", json!({}), &[ASYNC]).await.status, StatusCode::ACCEPTED);
    assert_eq!(stage.call("remember", json!({}), &[]).await.status, StatusCode::OK);
    // The key is free again.
    let first = id(&stage.call("remember", json!({}), &[]).await);
    let running = stage.get("/v1/invocations?state=running&limit=1").await.json();
    let path = format!("/v1/invocations/{}/cancel", running["invocations"][0]["id"].as_str().unwrap());
    stage.served.api(Method::POST, &path, &stage.token, &Value::Null).await;
    let answer = stage.call("remember", json!({}), &[key]).await;
    assert!(answer.status == StatusCode::OK && id(&answer) != first, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_a_key_is_done_once_and_its_answer_given_again() {
    let mut stage = Stage::new().await;
    let key = ("idempotency-key", "\"8e03978e-40d5\"");
    let call = async |stage: &Stage| stage.call("return-text", json!({ "length": 5 }), &[key]).await;
    let first = call(&stage).await;
    assert_eq!((first.status, first.headers.get("idempotent-replayed")), (StatusCode::OK, None), "{}", first.text());
    for restarted in [false, true] {
        if restarted {
            stage = stage.killed_and_started_again();
        }
        let again = call(&stage).await;
        assert_eq!((again.status, again.text()), (StatusCode::OK, first.text()));
        assert_eq!(again.headers["idempotent-replayed"], "true");
        // Without the quotes it is the same key.
        let bare = stage.call("return-text", json!({ "length": 5 }), &[("idempotency-key", "8e03978e-40d5")]).await;
        assert_eq!(bare.text(), first.text());
        assert_eq!(stage.calls_in_the_log(), 1);
        // Another request may not have it.
        let other = stage.call("return-text", json!({ "length": 6 }), &[key]).await;
        assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", other.text());
    }

    // Of another caller it is another key.
    let bob = stage.token_for("bot", "bob", &["invoke"]);
    let other = stage.call_as(&bob, "return-text", json!({ "length": 7 }), &[key]).await;
    assert_eq!((other.status, &other.json()["result"]), (StatusCode::OK, &json!("xxxxxxx")));

    // A failure is an answer as well.
    let key = ("idempotency-key", "fails");
    let first = stage.call("panic", json!({ "message": "x" }), &[key]).await;
    let again = stage.call("panic", json!({ "message": "x" }), &[key]).await;
    assert_eq!((first.status, first.text()), (StatusCode::BAD_GATEWAY, again.text()));
    assert_eq!(stage.calls_in_the_log(), 3);

    // What did not start leaves the key to the next request.
    let key = ("idempotency-key", "starts later");
    assert_eq!(stage.call("nothing", json!({}), &[key]).await.status, StatusCode::NOT_FOUND);
    assert_eq!(stage.call("remember", json!({}), &[key]).await.status, StatusCode::OK);
    for wrong in ["", "\"open", &"x".repeat(256)] {
        let answer = stage.call("remember", json!({}), &[("idempotency-key", wrong)]).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_first_request_is_under_way_a_retry_is_told_so() {
    let stage = Stage::new().await;
    let key = ("idempotency-key", "slow");
    let input = json!({ "milliseconds": 60_000 });
    let id = id(&stage.call("sleep", input.clone(), &[key, ASYNC]).await);
    let retry = stage.call("sleep", input.clone(), &[key]).await;
    assert_eq!((retry.status, kind(&retry)), (StatusCode::CONFLICT, "/problems/conflict".to_owned()));
    assert_eq!((&retry.json()["invocation"], &retry.headers[header::RETRY_AFTER]), (&json!(id), &"1".parse().unwrap()));
    // One that does not want to wait is answered as the first was.
    let retry = stage.call("sleep", input, &[key, ASYNC]).await;
    assert_eq!((retry.status, self::id(&retry)), (StatusCode::ACCEPTED, id));
    assert_eq!(retry.headers["idempotent-replayed"], "true");

    // Of many that come at once, one is done.
    let key = ("idempotency-key", "all-at-once");
    let calls = (0..8).map(|_| async { stage.call("sleep", json!({ "milliseconds": 200 }), &[key]).await });
    let answers = futures_util::future::join_all(calls).await;
    let done = answers.iter().filter(|answer| answer.status == StatusCode::OK).count();
    assert!(
        done == 1 && answers.iter().all(|answer| answer.status != StatusCode::INTERNAL_SERVER_ERROR),
        "{answers:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_in_whose_middle_the_host_was_killed_is_not_made_again_and_said_to_be_unknown() {
    let stage = Stage::new().await;
    let key = ("idempotency-key", "killed");
    let input = json!({ "milliseconds": 60_000 });
    let id = id(&stage.call("sleep", input.clone(), &[key, ASYNC]).await);
    let stage = stage.killed_and_started_again();
    for headers in [&[key][..], &[key, ASYNC]] {
        let retry = stage.call("sleep", input.clone(), headers).await;
        assert_eq!((retry.status, kind(&retry)), (StatusCode::CONFLICT, "/problems/outcome-unknown".to_owned()));
        assert_eq!(retry.json()["invocation"], json!(id));
    }
    let call = stage.ended(&id).await;
    assert_eq!((&call["state"], &call["problem"]["type"]), (&json!("unknown"), &json!("/problems/outcome-unknown")));
    let cancelled =
        stage.served.api(Method::POST, &format!("/v1/invocations/{id}/cancel"), &stage.token, &Value::Null).await;
    assert_eq!(cancelled.json()["state"], "unknown");
    assert_eq!(stage.calls_in_the_log(), 0, "nothing was called again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_nobody_waits_for_ends_before_the_server_does() {
    let stage = Stage::new().await;
    let id = id(&stage.call("sleep", json!({ "milliseconds": 1_500 }), &[ASYNC]).await);
    let Stage { agent, served, token } = stage;
    served.signal(Signal::TERM);
    assert!(served.ended().await.success());
    let served = Served::start(agent.host.home().folder());
    let stage = Stage { agent, served, token };
    assert_eq!(stage.ended(&id).await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_too_large_to_be_kept_is_given_once() {
    let stage = Stage::new().await;
    let key = ("idempotency-key", "large");
    let first = stage.call("return-text", json!({ "length": 2 << 20 }), &[key]).await;
    assert_eq!((first.status, first.json()["result"].as_str().map(str::len)), (StatusCode::OK, Some(2 << 20)));
    let again = stage.call("return-text", json!({ "length": 2 << 20 }), &[key]).await;
    assert_eq!((again.status, kind(&again)), (StatusCode::CONFLICT, "/problems/outcome-unknown".to_owned()));
    assert_eq!(stage.ended(&id(&first)).await["state"], "succeeded");
    assert_eq!(stage.calls_in_the_log(), 1);
}

/// The token that alice has connected; no answer may have it.
const SECRET: &str = "api-canary-7Tq2-token";

#[tokio::test(flavor = "multi_thread")]
async fn connected_accounts_are_seen_and_ended_by_their_user_and_by_operators() {
    let stage = Stage::new().await;
    let id = stage.agent.connect("github", &["repo"], SECRET).await.to_string();
    let admin = operator(&stage);
    let (alice, bob) = (stage.token_for("bot", "alice", &["connect"]), stage.token_for("bot", "bob", &["connect"]));
    let ask = async |token: &str, method: Method, path: &str| {
        let answer = stage.served.api(method, path, token, &Value::Null).await;
        assert!(!answer.text().contains(SECRET), "{path}: {}", answer.text());
        answer
    };
    let one = format!("/v1/connections/{id}");
    for (token, seen) in [(&alice, 1), (&bob, 0), (&admin, 1)] {
        let list = ask(token, Method::GET, "/v1/connections").await.json();
        assert_eq!(list["connections"].as_array().unwrap().len(), seen, "{list}");
        assert_eq!(ask(token, Method::GET, &one).await.status == StatusCode::OK, seen == 1);
    }
    assert_eq!(ask(&bob, Method::DELETE, &one).await.status, StatusCode::NOT_FOUND);
    assert_eq!(ask(&bob, Method::GET, "/v1/connections?user=alice").await.status, StatusCode::FORBIDDEN);
    assert_eq!(ask(&admin, Method::GET, "/v1/connections?user=bob").await.json()["connections"], json!([]));
    assert_eq!(ask(&admin, Method::GET, "/v1/connections?provider=google").await.json()["connections"], json!([]));
    assert_eq!(
        ask(&stage.token, Method::GET, "/v1/connections").await.status,
        StatusCode::FORBIDDEN,
        "it may only invoke"
    );

    let shown = ask(&alice, Method::GET, &one).await.json();
    assert_eq!(
        (&shown["user"], &shown["provider"], &shown["state"]),
        (&json!("alice"), &json!("github"), &json!("active"))
    );
    let gone = ask(&alice, Method::DELETE, &one).await;
    assert_eq!((gone.status, &gone.json()["connection"]["id"]), (StatusCode::OK, &json!(id)), "{}", gone.text());
    for token in [&alice, &admin] {
        assert_eq!(ask(token, Method::GET, &one).await.status, StatusCode::NOT_FOUND);
        assert_eq!(ask(token, Method::DELETE, &one).await.status, StatusCode::NOT_FOUND);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_users_and_grants_and_callers_what_is_granted_to_them() {
    let stage = Stage::new().await;
    stage.agent.connect("github", &["repo"], SECRET).await;
    let admin = operator(&stage);
    let carol = stage.token_for("bot", "carol", &["invoke"]);
    let ask = async |token: &str, path: &str| stage.served.api(Method::GET, path, token, &Value::Null).await;
    for path in ["/v1/users", "/v1/grants"] {
        assert_eq!(ask(&stage.token, path).await.status, StatusCode::FORBIDDEN, "{path}");
    }
    let users = ask(&admin, "/v1/users").await.json();
    assert_eq!(
        users["users"],
        json!([
            { "user": "alice", "connections": 1, "needs_reconnect": 0, "credentials": 1 },
            { "user": "carol", "connections": 0, "needs_reconnect": 0, "credentials": 1 },
        ])
    );
    let grants = ask(&admin, "/v1/grants").await.json();
    let grant = &grants["grants"][0];
    assert_eq!((&grant["skill"], &grant["users"]), (&json!("attacks"), &json!(["alice", "bob"])));
    assert!(grant["rule"].as_str().unwrap().ends_with("permissions.toml:1"), "{grant}");
    assert_eq!(grant["service"]["use"], "reveal");
    assert_eq!(ask(&admin, "/v1/grants?skill=other").await.json()["grants"], json!([]));

    let effective = ask(&stage.token, "/v1/skills/attacks/grants").await.json();
    let service = &effective["services"][0];
    assert_eq!(
        (&service["granted"], &service["use"], &service["scopes"]),
        (&json!(true), &json!("reveal"), &json!(["repo"]))
    );
    assert_eq!(service["rules"], json!(["permissions.toml:1"]));
    assert_eq!(effective["policy"], grants["policy"]);
    // Who is refused hears who can change that, and how.
    let refused = ask(&carol, "/v1/skills/attacks/grants").await.json();
    let service = &refused["services"][0];
    assert_eq!((&service["granted"], &service["denial"]["denied"]), (&json!(false), &json!("service-not-granted")));
    assert!(service["denial"]["allow"][0]["lines"].as_str().unwrap().contains("[[grant]]"), "{service}");
    assert_eq!(ask(&carol, "/v1/skills/nothing/grants").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_hear_which_rule_refused_them_and_of_no_folder_of_this_machine() {
    let old = GRANT.replace("\"alice\", \"bob\"", "\"dave\"");
    let stage = Stage::with(&format!(
        "{GRANT}[[grant.request]]\norigin = \"https://api.github.com\"\nmethods = [\"POST\"]\n{old}expires = 2020-01-01\n"
    ))
    .await;
    let home = stage.agent.host.home().folder();
    let folder = home.parent().unwrap().to_str().unwrap();
    // During a call, by its rule and where more would be granted.
    let input = json!({ "authority": "api.github.com", "method": "GET", "header-name": "" });
    let answer = stage.call("fetch", input.clone(), &[]).await;
    assert!(!answer.text().contains(folder), "{}", answer.text());
    let denial = &answer.json()["denials"][0];
    assert_eq!(denial["rule"], "permissions.toml:1", "{}", answer.text());
    assert_eq!(denial["allow"][0]["in"], "the permissions, in the [[grant]] at permissions.toml:1");

    // The same over the Model Context Protocol.
    let bearer = format!("Bearer {}", stage.token);
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "attacks_fetch"),
    ];
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": { "name": "tests", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let params = json!({ "name": "attacks_fetch", "arguments": input, "_meta": meta });
    let request = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    let answer = send(Method::POST, &stage.served.at("/mcp"), &headers, request.to_string()).await;
    assert!(answer.text().contains("permissions.toml:1") && !answer.text().contains(folder), "{}", answer.text());

    // Before a call, and without one.
    let dave = stage.token_for("bot", "dave", &["invoke"]);
    let refused = stage.call_as(&dave, "remember", json!({}), &[]).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.text());
    let grants = stage.served.api(Method::GET, "/v1/skills/attacks/grants", &dave, &Value::Null).await;
    assert_eq!(grants.json()["services"][0]["denial"]["rule"], "permissions.toml:12", "{}", grants.text());
    for answer in [refused, grants] {
        assert!(!answer.text().contains(folder), "{}", answer.text());
    }

    // The operator is told where the file is.
    let output = served::run(home, &["policy", "explain", "--skill", "attacks", "--user", "dave", "--json"]);
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains(home.join("permissions.toml").to_str().unwrap()), "{told}");
}

/// An operator's token, for no user.
fn operator(stage: &Stage) -> String {
    let made =
        served::json(stage.agent.host.home().folder(), &["token", "create", "--agent", "ops", "--scope", "admin"]);
    made["token"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_read_the_audit_log_in_pages_and_a_receipt_leads_to_its_entry() {
    let stage = Stage::new().await;
    let admin = operator(&stage);
    let ask = async |path: &str| stage.served.api(Method::GET, path, &admin, &Value::Null).await;
    for _ in 0..4 {
        assert_eq!(stage.call("remember", json!({}), &[]).await.status, StatusCode::OK);
    }
    let call = stage.call("return-text", json!({ "length": 1 }), &[]).await.json();

    let (mut found, mut path) = (Vec::new(), "/v1/audit?limit=2&kind=invoked".to_owned());
    loop {
        let page = ask(&path).await.json();
        found.extend(page["entries"].as_array().unwrap().clone());
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/audit?limit=2&kind=invoked&cursor={cursor}");
    }
    let numbers: Vec<_> = found.iter().map(|entry| entry["seq"].as_u64().unwrap()).collect();
    assert!(numbers.len() == 5 && numbers.is_sorted_by(|a, b| a > b), "the latest first, each once: {numbers:?}");
    assert_eq!(found[0]["tool"], "return-text");

    // The receipt of a call says where its entry stands.
    let receipt = &call["receipt"];
    assert_eq!((&receipt["invocation"], &receipt["tool"]), (&call["id"], &json!("return-text")));
    let entries = ask(&format!("/v1/audit?invocation={}", call["id"].as_str().unwrap())).await.json();
    assert_eq!((&entries["entries"][0]["file"], &entries["entries"][0]["seq"]), (&receipt["chain"], &receipt["entry"]));

    assert_eq!(ask("/v1/audit?user=nobody").await.json()["entries"], json!([]));
    assert_eq!(ask("/v1/audit?since=2999-01-01T00:00:00Z").await.json()["entries"], json!([]));
    let all = ask("/v1/audit?all=true").await.json();
    assert!(all["entries"].as_array().unwrap().len() > 5);

    // Each member of an entry is described.
    let described = send(Method::GET, &stage.served.at("/openapi.json"), &[], "").await.json();
    let described = &described["components"]["schemas"]["AuditEntry"]["properties"];
    for (name, value) in all["entries"].as_array().unwrap().iter().flat_map(|entry| entry.as_object().unwrap()) {
        assert!(described[name].is_object(), "{name} is described nowhere: {value}");
    }
    assert!(found.iter().all(|entry| entry["took_ms"].is_u64()) && described["took_ms"].is_object(), "{found:?}");
    for wrong in ["kind=slept", "since=yesterday", "invocation=x", "limit=1000", "colour=red"] {
        let answer = ask(&format!("/v1/audit?{wrong}")).await;
        let (name, _) = wrong.split_once('=').unwrap();
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{wrong}");
        assert!(answer.json()["detail"].as_str().unwrap().contains(name), "{}", answer.text());
    }
    assert_eq!(stage.get("/v1/audit").await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_request_that_does_not_fit_is_told_so_in_words_of_the_api() {
    let stage = Stage::new().await;
    let bearer = format!("Bearer {}", stage.token);
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    for (body, status, words) in [
        (
            r#"{ "skill": "attacks", "arguments": {} }"#,
            StatusCode::UNPROCESSABLE_ENTITY,
            "the body: arguments: unknown field",
        ),
        ("[]", StatusCode::UNPROCESSABLE_ENTITY, "an object with `skill`, `tool`, `input` and `timeout`"),
        ("{", StatusCode::BAD_REQUEST, "the body: EOF"),
    ] {
        let answer = send(Method::POST, &stage.served.at("/v1/invocations"), &headers, body).await;
        assert_eq!(answer.status, status, "{body}");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(words), "{detail}");
        assert!(!detail.contains("NewInvocation") && !detail.contains("target type"), "{detail}");
    }
    let admin = token(stage.agent.host.home().folder(), "ops", "alice", &["admin"]);
    let answer = stage.served.api(Method::GET, "/v1/audit?kind=sent", &admin, &Value::Null).await;
    assert!(answer.json()["detail"].as_str().unwrap().contains("change-unreadable"), "{:?}", answer.json());
}
