//! Calls of real components, from text and from Rust.

mod attacks;
mod broken;
mod calls;
mod json;
mod world;
