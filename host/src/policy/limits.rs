//! What a call may use of the machine.

use std::time::Duration;

use crate::diagnostic::{Diagnostic, Table};

/// What a skill wishes for, or the most that an operator gives. Absent: nothing was said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LimitRules {
    /// Memory of the guest, in bytes.
    pub memory: Option<u64>,
    /// Time for the whole call.
    pub time: Option<Duration>,
    /// The result, in bytes.
    pub result: Option<u64>,
    /// What the guest prints and logs, in bytes.
    pub log: Option<u64>,
    /// Calls of one user at the same time; only the operator says.
    pub calls_per_user: Option<u32>,
}

/// The limits of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EffectiveLimits {
    /// Memory of the guest, in bytes.
    pub memory: u64,
    /// Time for the whole call.
    pub time: Duration,
    /// The result, in bytes.
    pub result: u64,
    /// What the guest prints and logs, in bytes.
    pub log: u64,
    /// Calls of one user at the same time.
    pub calls_per_user: u32,
}

impl Default for EffectiveLimits {
    /// 64 MiB, 30 s, 4 MiB of result, 64 KiB of log, 64 calls at once.
    fn default() -> Self {
        Self { memory: 64 << 20, time: Duration::from_secs(30), result: 4 << 20, log: 64 << 10, calls_per_user: 64 }
    }
}

impl LimitRules {
    /// The wish, at most what the operator gives; where the operator says nothing, at most the default.
    pub(super) fn effective(&self, operator: &Self) -> EffectiveLimits {
        fn least<T: Ord + Copy>(wish: Option<T>, operator: Option<T>, default: T) -> T {
            let most = operator.unwrap_or(default);
            wish.map_or(most, |wish| wish.min(most))
        }
        let default = EffectiveLimits::default();
        EffectiveLimits {
            memory: least(self.memory, operator.memory, default.memory),
            time: least(self.time, operator.time, default.time),
            result: least(self.result, operator.result, default.result),
            log: least(self.log, operator.log, default.log),
            calls_per_user: operator.calls_per_user.unwrap_or(default.calls_per_user),
        }
    }

    /// Of two files that both say something, the lower value holds.
    #[must_use]
    pub(super) fn and(&self, other: &Self) -> Self {
        fn least<T: Ord + Copy>(a: Option<T>, b: Option<T>) -> Option<T> {
            match (a, b) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            }
        }
        Self {
            memory: least(self.memory, other.memory),
            time: least(self.time, other.time),
            result: least(self.result, other.result),
            log: least(self.log, other.log),
            calls_per_user: least(self.calls_per_user, other.calls_per_user),
        }
    }

    /// Reads a `[limits]` of a manifest, or of an operator, who may say more.
    pub(super) fn read(table: &mut Table<'_>, operator: bool) -> Self {
        table.examples(&[("memory", "\"32MiB\""), ("time", "\"20s\""), ("result", "\"1MiB\""), ("log", "\"64KiB\"")]);
        let limits = Self {
            memory: table.opt_bytes("memory"),
            time: table.opt_duration("time"),
            result: table.opt_bytes("result"),
            log: table.opt_bytes("log"),
            calls_per_user: if operator { table.opt_integer("calls_per_user", 1..=100_000) } else { None }
                .and_then(|calls| u32::try_from(calls).ok()),
        };
        let most = (4_u64 << 30, Duration::from_hours(24), 1_u64 << 30, 64_u64 << 20);
        for (key, outside, rule) in [
            ("memory", limits.memory.is_some_and(|n| n == 0 || n > most.0), "it is at most 4GiB, and not zero"),
            ("time", limits.time.is_some_and(|n| n.is_zero() || n > most.1), "it is at most 24h, and not zero"),
            ("result", limits.result.is_some_and(|n| n > most.2), "it is at most 1GiB"),
            ("log", limits.log.is_some_and(|n| n > most.3), "it is at most 64MiB"),
        ] {
            if outside {
                table.push(Diagnostic::new(table.span_of(key), format!("`{key}` is out of range")).label(rule));
            }
        }
        limits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_never_exceeds_what_the_operator_gives_or_the_default() {
        let wish = LimitRules { memory: Some(1 << 30), time: Some(Duration::from_secs(5)), ..LimitRules::default() };
        let silent = wish.effective(&LimitRules::default());
        assert_eq!((silent.memory, silent.time), (64 << 20, Duration::from_secs(5)));
        let generous = wish.effective(&LimitRules { memory: Some(2 << 30), ..LimitRules::default() });
        assert_eq!(generous.memory, 1 << 30);
        let strict = wish.effective(&LimitRules { time: Some(Duration::from_secs(1)), ..LimitRules::default() });
        assert_eq!(strict.time, Duration::from_secs(1));
    }
}
