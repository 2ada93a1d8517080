//! Values from JSON and back, by the shape of their type. [`schema`](super::schema) has the table of how each is written.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Number, Value};
use wasmtime::component::Val;

use super::shape::Shape;

/// The most faults that are told one by one.
const MOST_FAULTS: usize = 50;
/// The most characters of a caller's or a guest's text in a message.
const MOST_TEXT: usize = 60;

/// All that is wrong with a tool's arguments, each with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    faults: Vec<Fault>,
    more: usize,
}

/// One thing that is wrong with the arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where, as a JSON path: `$.message.to[2]`.
    pub path: String,
    /// What, and what was expected.
    pub message: String,
}

impl Faults {
    /// Each of them, at most 50.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.faults.iter()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, fault) in self.faults.iter().enumerate() {
            let line = if at == 0 { "" } else { "\n" };
            write!(f, "{line}  {}: {}", fault.path, fault.message)?;
        }
        if self.more > 0 {
            write!(f, "\n  and {} more", self.more)?;
        }
        Ok(())
    }
}

/// The arguments as the guest takes them, or everything that is wrong with them.
pub(super) fn arguments(params: &[(String, Shape)], input: &Value, most: usize) -> Result<Vec<Val>, Faults> {
    let mut reader = Reader { faults: Vec::new(), more: 0, left: most, full: false };
    let root = Path { parent: None, step: Step::Root };
    let values = match input {
        Value::Object(object) => reader.members(params, object, &root, "argument"),
        other => {
            reader.fault(&root, || format!("expected an object with the arguments, found {}", Found(other)));
            None
        }
    };
    if reader.full {
        reader.faults.insert(0, Fault { path: "$".into(), message: format!("larger than {most} bytes altogether") });
    }
    match values {
        Some(values) if reader.faults.is_empty() => Ok(values.into_iter().map(|(_, value)| value).collect()),
        _ => Err(Faults { faults: reader.faults, more: reader.more }),
    }
}

/// A value's place, as a list that leads back to the root and costs nothing until it is written.
struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

enum Step<'a> {
    Root,
    Key(&'a str),
    Index(usize),
}

impl Path<'_> {
    fn key<'a>(&'a self, key: &'a str) -> Path<'a> {
        Path { parent: Some(self), step: Step::Key(key) }
    }

    fn index(&self, index: usize) -> Path<'_> {
        Path { parent: Some(self), step: Step::Index(index) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Root => f.write_str("$"),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) if plain(key) => write!(f, ".{key}"),
            Step::Key(key) => write!(f, "[{}]", Quoted(key)),
        }
    }
}

/// Whether a key can stand after a point: a WIT name, or something that looks like one.
fn plain(key: &str) -> bool {
    key.len() <= MOST_TEXT
        && key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
}

/// A text of somebody else's, quoted and cut.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(MOST_TEXT) {
            Some((end, _)) => write!(f, "{:?}…", self.0.get(..end).unwrap_or("")),
            None => write!(f, "{:?}", self.0),
        }
    }
}

/// What was found, in words.
struct Found<'a>(&'a Value);

impl fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Null => f.write_str("null"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Number(number) => write!(f, "{number}"),
            Value::String(text) => write!(f, "the text {}", Quoted(text)),
            Value::Array(_) => f.write_str("an array"),
            Value::Object(_) => f.write_str("an object"),
        }
    }
}

struct Reader {
    faults: Vec<Fault>,
    more: usize,
    left: usize,
    full: bool,
}

impl Reader {
    fn fault(&mut self, path: &Path<'_>, message: impl FnOnce() -> String) {
        if self.faults.len() < MOST_FAULTS {
            self.faults.push(Fault { path: path.to_string(), message: message() });
        } else {
            self.more += 1;
        }
    }

    /// Counts what a value takes; nothing more is read once there is no room.
    fn room(&mut self, bytes: usize) -> bool {
        match self.left.checked_sub(bytes) {
            Some(left) => self.left = left,
            None => self.full = true,
        }
        !self.full
    }

