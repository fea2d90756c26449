//! Frames: a request and its response are one frame each, on a stream of their own, with a bounded
//! length and bounded memory.
//!
//! [`protocol`](crate::protocol) has the contents of frames.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::request_response::{self, Codec, ProtocolSupport};
use libp2p::{PeerId, StreamProtocol};
use netabase_store::{Envelope, RecordKey};
use parking_lot::Mutex;

use crate::platform;
use crate::protocol::record::{Failure, Response};
pub(crate) use crate::rpc::behaviour::Behaviour;
use crate::rpc::budget::{ByteBudget, PeerBudget, Taken};
use crate::rpc::limits::{
    CHUNK_BYTES, CHUNK_PATIENCE, FIRST_CHUNK_BYTES, FRAME_OVERHEAD_BYTES, MAX_CONCURRENT_STREAMS,
    MAX_DISCARDED_BYTES, MAX_TRACES_PER_REQUEST, REQUEST_TIMEOUT, SMALL_RESPONSE_BYTES,
};
use crate::telemetry::trace_context::{TRACE_CONTEXT_BYTES, TraceContext};

/// The error of callers whose response does not belong to their request.
pub(crate) const MEANINGLESS: &str = "the answer does not belong to the request";

/// An event of a request protocol.
pub(crate) type Event = request_response::Event<Frame, Frame>;

/// Creates the behaviour of the protocol `name`, whose frames fit a record of the largest size.
pub(crate) fn behaviour(name: StreamProtocol, max_value_bytes: usize, requests: ByteBudget) -> Behaviour {
    framed(name, max_frame_bytes(max_value_bytes), requests)
}

/// Creates the behaviour of the protocol `name` with frames of at most `limit` bytes, whose
/// requests have the memory `requests`.
pub(crate) fn framed(name: StreamProtocol, limit: usize, requests: ByteBudget) -> Behaviour {
    let config = request_response::Config::default()
        .with_request_timeout(REQUEST_TIMEOUT)
        .with_max_concurrent_streams(MAX_CONCURRENT_STREAMS);
    let codec = FrameCodec::new(limit, requests);
    let connecting = Arc::clone(&codec.connecting);
    let requests = request_response::Behaviour::with_codec(codec, [(name, ProtocolSupport::Full)], config);
    Behaviour::new(requests, connecting)
}

/// Returns the length of the longest frame, which fits one record of the largest size, and some
/// small ones even if the limit of values is small.
pub(crate) const fn max_frame_bytes(max_value_bytes: usize) -> usize {
    max_value_bytes + Envelope::OVERHEAD_BYTES + RecordKey::MAX_BYTES + FRAME_OVERHEAD_BYTES
}

/// A message: its bytes, which requests to several peers share.
#[derive(Debug, Clone)]
#[expect(unnameable_types, reason = "a part of the public behaviour that nobody needs to name")]
pub struct Frame {
    bytes: Result<Arc<Vec<u8>>, Failure>,
    /// The traces of a request.
    traces: Vec<TraceContext>,
    /// The memory budget of a peer's request, and of the response to it.
    taken: Option<Arc<Taken>>,
}

/// The memory budget of responses until they are sent.
#[derive(Debug, Clone)]
pub(crate) struct ResponseBudget(ByteBudget);

impl ResponseBudget {
    /// Creates a budget of `all` bytes of responses, of at most `limit` bytes each.
    pub(crate) fn new(all: usize, limit: usize) -> Self {
        Self(ByteBudget::new(all, limit))
    }

    /// Returns a response to `peer`, or `Busy` if the budget is used up. A small response needs no
    /// budget: the outcome of a put must be reported, and the number of streams is bounded.
    pub(crate) fn frame(&self, peer: PeerId, bytes: Vec<u8>) -> Frame {
        if bytes.len() <= SMALL_RESPONSE_BYTES {
            return Frame::new(bytes);
        }
        let mut taken = None;
        if !self.0.of(peer).take(bytes.len(), &mut taken) {
            return Frame::failure(Failure::Busy);
        }
        Frame { taken: taken.map(Arc::new), ..Frame::new(bytes) }
    }
}

impl Frame {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes: Ok(Arc::new(bytes)), traces: Vec::new(), taken: None }
    }

    /// Sets the traces of a request: the first [`MAX_TRACES_PER_REQUEST`] distinct ones.
    pub(crate) fn traced(mut self, traces: impl IntoIterator<Item = TraceContext>) -> Self {
        for trace in traces {
            if self.traces.len() >= MAX_TRACES_PER_REQUEST {
                break;
            }
            if !self.traces.contains(&trace) {
                self.traces.push(trace);
            }
        }
        self
    }

    /// Returns the traces of a request, which a peer chooses freely.
    pub(crate) fn traces(&self) -> &[TraceContext] {
        &self.traces
    }

    /// Returns the response of a failure.
    pub(crate) fn failure(failure: Failure) -> Self {
        Self::new(Response::Failure(failure).encode(FRAME_OVERHEAD_BYTES))
    }

    /// Returns the bytes, or the failure because of which they were discarded.
    pub(crate) fn bytes(&self) -> Result<&[u8], Failure> {
        self.bytes.as_deref().map(Vec::as_slice).map_err(|failure| *failure)
    }
}

