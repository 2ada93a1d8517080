//! A token endpoint that misbehaves: whatever it does, nothing panics, no good refresh token is lost, no token goes anywhere
//! else, and the error says who must act.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clawcoil_canary::Kind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::revoke::Revocable;
use super::*;
use crate::clock::{Clock, ManualClock, SystemClock, Timestamp};
use crate::net::{AddressRules, FetchLimits, Net, NetSettings};
use crate::secret::{AccessToken, ClientSecret, RefreshToken};

const SECRETS: [&str; 4] = ["client-secret-canary", "refresh-canary-1", "refresh-canary-2", "access-canary-2"];

pub(super) fn server_at(origin: &str) -> Server {
    let url = |path: &str| url::Url::parse(&format!("{origin}{path}")).unwrap();
    Server {
        name: "Example".into(),
        authorize: Some(url("/authorize")),
        token: url("/token"),
        refresh: None,
        revocation: Some(Revocation { url: url("/revoke"), style: RevocationStyle::Form }),
        introspect: Some(url("/introspect")),
        issuer: None,
        issuer_promised: false,
        client_auth: ClientAuth::Basic,
        body: BodyFormat::Form,
        scope_separator: ' ',
        scope_parameter: "scope".into(),
        authorize_parameters: std::collections::BTreeMap::new(),
        token_parameters: std::collections::BTreeMap::new(),
        answer: AnswerShape::default(),
        permanent_errors: std::collections::BTreeSet::new(),
        client_errors: std::collections::BTreeSet::new(),
    }
}

/// What the endpoint does with a connection after it has read the request.
#[derive(Clone)]
enum Act {
    Say(Vec<u8>),
    SayAndHang(Vec<u8>),
    SayAndReset(Vec<u8>),
    Flood,
    Drip,
}

struct Endpoint {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Endpoint {
    async fn that(act: Act) -> Self {
        for (kind, secret) in
            [Kind::ClientSecret, Kind::RefreshToken, Kind::RefreshToken, Kind::AccessToken].iter().zip(SECRETS)
        {
            clawcoil_canary::plant(*kind, secret);
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (act, log) = (act.clone(), Arc::clone(&log));
                tokio::spawn(async move {
                    let request = read_request(&mut stream).await;
                    log.lock().unwrap().push(request);
                    act.perform(stream).await;
                });
            }
        });
        Self { address, seen, task }
    }

    async fn that_says(status: &str, headers: &str, body: &str) -> Self {
        Self::that(Act::Say(message(status, headers, body))).await
    }

    fn server(&self) -> Server {
        server_at(&format!("http://{}", self.address))
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn message(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len()).into_bytes()
}

async fn read_request(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).await.unwrap_or(0);
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |text| text.parse().unwrap()) {
                return text;
            }
        }
        if read == 0 {
            return text;
        }
    }
}

