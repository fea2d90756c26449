//! The scopes that this node keeps, and the handle of each.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use libp2p::PeerId;
use netabase_store::replica::{Pin, SyncItem};
use netabase_store::{Blob, NetabaseStore, Scope, StoreError};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::error::NetabaseError;
use crate::platform::{self, Instant};
use crate::replication::live::{Following, Live};
use crate::replication::sync::blobs::BlobsKept;
use crate::replication::sync::limits::{HEARD_FOR, MAX_HEARD};
use crate::replication::sync::refused::Refused;
use crate::replication::sync::replicator::SyncPeers;
use crate::replication::sync::report::SyncReport;

/// The scopes that are kept. They outlive the swarm.
#[derive(Debug, Clone, Default)]
pub(crate) struct Replications(Arc<Registry>);

#[derive(Debug, Default)]
struct Registry {
    entries: Mutex<Vec<Arc<Entry>>>,
    /// Counts what has changed.
    changed: watch::Sender<u64>,
    next_id: AtomicU64,
    peers: SyncPeers,
    /// When a peer last compared a scope with ours.
    heard: Mutex<HashMap<(PeerId, Scope), Instant>>,
}

/// A scope that is kept.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: u64,
    pub(super) scope: Scope,
    /// The models or the value that are compared one by one.
    pub(super) parts: Vec<Scope>,
    progress: watch::Sender<ReplicationProgress>,
    /// See [`ReplicateOptions::max_blob_bytes`].
    max_blob_bytes: AtomicU64,
    blobs: watch::Sender<BlobsKept>,
    blob_wishes: AtomicU64,
    report: Mutex<SyncReport>,
    refused: Mutex<Refused>,
    /// How often somebody wanted it to be compared at once.
    generation: AtomicU64,
    ended: AtomicBool,
    /// How many handles want it kept. Changed while the entries are locked.
    handles: AtomicUsize,
    /// What keeps its records here and has changes sent here; none after the end.
    hold: Mutex<Option<(Pin, Following)>>,
}

/// How a scope is kept, beyond its records.
///
/// ```
/// let mut options = netabase::ReplicateOptions::default();
/// options.max_blob_bytes = 2 << 30;
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ReplicateOptions {
    /// How many bytes the [large values](crate::blob::Blobs) may have together that the records of
    /// the scope name and that are fetched with them; what is larger than what is left of that is
    /// left out, the newest record's comes first. What is fetched counts for
    /// [`max_blob_bytes`](crate::StoreOptions::max_blob_bytes) as well. Where a scope is kept
    /// several times, the largest counts. Default: 0, which means that none is fetched.
    pub max_blob_bytes: u64,
}

/// How far a [`Replication`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ReplicationProgress {
    /// How many holders of the scope are connected, or known to the network.
    pub peers: usize,
    /// With how many of them the scope was compared, and nothing is missing that they had then.
    pub current: usize,
    /// How many of them could not be compared with, and are asked again later.
    pub failed: usize,
    /// Whether a comparison is under way.
    pub is_syncing: bool,
    /// Whether each of them was compared with, or could not be, and one could.
    pub is_caught_up: bool,
}

impl Entry {
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Returns how many records its sessions have received.
    pub(super) fn received(&self) -> u64 {
        self.report.lock().received
    }

    pub(super) fn add(&self, report: &SyncReport) {
        self.report.lock().add(report);
    }

    /// Says how far it is, unless it was wanted anew since `generation`.
    pub(super) fn set_progress(&self, progress: ReplicationProgress, generation: u64) {
        self.progress.send_if_modified(|known| {
            self.generation() == generation && std::mem::replace(known, progress) != progress
        });
    }

    pub(super) fn max_blob_bytes(&self) -> u64 {
        self.max_blob_bytes.load(Ordering::Acquire)
    }

    /// Says how far it is with the blobs.
    pub(super) fn set_blobs(&self, change: impl FnOnce(&mut BlobsKept)) {
        self.blobs.send_if_modified(|blobs| {
            let before = *blobs;
            change(blobs);
            *blobs != before
        });
    }

    /// Counts a blob that a record names and that is not here; returns whether there is room for
    /// it.
    pub(super) fn count_blob(&self, blob: &Blob) -> bool {
        let (limit, mut has_room) = (self.max_blob_bytes(), false);
        self.set_blobs(|blobs| {
            let bytes = blobs.present_bytes.saturating_add(blobs.missing_bytes);
            has_room = bytes.saturating_add(blob.size) <= limit;
            if has_room {
                blobs.missing += 1;
                blobs.missing_bytes = blobs.missing_bytes.saturating_add(blob.size);
            } else {
                blobs.left_out += 1;
            }
            blobs.settle();
        });
        has_room
    }

