//! The keys of a vault: root → namespace → record.
//!
//! The root key is unwrapped once, seals the keys of the namespaces, and is not kept. Each user is a namespace, and so is
//! the agent itself; one more namespace gives the keys that are no record's (audit, compile cache, approvals), so that they
//! outlive a new root key.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::ArcSwap;

use super::datastore::{Datastore, KeyRow, Namespace};
use super::envelope::{self, Fault, Field, Item, KeyId, Place, SealingKey};
use super::error::VaultError;
use crate::clock::{Clock, random};
use crate::id::{Generation, Owner, VaultId};
use crate::identity::suite::Extracted;
use crate::secret::Key;

const ROOT: &[u8] = b"clawcoil/root/1";
const DERIVED: &[u8] = b"clawcoil/derived/1";
const CHECK: &[u8] = b"clawcoil/check/1";
/// So many keys are kept ready. With one more user all begin anew, at one read and one unwrap for each.
const READY: usize = 16_384;

/// The root key, in the one form in which it is used.
#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) version: u64,
    sealing: SealingKey,
}

impl Root {
    pub(crate) fn new(version: u64, key: &Key) -> Self {
        let extracted = Extracted::from(ROOT, key.expose());
        let mut id = [0; 16];
        extracted.expand(&[b"id"], &mut id);
        Self { version, sealing: SealingKey::new(KeyId(id), &extracted.key(&[b"seal"])) }
    }

    fn place(&self, vault: VaultId) -> Place<'static> {
        Place {
            vault,
            owner: &Owner::Agent,
            provider: None,
            item: Item::Vault,
            field: Field::Check,
            generation: Generation(self.version),
        }
    }

    /// A record that opens with this root key only.
    pub(crate) fn check_record(&self, vault: VaultId, clock: &dyn Clock) -> Result<Vec<u8>, VaultError> {
        let place = self.place(vault);
        envelope::seal(&self.sealing, &place, CHECK, clock).map_err(|fault| VaultError::record(&place, fault))
    }

    pub(crate) fn check(&self, vault: VaultId, record: &[u8]) -> Result<(), Fault> {
        let opened = envelope::open(&self.sealing, &self.place(vault).bound(), record)?;
        if **opened == *CHECK { Ok(()) } else { Err(Fault::Contents) }
    }

    fn wrap(
        &self,
        vault: VaultId,
        namespace: &Namespace,
        id: KeyId,
        key: &[u8],
        clock: &dyn Clock,
    ) -> Result<KeyRow, VaultError> {
        let place = key_place(vault, namespace, id);
        let wrapped =
            envelope::seal(&self.sealing, &place, key, clock).map_err(|fault| VaultError::record(&place, fault))?;
        Ok(KeyRow { namespace: namespace.clone(), id, root_version: self.version, wrapped })
    }

    /// A new key for a namespace, as its row and ready for use.
    pub(crate) fn new_key(
        &self,
        vault: VaultId,
        namespace: &Namespace,
        clock: &dyn Clock,
    ) -> Result<(KeyRow, Key), VaultError> {
        let key = Key::fill_with(|key| clock.fill_random(key));
        let row = self.wrap(vault, namespace, KeyId(random(clock)), key.expose(), clock)?;
        Ok((row, key))
    }

    fn unwrap(&self, vault: VaultId, row: &KeyRow) -> Result<Key, VaultError> {
        if row.root_version != self.version {
            return Err(VaultError::RootReplaced);
        }
        let place = key_place(vault, &row.namespace, row.id);
        let fail = |fault| VaultError::record(&place, fault);
        let opened = envelope::open(&self.sealing, &place.bound(), &row.wrapped).map_err(fail)?;
        let key = <&[u8; 32]>::try_from(opened.as_slice()).map_err(|_| fail(Fault::Contents))?;
        Ok(Key::fill_with(|bytes| bytes.copy_from_slice(key)))
    }

    /// The same namespace key under another root.
    pub(crate) fn rewrap(
        &self,
        vault: VaultId,
        row: &KeyRow,
        new: &Self,
        clock: &dyn Clock,
    ) -> Result<KeyRow, VaultError> {
        let key = self.unwrap(vault, row)?;
        new.wrap(vault, &row.namespace, row.id, key.expose(), clock)
    }
}

