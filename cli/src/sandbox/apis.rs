//! Sandbox mail, issues, chat and records: the real APIs' addresses and shapes, made-up accounts.
//!
//! Each asks for a good access token with the right scope, answers as the real one does, and writes down what arrived.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::ledger::Holder;
use super::message::Message;
use super::{Shared, journal};

/// Who asks, by the bearer token of the request (RFC 6750 section 2.1).
struct Asking {
    holder: Holder,
    token: String,
}

impl Asking {
    fn new(shared: &Shared, headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = value.split_once(' ')?;
        let holder = shared.ledger().holder(token).filter(|_| scheme.eq_ignore_ascii_case("bearer"))?;
        Some(Self { holder, token: journal::fingerprint(token) })
    }

    fn may(&self, scopes: &[&str]) -> bool {
        scopes.iter().any(|scope| self.holder.scopes.contains(*scope))
    }

    fn record(&self, shared: &Shared, api: &'static str, what: &str, content: Value) {
        shared.record(api, what, self.holder.person, Some(self.token.clone()), content);
    }

    fn email(&self) -> &'static str {
        self.holder.person.map_or("app@sandbox.example", |person| person.email)
    }

    fn login(&self) -> &'static str {
        self.holder.person.map_or("app", |person| person.login)
    }
}

/// An API's answer.
fn reply(status: StatusCode, body: Value) -> Response {
    (status, Json(body)).into_response()
}

/// Gmail: <https://developers.google.com/workspace/gmail/api/reference/rest/v1/users.messages/send>
pub(super) async fn send_mail(
    State(shared): State<Shared>,
    Path(user): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(asking) = Asking::new(&shared, &headers) else {
        return google_error(
            StatusCode::UNAUTHORIZED,
            "UNAUTHENTICATED",
            "Request had invalid authentication credentials.",
        );
    };
    if !asking.may(&["https://www.googleapis.com/auth/gmail.send", "https://mail.google.com/"]) {
        return google_error(
            StatusCode::FORBIDDEN,
            "PERMISSION_DENIED",
            "Request had insufficient authentication scopes.",
        );
    }
    if user != "me" && user != asking.email() {
        return google_error(StatusCode::FORBIDDEN, "PERMISSION_DENIED", "Delegation denied.");
    }
    let invalid = |why| google_error(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", why);
    let raw = serde_json::from_slice::<Value>(&body).ok().and_then(|body| body.get("raw")?.as_str().map(str::to_owned));
    let Some(raw) = raw else { return invalid("'raw' RFC822 payload message string is required.") };
    let decoded = URL_SAFE_NO_PAD.decode(&raw).or_else(|_| URL_SAFE.decode(&raw));
    let Some(message) = decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok()) else {
        return invalid("Invalid value for ByteString.");
    };
    let mail = Message::read(&message);
    if mail.to.as_ref().is_none_or(|to| !to.contains('@')) {
        return invalid("Recipient address required");
    }
    let content = json!({ "to": mail.to, "subject": mail.subject, "text": mail.text });
    asking.record(&shared, "mail", "a mail was sent", content);
    let id = shared.next_number();
    let id = format!("{id:016x}");
    reply(StatusCode::OK, json!({ "id": id, "threadId": id, "labelIds": ["SENT"] }))
}