    /// Returns how often somebody wanted to wait for all blobs.
    pub(super) fn blob_wishes(&self) -> u64 {
        self.blob_wishes.load(Ordering::Acquire)
    }

    /// A blob was fetched that was counted as missing.
    pub(super) fn has_blob(&self, blob: &Blob) {
        self.set_blobs(|blobs| {
            blobs.present += 1;
            blobs.present_bytes = blobs.present_bytes.saturating_add(blob.size);
            blobs.missing = blobs.missing.saturating_sub(1);
            blobs.missing_bytes = blobs.missing_bytes.saturating_sub(blob.size);
            blobs.settle();
        });
    }

    /// Remembers versions that were refused.
    pub(super) fn refuse(&self, ids: impl IntoIterator<Item = [u8; SyncItem::ID_BYTES]>) {
        self.refused.lock().add(ids);
    }

    /// Remembers for a while versions for which there was no room.
    pub(super) fn has_no_room_for(
        &self,
        ids: impl IntoIterator<Item = [u8; SyncItem::ID_BYTES]>,
        now: Instant,
    ) {
        self.refused.lock().add_for_a_while(ids, now);
    }

    /// Whether there was no room lately for something.
    pub(super) fn lacks_room(&self, now: Instant) -> bool {
        self.refused.lock().lacks_room(now)
    }

    /// Leaves out what was refused.
    pub(super) fn retain_takeable(&self, ids: &mut Vec<[u8; SyncItem::ID_BYTES]>, now: Instant) {
        let mut refused = self.refused.lock();
        ids.retain(|id| !refused.contains(id, now));
    }

    /// Has it compared with every holder soon, and not caught up before.
    fn sync(&self) {
        self.progress.send_modify(|progress| {
            self.generation.fetch_add(1, Ordering::AcqRel);
            (progress.current, progress.is_caught_up) = (0, false);
        });
    }
}

impl Replications {
    /// Keeps a scope from now on. Who keeps the same scope shares its sessions.
    pub(crate) fn begin(
        &self,
        store: &NetabaseStore,
        live: &Live,
        scope: Scope,
        options: &ReplicateOptions,
    ) -> Result<Replication, StoreError> {
        let parts = store.replica().parts_of_scope(&scope)?;
        let mut entries = self.0.entries.lock();
        if let Some(entry) = entries.iter().find(|entry| entry.scope == scope) {
            entry.handles.fetch_add(1, Ordering::Relaxed);
            let before = entry.max_blob_bytes.fetch_max(options.max_blob_bytes, Ordering::AcqRel);
            let replication =
                Replication { entry: Arc::clone(entry), replications: self.clone(), detached: false };
            drop(entries);
            if before < options.max_blob_bytes {
                self.has_changed();
            }
            return Ok(replication);
        }
        let entry = Arc::new(Entry {
            id: self.0.next_id.fetch_add(1, Ordering::Relaxed),
            parts,
            progress: watch::Sender::default(),
            max_blob_bytes: AtomicU64::new(options.max_blob_bytes),
            blobs: watch::Sender::default(),
            blob_wishes: AtomicU64::new(0),
            report: Mutex::default(),
            refused: Mutex::default(),
            generation: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            handles: AtomicUsize::new(1),
            hold: Mutex::new(Some((store.replica().pin(&scope), live.follow(scope.clone())))),
            scope,
        });
        entries.push(Arc::clone(&entry));
        drop(entries);
        self.has_changed();
        Ok(Replication { entry, replications: self.clone(), detached: false })
    }

    /// A handle is gone; the last one ends it.
    fn end(&self, entry: &Entry) {
        let mut entries = self.0.entries.lock();
        if entry.handles.fetch_sub(1, Ordering::Relaxed) > 1 {
            return;
        }
        entries.retain(|kept| kept.id != entry.id);
        drop(entries);
        entry.ended.store(true, Ordering::Release);
        drop(entry.hold.lock().take());
        self.has_changed();
    }

    /// Has every scope compared with every holder soon.
    pub(crate) fn sync_all(&self) {
        self.entries().iter().for_each(|entry| entry.sync());
        self.has_changed();
    }

