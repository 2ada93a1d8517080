//! A guest's outgoing requests: where policy, broker, dialler and audit log meet.
//!
//! One [`Call`] serves one call of a skill. Each request goes through the same line: its address is parsed, policy finds its
//! route, what it carries is looked through, a permit is asked for, the broker releases the token (the audit entry first), the
//! token is attached or swapped in, `net` sends, and the answer is cleaned and looked through on its way back.
//!
//! Nothing is resolved or dialled for a request that is refused; each refusal is a [`Denial`](crate::policy::Denial) with an
//! explanation id, in the audit log and in [`Call::refusals`]. After the first hundred of a call, the log has only how many more
//! there were, and of what kinds.
//!
//! What is not guaranteed: a server that transforms the token in a way of its own can hand it to the guest, and a token that was
//! revealed can leave in a result. Where requests may go is the real control.

mod answer;
pub mod attach;
mod body;
mod call;
mod credentials;
mod error;
mod escape;
mod further;
pub mod headers;
mod leads;
pub mod placeholder;
pub mod redact;
mod scan;
mod send;
pub mod slots;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use moka::sync::Cache;
use papaya::Equivalent;
use tokio::sync::Semaphore;

use crate::audit::AuditLog;
use crate::clock::{Clock, random};
use crate::id::{Caller, Digest, Names, UserId};
use crate::net::Net;
use crate::policy::{Effective, Policy, Rates, Skill};
use crate::provider::Catalogue;
use crate::recall::Recall;

pub use call::{Call, Calling, HandleInfo, Refusals, Revealed, Touched};
pub use credentials::Credentials;
pub use error::EgressError;
pub use send::Timeouts;

/// Whatever ended a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of a request or an answer, as it streams.
pub type Body = http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, BoxError>;

/// What all calls share.
pub struct Egress {
    credentials: Box<dyn Credentials>,
    net: Arc<Net>,
    catalogue: Arc<Catalogue>,
    policy: Arc<ArcSwap<Policy>>,
    audit: Arc<AuditLog>,
    clock: Arc<dyn Clock>,
    rates: Rates,
    decided: Recall<Asked, Arc<Decided>>,
    users: Cache<UserId, Arc<Semaphore>>,
    /// Of placeholders.
    names: Names,
}

/// About which skill, and for whom, it was decided.
#[derive(Hash, PartialEq, Eq)]
struct Asked(Digest, Caller);

/// The same, as it is looked up. Its parts are hashed alike.
#[derive(Hash)]
struct Asking<'a>(Digest, &'a Caller);

impl Equivalent<Asked> for Asking<'_> {
    fn equivalent(&self, asked: &Asked) -> bool {
        self.0 == asked.0 && *self.1 == asked.1
    }
}

/// What a skill may do for a caller, by one policy, as of one moment.
struct Decided {
    policy: Arc<Policy>,
    at: Duration,
    effective: Effective,
}

/// Requests of one call that may be under way at the same time, from the first byte of the guest's body to the last of the
/// answer's. More wait.
const REQUESTS_PER_CALL: usize = 16;
/// The same for all calls of one user.
const REQUESTS_PER_USER: usize = 64;
/// How long the count of a user's requests is kept without a request.
const USER_IDLE: Duration = Duration::from_mins(10);

/// How long a decision is good for the next call: a grant that expires is looked at again with each permit in any case.
const DECIDED_FOR: Duration = Duration::from_secs(1);
/// So many decisions are kept.
const MOST_DECIDED: usize = 4096;

impl Egress {
    /// Egress over these parts. A policy that is stored later holds from the next request on, in running calls too.
    pub fn new(
        credentials: impl Credentials,
        net: Arc<Net>,
        catalogue: Arc<Catalogue>,
        policy: Arc<ArcSwap<Policy>>,
        audit: Arc<AuditLog>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let users = Cache::builder().time_to_idle(USER_IDLE).build();
        let names = Names::new(random(clock.as_ref()));
        Self {
            credentials: Box::new(credentials),
            net,
            catalogue,
            policy,
            audit,
            clock,
            rates: Rates::new(),
            decided: Recall::new(MOST_DECIDED),
            users,
            names,
        }
    }
}

impl Egress {
    /// The places for requests of this user.
    fn places(&self, user: &UserId) -> Arc<Semaphore> {
        self.users.get_with_by_ref(user, || Arc::new(Semaphore::new(REQUESTS_PER_USER)))
    }

    fn effective(&self, policy: &Arc<Policy>, calling: &Calling) -> Effective {
        let now = self.clock.monotonic();
        let asking = Asking(calling.digest, &calling.caller);
        let good = |known: &Arc<Decided>| {
            let is_good = Arc::ptr_eq(&known.policy, policy) && now.saturating_sub(known.at) < DECIDED_FOR;
            is_good.then(|| known.effective.clone())
        };
        if let Some(effective) = self.decided.read(&asking, good).flatten() {
            return effective;
        }
        let skill = Skill { manifest: &calling.manifest, digest: calling.digest };
        let effective = policy.effective(&skill, &calling.caller, self.clock.now());
        let decided = Decided { policy: Arc::clone(policy), at: now, effective: effective.clone() };
        self.decided.put(Asked(calling.digest, calling.caller.clone()), Arc::new(decided));
        effective
    }
}

impl std::fmt::Debug for Egress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Egress").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
