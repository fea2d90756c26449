//! A connection whose writes time out.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use crate::limits::{MIN_READ_RATE, READ_PATIENCE};

/// The deadline used when a timeout would overflow `Instant`.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A stream whose writes fail with `TimedOut` after `patience` without progress, or if the client
/// reads more slowly than it may.
pub(super) struct Patient {
    stream: TcpStream,
    patience: Duration,
    slowness: Slowness,
    /// The timeout of a write that waits.
    timeout: Pin<Box<Sleep>>,
    waiting_since: Option<Instant>,
}

/// How long writes have waited for a client in all, and for how many bytes.
#[derive(Debug, Default)]
struct Slowness {
    waited: Duration,
    bytes: u64,
}

impl Slowness {
    /// Returns how much longer writes may wait.
    fn rest(&self) -> Duration {
        let allowed = READ_PATIENCE + Duration::from_secs(self.bytes / MIN_READ_RATE);
        allowed.saturating_sub(self.waited)
    }
}

impl Patient {
    pub(super) fn new(stream: TcpStream, patience: Duration) -> Self {
        let (slowness, timeout) = (Slowness::default(), Box::pin(tokio::time::sleep(patience)));
        Self { stream, patience, slowness, timeout, waiting_since: None }
    }

    fn judge(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(result) = &written {
            let bytes = result.as_ref().map_or(0, |bytes| u64::try_from(*bytes).unwrap_or(u64::MAX));
            self.slowness.bytes = self.slowness.bytes.saturating_add(bytes);
            self.slowness.waited += self.waiting_since.take().map_or(Duration::ZERO, |since| since.elapsed());
            return written;
        }
        if self.waiting_since.is_none() {
            let (now, patience) = (Instant::now(), self.patience.min(self.slowness.rest()));
            self.waiting_since = Some(now);
            self.timeout.as_mut().reset(now.checked_add(patience).unwrap_or(now + LONGEST));
        }
        ready!(self.timeout.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.judge(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_may_wait_in_proportion_to_what_it_reads() {
        let mut slowness = Slowness::default();
        assert_eq!(slowness.rest(), READ_PATIENCE);
        slowness.waited += READ_PATIENCE;
        assert_eq!(slowness.rest(), Duration::ZERO);
        slowness.bytes = 3 * MIN_READ_RATE;
        assert_eq!(slowness.rest(), Duration::from_secs(3));
    }
}
