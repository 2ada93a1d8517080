//! What an embedding program may watch, to count it: the ends of calls, refusals, refreshes.
//!
//! Nothing here names a user, and all words are from a small set, so that they can be labels of metrics.

use std::time::Duration;

use crate::id::{ProviderId, SkillName};

/// Is told of what happens, in the thread in which it does: it must not block.
pub trait Observer: Send + Sync + 'static {
    /// A call has ended, or could not begin.
    fn called(&self, call: &Called<'_>);

    /// Policy refused something to a skill; the code is that of the denial.
    fn denied(&self, code: &'static str);

    /// A connection's tokens were to be replaced; `refreshed`, or why not.
    fn refreshed(&self, provider: &ProviderId, result: &'static str);
}

/// A call, seen from outside.
#[derive(Debug, Clone, Copy)]
pub struct Called<'a> {
    /// The skill; absent where none of this name is installed.
    pub skill: Option<&'a SkillName>,
    /// The tool; absent where the skill has none of this name.
    pub tool: Option<&'a str>,
    /// How it ended: `ok`, `tool-error`, `trap`, `limit`, `cancelled`, or why it did not begin.
    pub end: &'static str,
    /// Which limit it hit.
    pub limit: Option<&'static str>,
    /// How long it took.
    pub took: Duration,
}

/// Watches nothing.
#[derive(Debug, Clone, Copy)]
pub struct Nobody;

impl Observer for Nobody {
    fn called(&self, _: &Called<'_>) {}

    fn denied(&self, _: &'static str) {}

    fn refreshed(&self, _: &ProviderId, _: &'static str) {}
}