    fn has_changed(&self) {
        self.0.changed.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    pub(super) fn entries(&self) -> Vec<Arc<Entry>> {
        self.0.entries.lock().clone()
    }

    /// Returns how many scopes are kept.
    pub(crate) fn len(&self) -> usize {
        self.0.entries.lock().len()
    }

    /// Returns the connected peers that speak the sync protocol.
    pub(crate) fn peers(&self) -> &SyncPeers {
        &self.0.peers
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Whether everything in a scope is kept here.
    pub(crate) fn keeps(&self, scope: &Scope) -> bool {
        self.0.entries.lock().iter().any(|entry| entry.scope.includes(scope))
    }

    /// Counts what peers have fetched from here, or given, for those who keep the scope.
    pub(super) fn count(&self, scope: &Scope, moved: &SyncReport) {
        let entries = self.0.entries.lock();
        entries.iter().filter(|entry| entry.scope.includes(scope)).for_each(|entry| entry.add(moved));
    }

    /// A peer compares a scope with ours.
    pub(super) fn heard_from(&self, peer: PeerId, scope: &Scope) {
        if !self.keeps(scope) {
            return;
        }
        let (now, mut heard) = (platform::now(), self.0.heard.lock());
        heard.insert((peer, scope.clone()), now);
        if heard.len() > MAX_HEARD {
            heard.retain(|_, at| now.duration_since(*at) < HEARD_FOR);
        }
        if heard.len() > MAX_HEARD {
            heard.clear();
        }
    }

    /// Whether a peer fetches by itself what it lacks, and need not be given it.
    pub(super) fn is_heard(&self, peer: PeerId, scope: &Scope) -> bool {
        let heard = self.0.heard.lock();
        heard.get(&(peer, scope.clone())).is_some_and(|at| platform::since(*at) < HEARD_FOR)
    }
}

/// Keeps every record of a scope on this node, and current; from
/// [`Netabase::replicate`](crate::Node::replicate).
///
/// It ends when the last one of its scope is dropped, unless one is [detached](Self::detach). What
/// has come stays; it is a copy like any other then, which may go for lack of room. It outlives the
/// swarm's stops, and works while the swarm runs.
#[derive(Debug)]
pub struct Replication {
    entry: Arc<Entry>,
    replications: Replications,
    detached: bool,
}

impl Replication {
    /// Returns what is kept.
    pub fn scope(&self) -> &Scope {
        &self.entry.scope
    }

    /// Returns how far it is.
    pub fn progress(&self) -> ReplicationProgress {
        *self.entry.progress.borrow()
    }

    /// Returns what all sessions of the scope have done together since the first of its handles,
    /// and what peers have fetched from here or given in theirs.
    pub fn statistics(&self) -> SyncReport {
        *self.entry.report.lock()
    }

    /// Returns how far it is with the large values that its records name, if it was
    /// [asked](ReplicateOptions::max_blob_bytes) to fetch them.
    pub fn blobs(&self) -> BlobsKept {
        *self.entry.blobs.borrow()
    }

    /// Waits until every large value is here that the records of the scope name, as they are here,
    /// and that has room.
    ///
    /// Waits as long as nobody is connected who has them, and for ever if none are
    /// [asked for](ReplicateOptions::max_blob_bytes). Cancelling the call changes nothing.
    pub async fn blobs_caught_up(&self) -> Result<(), NetabaseError> {
        self.entry.set_blobs(|blobs| {
            self.entry.blob_wishes.fetch_add(1, Ordering::AcqRel);
            blobs.is_looked_through = false;
            blobs.settle();
        });
        self.replications.has_changed();
        let mut blobs = self.entry.blobs.subscribe();
        blobs.wait_for(|blobs| blobs.is_caught_up).await.map(drop).map_err(|_| NetabaseError::Closed)
    }

    /// Compares the scope with every connected holder at once, and not when it is due.
    pub fn sync(&self) {
        self.entry.sync();
        self.replications.has_changed();
    }

    /// Waits until everything is here, and on the disk, that connected holders had when they were
    /// compared with.
    ///
    /// Waits as long as nobody is connected who answers. Cancelling the call changes nothing.
    pub async fn caught_up(&self) -> Result<(), NetabaseError> {
        let mut progress = self.entry.progress.subscribe();
        let caught_up = progress.wait_for(|progress| progress.is_caught_up).await;
        caught_up.map(drop).map_err(|_| NetabaseError::Closed)
    }

    /// Keeps the scope until the [`Netabase`](crate::Netabase) is closed.
    pub fn detach(mut self) {
        self.detached = true;
    }
}

impl Drop for Replication {
    fn drop(&mut self) {
        if !self.detached {
            self.replications.end(&self.entry);
        }
    }
}
