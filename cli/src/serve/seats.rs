//! Places for connections, of which there are so many and no more.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use futures_util::task::AtomicWaker;
use hyper::body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// All places of one listener.
pub(super) struct Seats {
    free: Arc<Semaphore>,
    /// For how many new connections no other has lost its place yet. It changes while `taken` is held.
    owed: AtomicUsize,
    /// How often a connection has begun to wait for its client.
    idled: AtomicU64,
    taken: Mutex<Taken>,
    closing: AtomicBool,
}

/// The connections that have a place. Requests don't touch this unless a new connection is owed one.
#[derive(Default)]
struct Taken {
    connections: BTreeMap<u64, Arc<Connection>>,
    came: u64,
    /// How many new connections wait for a place.
    waiting: usize,
}

impl Taken {
    /// The longest idle connection goes; `None`: there is none.
    fn make_room(&self) -> Option<()> {
        let longest = || {
            let idle = self.connections.values().map(|connection| (connection.state.load(SeqCst), connection));
            idle.filter(|(state, _)| *state >= IDLE).min_by_key(|(state, _)| *state)
        };
        // One that goes on in this very moment keeps its place.
        loop {
            let (state, connection) = longest()?;
            if connection.lose(state).is_some() {
                metrics::counter!("clawcoil_limits_hit_total", "limit" => "connections").increment(1);
                return Some(());
            }
        }
    }
}

struct Connection {
    state: AtomicU64,
    /// Wakes the connection where it has lost its place, or all are to end.
    waker: AtomicWaker,
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
        self.waker.wake();
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
            owed: AtomicUsize::new(0),
            idled: AtomicU64::new(IDLE),
            taken: Mutex::default(),
            closing: AtomicBool::new(false),
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
        let connection = Arc::new(Connection { state: AtomicU64::new(ANSWERED), waker: AtomicWaker::new() });
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

    /// Ends all connections that have no whole request, and has the others told that theirs is their last.
    pub(super) fn close(&self) {
        self.closing.store(true, SeqCst);
        for connection in self.taken().connections.values() {
            loop {
                let state = connection.state.load(SeqCst);
                if state < IDLE {
                    connection.waker.wake();
                    break;
                }
                // Where half a request has come in this very moment, it is looked at again.
                if connection.lose(state).is_some() {
                    break;
                }
            }
        }
    }

    /// Each that waits is owed one place, and none more is taken from anybody.
    fn pay(&self, taken: &Taken) {
        if self.owed.load(SeqCst) > 0 && taken.make_room().is_some() {
            self.owed.fetch_sub(1, SeqCst);
        }
    }

