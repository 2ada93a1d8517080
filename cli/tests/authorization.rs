//! Who may do what: every address that is served and every method of the Model Context Protocol, by every kind of caller, with
//! the answer that each gets. What is not in these tables is not served.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod served;

use std::collections::BTreeSet;
use std::time::Duration;

use clawcoil::vault::{ClientRegistration, Document};
use clawcoil_tests::guest::ATTACKS_MANIFEST;
use clawcoil_tests::http::{Answer, send};
use clawcoil_tests::{AuthorizationServer, Browser, Form, GuestAgent, skills};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use served::{Served, token};

/// What one kind of request comes to: an HTTP status, or, with a minus, an error code of JSON-RPC in an answer of status 200.
///
/// | column | who sends it |
/// | --- | --- |
/// | none | nobody: there is no credential |
/// | wrong | whoever made up a token |
/// | old | a token that has expired |
/// | ended | a token that was revoked |
/// | other | another user's program, with all scopes that users have, for what is alice's |
/// | scope | alice's program, with a token for other things |
/// | right | alice's program, with a token for this; an operator's, where it is an operator's to do |
type Cells = [i32; 7];

const COLUMNS: [&str; 7] = ["none", "wrong", "old", "ended", "other", "scope", "right"];

/// Method, address, the scope that it takes, and what comes of it.
type Row = (&'static str, &'static str, &'static str, Cells);

#[rustfmt::skip]
const API: &[Row] = &[
    //                                                             none wrong  old ended other scope right
    ("GET",    "/v1/skills",                          "invoke",  [ 401,  401,  401,  401,  200,  403,  200]),
    ("GET",    "/v1/skills/{skill}",                  "invoke",  [ 401,  401,  401,  401,  404,  403,  200]),
    ("GET",    "/v1/skills/{skill}/grants",           "invoke",  [ 401,  401,  401,  401,  200,  403,  200]),
    ("POST",   "/v1/invocations",                     "invoke",  [ 401,  401,  401,  401,  403,  403,  200]),
    ("GET",    "/v1/invocations",                     "invoke",  [ 401,  401,  401,  401,  200,  403,  200]),
    ("GET",    "/v1/invocations/{invocation}",        "invoke",  [ 401,  401,  401,  401,  404,  403,  200]),
    ("POST",   "/v1/invocations/{invocation}/cancel", "invoke",  [ 401,  401,  401,  401,  404,  403,  200]),
    // Bob asks for an account of his own.
    ("POST",   "/v1/connect-sessions",                "connect", [ 401,  401,  401,  401,  201,  403,  201]),
    ("GET",    "/v1/connect-sessions/{session}",      "connect", [ 401,  401,  401,  401,  404,  403,  200]),
    // There is nothing yet that alice could confirm.
    ("POST",   "/v1/connect-sessions/{session}/confirm", "connect", [ 401, 401, 401,  401,  404,  403,  409]),
    ("POST",   "/v1/connect-sessions/{session}/decline", "connect", [ 401, 401, 401,  401,  404,  403,  200]),
    ("GET",    "/v1/connections",                     "connect", [ 401,  401,  401,  401,  200,  403,  200]),
    ("GET",    "/v1/connections/{connection}",        "connect", [ 401,  401,  401,  401,  404,  403,  200]),
    ("DELETE", "/v1/connections/{connection}",        "connect", [ 401,  401,  401,  401,  404,  403,  200]),
    ("GET",    "/v1/users",                           "admin",   [ 401,  401,  401,  401,  403,  403,  200]),
    ("GET",    "/v1/grants",                          "admin",   [ 401,  401,  401,  401,  403,  403,  200]),
    ("GET",    "/v1/audit",                           "admin",   [ 401,  401,  401,  401,  403,  403,  200]),
];

/// An operator's token reaches the accounts of all, and calls no skill for anybody.
#[rustfmt::skip]
const OPERATOR: &[(&str, &str, i32)] = &[
    ("GET",  "/v1/connections",                     200),
    ("GET",  "/v1/connections/{connection}",        200),
    ("DELETE", "/v1/connections/{connection}",      200),
    ("GET",  "/v1/skills",                          403),
    ("GET",  "/v1/skills/{skill}/grants",           403),
    ("POST", "/v1/invocations",                     403),
    ("GET",  "/v1/invocations",                     403),
    ("GET",  "/v1/invocations/{invocation}",        403),
    ("POST", "/v1/invocations/{invocation}/cancel", 403),
    ("POST", "/v1/connect-sessions",                403),
    ("GET",  "/v1/connect-sessions/{session}",      403),
];

/// A program that names the user with each request: nobody named, somebody outside of its pattern, alice.
#[rustfmt::skip]
const ACTING: &[(&str, &str, [i32; 3])] = &[
    //                                                unnamed outside alice
    ("GET",  "/v1/skills",                              [ 400, 403, 200]),
    ("GET",  "/v1/skills/{skill}/grants",               [ 400, 403, 200]),
    ("POST", "/v1/invocations",                         [ 400, 403, 200]),
    ("GET",  "/v1/invocations",                         [ 400, 403, 200]),
    // It was this program that made the call.
    ("GET",  "/v1/invocations/{invocation}",            [ 400, 403, 200]),
    ("POST", "/v1/connect-sessions",                    [ 403, 403, 403]),
    ("GET",  "/v1/connections",                         [ 403, 403, 403]),
    ("GET",  "/v1/audit",                               [ 403, 403, 403]),
];

/// The Model Context Protocol: the method of JSON-RPC, for a tool its name, or the method of HTTP alone.
#[rustfmt::skip]
const MCP: &[(&str, &str, Cells)] = &[
    //                                            none wrong  old ended  other scope right
    ("server/discover", "",                     [ 401,  401,  401,  401,    200,  403,  200]),
    ("initialize",      "",                     [ 401,  401,  401,  401,    200,  403,  200]),
    ("tools/list",      "",                     [ 401,  401,  401,  401,    200,  403,  200]),
    ("tools/call",      "attacks_remember",     [ 401,  401,  401,  401, -32602,  403,  200]),
    ("tools/call",      "attacks_return_text",  [ 401,  401,  401,  401, -32602,  403,  200]),
    ("tools/call",      "test_simple_text",     [ 401,  401,  401,  401,    200,  403,  200]),
    ("tools/call",      "no_such_tool",         [ 401,  401,  401,  401, -32602,  403, -32602]),
    ("GET",             "",                     [ 401,  401,  401,  401,    400,  403,  400]),
    ("DELETE",          "",                     [ 401,  401,  401,  401,    400,  403,  400]),
];

/// What is for anybody. A credential that is shown is judged all the same.
#[rustfmt::skip]
const OPEN: &[(&str, &str, Cells)] = &[
    //                                                    none wrong  old ended other scope right
    ("GET", "/openapi.json",                             [ 200,  401,  401,  401,  200,  200,  200]),
    ("GET", "/healthz",                                  [ 200,  401,  401,  401,  200,  200,  200]),
    ("GET", "/readyz",                                   [ 200,  401,  401,  401,  200,  200,  200]),
    // Where the host serves this machine alone. Else, and with a credential, it takes the scope `admin`.
    ("GET", "/metrics",                                  [ 200,  401,  401,  401,  403,  403,  403]),
    // They say how a client gets a token, most of all one whose token was refused.
    ("GET", "/.well-known/oauth-protected-resource",     [ 200,  200,  200,  200,  200,  200,  200]),
    ("GET", "/.well-known/oauth-protected-resource/mcp", [ 200,  200,  200,  200,  200,  200,  200]),
    // Browsers fetch it, with whatever a proxy adds.
    ("GET", "/static/{digest}/{name}",                   [ 404,  404,  404,  404,  404,  404,  404]),
];

/// A JWT is judged as a token is: which of the columns above is that of each kind.
const JWTS: [(&str, usize); 5] = [
    ("a JWT that has expired", 2),
    ("a JWT for another audience", 1),
    ("a JWT of another user", 4),
    ("a JWT for other things", 5),
    ("the right JWT", 6),
];

/// Pages: nobody is signed in, a made-up cookie, a session that was ended or has expired, bob, an auditor, an operator, alice. Forms are sent as
/// the session's own pages send them.
type PageCells = [i32; 7];

/// Which visitors there are, and the column of each: a session that has expired is worth as much as one from which somebody signed out.
const VISITORS: [(&str, usize); 8] = [
    ("nobody", 0),
    ("made up", 1),
    ("signed out", 2),
    ("expired", 2),
    ("bob", 3),
    ("auditor", 4),
    ("operator", 5),
    ("alice", 6),
];

#[rustfmt::skip]
const PAGES: &[(&str, &str, PageCells)] = &[
    //                                                    nobody made up ended  bob auditor operator alice
    ("GET",  "/sign-in",                               [ 200,    200,    200,    303,    303,    303,    303]),
    // No identity provider is set up, no link was given out, and no provider was asked.
    ("GET",  "/sign-in/provider",                      [ 404,    404,    404,    404,    404,    404,    404]),
    ("GET",  "/sign-in/callback",                      [ 404,    404,    404,    404,    404,    404,    404]),
    ("GET",  "/sign-in/link/{secret}",                 [ 404,    404,    404,    404,    404,    404,    404]),
    ("POST", "/sign-in/link/{secret}",                 [ 404,    404,    404,    404,    404,    404,    404]),
    // A link is alice's alone, whoever else may see everything.
    ("GET",  "/connect/{session}",                     [ 303,    303,    303,    403,    403,    403,    200]),
    ("POST", "/connect/{session}/continue",            [ 303,    303,    303,    403,    403,    403,    200]),
    // There is nothing yet that alice could confirm.
    ("POST", "/connect/{session}/confirm",             [ 303,    303,    303,    403,    403,    403,    409]),
    ("POST", "/connect/{session}/decline",             [ 303,    303,    303,    403,    403,    403,    303]),
    ("GET",  "/callback/{provider}",                   [ 404,    404,    404,    404,    404,    404,    404]),
    ("GET",  "/",                                      [ 303,    303,    303,    200,    200,    200,    200]),
    ("GET",  "/connections",                           [ 303,    303,    303,    403,    200,    200,    403]),
    ("GET",  "/connections/{connection}",              [ 303,    303,    303,    404,    200,    200,    200]),
    ("GET",  "/connections/{connection}/disconnect",   [ 303,    303,    303,    404,    403,    200,    200]),
    ("POST", "/connections/{connection}/disconnect",   [ 303,    303,    303,    404,    403,    200,    200]),
    ("GET",  "/skills",                                [ 303,    303,    303,    403,    200,    200,    403]),
    ("GET",  "/skills/{skill}",                        [ 303,    303,    303,    403,    200,    200,    403]),
    // No version waits to be approved.
    ("POST", "/skills/{skill}/approve",                [ 303,    303,    303,    403,    403,    409,    403]),
    ("POST", "/skills/{skill}/reject",                 [ 303,    303,    303,    403,    403,    409,    403]),
    ("GET",  "/policy",                                [ 303,    303,    303,    403,    200,    200,    403]),
    ("GET",  "/audit",                                 [ 303,    303,    303,    403,    200,    200,    403]),
    ("GET",  "/audit/verify",                          [ 303,    303,    303,    403,    200,    200,    403]),
    ("GET",  "/audit/export",                          [ 303,    303,    303,    403,    200,    200,    403]),
    ("GET",  "/audit/calls/{invocation}",              [ 303,    303,    303,    403,    200,    200,    403]),
    ("GET",  "/calls",                                 [ 303,    303,    303,    200,    403,    403,    200]),
    ("GET",  "/calls/{invocation}",                    [ 303,    303,    303,    404,    403,    403,    200]),
    ("GET",  "/activity",                              [ 303,    303,    303,    403,    200,    200,    403]),
    ("GET",  "/console/events",                        [ 303,    303,    303,    200,    200,    200,    200]),
    // The last, as it ends these sessions.
    ("POST", "/sign-out",                              [ 303,    303,    303,    303,    303,    303,    303]),
];

/// An agent whose skill is granted to alice, with an account of hers, a call, and a connect session.
struct Stage {
    agent: GuestAgent,
    served: Served,
    invocation: String,
    /// Alice's token for this, with all scopes of users.
    alice: String,
}

const GRANT: &str = "[[grant]]\nskill = \"attacks\"\napproval = \"none\"\nusers = [\"alice\"]\nservice = \"service\"\n\
     provider = \"github\"\nscopes = [\"repo\"]\nuse = \"reveal\"\n";

/// The token of alice's account: no answer to anybody has it.
const SECRET: &str = "authorization-canary-8Lw1-token";

const ALL: &[&str] = &["invoke", "connect"];

impl Stage {
    async fn new() -> Self {
        Self::with("").await
    }

    async fn with(config: &str) -> Self {
        let agent = GuestAgent::new("attacks", ATTACKS_MANIFEST, GRANT, "", &[]).await;
        agent.host.registry().add(&skills::component("conformance"), None).unwrap();
        let client = ClientRegistration { client_id: "tests".to_owned(), client_secret: None };
        agent.host.vault().put_client(&"github".parse().unwrap(), client).await.unwrap();
        let home = agent.host.home().folder();
        std::fs::write(home.join("serve.toml"), config).unwrap();
        let served = Served::start(home);
        let alice = token(home, "bot", "alice", ALL);
        let stage = Self { agent, served, invocation: String::new(), alice };
        let bearer = format!("Bearer {}", stage.alice);
        let headers = [("authorization", &*bearer), ("content-type", "application/json"), ("idempotency-key", "kept")];
        let body = body("POST", "/v1/invocations").to_string();
        let kept = send(Method::POST, &stage.served.at("/v1/invocations"), &headers, body).await;
        assert_eq!(kept.status, StatusCode::OK, "{}", kept.text());
        Self { invocation: kept.json()["id"].as_str().unwrap().to_owned(), ..stage }
    }

    /// The address, with things of alice's in it that are as good as new.
    async fn filled(&self, method: &str, path: &str) -> String {
        let mut path = path.replace("{skill}", "attacks").replace("{invocation}", &self.invocation);
        path = path.replace("{digest}", "0").replace("{name}", "none").replace("{provider}", "github");
        path = path.replace("{secret}", "none");
        if path.contains("{session}") {
            let answer = self.served.api(Method::POST, "/v1/connect-sessions", &self.alice, &body(method, "")).await;
            assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
            path = path.replace("{session}", answer.json()["id"].as_str().unwrap());
        }
        if path.contains("{connection}") {
            let id = self.agent.connect("github", &["repo"], SECRET).await;
            path = path.replace("{connection}", &id.to_string());
        }
        path
    }

    /// Sends a request with this credential, for this user where it may name one.
    async fn ask(&self, method: &str, path: &str, credential: Option<&str>, user: Option<&str>) -> Answer {
        let url = self.served.at(&self.filled(method, path).await);
        let bearer = credential.map(|credential| format!("Bearer {credential}"));
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(bearer.iter().map(|bearer| ("authorization", bearer.as_str())));
        headers.extend(user.map(|user| ("clawcoil-user", user)));
        let body = if method == "POST" { body(method, path).to_string() } else { String::new() };
        let answer = send(method.parse().unwrap(), &url, &headers, body).await;
        assert!(!answer.text().contains(SECRET), "{method} {path}: {}", answer.text());
        answer
    }

    async fn ask_mcp(&self, method: &str, tool: &str, credential: Option<&str>) -> i32 {
        let bearer = credential.map(|credential| format!("Bearer {credential}"));
        let mut headers = vec![("content-type", "application/json"), ("accept", "application/json, text/event-stream")];
        headers.extend(bearer.iter().map(|bearer| ("authorization", bearer.as_str())));
        let url = self.served.at("/mcp");
        if let Ok(method @ (Method::GET | Method::DELETE)) = method.parse::<Method>() {
            return i32::from(send(method, &url, &headers, "").await.status.as_u16());
        }
        let mut params = json!({ "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": { "name": "tests", "version": "1" },
            "io.modelcontextprotocol/clientCapabilities": {},
        } });
        if method == "initialize" {
            let client = json!({ "name": "tests", "version": "1" });
            params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client });
        } else {
            headers.extend([("mcp-protocol-version", "2026-07-28"), ("mcp-method", method)]);
        }
        if !tool.is_empty() {
            params["name"] = json!(tool);
            params["arguments"] =
                if tool.ends_with("text") && tool.starts_with("attacks") { json!({ "length": 1 }) } else { json!({}) };
            headers.push(("mcp-name", tool));
        }
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let answer = send(Method::POST, &url, &headers, request.to_string()).await;
        assert!(!answer.text().contains(SECRET), "{method} {tool}: {}", answer.text());
        let code = serde_json::from_slice::<Value>(&answer.body).ok().and_then(|body| body["error"]["code"].as_i64());
        match code {
            Some(code) => i32::try_from(code).unwrap(),
            None => i32::from(answer.status.as_u16()),
        }
    }

    fn token_for(&self, user: &str, scopes: &[&str]) -> String {
        token(self.agent.host.home().folder(), "bot", user, scopes)
    }

    /// A token as `clawcoil token create` makes it with these arguments.
    fn made(&self, arguments: &[&str]) -> Value {
        served::json(self.agent.host.home().folder(), &[&["token", "create", "--agent", "bot"], arguments].concat())
    }

    /// A credential for each column, in front of something that takes this scope.
    async fn credentials(&self, scope: &str) -> [Option<String>; 7] {
        let text = |made: &Value| made["token"].as_str().unwrap().to_owned();
        let old = text(&self.made(&["--user", "alice", "--scope", "invoke", "--scope", "connect", "--expires", "1s"]));
        let ended = self.made(&["--user", "alice", "--scope", "invoke", "--scope", "connect"]);
        let revoked =
            served::run(self.agent.host.home().folder(), &["token", "revoke", ended["name"].as_str().unwrap()]);
        assert!(revoked.status.success());
        let (scopes, right) = match scope {
            "invoke" => (&["connect"][..], self.token_for("alice", &["invoke"])),
            "connect" => (&["invoke"][..], self.token_for("alice", &["connect"])),
            "admin" => (ALL, text(&self.made(&["--scope", "admin"]))),
            other => panic!("{other} is no scope"),
        };
        // It expires within its second.
        while self.served.api(Method::GET, "/v1/skills", &old, &Value::Null).await.status == StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let made_up = format!("claw_{}", "A".repeat(43));
        let (other, scope) = (self.token_for("bob", ALL), self.token_for("alice", scopes));
        [None, Some(made_up), Some(old), Some(text(&ended)), Some(other), Some(scope), Some(right)]
    }
}

