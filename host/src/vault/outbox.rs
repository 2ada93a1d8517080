//! Changes of tokens that the audit log has yet to tell of.
//!
//! A change leaves a sealed row in its own transaction: it can't happen without. The row goes once the log has the entry. A
//! process holds the rows of its changes for a while; those of one that has died are taken over by another, which first looks
//! whether the log has the entry already.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::connection::{Connection, later};
use super::datastore::DocumentRow;
use super::document::{Document, Lookup};
use super::error::VaultError;
use super::vault::Vault;
use crate::audit::{AuditError, AuditLog, Decision, Event, EventKind};
use crate::clock::{Timestamp, random};
use crate::id::{ChangeId, Generation, Scope};

const KIND: &str = "audit-outbox";

/// How long a process holds a row. Long enough for any write of the log.
const HOLD: Duration = Duration::from_mins(1);

/// An entry that is written later than this says when it happened.
const LATE: Duration = Duration::from_secs(1);

/// Why the audit log does not tell of a change yet. It will, as soon as it can.
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
    provider: String,
    connection: String,
    scopes: Vec<String>,
    generation: u64,
    detail: Option<String>,
    /// In milliseconds.
    at: i64,
    /// Who writes the entry, and until when nobody else does.
    holder: String,
    until: i64,
}

impl Stored {
    fn event(&self, id: ChangeId, epoch: u64, now: Timestamp) -> Option<Event> {
        let at = Timestamp::from_millisecond(self.at).ok()?;
        let late = now.duration_since(at) > jiff::SignedDuration::try_from(LATE).unwrap_or_default();
        let late = late.then(|| format!("it happened at {at}"));
        let detail = [self.detail.clone(), late].into_iter().flatten().collect::<Vec<_>>().join("; ");
        Some(Event {
            kind: self.kind.parse().ok()?,
            decision: self.decision.parse().ok()?,
            user: self.user.as_deref().map(str::parse).transpose().ok()?,
            provider: Some(self.provider.parse().ok()?),
            connection: Some(self.connection.parse().ok()?),
            scopes: self.scopes.iter().map(|scope| scope.parse()).collect::<Result<Vec<Scope>, _>>().ok()?,
            generation: Some(Generation(self.generation)),
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
        let id = ChangeId::from_bytes(random(&*self.clock));
        let mut stored = Stored {
            kind: kind.as_str().to_owned(),
            decision: decision.as_str().to_owned(),
            user: connection.owner.user().map(ToString::to_string),
            provider: connection.provider.to_string(),
            connection: connection.id.to_string(),
            scopes: connection.scopes.iter().map(ToString::to_string).collect(),
            generation: connection.generation.0,
            detail: detail.map(str::to_owned),
            at: self.clock.now().as_millisecond(),
            holder: String::new(),
            until: 0,
        };
        self.hold(&mut stored);
        let document = Document {
            kind: KIND,
            lookup: lookup(id),
            // The key that seals the tokens: where there is none, there is no change either.
            owner: connection.owner.clone(),
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
    /// Those that another process holds are left to it. Where the log takes no entry the rest stays for later.
    pub async fn tell(&self, log: &AuditLog) -> Result<(), Untold> {
        // One at a time in this process. What is in the set has been written, and only its row is still there.
        let mut written = self.telling.lock().await;
        for row in self.store.documents(KIND, None)? {
            // One that was tampered with must not keep the others from being told.
            let opened = self.open_document(row).inspect_err(|error| tracing::warn!(%error, "a change can't be told"));
            let Ok(Some(mut document)) = opened else { continue };
            let Ok(mut stored) = serde_json::from_str::<Stored>(&document.contents) else { continue };
            let Some(id) = id_of(&document.lookup) else { continue };
            let is_ours = stored.holder == hex::encode(self.lessee);
            let now = self.clock.now();
            if stored.until <= now.as_millisecond() {
                self.hold(&mut stored);
                document.contents = serde_json::to_string(&stored).unwrap_or_default().into();
                if !self.replace_document(&document).await? {
                    // Another process was faster.
                    continue;
                }
                if !is_ours && log.tells_of(id)? {
                    written.insert(id);
                }
            } else if !is_ours {
                continue;
            }
            if !written.contains(&id) {
                let Some(event) = stored.event(id, self.epoch()?, now) else { continue };
                log.append(&event)?;
                written.insert(id);
            }
            self.take_document(KIND, &document.lookup).await?;
            written.remove(&id);
        }
        Ok(())
    }
}

fn lookup(id: ChangeId) -> Lookup {
    let mut lookup = [0; 32];
    lookup.iter_mut().zip(id.as_bytes()).for_each(|(to, from)| *to = *from);
    lookup
}

fn id_of(lookup: &Lookup) -> Option<ChangeId> {
    lookup.first_chunk().copied().map(ChangeId::from_bytes)
}
