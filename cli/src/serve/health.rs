//! Whether the process lives (`/healthz`), and whether it can do its work (`/readyz`): for load balancers and supervisors.
//!
//! Both are for anybody, by whatever name they call this host, and say one word for each part and no more: what is wrong in
//! detail stands in the log, and `clawcoil doctor` says it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use clawcoil::host::Host;
use serde::Serialize;

use super::{App, Shared};
use crate::exit::chain;

/// How long an answer holds: nobody makes the database work by asking often.
const HOLDS: Duration = Duration::from_secs(1);
/// How long the database may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// So long after an audit entry could not be written, the log counts as failing. Then a call may try again.
const AUDIT_PAUSE: Duration = Duration::from_secs(10);

/// What was found last, and when.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<Option<(Duration, Parts)>>);

/// How each part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Parts {
    /// The database answers.
    datastore: Word,
    /// Its records open with the key that this process holds.
    key: Word,
    /// The permissions. `outdated`: those in the files have errors, and the ones before are in force.
    policy: Word,
    /// The audit log takes entries.
    audit: Word,
    /// Guests that don't end by themselves can be ended.
    runtime: Word,
    /// Whether new work is taken.
    server: Word,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Ok,
    Failing,
    Outdated,
    Stopping,
}

#[derive(Debug, Serialize)]
struct Body<P> {
    status: &'static str,
    #[serde(flatten)]
    parts: P,
}

#[derive(Debug, Serialize)]
struct Parted {
    parts: Parts,
}

/// The two routes. They are not behind the check of `Host`: probes call by address.
pub(super) fn router() -> Router<Shared> {
    Router::new()
        .route(
            "/healthz",
            get(async || answer(StatusCode::OK, &Body { status: "alive", parts: serde_json::Map::new() })),
        )
        .route("/readyz", get(ready))
}

async fn ready(State(app): State<Shared>) -> Response {
    let parts = app.health.parts(&app).await;
    if parts.are_ready() {
        answer(StatusCode::OK, &Body { status: "ready", parts: Parted { parts } })
    } else {
        answer(StatusCode::SERVICE_UNAVAILABLE, &Body { status: "not-ready", parts: Parted { parts } })
    }
}

fn answer<P: Serialize>(status: StatusCode, body: &Body<P>) -> Response {
    (status, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

impl Health {
    async fn parts(&self, app: &App) -> Parts {
        let now = app.host.clock().monotonic();
        let known = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut parts = match known {
            Some((at, parts)) if now.saturating_sub(at) < HOLDS => parts,
            _ => {
                let parts = Parts::of(app).await;
                *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, parts));
                parts
            }
        };
        // This is known at no cost, and must be told at once.
        parts.server = if app.stopping.is_cancelled() { Word::Stopping } else { Word::Ok };
        parts
    }
}

impl Parts {
    async fn of(app: &App) -> Self {
        let (datastore, key, audit) = disks(&app.host).await;
        let good = |good: bool| if good { Word::Ok } else { Word::Failing };
        Self {
            datastore,
            key,
            policy: if app.changes.policy_is_outdated() { Word::Outdated } else { Word::Ok },
            audit: good(audit),
            runtime: good(app.host.runtime().is_healthy()),
            server: Word::Ok,
        }
    }

    fn are_ready(self) -> bool {
        let Self { datastore, key, policy, audit, runtime, server } = self;
        // With the permissions before, it does what it did before.
        let policy = if policy == Word::Outdated { Word::Ok } else { policy };
        [datastore, key, policy, audit, runtime, server].iter().all(|word| *word == Word::Ok)
    }
}

/// Whether the database answers, whether its key opens it, and whether the audit log takes entries.
async fn disks(host: &Arc<Host>) -> (Word, Word, bool) {
    let looking = tokio::task::spawn_blocking({
        let host = Arc::clone(host);
        // The first reads; the second opens what it has read.
        move || (host.vault().epoch(), host.vault().check(), host.audit().is_healthy(AUDIT_PAUSE))
    });
    match tokio::time::timeout(PATIENCE, looking).await {
        Ok(Ok((Ok(_), Ok(()), audit))) => (Word::Ok, Word::Ok, audit),
        Ok(Ok((Ok(_), Err(error), audit))) => {
            tracing::error!(error = chain(&error), "the vault's key does not open it");
            (Word::Ok, Word::Failing, audit)
        }
        Ok(Ok((Err(error), _, audit))) => {
            tracing::error!(error = chain(&error), "the vault's database can't be read");
            (Word::Failing, Word::Failing, audit)
        }
        Ok(Err(error)) => {
            tracing::error!(%error, "the vault could not be looked at");
            (Word::Failing, Word::Failing, false)
        }
        Err(_) => {
            tracing::error!("the vault's disk has not answered for {} s", PATIENCE.as_secs());
            (Word::Failing, Word::Failing, false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_part_that_fails_is_enough_and_an_older_policy_is_none() {
        let well = Parts {
            datastore: Word::Ok,
            key: Word::Ok,
            policy: Word::Ok,
            audit: Word::Ok,
            runtime: Word::Ok,
            server: Word::Ok,
        };
        assert!(well.are_ready());
        assert!(Parts { policy: Word::Outdated, ..well }.are_ready());
        for bad in [
            Parts { datastore: Word::Failing, ..well },
            Parts { key: Word::Failing, ..well },
            Parts { audit: Word::Failing, ..well },
            Parts { runtime: Word::Failing, ..well },
            Parts { server: Word::Stopping, ..well },
        ] {
            assert!(!bad.are_ready(), "{bad:?}");
        }
    }
}
