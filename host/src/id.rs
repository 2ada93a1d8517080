//! Names and identifiers, parsed once at the edge; inside the crate none of them is a bare string.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

/// A text that is not a name of the kind that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid {kind}: {rule}")]
pub struct InvalidName {
    kind: &'static str,
    rule: &'static str,
    text: String,
}

impl InvalidName {
    fn new(kind: &'static str, rule: &'static str, text: &str) -> Self {
        // A hostile name must not flood a log: the first 64 characters tell enough.
        Self { kind, rule, text: text.chars().take(64).collect() }
    }

    /// The rule that the text breaks, as a phrase.
    pub fn rule(&self) -> &'static str {
        self.rule
    }
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident, $kind:literal, $max:literal, $rule:literal, $first:expr, $rest:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                let mut chars = text.chars();
                let first: fn(char) -> bool = $first;
                let rest: fn(char) -> bool = $rest;
                if text.len() <= $max && chars.next().is_some_and(first) && chars.all(rest) {
                    Ok(Self(text.into()))
                } else {
                    Err(InvalidName::new($kind, $rule, text))
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    )*};
}

fn lower(c: char) -> bool {
    c.is_ascii_lowercase()
}

fn lower_digit_hyphen(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
}

fn alphanumeric(c: char) -> bool {
    c.is_ascii_alphanumeric()
}

fn account_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

fn user_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@' | ':' | '/' | '+')
}

fn scope_char(c: char) -> bool {
    // RFC 6749 section 3.3: NQCHAR, %x21 / %x23-5B / %x5D-7E.
    matches!(c, '\x21' | '\x23'..='\x5b' | '\x5d'..='\x7e')
}

names! {
    /// The name of a skill.
    SkillName, "skill name", 64, "lower-case letters, digits and hyphens, a letter first, at most 64", lower, lower_digit_hyphen;
    /// A skill's own name for an account it needs: what its code passes to `get-token`.
    ServiceName, "service name", 64, "lower-case letters, digits and hyphens, a letter first, at most 64", lower, lower_digit_hyphen;
    /// An entry of the provider catalogue.
    ProviderId, "provider", 64, "lower-case letters, digits and hyphens, a letter first, at most 64", lower, lower_digit_hyphen;
    /// A program that calls the host.
    ClientName, "client name", 64, "letters, digits, `.`, `_` and `-`, a letter or digit first, at most 64", alphanumeric, account_char;
    /// What a caller has shown of itself, by a name that is no secret: a token's `tok_…`, say.
    CredentialName, "credential name", 128, "letters, digits and `-_.@:/+`, a letter or digit first, at most 128", alphanumeric, user_char;
    /// A user of the agent. Opaque to skills, which never see it.
    UserId, "user", 128, "letters, digits and `-_.@:/+`, a letter or digit first, at most 128", alphanumeric, user_char;
    /// A user's name for one of several accounts at a provider.
    AccountAlias, "account", 64, "letters, digits, `.`, `_` and `-`, a letter or digit first, at most 64", alphanumeric, account_char;
    /// One OAuth scope (RFC 6749 section 3.3).
    Scope, "scope", 512, "printable ASCII without space, quote or backslash, at most 512", scope_char, scope_char;
}

impl AccountAlias {
    /// The alias that an account has where none was said, and the one that is meant where none is named.
    pub const DEFAULT: &'static str = "default";

    pub(crate) fn is_default(&self) -> bool {
        self.as_str() == Self::DEFAULT
    }
}

/// Whose connections: a user's, or the agent's own (client credentials, company keys).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// The agent itself: a namespace of its own, used only under grants that say `as = "agent"`.
    Agent,
    /// A user.
    User(UserId),
}

impl Owner {
    /// The user, unless it is the agent itself.
    pub fn user(&self) -> Option<&UserId> {
        match self {
            Self::Agent => None,
            Self::User(user) => Some(user),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent => f.write_str("the agent"),
            Self::User(user) => fmt::Display::fmt(user, f),
        }
    }
}

/// Who calls: an authenticated program, and the user for whom it calls.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Caller {
    /// The program.
    pub client: ClientName,
    /// The user.
    pub user: UserId,
    /// With which credential the program has proven itself, where it needed one. Policy doesn't look at it; the audit log
    /// names it, so that who may act for many users is told apart from each of them.
    pub credential: Option<CredentialName>,
}

impl Caller {
    /// A program that calls for a user, without a credential: an embedding program's own word for it.
    pub fn new(client: ClientName, user: UserId) -> Self {
        Self { client, user, credential: None }
    }
}

