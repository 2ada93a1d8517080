//! What a call costs over bare wasmtime, as ratios within one run, so that they hold on a noisy machine.
//!
//! The floor is wasmtime alone on the very engine of the runtime: the same component, a fresh store for each call, with WASI
//! for a guest that asks for it, and the one exported function called with its Rust types. Ours is `Host::invoke` with all that it does: policy, the
//! look-up of connections, the audit log. `cargo bench -p clawcoil` prints the figures and writes
//! them to `target/bench/summary.json`; run as a test, it only sees that everything runs. What compares two times is the median over
//! rounds of their ratio or difference within a round.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a bench is a test"
)]

mod guests;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clawcoil::audit::{Event, EventKind};
use clawcoil::clock::{Clock as _, SystemClock};
use clawcoil::host::{Home, Host, init};
use clawcoil::id::{Caller, ConnectionId, Owner, SkillName};
use clawcoil::identity::Recovery;
use clawcoil::policy::{Effective, Target};
use clawcoil::runtime::End;
use clawcoil::secret::AccessToken;
use clawcoil::vault::{Kind, NewConnection, TokenSet};
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

#[derive(Default)]
struct Bare {
    wasi: Option<WasiCtx>,
    table: ResourceTable,
}

impl WasiView for Bare {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: self.wasi.get_or_insert_with(|| WasiCtx::builder().build()), table: &mut self.table }
    }
}

/// A home as an operator has it: one skill, one grant, one connected account.
struct Bench {
    host: Host,
    floor: InstancePre<Bare>,
    function: wasmtime::component::ComponentExportIndex,
    caller: Caller,
    skill: SkillName,
    connection: ConnectionId,
    clock: SystemClock,
    calls: usize,
    _folder: tempfile::TempDir,
}

const MANIFEST: &str = r#"
[skill]
name = "echo"
version = "0.1.0"
description = "Says back what it is told"

[[service]]
name = "api"
provider = "acme"
scopes = ["read"]
use = "inject"
reason = "to measure"
  [[service.request]]
  origin = "https://api.acme.example"
  methods = ["GET"]
  paths = ["/v1/**"]
"#;

const PERMISSIONS: &str = r#"
[[grant]]
skill = "echo"
users = ["*"]
clients = ["*"]
service = "api"
provider = "acme"
scopes = ["read"]
use = "inject"
approval = "none"
"#;

const PROVIDER: &str = r#"
[provider.acme]
name = "Acme"
authorize = "https://auth.acme.example/authorize"
token = "https://auth.acme.example/token"
api-origins = ["https://api.acme.example"]
"#;

