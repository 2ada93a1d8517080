//! What the tests share: one runtime, and an authority that counts.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::super::*;

/// One engine for all tests of a process: its pool is address space.
pub(super) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let engine = EngineSettings { concurrent_calls: 64, ..EngineSettings::default() };
    Runtime::new(Settings { engine, ..Settings::default() }).unwrap()
});

pub(super) async fn compile(wat: &str) -> Result<Arc<Component>, CompileError> {
    RUNTIME.compile(wat::parse_str(wat).unwrap()).await
}

/// The components of `tests/guests`, built once for a test run; nothing is done where they are up to date.
static GUESTS: LazyLock<HashMap<String, Vec<u8>>> = LazyLock::new(|| {
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
});

pub(super) async fn guest(name: &str) -> Arc<Component> {
    RUNTIME.compile(GUESTS[name].clone()).await.unwrap()
}

/// Grants everything, counts, and waits where it is told to.
#[derive(Default)]
pub(super) struct Grants {
    pub(super) asked: AtomicUsize,
    pub(super) sent: AtomicUsize,
    pub(super) waiting: AtomicUsize,
    pub(super) sleeps: bool,
}

/// Counts a host call that is under way, also when it is dropped in the middle.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait::async_trait]
impl Authority for Grants {
    async fn get_token(&self, _: TokenRequest<'_>) -> Result<TokenHandle, AuthError> {
        let id = self.asked.fetch_add(1, Ordering::Relaxed) as u64;
        let _waits = Waits::new(&self.waiting);
        if self.sleeps {
            std::future::pending::<()>().await;
        }
        Ok(TokenHandle {
            id,
            info: TokenInfo {
                provider: "test".into(),
                api_origin: "https://api.test".into(),
                account: None,
                scopes: Vec::new(),
                expires_at_ms: None,
            },
            placeholder: "placeholder".into(),
        })
    }

    fn invalidate(&self, _: u64) {}

    async fn reveal(&self, _: u64) -> Result<RevealedToken, AuthError> {
        Ok(RevealedToken {
            token: crate::secret::AccessToken::new("canary".to_owned()),
            token_type: "Bearer".into(),
            expires_at_ms: None,
            refresh_after_ms: None,
        })
    }

    async fn send(&self, _: http_crate::Request<Body>, _: Timeouts) -> Result<http_crate::Response<Body>, SendError> {
        self.sent.fetch_add(1, Ordering::Relaxed);
        Err(SendError::Denied("no grant allows this (why_00)".into()))
    }
}

use ::http as http_crate;

pub(super) const ALL: Linked = Linked { tokens: true, reveal: true, http: true };

pub(super) async fn call(component: &Component, tool: &str, input: Value) -> Result<Outcome, CallError> {
    call_with(component, tool, input, &Limits { time: Duration::from_secs(20), ..Limits::default() }).await
}

pub(super) async fn call_with(
    component: &Component,
    tool: &str,
    input: Value,
    limits: &Limits,
) -> Result<Outcome, CallError> {
    let user = "ann".parse().unwrap();
    let authority = Arc::new(Grants::default());
    RUNTIME.call(component, Call { user: &user, tool, input: &input, linked: ALL, authority, limits }).await
}
