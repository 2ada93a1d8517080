//! A tool's arguments as text: one JSON object, in which each key stands once.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// The most characters of a key that stands twice in a message.
const MOST_TEXT: usize = 60;

/// A text that holds no arguments.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// Nothing stands there.
    #[error("there is no JSON: write an object with one member for each argument, and {{}} for none")]
    Empty,
    /// It is broken, or a key stands there twice.
    #[error("line {line}, column {column}: {what}")]
    Json {
        /// The line, from one.
        line: usize,
        /// The column, from one, in bytes.
        column: usize,
        /// What is wrong, and the way out.
        what: String,
    },
    /// JSON, but no object.
    #[error("this is {0}: write an object with one member for each argument")]
    NotAnObject(&'static str),
}

/// Reads the arguments of a tool.
///
/// A key that stands twice is an error, and not one of its two values: which of them the skill gets must not be left to a
/// library's taste.
pub fn parse_input(text: &str) -> Result<Value, InputError> {
    // An end that comes too early is shown at the last thing that stands there.
    let text = text.trim_end();
    if text.is_empty() {
        return Err(InputError::Empty);
    }
    match serde_json::from_str(text) {
        Ok(Once(value @ Value::Object(_))) => Ok(value),
        Ok(Once(Value::Array(_))) => Err(InputError::NotAnObject("an array")),
        Ok(Once(Value::String(_))) => Err(InputError::NotAnObject("a text")),
        Ok(Once(Value::Number(_))) => Err(InputError::NotAnObject("a number")),
        Ok(Once(Value::Bool(_) | Value::Null)) => Err(InputError::NotAnObject("a single word")),
        Err(error) => Err(InputError::Json { line: error.line(), column: error.column(), what: what(&error) }),
    }
}

/// What the parser says, without the place that stands before it already.
fn what(error: &serde_json::Error) -> String {
    let said = error.to_string();
    let said = said.split_once(" at line ").map_or(&*said, |(said, _)| said);
    match (error.classify(), said) {
        // What `Once` says itself.
        (serde_json::error::Category::Data, said) => said.to_owned(),
        (_, "recursion limit exceeded") => "the JSON is nested more than 127 deep: nothing takes that".to_owned(),
        (serde_json::error::Category::Eof, _) => {
            "the JSON ends too early: a bracket, a brace or a quote is not closed".to_owned()
        }
        (_, "key must be a string") => "this is not JSON: a key stands in double quotes".to_owned(),
        (_, "expected ident" | "expected value") => {
            "this is not JSON: a text stands in double quotes, an object in braces".to_owned()
        }
        (_, "trailing comma") => "this is not JSON: a comma stands before the closing bracket; remove it".to_owned(),
        (_, "trailing characters") => "something stands after the end of the JSON: remove it".to_owned(),
        (_, said) => format!("this is not JSON: {said}"),
    }
}

/// A value whose objects have each key once.
struct Once(Value);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OnceVisitor).map(Self)
    }
}

struct OnceVisitor;

impl<'de> Visitor<'de> for OnceVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Once(value)) = items.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            if object.contains_key(&key) {
                let key: String = key.chars().take(MOST_TEXT).collect();
                return Err(A::Error::custom(format!("the key {key:?} stands there twice: remove one of the two")));
            }
            let Once(value) = members.next_value()?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_that_stands_twice_is_refused_also_deep_inside() {
        assert!(parse_input(r#"{"a":1,"b":{"a":1}}"#).is_ok());
        assert!(parse_input(r#"{"a":1,"a":1}"#).is_err());
        assert!(parse_input(r#"{"a":[{"b":1,"c":2,"b":3}]}"#).is_err());
        assert!(parse_input("{\"a\":1,\"\\u0061\":2}").is_err(), "however it is spelled");
    }

    proptest! {
        #[test]
        fn what_has_no_key_twice_is_read_as_everybody_reads_it(text in "[\\[\\]{}\":,0-9a-c \\\\.e-]{0,40}") {
            match (parse_input(&text), serde_json::from_str::<Value>(&text)) {
                (Ok(ours), theirs) => prop_assert_eq!(ours, theirs.unwrap()),
                (Err(error), Ok(theirs)) => {
                    let reason = error.to_string();
                    prop_assert!(!theirs.is_object() || reason.contains("twice"), "{}", reason);
                }
                (Err(_), Err(_)) => {}
            }
        }
    }
}
