//! A guest's `wasi:http`, handed to the call's authority.

use std::sync::{Arc, LazyLock};

use http::HeaderName;
use http_body_util::BodyExt as _;
use tracing::{Instrument as _, Span};
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, WasiBody, WasiHttpHooks,
};

use super::authority::{Authority, SendError, Timeouts};
use super::tokens::HostCalls;

/// What a guest may not set, and does not see, beside wasmtime's own list: headers that steer the connection or tell an
/// intermediary or a server to take the request for another one than policy has judged.
const FORBIDDEN: [HeaderName; 13] = [
    http::header::EXPECT,
    http::header::FORWARDED,
    http::header::TE,
    http::header::TRAILER,
    http::header::VIA,
    HeaderName::from_static("alt-svc"),
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-method-override"),
    HeaderName::from_static("x-original-url"),
];

static FILTER: LazyLock<ForbiddenHeaderFilter> =
    LazyLock::new(|| Arc::new(|name| DEFAULT_FORBIDDEN_HEADERS.contains(name) || FORBIDDEN.contains(name)));

/// How much of a request's body is taken from the guest at once.
const BODY_CHUNK: usize = 64 << 10;

/// Sends what `wasi:http` gives it through the authority of the call.
pub(super) struct Hooks {
    pub(super) authority: Arc<dyn Authority>,
    pub(super) budget: HostCalls,
    /// The span of the call.
    pub(super) span: Span,
}

type Answer = (http::Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>);

impl WasiHttpHooks for Hooks {
    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        Arc::clone(&FILTER)
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK
    }

    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Answer, Error>> + Send> {
        let counted = self.budget.take();
        let authority = Arc::clone(&self.authority);
        let sending = async move {
            counted.map_err(|limit| Error::InternalError(Some(format!("the skill was stopped: {limit}"))))?;
            let options = options.unwrap_or_default();
            let timeouts = Timeouts {
                connect: options.connect_timeout,
                first_byte: options.first_byte_timeout,
                between_bytes: options.between_bytes_timeout,
            };
            let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
            let response = authority.send(request, timeouts).await?;
            let response = response.map(|body| body.map_err(body_error).boxed_unsync());
            let nothing_left_to_drive: Box<dyn Future<Output = _> + Send> = Box::new(async { Ok(()) });
            Ok((response, nothing_left_to_drive))
        };
        // It is driven by a task of its own, and the span of the moment may be one of the engine's.
        Box::new(sending.instrument(self.span.clone()))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the signature that map_err wants")]
fn body_error(error: Box<dyn std::error::Error + Send + Sync>) -> Error {
    match error.downcast_ref::<SendError>() {
        Some(known) => known.clone().into(),
        None => Error::InternalError(Some("the answer's body ended with an error".to_owned())),
    }
}

impl From<SendError> for Error {
    fn from(error: SendError) -> Self {
        match error {
            // The contract's own "denied" carries no words, and without the words nobody learns what to do.
            SendError::Denied(message)
            | SendError::ActionRequired(message)
            | SendError::Invalid(message)
            | SendError::Other(message) => Self::InternalError(Some(message)),
            SendError::NameNotFound => Self::DestinationNotFound,
            SendError::AddressProhibited => Self::DestinationIpProhibited,
            SendError::ConnectionRefused => Self::ConnectionRefused,
            SendError::ConnectionTerminated => Self::ConnectionTerminated,
            SendError::ConnectionTimeout => Self::ConnectionTimeout,
            SendError::Tls => Self::TlsProtocolError,
            SendError::Certificate => Self::TlsCertificateError,
            SendError::ResponseTimeout => Self::HttpResponseTimeout,
            SendError::RequestTooLarge => Self::HttpRequestBodySize(None),
            SendError::ResponseTooLarge => Self::HttpResponseBodySize(None),
            SendError::Protocol => Self::HttpProtocolError,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_list_of_forbidden_headers_is_extended_and_not_replaced() {
        for name in DEFAULT_FORBIDDEN_HEADERS.iter().chain(&FORBIDDEN) {
            assert!(FILTER(name), "{name}");
        }
        for name in ["authorization", "content-type", "accept", "x-github-api-version", "cookie"] {
            assert!(!FILTER(&HeaderName::from_static(name)), "{name}");
        }
    }

    #[test]
    fn a_denial_reaches_the_guest_with_its_words() {
        let error = Error::from(SendError::Denied("no grant (why_00)".to_owned()));
        assert!(matches!(error, Error::InternalError(Some(text)) if text == "no grant (why_00)"));
    }
}
