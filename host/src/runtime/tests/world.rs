//! What the tests share: one runtime, and an authority that counts.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::super::*;

#[path = "../../../benches/hot/guests.rs"]
mod guests;

/// One engine for all tests of a process: its pool is address space.
pub(super) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let engine = EngineSettings { concurrent_calls: 64, ..EngineSettings::default() };
    Runtime::new(Settings { engine, ..Settings::default() }).unwrap()
});

pub(super) async fn compile(wat: &str) -> Result<Arc<Component>, CompileError> {
    RUNTIME.compile(wat::parse_str(wat).unwrap()).await
}

/// Built once for a test run.
static GUESTS: LazyLock<HashMap<String, Vec<u8>>> = LazyLock::new(guests::build);

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

    async fn send(
        &self,
        request: http_crate::Request<Body>,
        _: Timeouts,
    ) -> Result<http_crate::Response<Body>, SendError> {
        self.sent.fetch_add(1, Ordering::Relaxed);
        if request.uri().authority().is_some_and(|authority| authority == "granted.test") {
            let body = http_body_util::Full::new(bytes::Bytes::from_static(b"body"));
            let body = http_body_util::BodyExt::map_err(body, |never| match never {});
            return Ok(http_crate::Response::new(http_body_util::BodyExt::boxed_unsync(body)));
        }
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
