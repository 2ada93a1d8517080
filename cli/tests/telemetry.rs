//! What `clawcoil serve` tells operators of its inside: traces to a collector, and its log.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod served;

use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clawcoil::clock::{Clock as _, SystemClock};
use clawcoil::id::Owner;
use clawcoil::secret::{AccessToken, ClientSecret, RefreshToken};
use clawcoil::vault::{ClientRegistration, Kind, NewConnection, TokenSet};
use clawcoil_tests::guest::{PROBE_GRANT, PROBE_MANIFEST};
use clawcoil_tests::http::{Answer, send};
use clawcoil_tests::{GuestAgent, Upstream, canary};
use http::{Method, StatusCode};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;
use rustix::process::Signal;
use serde_json::{Value, json};

use served::Served;

const TOKEN: &str = "telemetry-canary-3Kp7-token";
/// Of a program that traces its own work.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// An agent whose skill asks an API in alice's name.
async fn agent(upstream: &Upstream) -> GuestAgent {
    let stand_in = format!("[provider.github.override]\n\"https://api.github.com\" = \"{}\"\n", upstream.origin());
    let agent = GuestAgent::new("probe", PROBE_MANIFEST, PROBE_GRANT, &stand_in, &[]).await;
    agent.connect("github", &["repo"], TOKEN).await;
    agent
}

async fn call(served: &Served, token: &str, url: &str, headers: &[(&str, &str)]) -> Answer {
    let input = json!({ "method": "GET", "url": url, "headers": [], "body": "" });
    let body = json!({ "skill": "probe", "tool": "fetch", "input": input });
    let bearer = format!("Bearer {token}");
    let headers = [&[("authorization", bearer.as_str()), ("content-type", "application/json")], headers].concat();
    send(Method::POST, &served.at("/v1/invocations"), &headers, body.to_string()).await
}

/// The same over MCP, in the revision that has no sessions.
async fn call_over_mcp(served: &Served, token: &str, meta: &Value) -> Answer {
    let mut all = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": { "name": "tests", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    for (name, value) in meta.as_object().unwrap() {
        all[name] = value.clone();
    }
    let arguments = json!({ "method": "GET", "url": "https://api.github.com/", "headers": [], "body": "" });
    let params = json!({ "name": "probe_fetch", "arguments": arguments, "_meta": all });
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    let bearer = format!("Bearer {token}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "probe_fetch"),
    ];
    send(Method::POST, &served.at("/mcp"), &headers, body.to_string()).await
}

/// A collector of traces, and the bodies that it was sent.
async fn collector() -> (Upstream, Arc<Mutex<Vec<Vec<u8>>>>) {
    let bodies: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let kept = Arc::clone(&bodies);
    let collector = Upstream::start(move |seen| {
        assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/v1/traces"));
        assert_eq!(seen.headers["content-type"], "application/x-protobuf");
        kept.lock().unwrap().push(seen.body.to_vec());
        (200, String::new())
    })
    .await;
    (collector, bodies)
}

fn spans(bodies: &[Vec<u8>]) -> Vec<Span> {
    let requests = bodies.iter().map(|body| ExportTraceServiceRequest::decode(body.as_slice()).unwrap());
    requests
        .flat_map(|request| request.resource_spans)
        .flat_map(|of_resource| of_resource.scope_spans)
        .flat_map(|of_scope| of_scope.spans)
        .collect()
}

fn attribute(span: &Span, name: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        AnyValue::StringValue(text) => Some(text.clone()),
        AnyValue::IntValue(number) => Some(number.to_string()),
        other => Some(format!("{other:?}")),
    }
}

fn the_one<'a>(spans: &'a [Span], what: &str, is: impl Fn(&Span) -> bool) -> &'a Span {
    let found: Vec<_> = spans.iter().filter(|span| is(span)).collect();
    assert_eq!(found.len(), 1, "{what}: {:#?}", spans.iter().map(|span| &span.name).collect::<Vec<_>>());
    found[0]
}

