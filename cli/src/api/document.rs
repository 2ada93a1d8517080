//! The OpenAPI 3.1 document: made of what the handlers say of themselves, and of what holds for all of them.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::IntoResponse;
use serde_json::{Value, json};
use utoipa::openapi::path::{HttpMethod, Operation, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{KnownFormat, Object, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, HeaderBuilder, OpenApi, Ref, RefOr, Required, Response, ResponseBuilder};
use utoipa::{OpenApi as _, ToSchema};

use crate::serve::{Anybody, Kind, USER};

/// A problem document (RFC 9457): what is wrong, who must act, and how.
///
/// Some problems have members of their own besides these.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it only describes what `Problem` writes")]
pub(super) struct ProblemDocument {
    /// What kind of problem, for programs: `/problems/` and its name.
    #[schema(format = "uri-reference", example = "/problems/not-found")]
    r#type: String,
    /// The kind, for people.
    title: String,
    /// The status of the answer.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong with this request, and the way out.
    detail: String,
    /// What policy refused.
    denials: Option<Vec<Denial>>,
    /// What a person must do first.
    actions: Option<Vec<Action>>,
    /// The scope that the credential lacks.
    #[schema(example = "invoke")]
    scope: Option<String>,
    /// The call that the problem is about.
    #[schema(example = "inv_0123456789abcdef0123456789abcdef")]
    invocation: Option<String>,
    /// What the skill printed before it failed.
    log: Option<String>,
    /// What the call did before it failed.
    #[schema(value_type = Option<Object>)]
    receipt: Option<Value>,
    /// In how many seconds it is worth trying again.
    retry_after: Option<u64>,
}

/// A refusal of the operator's policy.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it only describes what `denial_json` writes")]
pub(super) struct Denial {
    /// Under this the audit log keeps the decision.
    #[schema(example = "why_0123456789abcdef0123456789abcdef")]
    explanation: String,
    /// What was refused, for programs.
    #[schema(example = "service-not-granted")]
    denied: String,
    /// The same for people.
    message: String,
    /// The line that decided.
    rule: Option<String>,
    /// The operator's reason for a rule that forbids.
    reason: Option<String>,
    /// What the operator would write to allow it.
    allow: Vec<Proposal>,
}

/// Lines that would allow what was refused.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it only describes what `denial_json` writes")]
struct Proposal {
    /// In which file.
    r#in: String,
    lines: String,
}

/// What a person has to do before a skill can do all of its work.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it only describes what `action_json` writes")]
pub(super) struct Action {
    /// The skill's name for it.
    service: String,
    provider: String,
    /// Which of the user's accounts.
    account: Option<String>,
    /// Scopes that the account was connected without.
    missing_scopes: Vec<String>,
    /// What has to be done, for people.
    message: String,
    /// The command that does it.
    command: String,
}

/// What holds for all operations.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "ClawCoil",
        description = "Runs untrusted agent skills with people's accounts, without handing the skills the people's tokens.\n\n\
                       Each request carries a token of this host (`clawcoil token create`), or a JWT of an identity provider that \
                       the operator trusts; at a Unix socket the calling process may be known without one. A credential has scopes \
                       (`invoke`, `connect`, `admin`) and calls for one user; one that may act for several names the user in \
                       the header `ClawCoil-User`.\n\n\
                       Errors are problem documents (RFC 9457). Lists come in pages: `limit`, and `next_cursor` as the `cursor` of the \
                       next request.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    servers((url = "/")),
    tags(
        (name = "skills", description = "What the caller may call"),
        (name = "invocations", description = "Calls of skills"),
        (name = "connect sessions", description = "A program asks for an account, and the person connects it"),
        (name = "connections", description = "Connected accounts"),
        (name = "users", description = "For whom the agent acts"),
        (name = "grants", description = "What the operator allows"),
        (name = "audit", description = "What happened"),
        (name = "description", description = "This document"),
    ),
    components(schemas(ProblemDocument, Denial, Action)),
)]
struct Outline;

const PROBLEM: &str = "application/problem+json";

/// The document before the handlers have described themselves.
pub(super) fn outline() -> OpenApi {
    Outline::openapi()
}

/// The whole document.
static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
    let (_, mut document) = super::described().split_for_parts();
    complete(&mut document);
    document.to_pretty_json().map(|text| text + "\n").unwrap_or_default()
});

/// This document
///
/// It describes every operation of the API, with all of its answers.
#[utoipa::path(get, path = "/openapi.json", tag = "description", operation_id = "getDescription", responses(
    (status = 200, description = "The OpenAPI document", body = Object),
))]
pub(super) async fn show(_: Anybody) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")], DOCUMENT.as_str())
}

