//! The second way to the root key.

use age::secrecy::ExposeSecret;
use zeroize::Zeroizing;

use crate::id::VaultId;
use crate::secret::Key;

const HEADER: &[u8] = b"clawcoil/recovery/root-key/1";

/// Who, beside the agent, can get at the root key.
///
/// The copy lies in the vault's database, encrypted with age to an X25519 recipient, and is made anew with every new root
/// key. It is worth nothing without the recipient's secret, which is never stored beside it.
#[derive(Debug, Clone)]
pub struct Recovery(Option<age::x25519::Recipient>);

impl Recovery {
    /// A recipient whose secret somebody keeps elsewhere: `age1…`, as `age-keygen` prints it.
    pub fn to(recipient: &str) -> Result<Self, RecoveryError> {
        match recipient.trim().parse() {
            Ok(recipient) => Ok(Self(Some(recipient))),
            Err(_) if recipient.trim_start().get(..15).is_some_and(|s| s.eq_ignore_ascii_case("AGE-SECRET-KEY-")) => {
                Err(RecoveryError::SecretAsRecipient)
            }
            Err(_) => Err(RecoveryError::Recipient),
        }
    }

    /// A new recipient, and its secret. Show the secret once, on a terminal, and keep no copy.
    pub fn generate() -> (Self, RecoveryKey) {
        let identity = age::x25519::Identity::generate();
        (Self(Some(identity.to_public())), RecoveryKey(identity))
    }

    /// No recovery: who loses the agent's private key has lost every connection.
    pub const fn none() -> Self {
        Self(None)
    }

    /// The recipient, if there is one: `age1…`.
    pub fn recipient(&self) -> Option<String> {
        self.0.as_ref().map(ToString::to_string)
    }

    /// The root key, encrypted to the recipient.
    pub(crate) fn wrap(&self, vault: &VaultId, root: &Key) -> Result<Option<Vec<u8>>, RecoveryError> {
        let Some(recipient) = &self.0 else { return Ok(None) };
        let mut plain = Zeroizing::new(Vec::with_capacity(HEADER.len() + 16 + 32));
        plain.extend_from_slice(HEADER);
        plain.extend_from_slice(vault.as_bytes());
        plain.extend_from_slice(root.expose());
        age::encrypt(recipient, &plain).map(Some).map_err(|e| RecoveryError::Encrypt(Box::new(e)))
    }
}

/// What opens a recovery copy: an age X25519 identity, `AGE-SECRET-KEY-1…`.
pub struct RecoveryKey(age::x25519::Identity);

impl RecoveryKey {
    /// The text, for showing it once.
    pub fn expose(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.to_string().expose_secret().to_owned())
    }

    /// The root key in a recovery copy.
    pub(crate) fn unwrap(&self, vault: &VaultId, wrapped: &[u8]) -> Result<Key, RecoveryError> {
        let plain = Zeroizing::new(age::decrypt(&self.0, wrapped).map_err(|e| match e {
            age::DecryptError::NoMatchingKeys => RecoveryError::WrongKey,
            _ => RecoveryError::Damaged,
        })?);
        let root = plain
            .strip_prefix(HEADER)
            .and_then(|rest| rest.strip_prefix(vault.as_bytes()))
            .and_then(|root| <&[u8; 32]>::try_from(root).ok())
            .ok_or(RecoveryError::Damaged)?;
        Ok(Key::fill_with(|key| key.copy_from_slice(root)))
    }
}

impl std::str::FromStr for RecoveryKey {
    type Err = RecoveryError;

    /// The key, alone or in a file as `age-keygen` writes it, with comments around it.
    fn from_str(text: &str) -> Result<Self, RecoveryError> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        match (lines.next(), lines.next()) {
            (Some(key), None) => key.parse().map(Self).map_err(|_| RecoveryError::Secret),
            _ => Err(RecoveryError::Secret),
        }
    }
}

impl std::fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecoveryKey(…)")
    }
}

/// Why a recovery copy can't be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// Not a recipient.
    #[error(
        "the recovery recipient is not an age X25519 recipient: give the line that begins with `age1`, as `age-keygen` prints it"
    )]
    Recipient,
    /// The secret was given where the public recipient is wanted.
    #[error(
        "the recovery recipient is a secret key: give the public line that begins with `age1`, and keep the secret away from this machine"
    )]
    SecretAsRecipient,
    /// Not a recovery key.
    #[error("the recovery key is not an age X25519 secret: give the line that begins with `AGE-SECRET-KEY-1`")]
    Secret,
    /// The copy was made for another recipient.
    #[error("the recovery key is not the one that this vault's copy was made for")]
    WrongKey,
    /// The copy has been changed, or belongs to another vault.
    #[error("the recovery copy of the root key is damaged or of another vault: restore the database from a backup")]
    Damaged,
    /// age failed.
    #[error("the recovery copy can't be made")]
    Encrypt(#[source] Box<dyn std::error::Error + Send + Sync>),
}