fn home(agent: &GuestAgent) -> &Path {
    agent.host.home().folder()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_sees_each_call_within_the_trace_of_its_caller_and_no_secret() {
    let upstream = Upstream::plain().await;
    let agent = agent(&upstream).await;
    let (collector, bodies) = collector().await;
    let config = format!("[traces]\nendpoint = \"{}\"\n", collector.origin());
    std::fs::write(home(&agent).join("serve.toml"), config).unwrap();
    let served = Served::start(home(&agent));
    let token = served::token(home(&agent), "bot", "alice", &["invoke"]);

    let named = format!("00-{TRACE}-{PARENT}-01");
    let answer =
        call(&served, &token, "https://api.github.com/user?secret=2Lz8-canary", &[("traceparent", &named)]).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let refused = call(&served, &token, "https://elsewhere.example.com/", &[]).await;
    assert_eq!(refused.status, StatusCode::OK, "{}", refused.text());
    let other = "ffffffffffffffffffffffffffffff01";
    let over_mcp = call_over_mcp(&served, &token, &json!({ "traceparent": format!("00-{other}-{PARENT}-01") })).await;
    assert_eq!(over_mcp.status, StatusCode::OK, "{}", over_mcp.text());
    assert_eq!(upstream.requests().len(), 2, "the token went out, and only to its API");
    // What is left is sent at the end.
    served.signal(Signal::TERM);
    assert!(served.ended().await.success());

    let bodies = bodies.lock().unwrap().clone();
    let spans = spans(&bodies);
    let parent =
        |span: &Span| format!("{:016x}", u64::from_be_bytes(span.parent_span_id.as_slice().try_into().unwrap()));
    let of_trace = |span: &Span, trace: &str| {
        format!("{:032x}", u128::from_be_bytes(span.trace_id.as_slice().try_into().unwrap())) == trace
    };

    let request = the_one(&spans, "the request", |span| of_trace(span, TRACE) && span.name == "POST /v1/invocations");
    assert_eq!((parent(request).as_str(), request.kind()), (PARENT, SpanKind::Server));
    assert_eq!(attribute(request, "http.response.status_code").unwrap(), "200");
    let id = answer.headers["x-request-id"].to_str().unwrap();
    assert_eq!(attribute(request, "request_id").unwrap(), id);
    let called = the_one(&spans, "its call", |span| of_trace(span, TRACE) && span.name == "tools/call fetch");
    assert_eq!(called.parent_span_id, request.span_id);
    for (name, value) in
        [("gen_ai.operation.name", "execute_tool"), ("gen_ai.tool.name", "fetch"), ("clawcoil.skill", "probe")]
    {
        assert_eq!(attribute(called, name).as_deref(), Some(value));
    }
    assert_eq!(attribute(called, "gen_ai.tool.call.id").as_deref(), answer.json()["id"].as_str());
    assert_eq!(attribute(called, "error.type"), None);
    let first = called;

    let failed = the_one(&spans, "the failed call", |span| attribute(span, "error.type").is_some());
    assert_eq!(
        (failed.name.as_str(), attribute(failed, "error.type").unwrap().as_str()),
        ("tools/call fetch", "tool-error")
    );

    let mcp = the_one(&spans, "the request of MCP", |span| span.name == "mcp tools/call");
    assert!(of_trace(mcp, other) && parent(mcp) == PARENT, "{mcp:?}");
    assert_eq!(attribute(mcp, "mcp.protocol.version").unwrap(), "2026-07-28");
    let called = the_one(&spans, "its call", |span| of_trace(span, other) && span.name == "tools/call fetch");
    assert_eq!(called.parent_span_id, mcp.span_id);

    // What went out for each of the two, by its method and server, and nothing of the refused one.
    for (trace, called) in [(TRACE, first), (other, called)] {
        let sent = the_one(&spans, "what it sent", |span| of_trace(span, trace) && span.kind() == SpanKind::Client);
        assert_eq!((sent.name.as_str(), &sent.parent_span_id), ("GET", &called.span_id));
        for (name, value) in [
            ("http.request.method", "GET"),
            ("server.address", "api.github.com"),
            ("server.port", "443"),
            ("http.response.status_code", "200"),
        ] {
            assert_eq!(attribute(sent, name).as_deref(), Some(value), "{name}");
        }
    }
    assert_eq!(spans.iter().filter(|span| span.kind() == SpanKind::Client).count(), 2);

    let key = std::fs::read_to_string(agent.host.home().key()).unwrap();
    for body in &bodies {
        let text = String::from_utf8_lossy(body);
        for secret in [TOKEN, token.as_str(), "2Lz8-canary", "alice", key.lines().nth(1).unwrap()] {
            assert!(!text.contains(secret), "{secret} is in a trace");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_is_traced_by_itself_and_linked_to_the_call_that_began_it_with_its_request_and_no_secret() {
    let answer = json!({ "access_token": "telemetry-canary-new-token", "token_type": "bearer", "expires_in": 3600 });
    // The API takes the new token only.
    let upstream = Upstream::start(move |seen| match seen.path.as_str() {
        "/token" => (200, answer.to_string()),
        _ if seen.headers["authorization"] == format!("Bearer {TOKEN}") => (401, "{}".to_owned()),
        _ => (200, "{}".to_owned()),
    })
    .await;
    let origin = upstream.origin();
    let provider = format!(
        "[provider.github]\ntoken = \"{origin}/token\"\n[provider.github.override]\n\"https://api.github.com\" = \"{origin}\"\n"
    );
    let agent = GuestAgent::new("probe", PROBE_MANIFEST, PROBE_GRANT, &provider, &[]).await;
    let vault = agent.host.vault();
    let client_secret = Some(ClientSecret::new("telemetry-canary-client".to_owned()));
    let registration = ClientRegistration { client_id: "known".to_owned(), client_secret };
    vault.put_client(&"github".parse().unwrap(), registration).await.unwrap();
    let new = NewConnection {
        owner: Owner::User("alice".parse().unwrap()),
        provider: "github".parse().unwrap(),
        account: "default".parse().unwrap(),
        kind: Kind::AuthorizationCode,
        scopes: ["repo".parse().unwrap()].into(),
    };
    // Its time is not over: it is the call, and not the schedule, that has it refreshed.
    let tokens = TokenSet {
        access: AccessToken::new(TOKEN.to_owned()),
        refresh: Some(RefreshToken::new("telemetry-canary-refresh".to_owned())),
        token_type: "Bearer".to_owned(),
        expires_in: Some(Duration::from_hours(1)),
        requested_at: SystemClock::new().now(),
        scopes: None,
        api_origin: None,
        account_label: None,
        grant_ends_at: None,
    };
    vault.connect(new, tokens, true).await.unwrap();
    let (collector, bodies) = collector().await;
    let config = format!("[traces]\nendpoint = \"{}\"\n", collector.origin());
    std::fs::write(home(&agent).join("serve.toml"), config).unwrap();
    let served = Served::start(home(&agent));
    let token = served::token(home(&agent), "bot", "alice", &["invoke"]);
    let answer = call(&served, &token, "https://api.github.com/user", &[]).await;
    assert_eq!(answer.json()["result"]["status"], 200, "{}", answer.text());
    served.signal(Signal::TERM);
    assert!(served.ended().await.success());

    let bodies = bodies.lock().unwrap().clone();
    let spans = spans(&bodies);
    let refresh = the_one(&spans, "the refresh", |span| span.name == "refresh");
    assert!(refresh.parent_span_id.is_empty());
    let called = the_one(&spans, "the call", |span| span.name == "tools/call fetch");
    let links: Vec<_> = refresh.links.iter().map(|link| (&link.trace_id, &link.span_id)).collect();
    assert_eq!(links, [(&called.trace_id, &called.span_id)]);
    assert_ne!(refresh.trace_id, called.trace_id);
    assert_eq!(attribute(refresh, "clawcoil.provider").as_deref(), Some("github"));
    let asked = the_one(&spans, "its request", |span| span.parent_span_id == refresh.span_id);
    assert_eq!((asked.name.as_str(), asked.kind()), ("POST", SpanKind::Client));
    assert_eq!(attribute(asked, "server.address").as_deref(), Some("127.0.0.1"));
    assert_eq!(attribute(asked, "http.response.status_code").as_deref(), Some("200"));
    for body in &bodies {
        assert!(!String::from_utf8_lossy(body).contains("telemetry-canary"), "a secret is in a trace");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_collector_nothing_is_traced_and_a_wrong_address_is_said() {
    let upstream = Upstream::plain().await;
    let agent = agent(&upstream).await;
    let mut command = served::clawcoil(home(&agent), &["serve", "--listen", "127.0.0.1:0"]);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector.example.com:4318");
    let output = command.output().unwrap();
    let said = canary::without_log("command", &output.stderr);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains("OTEL_EXPORTER_OTLP_ENDPOINT names no collector: it must be https"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_in_json_has_the_request_s_id_in_each_line_and_what_looks_like_a_secret_in_none() {
    let upstream = Upstream::plain().await;
    let agent = agent(&upstream).await;
    let token = served::token(home(&agent), "bot", "alice", &["invoke"]);
    let mut command =
        served::clawcoil(home(&agent), &["serve", "--json", "--log-format", "json", "--listen", "127.0.0.1:0"]);
    // All that anybody logs, without what each skill's compilation says.
    command.env("RUST_LOG", canary::FILTER).env_remove("CLAWCOIL_DANGEROUS_UNREDACTED_LOG");
    let log = tempfile::NamedTempFile::new().unwrap();
    let served = Served::of(command.stderr(Stdio::from(log.reopen().unwrap())), home(&agent));
    let answer = call(&served, &token, "https://elsewhere.example.com/", &[("x-request-id", "from-a-proxy_1")]).await;
    assert_eq!(answer.headers["x-request-id"], "from-a-proxy_1");
    let unnamed = call(&served, &token, "https://api.github.com/", &[("x-request-id", "not {one}")]).await;
    let id = unnamed.headers["x-request-id"].to_str().unwrap().to_owned();
    assert!(id.starts_with("req_"), "{id}");
    // A token where it does not belong, and may be logged.
    let astray = "claw_9Xv5canary0123456789abcdefghij";
    let misplaced = call(&served, &token, "https://api.github.com/", &[("x-request-id", astray)]).await;
    assert_eq!(misplaced.headers["x-request-id"], astray);
    let missing = send(Method::GET, &served.at("/v1/skills?code=9Xv5-canary&access_token=9Xv5-canary"), &[], "").await;
    assert_eq!(missing.json()["request_id"], missing.headers["x-request-id"].to_str().unwrap());
    served.signal(Signal::TERM);
    assert!(served.ended().await.success());

    let text = std::fs::read_to_string(log.path()).unwrap();
    canary::keep("serve-json", text.as_bytes());
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["timestamp"].is_string() && line["level"].is_string()));
    for named in ["from-a-proxy_1", &id] {
        let of_request = lines.iter().filter(|line| line["request_id"] == named).count();
        assert!(of_request > 0, "no line of {named}");
        let within = |line: &&Value| line["spans"].as_array().is_some_and(|spans| spans.contains(&json!("tools/call")));
        assert!(lines.iter().filter(|line| line["request_id"] == named).any(|line| within(&line)), "{named}");
    }
    let of_calls = lines
        .iter()
        .filter(|line| line["target"].as_str().is_some_and(|target| target.starts_with("clawcoil::egress")));
    assert!(of_calls.clone().all(|line| line["request_id"].is_string()), "a line of a call without its request");
    for secret in [TOKEN, token.as_str(), "9Xv5-canary", &astray[5..]] {
        assert!(!text.contains(secret), "{secret} is in the log");
    }
    assert!(lines.iter().any(|line| line["request_id"] == "claw_[redacted]"), "nothing had to be taken out");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_access_log_has_a_line_for_each_request_where_it_is_wanted_and_nothing_that_a_client_wrote() {
    let upstream = Upstream::plain().await;
    let agent = agent(&upstream).await;
    let token = served::token(home(&agent), "bot", "alice", &["invoke"]);
    for (wanted, arguments, filter) in [
        (false, &[][..], None),
        (true, &["--access-log"], None),
        (true, &["--access-log"], Some("error")),
        (true, &["-v"], None),
        (false, &[], Some("clawcoil=info,clawcoil::access=off")),
    ] {
        let mut command = served::clawcoil(home(&agent), &["serve", "--json", "--listen", "127.0.0.1:0"]);
        command.args(["--log-format", "json"]).args(arguments);
        command.env_remove("RUST_LOG").envs(filter.map(|filter| ("RUST_LOG", filter)));
        command.env_remove("CLAWCOIL_DANGEROUS_UNREDACTED_LOG");
        let log = tempfile::NamedTempFile::new().unwrap();
        let served = Served::of(command.stderr(Stdio::from(log.reopen().unwrap())), home(&agent));
        let called = call(&served, &token, "https://api.github.com/", &[("x-request-id", "from-a-proxy_1")]).await;
        assert_eq!(called.status, StatusCode::OK, "{}", called.text());
        let bearer = format!("Bearer {token}");
        let secret = served.at("/v1/invocations/4Tn6-canary?code=4Tn6-canary");
        let missing = send(Method::GET, &secret, &[("authorization", &bearer)], "").await;
        let nowhere = send(Method::GET, &served.at("/4Tn6-canary"), &[], "").await;
        served.signal(Signal::TERM);
        assert!(served.ended().await.success());

        let text = std::fs::read_to_string(log.path()).unwrap();
        canary::keep("serve-json", text.as_bytes());
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let lines: Vec<Value> = lines.filter(|line| line["target"] == "clawcoil::access").collect();
        let said = format!("{arguments:?} {filter:?}: {lines:#?}");
        assert_eq!(lines.len(), if wanted { 3 } else { 0 }, "{said}");
        let expected = [
            ("POST", "/v1/invocations", 200, json!("bot"), "from-a-proxy_1"),
            ("GET", "/v1/invocations/{id}", 404, json!("bot"), missing.headers["x-request-id"].to_str().unwrap()),
            ("GET", "none", 404, Value::Null, nowhere.headers["x-request-id"].to_str().unwrap()),
        ];
        for (line, (method, route, status, client, id)) in lines.iter().zip(expected) {
            let fields = &line["fields"];
            assert_eq!((&line["level"], &line["request_id"]), (&json!("INFO"), &json!(id)), "{said}");
            assert_eq!((&fields["method"], &fields["route"]), (&json!(method), &json!(route)), "{said}");
            assert_eq!((&fields["status"], &fields["client"]), (&json!(status), &client), "{said}");
            assert!(fields["ms"].as_f64().is_some_and(|ms| ms > 0.0), "{said}");
        }
        for secret in [TOKEN, token.as_str(), "4Tn6-canary", "alice"] {
            assert!(!lines.iter().any(|line| line.to_string().contains(secret)), "{secret}: {said}");
        }
    }
}
