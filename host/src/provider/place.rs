//! How a credential is put on a request, and where a placeholder may stand, as files say it.

use http::HeaderName;

use crate::diagnostic::{Diagnostic, Table};
use crate::policy::{Placement, Slot};

/// A text that names no place in a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidPlace {
    #[error("not the name of a header")]
    Header,
    #[error("this header belongs to the connection and can't carry a credential")]
    ConnectionHeader,
    #[error("not a JSON pointer: it is empty or begins with `/`")]
    Pointer,
    #[error("a query key is letters, digits, `.`, `-` and `_`")]
    Query,
    #[error("a text before the credential is printable ASCII")]
    Prefix,
    #[error("it is \"bearer\", \"basic\", \"header:NAME\", \"query:KEY\" or \"json:/POINTER\"")]
    Slot,
}

fn header(text: &str) -> Result<HeaderName, InvalidPlace> {
    const OF_THE_CONNECTION: [&str; 11] = [
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "host",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let name: HeaderName = text.parse().map_err(|_| InvalidPlace::Header)?;
    if OF_THE_CONNECTION.contains(&name.as_str()) { Err(InvalidPlace::ConnectionHeader) } else { Ok(name) }
}

/// A JSON pointer (RFC 6901). The empty one means the whole document and places nothing.
pub(super) fn pointer(text: &str) -> Result<String, InvalidPlace> {
    if text.starts_with('/') && text.len() <= 200 { Ok(text.to_owned()) } else { Err(InvalidPlace::Pointer) }
}

fn query(text: &str) -> Result<String, InvalidPlace> {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    if plain && !text.is_empty() { Ok(text.to_owned()) } else { Err(InvalidPlace::Query) }
}

fn prefix(text: &str) -> Result<String, InvalidPlace> {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) { Ok(text.to_owned()) } else { Err(InvalidPlace::Prefix) }
}

/// One entry of `slots`.
pub(super) fn slot(text: &str) -> Result<Slot, InvalidPlace> {
    match text.split_once(':') {
        None if text == "bearer" => Ok(Slot::AuthorizationBearer),
        None if text == "basic" => Ok(Slot::AuthorizationBasic),
        Some(("header", name)) => header(name).map(Slot::Header),
        Some(("query", key)) => query(key).map(Slot::Query),
        Some(("json", at)) => pointer(at).map(Slot::Json),
        _ => Err(InvalidPlace::Slot),
    }
}

/// The slot that a placement fills.
pub(super) fn slot_of(placement: &Placement) -> Slot {
    match placement {
        Placement::Bearer => Slot::AuthorizationBearer,
        Placement::Basic { .. } => Slot::AuthorizationBasic,
        Placement::Header { name, .. } => Slot::Header(name.clone()),
        Placement::Query { key } => Slot::Query(key.clone()),
        Placement::JsonPointer { pointer } => Slot::Json(pointer.clone()),
    }
}

/// Reads `[provider.NAME.placement]`: one of `bearer = true`, `basic = "USER"` (empty: the credential is the whole pair),
/// `header = "NAME"` with an optional `prefix`, `query = "KEY"`, `json = "/POINTER"`.
pub(super) fn placement(table: &mut Table<'_>) -> Option<Placement> {
    let bearer = table.opt_bool("bearer").filter(|bearer| *bearer).map(|_| Placement::Bearer);
    let basic = table
        .opt_parsed_by("basic", prefix)
        .map(|user| Placement::Basic { user: if user.is_empty() { None } else { Some(user) } });
    let name = table.opt_parsed_by("header", header);
    let before = table.opt_parsed_by("prefix", prefix);
    let header = name.map(|name| Placement::Header { name, prefix: before.unwrap_or_default() });
    let query = table.opt_parsed_by("query", query).map(|key| Placement::Query { key });
    let json = table.opt_parsed_by("json", pointer).map(|pointer| Placement::JsonPointer { pointer });
    if table.has("prefix") && !table.has("header") {
        table.push(Diagnostic::new(table.span_of("prefix"), "`prefix` stands beside `header` only").label("remove it"));
    }
    let written = ["bearer", "basic", "header", "query", "json"].iter().filter(|key| table.has(key)).count();
    if written != 1 {
        let diagnostic = Diagnostic::new(table.span(), "a placement names one place for the credential");
        table.push(diagnostic.label("write one of `bearer = true`, `basic`, `header`, `query`, `json`"));
        return None;
    }
    [bearer, basic, header, query, json].into_iter().flatten().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_read_and_loose_ones_refused() {
        assert_eq!(slot("bearer"), Ok(Slot::AuthorizationBearer));
        assert_eq!(slot("header:X-Api-Key"), Ok(Slot::Header(HeaderName::from_static("x-api-key"))));
        assert_eq!(slot("query:api_key"), Ok(Slot::Query("api_key".into())));
        assert_eq!(slot("json:/auth/token"), Ok(Slot::Json("/auth/token".into())));
        for bad in ["", "Bearer", "header:", "header:Host", "header:a b", "query:", "query:a&b", "json:", "json:token"]
        {
            assert!(slot(bad).is_err(), "{bad}");
        }
    }
}
