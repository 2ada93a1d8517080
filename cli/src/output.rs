//! What people and programs read: text or one JSON document on stdout, progress and questions on stderr.

use std::fmt::Display;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

use crate::exit::{Code, Failure};
use crate::settings::Settings;

/// The version of all JSON that the command prints. It changes when something is renamed, removed or means something else;
/// programs must accept keys that are new to them.
const VERSION: u64 = 1;

/// The largest secret or JSON input that is read from stdin.
const MAX_INPUT: u64 = 4 << 20;

/// How this run talks.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    json: bool,
    color: bool,
    interactive: bool,
}

impl Output {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self { json: settings.json, color: settings.color, interactive: settings.interactive }
    }

    /// Whether somebody can be asked.
    pub(crate) fn interactive(&self) -> bool {
        self.interactive && !self.json
    }

    /// Whether one JSON document is wanted.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// The command's answer: for programs the object, with the version first; for people the text.
    pub(crate) fn answer(&self, object: Value, text: impl FnOnce() -> String) -> Result<(), Failure> {
        if self.json { document(object) } else { self.text(text()) }
    }

    /// For people only: a line or more on stdout.
    pub(crate) fn text(&self, text: impl Display) -> Result<(), Failure> {
        if self.json {
            return Ok(());
        }
        write(text.to_string().trim_end())
    }

    /// How the command failed: always in words on stderr, and for programs as an object.
    pub(crate) fn failure(&self, failure: &Failure) {
        let text = failure.to_string();
        // Errors in files have a heading of their own.
        let heading = if text.starts_with("error: ") { "" } else { "error: " };
        say(&format!("{}{text}", self.styled_at(&io::stderr(), "31;1", heading)));
        if self.json {
            // stdout may be what failed; there is nobody left to tell.
            let _ = document(json!({ "error": failure.to_json() }));
        }
    }

    /// A line on stderr.
    #[expect(clippy::unused_self, reason = "everything that is said goes through this type")]
    pub(crate) fn note(&self, text: impl Display) {
        say(&text.to_string());
    }

    /// Text for stdout in a terminal style (an SGR parameter), where colours are wanted.
    pub(crate) fn styled(&self, style: &str, text: &str) -> String {
        self.styled_at(&io::stdout(), style, text)
    }

    fn styled_at(&self, place: &impl io::IsTerminal, style: &str, text: &str) -> String {
        if self.color && !text.is_empty() && place.is_terminal() {
            format!("\x1b[{style}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// Shows at a terminal that something takes long; it goes when it is dropped.
    #[expect(clippy::unused_self, reason = "everything that is said goes through this type")]
    pub(crate) fn progress(&self, what: &str) -> Progress {
        if !io::stderr().is_terminal() {
            return Progress(None);
        }
        let bar = ProgressBar::new_spinner().with_message(what.to_owned());
        bar.set_style(ProgressStyle::default_spinner().tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ "));
        bar.enable_steady_tick(Duration::from_millis(100));
        Progress(Some(bar))
    }

    /// Asks a yes-or-no question; no terminal, no question: an error that names the flag which answers it.
    pub(crate) async fn confirm(&self, question: &str, flag: &str) -> Result<bool, Failure> {
        if !self.interactive() {
            return Err(Failure::usage(format!("{question} There is no terminal to ask at: say {flag}")));
        }
        let question = question.to_owned();
        blocking(move || {
            write!(io::stderr(), "{question} [y/N] ")?;
            io::stderr().flush()?;
            let mut answer = String::new();
            if io::stdin().lock().read_line(&mut answer)? == 0 {
                // Whoever has closed the input will never answer.
                return Err(io::Error::from(io::ErrorKind::Interrupted));
            }
            Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
        })
        .await
    }

    /// A secret: typed unseen at a terminal, or all of stdin without its last line end.
    pub(crate) async fn secret(&self, what: &str) -> Result<String, Failure> {
        let what = what.to_owned();
        let interactive = self.interactive;
        let secret = blocking(move || {
            if interactive {
                return rpassword::prompt_password(format!("{what}: "));
            }
            let mut text = String::new();
            io::stdin().lock().take(MAX_INPUT).read_to_string(&mut text)?;
            Ok(text.trim_end_matches(['\r', '\n']).to_owned())
        })
        .await?;
        if secret.is_empty() {
            return Err(Failure::usage("the secret is empty: give it on stdin, or type it at the prompt"));
        }
        Ok(secret)
    }
}

/// All of stdin, for input that is no secret.
pub(crate) async fn read_stdin() -> Result<String, Failure> {
    blocking(|| {
        let mut text = String::new();
        io::stdin().lock().take(MAX_INPUT).read_to_string(&mut text)?;
        Ok(text)
    })
    .await
}

/// Waiting for a person must not hold up a thread that others need.
async fn blocking<T: Send + 'static>(ask: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, Failure> {
    let asked = tokio::task::spawn_blocking(ask).await.map_err(io::Error::other);
    asked.flatten().map_err(|error| match error.kind() {
        io::ErrorKind::Interrupted => Failure::new(Code::Interrupted, "interrupted"),
        _ => Failure::error(format!("stdin could not be read: {error}")),
    })
}

/// One JSON document, with the version first.
fn document(object: Value) -> Result<(), Failure> {
    let mut document = Map::from_iter([("version".to_owned(), json!(VERSION))]);
    if let Value::Object(object) = object {
        document.extend(object);
    }
    write(&format!("{:#}", Value::Object(document)))
}

/// For programs: that the arguments were not understood, which people were told already.
pub(crate) fn misuse(error: &clap::Error) {
    let text = error.render().to_string();
    let failure = Failure::usage(text.strip_prefix("error: ").unwrap_or(&text).trim_end());
    // stdout may be what failed; there is nobody left to tell.
    let _ = document(json!({ "error": failure.to_json() }));
}

/// A line on stderr. Nobody is left to tell if stderr is closed.
fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Writes to stdout; that the reader has gone (`clawcoil … | head`) ends the command quietly.
pub(crate) fn write(text: &str) -> Result<(), Failure> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::reader_gone()),
        Err(error) => Err(Failure::error(format!("stdout could not be written: {error}"))),
        Ok(()) => Ok(()),
    }
}

