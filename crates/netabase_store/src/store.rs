//! The store: typed trees above, engine and writer below.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tempfile::TempDir;

use crate::admit::{self, Refusal, VerifiedRecord};
use crate::apply::{self, Expected, Lease, Op};
use crate::blobs::{BlobError, Blobs};
use crate::change::{Change, ChangeKind, Origin, StoreEvent};
use crate::core::Core;
use crate::engine::{Engine, NO_PATH, RedbStorage};
use crate::envelope::{Author, ContentHash, Envelope};
use crate::error::StoreError;
use crate::feed::Feed;
use crate::history::{self, Position};
use crate::lease::Lifetime;
use crate::merge;
use crate::migrate::{check_format, migrate};
use crate::options::{StorageBackend, StoreOptions};
use crate::record_key::RecordKey;
use crate::schema::{DefinitionSchema, EncodedRecord, IndexKeys, NetabaseDefinition, NetabaseModel};
use crate::snapshot::ReadSnapshot;
use crate::tables::{self, Layout, ModelTables};
use crate::transaction::WriteTransaction;
use crate::tree::Tree;
use crate::view::Pinned;
use crate::watch::{Changes, WatchFrom};
use crate::writer::{self, Batch};

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

/// What a write relies on, see [`NetabaseStore::submit_if`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedVersion {
    /// There is no live record.
    Absent,
    /// The record is this very envelope, which [`Envelope::content_hash`] names.
    Content(ContentHash),
}

/// A record from a peer that has passed every check; only [`NetabaseStore::check_record`] makes
/// one.
#[derive(Debug)]
pub struct CheckedRecord(VerifiedRecord);

impl CheckedRecord {
    /// Returns the version that was checked.
    pub fn envelope(&self) -> &Envelope {
        &self.0.envelope
    }

    /// Returns what becomes of two copies of one record.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        let VerifiedRecord { key, envelope, secondary, model } = self.0;
        let joined = envelope.join(&other.0.envelope);
        let record = if joined == envelope {
            VerifiedRecord { key, envelope, secondary, model }
        } else if joined == other.0.envelope {
            other.0
        } else {
            let (envelope, secondary) = match model {
                Some(model) => merge::merged(model, key.primary_key(), &joined),
                None => (joined, secondary),
            };
            VerifiedRecord { key, envelope, secondary, model }
        };
        Self(record)
    }
}

/// Ends the writer's thread when the last store is dropped.
struct Handle {
    core: Arc<Core>,
    /// Waits, once `core` is dropped, for followers that still read.
    _readers: Readers,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Deletes a temporary store's files, after the writer has ended.
    _directory: Option<TempDir>,
}

/// Lets nobody who has closed a store find it still open because somebody follows it.
struct Readers(Arc<Feed>);

