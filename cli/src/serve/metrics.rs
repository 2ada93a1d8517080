//! Figures for Prometheus at `/metrics`.
//!
//! No label names a user, a credential or an account, and the sets of labels are bounded: routes, statuses, installed skills and
//! their tools, providers of the catalogue, and words of our own.
//!
//! Who may read them: whoever has a credential with the scope `admin`; and, where the host serves this machine alone, any program
//! on it that shows no credential. One that is shown is judged there as well. Behind a proxy everybody seems to be on this machine, so
//! there a public address makes the credential needed.

use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{FromRequestParts as _, MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use clawcoil::clock::Clock;
use clawcoil::host::Host;
use clawcoil::id::{ProviderId, SkillName};
use clawcoil::observe::{Called, Observer};
use clawcoil::recall::{Equivalent, Recall};
use clawcoil::vault;
use hyper::body::{Frame, SizeHint};
use metrics::{Counter, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use super::access::Line;
use super::{App, Bearer, Peer, Problem, Shared};
use crate::callers::Scope;
use crate::exit::{Failure, chain};

/// Seconds.
const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];
/// A token is about to expire when it has no longer than this.
const SOON: Duration = Duration::from_mins(5);
/// How long the count of connections holds: it reads the whole table.
const HOLDS: Duration = Duration::from_secs(5);
/// How often samples are put into their buckets where nobody asks.
const UPKEEP: Duration = Duration::from_secs(5);

/// The figures of this process.
pub(crate) struct Metrics {
    handle: PrometheusHandle,
    counted_at: Mutex<Option<Duration>>,
}

impl Metrics {
    /// Begins to count, once in a process.
    pub(crate) fn start() -> Result<Self, Failure> {
        let refused = |error: &dyn std::error::Error| Failure::error(format!("metrics can't be counted: {error}"));
        let recorder = builder().map_err(|error| refused(&error))?.build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|error| refused(&error))?;
        describe();
        Ok(Self { handle, counted_at: Mutex::default() })
    }

    /// Keeps what is counted small, until it is dropped.
    pub(crate) async fn upkeep(&self, clock: &dyn Clock) {
        loop {
            clock.sleep(UPKEEP).await;
            self.handle.run_upkeep();
        }
    }

    async fn render(&self, app: &App) -> String {
        counter!("clawcoil_audit_failures_total").absolute(app.host.audit().failures());
        #[expect(clippy::cast_precision_loss, reason = "there are never so many")]
        gauge!("clawcoil_under_way").set(app.under_way.count() as f64);
        let now = app.host.clock().monotonic();
        let fresh = {
            let mut at = self.counted_at.lock().unwrap_or_else(PoisonError::into_inner);
            let fresh = at.is_some_and(|at| now.saturating_sub(at) < HOLDS);
            if !fresh {
                *at = Some(now);
            }
            fresh
        };
        if !fresh {
            let host = Arc::clone(&app.host);
            let counted = tokio::task::spawn_blocking(move || count_connections(&host)).await;
            if let Ok(Err(error)) = counted {
                tracing::error!(error = chain(&error), "connections could not be counted");
            }
        }
        self.handle.render()
    }
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("duration_seconds".to_owned()), &BUCKETS)
}

fn describe() {
    describe_counter!("clawcoil_http_requests_total", "Requests, by method, route and status.");
    describe_histogram!("clawcoil_http_request_duration_seconds", "From a request to the head of its answer.");
    describe_counter!("clawcoil_invocations_total", "Calls of skills, by how they ended.");
    describe_histogram!("clawcoil_invocation_duration_seconds", "How long calls of skills took.");
    describe_counter!("clawcoil_denials_total", "What policy refused to skills, by code.");
    describe_counter!("clawcoil_limits_hit_total", "Limits that somebody ran into.");
    describe_counter!("clawcoil_refreshes_total", "Replacements of tokens, by provider and result.");
    describe_counter!("clawcoil_audit_failures_total", "Entries that the audit log could not take.");
    describe_gauge!("clawcoil_connections", "Connected accounts, by state.");
    describe_gauge!(
        "clawcoil_tokens_about_to_expire",
        "Access tokens that are good for less than 5 minutes and were not replaced."
    );
    describe_gauge!("clawcoil_streams_open", "Streams of events that clients listen to.");
    describe_gauge!("clawcoil_http_connections", "Connections of clients.");
    describe_gauge!("clawcoil_under_way", "Requests and calls that are being worked on.");
}

