//! The authorization code grant with PKCE (RFC 6749 section 4.1, RFC 7636, RFC 9207).

use std::collections::BTreeSet;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use oauth2::basic::BasicClient;
use oauth2::{AuthUrl, ClientId, CsrfToken, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl};
use url::Url;
use zeroize::Zeroizing;

use super::answer::TokenResponse;
use super::error::{Error, ErrorKind, Operation};
use super::request::{Call, Parameters, Transport, printable};
use super::server::{Client, Server};
use crate::clock::{Clock, random};
use crate::id::Scope;
use crate::secret::{AuthorizationCode, CodeVerifier};

/// The longest query that a browser may come back with.
const LONGEST_QUERY: usize = 16 << 10;

/// An attempt that was begun.
pub struct Started {
    /// Where the person's browser goes.
    pub url: Url,
    /// 256 random bits that come back with the browser. Good for one attempt; whoever has them can end it.
    pub state: Zeroizing<String>,
    /// What proves at the exchange that the attempt was ours. It stays here.
    pub verifier: CodeVerifier,
}

impl fmt::Debug for Started {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Started(…)")
    }
}

/// Begins an attempt: the URL for the person's browser, and what has to be kept until it comes back.
///
/// PKCE with S256 is always used, also where the server does not look at it.
pub fn start(
    server: &Server,
    client_id: &str,
    redirect_uri: &Url,
    scopes: &BTreeSet<Scope>,
    clock: &dyn Clock,
) -> Result<Started, Error> {
    let authorize = server
        .authorize
        .clone()
        .ok_or_else(|| Error::new(&server.name, Operation::Authorize, ErrorKind::Unsupported))?;
    let state = Zeroizing::new(URL_SAFE_NO_PAD.encode(random::<32>(clock)));
    // 43 characters, the shortest that RFC 7636 section 4.1 allows, of 256 random bits.
    let verifier = PkceCodeVerifier::new(URL_SAFE_NO_PAD.encode(*Zeroizing::new(random::<32>(clock))));
    let challenge = PkceCodeChallenge::from_code_verifier_sha256(&verifier);
    let client = BasicClient::new(ClientId::new(client_id.to_owned()))
        .set_auth_uri(AuthUrl::from_url(authorize))
        .set_redirect_uri(RedirectUrl::from_url(redirect_uri.clone()));
    let mut request = client.authorize_url(|| CsrfToken::new(state.as_str().to_owned())).set_pkce_challenge(challenge);
    let scopes = joined(scopes, server.scope_separator);
    if !scopes.is_empty() {
        request = request.add_extra_param(server.scope_parameter.as_str(), scopes);
    }
    for (name, value) in &server.authorize_parameters {
        request = request.add_extra_param(name.as_str(), value.as_str());
    }
    let (url, _) = request.url();
    let verifier = CodeVerifier::new(Zeroizing::new(verifier.into_secret()));
    Ok(Started { url, state, verifier })
}

/// Scopes in one text.
pub(super) fn joined(scopes: &BTreeSet<Scope>, separator: char) -> String {
    let mut text = String::new();
    for scope in scopes {
        if !text.is_empty() {
            text.push(separator);
        }
        text.push_str(scope.as_str());
    }
    text
}

/// What a browser came back with. Nothing in it is believed before its `state` has found an attempt of ours.
pub struct Redirect {
    state: Zeroizing<String>,
    issuer: Option<String>,
    outcome: Result<AuthorizationCode, String>,
}

impl fmt::Debug for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redirect(…)")
    }
}

/// A query that is no answer to an authorization request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRedirect {
    /// `state` is missing.
    #[error("the browser came back without `state`; start again from the link that was shown")]
    NoState,
    /// Neither `code` nor `error`.
    #[error("the browser came back with neither `code` nor `error`; start again from the link that was shown")]
    NoOutcome,
    /// A parameter comes twice (RFC 6749 section 3.1).
    #[error("the browser came back with `{0}` twice; start again from the link that was shown")]
    Repeated(&'static str),
    /// Too long.
    #[error("the browser came back with more than 16 KiB of parameters")]
    TooLong,
}