impl Drop for Readers {
    fn drop(&mut self) {
        self.0.wait_for_readers();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.queue().close();
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
    /// Opens or creates the store of definition `D` at `path`, with redb; fails as
    /// [`NetabaseStore::open_with`] does.
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
    /// trees. Where models or their indexes have changed since the database was last open, their indexes are
    /// built again, which takes time in proportion to their records.
    ///
    /// Fails with [`StoreError::Locked`] if the database is open already, with [`StoreError::NotADatabase`],
    /// [`StoreError::OtherDefinition`] or [`StoreError::UnknownFormat`] if it is not one that this program can
    /// take; its records are left as they are then.
    ///
    /// ```
    /// # use netabase_store::{NetabaseModel, NetabaseStore, netabase_definition_module};
    /// # #[netabase_definition_module(LibraryDefinition, LibraryKeys)]
    /// # mod library {
    /// #     use netabase_store::NetabaseModel;
    /// #     use serde::{Deserialize, Serialize};
    /// #     #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    /// #     #[netabase(LibraryDefinition)]
    /// #     pub struct Book { #[primary_key] pub isbn: String }
    /// # }
    /// # use library::*;
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("library.redb");
    /// use netabase_store::{Durability, NetabaseDefinition, StoreOptions};
    ///
    /// let options = StoreOptions { durability: Durability::Interval, ..StoreOptions::default() };
    /// let store = NetabaseStore::open_with(&path, Some(LibraryDefinition::SCHEMA), options)?;
    /// assert!(store.open_tree::<Book>()?.is_empty()?);
    /// # Ok::<(), netabase_store::StoreError>(())
    /// ```
    pub fn open_with(
        path: impl AsRef<Path>,
        schema: Option<&'static DefinitionSchema>,
        options: StoreOptions,
    ) -> Result<Self, StoreError> {
        Self::start(path.as_ref(), schema, options, None)
    }

    /// Opens or creates a store in a storage of your own: encrypted, in memory, or one that fails on
    /// purpose in a test.
    ///
    /// It is a redb database whatever backend `options` say. The storage must keep a database to
    /// itself, since redb cannot lock it against other programs unless it supports locking, and
    /// [`RedbStorage::sync_data`] must return only when everything written before is safe.
    ///
    /// ```
    /// # use netabase_store::{NetabaseModel, NetabaseStore, netabase_definition_module};
    /// # #[netabase_definition_module(LibraryDefinition, LibraryKeys)]
    /// # mod library {
    /// #     use netabase_store::NetabaseModel;
    /// #     use serde::{Deserialize, Serialize};
    /// #     #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    /// #     #[netabase(LibraryDefinition)]
    /// #     pub struct Book { #[primary_key] pub isbn: String }
    /// # }
    /// # use library::*;
    /// use std::io;
    /// use std::sync::Mutex;
    ///
    /// use netabase_store::{NetabaseDefinition, RedbStorage, StoreOptions};
    ///
    /// #[derive(Debug, Default)]
    /// struct Bytes(Mutex<Vec<u8>>);
    ///
    /// impl RedbStorage for Bytes {
    ///     fn len(&self) -> io::Result<u64> {
    ///         Ok(self.0.lock().unwrap().len() as u64)
    ///     }
    ///     fn set_len(&self, len: u64) -> io::Result<()> {
    ///         Ok(self.0.lock().unwrap().resize(len as usize, 0))
    ///     }
    ///     fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
    ///         Ok(out.copy_from_slice(&self.0.lock().unwrap()[offset as usize..][..out.len()]))
    ///     }
    ///     fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
    ///         Ok(self.0.lock().unwrap()[offset as usize..][..data.len()].copy_from_slice(data))
    ///     }
    ///     fn sync_data(&self) -> io::Result<()> {
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let schema = Some(LibraryDefinition::SCHEMA);
    /// let store = NetabaseStore::open_with_storage(Bytes::default(), schema, StoreOptions::default())?;
    /// store.open_tree::<Book>()?.put(&Book { isbn: "978-0-13-110362-7".into() })?;
    /// # Ok::<(), netabase_store::StoreError>(())
    /// ```
    pub fn open_with_storage(
        storage: impl RedbStorage,
        schema: Option<&'static DefinitionSchema>,
        options: StoreOptions,
    ) -> Result<Self, StoreError> {
        let options = StoreOptions { backend: StorageBackend::Redb, ..options };
        let layout = Layout::new(schema);
        let engine = Engine::open_storage(storage, options.cache_bytes, layout.slots())?;
        Self::start_on(engine, layout, Path::new(NO_PATH), options, None)
    }

    fn start(
        path: &Path,
        schema: Option<&'static DefinitionSchema>,
        options: StoreOptions,
        directory: Option<TempDir>,
    ) -> Result<Self, StoreError> {
        let layout = Layout::new(schema);
        let engine = Engine::open(options.backend, path, options.cache_bytes, layout.slots())?;
        Self::start_on(engine, layout, path, options, directory)
    }

    fn start_on(
        engine: Engine,
        layout: Layout,
        path: &Path,
        options: StoreOptions,
        directory: Option<TempDir>,
    ) -> Result<Self, StoreError> {
        let schema = layout.schema();
        let format = check_format(&engine, path, options.backend, schema)?;
        migrate(&engine, &layout, format)?;
        let position = Position::load(&engine.snapshot()?)?;
        let beside =
            (options.backend != StorageBackend::Memory && path != Path::new(NO_PATH)).then_some(path);
        let blobs = Blobs::open(beside, &options).map_err(BlobError::into_store)?;
        let core = Arc::new(Core::new(engine, layout, options, Feed::new(position.next), blobs)?);
        let writer = Mutex::new(Some(writer::spawn(Arc::clone(&core), position)?));
        let readers = Readers(Arc::clone(core.feed()));
        Ok(Self { handle: Arc::new(Handle { core, _readers: readers, writer, _directory: directory }) })
    }

    /// Returns the typed view of one model's records; fails with [`StoreError::OtherModel`] if the store was
    /// opened without the model, and with [`StoreError::OtherSchema`] if it was opened with another form of it.
    pub fn open_tree<M: NetabaseModel>(&self) -> Result<Tree<M>, StoreError> {
        Ok(Tree::new(self.clone(), self.model_position::<M>()?))
    }

    pub(crate) fn model_position<M: NetabaseModel>(&self) -> Result<usize, StoreError> {
        let schema = self.core().layout().schema();
        let ours = schema.is_some_and(|schema| schema.name == M::Definition::SCHEMA.name);
        let (definition, model) = (schema.map_or("", |schema| schema.name), M::SCHEMA.name);
        let mut models = self.core().layout().models().iter().enumerate();
        let known = models.find(|(_, known)| ours && known.schema.name == model);
        let (position, known) = known.ok_or(StoreError::OtherModel { definition, model })?;
        if known.schema.is_like(M::SCHEMA) { Ok(position) } else { Err(StoreError::OtherSchema { model }) }
    }

    /// Starts a transaction that writes to any number of models, all or nothing.
    pub fn begin_write(&self) -> WriteTransaction {
        WriteTransaction::new(self.clone())
    }

    /// Returns the records as they are now, for any number of reads that are to see the same.
    ///
    /// Fails on sled, which cannot show one moment while others write.
    pub fn read(&self) -> Result<ReadSnapshot, StoreError> {
        let core = self.core();
        if !core.engine().has_snapshots() {
            return Err(StoreError::Unsupported { backend: core.options().backend, what: "snapshots" });
        }
        let now = core.options().clock.unix_millis();
        Ok(ReadSnapshot::new(self.clone(), Pinned { snapshot: core.whole_snapshot()?, now }))
    }

    /// Follows the changes of all models, from peers and of this program, in the order of their commits.
    ///
    /// [`Tree::watch`] does so for the records of one model, typed.
    pub fn changes(&self, from: WatchFrom) -> Result<Changes, StoreError> {
        Changes::new(&self.handle.core, from)
    }

    /// Waits until everything written before is on the disk, whatever the
    /// [`durability`](StoreOptions::durability).
    pub fn flush(&self) -> Result<(), StoreError> {
        self.commit(Batch { flush: true, ..Batch::default() }).map(drop)
    }

    /// Returns the schema that the store was opened with.
    pub fn schema(&self) -> Option<&'static DefinitionSchema> {
        self.core().layout().schema()
    }

