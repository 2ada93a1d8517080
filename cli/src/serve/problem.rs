//! Errors of the HTTP surfaces as problem documents (RFC 9457): what is wrong, who must act, and how.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use clawcoil::broker::BrokerError;
use clawcoil::connect::ConnectError;
use clawcoil::host::InvokeError;
use clawcoil::registry::RegistryError;
use clawcoil::runtime::{CallError, LinkError};
use clawcoil::vault::VaultError;
use serde_json::{Map, Value, json};

use super::RequestId;
use crate::callers::Refused;
use crate::commands::denial_json;
use crate::exit::{action_json, chain};
use clawcoil::policy::Denial;

/// What kind of problem: the last part of its `type`, its title, its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No credential, or one that is not known.
    Unauthenticated,
    /// The credential is good, and not for this.
    Forbidden,
    /// Sent to another host's name, or by a page of another site.
    Foreign,
    /// The operator's policy says no.
    Denied,
    /// A person must connect an account first.
    ConnectionNeeded,
    /// There is no such thing, or not for this caller.
    NotFound,
    /// The request is not understood.
    BadRequest,
    /// The input does not fit.
    Invalid,
    /// It contradicts what is there.
    Conflict,
    /// It may have been done, and nobody here knows what came of it.
    OutcomeUnknown,
    /// The body is larger than any has a reason to be.
    TooLarge,
    /// Not this type of body.
    UnsupportedMediaType,
    /// Not this method.
    MethodNotAllowed,
    /// The caller asks too often, or too much at once.
    TooMany,
    /// The skill trapped or hit a limit.
    SkillFailed,
    /// The provider, the network or this host can't do it at present.
    Unavailable,
    /// Our fault, or the operator's.
    Internal,
}

impl Kind {
    pub(crate) const ALL: [Self; 17] = [
        Self::Unauthenticated,
        Self::Forbidden,
        Self::Foreign,
        Self::Denied,
        Self::ConnectionNeeded,
        Self::NotFound,
        Self::BadRequest,
        Self::Invalid,
        Self::Conflict,
        Self::OutcomeUnknown,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::MethodNotAllowed,
        Self::TooMany,
        Self::SkillFailed,
        Self::Unavailable,
        Self::Internal,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::Foreign => "foreign-request",
            Self::Denied => "denied",
            Self::ConnectionNeeded => "connection-needed",
            Self::NotFound => "not-found",
            Self::BadRequest => "bad-request",
            Self::Invalid => "invalid-input",
            Self::Conflict => "conflict",
            Self::OutcomeUnknown => "outcome-unknown",
            Self::TooLarge => "too-large",
            Self::UnsupportedMediaType => "unsupported-media-type",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::TooMany => "too-many",
            Self::SkillFailed => "skill-failed",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }

    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Unauthenticated => "A credential is needed",
            Self::Forbidden => "The credential is not for this",
            Self::Foreign => "The request is for another host, or from another site",
            Self::Denied => "The operator's policy refuses it",
            Self::ConnectionNeeded => "A person must connect an account first",
            Self::NotFound => "There is no such thing",
            Self::BadRequest => "The request is not understood",
            Self::Invalid => "The input does not fit",
            Self::Conflict => "It contradicts what is there",
            Self::OutcomeUnknown => "What came of it is not known here",
            Self::TooLarge => "The body is too large",
            Self::UnsupportedMediaType => "The body must be JSON",
            Self::MethodNotAllowed => "The method is not for this resource",
            Self::TooMany => "Too much at once",
            Self::SkillFailed => "The skill failed",
            Self::Unavailable => "It can't be done at present",
            Self::Internal => "The host failed",
        }
    }

    pub(crate) const fn status(self) -> StatusCode {
        match self {
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden | Self::Foreign | Self::Denied => StatusCode::FORBIDDEN,
            Self::ConnectionNeeded | Self::Conflict | Self::OutcomeUnknown => StatusCode::CONFLICT,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::SkillFailed => StatusCode::BAD_GATEWAY,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// A problem document.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    kind: Kind,
    detail: String,
    /// Members of its own.
    more: Map<String, Value>,
    headers: Vec<(header::HeaderName, HeaderValue)>,
}

impl Problem {
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), more: Map::new(), headers: Vec::new() }
    }

    /// A fault that the caller can't mend; the reason goes to the log, not to the caller.
    pub(crate) fn internal(error: &dyn std::error::Error) -> Self {
        tracing::error!(error = chain(error), "a request failed");
        Self::new(
            Kind::Internal,
            "the host could not do this; its operator finds the reason in the log, by this request_id",
        )
    }

    /// A member besides those of RFC 9457.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: Value) -> Self {
        self.more.insert(name.to_owned(), value);
        self
    }

    #[must_use]
    pub(crate) fn with_header(mut self, name: header::HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    /// In how many seconds it is worth trying again.
    #[must_use]
    pub(crate) fn retry_after(self, after: std::time::Duration) -> Self {
        let seconds = after.as_secs().max(1);
        self.with("retry_after", json!(seconds)).with_header(header::RETRY_AFTER, &seconds.to_string())
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// The document itself.
    pub(crate) fn to_json(&self) -> Value {
        let mut object = self.more.clone();
        object.insert("type".to_owned(), json!(format!("/problems/{}", self.kind.name())));
        object.insert("title".to_owned(), json!(self.kind.title()));
        object.insert("status".to_owned(), json!(self.kind.status().as_u16()));
        object.insert("detail".to_owned(), json!(self.detail));
        if let Some(id) = RequestId::current() {
            object.insert("request_id".to_owned(), json!(id.as_str()));
        }
        Value::Object(object)
    }
}

/// A refusal, for callers: where a rule stands, without the folders of the operator's machine.
pub(crate) fn denial_for_callers(denial: &Denial) -> Value {
    denial_json(&denial.without_folders())
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.kind.status(), Json(self.to_json())).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.kind == Kind::Unauthenticated {
            headers.entry(header::WWW_AUTHENTICATE).or_insert(HeaderValue::from_static("Bearer"));
        }
        for (name, value) in self.headers {
            headers.insert(name, value);
        }
        response
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let problem = Self::new(Kind::Forbidden, refused.to_string());
        match refused {
            Refused::Scope(scope) => problem.with("scope", json!(scope.as_str())).with_header(
                header::WWW_AUTHENTICATE,
                &format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\""),
            ),
            Refused::UserMissing => Self::new(Kind::BadRequest, refused.to_string()),
            Refused::OtherUser | Refused::NotWithinPattern | Refused::Nobody => problem,
        }
    }
}

