//! What the vault keeps of a call: a record, its answer when it has ended, and the key under which it was asked for.
//!
//! All three are sealed documents of the user for whom the call was made, and expire together. The answer stands by itself, so
//! that lists of calls don't open any.

use std::time::Duration;

use clawcoil::clock::Timestamp;
use clawcoil::id::{Caller, Generation, InvocationId, Owner};
use clawcoil::vault::{Document, Vault, VaultError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::super::answer::Answer;
use super::super::key::Keys;

const RECORD: &str = "invocation";
const ANSWER: &str = "invocation-answer";

/// For how long a call, its answer and its key are remembered.
pub(crate) const MEMORY: Duration = Duration::from_hours(24);

/// The largest answer that is kept, in bytes of JSON.
pub(super) const LARGEST: usize = 960 << 10;

/// How a call stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = InvocationState)]
pub(crate) enum State {
    /// It runs, or waits for a place.
    Running,
    /// It ended with a result.
    Succeeded,
    /// It ended without one, or did not start.
    Failed,
    /// It was ended by its caller, or because the host stopped.
    Cancelled,
    /// The host ended while it ran: what it has done by then is not known.
    Unknown,
}

/// A call.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    id: String,
    client: String,
    user: String,
    pub(crate) skill: String,
    pub(crate) tool: Option<String>,
    pub(super) state: State,
    created_at: i64,
    ended_at: Option<i64>,
    /// Whether a key holds it.
    pub(super) keyed: bool,
    /// Which process began it.
    pub(super) process: String,
    /// The size of its answer.
    pub(super) bytes: usize,
    /// Whether the answer was too large to be kept.
    pub(super) answer_lost: bool,
    #[serde(skip)]
    revision: u64,
}

/// For which request a key was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claim {
    /// A digest of the request.
    pub(super) request: String,
    pub(super) id: String,
    pub(super) process: String,
}

impl Record {
    pub(super) fn new(
        id: InvocationId,
        caller: &Caller,
        (skill, tool): (&str, Option<&str>),
        keyed: bool,
        process: &str,
        now: Timestamp,
    ) -> Self {
        Self {
            id: id.to_string(),
            client: caller.client.to_string(),
            user: caller.user.to_string(),
            skill: skill.to_owned(),
            tool: tool.map(str::to_owned),
            state: State::Running,
            created_at: now.as_millisecond(),
            ended_at: None,
            keyed,
            process: process.to_owned(),
            bytes: 0,
            answer_lost: false,
            revision: 0,
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    pub(crate) fn created_at(&self) -> Timestamp {
        moment(self.created_at)
    }

    pub(crate) fn ended_at(&self) -> Option<Timestamp> {
        self.ended_at.map(moment)
    }

    /// From then on nothing is known of it.
    pub(crate) fn expires_at(&self) -> Timestamp {
        self.created_at().saturating_add(MEMORY).unwrap_or(Timestamp::MAX)
    }

    /// Sorts calls by when they were made, the latest first.
    pub(crate) fn key(&self) -> String {
        format!("{:020}{}", i64::MAX - self.created_at, self.id)
    }

    pub(super) fn is_of(&self, caller: &Caller) -> bool {
        self.client == caller.client.as_str() && self.user == caller.user.as_str()
    }

    pub(super) fn ended(&mut self, state: State, now: Timestamp, bytes: usize) {
        self.state = state;
        self.ended_at = Some(now.as_millisecond());
        self.answer_lost = bytes > LARGEST;
        self.bytes = if self.answer_lost { 0 } else { bytes };
    }
}

fn moment(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX)
}

/// The calls that a vault keeps.
#[derive(Clone, Copy)]
pub(super) struct Store<'a>(pub(super) &'a Vault);

impl<'a> Store<'a> {
    /// A call, whoever made it.
    pub(super) fn record(self, id: &str) -> Result<Option<Record>, VaultError> {
        let found = self.0.document(RECORD, &self.0.lookup_of(RECORD, id))?;
        Ok(found.as_ref().and_then(read_record))
    }

    /// The calls of a caller, the latest first.
    pub(super) fn records(self, caller: &Caller) -> Result<Vec<Record>, VaultError> {
        let documents = self.0.documents(RECORD, Some(&Owner::User(caller.user.clone())))?;
        let mut records: Vec<_> =
            documents.iter().filter_map(read_record).filter(|record| record.is_of(caller)).collect();
        records.sort_by_key(Record::key);
        Ok(records)
    }

    pub(super) async fn begin(self, record: &Record, caller: &Caller) -> Result<(), VaultError> {
        self.0.put_document(&self.document(RECORD, record, record, caller, 0)).await
    }

    /// Writes down the end of a call: first its answer, if that is to be kept, then that it has ended.
    pub(super) async fn end(self, record: &Record, caller: &Caller, answer: &Answer) -> Result<(), VaultError> {
        if !record.answer_lost {
            self.0.put_document(&self.document(ANSWER, record, answer, caller, 0)).await?;
        }
        self.0.replace_document(&self.document(RECORD, record, record, caller, record.revision)).await.map(drop)
    }

    pub(super) fn answer(self, id: &str) -> Result<Option<Answer>, VaultError> {
        let found = self.0.document(ANSWER, &self.0.lookup_of(ANSWER, id))?;
        Ok(found.as_ref().and_then(read))
    }

    /// Forgets a call that no key holds.
    pub(super) async fn forget(self, record: &Record) -> Result<(), VaultError> {
        self.0.take_document(RECORD, &self.0.lookup_of(RECORD, &record.id)).await?;
        self.0.take_document(ANSWER, &self.0.lookup_of(ANSWER, &record.id)).await.map(drop)
    }

    /// The keys under which this caller asked for calls.
    pub(super) fn keys(self, caller: &'a Caller) -> Keys<'a> {
        Keys { vault: self.0, route: "POST /v1/invocations", caller }
    }

    fn document(
        self,
        kind: &'static str,
        record: &Record,
        contents: &impl Serialize,
        caller: &Caller,
        revision: u64,
    ) -> Document {
        Document {
            kind,
            lookup: self.0.lookup_of(kind, &record.id),
            owner: Owner::User(caller.user.clone()),
            expires_at: Some(record.expires_at()),
            contents: serde_json::to_string(contents).unwrap_or_default().into(),
            revision: Generation(revision),
        }
    }
}

fn read<T: DeserializeOwned>(document: &Document) -> Option<T> {
    serde_json::from_str(&document.contents).ok()
}

fn read_record(document: &Document) -> Option<Record> {
    let mut record: Record = read(document)?;
    record.revision = document.revision.0;
    Some(record)
}