    /// Returns the database underneath.
    pub fn engine(&self) -> &Engine {
        self.core().engine()
    }

    /// Returns the public key that signs this store's writes.
    pub fn author(&self) -> Option<Author> {
        self.core().author()
    }

    /// Calls `observer` with every event from now on, in place of any earlier observer; see [`Observer`] for
    /// the threads. Waiting for a write in it fails with [`StoreError::InCallback`].
    ///
    /// [`Observer`]: crate::Observer
    pub fn set_observer(&self, observer: impl Fn(StoreEvent) + Send + Sync + 'static) {
        self.core().observe(Arc::new(observer));
    }

    /// Returns how many records from peers were refused since the store was opened, by reason.
    pub fn refusals(&self) -> Vec<(Refusal, u64)> {
        self.core().refusals()
    }

    /// Returns how many groups of writes were committed since the store was opened.
    ///
    /// It grows more slowly than the number of writes where they come at the same time.
    pub fn commits(&self) -> u64 {
        self.core().commits()
    }

    /// Returns the version under `key`, tombstones included, or `None` if there is none or it has
    /// expired. A version that waits for the disk is already seen.
    pub fn envelope(&self, key: &RecordKey) -> Result<Option<Envelope>, StoreError> {
        let now = self.core().options().clock.unix_millis();
        Ok(self.core().current(key)?.filter(|current| !current.is_expired(now)))
    }

