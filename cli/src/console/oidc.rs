//! Signing in at an identity provider (OpenID Connect Core 1.0, authorization code flow with PKCE).

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Bytes;
use axum::extract::{Query, RawQuery, State};
use axum::http::{HeaderMap, Request, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use clawcoil::clock::{Timestamp, random};
use clawcoil::connect::PATIENCE;
use clawcoil::host::Host;
use clawcoil::id::{Generation, Owner, Scope, UserId};
use clawcoil::net::Endpoint;
use clawcoil::oauth::authorization_code::{self, Redirect as Returned};
use clawcoil::oauth::{AnswerShape, BodyFormat, ClientAuth, ErrorKind, Server};
use clawcoil::secret::{ClientSecret, CodeVerifier};
use clawcoil::vault::{Document, Vault, VaultError};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use url::Url;
use zeroize::Zeroizing;

use super::browser::{BrowserSession, Role};
use super::sign_in::{Next, own_path, sign_in};
use super::trouble::Trouble;
use crate::callers::{Claims, Expected, JwtError, metadata};
use crate::serve::config::SignIn;
use crate::serve::{App, Kind, Problem, Shared};

const ATTEMPT: &str = "sign-in-attempt";
const CLIENT: &str = "console-client";

/// What has to be kept until the browser comes back.
#[derive(Serialize, Deserialize)]
struct Attempt {
    verifier: String,
    nonce: String,
    browser: String,
    next: String,
}

/// An identity provider, as it describes itself.
struct Issuer {
    /// Its name, letter by letter.
    name: String,
    jwks_uri: Option<Url>,
    server: Server,
}

/// Where the provider sends browsers back to; the operator registers it there.
pub(crate) const CALLBACK: &str = "/sign-in/callback";

/// Goes to the provider.
pub(super) async fn begin(
    State(app): State<Shared>,
    browser: Option<BrowserSession>,
    Query(Next { next }): Query<Next>,
) -> Result<Response, Trouble> {
    let settings = settings(&app)?;
    let issuer = Issuer::of(&app.host, settings).await?;
    let clock = app.host.clock().as_ref();
    let redirect = app.origins.url(CALLBACK);
    let scopes = openid(settings)?;
    let started = authorization_code::start(&issuer.server, &settings.client_id, &redirect, &scopes, clock)
        .map_err(|error| refused(&error.to_string()))?;
    let nonce = BASE64_URL_SAFE_NO_PAD.encode(random::<24>(clock));
    let (browser, cookie) = if let Some(browser) = browser {
        (browser, None)
    } else {
        let (browser, cookie) = BrowserSession::begin(&app, None, None).await?;
        (browser, Some(cookie))
    };
    let attempt = Attempt {
        verifier: started.verifier.expose().to_owned(),
        nonce: nonce.clone(),
        browser: browser.id,
        next: own_path(next.as_deref()),
    };
    let vault = app.host.vault();
    let document = Document {
        kind: ATTEMPT,
        lookup: vault.lookup_of(ATTEMPT, &started.state),
        owner: Owner::Agent,
        expires_at: Some(app.host.clock().now().saturating_add(PATIENCE).unwrap_or(Timestamp::MAX)),
        contents: serde_json::to_string(&attempt).unwrap_or_default().into(),
        revision: Generation(0),
    };
    vault.put_document(&document).await?;
    let mut url = started.url;
    url.query_pairs_mut().append_pair("nonce", &nonce);
    let to = Redirect::to(url.as_str());
    Ok(match cookie {
        Some(cookie) => ([(header::SET_COOKIE, cookie)], to).into_response(),
        None => to.into_response(),
    })
}

/// Comes back from the provider.
pub(super) async fn callback(
    State(app): State<Shared>,
    headers: HeaderMap,
    browser: Option<BrowserSession>,
    RawQuery(query): RawQuery,
) -> Result<Response, Trouble> {
    let settings = settings(&app)?;
    let returned = Returned::parse(&query.unwrap_or_default()).map_err(|error| refused(&error.to_string()))?;
    let lost = || refused("what came back belongs to no sign-in that was begun in this browser; sign in again");
    let vault = app.host.vault();
    let lookup = vault.lookup_of(ATTEMPT, returned.state());
    let browser = browser.ok_or_else(lost)?;
    let known = vault.document(ATTEMPT, &lookup)?.ok_or_else(lost)?;
    let attempt: Attempt = serde_json::from_str(&known.contents).map_err(|_| lost())?;
    if attempt.browser != browser.id || vault.take_document(ATTEMPT, &lookup).await?.is_none() {
        return Err(lost().into());
    }
    let issuer = Issuer::of(&app.host, settings).await?;
    let code = returned.accept(&issuer.server).map_err(|error| match error.kind() {
        ErrorKind::Denied => refused("you were not signed in, because you or your identity provider said no"),
        _ => refused(&error.to_string()),
    })?;
    let verifier = CodeVerifier::new(Zeroizing::new(attempt.verifier));
    let form = [
        ("grant_type", "authorization_code"),
        ("code", code.expose()),
        ("redirect_uri", app.origins.url(CALLBACK).as_str()),
        ("code_verifier", verifier.expose()),
        ("client_id", &settings.client_id),
    ]
    .into_iter()
    .fold(url::form_urlencoded::Serializer::new(String::new()), |mut form, (name, value)| {
        form.append_pair(name, value);
        form
    })
    .finish();
    let id_token = exchange(&app.host, settings, &issuer, Zeroizing::new(form)).await?;
    let expected = Expected { issuer: &issuer.name, audience: &settings.client_id, jwks_uri: issuer.jwks_uri.as_ref() };
    let claims = app.keys.verify(&app.host, &id_token, expected).await.map_err(|error| match error {
        JwtError::Invalid(_) => refused(&error.to_string()),
        JwtError::Unavailable { .. } => unavailable(&error.to_string()),
    })?;
    let role = role(settings, &claims, &attempt.nonce).map_err(refused)?;
    let name = claims.get(&settings.user_claim).and_then(Value::as_str).map(str::to_owned);
    sign_in(&app, &headers, role, &attempt.next, name).await
}

/// Who somebody is, by the claims of an ID token whose signature, issuer, audience and times are good.
fn role(settings: &SignIn, claims: &Claims, nonce: &str) -> Result<Role, &'static str> {
    let text = |claim: &str| claims.get(claim).and_then(Value::as_str);
    if text("nonce") != Some(nonce) {
        return Err("the ID token belongs to another sign-in; sign in again");
    }
    // Core section 3.1.3.7: with several audiences, the authorized party is said, and must be us.
    let several = claims.get("aud").and_then(Value::as_array).is_some_and(|audiences| audiences.len() > 1);
    match text("azp") {
        Some(party) if party != settings.client_id => return Err("the ID token was issued to another client"),
        None if several => return Err("the ID token does not say to which client it was issued"),
        Some(_) | None => {}
    }
    if settings.user_claim == "email" && claims.get("email_verified") == Some(&Value::Bool(false)) {
        return Err("your identity provider has not verified your e-mail address");
    }
    let user = text(&settings.user_claim)
        .ok_or("your identity provider does not say who you are: the operator checks `user_claim`")?;
    if settings.operators.iter().any(|pattern| pattern.matches(user)) {
        return Ok(Role::Operator);
    }
    if settings.auditors.iter().any(|pattern| pattern.matches(user)) {
        return Ok(Role::Auditor);
    }
    let user: UserId =
        user.parse().map_err(|_| "what your identity provider calls you is no name that users have here")?;
    Ok(Role::User(user))
}

