//! A run in which everything is denied and what the skill tries is noted.
//!
//! Nothing stands behind such a run: no vault, no broker, no network. A token that the skill asks for is an inert stand-in, so that
//! it goes on to where it would send it; there it ends, as each request is refused.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use http::{Request, Response};
use serde_json::Value;

use super::Host;
use super::invoke::{InvokeError, limits, the_tool};
use crate::audit::{Decision, Event, EventKind};
use crate::clock::{self, Clock};
use crate::id::{Caller, ServiceName, SkillName};
use crate::policy::{Attempt, Attempts, Lesson, Linked, Manifest, Origin, Target};
use crate::runtime::{
    AuthDenial, AuthError, Authority, Body, Call, End, Logs, RevealedToken, SendError, Timeouts, TokenHandle,
    TokenInfo, TokenRequest,
};

/// What a run came to in which everything was denied.
#[derive(Debug)]
pub struct Learned {
    /// How it ended; most skills say that they failed.
    pub end: End,
    /// What the skill printed.
    pub logs: Logs,
    /// What it tried, and what would allow it.
    pub lesson: Lesson,
}

const REFUSED: &str = "this run only learns what the skill tries: everything is refused";

impl Host {
    /// Runs a tool of a skill with everything denied, and says what the caller would have to be granted for what it tried. What is
    /// granted by now is not done either, and nothing is granted by it.
    ///
    /// All interfaces are linked, also `reveal`: behind them is nothing to be had.
    pub async fn learn(
        &self,
        caller: &Caller,
        skill: &SkillName,
        tool: Option<&str>,
        input: &Value,
    ) -> Result<Learned, InvokeError> {
        let ready = self.ready(skill).await?;
        let tool = the_tool(&ready, skill, tool)?;
        let effective = self.effective(&ready, caller);
        let manifest = Arc::clone(&ready.manifest);
        let origins = self.api_origins(&manifest);
        let learning = Arc::new(Learning {
            manifest: Arc::clone(&manifest),
            clock: Arc::clone(&self.clock),
            attempts: Mutex::new(Attempts::new(origins.clone())),
            origins,
            handles: Mutex::default(),
        });
        self.audit.append(&Event {
            decision: Decision::Denied,
            invocation: Some(self.new_invocation()),
            client: Some(caller.client.clone()),
            credential: caller.credential.clone(),
            user: Some(caller.user.clone()),
            skill: Some(skill.clone()),
            skill_digest: Some(ready.digest),
            tool: Some(tool.to_owned()),
            policy_hash: Some(self.policy().hash()),
            detail: Some("a run that only learns what the skill tries: nothing was allowed".to_owned()),
            ..Event::new(EventKind::Invoked)
        })?;
        let call = Call {
            user: &caller.user,
            tool,
            input,
            linked: Linked { tokens: true, reveal: true, http: true },
            authority: Arc::new(Shared(Arc::clone(&learning))),
            limits: &limits(effective.limits()),
        };
        let outcome = self.runtime.call(&ready.component, call).await?;
        let lesson = learning.attempts().lesson(&manifest, ready.digest, &caller.user, &effective, self.clock.now());
        Ok(Learned { end: outcome.end, logs: outcome.logs, lesson })
    }

    /// Where the API of each service lives, as far as the catalogue knows without a connection.
    fn api_origins(&self, manifest: &Manifest) -> BTreeMap<ServiceName, Origin> {
        let services = manifest.services.iter();
        services
            .filter_map(|service| {
                let origin = self.catalogue.get(&service.provider)?.default_api_origin()?.clone();
                Some((service.name.clone(), origin))
            })
            .collect()
    }
}

/// The authority of such a run. It has nothing to give.
struct Learning {
    manifest: Arc<Manifest>,
    clock: Arc<dyn Clock>,
    origins: BTreeMap<ServiceName, Origin>,
    attempts: Mutex<Attempts>,
    /// Which service each handle is of, and the stand-in that was given for it.
    handles: Mutex<Vec<(ServiceName, String)>>,
}

impl Learning {
    fn attempts(&self) -> MutexGuard<'_, Attempts> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handles(&self) -> MutexGuard<'_, Vec<(ServiceName, String)>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The service whose stand-in the request carries in its address or headers.
    fn carried(&self, request: &Request<Body>) -> Option<ServiceName> {
        let address = request.uri().to_string();
        let carries = |stand_in: &str| {
            address.contains(stand_in)
                || request.headers().values().any(|value| value.to_str().is_ok_and(|text| text.contains(stand_in)))
        };
        self.handles().iter().find(|(_, stand_in)| carries(stand_in)).map(|(service, _)| service.clone())
    }
}

struct Shared(Arc<Learning>);

#[async_trait]
impl Authority for Shared {
    async fn get_token(&self, request: TokenRequest<'_>) -> Result<TokenHandle, AuthError> {
        let TokenRequest { service, scopes, account, audience } = request;
        let learning = &self.0;
        learning.attempts().note(Attempt::Token {
            service: service.to_owned(),
            scopes: scopes.to_vec(),
            account: account.map(ToOwned::to_owned),
            audience: audience.map(ToOwned::to_owned),
        });
        let Some(declared) = learning.manifest.service(service) else {
            return Err(AuthError::Undeclared(service.to_owned()));
        };
        let random: [u8; 16] = clock::random(learning.clock.as_ref());
        let placeholder = format!("learning-{}", hex::encode(random));
        let scopes =
            if scopes.is_empty() { declared.scopes.iter().map(ToString::to_string).collect() } else { scopes.to_vec() };
        let info = TokenInfo {
            provider: declared.provider.to_string(),
            api_origin: learning.origins.get(&declared.name).map(ToString::to_string).unwrap_or_default(),
            account: account.map(ToOwned::to_owned),
            scopes,
            expires_at_ms: None,
        };
        let mut handles = learning.handles();
        handles.push((declared.name.clone(), placeholder.clone()));
        Ok(TokenHandle { id: handles.len() as u64 - 1, info, placeholder })
    }

    fn invalidate(&self, _: u64) {}

    async fn reveal(&self, handle: u64) -> Result<RevealedToken, AuthError> {
        let service = {
            let handles = self.0.handles();
            usize::try_from(handle).ok().and_then(|handle| handles.get(handle)).map(|(service, _)| service.clone())
        };
        if let Some(service) = service {
            self.0.attempts().note(Attempt::Reveal { service });
        }
        Err(AuthError::Denied { code: AuthDenial::RevealNotGranted, message: REFUSED.to_owned() })
    }

    async fn send(&self, request: Request<Body>, _: Timeouts) -> Result<Response<Body>, SendError> {
        match Target::parse(request.method(), request.uri()) {
            Ok(target) => {
                let with = self.0.carried(&request);
                self.0.attempts().note(Attempt::Request { with, target });
                Err(SendError::Denied(REFUSED.to_owned()))
            }
            Err(error) => Err(SendError::Denied(error.to_string())),
        }
    }
}
