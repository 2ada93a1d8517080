//! The second net: what looks like a secret is taken out of each line before it is written.
//!
//! The first net is that secrets are types which can't be printed. This one is for what slips through, most of all through
//! libraries that know nothing of those types. It knows secrets by their look: by how tokens of well-known providers begin, and
//! by the names that stand before them.

use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, Input, MatchKind};
use tracing_subscriber::fmt::MakeWriter;

/// What stands in place of a secret.
const BLOT: &str = "[redacted]";

/// How a secret is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// It begins so, and goes on for at least so many characters.
    Begins(usize),
    /// This stands before it, with a space.
    Scheme,
    /// It is the value of this name, with `=` or `:` between.
    Name,
    /// It is the value of this parameter of an address.
    Parameter,
    /// It begins so, and goes on to the end of the key.
    Key,
}

/// By what secrets are known, whatever the case.
const SIGNS: &[(&str, Sign)] = &[
    ("claw_", Sign::Begins(16)),
    ("ghp_", Sign::Begins(16)),
    ("gho_", Sign::Begins(16)),
    ("ghu_", Sign::Begins(16)),
    ("ghs_", Sign::Begins(16)),
    ("ghr_", Sign::Begins(16)),
    ("github_pat_", Sign::Begins(16)),
    ("glpat-", Sign::Begins(12)),
    ("xoxb-", Sign::Begins(12)),
    ("xoxp-", Sign::Begins(12)),
    ("xoxa-", Sign::Begins(12)),
    ("xoxe", Sign::Begins(16)),
    ("xapp-", Sign::Begins(12)),
    ("ya29.", Sign::Begins(12)),
    ("sk_live_", Sign::Begins(12)),
    ("rk_live_", Sign::Begins(12)),
    // The beginning of `{"` in base64: a JWT, or another token with a header.
    ("eyJ", Sign::Begins(24)),
    ("AGE-SECRET-KEY-1", Sign::Begins(16)),
    ("bearer ", Sign::Scheme),
    ("basic ", Sign::Scheme),
    ("dpop ", Sign::Scheme),
    ("access_token", Sign::Name),
    ("refresh_token", Sign::Name),
    ("id_token", Sign::Name),
    ("client_secret", Sign::Name),
    ("code_verifier", Sign::Name),
    ("client_assertion", Sign::Name),
    ("assertion", Sign::Name),
    ("api_key", Sign::Name),
    ("apikey", Sign::Name),
    ("password", Sign::Name),
    ("authorization", Sign::Name),
    ("cookie", Sign::Name),
    ("?code=", Sign::Parameter),
    ("&code=", Sign::Parameter),
    ("?state=", Sign::Parameter),
    ("&state=", Sign::Parameter),
    ("?token=", Sign::Parameter),
    ("&token=", Sign::Parameter),
    ("PRIVATE KEY-----", Sign::Key),
];

static FINDER: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| {
    let words = SIGNS.iter().map(|(word, _)| word);
    AhoCorasick::builder().ascii_case_insensitive(true).match_kind(MatchKind::LeftmostLongest).build(words).ok()
});

/// The text without what looks like a secret.
pub(super) fn redact(text: &str) -> Cow<'_, str> {
    // These few words always make an automaton. Without one nothing could be told from a secret.
    let Some(finder) = FINDER.as_ref() else { return Cow::Borrowed(BLOT) };
    let mut out = String::new();
    let (mut copied, mut at) = (0, 0);
    while let Some(found) = finder.find(Input::new(text).range(at..)) {
        at = found.end();
        let Some((_, sign)) = SIGNS.get(found.pattern().as_usize()) else { continue };
        if let Some((begin, end)) = secret(*sign, text, found.start(), found.end()) {
            out.push_str(text.get(copied..begin).unwrap_or_default());
            out.push_str(BLOT);
            (copied, at) = (end, end);
        }
    }
    if copied == 0 && out.is_empty() {
        return Cow::Borrowed(text);
    }
    out.push_str(text.get(copied..).unwrap_or_default());
    Cow::Owned(out)
}

