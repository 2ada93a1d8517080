//! Reading what a request brings, with errors of our own shape.

use axum::body::Bytes;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Request};
use axum::http::header;
use serde::de::DeserializeOwned;

use crate::serve::{Kind, Problem};

/// The largest request body, in bytes.
const MAX_BODY: usize = 8 << 20;

/// A JSON body.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(mut request: Request, state: &S) -> Result<Self, Problem> {
        DefaultBodyLimit::max(MAX_BODY).apply(&mut request);
        if request.headers().get(header::CONTENT_TYPE).is_none_or(|kind| kind != "application/json") {
            let axum::Json(read) = axum::Json::from_request(request, state).await?;
            return Ok(Self(read));
        }
        let bytes = Bytes::from_request(request, state).await.map_err(JsonRejection::from)?;
        if let Ok(read) = serde_json::from_slice(&bytes) {
            return Ok(Self(read));
        }
        // Where an error is, is only kept count of where there is one: it takes as long as reading.
        let axum::Json(read) = axum::Json::from_bytes(&bytes)?;
        Ok(Self(read))
    }
}

/// The parts of the path.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Problem))]
pub(crate) struct Path<T>(pub(crate) T);

/// What stands after the `?`.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Problem))]
pub(crate) struct Query<T>(pub(crate) T);

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        let kind = match &rejection {
            JsonRejection::JsonDataError(_) => Kind::Invalid,
            JsonRejection::MissingJsonContentType(_) => Kind::UnsupportedMediaType,
            _ if rejection.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE => Kind::TooLarge,
            _ => Kind::BadRequest,
        };
        let detail = match kind {
            Kind::UnsupportedMediaType => "send the body with `Content-Type: application/json`".to_owned(),
            Kind::TooLarge => rejection.body_text(),
            _ => format!("the body: {}", without_preamble(&rejection.body_text())),
        };
        Self::new(kind, detail)
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::new(Kind::NotFound, rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(Kind::BadRequest, format!("after the ?: {}", without_preamble(&rejection.body_text())))
    }
}

/// What is wrong, without the sentence before it that says what the program tried to do.
pub(crate) fn without_preamble(text: &str) -> &str {
    text.split_once(": ").filter(|(preamble, _)| preamble.starts_with("Failed to ")).map_or(text, |(_, wrong)| wrong)
}

/// A name of the library's that a request brings.
pub(super) fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Problem> {
    text.parse().map_err(|error| Problem::new(Kind::Invalid, format!("{error}")))
}

/// What the parameter of this name says after the `?`.
pub(super) fn filtered<T: std::str::FromStr<Err: std::fmt::Display>>(
    name: &str,
    text: Option<&str>,
) -> Result<Option<T>, Problem> {
    let wrong = |error| Problem::new(Kind::BadRequest, format!("after the ?: {name}: {error}"));
    text.map(|text| text.parse().map_err(wrong)).transpose()
}

/// A name in the path: what can't be one names nothing.
pub(super) fn named<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Problem> {
    text.parse().map_err(|error| Problem::new(Kind::NotFound, format!("{error}")))
}
