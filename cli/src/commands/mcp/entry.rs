//! Putting a server into an agent's file: comments, order and everything else stay as they are.

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstInputValue, CstRootNode};
use serde_json::Value;

/// The file as it would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Edited {
    pub(super) text: String,
    /// The server of this name that stands there now.
    pub(super) before: Option<String>,
}

/// Why a file can't be edited. It is left alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotEdited {
    /// It is not JSON in any of its spellings.
    #[error("it is not JSON: {0}")]
    NotJson(String),
    /// Something else stands where servers should.
    #[error("its `{0}` is no object")]
    NoObject(String),
}

/// Sets one server under these keys, and an item of the list `inputs` if one is wanted and not there.
pub(super) fn set(
    text: &str,
    place: &[&str],
    name: &str,
    entry: &Value,
    input: Option<&Value>,
) -> Result<Edited, NotEdited> {
    let root =
        CstRootNode::parse(text, &ParseOptions::default()).map_err(|error| NotEdited::NotJson(error.to_string()))?;
    let no_object = |key: &str| NotEdited::NoObject(key.to_owned());
    let top = root.object_value_or_create().ok_or_else(|| no_object("top"))?;
    let mut servers = top.clone();
    for key in place {
        servers = servers.object_value_or_create(key).ok_or_else(|| no_object(key))?;
    }
    let before = servers.get(name);
    let shown = before.as_ref().map(ToString::to_string);
    match before {
        Some(property) => property.set_value(value(entry)),
        None => drop(servers.append(name, value(entry))),
    }
    if let Some(input) = input {
        let inputs = top.array_value_or_create("inputs").ok_or_else(|| no_object("inputs"))?;
        let id = |value: &Value| value.get("id").cloned();
        let known = inputs.elements().into_iter().filter_map(|node| node.to_serde_value());
        if !known.into_iter().any(|known| id(&known) == id(input)) {
            inputs.append(value(input));
        }
    }
    let mut text = root.to_string();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(Edited { text, before: shown })
}

fn value(json: &Value) -> CstInputValue {
    match json {
        Value::Null => CstInputValue::Null,
        Value::Bool(value) => CstInputValue::Bool(*value),
        Value::Number(number) => CstInputValue::Number(number.to_string()),
        Value::String(text) => CstInputValue::String(text.clone()),
        Value::Array(items) => CstInputValue::Array(items.iter().map(value).collect()),
        Value::Object(members) => {
            CstInputValue::Object(members.iter().map(|(name, member)| (name.clone(), value(member))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Value {
        CstRootNode::parse(text, &ParseOptions::default()).unwrap().to_serde_value().unwrap()
    }

    #[test]
    fn comments_and_other_servers_stay_as_they_are() {
        let text = "// mine\n{\n  mcp: {\n    servers: {\n      // a friend's\n      other: { command: 'x', },\n    },\n  },\n  theme: \"dark\"\n}\n";
        let entry = json!({ "command": "clawcoil", "args": ["mcp"] });
        let edited = set(text, &["mcp", "servers"], "clawcoil", &entry, None).unwrap();
        assert_eq!(edited.before, None);
        assert!(edited.text.contains("// mine") && edited.text.contains("// a friend's"), "{}", edited.text);
        let value = read(&edited.text);
        assert_eq!(value["mcp"]["servers"]["clawcoil"], entry);
        assert_eq!(value["mcp"]["servers"]["other"]["command"], "x");
        assert_eq!(value["theme"], "dark");

        let again = set(&edited.text, &["mcp", "servers"], "clawcoil", &entry, None).unwrap();
        assert!(again.before.is_some());
        assert_eq!(read(&again.text), value, "the same again changes nothing");
    }

    #[test]
    fn an_empty_or_missing_file_becomes_one_with_the_server_alone() {
        for text in ["", "{}", "\n"] {
            let edited = set(text, &["mcpServers"], "clawcoil", &json!({ "url": "http://a" }), None).unwrap();
            assert_eq!(read(&edited.text), json!({ "mcpServers": { "clawcoil": { "url": "http://a" } } }));
        }
    }

    #[test]
    fn an_input_is_added_once() {
        let input = json!({ "id": "clawcoil-token", "type": "promptString" });
        let once = set("{}", &["servers"], "clawcoil", &json!({}), Some(&input)).unwrap();
        let twice = set(&once.text, &["servers"], "clawcoil", &json!({}), Some(&input)).unwrap();
        assert_eq!(read(&twice.text)["inputs"], json!([input]));
    }

    #[test]
    fn a_file_that_is_not_understood_is_left_alone() {
        for (text, error) in [
            ("{ \"mcpServers\": ", "it is not JSON"),
            ("{ \"mcpServers\": 7 }", "its `mcpServers` is no object"),
            ("[]", "its `top` is no object"),
        ] {
            let refused = set(text, &["mcpServers"], "clawcoil", &json!({}), None).unwrap_err().to_string();
            assert!(refused.starts_with(error), "{refused}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_or_lose_what_was_there(text in "[\\[\\]{}:,\"'a-c0-9/* \\n]{0,40}") {
            if let Ok(edited) = set(&text, &["mcpServers"], "clawcoil", &json!({ "command": "x" }), None) {
                prop_assert_eq!(&read(&edited.text)["mcpServers"]["clawcoil"]["command"], "x");
            }
        }
    }
}
