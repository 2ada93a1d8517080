//! What a health check and metrics are told of a log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::elsewhere::Elsewhere;
use super::log::AuditLog;
use crate::clock::Clock;

/// Entries that could not be written, or not everywhere.
#[derive(Debug, Default)]
pub(super) struct Failures {
    count: AtomicU64,
    /// When the last was tried: microseconds of the clock plus one, zero for never.
    last: AtomicU64,
}

impl Failures {
    pub(super) fn note(&self, clock: &dyn Clock) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.last.store(micros(clock), Ordering::Relaxed);
    }
}

fn micros(clock: &dyn Clock) -> u64 {
    u64::try_from(clock.monotonic().as_micros()).unwrap_or(u64::MAX).saturating_add(1)
}

impl AuditLog {
    /// How many entries could not be written, or did not get to all sinks.
    pub fn failures(&self) -> u64 {
        self.shared.failures.count.load(Ordering::Relaxed)
    }

    /// Whether the log takes entries, as far as is known: its disk and its sinks answer, its file is where it
    /// belongs, and no entry has failed in this time.
    /// It may block for a moment.
    pub fn is_healthy(&self, within: Duration) -> bool {
        let last = self.shared.failures.last.load(Ordering::Relaxed);
        let since = micros(self.shared.clock.as_ref()).saturating_sub(last);
        let failed = last > 0 && u128::from(since) < within.as_micros();
        !failed
            && self.shared.check_durability().is_ok()
            && self.shared.check_place().is_ok()
            && self.shared.check_checkpoints().is_ok()
            && self.elsewhere.iter().all(|sink| Elsewhere::healthy(sink).is_ok())
    }
}
