//! One call of a tool: a fresh store, a fresh instance, and nothing left of either afterwards.

use std::sync::Arc;

use serde_json::Value;
use wasmtime::component::{InstancePre, Val};
use wasmtime::{Store, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::authority::Authority;
use super::component::one_line;
use super::convert::{self, Unreadable};
use super::gate::{Busy, BusyWith};
use super::limits::{LimitReached, Limits};
use super::log::{Log, Logs};
use super::state::State;
use super::tools::{Returns, Tool};

/// How a call ended, once the guest had started.
#[derive(Debug)]
pub struct Outcome {
    /// What came of it.
    pub end: End,
    /// What the guest printed.
    pub logs: Logs,
    /// The memory that the guest held at the end, in bytes.
    pub memory: usize,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// A result.
    Value(Value),
    /// The tool says that it failed: the `err` of its result.
    ToolError(Value),
    /// The guest ended by itself or by a fault of its own.
    Trapped(Trapped),
    /// The guest was ended, because it ran into a bound.
    Limit(LimitReached),
}

/// A guest's end without a result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Trapped {
    /// Why.
    pub reason: TrapReason,
    /// The functions that were running, the innermost first, at most 20. Names that the skill's author chose.
    pub backtrace: Vec<String>,
}

/// Why a guest ended without a result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrapReason {
    /// A panic, or an `unreachable`.
    #[error("the skill panicked or aborted")]
    Unreachable,
    /// It asked to exit.
    #[error("the skill exited with status {0} instead of returning a result")]
    Exit(i32),
    /// Memory that it doesn't have.
    #[error("the skill touched memory outside its own")]
    OutOfBounds,
    /// A division by zero, an overflow, a bad conversion.
    #[error("the skill divided by zero or overflowed a number")]
    Arithmetic,
    /// A call through a wrong function pointer.
    #[error("the skill called a function that is not there")]
    BadCall,
    /// The skill gave the host something that is not of its type: a wrong `char`, text that is not UTF-8.
    #[error("the skill broke the rules of the component model: {0}")]
    Contract(String),
    /// Anything else, in the engine's words.
    #[error("the skill ended early: {0}")]
    Other(String),
}

pub(super) struct Start<'a> {
    pub(super) ready: &'a Arc<InstancePre<State>>,
    pub(super) tool: &'a Tool,
    pub(super) params: Vec<Val>,
    pub(super) authority: Arc<dyn Authority>,
    pub(super) limits: &'a Limits,
}

/// Runs the guest. Whoever drops this future ends the guest and frees everything of it.
pub(super) async fn run(start: Start<'_>) -> Result<Outcome, Busy> {
    let Start { ready, tool, params, authority, limits } = start;
    let log = Log::new(limits.log);
    let mut store = Store::new(ready.engine(), State::new(limits, authority, &log));
    store.limiter(|state| &mut state.limiter);
    store.set_hostcall_fuel(limits.transfer);
    store.set_max_component_handles(limits.handles);
    store.set_epoch_deadline(1);
    store.epoch_deadline_async_yield_and_update(1);

    let called = tokio::time::timeout(limits.time, enter(&mut store, ready, tool, params)).await;
    let end = match called {
        Err(_) => End::Limit(LimitReached::Time(limits.time)),
        Ok(Ok(result)) => told(tool, result, limits),
        Ok(Err(error)) if error.is::<wasmtime::PoolConcurrencyLimitError>() => return Err(Busy::new(BusyWith::Host)),
        Ok(Err(error)) => ended(&error, store.data(), limits),
    };
    let memory = store.data().limiter.memory();
    drop(store);
    Ok(Outcome { end, logs: log.take(), memory })
}

