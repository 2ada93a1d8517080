//! `clawcoil grant` and `clawcoil revoke`

use clap::{ArgGroup, Args, ValueEnum};
use clawcoil::clock::Timestamp;
use clawcoil::diagnostic::{Source, did_you_mean};
use clawcoil::host::Home;
use clawcoil::id::{AccountAlias, Scope, ServiceName, SkillName, UserId};
use clawcoil::policy::{
    Change, DenialCode, Edit, Explanation, Manifest, NewGrant, Permissions, Policy, Rate, Revocation, Skill, Use,
    add_grant, covering, revoke,
};
use clawcoil::registry::{InstalledSkill, Registry};
use serde_json::{Value, json};

use super::{agent, provider};
use crate::exit::Failure;
use crate::output::{Output, texts};
use crate::settings::Settings;

/// Allow a skill what it declares, for these users
///
/// It is written to permissions.toml, where your comments stay, and holds for the version that is installed now.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clawcoil grant gmail-send --user alice
  clawcoil grant gmail-send --user alice --account work --rate 60/min --expires 2027-06-30
  clawcoil grant internal-report --user alice --as-agent     with the agent's own account
  clawcoil grant signed-webhook --user alice --use reveal    it may see the token itself
  clawcoil grant gmail-send --user alice --dry-run           only show the lines")]
pub(crate) struct Grant {
    /// The skill
    skill: SkillName,

    /// For whom; may be given several times
    #[arg(long = "user", value_name = "USER", required = true)]
    users: Vec<UserId>,

    /// Only this service of the skill
    #[arg(long)]
    service: Option<ServiceName>,

    /// Only this scope of those that the skill declares; may be given several times
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<Scope>,

    /// Only this account of the user; may be given several times
    #[arg(long = "account", value_name = "ACCOUNT")]
    accounts: Vec<AccountAlias>,

    /// Whether the skill may see the token, which must be said for a skill that asks for that
    #[arg(long = "use", value_name = "USE")]
    use_: Option<GrantedUse>,

    /// The agent's own account instead of the user's
    #[arg(long)]
    as_agent: bool,

    /// How often, per user, as in 60/min
    #[arg(long)]
    rate: Option<Rate>,

    /// The last day
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = day)]
    expires: Option<jiff::civil::Date>,

    /// Show the lines, change nothing
    #[arg(long)]
    dry_run: bool,
}

fn day(text: &str) -> Result<jiff::civil::Date, String> {
    text.parse().map_err(|_| "a day of the calendar, as 2027-06-30".to_owned())
}

/// How a token may be used.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum GrantedUse {
    /// The host puts it on requests
    Inject,
    /// The skill may see it
    Reveal,
}

impl Grant {
    pub(crate) fn run(self, settings: &Settings, output: &Output) -> Result<(), Failure> {
        let home = agent::existing_home(settings)?;
        let skill = Registry::in_folder(home.skills()).get(&self.skill)?;
        let now = agent::clock().now();
        // The last day ends with it in UTC.
        let today = jiff::tz::TimeZone::UTC.to_datetime(now).date();
        if let Some(day) = self.expires.filter(|day| *day < today) {
            let message = format!("--expires {day} is over, so that the grant would give nothing; it is {today} (UTC)");
            return Err(Failure::usage(message));
        }
        let mut file = PermissionsFile::open(&home)?;
        for user in &self.users {
            for grant in self.wanted(&skill, user)? {
                file.add(&home, &skill, user, &grant, now)?;
            }
        }
        file.finish(self.dry_run, output)
    }

