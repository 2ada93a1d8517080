//! What the tests stand on: servers on loopback, tokens without a vault, a policy.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper_util::rt::TokioIo;

use crate::audit::{self, AuditLog, Event, Filter, Opening};
use crate::broker::{BrokerError, NeededAction, Reason, Released};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::diagnostic::Source;
use crate::egress::{Body, BoxError, Call, Calling, Credentials, Egress, EgressError, Timeouts, body};
use crate::id::{
    AccountAlias, Caller, ConnectionId, Digest, Generation, InvocationId, Owner, ProviderId, Scope, ServiceName,
};
use crate::net::{Net, NetSettings};
use crate::policy::{Manifest, Permissions, Permit, Policy};
use crate::provider::Catalogue;
use crate::secret::{AccessToken, Key};
use crate::vault::{Connection, Kind, State};

/// What arrived at a server.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) address: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Seen {
    pub(super) fn authorization(&self) -> Option<&str> {
        self.headers.get("authorization").map(|value| value.to_str().unwrap())
    }
}

pub(super) type Reply = dyn Fn(&Seen) -> Response<Full<Bytes>> + Send + Sync;

/// A server that counts its connections and keeps what it is sent.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) accepted: Arc<AtomicUsize>,
    pub(super) seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    pub(super) async fn start(reply: impl Fn(&Seen) -> Response<Full<Bytes>> + Send + Sync + 'static) -> Self {
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

    pub(super) async fn quiet() -> Self {
        Self::start(|_| Response::new(Full::from("ok"))).await
    }

    pub(super) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(super) fn dialled(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

/// Tokens without a vault: `canary-USER-GENERATION`.
pub(super) struct Fake {
    pub(super) audit: Arc<AuditLog>,
    pub(super) generation: Mutex<u64>,
    pub(super) api_origin: Option<String>,
    pub(super) rejected: AtomicUsize,
    pub(super) released: AtomicUsize,
    /// The newest generation that an API took.
    pub(super) used: AtomicU64,
    /// Whether what was connected has to be connected again.
    pub(super) lapsed: AtomicBool,
    /// What happens while the entry of the next release is written.
    pub(super) meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

pub(super) fn token_of(owner: &Owner, generation: u64) -> String {
    let token = format!("canary-{owner}-{generation}/+secret");
    clawcoil_canary::plant(clawcoil_canary::Kind::AccessToken, &token);
    token
}

impl Fake {
    /// Tokens of the first generation, each release of which is noted here.
    pub(super) fn noting(audit: &Arc<AuditLog>, api_origin: Option<String>) -> Arc<Self> {
        Arc::new(Self {
            audit: Arc::clone(audit),
            generation: Mutex::new(1),
            api_origin,
            rejected: AtomicUsize::new(0),
            released: AtomicUsize::new(0),
            used: AtomicU64::new(0),
            lapsed: AtomicBool::new(false),
            meanwhile: Mutex::default(),
        })
    }

    fn account(&self, owner: &Owner, provider: &ProviderId, account: Option<&AccountAlias>) -> Arc<Connection> {
        let account: AccountAlias = account.cloned().unwrap_or_else(|| "default".parse().unwrap());
        let mut id = [0; 16];
        id.copy_from_slice(&Digest::of(format!("{owner} {provider} {account}").as_bytes()).as_bytes()[..16]);
        Arc::new(Connection {
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
        })
    }
}

#[async_trait]
impl Credentials for Arc<Fake> {
    fn connection(
        &self,
        service: &ServiceName,
        owner: &Owner,
        provider: &ProviderId,
        account: Option<&AccountAlias>,
        _: &BTreeSet<Scope>,
    ) -> Result<Arc<Connection>, BrokerError> {
        let connection = self.account(owner, provider, account);
        if !self.lapsed.load(Ordering::SeqCst) {
            return Ok(connection);
        }
        Err(BrokerError::ActionRequired(Box::new(NeededAction {
            reason: Reason::Expired,
            service: service.clone(),
            provider: provider.clone(),
            account: Some(connection.account.clone()),
            missing_scopes: Vec::new(),
            message: "connect it again".to_owned(),
            command: "clawcoil connect acme".to_owned(),
        })))
    }

    fn stored(&self, owner: &Owner, provider: &ProviderId, account: Option<&AccountAlias>) -> Option<Arc<Connection>> {
        Some(self.account(owner, provider, account))
    }

    async fn release(&self, permit: &Permit, _: ConnectionId, event: Event) -> Result<Released, BrokerError> {
        self.audit.append(&event)?;
        if let Some(meanwhile) = self.meanwhile.lock().unwrap().take() {
            meanwhile();
        }
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

pub(super) struct World {
    pub(super) folder: tempfile::TempDir,
    pub(super) egress: Arc<Egress>,
    pub(super) fake: Arc<Fake>,
    pub(super) policy: Arc<ArcSwap<Policy>>,
    pub(super) manifest: Arc<Manifest>,
    pub(super) catalogue: Arc<Catalogue>,
}

pub(super) const MANIFEST: &str = r#"
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

pub(super) const GRANTS: &str = r#"
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

pub(super) fn key() -> Key {
    Key::fill_with(|key| key.fill(3))
}

/// What a test runs in: one provider `acme`, whose API is the first server.
pub(super) fn world(api: &Server, plain: &Server, foreign: &Server, placement: &str, grants: &str) -> World {
    world_of(MANIFEST, None, api, plain, foreign, placement, grants)
}

pub(super) fn world_of(
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
    let opening = Opening { key: &key, agent: None, epoch: None, settings: &audit::Settings::default() };
    let audit = Arc::new(AuditLog::open(folder.path(), &opening, Arc::clone(&clock)).unwrap());
    let fake = Fake::noting(&audit, api_origin);
    let net = Arc::new(Net::new(NetSettings::new(Arc::clone(&clock))).unwrap());
    let catalogue = Arc::new(catalogue);
    let egress = Egress::new(Arc::clone(&fake), net, Arc::clone(&catalogue), Arc::clone(&policy), audit, clock);
    World { folder, egress: Arc::new(egress), fake, policy, manifest: Arc::new(manifest), catalogue }
}

pub(super) fn permissions(text: &str) -> Permissions {
    Permissions::parse(&[Source::new("permissions.toml", text)]).unwrap_or_else(|error| panic!("{error}"))
}

impl World {
    pub(super) fn call(&self, user: &str) -> Call {
        let caller = Caller::new("test".parse().unwrap(), user.parse().unwrap());
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

    pub(super) fn entries(&self, kind: audit::EventKind) -> Vec<audit::Entry> {
        let filter = Filter { kind: Some(kind), ..Filter::default() };
        audit::read(self.folder.path(), &key(), &filter).unwrap()
    }
}

pub(super) fn request(
    method: Method,
    address: &str,
    headers: &[(&'static str, &str)],
    body: impl Into<Bytes>,
) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(address);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body::full(body.into())).unwrap()
}

pub(super) fn get(address: &str) -> Request<Body> {
    request(Method::GET, address, &[], "")
}

pub(super) async fn text(answer: Response<Body>) -> String {
    String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

pub(super) async fn send(call: &Call, request: Request<Body>) -> Result<Response<Body>, EgressError> {
    call.send(request, Timeouts::default()).await
}

pub(super) fn denial(result: Result<Response<Body>, EgressError>) -> crate::policy::Denial {
    match result {
        Err(EgressError::Denied(denial)) => *denial,
        Err(other) => panic!("{other:?}"),
        Ok(answer) => panic!("{}", answer.status()),
    }
}

pub(super) fn alice(generation: u64) -> String {
    token_of(&Owner::User("alice".parse().unwrap()), generation)
}

/// Three quiet servers: the API, a plain one, and one that nobody granted.
pub(super) async fn quiet() -> (Server, Server, Server, World) {
    let (api, plain, foreign) = (Server::quiet().await, Server::quiet().await, Server::quiet().await);
    let world = world(&api, &plain, &foreign, "", GRANTS);
    (api, plain, foreign, world)
}

/// A request whose body is written piece by piece.
pub(super) fn open_request(address: &str) -> (tokio::sync::mpsc::Sender<Bytes>, Request<Body>) {
    let (pieces, open) = tokio::sync::mpsc::channel::<Bytes>(1);
    let stream = futures_util::stream::unfold(open, async |mut open| {
        let piece = open.recv().await?;
        Some((Ok::<_, BoxError>(http_body::Frame::data(piece)), open))
    });
    let (parts, ()) = Request::post(address).body(()).unwrap().into_parts();
    (pieces, Request::from_parts(parts, Body::new(StreamBody::new(stream))))
}
