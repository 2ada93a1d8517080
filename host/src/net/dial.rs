//! Opening a connection: look up once, judge every address, dial only those, then TLS.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::addresses::{AddressClass, AddressRules, class};
use super::deadline::Deadline;
use super::endpoint::Endpoint;
use super::error::{Fault, NetError, Stage};
use super::resolve::Resolve;

/// How long one address is waited for before the next is tried beside it (RFC 8305 section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// No sane name has more addresses; a hostile zone must not make the host dial hundreds.
const MOST_ADDRESSES: usize = 16;

/// The certificate authorities that servers are checked against: Mozilla's, and those of the operator.
#[derive(Clone)]
pub struct Roots(Arc<RootCertStore>);

/// A file of extra certificate authorities that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("extra roots file {}: {problem}", file.display())]
pub struct InvalidRoots {
    file: PathBuf,
    problem: &'static str,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Roots {
    /// Mozilla's certificate authorities.
    pub fn public() -> Self {
        Self(Arc::new(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect()))
    }

    /// Mozilla's certificate authorities and those of a PEM file.
    pub fn with_file(file: &Path) -> Result<Self, InvalidRoots> {
        let invalid = |problem, source| InvalidRoots { file: file.to_owned(), problem, source };
        let pem = std::fs::read(file).map_err(|error| invalid("can't be read", Some(error.into())))?;
        let mut store: RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
        let mut found = false;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate =
                certificate.map_err(|error| invalid("is not a PEM file of certificates", Some(error.into())))?;
            store
                .add(certificate)
                .map_err(|error| invalid("has a certificate that can't be used", Some(error.into())))?;
            found = true;
        }
        if found { Ok(Self(Arc::new(store))) } else { Err(invalid("has no certificate in it", None)) }
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({})", self.0.len())
    }
}

/// A byte stream to an endpoint.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

pub(super) struct Dialer {
    resolver: Arc<dyn Resolve>,
    tls: TlsConnector,
}

impl Dialer {
    pub(super) fn new(resolver: Arc<dyn Resolve>, roots: Roots) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots.0)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { resolver, tls: TlsConnector::from(Arc::new(config)) })
    }

    /// Opens a connection; `connect` and `tls` are the longest times of these stages.
    pub(super) async fn dial(
        &self,
        endpoint: &Endpoint,
        rules: &AddressRules,
        deadline: &Deadline,
        connect: Duration,
        tls: Duration,
    ) -> Result<Box<dyn Io>, NetError> {
        let addresses = self.addresses(endpoint, rules, deadline, connect).await?;
        let timed_out = |stage, fault| NetError::new(stage, endpoint, fault);
        let stream = deadline
            .within(connect, race(addresses, deadline))
            .await
            .map_err(|fault| timed_out(Stage::Connect, fault))?
            .map_err(|error| NetError::new(Stage::Connect, endpoint, Fault::Connection).caused(error))?;
        if !endpoint.tls() {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(endpoint.host().to_owned())
            .map_err(|error| NetError::new(Stage::Tls, endpoint, Fault::TlsName).caused(error))?;
        let stream = deadline
            .within(tls, self.tls.connect(name, stream))
            .await
            .map_err(|fault| timed_out(Stage::Tls, fault))?
            .map_err(|error| NetError::new(Stage::Tls, endpoint, tls_fault(&error)).caused(error))?;
        Ok(Box::new(stream))
    }

    /// The judged addresses of an endpoint. One bad address refuses all: a name that mixes them is an attack or a mistake.
    async fn addresses(
        &self,
        endpoint: &Endpoint,
        rules: &AddressRules,
        deadline: &Deadline,
        limit: Duration,
    ) -> Result<Vec<SocketAddr>, NetError> {
        let literal = endpoint.literal();
        let is_literal = literal.is_some();
        let found = if let Some(addresses) = literal {
            addresses
        } else {
            deadline
                .within(limit, self.resolver.resolve(endpoint.host()))
                .await
                .map_err(|fault| NetError::new(Stage::Resolve, endpoint, fault))?
                .map_err(|error| NetError::new(Stage::Resolve, endpoint, Fault::NoAddress).caused(error))?
        };
        if found.is_empty() {
            return Err(NetError::new(Stage::Resolve, endpoint, Fault::NoAddress));
        }
        let found: Vec<_> = found.into_iter().map(|ip| SocketAddr::new(ip.to_canonical(), endpoint.port())).collect();
        for address in &found {
            rules
                .judge(*address, is_literal)
                .map_err(|refused| NetError::new(Stage::Check, endpoint, Fault::Refused(refused)))?;
            if !endpoint.tls() && class(address.ip()) != Some(AddressClass::Loopback) {
                return Err(NetError::new(Stage::Check, endpoint, Fault::PlainHttp));
            }
        }
        Ok(interleaved(found))
    }
}

fn tls_fault(error: &io::Error) -> Fault {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => Fault::Certificate,
        _ => Fault::Connection,
    }
}

/// The two families in turn, beginning with that of the first address (RFC 8305 section 4).
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut order = Vec::new();
    while order.len() < MOST_ADDRESSES {
        let pair = [first.next(), second.next()];
        if pair == [None, None] {
            break;
        }
        order.extend(pair.into_iter().flatten());
    }
    order
}

/// Dials the addresses one after another, each [`ATTEMPT_DELAY`] after the one before or at once when that one has failed, and
/// takes the first connection (RFC 8305 section 5).
async fn race(addresses: Vec<SocketAddr>, deadline: &Deadline) -> io::Result<TcpStream> {
    let mut waiting = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut last_error = io::Error::from(io::ErrorKind::AddrNotAvailable);
    if let Some(address) = waiting.next() {
        attempts.push(TcpStream::connect(address));
    }
    while !attempts.is_empty() {
        tokio::select! {
            biased;
            Some(result) = attempts.next() => match result {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Err(error) => {
                    last_error = error;
                    attempts.extend(waiting.next().map(TcpStream::connect));
                }
            },
            () = deadline.clock().sleep(ATTEMPT_DELAY), if waiting.len() > 0 => {
                attempts.extend(waiting.next().map(TcpStream::connect));
            }
        }
    }
    Err(last_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_dialled_in_turn_and_not_too_many() {
        let addresses = ["[2606::1]:1", "[2606::2]:1", "1.1.1.1:1"].map(|text| text.parse().unwrap()).to_vec();
        let order: Vec<_> = interleaved(addresses).iter().map(ToString::to_string).collect();
        assert_eq!(order, ["[2606::1]:1", "1.1.1.1:1", "[2606::2]:1"]);
        let many = (0..=255).map(|last| SocketAddr::from(([1, 1, 1, last], 1))).collect();
        assert_eq!(interleaved(many).len(), MOST_ADDRESSES);
    }

    #[test]
    fn a_roots_file_that_holds_no_certificate_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("roots.pem");
        std::fs::write(&file, "nothing").unwrap();
        let error = Roots::with_file(&file).unwrap_err().to_string();
        assert!(error.contains("roots.pem") && error.contains("no certificate"), "{error}");
        assert!(Roots::with_file(&folder.path().join("absent.pem")).is_err());
    }
}
