//! Which headers go out, and which come back.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Headers of one connection (RFC 9110 section 7.6.1), and those that steer it or tell a server who asks.
const NEVER_SENT: [HeaderName; 15] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHORIZATION,
    header::PROXY_AUTHENTICATE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
    header::HOST,
    header::FORWARDED,
    header::VIA,
    HeaderName::from_static("http2-settings"),
    header::ACCEPT_ENCODING,
];

/// With these a server may take the request for another one than policy has judged.
const MISLEADING: [&str; 7] = [
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
    "x-original-host",
    "x-forwarded-",
];

/// Headers that carry a credential by custom. On an origin where the host attaches one, the guest's own never goes out: with
/// an attacker's credential for the same API, it could carry the person's data to the attacker.
const CREDENTIALS: [&str; 14] = [
    "authorization",
    "cookie",
    "api-key",
    "apikey",
    "private-token",
    "x-access-token",
    "x-api-key",
    "x-apikey",
    "x-auth-token",
    "x-authorization",
    "x-csrf-token",
    "x-gitlab-token",
    "x-goog-api-key",
    "x-amz-security-token",
];

/// What a guest doesn't learn from an answer: sessions that it could go on with, and how to sign in by itself.
const NEVER_PASSED: [HeaderName; 15] = [
    header::SET_COOKIE,
    HeaderName::from_static("set-cookie2"),
    header::WWW_AUTHENTICATE,
    header::PROXY_AUTHENTICATE,
    HeaderName::from_static("authentication-info"),
    HeaderName::from_static("proxy-authentication-info"),
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::ALT_SVC,
    HeaderName::from_static("clear-site-data"),
];

/// A header that makes a request one that is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RefusedHeader {
    /// A header that changes the method, path or host for some servers.
    #[error("a header would make the server take the request for another one than was allowed; leave it out")]
    Misleading,
    /// `Content-Length` more than once, or no number.
    #[error("`Content-Length` must stand once and be a number")]
    ContentLength,
}

/// Makes a guest's headers fit to go out: nothing of the connection, nothing misleading, and no compression in the answer,
/// where a secret could hide from the one who looks for it.
pub fn clean_request(headers: &mut HeaderMap) -> Result<(), RefusedHeader> {
    if headers.keys().any(|name| MISLEADING.iter().any(|prefix| name.as_str().starts_with(prefix))) {
        return Err(RefusedHeader::Misleading);
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    if let Some(length) = lengths.next() {
        let digits = length.as_bytes().iter().all(u8::is_ascii_digit) && (1..19).contains(&length.len());
        if !digits || lengths.next().is_some() {
            return Err(RefusedHeader::ContentLength);
        }
    }
    drop_named_by_connection(headers);
    for name in &NEVER_SENT {
        headers.remove(name);
    }
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    Ok(())
}

/// Removes the credentials that a guest set by itself.
pub fn drop_credentials(headers: &mut HeaderMap) {
    for name in CREDENTIALS {
        headers.remove(name);
    }
}

/// The answer is compressed although the request asked for it as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer has a `Content-Encoding`, in which the credential could come back unseen; it is not passed on")]
pub struct EncodedAnswer;

/// Makes an answer's headers fit for a guest. `credential` tells whether one was attached to the request.
pub fn clean_answer(headers: &mut HeaderMap, credential: bool) -> Result<(), EncodedAnswer> {
    let is_identity = |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    if credential && !headers.get_all(header::CONTENT_ENCODING).iter().all(is_identity) {
        return Err(EncodedAnswer);
    }
    drop_named_by_connection(headers);
    for name in &NEVER_PASSED {
        headers.remove(name);
    }
    Ok(())
}

/// `Connection` may name further headers of the connection.
fn drop_named_by_connection(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .filter(|name| *name != header::CONTENT_LENGTH)
        .collect();
    for name in named {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn headers_of_the_connection_stay_and_the_answer_is_asked_for_uncompressed() {
        let mut sent = headers(&[
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("host", "evil.example"),
            ("accept-encoding", "br"),
            ("accept", "*/*"),
            ("content-length", "5"),
        ]);
        clean_request(&mut sent).unwrap();
        assert_eq!(sent, headers(&[("accept", "*/*"), ("content-length", "5"), ("accept-encoding", "identity")]));
    }

    #[test]
    fn a_header_that_misleads_the_server_is_refused() {
        for name in ["x-http-method-override", "x-original-url", "x-forwarded-host", "x-forwarded-for"] {
            assert_eq!(clean_request(&mut headers(&[(name, "x")])), Err(RefusedHeader::Misleading), "{name}");
        }
    }

    #[test]
    fn two_lengths_or_none_that_is_a_number_are_refused() {
        for list in [
            &[("content-length", "5"), ("content-length", "6")][..],
            &[("content-length", "+5")],
            &[("content-length", "")],
        ] {
            assert_eq!(clean_request(&mut headers(list)), Err(RefusedHeader::ContentLength), "{list:?}");
        }
    }

    #[test]
    fn the_guests_own_credentials_are_dropped() {
        let mut sent =
            headers(&[("authorization", "Bearer mine"), ("cookie", "a=b"), ("x-api-key", "k"), ("accept", "*/*")]);
        drop_credentials(&mut sent);
        assert_eq!(sent, headers(&[("accept", "*/*")]));
    }

    #[test]
    fn an_answer_brings_no_session_and_no_way_to_sign_in() {
        let mut got = headers(&[("set-cookie", "s=1"), ("www-authenticate", "Bearer"), ("content-type", "text/plain")]);
        clean_answer(&mut got, true).unwrap();
        assert_eq!(got, headers(&[("content-type", "text/plain")]));
    }

    #[test]
    fn a_compressed_answer_is_refused_where_a_credential_went_out() {
        for encoding in ["gzip", "br", "identity, gzip", "x"] {
            let got = &mut headers(&[]);
            got.insert("content-encoding", HeaderValue::from_static(encoding));
            assert_eq!(clean_answer(got, true), Err(EncodedAnswer));
            assert_eq!(clean_answer(got, false), Ok(()));
        }
        assert_eq!(clean_answer(&mut headers(&[("content-encoding", "Identity")]), true), Ok(()));
    }
}