/// Counts connections by state, and tokens that nobody has replaced in time.
fn count_connections(host: &Host) -> Result<(), vault::VaultError> {
    let soon = host.clock().now().saturating_add(SOON).unwrap_or(clawcoil::clock::Timestamp::MAX);
    let (mut active, mut unconfirmed, mut reconnect, mut expiring) = (0_u32, 0_u32, 0_u32, 0_u32);
    for connection in host.vault().connections(None)? {
        match connection.state {
            vault::State::Active => {
                active += 1;
                if connection.expires_at.is_some_and(|at| at <= soon) {
                    expiring += 1;
                }
            }
            vault::State::Unconfirmed => unconfirmed += 1,
            vault::State::NeedsReconnect { .. } => reconnect += 1,
        }
    }
    for (state, count) in [("active", active), ("unconfirmed", unconfirmed), ("needs-reconnect", reconnect)] {
        gauge!("clawcoil_connections", "state" => state).set(f64::from(count));
    }
    gauge!("clawcoil_tokens_about_to_expire").set(f64::from(expiring));
    Ok(())
}

/// Counts what the library tells of.
#[derive(Default)]
pub(crate) struct Counting {
    /// By skill, tool and end.
    calls: Counters<(Box<str>, Box<str>, &'static str)>,
}

/// A count and its times by their labels: to look for them among all that is counted costs more than to count.
pub(super) struct Counters<K = Labels>(Recall<K, (Counter, Histogram)>);

/// So many are kept at hand.
const MOST: usize = 4096;

impl<K: Eq + Hash> Default for Counters<K> {
    fn default() -> Self {
        Self(Recall::new(MOST))
    }
}

impl<K: Eq + Hash> Counters<K> {
    fn count<Q: Equivalent<K> + Hash>(
        &self,
        key: &Q,
        took: Duration,
        make: impl FnOnce() -> (K, (Counter, Histogram)),
    ) {
        let count = |(counter, times): &(Counter, Histogram)| {
            counter.increment(1);
            times.record(took.as_secs_f64());
        };
        if self.0.read(key, count).is_none() {
            let (labels, handles) = make();
            count(&handles);
            self.0.put(labels, handles);
        }
    }
}

/// What a request is counted by.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct Labels {
    method: &'static str,
    route: Box<str>,
    status: u16,
}

/// The same, borrowed.
#[derive(Hash)]
struct LabelsOf<'a> {
    method: &'static str,
    route: &'a str,
    status: u16,
}

impl Equivalent<Labels> for LabelsOf<'_> {
    fn equivalent(&self, key: &Labels) -> bool {
        (self.method, self.route, self.status) == (key.method, &*key.route, key.status)
    }
}

#[derive(Hash)]
struct CallOf<'a>(&'a str, &'a str, &'static str);

