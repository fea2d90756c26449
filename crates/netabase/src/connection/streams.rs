//! The streams of a connection: their bytes are counted, and those that the peer opens are bounded.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use futures::io::IoSliceMut;
use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::SubstreamBox;
use parking_lot::Mutex;
use thiserror::Error;

use crate::connection::limits::{
    LEAST_UNUSED_STREAMS, MAX_NEGOTIATION_BYTES, MAX_UNUSED_STREAMS, PIECE_TIMEOUT, SMALL_KAD_BYTES,
    STREAM_BURST, STREAMS_PER_SECOND, WASTED_STREAM_BURST, WASTED_STREAMS_PER_SECOND,
};
use crate::platform::{self, Instant, Sleep, sleep};
use crate::rpc::budget::{PeerBudget, Taken};
use crate::rpc::token_bucket::TokenBucket;
use crate::telemetry::metrics::Meters;

/// The messages of the negotiation with which no protocol is agreed on (multistream-select 1.0).
const HEADER: &[u8] = b"/multistream/1.0.0\n";
const NOT_AVAILABLE: &[u8] = b"na\n";
/// The end of the name of Kademlia's protocol.
const KAD_NAME: &[u8] = b"/kad/1.0.0\n";

/// The connection was closed, since its peer opens streams and does not use them.
#[derive(Debug, Clone, Copy, Error)]
#[error("the peer opens streams that it does not use")]
pub(crate) struct Flood;

/// What the streams of a connection share that its peer has opened.
#[derive(Debug)]
pub(crate) struct Opened {
    rate: Mutex<Rate>,
    /// The streams without a protocol, of this connection and of all.
    unused: AtomicUsize,
    unused_of_all: Arc<AtomicUsize>,
    /// The memory of Kademlia's messages.
    budget: PeerBudget,
}

#[derive(Debug)]
struct Rate {
    opened: TokenBucket,
    wasted: TokenBucket,
}

/// What is to be done with a stream that a peer opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judgement {
    Accept,
    /// Accept the stream, and read nothing of the connection for a moment.
    Pause,
    /// End the stream.
    End,
    /// Close the connection.
    Close,
}

impl Opened {
    pub(crate) fn new(unused_of_all: Arc<AtomicUsize>, budget: PeerBudget) -> Self {
        let now = platform::now();
        let opened = TokenBucket::new(STREAMS_PER_SECOND, STREAM_BURST, now);
        let wasted = TokenBucket::new(WASTED_STREAMS_PER_SECOND, WASTED_STREAM_BURST, now);
        let rate = Mutex::new(Rate { opened, wasted });
        Self { rate, unused: AtomicUsize::new(0), unused_of_all, budget }
    }

    /// Judges a stream that the peer opens.
    pub(crate) fn judge(&self, now: Instant) -> Judgement {
        let mut rate = self.rate.lock();
        let (here, all) = (self.unused.load(Ordering::Relaxed), self.unused_of_all.load(Ordering::Relaxed));
        let free = MAX_UNUSED_STREAMS.saturating_sub(all) + here;
        if !rate.wasted.has(1.0, now) {
            Judgement::Close
        } else if here >= (free / 2).max(LEAST_UNUSED_STREAMS) {
            rate.wasted.spend(1.0, now);
            Judgement::End
        } else if rate.opened.take(1.0, now) {
            Judgement::Accept
        } else {
            Judgement::Pause
        }
    }

    /// Records that a stream has a protocol, or has ended without one.
    fn has_negotiated(&self, is_wasted: bool) {
        self.unused.fetch_sub(1, Ordering::Relaxed);
        self.unused_of_all.fetch_sub(1, Ordering::Relaxed);
        if is_wasted {
            self.rate.lock().wasted.spend(1.0, platform::now());
        }
    }
}

/// A stream whose bytes are counted.
pub(crate) struct Stream {
    io: SubstreamBox,
    meters: Arc<Meters>,
    /// The state of a stream that the peer has opened.
    inbound: Option<Box<Inbound>>,
}

/// The state of a stream that the peer has opened.
struct Inbound {
    opened: Arc<Opened>,
    protocol: Protocol,
    /// The end of the wait for the peer, or `None` if nothing is awaited of it.
    deadline: Option<Pin<Box<Sleep>>>,
}

/// The protocol of a stream, as far as it matters here.
enum Protocol {
    /// None is agreed on, and this was written so far.
    Unknown(Vec<u8>),
    Kad(Held),
    Other,
}

/// The memory that a message holds, from its first byte to the end of the stream or the next
/// message.
#[derive(Default)]
struct Held {
    bytes: usize,
    taken: Option<Taken>,
    is_answered: bool,
}

