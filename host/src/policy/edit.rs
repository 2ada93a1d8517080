//! Changes to the permissions that an operator's own words and comments survive.

use std::fmt;

use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, TableLike, Value, value};

use super::manifest::{ServiceDeclaration, Use};
use super::pattern::Pattern;
use super::permissions::Permissions;
use super::rate::Rate;
use super::request::RequestRule;
use crate::diagnostic::{Diagnostic, Diagnostics, Line, Source};
use crate::id::{AccountAlias, Digest, ProviderId, Scope, ServiceName, SkillName, UserId};

/// A grant that is about to be written.
#[derive(Debug, Clone)]
pub struct NewGrant {
    /// To which skill.
    pub skill: SkillName,
    /// To which version; absent: to any, now and later.
    pub digest: Option<Digest>,
    /// To which programs, as patterns; empty: to all.
    pub clients: Vec<String>,
    /// For which users, as patterns.
    pub users: Vec<String>,
    /// The use of an account.
    pub service: Option<NewServiceGrant>,
    /// Where requests may go; with a service, empty means: to the provider's API origins.
    pub requests: Vec<RequestRule>,
    /// How often, per user.
    pub rate: Option<Rate>,
    /// The last day.
    pub expires: Option<jiff::civil::Date>,
}

/// The part of a grant that is about an account.
#[derive(Debug, Clone)]
pub struct NewServiceGrant {
    /// The skill's name for it.
    pub service: ServiceName,
    /// The provider, which must be the manifest's.
    pub provider: ProviderId,
    /// The scopes.
    pub scopes: Vec<Scope>,
    /// Which accounts; empty: any.
    pub accounts: Vec<AccountAlias>,
    /// For which audiences; empty: for none that is named.
    pub audiences: Vec<String>,
    /// How the token is used.
    pub use_: Use,
    /// Whether the agent's own connection is meant.
    pub as_agent: bool,
}

impl NewGrant {
    /// All that a skill declares of a service, for one user.
    ///
    /// The destinations are left to the provider: an origin that only the manifest names is for an operator to write.
    pub fn for_service(skill: &SkillName, digest: Digest, declared: &ServiceDeclaration, user: &UserId) -> Self {
        let service = NewServiceGrant {
            service: declared.name.clone(),
            provider: declared.provider.clone(),
            scopes: declared.scopes.iter().cloned().collect(),
            accounts: Vec::new(),
            audiences: Vec::new(),
            use_: declared.use_,
            as_agent: false,
        };
        let service = Some(service);
        let (clients, users, requests) = (Vec::new(), vec![user.to_string()], Vec::new());
        Self {
            skill: skill.clone(),
            digest: Some(digest),
            clients,
            users,
            service,
            requests,
            rate: None,
            expires: None,
        }
    }

    /// One destination without a credential, for one user.
    pub fn for_request(skill: &SkillName, digest: Digest, request: RequestRule, user: &UserId) -> Self {
        let (clients, users, requests) = (Vec::new(), vec![user.to_string()], vec![request]);
        Self {
            skill: skill.clone(),
            digest: Some(digest),
            clients,
            users,
            service: None,
            requests,
            rate: None,
            expires: None,
        }
    }

    /// The grant as lines of a permissions file.
    pub fn lines(&self) -> String {
        let mut document = DocumentMut::new();
        let mut grants = ArrayOfTables::new();
        grants.push(self.table());
        document.insert("grant", Item::ArrayOfTables(grants));
        document.to_string()
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.insert("skill", value(self.skill.as_str()));
        match self.digest {
            Some(digest) => table.insert("digest", value(digest.to_string())),
            None => table.insert("approval", value("none")),
        };
        if !self.clients.is_empty() {
            table.insert("clients", array(&self.clients));
        }
        table.insert("users", array(&self.users));
        if let Some(service) = &self.service {
            table.insert("service", value(service.service.as_str()));
            table.insert("provider", value(service.provider.as_str()));
            if !service.scopes.is_empty() {
                table.insert("scopes", array(&service.scopes));
            }
            if !service.accounts.is_empty() {
                table.insert("accounts", array(&service.accounts));
            }
            if !service.audiences.is_empty() {
                table.insert("audiences", array(&service.audiences));
            }
            table.insert("use", value(service.use_.as_str()));
            if service.as_agent {
                table.insert("as", value("agent"));
            }
        }
        if let Some(rate) = self.rate {
            table.insert("rate", value(rate.to_string()));
        }
        if let Some(expires) = self.expires.and_then(|date| date.to_string().parse::<toml_edit::Datetime>().ok()) {
            table.insert("expires", value(expires));
        }
        if !self.requests.is_empty() {
            let mut requests = ArrayOfTables::new();
            for rule in &self.requests {
                let mut request = Table::new();
                request.insert("origin", value(rule.origin.to_string()));
                if let Some(methods) = &rule.methods {
                    request.insert("methods", array(methods));
                }
                if !rule.paths.is_empty() {
                    request.insert("paths", array(&rule.paths));
                }
                requests.push(request);
            }
            table.insert("request", Item::ArrayOfTables(requests));
        }
        table
    }
}

