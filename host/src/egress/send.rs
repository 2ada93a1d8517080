//! The way of one request.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use http_body::Body as _;
use http_body_util::BodyExt as _;

use crate::audit::{Decision, Event, EventKind};
use crate::broker::Released;
use crate::id::{AccountAlias, ConnectionId, Owner, ProviderId, ServiceName};
use crate::net::{self, AddressRules, Answer, Endpoint, NetError, PoolKey, SendLimits};
use crate::policy::{DenialCode, Effective, EffectiveService, Origin, Permit, Placement, Route, Scheme, Target};
use crate::vault::Connection;

use super::body::{self, MOST_BUFFERED, Outgoing};
use super::call::{Call, Inner, Known};
use super::error::EgressError;
use super::redact::{self, Spellings};
use super::slots::Carrier;
use super::{Body, BoxError, answer, attach, headers, placeholder};

/// The guest's own wishes for a request; the host's deadlines hold as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timeouts {
    /// Until the connection stands.
    pub connect: Option<Duration>,
    /// Until the answer begins.
    pub first_byte: Option<Duration>,
    /// Between two pieces of the answer.
    pub between_bytes: Option<Duration>,
}

/// Which connection a placeholder stands for.
struct Bound {
    service: ServiceName,
    account: AccountAlias,
    connection: ConnectionId,
    placeholder: String,
}

/// A request that has been read and not been refused so far.
struct Asked {
    target: Target,
    carrier: Carrier,
    body: Outgoing,
    limits: SendLimits,
}

impl Call {
    /// Sends a guest's request, or says why not. No redirect is followed.
    ///
    /// A call has so many requests under way at a time, a user so many over all calls; more wait for a place.
    pub async fn send(&self, request: Request<Body>, timeouts: Timeouts) -> Result<Response<Body>, EgressError> {
        let inner = &self.0;
        let of_user = inner.egress.places(&inner.calling.caller.user);
        // Nobody closes these: a place is always to be had in the end.
        let place = Arc::clone(&inner.places).acquire_owned().await.ok();
        let place = (place, of_user.acquire_owned().await.ok());
        let answer = self.judged(request, timeouts).await?;
        Ok(answer.map(|body| {
            Body::new(body.map_frame(move |frame| {
                let _ = &place;
                frame
            }))
        }))
    }

    async fn judged(&self, request: Request<Body>, timeouts: Timeouts) -> Result<Response<Body>, EgressError> {
        let inner = &self.0;
        let (parts, body) = request.into_parts();
        let target = Target::parse(&parts.method, &parts.uri)
            .map_err(|error| inner.refused(error.to_string(), Some(("", &parts.method))))?;
        let mut headers = parts.headers;
        headers::clean_request(&mut headers).map_err(|error| inner.refuse(error.to_string(), &target))?;
        let carrier = Carrier { uri: parts.uri, headers, body: None };
        let mut asked = Asked { target, carrier, body: Outgoing::new(body), limits: limits(timeouts) };

        inner.confine(&asked.target)?;
        inner.look_for_known(&asked.carrier, &asked.target)?;
        let bound = inner.find_placeholder(&mut asked).await?;
        // Reading the body may have taken a while, and a reveal may have come in between.
        inner.confine(&asked.target)?;
        if let Some(bound) = bound {
            return inner.send_with(asked, bound.service.clone(), Some(bound)).await;
        }
        let effective = inner.effective();
        let route = effective.route(&asked.target, &inner.api_origins(&effective));
        match route.map_err(|denial| inner.deny(denial, &asked.target))? {
            Route::Plain { rule } => inner.send_plain(asked, rule.to_string(), None).await,
            Route::Service { service, .. } => {
                // Who has seen the token says how it goes: a signing key must not travel beside the signature.
                if let Some(account) = inner.seen_account(&service) {
                    let found = effective.service(&service).map_err(|denial| inner.deny(denial, &asked.target))?;
                    // The grant must hold now, and its rate counts, as for a release.
                    let (permit, _) = inner.permit(&effective, found, &asked.target, Some(&account))?;
                    let rates = inner.egress.rates.take(&permit, &*inner.egress.clock);
                    rates.map_err(|denial| inner.deny(denial, &asked.target))?;
                    let stand_in = inner.stand_in(&found.provider, asked.target.origin());
                    return inner.send_plain(asked, permit.rule().to_string(), stand_in).await;
                }
                inner.send_with(asked, service, None).await
            }
        }
    }
}

impl Inner {
    fn deny(&self, denial: crate::policy::Denial, target: &Target) -> EgressError {
        self.denied(denial, Some((&target.origin().to_string(), target.method())))
    }

