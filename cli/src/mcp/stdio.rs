//! The protocol on standard input and output, for an agent that starts its servers by itself.
//!
//! The person sits at the same machine, so accounts are connected in their browser, on pages that this process serves on
//! loopback. A link signs the browser in, once, as the user of this process: whoever started it is the owner of the vault.

use std::net::Ipv4Addr;
use std::sync::Arc;

use clawcoil::host::Host;
use clawcoil::id::Caller;
use rmcp::ServiceExt as _;
use rmcp::service::{QuitReason, ServerInitializeError};
use rmcp::transport::stdio;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::server::{Callers, Server};
use crate::exit::Failure;
use crate::serve::{self, App, Config, Origins};

/// Serves the one client at the other end until it goes.
pub(crate) async fn serve(host: Arc<Host>, config: Config, caller: Caller) -> Result<(), Failure> {
    let unusable = |error: std::io::Error| Failure::error(format!("loopback can't be listened at: {error}"));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(unusable)?;
    let address = listener.local_addr().map_err(unusable)?;
    let public = format!("http://{address}").parse().map_err(|_| Failure::error("the address is no part of a URL"))?;
    let origins = Origins::new(public, [format!("localhost:{}", address.port())]);
    let app = Arc::new(App::new(Arc::clone(&host), origins, config));
    let watching = app.changes.watch(host);
    let pages = serve::pages(Arc::clone(&app));
    let pages = tokio::spawn(async move { axum::serve(listener, pages).await });
    let serving = Server::new(app, Callers::Local(caller)).serve_with_ct(stdio(), CancellationToken::new());
    let ended = match Box::pin(serving).await {
        Ok(running) => match running.waiting().await {
            Ok(QuitReason::JoinError(error)) | Err(error) => {
                Err(Failure::error(format!("the server ended badly: {error}")))
            }
            Ok(_) => Ok(()),
        },
        // Somebody looked whether it starts, and left.
        Err(ServerInitializeError::ConnectionClosed(_)) => Ok(()),
        Err(error) => Err(Failure::error(format!("the client did not speak the protocol: {error}"))),
    };
    watching.abort();
    pages.abort();
    ended
}
