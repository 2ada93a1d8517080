//! Where the browser comes back to: a listener on this machine (RFC 8252 section 7.3).

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use clawcoil::provider::{Loopback, LoopbackHost, Provider};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use url::Url;

use crate::exit::Failure;
use crate::sandbox::escaped;

/// A listener for one provider's redirects. It stops when this is dropped.
pub(super) struct Callback {
    redirect: Url,
    answers: mpsc::Receiver<Answer>,
    _servers: JoinSet<io::Result<()>>,
}

/// What a browser came back with. It waits for the page to show.
pub(super) struct Answer {
    query: String,
    page: oneshot::Sender<String>,
}

impl Callback {
    /// Listens where the provider sends browsers back to.
    pub(super) async fn listen(entry: &Provider) -> Result<Self, Failure> {
        let refused = || {
            Failure::error(format!(
                "{} sends nobody back to an address on this machine, so it can't be connected from the command line",
                entry.name
            ))
        };
        let port = entry.loopback.port().ok_or_else(refused)?;
        let busy = |error: io::Error| {
            Failure::error(format!(
                "port {port} on this machine, where {} sends browsers back to, can't be used: {error}; end the program that has it",
                entry.name
            ))
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(busy)?;
        let port = listener.local_addr().map_err(busy)?.port();
        let redirect = entry.loopback.redirect(&entry.id, port).ok_or_else(refused)?;

        let (sender, answers) = mpsc::channel(1);
        let app = Router::new().route(redirect.path(), get(arrived)).with_state(sender);
        let mut servers = JoinSet::new();
        if names_localhost(&entry.loopback)
            && let Ok(listener) = TcpListener::bind((Ipv6Addr::LOCALHOST, port)).await
        {
            // Some systems resolve `localhost` to this address first.
            let app = app.clone();
            servers.spawn(async move { axum::serve(listener, app).await });
        }
        servers.spawn(async move { axum::serve(listener, app).await });
        Ok(Self { redirect, answers, _servers: servers })
    }

    /// The redirect address.
    pub(super) fn redirect(&self) -> &Url {
        &self.redirect
    }

    /// The next browser that comes back.
    pub(super) async fn next(&mut self) -> Result<Answer, Failure> {
        self.answers.recv().await.ok_or_else(|| Failure::error("the listener for the browser has ended"))
    }
}

impl Answer {
    /// The query of the redirect, as it came.
    pub(super) fn query(&self) -> &str {
        &self.query
    }

    /// Shows a sentence in the browser.
    pub(super) async fn respond(self, sentence: &str) {
        // A browser that was closed meanwhile reads nothing.
        let _ = self.page.send(sentence.to_owned());
        // The page is on its way before the command may end.
        tokio::task::yield_now().await;
    }
}

fn names_localhost(loopback: &Loopback) -> bool {
    match loopback {
        Loopback::AnyPort(host) | Loopback::Port(host, _) => *host == LoopbackHost::Name,
        Loopback::Refused => false,
    }
}

async fn arrived(State(sender): State<mpsc::Sender<Answer>>, RawQuery(query): RawQuery) -> Response {
    let (page, sentence) = oneshot::channel();
    let answer = Answer { query: query.unwrap_or_default(), page };
    if sender.send(answer).await.is_err() {
        return StatusCode::GONE.into_response();
    }
    let Ok(sentence) = sentence.await else { return StatusCode::GONE.into_response() };
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>ClawCoil</title></head><body><p>{}</p></body></html>",
        escaped(&sentence)
    );
    let headers = [
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::CACHE_CONTROL, "no-store"),
        // The address holds the code: nobody is to learn it from a Referer.
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONNECTION, "close"),
    ];
    (headers, Html(html)).into_response()
}
