//! Requests over the dialer: whole ones for authorization servers, streaming ones for guests.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use zeroize::Zeroizing;

use super::addresses::AddressRules;
use super::deadline::{Deadline, Idle};
use super::dial::{Dialer, Roots};
use super::endpoint::Endpoint;
use super::error::{Fault, NetError, Stage};
use super::pool::{BoxError, Connection, Pool, PoolKey};
use super::resolve::{Resolve, SystemResolver};
use crate::clock::Clock;

/// What a [`Net`] is built from.
pub struct NetSettings {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Names.
    pub resolver: Arc<dyn Resolve>,
    /// Trusted certificate authorities.
    pub roots: Roots,
}

impl NetSettings {
    /// The system's resolver and Mozilla's certificate authorities.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, resolver: Arc::new(SystemResolver), roots: Roots::public() }
    }
}

/// The limits of one streaming exchange.
#[derive(Debug, Clone, Copy)]
pub struct SendLimits {
    /// To look up the name, and again to open the connection.
    pub connect: Duration,
    /// For the TLS handshake.
    pub tls: Duration,
    /// From the request to the first byte of the answer.
    pub first_byte: Duration,
    /// Between two pieces of the answer.
    pub idle: Duration,
    /// For the whole exchange, body included.
    pub total: Duration,
    /// Bytes of the answer's status line and headers; at least 8192.
    pub header_bytes: usize,
    /// Bytes of the answer's body.
    pub body_bytes: u64,
}

impl Default for SendLimits {
    /// 10 s to connect, 10 s for TLS, 30 s to the first byte, 30 s between pieces, 60 s in all; 64 KiB of headers, 16 MiB of body.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            tls: Duration::from_secs(10),
            first_byte: Duration::from_secs(30),
            idle: Duration::from_secs(30),
            total: Duration::from_mins(1),
            header_bytes: 64 << 10,
            body_bytes: 16 << 20,
        }
    }
}

/// The limits of one whole exchange.
#[derive(Debug, Clone, Copy)]
pub struct FetchLimits {
    /// For the whole exchange.
    pub total: Duration,
    /// Bytes of the answer's body.
    pub body_bytes: u64,
}

impl Default for FetchLimits {
    /// 20 s and 256 KiB: a token answer is small, and a lease on a connection lasts longer than this.
    fn default() -> Self {
        Self { total: Duration::from_secs(20), body_bytes: 256 << 10 }
    }
}

/// A streaming request and where it goes.
pub struct Outgoing<'a, B> {
    /// The request. Its URI's path and query are sent; its authority becomes the `Host` header, whatever the endpoint is.
    pub request: Request<B>,
    /// Where it is dialled: the URI's own endpoint, or the operator's stand-in for it.
    pub endpoint: Endpoint,
    /// Which addresses are admitted.
    pub rules: &'a AddressRules,
    /// Whose connections may be used.
    pub pool: PoolKey,
    /// The limits.
    pub limits: SendLimits,
}

/// The client.
pub struct Net {
    clock: Arc<dyn Clock>,
    dialer: Dialer,
    pool: Arc<Pool>,
}

impl Net {
    /// A client without connections. Fails where the TLS library refuses its own defaults.
    pub fn new(settings: NetSettings) -> Result<Self, rustls::Error> {
        let dialer = Dialer::new(settings.resolver, settings.roots)?;
        let pool = Arc::new(Pool::new(Arc::clone(&settings.clock)));
        Ok(Self { clock: settings.clock, dialer, pool })
    }

