//! Signed statements of how far a chain had come: C2SP tlog-checkpoint, signed as C2SP signed-note with Ed25519.
//!
//! The entries of the tree are the `hash` members of the chain's lines, as 32 bytes each; its root is that of RFC 6962. The
//! origin names the key and the chain, and is the name of the key too. There are no proofs beside the chain itself: who
//! checks one reads the chain.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use sha2::{Digest as _, Sha256};

use crate::id::Digest;
use crate::secret::Key;

use super::chain;
use super::sink::Inode;

/// What a file of checkpoints ends in; before it stands the name of the chain.
pub(super) const EXTENSION: &str = "checkpoint";
/// The type of an Ed25519 key in signed-note.
const ED25519_TYPE: u8 = 1;
/// Begins a line of a signature: an em dash and a space.
const DASH: &str = "— ";
/// No note is longer, with all its signatures.
const LONGEST_NOTE: usize = 64 << 10;

/// Signs the checkpoints of one vault.
pub(super) struct Signer {
    pair: Ed25519KeyPair,
}

impl Signer {
    #[expect(clippy::expect_used, reason = "any 32 bytes are an Ed25519 seed (RFC 8032 section 5.1.5)")]
    pub(super) fn new(key: &Key) -> Self {
        let seed = chain::checkpoint_seed(key);
        Self { pair: Ed25519KeyPair::from_seed_unchecked(seed.expose()).expect("32 bytes") }
    }

    fn public(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// What names a chain of this vault in its checkpoints.
    pub(super) fn origin(&self, chain: &str) -> String {
        let id = Sha256::digest(self.public());
        format!("clawcoil/audit/{}/{chain}", hex::encode(id.get(..8).unwrap_or_default()))
    }

    /// The checkpoint of a chain with so many entries.
    pub(super) fn sign(&self, chain: &str, size: u64, root: [u8; 32]) -> String {
        let origin = self.origin(chain);
        let text = format!("{origin}\n{size}\n{}\n", BASE64_STANDARD.encode(root));
        let mut signature = key_id(&origin, self.public()).to_vec();
        signature.extend_from_slice(self.pair.sign(text.as_bytes()).as_ref());
        format!("{text}\n{DASH}{origin} {}\n", BASE64_STANDARD.encode(signature))
    }

    /// The key of a chain's checkpoints, in the form that verifiers of signed notes take.
    pub(super) fn verifier(&self, chain: &str) -> String {
        let origin = self.origin(chain);
        let id = hex::encode(key_id(&origin, self.public()));
        format!("{origin}+{id}+{}", BASE64_STANDARD.encode([&[ED25519_TYPE], self.public()].concat()))
    }

    /// Whether this vault has signed it, for this chain.
    fn has_signed(&self, note: &Note, chain: &str) -> bool {
        let origin = self.origin(chain);
        note.origin == origin
            && note
                .signatures
                .iter()
                .any(|(name, signature)| *name == origin && is_signed(&note.text, name, signature, self.public()))
    }
}

fn key_id(name: &str, public: &[u8]) -> [u8; 4] {
    let digest = Sha256::new().chain_update(name).chain_update([b'\n', ED25519_TYPE]).chain_update(public).finalize();
    let mut id = [0; 4];
    id.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    id
}

fn is_signed(text: &str, name: &str, signature: &[u8], public: &[u8]) -> bool {
    signature.split_first_chunk::<4>().is_some_and(|(id, signature)| {
        *id == key_id(name, public)
            && UnparsedPublicKey::new(&ED25519, public).verify(text.as_bytes(), signature).is_ok()
    })
}

/// A signed note that has the form of a checkpoint. Nobody has looked at its signatures yet.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Note {
    text: String,
    origin: String,
    size: u64,
    root: [u8; 32],
    signatures: Vec<(String, Vec<u8>)>,
    /// The line of the file on which it begins, counted from 1.
    line: usize,
}

