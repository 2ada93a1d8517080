//! `clawcoil run`

use clap::Args;
use clawcoil::host::Outcome;
use clawcoil::id::{SkillName, UserId};
use clawcoil::runtime::{End, Logs, Tool, parse_input};
use serde_json::{Map, Value, json};

use super::agent;
use super::policy::denial_json;
use crate::exit::{Code, Failure, action_json};
use crate::output::{Output, printable, read_stdin};
use crate::receipt::ReceiptBody;
use crate::settings::Settings;

/// Call a tool of a skill for a user
///
/// Arguments are written key=value. Where the tool takes text the value is taken as it is; elsewhere it is JSON. An item of a
/// list stands alone, and the key comes again for the next.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clawcoil run gmail-send send --user alice to=bob@example.com subject=Hi body='How are you?'
  clawcoil run gmail-send send --user alice --input '{\"to\":[\"bob@example.com\"], …}'
  clawcoil run gmail-send send --user alice --input - < mail.json
  clawcoil run weather --user alice place=Paris                   a skill with one tool")]
pub(crate) struct Run {
    /// The skill
    skill: SkillName,

    /// The tool; may be left out where the skill has only one
    #[arg(value_name = "TOOL")]
    tool: Option<String>,

    /// Arguments
    #[arg(value_name = "KEY=VALUE")]
    arguments: Vec<String>,

    /// For whom
    #[arg(long)]
    user: UserId,

    /// All arguments as one JSON object; - reads it from stdin
    #[arg(long, value_name = "JSON", conflicts_with = "arguments")]
    input: Option<String>,

    /// Say on stderr, as JSON, what the call did with whose authority, and where the audit log tells of it; --json has it always
    #[arg(long)]
    receipt: bool,
}

impl Run {
    pub(crate) async fn run(mut self, settings: &Settings, output: &Output) -> Result<(), Failure> {
        // `run weather city=Paris`: the first word is an argument, not a tool.
        if let Some(first) = self.tool.take_if(|tool| tool.contains('=')) {
            self.arguments.insert(0, first);
        }
        let input = match self.input.as_deref() {
            Some("-") => Some(read_stdin().await?),
            Some(text) => Some(text.to_owned()),
            None => None,
        };
        let host = agent::open(settings).await?;
        let progress = output.progress("compiling");
        let ready = host.ready(&self.skill).await?;
        drop(progress);
        let tool = match self.tool.as_deref() {
            Some(name) => ready.component.tool(name),
            None => Some(ready.component.tools()).and_then(|tools| if let [only] = tools { Some(only) } else { None }),
        };
        let input = match input {
            Some(text) => object(&text)?,
            None => Value::Object(arguments(&self.arguments, tool)?),
        };
        // Tokens that expire during the call are refreshed on the way.
        let outcome = host.invoke(&agent::caller(&self.user)?, &self.skill, self.tool.as_deref(), &input).await?;
        if self.receipt {
            output.note(format_args!("{:#}", json!(ReceiptBody::from(outcome.receipt.clone()))));
        }
        finish(&self.skill, outcome, output)
    }
}

pub(super) fn object(text: &str) -> Result<Value, Failure> {
    parse_input(text).map_err(|error| Failure::usage(format!("--input: {error}")))
}

/// `key=value` words as the tool's schema wants them.
pub(super) fn arguments(words: &[String], tool: Option<&Tool>) -> Result<Map<String, Value>, Failure> {
    collect(words, tool.and_then(|tool| tool.input_schema().get("properties")))
}

fn collect(words: &[String], properties: Option<&Value>) -> Result<Map<String, Value>, Failure> {
    let mut arguments = Map::new();
    for word in words {
        let (key, text) = word.split_once('=').ok_or_else(|| {
            Failure::usage(format!("{word:?} is no argument: write key=value, or name one tool before the arguments"))
        })?;
        let schema = properties.and_then(|properties| properties.get(key));
        let value = value(text, schema);
        if let Some(list) = schema.and_then(list_in)
            && !value.is_array()
            && !(value.is_null() && schema != Some(list))
        {
            // One item of a list; more come as the same key again.
            if let Value::Array(items) = arguments.entry(key).or_insert_with(|| Value::Array(Vec::new())) {
                items.push(self::value(text, list.get("items")));
                continue;
            }
        }
        if arguments.insert(key.to_owned(), value).is_some() {
            return Err(Failure::usage(format!(
                "the argument {key:?} is given twice; a list is written as JSON: {key}='[\"…\",\"…\"]'"
            )));
        }
    }
    Ok(arguments)
}

