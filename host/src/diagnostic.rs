//! Errors of a file that people write, each with its place and the way out.
//!
//! A file is read through [`Table`], which goes on after an error, so that a person sees all errors of a file at once. What
//! comes out is [`Diagnostics`]: it prints like a compiler's errors, sorted by place.
//!
//! ```
//! use clawcoil::diagnostic::{Source, Table};
//!
//! let source = Source::new("colours.toml", "name = 7\ncolor = \"red\"\n");
//! let read = Table::read(&source, |root| {
//!     let name = root.string("name");
//!     let colour = root.opt_string("colour");
//!     Some((name?, colour))
//! });
//! let text = read.unwrap_err().to_string();
//! assert!(text.contains("colours.toml:1:8"));
//! assert!(text.contains("did you mean `colour`?"));
//! ```

use std::cmp::Reverse;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use annotate_snippets::renderer::DEFAULT_TERM_WIDTH;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

mod table;
mod units;

pub use table::{Located, Table};
pub use units::{InvalidUnit, parse_bytes, parse_duration};

/// The largest file that is read. People write these files; more is a mistake or an attack.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// So many errors are shown of one file; the rest is counted.
const MAX_SHOWN: usize = 50;

/// The text of a file, and its name as it is shown to people. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Source(Arc<SourceText>);

#[derive(PartialEq, Eq)]
struct SourceText {
    name: Arc<str>,
    text: String,
    line_starts: Vec<usize>,
}

impl Source {
    /// A file's text under the name that is shown in errors.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self(Arc::new(SourceText { name: printable(&name.into()).into(), text, line_starts }))
    }

    /// Takes a file's bytes.
    ///
    /// # Errors
    ///
    /// More than [`MAX_FILE_BYTES`], or not UTF-8: the error shows the first bad place.
    pub fn from_bytes(name: impl Into<String>, bytes: Vec<u8>) -> Result<Self, Diagnostics> {
        let name = name.into();
        if bytes.len() > MAX_FILE_BYTES {
            let message = format!("the file is larger than {MAX_FILE_BYTES} bytes");
            return Err(Diagnostics::one(&Self::new(name, ""), Diagnostic::new(0..0, message)));
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Self::new(name, text)),
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                let source = Self::new(name, String::from_utf8_lossy(error.as_bytes()));
                let diagnostic = Diagnostic::new(at..at + 1, "the file is not UTF-8 text")
                    .label("the first byte that is not")
                    .help("save the file with the encoding UTF-8");
                Err(Diagnostics::one(&source, diagnostic))
            }
        }
    }

    /// Reads a file; it is shown under the path as given.
    ///
    /// # Errors
    ///
    /// The file can't be read, or [`Source::from_bytes`] refuses it.
    pub fn open(path: &Path) -> Result<Self, Diagnostics> {
        use std::io::Read as _;

        let name = path.display().to_string();
        let mut bytes = Vec::new();
        let limit = MAX_FILE_BYTES as u64 + 1;
        match std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)) {
            Ok(_) => Self::from_bytes(name, bytes),
            Err(error) => {
                let diagnostic = Diagnostic::new(0..0, format!("the file can't be read: {error}"));
                Err(Diagnostics::one(&Self::new(name, ""), diagnostic))
            }
        }
    }

    /// The name as shown.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// The line in which a byte stands.
    pub fn line(&self, offset: usize) -> Line {
        Line { file: Arc::clone(&self.0.name), line: self.0.line_starts.partition_point(|&start| start <= offset) }
    }

    /// The nearest range that can be shown: inside the text, whole characters, at least one where there is one.
    fn shown(&self, span: &Range<usize>) -> Range<usize> {
        let text = self.text();
        let start = text.floor_char_boundary(span.start.min(text.len()));
        let end = text.ceil_char_boundary(span.end.clamp(start, text.len()));
        start..end
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Source").field(&self.name()).finish()
    }
}