/// The issuer of JWTs that say this of their user; the one that takes these scopes for them.
struct Issuer(AuthorizationServer, &'static [&'static str]);

impl Issuer {
    const AUDIENCE: &str = "https://skills.example.com";
    const OTHER: &str = "https://other.example.com";

    fn of(user: &str, scopes: &'static [&'static str], late: bool) -> Self {
        let more = json!({ "jwt_claims": { "user": user }, "clock_offset_seconds": if late { -7200 } else { 0 } });
        Self(AuthorizationServer::issuing_jwts(&[Self::AUDIENCE, Self::OTHER], &more), scopes)
    }

    /// As an operator trusts it.
    fn entry(&self) -> String {
        format!(
            "[[identity_provider]]\nissuer = \"{}\"\naudience = \"{}\"\nuser_claim = \"user\"\nclient = \"bot\"\nscopes = {:?}\n",
            self.0.origin(),
            Self::AUDIENCE,
            self.1
        )
    }

    async fn jwt(&self) -> String {
        self.0.jwt(Self::AUDIENCE).await
    }
}

/// A body that fits.
fn body(method: &str, path: &str) -> Value {
    match (method, path) {
        ("POST", "/v1/invocations") => json!({ "skill": "attacks", "tool": "return-text", "input": { "length": 5 } }),
        ("POST", path) if path.ends_with("/confirm") => json!({ "code": "none" }),
        ("POST", path) if path.ends_with("/decline") || path.ends_with("/cancel") => json!({}),
        _ => json!({ "provider": "github", "scopes": ["repo"] }),
    }
}