/// The codec of frames: a length (`u32`) and the bytes. The traces precede the frame of a request.
///
/// Each connection has a clone of the codec, which takes the peer of the connection from
/// `connecting`.
#[derive(Debug)]
#[expect(unnameable_types, reason = "a part of the public behaviour that nobody needs to name")]
pub struct FrameCodec {
    /// The most bytes of a frame.
    limit: usize,
    /// The memory budget of peers' requests.
    budget: ByteBudget,
    /// The peer of the connection that is being created.
    connecting: Arc<Mutex<Option<PeerId>>>,
    /// The share of the connection's peer, or `None` in the original, which has no connection.
    of_peer: Option<PeerBudget>,
}

impl FrameCodec {
    /// Creates a codec with frames of at most `limit` bytes, whose requests have the memory
    /// `budget`.
    fn new(limit: usize, budget: ByteBudget) -> Self {
        Self { limit, budget, connecting: Arc::default(), of_peer: None }
    }
}

impl Clone for FrameCodec {
    fn clone(&self) -> Self {
        let connecting = || self.connecting.lock().map(|peer| self.budget.of(peer));
        Self {
            limit: self.limit,
            budget: self.budget.clone(),
            connecting: Arc::clone(&self.connecting),
            of_peer: self.of_peer.clone().or_else(connecting),
        }
    }
}

impl Codec for FrameCodec {
    type Protocol = StreamProtocol;
    type Request = Frame;
    type Response = Frame;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Frame>
    where
        T: AsyncRead + Unpin + Send,
    {
        // Requests need a connection.
        let budget = self.of_peer.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let traces = read_traces(io).await?;
        Ok(Frame { traces, ..read_frame(io, self.limit, Some(budget)).await? })
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Frame>
    where
        T: AsyncRead + Unpin + Send,
    {
        read_frame(io, self.limit, None).await
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, frame: Frame) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write_traces(io, frame.traces()).await?;
        write_frame(io, &frame).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, frame: Frame) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write_frame(io, &frame).await
    }
}

/// Reads the traces of a request.
async fn read_traces<T: AsyncRead + Unpin>(io: &mut T) -> io::Result<Vec<TraceContext>> {
    let mut count = [0; 1];
    io.read_exact(&mut count).await?;
    let [count] = count.map(usize::from);
    if count > MAX_TRACES_PER_REQUEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a request has too many traces"));
    }
    let mut traces = Vec::with_capacity(count);
    for _ in 0..count {
        let mut bytes = [0; TRACE_CONTEXT_BYTES];
        io.read_exact(&mut bytes).await?;
        traces.extend(TraceContext::from_bytes(bytes));
    }
    Ok(traces)
}

async fn write_traces<T: AsyncWrite + Unpin>(io: &mut T, traces: &[TraceContext]) -> io::Result<()> {
    let count = u8::try_from(traces.len()).map_err(io::Error::other)?;
    let mut bytes = vec![count];
    bytes.extend(traces.iter().flat_map(|trace| trace.to_bytes()));
    io.write_all(&bytes).await
}

async fn write_frame<T: AsyncWrite + Unpin>(io: &mut T, frame: &Frame) -> io::Result<()> {
    let bytes = frame.bytes().map_err(|failure| io::Error::other(failure.text()))?;
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    io.write_all(&length.to_be_bytes()).await?;
    let taken = frame.taken.as_deref();
    for chunk in bytes.chunks(CHUNK_BYTES) {
        while_free(taken, io.write_all(chunk)).await?;
    }
    while_free(taken, io.flush()).await
}

/// Reads or writes a part of a frame. While its memory is scarce, nobody is waited for who takes
/// longer than [`CHUNK_PATIENCE`].
async fn while_free<T>(taken: Option<&Taken>, part: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let mut part = pin!(part);
    loop {
        match platform::timeout(CHUNK_PATIENCE, &mut part).await {
            Ok(done) => return done,
            Err(_) if taken.is_some_and(Taken::is_scarce) => return Err(io::ErrorKind::TimedOut.into()),
            Err(_) => {}
        }
    }
}

