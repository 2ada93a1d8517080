//! Finds a secret in what streams past, in the spellings that servers give it, and blots it out.
//!
//! The spellings: as it is; percent-encoded, or escaped as in JSON, JavaScript or HTML, all of its characters or any of those
//! that are no letters and digits; base64 and base64url, wherever in the encoded text it stands and whether padded or not, and
//! that escaped in turn; hexadecimal. A server that transforms the secret in a way of its own gets past this. Where requests
//! may go is the real control; this is the second one.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body as _, Frame, SizeHint};
use zeroize::{Zeroize as _, Zeroizing};

use super::escape::Escapes;
use super::leads::{Leads, lead_partly, lead_wholly};
use super::scan::{Pattern, Places, Search};
use super::{Body, BoxError};

/// What is shorter than this occurs by chance, and is not looked for.
const SHORTEST: usize = 4;
/// Stands where a secret stood, as often as the secret was long.
const BLOT: u8 = b'*';

/// The spellings of some secrets, and a searcher for them. Wiped when it is dropped.
pub struct Spellings {
    patterns: Vec<Pattern>,
    /// The secrets as they are in the name of a header.
    names: Vec<Pattern>,
    leads: Leads,
}

type Secret = Zeroizing<Vec<u8>>;

impl Spellings {
    /// The spellings of these secrets.
    pub fn of<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut patterns, mut names, mut leads) = (Vec::new(), Vec::new(), Vec::new());
        for secret in secrets.into_iter().filter(|secret| secret.len() >= SHORTEST) {
            for (text, alike) in read_as(secret) {
                lead_partly(text.get(..alike).unwrap_or(&text), &mut leads);
                lead_wholly(&text, &mut leads);
                let mut escapes = vec![Escapes::ALL];
                if text.iter().any(|byte| Escapes::ALL.begin_with(*byte)) {
                    // What looks like an escape may stand for itself.
                    escapes.push(Escapes::NONE);
                    escapes.extend(Escapes::EACH);
                }
                patterns.extend(escapes.into_iter().map(|escapes| Pattern::new(text.clone(), escapes)));
            }
            let secret = secret.as_bytes();
            for form in forms(secret) {
                lead_partly(&form, &mut leads);
                patterns.push(Pattern::new(form, Escapes::ALL));
            }
            names.push(Pattern::new(Zeroizing::new(secret.to_ascii_lowercase()), Escapes::NONE));
        }
        Self { patterns, names, leads: Leads::new(leads) }
    }

    fn places_in(&self, text: &[u8]) -> Places {
        let mut found = Places::default();
        if self.leads.next(text, 0).is_some() {
            let mut search = Search::default();
            search.feed(&self.patterns, text, |from| self.leads.next(text, from), &mut found);
            search.end(&self.patterns, &mut found);
        }
        found
    }

    /// Whether a secret stands in the text.
    pub fn occur_in(&self, text: &[u8]) -> bool {
        !self.places_in(text).is_empty()
    }

    /// Blots out what stands in the text. Says whether something did.
    pub fn blot(&self, text: &mut [u8]) -> bool {
        let places = self.places_in(text);
        let found = !places.is_empty();
        for place in places {
            if let Some(secret) = text.get_mut(place) {
                secret.fill(BLOT);
            }
        }
        found
    }

    /// Whether a secret stands in a header's name or value.
    pub fn occur_in_header(&self, name: &HeaderName, value: &HeaderValue) -> bool {
        self.named_in(name) || self.occur_in(value.as_bytes())
    }

    /// Header names are lower-case, whatever was sent.
    fn named_in(&self, name: &HeaderName) -> bool {
        let name = name.as_str().as_bytes();
        if self.names.iter().all(|secret| secret.text().len() > name.len()) {
            return false;
        }
        let mut found = Places::default();
        Search::default().feed(&self.names, name, Some, &mut found);
        !found.is_empty()
    }

    /// Blots out what stands in the values, and drops the headers in whose names something stands.
    pub fn blot_headers(&self, headers: &mut HeaderMap) -> bool {
        let mut found = false;
        let named: Vec<_> = headers.keys().filter(|name| self.named_in(name)).cloned().collect();
        for name in named {
            headers.remove(name);
            found = true;
        }
        for value in headers.values_mut() {
            let mut text = value.as_bytes().to_vec();
            if self.blot(&mut text) {
                *value = HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static(""));
                found = true;
            }
        }
        found
    }
}

