//! Reading a token answer, leniently.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::de::{DeserializeSeed, MapAccess, Visitor};
use serde_json::{Map, Value};
use zeroize::{Zeroize as _, Zeroizing};

use super::server::AnswerShape;
use crate::clock::Timestamp;
use crate::id::Scope;
use crate::secret::{AccessToken, RefreshToken};

/// No access token is longer, in bytes: it has to fit into a header, and answers are searched for it.
const LONGEST_TOKEN: usize = 16 << 10;
/// No token is believed to live longer.
const LONGEST_LIFE: Duration = Duration::from_hours(10 * 365 * 24);

/// What a token endpoint gave.
#[derive(Debug)]
pub struct TokenResponse {
    /// The access token.
    pub access: AccessToken,
    /// A refresh token, where the answer has one. Without one, the old one stays good.
    pub refresh: Option<RefreshToken>,
    /// How the access token is used; `Bearer` where the answer does not say.
    pub token_type: String,
    /// The access token's life, counted from [`asked_at`](Self::asked_at). Absent where the answer has none that makes sense.
    pub expires_in: Option<Duration>,
    /// The scopes that were granted. Absent where they are those that were asked for.
    pub scopes: Option<BTreeSet<Scope>>,
    /// Where this connection's API lives, as the answer says it: not to be used before the catalogue has judged it.
    pub api_origin: Option<String>,
    /// Words for a person: which account it is.
    pub account_label: Option<String>,
    /// The time before the request was sent.
    pub asked_at: Timestamp,
}

/// The fields of an answer, wiped when dropped.
pub(super) struct Fields(Value);

/// The kind of text that an answer was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Text {
    /// A whole JSON object or a form.
    Whole,
    /// A JSON object that could not be read to its end.
    Broken,
    Html,
    Other,
}

impl Fields {
    /// Reads a body. Of an object that breaks off, what came before the break is kept. Of a field that comes twice, the last
    /// counts, as in ECMAScript's `JSON.parse`.
    pub(super) fn read(body: &[u8]) -> (Self, Text) {
        let mut fields = Map::new();
        let start = body.trim_ascii_start();
        let text = match start.first() {
            Some(b'{') => {
                let mut json = serde_json::Deserializer::from_slice(body);
                let read = Partial(&mut fields).deserialize(&mut json).and_then(|()| json.end());
                if read.is_ok() { Text::Whole } else { Text::Broken }
            }
            Some(b'<') => Text::Html,
            _ if looks_like_form(start) => {
                for (name, value) in url::form_urlencoded::parse(start) {
                    insert(&mut fields, name.into_owned(), Value::String(value.into_owned()));
                }
                Text::Whole
            }
            _ => Text::Other,
        };
        (Self(Value::Object(fields)), text)
    }

    pub(super) fn string(&self, pointer: &str) -> Option<&str> {
        self.0.pointer(pointer)?.as_str().filter(|text| !text.is_empty())
    }

    pub(super) fn boolean(&self, pointer: &str) -> Option<bool> {
        self.0.pointer(pointer)?.as_bool()
    }

    /// A count of seconds: a number or a numeral in a string. Nothing that is not positive is one.
    pub(super) fn seconds(&self, pointer: &str) -> Option<Duration> {
        let number = match self.0.pointer(pointer)? {
            Value::Number(number) => number.as_f64()?,
            Value::String(text) => text.trim().parse::<f64>().ok()?,
            _ => return None,
        };
        if number.is_nan() || number < 1.0 {
            return None;
        }
        Some(Duration::try_from_secs_f64(number.floor()).map_or(LONGEST_LIFE, |life| life.min(LONGEST_LIFE)))
    }

    /// Scopes in one text, separated by spaces or commas, or in a list. What is not a scope is left out.
    pub(super) fn scopes(&self, pointer: &str) -> Option<BTreeSet<Scope>> {
        let scopes = |text: &str| -> Vec<Scope> {
            text.split([' ', ',']).filter(|scope| !scope.is_empty()).filter_map(|scope| scope.parse().ok()).collect()
        };
        match self.0.pointer(pointer)? {
            Value::String(text) => Some(scopes(text).into_iter().collect()),
            Value::Array(list) => Some(list.iter().filter_map(Value::as_str).flat_map(scopes).collect()),
            _ => None,
        }
    }

    pub(super) fn refresh_token(&self, shape: &AnswerShape) -> Option<RefreshToken> {
        self.string(&shape.refresh).map(|token| RefreshToken::new(token.to_owned()))
    }

    /// The answer, if it has an access token that can stand on a request.
    pub(super) fn token_response(&self, shape: &AnswerShape, asked_at: Timestamp) -> Result<TokenResponse, Unusable> {
        let access = self.string(&shape.access).ok_or(Unusable::Missing)?;
        if access.len() > LONGEST_TOKEN || !access.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Unusable::Characters);
        }
        let token_type = self
            .string(&shape.token_type)
            .filter(|kind| kind.len() <= 32 && kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
        let label = |text: &str| -> String { text.chars().filter(|c| !c.is_control()).take(200).collect() };
        Ok(TokenResponse {
            access: AccessToken::new(access.to_owned()),
            refresh: self.refresh_token(shape),
            token_type: token_type.unwrap_or("Bearer").to_owned(),
            expires_in: self.seconds(&shape.expires_in),
            scopes: self.scopes(&shape.scope),
            api_origin: shape.api_origin.as_deref().and_then(|pointer| self.string(pointer)).map(str::to_owned),
            account_label: shape.account.as_deref().and_then(|pointer| self.string(pointer)).map(label),
            asked_at,
        })
    }
}

/// Why there is no token in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unusable {
    Missing,
    Characters,
}

impl Drop for Fields {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fields(…)")
    }
}

