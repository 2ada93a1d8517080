//! What an operator grants and forbids: `permissions.toml`, or the files of `permissions.d/`.
//!
//! A grant with a `service` lets a skill use an account:
//!
//! ```toml
//! [[grant]]
//! skill = "gmail-send"
//! digest = "sha256:…"                  # the version that was approved; or approval = "none" for any version
//! clients = ["*"]                      # which programs may call; absent: all
//! users = ["alice", "team:sales/*"]
//! service = "gmail"
//! provider = "google"                  # must be what the manifest says, or the grant is void
//! scopes = ["https://www.googleapis.com/auth/gmail.send"]
//! request = [{ origin = "https://gmail.googleapis.com", methods = ["POST"] }]   # absent: the provider's API origins
//! accounts = ["work"]                  # absent: any; the caller chooses
//! use = "inject"                       # or "reveal"
//! as = "user"                          # or "agent": the agent's own connection
//! rate = "60/min"                      # per user
//! expires = 2027-06-30                 # the last day
//! ```
//!
//! A grant without one lets it send requests without a credential:
//!
//! ```toml
//! [[grant]]
//! skill = "weather"
//! approval = "none"
//! users = ["*"]
//! request = [{ origin = "https://*.example.com", methods = ["GET"] }]
//! ```
//!
//! A `[[forbid]]` beats every grant. All that it names must be so for it to hold:
//!
//! ```toml
//! [[forbid]]
//! users = ["contractor-*"]
//! provider = "salesforce"
//! reason = "customer data stays inside"
//! ```

use std::collections::BTreeMap;

use super::forbid::Forbid;
use super::grant::{Allowed, Grant};
use super::limits::LimitRules;
use super::manifest::Manifest;
use super::provider::ProviderFacts;
use crate::diagnostic::{Diagnostic, Diagnostics, Source, Table, did_you_mean};
use crate::id::{Digest, ProviderId, ServiceName, SkillName};

/// What an operator says about addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkRules {
    /// Address ranges that are not public and may be reached all the same.
    pub private: Vec<ipnet::IpNet>,
}

/// All that an operator grants and forbids. Nothing is granted by default.
#[derive(Debug, Clone, Default)]
pub struct Permissions {
    pub(super) grants: Vec<Grant>,
    pub(super) forbids: Vec<Forbid>,
    pub(super) network: NetworkRules,
    pub(super) limits: LimitRules,
    sources: Vec<Source>,
}

impl Permissions {
    /// Each grant's skill, and the patterns of its users, in the order of the file.
    pub fn granted(&self) -> impl Iterator<Item = (&SkillName, Vec<String>)> {
        self.grants.iter().map(|grant| (&grant.skill, grant.users.iter().map(ToString::to_string).collect()))
    }

    /// The services of a skill for which there is a grant, each once, in order.
    pub fn granted_services(&self, skill: &SkillName) -> Vec<&ServiceName> {
        let of_skill = self.grants.iter().filter(|grant| grant.skill == *skill);
        let mut services: Vec<_> = of_skill
            .filter_map(
                |grant| if let Allowed::Service(service) = &grant.allowed { Some(&service.service) } else { None },
            )
            .collect();
        services.sort();
        services.dedup();
        services
    }

    /// Whether a grant is pinned to this version of a skill, so that another version has to be approved.
    pub fn pins(&self, skill: &SkillName, digest: Digest) -> bool {
        self.grants.iter().any(|grant| grant.skill == *skill && grant.digest == Some(digest))
    }

    /// Reads the files; what they say is taken together, in whatever order.
    ///
    /// # Errors
    ///
    /// All that is wrong with all of them at once.
    pub fn parse(sources: &[Source]) -> Result<Self, Diagnostics> {
        let mut all = Self { sources: sources.to_vec(), ..Self::default() };
        let mut wrong: Option<Diagnostics> = None;
        let mut note = |found| {
            wrong = match wrong.take() {
                Some(earlier) => Some(Diagnostics::and(earlier, found)),
                None => Some(found),
            }
        };
        for (index, source) in sources.iter().enumerate() {
            let before = all.grants.len();
            match Table::read(source, |root| Some(read_file(root, index))) {
                Ok((grants, forbids, network, limits)) => {
                    all.grants.extend(grants);
                    all.forbids.extend(forbids);
                    all.network.private.extend(network);
                    all.limits = all.limits.and(&limits);
                }
                Err(found) => note(found),
            }
            if let Some(found) = Diagnostics::of(source, all.owner_conflicts(before)) {
                note(found);
            }
        }
        all.network.private.sort();
        all.network.private.dedup();
        match wrong {
            Some(diagnostics) => Err(diagnostics),
            None => Ok(all),
        }
    }

