//! The schema of a type and the reading of its values say the same, and what is read is written back.

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use wasmtime::component::Val;

use super::super::convert::{arguments, to_json};
use super::super::schema;
use super::super::shape::Shape;

fn name() -> impl Strategy<Value = String> {
    "[a-z]{1,3}(-[a-z]{1,2})?"
}

fn names(least: usize) -> impl Strategy<Value = Vec<String>> {
    proptest::collection::btree_set(name(), least..4).prop_map(|names| names.into_iter().collect())
}

fn shape() -> impl Strategy<Value = Shape> {
    let leaf = prop_oneof![
        Just(Shape::Bool),
        Just(Shape::S8),
        Just(Shape::U8),
        Just(Shape::S16),
        Just(Shape::U16),
        Just(Shape::S32),
        Just(Shape::U32),
        Just(Shape::S64),
        Just(Shape::U64),
        Just(Shape::Float32),
        Just(Shape::Float64),
        Just(Shape::Char),
        Just(Shape::String),
        Just(Shape::Bytes),
        names(1).prop_map(Shape::Enum),
        names(1).prop_map(Shape::Flags),
    ];
    leaf.prop_recursive(3, 16, 3, |inner| {
        let boxed = |shape| Box::new(shape);
        prop_oneof![
            inner.clone().prop_map(boxed).prop_map(Shape::List),
            inner.clone().prop_map(boxed).prop_map(Shape::Option),
            proptest::collection::vec(inner.clone(), 1..4).prop_map(Shape::Tuple),
            proptest::collection::btree_map(name(), inner.clone(), 1..4)
                .prop_map(|fields| Shape::Record(fields.into_iter().collect())),
            proptest::collection::btree_map(name(), proptest::option::of(inner.clone()), 1..4)
                .prop_map(|cases| Shape::Variant(cases.into_iter().collect())),
            (proptest::option::of(inner.clone()), proptest::option::of(inner))
                .prop_map(|payloads| Shape::Result(Box::new(payloads))),
        ]
    })
}

/// Values of a shape, as they would be written by someone who read the schema.
fn value_of(shape: &Shape) -> BoxedStrategy<Value> {
    match shape {
        Shape::Bool => any::<bool>().prop_map(Value::from).boxed(),
        Shape::S8 => any::<i8>().prop_map(Value::from).boxed(),
        Shape::U8 => any::<u8>().prop_map(Value::from).boxed(),
        Shape::S16 => any::<i16>().prop_map(Value::from).boxed(),
        Shape::U16 => any::<u16>().prop_map(Value::from).boxed(),
        Shape::S32 => any::<i32>().prop_map(Value::from).boxed(),
        Shape::U32 => any::<u32>().prop_map(Value::from).boxed(),
        Shape::S64 => {
            prop_oneof![any::<i64>().prop_map(Value::from), any::<i64>().prop_map(|n| n.to_string().into())].boxed()
        }
        Shape::U64 => {
            prop_oneof![any::<u64>().prop_map(Value::from), any::<u64>().prop_map(|n| n.to_string().into())].boxed()
        }
        Shape::Float32 => prop_oneof![
            any::<i16>().prop_map(|n| json!(f64::from(n) / 8.0)),
            Just(json!("NaN")),
            Just(json!("Infinity"))
        ]
        .boxed(),
        Shape::Float64 => {
            prop_oneof![any::<i32>().prop_map(|n| json!(f64::from(n) / 1024.0)), Just(json!("-Infinity"))].boxed()
        }
        Shape::Char => any::<char>().prop_map(|c| c.to_string().into()).boxed(),
        Shape::String => any::<String>().prop_map(Value::from).boxed(),
        Shape::Bytes => proptest::collection::vec(any::<u8>(), 0..10)
            .prop_map(|bytes| {
                use base64::Engine as _;
                base64::engine::general_purpose::STANDARD.encode(bytes).into()
            })
            .boxed(),
        Shape::List(item) => proptest::collection::vec(value_of(item), 0..4).prop_map(Value::from).boxed(),
        Shape::Tuple(items) => items.iter().map(value_of).collect::<Vec<_>>().prop_map(Value::from).boxed(),
        Shape::Record(fields) => {
            let fields: Vec<_> = fields
                .iter()
                .map(|(name, shape)| {
                    let name = name.clone();
                    let value = value_of(shape).prop_map(move |value| Some((name.clone(), value)));
                    if shape.takes_null() { prop_oneof![value, Just(None)].boxed() } else { value.boxed() }
                })
                .collect();
            fields.prop_map(|fields| fields.into_iter().flatten().collect::<Map<_, _>>().into()).boxed()
        }
        Shape::Variant(cases) => {
            let cases: Vec<_> = cases
                .iter()
                .map(|(name, payload)| match payload {
                    None => Just(Value::from(name.as_str())).boxed(),
                    Some(payload) => one_key(name.clone(), value_of(payload)),
                })
                .collect();
            proptest::strategy::Union::new(cases).boxed()
        }
        Shape::Enum(names) => proptest::sample::select(names.clone()).prop_map(Value::from).boxed(),
        Shape::Option(inner) if inner.takes_null() => {
            prop_oneof![Just(Value::Null), one_key("some".into(), value_of(inner))].boxed()
        }
        Shape::Option(inner) => prop_oneof![Just(Value::Null), value_of(inner)].boxed(),
        Shape::Result(payloads) => {
            let payload = |payload: &Option<Shape>| payload.as_ref().map_or(Just(Value::Null).boxed(), value_of);
            prop_oneof![one_key("ok".into(), payload(&payloads.0)), one_key("err".into(), payload(&payloads.1))].boxed()
        }
        Shape::Flags(names) => {
            proptest::sample::subsequence(names.clone(), 0..=names.len()).prop_map(Value::from).boxed()
        }
    }
}

