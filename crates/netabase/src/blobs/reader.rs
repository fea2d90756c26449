//! Reading of a blob that may be incomplete here.

use std::fmt;
use std::io::{self, SeekFrom};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use netabase_store::blob::{Blob, BlobError};
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};

use crate::blobs::BlobHolder;
use crate::blobs::fetch::Session;
use crate::blobs::limits::{READ_AHEAD_BYTES, READ_BYTES};
use crate::error::NetabaseError;
use crate::platform::{self, JoinHandle};
use crate::telemetry::trace_context::TraceContext;

/// A reader of a blob, which fetches missing parts while it reads.
///
/// A `BlobReader` implements tokio's `AsyncRead` and `AsyncSeek`. A read fetches the groups of 16
/// KiB that it overlaps; a sequential reader has 4 MiB fetched ahead. It reads at most the declared
/// size, whatever a peer sends, and only verified bytes. Dropping it stops its fetches.
pub struct BlobReader {
    session: Arc<Session>,
    blob: Blob,
    position: u64,
    /// The bytes that were read, with their offset.
    buffer: (u64, Vec<u8>),
    loading: Option<BoxFuture<'static, Loaded>>,
    /// The fetch ahead of the reader.
    ahead: Option<Ahead>,
    /// The end of the last read.
    read_until: Option<u64>,
}

struct Loaded {
    read: io::Result<(u64, Vec<u8>)>,
    ahead: Option<Ahead>,
}

/// Groups that are being fetched. Dropping it stops the fetch.
struct Ahead {
    groups: Range<u64>,
    fetching: JoinHandle<()>,
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.fetching.abort();
    }
}

impl BlobReader {
    pub(super) fn new(session: Arc<Session>) -> Self {
        let blob = session.blob();
        Self {
            session,
            blob,
            position: 0,
            buffer: (0, Vec::new()),
            loading: None,
            ahead: None,
            read_until: None,
        }
    }

    /// Returns the blob.
    pub fn blob(&self) -> Blob {
        self.blob
    }

    /// Returns the peers that were asked so far, and what each has sent.
    pub fn holders(&self) -> Vec<BlobHolder> {
        self.session.report()
    }

    /// Returns the buffered bytes from the position on.
    fn buffered(&self) -> &[u8] {
        let (begin, bytes) = &self.buffer;
        let skip = self.position.checked_sub(*begin).and_then(|skip| usize::try_from(skip).ok());
        skip.and_then(|skip| bytes.get(skip..)).unwrap_or_default()
    }

    fn load(&mut self, wanted: usize) -> BoxFuture<'static, Loaded> {
        let in_order = self.read_until == Some(self.position);
        let wanted = if in_order { READ_BYTES } else { (wanted as u64).clamp(1, READ_BYTES) };
        let bytes = self.position..self.position.saturating_add(wanted).min(self.blob.size);
        let load = Load {
            session: Arc::clone(&self.session),
            bytes,
            ahead: self.ahead.take(),
            fetch_ahead: in_order,
        };
        Box::pin(load.run())
    }
}

/// A running read.
struct Load {
    session: Arc<Session>,
    bytes: Range<u64>,
    ahead: Option<Ahead>,
    fetch_ahead: bool,
}

impl Load {
    async fn run(mut self) -> Loaded {
        let read = self.read().await;
        let ahead = if self.fetch_ahead { self.next_ahead() } else { self.ahead.take() };
        Loaded { read, ahead }
    }

    async fn read(&mut self) -> io::Result<(u64, Vec<u8>)> {
        let groups = self.bytes.start / Blob::GROUP_BYTES..self.bytes.end.div_ceil(Blob::GROUP_BYTES);
        self.session.partial().await.map_err(io_error)?;
        if !self.session.has(&groups) {
            if let Some(ahead) = self.ahead.as_mut().filter(|ahead| ahead.groups.contains(&groups.start)) {
                // The groups that it could not fetch are fetched below.
                let _ = (&mut ahead.fetching).await;
                self.ahead = None;
            }
            self.session.fetch(groups, &mut |_| {}).await.map_err(io_error)?;
        }
        let (store, blob, bytes) = (self.session.store().clone(), self.session.blob(), self.bytes.clone());
        let read = platform::blocking(move || store.read(&blob, bytes)).await;
        let read = read.map_err(io::Error::other)?.map_err(|error| io_error(error.into()))?;
        Ok((self.bytes.start, read))
    }

    /// Starts the next fetch ahead, unless one is running or the groups are stored.
    fn next_ahead(&mut self) -> Option<Ahead> {
        if let Some(ahead) = self.ahead.take_if(|ahead| !ahead.fetching.is_finished()) {
            return Some(ahead);
        }
        let size = self.session.blob().size;
        let end = self.bytes.end.saturating_add(READ_AHEAD_BYTES).min(size);
        let groups = self.bytes.end / Blob::GROUP_BYTES..end.div_ceil(Blob::GROUP_BYTES);
        if groups.is_empty() || self.session.has(&groups) {
            return None;
        }
        let (session, wanted) = (Arc::clone(&self.session), groups.clone());
        let fetching = platform::spawn(TraceContext::inherit(async move {
            // A read of these groups fetches them again and reports the error.
            let _ = session.fetch(wanted, &mut |_| {}).await;
        }));
        Some(Ahead { groups, fetching })
    }
}

fn io_error(error: NetabaseError) -> io::Error {
    let kind = match &error {
        NetabaseError::Blob(BlobError::Damaged { .. } | BlobError::Invalid { .. }) => {
            io::ErrorKind::InvalidData
        }
        NetabaseError::NotRunning | NetabaseError::Closed => io::ErrorKind::NotConnected,
        NetabaseError::BlobIncomplete { .. } => io::ErrorKind::NotFound,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

impl AsyncRead for BlobReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.position >= self.blob.size || out.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let buffered = self.buffered();
            if !buffered.is_empty() {
                let part = buffered.get(..out.remaining().min(buffered.len())).unwrap_or_default();
                out.put_slice(part);
                let read = u64::try_from(part.len()).unwrap_or_default();
                self.position += read;
                self.read_until = Some(self.position);
                return Poll::Ready(Ok(()));
            }
            let mut loading = match self.loading.take() {
                Some(loading) => loading,
                None => self.load(out.remaining()),
            };
            let Poll::Ready(Loaded { read, ahead }) = loading.as_mut().poll(context) else {
                self.loading = Some(loading);
                return Poll::Pending;
            };
            self.ahead = ahead;
            self.buffer = read?;
            if self.buffered().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}

impl AsyncSeek for BlobReader {
    fn start_seek(mut self: Pin<&mut Self>, to: SeekFrom) -> io::Result<()> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => self.blob.size.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        let position = position
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a position before the first byte"))?;
        if position != self.position {
            // The previous position's groups are no longer needed.
            (self.loading, self.read_until) = (None, None);
            if self
                .ahead
                .as_ref()
                .is_some_and(|ahead| !ahead.groups.contains(&(position / Blob::GROUP_BYTES)))
            {
                self.ahead = None;
            }
            self.position = position;
        }
        Ok(())
    }

    fn poll_complete(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(self.position))
    }
}

impl fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobReader")
            .field("blob", &self.blob)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