impl std::fmt::Debug for Spellings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Spellings(…)")
    }
}

/// What the secret reads as where its escapes are undone: itself, and what a form or JSON makes of some characters. With each
/// text, how much of it at the beginning may stand there without escapes.
fn read_as(secret: &str) -> Vec<(Secret, usize)> {
    let mut texts: Vec<(Secret, usize)> = vec![(Zeroizing::new(secret.into()), secret.len())];
    if secret.contains(' ') {
        texts.push((Zeroizing::new(secret.replace(' ', "+").into_bytes()), secret.len()));
    }
    if !secret.is_ascii() {
        // `\u00fc` reads as the byte fc, and `\u20ac` as `u20ac`: the backslash escapes the u.
        for upper in [false, true] {
            let mut text = Zeroizing::new(Vec::with_capacity(5 * secret.len()));
            for unit in secret.encode_utf16() {
                match u8::try_from(unit) {
                    Ok(byte) => text.push(byte),
                    Err(_) if upper => text.extend_from_slice(format!("u{unit:04X}").as_bytes()),
                    Err(_) => text.extend_from_slice(format!("u{unit:04x}").as_bytes()),
                }
            }
            // The first character that is escaped ends what the text looks like.
            let plain = secret.bytes().take_while(u8::is_ascii).count();
            let first = if text.first() == Some(&b'u') { "u0000".len() } else { 1 };
            texts.push((text, if plain == 0 { first } else { plain }));
        }
    }
    texts.dedup();
    texts
}

/// The spellings in which the whole secret is encoded.
fn forms(secret: &[u8]) -> Vec<Secret> {
    let mut forms: Vec<Secret> = Vec::new();
    if secret.len() < 2 * SHORTEST {
        return forms;
    }
    let mut add = |form: Vec<u8>| {
        if form.len() >= SHORTEST && !forms.iter().any(|other| **other == form) {
            forms.push(Zeroizing::new(form));
        }
    };
    add(hex::encode(secret).into_bytes());
    add(hex::encode_upper(secret).into_bytes());
    for before in 0..3 {
        // Which characters depend on the secret alone: those after the ones that share bits with what stands before it, up to
        // the one that shares bits with what follows.
        let mut text = Zeroizing::new(vec![0; before]);
        text.extend_from_slice(secret);
        let from = (before * 8).div_ceil(6);
        let to = text.len() * 8 / 6;
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            let encoded = Zeroizing::new(engine.encode(&*text));
            add(encoded.as_bytes().get(from..to).unwrap_or_default().to_vec());
        }
    }
    forms
}

/// Looks at a stream piece by piece. What might be the beginning of a secret is held until more is known.
pub struct Scrubber {
    spellings: Arc<Spellings>,
    search: Search,
    held: VecDeque<u8>,
    found: bool,
}

impl Scrubber {
    /// A scrubber at the beginning of a stream.
    pub fn new(spellings: Arc<Spellings>) -> Self {
        Self { spellings, search: Search::default(), held: VecDeque::new(), found: false }
    }

    /// Takes a piece, and gives what can go on. Nothing is copied where nothing is found or held.
    pub fn push(&mut self, mut piece: Bytes) -> Bytes {
        let begin = self.search.at() - self.held.len();
        let mut found = Places::default();
        let next = |from| self.spellings.leads.next(&piece, from);
        self.search.feed(&self.spellings.patterns, &piece, next, &mut found);
        let free = self.search.open() - begin;
        if self.held.is_empty() && found.is_empty() {
            self.held.extend(piece.get(free..).unwrap_or_default());
            piece.truncate(free);
            return piece;
        }
        self.held.extend(&piece);
        self.blot(begin, found);
        self.release(free)
    }

    /// What was held when the stream ended.
    pub fn finish(&mut self) -> Bytes {
        let begin = self.search.at() - self.held.len();
        let mut found = Places::default();
        self.search.end(&self.spellings.patterns, &mut found);
        self.blot(begin, found);
        self.release(self.held.len())
    }

    /// Blots places of the stream out of what is held, which begins at one.
    fn blot(&mut self, begin: usize, places: Places) {
        self.found |= !places.is_empty();
        for place in places {
            let held = self.held.range_mut(place.start - begin..place.end - begin);
            held.for_each(|byte| *byte = BLOT);
        }
    }