    /// Signs a record and queues it, without waiting for the disk.
    ///
    /// The version is seen by [`NetabaseStore::envelope`] at once, unless it
    /// [may be refused](NetabaseStore::may_refuse); `done` is called on the writer's thread when it is
    /// as durable as the store was told to be, with what it changed. `None` says that it changed nothing, because
    /// a later version, such as a peer's, came between the signing and the writing: the caller may
    /// have passed on the version already, so it is not signed again. Blocks only while the queue of
    /// writes is full, and never in a callback of the store.
    pub fn submit(
        &self,
        record: &EncodedRecord,
        done: impl FnOnce(Result<Option<ChangeKind>, StoreError>) + Send + 'static,
    ) -> Result<(RecordKey, Envelope), StoreError> {
        self.submit_with(record, Lifetime::Default, done)
    }

    /// Does what [`NetabaseStore::submit`] does for a record with a lifetime of its own.
    pub fn submit_with(
        &self,
        record: &EncodedRecord,
        lifetime: Lifetime,
        done: impl FnOnce(Result<Option<ChangeKind>, StoreError>) + Send + 'static,
    ) -> Result<(RecordKey, Envelope), StoreError> {
        let op = self.core().put_op_for(record.clone(), lifetime)?;
        let Op::Put { key, envelope, .. } = &op else { return Err(StoreError::NoIdentity) };
        let written = (key.clone(), envelope.clone());
        self.submit_op(op, done);
        Ok(written)
    }

    /// Does what [`NetabaseStore::submit_with`] does where the record still is as `expected` when it is written; `done`
    /// gets [`StoreError::Conflict`] where it is not.
    ///
    /// The version is not seen before it is written, and is signed again if it does not come after what it replaces:
    /// `done` gets the envelope that was written.
    pub fn submit_if(
        &self,
        record: &EncodedRecord,
        lifetime: Lifetime,
        expected: ExpectedVersion,
        done: impl FnOnce(Result<(ChangeKind, Envelope), StoreError>) + Send + 'static,
    ) -> Result<RecordKey, StoreError> {
        let op = self.core().put_op_for(record.clone(), lifetime)?;
        self.submit_op_if(op, expected, done)
    }

    /// Does what [`NetabaseStore::submit_removal`] does where the record still is as `expected` when it is written, as
    /// [`NetabaseStore::submit_if`] does.
    pub fn submit_removal_if(
        &self,
        key: &RecordKey,
        expected: ExpectedVersion,
        done: impl FnOnce(Result<(ChangeKind, Envelope), StoreError>) + Send + 'static,
    ) -> Result<RecordKey, StoreError> {
        let op = self.removal_op(key)?;
        self.submit_op_if(op, expected, done)
    }

