//! One call of a skill, as egress knows it: its handles, its placeholders, and what it was refused.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

use crate::audit::{Decision, Event, EventKind};
use crate::broker::{BrokerError, NeededAction};
use crate::clock::random;
use crate::id::{
    AccountAlias, Caller, ConnectionId, Digest, ExplanationId, Generation, InvocationId, Scope, ServiceName,
};
use crate::policy::{Culprit, Denial, DenialCode, Effective, EffectiveService, Manifest, Origin, Policy};
use crate::secret::AccessToken;
use crate::vault::Connection;

use super::Egress;
use super::error::EgressError;
use super::further::Further;
use super::placeholder::Placeholders;
use super::redact::Spellings;

/// Which call it is.
#[derive(Debug, Clone)]
pub struct Calling {
    /// Who called, for whom.
    pub caller: Caller,
    /// The call.
    pub invocation: InvocationId,
    /// What the skill declares.
    pub manifest: Arc<Manifest>,
    /// The digest that grants pin.
    pub digest: Digest,
    /// The tool that was called.
    pub tool: String,
}

/// One call of a skill. Clones are the same call.
#[derive(Clone)]
pub struct Call(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) egress: Arc<Egress>,
    pub(super) calling: Calling,
    pub(super) state: Mutex<State>,
    /// A place for each request that may be under way at the same time.
    pub(super) places: Arc<Semaphore>,
}

/// What `get-token` gives.
#[derive(Debug, Clone)]
pub struct HandleInfo {
    /// The handle's number in this call.
    pub id: u64,
    /// The stand-in for the token.
    pub placeholder: String,
    /// What is known of the connection.
    pub connection: Arc<Connection>,
    /// Where its API lives.
    pub api_origin: Option<Origin>,
}

/// A token that leaves for the guest.
#[derive(Debug)]
pub struct Revealed {
    /// The token.
    pub token: AccessToken,
    /// What is known of it.
    pub connection: Arc<Connection>,
}

/// What a call could not do, whatever the guest made of it.
#[derive(Debug, Clone, Default)]
pub struct Refusals {
    /// What was refused.
    pub denials: Vec<Denial>,
    /// What people have to do.
    pub actions: Vec<NeededAction>,
}

/// What a call has reached, and with what.
#[derive(Debug, Clone, Default)]
pub struct Touched {
    /// The origins to which requests went.
    pub origins: BTreeSet<String>,
    /// The connections whose tokens were released, with the generation of each.
    pub credentials: BTreeSet<(ConnectionId, Generation)>,
}

impl Touched {
    pub(super) fn reached(&mut self, origin: &Origin) {
        if self.origins.len() < MOST_ORIGINS {
            self.origins.insert(origin.to_string());
        }
    }
}

/// No call keeps more origins: where a grant admits any host below a name, a guest can think of many.
const MOST_ORIGINS: usize = 1000;

/// No call keeps more refusals, and no more are written down one by one: a guest that tries forever must fill neither the
/// memory nor the disk. What comes after is counted, and written as one entry.
const MOST_REFUSALS: usize = 100;
/// So many attempts to send a token away are written down beyond that: a crowd of other refusals must not hide them.
const KEPT_REFUSALS: usize = 10;

/// So often one request is decided again because the permissions have changed.
const MOST_DECISIONS: usize = 3;

pub(super) struct Handle {
    pub(super) service: ServiceName,
    pub(super) account: AccountAlias,
    pub(super) connection: ConnectionId,
}

/// A token that this call has used.
pub(super) struct Known {
    pub(super) connection: ConnectionId,
    pub(super) generation: Generation,
    pub(super) revealed: bool,
    pub(super) spellings: Arc<Spellings>,
}

pub(super) struct State {
    policy: Arc<Policy>,
    effective: Effective,
    pub(super) handles: Vec<Handle>,
    pub(super) placeholders: Placeholders<u64>,
    /// The account that the guest asked for last, for requests that say no account.
    chosen: HashMap<ServiceName, AccountAlias>,
    /// Which account was meant where none was named: a call that has begun with one does not go on with another.
    meant: HashMap<ServiceName, AccountAlias>,
    pub(super) known: Vec<Known>,
    /// Whose tokens the guest has seen.
    pub(super) revealed: BTreeSet<(ServiceName, AccountAlias)>,
    /// The guest said that the API refused this generation.
    pub(super) invalid: HashMap<ConnectionId, Generation>,
    refusals: Refusals,
    /// How many of these came after all the others had their place.
    kept: usize,
    /// What was refused after that.
    further: Further,
    pub(super) touched: Touched,
}

impl State {
    /// The account for requests that say none, once that is known.
    pub(super) fn account(&self, service: &ServiceName) -> Option<AccountAlias> {
        self.chosen.get(service).or_else(|| self.meant.get(service)).cloned()
    }

