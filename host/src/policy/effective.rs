//! What follows from manifest and permissions for one caller: declared ∩ granted, and a forbid wins.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::decide::{Effective, Inner, admits, candidates};
use super::denial::{Culprit, DenialCode};
use super::forbid::{Forbid, What};
use super::grant::{Allowed, Grant, ServiceGrant};
use super::limits::EffectiveLimits;
use super::manifest::{Manifest, Select, ServiceDeclaration, Use};
use super::permissions::{NetworkRules, Permissions};
use super::provider::{Placement, ProviderFacts, Slot};
use super::rate::Rate;
use super::request::{OriginRule, RequestRule};
use super::target::Target;
use crate::clock::Timestamp;
use crate::diagnostic::Line;
use crate::id::{AccountAlias, Caller, Digest, ExplanationId, Owner, ProviderId, Scope, ServiceName, SkillName};

/// A skill as it is installed.
#[derive(Debug, Clone, Copy)]
pub struct Skill<'a> {
    /// What it declares.
    pub manifest: &'a Manifest,
    /// The digest that grants pin: [`Manifest::skill_digest`].
    pub digest: Digest,
}

/// The operator's permissions with what the catalogue says of the providers: a snapshot that is replaced as a whole.
#[derive(Debug, Clone)]
pub struct Policy {
    permissions: Permissions,
    providers: BTreeMap<ProviderId, Arc<ProviderFacts>>,
    /// The ones that may be used most often first, then by what they say: their order in the files does not matter.
    grants: BTreeMap<SkillName, Vec<Grant>>,
    hash: Digest,
}

impl Policy {
    /// Takes permissions and facts together. Nothing is granted but what the permissions grant.
    pub fn new(permissions: Permissions, providers: BTreeMap<ProviderId, ProviderFacts>) -> Self {
        let facts = Digest::of(format!("{providers:?}").as_bytes());
        let both = [*permissions.text_digest().as_bytes(), *facts.as_bytes()].concat();
        let providers = providers.into_iter().map(|(id, facts)| (id, Arc::new(facts))).collect();
        let mut grants: BTreeMap<SkillName, Vec<Grant>> = BTreeMap::new();
        for grant in &permissions.grants {
            grants.entry(grant.skill.clone()).or_default().push(grant.clone());
        }
        for grants in grants.values_mut() {
            grants.sort_by_key(|grant| (Reverse(Rate::generosity(grant.rate)), grant.key));
        }
        Self { permissions, providers, grants, hash: Digest::of(&both) }
    }

    /// A digest of all that decides.
    pub fn hash(&self) -> Digest {
        self.hash
    }

    /// What the operator says about addresses.
    pub fn network(&self) -> &NetworkRules {
        &self.permissions.network
    }

    /// The permissions, to hold them against what is installed.
    pub fn permissions(&self) -> &Permissions {
        &self.permissions
    }

    /// The same policy with the grants that pin one version of a skill pinned to another: what approving it would come to.
    #[must_use]
    pub fn with_pins_moved(&self, skill: &SkillName, from: Digest, to: Digest) -> Self {
        let mut policy = self.clone();
        for grant in policy.grants.get_mut(skill).into_iter().flatten().filter(|grant| grant.digest == Some(from)) {
            grant.digest = Some(to);
        }
        policy
    }

    /// What the catalogue says of a provider.
    pub(super) fn facts(&self, provider: &ProviderId) -> Option<&ProviderFacts> {
        self.providers.get(provider).map(|facts| &**facts)
    }

    /// The same policy with each grant of a skill approved for whatever version: for questions before one is installed.
    pub(super) fn for_any_version(&self, skill: &SkillName) -> Self {
        let mut policy = self.clone();
        for grant in policy.grants.get_mut(skill).into_iter().flatten() {
            grant.digest = None;
        }
        policy
    }

    /// What a skill may do for a caller, from this moment on.
    pub fn effective(&self, skill: &Skill<'_>, caller: &Caller, now: Timestamp) -> Effective {
        let manifest = skill.manifest;
        let decision = Arc::new(Decision {
            policy_hash: self.hash,
            skill: manifest.name.clone(),
            skill_digest: skill.digest,
            caller: caller.clone(),
        });
        let forbids: Vec<&Forbid> =
            self.permissions.forbids.iter().filter(|forbid| forbid.concerns(&manifest.name, caller)).collect();
        let grants = self.grants.get(&manifest.name).map_or(&[][..], Vec::as_slice);
        let question = Question { policy: self, decision: &decision, grants, forbids: &forbids, now };
        let services = manifest.services.iter().map(|declared| question.service(declared)).collect();
        let plain = question.plain(&manifest.requests);
        let limits: EffectiveLimits = manifest.limits.effective(&self.permissions.limits);
        Effective::new(Inner { decision, services, plain, limits })
    }
}

