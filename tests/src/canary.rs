//! Secrets that tests plant, and the search for them in every form in which they could leak.

use std::fs;
use std::path::{Path, PathBuf};

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Where in some bytes a secret stands: as it is, URL-escaped, in hexadecimal, or in base64 at any of the three alignments.
///
/// # Panics
///
/// Never: a handful of short patterns is no trouble.
pub fn find(bytes: &[u8], secret: &str) -> Option<usize> {
    let found = AhoCorasick::new(forms(secret)).expect("a handful of short patterns").find(bytes);
    found.map(|found| found.start())
}

/// The files of a folder, however deep, in which one of the secrets stands in any form.
///
/// # Panics
///
/// A file can't be read.
pub fn files_with(folder: &Path, secrets: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder is read") {
        let path = entry.expect("the folder is read").path();
        if path.is_dir() {
            found.extend(files_with(&path, secrets));
        } else {
            let bytes = fs::read(&path).expect("the file is read");
            if secrets.iter().any(|secret| find(&bytes, secret).is_some()) {
                found.push(path);
            }
        }
    }
    found
}

/// The forms in which the secret is looked for.
fn forms(secret: &str) -> Vec<String> {
    let escaped: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let mut forms = vec![
        secret.to_owned(),
        escaped.to_lowercase(),
        escaped,
        hex::encode(secret),
        hex::encode_upper(secret),
        secret.chars().rev().collect(),
    ];
    for (shift, before) in ["", "_", "__"].into_iter().enumerate() {
        // The first characters depend on what stands before, the last ones on what follows.
        let shifted = format!("{before}{secret}");
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            let encoded = engine.encode(&shifted);
            let start = if shift == 0 { 0 } else { shift + 1 };
            forms.push(encoded.get(start..encoded.len() - 2).unwrap_or_default().to_owned());
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