/// The grant that gives all that another would, if one does.
///
/// What a rule forbids besides is not looked at.
///
/// # Errors
///
/// The files are not in order.
pub fn covering(sources: &[Source], wanted: &NewGrant) -> Result<Option<Line>, Diagnostics> {
    let permissions = Permissions::parse(sources)?;
    Ok(permissions.grants.iter().find(|grant| grant.covers(wanted)).map(|grant| grant.line.clone()))
}

fn array<T: ToString>(values: impl IntoIterator<Item = T>) -> Item {
    value(values.into_iter().map(|item| item.to_string()).collect::<Array>())
}

/// A list as TOML writes it.
pub(super) fn list<T: ToString>(values: impl IntoIterator<Item = T>) -> String {
    values.into_iter().map(|item| item.to_string()).collect::<Array>().to_string()
}

/// A file's new text, and what changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// The whole new text.
    pub text: String,
    /// What changed, by line.
    pub diff: Vec<Change>,
    /// Grants that were left and still cover what was to be revoked, through a pattern.
    pub left: Vec<Line>,
    /// The rule that forbids what was to be revoked, whatever is granted.
    pub forbidden: Option<Line>,
}

/// A line that went or came. It prints as in a patch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A line of the old text, counted from one.
    Removed(usize, String),
    /// A line of the new text, counted from one.
    Added(usize, String),
}

impl Change {
    /// The line, counted from one.
    pub fn line(&self) -> usize {
        match self {
            Self::Removed(line, _) | Self::Added(line, _) => *line,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Removed(line, text) => write!(f, "{line:>4} - {text}"),
            Self::Added(line, text) => write!(f, "{line:>4} + {text}"),
        }
    }
}

/// Writes a grant at the end of a permissions file.
///
/// # Errors
///
/// The file is not in order, or would not be with the grant.
pub fn add_grant(source: &Source, grant: &NewGrant) -> Result<Edit, Diagnostics> {
    Permissions::parse(std::slice::from_ref(source))?;
    let before = source.text();
    let gap = if before.is_empty() || before.ends_with("\n\n") {
        ""
    } else if before.ends_with('\n') {
        "\n"
    } else {
        "\n\n"
    };
    finish(source, format!("{before}{gap}{}", grant.lines()), Vec::new())
}

/// What is to be revoked.
#[derive(Debug, Clone, Copy)]
pub struct Revocation<'a> {
    /// From which skill.
    pub skill: &'a SkillName,
    /// Which service; absent: all of the skill's grants.
    pub service: Option<&'a ServiceName>,
    /// For which user, as the grant writes it (`alice`, `team:sales/*`); absent: for all.
    pub user: Option<&'a str>,
}

/// Takes grants out of a permissions file. A user is taken out of a list; a grant whose list is then empty goes.
///
/// # Errors
///
/// The file is not in order.
pub fn revoke(source: &Source, what: &Revocation<'_>) -> Result<Edit, Diagnostics> {
    let permissions = Permissions::parse(std::slice::from_ref(source))?;
    let mut document = editable(source)?;
    let mut left = Vec::new();
    let mut taken = 0;
    let mut kept = Vec::new();
    if let Some(grants) = document.get_mut("grant").and_then(Item::as_array_of_tables_mut) {
        let mut index = 0;
        while let Some(table) = grants.get_mut(index) {
            let line = permissions.grants.get(index + taken).map(|grant| grant.line.clone());
            let text = |key: &str| table.get(key).and_then(Item::as_str);
            let concerned = text("skill") == Some(what.skill.as_str())
                && what.service.is_none_or(|service| text("service") == Some(service.as_str()));
            if concerned && revoke_in(table, what.user, line, &mut left) {
                kept.push((table.position().unwrap_or_default(), detached_comments(table)));
                grants.remove(index);
                taken += 1;
            } else {
                index += 1;
            }
        }
    }
    for (position, comments) in kept.into_iter().rev().filter(|(_, comments)| !comments.is_empty()) {
        put_before_next(&mut document, position, &comments);
    }
    let forbidden = what
        .user
        .and_then(|user| permissions.forbids.iter().find(|forbid| forbid.is_all_of(what.skill, user, what.service)));
    let forbidden = forbidden.map(|forbid| forbid.line.clone());
    Ok(Edit { forbidden, ..finish(source, document.to_string(), left)? })
}

