use serde_json::json;

use super::super::*;
use super::world::*;

#[tokio::test]
async fn a_tool_is_called_with_json_and_gives_json() {
    let add = compile(
        r#"(component
            (core module $m (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1))))
            (core instance $i (instantiate $m))
            (func (export "add") (param "a" u32) (param "b" u32) (result u32) (canon lift (core func $i "add"))))"#,
    )
    .await
    .unwrap();
    let outcome = call(&add, "add", json!({ "a": 1, "b": 2 })).await.unwrap();
    assert_eq!(outcome.end, End::Value(json!(3)));
}
