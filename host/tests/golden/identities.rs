//! An agent's certificate and key that are not what they should be.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use clawcoil::clock::SystemClock;
use clawcoil::identity::{Identity, Recovery, RecoveryKey};

use super::Case;

struct Files(tempfile::TempDir);

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Makes `NAME.crt` and `NAME.key`.
    fn generate(&self, name: &str) {
        let (certificate, key) = (self.path(&format!("{name}.crt")), self.path(&format!("{name}.key")));
        Identity::generate(&certificate, &key, &SystemClock::new()).expect("an identity");
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("the file can be read")
    }

    fn write(&self, name: &str, contents: impl AsRef<[u8]>, mode: u32) {
        std::fs::write(self.path(name), contents).expect("the file can be written");
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(self.path(name), mode).expect("the mode can be set");
    }

    fn case(&self, name: &str, certificate: &str, key: &str) -> Case {
        let loaded = Identity::load(&self.path(certificate), &self.path(key));
        Case::new(name, loaded.map_err(|error| without(&error.to_string(), self.0.path())))
    }
}

/// The text without the folder, which is another one each time.
pub(super) fn without(text: &str, folder: &Path) -> String {
    text.replace(&folder.display().to_string(), "FOLDER")
}

pub(super) fn identities() -> Vec<Case> {
    let files = Files(tempfile::tempdir().expect("a folder"));
    files.generate("agent");
    files.generate("other");
    let (key, certificate) = (files.read("agent.key"), files.read("agent.crt"));
    let curve = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key");
    for (name, contents) in [
        ("cut.key", key.as_bytes().get(..60).expect("a key is longer").to_vec()),
        ("empty.key", Vec::new()),
        ("garbage.key", vec![0xff; 500]),
        ("large.key", vec![b'a'; 100_000]),
        ("encrypted.key", key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY").into()),
        ("old.key", key.replace("PRIVATE KEY", "EC PRIVATE KEY").into()),
        ("rsa.key", key.replace("PRIVATE KEY", "RSA PRIVATE KEY").into()),
        ("public.key", key.replace("PRIVATE KEY", "PUBLIC KEY").into()),
        ("certificate.key", certificate.clone().into()),
        ("p384.key", curve.serialize_pem().into()),
        ("cut.crt", certificate.as_bytes().get(..100).expect("a certificate is longer").to_vec()),
        ("key.crt", key.clone().into()),
    ] {
        files.write(name, contents, 0o600);
    }
    files.write("open.key", &key, 0o644);
    files.write("group.key", &key, 0o640);
    std::fs::create_dir(files.path("folder.key")).expect("a folder");
    let mode = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(files.path("folder.key"), mode).expect("the mode can be set");

    let mut cases: Vec<Case> = [
        ("no-key", "agent.crt", "none.key"),
        ("no-certificate", "none.crt", "agent.key"),
        ("key-is-cut", "agent.crt", "cut.key"),
        ("key-is-empty", "agent.crt", "empty.key"),
        ("key-is-garbage", "agent.crt", "garbage.key"),
        ("key-is-a-large-file", "agent.crt", "large.key"),
        ("key-is-a-folder", "agent.crt", "folder.key"),
        ("key-is-encrypted", "agent.crt", "encrypted.key"),
        ("key-has-the-older-form", "agent.crt", "old.key"),
        ("key-is-rsa", "agent.crt", "rsa.key"),
        ("key-is-public", "agent.crt", "public.key"),
        ("key-is-a-certificate", "agent.crt", "certificate.key"),
        ("key-of-another-curve", "agent.crt", "p384.key"),
        ("key-is-open-to-all", "agent.crt", "open.key"),
        ("key-is-open-to-the-group", "agent.crt", "group.key"),
        ("certificate-is-cut", "cut.crt", "agent.key"),
        ("certificate-is-a-key", "key.crt", "agent.key"),
        ("certificate-of-another-key", "other.crt", "agent.key"),
    ]
    .map(|(name, certificate, key)| files.case(name, certificate, key))
    .into();
    let again = Identity::generate(&files.path("agent.crt"), &files.path("agent.key"), &SystemClock::new());
    cases.push(Case::new("made-twice", again.map_err(|error| without(&error.to_string(), files.0.path()))));
    let (_, secret) = Recovery::generate();
    cases.push(Case::new("recovery-to-a-secret", Recovery::to(&secret.expose())));
    cases.push(Case::new("recovery-to-no-recipient", Recovery::to("ann@example.com")));
    cases.push(Case::new("recovery-key-is-cut", "AGE-SECRET-KEY-1".parse::<RecoveryKey>()));
    cases
}