impl Held {
    /// Adds `bytes` to the message; returns whether the memory allows them.
    fn add(&mut self, bytes: usize, budget: &PeerBudget) -> bool {
        let before = self.bytes.max(SMALL_KAD_BYTES);
        self.bytes = self.bytes.saturating_add(bytes);
        let more = self.bytes.saturating_sub(before);
        more == 0 || budget.take(more, &mut self.taken)
    }
}

impl Inbound {
    fn new(opened: Arc<Opened>) -> Self {
        opened.unused.fetch_add(1, Ordering::Relaxed);
        opened.unused_of_all.fetch_add(1, Ordering::Relaxed);
        Self { opened, protocol: Protocol::Unknown(Vec::new()), deadline: None }
    }

    fn on_read(&mut self, bytes: usize) -> io::Result<()> {
        self.deadline = None;
        let Protocol::Kad(held) = &mut self.protocol else { return Ok(()) };
        if held.is_answered && bytes > 0 {
            *held = Held::default();
        }
        if held.add(bytes, &self.opened.budget) { Ok(()) } else { Err(io::ErrorKind::QuotaExceeded.into()) }
    }

    fn on_written(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.deadline = None;
        match &mut self.protocol {
            Protocol::Unknown(written) => {
                written.extend_from_slice(bytes);
                if let Some(name) = agreed(written) {
                    let is_kad = name.ends_with(KAD_NAME);
                    self.protocol = if is_kad { Protocol::Kad(Held::default()) } else { Protocol::Other };
                    self.opened.has_negotiated(false);
                } else if written.len() > MAX_NEGOTIATION_BYTES {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                Ok(())
            }
            Protocol::Kad(held) => {
                held.is_answered = true;
                let fits = held.add(bytes.len(), &self.opened.budget);
                if fits { Ok(()) } else { Err(io::ErrorKind::QuotaExceeded.into()) }
            }
            Protocol::Other => Ok(()),
        }
    }

    /// Waits for the peer, at most until the deadline.
    fn wait<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(PIECE_TIMEOUT)));
        ready!(deadline.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Returns whether a message is incomplete, or its answer may not have been read yet.
    fn holds_memory(&self) -> bool {
        matches!(&self.protocol, Protocol::Kad(held) if held.bytes > 0)
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        if matches!(self.protocol, Protocol::Unknown(_)) {
            self.opened.has_negotiated(true);
        }
    }
}

/// Returns the name of the protocol that a listener's messages agree on, with the line's end.
fn agreed(mut written: &[u8]) -> Option<&[u8]> {
    loop {
        let (length, rest) = match *written {
            [low @ 0..=0x7f, ref rest @ ..] => (usize::from(low), rest),
            [low, high @ 0..=0x7f, ref rest @ ..] => (usize::from(low & 0x7f) | usize::from(high) << 7, rest),
            _ => return None,
        };
        let (message, next) = rest.split_at_checked(length)?;
        // A list of protocols has more than one line.
        let is_line = message.strip_suffix(b"\n").is_some_and(|line| !line.contains(&b'\n'));
        if is_line && message != HEADER && message != NOT_AVAILABLE {
            return Some(message);
        }
        written = next;
    }
}

impl Stream {
    /// Wraps a stream that this node opens.
    pub(crate) fn outbound(io: SubstreamBox, meters: Arc<Meters>) -> Self {
        Self { io, meters, inbound: None }
    }

    /// Wraps a stream that the peer opens.
    pub(crate) fn inbound(io: SubstreamBox, meters: Arc<Meters>, opened: Arc<Opened>) -> Self {
        Self { io, meters, inbound: Some(Box::new(Inbound::new(opened))) }
    }

    fn on_read(
        &mut self,
        read: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match (read, &mut self.inbound) {
            (Poll::Pending, Some(inbound)) if inbound.holds_memory() => inbound.wait(context),
            (Poll::Pending, _) => Poll::Pending,
            (Poll::Ready(read), inbound) => {
                let bytes = read?;
                self.meters.bytes_in.add(number(bytes));
                if let Some(inbound) = inbound {
                    inbound.on_read(bytes)?;
                }
                Poll::Ready(Ok(bytes))
            }
        }
    }

    fn on_write(
        &mut self,
        written: Poll<io::Result<usize>>,
        buffer: &[u8],
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match (written, &mut self.inbound) {
            (Poll::Pending, Some(inbound)) => inbound.wait(context),
            (Poll::Pending, None) => Poll::Pending,
            (Poll::Ready(written), inbound) => {
                let bytes = written?;
                self.meters.bytes_out.add(number(bytes));
                if let Some(inbound) = inbound {
                    inbound.on_written(buffer.get(..bytes).unwrap_or(buffer))?;
                }
                Poll::Ready(Ok(bytes))
            }
        }
    }
}

fn number(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        self.on_read(read, context)
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.io).poll_read_vectored(context, buffers);
        self.on_read(read, context)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(context, buffer);
        self.on_write(written, buffer, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_close(context)
    }
}
