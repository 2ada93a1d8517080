//! The identity whose private key lies in a file.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use async_trait::async_trait;
use zeroize::Zeroizing;

use super::private_key::PrivateKey;
use super::suite::{self, COMMITMENT, Extracted, NONCE, TAG};
use super::{IdentityError, Seal, SealError, certificate};
use crate::clock::{Clock, random};
use crate::id::{AgentId, VaultId};
use crate::secret::Key;

/// The form of a wrap: this byte, salt, commitment, nonce, ciphertext, tag.
const FORM: u8 = 1;
const SALT: usize = 32;
const WRAPPED: usize = 1 + SALT + COMMITMENT + NONCE + 32 + TAG;
const PURPOSE: &[u8] = b"clawcoil/seal/root-key/1";
/// No certificate and no key of the kinds that we take comes near to this.
const MAX_FILE: u64 = 64 * 1024;

/// An agent's identity: an X.509 certificate and its Ed25519 or P-256 private key.
///
/// As a [`Seal`] it derives a wrapping key by HKDF-SHA256 from the key's canonical value (never from its encoding, and never from
/// a signature), with a random salt per wrap, bound to the vault and to the agent.
pub struct Identity {
    id: AgentId,
    secret: Key,
}

impl Identity {
    /// Makes an Ed25519 key and a certificate over it, and writes both as PEM.
    ///
    /// Neither file may exist. The key gets mode 0600 before its first byte is written.
    pub fn generate(certificate: &Path, key: &Path, clock: &dyn Clock) -> Result<Self, IdentityError> {
        let private = PrivateKey::generate(clock).map_err(|why| IdentityError::NotAKey { path: key.into(), why })?;
        let key_pem = private.to_pem().map_err(|why| IdentityError::NotAKey { path: key.into(), why })?;
        let certificate_pem = certificate::self_signed(&private, clock).map_err(IdentityError::Generate)?;
        if certificate.exists() {
            return Err(IdentityError::Exists(certificate.into()));
        }
        write_new(key, 0o600, key_pem.as_bytes())?;
        if let Err(error) = write_new(certificate, 0o644, certificate_pem.as_bytes()) {
            // A key without its certificate can't be loaded; nobody has used it yet.
            let _ = std::fs::remove_file(key);
            return Err(error);
        }
        Ok(Self { id: AgentId::of_spki(&private.spki()), secret: private.into_canonical() })
    }

    /// Loads a certificate and its private key (PKCS#8 PEM, Ed25519 or P-256), and checks that they belong together.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, IdentityError> {
        let mode = std::fs::metadata(key).map_err(|e| unreadable(key, e))?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(IdentityError::Exposed { path: key.into(), mode });
        }
        let not_a_key = |why| IdentityError::NotAKey { path: key.into(), why };
        let pem = read_text(key)?.ok_or_else(|| {
            not_a_key("it does not parse; name the file that begins with `-----BEGIN PRIVATE KEY-----`")
        })?;
        let private = PrivateKey::from_pem(&pem).map_err(not_a_key)?;
        let spki = read_text(certificate)?
            .and_then(|pem| certificate::spki_of(&pem))
            .ok_or_else(|| IdentityError::NotACertificate(certificate.into()))?;
        if spki != private.spki() {
            return Err(IdentityError::Mismatch { certificate: certificate.into(), key: key.into() });
        }
        Ok(Self { id: AgentId::of_spki(&spki), secret: private.into_canonical() })
    }

    /// The agent's name.
    pub fn agent_id(&self) -> AgentId {
        self.id
    }

    fn wrapping_key(&self, vault: &VaultId, salt: &[u8; SALT]) -> (Key, [u8; COMMITMENT]) {
        Extracted::from(salt, self.secret.expose()).key_and_commitment(&[PURPOSE, vault.as_bytes(), self.id.as_bytes()])
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("id", &self.id).finish_non_exhaustive()
    }
}

#[async_trait]
impl Seal for Identity {
    fn id(&self) -> AgentId {
        self.id
    }

    async fn wrap(&self, vault: &VaultId, root: &Key, clock: &dyn Clock) -> Result<Vec<u8>, SealError> {
        let salt = random::<SALT>(clock);
        let nonce = random::<NONCE>(clock);
        let (key, commitment) = self.wrapping_key(vault, &salt);
        let mut data = Zeroizing::new(*root.expose());
        let tag = suite::encrypt(&key, &nonce, PURPOSE, data.as_mut()).map_err(|_| SealError::Damaged)?;
        Ok([&[FORM][..], &salt, &commitment, &nonce, data.as_ref(), &tag].concat())
    }

    async fn unwrap(&self, vault: &VaultId, wrapped: &[u8]) -> Result<Key, SealError> {
        let Some((&form, rest)) = wrapped.split_first() else { return Err(SealError::Damaged) };
        if form != FORM {
            return Err(SealError::UnknownForm(form));
        }
        if wrapped.len() != WRAPPED {
            return Err(SealError::Damaged);
        }
        let parts = || {
            let (salt, rest) = rest.split_first_chunk::<SALT>()?;
            let (commitment, rest) = rest.split_first_chunk::<COMMITMENT>()?;
            let (nonce, rest) = rest.split_first_chunk::<NONCE>()?;
            let (data, rest) = rest.split_first_chunk::<32>()?;
            Some((salt, commitment, nonce, data, rest.first_chunk::<TAG>()?))
        };
        let (salt, commitment, nonce, data, tag) = parts().ok_or(SealError::Damaged)?;
        let (key, expected) = self.wrapping_key(vault, salt);
        if !suite::same(&expected, commitment) {
            return Err(SealError::Foreign);
        }
        let mut data = Zeroizing::new(*data);
        suite::decrypt(&key, nonce, PURPOSE, data.as_mut(), tag).map_err(|_| SealError::Damaged)?;
        Ok(Key::fill_with(|key| key.copy_from_slice(data.as_ref())))
    }
}

fn unreadable(path: &Path, source: std::io::Error) -> IdentityError {
    match source.kind() {
        ErrorKind::NotFound => IdentityError::Missing(path.into()),
        _ => IdentityError::Io { operation: "read", path: path.into(), source },
    }
}

/// The text of a small file; `None` when it is too large or not text.
fn read_text(path: &Path) -> Result<Option<Zeroizing<String>>, IdentityError> {
    let file = File::open(path).map_err(|e| unreadable(path, e))?;
    // With room for all of it the buffer never moves, so no copy of a key stays behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(MAX_FILE).unwrap_or(0) + 1));
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|e| unreadable(path, e))?;
    if bytes.len() as u64 > MAX_FILE {
        return Ok(None);
    }
    Ok(String::from_utf8(std::mem::take(&mut *bytes)).map(Zeroizing::new).ok())
}

fn write_new(path: &Path, mode: u32, contents: &[u8]) -> Result<(), IdentityError> {
    let failed = |source: std::io::Error| match source.kind() {
        ErrorKind::AlreadyExists => IdentityError::Exists(path.into()),
        _ => IdentityError::Io { operation: "write", path: path.into(), source },
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    file.write_all(contents).and_then(|()| file.sync_all()).map_err(failed)?;
    // The name is durable once its folder is.
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}
