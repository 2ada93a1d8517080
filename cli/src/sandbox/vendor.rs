//! The real providers whose shapes the sandbox speaks, and where they differ from the RFCs.

use serde_json::{Value, json};

use super::ledger::{Issued, Refusal};

/// Whose paths and answers. All of them share one ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Vendor {
    /// As RFC 6749 has it.
    Plain,
    Google,
    GitHub,
    Slack,
    Salesforce,
}

/// The paths of one vendor's authorization server.
pub(super) struct Paths {
    pub(super) vendor: Vendor,
    pub(super) authorize: &'static str,
    pub(super) token: &'static str,
    pub(super) revoke: Option<&'static str>,
    pub(super) introspect: Option<&'static str>,
}

/// Each vendor's real paths, so that an operator only has to replace the origins of a catalogue entry.
pub(super) const PATHS: [Paths; 5] = [
    Paths {
        vendor: Vendor::Plain,
        authorize: "/authorize",
        token: "/oauth/token",
        revoke: Some("/oauth/revoke"),
        introspect: Some("/oauth/introspect"),
    },
    // https://developers.google.com/identity/protocols/oauth2/web-server
    Paths {
        vendor: Vendor::Google,
        authorize: "/o/oauth2/v2/auth",
        token: "/token",
        revoke: Some("/revoke"),
        introspect: None,
    },
    // https://docs.github.com/en/apps/oauth-apps/building-oauth-apps/authorizing-oauth-apps
    Paths {
        vendor: Vendor::GitHub,
        authorize: "/login/oauth/authorize",
        token: "/login/oauth/access_token",
        revoke: Some("/applications/{client_id}/token"),
        introspect: None,
    },
    // https://docs.slack.dev/authentication/installing-with-oauth
    Paths {
        vendor: Vendor::Slack,
        authorize: "/oauth/v2/authorize",
        token: "/api/oauth.v2.access",
        revoke: Some("/api/auth.revoke"),
        introspect: None,
    },
    // https://help.salesforce.com/s/articleView?id=sf.remoteaccess_oauth_endpoints.htm
    Paths {
        vendor: Vendor::Salesforce,
        authorize: "/services/oauth2/authorize",
        token: "/services/oauth2/token",
        revoke: Some("/services/oauth2/revoke"),
        introspect: Some("/services/oauth2/introspect"),
    },
];

impl Vendor {
    /// Its name for people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "Sandbox",
            Self::Google => "Google",
            Self::GitHub => "GitHub",
            Self::Slack => "Slack",
            Self::Salesforce => "Salesforce",
        }
    }

    /// The scopes in a request. Slack and GitHub put commas between them.
    pub(super) fn scopes(self, text: &str) -> impl Iterator<Item = String> {
        let comma = matches!(self, Self::Slack | Self::GitHub);
        text.split(move |c: char| c == ' ' || (comma && c == ',')).filter(|scope| !scope.is_empty()).map(str::to_owned)
    }

    /// The token endpoint's answer. `origin` is where the sandbox's APIs are.
    pub(super) fn tokens(self, issued: &Issued, origin: &str) -> Value {
        let separator = if matches!(self, Self::Slack | Self::GitHub) { "," } else { " " };
        let scope = issued.scopes.iter().map(String::as_str).collect::<Vec<_>>().join(separator);
        let token_type = if self == Self::Slack { "bot" } else { "Bearer" };
        let mut answer = json!({ "access_token": issued.access, "token_type": token_type, "scope": scope });
        let login = issued.person.map(|person| person.login);
        let more = match self {
            Self::Plain | Self::Google | Self::GitHub => json!({ "expires_in": issued.expires_in.as_secs() }),
            Self::Slack => json!({
                "ok": true,
                "expires_in": issued.expires_in.as_secs(),
                "team": { "id": "T0SANDBOX", "name": "Sandbox" },
                "authed_user": { "id": login },
            }),
            // No expires_in: a client has to introspect.
            Self::Salesforce => json!({
                "instance_url": origin,
                "id": format!("{origin}/id/00D0SANDBOX/{}", login.unwrap_or_default()),
            }),
        };
        merge(&mut answer, more);
        // Ours: the real ones name the account elsewhere, each in its own place.
        merge(&mut answer, json!({ "sandbox_account": issued.person.map(|person| person.email) }));
        if let Some(refresh) = &issued.refresh {
            merge(&mut answer, json!({ "refresh_token": refresh }));
        }
        answer
    }

    /// How the token endpoint says no: a status and a body.
    pub(super) fn refusal(self, refusal: Refusal, refreshing: bool) -> (u16, Value) {
        let (status, error, description) = match refusal {
            Refusal::InvalidRequest(why) => (400, "invalid_request", why),
            Refusal::InvalidClient => (401, "invalid_client", "this is not the sandbox's client or not its secret"),
            Refusal::InvalidGrant(why) => (400, "invalid_grant", why),
            Refusal::InvalidScope => (400, "invalid_scope", "more than was consented to"),
            Refusal::UnsupportedGrantType => (400, "unsupported_grant_type", "the sandbox has no such flow"),
        };
        match (self, refusal) {
            (Self::Slack, Refusal::InvalidGrant(_)) if refreshing => {
                (200, json!({ "ok": false, "error": "invalid_refresh_token" }))
            }
            (Self::Slack, Refusal::InvalidGrant(_)) => (200, json!({ "ok": false, "error": "invalid_code" })),
            (Self::Slack, _) => (200, json!({ "ok": false, "error": error })),
            (Self::GitHub, Refusal::InvalidGrant(why)) => {
                let error = if refreshing { "bad_refresh_token" } else { "bad_verification_code" };
                (200, json!({ "error": error, "error_description": why }))
            }
            (Self::GitHub, _) => (200, json!({ "error": error, "error_description": description })),
            _ => (status, json!({ "error": error, "error_description": description })),
        }
    }
}

fn merge(answer: &mut Value, more: Value) {
    if let (Some(answer), Value::Object(more)) = (answer.as_object_mut(), more) {
        answer.extend(more);
    }
}
