//! A connection: an owner's account at a provider.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::envelope::Parts;
use crate::clock::{Clock, Timestamp, random};
use crate::id::{AccountAlias, ConnectionId, Generation, Owner, ProviderId, Scope};
use crate::policy::Origin;
use crate::secret::{AccessToken, RefreshToken};

/// What a provider gave. The fields that are absent keep what the connection had.
#[derive(Debug)]
pub struct TokenSet {
    /// What goes on requests: an access token, an API key, or `user:password` for [`Kind::Basic`].
    pub access: AccessToken,
    /// What buys the next one.
    pub refresh: Option<RefreshToken>,
    /// How it is meant to be sent, `Bearer` for most.
    pub token_type: String,
    /// The life of the access token, counted from [`requested_at`](Self::requested_at).
    pub expires_in: Option<Duration>,
    /// The time just before the request for it was sent.
    pub requested_at: Timestamp,
    /// The scopes that were granted, where the provider says.
    pub scopes: Option<BTreeSet<Scope>>,
    /// Where this account's API lives, where the provider says.
    pub api_origin: Option<Origin>,
    /// Who was connected, in the provider's words.
    pub account_label: Option<String>,
    /// When the grant itself ends, whatever is refreshed.
    pub grant_ends_at: Option<Timestamp>,
}

/// A connection that is to be made.
#[derive(Debug)]
pub struct NewConnection {
    /// Whose it is.
    pub owner: Owner,
    /// At which provider.
    pub provider: ProviderId,
    /// The owner's name for the account. A connection of the same three replaces the one before.
    pub account: AccountAlias,
    /// How its tokens are got.
    pub kind: Kind,
    /// The scopes that were asked for; those that the provider says it granted take their place.
    pub scopes: BTreeSet<Scope>,
}

macro_rules! words {
    ($name:ident { $($variant:ident = $word:literal),* $(,)? }) => {
        impl $name {
            /// The word under which it is stored and shown.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }

        impl FromStr for $name {
            type Err = ();

            fn from_str(text: &str) -> Result<Self, ()> {
                match text { $($word => Ok(Self::$variant),)* _ => Err(()) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

/// How a connection's tokens are got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A person consented (RFC 6749 section 4.1).
    AuthorizationCode,
    /// The agent as itself (RFC 6749 section 4.4).
    ClientCredentials,
    /// A key that the provider handed out.
    ApiKey,
    /// A name and a password.
    Basic,
    /// A token that never changes.
    StaticBearer,
}

words!(Kind {
    AuthorizationCode = "authorization-code",
    ClientCredentials = "client-credentials",
    ApiKey = "api-key",
    Basic = "basic",
    StaticBearer = "static-bearer",
});

/// Why a person has to connect again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReconnectReason {
    /// The provider says that the grant is over (RFC 6749 section 5.2, `invalid_grant`).
    Refused,
    /// A refresh was cut off after the provider may have replaced the refresh token, and the old one is refused now.
    RotationLost,
    /// The life that the provider gives a grant is over.
    GrantEnded,
}

words!(ReconnectReason {
    Refused = "refused",
    RotationLost = "rotation-lost",
    GrantEnded = "grant-ended",
});

impl ReconnectReason {
    /// A clause for people.
    pub const fn explanation(self) -> &'static str {
        match self {
            Self::Refused => "the provider no longer accepts the grant",
            Self::RotationLost => "a refresh was cut off and its new token was lost",
            Self::GrantEnded => "the provider ends grants of this age",
        }
    }
}

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The tokens are stored, and can't be used until the user has seen which account was connected.
    Unconfirmed,
    /// In use.
    Active,
    /// Over, until a person connects again.
    NeedsReconnect {
        /// Why.
        reason: ReconnectReason,
        /// Since when.
        since: Timestamp,
    },
}

impl State {
    /// The user has seen which account it is. A connection that is over stays over.
    #[must_use]
    pub fn confirmed(self) -> Self {
        match self {
            Self::Unconfirmed | Self::Active => Self::Active,
            over @ Self::NeedsReconnect { .. } => over,
        }
    }

    /// A refresh gave new tokens. This brings back a connection that was thought lost.
    #[must_use]
    pub fn refreshed(self) -> Self {
        match self {
            Self::Active | Self::NeedsReconnect { .. } => Self::Active,
            Self::Unconfirmed => Self::Unconfirmed,
        }
    }

    /// The grant is over. The first reason stays.
    #[must_use]
    pub fn ended(self, reason: ReconnectReason, since: Timestamp) -> Self {
        match self {
            Self::Unconfirmed | Self::Active => Self::NeedsReconnect { reason, since },
            over @ Self::NeedsReconnect { .. } => over,
        }
    }

    /// The word under which it is stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unconfirmed => "unconfirmed",
            Self::Active => "active",
            Self::NeedsReconnect { .. } => "needs-reconnect",
        }
    }
}

