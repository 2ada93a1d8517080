//! One outgoing request, as far as policy judges it.

use std::fmt;

use http::{Method, Uri};

use super::origin::{InvalidOrigin, Origin, split_port};

/// Why a request is not sent wherever it goes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// CONNECT, TRACE, or something that is not written in capital letters.
    #[error("the method {0:?} is not sent")]
    Method(String),
    /// Scheme or host are missing, or could be read as another host.
    #[error("the address is refused: {0}")]
    Origin(#[from] InvalidOrigin),
    /// The path could be read as another path.
    #[error("the path is refused: {0}")]
    Path(&'static str),
    /// The query has characters that must be percent-encoded.
    #[error("the query is refused: it has characters that must be percent-encoded")]
    Query,
}

/// A path that every server reads alike.
///
/// It begins with one slash, has only the characters of RFC 3986 section 3.3, no dot segments, and no percent-encoded slash,
/// backslash, dot or control character, once or twice encoded. It is kept as written: what was judged is what is sent.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct NormalPath(Box<str>);

impl NormalPath {
    /// The path as it is sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The texts between the slashes.
    pub(super) fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').skip(1)
    }

    fn parse(text: &str) -> Result<Self, TargetError> {
        if text.is_empty() {
            return Ok(Self("/".into()));
        }
        if !text.starts_with('/') || text.starts_with("//") {
            return Err(TargetError::Path("it begins with exactly one slash"));
        }
        text.split('/').try_for_each(check_segment).map_err(TargetError::Path)?;
        Ok(Self(text.into()))
    }
}

impl fmt::Display for NormalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NormalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

const INCOMPLETE: &str = "`%` is followed by two hexadecimal digits";

/// Holds one segment of a path, of a request or of a rule, to what [`NormalPath`] promises.
pub(super) fn check_segment(segment: &str) -> Result<(), &'static str> {
    if is_dot_segment(segment.as_bytes()) {
        return Err("it has a dot segment");
    }
    let mut rest = segment.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => {
                let (code, after) = rest.split_at_checked(2).ok_or(INCOMPLETE)?;
                let mut decoded = [0];
                hex::decode_to_slice(code, &mut decoded).map_err(|_| INCOMPLETE)?;
                rest = after;
                match decoded {
                    [b'.' | b'/' | b'\\'] => return Err("a slash, backslash or dot is percent-encoded"),
                    [0x00..=0x1f | 0x7f] => return Err("a control character is percent-encoded"),
                    _ => {}
                }
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => {}
            byte if b"-._~!$&'()*+,;=:@".contains(byte) => {}
            _ => return Err("it has characters that must be percent-encoded"),
        }
    }
    // A server behind a proxy may see it decoded once more than we do.
    if segment.contains('%') {
        let once: Vec<u8> = percent_encoding::percent_decode_str(segment).collect();
        let climbs = |code: &[u8]| matches!(code, [b'%', b'2', b'e' | b'E' | b'f' | b'F'] | [b'%', b'5', b'c' | b'C']);
        if is_dot_segment(&once) || once.windows(3).any(climbs) {
            return Err("a slash, backslash or dot is percent-encoded twice");
        }
    }
    Ok(())
}

/// Some servers cut path parameters off before they look at the dots: `/..;x=1/`.
fn is_dot_segment(segment: &[u8]) -> bool {
    matches!(segment.split(|&b| b == b';').next(), Some(b"." | b".."))
}

/// Where one request goes and how: what policy decides on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    origin: Origin,
    method: Method,
    path: NormalPath,
    query: Option<Box<str>>,
}

impl Target {
    /// Takes a request's method and absolute address.
    ///
    /// # Errors
    ///
    /// Whatever two programs might read differently, and methods that are never sent for a guest.
    pub fn parse(method: &Method, uri: &Uri) -> Result<Self, TargetError> {
        let name = method.as_str();
        if name == "CONNECT" || name == "TRACE" || !name.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') {
            return Err(TargetError::Method(name.chars().take(32).collect()));
        }
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(InvalidOrigin("it has no scheme or no host").into());
        };
        if authority.as_str().contains('@') {
            return Err(InvalidOrigin("it has a user name or password").into());
        }
        let (host, port) = split_port(authority.as_str());
        let origin = Origin::from_parts(scheme, host, port)?;
        let path = NormalPath::parse(uri.path())?;
        let query = uri.query();
        if query.is_some_and(|query| !query.bytes().all(|b| b.is_ascii_graphic())) {
            return Err(TargetError::Query);
        }
        Ok(Self { origin, method: method.clone(), path, query: query.map(Into::into) })
    }

    /// Scheme, host and port.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The path.
    pub fn path(&self) -> &NormalPath {
        &self.path
    }

    /// The query, without its question mark. No rule looks at it.
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }
}

