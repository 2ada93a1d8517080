//! The dialer against real sockets on loopback, with a scripted resolver and a clock that stands still.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::clock::{Clock, ManualClock, SystemClock, Timestamp};
use crate::id::{Digest, Owner};

/// Answers look-ups one after the other from a list; the last answer stays.
#[derive(Default)]
struct Scripted {
    answers: Mutex<VecDeque<Vec<IpAddr>>>,
    asked: AtomicUsize,
}

impl Scripted {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let parse = |list: &&[&str]| list.iter().map(|text| text.parse().unwrap()).collect();
        Arc::new(Self { answers: Mutex::new(answers.iter().map(parse).collect()), asked: AtomicUsize::new(0) })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[async_trait::async_trait]
impl Resolve for Scripted {
    async fn resolve(&self, _host: &str) -> io::Result<Vec<IpAddr>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock().unwrap();
        let next = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        next.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

/// What the server does after each request.
#[derive(Clone, Copy)]
enum Then {
    /// Says this and reads the next request.
    Say(&'static str),
    /// Says this and closes.
    Close(&'static str),
    /// Says this and nothing more.
    Hang(&'static str),
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

struct Upstream {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: mpsc::UnboundedReceiver<String>,
    closed: mpsc::UnboundedReceiver<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Upstream {
    async fn new(then: impl Fn(usize) -> Then + Send + Sync + 'static) -> Self {
        Self::with(then, |stream| async { Some(stream) }).await
    }

    async fn with<S, F>(
        then: impl Fn(usize) -> Then + Send + Sync + 'static,
        wrap: impl Fn(tokio::net::TcpStream) -> F + Send + Sync + 'static,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = Option<S>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (tell, requests) = mpsc::unbounded_channel();
        let (tell_closed, closed) = mpsc::unbounded_channel();
        let (count, then, wrap) = (Arc::clone(&connections), Arc::new(then), Arc::new(wrap));
        let task = tokio::spawn(async move {
            let number = Arc::new(AtomicUsize::new(0));
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let (tell, tell_closed) = (tell.clone(), tell_closed.clone());
                let (then, number, wrapped) = (Arc::clone(&then), Arc::clone(&number), wrap(stream));
                tokio::spawn(async move {
                    if let Some(stream) = wrapped.await {
                        serve(stream, &*then, &number, &tell).await;
                    }
                    let _ = tell_closed.send(());
                });
            }
        });
        Self { address, connections, requests, closed, task }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    then: &(impl Fn(usize) -> Then + ?Sized),
    number: &AtomicUsize,
    tell: &mpsc::UnboundedSender<String>,
) {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    loop {
        while !text.contains("\r\n\r\n") {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(read) => text.push_str(&String::from_utf8_lossy(&buffer[..read])),
            }
        }
        drop(tell.send(std::mem::take(&mut text)));
        match then(number.fetch_add(1, Ordering::SeqCst)) {
            Then::Say(answer) => drop(stream.write_all(answer.as_bytes()).await),
            Then::Close(answer) => return drop(stream.write_all(answer.as_bytes()).await),
            Then::Hang(answer) => {
                drop(stream.write_all(answer.as_bytes()).await);
                drop(stream.read_to_end(&mut Vec::new()).await);
                return;
            }
        }
    }
}

fn net(clock: Arc<dyn Clock>, resolver: Arc<dyn Resolve>) -> Net {
    Net::new(NetSettings { clock, resolver, roots: Roots::public() }).unwrap()
}

fn system() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new())
}

fn loopback_admitted() -> AddressRules {
    AddressRules { private: vec!["127.0.0.0/8".parse().unwrap()], ..AddressRules::default() }
}

fn literal(address: SocketAddr) -> AddressRules {
    AddressRules { literal: [address].into(), ..AddressRules::default() }
}

fn get(uri: &str) -> Request<Bytes> {
    Request::get(uri).body(Bytes::new()).unwrap()
}

fn key(endpoint: &Endpoint) -> PoolKey {
    let owner = Owner::User("alice".parse().unwrap());
    PoolKey { owner, endpoint: endpoint.clone(), policy: Digest::of(b"policy") }
}

fn outgoing<'a>(uri: &str, rules: &'a AddressRules) -> Outgoing<'a, Full<Bytes>> {
    let request = Request::get(uri).body(Full::new(Bytes::new())).unwrap();
    let endpoint = Endpoint::of(request.uri()).unwrap();
    let pool = key(&endpoint);
    Outgoing { request, endpoint, rules, pool, limits: SendLimits::default() }
}

async fn body_of(answer: Response<Answer>) -> Result<Bytes, NetError> {
    Ok(answer.into_body().collect().await?.to_bytes())
}

async fn ask(net: &Net, uri: &str, rules: &AddressRules) -> Result<Bytes, NetError> {
    body_of(net.send(outgoing(uri, rules)).await?).await
}

#[tokio::test]
async fn a_name_is_looked_up_once_and_the_judged_address_is_dialled() {
    let mut upstream = Upstream::new(|_| Then::Close(OK)).await;
    // What rebinds: a good address for the judge, a metadata address for the dialer.
    let resolver = Scripted::new(&[&["127.0.0.1"], &["169.254.169.254"]]);
    let net = net(system(), resolver.clone());
    let uri = format!("http://api.example.test:{}/a?b", upstream.address.port());
    assert_eq!(ask(&net, &uri, &loopback_admitted()).await.unwrap(), "ok");
    assert_eq!(resolver.asked(), 1);
    let request = upstream.requests.recv().await.unwrap();
    assert!(request.starts_with("GET /a?b HTTP/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("host: api.example.test:{}\r\n", upstream.address.port())), "{request}");
    // The next connection looks up again, and is refused.
    let error = ask(&net, &uri, &loopback_admitted()).await.unwrap_err();
    assert_eq!(error.stage(), Stage::Check);
    assert!(!error.may_have_been_sent());
    assert_eq!((resolver.asked(), upstream.connections()), (2, 1));
}

#[tokio::test]
async fn one_bad_address_refuses_the_name_and_nothing_is_dialled() {
    let upstream = Upstream::new(|_| Then::Close(OK)).await;
    for bad in ["10.0.0.1", "169.254.169.254", "::ffff:10.0.0.1", "fe80::1", "64:ff9b::a00:1", "0.0.0.0"] {
        for addresses in [["127.0.0.1", bad], [bad, "127.0.0.1"]] {
            let net = net(system(), Scripted::new(&[&addresses]));
            let uri = format!("http://api.example.test:{}/", upstream.address.port());
            let error = net.fetch(get(&uri), &loopback_admitted(), &FetchLimits::default()).await.unwrap_err();
            assert!(matches!(error.fault(), Fault::Refused(_)), "{error}");
        }
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn a_literal_is_admitted_as_written_and_not_by_a_name_that_points_at_it() {
    let upstream = Upstream::new(|_| Then::Close(OK)).await;
    let rules = literal(upstream.address);
    let net = net(system(), Scripted::new(&[&["127.0.0.1"]]));
    let port = upstream.address.port();
    assert!(net.fetch(get(&format!("http://127.0.0.1:{port}/")), &rules, &FetchLimits::default()).await.is_ok());
    let error =
        net.fetch(get(&format!("http://a.example:{port}/")), &rules, &FetchLimits::default()).await.unwrap_err();
    assert!(matches!(error.fault(), Fault::Refused(_)), "{error}");
    // localhost is this machine by definition; no resolver is asked for it.
    let mut rules = AddressRules::default();
    rules.admit(&Endpoint::new(false, "localhost", port));
    assert!(net.fetch(get(&format!("http://localhost:{port}/")), &rules, &FetchLimits::default()).await.is_ok());
    rules.admit(&Endpoint::new(false, "a.example", port));
    assert_eq!(rules.literal.len(), 2);
}

#[tokio::test]
async fn plain_http_leaves_this_machine_for_no_operator() {
    let rules = AddressRules { private: vec!["10.0.0.0/8".parse().unwrap()], ..AddressRules::default() };
    for resolved in ["10.0.0.1", "1.1.1.1"] {
        let net = net(system(), Scripted::new(&[&[resolved]]));
        let error = net.fetch(get("http://intranet.example/"), &rules, &FetchLimits::default()).await.unwrap_err();
        assert_eq!(error.fault(), Fault::PlainHttp);
    }
}

#[tokio::test]
async fn an_address_that_refuses_is_followed_by_the_next() {
    let upstream = Upstream::new(|_| Then::Close(OK)).await;
    let net = net(system(), Scripted::new(&[&["127.0.0.3", "127.0.0.2", "127.0.0.1"]]));
    let uri = format!("http://api.example.test:{}/", upstream.address.port());
    assert_eq!(ask(&net, &uri, &loopback_admitted()).await.unwrap(), "ok");
}

#[tokio::test]
async fn a_name_without_an_address_and_a_closed_port_say_what_failed() {
    let nowhere = net(system(), Scripted::new(&[]));
    let error =
        ask(&nowhere, "https://api.example.test/secret?token=canary", &AddressRules::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "looking up the name of https://api.example.test failed: the name has no address");
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = ask(&nowhere, &format!("http://{port}/"), &literal(port)).await.unwrap_err();
    assert_eq!((error.stage(), error.fault()), (Stage::Connect, Fault::Connection));
}

#[tokio::test]
async fn connections_are_reused_only_for_the_same_owner_endpoint_and_policy() {
    let upstream = Upstream::new(|_| Then::Say(OK)).await;
    let rules = literal(upstream.address);
    let net = net(system(), Scripted::new(&[]));
    let uri = format!("http://{}/", upstream.address);
    for _ in 0..20 {
        assert_eq!(ask(&net, &uri, &rules).await.unwrap(), "ok");
    }
    assert_eq!(upstream.connections(), 1);
    let endpoint = Endpoint::of(&uri.parse().unwrap()).unwrap();
    let other_user = PoolKey { owner: Owner::User("bob".parse().unwrap()), ..key(&endpoint) };
    let agent = PoolKey { owner: Owner::Agent, ..key(&endpoint) };
    let other_policy = PoolKey { policy: Digest::of(b"other"), ..key(&endpoint) };
    for (number, pool) in [other_user, agent, other_policy].into_iter().enumerate() {
        let answer = net.send(Outgoing { pool, ..outgoing(&uri, &rules) }).await.unwrap();
        assert_eq!(body_of(answer).await.unwrap(), "ok");
        assert_eq!(upstream.connections(), 2 + number);
    }
    assert_eq!(net.pool_size(), 4);
}

#[tokio::test]
async fn a_connection_grows_neither_old_nor_idle() {
    let upstream = Upstream::new(|_| Then::Say(OK)).await;
    let rules = literal(upstream.address);
    let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
    let net = net(Arc::new(clock.clone()), Scripted::new(&[]));
    let uri = format!("http://{}/", upstream.address);
    // Used every 50 s it is never idle for long; after 5 minutes it is left all the same.
    for step in 0_u32..8 {
        assert_eq!(ask(&net, &uri, &rules).await.unwrap(), "ok");
        assert_eq!(upstream.connections(), if step < 6 { 1 } else { 2 }, "{step}");
        clock.advance(Duration::from_secs(50));
    }
    clock.advance(Duration::from_secs(11));
    assert_eq!(ask(&net, &uri, &rules).await.unwrap(), "ok");
    assert_eq!(upstream.connections(), 3);
}

#[tokio::test]
async fn a_pooled_connection_that_was_closed_is_replaced_unseen() {
    let mut upstream = Upstream::new(|_| Then::Close(OK)).await;
    let rules = literal(upstream.address);
    let net = net(system(), Scripted::new(&[]));
    let uri = format!("http://{}/", upstream.address);
    for number in 1..20 {
        assert_eq!(ask(&net, &uri, &rules).await.unwrap(), "ok");
        upstream.closed.recv().await.unwrap();
        assert_eq!(upstream.connections(), number);
    }
}

#[tokio::test]
async fn a_request_that_was_sent_is_not_sent_again() {
    // The second request on the connection is read and then dropped without an answer.
    let mut upstream = Upstream::new(|number| if number == 0 { Then::Say(OK) } else { Then::Close("") }).await;
    let rules = literal(upstream.address);
    let net = net(system(), Scripted::new(&[]));
    let uri = format!("http://{}/", upstream.address);
    assert_eq!(ask(&net, &uri, &rules).await.unwrap(), "ok");
    let error = ask(&net, &uri, &rules).await.unwrap_err();
    assert_eq!((error.stage(), error.may_have_been_sent()), (Stage::Request, true));
    upstream.requests.recv().await.unwrap();
    upstream.requests.recv().await.unwrap();
    assert!(upstream.requests.try_recv().is_err());
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn an_answer_that_is_not_read_to_its_end_closes_the_connection() {
    let mut upstream = Upstream::new(|_| Then::Hang("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")).await;
    let rules = literal(upstream.address);
    let net = net(system(), Scripted::new(&[]));
    let answer = net.send(outgoing(&format!("http://{}/", upstream.address), &rules)).await.unwrap();
    drop(answer);
    assert_eq!(net.pool_size(), 0);
    upstream.closed.recv().await.unwrap();
}

#[tokio::test]
async fn a_request_that_is_given_up_closes_its_connection() {
    let mut upstream = Upstream::new(|_| Then::Hang("")).await;
    let rules = literal(upstream.address);
    let net = net(system(), Scripted::new(&[]));
    let uri = format!("http://{}/", upstream.address);
    tokio::select! {
        _ = net.send(outgoing(&uri, &rules)) => unreachable!("the server says nothing"),
        request = upstream.requests.recv() => assert!(request.is_some()),
    }
    upstream.closed.recv().await.unwrap();
}

#[tokio::test]
async fn every_stage_ends_in_time() {
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf";
    for (then, limits, advance, stage, fault) in [
        (Then::Hang(""), SendLimits::default(), 30, Stage::Request, Fault::Timeout),
        (Then::Hang("HTTP/1.1 200"), SendLimits::default(), 30, Stage::Request, Fault::Timeout),
        (Then::Hang(half), SendLimits::default(), 30, Stage::Body, Fault::Timeout),
        (
            Then::Hang(""),
            SendLimits { total: Duration::from_secs(5), ..SendLimits::default() },
            5,
            Stage::Request,
            Fault::Deadline,
        ),
        (
            Then::Hang(half),
            SendLimits { total: Duration::from_secs(5), ..SendLimits::default() },
            5,
            Stage::Body,
            Fault::Deadline,
        ),
    ] {
        let mut upstream = Upstream::new(move |_| then).await;
        let rules = literal(upstream.address);
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        let net = net(Arc::new(clock.clone()), Scripted::new(&[]));
        let exchange = async {
            let answer =
                net.send(Outgoing { limits, ..outgoing(&format!("http://{}/", upstream.address), &rules) }).await?;
            let mut body = answer.into_body();
            while let Some(frame) = body.frame().await {
                frame?;
            }
            Ok::<_, NetError>(())
        };
        tokio::pin!(exchange);
        let error = loop {
            tokio::select! {
                biased;
                result = &mut exchange => break result.unwrap_err(),
                // One second at a time, so that a stage that begins in between is seen to end in time as well.
                () = tokio::task::yield_now() => {
                    if upstream.requests.try_recv().is_ok() || clock.monotonic() > Duration::ZERO {
                        clock.advance(Duration::from_secs(1));
                    }
                }
            }
        };
        assert_eq!((error.stage(), error.fault()), (stage, fault));
        assert!(clock.monotonic() >= Duration::from_secs(advance), "{:?}", clock.monotonic());
    }
}

#[tokio::test]
async fn headers_and_bodies_beyond_their_limits_are_cut_off() {
    let long: &'static str =
        Box::leak(format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(70 << 10)).into_boxed_str());
    let upstream = Upstream::new(move |_| Then::Close(long)).await;
    let net = net(system(), Scripted::new(&[]));
    let error = ask(&net, &format!("http://{}/", upstream.address), &literal(upstream.address)).await.unwrap_err();
    assert_eq!((error.stage(), error.fault()), (Stage::Request, Fault::HeadersTooLarge));

    let chunks = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    let upstream = Upstream::new(move |_| Then::Close(chunks)).await;
    let rules = literal(upstream.address);
    let uri = format!("http://{}/", upstream.address);
    for (limit, whole) in [(11, true), (10, false)] {
        let limits = SendLimits { body_bytes: limit, ..SendLimits::default() };
        let result = body_of(net.send(Outgoing { limits, ..outgoing(&uri, &rules) }).await.unwrap()).await;
        assert_eq!(result.as_ref().ok().map(|body| &body[..]), whole.then_some(&b"hello world"[..]));
        let limits = FetchLimits { body_bytes: limit, ..FetchLimits::default() };
        let result = net.fetch(get(&uri), &rules, &limits).await;
        assert_eq!(result.is_ok(), whole);
        if let Err(error) = result {
            assert_eq!(error.fault(), Fault::BodyTooLarge(10));
        }
    }
}

/// A certificate authority in a file, and a server configuration for this name under it.
fn authority(name: &str, folder: &std::path::Path) -> (std::path::PathBuf, Arc<rustls::ServerConfig>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = parameters.self_signed(&key).unwrap();
    let issuer = rcgen::Issuer::new(parameters, key);
    let leaf_key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&leaf_key, &issuer).unwrap();
    let file = folder.join("roots.pem");
    std::fs::write(&file, root.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            rustls::pki_types::PrivateKeyDer::try_from(leaf_key.serialize_der()).unwrap(),
        )
        .unwrap();
    (file, Arc::new(config))
}

#[tokio::test]
async fn tls_checks_the_name_and_trusts_the_operators_roots() {
    let folder = tempfile::tempdir().unwrap();
    let (roots, config) = authority("api.example.test", folder.path());
    let upstream = Upstream::with(
        |_| Then::Close(OK),
        move |stream| {
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(&config));
            async move { acceptor.accept(stream).await.ok() }
        },
    )
    .await;
    let resolver = Scripted::new(&[&["127.0.0.1"]]);
    let trusting =
        NetSettings { clock: system(), resolver: resolver.clone(), roots: Roots::with_file(&roots).unwrap() };
    let trusting = Net::new(trusting).unwrap();
    let port = upstream.address.port();
    let good = format!("https://api.example.test:{port}/");
    assert_eq!(ask(&trusting, &good, &loopback_admitted()).await.unwrap(), "ok");
    for (net, uri) in [
        (&trusting, format!("https://other.example.test:{port}/")),
        (&trusting, format!("https://127.0.0.1:{port}/")),
        (&net(system(), resolver), good),
    ] {
        let error = ask(net, &uri, &loopback_admitted()).await.unwrap_err();
        assert_eq!((error.stage(), error.fault()), (Stage::Tls, Fault::Certificate), "{uri}");
        assert!(!error.may_have_been_sent());
    }
}

#[tokio::test]
async fn a_body_is_streamed_and_a_connection_whose_request_is_not_over_is_not_kept() {
    let mut upstream = Upstream::new(|_| Then::Say(OK)).await;
    let rules = literal(upstream.address);
    let net = net(system(), Scripted::new(&[]));
    let uri = format!("http://{}/", upstream.address);
    let endless =
        http_body_util::StreamBody::new(futures_util::stream::pending::<Result<http_body::Frame<Bytes>, Infallible>>());
    let request = Request::post(&uri).body(endless).unwrap();
    let endpoint = Endpoint::of(request.uri()).unwrap();
    let pool = key(&endpoint);
    let limits = SendLimits::default();
    let answer = net.send(Outgoing { request, endpoint, rules: &rules, pool, limits }).await.unwrap();
    assert_eq!(body_of(answer).await.unwrap(), "ok");
    assert_eq!(net.pool_size(), 0);
    upstream.closed.recv().await.unwrap();
}