/// Who asked whom about what: part of every decision.
#[derive(Debug)]
pub(super) struct Decision {
    pub(super) policy_hash: Digest,
    pub(super) skill: SkillName,
    pub(super) skill_digest: Digest,
    pub(super) caller: Caller,
}

impl Decision {
    /// The same question under the same policy has the same id.
    pub(super) fn explanation(&self, question: &str) -> ExplanationId {
        let Caller { client, user, .. } = &self.caller;
        let asked =
            format!("{}\n{}\n{}\n{client}\n{user}\n{question}", self.policy_hash, self.skill_digest, self.skill);
        let mut id = [0; 16];
        id.iter_mut().zip(Digest::of(asked.as_bytes()).as_bytes()).for_each(|(to, from)| *to = *from);
        ExplanationId::from_bytes(id)
    }
}

/// One grant as it applies to one declared service of one caller.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) decision: Arc<Decision>,
    pub(super) owner: Owner,
    pub(super) declared: Arc<ServiceDeclaration>,
    pub(super) grant: Arc<ServiceGrant>,
    pub(super) scopes: BTreeSet<Scope>,
    /// Declared and granted and not forbidden.
    pub(super) use_: Use,
    pub(super) rate: Option<Rate>,
    pub(super) ends: Option<Timestamp>,
    pub(super) facts: Arc<ProviderFacts>,
    pub(super) line: Line,
    pub(super) key: Digest,
}

impl Granted {
    pub(super) fn holds(&self, now: Timestamp) -> bool {
        self.ends.is_none_or(|ends| now < ends)
    }

    /// Whether it is for this account, among others; `None`: for the owner's default, whatever its alias.
    pub(super) fn gives(&self, account: Option<&AccountAlias>) -> bool {
        self.grant.accounts.as_ref().is_none_or(|accounts| account.is_some_and(|account| accounts.contains(account)))
    }
}

/// Why a grant or all of them don't apply.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) code: DenialCode,
    pub(super) culprit: Culprit,
    pub(super) message: String,
    pub(super) rule: Option<Line>,
    pub(super) reason: Option<Box<str>>,
}

impl Refusal {
    pub(super) fn forbidden(what: &str, forbid: &ForbidLine) -> Self {
        Self {
            code: DenialCode::Forbidden,
            culprit: Culprit::Operator,
            message: format!("the operator forbids {what}"),
            rule: Some(forbid.line.clone()),
            reason: forbid.reason.clone(),
        }
    }
}

/// A forbid that may hold, by where it stands.
#[derive(Debug, Clone)]
pub(super) struct ForbidLine {
    pub(super) line: Line,
    pub(super) reason: Option<Box<str>>,
}

impl From<&Forbid> for ForbidLine {
    fn from(forbid: &Forbid) -> Self {
        Self { line: forbid.line.clone(), reason: forbid.reason.clone() }
    }
}

/// A service that is declared and granted, as it is shown to people and to the other modules.
///
/// Where several grants cover the service this is all of them taken together; each decision is made by one grant alone.
#[derive(Debug, Clone)]
pub struct EffectiveService {
    /// The skill's name for it.
    pub name: ServiceName,
    /// The provider.
    pub provider: ProviderId,
    /// Whose connection is used.
    pub owner: Owner,
    /// Scopes that are declared and granted.
    pub scopes: BTreeSet<Scope>,
    /// The most that may be done with the token.
    pub use_: Use,
    /// The accounts that may be used, the first choice first; absent: any.
    pub accounts: Option<Vec<AccountAlias>>,
    /// Whether a call may start without the connection.
    pub optional: bool,
    /// Why the skill needs it, in its author's words.
    pub reason: Option<String>,
    /// How its requests are known.
    pub select: Select,
    /// How the credential is put on a request.
    pub placement: Placement,
    /// Where a placeholder may stand.
    pub slots: Vec<Slot>,
    /// The grant; of several, one that may be used most often.
    pub decided_by: Line,
    declared: Arc<ServiceDeclaration>,
    granted: Vec<Arc<Granted>>,
}