    fn members(
        &mut self,
        fields: &[(String, Shape)],
        object: &Map<String, Value>,
        path: &Path<'_>,
        kind: &str,
    ) -> Option<Vec<(String, Val)>> {
        let mut values = Some(Vec::with_capacity(fields.len()));
        for (name, shape) in fields {
            let value = match object.get(name) {
                Some(value) => self.value(shape, value, &path.key(name)),
                None if shape.takes_null() => Some(Val::Option(None)),
                None => {
                    self.fault(&path.key(name), || format!("missing; expected {}", Expected(shape)));
                    None
                }
            };
            match (&mut values, value) {
                (Some(values), Some(value)) => values.push((name.clone(), value)),
                _ => values = None,
            }
        }
        // Every member that was found was wanted, unless there are more than that.
        let known = fields.iter().filter(|(name, _)| object.contains_key(name)).count();
        if object.len() > known {
            values = None;
            for key in object.keys().filter(|key| fields.iter().all(|(name, _)| name != *key)) {
                self.fault(&path.key(key), || {
                    let hint = closest(key, fields.iter().map(|(name, _)| name.as_str()));
                    format!("there is no such {kind}{hint}")
                });
            }
        }
        values
    }

    fn value(&mut self, shape: &Shape, value: &Value, path: &Path<'_>) -> Option<Val> {
        if !self.room(1) {
            return None;
        }
        let read = match (shape, value) {
            (Shape::Bool, Value::Bool(value)) => Some(Val::Bool(*value)),
            (Shape::S8, Value::Number(n)) => whole(n).and_then(|n| n.try_into().ok()).map(Val::S8),
            (Shape::U8, Value::Number(n)) => whole(n).and_then(|n| n.try_into().ok()).map(Val::U8),
            (Shape::S16, Value::Number(n)) => whole(n).and_then(|n| n.try_into().ok()).map(Val::S16),
            (Shape::U16, Value::Number(n)) => whole(n).and_then(|n| n.try_into().ok()).map(Val::U16),
            (Shape::S32, Value::Number(n)) => whole(n).and_then(|n| n.try_into().ok()).map(Val::S32),
            (Shape::U32, Value::Number(n)) => whole(n).and_then(|n| n.try_into().ok()).map(Val::U32),
            (Shape::S64, Value::Number(n)) => whole(n).and_then(|n| n.try_into().ok()).map(Val::S64),
            (Shape::U64, Value::Number(n)) => whole(n).and_then(|n| n.try_into().ok()).map(Val::U64),
            (Shape::S64, Value::String(text)) => decimal(text).map(Val::S64),
            (Shape::U64, Value::String(text)) => decimal(text).map(Val::U64),
            (Shape::Float32, Value::Number(n)) => n.as_f64().and_then(single).map(Val::Float32),
            (Shape::Float64, Value::Number(n)) => n.as_f64().map(Val::Float64),
            (Shape::Float32, Value::String(text)) => not_finite(text).and_then(single).map(Val::Float32),
            (Shape::Float64, Value::String(text)) => not_finite(text).map(Val::Float64),
            (Shape::Char, Value::String(text)) => {
                let mut chars = text.chars();
                chars.next().filter(|_| chars.next().is_none()).map(Val::Char)
            }
            (Shape::String, Value::String(text)) => {
                return self.room(text.len()).then(|| Val::String(text.clone()));
            }
            (Shape::Bytes, Value::String(text)) => {
                if !self.room(text.len()) {
                    return None;
                }
                BASE64.decode(text).ok().map(|bytes| Val::List(bytes.into_iter().map(Val::U8).collect()))
            }
            (Shape::List(item), Value::Array(items)) => {
                return self.items(items.iter().map(|value| (&**item, value)), path).map(Val::List);
            }
            (Shape::Tuple(shapes), Value::Array(items)) if shapes.len() == items.len() => {
                return self.items(shapes.iter().zip(items), path).map(Val::Tuple);
            }
            (Shape::Record(fields), Value::Object(object)) => {
                return self.members(fields, object, path, "field").map(Val::Record);
            }
            (Shape::Variant(cases), value) => return self.variant(cases, value, path),
            (Shape::Enum(names), Value::String(text)) if names.contains(text) => Some(Val::Enum(text.clone())),
            (Shape::Option(_), Value::Null) => Some(Val::Option(None)),
            (Shape::Option(inner), value) if inner.takes_null() => {
                match value.as_object().filter(|object| object.len() == 1).and_then(|object| object.get("some")) {
                    Some(value) => {
                        let value = self.value(inner, value, &path.key("some"))?;
                        return Some(Val::Option(Some(Box::new(value))));
                    }
                    None => None,
                }
            }
            (Shape::Option(inner), value) => {
                let value = self.value(inner, value, path)?;
                return Some(Val::Option(Some(Box::new(value))));
            }
            (Shape::Result(payloads), Value::Object(object)) if object.len() == 1 => {
                let (ok, err) = &**payloads;
                match (object.get("ok"), object.get("err")) {
                    (Some(value), None) => {
                        let value = self.payload(ok.as_ref(), value, &path.key("ok"))?;
                        return Some(Val::Result(Ok(value)));
                    }
                    (None, Some(value)) => {
                        let value = self.payload(err.as_ref(), value, &path.key("err"))?;
                        return Some(Val::Result(Err(value)));
                    }
                    _ => None,
                }
            }
            (Shape::Flags(names), Value::Array(items)) => return self.flags(names, items, path).map(Val::Flags),
            _ => None,
        };
        if read.is_none() {
            self.fault(path, || format!("expected {}, found {}", Expected(shape), Found(value)));
        }
        read
    }

