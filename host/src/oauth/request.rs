//! Sending a request to an authorization server and judging what comes back.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use url::Url;
use url::form_urlencoded::byte_serialize;
use zeroize::Zeroizing;

use super::answer::{Fields, Text, TokenResponse, Unusable, wiped};
use super::error::{Error, ErrorKind, Malformed, Operation, Outcome};
use super::retry_after;
use super::server::{BodyFormat, Client, ClientAuth, Server};
use crate::clock::{Clock, Timestamp};
use crate::net::{self, AddressRules, FetchLimits, Net};

/// How requests get to the server.
#[derive(Clone, Copy)]
pub struct Transport<'a> {
    /// The dialer.
    pub net: &'a Net,
    /// Which addresses it may dial.
    pub rules: &'a AddressRules,
    /// Its limits.
    pub limits: FetchLimits,
    /// Time, and random bytes.
    pub clock: &'a dyn Clock,
}

/// The parameters of a request, and what in them must not be seen in an error.
pub(super) struct Parameters<'a> {
    list: Vec<(Cow<'a, str>, &'a str)>,
}

impl<'a> Parameters<'a> {
    pub(super) fn new() -> Self {
        Self { list: Vec::new() }
    }

    pub(super) fn with(mut self, name: &'a str, value: &'a str) -> Self {
        self.list.push((Cow::Borrowed(name), value));
        self
    }

    pub(super) fn with_all(mut self, more: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        self.list.extend(more.into_iter().map(|(name, value)| (Cow::Borrowed(name.as_str()), value.as_str())));
        self
    }

    pub(super) fn write(&self, format: BodyFormat) -> Zeroizing<Vec<u8>> {
        let mut body = Zeroizing::new(Vec::with_capacity(
            16 + self.list.iter().map(|(name, value)| 8 + 3 * (name.len() + value.len())).sum::<usize>(),
        ));
        match format {
            BodyFormat::Form => {
                for (index, (name, value)) in self.list.iter().enumerate() {
                    if index > 0 {
                        body.push(b'&');
                    }
                    byte_serialize(name.as_bytes()).for_each(|part| body.extend_from_slice(part.as_bytes()));
                    body.push(b'=');
                    byte_serialize(value.as_bytes()).for_each(|part| body.extend_from_slice(part.as_bytes()));
                }
            }
            BodyFormat::Json => {
                let object: std::collections::BTreeMap<&str, &str> =
                    self.list.iter().map(|(name, value)| (name.as_ref(), *value)).collect();
                // Writing text to memory has no way to fail.
                drop(serde_json::to_writer(&mut *body, &object));
            }
        }
        body
    }
}

/// An answer that was read.
pub(super) struct Answered {
    pub(super) status: StatusCode,
    pub(super) fields: Fields,
    pub(super) text: Text,
    pub(super) asked_at: Timestamp,
    retry_after: Option<std::time::Duration>,
}

/// One request.
pub(super) struct Call<'a> {
    pub(super) server: &'a Server,
    pub(super) operation: Operation,
    pub(super) method: Method,
    pub(super) url: &'a Url,
    pub(super) format: BodyFormat,
}

