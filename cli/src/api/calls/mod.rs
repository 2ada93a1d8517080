//! Calls that outlive the request that asked for them: those that are answered before they end, and those with a key.
//!
//! ```text
//! asked for → key claimed → record written → runs → answer written → record says that it has ended
//! ```
//!
//! A call that nobody wants to hear of later, which is the usual one, is not among them and writes nothing. A process that ends
//! while a call runs leaves a record that says so: such a call is never run again by itself, nor by a retry with its key. Its
//! outcome is told to be unknown.

mod alive;
mod stored;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use clawcoil::clock::random;
use clawcoil::host::{Host, Outcome};
use clawcoil::id::{Caller, InvocationId, SkillName};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::answer::{self, Answer};
use super::key::{Key, used_otherwise};
use crate::serve::{App, Kind, Problem, RequestId, Shared, Working};
use alive::Process;
use stored::{Claim, Store};

pub(crate) use stored::{MEMORY, Record, State};

/// Calls of one caller that may run at the same time, of those that are kept.
const MOST_RUNNING: usize = 32;
/// Calls of one caller that are kept, and the bytes of their answers.
const MOST_KEPT: usize = 1_000;
const MOST_BYTES: usize = 32 << 20;

/// A call that is asked for.
pub(super) struct NewCall {
    pub(super) caller: Caller,
    pub(super) skill: SkillName,
    pub(super) tool: Option<String>,
    pub(super) input: Value,
    /// After which it is ended, if that is before its own limit.
    pub(super) timeout: Option<Duration>,
}

/// A call that has its place among those that are kept.
pub(super) struct Kept {
    /// As it began.
    pub(super) record: Record,
    /// Cancelled when the call has ended.
    pub(super) done: CancellationToken,
    /// Its answer, once it has ended, also where that is too large to be kept.
    answer: Arc<OnceLock<Answer>>,
}

/// What a request with a key comes to.
pub(super) enum Begun {
    /// The call began.
    New(Kept),
    /// The same request came before.
    Before(Box<Record>),
}

/// The calls of this process that outlive their requests.
pub(crate) struct Calls {
    running: Mutex<HashMap<InvocationId, Running>>,
    process: OnceLock<Process>,
    /// Cancelled when what still runs has to end.
    stop: CancellationToken,
}

struct Running {
    caller: Caller,
    cancel: CancellationToken,
    done: CancellationToken,
}

impl Calls {
    pub(crate) fn new() -> Self {
        Self { running: Mutex::default(), process: OnceLock::new(), stop: CancellationToken::new() }
    }

    /// Begins a call and goes on without waiting for its end.
    pub(super) async fn begin(&self, app: &Shared, new: NewCall, key: Option<Key>) -> Result<Begun, Problem> {
        let store = Store(app.host.vault());
        let process = self.process(&app.host)?.to_owned();
        let id = app.host.new_invocation();
        let now = app.host.clock().now();
        let asked = (new.skill.as_str(), new.tool.as_deref());
        let record = Record::new(id, &new.caller, asked, key.is_some(), &process, now);
        if let Some(key) = &key {
            let claim = Claim { request: answer::digest(&new), id: id.to_string(), process: process.clone() };
            // What is known already needs no place.
            if let Some(before) = store.keys(&new.caller).claim(key, &claim, record.expires_at()).await? {
                return self.before(app, &new.caller, &before, &claim).map(|record| Begun::Before(Box::new(record)));
            }
        }
        let begun = self.enter(app, &new.caller, id).await;
        let begun = match begun {
            Ok(place) => store.begin(&record, &new.caller).await.map(|()| place).map_err(Problem::from),
            Err(problem) => Err(problem),
        };
        let place = match begun {
            Ok(place) => place,
            Err(problem) => {
                self.leave(id);
                if let Some(key) = &key {
                    store.keys(&new.caller).release(key).await?;
                }
                return Err(problem);
            }
        };
        let kept = Kept { record: record.clone(), done: place.done.clone(), answer: Arc::default() };
        let working = app.under_way.begin();
        let running = Call {
            app: Arc::clone(app),
            new,
            key,
            record,
            id,
            answer: Arc::clone(&kept.answer),
            place,
            _working: working,
        };
        tokio::spawn(RequestId::carry(running.run()));
        Ok(Begun::New(kept))
    }

