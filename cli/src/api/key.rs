//! The header `Idempotency-Key`: a name that a caller gives to a request, so that trying again does nothing twice.
//!
//! It is written as a string of Structured Fields (RFC 9651 section 3.3.3), `"8e03978e-40d5"`, or bare, as most programs do.
//!
//! What a key was used for is a sealed document of the caller's user ([`Keys`]).

use std::fmt;
use std::str::FromStr;

use axum::http::{HeaderMap, HeaderName};
use clawcoil::clock::Timestamp;
use clawcoil::id::{Caller, Generation, Owner};
use clawcoil::vault::{Document, Lookup, Vault, VaultError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::serve::{Kind, Problem};

/// The header's name.
pub(super) const HEADER: &str = "idempotency-key";

/// Says that an answer is one that was given before.
pub(super) const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The kind of the documents.
const KIND: &str = "idempotency-key";

/// The longest key, in characters.
const LONGEST: usize = 255;

/// A key: 1 to 255 visible ASCII characters, spaces within.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key(String);

impl Key {
    /// The one key of a request, if it has any.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let mut values = headers.get_all(HEADER).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => {
                let key = value.to_str().ok().and_then(|text| text.parse().ok());
                key.map(Some).ok_or_else(|| Problem::new(Kind::BadRequest, NotAKey.to_string()))
            }
            (Some(_), Some(_)) => Err(Problem::new(Kind::BadRequest, "a request has one Idempotency-Key")),
        }
    }
}

/// What the keys of one caller were used for, at one address: the same key at another is another.
#[derive(Clone, Copy)]
pub(super) struct Keys<'a> {
    pub(super) vault: &'a Vault,
    /// Method and path.
    pub(super) route: &'static str,
    pub(super) caller: &'a Caller,
}

impl Keys<'_> {
    /// Takes a key. Of several who try, one gets it; the others get what is written there.
    pub(super) async fn claim<C: Serialize + DeserializeOwned>(
        self,
        key: &Key,
        claim: &C,
        until: Timestamp,
    ) -> Result<Option<C>, VaultError> {
        let lookup = self.lookup(key);
        let document = Document {
            kind: KIND,
            lookup,
            owner: Owner::User(self.caller.user.clone()),
            expires_at: Some(until),
            contents: serde_json::to_string(claim).unwrap_or_default().into(),
            revision: Generation(0),
        };
        match self.vault.put_document(&document).await {
            Ok(()) => Ok(None),
            Err(VaultError::DocumentExists) => {
                let found = self.vault.document(KIND, &lookup)?;
                let claim = found.and_then(|document| serde_json::from_str(&document.contents).ok());
                // It has expired in this moment, or no version of this program wrote it.
                claim.map(Some).ok_or(VaultError::DocumentExists)
            }
            Err(error) => Err(error),
        }
    }

    /// Lets go of a key whose request did nothing.
    pub(super) async fn release(self, key: &Key) -> Result<(), VaultError> {
        self.vault.take_document(KIND, &self.lookup(key)).await.map(drop)
    }

    fn lookup(self, key: &Key) -> Lookup {
        let Caller { client, user, .. } = self.caller;
        self.vault.lookup_of(KIND, &format!("{}\n{client}\n{user}\n{}", self.route, key.0))
    }
}

/// The key names another request.
pub(super) fn used_otherwise() -> Problem {
    let detail = "this Idempotency-Key was used with another request: take a new key for a new request";
    Problem::new(Kind::Invalid, detail)
}

/// Text that is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotAKey;

impl fmt::Display for NotAKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an Idempotency-Key has 1 to {LONGEST} ASCII characters, with or without double quotes around them")
    }
}

impl FromStr for Key {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let text = text.trim_matches([' ', '\t']);
        let key = match text.strip_prefix('"') {
            Some(rest) => quoted(rest)?,
            None => text.to_owned(),
        };
        let sound = key.bytes().all(|byte| matches!(byte, b' '..=b'~')) && (1..=LONGEST).contains(&key.len());
        if sound { Ok(Self(key)) } else { Err(NotAKey) }
    }
}

/// What stands between the quotes; the first is read already, and the last ends the text.
fn quoted(text: &str) -> Result<String, NotAKey> {
    let mut key = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' if characters.as_str().is_empty() => return Ok(key),
            '"' => return Err(NotAKey),
            '\\' => match characters.next() {
                Some(escaped @ ('"' | '\\')) => key.push(escaped),
                _ => return Err(NotAKey),
            },
            other => key.push(other),
        }
    }
    Err(NotAKey)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Option<String> {
        text.parse::<Key>().ok().map(|key| key.0)
    }

    #[test]
    fn a_key_is_the_same_with_and_without_quotes() {
        for text in ["8e03978e-40d5", "\"8e03978e-40d5\"", " 8e03978e-40d5\t"] {
            assert_eq!(key(text).as_deref(), Some("8e03978e-40d5"), "{text}");
        }
        assert_eq!(key(r#""a \"b\" \\""#).as_deref(), Some(r#"a "b" \"#));
    }

    #[test]
    fn what_is_empty_too_long_open_or_not_ascii_is_no_key() {
        let long = "x".repeat(LONGEST + 1);
        for text in ["", " ", "\"\"", "\"open", "\"a\"b\"", "\"\\x\"", "\"a\\", "é", "a\tb", "\"a\u{7f}\"", &long] {
            assert_eq!(key(text), None, "{text:?}");
        }
        assert!(key(long.get(1..).unwrap()).is_some());
    }

    proptest::proptest! {
        #[test]
        fn any_key_that_is_quoted_is_read_as_it_was(text in "[ -~]{1,255}") {
            let quoted = format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
            assert_eq!(key(&quoted), Some(text));
        }

        #[test]
        fn any_text_is_a_key_or_refused_without_a_panic(text in "(?s).{0,300}") {
            if let Some(key) = key(&text) {
                assert!((1..=LONGEST).contains(&key.len()) && key.is_ascii());
            }
        }
    }
}
