//! The line as a whole, against real servers on loopback.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper_util::rt::TokioIo;

use super::*;
use crate::audit::{self, Event, Filter, Opening};
use crate::broker::{BrokerError, Released};
use crate::clock::{SystemClock, Timestamp};
use crate::diagnostic::Source;
use crate::id::{
    AccountAlias, Caller, ConnectionId, Digest, Generation, InvocationId, Owner, ProviderId, Scope, ServiceName,
};
use crate::net::NetSettings;
use crate::policy::{Manifest, Permissions, Permit};
use crate::secret::{AccessToken, Key};
use crate::vault::{Connection, Kind, State};

/// What arrived at a server.
#[derive(Debug, Clone)]
struct Seen {
    address: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Seen {
    fn authorization(&self) -> Option<&str> {
        self.headers.get("authorization").map(|value| value.to_str().unwrap())
    }
}

type Reply = dyn Fn(&Seen) -> Response<Full<Bytes>> + Send + Sync;

/// A server that counts its connections and keeps what it is sent.
#[derive(Clone)]
struct Server {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    async fn start(reply: impl Fn(&Seen) -> Response<Full<Bytes>> + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self { address: listener.local_addr().unwrap(), accepted: Arc::default(), seen: Arc::default() };
        let (this, reply): (_, Arc<Reply>) = (server.clone(), Arc::new(reply));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                this.accepted.fetch_add(1, Ordering::SeqCst);
                let (this, reply) = (this.clone(), Arc::clone(&reply));
                let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                    let (this, reply) = (this.clone(), Arc::clone(&reply));
                    async move {
                        let (parts, body) = request.into_parts();
                        let Ok(body) = body.collect().await else {
                            return Ok(Response::new(Full::default()));
                        };
                        let seen =
                            Seen { address: parts.uri.to_string(), headers: parts.headers, body: body.to_bytes() };
                        let answer = reply(&seen);
                        this.seen.lock().unwrap().push(seen);
                        Ok::<_, Infallible>(answer)
                    }
                });
                let io = TokioIo::new(stream);
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
            }
        });
        server
    }

    async fn quiet() -> Self {
        Self::start(|_| Response::new(Full::from("ok"))).await
    }

    fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn dialled(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

/// Tokens without a vault: `canary-USER-GENERATION`.
struct Fake {
    audit: Arc<AuditLog>,
    generation: Mutex<u64>,
    api_origin: Option<String>,
    rejected: AtomicUsize,
    released: AtomicUsize,
    /// The newest generation that an API took.
    used: AtomicU64,
}

fn token_of(owner: &Owner, generation: u64) -> String {
    format!("canary-{owner}-{generation}/+secret")
}

#[async_trait]
impl Credentials for Arc<Fake> {
    fn connection(
        &self,
        _: &ServiceName,
        owner: &Owner,
        provider: &ProviderId,
        account: Option<&AccountAlias>,
        _: &BTreeSet<Scope>,
    ) -> Result<Arc<Connection>, BrokerError> {
        let account: AccountAlias = account.cloned().unwrap_or_else(|| "default".parse().unwrap());
        let mut id = [0; 16];
        id.copy_from_slice(&Digest::of(format!("{owner} {provider} {account}").as_bytes()).as_bytes()[..16]);
        Ok(Arc::new(Connection {
            id: ConnectionId::from_bytes(id),
            owner: owner.clone(),
            provider: provider.clone(),
            account,
            kind: Kind::AuthorizationCode,
            scopes: BTreeSet::new(),
            api_origin: self.api_origin.as_ref().map(|origin| origin.parse().unwrap()),
            account_label: None,
            token_type: "Bearer".to_owned(),
            state: State::Active,
            generation: Generation(*self.generation.lock().unwrap()),
            created_at: Timestamp::UNIX_EPOCH,
            last_used_at: None,
            expires_at: None,
            refresh_at: None,
            grant_ends_at: None,
        }))
    }

    async fn release(&self, permit: &Permit, _: ConnectionId, event: Event) -> Result<Released, BrokerError> {
        self.audit.append(&event)?;
        self.released.fetch_add(1, Ordering::SeqCst);
        let generation = *self.generation.lock().unwrap();
        let connection =
            self.connection(permit.service(), permit.owner(), permit.provider(), permit.account(), permit.scopes())?;
        Ok(Released { token: AccessToken::new(token_of(permit.owner(), generation)), connection, in_flight: None })
    }

    fn used(&self, _: ConnectionId, generation: Generation) {
        self.used.fetch_max(generation.0, Ordering::SeqCst);
    }

    async fn rejected(&self, _: ConnectionId, generation: Generation) -> Result<bool, BrokerError> {
        self.rejected.fetch_add(1, Ordering::SeqCst);
        let mut current = self.generation.lock().unwrap();
        if *current == generation.0 {
            *current += 1;
        }
        Ok(true)
    }
}

struct World {
    folder: tempfile::TempDir,
    egress: Arc<Egress>,
    fake: Arc<Fake>,
    policy: Arc<ArcSwap<Policy>>,
    manifest: Arc<Manifest>,
    catalogue: Arc<Catalogue>,
}

const MANIFEST: &str = r#"
[skill]
name = "mailer"
version = "1.0.0"
description = "For the tests"

[[service]]
name = "mail"
provider = "acme"
scopes = ["send"]
use = "reveal"
reason = "for the tests"
  [[service.request]]
  origin = "API"
  paths = ["/v1/**"]
  [[service.request]]
  origin = "FOREIGN"

[[request]]
origin = "PLAIN"
"#;

const GRANTS: &str = r#"
[[grant]]
skill = "mailer"
approval = "none"
users = ["*"]
service = "mail"
provider = "acme"
scopes = ["send"]
use = "reveal"

[[grant]]
skill = "mailer"
approval = "none"
users = ["*"]
request = [{ origin = "PLAIN" }]
"#;

fn key() -> Key {
    Key::fill_with(|key| key.fill(3))
}

/// What a test runs in: one provider `acme`, whose API is the first server.
fn world(api: &Server, plain: &Server, foreign: &Server, placement: &str, grants: &str) -> World {
    world_of(MANIFEST, None, api, plain, foreign, placement, grants)
}

fn world_of(
    manifest: &str,
    api_origin: Option<String>,
    api: &Server,
    plain: &Server,
    foreign: &Server,
    placement: &str,
    grants: &str,
) -> World {
    let filled = |text: &str| {
        text.replace("API", &api.origin()).replace("PLAIN", &plain.origin()).replace("FOREIGN", &foreign.origin())
    };
    let origins =
        if placement.contains("api-origins") { String::new() } else { format!("api-origins = [\"{}\"]", api.origin()) };
    let provider = filled(&format!("[provider.acme]\nname = \"Acme\"\nkind = \"api-key\"\n{origins}\n{placement}\n"));
    let catalogue =
        Catalogue::with(&[Source::new("providers.toml", provider)]).unwrap_or_else(|error| panic!("{error}"));
    let permissions = permissions(&filled(grants));
    let manifest =
        Manifest::parse(&Source::new("skill.toml", filled(manifest))).unwrap_or_else(|error| panic!("{error}"));
    let policy = Arc::new(ArcSwap::from_pointee(Policy::new(permissions, catalogue.facts())));
    let folder = tempfile::tempdir().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let key = key();
    let opening = Opening { key: &key, agent: None, epoch: None };
    let audit = Arc::new(AuditLog::open(folder.path(), &opening, Arc::clone(&clock)).unwrap());
    let fake = Arc::new(Fake {
        audit: Arc::clone(&audit),
        generation: Mutex::new(1),
        api_origin,
        rejected: AtomicUsize::new(0),
        released: AtomicUsize::new(0),
        used: AtomicU64::new(0),
    });
    let net = Arc::new(Net::new(NetSettings::new(Arc::clone(&clock))).unwrap());
    let catalogue = Arc::new(catalogue);
    let egress = Egress::new(Arc::clone(&fake), net, Arc::clone(&catalogue), Arc::clone(&policy), audit, clock);
    World { folder, egress: Arc::new(egress), fake, policy, manifest: Arc::new(manifest), catalogue }
}

fn permissions(text: &str) -> Permissions {
    Permissions::parse(&[Source::new("permissions.toml", text)]).unwrap_or_else(|error| panic!("{error}"))
}

impl World {
    fn call(&self, user: &str) -> Call {
        let caller = Caller { client: "test".parse().unwrap(), user: user.parse().unwrap() };
        Call::new(
            Arc::clone(&self.egress),
            Calling {
                caller,
                invocation: InvocationId::from_bytes([1; 16]),
                manifest: Arc::clone(&self.manifest),
                digest: Digest::of(b"component"),
                tool: "send".to_owned(),
            },
        )
    }

    fn entries(&self, kind: audit::EventKind) -> Vec<audit::Entry> {
        let filter = Filter { kind: Some(kind), ..Filter::default() };
        audit::read(self.folder.path(), &key(), &filter).unwrap()
    }
}

fn request(method: Method, address: &str, headers: &[(&'static str, &str)], body: impl Into<Bytes>) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(address);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body::full(body.into())).unwrap()
}

fn get(address: &str) -> Request<Body> {
    request(Method::GET, address, &[], "")
}

async fn text(answer: Response<Body>) -> String {
    String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

async fn send(call: &Call, request: Request<Body>) -> Result<Response<Body>, EgressError> {
    call.send(request, Timeouts::default()).await
}

fn denial(result: Result<Response<Body>, EgressError>) -> crate::policy::Denial {
    match result {
        Err(EgressError::Denied(denial)) => *denial,
        Err(other) => panic!("{other:?}"),
        Ok(answer) => panic!("{}", answer.status()),
    }
}

fn alice(generation: u64) -> String {
    token_of(&Owner::User("alice".parse().unwrap()), generation)
}

/// Three quiet servers: the API, a plain one, and one that nobody granted.
async fn quiet() -> (Server, Server, Server, World) {
    let (api, plain, foreign) = (Server::quiet().await, Server::quiet().await, Server::quiet().await);
    let world = world(&api, &plain, &foreign, "", GRANTS);
    (api, plain, foreign, world)
}

#[tokio::test]
async fn by_destination_the_token_of_the_calls_own_user_arrives() {
    let (api, _, _, world) = quiet().await;
    for user in ["alice", "bob", "alice"] {
        let call = world.call(user);
        let answer = send(&call, get(&format!("{}/v1/messages?x=1", api.origin()))).await.unwrap();
        assert_eq!(text(answer).await, "ok");
    }
    let seen = api.seen();
    let expected =
        ["alice", "bob", "alice"].map(|user| format!("Bearer {}", token_of(&Owner::User(user.parse().unwrap()), 1)));
    assert_eq!(seen.iter().map(|seen| seen.authorization().unwrap()).collect::<Vec<_>>(), expected);
    assert_eq!(seen[0].address, "/v1/messages?x=1");
    let entries = world.entries(audit::EventKind::Released);
    assert_eq!(entries.len(), 3);
    assert_eq!(entries[0].origin.as_deref(), Some(api.origin().as_str()));
    assert!(entries[0].rule.as_deref().unwrap().starts_with("permissions.toml:"));
    // Alice's second request may use her connection; bob's never does.
    assert_eq!(api.dialled(), 2);
}

#[tokio::test]
async fn an_origin_that_only_the_manifest_names_gets_nothing_and_is_not_dialled() {
    let (_, _, foreign, world) = quiet().await;
    let call = world.call("alice");
    let denied = denial(send(&call, get(&format!("{}/v1/steal", foreign.origin()))).await);
    assert!(denied.to_string().contains(&denied.id.to_string()));
    assert_eq!(foreign.dialled(), 0);
    let entries = world.entries(audit::EventKind::Denied);
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].explanation, Some(denied.id.to_string()));
    assert_eq!(call.refusals().denials, [denied]);
    assert_eq!(world.fake.released.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn what_is_not_declared_is_not_dialled() {
    let (api, plain, foreign, world) = quiet().await;
    let call = world.call("alice");
    for address in [
        format!("{}/v2/other", api.origin()),
        format!("{}/v1/../v2", api.origin()),
        format!("{}/v1/%2e%2e/v2", api.origin()),
        "http://169.254.169.254/latest".to_owned(),
        "https://user:pass@example.com/".to_owned(),
        "https://example.com/".to_owned(),
    ] {
        let Ok(uri) = address.parse::<http::Uri>() else { continue };
        let request = Request::builder().uri(uri).body(body::full(Bytes::new())).unwrap();
        denial(send(&call, request).await);
    }
    assert_eq!((api.dialled(), plain.dialled(), foreign.dialled()), (0, 0, 0));
    assert_eq!(world.entries(audit::EventKind::Denied).len(), 6);
}

#[tokio::test]
async fn a_plain_request_goes_out_without_a_credential_and_is_noted() {
    let (_, plain, _, world) = quiet().await;
    let call = world.call("alice");
    let answer = send(&call, request(Method::POST, &format!("{}/x", plain.origin()), &[], "hello")).await.unwrap();
    assert_eq!(text(answer).await, "ok");
    assert_eq!((plain.seen()[0].authorization(), &plain.seen()[0].body[..]), (None, &b"hello"[..]));
    assert_eq!(world.entries(audit::EventKind::Requested).len(), 1);
}

#[tokio::test]
async fn the_guests_own_authorization_is_overwritten_on_a_covered_origin() {
    let (api, _, _, world) = quiet().await;
    let call = world.call("alice");
    let own = [("authorization", "Bearer evil"), ("cookie", "session=evil"), ("x-api-key", "evil")];
    let address = format!("{}/v1/x?access_token=evil&q=1", api.origin());
    send(&call, request(Method::GET, &address, &own, "")).await.unwrap();
    let seen = &api.seen()[0];
    assert_eq!(seen.authorization(), Some(format!("Bearer {}", alice(1)).as_str()));
    assert!(!format!("{seen:?}").contains("evil"));
    assert_eq!(seen.headers["accept-encoding"], "identity");
}

#[tokio::test]
async fn a_placeholder_is_swapped_in_its_slot() {
    let (api, _, _, world) = quiet().await;
    let call = world.call("alice");
    let handle = call.get_token("mail", &[], None, None).unwrap();
    assert_eq!(handle.api_origin.unwrap().to_string(), api.origin());
    let bearer = format!("Bearer {}", handle.placeholder);
    let address = format!("{}/v1/x", api.origin());
    send(&call, request(Method::POST, &address, &[("authorization", &bearer)], "{\"a\":1}")).await.unwrap();
    assert_eq!(api.seen()[0].authorization(), Some(format!("Bearer {}", alice(1)).as_str()));
    assert_eq!(api.seen()[0].body, "{\"a\":1}");
}

#[tokio::test]
async fn a_placeholder_in_the_text_of_a_body_is_refused_before_anything_is_dialled() {
    let (api, _, _, world) = quiet().await;
    let call = world.call("alice");
    let placeholder = call.get_token("mail", &[], None, None).unwrap().placeholder;
    for body in [
        format!("{{\"title\":\"{placeholder}\"}}"),
        format!("{{\"title\":\"{}\"}}", STANDARD.encode(format!("x{placeholder}"))),
        hex::encode(&placeholder),
    ] {
        let denied =
            denial(send(&call, request(Method::POST, &format!("{}/v1/issues", api.origin()), &[], body)).await);
        assert!(
            world
                .entries(audit::EventKind::Denied)
                .iter()
                .any(|entry| entry.explanation == Some(denied.id.to_string()))
        );
    }
    assert_eq!((api.dialled(), world.fake.released.load(Ordering::SeqCst)), (0, 0));
}

#[tokio::test]
async fn a_placeholder_that_is_forged_or_of_another_call_is_refused() {
    let (api, _, _, world) = quiet().await;
    let earlier = world.call("alice").get_token("mail", &[], None, None).unwrap().placeholder;
    let forged = format!("clawcoil_placeholder_{}", "0".repeat(32));
    let (fresh, asked) = (world.call("alice"), world.call("alice"));
    asked.get_token("mail", &[], None, None).unwrap();
    for call in [&fresh, &asked] {
        for placeholder in [&earlier, &forged] {
            let bearer = format!("Bearer {placeholder}");
            let address = format!("{}/v1/x", api.origin());
            denial(send(call, request(Method::GET, &address, &[("authorization", &bearer)], "")).await);
        }
    }
    assert_eq!(api.dialled(), 0);
}

#[tokio::test]
async fn a_placeholder_does_not_carry_its_token_to_another_origin() {
    let (_, plain, foreign, world) = quiet().await;
    let call = world.call("alice");
    let bearer = format!("Bearer {}", call.get_token("mail", &[], None, None).unwrap().placeholder);
    for server in [&plain, &foreign] {
        let address = format!("{}/v1/x", server.origin());
        denial(send(&call, request(Method::GET, &address, &[("authorization", &bearer)], "")).await);
        assert_eq!(server.dialled(), 0);
    }
}

#[tokio::test]
async fn an_answer_that_echoes_the_token_comes_back_without_it() {
    let api = Server::start(|seen| {
        let token = seen.authorization().unwrap().strip_prefix("Bearer ").unwrap().to_owned();
        let body = format!(
            "{token} {} {} {} {}",
            STANDARD.encode(format!("ab{token}")),
            hex::encode(&token),
            token.replace('/', "%2F").replace('+', "%2b"),
            serde_json::to_string(&token).unwrap()
        );
        let answer = Response::builder()
            .header("location", format!("https://x.example/?t={token}"))
            .header("set-cookie", "s=1")
            .header("www-authenticate", "Bearer");
        answer.body(Full::from(body)).unwrap()
    })
    .await;
    let quiet = Server::quiet().await;
    let world = world(&api, &quiet, &quiet, "", GRANTS);
    let answer = send(&world.call("alice"), get(&format!("{}/v1/echo", api.origin()))).await.unwrap();
    let headers = format!("{:?}", answer.headers());
    assert!(
        !headers.contains("canary") && !headers.contains("set-cookie") && !headers.contains("www-auth"),
        "{headers}"
    );
    let length: usize = answer.headers()["content-length"].to_str().unwrap().parse().unwrap();
    let body = text(answer).await;
    assert_eq!(body.len(), length);
    for part in ["canary", &hex::encode("canary"), &STANDARD.encode("abcanary-alice-1")[4..16]] {
        assert!(!body.contains(part), "{part} in {body}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let quiet = Server::quiet().await;
    let elsewhere = format!("{}/v1/next", quiet.origin());
    let api = Server::start(move |_| {
        Response::builder().status(302).header("location", &elsewhere).body(Full::default()).unwrap()
    })
    .await;
    let world = world(&api, &quiet, &quiet, "", GRANTS);
    let answer = send(&world.call("alice"), get(&format!("{}/v1/x", api.origin()))).await.unwrap();
    assert_eq!(answer.status(), StatusCode::FOUND);
    assert_eq!(quiet.dialled(), 0);
}

/// An API that accepts only tokens from this generation on.
async fn api_from(generation: u64) -> Server {
    Server::start(move |seen| {
        let fresh = seen.authorization().is_some_and(|value| value == format!("Bearer {}", alice(generation)));
        let status = if fresh { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
        Response::builder().status(status).body(Full::default()).unwrap()
    })
    .await
}

#[tokio::test]
async fn a_401_is_answered_with_one_refresh_and_a_safe_request_is_sent_again_once() {
    let (api, quiet) = (api_from(2).await, Server::quiet().await);
    let world = world(&api, &quiet, &quiet, "", GRANTS);
    let address = format!("{}/v1/x", api.origin());
    let answer = send(&world.call("alice"), request(Method::PUT, &address, &[], "body")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(api.seen().iter().map(|seen| seen.body.clone()).collect::<Vec<_>>(), ["body", "body"]);
    assert_eq!(world.fake.rejected.load(Ordering::SeqCst), 1);
    assert_eq!(world.fake.used.load(Ordering::SeqCst), 2, "the API took the second generation, not the first");
    assert_eq!(world.entries(audit::EventKind::Released).len(), 2);
}

#[tokio::test]
async fn a_401_to_a_post_is_seen_by_the_guest_and_the_next_request_has_the_new_token() {
    let (api, quiet) = (api_from(2).await, Server::quiet().await);
    let world = world(&api, &quiet, &quiet, "", GRANTS);
    let call = world.call("alice");
    let post = || request(Method::POST, &format!("{}/v1/x", api.origin()), &[], "body");
    assert_eq!(send(&call, post()).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(api.seen().len(), 1);
    assert_eq!(send(&call, post()).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn an_api_that_answers_401_forever_is_asked_twice_at_most() {
    let (api, quiet) = (api_from(99).await, Server::quiet().await);
    let world = world(&api, &quiet, &quiet, "", GRANTS);
    let answer = send(&world.call("alice"), get(&format!("{}/v1/x", api.origin()))).await.unwrap();
    assert_eq!((answer.status(), api.seen().len()), (StatusCode::UNAUTHORIZED, 2));
}

#[tokio::test]
async fn invalidate_asks_for_a_fresh_token_once() {
    let (api, _, _, world) = quiet().await;
    let call = world.call("alice");
    let handle = call.get_token("mail", &[], None, None).unwrap();
    let address = format!("{}/v1/x", api.origin());
    send(&call, get(&address)).await.unwrap();
    call.invalidate(handle.id);
    send(&call, get(&address)).await.unwrap();
    send(&call, get(&address)).await.unwrap();
    assert_eq!(world.fake.rejected.load(Ordering::SeqCst), 1);
    assert_eq!(api.seen()[2].authorization(), Some(format!("Bearer {}", alice(2)).as_str()));
}

#[tokio::test]
async fn a_grant_that_is_revoked_is_gone_from_the_next_request_on() {
    let (api, _, _, world) = quiet().await;
    let call = world.call("alice");
    let address = format!("{}/v1/x", api.origin());
    send(&call, get(&address)).await.unwrap();
    world.policy.store(Arc::new(Policy::new(permissions(""), world.catalogue.facts())));
    denial(send(&call, get(&address)).await);
    assert_eq!(api.seen().len(), 1);
    let handle = call.get_token("mail", &[], None, None);
    assert!(matches!(handle, Err(EgressError::Denied(_))));
}

#[tokio::test]
async fn a_rate_is_counted_per_user() {
    let quiet = Server::quiet().await;
    let grants = GRANTS.replacen("use = \"reveal\"", "use = \"reveal\"\nrate = \"1/day\"", 1);
    let world = world(&quiet, &quiet, &quiet, "", &grants);
    let address = format!("{}/v1/x", quiet.origin());
    for user in ["alice", "bob"] {
        let call = world.call(user);
        send(&call, get(&address)).await.unwrap();
        assert!(denial(send(&call, get(&address)).await).retry_after.is_some());
    }
}

#[tokio::test]
async fn after_a_reveal_the_call_reaches_only_the_services_own_origins() {
    let (api, plain, _, world) = quiet().await;
    let call = world.call("alice");
    send(&call, get(&format!("{}/x", plain.origin()))).await.unwrap();
    let handle = call.get_token("mail", &[], None, None).unwrap();
    let revealed = call.reveal(handle.id).await.unwrap();
    assert_eq!(revealed.token.expose(), alice(1));
    denial(send(&call, get(&format!("{}/x", plain.origin()))).await);
    send(&call, get(&format!("{}/v1/x?sig={}", api.origin(), "abc"))).await.unwrap();
    assert_eq!((plain.seen().len(), api.seen().len()), (1, 1));
    // Who has seen the token says how it goes.
    assert_eq!(api.seen()[0].authorization(), None);
    assert_eq!(world.entries(audit::EventKind::Revealed).len(), 1);
    assert!(matches!(call.reveal(77).await, Err(EgressError::UnknownHandle)));
}

/// A request whose body is written piece by piece.
fn open_request(address: &str) -> (tokio::sync::mpsc::Sender<Bytes>, Request<Body>) {
    let (pieces, open) = tokio::sync::mpsc::channel::<Bytes>(1);
    let stream = futures_util::stream::unfold(open, async |mut open| {
        let piece = open.recv().await?;
        Some((Ok::<_, BoxError>(http_body::Frame::data(piece)), open))
    });
    let (parts, ()) = Request::post(address).body(()).unwrap().into_parts();
    (pieces, Request::from_parts(parts, Body::new(StreamBody::new(stream))))
}

fn reversed(token: &AccessToken) -> Bytes {
    token.expose().chars().rev().collect::<String>().into()
}

#[tokio::test]
async fn a_body_that_was_open_before_a_reveal_carries_nothing_out_after_it() {
    let (_, plain, _, world) = quiet().await;
    // The first time the body streams; the second time a placeholder was given before, so that it is held back.
    for given_before in [false, true] {
        let call = world.call("alice");
        let handle = || call.get_token("mail", &[], None, None).unwrap();
        let before = given_before.then(handle);
        let (pieces, request) = open_request(&format!("{}/x", plain.origin()));
        let sending = tokio::spawn({
            let call = call.clone();
            async move { send(&call, request).await }
        });
        pieces.send(Bytes::from("before")).await.unwrap();
        // There is room again once the first piece is on its way.
        let room = pieces.reserve().await.unwrap();
        let handle = before.unwrap_or_else(handle);
        let revealed = call.reveal(handle.id).await.unwrap();
        room.send(reversed(&revealed.token));
        drop(pieces);
        denial(sending.await.unwrap());
        assert!(plain.seen().is_empty());
    }
}

#[tokio::test]
async fn a_call_has_a_bounded_number_of_requests_under_way() {
    let (_, plain, _, world) = quiet().await;
    let call = world.call("alice");
    let mut open = Vec::new();
    for _ in 0..REQUESTS_PER_CALL {
        let (pieces, request) = open_request(&format!("{}/x", plain.origin()));
        let sending = tokio::spawn({
            let call = call.clone();
            async move { send(&call, request).await.map(drop) }
        });
        pieces.send(Bytes::from("x")).await.unwrap();
        // Its first piece was taken: it has its place.
        drop(pieces.reserve().await.unwrap());
        open.push((pieces, sending));
    }
    let mut next = std::pin::pin!(send(&call, get(&format!("{}/x", plain.origin()))));
    assert!(futures_util::poll!(&mut next).is_pending());
    assert_eq!(plain.seen().len(), 0);
    let (pieces, sending) = open.pop().unwrap();
    drop(pieces);
    sending.await.unwrap().unwrap();
    next.await.unwrap();
    assert_eq!(plain.seen().len(), 2);
}

#[tokio::test]
async fn reveal_without_its_grant_is_refused() {
    let quiet = Server::quiet().await;
    let world = world(&quiet, &quiet, &quiet, "", &GRANTS.replacen("use = \"reveal\"", "use = \"inject\"", 1));
    let call = world.call("alice");
    let handle = call.get_token("mail", &[], None, None).unwrap();
    assert!(matches!(call.reveal(handle.id).await, Err(EgressError::Denied(_))));
    assert_eq!(world.fake.released.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_token_that_leaked_to_the_guest_does_not_leave_again() {
    let (api, plain, _, world) = quiet().await;
    let call = world.call("alice");
    send(&call, get(&format!("{}/v1/x", api.origin()))).await.unwrap();
    let plain_address = format!("{}/x", plain.origin());
    denial(send(&call, get(&format!("{plain_address}?q={}", STANDARD.encode(alice(1)).trim_end_matches('=')))).await);
    denial(send(&call, request(Method::GET, &plain_address, &[("x-note", &alice(1))], "")).await);
    assert_eq!(plain.dialled(), 0);
    // A body is looked through while it streams, and ends before the token does.
    denial(send(&call, request(Method::POST, &plain_address, &[], format!("note {}", alice(1)))).await);
    assert!(plain.seen().is_empty());
    assert_eq!(call.refusals().denials.len(), 3);
}

#[tokio::test]
async fn a_compressed_answer_is_not_passed_on_where_a_credential_went_out() {
    let encoded = || Response::builder().header("content-encoding", "gzip").body(Full::from("x")).unwrap();
    let (api, plain) = (Server::start(move |_| encoded()).await, Server::start(move |_| encoded()).await);
    let world = world(&api, &plain, &Server::quiet().await, "", GRANTS);
    let call = world.call("alice");
    let result = send(&call, get(&format!("{}/v1/x", api.origin()))).await;
    assert!(matches!(result, Err(EgressError::EncodedAnswer(_))));
    assert!(send(&call, get(&format!("{}/x", plain.origin()))).await.is_ok());
}

#[tokio::test]
async fn a_key_in_the_query_and_a_field_of_the_body_are_attached() {
    let quiet = Server::quiet().await;
    let in_query = world(&quiet, &quiet, &quiet, "placement = { query = \"appid\" }", GRANTS);
    send(&in_query.call("alice"), get(&format!("{}/v1/x?q=1&appid=evil", quiet.origin()))).await.unwrap();
    assert_eq!(quiet.seen()[0].address, "/v1/x?q=1&appid=canary-alice-1%2F%2Bsecret");

    let in_body = world(&quiet, &quiet, &quiet, "placement = { json = \"/auth/key\" }", GRANTS);
    let post = request(Method::POST, &format!("{}/v1/x", quiet.origin()), &[("content-length", "11")], "{\"auth\":{}}");
    send(&in_body.call("alice"), post).await.unwrap();
    assert_eq!(quiet.seen()[1].body, format!("{{\"auth\":{{\"key\":\"{}\"}}}}", alice(1)));
    let too_large = request(Method::POST, &format!("{}/v1/x", quiet.origin()), &[], vec![b' '; (1 << 20) + 1]);
    let result = send(&in_body.call("alice"), too_large).await;
    assert!(matches!(result, Err(EgressError::BodyTooLarge(_))));
}

#[tokio::test]
async fn a_long_body_streams_past_the_buffer_unchanged() {
    let (api, _, _, world) = quiet().await;
    let call = world.call("alice");
    call.get_token("mail", &[], None, None).unwrap();
    let chunks = (0..40u8).map(|n| Ok::<_, BoxError>(http_body::Frame::data(Bytes::from(vec![n; 64 << 10]))));
    let body = Body::new(StreamBody::new(futures_util::stream::iter(chunks)));
    let request = Request::post(format!("{}/v1/x", api.origin())).body(body).unwrap();
    send(&call, request).await.unwrap();
    let body = &api.seen()[0].body;
    assert_eq!(body.len(), 40 * (64 << 10));
    assert!(body.chunks(64 << 10).zip(0..40u8).all(|(chunk, n)| chunk.iter().all(|byte| *byte == n)));
}

#[tokio::test]
async fn without_an_audit_entry_nothing_goes_out() {
    struct Broken;
    impl audit::Sink for Broken {
        fn append(&self, line: &[u8]) -> std::io::Result<()> {
            let opening = line.windows(8).any(|window| window == b"\"opened\"");
            if opening { Ok(()) } else { Err(std::io::ErrorKind::StorageFull.into()) }
        }
        fn sync(&self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let quiet = Server::quiet().await;
    let world = world(&quiet, &quiet, &quiet, "", GRANTS);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let (key, net) = (key(), Arc::new(Net::new(NetSettings::new(Arc::clone(&clock))).unwrap()));
    let opening = Opening { key: &key, agent: None, epoch: None };
    let audit = Arc::new(AuditLog::with_sink("broken", Box::new(Broken), &opening, Arc::clone(&clock)).unwrap());
    let fake = Arc::new(Fake {
        audit: Arc::clone(&audit),
        generation: Mutex::new(1),
        api_origin: None,
        rejected: AtomicUsize::new(0),
        released: AtomicUsize::new(0),
        used: AtomicU64::new(0),
    });
    let (catalogue, policy) = (Arc::clone(&world.catalogue), Arc::clone(&world.policy));
    let egress = Arc::new(Egress::new(fake, net, catalogue, policy, audit, clock));
    let call = Call::new(egress, world.call("alice").0.calling.clone());
    for path in ["/v1/x", "/x"] {
        let result = send(&call, get(&format!("{}{path}", quiet.origin()))).await;
        assert!(matches!(result, Err(EgressError::Audit(_) | EgressError::Broker(BrokerError::Audit(_)))));
    }
    assert_eq!(quiet.dialled(), 0);
}

#[tokio::test]
async fn where_the_operator_says_so_another_server_stands_in_for_the_real_one() {
    let (stand_in, quiet) = (Server::quiet().await, Server::quiet().await);
    let manifest = MANIFEST.replace("origin = \"API\"", "origin = \"https://api.acme.example\"");
    let placement = "api-origins = [\"https://api.acme.example\"]\n[provider.acme.override]\n\"https://api.acme.example\" = \"API\"";
    let world = world_of(&manifest, None, &stand_in, &quiet, &quiet, placement, GRANTS);
    send(&world.call("alice"), get("https://api.acme.example/v1/x")).await.unwrap();
    let seen = &stand_in.seen()[0];
    assert_eq!(seen.headers["host"], "api.acme.example");
    assert_eq!(seen.authorization(), Some(format!("Bearer {}", alice(1)).as_str()));
}

#[tokio::test]
async fn a_connections_own_api_origin_gets_the_token_only_where_the_catalogue_admits_it() {
    let (own, quiet) = (Server::quiet().await, Server::quiet().await);
    let manifest = MANIFEST.replace("origin = \"API\"", "origin = \"{api_origin}\"");
    let (plain, foreign) = (Server::quiet().await, Server::quiet().await);
    let admitting = format!("api-origins = [\"{{api_origin}}\"]\napi-origin-pattern = \"{}\"", own.origin());
    for (said, arrives) in [(&own, true), (&quiet, false)] {
        let world = world_of(&manifest, Some(said.origin()), &own, &plain, &foreign, &admitting, GRANTS);
        let result = send(&world.call("alice"), get(&format!("{}/v1/x", said.origin()))).await;
        assert_eq!(result.is_ok(), arrives, "{result:?}");
    }
    assert_eq!((own.seen().len(), quiet.dialled()), (1, 0));
}

#[tokio::test]
async fn connect_and_trace_are_refused() {
    let (api, _, _, world) = quiet().await;
    let call = world.call("alice");
    for method in [Method::CONNECT, Method::TRACE] {
        denial(send(&call, request(method, &format!("{}/v1/x", api.origin()), &[], "")).await);
    }
    assert_eq!(api.dialled(), 0);
}
