//! The scopes that this node keeps, and the handle of each.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use libp2p::PeerId;
use netabase_store::{NetabaseStore, Pin, SYNC_ID_BYTES, Scope, StoreError};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::refused::Refused;
use super::replicator::SyncPeers;
use super::report::SyncReport;
use crate::error::NetabaseError;
use crate::network::{Following, Live};

/// How many peers are remembered that compare a scope with ours.
const MAX_HEARD: usize = 1024;
/// For how long a peer that compares a scope is thought to fetch by itself what it lacks.
const HEARD_FOR: Duration = Duration::from_secs(10);

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

    pub(super) fn add(&self, report: &SyncReport) {
        self.report.lock().add(report);
    }

    /// Says how far it is, unless it was wanted anew since `generation`.
    pub(super) fn set_progress(&self, progress: ReplicationProgress, generation: u64) {
        self.progress.send_if_modified(|known| {
            self.generation() == generation && std::mem::replace(known, progress) != progress
        });
    }

    /// Remembers versions that were refused.
    pub(super) fn refuse(&self, ids: impl IntoIterator<Item = [u8; SYNC_ID_BYTES]>) {
        self.refused.lock().add(ids);
    }

    /// Remembers for a while versions for which there was no room.
    pub(super) fn has_no_room_for(&self, ids: impl IntoIterator<Item = [u8; SYNC_ID_BYTES]>, now: Instant) {
        self.refused.lock().add_for_a_while(ids, now);
    }

    /// Whether there was no room lately for something.
    pub(super) fn lacks_room(&self, now: Instant) -> bool {
        self.refused.lock().lacks_room(now)
    }

    /// Leaves out what was refused.
    pub(super) fn retain_takeable(&self, ids: &mut Vec<[u8; SYNC_ID_BYTES]>, now: Instant) {
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
    ) -> Result<Replication, StoreError> {
        let parts = store.parts_of_scope(&scope)?;
        let mut entries = self.0.entries.lock();
        if let Some(entry) = entries.iter().find(|entry| entry.scope == scope) {
            entry.handles.fetch_add(1, Ordering::Relaxed);
            return Ok(Replication { entry: Arc::clone(entry), replications: self.clone(), detached: false });
        }
        let entry = Arc::new(Entry {
            id: self.0.next_id.fetch_add(1, Ordering::Relaxed),
            parts,
            progress: watch::Sender::default(),
            report: Mutex::default(),
            refused: Mutex::default(),
            generation: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            handles: AtomicUsize::new(1),
            hold: Mutex::new(Some((store.pin(&scope), live.follow(scope.clone())))),
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
    pub(in crate::network) fn peers(&self) -> &SyncPeers {
        &self.0.peers
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Whether everything in a scope is kept here.
    pub(in crate::network) fn keeps(&self, scope: &Scope) -> bool {
        self.0.entries.lock().iter().any(|entry| entry.scope.includes(scope))
    }

    /// A peer compares a scope with ours.
    pub(super) fn heard_from(&self, peer: PeerId, scope: &Scope) {
        if !self.keeps(scope) {
            return;
        }
        let (now, mut heard) = (Instant::now(), self.0.heard.lock());
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
        heard.get(&(peer, scope.clone())).is_some_and(|at| at.elapsed() < HEARD_FOR)
    }
}

/// Keeps every record of a scope on this node, and current; from
/// [`Netabase::replicate`](crate::Node::replicate).
///
/// It ends when the last one of its scope is dropped, unless one is [detached](Self::detach). What has come stays; it is a copy like any
/// other then, which may go for lack of room. It outlives the swarm's stops, and works while the swarm runs.
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

    /// Returns what all sessions of the scope have done together since the first of its handles.
    pub fn statistics(&self) -> SyncReport {
        *self.entry.report.lock()
    }

    /// Compares the scope with every connected holder at once, and not when it is due.
    pub fn sync(&self) {
        self.entry.sync();
        self.replications.has_changed();
    }

    /// Waits until everything is here, and on the disk, that connected holders had when they were compared with.
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