impl Equivalent<(Box<str>, Box<str>, &'static str)> for CallOf<'_> {
    fn equivalent(&self, (skill, tool, end): &(Box<str>, Box<str>, &'static str)) -> bool {
        (self.0, self.1, self.2) == (&**skill, &**tool, *end)
    }
}

impl Observer for Counting {
    fn called(&self, call: &Called<'_>) {
        let (skill, tool) = (call.skill.map_or("", SkillName::as_str), call.tool.unwrap_or_default());
        self.calls.count(&CallOf(skill, tool, call.end), call.took, || {
            let labels = [("skill", skill.to_owned()), ("tool", tool.to_owned()), ("end", call.end.to_owned())];
            let counter = counter!("clawcoil_invocations_total", &labels);
            (
                (skill.into(), tool.into(), call.end),
                (counter, histogram!("clawcoil_invocation_duration_seconds", &labels)),
            )
        });
        if let Some(limit) = call.limit.or((call.end == "busy").then_some("calls")) {
            counter!("clawcoil_limits_hit_total", "limit" => limit).increment(1);
        }
    }

    fn denied(&self, code: &'static str) {
        counter!("clawcoil_denials_total", "code" => code).increment(1);
    }

    fn refreshed(&self, provider: &ProviderId, result: &'static str) {
        counter!("clawcoil_refreshes_total", "provider" => provider.as_str().to_owned(), "result" => result)
            .increment(1);
    }
}

/// A request that is counted when it has its answer, and told of in the access log.
pub(super) struct Measured {
    method: &'static str,
    route: Option<MatchedPath>,
    line: Option<Line>,
    begun: Duration,
}

impl Measured {
    pub(super) fn begin(app: &App, request: &mut Request) -> Self {
        Self {
            method: known(request.method()),
            route: request.extensions().get::<MatchedPath>().cloned(),
            line: app.access.line(request),
            begun: app.host.clock().monotonic(),
        }
    }

    /// Counts it, and the stream that its answer may be.
    pub(super) fn end(self, app: &App, response: Response) -> Response {
        let Self { method, route, line, begun } = self;
        let route = route.as_ref().map_or("none", MatchedPath::as_str);
        let took = app.host.clock().monotonic().saturating_sub(begun);
        if let Some(line) = line {
            line.end(method, route, response.status(), took);
        }
        let status = response.status();
        app.counters.count(&LabelsOf { method, route, status: status.as_u16() }, took, || {
            let labels =
                [("method", method.to_owned()), ("route", route.to_owned()), ("status", status.as_str().to_owned())];
            let counter = counter!("clawcoil_http_requests_total", &labels);
            let times = histogram!("clawcoil_http_request_duration_seconds", &labels);
            (Labels { method, route: route.into(), status: status.as_u16() }, (counter, times))
        });
        let is_stream = response
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        if is_stream { response.map(|body| Body::new(Stream::open(body, route.to_owned()))) } else { response }
    }
}

/// A method that a client made up is no label.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// A stream of events, counted as long as it is open.
struct Stream {
    body: Body,
    route: String,
}

impl Stream {
    fn open(body: Body, route: String) -> Self {
        gauge!("clawcoil_streams_open", "route" => route.clone()).increment(1.0);
        Self { body, route }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        gauge!("clawcoil_streams_open", "route" => self.route.clone()).decrement(1.0);
    }
}

impl HttpBody for Stream {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        std::pin::Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// It is not behind the check of `Host`: who collects figures calls by address.
pub(super) const ROUTE: &str = "/metrics";

/// The route.
pub(super) fn router() -> Router<Shared> {
    Router::new().route(ROUTE, get(show))
}

async fn show(State(app): State<Shared>, request: Request) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    let here = parts.extensions.get::<Peer>().is_some_and(|peer| peer.is_local())
        && app.origins.is_loopback()
        && app.origins.are_of(&parts.headers);
    if !here || parts.headers.contains_key(header::AUTHORIZATION) {
        let bearer = Bearer::from_request_parts(&mut parts, &app).await?;
        bearer.authenticated().require(Scope::Admin)?;
    }
    let Some(metrics) = &app.metrics else {
        return Err(Problem::new(super::Kind::NotFound, "this process counts nothing"));
    };
    let text = metrics.render(&app).await;
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_skill_tool_and_end_and_nothing_else_is_a_label() {
        let recorder = builder().unwrap().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            let skill: SkillName = "gmail-send".parse().unwrap();
            let took = Duration::from_millis(20);
            let counting = Counting::default();
            let called = Called { skill: Some(&skill), tool: Some("send"), end: "limit", limit: Some("time"), took };
            counting.called(&called);
            counting.called(&Called { skill: None, tool: None, end: "not-found", limit: None, took });
            counting.denied("forbidden");
            counting.refreshed(&"google".parse().unwrap(), "refreshed");
        });
        let text = handle.render();
        for line in [
            "clawcoil_invocations_total{skill=\"gmail-send\",tool=\"send\",end=\"limit\"} 1",
            "clawcoil_invocations_total{skill=\"\",tool=\"\",end=\"not-found\"} 1",
            "clawcoil_invocation_duration_seconds_bucket{skill=\"gmail-send\",tool=\"send\",end=\"limit\",le=\"0.025\"} 1",
            "clawcoil_limits_hit_total{limit=\"time\"} 1",
            "clawcoil_denials_total{code=\"forbidden\"} 1",
            "clawcoil_refreshes_total{provider=\"google\",result=\"refreshed\"} 1",
        ] {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
    }

    #[test]
    fn what_is_counted_again_is_found_by_its_labels_and_other_labels_are_counted_apart() {
        let recorder = builder().unwrap().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            let (counting, skill) = (Counting::default(), "echo".parse().unwrap());
            let called =
                |end| Called { skill: Some(&skill), tool: Some("echo"), end, limit: None, took: Duration::ZERO };
            counting.called(&called("ok"));
            let made = || unreachable!("it is known");
            counting.calls.count(&CallOf("echo", "echo", "ok"), Duration::ZERO, made);
            counting.called(&called("trap"));
        });
        let text = handle.render();
        for (end, count) in [("ok", 2), ("trap", 1)] {
            let line = format!("clawcoil_invocations_total{{skill=\"echo\",tool=\"echo\",end=\"{end}\"}} {count}");
            assert!(text.contains(&line), "{line} is missing in:\n{text}");
        }
    }

    #[test]
    fn a_method_that_a_client_made_up_is_no_label() {
        assert_eq!(known(&Method::from_bytes(b"BREW").unwrap()), "other");
        assert_eq!(known(&Method::DELETE), "DELETE");
    }
}
