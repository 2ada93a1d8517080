//! Secrets that tests plant, and the search for them in every form in which they could leak.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Where in some bytes a secret stands: as it is, URL-escaped, in hexadecimal, or in base64 at any of the three alignments.
pub fn find(bytes: &[u8], secret: &str) -> Option<usize> {
    forms(secret).iter().find_map(|form| bytes.windows(form.len()).position(|window| window == form.as_bytes()))
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
    for shift in 0..3 {
        // The first characters depend on what stands before, the last ones on what follows.
        let shifted = [&b"\0\0\0"[..shift], secret.as_bytes()].concat();
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
}
