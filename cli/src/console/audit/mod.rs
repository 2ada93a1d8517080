//! The audit log: looked through, checked, taken along; and what one call did.

mod call;
mod export;
mod filter;
mod list;
mod verify;

use std::sync::Arc;

use clawcoil::audit::{self, Entry};
use clawcoil::clock::Timestamp;
use tokio::sync::Semaphore;

use super::moment::{Moment, took};
use super::words::shown;
use crate::serve::{App, Kind, Problem};

pub(super) use call::{own as own_call, show as call};
pub(super) use export::export;
pub(super) use list::{list, own};
pub(super) use verify::verify;

/// So many readers of the whole log at once: each costs the disk and a core.
const READERS: usize = 2;

/// Who may read the whole log now.
pub(super) struct Readers(Arc<Semaphore>);

impl Default for Readers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(READERS)))
    }
}

/// Reads the log on a thread that may wait for the disk.
async fn reading<T: Send + 'static>(
    app: &App,
    read: impl FnOnce(&std::path::Path, &clawcoil::secret::Key) -> T + Send + 'static,
) -> Result<T, Problem> {
    let permit =
        Arc::clone(&app.activity.readers.0).acquire_owned().await.map_err(|error| Problem::internal(&error))?;
    let (folder, key) = (app.host.home().audit(), app.host.vault().audit_key());
    let done = tokio::task::spawn_blocking(move || {
        let read = read(&folder, &key);
        drop(permit);
        read
    });
    done.await.map_err(|error| Problem::internal(&error))
}

fn unreadable(error: &std::io::Error) -> Problem {
    tracing::error!(%error, "the audit log can't be read");
    Problem::new(Kind::Unavailable, "the audit log can’t be read; the operator finds the reason in the server’s log")
}

/// An entry, for people.
struct Row {
    time: Moment,
    kind: String,
    decision: Option<String>,
    tone: &'static str,
    /// `gmail-send.send`
    skill: Option<String>,
    /// The service, or the provider.
    service: Option<String>,
    client: Option<String>,
    credential: Option<String>,
    connection: Option<String>,
    invocation: Option<String>,
    request: Option<String>,
    rule: Option<String>,
    detail: Option<String>,
    took: Option<String>,
    explanation: Option<String>,
    /// From where its call is looked for.
    near: Timestamp,
    /// Where it stands.
    chain: String,
    seq: u64,
}

impl From<Entry> for Row {
    fn from(entry: Entry) -> Self {
        let text = |value: Option<String>| value.as_deref().map(shown);
        let skill = entry.skill.as_ref().map(|skill| match &entry.tool {
            Some(tool) => shown(&format!("{skill}.{tool}")),
            None => skill.clone(),
        });
        let request = [entry.method.as_deref(), entry.origin.as_deref()];
        let request: Vec<&str> = request.into_iter().flatten().collect();
        Self {
            near: entry.latest(),
            time: Moment::at(entry.time),
            tone: match (entry.kind.as_str(), entry.decision.as_deref()) {
                (_, Some("denied")) => "warn",
                (_, Some("failed")) | ("refresh-failed" | "needs-reconnect" | "rejected", _) => "bad",
                ("released" | "revealed", _) => "info",
                _ => "",
            },
            kind: shown(&entry.kind),
            decision: text(entry.decision),
            skill,
            service: text(entry.service.or(entry.provider)),
            client: text(entry.client),
            credential: text(entry.credential),
            connection: text(entry.connection),
            invocation: text(entry.invocation),
            request: (!request.is_empty()).then(|| shown(&request.join(" "))),
            rule: entry.rule.as_deref().map(|rule| shown(rule.rsplit('/').next().unwrap_or(rule))),
            detail: text(entry.detail),
            took: entry.took_ms.map(took),
            explanation: text(entry.explanation),
            chain: shown(&entry.chain),
            seq: entry.seq,
        }
    }
}

/// The word for a kind, for people: `connect-asked` is `Connect asked`.
fn words(word: &str) -> String {
    let mut chars = word.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}", chars.as_str().replace('-', " "))
}

/// The choices of a filter: each word, how it is called, whether it is chosen.
fn choices(all: impl Iterator<Item = &'static str>, chosen: &str) -> Vec<(&'static str, String, bool)> {
    all.map(|word| (word, words(word), word == chosen)).collect()
}

fn kinds(chosen: &str) -> Vec<(&'static str, String, bool)> {
    choices(audit::EventKind::ALL.iter().map(|kind| kind.as_str()), chosen)
}

fn decisions(chosen: &str) -> Vec<(&'static str, String, bool)> {
    choices(audit::Decision::ALL.iter().map(|decision| decision.as_str()), chosen)
}
