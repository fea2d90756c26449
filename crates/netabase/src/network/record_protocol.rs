//! The record protocol: puts, gets and versions of many records in one request, with an answer for each.
//!
//! A request and its response are a frame each, on a stream of their own. This module knows streams and
//! frames, `wire` knows what is in them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::StreamProtocol;
use libp2p::request_response::{self, Codec, ProtocolSupport};
use netabase_store::{ENVELOPE_OVERHEAD_BYTES, MAX_RECORD_KEY_BYTES};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(super) mod wire;

use wire::{Failure, Response};

/// How long a request may take, from its first byte to the last one of its answer.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The most requests of one connection under way, in both directions together; more are dropped.
pub(super) const MAX_CONCURRENT_STREAMS: usize = 64;
/// What a frame may have beyond one record of the largest size.
const FRAME_OVERHEAD_BYTES: usize = 64 * 1024;
/// How many bytes of requests from peers are in memory, read or being read. Who comes later is told that this
/// node is busy.
const MAX_INCOMING_BYTES: usize = 64 * 1024 * 1024;
/// How many bytes of our responses are in memory until they are sent. Who asks meanwhile is told that this node
/// is busy.
const MAX_OUTGOING_BYTES: usize = 64 * 1024 * 1024;
/// The longest response that is made whatever is waiting to be sent: one to a put of as many records as may be.
const SMALL_RESPONSE_BYTES: usize = 1024;
/// How much of a frame is read before more memory is taken for it, so that it costs a peer as much as us.
const CHUNK_BYTES: usize = 64 * 1024;
/// The longest frame that is read to its end, without keeping it, to say that it is too long.
const MAX_DISCARDED_BYTES: usize = 32 * 1024 * 1024;

/// What callers are told of an answer that is none to what was asked.
pub(super) const MEANINGLESS: &str = "the answer does not belong to the request";

/// The behaviour of the record protocol.
pub(super) type Behaviour = request_response::Behaviour<FrameCodec>;
/// What the record protocol says.
pub(super) type Event = request_response::Event<Frame, Frame>;

/// Makes the behaviour of the protocol `name`.
pub(super) fn behaviour(name: StreamProtocol, max_value_bytes: usize) -> Behaviour {
    let config = request_response::Config::default()
        .with_request_timeout(REQUEST_TIMEOUT)
        .with_max_concurrent_streams(MAX_CONCURRENT_STREAMS);
    let codec = FrameCodec {
        limit: max_frame_bytes(max_value_bytes),
        room: Arc::new(Semaphore::new(MAX_INCOMING_BYTES)),
    };
    request_response::Behaviour::with_codec(codec, [(name, ProtocolSupport::Full)], config)
}

/// Returns the length of the longest frame: one record of the largest size has room in it, and so have some
/// small ones where values are small.
pub(super) const fn max_frame_bytes(max_value_bytes: usize) -> usize {
    max_value_bytes + ENVELOPE_OVERHEAD_BYTES + MAX_RECORD_KEY_BYTES + FRAME_OVERHEAD_BYTES
}

/// A message as it is sent: its bytes, which several peers may be sent at a time.
#[derive(Debug, Clone)]
#[expect(unnameable_types, reason = "a part of the public behaviour that nobody needs to name")]
pub struct Frame {
    bytes: Result<Arc<Vec<u8>>, Failure>,
    /// Keeps the room of a request that came from a peer, and of the response to it.
    _room: Option<Arc<OwnedSemaphorePermit>>,
}

/// The room for responses until they are sent.
#[derive(Debug, Clone)]
pub(super) struct ResponseRoom(Arc<Semaphore>);

impl Default for ResponseRoom {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_OUTGOING_BYTES)))
    }
}

impl ResponseRoom {
    /// Makes a response, if there is room for it. A small one needs none: what was done must not be called
    /// undone, and there are only so many streams.
    pub(super) fn frame(&self, bytes: Vec<u8>) -> Frame {
        if bytes.len() <= SMALL_RESPONSE_BYTES {
            return Frame::new(bytes);
        }
        let mut taken = None;
        if !take_room(&self.0, bytes.len(), &mut taken) {
            return Frame::failure(Failure::Busy);
        }
        Frame { bytes: Ok(Arc::new(bytes)), _room: taken.map(Arc::new) }
    }
}

