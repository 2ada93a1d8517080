use std::sync::Arc;

use axum::http::{Method, StatusCode};
use clawcoil::clock::{ManualClock, Timestamp};
use url::Url;

use super::*;
use crate::browser::{self, Reply};

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
/// The challenge that RFC 7636 appendix B gives for the verifier.
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const GMAIL: &str = "https://www.googleapis.com/auth/gmail.send";

struct Tried {
    sandbox: Sandbox,
    clock: ManualClock,
}

impl Tried {
    async fn start() -> Self {
        clawcoil_canary::watch();
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        let settings = Settings { access_lifetime: Duration::from_mins(1), ..Settings::default() };
        Self { sandbox: Sandbox::start(settings, Arc::new(clock.clone())).await.unwrap(), clock }
    }

    fn url(&self, path: &str) -> Url {
        Url::parse(self.sandbox.origin()).unwrap().join(path).unwrap()
    }

    /// A request for a code, changed as a test wants it. Nobody listens at the redirect address; tests read it.
    fn authorize(&self, path: &str, change: &[(&str, Option<&str>)]) -> Url {
        let mut pairs = vec![
            ("response_type", "code"),
            ("client_id", "sandbox"),
            ("redirect_uri", "http://127.0.0.1:1/callback"),
            ("scope", GMAIL),
            ("state", "the state"),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
        ];
        for (key, value) in change {
            pairs.retain(|(kept, _)| kept != key);
            pairs.extend(value.map(|value| (*key, value)));
        }
        let mut url = self.url(path);
        url.query_pairs_mut().extend_pairs(pairs);
        url
    }

    async fn get(&self, url: &Url) -> Reply {
        browser::send(Method::GET, url, &[], "").await.unwrap()
    }

    async fn post(&self, path: &str, form: &[(&str, &str)]) -> Reply {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        browser::send(Method::POST, &self.url(path), &headers, &body).await.unwrap()
    }

    async fn json(&self, method: Method, path: &str, token: &str, body: &Value) -> Reply {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", &*bearer), ("content-type", "application/json"), ("user-agent", "a test")];
        browser::send(method, &self.url(path), &headers, &body.to_string()).await.unwrap()
    }

    /// Presses a button on the consent page; gives where the person is sent.
    async fn decide(&self, authorize: &Url, decision: &str) -> Url {
        let page = self.get(authorize).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.body);
        let (_, rest) = page.body.split_once("name=\"request\" value=\"").unwrap();
        let form = [("request", rest.split_once('"').unwrap().0), ("account", "ada"), ("decision", decision)];
        sent_to(&self.post(authorize.path(), &form).await)
    }

    async fn tokens_by_code(&self, authorize: &str, token: &str, scope: &str) -> Value {
        let to = self.decide(&self.authorize(authorize, &[("scope", Some(scope))]), "allow").await;
        let code = query(&to, "code").unwrap();
        let reply = self.post(token, &exchange(&code)).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.body);
        serde_json::from_str(&reply.body).unwrap()
    }

    async fn refresh(&self, path: &str, token: &str) -> (StatusCode, Value) {
        let mut form = vec![("grant_type", "refresh_token"), ("refresh_token", token)];
        form.extend(CLIENT);
        let reply = self.post(path, &form).await;
        (reply.status, serde_json::from_str(&reply.body).unwrap())
    }

    async fn inbox(&self) -> Vec<Value> {
        let reply = self.get(&self.url("/sandbox/inbox")).await;
        serde_json::from_str::<Value>(&reply.body).unwrap()["entries"].as_array().unwrap().clone()
    }
}

const CLIENT: [(&str, &str); 2] = [("client_id", "sandbox"), ("client_secret", "sandbox-secret")];

fn exchange(code: &str) -> Vec<(&str, &str)> {
    let mut form = vec![
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", "http://127.0.0.1:1/callback"),
        ("code_verifier", VERIFIER),
    ];
    form.extend(CLIENT);
    form
}

