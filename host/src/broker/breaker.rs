//! One breaker a provider: after repeated failures its token endpoint is left alone for a while.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{self, Clock};
use crate::id::ProviderId;

/// Failures in a row after which the breaker opens.
const THRESHOLD: u32 = 5;
/// The first pause; each further failure doubles its upper bound.
const FIRST: Duration = Duration::from_secs(1);
/// No pause is longer than this, unless the provider itself asks for it.
const LONGEST: Duration = Duration::from_mins(5);

/// Full jitter: anything from zero to the bound, so that many connections don't come back at the same moment.
pub(super) fn backoff(failures: u32, clock: &dyn Clock) -> Duration {
    let bound = FIRST.saturating_mul(1 << failures.min(9)).min(LONGEST);
    let share = f64::from(u32::from_le_bytes(clock::random(clock))) / f64::from(u32::MAX);
    bound.mul_f64(share)
}

#[derive(Default)]
pub(super) struct Breakers(Mutex<HashMap<ProviderId, Breaker>>);

#[derive(Default)]
struct Breaker {
    failures: u32,
    closed_until: Duration,
}

impl Breakers {
    /// How long to leave the provider alone; `None` where it may be asked.
    pub(super) fn pause(&self, provider: &ProviderId, clock: &dyn Clock) -> Option<Duration> {
        let breakers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = breakers.get(provider)?.closed_until.saturating_sub(clock.monotonic());
        (!left.is_zero()).then_some(left)
    }

    /// The provider answered.
    pub(super) fn succeeded(&self, provider: &ProviderId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(provider);
    }

    /// The provider failed for a reason that passes; returns when to try this connection again at the earliest.
    pub(super) fn failed(&self, provider: &ProviderId, retry_after: Option<Duration>, clock: &dyn Clock) -> Duration {
        let mut breakers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let breaker = breakers.entry(provider.clone()).or_default();
        breaker.failures = breaker.failures.saturating_add(1);
        let wait = retry_after.unwrap_or_else(|| backoff(breaker.failures, clock));
        if breaker.failures >= THRESHOLD || retry_after.is_some() {
            breaker.closed_until = clock.monotonic().saturating_add(wait);
        }
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, Timestamp};

    #[test]
    fn a_provider_is_left_alone_after_failures_in_a_row_and_asked_again_later() {
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        let (breakers, provider) = (Breakers::default(), "acme".parse().unwrap());
        for _ in 1..THRESHOLD {
            breakers.failed(&provider, None, &clock);
            assert_eq!(breakers.pause(&provider, &clock), None);
        }
        let wait = breakers.failed(&provider, None, &clock);
        assert_eq!(breakers.pause(&provider, &clock).unwrap_or_default(), wait);
        clock.advance(LONGEST);
        assert_eq!(breakers.pause(&provider, &clock), None);
        breakers.succeeded(&provider);
        breakers.failed(&provider, None, &clock);
        assert_eq!(breakers.pause(&provider, &clock), None);
    }

    #[test]
    fn what_the_provider_asks_for_is_kept_to() {
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        let (breakers, provider) = (Breakers::default(), "acme".parse().unwrap());
        let asked = Duration::from_secs(17);
        assert_eq!(breakers.failed(&provider, Some(asked), &clock), asked);
        assert_eq!(breakers.pause(&provider, &clock), Some(asked));
    }

    #[test]
    fn a_pause_is_bounded_however_often_it_failed() {
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        assert!((0..200).all(|failures| backoff(failures, &clock) <= LONGEST));
    }
}
