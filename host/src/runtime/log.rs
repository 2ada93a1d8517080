//! What a guest prints: kept up to a bound, the rest counted and dropped, so that a flood costs nothing.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

/// How much a guest may write in one go.
const CHUNK: usize = 64 << 10;

/// A call's output and error output, in the order in which they were written.
#[derive(Debug, Clone)]
pub(super) struct Log(Arc<Mutex<Kept>>);

#[derive(Debug)]
struct Kept {
    most: usize,
    text: Vec<u8>,
    dropped: u64,
}

/// What is left of a call's output when it has ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Logs {
    /// Output and error output in the order in which they were written. Any text that the guest chose: don't print it to
    /// a terminal as it is.
    pub text: String,
    /// Bytes that were written beyond the bound and are lost.
    pub dropped: u64,
}

impl Log {
    pub(super) fn new(most: usize) -> Self {
        Self(Arc::new(Mutex::new(Kept { most, text: Vec::new(), dropped: 0 })))
    }

    pub(super) fn take(&self) -> Logs {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = std::mem::take(&mut kept.text);
        Logs { text: String::from_utf8_lossy(&text).into_owned(), dropped: std::mem::take(&mut kept.dropped) }
    }

    fn append(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = kept.most.saturating_sub(kept.text.len()).min(bytes.len());
        let (fits, lost) = bytes.split_at(room);
        kept.text.extend_from_slice(fits);
        kept.dropped = kept.dropped.saturating_add(lost.len() as u64);
    }
}

impl IsTerminal for Log {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Log {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

#[async_trait::async_trait]
impl Pollable for Log {
    async fn ready(&mut self) {}
}

#[async_trait::async_trait]
impl OutputStream for Log {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.append(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(CHUNK)
    }
}

impl AsyncWrite for Log {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.append(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_beyond_the_bound_is_counted_and_dropped() {
        let log = Log::new(5);
        log.append(b"abc");
        log.append(b"defg");
        log.append(b"h");
        assert_eq!(log.take(), Logs { text: "abcde".to_owned(), dropped: 3 });
    }

    #[test]
    fn output_that_is_not_text_is_kept_readable() {
        let log = Log::new(100);
        log.append(b"a\xff\xc3");
        assert_eq!(log.take().text, "a\u{fffd}\u{fffd}");
    }
}
