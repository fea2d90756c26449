//! Fetching of the large values that the records of replicated scopes name, if the scopes' options
//! ask for them.
//!
//! One task runs while the swarm runs. It walks over the references to blobs at the start, when a
//! peer has connected that may have missing ones, and every
//! [`sync_interval`](crate::NetabaseConfig::sync_interval). In between it fetches the blobs of new
//! records.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use libp2p::PeerId;
use netabase_store::blob::{BlobHash, BlobReference, BlobStatus};
use netabase_store::schema::DefinitionSchema;
use netabase_store::{Blob, Envelope, NetabaseStore, RecordKey, Scope, StoreError, Timestamp};
use tokio::sync::{Notify, broadcast};

use crate::admission::peer_of;
use crate::blobs::fetch::{Network, Session};
use crate::event::{NetabaseSwarmEvent, RecordEvent};
use crate::event_loop::command::Commands;
use crate::platform::{self, JoinSet, sleep_until};
use crate::replication::sync::limits::{
    BLOB_RETRY_PAUSE, BLOB_WALK_STEP, MAX_BLOB_FETCHES, MAX_WAITING_BLOBS,
};
use crate::replication::sync::replication::{Entry, Replications};
use crate::replication::sync::replicator::jittered;
use crate::swarm::Parts;

/// The progress of the large values of a [`Replication`](crate::Replication).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct BlobsKept {
    /// The number of blobs that are stored completely.
    pub present: u64,
    /// The bytes of those blobs.
    pub present_bytes: u64,
    /// The number of missing blobs that are to be fetched.
    pub missing: u64,
    /// The bytes of the missing blobs.
    pub missing_bytes: u64,
    /// The number of blobs that are left out, since they would exceed
    /// [`max_blob_bytes`](crate::ReplicateOptions::max_blob_bytes).
    pub left_out: u64,
    /// Whether all records were walked over since the start of the swarm, and none of their blobs
    /// is missing.
    pub is_caught_up: bool,
    /// Whether all records were walked over.
    pub(super) is_looked_through: bool,
}

impl BlobsKept {
    /// Updates `is_caught_up`.
    pub(super) fn settle(&mut self) {
        self.is_caught_up = self.is_looked_through && self.missing == 0;
    }
}

/// The task that fetches the blobs of scopes until it is stopped.
pub(crate) struct BlobKeeper {
    store: NetabaseStore,
    network: Network,
    schema: &'static DefinitionSchema,
    replications: Replications,
    events: broadcast::Sender<NetabaseSwarmEvent>,
    /// The events of records; `None` while no scope asks for blobs.
    records: Option<broadcast::Receiver<NetabaseSwarmEvent>>,
    interval: Duration,
    /// Tells the republisher to advertise new blobs.
    announce: Arc<Notify>,
    stop: Arc<Notify>,
    waiting: VecDeque<Wanted>,
    /// The blobs that wait or are being fetched.
    wanted: HashSet<BlobHash>,
    fetches: JoinSet<(Wanted, bool)>,
}

/// A blob to fetch.
#[derive(Debug, Clone)]
struct Wanted {
    blob: Blob,
    /// The author of the record, which may have the blob.
    author: Option<PeerId>,
    /// The time of the record. The newest come first.
    written: Option<Timestamp>,
    /// The scopes that ask for the blob.
    entries: Vec<Arc<Entry>>,
}

impl BlobKeeper {
    pub(crate) fn new(
        parts: &Parts,
        commands: Commands,
        announce: Arc<Notify>,
        stop: Arc<Notify>,
    ) -> Option<Self> {
        // Without models the blobs of a record are unknown.
        let schema = parts.store.schema()?;
        Some(Self {
            store: parts.store.clone(),
            network: Network::new(parts, commands),
            schema,
            replications: parts.replications.clone(),
            events: parts.events.clone(),
            records: None,
            interval: parts.config.sync_interval,
            announce,
            stop,
            waiting: VecDeque::new(),
            wanted: HashSet::new(),
            fetches: JoinSet::new(),
        })
    }

    pub(crate) async fn run(mut self) {
        let mut kept = self.replications.changes();
        let mut peers = self.replications.peers().subscribe();
        let mut due = platform::now();
        self.listen();
        loop {
            let is_asked = self.records.is_some();
            tokio::select! {
                () = self.stop.notified() => break,
                changed = kept.changed() => match changed {
                    Ok(()) => {
                        self.listen();
                        due = platform::now();
                    }
                    Err(_) => break,
                },
                changed = peers.changed() => match changed {
                    Ok(()) => due = due.min(platform::now() + BLOB_RETRY_PAUSE),
                    Err(_) => break,
                },
                event = next(&mut self.records) => match event {
                    Ok(NetabaseSwarmEvent::Record(record)) => self.on_record(&record),
                    Ok(_) => {}
                    Err(broadcast::error::RecvError::Lagged(_)) => due = due.min(platform::now() + BLOB_RETRY_PAUSE),
                    Err(broadcast::error::RecvError::Closed) => break,
                },
                Some(done) = self.fetches.join_next() => self.on_fetched(done),
                () = sleep_until(due), if is_asked => {
                    self.walk().await;
                    due = platform::now() + jittered(self.interval);
                }
            }
            self.start_fetches();
        }
        // Received parts stay. No task uses the store after the end of the swarm.
        self.fetches.shutdown().await;
        for entry in self.replications.entries() {
            entry.set_blobs(|blobs| *blobs = BlobsKept::default());
        }
    }

