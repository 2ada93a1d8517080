//! Sinks that pass lines on: a socket, a program's input, a folder with a copy.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::ioctl_fionread;

use super::folder;
use super::settings::Destination;
use super::sink::{FileSink, Inode, Sink};

/// So many bytes at the end of a copy are compared with the log.
const COMPARED: u64 = 4096;
/// A chain of which there is no copy gets one only where it is no longer: its process died at its beginning. What was written
/// before there was this sink stays where it is.
const MOST_NEW: u64 = 64 << 10;

/// A chain's own file.
pub(super) struct Source {
    pub(super) path: PathBuf,
    /// Which one it is, as it is being written.
    pub(super) inode: Inode,
}

/// The sink for what the settings name. `source` is the chain's own file, where it has one.
pub(super) fn sink(destination: &Destination, chain: &str, source: Option<Source>) -> Box<dyn Sink> {
    match destination {
        Destination::Folder(folder) => Box::new(Copied {
            folder: folder.clone(),
            name: format!("{chain}.jsonl"),
            source,
            file: Mutex::default(),
            reached: AtomicU64::new(0),
        }),
        Destination::Socket(path) => Box::new(Socket { path: path.clone(), stream: Mutex::default() }),
        Destination::Command(words) => Box::new(Program { words: words.clone(), child: Mutex::default() }),
        Destination::Sink(_, sink) => Box::new(std::sync::Arc::clone(sink)),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A Unix stream socket. Where the other side has gone, the next attempt connects anew.
///
/// A line is taken when it is in the socket's buffer: nothing says how much of that the other side has read.
struct Socket {
    path: PathBuf,
    stream: Mutex<Option<UnixStream>>,
}

impl Sink for Socket {
    fn append(&self, line: &[u8]) -> io::Result<()> {
        let mut stream = locked(&self.stream);
        let mut open = match stream.take() {
            Some(open) => open,
            None => UnixStream::connect(&self.path)?,
        };
        open.write_all(line)?;
        *stream = Some(open);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A program, started with the first line, in a process group of its own: it shall see the last entries too.
///
/// A line is taken when the program has read it.
struct Program {
    words: Vec<String>,
    child: Mutex<Option<Child>>,
}

impl Program {
    fn start(&self) -> io::Result<Child> {
        let (program, arguments) = self.words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command.args(arguments).process_group(0).current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
    }

    fn give(running: &mut Child, line: &[u8]) -> io::Result<()> {
        running.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?.write_all(line)?;
        // The pipe holds many lines that a program which hangs, or ends, would never see.
        let mut pause = Duration::from_micros(20);
        while running.stdin.as_ref().map_or(Ok(0), ioctl_fionread)? > 0 {
            if running.try_wait()?.is_some() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            std::thread::sleep(pause);
            pause = pause.saturating_mul(2).min(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Sink for Program {
    fn append(&self, line: &[u8]) -> io::Result<()> {
        let mut child = locked(&self.child);
        let mut running = match child.take() {
            Some(running) => running,
            None => self.start()?,
        };
        if let Err(error) = Self::give(&mut running, line) {
            // One that takes no more input is of no use any more; it may have ended already.
            let _ = running.kill();
            return Err(match running.wait() {
                Ok(status) => io::Error::other(format!("it ended: {status}")),
                Err(_) => error,
            });
        }
        *child = Some(running);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(mut child) = locked(&self.child).take() {
            drop(child.stdin.take());
            // It has its end of input. One that goes on all the same is left alone.
            for _ in 0..100 {
                if !matches!(child.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// The chain's file again, in another folder.
///
/// Each line brings the copy up to where the log is, so that what it missed is made good; the first one brings up the copies of
/// the chains that nobody writes any more, too. A process that was killed may have had no time for it. A copy that goes on where
/// the log has ended, or that is another one, is left alone: it is the proof that the log was cut. Log and copy must each be
/// the file that stands under its name.
struct Copied {
    folder: PathBuf,
    name: String,
    source: Option<Source>,
    file: Mutex<Option<Both>>,
    /// How long the log was, as far as this process has seen it copied.
    reached: AtomicU64,
}

struct Both {
    copy: File,
    inode: Inode,
    length: u64,
    source: Option<File>,
}

impl Copied {
    fn open(&self) -> io::Result<Both> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let nofollow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default();
        let mut options = OpenOptions::new();
        options.append(true).read(true).create(true).mode(0o600).custom_flags(nofollow);
        let mut copy = options.open(self.folder.join(&self.name))?;
        let length = copy.seek(SeekFrom::End(0))?;
        let inode = Inode::of(&copy)?;
        let source = self.source.as_ref().map(|source| File::open(&source.path)).transpose()?;
        Ok(Both { copy, inode, length, source })
    }

    /// Both files are those that stand under their names, and the log is not shorter than it was.
    fn check_places(&self, both: &Both) -> io::Result<()> {
        both.inode.check(&self.folder.join(&self.name))?;
        let Some((source, file)) = self.source.as_ref().zip(both.source.as_ref()) else { return Ok(()) };
        source.inode.check(&source.path)?;
        if Inode::of(file)? != source.inode || file.metadata()?.len() < self.reached.load(Ordering::Relaxed) {
            let why = "the log was cut or replaced while it was written; see `clawcoil audit verify`";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(())
    }

    /// What the copy has, the log must have too.
    fn compare(copy: &File, length: u64, source: &File) -> io::Result<()> {
        let start = length.saturating_sub(COMPARED);
        let size = usize::try_from(length - start).map_err(io::Error::other)?;
        let (mut copied, mut own) = (vec![0; size], vec![0; size]);
        copy.read_exact_at(&mut copied, start)?;
        let is_there = match source.read_exact_at(&mut own, start) {
            Ok(()) => copied == own,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
            Err(error) => return Err(error),
        };
        if is_there {
            return Ok(());
        }
        let why = "the copy there has what this log has not: the log was cut, changed or put back from a backup; \
                   see `clawcoil audit verify`, and move the copy away only when you know why";
        Err(io::Error::new(io::ErrorKind::InvalidData, why))
    }

    /// Brings up the copies of the chains that no process writes.
    fn bring_up_others(&self) -> io::Result<()> {
        let Some(dir) = self.source.as_ref().and_then(|source| source.path.parent()) else { return Ok(()) };
        for (chain, path) in folder::chains(dir)? {
            let name = format!("{chain}.jsonl");
            let is_new = !self.folder.join(&name).exists();
            if name == self.name || is_new && fs::metadata(&path)?.len() > MOST_NEW {
                continue;
            }
            // Held, so that no process begins to write it. One that does already brings up its copy itself.
            let Some(held) = FileSink::open(&path)? else { continue };
            let source = Some(Source { path, inode: held.inode() });
            let (folder, file, reached) = (self.folder.clone(), Mutex::default(), AtomicU64::new(0));
            let copied = Self { folder, name, source, file, reached };
            match copied.open() {
                Ok(mut both) => {
                    copied.bring_up(&mut both, &[])?;
                    both.copy.sync_data()?;
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::error!(chain, %error, "a copy of the audit log is not brought up");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn bring_up(&self, both: &mut Both, line: &[u8]) -> io::Result<()> {
        self.check_places(both)?;
        let new = match &both.source {
            Some(source) => {
                // At each line: a log that is cut while it is written must not look like one without news.
                Self::compare(&both.copy, both.length, source)?;
                let end = source.metadata()?.len();
                let missing = usize::try_from(end.saturating_sub(both.length)).map_err(io::Error::other)?;
                let mut new = vec![0; missing];
                source.read_exact_at(&mut new, both.length)?;
                // A line that is just being written is not copied in part.
                new.truncate(new.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1));
                new
            }
            None => line.to_vec(),
        };
        if let Err(error) = (&both.copy).write_all(&new) {
            both.copy.set_len(both.length)?;
            return Err(error);
        }
        both.length = both.length.saturating_add(new.len() as u64);
        self.reached.store(both.length, Ordering::Relaxed);
        Ok(())
    }
}

impl Sink for Copied {
    fn append(&self, line: &[u8]) -> io::Result<()> {
        let mut file = locked(&self.file);
        let mut both = if let Some(both) = file.take() {
            both
        } else {
            let both = self.open()?;
            self.bring_up_others()?;
            both
        };
        self.bring_up(&mut both, line)?;
        *file = Some(both);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        match &*locked(&self.file) {
            Some(both) => both.copy.sync_data(),
            None => Ok(()),
        }
    }
}
