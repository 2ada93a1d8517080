//! Time and randomness come in as arguments, so that tests can drive them.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use jiff::Timestamp;

/// A source of time and of random bytes.
///
/// Elapsed time is measured with [`monotonic`](Clock::monotonic); [`now`](Clock::now) is for what is stored or shown.
pub trait Clock: Send + Sync + 'static {
    /// The time of day.
    fn now(&self) -> Timestamp;

    /// Time since some fixed moment of this process; it never goes back.
    fn monotonic(&self) -> Duration;

    /// Waits until [`monotonic`](Clock::monotonic) has advanced by this much.
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>>;

    /// Fills the buffer with bytes fit for keys.
    fn fill_random(&self, bytes: &mut [u8]);
}

/// The moment that was stored by its milliseconds; `None`: there is no such moment.
pub fn from_milliseconds(milliseconds: i64) -> Option<Timestamp> {
    // The last moment there is has fractions of its last second, which are not taken back.
    let last = || (milliseconds == Timestamp::MAX.as_millisecond()).then_some(Timestamp::MAX);
    Timestamp::from_millisecond(milliseconds).ok().or_else(last)
}

/// Random bytes as an array.
pub fn random<const N: usize>(clock: &dyn Clock) -> [u8; N] {
    let mut bytes = [0; N];
    clock.fill_random(&mut bytes);
    bytes
}

/// The system's clocks and its random generator.
#[derive(Debug, Clone)]
pub struct SystemClock {
    start: std::time::Instant,
}

impl SystemClock {
    /// The system's clocks.
    #[expect(clippy::disallowed_methods, reason = "this is the one module that reads the system's clocks")]
    pub fn new() -> Self {
        Self { start: std::time::Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one module that reads the system's clocks")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(duration))
    }

    #[expect(clippy::expect_used, reason = "without random bytes no key can be made and nothing may go on")]
    fn fill_random(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the system gives random bytes");
    }
}

/// A clock that stands still until it is told to go on. For tests of programs that embed the host.
///
/// Its random bytes are the system's.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<Manual>);

#[derive(Debug)]
struct Manual {
    start: Timestamp,
    elapsed: Mutex<Duration>,
    advanced: tokio::sync::Notify,
}

impl ManualClock {
    /// A clock that shows this time.
    pub fn at(start: Timestamp) -> Self {
        let manual = Manual { start, elapsed: Mutex::new(Duration::ZERO), advanced: tokio::sync::Notify::new() };
        Self(Arc::new(manual))
    }

    /// Lets this much time pass, and wakes who slept until then.
    pub fn advance(&self, by: Duration) {
        *self.0.elapsed.lock().unwrap_or_else(PoisonError::into_inner) += by;
        self.0.advanced.notify_waiters();
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.0.start.saturating_add(self.monotonic()).unwrap_or(Timestamp::MAX)
    }

    fn monotonic(&self) -> Duration {
        *self.0.elapsed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let clock = self.clone();
        let until = self.monotonic().saturating_add(duration);
        Box::pin(async move {
            loop {
                // The waiter is registered before the time is read, so that no advance falls between the two.
                let advanced = clock.0.advanced.notified();
                tokio::pin!(advanced);
                advanced.as_mut().enable();
                if clock.monotonic() >= until {
                    return;
                }
                advanced.await;
            }
        })
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        SystemClock::new().fill_random(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_moment_that_is_stored_comes_back_also_the_last_one() {
        for moment in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
            let milliseconds = moment.as_millisecond();
            assert_eq!(from_milliseconds(milliseconds).unwrap().as_millisecond(), milliseconds);
            assert_eq!(from_milliseconds(milliseconds + 1).is_none(), moment == Timestamp::MAX);
        }
        assert_eq!(from_milliseconds(i64::MIN), None);
    }

    #[tokio::test]
    async fn a_sleeper_wakes_when_the_manual_clock_has_advanced_far_enough() {
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        let sleeper = tokio::spawn(clock.sleep(Duration::from_secs(10)));
        clock.advance(Duration::from_secs(9));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.advance(Duration::from_secs(1));
        sleeper.await.unwrap();
        assert_eq!(clock.now(), Timestamp::from_second(10).unwrap());
    }
}
