//! Calls of components that are written as text, where a test wants just this one thing.

use std::fmt::Write as _;
use std::time::Duration;

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
    assert_eq!(outcome.logs, Logs::default());
}

/// A component that imports `reveal` and whose start function traps at once.
const TRAPS_AT_START: &str = r#"(component
    (import "clawcoil:skill/reveal@0.1.0" (instance))
    (core module $m (func $start unreachable) (start $start) (func (export "run")))
    (core instance $i (instantiate $m))
    (func (export "run") (canon lift (core func $i "run"))))"#;

#[tokio::test]
async fn a_component_that_imports_what_is_not_granted_is_refused_before_its_start_function_runs() {
    let component = compile(TRAPS_AT_START).await.unwrap();
    let (user, input, limits) = ("ann".parse().unwrap(), json!({}), Limits::default());
    let call = |linked| Call {
        user: &user,
        tool: "run",
        input: &input,
        linked,
        authority: Arc::new(Grants::default()),
        limits: &limits,
    };
    let granted = RUNTIME.call(&component, call(ALL)).await.unwrap();
    assert!(matches!(granted.end, End::Trapped(Trapped { reason: TrapReason::Unreachable, .. })), "it does run then");
    let refused = RUNTIME.call(&component, call(Linked { reveal: false, ..ALL })).await.unwrap_err();
    assert!(matches!(
        refused,
        CallError::Link(LinkError::NotLinked { why: NotLinked::RevealNotGranted, ref import })
            if import == "clawcoil:skill/reveal@0.1.0"
    ));
}

#[tokio::test]
async fn memories_of_all_modules_together_are_bounded() {
    // Four modules with 20 MiB each: none is too large alone.
    let component = compile(
        r#"(component
            (core module $m (memory 320) (func (export "run")))
            (core instance $a (instantiate $m)) (core instance $b (instantiate $m))
            (core instance $c (instantiate $m)) (core instance $d (instantiate $m))
            (func (export "run") (canon lift (core func $a "run"))))"#,
    )
    .await
    .unwrap();
    let limits = Limits { memory: 64 << 20, ..Limits::default() };
    let end = call_with(&component, "run", json!({}), &limits).await.unwrap().end;
    assert_eq!(end, End::Limit(LimitReached::Memory(64 << 20)));
    let limits = Limits { memory: 80 << 20, ..Limits::default() };
    assert_eq!(call_with(&component, "run", json!({}), &limits).await.unwrap().end, End::Value(json!(null)));
}

#[tokio::test]
async fn tables_are_bounded() {
    let component = compile(
        r#"(component
            (core module $m (table $t 0 funcref)
                (func (export "run") (result i32) (table.grow $t (ref.null func) (i32.const 15000))))
            (core instance $i (instantiate $m))
            (func (export "run") (result s32) (canon lift (core func $i "run"))))"#,
    )
    .await
    .unwrap();
    let limits = Limits { table_elements: 10_000, ..Limits::default() };
    assert_eq!(call_with(&component, "run", json!({}), &limits).await.unwrap().end, End::Value(json!(-1)));
    assert_eq!(call(&component, "run", json!({})).await.unwrap().end, End::Value(json!(0)));
}

#[tokio::test]
async fn a_start_function_that_never_ends_meets_the_deadline() {
    let component = compile(
        r#"(component
            (core module $m (func $start (loop (br 0))) (start $start) (func (export "run")))
            (core instance $i (instantiate $m))
            (func (export "run") (canon lift (core func $i "run"))))"#,
    )
    .await
    .unwrap();
    let limits = Limits { time: Duration::from_millis(50), ..Limits::default() };
    let end = call_with(&component, "run", json!({}), &limits).await.unwrap().end;
    assert_eq!(end, End::Limit(LimitReached::Time(limits.time)));
}

#[tokio::test]
async fn a_result_that_is_not_of_its_type_is_the_skill_s_fault_and_nobody_else_s() {
    let component = compile(
        r#"(component
            (core module $m (memory (export "m") 1) (data (i32.const 0) "\08\00\00\00\02\00\00\00\ff\fe")
                (func (export "char") (result i32) (i32.const 0xd800))
                (func (export "text") (result i32) (i32.const 0))
                (func (export "far") (result i32) (i32.const 0x7fffffff)))
            (core instance $i (instantiate $m))
            (func (export "bad-char") (result char) (canon lift (core func $i "char")))
            (func (export "bad-text") (result string) (canon lift (core func $i "text") (memory (core memory $i "m"))))
            (func (export "far-text") (result string) (canon lift (core func $i "far") (memory (core memory $i "m")))))"#,
    )
    .await
    .unwrap();
    for tool in ["bad-char", "bad-text", "far-text"] {
        let end = call(&component, tool, json!({})).await.unwrap().end;
        assert!(matches!(end, End::Trapped(_)), "{tool}: {end:?}");
    }
}

#[tokio::test]
async fn the_same_bytes_are_compiled_once() {
    let wat = "(component (core module $once))";
    let (first, second) = (compile(wat).await.unwrap(), compile(wat).await.unwrap());
    assert!(Arc::ptr_eq(&first, &second));
}

