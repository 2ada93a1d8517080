//! The reading side, for people who ask what happened.

use std::io;
use std::path::Path;

use crate::clock::Timestamp;
use crate::id::{
    ClientName, ConnectionId, CredentialName, ExplanationId, InvocationId, ProviderId, ServiceName, SkillName, UserId,
};
use crate::secret::Key;

use super::chain::Keys;
use super::event::{self, Decision, EventKind};
use super::folder;
use super::newest::newest;
use super::verify::Lines;

/// Which entries are asked for. What is absent doesn't restrict.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this user: the name, whose tag is looked for.
    pub user: Option<UserId>,
    /// Of calls by this program.
    pub client: Option<ClientName>,
    /// Of calls with this credential.
    pub credential: Option<CredentialName>,
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
    /// Of this connection.
    pub connection: Option<ConnectionId>,
    /// The refusal that was explained under this.
    pub explanation: Option<ExplanationId>,
    /// From this time on.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
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
    /// The clock was set back in this chain, now or earlier: the latest time of the entries before this one.
    pub after: Option<Timestamp>,
    /// What happened, as the word stands there. `opened` begins a chain, or a process's part of it.
    pub kind: String,
    /// How it was decided.
    pub decision: Option<String>,
    /// During which call.
    pub invocation: Option<String>,
    /// Which program called.
    pub client: Option<String>,
    /// With which credential.
    pub credential: Option<String>,
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
    /// The change of tokens.
    pub change: Option<String>,
    /// How long it took, in milliseconds.
    pub took_ms: Option<u64>,
    /// Under this the refusal was explained.
    pub explanation: Option<String>,
    /// Anything else.
    pub detail: Option<String>,
}

#[derive(serde::Deserialize)]
struct Line {
    seq: u64,
    time: String,
    after: Option<String>,
    kind: String,
    decision: Option<String>,
    invocation: Option<String>,
    client: Option<String>,
    credential: Option<String>,
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
    change: Option<String>,
    took_ms: Option<u64>,
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
            after: moment(line.after)?,
            kind: line.kind,
            decision: line.decision,
            invocation: line.invocation,
            client: line.client,
            credential: line.credential,
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
            change: line.change,
            took_ms: line.took_ms,
            explanation: line.explanation,
            detail: line.detail,
        })
    }

    /// The latest time that its chain has up to here. It never falls from an entry to the next.
    pub fn latest(&self) -> Timestamp {
        latest(self.time, self.after)
    }

    /// The entry as a line that tells its file as well: the line as it stands there, with a first member `file` added.
    pub fn exported(&self) -> String {
        let mut out = b"{\"file\":".to_vec();
        event::quoted(&mut out, &self.chain);
        out.push(b',');
        out.extend_from_slice(self.json.strip_prefix('{').unwrap_or_default().as_bytes());
        // All parts are text.
        String::from_utf8(out).unwrap_or_default()
    }

    /// Reads back what [`exported`](Self::exported) gave: the chain, and the line as it stood there. `None` where it is none.
    pub fn imported(line: &str) -> Option<Self> {
        let rest = line.strip_prefix("{\"file\":")?;
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<String>();
        let chain = values.next()?.ok()?;
        let members = rest.get(values.byte_offset()..)?.strip_prefix(',')?;
        Self::parse(&chain, format!("{{{members}").as_bytes())
    }
}

/// Reads a time that may be absent. `None` where it is none.
#[expect(clippy::option_option, reason = "what is absent is not what is none")]
pub(super) fn moment(text: Option<String>) -> Option<Option<Timestamp>> {
    text.map(|text| text.parse()).transpose().ok()
}

pub(super) fn latest(time: Timestamp, after: Option<Timestamp>) -> Timestamp {
    after.map_or(time, |after| after.max(time))
}

/// The tag under which the log has a user.
pub fn user_tag(key: &Key, user: &UserId) -> String {
    Keys::new(key).user_tag(user)
}

/// All entries that the filter lets through, oldest first.
pub fn read(dir: &Path, key: &Key, filter: &Filter) -> io::Result<Vec<Entry>> {
    entries(dir, key, filter)?.collect()
}

