//! The token, revocation and introspection endpoints (RFC 6749 sections 4 to 6, RFC 7009, RFC 7662).

use axum::Json;
use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ledger::{Issued, Refusal};
use super::vendor::Vendor;
use super::{Shared, journal};

#[derive(Deserialize)]
pub(super) struct Parameters {
    grant_type: Option<String>,
    code: Option<String>,
    redirect_uri: Option<String>,
    code_verifier: Option<String>,
    refresh_token: Option<String>,
    scope: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
}

/// Gives tokens for a code, for a refresh token, or to the client itself.
pub(super) fn token(vendor: Vendor, shared: &Shared, headers: &HeaderMap, asked: &Parameters) -> Response {
    // GitHub and Slack leave grant_type out of the exchange of a code.
    let assumed = if matches!(vendor, Vendor::GitHub | Vendor::Slack) { "authorization_code" } else { "" };
    let grant_type = asked.grant_type.as_deref().unwrap_or(assumed);
    let issued = authenticate(shared, headers, asked.client_id.as_deref(), asked.client_secret.as_deref())
        .and_then(|()| issue(vendor, shared, grant_type, asked));
    let (status, body) = match &issued {
        Ok(issued) => {
            let what = format!("gave tokens ({grant_type}, good for {} s)", issued.expires_in.as_secs());
            let token = Some(journal::fingerprint(&issued.access));
            shared.record("authorization", &what, issued.person, token, Value::Null);
            (200, vendor.tokens(issued, &shared.origin))
        }
        Err(refusal) => {
            let (status, body) = vendor.refusal(*refusal, grant_type == "refresh_token");
            shared.record("authorization", &format!("refused {grant_type}"), None, None, body.clone());
            (status, body)
        }
    };
    answer(status, body)
}

fn issue(vendor: Vendor, shared: &Shared, grant_type: &str, asked: &Parameters) -> Result<Issued, Refusal> {
    let scopes = || asked.scope.as_deref().map(|scope| vendor.scopes(scope).collect());
    match grant_type {
        "authorization_code" => {
            let code = asked.code.as_deref().ok_or(Refusal::InvalidRequest("code is missing"))?;
            let redirect = asked.redirect_uri.as_deref().ok_or(Refusal::InvalidRequest("redirect_uri is missing"))?;
            let verifier = asked.code_verifier.as_deref().ok_or(Refusal::InvalidRequest("code_verifier is missing"))?;
            shared.ledger().exchange(code, redirect, verifier)
        }
        "refresh_token" => {
            let token = asked.refresh_token.as_deref().ok_or(Refusal::InvalidRequest("refresh_token is missing"))?;
            shared.ledger().refresh(token, scopes())
        }
        "client_credentials" => Ok(shared.ledger().client_credentials(scopes().unwrap_or_default())),
        "" => Err(Refusal::InvalidRequest("grant_type is missing")),
        _ => Err(Refusal::UnsupportedGrantType),
    }
}

/// The client's id and secret, as Basic (RFC 6749 section 2.3.1) or in the body.
fn authenticate(shared: &Shared, headers: &HeaderMap, id: Option<&str>, secret: Option<&str>) -> Result<(), Refusal> {
    let Some(basic) = headers.get(header::AUTHORIZATION) else {
        let (Some(id), Some(secret)) = (id, secret) else { return Err(Refusal::InvalidClient) };
        return shared.ledger().authenticate(id, secret);
    };
    if secret.is_some() {
        return Err(Refusal::InvalidRequest("the client's secret stands in the header and in the body"));
    }
    let pair = basic
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))
        .and_then(|(_, encoded)| STANDARD.decode(encoded.trim()).ok())
        .and_then(|decoded| String::from_utf8(decoded).ok())
        .ok_or(Refusal::InvalidClient)?;
    let (id, secret) = pair.split_once(':').ok_or(Refusal::InvalidClient)?;
    shared.ledger().authenticate(&form_decoded(id), &form_decoded(secret))
}

/// Both halves of Basic are form-encoded in OAuth (RFC 6749 appendix B).
fn form_decoded(text: &str) -> String {
    let pair = format!("v={text}");
    url::form_urlencoded::parse(pair.as_bytes()).next().map_or_else(String::new, |(_, value)| value.into_owned())
}

#[derive(Deserialize)]
pub(super) struct Presented {
    token: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
}

/// Ends a grant. Google and Salesforce ask for no client here: who has the token may end it.
pub(super) fn revoke(vendor: Vendor, shared: &Shared, headers: &HeaderMap, asked: &Presented) -> Response {
    if vendor == Vendor::Plain
        && let Err(refusal) = authenticate(shared, headers, asked.client_id.as_deref(), asked.client_secret.as_deref())
    {
        let (status, body) = vendor.refusal(refusal, false);
        return answer(status, body);
    }
    let Some(token) = &asked.token else {
        let (status, body) = vendor.refusal(Refusal::InvalidRequest("token is missing"), false);
        return answer(status, body);
    };
    let person = shared.ledger().revoke(token);
    shared.record("authorization", "ended a grant", person, None, Value::Null);
    answer(200, json!({}))
}

/// GitHub's way: `DELETE /applications/{client_id}/token` with the client's Basic credentials and the token as JSON.
pub(super) async fn delete(State(shared): State<Shared>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    if let Err(refusal) = authenticate(&shared, &headers, None, None) {
        let (_, body) = Vendor::Plain.refusal(refusal, false);
        return answer(401, body);
    }
    let Some(token) = body.get("access_token").and_then(Value::as_str) else {
        return answer(422, json!({ "message": "Validation Failed" }));
    };
    let person = shared.ledger().revoke(token);
    shared.record("authorization", "ended a grant", person, None, Value::Null);
    StatusCode::NO_CONTENT.into_response()
}

/// Says whether an access token is good, and until when.
pub(super) async fn introspect(
    State(shared): State<Shared>,
    headers: HeaderMap,
    Form(asked): Form<Presented>,
) -> Response {
    if let Err(refusal) = authenticate(&shared, &headers, asked.client_id.as_deref(), asked.client_secret.as_deref()) {
        let (status, body) = Vendor::Plain.refusal(refusal, false);
        return answer(status, body);
    }
    let holder = asked.token.and_then(|token| shared.ledger().holder(&token));
    let body = holder.map_or_else(
        || json!({ "active": false }),
        |holder| {
            json!({
                "active": true,
                "scope": holder.scopes.iter().map(String::as_str).collect::<Vec<_>>().join(" "),
                "exp": holder.expires_at.as_second(),
                "username": holder.person.map(|person| person.email),
            })
        },
    );
    answer(200, body)
}

fn answer(status: u16, body: Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response();
    if status == StatusCode::UNAUTHORIZED {
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Basic realm=\"sandbox\""));
    }
    response
}
