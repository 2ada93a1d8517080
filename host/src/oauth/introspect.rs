//! Asking a server what a token is good for (RFC 7662): where its token answers don't say how long.

use std::collections::BTreeSet;

use http::Method;

use super::error::{Error, ErrorKind, Malformed, Operation};
use super::request::{Call, Parameters, Transport};
use super::server::{BodyFormat, Client, Server};
use crate::clock::Timestamp;
use crate::id::Scope;
use crate::secret::AccessToken;

/// What a server says of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introspection {
    /// Whether it is good.
    pub active: bool,
    /// When it ends, where the server says so.
    pub expires_at: Option<Timestamp>,
    /// Its scopes, where the server says so.
    pub scopes: Option<BTreeSet<Scope>>,
}

/// Asks about an access token.
pub async fn introspect(
    via: &Transport<'_>,
    server: &Server,
    client: &Client<'_>,
    token: &AccessToken,
) -> Result<Introspection, Error> {
    let url = server
        .introspect
        .as_ref()
        .ok_or_else(|| Error::new(&server.name, Operation::Introspect, ErrorKind::Unsupported))?;
    let call = Call { server, operation: Operation::Introspect, method: Method::POST, url, format: BodyFormat::Form };
    let parameters = Parameters::new().with("token", token.expose()).with("token_type_hint", "access_token");
    let answered = call.send(via, client, parameters).await?;
    call.judge(&answered)?;
    let fields = &answered.fields;
    let active = fields.boolean("/active").ok_or_else(|| call.malformed(Malformed::NoActive, &answered))?;
    let expires_at = fields.seconds("/exp").and_then(|since| Timestamp::UNIX_EPOCH.checked_add(since).ok());
    Ok(Introspection { active, expires_at, scopes: fields.scopes("/scope") })
}
