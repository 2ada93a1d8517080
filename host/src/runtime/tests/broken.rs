//! Files that are no skills, and arguments that don't fit: each with its exact words.

use std::fmt::Write as _;

use proptest::prelude::*;
use serde_json::json;

use super::super::*;
use super::world::*;

async fn words(bytes: &[u8]) -> String {
    RUNTIME.compile(bytes).await.unwrap_err().to_string()
}

#[tokio::test]
async fn a_file_that_is_no_skill_is_refused_in_words_that_help() {
    let good = wat::parse_str("(component (core module (func (export \"f\") (result i32) (i32.const 1))))").unwrap();
    let cut = &good[..good.len() - 5];
    for (bytes, message) in [
        (&b""[..], "the file is empty: build the component again".to_owned()),
        (
            b"\x7fELF\x02\x01",
            "this is not WebAssembly: a component begins with the bytes 00 61 73 6d, this begins with 7f 45 4c 46"
                .to_owned(),
        ),
        (
            b"\0asm\x01\0\0\0",
            "this is a core module, not a component: build it with `--target wasm32-wasip2`".to_owned(),
        ),
        (
            b"\0asm\x63\0\x01\0",
            "this is a component in version 99 of the format, which this host does not know: build it with newer or older \
             tools"
                .to_owned(),
        ),
        (
            b"\0asm\x0d",
            "the component is not valid: it ends after its first bytes; build it again with the current tools, and look \
             for a broken download"
                .to_owned(),
        ),
        (
            b"  (component)",
            "this is WebAssembly as text: turn it into a component with `wasm-tools parse`".to_owned(),
        ),
        (
            cut,
            "the component is not valid: wasm component contains an invalid module section: section range \
             10..44 is out of bounds (bound = 39); build it again with the current tools, \
             and look for a broken download"
                .to_owned(),
        ),
    ] {
        assert_eq!(words(bytes).await, message);
    }
}

#[tokio::test]
async fn a_component_that_is_too_large_or_takes_too_long_is_refused_with_the_bound() {
    let engine = EngineSettings { concurrent_calls: 8, ..EngineSettings::default() };
    let compile = CompileSettings { size: 1 << 20, time: std::time::Duration::from_nanos(1) };
    let runtime = Runtime::new(Settings { engine, compile, ..Settings::default() }).unwrap();
    assert_eq!(
        runtime.compile(vec![0; (1 << 20) + 1]).await.unwrap_err().to_string(),
        "the component has 1048577 bytes, more than the 1048576 that are allowed: build it with `--release`, or raise the \
         limit"
    );
    let slow = format!(
        "(component (core module {}))",
        "(func (param i32) (result i32) (i32.add (local.get 0) (i32.const 1)))".repeat(5_000)
    );
    assert_eq!(
        runtime.compile(wat::parse_str(slow).unwrap()).await.unwrap_err().to_string(),
        "compiling took longer than 1ns, which is all the time that is allowed: split the component, or raise the limit"
    );
}