/// Where the secret begins and ends that a sign announces.
fn secret(sign: Sign, text: &str, start: usize, end: usize) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    let byte = |at: usize| bytes.get(at).copied();
    let run = |from: usize, is: fn(u8) -> bool| {
        from + bytes.get(from..).unwrap_or_default().iter().take_while(|byte| is(**byte)).count()
    };
    match sign {
        Sign::Begins(least) => {
            let inside = start.checked_sub(1).and_then(byte).is_some_and(|byte| byte.is_ascii_alphanumeric());
            let stop = run(end, of_token);
            (!inside && stop - end >= least).then_some((end, stop))
        }
        Sign::Scheme => {
            let stop = run(end, of_token);
            // "basic settings" are none.
            let word = bytes.get(end..stop).is_some_and(|word| word.iter().all(u8::is_ascii_lowercase));
            (stop - end >= if word { 16 } else { 8 }).then_some((end, stop))
        }
        Sign::Parameter => {
            let stop = run(end, |byte| {
                !matches!(byte, b'&' | b'#' | b'"' | b'\'' | b'\\' | b')' | b'>') && !byte.is_ascii_whitespace()
            });
            (stop > end).then_some((end, stop))
        }
        Sign::Name => {
            // `"name": "value"`, `name=value`, `name: value`, `name: Some("value")`, with quotes escaped or not.
            let mut from = run(end, |byte| matches!(byte, b'"' | b'\\' | b' '));
            if !matches!(byte(from), Some(b'=' | b':')) {
                return None;
            }
            from = run(from + 1, |byte| matches!(byte, b'"' | b'\\' | b' ' | b'\'' | b'('));
            let mut stop = run(from, of_value);
            // `Bearer …`, `Some(…)`: the value follows the first word.
            let short =
                bytes.get(from..stop).is_some_and(|word| word.len() <= 8 && word.iter().all(u8::is_ascii_alphabetic));
            if stop > from && short && matches!(byte(stop), Some(b' ' | b'(')) {
                let next = run(stop, |byte| matches!(byte, b'"' | b'\\' | b' ' | b'('));
                stop = run(next, of_value).max(stop);
            }
            (stop > from).then_some((from, stop))
        }
        Sign::Key => {
            let before = text.get(..start)?;
            let begins = before.rsplit("-----").next().is_some_and(|word| word.starts_with("BEGIN"));
            let rest = text.get(end..)?;
            let stop = rest.find("-----END").map_or(text.len(), |at| end + at);
            (begins && stop > end).then_some((end, stop))
        }
    }
}

/// What tokens are written with (RFC 6750 section 2.1, and what providers add).
fn of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'=' | b'%')
}

fn of_value(byte: u8) -> bool {
    !byte.is_ascii_whitespace()
        && !matches!(
            byte,
            b'"' | b'\'' | b'\\' | b',' | b'&' | b';' | b'{' | b'}' | b'[' | b']' | b'(' | b')' | b'<' | b'>'
        )
}

/// Writes lines to stderr without what looks like a secret.
#[derive(Debug, Clone, Copy)]
pub(super) struct Redacting;

impl<'a> MakeWriter<'a> for Redacting {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}

impl Write for Redacting {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // A line comes whole: a secret can't hide in two pieces.
        io::stderr().lock().write_all(redact(&String::from_utf8_lossy(line)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn secrets_are_taken_out_by_their_look_and_by_their_names() {
        for (text, left) in [
            ("token claw_abcdefghijklmnopqrstuvwxyz0123 seen", "token claw_[redacted] seen"),
            ("authorization: Bearer abcdefgh12345678", "authorization: [redacted]"),
            ("sent \"Authorization\": \"Basic dXNlcjpwYXNz\" on", "sent \"Authorization\": \"[redacted]\" on"),
            ("use Bearer abcdefgh12345678, again", "use Bearer [redacted], again"),
            ("{\"access_token\":\"abc\",\"expires_in\":3600}", "{\"access_token\":\"[redacted]\",\"expires_in\":3600}"),
            ("{\\\"refresh_token\\\":\\\"abc\\\"}", "{\\\"refresh_token\\\":\\\"[redacted]\\\"}"),
            ("refresh_token: Some(\"abc\"), x", "refresh_token: [redacted]\"), x"),
            (
                "GET /callback/google?code=4%2F0Ab&state=xyz&scope=a HTTP",
                "GET /callback/google?code=[redacted]&state=[redacted]&scope=a HTTP",
            ),
            ("grant_type=x&client_secret=hush&redirect_uri=y", "grant_type=x&client_secret=[redacted]&redirect_uri=y"),
            ("eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln!", "eyJ[redacted]!"),
            (
                "-----BEGIN EC PRIVATE KEY-----\nMIGH\n-----END EC PRIVATE KEY-----",
                "-----BEGIN EC PRIVATE KEY-----[redacted]-----END EC PRIVATE KEY-----",
            ),
        ] {
            assert_eq!(redact(text), left, "{text}");
        }
    }

    #[test]
    fn ordinary_lines_stay_as_they_are() {
        for text in [
            "a refresh failed connection=con_0123456789abcdef0123456789abcdef error=the provider is away",
            "the call of gmail-send ended: state=failed code=denied",
            "listening at http://127.0.0.1:8418, basic settings",
            "the skill declared no access_token and no cookie",
            "-----BEGIN CERTIFICATE-----",
        ] {
            assert!(matches!(redact(text), Cow::Borrowed(_)), "{text} became {}", redact(text));
        }
    }

    proptest! {
        #[test]
        fn any_line_is_written_without_a_panic_and_redacting_twice_changes_nothing(text in "(?s).{0,200}") {
            let once = redact(&text).into_owned();
            prop_assert_eq!(redact(&once).into_owned(), once);
        }

        #[test]
        fn a_token_does_not_survive_behind_its_name_or_its_beginning(
            before in "[ a-z={}\",:]{0,30}", secret in "[A-Za-z0-9_-]{24,60}", after in "[ \"',}&]?", form in 0..6_usize,
        ) {
            let text = match form {
                0 => format!("{before} claw_{secret}{after}"),
                1 => format!("{before}\"access_token\": \"{secret}\"{after}"),
                2 => format!("{before}&client_secret={secret}{after}"),
                3 => format!("{before} Bearer {secret}{after}"),
                4 => format!("{before}?code={secret}{after}"),
                _ => format!("{before}refresh_token: Some({secret}){after}"),
            };
            prop_assert!(!redact(&text).contains(&secret), "{}", redact(&text));
        }
    }
}
