//! Files that are no skills, and arguments that their tools don't take.

use std::sync::Arc;
use std::time::Duration;

use clawcoil::runtime::{
    AuthError, Authority, Body, Call, CompileSettings, Component, EngineSettings, Limits, Linked, RevealedToken,
    Runtime, SendError, Settings, Timeouts, TokenHandle, TokenRequest, parse_input,
};
use serde_json::{Value, json};

use super::{Case, files};

/// Nothing of a broken component runs, so nobody asks.
struct Nobody;

#[async_trait::async_trait]
impl Authority for Nobody {
    async fn get_token(&self, _: TokenRequest<'_>) -> Result<TokenHandle, AuthError> {
        unreachable!("no guest runs")
    }

    fn invalidate(&self, _: u64) {}

    async fn reveal(&self, _: u64) -> Result<RevealedToken, AuthError> {
        unreachable!("no guest runs")
    }

    async fn send(&self, _: http::Request<Body>, _: Timeouts) -> Result<http::Response<Body>, SendError> {
        unreachable!("no guest runs")
    }
}

fn runtime(compile: CompileSettings) -> Runtime {
    let engine = EngineSettings { concurrent_calls: 8, ..EngineSettings::default() };
    Runtime::new(Settings { engine, compile, ..Settings::default() }).expect("an engine")
}

async fn call(
    runtime: &Runtime,
    component: &Component,
    tool: &str,
    input: &Value,
    linked: Linked,
) -> Result<(), String> {
    let user = "ann".parse().expect("a user");
    let limits = Limits { input: 1_000, ..Limits::default() };
    let call = Call { user: &user, tool, input, linked, authority: Arc::new(Nobody), limits: &limits };
    runtime.call(component, call).await.map(drop).map_err(|error| error.to_string())
}

/// Those that lie there as text (`.wat`) or as bytes (`.wasm`), and those that would take much room.
///
/// The first lines of a text may say what is granted (`;; granted: tokens, http`) and which tool is called
/// (`;; call: send`).
pub(super) async fn components() -> Vec<Case> {
    let engine = runtime(CompileSettings::default());
    let mut cases = Vec::new();
    for (name, path) in files("component", "wasm") {
        let bytes = std::fs::read(path).expect("the file can be read");
        cases.push(Case::new(name, engine.compile(bytes).await));
    }
    for (name, path) in files("component", "wat") {
        let text = std::fs::read_to_string(path).expect("the file can be read");
        let said = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim();
        let granted = |what: &str| said(";; granted:").split(", ").any(|word| word == what);
        let linked = Linked { tokens: granted("tokens"), reveal: granted("reveal"), http: granted("http") };
        cases.push(Case::new(name, judged(&engine, &text, said(";; call:"), linked).await));
    }
    let small = CompileSettings { size: 1 << 20, time: Duration::from_nanos(1) };
    let hurried = runtime(small);
    cases.push(Case::new("too-large", hurried.compile(vec![0; (1 << 20) + 1]).await));
    let functions = "(func (param i32) (result i32) (i32.add (local.get 0) (i32.const 1)))".repeat(5_000);
    let slow = wat::parse_str(format!("(component (core module {functions}))")).expect("a component");
    cases.push(Case::new("too-slow", hurried.compile(slow).await));
    cases
}

/// As a skill is added and called: compiled, its exports read, its imports judged, a tool looked up.
async fn judged(engine: &Runtime, text: &str, tool: &str, linked: Linked) -> Result<(), String> {
    let bytes = wat::parse_str(text).map_err(|error| error.to_string())?;
    let component = engine.compile(bytes).await.map_err(|error| error.to_string())?;
    let left_out = component.left_out();
    if !left_out.is_empty() {
        let lines: Vec<_> =
            left_out.iter().map(|left| format!("not a tool: {}: {}", left.export, left.reason)).collect();
        return Err(lines.join("\n"));
    }
    component.check_imports(linked).map_err(|error| error.to_string())?;
    call(engine, &component, tool, &json!({}), linked).await
}

/// What a caller writes, for the tool `send` of the component that stands there too.
pub(super) async fn arguments() -> Vec<Case> {
    let engine = runtime(CompileSettings::default());
    let wat = std::fs::read_to_string(super::golden().join("arguments/mail.wat")).expect("the component is there");
    let mail = engine.compile(wat::parse_str(wat).expect("it is text")).await.expect("it compiles");
    let linked = Linked { tokens: false, reveal: false, http: false };
    let mut cases = Vec::new();
    for (name, path) in files("arguments", "json") {
        let text = std::fs::read_to_string(path).expect("the file can be read");
        let answer = match parse_input(&text) {
            Ok(input) => call(&engine, &mail, "send", &input, linked).await,
            Err(error) => Err(error.to_string()),
        };
        cases.push(Case::new(name, answer));
    }
    cases
}