impl Frame {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes: Ok(Arc::new(bytes)), _room: None }
    }

    /// Makes the response that nothing was done.
    pub(super) fn failure(failure: Failure) -> Self {
        Self::new(Response::Failure(failure).encode(FRAME_OVERHEAD_BYTES))
    }

    /// Returns the bytes, or why they were not kept.
    pub(super) fn bytes(&self) -> Result<&[u8], Failure> {
        self.bytes.as_deref().map(Vec::as_slice).map_err(|failure| *failure)
    }
}

/// Reads and writes frames: their length (`u32`) and their bytes.
#[derive(Debug, Clone)]
#[expect(unnameable_types, reason = "a part of the public behaviour that nobody needs to name")]
pub struct FrameCodec {
    /// The longest frame.
    limit: usize,
    /// The room for requests from peers, in bytes.
    room: Arc<Semaphore>,
}

impl FrameCodec {
    /// Makes a codec for frames of at most `limit` bytes, and so many bytes of requests at a time.
    pub(super) fn new(limit: usize, room: usize) -> Self {
        Self { limit, room: Arc::new(Semaphore::new(room)) }
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
        read_frame(io, self.limit, Some(&self.room)).await
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
        write_frame(io, &frame).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, frame: Frame) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write_frame(io, &frame).await
    }
}

async fn write_frame<T: AsyncWrite + Unpin>(io: &mut T, frame: &Frame) -> io::Result<()> {
    let bytes = frame.bytes().map_err(|failure| io::Error::other(failure.text()))?;
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    io.write_all(&length.to_be_bytes()).await?;
    io.write_all(bytes).await?;
    io.flush().await
}

/// Reads a frame. One that is too long, or that there is no room for, is read to its end and not kept: who sent
/// it waits for that before it reads an answer.
async fn read_frame<T: AsyncRead + Unpin>(
    io: &mut T,
    limit: usize,
    room: Option<&Arc<Semaphore>>,
) -> io::Result<Frame> {
    let mut length = [0; 4];
    io.read_exact(&mut length).await?;
    let length = usize::try_from(u32::from_be_bytes(length)).map_err(io::Error::other)?;
    if length > limit {
        return discard(io, length, Failure::TooLarge).await;
    }
    let (mut bytes, mut taken) = (Vec::new(), None);
    while bytes.len() < length {
        let chunk = CHUNK_BYTES.min(length - bytes.len());
        if let Some(room) = room
            && !take_room(room, chunk, &mut taken)
        {
            let left = length - bytes.len();
            drop((bytes, taken));
            return discard(io, left, Failure::Busy).await;
        }
        let begin = bytes.len();
        bytes.resize(begin + chunk, 0);
        io.read_exact(bytes.split_at_mut(begin).1).await?;
    }
    Ok(Frame { bytes: Ok(Arc::new(bytes)), _room: taken.map(Arc::new) })
}

/// Takes room for `bytes` more, if there is any.
fn take_room(room: &Arc<Semaphore>, bytes: usize, taken: &mut Option<OwnedSemaphorePermit>) -> bool {
    let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
    let Ok(more) = Arc::clone(room).try_acquire_many_owned(permits) else { return false };
    match taken {
        Some(taken) => taken.merge(more),
        None => *taken = Some(more),
    }
    true
}

async fn discard<T: AsyncRead + Unpin>(io: &mut T, length: usize, failure: Failure) -> io::Result<Frame> {
    if length > MAX_DISCARDED_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, failure.text()));
    }
    let length = u64::try_from(length).map_err(io::Error::other)?;
    futures::io::copy(io.take(length), &mut futures::io::sink()).await?;
    Ok(Frame { bytes: Err(failure), _room: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(length: usize, bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(length).unwrap().to_be_bytes(), bytes].concat()
    }

    async fn read(bytes: &[u8], room: usize) -> (io::Result<Frame>, usize) {
        let mut io = futures::io::Cursor::new(bytes);
        let frame = read_frame(&mut io, 1000, Some(&Arc::new(Semaphore::new(room)))).await;
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

    #[tokio::test]
    async fn the_room_of_a_request_is_free_when_it_is_dropped() {
        let room = Arc::new(Semaphore::new(1000));
        let bytes = framed(600, &[0; 600]);
        let first = read_frame(&mut &bytes[..], 1000, Some(&room)).await.unwrap();
        assert_eq!(room.available_permits(), 400);
        drop(first);
        assert_eq!(room.available_permits(), 1000);
    }
}
