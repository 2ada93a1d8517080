//! Makes the checkpoints of one chain, once its entries are durable, and brings them to their places.
//!
//! One thread signs, and each place has a thread of its own: a place that hangs, as a network folder does whose server is gone,
//! holds up neither the log nor the other places. Of the entries only the tree's few hashes are kept, and for each place only the
//! newest checkpoint.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::clock::Clock;

use super::chain;
use super::checkpoint::{Kept, Signer};
use super::log::{AuditError, GLANCE, PATIENCE};
use super::tree::Tree;
use super::verify::Lines;

/// The pause before what failed is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// Signs how far a chain has come. Dropping it makes a last checkpoint.
pub(super) struct Witness {
    signing: Arc<Signing>,
    places: Vec<Arc<Place>>,
}

/// What the checkpoints of a chain are made of and by.
pub(super) struct Chain {
    pub(super) name: String,
    pub(super) signer: Signer,
    /// So many entries at the most are between two checkpoints.
    pub(super) every: u64,
    /// The chain's file, and how many of its entries are from before this process.
    pub(super) before: Option<(PathBuf, u64)>,
}

struct Signing {
    chain: Chain,
    progress: Mutex<Progress>,
    /// Signals the thread, and its end.
    news: Condvar,
    trouble: Trouble,
}

struct Progress {
    known: Known,
    /// How many entries the last checkpoint has.
    signed: u64,
    closing: bool,
    ended: bool,
}

/// The entries that are durable.
enum Known {
    Tree(Tree),
    /// They stand in this file and were not read yet.
    InFile {
        file: PathBuf,
        size: u64,
        /// The hash of the last one, where this process has written it.
        last: Option<[u8; 32]>,
    },
}

impl Known {
    fn size(&self) -> u64 {
        match self {
            Self::Tree(tree) => tree.size(),
            Self::InFile { size, .. } => *size,
        }
    }
}

/// A place for the checkpoints.
struct Place {
    folder: PathBuf,
    chain: String,
    post: Mutex<Post>,
    /// Signals the thread, and its end.
    news: Condvar,
    trouble: Trouble,
}

#[derive(Default)]
struct Post {
    /// The newest checkpoint, where the place doesn't have it yet.
    note: Option<String>,
    closing: bool,
    ended: bool,
}

/// What keeps a thread from its work.
struct Trouble {
    name: String,
    clock: Arc<dyn Clock>,
    /// Since when it is at it: microseconds of the clock plus one, zero for not now.
    since: AtomicU64,
    failed: Mutex<Option<String>>,
}

impl Trouble {
    fn of(name: String, clock: &Arc<dyn Clock>) -> Self {
        Self { name, clock: Arc::clone(clock), since: AtomicU64::new(0), failed: Mutex::default() }
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.clock.monotonic().as_micros()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// Does this, and remembers how it ended.
    fn at<T>(&self, work: impl FnOnce() -> io::Result<T>) -> Option<T> {
        self.since.store(self.micros(), Ordering::Release);
        let done = work();
        self.since.store(0, Ordering::Release);
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        match done {
            Ok(done) => {
                *failed = None;
                Some(done)
            }
            Err(error) => {
                if failed.is_none() {
                    tracing::error!(place = self.name, %error, "a checkpoint of the audit log can't be kept; no token is released");
                }
                *failed = Some(error.to_string());
                None
            }
        }
    }

    fn check(&self) -> Result<(), AuditError> {
        if let Some(why) = self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Err(AuditError::Checkpoint { place: self.name.clone(), why });
        }
        for _ in 0..3 {
            let since = self.since.load(Ordering::Acquire);
            let patience = u64::try_from(PATIENCE.as_micros()).unwrap_or(u64::MAX);
            if since == 0 || self.micros().saturating_sub(since) < patience {
                return Ok(());
            }
            // A clock that jumps must not make a healthy place look like a hanging one: some real time passes too.
            thread::sleep(GLANCE);
        }
        Err(AuditError::CheckpointHanging { place: self.name.clone() })
    }
}

impl Witness {
    /// Starts the threads: for checkpoints of this chain, in these folders.
    pub(super) fn start(
        chain: Chain,
        folders: impl IntoIterator<Item = PathBuf>,
        clock: &Arc<dyn Clock>,
    ) -> io::Result<Self> {
        let known = match &chain.before {
            Some((file, size)) => Known::InFile { file: file.clone(), size: *size, last: None },
            None => Known::Tree(Tree::default()),
        };
        let signed = known.size();
        let name = chain.before.as_ref().map_or_else(|| chain.name.clone(), |(file, _)| file.display().to_string());
        let mut witness = Self {
            signing: Arc::new(Signing {
                progress: Mutex::new(Progress { known, signed, closing: false, ended: false }),
                news: Condvar::new(),
                trouble: Trouble::of(name, clock),
                chain,
            }),
            places: Vec::new(),
        };
        for folder in folders {
            let place = Arc::new(Place {
                trouble: Trouble::of(folder.display().to_string(), clock),
                folder,
                chain: witness.signing.chain.name.clone(),
                post: Mutex::default(),
                news: Condvar::new(),
            });
            // Kept before its thread runs, so that the thread is told to end whatever comes.
            witness.places.push(Arc::clone(&place));
            thread::Builder::new().name("audit-witness".to_owned()).spawn(move || place.run())?;
        }
        let (signing, places) = (Arc::clone(&witness.signing), witness.places.clone());
        thread::Builder::new().name("audit-sign".to_owned()).spawn(move || signing.run(&places))?;
        Ok(witness)
    }

