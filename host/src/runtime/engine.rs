//! The wasmtime engine: one pool of slots for all calls, and one thread that lets time pass for the guests.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig, WasmFeatures};

/// How often a running guest is interrupted, so that the thread it runs on can serve others and see its deadline.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// A stack that a guest may fill; deeper recursion traps.
const GUEST_STACK: usize = 512 << 10;
/// The stack on which guest and host functions run; what the guest can't fill is left for the host.
const CALL_STACK: usize = 2 << 20;
/// The part of a call's stack that is wiped in place when the call ends; the rest goes back to the system.
const STACK_KEEP_RESIDENT: usize = 16 << 10;
const MEMORY_KEEP_RESIDENT: usize = 1 << 20;
const TABLE_KEEP_RESIDENT: usize = 64 << 10;

/// Core instances of one component: three for a Rust skill, fourteen for a Python one.
const CORE_INSTANCES_PER_COMPONENT: u32 = 32;
const MEMORIES_PER_COMPONENT: u32 = 8;
const TABLES_PER_COMPONENT: u32 = 16;
const TABLES_PER_MODULE: u32 = 4;
/// The smallest pool that is worth starting with.
const SMALLEST_POOL: u32 = 8;

/// How large the engine is made.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// Calls that can be inside guests at the same time, those that wait in a host call included. Default 1,000.
    pub concurrent_calls: u32,
    /// Memory that idle slots may keep, in bytes, so that the next call of the same skill starts warm. Default 256 MiB.
    pub warm_memory: u64,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self { concurrent_calls: 1_000, warm_memory: 256 << 20 }
    }
}

/// What the engine could be made of on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineReport {
    /// Calls that were asked for.
    pub wanted_calls: u32,
    /// Calls that fit at the same time; fewer than were asked for where the system limits the address space.
    pub concurrent_calls: u32,
    /// Whether idle slots stay resident. That needs the `PAGEMAP_SCAN` of Linux 6.7; without it each call is slower.
    pub keeps_slots_resident: bool,
}

