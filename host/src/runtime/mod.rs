//! The WebAssembly engine and the calling of skills.