    /// Entries that are durable now. It waits for nothing.
    pub(super) fn saw(&self, entries: &[[u8; 32]]) {
        let mut progress = self.signing.progress();
        match &mut progress.known {
            Known::Tree(tree) => entries.iter().for_each(|entry| tree.push(entry)),
            Known::InFile { size, last, .. } => {
                *size = size.saturating_add(entries.len() as u64);
                *last = entries.last().copied().or(*last);
            }
        }
        if progress.is_due(self.signing.chain.every) {
            self.signing.news.notify_all();
        }
    }

    /// Whether each place takes checkpoints, as far as is known.
    pub(super) fn check(&self) -> Result<(), AuditError> {
        self.signing.trouble.check()?;
        self.places.iter().try_for_each(|place| place.trouble.check())
    }
}

impl Drop for Witness {
    /// Waits a moment for the last checkpoint. Threads that hang are left to themselves.
    fn drop(&mut self) {
        let mut progress = self.signing.progress();
        progress.closing = true;
        self.signing.news.notify_all();
        let waited = self.signing.news.wait_timeout_while(progress, PATIENCE, |progress| !progress.ended);
        let out_of_time = waited.unwrap_or_else(PoisonError::into_inner).1.timed_out();
        for place in &self.places {
            place.post().closing = true;
            place.news.notify_all();
        }
        for place in self.places.iter().filter(|_| !out_of_time) {
            let waited = place.news.wait_timeout_while(place.post(), PATIENCE, |post| !post.ended);
            if waited.unwrap_or_else(PoisonError::into_inner).1.timed_out() {
                break;
            }
        }
    }
}

impl Progress {
    fn is_due(&self, every: u64) -> bool {
        let fresh = self.known.size().saturating_sub(self.signed);
        fresh >= if self.closing { 1 } else { every }
    }
}

impl Signing {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the thread does until the log is closed.
    fn run(&self, places: &[Arc<Place>]) {
        let mut progress = self.progress();
        loop {
            let idle = |progress: &mut Progress| !progress.closing && !progress.is_due(self.chain.every);
            progress = self.news.wait_while(progress, idle).unwrap_or_else(PoisonError::into_inner);
            let (closing, due) = (progress.closing, progress.is_due(self.chain.every));
            drop(progress);
            let signed = if due { self.trouble.at(|| self.sign(places)) } else { Some(()) };
            progress = self.progress();
            if closing {
                break;
            }
            if signed.is_none() {
                let rest = |progress: &mut Progress| !progress.closing;
                progress =
                    self.news.wait_timeout_while(progress, RETRY, rest).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        progress.ended = true;
        self.news.notify_all();
    }

    fn sign(&self, places: &[Arc<Place>]) -> io::Result<()> {
        let tree = self.tree()?;
        let note = self.chain.signer.sign(&self.chain.name, tree.size(), tree.root());
        for place in places {
            place.post().note = Some(note.clone());
            place.news.notify_all();
        }
        self.progress().signed = tree.size();
        Ok(())
    }

    /// The tree over all entries that are durable, read from the file where it has to be.
    fn tree(&self) -> io::Result<Tree> {
        let mut reading: Option<Reading> = None;
        loop {
            let (file, size, last) = {
                let mut progress = self.progress();
                match &progress.known {
                    Known::Tree(tree) => return Ok(tree.clone()),
                    Known::InFile { file, size, last } => match &reading {
                        // No more came while it was read.
                        Some(Reading { tree, .. }) if tree.size() == *size => {
                            let tree = tree.clone();
                            progress.known = Known::Tree(tree.clone());
                            return Ok(tree);
                        }
                        _ => (file.clone(), *size, *last),
                    },
                }
            };
            let mut going_on = match reading.take() {
                Some(reading) => reading,
                None => Reading { lines: Lines::open(&file)?, tree: Tree::default() },
            };
            going_on.read_up_to(size, last)?;
            reading = Some(going_on);
        }
    }
}

/// A chain's file that is being read.
struct Reading {
    lines: Lines,
    tree: Tree,
}

impl Reading {
    /// Reads until there are so many entries, of which the last must have this hash.
    fn read_up_to(&mut self, size: u64, last: Option<[u8; 32]>) -> io::Result<()> {
        let not_it = || {
            let why = "its entries are not what was written: see `clawcoil audit verify`";
            io::Error::new(io::ErrorKind::InvalidData, why)
        };
        let mut hash = None;
        while self.tree.size() < size {
            let entry = self.lines.next()?.and_then(chain::hash_of).ok_or_else(not_it)?;
            self.tree.push(&entry);
            hash = Some(entry);
        }
        if last.is_some() && hash != last { Err(not_it()) } else { Ok(()) }
    }
}

impl Place {
    fn post(&self) -> MutexGuard<'_, Post> {
        self.post.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the thread does until the log is closed.
    fn run(&self) {
        let mut file = None;
        let mut post = self.post();
        loop {
            let idle = |post: &mut Post| !post.closing && post.note.is_none();
            post = self.news.wait_while(post, idle).unwrap_or_else(PoisonError::into_inner);
            let closing = post.closing;
            let Some(note) = post.note.take() else { break };
            drop(post);
            let kept = self.trouble.at(|| self.keep(&mut file, &note));
            post = self.post();
            if kept.is_none() {
                // A newer one has come in the meantime, or this one is tried again.
                post.note.get_or_insert(note);
                if closing {
                    break;
                }
                let rest = |post: &mut Post| !post.closing;
                post = self.news.wait_timeout_while(post, RETRY, rest).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        post.ended = true;
        self.news.notify_all();
    }

    fn keep(&self, file: &mut Option<Kept>, note: &str) -> io::Result<()> {
        let mut open = match file.take() {
            Some(open) => open,
            None => Kept::open(&self.folder, &self.chain)?,
        };
        open.append(note)?;
        *file = Some(open);
        Ok(())
    }
}
