//! Where it listens, and how it stops.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use axum::Router;
use tokio::net::{TcpListener, UnixListener};

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
            Place::Unix(path) => UnixListener::bind(path).map(Self::Unix),
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
            Self::Unix(listener) => axum::serve(listener, app).with_graceful_shutdown(stop).await,
        }
    }
}