    /// One grant for each declared service and each destination without a credential.
    fn wanted(&self, skill: &InstalledSkill, user: &UserId) -> Result<Vec<NewGrant>, Failure> {
        let manifest = &skill.manifest;
        let mut grants = Vec::new();
        for declared in &manifest.services {
            if self.service.as_ref().is_some_and(|service| *service != declared.name) {
                continue;
            }
            if let Some(scope) = self.scopes.iter().find(|scope| !declared.scopes.contains(*scope)) {
                return Err(Failure::usage(format!(
                    "service {} of {} declares no scope {scope}",
                    declared.name, self.skill
                )));
            }
            if matches!(self.use_, Some(GrantedUse::Reveal)) && declared.use_ == Use::Inject {
                return Err(Failure::usage(format!(
                    "service {0} of {1} declares use = \"inject\": the skill does not ask to see the token, and a grant can't give it more; leave --use out{2}",
                    declared.name,
                    self.skill,
                    if self.service.is_none() && manifest.services.len() > 1 {
                        ", or name another service with --service"
                    } else {
                        ""
                    }
                )));
            }
            if self.use_.is_none() && declared.use_ == Use::Reveal {
                return Err(Failure::usage(format!(
                    "{0} asks to be given the token of the service {1} itself{2}\nsay --use reveal to allow that; each time is in the audit log, and from then on the call reaches nothing but what {1} may reach",
                    self.skill,
                    declared.name,
                    declared.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default()
                )));
            }
            let mut grant = NewGrant::for_service(&manifest.name, skill.digest, declared, user);
            if let Some(service) = &mut grant.service {
                if !self.scopes.is_empty() {
                    service.scopes.clone_from(&self.scopes);
                }
                service.accounts.clone_from(&self.accounts);
                service.as_agent = self.as_agent;
                service.use_ = match self.use_ {
                    Some(GrantedUse::Inject) => Use::Inject,
                    Some(GrantedUse::Reveal) => Use::Reveal,
                    None => declared.use_,
                };
            }
            grants.push(grant);
        }
        if self.service.is_none() {
            let plain = manifest.requests.iter();
            grants.extend(plain.map(|rule| NewGrant::for_request(&manifest.name, skill.digest, rule.clone(), user)));
        }
        if grants.is_empty() {
            return Err(Failure::usage(self.nothing(manifest)));
        }
        Ok(grants.into_iter().map(|grant| NewGrant { rate: self.rate, expires: self.expires, ..grant }).collect())
    }

    /// Why there is nothing to grant.
    fn nothing(&self, manifest: &Manifest) -> String {
        let declared: Vec<&str> = manifest.services.iter().map(|service| service.name.as_str()).collect();
        match &self.service {
            Some(service) if declared.is_empty() => {
                format!("{} declares no service {service}, nor another", self.skill)
            }
            Some(service) => {
                format!("{} declares no service {service}; it declares: {}", self.skill, declared.join(", "))
            }
            None => format!("{0} asks for nothing, so it needs no grant: `clawcoil run {0}` runs it", self.skill),
        }
    }
}

/// Take back what was granted to a skill
///
/// It holds from the next request on, also for calls under way in programs that have read the permissions again.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("from").args(["user", "all_users"]).required(true))]
#[command(after_help = "\
Examples:
  clawcoil revoke gmail-send --user alice
  clawcoil revoke gmail-send --all-users --service gmail")]
pub(crate) struct Revoke {
    /// The skill
    skill: SkillName,

    /// From whom, as the grant writes it
    #[arg(long)]
    user: Option<String>,

    /// From everybody
    #[arg(long)]
    all_users: bool,

    /// Only this service
    #[arg(long)]
    service: Option<ServiceName>,

    /// Show the lines, change nothing
    #[arg(long)]
    dry_run: bool,
}

impl Revoke {
    pub(crate) fn run(self, settings: &Settings, output: &Output) -> Result<(), Failure> {
        let home = agent::existing_home(settings)?;
        let mut file = PermissionsFile::open(&home)?;
        let what = Revocation { skill: &self.skill, service: self.service.as_ref(), user: self.user.as_deref() };
        let edit = file.revoke(&what)?;
        let mut left = texts(edit.left);
        let mut forbidden = edit.forbidden;
        for source in home.permission_sources()?.iter().filter(|source| source.name() != file.before.name()) {
            let there = revoke(source, &what)?;
            left.extend(texts(there.left));
            left.extend(there.diff.first().map(|first| format!("{}:{}", source.name(), first.line())));
            forbidden = forbidden.or(there.forbidden);
        }
        if let Some(rule) = forbidden {
            file.notes.push(format!("{rule} forbids it, whatever is granted"));
            return file.finish(self.dry_run, output);
        }
        if !left.is_empty() {
            if !self.dry_run {
                file.write()?;
            }
            return Err(self.still_granted(&file, &left));
        }
        if file.changes.is_empty() {
            return Err(self.nothing_matched(&file)?);
        }
        file.finish(self.dry_run, output)
    }

