//! Whether anything was committed since, by any process.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

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

/// Reads stamps of one database.
#[derive(Debug)]
pub(crate) struct Watch(Arc<File>);

/// The open WAL-index files of this process. They are never closed: POSIX drops all locks that a process has on a file
/// when the process closes any descriptor of it, and SQLite's locks on this file keep other processes from resetting it.
static OPEN: Mutex<BTreeMap<(u64, u64), Arc<File>>> = Mutex::new(BTreeMap::new());

impl Watch {
    /// Watches the database at this path, which SQLite must have open in WAL mode.
    pub(crate) fn open(database: &Path) -> io::Result<Self> {
        let mut path = database.as_os_str().to_owned();
        path.push("-shm");
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let metadata = std::fs::metadata(&path)?;
        let key = (metadata.dev(), metadata.ino());
        if let Some(file) = open.get(&key) {
            return Ok(Self(Arc::clone(file)));
        }
        let file = Arc::new(File::open(&path)?);
        open.insert(key, Arc::clone(&file));
        Ok(Self(file))
    }

    /// The stamp of this moment; `None` when it can't be read, and then nothing may be taken from a cache.
    pub(crate) fn now(&self) -> Option<Stamp> {
        let mut header = [0; HEADER];
        self.0.read_exact_at(&mut header, 0).ok().map(|()| Stamp(header))
    }
}