/// Something that takes long.
#[derive(Debug)]
pub(crate) struct Progress(Option<ProgressBar>);

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// Columns, aligned; the first row is the heading.
#[derive(Debug)]
pub(crate) struct Table(Vec<Vec<String>>);

impl Table {
    pub(crate) fn new(heading: &[&str]) -> Self {
        Self(vec![heading.iter().map(|&cell| cell.to_uppercase()).collect()])
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.0.push(cells.into_iter().map(|cell| printable(&cell)).collect());
    }

    pub(crate) fn render(&self) -> String {
        let width = |column: usize| self.0.iter().filter_map(|row| Some(row.get(column)?.chars().count())).max();
        let mut text = String::new();
        for row in &self.0 {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let fill = width(column).unwrap_or(0).saturating_sub(cell.chars().count()) + 2;
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', fill));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Each item as text.
pub(crate) fn texts<T: ToString>(items: impl IntoIterator<Item = T>) -> Vec<String> {
    items.into_iter().map(|item| item.to_string()).collect()
}

/// Text of others (skills, providers, files) without what a terminal would obey.
pub(crate) fn printable(text: &str) -> String {
    let obeyed = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if obeyed(c) { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_its_lines_end_without_spaces() {
        let mut table = Table::new(&["skill", "version"]);
        table.row(["gmail-send".to_owned(), "0.1.0".to_owned()]);
        table.row(["é".to_owned(), String::new()]);
        assert_eq!(table.render(), "SKILL       VERSION\ngmail-send  0.1.0\né\n");
    }

    #[test]
    fn text_of_others_cannot_steer_the_terminal() {
        assert_eq!(printable("a\x1b[31mb\u{202e}c\r\n"), "a\u{fffd}[31mb\u{fffd}c\u{fffd}\u{fffd}");
    }
}
