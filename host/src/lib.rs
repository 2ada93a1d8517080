//! Runs untrusted agent skills, compiled to WebAssembly components, with a person's accounts, without handing the skills
//! the person's tokens.
//!
//! The modules below stand in their one order: each imports only from those above it.

pub mod id;
pub mod secret;
pub mod clock;
pub mod recall;
pub mod diagnostic;
pub mod observe;
pub mod audit;
pub mod policy;
pub mod identity;
pub mod vault;
pub mod net;
pub mod oauth;
pub mod provider;
pub mod connect;
pub mod broker;
pub mod egress;
pub mod runtime;
pub mod registry;
pub mod host;
