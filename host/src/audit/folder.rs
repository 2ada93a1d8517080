//! The folder of the chains: their names, their tails, and which one a new process writes on.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};

use crate::clock::{Clock, Timestamp, random};

use super::chain::{Keys, Link};
use super::read::{latest, moment};
use super::sink::{FileSink, Inode};

/// What a chain's file ends in.
pub(super) const EXTENSION: &str = "jsonl";
/// A chain that is longer is left as it is, and the next process begins another.
const LONGEST_CHAIN: u64 = 16 << 20;
/// What is longer without a line feed is no first line.
const LONGEST_BEGINNING: u64 = 1 << 20;

/// The last entry of a chain, as far as it is known.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) chain: String,
    /// The last entry's number, and its hash.
    pub(super) seq: u64,
    pub(super) hash: [u8; 32],
    /// Bytes stand after it that are no line: its process died, or the power went, within a write.
    pub(super) torn: bool,
    pub(super) time: Timestamp,
    /// The clock was set back: the latest time before.
    pub(super) after: Option<Timestamp>,
    pub(super) epoch: Option<u64>,
}

impl Head {
    pub(super) fn next(&self) -> Link {
        Link { seq: self.seq.saturating_add(1), prev: self.hash }
    }

    fn past(&self) -> Past {
        Past { latest: latest(self.time, self.after), was_set_back: self.after.is_some() }
    }
}

/// The times of a chain's entries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Past {
    pub(super) latest: Timestamp,
    /// One has an earlier time than one before it.
    pub(super) was_set_back: bool,
}

impl Past {
    /// Of a chain without entries.
    pub(super) const NONE: Self = Self { latest: Timestamp::MIN, was_set_back: false };
}

/// What a new process writes on.
pub(super) struct Place {
    pub(super) chain: String,
    pub(super) sink: FileSink,
    pub(super) link: Link,
    pub(super) past: Past,
    /// The other chains' heads.
    pub(super) heads: Vec<Head>,
    /// The highest epoch that any chain's last entry names.
    pub(super) epoch: Option<u64>,
}

/// Finds a chain to go on with, or begins one.
///
/// The chain that was written last is never gone on with: only an entry in *another* chain can be a witness of its end.
pub(super) fn take_place(dir: &Path, keys: &Keys, clock: &dyn Clock) -> io::Result<Place> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mut heads = Vec::new();
    let mut free = Vec::new();
    for (chain, path) in chains(dir)? {
        let sink = FileSink::open(&path)?;
        let length = fs::metadata(&path)?.len();
        let head = match &sink {
            Some(sink) => head(&chain, &mut sink.file().try_clone()?, keys)?,
            // What another process is just writing is not torn.
            None => head(&chain, &mut File::open(&path)?, keys)?.map(|head| Head { torn: false, ..head }),
        };
        match (sink, head) {
            (Some(sink), None) if is_hardly_begun(sink.file(), length)? => free.push((sink, chain, None)),
            (Some(sink), Some(head)) if !head.torn && length < LONGEST_CHAIN => {
                free.push((sink, chain, Some(head.time)));
                heads.push(head);
            }
            (_, Some(head)) => heads.push(head),
            // Nothing in its tail checks: `verify` says so.
            (_, None) => {}
        }
    }
    let epoch = heads.iter().filter_map(|head| head.epoch).max();
    let youngest = heads.iter().max_by_key(|head| (head.time, head.seq)).map(|head| head.chain.clone());
    free.retain(|(_, chain, _)| Some(chain) != youngest.as_ref());
    let (chain, sink, link, past) = match free.into_iter().min_by_key(|(_, _, time)| *time) {
        Some((sink, chain, _)) => {
            let head = heads.iter().find(|head| head.chain == chain);
            if head.is_none() && sink.file().metadata()?.len() > 0 {
                tracing::warn!(chain, "a file of the audit log had only a part of its first line; it is begun again");
                sink.empty()?;
            }
            (chain, sink, head.map_or(Link::FIRST, Head::next), head.map_or(Past::NONE, Head::past))
        }
        None => new_chain(dir, clock)?,
    };
    heads.retain(|head| head.chain != chain);
    Ok(Place { chain, sink, link, past, heads, epoch })
}