#[tokio::test]
async fn after_a_restart_a_skill_is_taken_from_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        let key = crate::secret::Key::fill_with(|key| key.fill(7));
        let cache = Some(CompileCache::open(folder.path(), key).unwrap());
        let engine = EngineSettings { concurrent_calls: 8, ..EngineSettings::default() };
        Runtime::new(Settings { engine, cache, ..Settings::default() }).unwrap()
    };
    let wat = r#"(component
        (core module $m (func (export "seven") (result i32) (i32.const 7)))
        (core instance $i (instantiate $m))
        (func (export "seven") (result u32) (canon lift (core func $i "seven"))))"#;
    let bytes = wat::parse_str(wat).unwrap();
    start().compile(bytes.clone()).await.unwrap();
    let entry = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap();
    let written = entry.metadata().unwrap().modified().unwrap();

    let runtime = start();
    let component = runtime.compile(bytes).await.unwrap();
    assert_eq!(entry.metadata().unwrap().modified().unwrap(), written, "it was not compiled again");
    let (user, input, limits) = ("ann".parse().unwrap(), json!({}), Limits::default());
    let authority = Arc::new(Grants::default());
    let call = Call { user: &user, tool: "seven", input: &input, linked: ALL, authority, limits: &limits };
    assert_eq!(runtime.call(&component, call).await.unwrap().end, End::Value(json!(7)));
}

#[tokio::test]
async fn exports_that_json_can_t_call_are_left_out_with_the_reason() {
    let component = compile(
        r#"(component
            (core module $m (func (export "f") (param i32)) (func (export "g")))
            (core instance $i (instantiate $m))
            (type $r' (resource (rep i32)))
            (func $take' (param "it" (own $r')) (canon lift (core func $i "f")))
            (func $plain' (canon lift (core func $i "g")))
            (component $shim
                (import "r" (type $r (sub resource)))
                (import "take" (func $take (param "it" (own $r))))
                (import "plain" (func $plain))
                (export $e "r" (type $r))
                (export "take" (func $take) (func (param "it" (own $e))))
                (export "plain" (func $plain)))
            (instance $one (instantiate $shim
                (with "r" (type $r')) (with "take" (func $take')) (with "plain" (func $plain'))))
            (export "acme:mail/tools@0.1.0" (instance $one))
            (export "acme:mail/more@0.1.0" (instance $one))
            (export "wasi:cli/run@0.2.0" (instance $one)))"#,
    )
    .await
    .unwrap();
    let names: Vec<_> = component.tools().iter().map(Tool::name).collect();
    assert_eq!(names, ["tools-plain", "more-plain"]);
    assert_eq!(component.tools()[0].interface(), Some("acme:mail/tools@0.1.0"));
    let resource = "it takes or gives a resource, which lives only inside the sandbox";
    let entry = "it is an entry point of WASI and not a tool";
    let left_out: Vec<_> = component.left_out().iter().map(|out| (out.export.as_str(), out.reason.as_str())).collect();
    assert_eq!(
        left_out,
        [
            ("acme:mail/tools@0.1.0#take", resource),
            ("acme:mail/more@0.1.0#take", resource),
            ("wasi:cli/run@0.2.0#take", entry),
            ("wasi:cli/run@0.2.0#plain", entry),
        ]
    );
}

#[tokio::test]
async fn a_type_that_stands_for_a_tree_without_end_is_left_out() {
    let mut types = String::from(r#"(type $t0' (record (field "a" u8))) (export $t0 "t0" (type $t0'))"#);
    for n in 1..14 {
        let before = n - 1;
        write!(
            types,
            r#"(type $t{n}' (record (field "a" (list $t{before})) (field "b" (list $t{before}))))
               (export $t{n} "t{n}" (type $t{n}'))"#
        )
        .unwrap();
    }
    let wat = format!(
        r#"(component {types}
            (core module $m (memory (export "m") 1)
                (func (export "r") (param i32 i32 i32 i32) (result i32) (i32.const 0))
                (func (export "f") (param i32 i32 i32 i32)))
            (core instance $i (instantiate $m))
            (func (export "f") (param "it" $t13) (canon lift (core func $i "f") (memory (core memory $i "m")) (realloc (core func $i "r")))))"#
    );
    let component = compile(&wat).await.unwrap();
    assert_eq!(component.tools().len(), 0);
    assert_eq!(component.left_out()[0].reason, "its types are too large when written out");
}

#[tokio::test]
async fn one_user_s_calls_don_t_keep_another_from_being_served() {
    let echo = guest("echo").await;
    let gate = GateSettings { calls_per_user: 1, queue_per_user: 0, ..GateSettings::default() };
    let runtime = Runtime::new(Settings {
        engine: EngineSettings { concurrent_calls: 8, ..EngineSettings::default() },
        gate,
        ..Settings::default()
    })
    .unwrap();
    assert!(matches!(runtime.report(), EngineReport { wanted_calls: 8, concurrent_calls: 8, .. }));
    let echo_bytes =
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/guests/target/wasm32-wasip2/release/echo.wasm"));
    let component = runtime.compile(echo_bytes.unwrap()).await.unwrap();
    assert_eq!(component.digest(), echo.digest());
    let (ann, bob, limits) = ("ann".parse().unwrap(), "bob".parse().unwrap(), Limits::default());
    let (waits, says) = (json!({ "service": "s", "text": "" }), json!({ "text": "hi" }));
    let waiting = Arc::new(Grants { sleeps: true, ..Grants::default() });
    let call = |user, tool, input, authority| Call { user, tool, input, linked: ALL, authority, limits: &limits };
    let mut first = Box::pin(runtime.call(&component, call(&ann, "echo-with-token", &waits, waiting)));
    assert!(futures_util::poll!(first.as_mut()).is_pending());
    let busy = runtime.call(&component, call(&ann, "echo", &says, Arc::new(Grants::default()))).await.unwrap_err();
    assert!(matches!(busy, CallError::Busy(Busy { what: BusyWith::User, .. })));
    let served = runtime.call(&component, call(&bob, "echo", &says, Arc::new(Grants::default()))).await.unwrap();
    assert_eq!(served.end, End::Value(json!("hi")));
}
