//! The whole line: a caller, a skill, an answer.
//!
//! ```no_run
//! use clawcoil::host::{Home, Host};
//! use clawcoil::id::Caller;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let host = Host::builder(Home::at("/var/lib/clawcoil")).open().await?;
//! let caller = Caller::new("mail-agent".parse()?, "alice".parse()?);
//! let input = serde_json::json!({ "to": ["bob@example.com"], "subject": "Hi", "body": "Hello" });
//! let outcome = host.invoke(&caller, &"gmail-send".parse()?, Some("send"), &input).await?;
//! println!("{:?}", outcome.end);
//! # Ok(())
//! # }
//! ```

mod authority;
mod build;
mod history;
mod home;
mod invoke;
mod learn;
mod watched;
mod receipt;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::audit::{AuditLog, Decision, Event, EventKind};
use crate::broker::{Broker, Schedule};
use crate::clock::Clock;
use crate::connect::Connector;
use crate::diagnostic::Diagnostics;
use crate::egress::Egress;
use crate::id::{Caller, Digest, Names, SkillName};
use crate::net::{self, AddressRules, Endpoint, FetchLimits, Net, NetError};
use crate::observe::Observer;
use crate::policy::{Comparison, Effective, Manifest, Permissions, Policy, Reach, Side, Skill};
use crate::provider::Catalogue;
use crate::recall::Recall;
use crate::registry::{Registry, Stamp};
use crate::runtime::{Component, Runtime};
use crate::vault::Vault;

pub use build::{HostBuilder, InitError, Initialized, OpenError, init, recover};
pub use home::Home;
pub use invoke::{InvokeError, Outcome};
pub use learn::Learned;
pub use receipt::Receipt;

/// An agent's host, open: its vault, its policy, its skills.
///
/// It is shared by reference or in an [`Arc`]; calls of many users run at the same time. Nothing refreshes in the background
/// until [`start_schedule`](Self::start_schedule).
pub struct Host {
    home: Home,
    runtime: Runtime,
    vault: Arc<Vault>,
    catalogue: Arc<Catalogue>,
    policy: Arc<ArcSwap<Policy>>,
    broker: Broker,
    connector: Connector,
    egress: Arc<Egress>,
    net: Arc<Net>,
    audit: Arc<AuditLog>,
    registry: Registry,
    clock: Arc<dyn Clock>,
    observer: Arc<dyn Observer>,
    ready: Recall<SkillName, Arc<KnownSkill>>,
    /// The names of calls.
    names: Names,
}

struct KnownSkill {
    stamp: Stamp,
    /// When its files were looked at last, in milliseconds of the clock.
    looked_at: AtomicU64,
    ready: Arc<Ready>,
}

impl KnownSkill {
    fn was_looked_at(&self, now: Duration) -> bool {
        let looked_at = Duration::from_millis(self.looked_at.load(Ordering::Relaxed));
        now.saturating_sub(looked_at) < LOOK_AGAIN
    }
}

/// So many skills are kept compiled.
const MOST_READY: usize = 1024;

/// How long the files of a skill are taken for unchanged.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A skill that can be called: read, checked and compiled.
#[derive(Debug)]
pub struct Ready {
    /// What it declares.
    pub manifest: Arc<Manifest>,
    /// What grants pin.
    pub digest: Digest,
    /// Its code.
    pub component: Arc<Component>,
}

impl Host {
    /// Says where the agent's files are; nothing is opened yet.
    pub fn builder(home: Home) -> HostBuilder {
        HostBuilder::new(home)
    }

    /// Where the agent's files are.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// The vault.
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    /// The providers.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Makes and removes connections.
    pub fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Gives out tokens.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// The audit log of this process.
    pub fn audit(&self) -> &AuditLog {
        &self.audit
    }

    /// The installed skills.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The engine: what it could be made of on this machine, and compiling without installing.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Its source of time and random bytes.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The policy in force.
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// Reads what stands at an address that the operator wrote, or that follows from one: through the same dialer as all else,
    /// with the same rules about addresses.
    ///
    /// An address within the operator's own network is admitted only if it has the origin of `written`, which the operator wrote
    /// as such. No redirect is followed.
    pub async fn fetch(
        &self,
        request: http::Request<bytes::Bytes>,
        written: Option<&Endpoint>,
    ) -> Result<http::Response<bytes::Bytes>, NetError> {
        let mut rules = AddressRules { private: self.policy().network().private.clone(), ..AddressRules::default() };
        if let Some(written) = written {
            rules.admit(written);
        }
        net::traced(net::request_span(&request), self.net.fetch(request, &rules, &FetchLimits::default())).await
    }

    /// Starts refreshing tokens before they expire, until the value is dropped.
    pub fn start_schedule(&self) -> Schedule {
        self.broker.start_schedule()
    }

