//! The protocol, without storage.
