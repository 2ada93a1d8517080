//! A guest's outgoing requests.

pub mod attach;
mod escape;
pub mod headers;
pub mod placeholder;
pub mod redact;
pub mod slots;

/// Whatever ended a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of a request or an answer, as it streams.
pub type Body = http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, BoxError>;
