//! Changes of tokens that the audit log has yet to tell of.
//!
//! A change leaves a sealed row in its own transaction: it can't happen without. The row goes once the log has the entry. A
//! process holds the rows of its changes for a while; those of one that has died are taken over by another, which first looks
//! whether the log has the entry already.
//!
//! A row that can't be read is set aside, so that it keeps no other from being told: it stays in the database under another
//! kind, and the log tells that there was one.

use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::connection::{Connection, later};
use super::datastore::{Apart, DocumentRow};
use super::document::{Document, Lookup};
use super::error::VaultError;
use super::vault::Vault;
use crate::audit::{AuditError, AuditLog, Change, Decision, Event, EventKind};
use crate::clock::{Timestamp, from_milliseconds, random};
use crate::id::{ChangeId, ConnectionId, Generation, Owner, Scope};

pub(super) const KIND: &str = "audit-outbox";
/// What rows become that can't be read.
const UNREADABLE: &str = "audit-unreadable";

/// How long a process holds a row. Long enough for any write of the log.
const HOLD: Duration = Duration::from_mins(1);
/// A process holds its own rows on when they have no longer than this.
const HOLD_ON: Duration = Duration::from_secs(10);

/// An entry that is written later than this says when it happened.
const LATE: Duration = Duration::from_secs(1);

/// So much earlier than a row says it was written an entry for it is looked for: two machines' clocks differ.
const SKEW: SignedDuration = SignedDuration::from_hours(1);

/// Why the audit log does not tell of a change yet. What is kept of it is told as soon as it can be.
#[derive(Debug, thiserror::Error)]
pub enum Untold {
    /// The log takes no entries.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The vault can't be read, or written.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

/// A row, as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Stored {
    kind: String,
    decision: String,
    user: Option<String>,
    provider: Option<String>,
    connection: Option<String>,
    scopes: Vec<String>,
    generation: Option<u64>,
    detail: Option<String>,
    /// In milliseconds.
    at: i64,
    /// Who writes the entry, and until when nobody else does.
    holder: String,
    until: i64,
}

impl Stored {
    fn event(&self, id: ChangeId, epoch: u64, now: Timestamp) -> Option<Event> {
        let at = from_milliseconds(self.at)?;
        let late = now.duration_since(at) > SignedDuration::try_from(LATE).unwrap_or_default();
        let late = late.then(|| format!("it happened at {at}"));
        let detail = [self.detail.clone(), late].into_iter().flatten().collect::<Vec<_>>().join("; ");
        Some(Event {
            kind: self.kind.parse().ok()?,
            decision: self.decision.parse().ok()?,
            user: self.user.as_deref().map(str::parse).transpose().ok()?,
            provider: self.provider.as_deref().map(str::parse).transpose().ok()?,
            connection: self.connection.as_deref().map(str::parse).transpose().ok()?,
            scopes: self.scopes.iter().map(|scope| scope.parse()).collect::<Result<Vec<Scope>, _>>().ok()?,
            generation: self.generation.map(Generation),
            epoch: Some(epoch),
            change: Some(id),
            detail: (!detail.is_empty()).then_some(detail),
            ..Event::default()
        })
    }
}

impl Vault {
    /// The row of a change of this connection, for the transaction that makes it.
    pub(super) async fn change(
        &self,
        kind: EventKind,
        decision: Decision,
        connection: &Connection,
        detail: Option<&str>,
    ) -> Result<DocumentRow, VaultError> {
        // The key that seals the tokens: where there is none, there is no change either.
        self.change_sealed_for(&connection.owner, kind, decision, connection, detail).await
    }

    /// The row of a connection's end. A key that is damaged keeps nobody from taking away what it seals: the agent's own seals
    /// the row then.
    pub(super) async fn change_of_end(&self, connection: &Connection) -> Result<DocumentRow, VaultError> {
        let (kind, decision) = (EventKind::Disconnected, Decision::Allowed);
        match self.change(kind, decision, connection, None).await {
            Err(error) if connection.owner != Owner::Agent => {
                tracing::warn!(%error, "a disconnect is told with the agent's key");
                self.change_sealed_for(&Owner::Agent, kind, decision, connection, None).await
            }
            change => change,
        }
    }

