//! From a permit to a fresh access token.