    /// What could be taken away is gone, and yet there is access: by a pattern that names others too, or from another file.
    fn still_granted(&self, file: &PermissionsFile, left: &[String]) -> Failure {
        let mut rule = format!("[[forbid]]\nskill = \"{}\"\n", self.skill);
        rule.extend(self.user.iter().map(|user| format!("users = [\"{user}\"]\n")));
        rule.extend(self.service.iter().map(|service| format!("service = \"{service}\"\n")));
        let who = self.user.as_deref().unwrap_or("everybody");
        let done = match (file.changes.is_empty(), self.dry_run) {
            (true, _) => "nothing was taken away",
            (false, true) => "a part of it would be taken away",
            (false, false) => "a part of it was taken away",
        };
        let lines = left.join(", ");
        let path = file.before.name();
        let message = format!(
            "{} is still granted to {who}, by {lines}; {done}\nnarrow the `users` of that grant, or add these lines to {path}:\n\n{rule}",
            self.skill
        );
        let changes: Vec<Value> = file.changes.iter().map(change).collect();
        let details = json!({
            "file": path, "changes": changes, "written": !self.dry_run, "still_granted": left, "forbid": rule,
        });
        Failure::error(message).with_details(details)
    }

    /// A name that is misspelled must not pass for access that was taken away.
    fn nothing_matched(&self, file: &PermissionsFile) -> Result<Failure, Failure> {
        let permissions = Permissions::parse(&[file.source()])?;
        let of_skill: Vec<_> = permissions.granted().filter(|(skill, _)| **skill == self.skill).collect();
        let services = permissions.granted_services(&self.skill);
        if let Some(service) =
            self.service.as_ref().filter(|service| !of_skill.is_empty() && !services.contains(service))
        {
            let meant = did_you_mean(service.as_str(), services.iter().map(|service| service.as_str()));
            let meant = meant.map(|name| format!("; did you mean {name}?")).unwrap_or_default();
            let known = if services.is_empty() { "none".to_owned() } else { texts(services).join(", ") };
            return Ok(Failure::error(format!(
                "{} has no grant of a service {service} to {}{meant}\nservices granted to it: {known}",
                file.before.name(),
                self.skill
            )));
        }
        let mut known: Vec<String> = if of_skill.is_empty() {
            permissions.granted().map(|(skill, _)| skill.to_string()).collect()
        } else {
            of_skill.iter().flat_map(|(_, users)| users.clone()).collect()
        };
        known.sort();
        known.dedup();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let what = if of_skill.is_empty() { "skills with a grant" } else { "users with a grant of this skill" };
        let file = file.before.name();
        Ok(Failure::error(format!("{file} has no grant that this would take away; {what}: {known}")))
    }
}

/// permissions.toml with what is to change.
pub(super) struct PermissionsFile {
    path: std::path::PathBuf,
    before: Source,
    text: String,
    changes: Vec<Change>,
    /// What was left as it is, and why.
    notes: Vec<String>,
    /// Held until the file is written: what two commands change at the same time must not be lost.
    _lock: std::fs::File,
}

impl PermissionsFile {
    pub(super) fn open(home: &Home) -> Result<Self, Failure> {
        let path = home.permissions();
        let lock = lock_permissions(home)?;
        let name = path.display().to_string();
        let before = if path.exists() { Source::open(&path)? } else { Source::new(name, "") };
        let text = before.text().to_owned();
        Ok(Self { path, before, text, changes: Vec::new(), notes: Vec::new(), _lock: lock })
    }

    fn source(&self) -> Source {
        Source::new(self.before.name(), &*self.text)
    }