/// The ID token for a code.
async fn exchange(
    host: &Host,
    settings: &SignIn,
    issuer: &Issuer,
    form: Zeroizing<String>,
) -> Result<Zeroizing<String>, Problem> {
    let url = &issuer.server.token;
    let mut request = Request::post(url.as_str())
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::ACCEPT, "application/json");
    if let Some(secret) = client_secret(host.vault())? {
        // RFC 6749 section 2.3.1: both are form-encoded first.
        let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let pair = Zeroizing::new(format!("{}:{}", encoded(&settings.client_id), encoded(secret.expose())));
        let basic = Zeroizing::new(format!("Basic {}", BASE64_STANDARD.encode(pair.as_bytes())));
        request = request.header(header::AUTHORIZATION, basic.as_str());
    }
    let request =
        request.body(Bytes::from(form.as_bytes().to_vec())).map_err(|error| unavailable(&error.to_string()))?;
    let issuer_uri: Uri = issuer.name.parse().map_err(|_| unavailable("its name is no address"))?;
    let written = Endpoint::of(&issuer_uri).map_err(|error| unavailable(&error.to_string()))?;
    let answer = host.fetch(request, Some(&written)).await.map_err(|error| unavailable(&error.to_string()))?;
    let status = answer.status();
    let body: Map<String, Value> = serde_json::from_slice(answer.body()).unwrap_or_default();
    let token = body.get("id_token").and_then(Value::as_str).filter(|_| status == StatusCode::OK);
    token.map(|token| Zeroizing::new(token.to_owned())).ok_or_else(|| {
        // The names of errors are few and harmless; their descriptions may say anything.
        let error = body.get("error").and_then(Value::as_str).unwrap_or_default();
        let named = error.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        unavailable(&format!("its token endpoint answers {status} {}", if named { error } else { "" }))
    })
}

