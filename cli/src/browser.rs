//! What a person's browser does at a consent: open an address, follow the redirects, answer the form. For the demo and for
//! tests against the sandbox; it talks to this machine only.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use axum::body::Bytes;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use url::Url;

const TIMEOUT: Duration = Duration::from_secs(10);
const LARGEST: usize = 1 << 20;
const REDIRECTS: usize = 10;

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

/// Sends one request to a server on this machine.
pub(crate) async fn send(method: Method, url: &Url, headers: &[(&str, &str)], body: &str) -> Result<Reply> {
    let loopback = url.scheme() == "http" && url.host_str() == Some("127.0.0.1");
    ensure!(loopback, "{} is not on this machine", url.origin().ascii_serialization());
    let port = url.port_or_known_default().unwrap_or(80);
    let path = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, format!("127.0.0.1:{port}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes())))?;
    tokio::time::timeout(TIMEOUT, exchange(port, request))
        .await
        .with_context(|| format!("no answer from 127.0.0.1:{port} within {} s", TIMEOUT.as_secs()))?
}

async fn exchange(port: u16, request: Request<Full<Bytes>>) -> Result<Reply> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream =
        tokio::net::TcpStream::connect(address).await.with_context(|| format!("nothing listens on {address}"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let (parts, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, LARGEST).collect().await.map_err(anyhow::Error::from_boxed)?.to_bytes();
    driver.abort();
    Ok(Reply { status: parts.status, headers: parts.headers, body: String::from_utf8_lossy(&body).into_owned() })
}

/// Opens the address and goes on like a person who agrees: follows redirects, chooses `account` and presses Allow where a page
/// asks, until there is a page without a form.
pub(crate) async fn consent(start: &Url, account: &str) -> Result<Reply> {
    let mut url = start.clone();
    let mut reply = send(Method::GET, &url, &[], "").await?;
    for _ in 0..REDIRECTS {
        if reply.status.is_redirection() {
            let to = reply.headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
            url = url.join(to.context("a redirect without an address")?)?;
            reply = send(Method::GET, &url, &[], "").await?;
        } else if let Some(hidden) = hidden_fields(&reply.body) {
            ensure!(reply.status.is_success(), "the consent page said {}", reply.status);
            let form = url::form_urlencoded::Serializer::new(String::new())
                .extend_pairs(hidden)
                .extend_pairs([("account", account), ("decision", "allow")])
                .finish();
            let headers = [("content-type", "application/x-www-form-urlencoded")];
            reply = send(Method::POST, &url, &headers, &form).await?;
        } else {
            return Ok(reply);
        }
    }
    bail!("more than {REDIRECTS} redirects");
}

/// The hidden fields of a page's form; `None`: it has no form.
fn hidden_fields(page: &str) -> Option<Vec<(String, String)>> {
    let (_, form) = page.split_once("<form ")?;
    let (form, _) = form.split_once("</form>")?;
    let inputs = form.split("<input ").skip(1).filter_map(|input| input.split_once('>'));
    let hidden = inputs.map(|(input, _)| input).filter(|input| input.contains("type=\"hidden\""));
    Some(hidden.filter_map(|input| Some((attribute(input, "name")?, attribute(input, "value")?))).collect())
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let (_, value) = tag.split_once(&format!("{name}=\""))?;
    Some(value.split_once('"')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_but_this_machine_is_ever_dialled() {
        for elsewhere in
            ["https://127.0.0.1/", "http://example.com/", "http://127.0.0.1.example.com/", "http://10.0.0.1/"]
        {
            let url = Url::parse(elsewhere).unwrap();
            let error = send(Method::GET, &url, &[], "").await.unwrap_err();
            assert!(error.to_string().contains("not on this machine"), "{elsewhere}: {error}");
        }
    }
}