fn new_chain(dir: &Path, clock: &dyn Clock) -> io::Result<(String, FileSink, Link, Past)> {
    let chain = format!("{}-{}", clock.now().strftime("%Y%m%dT%H%M%SZ"), hex::encode(random::<8>(clock)));
    let path = path_of(dir, &chain);
    let taken = || io::Error::new(io::ErrorKind::AlreadyExists, "another process took the new file");
    let sink = FileSink::open(&path)?.ok_or_else(taken)?;
    File::open(dir)?.sync_all()?;
    Ok((chain, sink, Link::FIRST, Past::NONE))
}

/// Takes away a file on which nothing could be written: it would look like one that was emptied. It is held by this process, so
/// that no other one writes on it.
pub(super) fn take_away_empty(path: &Path, held: &File) {
    let is_empty = held.metadata().is_ok_and(|metadata| metadata.len() == 0);
    if is_empty && Inode::of(held).and_then(|inode| inode.check(path)).is_ok() {
        // What is left does no harm but to look bad.
        let _ = fs::remove_file(path);
    }
}

/// Whether a file has nothing but a part of a first line: the power went while a process began it.
fn is_hardly_begun(file: &File, length: u64) -> io::Result<bool> {
    if length == 0 || length > LONGEST_BEGINNING {
        return Ok(length == 0);
    }
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    let mut beginning = Vec::new();
    Keys::begin(&mut beginning, &Link::FIRST);
    let compared = beginning.len().min(bytes.len());
    Ok(!bytes.contains(&b'\n') && bytes.get(..compared) == beginning.get(..compared))
}

/// The chains of a folder, by name. What is no file is none, whatever it is called: a pipe could be waited for without end.
pub(super) fn chains(dir: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut chains = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        // Not through links: those are refused when they are opened.
        let kind = entry.file_type()?;
        if (kind.is_file() || kind.is_symlink())
            && path.extension().is_some_and(|extension| extension == EXTENSION)
            && let Some(name) = path.file_stem().and_then(|stem| stem.to_str())
        {
            chains.push((name.to_owned(), path));
        }
    }
    chains.sort();
    Ok(chains)
}

/// The file of a chain. `None` where the name is none that this module gives.
pub(super) fn checked_path_of(dir: &Path, chain: &str) -> Option<PathBuf> {
    let plain = !chain.is_empty() && chain.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    plain.then(|| path_of(dir, chain))
}

fn path_of(dir: &Path, chain: &str) -> PathBuf {
    dir.join(chain).with_extension(EXTENSION)
}

#[derive(serde::Deserialize)]
struct Known {
    time: String,
    after: Option<String>,
    epoch: Option<u64>,
}

/// The head of a chain: its last whole line, when that checks.
fn head(chain: &str, file: &mut File, keys: &Keys) -> io::Result<Option<Head>> {
    let end = file.seek(SeekFrom::End(0))?;
    let mut window = 4096;
    loop {
        let start = end.saturating_sub(window);
        file.seek(SeekFrom::Start(start))?;
        let mut tail = Vec::new();
        file.take(end - start).read_to_end(&mut tail)?;
        let whole = tail.iter().rposition(|byte| *byte == b'\n');
        let before = whole.and_then(|end| tail.get(..end)).unwrap_or_default();
        let from = before.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
        let Some(from) = from.or((start == 0).then_some(0)) else {
            window = window.saturating_mul(4);
            continue;
        };
        let line = before.get(from..).unwrap_or_default();
        let Some((next, known)) = keys.check_alone(line).zip(serde_json::from_slice::<Known>(line).ok()) else {
            return Ok(None);
        };
        let Some((time, after)) = known.time.parse().ok().zip(moment(known.after)) else { return Ok(None) };
        let torn = whole.is_some_and(|at| at + 1 != tail.len());
        let (seq, hash) = (next.seq.saturating_sub(1), next.prev);
        return Ok(Some(Head { chain: chain.to_owned(), seq, hash, torn, time, after, epoch: known.epoch }));
    }
}
