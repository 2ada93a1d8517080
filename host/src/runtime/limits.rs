//! What one call may use, and the counting of it.

use std::time::Duration;

use wasmtime::ResourceLimiter;

/// What one call may use at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// All linear memories of the call together, in bytes. Default 64 MiB.
    pub memory: usize,
    /// From the start of the call to its end, waiting in host calls included. Default 30 s.
    pub time: Duration,
    /// The arguments as JSON text, in bytes. Default 1 MiB.
    pub input: usize,
    /// The result as JSON text, in bytes. Default 4 MiB.
    pub result: usize,
    /// What is kept of the guest's output and error output together, in bytes. Default 64 KiB.
    pub log: usize,
    /// What one crossing from the guest to the host may make the host allocate, in bytes. Default 32 MiB.
    ///
    /// A list of numbers costs about 40 bytes for each of them, text its length.
    pub transfer: usize,
    /// Elements of all tables of the call together. Default 100,000.
    pub table_elements: usize,
    /// Handles that the guest holds at the same time: tokens, requests, streams. Default 1,000.
    pub handles: usize,
    /// Tokens and requests asked for in one call. Default 10,000.
    pub host_calls: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 64 << 20,
            time: Duration::from_secs(30),
            input: 1 << 20,
            result: 4 << 20,
            log: 64 << 10,
            transfer: 32 << 20,
            table_elements: 100_000,
            handles: 1_000,
            host_calls: 10_000,
        }
    }
}

/// A bound that a call ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum LimitReached {
    /// All memories together.
    #[error("it needs more memory than the {0} bytes that it may use")]
    Memory(usize),
    /// All tables together.
    #[error("it needs more table elements than the {0} that it may use")]
    TableElements(usize),
    /// The deadline.
    #[error("it did not end within {0:?}")]
    Time(Duration),
    /// The result as JSON.
    #[error("its result is larger than {0} bytes")]
    Result(usize),
    /// One crossing to the host.
    #[error("it hands the host more than {0} bytes at once")]
    Transfer(usize),
    /// Handles at the same time.
    #[error("it holds more than {0} handles at once")]
    Handles(usize),
    /// Tokens and requests.
    #[error("it asked for tokens and requests more than {0} times")]
    HostCalls(u32),
    /// The stack.
    #[error("it recurses too deeply for its stack")]
    Stack,
}

impl LimitReached {
    /// Which bound it is, in one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
            Self::TableElements(_) => "table-elements",
            Self::Time(_) => "time",
            Self::Result(_) => "result",
            Self::Transfer(_) => "transfer",
            Self::Handles(_) => "handles",
            Self::HostCalls(_) => "host-calls",
            Self::Stack => "stack",
        }
    }
}

/// Counts what the guest's memories and tables take, all of one call together.
#[derive(Debug)]
pub(super) struct Limiter {
    memory: Counter,
    table: Counter,
}

#[derive(Debug)]
struct Counter {
    most: usize,
    used: usize,
    /// What the latest growth added, to be given back when it fails after all.
    latest: usize,
    refused: bool,
}

impl Counter {
    fn new(most: usize) -> Self {
        Self { most, used: 0, latest: 0, refused: false }
    }

    fn grow(&mut self, current: usize, desired: usize) -> bool {
        let more = desired.saturating_sub(current);
        match self.used.checked_add(more) {
            Some(used) if used <= self.most => {
                self.used = used;
                self.latest = more;
                true
            }
            _ => {
                self.latest = 0;
                self.refused = true;
                false
            }
        }
    }

    fn failed(&mut self) {
        self.used = self.used.saturating_sub(std::mem::take(&mut self.latest));
    }
}

impl Limiter {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { memory: Counter::new(limits.memory), table: Counter::new(limits.table_elements) }
    }

    /// The bound that refused a growth, if one did.
    pub(super) fn refused(&self) -> Option<LimitReached> {
        match (&self.memory, &self.table) {
            (memory, _) if memory.refused => Some(LimitReached::Memory(memory.most)),
            (_, table) if table.refused => Some(LimitReached::TableElements(table.most)),
            _ => None,
        }
    }

    /// What the memories take now.
    pub(super) fn memory(&self) -> usize {
        self.memory.used
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.memory.grow(current, desired))
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.memory.failed();
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.table.grow(current, desired))
    }

    fn table_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.table.failed();
        Ok(())
    }

    fn instances(&self) -> usize {
        64
    }

    fn tables(&self) -> usize {
        64
    }

    fn memories(&self) -> usize {
        16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_are_added_up_and_a_failed_growth_is_given_back() {
        let mut limiter = Limiter::new(&Limits { memory: 100, ..Limits::default() });
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        limiter.memory_grow_failed(wasmtime::Error::msg("no")).unwrap();
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(limiter.memory_growing(0, 40, None).unwrap());
        assert_eq!(limiter.refused(), None);
        assert!(!limiter.memory_growing(40, 41, None).unwrap());
        assert_eq!(limiter.refused(), Some(LimitReached::Memory(100)));
        assert_eq!(limiter.memory(), 100);
    }
}
