//! The store: typed trees above, engine and writer below.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;

use parking_lot::{Mutex, RwLock};
use tempfile::TempDir;

use crate::admit::{self, Refusal, RefusalCounters, VerifiedRecord};
use crate::apply::Op;
use crate::change::{Change, ChangeKind, Observer, Origin, StoreEvent};
use crate::engine::{Engine, Snapshot};
use crate::envelope::{Author, ENVELOPE_OVERHEAD_BYTES, Envelope};
use crate::error::StoreError;
use crate::migrate::migrate;
use crate::options::{StorageBackend, StoreOptions};
use crate::record_key::RecordKey;
use crate::schema::{DefinitionSchema, EncodedRecord, IndexKeys, NetabaseDefinition, NetabaseModel};
use crate::tables::{self, Layout, ModelTables, Place};
use crate::transaction::WriteTransaction;
use crate::tree::Tree;
use crate::writer::{self, Batch, Queue, millis};

/// A typed embedded store: one definition's records in one embedded database.
///
/// Cloning is cheap, and clones share the store; it closes when the last one is dropped, after
/// everything queued is on the disk. Reads run on the caller's thread and never wait for a writer.
/// Writes of all threads are gathered into groups, and a call returns when its write is durable.
///
/// ```
/// use netabase_store::{NetabaseModel, NetabaseStore, netabase_definition_module};
///
/// #[netabase_definition_module(LibraryDefinition, LibraryKeys)]
/// mod library {
///     use netabase_store::NetabaseModel;
///     use serde::{Deserialize, Serialize};
///
///     #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
///     #[netabase(LibraryDefinition)]
///     pub struct Book {
///         #[primary_key]
///         pub isbn: String,
///         #[secondary_key]
///         pub author: String,
///     }
/// }
/// use library::*;
///
/// let store = NetabaseStore::temporary::<LibraryDefinition>()?;
/// let books = store.open_tree::<Book>()?;
/// let book = Book { isbn: "978-0-13-110362-7".into(), author: "Kernighan".into() };
/// books.put(&book)?;
/// assert_eq!(books.get(&BookPrimaryKey(book.isbn.clone()))?, Some(book.clone()));
/// assert_eq!(books.find(BookAuthorSecondaryKey("Kernighan".into()))?, [book]);
/// # Ok::<(), netabase_store::StoreError>(())
/// ```
#[derive(Clone)]
pub struct NetabaseStore {
    handle: Arc<Handle>,
}

/// A record from a peer that has passed every check; only [`NetabaseStore::check`] makes one.
#[derive(Debug)]
pub struct CheckedRecord(VerifiedRecord);

impl CheckedRecord {
    /// Returns the version that was checked.
    pub fn envelope(&self) -> &Envelope {
        &self.0.envelope
    }
}

/// Ends the writer's thread when the last store is dropped.
struct Handle {
    core: Arc<Core>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Deletes a temporary store's files, after the writer has ended.
    _directory: Option<TempDir>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.queue.close();
        let writer = self.writer.get_mut().take();
        // The last store may be dropped by a callback of the writer's own thread.
        if let Some(writer) = writer.filter(|writer| writer.thread().id() != std::thread::current().id())
            && writer.join().is_err()
        {
            tracing::error!("the store's writer thread has panicked");
        }
    }
}

impl NetabaseStore {
    /// Opens or creates the store of definition `D` at `path`, with redb.
    pub fn open<D: NetabaseDefinition>(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_with(path, Some(D::SCHEMA), StoreOptions::default())
    }

    /// Creates a store in a temporary directory that is deleted with the store.
    pub fn temporary<D: NetabaseDefinition>() -> Result<Self, StoreError> {
        let directory = TempDir::new().map_err(StoreError::backend)?;
        let path = directory.path().join("netabase.redb");
        Self::start(&path, Some(D::SCHEMA), StoreOptions::default(), Some(directory))
    }

    /// Creates a store that keeps nothing on disk.
    pub fn in_memory<D: NetabaseDefinition>() -> Result<Self, StoreError> {
        let options = StoreOptions { backend: StorageBackend::Memory, ..StoreOptions::default() };
        Self::open_with("", Some(D::SCHEMA), options)
    }