/// Reads a frame. A frame that is too long, or that exceeds the budget, is read to its end and
/// discarded, since its sender reads the response only afterwards.
async fn read_frame<T: AsyncRead + Unpin>(
    io: &mut T,
    limit: usize,
    budget: Option<&PeerBudget>,
) -> io::Result<Frame> {
    let mut length = [0; 4];
    io.read_exact(&mut length).await?;
    let length = usize::try_from(u32::from_be_bytes(length)).map_err(io::Error::other)?;
    if length > limit {
        return discard(io, length, Failure::TooLarge).await;
    }
    let (mut bytes, mut taken) = (Vec::new(), None);
    while bytes.len() < length {
        let chunk = bytes.len().clamp(FIRST_CHUNK_BYTES, CHUNK_BYTES).min(length - bytes.len());
        if let Some(budget) = budget
            && !budget.take(chunk, &mut taken)
        {
            let left = length - bytes.len();
            drop((bytes, taken));
            return discard(io, left, Failure::Busy).await;
        }
        let begin = bytes.len();
        bytes.resize(begin + chunk, 0);
        while_free(taken.as_ref(), io.read_exact(bytes.split_at_mut(begin).1)).await?;
    }
    Ok(Frame { taken: taken.map(Arc::new), ..Frame::new(bytes) })
}