/// Adds what no handler says of itself: how callers prove who they are, and the problems that any request can have.
fn complete(document: &mut OpenApi) {
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(
        "A token of this host, or a JWT of an identity provider that the operator trusts. Each operation names the scope that \
         the credential needs.",
    ));
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer.build()));
    for (_, item) in &mut document.paths.paths {
        let operations = [
            (HttpMethod::Get, &mut item.get),
            (HttpMethod::Post, &mut item.post),
            (HttpMethod::Put, &mut item.put),
            (HttpMethod::Patch, &mut item.patch),
            (HttpMethod::Delete, &mut item.delete),
        ];
        for operation in operations.into_iter().filter_map(|(_, operation)| operation.as_mut()) {
            complete_operation(operation);
        }
    }
}

fn complete_operation(operation: &mut Operation) {
    let scopes = scopes(operation);
    // A request for another host, or of a foreign page, or with a credential that is no good.
    let mut statuses = vec![400, 401, 403, 429];
    if !scopes.is_empty() {
        statuses.extend([500, 503]);
    }
    if operation.request_body.is_some() {
        statuses.extend([413, 415, 422]);
    }
    for status in statuses {
        operation
            .responses
            .responses
            .entry(status.to_string())
            .or_insert_with(|| RefOr::T(Response::new(String::new())));
    }
    for (status, response) in &mut operation.responses.responses {
        if let (Some(status @ 400..), RefOr::T(response)) = (status.parse().ok(), response) {
            *response = problem(status, &response.description);
        }
    }
    if scopes.iter().any(|scope| scope == "invoke") {
        let user = ParameterBuilder::new()
            .name("ClawCoil-User")
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some("The user for whom the request is, where the credential may act for several."))
            .schema(Some(string(r"^[A-Za-z0-9][A-Za-z0-9._@:/+\-]{0,127}$")));
        debug_assert!(USER.eq_ignore_ascii_case("ClawCoil-User"));
        operation.parameters.get_or_insert_default().push(RefOr::T(user.build()));
    }
}

fn scopes(operation: &Operation) -> Vec<String> {
    let requirements = serde_json::to_value(&operation.security).unwrap_or_default();
    let requirements = requirements.as_array().cloned().unwrap_or_default();
    let scopes = requirements.iter().filter_map(|requirement| requirement["bearer"].as_array()).flatten();
    scopes.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// An answer of this status: which problems have it, and what one looks like.
fn problem(status: u16, description: &str) -> Response {
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| kind.status().as_u16() == status).collect();
    let listed: Vec<_> = kinds.iter().map(|kind| format!("- `/problems/{}`: {}", kind.name(), kind.title())).collect();
    let mut text = description.trim().to_owned();
    if !text.is_empty() {
        text.push_str("\n\n");
    }
    text.push_str(&listed.join("\n"));
    let example = kinds.first().map(|kind| {
        json!({
            "type": format!("/problems/{}", kind.name()), "title": kind.title(), "status": status,
            "detail": "What is wrong with this request, and the way out.",
        })
    });
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("ProblemDocument"))).example(example);
    let mut response = ResponseBuilder::new().description(text).content(PROBLEM, content.build());
    let header = |schema: Object, text: &str| HeaderBuilder::new().schema(Some(schema)).description(Some(text)).build();
    if status == 401 {
        response = response.header("WWW-Authenticate", header(string("^Bearer"), "How to prove who calls (RFC 6750)."));
    }
    if matches!(status, 429 | 503) {
        let seconds = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
            .minimum(Some(1));
        response =
            response.header("Retry-After", header(seconds.build(), "Seconds after which to try again, where known."));
    }
    response.build()
}

fn string(pattern: &str) -> Object {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).build()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn document() -> Value {
        serde_json::from_str(&DOCUMENT).unwrap()
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "it is the tests' own switch")]
    fn the_document_that_is_checked_in_is_the_one_that_is_served() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, DOCUMENT.as_str()).unwrap();
        }
        let checked_in = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            checked_in == *DOCUMENT,
            "docs/openapi.json is not what is served: UPDATE_GOLDEN=1 cargo test -p clawcoil-cli --bin clawcoil -- api::document"
        );
    }

    #[test]
    fn each_operation_says_who_may_ask_and_what_each_problem_is() {
        let document = document();
        assert_eq!(document["openapi"], "3.1.0");
        let mut ids = std::collections::BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let name = format!("{method} {path}");
                assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{name} has another's id");
                assert!(operation["summary"].is_string(), "{name} has no summary");
                if path == "/openapi.json" {
                    continue;
                }
                assert!(operation["security"][0]["bearer"][0].is_string(), "{name} says of no scope");
                for (status, response) in operation["responses"].as_object().unwrap() {
                    let is_problem = response["content"][PROBLEM].is_object();
                    assert_eq!(is_problem, status.as_str() >= "400", "{name} {status}");
                    assert!(response["description"].as_str().is_some_and(|text| !text.is_empty()), "{name} {status}");
                }
                for status in ["401", "403", "429", "503"] {
                    assert!(operation["responses"][status].is_object(), "{name} can be answered with {status}");
                }
            }
        }
    }
}
