//! One record: a secret at rest, which opens only at the place for which it was sealed.
//!
//! ```text
//! magic(2) ‖ version(1) ‖ suite(1) ‖ key id(16) ‖ salt(32) ‖ commitment(32) ‖ nonce(12) ‖ ciphertext ‖ tag(16)
//! ```
//!
//! The sealing key is extracted once (HKDF-SHA256). Each record has a key of its own, expanded from it together with the
//! commitment: `info = domain ‖ suite ‖ salt ‖ SHA-256(AAD)`. The AAD is the [`Place`], each part with its length before
//! it, behind a domain tag. So a record that lies elsewhere, or whose place was edited, fails at the commitment, before
//! anything is decrypted.

use std::fmt;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::clock::{Clock, random};
use crate::id::{ConnectionId, Generation, Owner, ProviderId, VaultId};
use crate::identity::suite::{self, COMMITMENT, Extracted, NONCE, TAG};
use crate::secret::Key;

const MAGIC: [u8; 2] = *b"CV";
const VERSION: u8 = 1;
/// HKDF-SHA256 and AES-256-GCM.
const SUITE: u8 = 1;
const KEY_ID: usize = 16;
const SALT: usize = 32;
const HEADER: usize = 4 + KEY_ID + SALT + COMMITMENT + NONCE;
const EXTRACT: &[u8] = b"clawcoil/record/extract/1";
const EXPAND: &[u8] = b"clawcoil/record/key/1";
const AAD: &[u8] = b"clawcoil/record/place/1";

/// Names a sealing key; drawn at random with it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct KeyId(pub(crate) [u8; KEY_ID]);

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key_{}", hex::encode(self.0))
    }
}

/// A key that seals records, ready for use.
#[derive(Debug)]
pub(crate) struct SealingKey {
    pub(crate) id: KeyId,
    extracted: Extracted,
}

impl SealingKey {
    pub(crate) fn new(id: KeyId, key: &Key) -> Self {
        Self { id, extracted: Extracted::from(EXTRACT, key.expose()) }
    }
}

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Item<'a> {
    /// A connection under its terms: all that is stored in the clear beside it and must not be changed by others.
    Connection(ConnectionId, [u8; 32]),
    /// The operator's client at the provider.
    Client,
    /// A pending authorization, by the digest of its state.
    Pending(&'a [u8; 32]),
    /// A document, by its kind and lookup key.
    Document(&'a str, &'a [u8; 32]),
    /// A key of the keyring.
    Key(KeyId),
    /// The vault as a whole.
    Vault,
}

/// Which secret of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    AccessToken,
    /// An access token of a connection that its user has not confirmed. Sealed apart, so that editing the state column
    /// doesn't make it usable.
    UnconfirmedAccessToken,
    RefreshToken,
    /// The same for the refresh token.
    UnconfirmedRefreshToken,
    PreviousRefreshToken,
    ClientRegistration,
    PendingAuthorization,
    Document,
    NamespaceKey,
    Check,
}

impl Field {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::AccessToken => "access token",
            Self::UnconfirmedAccessToken => "unconfirmed access token",
            Self::RefreshToken => "refresh token",
            Self::UnconfirmedRefreshToken => "unconfirmed refresh token",
            Self::PreviousRefreshToken => "previous refresh token",
            Self::ClientRegistration => "client registration",
            Self::PendingAuthorization => "pending authorization",
            Self::Document => "document",
            Self::NamespaceKey => "key",
            Self::Check => "check record",
        }
    }
}

/// Where a record belongs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) vault: VaultId,
    pub(crate) owner: &'a Owner,
    pub(crate) provider: Option<&'a ProviderId>,
    pub(crate) item: Item<'a>,
    pub(crate) field: Field,
    pub(crate) generation: Generation,
}

impl Place<'_> {
    /// The digest of the AAD. It is not secret, and may be kept beside a record.
    pub(crate) fn bound(&self) -> Bound {
        let mut aad = Parts(Sha256::new());
        aad.part(AAD);
        aad.part(&[VERSION]);
        aad.part(self.vault.as_bytes());
        match self.owner {
            Owner::Agent => aad.part(b"agent"),
            Owner::User(user) => {
                aad.part(b"user");
                aad.part(user.as_str().as_bytes());
            }
        }
        aad.part(self.provider.map(ProviderId::as_str).unwrap_or_default().as_bytes());
        match self.item {
            Item::Connection(id, terms) => {
                aad.part(b"connection");
                aad.part(id.as_bytes());
                aad.part(&terms);
            }
            Item::Client => aad.part(b"client"),
            Item::Pending(state) => {
                aad.part(b"pending");
                aad.part(state);
            }
            Item::Document(kind, lookup) => {
                aad.part(b"document");
                aad.part(kind.as_bytes());
                aad.part(lookup);
            }
            Item::Key(id) => {
                aad.part(b"key");
                aad.part(&id.0);
            }
            Item::Vault => aad.part(b"vault"),
        }
        aad.part(self.field.as_str().as_bytes());
        aad.part(&self.generation.0.to_be_bytes());
        Bound(aad.0.finalize().into())
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} ", self.field.as_str())?;
        match self.item {
            Item::Connection(id, _) => write!(f, "of connection {id} (")?,
            Item::Document(kind, _) => write!(f, "{kind} (")?,
            Item::Client | Item::Pending(_) | Item::Key(_) | Item::Vault => f.write_str("(")?,
        }
        if !matches!(self.item, Item::Vault | Item::Client) {
            match self.owner {
                Owner::Agent => f.write_str("of the agent, ")?,
                Owner::User(user) => write!(f, "user {user}, ")?,
            }
        }
        if let Some(provider) = self.provider {
            write!(f, "provider {provider}, ")?;
        }
        write!(f, "generation {}, {})", self.generation, self.vault)
    }
}

