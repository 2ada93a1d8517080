//! What happened in the sandbox, for whoever wants to see it arrive.

use std::collections::VecDeque;

use clawcoil::id::Digest;
use serde::Serialize;

/// More than this is not kept.
const KEPT: usize = 1000;

/// Something that reached one of the sandbox's APIs, or that the authorization server did.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Entry {
    /// When, as RFC 3339 has it.
    pub(crate) at: String,
    /// Which API, or `authorization`.
    pub(crate) api: &'static str,
    /// What happened, in words.
    pub(crate) what: String,
    /// For whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) person: Option<&'static str>,
    /// Eight digits of the access token's digest: enough to see that two requests came with different ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
    /// What arrived.
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    pub(crate) content: serde_json::Value,
}

/// The newest entries, oldest first.
#[derive(Debug, Default)]
pub(super) struct Journal(VecDeque<Entry>);

impl Journal {
    pub(super) fn add(&mut self, entry: Entry) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(entry);
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter()
    }
}

/// A name for a token that tells nothing of it.
pub(super) fn fingerprint(token: &str) -> String {
    let digest = Digest::of(token.as_bytes()).to_string();
    digest.trim_start_matches("sha256:").chars().take(8).collect()
}
