//! The checking side.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::secret::Key;

use super::chain::{Keys, Link};
use super::checkpoint::{self, BadCheckpoint, Checkpoint, Signer};
use super::folder;
use super::tree::Tree;

/// No line of a log is longer; what follows is not read as a part of it.
pub(super) const LONGEST_LINE: u64 = 16 << 20;

/// What is wrong with an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The line is not what was written.
    #[error("the entry was changed after it was written, or is none")]
    Edited,
    /// The line is whole, but sealed with the key of another vault.
    #[error("the entry is sealed with another key: this is another vault's log, or someone without the key wrote it")]
    OtherKey,
    /// Entries are missing before it.
    #[error("entries up to number {until} are missing here")]
    Missing {
        /// The last one that is missing.
        until: u64,
    },
    /// An entry stands here that belongs before.
    #[error("entry {number} stands here again, or out of its order")]
    Repeated {
        /// The number that it says it has.
        number: u64,
    },
    /// It has the right number and follows another entry than the one before it.
    #[error("the entry doesn't follow the one before it: two histories were joined")]
    Forked,
    /// Bytes without a line feed at the end.
    #[error("the file ends within an entry: it was cut, or something was added")]
    Torn,
    /// The first entry doesn't open this chain.
    #[error("the chain doesn't begin with an entry that opens it under the file's name: it was renamed or replaced")]
    NotOpened,
    /// The file is empty.
    #[error("the file is empty")]
    Empty,
    /// Another chain knows more entries.
    #[error("the chain ends too early: chain {witness} saw its entry {seen}")]
    CutOff {
        /// The chain that knows.
        witness: String,
        /// The entry it saw.
        seen: u64,
    },
    /// Another chain saw another entry here.
    #[error("the chain was written anew: chain {witness} saw another entry at this place")]
    Replaced {
        /// The chain that knows.
        witness: String,
    },
    /// Another chain knows this file.
    #[error("the file is missing: chain {witness} saw its entry {seen}")]
    Deleted {
        /// The chain that knows.
        witness: String,
        /// The entry it saw.
        seen: u64,
    },
    /// A checkpoint has more entries.
    #[error("the chain ends too early: a checkpoint in {} has {size} entries", place.display())]
    CutBelowCheckpoint {
        /// The file with the checkpoint.
        place: PathBuf,
        /// How many entries it has.
        size: u64,
    },
    /// A checkpoint was made of other entries.
    #[error(
        "from here on the chain was written anew: the checkpoint in {} with {size} entries is of another history", place.display()
    )]
    NotOfCheckpoint {
        /// The file with the checkpoint.
        place: PathBuf,
        /// How many entries it has.
        size: u64,
    },
    /// A checkpoint knows this file.
    #[error("the file is missing: a checkpoint in {} has {size} entries of it", place.display())]
    MissingCheckpointed {
        /// The file with the checkpoint.
        place: PathBuf,
        /// How many entries it has.
        size: u64,
    },
}

/// The first entry that is bad.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}, entry {entry}: {fault}", file.display())]
pub struct FirstBad {
    /// The file.
    pub file: PathBuf,
    /// The entry's number, counted from 0. It stands on the line after that number.
    pub entry: u64,
    /// What is wrong.
    pub fault: Fault,
}