#[tokio::test]
async fn a_component_with_a_hundred_thousand_exports_is_refused() {
    let mut wat = String::from(
        "(component (core module $m (func (export \"f\"))) (core instance $i (instantiate $m))
         (func $f (canon lift (core func $i \"f\")))",
    );
    for n in 0..100_000 {
        write!(wat, "(export \"f{n}\" (func $f))").unwrap();
    }
    wat.push(')');
    let message = compile(&wat).await.unwrap_err().to_string();
    assert!(
        message == "the component is no skill that can be listed: it exports more than 256 functions"
            || message.starts_with("the component is not valid: "),
        "{message}"
    );
}

#[tokio::test]
async fn an_import_that_no_host_has_is_named() {
    let component = compile("(component (import \"acme:db/query@1.0.0\" (instance)))").await.unwrap();
    assert_eq!(
        component.check_imports(ALL).unwrap_err().to_string(),
        "the skill imports `acme:db/query@1.0.0`, which is not linked: this host has no such interface"
    );
    let component = compile("(component (import \"wasi:sockets/tcp@0.2.0\" (instance)))").await.unwrap();
    assert_eq!(
        component.check_imports(ALL).unwrap_err().to_string(),
        "the skill imports `wasi:sockets/tcp@0.2.0`, which is not linked: skills have no files and no sockets; requests go \
         through wasi:http"
    );
}

#[tokio::test]
async fn an_interface_in_another_form_is_refused_before_anything_runs() {
    let component = compile(
        "(component (import \"clawcoil:skill/tokens@0.1.0\" (instance (export \"get-token\" (func (param \"x\" u8)))))
            (core module $m (func (export \"f\"))) (core instance $i (instantiate $m))
            (func (export \"f\") (canon lift (core func $i \"f\"))))",
    )
    .await
    .unwrap();
    let error = call(&component, "f", json!({})).await.unwrap_err();
    assert!(
        error.to_string().starts_with("the skill imports an interface in a form that this host does not have: "),
        "{error}"
    );
}

const MAIL: &str = r#"(component
    (type $mail' (record (field "to" (list string)) (field "subject" string) (field "copy" (option string))))
    (type $level' (enum "low" "high"))
    (type $when' (variant (case "now") (case "at" u64)))
    (type $marks' (flags "seen" "starred"))
    (import "mail" (type $mail (eq $mail'))) (import "level" (type $level (eq $level')))
    (import "when" (type $when (eq $when'))) (import "marks" (type $marks (eq $marks')))
    (core module $m (memory (export "m") 1)
        (func (export "r") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
        (func (export "f") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i32 i32)))
    (core instance $i (instantiate $m))
    (func (export "send") (param "mail" $mail) (param "level" $level) (param "when" $when) (param "marks" $marks)
        (param "tries" u8)
        (canon lift (core func $i "f") (memory (core memory $i "m")) (realloc (core func $i "r")))))"#;

#[tokio::test]
async fn all_that_is_wrong_with_arguments_is_said_at_once_each_with_its_place() {
    let mail = compile(MAIL).await.unwrap();
    let error = call(
        &mail,
        "send",
        json!({
            "mail": { "to": ["a@b", 7, null], "subjct": "hi", "a b": 1 },
            "level": "medium",
            "when": { "at": -1 },
            "marks": ["seen", "seen", "red"],
            "tries": 300,
            "trise": 1,
        }),
    )
    .await
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the arguments of `send` don't fit:\n\
        \x20 $.mail.to[1]: expected a text, found 7\n\
        \x20 $.mail.to[2]: expected a text, found null\n\
        \x20 $.mail.subject: missing; expected a text\n\
        \x20 $.mail[\"a b\"]: there is no such field\n\
        \x20 $.mail.subjct: there is no such field; did you mean `subject`?\n\
        \x20 $.level: expected \"low\" or \"high\", found the text \"medium\"\n\
        \x20 $.when.at: expected a whole number from 0 on of 64 bits, as a number or as text, found -1\n\
        \x20 $.marks[1]: \"seen\" stands there twice\n\
        \x20 $.marks[2]: expected \"seen\" or \"starred\", found the text \"red\"\n\
        \x20 $.tries: expected a whole number between 0 and 255, found 300\n\
        \x20 $.trise: there is no such argument; did you mean `tries`?"
    );
    for (input, message) in [
        (json!([]), "the arguments of `send` don't fit:\n  $: expected an object with the arguments, found an array"),
        (
            json!({ "mail": { "to": [], "subject": "" }, "level": "low", "when": "at", "marks": [], "tries": 1 }),
            "the arguments of `send` don't fit:\n  $.when: expected \"now\" or {\"at\": …}, found the text \"at\"",
        ),
    ] {
        assert_eq!(call(&mail, "send", input).await.unwrap_err().to_string(), message);
    }
    let flood = json!({ "mail": { "to": vec![0; 10_000], "subject": "" }, "level": "low", "when": "now", "marks": [], "tries": 1 });
    let error = call(&mail, "send", flood).await.unwrap_err().to_string();
    assert!(error.ends_with("\n  and 9950 more") && error.len() < 5_000, "{error}");
}

#[tokio::test]
async fn arguments_beyond_the_bound_are_not_given_to_the_guest() {
    let mail = compile(MAIL).await.unwrap();
    let limits = Limits { input: 1_000, ..Limits::default() };
    let input = json!({ "mail": { "to": vec!["x".repeat(100); 10], "subject": "" }, "level": "low", "when": "now", "marks": [], "tries": 1 });
    let error = call_with(&mail, "send", input, &limits).await.unwrap_err().to_string();
    assert_eq!(error, "the arguments of `send` don't fit:\n  $: larger than 1000 bytes altogether");
}

#[tokio::test]
async fn a_tool_that_is_not_there_is_answered_with_what_is() {
    let mail = compile(MAIL).await.unwrap();
    assert_eq!(
        call(&mail, "sent", json!({})).await.unwrap_err().to_string(),
        "the skill has no tool \"sent\"; did you mean `send`?"
    );
    assert_eq!(
        call(&mail, "\u{1b}[2J", json!({})).await.unwrap_err().to_string(),
        "the skill has no tool \"\\u{1b}[2J\"; it has send"
    );
    let empty = compile("(component)").await.unwrap();
    assert_eq!(
        call(&empty, "x", json!({})).await.unwrap_err().to_string(),
        "the skill has no tool \"x\": it exports no function that can be called"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn bytes_that_are_no_component_never_panic(tail in proptest::collection::vec(any::<u8>(), 0..200), header: bool) {
        let mut bytes = if header { b"\0asm\x0d\0\x01\0".to_vec() } else { Vec::new() };
        bytes.extend(tail);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        if let Err(error) = runtime.block_on(RUNTIME.compile(bytes)) {
            let text = error.to_string();
            prop_assert!(text.len() < 700 && !text.contains(|c: char| c.is_control()), "{}", text);
        }
    }

    #[test]
    fn a_component_with_a_flipped_byte_never_panics(at: prop::sample::Index, to: u8, cut: prop::sample::Index) {
        let mut bytes = wat::parse_str(MAIL).unwrap();
        let place = at.index(bytes.len());
        bytes[place] = to;
        bytes.truncate(bytes.len().saturating_sub(cut.index(8)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _any = runtime.block_on(RUNTIME.compile(bytes));
    }
}
