//! Large values: the handles for applications.

use std::fmt;
use std::future::IntoFuture;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use libp2p::PeerId;
use netabase_store::blob::{Blob, BlobError, BlobStore};
use tokio::io::AsyncRead;

use crate::blobs::fetch::{Network, Session};
use crate::error::NetabaseError;
use crate::node::Inner;
use crate::platform::{self};

pub(crate) mod fetch;
mod input;
pub(crate) mod limits;
pub(crate) mod provide;
mod reader;
pub(crate) mod respond;

pub use reader::BlobReader;

/// The handle of large values, on this node and on others. Cloning is cheap.
///
/// A large value is a [`Blob`]: its hash and its size, which a record names in a field with
/// `#[blob]`. Its bytes are in a file beside the database, stored once for all records that name
/// it, and garbage-collected when no record names it. Other nodes fetch the bytes from any holder
/// and verify each part on arrival. `docs/blobs.md` is the guide.
///
/// ```
/// # use netabase::{MDNSDiscoveryConfig, Netabase, NetabaseConfig, StoreOptions, netabase_definition_module};
/// # #[netabase_definition_module(LibraryDefinition, LibraryKeys)]
/// # mod library {
/// #     use netabase::NetabaseModel;
/// #     use serde::{Deserialize, Serialize};
/// #     #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
/// #     #[netabase(LibraryDefinition)]
/// #     pub struct Book { #[primary_key] pub isbn: String }
/// # }
/// # use library::*;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let config = NetabaseConfig { store: StoreOptions::in_memory(), ..NetabaseConfig::default() };
/// use tokio::io::{AsyncReadExt, AsyncSeekExt};
///
/// let netabase = Netabase::<LibraryDefinition>::new_with_config(config)?;
/// let blob = netabase.blobs().add_bytes(vec![7; 1_000_000]).await?;
/// let mut reader = netabase.blobs().open(&blob)?;
/// reader.seek(std::io::SeekFrom::End(-2)).await?;
/// let mut last = Vec::new();
/// reader.read_to_end(&mut last).await?;
/// assert_eq!(last, [7, 7]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Blobs {
    inner: Arc<Inner>,
}

/// The progress of a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlobProgress {
    /// The bytes that are stored here and verified.
    pub present: u64,
    /// The bytes of the blob.
    pub size: u64,
}

/// The result of a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FetchOutcome {
    /// The blob.
    pub blob: Blob,
    /// The bytes that were fetched; the others were stored before.
    pub fetched: u64,
    /// The duration.
    pub elapsed: Duration,
    /// The peers that were asked, and what each has sent.
    pub holders: Vec<BlobHolder>,
}

/// A peer's part in a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlobHolder {
    /// The peer.
    pub peer: PeerId,
    /// The bytes of the blob that the peer has delivered.
    pub bytes: u64,
    /// The slices that the peer has delivered.
    pub slices: u64,
    /// The slices that the peer delivered after another peer had.
    pub late: u64,
    /// The peer's conduct.
    pub conduct: HolderConduct,
}

/// The conduct of a peer that was asked for a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HolderConduct {
    /// The peer is not known to have failed.
    Good,
    /// The peer does not have the blob, or only a part of it.
    NotHere,
    /// The peer did not answer, or was busy for too long.
    Failed {
        /// The reason.
        reason: Arc<str>,
    },
    /// The peer sent bytes that do not match the blob's hash. It was not asked again, and its score
    /// is charged.
    Corrupt,
}

impl Blobs {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// Returns the store of this node's blobs.
    pub fn store(&self) -> BlobStore {
        self.inner.parts.store.blobs()
    }

    /// Returns whether this node has all of a blob.
    pub fn has(&self, blob: &Blob) -> bool {
        self.store().has(blob)
    }

    /// Adds a value from memory; returns its name when it is durable.
    ///
    /// The value is kept for an hour ([`blob_grace`](crate::StoreOptions::blob_grace)), and as long
    /// as a record names it. While the swarm runs, the node advertises the blob. Cancelling the
    /// call does not cancel the operation.
    pub async fn add_bytes(&self, value: impl AsRef<[u8]> + Send + 'static) -> Result<Blob, NetabaseError> {
        self.add(move |store| store.add_bytes(value.as_ref())).await
    }

    /// Adds a copy of a file; returns the name of its content. Cancelling the call does not cancel
    /// the operation.
    pub async fn add_file(&self, path: impl Into<PathBuf>) -> Result<Blob, NetabaseError> {
        let path = path.into();
        self.add(move |store| store.add_file(path)).await
    }

