//! What the operator has granted: to the caller, and, for operators, to everybody.

use axum::Json;
use axum::extract::State;
use clawcoil::diagnostic::Line;
use clawcoil::id::SkillName;
use clawcoil::policy::{Explanation, ListedGrant};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::body::{Path, Query, filtered, named};
use super::document::Denial;
use super::page::Page;
use crate::callers::Scope;
use crate::output::texts;
use crate::serve::{Bearer, Problem, Shared, denial_for_callers};

/// What a skill may do for the caller now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EffectiveGrants {
    #[schema(example = "gmail-send")]
    skill: String,
    /// Of its component and manifest.
    digest: String,
    /// Of the permissions in force.
    policy: String,
    /// Each service that the skill declares.
    services: Vec<EffectiveGrant>,
    limits: Limits,
}

/// What a skill may do with one service for the caller.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EffectiveGrant {
    /// The skill's name for it.
    #[schema(example = "gmail")]
    service: String,
    granted: bool,
    /// At which provider, where it is granted.
    #[schema(example = "google")]
    provider: Option<String>,
    /// `inject`: the host puts the token on requests; `reveal`: the skill may see the token itself.
    #[schema(example = "inject")]
    r#use: Option<&'static str>,
    /// Scopes that the skill declares and the operator grants.
    scopes: Vec<String>,
    /// Scopes that the skill declares and nobody grants.
    missing_scopes: Vec<String>,
    /// Where requests with the token may go.
    requests: Vec<String>,
    /// The lines of the permissions that decided.
    rules: Vec<String>,
    /// Why it is not granted, and what the operator would write to grant it.
    #[schema(value_type = Option<Denial>)]
    denial: Option<Value>,
}

/// What one call may use.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Limits {
    /// Of the skill, in bytes.
    memory: u64,
    /// For the whole call, in seconds.
    time: f64,
    /// The result, in bytes.
    result: u64,
}

/// A grant, as the operator wrote it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Grant {
    /// Where it stands.
    #[schema(example = "permissions.toml:12")]
    rule: String,
    #[schema(example = "gmail-send")]
    skill: String,
    /// For which version; absent: any.
    digest: Option<String>,
    /// Patterns of programs.
    clients: Vec<String>,
    /// Patterns of users.
    users: Vec<String>,
    /// How often it may be used.
    #[schema(example = "10/minute")]
    rate: Option<String>,
    /// From then on it doesn't hold.
    #[schema(format = DateTime)]
    ends_at: Option<String>,
    /// The account that the skill may use; absent: it may send requests without a credential.
    service: Option<GrantedService>,
    /// Where requests may go; absent: to the provider's API.
    requests: Option<Vec<String>>,
}

/// The account that a grant is about.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GrantedService {
    #[schema(example = "gmail")]
    name: String,
    #[schema(example = "google")]
    provider: String,
    /// Whether it is the agent's own account and not the user's.
    as_agent: bool,
    /// Which of the user's accounts; absent: any.
    accounts: Option<Vec<String>>,
    scopes: Vec<String>,
    #[schema(example = "inject")]
    r#use: &'static str,
}

/// A page of grants.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Grants)]
pub(crate) struct Granted {
    /// Of the permissions in force.
    policy: String,
    /// In the order in which they are written.
    grants: Vec<Grant>,
    /// The `cursor` of the next page, if there is one.
    next_cursor: Option<String>,
}

/// Which grants are asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Which {
    /// Only those for this skill.
    #[param(example = "gmail-send")]
    skill: Option<String>,
    /// How many entries at most: 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<usize>,
    /// Where the page begins: `next_cursor` of the page before.
    #[param(max_length = 1024)]
    cursor: Option<String>,
}

