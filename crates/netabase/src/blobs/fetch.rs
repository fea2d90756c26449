//! Fetching of parts of a blob from several holders concurrently.
//!
//! The missing groups are cut into slices, and each holder with a free slot is asked for the next
//! one. So a fast holder serves more than a slow one, and the slices of a dead one go to another.
//! At the end, an idle holder is asked for the slices that others are slow to send. Each slice is
//! verified on arrival, on a blocking thread, and stored before more is requested.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use libp2p::PeerId;
use netabase_store::Refusal;
use netabase_store::blob::{Blob, BlobError, BlobHold, BlobStore, PartialBlob};
use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore};

use crate::admission::Offence;
use crate::blobs::limits::{
    FETCH_TICK, MAX_ASKED_PEERS, MAX_SEARCHES, MAX_SLICES, SEARCH_PAUSE, STALL_TIMEOUT, STEAL_AFTER,
};
use crate::blobs::{BlobHolder, BlobProgress, HolderConduct};
use crate::error::NetabaseError;
use crate::event_loop::command::Commands;
use crate::platform::{self, Instant, sleep_until};
use crate::protocol::blob::{Request, Response};
use crate::protocol::record::Failure;
use crate::rpc::Protocol;
use crate::rpc::frame::{Frame, MEANINGLESS};
use crate::rpc::outbox::Silence;
use crate::swarm::Parts;
use crate::telemetry::metrics::Meters;

mod find;
mod holders;
mod work;

use find::Found;
use holders::Holders;
use work::Work;

/// The state that fetches of a blob share: its stored groups, and its holders.
#[derive(Debug)]
pub(crate) struct Session {
    blob: Blob,
    store: BlobStore,
    /// Opened by the first fetch that needs it, on a blocking thread.
    partial: OnceCell<PartialBlob>,
    _hold: BlobHold,
    network: Option<Network>,
    holders: Mutex<Holders>,
    /// Only one part is fetched at a time; after the wait it may be stored already.
    turn: tokio::sync::Mutex<()>,
}

/// The means to ask holders.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    commands: Commands,
    local: PeerId,
    window: Arc<Semaphore>,
    meters: Arc<Meters>,
}

impl Network {
    pub(crate) fn new(parts: &Parts, commands: Commands) -> Self {
        let local = parts.identity.public().to_peer_id();
        let (window, meters) = (Arc::clone(&parts.blob_window), Arc::clone(parts.metrics.meters()));
        Self { commands, local, window, meters }
    }

    async fn ask(&self, peer: PeerId, request: &Request) -> Result<Frame, Silence> {
        self.commands.ask(Protocol::Blobs, peer, Frame::new(request.encode())).await
    }

    /// Reports a peer for a part that does not match the hash.
    async fn report(&self, peer: PeerId) {
        // A stopped swarm counts no offences.
        let _ = self.commands.refuse(peer, vec![Offence::passed_on(None, Refusal::InvalidBlob)]).await;
    }
}

/// The outcome of the request for a slice.
#[derive(Debug)]
enum Delivery {
    /// The slice is stored; `new` bytes of it were new.
    Stored { new: u64 },
    /// The holder does not have the slice.
    NotHere,
    /// The holder is too busy.
    Busy,
    /// The slice does not match the hash.
    Corrupt,
    /// There was no answer, or a meaningless one.
    Failed(String),
    /// The slice cannot be stored here.
    Here(BlobError),
}

/// The answer to the request for a slice.
struct Answered {
    peer: PeerId,
    slice: Range<u64>,
    delivery: Delivery,
}

/// Saves the received parts, on a blocking thread.
impl Drop for Session {
    fn drop(&mut self) {
        if let (Ok(runtime), Some(partial)) = (tokio::runtime::Handle::try_current(), self.partial.take()) {
            runtime.spawn_blocking(move || {
                if let Err(error) = partial.flush() {
                    tracing::warn!(%error, "the last received parts of a blob may be lost");
                }
            });
        }
    }
}

impl Session {
    /// Starts or resumes a blob; `hints` are peers that may have it.
    pub(crate) fn new(
        store: BlobStore,
        blob: Blob,
        network: Option<Network>,
        hints: Vec<PeerId>,
    ) -> Result<Arc<Self>, BlobError> {
        if blob.size > Blob::MAX_BYTES {
            return Err(BlobError::TooLarge { size: blob.size, limit: Blob::MAX_BYTES });
        }
        let local = network.as_ref().map(|network| network.local);
        let (hold, holders) = (store.hold(&blob), Mutex::new(Holders::new(local, hints)));
        let turn = tokio::sync::Mutex::new(());
        Ok(Arc::new(Self { blob, store, partial: OnceCell::new(), _hold: hold, network, holders, turn }))
    }

