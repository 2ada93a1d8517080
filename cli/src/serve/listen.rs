//! Where it listens, and how it stops.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::net::{TcpListener, UnixListener, UnixStream};

/// Whose process is at the other end of a Unix socket.
#[derive(Debug, Clone, Copy)]
pub(super) struct PeerUid(pub(super) u32);

impl Connected<IncomingStream<'_, UnixListener>> for PeerUid {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        // A process whose owner the system doesn't tell is nobody's.
        Self(stream.io().peer_cred().map_or(u32::MAX, |peer| peer.uid()))
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

    /// Serves until `stop` is ready, then lets the requests under way finish.
    pub(crate) async fn serve(self, app: Router, stop: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => axum::serve(listener, app).with_graceful_shutdown(stop).await,
            Self::Unix(listener) => {
                let path = listener.local_addr().ok().and_then(|address| address.as_pathname().map(PathBuf::from));
                let app = app.into_make_service_with_connect_info::<PeerUid>();
                let served = axum::serve(listener, app).with_graceful_shutdown(stop).await;
                if let Some(path) = path {
                    // Whoever starts next removes what is left of it.
                    let _ = std::fs::remove_file(path);
                }
                served
            }
        }
    }
}
