//! Patterns over users and clients.

use std::fmt;
use std::str::FromStr;

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a pattern has letters, digits and `-_.@:/+`, and `*` for any text; at most 128 characters")]
pub struct InvalidPattern;

/// A text in which `*` stands for any characters, also none, also slashes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(Box<str>);

impl Pattern {
    /// The pattern that matches everything.
    pub fn everything() -> Self {
        Self("*".into())
    }

    /// Whether the whole text fits.
    pub fn matches(&self, text: &str) -> bool {
        let mut pieces = self.0.split('*');
        // `split` gives at least one piece.
        let first = pieces.next().unwrap_or_default();
        let Some(mut rest) = text.strip_prefix(first) else { return false };
        let Some(last) = pieces.next_back() else { return rest.is_empty() };
        // The leftmost place of each piece leaves the most for the others.
        for piece in pieces {
            match rest.split_once(piece) {
                Some((_, after)) => rest = after,
                None => return false,
            }
        }
        rest.ends_with(last)
    }

    /// The one text that fits, where there is only one.
    pub fn only(&self) -> Option<&str> {
        (!self.0.contains('*')).then_some(&*self.0)
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let good = |c: char| c.is_ascii_alphanumeric() || "-_.@:/+*".contains(c);
        if text.is_empty() || text.len() > 128 || !text.chars().all(good) {
            Err(InvalidPattern)
        } else {
            Ok(Self(text.into()))
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        pattern.parse::<Pattern>().unwrap().matches(text)
    }

    #[test]
    fn a_star_stands_for_any_text() {
        assert!(matches("*", "alice"));
        assert!(matches("alice", "alice"));
        assert!(!matches("alice", "alice2"));
        assert!(!matches("alice", "malice"));
        assert!(matches("contractor-*", "contractor-7"));
        assert!(!matches("contractor-*", "ex-contractor-7"));
        assert!(matches("team:sales/*", "team:sales/a/b"));
        assert!(!matches("team:sales/*", "team:sales"));
        assert!(matches("*@example.com", "ann@example.com"));
        assert!(!matches("a*a", "a"));
        assert!(matches("a*b*c", "a-b-b-c"));
        assert_eq!("alice".parse::<Pattern>().unwrap().only(), Some("alice"));
        assert_eq!("alice*".parse::<Pattern>().unwrap().only(), None);
    }

    /// The definition, for comparison: slow and plain.
    fn plainly(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|at| plainly(rest, &text[at..])),
            Some((byte, rest)) => text.first() == Some(byte) && plainly(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn matching_is_what_the_definition_says(pattern in "[ab*]{1,8}", text in "[ab]{0,8}") {
            prop_assert_eq!(matches(&pattern, &text), plainly(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn any_text_is_parsed_without_panic(text in ".{0,24}") {
            let _ = text.parse::<Pattern>();
        }
    }
}
