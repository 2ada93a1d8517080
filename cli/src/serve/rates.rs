//! How often a caller may ask.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::config::Limits;
use super::{Kind, Problem};

/// So many credentials are kept apart; beyond that, those that have been quiet are forgotten.
const KEPT: usize = 10_000;

/// After so many requests it is looked whether there are more.
const LOOK: usize = 1024;

/// One allowance for each credential.
pub(crate) struct Rates {
    limiter: DefaultKeyedRateLimiter<String>,
    asked: AtomicUsize,
}

impl Rates {
    pub(crate) fn new(limits: Limits) -> Self {
        let requests = NonZeroU32::new(limits.requests_per_minute).unwrap_or(NonZeroU32::MIN);
        Self { limiter: RateLimiter::keyed(Quota::per_minute(requests)), asked: AtomicUsize::new(0) }
    }

    /// Counts a request.
    pub(crate) fn check(&self, credential: &str) -> Result<(), Problem> {
        if self.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOOK) && self.limiter.len() > KEPT {
            self.limiter.retain_recent();
        }
        self.limiter.check_key(&credential.to_owned()).map_err(|not_until| {
            metrics::counter!("clawcoil_limits_hit_total", "limit" => "requests").increment(1);
            let wait = not_until.wait_time_from(DefaultClock::default().now());
            Problem::new(Kind::TooMany, "this credential asks too often; the operator sets how often it may")
                .retry_after(wait)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_that_asks_too_often_is_told_to_wait_and_others_are_not() {
        let rates = Rates::new(Limits { requests_per_minute: 2, ..Limits::default() });
        assert!(rates.check("one").is_ok() && rates.check("one").is_ok());
        assert_eq!(rates.check("one").unwrap_err().kind(), Kind::TooMany);
        assert!(rates.check("two").is_ok());
    }
}
