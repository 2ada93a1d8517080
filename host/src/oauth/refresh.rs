//! Refreshing (RFC 6749 section 6).

use http::Method;

use super::answer::TokenResponse;
use super::error::{Error, Operation};
use super::request::{Call, Parameters, Transport};
use super::server::{Client, Server};
use crate::secret::RefreshToken;

/// Asks for a new access token, once. The scopes stay those of the grant.
///
/// An answer without a refresh token means that the old one stays good.
pub async fn refresh(
    via: &Transport<'_>,
    server: &Server,
    client: &Client<'_>,
    token: &RefreshToken,
) -> Result<TokenResponse, Error> {
    let url = server.refresh.as_ref().unwrap_or(&server.token);
    let call = Call { server, operation: Operation::Refresh, method: Method::POST, url, format: server.body };
    let parameters = Parameters::new()
        .with("grant_type", "refresh_token")
        .with("refresh_token", token.expose())
        .with_all(&server.token_parameters);
    let answered = call.send(via, client, parameters).await?;
    call.token_response(&answered)
}
