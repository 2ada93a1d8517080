//! What a call costs over bare wasmtime, as ratios within one run, so that they hold on a noisy machine.
//!
//! The floor is wasmtime alone on the very engine of the runtime: the same component, a fresh store with WASI for each
//! call, and the one exported function called with its Rust types. `cargo bench -p clawcoil` prints the figures and writes
//! them to `target/bench/summary.json`; run as a test, it only sees that everything runs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a bench is a test"
)]

mod guests;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use clawcoil::clock::{Clock as _, SystemClock};
use clawcoil::id::UserId;
use clawcoil::runtime::{
    AuthError, Authority, Body, Call, Component, End, Limits, Linked, RevealedToken, Runtime, SendError, Settings,
    Timeouts, TokenHandle, TokenInfo, TokenRequest,
};
use serde_json::{Map, Value, json};
use wasmtime::component::{InstancePre, Linker, ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

/// A bound that a figure is to keep.
#[derive(Clone, Copy)]
enum Reach {
    AtMost(f64),
    AtLeast(f64),
}

/// The figures of a run.
#[derive(Default)]
struct Summary(Map<String, Value>);

impl Summary {
    fn add(&mut self, name: &str, value: f64, reach: Reach) {
        let (holds, reach) = match reach {
            Reach::AtMost(most) => (value <= most, format!("<= {most}")),
            Reach::AtLeast(least) => (value >= least, format!(">= {least}")),
        };
        self.0.insert(name.to_owned(), json!({ "value": value, "reach": reach, "holds": holds }));
    }

    /// A figure that is only told.
    fn tell(&mut self, name: &str, value: f64) {
        self.0.insert(name.to_owned(), json!({ "value": value, "reach": null, "holds": true }));
    }

    fn print(&self) {
        for (name, figure) in &self.0 {
            let value = figure["value"].as_f64().unwrap_or(f64::NAN);
            let verdict = match (figure["reach"].as_str(), figure["holds"] == true) {
                (None, _) => String::new(),
                (Some(reach), true) => format!("{reach:<8} holds"),
                (Some(reach), false) => format!("{reach:<8} DOES NOT HOLD"),
            };
            println!("{name:<28} {value:>9.3}   {verdict}");
        }
    }

    /// Adds the figures to those of other benches.
    fn write(self, path: &Path) {
        let before = std::fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let mut all: Map<String, Value> = before.unwrap_or_default();
        all.extend(self.0);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, serde_json::to_vec_pretty(&all).unwrap()).unwrap();
    }
}

/// Says yes to everything and does nothing else: what is left is the runtime's own cost.
struct Trivial;

#[async_trait]
impl Authority for Trivial {
    async fn get_token(&self, _: TokenRequest<'_>) -> Result<TokenHandle, AuthError> {
        let info = TokenInfo {
            provider: String::new(),
            api_origin: String::new(),
            account: None,
            scopes: Vec::new(),
            expires_at_ms: None,
        };
        Ok(TokenHandle { id: 0, info, placeholder: String::new() })
    }

    fn invalidate(&self, _: u64) {}

    async fn reveal(&self, _: u64) -> Result<RevealedToken, AuthError> {
        Err(AuthError::Other("no".to_owned()))
    }

    async fn send(&self, _: http::Request<Body>, _: Timeouts) -> Result<http::Response<Body>, SendError> {
        Err(SendError::Denied("no".to_owned()))
    }
}

struct Bare {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for Bare {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

struct Bench {
    runtime: Runtime,
    echo: Arc<Component>,
    floor: InstancePre<Bare>,
    function: wasmtime::component::ComponentExportIndex,
    user: UserId,
    limits: Limits,
    clock: SystemClock,
    calls: usize,
}

impl Bench {
    async fn new(calls: usize) -> Self {
        let bytes = guests::build().remove("echo").unwrap();
        let runtime = Runtime::new(Settings::default()).unwrap();
        let echo = runtime.compile(bytes.clone()).await.unwrap();
        let component = wasmtime::component::Component::from_binary(runtime.engine(), &bytes).unwrap();
        let mut linker = Linker::new(runtime.engine());
        wasmtime_wasi::p2::add_to_linker_async::<Bare>(&mut linker).unwrap();
        linker.define_unknown_imports_as_traps(&component).unwrap();
        let tools = component.get_export_index(None, "clawcoil:guest-echo/tools").unwrap();
        let function = component.get_export_index(Some(&tools), "echo").unwrap();
        let floor = linker.instantiate_pre(&component).unwrap();
        let user = "ann".parse().unwrap();
        Self { runtime, echo, floor, function, user, limits: Limits::default(), clock: SystemClock::new(), calls }
    }