/// What a skill may do for the caller
///
/// For each service that the skill declares: how far it is granted, or why it is not.
#[utoipa::path(get, path = "/v1/skills/{skill}/grants", tag = "grants", operation_id = "getEffectiveGrants",
    params(("skill" = String, Path, description = "Its name", example = "gmail-send")),
    security(("bearer" = ["invoke"])), responses(
        (status = 200, description = "What is granted", body = EffectiveGrants),
        (status = 404, description = "There is no such skill"),
    ))]
pub(crate) async fn effective(
    State(app): State<Shared>,
    bearer: Bearer,
    Path(skill): Path<String>,
) -> Result<Json<EffectiveGrants>, Problem> {
    let caller = bearer.caller(Scope::Invoke)?;
    let ready = app.host.ready(&named::<SkillName>(&skill)?).await?;
    let effective = app.host.effective(&ready, &caller);
    let limits = effective.limits();
    Ok(Json(EffectiveGrants {
        skill: ready.manifest.name.to_string(),
        digest: ready.digest.to_string(),
        policy: app.host.policy().hash().to_string(),
        services: ready
            .manifest
            .services
            .iter()
            .map(|declared| EffectiveGrant::of(declared.name.as_str(), effective.explain(&declared.name)))
            .collect(),
        limits: Limits { memory: limits.memory, time: limits.time.as_secs_f64(), result: limits.result },
    }))
}

/// The operator's grants
#[utoipa::path(get, path = "/v1/grants", tag = "grants", operation_id = "listGrants", params(Which),
    security(("bearer" = ["admin"])), responses((status = 200, description = "A page of grants", body = Granted)))]
pub(crate) async fn list(
    State(app): State<Shared>,
    bearer: Bearer,
    Query(which): Query<Which>,
) -> Result<Json<Granted>, Problem> {
    bearer.authenticated().require(Scope::Admin)?;
    let page = Page::read("grants", which.limit, which.cursor.as_deref())?;
    let skill = filtered::<SkillName>("skill", which.skill.as_deref())?;
    let policy = app.host.policy();
    let all = policy.permissions().listed().enumerate();
    let wanted = all.filter(|(_, grant)| skill.as_ref().is_none_or(|skill| grant.skill == *skill));
    let (grants, next_cursor) = page.cut(wanted.map(|(number, grant)| (format!("{number:08}"), Grant::of(grant))));
    Ok(Json(Granted { policy: policy.hash().to_string(), grants, next_cursor }))
}

impl EffectiveGrant {
    fn of(service: &str, explanation: Explanation) -> Self {
        let service = service.to_owned();
        match explanation {
            Explanation::Granted { service: granted, missing_scopes, rules } => Self {
                service,
                granted: true,
                provider: Some(granted.provider.to_string()),
                r#use: Some(granted.use_.as_str()),
                scopes: texts(&granted.scopes),
                missing_scopes: texts(missing_scopes),
                requests: texts(granted.requests()),
                rules: texts(rules.iter().map(Line::without_folders)),
                denial: None,
            },
            Explanation::Denied(denial) => Self {
                service,
                granted: false,
                provider: None,
                r#use: None,
                scopes: Vec::new(),
                missing_scopes: Vec::new(),
                requests: Vec::new(),
                rules: texts(denial.rule.as_ref().map(Line::without_folders)),
                denial: Some(denial_for_callers(&denial)),
            },
        }
    }
}

impl Grant {
    fn of(grant: ListedGrant) -> Self {
        Self {
            rule: grant.line.to_string(),
            skill: grant.skill.to_string(),
            digest: grant.digest.map(|digest| digest.to_string()),
            clients: grant.clients,
            users: grant.users,
            rate: grant.rate,
            ends_at: grant.ends.map(|at| at.to_string()),
            service: grant.service.map(|service| GrantedService {
                name: service.name.to_string(),
                provider: service.provider.to_string(),
                as_agent: service.as_agent,
                accounts: service.accounts.map(texts),
                scopes: texts(service.scopes),
                r#use: service.use_.as_str(),
            }),
            requests: grant.requests.map(texts),
        }
    }
}