    fn refuse(&self, message: String, target: &Target) -> EgressError {
        self.refused(message, Some((&target.origin().to_string(), target.method())))
    }

    /// After a reveal the call may only reach what the revealed services' grants say.
    fn confine(&self, target: &Target) -> Result<(), EgressError> {
        let revealed = self.state().revealed.clone();
        if revealed.is_empty() {
            return Ok(());
        }
        let effective = self.effective();
        let now = self.egress.clock.now();
        for (service, account) in &revealed {
            let found = effective.service(service).map_err(|denial| self.deny(denial, target))?;
            let of_account = [Some(account.clone())];
            let credentials = &self.egress.credentials;
            let connection = credentials.first_connection(found, &of_account, Some(&BTreeSet::new()), &mut |_| true);
            let api_origin = connection.ok().and_then(|connection| self.api_origin(&connection));
            effective
                .reveal_confinement(service, Some(account), target, api_origin.as_ref(), now)
                .map_err(|denial| self.deny(denial, target))?;
        }
        Ok(())
    }

    /// A token that was never revealed to the guest has no business in what it sends.
    fn look_for_known(&self, carrier: &Carrier, target: &Target) -> Result<(), EgressError> {
        let address = carrier.uri.path_and_query().map_or("", |address| address.as_str()).as_bytes();
        let found = self.unrevealed().iter().any(|known| {
            known.occur_in(address)
                || carrier.headers.iter().any(|(name, value)| known.occur_in_header(name, value))
                || carrier.body.as_ref().is_some_and(|body| known.occur_in(body))
        });
        if found {
            return Err(self.carries_token(Some((&target.origin().to_string(), target.method()))));
        }
        Ok(())
    }

    fn unrevealed(&self) -> Vec<Arc<Spellings>> {
        self.state().known.iter().filter(|known| !known.revealed).map(|known| Arc::clone(&known.spellings)).collect()
    }

    /// The placeholder that the request carries. Where this call has given some out, the body is read as far as it may be
    /// held, so that a request that is refused is not sent in part.
    async fn find_placeholder(&self, asked: &mut Asked) -> Result<Option<Bound>, EgressError> {
        let none_given = self.state().placeholders.is_empty();
        if none_given && !asked.carrier.has_mark() {
            return Ok(None);
        }
        if !none_given {
            asked.buffer().await?;
            self.look_for_known(&asked.carrier, &asked.target)?;
        }
        let refuse = |message: String| self.refuse(message, &asked.target);
        let found = asked.carrier.placeholder().map_err(|error| refuse(error.to_string()))?;
        let Some(found) = found else {
            if asked.carrier.has_mark() {
                return Err(refuse(super::slots::SlotError::Elsewhere.to_string()));
            }
            return Ok(None);
        };
        let bound = {
            let state = self.state();
            state.placeholders.meaning(&found).and_then(|id| state.handle(*id)).map(|handle| Bound {
                service: handle.service.clone(),
                account: handle.account.clone(),
                connection: handle.connection,
                placeholder: found,
            })
        };
        bound
            .map(Some)
            .ok_or_else(|| refuse("the request carries a placeholder that this call was not given".to_owned()))
    }

    /// Whose token of this service the guest has seen: the account that it asked for last, if that is one.
    fn seen_account(&self, service: &ServiceName) -> Option<AccountAlias> {
        let state = self.state();
        let mut seen = state.revealed.iter().filter(|(revealed, _)| revealed == service).map(|(_, account)| account);
        let last = state.account(service).filter(|last| seen.clone().any(|account| account == last));
        last.or_else(|| seen.next().cloned())
    }

    /// The operator's stand-in for an origin of this provider.
    fn stand_in(&self, provider: &ProviderId, origin: &Origin) -> Option<Origin> {
        self.egress.catalogue.get(provider).and_then(|provider| provider.overrides.get(origin)).cloned()
    }

    async fn send_plain(
        self: &Arc<Self>,
        mut asked: Asked,
        rule: String,
        stand_in: Option<Origin>,
    ) -> Result<Response<Body>, EgressError> {
        let Asked { target, carrier, .. } = &asked;
        let event = self.event_to(EventKind::Requested, Some(rule), target.origin(), target.method());
        self.egress.audit.append(&event)?;
        self.state().touched.reached(target.origin());
        let endpoint = endpoint(stand_in.as_ref().unwrap_or(target.origin()));
        let (uri, headers) = (carrier.uri.clone(), carrier.headers.clone());
        let (body, refusal) = self.guarded(&mut asked);
        let request = request(&asked.target, uri, headers, body);
        let answer = self.dispatch(request, endpoint, asked.limits).await;
        let answer = answer.map_err(|error| refusal.get_or(error))?;
        Ok(answer::plain(answer)?)
    }

