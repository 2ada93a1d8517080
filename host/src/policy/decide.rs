//! The questions that are asked while a call runs, and their answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::denial::{Culprit, Denial, DenialCode, Proposal};
use super::effective::{Decision, EffectiveService, ForbidLine, Granted, Plain, Refusal, Service};
use super::explain;
use super::limits::EffectiveLimits;
use super::manifest::{Select, Use};
use super::origin::Origin;
use super::permit::{Permit, Purpose};
use super::request::{OriginRule, RequestRule};
use super::target::Target;
use crate::clock::Timestamp;
use crate::diagnostic::Line;
use crate::id::{AccountAlias, ExplanationId, Owner, ProviderId, ServiceName};

/// What a skill may do for one caller. Cheap to clone.
///
/// It is a snapshot: after a reload of the permissions, ask the new [`Policy`](super::Policy).
#[derive(Debug, Clone)]
pub struct Effective(Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) decision: Arc<Decision>,
    pub(super) services: Vec<Service>,
    pub(super) plain: Plain,
    pub(super) limits: EffectiveLimits,
}

/// Which interfaces may be linked at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Linked {
    /// `clawcoil:skill/tokens`: a service is granted, or an optional one is declared, so that asking gives a typed refusal.
    pub tokens: bool,
    /// `clawcoil:skill/reveal`: a service is declared and granted with `use = "reveal"`.
    pub reveal: bool,
    /// `wasi:http`: the manifest declares where requests go. Each request is judged all the same.
    pub http: bool,
}

/// The answer to `get-token`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// The service.
    pub service: ServiceName,
    /// Whose connection.
    pub owner: Owner,
    /// At which provider.
    pub provider: ProviderId,
    /// Which accounts may be meant, the first choice first. `None` among them: the owner's default, whatever its alias.
    pub accounts: Vec<Option<AccountAlias>>,
    /// The grant that decided.
    pub rule: Line,
}

/// How a request may leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// As it is, without a credential.
    Plain {
        /// The grant that decided.
        rule: Line,
    },
    /// With the credential of this service.
    Service {
        /// The service.
        service: ServiceName,
        /// The grant that decided.
        rule: Line,
    },
}

impl Effective {
    pub(super) fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    /// Which interfaces may be linked at all.
    pub fn linked(&self) -> Linked {
        let Inner { services, plain, .. } = &*self.0;
        Linked {
            tokens: services.iter().any(|service| service.summary.is_ok() || service.declared.optional),
            reveal: services
                .iter()
                .any(|service| service.summary.as_ref().is_ok_and(|summary| summary.use_ == Use::Reveal)),
            http: !plain.declared.is_empty() || services.iter().any(|service| !service.declared.requests.is_empty()),
        }
    }

    /// The services whose connection must be there before the guest starts: granted and not optional.
    pub fn required(&self) -> impl Iterator<Item = &EffectiveService> {
        self.granted().filter(|service| !service.optional)
    }

    /// All services that are declared and granted.
    pub fn granted(&self) -> impl Iterator<Item = &EffectiveService> {
        self.0.services.iter().filter_map(|service| service.summary.as_ref().ok())
    }

    /// Why the call can't start: each service that is declared, not optional and not granted.
    pub fn denied_services(&self) -> impl Iterator<Item = Denial> {
        self.0.services.iter().filter(|service| !service.declared.optional).filter_map(|service| {
            let refusal = service.summary.as_ref().err()?;
            Some(self.refuse_service(service, refusal))
        })
    }

    /// What the call may use of the machine.
    pub fn limits(&self) -> EffectiveLimits {
        self.0.limits
    }

    /// A service by its name.
    ///
    /// # Errors
    ///
    /// It is not declared, or not granted.
    pub fn service(&self, name: &ServiceName) -> Result<&EffectiveService, Denial> {
        let service = self.find(name.as_str())?;
        service.summary.as_ref().map_err(|refusal| self.refuse_service(service, refusal))
    }

