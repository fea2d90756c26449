//! The scopes that this node replicates, and their handles.

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

/// The replicated scopes. They outlive the swarm.
#[derive(Debug, Clone, Default)]
pub(crate) struct Replications(Arc<Registry>);

#[derive(Debug, Default)]
struct Registry {
    entries: Mutex<Vec<Arc<Entry>>>,
    /// The number of changes.
    changed: watch::Sender<u64>,
    next_id: AtomicU64,
    peers: SyncPeers,
    /// The last time at which each peer compared a scope with this node.
    heard: Mutex<HashMap<(PeerId, Scope), Instant>>,
}

/// A replicated scope.
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
    /// The number of requests for an immediate comparison.
    generation: AtomicU64,
    ended: AtomicBool,
    /// The number of handles. Changed only while the entries are locked.
    handles: AtomicUsize,
    /// The guards that pin the records here and subscribe to changes; `None` after the end.
    hold: Mutex<Option<(Pin, Following)>>,
}

/// The options of a replication.
///
/// ```
/// let mut options = netabase::ReplicateOptions::default();
/// options.max_blob_bytes = 2 << 30;
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ReplicateOptions {
    /// The most bytes of [large values](crate::blob::Blobs) that are fetched with the records of
    /// the scope that name them. Values of the newest records come first; those that exceed the
    /// rest of the limit are left out. Fetched values count towards
    /// [`max_blob_bytes`](crate::StoreOptions::max_blob_bytes) as well. Of several replications of
    /// a scope, the largest limit counts. Default: 0, which means that none are fetched.
    pub max_blob_bytes: u64,
}

/// The progress of a [`Replication`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ReplicationProgress {
    /// The number of holders of the scope that are connected or were found in the network.
    pub peers: usize,
    /// The number of holders with which the scope was compared, and of whose records at that time
    /// none is missing here.
    pub current: usize,
    /// The number of holders whose comparison failed; it is retried.
    pub failed: usize,
    /// Whether a session is running.
    pub is_syncing: bool,
    /// Whether every holder was compared with or failed, and at least one succeeded.
    pub is_caught_up: bool,
}

impl Entry {
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Returns the number of records that the sessions have received.
    pub(super) fn received(&self) -> u64 {
        self.report.lock().received
    }

    pub(super) fn add(&self, report: &SyncReport) {
        self.report.lock().add(report);
    }

    /// Sets the progress, unless a comparison was requested since `generation`.
    pub(super) fn set_progress(&self, progress: ReplicationProgress, generation: u64) {
        self.progress.send_if_modified(|known| {
            self.generation() == generation && std::mem::replace(known, progress) != progress
        });
    }

    pub(super) fn max_blob_bytes(&self) -> u64 {
        self.max_blob_bytes.load(Ordering::Acquire)
    }

    /// Changes the progress of the blobs.
    pub(super) fn set_blobs(&self, change: impl FnOnce(&mut BlobsKept)) {
        self.blobs.send_if_modified(|blobs| {
            let before = *blobs;
            change(blobs);
            *blobs != before
        });
    }

    /// Counts a missing blob that a record names; returns whether the limit allows it.
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

    /// Returns the number of calls that wait for all blobs.
    pub(super) fn blob_wishes(&self) -> u64 {
        self.blob_wishes.load(Ordering::Acquire)
    }

    /// Records that a missing blob was fetched.
    pub(super) fn has_blob(&self, blob: &Blob) {
        self.set_blobs(|blobs| {
            blobs.present += 1;
            blobs.present_bytes = blobs.present_bytes.saturating_add(blob.size);
            blobs.missing = blobs.missing.saturating_sub(1);
            blobs.missing_bytes = blobs.missing_bytes.saturating_sub(blob.size);
            blobs.settle();
        });
    }

    /// Remembers refused versions.
    pub(super) fn refuse(&self, ids: impl IntoIterator<Item = [u8; SyncItem::ID_BYTES]>) {
        self.refused.lock().add(ids);
    }

    /// Remembers for a while the versions that were refused for lack of space.
    pub(super) fn has_no_room_for(
        &self,
        ids: impl IntoIterator<Item = [u8; SyncItem::ID_BYTES]>,
        now: Instant,
    ) {
        self.refused.lock().add_for_a_while(ids, now);
    }

    /// Returns whether a version was recently refused for lack of space.
    pub(super) fn lacks_room(&self, now: Instant) -> bool {
        self.refused.lock().lacks_room(now)
    }

