//! What can go wrong between a client and an authorization server, by who has to act.

use std::fmt;
use std::time::Duration;

use crate::net::NetError;
use crate::secret::RefreshToken;

/// Who has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Culprit {
    /// The operator: a client registration, a provider file.
    Operator,
    /// The provider: its server answers wrongly or is down.
    Provider,
    /// The person whose account it is.
    User,
    /// What lies between us and the provider.
    Network,
    /// Whoever sent the browser to the redirect address: it was not the provider in answer to this attempt.
    Browser,
}

impl fmt::Display for Culprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Operator => "operator",
            Self::Provider => "provider",
            Self::User => "user",
            Self::Network => "network",
            Self::Browser => "browser",
        })
    }
}

/// What was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Sending a person to the provider and reading what comes back.
    Authorize,
    /// Exchanging an authorization code.
    Exchange,
    /// Asking for a token as the client itself.
    ClientCredentials,
    /// Refreshing.
    Refresh,
    /// Revoking.
    Revoke,
    /// Asking what a token is good for.
    Introspect,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Authorize => "connecting the account",
            Self::Exchange => "exchanging the authorization code",
            Self::ClientCredentials => "asking for a token as the client itself",
            Self::Refresh => "refreshing the token",
            Self::Revoke => "revoking the token",
            Self::Introspect => "asking about the token",
        })
    }
}

/// Why an answer could not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Malformed {
    /// A redirect. It is never followed: it would carry the credential on.
    Redirect,
    /// An HTML page.
    Html,
    /// Neither JSON nor a form.
    NotJson,
    /// JSON that breaks off, or is nested too deeply.
    BrokenJson,
    /// No access token where the catalogue says it stands.
    NoAccessToken,
    /// An access token that can't be put on a request.
    UnusableAccessToken,
    /// No `active` in an introspection answer.
    NoActive,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Redirect => "a redirect, which is not followed; name the final address in the provider file",
            Self::Html => "an HTML page instead of JSON",
            Self::NotJson => "something that is neither JSON nor a form",
            Self::BrokenJson => "JSON that breaks off or is nested too deeply",
            Self::NoAccessToken => "no access token where the provider file says that it stands",
            Self::UnusableAccessToken => "an access token that can't stand in a request: it is too long, or has characters that don't belong there",
            Self::NoActive => "no `active` field",
        })
    }
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The grant is over: `invalid_grant`, or the provider's own name for it. Asking again is of no use.
    InvalidGrant,
    /// The client's registration or its secret is wrong. Nobody's grant is at fault.
    InvalidClient,
    /// The scopes asked for don't exist, or the client may not ask for them.
    InvalidScope,
    /// The person, or the provider in the person's name, said no.
    Denied,
    /// Some other error, by name or by status.
    Rejected,
    /// The provider is overloaded or down; the time after which it wants to be asked again, where it says one.
    Transient {
        /// What `Retry-After` said.
        retry_after: Option<Duration>,
    },
    /// The provider was not reached, or its answer did not arrive.
    Network,
    /// The answer is not one.
    Malformed(Malformed),
    /// The redirect came from another authorization server than the one that was asked (RFC 9207 section 2.4).
    WrongIssuer,
    /// The redirect does not name its authorization server, which promises to do so.
    MissingIssuer,
    /// The redirect lacks `state`, or both `code` and `error`, or has one of them twice (RFC 6749 section 3.1).
    InvalidRedirect,
    /// The catalogue has no address for this operation.
    Unsupported,
    /// The client's secret is missing.
    MissingSecret,
}

/// Whether the server may have acted on the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It did not: it was not reached, or it said so.
    NotDone,
    /// It may have: a refresh token may have been replaced by one that we never saw.
    Unknown,
}

/// An operation that failed.
///
/// The message says what was tried at which provider, what was answered, and what to do. It never has bytes of an answer in it
/// beyond an error name made of lower-case letters and underscores.
pub struct Error {
    pub(super) server: String,
    pub(super) operation: Operation,
    pub(super) kind: ErrorKind,
    pub(super) code: Option<String>,
    pub(super) status: Option<u16>,
    pub(super) outcome: Outcome,
    pub(super) rescued: Option<RefreshToken>,
    pub(super) source: Option<Box<NetError>>,
}

