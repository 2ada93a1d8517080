//! From a name to addresses.

use std::io;
use std::net::IpAddr;

/// What turns a host name into addresses.
///
/// Its answer is only a proposal: each address is judged by the [rules](super::AddressRules) before it is dialled, and the name
/// is not looked up a second time between the two.
#[async_trait::async_trait]
pub trait Resolve: Send + Sync + 'static {
    /// All addresses of the name, the preferred ones first.
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The system's resolver (`getaddrinfo`).
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

#[async_trait::async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
    }
}
