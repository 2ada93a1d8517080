//! Signatures by ring, which the project has already: the JWT library brings no cryptography of its own here.

use std::sync::Once;

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey, signature};
use ring::signature as of_ring;

/// Makes ring the library's provider, once for the process.
pub(super) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // Only a provider that is there already is an error.
        let _ = RING.install_default();
    });
}

static RING: CryptoProvider = CryptoProvider {
    signer_factory: |_: &Algorithm, _: &EncodingKey| -> Result<Box<dyn JwtSigner>> {
        // This program reads JWTs and makes none.
        Err(ErrorKind::InvalidAlgorithm.into())
    },
    verifier_factory: verifier,
    key_utils: KeyUtils::new_unimplemented(),
};

struct Rsa {
    algorithm: Algorithm,
    n: Vec<u8>,
    e: Vec<u8>,
}

struct Curve {
    algorithm: Algorithm,
    point: Vec<u8>,
}

impl signature::Verifier<Vec<u8>> for Rsa {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), signature::Error> {
        let parameters = match self.algorithm {
            Algorithm::RS256 => &of_ring::RSA_PKCS1_2048_8192_SHA256,
            Algorithm::RS384 => &of_ring::RSA_PKCS1_2048_8192_SHA384,
            Algorithm::RS512 => &of_ring::RSA_PKCS1_2048_8192_SHA512,
            Algorithm::PS256 => &of_ring::RSA_PSS_2048_8192_SHA256,
            Algorithm::PS384 => &of_ring::RSA_PSS_2048_8192_SHA384,
            _ => return Err(signature::Error::new()),
        };
        of_ring::RsaPublicKeyComponents { n: &self.n, e: &self.e }
            .verify(parameters, message, signature)
            .map_err(|_| signature::Error::new())
    }
}

impl signature::Verifier<Vec<u8>> for Curve {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), signature::Error> {
        let algorithm: &dyn of_ring::VerificationAlgorithm = match self.algorithm {
            Algorithm::ES256 => &of_ring::ECDSA_P256_SHA256_FIXED,
            Algorithm::ES384 => &of_ring::ECDSA_P384_SHA384_FIXED,
            Algorithm::EdDSA => &of_ring::ED25519,
            _ => return Err(signature::Error::new()),
        };
        of_ring::UnparsedPublicKey::new(algorithm, &self.point)
            .verify(message, signature)
            .map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Rsa {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl JwtVerifier for Curve {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the library wants this signature")]
fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    match (key.family(), key.kind()) {
        (AlgorithmFamily::Rsa, DecodingKeyKind::RsaModulusExponent { n, e }) => {
            Ok(Box::new(Rsa { algorithm: *algorithm, n: n.clone(), e: e.clone() }))
        }
        (AlgorithmFamily::Ec | AlgorithmFamily::Ed, DecodingKeyKind::SecretOrDer(point)) => {
            Ok(Box::new(Curve { algorithm: *algorithm, point: point.clone() }))
        }
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    }
}
