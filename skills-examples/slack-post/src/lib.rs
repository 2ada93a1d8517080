//! Posts a message to Slack.
//!
//! There is no credential here and no way to ask for one: the component imports HTTP and nothing of the contract.

use serde::{Deserialize, Serialize};

use bindings::exports::examples::slack_post::messages::{Error, Guest, Posted};

#[allow(clippy::pedantic, missing_docs, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({ path: "wit", world: "slack-post", generate_all });
}

/// <https://docs.slack.dev/reference/methods/chat.postMessage>
const POST: &str = "https://slack.com/api/chat.postMessage";

/// Slack cuts longer texts.
const LONGEST_TEXT: usize = 40_000;

struct Skill;

bindings::export!(Skill with_types_in bindings);

impl Guest for Skill {
    fn post(channel: String, text: String, thread: Option<String>) -> Result<Posted, Error> {
        if text.is_empty() {
            return Err(Error::InvalidArgument("`text` is empty".to_owned()));
        }
        if text.chars().count() > LONGEST_TEXT {
            return Err(Error::InvalidArgument(format!("`text` is longer than {LONGEST_TEXT} characters")));
        }
        let message = Message { channel, text, thread_ts: thread };
        let answer =
            skill_http::post(POST).json(&message).send().map_err(|error| Error::Unreachable(error.to_string()))?;
        read(&answer)
    }
}

#[derive(Serialize)]
struct Message {
    channel: String,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread_ts: Option<String>,
}

/// Slack's answer: its status says little, `ok` says all.
#[derive(Deserialize)]
struct Answer {
    ok: bool,
    #[serde(default)]
    error: String,
    #[serde(default)]
    needed: Option<String>,
    #[serde(default)]
    channel: String,
    #[serde(default)]
    ts: String,
}

fn read(answer: &skill_http::Response) -> Result<Posted, Error> {
    if answer.status == 429 {
        return Err(Error::RateLimited(answer.retry_after()));
    }
    let Ok(body) = answer.json::<Answer>() else {
        return Err(match answer.status {
            401 => Error::NotAuthenticated("status 401".to_owned()),
            status => Error::Refused(format!("status {status}")),
        });
    };
    if body.ok {
        return Ok(Posted { channel: body.channel, timestamp: body.ts });
    }
    Err(match body.error.as_str() {
        "not_authed" | "invalid_auth" | "account_inactive" | "token_revoked" | "token_expired" => {
            Error::NotAuthenticated(body.error)
        }
        "missing_scope" => match body.needed {
            Some(needed) => Error::Forbidden(format!("missing_scope: {needed}")),
            None => Error::Forbidden(body.error),
        },
        "not_in_channel" | "is_archived" | "no_permission" | "restricted_action" | "access_denied" => {
            Error::Forbidden(body.error)
        }
        "channel_not_found" => Error::ChannelNotFound,
        "ratelimited" | "rate_limited" => Error::RateLimited(answer.retry_after()),
        _ => Error::Refused(body.error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Result<Posted, Error> {
        let headers = vec![("retry-after".to_owned(), "30".to_owned())];
        read(&skill_http::Response { status, headers, body: body.as_bytes().to_vec() })
    }

    #[test]
    fn a_200_that_is_not_ok_is_an_error_with_slacks_code() {
        let refused = |code: &str| answer(200, &format!(r#"{{"ok":false,"error":"{code}"}}"#)).unwrap_err();
        assert!(matches!(refused("token_revoked"), Error::NotAuthenticated(code) if code == "token_revoked"));
        assert!(matches!(refused("not_in_channel"), Error::Forbidden(_)));
        assert!(matches!(refused("channel_not_found"), Error::ChannelNotFound));
        assert!(matches!(refused("ratelimited"), Error::RateLimited(Some(30))));
        assert!(matches!(refused("msg_blocks_too_long"), Error::Refused(code) if code == "msg_blocks_too_long"));
        let scope = r#"{"ok":false,"error":"missing_scope","needed":"chat:write","provided":"identify"}"#;
        assert!(matches!(answer(200, scope), Err(Error::Forbidden(text)) if text == "missing_scope: chat:write"));
    }

    #[test]
    fn a_message_that_was_posted_is_named_by_channel_and_time_stamp() {
        let posted = answer(200, r#"{"ok":true,"channel":"C1","ts":"1700000000.000100","message":{}}"#).unwrap();
        assert_eq!((posted.channel.as_str(), posted.timestamp.as_str()), ("C1", "1700000000.000100"));
    }

    #[test]
    fn answers_without_slacks_envelope_go_by_their_status() {
        assert!(matches!(answer(429, ""), Err(Error::RateLimited(Some(30)))));
        assert!(matches!(answer(401, ""), Err(Error::NotAuthenticated(_))));
        assert!(matches!(answer(503, "<html>"), Err(Error::Refused(text)) if text == "status 503"));
    }
}