/// An owner's account at a provider, without its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Names it. A connection that is made anew has a new one.
    pub id: ConnectionId,
    /// Whose it is.
    pub owner: Owner,
    /// At which provider.
    pub provider: ProviderId,
    /// The owner's name for it.
    pub account: AccountAlias,
    /// How its tokens are got.
    pub kind: Kind,
    /// What it may do.
    pub scopes: BTreeSet<Scope>,
    /// Where its API lives, where that is not the same for all.
    pub api_origin: Option<Origin>,
    /// Who was connected, in the provider's words.
    pub account_label: Option<String>,
    /// How the token is meant to be sent.
    pub token_type: String,
    /// Where it stands.
    pub state: State,
    /// How often its tokens have been replaced.
    pub generation: Generation,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its token was last used, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// When the access token expires.
    pub expires_at: Option<Timestamp>,
    /// When it is planned to be refreshed.
    pub refresh_at: Option<Timestamp>,
    /// When the grant itself ends.
    pub grant_ends_at: Option<Timestamp>,
}

impl Connection {
    /// Whether both are known to be of different accounts at their provider.
    pub(crate) fn is_of_another_than(&self, new: &Self) -> bool {
        matches!((&self.account_label, &new.account_label), (Some(one), Some(other)) if one != other)
    }

    /// A digest of what is stored in the clear and decides how the token is used. Each record of the connection is bound
    /// to it, so an edit of these columns makes the tokens unreadable instead of usable elsewhere.
    pub(crate) fn terms(&self) -> [u8; 32] {
        let mut terms = Parts(Sha256::new());
        terms.part(b"clawcoil/connection/terms/1");
        terms.part(self.account.as_str().as_bytes());
        terms.part(self.kind.as_str().as_bytes());
        terms.part(self.token_type.as_bytes());
        terms.part(self.api_origin.as_ref().map(ToString::to_string).unwrap_or_default().as_bytes());
        terms.part(self.account_label.as_deref().unwrap_or_default().as_bytes());
        for scope in &self.scopes {
            terms.part(scope.as_str().as_bytes());
        }
        terms.0.finalize().into()
    }

    /// The connection with what an answer of the provider says beside its tokens.
    pub(crate) fn with(self, tokens: &TokenSet, has_refresh: bool, clock: &dyn Clock) -> Self {
        let expires_at = tokens.expires_in.map(|life| later(tokens.requested_at, life));
        let refreshable = has_refresh || self.kind == Kind::ClientCredentials;
        let refresh_at = tokens
            .expires_in
            .filter(|_| refreshable)
            .map(|life| later(tokens.requested_at, refresh_after(life, u64::from_be_bytes(random(clock)))));
        Self {
            scopes: tokens.scopes.clone().unwrap_or(self.scopes),
            api_origin: tokens.api_origin.clone().or(self.api_origin),
            account_label: tokens.account_label.clone().or(self.account_label),
            grant_ends_at: tokens.grant_ends_at.or(self.grant_ends_at),
            token_type: tokens.token_type.clone(),
            expires_at,
            refresh_at,
            ..self
        }
    }
}

pub(crate) fn later(from: Timestamp, by: Duration) -> Timestamp {
    from.saturating_add(by).unwrap_or(Timestamp::MAX)
}

/// How long after the request an access token of this life is refreshed: at 5/6, less up to a tenth of the remaining
/// sixth, so that tokens that were got together are not refreshed together. A short life is halved.
pub(crate) fn refresh_after(life: Duration, jitter: u64) -> Duration {
    if life < Duration::from_mins(3) {
        return life / 2;
    }
    let remaining = life / 6;
    let tenth = u64::try_from((remaining / 10).as_millis()).unwrap_or(u64::MAX).max(1);
    life.saturating_sub(remaining).saturating_sub(Duration::from_millis(jitter % tenth))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_hour_is_refreshed_at_fifty_minutes_less_a_minute_at_the_most() {
        let hour = Duration::from_hours(1);
        assert_eq!(refresh_after(hour, 0), Duration::from_mins(50));
        assert_eq!(refresh_after(hour, 59_999), Duration::from_millis(2_940_001));
        assert_eq!(refresh_after(Duration::from_mins(1), 12345), Duration::from_secs(30));
    }

    #[test]
    fn a_state_that_is_over_stays_over_until_new_tokens_come() {
        let over = State::Active.ended(ReconnectReason::Refused, Timestamp::UNIX_EPOCH);
        assert_eq!(over.confirmed(), over);
        assert_eq!(over.ended(ReconnectReason::GrantEnded, Timestamp::MAX), over);
        assert_eq!(over.refreshed(), State::Active);
        assert_eq!(State::Unconfirmed.refreshed(), State::Unconfirmed);
    }

    proptest! {
        #[test]
        fn a_refresh_is_planned_within_the_life(life in 0_u64..10_000_000_000, jitter: u64) {
            let life = Duration::from_millis(life);
            let at = refresh_after(life, jitter);
            prop_assert!(at <= life && at >= life / 2);
            if life >= Duration::from_mins(3) {
                prop_assert!(at.as_secs_f64() >= life.as_secs_f64() * (5.0 / 6.0 - 1.0 / 60.0) - 0.01);
            }
        }
    }
}