impl fmt::Display for Target {
    /// Method, origin and path; the query may hold what must not be logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.method, self.origin, self.path)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn target(uri: &str) -> Option<Target> {
        Target::parse(&Method::GET, &uri.parse().ok()?).ok()
    }

    #[test]
    fn a_plain_request_is_taken_as_it_is_written() {
        let target = target("https://API.example:443/a/b%20c;v=1/~d?q=%2f..").unwrap();
        assert_eq!(target.origin().to_string(), "https://api.example");
        assert_eq!(target.path().as_str(), "/a/b%20c;v=1/~d");
        assert_eq!(target.query(), Some("q=%2f.."));
        assert_eq!(target.to_string(), "GET https://api.example/a/b%20c;v=1/~d");
    }

    #[test]
    fn a_path_that_could_be_read_as_another_is_refused() {
        for path in [
            "/a/../b",
            "/a/./b",
            "/..",
            "/.",
            "/a/..;x/b",
            "/a/.;/b",
            "/a/%2e%2e/b",
            "/a/%2E/b",
            "/a/.%2e/b",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/a%00b",
            "/a%0d%0ab",
            "/a%7f",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a%252e%252e/b",
            "/a%252fb",
            "/a%255Cb",
            "/a%25%32fb",
            "/a%25%35%63b",
            "/..%3bx/b",
            "//evil.example/a",
            "/a{b}",
            "/a\"b",
            "/é",
        ] {
            assert_eq!(target(&format!("https://api.example{path}")), None, "{path:?}");
        }
        for path in ["/", "/a/", "/a//b", "/a...b", "/...", "/.well-known/x", "/a%25b", "/a%25zz", "/repos/a.b/c"] {
            assert!(target(&format!("https://api.example{path}")).is_some(), "{path:?}");
        }
    }

    #[test]
    fn an_address_that_could_be_read_as_another_is_refused() {
        for uri in [
            "/relative",
            "https://u:p@api.example/",
            "https://u@api.example/",
            "https://api.example./",
            "https://api.example:0/",
            "https://api.example:/",
            "https://127.1/",
            "https://2130706433/",
            "http://api.example/",
            "http://169.254.169.254/",
            "ftp://api.example/",
            "api.example:443",
        ] {
            assert_eq!(target(uri), None, "{uri:?}");
        }
    }

    #[test]
    fn methods_that_open_tunnels_or_echo_requests_are_refused() {
        let uri: Uri = "https://api.example/".parse().unwrap();
        for method in ["CONNECT", "TRACE", "get", "Get", "M-SEARCH*"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert!(Target::parse(&method, &uri).is_err(), "{method}");
        }
        assert!(Target::parse(&Method::PATCH, &uri).is_ok());
    }

    proptest! {
        #[test]
        fn any_address_is_judged_without_panic_and_no_accepted_path_climbs(
            text in "https://[a-z.@:0-9\\[\\]-]{1,12}(/|%2[eEfF]|%5c|%25|\\.|\\\\|;|[a-z]|[%{}\"*]|é){0,16}(\\?[ -~]{0,8})?"
        ) {
            if let Some(target) = target(&text) {
                let once = percent_encoding::percent_decode_str(target.path().as_str()).decode_utf8_lossy().into_owned();
                let twice = percent_encoding::percent_decode_str(&once).decode_utf8_lossy().into_owned();
                for decoded in [once, twice] {
                    prop_assert_eq!(decoded.matches('/').count(), target.path().as_str().matches('/').count());
                    prop_assert!(!decoded.split('/').any(|part| matches!(part.split(';').next(), Some("." | ".."))), "{}", decoded);
                }
            }
        }
    }
}
