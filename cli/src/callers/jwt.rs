//! JWTs of an organisation's identity provider as credentials (RFC 7519), checked against its published keys (RFC 7517).

mod ring_provider;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Request, StatusCode, Uri, header};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clawcoil::host::Host;
use clawcoil::net::Endpoint;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Map, Value};
use tokio::sync::Mutex;
use url::Url;

use super::{Authenticated, ClientFrom, IdentityProvider, Subject};

/// How long published keys are taken for current.
const FRESH: Duration = Duration::from_mins(10);
/// A JWT with an unknown key makes us look again, but not more often than this.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// How far the issuer's clock may be off.
const LEEWAY: Duration = Duration::from_secs(30);
/// The longest JWT that is looked at, in bytes.
const LONGEST: usize = 16 << 10;
/// Signatures with a public key. A MAC is not among them: its key would be anybody's who can read the published ones.
const ALGORITHMS: [Algorithm; 8] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// The claims of a JWT that was found good.
pub(crate) type Claims = Map<String, Value>;

/// Why a JWT is no credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JwtError {
    /// The bearer must bring another.
    #[error("the JWT is not good: {0}")]
    Invalid(&'static str),
    /// Its issuer could not be asked for its keys.
    #[error("the keys of {issuer} can't be read: {why}")]
    Unavailable {
        /// The issuer.
        issuer: String,
        /// What failed.
        why: String,
    },
}

/// What a JWT must be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected<'a> {
    /// Its issuer.
    pub(crate) issuer: &'a str,
    /// For whom it was issued.
    pub(crate) audience: &'a str,
    /// Where the issuer's keys are; otherwise its metadata says so.
    pub(crate) jwks_uri: Option<&'a Url>,
}

/// The keys that issuers publish, kept for a while.
#[derive(Debug, Default)]
pub(crate) struct Keys(Mutex<HashMap<String, Published>>);

#[derive(Debug, Clone)]
struct Published {
    keys: Arc<JwkSet>,
    read_at: Duration,
    /// When a JWT with an unknown key made us look again.
    looked_again: Option<Duration>,
}

