//! What the command says of its inside, on stderr: as text for people, as JSON for programs that collect it.
//!
//! Both pass through [`redact`], a second net behind the types of secrets. What is traced to a collector besides has no lines.

mod json;
mod redact;

use std::io::IsTerminal as _;

use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

use crate::serve::{ACCESS_OFF, ACCESS_ON, Traces};
use crate::settings::Settings;
use json::Lines;
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
    begin(settings, settings.log.as_deref(), None);
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
    begin(settings, Some(&filter), traces);
}

fn begin(settings: &Settings, filter: Option<&str>, traces: Option<&Traces>) {
    if filter.is_none() && traces.is_none() {
        return;
    }
    let filter = || filter.map_or_else(|| EnvFilter::new("off"), EnvFilter::new);
    let writer = || {
        if settings.log_unredacted { BoxMakeWriter::new(std::io::stderr) } else { BoxMakeWriter::new(Redacting) }
    };
    let colors = settings.color && std::io::stderr().is_terminal();
    let json = settings.log_format == Format::Json;
    // What can't be logged because nobody reads it any more is no reason to fail.
    let text = (!json)
        .then(|| fmt::layer().log_internal_errors(false).with_ansi(colors).with_writer(writer()).with_filter(filter()));
    let json = json.then(|| {
        let lines = fmt::layer().log_internal_errors(false).with_ansi(false).with_writer(writer());
        lines.fmt_fields(JsonFields::new()).event_format(Lines).with_filter(filter())
    });
    // Somebody else's subscriber is as good.
    let _ = tracing_subscriber::registry().with(traces.map(Traces::layer)).with(text).with(json).try_init();
}