async fn enter(
    store: &mut Store<State>,
    ready: &InstancePre<State>,
    tool: &Tool,
    params: Vec<Val>,
) -> wasmtime::Result<Option<Val>> {
    let instance = ready.instantiate_async(&mut *store).await?;
    let function = instance
        .get_func(&mut *store, tool.index())
        .ok_or_else(|| wasmtime::Error::msg("the function is not where the component's type says"))?;
    if *tool.returns() == Returns::Nothing {
        function.call_async(&mut *store, &params, &mut []).await?;
        return Ok(None);
    }
    let mut results = [Val::Bool(false)];
    function.call_async(&mut *store, &params, &mut results).await?;
    let [result] = results;
    Ok(Some(result))
}

fn told(tool: &Tool, result: Option<Val>, limits: &Limits) -> End {
    let mut left = limits.result;
    let (good, told) = match (tool.returns(), result) {
        (Returns::Nothing, None) => (true, Ok(Value::Null)),
        (Returns::Value(shape), Some(value)) => (true, convert::to_json(shape, value, &mut left)),
        (Returns::Result(ok, _), Some(Val::Result(Ok(value)))) => {
            (true, convert::payload(ok.as_ref(), value, &mut left))
        }
        (Returns::Result(_, err), Some(Val::Result(Err(value)))) => {
            (false, convert::payload(err.as_ref(), value, &mut left))
        }
        _ => (false, Err(Unreadable::Type)),
    };
    match told {
        Ok(value) if good => End::Value(value),
        Ok(value) => End::ToolError(value),
        Err(Unreadable::TooLarge) => End::Limit(LimitReached::Result(limits.result)),
        Err(Unreadable::Type) => {
            let reason = TrapReason::Contract("its result is not of the type that it declares".to_owned());
            End::Trapped(Trapped { reason, backtrace: Vec::new() })
        }
    }
}

/// Why the guest ended without a result.
fn ended(error: &wasmtime::Error, state: &State, limits: &Limits) -> End {
    if let Some(limit) = limit(error, state, limits) {
        return End::Limit(limit);
    }
    let reason = match error.downcast_ref::<Trap>() {
        Some(Trap::UnreachableCodeReached) => TrapReason::Unreachable,
        Some(Trap::MemoryOutOfBounds | Trap::TableOutOfBounds | Trap::HeapMisaligned) => TrapReason::OutOfBounds,
        Some(Trap::IntegerOverflow | Trap::IntegerDivisionByZero | Trap::BadConversionToInteger) => {
            TrapReason::Arithmetic
        }
        Some(Trap::IndirectCallToNull | Trap::BadSignature | Trap::NullReference) => TrapReason::BadCall,
        Some(other) => TrapReason::Contract(other.to_string()),
        None => match error.downcast_ref::<I32Exit>() {
            Some(exit) => TrapReason::Exit(exit.0),
            None => TrapReason::Other(one_line(error)),
        },
    };
    let backtrace = error.downcast_ref::<WasmBacktrace>().map(frames).unwrap_or_default();
    End::Trapped(Trapped { reason, backtrace })
}

fn limit(error: &wasmtime::Error, state: &State, limits: &Limits) -> Option<LimitReached> {
    if let Some(limit) = error.downcast_ref::<LimitReached>() {
        return Some(*limit);
    }
    if error.downcast_ref::<Trap>() == Some(&Trap::StackOverflow) {
        return Some(LimitReached::Stack);
    }
    if matches!(
        error.downcast_ref::<wasmtime::component::ResourceTableError>(),
        Some(wasmtime::component::ResourceTableError::Full)
    ) {
        return Some(LimitReached::Handles(limits.handles));
    }
    let text = format!("{error:#}");
    if text.contains("fuel allocated for hostcalls has been exhausted") {
        return Some(LimitReached::Transfer(limits.transfer));
    }
    // A guest whose memory can't grow aborts: the abort is the consequence, the bound is the cause.
    state.limiter.refused()
}

fn frames(backtrace: &WasmBacktrace) -> Vec<String> {
    let name = |frame: &wasmtime::FrameInfo| {
        let name = frame.func_name().map_or_else(|| format!("function {}", frame.func_index()), str::to_owned);
        name.chars().filter(|c| !c.is_control()).take(200).collect()
    };
    backtrace.frames().iter().take(20).map(name).collect()
}
