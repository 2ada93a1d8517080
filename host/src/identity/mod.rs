//! The agent's certificate and key, which wrap the root key of its vault.
