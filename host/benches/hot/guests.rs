//! The components of `tests/guests`, for tests and benches.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

/// Builds them, which is quick where they are up to date, and reads them.
pub(crate) fn build() -> HashMap<String, Vec<u8>> {
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/guests");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--release", "--target", "wasm32-wasip2"]).current_dir(&guests);
    // What the outer cargo says of its own build is not meant for this one.
    cargo.env_remove("CARGO_ENCODED_RUSTFLAGS").env_remove("RUSTFLAGS").env_remove("CARGO_TARGET_DIR");
    assert!(cargo.status().unwrap().success(), "the guests can't be built: is the target wasm32-wasip2 installed?");
    std::fs::read_dir(guests.join("target/wasm32-wasip2/release"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "wasm"))
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap()))
        .collect()
}