/// The last entries that the filter lets through, oldest first. The files are read from their ends.
pub fn tail(dir: &Path, key: &Key, filter: &Filter, most: usize) -> io::Result<Vec<Entry>> {
    let mut last = newest(dir, key, filter, None)?.take(most).collect::<io::Result<Vec<_>>>()?;
    last.reverse();
    Ok(last)
}

/// The entries that the filter lets through, oldest first, one by one: however long the log is, little of it is held in
/// memory.
pub fn entries(dir: &Path, key: &Key, filter: &Filter) -> io::Result<Entries> {
    let wanted = Wanted::of(key, filter);
    let mut chains = Vec::new();
    for (chain, path) in folder::chains(dir)? {
        let mut open = Open { chain, lines: Lines::open(&path)?, next: None };
        open.advance(&wanted)?;
        chains.push(open);
    }
    Ok(Entries { chains, wanted })
}

/// What [`entries()`] gives.
#[derive(Debug)]
pub struct Entries {
    chains: Vec<Open>,
    wanted: Wanted,
}

#[derive(Debug)]
struct Open {
    chain: String,
    lines: Lines,
    next: Option<Entry>,
}

impl Open {
    fn advance(&mut self, wanted: &Wanted) -> io::Result<()> {
        self.next = None;
        while let Some(line) = self.lines.next()? {
            self.next = Entry::parse(&self.chain, line).filter(|entry| wanted.matches(entry));
            if self.next.is_some() {
                break;
            }
        }
        Ok(())
    }
}

impl Iterator for Entries {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        fn place(entry: &Entry) -> (Timestamp, &str, u64) {
            (entry.latest(), &entry.chain, entry.seq)
        }
        let ready = self.chains.iter_mut().filter(|open| open.next.is_some());
        let oldest = ready.min_by(|a, b| a.next.as_ref().map(place).cmp(&b.next.as_ref().map(place)))?;
        let entry = oldest.next.take()?;
        match oldest.advance(&self.wanted) {
            Ok(()) => Some(Ok(entry)),
            Err(error) => {
                self.chains.clear();
                Some(Err(error))
            }
        }
    }
}

/// A filter with the words for which an entry is looked at.
#[derive(Debug)]
pub(super) struct Wanted {
    user: Option<String>,
    invocation: Option<String>,
    connection: Option<String>,
    explanation: Option<String>,
    filter: Filter,
}

impl Wanted {
    pub(super) fn of(key: &Key, filter: &Filter) -> Self {
        Self {
            user: filter.user.as_ref().map(|user| Keys::new(key).user_tag(user)),
            invocation: filter.invocation.as_ref().map(ToString::to_string),
            connection: filter.connection.as_ref().map(ToString::to_string),
            explanation: filter.explanation.as_ref().map(ToString::to_string),
            filter: filter.clone(),
        }
    }

    pub(super) fn any() -> Self {
        Self { user: None, invocation: None, connection: None, explanation: None, filter: Filter::default() }
    }

    pub(super) fn matches(&self, entry: &Entry) -> bool {
        fn is(wanted: Option<&str>, found: Option<&str>) -> bool {
            wanted.is_none_or(|wanted| found == Some(wanted))
        }
        let filter = &self.filter;
        is(self.user.as_deref(), entry.user.as_deref())
            && is(self.invocation.as_deref(), entry.invocation.as_deref())
            && is(self.connection.as_deref(), entry.connection.as_deref())
            && is(self.explanation.as_deref(), entry.explanation.as_deref())
            && is(filter.client.as_ref().map(ClientName::as_str), entry.client.as_deref())
            && is(filter.credential.as_ref().map(CredentialName::as_str), entry.credential.as_deref())
            && is(filter.skill.as_ref().map(SkillName::as_str), entry.skill.as_deref())
            && is(filter.service.as_ref().map(ServiceName::as_str), entry.service.as_deref())
            && is(filter.provider.as_ref().map(ProviderId::as_str), entry.provider.as_deref())
            && is(filter.kind.map(EventKind::as_str), Some(&entry.kind))
            && is(filter.decision.map(Decision::as_str), entry.decision.as_deref())
            && filter.since.is_none_or(|since| entry.time >= since)
            && filter.until.is_none_or(|until| entry.time < until)
            && !(filter.without_opened && entry.kind == "opened")
    }
}
