//! The state that a store's handles and its writer share: engine, queue, and versions that are not
//! on the disk yet.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvError, TryRecvError};
use std::time::Duration;

use parking_lot::{Mutex, ReentrantMutex, ReentrantMutexGuard, RwLock};

use crate::admin::counters::WriterCounters;
#[cfg(feature = "blobs")]
use crate::blobs::{BlobError, Blobs};
use crate::changes::change::{Observer, Origin, StoreEvent};
use crate::changes::feed::Feed;
use crate::changes::history::Position;
use crate::engine::{Engine, Snapshot};
use crate::error::{DamageError, SchemaError, StoreError, WriteError};
use crate::limits::{MAX_WAITING_BUNDLES, SETTLE_PATIENCE, TURN_PATIENCE, UPDATE_TURNS};
use crate::model::merge;
use crate::model::schema::{EncodedRecord, IndexKeys};
use crate::options::{StoreOptions, WriterMode};
#[cfg(feature = "import-export")]
use crate::read::long_read::LongReads;
use crate::replica::absence::Online;
use crate::replica::authors::RefusedAuthors;
use crate::replica::lease::Lifetime;
use crate::replica::mark::Marks;
use crate::replica::quota::Quotas;
use crate::replica::sync_set::{GatheredSets, Pins, Sums};
use crate::tables::{self, Layout, ModelTables, Place};
use crate::version::admit::{self, AuthorLimit, Refusal, RefusalCounters, VerifiedRecord};
use crate::version::envelope::{Author, ENVELOPE_OVERHEAD_BYTES, Envelope, EnvelopeRef};
use crate::version::members::Members;
use crate::version::record_key::{RecordKey, WritePolicy};
use crate::write::apply::{Lease, Op};
use crate::write::writer::{Batch, HeldWriter, Next, Queue, Writer};

/// The state that all clones of a store and its writer share.
pub(crate) struct Core {
    engine: Engine,
    /// The database's path, or `None` if it is in memory or in a storage of the caller's.
    path: Option<PathBuf>,
    layout: Layout,
    options: StoreOptions,
    queue: Queue,
    writer: Mutex<Writer>,
    /// Signed versions that are not on the disk yet, for readers that must see them.
    pending: RwLock<HashMap<RecordKey, Pending>>,
    /// The size of `pending`, so that readers need no lock where it is empty.
    pending_len: AtomicUsize,
    failed: AtomicBool,
    /// `true` if another running program signs with the same identity.
    identity_shared: AtomicBool,
    failure: RwLock<Option<Arc<StoreError>>>,
    /// `true` if the store stays read-only until it is opened again.
    is_final: AtomicBool,
    observer: RwLock<Option<Arc<Observer>>>,
    /// Shared with followers, which do not keep the store open.
    feed: Arc<Feed>,
    /// Locked while indexes are rebuilt, by the holder of the writer.
    rebuilding: Mutex<()>,
    /// Locked by an update after a conflict; each lock stands for many records.
    turns: [ReentrantMutex<()>; UPDATE_TURNS],
    refusals: RefusalCounters,
    marks: Marks,
    quotas: Quotas,
    pins: Arc<Pins>,
    #[cfg(feature = "import-export")]
    long_reads: LongReads,
    sets: GatheredSets,
    online: Online,
    /// Of a closed network.
    members: Option<Members>,
    refused_authors: RefusedAuthors,
    #[cfg(feature = "blobs")]
    blobs: Arc<Blobs>,
    commits: AtomicU64,
    writer_counters: WriterCounters,
    #[cfg(feature = "libp2p")]
    providers: RwLock<crate::replica::provider::Providers>,
}

/// The versions under one key that wait for the disk.
#[derive(Debug)]
struct Pending {
    /// The latest version, or all bundles joined.
    shown: Envelope,
    /// The bundles that wait; of other versions only the latest is known.
    bundles: Vec<Envelope>,
    /// `true` if a peer has sent any of them.
    is_of_peers: bool,
}