    /// What became of the request that used the key before.
    fn before(&self, app: &App, caller: &Caller, claim: &Claim, asked: &Claim) -> Result<Record, Problem> {
        if claim.request != asked.request {
            return Err(used_otherwise());
        }
        if let Some(record) = self.find(app, caller, &claim.id)? {
            return Ok(record);
        }
        if claim.process == asked.process || alive::is_alive(app.host.home().folder(), &claim.process) {
            return Err(still_running(&claim.id));
        }
        Err(outcome_unknown(&claim.id))
    }

    /// A call of this caller, as it stands.
    pub(super) fn find(&self, app: &App, caller: &Caller, id: &str) -> Result<Option<Record>, Problem> {
        let record = Store(app.host.vault()).record(id)?.filter(|record| record.is_of(caller));
        Ok(record.map(|record| self.judged(app, record)))
    }

    /// The calls of this caller, the latest first.
    pub(super) fn list(&self, app: &App, caller: &Caller) -> Result<Vec<Record>, Problem> {
        let records = Store(app.host.vault()).records(caller)?;
        Ok(records.into_iter().map(|record| self.judged(app, record)).collect())
    }

    /// What came of a call that has ended. `None`: its answer was too large to be kept.
    pub(super) fn answer(app: &App, record: &Record) -> Result<Option<Answer>, Problem> {
        Ok(Store(app.host.vault()).answer(record.id())?)
    }

    /// Ends a call that runs here, and waits until it has ended.
    pub(super) async fn cancel(&self, id: &InvocationId) -> bool {
        let found = self.running().get(id).map(|running| (running.cancel.clone(), running.done.clone()));
        let Some((cancel, done)) = found else { return false };
        cancel.cancel();
        done.cancelled().await;
        true
    }

    /// Waits for the end of a call that runs here, but not longer than this.
    pub(super) async fn wait(&self, id: &str, longest: Duration) {
        let found = id.parse().ok().and_then(|id| self.running().get(&id).map(|running| running.done.clone()));
        if let Some(done) = found {
            // Either way, how the call stands is looked at afterwards.
            let _ = tokio::time::timeout(longest, done.cancelled()).await;
        }
    }

    /// Lets the calls that run end by themselves for so long, and then ends them.
    pub(crate) async fn end(&self, within: Duration) {
        let all: Vec<_> = self.running().values().map(|running| running.done.clone()).collect();
        let ended = async {
            for done in &all {
                done.cancelled().await;
            }
        };
        if tokio::time::timeout(within, ended).await.is_err() {
            self.stop.cancel();
            for done in &all {
                done.cancelled().await;
            }
        }
    }

    /// A record that says that its call runs, where nobody runs it, is what a process left that is gone.
    fn judged(&self, app: &App, mut record: Record) -> Record {
        if record.state != State::Running {
            return record;
        }
        let here = self.process.get().is_some_and(|process| process.name() == record.process);
        let runs = if here {
            record.id().parse().is_ok_and(|id| self.running().contains_key(&id))
        } else {
            alive::is_alive(app.host.home().folder(), &record.process)
        };
        if !runs {
            record.state = State::Unknown;
        }
        record
    }

    fn process(&self, host: &Host) -> Result<&str, Problem> {
        if let Some(process) = self.process.get() {
            return Ok(process.name());
        }
        let name = format!("{:016x}", u64::from_ne_bytes(random::<8>(host.clock().as_ref())));
        let process = Process::begin(host.home().folder(), name).map_err(|error| {
            tracing::error!(%error, "the folder `processes` in the home can't be written, so no call can be kept");
            Problem::internal(&error)
        })?;
        // One that another request has made in the meantime is as good, and this one is removed again.
        Ok(self.process.get_or_init(|| process).name())
    }

