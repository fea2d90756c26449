//! Counting of the bytes of all streams of a connection.
//!
//! libp2p's own counters have a label for each form of address, which peers choose.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::io::{IoSlice, IoSliceMut};
use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent, SubstreamBox};

use crate::platform::{Sleep, sleep};
use crate::telemetry::limits::CLOSE_TIMEOUT;
use crate::telemetry::metrics::Meters;

/// A muxed connection whose bytes are counted.
pub(crate) struct Counted {
    connection: StreamMuxerBox,
    meters: Arc<Meters>,
    /// The deadline of a close, or `None` before it starts.
    closing: Option<Pin<Box<Sleep>>>,
}

impl Counted {
    pub(crate) fn new(connection: StreamMuxerBox, meters: Arc<Meters>) -> Self {
        Self { connection, meters, closing: None }
    }

    fn stream(&self, stream: SubstreamBox) -> CountedStream {
        CountedStream { stream, meters: Arc::clone(&self.meters) }
    }
}

impl StreamMuxer for Counted {
    type Substream = CountedStream;
    type Error = io::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<CountedStream>> {
        let stream = ready!(Pin::new(&mut self.connection).poll_inbound(context))?;
        Poll::Ready(Ok(self.stream(stream)))
    }

    fn poll_outbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<CountedStream>> {
        let stream = ready!(Pin::new(&mut self.connection).poll_outbound(context))?;
        Poll::Ready(Ok(self.stream(stream)))
    }

    /// Closes the connection, at most until the deadline: a close first sends queued data and a
    /// close frame, which would never end on a dead link, and the peer would count as connected for
    /// minutes.
    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(closed) = Pin::new(&mut self.connection).poll_close(context) {
            return Poll::Ready(closed);
        }
        let limit = self.closing.get_or_insert_with(|| Box::pin(sleep(CLOSE_TIMEOUT)));
        ready!(limit.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        Pin::new(&mut self.connection).poll(context)
    }
}

/// A stream whose bytes are counted.
pub(crate) struct CountedStream {
    stream: SubstreamBox,
    meters: Arc<Meters>,
}

impl CountedStream {
    fn count_in(&self, read: io::Result<usize>) -> Poll<io::Result<usize>> {
        self.meters.bytes_in.add(number(&read));
        Poll::Ready(read)
    }

    fn count_out(&self, written: io::Result<usize>) -> Poll<io::Result<usize>> {
        self.meters.bytes_out.add(number(&written));
        Poll::Ready(written)
    }
}

fn number(bytes: &io::Result<usize>) -> u64 {
    bytes.as_ref().map_or(0, |bytes| u64::try_from(*bytes).unwrap_or(u64::MAX))
}

impl AsyncRead for CountedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        self.count_in(read)
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let read = ready!(Pin::new(&mut self.stream).poll_read_vectored(context, buffers));
        self.count_in(read)
    }
}

impl AsyncWrite for CountedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, buffer));
        self.count_out(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, buffers));
        self.count_out(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(context)
    }
}