    async fn floor(&self) {
        let bare = Bare { wasi: WasiCtx::builder().build(), table: ResourceTable::new() };
        let mut store = wasmtime::Store::new(self.runtime.engine(), bare);
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        let instance = self.floor.instantiate_async(&mut store).await.unwrap();
        let echo = instance.get_typed_func::<(&str,), (String,)>(&mut store, &self.function).unwrap();
        let (said,) = echo.call_async(&mut store, ("hello",)).await.unwrap();
        assert_eq!(said, "hello");
    }

    async fn ours(&self, tool: &str, input: &Value, authority: &Arc<dyn Authority>) {
        let linked = Linked { tokens: true, reveal: false, http: false };
        let authority = Arc::clone(authority);
        let call = Call { user: &self.user, tool, input, linked, authority, limits: &self.limits };
        let outcome = self.runtime.call(&self.echo, call).await.unwrap();
        assert!(matches!(outcome.end, End::Value(Value::String(said)) if said == "hello"));
    }

    /// The median of each, in microseconds: floor, ours, ours with a token. The three take turns.
    async fn medians(&self) -> [f64; 3] {
        let authority: Arc<dyn Authority> = Arc::new(Trivial);
        let plain = json!({ "text": "hello" });
        let with_token = json!({ "service": "service", "text": "hello" });
        let mut times = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..self.calls {
            let start = self.clock.monotonic();
            self.floor().await;
            let first = self.clock.monotonic();
            self.ours("echo", &plain, &authority).await;
            let second = self.clock.monotonic();
            self.ours("echo-with-token", &with_token, &authority).await;
            let third = self.clock.monotonic();
            times[0].push(first.saturating_sub(start));
            times[1].push(second.saturating_sub(first));
            times[2].push(third.saturating_sub(second));
        }
        times.map(|times| median(times).as_secs_f64() * 1e6)
    }

    /// Calls per second on this many threads, each with an event loop of its own.
    fn rate(&self, threads: usize, ours: bool, time: Duration) -> f64 {
        let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
        let start = self.clock.monotonic();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let authority: Arc<dyn Authority> = Arc::new(Trivial);
                    let input = json!({ "text": "hello" });
                    event_loop().block_on(async {
                        while !stop.load(Ordering::Relaxed) {
                            if ours {
                                self.ours("echo", &input, &authority).await;
                            } else {
                                self.floor().await;
                            }
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                });
            }
            std::thread::sleep(time);
            stop.store(true, Ordering::Relaxed);
        });
        let elapsed = self.clock.monotonic().saturating_sub(start).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a few million calls at the most")]
        let calls = count.into_inner() as f64;
        calls / elapsed
    }

    /// What a second thread brings us, divided by what it brings the floor. The median of several rounds.
    fn second_thread(&self, rounds: usize, time: Duration) -> f64 {
        let mut ratios: Vec<_> = (0..rounds)
            .map(|_| {
                let floor = self.rate(2, false, time) / self.rate(1, false, time);
                let ours = self.rate(2, true, time) / self.rate(1, true, time);
                ours / floor
            })
            .collect();
        ratios.sort_by(f64::total_cmp);
        ratios[ratios.len() / 2]
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn event_loop() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

fn main() {
    let measures = std::env::args().any(|argument| argument == "--bench");
    let (calls, rounds, time) =
        if measures { (20_000, 7, Duration::from_millis(300)) } else { (20, 1, Duration::from_millis(10)) };
    let event_loop = event_loop();
    let bench = event_loop.block_on(Bench::new(calls));
    let mut summary = Summary::default();

    // The first round warms slots, caches and branch predictors.
    let _warm = event_loop.block_on(bench.medians());
    let [floor, ours, with_token] = event_loop.block_on(bench.medians());
    summary.tell("floor_us_p50", floor);
    summary.tell("runtime_call_us_p50", ours);
    summary.add("runtime_call_over_floor_p50", ours / floor, Reach::AtMost(1.2));
    summary.add("runtime_token_added_us_p50", with_token - ours, Reach::AtMost(3.0));
    summary.add("threads2_vs_floor", bench.second_thread(rounds, time), Reach::AtLeast(0.95));

    if measures {
        summary.print();
        summary.write(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench/summary.json"));
    }
}