    fn items<'a>(&mut self, items: impl Iterator<Item = (&'a Shape, &'a Value)>, path: &Path<'_>) -> Option<Vec<Val>> {
        let mut values = Some(Vec::new());
        for (at, (shape, item)) in items.enumerate() {
            match (&mut values, self.value(shape, item, &path.index(at))) {
                (Some(values), Some(value)) => values.push(value),
                _ => values = None,
            }
            if self.full {
                return None;
            }
        }
        values
    }

    fn variant(&mut self, cases: &[(String, Option<Shape>)], value: &Value, path: &Path<'_>) -> Option<Val> {
        match value {
            Value::String(text) => {
                if let Some((name, None)) = cases.iter().find(|(name, _)| name == text) {
                    return Some(Val::Variant(name.clone(), None));
                }
            }
            Value::Object(object) if object.len() == 1 => {
                if let Some((name, Some(shape), value)) = object.iter().next().and_then(|(key, value)| {
                    cases.iter().find(|(name, _)| name == key).map(|(name, shape)| (name, shape.as_ref(), value))
                }) {
                    let value = self.value(shape, value, &path.key(name))?;
                    return Some(Val::Variant(name.clone(), Some(Box::new(value))));
                }
            }
            _ => {}
        }
        self.fault(path, || format!("expected {}, found {}", Cases(cases), Found(value)));
        None
    }

    /// The payload of `ok` or `err`: the outer `None` is a fault.
    #[expect(clippy::option_option, reason = "the inner one is the payload that a result may not have")]
    fn payload(&mut self, shape: Option<&Shape>, value: &Value, path: &Path<'_>) -> Option<Option<Box<Val>>> {
        match shape {
            Some(shape) => Some(Some(Box::new(self.value(shape, value, path)?))),
            None if value.is_null() => Some(None),
            None => {
                self.fault(path, || format!("expected null, found {}", Found(value)));
                None
            }
        }
    }

    fn flags(&mut self, names: &[String], items: &[Value], path: &Path<'_>) -> Option<Vec<String>> {
        let mut set = Vec::new();
        let mut good = true;
        for (at, item) in items.iter().enumerate() {
            match item.as_str().filter(|text| names.iter().any(|name| name == text)) {
                Some(name) if set.iter().any(|known| known == name) => {
                    good = false;
                    self.fault(&path.index(at), || format!("{name:?} stands there twice"));
                }
                Some(name) => set.push(name.to_owned()),
                None => {
                    good = false;
                    self.fault(&path.index(at), || format!("expected {}, found {}", OneOf(names), Found(item)));
                }
            }
            // There is no set with more members than names.
            if !self.room(1) {
                return None;
            }
        }
        good.then_some(set)
    }
}

/// A whole number, also where it is written with a fraction of zero.
fn whole(number: &Number) -> Option<i128> {
    if let Some(n) = number.as_i64() {
        return Some(n.into());
    }
    if let Some(n) = number.as_u64() {
        return Some(n.into());
    }
    // Beyond 2^64 nothing fits; below it, the conversion is exact.
    let n = number.as_f64().filter(|n| n.fract() == 0.0 && n.abs() <= 18_446_744_073_709_551_616.0)?;
    #[expect(clippy::cast_possible_truncation, reason = "whole and in range, as was just asked")]
    Some(n as i128)
}

/// A decimal number exactly as it would be written.
fn decimal<T: std::str::FromStr + fmt::Display>(text: &str) -> Option<T> {
    text.parse().ok().filter(|n: &T| n.to_string() == text)
}

#[expect(clippy::cast_possible_truncation, reason = "the nearest number is what is wanted")]
fn single(n: f64) -> Option<f32> {
    (!n.is_finite() || n.abs() <= f64::from(f32::MAX)).then_some(n as f32)
}

