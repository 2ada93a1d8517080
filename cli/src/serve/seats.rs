//! Places for connections, of which there are so many and no more.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// All places of one listener.
pub(super) struct Seats {
    free: Arc<Semaphore>,
    /// How many new connections wait for a place.
    waiting: AtomicUsize,
    /// How often a connection has begun to wait for its client.
    idled: AtomicU64,
    taken: Mutex<Taken>,
}

/// The connections that have a place. Requests don't touch this, only connections that come or go, and those that need room.
#[derive(Default)]
struct Taken {
    connections: BTreeMap<u64, Arc<Connection>>,
    came: u64,
}

struct Connection {
    state: AtomicU64,
    lost: CancellationToken,
}

/// With a request.
const WORKING: u64 = 0;
/// Its answer is whole, but perhaps not sent yet.
const ANSWERED: u64 = 1;
/// Its place is another's.
const LOST: u64 = 2;
/// From here on it waits for its client: without a request, or with half of one. Who has waited longest has the smallest number.
const IDLE: u64 = 3;

impl Connection {
    /// Lets it go on from where it waits, if it has not lost its place, which is all that others do to it.
    fn leave(&self, idle: u64, to: u64) -> Option<()> {
        self.state.compare_exchange(idle, to, SeqCst, SeqCst).ok().map(|_| ())
    }

    fn lose(&self, idle: u64) -> Option<()> {
        self.leave(idle, LOST)?;
        self.lost.cancel();
        Some(())
    }
}

/// The place of one connection, free again when this is dropped.
pub(super) struct Seat {
    seats: Arc<Seats>,
    number: u64,
    connection: Arc<Connection>,
    _permit: Option<OwnedSemaphorePermit>,
}

/// A request on a connection, until its answer is whole.
pub(super) struct Busy(Arc<Seat>);

impl Seats {
    pub(super) fn new(places: usize) -> Arc<Self> {
        Arc::new(Self {
            free: Arc::new(Semaphore::new(places)),
            waiting: AtomicUsize::new(0),
            idled: AtomicU64::new(IDLE),
            taken: Mutex::default(),
        })
    }

    /// A place. Where there is none, the connection that has been idle for the longest time loses its own; where none is idle,
    /// the first that becomes so.
    pub(super) async fn take(self: &Arc<Self>) -> Seat {
        let permit = if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
            Some(permit)
        } else {
            let _waiting = Waiting::begin(self);
            // It is never closed.
            Arc::clone(&self.free).acquire_owned().await.ok()
        };
        let connection = Arc::new(Connection { state: AtomicU64::new(ANSWERED), lost: CancellationToken::new() });
        let number = {
            let mut taken = self.taken();
            let number = taken.came;
            taken.came += 1;
            taken.connections.insert(number, Arc::clone(&connection));
            number
        };
        let seat = Seat { seats: Arc::clone(self), number, connection, _permit: permit };
        seat.flushed();
        seat
    }

    /// Ends all connections that have no request.
    pub(super) fn clear(&self) {
        for connection in self.taken().connections.values() {
            let state = connection.state.load(SeqCst);
            if state >= IDLE {
                connection.lose(state);
            }
        }
    }

    /// The longest idle connection goes.
    fn make_room(&self) {
        let taken = self.taken();
        let longest = || {
            let idle = taken.connections.values().map(|connection| (connection.state.load(SeqCst), connection));
            idle.filter(|(state, _)| *state >= IDLE).min_by_key(|(state, _)| *state)
        };
        // One that goes on in this very moment keeps its place.
        while let Some((state, connection)) = longest() {
            if connection.lose(state).is_some() {
                metrics::counter!("clawcoil_limits_hit_total", "limit" => "connections").increment(1);
                return;
            }
        }
    }

    fn idle(&self) -> u64 {
        self.idled.fetch_add(1, SeqCst)
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A new connection that has no place yet.
struct Waiting<'a>(&'a Seats);

impl<'a> Waiting<'a> {
    // Whoever begins to be idle after this sees that another waits; whoever has begun before is seen here.
    fn begin(seats: &'a Seats) -> Self {
        seats.waiting.fetch_add(1, SeqCst);
        seats.make_room();
        Self(seats)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, SeqCst);
    }
}