fn sent_to(reply: &Reply) -> Url {
    assert_eq!(reply.status, StatusCode::SEE_OTHER, "{}", reply.body);
    Url::parse(reply.headers["location"].to_str().unwrap()).unwrap()
}

fn query(url: &Url, key: &str) -> Option<String> {
    url.query_pairs().find(|(name, _)| name == key).map(|(_, value)| value.into_owned())
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} in {value}"))
}

fn raw(message: &str) -> Value {
    use base64::Engine as _;
    json!({ "raw": base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(message) })
}

#[tokio::test]
async fn it_listens_on_loopback_only() {
    assert!(Tried::start().await.sandbox.origin().starts_with("http://127.0.0.1:"));
}

#[tokio::test]
async fn pkce_with_s256_is_required() {
    let tried = Tried::start().await;
    for change in
        [("code_challenge", None), ("code_challenge_method", Some("plain")), ("code_challenge", Some("short"))]
    {
        let to = sent_to(&tried.get(&tried.authorize("/authorize", &[change])).await);
        assert_eq!(query(&to, "error").as_deref(), Some("invalid_request"), "{change:?}");
        assert_eq!(query(&to, "state").as_deref(), Some("the state"));
    }
    let to = tried.decide(&tried.authorize("/authorize", &[]), "allow").await;
    let code = query(&to, "code").unwrap();
    let mut form = exchange(&code);
    form.retain(|(key, _)| *key != "code_verifier");
    assert_eq!(tried.post("/oauth/token", &form).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn nobody_is_sent_to_an_address_off_this_machine() {
    let tried = Tried::start().await;
    for foreign in ["https://example.com/callback", "http://example.com/", "http://127.0.0.1@example.com/", "x:y"] {
        let reply = tried.get(&tried.authorize("/authorize", &[("redirect_uri", Some(foreign))])).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{foreign}");
        assert!(!reply.headers.contains_key("location"), "{foreign}");
    }
    let reply = tried.get(&tried.authorize("/authorize", &[("client_id", Some("another"))])).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn the_callback_carries_state_and_issuer_and_a_refusal_no_code() {
    let tried = Tried::start().await;
    let to = tried.decide(&tried.authorize("/authorize", &[]), "deny").await;
    assert_eq!(query(&to, "error").as_deref(), Some("access_denied"));
    assert!(query(&to, "code").is_none());
    let to = tried.decide(&tried.authorize("/authorize", &[]), "allow").await;
    assert_eq!(query(&to, "state").as_deref(), Some("the state"));
    assert_eq!(query(&to, "iss").as_deref(), Some(tried.sandbox.origin()));
}

#[tokio::test]
async fn what_a_request_says_is_text_on_the_consent_page() {
    let tried = Tried::start().await;
    let url = tried.authorize("/authorize", &[("scope", Some("<script>alert(1)</script>\"'&"))]);
    let page = tried.get(&url).await;
    assert!(!page.body.contains("<script"), "{}", page.body);
    assert!(page.body.contains("&lt;script&gt;"), "{}", page.body);
}

#[tokio::test]
async fn a_wrong_client_gets_nothing_by_body_or_by_basic() {
    let tried = Tried::start().await;
    let form = [("grant_type", "client_credentials"), ("client_id", "sandbox"), ("client_secret", "wrong")];
    assert_eq!(tried.post("/oauth/token", &form).await.status, StatusCode::UNAUTHORIZED);
    let basic = |pair: &str| {
        use base64::Engine as _;
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
    };
    for (pair, status) in [("sandbox:sandbox-secret", StatusCode::OK), ("sandbox:wrong", StatusCode::UNAUTHORIZED)] {
        let basic = basic(pair);
        let headers = [("authorization", &*basic), ("content-type", "application/x-www-form-urlencoded")];
        let url = tried.url("/oauth/token");
        let reply =
            browser::send(Method::POST, &url, &headers, "grant_type=client_credentials&scope=api").await.unwrap();
        assert_eq!(reply.status, status, "{pair}");
        assert!(!reply.body.contains("refresh_token"), "RFC 6749 section 4.4.3");
    }
}

#[tokio::test]
async fn a_replayed_refresh_token_ends_the_newer_tokens() {
    let tried = Tried::start().await;
    let tokens = tried.tokens_by_code("/authorize", "/oauth/token", GMAIL).await;
    let old = text(&tokens, "refresh_token");
    let (status, newer) = tried.refresh("/oauth/token", old).await;
    assert_eq!(status, StatusCode::OK);
    let (status, refusal) = tried.refresh("/oauth/token", old).await;
    assert_eq!((status, text(&refusal, "error")), (StatusCode::BAD_REQUEST, "invalid_grant"));
    let mail =
        tried.json(Method::POST, "/gmail/v1/users/me/messages/send", text(&newer, "access_token"), &json!({})).await;
    assert_eq!(mail.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_vendors_refuse_in_their_own_words() {
    let tried = Tried::start().await;
    let (status, body) = tried.refresh("/login/oauth/access_token", "unknown").await;
    assert_eq!((status, text(&body, "error")), (StatusCode::OK, "bad_refresh_token"));
    let mut form = vec![("refresh_token", "unknown"), ("grant_type", "refresh_token")];
    form.extend(CLIENT);
    let body: Value = serde_json::from_str(&tried.post("/api/oauth.v2.access", &form).await.body).unwrap();
    assert_eq!((&body["ok"], text(&body, "error")), (&json!(false), "invalid_refresh_token"));
}

#[tokio::test]
async fn mail_is_sent_with_a_good_token_only_and_stands_in_the_inbox() {
    let tried = Tried::start().await;
    let send = "/gmail/v1/users/me/messages/send";
    let tokens = tried.tokens_by_code("/o/oauth2/v2/auth", "/token", GMAIL).await;
    let token = text(&tokens, "access_token");
    let mail = raw("To: grace@sandbox.example\r\nSubject: Hello\r\n\r\nHow are you?\r\n");
    assert_eq!(tried.json(Method::POST, send, "made-up", &mail).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(tried.json(Method::POST, send, token, &json!({ "raw": "?" })).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        tried.json(Method::POST, send, token, &raw("Subject: to nobody\r\n\r\n")).await.status,
        StatusCode::BAD_REQUEST
    );
    assert!(tried.inbox().await.is_empty());

    assert_eq!(tried.json(Method::POST, send, token, &mail).await.status, StatusCode::OK);
    let arrived = tried.inbox().await;
    assert_eq!(arrived.len(), 1);
    let content = json!({ "to": "grace@sandbox.example", "subject": "Hello", "text": "How are you?" });
    assert_eq!((text(&arrived[0], "person"), &arrived[0]["content"]), ("ada@sandbox.example", &content));

    tried.clock.advance(Duration::from_mins(1));
    assert_eq!(tried.json(Method::POST, send, token, &mail).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_token_without_the_scope_is_refused_in_each_apis_own_way() {
    let tried = Tried::start().await;
    let tokens = tried.tokens_by_code("/authorize", "/oauth/token", "something-else").await;
    let token = text(&tokens, "access_token");
    let mail =
        tried.json(Method::POST, "/gmail/v1/users/me/messages/send", token, &raw("To: a@b.example\r\n\r\n")).await;
    assert_eq!(mail.status, StatusCode::FORBIDDEN);
    let issue = tried.json(Method::POST, "/repos/a/b/issues", token, &json!({ "title": "t" })).await;
    assert_eq!(issue.status, StatusCode::FORBIDDEN);
    let chat = tried.json(Method::POST, "/api/chat.postMessage", token, &json!({ "channel": "c", "text": "t" })).await;
    assert_eq!((chat.status, &*chat.body), (StatusCode::OK, r#"{"error":"missing_scope","ok":false}"#));
    let record = "/services/data/v61.0/sobjects/Account/001000000000001";
    assert_eq!(tried.json(Method::PATCH, record, token, &json!({ "Phone": "1" })).await.status, StatusCode::FORBIDDEN);
    assert!(tried.inbox().await.is_empty());
}

#[tokio::test]
async fn issues_messages_and_records_answer_in_the_real_shapes() {
    let tried = Tried::start().await;

    let tokens = tried.tokens_by_code("/login/oauth/authorize", "/login/oauth/access_token", "repo").await;
    let issue = json!({ "title": "It breaks", "body": "Always." });
    let reply = tried.json(Method::POST, "/repos/octo/cat/issues", text(&tokens, "access_token"), &issue).await;
    assert_eq!(reply.status, StatusCode::CREATED);
    let created: Value = serde_json::from_str(&reply.body).unwrap();
    assert!(created["number"].is_u64() && text(&created, "html_url").contains("/octo/cat/issues/"));

    let tokens = tried.tokens_by_code("/oauth/v2/authorize", "/api/oauth.v2.access", "chat:write,channels:read").await;
    assert_eq!(text(&tokens, "scope"), "channels:read,chat:write");
    let post = |channel: &str| json!({ "channel": channel, "text": "Good morning" });
    let path = "/api/chat.postMessage";
    let token = text(&tokens, "access_token");
    let reply: Value =
        serde_json::from_str(&tried.json(Method::POST, path, token, &post("#general")).await.body).unwrap();
    assert_eq!(reply["ok"], json!(true));
    let reply: Value =
        serde_json::from_str(&tried.json(Method::POST, path, token, &post("#nowhere")).await.body).unwrap();
    assert_eq!((&reply["ok"], text(&reply, "error")), (&json!(false), "channel_not_found"));

    let tokens =
        tried.tokens_by_code("/services/oauth2/authorize", "/services/oauth2/token", "api refresh_token").await;
    assert_eq!(text(&tokens, "instance_url"), tried.sandbox.origin());
    assert!(tokens.get("expires_in").is_none(), "Salesforce has none: clients introspect");
    let path = "/services/data/v61.0/sobjects/Account/001000000000001";
    let token = text(&tokens, "access_token");
    let reply = tried.json(Method::PATCH, path, token, &json!({ "Phone": "+1 555 0100" })).await;
    assert_eq!((reply.status, &*reply.body), (StatusCode::NO_CONTENT, ""));
    let reply =
        tried.json(Method::PATCH, &path.replace("001000000000001", "no-id"), token, &json!({ "Phone": "1" })).await;
    assert_eq!(reply.status, StatusCode::NOT_FOUND);
    let mut form = vec![("token", token)];
    form.extend(CLIENT);
    let state: Value = serde_json::from_str(&tried.post("/services/oauth2/introspect", &form).await.body).unwrap();
    assert_eq!((&state["active"], &state["exp"]), (&json!(true), &json!(60)));

    let arrived = tried.inbox().await;
    let apis: Vec<&str> = arrived.iter().map(|entry| text(entry, "api")).collect();
    assert_eq!(apis, ["issues", "chat", "records"]);
}

#[tokio::test]
async fn a_revoked_grant_opens_nothing_and_the_journal_holds_no_token() {
    let tried = Tried::start().await;
    let tokens = tried.tokens_by_code("/o/oauth2/v2/auth", "/token", GMAIL).await;
    let token = text(&tokens, "refresh_token");
    assert_eq!(tried.post("/revoke", &[("token", token)]).await.status, StatusCode::OK);
    let profile =
        tried.json(Method::GET, "/gmail/v1/users/me/profile", text(&tokens, "access_token"), &Value::Null).await;
    assert_eq!(profile.status, StatusCode::UNAUTHORIZED);
    let log = tried.get(&tried.url("/sandbox/log")).await.body;
    assert!(log.contains("ended a grant"));
    assert!(!log.contains(token) && !log.contains(text(&tokens, "access_token")));
}
