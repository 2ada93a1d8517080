//! Refusals that are counted and not kept.

use std::fmt;

use crate::diagnostic::Line;
use crate::policy::{Denial, DenialCode};

/// So many kinds are told apart; those that come later are counted together.
const MOST_KINDS: usize = 8;

/// How often what was refused. It prints as one line for the audit log.
#[derive(Debug, Default)]
pub(super) struct Further {
    /// All of them.
    pub(super) count: u64,
    kinds: Vec<Kind>,
}

#[derive(Debug)]
struct Kind {
    code: DenialCode,
    /// Where a request was to go.
    origin: Option<String>,
    rule: Option<Line>,
    count: u64,
}

impl Further {
    pub(super) fn count(&mut self, denial: &Denial, origin: Option<&str>) {
        self.count += 1;
        let is_same =
            |kind: &&mut Kind| kind.code == denial.code && kind.rule == denial.rule && kind.origin.as_deref() == origin;
        if let Some(kind) = self.kinds.iter_mut().find(is_same) {
            kind.count += 1;
        } else if self.kinds.len() < MOST_KINDS {
            let origin = origin.map(str::to_owned);
            self.kinds.push(Kind { code: denial.code, origin, rule: denial.rule.clone(), count: 1 });
        }
    }
}

impl fmt::Display for Further {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} more refusals of this call have no entry of their own", self.count)?;
        let mut rest = self.count;
        for (n, Kind { code, origin, rule, count }) in self.kinds.iter().enumerate() {
            rest -= count;
            write!(f, "{} {count} {}", if n == 0 { ":" } else { "," }, code.as_str())?;
            if let Some(origin) = origin {
                write!(f, " to {origin}")?;
            }
            if let Some(rule) = rule {
                write!(f, " by {rule}")?;
            }
        }
        if rest > 0 {
            write!(f, ", {rest} others")?;
        }
        Ok(())
    }
}
