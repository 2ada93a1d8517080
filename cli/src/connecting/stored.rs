//! A session as it is stored.

use std::time::Duration;

use clawcoil::clock::{Timestamp, from_milliseconds};
use clawcoil::id::{Generation, Owner};
use clawcoil::vault::{Document, Lookup};
use serde::{Deserialize, Serialize};

use super::{Session, SessionState};
use crate::serve::Origins;

pub(super) const KIND: &str = "connect-session";

/// How long the end of a session is remembered, for the agent that asks.
const MEMORY: Duration = Duration::from_hours(24);

/// What the vault keeps of a session.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Stored {
    id: String,
    user: String,
    client: String,
    provider: String,
    account: String,
    scopes: Vec<String>,
    skill: Option<String>,
    return_url: Option<String>,
    state: StoredState,
    /// The digest of the code with which the embedding app confirms.
    pub(super) code: Option<String>,
    deadline: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "is", content = "with", rename_all = "kebab-case")]
enum StoredState {
    Waiting,
    AtProvider,
    Unconfirmed(String),
    Connected(String),
    Declined,
    Failed(String),
    Expired,
}

impl Stored {
    pub(super) fn of(session: &Session, code: Option<String>) -> Self {
        Self {
            id: session.id.clone(),
            user: session.user.to_string(),
            client: session.client.to_string(),
            provider: session.provider.to_string(),
            account: session.account.to_string(),
            scopes: session.scopes.iter().map(ToString::to_string).collect(),
            skill: session.skill.as_ref().map(ToString::to_string),
            return_url: session.return_url.as_ref().map(ToString::to_string),
            state: match &session.state {
                SessionState::Waiting => StoredState::Waiting,
                SessionState::AtProvider => StoredState::AtProvider,
                SessionState::Unconfirmed(id) => StoredState::Unconfirmed(id.to_string()),
                SessionState::Connected(id) => StoredState::Connected(id.to_string()),
                SessionState::Declined => StoredState::Declined,
                SessionState::Failed(why) => StoredState::Failed(why.clone()),
                SessionState::Expired => StoredState::Expired,
            },
            code,
            deadline: session.expires_at.as_millisecond(),
        }
    }

    /// The session as it was left. `None`: no version of this program wrote it.
    pub(super) fn left(&self, origins: &Origins) -> Option<Session> {
        Some(Session {
            id: self.id.clone(),
            url: origins.url(&format!("/connect/{}", self.id)),
            user: self.user.parse().ok()?,
            client: self.client.parse().ok()?,
            provider: self.provider.parse().ok()?,
            account: self.account.parse().ok()?,
            scopes: self.scopes.iter().map(|scope| scope.parse().ok()).collect::<Option<_>>()?,
            skill: self.skill.as_ref().map(|skill| skill.parse()).transpose().ok()?,
            return_url: self.return_url.as_ref().map(|url| url.parse()).transpose().ok()?,
            state: match &self.state {
                StoredState::Waiting => SessionState::Waiting,
                StoredState::AtProvider => SessionState::AtProvider,
                StoredState::Unconfirmed(id) => SessionState::Unconfirmed(id.parse().ok()?),
                StoredState::Connected(id) => SessionState::Connected(id.parse().ok()?),
                StoredState::Declined => SessionState::Declined,
                StoredState::Failed(why) => SessionState::Failed(why.clone()),
                StoredState::Expired => SessionState::Expired,
            },
            expires_at: from_milliseconds(self.deadline)?,
        })
    }

    /// As a document of its user, who takes it along when shredded.
    pub(super) fn document(&self, session: &Session, lookup: Lookup, revision: Generation) -> Document {
        let forgotten = session.expires_at.saturating_add(MEMORY).unwrap_or(Timestamp::MAX);
        Document {
            kind: KIND,
            lookup,
            owner: Owner::User(session.user.clone()),
            expires_at: Some(forgotten),
            contents: serde_json::to_string(self).unwrap_or_default().into(),
            revision,
        }
    }
}
