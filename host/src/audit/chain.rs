//! One chain: how an entry is sealed to the one before it, and how that is checked.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::id::UserId;
use crate::secret::Key;

use super::event;
use super::verify::Fault;

/// The format that this module writes and reads.
pub(super) const FORMAT: u64 = 1;

/// `,"hash":"` + 64 + `","mac":"` + 32 + `"}`
const SUFFIX: usize = 9 + 64 + 9 + 32 + 2;

/// What an entry is linked to: the number it must have, and the hash of the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) seq: u64,
    pub(super) prev: [u8; 32],
}

impl Link {
    /// What the first entry of a chain is linked to.
    pub(super) const FIRST: Self = Self { seq: 0, prev: [0; 32] };
}

/// The keys of the log, derived from the one that it is given.
pub(super) struct Keys {
    mac: Hmac<Sha256>,
    user: Hmac<Sha256>,
}

impl Keys {
    pub(super) fn new(key: &Key) -> Self {
        Self { mac: subkey(key, b"clawcoil audit: entry"), user: subkey(key, b"clawcoil audit: user") }
    }

    /// How a user is written.
    pub(super) fn user_tag(&self, user: &UserId) -> String {
        let mut mac = self.user.clone();
        mac.update(user.as_str().as_bytes());
        let tag = mac.finalize().into_bytes();
        let mut out = b"usr_".to_vec();
        event::push_hex(&mut out, tag.get(..16).unwrap_or_default());
        String::from_utf8(out).unwrap_or_default()
    }

    /// Begins an entry: `{"seq":…,"prev":"…"`.
    pub(super) fn begin(out: &mut Vec<u8>, link: &Link) {
        out.extend_from_slice(b"{\"seq\":");
        event::push_number(out, link.seq);
        event::hexed(out, "prev", "", &link.prev);
    }

    /// Ends an entry that begins at `start` in `out` with its members, and says what the next one is linked to. No line feed yet.
    pub(super) fn seal(&self, out: &mut Vec<u8>, start: usize, link: &Link) -> Link {
        let entry = out.get(start..).unwrap_or_default();
        let hash: [u8; 32] = Sha256::new().chain_update(link.prev).chain_update(entry).finalize().into();
        let mut mac = self.mac.clone();
        mac.update(&hash);
        let mac = mac.finalize().into_bytes();
        event::hexed(out, "hash", "", &hash);
        event::hexed(out, "mac", "", mac.get(..16).unwrap_or_default());
        out.push(b'}');
        Link { seq: link.seq.saturating_add(1), prev: hash }
    }

    /// Checks a line (without its line feed) against what it must be linked to.
    pub(super) fn check(&self, line: &[u8], after: &Link) -> Result<Link, Fault> {
        let mut start = Vec::with_capacity(line.len());
        Self::begin(&mut start, after);
        start.push(b',');
        if !line.starts_with(&start) {
            return Err(place_of(line, after));
        }
        let body = line.len().checked_sub(SUFFIX).and_then(|end| line.get(..end)).ok_or(Fault::Edited)?;
        let mut sealed = body.to_vec();
        let next = self.seal(&mut sealed, 0, after);
        // A code of another key over the right hash: the line is whole.
        let mac_at = line.len().saturating_sub(9 + 32 + 2);
        match sealed == line {
            true => Ok(next),
            false if sealed.get(..mac_at) == line.get(..mac_at) => Err(Fault::OtherKey),
            false => Err(Fault::Edited),
        }
    }

    /// Checks a line that stands alone, taking its own word for what it is linked to.
    pub(super) fn check_alone(&self, line: &[u8]) -> Option<Link> {
        self.check(line, &link_of(line)?).ok()
    }
}

fn subkey(key: &Key, purpose: &[u8]) -> Hmac<Sha256> {
    let sub = keyed(key.expose()).chain_update(purpose).finalize().into_bytes();
    keyed(&sub.into())
}

/// The seed of the key that signs checkpoints.
pub(super) fn checkpoint_seed(key: &Key) -> Key {
    let seed = keyed(key.expose()).chain_update(b"clawcoil audit: checkpoint").finalize().into_bytes();
    Key::fill_with(|to| to.copy_from_slice(&seed))
}

/// The hash that a line carries, as it says itself.
pub(super) fn hash_of(line: &[u8]) -> Option<[u8; 32]> {
    let start = line.len().checked_sub(SUFFIX)?;
    let digits = line.get(start..)?.strip_prefix(b",\"hash\":\"")?.get(..64)?;
    let mut hash = [0; 32];
    hex::decode_to_slice(digits, &mut hash).ok()?;
    Some(hash)
}

fn keyed(key: &[u8; 32]) -> Hmac<Sha256> {
    // RFC 2104: a key shorter than the block is filled up with zeros.
    let mut block = [0; 64];
    block.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    Hmac::new(&block.into())
}

/// What a line says it is linked to.
fn link_of(line: &[u8]) -> Option<Link> {
    let rest = line.strip_prefix(b"{\"seq\":")?;
    let digits = rest.iter().position(|byte| !byte.is_ascii_digit())?;
    let seq = std::str::from_utf8(rest.get(..digits)?).ok()?.parse().ok()?;
    let hash = rest.get(digits..)?.strip_prefix(b",\"prev\":\"")?.get(..64)?;
    let mut prev = [0; 32];
    hex::decode_to_slice(hash, &mut prev).ok()?;
    Some(Link { seq, prev })
}

/// Why a line doesn't start as it must at its place.
fn place_of(line: &[u8], expected: &Link) -> Fault {
    match link_of(line) {
        Some(found) if found.seq > expected.seq => Fault::Missing { until: found.seq.saturating_sub(1) },
        Some(found) if found.seq < expected.seq => Fault::Repeated { number: found.seq },
        Some(found) if found.prev != expected.prev => Fault::Forked,
        _ => Fault::Edited,
    }
}
