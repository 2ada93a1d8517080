//! One pass over some bytes for all forms of all secrets.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use aho_corasick::AhoCorasick;

use crate::forms::forms;

/// How much of a file is searched at once.
const PIECE: usize = 1 << 20;

/// Where in some bytes a secret stands: as it is, URL-escaped, in hexadecimal, or in base64 at any of the three alignments.
pub fn find(bytes: &[u8], secret: impl AsRef<[u8]>) -> Option<usize> {
    find_any(bytes, &[secret]).map(|(at, _)| at)
}

/// Where in some bytes one of the secrets stands in any form, and which one.
pub fn find_any(bytes: &[u8], secrets: &[impl AsRef<[u8]>]) -> Option<(usize, usize)> {
    let found = Search::of(secrets.iter().map(|secret| (secret.as_ref(), 0))).first(bytes);
    // Bytes in memory are always read.
    found.ok().flatten().map(|found| (found.at, found.secret))
}

/// The files of a folder, however deep, in which one of the secrets stands in any form.
///
/// # Panics
///
/// A file can't be read.
pub fn files_with(folder: &Path, secrets: &[impl AsRef<[u8]>]) -> Vec<PathBuf> {
    let search = Search::of(secrets.iter().map(|secret| (secret.as_ref(), 0)));
    let mut found = files(folder).expect("the folder is read");
    found.retain(|path| search.first(File::open(path).expect("the file is read")).expect("the file is read").is_some());
    found
}

/// The files of a folder, however deep, in the order of their names.
pub(crate) fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() { &mut folders } else { &mut files }.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// All forms of all secrets, so that one pass finds them.
pub(crate) struct Search {
    patterns: AhoCorasick,
    of: Vec<Pattern>,
    /// What a piece must show of the next one: a form that begins at the last byte of a piece, and what must follow it.
    reach: usize,
}

struct Pattern {
    secret: usize,
    form: &'static str,
    then: usize,
}

/// A secret that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) at: usize,
    pub(crate) secret: usize,
    pub(crate) form: &'static str,
}

impl Search {
    /// For these secrets; after one as it is, so many characters of a token must follow.
    pub(crate) fn of<'a>(secrets: impl Iterator<Item = (&'a [u8], usize)>) -> Self {
        let (mut patterns, mut of) = (Vec::new(), Vec::new());
        for (secret, (bytes, then)) in secrets.enumerate() {
            for (form, bytes) in forms(bytes) {
                of.push(Pattern { secret, form, then: if form == "raw" { then } else { 0 } });
                patterns.push(bytes);
            }
        }
        let then = of.iter().map(|pattern| pattern.then).max().unwrap_or(0);
        let reach = patterns.iter().map(Vec::len).max().unwrap_or(0) + then;
        Self { patterns: AhoCorasick::new(patterns).expect("short patterns, and not too many"), of, reach }
    }

    /// How many forms it looks for.
    pub(crate) fn forms(&self) -> usize {
        self.of.len()
    }

    fn first(&self, bytes: impl Read) -> io::Result<Option<Found>> {
        let mut first = None;
        self.each(bytes, |_| {}, |found| first = first.or(Some(found)))?;
        Ok(first)
    }

    /// Tells each secret that it finds, and each piece that it has read; returns how long all was.
    pub(crate) fn each(
        &self,
        mut bytes: impl Read,
        mut read: impl FnMut(&[u8]),
        mut found: impl FnMut(Found),
    ) -> io::Result<usize> {
        let mut window = Vec::with_capacity(PIECE + self.reach);
        let mut start = 0;
        loop {
            let end = bytes.by_ref().take(PIECE as u64).read_to_end(&mut window)? == 0;
            read(&window);
            // What begins in the last bytes may go on in the next piece, whose window begins with them.
            let sure = if end { window.len() } else { window.len().saturating_sub(self.reach) };
            for hit in self.patterns.find_overlapping_iter(&window).filter(|hit| hit.start() < sure) {
                let after = window.get(hit.end()..).unwrap_or_default();
                if let Some(pattern) = self.of.get(hit.pattern().as_usize())
                    && after.iter().take(pattern.then).filter(|byte| is_of_token(**byte)).count() == pattern.then
                {
                    found(Found { at: start + hit.start(), secret: pattern.secret, form: pattern.form });
                }
            }
            if end {
                return Ok(start + window.len());
            }
            window.drain(..sure);
            start += sure;
        }
    }
}

fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use percent_encoding::{NON_ALPHANUMERIC, percent_encode};

    use super::*;

    #[test]
    fn a_secret_is_found_in_every_form() {
        let secret = "canary+token/with=signs";
        for before in ["", "a", "ab", "abc", "abcd"] {
            let text = format!("{before}{secret} and more");
            for form in [
                text.clone(),
                STANDARD.encode(&text),
                STANDARD.encode(format!("{before}{secret}")),
                URL_SAFE_NO_PAD.encode(&text),
                hex::encode(&text),
                hex::encode_upper(&text),
                percent_encode(text.as_bytes(), NON_ALPHANUMERIC).to_string(),
                format!("{:?}", text.as_bytes()),
            ] {
                assert!(find(form.as_bytes(), secret).is_some(), "{form}");
            }
        }
        assert_eq!(find(b"canary token with signs", secret), None);
    }

    #[test]
    fn a_secret_is_found_once_wherever_the_pieces_of_a_file_end() {
        let secret = b"canary-at-the-edge-51xQ";
        let search = Search::of(std::iter::once((&secret[..], 0)));
        for at in (PIECE - 200..PIECE + 3).chain(2 * PIECE - 3 * search.reach..2 * PIECE + 3) {
            let mut bytes = vec![b'.'; 2 * PIECE + 500];
            bytes[at..at + secret.len()].copy_from_slice(secret);
            let mut found = Vec::new();
            let length = search.each(&bytes[..], |_| {}, |hit| found.push(hit.at)).unwrap();
            assert_eq!((found, length), (vec![at], bytes.len()));
        }
    }

    #[test]
    fn of_a_prefix_only_what_goes_on_like_a_token_is_found() {
        let search = Search::of(std::iter::once((&b"sandbox-"[..], 43)));
        let first = |text: &str| search.first(text.as_bytes()).unwrap().map(|found| found.at);
        assert_eq!(first(&format!("a sandbox-{} b", "aZ09-_x".repeat(7))), Some(2));
        assert_eq!(first(&format!("a sandbox-{} b", "aZ09-_x".repeat(6))), None);
        assert_eq!(first("the sandbox-secret of the client"), None);
        assert!(first(&STANDARD.encode("Bearer sandbox-aZ09")).is_some());
    }

    #[test]
    fn a_file_with_a_secret_is_found_in_a_folder_of_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("a")).unwrap();
        fs::write(folder.path().join("a/b"), hex::encode("x canary-token y")).unwrap();
        fs::write(folder.path().join("c"), "nothing").unwrap();
        assert_eq!(files_with(folder.path(), &["canary-token"]), [folder.path().join("a/b")]);
    }
}
