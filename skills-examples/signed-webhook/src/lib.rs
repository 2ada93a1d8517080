//! Delivers a signed event to a webhook.
//!
//! The one example that sees its credential: a signature needs the key itself. It is in this component's memory for the
//! length of one call.

use serde_json::{Value, json};
use wasip2::clocks::wall_clock;
use wasip2::random::random::get_random_u64;

use bindings::clawcoil::skill::reveal::reveal;
use bindings::clawcoil::skill::tokens::{TokenRequest, get_token};
use bindings::clawcoil::skill::types::AuthError;
use bindings::exports::examples::signed_webhook::events::{Delivered, Error, Guest};

#[allow(clippy::pedantic, missing_docs, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({
        path: ["../../wit", "wit"],
        world: "examples:signed-webhook/signed-webhook",
        generate_all,
    });
}
mod signature;

struct Skill;

bindings::export!(Skill with_types_in bindings);

impl Guest for Skill {
    fn deliver(hook: String, event: String, data: String, id: Option<String>) -> Result<Delivered, Error> {
        check_name("hook", &hook)?;
        check_name("event", &event)?;
        let data: Value = serde_json::from_str(&data)
            .map_err(|error| Error::InvalidArgument(format!("`data` is not JSON: {error}")))?;
        let id = match id {
            Some(id) => {
                check_name("id", &id)?;
                id
            }
            None => format!("msg_{:016x}{:016x}", get_random_u64(), get_random_u64()),
        };
        let body = json!({ "type": event, "data": data }).to_string();
        let timestamp = wall_clock::now().seconds;

        let request = TokenRequest { scopes: Vec::new(), account: None, audience: None };
        let token = get_token("receiver", &request).map_err(no_key)?;
        let key = reveal(&token).map_err(no_key)?;
        let signature = signature::sign(&key.value, &id, timestamp, &body)
            .map_err(|why| Error::NotAuthenticated(why.to_owned()))?;

        let answer = skill_http::post(format!("{}/hooks/{hook}", token.info().api_origin))
            .header("webhook-id", &id)
            .header("webhook-timestamp", timestamp.to_string())
            .header("webhook-signature", signature)
            .body("application/json", body)
            .send()
            .map_err(|error| Error::Unreachable(error.to_string()))?;
        match answer.status {
            200..=299 => Ok(Delivered { id }),
            401 => Err(Error::NotAuthenticated("the receiver did not accept the signature".to_owned())),
            429 => Err(Error::RateLimited(answer.retry_after())),
            status => Err(Error::Refused(format!("status {status}"))),
        }
    }
}

/// Names go into the path, a header and the signed text: letters, digits, `.`, `_` and `-`, and not dots alone.
fn check_name(what: &str, name: &str) -> Result<(), Error> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    // The signature joins its parts with dots, so an id has none.
    let wrong = name.len() > 64 || !name.chars().all(fits) || name.chars().all(|c| c == '.');
    if wrong || (what == "id" && name.contains('.')) {
        return Err(Error::InvalidArgument(format!(
            "`{what}`: {name:?} is not a name of at most 64 letters, digits, `_`, `-` and (but for an id) `.`"
        )));
    }
    Ok(())
}

fn no_key(error: AuthError) -> Error {
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

    #[test]
    fn a_name_can_not_lead_to_another_path_or_shift_the_signed_text() {
        assert!(check_name("hook", "billing").is_ok());
        assert!(check_name("event", "invoice.paid").is_ok());
        assert!(check_name("id", "msg_1").is_ok());
        for bad in ["", "..", "a/b", "a?b", "a\r\nb", "ä", &"a".repeat(65)] {
            assert!(check_name("hook", bad).is_err(), "{bad:?}");
        }
        assert!(check_name("id", "msg_1.2").is_err());
    }
}
