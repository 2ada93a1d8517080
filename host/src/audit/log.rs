//! The writing side.

use std::cell::RefCell;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwapOption;

use crate::clock::{Clock, Timestamp};
use crate::id::{AgentId, Digest, UserId};
use crate::secret::Key;

use super::chain::{FORMAT, Keys, Link};
use super::event::{self, Event};
use super::folder::{self, Head};
use super::sink::{ClosedSink, Sink};

/// A sink that takes longer than this for one line, or for making lines durable, counts as hanging.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a thread looks whether the writer is back before it sleeps. A line is written in microseconds, as long as it takes
/// to fall asleep and be woken.
const LOOKS: u32 = 200;
/// How often a waiting writer looks at the clock.
const GLANCE: Duration = Duration::from_millis(20);
/// The pause after lines were made durable, before the next ones are.
const REST: Duration = Duration::from_millis(500);

/// Why an entry could not be written. No token may be released then.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The folder can't be used.
    #[error("the audit log's folder {path} can't be used; check that it can be written and that its disk has space")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The sink refused a line.
    #[error("an audit entry can't be written, so no token is released; check the disk of the audit log")]
    Write(#[source] io::Error),
    /// The sink takes too long.
    #[error("the audit log's disk has not answered for 2 s, so no token is released; check it")]
    Hanging,
    /// What was written could not be made durable.
    #[error("audit entries could not be made durable, so no token is released; check the disk, then restart")]
    NotDurable,
}

/// What a log is opened with.
#[derive(Debug)]
pub struct Opening<'a> {
    /// The vault's key for its log.
    pub key: &'a Key,
    /// Whose log it is.
    pub agent: Option<AgentId>,
    /// The vault's epoch at this moment.
    pub epoch: Option<u64>,
}

/// Where an entry stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Its number in the chain.
    pub seq: u64,
    /// Its hash.
    pub hash: Digest,
}

/// The log of this process: one chain, which it alone writes.
pub struct AuditLog {
    shared: Arc<Shared>,
    syncer: Option<JoinHandle<()>>,
    chain: String,
    last_epoch: Option<u64>,
}

thread_local! {
    /// Where a thread writes down an entry, without what links it.
    static MEMBERS: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(1024));
}

struct Shared {
    sink: Box<dyn Sink>,
    keys: Keys,
    /// The user of the entry before, and how it is written: entries of one call follow each other.
    tagged: ArcSwapOption<(UserId, String)>,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Signals that the writer has been put back.
    free: Condvar,
    /// Lines were written since the last time they were made durable.
    dirty: AtomicBool,
    /// Since when lines are being made durable: microseconds of the clock plus one, zero for not now.
    syncing: AtomicU64,
    not_durable: AtomicBool,
    /// Whether the log is being closed.
    closing: Mutex<bool>,
    wake: Condvar,
}

struct State {
    /// Absent while a line is being written.
    writer: Option<Writer>,
    /// Since when it is absent.
    since: Duration,
    waiting: usize,
}

struct Writer {
    link: Link,
    epoch: Option<u64>,
    line: Vec<u8>,
    /// The second of the entry before, as a number and as it is written.
    second: (i64, String),
}

impl Writer {
    fn new(link: Link, epoch: Option<u64>) -> Self {
        Self { link, epoch, line: Vec::with_capacity(1024), second: (i64::MIN, String::new()) }
    }

    /// `,"time":"2026-11-24T08:00:00.000000Z"`
    fn stamp(&mut self, now: Timestamp) {
        let micros = now.as_microsecond();
        let (second, micros) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
        if self.second.0 != second {
            self.second = (second, now.strftime("%Y-%m-%dT%H:%M:%S").to_string());
        }
        // Writing to a `Vec` can't fail.
        let _ = write!(self.line, ",\"time\":\"{}.{micros:06}Z\"", self.second.1);
    }
}

impl AuditLog {
    /// Opens the log in this folder, which is made if it isn't there, and writes an `opened` entry.
    pub fn open(dir: &Path, opening: &Opening<'_>, clock: Arc<dyn Clock>) -> Result<Self, AuditError> {
        let keys = Keys::new(opening.key);
        let place = folder::take_place(dir, &keys, &*clock)
            .map_err(|source| AuditError::Folder { path: dir.to_owned(), source })?;
        let mut log = Self::start(place.chain, Box::new(place.sink), keys, place.link, &place.heads, opening, clock)?;
        log.last_epoch = place.epoch;
        Ok(log)
    }

