//! The Model Context Protocol: skills as tools of any agent that speaks it.
//!
//! ```text
//! stdio (the local owner) ─┐
//!                          ├─► Server ─► the caller's tools ─► Host::invoke ─► answer
//! /mcp (a bearer) ─────────┘
//! ```
//!
//! Both revisions that clients speak are served: 2026-07-28, where each request stands alone, and those with a handshake up to
//! 2025-11-25. A caller sees the tools that its policy lets start at this moment, and no others. Its arguments are checked and
//! missing connections are found before any code of the skill runs, so that a call that is made again doubles nothing.

mod answer;
mod call;
mod http;
mod metadata;
mod names;
mod person;
mod progress;
mod server;
mod sessions;
mod state;
mod stdio;
mod tools;
mod waiting;

pub(crate) use http::router;
pub(crate) use stdio::serve;