    /// Opens or creates a store as `options` say; the memory backend ignores `path`.
    ///
    /// A store without a schema keeps, serves and verifies records of any definition, and has no
    /// trees.
    pub fn open_with(
        path: impl AsRef<Path>,
        schema: Option<&'static DefinitionSchema>,
        options: StoreOptions,
    ) -> Result<Self, StoreError> {
        Self::start(path.as_ref(), schema, options, None)
    }

    fn start(
        path: &Path,
        schema: Option<&'static DefinitionSchema>,
        options: StoreOptions,
        directory: Option<TempDir>,
    ) -> Result<Self, StoreError> {
        let engine = Engine::open(options.backend, path, options.cache_bytes)?;
        check_format(&engine, schema)?;
        let layout = Layout::new(schema);
        migrate(&engine, &layout)?;
        let core = Arc::new(Core::new(engine, layout, options)?);
        let writer = Mutex::new(Some(writer::spawn(Arc::clone(&core))?));
        Ok(Self { handle: Arc::new(Handle { core, writer, _directory: directory }) })
    }

    /// Returns the typed view of one model's records.
    pub fn open_tree<M: NetabaseModel>(&self) -> Result<Tree<M>, StoreError> {
        let schema = self.core().layout.schema();
        let ours = schema.is_some_and(|schema| schema.name == M::Definition::SCHEMA.name);
        let model =
            self.core().layout.models().iter().position(|model| ours && model.schema.name == M::SCHEMA.name);
        let model = model.ok_or_else(|| StoreError::OtherModel {
            definition: schema.map_or("", |schema| schema.name),
            model: M::SCHEMA.name,
        })?;
        Ok(Tree { store: self.clone(), model, marker: PhantomData })
    }

    /// Starts a transaction that writes to any number of models, all or nothing.
    pub fn begin_write(&self) -> WriteTransaction {
        WriteTransaction::new(self.clone())
    }