    /// Sends one small request on a connection of its own and reads the whole answer.
    ///
    /// A redirect is an answer like any other. The request's URI is absolute.
    pub async fn fetch(
        &self,
        request: Request<Bytes>,
        rules: &AddressRules,
        limits: &FetchLimits,
    ) -> Result<Response<Bytes>, NetError> {
        let endpoint = endpoint_of(request.uri())?;
        let deadline = Deadline::after(Arc::clone(&self.clock), limits.total);
        let request = request.map(|body| Full::new(body).map_err(|never| match never {}).boxed_unsync());
        let mut request = prepared(request, &endpoint)?;
        request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        let limit = SendLimits { header_bytes: 32 << 10, ..SendLimits::default() };
        let mut connection = self.open(&endpoint, rules, &deadline, &limit).await?;
        let answer = deadline
            .within(limits.total, connection.sender.send_request(request))
            .await
            .map_err(|fault| NetError::new(Stage::Request, &endpoint, fault))?
            .map_err(|error| NetError::of_hyper(Stage::Request, &endpoint, error))?;
        let (parts, body) = answer.into_parts();
        let body = deadline
            .within(limits.total, collect(body, limits.body_bytes))
            .await
            .map_err(|fault| NetError::new(Stage::Body, &endpoint, fault))?
            .map_err(|failure| match failure {
                None => NetError::new(Stage::Body, &endpoint, Fault::BodyTooLarge(limits.body_bytes)),
                Some(error) => NetError::of_hyper(Stage::Body, &endpoint, error),
            })?;
        Ok(Response::from_parts(parts, body))
    }

    /// Sends a streaming request, on a pooled connection where there is one, and returns when the answer's headers are there.
    ///
    /// A pooled connection that turns out to be closed before a byte of the request was written is replaced by a fresh one. In
    /// every other case the request is sent at most once.
    pub async fn send<B>(&self, outgoing: Outgoing<'_, B>) -> Result<Response<Answer>, NetError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let Outgoing { request, endpoint, rules, pool, limits } = outgoing;
        let deadline = Deadline::after(Arc::clone(&self.clock), limits.total);
        let alive = Arc::new(());
        let request_body = Arc::downgrade(&alive);
        let request = request.map(|body| {
            body.map_err(Into::into)
                .map_frame(move |frame| {
                    // Held by the body, so that its end is seen from outside.
                    let _ = &alive;
                    frame
                })
                .boxed_unsync()
        });
        let mut request = prepared(request, &endpoint)?;
        let answered = loop {
            let (mut connection, pooled) = match self.pool.take(&pool) {
                Some(connection) => (connection, true),
                None => (self.open(&endpoint, rules, &deadline, &limits).await?, false),
            };
            let exchange = async {
                // A pooled connection is ready as soon as its task has seen the end of the answer before.
                if connection.sender.ready().await.is_err() {
                    return Err((None, Some(request)));
                }
                connection.sender.try_send_request(request).await.map_err(|mut error| {
                    let unsent = error.take_message();
                    (Some(error.into_error()), unsent)
                })
            };
            let result = deadline.within(limits.first_byte, exchange).await;
            match result.map_err(|fault| NetError::new(Stage::Request, &endpoint, fault))? {
                Ok(answer) => break (answer, connection),
                Err((_, Some(unsent))) if pooled => request = unsent,
                Err((Some(error), _)) => return Err(NetError::of_hyper(Stage::Request, &endpoint, error)),
                Err((None, _)) => return Err(NetError::new(Stage::Request, &endpoint, Fault::Connection)),
            }
        };
        let (answer, connection) = answered;
        let keep = Keep { pool: Arc::downgrade(&self.pool), key: pool, connection, request_body };
        Ok(answer.map(|incoming| {
            let mut answer = Answer {
                incoming,
                endpoint,
                idle: Idle::new(deadline, limits.idle),
                left: limits.body_bytes,
                limit: limits.body_bytes,
                keep: Some(keep),
            };
            if answer.incoming.is_end_stream() {
                answer.finish();
            }
            answer
        }))
    }

    #[cfg(test)]
    pub(super) fn pool_size(&self) -> usize {
        self.pool.resting()
    }

    async fn open(
        &self,
        endpoint: &Endpoint,
        rules: &AddressRules,
        deadline: &Deadline,
        limits: &SendLimits,
    ) -> Result<Connection, NetError> {
        let stream = self.dialer.dial(endpoint, rules, deadline, limits.connect, limits.tls).await?;
        let header_bytes = limits.header_bytes.max(8 << 10);
        let (sender, task) = http1::Builder::new()
            .max_buf_size(header_bytes)
            .max_header_size(header_bytes)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| NetError::of_hyper(Stage::Connect, endpoint, error))?;
        let task = tokio::spawn(async move {
            // The error also reaches whoever waits for the answer.
            drop(task.await);
        });
        Ok(Connection::new(sender, self.clock.monotonic(), task.abort_handle()))
    }
}

