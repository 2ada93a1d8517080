//! `clawcoil serve` under load: many clients, beside `wasmtime serve`, with thousands of open streams, and with clients that are slow.
//!
//! Everything runs on this machine: the server on its own core where it is compared, so that the figure is a ratio of two
//! servers and not of two machines.

mod awake;
mod clients;
mod servers;
mod streams;

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use crate::run::{command, root, run, step};
use clients::{Clients, Slow};
use servers::{Judge, Serve};

/// Clients that call at the same time.
const CLIENTS: usize = 64;
/// How long they do.
const LONG: Duration = Duration::from_mins(1);
/// How long calls are made beside streams and slow clients.
const WHILE: Duration = Duration::from_secs(10);
/// One turn of a comparison. What others on the same machine take, they take from both turns of a pair, if turns are short. The figure is the
/// median of the pairs' ratios, not the ratio of the medians that are printed.
const TURN: Duration = Duration::from_secs(3);
const TURNS: usize = 16;
/// Between turns: what a server still does for the last one is done by then, as the log that is synced within a second.
const PAUSE: Duration = Duration::from_millis(1500);
/// What the comparison is to reach.
const RATIO: f64 = 2.0;
/// Streams of each kind, and what the server may have in memory while it holds them.
const STREAMS: usize = 1000;
const MEMORY: u64 = 300 << 20;
/// Clients that send half a request and wait.
const SLOW: usize = 1000;
/// The longest that one in a hundred calls may take beside them.
const PATIENCE: Duration = Duration::from_secs(1);

/// Measures, prints, writes `target/prove/load.json`; an error where a figure does not hold.
pub(super) fn prove() -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    ensure!(cores >= 2, "two cores are needed: one for the server, one for its clients");
    step("the judge, wasmtime serve");
    let judge = servers::judge()?;
    step("clawcoil, optimised");
    run(&mut command("cargo", &["build", "--release", "--workspace", "--bin", "clawcoil"]))?;

    let mut figures = Figures::default();
    step("64 clients for a minute, all cores");
    let serve = Serve::start(None)?;
    let calls = serve.calls(CLIENTS);
    calls.run(Duration::from_secs(2))?;
    let long = calls.run(LONG)?;
    figures.add("errors", count(long.errors), long.errors == 0 && long.answers > 0);
    figures.tell("calls_per_second", long.per_second());
    figures.tell("p50_ms", milliseconds(long.quantile(0.5)));
    figures.tell("p99_ms", milliseconds(long.quantile(0.99)));
    drop(serve);

    step("beside wasmtime serve, each on one core");
    let pairs = compare(&judge)?;
    let of = |figure: fn(&(f64, f64)) -> f64| median(pairs.iter().map(figure).collect());
    let ratio = of(|(ours, theirs)| ours / theirs);
    figures.tell("serve_per_second_one_core", of(|(ours, _)| *ours));
    figures.tell("wasmtime_serve_per_second_one_core", of(|(_, theirs)| *theirs));
    figures.add("http_over_wasmtime_serve", ratio, ratio >= RATIO);

    step("a thousand streams of each kind");
    let serve = Serve::start(None)?;
    let before = serve.memory()?;
    let open = streams::open(&serve, STREAMS)?;
    let calls = serve.calls(CLIENTS);
    let beside = calls.run(WHILE)?;
    let open = open.alive().context("a stream did not stay open")?;
    let held = serve.memory()?;
    figures.tell("memory_before_mib", mebibytes(before));
    figures.add("memory_with_streams_mib", mebibytes(held), held <= MEMORY);
    figures.add("errors_beside_streams", count(beside.errors), beside.errors == 0 && beside.answers > 0);
    drop(open);
    drop(serve);

    step("a thousand slow clients");
    let serve = Serve::start(None)?;
    let slow = Slow::open(serve.address(), SLOW)?;
    let beside = serve.calls(CLIENTS).run(WHILE)?;
    figures.add("errors_beside_slow_clients", count(beside.errors), beside.errors == 0 && beside.answers > 0);
    let p99 = beside.quantile(0.99);
    figures.add("p99_ms_beside_slow_clients", milliseconds(p99), p99 <= PATIENCE);
    drop(slow);
    figures.finish()
}

/// Calls a second of ours and of theirs, in turns that follow each other.
fn compare(judge: &Judge) -> Result<Vec<(f64, f64)>> {
    servers::this_process_on(1)?;
    let pairs = (|| {
        let (serve, judge) = (Serve::start(Some(0))?, judge.start(0)?);
        let (our_calls, their_calls) = (serve.calls(CLIENTS), judge.calls(CLIENTS));
        for calls in [&our_calls, &their_calls] {
            calls.run_awake(Duration::from_secs(2))?;
        }
        let turn_of = |calls: &Clients| {
            std::thread::sleep(PAUSE);
            calls.run_awake(TURN).map(|run| run.per_second())
        };
        (0..TURNS)
            .map(|turn| {
                // Neither is always the first.
                if turn % 2 == 0 {
                    return Ok((turn_of(&our_calls)?, turn_of(&their_calls)?));
                }
                let theirs = turn_of(&their_calls)?;
                Ok((turn_of(&our_calls)?, theirs))
            })
            .collect()
    })();
    servers::this_process_everywhere()?;
    pairs
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[expect(clippy::cast_precision_loss, reason = "there are less than 2^52 calls")]
fn count(of: u64) -> f64 {
    of as f64
}

#[expect(clippy::cast_precision_loss, reason = "memory is less than 2^52 bytes")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// What was measured, and whether it holds.
#[derive(Default)]
struct Figures(Vec<(&'static str, f64, Option<bool>)>);

impl Figures {
    fn add(&mut self, name: &'static str, value: f64, holds: bool) {
        self.put(name, value, Some(holds));
    }

    /// A figure that nothing is asked of.
    fn tell(&mut self, name: &'static str, value: f64) {
        self.put(name, value, None);
    }

    fn put(&mut self, name: &'static str, value: f64, holds: Option<bool>) {
        let verdict = holds.map_or("", |holds| if holds { "holds" } else { "DOES NOT HOLD" });
        println!("{name:<36} {value:>12.2}  {verdict}");
        self.0.push((name, value, holds));
    }

    fn finish(self) -> Result<()> {
        let folder = root().join("target/prove");
        fs::create_dir_all(&folder)?;
        let all: serde_json::Map<_, _> = self
            .0
            .iter()
            .map(|(name, value, holds)| ((*name).to_owned(), json!({ "value": value, "holds": holds })))
            .collect();
        let path = folder.join("load.json");
        fs::write(&path, format!("{:#}\n", serde_json::Value::Object(all)))
            .with_context(|| format!("{} could not be written", path.display()))?;
        let short: Vec<_> = self.0.iter().filter(|(.., holds)| *holds == Some(false)).map(|(name, ..)| *name).collect();
        if !short.is_empty() {
            bail!("not reached: {}", short.join(", "));
        }
        Ok(())
    }
}