    /// Takes this account as the one that is meant where none is named. `false`: it is another already.
    pub(super) fn means(&mut self, service: &ServiceName, account: &AccountAlias) -> bool {
        self.meant.entry(service.clone()).or_insert_with(|| account.clone()) == account
    }
}

impl Call {
    /// A call that begins.
    pub fn new(egress: Arc<Egress>, calling: Calling) -> Self {
        let policy = egress.policy.load_full();
        let effective = egress.effective(&policy, &calling);
        let state = State {
            policy,
            effective,
            handles: Vec::new(),
            placeholders: Placeholders::default(),
            chosen: HashMap::new(),
            meant: HashMap::new(),
            known: Vec::new(),
            revealed: BTreeSet::new(),
            invalid: HashMap::new(),
            refusals: Refusals::default(),
            kept: 0,
            further: Further::default(),
            touched: Touched::default(),
        };
        let places = Arc::new(Semaphore::new(super::REQUESTS_PER_CALL));
        Self(Arc::new(Inner { egress, calling, state: Mutex::new(state), places }))
    }

    /// What the skill may do at this moment.
    pub fn effective(&self) -> Effective {
        self.0.effective()
    }

    /// Which call it is.
    pub fn invocation(&self) -> InvocationId {
        self.0.calling.invocation
    }

    /// The policy by which [`effective`](Self::effective) was decided last.
    pub fn policy_hash(&self) -> Digest {
        self.0.state().policy.hash()
    }

    /// Decides a `get-token`. Nothing is decrypted.
    pub fn get_token(
        &self,
        service: &str,
        scopes: &[String],
        account: Option<&str>,
        audience: Option<&str>,
    ) -> Result<HandleInfo, EgressError> {
        let inner = &*self.0;
        let effective = inner.effective();
        let now = inner.egress.clock.now();
        let is_of = |(name, _): &(&ServiceName, &AccountAlias)| name.as_str() == service;
        let meant = inner.state().meant.iter().find(is_of).map(|(_, account)| account.clone());
        let which = account.or(meant.as_ref().map(AccountAlias::as_str));
        let selected =
            effective.token(service, scopes, which, audience, now).map_err(|denial| inner.denied(denial, None))?;
        let asked: BTreeSet<Scope> = scopes.iter().filter_map(|scope| scope.parse().ok()).collect();
        let found = effective.service(&selected.service).map_err(|denial| inner.denied(denial, None))?;
        let wanted = (!scopes.is_empty()).then_some(&asked);
        let connection = inner
            .egress
            .credentials
            .first_connection(found, &selected.accounts, wanted, &mut |_| true)
            .map_err(|error| inner.failed(error.into()))?;
        let api_origin = inner.api_origin(&connection);
        let mut state = inner.state();
        if account.is_none() && !state.means(&selected.service, &connection.account) {
            drop(state);
            return self.get_token(service, scopes, account, audience);
        }
        let id = state.handles.len() as u64;
        state.chosen.insert(selected.service.clone(), connection.account.clone());
        state.handles.push(Handle {
            service: selected.service,
            account: connection.account.clone(),
            connection: connection.id,
        });
        let placeholder = state.placeholders.give(id, inner.egress.names.draw());
        Ok(HandleInfo { id, placeholder, connection, api_origin })
    }

    /// The API refused the token behind this handle: a fresh one is used from the next request on.
    pub fn invalidate(&self, handle: u64) {
        let mut state = self.0.state();
        let Some(connection) = state.handle(handle).map(|handle| handle.connection) else { return };
        let used =
            state.known.iter().filter(|known| known.connection == connection).map(|known| known.generation).max();
        if let Some(generation) = used {
            state.invalid.insert(connection, generation);
        }
    }

    /// Gives the token behind a handle to the guest. From then on the call may reach only what the service's grant says.
    pub async fn reveal(&self, handle: u64) -> Result<Revealed, EgressError> {
        let inner = &*self.0;
        let (service, account, connection) = {
            let state = inner.state();
            let handle = state.handle(handle).ok_or(EgressError::UnknownHandle)?;
            (handle.service.clone(), handle.account.clone(), handle.connection)
        };
        let mut decided = 0;
        let released = loop {
            let effective = inner.effective();
            let permit = effective
                .permit_reveal(&service, Some(&account), inner.egress.clock.now())
                .map_err(|denial| inner.denied(denial, None))?;
            inner.egress.rates.take(&permit, &*inner.egress.clock).map_err(|denial| inner.denied(denial, None))?;
            inner.renew_if_invalid(connection).await;
            // Before the token is there, so that no request of the same guest slips out between.
            inner.state().revealed.insert((service.clone(), account.clone()));
            let event = inner.event_of(EventKind::Revealed, &permit);
            let released = inner.egress.credentials.release(&permit, connection, event).await;
            let released = released.map_err(|error| inner.failed(error.into()))?;
            if inner.is_in_force(&permit) {
                break released;
            }
            inner.decide_again(&mut decided, None)?;
        };
        let generation = released.connection.generation;
        let mut state = inner.state();
        state.touched.credentials.insert((connection, generation));
        let known =
            state.known.iter_mut().find(|known| known.connection == connection && known.generation == generation);
        if let Some(known) = known {
            known.revealed = true;
        } else {
            let spellings = Arc::new(Spellings::of([released.token.expose()]));
            state.known.push(Known { connection, generation, revealed: true, spellings });
        }
        drop(state);
        Ok(Revealed { token: released.token, connection: released.connection })
    }

