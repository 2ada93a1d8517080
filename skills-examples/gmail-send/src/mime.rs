//! A message in plain text (RFC 5322), ready for transport (RFC 2045), in any language (RFC 2047).

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The longest line of base64 that RFC 2045 section 6.8 allows.
const LINE: usize = 76;

/// How many bytes of text fit into one encoded word of at most 75 characters (RFC 2047 section 2).
const WORD: usize = 45;

/// What goes into a message. Gmail sets `From`, `Date` and `Message-ID` by itself.
#[derive(Debug, Default)]
pub struct Message<'a> {
    /// Who gets it.
    pub to: &'a [String],
    /// Who gets a copy.
    pub cc: &'a [String],
    /// Who gets a copy unseen; Gmail takes this header off.
    pub bcc: &'a [String],
    /// The subject.
    pub subject: &'a str,
    /// The text.
    pub body: &'a str,
}

impl Message<'_> {
    /// The message as bytes of a mail, or the argument that can't be part of one.
    pub fn build(&self) -> Result<String, String> {
        if self.to.is_empty() {
            return Err("`to` needs at least one address".to_owned());
        }
        let mut message = String::new();
        for (name, addresses) in [("To", self.to), ("Cc", self.cc), ("Bcc", self.bcc)] {
            for address in addresses {
                check_address(address).map_err(|why| format!("`{}`: {address:?} {why}", name.to_lowercase()))?;
            }
            if !addresses.is_empty() {
                // One address a line: a header line has at most 998 characters (RFC 5322 section 2.1.1).
                let _ = write!(message, "{name}: {}\r\n", addresses.join(",\r\n "));
            }
        }
        let _ = write!(message, "Subject: {}\r\n", encode_header(self.subject)?);
        message.push_str("MIME-Version: 1.0\r\n");
        message.push_str("Content-Type: text/plain; charset=utf-8\r\n");
        message.push_str("Content-Transfer-Encoding: base64\r\n\r\n");
        let body = STANDARD.encode(self.body.replace("\r\n", "\n").replace('\n', "\r\n"));
        for line in body.as_bytes().chunks(LINE) {
            message.push_str(&String::from_utf8_lossy(line));
            message.push_str("\r\n");
        }
        Ok(message)
    }
}

/// Refuses what is not one plain address: a comma would add a recipient, a line break a header.
fn check_address(address: &str) -> Result<(), &'static str> {
    let plain = |c: char| c.is_ascii_graphic() && !"<>()[],;:\\\"".contains(c);
    match address.rsplit_once('@') {
        _ if address.len() > 254 => Err("is longer than the 254 characters of an address"),
        Some((local, domain)) if !local.is_empty() && !domain.is_empty() && !local.contains('@') => {
            if address.chars().all(plain) { Ok(()) } else { Err("has characters that an address can't have") }
        }
        _ => Err("is not an email address"),
    }
}

/// A header's text: as it is where it is short and ASCII, else as encoded words.
fn encode_header(text: &str) -> Result<String, String> {
    if text.chars().any(char::is_control) {
        return Err("`subject` has a line break or another control character".to_owned());
    }
    // Text that looks like an encoded word would be decoded by the reader, so it is encoded as well.
    if text.is_ascii() && text.len() <= 900 && !text.contains("=?") {
        return Ok(text.to_owned());
    }
    let mut words: Vec<String> = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let mut end = rest.len().min(WORD);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let (word, after) = rest.split_at(end);
        words.push(format!("=?utf-8?B?{}?=", STANDARD.encode(word)));
        rest = after;
    }
    Ok(words.join("\r\n "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(to: &str, subject: &str, body: &str) -> Result<String, String> {
        Message { to: &[to.to_owned()], subject, body, ..Message::default() }.build()
    }

    /// Unfolds the headers and decodes the body, as a reader does.
    fn read(message: &str) -> (Vec<(String, String)>, String) {
        let (head, body) = message.split_once("\r\n\r\n").unwrap();
        let headers = head
            .replace("\r\n ", " ")
            .split("\r\n")
            .map(|line| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap())
            .collect();
        (headers, String::from_utf8(STANDARD.decode(body.replace("\r\n", "")).unwrap()).unwrap())
    }

    fn header(message: &str, name: &str) -> String {
        read(message).0.into_iter().find(|(known, _)| known == name).unwrap().1
    }

    fn decode_words(text: &str) -> String {
        text.split(' ')
            .map(|word| word.strip_prefix("=?utf-8?B?").and_then(|word| word.strip_suffix("?=")).unwrap())
            .map(|word| String::from_utf8(STANDARD.decode(word).unwrap()).unwrap())
            .collect()
    }

    #[test]
    fn a_plain_message_is_readable_as_it_is() {
        let message = message("bob@example.com", "Lunch", "At noon?\nAnn").unwrap();
        assert_eq!(header(&message, "To"), "bob@example.com");
        assert_eq!(header(&message, "Subject"), "Lunch");
        assert_eq!(read(&message).1, "At noon?\r\nAnn");
    }

    #[test]
    fn a_line_break_in_subject_or_address_never_becomes_a_header() {
        for evil in ["a\r\nBcc: eve@example.com", "a\nBcc: eve@example.com", "a\rb", "a\0b", "a\u{85}b"] {
            assert!(message("bob@example.com", evil, "").unwrap_err().contains("control character"), "{evil:?}");
        }
        for evil in [
            "bob@example.com\r\nBcc: eve@example.com",
            "bob@example.com, eve@example.com",
            "Bob <bob@example.com>",
            "bob@example.com;eve@example.com",
            "bob",
            "@example.com",
            "bob@",
            "bob@eve@example.com",
            "\"a b\"@example.com",
            "",
        ] {
            assert!(message(evil, "s", "").is_err(), "{evil:?}");
        }
        assert!(message(&format!("{}@example.com", "a".repeat(250)), "s", "").is_err());
    }

    #[test]
    fn a_body_can_not_end_the_headers_or_the_message() {
        let evil = "\r\n\r\nBcc: eve@example.com\r\n.\r\n";
        let message = message("bob@example.com", "s", evil).unwrap();
        assert_eq!(read(&message).1, evil);
        assert!(!message.contains("eve"));
    }

    #[test]
    fn a_subject_in_any_language_comes_back_as_it_was() {
        for subject in ["Grüße", "日本語の件名", &"é🦀".repeat(100), "=?utf-8?B?ZXZpbA==?=", &"a".repeat(2000)]
        {
            let message = message("bob@example.com", subject, "").unwrap();
            assert_eq!(decode_words(&header(&message, "Subject")), *subject);
            let line = message.split("\r\n").map(str::len).max().unwrap();
            assert!(line <= 84, "a line of {line} characters");
        }
    }

    #[test]
    fn a_long_body_is_broken_into_lines_that_mail_allows() {
        let message = message("bob@example.com", "s", &"x".repeat(10_000)).unwrap();
        assert!(message.split("\r\n").all(|line| line.len() <= 76));
        assert_eq!(read(&message).1.len(), 10_000);
    }
}
