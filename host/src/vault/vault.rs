//! The vault itself: made, opened, recovered, and its users shredded.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hmac::{Hmac, KeyInit as _};
use moka::sync::Cache;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::access::{Held, Use};
use super::datastore::{Datastore, KeyRow, Namespace, RecoveryRow, Stamp, VaultRow};
use super::envelope::{self, Bound, Fault, Place};
use super::error::VaultError;
use super::keyring::{Keyring, Root};
use super::outbox;
use crate::audit::Told;
use crate::clock::{Clock, random};
use crate::id::{AgentId, ConnectionId, Owner, UserId, VaultId};
use crate::identity::{Recovery, RecoveryError, RecoveryKey, Seal};
use crate::recall::Recall;
use crate::secret::Key;

/// Owners whose rows are kept at hand, as ciphertext.
const OWNERS: usize = 16_384;

/// An agent's vault, open. It can be shared between threads; other processes may have the same vault open.
///
/// What returns a future is a change: it is durable when the future is ready, and it happens even if the future is
/// dropped. What doesn't is a read, of microseconds.
pub struct Vault {
    pub(super) id: VaultId,
    pub(super) agent: AgentId,
    pub(super) keys: Keyring,
    /// Begins each digest that finds a document.
    pub(super) lookups: Hmac<Sha256>,
    pub(super) store: Datastore,
    pub(super) clock: Arc<dyn Clock>,
    /// Names this process in leases.
    pub(super) lessee: [u8; 16],
    pub(super) held: Recall<Owner, Arc<Held>>,
    pub(super) uses: Cache<ConnectionId, Use>,
    /// Changes that the audit log tells of, and whose rows are still there.
    pub(super) telling: tokio::sync::Mutex<Told>,
}

