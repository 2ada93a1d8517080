//! What a guest gets to see of an answer.

use std::sync::Arc;

use http::Response;
use http_body_util::BodyExt as _;

use crate::net::Answer;

use super::headers::{self, EncodedAnswer};
use super::redact::{self, Spellings};
use super::{Body, BoxError};

/// The answer to a request without a credential.
pub(super) fn plain(answer: Response<Answer>) -> Result<Response<Body>, EncodedAnswer> {
    cleaned(answer, false)
}

/// The answer to a request with a credential: looked through for it. `until_read` is dropped with the body.
pub(super) fn looked_through<G: Send + 'static>(
    answer: Response<Answer>,
    spellings: Arc<Spellings>,
    until_read: G,
) -> Result<Response<Body>, EncodedAnswer> {
    let (mut parts, body) = cleaned(answer, true)?.into_parts();
    spellings.blot_headers(&mut parts.headers);
    let body = redact::blotted(body, spellings);
    let body = body.map_frame(move |frame| {
        let _ = &until_read;
        frame
    });
    Ok(Response::from_parts(parts, Body::new(body)))
}

fn cleaned(answer: Response<Answer>, credential: bool) -> Result<Response<Body>, EncodedAnswer> {
    let (mut parts, body) = answer.into_parts();
    headers::clean_answer(&mut parts.headers, credential)?;
    // The reason phrase is the server's own text and stands outside of what is looked through.
    parts.extensions.clear();
    Ok(Response::from_parts(parts, Body::new(body.map_err(BoxError::from))))
}