fn one_key(name: String, value: BoxedStrategy<Value>) -> BoxedStrategy<Value> {
    value.prop_map(move |value| Map::from_iter([(name.clone(), value)]).into()).boxed()
}

/// Any JSON, with the words that a schema of ours could take.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-300_i64..300).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-300_i16..300).prop_map(|n| json!(f64::from(n) / 2.0)),
        any::<f64>().prop_map(|n| json!(n)),
        "[a-z]{0,3}".prop_map(Value::from),
        prop_oneof![Just("NaN"), Just("Infinity"), Just("AA=="), Just("AB=="), Just("AAA="), Just("-0"), Just("007")]
            .prop_map(Value::from),
        "-?[0-9]{1,21}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-z]{1,3}|some|ok|err", inner, 0..3)
                .prop_map(|object| object.into_iter().collect::<Map<_, _>>().into()),
        ]
    })
}

/// A value of the shape with something exchanged somewhere.
fn near_value(shape: &Shape) -> impl Strategy<Value = Value> + use<> {
    (value_of(shape), any_value(), any::<prop::sample::Index>()).prop_map(|(mut value, other, at)| {
        let mut places = 0;
        count(&value, &mut places);
        let mut place = at.index(places);
        exchange(&mut value, &other, &mut place);
        value
    })
}

fn count(value: &Value, places: &mut usize) {
    *places += 1;
    match value {
        Value::Array(items) => items.iter().for_each(|item| count(item, places)),
        Value::Object(object) => object.values().for_each(|item| count(item, places)),
        _ => {}
    }
}

fn exchange(value: &mut Value, other: &Value, place: &mut usize) {
    if *place == 0 {
        *value = other.clone();
        *place = usize::MAX;
        return;
    }
    *place -= 1;
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| exchange(item, other, place)),
        Value::Object(object) => object.values_mut().for_each(|item| exchange(item, other, place)),
        _ => {}
    }
}

fn read(shape: &Shape, value: &Value) -> Option<Val> {
    let params = [("it".to_owned(), shape.clone())];
    arguments(&params, &json!({ "it": value }), 1 << 20).ok().map(|mut values| values.remove(0))
}

fn agree(shape: &Shape, value: &Value) -> Result<(), TestCaseError> {
    let schema = schema::of(shape);
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let read = read(shape, value);
    prop_assert_eq!(validator.is_valid(value), read.is_some(), "schema {} value {}", schema, value);
    if let Some(read) = read {
        let written = to_json(shape, read.clone(), &mut (1 << 20)).unwrap();
        prop_assert!(validator.is_valid(&written), "schema {} written {}", schema, written);
        // What is written is read as the same value. `NaN` is equal to nothing, so the texts are compared.
        let again = super::json::read(shape, &written);
        prop_assert_eq!(format!("{:?}", again), format!("{:?}", Some(read)), "schema {} written {}", schema, written);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases * 2))]

    #[test]
    fn every_value_that_follows_the_schema_is_read_and_written_back((shape, value) in
        shape().prop_flat_map(|shape| { let value = value_of(&shape); (Just(shape), value) }))
    {
        prop_assert!(read(&shape, &value).is_some(), "{:?} {}", shape, value);
        agree(&shape, &value)?;
    }

    #[test]
    fn the_schema_and_the_reader_say_the_same_of_a_value_with_one_place_changed((shape, value) in
        shape().prop_flat_map(|shape| { let value = near_value(&shape); (Just(shape), value) }))
    {
        agree(&shape, &value)?;
    }

    #[test]
    fn the_schema_and_the_reader_say_the_same_of_any_value(shape in shape(), value in any_value()) {
        agree(&shape, &value)?;
    }

    #[test]
    fn the_size_of_a_result_is_never_underestimated(text in any::<String>()) {
        let mut left = 1 << 20;
        let value = to_json(&Shape::String, Val::String(text), &mut left).unwrap();
        prop_assert!(value.to_string().len() <= (1 << 20) - left);
    }
}

#[test]
fn the_ends_of_the_64_bit_numbers_are_read_and_what_lies_beyond_is_not() {
    for (shape, good, bad) in [
        (Shape::S64, ["9223372036854775807", "-9223372036854775808"], ["9223372036854775808", "-9223372036854775809"]),
        (Shape::U64, ["18446744073709551615", "0"], ["18446744073709551616", "-1"]),
    ] {
        for text in good {
            assert!(read(&shape, &json!(text)).is_some(), "{text}");
            agree(&shape, &json!(text)).unwrap();
        }
        for text in bad {
            assert!(read(&shape, &json!(text)).is_none(), "{text}");
            agree(&shape, &json!(text)).unwrap();
        }
    }
}
