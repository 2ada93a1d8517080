//! Reading a mail as it arrived (RFC 5322, RFC 2045, RFC 2047), as far as the sandbox shows it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What the inbox shows of a mail.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) to: Option<String>,
    pub(super) subject: Option<String>,
    pub(super) text: String,
}

impl Message {
    /// Reads what can be read; what is encoded in a way that is not known here stays as it is.
    pub(super) fn read(mail: &str) -> Self {
        let mail = mail.replace("\r\n", "\n");
        let (head, body) = mail.split_once("\n\n").unwrap_or((&mail, ""));
        // A line that begins with space goes on with the one before (RFC 5322 section 2.2.3).
        let head = head.replace("\n ", " ").replace("\n\t", " ");
        let field = |name: &str| {
            head.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
            })
        };
        let base64 = field("content-transfer-encoding").is_some_and(|how| how.eq_ignore_ascii_case("base64"));
        let text = if base64 { decoded(body) } else { None }.unwrap_or_else(|| body.to_owned());
        Self { to: field("to"), subject: field("subject").map(|text| words(&text)), text: text.trim_end().to_owned() }
    }
}

fn decoded(base64: &str) -> Option<String> {
    let packed: String = base64.split_whitespace().collect();
    String::from_utf8(STANDARD.decode(packed).ok()?).ok().map(|text| text.replace("\r\n", "\n"))
}

/// Encoded words in UTF-8 and base64; the space between two of them is no part of the text (RFC 2047 section 6.2).
fn words(text: &str) -> String {
    let mut read = String::new();
    let mut after_word = false;
    for part in text.split_inclusive(' ') {
        let word = part.trim_end();
        let inner = word.strip_prefix("=?").and_then(|word| word.strip_suffix("?="));
        let plain = inner
            .and_then(|inner| inner.split_once('?'))
            .filter(|(charset, _)| charset.eq_ignore_ascii_case("utf-8"))
            .and_then(|(_, rest)| decoded(rest.strip_prefix("B?").or_else(|| rest.strip_prefix("b?"))?));
        if plain.is_some() && after_word {
            read.truncate(read.trim_end().len());
        }
        after_word = plain.is_some();
        match plain {
            Some(plain) => {
                read.push_str(&plain);
                read.push_str(part.get(word.len()..).unwrap_or_default());
            }
            None => read.push_str(part),
        }
    }
    read.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_text_is_shown_as_it_was_meant() {
        let mail = "To: a@sandbox.example,\r\n b@sandbox.example\r\nSubject: =?utf-8?B?R3LDvMOf?=\r\n =?utf-8?B?ZQ==?= to you\r\n\
                    Content-Transfer-Encoding: base64\r\n\r\nSG93IGFyZQ0K\r\neW91Pw==\r\n";
        let read = Message::read(mail);
        assert_eq!(read.to.as_deref(), Some("a@sandbox.example, b@sandbox.example"));
        assert_eq!(read.subject.as_deref(), Some("Grüße to you"));
        assert_eq!(read.text, "How are\nyou?");
    }

    #[test]
    fn what_is_not_encoded_or_not_known_stays_as_it_is() {
        for text in ["plain", "=?utf-8?Q?a?=", "=?latin1?B?YQ==?=", "=?utf-8?B?*?=", "=??=", ""] {
            assert_eq!(words(text), text);
        }
        assert_eq!(Message::read("no head"), Message { to: None, subject: None, text: String::new() });
    }
}
