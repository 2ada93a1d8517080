//! What happens, as it happens: read from the audit log, whichever process writes it, and kept in memory for a day.
//!
//! Nothing is read before somebody looks. Then a follower reads the end of each file of the log once, and what is added to
//! them from then on, until the server stops.

mod follow;
mod plot;
mod series;
mod view;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clawcoil::audit::Entry;
use clawcoil::clock::Timestamp;
use tokio::sync::{OnceCell, broadcast};

use super::audit::Readers;
use super::events::Listeners;
use crate::serve::{App, Shared};
use follow::Follower;
use series::Series;

pub(super) use plot::Plot;
use series::Range;
pub(super) use series::Totals;
pub(super) use view::{Glance, show};

/// How often is looked for new entries.
const EVERY: Duration = Duration::from_millis(500);
/// A listener that is slower than this many bursts looks at everything.
const BACKLOG: usize = 64;

/// A burst of new entries.
#[derive(Debug, Clone, Default)]
pub(super) struct Heard {
    /// The tags of the users whom they are about.
    pub(super) users: Arc<[String]>,
}

/// The day so far, and who is told when something is added. It starts when somebody looks.
pub(crate) struct Activity {
    series: Arc<Mutex<Series>>,
    heard: broadcast::Sender<Heard>,
    started: OnceCell<()>,
    /// The pages that are told.
    pub(super) listeners: Listeners,
    /// Who may read the whole log.
    pub(super) readers: Readers,
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            series: Arc::default(),
            heard: broadcast::channel(BACKLOG).0,
            started: OnceCell::new(),
            listeners: Listeners::default(),
            readers: Readers::default(),
        }
    }
}

impl Activity {
    /// Reads what happened before, and follows from then on. The first who asks waits for it.
    pub(super) async fn followed(app: &Shared) -> &Self {
        let this = &app.activity;
        this.started
            .get_or_init(|| async {
                let follower = Follower::of(app.host.home().audit());
                let now = app.host.clock().now();
                let (follower, entries) = read(follower, now).await;
                this.add(entries);
                tokio::spawn(follow(Arc::clone(app), follower));
            })
            .await;
        this
    }

    /// What is added from now on. `Lagged` means: look at everything.
    pub(super) fn subscribe(&self) -> broadcast::Receiver<Heard> {
        self.heard.subscribe()
    }

    fn series(&self) -> std::sync::MutexGuard<'_, Series> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, entries: Vec<Entry>) {
        if entries.is_empty() {
            return;
        }
        {
            let mut series = self.series();
            for entry in &entries {
                series.add(entry);
            }
        }
        let mut users: Vec<String> = entries.into_iter().filter_map(|entry| entry.user).collect();
        users.sort_unstable();
        users.dedup();
        // Nobody listens: nobody has to be told.
        let _ = self.heard.send(Heard { users: users.into() });
    }
}

async fn read(mut follower: Follower, now: Timestamp) -> (Follower, Vec<Entry>) {
    let folder = follower.folder().to_owned();
    let done = tokio::task::spawn_blocking(move || {
        let entries = follower.read(now);
        (follower, entries)
    });
    match done.await {
        Ok((follower, Ok(entries))) => (follower, entries),
        Ok((follower, Err(error))) => {
            tracing::warn!(%error, folder = %folder.display(), "the audit log can't be followed");
            (follower, Vec::new())
        }
        Err(_) => (Follower::of(folder), Vec::new()),
    }
}

async fn follow(app: Shared, mut follower: Follower) {
    loop {
        tokio::select! {
            () = app.stopping.cancelled() => return,
            () = app.host.clock().sleep(EVERY) => {}
        }
        let (next, entries) = read(follower, app.host.clock().now()).await;
        follower = next;
        app.activity.add(entries);
    }
}

/// The tag under which the log has a user.
pub(super) fn tag(app: &App, user: &clawcoil::id::UserId) -> String {
    clawcoil::audit::user_tag(&app.host.vault().audit_key(), user)
}

/// Whether a file is one of the log's.
fn is_chain(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "jsonl")
}