    pub(crate) fn blob(&self) -> Blob {
        self.blob
    }

    pub(crate) fn store(&self) -> &BlobStore {
        &self.store
    }

    /// Returns the stored groups of the blob.
    pub(crate) async fn partial(&self) -> Result<&PartialBlob, NetabaseError> {
        let make = || async {
            let (store, blob) = (self.store.clone(), self.blob);
            let made = platform::blocking(move || store.partial(&blob)).await;
            Ok(made.map_err(NetabaseError::task)??)
        };
        self.partial.get_or_try_init(make).await
    }

    /// Returns what each holder has sent.
    pub(crate) fn report(&self) -> Vec<BlobHolder> {
        self.holders.lock().report()
    }

    /// Returns whether all of some groups are stored, as far as is known.
    pub(crate) fn has(&self, groups: &Range<u64>) -> bool {
        self.partial.get().is_some_and(|partial| partial.first_missing(groups.clone(), 1).is_none())
    }

    /// Fetches the whole blob, if the limits allow it; returns when it is durable.
    pub(crate) async fn fetch_whole(
        &self,
        progress: &mut (dyn FnMut(BlobProgress) + Send),
    ) -> Result<(), NetabaseError> {
        let partial = self.partial().await?;
        partial.check_room()?;
        self.fetch(0..self.blob.size.div_ceil(Blob::GROUP_BYTES).max(1), progress).await?;
        let flushing = partial.clone();
        Ok(platform::blocking(move || flushing.flush()).await.map_err(NetabaseError::task)??)
    }

    /// Fetches the missing ones of some groups.
    ///
    /// Cancelling the call stops the fetch; received groups stay.
    pub(crate) async fn fetch(
        &self,
        groups: Range<u64>,
        progress: &mut (dyn FnMut(BlobProgress) + Send),
    ) -> Result<(), NetabaseError> {
        let partial = self.partial().await?;
        let _turn = self.turn.lock().await;
        if self.has(&groups) {
            return Ok(());
        }
        let network = self.network.as_ref().ok_or(NetabaseError::NotRunning)?;
        Fetching::new(self, partial, network, groups).run(progress).await
    }
}

/// A running fetch.
struct Fetching<'a> {
    session: &'a Session,
    partial: &'a PartialBlob,
    network: &'a Network,
    work: Work,
    answers: FuturesUnordered<BoxFuture<'static, Answered>>,
    searches: FuturesUnordered<BoxFuture<'static, Found>>,
    searched: u32,
    search_at: Instant,
    /// The last time at which a requested part was stored.
    advanced: Instant,
}

impl<'a> Fetching<'a> {
    fn new(session: &'a Session, partial: &'a PartialBlob, network: &'a Network, groups: Range<u64>) -> Self {
        session.holders.lock().forgive_busy();
        let now = platform::now();
        Self {
            session,
            partial,
            network,
            work: Work::new(groups),
            answers: FuturesUnordered::new(),
            searches: FuturesUnordered::new(),
            searched: 0,
            search_at: now,
            advanced: now,
        }
    }

    async fn run(mut self, progress: &mut (dyn FnMut(BlobProgress) + Send)) -> Result<(), NetabaseError> {
        loop {
            self.ask_holders();
            if self.work.is_done(self.partial) {
                return Ok(());
            }
            self.search_if_alone();
            let nobody = self.answers.is_empty()
                && self.searches.is_empty()
                && !self.session.holders.lock().any_left();
            if (nobody && self.searched >= MAX_SEARCHES) || platform::since(self.advanced) > STALL_TIMEOUT {
                return Err(self.incomplete());
            }
            tokio::select! {
                Some(answered) = self.answers.next() => {
                    self.on_answered(answered).await?;
                    let size = self.session.blob().size;
                    progress(BlobProgress { present: self.partial.present_bytes(), size });
                }
                Some(found) = self.searches.next() => self.on_found(found),
                () = sleep_until(platform::now() + FETCH_TICK) => {}
            }
        }
    }

    fn incomplete(&self) -> NetabaseError {
        let blob = self.session.blob();
        let missing = blob.size - self.partial.present_bytes();
        NetabaseError::BlobIncomplete { blob, missing, holders: self.session.report().into() }
    }

    /// Searches for holders, if none can be asked and no search is running.
    fn search_if_alone(&mut self) {
        let now = platform::now();
        let is_needed = !self.session.holders.lock().any_left() && self.answers.is_empty();
        if !is_needed || !self.searches.is_empty() || self.searched >= MAX_SEARCHES || now < self.search_at {
            return;
        }
        self.searched += 1;
        self.search_at = now + if self.searched < 2 { Duration::ZERO } else { SEARCH_PAUSE };
        self.searches.push(find::providers(self.network.clone(), self.session.blob()).boxed());
        self.searches.push(find::connected(self.network.clone()).boxed());
    }