impl Act {
    async fn perform(self, mut stream: TcpStream) {
        match self {
            Self::Say(bytes) => drop(stream.write_all(&bytes).await),
            Self::SayAndHang(bytes) => {
                drop(stream.write_all(&bytes).await);
                std::future::pending::<()>().await;
            }
            Self::SayAndReset(bytes) => {
                drop(stream.write_all(&bytes).await);
                stream.set_zero_linger().unwrap();
            }
            Self::Flood => {
                let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
                let mut alive = stream.write_all(head).await.is_ok();
                let chunk = [b"10000\r\n".as_slice(), &vec![b' '; 0x10000], b"\r\n"].concat();
                while alive {
                    alive = stream.write_all(&chunk).await.is_ok();
                }
            }
            Self::Drip => {
                let mut alive = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await.is_ok();
                while alive {
                    alive = stream.write_all(b" ").await.is_ok();
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

/// Refreshes once against the server, and checks that what fails shows no secret.
async fn refresh_under(server: &Server, clock: Arc<dyn Clock>) -> Result<TokenResponse, Error> {
    let net = Net::new(NetSettings::new(Arc::clone(&clock))).unwrap();
    let address = server.token.socket_addrs(|| None).unwrap();
    let rules = AddressRules { literal: address.into_iter().collect(), ..AddressRules::default() };
    let via = Transport { net: &net, rules: &rules, limits: FetchLimits::default(), clock: &*clock };
    let secret = ClientSecret::new(SECRETS[0].to_owned());
    let client = Client { id: "me", secret: Some(&secret), auth: ClientAuth::Basic };
    let result = refresh::refresh(&via, server, &client, &RefreshToken::new(SECRETS[1].to_owned())).await;
    let shown = match &result {
        Ok(answer) => format!("{answer:?}"),
        Err(error) => format!("{error} {error:?} {error:#?}"),
    };
    for secret in SECRETS {
        assert!(!shown.contains(secret), "{shown}");
    }
    result
}

async fn refresh(server: &Server) -> Result<TokenResponse, Error> {
    refresh_under(server, Arc::new(SystemClock::new())).await
}

const GOOD: &str = r#"{"access_token":"access-canary-2","refresh_token":"refresh-canary-2","token_type":"Bearer","expires_in":3600,"scope":"a b"}"#;

#[tokio::test]
async fn a_good_answer_is_read_and_the_request_is_as_the_rfc_has_it() {
    let endpoint = Endpoint::that_says("200 OK", "content-type: application/json\r\n", GOOD).await;
    let answer = refresh(&endpoint.server()).await.unwrap();
    assert_eq!(answer.access.expose(), "access-canary-2");
    assert_eq!(answer.refresh.unwrap().expose(), "refresh-canary-2");
    assert_eq!(answer.expires_in, Some(Duration::from_hours(1)));
    assert_eq!(answer.scopes.unwrap().len(), 2);
    let request = endpoint.seen().pop().unwrap();
    assert!(request.starts_with("POST /token HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("authorization: Basic bWU6Y2xpZW50LXNlY3JldC1jYW5hcnk=\r\n"), "{request}");
    assert!(request.contains(&format!("host: {}\r\n", endpoint.address)), "{request}");
    assert!(request.ends_with("\r\n\r\ngrant_type=refresh_token&refresh_token=refresh-canary-1"), "{request}");
}

#[tokio::test]
async fn an_answer_without_a_refresh_token_leaves_the_old_one() {
    let endpoint = Endpoint::that_says("200 OK", "", r#"{"access_token":"a"}"#).await;
    let answer = refresh(&endpoint.server()).await.unwrap();
    assert!(answer.refresh.is_none() && answer.expires_in.is_none() && answer.scopes.is_none());
    assert_eq!(answer.token_type, "Bearer");
}

#[tokio::test]
async fn each_bad_answer_names_its_culprit_and_only_invalid_grant_ends_the_grant() {
    use Culprit::{Operator, Provider, User};
    use ErrorKind::{Denied, InvalidClient, InvalidGrant, InvalidScope, Rejected};
    let malformed = ErrorKind::Malformed;
    let transient = |seconds: Option<u64>| ErrorKind::Transient { retry_after: seconds.map(Duration::from_secs) };
    let table: [(&str, &str, &str, ErrorKind, Culprit, Outcome); 23] = [
        ("400 Bad Request", "", r#"{"error":"invalid_grant"}"#, InvalidGrant, User, Outcome::NotDone),
        ("401 Unauthorized", "", r#"{"error":"invalid_client"}"#, InvalidClient, Operator, Outcome::NotDone),
        ("400 Bad Request", "", r#"{"error":"unauthorized_client"}"#, InvalidClient, Operator, Outcome::NotDone),
        ("400 Bad Request", "", r#"{"error":"invalid_scope"}"#, InvalidScope, Operator, Outcome::NotDone),
        ("400 Bad Request", "", r#"{"error":"access_denied"}"#, Denied, User, Outcome::NotDone),
        ("400 Bad Request", "", r#"{"error":"access-canary-2"}"#, Rejected, Provider, Outcome::NotDone),
        ("403 Forbidden", "", "<html>refresh-canary-1</html>", Rejected, Provider, Outcome::NotDone),
        ("200 OK", "", r#"{"error":"invalid_grant"}"#, InvalidGrant, User, Outcome::NotDone),
        ("200 OK", "", r#"{"error":"bad_refresh_token"}"#, InvalidGrant, User, Outcome::NotDone),
        ("200 OK", "", r#"{"ok":false,"error":"ratelimited"}"#, transient(None), Provider, Outcome::NotDone),
        ("200 OK", "", r#"{"ok":false}"#, Rejected, Provider, Outcome::NotDone),
        ("200 OK", "", "<!doctype html><p>invalid_grant", malformed(Malformed::Html), Provider, Outcome::Unknown),
        ("200 OK", "", "", malformed(Malformed::NotJson), Provider, Outcome::Unknown),
        ("200 OK", "", "{}", malformed(Malformed::NoAccessToken), Provider, Outcome::Unknown),
        (
            "200 OK",
            "",
            r#"{"access_token":"a b"}"#,
            malformed(Malformed::UnusableAccessToken),
            Provider,
            Outcome::Unknown,
        ),
        ("200 OK", "", r#"{"error":"invalid_grant""#, malformed(Malformed::BrokenJson), Provider, Outcome::Unknown),
        ("429 Too Many", "retry-after: 7\r\n", "", transient(Some(7)), Provider, Outcome::NotDone),
        ("429 Too Many", "", r#"{"error":"invalid_grant"}"#, transient(None), Provider, Outcome::NotDone),
        ("429 Too Many", "retry-after: soon\r\n", "", transient(None), Provider, Outcome::NotDone),
        ("503 Down", "retry-after: 9999999\r\n", "x", transient(Some(86_400)), Provider, Outcome::Unknown),
        ("500 Broken", "", r#"{"error":"invalid_grant"}"#, transient(None), Provider, Outcome::Unknown),
        ("502 Bad", "", "<html>", transient(None), Provider, Outcome::Unknown),
        ("304 Not Modified", "", "", malformed(Malformed::Redirect), Operator, Outcome::NotDone),
    ];
    for (status, headers, body, kind, culprit, outcome) in table {
        let endpoint = Endpoint::that_says(status, headers, body).await;
        let mut server = endpoint.server();
        server.answer.ok = Some("/ok".into());
        server.permanent_errors.insert("bad_refresh_token".into());
        let error = refresh(&server).await.unwrap_err();
        assert_eq!((error.kind(), error.culprit(), error.outcome()), (kind, culprit, outcome), "{status} {body}");
        assert_eq!(error.is_permanent(), kind == InvalidGrant);
        assert!(error.to_string().starts_with("Example: refreshing the token failed: "), "{error}");
        assert_eq!(endpoint.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_new_refresh_token_is_rescued_from_an_answer_that_is_useless_otherwise() {
    let deep = format!(r#"{{"refresh_token":"refresh-canary-2","x":{}"#, "[".repeat(100_000));
    for body in [
        r#"{"refresh_token":"refresh-canary-2","access_token":"#,
        r#"{"refresh_token":"refresh-canary-2","access_token":7}"#,
        r#"{"refresh_token":"refresh-canary-2","access_token":"a\nb"}"#,
        r#"{"refresh_token":"refresh-canary-2","error":"server_error"}"#,
        &deep,
    ] {
        let endpoint = Endpoint::that_says("200 OK", "", body).await;
        let mut error = refresh(&endpoint.server()).await.unwrap_err();
        assert!(!error.is_permanent());
        assert_eq!(error.take_rescued().unwrap().expose(), "refresh-canary-2", "{}", &body[..60.min(body.len())]);
    }
}

#[tokio::test]
async fn no_refresh_token_is_believed_from_an_answer_that_is_no_success() {
    let endpoint = Endpoint::that_says("400 Bad Request", "", GOOD).await;
    let mut error = refresh(&endpoint.server()).await.unwrap_err();
    assert!(error.take_rescued().is_none());
}

#[tokio::test]
async fn a_redirect_from_the_token_endpoint_is_not_followed() {
    let elsewhere = Endpoint::that_says("200 OK", "", GOOD).await;
    for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"] {
        let location = format!("location: http://{}/token\r\n", elsewhere.address);
        let endpoint = Endpoint::that_says(status, &location, "").await;
        let error = refresh(&endpoint.server()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed(Malformed::Redirect));
    }
    assert!(elsewhere.seen().is_empty());
}

#[tokio::test]
async fn an_answer_that_breaks_off_leaves_the_outcome_unknown() {
    let half = message("200 OK", "", GOOD);
    for cut in [0, 10, half.len() - 20] {
        let endpoint = Endpoint::that(Act::SayAndReset(half[..cut].to_vec())).await;
        let error = refresh(&endpoint.server()).await.unwrap_err();
        assert_eq!((error.kind(), error.culprit()), (ErrorKind::Network, Culprit::Network));
        assert_eq!(error.outcome(), Outcome::Unknown);
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_was_certainly_not_asked() {
    let endpoint = Endpoint::that_says("200 OK", "", GOOD).await;
    let server = endpoint.server();
    let task = endpoint.task.abort_handle();
    drop(endpoint);
    while !task.is_finished() {
        tokio::task::yield_now().await;
    }
    let error = refresh(&server).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Network, Outcome::NotDone));
}

#[tokio::test]
async fn a_server_that_drips_hangs_or_floods_is_left_in_time() {
    let start = message("200 OK", "", GOOD);
    for act in [Act::Drip, Act::SayAndHang(Vec::new()), Act::SayAndHang(start[..40].to_vec())] {
        let endpoint = Endpoint::that(act).await;
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        let server = endpoint.server();
        let refreshing = refresh_under(&server, Arc::new(clock.clone()));
        tokio::pin!(refreshing);
        let error = loop {
            tokio::select! {
                biased;
                result = &mut refreshing => break result.unwrap_err(),
                // Time passes once the request was read.
                () = tokio::task::yield_now() => {
                    if !endpoint.seen().is_empty() {
                        clock.advance(Duration::from_millis(500));
                    }
                }
            }
        };
        assert!(clock.monotonic() >= FetchLimits::default().total);
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Network, Outcome::Unknown));
    }
    let endpoint = Endpoint::that(Act::Flood).await;
    let error = refresh(&endpoint.server()).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Network, Outcome::Unknown));
    let huge = format!("x: {}\r\n", "a".repeat(1 << 20));
    let endpoint = Endpoint::that_says("200 OK", &huge, GOOD).await;
    assert_eq!(refresh(&endpoint.server()).await.unwrap_err().kind(), ErrorKind::Network);
}

#[tokio::test]
async fn revocation_speaks_each_providers_form() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let net = Net::new(NetSettings::new(Arc::clone(&clock))).unwrap();
    let secret = ClientSecret::new("s".to_owned());
    let client = Client { id: "me", secret: Some(&secret), auth: ClientAuth::Body };
    let access = AccessToken::new("token-1".to_owned());
    for (style, path, start, end) in [
        (
            RevocationStyle::Form,
            "/revoke",
            "POST /revoke ",
            "token=token-1&token_type_hint=access_token&client_id=me&client_secret=s",
        ),
        (
            RevocationStyle::Json,
            "/revoke",
            "POST /revoke ",
            r#"{"client_id":"me","client_secret":"s","token":"token-1","token_type_hint":"access_token"}"#,
        ),
        (RevocationStyle::Delete, "/apps/{client_id}/token", "DELETE /apps/me/token ", r#"{"access_token":"token-1"}"#),
        (RevocationStyle::Bearer, "/revoke", "POST /revoke ", "\r\n\r\n"),
    ] {
        let endpoint = Endpoint::that_says("200 OK", "", "").await;
        let rules = AddressRules { literal: [endpoint.address].into(), ..AddressRules::default() };
        let via = Transport { net: &net, rules: &rules, limits: FetchLimits::default(), clock: &*clock };
        let mut server = endpoint.server();
        let url = url::Url::parse(&format!("http://{}{path}", endpoint.address)).unwrap();
        server.revocation = Some(Revocation { url, style });
        revoke::revoke(&via, &server, &client, Revocable::Access(&access)).await.unwrap();
        let request = endpoint.seen().pop().unwrap();
        assert!(request.starts_with(start) && request.ends_with(end), "{request}");
        assert_eq!(request.contains("authorization: Bearer token-1"), style == RevocationStyle::Bearer);
    }
}

#[tokio::test]
async fn introspection_tells_when_a_token_ends() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let net = Net::new(NetSettings::new(Arc::clone(&clock))).unwrap();
    let secret = ClientSecret::new("s".to_owned());
    let client = Client { id: "me", secret: Some(&secret), auth: ClientAuth::Basic };
    for (body, expected) in [
        (r#"{"active":true,"exp":1000,"scope":"api"}"#, Some((true, Some(1000)))),
        (r#"{"active":false}"#, Some((false, None))),
        ("{}", None),
    ] {
        let endpoint = Endpoint::that_says("200 OK", "", body).await;
        let rules = AddressRules { literal: [endpoint.address].into(), ..AddressRules::default() };
        let via = Transport { net: &net, rules: &rules, limits: FetchLimits::default(), clock: &*clock };
        let token = AccessToken::new("t".to_owned());
        let answer = introspect::introspect(&via, &endpoint.server(), &client, &token).await;
        let found = answer.ok().map(|said| (said.active, said.expires_at.map(Timestamp::as_second)));
        assert_eq!(found, expected, "{body}");
    }
}