/// A hash over parts, each with its length before it: no two lists of parts are one text.
pub(crate) struct Parts(pub(crate) Sha256);

impl Parts {
    pub(crate) fn part(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }
}

/// The digest of a [`Place`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bound([u8; 32]);

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Too short, or it doesn't begin as a record does.
    #[error("its bytes are not a record")]
    NotARecord,
    /// A version that this program doesn't know.
    #[error("it has record version {0}, which this program does not know")]
    Version(u8),
    /// A cipher suite that this program doesn't know.
    #[error("it has cipher suite {0}, which this program does not know")]
    Suite(u8),
    /// Sealed under another key: it is another owner's, or the key was replaced.
    #[error("it was sealed with another key")]
    ForeignKey,
    /// Sealed for another place, or its place or header was edited.
    #[error("it was sealed for another place, or what it is bound to was changed")]
    Misplaced,
    /// Its ciphertext was changed.
    #[error("it was changed after it was sealed")]
    Damaged,
    /// It opened, and holds something that this field can't.
    #[error("its contents have another form than this program writes")]
    Contents,
}

/// Seals a secret for a place.
pub(crate) fn seal(key: &SealingKey, place: &Place<'_>, secret: &[u8], clock: &dyn Clock) -> Result<Vec<u8>, Fault> {
    let bound = place.bound();
    let salt = random::<SALT>(clock);
    let nonce = random::<NONCE>(clock);
    let (record_key, commitment) = record_key(key, &salt, &bound);
    // With room for all of it the buffer never moves, so no copy of the plaintext stays behind.
    let mut record = Zeroizing::new(Vec::with_capacity(HEADER + secret.len() + TAG));
    record.extend_from_slice(&MAGIC);
    record.extend_from_slice(&[VERSION, SUITE]);
    record.extend_from_slice(&key.id.0);
    record.extend_from_slice(&salt);
    record.extend_from_slice(&commitment);
    record.extend_from_slice(&nonce);
    record.extend_from_slice(secret);
    let data = record.get_mut(HEADER..).unwrap_or_default();
    let tag = suite::encrypt(&record_key, &nonce, &bound.0, data).map_err(|_| Fault::Contents)?;
    record.extend_from_slice(&tag);
    Ok(std::mem::take(&mut *record))
}

/// Opens a record at the place that it must have been sealed for.
pub(crate) fn open(key: &SealingKey, bound: &Bound, record: &[u8]) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let parsed = Record::parse(record)?;
    if parsed.key != key.id {
        return Err(Fault::ForeignKey);
    }
    let (record_key, commitment) = record_key(key, parsed.salt, bound);
    if !suite::same(&commitment, parsed.commitment) {
        return Err(Fault::Misplaced);
    }
    let mut secret = Zeroizing::new(parsed.ciphertext.to_vec());
    suite::decrypt(&record_key, parsed.nonce, &bound.0, &mut secret, parsed.tag).map_err(|_| Fault::Damaged)?;
    Ok(secret)
}

/// The key under which a record was sealed.
pub(crate) fn key_of(record: &[u8]) -> Result<KeyId, Fault> {
    Ok(Record::parse(record)?.key)
}

fn record_key(key: &SealingKey, salt: &[u8; SALT], bound: &Bound) -> (Key, [u8; COMMITMENT]) {
    key.extracted.key_and_commitment(&[EXPAND, &[SUITE], salt, &bound.0])
}

struct Record<'a> {
    key: KeyId,
    salt: &'a [u8; SALT],
    commitment: &'a [u8; COMMITMENT],
    nonce: &'a [u8; NONCE],
    ciphertext: &'a [u8],
    tag: &'a [u8; TAG],
}