impl EffectiveService {
    /// Where the credential may go, for people: what the manifest declares of what the grants let through.
    pub fn requests(&self) -> Vec<RequestRule> {
        self.declared.requests.iter().filter_map(|rule| let_through(rule, &self.granted)).collect()
    }

    /// The same service with those grants alone that hold now and let its credential go to this destination.
    pub fn towards(&self, target: &Target, now: Timestamp) -> Cow<'_, Self> {
        // Where the API of a connection lives is known when the account is: until then, it could be there.
        let concerns = |granted: &&Arc<Granted>| granted.holds(now) && admits(granted, target, Some(target.origin()));
        let granted: Vec<_> = self.granted.iter().filter(concerns).cloned().collect();
        if granted.len() == self.granted.len() || granted.is_empty() {
            return Cow::Borrowed(self);
        }
        let scopes = granted.iter().flat_map(|granted| &granted.scopes).cloned().collect();
        Cow::Owned(Self { scopes, accounts: candidates(&granted).into_iter().collect(), granted, ..self.clone() })
    }

    /// Which accounts may be meant where none is named, the first choice first. `None` among them: the owner's default, whatever
    /// its alias.
    pub fn candidates(&self) -> Vec<Option<AccountAlias>> {
        candidates(&self.granted)
    }

    /// The scopes of those grants that are for this account; `None`: the owner's default.
    pub fn scopes_of(&self, account: Option<&AccountAlias>) -> Cow<'_, BTreeSet<Scope>> {
        if self.granted.len() < 2 {
            return Cow::Borrowed(&self.scopes);
        }
        let giving = self.granted.iter().filter(|granted| granted.gives(account));
        Cow::Owned(giving.flat_map(|granted| &granted.scopes).cloned().collect())
    }

    /// Whether the manifest says `{api_origin}`, so that where requests go depends on the connection.
    pub fn depends_on_connection(&self) -> bool {
        self.declared.requests.iter().any(|rule| rule.origin == OriginRule::ApiOrigin)
    }
}

/// One declared service with all that decides about it.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) declared: Arc<ServiceDeclaration>,
    /// Absent: refused.
    pub(super) summary: Result<EffectiveService, Refusal>,
    pub(super) granted: Vec<Arc<Granted>>,
    pub(super) forbidden_origins: Vec<(OriginRule, ForbidLine)>,
    pub(super) forbidden_reveal: Option<ForbidLine>,
}

/// Requests without a credential.
#[derive(Debug)]
pub(super) struct Plain {
    pub(super) declared: Arc<[RequestRule]>,
    pub(super) granted: Vec<PlainGrant>,
    pub(super) forbidden_origins: Vec<(OriginRule, ForbidLine)>,
    /// Why nothing goes, where one reason covers all.
    pub(super) refused: Option<Refusal>,
}

#[derive(Debug)]
pub(super) struct PlainGrant {
    pub(super) requests: Arc<[RequestRule]>,
    pub(super) line: Line,
}

/// One call of [`Policy::effective`].
struct Question<'a> {
    policy: &'a Policy,
    decision: &'a Arc<Decision>,
    grants: &'a [Grant],
    forbids: &'a [&'a Forbid],
    now: Timestamp,
}

