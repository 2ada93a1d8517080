//! The protocol between a client and an authorization server, without storage.
//!
//! What a particular server wants and how it answers is data ([`Server`]); the provider catalogue reads it from a file. Answers
//! are read leniently: a field that can't be read never costs a refresh token that can ([`Error::take_rescued`]). No bytes of an
//! answer get into an error, a log line or a `Debug`.

mod answer;
pub mod authorization_code;
pub mod client_credentials;
mod error;
pub mod introspect;
pub mod refresh;
mod request;
mod retry_after;
pub mod revoke;
mod server;

pub use answer::TokenResponse;
pub use error::{Culprit, Error, ErrorKind, Malformed, Operation, Outcome};
pub use request::Transport;
pub use server::{AnswerShape, BodyFormat, Client, ClientAuth, Revocation, RevocationStyle, Server};

#[cfg(test)]
mod tests;