    /// Subscribes to records if a scope asks for blobs, so that they cost nothing otherwise.
    fn listen(&mut self) {
        let is_asked = self.replications.entries().iter().any(|entry| entry.max_blob_bytes() > 0);
        match (is_asked, &self.records) {
            (true, None) => self.records = Some(self.events.subscribe()),
            (false, Some(_)) => self.records = None,
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// Handles a new or changed record, whose blobs may be missing.
    fn on_record(&mut self, record: &RecordEvent) {
        let Some(envelope) = record.envelope().filter(|envelope| !envelope.is_tombstone()) else { return };
        let entries = self.entries_of(record.key(), envelope);
        for wanted in self.named(record.key(), envelope, &entries) {
            let is_known = self.wanted.contains(&wanted.blob.hash) || self.is_here(&wanted.blob);
            if !is_known {
                self.count_and_want(&wanted, true);
            }
        }
    }

    /// Queues a blob for the scopes whose limits allow it.
    fn count_and_want(&mut self, wanted: &Wanted, first: bool) {
        let has_room = |entry: &&Arc<Entry>| entry.count_blob(&wanted.blob);
        let entries: Vec<_> = wanted.entries.iter().filter(has_room).cloned().collect();
        if !entries.is_empty() {
            self.want(Wanted { entries, ..wanted.clone() }, first);
        }
    }

    /// Returns the scopes with blobs to which a record belongs.
    fn entries_of(&self, key: &RecordKey, envelope: &Envelope) -> Vec<Arc<Entry>> {
        entries_of(self.schema, &self.replications.entries(), key, envelope)
    }

    fn named(&self, key: &RecordKey, envelope: &Envelope, entries: &[Arc<Entry>]) -> Vec<Wanted> {
        if entries.is_empty() {
            return Vec::new();
        }
        named(self.schema, key, envelope, entries)
    }

    fn is_here(&self, blob: &Blob) -> bool {
        self.store.blobs().status(blob) == BlobStatus::Whole
    }

    fn want(&mut self, wanted: Wanted, first: bool) {
        if self.wanted.len() >= MAX_WAITING_BLOBS || !self.wanted.insert(wanted.blob.hash) {
            return;
        }
        if first { self.waiting.push_front(wanted) } else { self.waiting.push_back(wanted) }
    }

    /// Walks over all records of the scopes for missing blobs.
    async fn walk(&mut self) {
        let entries: Vec<_> = self.replications.entries();
        let entries: Vec<_> = entries.into_iter().filter(|entry| entry.max_blob_bytes() > 0).collect();
        let wishes: Vec<u64> = entries.iter().map(|entry| entry.blob_wishes()).collect();
        let (store, schema, walked) = (self.store.clone(), self.schema, entries.clone());
        // A blob that is being fetched counts as missing until its fetch has ended.
        let under_way = self.wanted.clone();
        let work = move || look_through(&store, schema, &walked, &under_way);
        let found = platform::blocking(work).await;
        let found = match found {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot search for missing blobs");
                return;
            }
            Err(error) => {
                tracing::error!(%error, "the search for missing blobs has panicked");
                return;
            }
        };
        for entry in &entries {
            let (present, present_bytes) = found.present.get(&entry.id).copied().unwrap_or_default();
            entry.set_blobs(|blobs| *blobs = BlobsKept { present, present_bytes, ..BlobsKept::default() });
        }
        for wanted in found.missing {
            self.count_and_want(&wanted, false);
        }
        for (entry, wishes) in entries.iter().zip(wishes) {
            entry.set_blobs(|blobs| {
                blobs.is_looked_through = entry.blob_wishes() == wishes;
                blobs.settle();
            });
        }
    }

    fn start_fetches(&mut self) {
        while self.fetches.len() < MAX_BLOB_FETCHES {
            let Some(wanted) = self.waiting.pop_front() else { return };
            if wanted.entries.iter().all(|entry| entry.has_ended()) {
                self.wanted.remove(&wanted.blob.hash);
                continue;
            }
            let (store, network) = (self.store.blobs(), self.network.clone());
            self.fetches.spawn(async move {
                let hints = wanted.author.into_iter().collect();
                let fetched = async {
                    let session = Session::new(store, wanted.blob, Some(network), hints)?;
                    session.fetch_whole(&mut |_| {}).await
                };
                let fetched = fetched.await;
                if let Err(error) = &fetched {
                    tracing::debug!(%error, blob = %wanted.blob, "cannot fetch the blob of a replicated record yet");
                }
                let is_here = fetched.is_ok();
                (wanted, is_here)
            });
        }
    }

    fn on_fetched(&mut self, done: Result<(Wanted, bool), tokio::task::JoinError>) {
        let Ok((wanted, is_here)) = done.inspect_err(|error| tracing::error!(%error, "a fetch has failed"))
        else {
            return;
        };
        self.wanted.remove(&wanted.blob.hash);
        if is_here {
            wanted.entries.iter().for_each(|entry| entry.has_blob(&wanted.blob));
            self.announce.notify_one();
        }
    }
}

async fn next(
    records: &mut Option<broadcast::Receiver<NetabaseSwarmEvent>>,
) -> Result<NetabaseSwarmEvent, broadcast::error::RecvError> {
    match records {
        Some(records) => records.recv().await,
        None => std::future::pending().await,
    }
}

/// The result of a walk.
struct Found {
    /// The number and the bytes of the stored blobs, by scope.
    present: HashMap<u64, (u64, u64)>,
    /// The newest missing blobs.
    missing: Vec<Wanted>,
}

fn look_through(
    store: &NetabaseStore,
    schema: &'static DefinitionSchema,
    entries: &[Arc<Entry>],
    under_way: &HashSet<BlobHash>,
) -> Result<Found, StoreError> {
    let (blobs, mut after) = (store.blobs(), None::<BlobReference>);
    let mut found = Found { present: HashMap::new(), missing: Vec::new() };
    // The records that name one blob are adjacent.
    let mut counted: (Option<BlobHash>, HashSet<u64>) = (None, HashSet::new());
    loop {
        let references = blobs.references_after(after.as_ref(), BLOB_WALK_STEP)?;
        for BlobReference { hash, record } in &references {
            if counted.0 != Some(*hash) {
                counted = (Some(*hash), HashSet::new());
            }
            let Some(envelope) = store.envelope(record)?.filter(|envelope| !envelope.is_tombstone()) else {
                continue;
            };
            let mut entries = entries_of(schema, entries, record, &envelope);
            entries.retain(|entry| counted.1.insert(entry.id));
            let named = named(schema, record, &envelope, &entries);
            let Some(wanted) = named.into_iter().find(|wanted| wanted.blob.hash == *hash) else { continue };
            if entries.is_empty() {
                continue;
            }
            if blobs.has(&wanted.blob) && !under_way.contains(hash) {
                for entry in entries {
                    let (count, bytes) = found.present.entry(entry.id).or_default();
                    (*count, *bytes) = (*count + 1, bytes.saturating_add(wanted.blob.size));
                }
            } else {
                found.missing.push(wanted);
            }
        }
        if found.missing.len() > MAX_WAITING_BLOBS || references.len() < BLOB_WALK_STEP {
            // A blob that is being fetched is counted already.
            let is_new = |wanted: &Wanted| !under_way.contains(&wanted.blob.hash);
            found.missing.sort_by_key(|wanted| (is_new(wanted), Reverse(wanted.written)));
            found.missing.truncate(MAX_WAITING_BLOBS);
        }
        if references.len() < BLOB_WALK_STEP {
            return Ok(found);
        }
        after = references.into_iter().next_back();
    }
}

/// Returns those of the scopes with blobs to which a record belongs.
fn entries_of(
    schema: &DefinitionSchema,
    entries: &[Arc<Entry>],
    key: &RecordKey,
    envelope: &Envelope,
) -> Vec<Arc<Entry>> {
    let mut with_blobs = entries.iter().filter(|entry| entry.max_blob_bytes() > 0).peekable();
    if with_blobs.peek().is_none() {
        return Vec::new();
    }
    let scopes = Scope::of_record(schema, key, envelope);
    let is_in = |entry: &Entry| scopes.iter().any(|scope| entry.scope.includes(scope));
    with_blobs.filter(|entry| is_in(entry)).cloned().collect()
}

/// Returns the blobs that a record names.
fn named(
    schema: &DefinitionSchema,
    key: &RecordKey,
    envelope: &Envelope,
    entries: &[Arc<Entry>],
) -> Vec<Wanted> {
    let Some(model) = schema.model(key.model()) else { return Vec::new() };
    let (author, written) = (envelope.author().and_then(peer_of), envelope.timestamp());
    let blobs = model.blobs_of(envelope.payload()).into_iter();
    blobs.map(|blob| Wanted { blob, author, written, entries: entries.to_vec() }).collect()
}
