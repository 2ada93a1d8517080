//! Traces by OpenTelemetry, sent to a collector by OTLP over HTTP through the host's own dialer.
//!
//! ```text
//! POST /v1/invocations            what came over HTTP, within the caller's own trace where it names one
//! └ tools/call send               the call of the skill
//!   └ POST                        a request of the skill's
//! POST /mcp
//! └ mcp tools/call                a request of MCP, within the trace that its `_meta` names
//!   └ tools/call send
//! refresh                         by itself, linked to the call that began it
//! └ POST                          the request to the provider
//! ```
//!
//! A span has names and no contents: no arguments, no results, no user, no address with a query.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, Response, Uri};
use clawcoil::clock::SystemClock;
use clawcoil::net::{AddressRules, Endpoint, FetchLimits, Net, NetSettings};
use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
use opentelemetry_http::{HeaderExtractor, HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Handle;
use tracing::field::Empty;
use tracing::{Level, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;
use url::Url;

use super::RequestId;
use super::config::key_address;
use crate::exit::Failure;

/// For one batch of spans.
const LIMITS: FetchLimits = FetchLimits { total: Duration::from_secs(10), body_bytes: 64 << 10 };

/// Where an operator's own collector may be.
const PRIVATE: [&str; 5] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"];

/// Spans on their way to a collector.
pub(crate) struct Traces(SdkTracerProvider);

impl Traces {
    /// To the collector that the environment names, or else the settings; `None`: neither does.
    pub(crate) fn chosen(environment: Option<&str>, configured: Option<&Url>) -> Result<Option<Self>, Failure> {
        let named = environment.map(|text| {
            key_address(text)
                .map_err(|why| Failure::usage(format!("OTEL_EXPORTER_OTLP_ENDPOINT names no collector: {why}")))
        });
        named.transpose()?.as_ref().or(configured).map(Self::to).transpose()
    }

    /// To the collector at this address, to which `/v1/traces` is added.
    fn to(endpoint: &Url) -> Result<Self, Failure> {
        let refused = |error: &dyn std::fmt::Display| {
            Failure::error(format!("traces can't be sent to {endpoint}: {error}; write http(s)://host[:port]"))
        };
        let uri: Uri = endpoint.as_str().parse().map_err(|error| refused(&error))?;
        let collector = Endpoint::of(&uri).map_err(|error| refused(&error))?;
        // Nothing but this address is ever asked for; in whose network it is, is the operator's choice.
        let private = PRIVATE.iter().filter_map(|range| range.parse().ok()).collect();
        let mut rules = AddressRules { private, ..AddressRules::default() };
        rules.admit(&collector);
        let net = Net::new(NetSettings::new(Arc::new(SystemClock::new()))).map_err(|error| refused(&error))?;
        let client = Dialing(Arc::new(Dialer { net, rules, runtime: Handle::current() }));
        let address = format!("{}/v1/traces", endpoint.as_str().trim_end_matches('/'));
        let exporter = SpanExporter::builder().with_http().with_http_client(client).with_endpoint(address).build();
        let exporter = exporter.map_err(|error| refused(&error))?;
        let resource = Resource::builder().with_service_name("clawcoil").build();
        Ok(Self(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build()))
    }

    /// Takes our own spans, and nothing of what is logged within them.
    pub(crate) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> {
        let ours = |target: &str| target == "clawcoil" || target.starts_with("clawcoil::");
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("clawcoil"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(move |of| of.is_span() && *of.level() <= Level::INFO && ours(of.target())))
    }

    /// Sends what is left.
    pub(crate) async fn end(self) {
        let ended = tokio::task::spawn_blocking(move || self.0.shutdown()).await;
        if let Ok(Err(error)) = ended {
            tracing::warn!(%error, "the last traces could not be sent");
        }
    }
}

/// Sends the exporter's requests. The exporter calls from a thread of its own, which drives no sockets.
#[derive(Clone)]
struct Dialing(Arc<Dialer>);

struct Dialer {
    net: Net,
    rules: AddressRules,
    runtime: Handle,
}

impl std::fmt::Debug for Dialing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialing").finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl HttpClient for Dialing {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let dialer = Arc::clone(&self.0);
        let sending = async move { dialer.net.fetch(request, &dialer.rules, &LIMITS).await };
        Ok(self.0.runtime.spawn(sending).await??)
    }
}

/// The span of a request over HTTP, within the trace that it names.
pub(super) fn of_request(request: &Request, id: &RequestId) -> Span {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let span = tracing::info_span!(
        "request",
        otel.name = %format_args!("{} {route}", request.method()),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = %request.method(),
        http.route = route,
        http.response.status_code = Empty,
        error.type = Empty,
        request_id = id.as_str(),
    );
    follow(&span, &HeaderExtractor(request.headers()));
    span
}

/// The span of a request of MCP, within the trace that its `_meta` names (`traceparent`, `tracestate`), or else that of HTTP.
pub(crate) fn of_mcp(parent: Option<&Span>, version: Option<&str>, meta: [Option<&str>; 2]) -> Span {
    let span = tracing::info_span!(
        parent: parent.and_then(Span::id),
        "mcp",
        otel.name = "mcp tools/call",
        otel.kind = "server",
        mcp.method.name = "tools/call",
        mcp.protocol.version = version.unwrap_or_default(),
    );
    let mut headers = HeaderMap::new();
    for (name, value) in ["traceparent", "tracestate"].into_iter().zip(meta) {
        if let Some(value) = value.and_then(|value| value.parse().ok()) {
            headers.insert(name, value);
        }
    }
    follow(&span, &HeaderExtractor(&headers));
    span
}

fn follow(span: &Span, named: &HeaderExtractor<'_>) {
    if span.is_disabled() {
        return;
    }
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), named);
    if context.span().span_context().is_valid() {
        // Where nobody traces but spans are logged, there is nothing to follow.
        let _ = span.set_parent(context);
    }
}

/// What became of a request.
pub(super) fn answered(span: &Span, status: axum::http::StatusCode) {
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("error.type", status.as_str());
        span.record("otel.status_code", "ERROR");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn any_trace_that_a_stranger_names_is_followed_or_ignored_without_a_panic(parent in "[ -~]{0,80}", state in "[ -~]{0,80}") {
            let _ = of_mcp(None, Some("2026-07-28"), [Some(&parent), Some(&state)]);
        }
    }
}