    async fn change_sealed_for(
        &self,
        owner: &Owner,
        kind: EventKind,
        decision: Decision,
        connection: &Connection,
        detail: Option<&str>,
    ) -> Result<DocumentRow, VaultError> {
        let stored = self.stored_of(kind, decision, connection, detail);
        self.new_row(owner, stored).await
    }

    fn stored_of(&self, kind: EventKind, decision: Decision, connection: &Connection, detail: Option<&str>) -> Stored {
        Stored {
            provider: Some(connection.provider.to_string()),
            connection: Some(connection.id.to_string()),
            scopes: connection.scopes.iter().map(ToString::to_string).collect(),
            generation: Some(connection.generation.0),
            detail: detail.map(str::to_owned),
            ..self.stored(kind, decision, Some(&connection.owner))
        }
    }

    /// One that happens now, with nothing else known of it.
    fn stored(&self, kind: EventKind, decision: Decision, owner: Option<&Owner>) -> Stored {
        Stored {
            kind: kind.as_str().to_owned(),
            decision: decision.as_str().to_owned(),
            user: owner.and_then(Owner::user).map(ToString::to_string),
            provider: None,
            connection: None,
            scopes: Vec::new(),
            generation: None,
            detail: None,
            at: self.clock.now().as_millisecond(),
            holder: String::new(),
            until: 0,
        }
    }

    async fn new_row(&self, owner: &Owner, mut stored: Stored) -> Result<DocumentRow, VaultError> {
        self.hold(&mut stored);
        let document = Document {
            kind: KIND,
            lookup: lookup(ChangeId::from_bytes(random(&*self.clock))),
            owner: owner.clone(),
            expires_at: None,
            contents: serde_json::to_string(&stored).unwrap_or_default().into(),
            revision: Generation(0),
        };
        self.document_row(&document, Generation(0)).await
    }

    fn hold(&self, stored: &mut Stored) {
        stored.holder = hex::encode(self.lessee);
        stored.until = later(self.clock.now(), HOLD).as_millisecond();
    }

