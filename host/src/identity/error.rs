//! What can be wrong with an identity's files.

use std::path::PathBuf;

/// An identity that can't be made or loaded; each message names the file and the way out.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file would have been overwritten.
    #[error("{}: already exists, and an identity is never overwritten: name another file, or move this one away", .0.display())]
    Exists(PathBuf),
    /// There is no such file.
    #[error("{}: no such file: name the file that has it, or bring it back from a copy; `clawcoil recover` gives the vault of a lost identity to a new one, `clawcoil init` makes a new agent", .0.display())]
    Missing(PathBuf),
    /// The system did not let us read or write.
    #[error("{}: can't {operation} it: check the folder and who may access it", .path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Others than the owner may read the private key.
    #[error("{}: the private key has mode {mode:04o}, so others can read it: run `chmod 600` on it, and take a new key if somebody may have", .path.display())]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file of the private key holds something else.
    #[error("{}: no private key in PKCS#8 PEM form: {why}", .path.display())]
    NotAKey {
        /// The key file.
        path: PathBuf,
        /// What is in it, and what to do.
        why: &'static str,
    },
    /// The file of the certificate holds something else.
    #[error("{}: no X.509 certificate in PEM form: name the file that begins with `-----BEGIN CERTIFICATE-----`", .0.display())]
    NotACertificate(PathBuf),
    /// The certificate is of another key.
    #[error("{}: this certificate does not belong to the key in {}: name the two files that were made together", .certificate.display(), .key.display())]
    Mismatch {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
    },
    /// The key or the certificate could not be made.
    #[error("can't make the certificate of the agent: this is a fault of the program")]
    Generate(#[source] rcgen::Error),
}