    /// Gives a call its place among those of its caller.
    async fn enter(&self, app: &App, caller: &Caller, id: InvocationId) -> Result<Place, Problem> {
        if self.stop.is_cancelled() || app.stopping.is_cancelled() {
            return Err(Problem::new(Kind::Unavailable, "the host is stopping").retry_after(Duration::from_secs(5)));
        }
        let place = {
            let mut running = self.running();
            if running.values().filter(|running| running.caller == *caller).count() >= MOST_RUNNING {
                let detail = format!("{MOST_RUNNING} calls of this caller run already that are answered later");
                return Err(Problem::new(Kind::TooMany, detail).retry_after(Duration::from_secs(1)));
            }
            let (cancel, done) = (self.stop.child_token(), CancellationToken::new());
            let entry = Running { caller: caller.clone(), cancel: cancel.clone(), done: done.clone() };
            running.insert(id, entry);
            Place { cancel, done }
        };
        make_room(app, caller).await.map(|()| place)
    }

    fn leave(&self, id: InvocationId) {
        if let Some(running) = self.running().remove(&id) {
            running.done.cancel();
        }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<InvocationId, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Waits for the end, and takes what came of it.
    pub(super) async fn ended(&self) -> Option<Answer> {
        self.done.cancelled().await;
        self.answer.get().cloned()
    }
}

/// The place of a call that runs.
struct Place {
    cancel: CancellationToken,
    done: CancellationToken,
}

/// Forgets the oldest calls of a caller that no key holds, until there is room for one more.
async fn make_room(app: &App, caller: &Caller) -> Result<(), Problem> {
    let store = Store(app.host.vault());
    let records = store.records(caller)?;
    let (mut kept, mut bytes) = (records.len(), records.iter().map(|record| record.bytes).sum::<usize>());
    for record in records.iter().rev() {
        if kept < MOST_KEPT && bytes < MOST_BYTES {
            return Ok(());
        }
        if record.keyed || record.state == State::Running {
            continue;
        }
        store.forget(record).await?;
        (kept, bytes) = (kept - 1, bytes.saturating_sub(record.bytes));
    }
    if kept < MOST_KEPT && bytes < MOST_BYTES {
        return Ok(());
    }
    let oldest = records.last().map(Record::expires_at);
    let wait = oldest.map(|at| at.duration_since(app.host.clock().now()).unsigned_abs()).unwrap_or_default();
    let detail =
        "as many answers as one caller may have are kept for its Idempotency-Keys; call without a key, or later";
    Err(Problem::new(Kind::TooMany, detail).retry_after(wait))
}

/// A call under way.
struct Call {
    app: Shared,
    new: NewCall,
    key: Option<Key>,
    record: Record,
    id: InvocationId,
    answer: Arc<OnceLock<Answer>>,
    place: Place,
    /// A server that stops waits for it.
    _working: Working,
}

impl Call {
    async fn run(mut self) {
        // Whatever happens, whoever waits hears that it is over.
        let app = Arc::clone(&self.app);
        let _left = Left { calls: &app.calls, id: self.id };
        let called = tokio::select! {
            biased;
            // Dropping the call is what ends the skill.
            () = self.place.cancel.cancelled() => None,
            called = invoke(&app, self.id, &self.new) => Some(called),
        };
        let has_run = !matches!(called, Some(Came::NotRun(_)));
        let (state, answer) = match called {
            None => (State::Cancelled, answer::problem(&self.cancelled())),
            Some(Came::Ended(outcome)) => answer::ended(*outcome),
            Some(Came::TimedOut(problem) | Came::NotRun(problem)) => {
                let problem = problem.with("invocation", Value::from(self.record.id()));
                (State::Failed, answer::problem(&problem))
            }
        };
        let store = Store(app.host.vault());
        let bytes = serde_json::to_string(&answer).map_or(usize::MAX, |text| text.len());
        self.record.ended(state, app.host.clock().now(), bytes);
        if let Err(error) = store.end(&self.record, &self.new.caller, &answer).await {
            tracing::error!(error = &error as &dyn std::error::Error, "the end of a call could not be written down");
        }
        // Nothing of the skill has run: once the reason is gone, the same request may be sent again.
        if let Some(key) = self.key.as_ref().filter(|_| !has_run)
            && let Err(error) = store.keys(&self.new.caller).release(key).await
        {
            tracing::error!(error = &error as &dyn std::error::Error, "a key could not be let go of");
        }
        let _ = self.answer.set(answer);
    }