impl From<VaultError> for Problem {
    fn from(error: VaultError) -> Self {
        Self::internal(&error)
    }
}

impl From<ConnectError> for Problem {
    fn from(error: ConnectError) -> Self {
        match &error {
            ConnectError::UnknownConnection(_) => Self::new(Kind::NotFound, error.to_string()),
            ConnectError::Unrecorded { .. } => {
                tracing::error!(error = chain(&error), "the audit log can't be written");
                Self::new(Kind::Unavailable, error.to_string())
            }
            _ => Self::internal(&error),
        }
    }
}

impl From<RegistryError> for Problem {
    fn from(error: RegistryError) -> Self {
        match &error {
            RegistryError::NotInstalled { name, .. } => {
                Self::new(Kind::NotFound, format!("no skill {name} is installed"))
            }
            RegistryError::NothingPending(_) => Self::new(Kind::NotFound, error.to_string()),
            RegistryError::PendingChanged(_) => Self::new(Kind::Conflict, error.to_string()),
            _ => Self::internal(&error),
        }
    }
}

impl From<InvokeError> for Problem {
    fn from(error: InvokeError) -> Self {
        match error {
            InvokeError::Denied(denials) => {
                let detail = denials.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                Self::new(Kind::Denied, detail)
                    .with("denials", denials.iter().map(denial_for_callers).collect::<Vec<_>>().into())
            }
            InvokeError::ActionRequired(actions) => {
                let detail = actions.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                Self::new(Kind::ConnectionNeeded, detail)
                    .with("actions", actions.iter().map(action_json).collect::<Vec<_>>().into())
            }
            InvokeError::Broker(BrokerError::ActionRequired(action)) => {
                InvokeError::ActionRequired(vec![*action]).into()
            }
            InvokeError::Broker(BrokerError::Unavailable { retry_after, message }) => {
                let problem = Self::new(Kind::Unavailable, message);
                match retry_after {
                    Some(after) => problem.retry_after(after),
                    None => problem,
                }
            }
            InvokeError::Registry(error) => error.into(),
            InvokeError::Call(CallError::NoSuchTool { .. }) => Self::new(Kind::NotFound, error.to_string()),
            InvokeError::Call(CallError::Arguments { .. }) | InvokeError::ToolNotNamed { .. } => {
                Self::new(Kind::Invalid, chain(&error))
            }
            InvokeError::Call(CallError::Link(LinkError::NotLinked { .. })) => Self::new(Kind::Denied, chain(&error)),
            InvokeError::Call(CallError::Busy(busy)) => {
                Self::new(Kind::TooMany, busy.to_string()).retry_after(std::time::Duration::from_secs(1))
            }
            InvokeError::Audit(_) => {
                tracing::error!(error = chain(&error), "the audit log can't be written");
                Self::new(Kind::Unavailable, "the audit log can't be written, so nothing runs; the operator must act")
            }
            InvokeError::Compile { .. }
            | InvokeError::Call(CallError::Link(LinkError::Mismatch(_)))
            | InvokeError::Broker(
                BrokerError::Configuration { .. } | BrokerError::Gone | BrokerError::Audit(_) | BrokerError::Vault(_),
            ) => Self::internal(&error),
        }
    }
}