impl Vault {
    /// Makes a vault for the agent of this seal: its root key, its check record, and the recovery copy.
    ///
    /// The file and its folder are made if there are none (modes 0600 and 0700). A file that holds vaults of other agents
    /// gets one more; they share nothing but the file.
    pub async fn create(
        path: &Path,
        seal: &dyn Seal,
        recovery: &Recovery,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, VaultError> {
        let id = VaultId::from_bytes(random(&*clock));
        let key = Key::fill_with(|key| clock.fill_random(key));
        let root = Root::new(1, &key);
        let row = root_row(path, id, 1, &key, &root, seal, recovery, &*clock).await?;
        let (derived, _) = root.new_key(id, &Namespace::Derived, &*clock)?;
        let store = {
            let (path, row, derived) = (PathBuf::from(path), row.clone(), derived.clone());
            blocking(move || Datastore::create(&path, &row, &derived)).await?
        };
        Self::with(store, id, seal.id(), root, &derived, clock)
    }

    /// Opens the vault that the agent of this seal has in this file.
    ///
    /// Another agent's identity is [`VaultError::WrongIdentity`]; a root key that doesn't fit is found here, once, and not at
    /// every row.
    pub async fn open(path: &Path, seal: &dyn Seal, clock: Arc<dyn Clock>) -> Result<Self, VaultError> {
        let agent = seal.id();
        let (store, row, derived) = {
            let path = PathBuf::from(path);
            blocking(move || Datastore::open(&path, agent)).await?
        };
        let key = seal.unwrap(&row.id, &row.wrapped).await.map_err(|source| VaultError::Seal {
            path: path.into(),
            agent,
            source,
        })?;
        let root = Root::new(row.root_version, &key);
        root.check(row.id, &row.check).map_err(|source| VaultError::WrongRoot { path: path.into(), source })?;
        Self::with(store, row.id, agent, root, &derived, clock)
    }

    /// Opens a vault whose identity is lost, with its recovery key, and gives it to the agent of this seal. The agents
    /// that had it before have it no more.
    ///
    /// `lost` is one of them: it must be named where the key opens the vaults of several agents in this file.
    pub async fn recover(
        path: &Path,
        recovery: &RecoveryKey,
        lost: Option<AgentId>,
        seal: &dyn Seal,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, VaultError> {
        let copies = {
            let path = PathBuf::from(path);
            blocking(move || Datastore::recoveries(&path)).await?
        };
        let mut refused = None;
        let mut opened = Vec::new();
        for copy in copies {
            match recovery.unwrap(&copy.vault, &copy.wrapped) {
                Ok(key) => opened.push((copy, key)),
                // Another agent's copy in the same file is not an error of this one.
                Err(RecoveryError::WrongKey) if refused.is_some() => {}
                Err(error) => refused = Some(error),
            }
        }
        let agents: Vec<_> = opened.iter().flat_map(|(copy, _)| copy.agents.iter().copied()).collect();
        if let Some(lost) = lost {
            opened.retain(|(copy, _)| copy.agents.contains(&lost));
            if opened.is_empty() && !agents.is_empty() {
                return Err(VaultError::WrongIdentity { path: path.into(), wanted: agents, given: lost });
            }
        }
        let (copy, key) = match (opened.pop(), opened.is_empty()) {
            (Some(one), true) => one,
            (Some(_), false) => return Err(VaultError::SeveralRecoveries { path: path.into(), agents }),
            (None, _) => {
                return Err(refused.map_or_else(|| VaultError::NoRecovery(path.into()), VaultError::Recovery));
            }
        };
        let id = copy.vault;
        Root::new(copy.root_version, &key)
            .check(id, &copy.check)
            .map_err(|source| VaultError::WrongRoot { path: path.into(), source })?;
        let agent = seal.id();
        let wrapped = wrap(path, &id, &key, seal, &*clock).await?;
        let file = PathBuf::from(path);
        blocking(move || Datastore::replace_seals(&file, id, agent, &wrapped)).await?;
        Self::open(path, seal, clock)
            .await
            .map_err(|error| VaultError::RecoveredAndShut { path: path.into(), source: Box::new(error) })
    }

    fn with(
        store: Datastore,
        id: VaultId,
        agent: AgentId,
        root: Root,
        derived: &KeyRow,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, VaultError> {
        let keys = Keyring::new(id, root, derived)?;
        Ok(Self {
            id,
            agent,
            lookups: lookups(&keys),
            keys,
            store,
            lessee: random(&*clock),
            clock,
            held: Recall::new(OWNERS),
            uses: Cache::new(OWNERS as u64),
            telling: tokio::sync::Mutex::default(),
        })
    }

    /// The vault's name.
    pub fn id(&self) -> VaultId {
        self.id
    }

    /// The agent whose vault it is.
    pub fn agent(&self) -> AgentId {
        self.agent
    }

    /// Rises with every change of the vault, by whatever process. A database that was put back to an older state has an
    /// older epoch than a witness outside it remembers.
    pub fn epoch(&self) -> Result<u64, VaultError> {
        self.store.epoch()
    }

    /// The state of the database at this moment. What is read after taking one holds for as long as a new one is equal to it. Costs no
    /// system call.
    pub fn stamp(&self) -> Stamp {
        self.store.stamp()
    }

    /// Whether the database answers with records of this vault, and they open with the key at hand. For a health check.
    pub fn check(&self) -> Result<(), VaultError> {
        self.keys.check(&self.store)
    }

    /// The key of the audit log.
    pub fn audit_key(&self) -> Key {
        self.keys.derived("audit")
    }

    /// The key that authenticates the cache of compiled components.
    pub fn cache_key(&self) -> Key {
        self.keys.derived("compile-cache")
    }

    /// Removes all that the vault has of a user, and makes what may be left of it unreadable.
    ///
    /// The user's key is deleted and the vault gets a new root key, under which all other keys are sealed anew, and with it
    /// the recovery copy. Not reached: a backup of the database from before, opened with the agent's identity. Other
    /// processes that have the vault open must open it again.
    ///
    /// What the audit log has yet to be told of the user stays until it is, sealed for the agent; so does the end of each of the
    /// user's connections. Their tokens are not ended at the providers: who wants that disconnects them first.
    pub async fn shred(&self, user: &UserId, seal: &dyn Seal) -> Result<(), VaultError> {
        let owner = Owner::User(user.clone());
        // Before the keys are read: the agent's may be made for this.
        let untold = self.changes_for_the_agent(&owner).await?;
        let ends = self.ends_for_the_agent(&owner).await?;
        let (rows, seals, recipient) = self.store.under_root()?;
        if seals > 1 {
            return Err(VaultError::OtherSeals(seals - 1));
        }
        if seal.id() != self.agent {
            return Err(VaultError::WrongIdentity {
                path: self.store.path().into(),
                wanted: vec![self.agent],
                given: seal.id(),
            });
        }
        let recovery = recipient.as_deref().map_or_else(|| Ok(Recovery::none()), Recovery::to)?;
        let old = self.keys.root();
        let version = old.version + 1;
        let key = Key::fill_with(|key| self.clock.fill_random(key));
        let new = Root::new(version, &key);
        let row = root_row(self.store.path(), self.id, version, &key, &new, seal, &recovery, &*self.clock).await?;
        let keys = rows
            .iter()
            .filter(|row| row.namespace != Namespace::of(&owner))
            .map(|row| old.rewrap(self.id, row, &new, &*self.clock))
            .collect::<Result<Vec<_>, _>>()?;
        self.store.shred(&owner, row, keys, outbox::KIND, untold, ends).await?;
        self.keys.replace_root(new);
        self.keys.forget(&owner);
        Ok(())
    }

    /// Opens a record with its owner's key.
    pub(super) fn open_record(&self, place: &Place<'_>, record: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        self.open_bound(place.owner, &place.bound(), record, || *place)
    }

    /// The same where the place's digest is at hand; the place itself is asked for only to name it in an error.
    pub(super) fn open_bound<'a>(
        &self,
        owner: &Owner,
        bound: &Bound,
        record: &[u8],
        place: impl Fn() -> Place<'a>,
    ) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let fail = |fault| VaultError::record(&place(), fault);
        let id = envelope::key_of(record).map_err(fail)?;
        let key = self.keys.opening(&self.store, owner, id)?;
        envelope::open(&key, bound, record).map_err(fail)
    }

    /// Seals a secret with its owner's key, which is made if there is none.
    pub(super) async fn seal_record(&self, place: &Place<'_>, secret: &[u8]) -> Result<Vec<u8>, VaultError> {
        let key = self.keys.sealing(&self.store, place.owner, &*self.clock).await?;
        envelope::seal(&key, place, secret, &*self.clock).map_err(|fault| VaultError::record(place, fault))
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault").field("id", &self.id).field("agent", &self.agent).finish_non_exhaustive()
    }
}

/// The text in an opened record; the place is asked for only to name it in an error.
pub(super) fn text<'a>(
    place: impl FnOnce() -> Place<'a>,
    mut bytes: Zeroizing<Vec<u8>>,
) -> Result<Zeroizing<String>, VaultError> {
    String::from_utf8(std::mem::take(&mut *bytes)).map(Zeroizing::new).map_err(|error| {
        // The bytes that are not text are wiped as well.
        drop(Zeroizing::new(error.into_bytes()));
        VaultError::record(&place(), Fault::Contents)
    })
}

