//! What a store holds for one call. Nothing of it outlives the call.

use std::sync::Arc;

use tracing::Span;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::authority::Authority;
use super::http::Hooks;
use super::limits::{Limiter, Limits};
use super::log::Log;
use super::tokens::{HostCalls, TokensView};

/// The most random bytes that a guest gets in one call of the host.
const RANDOM: u64 = 1 << 20;
/// The most that the headers of one request or answer may take.
const HEADERS: usize = 64 << 10;

pub(super) struct State {
    /// Made when the guest first asks for any of it, which many never do.
    wasi: Option<WasiCtx>,
    log: Log,
    http: WasiHttpCtx,
    table: ResourceTable,
    hooks: Hooks,
    pub(super) limiter: Limiter,
}

impl State {
    pub(super) fn new(limits: &Limits, authority: Arc<dyn Authority>, log: &Log) -> Self {
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(HEADERS);
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.handles);
        let hooks = Hooks { authority, budget: HostCalls::new(limits.host_calls), span: Span::current() };
        Self { wasi: None, log: log.clone(), http, table, hooks, limiter: Limiter::new(limits) }
    }

    pub(super) fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }

    pub(super) fn tokens(&mut self) -> TokensView<'_> {
        TokensView { table: &mut self.table, authority: &self.hooks.authority, budget: &self.hooks.budget }
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let ctx = self.wasi.get_or_insert_with(|| wasi(&self.log));
        WasiCtxView { ctx, table: &mut self.table }
    }
}

/// What inherits nothing: no arguments, variables, folders, input, sockets or name look-up.
fn wasi(log: &Log) -> WasiCtx {
    WasiCtx::builder()
        .stdout(log.clone())
        .stderr(log.clone())
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .allow_blocking_current_thread(false)
        .max_random_size(RANDOM)
        .build()
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.hooks }
    }
}
