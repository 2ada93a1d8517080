//! One thing that happened.

use std::time::Duration;

use crate::id::{
    ChangeId, ClientName, ConnectionId, CredentialName, Digest, ExplanationId, Generation, InvocationId, ProviderId,
    Scope, ServiceName, SkillName, UserId,
};

/// No text in an entry is longer; what is longer is cut. A hostile name can't flood the log.
const LONGEST_TEXT: usize = 1024;
/// No entry lists more scopes.
const MOST_SCOPES: usize = 64;

macro_rules! words {
    ($($(#[$doc:meta])* $enum:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
        pub enum $enum {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $enum {
            /// The word that stands in the log.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// All words of this kind.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
        }

        impl std::str::FromStr for $enum {
            type Err = UnknownWord;

            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                Self::ALL.iter().copied().find(|word| word.as_str() == text).ok_or_else(|| UnknownWord(Self::ALL.iter().map(|word| word.as_str()).collect()))
            }
        }

        impl std::fmt::Display for $enum {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    )*};
}

/// A word that the log doesn't use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the audit log doesn't use this word; it has {}", .0.join(", "))]
pub struct UnknownWord(Vec<&'static str>);

words! {
    /// What happened.
    EventKind {
        /// A call of a skill ended.
        #[default]
        Invoked = "invoked",
        /// Policy refused something.
        Denied = "denied",
        /// A request without a credential went out.
        Requested = "requested",
        /// A token is being attached to a request.
        Released = "released",
        /// A token is being given to the skill itself.
        Revealed = "revealed",
        /// A provider refused a token that was thought good.
        Rejected = "rejected",
        /// An agent asked for an account to be connected.
        ConnectAsked = "connect-asked",
        /// The person who was asked went on to the provider.
        ConnectOpened = "connect-opened",
        /// The person who was asked said no, or that it was the wrong account.
        ConnectDeclined = "connect-declined",
        /// Somebody else than the person who was asked opened the page.
        ConnectRefused = "connect-refused",
        /// Somebody signed in at a console.
        SignedIn = "signed-in",
        /// A connection was made, or made anew.
        Connected = "connected",
        /// The user confirmed which account was connected.
        Confirmed = "confirmed",
        /// Somebody asked at a console for a connection to be removed.
        DisconnectAsked = "disconnect-asked",
        /// A connection was removed.
        Disconnected = "disconnected",
        /// A connection's tokens were replaced.
        Refreshed = "refreshed",
        /// A refresh failed.
        RefreshFailed = "refresh-failed",
        /// A connection needs a person.
        NeedsReconnect = "needs-reconnect",
        /// What was to be told of a change of tokens can't be read.
        ChangeUnreadable = "change-unreadable",
        /// An operator's client at a provider was set.
        ClientSet = "client-set",
        /// An operator's client at a provider was removed.
        ClientRemoved = "client-removed",
        /// A program was given a token for this host.
        TokenCreated = "token-created",
        /// A program's token for this host was ended.
        TokenRevoked = "token-revoked",
        /// The vault was given to a new identity with its recovery key.
        Recovered = "recovered",
        /// A skill was installed.
        SkillAdded = "skill-added",
        /// A skill was removed.
        SkillRemoved = "skill-removed",
        /// A new version of a skill waits for approval.
        SkillProposed = "skill-proposed",
        /// A new version of a skill was approved and installed.
        SkillApproved = "skill-approved",
        /// A new version of a skill was thrown away.
        SkillRejected = "skill-rejected",
        /// A policy came into force.
        PolicyLoaded = "policy-loaded",
    }

    /// How it was decided, or how it ended.
    Decision {
        /// It was allowed, or it succeeded.
        #[default]
        Allowed = "allowed",
        /// It was refused.
        Denied = "denied",
        /// It was tried and failed.
        Failed = "failed",
    }
}

/// One thing that happened. What doesn't apply stays absent.
///
/// There is no field for a secret, and no field may be given one.
#[derive(Debug, Clone, Default)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// How it was decided.
    pub decision: Decision,
    /// During which call of a skill.
    pub invocation: Option<InvocationId>,
    /// Which program called.
    pub client: Option<ClientName>,
    /// With which credential it has proven itself, or which it was given or lost. Together with the user it tells who acted for whom.
    pub credential: Option<CredentialName>,
    /// For which user. Only a keyed tag of it is written.
    pub user: Option<UserId>,
    /// Which skill.
    pub skill: Option<SkillName>,
    /// Which version of it.
    pub skill_digest: Option<Digest>,
    /// Which of its tools.
    pub tool: Option<String>,
    /// Which service of it.
    pub service: Option<ServiceName>,
    /// At which provider.
    pub provider: Option<ProviderId>,
    /// With which connection.
    pub connection: Option<ConnectionId>,
    /// With which scopes.
    pub scopes: Vec<Scope>,
    /// Where the request goes.
    pub origin: Option<String>,
    /// The request's method.
    pub method: Option<String>,
    /// The rule that decided, as `permissions.toml:12`.
    pub rule: Option<String>,
    /// The policy that decided.
    pub policy_hash: Option<Digest>,
    /// Which generation of the connection's tokens.
    pub generation: Option<Generation>,
    /// The vault's epoch after a change of it.
    pub epoch: Option<u64>,
    /// Which change of tokens, so that it is told once.
    pub change: Option<ChangeId>,
    /// How long it took.
    pub took: Option<Duration>,
    /// Under this the refusal was explained to the caller.
    pub explanation: Option<ExplanationId>,
    /// Anything else, in words.
    pub detail: Option<String>,
}

impl Event {
    /// An event of this kind, with nothing else known of it.
    pub fn new(kind: EventKind) -> Self {
        Self { kind, ..Self::default() }
    }

    /// Writes the fields as members of a JSON object, each with a comma before it.
    pub(super) fn write(&self, out: &mut Vec<u8>, user_tag: Option<&str>) {
        text(out, "kind", self.kind.as_str());
        text(out, "decision", self.decision.as_str());
        if let Some(id) = self.invocation {
            hexed(out, "invocation", "inv_", id.as_bytes());
        }
        some(out, "client", self.client.as_ref().map(ClientName::as_str));
        some(out, "credential", self.credential.as_ref().map(CredentialName::as_str));
        some(out, "user", user_tag);
        some(out, "skill", self.skill.as_ref().map(SkillName::as_str));
        if let Some(digest) = self.skill_digest {
            hexed(out, "skill_digest", "sha256:", digest.as_bytes());
        }
        some(out, "tool", self.tool.as_deref());
        some(out, "service", self.service.as_ref().map(ServiceName::as_str));
        some(out, "provider", self.provider.as_ref().map(ProviderId::as_str));
        if let Some(id) = self.connection {
            hexed(out, "connection", "con_", id.as_bytes());
        }
        if !self.scopes.is_empty() {
            out.extend_from_slice(b",\"scopes\":[");
            for (n, scope) in self.scopes.iter().take(MOST_SCOPES).enumerate() {
                if n > 0 {
                    out.push(b',');
                }
                quoted(out, scope.as_str());
            }
            out.push(b']');
        }
        some(out, "origin", self.origin.as_deref());
        some(out, "method", self.method.as_deref());
        some(out, "rule", self.rule.as_deref());
        if let Some(digest) = self.policy_hash {
            hexed(out, "policy", "sha256:", digest.as_bytes());
        }
        if let Some(generation) = self.generation {
            number(out, "generation", generation.0);
        }
        if let Some(id) = self.change {
            hexed(out, "change", "chg_", id.as_bytes());
        }
        if let Some(took) = self.took {
            number(out, "took_ms", u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        }
        if let Some(id) = self.explanation {
            hexed(out, "explanation", "why_", id.as_bytes());
        }
        some(out, "detail", self.detail.as_deref());
    }
}

fn key(out: &mut Vec<u8>, key: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
}

fn some(out: &mut Vec<u8>, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        text(out, name, value);
    }
}

/// A member with a text.
pub(super) fn text(out: &mut Vec<u8>, name: &str, value: &str) {
    key(out, name);
    quoted(out, value);
}

/// A member with a number.
pub(super) fn number(out: &mut Vec<u8>, name: &str, value: u64) {
    key(out, name);
    push_number(out, value);
}

/// A member with a prefix and bytes in hexadecimal.
pub(super) fn hexed(out: &mut Vec<u8>, name: &str, prefix: &str, bytes: &[u8]) {
    key(out, name);
    out.push(b'"');
    out.extend_from_slice(prefix.as_bytes());
    push_hex(out, bytes);
    out.push(b'"');
}

/// Bytes as lower-case hexadecimal.
pub(super) fn push_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + bytes.len() * 2, b'0');
    if let Some(room) = out.get_mut(start..) {
        // The room is twice as long as the bytes, so this can't fail.
        let _ = hex::encode_to_slice(bytes, room);
    }
}

