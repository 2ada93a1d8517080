//! The `Retry-After` field (RFC 9110 section 10.2.3).

use std::time::Duration;

use jiff::fmt::rfc2822::DateTimeParser;

use crate::clock::Timestamp;

/// Nobody is asked to wait longer than this, whatever a server says.
const LONGEST: Duration = Duration::from_hours(24);

/// Seconds, or a date after `now`. Anything else says nothing.
pub(super) fn parse(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(text.parse().map_or(LONGEST, Duration::from_secs).min(LONGEST));
    }
    let date = DateTimeParser::new().parse_timestamp(text).ok()?;
    let wait = Duration::try_from(date.duration_since(now)).unwrap_or(Duration::ZERO);
    Some(wait.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn seconds_and_dates_are_read_and_bounded() {
        let now: Timestamp = "2026-11-24T08:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("99999999999999999999999", Some(86_400)),
            ("Tue, 24 Nov 2026 08:01:00 GMT", Some(60)),
            ("Tue, 24 Nov 2020 08:01:00 GMT", Some(0)),
            ("Tue, 24 Nov 2099 08:01:00 GMT", Some(86_400)),
            ("-5", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(parse(text, now), expected.map(Duration::from_secs), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_us_wait_longer_than_a_day(text in ".{0,40}") {
            if let Some(wait) = parse(&text, Timestamp::UNIX_EPOCH) {
                prop_assert!(wait <= LONGEST);
            }
        }
    }
}