    /// Signs a tombstone for `key` and queues it, without waiting for the disk.
    ///
    /// `done` is called as in [`NetabaseStore::submit`], and says `None` where there was nothing to
    /// delete, too. Fails without an identity, since nobody would
    /// believe the tombstone.
    pub fn submit_removal(
        &self,
        key: &RecordKey,
        done: impl FnOnce(Result<Option<ChangeKind>, StoreError>) + Send + 'static,
    ) -> Result<Envelope, StoreError> {
        let op = self.removal_op(key)?;
        let Op::Put { envelope, .. } = &op else { return Err(StoreError::NoIdentity) };
        let envelope = envelope.clone();
        self.submit_op(op, done);
        Ok(envelope)
    }

    fn removal_op(&self, key: &RecordKey) -> Result<Op, StoreError> {
        self.core().check_owner(key)?;
        let after = self.core().replaceable(key)?;
        let envelope = self.core().sign(key, after.as_ref(), None, 0).ok_or(StoreError::NoIdentity)?;
        self.core().check_local_member(key, &envelope)?;
        let (key, secondary, origin) = (key.clone(), IndexKeys::default(), Origin::Local);
        Ok(Op::Put { key, envelope, secondary, origin, lease: Lease::None })
    }

    /// Checks and queues a record that a peer sent, without waiting for the disk.
    ///
    /// Returns whether it is news. A refusal is counted and told to the observer.
    pub fn admit(&self, key: &[u8], value: &[u8]) -> Result<bool, Refusal> {
        self.admit_quietly(key, value).inspect_err(|reason| {
            self.core().notify(StoreEvent::Refused { key: RecordKey::parse(key).ok(), reason: *reason });
        })
    }

    /// Checks and queues like [`NetabaseStore::admit`], for a caller who tells of refusals itself, knowing
    /// whose they are: a refusal is counted, and the observer is not told.
    pub fn admit_quietly(&self, key: &[u8], value: &[u8]) -> Result<bool, Refusal> {
        let parsed = RecordKey::parse(key).map_err(|_| Refusal::InvalidKey);
        let outcome = parsed.and_then(|key| self.core().admit(&key, value));
        outcome.inspect_err(|reason| self.core().count_refusal(*reason))
    }

    /// Returns what it costs to [admit](NetabaseStore::admit) a record, compared with one of a plain model that is
    /// new: a contribution to a merged record costs one for each of its parts, and one for each 4 KiB of what is
    /// stored, which it makes be written anew.
    ///
    /// It looks at nothing but lengths. What is no record costs one.
    pub fn admission_cost(&self, key: &[u8], value: &[u8]) -> usize {
        let key = RecordKey::parse(key);
        key.ok().and_then(|key| admit::cost(self.core(), &key, value).ok()).unwrap_or(1)
    }

    /// Checks a record that a peer answered with, whatever this store holds, and stores nothing;
    /// [`NetabaseStore::keep`] stores it without checking it once more.
    ///
    /// A refusal is counted and told to the observer.
    pub fn check_record(&self, key: &RecordKey, value: &[u8]) -> Result<CheckedRecord, Refusal> {
        self.check_quietly(key, value).inspect_err(|reason| {
            self.core().notify(StoreEvent::Refused { key: Some(key.clone()), reason: *reason });
        })
    }

    /// Checks like [`NetabaseStore::check_record`], for a caller who tells of refusals itself: a refusal is
    /// counted, and the observer is not told.
    pub fn check_quietly(&self, key: &RecordKey, value: &[u8]) -> Result<CheckedRecord, Refusal> {
        let checked = admit::check(self.core(), key, value);
        checked.map(CheckedRecord).inspect_err(|reason| self.core().count_refusal(*reason))
    }

    /// Returns what becomes of two versions of the record `key`, merged where the model is known.
    pub fn join(&self, key: &RecordKey, one: &Envelope, other: &Envelope) -> Envelope {
        self.core().merged(key, &one.join(other)).0
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
        let snapshot = self.core().engine().snapshot()?;
        let now = self.core().options().clock.unix_millis();
        let limit = limit.unwrap_or(usize::MAX);
        let definition = self.schema().map_or("", |schema| schema.name);
        let mut records = Vec::new();
        for model in self.core().layout().models() {
            for entry in snapshot.all(&model.records)? {
                if records.len() == limit {
                    return Ok(records);
                }
                let entry = entry?;
                let envelope = Envelope::parse(entry.value()).map_err(StoreError::Damaged)?;
                if !envelope.is_expired(now) {
                    records.push((model.schema.record_key(definition, entry.key())?, envelope));
                }
            }
        }
        Ok(records)
    }