    /// A new chain in a sink of the embedding program.
    pub fn with_sink(
        chain: &str,
        sink: Box<dyn Sink>,
        opening: &Opening<'_>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, AuditError> {
        Self::start(chain.to_owned(), sink, Keys::new(opening.key), Link::FIRST, &[], opening, clock)
    }

    /// A log that takes no entry, because opening the real one failed with this error: for taking access away all the same.
    /// What must not be done without its entry is not done.
    pub fn closed(why: AuditError, opening: &Opening<'_>, clock: Arc<dyn Clock>) -> Result<Self, AuditError> {
        let sink = Box::new(ClosedSink(Arc::new(why)));
        Self::over(String::new(), sink, Keys::new(opening.key), Link::FIRST, opening.epoch, clock)
    }

    fn start(
        chain: String,
        sink: Box<dyn Sink>,
        keys: Keys,
        link: Link,
        heads: &[Head],
        opening: &Opening<'_>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, AuditError> {
        let log = Self::over(chain, sink, keys, link, opening.epoch, clock)?;
        log.shared.write(|line| opened(line, &log.chain, opening.agent, heads))?;
        Ok(log)
    }

    fn over(
        chain: String,
        sink: Box<dyn Sink>,
        keys: Keys,
        link: Link,
        epoch: Option<u64>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, AuditError> {
        let writer = Writer::new(link, epoch);
        let state = State { writer: Some(writer), since: Duration::ZERO, waiting: 0 };
        let shared = Arc::new(Shared {
            sink,
            keys,
            tagged: ArcSwapOption::empty(),
            clock,
            state: Mutex::new(state),
            free: Condvar::new(),
            dirty: AtomicBool::new(false),
            syncing: AtomicU64::new(0),
            not_durable: AtomicBool::new(false),
            closing: Mutex::new(false),
            wake: Condvar::new(),
        });
        let syncer = std::thread::Builder::new().name("audit-sync".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.keep_durable()
        });
        let syncer = Some(syncer.map_err(AuditError::Write)?);
        Ok(Self { shared, syncer, chain, last_epoch: None })
    }

    /// Appends an entry. When this returns, the entry has left the process.
    ///
    /// It costs a hash and one `write(2)`. It blocks the thread while other threads append, at most two seconds.
    pub fn append(&self, event: &Event) -> Result<Position, AuditError> {
        // What doesn't depend on the entry before is written down before the log is taken: others wait for what is left.
        let tag = event.user.as_ref().map(|user| self.shared.tag(user));
        MEMBERS.with_borrow_mut(|members| {
            members.clear();
            event.write(members, tag.as_ref().map(|tagged| tagged.1.as_str()));
            self.shared.write(|writer| {
                if event.epoch.is_some() {
                    writer.epoch = event.epoch;
                }
                writer.line.extend_from_slice(members);
            })
        })
    }

    /// The name of this process's chain, which is its file's name without the extension.
    pub fn chain(&self) -> &str {
        &self.chain
    }

    /// The highest epoch of the vault that the log knew of when it was opened. A vault with a lower one is an old copy.
    pub fn last_epoch(&self) -> Option<u64> {
        self.last_epoch
    }

    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.shared.state().writer.is_some()
    }
}

fn opened(writer: &mut Writer, chain: &str, agent: Option<AgentId>, heads: &[Head]) {
    let line = &mut writer.line;
    event::text(line, "kind", "opened");
    event::number(line, "format", FORMAT);
    event::text(line, "chain", chain);
    if let Some(agent) = agent {
        event::hexed(line, "agent", "sha256:", agent.as_bytes());
    }
    line.extend_from_slice(b",\"heads\":[");
    for (n, head) in heads.iter().enumerate() {
        line.extend_from_slice(if n > 0 { b",{" } else { b"{" });
        line.extend_from_slice(b"\"torn\":");
        line.extend_from_slice(if head.torn { b"true" } else { b"false" });
        event::text(line, "chain", &head.chain);
        event::number(line, "seq", head.seq);
        event::hexed(line, "hash", "", &head.hash);
        line.push(b'}');
    }
    line.push(b']');
}

