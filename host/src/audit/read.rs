//! The reading side, for people who ask what happened.

use std::io;
use std::path::Path;

use crate::clock::Timestamp;
use crate::id::{ExplanationId, InvocationId, ProviderId, ServiceName, SkillName, UserId};
use crate::secret::Key;

use super::chain::Keys;
use super::event::{Decision, EventKind};
use super::folder;
use super::verify::Lines;

/// Which entries are asked for. What is absent doesn't restrict.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this user: the name, whose tag is looked for.
    pub user: Option<UserId>,
    /// Of this skill.
    pub skill: Option<SkillName>,
    /// Of this service.
    pub service: Option<ServiceName>,
    /// Of this provider.
    pub provider: Option<ProviderId>,
    /// Of this kind.
    pub kind: Option<EventKind>,
    /// Decided so.
    pub decision: Option<Decision>,
    /// Of this call.
    pub invocation: Option<InvocationId>,
    /// The refusal that was explained under this.
    pub explanation: Option<ExplanationId>,
    /// From this time on.
    pub since: Option<Timestamp>,
    /// Without the `opened` entries: there is one for each process that opened the log.
    pub without_opened: bool,
}

/// An entry as it was read. It was not checked: [`verify`](super::verify()) does that.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Entry {
    /// The chain it stands in.
    pub chain: String,
    /// The line of JSON.
    pub json: String,
    /// Its number in the chain.
    pub seq: u64,
    /// When it was written.
    pub time: Timestamp,
    /// What happened, as the word stands there. `opened` begins a chain, or a process's part of it.
    pub kind: String,
    /// How it was decided.
    pub decision: Option<String>,
    /// During which call.
    pub invocation: Option<String>,
    /// Which program called.
    pub client: Option<String>,
    /// The tag of the user.
    pub user: Option<String>,
    /// Which skill.
    pub skill: Option<String>,
    /// Which of its tools.
    pub tool: Option<String>,
    /// Which service.
    pub service: Option<String>,
    /// Which provider.
    pub provider: Option<String>,
    /// Which connection.
    pub connection: Option<String>,
    /// Where the request went.
    pub origin: Option<String>,
    /// Its method.
    pub method: Option<String>,
    /// The rule that decided.
    pub rule: Option<String>,
    /// The generation of the tokens.
    pub generation: Option<u64>,
    /// Under this the refusal was explained.
    pub explanation: Option<String>,
    /// Anything else.
    pub detail: Option<String>,
}

#[derive(serde::Deserialize)]
struct Line {
    seq: u64,
    time: String,
    kind: String,
    decision: Option<String>,
    invocation: Option<String>,
    client: Option<String>,
    user: Option<String>,
    skill: Option<String>,
    tool: Option<String>,
    service: Option<String>,
    provider: Option<String>,
    connection: Option<String>,
    origin: Option<String>,
    method: Option<String>,
    rule: Option<String>,
    generation: Option<u64>,
    explanation: Option<String>,
    detail: Option<String>,
}

impl Entry {
    /// Reads a line. `None` where it is no entry.
    pub fn parse(chain: &str, line: &[u8]) -> Option<Self> {
        let json = std::str::from_utf8(line).ok()?.to_owned();
        let line: Line = serde_json::from_str(&json).ok()?;
        Some(Self {
            chain: chain.to_owned(),
            json,
            seq: line.seq,
            time: line.time.parse().ok()?,
            kind: line.kind,
            decision: line.decision,
            invocation: line.invocation,
            client: line.client,
            user: line.user,
            skill: line.skill,
            tool: line.tool,
            service: line.service,
            provider: line.provider,
            connection: line.connection,
            origin: line.origin,
            method: line.method,
            rule: line.rule,
            generation: line.generation,
            explanation: line.explanation,
            detail: line.detail,
        })
    }
}

/// All entries that the filter lets through, oldest first.
pub fn read(dir: &Path, key: &Key, filter: &Filter) -> io::Result<Vec<Entry>> {
    tail(dir, key, filter, usize::MAX)
}

/// The last entries that the filter lets through, oldest first.
pub fn tail(dir: &Path, key: &Key, filter: &Filter, most: usize) -> io::Result<Vec<Entry>> {
    let user = filter.user.as_ref().map(|user| Keys::new(key).user_tag(user));
    let wanted = Wanted {
        user,
        invocation: filter.invocation.as_ref().map(ToString::to_string),
        explanation: filter.explanation.as_ref().map(ToString::to_string),
        filter,
    };
    let mut found = Vec::new();
    for (chain, path) in folder::chains(dir)? {
        let mut lines = Lines::open(&path)?;
        let first = found.len();
        while let Some(line) = lines.next()? {
            found.extend(Entry::parse(&chain, line).filter(|entry| wanted.matches(entry)));
            // Twice as many as wanted, so that the front is cut off seldom.
            if found.len() - first >= most.saturating_mul(2).max(64) {
                found.drain(first..found.len() - most.min(found.len() - first));
            }
        }
    }
    found.sort_by(|a, b| (a.time, &a.chain, a.seq).cmp(&(b.time, &b.chain, b.seq)));
    found.drain(..found.len().saturating_sub(most));
    Ok(found)
}

struct Wanted<'a> {
    user: Option<String>,
    invocation: Option<String>,
    explanation: Option<String>,
    filter: &'a Filter,
}

impl Wanted<'_> {
    fn matches(&self, entry: &Entry) -> bool {
        fn is(wanted: Option<&str>, found: Option<&str>) -> bool {
            wanted.is_none_or(|wanted| found == Some(wanted))
        }
        let filter = self.filter;
        is(self.user.as_deref(), entry.user.as_deref())
            && is(self.invocation.as_deref(), entry.invocation.as_deref())
            && is(self.explanation.as_deref(), entry.explanation.as_deref())
            && is(filter.skill.as_ref().map(SkillName::as_str), entry.skill.as_deref())
            && is(filter.service.as_ref().map(ServiceName::as_str), entry.service.as_deref())
            && is(filter.provider.as_ref().map(ProviderId::as_str), entry.provider.as_deref())
            && is(filter.kind.map(EventKind::as_str), Some(&entry.kind))
            && is(filter.decision.map(Decision::as_str), entry.decision.as_deref())
            && filter.since.is_none_or(|since| entry.time >= since)
            && !(filter.without_opened && entry.kind == "opened")
    }
}
