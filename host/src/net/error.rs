//! Why a request got no whole answer.

use std::error::Error;
use std::fmt;

use super::addresses::RefusedAddress;
use super::endpoint::Endpoint;

/// How far a request had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Looking up the name.
    Resolve,
    /// Judging the addresses.
    Check,
    /// Opening the connection.
    Connect,
    /// The TLS handshake.
    Tls,
    /// Sending the request, up to the first byte of the answer.
    Request,
    /// Reading the answer's body.
    Body,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "looking up the name of",
            Self::Check => "checking the addresses of",
            Self::Connect => "connecting to",
            Self::Tls => "the TLS handshake with",
            Self::Request => "waiting for the answer of",
            Self::Body => "reading the answer of",
        })
    }
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The name has no address.
    #[error("the name has no address")]
    NoAddress,
    /// An address that must not be dialled. One is enough, whatever the others are.
    #[error("{0}")]
    Refused(RefusedAddress),
    /// `http` to an address that is not a loopback one: the credential would be readable on the way.
    #[error("plain http is allowed to a loopback address only; use https")]
    PlainHttp,
    /// The host can't stand in a certificate.
    #[error("the host is not a name that TLS can check")]
    TlsName,
    /// The time for this stage was over.
    #[error("no progress in time")]
    Timeout,
    /// The time for the whole exchange was over.
    #[error("the time for the whole exchange was over")]
    Deadline,
    /// The answer's header section is larger than the limit.
    #[error("the answer's headers are larger than the limit")]
    HeadersTooLarge,
    /// The answer's body is larger than the limit.
    #[error("the answer is larger than the limit of {0} bytes")]
    BodyTooLarge(u64),
    /// The certificate was refused. `extra_roots` is the way out for a private authority.
    #[error(
        "the server's certificate is not trusted; for a private certificate authority, name its file as extra roots"
    )]
    Certificate,
    /// The other side does not speak HTTP/1.1 as it should.
    #[error("the answer is not valid HTTP/1.1")]
    Protocol,
    /// The connection failed.
    #[error("the connection failed")]
    Connection,
}

/// A request that got no whole answer: which stage failed, and for which origin. Never a path, a query, a header or a body.
#[derive(Debug, thiserror::Error)]
#[error("{stage} {endpoint} failed: {fault}")]
pub struct NetError {
    stage: Stage,
    endpoint: Endpoint,
    fault: Fault,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl NetError {
    pub(super) fn new(stage: Stage, endpoint: &Endpoint, fault: Fault) -> Self {
        Self { stage, endpoint: endpoint.clone(), fault, source: None }
    }

    pub(super) fn caused(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    pub(super) fn of_hyper(stage: Stage, endpoint: &Endpoint, error: hyper::Error) -> Self {
        let fault = if error.is_parse_too_large() {
            Fault::HeadersTooLarge
        } else if error.is_parse() {
            Fault::Protocol
        } else {
            Fault::Connection
        };
        Self::new(stage, endpoint, fault).caused(error)
    }

    /// How far the request had come.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Where it was to go.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// What went wrong.
    pub fn fault(&self) -> Fault {
        self.fault
    }

    /// Whether the other side may have seen the request: asking again is then not always harmless.
    pub fn may_have_been_sent(&self) -> bool {
        self.stage >= Stage::Request
    }
}