impl Redirect {
    /// Reads the query of the redirect address (RFC 6749 section 4.1.2). Unknown parameters are ignored.
    pub fn parse(query: &str) -> Result<Self, InvalidRedirect> {
        if query.len() > LONGEST_QUERY {
            return Err(InvalidRedirect::TooLong);
        }
        let (mut state, mut code, mut error, mut issuer) = (None, None, None, None);
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let (slot, name) = match &*name {
                "state" => (&mut state, "state"),
                "code" => (&mut code, "code"),
                "error" => (&mut error, "error"),
                "iss" => (&mut issuer, "iss"),
                _ => continue,
            };
            if slot.replace(Zeroizing::new(value.into_owned())).is_some() {
                return Err(InvalidRedirect::Repeated(name));
            }
        }
        let filled = |value: Option<Zeroizing<String>>| value.filter(|text| !text.is_empty());
        let state = filled(state).ok_or(InvalidRedirect::NoState)?;
        let outcome = match (filled(error), filled(code)) {
            (Some(error), _) => Err(error.as_str().to_owned()),
            (None, Some(code)) => Ok(AuthorizationCode::new(code)),
            (None, None) => return Err(InvalidRedirect::NoOutcome),
        };
        Ok(Self { state, issuer: issuer.map(|text| text.as_str().to_owned()), outcome })
    }

    /// The attempt that this claims to be an answer to.
    pub fn state(&self) -> &str {
        &self.state
    }

    /// The code, if the redirect came from this server and reports success.
    ///
    /// The issuer is compared first and as plain text, without any normalisation (RFC 9207 section 2.4), so that neither a
    /// code nor an error of another server is taken for this one's.
    pub fn accept(self, server: &Server) -> Result<AuthorizationCode, Error> {
        let fail = |kind| Error::new(&server.name, Operation::Authorize, kind);
        match (&self.issuer, &server.issuer) {
            (None, _) if server.issuer_promised => return Err(fail(ErrorKind::MissingIssuer)),
            (Some(sent), Some(expected)) if sent != expected => return Err(fail(ErrorKind::WrongIssuer)),
            (Some(sent), None) if !server.is_at_origin_of(sent) => return Err(fail(ErrorKind::WrongIssuer)),
            _ => {}
        }
        self.outcome.map_err(|code| {
            let kind = match code.as_str() {
                "access_denied" | "consent_required" | "login_required" | "interaction_required" => ErrorKind::Denied,
                "unauthorized_client" | "invalid_client" | "redirect_uri_mismatch" => ErrorKind::InvalidClient,
                "invalid_scope" => ErrorKind::InvalidScope,
                "server_error" | "temporarily_unavailable" => ErrorKind::Transient { retry_after: None },
                _ => ErrorKind::Rejected,
            };
            Error { code: Some(printable(&code)), ..fail(kind) }
        })
    }
}

/// Exchanges the code for tokens. `redirect_uri` and `verifier` are those of the attempt.
pub async fn exchange(
    via: &Transport<'_>,
    server: &Server,
    client: &Client<'_>,
    code: &AuthorizationCode,
    redirect_uri: &Url,
    verifier: &CodeVerifier,
) -> Result<TokenResponse, Error> {
    let call =
        Call { server, operation: Operation::Exchange, method: Method::POST, url: &server.token, format: server.body };
    let parameters = Parameters::new()
        .with("grant_type", "authorization_code")
        .with("code", code.expose())
        .with("redirect_uri", redirect_uri.as_str())
        .with("code_verifier", verifier.expose())
        .with_all(&server.token_parameters);
    let answered = call.send(via, client, parameters).await?;
    call.token_response(&answered)
}