/// Text where the schema has text; JSON elsewhere; and what is no JSON is text, for the schema to judge.
fn value(text: &str, schema: Option<&Value>) -> Value {
    if schema.is_some_and(takes_text) {
        return Value::String(text.to_owned());
    }
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// The schema of the list that is taken: this one, or what stands there beside null.
fn list_in(schema: &Value) -> Option<&Value> {
    match schema.get("type") {
        Some(kind) => (kind == "array").then_some(schema),
        None => schema.get("anyOf")?.as_array()?.iter().find_map(list_in),
    }
}

fn takes_text(schema: &Value) -> bool {
    let is_text = |kind: &Value| kind == "string";
    match schema.get("type") {
        // Text or null: a word can only mean the text.
        Some(Value::Array(kinds)) => kinds.iter().any(is_text),
        Some(kind) => is_text(kind),
        None => ["anyOf", "oneOf"].iter().filter_map(|key| schema.get(key)?.as_array()).flatten().any(takes_text),
    }
}

fn finish(skill: &SkillName, outcome: Outcome, output: &Output) -> Result<(), Failure> {
    if !output.is_json() {
        show_logs(skill, &outcome.logs, output);
        for denial in &outcome.denials {
            output.note(format_args!("refused during the call: {denial}"));
        }
        for action in &outcome.actions {
            output.note(format_args!("needed during the call: {action}; {}", action.command));
        }
    }
    let details = json!({
        "invocation": outcome.invocation.to_string(),
        "denials": outcome.denials.iter().map(denial_json).collect::<Vec<_>>(),
        "actions": outcome.actions.iter().map(action_json).collect::<Vec<_>>(),
        "memory_bytes": outcome.memory,
        "receipt": ReceiptBody::from(outcome.receipt),
    });
    match outcome.end {
        End::Value(value) => {
            let mut object = details;
            if let Some(object) = object.as_object_mut() {
                object.insert("result".to_owned(), value.clone());
            }
            output.answer(object, || format!("{value:#}"))
        }
        End::ToolError(error) => {
            let code = match (outcome.denials.is_empty(), outcome.actions.is_empty()) {
                (false, _) => Code::Denied,
                (true, false) => Code::ConnectionNeeded,
                (true, true) => Code::Error,
            };
            let message = format!("{skill} says that it failed: {}", printable(&error.to_string()));
            let mut details = details;
            if let Some(details) = details.as_object_mut() {
                details.insert("tool_error".to_owned(), error);
            }
            Err(Failure::new(code, message).with_details(details))
        }
        End::Trapped(trapped) => {
            let calls = trapped.backtrace.iter().take(5).map(|function| {
                format!(
                    "
  in {}",
                    printable(function)
                )
            });
            let message = format!("{skill} did not end well: {trapped}{}", calls.collect::<Vec<_>>().concat());
            Err(Failure::new(Code::SkillFailed, message).with_details(details))
        }
        End::Limit(limit) => {
            Err(Failure::new(Code::SkillFailed, format!("{skill} was ended: {limit}")).with_details(details))
        }
    }
}

pub(super) fn show_logs(skill: &SkillName, logs: &Logs, output: &Output) {
    for line in logs.text.lines() {
        output.note(format_args!("[{skill}] {}", printable(line)));
    }
    if logs.dropped > 0 {
        output.note(format_args!("[{skill}] … and {} bytes more that were not kept", logs.dropped));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_text_where_the_tool_takes_text_and_json_elsewhere() {
        let text = json!({ "type": "string" });
        let optional = json!({ "anyOf": [{ "type": "string" }, { "type": "null" }] });
        let list = json!({ "type": "array", "items": { "type": "string" } });
        assert_eq!(value("5", Some(&text)), json!("5"));
        assert_eq!(value("null", Some(&optional)), json!("null"));
        assert_eq!(value("[\"a\"]", Some(&list)), json!(["a"]));
        assert_eq!(value("5", None), json!(5));
        assert_eq!(value("a b", Some(&list)), json!("a b"), "for the schema to refuse");
    }

    #[test]
    fn the_items_of_a_list_may_stand_alone() {
        let list = json!({ "type": "array", "items": { "type": "string" } });
        let optional = json!({ "anyOf": [list, { "type": "null" }] });
        let numbers = json!({ "type": "array", "items": { "type": "integer" } });
        let given = |words: &[&str], schema: &Value| {
            let properties = json!({ "to": schema });
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            collect(&words, Some(&properties)).map(|arguments| arguments.get("to").cloned().unwrap_or_default())
        };
        assert_eq!(given(&["to=a"], &list).unwrap(), json!(["a"]));
        assert_eq!(given(&["to=a", "to=5"], &list).unwrap(), json!(["a", "5"]));
        assert_eq!(given(&["to=[\"a\"]", "to=b"], &list).unwrap(), json!(["a", "b"]));
        assert_eq!(given(&["to=a"], &optional).unwrap(), json!(["a"]));
        assert_eq!(given(&["to=null"], &optional).unwrap(), Value::Null);
        assert_eq!(given(&["to=1", "to=2"], &numbers).unwrap(), json!([1, 2]));
        assert!(given(&["to=a", "to=[\"b\"]"], &list).is_err(), "one of the two would be lost");
    }

    #[test]
    fn an_argument_is_given_once_and_has_a_key() {
        assert!(arguments(&["a=1".to_owned(), "a=2".to_owned()], None).is_err());
        assert!(arguments(&["a".to_owned()], None).is_err());
        assert_eq!(arguments(&["a=b=c".to_owned()], None).unwrap()["a"], json!("b=c"));
    }
}
