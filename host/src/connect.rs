//! From a person's consent to a connection in the vault.
