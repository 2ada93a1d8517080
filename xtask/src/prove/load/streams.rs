//! Streams that stay open: agents that listen for changed tools, and pages that listen for what happens.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::clients::Connection;
use super::servers::Serve;

/// Pages of one sign-in that may listen at once.
const PAGES: usize = 32;

/// All that were opened.
pub(super) struct Streams(Vec<Connection>);

/// Opens so many of each kind.
pub(super) fn open(serve: &Serve, count: usize) -> Result<Streams> {
    let mut streams = Vec::with_capacity(2 * count);
    let listen = listen(serve)?;
    for _ in 0..count {
        streams.push(stream(serve, listen.as_bytes())?);
    }
    let mut cookie = String::new();
    for number in 0..count {
        if number % PAGES == 0 {
            cookie = signed_in(serve)?;
        }
        let request = format!("GET /console/events HTTP/1.1\r\nhost: {}\r\ncookie: {cookie}\r\n\r\n", serve.address());
        streams.push(stream(serve, request.as_bytes())?);
    }
    Ok(Streams(streams))
}

impl Streams {
    /// Whether all are open still.
    pub(super) fn alive(mut self) -> Result<Self> {
        for stream in &mut self.0 {
            ensure!(stream.is_open()?, "the server has closed it");
        }
        Ok(self)
    }
}

fn stream(serve: &Serve, request: &[u8]) -> Result<Connection> {
    let mut connection = Connection::open(serve.address())?;
    let (status, headers) = connection.head(request)?;
    let is_stream =
        headers.iter().any(|(name, value)| name == "content-type" && value.starts_with("text/event-stream"));
    ensure!(status == 200 && is_stream, "no stream, but {status} {headers:?}");
    Ok(connection)
}

/// An agent that asks to be told when its tools change, in the revision of MCP that has no sessions.
fn listen(serve: &Serve) -> Result<String> {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": { "name": "load", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let params = json!({ "notifications": { "toolsListChanged": true }, "_meta": meta });
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": params }).to_string();
    Ok(format!(
        "POST /mcp HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\nmcp-protocol-version: 2026-07-28\r\n\
         mcp-method: subscriptions/listen\r\ncontent-length: {}\r\n\r\n{body}",
        serve.address(),
        serve.token()?,
        body.len()
    ))
}

/// A browser in which an operator has signed in by a link; its cookie.
fn signed_in(serve: &Serve) -> Result<String> {
    let origin = format!("http://{}", serve.address());
    let made = serve.told(&["console", "--print", "--operator", "--url", &origin, "--json"])?;
    let made: Value = serde_json::from_str(&made)?;
    let url = made.get("url").and_then(Value::as_str).context("no link was made")?;
    let path = url.strip_prefix(&origin).context("the link is for another host")?;
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {}\r\norigin: {origin}\r\ncontent-type: application/x-www-form-urlencoded\r\n\
         content-length: 0\r\n\r\n",
        serve.address()
    );
    let (status, headers) = Connection::open(serve.address())?.head(request.as_bytes())?;
    let cookies: Vec<_> = headers
        .iter()
        .filter(|(name, _)| name == "set-cookie")
        .filter_map(|(_, value)| value.split(';').next())
        .collect();
    ensure!(!cookies.is_empty(), "the link signs nobody in: {status} {headers:?}");
    Ok(cookies.join("; "))
}
