//! Tokens at rest.
