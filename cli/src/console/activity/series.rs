//! A day in minutes: how often what happened, and how long calls took.

use std::collections::VecDeque;

use clawcoil::audit::Entry;
use clawcoil::clock::Timestamp;

/// A day.
const MINUTES: usize = 1440;
/// Classes of how long calls took: each reaches a quarter further than the one before. The last begins at 45 s.
const CLASSES: usize = 49;
const STEP: f64 = 1.25;

/// How far back is looked, in how large steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in super::super) enum Range {
    #[default]
    Hour,
    SixHours,
    Day,
}

impl Range {
    pub(super) const ALL: [Self; 3] = [Self::Hour, Self::SixHours, Self::Day];

    /// The word in addresses.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::SixHours => "six-hours",
            Self::Day => "day",
        }
    }

    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Hour => "Last hour",
            Self::SixHours => "Last 6 hours",
            Self::Day => "Last 24 hours",
        }
    }

    pub(super) fn parse(word: &str) -> Self {
        Self::ALL.into_iter().find(|range| range.as_str() == word).unwrap_or_default()
    }

    /// Minutes in one step, and how many steps.
    pub(super) const fn steps(self) -> (usize, usize) {
        match self {
            Self::Hour => (1, 60),
            Self::SixHours => (5, 72),
            Self::Day => (15, 96),
        }
    }
}

/// What happened in some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Totals {
    /// Calls that gave a value.
    pub(in super::super) succeeded: u32,
    /// Calls that did not.
    pub(in super::super) failed: u32,
    /// Things that policy refused.
    pub(in super::super) denied: u32,
    /// Tokens that were renewed.
    pub(in super::super) refreshed: u32,
    /// Renewals that failed.
    pub(in super::super) not_refreshed: u32,
    pub(super) took: [u32; CLASSES],
}

impl Default for Totals {
    fn default() -> Self {
        Self { succeeded: 0, failed: 0, denied: 0, refreshed: 0, not_refreshed: 0, took: [0; CLASSES] }
    }
}

impl Totals {
    fn add(&mut self, entry: &Entry) {
        let counter = match (entry.kind.as_str(), entry.decision.as_deref()) {
            ("invoked", Some("allowed")) => &mut self.succeeded,
            // It did not begin: what was refused has entries of its own.
            ("invoked", Some("denied")) => return,
            ("invoked", _) => &mut self.failed,
            ("denied", _) => &mut self.denied,
            ("refreshed", _) => &mut self.refreshed,
            ("refresh-failed" | "needs-reconnect", _) => &mut self.not_refreshed,
            _ => return,
        };
        *counter = counter.saturating_add(1);
        if let Some(took) = entry.took_ms
            && let Some(class) = self.took.get_mut(class(took))
        {
            *class = class.saturating_add(1);
        }
    }

    fn and(&mut self, other: &Self) {
        let Self { succeeded, failed, denied, refreshed, not_refreshed, took } = other;
        for (to, from) in [
            (&mut self.succeeded, succeeded),
            (&mut self.failed, failed),
            (&mut self.denied, denied),
            (&mut self.refreshed, refreshed),
            (&mut self.not_refreshed, not_refreshed),
        ] {
            *to = to.saturating_add(*from);
        }
        self.took.iter_mut().zip(took).for_each(|(to, from)| *to = to.saturating_add(*from));
    }

    pub(in super::super) fn calls(&self) -> u32 {
        self.succeeded.saturating_add(self.failed)
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// How long the slowest call of this share of all took, in milliseconds, to within a quarter.
    pub(in super::super) fn took(&self, share: f64) -> Option<u64> {
        let all: u32 = self.took.iter().fold(0, |sum, class| sum.saturating_add(*class));
        let wanted = f64::from(all) * share;
        let mut sum = 0_u32;
        let class = self.took.iter().position(|class| {
            sum = sum.saturating_add(*class);
            *class > 0 && f64::from(sum) >= wanted
        })?;
        Some(upper(class))
    }
}

/// The class of a length of time.
fn class(milliseconds: u64) -> usize {
    (0..CLASSES - 1).find(|class| milliseconds <= upper(*class)).unwrap_or(CLASSES - 1)
}

/// The longest time of a class, in milliseconds.
fn upper(class: usize) -> u64 {
    let power = i32::try_from(class).unwrap_or(i32::MAX);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between 1 and 60,000")]
    let milliseconds = STEP.powi(power).ceil() as u64;
    milliseconds
}

/// The last day.
#[derive(Debug, Default)]
pub(super) struct Series {
    /// The newest last.
    minutes: VecDeque<Totals>,
    /// Which minute since 1970 the newest is.
    newest: i64,
}

impl Series {
    /// Counts an entry. One that is older than a day is of no interest, and a time in the future is none.
    pub(super) fn add(&mut self, entry: &Entry) {
        let minute = entry.time.as_second().div_euclid(60);
        if self.minutes.is_empty() {
            self.newest = minute;
            self.minutes.push_back(Totals::default());
        }
        let ahead = usize::try_from(minute.saturating_sub(self.newest)).unwrap_or(0);
        if ahead > 0 {
            if ahead >= MINUTES {
                self.minutes.clear();
            }
            self.minutes.extend(std::iter::repeat_n(Totals::default(), ahead.min(MINUTES)));
            self.newest = minute;
            let over = self.minutes.len().saturating_sub(MINUTES);
            self.minutes.drain(..over);
        }
        let back = usize::try_from(self.newest - minute).unwrap_or(usize::MAX);
        if back >= MINUTES {
            return;
        }
        while self.minutes.len() <= back {
            self.minutes.push_front(Totals::default());
        }
        let at = self.minutes.len() - 1 - back;
        if let Some(totals) = self.minutes.get_mut(at) {
            totals.add(entry);
        }
    }

