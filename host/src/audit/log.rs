//! The writing side.

use std::cell::RefCell;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::try_join_all;

use crate::clock::{Clock, Timestamp};
use crate::id::{AgentId, Digest, UserId};
use crate::recall::Recall;
use crate::secret::Key;

use super::aside::Aside;
use super::chain::{FORMAT, Keys, Link};
use super::checkpoint::Signer;
use super::durable::{Durable, Syncer};
use super::elsewhere::{Elsewhere, Line, Ticket};
use super::event::{self, Event};
use super::folder::{self, Head, Past, Place};
use super::health::Failures;
use super::settings::Settings;
use super::sink::{ClosedSink, Inode, Sink};
use super::stream::{self, Source};
use super::together::Together;
use super::witness::{Chain, Witness};

/// A sink that takes longer than this for one line, or for making lines durable, counts as hanging.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// How often a thread looks whether the writer is back before it sleeps. A line is written in microseconds, as long as it takes
/// to fall asleep and be woken.
const LOOKS: u32 = 200;
/// How often a waiting writer looks at the clock.
pub(super) const GLANCE: Duration = Duration::from_millis(20);
/// So many entries at the most are not known to be durable: what is kept of them until then must not fill the memory.
const MOST_PENDING: usize = 1 << 20;
/// So many users are written without a thought.
const MOST_TAGGED: usize = 4096;

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
    /// What was written isn't where it belongs any more.
    #[error(
        "the audit log is not where it belongs ({why}), so no token is released; put it back, or restart: then another file is begun"
    )]
    Astray {
        /// What is found instead.
        why: String,
    },
    /// A sink besides the log's own file takes no entries.
    #[error("the audit sink {sink} takes no entries ({why}), so no token is released; mend it, or change audit.toml")]
    Elsewhere {
        /// Which one.
        sink: String,
        /// Why, as it says.
        why: String,
    },
    /// A sink besides the log's own file takes too long.
    #[error("the audit sink {sink} has not answered for 2 s, so no token is released; check it, or change audit.toml")]
    ElsewhereHanging {
        /// Which one.
        sink: String,
    },
    /// A checkpoint can't be kept where it has to be.
    #[error("a checkpoint of the audit log can't be kept in {place} ({why}), so no token is released; mend that")]
    Checkpoint {
        /// Where.
        place: String,
        /// Why not.
        why: String,
    },
    /// Where a checkpoint has to be kept takes too long.
    #[error(
        "a checkpoint of the audit log was not taken by {place} for 2 s, so no token is released; check it, or change audit.toml"
    )]
    CheckpointHanging {
        /// Where.
        place: String,
    },
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
    /// How it is kept.
    pub settings: &'a Settings,
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
    pub(super) shared: Arc<Shared>,
    _syncer: Syncer,
    pub(super) elsewhere: Vec<Elsewhere>,
    /// Where lines are written that may hang.
    writing: Aside,
    /// Where changes are told, which is never done by who waits for them.
    pub(super) telling: Aside,
    strict: bool,
    chain: String,
    pub(super) dir: Option<PathBuf>,
    last_epoch: Option<u64>,
}

thread_local! {
    /// Where a thread writes down an entry, without what links it.
    static MEMBERS: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(1024));
}

pub(super) struct Shared {
    /// Dropped before the file, so that the last checkpoint is there before another process goes on with the chain.
    pub(super) witness: Option<Witness>,
    pub(super) sink: Box<dyn Sink>,
    others: Vec<Arc<Line>>,
    keys: Keys,
    /// The user of the entry before, and how it is written: entries of one call follow each other.
    tagged: Recall<UserId, Arc<str>>,
    pub(super) clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Signals that the writer has been put back.
    free: Condvar,
    /// Lines were written since the last time they were made durable.
    pub(super) dirty: AtomicBool,
    pub(super) durable: Durable,
    pub(super) together: Together,
    pub(super) failures: Failures,
}