    async fn send_with(
        self: &Arc<Self>,
        mut asked: Asked,
        service: ServiceName,
        bound: Option<Bound>,
    ) -> Result<Response<Body>, EgressError> {
        let (mut again, mut decided) = (false, 0);
        loop {
            let effective = self.effective();
            let found = effective.service(&service).map_err(|denial| self.deny(denial, &asked.target))?;
            let account = bound.as_ref().map(|bound| bound.account.clone());
            let account = account.or_else(|| self.state().account(&service));
            let (permit, connection) = self.permit(&effective, found, &asked.target, account.as_ref())?;
            if let Some(bound) = &bound {
                if bound.connection != connection.id {
                    let message =
                        "the placeholder's account was connected anew since; ask for a token again".to_owned();
                    return Err(self.refuse(message, &asked.target));
                }
                let slots = asked.carrier.check(&bound.placeholder, &found.slots);
                slots.map_err(|error| self.refuse(error.to_string(), &asked.target))?;
            }
            if asked.wants_whole_body(&found.placement) {
                asked.buffer().await?;
                self.look_for_known(&asked.carrier, &asked.target)?;
                if bound.is_none() && asked.carrier.has_mark() {
                    return Err(self.refuse(super::slots::SlotError::Elsewhere.to_string(), &asked.target));
                }
                if asked.carrier.body.is_none() && matches!(found.placement, Placement::JsonPointer { .. }) {
                    return Err(EgressError::BodyTooLarge(MOST_BUFFERED));
                }
            }
            self.egress.rates.take(&permit, &*self.egress.clock).map_err(|denial| self.deny(denial, &asked.target))?;
            self.renew_if_invalid(connection.id).await;
            let mut event = self.event_of(EventKind::Released, &permit);
            event.origin = Some(asked.target.origin().to_string());
            event.method = Some(asked.target.method().as_str().to_owned());
            let released = self.egress.credentials.release(&permit, connection.id, event).await;
            let Released { token, connection, in_flight } = released.map_err(|error| self.failed(error.into()))?;
            if !self.is_in_force(&permit) {
                self.decide_again(&mut decided, Some((&asked.target.origin().to_string(), asked.target.method())))?;
                continue;
            }
            {
                let touched = &mut self.state().touched;
                touched.credentials.insert((connection.id, connection.generation));
                touched.reached(asked.target.origin());
            }
            self.confine(&asked.target)?;

            let attached = asked.attached(found, bound.as_ref(), token.expose());
            let (mut carrier, rendered) = attached.map_err(|error| self.refuse(error.to_string(), &asked.target))?;
            let (body, refusal) = match carrier.body.take() {
                Some(whole) => self.confined(body::full(whole), &asked.target),
                None => self.guarded(&mut asked),
            };
            let request = request(&asked.target, carrier.uri, carrier.headers, body);
            let stand_in = self.stand_in(&connection.provider, asked.target.origin());
            let endpoint = endpoint(stand_in.as_ref().unwrap_or(asked.target.origin()));
            // The spellings are worked out while the request is on its way.
            let spellings =
                async { self.remember(&connection, token.expose(), rendered.as_ref().map(|text| text.as_str())) };
            let (answer, spellings) = tokio::join!(self.dispatch(request, endpoint, asked.limits), spellings);
            let answer = answer.map_err(|error| refusal.get_or(error))?;

            if answer.status().is_success() {
                self.egress.credentials.used(connection.id, connection.generation);
            }
            if answer.status() == StatusCode::UNAUTHORIZED {
                self.note_rejected(&permit, &connection, &asked.target);
            }
            if answer.status() != StatusCode::UNAUTHORIZED || again {
                return Ok(answer::looked_through(answer, spellings, in_flight)?);
            }
            let repeatable = safe_to_repeat(asked.target.method()) && asked.body.whole().is_some();
            // A refresh may have to wait until nobody holds the old token.
            let passed_on = answer::looked_through(answer, spellings, ());
            drop(in_flight);
            let renewed = self.egress.credentials.rejected(connection.id, connection.generation).await;
            match renewed {
                Ok(true) if repeatable => again = true,
                // The guest sees the 401; what people have to do stands in the outcome.
                Ok(_) => return Ok(passed_on?),
                Err(error) => {
                    // A grant that the provider has ended is something for a person to act on.
                    let account = Some(&connection.account);
                    let credentials = &self.egress.credentials;
                    let scopes = found.scopes_of(account);
                    let now = credentials.connection(&found.name, &found.owner, &found.provider, account, &scopes);
                    self.failed(now.err().unwrap_or(error).into());
                    return Ok(passed_on?);
                }
            }
        }
    }

