//! Who calls: programs with their credentials, and the users for whom they call.
//!
//! A *client* is a program that has a credential. A *caller* is a client and the user for whom it calls; a skill's policy is that
//! of a caller. Most credentials are for one user. One that may `act-as` names the user with each request, within a pattern, and
//! can do nothing but invoke skills: whoever holds it can't connect accounts in other people's names or change anything.

mod jwt;
mod token;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use clawcoil::id::{Caller, ClientName, Digest, UserId};
use clawcoil::policy::Pattern;
use url::Url;

pub(crate) use jwt::{Claims, Expected, JwtError, Keys, metadata};
pub(crate) use token::{CallerToken, NewToken, PREFIX, Shown, Tokens};

/// What a credential is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub(crate) enum Scope {
    /// List and call skills, see its own invocations.
    Invoke,
    /// Ask for connections, list and end those of its user.
    Connect,
    /// Read everything and change what operators change.
    Admin,
}

impl Scope {
    pub(crate) const ALL: [Self; 3] = [Self::Invoke, Self::Connect, Self::Admin];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Invoke => "invoke",
            Self::Connect => "connect",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or(UnknownScope)
    }
}

/// A word that names no scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a scope is one of invoke, connect, admin")]
pub(crate) struct UnknownScope;

/// For whom a credential calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    /// This user.
    User(UserId),
    /// A user named with each request, who must fit the pattern.
    ActAs(Pattern),
    /// Nobody: an operator's credential.
    Nobody,
}

/// An issuer of JWTs.
#[derive(Debug, Clone)]
pub(crate) struct IdentityProvider {
    /// Its issuer identifier, compared as it stands (RFC 8414 section 2).
    pub(crate) issuer: String,
    /// What `aud` must contain.
    pub(crate) audience: String,
    /// Which claim is the user.
    pub(crate) user_claim: String,
    /// Which program calls.
    pub(crate) client: ClientFrom,
    /// What its JWTs may do.
    pub(crate) scopes: BTreeSet<Scope>,
    /// Where its keys are; otherwise found by its metadata.
    pub(crate) jwks_uri: Option<Url>,
}

/// Where the name of the calling program comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ClientFrom {
    /// It is this one.
    Fixed(ClientName),
    /// It stands in this claim.
    Claim(String),
}

/// A program at the Unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Whose processes.
    pub(crate) uid: u32,
    /// The program they are.
    pub(crate) client: ClientName,
    /// For whom they call.
    pub(crate) subject: Subject,
    /// What they may do.
    pub(crate) scopes: BTreeSet<Scope>,
}

/// A caller that has proven who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Authenticated {
    /// The credential's own name; it is no secret.
    pub(crate) credential: String,
    /// The program.
    pub(crate) client: ClientName,
    /// For whom.
    pub(crate) subject: Subject,
    /// What it may do.
    pub(crate) scopes: BTreeSet<Scope>,
}

/// Why a credential does not do for a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("this needs a credential with the scope {0}")]
    Scope(Scope),
    #[error("this credential is for one user, and the request names another")]
    OtherUser,
    #[error("this credential may not act for that user")]
    NotWithinPattern,
    #[error("the request must say for which user, in the header ClawCoil-User")]
    UserMissing,
    #[error("this credential calls for nobody, so it can't call for a user")]
    Nobody,
}

impl Authenticated {
    /// Holds it to a scope.
    pub(crate) fn require(&self, scope: Scope) -> Result<(), Refused> {
        if self.scopes.contains(&scope) { Ok(()) } else { Err(Refused::Scope(scope)) }
    }

    /// The caller of a request that may name the user itself.
    pub(crate) fn caller(&self, named: Option<&UserId>) -> Result<Caller, Refused> {
        let user = match (&self.subject, named) {
            (Subject::User(user), None) => user,
            (Subject::User(user), Some(named)) if user == named => user,
            (Subject::User(_), Some(_)) => return Err(Refused::OtherUser),
            (Subject::ActAs(pattern), Some(named)) if pattern.matches(named.as_str()) => named,
            (Subject::ActAs(_), Some(_)) => return Err(Refused::NotWithinPattern),
            (Subject::ActAs(_), None) => return Err(Refused::UserMissing),
            (Subject::Nobody, _) => return Err(Refused::Nobody),
        };
        // Identity providers name people as they like. What the log's names don't admit is told apart by its digest.
        let digest = || Digest::of(self.credential.as_bytes()).to_string().parse();
        let credential = self.credential.parse().or_else(|_| digest()).ok();
        Ok(Caller { client: self.client.clone(), user: user.clone(), credential })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(subject: Subject) -> Authenticated {
        Authenticated {
            credential: "tok_1".to_owned(),
            client: "bot".parse().unwrap(),
            subject,
            scopes: [Scope::Invoke].into(),
        }
    }

    #[test]
    fn a_credential_calls_for_its_user_or_within_its_pattern_and_for_nobody_else() {
        let (alice, bob): (UserId, UserId) = ("team-a/alice".parse().unwrap(), "bob".parse().unwrap());
        let own = with(Subject::User(alice.clone()));
        assert_eq!(own.caller(None).unwrap().user, alice);
        assert_eq!(own.caller(None).unwrap().credential.unwrap().as_str(), "tok_1", "the log names the credential");
        let foreign =
            Authenticated { credential: "jwt:https://id.example:auth0|7".to_owned(), ..with(own.subject.clone()) };
        let named = foreign.caller(None).unwrap().credential.unwrap();
        assert!(
            named.as_str().starts_with("sha256:"),
            "what the log's names don't admit is named by its digest: {named}"
        );
        assert_eq!(own.caller(Some(&alice)).unwrap().user, alice);
        assert_eq!(own.caller(Some(&bob)), Err(Refused::OtherUser));
        let acting = with(Subject::ActAs("team-a/*".parse().unwrap()));
        assert_eq!(acting.caller(Some(&alice)).unwrap().user, alice);
        assert_eq!(acting.caller(Some(&bob)), Err(Refused::NotWithinPattern));
        assert_eq!(acting.caller(None), Err(Refused::UserMissing));
        assert_eq!(with(Subject::Nobody).caller(Some(&alice)), Err(Refused::Nobody));
    }
}