    /// Brings the changes that the audit log does not tell of yet into it, in the order in which they happened.
    ///
    /// Those that another process holds are left to it. Where the log takes no entry the rest stays for later. A log that hangs
    /// is waited for two seconds at the most, and not at all while it is known to hang.
    pub async fn tell(&self, log: &AuditLog) -> Result<(), Untold> {
        // One at a time in this process. What is in the set has been written, and only its row is still there.
        let told = self.telling.lock().await;
        log.check_telling()?;
        let (mut changes, mut rows, mut failed) = (Vec::new(), Vec::new(), None);
        for Apart { number, record, read: row } in self.store.documents_apart(KIND)? {
            let owner = row.as_ref().ok().map(|row| row.owner.clone());
            let read = match row.map(|row| self.read_change(row)) {
                Ok(reading) => reading.await,
                Err(error) => Err(error),
            };
            let read = match read {
                Err(error) if is_for_good(&error) => self.set_aside(number, record, owner.as_ref(), &error).await,
                read => read,
            };
            match read {
                Ok(Some((change, lookup))) => {
                    rows.push((change.id, lookup));
                    changes.push(change);
                }
                Ok(None) => {}
                // It passes; the others are told all the same.
                Err(error) => failed = Some(error),
            }
        }
        let done = log.tell(changes, &told).await;
        for (id, lookup) in rows {
            if told.has(id) {
                self.store.take_document(KIND, lookup).await?;
                told.forget(id);
            }
        }
        done?;
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    /// How many changes could not be read when they were to be told, and were set aside.
    pub fn unreadable_changes(&self) -> Result<usize, VaultError> {
        self.store.count_documents(UNREADABLE)
    }

    /// What a row is to have told, where it is for this process to tell it.
    async fn read_change(&self, row: DocumentRow) -> Result<Option<(Change, Lookup)>, VaultError> {
        let lookup = row.lookup;
        let wrong =
            || VaultError::Value { table: "documents", column: "record", row: "a change to be told".to_owned() };
        let mut document = self.open_document(row)?.ok_or_else(wrong)?;
        let (now, epoch) = (self.clock.now(), self.epoch()?);
        let stored = serde_json::from_str::<Stored>(&document.contents).ok();
        let read =
            stored.zip(id_of(&lookup)).and_then(|(stored, id)| Some((stored.event(id, epoch, now)?, stored, id)));
        let (event, mut stored, id) = read.ok_or_else(wrong)?;
        let is_ours = stored.holder == hex::encode(self.lessee);
        let left = if is_ours { HOLD_ON } else { Duration::ZERO };
        let is_over = stored.until <= later(now, left).as_millisecond();
        if is_over {
            self.hold(&mut stored);
            document.contents = serde_json::to_string(&stored).unwrap_or_default().into();
            if !self.replace_document(&document).await? {
                // Another process was faster.
                return Ok(None);
            }
        } else if !is_ours {
            return Ok(None);
        }
        let until = Timestamp::from_millisecond(stored.until).unwrap_or(Timestamp::MAX);
        let at = Timestamp::from_millisecond(stored.at).unwrap_or(Timestamp::MIN);
        // Where the clock was set back since, an entry may have any time.
        let since = at.checked_sub(SKEW).ok().filter(|_| at <= now).unwrap_or(Timestamp::MIN);
        let taken_over = (!is_ours).then_some(since);
        Ok(Some((Change { id, event, taken_over, until }, lookup)))
    }

    /// Sets a row aside, and has the log told of that in its place.
    async fn set_aside(
        &self,
        number: i64,
        record: Vec<u8>,
        owner: Option<&Owner>,
        error: &VaultError,
    ) -> Result<Option<(Change, Lookup)>, VaultError> {
        tracing::error!(%error, "a change can't be told: it can't be read, and is set aside");
        let detail = "a change of tokens was to be told here, and its row in the vault can't be read";
        let stored = Stored {
            detail: Some(detail.to_owned()),
            ..self.stored(EventKind::ChangeUnreadable, Decision::Failed, owner)
        };
        let row = self.new_row(&Owner::Agent, stored).await?;
        if !self.store.set_document_aside(number, record, KIND, UNREADABLE, row.clone()).await? {
            // Another process was faster, or the row is another by now.
            return Ok(None);
        }
        self.read_change(row).await
    }

    /// The rows of the ends of all connections of an owner whose key is about to go, sealed for the agent.
    pub(super) async fn ends_for_the_agent(
        &self,
        owner: &Owner,
    ) -> Result<Vec<(ConnectionId, DocumentRow)>, VaultError> {
        let (kind, decision) = (EventKind::Disconnected, Decision::Allowed);
        let why = "all that the vault had of the user was removed; its tokens were not ended at the provider";
        let mut ends = Vec::new();
        for id in self.store.connection_ids(owner)? {
            let stored = match self.store.connection(id) {
                Ok(Some(row)) => self.stored_of(kind, decision, &row.connection, Some(why)),
                Ok(None) => continue,
                Err(error) if is_for_good(&error) => Stored {
                    connection: Some(id.to_string()),
                    detail: Some(why.to_owned()),
                    ..self.stored(kind, decision, Some(owner))
                },
                Err(error) => return Err(error),
            };
            ends.push((id, self.new_row(&Owner::Agent, stored).await?));
        }
        Ok(ends)
    }

    /// The rows of an owner whose key is about to go, sealed for the agent: what happened is told all the same. With each comes
    /// the revision that it replaces.
    pub(super) async fn changes_for_the_agent(
        &self,
        owner: &Owner,
    ) -> Result<Vec<(Generation, DocumentRow)>, VaultError> {
        let mut kept = Vec::new();
        for Apart { number, record, read } in self.store.documents_apart(KIND)? {
            let Some(row) = read.ok().filter(|row| row.owner == *owner) else { continue };
            let revision = row.revision;
            match self.open_document(row) {
                Ok(Some(document)) => {
                    let document = Document { owner: Owner::Agent, ..document };
                    kept.push((revision, self.document_row(&document, revision.next()).await?));
                }
                Ok(None) => {}
                Err(error) if is_for_good(&error) => drop(self.set_aside(number, record, Some(owner), &error).await?),
                Err(error) => return Err(error),
            }
        }
        Ok(kept)
    }
}

/// Whether trying again would change nothing.
fn is_for_good(error: &VaultError) -> bool {
    matches!(error, VaultError::Record { .. } | VaultError::NoKey { .. } | VaultError::Value { .. })
}

fn lookup(id: ChangeId) -> Lookup {
    let mut lookup = [0; 32];
    lookup.iter_mut().zip(id.as_bytes()).for_each(|(to, from)| *to = *from);
    lookup
}

fn id_of(lookup: &Lookup) -> Option<ChangeId> {
    lookup.first_chunk().copied().map(ChangeId::from_bytes)
}