async fn discard<T: AsyncRead + Unpin>(io: &mut T, length: usize, failure: Failure) -> io::Result<Frame> {
    if length > MAX_DISCARDED_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, failure.text()));
    }
    let length = u64::try_from(length).map_err(io::Error::other)?;
    futures::io::copy(io.take(length), &mut futures::io::sink()).await?;
    Ok(Frame { bytes: Err(failure), traces: Vec::new(), taken: None })
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use super::*;
    use crate::rpc::limits::{MAX_INCOMING_BYTES, MAX_OUTGOING_BYTES, PEER_SHARE};

    fn framed(length: usize, bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(length).unwrap().to_be_bytes(), bytes].concat()
    }

    async fn read(bytes: &[u8], budget: usize) -> (io::Result<Frame>, usize) {
        let mut io = futures::io::Cursor::new(bytes);
        let budget = ByteBudget::new(4 * budget, budget).of(PeerId::random());
        let frame = read_frame(&mut io, 1000, Some(&budget)).await;
        (frame, usize::try_from(io.position()).unwrap())
    }

    #[tokio::test]
    async fn a_frame_is_its_length_and_its_bytes() {
        let mut written = Vec::new();
        write_frame(&mut written, &Frame::new(b"hello".to_vec())).await.unwrap();
        assert_eq!(written, b"\x00\x00\x00\x05hello");
        assert_eq!(read(&written, 1000).await.0.unwrap().bytes(), Ok(&b"hello"[..]));
    }

    #[tokio::test]
    async fn the_traces_of_a_request_are_in_front_of_its_frame() {
        let codec = FrameCodec::new(1000, ByteBudget::new(MAX_INCOMING_BYTES, 1000));
        *codec.connecting.lock() = Some(PeerId::random());
        let (mut of_connection, protocol) = (codec.clone(), StreamProtocol::new("/test"));
        let traces: Vec<_> = (0..=MAX_TRACES_PER_REQUEST).map(|_| TraceContext::begin()).collect();
        for count in [0, 1, MAX_TRACES_PER_REQUEST] {
            let frame = Frame::new(b"hello".to_vec()).traced(traces.iter().copied().take(count));
            let mut written = futures::io::Cursor::new(Vec::new());
            of_connection.write_request(&protocol, &mut written, frame).await.unwrap();
            let written = written.into_inner();
            assert_eq!(written.len(), 1 + count * TRACE_CONTEXT_BYTES + 4 + 5);
            let read = of_connection.clone().read_request(&protocol, &mut &written[..]).await.unwrap();
            assert_eq!((read.traces(), read.bytes()), (&traces[..count], Ok(&b"hello"[..])));
        }
        let all = Frame::new(Vec::new()).traced(traces.iter().copied().chain([traces[0]]));
        assert_eq!(all.traces(), &traces[..MAX_TRACES_PER_REQUEST], "the others are left out");
        let nothing = [&[1][..], &[0; TRACE_CONTEXT_BYTES], &framed(2, b"ok")].concat();
        let read = of_connection.clone().read_request(&protocol, &mut &nothing[..]).await.unwrap();
        assert_eq!((read.traces(), read.bytes()), (&[][..], Ok(&b"ok"[..])), "zero is no name");
        let many = [&[17][..], &[1; 17 * TRACE_CONTEXT_BYTES], &framed(2, b"ok")].concat();
        assert!(of_connection.read_request(&protocol, &mut &many[..]).await.is_err());
    }

    #[tokio::test]
    async fn a_frame_over_the_limit_is_read_and_not_kept() {
        let (frame, read) = read(&framed(1001, &[0; 1001]), 1000).await;
        assert_eq!((frame.unwrap().bytes(), read), (Err(Failure::TooLarge), 4 + 1001));
    }

    #[tokio::test]
    async fn a_frame_without_room_is_read_and_not_kept() {
        let (frame, read) = read(&framed(100, &[0; 100]), 99).await;
        assert_eq!((frame.unwrap().bytes(), read), (Err(Failure::Busy), 4 + 100));
    }

    #[tokio::test]
    async fn a_length_without_bytes_is_an_error_and_takes_no_memory() {
        assert!(read(&framed(1000, b"cut off"), 1000).await.0.is_err());
        let (frame, read) = read(&framed(MAX_DISCARDED_BYTES + 1, &[0; 50]), 1000).await;
        assert!(frame.is_err());
        assert_eq!(read, 4);
    }

    /// Somebody who says nothing more.
    struct Silent;

    impl AsyncRead for Silent {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn nobody_is_waited_for_who_is_slow_while_memory_is_scarce() {
        const MOST: usize = 2 * CHUNK_BYTES;
        let budget = ByteBudget::new(4 * MOST, MOST);
        let slow = budget.of(PeerId::random());
        let mut io = AsyncReadExt::chain(&b"\0\0\xff\xff one"[..], Silent);
        let mut reading = pin!(read_frame(&mut io, MOST, Some(&slow)));
        let ended = platform::timeout(CHUNK_PATIENCE * 3 / 2, &mut reading).await;
        assert!(ended.is_err(), "nobody else needs the memory");
        assert!(slow.has(MOST - FIRST_CHUNK_BYTES) && !slow.has(MOST), "it has as much as it sends");
        let mut taken = [(); 2].map(|()| None);
        assert!(taken.iter_mut().all(|taken| budget.of(PeerId::random()).take(MOST, taken)));
        let ended = platform::timeout(2 * CHUNK_PATIENCE, reading).await.expect("it ends");
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(slow.has(CHUNK_BYTES));
    }

    #[tokio::test]
    async fn the_room_of_a_request_is_free_when_it_is_dropped() {
        let budget = ByteBudget::new(4000, 1000).of(PeerId::random());
        let bytes = framed(600, &[0; 600]);
        let first = read_frame(&mut &bytes[..], 1000, Some(&budget)).await.unwrap();
        let mut taken = None;
        assert!(!budget.take(401, &mut taken));
        drop(first);
        assert!(budget.take(1000, &mut taken));
    }

    #[tokio::test]
    async fn the_connections_of_a_peer_share_its_room_for_requests() {
        let codec = FrameCodec::new(1000, ByteBudget::new(MAX_INCOMING_BYTES, 1000));
        let protocol = StreamProtocol::new("/test");
        let bytes = [&[0][..], &framed(1000, &[0; 1000])].concat();
        assert!(
            codec.clone().read_request(&protocol, &mut &bytes[..]).await.is_err(),
            "there is no connection"
        );
        let connect = |peer| {
            *codec.connecting.lock() = Some(peer);
            let of_connection = codec.clone();
            *codec.connecting.lock() = None;
            of_connection
        };
        let peers = [PeerId::random(), PeerId::random()];
        let connections = [connect(peers[0]), connect(peers[0]), connect(peers[1])];
        let mut held = Vec::new();
        // Each request is read by another clone.
        while let Ok(frame) =
            connections[held.len() % 2].clone().read_request(&protocol, &mut &bytes[..]).await
            && frame.bytes().is_ok()
        {
            held.push(frame);
        }
        assert_eq!(held.len(), MAX_INCOMING_BYTES / PEER_SHARE / 1000);
        let frame = connections[2].clone().read_request(&protocol, &mut &bytes[..]).await.unwrap();
        assert!(frame.bytes().is_ok(), "another peer has its own");
    }

    #[test]
    fn the_responses_to_one_peer_leave_room_for_those_to_others() {
        let (budget, peers) =
            (ResponseBudget::new(MAX_OUTGOING_BYTES, 1000), [PeerId::random(), PeerId::random()]);
        let large = || vec![0; 2 * 1024 * 1024];
        let held = [(); 2].map(|()| budget.frame(peers[0], large()));
        assert!(held.iter().all(|frame| frame.bytes().is_ok_and(|bytes| bytes.len() > 1000)));
        let is_busy = |frame: Frame| {
            let busy = Frame::failure(Failure::Busy);
            frame.bytes() == busy.bytes()
        };
        assert!(is_busy(budget.frame(peers[0], large())));
        assert!(!is_busy(budget.frame(peers[1], large())));
        let small = budget.frame(peers[0], vec![7; SMALL_RESPONSE_BYTES]);
        assert_eq!(small.bytes().unwrap().len(), SMALL_RESPONSE_BYTES, "what was done is told in any case");
        drop(held);
        assert!(!is_busy(budget.frame(peers[0], large())));
    }
}
