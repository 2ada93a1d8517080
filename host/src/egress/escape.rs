//! Comparing a text with a secret of which any character may be escaped.

/// What an escape begins with.
pub(super) const ESCAPES: &[u8] = b"%\\&";
/// No escape of one byte is longer: `\u0000`, `&quot;`, `&#x00;`.
pub(super) const LONGEST_ESCAPE: usize = 6;
/// At so many places both readings of a text are tried: `%25` is a percent sign, or three characters.
const MOST_FORKS: u8 = 6;

/// Whether a text begins with a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Match {
    /// It does, and the spelling of it is so long.
    Whole(usize),
    /// It ends within it.
    Begun,
    /// It doesn't.
    No,
}

impl Match {
    pub(super) fn whole(self) -> Option<usize> {
        match self {
            Self::Whole(length) => Some(length),
            Self::Begun | Self::No => None,
        }
    }
}

/// Compares the beginning of a text with a secret.
pub(super) fn matches(text: &[u8], secret: &[u8]) -> Match {
    compare(text, secret, MOST_FORKS)
}

fn compare(text: &[u8], secret: &[u8], forks: u8) -> Match {
    let mut rest = text;
    let mut begun = Match::No;
    for (n, expected) in secret.iter().enumerate() {
        let Some(byte) = rest.first() else { return Match::Begun };
        let literally = (byte == expected).then_some(1);
        let escaped = match unescape(rest) {
            Unescaped::Byte(found, length) if found == *expected => Some(length),
            Unescaped::Byte(..) | Unescaped::None => None,
            Unescaped::Begun => {
                begun = Match::Begun;
                None
            }
        };
        let taken = match (escaped, literally) {
            (Some(escaped), Some(literally)) if forks > 0 => {
                let after = |taken: usize| {
                    let secret = secret.get(n + 1..).unwrap_or_default();
                    let before = text.len() - rest.len() + taken;
                    match compare(rest.get(taken..).unwrap_or_default(), secret, forks - 1) {
                        Match::Whole(length) => Match::Whole(before + length),
                        other => other,
                    }
                };
                return match (after(escaped), after(literally)) {
                    (Match::Whole(length), _) | (_, Match::Whole(length)) => Match::Whole(length),
                    (Match::Begun, _) | (_, Match::Begun) => Match::Begun,
                    _ => begun,
                };
            }
            (Some(taken), _) | (None, Some(taken)) => taken,
            (None, None) => return begun,
        };
        rest = rest.get(taken..).unwrap_or_default();
    }
    Match::Whole(text.len() - rest.len())
}

enum Unescaped {
    /// The byte that is meant, and the length of its escape.
    Byte(u8, usize),
    /// The text ends within an escape.
    Begun,
    None,
}

fn unescape(text: &[u8]) -> Unescaped {
    match text {
        [b'%', digits @ ..] => digits_of(digits, 2, 1),
        [b'\\', b'x', digits @ ..] => digits_of(digits, 2, 2),
        [b'\\', b'u', b'0', b'0', digits @ ..] => digits_of(digits, 2, 4),
        [b'\\'] | [b'\\', b'u'] | [b'\\', b'u', b'0'] => Unescaped::Begun,
        [b'\\', byte, ..] => Unescaped::Byte(*byte, 2),
        [b'&', entity @ ..] => unescape_entity(entity),
        _ => Unescaped::None,
    }
}

fn digits_of(text: &[u8], count: usize, before: usize) -> Unescaped {
    let digits = text.get(..count).unwrap_or(text);
    match std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit())) {
        None => Unescaped::None,
        Some(digits) if digits.len() < count => Unescaped::Begun,
        Some(digits) => {
            u8::from_str_radix(digits, 16).map_or(Unescaped::None, |byte| Unescaped::Byte(byte, before + count))
        }
    }
}

fn unescape_entity(text: &[u8]) -> Unescaped {
    let Some(end) = text.iter().take(LONGEST_ESCAPE - 1).position(|byte| *byte == b';') else {
        return if text.len() < LONGEST_ESCAPE - 1 { Unescaped::Begun } else { Unescaped::None };
    };
    let name = text.get(..end).and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default();
    let byte = match name {
        "amp" => Some(b'&'),
        "lt" => Some(b'<'),
        "gt" => Some(b'>'),
        "quot" => Some(b'"'),
        "apos" => Some(b'\''),
        _ => match name.strip_prefix("#x").or_else(|| name.strip_prefix("#X")) {
            Some(hex) => u8::from_str_radix(hex, 16).ok(),
            None => name.strip_prefix('#').and_then(|digits| digits.parse().ok()),
        },
    };
    byte.map_or(Unescaped::None, |byte| Unescaped::Byte(byte, end + 2))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn any_character_may_be_escaped_in_any_way() {
        for text in [
            "a+/\"b",
            "a%2b/\"b",
            "a%2B%2f%22b",
            "a\\u002b\\/\\\"b",
            "a&#43;&#x2F;&quot;b",
            "\\x61+/\"%62",
            "a\\u002B/&#34;b",
        ] {
            assert_eq!(matches(text.as_bytes(), b"a+/\"b"), Match::Whole(text.len()), "{text}");
            for end in 0..text.len() {
                assert_eq!(matches(&text.as_bytes()[..end], b"a+/\"b"), Match::Begun, "{text} {end}");
            }
        }
        assert_eq!(matches(b"a%2c/b", b"a+/b"), Match::No);
    }

    #[test]
    fn a_secret_with_escapes_of_its_own_is_found_both_ways() {
        for text in ["a%25b", "a%2525b", "a%%32%35b"] {
            assert_eq!(matches(text.as_bytes(), b"a%25b"), Match::Whole(text.len()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn comparing_never_panics_and_a_secret_matches_itself(secret in prop::collection::vec(any::<u8>(), 0..12), text in prop::collection::vec(any::<u8>(), 0..12)) {
            let _ = matches(&text, &secret);
            let _ = matches(&text, b"%\\&%\\&%\\&");
            prop_assert!(matches(&[&secret[..], &text].concat(), &secret).whole().is_some() || secret.iter().filter(|byte| ESCAPES.contains(byte)).count() > usize::from(MOST_FORKS));
        }
    }
}