    /// Holds the names in these permissions against what is installed and known.
    ///
    /// # Errors
    ///
    /// Each grant for a skill, a service or a scope that no manifest declares, for another provider than the manifest's, or
    /// for a provider that the catalogue does not have. None of them gives anything away; each is likely a mistake. A grant for
    /// a skill or a provider that is not there is a warning, as it is what removing one leaves.
    pub fn check<'m>(
        &self,
        installed: impl IntoIterator<Item = &'m Manifest>,
        providers: &BTreeMap<ProviderId, ProviderFacts>,
    ) -> Result<(), Diagnostics> {
        let manifests: BTreeMap<&SkillName, &Manifest> = installed.into_iter().map(|m| (&m.name, m)).collect();
        let mut wrong: Option<Diagnostics> = None;
        for (index, source) in self.sources.iter().enumerate() {
            let mut found = Vec::new();
            for grant in self.grants.iter().filter(|grant| grant.places.file == index) {
                found.extend(check_grant(grant, &manifests, providers));
            }
            for forbid in self.forbids.iter().filter(|forbid| forbid.places.file == index) {
                found.extend(
                    forbid.provider.as_ref().and_then(|id| check_provider(id, &forbid.places.provider, providers)),
                );
            }
            if let Some(found) = Diagnostics::of(source, found) {
                wrong = Some(match wrong {
                    Some(earlier) => earlier.and(found),
                    None => found,
                });
            }
        }
        wrong.map_or(Ok(()), Err)
    }

    /// A digest of what the files say.
    pub(super) fn text_digest(&self) -> Digest {
        let mut each: Vec<_> = self.sources.iter().map(|source| Digest::of(source.text().as_bytes())).collect();
        each.sort();
        Digest::of(&each.iter().flat_map(|digest| *digest.as_bytes()).collect::<Vec<_>>())
    }

    /// Of two grants for one service of one skill, one as the user and one as the agent, neither could be preferred.
    fn owner_conflicts(&self, first_new: usize) -> Vec<Diagnostic> {
        let service = |grant: &Grant| match &grant.allowed {
            Allowed::Service(service) => Some((service.service.clone(), service.as_agent)),
            Allowed::Requests(_) => None,
        };
        let mut found = Vec::new();
        for (index, grant) in self.grants.iter().enumerate().skip(first_new) {
            let Some((name, as_agent)) = service(grant) else { continue };
            let other =
                self.grants.iter().take(index).find(|earlier| {
                    earlier.skill == grant.skill && service(earlier) == Some((name.clone(), !as_agent))
                });
            if let Some(other) = other {
                let message =
                    format!("`{}` of skill `{}` is granted both as the user and as the agent", name, grant.skill);
                found.push(
                    Diagnostic::new(grant.places.service.clone(), message)
                        .label(format!("the other grant is {}", other.line))
                        .help("it would be left open whose account is used: give `as` the same value in both"),
                );
            }
        }
        found
    }
}

type FileRules = (Vec<Grant>, Vec<Forbid>, Vec<ipnet::IpNet>, LimitRules);

fn read_file(root: &mut Table<'_>, file: usize) -> FileRules {
    let grants = root.tables("grant", |table| Grant::read(table, file));
    let forbids = root.tables("forbid", |table| Some(Forbid::read(table, file)));
    let network = root.opt_table("network", |table| {
        table.examples(&[("private", "[\"10.1.0.0/16\"]")]);
        Some(table.opt_list_by("private", parse_net).unwrap_or_default())
    });
    let limits = root.opt_table("limits", |table| Some(LimitRules::read(table, true))).unwrap_or_default();
    (grants, forbids, network.unwrap_or_default().into_iter().map(|net| net.value).collect(), limits)
}

