//! Puts a credential on a request, at the last moment.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use zeroize::Zeroizing;

use crate::policy::{Placement, Slot};
use crate::vault::Kind;

use super::headers;

/// What RFC 3986 section 2.3 leaves as it is.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Query keys that carry a credential by custom, beside the provider's own. More general ones, such as `key` and `token`, mean
/// other things at too many APIs.
const CREDENTIAL_KEYS: [&str; 9] = [
    "access_token",
    "accesstoken",
    "api_key",
    "api-key",
    "apikey",
    "auth_token",
    "oauth_token",
    "private_token",
    "client_secret",
];

/// A password that is shorter occurs in answers by chance.
const SHORTEST_PASSWORD: usize = 8;

/// What of a credential is not for the guest to see: all of it, how it is rendered, and of a name with a password the password
/// alone.
pub(super) fn secrets<'a>(kind: Kind, credential: &'a str, rendered: Option<&'a str>) -> impl Iterator<Item = &'a str> {
    let password = (kind == Kind::Basic).then(|| credential.split_once(':')).flatten().map(|(_, password)| password);
    let password = password.filter(|password| password.len() >= SHORTEST_PASSWORD);
    std::iter::once(credential).chain(rendered).chain(password)
}

/// Why a credential can't be put on a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// The credential has characters that can't stand in a header.
    #[error("the credential can't stand in a header; connect the account again")]
    Value,
    /// The address would not be one any more.
    #[error("the request's address can't take the credential")]
    Address,
    /// The credential goes in a JSON body, and there is none.
    #[error("the credential goes into a field of a JSON object, and the request's body is none")]
    Body,
}

/// Removes what the guest brought along as a credential: headers and query keys of custom, and those of the provider.
pub fn drop_own_credentials(
    headers: &mut HeaderMap,
    uri: &mut Uri,
    placement: &Placement,
    slots: &[Slot],
) -> Result<(), AttachError> {
    headers::drop_credentials(headers);
    let mut keys: Vec<&str> = CREDENTIAL_KEYS.to_vec();
    match placement {
        Placement::Header { name, .. } => drop(headers.remove(name)),
        Placement::Query { key } => keys.push(key),
        Placement::Bearer | Placement::Basic { .. } | Placement::JsonPointer { .. } => {}
    }
    for slot in slots {
        match slot {
            Slot::Header(name) => drop(headers.remove(name)),
            Slot::Query(key) => keys.push(key),
            Slot::AuthorizationBearer | Slot::AuthorizationBasic | Slot::Json(_) => {}
        }
    }
    let is_credential = |pair: &&str| {
        let key = decoded_key(pair);
        keys.iter().any(|known| key.eq_ignore_ascii_case(known))
    };
    let Some(query) = uri.query() else { return Ok(()) };
    if query.split('&').any(|pair| is_credential(&pair)) {
        let kept: Vec<&str> = query.split('&').filter(|pair| !is_credential(pair)).collect();
        let kept = kept.join("&");
        *uri = with_query(uri, &kept)?;
    }
    Ok(())
}

/// Puts the credential where the provider wants it. Gives the rendered form where the credential is not part of it as it is.
pub fn attach(
    headers: &mut HeaderMap,
    uri: &mut Uri,
    body: &mut Option<Bytes>,
    placement: &Placement,
    credential: &str,
) -> Result<Option<Zeroizing<String>>, AttachError> {
    match placement {
        Placement::Bearer => {
            headers.insert(header::AUTHORIZATION, value(&["Bearer ", credential])?);
        }
        Placement::Header { name, prefix } => {
            headers.insert(name, value(&[prefix, credential])?);
        }
        Placement::Basic { user } => {
            let pair = match user {
                Some(user) => Zeroizing::new(format!("{user}:{credential}")),
                None => Zeroizing::new(credential.to_owned()),
            };
            let rendered = Zeroizing::new(STANDARD.encode(&*pair));
            headers.insert(header::AUTHORIZATION, value(&["Basic ", &rendered])?);
            return Ok(Some(rendered));
        }
        Placement::Query { key } => {
            let pair = Zeroizing::new(format!("{}={}", *escaped(key), *escaped(credential)));
            let query = match uri.query() {
                Some(query) if !query.is_empty() => Zeroizing::new(format!("{query}&{}", *pair)),
                _ => pair,
            };
            *uri = with_query(uri, &query)?;
        }
        Placement::JsonPointer { pointer } => {
            let text = body.as_ref().ok_or(AttachError::Body)?;
            let mut json: serde_json::Value = serde_json::from_slice(text).map_err(|_| AttachError::Body)?;
            set(&mut json, pointer, credential).ok_or(AttachError::Body)?;
            let text = serde_json::to_vec(&json).map_err(|_| AttachError::Body)?;
            *body = Some(Bytes::from(text));
        }
    }
    Ok(None)
}

/// Sets a member of an object, which is made where it is missing (RFC 6901).
fn set(json: &mut serde_json::Value, pointer: &str, credential: &str) -> Option<()> {
    let (parent, name) = pointer.rsplit_once('/')?;
    let object = json.pointer_mut(parent)?.as_object_mut()?;
    object.insert(name.replace("~1", "/").replace("~0", "~"), credential.into());
    Some(())
}

