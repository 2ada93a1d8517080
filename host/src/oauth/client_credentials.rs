//! The client credentials grant: the agent as itself (RFC 6749 section 4.4).

use std::collections::BTreeSet;

use http::Method;

use super::answer::TokenResponse;
use super::authorization_code::joined;
use super::error::{Error, Operation};
use super::request::{Call, Parameters, Transport};
use super::server::{Client, Server};
use crate::id::Scope;

/// Asks for a token. A refresh token in the answer is kept where there is one, though RFC 6749 section 4.4.3 advises against it.
pub async fn request(
    via: &Transport<'_>,
    server: &Server,
    client: &Client<'_>,
    scopes: &BTreeSet<Scope>,
) -> Result<TokenResponse, Error> {
    let call = Call {
        server,
        operation: Operation::ClientCredentials,
        method: Method::POST,
        url: &server.token,
        format: server.body,
    };
    let scopes = joined(scopes, server.scope_separator);
    let mut parameters = Parameters::new().with("grant_type", "client_credentials").with_all(&server.token_parameters);
    if !scopes.is_empty() {
        parameters = parameters.with(&server.scope_parameter, &scopes);
    }
    let answered = call.send(via, client, parameters).await?;
    call.token_response(&answered)
}
