//! Changes of tokens: each is brought into the log once, and nobody waits for that longer than for anything else.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::clock::Timestamp;
use crate::id::ChangeId;

use super::event::Event;
use super::log::{AuditError, AuditLog, Shared};
use super::newest::{Newest, newest_since};

/// A change that is to be told.
#[derive(Debug)]
pub struct Change {
    /// Which one.
    pub id: ChangeId,
    /// Its entry.
    pub event: Event,
    /// Another process may have told it, at this time or later: it is looked for first.
    pub taken_over: Option<Timestamp>,
    /// From then on another process may tell it: this one doesn't any more.
    pub until: Timestamp,
}

/// The changes that the log tells of, as far as this process has written or found them. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Told(Arc<Mutex<HashSet<ChangeId>>>);

impl Told {
    /// Whether the log tells of it.
    pub fn has(&self, id: ChangeId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }

    /// Forgets one that won't be asked for any more.
    pub fn forget(&self, id: ChangeId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    fn add(&self, ids: impl IntoIterator<Item = ChangeId>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(ids);
    }
}

impl AuditLog {
    /// Whether changes can be told, as far as is known: not while what was to be told hangs.
    pub fn check_telling(&self) -> Result<(), AuditError> {
        if self.telling.is_stuck() { self.noted(Err(AuditError::Hanging)) } else { Ok(()) }
    }

    /// Brings these changes into the log, in their order, and notes in `told` which it has, also where not all could be written.
    ///
    /// It is done on a thread of its own, and waited for two seconds at the most. What hangs then goes on by itself, and as long
    /// as it does the next to ask gets [`AuditError::Hanging`] at once.
    pub async fn tell(&self, changes: Vec<Change>, told: &Told) -> Result<(), AuditError> {
        if changes.is_empty() {
            return Ok(());
        }
        let (shared, dir, told) = (Arc::clone(&self.shared), self.dir.clone(), told.clone());
        let done = self.telling.run(move || tell(&shared, dir.as_deref(), &changes, &told)).await;
        self.noted(done.flatten())
    }
}

fn tell(shared: &Shared, dir: Option<&Path>, changes: &[Change], told: &Told) -> Result<(), AuditError> {
    let taken_over: HashMap<_, _> = changes
        .iter()
        .filter(|change| change.taken_over.is_some() && !told.has(change.id))
        .map(|change| (change.id.to_string(), change.id))
        .collect();
    // A log in a sink of the embedding program can't be read.
    let mut unread = Ok(());
    if let (Some(dir), Some(since)) = (dir, changes.iter().filter_map(|change| change.taken_over).min())
        && !taken_over.is_empty()
    {
        match newest_since(dir, since).and_then(|mut entries| changes_among(&mut entries, taken_over)) {
            Ok(found) => told.add(found),
            Err(source) => unread = Err(AuditError::Folder { path: dir.to_owned(), source }),
        }
    }
    for change in changes {
        // Where it can't be told whether another process has told them, those of others wait, and hold up none of our own.
        if told.has(change.id) || unread.is_err() && change.taken_over.is_some() {
            continue;
        }
        if shared.clock.now() >= change.until {
            return Err(AuditError::Hanging);
        }
        shared.append(&change.event)?;
        told.add([change.id]);
    }
    unread
}

/// Those of these changes that the entries tell of. They are read once, and no further than to the last of these.
fn changes_among(entries: &mut Newest, mut wanted: HashMap<String, ChangeId>) -> io::Result<Vec<ChangeId>> {
    let mut found = Vec::new();
    while !wanted.is_empty()
        && let Some(entry) = entries.next()
    {
        found.extend(entry?.change.and_then(|change| wanted.remove(&change)));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn line(seq: u64, change: Option<ChangeId>) -> String {
        let time = Timestamp::from_second(1_800_000_000 + i64::try_from(seq).unwrap()).unwrap();
        let change = change.map(|id| format!(",\"change\":\"{id}\"")).unwrap_or_default();
        format!(
            "{{\"seq\":{seq},\"time\":\"{time}\",\"kind\":\"refreshed\",\"detail\":\"{}\"{change}}}\n",
            "x".repeat(200)
        )
    }

    #[test]
    fn changes_are_looked_for_once_and_not_before_they_happened() {
        let dir = tempfile::tempdir().unwrap();
        let ids: Vec<_> = (0..50).map(|n| ChangeId::from_bytes([n; 16])).collect();
        // An old one, a long time of other entries, and those that are looked for.
        let old = ChangeId::from_bytes([77; 16]);
        let lines: String = (0..20_000)
            .map(|seq| match seq {
                0 => line(seq, Some(old)),
                19_900.. => line(seq, ids.get(usize::try_from(seq - 19_900).unwrap()).copied()),
                _ => line(seq, None),
            })
            .collect();
        assert!(lines.len() > 4 << 20);
        fs::write(dir.path().join("a.jsonl"), &lines).unwrap();
        let wanted = |ids: &[ChangeId]| ids.iter().map(|id| (id.to_string(), *id)).collect();
        let since = Timestamp::from_second(1_800_000_000 + 19_800).unwrap();
        let mut entries = newest_since(dir.path(), since).unwrap();
        let mut found = changes_among(&mut entries, wanted(&[&ids[..], &[old]].concat())).unwrap();
        found.sort();
        assert_eq!(found, ids);
        assert!(entries.bytes_read() < 256 << 10, "{} bytes", entries.bytes_read());
        // Nothing more is read than the last one needs.
        let mut entries = newest_since(dir.path(), since).unwrap();
        assert_eq!(changes_among(&mut entries, wanted(&ids[49..])).unwrap(), ids[49..]);
        assert!(entries.bytes_read() < 64 << 10, "{} bytes", entries.bytes_read());
    }
}