impl Question<'_> {
    fn service(&self, declared: &Arc<ServiceDeclaration>) -> Service {
        let forbids: Vec<&Forbid> = self
            .forbids
            .iter()
            .copied()
            .filter(|forbid| forbid.concerns_service(&declared.name, &declared.provider))
            .collect();
        let granted = self.granted(declared, &forbids);
        let forbidden_reveal = forbids.iter().find(|forbid| forbid.what == What::Reveal).map(|forbid| (*forbid).into());
        let summary = granted.as_ref().map_err(Clone::clone).and_then(|granted| {
            summary(declared, granted, forbidden_reveal.is_some()).ok_or_else(|| self.not_granted(&declared.name))
        });
        Service {
            declared: Arc::clone(declared),
            summary,
            granted: granted.unwrap_or_default(),
            forbidden_origins: origins(&forbids),
            forbidden_reveal,
        }
    }

    fn not_granted(&self, service: &ServiceName) -> Refusal {
        Refusal {
            code: DenialCode::ServiceNotGranted,
            culprit: Culprit::Operator,
            message: format!("no grant lets skill `{}` use service `{service}` for this caller", self.decision.skill),
            rule: None,
            reason: None,
        }
    }

    /// The grants that apply, the ones that may be used most often first; or why none does.
    fn granted(&self, declared: &Arc<ServiceDeclaration>, forbids: &[&Forbid]) -> Result<Vec<Arc<Granted>>, Refusal> {
        let name = &declared.name;
        if let Some(forbid) = forbids.iter().find(|forbid| forbid.what == What::Everything) {
            return Err(Refusal::forbidden(&format!("service `{name}` for this caller"), &(*forbid).into()));
        }
        let Some(facts) = self.policy.providers.get(&declared.provider) else {
            let provider = &declared.provider;
            let message = format!(
                "service `{name}` wants provider `{provider}`, which is not in the catalogue: `clawcoil provider add {provider} --file …` adds it"
            );
            // Where it is granted, the lines that grant it would change nothing.
            let is_for = |grant: &&Grant| {
                matches!(&grant.allowed, Allowed::Service(service) if service.service == *name)
                    && grant.is_for(&self.decision.caller)
            };
            let rule = self.grants.iter().find(is_for).map(|grant| grant.line.clone());
            return Err(Refusal { message, rule, ..self.not_granted(name) });
        };
        let mut granted = Vec::new();
        let mut refusals = Vec::new();
        for grant in self.grants {
            let Allowed::Service(service) = &grant.allowed else { continue };
            if service.service == *name && grant.is_for(&self.decision.caller) {
                match self.applied(declared, grant, service, facts, forbids) {
                    Ok(applied) => granted.push(Arc::new(applied)),
                    Err(refusal) => refusals.push(refusal),
                }
            }
        }
        if granted.is_empty() {
            // The refusal that is nearest to a grant says most.
            refusals.sort_by_key(|refusal| match refusal.code {
                DenialCode::Forbidden => 0,
                DenialCode::ApprovalPending => 1,
                DenialCode::ScopeNotGranted => 2,
                DenialCode::Expired => 3,
                _ => 4,
            });
            return Err(refusals.into_iter().next().unwrap_or_else(|| self.not_granted(name)));
        }
        Ok(granted)
    }

    fn applied(
        &self,
        declared: &Arc<ServiceDeclaration>,
        grant: &Grant,
        service: &Arc<ServiceGrant>,
        facts: &Arc<ProviderFacts>,
        forbids: &[&Forbid],
    ) -> Result<Granted, Refusal> {
        let name = &declared.name;
        if service.provider != declared.provider {
            let message = format!(
                "the grant for service `{name}` is for provider `{}`, and the manifest binds it to `{}`",
                service.provider, declared.provider
            );
            return Err(Refusal { message, rule: Some(grant.line.clone()), ..self.not_granted(name) });
        }
        self.current(grant, &format!("service `{name}`"))?;
        let mut scopes: BTreeSet<Scope> = service
            .scopes
            .iter()
            .map(|scope| &scope.value)
            .filter(|scope| declared.scopes.contains(*scope))
            .cloned()
            .collect();
        if scopes.is_empty() && !declared.scopes.is_empty() {
            return Err(Refusal {
                code: DenialCode::ScopeNotGranted,
                message: format!("the grant for service `{name}` has none of the scopes that the manifest declares"),
                rule: Some(grant.line.clone()),
                ..self.not_granted(name)
            });
        }
        for forbid in forbids {
            if let What::Scopes(forbidden) = &forbid.what {
                let before = scopes.len();
                scopes.retain(|scope| !forbidden.contains(scope));
                if scopes.is_empty() && before > 0 {
                    return Err(Refusal::forbidden(&format!("the scopes of service `{name}`"), &(*forbid).into()));
                }
            }
        }
        let forbidden_reveal = forbids.iter().any(|forbid| forbid.what == What::Reveal);
        let use_ = if forbidden_reveal { Use::Inject } else { declared.use_.min(service.use_) };
        let owner = if service.as_agent { Owner::Agent } else { Owner::User(self.decision.caller.user.clone()) };
        Ok(Granted {
            decision: Arc::clone(self.decision),
            owner,
            declared: Arc::clone(declared),
            grant: Arc::clone(service),
            scopes,
            use_,
            rate: grant.rate,
            ends: grant.ends,
            facts: Arc::clone(facts),
            line: grant.line.clone(),
            key: grant.key,
        })
    }

    /// Whether a grant is for the version that is installed, and has not expired.
    fn current(&self, grant: &Grant, what: &str) -> Result<(), Refusal> {
        let refusal = |code, message| Refusal {
            code,
            culprit: Culprit::Operator,
            message,
            rule: Some(grant.line.clone()),
            reason: None,
        };
        if grant.digest.is_some_and(|digest| digest != self.decision.skill_digest) {
            let message = format!(
                "{what} was granted to another version of skill `{}`, and this one is not approved",
                grant.skill
            );
            return Err(refusal(DenialCode::ApprovalPending, message));
        }
        if grant.ends.is_some_and(|ends| ends <= self.now) {
            return Err(refusal(DenialCode::Expired, format!("the grant for {what} has expired")));
        }
        Ok(())
    }

    fn plain(&self, declared: &Arc<[RequestRule]>) -> Plain {
        let forbids: Vec<&Forbid> = self.forbids.iter().copied().filter(|forbid| forbid.concerns_plain()).collect();
        let everything = forbids.iter().find(|forbid| forbid.what == What::Everything);
        let mut refused =
            everything.map(|forbid| Refusal::forbidden("requests of this skill for this caller", &(*forbid).into()));
        let mut granted = Vec::new();
        for grant in self.grants {
            let Allowed::Requests(requests) = &grant.allowed else { continue };
            if grant.is_for(&self.decision.caller) {
                match self.current(grant, "a request without a credential") {
                    Ok(()) => granted.push(PlainGrant { requests: Arc::clone(requests), line: grant.line.clone() }),
                    Err(refusal) => refused = refused.or(Some(refusal)),
                }
            }
        }
        if everything.is_some() {
            granted.clear();
        } else if !granted.is_empty() {
            refused = None;
        }
        Plain { declared: Arc::clone(declared), granted, forbidden_origins: origins(&forbids), refused }
    }
}

