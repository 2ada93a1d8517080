//! What the tests stand on: an authorization server that others wrote, a browser, agents in folders of their own.
//!
//! Everything is on loopback. Servers end with the value that started them.

#![expect(clippy::expect_used, clippy::panic, reason = "what can't be set up ends the test, with the reason")]

mod agent;
mod authorization_server;
mod browser;
pub mod guest;
pub mod http;
pub mod skills;
mod upstream;

pub use agent::Agent;
pub use authorization_server::{AuthorizationServer, Scripted};
pub use browser::{Arrival, Browser, Form, Page};
pub use clawcoil_canary as canary;
pub use guest::{GuestAgent, Names};
pub use upstream::{Pieces, Reply, Seen, Upstream};
