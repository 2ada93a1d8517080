//! What a skill declares, what the operator grants, and what follows.
//!
//! [`Manifest`] is the skill author's word, [`Permissions`] the operator's. [`Policy::effective`] takes both together for one
//! caller: *declared ∩ granted*, and a `[[forbid]]` beats every grant. What comes out answers every question of a call, and each
//! answer names the rule and its line. A [`Permit`] is the proof of a yes that releases a token; nothing else can make one.
//!
//! The rules, in short:
//!
//! - The grant decides where a credential goes: the manifest's requests ∩ the grant's (absent: the API origins of the provider).
//! - A grant is void if its provider is not the manifest's, if it pins another digest, if it has expired.
//! - One decision is made by one grant alone: two grants never add up to what neither gives.
//! - A request that a declared service claims goes with that service's grant or not at all.
//! - The order of rules, in a file and of files, does not matter.
//!
//! Where a request may go is decided; whether the address behind the name is a good one is the business of `net`.
//!
//! ```
//! use std::collections::BTreeMap;
//!
//! use clawcoil::clock::Timestamp;
//! use clawcoil::diagnostic::Source;
//! use clawcoil::id::{Caller, Digest};
//! use clawcoil::policy::{Manifest, Permissions, Policy, Route, Skill, Target};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let manifest = Manifest::parse(&Source::new("skill.toml", r#"
//!     [skill]
//!     name = "weather"
//!     version = "1.0.0"
//!     description = "Say how the weather is"
//!     [[request]]
//!     origin = "https://api.weather.example"
//! "#))?;
//! let permissions = Permissions::parse(&[Source::new("permissions.toml", r#"
//!     [[grant]]
//!     skill = "weather"
//!     approval = "none"
//!     users = ["alice"]
//!     request = [{ origin = "https://api.weather.example", methods = ["GET"] }]
//! "#)])?;
//! let policy = Policy::new(permissions, BTreeMap::new());
//!
//! let skill = Skill { manifest: &manifest, digest: Digest::of(b"the component") };
//! let caller = Caller::new("cli".parse()?, "alice".parse()?);
//! let effective = policy.effective(&skill, &caller, Timestamp::UNIX_EPOCH);
//!
//! let target = Target::parse(&http::Method::GET, &"https://api.weather.example/today".parse()?)?;
//! assert!(matches!(effective.route(&target, &BTreeMap::new()), Ok(Route::Plain { rule }) if rule.number() == 2));
//! let target = Target::parse(&http::Method::GET, &"https://evil.example/".parse()?)?;
//! println!("{}", effective.route(&target, &BTreeMap::new()).unwrap_err().explain());
//! # Ok(()) }
//! ```

mod cases;
mod compare;
mod decide;
mod denial;
mod edit;
mod effective;
mod explain;
mod forbid;
mod grant;
mod learn;
mod limits;
mod listed;
mod manifest;
mod needs;
mod origin;
mod pattern;
mod permissions;
mod permit;
mod provider;
mod rate;
mod request;
mod target;

pub use cases::{Case, Cases, Subject, Verdict};
pub use compare::{Comparison, Reach, Side};
pub use decide::{Effective, Linked, Route, Selected};
pub use denial::{Culprit, Denial, DenialCode, Proposal};
pub use edit::{Change, Edit, NewGrant, NewServiceGrant, Revocation, add_grant, covering, move_pins, revoke};
pub use effective::{EffectiveService, Policy, Skill};
pub use explain::Explanation;
pub use learn::{Attempt, Attempts, Lesson};
pub use limits::{EffectiveLimits, LimitRules};
pub use listed::{ListedGrant, ListedService};
pub use manifest::{Manifest, Select, ServiceDeclaration, ToolWords, Use, Version};
pub use needs::{Difference, Need, NeedKind};
pub use origin::{Host, InvalidOrigin, Origin, Scheme};
pub use pattern::{InvalidPattern, Pattern};
pub use permissions::{NetworkRules, Permissions};
pub use permit::{Permit, Purpose};
pub use provider::{Placement, ProviderFacts, Slot};
pub use rate::{InvalidRate, Rate, Rates};
pub use request::{InvalidPathRule, OriginRule, PathRule, RequestRule};
pub use target::{NormalPath, Target, TargetError};

#[cfg(test)]
mod tests;