fn origins(forbids: &[&Forbid]) -> Vec<(OriginRule, ForbidLine)> {
    let origin = |forbid: &&Forbid| match &forbid.what {
        What::Origin(origin) => Some((origin.clone(), ForbidLine::from(*forbid))),
        _ => None,
    };
    forbids.iter().filter_map(origin).collect()
}

fn summary(
    declared: &Arc<ServiceDeclaration>,
    granted: &[Arc<Granted>],
    forbidden_reveal: bool,
) -> Option<EffectiveService> {
    let first = granted.first()?;
    let use_ = granted.iter().map(|each| each.use_).max().filter(|_| !forbidden_reveal).unwrap_or(Use::Inject);
    Some(EffectiveService {
        name: declared.name.clone(),
        provider: declared.provider.clone(),
        owner: first.owner.clone(),
        scopes: granted.iter().flat_map(|each| &each.scopes).cloned().collect(),
        use_,
        accounts: candidates(granted).into_iter().collect(),
        optional: declared.optional,
        reason: declared.reason.clone(),
        select: declared.select,
        placement: first.facts.placement.clone(),
        slots: first.facts.slots.clone(),
        decided_by: first.line.clone(),
        declared: Arc::clone(declared),
        granted: granted.to_vec(),
    })
}

/// What of a declared rule the grants let through, as far as it can be said without a request.
fn let_through(declared: &RequestRule, granted: &[Arc<Granted>]) -> Option<RequestRule> {
    let mut rule = declared.clone();
    let mut methods: Option<Vec<http::Method>> = Some(Vec::new());
    let mut any = false;
    for each in granted {
        match &each.grant.requests {
            None => {
                let admitted = match &declared.origin {
                    OriginRule::Literal(origin) => each.facts.names(origin),
                    OriginRule::ApiOrigin => true,
                    OriginRule::Suffix { .. } => false,
                };
                if admitted {
                    (any, methods) = (true, None);
                }
            }
            Some(rules) => {
                for theirs in rules.iter().filter(|theirs| may_meet(theirs, declared)) {
                    any = true;
                    match (&mut methods, &theirs.methods) {
                        (Some(all), Some(more)) => all.extend(more.iter().cloned()),
                        _ => methods = None,
                    }
                }
            }
        }
    }
    if let Some(methods) = methods {
        rule.methods = Some(match rule.methods {
            None => methods,
            Some(declared) => declared.into_iter().filter(|method| methods.contains(method)).collect(),
        });
    }
    any.then_some(rule)
}

/// Which origin a connection will have is not known here, so its rule may meet any.
fn may_meet(ours: &RequestRule, theirs: &RequestRule) -> bool {
    let connection = |rule: &RequestRule| rule.origin == OriginRule::ApiOrigin;
    ours.overlaps(theirs) || connection(ours) != connection(theirs)
}
