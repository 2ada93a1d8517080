//! What a form brings, if it is a form of this browser's own pages.

use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{BrowserSession, Trouble};
use crate::api::without_preamble;
use crate::serve::{Kind, Problem, Shared};

/// A form that was sent from a page of this session, and who sent it. Its fields are texts.
///
/// Two things are held: the browser says that the page was ours (`Origin`), and the form has the value that only our pages
/// in this session have.
pub(crate) struct Form<T> {
    pub(crate) session: BrowserSession,
    pub(crate) fields: T,
}

/// A form without fields of its own.
#[derive(Debug, Deserialize)]
pub(crate) struct Nothing {}

#[derive(Deserialize)]
struct Guarded<T> {
    csrf: String,
    #[serde(flatten)]
    fields: T,
}

impl<T: DeserializeOwned> FromRequest<Shared> for Form<T> {
    type Rejection = Trouble;

    async fn from_request(request: Request, app: &Shared) -> Result<Self, Trouble> {
        let known = BrowserSession::of(app, request.headers())?;
        require_origin(request.headers())?;
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let axum::Form(Guarded { csrf, fields }) =
            axum::Form::<Guarded<T>>::from_request(request, app).await.map_err(|rejection| {
                Problem::new(Kind::BadRequest, format!("the form: {}", without_preamble(&rejection.body_text())))
            })?;
        let session = known.ok_or_else(|| Trouble::sign_in(&method, &uri))?;
        if !session.is_own_form(&csrf) {
            return Err(Problem::new(
                Kind::Forbidden,
                "this form was made for another sign-in; go back, load the page again, and send it once more",
            )
            .into());
        }
        Ok(Self { session, fields })
    }
}

/// Whether the browser says that a page of ours sent this; that a foreign one may not is seen to before. Browsers say it with
/// every form.
pub(super) fn require_origin(headers: &HeaderMap) -> Result<(), Trouble> {
    if headers.contains_key(header::ORIGIN) {
        return Ok(());
    }
    Err(Problem::new(Kind::Foreign, "a form is sent by a browser, which says from which page").into())
}
