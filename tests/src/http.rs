//! Plain HTTP to loopback, one connection for each request.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use url::Url;

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    ///
    /// # Panics
    ///
    /// It is no text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }

    /// The body as JSON.
    ///
    /// # Panics
    ///
    /// It is no JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// Sends a request and reads the answer, whatever its status.
///
/// # Panics
///
/// There is no answer, or the address is not on loopback.
pub async fn send(method: Method, url: &Url, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    let address = url.socket_addrs(|| Some(80)).expect("the host is an address").first().copied().expect("one address");
    assert!(address.ip().is_loopback(), "the tests stay on loopback: {url}");
    let stream = TcpStream::connect(address).await.unwrap_or_else(|error| panic!("{url}: {error}"));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1 can be spoken");
    let connection = tokio::spawn(connection);
    let target = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
    let mut request = http::Request::builder()
        .method(method)
        .uri(target)
        .header(http::header::HOST, address.to_string())
        .header(http::header::CONNECTION, "close");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).expect("the request is in order");
    let (head, body) = sender.send_request(request).await.unwrap_or_else(|error| panic!("{url}: {error}")).into_parts();
    let body = body.collect().await.unwrap_or_else(|error| panic!("{url}: {error}")).to_bytes();
    connection.abort();
    Answer { status: head.status, headers: head.headers, body }
}
