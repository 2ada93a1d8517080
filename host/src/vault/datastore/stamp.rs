//! Whether anything was committed since, by any process.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;

/// The first copy of SQLite's WAL-index header: change counter, frame count, checksums and salts.
const HEADER: usize = 48;

/// The state of the database at a moment. Two equal stamps: nothing was committed between them.
//
// Each commit in WAL mode writes this header before it is acknowledged and before any reader sees it
// (<https://sqlite.org/walformat.html>, section 2.1). Reading it costs one `pread` and needs no connection; `PRAGMA
// data_version` takes and gives back a file lock, which is five times as slow. A read that is torn by a commit equals
// neither the stamp before nor the one after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp([u8; HEADER]);

/// A stamp that was read so recently is read no more, unless this process has committed since: what another one has committed in
/// between could as well have come after it.
const MOMENT: Duration = Duration::from_micros(100);

/// Reads stamps of one database.
#[derive(Debug)]
pub(crate) struct Watch {
    watched: Arc<Watched>,
    latest: ArcSwapOption<Latest>,
}

/// A database, for all who have it open in this process.
#[derive(Debug)]
pub(super) struct Watched {
    index: File,
    /// How often this process has committed.
    commits: AtomicU64,
}

/// A stamp that was read, when, and after how many commits.
#[derive(Debug)]
struct Latest {
    stamp: Stamp,
    at: Duration,
    commits: u64,
}

/// The open WAL-index files of this process. They are never closed: POSIX drops all locks that a process has on a file
/// when the process closes any descriptor of it, and SQLite's locks on this file keep other processes from resetting it.
static OPEN: Mutex<BTreeMap<(u64, u64), Arc<Watched>>> = Mutex::new(BTreeMap::new());

impl Watch {
    /// Watches the database at this path, which SQLite must have open in WAL mode.
    pub(crate) fn open(database: &Path) -> io::Result<Self> {
        let mut path = database.as_os_str().to_owned();
        path.push("-shm");
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let metadata = std::fs::metadata(&path)?;
        let key = (metadata.dev(), metadata.ino());
        let watched = if let Some(watched) = open.get(&key) {
            Arc::clone(watched)
        } else {
            let watched = Arc::new(Watched { index: File::open(&path)?, commits: AtomicU64::new(0) });
            open.insert(key, Arc::clone(&watched));
            watched
        };
        Ok(Self { watched, latest: ArcSwapOption::empty() })
    }

    /// What is told of commits.
    pub(super) fn watched(&self) -> Arc<Watched> {
        Arc::clone(&self.watched)
    }

    /// The stamp of this moment, by a clock that never goes back; `None` when it can't be read, and then nothing may be taken from a
    /// cache.
    pub(crate) fn at(&self, now: Duration) -> Option<Stamp> {
        let commits = self.watched.commits.load(Ordering::Acquire);
        if let Some(latest) = &*self.latest.load()
            && latest.commits == commits
            && now.saturating_sub(latest.at) < MOMENT
        {
            return Some(latest.stamp);
        }
        let mut header = [0; HEADER];
        self.watched.index.read_exact_at(&mut header, 0).ok()?;
        let stamp = Stamp(header);
        self.latest.store(Some(Arc::new(Latest { stamp, at: now, commits })));
        Some(stamp)
    }
}

impl Watched {
    /// This process has committed, and nobody has been told yet: who is told sees it.
    pub(super) fn committed(&self) {
        self.commits.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_process_commits_is_seen_at_once_and_what_others_do_after_a_moment() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vault.db");
        let sql = rusqlite::Connection::open(&path).unwrap();
        sql.pragma_update(None, "journal_mode", "wal").unwrap();
        sql.execute_batch("CREATE TABLE numbers (number INTEGER)").unwrap();
        let commit = || sql.execute("INSERT INTO numbers VALUES (1)", []).unwrap();
        let (watch, now) = (Watch::open(&path).unwrap(), Duration::from_secs(9));
        let first = watch.at(now).unwrap();
        commit();
        assert_eq!(watch.at(now + MOMENT / 2), Some(first), "it is read once in a moment");
        let second = watch.at(now + MOMENT).unwrap();
        assert_ne!(first, second);
        commit();
        // Another who watches the same database in this process.
        Watch::open(&path).unwrap().watched().committed();
        assert_ne!(watch.at(now + MOMENT).unwrap(), second);
    }
}