impl Call<'_> {
    pub(super) fn error(&self, kind: ErrorKind) -> Error {
        Error::new(&self.server.name, self.operation, kind)
    }

    /// Sends the parameters with the client's authentication.
    pub(super) async fn send(
        &self,
        via: &Transport<'_>,
        client: &Client<'_>,
        parameters: Parameters<'_>,
    ) -> Result<Answered, Error> {
        let (authorization, parameters) = self.authenticate(client, parameters)?;
        let body = parameters.write(self.format);
        self.send_raw(via, authorization, body).await
    }

    /// Sends a body, or none when it is empty.
    pub(super) async fn send_raw(
        &self,
        via: &Transport<'_>,
        authorization: Option<Zeroizing<String>>,
        mut body: Zeroizing<Vec<u8>>,
    ) -> Result<Answered, Error> {
        let asked_at = via.clock.now();
        let mut request = Request::new(Bytes::from(std::mem::take(&mut *body)));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.url.as_str().parse().map_err(|_| self.error(ErrorKind::Unsupported))?;
        let content_type = match self.format {
            BodyFormat::Form => "application/x-www-form-urlencoded",
            BodyFormat::Json => "application/json",
        };
        let empty = request.body().is_empty();
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("clawcoil/", env!("CARGO_PKG_VERSION"))));
        if !empty {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        if let Some(authorization) = authorization {
            let mut value =
                HeaderValue::try_from(authorization.as_str()).map_err(|_| self.error(ErrorKind::InvalidClient))?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        let span = net::request_span(&request);
        let response = net::traced(span, via.net.fetch(request, via.rules, &via.limits))
            .await
            .map_err(|error| Error::of_net(&self.server.name, self.operation, error))?;
        Ok(read(response, asked_at, via.clock.now()))
    }

    fn authenticate<'p>(
        &self,
        client: &Client<'p>,
        parameters: Parameters<'p>,
    ) -> Result<(Option<Zeroizing<String>>, Parameters<'p>), Error> {
        let secret = || client.secret.ok_or_else(|| self.error(ErrorKind::MissingSecret));
        Ok(match client.auth {
            ClientAuth::Basic => (Some(basic(client.id, secret()?.expose())), parameters),
            ClientAuth::SecretAsUser => (Some(basic(secret()?.expose(), "")), parameters),
            ClientAuth::Body => {
                let secret = secret()?.expose();
                (None, parameters.with("client_id", client.id).with("client_secret", secret))
            }
            ClientAuth::None => (None, parameters.with("client_id", client.id)),
        })
    }

    /// Judges an answer that should carry a token.
    pub(super) fn token_response(&self, answered: &Answered) -> Result<TokenResponse, Error> {
        let judged = self.judge(answered).and_then(|()| {
            answered.fields.token_response(&self.server.answer, answered.asked_at).map_err(|unusable| {
                let what = match unusable {
                    Unusable::Missing => Malformed::NoAccessToken,
                    Unusable::Characters => Malformed::UnusableAccessToken,
                };
                self.malformed(what, answered)
            })
        });
        judged.map_err(|mut error| {
            if answered.status.is_success() {
                error.rescued = answered.fields.refresh_token(&self.server.answer);
            }
            error
        })
    }

    /// Says whether an answer reports success. An error of the server or of something before it never counts as the end of a
    /// grant, whatever its body says.
    pub(super) fn judge(&self, answered: &Answered) -> Result<(), Error> {
        let status = answered.status;
        let code = self.code(&answered.fields);
        let with_code = |kind, outcome| Error {
            code: code.as_deref().map(printable),
            status: Some(status.as_u16()),
            outcome,
            ..self.error(kind)
        };
        let transient = ErrorKind::Transient { retry_after: answered.retry_after };
        if status.is_server_error() {
            return Err(with_code(transient, Outcome::Unknown));
        }
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY) {
            return Err(with_code(transient, Outcome::NotDone));
        }
        if status.is_redirection() {
            return Err(Error { outcome: Outcome::NotDone, ..self.malformed(Malformed::Redirect, answered) });
        }
        // An error's name in a page or in half an object is hearsay.
        if answered.text == Text::Whole
            && let Some(code) = &code
        {
            return Err(with_code(self.kind(code, transient), Outcome::NotDone));
        }
        if !status.is_success() {
            return Err(with_code(ErrorKind::Rejected, Outcome::NotDone));
        }
        match answered.text {
            Text::Whole => Ok(()),
            Text::Broken => Err(self.malformed(Malformed::BrokenJson, answered)),
            Text::Html => Err(self.malformed(Malformed::Html, answered)),
            Text::Other => Err(self.malformed(Malformed::NotJson, answered)),
        }
    }

    pub(super) fn malformed(&self, what: Malformed, answered: &Answered) -> Error {
        Error {
            status: Some(answered.status.as_u16()),
            outcome: Outcome::Unknown,
            ..self.error(ErrorKind::Malformed(what))
        }
    }

    fn code(&self, fields: &Fields) -> Option<String> {
        let shape = &self.server.answer;
        let failed = shape.ok.as_deref().and_then(|pointer| fields.boolean(pointer)) == Some(false);
        match shape.errors.iter().find_map(|pointer| fields.string(pointer)) {
            Some(code) => Some(code.to_owned()),
            None => failed.then(|| "unnamed_error".to_owned()),
        }
    }

    fn kind(&self, code: &str, transient: ErrorKind) -> ErrorKind {
        match code {
            "invalid_grant" => ErrorKind::InvalidGrant,
            code if self.server.permanent_errors.contains(code) => ErrorKind::InvalidGrant,
            "invalid_client" | "unauthorized_client" => ErrorKind::InvalidClient,
            code if self.server.client_errors.contains(code) => ErrorKind::InvalidClient,
            "invalid_scope" => ErrorKind::InvalidScope,
            "access_denied" | "consent_required" => ErrorKind::Denied,
            "temporarily_unavailable" | "server_error" | "slow_down" | "ratelimited" | "internal_error" => transient,
            _ => ErrorKind::Rejected,
        }
    }
}