/// The notes of a file, which follow each other: read one by one, however many there are. The error is the line that is no part
/// of one; nothing is read after it.
///
/// A last note that isn't whole is left out: the process died, or the power went, while it was written.
struct Notes<R> {
    file: R,
    /// A line that was read and belongs to what comes next.
    ahead: Option<Part>,
    /// The number of the line that was read last, counted from 1.
    number: usize,
    ended: bool,
}

/// A piece of a file of notes.
enum Part {
    /// A line with its line feed.
    Line(String),
    /// More than a note may have without a line feed.
    TooLong,
    /// The end of the file, or of what was written of a last line.
    End,
}

impl<R: BufRead> Notes<R> {
    fn of(file: R) -> Self {
        Self { file, ahead: None, number: 0, ended: false }
    }

    fn part(&mut self) -> io::Result<Part> {
        self.number = self.number.saturating_add(1);
        if let Some(ahead) = self.ahead.take() {
            return Ok(ahead);
        }
        let mut line = Vec::new();
        io::Read::take(&mut self.file, LONGEST_NOTE as u64).read_until(b'\n', &mut line)?;
        Ok(match line.last() {
            Some(b'\n') => Part::Line(String::from_utf8_lossy(&line).into_owned()),
            Some(_) if line.len() >= LONGEST_NOTE => Part::TooLong,
            _ => Part::End,
        })
    }

    /// The next line, if it is one of a signature. `None`: it isn't, and comes next.
    fn signed(&mut self) -> io::Result<Option<String>> {
        match self.part()? {
            Part::Line(line) if line.starts_with(DASH) => Ok(Some(line)),
            other => {
                self.number = self.number.saturating_sub(1);
                self.ahead = Some(other);
                Ok(None)
            }
        }
    }

    fn note(&mut self) -> io::Result<Result<Option<Note>, usize>> {
        let (mut text, mut first) = (String::new(), None);
        loop {
            let part = self.part()?;
            let line = *first.get_or_insert(self.number);
            match part {
                Part::End => return Ok(Ok(None)),
                Part::Line(blank) if blank == "\n" => break,
                Part::Line(more) if !more.starts_with(DASH) && text.len() + more.len() <= LONGEST_NOTE => text += &more,
                Part::Line(_) | Part::TooLong => return Ok(Err(self.number.max(line))),
            }
        }
        let Some((origin, size, root)) = body(&text) else {
            return Ok(Err(self.number.saturating_sub(1).max(first.unwrap_or(1))));
        };
        let (mut signatures, mut length) = (Vec::new(), text.len());
        while let Some(line) = self.signed()? {
            length += line.len();
            match line.strip_suffix('\n').and_then(signature).filter(|_| length <= LONGEST_NOTE) {
                Some(signature) => signatures.push(signature),
                None => return Ok(Err(self.number)),
            }
        }
        if signatures.is_empty() {
            let is_cut_off = matches!(self.ahead, Some(Part::End));
            return Ok(if is_cut_off { Ok(None) } else { Err(self.number) });
        }
        Ok(Ok(Some(Note { text, origin, size, root, signatures, line: first.unwrap_or(1) })))
    }
}

impl<R: BufRead> Iterator for Notes<R> {
    type Item = io::Result<Result<Note, usize>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let note = self.note().map(Result::transpose).transpose();
        self.ended = !matches!(note, Some(Ok(Ok(_))));
        note
    }
}

fn body(text: &str) -> Option<(String, u64, [u8; 32])> {
    let mut lines = text.split_terminator('\n');
    let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
    let decimal = size == "0" || (!size.starts_with('0') && size.bytes().all(|byte| byte.is_ascii_digit()));
    let root = BASE64_STANDARD.decode(root).ok()?.try_into().ok()?;
    (!origin.is_empty() && decimal).then_some((origin.to_owned(), size.parse().ok()?, root))
}

fn signature(line: &str) -> Option<(String, Vec<u8>)> {
    let (name, signature) = line.strip_prefix(DASH)?.split_once(' ')?;
    let signature = BASE64_STANDARD.decode(signature).ok()?;
    (!name.is_empty() && signature.len() > 4).then(|| (name.to_owned(), signature))
}

