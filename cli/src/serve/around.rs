//! What stands around each request, in one layer: each more would cost as much as all that is done here.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use tower::{Layer, Service};
use tracing::Instrument as _;

use super::metrics::Measured;
use super::{RequestId, RequestOrigin, Shared, guard, request_id, stop, traces};

/// Gives requests a name, counts and measures them, and lets those through that may be answered.
#[derive(Clone)]
pub(super) struct Around(pub(super) Shared);

impl<S> Layer<S> for Around {
    type Service = Surrounded<S>;

    fn layer(&self, inner: S) -> Surrounded<S> {
        Surrounded { app: Arc::clone(&self.0), inner }
    }
}

#[derive(Clone)]
pub(super) struct Surrounded<S> {
    app: Shared,
    inner: S,
}

impl<S> Service<Request> for Surrounded<S>
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send + 'static>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let app = Arc::clone(&self.app);
        let id = RequestId::of(&request, app.host.clock().as_ref());
        let span = traces::of_request(&request, &id);
        request.extensions_mut().insert(RequestOrigin { id: id.clone(), span: span.clone() });
        let measured = Measured::begin(&app, &mut request);
        let admitted = guard::check(&app.origins, &request).and_then(|()| stop::admit(&app, &request));
        let answering = admitted.map(|working| (working, self.inner.call(request)));
        let answered = span.clone();
        let answer = async move {
            let header = id.to_header();
            let answering = id.scope(async {
                let mut response = match answering {
                    Ok((_working, answering)) => match stop::unless_interrupted(&app, answering).await {
                        Some(Ok(response)) => response,
                        Some(Err(never)) => match never {},
                        None => super::App::ending().into_response(),
                    },
                    Err(problem) => problem.into_response(),
                };
                stop::part(&app, &mut response);
                measured.end(&app, response)
            });
            let mut response = answering.await;
            if let Some(header) = header {
                response.headers_mut().insert(request_id::HEADER, header);
            }
            traces::answered(&answered, response.status());
            Ok(response)
        };
        Box::pin(answer.instrument(span))
    }
}
