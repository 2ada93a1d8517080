//! What a client can ask for, in both revisions.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clawcoil::host::Host;
use clawcoil::id::Caller;
use rmcp::model::{
    CacheScope, CallToolRequestParams, CallToolResponse, Extensions, Implementation, InitializeRequestParams,
    InitializeResult, ListToolsResult, PaginatedRequestParams, ProtocolVersion, ServerCapabilities, ServerConfig,
    SubscriptionFilter,
};
use rmcp::service::{NotificationContext, RequestContext, SubscriptionContext};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tracing::Instrument as _;

use super::http::Sender;
use super::tools::{Offered, offered};
use super::waiting::Waiting;
use crate::serve::{self, App, Change, Problem, RequestOrigin, Shared};

/// The revisions that are spoken, the oldest first.
const VERSIONS: &[ProtocolVersion] =
    &[ProtocolVersion::V_2025_06_18, ProtocolVersion::V_2025_11_25, ProtocolVersion::V_2026_07_28];

const INSTRUCTIONS: &str = "\
Each tool is a skill that acts with accounts of the person you work for. You never see a token and need none. A tool that \
needs an account that is not connected says what the person has to do; call it again when they have done it.";

/// Changes that come together are told together; the files of a skill are looked at anew after a tenth of a second.
const SETTLED: Duration = Duration::from_millis(150);

/// The longest introduction of a client, in bytes: it is kept as long as its session.
const LONGEST_HELLO: usize = 16 << 10;
/// How often it is looked whether a client that is told of changes is still there.
const STILL_THERE: Duration = Duration::from_mins(1);

/// Serves one client. Clones are the same client's.
#[derive(Clone)]
pub(crate) struct Server {
    parts: Arc<Parts>,
    /// It is told of changes already.
    is_told: Arc<AtomicBool>,
}

struct Parts {
    app: Shared,
    callers: Callers,
    waiting: Waiting,
}

/// How the caller of a request is known.
pub(super) enum Callers {
    /// There is one: whoever started this process.
    Local(Caller),
    /// Each HTTP request has its own, a [`Sender`].
    Senders,
}

impl Server {
    pub(super) fn new(app: Shared, callers: Callers) -> Self {
        Self { parts: Arc::new(Parts { app, callers, waiting: Waiting::default() }), is_told: Arc::default() }
    }

    /// The same for another client.
    pub(super) fn for_another(&self) -> Self {
        Self { parts: Arc::clone(&self.parts), is_told: Arc::default() }
    }

    /// The calls that wait for a person.
    pub(super) fn waiting(&self) -> &Waiting {
        &self.parts.waiting
    }

    pub(super) fn app(&self) -> &App {
        &self.parts.app
    }

    pub(super) fn host(&self) -> &Host {
        &self.parts.app.host
    }

    /// Whether the one client is a program of the vault's owner, at whose screen the person sits.
    pub(super) fn is_local(&self) -> bool {
        matches!(self.parts.callers, Callers::Local(_))
    }

    /// Who asks.
    pub(super) fn sender(&self, extensions: &Extensions) -> Result<Sender, ErrorData> {
        match &self.parts.callers {
            Callers::Local(caller) => Ok(Sender { caller: caller.clone(), may_connect: true }),
            Callers::Senders => {
                let sender =
                    extensions.get::<axum::http::request::Parts>().and_then(|parts| parts.extensions.get::<Sender>());
                sender.cloned().ok_or_else(|| ErrorData::internal_error("the request has no caller", None))
            }
        }
    }
}