/// The issuer that a JWT names, before anything of it is believed. `None`: it is no JWT.
pub(crate) fn issuer_of(token: &str) -> Option<String> {
    let mut parts = token.split('.');
    let (_, payload, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else { return None };
    if token.len() > LONGEST {
        return None;
    }
    let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?;
    let claims: Claims = serde_json::from_slice(&payload).ok()?;
    Some(claims.get("iss")?.as_str()?.to_owned())
}

impl Keys {
    /// Who shows this JWT. `None`: it is none, or of an issuer that the operator has not named.
    pub(crate) async fn authenticate(
        &self,
        host: &Host,
        providers: &[IdentityProvider],
        token: &str,
    ) -> Result<Option<Authenticated>, JwtError> {
        let Some(issuer) = issuer_of(token) else { return Ok(None) };
        let Some(provider) = providers.iter().find(|provider| provider.issuer == issuer) else { return Ok(None) };
        let expected = Expected { issuer: &issuer, audience: &provider.audience, jwks_uri: provider.jwks_uri.as_ref() };
        let claims = self.verify(host, token, expected).await?;
        let text = |claim: &str| claims.get(claim).and_then(Value::as_str);
        let user = text(&provider.user_claim).and_then(|user| user.parse().ok());
        let client = match &provider.client {
            ClientFrom::Fixed(client) => Some(client.clone()),
            ClientFrom::Claim(claim) => text(claim).and_then(|client| client.parse().ok()),
        };
        Ok(Some(Authenticated {
            credential: format!("jwt:{issuer}:{}", text("sub").unwrap_or_default()),
            client: client.ok_or(JwtError::Invalid("the claim that names the program is missing or is no name"))?,
            subject: Subject::User(
                user.ok_or(JwtError::Invalid("the claim that names the user is missing or is no name"))?,
            ),
            scopes: provider.scopes.clone(),
        }))
    }

    /// The claims of a JWT, if it is good: signed by the issuer, for this audience, and not expired.
    pub(crate) async fn verify(&self, host: &Host, token: &str, expected: Expected<'_>) -> Result<Claims, JwtError> {
        ring_provider::install();
        if token.len() > LONGEST {
            return Err(JwtError::Invalid("it is too long"));
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| JwtError::Invalid("its header can't be read"))?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(JwtError::Invalid("its algorithm is not admitted"));
        }
        let known = self.published(host, expected, None).await?;
        let kid = header.kid.as_deref();
        let keys = if key(&known.keys, kid, header.alg).is_some() {
            known
        } else {
            // The issuer may have changed its keys since.
            self.published(host, expected, Some(known.read_at)).await?
        };
        let key = key(&keys.keys, kid, header.alg).ok_or(JwtError::Invalid("its issuer has no such key"))?;
        let key = DecodingKey::from_jwk(key).map_err(|_| JwtError::Invalid("its key can't be used"))?;
        let mut validation = Validation::new(header.alg);
        validation.set_issuer(&[expected.issuer]);
        validation.set_audience(&[expected.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        // The times are judged by our own clock, below.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let claims =
            jsonwebtoken::decode::<Claims>(token, &key, &validation).map_err(|error| refused(error.kind()))?.claims;
        check_times(&claims, host.clock().now().as_second())?;
        Ok(claims)
    }

    /// The issuer's keys: those that are known, unless they are old, or those of `unless` did not do.
    async fn published(
        &self,
        host: &Host,
        expected: Expected<'_>,
        unless: Option<Duration>,
    ) -> Result<Published, JwtError> {
        // Held while the issuer is asked: everyone else who needs its keys waits for the same answer.
        let mut known = self.0.lock().await;
        let now = host.clock().monotonic();
        if let Some(published) = known.get(expected.issuer) {
            let age = now.saturating_sub(published.read_at);
            let good = match unless {
                None => age < FRESH,
                Some(read_at) => {
                    let lately = |at: Duration| now.saturating_sub(at) < LOOK_AGAIN;
                    published.read_at != read_at || published.looked_again.is_some_and(lately)
                }
            };
            if good {
                return Ok(published.clone());
            }
        }
        let before = known.get(expected.issuer).and_then(|published| published.looked_again);
        let looked_again = unless.map(|_| now).or(before);
        match read(host, expected).await {
            Ok(keys) => {
                let published = Published { keys: Arc::new(keys), read_at: now, looked_again };
                known.insert(expected.issuer.to_owned(), published.clone());
                Ok(published)
            }
            Err(why) => match known.get_mut(expected.issuer) {
                // An issuer that is away for a while does not take back its keys by that.
                Some(published) => {
                    tracing::warn!(issuer = expected.issuer, why, "the keys could not be read again");
                    (published.read_at, published.looked_again) = (now, looked_again);
                    Ok(published.clone())
                }
                None => Err(JwtError::Unavailable { issuer: expected.issuer.to_owned(), why }),
            },
        }
    }
}

async fn read(host: &Host, expected: Expected<'_>) -> Result<JwkSet, String> {
    let issuer: Url = expected.issuer.parse().map_err(|_| "it is no address".to_owned())?;
    let uri = if let Some(uri) = expected.jwks_uri {
        uri.clone()
    } else {
        let metadata = metadata(host, &issuer).await?;
        let uri = metadata.get("jwks_uri").and_then(Value::as_str);
        uri.and_then(|uri| uri.parse().ok()).ok_or("its metadata names no jwks_uri")?
    };
    let body = get(host, &uri, &issuer).await?;
    serde_json::from_slice(&body).map_err(|_| format!("{uri} holds no key set"))
}

/// What an issuer publishes about itself (OpenID Connect Discovery 1.0 section 4).
pub(crate) async fn metadata(host: &Host, issuer: &Url) -> Result<Map<String, Value>, String> {
    let mut url = issuer.clone();
    url.set_path(&format!("{}/.well-known/openid-configuration", issuer.path().trim_end_matches('/')));
    let body = get(host, &url, issuer).await?;
    let metadata: Map<String, Value> = serde_json::from_slice(&body).map_err(|_| format!("{url} holds no metadata"))?;
    let named = metadata.get("issuer").and_then(Value::as_str).unwrap_or_default();
    if named.trim_end_matches('/') == issuer.as_str().trim_end_matches('/') {
        Ok(metadata)
    } else {
        Err(format!("{url} is the metadata of another issuer"))
    }
}

/// Reads an address that the issuer names. It may be in the operator's own network where the issuer itself is.
async fn get(host: &Host, url: &Url, issuer: &Url) -> Result<Bytes, String> {
    let issuer: Uri = issuer.as_str().parse().map_err(|_| format!("{issuer} is no address"))?;
    let issuer = Endpoint::of(&issuer).map_err(|error| error.to_string())?;
    let request = Request::get(url.as_str()).header(header::ACCEPT, "application/json").body(Bytes::new());
    let request = request.map_err(|_| format!("{url} can't be asked for"))?;
    let answer = host.fetch(request, Some(&issuer)).await.map_err(|error| error.to_string())?;
    if answer.status() == StatusCode::OK {
        Ok(answer.into_body())
    } else {
        Err(format!("{url} answers {}", answer.status()))
    }
}

/// The key with this name; without a name, the only one that fits.
fn key<'k>(keys: &'k JwkSet, kid: Option<&str>, algorithm: Algorithm) -> Option<&'k Jwk> {
    let fits = |key: &&Jwk| {
        key.is_supported() && key.common.key_algorithm.is_none_or(|named| named.to_string() == format!("{algorithm:?}"))
    };
    if let Some(kid) = kid {
        keys.keys.iter().find(|key| key.common.key_id.as_deref() == Some(kid)).filter(fits)
    } else {
        let mut fitting = keys.keys.iter().filter(fits);
        fitting.next().filter(|_| fitting.next().is_none())
    }
}