/// A checkpoint that this vault has signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The chain.
    pub chain: String,
    /// How many entries it had.
    pub size: u64,
    /// The root of the tree over them.
    pub root: Digest,
    /// The file in which it stands.
    pub place: PathBuf,
    /// The key for verifiers of signed notes.
    pub verifier: String,
    /// The signed note as it stands there.
    pub note: String,
}

/// A file of checkpoints that can't be relied on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}, line {line}: {what}", file.display())]
pub struct BadCheckpoint {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong.
    pub what: &'static str,
}

/// Shows each checkpoint of a place, which is a folder of such files or one file. Those of other vaults are passed over.
pub(super) fn read(
    place: &Path,
    signer: &Signer,
    bad: &mut Option<BadCheckpoint>,
    mut show: impl FnMut(Checkpoint),
) -> io::Result<()> {
    let mut files = Vec::new();
    if place.is_dir() {
        for entry in fs::read_dir(place)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == EXTENSION) {
                files.push(path);
            }
        }
        files.sort();
    } else {
        files.push(place.to_owned());
    }
    let ours = signer.origin("");
    for file in files {
        let mut note_bad = |line, what| {
            bad.get_or_insert(BadCheckpoint { file: file.clone(), line, what });
        };
        let named = |error: io::Error| {
            if file == place { error } else { io::Error::new(error.kind(), format!("{}: {error}", file.display())) }
        };
        if file != place && !fs::metadata(&file).map_err(named)?.is_file() {
            return Err(named(io::Error::other("this is no file")));
        }
        for note in Notes::of(BufReader::with_capacity(1 << 16, fs::File::open(&file).map_err(named)?)) {
            let note = match note? {
                Ok(note) => note,
                Err(line) => {
                    note_bad(line, "this is no part of a checkpoint");
                    continue;
                }
            };
            let Some(chain) = note.origin.strip_prefix(&ours) else { continue };
            if !signer.has_signed(&note, chain) {
                note_bad(
                    note.line,
                    "this vault has not signed this checkpoint: it was changed, or somebody else wrote it",
                );
                continue;
            }
            let signatures = note
                .signatures
                .iter()
                .map(|(name, signature)| format!("{DASH}{name} {}\n", BASE64_STANDARD.encode(signature)));
            show(Checkpoint {
                chain: chain.to_owned(),
                size: note.size,
                root: Digest::from_bytes(note.root),
                place: file.clone(),
                verifier: signer.verifier(chain),
                note: std::iter::once(format!("{}\n", note.text)).chain(signatures).collect(),
            });
        }
    }
    Ok(())
}

/// The file of a chain's checkpoints in some folder, which only grows.
pub(super) struct Kept {
    file: fs::File,
    path: PathBuf,
    inode: Inode,
}

impl Kept {
    /// Opens or makes the file, and its folder if it isn't there. Symbolic links are not followed.
    pub(super) fn open(folder: &Path, chain: &str) -> io::Result<Self> {
        use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let nofollow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default();
        let path = folder.join(chain).with_extension(EXTENSION);
        let file = fs::OpenOptions::new()
            .append(true)
            .read(true)
            .create(true)
            .mode(0o600)
            .custom_flags(nofollow)
            .open(&path)?;
        // Half a note of a process that died must not stand before the next one.
        let length = file.metadata()?.len();
        let torn = torn(&file, length)?;
        if torn > 0 {
            file.set_len(length.saturating_sub(torn))?;
        }
        let inode = Inode::of(&file)?;
        Ok(Self { file, path, inode })
    }

    /// Adds a checkpoint. It is an error where the file is no longer the one under its name: another one has to be opened.
    pub(super) fn append(&mut self, note: &str) -> io::Result<()> {
        use std::io::Write as _;
        self.inode.check(&self.path)?;
        let before = self.file.metadata()?.len();
        self.file.write_all(note.as_bytes()).or_else(|error| {
            self.file.set_len(before)?;
            Err(error)
        })?;
        self.file.sync_data()
    }
}