impl Shared {
    fn write(&self, members: impl FnOnce(&mut Writer)) -> Result<Position, AuditError> {
        self.check_durability()?;
        let mut writer = self.take_writer()?;
        let result = self.write_line(&mut writer, members);
        let mut state = self.state();
        state.writer = Some(writer);
        if state.waiting > 0 {
            self.free.notify_one();
        }
        drop(state);
        if result.is_ok() && !self.dirty.swap(true, Ordering::AcqRel) {
            // Taken, so that the thread doesn't fall asleep between its look at the flag and this.
            drop(self.closing.lock());
            self.wake.notify_one();
        }
        result
    }

    /// How a user is written.
    fn tag(&self, user: &UserId) -> Arc<(UserId, String)> {
        if let Some(tagged) = self.tagged.load_full().filter(|tagged| tagged.0 == *user) {
            return tagged;
        }
        let tagged = Arc::new((user.clone(), self.keys.user_tag(user)));
        self.tagged.store(Some(Arc::clone(&tagged)));
        tagged
    }

    fn write_line(&self, writer: &mut Writer, members: impl FnOnce(&mut Writer)) -> Result<Position, AuditError> {
        let (link, epoch) = (writer.link, writer.epoch);
        writer.line.clear();
        Keys::begin(&mut writer.line, &link);
        writer.stamp(self.clock.now());
        members(writer);
        if let Some(epoch) = writer.epoch {
            event::number(&mut writer.line, "epoch", epoch);
        }
        let next = self.keys.seal(&mut writer.line, &link);
        writer.line.push(b'\n');
        match self.sink.append(&writer.line) {
            Ok(()) => {
                writer.link = next;
                Ok(Position { seq: link.seq, hash: Digest::from_bytes(next.prev) })
            }
            Err(error) => {
                writer.epoch = epoch;
                Err(AuditError::Write(error))
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_writer(&self) -> Result<Writer, AuditError> {
        for _ in 0..LOOKS {
            if let Ok(mut state) = self.state.try_lock()
                && let Some(writer) = state.writer.take()
            {
                state.since = self.clock.monotonic();
                return Ok(writer);
            }
            std::hint::spin_loop();
        }
        let mut state = self.state();
        let mut glances = 0;
        loop {
            let now = self.clock.monotonic();
            if let Some(writer) = state.writer.take() {
                state.since = now;
                return Ok(writer);
            }
            // A clock that jumps must not make a healthy write look like a hanging one: some real time passes too.
            if glances > 2 && now.saturating_sub(state.since) >= PATIENCE {
                return Err(AuditError::Hanging);
            }
            glances += 1;
            state.waiting += 1;
            state = self.free.wait_timeout(state, GLANCE).unwrap_or_else(PoisonError::into_inner).0;
            state.waiting -= 1;
        }
    }

    fn check_durability(&self) -> Result<(), AuditError> {
        if self.not_durable.load(Ordering::Acquire) {
            return Err(AuditError::NotDurable);
        }
        for _ in 0..3 {
            let since = self.syncing.load(Ordering::Acquire);
            if since == 0 || self.micros().saturating_sub(since) < u64::try_from(PATIENCE.as_micros()).unwrap_or(0) {
                return Ok(());
            }
            std::thread::sleep(GLANCE);
        }
        Err(AuditError::Hanging)
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.clock.monotonic().as_micros()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// What the thread does until the log is closed.
    fn keep_durable(&self) {
        let closing = || self.closing.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let idle = |closing: &mut bool| !*closing && !self.dirty.load(Ordering::Acquire);
            let closed = *self.wake.wait_while(closing(), idle).unwrap_or_else(PoisonError::into_inner);
            if self.dirty.swap(false, Ordering::AcqRel) {
                self.syncing.store(self.micros(), Ordering::Release);
                // After a failed `fsync(2)` the system may have dropped what it could not write: it stays failed.
                if self.sink.sync().is_err() {
                    self.not_durable.store(true, Ordering::Release);
                }
                self.syncing.store(0, Ordering::Release);
            } else if closed {
                return;
            }
            drop(self.wake.wait_timeout_while(closing(), REST, |closing| !*closing));
        }
    }
}

impl Drop for AuditLog {
    /// Makes durable what was written.
    fn drop(&mut self) {
        *self.shared.closing.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.wake.notify_one();
        if let Some(syncer) = self.syncer.take()
            && self.shared.check_durability().is_ok()
        {
            // It panics nowhere; and if it did, there is nothing left to do about it here.
            let _ = syncer.join();
        }
    }
}

impl std::fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuditLog").field("chain", &self.chain).finish_non_exhaustive()
    }
}