    /// An API refused a token that was thought good.
    fn note_rejected(&self, permit: &Permit, connection: &Connection, target: &Target) {
        let event = Event {
            decision: Decision::Failed,
            connection: Some(connection.id),
            generation: Some(connection.generation),
            origin: Some(target.origin().to_string()),
            method: Some(target.method().as_str().to_owned()),
            ..self.event_of(EventKind::Rejected, permit)
        };
        if let Err(error) = self.egress.audit.append(&event) {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "that a token was refused is missing in the audit log");
        }
    }

    /// Asks policy for this one release, and finds the connection that the permit is for: of the account that was chosen, or of
    /// the first that is meant.
    fn permit(
        &self,
        effective: &Effective,
        found: &EffectiveService,
        target: &Target,
        chosen: Option<&AccountAlias>,
    ) -> Result<(Permit, Arc<Connection>), EgressError> {
        let now = self.egress.clock.now();
        let ask = |account: Option<&AccountAlias>, api_origin: Option<&Origin>| {
            effective.permit_inject(&found.name, target, account, api_origin, now)
        };
        let concerned = found.towards(target, now);
        let candidates = chosen.map_or_else(|| concerned.candidates(), |account| vec![Some(account.clone())]);
        let (mut permitted, mut refused) = (None, None);
        let connection = self.egress.credentials.first_connection(&concerned, &candidates, None, &mut |connection| {
            match ask(Some(&connection.account), self.api_origin(connection).as_ref()) {
                Ok(permit) => permitted = Some(permit),
                Err(denial) => refused = refused.take().or(Some(denial)),
            }
            permitted.is_some()
        });
        let (permit, connection) = match (permitted, connection) {
            (Some(permit), Ok(connection)) => (permit, connection),
            // Policy speaks first: a request that it refuses tells nothing of who is connected.
            (_, connection) => {
                let denial = match (refused, ask(chosen, self.known_origin(found, &connection).as_ref())) {
                    (Some(denial), _) if denial.code != DenialCode::AccountNotGranted => Some(denial),
                    (_, Err(denial)) => Some(denial),
                    (refused, Ok(_)) => refused.filter(|_| connection.is_ok()),
                };
                return Err(match (denial, connection) {
                    (Some(denial), _) => self.deny(denial, target),
                    (None, Err(error)) => self.failed(error.into()),
                    (None, Ok(_)) => self.refuse("no account is meant by this request".to_owned(), target),
                });
            }
        };
        if chosen.is_none() && !self.state().means(&found.name, &connection.account) {
            // Another request of this call was faster.
            let meant = self.state().account(&found.name);
            return self.permit(effective, found, target, meant.as_ref());
        }
        Ok((permit, connection))
    }

    /// What is looked for in the answer, and in later requests of this call.
    fn remember(&self, connection: &Connection, token: &str, rendered: Option<&str>) -> Arc<Spellings> {
        let is_same = |known: &&Known| known.connection == connection.id && known.generation == connection.generation;
        let remembered = self.state().known.iter().find(is_same).map(|known| Arc::clone(&known.spellings));
        if let Some(spellings) = remembered {
            return spellings;
        }
        let spellings = Arc::new(Spellings::of(attach::secrets(connection.kind, token, rendered)));
        self.state().known.push(Known {
            connection: connection.id,
            generation: connection.generation,
            revealed: false,
            spellings: Arc::clone(&spellings),
        });
        spellings
    }

    /// The body, confined, and ended before a placeholder or a token that the guest must not have.
    fn guarded(self: &Arc<Self>, asked: &mut Asked) -> (Body, Refusal) {
        let (mut body, refusal) = self.confined(asked.body.take(), &asked.target);
        let origin = asked.target.origin().to_string();
        let tokens = self.unrevealed().into_iter().map(|spellings| (spellings, true));
        for (spellings, is_token) in tokens.chain([(placeholder::marks(), false)]) {
            let (inner, noted) = (Arc::clone(self), refusal.clone());
            let (origin, method) = (origin.clone(), asked.target.method().clone());
            body = redact::refused(body, spellings, move || {
                let target = Some((origin.as_str(), &method));
                let error = if is_token {
                    inner.carries_token(target)
                } else {
                    let message = "the request's body carries a placeholder where none may stand";
                    inner.refused(message.to_owned(), target)
                };
                let text = error.to_string();
                // One body is refused once: the stream has ended.
                let _ = noted.0.set(error);
                BoxError::from(text)
            });
        }
        (body, refusal)
    }

    /// The body, which ends at once where a reveal that came after the request had begun would let a token out with it.
    fn confined(self: &Arc<Self>, body: Body, target: &Target) -> (Body, Refusal) {
        let refusal = Refusal::default();
        // An empty body stays what it is: its length is known, so that the request goes out without any.
        if body.is_end_stream() {
            return (body, refusal);
        }
        let (inner, noted, target) = (Arc::clone(self), refusal.clone(), target.clone());
        let body = body::while_allowed(body, move || {
            inner.confine(&target).map_err(|error| {
                let text = error.to_string();
                // One body is refused once: the stream has ended.
                let _ = noted.0.set(error);
                BoxError::from(text)
            })
        });
        (body, refusal)
    }

    async fn dispatch(
        &self,
        request: Request<Body>,
        endpoint: Endpoint,
        limits: SendLimits,
    ) -> Result<Response<Answer>, NetError> {
        let policy = self.egress.policy.load();
        let mut rules = AddressRules { private: policy.network().private.clone(), ..AddressRules::default() };
        // A host that is written as an address has passed policy, so an operator wrote it.
        rules.admit(&endpoint);
        let owner = Owner::User(self.calling.caller.user.clone());
        let pool = PoolKey { owner, endpoint: endpoint.clone(), policy: policy.hash() };
        drop(policy);
        let span = net::request_span(&request);
        net::traced(span, self.egress.net.send(net::Outgoing { request, endpoint, rules: &rules, pool, limits })).await
    }
}