    /// Decides a `get-token`: nothing is released by it.
    ///
    /// # Errors
    ///
    /// The service, one of the scopes, the audience or the account are not declared or not granted, all by one grant.
    pub fn token(
        &self,
        service: &str,
        scopes: &[String],
        account: Option<&str>,
        audience: Option<&str>,
        now: Timestamp,
    ) -> Result<Selected, Denial> {
        let service = self.usable(service)?;
        let name = &service.declared.name;
        let undeclared =
            scopes.iter().find(|scope| !service.declared.scopes.iter().any(|known| known.as_str() == **scope));
        if let Some(scope) = undeclared {
            let message = format!("the manifest does not declare scope {} for service `{name}`", quoted(scope));
            let allow = explain::scope(self.decision(), &service.declared, scope, true);
            return Err(self.deny(
                DenialCode::ScopeNotGranted,
                Culprit::SkillAuthor,
                message,
                &format!("scope {name} {scope}"),
                allow,
            ));
        }
        let live = self.live(service, now)?;
        let has_scopes =
            |granted: &Granted| scopes.iter().all(|scope| granted.scopes.iter().any(|has| has.as_str() == *scope));
        let with_scopes: Vec<_> = live.into_iter().filter(|granted| has_scopes(granted)).collect();
        if with_scopes.is_empty() {
            let all = service.granted.iter().flat_map(|granted| &granted.scopes).collect::<Vec<_>>();
            let missing = scopes.iter().find(|scope| !all.iter().any(|has| has.as_str() == **scope));
            let missing = missing.or(scopes.first()).map_or("", String::as_str);
            let message = format!("scope {} of service `{name}` is not granted", quoted(missing));
            let allow = explain::scope(self.decision(), &service.declared, missing, false);
            return Err(self.deny(
                DenialCode::ScopeNotGranted,
                Culprit::Operator,
                message,
                &format!("scope {name} {missing}"),
                allow,
            ));
        }
        let has_audience = |granted: &&Arc<Granted>| {
            audience.is_none_or(|audience| granted.grant.audiences.iter().any(|has| has == audience))
        };
        let with_audience: Vec<_> = with_scopes.into_iter().filter(has_audience).collect();
        if with_audience.is_empty() {
            let audience = audience.unwrap_or_default();
            let message = format!("audience {} of service `{name}` is not granted", quoted(audience));
            let first = service.granted.first();
            let allow =
                first.map(|granted| explain::key_in_grant(granted, "audiences", audience)).into_iter().collect();
            return Err(self.deny(
                DenialCode::AudienceNotGranted,
                Culprit::Operator,
                message,
                &format!("audience {name} {audience}"),
                allow,
            ));
        }
        let named = account.and_then(|account| account.parse().ok());
        let is_for = |granted: &&&Arc<Granted>| account.is_none() || named.is_some() && granted.gives(named.as_ref());
        let Some(granted) = with_audience.iter().find(is_for) else {
            return Err(self.refuse_account(service, with_audience.first().copied(), account.unwrap_or_default()));
        };
        let accounts = match named {
            Some(account) => vec![Some(account)],
            None => candidates(with_audience.iter().copied()),
        };
        Ok(Selected {
            service: name.clone(),
            owner: granted.owner.clone(),
            provider: granted.declared.provider.clone(),
            accounts,
            rule: granted.line.clone(),
        })
    }

    /// Where a request may go: to the one service that claims its destination, or out as it is.
    ///
    /// `api_origins` is what is known of the connections: where the API of each service's account lives. A request that a
    /// declared service claims never leaves without that service's grant.
    ///
    /// # Errors
    ///
    /// Nothing allows it. Nothing was resolved or dialled for it.
    pub fn route(&self, target: &Target, api_origins: &BTreeMap<ServiceName, Origin>) -> Result<Route, Denial> {
        let claims = |service: &&Service| {
            service.declared.select == Select::Destination
                && declares(service, target, api_origins.get(&service.declared.name))
        };
        let mut claiming = self.0.services.iter().filter(claims);
        match (claiming.next(), claiming.next()) {
            (Some(service), None) => {
                let granted = self.admitting(service, target, api_origins.get(&service.declared.name))?;
                Ok(Route::Service { service: service.declared.name.clone(), rule: granted.line.clone() })
            }
            (Some(a), Some(b)) => {
                let message = format!(
                    "services `{}` and `{}` of the manifest both claim {target}",
                    a.declared.name, b.declared.name
                );
                Err(self.deny(
                    DenialCode::Ambiguous,
                    Culprit::SkillAuthor,
                    message,
                    &format!("request {target}"),
                    Vec::new(),
                ))
            }
            (None, _) => self.plain(target),
        }
    }

