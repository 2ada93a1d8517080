//! Sends an email from the caller's Gmail account.
//!
//! The credential is added by the host, by destination: the code that sends has none and needs none.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use serde::Deserialize;
use serde_json::json;

use bindings::clawcoil::skill::tokens::{TokenRequest, get_token};
use bindings::clawcoil::skill::types::AuthError;
use bindings::exports::examples::gmail_send::mail::{Error, Guest, SelfReport, Sent};

#[allow(clippy::pedantic, missing_docs, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({ path: ["../../wit", "wit"], world: "examples:gmail-send/gmail-send", generate_all });
}
mod mime;

/// <https://developers.google.com/workspace/gmail/api/reference/rest/v1/users.messages/send>
const SEND: &str = "https://gmail.googleapis.com/gmail/v1/users/me/messages/send";

struct Skill;

bindings::export!(Skill with_types_in bindings);

impl Guest for Skill {
    fn send(
        to: Vec<String>,
        subject: String,
        body: String,
        cc: Option<Vec<String>>,
        bcc: Option<Vec<String>>,
    ) -> Result<Sent, Error> {
        let (cc, bcc) = (cc.unwrap_or_default(), bcc.unwrap_or_default());
        let message = mime::Message { to: &to, cc: &cc, bcc: &bcc, subject: &subject, body: &body };
        let raw = URL_SAFE.encode(message.build().map_err(Error::InvalidArgument)?);

        let answer = skill_http::post(SEND)
            .json(&json!({ "raw": raw }))
            .send()
            .map_err(|error| Error::Unreachable(error.to_string()))?;
        if answer.status != 200 {
            return Err(refusal(&answer));
        }
        let sent: MessageResource = answer.json().map_err(|error| Error::Refused(error.to_string()))?;
        Ok(Sent { id: sent.id, thread_id: sent.thread_id })
    }

    fn self_check() -> Result<SelfReport, Error> {
        let request = TokenRequest { scopes: Vec::new(), account: None, audience: None };
        let token = get_token("gmail", &request).map_err(no_token)?;
        let info = token.info();
        Ok(SelfReport {
            service: "gmail".to_owned(),
            account: info.account,
            scopes: info.scopes,
            placeholder: token.placeholder(),
            environment: std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()).collect(),
            arguments: std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect(),
            sees_files: ["/", ".", "/proc", "/etc", "/tmp"].iter().any(|folder| std::fs::read_dir(folder).is_ok()),
        })
    }
}

/// The part of Gmail's `Message` that is of use here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MessageResource {
    id: String,
    thread_id: String,
}

/// The envelope of Google's errors.
#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorStatus,
}

#[derive(Deserialize)]
struct ErrorStatus {
    message: String,
    #[serde(default)]
    errors: Vec<ErrorItem>,
}

#[derive(Deserialize)]
struct ErrorItem {
    #[serde(default)]
    reason: String,
}

fn refusal(answer: &skill_http::Response) -> Error {
    let (message, reasons) = match answer.json::<ErrorBody>() {
        Ok(ErrorBody { error }) => (error.message, error.errors),
        Err(_) => (format!("status {}", answer.status), Vec::new()),
    };
    // Gmail's limits come as 429, or as 403 with a reason.
    let limited = reasons.iter().any(|item| item.reason.ends_with("ateLimitExceeded"));
    match answer.status {
        401 => Error::NotAuthenticated(message),
        429 => Error::RateLimited(answer.retry_after()),
        403 if limited => Error::RateLimited(answer.retry_after()),
        403 => Error::Forbidden(message),
        _ => Error::Refused(message),
    }
}

fn no_token(error: AuthError) -> Error {
    match error {
        AuthError::ActionRequired(action) => Error::NotAuthenticated(action.message),
        AuthError::Denied(denial) => Error::Forbidden(denial.message),
        AuthError::Unavailable(outage) => Error::Unreachable(outage.message),
        AuthError::Undeclared(message) | AuthError::Other(message) => Error::Refused(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> skill_http::Response {
        skill_http::Response { status, headers: Vec::new(), body: body.as_bytes().to_vec() }
    }

    #[test]
    fn each_refusal_of_gmail_has_its_own_error() {
        let body = |message: &str, reason: &str| {
            json!({ "error": { "code": 0, "message": message, "errors": [{ "reason": reason }] } }).to_string()
        };
        assert!(matches!(refusal(&answer(401, &body("m", "authError"))), Error::NotAuthenticated(_)));
        assert!(matches!(refusal(&answer(403, &body("m", "insufficientPermissions"))), Error::Forbidden(_)));
        assert!(matches!(refusal(&answer(403, &body("m", "userRateLimitExceeded"))), Error::RateLimited(None)));
        assert!(matches!(refusal(&answer(429, "")), Error::RateLimited(None)));
        assert!(matches!(refusal(&answer(400, &body("Recipient address required", "invalidArgument"))),
            Error::Refused(message) if message == "Recipient address required"));
        assert!(matches!(refusal(&answer(502, "<html>")), Error::Refused(message) if message == "status 502"));
    }
}