    /// Removes refused versions from `ids`.
    pub(super) fn retain_takeable(&self, ids: &mut Vec<[u8; SyncItem::ID_BYTES]>, now: Instant) {
        let mut refused = self.refused.lock();
        ids.retain(|id| !refused.contains(id, now));
    }

    /// Schedules a comparison with every holder, and resets the progress.
    fn sync(&self) {
        self.progress.send_modify(|progress| {
            self.generation.fetch_add(1, Ordering::AcqRel);
            (progress.current, progress.is_caught_up) = (0, false);
        });
    }
}

impl Replications {
    /// Starts to replicate a scope. Handles of the same scope share its sessions.
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

    /// Drops a handle; the last one ends the replication.
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

    /// Schedules a comparison of every scope with every holder.
    pub(crate) fn sync_all(&self) {
        self.entries().iter().for_each(|entry| entry.sync());
        self.has_changed();
    }

    /// Has the versions fetched again that were refused for lack of space, or for their author.
    pub(crate) fn fetch_refused_again(&self) {
        for entry in self.entries() {
            // Running sessions remember no more of them from here on.
            entry.sync();
            entry.refused.lock().forget_for_a_while();
        }
        self.has_changed();
    }

    fn has_changed(&self) {
        self.0.changed.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    pub(super) fn entries(&self) -> Vec<Arc<Entry>> {
        self.0.entries.lock().clone()
    }

    /// Returns the number of replicated scopes.
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

    /// Returns whether this node replicates all of a scope.
    pub(crate) fn keeps(&self, scope: &Scope) -> bool {
        self.0.entries.lock().iter().any(|entry| entry.scope.includes(scope))
    }

    /// Counts the records that peers have fetched from or sent to this node in their sessions.
    pub(super) fn count(&self, scope: &Scope, moved: &SyncReport) {
        let entries = self.0.entries.lock();
        entries.iter().filter(|entry| entry.scope.includes(scope)).for_each(|entry| entry.add(moved));
    }

    /// Records that a peer compares a scope with this node.
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

    /// Returns whether a peer fetches missing records itself, and need not be sent them.
    pub(super) fn is_heard(&self, peer: PeerId, scope: &Scope) -> bool {
        let heard = self.0.heard.lock();
        heard.get(&(peer, scope.clone())).is_some_and(|at| platform::since(*at) < HEARD_FOR)
    }
}

/// A handle that replicates every record of a scope to this node; returned by
/// [`Netabase::replicate`](crate::Node::replicate).
///
/// The replication ends when the last handle of its scope is dropped, unless one was
/// [detached](Self::detach). Its records stay and become ordinary copies, which may be evicted. A
/// handle survives stopping and starting the swarm, and replicates while the swarm runs.
#[derive(Debug)]
pub struct Replication {
    entry: Arc<Entry>,
    replications: Replications,
    detached: bool,
}

impl Replication {
    /// Returns the scope.
    pub fn scope(&self) -> &Scope {
        &self.entry.scope
    }

    /// Returns the progress.
    pub fn progress(&self) -> ReplicationProgress {
        *self.entry.progress.borrow()
    }

    /// Returns the report of all sessions of the scope since its first handle, and of the records
    /// that peers have fetched from or sent to this node in theirs.
    pub fn statistics(&self) -> SyncReport {
        *self.entry.report.lock()
    }

    /// Returns the progress of the large values that the scope's records name, if the
    /// [options](ReplicateOptions::max_blob_bytes) ask for them.
    pub fn blobs(&self) -> BlobsKept {
        *self.entry.blobs.borrow()
    }

    /// Waits until every large value is stored that the current records of the scope name, and that
    /// the limit allows.
    ///
    /// Waits while no holder of them is connected, and for ever if the
    /// [options](ReplicateOptions::max_blob_bytes) ask for none. This method is cancel safe.
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

    /// Compares the scope with every connected holder at once.
    pub fn sync(&self) {
        self.entry.sync();
        self.replications.has_changed();
    }

    /// Waits until every record is durable here that connected holders had when they were compared
    /// with.
    ///
    /// Waits while no connected peer answers. This method is cancel safe.
    pub async fn caught_up(&self) -> Result<(), NetabaseError> {
        let mut progress = self.entry.progress.subscribe();
        let caught_up = progress.wait_for(|progress| progress.is_caught_up).await;
        caught_up.map(drop).map_err(|_| NetabaseError::Closed)
    }

    /// Replicates the scope until the [`Netabase`](crate::Netabase) is closed.
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