/// How many bytes at the end of a file are a note that was not written to its end. Only the end is looked at. What is anything
/// else is left for whoever checks the file to find.
fn torn(file: &fs::File, length: u64) -> io::Result<u64> {
    use std::os::unix::fs::FileExt as _;
    let start = length.saturating_sub(LONGEST_NOTE as u64);
    let mut end = vec![0; usize::try_from(length - start).map_err(io::Error::other)?];
    file.read_exact_at(&mut end, start)?;
    // A note ends with a signature.
    let mut rest = (start == 0).then_some(end.as_slice());
    let mut at = 0;
    for line in end.split_inclusive(|byte| *byte == b'\n') {
        at += line.len();
        let begins = at > line.len() || start == 0;
        if begins && line.starts_with(DASH.as_bytes()) && line.ends_with(b"\n") {
            rest = end.get(at..);
        }
    }
    let Some(rest) = rest else { return Ok(0) };
    let is_cut_off = Notes::of(rest).next().is_none();
    Ok(if is_cut_off { rest.len() as u64 } else { 0 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn signer(byte: u8) -> Signer {
        Signer::new(&Key::fill_with(|key| key.fill(byte)))
    }

    #[test]
    fn signatures_are_those_of_signed_notes() {
        // The example of Go's golang.org/x/mod/sumdb/note.
        let public = BASE64_STANDARD.decode("ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW").unwrap();
        let text = "If you think cryptography is the answer to your problem,\n\
                    then you don't know what your problem is.\n";
        let line = "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=";
        let (name, signature) = signature(line).unwrap();
        assert_eq!(hex::encode(key_id(&name, &public[1..])), "c74f20a3");
        assert!(is_signed(text, &name, &signature, &public[1..]));
        assert!(!is_signed(&text[1..], &name, &signature, &public[1..]));
    }

    #[test]
    fn a_checkpoint_has_the_form_that_verifiers_take() {
        let note = signer(7).sign("a-b", 12, [9; 32]);
        let lines: Vec<_> = note.split('\n').collect();
        let [origin, size, root, "", signed, ""] = lines[..] else { panic!("{note}") };
        assert_eq!((size, root), ("12", "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk="));
        assert!(signed.starts_with(&format!("— {origin} ")) && !origin.contains([' ', '+']), "{note}");
        let verifier = signer(7).verifier("a-b");
        assert!(verifier.starts_with(&format!("{origin}+")), "{verifier}");
    }

    fn found(file: &str, by: u8) -> (Vec<Checkpoint>, Option<BadCheckpoint>) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("x.checkpoint"), file).unwrap();
        let (mut found, mut bad) = (Vec::new(), None);
        read(folder.path(), &signer(by), &mut bad, |checkpoint| found.push(checkpoint)).unwrap();
        (found, bad)
    }

    #[test]
    fn notes_that_follow_each_other_are_read_and_one_that_was_cut_off_is_left_out() {
        let two = signer(7).sign("a", 1, [1; 32]) + &signer(7).sign("a", 2, [2; 32]);
        let sizes = |file: &str| {
            let (found, bad) = found(file, 7);
            assert_eq!(bad, None);
            found.iter().map(|checkpoint| checkpoint.size).collect::<Vec<_>>()
        };
        assert_eq!(sizes(&two), [1, 2]);
        let first = signer(7).sign("a", 1, [1; 32]).len();
        for end in first..two.len() {
            if two.is_char_boundary(end) {
                assert_eq!(sizes(&two[..end]), [1], "{end}");
            }
        }
    }

    #[test]
    fn half_a_note_of_a_process_that_died_does_not_spoil_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let notes: Vec<_> = (1..4).map(|size| signer(7).sign("a", size, [1; 32])).collect();
        for cut in [1, 20, 60, notes[1].len() - 1] {
            let _ = fs::remove_file(folder.path().join("a.checkpoint"));
            Kept::open(folder.path(), "a").unwrap().append(&notes[0]).unwrap();
            let mut file = fs::OpenOptions::new().append(true).open(folder.path().join("a.checkpoint")).unwrap();
            io::Write::write_all(&mut file, &notes[1].as_bytes()[..cut]).unwrap();
            Kept::open(folder.path(), "a").unwrap().append(&notes[2]).unwrap();
            assert_eq!(fs::read_to_string(folder.path().join("a.checkpoint")).unwrap(), notes[0].clone() + &notes[2]);
        }
    }

    #[test]
    fn a_file_of_any_size_is_read_to_its_end_and_loses_no_note_when_it_is_gone_on_with() {
        use io::Write as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.checkpoint");
        let note = |size| signer(7).sign("a", size, [1; 32]);
        let other = signer(8).sign("a", 1, [1; 32]);
        // Those of another vault, whose signatures need not be looked at, so that it takes no time.
        let many = other.repeat((70 << 20) / other.len());
        fs::write(&path, [many.as_str(), &note(1), &note(2), "clawcoil/audit/half a no"].concat()).unwrap();
        Kept::open(folder.path(), "a").unwrap().append(&note(3)).unwrap();
        let length = fs::metadata(&path).unwrap().len();
        assert_eq!(length, (many.len() + note(1).len() + note(2).len() + note(3).len()) as u64);
        let (mut sizes, mut bad) = (Vec::new(), None);
        read(&path, &signer(7), &mut bad, |checkpoint| sizes.push(checkpoint.size)).unwrap();
        assert_eq!((sizes, bad), (vec![1, 2, 3], None));
        // What is no half note is no business of this process.
        for foreign in ["a line\n— of somebody else\n\n", &"x".repeat(LONGEST_NOTE + 1)] {
            let before = fs::metadata(&path).unwrap().len();
            fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(foreign.as_bytes()).unwrap();
            Kept::open(folder.path(), "a").unwrap();
            assert_eq!(fs::metadata(&path).unwrap().len(), before + foreign.len() as u64);
        }
    }

    #[test]
    fn another_vaults_checkpoints_are_passed_over_and_changed_ones_named() {
        let note = signer(7).sign("a", 10, [1; 32]);
        assert_eq!(found(&note, 8), (Vec::new(), None));
        let (kept, bad) = found(&note.replacen("\n10\n", "\n9\n", 1), 7);
        assert!(kept.is_empty());
        assert_eq!(bad.unwrap().line, 1);
        // For another chain of the same vault.
        let (kept, bad) = found(&note.replace("/a\n", "/b\n").replace("/a ", "/b "), 7);
        assert!(kept.is_empty() && bad.is_some());
        assert_eq!(found("a note\n\n— x y\n", 7).1.unwrap().line, 1);
    }

    #[test]
    fn who_else_has_signed_a_checkpoint_does_no_harm() {
        let cosigned = signer(7).sign("a", 10, [1; 32]) + "— witness.example/1 AAAAAAAAAA==\n";
        let (found, bad) = found(&cosigned, 7);
        assert_eq!((found.len(), bad), (1, None));
        assert_eq!(found[0].note, cosigned);
    }

    proptest! {
        #[test]
        fn a_note_comes_back_and_any_change_of_it_does_not(size: u64, root: [u8; 32], at: prop::sample::Index, to in "[ -~]") {
            let note = signer(7).sign("a", size, root);
            let (kept, bad) = found(&note, 7);
            prop_assert_eq!(bad, None);
            prop_assert_eq!((kept[0].size, kept[0].root, &kept[0].note), (size, Digest::from_bytes(root), &note));
            let at = at.index(note.len());
            prop_assume!(note.is_char_boundary(at) && note.is_char_boundary(at + 1) && note[at..=at] != to);
            let changed = format!("{}{to}{}", &note[..at], &note[at + 1..]);
            prop_assert_eq!(found(&changed, 7).0, Vec::new());
        }

        #[test]
        fn any_text_is_answered_without_a_panic(before in ".{0,60}", after in "(\n|— |a|=|[0-9]){0,60}") {
            for text in [&before, &after, &format!("{}{after}", signer(7).sign("a", 3, [0; 32]))] {
                let _ = Notes::of(text.as_bytes()).count();
            }
        }
    }
}
