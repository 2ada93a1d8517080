//! Signed statements of how far a chain had come: C2SP tlog-checkpoint, signed as C2SP signed-note with Ed25519.
//!
//! The entries of the tree are the `hash` members of the chain's lines, as 32 bytes each; its root is that of RFC 6962. The
//! origin names the key and the chain, and is the name of the key too. There are no proofs beside the chain itself: who
//! checks one reads the chain.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use sha2::{Digest as _, Sha256};

use crate::id::Digest;
use crate::secret::Key;

use super::chain;

/// What a file of checkpoints ends in; before it stands the name of the chain.
pub(super) const EXTENSION: &str = "checkpoint";
/// The type of an Ed25519 key in signed-note.
const ED25519_TYPE: u8 = 1;
/// Begins a line of a signature: an em dash and a space.
const DASH: &str = "— ";
/// No file of checkpoints is larger; what follows is not read.
const LARGEST_FILE: u64 = 64 << 20;

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

/// Reads the notes of a file, which follow each other, and says how many bytes they take. The error is the line that is no
/// part of one.
///
/// A last note that isn't whole is left out: the process died, or the power went, while it was written.
fn notes(file: &str) -> Result<(Vec<Note>, usize), usize> {
    let (mut notes, mut whole) = (Vec::new(), 0);
    let mut lines = file.split_inclusive('\n').enumerate().map(|(n, line)| (n + 1, line)).peekable();
    while let Some(&(first, _)) = lines.peek() {
        let (mut text, mut last, mut length) = (String::new(), first, 1);
        loop {
            match lines.next() {
                Some((_, "\n")) => break,
                Some((line, part)) if part.ends_with('\n') && !part.starts_with(DASH) => {
                    (last, text) = (line, text + part);
                }
                Some((line, part)) if part.ends_with('\n') => return Err(line),
                _ => return Ok((notes, whole)),
            }
        }
        length += text.len();
        let (origin, size, root) = body(&text).ok_or(last)?;
        let mut signatures = Vec::new();
        while let Some((line, part)) = lines.next_if(|(_, part)| part.starts_with(DASH)) {
            let Some(signed) = part.strip_suffix('\n') else { return Ok((notes, whole)) };
            signatures.push(signature(signed).ok_or(line)?);
            length += part.len();
        }
        if signatures.is_empty() {
            let cut_off = lines.peek().is_none_or(|(_, part)| !part.ends_with('\n'));
            return if cut_off { Ok((notes, whole)) } else { Err(last) };
        }
        notes.push(Note { text, origin, size, root, signatures, line: first });
        whole += length;
    }
    Ok((notes, whole))
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

/// The checkpoints of a place, which is a folder of such files or one file. Those of other vaults are passed over.
pub(super) fn read(place: &Path, signer: &Signer, bad: &mut Option<BadCheckpoint>) -> io::Result<Vec<Checkpoint>> {
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
    let mut found = Vec::new();
    for file in files {
        let mut note_bad = |line, what| {
            bad.get_or_insert(BadCheckpoint { file: file.clone(), line, what });
        };
        let bytes = read_bounded(&file)?;
        let notes = match notes(&String::from_utf8_lossy(&bytes)) {
            Ok((notes, _)) => notes,
            Err(line) => {
                note_bad(line, "this is no part of a checkpoint");
                continue;
            }
        };
        for note in notes {
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
            found.push(Checkpoint {
                chain: chain.to_owned(),
                size: note.size,
                root: Digest::from_bytes(note.root),
                place: file.clone(),
                verifier: signer.verifier(chain),
                note: std::iter::once(format!("{}\n", note.text)).chain(signatures).collect(),
            });
        }
    }
    Ok(found)
}

fn read_bounded(file: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    fs::File::open(file)?.take(LARGEST_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The file of a chain's checkpoints in some folder, which only grows.
pub(super) struct Kept(fs::File);

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
        let bytes = read_bounded(&path)?;
        if let Some(whole) = std::str::from_utf8(&bytes).ok().and_then(|text| notes(text).ok()).map(|(_, whole)| whole)
            && whole < bytes.len()
        {
            file.set_len(whole as u64)?;
        }
        Ok(Self(file))
    }

    /// Adds a checkpoint.
    pub(super) fn append(&mut self, note: &str) -> io::Result<()> {
        use std::io::Write as _;
        let before = self.0.metadata()?.len();
        self.0.write_all(note.as_bytes()).or_else(|error| {
            self.0.set_len(before)?;
            Err(error)
        })?;
        self.0.sync_data()
    }
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
        let mut bad = None;
        let found = read(folder.path(), &signer(by), &mut bad).unwrap();
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
            let _ = notes(&before);
            let _ = notes(&after);
            let _ = notes(&format!("{}{after}", signer(7).sign("a", 3, [0; 32])));
        }
    }
}