/// Compares a whole table before it fails, so that one sees all that is wrong.
#[derive(Default)]
struct Compared {
    cells: usize,
    wrong: Vec<String>,
}

impl Compared {
    fn cell(&mut self, what: &str, expected: i32, found: i32) {
        self.cells += 1;
        if expected != found {
            self.wrong.push(format!("{what}: {found} and not {expected}"));
        }
    }

    fn done(self, at_least: usize) {
        assert!(
            self.wrong.is_empty(),
            "{} of {} cells are wrong:\n{}",
            self.wrong.len(),
            self.cells,
            self.wrong.join("\n")
        );
        assert!(self.cells >= at_least, "{} cells", self.cells);
    }
}

fn status(answer: &Answer) -> i32 {
    i32::from(answer.status.as_u16())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_to_the_api_is_answered_as_its_credential_deserves() {
    let stage = Stage::new().await;
    let mut compared = Compared::default();
    for scope in ["invoke", "connect", "admin"] {
        let credentials = stage.credentials(scope).await;
        for (method, path, _, cells) in API.iter().filter(|row| row.2 == scope) {
            for ((column, credential), expected) in COLUMNS.iter().zip(&credentials).zip(cells) {
                let answer = stage.ask(method, path, credential.as_deref(), None).await;
                let what = format!("{method} {path}, {column}");
                compared.cell(&what, *expected, status(&answer));
                if *column != "right" {
                    assert!(!answer.text().contains("alice"), "{what} tells of alice: {}", answer.text());
                }
            }
        }
    }
    let operator = stage.made(&["--scope", "admin"])["token"].as_str().unwrap().to_owned();
    for (method, path, expected) in OPERATOR {
        let answer = stage.ask(method, path, Some(&operator), None).await;
        compared.cell(&format!("{method} {path}, an operator"), *expected, status(&answer));
    }
    let acting = stage.made(&["--act-as", "a*"])["token"].as_str().unwrap().to_owned();
    for (method, path, cells) in ACTING {
        for (user, expected) in [None, Some("bob"), Some("alice")].into_iter().zip(cells) {
            let answer = stage.ask(method, path, Some(&acting), user).await;
            compared.cell(&format!("{method} {path} for {user:?}"), *expected, status(&answer));
        }
    }
    compared.done(API.len() * 7 + OPERATOR.len() + ACTING.len() * 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_method_of_the_protocol_is_answered_as_its_credential_deserves() {
    let stage = Stage::new().await;
    let mut compared = Compared::default();
    let credentials = stage.credentials("invoke").await;
    for (method, tool, cells) in MCP {
        for ((column, credential), expected) in COLUMNS.iter().zip(&credentials).zip(cells) {
            let found = stage.ask_mcp(method, tool, credential.as_deref()).await;
            compared.cell(&format!("{method} {tool}, {column}"), *expected, found);
        }
    }
    for (method, path, expected) in OPEN {
        for ((column, credential), expected) in COLUMNS.iter().zip(&credentials).zip(expected) {
            let answer = stage.ask(method, path, credential.as_deref(), None).await;
            compared.cell(&format!("{method} {path}, {column}"), *expected, status(&answer));
        }
    }
    let operator = stage.made(&["--scope", "admin"])["token"].as_str().unwrap().to_owned();
    compared.cell("the figures, an operator", 200, status(&stage.ask("GET", "/metrics", Some(&operator), None).await));
    compared.done((MCP.len() + OPEN.len()) * 7 + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jwt_is_judged_as_a_token_is_wherever_it_is_shown() {
    let [invoke, connect, admin] =
        [&["invoke"][..], &["connect"], &["admin"]].map(|scopes| Issuer::of("alice", scopes, false));
    let (bob, late) = (Issuer::of("bob", ALL, false), Issuer::of("alice", &["invoke", "connect", "admin"], true));
    let config: String = [&invoke, &connect, &admin, &bob, &late].map(Issuer::entry).concat();
    let stage = Stage::with(&config).await;
    let mut compared = Compared::default();
    for scope in ["invoke", "connect", "admin"] {
        let (right, else_) = match scope {
            "invoke" => (&invoke, &connect),
            "connect" => (&connect, &invoke),
            _ => (&admin, &connect),
        };
        let jwts =
            [late.jwt().await, right.0.jwt(Issuer::OTHER).await, bob.jwt().await, else_.jwt().await, right.jwt().await];
        for ((what, column), jwt) in JWTS.iter().zip(&jwts) {
            for (method, path, _, cells) in API.iter().filter(|row| row.2 == scope) {
                let answer = stage.ask(method, path, Some(jwt), None).await;
                compared.cell(&format!("{method} {path}, {what}"), cells[*column], status(&answer));
            }
            if scope != "invoke" {
                continue;
            }
            for (method, tool, cells) in MCP {
                let found = stage.ask_mcp(method, tool, Some(jwt)).await;
                compared.cell(&format!("{method} {tool}, {what}"), cells[*column], found);
            }
            for (method, path, cells) in OPEN {
                let answer = stage.ask(method, path, Some(jwt), None).await;
                compared.cell(&format!("{method} {path}, {what}"), cells[*column], status(&answer));
            }
        }
    }
    compared.done((API.len() + MCP.len() + OPEN.len()) * 5);
}

/// Who is signed in, and how forms of that session prove themselves.
struct Visitor {
    cookies: String,
    csrf: String,
}

impl Stage {
    /// Somebody who is signed in by a link of the command line.
    async fn visitor(&self, who: &[&str]) -> Visitor {
        let base = self.served.origin.as_str();
        let home = self.agent.host.home().folder();
        let made = served::json(home, &[&["console", "--print", "--url", base], who].concat());
        let mut browser = Browser::new();
        let page = browser.visit(made["url"].as_str().unwrap().parse().unwrap()).await;
        browser.send(&page, "", &[]).await;
        let page = browser.visit(self.served.at("/")).await;
        let form = Form::sent_to(page.answer.text(), "/sign-out").unwrap();
        Visitor { cookies: browser.cookies_for(&self.served.at("/")), csrf: form.fields["csrf"].clone() }
    }

    async fn visit(&self, method: &str, path: &str, visitor: &Visitor) -> i32 {
        let path = self.filled(method, path).await;
        if path == "/console/events" {
            return self.begun(&path, visitor).await;
        }
        let origin = self.served.origin.origin().ascii_serialization();
        let mut headers = vec![("cookie", visitor.cookies.as_str())];
        let mut body = String::new();
        if method == "POST" {
            headers.extend([("origin", origin.as_str()), ("content-type", "application/x-www-form-urlencoded")]);
            let digest = format!("sha256:{}", "0".repeat(64));
            body = format!("csrf={}&digest={digest}", visitor.csrf);
        }
        let answer = send(method.parse().unwrap(), &self.served.at(&path), &headers, body).await;
        assert!(!answer.text().contains(SECRET), "{method} {path}: {}", answer.text());
        status(&answer)
    }

    /// The status of an answer that goes on for as long as somebody reads it.
    async fn begun(&self, path: &str, visitor: &Visitor) -> i32 {
        let address = format!("127.0.0.1:{}", self.served.origin.port().unwrap());
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\ncookie: {}\r\n\r\n", visitor.cookies);
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut begun = [0; 12];
        stream.read_exact(&mut begun).await.unwrap();
        std::str::from_utf8(&begun).unwrap().strip_prefix("HTTP/1.1 ").unwrap().parse().unwrap()
    }

    /// A visitor for each column.
    async fn visitors(&self) -> [Visitor; 8] {
        let nobody = Visitor { cookies: String::new(), csrf: "none".to_owned() };
        let bob = self.visitor(&["--user", "bob"]).await;
        let name = bob.cookies.split_once('=').unwrap().0;
        let made_up = Visitor { cookies: format!("{name}={}", "A".repeat(43)), csrf: "none".to_owned() };
        let ended = self.visitor(&["--user", "alice"]).await;
        assert_eq!(self.visit("POST", "/sign-out", &ended).await, 303);
        let (auditor, operator) = (self.visitor(&["--auditor"]).await, self.visitor(&["--operator"]).await);
        let alice = self.visitor(&["--user", "alice"]).await;
        // The last: what has expired is removed when something new is written.
        let expired = self.expired(&["--operator"]).await;
        [nobody, made_up, ended, expired, bob, auditor, operator, alice]
    }

    /// Somebody who has signed in so long ago that their session is over by now.
    async fn expired(&self, who: &[&str]) -> Visitor {
        const KIND: &str = "browser-session";
        let vault = self.agent.host.vault();
        let ids = || vault.documents(KIND, None).unwrap().into_iter();
        let before: Vec<_> = ids().map(|document| document.lookup).collect();
        let visitor = self.visitor(who).await;
        assert_eq!(self.visit("GET", "/connections", &visitor).await, 200);
        // A browser has a session before somebody signs in there, too.
        for document in ids().filter(|document| !before.contains(&document.lookup)) {
            let past = self.agent.host.clock().now().saturating_sub(Duration::from_secs(1)).unwrap();
            let aged = Document { expires_at: Some(past), ..document };
            assert!(vault.replace_document(&aged).await.unwrap());
        }
        visitor
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_page_is_for_those_who_are_signed_in_for_it() {
    let stage = Stage::new().await;
    let mut compared = Compared::default();
    let visitors = stage.visitors().await;
    for (method, path, cells) in PAGES {
        for ((who, column), visitor) in VISITORS.iter().zip(&visitors) {
            let found = stage.visit(method, path, visitor).await;
            compared.cell(&format!("{method} {path}, {who}"), cells[*column], found);
        }
    }
    compared.done(PAGES.len() * 8);
}

/// An address without the names of its parts.
fn shape(path: &str) -> String {
    path.split('/').map(|part| if part.starts_with('{') { "{}" } else { part }).collect::<Vec<_>>().join("/")
}

#[test]
fn everything_that_is_served_stands_in_these_tables() {
    let api = API.iter().map(|(method, path, ..)| (*method, shape(path)));
    let open = OPEN.iter().map(|(method, path, _)| (*method, shape(path)));
    let pages = PAGES.iter().map(|(method, path, _)| (*method, shape(path)));
    let mut tables: BTreeSet<(&str, String)> = api.chain(open).chain(pages).collect();
    tables.insert(("POST", "/mcp".to_owned()));
    let cells = (API.len() + MCP.len() + OPEN.len()) * 12 + PAGES.len() * 8 + OPERATOR.len() + ACTING.len() * 3 + 1;
    assert!(cells >= 600, "{cells} cells");

    let lines = |list: &'static str| list.lines().filter(|line| !line.starts_with('#'));
    let described = std::fs::read_to_string(skills::root().join("docs/openapi.json")).unwrap();
    let described: Value = serde_json::from_str(&described).unwrap();
    for (path, item) in described["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys().map(|method| method.to_uppercase()) {
            assert!(tables.contains(&(&method, shape(path))), "{method} {path} is in no table");
        }
    }
    for line in lines(include_str!("served/console_routes.txt")) {
        let [method, path, _] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        assert!(tables.contains(&(method, shape(path))), "{method} {path} is in no table");
    }
    for path in lines(include_str!("served/routes.txt")) {
        assert!(tables.iter().any(|(_, known)| *known == shape(path)), "{path} is in no table");
    }
}