    fn on_found(&mut self, found: Found) {
        match found {
            Found::Holders(peers) => peers.into_iter().for_each(|peer| self.session.holders.lock().add(peer)),
            Found::Connected(peers) => {
                let known: HashSet<PeerId> = self.session.holders.lock().known();
                let unknown = peers.into_iter().filter(|peer| !known.contains(peer));
                for peer in unknown.take(MAX_ASKED_PEERS) {
                    let (network, blob) = (self.network.clone(), self.session.blob());
                    self.searches.push(find::has(network, peer, blob).boxed());
                }
            }
        }
    }

    /// Asks holders for slices, as long as one has a free slot.
    fn ask_holders(&mut self) {
        while self.answers.len() < MAX_SLICES {
            let Some(peer) = self.session.holders.lock().next_free(platform::now()) else { return };
            let slice = match self.work.next(self.partial) {
                Some(slice) => slice,
                None => match self.work.steal(peer, STEAL_AFTER) {
                    Some(slice) => slice,
                    None => return,
                },
            };
            self.work.assign(&slice, peer);
            self.session.holders.lock().begin(&peer);
            let request = ask_for(self.network.clone(), self.partial.clone(), peer, slice);
            self.answers.push(request.boxed());
        }
    }

    async fn on_answered(&mut self, answered: Answered) -> Result<(), NetabaseError> {
        let Answered { peer, slice, delivery } = answered;
        let is_stored = matches!(delivery, Delivery::Stored { .. });
        self.work.answered(&slice, &peer, is_stored);
        let conduct = match delivery {
            Delivery::Stored { new } => {
                if new > 0 {
                    self.advanced = platform::now();
                }
                self.session.holders.lock().delivered(&peer, new);
                return Ok(());
            }
            Delivery::Busy => {
                self.session.holders.lock().busy(&peer, platform::now());
                return Ok(());
            }
            Delivery::Failed(reason) => {
                tracing::debug!(%peer, reason, "a holder did not send a part of a blob");
                self.session.holders.lock().failed(&peer, reason);
                return Ok(());
            }
            Delivery::Here(error) => return Err(error.into()),
            Delivery::NotHere => HolderConduct::NotHere,
            Delivery::Corrupt => {
                tracing::warn!(%peer, blob = %self.session.blob().hash, "a peer sent a part that does not match the blob's hash");
                if !self.session.holders.lock().has_lied(&peer) {
                    self.network.report(peer).await;
                }
                HolderConduct::Corrupt
            }
        };
        self.session.holders.lock().drop_for(&peer, conduct);
        Ok(())
    }
}

/// Asks a holder for a slice, verifies it, and stores it.
async fn ask_for(network: Network, partial: PartialBlob, peer: PeerId, slice: Range<u64>) -> Answered {
    let delivery = deliver(network, partial, peer, slice.clone()).await;
    Answered { peer, slice, delivery }
}

async fn deliver(network: Network, partial: PartialBlob, peer: PeerId, slice: Range<u64>) -> Delivery {
    let count = slice.end - slice.start;
    let groups = u32::try_from(count).unwrap_or(u32::MAX);
    let Ok(_room) = Arc::clone(&network.window).acquire_many_owned(groups).await else {
        return Delivery::Failed("the node is closed".into());
    };
    let count = u16::try_from(count.min(BlobStore::MAX_SLICE_GROUPS)).unwrap_or(u16::MAX);
    let request = Request::Get { blob: partial.blob(), first: slice.start, count };
    let frame = match network.ask(peer, &request).await {
        Ok(frame) => frame,
        Err(error) => return Delivery::Failed(error.to_string()),
    };
    let meters = Arc::clone(&network.meters);
    let stored = platform::blocking(move || match frame.bytes().map(Response::decode) {
        Ok(Ok(Response::Slice(bytes))) => match partial.write_slice(slice, bytes) {
            Ok(new) => {
                meters.blob_bytes.add("in", new);
                Delivery::Stored { new }
            }
            Err(BlobError::Invalid { .. }) => Delivery::Corrupt,
            Err(error) => Delivery::Here(error),
        },
        Ok(Ok(Response::NotHere)) => Delivery::NotHere,
        Ok(Ok(Response::Failure(Failure::Busy))) => Delivery::Busy,
        Ok(Ok(Response::Failure(failure))) | Err(failure) => Delivery::Failed(failure.text().into()),
        Ok(Ok(Response::Have) | Err(_)) => Delivery::Failed(MEANINGLESS.into()),
    });
    stored.await.unwrap_or_else(|error| Delivery::Failed(error.to_string()))
}
