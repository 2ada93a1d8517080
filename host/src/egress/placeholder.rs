//! Inert stand-ins for tokens, each good for one call.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use http::{HeaderName, HeaderValue};

use super::redact::Spellings;

/// What every placeholder begins with. No skill may send it anywhere but in a slot.
const MARK: &str = "clawcoil_placeholder_";
/// 128 bits in hexadecimal that nobody can guess.
const DIGITS: usize = 32;

static MARKS: LazyLock<Arc<Spellings>> = LazyLock::new(|| Arc::new(Spellings::of([MARK])));

/// The spellings of the mark, for looking through what a guest sends.
pub(super) fn marks() -> Arc<Spellings> {
    Arc::clone(&MARKS)
}

/// Whether something that is, or pretends to be, a placeholder stands in the text, plain or encoded once.
pub(super) fn occurs_in(text: &[u8]) -> bool {
    MARKS.occur_in(text)
}

/// Whether something that is, or pretends to be, a placeholder stands in the header.
pub(super) fn occurs_in_header(name: &HeaderName, value: &HeaderValue) -> bool {
    MARKS.occur_in_header(name, value)
}

/// All that stands plainly in the text and is, or pretends to be, a placeholder.
pub(super) fn all_in(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices(MARK).map(|(at, _)| {
        let rest = text.get(at..).unwrap_or_default();
        let digits = rest.bytes().skip(MARK.len()).take(DIGITS).take_while(u8::is_ascii_hexdigit).count();
        rest.get(..MARK.len() + digits).unwrap_or_default()
    })
}

/// The placeholders of one call, and what each stands for. One of another call is as unknown here as one made up.
#[derive(Debug)]
pub struct Placeholders<T> {
    given: HashMap<Box<str>, T>,
}

impl<T> Default for Placeholders<T> {
    fn default() -> Self {
        Self { given: HashMap::new() }
    }
}

impl<T> Placeholders<T> {
    /// A new placeholder for this, with a name that was given to nothing else.
    pub fn give(&mut self, meaning: T, name: [u8; DIGITS / 2]) -> String {
        let mut digits = [0; DIGITS];
        // They have the length that this needs.
        let _ = hex::encode_to_slice(name, &mut digits);
        let text = [MARK, str::from_utf8(&digits).unwrap_or_default()].concat();
        self.given.insert(text.clone().into(), meaning);
        text
    }

    /// What a placeholder stands for.
    pub fn meaning(&self, placeholder: &str) -> Option<&T> {
        self.given.get(placeholder)
    }

    /// Whether none was given.
    pub fn is_empty(&self) -> bool {
        self.given.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;
    use crate::id::Names;

    #[test]
    fn a_placeholder_means_something_in_its_own_call_only() {
        let names = Names::new([7; 16]);
        let (mut one, mut other) = (Placeholders::default(), Placeholders::default());
        let text = one.give(1, names.draw());
        assert_ne!(text, other.give(2, names.draw()));
        assert_eq!(one.meaning(&text), Some(&1));
        assert_eq!(other.meaning(&text), None);
        assert_eq!(one.meaning(&format!("{MARK}{}", "0".repeat(DIGITS))), None);
        assert_eq!(all_in(&format!("x{text}0 {MARK}zz")).collect::<Vec<_>>(), [text.as_str(), MARK]);
    }

    #[test]
    fn a_placeholder_needs_no_escaping_and_is_seen_in_any_spelling() {
        let text = Placeholders::default().give((), Names::new([7; 16]).draw());
        assert!(text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'));
        for before in ["", "x", "xy"] {
            let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{before}{text}"));
            assert!(occurs_in(encoded.as_bytes()));
        }
        assert!(occurs_in(hex::encode(&text).as_bytes()));
        assert!(occurs_in(text.replace('_', "%5f").as_bytes()));
        assert!(!occurs_in(b"clawcoil is a host"));
    }
}
