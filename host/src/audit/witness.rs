//! Makes the checkpoints of one chain, once its entries are durable.

use std::io;
use std::path::{Path, PathBuf};

use super::chain;
use super::checkpoint::{Kept, Signer};
use super::tree::Tree;
use super::verify::Lines;

/// Signs how far a chain has come.
pub(super) struct Witness {
    signer: Signer,
    chain: String,
    every: u64,
    /// The chain's file and how many of its entries are from before this process. They are read when they are needed.
    before: Option<(PathBuf, u64)>,
    /// Entries that the tree doesn't have yet.
    fresh: Vec<[u8; 32]>,
    tree: Tree,
    places: Vec<Place>,
    /// How many entries the last checkpoint has.
    signed: u64,
    note: String,
}

struct Place {
    folder: PathBuf,
    file: Option<Kept>,
    /// How many entries the last checkpoint has that is there.
    wrote: u64,
}

impl Witness {
    pub(super) fn new(
        signer: Signer,
        chain: String,
        every: u64,
        before: Option<(PathBuf, u64)>,
        folders: impl IntoIterator<Item = PathBuf>,
    ) -> Self {
        let places = folders.into_iter().map(|folder| Place { folder, file: None, wrote: 0 }).collect();
        let (fresh, tree, note) = (Vec::new(), Tree::default(), String::new());
        Self { signer, chain, every, before, fresh, tree, places, signed: 0, note }
    }

    /// Entries that are durable now.
    pub(super) fn saw(&mut self, entries: Vec<[u8; 32]>) {
        if self.fresh.is_empty() { self.fresh = entries } else { self.fresh.extend(entries) }
    }

    /// Makes a checkpoint if enough entries have come since the last one, or if there will be no more; and brings the last
    /// one to those places that don't have it yet. The error is of the first place that doesn't take it.
    pub(super) fn sign(&mut self, closing: bool) -> Result<(), (String, io::Error)> {
        let enough = if closing { 1 } else { self.every };
        if self.fresh.len() as u64 >= enough {
            if let Some((file, entries)) = &self.before {
                self.tree = tree_of(file, *entries).map_err(|error| (file.display().to_string(), error))?;
                self.before = None;
            }
            self.fresh.drain(..).for_each(|entry| self.tree.push(&entry));
            self.signed = self.tree.size();
            self.note = self.signer.sign(&self.chain, self.signed, self.tree.root());
        }
        let mut first = None;
        for place in self.places.iter_mut().filter(|place| place.wrote < self.signed) {
            if let Err(error) = place.write(&self.chain, &self.note) {
                first.get_or_insert((place.folder.display().to_string(), error));
            } else {
                place.wrote = self.signed;
            }
        }
        first.map_or(Ok(()), Err)
    }
}

impl Place {
    fn write(&mut self, chain: &str, note: &str) -> io::Result<()> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => Kept::open(&self.folder, chain)?,
        };
        file.append(note)?;
        self.file = Some(file);
        Ok(())
    }
}

/// The tree over the first entries of a file.
fn tree_of(file: &Path, entries: u64) -> io::Result<Tree> {
    let mut lines = Lines::open(file)?;
    let mut tree = Tree::default();
    while tree.size() < entries {
        let hash = lines.next()?.and_then(chain::hash_of);
        let why = "its entries are not what was written: see `clawcoil audit verify`";
        tree.push(&hash.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, why))?);
    }
    Ok(tree)
}
