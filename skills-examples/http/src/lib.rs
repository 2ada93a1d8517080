//! Outgoing HTTP for skills: one request, one answer, over `wasi:http`.
//!
//! ```no_run
//! # fn main() -> Result<(), skill_http::Error> {
//! let answer = skill_http::post("https://api.example.com/v1/things")
//!     .json(&serde_json::json!({ "name": "a thing" }))
//!     .send()?;
//! # Ok(())
//! # }
//! ```
//!
//! No credential appears here. Where the operator granted it, the host adds one on the way out.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingBody, IncomingResponse, Method, OutgoingBody, OutgoingRequest, Scheme,
};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};

/// The longest answer that is read.
const LONGEST_ANSWER: usize = 4 << 20;

/// How much is read or written at once: what WASI promises to take.
const CHUNK: usize = 4096;

/// A request that has not been sent.
#[derive(Debug)]
pub struct Request {
    method: Method,
    url: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The headers, their names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, Clone)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// A GET request.
pub fn get(url: impl Into<String>) -> Request {
    Request::new(Method::Get, url)
}

/// A POST request.
pub fn post(url: impl Into<String>) -> Request {
    Request::new(Method::Post, url)
}

/// A PATCH request.
pub fn patch(url: impl Into<String>) -> Request {
    Request::new(Method::Patch, url)
}

impl Request {
    fn new(method: Method, url: impl Into<String>) -> Self {
        Self { method, url: url.into(), headers: Vec::new(), body: Vec::new() }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Sets the body, and its type.
    #[must_use]
    pub fn body(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self.header("content-type", content_type)
    }

    /// Sets a JSON body. The value must be one that JSON can hold, as structs and `json!` are.
    #[must_use]
    pub fn json(self, value: &impl Serialize) -> Self {
        let body = serde_json::to_vec(value).unwrap_or_default();
        self.body("application/json; charset=utf-8", body)
    }

    /// Sends it and waits for the whole answer. An answer of any status is `Ok`.
    pub fn send(self) -> Result<Response, Error> {
        let (scheme, authority, path) = split(&self.url)?;
        let headers: Vec<(String, Vec<u8>)> =
            self.headers.into_iter().map(|(name, value)| (name, value.into_bytes())).collect();
        let fields = Fields::from_list(&headers).map_err(|error| Error(format!("a header was refused: {error}")))?;
        fields
            .set("content-length", &[self.body.len().to_string().into_bytes()])
            .map_err(|error| Error(format!("the content-length header was refused: {error}")))?;

        let request = OutgoingRequest::new(fields);
        let refused = |part: &'static str| move |()| Error(format!("the host refused the {part} of the request"));
        request.set_method(&self.method).map_err(refused("method"))?;
        request.set_scheme(Some(&scheme)).map_err(refused("scheme"))?;
        request.set_authority(Some(authority)).map_err(refused("authority"))?;
        request.set_path_with_query(Some(path)).map_err(refused("path"))?;
        let body = request.body().map_err(|()| Error("the request has no body".to_owned()))?;

        let answer = outgoing_handler::handle(request, None).map_err(described)?;
        // The host may answer (or refuse) before it has read all of the body: then its word counts, not the broken pipe.
        let written = write(&body, &self.body);
        if written.is_ok() {
            OutgoingBody::finish(body, None).map_err(described)?;
        } else {
            drop(body);
        }
        answer.subscribe().block();
        match answer.get() {
            Some(Ok(Ok(response))) => read(&response),
            Some(Ok(Err(code))) => Err(described(code)),
            _ => Err(Error("the answer was taken already".to_owned())),
        }
    }
}

impl Response {
    /// The first header of this name (given in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON of a known shape.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Error(format!("the answer (status {}) is not the JSON that was expected: {error}", self.status))
        })
    }

    /// How many seconds to wait, where `retry-after` says so in seconds.
    pub fn retry_after(&self) -> Option<u32> {
        self.header("retry-after")?.trim().parse().ok()
    }
}

/// Text as one segment of a path or one value of a query: all but unreserved characters (RFC 3986 section 2.3) are escaped.
pub fn escape(text: &str) -> String {
    use fmt::Write as _;

    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

fn split(url: &str) -> Result<(Scheme, &str, &str), Error> {
    let (scheme, rest) = match url.split_once("://") {
        Some(("https", rest)) => (Scheme::Https, rest),
        Some(("http", rest)) => (Scheme::Http, rest),
        _ => return Err(Error(format!("{url:?} is not an http or https URL"))),
    };
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(at);
    Ok((scheme, authority, if path.is_empty() { "/" } else { path }))
}

fn write(body: &OutgoingBody, bytes: &[u8]) -> Result<(), Error> {
    let stream: OutputStream = body.write().map_err(|()| Error("the request's body is closed".to_owned()))?;
    for chunk in bytes.chunks(CHUNK) {
        stream
            .blocking_write_and_flush(chunk)
            .map_err(|error| Error(format!("the request's body broke off: {error}")))?;
    }
    Ok(())
}

fn read(response: &IncomingResponse) -> Result<Response, Error> {
    let status = response.status();
    let headers = response
        .headers()
        .entries()
        .into_iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), String::from_utf8_lossy(&value).into_owned()))
        .collect();
    let incoming: IncomingBody = response.consume().map_err(|()| Error("the answer's body is gone".to_owned()))?;
    let stream: InputStream = incoming.stream().map_err(|()| Error("the answer's body is gone".to_owned()))?;
    let mut body = Vec::new();
    loop {
        match stream.blocking_read(CHUNK as u64 * 16) {
            Ok(chunk) => body.extend_from_slice(&chunk),
            Err(StreamError::Closed) => return Ok(Response { status, headers, body }),
            Err(StreamError::LastOperationFailed(error)) => {
                return Err(Error(format!("the answer broke off: {}", error.to_debug_string())));
            }
        }
        if body.len() > LONGEST_ANSWER {
            return Err(Error(format!("the answer is longer than {LONGEST_ANSWER} bytes")));
        }
    }
}