#[expect(clippy::too_many_arguments, reason = "all that a new root key is bound to")]
async fn root_row(
    path: &Path,
    id: VaultId,
    version: u64,
    key: &Key,
    root: &Root,
    seal: &dyn Seal,
    recovery: &Recovery,
    clock: &dyn Clock,
) -> Result<VaultRow, VaultError> {
    let copy = recovery.wrap(&id, key)?;
    Ok(VaultRow {
        id,
        root_version: version,
        check: root.check_record(id, clock)?,
        recovery: recovery.recipient().zip(copy).map(|(recipient, wrapped)| RecoveryRow { recipient, wrapped }),
        agent: seal.id(),
        wrapped: wrap(path, &id, key, seal, clock).await?,
        created_at: clock.now(),
    })
}

async fn wrap(path: &Path, id: &VaultId, key: &Key, seal: &dyn Seal, clock: &dyn Clock) -> Result<Vec<u8>, VaultError> {
    seal.wrap(id, key, clock).await.map_err(|source| VaultError::Seal { path: path.into(), agent: seal.id(), source })
}

/// Opening a database waits for disks and locks: not on an async thread.
async fn blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn lookups(keys: &Keyring) -> Hmac<Sha256> {
    // HMAC fills a key up to its block with zeros (RFC 2104, section 2): this is the key itself, and of the right length.
    let mut block = Zeroizing::new([0; 64]);
    block.iter_mut().zip(keys.derived("documents").expose()).for_each(|(to, from)| *to = *from);
    Hmac::new((&*block).into())
}
