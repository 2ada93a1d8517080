//! Calls of real components, from text and from Rust.

mod calls;
mod world;