impl Server {
    /// A call as long as the server runs.
    async fn called(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let app = &self.parts.app;
        let _working = app.under_way.begin();
        if app.stopping.is_cancelled() {
            return Err(internal(&App::ending()));
        }
        tokio::select! {
            biased;
            done = self.call(request, context) => done,
            () = app.interrupting.cancelled() => Err(internal(&App::ending())),
        }
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().enable_tool_list_changed().build())
            .with_server_info(Implementation::new("clawcoil", env!("CARGO_PKG_VERSION")).with_title("ClawCoil"))
            .with_instructions(INSTRUCTIONS)
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        Cow::Borrowed(VERSIONS)
    }

    async fn initialize(
        &self,
        request: InitializeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<InitializeResult, ErrorData> {
        if serde_json::to_vec(&request).map_or(true, |text| text.len() > LONGEST_HELLO) {
            let most = LONGEST_HELLO >> 10;
            return Err(ErrorData::invalid_params(format!("a client says who it is in at most {most} KiB"), None));
        }
        context.peer.set_peer_info(request.clone());
        self.negotiate_initialize(&request)
    }

    async fn list_tools(
        &self,
        page: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        if page.is_some_and(|page| page.cursor.is_some()) {
            return Err(ErrorData::invalid_params("the tools are one page: no cursor was given out", None));
        }
        let caller = self.sender(&context.extensions)?.caller;
        let tools = offered(self.host(), &caller).await.map_err(|problem| internal(&problem))?;
        let tools = tools.iter().map(Offered::describe).collect();
        // A list is one caller's, and a policy can change at any moment.
        Ok(ListToolsResult::with_all_items(tools).with_ttl_ms(0).with_cache_scope(CacheScope::Private))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let asked = context.extensions.get::<axum::http::request::Parts>();
        let origin = asked.and_then(|parts| parts.extensions.get::<RequestOrigin>()).cloned();
        let meta = [context.meta.get_traceparent(), context.meta.get_tracestate()];
        let version = context.protocol_version();
        let version = version.as_ref().map(ProtocolVersion::as_str);
        let span = serve::of_mcp(origin.as_ref().map(|origin| &origin.span), version, meta);
        let called = Box::pin(self.called(request, context).instrument(span));
        match origin {
            Some(origin) => origin.id.scope(called).await,
            None => called.await,
        }
    }

    fn accepted_subscription_filter(&self, _requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(SubscriptionFilter::builder().tools_list_changed().build())
    }

    /// The newest revision: a stream of its own for what changes.
    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let mut changes = self.parts.app.changes.subscribe();
        loop {
            tokio::select! {
                () = context.cancelled() => return Ok(()),
                () = self.parts.app.stopping.cancelled() => return Ok(()),
                more = tools_changed(&mut changes) => {
                    if !more {
                        return Ok(());
                    }
                    if context.accepted().tools_list_changed == Some(true)
                        && context.sink().notify_tool_list_changed().await.is_err()
                    {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// The revisions with a handshake: told to the session, once however often the client says that it is ready.
    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        if self.is_told.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut changes = self.parts.app.changes.subscribe();
        let peer = context.peer;
        tokio::spawn(async move {
            while !peer.is_transport_closed() {
                // It is not said when a client goes, and changes may not come for days.
                let Ok(more) = tokio::time::timeout(STILL_THERE, tools_changed(&mut changes)).await else { continue };
                if !more || peer.notify_tool_list_changed().await.is_err() {
                    break;
                }
            }
        });
    }
}

/// Waits until the tools of some caller may have changed; `false`: nothing will change any more.
async fn tools_changed(changes: &mut Receiver<Change>) -> bool {
    loop {
        match changes.recv().await {
            // A connection that comes or goes changes no list: a tool says by itself what is missing.
            Ok(Change::Vault) => {}
            Ok(Change::Policy | Change::Skills) | Err(RecvError::Lagged(_)) => break,
            Err(RecvError::Closed) => return false,
        }
    }
    tokio::time::sleep(SETTLED).await;
    while changes.try_recv().is_ok() {}
    true
}

/// A fault of the host that no caller can mend. The reason is in the log already.
pub(super) fn internal(problem: &Problem) -> ErrorData {
    ErrorData::internal_error(problem.detail().to_owned(), Some(problem.to_json()))
}
