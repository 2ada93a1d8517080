//! The private key of an agent: PKCS#8 in, one canonical value and the public key out.

use pkcs8::der::{Decode, SecretDocument};
use pkcs8::{AlgorithmIdentifierRef, ObjectIdentifier, PrivateKeyInfoRef};
use rcgen::{KeyPair, PublicKeyData, SignatureAlgorithm};
use rustls_pki_types::PrivatePkcs8KeyDer;

use crate::clock::{Clock, random};
use crate::secret::Key;

/// RFC 8410 section 3.
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
/// RFC 5480 section 2.1.1.
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// RFC 5480 section 2.1.1.1.
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");

/// What stands before the seed in a PKCS#8 document of an Ed25519 key (RFC 8410 section 7).
const ED25519_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// An Ed25519 or P-256 key.
pub(super) struct PrivateKey {
    document: SecretDocument,
    canonical: Key,
    pair: KeyPair,
}

impl PrivateKey {
    /// A new Ed25519 key.
    pub(super) fn generate(clock: &dyn Clock) -> Result<Self, &'static str> {
        let seed = zeroize::Zeroizing::new(random::<32>(clock));
        let mut der = zeroize::Zeroizing::new([0; 48]);
        for (to, from) in der.iter_mut().zip(ED25519_PREFIX.iter().chain(seed.iter())) {
            *to = *from;
        }
        let document = SecretDocument::try_from(der.as_slice()).map_err(|_| "a new key does not parse")?;
        Self::from_document(document)
    }

    /// Reads the PEM text of a PKCS#8 document. The error says what the text is instead, and what to do.
    pub(super) fn from_pem(pem: &str) -> Result<Self, &'static str> {
        let (label, document) = SecretDocument::from_pem(pem)
            .map_err(|_| "it does not parse; name the file that begins with `-----BEGIN PRIVATE KEY-----`")?;
        match label {
            "PRIVATE KEY" => Self::from_document(document),
            "ENCRYPTED PRIVATE KEY" => Err("it is encrypted; decrypt it with `openssl pkcs8`"),
            "EC PRIVATE KEY" => Err("it has the older EC form; convert it with `openssl pkcs8 -topk8 -nocrypt`"),
            "RSA PRIVATE KEY" => Err("it is an RSA key; take an Ed25519 or P-256 key"),
            "CERTIFICATE" => Err("it is a certificate; name the file that begins with `-----BEGIN PRIVATE KEY-----`"),
            _ => Err("it is something else; name the file that begins with `-----BEGIN PRIVATE KEY-----`"),
        }
    }

    fn from_document(document: SecretDocument) -> Result<Self, &'static str> {
        let info = PrivateKeyInfoRef::from_der(document.as_bytes()).map_err(|_| "its contents do not parse")?;
        let (canonical, algorithm) = canonical(&info.algorithm, info.private_key.as_bytes())?;
        let der = PrivatePkcs8KeyDer::from(document.as_bytes());
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&der, algorithm)
            .map_err(|_| "its private and public half do not fit, or the public half is missing; write it anew with `openssl pkcs8`")?;
        Ok(Self { document, canonical, pair })
    }

    /// The Ed25519 seed or the P-256 scalar, 32 bytes each: the same for every encoding of one key.
    pub(super) fn into_canonical(self) -> Key {
        self.canonical
    }

    /// The DER of the public key's `SubjectPublicKeyInfo`.
    pub(super) fn spki(&self) -> Vec<u8> {
        self.pair.subject_public_key_info()
    }

    /// For signing the agent's own certificate.
    pub(super) fn pair(&self) -> &KeyPair {
        &self.pair
    }

    /// The PKCS#8 document as PEM.
    pub(super) fn to_pem(&self) -> Result<zeroize::Zeroizing<String>, &'static str> {
        self.document.to_pem("PRIVATE KEY", pkcs8::LineEnding::LF).map_err(|_| "it can't be written as PEM")
    }
}

fn canonical(
    algorithm: &AlgorithmIdentifierRef<'_>,
    private: &[u8],
) -> Result<(Key, &'static SignatureAlgorithm), &'static str> {
    if algorithm.oid == ED25519 {
        // RFC 8410 section 7: CurvePrivateKey ::= OCTET STRING.
        let seed = match private {
            [0x04, 0x20, seed @ ..] => <&[u8; 32]>::try_from(seed).ok(),
            _ => None,
        };
        let seed = seed.ok_or("its Ed25519 seed is not 32 bytes long")?;
        return Ok((Key::fill_with(|key| key.copy_from_slice(seed)), &rcgen::PKCS_ED25519));
    }
    if algorithm.oid == EC {
        let curve = algorithm.parameters.and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
        if curve != Some(P256) {
            return Err("it is a key of another curve; take an Ed25519 or P-256 key");
        }
        let key = sec1::EcPrivateKey::from_der(private).map_err(|_| "its contents do not parse")?;
        let scalar: &[u8; 32] = key.private_key.try_into().map_err(|_| "its P-256 scalar is not 32 bytes long")?;
        return Ok((Key::fill_with(|key| key.copy_from_slice(scalar)), &rcgen::PKCS_ECDSA_P256_SHA256));
    }
    Err("it is a key of another kind; take an Ed25519 or P-256 key")
}