    /// A connection has become idle.
    fn pay_what_is_owed(&self) {
        if self.owed.load(SeqCst) > 0 {
            self.pay(&self.taken());
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
    fn begin(seats: &'a Seats) -> Self {
        let mut taken = seats.taken();
        taken.waiting += 1;
        // Whoever becomes idle after this sees what is owed; whoever is so already is seen here.
        seats.owed.fetch_add(1, SeqCst);
        seats.pay(&taken);
        Self(seats)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut taken = self.0.taken();
        taken.waiting -= 1;
        // A place may have become free by itself.
        self.0.owed.fetch_min(taken.waiting, SeqCst);
    }
}

impl Seat {
    /// The head of a request has come, and with it all of it if it is `whole`; `None`: too late.
    pub(super) fn begin(self: &Arc<Self>, whole: bool) -> Option<Busy> {
        let next = if whole { WORKING } else { self.seats.idle() };
        match self.connection.state.load(SeqCst) {
            LOST => return None,
            // The answer before may not have been sent yet.
            WORKING | ANSWERED => {
                self.connection.state.store(next, SeqCst);
                if !whole {
                    self.seats.pay_what_is_owed();
                }
            }
            idle => self.connection.leave(idle, next)?,
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
        self.seats.pay_what_is_owed();
    }

    /// Waits until the place is needed for another.
    pub(super) async fn lost(&self) {
        self.until(|| self.is_lost()).await;
    }

    /// Waits until the place is needed for another, or all connections are to end.
    pub(super) async fn lost_or_closing(&self) {
        self.until(|| self.is_lost() || self.seats.closing.load(SeqCst)).await;
    }

    pub(super) fn is_lost(&self) -> bool {
        self.connection.state.load(SeqCst) == LOST
    }

    /// One at a time can wait.
    async fn until(&self, is_so: impl Fn() -> bool) {
        poll_fn(|cx| {
            self.connection.waker.register(cx.waker());
            if is_so() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        taken.connections.remove(&self.number);
        // Whoever waits gets the place of a connection that ends by itself, and is owed no other's.
        if !self.is_lost() {
            let owed = self.seats.owed.load(SeqCst);
            self.seats.owed.store(owed.saturating_sub(1), SeqCst);
        }
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
        assert!(!first.is_lost());
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
        while seats.taken().waiting == 0 {
            tokio::task::yield_now().await;
        }
        drop(working);
        assert!(!only.is_lost(), "its answer may not have been sent");
        only.flushed();
        only.lost().await;
        drop(only);
        drop(waiting.await.unwrap());
        let taken = seats.taken();
        let is_empty = taken.connections.is_empty() && taken.waiting == 0 && seats.owed.load(SeqCst) == 0;
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
        assert!(!whole.is_lost());
        drop((half, sending));
        drop(another.await.unwrap());
    }

    #[tokio::test]
    async fn one_new_connection_takes_the_place_of_one_and_of_no_other_while_that_one_ends() {
        let seats = Seats::new(3);
        let idle: Vec<_> = [seats.take().await, seats.take().await, seats.take().await].map(Arc::new).into();
        let another = another(&seats);
        idle[0].lost().await;
        for connection in &idle[1..] {
            drop(connection.begin(true).unwrap());
            connection.flushed();
        }
        assert!(idle[1..].iter().all(|connection| !connection.is_lost()));
        drop(idle);
        drop(another.await.unwrap());
        assert_eq!(seats.owed.load(SeqCst), 0);
    }

    #[tokio::test]
    async fn a_request_that_comes_before_the_last_answer_is_sent_keeps_the_place() {
        let seats = Seats::new(1);
        let only = Arc::new(seats.take().await);
        drop(only.begin(true).unwrap());
        let _working = only.begin(true).unwrap();
        only.flushed();
        let another = another(&seats);
        while seats.taken().waiting == 0 {
            tokio::task::yield_now().await;
        }
        assert!(!only.is_lost());
        another.abort();
    }

    #[tokio::test]
    async fn where_all_are_to_end_the_idle_lose_their_place_and_the_others_are_told() {
        let seats = Seats::new(2);
        let (idle, busy) = (Arc::new(seats.take().await), Arc::new(seats.take().await));
        let _working = busy.begin(true).unwrap();
        let told = tokio::spawn({
            let busy = Arc::clone(&busy);
            async move { busy.lost_or_closing().await }
        });
        tokio::task::yield_now().await;
        seats.close();
        idle.lost().await;
        told.await.unwrap();
        assert!(!busy.is_lost());
    }

    #[tokio::test]
    async fn a_new_connection_that_gets_the_place_of_one_that_ends_takes_no_other() {
        let seats = Seats::new(2);
        let (first, second) = (Arc::new(seats.take().await), Arc::new(seats.take().await));
        let (ends, working) = (first.begin(true).unwrap(), second.begin(true).unwrap());
        let another = another(&seats);
        while seats.taken().waiting == 0 {
            tokio::task::yield_now().await;
        }
        drop((ends, first));
        // It has not gone on yet.
        drop(working);
        second.flushed();
        assert!(!second.is_lost());
        drop(another.await.unwrap());
    }
}
