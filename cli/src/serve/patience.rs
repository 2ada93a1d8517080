//! Bounds on how slowly a client may send and read. A client that stands still ends; one that is slow but moves does not.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::seats::Seat;

/// How long a client may let us wait for the next piece of its request's body.
const SENDING: Duration = Duration::from_secs(30);
/// How long a client may take nothing of an answer that is ready for it.
const READING: Duration = Duration::from_mins(1);

/// Pieces that are no larger together are copied into one: that costs less than telling the system of several.
const SMALL: usize = 4 << 10;

/// A clock that runs only while somebody is waited for.
struct Waiting {
    patience: Duration,
    since: Option<Pin<Box<Sleep>>>,
}

impl Waiting {
    fn new(patience: Duration) -> Self {
        Self { patience, since: None }
    }

    /// Whether it has been waited for too long.
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let sleep = self.since.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.patience)));
        sleep.as_mut().poll(cx).is_ready()
    }

    fn moved(&mut self) {
        self.since = None;
    }
}

/// A connection whose other end must read. It tells its seat when all has been sent.
pub(super) struct Patient<S> {
    stream: S,
    seat: Arc<Seat>,
    waiting: Waiting,
    joined: Vec<u8>,
}

impl<S> Patient<S> {
    pub(super) fn new(stream: S, seat: Arc<Seat>) -> Self {
        Self { stream, seat, waiting: Waiting::new(READING), joined: Vec::new() }
    }

    fn judge<T>(&mut self, polled: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.waiting.moved();
            return polled;
        }
        if self.waiting.is_over(cx) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its answer")));
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(polled, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let polled = if pieces.iter().map(|piece| piece.len()).sum::<usize>() <= SMALL {
            this.joined.clear();
            for piece in pieces {
                this.joined.extend_from_slice(piece);
            }
            Pin::new(&mut this.stream).poll_write(cx, &this.joined)
        } else {
            Pin::new(&mut this.stream).poll_write_vectored(cx, pieces)
        };
        self.judge(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        if matches!(polled, Poll::Ready(Ok(()))) {
            self.seat.flushed();
        }
        self.judge(polled, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.judge(polled, cx)
    }
}

/// A request's body whose pieces must come. It tells its seat when all has come, or nobody wants the rest.
pub(super) struct Sent<B> {
    body: B,
    seat: Arc<Seat>,
    waiting: Waiting,
}

impl<B> Drop for Sent<B> {
    fn drop(&mut self) {
        // Where it is too late, the connection goes.
        let _ = self.seat.work();
    }
}

impl<B: HttpBody<Data = Bytes, Error: Into<axum::BoxError>> + Send + Unpin + 'static> Sent<B> {
    pub(super) fn body(body: B, seat: Arc<Seat>) -> Body {
        Body::new(Self { body, seat, waiting: Waiting::new(SENDING) })
    }
}

impl<B: HttpBody<Data = Bytes, Error: Into<axum::BoxError>> + Unpin> HttpBody for Sent<B> {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_pending() && self.waiting.is_over(cx) {
            return Poll::Ready(Some(Err("the rest of the body did not come".into())));
        }
        let frame = ready!(polled);
        self.waiting.moved();
        if (frame.is_none() || self.body.is_end_stream()) && self.seat.work().is_none() {
            return Poll::Ready(Some(Err("the rest of the body came too late".into())));
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
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
    use http_body_util::{BodyExt as _, StreamBody};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::serve::seats::Seats;

    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_client_that_does_not_read_is_given_up_and_one_that_has_read_is_waited_for_anew() {
        let (ours, mut theirs) = tokio::io::duplex(16);
        let seat = Arc::new(Seats::new(1).take().await);
        let mut patient = Patient { stream: ours, seat, waiting: Waiting::new(SHORT), joined: Vec::new() };
        patient.write_all(&[7; 16]).await.unwrap();
        assert!(patient.waiting.since.is_none());
        assert_eq!(patient.write_all(&[7]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        theirs.read_exact(&mut [0; 16]).await.unwrap();
        patient.write_all(&[7]).await.unwrap();
        assert!(patient.waiting.since.is_none());
    }

    #[tokio::test]
    async fn a_body_that_stands_still_is_an_error() {
        let pieces = futures_util::stream::unfold(0, |sent| async move {
            if sent > 0 {
                std::future::pending::<()>().await;
            }
            Some((Ok::<_, io::Error>(Frame::data(Bytes::from_static(b"piece"))), sent + 1))
        });
        let seat = Arc::new(Seats::new(1).take().await);
        let mut body = Sent { body: StreamBody::new(Box::pin(pieces)), seat, waiting: Waiting::new(SHORT) };
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "piece");
        assert!(body.frame().await.unwrap().is_err(), "the second piece never comes");
    }
}
