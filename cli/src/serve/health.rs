//! Whether the process lives (`/healthz`), and whether it can do its work (`/readyz`): for load balancers and supervisors.
//!
//! Both are for anybody, by whatever name they call this host, and say one word for each part, and for one that is not well a
//! sentence that says what it means and who must act: no names, no paths. The cause stands in the log, and `clawcoil doctor` says it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use clawcoil::host::Host;
use serde::Serialize;

use super::{Anybody, App, Shared};
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
    /// What is not well.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<&'static str>,
}

/// They are not behind the check of `Host`: probes call by address.
pub(super) const ROUTES: [&str; 2] = ["/healthz", "/readyz"];

/// The two routes.
pub(super) fn router() -> Router<Shared> {
    let [alive, prepared] = ROUTES;
    Router::new()
        .route(
            alive,
            get(async |_: Anybody| answer(StatusCode::OK, &Body { status: "alive", parts: serde_json::Map::new() })),
        )
        .route(prepared, get(ready))
}

async fn ready(_: Anybody, State(app): State<Shared>) -> Response {
    let parts = app.health.parts(&app).await;
    let (code, status) =
        if parts.are_ready() { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not-ready") };
    answer(code, &Body { status, parts: Parted { parts, reasons: parts.reasons() } })
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

    /// What is not well, what follows, and who must act.
    fn reasons(self) -> Vec<&'static str> {
        let Self { datastore, key, policy, audit, runtime, server } = self;
        // A key opens nothing that can't be read.
        let key = if datastore == Word::Ok { key } else { Word::Ok };
        let said = [
            (
                datastore,
                "the vault's database can't be read, so nothing is answered that needs an account or a credential: the operator looks \
                 into the log, and runs `clawcoil doctor`",
            ),
            (
                key,
                "the vault's records don't open with the key of this process, so no token is used: the operator restores the vault that \
                 belongs to this agent, or restarts the server with the identity that the vault belongs to; `clawcoil doctor` says more",
            ),
            (
                policy,
                "the permissions on the disk have errors, and those before are in force: the operator runs `clawcoil policy check`",
            ),
            (
                audit,
                "the audit log takes no entries, so no token leaves: the operator looks into the log for its disk or its sinks, and runs \
                 `clawcoil doctor`",
            ),
            (runtime, "skills that don't end by themselves can't be ended: the operator restarts the server"),
            (server, "the server is stopping and takes no new work"),
        ];
        said.into_iter().filter(|(word, _)| *word != Word::Ok).map(|(_, reason)| reason).collect()
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
        assert!(well.reasons().is_empty());
        let outdated = Parts { policy: Word::Outdated, ..well };
        assert!(outdated.are_ready() && outdated.reasons().len() == 1);
        for bad in [
            Parts { datastore: Word::Failing, ..well },
            Parts { key: Word::Failing, ..well },
            Parts { audit: Word::Failing, ..well },
            Parts { runtime: Word::Failing, ..well },
            Parts { server: Word::Stopping, ..well },
        ] {
            assert!(!bad.are_ready(), "{bad:?}");
            assert_eq!(bad.reasons().len(), 1, "{bad:?}");
        }
    }
}