    /// Adds a grant, unless one gives all of it already. One that was pinned to another version is replaced.
    pub(super) fn add(
        &mut self,
        home: &Home,
        skill: &InstalledSkill,
        user: &UserId,
        grant: &NewGrant,
        now: Timestamp,
    ) -> Result<(), Failure> {
        let sources = self.sources(home)?;
        let covered = covering(&sources, grant)?;
        if let Some(service) = &grant.service {
            let (name, skill_name) = (&service.service, &grant.skill);
            match explain(home, &sources, skill, user, name, now)? {
                Explanation::Granted { service: has, rules, .. } => {
                    let reveals = has.use_ > service.use_;
                    let (sees, all) =
                        (if reveals { ", and the skill may see the token" } else { "" }, texts(rules).join(", "));
                    self.notes.push(match &covered {
                        Some(line) if !reveals => format!("{name} is granted to {user} already, by {line}"),
                        Some(_) => format!("{name} is granted to {user} already, by {all}{sees}"),
                        None => format!("{name} is granted to {user} by {all} too{sees}"),
                    });
                    let bounded = grant.rate.is_some() || grant.expires.is_some() || !service.accounts.is_empty();
                    if reveals || bounded {
                        self.notes.push(format!(
                            "Grants add up: to give less, run `clawcoil revoke {skill_name} --user {user} --service {name}` first"
                        ));
                    }
                }
                Explanation::Denied(denial) if denial.code == DenialCode::ApprovalPending => {
                    let what = Revocation { skill: skill_name, service: Some(name), user: Some(user.as_str()) };
                    let left = self.revoke(&what)?.left;
                    self.notes.extend(
                        left.iter()
                            .map(|line| format!("{line} grants another version, to more users: it stays as it is")),
                    );
                }
                Explanation::Denied(denial) if denial.code == DenialCode::Forbidden => {
                    let rule = denial.rule.map(|rule| format!(", by {rule}")).unwrap_or_default();
                    self.notes.push(format!("{}{rule}, whatever is granted", denial.message));
                }
                Explanation::Denied(denial) => self.notes.extend(
                    covered
                        .iter()
                        .map(|line| format!("{name} is granted to {user} already, by {line}, but {}", denial.message)),
                ),
            }
        }
        if covered.is_some() {
            return Ok(());
        }
        let edit = add_grant(&self.source(), grant)?;
        self.text = edit.text;
        self.changes.extend(edit.diff);
        Ok(())
    }

    /// This file as it is to be, and the others.
    fn sources(&self, home: &Home) -> Result<Vec<Source>, Failure> {
        let others = home.permission_sources()?.into_iter().filter(|source| source.name() != self.before.name());
        Ok(std::iter::once(self.source()).chain(others).collect())
    }

    fn revoke(&mut self, what: &Revocation<'_>) -> Result<Edit, Failure> {
        let edit = revoke(&self.source(), what)?;
        self.text.clone_from(&edit.text);
        self.changes.extend(edit.diff.iter().cloned());
        Ok(edit)
    }

    /// Writes the file, unless nothing is to change.
    pub(super) fn write(&self) -> Result<(), Failure> {
        if self.text == self.before.text() { Ok(()) } else { agent::replace_file(&self.path, &self.text) }
    }

    fn finish(self, dry_run: bool, output: &Output) -> Result<(), Failure> {
        if !dry_run {
            self.write()?;
        }
        let file = self.before.name();
        let changes: Vec<Value> = self.changes.iter().map(change).collect();
        let object = json!({ "file": file, "changes": changes, "notes": self.notes, "written": !dry_run });
        output.answer(object, || {
            let mut lines = self.notes.clone();
            if self.changes.is_empty() {
                lines.push(format!("{file} stays as it is."));
            } else {
                lines.push(format!("{file}{}", if dry_run { ", as it would be" } else { "" }));
                lines.extend(self.changes.iter().map(|change| shown_change(change, output)));
            }
            lines.join("\n")
        })
    }
}

/// What these permissions say of a service for a user.
fn explain(
    home: &Home,
    sources: &[Source],
    skill: &InstalledSkill,
    user: &UserId,
    service: &ServiceName,
    now: Timestamp,
) -> Result<Explanation, Failure> {
    let policy = Policy::new(Permissions::parse(sources)?, provider::catalogue(home)?.facts());
    let skill = Skill { manifest: &skill.manifest, digest: skill.digest };
    Ok(policy.effective(&skill, &agent::caller(user)?, now).explain(service))
}

/// Waits for whoever changes the permissions, and keeps others from it until the file is dropped.
pub(crate) fn lock_permissions(home: &Home) -> Result<std::fs::File, Failure> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = home.folder().join(".permissions.lock");
    let opened = std::fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    opened
        .and_then(|file| file.lock().map(|()| file))
        .map_err(|error| Failure::error(format!("{} can't be locked: {error}", path.display())))
}

/// For people, in the colours of a patch.
pub(super) fn shown_change(change: &Change, output: &Output) -> String {
    let style = match change {
        Change::Removed(..) => "31",
        Change::Added(..) => "32",
    };
    output.styled(style, &change.to_string())
}

/// For programs.
pub(super) fn change(change: &Change) -> Value {
    match change {
        Change::Removed(line, text) => json!({ "removed": line, "text": text }),
        Change::Added(line, text) => json!({ "added": line, "text": text }),
    }
}