/// Gmail's profile: <https://developers.google.com/workspace/gmail/api/reference/rest/v1/users/getProfile>
pub(super) async fn mail_profile(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    match Asking::new(&shared, &headers) {
        Some(asking) => reply(StatusCode::OK, json!({ "emailAddress": asking.email(), "messagesTotal": 0 })),
        None => google_error(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED", "Invalid credentials."),
    }
}

/// OpenID Connect's user information (Google's and Salesforce's paths lead here, too).
pub(super) async fn user_info(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    match Asking::new(&shared, &headers) {
        Some(asking) => reply(
            StatusCode::OK,
            json!({
                "sub": asking.login(),
                "email": asking.email(),
                "preferred_username": asking.email(),
                "name": asking.holder.person.map(|person| person.name),
            }),
        ),
        None => reply(StatusCode::UNAUTHORIZED, json!({ "error": "invalid_token" })),
    }
}

fn google_error(status: StatusCode, reason: &str, message: &str) -> Response {
    reply(status, json!({ "error": { "code": status.as_u16(), "message": message, "status": reason } }))
}

/// GitHub: <https://docs.github.com/en/rest/issues/issues#create-an-issue>
pub(super) async fn create_issue(
    State(shared): State<Shared>,
    Path((owner, repository)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if headers.get(header::USER_AGENT).is_none() {
        return github_error(
            StatusCode::FORBIDDEN,
            "Request forbidden by administrative rules. A User-Agent is needed.",
        );
    }
    let Some(asking) = Asking::new(&shared, &headers) else {
        return github_error(StatusCode::UNAUTHORIZED, "Bad credentials");
    };
    if !asking.may(&["repo", "public_repo"]) {
        return github_error(StatusCode::FORBIDDEN, "Resource not accessible by integration");
    }
    let Ok(issue) = serde_json::from_slice::<Value>(&body) else {
        return github_error(StatusCode::BAD_REQUEST, "Problems parsing JSON");
    };
    let Some(title) = issue.get("title").and_then(Value::as_str).filter(|title| !title.is_empty()) else {
        return github_error(StatusCode::UNPROCESSABLE_ENTITY, "Validation Failed: title is missing");
    };
    let text = issue.get("body").cloned().unwrap_or_default();
    let number = shared.next_number();
    let content = json!({ "repository": format!("{owner}/{repository}"), "title": title, "body": text });
    asking.record(&shared, "issues", "an issue was opened", content);
    let page = format!("{}/{owner}/{repository}/issues/{number}", shared.origin);
    let answer = json!({
        "id": 1_000_000 + number, "number": number, "state": "open", "title": title, "body": text, "html_url": page,
        "user": { "login": asking.login() },
    });
    reply(StatusCode::CREATED, answer)
}

/// GitHub's authenticated user: <https://docs.github.com/en/rest/users/users#get-the-authenticated-user>
pub(super) async fn github_user(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    match Asking::new(&shared, &headers) {
        Some(asking) => reply(StatusCode::OK, json!({ "login": asking.login(), "email": asking.email() })),
        None => github_error(StatusCode::UNAUTHORIZED, "Bad credentials"),
    }
}

fn github_error(status: StatusCode, message: &str) -> Response {
    reply(status, json!({ "message": message, "documentation_url": "https://docs.github.com/rest" }))
}

/// Slack: <https://docs.slack.dev/reference/methods/chat.postMessage>. Every answer has status 200.
pub(super) async fn post_message(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let refuse = |error: &str| reply(StatusCode::OK, json!({ "ok": false, "error": error }));
    let Some(asking) = Asking::new(&shared, &headers) else { return refuse("invalid_auth") };
    if !asking.may(&["chat:write"]) {
        return refuse("missing_scope");
    }
    let form =
        headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/x-www-form"));
    let message: Value = if form {
        url::form_urlencoded::parse(&body).map(|(key, value)| (key.into_owned(), Value::from(&*value))).collect()
    } else {
        serde_json::from_slice(&body).unwrap_or_default()
    };
    let text = |key: &str| message.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let (Some(channel), Some(words)) = (text("channel"), text("text")) else {
        return refuse(if text("channel").is_none() { "channel_not_found" } else { "no_text" });
    };
    // The one channel that isn't there, so that a skill's handling of `ok: false` can be tried.
    if channel.trim_start_matches('#') == "nowhere" {
        return refuse("channel_not_found");
    }
    asking.record(&shared, "chat", "a message was posted", json!({ "channel": channel, "text": words }));
    let ts = format!("{}.{:06}", shared.clock.now().as_second(), shared.next_number());
    let posted = json!({ "type": "message", "text": words, "ts": ts });
    reply(StatusCode::OK, json!({ "ok": true, "channel": channel, "ts": ts, "message": posted }))
}

/// Slack's own question who a token is: <https://docs.slack.dev/reference/methods/auth.test>
pub(super) async fn chat_identity(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let answer = Asking::new(&shared, &headers).map_or_else(
        || json!({ "ok": false, "error": "invalid_auth" }),
        |asking| json!({ "ok": true, "team": "Sandbox", "user": asking.login(), "user_id": asking.login() }),
    );
    reply(StatusCode::OK, answer)
}

/// Slack's way to end a token: <https://docs.slack.dev/reference/methods/auth.revoke>
pub(super) async fn chat_revoke(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.split_once(' '));
    let Some((asking, (_, token))) = Asking::new(&shared, &headers).zip(token) else {
        return reply(StatusCode::OK, json!({ "ok": false, "error": "invalid_auth" }));
    };
    shared.ledger().revoke(token);
    asking.record(&shared, "authorization", "ended a grant", Value::Null);
    reply(StatusCode::OK, json!({ "ok": true, "revoked": true }))
}

/// Salesforce: <https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/dome_update_fields.htm>
pub(super) async fn update_record(
    State(shared): State<Shared>,
    Path((version, object, id)): Path<(String, String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(asking) = Asking::new(&shared, &headers) else {
        return salesforce_error(StatusCode::UNAUTHORIZED, "INVALID_SESSION_ID", "Session expired or invalid");
    };
    if !asking.may(&["api", "full"]) {
        return salesforce_error(StatusCode::FORBIDDEN, "API_DISABLED_FOR_ORG", "The scope `api` is missing");
    }
    let versioned = version.strip_prefix('v').is_some_and(|number| number.parse::<f32>().is_ok());
    // Ids have 15 or 18 characters, and the first three name the kind of record.
    let known = matches!(id.len(), 15 | 18) && id.chars().all(|c| c.is_ascii_alphanumeric());
    if !versioned || !known {
        return salesforce_error(StatusCode::NOT_FOUND, "NOT_FOUND", "The requested resource does not exist");
    }
    let Ok(Value::Object(fields)) = serde_json::from_slice::<Value>(&body) else {
        return salesforce_error(StatusCode::BAD_REQUEST, "JSON_PARSER_ERROR", "The body is no JSON object");
    };
    if fields.is_empty() || fields.contains_key("Id") {
        return salesforce_error(
            StatusCode::BAD_REQUEST,
            "INVALID_FIELD",
            "Name the fields to change; Id is none of them",
        );
    }
    let content = json!({ "object": object, "id": id, "fields": fields });
    asking.record(&shared, "records", "a record was changed", content);
    StatusCode::NO_CONTENT.into_response()
}

fn salesforce_error(status: StatusCode, code: &str, message: &str) -> Response {
    reply(status, json!([{ "errorCode": code, "message": message }]))
}