fn endpoint_of(uri: &Uri) -> Result<Endpoint, NetError> {
    Endpoint::of(uri).map_err(|error| {
        let nowhere = Endpoint::new(true, "", 443);
        NetError::new(Stage::Resolve, &nowhere, Fault::NoAddress).caused(error)
    })
}

/// The request in origin form (RFC 9112 section 3.2.1), with the `Host` that its URI names.
fn prepared<B>(mut request: Request<B>, endpoint: &Endpoint) -> Result<Request<B>, NetError> {
    let spoken = Endpoint::of(request.uri()).unwrap_or_else(|_| endpoint.clone());
    let invalid = |error: http::Error| NetError::new(Stage::Check, endpoint, Fault::Protocol).caused(error);
    let host = HeaderValue::try_from(spoken.authority()).map_err(|error| invalid(error.into()))?;
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    *request.uri_mut() = Uri::try_from(path).map_err(|error| invalid(error.into()))?;
    *request.version_mut() = http::Version::HTTP_11;
    request.headers_mut().insert(header::HOST, host);
    Ok(request)
}

/// The whole body, or `None` as the error when it is larger than the limit.
async fn collect(mut body: Incoming, limit: u64) -> Result<Bytes, Option<hyper::Error>> {
    if body.size_hint().lower() > limit {
        return Err(None);
    }
    let mut whole = Zeroizing::new(Vec::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(Some)?.into_data() else { continue };
        if (whole.len() as u64).saturating_add(data.len() as u64) > limit {
            return Err(None);
        }
        if whole.capacity() - whole.len() < data.len() {
            // A vector that grows by itself frees the old buffer as it is, and these bytes may be tokens.
            let mut larger = Zeroizing::new(Vec::with_capacity((whole.len() + data.len()) * 2));
            larger.extend_from_slice(&whole);
            whole = larger;
        }
        whole.extend_from_slice(&data);
    }
    Ok(Bytes::from(std::mem::take(&mut *whole)))
}

struct Keep {
    pool: Weak<Pool>,
    key: PoolKey,
    connection: Connection,
    request_body: Weak<()>,
}

/// The body of a streaming answer: bounded in size and time.
///
/// When it was read to its end the connection goes back to the pool; when it is dropped before, the connection is closed.
pub struct Answer {
    incoming: Incoming,
    endpoint: Endpoint,
    idle: Idle,
    left: u64,
    limit: u64,
    keep: Option<Keep>,
}

impl Answer {
    fn finish(&mut self) {
        if let Some(Keep { pool, key, connection, request_body }) = self.keep.take()
            && let Some(pool) = pool.upgrade()
        {
            pool.put(key, connection, &request_body);
        }
    }

    fn fail(&mut self, fault: Fault) -> Poll<Option<Result<Frame<Bytes>, NetError>>> {
        self.keep = None;
        Poll::Ready(Some(Err(NetError::new(Stage::Body, &self.endpoint, fault))))
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = NetError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, NetError>>> {
        let this = &mut *self;
        match Pin::new(&mut this.incoming).poll_frame(cx) {
            Poll::Pending => match this.idle.poll_wait(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(fault) => this.fail(fault),
            },
            Poll::Ready(None) => {
                this.finish();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                this.keep = None;
                Poll::Ready(Some(Err(NetError::of_hyper(Stage::Body, &this.endpoint, error))))
            }
            Poll::Ready(Some(Ok(frame))) => {
                let size = frame.data_ref().map_or(0, |data| data.len() as u64);
                if size > this.left {
                    return this.fail(Fault::BodyTooLarge(this.limit));
                }
                this.left -= size;
                if let Err(fault) = this.idle.progress() {
                    return this.fail(fault);
                }
                if this.incoming.is_end_stream() {
                    this.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
