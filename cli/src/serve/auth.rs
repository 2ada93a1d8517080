//! The credential of a request.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use clawcoil::id::{Caller, UserId};

use super::{Kind, Problem, Shared};
use crate::callers::{Authenticated, Scope, Tokens};

/// In which header a client that may act for others names the user.
pub(crate) const USER: &str = "clawcoil-user";

/// Who calls, by the bearer token of the request (RFC 6750 section 2.1).
pub(crate) struct Bearer {
    authenticated: Authenticated,
    named: Option<UserId>,
}

impl Bearer {
    /// The caller, if the credential has this scope.
    pub(crate) fn caller(&self, scope: Scope) -> Result<Caller, Problem> {
        self.authenticated.require(scope)?;
        Ok(self.authenticated.caller(self.named.as_ref())?)
    }

    /// An operator.
    pub(crate) fn operator(&self) -> Result<&Authenticated, Problem> {
        self.authenticated.require(Scope::Admin)?;
        Ok(&self.authenticated)
    }

    /// The credential, whatever it is for.
    pub(crate) fn authenticated(&self) -> &Authenticated {
        &self.authenticated
    }
}

impl FromRequestParts<Shared> for Bearer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Result<Self, Problem> {
        let token = bearer(&parts.headers)?;
        let unknown = || {
            Problem::new(
                Kind::Unauthenticated,
                "the bearer token is not known: it expired, was revoked, or never was one",
            )
            .with_header(header::WWW_AUTHENTICATE, "Bearer error=\"invalid_token\"")
        };
        let authenticated = Tokens::of(&app.host).authenticate(token)?.ok_or_else(unknown)?;
        let named = match parts.headers.get(USER).map(|value| value.to_str().map(str::parse)) {
            None => None,
            Some(Ok(Ok(user))) => Some(user),
            Some(_) => return Err(Problem::new(Kind::BadRequest, "the header ClawCoil-User names no user")),
        };
        Ok(Self { authenticated, named })
    }
}

/// The one bearer token of a request.
fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let missing = || Problem::new(Kind::Unauthenticated, "send `Authorization: Bearer …` with a token of this host");
    let (Some(value), None) = (values.next(), values.next()) else { return Err(missing()) };
    let (scheme, token) = value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or_else(missing)?;
    if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() { Ok(token) } else { Err(missing()) }
}