    /// Reads the permissions again and puts them in force, all or nothing: where they have errors, the policy before stays.
    ///
    /// Calls under way are judged by the new policy from their next request on. An audit log that can't be written is an error
    /// too, but the new policy is in force: a grant that was taken back must not outlive it, and as long as no entry can be
    /// written, no policy lets a token out. The log tells what the new policy allows beyond the one before and short of it, and of
    /// errors, with the place of the first.
    pub fn reload_policy(&self) -> Result<Digest, ReloadError> {
        let read = self.home.permission_sources().and_then(|sources| Ok((Permissions::parse(&sources)?, sources)));
        let (permissions, sources) = match read {
            Ok(read) => read,
            Err(errors) => {
                self.note_refused_policy(&errors);
                return Err(errors.into());
            }
        };
        let policy = Policy::new(permissions, self.catalogue.facts());
        let hash = policy.hash();
        let policy = Arc::new(policy);
        // What was taken back is gone before it is told.
        let before = self.policy.swap(Arc::clone(&policy));
        self.home.keep_policy(hash, &sources, self.clock.now());
        self.audit.append(&Event {
            decision: Decision::Allowed,
            policy_hash: Some(hash),
            detail: Some(self.told_difference(&before, &policy)),
            ..Event::new(EventKind::PolicyLoaded)
        })?;
        Ok(hash)
    }

    /// What one policy allows the installed skills beyond another and short of it, in one line. A skill that can't be read is passed
    /// over: it can't be called either.
    fn told_difference(&self, old: &Policy, new: &Policy) -> String {
        let names = self.registry.names().unwrap_or_default();
        let installed: Vec<_> = names.iter().filter_map(|name| self.registry.get(name).ok()).collect();
        let skills: Vec<_> =
            installed.iter().map(|skill| Skill { manifest: &skill.manifest, digest: skill.digest }).collect();
        let sides = [old, new].map(|policy| Side { policy, skills: &skills });
        let [old, new] = sides;
        let found = Comparison::between(old, new, self.clock.now());
        let told = |heading: &str, reaches: &[Reach]| {
            // Users are in the log by their tags alone.
            let lines: BTreeSet<String> = reaches.iter().map(Reach::without_users).collect();
            (!lines.is_empty()).then(|| format!("{heading}: {}", lines.into_iter().collect::<Vec<_>>().join("; ")))
        };
        let parts: Vec<_> =
            [told("allows more", &found.more), told("allows less", &found.less)].into_iter().flatten().collect();
        if parts.is_empty() { "allows the same".to_owned() } else { parts.join(". ") }
    }

    /// Tells the audit log of permissions that did not come into force. The policy that did is named beside them.
    fn note_refused_policy(&self, errors: &Diagnostics) {
        let first = errors.iter().next().map(|(line, error)| (line.to_string(), error.message().to_owned()));
        let (rule, message) = first.unzip();
        let more = match errors.len().saturating_sub(1) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        let event = Event {
            decision: Decision::Failed,
            rule,
            policy_hash: Some(self.policy.load().hash()),
            detail: Some(format!(
                "the permissions have errors, and those before stay in force: {}{more}",
                message.unwrap_or_default()
            )),
            ..Event::new(EventKind::PolicyLoaded)
        };
        if let Err(error) = self.audit.append(&event) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "refused permissions are missing in the audit log"
            );
        }
    }

    /// A skill, compiled. It is read and compiled again only when its files have changed, which is looked at every tenth of a
    /// second.
    pub async fn ready(&self, name: &SkillName) -> Result<Arc<Ready>, InvokeError> {
        let now = self.clock.monotonic();
        let fresh = |known: &Arc<KnownSkill>| known.was_looked_at(now).then(|| Arc::clone(&known.ready));
        if let Some(ready) = self.ready.read(name, fresh).flatten() {
            return Ok(ready);
        }
        let looked_at = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let stamp = self.registry.stamp(name);
        if let (Some(stamp), Some(known)) = (stamp, self.ready.get(name))
            && known.stamp == stamp
        {
            known.looked_at.store(looked_at, Ordering::Relaxed);
            return Ok(Arc::clone(&known.ready));
        }
        let skill = self.registry.get(name)?;
        let component = self
            .runtime
            .compile(skill.component)
            .await
            .map_err(|source| InvokeError::Compile { skill: name.clone(), source })?;
        let ready = Arc::new(Ready { manifest: Arc::new(skill.manifest), digest: skill.digest, component });
        if let Some(stamp) = stamp {
            let known = KnownSkill { stamp, looked_at: AtomicU64::new(looked_at), ready: Arc::clone(&ready) };
            self.ready.put(name.clone(), Arc::new(known));
        }
        Ok(ready)
    }

    /// What a skill may do for a caller at this moment.
    pub fn effective(&self, ready: &Ready, caller: &Caller) -> Effective {
        let skill = Skill { manifest: &ready.manifest, digest: ready.digest };
        self.policy.load().effective(&skill, caller, self.clock.now())
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("home", &self.home).finish_non_exhaustive()
    }
}

/// Why a policy did not come into force, or did so unrecorded.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The permissions have errors.
    #[error(transparent)]
    Permissions(#[from] Diagnostics),
    /// The audit log does not tell of it.
    #[error(
        "the new policy is in force, but its entry is missing in the audit log, which can't be written; until it can, no token is released"
    )]
    Audit(#[from] crate::audit::AuditError),
}