    /// Returns the schema that the store was opened with.
    pub fn schema(&self) -> Option<&'static DefinitionSchema> {
        self.core().layout.schema()
    }

    /// Returns the database underneath.
    pub fn engine(&self) -> &Engine {
        &self.core().engine
    }

    /// Returns the public key that signs this store's writes.
    pub fn author(&self) -> Option<Author> {
        self.core().author()
    }

    /// Calls `observer` with every event from now on, in place of any earlier observer.
    pub fn set_observer(&self, observer: impl Fn(StoreEvent) + Send + Sync + 'static) {
        *self.core().observer.write() = Some(Arc::new(observer));
    }

    /// Returns how many records from peers were refused since the store was opened, by reason.
    pub fn refusals(&self) -> Vec<(Refusal, u64)> {
        self.core().refusals.totals()
    }

    /// Returns how many groups of writes were made durable since the store was opened.
    ///
    /// It grows more slowly than the number of writes where they come at the same time.
    pub fn commits(&self) -> u64 {
        self.core().commits.load(Ordering::Relaxed)
    }

    /// Returns the version under `key`, tombstones included, or `None` if there is none or it has
    /// expired. A version that waits for the disk is already seen.
    pub fn envelope(&self, key: &RecordKey) -> Result<Option<Envelope>, StoreError> {
        let now = self.core().options.clock.unix_millis();
        Ok(self.core().current(key)?.filter(|current| !current.is_expired(now)))
    }

    /// Signs a record and queues it, without waiting for the disk.
    ///
    /// The version is seen by [`NetabaseStore::envelope`] at once; `done` is called on the writer's
    /// thread when it is durable, with what it changed. Blocks only while the queue of writes is full,
    /// and never in a callback of the store.
    pub fn submit(
        &self,
        record: &EncodedRecord,
        done: impl FnOnce(Result<Option<ChangeKind>, StoreError>) + Send + 'static,
    ) -> Result<(RecordKey, Envelope), StoreError> {
        let (key, envelope, op) = self.core().put_op(record)?;
        self.submit_op(op, done);
        Ok((key, envelope))
    }

    /// Signs a tombstone for `key` and queues it, without waiting for the disk.
    ///
    /// `done` is called as in [`NetabaseStore::submit`]. Fails without an identity, since nobody would
    /// believe the tombstone.
    pub fn submit_removal(
        &self,
        key: &RecordKey,
        done: impl FnOnce(Result<Option<ChangeKind>, StoreError>) + Send + 'static,
    ) -> Result<Envelope, StoreError> {
        let after = self.core().current(key)?;
        let envelope = self.core().sign(key, after.as_ref(), None).ok_or(StoreError::NoIdentity)?;
        let (key, secondary, origin) = (key.clone(), IndexKeys::default(), Origin::Local);
        let op = Op::Put { key, envelope: envelope.clone(), secondary, origin };
        self.submit_op(op, done);
        Ok(envelope)
    }

    /// Checks and queues a record that a peer sent, without waiting for the disk.
    ///
    /// Returns whether it is news. A refusal is counted and told to the observer.
    pub fn admit(&self, key: &[u8], value: &[u8]) -> Result<bool, Refusal> {
        let parsed = RecordKey::parse(key).map_err(|_| Refusal::InvalidKey);
        let outcome = parsed.clone().and_then(|key| self.core().admit(&key, value));
        if let Err(reason) = outcome {
            self.core().refuse(parsed.ok(), reason);
        }
        outcome
    }

    /// Checks a record that a peer answered with, whatever this store holds, and stores nothing.
    ///
    /// A refusal is counted and told to the observer.
    pub fn verify(&self, key: &RecordKey, value: &[u8]) -> Result<Envelope, Refusal> {
        self.check(key, value).map(|record| record.0.envelope)
    }

    /// Checks a record like [`NetabaseStore::verify`], for [`NetabaseStore::keep`] to store it
    /// without checking it once more.
    pub fn check(&self, key: &RecordKey, value: &[u8]) -> Result<CheckedRecord, Refusal> {
        let checked = admit::check(self.core(), key, value);
        checked.map(CheckedRecord).inspect_err(|reason| self.core().refuse(Some(key.clone()), *reason))
    }

    /// Stores a checked record, unless a newer version is here.
    ///
    /// It is seen at once and joins a later write, within half a second: a copy of what others hold
    /// is not worth a commit of its own. It is dropped if too many writes wait.
    pub fn keep(&self, record: CheckedRecord) {
        self.core().keep(record.0);
    }

    /// Returns up to `limit` live records of the schema's models, model by model in key order.
    pub fn local_records(&self, limit: Option<usize>) -> Result<Vec<(RecordKey, Envelope)>, StoreError> {
        let snapshot = self.core().engine.snapshot()?;
        let now = self.core().options.clock.unix_millis();
        let limit = limit.unwrap_or(usize::MAX);
        let definition = self.schema().map_or("", |schema| schema.name);
        let mut records = Vec::new();
        for model in self.core().layout.models() {
            for entry in snapshot.all(&model.records)? {
                if records.len() == limit {
                    return Ok(records);
                }
                let (primary_key, bytes) = entry?;
                let envelope = Envelope::parse(&bytes).map_err(StoreError::Damaged)?;
                if !envelope.is_expired(now) {
                    records.push((RecordKey::new(definition, model.schema.name, &primary_key)?, envelope));
                }
            }
        }
        Ok(records)
    }

    /// Returns up to `limit` records of our own whose publication is due, the longest due first.
    pub fn due(&self, limit: usize) -> Result<Vec<RecordKey>, StoreError> {
        let now = self.core().options.clock.unix_millis();
        let mut due = Vec::new();
        for entry in self.core().engine.snapshot()?.all(tables::DUE)?.take(limit) {
            match tables::split_time_key(&entry?.0) {
                Some((time, key)) if time <= now => due.push(key),
                _ => break,
            }
        }
        Ok(due)
    }

    /// Sets when a record is to be published next, in milliseconds since the Unix epoch; `None`
    /// takes it off the schedule.
    ///
    /// The change joins a later write, and may be lost in a crash: the record is then published
    /// once more than needed.
    pub fn schedule(&self, key: &RecordKey, due: Option<u64>) {
        self.core().queue.push_lazy(Op::Schedule { key: key.clone(), due });
    }

    /// Returns the clock that the store was opened with.
    pub fn clock(&self) -> &crate::clock::Clock {
        &self.core().options.clock
    }

    pub(crate) fn core(&self) -> &Core {
        &self.handle.core
    }

    /// Waits until `batch` is durable.
    pub(crate) fn commit(&self, batch: Batch) -> Result<Vec<Option<Change>>, StoreError> {
        self.check_not_in_callback()?;
        let (sender, receiver) = mpsc::sync_channel(1);
        let done: writer::Done = Box::new(move |result| {
            // The receiver waits below, so the channel is open and has room.
            let _ = sender.send(result);
        });
        self.core().queue.push(Batch { done: Some(done), ..batch });
        receiver.recv().map_err(StoreError::backend)?
    }

    /// Fails on the writer's own thread, which cannot wait for itself.
    pub(crate) fn check_not_in_callback(&self) -> Result<(), StoreError> {
        if self.core().queue.is_writer() { Err(StoreError::InCallback) } else { Ok(()) }
    }

    fn submit_op(&self, op: Op, done: impl FnOnce(Result<Option<ChangeKind>, StoreError>) + Send + 'static) {
        self.core().show_pending(&op);
        let done = Box::new(|result: Result<Vec<Option<Change>>, StoreError>| {
            done(result.map(|changes| changes.into_iter().next().flatten().map(|change| change.kind)));
        });
        self.core().queue.push(Batch::new(vec![op], done));
    }
}