impl Issuer {
    async fn of(host: &Host, settings: &SignIn) -> Result<Self, Problem> {
        let found = metadata(host, &settings.issuer).await.map_err(|why| unavailable(&why))?;
        let text = |name: &str| found.get(name).and_then(Value::as_str);
        let address = |name: &'static str| {
            let url = text(name).and_then(|text| text.parse::<Url>().ok()).filter(|url| is_safe(url, &settings.issuer));
            url.ok_or_else(|| unavailable(&format!("its metadata has no {name} that can be used")))
        };
        let name = text("issuer").unwrap_or_default().to_owned();
        Ok(Self {
            jwks_uri: Some(address("jwks_uri")?),
            server: Server {
                name: host_of(&settings.issuer),
                authorize: Some(address("authorization_endpoint")?),
                token: address("token_endpoint")?,
                refresh: None,
                revocation: None,
                introspect: None,
                issuer: Some(name.clone()),
                issuer_promised: found.get("authorization_response_iss_parameter_supported")
                    == Some(&Value::Bool(true)),
                client_auth: ClientAuth::Basic,
                body: BodyFormat::Form,
                scope_separator: ' ',
                scope_parameter: "scope".to_owned(),
                authorize_parameters: BTreeMap::new(),
                token_parameters: BTreeMap::new(),
                answer: AnswerShape::default(),
                permanent_errors: BTreeSet::new(),
                client_errors: BTreeSet::new(),
            },
            name,
        })
    }
}

/// An address of the provider is https, unless the operator wrote an issuer without TLS, which is on loopback.
fn is_safe(url: &Url, issuer: &Url) -> bool {
    url.scheme() == "https" || (issuer.scheme() == "http" && url.origin() == issuer.origin())
}

/// Which words of the provider make `user_claim` known.
fn openid(settings: &SignIn) -> Result<BTreeSet<Scope>, Problem> {
    let words: &[&str] = match settings.user_claim.as_str() {
        "email" => &["openid", "email"],
        "preferred_username" | "nickname" | "name" => &["openid", "profile"],
        _ => &["openid"],
    };
    words.iter().map(|word| word.parse().map_err(|error| Problem::internal(&error))).collect()
}

/// The provider's name for people.
pub(super) fn provider_name(app: &App) -> Option<String> {
    app.config.console.as_ref().map(|settings| host_of(&settings.issuer))
}

fn host_of(issuer: &Url) -> String {
    issuer.host_str().unwrap_or("your identity provider").to_owned()
}