/// The place of a rule: a file and a line, counted from one. Shown as `permissions.toml:12`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Line {
    file: Arc<str>,
    line: usize,
}

impl Line {
    /// The file, as it is shown.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The line, counted from one.
    pub fn number(&self) -> usize {
        self.line
    }

    /// The same place for someone whom the folders on this machine are no business of.
    #[must_use]
    pub fn without_folders(&self) -> Self {
        Self { file: self.file.rsplit('/').next().unwrap_or_default().into(), line: self.line }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// One error at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    span: Range<usize>,
    message: String,
    label: String,
    related: Option<(Range<usize>, String)>,
    help: Option<String>,
    warning: bool,
}

impl Diagnostic {
    /// An error at these bytes of the file. The message says what is wrong in one sentence without a full stop.
    pub fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span, message: message.into(), label: String::new(), related: None, help: None, warning: false }
    }

    /// Words that stand beside the caret.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// A second place in the same file that explains the first.
    #[must_use]
    pub fn related(mut self, span: Range<usize>, label: impl Into<String>) -> Self {
        self.related = Some((span, label.into()));
        self
    }

    /// The way out. May have several lines.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Makes it a warning: what is likely a mistake, and hinders nothing.
    #[must_use]
    pub fn warning(mut self) -> Self {
        self.warning = true;
        self
    }

    /// What is wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    fn render(&self, source: &Source) -> String {
        let level = if self.warning { Level::WARNING } else { Level::ERROR };
        let title = level.primary_title(printable(&self.message));
        let mut group = if source.text().is_empty() {
            // Without a text there is no place to point at; the name of the file still belongs to the error.
            title.element(annotate_snippets::Origin::path(source.name()))
        } else {
            let label = Some(printable(&self.label)).filter(|label| !label.is_empty());
            let primary = AnnotationKind::Primary.span(source.shown(&self.span)).label(label);
            let related = self
                .related
                .as_ref()
                .map(|(span, label)| AnnotationKind::Context.span(source.shown(span)).label(Some(printable(label))));
            let snippet = Snippet::source(source.text()).path(source.name());
            title.element(snippet.annotation(primary).annotations(related))
        };
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(printable(help)));
        }
        Renderer::plain().term_width(DEFAULT_TERM_WIDTH).render(&[group])
    }
}

/// Texts from a file go to a terminal: control and direction-changing characters are shown, not obeyed.
fn printable(text: &str) -> String {
    let hostile = |c: char| {
        c.is_control() && c != '\n'
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if hostile(c) { shown.extend(c.escape_unicode()) } else { shown.push(c) }
    }
    shown
}

/// All errors of one file, or of several; never empty.
#[derive(Clone, PartialEq, Eq)]
pub struct Diagnostics(Vec<(Source, Diagnostic)>);

impl Diagnostics {
    /// A single error.
    pub fn one(source: &Source, diagnostic: Diagnostic) -> Self {
        Self(vec![(source.clone(), diagnostic)])
    }

    /// The errors of a file, `None` if there are none.
    pub fn of(source: &Source, mut found: Vec<Diagnostic>) -> Option<Self> {
        // The outer of two errors that begin at one place comes first.
        found.sort_by_key(|diagnostic| (diagnostic.span.start, Reverse(diagnostic.span.end)));
        found.dedup();
        (!found.is_empty()).then(|| Self(found.into_iter().map(|diagnostic| (source.clone(), diagnostic)).collect()))
    }

    /// Adds the errors of another file after these.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// The errors, and the warnings.
    #[must_use]
    pub fn by_severity(self) -> (Option<Self>, Option<Self>) {
        let (warnings, errors): (Vec<_>, Vec<_>) = self.0.into_iter().partition(|(_, diagnostic)| diagnostic.warning);
        let some = |found: Vec<_>| (!found.is_empty()).then_some(Self(found));
        (some(errors), some(warnings))
    }