impl fmt::Debug for NetabaseStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let definition = self.schema().map(|schema| schema.name);
        f.debug_struct("NetabaseStore")
            .field("definition", &definition)
            .field("engine", &self.core().engine)
            .finish_non_exhaustive()
    }
}

pub(crate) fn is_removal(change: Option<&Change>) -> bool {
    change.is_some_and(|change| change.kind == ChangeKind::Removed)
}

/// What all clones of a store and its writer share.
pub(crate) struct Core {
    engine: Engine,
    layout: Layout,
    options: StoreOptions,
    queue: Queue,
    /// Signed versions that are not on the disk yet, for readers that must see them.
    pending: RwLock<HashMap<RecordKey, Envelope>>,
    /// The size of `pending`, so that readers need no lock where it is empty.
    pending_len: AtomicUsize,
    failed: AtomicBool,
    failure: OnceLock<Arc<StoreError>>,
    observer: RwLock<Option<Arc<Observer>>>,
    refusals: RefusalCounters,
    commits: AtomicU64,
    #[cfg(feature = "libp2p")]
    providers: RwLock<crate::provider::Providers>,
}

impl Core {
    #[cfg_attr(
        not(feature = "libp2p"),
        expect(clippy::unnecessary_wraps, reason = "only provider records can fail to load")
    )]
    fn new(engine: Engine, layout: Layout, options: StoreOptions) -> Result<Self, StoreError> {
        #[cfg(feature = "libp2p")]
        let providers = crate::provider::Providers::load(&engine, options.clock.unix_millis())?;
        Ok(Self {
            engine,
            layout,
            options,
            queue: Queue::default(),
            pending: RwLock::default(),
            pending_len: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            failure: OnceLock::new(),
            observer: RwLock::default(),
            refusals: RefusalCounters::default(),
            commits: AtomicU64::new(0),
            #[cfg(feature = "libp2p")]
            providers: RwLock::new(providers),
        })
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
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

    #[cfg(feature = "libp2p")]
    pub(crate) fn providers(&self) -> &RwLock<crate::provider::Providers> {
        &self.providers
    }

    pub(crate) fn author(&self) -> Option<Author> {
        let identity = self.options.identity.as_ref()?;
        Some(Author::from_bytes(identity.verifying_key().to_bytes()))
    }

    /// Returns the newest version, whether on the disk yet or not, tombstones included.
    pub(crate) fn current(&self, key: &RecordKey) -> Result<Option<Envelope>, StoreError> {
        match self.pending(key) {
            Some(pending) => self.newest(&self.engine.snapshot()?, key, pending).map(Some),
            None => self.stored(&self.engine.snapshot()?, key),
        }
    }

    /// Returns `pending`, or the version in a snapshot if a later write has overtaken it.
    pub(crate) fn newest(
        &self,
        snapshot: &Snapshot,
        key: &RecordKey,
        pending: Envelope,
    ) -> Result<Envelope, StoreError> {
        let stored = self.stored(snapshot, key)?;
        Ok(stored.filter(|stored| stored.cmp_version(&pending).is_gt()).unwrap_or(pending))
    }

    /// Returns the version in a snapshot, tombstones included.
    pub(crate) fn stored(
        &self,
        snapshot: &Snapshot,
        key: &RecordKey,
    ) -> Result<Option<Envelope>, StoreError> {
        let Place { table, key: place, .. } = self.layout.place(key);
        let bytes = match snapshot.get(table, place)? {
            Some(bytes) => Some(bytes),
            None => snapshot.get(tables::TOMBSTONES, key.as_bytes())?,
        };
        bytes.map(|bytes| Envelope::parse(&bytes).map_err(StoreError::Damaged)).transpose()
    }

    /// Returns a version that waits for the disk.
    pub(crate) fn pending(&self, key: &RecordKey) -> Option<Envelope> {
        if self.pending_len.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.pending.read().get(key).cloned()
    }

    /// Shows a signed version to readers before it is on the disk.
    pub(crate) fn show_pending(&self, op: &Op) {
        if let Op::Put { key, envelope, .. } = op
            && envelope.is_signed()
        {
            self.insert_pending(&mut self.pending.write(), key.clone(), envelope.clone());
        }
    }

    fn insert_pending(&self, pending: &mut HashMap<RecordKey, Envelope>, key: RecordKey, envelope: Envelope) {
        let newer = pending.get(&key).is_none_or(|pending| pending.cmp_version(&envelope).is_lt());
        if newer {
            pending.insert(key, envelope);
            self.pending_len.store(pending.len(), Ordering::Release);
        }
    }

    /// Forgets versions that are on the disk now.
    pub(crate) fn forget_pending<'a>(&self, ops: impl Iterator<Item = &'a Op>) {
        let mut pending = self.pending.write();
        for op in ops {
            if let Op::Put { key, envelope, .. } = op
                && pending.get(key) == Some(envelope)
            {
                pending.remove(key);
            }
        }
        self.pending_len.store(pending.len(), Ordering::Release);
    }

    /// Checks that `record` can be stored; returns its key.
    pub(crate) fn check_record(&self, record: &EncodedRecord) -> Result<RecordKey, StoreError> {
        let definition = self.layout.schema().map_or("", |schema| schema.name);
        if self.layout.model(record.model.name).is_none() {
            return Err(StoreError::OtherModel { definition, model: record.model.name });
        }
        self.check_size(&record.payload)?;
        admit::check_index_keys(record.model.indexes, &record.keys.secondary)?;
        Ok(RecordKey::of_encoded(definition, record)?)
    }

    /// Makes the write that stores `record`, signed if the store has an identity.
    pub(crate) fn put_op(&self, record: &EncodedRecord) -> Result<(RecordKey, Envelope, Op), StoreError> {
        let key = self.check_record(record)?;
        let envelope = match &self.options.identity {
            Some(_) => self.sign(&key, self.current(&key)?.as_ref(), Some(&record.payload)),
            None => None,
        };
        let envelope = envelope.unwrap_or_else(|| Envelope::unsigned(&record.payload));
        let secondary = record.keys.secondary.clone();
        let op = Op::Put { key: key.clone(), envelope: envelope.clone(), secondary, origin: Origin::Local };
        Ok((key, envelope, op))
    }

    /// Makes the write that deletes a record.
    pub(crate) fn remove_op(&self, key: RecordKey) -> Result<Op, StoreError> {
        if self.options.identity.is_none() {
            return Ok(Op::Delete { key });
        }
        let current = self.current(&key)?;
        Ok(match self.sign(&key, current.as_ref(), None) {
            Some(envelope) => {
                Op::Put { key, envelope, secondary: IndexKeys::default(), origin: Origin::Local }
            }
            None => Op::Delete { key },
        })
    }

    /// Signs the version that follows `current`; a tombstone where there is no payload.
    fn sign(&self, key: &RecordKey, current: Option<&Envelope>, payload: Option<&[u8]>) -> Option<Envelope> {
        let identity = self.options.identity.as_ref()?;
        let timestamp = self.options.clock.tick(current.and_then(Envelope::timestamp));
        let lifetime = self.options.record_lifetime.filter(|_| payload.is_some());
        let expires =
            lifetime.map_or(0, |lifetime| self.options.clock.unix_millis().saturating_add(millis(lifetime)));
        Some(Envelope::sign(identity, key, timestamp, expires, payload))
    }

    fn check_size(&self, payload: &[u8]) -> Result<(), StoreError> {
        let (size, limit) = (payload.len(), self.options.max_value_bytes);
        if size > limit { Err(StoreError::ValueTooLarge { size, limit }) } else { Ok(()) }
    }

    fn admit(&self, key: &RecordKey, value: &[u8]) -> Result<bool, Refusal> {
        if self.failed.load(Ordering::Acquire) {
            return Err(Refusal::StoreFailed);
        }
        let record = match admit::admit(self, key, value)? {
            admit::Admitted::Known => return Ok(false),
            admit::Admitted::New(record) => record,
        };
        let VerifiedRecord { key, envelope, secondary } = record;
        let (shown_key, shown) = (key.clone(), envelope.clone());
        let op = Op::Put { key, envelope, secondary, origin: Origin::Network };
        let batch = Batch { ops: vec![op], ..Batch::default() };
        // Locked first, so that the writer cannot be done with the version before it is shown.
        let mut pending = self.pending.write();
        self.queue.try_push(batch).map_err(|_| Refusal::Busy)?;
        self.insert_pending(&mut pending, shown_key, shown);
        Ok(true)
    }

    fn keep(&self, record: VerifiedRecord) {
        let VerifiedRecord { key, envelope, secondary } = record;
        let older =
            |current: Option<Envelope>| current.is_none_or(|current| current.cmp_version(&envelope).is_lt());
        if self.failed.load(Ordering::Acquire) || !self.current(&key).is_ok_and(older) {
            return;
        }
        let (shown_key, shown) = (key.clone(), envelope.clone());
        let op = Op::Put { key, envelope, secondary, origin: Origin::Network };
        // Locked first, so that the writer cannot be done with the version before it is shown.
        let mut pending = self.pending.write();
        if self.queue.push_lazy(op) {
            self.insert_pending(&mut pending, shown_key, shown);
        }
    }

    fn refuse(&self, key: Option<RecordKey>, reason: Refusal) {
        self.refusals.count(reason);
        self.notify(StoreEvent::Refused { key, reason });
    }

    pub(crate) fn notify(&self, event: StoreEvent) {
        let observer = self.observer.read().clone();
        if let Some(observer) = observer {
            observer(event);
        }
    }

    /// Takes no more writes from now on; returns what their callers are told.
    pub(crate) fn poison(&self, error: StoreError) -> StoreError {
        let failure = Arc::clone(self.failure.get_or_init(|| Arc::new(error)));
        self.failed.store(true, Ordering::Release);
        StoreError::Poisoned(failure)
    }

    pub(crate) fn count_commit(&self) {
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn poisoned(&self) -> Option<StoreError> {
        self.failure.get().map(|error| StoreError::Poisoned(Arc::clone(error)))
    }

    pub(crate) fn model(&self, position: usize) -> Result<&ModelTables, StoreError> {
        self.layout.models().get(position).ok_or(StoreError::OtherModel { definition: "", model: "" })
    }
}