impl Core {
    pub(crate) fn new(
        engine: Engine,
        path: Option<&Path>,
        layout: Layout,
        options: StoreOptions,
    ) -> Result<Self, StoreError> {
        let position = Position::load(&engine.snapshot()?)?;
        #[cfg(feature = "blobs")]
        let blobs =
            Blobs::open(path.filter(|_| !options.read_only), &options).map_err(BlobError::into_store)?;
        let marks = Marks::load(&engine)?;
        let online = Online::load(&engine)?;
        #[cfg(feature = "libp2p")]
        let providers = crate::replica::provider::Providers::load(&engine, options.clock.unix_millis())?;
        let members = Members::load(&engine, &layout, &options)?;
        let refused_authors = RefusedAuthors::load(&engine, &options)?;
        let core = Self {
            engine,
            path: path.map(Path::to_owned),
            layout,
            options,
            queue: Queue::default(),
            writer: Mutex::new(Writer::new(position, members.as_ref(), &refused_authors)),
            pending: RwLock::default(),
            pending_len: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            identity_shared: AtomicBool::new(false),
            failure: RwLock::default(),
            is_final: AtomicBool::new(false),
            observer: RwLock::default(),
            feed: Arc::new(Feed::new(position.next)),
            rebuilding: Mutex::new(()),
            turns: std::array::from_fn(|_| ReentrantMutex::new(())),
            refusals: RefusalCounters::default(),
            marks,
            quotas: Quotas::default(),
            pins: Arc::default(),
            #[cfg(feature = "import-export")]
            long_reads: LongReads::default(),
            sets: GatheredSets::default(),
            online,
            members,
            refused_authors,
            #[cfg(feature = "blobs")]
            blobs: Arc::new(blobs),
            commits: AtomicU64::new(0),
            writer_counters: WriterCounters::default(),
            #[cfg(feature = "libp2p")]
            providers: RwLock::new(providers),
        };
        core.load_usage()?;
        core.load_sums()?;
        Ok(core)
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn options(&self) -> &StoreOptions {
        &self.options
    }

    pub(crate) fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Queues a batch. While the queue is full it waits for the writer, or drives it where it has
    /// no thread, unless this thread has the writer.
    pub(crate) fn push(&self, mut batch: Batch) {
        if self.options.writer == WriterMode::Thread || self.queue.is_writer() {
            return self.queue.push(batch);
        }
        while let Err(full) = self.queue.try_push_local(batch) {
            batch = full;
            self.take_writer().step();
        }
    }

    /// Waits for the answer that the writer sends when it has taken the queued write; drives a
    /// writer without a thread meanwhile.
    pub(crate) fn receive<T>(&self, receiver: &Receiver<T>) -> Result<T, RecvError> {
        if self.options.writer == WriterMode::Thread {
            return receiver.recv();
        }
        loop {
            match receiver.try_recv() {
                Ok(message) => return Ok(message),
                Err(TryRecvError::Disconnected) => return Err(RecvError),
                // The write is in the queue, or another thread, which has the writer then, carries
                // it out.
                Err(TryRecvError::Empty) => {
                    self.take_writer().step();
                }
            }
        }
    }

    /// Waits until no other thread has the writer. This thread must not have it.
    pub(crate) fn take_writer(&self) -> HeldWriter<'_> {
        HeldWriter::take(self, &self.writer)
    }