    /// Decides that the token of a service goes on this request.
    ///
    /// # Errors
    ///
    /// The service, its destination or the account are not declared or not granted, all by one grant, or it has expired.
    pub fn permit_inject(
        &self,
        service: &ServiceName,
        target: &Target,
        account: Option<&AccountAlias>,
        api_origin: Option<&Origin>,
        now: Timestamp,
    ) -> Result<Permit, Denial> {
        let service = self.usable(service.as_str())?;
        if !declares(service, target, api_origin) {
            return Err(self.refuse_undeclared_request(service, target));
        }
        self.admitting(service, target, api_origin)?;
        let purpose = || Purpose::Inject { origin: target.origin().clone() };
        let admits = |granted: &&Arc<Granted>| admits(granted, target, api_origin);
        self.permit(service, service.granted.iter().filter(admits), account, purpose, now)
    }

    /// Decides that the skill gets the token of a service in the clear.
    ///
    /// # Errors
    ///
    /// The service is not declared and granted with `use = "reveal"`, the account is not granted, or the grant has expired.
    pub fn permit_reveal(
        &self,
        service: &ServiceName,
        account: Option<&AccountAlias>,
        now: Timestamp,
    ) -> Result<Permit, Denial> {
        let service = self.usable(service.as_str())?;
        let name = &service.declared.name;
        let question = format!("reveal {name}");
        if service.declared.use_ != Use::Reveal {
            let message = format!("the manifest does not declare that service `{name}` reveals its token");
            let allow = explain::reveal(service, true);
            return Err(self.deny(DenialCode::RevealNotGranted, Culprit::SkillAuthor, message, &question, allow));
        }
        if let Some(forbid) = &service.forbidden_reveal {
            return Err(self.refuse(
                &Refusal::forbidden(&format!("to reveal the token of service `{name}`"), forbid),
                &question,
                Vec::new(),
            ));
        }
        let revealing = || service.granted.iter().filter(|granted| granted.use_ == Use::Reveal);
        if revealing().next().is_none() {
            let message = format!("service `{name}` is granted for injection only, its token is not revealed");
            let allow = explain::reveal(service, false);
            let mut denial = self.deny(DenialCode::RevealNotGranted, Culprit::Operator, message, &question, allow);
            denial.rule = service.granted.first().map(|granted| granted.line.clone());
            return Err(denial);
        }
        self.permit(service, revealing(), account, || Purpose::Reveal, now)
    }

    /// Whether a call that saw the token of this account of a service may still send this request: to where the service's own
    /// requests go with that account, or to an origin of its grant's `reveal_with`. Without an account: of the owner's default,
    /// whatever its alias. Nowhere, once the reveal itself is no longer allowed. What [`route`](Self::route) says holds besides.
    ///
    /// # Errors
    ///
    /// The request goes elsewhere and could carry the token out.
    pub fn reveal_confinement(
        &self,
        service: &ServiceName,
        account: Option<&AccountAlias>,
        target: &Target,
        api_origin: Option<&Origin>,
        now: Timestamp,
    ) -> Result<(), Denial> {
        let reveals = self.permit_reveal(service, account, now).is_ok();
        let service = self.usable(service.as_str())?;
        let of_account = |granted: &&Arc<Granted>| granted.holds(now) && granted.gives(account);
        let granted = || service.granted.iter().filter(of_account);
        let own = declares(service, target, api_origin) && granted().any(|granted| admits(granted, target, api_origin));
        let with = granted().any(|granted| granted.grant.reveal_with.contains(target.origin()));
        if reveals && (own || with) {
            return Ok(());
        }
        let name = &service.declared.name;
        let message =
            format!("after the token of service `{name}` was revealed, {target} is out of bounds for this call");
        let origin = target.origin().to_string();
        let first = granted().find(|granted| granted.grant.use_ == Use::Reveal);
        let allow = first.map(|granted| explain::key_in_grant(granted, "reveal_with", &origin)).into_iter().collect();
        Err(self.deny(
            DenialCode::RequestNotGranted,
            Culprit::Operator,
            message,
            &format!("after reveal {name} {target}"),
            allow,
        ))
    }

    pub(super) fn find(&self, name: &str) -> Result<&Service, Denial> {
        self.0.services.iter().find(|service| service.declared.name.as_str() == name).ok_or_else(|| {
            let message = format!("the manifest declares no service {}", quoted(name));
            let allow = explain::service(self.decision(), name);
            self.deny(DenialCode::Undeclared, Culprit::SkillAuthor, message, &format!("service {name}"), allow)
        })
    }

    pub(super) fn decision(&self) -> &Decision {
        &self.0.decision
    }

    /// The service, if it is granted.
    fn usable(&self, name: &str) -> Result<&Service, Denial> {
        let service = self.find(name)?;
        match &service.summary {
            Ok(_) => Ok(service),
            Err(refusal) => Err(self.refuse_service(service, refusal)),
        }
    }