/// The host's own words where it has some (a refusal by policy carries the id under which it is explained).
fn described(code: ErrorCode) -> Error {
    Error(match code {
        ErrorCode::InternalError(Some(message)) => message,
        other => format!("no answer: {}", words(&other)),
    })
}

/// What happened, for a person; the codes have names that programs like.
fn words(code: &ErrorCode) -> String {
    let text = match code {
        ErrorCode::DnsTimeout | ErrorCode::DnsError(_) | ErrorCode::DestinationNotFound => {
            "the name of the server has no address"
        }
        ErrorCode::DestinationUnavailable => "the server can't be reached",
        ErrorCode::DestinationIpProhibited | ErrorCode::DestinationIpUnroutable => {
            "the server has an address that may not be reached from here"
        }
        ErrorCode::ConnectionRefused => "the server refused the connection",
        ErrorCode::ConnectionTerminated => "the connection ended early",
        ErrorCode::ConnectionTimeout | ErrorCode::ConnectionReadTimeout | ErrorCode::ConnectionWriteTimeout => {
            "the connection took too long"
        }
        ErrorCode::ConnectionLimitReached => "there are too many connections already",
        ErrorCode::TlsProtocolError | ErrorCode::TlsAlertReceived(_) => "no secure connection came about",
        ErrorCode::TlsCertificateError => "the server's certificate is not good",
        ErrorCode::HttpRequestDenied => "the host refused the request",
        ErrorCode::HttpRequestBodySize(_) => "the request is larger than allowed",
        ErrorCode::HttpResponseBodySize(_) => "the answer is larger than allowed",
        ErrorCode::HttpResponseTimeout => "the server took too long to answer",
        ErrorCode::HttpResponseIncomplete => "the answer broke off",
        ErrorCode::HttpProtocolError => "the answer is not HTTP",
        // Rare ones, by their own name: `HttpUpgradeFailed` becomes "http upgrade failed".
        other => return spelled_out(&format!("{other:?}")),
    };
    text.to_owned()
}

/// A name like `HttpUpgradeFailed(…)` as words.
fn spelled_out(name: &str) -> String {
    let mut text = String::new();
    for c in name.trim_start_matches("ErrorCode::").chars().take_while(|c| c.is_ascii_alphanumeric()) {
        if c.is_ascii_uppercase() && !text.is_empty() {
            text.push(' ');
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_split_into_what_wasi_wants() {
        let parts = |url| split(url).map(|(_, authority, path)| (authority.to_owned(), path.to_owned())).unwrap();
        assert_eq!(parts("https://a.example/b?c=d"), ("a.example".into(), "/b?c=d".into()));
        assert_eq!(parts("http://127.0.0.1:8080"), ("127.0.0.1:8080".into(), "/".into()));
        assert_eq!(parts("https://a.example?q"), ("a.example".into(), "?q".into()));
        assert!(split("ftp://a.example/").is_err());
    }

    #[test]
    fn escaped_text_can_not_add_a_segment_or_a_query() {
        assert_eq!(escape("a/../b?c=d&e#f%"), "a%2F..%2Fb%3Fc%3Dd%26e%23f%25");
        assert_eq!(escape("Zürich"), "Z%C3%BCrich");
    }

    #[test]
    fn why_there_is_no_answer_is_said_in_words() {
        assert_eq!(words(&ErrorCode::ConnectionRefused), "the server refused the connection");
        for code in [ErrorCode::HttpUpgradeFailed, ErrorCode::LoopDetected, ErrorCode::HttpRequestUriTooLong] {
            let text = described(code).to_string();
            assert!(!text.contains("::") && text.chars().all(|c| !c.is_ascii_uppercase()), "{text}");
        }
        assert_eq!(spelled_out("ErrorCode::HttpRequestBodySize(Some(3))"), "http request body size");
    }

    #[test]
    fn retry_after_is_read_in_seconds_only() {
        let answer = |value: &str| Response {
            status: 429,
            headers: vec![("retry-after".to_owned(), value.to_owned())],
            body: Vec::new(),
        };
        assert_eq!(answer("30").retry_after(), Some(30));
        assert_eq!(answer("Wed, 21 Oct 2026 07:28:00 GMT").retry_after(), None);
        assert_eq!(answer("-1").retry_after(), None);
    }
}