    fn release(&mut self, length: usize) -> Bytes {
        self.held.drain(..length).collect()
    }

    /// Whether a secret was found so far.
    pub fn found(&self) -> bool {
        self.found
    }
}

impl Drop for Scrubber {
    fn drop(&mut self) {
        let (front, back) = self.held.as_mut_slices();
        front.zeroize();
        back.zeroize();
    }
}

/// What happens when a secret is found in a body.
enum OnFound {
    /// It is blotted out, and the body goes on.
    Blot,
    /// The body ends with this error; the rest is never sent.
    Refuse(Box<dyn FnMut() -> BoxError + Send>),
}

/// A body that is looked through while it streams.
struct Scrubbed {
    body: Body,
    scrubber: Scrubber,
    trailers: Option<HeaderMap>,
    on_found: OnFound,
    ended: bool,
}

/// The body with the secrets blotted out, trailers included. Its length stays the same.
pub fn blotted(body: Body, spellings: Arc<Spellings>) -> Body {
    scrubbed(body, spellings, OnFound::Blot)
}

/// The body up to the first secret in it, where it ends with an error.
pub fn refused(body: Body, spellings: Arc<Spellings>, refusal: impl FnMut() -> BoxError + Send + 'static) -> Body {
    scrubbed(body, spellings, OnFound::Refuse(Box::new(refusal)))
}

fn scrubbed(body: Body, spellings: Arc<Spellings>, on_found: OnFound) -> Body {
    if body.is_end_stream() {
        return body;
    }
    let scrubber = Scrubber::new(spellings);
    Body::new(Scrubbed { body, scrubber, trailers: None, on_found, ended: false })
}

impl Scrubbed {
    fn data(&mut self, data: Bytes) -> Option<Result<Frame<Bytes>, BoxError>> {
        if self.scrubber.found
            && let OnFound::Refuse(refusal) = &mut self.on_found
        {
            self.ended = true;
            return Some(Err(refusal()));
        }
        (!data.is_empty()).then(|| Ok(Frame::data(data)))
    }
}

