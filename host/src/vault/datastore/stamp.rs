//! Whether anything was committed since, by any process.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Mutex, PoisonError};

use rustix::mm::{MapFlags, ProtFlags, mmap};

/// The first copy of SQLite's WAL-index header, 48 bytes: change counter, frame count, checksums and salts.
type Header = [AtomicU64; WORDS];
const WORDS: usize = 6;

/// The state of the database at a moment. Two equal stamps: nothing was committed between them.
//
// Each commit in WAL mode writes this header before it is acknowledged and before any reader sees it
// (<https://sqlite.org/walformat.html>, section 2.1). It is shared memory: reading it costs neither a system call nor a connection.
// `PRAGMA data_version` takes and gives back a file lock each time. A read that is torn by a commit differs from the stamp before in the
// words that are new and from the one after in those that are old, unless none or all that changed were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp([u64; WORDS]);

/// Reads stamps of one database.
#[derive(Debug)]
pub(crate) struct Watch(&'static Header);

/// The WAL-index files of this process, by device and inode. They stay open and mapped: POSIX drops all locks that a process has on a
/// file when the process closes any descriptor of it, and SQLite's locks on this file keep other processes from resetting it.
static OPEN: Mutex<BTreeMap<(u64, u64), &'static Header>> = Mutex::new(BTreeMap::new());

impl Watch {
    /// Watches the database at this path, which SQLite must have open in WAL mode for as long as stamps are read.
    pub(crate) fn open(database: &Path) -> io::Result<Self> {
        // SQLite keeps it beside the file itself, not beside a link to it.
        let mut path = fs::canonicalize(database)?.into_os_string();
        path.push("-shm");
        let key = |metadata: Metadata| (metadata.dev(), metadata.ino());
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(header) = open.get(&key(fs::metadata(&path)?)) {
            return Ok(Self(header));
        }
        let file: &'static File = Box::leak(Box::new(File::open(&path)?));
        let header = map(file)?;
        open.insert(key(file.metadata()?), header);
        Ok(Self(header))
    }

    /// The stamp of this moment.
    pub(crate) fn now(&self) -> Stamp {
        let words = self.0.each_ref().map(|word| word.load(Ordering::Relaxed));
        // What is read of the database from here on is no older.
        fence(Ordering::Acquire);
        Stamp(words)
    }
}

fn map(file: &File) -> io::Result<&'static Header> {
    let size = size_of::<Header>();
    if file.metadata()?.len() < size as u64 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "SQLite has not written its index yet"));
    }
    // SAFETY: a new mapping, at a place that the system chooses, overlaps nothing. It begins with a page, so words are aligned in it, and it is
    // never unmapped, so the reference may live as long as the process. It may only be read, and is read by relaxed loads of one
    // word, which memory that can't be written admits. SQLite writes to it from C, here and in other processes: any words that
    // come of that are valid numbers. It can be read for as long as the file is not cut; SQLite cuts it only where nobody has
    // the database open, and reads it through a mapping itself.
    #[expect(unsafe_code, reason = "memory that processes share can't be read otherwise; the argument stands above")]
    let header = unsafe {
        let start = mmap(ptr::null_mut(), size, ProtFlags::READ, MapFlags::SHARED, file, 0)?;
        &*start.cast::<Header>()
    };
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_changes_with_each_commit_of_anybody_and_not_with_reading() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vault.db");
        let open = || {
            let sql = rusqlite::Connection::open(&path).unwrap();
            sql.pragma_update(None, "journal_mode", "wal").unwrap();
            sql
        };
        let (ours, others) = (open(), open());
        ours.execute_batch("CREATE TABLE numbers (number INTEGER)").unwrap();
        let link = dir.path().join("link.db");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let (watch, again) = (Watch::open(&path).unwrap(), Watch::open(&link).unwrap());
        let mut last = watch.now();
        for sql in [&ours, &others, &ours] {
            sql.query_row("SELECT count(*) FROM numbers", [], |_| Ok(())).unwrap();
            assert_eq!(watch.now(), last);
            sql.execute("INSERT INTO numbers VALUES (1)", []).unwrap();
            assert_ne!(watch.now(), last);
            last = again.now();
            assert_eq!(watch.now(), last);
        }
    }

    #[test]
    fn a_file_that_is_no_index_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vault.db");
        fs::write(&path, "").unwrap();
        fs::write(dir.path().join("vault.db-shm"), [0; 47]).unwrap();
        assert_eq!(Watch::open(&path).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
