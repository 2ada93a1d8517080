//! JSON Schema (2020-12) of the values of a shape.
//!
//! A schema says yes to exactly the values that [`convert`](super::convert) accepts:
//!
//! | WIT | JSON |
//! | --- | --- |
//! | integers | a whole number within the type's bounds; 64-bit ones also as a decimal string |
//! | `f32`, `f64` | a number, or `"NaN"`, `"Infinity"`, `"-Infinity"` |
//! | `char` | a string of one character |
//! | `list<u8>` | a base64 string (RFC 4648 section 4, padded) |
//! | `list<t>`, `tuple<…>` | an array |
//! | `record` | an object without other keys; a key whose type is an `option` may be left out |
//! | `variant` | `"case"`, or `{"case": payload}` where the case has a payload |
//! | `enum` | a string |
//! | `option<t>` | the value or `null`; an option in an option is `null` or `{"some": …}` |
//! | `result<t, e>` inside a value | `{"ok": …}` or `{"err": …}`, `null` where there is no payload |
//! | `flags` | an array of names, none of them twice |

use serde_json::{Map, Value, json};

use super::shape::Shape;

pub(super) const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Base64 with padding, and with nothing but zeros in the bits that are left over.
pub(super) const BASE64: &str = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$";

/// The schema of an object with these members.
pub(super) fn of_members(members: &[(String, Shape)]) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (name, shape) in members {
        properties.insert(name.clone(), of(shape));
        if !shape.takes_null() {
            required.push(Value::from(name.as_str()));
        }
    }
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if let (false, Some(object)) = (required.is_empty(), schema.as_object_mut()) {
        object.insert("required".to_owned(), required.into());
    }
    schema
}

/// The schema of one value.
pub(super) fn of(shape: &Shape) -> Value {
    match shape {
        Shape::Bool => json!({ "type": "boolean" }),
        Shape::S8 => integer(i8::MIN.into(), i8::MAX.into()),
        Shape::U8 => integer(u8::MIN.into(), u8::MAX.into()),
        Shape::S16 => integer(i16::MIN.into(), i16::MAX.into()),
        Shape::U16 => integer(u16::MIN.into(), u16::MAX.into()),
        Shape::S32 => integer(i32::MIN.into(), i32::MAX.into()),
        Shape::U32 => integer(u32::MIN.into(), u32::MAX.into()),
        Shape::S64 => {
            let (smallest, largest) = ("9223372036854775808", "9223372036854775807");
            let pattern = format!("^(?:0|{}|-(?:{}))$", up_to(largest), up_to(smallest));
            json!({ "anyOf": [integer(i64::MIN.into(), i64::MAX.into()), { "type": "string", "pattern": pattern }] })
        }
        Shape::U64 => {
            let pattern = format!("^(?:0|{})$", up_to("18446744073709551615"));
            json!({ "anyOf": [integer(u64::MIN.into(), u64::MAX.into()), { "type": "string", "pattern": pattern }] })
        }
        Shape::Float32 => {
            let (most, least) = (f64::from(f32::MAX), f64::from(f32::MIN));
            json!({ "anyOf": [{ "type": "number", "minimum": least, "maximum": most }, not_finite()] })
        }
        Shape::Float64 => json!({ "anyOf": [{ "type": "number" }, not_finite()] }),
        Shape::Char => json!({ "type": "string", "minLength": 1, "maxLength": 1 }),
        Shape::String => json!({ "type": "string" }),
        Shape::Bytes => json!({ "type": "string", "contentEncoding": "base64", "pattern": BASE64 }),
        Shape::List(item) => json!({ "type": "array", "items": of(item) }),
        Shape::Record(fields) => of_members(fields),
        Shape::Tuple(items) => {
            let length = items.len();
            let items: Vec<_> = items.iter().map(of).collect();
            let mut schema = json!({ "type": "array", "minItems": length, "maxItems": length, "items": false });
            // The dialect wants at least one schema in `prefixItems`.
            if let (false, Some(object)) = (items.is_empty(), schema.as_object_mut()) {
                object.insert("prefixItems".to_owned(), items.into());
            }
            schema
        }
        Shape::Variant(cases) => {
            let cases: Vec<_> = cases
                .iter()
                .map(|(name, payload)| match payload {
                    None => json!({ "const": name }),
                    Some(payload) => one_key(name, of(payload)),
                })
                .collect();
            json!({ "oneOf": cases })
        }
        Shape::Enum(names) => json!({ "type": "string", "enum": names }),
        Shape::Option(inner) if inner.takes_null() => {
            json!({ "anyOf": [one_key("some", of(inner)), { "type": "null" }] })
        }
        Shape::Option(inner) => json!({ "anyOf": [of(inner), { "type": "null" }] }),
        Shape::Result(payloads) => {
            let (ok, err) = &**payloads;
            json!({ "oneOf": [one_key("ok", payload(ok.as_ref())), one_key("err", payload(err.as_ref()))] })
        }
        Shape::Flags(names) if names.is_empty() => json!({ "type": "array", "maxItems": 0 }),
        Shape::Flags(names) => {
            json!({ "type": "array", "items": { "type": "string", "enum": names }, "uniqueItems": true })
        }
    }
}

/// The schema of what stands under `ok` and `err`, or of a whole result.
pub(super) fn payload(shape: Option<&Shape>) -> Value {
    shape.map_or_else(|| json!({ "type": "null" }), of)
}

fn integer(least: i128, most: i128) -> Value {
    // Both ends fit: they are those of i64 and u64 at the most.
    let number = |n: i128| i64::try_from(n).map(Value::from).or_else(|_| u64::try_from(n).map(Value::from));
    json!({ "type": "integer", "minimum": number(least).ok(), "maximum": number(most).ok() })
}

fn not_finite() -> Value {
    json!({ "enum": ["NaN", "Infinity", "-Infinity"] })
}

fn one_key(name: &str, value: Value) -> Value {
    let properties = Map::from_iter([(name.to_owned(), value)]);
    json!({ "type": "object", "properties": properties, "required": [name], "additionalProperties": false })
}

/// A pattern for the decimal numbers from 1 to this one, without leading zeros.
fn up_to(most: &str) -> String {
    let digits = most.as_bytes();
    // All shorter numbers, then those of the same length that are smaller at one place and the same before it.
    let mut ways = vec![format!("[1-9][0-9]{{0,{}}}", digits.len().saturating_sub(2))];
    for (at, digit) in digits.iter().enumerate() {
        let least = if at == 0 { b'1' } else { b'0' };
        if *digit > least {
            let (same, rest) = (most.get(..at).unwrap_or(""), digits.len() - at - 1);
            ways.push(format!("{same}[{}-{}][0-9]{{{rest}}}", char::from(least), char::from(digit - 1)));
        }
    }
    ways.push(most.to_owned());
    format!("(?:{})", ways.join("|"))
}