    /// Returns up to `limit` records of our own whose publication is due, the longest due first.
    pub fn due(&self, limit: usize) -> Result<Vec<RecordKey>, StoreError> {
        let now = self.core().options().clock.unix_millis();
        let mut due = Vec::new();
        for entry in self.core().engine().snapshot()?.all(&tables::DUE)?.take(limit) {
            match tables::split_time_key(entry?.key()) {
                Some((time, key)) if time <= now => due.push(key),
                _ => break,
            }
        }
        Ok(due)
    }

    /// Sets when a record is to be published next, in milliseconds since the Unix epoch; `None`
    /// takes it off the schedule.
    ///
    /// Does nothing if the record has another version than the `published` one by now, which has a
    /// schedule of its own. The change joins a later write, and may be lost in a crash: the record is
    /// then published once more than needed.
    pub fn schedule(&self, key: &RecordKey, published: &Envelope, due: Option<u64>) {
        let published = apply::published(published, self.author());
        self.core().queue().push_lazy(Op::Schedule { key: key.clone(), published, due });
    }

    /// Notes that a peer has a version of our own now, or has nothing that it would change.
    ///
    /// It counts for deletions: one that no peer has heard of is not
    /// [forgotten](crate::StoreOptions::tombstone_floor). Does nothing if the record has another version by now. The
    /// note joins a later write, and may be lost in a crash: the deletion is then kept until it is published again.
    pub fn note_heard(&self, key: &RecordKey, published: &Envelope) {
        if published.is_tombstone() {
            let (published, time) = (apply::published(published, self.author()), self.clock().unix_millis());
            self.core().queue().push_lazy(Op::Heard { key: key.clone(), published, time });
        }
    }

    /// Takes a record off the schedule that is due, but is not here or cannot be read.
    pub fn unschedule(&self, key: &RecordKey) {
        self.core().queue().push_lazy(Op::Schedule { key: key.clone(), published: None, due: None });
    }

    /// Returns when a record is to be published next, in milliseconds since the Unix epoch; `None` if it is not
    /// this program's to publish.
    pub fn publication_due(&self, key: &RecordKey) -> Result<Option<u64>, StoreError> {
        let scheduled = self.core().engine().snapshot()?.get(&tables::SCHEDULE, key.as_bytes())?;
        Ok(scheduled.and_then(|time| time.as_slice().try_into().ok()).map(u64::from_be_bytes))
    }

    /// Returns what the persisted history still has of a record, the oldest first and at most the newest
    /// `limit`, each with its number.
    ///
    /// It reads the whole history, so it belongs on a thread that may wait for the disk.
    pub fn history_of(&self, key: &RecordKey, limit: usize) -> Result<Vec<(u64, Change)>, StoreError> {
        history::of_key(&self.core().engine().snapshot()?, key, limit)
    }

    /// Returns the clock that the store was opened with.
    pub fn clock(&self) -> &crate::clock::Clock {
        &self.core().options().clock
    }

    pub(crate) fn core(&self) -> &Core {
        &self.handle.core
    }

    /// Waits until `batch` is durable; its local versions come after whatever was there by then.
    pub(crate) fn commit(&self, batch: Batch) -> Result<Vec<Option<Change>>, StoreError> {
        self.check_not_in_callback()?;
        let (sender, receiver) = mpsc::sync_channel(1);
        let done: writer::Done = Box::new(move |result| {
            // The receiver waits below, so the channel is open and has room.
            let _ = sender.send(result);
        });
        self.core().queue().push(Batch { resign: true, done: Some(done), ..batch });
        receiver.recv().map_err(StoreError::backend)?
    }