impl<'a> Record<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, Fault> {
        let rest = bytes.strip_prefix(&MAGIC).ok_or(Fault::NotARecord)?;
        let (&[version, suite], rest) = rest.split_first_chunk().ok_or(Fault::NotARecord)?;
        if version != VERSION {
            return Err(Fault::Version(version));
        }
        if suite != SUITE {
            return Err(Fault::Suite(suite));
        }
        let fields = || {
            let (&key, rest) = rest.split_first_chunk()?;
            let (salt, rest) = rest.split_first_chunk()?;
            let (commitment, rest) = rest.split_first_chunk()?;
            let (nonce, rest) = rest.split_first_chunk()?;
            let (ciphertext, tag) = rest.split_last_chunk()?;
            Some(Self { key: KeyId(key), salt, commitment, nonce, ciphertext, tag })
        };
        fields().ok_or(Fault::NotARecord)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::SystemClock;

    fn key(byte: u8) -> SealingKey {
        SealingKey::new(KeyId([byte; 16]), &Key::fill_with(|key| key.fill(byte)))
    }

    const VAULT: VaultId = VaultId::from_bytes([1; 16]);

    fn place<'a>(owner: &'a Owner, provider: &'a ProviderId) -> Place<'a> {
        Place {
            vault: VAULT,
            owner,
            provider: Some(provider),
            item: Item::Connection(ConnectionId::from_bytes([3; 16]), [4; 32]),
            field: Field::AccessToken,
            generation: Generation(5),
        }
    }

    fn names() -> (Owner, ProviderId) {
        (Owner::User("alice".parse().unwrap()), "google".parse().unwrap())
    }

    #[test]
    fn a_record_opens_at_its_place_and_two_records_of_one_secret_share_nothing() {
        let (owner, provider) = names();
        let place = place(&owner, &provider);
        let clock = SystemClock::new();
        let one = seal(&key(7), &place, b"secret", &clock).unwrap();
        let two = seal(&key(7), &place, b"secret", &clock).unwrap();
        assert_eq!(&**open(&key(7), &place.bound(), &one).unwrap(), b"secret");
        assert_eq!(one.len(), HEADER + 6 + TAG);
        assert_ne!(one[20..52], two[20..52]);
        assert_ne!(one[52..], two[52..]);
    }

    #[test]
    fn each_single_flipped_bit_of_a_record_is_an_error() {
        let (owner, provider) = names();
        let place = place(&owner, &provider);
        let record = seal(&key(7), &place, b"secret", &SystemClock::new()).unwrap();
        for bit in 0..record.len() * 8 {
            let mut bad = record.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let expected = match bit / 8 {
                0..2 => Fault::NotARecord,
                2 => Fault::Version(bad[2]),
                3 => Fault::Suite(bad[3]),
                4..20 => Fault::ForeignKey,
                20..84 => Fault::Misplaced,
                _ => Fault::Damaged,
            };
            assert_eq!(open(&key(7), &place.bound(), &bad).err(), Some(expected), "bit {bit}");
        }
    }

    #[test]
    fn each_coordinate_of_a_place_is_bound() {
        let (owner, provider) = names();
        let right = place(&owner, &provider);
        let (other_owner, other_provider) = (Owner::User("bob".parse().unwrap()), "github".parse().unwrap());
        let agent = Owner::Agent;
        let id = ConnectionId::from_bytes([3; 16]);
        let wrong = [
            Place { vault: VaultId::from_bytes([2; 16]), ..right },
            Place { owner: &other_owner, ..right },
            Place { owner: &agent, ..right },
            Place { provider: Some(&other_provider), ..right },
            Place { provider: None, ..right },
            Place { item: Item::Connection(ConnectionId::from_bytes([9; 16]), [4; 32]), ..right },
            Place { item: Item::Connection(id, [5; 32]), ..right },
            Place { item: Item::Client, ..right },
            Place { field: Field::RefreshToken, ..right },
            Place { field: Field::UnconfirmedAccessToken, ..right },
            Place { generation: Generation(6), ..right },
        ];
        let record = seal(&key(7), &right, b"secret", &SystemClock::new()).unwrap();
        for place in wrong {
            assert_eq!(open(&key(7), &place.bound(), &record).err(), Some(Fault::Misplaced), "{place}");
        }
        assert_eq!(open(&key(8), &right.bound(), &record).err(), Some(Fault::ForeignKey));
        let same_name = SealingKey::new(KeyId([7; 16]), &Key::fill_with(|key| key.fill(8)));
        assert_eq!(open(&same_name, &right.bound(), &record).err(), Some(Fault::Misplaced));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), head in any::<bool>()) {
            let (owner, provider) = names();
            let mut record = if head { [&MAGIC[..], &[VERSION, SUITE], &[7; 16]].concat() } else { Vec::new() };
            record.extend(bytes);
            prop_assert!(open(&key(7), &place(&owner, &provider).bound(), &record).is_err());
        }

        #[test]
        fn any_secret_comes_back(secret in proptest::collection::vec(any::<u8>(), 0..300)) {
            let (owner, provider) = names();
            let place = place(&owner, &provider);
            let record = seal(&key(7), &place, &secret, &SystemClock::new()).unwrap();
            prop_assert_eq!(&**open(&key(7), &place.bound(), &record).unwrap(), &secret[..]);
            prop_assert_eq!(key_of(&record), Ok(KeyId([7; 16])));
        }
    }
}