/// An error's name as it may be shown: a server could put a token there.
pub(super) fn printable(code: &str) -> String {
    let plain = code.len() <= 48 && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    if plain { code.to_owned() } else { "an error name that is not shown".to_owned() }
}

fn read(response: Response<Bytes>, asked_at: Timestamp, now: Timestamp) -> Answered {
    let (parts, body) = response.into_parts();
    let body = wiped(body);
    let (fields, text) = Fields::read(&body);
    let retry_after = parts.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = retry_after.and_then(|text| retry_after::parse(text, now));
    Answered { status: parts.status, fields, text, asked_at, retry_after }
}

/// An `Authorization: Basic` value: both parts form-encoded, then joined (RFC 6749 section 2.3.1).
pub(super) fn basic(user: &str, password: &str) -> Zeroizing<String> {
    let mut plain = Zeroizing::new(String::with_capacity(1 + 3 * (user.len() + password.len())));
    byte_serialize(user.as_bytes()).for_each(|part| plain.push_str(part));
    plain.push(':');
    byte_serialize(password.as_bytes()).for_each(|part| plain.push_str(part));
    let mut value = Zeroizing::new(String::with_capacity(6 + plain.len().div_ceil(3) * 4));
    value.push_str("Basic ");
    STANDARD.encode_string(plain.as_bytes(), &mut value);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifier_and_secret_are_form_encoded_before_they_are_joined() {
        let value = basic("a:b", "p w+%");
        let plain = STANDARD.decode(value.strip_prefix("Basic ").unwrap()).unwrap();
        assert_eq!(plain, b"a%3Ab:p+w%2B%25");
    }

    #[test]
    fn an_error_name_that_could_be_a_token_is_not_shown() {
        assert_eq!(printable("invalid_grant"), "invalid_grant");
        for code in ["ya29.canary", "CANARY", "a b", &"a".repeat(49)] {
            assert_eq!(printable(code), "an error name that is not shown");
        }
    }

    #[test]
    fn parameters_are_written_as_a_form_or_as_json() {
        let parameters = Parameters::new().with("grant_type", "x").with("code", "a b&c");
        assert_eq!(&*parameters.write(BodyFormat::Form), b"grant_type=x&code=a+b%26c");
        assert_eq!(&*parameters.write(BodyFormat::Json), br#"{"code":"a b&c","grant_type":"x"}"#);
    }
}
