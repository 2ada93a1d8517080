//! The one thread that writes.
//!
//! Jobs that wait are committed together: one durable commit costs the disk the same for one as for a hundred. Each has a
//! savepoint of its own, so a job that fails takes nothing of its group with it. A job is answered after the commit.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use crate::vault::error::VaultError;

const GROUP: usize = 128;
const QUEUE: usize = 4096;

/// One change, with whoever waits for it.
trait Job: Send {
    /// Runs inside the transaction; whether its changes are to be kept.
    fn run(&mut self, connection: &Connection) -> bool;

    /// Answers, once it is known whether the commit failed.
    fn answer(self: Box<Self>, failed: Option<&rusqlite::Error>);
}

struct Change<R, F, A> {
    path: PathBuf,
    operation: &'static str,
    job: Option<F>,
    result: Option<Result<R, VaultError>>,
    answer: A,
}

impl<R, F, A> Job for Change<R, F, A>
where
    R: Send,
    F: FnOnce(&Connection) -> Result<R, VaultError> + Send,
    A: FnOnce(Result<R, VaultError>) + Send,
{
    fn run(&mut self, connection: &Connection) -> bool {
        self.result = self.job.take().map(|job| job(connection));
        matches!(self.result, Some(Ok(_)))
    }

    fn answer(self: Box<Self>, failed: Option<&rusqlite::Error>) {
        let result = match (self.result, failed) {
            // A job that failed by itself has its own error, whatever became of the others.
            (Some(Err(error)), _) => Err(error),
            (Some(Ok(value)), None) => Ok(value),
            (_, Some(error)) => Err(super::sqlite::failed(&self.path, self.operation, again(error))),
            (None, None) => Err(VaultError::Stopped(self.path)),
        };
        (self.answer)(result);
    }
}

/// A handle to the thread. The thread ends, and closes the database, when the handle is dropped.
#[derive(Debug)]
pub(super) struct Writer {
    path: PathBuf,
    jobs: Option<mpsc::Sender<Box<dyn Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    pub(super) fn start(path: &Path, connection: Connection) -> Result<Self, VaultError> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("vault-writer".to_owned())
            .spawn(move || run(connection, queue))
            .map_err(|source| VaultError::Io { operation: "start the writer of", path: path.into(), source })?;
        Ok(Self { path: path.into(), jobs: Some(jobs), thread: Mutex::new(Some(thread)) })
    }

    /// Runs a job and waits until it is durable. Dropping the future doesn't take the job back.
    pub(super) async fn write<R, F>(&self, operation: &'static str, job: F) -> Result<R, VaultError>
    where
        R: Send + 'static,
        F: FnOnce(&Connection) -> Result<R, VaultError> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let job = self.job(operation, job, move |result| {
            // Nobody waits when the caller's future was dropped.
            let _ = sender.send(result);
        });
        let stopped = || VaultError::Stopped(self.path.clone());
        let jobs = self.jobs.as_ref().ok_or_else(stopped)?;
        jobs.send(job).await.map_err(|_| stopped())?;
        receiver.await.map_err(|_| stopped())?
    }

    /// Queues a job whose outcome nobody needs; leaves it out when the queue is full.
    pub(super) fn write_later<F>(&self, operation: &'static str, job: F)
    where
        F: FnOnce(&Connection) -> Result<(), VaultError> + Send + 'static,
    {
        let job = self.job(operation, job, move |result: Result<(), VaultError>| {
            if let Err(error) = result {
                tracing::warn!(%error, operation, "a note in the vault was not written");
            }
        });
        if let Some(jobs) = &self.jobs {
            let _ = jobs.try_send(job);
        }
    }

    fn job<R, F, A>(&self, operation: &'static str, job: F, answer: A) -> Box<dyn Job>
    where
        R: Send + 'static,
        F: FnOnce(&Connection) -> Result<R, VaultError> + Send + 'static,
        A: FnOnce(Result<R, VaultError>) + Send + 'static,
    {
        Box::new(Change { path: self.path.clone(), operation, job: Some(job), result: None, answer })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // A panic of the thread was reported when it happened.
            let _ = thread.join();
        }
    }
}

fn run(mut connection: Connection, mut queue: mpsc::Receiver<Box<dyn Job>>) {
    let mut group = Vec::with_capacity(GROUP);
    while queue.blocking_recv_many(&mut group, GROUP) > 0 {
        let failed = commit(&mut connection, &mut group).err();
        for job in group.drain(..) {
            job.answer(failed.as_ref());
        }
    }
}

fn commit(connection: &mut Connection, group: &mut [Box<dyn Job>]) -> rusqlite::Result<()> {
    let mut transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for job in group {
        // Without a commit of its own a savepoint is rolled back when it is dropped.
        let savepoint = transaction.savepoint()?;
        if job.run(&savepoint) {
            savepoint.commit()?;
        }
    }
    transaction.commit()
}

/// One failure of a commit is told to each job of its group.
fn again(error: &rusqlite::Error) -> rusqlite::Error {
    match error {
        rusqlite::Error::SqliteFailure(code, message) => rusqlite::Error::SqliteFailure(*code, message.clone()),
        other => rusqlite::Error::ToSqlConversionFailure(other.to_string().into()),
    }
}
