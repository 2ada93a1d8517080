//! The header `Prefer` (RFC 7240): how a caller would like to be answered.
//!
//! Read are `respond-async` (section 4.1) and `wait` (section 4.3). What is not known, or not understood, is left aside, as a
//! preference is no demand.

use std::time::Duration;

use axum::http::HeaderMap;

/// The longest that a caller may have an answer wait with `wait`.
const LONGEST: Duration = Duration::from_mins(5);

/// What a caller prefers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Preferences {
    /// Not to wait for the end.
    pub(super) respond_async: bool,
    /// And yet to wait so long.
    pub(super) wait: Option<Duration>,
}

impl Preferences {
    /// Those of a request. Where one is said twice, the first counts (section 2).
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut all = Self::default();
        let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        for preference in values.flat_map(|value| split(value, ',')) {
            // What follows a `;` are parameters; neither preference has any.
            let said = split(preference, ';').next().unwrap_or_default();
            let (name, value) = said.split_once('=').unwrap_or((said, ""));
            let (name, value) = (name.trim().to_ascii_lowercase(), value.trim().trim_matches('"'));
            match name.as_str() {
                "respond-async" => all.respond_async = true,
                "wait" if all.wait.is_none() => {
                    all.wait = value.parse().ok().map(Duration::from_secs).map(|wait| wait.min(LONGEST));
                }
                _ => {}
            }
        }
        all
    }
}

/// The parts of a list, which are not parted within quotes.
fn split(text: &str, by: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |character: char| {
        if escaped {
            escaped = false;
            return false;
        }
        match character {
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        character == by && !quoted
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn read(values: &[&str]) -> Preferences {
        let values = values.iter().filter_map(|value| HeaderValue::from_str(value).ok());
        Preferences::of(&values.map(|value| (axum::http::HeaderName::from_static("prefer"), value)).collect())
    }

    #[test]
    fn what_is_preferred_may_stand_in_one_header_or_several_and_among_other_things() {
        let wanted = Preferences { respond_async: true, wait: Some(Duration::from_secs(10)) };
        for values in [
            &["respond-async, wait=10"][..],
            &["Respond-Async;x=1", "wait = \"10\""],
            &["foo=\"a, wait=3; \\\" b\", wait=10, wait=20, respond-async"],
        ] {
            assert_eq!(read(values), wanted, "{values:?}");
        }
        assert_eq!(read(&["wait=1000000"]).wait, Some(LONGEST));
        for values in [&[][..], &["foo=\"respond-async\""], &["wait=soon"], &["respond-asynchronously"]] {
            assert_eq!(read(values), Preferences::default(), "{values:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "[ -~\t]{0,200}") {
            let _ = read(&[&text]);
        }
    }
}
