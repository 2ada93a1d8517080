//! Where it listens, and how much it takes at once.
//!
//! The number of connections is bounded. Where there is no place for another, the one that has been without a request for the
//! longest time goes: who connects and then says nothing, or says it one letter at a time, keeps nobody else out.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody as _};
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::patience::{Patient, Sent};
use super::seats::{Held, Seat, Seats};
use super::stop::UnderWay;

/// How long the head of a request may take, and how long a connection may be without one.
const HEAD: Duration = Duration::from_secs(30);
/// How long answers have to be sent once the server has ended.
const FLUSH: Duration = Duration::from_secs(5);
/// The pause after the system could not give another connection.
const RECOVER: Duration = Duration::from_millis(100);
/// Files that the process needs besides its connections: the database, the audit log, connections to providers.
const OTHER_FILES: u64 = 2048;

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A program somewhere.
    Tcp(SocketAddr),
    /// A process of this user, at the Unix socket.
    Unix(u32),
}

impl Peer {
    /// Whether it is on this machine.
    pub(super) fn is_local(self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some("") => Err("name the socket's file: unix:/run/clawcoil.sock".to_owned()),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text
                .parse()
                .map(Self::Tcp)
                .map_err(|_| "an address and a port, as 127.0.0.1:8418, or unix: and the socket's file".to_owned()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A socket that is listened at.
pub(crate) enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listening {
    pub(crate) async fn at(place: &Place) -> io::Result<Self> {
        match place {
            Place::Tcp(address) => TcpListener::bind(address).await.map(Self::Tcp),
            Place::Unix(path) => {
                match UnixListener::bind(path) {
                    // What a server left that was killed is in the way; one that lives is not disturbed.
                    Err(error)
                        if error.kind() == io::ErrorKind::AddrInUse && UnixStream::connect(path).await.is_err() =>
                    {
                        std::fs::remove_file(path)?;
                        UnixListener::bind(path)
                    }
                    bound => bound,
                }
                .map(Self::Unix)
            }
        }
    }

    /// Where it is in fact: port 0 takes any that is free.
    pub(crate) fn place(&self, asked: &Place) -> io::Result<Place> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Place::Tcp),
            Self::Unix(_) => Ok(asked.clone()),
        }
    }

    /// Serves at most so many connections at once until `closing` is cancelled; then answers that are on their way are sent.
    pub(crate) async fn serve(self, app: Router, connections: usize, closing: &CancellationToken) {
        let serving = Serving { app, seats: Seats::new(room_for(connections)), open: UnderWay::new() };
        match self {
            Self::Tcp(listener) => {
                let next = async || {
                    let (stream, address) = listener.accept().await?;
                    // An answer waits for nothing; where this can't be set, it does.
                    let _ = stream.set_nodelay(true);
                    Ok((stream, Peer::Tcp(address)))
                };
                serving.accept(next, closing).await;
            }
            Self::Unix(listener) => {
                let path = listener.local_addr().ok().and_then(|address| address.as_pathname().map(PathBuf::from));
                let next = async || {
                    let (stream, _) = listener.accept().await?;
                    // A process whose owner the system doesn't tell is nobody's.
                    let uid = stream.peer_cred().map_or(u32::MAX, |peer| peer.uid());
                    Ok((stream, Peer::Unix(uid)))
                };
                serving.accept(next, closing).await;
                if let Some(path) = path {
                    // Whoever starts next removes what is left of it.
                    let _ = std::fs::remove_file(path);
                }
            }
        }
    }
}

struct Serving {
    app: Router,
    seats: Arc<Seats>,
    open: UnderWay,
}

impl Serving {
    async fn accept<S>(&self, next: impl AsyncFn() -> io::Result<(S, Peer)>, closing: &CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let accepting = async {
            loop {
                match next().await {
                    Ok((stream, peer)) => {
                        let seat = self.seats.take().await;
                        let (open, serving) = (self.open.begin(), connection(stream, peer, self.app.clone(), seat));
                        tokio::spawn(async move {
                            serving.await;
                            drop(open);
                        });
                    }
                    // Of a client that has gone already.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(error) => {
                        tracing::error!(%error, "a connection can't be taken");
                        tokio::time::sleep(RECOVER).await;
                    }
                }
            }
        };
        tokio::select! {
            () = closing.cancelled() => {}
            () = accepting => {}
        }
        self.seats.close();
        if tokio::time::timeout(FLUSH, self.open.idle()).await.is_err() {
            tracing::warn!(connections = self.open.count(), "clients did not read their answers in time");
        }
    }
}

/// Serves one connection to its end.
async fn connection<S>(stream: S, peer: Peer, app: Router, seat: Seat)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let seat = Arc::new(seat);
    let open = metrics::gauge!("clawcoil_http_connections");
    open.increment(1.0);
    let app = TowerToHyperService::new(app);
    let service = service_fn(|mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer);
        let busy = seat.begin(request.body().is_end_stream());
        let request = busy.map(|busy| (busy, app.call(request.map(|body| Sent::body(body, Arc::clone(&seat))))));
        async move {
            // The seat was given to another while the request came.
            let (busy, answer) = request.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionAborted))?;
            let answer = answer.await.unwrap_or_else(|never| match never {});
            Ok::<_, io::Error>(answer.map(|body| Body::new(Held::new(body, busy))))
        }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD);
    let mut serving = pin!(http.serve_connection(TokioIo::new(Patient::new(stream, Arc::clone(&seat))), service));
    let ended = tokio::select! {
        biased;
        ended = serving.as_mut() => ended,
        () = seat.lost_or_closing() => {
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                biased;
                () = seat.lost() => Ok(()),
                ended = serving => ended,
            }
        }
    };
    open.decrement(1.0);
    if let Err(error) = ended {
        // Clients come and go as they like.
        tracing::debug!(%error, "a connection ended");
    }
}

/// As many connections as were asked for, or as many as the system lets this process have.
fn room_for(connections: usize) -> usize {
    let files = |connections: usize| u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(OTHER_FILES);
    let limit = getrlimit(Resource::Nofile);
    let wanted = files(connections).min(limit.maximum.unwrap_or(u64::MAX));
    let mut current = limit.current.unwrap_or(u64::MAX);
    if current < wanted && setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }).is_ok()
    {
        current = wanted;
    }
    if files(connections) <= current {
        return connections;
    }
    let room = usize::try_from(current.saturating_sub(OTHER_FILES)).unwrap_or(connections).max(64);
    tracing::warn!(wanted = connections, room, "fewer connections than wanted fit: the limit of open files is too low");
    room
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn any_text_is_a_place_or_refused_and_what_is_shown_of_one_names_it(text in "(unix:)?[ -~]{0,40}") {
            if let Ok(place) = text.parse::<Place>() {
                let shown = place.to_string();
                proptest::prop_assert_eq!(shown.trim_start_matches("http://").parse::<Place>().unwrap(), place);
            }
        }
    }

    #[test]
    fn who_calls_by_a_loopback_address_is_on_this_machine() {
        for (address, local) in
            [("127.0.0.9:1", true), ("[::1]:1", true), ("[::ffff:127.0.0.1]:1", true), ("10.0.0.1:1", false)]
        {
            assert_eq!(Peer::Tcp(address.parse().unwrap()).is_local(), local, "{address}");
        }
        assert!(Peer::Unix(7).is_local());
    }
}
