//! Connections kept for the next request of the same user, to the same origin, under the same policy.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::client::conn::http1::SendRequest;
use tokio::task::AbortHandle;

use super::endpoint::Endpoint;
use crate::clock::Clock;
use crate::id::{Digest, Owner};

/// The oldest that a connection may get. A server that leaves DNS is left soon after.
const MAX_AGE: Duration = Duration::from_mins(5);
/// How long a connection may lie unused.
const MAX_IDLE: Duration = Duration::from_mins(1);
/// Unused connections of one key, and of all.
const MAX_PER_KEY: usize = 16;
const MAX_TOTAL: usize = 1024;

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub(super) type RequestBody = UnsyncBoxBody<Bytes, BoxError>;

/// Between which requests a connection may be shared: those of one owner, to one endpoint, under one policy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// Whose request it is.
    pub owner: Owner,
    /// Where it really goes.
    pub endpoint: Endpoint,
    /// The policy that admitted it. A changed policy starts with no connection.
    pub policy: Digest,
}

/// An open HTTP/1.1 connection. Dropping it closes it at once, whatever it was doing.
pub(super) struct Connection {
    pub(super) sender: SendRequest<RequestBody>,
    pub(super) opened_at: Duration,
    task: AbortHandle,
}

impl Connection {
    pub(super) fn new(sender: SendRequest<RequestBody>, opened_at: Duration, task: AbortHandle) -> Self {
        Self { sender, opened_at, task }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Resting {
    connection: Connection,
    since: Duration,
}

impl Resting {
    fn usable(&self, now: Duration) -> bool {
        now.saturating_sub(self.connection.opened_at) < MAX_AGE
            && now.saturating_sub(self.since) < MAX_IDLE
            && !self.connection.sender.is_closed()
    }
}

#[derive(Default)]
struct Shelves {
    by_key: HashMap<PoolKey, Vec<Resting>>,
    total: usize,
    swept_at: Duration,
}

impl Shelves {
    fn sweep(&mut self, now: Duration) {
        self.swept_at = now;
        self.by_key.retain(|_, resting| {
            resting.retain(|one| one.usable(now));
            !resting.is_empty()
        });
        self.total = self.by_key.values().map(Vec::len).sum();
    }
}

pub(super) struct Pool {
    clock: Arc<dyn Clock>,
    shelves: Mutex<Shelves>,
}

impl Pool {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, shelves: Mutex::default() }
    }

    /// The connection of this key that was used last.
    pub(super) fn take(&self, key: &PoolKey) -> Option<Connection> {
        let now = self.clock.monotonic();
        let mut shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
        let shelves = &mut *shelves;
        let resting = shelves.by_key.get_mut(key)?;
        while let Some(one) = resting.pop() {
            shelves.total = shelves.total.saturating_sub(1);
            if one.usable(now) {
                return Some(one.connection);
            }
        }
        shelves.by_key.remove(key);
        None
    }

    /// Keeps a connection whose answer was read to its end, if its request was sent to its end as well.
    pub(super) fn put(&self, key: PoolKey, connection: Connection, request_body: &Weak<()>) {
        let now = self.clock.monotonic();
        let resting = Resting { connection, since: now };
        if request_body.strong_count() > 0 || !resting.usable(now) {
            return;
        }
        let mut shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
        if shelves.total >= MAX_TOTAL || now.saturating_sub(shelves.swept_at) >= MAX_IDLE {
            shelves.sweep(now);
        }
        if shelves.total >= MAX_TOTAL {
            return;
        }
        let of_key = shelves.by_key.entry(key).or_default();
        if of_key.len() < MAX_PER_KEY {
            of_key.push(resting);
            shelves.total += 1;
        }
    }

    #[cfg(test)]
    pub(super) fn resting(&self) -> usize {
        self.shelves.lock().unwrap().total
    }
}