impl StoreOptions {
    /// The largest envelope that is stored.
    pub(crate) fn max_envelope_bytes(&self) -> usize {
        self.max_value_bytes.saturating_add(ENVELOPE_OVERHEAD_BYTES)
    }
}

/// Refuses a database of another format or definition, and marks a new one.
fn check_format(engine: &Engine, schema: Option<&'static DefinitionSchema>) -> Result<(), StoreError> {
    // A store without a schema has a definition without a name.
    let expected = schema.map_or("", |schema| schema.name);
    let snapshot = engine.snapshot()?;
    let Some(format) = snapshot.get(tables::META, tables::META_FORMAT)? else {
        return engine.write(|tables| {
            tables.insert(tables::META, tables::META_FORMAT, &tables::FORMAT.to_be_bytes())?;
            tables.insert(tables::META, tables::META_DEFINITION, expected.as_bytes())
        });
    };
    let found = format.as_slice().try_into().map_or(0, u32::from_be_bytes);
    if found != tables::FORMAT {
        return Err(StoreError::UnknownFormat { found, known: tables::FORMAT });
    }
    let found = snapshot.get(tables::META, tables::META_DEFINITION)?.unwrap_or_default();
    if found != expected.as_bytes() {
        return Err(StoreError::OtherDefinition {
            found: String::from_utf8_lossy(&found).into_owned(),
            expected,
        });
    }
    Ok(())
}