/// A header's value that is not shown in logs.
pub(super) fn value(parts: &[&str]) -> Result<HeaderValue, AttachError> {
    let text = Zeroizing::new(parts.concat());
    let mut value = HeaderValue::from_str(&text).map_err(|_| AttachError::Value)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Percent-encoded for a query.
pub(super) fn escaped(text: &str) -> Zeroizing<String> {
    Zeroizing::new(utf8_percent_encode(text, RESERVED).to_string())
}

/// The key of a `key=value` of a query.
pub(super) fn decoded_key(pair: &str) -> String {
    let key = pair.split_once('=').map_or(pair, |(key, _)| key);
    percent_decode_str(&key.replace('+', " ")).decode_utf8_lossy().into_owned()
}

/// The same address with another query.
pub(super) fn with_query(uri: &Uri, query: &str) -> Result<Uri, AttachError> {
    let path = uri.path();
    let text = Zeroizing::new(if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") });
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(
        PathAndQuery::from_maybe_shared(Bytes::copy_from_slice(text.as_bytes())).map_err(|_| AttachError::Address)?,
    );
    Uri::from_parts(parts).map_err(|_| AttachError::Address)
}

/// Which header a slot is in.
pub(super) fn header_of(slot: &Slot) -> Option<&HeaderName> {
    match slot {
        Slot::AuthorizationBearer | Slot::AuthorizationBasic => Some(&header::AUTHORIZATION),
        Slot::Header(name) => Some(name),
        Slot::Query(_) | Slot::Json(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Request {
        headers: HeaderMap,
        uri: Uri,
        body: Option<Bytes>,
    }

    fn request(uri: &str, headers: &[(&'static str, &'static str)]) -> Request {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        Request { headers, uri: uri.parse().unwrap(), body: None }
    }

    fn put(request: &mut Request, placement: &Placement) -> Result<Option<Zeroizing<String>>, AttachError> {
        let Request { headers, uri, body } = request;
        drop_own_credentials(headers, uri, placement, &[]).unwrap();
        attach(headers, uri, body, placement, "to/k+en")
    }

    #[test]
    fn of_a_name_with_a_password_the_password_alone_is_secret_too() {
        let of = |kind, credential| secrets(kind, credential, Some("cmVuZGVyZWQ=")).collect::<Vec<_>>();
        assert_eq!(of(Kind::Basic, "me:open:sesame"), ["me:open:sesame", "cmVuZGVyZWQ=", "open:sesame"]);
        assert_eq!(of(Kind::Basic, "me:mail"), ["me:mail", "cmVuZGVyZWQ="], "a common word would blot out answers");
        assert_eq!(of(Kind::StaticBearer, "me:open:sesame").len(), 2);
    }

    #[test]
    fn each_placement_puts_the_credential_where_it_belongs() {
        let mut bearer = request("https://a.example/", &[]);
        assert!(put(&mut bearer, &Placement::Bearer).unwrap().is_none());
        assert_eq!(bearer.headers["authorization"], "Bearer to/k+en");
        assert!(bearer.headers["authorization"].is_sensitive());

        let mut named = request("https://a.example/", &[]);
        let name = HeaderName::from_static("x-figma-token");
        put(&mut named, &Placement::Header { name, prefix: "Token ".to_owned() }).unwrap();
        assert_eq!(named.headers["x-figma-token"], "Token to/k+en");

        let mut basic = request("https://a.example/", &[]);
        let rendered = put(&mut basic, &Placement::Basic { user: Some("me".to_owned()) }).unwrap().unwrap();
        assert_eq!(basic.headers["authorization"], format!("Basic {}", STANDARD.encode("me:to/k+en")));
        assert_eq!(*rendered, STANDARD.encode("me:to/k+en"));

        let mut query = request("https://a.example/p?a=1", &[]);
        put(&mut query, &Placement::Query { key: "appid".to_owned() }).unwrap();
        assert_eq!(query.uri, "https://a.example/p?a=1&appid=to%2Fk%2Ben");

        let mut json = request("https://a.example/p", &[]);
        json.body = Some(Bytes::from_static(br#"{"auth":{"x":1}}"#));
        put(&mut json, &Placement::JsonPointer { pointer: "/auth/token".to_owned() }).unwrap();
        assert_eq!(json.body.unwrap(), r#"{"auth":{"token":"to/k+en","x":1}}"#);
    }

    #[test]
    fn the_guests_own_credential_is_overwritten() {
        let mut own = request(
            "https://a.example/p?ACCESS_TOKEN=evil&a=1&%61ppid=evil&appid",
            &[("authorization", "Bearer evil"), ("x-api-key", "evil"), ("cookie", "evil=1")],
        );
        put(&mut own, &Placement::Query { key: "appid".to_owned() }).unwrap();
        assert!(own.headers.is_empty());
        assert_eq!(own.uri, "https://a.example/p?a=1&appid=to%2Fk%2Ben");
    }

    #[test]
    fn a_body_that_is_no_object_gets_no_credential() {
        for body in [None, Some(&b"[1]"[..]), Some(b"{"), Some(b"\"x\"")] {
            let mut json = request("https://a.example/p", &[]);
            json.body = body.map(Bytes::from_static);
            let placement = Placement::JsonPointer { pointer: "/token".to_owned() };
            assert_eq!(put(&mut json, &placement).err(), Some(AttachError::Body));
        }
    }

    #[test]
    fn a_credential_with_a_line_feed_is_no_header() {
        let mut request = request("https://a.example/", &[]);
        let Request { headers, uri, body } = &mut request;
        assert_eq!(attach(headers, uri, body, &Placement::Bearer, "a\nb: c").err(), Some(AttachError::Value));
    }
}
