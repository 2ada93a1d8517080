//! What the command says of its inside, on stderr: as text for people, as JSON for programs that collect it.
//!
//! Both pass through [`redact`], a second net behind the types of secrets. What is traced to a collector besides has no lines.

mod json;
mod redact;
mod text;

use std::io::IsTerminal as _;

use tracing_subscriber::filter::{FilterExt as _, LevelFilter, filter_fn};
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::{Filter, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use crate::serve::{ACCESS_OFF, ACCESS_ON, Traces};
use crate::settings::Settings;
use redact::Redacting;

/// What a server says where nobody chooses.
const SERVING: &str = "warn,clawcoil=info";

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Begins to log, once in a process: what the settings choose, else nothing.
pub(crate) fn start(settings: &Settings) {
    begin(settings, settings.log.as_deref(), true, None);
}

/// Begins to log, once in a process, for a server: what the settings choose, else what servers say, and a line for each request where
/// that is asked for.
pub(crate) fn start_serving(settings: &Settings, requests: bool, traces: Option<&Traces>) {
    let filter = match (&settings.log, requests) {
        (Some(chosen), true) => format!("{chosen},{ACCESS_ON}"),
        (Some(chosen), false) => chosen.clone(),
        (None, true) => format!("{SERVING},{ACCESS_ON}"),
        (None, false) => format!("{SERVING},{ACCESS_OFF}"),
    };
    // Each call is within spans, and what they say is written down for each whether a line comes of it or not. Who chooses what is
    // said wants them; else a line is found by the id of its request.
    begin(settings, Some(&filter), settings.log.is_some(), traces);
}

fn begin(settings: &Settings, filter: Option<&str>, spans: bool, traces: Option<&Traces>) {
    if filter.is_none() && traces.is_none() {
        return;
    }
    let writer = || {
        if settings.log_unredacted { BoxMakeWriter::new(std::io::stderr) } else { BoxMakeWriter::new(Redacting) }
    };
    let colors = settings.color && std::io::stderr().is_terminal();
    let json = settings.log_format == Format::Json;
    // Only those that there are: one that is absent counts as one that wants everything. What can't be logged because nobody reads it
    // any more is no reason to fail.
    let mut layers: Vec<Box<dyn Layer<Registry> + Send + Sync>> = Vec::new();
    layers.extend(traces.map(|traces| traces.layer().boxed()));
    let lines = fmt::layer().log_internal_errors(false);
    let chosen = chosen(filter, spans);
    if json {
        let lines = lines.with_ansi(false).with_writer(writer()).fmt_fields(JsonFields::new());
        layers.push(lines.event_format(json::Lines).with_filter(chosen).boxed());
    } else {
        let lines = lines.with_ansi(colors).with_writer(writer()).event_format(text::Lines::new(colors));
        layers.push(lines.with_filter(chosen).boxed());
    }
    // Somebody else's subscriber is as good.
    let _ = tracing_subscriber::registry().with(layers).try_init();
}

/// Lets through what this names, and spans only where they are wanted.
fn chosen<S>(filter: Option<&str>, spans: bool) -> impl Filter<S> + use<S> {
    let lines = filter.map_or_else(|| EnvFilter::new("off"), EnvFilter::new);
    lines.and(filter_fn(move |of| spans || !of.is_span()).with_max_level_hint(LevelFilter::TRACE))
}
