//! How often a grant may be used.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::denial::{Culprit, Denial, DenialCode};
use super::permit::Permit;
use crate::clock::Clock;
use crate::id::{Digest, UserId};

/// Why a text is no rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a rate is a whole number from 1 to 1000000 per `s`, `min`, `h` or `day`, as in \"60/min\"")]
pub struct InvalidRate;

/// So many in such a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate {
    count: u32,
    period: Period,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Period {
    Second,
    Minute,
    Hour,
    Day,
}

impl Rate {
    /// How often in a day at the most.
    fn per_day(self) -> u64 {
        u64::from(self.count) * (86_400 / self.period().as_secs())
    }

    /// Of several grants that allow the same, the one with the most of this counts: what it lets through in a day, then at once.
    pub(super) fn generosity(rate: Option<Self>) -> (u64, u32) {
        rate.map_or((u64::MAX, u32::MAX), |rate| (rate.per_day(), rate.count))
    }

    /// Whether all that another rate lets through is let through by this one.
    pub(super) fn covers(rate: Option<Self>, other: Option<Self>) -> bool {
        match (rate, other) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(rate), Some(other)) => rate.per_day() >= other.per_day() && rate.count >= other.count,
        }
    }

    fn period(self) -> Duration {
        Duration::from_secs(match self.period {
            Period::Second => 1,
            Period::Minute => 60,
            Period::Hour => 3_600,
            Period::Day => 86_400,
        })
    }
}

impl FromStr for Rate {
    type Err = InvalidRate;

    fn from_str(text: &str) -> Result<Self, InvalidRate> {
        let (count, period) = text.split_once('/').ok_or(InvalidRate)?;
        let period = match period {
            "s" => Period::Second,
            "min" => Period::Minute,
            "h" => Period::Hour,
            "day" => Period::Day,
            _ => return Err(InvalidRate),
        };
        let plain = count.bytes().all(|b| b.is_ascii_digit());
        let count = count.parse().ok().filter(|count| plain && (1..=1_000_000).contains(count)).ok_or(InvalidRate)?;
        Ok(Self { count, period })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let period = match self.period {
            Period::Second => "s",
            Period::Minute => "min",
            Period::Hour => "h",
            Period::Day => "day",
        };
        write!(f, "{}/{period}", self.count)
    }
}

/// Above so many buckets, the full ones are forgotten: a full bucket is the same as none.
const MAX_BUCKETS: usize = 16_384;

/// What has been used of the rates, by user and grant. In memory: a restart fills every bucket.
#[derive(Debug, Default)]
pub struct Rates {
    buckets: Mutex<HashMap<(UserId, Digest), Bucket>>,
}

/// A token bucket: it holds one period's worth and fills evenly.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    rate: Rate,
    /// When the bucket will be full again.
    full_at: Duration,
}

impl Rates {
    /// No rate used yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one use of the permit's grant by the permit's user.
    ///
    /// # Errors
    ///
    /// The rate is used up; the denial says when to try again.
    pub fn take(&self, permit: &Permit, clock: &dyn Clock) -> Result<(), Denial> {
        let Some(rate) = permit.rate() else { return Ok(()) };
        let now = clock.monotonic();
        let step = rate.period() / rate.count;
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_BUCKETS {
            buckets.retain(|_, bucket| bucket.full_at > now);
        }
        let key = (permit.caller().user.clone(), *permit.grant());
        let bucket = buckets.entry(key).or_insert(Bucket { rate, full_at: now });
        bucket.rate = rate;
        let full_at = bucket.full_at.max(now) + step;
        match full_at.checked_sub(now + rate.period()) {
            None | Some(Duration::ZERO) => {
                bucket.full_at = full_at;
                Ok(())
            }
            Some(wait) => Err(Denial {
                id: permit.explanation("rate"),
                code: DenialCode::RateExceeded,
                message: format!("service `{}` may be used {rate} and that is used up", permit.service()),
                rule: Some(permit.rule().clone()),
                reason: None,
                culprit: Culprit::Caller,
                allow: Box::default(),
                retry_after: Some(wait),
            }),
        }
    }
}