impl http_body::Body for Scrubbed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        loop {
            if let Some(trailers) = this.trailers.take() {
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
            if this.ended {
                return Poll::Ready(None);
            }
            match std::task::ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let data = this.scrubber.push(data);
                        if let Some(frame) = this.data(data) {
                            return Poll::Ready(Some(frame));
                        }
                    }
                    Err(frame) => {
                        let mut trailers = frame.into_trailers().unwrap_or_default();
                        this.scrubber.found |= this.scrubber.spellings.blot_headers(&mut trailers);
                        this.ended = true;
                        this.trailers = Some(trailers);
                        let rest = this.scrubber.finish();
                        if let Some(frame) = this.data(rest) {
                            if frame.is_err() {
                                this.trailers = None;
                            }
                            return Poll::Ready(Some(frame));
                        }
                    }
                },
                Some(Err(error)) => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    this.ended = true;
                    let rest = this.scrubber.finish();
                    if let Some(frame) = this.data(rest) {
                        return Poll::Ready(Some(frame));
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.trailers.is_none() && (self.ended || (self.scrubber.held.is_empty() && self.body.is_end_stream()))
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.scrubber.held.len() as u64;
        let inner = self.body.size_hint();
        if self.ended {
            return SizeHint::with_exact(0);
        }
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower().saturating_add(held));
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(held));
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    use http_body_util::{BodyExt as _, Full, StreamBody};
    use proptest::prelude::*;

    use super::super::leads::LONG;
    use super::*;

    const SECRET: &str = "ya29.Canary+/=value-_~0123456789";

    fn encodings(secret: &str) -> Vec<(String, String)> {
        let bytes = secret.as_bytes();
        let all = |prefix: &str, upper: bool| {
            let digits = |byte: &u8| if upper { format!("{prefix}{byte:02X}") } else { format!("{prefix}{byte:02x}") };
            bytes.iter().map(digits).collect::<String>()
        };
        let form: String = url::form_urlencoded::byte_serialize(bytes).collect();
        let mut list = vec![
            ("as it is", secret.to_owned()),
            ("form", form.clone()),
            ("form, lower", form.replace("%2B", "%2b").replace("%2F", "%2f").replace("%3D", "%3d")),
            ("percent all", all("%", true)),
            ("percent all, lower", all("%", false)),
            ("hex", all("", false)),
            ("HEX", all("", true)),
            ("unicode", all("\\u00", false)),
            ("UNICODE", all("\\u00", true)),
            ("JavaScript", all("\\x", false)),
            ("JavaScript, upper", all("\\x", true)),
            ("HTML", bytes.iter().flat_map(|byte| format!("&#{byte};").into_bytes()).map(char::from).collect()),
            (
                "HTML, hexadecimal",
                bytes.iter().flat_map(|byte| format!("&#x{byte:02x};").into_bytes()).map(char::from).collect(),
            ),
            ("JSON", serde_json::to_string(secret).unwrap()),
            ("JSON with escaped slashes", secret.replace('/', "\\/")),
            ("JSON for HTML", secret.replace('+', "\\u002b").replace('=', "\\u003d")),
            ("Bearer", format!("Bearer {secret}")),
        ];
        for before in ["", "a", "ab", "user:"] {
            for after in ["", "z", "yz", ":x"] {
                let text = format!("{before}{secret}{after}");
                list.push(("base64", STANDARD.encode(&text)));
                list.push(("base64url", URL_SAFE.encode(&text)));
                list.push(("base64, no padding", STANDARD_NO_PAD.encode(&text)));
                list.push(("base64 in JSON", STANDARD.encode(&text).replace('/', "\\/").replace('+', "\\u002b")));
                list.push((
                    "base64 in a query",
                    url::form_urlencoded::byte_serialize(STANDARD.encode(&text).as_bytes()).collect(),
                ));
            }
        }
        list.into_iter().map(|(name, text)| (name.to_owned(), text)).collect()
    }

    /// Whether a run of the secret's own bytes is still readable in the text, in the encoding that it stands in.
    fn survives(text: &str, encoded: &str) -> bool {
        // Three characters at each end of a base64 text share bits with their neighbours.
        let core = encoded.trim_end_matches('=').trim_matches('"');
        let middle = core.get(core.len() / 2 - 5..core.len() / 2 + 5).unwrap();
        text.contains(middle)
    }

    /// Tokens as RFC 6750 has them, and users with passwords; also such whose first letter stands alone.
    fn secrets() -> impl Strategy<Value = String> {
        prop_oneof![
            "[A-Za-z0-9._~+/-]{8,48}={0,2}",
            "[A-Za-z0-9][._~+/-][A-Za-z0-9._~+/-]{8,32}",
            "[a-z][.'_-][a-z]{3,8}(@[a-z]{3,6}\\.com)?:[!-~]{8,24}",
            "[a-z]{1,8}:[!-~]{8,24}",
            "[ -~]{8,32}",
            "[a-zäß€]{8,16}",
        ]
    }

    fn around() -> impl Strategy<Value = String> {
        prop_oneof!["[a-z\"{}: ]{0,12}", Just("Basic ".to_owned()), Just("?a=1&q=".to_owned()), Just("\\n".to_owned())]
    }

    /// The spellings of the module's promise, base64 with so much around the secret.
    fn spelled_once(secret: &str, before: usize, after: usize) -> Vec<(&'static str, String)> {
        let each = |escape: &dyn Fn(u8) -> String| secret.bytes().map(escape).collect::<String>();
        let needed = |escape: &dyn Fn(u8) -> String| {
            each(&|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { escape(byte) })
        };
        let unit = |escape: &dyn Fn(u16) -> String, all: bool| {
            let plain = |unit: u16| u8::try_from(unit).ok().filter(|byte| !all && byte.is_ascii_alphanumeric());
            secret
                .encode_utf16()
                .map(|unit| plain(unit).map_or_else(|| escape(unit), |byte| char::from(byte).to_string()))
                .collect()
        };
        let json = serde_json::to_string(secret).unwrap();
        let json = json[1..json.len() - 1].to_owned();
        let mut list = vec![
            ("as it is", secret.to_owned()),
            ("in a form", url::form_urlencoded::byte_serialize(secret.as_bytes()).collect()),
            ("percent, all", each(&|byte| format!("%{byte:02X}"))),
            ("percent, all, lower", each(&|byte| format!("%{byte:02x}"))),
            ("percent", needed(&|byte| format!("%{byte:02X}"))),
            ("percent, lower", needed(&|byte| format!("%{byte:02x}"))),
            ("JavaScript, all", each(&|byte| format!("\\x{byte:02x}"))),
            ("JavaScript, all, upper", each(&|byte| format!("\\x{byte:02X}"))),
            ("JavaScript", needed(&|byte| format!("\\x{byte:02x}"))),
            ("JSON, slashes", json.replace('/', "\\/")),
            ("JSON", json),
            ("JSON, all", unit(&|unit| format!("\\u{unit:04x}"), true)),
            ("JSON, all, upper", unit(&|unit| format!("\\u{unit:04X}"), true)),
            ("JSON, ASCII", unit(&|unit| format!("\\u{unit:04x}"), false)),
            ("HTML, all", each(&|byte| format!("&#{byte};"))),
            ("HTML, all, hexadecimal", each(&|byte| format!("&#x{byte:02X};"))),
            ("HTML", needed(&|byte| format!("&#{byte};"))),
            ("HTML, hexadecimal", needed(&|byte| format!("&#x{byte:02x};"))),
            (
                "HTML, named",
                secret.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;").replace('\'', "&#39;"),
            ),
            ("hexadecimal", hex::encode(secret)),
            ("hexadecimal, upper", hex::encode_upper(secret)),
            ("Basic", format!("Basic {}", STANDARD.encode(secret))),
        ];
        let text = format!("{}{secret}{}", &"{\""[..before], &"\"}"[..after]);
        for encoded in [
            STANDARD.encode(&text),
            URL_SAFE.encode(&text),
            STANDARD_NO_PAD.encode(&text),
            URL_SAFE_NO_PAD.encode(&text),
        ] {
            list.push(("base64 in JSON", encoded.replace('/', "\\/")));
            list.push((
                "base64 in JSON for HTML",
                encoded.replace('+', "\\u002B").replace('=', "\\u003d").replace('/', "\\u002f"),
            ));
            list.push(("base64 in a query", url::form_urlencoded::byte_serialize(encoded.as_bytes()).collect()));
            list.push(("base64 in HTML", encoded.replace('+', "&#43;").replace('/', "&#x2F;").replace('=', "&#61;")));
            list.push(("base64", encoded));
        }
        list
    }

    /// All but the ends, which share bits with what stands around them in base64.
    fn holds(text: &[u8], secret: &str) -> bool {
        let core = &secret.as_bytes()[1..secret.len() - 1];
        text.windows(core.len()).any(|window| window == core)
    }

    /// What a text may be read as: with the escapes of one kind undone, in base64 from any of four characters on, in
    /// hexadecimal from any of two; and that in a text with its escapes undone.
    fn decoded(text: &str) -> Vec<Vec<u8>> {
        let form = |text: &[u8]| percent_encoding::percent_decode(text).collect::<Vec<u8>>();
        let spaces: Vec<u8> = text.bytes().map(|byte| if byte == b'+' { b' ' } else { byte }).collect();
        let mut texts = vec![text.as_bytes().to_vec(), form(text.as_bytes()), form(&spaces)];
        texts.push(backslashes_undone(text));
        texts.push(entities_undone(text));
        let mut all = texts.clone();
        for text in &texts {
            let in_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte);
            for run in text.split(|byte| !in_base64(byte)) {
                let run: Vec<u8> = run
                    .iter()
                    .map(|byte| match byte {
                        b'-' => b'+',
                        b'_' => b'/',
                        other => *other,
                    })
                    .collect();
                for from in 0..4.min(run.len()) {
                    let whole = &run[from..];
                    let whole = if whole.len() % 4 == 1 { &whole[..whole.len() - 1] } else { whole };
                    let lenient = base64::engine::GeneralPurposeConfig::new()
                        .with_decode_allow_trailing_bits(true)
                        .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent);
                    let engine = base64::engine::GeneralPurpose::new(&base64::alphabet::STANDARD, lenient);
                    all.push(engine.decode(whole).unwrap());
                }
            }
            for run in text.split(|byte| !byte.is_ascii_hexdigit()) {
                for from in 0..2.min(run.len()) {
                    let whole = &run[from..];
                    all.push(hex::decode(&whole[..whole.len() / 2 * 2]).unwrap());
                }
            }
        }
        all
    }

    fn backslashes_undone(text: &str) -> Vec<u8> {
        let (mut units, mut rest) = (Vec::new(), text);
        while let Some(first) = rest.chars().next() {
            let number =
                |from: usize, to: usize| rest.get(from..to).and_then(|digits| u16::from_str_radix(digits, 16).ok());
            let (unit, length) = match (rest.get(..2), number(2, 6), number(2, 4)) {
                (Some("\\u"), Some(unit), _) => (Some(unit), 6),
                (Some("\\x"), _, Some(unit)) => (Some(unit), 4),
                (Some("\\\\" | "\\/" | "\\\""), ..) => (rest.encode_utf16().nth(1), 2),
                _ => (None, first.len_utf8()),
            };
            match unit {
                Some(unit) => units.push(unit),
                None => units.extend(first.encode_utf16(&mut [0; 2]).iter()),
            }
            rest = &rest[length..];
        }
        let bytes = units.iter().map(|unit| u8::try_from(*unit).unwrap_or(b'?')).collect::<Vec<_>>();
        [String::from_utf16_lossy(&units).into_bytes(), bytes].join(&b'\n')
    }

    fn entities_undone(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (n, part) in text.split('&').enumerate() {
            let (entity, rest) = part.split_once(';').unwrap_or(("", part));
            let byte = match entity {
                _ if n == 0 => None,
                "amp" => Some(b'&'),
                "lt" => Some(b'<'),
                "quot" => Some(b'"'),
                _ => match entity.strip_prefix("#x") {
                    Some(digits) => u8::from_str_radix(digits, 16).ok(),
                    None => entity.strip_prefix('#').and_then(|digits| digits.parse().ok()),
                },
            };
            if byte.is_none() && n > 0 {
                bytes.push(b'&');
            }
            bytes.extend(byte);
            bytes.extend_from_slice(if byte.is_some() { rest } else { part }.as_bytes());
        }
        bytes
    }

    fn run(pieces: impl IntoIterator<Item = Vec<u8>>) -> (String, usize) {
        let mut scrubber = Scrubber::new(Arc::new(Spellings::of([SECRET])));
        let mut out = Vec::new();
        for piece in pieces {
            out.extend_from_slice(&scrubber.push(Bytes::from(piece)));
        }
        out.extend_from_slice(&scrubber.finish());
        (String::from_utf8(out.clone()).unwrap(), out.len())
    }

    #[test]
    fn each_spelling_is_blotted_out_at_every_split() {
        for (name, encoded) in encodings(SECRET) {
            let text = format!("{{\"before\":\"x y\",\"v\":\"{encoded}\",\"after\":1}}");
            for at in 0..=text.len() {
                let (front, back) = text.as_bytes().split_at(at);
                let (out, length) = run([front.to_vec(), back.to_vec()]);
                assert_eq!(length, text.len(), "{name}");
                assert!(!survives(&out, &encoded), "{name} at {at}: {out}");
                assert!(out.starts_with("{\"before\":\"x y\",") && out.ends_with(",\"after\":1}"), "{name}: {out}");
            }
        }
    }

    #[test]
    fn each_spelling_is_blotted_out_of_a_long_text() {
        for (name, encoded) in encodings(SECRET) {
            let text = format!("{}{encoded}{}", "some % \\ text & ".repeat(2 * LONG / 16), "y".repeat(LONG));
            let (out, length) = run([text.clone().into_bytes()]);
            assert!(length == text.len() && !survives(&out, &encoded), "{name}");
        }
    }

    /// What is sent as `Basic` may begin with one letter that stands alone, and so do the leads.
    #[test]
    fn a_basic_credential_is_blotted_out_of_a_long_text() {
        for name in ["j.cook", "k.davis", "l.smith", "n.garcia", "m.green", "d.moore", "o'neil", "x-y"] {
            let pair = format!("{name}@example.com:ATATT3xFfGF0-canary_9d=1C");
            let rendered = STANDARD.encode(&pair);
            for (spelling, encoded) in
                encodings(&pair).into_iter().chain([("Basic".into(), format!("Basic {rendered}"))])
            {
                let text = format!("{{\"authorization\":\"{encoded}\"}}{}", "y".repeat(5 << 10));
                let mut scrubber = Scrubber::new(Arc::new(Spellings::of([pair.as_str(), rendered.as_str()])));
                let mut out = scrubber.push(Bytes::from(text.clone())).to_vec();
                out.extend_from_slice(&scrubber.finish());
                let out = String::from_utf8(out).unwrap();
                assert!(out.len() == text.len() && !survives(&out, &encoded), "{name}, {spelling}: {out:.300}");
            }
        }
    }

    #[test]
    fn each_spelling_is_blotted_out_byte_by_byte() {
        for (name, encoded) in encodings(SECRET) {
            let (out, length) = run(encoded.bytes().map(|byte| vec![byte]));
            assert!(length == encoded.len() && !survives(&out, &encoded), "{name}: {out}");
        }
    }

    #[test]
    fn text_without_the_secret_streams_on_at_once_and_unchanged() {
        let mut scrubber = Scrubber::new(Arc::new(Spellings::of([SECRET])));
        let piece = Bytes::from_static(b"data: {\"progress\": 1}\n\n");
        let out = scrubber.push(piece.clone());
        assert_eq!(out, piece);
        assert_eq!(out.as_ptr(), piece.as_ptr());
        assert!(scrubber.finish().is_empty());
    }

    #[test]
    fn a_part_of_the_secret_is_held_and_given_back_when_it_goes_on_otherwise() {
        let mut scrubber = Scrubber::new(Arc::new(Spellings::of([SECRET])));
        assert_eq!(scrubber.push(Bytes::from_static(b"say ya29.Cana")), "say ");
        assert_eq!(scrubber.push(Bytes::from_static(b"da")), "ya29.Canada");
        assert!(!scrubber.found());
    }

    /// Each byte would be compared with all of the token, were the beginnings of it tried one after the other: 16 KiB times
    /// 4 MiB are hours.
    #[test]
    fn a_token_that_repeats_itself_costs_no_more_than_another() {
        let token = "a".repeat(16 << 10);
        let nearly = [&token[1..], "b"].concat();
        let text = Bytes::from([nearly.repeat(255), token.clone()].concat());
        let encoded = [hex::encode(&nearly).repeat(15), hex::encode(&token)].concat();
        let spellings = Arc::new(Spellings::of([token.as_str()]));
        for (text, size) in
            [(text.clone(), 1), (text.slice(text.len() - (1 << 20)..), 1 << 16), (encoded.into(), 1 << 10)]
        {
            let mut scrubber = Scrubber::new(Arc::clone(&spellings));
            let mut out = Vec::with_capacity(text.len());
            for from in (0..text.len()).step_by(size) {
                out.extend_from_slice(&scrubber.push(text.slice(from..text.len().min(from + size))));
            }
            out.extend_from_slice(&scrubber.finish());
            assert!(scrubber.found() && out.len() == text.len() && out.ends_with(b"****"));
            assert!(!out[..text.len() - 2 * nearly.len()].contains(&b'*'), "what is not the token was touched");
        }
        let name = HeaderName::from_bytes("a".repeat(60 << 10).as_bytes()).unwrap();
        assert!(spellings.occur_in_header(&name, &HeaderValue::from_static("")));
    }

    #[test]
    fn headers_lose_the_secret_in_name_and_value() {
        let spellings = Spellings::of([SECRET, "abcdefgh12345678"]);
        let mut headers = HeaderMap::new();
        headers.insert("location", HeaderValue::from_str(&format!("https://x.example/?t={SECRET}")).unwrap());
        headers.insert("x-abcdefgh12345678-y", HeaderValue::from_static("1"));
        headers.insert("etag", HeaderValue::from_static("\"1\""));
        assert!(spellings.blot_headers(&mut headers));
        assert_eq!(headers.len(), 2);
        assert_eq!(headers["location"], format!("https://x.example/?t={}", "*".repeat(SECRET.len())));
    }

    #[test]
    fn a_body_keeps_its_length_and_loses_the_secret_in_its_trailers() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-echo", HeaderValue::from_static(SECRET));
            let frames = [
                Ok::<_, BoxError>(Frame::data(Bytes::from(format!("1 {}", &SECRET[..9])))),
                Ok(Frame::data(Bytes::from(format!("{} 2 ya29", &SECRET[9..])))),
                Ok(Frame::trailers(trailers)),
            ];
            let body = Body::new(StreamBody::new(futures_util::stream::iter(frames)));
            let out = blotted(body, Arc::new(Spellings::of([SECRET]))).collect().await.unwrap();
            assert_eq!(out.trailers().unwrap()["x-echo"], "*".repeat(SECRET.len()));
            assert_eq!(out.to_bytes(), format!("1 {} 2 ya29", "*".repeat(SECRET.len())));

            let whole = Body::new(Full::new(Bytes::from(SECRET)).map_err(|never| match never {}));
            assert_eq!(
                blotted(whole, Arc::new(Spellings::of([SECRET]))).size_hint().exact(),
                Some(SECRET.len() as u64)
            );
        });
    }

    #[test]
    fn a_refused_body_ends_before_the_secret_is_whole() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let text = Bytes::from(format!("hello {SECRET}"));
            let body = Body::new(Full::new(text).map_err(|never| match never {}));
            let body = refused(body, Arc::new(Spellings::of([SECRET])), || "refused".into());
            assert_eq!(body.collect().await.unwrap_err().to_string(), "refused");
        });
    }

    #[test]
    fn short_and_empty_secrets_blot_nothing() {
        let spellings = Spellings::of(["", "a", "abc"]);
        let mut text = b"abc a abc".to_vec();
        assert!(!spellings.blot(&mut text));
        let short = Spellings::of(["k3y!"]);
        let mut text = b"my k3y! is".to_vec();
        assert!(short.blot(&mut text));
        assert_eq!(text, b"my **** is");
    }

    proptest! {
        #[test]
        fn no_secret_survives_any_split(
            secret in "[ -~]{8,40}",
            around in prop::collection::vec("[a-z\"{} ]{0,12}", 2),
            which in any::<prop::sample::Index>(),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let list = [
                secret.clone(),
                STANDARD.encode(&secret),
                URL_SAFE.encode(format!("x{secret}y")),
                hex::encode(&secret),
                percent_encoding::utf8_percent_encode(&secret, percent_encoding::NON_ALPHANUMERIC).to_string(),
                { let json = serde_json::to_string(&secret).unwrap(); json[1..json.len() - 1].to_owned() },
            ];
            let encoded = which.get(&list);
            let text = format!("{}{encoded}{}", around[0], around[1]);
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.sort_unstable();
            let mut scrubber = Scrubber::new(Arc::new(Spellings::of([secret.as_str()])));
            let (mut out, mut from) = (Vec::new(), 0);
            for cut in cuts.into_iter().chain([text.len()]) {
                out.extend_from_slice(&scrubber.push(Bytes::copy_from_slice(&text.as_bytes()[from..cut])));
                from = cut;
            }
            out.extend_from_slice(&scrubber.finish());
            let out = String::from_utf8(out).unwrap();
            prop_assert_eq!(out.len(), text.len());
            prop_assert!(scrubber.found());
            prop_assert!(!out.contains(encoded.trim_end_matches('=')));
        }

        #[test]
        fn nothing_in_an_answer_decodes_to_the_secret(
            secret in secrets(),
            spelled in (0_usize..1000, 0_usize..3, 0_usize..3),
            around in prop::collection::vec(around(), 2),
            length in prop::sample::select(vec![0_usize, 0, 9 << 10]),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let rendered = STANDARD.encode(&secret);
            let list = spelled_once(&secret, spelled.1, spelled.2);
            let (name, encoded) = &list[spelled.0 % list.len()];
            let filler = "some text, 100 % of it & more\\n ".repeat(length / 32);
            let text = format!("{}{filler}{encoded}{}{filler}", around[0], around[1]);
            prop_assert!(decoded(&text).iter().any(|text| holds(text, &secret)), "{} is no spelling: {}", name, encoded);
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.sort_unstable();
            let mut scrubber = Scrubber::new(Arc::new(Spellings::of([secret.as_str(), rendered.as_str()])));
            let (mut out, mut from) = (Vec::new(), 0);
            for cut in cuts.into_iter().chain([text.len()]) {
                out.extend_from_slice(&scrubber.push(Bytes::copy_from_slice(&text.as_bytes()[from..cut])));
                from = cut;
            }
            out.extend_from_slice(&scrubber.finish());
            let out = String::from_utf8(out).unwrap();
            prop_assert_eq!(out.len(), text.len());
            prop_assert!(!decoded(&out).iter().any(|text| holds(text, &secret)), "{}: {}", name, encoded);
        }

        #[test]
        fn what_holds_no_secret_is_passed_on_as_it_is(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6)) {
            let mut scrubber = Scrubber::new(Arc::new(Spellings::of([SECRET])));
            let mut out = Vec::new();
            for piece in &pieces { out.extend_from_slice(&scrubber.push(Bytes::from(piece.clone()))); }
            out.extend_from_slice(&scrubber.finish());
            prop_assert_eq!(out, pieces.concat());
        }
    }
}