/// No engine could be made.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The address space is too small, or limited.
    #[error(
        "the engine could not reserve address space for even {SMALLEST_POOL} calls at once: \
         raise the limit of the address space (`ulimit -v unlimited`, `LimitAS=infinity` for systemd)"
    )]
    AddressSpace(#[source] wasmtime::Error),
    /// The settings don't fit each other.
    #[error("the engine can't have room for {0} calls at once: choose between 1 and 10000")]
    Settings(u32),
    /// The thread that interrupts guests could not be started.
    #[error("the engine could not start its timer thread")]
    Thread(#[source] std::io::Error),
}

/// An engine and its timer thread, which ends with it.
pub(super) struct Engine {
    inner: wasmtime::Engine,
    report: EngineReport,
    ticker: Ticker,
}

impl Engine {
    /// An engine with the pool that was asked for, or the largest that the system allows.
    pub(super) fn new(settings: &EngineSettings) -> Result<Self, EngineError> {
        let wanted = settings.concurrent_calls;
        if !(1..=10_000).contains(&wanted) {
            return Err(EngineError::Settings(wanted));
        }
        // To be asked before the process makes itself non-dumpable: after that, /proc/self/pagemap may be closed to it.
        let pagemap = PoolingAllocationConfig::is_pagemap_scan_available();
        let (inner, concurrent_calls) =
            largest(wanted, |calls| wasmtime::Engine::new(&config(calls, settings.warm_memory, pagemap)))
                .map_err(EngineError::AddressSpace)?;
        if concurrent_calls < wanted {
            tracing::warn!(wanted, concurrent_calls, "the address space is limited: fewer calls can run at once");
        }
        let report = EngineReport { wanted_calls: wanted, concurrent_calls, keeps_slots_resident: pagemap };
        let ticker = Ticker::start(&inner).map_err(EngineError::Thread)?;
        Ok(Self { inner, report, ticker })
    }

    pub(super) fn inner(&self) -> &wasmtime::Engine {
        &self.inner
    }

    pub(super) fn report(&self) -> EngineReport {
        self.report
    }

    /// Whether the thread that lets time pass for the guests is there.
    pub(super) fn is_ticking(&self) -> bool {
        self.ticker.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

/// Tries the wanted number, then half of it and so on; the error is that of the smallest try.
fn largest<T, E>(wanted: u32, attempt: impl Fn(u32) -> Result<T, E>) -> Result<(T, u32), E> {
    let mut calls = wanted;
    loop {
        match attempt(calls) {
            Ok(made) => return Ok((made, calls)),
            Err(_) if calls / 2 >= SMALLEST_POOL => calls /= 2,
            Err(error) => return Err(error),
        }
    }
}

fn config(calls: u32, warm_memory: u64, pagemap: bool) -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(calls)
        .total_stacks(calls)
        .total_core_instances(calls.saturating_mul(4).max(CORE_INSTANCES_PER_COMPONENT))
        .total_memories(calls.saturating_mul(2).max(MEMORIES_PER_COMPONENT))
        .total_tables(calls.saturating_mul(3).max(TABLES_PER_COMPONENT))
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT)
        .max_memories_per_component(MEMORIES_PER_COMPONENT)
        .max_tables_per_component(TABLES_PER_COMPONENT)
        .max_tables_per_module(TABLES_PER_MODULE)
        .max_unused_warm_slots(u32::try_from(warm_memory / MEMORY_KEEP_RESIDENT as u64).unwrap_or(u32::MAX))
        .async_stack_keep_resident(STACK_KEEP_RESIDENT);
    // Keeping slots resident without the scan costs more than it saves: the three go together.
    if pagemap {
        pool.linear_memory_keep_resident(MEMORY_KEEP_RESIDENT)
            .table_keep_resident(TABLE_KEEP_RESIDENT)
            .pagemap_scan(Enabled::Yes);
    } else {
        pool.linear_memory_keep_resident(0).table_keep_resident(0).pagemap_scan(Enabled::No);
    }

    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .concurrency_support(false)
        .epoch_interruption(true)
        .max_wasm_stack(GUEST_STACK)
        .async_stack_size(CALL_STACK)
        // One call's leftovers on a stack must not be there for the next.
        .async_stack_zeroing(true)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_relaxed_simd(false);
    for off in [
        WasmFeatures::THREADS,
        WasmFeatures::SHARED_EVERYTHING_THREADS,
        WasmFeatures::GC,
        WasmFeatures::GC_TYPES,
        WasmFeatures::FUNCTION_REFERENCES,
        WasmFeatures::EXCEPTIONS,
        WasmFeatures::LEGACY_EXCEPTIONS,
        WasmFeatures::STACK_SWITCHING,
        WasmFeatures::CUSTOM_PAGE_SIZES,
    ] {
        config.wasm_features(off, false);
    }
    config
}

/// Advances the engine's epoch until it is dropped, and takes its thread with it.
struct Ticker {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    fn start(engine: &wasmtime::Engine) -> std::io::Result<Self> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let (stopped, engine) = (Arc::clone(&stop), engine.weak());
        let thread = std::thread::Builder::new().name("guest-timer".into()).spawn(move || {
            let (flag, wake) = &*stopped;
            let mut flag = flag.lock().unwrap_or_else(PoisonError::into_inner);
            while !*flag {
                flag = wake.wait_timeout(flag, TICK).unwrap_or_else(PoisonError::into_inner).0;
                match engine.upgrade() {
                    Some(engine) => engine.increment_epoch(),
                    None => return,
                }
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take() {
            // The thread runs no code that panics; if it did, there is nothing left to stop.
            let _ended = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_shrinks_until_it_fits_and_no_further() {
        assert_eq!(largest(1000, |calls| if calls > 300 { Err("no") } else { Ok(()) }), Ok(((), 250)));
        assert_eq!(largest(1000, |_| Err::<(), _>("no")), Err("no"));
        assert_eq!(largest(1, |_| Ok::<_, ()>(())), Ok(((), 1)));
    }

    #[test]
    fn an_engine_takes_its_timer_thread_with_it() {
        let engine = Engine::new(&EngineSettings { concurrent_calls: 8, ..EngineSettings::default() }).unwrap();
        assert!(engine.is_ticking());
        let weak = Arc::downgrade(&engine.ticker.stop);
        drop(engine);
        assert!(weak.upgrade().is_none(), "the thread's own handle is gone, so the thread has ended");
    }

    #[test]
    fn a_pool_of_no_calls_is_refused_with_the_range_that_is_possible() {
        let error = Engine::new(&EngineSettings { concurrent_calls: 0, ..EngineSettings::default() }).err().unwrap();
        assert_eq!(error.to_string(), "the engine can't have room for 0 calls at once: choose between 1 and 10000");
    }

    #[test]
    fn what_skills_don_t_need_is_off() {
        let engine = Engine::new(&EngineSettings { concurrent_calls: 8, ..EngineSettings::default() }).unwrap();
        for (what, wat) in [
            ("64-bit memories", "(component (core module (memory i64 1)))"),
            ("several memories in a module", "(component (core module (memory 1) (memory 1)))"),
            ("shared memories", "(component (core module (memory 1 1 shared)))"),
            (
                "relaxed SIMD",
                "(component (core module (func (param v128 v128) (result v128) local.get 0 local.get 1 i8x16.relaxed_swizzle)))",
            ),
            ("garbage collection", "(component (core module (type (struct (field i32)))))"),
            ("exceptions", "(component (core module (tag)))"),
        ] {
            let bytes = wat::parse_str(wat).unwrap();
            assert!(wasmtime::component::Component::new(engine.inner(), bytes).is_err(), "{what}");
        }
    }
}