    /// The figures of a range up to now, all together.
    pub(super) fn totals(&self, range: Range, now: Timestamp) -> Totals {
        self.steps(range, now).into_iter().fold(Totals::default(), |mut all, (_, step)| {
            all.and(&step);
            all
        })
    }

    /// The figures of a range up to now, step by step, each with the second in which it begins.
    pub(super) fn steps(&self, range: Range, now: Timestamp) -> Vec<(i64, Totals)> {
        let (minutes, count) = range.steps();
        let step = i64::try_from(minutes).unwrap_or(1);
        // Steps begin at whole multiples, so that a step's figures stay its own while time goes on.
        let last = now.as_second().div_euclid(60).div_euclid(step) * step;
        let steps = (0..i64::try_from(count).unwrap_or(0)).rev().map(|back| {
            let begin = last - back * step;
            let mut totals = Totals::default();
            for minute in begin..begin + step {
                if let Some(one) = self.minute(minute) {
                    totals.and(one);
                }
            }
            (begin * 60, totals)
        });
        steps.collect()
    }

    fn minute(&self, minute: i64) -> Option<&Totals> {
        let back = usize::try_from(self.newest.checked_sub(minute)?).ok()?;
        self.minutes.get(self.minutes.len().checked_sub(back.checked_add(1)?)?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(NOW + seconds).unwrap()
    }

    fn entry(seconds: i64, kind: &str, decision: &str, took: Option<u64>) -> Entry {
        let took = took.map(|took| format!(",\"took_ms\":{took}")).unwrap_or_default();
        let line =
            format!("{{\"seq\":1,\"time\":\"{}\",\"kind\":\"{kind}\",\"decision\":\"{decision}\"{took}}}", at(seconds));
        Entry::parse("a", line.as_bytes()).unwrap()
    }

    #[test]
    fn what_happened_is_counted_in_its_minute_and_its_range() {
        let mut series = Series::default();
        for (seconds, kind, decision) in [
            (-10, "invoked", "allowed"),
            (-20, "invoked", "failed"),
            (-30, "denied", "denied"),
            (-30, "invoked", "denied"),
            (-7000, "refreshed", "allowed"),
            (-7000, "refresh-failed", "failed"),
            (-80_000, "invoked", "allowed"),
            (-90_000, "invoked", "allowed"),
            (-5, "released", "allowed"),
        ] {
            series.add(&entry(seconds, kind, decision, None));
        }
        let hour = series.totals(Range::Hour, at(0));
        assert_eq!((hour.succeeded, hour.failed, hour.denied, hour.refreshed), (1, 1, 1, 0));
        let six = series.totals(Range::SixHours, at(0));
        assert_eq!((six.refreshed, six.not_refreshed), (1, 1));
        assert_eq!(series.totals(Range::Day, at(0)).succeeded, 2, "a day and an hour ago is too long ago");
        assert!(series.totals(Range::Hour, at(3 * 3600)).is_empty(), "time goes on");
    }

    #[test]
    fn how_long_calls_took_is_known_to_within_a_quarter() {
        let mut series = Series::default();
        for took in 1..=100 {
            series.add(&entry(0, "invoked", "allowed", Some(took * 10)));
        }
        let totals = series.totals(Range::Hour, at(0));
        let (half, most) = (totals.took(0.5).unwrap(), totals.took(0.95).unwrap());
        assert!((500..=625).contains(&half) && (950..=1190).contains(&most), "{half} {most}");
        assert_eq!(Totals::default().took(0.5), None);
    }

    proptest! {
        #[test]
        fn in_whatever_order_entries_come_a_day_is_kept_and_nothing_is_counted_twice(
            times in proptest::collection::vec(-200_000_i64..0, 1..40),
        ) {
            let mut series = Series::default();
            for seconds in &times {
                series.add(&entry(*seconds, "invoked", "allowed", None));
            }
            prop_assert!(series.minutes.len() <= MINUTES);
            let counted = series.totals(Range::Day, at(0)).succeeded as usize;
            // Steps are whole quarters of an hour: the oldest is cut.
            let first = at(0).as_second().div_euclid(900) * 900 - 95 * 900;
            let recent = times.iter().filter(|seconds| NOW + **seconds >= first).count();
            prop_assert!(counted <= recent);
            let surely = times.iter().filter(|seconds| **seconds > -60 * 60).count();
            prop_assert!(counted >= surely);
        }

        #[test]
        fn each_length_of_time_has_a_class_that_reaches_it(milliseconds in 0_u64..200_000) {
            let class = class(milliseconds);
            prop_assert!(class == CLASSES - 1 || milliseconds <= upper(class));
            prop_assert!(class == 0 || milliseconds > upper(class - 1));
        }
    }
}
