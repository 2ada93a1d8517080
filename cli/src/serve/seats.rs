//! Places for connections, of which there are so many and no more.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// All places of one listener.
pub(super) struct Seats {
    free: Arc<Semaphore>,
    idle: Mutex<Idle>,
}

/// The connections that wait for their client: without a request, or with half of one. Who has waited longest comes first.
#[derive(Default)]
struct Idle {
    connections: BTreeMap<u64, CancellationToken>,
    next: u64,
    /// How many new connections wait for a place.
    waiting: usize,
}

impl Idle {
    fn add(&mut self, connection: CancellationToken) -> u64 {
        let place = self.next;
        self.next += 1;
        self.connections.insert(place, connection);
        place
    }

    /// The longest idle connection goes.
    fn make_room(&mut self) {
        if let Some((_, connection)) = self.connections.pop_first() {
            metrics::counter!("clawcoil_limits_hit_total", "limit" => "connections").increment(1);
            connection.cancel();
        }
    }
}

/// The place of one connection, free again when this is dropped.
pub(super) struct Seat {
    seats: Arc<Seats>,
    lost: CancellationToken,
    state: Mutex<State>,
    _permit: Option<OwnedSemaphorePermit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Without a whole request; where it stands among those.
    Idle(u64),
    /// With a request.
    Working,
    /// Its answer is whole, but perhaps not sent yet.
    Answered,
}

/// A request on a connection, until its answer is whole.
pub(super) struct Busy(Arc<Seat>);

impl Seats {
    pub(super) fn new(places: usize) -> Arc<Self> {
        Arc::new(Self { free: Arc::new(Semaphore::new(places)), idle: Mutex::default() })
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
        let lost = CancellationToken::new();
        let seat = Seat { seats: Arc::clone(self), lost, state: Mutex::new(State::Answered), _permit: permit };
        seat.flushed();
        seat
    }

    /// Ends all connections that have no request.
    pub(super) fn clear(&self) {
        for connection in std::mem::take(&mut self.idle().connections).into_values() {
            connection.cancel();
        }
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A new connection that has no place yet.
struct Waiting<'a>(&'a Seats);

impl<'a> Waiting<'a> {
    fn begin(seats: &'a Seats) -> Self {
        let mut idle = seats.idle();
        idle.waiting += 1;
        idle.make_room();
        Self(seats)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.idle().waiting -= 1;
    }
}

impl Seat {
    /// The head of a request has come, and with it all of it if it is `whole`; `None`: too late.
    pub(super) fn begin(self: &Arc<Self>, whole: bool) -> Option<Busy> {
        let mut state = self.state();
        if let State::Idle(place) = *state {
            let mut idle = self.seats.idle();
            let connection = idle.connections.remove(&place)?;
            *state = if whole { State::Working } else { State::Idle(idle.add(connection)) };
        }
        Some(Busy(Arc::clone(self)))
    }

    /// The rest of a request has come; `None`: too late.
    pub(super) fn work(&self) -> Option<()> {
        let mut state = self.state();
        if let State::Idle(place) = *state {
            self.seats.idle().connections.remove(&place)?;
            *state = State::Working;
        }
        Some(())
    }

    /// All that was answered has been sent.
    pub(super) fn flushed(&self) {
        let mut state = self.state();
        if *state != State::Answered {
            return;
        }
        let mut idle = self.seats.idle();
        *state = State::Idle(idle.add(self.lost.clone()));
        if idle.waiting > self.seats.free.available_permits() {
            idle.make_room();
        }
    }

    /// Waits until the place is needed for another.
    pub(super) async fn lost(&self) {
        self.lost.cancelled().await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let State::Idle(place) = *self.state() {
            self.seats.idle().connections.remove(&place);
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if let State::Idle(place) = *state {
            // It was answered before it was whole.
            self.0.seats.idle().connections.remove(&place);
        }
        *state = State::Answered;
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
        assert!(!first.lost.is_cancelled());
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
        while seats.idle().waiting == 0 {
            tokio::task::yield_now().await;
        }
        drop(working);
        assert!(!only.lost.is_cancelled(), "its answer may not have been sent");
        only.flushed();
        only.lost().await;
        drop(only);
        drop(waiting.await.unwrap());
        let idle = seats.idle();
        assert!(idle.connections.is_empty() && idle.waiting == 0, "nothing is kept of connections that have ended");
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
        assert!(!whole.lost.is_cancelled());
        drop((half, sending));
        drop(another.await.unwrap());
    }
}