fn settings(app: &App) -> Result<&SignIn, Problem> {
    let missing = || {
        let text =
            "nobody signs in by an identity provider here; the operator sets one up under [console] in serve.toml";
        Problem::new(Kind::NotFound, text)
    };
    app.config.console.as_ref().ok_or_else(missing)
}

fn refused(why: &str) -> Problem {
    Problem::new(Kind::Forbidden, format!("Nobody was signed in: {why}"))
}

fn unavailable(why: &str) -> Problem {
    tracing::warn!(why, "signing in failed at the identity provider");
    Problem::new(
        Kind::Unavailable,
        format!("The identity provider can't be used at present: {why}. The operator may have to act."),
    )
}

/// Keeps the secret of this host's client at the provider. A public client has none.
pub(crate) async fn keep_client_secret(vault: &Vault, secret: &ClientSecret) -> Result<(), VaultError> {
    let lookup = vault.lookup_of(CLIENT, CLIENT);
    vault.take_document(CLIENT, &lookup).await?;
    let document = Document {
        kind: CLIENT,
        lookup,
        owner: Owner::Agent,
        expires_at: None,
        contents: secret.expose().to_owned().into(),
        revision: Generation(0),
    };
    vault.put_document(&document).await
}

fn client_secret(vault: &Vault) -> Result<Option<ClientSecret>, VaultError> {
    let known = vault.document(CLIENT, &vault.lookup_of(CLIENT, CLIENT))?;
    Ok(known.map(|document| ClientSecret::new(document.contents)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sign_in_settings(user_claim: &str) -> SignIn {
        SignIn {
            issuer: "https://login.example.com".parse().unwrap(),
            client_id: "clawcoil".to_owned(),
            user_claim: user_claim.to_owned(),
            operators: vec!["ops-*".parse().unwrap()],
            auditors: vec!["audit-*".parse().unwrap()],
        }
    }

    fn role_of(claims: Value) -> Result<Role, &'static str> {
        let Value::Object(claims) = claims else { panic!("claims are an object") };
        role(&sign_in_settings("sub"), &claims, "n")
    }

    #[test]
    fn the_operators_patterns_decide_who_is_what() {
        let of = |sub: &str| role_of(json!({ "nonce": "n", "sub": sub })).unwrap();
        assert_eq!(of("ops-1"), Role::Operator);
        assert_eq!(of("audit-1"), Role::Auditor);
        assert_eq!(of("alice"), Role::User("alice".parse().unwrap()));
    }

    #[test]
    fn an_id_token_of_another_sign_in_or_for_another_client_signs_nobody_in() {
        assert!(role_of(json!({ "nonce": "m", "sub": "alice" })).is_err());
        assert!(role_of(json!({ "sub": "alice" })).is_err());
        assert!(role_of(json!({ "nonce": "n", "sub": "alice", "azp": "other" })).is_err());
        assert!(role_of(json!({ "nonce": "n", "sub": "alice", "aud": ["clawcoil", "other"] })).is_err());
        assert!(role_of(json!({ "nonce": "n", "sub": "alice", "aud": ["clawcoil", "x"], "azp": "clawcoil" })).is_ok());
    }

    #[test]
    fn who_has_no_name_or_an_unverified_address_is_nobody() {
        assert!(role_of(json!({ "nonce": "n" })).is_err());
        assert!(role_of(json!({ "nonce": "n", "sub": "a b*" })).is_err());
        let claims = json!({ "nonce": "n", "email": "a@example.com", "email_verified": false });
        assert!(role(&sign_in_settings("email"), claims.as_object().unwrap(), "n").is_err());
    }

    #[test]
    fn an_issuer_behind_tls_names_no_address_without_it() {
        let url = |text: &str| text.parse::<Url>().unwrap();
        assert!(is_safe(&url("https://elsewhere.example/token"), &url("https://login.example.com")));
        assert!(!is_safe(&url("http://login.example.com/token"), &url("https://login.example.com")));
        assert!(is_safe(&url("http://127.0.0.1:7/token"), &url("http://127.0.0.1:7")));
        assert!(!is_safe(&url("http://10.0.0.1/token"), &url("http://127.0.0.1:7")));
    }
}
