//! Compiled components on disk.
//!
//! An entry is native code, so it is trusted only with a MAC under a key of the vault, and the bytes that were checked are
//! the bytes that are loaded. An entry that is missing, old or wrong costs a compilation, nothing else.

use std::fs;
use std::hash::{Hash as _, Hasher};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use wasmtime::component::Component;
use zeroize::Zeroizing;

use crate::id::Digest;
use crate::secret::Key;

const MAC_LENGTH: usize = 32;
/// The most entries that are kept; the oldest go first.
const MOST_ENTRIES: usize = 256;

/// Where compiled components are kept, and the key that vouches for them.
#[derive(Debug)]
pub struct CompileCache {
    folder: PathBuf,
    key: Key,
}

impl CompileCache {
    /// A cache in this folder, which is made if it is not there. Nobody but the owner may enter it.
    pub fn open(folder: &Path, key: Key) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        Ok(Self { folder: folder.to_owned(), key })
    }

    /// The component, if it was compiled before by this very engine.
    pub(super) fn load(&self, engine: &wasmtime::Engine, digest: Digest) -> Option<Component> {
        let id = EntryId::new(engine, digest);
        let path = self.folder.join(id.file_name());
        let entry = fs::read(&path).ok()?;
        let (mac, code) = entry.split_at_checked(MAC_LENGTH)?;
        if self.mac(&id, code).verify_slice(mac).is_err() {
            tracing::warn!(?path, "this compiled component was not written by this host: it is compiled again");
            let _gone = fs::remove_file(&path);
            return None;
        }
        // SAFETY: the code is what `Component::serialize` gave in this function's counterpart: the MAC under a key that
        // never leaves the vault says so, for this component, this engine and these bytes.
        #[expect(unsafe_code, reason = "native code can't be loaded otherwise; the argument stands above")]
        let component = unsafe { Component::deserialize(engine, code) };
        component.inspect_err(|error| tracing::warn!(?path, %error, "a compiled component can't be loaded")).ok()
    }

    /// Keeps the component for the next start. What goes wrong is logged: it costs time, not correctness.
    pub(super) fn store(&self, component: &Component, digest: Digest) {
        let stored = component.serialize().map_err(io::Error::other).and_then(|code| {
            let id = EntryId::new(component.engine(), digest);
            let mac = self.mac(&id, &code).finalize().into_bytes();
            let path = self.folder.join(id.file_name());
            let half_written = path.with_extension(format!("{}.tmp", std::process::id()));
            let mut file =
                fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&half_written)?;
            file.write_all(&mac)?;
            file.write_all(&code)?;
            fs::rename(&half_written, &path)
        });
        match stored {
            Ok(()) => self.prune(),
            Err(error) => tracing::warn!(folder = ?self.folder, %error, "a compiled component can't be kept"),
        }
    }

    fn mac(&self, id: &EntryId, code: &[u8]) -> Hmac<Sha256> {
        // RFC 2104: a key shorter than the block is filled up with zeros.
        let mut block = Zeroizing::new([0; 64]);
        for (place, byte) in block.iter_mut().zip(self.key.expose()) {
            *place = *byte;
        }
        let mut mac = Hmac::<Sha256>::new((&*block).into());
        mac.update(b"clawcoil compiled component v1\0");
        mac.update(&id.0);
        mac.update(code);
        mac
    }

    fn prune(&self) {
        let Ok(folder) = fs::read_dir(&self.folder) else { return };
        let mut entries: Vec<_> = folder
            .flatten()
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        if entries.len() > MOST_ENTRIES {
            entries.sort();
            for (_, path) in entries.iter().take(entries.len() - MOST_ENTRIES) {
                let _gone = fs::remove_file(path);
            }
        }
    }
}

/// A component as one engine compiles it: its digest, and everything of the engine that changes the code.
struct EntryId([u8; 32]);

impl EntryId {
    fn new(engine: &wasmtime::Engine, digest: Digest) -> Self {
        let mut hasher = Collect(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        hasher.0.update(digest.as_bytes());
        Self(hasher.0.finalize().into())
    }

    fn file_name(&self) -> String {
        format!("{}.cwasm", hex::encode(self.0))
    }
}

/// A hasher that doesn't lose anything.
struct Collect(Sha256);

impl Hasher for Collect {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Key {
        Key::fill_with(|key| key.fill(byte))
    }

    fn engine() -> wasmtime::Engine {
        wasmtime::Engine::default()
    }

    fn entries(folder: &Path) -> Vec<PathBuf> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn an_entry_is_loaded_by_the_key_that_wrote_it_and_only_untouched() {
        let folder = tempfile::tempdir().unwrap();
        let (engine, bytes) = (engine(), wat::parse_str("(component (core module))").unwrap());
        let digest = Digest::of(&bytes);
        let cache = CompileCache::open(folder.path(), key(1)).unwrap();
        assert!(cache.load(&engine, digest).is_none());
        cache.store(&Component::from_binary(&engine, &bytes).unwrap(), digest);
        assert!(cache.load(&engine, digest).is_some());
        assert!(cache.load(&engine, Digest::of(b"another component")).is_none());

        let [path] = &entries(folder.path())[..] else { panic!("one entry") };
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777, 0o700);
        let good = fs::read(path).unwrap();
        for place in [0, MAC_LENGTH - 1, MAC_LENGTH, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[place] ^= 1;
            fs::write(path, bad).unwrap();
            assert!(cache.load(&engine, digest).is_none(), "{place}");
            assert!(entries(folder.path()).is_empty(), "what is not ours is removed");
        }
        for length in [0, MAC_LENGTH - 1, MAC_LENGTH, good.len() - 1] {
            fs::write(path, &good[..length]).unwrap();
            assert!(cache.load(&engine, digest).is_none(), "{length}");
        }
        fs::write(path, &good).unwrap();
        let other = CompileCache::open(folder.path(), key(2)).unwrap();
        assert!(other.load(&engine, digest).is_none(), "another vault's key");
    }

    #[test]
    fn an_entry_of_an_engine_with_other_settings_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = wat::parse_str("(component (core module))").unwrap();
        let digest = Digest::of(&bytes);
        let cache = CompileCache::open(folder.path(), key(1)).unwrap();
        cache.store(&Component::from_binary(&engine(), &bytes).unwrap(), digest);
        let other = wasmtime::Engine::new(wasmtime::Config::new().epoch_interruption(true)).unwrap();
        assert!(cache.load(&other, digest).is_none());
    }

    #[test]
    fn an_entry_moved_to_another_component_s_place_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let engine = engine();
        let bytes = wat::parse_str("(component (core module))").unwrap();
        let (digest, other) = (Digest::of(&bytes), Digest::of(b"other"));
        let cache = CompileCache::open(folder.path(), key(1)).unwrap();
        cache.store(&Component::from_binary(&engine, &bytes).unwrap(), digest);
        let place = folder.path().join(EntryId::new(&engine, other).file_name());
        fs::rename(&entries(folder.path())[0], place).unwrap();
        assert!(cache.load(&engine, other).is_none());
    }
}