/// Moves each grant of a skill that pins one version to another version, which is thereby approved for all that the grant says.
///
/// # Errors
///
/// The file is not in order.
pub fn move_pins(source: &Source, skill: &SkillName, from: Digest, to: Digest) -> Result<Edit, Diagnostics> {
    let mut document = editable(source)?;
    match document.get_mut("grant") {
        Some(Item::ArrayOfTables(grants)) => grants.iter_mut().for_each(|grant| move_pin(grant, skill, from, to)),
        Some(Item::Value(Value::Array(grants))) => {
            grants.iter_mut().filter_map(Value::as_inline_table_mut).for_each(|grant| move_pin(grant, skill, from, to));
        }
        _ => {}
    }
    finish(source, document.to_string(), Vec::new())
}

fn move_pin(grant: &mut dyn TableLike, skill: &SkillName, from: Digest, to: Digest) {
    let is_of_skill = grant.get("skill").and_then(Item::as_str) == Some(skill.as_str());
    let Some(pin) = grant.get_mut("digest").and_then(Item::as_value_mut).filter(|_| is_of_skill) else { return };
    if pin.as_str().and_then(|text| text.parse().ok()) == Some(from) {
        let decor = pin.decor().clone();
        *pin = Value::from(to.to_string());
        *pin.decor_mut() = decor;
    }
}

fn editable(source: &Source) -> Result<DocumentMut, Diagnostics> {
    Permissions::parse(std::slice::from_ref(source))?;
    source.text().parse().map_err(|error: toml_edit::TomlError| {
        let span = error.span().unwrap_or(0..0);
        Diagnostics::one(source, Diagnostic::new(span, error.message().to_owned()))
    })
}

/// The comments above a table that an empty line parts from it: they are not about this table alone.
fn detached_comments(table: &Table) -> String {
    let above = table.decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default();
    above
        .rfind("\n\n")
        .and_then(|at| above.get(..at + 1))
        .filter(|text| text.contains('#'))
        .unwrap_or_default()
        .to_owned()
}

/// Puts comments above the table that follows a place in the file, or at the file's end.
fn put_before_next(document: &mut DocumentMut, position: isize, comments: &str) {
    let tables = document.iter_mut().flat_map(|(_, item)| match item {
        Item::Table(table) => vec![table],
        Item::ArrayOfTables(tables) => tables.iter_mut().collect(),
        _ => Vec::new(),
    });
    let later = tables.filter(|table| table.position().is_some_and(|at| at > position));
    if let Some(next) = later.min_by_key(|table| table.position()) {
        let above = next.decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default();
        let above = format!("{comments}{above}");
        next.decor_mut().set_prefix(above);
    } else {
        let end = format!("{comments}{}", document.trailing().as_str().unwrap_or_default());
        document.set_trailing(end);
    }
}

/// Whether the whole grant is to go.
fn revoke_in(table: &mut Table, user: Option<&str>, line: Option<Line>, left: &mut Vec<Line>) -> bool {
    let Some(user) = user else { return true };
    let Some(users) = table.get_mut("users").and_then(Item::as_array_mut) else { return false };
    let before = users.len();
    users.retain(|item| item.as_str() != Some(user));
    let shorter = users.len() < before;
    if let Some(first) = users.get_mut(0).filter(|_| shorter) {
        let prefix = first.decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default();
        if prefix == " " {
            first.decor_mut().set_prefix("");
        }
    }
    // What is wider than what was named, and what is narrower: `*` also says alice.
    let named = user.parse::<Pattern>().ok();
    let covers = |item: &Value| {
        let text = item.as_str().unwrap_or_default();
        text.parse::<Pattern>().is_ok_and(|pattern| pattern.matches(user))
            || named.as_ref().is_some_and(|named| named.matches(text))
    };
    if users.iter().any(covers) {
        left.extend(line);
    }
    users.is_empty()
}

/// Holds the new text to the same rules, so that an edit never leaves a file that does not load.
fn finish(source: &Source, text: String, left: Vec<Line>) -> Result<Edit, Diagnostics> {
    Permissions::parse(&[Source::new(source.name(), &*text)])?;
    let diff = diff(source.text(), &text);
    Ok(Edit { text, diff, left, forbidden: None })
}

/// The change between two texts, by whole lines: each line that differs, where both have as many; else what stands between what
/// is the same at the beginning and at the end.
fn diff(before: &str, after: &str) -> Vec<Change> {
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    if old.len() == new.len() {
        let differing = old.iter().zip(&new).enumerate().filter(|(_, (old, new))| old != new);
        return differing
            .flat_map(|(at, (old, new))| {
                [Change::Removed(at + 1, (*old).to_owned()), Change::Added(at + 1, (*new).to_owned())]
            })
            .collect();
    }
    let head = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let tail =
        old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count().min(old.len().min(new.len()) - head);
    let removed = old.iter().enumerate().skip(head).take(old.len() - head - tail);
    let added = new.iter().enumerate().skip(head).take(new.len() - head - tail);
    let removed = removed.map(|(at, line)| Change::Removed(at + 1, (*line).to_owned()));
    removed.chain(added.map(|(at, line)| Change::Added(at + 1, (*line).to_owned()))).collect()
}