/// A number in decimal.
pub(super) fn push_number(out: &mut Vec<u8>, value: u64) {
    use std::io::Write as _;
    // Writing to a `Vec` can't fail.
    let _ = write!(out, "{value}");
}

/// A JSON string. All but printable ASCII is escaped, so that a line is a line and a terminal shows what is there.
pub(super) fn quoted(out: &mut Vec<u8>, value: &str) {
    let value = value.get(..value.floor_char_boundary(LONGEST_TEXT)).unwrap_or_default();
    out.push(b'"');
    if value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
        out.extend_from_slice(value.as_bytes());
    } else {
        for unit in value.encode_utf16() {
            match u8::try_from(unit) {
                Ok(byte @ (b'"' | b'\\')) => out.extend_from_slice(&[b'\\', byte]),
                Ok(byte @ b' '..=b'~') => out.push(byte),
                _ => {
                    out.extend_from_slice(b"\\u");
                    push_hex(out, &unit.to_be_bytes());
                }
            }
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Written here, by the writer and by the chain.
    const MEMBERS: [&str; 29] = [
        "seq",
        "prev",
        "hash",
        "mac",
        "time",
        "after",
        "kind",
        "decision",
        "invocation",
        "client",
        "credential",
        "user",
        "skill",
        "skill_digest",
        "tool",
        "service",
        "provider",
        "connection",
        "scopes",
        "origin",
        "method",
        "rule",
        "policy",
        "generation",
        "epoch",
        "change",
        "took_ms",
        "explanation",
        "detail",
    ];

    /// Without `..`: a new field has to be thought of here.
    fn every_member() -> Event {
        Event {
            kind: EventKind::Released,
            decision: Decision::Allowed,
            invocation: Some(InvocationId::from_bytes([0; 16])),
            client: "agent".parse().ok(),
            credential: "token:agent".parse().ok(),
            user: "alice".parse().ok(),
            skill: "echo".parse().ok(),
            skill_digest: Some(Digest::of(b"")),
            tool: Some("echo".to_owned()),
            service: "mail".parse().ok(),
            provider: "google".parse().ok(),
            connection: Some(ConnectionId::from_bytes([0; 16])),
            scopes: "mail.read".parse().into_iter().collect(),
            origin: Some("https://mail.example".to_owned()),
            method: Some("GET".to_owned()),
            rule: Some("permissions.toml:1".to_owned()),
            policy_hash: Some(Digest::of(b"")),
            generation: Some(Generation(1)),
            epoch: Some(1),
            change: Some(ChangeId::from_bytes([0; 16])),
            took: Some(Duration::from_millis(1)),
            explanation: Some(ExplanationId::from_bytes([0; 16])),
            detail: Some("words".to_owned()),
        }
    }

    #[test]
    fn every_kind_and_every_member_of_an_entry_is_explained_to_operators() {
        let explained = include_str!("../../../docs/audit.md");
        for kind in EventKind::ALL {
            assert!(explained.contains(&format!("`{kind}`")), "docs/audit.md says nothing of {kind}");
        }
        for member in MEMBERS {
            assert!(explained.contains(&format!("`{member}`")), "docs/audit.md says nothing of the member {member}");
        }
        let mut line = b"{\"seq\":0".to_vec();
        every_member().write(&mut line, Some("usr_0"));
        line.push(b'}');
        let written: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&line).unwrap();
        let known: std::collections::BTreeSet<_> = MEMBERS.into_iter().collect();
        assert_eq!(written.len(), 23, "a member of the example is missing: {written:?}");
        let unknown: Vec<_> = written.keys().filter(|name| !known.contains(name.as_str())).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_as_it_was_written_and_stays_on_its_line(value in any::<String>()) {
            let mut out = Vec::new();
            quoted(&mut out, &value);
            prop_assert!(out.iter().all(|byte| (b' '..=b'~').contains(byte)));
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), value);
        }
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let mut out = Vec::new();
        quoted(&mut out, &"é".repeat(100_000));
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), "é".repeat(LONGEST_TEXT / 2));
    }

    #[test]
    fn each_word_is_read_as_it_is_written() {
        for kind in EventKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(*kind));
        }
        let unknown = "opened".parse::<EventKind>().unwrap_err().to_string();
        assert!(EventKind::ALL.iter().all(|kind| unknown.contains(kind.as_str())), "{unknown}");
    }
}
