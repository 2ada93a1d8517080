//! What the protocol has to know about one authorization server, and about us as its client.

use std::collections::{BTreeMap, BTreeSet};

use url::Url;

use crate::secret::ClientSecret;

/// How a client proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// Identifier and secret in an `Authorization: Basic` header, each form-encoded first (RFC 6749 section 2.3.1).
    Basic,
    /// `client_id` and `client_secret` in the body.
    Body,
    /// The secret as the user name of an `Authorization: Basic` header, with an empty password.
    SecretAsUser,
    /// `client_id` in the body, no secret: a public client.
    None,
}

/// How the parameters of a request to the token endpoint are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFormat {
    /// `application/x-www-form-urlencoded`, as RFC 6749 has it.
    Form,
    /// A flat JSON object.
    Json,
}

/// How a token is revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Where. `{client_id}` in its path stands for the client's identifier.
    pub url: Url,
    /// How.
    pub style: RevocationStyle,
}

/// The forms of a revocation request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevocationStyle {
    /// `token` and `token_type_hint` in a form, with client authentication (RFC 7009 section 2.1).
    Form,
    /// `token` in a JSON object, with client authentication.
    Json,
    /// `DELETE` with `access_token` in a JSON object, the client in a Basic header: GitHub.
    Delete,
    /// An empty `POST` which the access token itself authorises.
    Bearer,
}

/// Where things stand in a token answer, as JSON pointers (RFC 6901).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerShape {
    /// The access token.
    pub access: String,
    /// The refresh token.
    pub refresh: String,
    /// The token's type.
    pub token_type: String,
    /// The access token's life in seconds.
    pub expires_in: String,
    /// The scopes that were granted.
    pub scope: String,
    /// Where the error's name may stand. It is an error whatever the status is.
    pub errors: Vec<String>,
    /// A boolean that is false when the request failed.
    pub ok: Option<String>,
    /// The origin where this connection's API lives.
    pub api_origin: Option<String>,
    /// Words that tell a person which account was connected.
    pub account: Option<String>,
}

impl Default for AnswerShape {
    /// RFC 6749 sections 5.1 and 5.2.
    fn default() -> Self {
        Self {
            access: "/access_token".into(),
            refresh: "/refresh_token".into(),
            token_type: "/token_type".into(),
            expires_in: "/expires_in".into(),
            scope: "/scope".into(),
            errors: vec!["/error".into()],
            ok: None,
            api_origin: None,
            account: None,
        }
    }
}

/// One authorization server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Its name in messages.
    pub name: String,
    /// Where a person is sent; absent where only machines connect.
    pub authorize: Option<Url>,
    /// The token endpoint.
    pub token: Url,
    /// Where tokens are refreshed, where it is not the token endpoint.
    pub refresh: Option<Url>,
    /// How tokens are revoked, where they can be.
    pub revocation: Option<Revocation>,
    /// The introspection endpoint (RFC 7662).
    pub introspect: Option<Url>,
    /// The issuer identifier, which `iss` in a redirect must be (RFC 9207). Without one, the origin of `iss` must be that of
    /// the authorization or the token endpoint.
    pub issuer: Option<String>,
    /// The server promises `iss` in every redirect: one without it is refused.
    pub issuer_promised: bool,
    /// How clients authenticate, unless a registration says otherwise.
    pub client_auth: ClientAuth,
    /// How requests to the token endpoint are written.
    pub body: BodyFormat,
    /// What stands between two scopes in a request.
    pub scope_separator: char,
    /// The parameter that carries the scopes.
    pub scope_parameter: String,
    /// Further parameters of the authorization request.
    pub authorize_parameters: BTreeMap<String, String>,
    /// Further parameters of token requests.
    pub token_parameters: BTreeMap<String, String>,
    /// Where things stand in a token answer.
    pub answer: AnswerShape,
    /// Names of errors, besides `invalid_grant`, that mean that the grant is over for good.
    pub permanent_errors: BTreeSet<String>,
    /// Names of errors, besides `invalid_client` and `unauthorized_client`, that mean that the client's registration is wrong.
    pub client_errors: BTreeSet<String>,
}

/// A client as it is registered at a server.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a> {
    /// Its identifier.
    pub id: &'a str,
    /// Its secret; a public client has none.
    pub secret: Option<&'a ClientSecret>,
    /// How it authenticates.
    pub auth: ClientAuth,
}
