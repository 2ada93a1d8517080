//! The only dialer.
//!
//! Everything that leaves the host goes through here: the requests of guests (streaming, pooled: [`Net::send`]) and those to
//! authorization servers (small, whole: [`Net::fetch`]). A name is looked up once, all its addresses are judged, and only
//! judged addresses are dialled, while TLS and `Host` keep the name. No redirect is followed, no proxy and no environment
//! variable is consulted, and every stage has a deadline and a limit.

mod addresses;
mod client;
mod deadline;
mod dial;
mod endpoint;
mod error;
mod pool;
mod resolve;
mod span;

pub use addresses::{AddressClass, AddressRules, RefusedAddress, class};
pub use client::{Answer, FetchLimits, Net, NetSettings, Outgoing, SendLimits};
pub use dial::{InvalidRoots, Roots};
pub use endpoint::{Endpoint, InvalidEndpoint};
pub use error::{Fault, NetError, Stage};
pub use pool::PoolKey;
pub use resolve::{Resolve, SystemResolver};
pub(crate) use span::{request_span, traced};

#[cfg(test)]
mod tests;
