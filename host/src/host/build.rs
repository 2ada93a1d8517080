//! Making an agent's home, and opening it.

use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::{Home, Host};
use crate::audit::{self, AuditError, AuditLog, Event, EventKind, Opening, Sink};
use crate::broker::Broker;
use crate::clock::{self, Clock, SystemClock};
use crate::connect::{Connector, Parts};
use crate::diagnostic::Diagnostics;
use crate::egress::Egress;
use crate::id::{AgentId, Names};
use crate::identity::{Identity, IdentityError, Recovery, RecoveryKey};
use crate::net::{Net, NetSettings};
use crate::observe::{Nobody, Observer};
use crate::policy::{Permissions, Policy};
use crate::provider::Catalogue;
use crate::recall::Recall;
use crate::registry::Registry;
use crate::runtime::{self, CompileCache, EngineError, Runtime};
use crate::vault::{Vault, VaultError};

/// What a new home starts with.
const PERMISSIONS: &str = "\
# What skills may do. What no [[grant]] here allows is denied; a [[forbid]] beats every grant.
# `clawcoil grant` writes grants, `clawcoil policy explain` says which line decides.
";

/// How long the audit log may take to be opened. It reads the ends of its files.
const OPENING: Duration = Duration::from_secs(30);
/// The same for a host that opens even if it is broken.
const OPENING_TO_TAKE_AWAY: Duration = Duration::from_secs(2);

/// A home that was made.
#[derive(Debug)]
pub struct Initialized {
    /// The agent, by its key.
    pub agent: AgentId,
}

/// Why a home could not be made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// A file of an agent is there already.
    #[error("{0} is there already, and nothing is replaced; name another folder with `--home`, or move it away")]
    Exists(String),
    /// The file system said no.
    #[error("cannot make {path}")]
    Io {
        /// What was to be made.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The identity could not be made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The vault could not be made.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The audit log could not be begun.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// `audit.toml` has errors.
    #[error(transparent)]
    File(#[from] Diagnostics),
    /// It was recovered, and the audit log does not tell.
    #[error("the vault belongs to the new identity now, but the audit log does not tell of it")]
    Unrecorded(#[source] Box<InitError>),
}

/// Makes an agent's home: its identity, its vault, and permissions that grant nothing.
pub async fn init(home: &Home, recovery: &Recovery, clock: Arc<dyn Clock>) -> Result<Initialized, InitError> {
    for path in [home.certificate(), home.key(), home.database()] {
        if path.exists() {
            return Err(InitError::Exists(path.display().to_string()));
        }
    }
    // What people wrote is read first, so that its errors leave nothing half made.
    let settings = home.audit_settings()?;
    private_folder(home)?;
    let identity = Identity::generate(&home.certificate(), &home.key(), clock.as_ref())?;
    let log_clock = Arc::clone(&clock);
    let vault = Vault::create(&home.database(), &identity, recovery, clock).await?;
    if !home.permissions().exists() {
        fs::write(home.permissions(), PERMISSIONS).map_err(|source| {
            let path = home.permissions().display().to_string();
            InitError::Io { path, source }
        })?;
    }
    // The log begins with the agent, so that a folder that is missing later means something.
    let key = vault.audit_key();
    let opening = Opening { key: &key, agent: Some(vault.agent()), epoch: Some(vault.epoch()?), settings: &settings };
    AuditLog::open(&home.audit(), &opening, log_clock)?;
    Ok(Initialized { agent: vault.agent() })
}

/// Gives a vault whose agent has lost its key to a new identity, with the vault's recovery key. The home's old identity files, if
/// there are any left, must have been moved away. `lost` is the agent, where the key opens the vaults of several.
pub async fn recover(
    home: &Home,
    key: &RecoveryKey,
    lost: Option<AgentId>,
    clock: Arc<dyn Clock>,
) -> Result<Initialized, InitError> {
    let settings = home.audit_settings()?;
    let identity = Identity::generate(&home.certificate(), &home.key(), clock.as_ref())?;
    match Vault::recover(&home.database(), key, lost, &identity, Arc::clone(&clock)).await {
        Ok(vault) => {
            let agent = vault.agent();
            note_recovery(home, &vault, &settings, clock).map_err(|error| InitError::Unrecorded(Box::new(error)))?;
            Ok(Initialized { agent })
        }
        Err(error @ VaultError::RecoveredAndShut { .. }) => Err(error.into()),
        Err(error) => {
            // An identity that opens nothing would only stand in the way of the next attempt.
            for file in [home.certificate(), home.key()] {
                let _ = fs::remove_file(file);
            }
            Err(error.into())
        }
    }
}

fn note_recovery(
    home: &Home,
    vault: &Vault,
    settings: &audit::Settings,
    clock: Arc<dyn Clock>,
) -> Result<(), InitError> {
    let key = vault.audit_key();
    let opening = Opening { key: &key, agent: Some(vault.agent()), epoch: Some(vault.epoch()?), settings };
    let detail = Some(format!("the vault was given to {}", vault.agent()));
    AuditLog::open(&home.audit(), &opening, clock)?.append(&Event { detail, ..Event::new(EventKind::Recovered) })?;
    Ok(())
}

fn private_folder(home: &Home) -> Result<(), InitError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let folder = home.folder();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|source| InitError::Io { path: folder.display().to_string(), source })
}

