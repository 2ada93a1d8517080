//! Ending a token at the provider (RFC 7009, or the provider's own way).

use http::Method;
use url::Url;
use zeroize::Zeroizing;

use super::answer::Text;
use super::error::{Error, ErrorKind, Operation};
use super::request::{Call, Parameters, Transport, basic};
use super::server::{BodyFormat, Client, RevocationStyle, Server};
use crate::secret::{AccessToken, RefreshToken};

/// A token to end.
#[derive(Debug, Clone, Copy)]
pub enum Revocable<'a> {
    /// An access token.
    Access(&'a AccessToken),
    /// A refresh token; at most servers this ends the access tokens that came from it as well.
    Refresh(&'a RefreshToken),
}

impl Revocable<'_> {
    fn expose(&self) -> &str {
        match self {
            Self::Access(token) => token.expose(),
            Self::Refresh(token) => token.expose(),
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            Self::Access(_) => "access_token",
            Self::Refresh(_) => "refresh_token",
        }
    }
}

/// Ends the token. One that the server no longer knows is ended too.
pub async fn revoke(
    via: &Transport<'_>,
    server: &Server,
    client: &Client<'_>,
    token: Revocable<'_>,
) -> Result<(), Error> {
    let unsupported = || Error::new(&server.name, Operation::Revoke, ErrorKind::Unsupported);
    let revocation = server.revocation.as_ref().ok_or_else(unsupported)?;
    let url = with_client_id(&revocation.url, client.id).ok_or_else(unsupported)?;
    let call = |method, format| Call { server, operation: Operation::Revoke, method, url: &url, format };
    let (call, answered) = match revocation.style {
        RevocationStyle::Form | RevocationStyle::Json => {
            let format = if revocation.style == RevocationStyle::Form { BodyFormat::Form } else { BodyFormat::Json };
            let call = call(Method::POST, format);
            let parameters = Parameters::new().with("token", token.expose()).with("token_type_hint", token.hint());
            let answered = call.send(via, client, parameters).await?;
            (call, answered)
        }
        RevocationStyle::Delete => {
            let call = call(Method::DELETE, BodyFormat::Json);
            let secret = client.secret.ok_or_else(|| call.error(ErrorKind::MissingSecret))?;
            let body = Parameters::new().with("access_token", token.expose()).write(BodyFormat::Json);
            let answered = call.send_raw(via, Some(basic(client.id, secret.expose())), body).await?;
            (call, answered)
        }
        RevocationStyle::Bearer => {
            let call = call(Method::POST, BodyFormat::Form);
            let Revocable::Access(token) = token else { return Err(unsupported()) };
            let authorization = Zeroizing::new(format!("Bearer {}", token.expose()));
            let answered = call.send_raw(via, Some(authorization), Zeroizing::new(Vec::new())).await?;
            (call, answered)
        }
    };
    // RFC 7009 section 2.2: success has status 200 and a body that does not matter, also for a token that is not known.
    if answered.status.is_success() && answered.text != Text::Whole {
        return Ok(());
    }
    match call.judge(&answered) {
        Err(error) if error.is_permanent() || matches!(error.code(), Some("invalid_token" | "token_revoked")) => Ok(()),
        Err(error) if revocation.style == RevocationStyle::Delete && error.status() == Some(404) => Ok(()),
        judged => judged,
    }
}

fn with_client_id(url: &Url, client_id: &str) -> Option<Url> {
    // The braces of the placeholder are escaped in a parsed URL.
    let escaped: String = url::form_urlencoded::byte_serialize(client_id.as_bytes()).collect();
    let text = url.as_str().replace("%7Bclient_id%7D", &escaped).replace("{client_id}", &escaped);
    Url::parse(&text).ok()
}
