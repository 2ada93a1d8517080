//! A component's tools: the functions that it exports, read from its own type.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use wasmtime::component::types::{ComponentFunc, ComponentItem};
use wasmtime::component::{Component, ComponentExportIndex};

use super::schema;
use super::shape::{NotJson, Shape};

/// The most functions that a component may export.
const MOST_FUNCTIONS: usize = 256;
/// The most parts that the types of one function may have when they are written out.
const MOST_PARTS: usize = 5_000;
/// The longest name of a tool.
const LONGEST_NAME: usize = 64;

/// A function of a skill that can be called.
#[derive(Debug)]
pub struct Tool {
    name: String,
    interface: Option<String>,
    params: Vec<(String, Shape)>,
    result: Returns,
    index: ComponentExportIndex,
    input_schema: Value,
    output_schema: Value,
}

/// What a function gives back.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Returns {
    Nothing,
    Value(Shape),
    /// A `result` at the top: its error is the tool's error.
    Result(Option<Shape>, Option<Shape>),
}

impl Tool {
    /// The name by which it is called; unique within its skill.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface that the function stands in, with its version; absent for a function at the component's root.
    pub fn interface(&self) -> Option<&str> {
        self.interface.as_deref()
    }

    /// JSON Schema (2020-12) of the arguments: an object with one member for each parameter.
    pub fn input_schema(&self) -> &Value {
        &self.input_schema
    }

    /// The names of the arguments that can't be left out.
    pub fn required(&self) -> Vec<&str> {
        let names = self.input_schema.get("required").and_then(Value::as_array);
        names.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// JSON Schema (2020-12) of the result, without a tool error's.
    pub fn output_schema(&self) -> &Value {
        &self.output_schema
    }

    pub(super) fn params(&self) -> &[(String, Shape)] {
        &self.params
    }

    pub(super) fn returns(&self) -> &Returns {
        &self.result
    }

    pub(super) fn index(&self) -> &ComponentExportIndex {
        &self.index
    }
}

/// An export that is no tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// The export, with the interface that it stands in.
    pub export: String,
    /// Why, as a phrase.
    pub reason: String,
}

/// Too many exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it exports more than {MOST_FUNCTIONS} functions")]
pub struct TooManyTools;

/// Reads the tools from the component's type.
pub(super) fn read(component: &Component) -> Result<(Vec<Tool>, Vec<LeftOut>), TooManyTools> {
    let engine = component.engine();
    let mut found = Vec::new();
    let mut left_out = Vec::new();
    let component_type = component.component_type();
    for (export, item) in component_type.exports(engine) {
        match item.ty {
            ComponentItem::ComponentFunc(function) => {
                found.push((None, export.to_owned(), function, component.get_export_index(None, export)));
            }
            ComponentItem::ComponentInstance(instance) => {
                let index = component.get_export_index(None, export);
                for (name, item) in instance.exports(engine) {
                    if let ComponentItem::ComponentFunc(function) = item.ty {
                        let function_index = component.get_export_index(index.as_ref(), name);
                        found.push((Some(export.to_owned()), name.to_owned(), function, function_index));
                    }
                    if found.len() > MOST_FUNCTIONS {
                        return Err(TooManyTools);
                    }
                }
            }
            _ => {}
        }
        if found.len() > MOST_FUNCTIONS {
            return Err(TooManyTools);
        }
    }

    let mut uses = BTreeMap::<String, usize>::new();
    for (_, name, ..) in &found {
        *uses.entry(name.clone()).or_default() += 1;
    }
    let mut tools: Vec<Tool> = Vec::new();
    for (interface, function_name, function, index) in found {
        let export = match &interface {
            Some(interface) => format!("{interface}#{function_name}"),
            None => function_name.clone(),
        };
        let name = match &interface {
            Some(interface) if uses.get(&function_name).is_some_and(|uses| *uses > 1) => {
                format!("{}-{function_name}", short(interface))
            }
            _ => function_name,
        };
        let reason = match index {
            _ if interface.as_deref().is_some_and(|interface| interface.starts_with("wasi:")) => {
                "it is an entry point of WASI and not a tool".to_owned()
            }
            _ if !callable(&name) => {
                format!("its name can't be a tool's: letters, digits and hyphens, at most {LONGEST_NAME}")
            }
            _ if tools.iter().any(|tool| tool.name == name) => "another tool has the same name".to_owned(),
            None => "the component does not say where it is".to_owned(),
            Some(index) => match tool(name, interface, &function, index) {
                Ok(tool) => {
                    tools.push(tool);
                    continue;
                }
                Err(reason) => reason.to_string(),
            },
        };
        left_out.push(LeftOut { export, reason });
    }
    Ok((tools, left_out))
}

fn tool(
    name: String,
    interface: Option<String>,
    function: &ComponentFunc,
    index: ComponentExportIndex,
) -> Result<Tool, NotJson> {
    if function.async_() {
        return Err(NotJson::Async);
    }
    let mut budget = MOST_PARTS;
    let params = function
        .params()
        .map(|(name, ty)| Ok((name.to_owned(), Shape::of(&ty, &mut budget)?)))
        .collect::<Result<Vec<_>, _>>()?;
    let mut results = function.results();
    let result = match results.next().map(|ty| Shape::of(&ty, &mut budget)).transpose()? {
        None => Returns::Nothing,
        Some(Shape::Result(payloads)) => Returns::Result(payloads.0, payloads.1),
        Some(shape) => Returns::Value(shape),
    };
    if results.next().is_some() {
        return Err(NotJson::Results);
    }
    let input_schema = dialect(schema::of_members(&params));
    let output_schema = dialect(schema::payload(match &result {
        Returns::Nothing => None,
        Returns::Value(shape) => Some(shape),
        Returns::Result(ok, _) => ok.as_ref(),
    }));
    Ok(Tool { name, interface, params, result, index, input_schema, output_schema })
}

fn dialect(schema: Value) -> Value {
    match schema {
        Value::Object(members) => {
            let mut schema = json!({ "$schema": schema::DIALECT });
            if let Some(object) = schema.as_object_mut() {
                object.extend(members);
            }
            schema
        }
        other => other,
    }
}

/// `tools` of `acme:mail/tools@0.1.0`.
fn short(interface: &str) -> &str {
    let name = interface.split_once('@').map_or(interface, |(name, _)| name);
    name.rsplit_once('/').map_or(name, |(_, name)| name)
}

/// Names that every client takes, also after the skill's own name and an underscore.
fn callable(name: &str) -> bool {
    name.len() <= LONGEST_NAME
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}