/// Why a log doesn't check.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The log is not what was written.
    #[error(transparent)]
    Bad(#[from] FirstBad),
    /// A checkpoint is not what was signed.
    #[error(transparent)]
    Checkpoint(#[from] BadCheckpoint),
    /// The log can't be read.
    #[error("the audit log can't be read at {path}")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Checkpoints in another place can't be read.
    #[error("the checkpoints at {path} can't be read")]
    ReadCheckpoints {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// What was checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many chains.
    pub chains: usize,
    /// How many entries.
    pub entries: u64,
    /// How many signed checkpoints agree with them.
    pub checkpoints: u64,
    /// Chains whose last line is cut, as the next process that started saw and noted: a crash within a write looks so.
    pub torn: Vec<String>,
    /// The highest epoch of the vault that an entry names.
    pub epoch: Option<u64>,
    /// Other places in which there was no checkpoint of this log, so that they say nothing.
    pub silent: Vec<PathBuf>,
}

/// Checks all chains of a folder, each by itself, against what the others saw of it, and against the checkpoints beside them.
///
/// It reads while other processes write: what they are just writing is left out.
pub fn verify(dir: &Path, key: &Key) -> Result<Summary, VerifyError> {
    verify_with(dir, key, &[])
}

/// Checks all chains of a folder as [`verify`] does, and against the checkpoints in other places: folders, or files with one or
/// more of them.
pub fn verify_with(dir: &Path, key: &Key, witnesses: &[PathBuf]) -> Result<Summary, VerifyError> {
    let keys = Keys::new(key);
    // Before the chains are read: those only grow.
    let mut bad_checkpoint = None;
    let mut stated = BTreeMap::<String, Vec<Stated>>::new();
    let signer = Signer::new(key);
    let mut silent = Vec::new();
    for place in std::iter::once(dir).chain(witnesses.iter().map(PathBuf::as_path)) {
        let mut last: Arc<Path> = Arc::from(place);
        let mut says_something = false;
        let read = checkpoint::read(place, &signer, &mut bad_checkpoint, |found| {
            says_something = true;
            if *last != *found.place {
                last = Arc::from(found.place);
            }
            let one = Stated { size: found.size, root: *found.root.as_bytes(), place: Arc::clone(&last) };
            stated.entry(found.chain).or_default().push(one);
        });
        match read {
            Err(error) if place == dir => return Err(unreadable(dir)(error)),
            // A place that is not there yet is made with the first checkpoint.
            Err(error) if error.kind() != io::ErrorKind::NotFound || place.symlink_metadata().is_ok() => {
                return Err(VerifyError::ReadCheckpoints { path: place.to_owned(), source: error });
            }
            _ if !says_something && place != dir => silent.push(place.to_owned()),
            _ => {}
        }
    }
    for stated in stated.values_mut() {
        stated.sort_by_key(|checkpoint| checkpoint.size);
    }
    let mut chains = BTreeMap::new();
    for (name, path) in folder::chains(dir).map_err(unreadable(dir))? {
        chains.insert(name, path);
    }
    let mut seen = BTreeMap::<String, Vec<Citation>>::new();
    for path in chains.values() {
        cite(path, &mut seen).map_err(unreadable(path))?;
    }
    let mut summary = Summary { chains: chains.len(), silent, ..Summary::default() };
    let mut contradiction = None;
    for (name, path) in &chains {
        let cited = seen.get(name).map(Vec::as_slice).unwrap_or_default();
        let stated = stated.get(name).map(Vec::as_slice).unwrap_or_default();
        let walk = Walk { name, path, cited, stated, keys: &keys };
        // A chain that is broken by itself counts before what others saw: the witness may be the forgery.
        if let Some(bad) = walk.run(&mut summary).map_err(unreadable(path))?? {
            contradiction.get_or_insert(bad);
        }
    }
    let missing = |name: &str| {
        let file = folder::checked_path_of(dir, name).unwrap_or_else(|| dir.to_owned());
        (!chains.contains_key(name) && !file.is_file()).then_some(file)
    };
    for (name, cited) in &seen {
        if let Some((file, citation)) = missing(name).zip(cited.first()) {
            let fault = Fault::Deleted { witness: citation.witness.clone(), seen: citation.head.seq };
            contradiction.get_or_insert(FirstBad { file, entry: 0, fault });
        }
    }
    for (name, stated) in &stated {
        if let Some((file, last)) = missing(name).zip(stated.last()) {
            let fault = Fault::MissingCheckpointed { place: last.place.to_path_buf(), size: last.size };
            contradiction.get_or_insert(FirstBad { file, entry: 0, fault });
        }
    }
    match (contradiction, bad_checkpoint) {
        (Some(bad), _) => Err(bad.into()),
        (None, Some(bad)) => Err(bad.into()),
        (None, None) => Ok(summary),
    }
}

/// The newest checkpoint of each chain in a folder: to be kept where whoever can cut the log can't reach it.
pub fn checkpoints(dir: &Path, key: &Key) -> Result<Vec<Checkpoint>, VerifyError> {
    let mut bad = None;
    let mut newest = BTreeMap::<String, Checkpoint>::new();
    let read = checkpoint::read(dir, &Signer::new(key), &mut bad, |found| match newest.get(&found.chain) {
        Some(known) if known.size >= found.size => {}
        _ => drop(newest.insert(found.chain.clone(), found)),
    });
    read.map_err(unreadable(dir))?;
    bad.map_or_else(|| Ok(newest.into_values().collect()), |bad| Err(bad.into()))
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> VerifyError + use<> {
    let path = path.to_owned();
    move |source| VerifyError::Read { path, source }
}

/// A head as an `opened` entry names it.
#[derive(Debug, Clone, serde::Deserialize)]
struct Cited {
    chain: String,
    seq: u64,
    hash: String,
    torn: bool,
}

struct Citation {
    witness: String,
    head: Cited,
}

#[derive(serde::Deserialize)]
struct Opened {
    kind: String,
    chain: String,
    heads: Vec<Cited>,
}

fn opened(line: &[u8]) -> Option<Opened> {
    // Only the one kind is worth parsing.
    let is_one = line.windows(15).take(256).any(|window| window == br#""kind":"opened""#);
    let opened: Opened = is_one.then(|| serde_json::from_slice(line).ok())??;
    (opened.kind == "opened").then_some(opened)
}

fn cite(path: &Path, seen: &mut BTreeMap<String, Vec<Citation>>) -> io::Result<()> {
    let mut lines = Lines::open(path)?;
    while let Some(line) = lines.next()? {
        for head in opened(line).into_iter().flat_map(|opened| {
            let witness = opened.chain;
            opened.heads.into_iter().map(move |head| (witness.clone(), head))
        }) {
            let (witness, head) = head;
            seen.entry(head.chain.clone()).or_default().push(Citation { witness, head });
        }
    }
    Ok(())
}

/// What a checkpoint says of a chain.
struct Stated {
    size: u64,
    root: [u8; 32],
    place: Arc<Path>,
}

struct Walk<'a> {
    name: &'a str,
    path: &'a Path,
    cited: &'a [Citation],
    /// In the order of their sizes.
    stated: &'a [Stated],
    keys: &'a Keys,
}

impl Walk<'_> {
    /// The outer error: it can't be read. The inner one: the chain is broken. The value: others saw something else.
    fn run(&self, summary: &mut Summary) -> io::Result<Result<Option<FirstBad>, FirstBad>> {
        let bad = |entry, fault| FirstBad { file: self.path.to_owned(), entry, fault };
        let mut lines = Lines::open(self.path)?;
        let mut link = Link::FIRST;
        let mut contradiction = None;
        let mut tree = Tree::default();
        let mut stated = self.stated.iter().peekable();
        let mut agreed = 0;
        while let Some(line) = lines.next()? {
            let next = match self.keys.check(line, &link) {
                Ok(next) => next,
                Err(fault) => return Ok(Err(bad(link.seq, fault))),
            };
            if link.seq == 0 && opened(line).is_none_or(|opened| opened.chain != self.name) {
                return Ok(Err(bad(0, Fault::NotOpened)));
            }
            for citation in self.cited.iter().filter(|citation| citation.head.seq == link.seq) {
                if citation.head.hash != hex::encode(next.prev) {
                    let fault = Fault::Replaced { witness: citation.witness.clone() };
                    contradiction.get_or_insert(bad(link.seq, fault));
                }
            }
            tree.push(&next.prev);
            while let Some(checkpoint) = stated.next_if(|checkpoint| checkpoint.size <= tree.size()) {
                if checkpoint.size == 0 || checkpoint.root == tree.root() {
                    agreed = checkpoint.size;
                    summary.checkpoints = summary.checkpoints.saturating_add(1);
                } else {
                    let fault = Fault::NotOfCheckpoint { place: checkpoint.place.to_path_buf(), size: checkpoint.size };
                    contradiction.get_or_insert(bad(agreed, fault));
                }
            }
            summary.epoch = summary.epoch.max(epoch(line));
            summary.entries = summary.entries.saturating_add(1);
            link = next;
        }
        if lines.torn() && !lines.being_written() {
            let noted = self.cited.iter().any(|citation| citation.head.torn && citation.head.seq + 1 == link.seq);
            if !noted {
                return Ok(Err(bad(link.seq, Fault::Torn)));
            }
            summary.torn.push(self.name.to_owned());
        } else if link.seq == 0 && self.cited.is_empty() && !lines.being_written() {
            return Ok(Err(bad(0, Fault::Empty)));
        }
        if let Some(citation) = self.cited.iter().find(|citation| citation.head.seq >= link.seq) {
            let fault = Fault::CutOff { witness: citation.witness.clone(), seen: citation.head.seq };
            contradiction.get_or_insert(bad(link.seq, fault));
        }
        if let Some(beyond) = stated.next_back() {
            let fault = Fault::CutBelowCheckpoint { place: beyond.place.to_path_buf(), size: beyond.size };
            contradiction.get_or_insert(bad(link.seq, fault));
        }
        Ok(Ok(contradiction))
    }
}

fn epoch(line: &[u8]) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Known {
        epoch: Option<u64>,
    }
    // The epoch stands last before the seal, so the plain text tells whether there is one.
    let tail = line.get(line.len().saturating_sub(160)..).unwrap_or_default();
    let has_one = tail.windows(9).any(|window| window == br#","epoch":"#);
    has_one.then(|| serde_json::from_slice::<Known>(line).ok()?.epoch)?
}

/// The lines of a file, each bounded.
#[derive(Debug)]
pub(super) struct Lines {
    file: BufReader<File>,
    line: Vec<u8>,
}

impl Lines {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: BufReader::with_capacity(1 << 16, File::open(path)?), line: Vec::new() })
    }

    /// The next whole line, without its line feed.
    pub(super) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        (&mut self.file).take(LONGEST_LINE).read_until(b'\n', &mut self.line)?;
        Ok(self.line.strip_suffix(b"\n"))
    }

    /// Whether bytes stood after the last line feed.
    fn torn(&self) -> bool {
        !self.line.is_empty()
    }

    /// Whether a process has the file open for writing.
    fn being_written(&self) -> bool {
        matches!(self.file.get_ref().try_lock_shared(), Err(std::fs::TryLockError::WouldBlock))
    }
}