fn not_finite(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

/// `; did you mean …?` where a name is close.
pub(super) fn closest<'a>(text: &str, names: impl Iterator<Item = &'a str>) -> String {
    let text: String = text.chars().take(MOST_TEXT).collect();
    names
        .map(|name| (strsim::damerau_levenshtein(&text, name), name))
        .filter(|(distance, name)| *distance <= 1.max(name.len() / 3))
        .min()
        .map(|(_, name)| format!("; did you mean `{name}`?"))
        .unwrap_or_default()
}

/// What a shape takes, in words.
struct Expected<'a>(&'a Shape);

impl fmt::Display for Expected<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Shape::Bool => f.write_str("true or false"),
            Shape::S8 => write!(f, "a whole number between {} and {}", i8::MIN, i8::MAX),
            Shape::U8 => write!(f, "a whole number between 0 and {}", u8::MAX),
            Shape::S16 => write!(f, "a whole number between {} and {}", i16::MIN, i16::MAX),
            Shape::U16 => write!(f, "a whole number between 0 and {}", u16::MAX),
            Shape::S32 => write!(f, "a whole number between {} and {}", i32::MIN, i32::MAX),
            Shape::U32 => write!(f, "a whole number between 0 and {}", u32::MAX),
            Shape::S64 => f.write_str("a whole number of 64 bits, as a number or as text"),
            Shape::U64 => f.write_str("a whole number from 0 on of 64 bits, as a number or as text"),
            Shape::Float32 => f.write_str("a number of 32 bits"),
            Shape::Float64 => f.write_str("a number"),
            Shape::Char => f.write_str("a text of one character"),
            Shape::String => f.write_str("a text"),
            Shape::Bytes => f.write_str("bytes as base64 with padding"),
            Shape::List(_) => f.write_str("an array"),
            Shape::Record(_) => f.write_str("an object"),
            Shape::Tuple(items) => write!(f, "an array of {} values", items.len()),
            Shape::Variant(cases) => Cases(cases).fmt(f),
            Shape::Enum(names) => OneOf(names).fmt(f),
            Shape::Option(inner) if inner.takes_null() => f.write_str("null or {\"some\": …}"),
            Shape::Option(inner) => write!(f, "{} or null", Expected(inner)),
            Shape::Result(_) => f.write_str("{\"ok\": …} or {\"err\": …}"),
            Shape::Flags(names) => write!(f, "an array of {}", OneOf(names)),
        }
    }
}

struct OneOf<'a>(&'a [String]);

impl fmt::Display for OneOf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, self.0.iter().map(|name| format!("{name:?}")))
    }
}

struct Cases<'a>(&'a [(String, Option<Shape>)]);

impl fmt::Display for Cases<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(
            f,
            self.0.iter().map(|(name, payload)| match payload {
                None => format!("{name:?}"),
                Some(_) => format!("{{{name:?}: …}}"),
            }),
        )
    }
}

/// `one`, `one or two`, or the first ten of many.
fn list(f: &mut fmt::Formatter<'_>, items: impl ExactSizeIterator<Item = String>) -> fmt::Result {
    let (count, shown) = (items.len(), items.len().min(10));
    for (at, item) in items.take(shown).enumerate() {
        match at {
            0 => f.write_str(&item)?,
            at if at + 1 == count => write!(f, " or {item}")?,
            _ => write!(f, ", {item}")?,
        }
    }
    if count > shown { write!(f, " or one of {} others", count - shown) } else { Ok(()) }
}

/// Why a guest's result can't be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It is larger than allowed.
    TooLarge,
    /// It is not of the type that the component declares.
    Type,
}

