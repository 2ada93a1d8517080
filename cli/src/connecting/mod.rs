//! Connect sessions: an agent asks, a person connects, and what waited goes on.
//!
//! ```text
//! waiting ──► at the provider ──► unconfirmed ──► connected
//!    │              │                  │
//!    └──────────────┴── declined, failed, expired
//! ```
//!
//! A session is a document in the vault, so a restart forgets none. Its link is no secret that opens an account: whoever
//! opens it must be the user who was asked. That is proven by a browser that is signed in as that user, or by the app that
//! embeds the agent: the browser goes back to the app with a code that is good once, and the app confirms over the API. Until
//! the user has seen which account was connected, its tokens can't be used.

mod attempt;
mod redirect;
mod sessions;
mod stored;

use std::collections::BTreeSet;

use clawcoil::clock::Timestamp;
use clawcoil::id::{AccountAlias, ClientName, ConnectionId, ProviderId, Scope, SkillName, UserId};
use url::Url;

pub(crate) use attempt::{Browser, Opener, Refusal};
pub(crate) use redirect::redirect_uri;
pub(crate) use sessions::{Proofs, Sessions, check_asked};

/// What an agent asks for.
#[derive(Debug, Clone)]
pub(crate) struct NewSession {
    /// The program that asks.
    pub(crate) client: ClientName,
    /// Whose account it is to be.
    pub(crate) user: UserId,
    /// At which provider.
    pub(crate) provider: ProviderId,
    /// Under which name; absent: `default`.
    pub(crate) account: Option<AccountAlias>,
    /// Which scopes. None with a skill: those that the skill was granted.
    pub(crate) scopes: BTreeSet<Scope>,
    /// For which skill.
    pub(crate) skill: Option<SkillName>,
    /// Where the browser goes afterwards, for apps that confirm over the API.
    pub(crate) return_url: Option<Url>,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    /// `cs_…`
    pub(crate) id: String,
    /// What the person opens.
    pub(crate) url: Url,
    pub(crate) user: UserId,
    pub(crate) client: ClientName,
    pub(crate) provider: ProviderId,
    pub(crate) account: AccountAlias,
    pub(crate) scopes: BTreeSet<Scope>,
    pub(crate) skill: Option<SkillName>,
    pub(crate) return_url: Option<Url>,
    pub(crate) state: SessionState,
    /// Until when it can be opened and confirmed.
    pub(crate) expires_at: Timestamp,
}

/// Where a session stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SessionState {
    /// Nobody has begun yet.
    Waiting,
    /// The person was sent to the provider.
    AtProvider,
    /// An account was connected, and its owner has not said yet that it is the right one.
    Unconfirmed(ConnectionId),
    /// The account can be used.
    Connected(ConnectionId),
    /// The person said no.
    Declined,
    /// It can't be done; somebody else than the person must act.
    Failed(String),
    /// Nobody came in time.
    Expired,
}

impl SessionState {
    /// Whether nothing changes it any more.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Waiting | Self::AtProvider | Self::Unconfirmed(_) => false,
            Self::Connected(_) | Self::Declined | Self::Failed(_) | Self::Expired => true,
        }
    }

    /// The word for programs.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::AtProvider => "at-provider",
            Self::Unconfirmed(_) => "unconfirmed",
            Self::Connected(_) => "connected",
            Self::Declined => "declined",
            Self::Failed(_) => "failed",
            Self::Expired => "expired",
        }
    }

    /// The connection, once there is one.
    pub(crate) fn connection(&self) -> Option<ConnectionId> {
        match self {
            Self::Unconfirmed(id) | Self::Connected(id) => Some(*id),
            Self::Waiting | Self::AtProvider | Self::Declined | Self::Failed(_) | Self::Expired => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::stored::Stored;
    use super::*;
    use crate::serve::Origins;

    fn session(state: SessionState) -> Session {
        Session {
            id: "cs_1".to_owned(),
            url: "http://127.0.0.1:8418/connect/cs_1".parse().unwrap(),
            user: "team-a/alice".parse().unwrap(),
            client: "bot".parse().unwrap(),
            provider: "google".parse().unwrap(),
            account: "work".parse().unwrap(),
            scopes: ["https://www.googleapis.com/auth/gmail.send".parse().unwrap()].into(),
            skill: Some("gmail-send".parse().unwrap()),
            return_url: Some("https://app.example.com/connected".parse().unwrap()),
            state,
            expires_at: Timestamp::from_second(1_800_000_000).unwrap(),
        }
    }

    #[test]
    fn a_session_is_read_as_it_was_left() {
        let origins = Origins::new("http://127.0.0.1:8418".parse().unwrap(), []);
        let connection = ConnectionId::from_bytes([7; 16]);
        for state in [
            SessionState::Waiting,
            SessionState::AtProvider,
            SessionState::Unconfirmed(connection),
            SessionState::Connected(connection),
            SessionState::Declined,
            SessionState::Failed("the operator must act".to_owned()),
            SessionState::Expired,
        ] {
            let session = session(state);
            let text = serde_json::to_string(&Stored::of(&session, Some("code".to_owned()))).unwrap();
            let stored: Stored = serde_json::from_str(&text).unwrap();
            assert_eq!(stored.left(&origins), Some(session));
            assert_eq!(stored.code.as_deref(), Some("code"));
        }
    }
}
