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
    LEAST_UNUSED_STREAMS, MAX_KAD_MESSAGES, MAX_NEGOTIATION_BYTES, MAX_UNUSED_STREAMS, PIECE_TIMEOUT,
    SMALL_KAD_BYTES, STREAM_BURST, STREAMS_PER_SECOND, WASTED_STREAM_BURST, WASTED_STREAMS_PER_SECOND,
};
use crate::connection::processor::Connected;
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
    pub(crate) connected: Connected,
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
    pub(crate) fn new(unused_of_all: Arc<AtomicUsize>, budget: PeerBudget, connected: Connected) -> Self {
        let now = platform::now();
        let opened = TokenBucket::new(STREAMS_PER_SECOND, STREAM_BURST, now);
        let wasted = TokenBucket::new(WASTED_STREAMS_PER_SECOND, WASTED_STREAM_BURST, now);
        let rate = Mutex::new(Rate { opened, wasted });
        Self { rate, unused: AtomicUsize::new(0), unused_of_all, budget, connected }
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

/// The memory that a message and its answer hold, until the stream ends or the next message comes.
#[derive(Default)]
struct Held {
    /// The messages before this one on its stream.
    earlier: usize,
    /// The bytes of the message that were read, and those of the answer that were written.
    read: usize,
    written: usize,
    /// The bytes that are paid for, of which the first [`SMALL_KAD_BYTES`] cost nothing.
    paid: usize,
    taken: Option<Taken>,
}

impl Held {
    /// Pays for the message, and for an answer of which `unsent` bytes are left to write. Fails if
    /// the memory does not allow it.
    fn pay(&mut self, unsent: usize, budget: &PeerBudget) -> io::Result<()> {
        let bytes = self.read.saturating_add(self.written).saturating_add(unsent);
        let more = bytes.saturating_sub(self.paid.max(SMALL_KAD_BYTES));
        if more > 0 && !budget.take(more, &mut self.taken) {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        self.paid = self.paid.max(bytes);
        Ok(())
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
        if held.written > 0 && bytes > 0 {
            let earlier = held.earlier + 1;
            if earlier >= MAX_KAD_MESSAGES {
                return Err(io::ErrorKind::QuotaExceeded.into());
            }
            *held = Held { earlier, ..Held::default() };
        }
        held.read = held.read.saturating_add(bytes);
        held.pay(0, &self.opened.budget)
    }

    /// Pays for what is about to be written: an encoded answer is in memory before its first byte
    /// is written.
    fn before_write(&mut self, bytes: usize) -> io::Result<()> {
        match &mut self.protocol {
            Protocol::Kad(held) => held.pay(bytes, &self.opened.budget),
            Protocol::Unknown(_) | Protocol::Other => Ok(()),
        }
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
                held.written = held.written.saturating_add(bytes.len());
                Ok(())
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
        matches!(&self.protocol, Protocol::Kad(held) if held.read > 0)
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
        if let Some(inbound) = &mut self.inbound {
            inbound.before_write(buffer.len())?;
        }
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
