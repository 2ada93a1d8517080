//! What a call may do in the world, as the runtime sees it: handles in, answers out.
//!
//! The runtime knows no user, no policy and no credential. Whoever starts a call gives it an [`Authority`], which does.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;

use crate::secret::AccessToken;

/// The authority of one call. It ends with the call: the runtime drops it then.
#[async_trait]
pub trait Authority: Send + Sync + 'static {
    /// A token of a service, as a handle.
    async fn get_token(&self, request: TokenRequest<'_>) -> Result<TokenHandle, AuthError>;

    /// The API refused the token behind this handle: a fresh one is to be used from the next request on.
    fn invalidate(&self, handle: u64);

    /// The access token itself.
    async fn reveal(&self, handle: u64) -> Result<RevealedToken, AuthError>;

    /// Sends the guest's request, or refuses it.
    async fn send(&self, request: http::Request<Body>, timeouts: Timeouts) -> Result<http::Response<Body>, SendError>;
}

/// The body of a request or an answer, as it streams.
pub type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// What the guest asks for.
#[derive(Debug, Clone, Copy)]
pub struct TokenRequest<'a> {
    /// The service by the name that the skill gives it; any text that the guest chose.
    pub service: &'a str,
    /// The scopes; empty for all that the manifest declares.
    pub scopes: &'a [String],
    /// The account by its alias; absent for the one that the operator's grants mean first.
    pub account: Option<&'a str>,
    /// The audience for a narrower token.
    pub audience: Option<&'a str>,
}

/// A token that the guest may use and not see.
#[derive(Debug, Clone)]
pub struct TokenHandle {
    /// What the authority knows it by.
    pub id: u64,
    /// What the guest may know of it.
    pub info: TokenInfo,
    /// The stand-in that the guest may write where the API wants the token.
    pub placeholder: String,
}

/// What is known of a token, none of it secret.
#[derive(Debug, Clone)]
pub struct TokenInfo {
    /// The provider, as the catalogue names it.
    pub provider: String,
    /// Where the connection's API lives.
    pub api_origin: String,
    /// The alias of the account in use.
    pub account: Option<String>,
    /// The scopes that the connection has.
    pub scopes: Vec<String>,
    /// When the access token expires, in milliseconds since 1970-01-01T00:00:00Z.
    pub expires_at_ms: Option<u64>,
}

/// An access token that goes into the guest.
#[derive(Debug)]
pub struct RevealedToken {
    /// The token.
    pub token: AccessToken,
    /// How it is meant to be sent, `Bearer` for most.
    pub token_type: String,
    /// When it expires, in milliseconds since 1970-01-01T00:00:00Z.
    pub expires_at_ms: Option<u64>,
    /// From when on a newer one is to be expected, on the same scale.
    pub refresh_after_ms: Option<u64>,
}

/// Why there is no token; what each kind means stands in `wit/skill.wit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthError {
    /// A person has to act.
    ActionRequired {
        /// Why.
        reason: ActionReason,
        /// The service, as the manifest names it.
        service: String,
        /// The scopes that are missing; empty for the other reasons.
        missing_scopes: Vec<String>,
        /// A sentence for people, without any address.
        message: String,
    },
    /// The operator's policy says no.
    Denied {
        /// What was refused.
        code: AuthDenial,
        /// A sentence for people, with the explanation id.
        message: String,
    },
    /// Try again later.
    Unavailable {
        /// How long to wait, where the provider said so.
        retry_after: Option<Duration>,
        /// A sentence for people.
        message: String,
    },
    /// The manifest does not declare this service.
    Undeclared(String),
    /// Anything else, in words.
    Other(String),
}

/// Why a person has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActionReason {
    /// No account of this provider is connected.
    NotConnected,
    /// The connection's own life is over.
    Expired,
    /// The person or the provider ended the connection.
    Revoked,
    /// The connection lacks scopes.
    MissingScopes,
    /// The operator has to approve this version of the skill.
    ApprovalPending,
}

/// What the operator's policy refused, in the words of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthDenial {
    /// The service.
    ServiceNotGranted,
    /// More scopes than the grant has.
    ScopeNotGranted,
    /// An audience that the grant does not name.
    AudienceNotGranted,
    /// The token itself.
    RevealNotGranted,
    /// Another rule.
    Policy,
    /// The skill or the user is suspended.
    Suspended,
}

/// The guest's own wishes for a request; the host's deadlines hold as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timeouts {
    /// Until the connection stands.
    pub connect: Option<Duration>,
    /// Until the answer begins.
    pub first_byte: Option<Duration>,
    /// Between two parts of the answer's body.
    pub between_bytes: Option<Duration>,
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The operator's policy says no; the text carries the explanation id.
    #[error("{0}")]
    Denied(String),
    /// A person has to act before the request can be made; in words, without any address.
    #[error("{0}")]
    ActionRequired(String),
    /// The request itself is not one that can be sent.
    #[error("{0}")]
    Invalid(String),
    /// The name has no address.
    #[error("the name of the server can't be resolved")]
    NameNotFound,
    /// The address is one that may not be reached.
    #[error("the server's address may not be reached")]
    AddressProhibited,
    /// Nobody listens there.
    #[error("the connection was refused")]
    ConnectionRefused,
    /// The connection ended early.
    #[error("the connection ended early")]
    ConnectionTerminated,
    /// The connection did not come about in time.
    #[error("the connection took too long")]
    ConnectionTimeout,
    /// The TLS handshake failed.
    #[error("the TLS handshake failed")]
    Tls,
    /// The server's certificate is not good.
    #[error("the server's certificate is not good")]
    Certificate,
    /// The answer did not come in time.
    #[error("the answer took too long")]
    ResponseTimeout,
    /// The request's body is larger than allowed.
    #[error("the request is larger than allowed")]
    RequestTooLarge,
    /// The answer is larger than allowed.
    #[error("the answer is larger than allowed")]
    ResponseTooLarge,
    /// The answer is not HTTP.
    #[error("the answer is not valid HTTP")]
    Protocol,
    /// Anything else, in words.
    #[error("{0}")]
    Other(String),
}