    fn cancelled(&self) -> Problem {
        let detail = if self.app.calls.stop.is_cancelled() {
            "the host stopped before the call ended; what it had done by then stays done"
        } else {
            "the call was cancelled; what it had done by then stays done"
        };
        Problem::new(Kind::Conflict, detail)
    }
}

/// Tells that a call is over when it is dropped.
struct Left<'a> {
    calls: &'a Calls,
    id: InvocationId,
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        self.calls.leave(self.id);
    }
}

/// What came of a call.
pub(super) enum Came {
    /// The skill has ended, one way or another.
    Ended(Box<Outcome>),
    /// The time was over that the caller gave it.
    TimedOut(Problem),
    /// Nothing of the skill has run.
    NotRun(Problem),
}

/// Calls the tool, for as long as the caller lets it run.
pub(super) async fn invoke(app: &App, id: InvocationId, new: &NewCall) -> Came {
    let NewCall { caller, skill, tool, input, timeout } = new;
    let call = app.host.invoke_as(id, caller, skill, tool.as_deref(), input);
    let called = match timeout {
        None => call.await,
        Some(timeout) => {
            let Ok(called) = tokio::time::timeout(*timeout, call).await else {
                let why = format!("it did not end within {timeout:?}, which is what its caller gave it");
                return Came::TimedOut(answer::failed(&id, &why));
            };
            called
        }
    };
    match called {
        Ok(outcome) => Came::Ended(Box::new(outcome)),
        Err(error) => Came::NotRun(error.into()),
    }
}

/// A retry comes while the first request is still worked on.
pub(super) fn still_running(id: &str) -> Problem {
    Problem::new(Kind::Conflict, "the first request with this Idempotency-Key is still under way")
        .with("invocation", Value::from(id))
        .with_header(axum::http::header::LOCATION, &format!("/v1/invocations/{id}"))
        .retry_after(Duration::from_secs(1))
}

/// The process that made a call is gone.
pub(super) fn outcome_unknown(id: &str) -> Problem {
    let detail = "the host ended while the call ran, and nobody knows what it had done by then: look at the account, or in the audit \
                  log, before you call again with a new key";
    Problem::new(Kind::OutcomeUnknown, detail).with("invocation", Value::from(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A call of this caller that has ended, as if its answer were this large.
    async fn kept(app: &App, caller: &Caller, keyed: bool, age: i64, bytes: usize) -> Record {
        let now = app.host.clock().now().saturating_sub(Duration::from_secs(age.unsigned_abs())).unwrap();
        let mut record = Record::new(app.host.new_invocation(), caller, ("skill", None), keyed, "none", now);
        let store = Store(app.host.vault());
        store.begin(&record, caller).await.unwrap();
        record.ended(State::Succeeded, now, 2);
        record.bytes = bytes;
        store.end(&record, caller, &Answer::default()).await.unwrap();
        record
    }

    #[tokio::test]
    async fn the_oldest_answers_make_room_unless_a_key_holds_them() {
        let (_folder, app) = super::super::tests::app().await;
        let caller = |user: &str| Caller::new("bot".parse().unwrap(), user.parse().unwrap());
        let (alice, bob) = (caller("alice"), caller("bob"));
        let size = MOST_BYTES / 4;
        let held = kept(&app, &alice, true, 50, size).await;
        let oldest = kept(&app, &alice, false, 40, size).await;
        let younger = kept(&app, &alice, false, 30, size).await;
        make_room(&app, &alice).await.unwrap();
        let there = |record: &Record, caller: &Caller| app.calls.find(&app, caller, record.id()).unwrap().is_some();
        assert!(there(&held, &alice) && there(&oldest, &alice) && there(&younger, &alice), "there is room");

        kept(&app, &bob, false, 60, size).await;
        kept(&app, &alice, true, 20, size).await;
        make_room(&app, &alice).await.unwrap();
        assert!(!there(&oldest, &alice) && there(&held, &alice) && there(&younger, &alice));
        assert!(Calls::answer(&app, &oldest).unwrap().is_none());

        // What keys hold stays until it expires.
        kept(&app, &alice, true, 10, size).await;
        kept(&app, &alice, true, 5, size).await;
        let refused = make_room(&app, &alice).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::TooMany);
        let wait = refused.to_json()["retry_after"].as_u64().unwrap();
        assert!((86_340..=86_350).contains(&wait), "until the oldest is forgotten: {wait}");
        make_room(&app, &bob).await.unwrap();
    }
}
