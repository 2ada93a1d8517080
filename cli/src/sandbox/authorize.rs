//! The authorization endpoint and the consent page (RFC 6749 section 4.1, RFC 7636, RFC 9207).

use axum::extract::{Form, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use url::Url;

use super::Shared;
use super::ledger::{PEOPLE, Request};
use super::page::{Page, escaped};
use super::vendor::Vendor;

#[derive(Deserialize)]
pub(super) struct Parameters {
    response_type: Option<String>,
    client_id: Option<String>,
    redirect_uri: Option<String>,
    scope: Option<String>,
    state: Option<String>,
    code_challenge: Option<String>,
    code_challenge_method: Option<String>,
}

/// Shows the consent page, or says what is wrong with the request: to the person where the client isn't known (never a
/// redirect to a place nobody registered), to the client otherwise.
pub(super) fn show(vendor: Vendor, shared: &Shared, asked: &Parameters) -> Response {
    if asked.client_id.as_deref() != Some(&*shared.settings.client_id) {
        return Page::error("This client is not registered here", "The request's client_id is not the sandbox's.");
    }
    let Some(redirect) = asked.redirect_uri.as_deref().and_then(loopback) else {
        return Page::error(
            "This redirect address is not registered here",
            "The sandbox sends people back to http addresses on this machine only (127.0.0.1, [::1] or localhost).",
        );
    };
    let refuse = |error, why| {
        let pairs = [("error", error), ("error_description", why)];
        back(&redirect, &pairs, asked.state.as_deref(), &shared.origin)
    };
    if asked.response_type.as_deref() != Some("code") {
        return refuse("unsupported_response_type", "response_type must be code");
    }
    let challenge = match (asked.code_challenge.as_deref(), asked.code_challenge_method.as_deref()) {
        // 32 bytes in base64url without padding.
        (Some(challenge), Some("S256")) if challenge.len() == 43 => challenge.to_owned(),
        _ => return refuse("invalid_request", "PKCE with code_challenge_method=S256 is required"),
    };
    let scopes: std::collections::BTreeSet<String> =
        vendor.scopes(asked.scope.as_deref().unwrap_or_default()).collect();
    let listed: Vec<String> = scopes.iter().map(|scope| format!("<li><code>{}</code></li>", escaped(scope))).collect();
    let name = shared.ledger().ask(Request {
        redirect_uri: redirect.to_string(),
        state: asked.state.clone(),
        challenge,
        scopes,
    });
    Page::consent(&shared.settings.client_id, &listed.concat(), &name)
}

/// What the consent form sends.
#[derive(Deserialize)]
pub(super) struct Consent {
    request: String,
    account: Option<String>,
    decision: String,
}

/// The person's decision, back to the client.
pub(super) async fn decide(State(shared): State<Shared>, Form(consent): Form<Consent>) -> Response {
    let allowed = consent.decision == "allow";
    let person = PEOPLE.into_iter().find(|person| consent.account.as_deref() == Some(person.login));
    if allowed && person.is_none() {
        return Page::error("No account was chosen", "Go back and choose one of the sandbox's accounts.");
    }
    let answer = shared.ledger().answer(&consent.request, person.filter(|_| allowed));
    let Some((request, code)) = answer else {
        return Page::error("This request is over", "It was answered before, or it is too old. Start again.");
    };
    let Some(redirect) = loopback(&request.redirect_uri) else {
        return Page::error("This redirect address is not registered here", "Start again.");
    };
    let what = if code.is_some() { "consented" } else { "declined" };
    shared.record("authorization", what, person, None, serde_json::Value::Null);
    let pair = match &code {
        Some(code) => ("code", &**code),
        None => ("error", "access_denied"),
    };
    back(&redirect, &[pair], request.state.as_deref(), &shared.origin)
}

/// Any port and path of this machine (RFC 8252 section 7.3).
fn loopback(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let local = matches!(url.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"));
    (url.scheme() == "http" && local && url.username().is_empty() && url.fragment().is_none()).then_some(url)
}

/// 303, so that the consent form isn't sent on (RFC 9700 section 4.12); with the issuer (RFC 9207).
fn back(to: &Url, pairs: &[(&str, &str)], state: Option<&str>, issuer: &str) -> Response {
    let mut to = to.clone();
    to.query_pairs_mut()
        .extend_pairs(pairs)
        .extend_pairs(state.map(|state| ("state", state)))
        .append_pair("iss", issuer);
    let headers = [
        (header::LOCATION, to.to_string()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::REFERRER_POLICY, "no-referrer".to_owned()),
    ];
    (StatusCode::SEE_OTHER, headers).into_response()
}
