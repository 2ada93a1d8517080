//! Lines of the log for people.

use std::fmt;

use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::serve::RequestId;

/// As the library writes them, with the id of the request at the end where nothing else says it.
pub(super) struct Lines(Format);

impl Lines {
    pub(super) fn new(colors: bool) -> Self {
        Self(Format::default().with_ansi(colors))
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, scope: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::new();
        self.0.format_event(scope, Writer::new(&mut line), event)?;
        // A field of the event's own, or of a span that the line names.
        match RequestId::current().filter(|id| !line.contains(id.as_str())) {
            Some(id) => writeln!(writer, "{} request_id={}", line.trim_end_matches('\n'), id.as_str()),
            None => writer.write_str(&line),
        }
    }
}
