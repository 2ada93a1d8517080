//! The forms in which a secret could leave.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

/// How much of a form is looked for. What begins like a secret for so long is the secret.
const ENOUGH: usize = 96;

/// What RFC 3986 section 2.3 leaves as it is.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What JavaScript's `encodeURIComponent` leaves as it is.
const COMPONENT: &AsciiSet = &UNRESERVED.remove(b'!').remove(b'\'').remove(b'(').remove(b')').remove(b'*');

/// What a form of HTML leaves as it is (<https://url.spec.whatwg.org/#application-x-www-form-urlencoded-percent-encode-set>).
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'*');

/// The secret as it is, URL-escaped, escaped in JSON and in Rust's `Debug`, as a list of numbers, in hexadecimal, backwards,
/// and in both alphabets of base64 at any of the three alignments; each with the name of the form.
pub(crate) fn forms(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut forms: Vec<(_, Vec<u8>)> = vec![
        ("raw", secret.to_vec()),
        ("backwards", secret.iter().rev().copied().collect()),
        ("hexadecimal", hex::encode(secret).into()),
        ("hexadecimal", hex::encode_upper(secret).into()),
        ("a list of numbers", numbers(secret).into()),
        ("escaped bytes", secret.escape_ascii().to_string().into()),
    ];
    for set in [UNRESERVED, COMPONENT, FORM] {
        let escaped = percent_encode(secret, set).to_string();
        let spaces = escaped.replace("%20", "+");
        forms.extend([&escaped, &spaces].map(|text| ("URL-escaped", lower_escapes(text).into())));
        forms.extend([escaped, spaces].map(|text| ("URL-escaped", text.into())));
    }
    let everything: String = secret.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "%{byte:02X}");
        text
    });
    forms.push(("URL-escaped", lower_escapes(&everything).into()));
    forms.push(("URL-escaped", everything.into()));
    if let Ok(text) = std::str::from_utf8(secret) {
        let json = serde_json::Value::from(text).to_string();
        let json = json.get(1..json.len() - 1).unwrap_or_default();
        let careful =
            json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026").replace('\'', "\\u0027");
        forms.push(("escaped in JSON", careful.into()));
        forms.push(("escaped in JSON", json.replace('/', "\\/").into()));
        forms.push(("escaped in JSON twice", json.replace('\\', "\\\\").into()));
        forms.push(("escaped in JSON", json.into()));
        forms.push(("Debug", text.escape_debug().to_string().into()));
    }
    for (shift, before) in [&b""[..], b"_", b"__"].into_iter().enumerate() {
        // The first characters depend on what stands before, the last ones on what follows.
        let shifted = [before, secret].concat();
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            let encoded = engine.encode(&shifted);
            let start = if shift == 0 { 0 } else { shift + 1 };
            let end = encoded.len() - usize::from(shifted.len() % 3 != 0);
            forms.push(("base64", encoded.get(start..end).unwrap_or_default().into()));
        }
    }
    for (_, form) in &mut forms {
        form.truncate(ENOUGH);
    }
    forms.sort_by(|(_, one), (_, other)| one.cmp(other));
    forms.dedup_by(|(_, one), (_, other)| one == other);
    forms.retain(|(_, form)| form.len() >= 8);
    forms
}

/// The bytes as `{:?}` shows a list of them, without its brackets.
fn numbers(secret: &[u8]) -> String {
    secret.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The text with its percent escapes in lower case.
fn lower_escapes(text: &str) -> String {
    let mut left = 0_u8;
    text.chars()
        .map(|c| {
            let lower = left > 0;
            left = if c == '%' { 2 } else { left.saturating_sub(1) };
            if lower { c.to_ascii_lowercase() } else { c }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(secret: &str) -> Vec<String> {
        forms(secret.as_bytes()).into_iter().map(|(_, form)| String::from_utf8(form).unwrap()).collect()
    }

    #[test]
    fn each_spelling_is_among_the_forms() {
        let all = all("a+token/with=\"all\" & more");
        for form in [
            "a+token/with=\"all\" & more",
            "a%2Btoken%2Fwith%3D%22all%22%20%26%20more",
            "a%2btoken%2fwith%3d%22all%22+%26+more",
            "%61%2B%74%6F%6B%65%6E%2F%77%69%74%68%3D%22%61%6C%6C%22%20%26%20%6D%6F%72%65",
            "a+token/with=\\\"all\\\" & more",
            "a+token/with=\\\"all\\\" \\u0026 more",
            "a+token\\/with=\\\"all\\\" & more",
            "a+token/with=\\\\\"all\\\\\" & more",
        ] {
            assert!(all.contains(&form.to_owned()), "{form} is not among {all:#?}");
        }
        assert!(all.iter().any(|form| form.starts_with("97, 43, 116, 111, 107, 101, 110")));
    }

    #[test]
    fn only_escapes_become_lower_case() {
        assert_eq!(lower_escapes("A%2FB%3DC"), "A%2fB%3dC");
    }
}