impl Bench {
    async fn new(calls: usize) -> Self {
        let bytes = guests::build().remove("echo").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path().join("home"));
        init(&home, &Recovery::none(), Arc::new(SystemClock::new())).await.unwrap();
        std::fs::create_dir_all(home.providers_folder()).unwrap();
        std::fs::write(home.providers_folder().join("acme.toml"), PROVIDER).unwrap();
        std::fs::write(home.permissions(), PERMISSIONS).unwrap();
        let component = folder.path().join("echo.wasm");
        std::fs::write(&component, &bytes).unwrap();
        std::fs::write(folder.path().join("skill.toml"), MANIFEST).unwrap();
        let host = Host::builder(home).open().await.unwrap();
        let skill = host.registry().add(&component, None).unwrap().name().clone();
        let caller = Caller::new("bench".parse().unwrap(), "ann".parse().unwrap());
        let scopes: BTreeSet<_> = [String::from("read").parse().unwrap()].into();
        let new = NewConnection {
            owner: Owner::User(caller.user.clone()),
            provider: "acme".parse().unwrap(),
            account: "default".parse().unwrap(),
            kind: Kind::AuthorizationCode,
            scopes: scopes.clone(),
        };
        let tokens = TokenSet {
            access: AccessToken::new("0123456789abcdef0123456789abcdef".to_owned()),
            refresh: None,
            token_type: "Bearer".to_owned(),
            expires_in: Some(Duration::from_hours(1)),
            requested_at: SystemClock::new().now(),
            scopes: Some(scopes),
            api_origin: None,
            account_label: None,
            grant_ends_at: None,
        };
        let connection = host.vault().connect(new, tokens, true).await.unwrap().0.id;
        let component = wasmtime::component::Component::from_binary(host.runtime().engine(), &bytes).unwrap();
        let mut linker = Linker::new(host.runtime().engine());
        wasmtime_wasi::p2::add_to_linker_async::<Bare>(&mut linker).unwrap();
        linker.define_unknown_imports_as_traps(&component).unwrap();
        let tools = component.get_export_index(None, "clawcoil:guest-echo/tools").unwrap();
        let function = component.get_export_index(Some(&tools), "echo").unwrap();
        let floor = linker.instantiate_pre(&component).unwrap();
        Self { host, floor, function, caller, skill, connection, clock: SystemClock::new(), calls, _folder: folder }
    }

    async fn floor(&self) {
        let mut store = wasmtime::Store::new(self.host.runtime().engine(), Bare::default());
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        let instance = self.floor.instantiate_async(&mut store).await.unwrap();
        let echo = instance.get_typed_func::<(&str,), (String,)>(&mut store, &self.function).unwrap();
        let (said,) = echo.call_async(&mut store, ("hello",)).await.unwrap();
        assert_eq!(said, "hello");
    }

    async fn ours(&self, tool: &str, input: &Value) {
        let outcome = self.host.invoke(&self.caller, &self.skill, Some(tool), input).await.unwrap();
        assert!(matches!(outcome.end, End::Value(Value::String(said)) if said == "hello"));
    }

    /// What egress does for each request with a credential: decide, read and decrypt, note, render.
    async fn release(&self, effective: &Effective, target: &Target) {
        let service = "api".parse().unwrap();
        let permit = effective.permit_inject(&service, target, None, None, self.clock.now()).unwrap();
        let event = Event {
            client: Some(self.caller.client.clone()),
            user: Some(self.caller.user.clone()),
            skill: Some(self.skill.clone()),
            service: Some(permit.service().clone()),
            provider: Some(permit.provider().clone()),
            scopes: permit.scopes().iter().cloned().collect(),
            rule: Some(permit.rule().to_string()),
            policy_hash: Some(*permit.policy_hash()),
            origin: Some(target.origin().to_string()),
            method: Some("GET".to_owned()),
            ..Event::new(EventKind::Released)
        };
        let released = self.host.broker().release(&permit, self.connection, event).await.unwrap();
        let mut value =
            http::HeaderValue::from_str(&["Bearer ", released.token.expose()].concat()).expect("a token is ASCII");
        value.set_sensitive(true);
        std::hint::black_box(value);
    }

    /// The times of rounds in which floor, a call, a call with a token, and a release take turns.
    async fn rounds(&self) -> Vec<Round> {
        let plain = json!({ "text": "hello" });
        let with_token = json!({ "service": "api", "text": "hello" });
        let ready = self.host.ready(&self.skill).await.unwrap();
        let effective = self.host.effective(&ready, &self.caller);
        let uri: http::Uri = "https://api.acme.example/v1/items".parse().unwrap();
        let target = Target::parse(&http::Method::GET, &uri).unwrap();
        let mut rounds = Vec::with_capacity(self.calls);
        for _ in 0..self.calls {
            let start = self.clock.monotonic();
            self.floor().await;
            let first = self.clock.monotonic();
            self.ours("echo", &plain).await;
            let second = self.clock.monotonic();
            self.ours("echo-with-token", &with_token).await;
            let third = self.clock.monotonic();
            self.release(&effective, &target).await;
            let fourth = self.clock.monotonic();
            let us = |from: Duration, to: Duration| to.saturating_sub(from).as_secs_f64() * 1e6;
            rounds.push(Round {
                floor: us(start, first),
                ours: us(first, second),
                with_token: us(second, third),
                release: us(third, fourth),
            });
        }
        rounds
    }

    /// Calls per second on this many threads, each with an event loop of its own.
    fn rate(&self, threads: usize, ours: bool, time: Duration) -> f64 {
        let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
        let start = self.clock.monotonic();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let input = json!({ "text": "hello" });
                    event_loop().block_on(async {
                        while !stop.load(Ordering::Relaxed) {
                            if ours {
                                self.ours("echo", &input).await;
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
        let ratios = (0..rounds)
            .map(|_| {
                let floor = self.rate(2, false, time) / self.rate(1, false, time);
                let ours = self.rate(2, true, time) / self.rate(1, true, time);
                ours / floor
            })
            .collect();
        median(ratios)
    }
}

/// Microseconds, of what was done one after the other, so that they can be compared although the machine is faster at times.
struct Round {
    floor: f64,
    ours: f64,
    with_token: f64,
    release: f64,
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
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
    let _warm = event_loop.block_on(bench.rounds());
    let timed = event_loop.block_on(bench.rounds());
    let p50 = |figure: fn(&Round) -> f64| median(timed.iter().map(figure).collect());
    summary.tell("floor_us_p50", p50(|round| round.floor));
    summary.tell("invoke_us_p50", p50(|round| round.ours));
    summary.add("invoke_over_floor_p50", p50(|round| round.ours / round.floor), Reach::AtMost(1.5));
    summary.add("get_token_added_us_p50", p50(|round| round.with_token - round.ours), Reach::AtMost(3.0));
    summary.add("release_us_p50", p50(|round| round.release), Reach::AtMost(5.0));
    summary.tell("release_over_floor_p50", p50(|round| round.release / round.floor));
    summary.add("threads2_vs_floor", bench.second_thread(rounds, time), Reach::AtLeast(0.95));

    if measures {
        summary.print();
        summary.write(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench/summary.json"));
    }
}
