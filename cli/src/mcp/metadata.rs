//! How a client finds out where to get a credential: OAuth 2.0 Protected Resource Metadata (RFC 9728).

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::http::PATH;
use crate::callers::Scope;
use crate::serve::Shared;

/// RFC 9728 section 3: the well-known word stands before the resource's own path.
const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// Where the metadata of the resource at this path is.
pub(super) fn path_of(resource: &str) -> String {
    format!("{WELL_KNOWN}{resource}")
}

/// The metadata of the protocol's address, and of the whole host for clients that look there. It is for everyone.
pub(super) fn router() -> Router<Shared> {
    let at = |path: &'static str| get(async move |State(app): State<Shared>| Json(document(&app, path)));
    Router::new().route(&path_of(PATH), at(PATH)).route(WELL_KNOWN, at("/"))
}

fn document(app: &Shared, path: &str) -> Value {
    let mut document = json!({
        "resource": app.origins.url(path),
        "resource_name": "ClawCoil",
        "scopes_supported": [Scope::Invoke.as_str(), Scope::Connect.as_str()],
        "bearer_methods_supported": ["header"],
    });
    // The operator gives out this host's own tokens; a client can't ask for one by itself.
    let issuers: Vec<Value> = app.config.identity_providers.iter().map(|provider| json!(provider.issuer)).collect();
    if let (false, Some(document)) = (issuers.is_empty(), document.as_object_mut()) {
        document.insert("authorization_servers".to_owned(), issuers.into());
    }
    document
}
