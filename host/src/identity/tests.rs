//! The identity's rules.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use clawcoil_canary as canary;

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::id::VaultId;
use crate::secret::Key;

const VAULT: VaultId = VaultId::from_bytes([7; 16]);

struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes `NAME.crt` and `NAME.key`.
    fn generate(&self, name: &str) -> Identity {
        let (certificate, key) = (self.path(&format!("{name}.crt")), self.path(&format!("{name}.key")));
        let identity = Identity::generate(&certificate, &key, &SystemClock::new()).unwrap();
        canary::plant_key(&std::fs::read_to_string(key).unwrap());
        identity
    }

    fn load(&self, certificate: &str, key: &str) -> Result<Identity, IdentityError> {
        Identity::load(&self.path(certificate), &self.path(key))
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), text).unwrap();
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// A P-256 key and its certificate, as another program makes them.
    fn p256(&self, name: &str) -> rcgen::KeyPair {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&pair).unwrap();
        self.write(&format!("{name}.key"), pair.serialize_pem());
        self.write(&format!("{name}.crt"), certificate.pem());
        pair
    }
}

fn root() -> Key {
    let root = Key::fill_with(|key| SystemClock::new().fill_random(key));
    canary::plant(canary::Kind::RootKey, root.expose());
    root
}

async fn moves(from: &Identity, to: &Identity, vault: &VaultId) -> Result<bool, SealError> {
    let root = root();
    let wrapped = from.wrap(&VAULT, &root, &SystemClock::new()).await.unwrap();
    to.unwrap(vault, &wrapped).await.map(|key| key.expose() == root.expose())
}

#[tokio::test]
async fn an_identity_unwraps_what_it_wrapped_and_no_other_does() {
    let files = Files::new();
    let (one, two) = (files.generate("one"), files.generate("two"));
    assert!(moves(&one, &files.load("one.crt", "one.key").unwrap(), &VAULT).await.unwrap());
    assert!(matches!(moves(&one, &two, &VAULT).await, Err(SealError::Foreign)));
    assert!(matches!(moves(&one, &one, &VaultId::from_bytes([8; 16])).await, Err(SealError::Foreign)));
}

#[tokio::test]
async fn a_p256_identity_of_another_program_works_the_same() {
    let files = Files::new();
    files.p256("other");
    let loaded = files.load("other.crt", "other.key").unwrap();
    assert!(moves(&loaded, &files.load("other.crt", "other.key").unwrap(), &VAULT).await.unwrap());
    assert!(matches!(moves(&loaded, &files.generate("one"), &VAULT).await, Err(SealError::Foreign)));
}

#[tokio::test]
async fn a_renewed_certificate_over_the_same_key_is_the_same_agent() {
    let files = Files::new();
    let pair = files.p256("agent");
    let before = files.load("agent.crt", "agent.key").unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["renewed.example".to_owned()]).unwrap();
    params.serial_number = Some(42_u64.into());
    files.write("agent.crt", params.self_signed(&pair).unwrap().pem());
    let after = files.load("agent.crt", "agent.key").unwrap();
    assert_eq!(before.agent_id(), after.agent_id());
    assert!(moves(&before, &after, &VAULT).await.unwrap());
}

#[tokio::test]
async fn each_flipped_bit_and_each_cut_of_a_wrap_is_an_error() {
    let identity = Files::new().generate("one");
    let wrapped = identity.wrap(&VAULT, &root(), &SystemClock::new()).await.unwrap();
    for bit in 0..wrapped.len() * 8 {
        let mut bad = wrapped.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(identity.unwrap(&VAULT, &bad).await.is_err(), "bit {bit}");
    }
    for length in 0..wrapped.len() {
        assert!(identity.unwrap(&VAULT, &wrapped[..length]).await.is_err(), "length {length}");
    }
}

#[test]
fn the_key_file_is_for_its_owner_only_and_nothing_is_overwritten() {
    let files = Files::new();
    files.generate("one");
    let mode = |name: &str| std::fs::metadata(files.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("one.key"), 0o600);
    let before = std::fs::read(files.path("one.key")).unwrap();
    let again = |certificate: &str, key: &str| {
        Identity::generate(&files.path(certificate), &files.path(key), &SystemClock::new()).unwrap_err()
    };
    assert!(matches!(again("new.crt", "one.key"), IdentityError::Exists(path) if path.ends_with("one.key")));
    assert!(matches!(again("one.crt", "new.key"), IdentityError::Exists(path) if path.ends_with("one.crt")));
    assert_eq!(std::fs::read(files.path("one.key")).unwrap(), before);
    assert!(!files.path("new.key").exists() && !files.path("new.crt").exists());
}

#[test]
fn a_recovery_copy_opens_with_its_key_and_for_its_vault_only() {
    let (recovery, key) = Recovery::generate();
    canary::plant(canary::Kind::RecoveryKey, key.expose().as_bytes());
    let root = root();
    let copy = recovery.wrap(&VAULT, &root).unwrap().unwrap();
    let again: RecoveryKey = key.expose().parse().unwrap();
    assert_eq!(again.unwrap(&VAULT, &copy).unwrap().expose(), root.expose());
    assert!(matches!(key.unwrap(&VaultId::from_bytes([8; 16]), &copy), Err(RecoveryError::Damaged)));
    assert!(matches!(Recovery::generate().1.unwrap(&VAULT, &copy), Err(RecoveryError::WrongKey)));
    let named = Recovery::to(&recovery.recipient().unwrap()).unwrap().wrap(&VAULT, &root).unwrap().unwrap();
    assert_eq!(key.unwrap(&VAULT, &named).unwrap().expose(), root.expose());
    assert!(Recovery::none().wrap(&VAULT, &root).unwrap().is_none());
    assert!(matches!(Recovery::to(&key.expose()), Err(RecoveryError::SecretAsRecipient)));
    assert!(matches!(Recovery::to("ann@example.com"), Err(RecoveryError::Recipient)));
    assert!(matches!("age1".parse::<RecoveryKey>(), Err(RecoveryError::Secret)));
    assert_eq!(format!("{key:?}"), "RecoveryKey(…)");
}

#[test]
fn nothing_of_the_private_key_is_shown() {
    let files = Files::new();
    let identity = files.generate("one");
    assert_eq!(format!("{identity:?}"), format!("Identity {{ id: {}, .. }}", identity.agent_id()));
}
