//! The judge: an authorization server that others wrote and certified, with an API behind it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};

use base64::Engine as _;
use http::Method;
use serde_json::{Value, json};
use url::Url;

use crate::canary;
use crate::http::send;
use crate::skills::root;

/// A running authorization server. It ends with this value.
///
/// It rotates refresh tokens, and a refresh token that is used twice ends the whole grant. `person` is its client for people
/// (authorization code, PKCE required), `machine` the one for client credentials; both have [`SECRET`](Self::SECRET).
/// `console` is a public client for signing people in.
#[derive(Debug)]
pub struct AuthorizationServer {
    // The program ends when its standard input is closed, even if this process is killed.
    _input: ChildStdin,
    process: Child,
    origin: Url,
    settings: Value,
}

/// An answer that stands in for the next one at its path.
#[derive(Debug, Clone)]
pub struct Scripted(Value);

impl Scripted {
    /// This status and body, without the server having done anything.
    pub fn answer(path: &str, status: u16, headers: &Value, body: &Value) -> Self {
        Self(json!({ "path": path, "status": status, "headers": headers, "body": body }))
    }

    /// The server does its work, and the answer never arrives.
    pub fn lost(path: &str) -> Self {
        Self(json!({ "path": path, "lose_answer": true }))
    }

    /// The server takes this long.
    pub fn slow(path: &str, milliseconds: u32) -> Self {
        Self(json!({ "path": path, "delay_ms": milliseconds }))
    }
}

impl AuthorizationServer {
    /// The secret of both clients.
    pub const SECRET: &str = "client-secret-canary-7Qm2";

    /// The scopes that it knows.
    pub const SCOPES: [&str; 4] = ["https://www.googleapis.com/auth/gmail.send", "repo", "api", "reports.read"];

    /// Starts it. Access tokens live `lifetime` seconds; `keys` are further credentials that its API takes, and for whom.
    ///
    /// # Panics
    ///
    /// It does not start: Node.js or its packages are not there.
    pub fn start(lifetime: u32, keys: &Value) -> Self {
        Self::start_with(lifetime, keys, &json!({}))
    }

    /// Starts it with keys of its own, as an identity provider whose access tokens for these audiences are JWTs. `more` are
    /// further settings; see `authorization-server.mjs`.
    ///
    /// # Panics
    ///
    /// It does not start: Node.js or its packages are not there.
    pub fn issuing_jwts(audiences: &[&str], more: &Value) -> Self {
        let settings = with(json!({ "fresh_keys": true, "jwt_audiences": audiences }), more);
        Self::start_with(3600, &json!({}), &settings)
    }

