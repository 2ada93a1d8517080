//! The agent's certificate and key, which wrap the root key of its vault.
//!
//! The certificate is public, so it only names the agent: [`AgentId`] is the SHA-256 of its `SubjectPublicKeyInfo`, and a
//! renewed certificate over the same key is the same agent. The secret is the private key. A [`Seal`] wraps and unwraps
//! one root key with it and does nothing else; [`Identity`] is the seal whose private key lies in a file.
//!
//! [`Recovery`] is the second way to the root key, for the day on which the private key is gone. [`harden_process`] keeps
//! the memory of this process out of core dumps and of other processes of the same user.

mod certificate;
mod error;
mod private_key;
mod process;
mod recovery;
mod seal;
mod software;
pub(crate) mod suite;
#[cfg(test)]
mod tests;

pub use crate::id::AgentId;
pub use error::IdentityError;
pub use process::{HardenError, harden_process};
pub use recovery::{Recovery, RecoveryError, RecoveryKey};
pub use seal::{Seal, SealError};
pub use software::Identity;
