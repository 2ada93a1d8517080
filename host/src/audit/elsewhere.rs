//! A sink besides the log's own file: it gets the same lines, from a thread of its own, so that one that hangs holds up only
//! those who must wait for it.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::Clock;

use super::log::{AuditError, PATIENCE};
use super::sink::Sink;

/// Lines that wait for a sink that takes none. What comes then is not sent to it any more: the numbers of the entries tell.
const MOST_WAITING: usize = 10_000;
/// The pause before a line that was refused is offered again.
const RETRY: Duration = Duration::from_secs(1);

/// The number of a line among those for one sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket(u64);

pub(super) struct Elsewhere {
    line: Arc<Line>,
    thread: Option<JoinHandle<()>>,
}

/// The lines on their way to one sink.
pub(super) struct Line {
    name: String,
    sink: Box<dyn Sink>,
    strict: bool,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Signals the thread.
    work: Condvar,
    /// Signals those who wait for a line.
    done: Notify,
    /// Signals the end of the thread.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Arc<[u8]>>,
    /// The number of the next line.
    next: u64,
    /// So many have been taken.
    taken: u64,
    /// Since when the sink has the line that stands first.
    since: Option<Duration>,
    failed: Option<String>,
    closing: bool,
    ended: bool,
}

impl Elsewhere {
    pub(super) fn start(
        name: String,
        sink: Box<dyn Sink>,
        strict: bool,
        clock: Arc<dyn Clock>,
    ) -> std::io::Result<Self> {
        let line = Arc::new(Line {
            name,
            sink,
            strict,
            clock,
            state: Mutex::default(),
            work: Condvar::new(),
            done: Notify::new(),
            ended: Condvar::new(),
        });
        let thread = std::thread::Builder::new().name("audit-sink".to_owned()).spawn({
            let line = Arc::clone(&line);
            move || line.run()
        })?;
        Ok(Self { line, thread: Some(thread) })
    }

    pub(super) fn line(&self) -> Arc<Line> {
        Arc::clone(&self.line)
    }

    /// Whether it takes lines, as far as is known.
    pub(super) fn healthy(&self) -> Result<(), AuditError> {
        self.line.judge(&self.line.state())
    }

    /// Waits until it has the line.
    pub(super) async fn taken(&self, ticket: Ticket) -> Result<(), AuditError> {
        let too_long = self.line.clock.sleep(PATIENCE);
        tokio::pin!(too_long);
        loop {
            let done = self.line.done.notified();
            tokio::pin!(done);
            // Registered before the look, so that nothing is missed between the two.
            done.as_mut().enable();
            {
                let state = self.line.state();
                if state.taken > ticket.0 {
                    return Ok(());
                }
                self.line.judge(&state)?;
                if ticket == Ticket(u64::MAX) {
                    return Err(self.line.hanging());
                }
            }
            tokio::select! {
                () = done => {}
                () = &mut too_long => return Err(self.line.hanging()),
            }
        }
    }
}

impl Drop for Elsewhere {
    /// Waits a moment for the lines that are on their way.
    fn drop(&mut self) {
        let mut state = self.line.state();
        state.closing = true;
        self.line.work.notify_one();
        let waiting = |state: &mut State| !state.ended;
        let (state, _) =
            self.line.ended.wait_timeout_while(state, PATIENCE, waiting).unwrap_or_else(PoisonError::into_inner);
        let ended = state.ended;
        drop(state);
        if let Some(thread) = self.thread.take().filter(|_| ended) {
            // It panics nowhere; and if it did, there is nothing left to do about it here.
            let _ = thread.join();
        }
    }
}

impl Line {
    /// Hands a line over. It waits for nothing.
    pub(super) fn push(&self, line: &Arc<[u8]>) -> Ticket {
        let mut state = self.state();
        if state.waiting.len() >= MOST_WAITING {
            return Ticket(u64::MAX);
        }
        let ticket = Ticket(state.next);
        state.next = state.next.saturating_add(1);
        state.waiting.push_back(Arc::clone(line));
        drop(state);
        self.work.notify_one();
        ticket
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hanging(&self) -> AuditError {
        AuditError::ElsewhereHanging { sink: self.name.clone() }
    }

    fn judge(&self, state: &State) -> Result<(), AuditError> {
        if let Some(why) = &state.failed {
            return Err(AuditError::Elsewhere { sink: self.name.clone(), why: why.clone() });
        }
        match state.since {
            Some(since) if self.clock.monotonic().saturating_sub(since) >= PATIENCE => Err(self.hanging()),
            _ => Ok(()),
        }
    }

    fn run(&self) {
        let mut state = self.state();
        loop {
            state = self
                .work
                .wait_while(state, |state| !state.closing && state.waiting.is_empty())
                .unwrap_or_else(PoisonError::into_inner);
            let Some(line) = state.waiting.front().cloned() else { break };
            state.since = Some(self.clock.monotonic());
            drop(state);
            let taken = self.sink.append(&line).and_then(|()| if self.strict { self.sink.sync() } else { Ok(()) });
            state = self.state();
            state.since = None;
            match taken {
                Ok(()) => {
                    state.waiting.pop_front();
                    state.taken = state.taken.saturating_add(1);
                    state.failed = None;
                    self.done.notify_waiters();
                }
                Err(error) => {
                    if state.failed.is_none() {
                        tracing::error!(sink = self.name, %error, "an audit sink takes no entries; no token is released");
                    }
                    state.failed = Some(error.to_string());
                    self.done.notify_waiters();
                    if state.closing {
                        break;
                    }
                    let rest = |state: &mut State| !state.closing;
                    state = self.work.wait_timeout_while(state, RETRY, rest).unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
        state.ended = true;
        self.ended.notify_all();
    }
}
