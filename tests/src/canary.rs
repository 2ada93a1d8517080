//! Secrets that tests plant, and the search for them in every form in which they could leak.

use std::fs;
use std::path::{Path, PathBuf};

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Where in some bytes a secret stands: as it is, URL-escaped, in hexadecimal, or in base64 at any of the three alignments.
pub fn find(bytes: &[u8], secret: impl AsRef<[u8]>) -> Option<usize> {
    find_any(bytes, &[secret]).map(|(at, _)| at)
}

/// Where in some bytes one of the secrets stands in any form, and which one.
pub fn find_any(bytes: &[u8], secrets: &[impl AsRef<[u8]>]) -> Option<(usize, usize)> {
    Search::for_any(secrets).first_in(bytes)
}

/// All forms of all secrets, so that one pass finds them.
struct Search {
    patterns: AhoCorasick,
    /// The secret that each pattern is a form of.
    of: Vec<usize>,
}

impl Search {
    fn for_any(secrets: &[impl AsRef<[u8]>]) -> Self {
        let (mut patterns, mut of) = (Vec::new(), Vec::new());
        for (n, secret) in secrets.iter().enumerate() {
            let forms = forms(secret.as_ref());
            of.extend(forms.iter().map(|_| n));
            patterns.extend(forms);
        }
        Self { patterns: AhoCorasick::new(patterns).expect("a handful of short patterns"), of }
    }

    fn first_in(&self, bytes: &[u8]) -> Option<(usize, usize)> {
        let found = self.patterns.find(bytes)?;
        Some((found.start(), *self.of.get(found.pattern().as_usize())?))
    }
}

/// The files of a folder, however deep, in which one of the secrets stands in any form.
///
/// # Panics
///
/// A file can't be read.
pub fn files_with(folder: &Path, secrets: &[impl AsRef<[u8]>]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    add_files_with(folder, &Search::for_any(secrets), &mut found);
    found
}

fn add_files_with(folder: &Path, search: &Search, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder is read") {
        let path = entry.expect("the folder is read").path();
        if path.is_dir() {
            add_files_with(&path, search, found);
        } else if search.first_in(&fs::read(&path).expect("the file is read")).is_some() {
            found.push(path);
        }
    }
}

/// The forms in which the secret is looked for.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let escaped: String = url::form_urlencoded::byte_serialize(secret).collect();
    let mut forms = vec![
        secret.to_vec(),
        escaped.to_lowercase().into(),
        escaped.into(),
        hex::encode(secret).into(),
        hex::encode_upper(secret).into(),
        secret.iter().rev().copied().collect(),
    ];
    for (shift, before) in [&b""[..], b"_", b"__"].into_iter().enumerate() {
        // The first characters depend on what stands before, the last ones on what follows.
        let shifted = [before, secret].concat();
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            let encoded = engine.encode(&shifted);
            let start = if shift == 0 { 0 } else { shift + 1 };
            forms.push(encoded.get(start..encoded.len() - 2).unwrap_or_default().into());
        }
    }
    forms.retain(|form| form.len() >= 8);
    forms
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn a_secret_is_found_in_every_form() {
        let secret = "canary+token/with=signs";
        for before in ["", "a", "ab", "abc", "abcd"] {
            let text = format!("{before}{secret} and more");
            for form in [
                text.clone(),
                STANDARD.encode(&text),
                URL_SAFE_NO_PAD.encode(&text),
                hex::encode(&text),
                hex::encode_upper(&text),
                url::form_urlencoded::byte_serialize(text.as_bytes()).collect(),
            ] {
                assert!(find(form.as_bytes(), secret).is_some(), "{form}");
            }
        }
        assert_eq!(find(b"canary token with signs", secret), None);
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
