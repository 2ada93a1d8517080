//! The secrets of a test run, noted by who plants them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{LazyLock, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::run;

/// A shorter secret stands in many a text by chance: it is not noted.
const SHORTEST: usize = 12;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal,)*) => {
        /// What a secret is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind {
            $($(#[$doc])* $kind,)*
        }

        impl Kind {
            /// All kinds there are.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }
    };
}

kinds! {
    /// An access token of any provider.
    AccessToken = "access token",
    /// A refresh token.
    RefreshToken = "refresh token",
    /// The secret of an OAuth client.
    ClientSecret = "client secret",
    /// A credential that a person stored by hand.
    ApiKey = "API key",
    /// An authorization code.
    AuthorizationCode = "authorization code",
    /// The verifier of an authorization code (RFC 7636).
    CodeVerifier = "code verifier",
    /// The private key of an agent's identity.
    IdentityKey = "identity key",
    /// The key over a vault's keys.
    RootKey = "root key",
    /// What opens the recovery copy of an agent's root key.
    RecoveryKey = "recovery key",
}

/// Notes a secret, and has this process write what it traces. Less than 12 bytes are not noted.
pub fn plant(kind: Kind, secret: impl AsRef<[u8]>) {
    note(kind, secret.as_ref(), 0);
}

/// Notes that all secrets are to be found that begin like this and go on for at least `then` letters, digits, `-` and `_`.
pub fn plant_prefix(kind: Kind, prefix: &str, then: usize) {
    note(kind, prefix.as_bytes(), then);
}

/// Notes the Ed25519 key in a PEM file.
///
/// # Panics
///
/// It is none.
pub fn plant_key(pem: &str) {
    for secret in private_key(pem) {
        plant(Kind::IdentityKey, secret);
    }
}

/// The text and the seed of an Ed25519 key: 16 bytes that all such keys share, and the seed (RFC 8410 section 7).
///
/// # Panics
///
/// It is none.
pub fn private_key(pem: &str) -> [Vec<u8>; 2] {
    let text: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(&text).expect("a PEM file");
    assert_eq!(der.len(), 48, "an Ed25519 key in a PEM file");
    // The first letters are those of the shared bytes, and tell nobody's key.
    [text.split_at(22).1.into(), der.split_at(16).1.to_vec()]
}

struct Notes {
    file: File,
    /// Digests, so that nothing here keeps a secret that a test wants gone from its memory.
    known: HashSet<u64>,
}

fn note(kind: Kind, secret: &[u8], then: usize) {
    static NOTES: LazyLock<Option<Mutex<Notes>>> =
        LazyLock::new(|| Some(Mutex::new(Notes { file: run::notes()?, known: HashSet::new() })));
    #[cfg(feature = "trace")]
    crate::trace::watch();
    let Some(notes) = &*NOTES else { return };
    if secret.len() + then < SHORTEST {
        return;
    }
    let mut hasher = DefaultHasher::new();
    (kind.name(), secret, then).hash(&mut hasher);
    let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
    if notes.known.insert(hasher.finish()) {
        let line =
            json!({ "kind": kind.name(), "hex": hex::encode(secret), "then": then, "from": run::process_name() });
        notes.file.write_all(format!("{line}\n").as_bytes()).expect("the folder of the test run can be written");
    }
}

/// A noted secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Canary {
    /// What it is and who noted it: `access token 3 of oauth`.
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) secret: Vec<u8>,
    /// How many letters, digits, `-` and `_` must follow.
    pub(crate) then: usize,
}

/// The secrets that were noted in a run, each once.
pub(crate) fn noted(run: &Path) -> io::Result<Vec<Canary>> {
    let mut known = BTreeSet::new();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut canaries = Vec::new();
    for path in crate::search::files(&run::canaries(run))? {
        for line in fs::read_to_string(&path)?.lines() {
            let (kind, secret, then, from) = parse(line)
                .ok_or_else(|| io::Error::other(format!("{} holds a line that is no canary", path.display())))?;
            if known.insert((secret.clone(), then)) {
                let of = format!("{} of {from}", kind.name());
                let count = counts.entry(of).and_modify(|count| *count += 1).or_insert(1);
                let name = format!("{} {count} of {from}", kind.name());
                canaries.push(Canary { name, kind, secret, then });
            }
        }
    }
    Ok(canaries)
}

fn parse(line: &str) -> Option<(Kind, Vec<u8>, usize, String)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let kind = line.get("kind")?.as_str()?;
    let kind = *Kind::ALL.iter().find(|known| known.name() == kind)?;
    let secret = hex::decode(line.get("hex")?.as_str()?).ok()?;
    let then = line.get("then").and_then(Value::as_u64).unwrap_or(0);
    Some((kind, secret, usize::try_from(then).ok()?, line.get("from")?.as_str()?.to_owned()))
}