struct State {
    /// Absent while a line is being written.
    writer: Option<Writer>,
    /// Since when it is absent.
    since: Duration,
    /// Somebody has waited too long for it: the others don't have to.
    hangs: bool,
    waiting: usize,
    /// The number of the next entry.
    written: u64,
    /// The hashes of the entries that were written since the last time they were made durable.
    hashes: Vec<[u8; 32]>,
}

struct Writer {
    link: Link,
    epoch: Option<u64>,
    /// The lines that are being written.
    lines: Vec<u8>,
    /// Where each of them ends, and what the next one is linked to.
    ends: Vec<(usize, Link)>,
    /// The second of the entry before, as a number and as it is written.
    second: (i64, String),
    past: Past,
}

impl Writer {
    fn new(link: Link, epoch: Option<u64>, past: Past) -> Self {
        let (lines, second) = (Vec::with_capacity(1024), (i64::MIN, String::new()));
        Self { link, epoch, lines, ends: Vec::new(), second, past }
    }

    /// `,"time":"2026-11-24T08:00:00.000000Z"`, and `after` likewise once the clock was set back.
    fn stamp(&mut self, now: Timestamp) {
        let micros = now.as_microsecond();
        let (second, micros) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
        if self.second.0 != second {
            self.second = (second, now.strftime("%Y-%m-%dT%H:%M:%S").to_string());
        }
        // Writing to a `Vec` can't fail.
        let _ = write!(self.lines, ",\"time\":\"{}.{micros:06}Z\"", self.second.1);
        self.past.was_set_back |= now < self.past.latest;
        if self.past.was_set_back {
            let _ = write!(self.lines, ",\"after\":\"{}\"", self.past.latest.strftime("%Y-%m-%dT%H:%M:%S.%6fZ"));
        }
        self.past.latest = self.past.latest.max(now);
    }
}

impl AuditLog {
    /// Opens the log in this folder, which is made if it isn't there, and writes an `opened` entry.
    pub fn open(dir: &Path, opening: &Opening<'_>, clock: Arc<dyn Clock>) -> Result<Self, AuditError> {
        let keys = Keys::new(opening.key);
        let place = folder::take_place(dir, &keys, &*clock)
            .map_err(|source| AuditError::Folder { path: dir.to_owned(), source })?;
        let Place { chain, sink, link, past, heads, epoch } = place;
        let (inode, path) = (Some(sink.inode()), dir.join(&chain).with_extension(folder::EXTENSION));
        let held = sink.file().try_clone().map_err(|source| AuditError::Folder { path: path.clone(), source })?;
        let begun = Begun { chain, link, past, heads: &heads, dir: Some(dir), inode };
        let mut log = Self::start(begun, Box::new(sink), keys, opening, clock)
            .inspect_err(|_| folder::take_away_empty(&path, &held))?;
        log.last_epoch = epoch;
        Ok(log)
    }

    /// Opens a log on a thread of its own. Where that takes longer than this, the answer is [`AuditError::Hanging`]; a log that
    /// opens after all is closed again.
    pub async fn open_within(
        patience: Duration,
        clock: Arc<dyn Clock>,
        open: impl FnOnce() -> Result<Self, AuditError> + Send + 'static,
    ) -> Result<Self, AuditError> {
        Aside::new("audit-open", clock).run_within(patience, open).await.flatten()
    }

    /// A new chain in a sink of the embedding program.
    pub fn with_sink(
        chain: &str,
        sink: Box<dyn Sink>,
        opening: &Opening<'_>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, AuditError> {
        let begun =
            Begun { chain: chain.to_owned(), link: Link::FIRST, past: Past::NONE, heads: &[], dir: None, inode: None };
        Self::start(begun, sink, Keys::new(opening.key), opening, clock)
    }

    /// A log that takes no entry, because opening the real one failed with this error: for taking access away all the same.
    /// What must not be done without its entry is not done.
    pub fn closed(why: AuditError, opening: &Opening<'_>, clock: Arc<dyn Clock>) -> Result<Self, AuditError> {
        let sink = Box::new(ClosedSink(Arc::new(why)));
        let begun =
            Begun { chain: String::new(), link: Link::FIRST, past: Past::NONE, heads: &[], dir: None, inode: None };
        Self::over(begun, sink, Keys::new(opening.key), opening, &Settings::default(), clock)
    }