/// `name=value` pairs, as some servers write them unless asked for JSON.
fn looks_like_form(body: &[u8]) -> bool {
    let name = body.split(|byte| *byte == b'=').next().unwrap_or_default();
    name.len() < body.len()
        && !name.is_empty()
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
        && body.iter().all(u8::is_ascii_graphic)
}

fn insert(fields: &mut Map<String, Value>, name: String, value: Value) {
    if let Some(mut earlier) = fields.insert(name, value) {
        wipe(&mut earlier);
    }
}

fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(list) => list.iter_mut().for_each(wipe),
        Value::Object(fields) => fields.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Reads an object entry by entry, so that those before an error are kept.
struct Partial<'a>(&'a mut Map<String, Value>);

impl<'de> DeserializeSeed<'de> for Partial<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Partial<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            insert(self.0, name, value);
        }
        Ok(())
    }
}

/// A body that is wiped when dropped.
pub(super) fn wiped(body: bytes::Bytes) -> Zeroizing<Vec<u8>> {
    // Without a copy where the buffer has no other owner.
    Zeroizing::new(Vec::from(body))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(body: &str) -> (Result<TokenResponse, Unusable>, Text) {
        let (fields, text) = Fields::read(body.as_bytes());
        (fields.token_response(&AnswerShape::default(), Timestamp::UNIX_EPOCH), text)
    }

    #[test]
    fn a_life_in_any_form_is_read_or_left_out_and_never_costs_the_answer() {
        for (written, seconds) in [
            ("3600", Some(3600)),
            ("\"3600\"", Some(3600)),
            ("3600.9", Some(3600)),
            ("-1", None),
            ("0", None),
            ("\"soon\"", None),
            ("null", None),
            ("[1]", None),
            ("true", None),
            ("1e400", None),
            ("1e300", Some(LONGEST_LIFE.as_secs())),
            ("99999999999999999999999999", Some(LONGEST_LIFE.as_secs())),
        ] {
            let body = format!(r#"{{"refresh_token":"r","access_token":"a","expires_in":{written}}}"#);
            let (fields, _) = Fields::read(body.as_bytes());
            assert_eq!(fields.refresh_token(&AnswerShape::default()).unwrap().expose(), "r", "{written}");
            if written != "1e400" {
                let answer = fields.token_response(&AnswerShape::default(), Timestamp::UNIX_EPOCH).unwrap();
                assert_eq!(answer.expires_in.map(|life| life.as_secs()), seconds, "{written}");
            }
        }
    }

    #[test]
    fn of_a_broken_answer_the_fields_before_the_break_are_kept() {
        let deep = format!(r#"{{"refresh_token":"good","x":{}"#, "[".repeat(100_000));
        for body in [r#"{"refresh_token":"good","access_tok"#, r#"{"refresh_token":"good"} trailing"#, &deep] {
            let (fields, text) = Fields::read(body.as_bytes());
            assert_eq!(text, Text::Broken);
            assert_eq!(fields.refresh_token(&AnswerShape::default()).unwrap().expose(), "good");
        }
    }

    #[test]
    fn of_a_field_that_comes_twice_the_last_counts() {
        let (answer, _) = read(r#"{"access_token":"a","access_token":"b","refresh_token":"c","refresh_token":"d"}"#);
        let answer = answer.unwrap();
        assert_eq!((answer.access.expose(), answer.refresh.unwrap().expose()), ("b", "d"));
    }

    #[test]
    fn forms_and_lists_of_scopes_are_read() {
        let (answer, text) = read("access_token=gho_x&scope=repo%2Cgist&token_type=bearer");
        assert_eq!(text, Text::Whole);
        let scopes: Vec<_> = answer.unwrap().scopes.unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(scopes, ["gist", "repo"]);
        let (answer, _) = read(r#"{"access_token":"a","scope":["read","write admin", 7]}"#);
        assert_eq!(answer.unwrap().scopes.unwrap().len(), 3);
    }

    #[test]
    fn a_token_that_could_split_a_header_is_refused() {
        assert_eq!(read(r#"{"access_token":"a\r\nX: y"}"#).0.unwrap_err(), Unusable::Characters);
        assert_eq!(read(r#"{"access_token":""}"#).0.unwrap_err(), Unusable::Missing);
        assert_eq!(read(r#"{"access_token":["a"]}"#).0.unwrap_err(), Unusable::Missing);
    }

    #[test]
    fn pages_and_noise_are_told_apart() {
        assert_eq!(Fields::read(b" <!doctype html>").1, Text::Html);
        assert_eq!(Fields::read(b"Service Unavailable").1, Text::Other);
        assert_eq!(Fields::read(b"").1, Text::Other);
        assert_eq!(Fields::read(b"[1]").1, Text::Other);
    }

    proptest! {
        #[test]
        fn no_body_makes_the_reader_panic(body: Vec<u8>) {
            let (fields, _) = Fields::read(&body);
            drop(fields.token_response(&AnswerShape::default(), Timestamp::UNIX_EPOCH));
        }

        #[test]
        fn a_refresh_token_is_kept_whatever_the_other_fields_are(
            token in "[!-~&&[^\"\\\\]]{1,40}",
            fields in proptest::collection::btree_map("[a-z_]{1,12}", json(), 0..6),
        ) {
            let mut object: Map<String, Value> = fields.into_iter().collect();
            object.insert("refresh_token".into(), token.clone().into());
            let body = serde_json::to_vec(&object).unwrap();
            let (fields, text) = Fields::read(&body);
            prop_assert_eq!(text, Text::Whole);
            let kept = fields.refresh_token(&AnswerShape::default()).unwrap();
            prop_assert_eq!(kept.expose(), token.as_str());
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,20}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 16, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-z]{1,6}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }
}