    fn start_with(lifetime: u32, keys: &Value, more: &Value) -> Self {
        let redirects = ["google", "salesforce"].map(|provider| format!("http://127.0.0.1/callback/{provider}"));
        canary::plant(canary::Kind::ClientSecret, Self::SECRET);
        for key in keys.as_object().into_iter().flat_map(|keys| keys.keys()) {
            canary::plant(canary::Kind::ApiKey, key);
        }
        let settings = json!({
            "clients": [
                {
                    "client_id": "person", "client_secret": Self::SECRET, "application_type": "native",
                    "redirect_uris": redirects,
                    "grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"],
                    "token_endpoint_auth_method": "client_secret_post",
                    "instance_url": "https://acme.my.salesforce.com",
                },
                {
                    "client_id": "console", "application_type": "native", "token_endpoint_auth_method": "none",
                    "redirect_uris": ["http://127.0.0.1/sign-in/callback"],
                    "grant_types": ["authorization_code"], "response_types": ["code"],
                },
                {
                    "client_id": "machine", "client_secret": Self::SECRET, "redirect_uris": [], "response_types": [],
                    "grant_types": ["client_credentials"], "token_endpoint_auth_method": "client_secret_basic",
                },
            ],
            "scopes": Self::SCOPES,
            "lifetimes": { "access_token": lifetime, "client_credentials": lifetime },
            "api_keys": keys,
        });
        Self::spawn(with(settings, more))
    }

    fn spawn(settings: Value) -> Self {
        let folder = root().join("tests/node");
        assert!(
            folder.join("node_modules/oidc-provider").is_dir(),
            "the packages of {} are not installed: `cargo xtask setup` installs them",
            folder.display()
        );
        let mut process = Command::new("node")
            .arg("authorization-server.mjs")
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("Node.js can't be started ({error}); the tests need version 20 or newer"));
        let mut input = process.stdin.take().expect("its input is piped");
        writeln!(input, "{settings}").expect("it reads its settings");
        let mut output = BufReader::new(process.stdout.take().expect("its output is piped"));
        let mut ready = String::new();
        let read = output.read_line(&mut ready);
        let mut errors = process.stderr.take().expect("its errors are piped");
        let Some(port) = ready.trim().strip_prefix("READY ") else {
            let mut text = String::new();
            let _ = errors.read_to_string(&mut text);
            panic!("the authorization server did not start ({read:?} {ready:?}): {text}");
        };
        let origin = format!("http://127.0.0.1:{port}").parse().expect("it says its port");
        // Its log is read by `events`; these keep it from blocking on a full pipe.
        canary::copy("authorization-server", output);
        canary::copy("authorization-server", errors);
        Self { _input: input, process, origin, settings }
    }

    /// The same issuer after it has replaced its keys.
    ///
    /// # Panics
    ///
    /// It does not start again.
    #[must_use]
    pub fn with_new_keys(self) -> Self {
        let settings = with(self.settings.clone(), &json!({ "port": self.origin.port() }));
        drop(self);
        Self::spawn(settings)
    }

    /// A JWT for this audience, whose subject is the client `machine`.
    ///
    /// # Panics
    ///
    /// The server refuses.
    pub async fn jwt(&self, audience: &str) -> String {
        let form = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs([("grant_type", "client_credentials"), ("scope", "api"), ("resource", audience)])
            .finish();
        let credential = base64::prelude::BASE64_STANDARD.encode(format!("machine:{}", Self::SECRET));
        let basic = format!("Basic {credential}");
        let headers = [("authorization", basic.as_str()), ("content-type", "application/x-www-form-urlencoded")];
        let answer = send(Method::POST, &self.at("/token"), &headers, form).await;
        let token = answer.json().get("access_token").and_then(Value::as_str).map(str::to_owned);
        token.unwrap_or_else(|| panic!("no token: {}", answer.text()))
    }

    /// Its address, without a slash at the end.
    pub fn origin(&self) -> &str {
        self.origin.as_str().trim_end_matches('/')
    }

    /// An address at it.
    ///
    /// # Panics
    ///
    /// The path is none.
    pub fn at(&self, path: &str) -> Url {
        self.origin.join(path).expect("a path at the server")
    }

    /// Everything that it has noted: token requests, revoked grants, requests to the API.
    pub async fn events(&self) -> Vec<Value> {
        self.list("/control/events").await
    }

    /// The events of one kind.
    pub async fn events_of(&self, kind: &str) -> Vec<Value> {
        self.events().await.into_iter().filter(|event| event["event"] == kind).collect()
    }

    /// The requests to the API, with all their headers and the subject that each acted for.
    pub async fn requests(&self) -> Vec<Value> {
        self.list("/control/requests").await
    }

    /// Puts answers in line for their paths.
    pub async fn script(&self, answers: &[Scripted]) {
        let list: Vec<_> = answers.iter().map(|answer| &answer.0).collect();
        send(Method::POST, &self.at("/control/answers"), &[], json!(list).to_string()).await;
    }

    async fn list(&self, path: &str) -> Vec<Value> {
        match send(Method::GET, &self.at(path), &[], "").await.json() {
            Value::Array(list) => list,
            other => panic!("not a list: {other}"),
        }
    }
}

/// Settings with more of them.
fn with(mut settings: Value, more: &Value) -> Value {
    if let (Some(settings), Some(more)) = (settings.as_object_mut(), more.as_object()) {
        settings.extend(more.clone());
    }
    settings
}

impl Drop for AuthorizationServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