/// Set when a streaming body was refused after its request had begun.
#[derive(Clone, Default)]
struct Refusal(Arc<OnceLock<EgressError>>);

impl Refusal {
    /// The refusal, or else the error that the network saw.
    fn get_or(self, error: NetError) -> EgressError {
        Arc::try_unwrap(self.0).ok().and_then(OnceLock::into_inner).unwrap_or(EgressError::Net(error))
    }
}

impl Asked {
    async fn buffer(&mut self) -> Result<(), EgressError> {
        let body = std::mem::replace(&mut self.body, Outgoing::Sent);
        self.body = body.buffered().await?;
        self.carrier.body = self.body.whole().cloned();
        Ok(())
    }

    /// Whether the body is to be read before anything is sent: because a field of it is set, or to be able to send it again.
    fn wants_whole_body(&self, placement: &Placement) -> bool {
        let in_body = matches!(placement, Placement::JsonPointer { .. });
        self.carrier.body.is_none() && (in_body || safe_to_repeat(self.target.method()))
    }

    /// What is sent: the credential in its place, and none of the guest's own.
    fn attached(
        &self,
        found: &EffectiveService,
        bound: Option<&Bound>,
        credential: &str,
    ) -> Result<(Carrier, Option<zeroize::Zeroizing<String>>), attach::AttachError> {
        let mut out = self.carrier.clone();
        let EffectiveService { placement, slots, .. } = found;
        let drop_own =
            |out: &mut Carrier| attach::drop_own_credentials(&mut out.headers, &mut out.uri, placement, slots);
        let rendered = if let Some(bound) = bound {
            out.keep_only(&bound.placeholder, slots, drop_own)?;
            out.swap(&bound.placeholder, credential, slots)?;
            None
        } else {
            drop_own(&mut out)?;
            let Carrier { uri, headers, body } = &mut out;
            attach::attach(headers, uri, body, placement, credential)?
        };
        if let Some(body) = &out.body {
            let unchanged = self.carrier.body.as_ref().is_some_and(|before| before.len() == body.len());
            if !unchanged || !body.is_empty() {
                out.headers.insert(header::CONTENT_LENGTH, body.len().into());
            }
        }
        Ok((out, rendered))
    }
}

fn request(target: &Target, uri: Uri, headers: HeaderMap, body: Body) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = target.method().clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    request
}

fn endpoint(origin: &Origin) -> Endpoint {
    Endpoint::new(origin.scheme() == Scheme::Https, &origin.host().to_string(), origin.port())
}

/// Methods that may be sent twice (RFC 9110 section 9.2.2).
fn safe_to_repeat(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
}

fn limits(timeouts: Timeouts) -> SendLimits {
    let host = SendLimits::default();
    let least = |wish: Option<Duration>, host: Duration| wish.map_or(host, |wish| wish.min(host));
    SendLimits {
        connect: least(timeouts.connect, host.connect),
        first_byte: least(timeouts.first_byte, host.first_byte),
        idle: least(timeouts.between_bytes, host.idle),
        ..host
    }
}