    fn live<'s>(&self, service: &'s Service, now: Timestamp) -> Result<Vec<&'s Arc<Granted>>, Denial> {
        let live: Vec<_> = service.granted.iter().filter(|granted| granted.holds(now)).collect();
        if live.is_empty() { Err(self.refuse_expired(service)) } else { Ok(live) }
    }

    fn permit<'s>(
        &self,
        service: &Service,
        granted: impl Iterator<Item = &'s Arc<Granted>>,
        account: Option<&AccountAlias>,
        purpose: impl Fn() -> Purpose,
        now: Timestamp,
    ) -> Result<Permit, Denial> {
        let live: Vec<_> = granted.filter(|granted| granted.holds(now)).collect();
        if live.is_empty() {
            return Err(self.refuse_expired(service));
        }
        let first = || candidates(live.iter().copied()).into_iter().next().flatten();
        let account = account.cloned().or_else(first);
        if let Some(granted) = live.iter().find(|granted| granted.gives(account.as_ref())) {
            return Ok(Permit::new(Arc::clone(granted), account, purpose()));
        }
        Err(self.refuse_account(service, live.first().copied(), account.as_ref().map_or("", AccountAlias::as_str)))
    }

    /// The first grant that lets the service's credential go there.
    fn admitting<'s>(
        &self,
        service: &'s Service,
        target: &Target,
        api_origin: Option<&Origin>,
    ) -> Result<&'s Granted, Denial> {
        let name = &service.declared.name;
        if let Err(refusal) = &service.summary {
            return Err(self.refuse_service(service, refusal));
        }
        if let Some(forbid) = forbidden(&service.forbidden_origins, target) {
            let refusal = Refusal::forbidden(&format!("requests to {}", target.origin()), forbid);
            return Err(self.refuse(&refusal, &format!("request {name} {target}"), Vec::new()));
        }
        service.granted.iter().find(|granted| admits(granted, target, api_origin)).map(|granted| &**granted).ok_or_else(
            || {
                let message = format!("the grant for service `{name}` does not let its token go to {target}");
                let allow = explain::request_in_grant(service, target);
                let mut denial = self.deny(
                    DenialCode::RequestNotGranted,
                    Culprit::Operator,
                    message,
                    &format!("request {name} {target}"),
                    allow,
                );
                denial.rule = service.granted.first().map(|granted| granted.line.clone());
                denial
            },
        )
    }

    fn plain(&self, target: &Target) -> Result<Route, Denial> {
        let plain = &self.0.plain;
        let question = format_args!("request {target}");
        if let Some(forbid) = forbidden(&plain.forbidden_origins, target) {
            let refusal = Refusal::forbidden(&format!("requests to {}", target.origin()), forbid);
            return Err(self.refuse(&refusal, &question.to_string(), Vec::new()));
        }
        let declared = plain.declared.iter().any(|rule| rule.matches(target, None));
        if !declared {
            let message = format!("the manifest does not declare requests to {target}");
            let allow = explain::plain(self.decision(), target, true);
            return Err(self.deny(
                DenialCode::RequestNotGranted,
                Culprit::SkillAuthor,
                message,
                &question.to_string(),
                allow,
            ));
        }
        let granted = plain.granted.iter().find(|grant| grant.requests.iter().any(|rule| rule.matches(target, None)));
        match (granted, &plain.refused) {
            (Some(grant), _) => Ok(Route::Plain { rule: grant.line.clone() }),
            (None, Some(refusal)) => {
                let allow = explain::renewal(self.decision(), refusal);
                Err(self.refuse(refusal, &question.to_string(), allow))
            }
            (None, None) => {
                let message = format!("no grant lets this skill send {target} for this caller");
                let allow = explain::plain(self.decision(), target, false);
                Err(self.deny(DenialCode::RequestNotGranted, Culprit::Operator, message, &question.to_string(), allow))
            }
        }
    }

    fn refuse_service(&self, service: &Service, refusal: &Refusal) -> Denial {
        let allow = match refusal.code {
            DenialCode::ServiceNotGranted if refusal.rule.is_none() => {
                explain::grant(self.decision(), &service.declared)
            }
            DenialCode::ScopeNotGranted => {
                let first = service.declared.scopes.first().map_or("", |scope| scope.as_str());
                explain::scope(self.decision(), &service.declared, first, false)
            }
            _ => explain::renewal(self.decision(), refusal),
        };
        self.refuse(refusal, &format!("service {}", service.declared.name), allow)
    }

    fn refuse_expired(&self, service: &Service) -> Denial {
        let name = &service.declared.name;
        let rule = service.granted.first().map(|granted| granted.line.clone());
        let (code, culprit, reason) = (DenialCode::Expired, Culprit::Operator, None);
        let message = format!("the grant for service `{name}` has expired");
        let refusal = Refusal { code, culprit, message, rule, reason };
        self.refuse(&refusal, &format!("service {name}"), explain::renewal(self.decision(), &refusal))
    }

    /// `nearest`: the grant that lacks nothing else.
    fn refuse_account(&self, service: &Service, nearest: Option<&Arc<Granted>>, account: &str) -> Denial {
        let name = &service.declared.name;
        let message = format!("account {} of service `{name}` is not granted", quoted(account));
        let allow = nearest.map(|granted| explain::key_in_grant(granted, "accounts", account)).into_iter().collect();
        let mut denial = self.deny(
            DenialCode::AccountNotGranted,
            Culprit::Operator,
            message,
            &format!("account {name} {account}"),
            allow,
        );
        denial.rule = nearest.map(|granted| granted.line.clone());
        denial
    }

    fn refuse_undeclared_request(&self, service: &Service, target: &Target) -> Denial {
        let name = &service.declared.name;
        let message = format!("the manifest does not declare that service `{name}` goes to {target}");
        let allow = explain::request_in_manifest(service, target);
        self.deny(
            DenialCode::RequestNotGranted,
            Culprit::SkillAuthor,
            message,
            &format!("request {name} {target}"),
            allow,
        )
    }

    fn refuse(&self, refusal: &Refusal, question: &str, allow: Vec<Proposal>) -> Denial {
        let mut denial = self.deny(refusal.code, refusal.culprit, refusal.message.clone(), question, allow);
        denial.rule.clone_from(&refusal.rule);
        denial.reason.clone_from(&refusal.reason);
        denial
    }

    fn deny(
        &self,
        code: DenialCode,
        culprit: Culprit,
        message: String,
        question: &str,
        allow: Vec<Proposal>,
    ) -> Denial {
        let id: ExplanationId = self.0.decision.explanation(&format!("{} {question}", code.as_str()));
        Denial { id, code, message, rule: None, reason: None, culprit, allow: allow.into(), retry_after: None }
    }
}