    /// Calls `act` on the writer's thread, after every write before and while nothing is written.
    pub(crate) fn while_paused<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Core) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.while_paused_to_write(|core, _| act(core))
    }

    /// Does so, and has what `act` asks for written before anything else is.
    pub(crate) fn while_paused_to_write<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Core, &mut Vec<Op>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let pause: writer::Pause = Box::new(move |core| {
            let mut ops = Vec::new();
            // The receiver waits below, so the channel is open and has room.
            let _ = sender.send(act(core, &mut ops));
            ops
        });
        self.commit(Batch { pause: Some(pause), ..Batch::default() })?;
        receiver.recv().map_err(StoreError::backend)?
    }

    /// Fails on the writer's own thread, which cannot wait for itself.
    pub(crate) fn check_not_in_callback(&self) -> Result<(), StoreError> {
        if self.core().queue().is_writer() { Err(StoreError::InCallback) } else { Ok(()) }
    }

    /// Whether a well-formed local write to this record may still be refused by the writer, for the sake of
    /// a unique key or of a record of a later version.
    ///
    /// Such a write is not shown before it is done, and should not be passed on before.
    pub fn may_refuse(&self, key: &RecordKey) -> bool {
        self.core().layout().place(key).model.is_some_and(ModelTables::may_refuse)
    }

    /// Calls `done` after every write before, without a change.
    pub(crate) fn submit_nothing(
        &self,
        done: impl FnOnce(Result<Option<ChangeKind>, StoreError>) + Send + 'static,
    ) {
        let done = Box::new(|result: Result<Vec<Option<Change>>, StoreError>| done(result.map(|_| None)));
        self.core().queue().push(Batch::new(Vec::new(), done));
    }

    fn submit_op_if(
        &self,
        op: Op,
        expected: ExpectedVersion,
        done: impl FnOnce(Result<(ChangeKind, Envelope), StoreError>) + Send + 'static,
    ) -> Result<RecordKey, StoreError> {
        let Op::Put { key, .. } = &op else { return Err(StoreError::NoIdentity) };
        let key = key.clone();
        let expected = match expected {
            ExpectedVersion::Absent => Expected::Absent,
            ExpectedVersion::Content(hash) => Expected::Content(Some(hash)),
        };
        let changed = key.clone();
        let done = Box::new(move |result: Result<Vec<Option<Change>>, StoreError>| {
            let written = result.and_then(|changes| {
                let change = changes.into_iter().next().flatten();
                // What was expected was there: only that there is nothing to delete leaves it as it is.
                let written = change.and_then(|change| Some((change.kind, change.envelope?)));
                written.ok_or(StoreError::Conflict { key: changed.clone() })
            });
            done(written.map_err(|error| match error {
                StoreError::Exists { key } => StoreError::Conflict { key },
                error => error,
            }));
        });
        let batch = Batch::new(vec![op], done);
        self.core().queue().push(Batch { resign: true, expected: vec![(key.clone(), expected)], ..batch });
        Ok(key)
    }

    pub(crate) fn submit_op(
        &self,
        op: Op,
        done: impl FnOnce(Result<Option<ChangeKind>, StoreError>) + Send + 'static,
    ) {
        self.core().show_pending(&op);
        let done = Box::new(|result: Result<Vec<Option<Change>>, StoreError>| {
            done(result.map(|changes| changes.into_iter().next().flatten().map(|change| change.kind)));
        });
        self.core().queue().push(Batch::new(vec![op], done));
    }
}

impl fmt::Debug for NetabaseStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let definition = self.schema().map(|schema| schema.name);
        f.debug_struct("NetabaseStore")
            .field("definition", &definition)
            .field("engine", self.core().engine())
            .finish_non_exhaustive()
    }
}