    /// Returns the writer after all earlier writes; no other write is carried out until it is
    /// dropped.
    pub(crate) fn hold_writer(&self) -> Result<HeldWriter<'_>, StoreError> {
        if self.queue.is_writer() {
            return Err(StoreError::InCallback);
        }
        let (sender, written) = mpsc::sync_channel(1);
        let done = Box::new(move |_| {
            // The receiver waits below, so the channel is open and has space.
            let _ = sender.send(());
        });
        self.push(Batch::new(Vec::new(), done));
        self.receive(&written).map_err(StoreError::backend)?;
        Ok(self.take_writer())
    }

    /// Lets the writer take a step; returns the time until the next one is due, or `None` if the
    /// store is closed and all writes are done. This thread must not have the writer.
    pub(crate) fn step_writer(&self) -> Option<Duration> {
        match self.take_writer().step() {
            Next::Wait(idle) => {
                Some(self.queue.rest(self.options.clock.monotonic(), idle, self.feed.is_followed()))
            }
            Next::Ended => None,
        }
    }

    pub(crate) fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }

    pub(crate) fn marks(&self) -> &Marks {
        &self.marks
    }

    pub(crate) fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    #[cfg(feature = "blobs")]
    pub(crate) fn blobs(&self) -> &Arc<Blobs> {
        &self.blobs
    }

    #[cfg(feature = "import-export")]
    pub(crate) fn long_reads(&self) -> &LongReads {
        &self.long_reads
    }

    /// Returns the scopes whose records are to stay.
    pub(crate) fn pins(&self) -> &Arc<Pins> {
        &self.pins
    }

    /// Reads the sums that the writer keeps up to date, when the store is opened or was repaired.
    pub(crate) fn load_sums(&self) -> Result<(), StoreError> {
        self.sets.clear();
        let snapshot = self.engine.snapshot()?;
        for model in self.layout.models() {
            *model.sums().lock() = Sums::load(&snapshot, &model.sync)?;
        }
        Ok(())
    }

    /// Returns the sets of values that were gathered lately.
    pub(crate) fn sets(&self) -> &GatheredSets {
        &self.sets
    }

    pub(crate) fn online(&self) -> &Online {
        &self.online
    }

    /// Returns who may write, in a closed network.
    pub(crate) fn members(&self) -> Option<&Members> {
        self.members.as_ref()
    }

    /// Returns the authors whose records are refused.
    pub(crate) fn refused_authors(&self) -> &RefusedAuthors {
        &self.refused_authors
    }

    /// Refuses a version of this program whose author may not write it.
    pub(crate) fn check_local_member(&self, key: &RecordKey, envelope: &Envelope) -> Result<(), StoreError> {
        let Some(members) = &self.members else { return Ok(()) };
        members.check(key, envelope.view()).map_err(|_| members.not_member(envelope.author()))
    }

    /// Returns whether the member list does not allow a signed version, or an author of it is
    /// refused.
    pub(crate) fn is_excluded(&self, key: &RecordKey, envelope: EnvelopeRef<'_>) -> bool {
        if !envelope.is_signed() || (self.members.is_none() && self.refused_authors.is_empty()) {
            return false;
        }
        let is_excluded = |part| {
            self.refused_authors.refuses(key, part)
                || self.members.as_ref().is_some_and(|members| members.check(key, part).is_err())
        };
        match envelope.bundle() {
            Some(bundle) => bundle.iter().any(is_excluded),
            None => is_excluded(envelope),
        }
    }

    /// Returns whether another update is retrying a record after a conflict.
    pub(crate) fn is_contended(&self, key: &RecordKey) -> bool {
        self.turn(key).is_some_and(ReentrantMutex::is_locked)
    }

    /// Waits until it is the caller's turn to update a record that others update, too.
    ///
    /// The wait is bounded, since an update may itself wait for another thread's. An update with a
    /// turn does not wait for a second one, since updates may be nested.
    pub(crate) fn take_turn(&self, key: &RecordKey) -> Option<ReentrantMutexGuard<'_, ()>> {
        if self.turns.iter().any(ReentrantMutex::is_owned_by_current_thread) {
            return None;
        }
        self.turn(key)?.try_lock_for(TURN_PATIENCE)
    }

    fn turn(&self, key: &RecordKey) -> Option<&ReentrantMutex<()>> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let turn = hasher.finish() % u64::try_from(UPDATE_TURNS).ok()?;
        self.turns.get(usize::try_from(turn).ok()?)
    }

    pub(crate) fn rebuilding(&self) -> &Mutex<()> {
        &self.rebuilding
    }

    /// Returns a snapshot with complete indexes: it waits while they are rebuilt.
    pub(crate) fn whole_snapshot(&self) -> Result<Snapshot, StoreError> {
        let _built = self.rebuilding.lock();
        self.engine.snapshot()
    }

    #[cfg(feature = "libp2p")]
    pub(crate) fn providers(&self) -> &RwLock<crate::replica::provider::Providers> {
        &self.providers
    }

    pub(crate) fn author(&self) -> Option<Author> {
        let identity = self.options.identity.as_ref()?;
        Some(Author::of(identity))
    }

    /// Returns the newest version, whether on the disk yet or not, tombstones included.
    pub(crate) fn current(&self, key: &RecordKey) -> Result<Option<Envelope>, StoreError> {
        match self.pending(key) {
            Some(pending) => self.newest(&self.engine.snapshot()?, key, pending).map(Some),
            None => self.stored(&self.engine.snapshot()?, key),
        }
    }

    /// Returns the version that the next one replaces; a damaged one is replaced like none.
    pub(crate) fn replaceable(&self, key: &RecordKey) -> Result<Option<Envelope>, StoreError> {
        match self.current(key) {
            Err(error) if error.is_of_entry() => Ok(None),
            current => current,
        }
    }

    /// Returns `pending`, or the version in a snapshot if a later write has overtaken it.
    pub(crate) fn newest(
        &self,
        snapshot: &Snapshot,
        key: &RecordKey,
        pending: Envelope,
    ) -> Result<Envelope, StoreError> {
        let newest = match self.stored(snapshot, key)? {
            Some(stored) => pending.join(&stored),
            None => pending,
        };
        Ok(self.merged(key, &newest).0)
    }

    /// Gives a bundle its merged payload, where the model is known; returns it with its secondary
    /// keys.
    pub(crate) fn merged(&self, key: &RecordKey, envelope: &Envelope) -> (Envelope, IndexKeys) {
        match self.layout.place(key).model.filter(|_| envelope.is_bundle()) {
            Some(model) => merge::merged(model.schema, key.primary_key(), envelope),
            None => (envelope.to_wire(), IndexKeys::default()),
        }
    }

    /// Returns the version in a snapshot, tombstones included.
    pub(crate) fn stored(
        &self,
        snapshot: &Snapshot,
        key: &RecordKey,
    ) -> Result<Option<Envelope>, StoreError> {
        let Place { table, key: place, .. } = self.layout.place(key);
        let envelope = match snapshot.get_with(table, place, Envelope::parse)? {
            Some(envelope) => Some(envelope),
            None => snapshot.get_with(&tables::TOMBSTONES, key.as_bytes(), Envelope::parse)?,
        };
        Ok(envelope.transpose().map_err(DamageError::Record)?)
    }

    /// Returns the size of the newest version in bytes without copying it; 0 if there is none.
    pub(crate) fn len_of_current(&self, key: &RecordKey) -> Result<usize, StoreError> {
        let len_of = |pending: &Pending| pending.shown.as_bytes().len();
        let waiting = if self.has_pending() { self.pending.read().get(key).map_or(0, len_of) } else { 0 };
        let Place { table, key: place, .. } = self.layout.place(key);
        let stored = self.engine.snapshot()?.get_with(table, place, <[u8]>::len)?;
        Ok(waiting.max(stored.unwrap_or_default()))
    }

    /// Returns whether any version waits for the disk.
    pub(crate) fn has_pending(&self) -> bool {
        self.pending_len.load(Ordering::Acquire) > 0
    }

    /// Returns a version that waits for the disk.
    pub(crate) fn pending(&self, key: &RecordKey) -> Option<Envelope> {
        if !self.has_pending() {
            return None;
        }
        self.pending.read().get(key).map(|pending| pending.shown.clone())
    }

    /// Has the peers' records of a model committed, so that a read of many records sees each
    /// version that a read of a single record shows. Take the snapshot afterwards.
    ///
    /// Does nothing where nothing waits, or where the writer waits for the caller.
    pub(crate) fn settle(&self, model: &ModelTables) {
        if !model.is_arriving() || self.queue.is_writer() {
            return;
        }
        let (sender, settled) = mpsc::sync_channel(1);
        let done = Box::new(move |_| {
            // Nobody may be waiting any more.
            let _ = sender.send(());
        });
        self.push(Batch::new(Vec::new(), done));
        // The read continues with committed records if the writer is held up.
        let _ = match self.options.writer {
            WriterMode::Thread => settled.recv_timeout(SETTLE_PATIENCE).ok(),
            WriterMode::Driven => self.receive(&settled).ok(),
        };
    }

    /// Shows a signed version to readers before it is on the disk, unless it may be refused.
    pub(crate) fn show_pending(&self, op: &Op) {
        if let Op::Put { key, envelope, .. } = op
            && envelope.is_signed()
            && !self.layout.place(key).model.is_some_and(ModelTables::may_refuse)
        {
            self.insert_pending(&mut self.pending.write(), key.clone(), envelope.clone(), Origin::Local);
        }
    }

    fn insert_pending(
        &self,
        pending: &mut HashMap<RecordKey, Pending>,
        key: RecordKey,
        envelope: Envelope,
        origin: Origin,
    ) {
        if let Some(members) = &self.members {
            members.note(&key, &envelope);
        }
        let model = self.layout.place(&key).model.filter(|_| origin == Origin::Network);
        let waits = match pending.entry(key) {
            Entry::Occupied(waits) => {
                let waits = waits.into_mut();
                waits.shown = waits.shown.join(&envelope);
                waits
            }
            Entry::Vacant(free) => {
                free.insert(Pending { shown: envelope.clone(), bundles: Vec::new(), is_of_peers: false })
            }
        };
        if let Some(model) = model.filter(|_| !waits.is_of_peers) {
            waits.is_of_peers = true;
            model.note_arrival();
        }
        if envelope.is_bundle() {
            waits.bundles.push(envelope);
        }
        self.pending_len.store(pending.len(), Ordering::Release);
    }

    /// Forgets versions that are on the disk now.
    pub(crate) fn forget_pending<'a>(&self, ops: impl Iterator<Item = &'a Op>) {
        let mut pending = self.pending.write();
        for op in ops {
            self.release_quota(op);
            if let Op::Put { key, envelope, .. } = op
                && let Some(waits) = pending.get_mut(key)
            {
                if let Some(position) = waits.bundles.iter().position(|bundle| bundle == envelope) {
                    waits.bundles.swap_remove(position);
                }
                if waits.bundles.is_empty() && (envelope.is_bundle() || waits.shown == *envelope) {
                    let model = self.layout.place(key).model.filter(|_| waits.is_of_peers);
                    pending.remove(key);
                    model.inspect(|model| model.note_settled());
                }
            }
        }
        self.pending_len.store(pending.len(), Ordering::Release);
    }

    /// Checks that `record` can be stored; returns its key.
    pub(crate) fn check_record(&self, record: &EncodedRecord) -> Result<RecordKey, StoreError> {
        let definition = self.layout.schema().map_or("", |schema| schema.name);
        let model = record.model.name;
        let known = self
            .layout
            .model(model)
            .ok_or(StoreError::Schema(SchemaError::OtherModel { definition, model }))?;
        if !known.schema.is_like(record.model) {
            return Err(SchemaError::OtherSchema { model }.into());
        }
        self.check_size(&record.payload)?;
        admit::check_index_keys(record.model.indexes, &record.keys.secondary)?;
        let key = RecordKey::of_encoded(definition, record)?;
        self.check_owner(&key)?;
        Ok(key)
    }

    /// Checks that this store may write a record: an owned one is written by its owner alone, and
    /// none while another program signs with the same identity.
    ///
    /// Peers refuse another author's version, so this program must not show one.
    pub(crate) fn check_owner(&self, key: &RecordKey) -> Result<(), StoreError> {
        self.check_identity()?;
        match key.owner() {
            Some(owner) if self.author() != Some(owner) => {
                Err(StoreError::Write(WriteError::NotOwner { key: key.clone(), owner }))
            }
            _ => Ok(()),
        }
    }

    /// Makes the write that stores `record`, signed if the store has an identity.
    pub(crate) fn put_op(&self, record: EncodedRecord) -> Result<Op, StoreError> {
        self.put_op_for(record, Lifetime::Default)
    }

    /// Does so for a record with a lifetime of its own.
    pub(crate) fn put_op_for(&self, record: EncodedRecord, lifetime: Lifetime) -> Result<Op, StoreError> {
        let key = self.check_record(&record)?;
        let (expires, lease) = self.resolve_lifetime(record.model, lifetime)?;
        let envelope = match self.author() {
            Some(author) => {
                let current = self.replaceable(&key)?;
                let payload = self.contribution(&key, current.as_ref(), author, &record)?;
                self.sign(&key, current.as_ref(), Some(&payload), expires)
            }
            None => None,
        };
        let envelope = envelope.unwrap_or_else(|| Envelope::unsigned(&record.payload));
        self.check_local_member(&key, &envelope)?;
        Ok(Op::Put { key, envelope, secondary: record.keys.secondary, origin: Origin::Local, lease })
    }

    /// Returns the payload that `author` signs: of a merged record, its own contribution. What this
    /// program does not know of the version that it replaces is kept.
    fn contribution<'a>(
        &self,
        key: &RecordKey,
        current: Option<&Envelope>,
        author: Author,
        record: &'a EncodedRecord,
    ) -> Result<Cow<'a, [u8]>, StoreError> {
        if key.policy() != WritePolicy::Merged {
            let carried =
                current.and_then(|current| record.model.carried(current.payload(), &record.payload));
            let Some(carried) = carried else { return Ok(Cow::Borrowed(&record.payload)) };
            self.check_size(&carried)?;
            return Ok(Cow::Owned(carried));
        }
        let mut payload = merge::contribution(record.model, current, author, &record.payload)?;
        let own = current.and_then(|current| current.contribution_of(author));
        if let Some(carried) = own.and_then(|own| record.model.carried(own.payload(), &payload)) {
            payload = carried;
        }
        self.check_share(key, &payload)?;
        Ok(Cow::Owned(payload))
    }

    /// Checks that what an author contributes to a merged record is no larger than its share.
    pub(crate) fn check_share(&self, key: &RecordKey, payload: &[u8]) -> Result<(), StoreError> {
        let (size, limit) = (payload.len() + ENVELOPE_OVERHEAD_BYTES, self.options.max_contribution_bytes());
        if key.policy() == WritePolicy::Merged && size > limit {
            return Err(WriteError::ContributionTooLarge { key: key.clone(), size, limit }.into());
        }
        Ok(())
    }

    /// Makes the write that deletes a record.
    pub(crate) fn remove_op(&self, key: RecordKey) -> Result<Op, StoreError> {
        self.check_owner(&key)?;
        if self.options.identity.is_none() {
            return self
                .members
                .as_ref()
                .map_or(Ok(Op::Delete { key }), |_| Err(StoreError::Write(WriteError::NoIdentity)));
        }
        let current = self.replaceable(&key)?;
        let Some(envelope) = self.sign(&key, current.as_ref(), None, 0) else {
            return Ok(Op::Delete { key });
        };
        self.check_local_member(&key, &envelope)?;
        let (secondary, origin) = (IndexKeys::default(), Origin::Local);
        Ok(Op::Put { key, envelope, secondary, origin, lease: Lease::None })
    }

    /// Signs the version that follows `current`: a tombstone if `payload` is `None`. The version
    /// expires at `expires`, in milliseconds since the Unix epoch; zero means never.
    pub(crate) fn sign(
        &self,
        key: &RecordKey,
        current: Option<&Envelope>,
        payload: Option<&[u8]>,
        expires: u64,
    ) -> Option<Envelope> {
        let identity = self.options.identity.as_ref()?;
        let timestamp = self.options.clock.tick(current.and_then(Envelope::timestamp));
        Some(Envelope::sign_for(identity, key, timestamp, expires, payload))
    }

    /// Checks that no other program signs with the identity: each of two would overwrite the
    /// other's writes.
    fn check_identity(&self) -> Result<(), StoreError> {
        if !self.is_identity_shared() {
            return Ok(());
        }
        self.author().map_or(Ok(()), |author| Err(StoreError::Write(WriteError::IdentityShared { author })))
    }

    pub(crate) fn is_identity_shared(&self) -> bool {
        self.identity_shared.load(Ordering::Relaxed)
    }

    pub(crate) fn set_identity_shared(&self, is_shared: bool) {
        self.identity_shared.store(is_shared, Ordering::Relaxed);
    }

    fn check_size(&self, payload: &[u8]) -> Result<(), StoreError> {
        let (size, limit) = (payload.len(), self.options.max_value_bytes);
        if size > limit { Err(StoreError::Write(WriteError::ValueTooLarge { size, limit })) } else { Ok(()) }
    }

    pub(crate) fn admit(
        &self,
        key: &RecordKey,
        value: &[u8],
        limit: Option<&dyn AuthorLimit>,
    ) -> Result<bool, Refusal> {
        if self.failed.load(Ordering::Acquire) {
            return Err(Refusal::StoreFailed);
        }
        let (record, is_counted) = match admit::admit(self, key, value, limit)? {
            admit::Admitted::Known => return Ok(false),
            admit::Admitted::New { record, is_counted } => (record, is_counted),
        };
        let VerifiedRecord { key, envelope, secondary, .. } = record;
        let (shown_key, shown) = (key.clone(), envelope.clone());
        let op = Op::Put { key, envelope, secondary, origin: Origin::Network, lease: Lease::None };
        // Locked first, so that the writer cannot be done with the version before it is shown.
        let mut pending = self.pending.write();
        if pending.get(&shown_key).is_some_and(|waits| waits.bundles.len() >= MAX_WAITING_BUNDLES) {
            return Err(Refusal::Busy);
        }
        self.reserve_quota(&shown_key, &shown);
        if let Err(op) = self.queue.try_push_record(op) {
            self.release_quota(&op);
            return Err(Refusal::Busy);
        }
        if let Some(limit) = limit.filter(|_| is_counted) {
            shown.view().authors().for_each(|author| limit.count(author));
        }
        self.insert_pending(&mut pending, shown_key, shown, Origin::Network);
        Ok(true)
    }

    pub(crate) fn keep(&self, record: VerifiedRecord) {
        let VerifiedRecord { key, envelope, secondary, .. } = record;
        let is_wanted = |current: Option<Envelope>| {
            current.as_ref().is_none_or(|current| envelope.adds_to(current))
                && self.check_floor(&envelope, current.as_ref()).is_ok()
                && self.check_quota(&key, &envelope, current.as_ref()).is_ok()
        };
        if self.failed.load(Ordering::Acquire) || !self.replaceable(&key).is_ok_and(is_wanted) {
            return;
        }
        let (shown_key, shown) = (key.clone(), envelope.clone());
        let op = Op::Put { key, envelope, secondary, origin: Origin::Network, lease: Lease::None };
        // Locked first, so that the writer cannot be done with the version before it is shown.
        let mut pending = self.pending.write();
        if pending.get(&shown_key).is_some_and(|waits| waits.bundles.len() >= MAX_WAITING_BUNDLES) {
            return;
        }
        self.reserve_quota(&shown_key, &shown);
        match self.queue.try_push_lazy(op) {
            Ok(()) => self.insert_pending(&mut pending, shown_key, shown, Origin::Network),
            Err(op) => self.release_quota(&op),
        }
    }

    pub(crate) fn count_refusal(&self, reason: Refusal) {
        self.refusals.count(reason);
    }

    pub(crate) fn refusals(&self) -> Vec<(Refusal, u64)> {
        self.refusals.totals()
    }

    pub(crate) fn observe(&self, observer: Arc<Observer>) {
        *self.observer.write() = Some(observer);
    }

    pub(crate) fn is_observed(&self) -> bool {
        self.observer.read().is_some()
    }

    pub(crate) fn notify(&self, event: StoreEvent) {
        let observer = self.observer.read().clone();
        if let Some(observer) = observer {
            observer(event);
        }
    }

    /// Refuses writes from now on; returns the error that their callers get.
    pub(crate) fn poison(&self, error: StoreError) -> StoreError {
        self.is_final.store(true, Ordering::Release);
        self.suspend(error)
    }

    /// Refuses writes until [`Core::resume`]; returns the error that their callers get.
    pub(crate) fn suspend(&self, error: StoreError) -> StoreError {
        let failure = Arc::clone(self.failure.write().get_or_insert_with(|| Arc::new(error)));
        self.failed.store(true, Ordering::Release);
        poisoned(&failure)
    }

    /// Takes writes again, once the engine does. Only the writer may call it.
    pub(crate) fn resume(&self) -> Result<(), StoreError> {
        if let Some(failure) = self.poisoned().filter(|_| self.is_final.load(Ordering::Acquire)) {
            return Err(failure);
        }
        self.engine.resume()?;
        // The failed write has changed usage in memory and not on the disk.
        self.load_usage()?;
        self.load_sums()?;
        *self.failure.write() = None;
        self.failed.store(false, Ordering::Release);
        Ok(())
    }

    pub(crate) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    pub(crate) fn writer_counters(&self) -> &WriterCounters {
        &self.writer_counters
    }

    pub(crate) fn count_commit(&self) {
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn poisoned(&self) -> Option<StoreError> {
        if !self.failed.load(Ordering::Acquire) {
            return None;
        }
        self.failure.read().as_ref().map(poisoned)
    }

    pub(crate) fn model(&self, position: usize) -> Result<&ModelTables, StoreError> {
        self.layout
            .models()
            .get(position)
            .ok_or(StoreError::Schema(SchemaError::OtherModel { definition: "", model: "" }))
    }
}

/// Returns whether the stored version of a key is a tombstone, or an expired version in place of
/// one.
pub(crate) fn is_in_tombstones(snapshot: &Snapshot, key: &RecordKey) -> Result<bool, StoreError> {
    match snapshot.get_with(&tables::TOMBSTONES, key.as_bytes(), |_| ()) {
        Err(StoreError::Damage(DamageError::Entry { .. })) => Ok(true),
        found => found.map(|found| found.is_some()),
    }
}

/// Returns the error of refused writes.
fn poisoned(failure: &Arc<StoreError>) -> StoreError {
    match **failure {
        StoreError::ReadOnly | StoreError::Damage(DamageError::File { .. }) => StoreError::clone(failure),
        _ => StoreError::Poisoned(Arc::clone(failure)),
    }
}
