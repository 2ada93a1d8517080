//! Characters that are written as something else: `%41`, `\x41`, `\u0041`, `&#65;`.

/// What an escape begins with.
const INTRODUCERS: [u8; 3] = *b"%\\&";
/// No escape of one byte is longer: `\u0000`, `&quot;`, `&#x00;`.
const LONGEST_ESCAPE: usize = 6;

/// Ways to escape, by what the escapes begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Escapes([bool; INTRODUCERS.len()]);

impl Escapes {
    /// Every character is what it is.
    pub(super) const NONE: Self = Self([false; 3]);
    /// Any of these ways, also mixed.
    pub(super) const ALL: Self = Self([true; 3]);
    /// One way each: a text that is escaped in one of them may hold what begins an escape in another.
    pub(super) const EACH: [Self; 3] =
        [Self([true, false, false]), Self([false, true, false]), Self([false, false, true])];

    /// Whether an escape begins with this byte.
    pub(super) fn begin_with(self, byte: u8) -> bool {
        INTRODUCERS.iter().zip(self.0).any(|(introducer, counts)| counts && *introducer == byte)
    }

    /// What a text begins with.
    pub(super) fn unescape(self, text: &[u8]) -> Unescaped {
        if text.first().is_some_and(|byte| self.begin_with(*byte)) { unescape(text) } else { Unescaped::None }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unescaped {
    /// The byte that is meant, and the length of its escape.
    Byte(u8, usize),
    /// The text ends within an escape.
    Begun,
    /// No escape.
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
    fn an_escape_is_read_when_it_is_whole_and_has_begun_before() {
        for (text, byte) in [
            ("%2b", b'+'),
            ("%2B", b'+'),
            ("\\x2b", b'+'),
            ("\\u002b", b'+'),
            ("\\/", b'/'),
            ("\\\"", b'"'),
            ("&#43;", b'+'),
            ("&#x2F;", b'/'),
            ("&quot;", b'"'),
            ("&amp;", b'&'),
        ] {
            let text = text.as_bytes();
            assert_eq!(Escapes::ALL.unescape(text), Unescaped::Byte(byte, text.len()));
            for end in 1..text.len() {
                assert_eq!(Escapes::ALL.unescape(&text[..end]), Unescaped::Begun);
            }
            assert_eq!(Escapes::NONE.unescape(text), Unescaped::None);
            assert_eq!(Escapes::EACH.iter().filter(|escapes| escapes.begin_with(text[0])).count(), 1);
        }
        for text in ["%2g", "%%", "\\xg", "&nbsp;", "&;", "a"] {
            assert_eq!(Escapes::ALL.unescape(text.as_bytes()), Unescaped::None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_escape_stays_begun_beyond_the_longest_one(text in "[%\\\\&#xu0-9a-f;]{0,12}") {
            match Escapes::ALL.unescape(text.as_bytes()) {
                Unescaped::Byte(_, length) => prop_assert!(length <= LONGEST_ESCAPE.min(text.len())),
                Unescaped::Begun => prop_assert!(text.len() < LONGEST_ESCAPE),
                Unescaped::None => {}
            }
        }
    }
}
