//! Where the lines go.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::log::AuditError;

/// Takes the lines of one chain.
pub trait Sink: Send + Sync + 'static {
    /// Takes a line, its line feed included. When this returns, the line must survive the death of the process. On an
    /// error nothing of the line may stay.
    fn append(&self, line: &[u8]) -> io::Result<()>;

    /// Makes what was appended durable.
    fn sync(&self) -> io::Result<()>;
}

impl Sink for std::sync::Arc<dyn Sink> {
    fn append(&self, line: &[u8]) -> io::Result<()> {
        (**self).append(line)
    }

    fn sync(&self) -> io::Result<()> {
        (**self).sync()
    }
}

/// A file that only grows, readable and writable by its owner alone, and locked by the process that writes it.
#[derive(Debug)]
pub struct FileSink {
    file: File,
    /// How long the file is as far as its lines are whole.
    length: Mutex<Length>,
}

#[derive(Debug)]
struct Length {
    whole: u64,
    /// A line failed halfway and could not be taken back yet.
    torn: bool,
}

impl FileSink {
    /// Opens or makes the file. `None` when another process writes it.
    ///
    /// Symbolic links are not followed.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        let nofollow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default();
        let file =
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).custom_flags(nofollow).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Ok(None),
            Err(std::fs::TryLockError::Error(error)) => return Err(error),
        }
        let whole = file.metadata()?.len();
        Ok(Some(Self { file, length: Mutex::new(Length { whole, torn: false }) }))
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }
}

impl Sink for FileSink {
    fn append(&self, line: &[u8]) -> io::Result<()> {
        let mut length = self.length.lock().unwrap_or_else(PoisonError::into_inner);
        if length.torn {
            self.file.set_len(length.whole)?;
            length.torn = false;
        }
        match (&self.file).write_all(line) {
            Ok(()) => {
                length.whole = length.whole.saturating_add(line.len() as u64);
                Ok(())
            }
            Err(error) => {
                // A disk that is full takes the first half of a line.
                length.torn = self.file.set_len(length.whole).is_err();
                Err(error)
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Takes nothing, and says why.
#[derive(Debug)]
pub(super) struct ClosedSink(pub(super) Arc<AuditError>);

impl Sink for ClosedSink {
    fn append(&self, _: &[u8]) -> io::Result<()> {
        Err(io::Error::other(Arc::clone(&self.0)))
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
