//! Times on pages: for people in words, for programs and scripts in the attribute.

use std::fmt;

use clawcoil::clock::Timestamp;

/// A time, as `<time>`. It is HTML, made of nothing but digits and words from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Moment {
    iso: String,
    words: String,
    relative: bool,
}

impl askama::filters::HtmlSafe for Moment {}

impl Moment {
    /// Date and time of day.
    pub(super) fn at(at: Timestamp) -> Self {
        Self { iso: format!("{at:.0}"), words: at.strftime("%-d %b %Y, %H:%M:%S UTC").to_string(), relative: false }
    }

    /// How far it is from now: `in 40 min`, `3 days ago`.
    pub(super) fn from_now(at: Timestamp, now: Timestamp) -> Self {
        Self { iso: format!("{at:.0}"), words: distance(at.as_second() - now.as_second()), relative: true }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { iso, words, relative } = self;
        let class = if *relative { " class=\"relative\"" } else { "" };
        write!(f, "<time datetime=\"{iso}\"{class}>{words}</time>")
    }
}

/// Seconds from now, in the largest unit of which there is more than one and a half.
fn distance(seconds: i64) -> String {
    const UNITS: [(i64, &str, &str); 4] =
        [(86_400, "day", "days"), (3600, "hour", "hours"), (60, "min", "min"), (1, "s", "s")];
    let far = seconds.saturating_abs();
    if far < 5 {
        return "now".to_owned();
    }
    let (unit, one, many) = UNITS.into_iter().find(|(unit, ..)| far * 2 >= unit * 3).unwrap_or((1, "s", "s"));
    let count = (far + unit / 2) / unit;
    let word = if count == 1 { one } else { many };
    if seconds > 0 { format!("in {count} {word}") } else { format!("{count} {word} ago") }
}

/// The time of day of a second since 1970.
pub(super) fn clock_time(second: i64) -> String {
    Timestamp::from_second(second).map(|at| at.strftime("%H:%M").to_string()).unwrap_or_default()
}

/// A length of time, short: `1.2 s`, `340 ms`.
pub(super) fn took(milliseconds: u64) -> String {
    match milliseconds {
        0..1000 => format!("{milliseconds} ms"),
        1000..60_000 => format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100),
        _ => format!("{} min", milliseconds / 60_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distance_is_said_in_the_unit_that_people_would_use() {
        let expected = [
            (0, "now"),
            (30, "in 30 s"),
            (-89, "89 s ago"),
            (90, "in 2 min"),
            (3000, "in 50 min"),
            (-7200, "2 hours ago"),
            (40 * 86_400, "in 40 days"),
        ];
        for (seconds, words) in expected {
            assert_eq!(distance(seconds), words);
        }
        assert_eq!([took(7), took(1250), took(125_000)], ["7 ms", "1.2 s", "2 min"]);
    }
}
