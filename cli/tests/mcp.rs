//! The Model Context Protocol, as an agent meets it: an official client, over stdio and HTTP, in both of its revisions.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "which client speaks is said by the environment")]

mod served;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use clawcoil_tests::http::{Answer, send};
use clawcoil_tests::{Browser, skills};
use http::{Method, StatusCode, header};
use serde_json::{Value, json};

use served::stage::Stage;

const MAIL: &str = "gmail-send_send";
const NEWEST: &str = "2026-07-28";
const OLDER: &str = "2025-11-25";

/// The official client for TypeScript, or the one that `cargo xtask prove mcp` names: a list of words, as JSON.
fn official_client() -> Command {
    let named = std::env::var("CLAWCOIL_MCP_CLIENT").ok();
    let words: Vec<String> = named.map_or_else(
        || ["node", "tests/node/mcp-client.mjs"].map(str::to_owned).into(),
        |words| serde_json::from_str(&words).unwrap(),
    );
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

/// An official client in a process of its own.
struct Client {
    process: Child,
    input: ChildStdin,
    said: Receiver<Value>,
}

impl Client {
    /// Starts it; the first thing that it says is that it is connected, or refused.
    fn start(settings: &Value) -> (Self, Value) {
        let mut command = official_client();
        command.current_dir(skills::root()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.env_remove("RUST_LOG").stderr(Stdio::null()).spawn().unwrap();
        let input = process.stdin.take().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let (sender, said) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = sender.send(serde_json::from_str(&line).unwrap_or(Value::String(line)));
            }
        });
        let mut client = Self { process, input, said };
        client.tell(settings);
        let first = client.hear();
        (client, first)
    }

    /// An agent of alice that starts `clawcoil mcp` by itself.
    fn stdio(stage: &Stage, version: &str, elicitation: Option<&str>) -> Self {
        let home = stage.home();
        let settings = json!({
            "command": env!("CARGO_BIN_EXE_clawcoil"),
            "args": ["mcp", "--user", "alice", "--home", home.to_str().unwrap()],
            "mode": mode(version), "elicitation": elicitation,
        });
        Self::connected(&settings, version)
    }

    /// A program that calls the server with this token.
    fn http(stage: &Stage, token: &str, version: &str, elicitation: Option<&str>) -> Self {
        let settings = json!({
            "url": stage.served.at("/mcp"), "token": token, "mode": mode(version), "elicitation": elicitation,
        });
        Self::connected(&settings, version)
    }

    fn connected(settings: &Value, version: &str) -> Self {
        let (client, first) = Self::start(settings);
        assert_eq!(first["event"], "connected", "{first}");
        assert_eq!(first["version"], version, "{first}");
        client
    }

    fn tell(&mut self, line: &Value) {
        writeln!(self.input, "{line}").unwrap();
    }

    /// What it says next.
    fn hear(&self) -> Value {
        self.said
            .recv_timeout(Duration::from_mins(1))
            .unwrap_or_else(|error| panic!("the client says nothing: {error}"))
    }

    /// The next line that has this member; what comes before is returned, too.
    fn hear_of(&self, member: &str) -> (Value, Vec<Value>) {
        let mut before = Vec::new();
        loop {
            let line = self.hear();
            if line.get(member).is_some() {
                return (line, before);
            }
            assert!(line.get("failed").is_none(), "{line}");
            before.push(line);
        }
    }

    fn tools(&mut self) -> Vec<Value> {
        self.tell(&json!({ "list": true }));
        self.hear_of("tools").0["tools"].as_array().unwrap().clone()
    }

    fn send_mail(&mut self) {
        let mail = json!({ "to": ["grace@example.com"], "subject": "Hi", "body": "Hello" });
        self.tell(&json!({ "call": MAIL, "arguments": mail }));
    }

    fn call(&mut self, tool: &str, arguments: &Value) -> Value {
        self.tell(&json!({ "call": tool, "arguments": arguments }));
        self.hear_of("result").0["result"].clone()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn mode(version: &str) -> Value {
    if version == NEWEST { json!({ "pin": NEWEST }) } else { json!("legacy") }
}

fn names(tools: &[Value]) -> Vec<String> {
    tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
}

fn text(result: &Value) -> &str {
    result["content"][0]["text"].as_str().unwrap()
}

/// The person opens the link that the client shows, and connects.
async fn connect(stage: &Stage, browser: &mut Browser, link: &str) {
    let mut page = browser.visit(link.parse().unwrap()).await;
    if page.url.path().starts_with("/sign-in/link/") {
        page = browser.send(&page, "", &[]).await;
    }
    let path = page.url.path().to_owned();
    assert!(path.starts_with("/connect/cs_"), "{}: {}", page.url, page.answer.text());
    let page = browser.send(&page, &format!("{path}/continue"), &[]).await;
    let page = browser.consent_from(page, stage.provider.origin(), "alice@mail.example").await;
    let page = browser.send(&page, &format!("{path}/confirm"), &[]).await;
    assert!(page.answer.text().contains("You can close this window"), "{}", page.answer.text());
}

/// A skill without an account, with a tool that takes its time.
fn add_test_skill(stage: &Stage) {
    stage.agent.host.registry().add(&skills::component("conformance"), None).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn over_stdio_a_call_waits_for_the_person_and_goes_on() {
    for version in [NEWEST, OLDER] {
        let stage = Stage::new().await;
        let mut client = Client::stdio(&stage, version, Some("accept"));
        let tools = client.tools();
        assert_eq!(names(&tools), ["gmail-send_self_check", MAIL]);
        assert_eq!(tools[1]["inputSchema"]["type"], "object");
        assert_eq!(tools[1]["outputSchema"]["type"], "object");
        assert_eq!(tools[1]["annotations"]["readOnlyHint"], false);

        client.send_mail();
        let (asked, _) = client.hear_of("url");
        assert_eq!(asked["mode"], "url", "{asked}");
        // The agent's own machine: the link signs the browser in.
        connect(&stage, &mut Browser::new(), asked["url"].as_str().unwrap()).await;
        let (result, _) = client.hear_of("result");
        assert!(result["result"]["structuredContent"]["id"].is_string(), "{version}: {result}");
        assert_eq!(stage.provider.requests().await.len(), 1, "the skill has run once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http_a_call_waits_for_the_person_and_goes_on() {
    for version in [NEWEST, OLDER] {
        let stage = Stage::new().await;
        let mut client = Client::http(&stage, &stage.token, version, Some("accept"));
        assert!(names(&client.tools()).contains(&MAIL.to_owned()));
        client.send_mail();
        let (asked, _) = client.hear_of("url");
        let link = asked["url"].as_str().unwrap();
        // Whoever has the link and is not alice gets nowhere.
        let mut bob = stage.signed_in(&["--user", "bob"]).await;
        assert_eq!(bob.visit(link.parse().unwrap()).await.answer.status, StatusCode::FORBIDDEN);
        let mut alice = stage.signed_in(&["--user", "alice"]).await;
        connect(&stage, &mut alice, link).await;
        let (result, before) = client.hear_of("result");
        assert!(result["result"]["structuredContent"]["id"].is_string(), "{version}: {result}");
        assert!(before.iter().any(|line| line["event"] == "progress"), "{before:?}");
        assert_eq!(stage.provider.requests().await.len(), 1, "the skill has run once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_waited_goes_on_only_while_its_credential_is_good() {
    let stage = Stage::new().await;
    let mut client = Client::http(&stage, &stage.token, OLDER, Some("accept"));
    client.send_mail();
    let (asked, _) = client.hear_of("url");
    let tokens = served::json(&stage.home(), &["token", "list"]);
    served::json(&stage.home(), &["token", "revoke", tokens["tokens"][0]["name"].as_str().unwrap()]);
    let mut alice = stage.signed_in(&["--user", "alice"]).await;
    connect(&stage, &mut alice, asked["url"].as_str().unwrap()).await;
    let result = client.hear_of("result").0["result"].clone();
    assert!(result["isError"] == true && text(&result).contains("revoked"), "{result}");
    assert!(stage.provider.requests().await.is_empty(), "nothing has run");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_opens_no_links_is_told_in_words_and_in_meta() {
    let stage = Stage::new().await;
    for version in [NEWEST, OLDER] {
        let mut client = Client::http(&stage, &stage.token, version, None);
        client.send_mail();
        let result = client.hear_of("result").0["result"].clone();
        assert_eq!(result["isError"], true, "{result}");
        let link = result["_meta"]["clawcoil/connect"]["links"][0]["url"].as_str().unwrap();
        assert!(text(&result).contains(link) && text(&result).contains("call it again"), "{result}");
    }
    // A credential that may not ask for connections gets no link.
    let token = served::token(&stage.home(), "bot", "alice", &["invoke"]);
    let mut client = Client::http(&stage, &token, OLDER, None);
    client.send_mail();
    let result = client.hear_of("result").0["result"].clone();
    assert!(text(&result).contains("scope connect") && !text(&result).contains("http://"), "{result}");
    assert!(stage.provider.requests().await.is_empty(), "nothing has run");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_declines_is_taken_at_their_word() {
    let stage = Stage::new().await;
    for version in [NEWEST, OLDER] {
        let mut client = Client::stdio(&stage, version, Some("decline"));
        client.send_mail();
        let result = client.hear_of("result").0["result"].clone();
        assert_eq!(result["isError"], true);
        assert!(text(&result).contains("did not want to open"), "{result}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_call_ends_the_skill() {
    let stage = Stage::new().await;
    add_test_skill(&stage);
    let mut clients = Vec::new();
    for version in [NEWEST, OLDER] {
        clients.push(Client::stdio(&stage, version, None));
        clients.push(Client::http(&stage, &stage.token, version, None));
    }
    for (number, client) in clients.iter_mut().enumerate() {
        client.tell(&json!({ "call": "test_sleep", "arguments": { "milliseconds": 100_000 }, "cancelAfter": 1500 }));
        let failed = loop {
            let line = client.hear();
            if line.get("failed").is_some() {
                break line;
            }
        };
        assert!(failed["failed"].as_str().unwrap().contains("cancelled"), "{failed}");
        // The call's entry is written when it has ended: long before the skill would have.
        let ended = || stage.audit().matches("\"sleep\"").count() > number;
        let mut looks = 0;
        while !ended() {
            looks += 1;
            assert!(looks < 40, "client {number}: the skill still runs: {}", stage.audit());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(text(&client.call("test_simple_text", &json!({}))), "This is a simple text response for testing.");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_sees_what_its_policy_lets_start_and_hears_when_that_changes() {
    let stage = Stage::new().await;
    let mut clients: Vec<Client> =
        [NEWEST, OLDER].map(|version| Client::http(&stage, &stage.token, version, None)).into();
    clients.push(Client::stdio(&stage, NEWEST, None));
    for client in &mut clients {
        assert!(names(&client.tools()).contains(&MAIL.to_owned()));
    }
    stage.agent.permit("[[forbid]]\nusers = [\"alice\"]\nprovider = \"google\"\n");
    for client in &mut clients {
        let (changed, _) = client.hear_of("count");
        assert_eq!(changed["event"], "tools-changed", "{changed}");
        assert_eq!(client.tools(), Vec::<Value>::new());
        client.send_mail();
        let failed = client.hear();
        assert_eq!(failed["code"], -32602, "what is not offered is not there: {failed}");
    }
    add_test_skill(&stage);
    for client in &mut clients {
        client.hear_of("count");
        let all = ["error_handling", "logging_tool", "simple_text", "sleep", "streaming_elicitation"];
        assert_eq!(names(&client.tools()), all.map(|tool| format!("test_{tool}")), "in a stable order");
        let failed = client.call("test_error_handling", &json!({}));
        assert_eq!(failed["isError"], true);
        assert!(text(&failed).contains("intentionally"), "{failed}");
        let wrong = client.call("test_sleep", &json!({ "milliseconds": "long" }));
        assert!(wrong["isError"] == true && text(&wrong).contains("milliseconds"), "{wrong}");
    }
}

/// A request by hand.
async fn raw(stage: &Stage, method: Method, headers: &[(&str, &str)], body: &Value) -> Answer {
    let always = [("content-type", "application/json"), ("accept", "application/json, text/event-stream")];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    send(method, &stage.served.at("/mcp"), &[&always, headers].concat(), body).await
}

fn initialize() -> Value {
    let client = json!({ "name": "tests", "version": "1" });
    json!({
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": { "protocolVersion": OLDER, "capabilities": {}, "clientInfo": client },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_credential_a_client_is_told_where_to_get_one_and_for_what() {
    let stage = Stage::new().await;
    let metadata = stage.served.at("/.well-known/oauth-protected-resource/mcp");
    let admin = served::json(&stage.home(), &["token", "create", "--agent", "ops", "--scope", "admin"]);
    let admin = format!("Bearer {}", admin["token"].as_str().unwrap());
    let unknown = "Bearer claw_unknown";
    for (credential, status, error) in [
        (None, StatusCode::UNAUTHORIZED, None),
        (Some(unknown), StatusCode::UNAUTHORIZED, Some("error=\"invalid_token\"")),
        (Some(admin.as_str()), StatusCode::FORBIDDEN, Some("error=\"insufficient_scope\"")),
    ] {
        let headers: Vec<_> = credential.iter().map(|credential| ("authorization", *credential)).collect();
        let answer = raw(&stage, Method::POST, &headers, &initialize()).await;
        assert_eq!(answer.status, status);
        let challenge = answer.headers[header::WWW_AUTHENTICATE].to_str().unwrap();
        assert!(challenge.contains(&format!("resource_metadata=\"{metadata}\"")), "{challenge}");
        assert!(challenge.contains("scope=\"invoke connect\""), "{challenge}");
        assert!(error.is_none_or(|error| challenge.contains(error)), "{challenge}");
    }
    let told = send(Method::GET, &metadata, &[], "").await.json();
    assert_eq!(told["resource"], stage.served.at("/mcp").as_str());
    assert_eq!(told["scopes_supported"], json!(["invoke", "connect"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_of_no_use_to_anyone_but_its_caller() {
    let stage = Stage::new().await;
    let alice = format!("Bearer {}", stage.token);
    let bob = format!("Bearer {}", served::token(&stage.home(), "bot", "bob", &["invoke"]));
    let begun = raw(&stage, Method::POST, &[("authorization", &alice)], &initialize()).await;
    assert_eq!(begun.status, StatusCode::OK, "{}", begun.text());
    let session = begun.headers["mcp-session-id"].to_str().unwrap().to_owned();
    let list = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/list" });
    for method in [Method::POST, Method::GET, Method::DELETE] {
        let body = if method == Method::POST { &list } else { &Value::Null };
        let headers = [("authorization", bob.as_str()), ("mcp-session-id", &session)];
        assert_eq!(raw(&stage, method.clone(), &headers, body).await.status, StatusCode::NOT_FOUND, "{method}");
    }
    let headers = [("authorization", alice.as_str()), ("mcp-session-id", &session)];
    // What is not found in a request that stands alone says nothing of the session.
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": NEWEST, "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": { "name": "tests", "version": "1" },
    });
    let nothing = json!({ "jsonrpc": "2.0", "id": 3, "method": "no/such", "params": { "_meta": meta } });
    let newest = [&headers[..], &[("mcp-protocol-version", NEWEST), ("mcp-method", "no/such")]].concat();
    assert_eq!(raw(&stage, Method::POST, &newest, &nothing).await.status, StatusCode::NOT_FOUND);
    assert_eq!(raw(&stage, Method::POST, &headers, &list).await.status, StatusCode::OK, "it is still there");
    // A place in a list that was never given out.
    let further = json!({ "jsonrpc": "2.0", "id": 4, "method": "tools/list", "params": { "cursor": "2" } });
    let answer = raw(&stage, Method::POST, &headers, &further).await;
    assert!(answer.text().contains("-32602"), "{}", answer.text());
    let ended = raw(&stage, Method::DELETE, &headers, &Value::Null).await;
    assert!(ended.status.is_success(), "{}", ended.status);
    assert_eq!(raw(&stage, Method::POST, &headers, &list).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_says_is_kept_and_repeated_within_bounds() {
    let stage = Stage::new().await;
    let alice = format!("Bearer {}", stage.token);
    let mut hello = initialize();
    hello["params"]["clientInfo"]["name"] = "x".repeat(1 << 20).into();
    let refused = raw(&stage, Method::POST, &[("authorization", &alice)], &hello).await;
    assert!(refused.text().contains("-32602") && refused.text().contains("16 KiB"), "{}", refused.text());

    let mut client = Client::http(&stage, &stage.token, OLDER, None);
    client.tell(&json!({ "call": "x".repeat(1 << 20), "arguments": {} }));
    let failed = client.hear();
    assert_eq!(failed["code"], -32602);
    assert!(failed["failed"].as_str().unwrap().len() < 200, "{failed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn install_writes_one_entry_and_the_agent_that_reads_it_finds_the_tools() {
    let stage = Stage::new().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("openclaw.json");
    std::fs::write(&file, "// mine\n{ theme: 'dark', }\n").unwrap();
    let install = ["mcp", "install", "openclaw", "--user", "alice", "--file", file.to_str().unwrap()];
    let refused = served::run(&stage.home(), &install);
    assert_eq!(refused.status.code(), Some(2), "nobody is there to be asked");
    assert!(
        std::fs::read_to_string(&file).unwrap().starts_with("// mine\n{ theme: 'dark', }"),
        "and nothing is written"
    );

    let written = served::json(&stage.home(), &[&install[..], &["--yes"]].concat());
    assert_eq!(written["written"], true);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("// mine") && text.contains("theme: 'dark'") && text.contains("clawcoil"), "{text}");
    let copy = folder.path().join("openclaw.json.before-clawcoil");
    assert_eq!(std::fs::read_to_string(copy).unwrap(), "// mine\n{ theme: 'dark', }\n");
    let again = served::json(&stage.home(), &install);
    assert_eq!(again["written"], false, "there is nothing left to do");

    // The command in it is one that works.
    let entry = &written["entry"];
    let settings = json!({ "command": entry["command"], "args": entry["args"], "mode": "auto" });
    let mut client = Client::connected(&settings, NEWEST);
    assert!(names(&client.tools()).contains(&MAIL.to_owned()));
}

#[test]
fn install_never_writes_a_token() {
    let folder = tempfile::tempdir().unwrap();
    for (agent, reads) in [
        ("openclaw", "Bearer ${CLAWCOIL_TOKEN}"),
        ("claude-code", "Bearer ${CLAWCOIL_TOKEN}"),
        ("cursor", "Bearer ${env:CLAWCOIL_TOKEN}"),
        ("vscode", "Bearer ${input:clawcoil-token}"),
    ] {
        let install = ["mcp", "install", agent, "--url", "https://skills.example.com", "--print"];
        let shown = served::json(folder.path(), &install);
        assert_eq!(shown["entry"]["headers"]["Authorization"], reads);
        assert_eq!(shown["entry"]["url"], "https://skills.example.com/mcp");
    }
    let refused = served::run(folder.path(), &["mcp", "install", "claude", "--url", "https://skills.example.com"]);
    assert_eq!(refused.status.code(), Some(2));
}