fn key_place(vault: VaultId, namespace: &Namespace, id: KeyId) -> Place<'_> {
    Place {
        vault,
        owner: namespace.owner(),
        provider: None,
        item: if *namespace == Namespace::Derived { Item::Vault } else { Item::Key(id) },
        field: Field::NamespaceKey,
        generation: Generation(0),
    }
}

/// The keys of one open vault.
#[derive(Debug)]
pub(crate) struct Keyring {
    vault: VaultId,
    root: ArcSwap<Root>,
    /// What is taken out of it is wiped as soon as nobody uses it any more.
    ready: RwLock<HashMap<Owner, Arc<SealingKey>>>,
    derived: Extracted,
}

impl Keyring {
    /// The keyring of a vault whose root key has passed the check.
    pub(crate) fn new(vault: VaultId, root: Root, derived: &KeyRow) -> Result<Self, VaultError> {
        let key = root.unwrap(vault, derived)?;
        Ok(Self {
            vault,
            root: ArcSwap::from_pointee(root),
            ready: RwLock::default(),
            derived: Extracted::from(DERIVED, key.expose()),
        })
    }

    pub(crate) fn root(&self) -> Arc<Root> {
        self.root.load_full()
    }

    /// Opens again what was opened when the vault was.
    pub(crate) fn check(&self, store: &Datastore) -> Result<(), VaultError> {
        let row = store.key(&Namespace::Derived)?.ok_or(VaultError::NoKey { owner: Owner::Agent })?;
        self.root().unwrap(self.vault, &row).map(drop)
    }

    /// From now on the keys are under this root; the keys at hand stay what they are.
    pub(crate) fn replace_root(&self, root: Root) {
        self.root.store(Arc::new(root));
    }

    /// A key that is no record's. It is the same for the life of the vault.
    pub(crate) fn derived(&self, label: &str) -> Key {
        self.derived.key(&[label.as_bytes()])
    }

    /// The key that opens a record of this owner.
    pub(crate) fn opening(&self, store: &Datastore, owner: &Owner, id: KeyId) -> Result<Arc<SealingKey>, VaultError> {
        if let Some(key) = self.ready(owner, id) {
            return Ok(key);
        }
        // Another process may have shredded the owner and made a new key since.
        self.load(store, owner)?.ok_or_else(|| VaultError::NoKey { owner: owner.clone() })
    }

    /// The key that seals a new record of this owner; made when there is none.
    pub(crate) async fn sealing(
        &self,
        store: &Datastore,
        owner: &Owner,
        clock: &dyn Clock,
    ) -> Result<Arc<SealingKey>, VaultError> {
        if let Some(key) = self.load(store, owner)? {
            return Ok(key);
        }
        let namespace = Namespace::of(owner);
        let (row, _) = self.root().new_key(self.vault, &namespace, clock)?;
        // Somebody may have been faster: what is stored counts.
        store.add_key(row).await?;
        self.load(store, owner)?.ok_or_else(|| VaultError::NoKey { owner: owner.clone() })
    }

    /// Forgets a key of an owner who was shredded.
    pub(crate) fn forget(&self, owner: &Owner) {
        self.ready.write().unwrap_or_else(PoisonError::into_inner).remove(owner);
    }

    fn ready(&self, owner: &Owner, id: KeyId) -> Option<Arc<SealingKey>> {
        let ready = self.ready.read().unwrap_or_else(PoisonError::into_inner);
        ready.get(owner).filter(|key| key.id == id).cloned()
    }

    fn keep(&self, owner: &Owner, key: &Arc<SealingKey>, root_version: u64) {
        let mut ready = self.ready.write().unwrap_or_else(PoisonError::into_inner);
        // A user who is shredded gets a new root first and is forgotten then: what was loaded before stays out.
        if self.root.load().version != root_version {
            return;
        }
        if ready.len() >= READY && !ready.contains_key(owner) {
            ready.clear();
        }
        ready.insert(owner.clone(), Arc::clone(key));
    }

    fn load(&self, store: &Datastore, owner: &Owner) -> Result<Option<Arc<SealingKey>>, VaultError> {
        let Some(row) = store.key(&Namespace::of(owner))? else {
            self.forget(owner);
            return Ok(None);
        };
        if let Some(key) = self.ready(owner, row.id) {
            return Ok(Some(key));
        }
        let key = Arc::new(SealingKey::new(row.id, &self.root.load().unwrap(self.vault, &row)?));
        self.keep(owner, &key, row.root_version);
        Ok(Some(key))
    }
}