impl Error {
    pub(super) fn new(server: &str, operation: Operation, kind: ErrorKind) -> Self {
        Self {
            server: server.to_owned(),
            operation,
            kind,
            code: None,
            status: None,
            outcome: Outcome::NotDone,
            rescued: None,
            source: None,
        }
    }

    pub(super) fn of_net(server: &str, operation: Operation, error: NetError) -> Self {
        let outcome = if error.may_have_been_sent() { Outcome::Unknown } else { Outcome::NotDone };
        Self { outcome, source: Some(Box::new(error)), ..Self::new(server, operation, ErrorKind::Network) }
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What was tried.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// Whether the server may have acted on the request.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The provider's own name for the error.
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// The status of the answer.
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    /// When the provider wants to be asked again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self.kind {
            ErrorKind::Transient { retry_after } => retry_after,
            _ => None,
        }
    }

    /// Whether the grant is over, so that only the person can begin a new one.
    pub fn is_permanent(&self) -> bool {
        self.kind == ErrorKind::InvalidGrant
    }

    /// A new refresh token that could be read from an answer which is unusable otherwise. It has to be kept: on a server that
    /// rotates, it is the only good one.
    pub fn take_rescued(&mut self) -> Option<RefreshToken> {
        self.rescued.take()
    }

    /// Who has to act.
    pub fn culprit(&self) -> Culprit {
        match self.kind {
            ErrorKind::InvalidGrant | ErrorKind::Denied => Culprit::User,
            ErrorKind::InvalidClient
            | ErrorKind::InvalidScope
            | ErrorKind::Unsupported
            | ErrorKind::MissingSecret
            | ErrorKind::Malformed(Malformed::Redirect) => Culprit::Operator,
            ErrorKind::Rejected | ErrorKind::Transient { .. } | ErrorKind::Malformed(_) => Culprit::Provider,
            ErrorKind::Network => Culprit::Network,
            ErrorKind::WrongIssuer | ErrorKind::MissingIssuer | ErrorKind::InvalidRedirect => Culprit::Browser,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} failed: ", self.server, self.operation)?;
        match self.kind {
            ErrorKind::InvalidGrant if self.operation == Operation::Exchange => {
                f.write_str("the authorization code is expired or was used before; connect again")?;
            }
            ErrorKind::InvalidGrant => f.write_str("the grant is over; the person has to connect the account again")?,
            ErrorKind::InvalidClient => f.write_str(
                "the provider does not accept this client; check the client id and secret (`clawcoil provider add`)",
            )?,
            ErrorKind::InvalidScope => f.write_str(
                "the provider does not accept the scopes; check the skill's manifest and the client's registration",
            )?,
            ErrorKind::Denied => f.write_str("the person or the provider declined; nothing was connected")?,
            ErrorKind::Rejected => f.write_str("the provider refused the request")?,
            ErrorKind::Transient { retry_after: None } => f.write_str("the provider is not available just now")?,
            ErrorKind::Transient { retry_after: Some(after) } => {
                write!(f, "the provider is not available just now and asks to wait {} s", after.as_secs())?;
            }
            ErrorKind::Network => f.write_str("no answer from the provider")?,
            ErrorKind::Malformed(what) => write!(f, "the provider answered with {what}")?,
            ErrorKind::WrongIssuer => f.write_str(
                "the redirect names another authorization server than the one that was asked; start again, and if this \
                 repeats, set `issuer` in the provider file",
            )?,
            ErrorKind::MissingIssuer => {
                f.write_str(
                    "the redirect does not name its authorization server, as this provider always does; start again",
                )?;
            }
            ErrorKind::InvalidRedirect => {
                f.write_str("the browser came back with parameters that are missing or repeated; start again")?;
            }
            ErrorKind::Unsupported => f.write_str("the catalogue has no address for it at this provider")?,
            ErrorKind::MissingSecret => {
                f.write_str("the client's secret is missing; add it with `clawcoil provider add`")?;
            }
        }
        match (&self.code, self.status) {
            (Some(code), Some(status)) => write!(f, " ({code}, status {status})"),
            (Some(code), None) => write!(f, " ({code})"),
            (None, Some(status)) => write!(f, " (status {status})"),
            (None, None) => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("server", &self.server)
            .field("operation", &self.operation)
            .field("kind", &self.kind)
            .field("code", &self.code)
            .field("status", &self.status)
            .field("outcome", &self.outcome)
            .field("rescued", &self.rescued)
            .field("source", &self.source)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|error| &**error as _)
    }
}