    /// Adds the bytes of a reader, up to its end; returns their name.
    ///
    /// Cancelling the call adds nothing.
    pub async fn add_reader(&self, reader: impl AsyncRead + Send) -> Result<Blob, NetabaseError> {
        let (blocking, feed) = input::bridge(reader);
        let (added, ()) = futures::join!(self.add(move |store| store.add_reader(blocking)), feed);
        added
    }

    /// Opens a blob for reading; parts that are not stored here are fetched when they are read.
    ///
    /// Without a running swarm, only stored parts can be read. Fetched parts are stored, and are
    /// not deleted while the reader lives.
    pub fn open(&self, blob: &Blob) -> Result<BlobReader, NetabaseError> {
        Ok(BlobReader::new(self.session(blob, Vec::new())?))
    }

    /// Returns a fetch of a blob, which starts when it is awaited.
    pub fn fetch(&self, blob: &Blob) -> Fetch {
        Fetch {
            blobs: self.clone(),
            blob: *blob,
            bytes: 0..blob.size,
            holders: Vec::new(),
            timeout: None,
            progress: Box::new(|_| {}),
        }
    }

    fn session(&self, blob: &Blob, hints: Vec<PeerId>) -> Result<Arc<Session>, NetabaseError> {
        let network =
            self.inner.running().ok().map(|swarm| Network::new(&self.inner.parts, swarm.commands()));
        Ok(Session::new(self.store(), *blob, network, hints)?)
    }

    async fn add(
        &self,
        add: impl FnOnce(BlobStore) -> Result<Blob, BlobError> + Send + 'static,
    ) -> Result<Blob, NetabaseError> {
        let store = self.store();
        let added = platform::blocking(move || add(store)).await.map_err(NetabaseError::task)?;
        self.announce();
        Ok(added?)
    }

    /// Advertises the stored blobs soon.
    fn announce(&self) {
        if let Ok(swarm) = self.inner.running() {
            swarm.announce();
        }
    }
}

impl fmt::Debug for Blobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Blobs").field(&self.store()).finish()
    }
}

/// A fetch of a blob, which starts when it is awaited.
///
/// Dropping an unfinished fetch keeps the received parts, and the next fetch resumes, also after a
/// restart.
#[must_use = "nothing is fetched before it is awaited"]
pub struct Fetch {
    blobs: Blobs,
    blob: Blob,
    bytes: Range<u64>,
    holders: Vec<PeerId>,
    timeout: Option<Duration>,
    progress: Box<dyn FnMut(BlobProgress) + Send>,
}

impl Fetch {
    /// Fetches only the groups of 16 KiB that overlap `bytes`. Default: the whole blob.
    pub fn range(self, bytes: Range<u64>) -> Self {
        Self { bytes, ..self }
    }

    /// Adds a peer that may have the blob, such as the author of the record that names it.
    pub fn from(mut self, peer: PeerId) -> Self {
        self.holders.push(peer);
        self
    }

    /// Sets the timeout. Default: 30 s without a verified part.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }

    /// Calls `progress` after each received part.
    pub fn progress(self, progress: impl FnMut(BlobProgress) + Send + 'static) -> Self {
        Self { progress: Box::new(progress), ..self }
    }

    async fn run(mut self) -> Result<FetchOutcome, NetabaseError> {
        let begin = platform::now();
        let session = self.blobs.session(&self.blob, self.holders)?;
        let partial = session.partial().await?;
        let before = partial.present_bytes();
        let bytes = self.bytes.start.min(self.blob.size)..self.bytes.end.min(self.blob.size);
        let is_whole = bytes == (0..self.blob.size);
        let groups = if is_whole {
            0..self.blob.size.div_ceil(Blob::GROUP_BYTES).max(1)
        } else {
            bytes.start / Blob::GROUP_BYTES..bytes.end.div_ceil(Blob::GROUP_BYTES)
        };
        if is_whole {
            partial.check_room()?;
        }
        let fetched = session.fetch(groups, &mut *self.progress);
        match self.timeout {
            Some(after) => match platform::timeout(after, fetched).await {
                Ok(fetched) => fetched?,
                Err(_) => return Err(NetabaseError::Timeout { after }),
            },
            None => fetched.await?,
        }
        let flushing = partial.clone();
        let flushed = platform::blocking(move || flushing.flush()).await;
        flushed.map_err(NetabaseError::task)??;
        self.blobs.announce();
        Ok(FetchOutcome {
            blob: self.blob,
            fetched: partial.present_bytes().saturating_sub(before),
            elapsed: platform::since(begin),
            holders: session.report(),
        })
    }
}

impl IntoFuture for Fetch {
    type Output = Result<FetchOutcome, NetabaseError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl fmt::Debug for Fetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetch").field("blob", &self.blob).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}