    /// How many there are.
    #[expect(clippy::len_without_is_empty, reason = "there is always at least one")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Each error with its line.
    pub fn iter(&self) -> impl Iterator<Item = (Line, &Diagnostic)> {
        self.0.iter().map(|(source, diagnostic)| (source.line(diagnostic.span.start), diagnostic))
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (source, diagnostic)) in self.0.iter().take(MAX_SHOWN).enumerate() {
            let separator = if index == 0 { "" } else { "\n\n" };
            write!(f, "{separator}{}", diagnostic.render(source))?;
        }
        match self.0.len().checked_sub(MAX_SHOWN) {
            None | Some(0) => Ok(()),
            Some(more) => write!(f, "\n\nand {more} more"),
        }
    }
}

impl fmt::Debug for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Diagnostics {}

/// The nearest of the known words, if it is near enough to be what was meant.
pub fn did_you_mean<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let near = |candidate: &str| word.len().max(candidate.len()) / 3;
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word.to_ascii_lowercase(), candidate), candidate))
        .filter(|(distance, candidate)| *distance <= near(candidate).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_is_counted_from_one() {
        let source = Source::new("f.toml", "a\nb\n\nc");
        let lines: Vec<_> = [0, 1, 2, 4, 5, 99].map(|at| source.line(at).number()).into();
        assert_eq!(lines, [1, 1, 2, 3, 4, 4]);
        assert_eq!(source.line(2).to_string(), "f.toml:2");
    }

    #[test]
    fn errors_are_shown_by_place_and_never_more_than_a_screenful() {
        let source = Source::new("f.toml", "abc\n".repeat(100));
        let found =
            (0..100).rev().map(|line| Diagnostic::new(line * 4..line * 4 + 3, format!("bad {line}."))).collect();
        let text = Diagnostics::of(&source, found).unwrap().to_string();
        assert!(text.find("bad 1.").unwrap() < text.find("bad 2.").unwrap());
        assert!(text.ends_with("and 50 more"));
    }

    #[test]
    fn a_file_that_is_no_text_or_too_large_is_an_error_with_its_name() {
        let error = Source::from_bytes("f.toml", b"name = \"\xff\"".to_vec()).unwrap_err().to_string();
        assert!(error.contains("f.toml:1:9") && error.contains("UTF-8"), "{error}");
        let error = Source::from_bytes("f.toml", vec![b' '; MAX_FILE_BYTES + 1]).unwrap_err().to_string();
        assert!(error.contains("f.toml") && error.contains("larger"), "{error}");
        let error = Source::open(Path::new("/no/such/file.toml")).unwrap_err().to_string();
        assert!(error.contains("/no/such/file.toml"), "{error}");
    }

    #[test]
    fn a_near_word_is_offered_and_a_far_one_is_not() {
        assert_eq!(did_you_mean("scope", ["scopes", "service"]), Some("scopes"));
        assert_eq!(did_you_mean("Orgin", ["origin", "methods"]), Some("origin"));
        assert_eq!(did_you_mean("colour", ["scopes", "service"]), None);
    }

    proptest! {
        #[test]
        fn any_text_and_any_span_can_be_shown_and_nothing_in_it_reaches_the_terminal_raw(
            text in "[\\x00-\\x7f\u{e9}\u{202e}\u{1f600}\r\n\t]{0,60}", start in 0_usize..300, length in 0_usize..300,
            related in 0_usize..300,
        ) {
            let source = Source::new("f\u{1b}[2J", &*text);
            let diagnostic = Diagnostic::new(start..start + length, &*text).label(&*text).help(&*text).related(related..related, &*text);
            let shown = Diagnostics::one(&source, diagnostic).to_string();
            prop_assert!(!shown.contains(|c: char| c.is_control() && c != '\n' || c == '\u{202e}'), "{:?}", shown);
        }
    }
}
