//! What policy must know of a provider. The catalogue says it.

use std::fmt;

use http::HeaderName;

use super::origin::Origin;
use super::request::OriginRule;

/// How a credential is put on a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// `Authorization: Bearer …`.
    Bearer,
    /// A header of its own, with a text before the credential, such as `Token `.
    Header {
        /// The header.
        name: HeaderName,
        /// What stands before the credential, with its space.
        prefix: String,
    },
    /// `Authorization: Basic …`.
    Basic {
        /// The user name that stands before the colon; absent: the credential is the whole pair.
        user: Option<String>,
    },
    /// A key of the query.
    Query {
        /// The key.
        key: String,
    },
    /// A field of a JSON body (RFC 6901).
    JsonPointer {
        /// The pointer.
        pointer: String,
    },
}

/// Where a placeholder may stand in a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Slot {
    /// After `Bearer ` in `Authorization`.
    AuthorizationBearer,
    /// In what `Authorization: Basic` decodes to.
    AuthorizationBasic,
    /// In this header.
    Header(HeaderName),
    /// As the value of this query key.
    Query(String),
    /// As the text at this JSON pointer of the body (RFC 6901).
    Json(String),
}

/// What policy must know of a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderFacts {
    /// Where its API lives. Only literal origins let a credential through; an operator's stand-in for a test belongs here too.
    pub api_origins: Vec<OriginRule>,
    /// What a connection's own API origin must look like, where each connection has one.
    pub api_origin_pattern: Option<OriginRule>,
    /// How the credential is put on a request.
    pub placement: Placement,
    /// Where a placeholder may stand.
    pub slots: Vec<Slot>,
}

impl ProviderFacts {
    /// Whether the API lives at this literal origin.
    pub(super) fn names(&self, origin: &Origin) -> bool {
        self.api_origins.iter().any(|rule| matches!(rule, OriginRule::Literal(literal) if literal == origin))
    }

    /// Whether a connection of this provider may have its API there. The origin came from the provider's answer.
    pub fn admits_api_origin(&self, origin: &Origin) -> bool {
        self.names(origin) || self.api_origin_pattern.as_ref().is_some_and(|pattern| pattern.matches(origin, None))
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AuthorizationBearer => f.write_str("Authorization as Bearer"),
            Self::AuthorizationBasic => f.write_str("Authorization as Basic"),
            Self::Header(name) => write!(f, "the header {name}"),
            Self::Query(key) => write!(f, "the query key {key}"),
            Self::Json(pointer) => write!(f, "the JSON field {pointer}"),
        }
    }
}