impl Server {
    /// Whether the issuer lives where the server's endpoints do.
    fn is_at_origin_of(&self, issuer: &str) -> bool {
        let Ok(issuer) = Url::parse(issuer) else { return false };
        let origin = issuer.origin();
        origin.is_tuple()
            && (self.token.origin() == origin || self.authorize.as_ref().is_some_and(|url| url.origin() == origin))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::server_at;
    use super::*;
    use crate::clock::SystemClock;

    fn kind_of(server: &Server, query: &str) -> Result<String, ErrorKind> {
        let redirect = Redirect::parse(query).unwrap();
        redirect.accept(server).map(|code| code.expose().to_owned()).map_err(|error| error.kind())
    }

    #[test]
    fn the_url_has_a_fresh_state_and_an_s256_challenge_of_the_verifier() {
        let mut server = server_at("https://auth.example.com");
        server.scope_separator = ',';
        server.authorize_parameters.insert("access_type".into(), "offline".into());
        let redirect = Url::parse("http://127.0.0.1:9/callback/x").unwrap();
        let scopes = ["b", "a"].map(|scope| scope.parse().unwrap()).into();
        let started = start(&server, "me", &redirect, &scopes, &SystemClock::new()).unwrap();
        let query: std::collections::BTreeMap<_, _> = started.url.query_pairs().into_owned().collect();
        let challenge = {
            use sha2::Digest as _;
            URL_SAFE_NO_PAD.encode(sha2::Sha256::digest(started.verifier.expose()))
        };
        let expected = [
            ("access_type", "offline"),
            ("client_id", "me"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
            ("redirect_uri", redirect.as_str()),
            ("response_type", "code"),
            ("scope", "a,b"),
            ("state", &started.state),
        ];
        assert_eq!(query, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        assert_eq!((started.state.len(), started.verifier.expose().len()), (43, 43));
        let again = start(&server, "me", &redirect, &scopes, &SystemClock::new()).unwrap();
        assert_ne!(*started.state, *again.state);
        assert_eq!(format!("{started:?}"), "Started(…)");
    }

    #[test]
    fn an_issuer_is_compared_letter_by_letter() {
        let mut server = server_at("https://auth.example.com");
        server.issuer = Some("https://auth.example.com".into());
        assert_eq!(kind_of(&server, "state=s&code=c&iss=https://auth.example.com"), Ok("c".into()));
        for other in ["https://auth.example.com/", "https://AUTH.example.com", "https://auth.example.com:443", "", "x"]
        {
            let query = format!("state=s&code=c&iss={other}");
            assert_eq!(kind_of(&server, &query), Err(ErrorKind::WrongIssuer), "{other}");
            let query = format!("state=s&error=access_denied&iss={other}");
            assert_eq!(kind_of(&server, &query), Err(ErrorKind::WrongIssuer), "{other}");
        }
    }

    #[test]
    fn a_promised_issuer_must_come_and_an_unknown_one_must_be_at_the_servers_origin() {
        let mut server = server_at("https://auth.example.com");
        assert_eq!(kind_of(&server, "state=s&code=c"), Ok("c".into()));
        assert_eq!(kind_of(&server, "state=s&code=c&iss=https://auth.example.com/tenant"), Ok("c".into()));
        assert_eq!(kind_of(&server, "state=s&code=c&iss=https://evil.example"), Err(ErrorKind::WrongIssuer));
        server.issuer_promised = true;
        assert_eq!(kind_of(&server, "state=s&code=c"), Err(ErrorKind::MissingIssuer));
    }

    #[test]
    fn errors_in_a_redirect_name_who_must_act() {
        let server = server_at("https://auth.example.com");
        for (error, kind) in [
            ("access_denied", ErrorKind::Denied),
            ("invalid_scope", ErrorKind::InvalidScope),
            ("unauthorized_client", ErrorKind::InvalidClient),
            ("server_error", ErrorKind::Transient { retry_after: None }),
            ("something", ErrorKind::Rejected),
        ] {
            assert_eq!(kind_of(&server, &format!("state=s&error={error}&code=c")), Err(kind));
        }
    }

    #[test]
    fn a_redirect_with_missing_or_repeated_parameters_is_refused() {
        for (query, expected) in [
            ("code=c", InvalidRedirect::NoState),
            ("state=&code=c", InvalidRedirect::NoState),
            ("state=s", InvalidRedirect::NoOutcome),
            ("state=s&code=", InvalidRedirect::NoOutcome),
            ("state=s&code=c&code=d", InvalidRedirect::Repeated("code")),
            ("state=s&state=t&code=c", InvalidRedirect::Repeated("state")),
            ("state=s&code=c&iss=a&iss=b", InvalidRedirect::Repeated("iss")),
        ] {
            assert_eq!(Redirect::parse(query).unwrap_err(), expected, "{query}");
        }
        assert_eq!(Redirect::parse(&"a".repeat(LONGEST_QUERY + 1)).unwrap_err(), InvalidRedirect::TooLong);
    }

    proptest! {
        #[test]
        fn no_query_makes_the_reader_panic_or_show_its_code(query in "(state|code|error|iss|[ -~]{0,8})(=|&|%[0-9a-f]{0,2}|.{0,6}){0,8}") {
            if let Ok(redirect) = Redirect::parse(&query) {
                prop_assert_eq!(format!("{:?}", redirect), "Redirect(…)");
                drop(redirect.accept(&server_at("https://auth.example.com")));
            }
        }
    }
}