impl Seat {
    /// The head of a request has come, and with it all of it if it is `whole`; `None`: too late.
    pub(super) fn begin(self: &Arc<Self>, whole: bool) -> Option<Busy> {
        match self.connection.state.load(SeqCst) {
            LOST => return None,
            WORKING | ANSWERED => {}
            idle => self.connection.leave(idle, if whole { WORKING } else { self.seats.idle() })?,
        }
        Some(Busy(Arc::clone(self)))
    }

    /// The rest of a request has come; `None`: too late.
    pub(super) fn work(&self) -> Option<()> {
        match self.connection.state.load(SeqCst) {
            LOST => None,
            WORKING | ANSWERED => Some(()),
            idle => self.connection.leave(idle, WORKING),
        }
    }

    /// All that was answered has been sent.
    pub(super) fn flushed(&self) {
        if self.connection.state.load(SeqCst) != ANSWERED {
            return;
        }
        self.connection.state.store(self.seats.idle(), SeqCst);
        if self.seats.waiting.load(SeqCst) > self.seats.free.available_permits() {
            self.seats.make_room();
        }
    }

    /// Waits until the place is needed for another.
    pub(super) async fn lost(&self) {
        self.connection.lost.cancelled().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.taken().connections.remove(&self.number);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let connection = &self.0.connection;
        match connection.state.load(SeqCst) {
            LOST => {}
            WORKING | ANSWERED => connection.state.store(ANSWERED, SeqCst),
            // It was answered before it was whole.
            idle => {
                connection.leave(idle, ANSWERED);
            }
        }
    }
}

/// An answer's body; with its end the request has ended.
pub(super) struct Held {
    body: Body,
    _busy: Busy,
}

impl Held {
    pub(super) fn new(body: Body, busy: Busy) -> Self {
        Self { body, _busy: busy }
    }
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn another(seats: &Arc<Seats>) -> tokio::task::JoinHandle<Seat> {
        let seats = Arc::clone(seats);
        tokio::spawn(async move { seats.take().await })
    }

    #[tokio::test]
    async fn the_longest_idle_connection_makes_room_and_one_with_a_request_does_not() {
        let seats = Seats::new(2);
        let (first, second) = (Arc::new(seats.take().await), Arc::new(seats.take().await));
        let working = first.begin(true).unwrap();
        let third = another(&seats);
        second.lost().await;
        assert!(second.begin(true).is_none(), "its place is another's");
        assert!(!first.connection.lost.is_cancelled());
        drop(second);
        let third = third.await.unwrap();
        drop(working);
        first.flushed();
        // Now the third has been idle for longer.
        let fourth = another(&seats);
        third.lost().await;
        drop(third);
        drop(fourth.await.unwrap());
        assert!(first.begin(true).is_some());
    }

    #[tokio::test]
    async fn where_all_work_the_first_that_has_sent_its_answer_makes_room() {
        let seats = Seats::new(1);
        let only = Arc::new(seats.take().await);
        let working = only.begin(true).unwrap();
        let waiting = another(&seats);
        while seats.waiting.load(SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        drop(working);
        assert!(!only.connection.lost.is_cancelled(), "its answer may not have been sent");
        only.flushed();
        only.lost().await;
        drop(only);
        drop(waiting.await.unwrap());
        let is_empty = seats.taken().connections.is_empty() && seats.waiting.load(SeqCst) == 0;
        assert!(is_empty, "nothing is kept of connections that have ended");
    }

    #[tokio::test]
    async fn who_sends_half_a_request_makes_room_and_who_has_sent_the_rest_does_not() {
        let seats = Seats::new(2);
        let (half, whole) = (Arc::new(seats.take().await), Arc::new(seats.take().await));
        let (sending, _sent) = (half.begin(false).unwrap(), whole.begin(false).unwrap());
        whole.work().unwrap();
        let another = another(&seats);
        half.lost().await;
        assert!(half.work().is_none(), "what it sends now comes too late");
        assert!(!whole.connection.lost.is_cancelled());
        drop((half, sending));
        drop(another.await.unwrap());
    }
}