/// A guest's value as JSON of at most `left` bytes.
pub(super) fn to_json(shape: &Shape, value: Val, left: &mut usize) -> Result<Value, Unreadable> {
    let mut room = |bytes: usize| match left.checked_sub(bytes) {
        Some(less) => {
            *left = less;
            Ok(())
        }
        None => Err(Unreadable::TooLarge),
    };
    room(1)?;
    Ok(match (shape, value) {
        (Shape::Bool, Val::Bool(value)) => Value::Bool(value),
        (Shape::S8, Val::S8(n)) => n.into(),
        (Shape::U8, Val::U8(n)) => n.into(),
        (Shape::S16, Val::S16(n)) => n.into(),
        (Shape::U16, Val::U16(n)) => n.into(),
        (Shape::S32, Val::S32(n)) => n.into(),
        (Shape::U32, Val::U32(n)) => n.into(),
        // Beyond 2^53 many readers of JSON round: there the digits are safer as text.
        (Shape::S64, Val::S64(n)) if n.unsigned_abs() < 1 << 53 => n.into(),
        (Shape::S64, Val::S64(n)) => n.to_string().into(),
        (Shape::U64, Val::U64(n)) if n < 1 << 53 => n.into(),
        (Shape::U64, Val::U64(n)) => n.to_string().into(),
        // The shortest digits that give the same 32-bit number, not those of its 64-bit neighbour.
        (Shape::Float32, Val::Float32(n)) => float(n.to_string().parse().unwrap_or_else(|_| n.into())),
        (Shape::Float64, Val::Float64(n)) => float(n),
        (Shape::Char, Val::Char(c)) => c.to_string().into(),
        (Shape::String, Val::String(text)) => {
            room(written(&text))?;
            text.into()
        }
        (Shape::Bytes, Val::List(items)) => {
            room(items.len().div_ceil(3).saturating_mul(4))?;
            let bytes: Vec<u8> = items
                .into_iter()
                .map(|item| if let Val::U8(byte) = item { Ok(byte) } else { Err(Unreadable::Type) })
                .collect::<Result<_, _>>()?;
            BASE64.encode(bytes).into()
        }
        (Shape::List(item), Val::List(items)) => {
            room(items.len())?;
            items.into_iter().map(|value| to_json(item, value, left)).collect::<Result<Vec<_>, _>>()?.into()
        }
        (Shape::Record(fields), Val::Record(values)) if fields.len() == values.len() => {
            let mut object = Map::new();
            for ((name, shape), (_, value)) in fields.iter().zip(values) {
                *left = left.checked_sub(name.len() + 3).ok_or(Unreadable::TooLarge)?;
                object.insert(name.clone(), to_json(shape, value, left)?);
            }
            object.into()
        }
        (Shape::Tuple(shapes), Val::Tuple(values)) if shapes.len() == values.len() => shapes
            .iter()
            .zip(values)
            .map(|(shape, value)| to_json(shape, value, left))
            .collect::<Result<Vec<_>, _>>()?
            .into(),
        (Shape::Variant(cases), Val::Variant(name, payload)) => {
            room(name.len() + 2)?;
            let (_, shape) = cases.iter().find(|(case, _)| *case == name).ok_or(Unreadable::Type)?;
            match (shape, payload) {
                (None, None) => name.into(),
                (Some(shape), Some(value)) => one_key(&name, to_json(shape, *value, left)?),
                _ => return Err(Unreadable::Type),
            }
        }
        (Shape::Enum(_), Val::Enum(name)) => {
            room(name.len() + 2)?;
            name.into()
        }
        (Shape::Option(_), Val::Option(None)) => Value::Null,
        (Shape::Option(inner), Val::Option(Some(value))) if inner.takes_null() => {
            one_key("some", to_json(inner, *value, left)?)
        }
        (Shape::Option(inner), Val::Option(Some(value))) => to_json(inner, *value, left)?,
        (Shape::Result(payloads), Val::Result(result)) => match result {
            Ok(value) => one_key("ok", payload(payloads.0.as_ref(), value, left)?),
            Err(value) => one_key("err", payload(payloads.1.as_ref(), value, left)?),
        },
        (Shape::Flags(_), Val::Flags(names)) => {
            room(names.iter().map(|name| name.len() + 3).sum())?;
            names.into()
        }
        _ => return Err(Unreadable::Type),
    })
}

/// The payload of a result, `null` where it has none.
pub(super) fn payload(shape: Option<&Shape>, value: Option<Box<Val>>, left: &mut usize) -> Result<Value, Unreadable> {
    match (shape, value) {
        (Some(shape), Some(value)) => to_json(shape, *value, left),
        (None, None) => Ok(Value::Null),
        _ => Err(Unreadable::Type),
    }
}

fn float(n: f64) -> Value {
    match Number::from_f64(n) {
        Some(number) => number.into(),
        None if n.is_nan() => "NaN".into(),
        None if n > 0.0 => "Infinity".into(),
        None => "-Infinity".into(),
    }
}

fn one_key(name: &str, value: Value) -> Value {
    Map::from_iter([(name.to_owned(), value)]).into()
}

/// The most bytes that a text takes in JSON.
fn written(text: &str) -> usize {
    text.bytes()
        .map(|byte| match byte {
            0..0x20 => 6,
            b'"' | b'\\' => 2,
            _ => 1,
        })
        .sum::<usize>()
        .saturating_add(2)
}