    fn start(
        begun: Begun<'_>,
        sink: Box<dyn Sink>,
        keys: Keys,
        opening: &Opening<'_>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, AuditError> {
        let heads = begun.heads;
        let log = Self::over(begun, sink, keys, opening, opening.settings, clock)?;
        log.shared.write(|line| opened(line, &log.chain, opening.agent, heads))?;
        Ok(log)
    }

    fn over(
        begun: Begun<'_>,
        sink: Box<dyn Sink>,
        keys: Keys,
        opening: &Opening<'_>,
        settings: &Settings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, AuditError> {
        let Begun { chain, link, past, dir, inode, .. } = begun;
        let writer = Some(Writer::new(link, opening.epoch, past));
        let state =
            State { writer, since: Duration::ZERO, hangs: false, waiting: 0, written: link.seq, hashes: Vec::new() };
        let file = dir.and_then(|dir| folder::checked_path_of(dir, &chain));
        // A name that an embedding program made up may be none for a file.
        let witness = folder::checked_path_of(Path::new("/"), &chain).map(|_| {
            let folders = dir.map(Path::to_owned).into_iter().chain(settings.witnesses());
            let before = file.clone().filter(|_| link.seq > 0).map(|file| (file, link.seq));
            let (name, every) = (chain.clone(), settings.checkpoint_every);
            Witness::start(Chain { name, signer: Signer::new(opening.key), every, before }, folders, &clock)
        });
        let elsewhere = settings.sinks.iter().map(|destination| {
            let source = file.clone().zip(inode).map(|(path, inode)| Source { path, inode });
            let sink = stream::sink(destination, &chain, source);
            Elsewhere::start(destination.name(), sink, settings.strict, Arc::clone(&clock)).map_err(AuditError::Write)
        });
        let elsewhere = elsewhere.collect::<Result<Vec<_>, _>>()?;
        let shared = Arc::new(Shared {
            witness: witness.transpose().map_err(AuditError::Write)?,
            sink,
            others: elsewhere.iter().map(Elsewhere::line).collect(),
            keys,
            tagged: Recall::new(MOST_TAGGED),
            clock: Arc::clone(&clock),
            state: Mutex::new(state),
            free: Condvar::new(),
            dirty: AtomicBool::new(false),
            durable: Durable::default(),
            together: Together::default(),
            failures: Failures::default(),
        });
        let syncer = Syncer::start(&shared).map_err(AuditError::Write)?;
        Ok(Self {
            shared,
            _syncer: syncer,
            elsewhere,
            writing: Aside::new("audit-write", Arc::clone(&clock)),
            telling: Aside::new("audit-tell", clock),
            strict: settings.strict,
            chain,
            dir: dir.map(Path::to_owned),
            last_epoch: None,
        })
    }

    /// Appends an entry. When this returns, the entry has left the process.
    ///
    /// It costs a hash and one `write(2)`, and blocks for two seconds at the most: then the answer is
    /// [`AuditError::Hanging`], also while the line is still on its way. Only on a disk of this machine the thread that writes
    /// blocks for as long as the disk takes; the others don't. It waits for no other sink, so that what takes something away
    /// goes on while one of them fails.
    pub fn append(&self, event: &Event) -> Result<Position, AuditError> {
        let appended = if self.shared.sink.is_local() {
            self.shared.append(event)
        } else {
            let (shared, event) = (Arc::clone(&self.shared), event.clone());
            self.writing.run_blocking(move || shared.append(&event)).flatten()
        };
        self.noted(appended.map(|(position, _)| position))
    }

    /// Appends an entry as [`append`](Self::append) does, together with those of others that come at the same time. It is on its
    /// way as soon as this is polled, and is written also if this is dropped then. Where other sinks are configured it is written
    /// alone: of several lines, one that is taken back could have been copied already.
    pub async fn append_with_others(&self, event: &Event) -> Result<Position, AuditError> {
        if event.epoch.is_some() || !self.elsewhere.is_empty() || !self.shared.sink.is_local() {
            return self.append(event);
        }
        self.noted(self.shared.append_together(event).await)
    }

    /// Appends an entry as [`append`](Self::append) does, on another thread whatever it is written to: for what takes something
    /// away, which goes on after two seconds on any disk.
    pub async fn append_aside(&self, event: Event) -> Result<Position, AuditError> {
        let shared = Arc::clone(&self.shared);
        // Not on the thread that tells: it may have long files to read first.
        let appended = self.writing.run(move || shared.append(&event)).await.flatten();
        self.noted(appended.map(|(position, _)| position))
    }

    pub(super) fn noted<T>(&self, result: Result<T, AuditError>) -> Result<T, AuditError> {
        result.inspect_err(|_| self.shared.failures.note(self.shared.clock.as_ref()))
    }

    /// Appends the entry of a release. When this returns, whatever is configured has the entry: every sink, and in strict mode
    /// the disk.
    ///
    /// A sink that fails, or takes two seconds, is an error, and the token must not be released.
    pub async fn append_for_release(&self, event: &Event) -> Result<Position, AuditError> {
        self.noted(self.append_everywhere(event).await)
    }

    async fn append_everywhere(&self, event: &Event) -> Result<Position, AuditError> {
        self.elsewhere.iter().try_for_each(Elsewhere::healthy)?;
        self.shared.check_checkpoints()?;
        self.shared.check_place()?;
        let (position, tickets) = if self.shared.sink.is_local() {
            self.shared.append(event)?
        } else {
            let (shared, event) = (Arc::clone(&self.shared), event.clone());
            self.writing.run(move || shared.append(&event)).await.flatten()?
        };
        if !tickets.is_empty() {
            try_join_all(self.elsewhere.iter().zip(tickets).map(|(sink, ticket)| sink.taken(ticket))).await?;
        }
        if self.strict {
            self.shared.until_durable(position.seq.saturating_add(1)).await?;
            self.shared.check_place()?;
        }
        Ok(position)
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
    pub(super) fn fill_pending(&self) {
        self.shared.state().hashes.resize(MOST_PENDING, [0; 32]);
    }
}

fn opened(writer: &mut Writer, chain: &str, agent: Option<AgentId>, heads: &[Head]) {
    let line = &mut writer.lines;
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

/// Where the entry stands that the next one is linked to so.
fn position(next: Link) -> Position {
    Position { seq: next.seq.saturating_sub(1), hash: Digest::from_bytes(next.prev) }
}

/// A chain that is begun, or gone on with.
struct Begun<'a> {
    chain: String,
    link: Link,
    past: Past,
    heads: &'a [Head],
    dir: Option<&'a Path>,
    /// Which file stands there, as it was opened.
    inode: Option<Inode>,
}

impl Shared {
    /// Writes an entry, and hands it on to the other sinks.
    pub(super) fn append(&self, event: &Event) -> Result<(Position, Vec<Ticket>), AuditError> {
        // What doesn't depend on the entry before is written down before the log is taken: others wait for what is left.
        let tag = self.tag_of(event);
        MEMBERS.with_borrow_mut(|members| {
            members.clear();
            event.write(members, tag.as_deref());
            self.write(|writer| {
                if event.epoch.is_some() {
                    writer.epoch = event.epoch;
                }
                writer.lines.extend_from_slice(members);
            })
        })
    }

    fn write(&self, members: impl FnOnce(&mut Writer)) -> Result<(Position, Vec<Ticket>), AuditError> {
        self.write_lines(|log, writer| log.compose(writer, members), |link, _| position(link))
    }

    /// Writes entries of which none changes the epoch, all or none.
    pub(super) fn write_all<'a>(&self, entries: impl Iterator<Item = &'a [u8]>) -> Result<Vec<Position>, AuditError> {
        let compose = |log: &Self, writer: &mut Writer| {
            for members in entries {
                log.compose(writer, |writer| writer.lines.extend_from_slice(members));
            }
        };
        let positions = |_: Link, ends: &[(usize, Link)]| ends.iter().map(|(_, next)| position(*next)).collect();
        self.write_lines(compose, positions).map(|(positions, _)| positions)
    }

    /// Writes lines that belong together. What is asked for of their places is made while nobody else writes.
    fn write_lines<T>(
        &self,
        compose: impl FnOnce(&Self, &mut Writer),
        told: impl FnOnce(Link, &[(usize, Link)]) -> T,
    ) -> Result<(T, Vec<Ticket>), AuditError> {
        self.check_durability()?;
        let mut writer = self.take_writer()?;
        let before = (writer.link, writer.epoch);
        writer.lines.clear();
        writer.ends.clear();
        compose(self, &mut writer);
        let result = self.sink.append(&writer.lines).map_err(AuditError::Write);
        let mut tickets = Vec::new();
        if result.is_err() {
            (writer.link, writer.epoch) = before;
        } else if !self.others.is_empty() {
            // While the writer is held, so that each sink gets the lines in their order.
            let mut start = 0;
            for (end, _) in &writer.ends {
                let line = Arc::from(writer.lines.get(start..*end).unwrap_or_default());
                tickets.extend(self.others.iter().map(|sink| sink.push(&line)));
                start = *end;
            }
        }
        let result = result.map(|()| (told(writer.link, &writer.ends), tickets));
        let mut state = self.state();
        if result.is_ok() {
            state.written = writer.link.seq;
            state.hashes.extend(writer.ends.iter().map(|(_, next)| next.prev));
        }
        state.writer = Some(writer);
        state.hangs = false;
        if state.waiting > 0 {
            self.free.notify_one();
        }
        drop(state);
        if result.is_ok() && !self.dirty.swap(true, Ordering::AcqRel) {
            self.durable.wake();
        }
        result
    }

    /// Adds a line to those that are being written.
    fn compose(&self, writer: &mut Writer, members: impl FnOnce(&mut Writer)) {
        let (link, start) = (writer.link, writer.lines.len());
        Keys::begin(&mut writer.lines, &link);
        writer.stamp(self.clock.now());
        members(writer);
        if let Some(epoch) = writer.epoch {
            event::number(&mut writer.lines, "epoch", epoch);
        }
        writer.link = self.keys.seal(&mut writer.lines, start, &link);
        writer.lines.push(b'\n');
        writer.ends.push((writer.lines.len(), writer.link));
    }

    /// How the user of an event is written.
    pub(super) fn tag_of(&self, event: &Event) -> Option<Arc<str>> {
        event.user.as_ref().map(|user| self.tag(user))
    }

    /// How a user is written.
    fn tag(&self, user: &UserId) -> Arc<str> {
        self.tagged.get(user).unwrap_or_else(|| {
            let tag: Arc<str> = self.keys.user_tag(user).into();
            self.tagged.put(user.clone(), Arc::clone(&tag));
            tag
        })
    }

    /// The number of the next entry, and the hashes of those that were written since the last time this was asked.
    pub(super) fn take_written(&self) -> (u64, Vec<[u8; 32]>) {
        let mut state = self.state();
        (state.written, std::mem::take(&mut state.hashes))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_writer(&self) -> Result<Writer, AuditError> {
        for _ in 0..LOOKS {
            if let Ok(mut state) = self.state.try_lock()
                && state.hashes.len() < MOST_PENDING
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
            if state.hashes.len() >= MOST_PENDING {
                return Err(AuditError::Hanging);
            }
            if let Some(writer) = state.writer.take() {
                state.since = now;
                return Ok(writer);
            }
            // A clock that jumps must not make a healthy write look like a hanging one: some real time passes too.
            if state.hangs || glances > 2 && now.saturating_sub(state.since) >= PATIENCE {
                state.hangs = true;
                return Err(AuditError::Hanging);
            }
            glances += 1;
            state.waiting += 1;
            state = self.free.wait_timeout(state, GLANCE).unwrap_or_else(PoisonError::into_inner).0;
            state.waiting -= 1;
        }
    }
}

impl std::fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuditLog").field("chain", &self.chain).finish_non_exhaustive()
    }
}