/// A SHA-256 digest, written `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// A digest that was computed elsewhere.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for Digest {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let mut bytes = [0; 32];
        match text.strip_prefix("sha256:").map(|hex| hex::decode_to_slice(hex, &mut bytes)) {
            Some(Ok(())) => Ok(Self(bytes)),
            _ => Err(InvalidName::new("digest", "`sha256:` and 64 hexadecimal digits", text)),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, "sha256:", &self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Written in one piece, so that a `String` is made at its length: each call writes several of these.
fn write_hex(f: &mut fmt::Formatter<'_>, prefix: &str, bytes: &[u8]) -> fmt::Result {
    let mut text = [0; 8 + 64];
    let length = prefix.len() + bytes.len() * 2;
    let (start, digits) =
        text.get_mut(..length).and_then(|text| text.split_at_mut_checked(prefix.len())).ok_or(fmt::Error)?;
    start.copy_from_slice(prefix.as_bytes());
    hex::encode_to_slice(bytes, digits).map_err(|_| fmt::Error)?;
    let text = text.get(..length).and_then(|text| std::str::from_utf8(text).ok());
    f.write_str(text.ok_or(fmt::Error)?)
}

macro_rules! random_ids {
    ($($(#[$doc:meta])* $name:ident, $kind:literal, $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// An identifier of 128 bits that the caller drew at random.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The 16 bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                let mut bytes = [0; 16];
                match text.strip_prefix($prefix).map(|hex| hex::decode_to_slice(hex, &mut bytes)) {
                    Some(Ok(())) => Ok(Self(bytes)),
                    _ => Err(InvalidName::new(
                        $kind,
                        concat!("`", $prefix, "` and 32 hexadecimal digits"),
                        text,
                    )),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(f, $prefix, &self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}

random_ids! {
    /// One connection: an account of an owner at a provider.
    ConnectionId, "connection", "con_";
    /// One call of a skill.
    InvocationId, "call", "inv_";
    /// Under this the audit log keeps why something was refused; every message about the refusal carries it.
    ExplanationId, "explanation", "why_";
    /// A change of a connection's tokens, as the audit log tells of it.
    ChangeId, "change", "chg_";
    /// A vault. Part of what each of its records is bound to.
    VaultId, "vault", "vault_";
}

/// Gives names at the rate at which calls begin, without a system call for each.
///
/// Each is a digest of the seed and a number: none comes twice, and who doesn't know the seed learns nothing of the others. A process
/// that is copied while it runs (a fork, a snapshot of the machine) gives the names of its copy.
pub struct Names {
    seed: [u8; 16],
    next: AtomicU64,
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever knew the seed could say what comes next.
        f.debug_struct("Names").finish_non_exhaustive()
    }
}

impl Names {
    /// From a seed that was drawn at random for this process.
    pub const fn new(seed: [u8; 16]) -> Self {
        Self { seed, next: AtomicU64::new(0) }
    }

    /// The next name.
    pub fn draw(&self) -> [u8; 16] {
        let number = self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let digest = Digest::of([&self.seed[..], &number].concat().as_slice());
        digest.as_bytes().first_chunk().copied().unwrap_or_default()
    }
}

/// An agent, named by the SHA-256 of its certificate's `SubjectPublicKeyInfo`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AgentId(Digest);

impl AgentId {
    /// The agent whose `SubjectPublicKeyInfo` (DER) this is.
    pub fn of_spki(der: &[u8]) -> Self {
        Self(Digest::of(der))
    }

    /// The agent by its digest, as it was stored.
    pub const fn from_digest(digest: Digest) -> Self {
        Self(digest)
    }

    /// The 32 bytes of the digest.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

impl FromStr for AgentId {
    type Err = <Digest as FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How often a connection's tokens have been replaced. Part of what each token's record is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

impl Generation {
    /// The one after this.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_refuse_what_could_be_mistaken_for_structure() {
        for bad in ["", "-a", "A", "a b", "a/b", "a\n", "é", "a\0", &"a".repeat(65)] {
            assert!(bad.parse::<SkillName>().is_err(), "{bad:?}");
        }
        for bad in ["", "*", " a", "a b", "a\n", "a\u{202e}", "a\\"] {
            assert!(bad.parse::<UserId>().is_err(), "{bad:?}");
        }
        assert!("team:sales/ann@example.com".parse::<UserId>().is_ok());
    }

    #[test]
    fn an_error_about_a_name_is_bounded() {
        let long = "x".repeat(1 << 20);
        assert!(long.parse::<UserId>().unwrap_err().to_string().len() < 300);
    }

    proptest! {
        #[test]
        fn parsing_any_text_as_a_name_never_panics_and_keeps_what_it_accepts(text in ".{0,80}") {
            if let Ok(name) = text.parse::<UserId>() { prop_assert_eq!(name.as_str(), &text); }
            if let Ok(name) = text.parse::<Scope>() { prop_assert_eq!(name.as_str(), &text); }
            let _ = text.parse::<Digest>();
        }

        #[test]
        fn identifiers_and_digests_are_read_as_they_are_written(bytes: [u8; 16], digest: [u8; 32]) {
            let id = ConnectionId::from_bytes(bytes);
            prop_assert_eq!(id.to_string().parse::<ConnectionId>().unwrap(), id);
            let digest = Digest::from_bytes(digest);
            prop_assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        }
    }
}
