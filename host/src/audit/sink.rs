//! Where the lines go.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::log::AuditError;

/// Takes the lines of one chain.
pub trait Sink: Send + Sync + 'static {
    /// Takes a line, its line feed included; a sink that is [local](Self::is_local) also several at once. When this returns, they must
    /// survive the death of the process. On an error nothing of them may stay.
    fn append(&self, lines: &[u8]) -> io::Result<()>;

    /// Makes what was appended durable.
    fn sync(&self) -> io::Result<()>;

    /// Whether [`append`](Self::append) hands lines to nobody but this machine's own system, as one to a file on a local disk
    /// does. What may have to wait for another machine or program is called on a thread of its own, so that nobody waits for it
    /// for longer than two seconds. That costs some microseconds a line. Default: it may.
    fn is_local(&self) -> bool {
        false
    }

    /// Whether what was appended is still where it was put, as far as that can be told. It is asked after each
    /// [`sync`](Self::sync). While the answer is an error no token is released, and entries are appended all the same.
    fn check(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for std::sync::Arc<dyn Sink> {
    fn append(&self, lines: &[u8]) -> io::Result<()> {
        (**self).append(lines)
    }

    fn sync(&self) -> io::Result<()> {
        (**self).sync()
    }

    fn is_local(&self) -> bool {
        (**self).is_local()
    }

    fn check(&self) -> io::Result<()> {
        (**self).check()
    }
}

/// Which file it is, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Inode {
    device: u64,
    number: u64,
}

impl Inode {
    /// Of an open file.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        Ok(Self::told_by(&file.metadata()?))
    }

    fn told_by(metadata: &fs::Metadata) -> Self {
        Self { device: metadata.dev(), number: metadata.ino() }
    }

    /// Whether it is the file that stands there.
    pub(super) fn check(self, path: &Path) -> io::Result<()> {
        let why = match fs::symlink_metadata(path) {
            Ok(metadata) if Self::told_by(&metadata) == self => return Ok(()),
            Ok(_) => "was replaced by another while it was written",
            Err(error) if error.kind() == io::ErrorKind::NotFound => "was deleted or moved away while it was written",
            Err(error) => return Err(error),
        };
        Err(io::Error::new(io::ErrorKind::InvalidData, format!("the file {} {why}", path.display())))
    }
}

/// A file that only grows, readable and writable by its owner alone, and locked by the process that writes it.
#[derive(Debug)]
pub struct FileSink {
    file: File,
    path: PathBuf,
    inode: Inode,
    /// How long the file is as far as its lines are whole.
    length: Mutex<Length>,
    is_local: bool,
}

/// The numbers of file systems behind which there is another machine or program, from `linux/magic.h` and the kernel's sources.
const DISTANT: [u64; 14] = [
    0x6969,      // NFS
    0x517b,      // SMB
    0xff53_4d42, // CIFS
    0xfe53_4d42, // SMB2
    0x6573_5546, // FUSE
    0x0102_1997, // 9P
    0x00c3_6400, // Ceph
    0x5346_414f, // AFS
    0x6b41_4653, // AFS of the kernel
    0x7375_7245, // Coda
    0x0bd0_0bd0, // Lustre
    0x4750_4653, // GPFS
    0x0116_1970, // GFS2
    0x7461_636f, // OCFS2
];

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
        let (inode, whole) = (Inode::of(&file)?, file.metadata()?.len());
        if inode.check(path).is_err() {
            // Another process has taken it away before it was locked.
            return Ok(None);
        }
        let length = Mutex::new(Length { whole, torn: false });
        // Of a file system that can't be told nothing is known.
        let kind = rustix::fs::fstatfs(&file).ok().and_then(|about| u64::try_from(about.f_type).ok());
        let is_local = kind.is_some_and(|kind| !DISTANT.contains(&kind));
        Ok(Some(Self { file, path: path.to_owned(), inode, length, is_local }))
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn inode(&self) -> Inode {
        self.inode
    }

    /// Cuts everything away.
    pub(super) fn empty(&self) -> io::Result<()> {
        let mut length = self.length();
        self.file.set_len(0)?;
        *length = Length { whole: 0, torn: false };
        Ok(())
    }

    fn length(&self) -> MutexGuard<'_, Length> {
        self.length.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts half a line away. A file that somebody has made shorter is not filled up.
    fn take_back(&self, whole: u64) -> io::Result<()> {
        if self.file.metadata()?.len() > whole { self.file.set_len(whole) } else { Ok(()) }
    }
}

impl Sink for FileSink {
    fn append(&self, lines: &[u8]) -> io::Result<()> {
        let mut length = self.length();
        if length.torn {
            self.take_back(length.whole)?;
            length.torn = false;
        }
        match (&self.file).write_all(lines) {
            Ok(()) => {
                length.whole = length.whole.saturating_add(lines.len() as u64);
                Ok(())
            }
            Err(error) => {
                // A disk that is full takes the first half of a line.
                length.torn = self.take_back(length.whole).is_err();
                Err(error)
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn is_local(&self) -> bool {
        self.is_local
    }

    fn check(&self) -> io::Result<()> {
        self.inode.check(&self.path)?;
        // Asked for first: lines that come in between only make the file longer.
        let whole = self.length().whole;
        if self.file.metadata()?.len() >= whole {
            return Ok(());
        }
        let why = format!("the file {} was cut while it was written", self.path.display());
        Err(io::Error::new(io::ErrorKind::InvalidData, why))
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

    fn is_local(&self) -> bool {
        true
    }
}
