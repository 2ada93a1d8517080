//! The credential of a request.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use clawcoil::id::{Caller, UserId};

use super::access::Asker;
use super::listen::Peer;
use super::{App, Kind, Problem, Shared};
use crate::callers::{Authenticated, JwtError, Scope, Tokens};

/// In which header a client that may act for others names the user.
pub(crate) const USER: &str = "clawcoil-user";

/// Who calls: by the bearer token of the request (RFC 6750 section 2.1), or by whose process it is that called at the Unix socket.
#[derive(Debug, Clone)]
pub(crate) struct Bearer {
    authenticated: Arc<Authenticated>,
    named: Option<UserId>,
}

impl Bearer {
    /// The caller, if the credential has this scope.
    pub(crate) fn caller(&self, scope: Scope) -> Result<Caller, Problem> {
        self.authenticated.require(scope)?;
        Ok(self.authenticated.caller(self.named.as_ref())?)
    }

    /// The credential, whatever it is for.
    pub(crate) fn authenticated(&self) -> &Authenticated {
        &self.authenticated
    }

    async fn read(parts: &Parts, app: &App) -> Result<Self, Problem> {
        let authenticated = match (bearer(&parts.headers)?, parts.extensions.get::<Peer>()) {
            (Some(token), _) => by_token(app, token).await?,
            (None, Some(Peer::Unix(uid))) => {
                let peer = app.config.peers.iter().find(|known| known.uid == *uid).ok_or_else(|| {
                    let detail = format!(
                        "processes of user {uid} are not known here: name them under [[unix]] in serve.toml, or send a token"
                    );
                    Problem::new(Kind::Unauthenticated, detail)
                })?;
                Arc::new(Authenticated {
                    credential: format!("unix:{}", peer.uid),
                    client: peer.client.clone(),
                    subject: peer.subject.clone(),
                    scopes: peer.scopes.clone(),
                })
            }
            (None, None | Some(Peer::Tcp(_))) => return Err(missing()),
        };
        if let Some(asker) = parts.extensions.get::<Asker>() {
            asker.is(&authenticated.client);
        }
        app.rates.check(&authenticated.credential)?;
        let named = match parts.headers.get(USER).map(|value| value.to_str().map(str::parse)) {
            None => None,
            Some(Ok(Ok(user))) => Some(user),
            Some(_) => return Err(Problem::new(Kind::BadRequest, "the header ClawCoil-User names no user")),
        };
        Ok(Self { authenticated, named })
    }
}

impl FromRequestParts<Shared> for Bearer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Result<Self, Problem> {
        Self::read(parts, app).await
    }
}

/// Whoever asks for what is open to any program: it shows no credential, or a good one.
///
/// A credential that is shown is judged also where none is needed, so that a program hears at once that its token is no good. What
/// browsers open goes by their cookie, whatever a proxy before it sends, and the documents by which a client finds out how it gets a
/// token (RFC 9728) are also for one whose token has just been refused.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Anybody;

impl FromRequestParts<Shared> for Anybody {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Result<Self, Problem> {
        if !parts.headers.contains_key(header::AUTHORIZATION) {
            return Ok(Self);
        }
        match Bearer::read(parts, app).await {
            Ok(_) => Ok(Self),
            // How the host is can be asked also while it can judge nobody.
            Err(problem) if matches!(problem.kind(), Kind::Internal | Kind::Unavailable) => Ok(Self),
            Err(problem) => Err(problem),
        }
    }
}

async fn by_token(app: &App, token: &str) -> Result<Arc<Authenticated>, Problem> {
    let refused = |detail: String| {
        Problem::new(Kind::Unauthenticated, detail)
            .with_header(header::WWW_AUTHENTICATE, "Bearer error=\"invalid_token\"")
    };
    if let Some(authenticated) = Tokens::of(&app.host).authenticate(&app.shown, token)? {
        return Ok(authenticated);
    }
    match app.keys.authenticate(&app.host, &app.config.identity_providers, token).await {
        Ok(Some(authenticated)) => Ok(Arc::new(authenticated)),
        Ok(None) => Err(refused("the token is not known: it expired, was revoked, or never was one".to_owned())),
        Err(error @ JwtError::Invalid(_)) => Err(refused(error.to_string())),
        Err(error @ JwtError::Unavailable { .. }) => {
            tracing::warn!("{error}");
            let detail = "the identity provider can't be asked for its keys at present";
            Err(Problem::new(Kind::Unavailable, detail).retry_after(std::time::Duration::from_secs(30)))
        }
    }
}

fn missing() -> Problem {
    Problem::new(Kind::Unauthenticated, "send `Authorization: Bearer …` with a token of this host")
}

/// The one bearer token of a request, if it has a credential at all.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value,
        (Some(_), Some(_)) => return Err(missing()),
    };
    let (scheme, token) = value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or_else(missing)?;
    if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() { Ok(Some(token)) } else { Err(missing()) }
}
