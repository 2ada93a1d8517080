//! A server on loopback that counts who connects, and notes what is asked.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::canary;

/// A running server. It ends with this value.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    noted: Arc<Noted>,
    listening: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Noted {
    accepted: AtomicUsize,
    requests: Mutex<Vec<Seen>>,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Seen {
    /// What stands in `Authorization`.
    pub fn authorization(&self) -> Option<&str> {
        self.headers.get(header::AUTHORIZATION)?.to_str().ok()
    }
}

/// What a server answers.
pub type Reply = (u16, String);

/// An answer in full: its body is sent piece by piece, a chunk each.
pub type Pieces = Response<Vec<Bytes>>;

type Answering = Arc<dyn Fn(&Seen) -> Pieces + Send + Sync>;

impl Upstream {
    /// Starts it with what it answers, which is JSON.
    ///
    /// # Panics
    ///
    /// There is no port on loopback.
    pub async fn start(reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::answering(move |seen| {
            let (status, text) = reply(seen);
            let answer = Response::builder().status(status).header(header::CONTENT_TYPE, "application/json");
            answer.body(vec![Bytes::from(text)]).expect("an answer in order")
        })
        .await
    }

    /// Starts it with what it answers, headers and all.
    ///
    /// # Panics
    ///
    /// There is no port on loopback.
    pub async fn answering(reply: impl Fn(&Seen) -> Pieces + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port on loopback");
        let address = listener.local_addr().expect("a listener has an address");
        let noted = Arc::new(Noted::default());
        let reply: Answering = Arc::new(reply);
        let listening = tokio::spawn({
            let noted = Arc::clone(&noted);
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    noted.accepted.fetch_add(1, Ordering::SeqCst);
                    tokio::spawn(serve(stream, Arc::clone(&noted), Arc::clone(&reply)));
                }
            }
        });
        Self { address, noted, listening }
    }

    /// A server that says `{}` to everything.
    pub async fn plain() -> Self {
        Self::start(|_| (200, "{}".to_owned())).await
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Its origin: `http://127.0.0.1:PORT`.
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many connections there have been.
    pub fn accepted(&self) -> usize {
        self.noted.accepted.load(Ordering::SeqCst)
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Seen> {
        self.noted.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sees that nobody has connected, also not a moment ago: a connection of its own is the only one it finds.
    ///
    /// # Panics
    ///
    /// Somebody has connected.
    pub async fn assert_untouched(&self) {
        let own = crate::http::send(Method::GET, &self.origin().parse().expect("an address"), &[], "").await;
        assert!(own.status.as_u16() > 0);
        assert_eq!((self.accepted(), self.requests().len()), (1, 1), "somebody connected: {:?}", self.requests());
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// Notes the secrets that a form holds for a token endpoint.
fn plant_seen(seen: &Seen) {
    use canary::Kind;
    for (name, value) in url::form_urlencoded::parse(&seen.body) {
        let kind = match &*name {
            "code" => Kind::AuthorizationCode,
            "code_verifier" => Kind::CodeVerifier,
            "client_secret" => Kind::ClientSecret,
            "refresh_token" => Kind::RefreshToken,
            _ => continue,
        };
        canary::plant(kind, value.as_bytes());
    }
}

async fn serve(stream: TcpStream, noted: Arc<Noted>, reply: Answering) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (noted, reply) = (Arc::clone(&noted), Arc::clone(&reply));
        async move {
            let (head, body) = request.into_parts();
            let path = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
            let body = body.collect().await?.to_bytes();
            let seen = Seen { method: head.method, path, headers: head.headers, body };
            plant_seen(&seen);
            noted.requests.lock().unwrap_or_else(PoisonError::into_inner).push(seen.clone());
            // What it answers may take locks and files of its own; that it blocks this thread for a moment is meant.
            let answer = reply(&seen).map(|pieces| {
                let frames = pieces.into_iter().map(|piece| Ok::<_, hyper::Error>(Frame::data(piece)));
                StreamBody::new(futures_util::stream::iter(frames))
            });
            Ok::<_, hyper::Error>(answer)
        }
    });
    // Whoever breaks off is the client, who has its own word to say on it.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