    /// What the call has reached so far.
    pub fn touched(&self) -> Touched {
        self.0.state().touched.clone()
    }

    /// Writes down how much was refused beyond what has an entry of its own. It is done by itself when nothing of the call is
    /// left; this is for having it in the log before the entry of the call's end.
    pub fn sum_up(&self) {
        self.0.sum_up();
    }

    /// What the call was refused so far.
    pub fn refusals(&self) -> Refusals {
        self.0.state().refusals.clone()
    }

    /// Blots the tokens that this call has used out of a text that leaves it: a result, a log line. Best effort.
    pub fn blot(&self, text: &mut [u8]) -> bool {
        let known: Vec<_> = self.0.state().known.iter().map(|known| Arc::clone(&known.spellings)).collect();
        let mut found = false;
        for spellings in known {
            found |= spellings.blot(text);
        }
        found
    }
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").field("calling", &self.0.calling).finish_non_exhaustive()
    }
}

impl State {
    pub(super) fn handle(&self, id: u64) -> Option<&Handle> {
        self.handles.get(usize::try_from(id).ok()?)
    }
}

impl Inner {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the skill may do at this moment, by the policy of this moment.
    pub(super) fn effective(&self) -> Effective {
        let policy = self.egress.policy.load();
        let mut state = self.state();
        if !Arc::ptr_eq(&policy, &state.policy) {
            state.effective = self.egress.effective(&policy, &self.calling);
            state.policy = Arc::clone(&policy);
        }
        state.effective.clone()
    }

    /// Where the API of a connection lives.
    pub(super) fn api_origin(&self, connection: &Connection) -> Option<Origin> {
        connection.api_origin.clone().or_else(|| {
            self.egress.catalogue.get(&connection.provider).and_then(|provider| provider.default_api_origin()).cloned()
        })
    }

    /// The same for what was looked for, also where that can't be used as it is: a request that goes there is then answered with
    /// what a person has to do.
    pub(super) fn known_origin(
        &self,
        service: &EffectiveService,
        found: &Result<Arc<Connection>, BrokerError>,
    ) -> Option<Origin> {
        match found {
            Ok(connection) => self.api_origin(connection),
            Err(BrokerError::ActionRequired(action)) => {
                let account = action.account.as_ref()?;
                let stored = self.egress.credentials.stored(&service.owner, &service.provider, Some(account))?;
                self.api_origin(&stored)
            }
            Err(_) => None,
        }
    }

    /// The API origins of those services whose requests depend on them.
    pub(super) fn api_origins(&self, effective: &Effective) -> BTreeMap<ServiceName, Origin> {
        effective
            .granted()
            .filter(|service| service.depends_on_connection())
            .filter_map(|service| {
                let chosen = self.state().account(&service.name);
                let candidates = chosen.map_or_else(|| service.candidates(), |account| vec![Some(account)]);
                let credentials = &self.egress.credentials;
                let found = credentials.first_connection(service, &candidates, Some(&BTreeSet::new()), &mut |_| true);
                Some((service.name.clone(), self.known_origin(service, &found)?))
            })
            .collect()
    }

    /// A refresh, if the guest said that the API refused the token that is in use.
    pub(super) async fn renew_if_invalid(&self, connection: ConnectionId) {
        let invalid = self.state().invalid.remove(&connection);
        if let Some(generation) = invalid
            && let Err(error) = self.egress.credentials.rejected(connection, generation).await
        {
            // The release that follows says what has to be done.
            tracing::debug!(%error, "a token that the skill calls invalid was not replaced");
        }
    }

    fn event(&self, kind: EventKind) -> Event {
        let Calling { caller, invocation, manifest, digest, tool } = &self.calling;
        Event {
            invocation: Some(*invocation),
            client: Some(caller.client.clone()),
            credential: caller.credential.clone(),
            user: Some(caller.user.clone()),
            skill: Some(manifest.name.clone()),
            skill_digest: Some(*digest),
            tool: Some(tool.clone()),
            ..Event::new(kind)
        }
    }

