//! Noticing what changes beside a running server: by this process, by a command, by an editor.
//!
//! Everything that a server shows or keeps ready follows from the vault, the permissions and the installed skills. A change of
//! the permissions comes into force by itself, all or nothing: with an error in them, the policy before stays. SIGHUP looks at
//! once, and reads the permissions also where nothing can be seen to have changed.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use clawcoil::host::{Home, Host, ReloadError};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How often is looked.
const EVERY: Duration = Duration::from_millis(250);
/// A listener that is slower than this many changes looks at everything anew.
const BACKLOG: usize = 64;

/// What has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Connections, or what else is in the vault.
    Vault,
    /// The policy in force.
    Policy,
    /// Installed skills.
    Skills,
}

/// Tells of changes. Clones share everything.
#[derive(Debug, Clone)]
pub(crate) struct Changes {
    sender: broadcast::Sender<Change>,
    /// The permissions in the files have errors, and those before are in force.
    outdated: Arc<AtomicBool>,
    /// Cancelled when another file stands where the vault was: what is open is not what commands change.
    vault_replaced: CancellationToken,
}

impl Changes {
    pub(crate) fn new() -> Self {
        Self {
            sender: broadcast::channel(BACKLOG).0,
            outdated: Arc::default(),
            vault_replaced: CancellationToken::new(),
        }
    }

    /// What changes from now on. `Lagged` means: look at everything.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.sender.subscribe()
    }

    /// Whether the permissions in force are older than the files, because those have errors.
    pub(crate) fn policy_is_outdated(&self) -> bool {
        self.outdated.load(Ordering::Relaxed)
    }

    /// Waits until another file stands where the vault was, or none.
    pub(crate) async fn vault_replaced(&self) {
        self.vault_replaced.cancelled().await;
    }

    /// Looks for changes until the handle is aborted.
    pub(crate) fn watch(&self, host: Arc<Host>) -> JoinHandle<()> {
        let Self { sender, outdated, vault_replaced } = self.clone();
        // From here on SIGHUP does not end the process any more.
        let mut hangup = signal(SignalKind::hangup())
            .inspect_err(|error| tracing::error!("SIGHUP can't be listened for: {error}"))
            .ok();
        let mut before = Seen::of(&host);
        tokio::spawn(async move {
            let tell = |change| {
                // Nobody listens: nobody has to be told.
                let _ = sender.send(change);
            };
            loop {
                let demanded = hung_up_within(EVERY, hangup.as_mut()).await;
                let now = Seen::of(&host);
                if now.vault != before.vault {
                    vault_replaced.cancel();
                    return;
                }
                if demanded || now.policy != before.policy {
                    let host = Arc::clone(&host);
                    // Reading, comparing and recording may take a while.
                    let in_force = tokio::task::spawn_blocking(move || reload(&host)).await.unwrap_or(false);
                    outdated.store(!in_force, Ordering::Relaxed);
                    if in_force {
                        tell(Change::Policy);
                    }
                }
                if demanded || now.skills != before.skills {
                    tell(Change::Skills);
                }
                if now.epoch != before.epoch {
                    tell(Change::Vault);
                }
                before = now;
            }
        })
    }
}

/// Waits so long, or for SIGHUP; says whether it came.
async fn hung_up_within(time: Duration, hangup: Option<&mut Signal>) -> bool {
    match hangup {
        None => {
            tokio::time::sleep(time).await;
            false
        }
        Some(hangup) => tokio::time::timeout(time, hangup.recv()).await.is_ok(),
    }
}

/// Reads the permissions again; says whether another policy is in force now. The audit log is told by the host.
fn reload(host: &Host) -> bool {
    match host.reload_policy() {
        Ok(hash) => tracing::info!(%hash, "the permissions have changed and are in force"),
        Err(ReloadError::Permissions(errors)) => {
            tracing::error!("the permissions have errors; those before stay in force\n{errors}");
            return false;
        }
        Err(error @ ReloadError::Audit(_)) => tracing::error!("{error}"),
    }
    true
}

/// What can be told of the files without reading them.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    /// Device and number of the vault's file.
    vault: Option<(u64, u64)>,
    epoch: Option<u64>,
    policy: Vec<Stamp>,
    skills: Vec<Stamp>,
}

type Stamp = (PathBuf, Option<SystemTime>, u64);

impl Seen {
    fn of(host: &Host) -> Self {
        let home: &Home = host.home();
        let mut policy = vec![stamp(home.permissions())];
        policy.extend(folder(home.permissions_folder()));
        let mut skills = folder(home.skills());
        let files: Vec<Stamp> = skills.iter().flat_map(|(path, ..)| folder(path.clone())).collect();
        skills.extend(files);
        let vault = std::fs::metadata(home.database()).ok().map(|metadata| (metadata.dev(), metadata.ino()));
        Self { vault, epoch: host.vault().epoch().ok(), policy, skills }
    }
}

fn folder(path: PathBuf) -> Vec<Stamp> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut stamps: Vec<Stamp> = entries.map(|entry| stamp(entry.path())).collect();
    stamps.sort();
    stamps
}

fn stamp(path: PathBuf) -> Stamp {
    let metadata = std::fs::metadata(&path).ok();
    let changed = metadata.as_ref().and_then(|metadata| metadata.modified().ok());
    (path, changed, metadata.map_or(0, |metadata| metadata.len()))
}
