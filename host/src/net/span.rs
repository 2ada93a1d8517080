//! Outgoing requests as traces see them.

use http::{Method, Request, Response};
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use super::error::{Fault, NetError, Stage};

/// The span of an outgoing request, by the names of OpenTelemetry's conventions for HTTP clients: its method and the server it is
/// meant for, and nothing of its path, query, headers or body. Where nobody listens it is none.
pub(crate) fn request_span<B>(request: &Request<B>) -> Span {
    tracing::info_span!(
        "http.request",
        otel.name = known(request.method()),
        otel.kind = "client",
        otel.status_code = Empty,
        http.request.method = known(request.method()),
        server.address = request.uri().host(),
        server.port = port(request),
        http.response.status_code = Empty,
        error.type = Empty,
    )
}

/// Does this within the span, which is told how the request ended.
pub(crate) fn traced<B>(
    span: Span,
    sent: impl Future<Output = Result<Response<B>, NetError>> + Send,
) -> impl Future<Output = Result<Response<B>, NetError>> + Send {
    // Boxed, so that the futures around this one don't grow by it.
    let sent = Box::pin(sent.instrument(span.clone()));
    async move {
        let answer = sent.await;
        tell(&span, &answer);
        answer
    }
}

fn tell<B>(span: &Span, answer: &Result<Response<B>, NetError>) {
    match answer {
        Ok(answer) => {
            let status = answer.status();
            span.record("http.response.status_code", status.as_u16());
            if status.is_client_error() || status.is_server_error() {
                span.record("error.type", status.as_str());
                span.record("otel.status_code", "ERROR");
            }
        }
        Err(error) => {
            span.record("error.type", word(error));
            span.record("otel.status_code", "ERROR");
        }
    }
}

/// A method that somebody made up could say anything.
fn known(method: &Method) -> &str {
    const KNOWN: [Method; 9] = [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::HEAD,
        Method::OPTIONS,
        Method::CONNECT,
        Method::PATCH,
        Method::TRACE,
    ];
    if KNOWN.contains(method) { method.as_str() } else { "_OTHER" }
}

fn port<B>(request: &Request<B>) -> u16 {
    let uri = request.uri();
    uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 })
}

/// Why there is no answer, in one word.
fn word(error: &NetError) -> &'static str {
    match (error.fault(), error.stage()) {
        (Fault::Timeout | Fault::Deadline, _) => "timeout",
        (_, Stage::Resolve) => "resolve",
        (_, Stage::Check) => "address-refused",
        (_, Stage::Connect) => "connect",
        (_, Stage::Tls) => "tls",
        (_, Stage::Request) => "request",
        (_, Stage::Body) => "body",
    }
}
