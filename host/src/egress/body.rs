//! A request's body before it is sent: whole where something must be known of it, else as it streams.

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full, StreamBody};

use super::error::EgressError;
use super::{Body, BoxError};

/// No more of a body is held in memory.
pub(super) const MOST_BUFFERED: usize = 1 << 20;

/// A body on its way.
pub(super) enum Outgoing {
    /// All of it is here; it can be sent again.
    Whole(Bytes),
    /// It streams and can be sent once.
    Streaming(Body),
    /// It was sent and can't be sent again.
    Sent,
}

impl Outgoing {
    /// What the guest sends; nothing of it is read yet.
    pub(super) fn new(body: Body) -> Self {
        if body.is_end_stream() { Self::Whole(Bytes::new()) } else { Self::Streaming(body) }
    }

    /// Reads up to [`MOST_BUFFERED`] bytes. A longer body goes on streaming, with what was read in front; one with trailers
    /// does as well.
    pub(super) async fn buffered(self) -> Result<Self, EgressError> {
        let Self::Streaming(mut body) = self else { return Ok(self) };
        if body.size_hint().lower() > MOST_BUFFERED as u64 {
            return Ok(Self::Streaming(body));
        }
        let mut read = BytesMut::new();
        while let Some(frame) = body.frame().await {
            match frame.map_err(EgressError::Body)?.into_data() {
                Ok(data) if read.len() + data.len() <= MOST_BUFFERED => read.extend_from_slice(&data),
                Ok(data) => return Ok(rejoined([read.freeze(), data], None, body)),
                Err(trailers) => return Ok(rejoined([read.freeze(), Bytes::new()], Some(trailers), body)),
            }
        }
        Ok(Self::Whole(read.freeze()))
    }

    /// The whole body, if it is here.
    pub(super) fn whole(&self) -> Option<&Bytes> {
        match self {
            Self::Whole(bytes) => Some(bytes),
            Self::Streaming(_) | Self::Sent => None,
        }
    }

    /// What is sent now. A whole body stays, so that it can be sent once more.
    pub(super) fn take(&mut self) -> Body {
        match std::mem::replace(self, Self::Sent) {
            Self::Whole(bytes) => {
                *self = Self::Whole(bytes.clone());
                full(bytes)
            }
            Self::Streaming(body) => body,
            Self::Sent => full(Bytes::new()),
        }
    }
}

/// A body of these bytes.
pub(super) fn full(bytes: Bytes) -> Body {
    Body::new(Full::new(bytes).map_err(|never| match never {}))
}

/// The body, each piece of which is asked for anew; with the first refusal it ends.
pub(super) fn while_allowed(body: Body, allowed: impl Fn() -> Result<(), BoxError> + Send + 'static) -> Body {
    let pieces = futures_util::StreamExt::map(http_body_util::BodyStream::new(body), move |piece| {
        allowed()?;
        piece
    });
    Body::new(StreamBody::new(pieces))
}

fn rejoined(front: [Bytes; 2], trailers: Option<http_body::Frame<Bytes>>, rest: Body) -> Outgoing {
    let data = front.into_iter().filter(|bytes| !bytes.is_empty()).map(http_body::Frame::data);
    let front: Vec<Result<_, BoxError>> = data.chain(trailers).map(Ok).collect();
    let stream = futures_util::stream::iter(front);
    let rest = http_body_util::BodyStream::new(rest);
    Outgoing::Streaming(Body::new(StreamBody::new(futures_util::StreamExt::chain(stream, rest))))
}