/// A text of the guest in a message: quoted and bounded.
fn quoted(text: &str) -> String {
    format!("{:?}", text.chars().take(100).collect::<String>())
}

fn declares(service: &Service, target: &Target, api_origin: Option<&Origin>) -> bool {
    service.declared.requests.iter().any(|rule| rule.matches(target, api_origin))
}

fn forbidden<'f>(rules: &'f [(OriginRule, ForbidLine)], target: &Target) -> Option<&'f ForbidLine> {
    rules.iter().find(|(rule, _)| rule.matches(target.origin(), None)).map(|(_, line)| line)
}

/// Whether a grant lets its service's credential go there. A connection's own origin counts only where the catalogue admits it.
pub(super) fn admits(granted: &Granted, target: &Target, api_origin: Option<&Origin>) -> bool {
    let api_origin = || api_origin.filter(|origin| granted.facts.admits_api_origin(origin));
    match &granted.grant.requests {
        None => granted.facts.names(target.origin()) || api_origin() == Some(target.origin()),
        Some(rules) => {
            let matches = |rule: &RequestRule| match rule.origin {
                OriginRule::ApiOrigin => rule.matches(target, api_origin()),
                _ => rule.matches(target, None),
            };
            rules.iter().any(matches)
        }
    }
}

/// Which accounts may be meant where none is named, the first choice first. Where one of these grants is for any, the owner's
/// default comes first (`None`). Then the accounts that the others list: a list with `default` before those without, and those
/// in alphabetical order.
pub(super) fn candidates<'g>(granted: impl IntoIterator<Item = &'g Arc<Granted>>) -> Vec<Option<AccountAlias>> {
    let (mut all, mut lists) = (Vec::new(), Vec::new());
    for granted in granted {
        match &granted.grant.accounts {
            None if all.is_empty() => all.push(None),
            None => {}
            Some(list) => lists.push(list),
        }
    }
    lists.sort_by_key(|list| (!list.iter().any(AccountAlias::is_default), *list));
    for account in lists.into_iter().flatten() {
        if !all.iter().flatten().any(|known| known == account) {
            all.push(Some(account.clone()));
        }
    }
    all
}