/// Why a home could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no agent here.
    #[error("there is no agent in {0}; make one with `clawcoil init`, or name its folder with `--home`")]
    NoHome(String),
    /// The permissions or a provider file have errors.
    #[error(transparent)]
    File(#[from] Diagnostics),
    /// The identity can't be read.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The vault doesn't open.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The audit log can't be opened, and without it nothing is released.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The engine could not be made.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// TLS could not be set up.
    #[error("TLS could not be set up")]
    Tls(#[from] rustls::Error),
    /// The cache of compiled components can't be used.
    #[error("the folder of compiled components {path} can't be used; remove it, or mend who may access it")]
    Cache {
        /// The folder.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Opens a home. What is not said has the default of production.
pub struct HostBuilder {
    home: Home,
    clock: Option<Arc<dyn Clock>>,
    net: Option<NetSettings>,
    runtime: runtime::Settings,
    audit: Option<(String, Box<dyn Sink>)>,
    observer: Arc<dyn Observer>,
    audit_settings: Option<audit::Settings>,
    even_if_broken: bool,
}

impl HostBuilder {
    pub(super) fn new(home: Home) -> Self {
        Self {
            home,
            clock: None,
            net: None,
            runtime: runtime::Settings::default(),
            audit: None,
            observer: Arc::new(Nobody),
            audit_settings: None,
            even_if_broken: false,
        }
    }

    /// Another source of time and random bytes. Default: the system's.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// How the network is reached. Default: the system's resolver and the public roots of trust.
    #[must_use]
    pub fn net(mut self, net: NetSettings) -> Self {
        self.net = Some(net);
        self
    }

    /// The engine's size, and what calls may cost. The compile cache is set by the host.
    #[must_use]
    pub fn runtime(mut self, settings: runtime::Settings) -> Self {
        self.runtime = settings;
        self
    }

    /// Where audit entries go, as a chain of this name that begins with this host. Default: a file of the home's own.
    #[must_use]
    pub fn audit_sink(mut self, chain: impl Into<String>, sink: impl Sink) -> Self {
        self.audit = Some((chain.into(), Box::new(sink)));
        self
    }

    /// How the audit log is kept. Default: what the home's `audit.toml` says.
    #[must_use]
    pub fn audit_settings(mut self, settings: audit::Settings) -> Self {
        self.audit_settings = Some(settings);
        self
    }

    /// Who is told of calls, refusals and refreshes. Default: nobody.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Opens the host also where its audit log can't be opened within two seconds, or what people wrote has errors: for taking
    /// access away, which waits for nothing to be mended. Without its log such a host releases no token, and calls what it does unrecorded; of
    /// permissions with errors none are in force, and of provider files with errors the built-in catalogue is.
    #[must_use]
    pub fn even_if_broken(mut self) -> Self {
        self.even_if_broken = true;
        self
    }

    /// Opens the vault, the policy, the catalogue, the audit log and the engine.
    ///
    /// Make the process non-dumpable after this, not before: see [`Runtime::new`].
    pub async fn open(self) -> Result<Host, OpenError> {
        let home = self.home;
        if !home.database().exists() && !home.key().exists() {
            return Err(OpenError::NoHome(home.folder().display().to_string()));
        }
        let clock = self.clock.unwrap_or_else(|| Arc::new(SystemClock::new()));
        // What people wrote is read first: its errors are theirs to mend, and cost nothing yet.
        let lenient = self.even_if_broken;
        let catalogue = home.provider_sources().and_then(|files| Catalogue::with(&files));
        let catalogue = Arc::new(catalogue.or_else(|error| unless(lenient, error, Catalogue::builtin))?);
        let sources = home.permission_sources().and_then(|sources| Ok((Permissions::parse(&sources)?, sources)));
        let (permissions, sources) =
            sources.or_else(|error| unless(lenient, error, || Ok((Permissions::default(), Vec::new()))))?;
        let policy = Policy::new(permissions, catalogue.facts());
        let private = policy.network().private.clone();
        let audit_settings = match self.audit_settings {
            Some(settings) => settings,
            None => home.audit_settings().or_else(|error| unless(lenient, error, || Ok(audit::Settings::default())))?,
        };

        let identity = Identity::load(&home.certificate(), &home.key())?;
        let vault = Arc::new(Vault::open(&home.database(), &identity, Arc::clone(&clock)).await?);
        let key = vault.audit_key();
        let (agent, epoch) = (Some(vault.agent()), Some(vault.epoch()?));
        let patience = if lenient { OPENING_TO_TAKE_AWAY } else { OPENING };
        let opened = AuditLog::open_within(patience, Arc::clone(&clock), {
            let (key, settings, clock) = (vault.audit_key(), audit_settings.clone(), Arc::clone(&clock));
            let (folder, sink) = (home.audit(), self.audit);
            move || {
                let opening = Opening { key: &key, agent, epoch, settings: &settings };
                match sink {
                    Some((chain, sink)) => AuditLog::with_sink(&chain, sink, &opening, clock),
                    None => AuditLog::open(&folder, &opening, clock),
                }
            }
        });
        let audit = Arc::new(match opened.await {
            Err(error) if lenient => {
                let opening = Opening { key: &key, agent, epoch, settings: &audit_settings };
                AuditLog::closed(error, &opening, Arc::clone(&clock))?
            }
            opened => opened?,
        });

        let mut settings = self.runtime;
        settings.cache = match CompileCache::open(&home.cache(), vault.cache_key()) {
            Ok(cache) => Some(cache),
            // It is about speed alone.
            Err(_) if lenient => None,
            Err(source) => return Err(OpenError::Cache { path: home.cache().display().to_string(), source }),
        };
        let runtime = Runtime::new(settings)?;

        let net = Arc::new(Net::new(self.net.unwrap_or_else(|| NetSettings::new(Arc::clone(&clock))))?);
        if !sources.is_empty() {
            home.keep_policy(policy.hash(), &sources, clock.now());
        }
        let policy = Arc::new(ArcSwap::from_pointee(policy));
        let parts = Parts {
            vault: Arc::clone(&vault),
            net: Arc::clone(&net),
            catalogue: Arc::clone(&catalogue),
            private,
            audit: Arc::clone(&audit),
            clock: Arc::clone(&clock),
            observer: Arc::clone(&self.observer),
        };
        let broker = Broker::new(parts.clone());
        let connector = Connector::new(parts);
        let egress = Arc::new(Egress::new(
            broker.clone(),
            Arc::clone(&net),
            Arc::clone(&catalogue),
            Arc::clone(&policy),
            Arc::clone(&audit),
            Arc::clone(&clock),
        ));
        // What a process could not tell the log before it ended. One that can't be written now is told later.
        if let Err(error) = vault.tell(&audit).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the audit log does not tell of a change yet");
        }
        let registry = Registry::in_folder(home.skills());
        Ok(Host {
            home,
            runtime,
            vault,
            catalogue,
            policy,
            broker,
            connector,
            egress,
            net,
            audit,
            registry,
            names: Names::new(clock::random(clock.as_ref())),
            clock,
            observer: self.observer,
            ready: Recall::new(super::MOST_READY),
        })
    }
}

/// What stands in for a file with errors, where the host is to open all the same.
fn unless<T>(lenient: bool, error: Diagnostics, or: impl FnOnce() -> Result<T, Diagnostics>) -> Result<T, Diagnostics> {
    if !lenient {
        return Err(error);
    }
    tracing::warn!("left out: {error}");
    or()
}

impl std::fmt::Debug for HostBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostBuilder").field("home", &self.home).finish_non_exhaustive()
    }
}