fn parse_net(text: &str) -> Result<ipnet::IpNet, String> {
    let net: ipnet::IpNet =
        text.parse().map_err(|_| "a range is an address and a length, as in \"10.1.0.0/16\"".to_owned())?;
    if net.addr() != net.network() {
        return Err(format!("the address has bits beyond the length; did you mean \"{}\"?", net.trunc()));
    }
    if net.prefix_len() == 0 {
        return Err("this would admit every address there is".to_owned());
    }
    Ok(net)
}

fn check_grant(
    grant: &Grant,
    manifests: &BTreeMap<&SkillName, &Manifest>,
    providers: &BTreeMap<ProviderId, ProviderFacts>,
) -> Vec<Diagnostic> {
    let places = &grant.places;
    let Some(manifest) = manifests.get(&grant.skill) else {
        let diagnostic =
            Diagnostic::new(places.skill.clone(), format!("no skill `{}` is installed", grant.skill)).warning();
        let known = manifests.keys().map(|name| name.as_str());
        return vec![match did_you_mean(grant.skill.as_str(), known) {
            Some(near) => diagnostic.label(format!("did you mean `{near}`?")),
            None => diagnostic.help("`clawcoil skill list` shows what is installed; `clawcoil skill add` installs"),
        }];
    };
    let Allowed::Service(service) = &grant.allowed else { return Vec::new() };
    let Some(declared) = manifest.service(service.service.as_str()) else {
        let message = format!("the manifest of `{}` declares no service `{}`", grant.skill, service.service);
        let diagnostic = Diagnostic::new(places.service.clone(), message);
        let known: Vec<_> = manifest.services.iter().map(|declared| declared.name.as_str()).collect();
        return vec![match did_you_mean(service.service.as_str(), known.iter().copied()) {
            Some(near) => diagnostic.label(format!("did you mean `{near}`?")),
            None if known.is_empty() => diagnostic.label("it declares none"),
            None => diagnostic.label(format!("it declares {}", known.join(", "))),
        }];
    };
    let unknown = check_provider(&service.provider, &places.provider, providers);
    let mut found: Vec<_> = unknown.map(Diagnostic::warning).into_iter().collect();
    if declared.provider != service.provider {
        let message = format!("service `{}` is of provider `{}`", declared.name, declared.provider);
        let diagnostic =
            Diagnostic::new(places.provider.clone(), message).label("the grant is for another, so it gives nothing");
        found.push(diagnostic.help(
            "if the skill's new version changed its provider, look at it before you grant it again;\n\
             else write the manifest's provider here",
        ));
    }
    for (scope, place) in service.scopes.iter().zip(&places.scopes) {
        if !declared.scopes.contains(&scope.value) {
            let message = format!("service `{}` declares no scope {:?}", declared.name, scope.value);
            let diagnostic = Diagnostic::new(place.clone(), message);
            found.push(
                match did_you_mean(scope.value.as_str(), declared.scopes.iter().map(crate::id::Scope::as_str)) {
                    Some(near) => diagnostic.label(format!("did you mean {near:?}?")),
                    None => diagnostic
                        .label("granting it gives nothing")
                        .help("remove it, or ask the skill's author to declare it"),
                },
            );
        }
    }
    found
}

fn check_provider(
    id: &ProviderId,
    place: &std::ops::Range<usize>,
    providers: &BTreeMap<ProviderId, ProviderFacts>,
) -> Option<Diagnostic> {
    if providers.contains_key(id) {
        return None;
    }
    let diagnostic = Diagnostic::new(place.clone(), format!("the catalogue has no provider `{id}`"));
    Some(match did_you_mean(id.as_str(), providers.keys().map(ProviderId::as_str)) {
        Some(near) => diagnostic.label(format!("did you mean `{near}`?")),
        None => diagnostic.help("`clawcoil provider list` shows the catalogue; `clawcoil provider add` adds to it"),
    })
}
