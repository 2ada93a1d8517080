//! One attack after the other, each with the bound that it must run into and the host alive afterwards.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::*;
use super::world::*;

/// What must come of an attack.
enum Must {
    Reach(LimitReached),
    Trap(TrapReason),
    Give(Value),
    Fail(Value),
}

fn small() -> Limits {
    Limits {
        memory: 16 << 20,
        time: Duration::from_millis(300),
        handles: 100,
        host_calls: 200,
        result: 64 << 10,
        transfer: 4 << 20,
        ..Limits::default()
    }
}

/// Every function of the guest `attacks`, and what must come of it.
fn attacks() -> Vec<(&'static str, Value, Must)> {
    let limits = small();
    let time = || Must::Reach(LimitReached::Time(limits.time));
    vec![
        ("loop-forever", json!({}), time()),
        ("spin-on-clock", json!({}), time()),
        ("sleep", json!({ "milliseconds": 3_600_000 }), time()),
        ("wait-for-token", json!({}), time()),
        ("recurse-forever", json!({}), Must::Reach(LimitReached::Stack)),
        ("grow-memory", json!({}), Must::Reach(LimitReached::Memory(limits.memory))),
        ("return-text", json!({ "length": 1 << 20 }), Must::Reach(LimitReached::Result(limits.result))),
        ("return-numbers", json!({ "count": 1 << 19 }), Must::Reach(LimitReached::Transfer(limits.transfer))),
        ("flood-log", json!({ "lines": 5_000 }), Must::Give(Value::Null)),
        ("flood-tokens", json!({ "count": 1_000_000 }), Must::Reach(LimitReached::HostCalls(limits.host_calls))),
        ("hold-tokens", json!({ "count": 1_000_000 }), Must::Reach(LimitReached::Handles(limits.handles))),
        ("hold-clocks", json!({ "count": 1_000_000 }), Must::Reach(LimitReached::Handles(limits.handles))),
        ("take-random", json!({ "length": 1_u64 << 40 }), Must::Trap(TrapReason::Other(String::new()))),
        ("panic", json!({ "message": "\u{1b}[2Jboo" }), Must::Trap(TrapReason::Unreachable)),
        ("exit", json!({ "status": 3 }), Must::Trap(TrapReason::Exit(1))),
        ("read-file", json!({ "path": "/etc/passwd" }), Must::Fail(Value::Null)),
        ("list-folders", json!({}), Must::Give(json!([]))),
        ("read-environment", json!({}), Must::Give(json!([]))),
        ("read-input", json!({}), Must::Give(json!(0))),
        (
            "fetch",
            json!({ "authority": "api.test", "method": "GET", "header-name": "" }),
            Must::Fail(json!("no grant allows this (why_00)")),
        ),
        ("flood-requests", json!({ "count": 1_000_000 }), time()),
        ("reveal", json!({}), Must::Give(json!("canary"))),
        ("remember", json!({}), Must::Give(json!(1))),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_attack_runs_into_its_bound_and_the_host_lives_on() {
    let guest = guest("attacks").await;
    let user = "ann".parse().unwrap();
    for (tool, input, must) in attacks() {
        let mut limits = small();
        // Where time is not the bound, there is enough of it, however much of the call is traced.
        if !matches!(must, Must::Reach(LimitReached::Time(_))) {
            limits.time = Duration::from_secs(10);
        }
        let authority = Arc::new(Grants { sleeps: tool == "wait-for-token", ..Grants::default() });
        let call =
            Call { user: &user, tool, input: &input, linked: ALL, authority: authority.clone(), limits: &limits };
        let outcome = RUNTIME.call(&guest, call).await.unwrap();
        match (must, outcome.end) {
            (Must::Reach(limit), End::Limit(reached)) => assert_eq!(reached, limit, "{tool}"),
            // The words are the engine's, or those of the guest's own library.
            (Must::Trap(TrapReason::Other(_)), End::Trapped(Trapped { reason: TrapReason::Other(_), .. }))
            | (Must::Fail(Value::Null), End::ToolError(_)) => {}
            (Must::Trap(reason), End::Trapped(trapped)) => assert_eq!(trapped.reason, reason, "{tool}"),
            (Must::Give(value), End::Value(given)) | (Must::Fail(value), End::ToolError(given)) => {
                assert_eq!(given, value, "{tool}");
            }
            (_, end) => panic!("{tool}: {end:?}"),
        }
        assert_eq!(authority.waiting.load(Ordering::SeqCst), 0, "{tool}: a host call is still under way");
        assert!(outcome.logs.text.len() <= limits.log + 3, "{tool}");
        assert!(outcome.memory <= limits.memory, "{tool}");
        // A request's task is told to end when the call does, and ends on its own thread.
        while Arc::strong_count(&authority) > 1 {
            tokio::task::yield_now().await;
        }
        if tool == "flood-log" {
            assert!(outcome.logs.dropped > 100_000);
        }
        if tool == "panic" {
            assert!(outcome.logs.text.contains("boo"));
        }
    }
}

#[tokio::test]
async fn every_function_of_the_attacking_guest_is_in_the_table() {
    let guest = guest("attacks").await;
    let mut functions: Vec<_> = guest.tools().iter().map(Tool::name).collect();
    let mut tested: Vec<_> = attacks().iter().map(|(tool, ..)| *tool).collect();
    functions.sort_unstable();
    tested.sort_unstable();
    assert_eq!(functions, tested);
    assert_eq!(guest.left_out(), []);
}

#[tokio::test]
async fn a_dropped_call_frees_everything_at_once() {
    let guest = guest("attacks").await;
    let user = "ann".parse().unwrap();
    let authority = Arc::new(Grants { sleeps: true, ..Grants::default() });
    let (input, limits) = (json!({}), Limits::default());
    let call = Call {
        user: &user,
        tool: "wait-for-token",
        input: &input,
        linked: ALL,
        authority: authority.clone(),
        limits: &limits,
    };
    let mut running = Box::pin(RUNTIME.call(&guest, call));
    while authority.waiting.load(Ordering::SeqCst) == 0 {
        assert!(futures_util::poll!(running.as_mut()).is_pending());
        tokio::task::yield_now().await;
    }
    drop(running);
    assert_eq!(authority.waiting.load(Ordering::SeqCst), 0);
    assert_eq!(Arc::strong_count(&authority), 1);
}

#[tokio::test]
async fn a_guest_remembers_nothing_of_an_earlier_call() {
    let guest = guest("attacks").await;
    for _ in 0..20 {
        assert_eq!(call(&guest, "remember", json!({})).await.unwrap().end, End::Value(json!(1)));
    }
}

#[tokio::test]
async fn a_guest_that_runs_forever_leaves_the_thread_to_its_neighbours() {
    let (looping, echo) = (guest("attacks").await, guest("echo").await);
    let limits = Limits { time: Duration::from_secs(2), ..Limits::default() };
    // One thread for both: the second call can only end if the first gives way.
    let forever = call_with(&looping, "loop-forever", json!({}), &limits);
    let neighbour = async {
        tokio::task::yield_now().await;
        call(&echo, "echo", json!({ "text": "hello" })).await.unwrap().end
    };
    tokio::select! {
        biased;
        _ = forever => panic!("the neighbour had to wait for the deadline"),
        end = neighbour => assert_eq!(end, End::Value(json!("hello"))),
    }
}

#[tokio::test]
async fn a_granted_request_is_answered() {
    let guest = guest("attacks").await;
    let input = json!({ "authority": "granted.test", "method": "GET", "header-name": "accept" });
    assert_eq!(call(&guest, "fetch", input).await.unwrap().end, End::Value(json!("200")));
}

/// The process's resident memory, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[tokio::test]
async fn the_largest_result_that_a_guest_can_give_costs_the_host_a_bounded_piece_of_memory() {
    let guest = guest("attacks").await;
    let limits = Limits { time: Duration::from_secs(20), ..Limits::default() };
    // As many numbers as one crossing may carry, each of which is a value of its own in the host.
    let most = limits.transfer / std::mem::size_of::<wasmtime::component::Val>() - 100;
    let before = resident();
    for _ in 0..5 {
        let outcome = call_with(&guest, "return-numbers", json!({ "count": most }), &limits).await.unwrap();
        assert!(matches!(outcome.end, End::Value(_) | End::Limit(LimitReached::Result(_))), "{:?}", outcome.end);
        let beyond = call_with(&guest, "return-numbers", json!({ "count": most + 200 }), &limits).await.unwrap();
        assert_eq!(beyond.end, End::Limit(LimitReached::Transfer(limits.transfer)));
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 512 << 20, "{grown} bytes more than before");
}

#[tokio::test]
async fn forbidden_headers_are_refused_before_the_authority_is_asked() {
    let guest = guest("attacks").await;
    for header in ["host", "transfer-encoding", "x-http-method-override", "proxy-authorization"] {
        let input = json!({ "authority": "api.test", "method": "GET", "header-name": header });
        let end = call(&guest, "fetch", input).await.unwrap().end;
        assert_eq!(end, End::ToolError(json!("HeaderError::Forbidden")), "{header}");
    }
}

#[tokio::test]
async fn without_a_grant_the_same_guest_is_refused_before_it_is_instantiated() {
    let guest = guest("attacks").await;
    let (user, input, limits) = ("ann".parse().unwrap(), json!({}), Limits::default());
    for (linked, message) in [
        (
            Linked { reveal: false, ..ALL },
            "the skill imports `clawcoil:skill/reveal@0.1.0`, which is not linked: it would show the skill the access \
             token itself, which takes a grant with use = \"reveal\" from the operator",
        ),
        (
            Linked { tokens: false, ..ALL },
            "the skill imports `clawcoil:skill/tokens@0.1.0`, which is not linked: no service that its manifest declares is \
             granted for this caller; the operator grants services",
        ),
    ] {
        let authority = Arc::new(Grants::default());
        let call = Call {
            user: &user,
            tool: "remember",
            input: &input,
            linked,
            authority: authority.clone(),
            limits: &limits,
        };
        let error = RUNTIME.call(&guest, call).await.unwrap_err();
        assert_eq!(error.to_string(), message);
        assert!(matches!(error, CallError::Link(LinkError::NotLinked { .. })));
    }
}
