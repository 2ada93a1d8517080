//! What a client of the newest revision carries from a question to its retry.
//!
//! It names the connect sessions that were asked for. It is no credential: a retry is allowed exactly what the call is allowed.
//! It is bound to the caller, the tool and the arguments, and ends with the sessions, so that it can't be used to make the host
//! wait for somebody else's.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clawcoil::clock::Timestamp;
use clawcoil::id::{Caller, Digest};
use clawcoil::vault::Vault;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use subtle::ConstantTimeEq as _;

/// Keeps the key apart from those of the documents in the vault.
const KIND: &str = "mcp-request-state";

/// The longest state that is looked at.
const LONGEST: usize = 8 << 10;

/// What was asked of the person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RequestState {
    /// The connect sessions.
    pub(super) sessions: Vec<String>,
    /// Until when it can be shown, in milliseconds since 1970.
    expires_at: i64,
}

/// The call that a state belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound<'a> {
    pub(super) caller: &'a Caller,
    pub(super) tool: &'a str,
    pub(super) input: &'a Value,
}

impl RequestState {
    pub(super) fn new(sessions: Vec<String>, expires_at: Timestamp) -> Self {
        Self { sessions, expires_at: expires_at.as_millisecond() }
    }

    /// As the client carries it.
    pub(super) fn seal(&self, vault: &Vault, bound: Bound<'_>) -> String {
        let contents = serde_json::to_string(self).unwrap_or_default();
        let seal = vault.lookup_of(KIND, &bound.with(&contents));
        format!("{}.{}", BASE64_URL_SAFE_NO_PAD.encode(contents), BASE64_URL_SAFE_NO_PAD.encode(seal))
    }

    /// What was sealed for this very call. `None`: it was not, or has expired.
    pub(super) fn open(text: &str, vault: &Vault, bound: Bound<'_>, now: Timestamp) -> Option<Self> {
        let (contents, seal) = text.split_once('.').filter(|_| text.len() <= LONGEST)?;
        let contents = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(contents).ok()?).ok()?;
        let seal = BASE64_URL_SAFE_NO_PAD.decode(seal).ok()?;
        let right = vault.lookup_of(KIND, &bound.with(&contents));
        if !bool::from(seal.as_slice().ct_eq(&right)) {
            return None;
        }
        let state: Self = serde_json::from_str(&contents).ok()?;
        (now.as_millisecond() < state.expires_at).then_some(state)
    }
}

impl Bound<'_> {
    /// No part can run into the next: names have no line ends, and the digest has one length.
    fn with(&self, contents: &str) -> String {
        let Caller { client, user, credential: _ } = self.caller;
        let mut input = String::new();
        canonical(self.input, &mut input);
        format!("{client}\n{user}\n{}\n{}\n{contents}", self.tool, Digest::of(input.as_bytes()))
    }
}

/// JSON with sorted keys: a client may write the same arguments in another order.
fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(name, _)| name.as_str());
            text.push('{');
            for (name, value) in members {
                text.push_str(&Value::from(name.as_str()).to_string());
                text.push(':');
                canonical(value, text);
                text.push(',');
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for item in items {
                canonical(item, text);
                text.push(',');
            }
            text.push(']');
        }
        other => text.push_str(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use clawcoil::clock::SystemClock;
    use clawcoil::host::{Home, init};
    use clawcoil::identity::{Identity, Recovery};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    async fn vault(folder: &tempfile::TempDir) -> Vault {
        let home = Home::at(folder.path().join("home"));
        init(&home, &Recovery::none(), Arc::new(SystemClock::new())).await.unwrap();
        let identity = Identity::load(&home.certificate(), &home.key()).unwrap();
        Vault::open(&home.database(), &identity, Arc::new(SystemClock::new())).await.unwrap()
    }

    fn caller(client: &str, user: &str) -> Caller {
        Caller { client: client.parse().unwrap(), user: user.parse().unwrap(), credential: None }
    }

    #[tokio::test]
    async fn a_state_opens_for_its_own_call_alone_and_not_after_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let vault = vault(&folder).await;
        let (alice, input) = (caller("bot", "alice"), json!({ "to": "bob", "n": [1, { "b": 1, "a": 2 }] }));
        let bound = Bound { caller: &alice, tool: "gmail-send_send", input: &input };
        let at = |second| Timestamp::from_second(second).unwrap();
        let state = RequestState::new(vec!["cs_1".to_owned()], at(1000));
        let sealed = state.seal(&vault, bound);
        let open = |text: &str, bound, now| RequestState::open(text, &vault, bound, at(now));
        assert_eq!(open(&sealed, bound, 999), Some(state.clone()));
        assert_eq!(open(&sealed, bound, 1000), None, "it has expired");

        let reordered = serde_json::from_str(r#"{"n":[1,{"a":2,"b":1}],"to":"bob"}"#).unwrap();
        assert!(open(&sealed, Bound { input: &reordered, ..bound }, 0).is_some(), "the order of keys says nothing");
        let other = json!({ "to": "eve", "n": [1, { "b": 1, "a": 2 }] });
        let (bob, program) = (caller("bot", "bob"), caller("other", "alice"));
        for foreign in [
            Bound { caller: &bob, ..bound },
            Bound { caller: &program, ..bound },
            Bound { tool: "gmail-send_draft", ..bound },
            Bound { input: &other, ..bound },
        ] {
            assert_eq!(open(&sealed, foreign, 0), None, "{foreign:?}");
        }

        for place in 0..sealed.len() {
            let mut bytes = sealed.clone().into_bytes();
            bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
            if let Some(opened) = open(&String::from_utf8(bytes).unwrap(), bound, 0) {
                // The last character of base64 has bits that say nothing; the decoder refuses those, too.
                panic!("a changed state opened: {opened:?}");
            }
        }
        let again = tempfile::tempdir().unwrap();
        let elsewhere = self::vault(&again).await;
        assert_eq!(RequestState::open(&sealed, &elsewhere, bound, at(0)), None, "another agent's");
    }

    proptest! {
        #[test]
        fn the_same_arguments_read_the_same_and_others_do_not(a in "[a-z\"\\\\:,{}]{0,6}", b in "[a-z\"\\\\:,{}]{0,6}") {
            let text = |value: &Value| { let mut text = String::new(); canonical(value, &mut text); text };
            let (one, two) = (json!({ "x": a, "y": b }), json!({ "y": b, "x": a }));
            prop_assert_eq!(text(&one), text(&two));
            prop_assert_eq!(text(&json!({ "x": a })) == text(&json!({ "x": b })), a == b);
            prop_assert_eq!(text(&json!([a])) == text(&json!([b, a])), false);
        }
    }
}
