//! The rules of this module, each by a test that is named for it.

mod cases;
mod comparisons;
mod decisions;
mod edits;
mod lessons;
mod proposals;
mod properties;

use std::collections::BTreeMap;

use http::Method;

use super::{Effective, Manifest, Origin, Permissions, Placement, Policy, ProviderFacts, Skill, Slot, Target};
use crate::clock::Timestamp;
use crate::diagnostic::Source;
use crate::id::{AccountAlias, Caller, Digest, ServiceName};

const MAIL: &str = r#"
[skill]
name = "mail"
version = "1.0.0"
description = "Send mail and file issues"

[[service]]
name = "gmail"
provider = "google"
scopes = ["mail.send", "mail.read"]
request = [{ origin = "https://gmail.example", methods = ["POST"], paths = ["/send", "/drafts/*"] }]

[[service]]
name = "records"
provider = "salesforce"
optional = true
request = [{ origin = "{api_origin}" }]

[[service]]
name = "hook"
provider = "hooks"
use = "reveal"
reason = "to sign"
optional = true
request = [{ origin = "https://hooks.example" }]

[[service]]
name = "sdk"
provider = "google"
select = "placeholder"
optional = true
request = [{ origin = "https://gmail.example" }, { origin = "https://evil.example" }]

[[request]]
origin = "https://weather.example"

[[request]]
origin = "https://*.cdn.example"

[limits]
time = "5s"
"#;

/// What the catalogue knows in these tests.
fn facts() -> BTreeMap<crate::id::ProviderId, ProviderFacts> {
    let facts = |origin: &str, pattern: Option<&str>| ProviderFacts {
        api_origins: vec![origin.parse().unwrap()],
        api_origin_pattern: pattern.map(|pattern| pattern.parse().unwrap()),
        placement: Placement::Bearer,
        slots: vec![Slot::AuthorizationBearer],
    };
    BTreeMap::from([
        ("google".parse().unwrap(), facts("https://gmail.example", None)),
        ("salesforce".parse().unwrap(), facts("https://login.sf.example", Some("https://*.my.sf.example"))),
        ("hooks".parse().unwrap(), facts("https://hooks.example", None)),
        ("other".parse().unwrap(), facts("https://other.example", None)),
    ])
}

fn manifest(text: &str) -> Manifest {
    Manifest::parse(&Source::new("skill.toml", text)).unwrap()
}

fn policy(permissions: &str) -> Policy {
    Policy::new(Permissions::parse(&[Source::new("permissions.toml", permissions)]).unwrap(), facts())
}

fn caller(user: &str) -> Caller {
    Caller::new("cli".parse().unwrap(), user.parse().unwrap())
}

fn digest() -> Digest {
    Digest::of(b"the component")
}

fn now() -> Timestamp {
    "2027-01-01T00:00:00Z".parse().unwrap()
}

fn effective_of(manifest_text: &str, permissions: &str, user: &str) -> Effective {
    let manifest = manifest(manifest_text);
    policy(permissions).effective(&Skill { manifest: &manifest, digest: digest() }, &caller(user), now())
}

fn effective(permissions: &str, user: &str) -> Effective {
    effective_of(MAIL, permissions, user)
}

fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

fn account(text: &str) -> AccountAlias {
    text.parse().unwrap()
}

fn origin(text: &str) -> Origin {
    text.parse().unwrap()
}

fn post(uri: &str) -> Target {
    Target::parse(&Method::POST, &uri.parse().unwrap()).unwrap()
}

/// A grant for `gmail` with more lines.
fn gmail(more: &str) -> String {
    format!(
        "[[grant]]\nskill = \"mail\"\napproval = \"none\"\nusers = [\"alice\"]\nservice = \"gmail\"\nprovider = \"google\"\n{more}\n"
    )
}

/// A grant for any service with more lines.
fn grant(service: &str, provider: &str, more: &str) -> String {
    gmail(more).replace("\"gmail\"", &format!("\"{service}\"")).replace("\"google\"", &format!("\"{provider}\""))
}
