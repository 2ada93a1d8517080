//! Reading what a request brings, with errors of our own shape.

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts};

use crate::serve::{Kind, Problem};

/// A JSON body.
#[derive(FromRequest)]
#[from_request(via(axum::Json), rejection(Problem))]
pub(crate) struct Json<T>(pub(crate) T);

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
fn without_preamble(text: &str) -> &str {
    text.split_once(": ").filter(|(preamble, _)| preamble.starts_with("Failed to ")).map_or(text, |(_, wrong)| wrong)
}

/// A name of the library's that a request brings.
pub(super) fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Problem> {
    text.parse().map_err(|error| Problem::new(Kind::Invalid, format!("{error}")))
}

/// A name after the `?`.
pub(super) fn filtered<T: std::str::FromStr<Err: std::fmt::Display>>(text: Option<&str>) -> Result<Option<T>, Problem> {
    let parsed = text.map(|text| text.parse().map_err(|error| Problem::new(Kind::BadRequest, format!("{error}"))));
    parsed.transpose()
}

/// A name in the path: what can't be one names nothing.
pub(super) fn named<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Problem> {
    text.parse().map_err(|error| Problem::new(Kind::NotFound, format!("{error}")))
}