    /// Whether the policy that decided is the one in force: writing the entry of a release may take seconds.
    pub(super) fn is_in_force(&self, permit: &crate::policy::Permit) -> bool {
        self.egress.policy.load().hash() == *permit.policy_hash()
    }

    /// Notes that another policy has come into force while the entry of a release was written: nothing leaves by the old one,
    /// and the new one is asked.
    pub(super) fn decide_again(
        &self,
        decided: &mut usize,
        target: Option<(&str, &http::Method)>,
    ) -> Result<(), EgressError> {
        *decided += 1;
        if *decided <= MOST_DECISIONS {
            return Ok(());
        }
        Err(self.refused("the permissions change all the time; try again when they don't".to_owned(), target))
    }

    /// The entry of a release.
    pub(super) fn event_of(&self, kind: EventKind, permit: &crate::policy::Permit) -> Event {
        Event {
            service: Some(permit.service().clone()),
            provider: Some(permit.provider().clone()),
            scopes: permit.scopes().iter().cloned().collect(),
            rule: Some(permit.rule().to_string()),
            policy_hash: Some(*permit.policy_hash()),
            ..self.event(kind)
        }
    }

    /// The entry of a request.
    pub(super) fn event_to(
        &self,
        kind: EventKind,
        rule: Option<String>,
        origin: &Origin,
        method: &http::Method,
    ) -> Event {
        Event {
            origin: Some(origin.to_string()),
            method: Some(method.as_str().to_owned()),
            rule,
            policy_hash: Some(self.state().policy.hash()),
            ..self.event(kind)
        }
    }

    /// Notes a refusal, in the log and for the outcome.
    pub(super) fn denied(&self, denial: Denial, target: Option<(&str, &http::Method)>) -> EgressError {
        let policy = {
            let mut state = self.state();
            let is_full = state.refusals.denials.len() >= MOST_REFUSALS;
            let is_kept = denial.code == DenialCode::CarriesToken && state.kept < KEPT_REFUSALS;
            if is_full && !is_kept {
                let origin = target.map(|(origin, _)| origin).filter(|origin| !origin.is_empty());
                state.further.count(&denial, origin);
                return denial.into();
            }
            state.kept += usize::from(is_full);
            state.refusals.denials.push(denial.clone());
            state.policy.hash()
        };
        self.append_refusal(&Event {
            decision: Decision::Denied,
            explanation: Some(denial.id),
            rule: denial.rule.as_ref().map(ToString::to_string),
            policy_hash: Some(policy),
            origin: target.map(|(origin, _)| origin.to_owned()),
            method: target.map(|(_, method)| method.as_str().to_owned()),
            detail: Some(denial.message.clone()),
            ..self.event(EventKind::Denied)
        });
        denial.into()
    }

    fn sum_up(&self) {
        let (further, policy) = {
            let mut state = self.state();
            (std::mem::take(&mut state.further), state.policy.hash())
        };
        if further.count > 0 {
            self.append_refusal(&Event {
                decision: Decision::Denied,
                policy_hash: Some(policy),
                detail: Some(further.to_string()),
                ..self.event(EventKind::Denied)
            });
        }
    }

    fn append_refusal(&self, event: &Event) {
        // The answer is no in any case; without the entry it is the more so.
        if let Err(error) = self.egress.audit.append(event) {
            let invocation = self.calling.invocation;
            tracing::error!(%invocation, %error, "a refusal is missing in the audit log");
        }
    }

    /// A refusal of egress itself: of what the request is, not of where it goes.
    pub(super) fn refused(&self, message: String, target: Option<(&str, &http::Method)>) -> EgressError {
        self.refused_as(DenialCode::RequestNotGranted, message, target)
    }

    /// A refusal of a request with a token in it that the skill was not given.
    pub(super) fn carries_token(&self, target: Option<(&str, &http::Method)>) -> EgressError {
        let message = "the request carries a token that the skill must not have".to_owned();
        self.refused_as(DenialCode::CarriesToken, message, target)
    }

    fn refused_as(&self, code: DenialCode, message: String, target: Option<(&str, &http::Method)>) -> EgressError {
        let denial = Denial {
            id: ExplanationId::from_bytes(random(&*self.egress.clock)),
            code,
            message,
            rule: None,
            reason: None,
            culprit: Culprit::SkillAuthor,
            allow: Box::default(),
            retry_after: None,
        };
        self.denied(denial, target)
    }

    /// Notes what people have to do.
    pub(super) fn failed(&self, error: EgressError) -> EgressError {
        if let EgressError::ActionRequired(action) = &error {
            let mut state = self.state();
            if state.refusals.actions.len() < MOST_REFUSALS && !state.refusals.actions.contains(action) {
                state.refusals.actions.push((**action).clone());
            }
        }
        error
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.sum_up();
    }
}