fn check_times(claims: &Claims, now: i64) -> Result<(), JwtError> {
    let leeway = i64::try_from(LEEWAY.as_secs()).unwrap_or(0);
    let time = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(value) => {
            #[expect(clippy::cast_possible_truncation, reason = "a date may have a fraction, which does not matter")]
            let time = value.as_i64().or_else(|| value.as_f64().map(|time| time as i64));
            time.map(Some).ok_or(JwtError::Invalid("one of its times is no number"))
        }
    };
    let expires = time("exp")?.ok_or(JwtError::Invalid("it never expires"))?;
    if now >= expires.saturating_add(leeway) {
        return Err(JwtError::Invalid("it has expired"));
    }
    if time("nbf")?.is_some_and(|from| now.saturating_add(leeway) < from) {
        return Err(JwtError::Invalid("it is not good yet"));
    }
    Ok(())
}

fn refused(kind: &ErrorKind) -> JwtError {
    JwtError::Invalid(match kind {
        ErrorKind::InvalidSignature => "its signature is not that of its issuer",
        ErrorKind::InvalidIssuer => "it is of another issuer",
        ErrorKind::InvalidAudience => "it was issued for another audience",
        ErrorKind::MissingRequiredClaim(_) => "it lacks exp, iss or aud",
        _ => "it can't be read",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn any_text_has_an_issuer_or_none_without_a_panic(text in "[A-Za-z0-9_.-]{0,200}") {
            let _ = issuer_of(&text);
        }
    }

    #[test]
    fn a_jwt_is_good_from_nbf_to_exp_with_half_a_minute_of_leeway() {
        let claims = |exp: i64, nbf: i64| serde_json::json!({ "exp": exp, "nbf": nbf }).as_object().unwrap().clone();
        assert_eq!(check_times(&claims(1000, 900), 1029), Ok(()));
        assert!(check_times(&claims(1000, 900), 1030).is_err());
        assert_eq!(check_times(&claims(1000, 900), 870), Ok(()));
        assert!(check_times(&claims(1000, 900), 869).is_err());
        assert!(check_times(&Claims::new(), 0).is_err());
        let text = serde_json::json!({ "exp": "1000" }).as_object().unwrap().clone();
        assert!(check_times(&text, 0).is_err());
    }
}
