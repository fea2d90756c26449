//! The store: typed trees above, engine and writer below.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use crate::admin::backup;
use crate::admin::migrate::{check_format, check_policies, check_shapes, migrate};
use crate::changes::change::{Change, ChangeKind, StoreEvent};
use crate::changes::feed::Feed;
use crate::changes::history;
use crate::changes::watch::{Changes, WatchFrom};
use crate::core::Core;
use crate::engine::{Engine, NO_PATH, RedbStorage};
use crate::error::{DamageError, SchemaError, StoreError};
use crate::model::schema::{DefinitionSchema, NetabaseDefinition, NetabaseModel};
use crate::options::{StorageBackend, StoreOptions, WriterMode};
use crate::platform::files::{self, TempDir};
use crate::read::limits::MAX_UPDATE_ATTEMPTS;
use crate::read::snapshot::ReadSnapshot;
use crate::read::tree::Tree;
use crate::read::view::Pinned;
use crate::tables::Layout;
use crate::version::envelope::{Author, Envelope};
use crate::version::record_key::RecordKey;
use crate::write::apply::Op;
use crate::write::transaction::WriteTransaction;
use crate::write::writer::{self, Batch};

/// A typed embedded store: one definition's records in one embedded database.
///
/// Cloning is cheap, and clones share the store; it closes when the last one is dropped, after all
/// queued writes are on the disk. Reads run on the caller's thread and never wait for a writer.
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

/// Ends the writer when the last store is dropped.
struct Handle {
    core: Arc<Core>,
    /// Waits, once `core` is dropped, for followers that still read.
    readers: Readers,
    /// The writer's thread, if it has one.
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Deletes a temporary store's files, after the writer has ended.
    _directory: Option<TempDir>,
}

/// Keeps a closed store from being found still open because a follower reads it.
struct Readers {
    feed: Arc<Feed>,
    /// `true` if this thread may be such a follower, interrupted by a callback of the store.
    are_interrupted: bool,
}

impl Drop for Readers {
    fn drop(&mut self) {
        if !self.are_interrupted {
            self.feed.wait_for_readers();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.queue().close();
        // A callback may drop the last store; the caller of the callback then carries out the
        // writer's steps until the writer ends.
        if self.core.queue().is_writer() {
            self.readers.are_interrupted = true;
            return;
        }
        match self.writer.get_mut().take() {
            Some(thread) => {
                if thread.join().is_err() {
                    tracing::error!("the store's writer thread has panicked");
                }
            }
            None => while self.core.step_writer().is_some() {},
        }
    }
}

impl NetabaseStore {
    /// The attempts of an update of a record while other writers come first; after so many it fails
    /// with [`WriteError::Conflict`](crate::WriteError::Conflict). Callers with an update loop of
    /// their own should use the same number.
    pub const MAX_UPDATE_ATTEMPTS: usize = MAX_UPDATE_ATTEMPTS;

    /// Opens or creates the store of definition `D` at `path`, with redb; fails as
    /// [`NetabaseStore::open_with`] does.
    ///
    /// Blocks in proportion to the size of the database; in an async function use `spawn_blocking`.
    pub fn open<D: NetabaseDefinition>(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_with(path, Some(D::SCHEMA), StoreOptions::default())
    }

    /// Creates a store in a temporary directory that is deleted with the store.
    ///
    /// Blocks on the disk.
    pub fn temporary<D: NetabaseDefinition>() -> Result<Self, StoreError> {
        let directory = files::temporary_directory().map_err(StoreError::backend)?;
        let path = directory.path().join("netabase.redb");
        Self::start(&path, Some(D::SCHEMA), StoreOptions::default(), Some(directory))
    }

    /// Creates a store that keeps nothing on disk.
    pub fn in_memory<D: NetabaseDefinition>() -> Result<Self, StoreError> {
        let options = StoreOptions { backend: StorageBackend::Memory, ..StoreOptions::default() };
        Self::open_with("", Some(D::SCHEMA), options)
    }

    /// Opens or creates a store with `options`; the memory backend ignores `path`.
    ///
    /// Blocks in proportion to the size of the database; in an async function use `spawn_blocking`.
    ///
    /// A store without a schema keeps, serves and verifies records of any definition, and has no
    /// trees. Where models or their indexes have changed since the database was last open, their
    /// indexes are built again, which takes time in proportion to their records.
    ///
    /// Fails with [`StoreError::Open`] if another store has the database open, or if this program
    /// cannot open it; [`OpenError`](crate::OpenError) has the reason. Its records are then
    /// unchanged.
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

    /// Opens or creates a store in a storage of your own: encrypted, in memory, or one that fails
    /// on purpose in a test.
    ///
    /// Blocks in proportion to the size of the database; in an async function use `spawn_blocking`.
    ///
    /// The database is a redb database, whatever backend `options` name. The storage must keep a
    /// database to itself, since redb cannot lock it against other programs unless it supports
    /// locking, and [`RedbStorage::sync_data`] must return only when everything written before is
    /// safe.
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
        let format = accept(&engine, &layout, Path::new(NO_PATH), &options)?;
        Self::start_on(engine, format, layout, Path::new(NO_PATH), options, None)
    }

    fn start(
        path: &Path,
        schema: Option<&'static DefinitionSchema>,
        options: StoreOptions,
        directory: Option<TempDir>,
    ) -> Result<Self, StoreError> {
        let layout = Layout::new(schema);
        let engine = Engine::open_when_free(&options, path, layout.slots())?;
        let format = accept(&engine, &layout, path, &options).inspect_err(|_| {
            if engine.is_new() {
                // Nobody else has it open, and nothing is in it.
                let _ = files::remove(path);
            }
        })?;
        Self::start_on(engine, format, layout, path, options, directory)
    }

    fn start_on(
        engine: Engine,
        format: u32,
        layout: Layout,
        path: &Path,
        options: StoreOptions,
        directory: Option<TempDir>,
    ) -> Result<Self, StoreError> {
        migrate(&engine, &layout, format, options.keep_unread_versions)?;
        if engine.has_lost() {
            tracing::error!(
                path = %path.display(),
                "the database has lost its newest writes; run `netabase check`, and restore a backup or let peers send \
                 them again"
            );
        } else if let Some(table) = engine.find_loss()? {
            tracing::error!(
                path = %path.display(),
                table,
                "the database has lost entries; run `netabase check`, and restore a backup or let peers send them again"
            );
        }
        let is_file = options.backend != StorageBackend::Memory && path != Path::new(NO_PATH);
        let place = is_file.then_some(path);
        if let Some(path) = place.filter(|_| !options.read_only) {
            backup::remove_partial(path, backup::directory_of(path));
        }
        let read_only = options.read_only;
        let (mode, core) = (options.writer, Arc::new(Core::new(engine, place, layout, options)?));
        if read_only {
            core.poison(StoreError::ReadOnly);
        }
        let thread = match mode {
            WriterMode::Thread => Some(writer::spawn(Arc::clone(&core))?),
            WriterMode::Driven => None,
        };
        let (writer, readers) =
            (Mutex::new(thread), Readers { feed: Arc::clone(core.feed()), are_interrupted: false });
        Ok(Self { handle: Arc::new(Handle { core, readers, writer, _directory: directory }) })
    }

    /// Returns the typed view of one model's records; fails with
    /// [`SchemaError::OtherModel`](crate::schema::SchemaError::OtherModel) if the store was opened
    /// without the model, and with
    /// [`SchemaError::OtherSchema`](crate::schema::SchemaError::OtherSchema) if it was opened with
    /// another form of it.
    ///
    /// Blocks on the disk where a page is not cached, for microseconds otherwise.
    pub fn open_tree<M: NetabaseModel>(&self) -> Result<Tree<M>, StoreError> {
        Ok(Tree::new(self.clone(), self.model_position::<M>()?))
    }

    pub(crate) fn model_position<M: NetabaseModel>(&self) -> Result<usize, StoreError> {
        let schema = self.core().layout().schema();
        let ours = schema.is_some_and(|schema| schema.name == M::Definition::SCHEMA.name);
        let (definition, model) = (schema.map_or("", |schema| schema.name), M::SCHEMA.name);
        let mut models = self.core().layout().models().iter().enumerate();
        let known = models.find(|(_, known)| ours && known.schema.name == model);
        let (position, known) =
            known.ok_or(StoreError::Schema(SchemaError::OtherModel { definition, model }))?;
        if known.schema.is_like(M::SCHEMA) {
            Ok(position)
        } else {
            Err(StoreError::Schema(SchemaError::OtherSchema { model }))
        }
    }

    /// Starts a transaction that writes to any number of models atomically.
    pub fn begin_write(&self) -> WriteTransaction {
        WriteTransaction::new(self.clone())
    }

    /// Returns a snapshot of the records, for any number of consistent reads.
    ///
    /// Blocks on the disk where a page is not cached, for microseconds otherwise.
    ///
    /// Fails on sled, which has no snapshots.
    pub fn read(&self) -> Result<ReadSnapshot, StoreError> {
        let core = self.core();
        if !core.engine().has_snapshots() {
            return Err(StoreError::Unsupported { backend: core.options().backend, what: "snapshots" });
        }
        core.layout().models().iter().for_each(|model| core.settle(model));
        let now = core.options().clock.unix_millis();
        Ok(ReadSnapshot::new(self.clone(), Pinned { snapshot: core.whole_snapshot()?, now }))
    }

    /// Follows the changes of all models, from peers and of this program, in the order of their
    /// commits.
    ///
    /// Blocks on the disk where a page is not cached, for microseconds otherwise.
    ///
    /// [`Tree::watch`] does so for the records of one model, typed.
    pub fn changes(&self, from: WatchFrom) -> Result<Changes, StoreError> {
        Changes::new(&self.handle.core, from)
    }

    /// Blocks until all earlier writes are on the disk, with any
    /// [`durability`](StoreOptions::durability).
    ///
    /// Blocks until the writer has it on the disk; in an async function use `spawn_blocking`, or
    /// the methods of a node.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.commit(Batch { flush: true, ..Batch::default() }).map(drop)
    }

    /// Takes a step of a writer that is [driven](WriterMode::Driven): commits at most one group of
    /// queued writes, and does the periodic work that is due, such as the flush of
    /// [`Durability::Interval`](crate::Durability::Interval) and the deletion of expired records.
    /// Callbacks are called on this thread.
    ///
    /// Returns the time until there is more to do, unless a write is queued before; zero means that
    /// there is more to do now. The owner of a driven store calls this method after queueing a
    /// write, such as with [`Replica::submit`](crate::replica::Replica::submit), and when the
    /// returned time has passed.
    ///
    /// A step takes as long as a commit, and blocks on the disk if there is one. Fails with
    /// [`StoreError::InCallback`] in a callback of the store. A writer with a thread never needs a
    /// step.
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
    /// use netabase_store::schema::EncodedRecord;
    /// use netabase_store::{NetabaseDefinition, SigningKey, StorageBackend, StoreOptions, WriterMode};
    ///
    /// let options = StoreOptions {
    ///     backend: StorageBackend::Memory,
    ///     identity: Some(SigningKey::from_bytes(&[7; 32])),
    ///     writer: WriterMode::Driven,
    ///     ..StoreOptions::default()
    /// };
    /// let store = NetabaseStore::open_with("", Some(LibraryDefinition::SCHEMA), options)?;
    /// let book = EncodedRecord::of(&Book { isbn: "978-0-13-110362-7".into() })?;
    /// store.replica().submit(&book, |written| println!("{written:?}"))?;
    /// while store.drive_writer()?.is_zero() {}
    /// assert_eq!(store.open_tree::<Book>()?.len()?, 1);
    /// # Ok::<(), netabase_store::StoreError>(())
    /// ```
    pub fn drive_writer(&self) -> Result<Duration, StoreError> {
        self.check_not_in_callback()?;
        let rest = match self.core().options().writer {
            WriterMode::Thread => None,
            WriterMode::Driven => self.core().step_writer(),
        };
        Ok(rest.unwrap_or(Duration::MAX))
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

    /// Calls `observer` with every event from now on, in place of any earlier observer; see
    /// [`Observer`] for the threads. Waiting for a write in it fails with
    /// [`StoreError::InCallback`].
    ///
    /// [`Observer`]: crate::changes::Observer
    pub fn set_observer(&self, observer: impl Fn(StoreEvent) + Send + Sync + 'static) {
        self.core().observe(Arc::new(observer));
    }

    /// Returns the version under `key`, tombstones included, or `None` if there is none or it has
    /// expired. A version that waits for the disk is already seen.
    ///
    /// Blocks on the disk where a page is not cached, for microseconds otherwise.
    pub fn envelope(&self, key: &RecordKey) -> Result<Option<Envelope>, StoreError> {
        let now = self.core().options().clock.unix_millis();
        Ok(self.core().current(key)?.filter(|current| !current.is_expired(now)))
    }

    /// Returns up to `limit` live records of the schema's models, model by model in key order.
    ///
    /// Blocks on the disk in proportion to the bytes read; in an async function use
    /// `spawn_blocking`.
    pub fn local_records(&self, limit: Option<usize>) -> Result<Vec<(RecordKey, Envelope)>, StoreError> {
        self.core().layout().models().iter().for_each(|model| self.core().settle(model));
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
                let envelope = Envelope::parse(entry.value()).map_err(DamageError::Record)?;
                if !envelope.is_expired(now) {
                    records.push((model.schema.record_key(definition, entry.key())?, envelope));
                }
            }
        }
        Ok(records)
    }

    /// Returns the changes of a record in the persisted history, the oldest first and at most the
    /// newest `limit`, each with its number.
    ///
    /// Blocks on the disk in proportion to the bytes read; in an async function use
    /// `spawn_blocking`.
    ///
    /// The call reads the whole history, so it belongs on a thread that may wait for the disk.
    pub fn history_of(&self, key: &RecordKey, limit: usize) -> Result<Vec<(u64, Change)>, StoreError> {
        history::of_key(&self.core().engine().snapshot()?, key, limit)
    }

    pub(crate) fn core(&self) -> &Core {
        &self.handle.core
    }

    /// Waits until `batch` is durable; its local versions come after all versions that were stored
    /// by then.
    pub(crate) fn commit(&self, batch: Batch) -> Result<Vec<Option<Change>>, StoreError> {
        self.check_not_in_callback()?;
        let (sender, receiver) = mpsc::sync_channel(1);
        let done: writer::Done = Box::new(move |result| {
            // The receiver waits below, so the channel is open and has space.
            let _ = sender.send(result);
        });
        self.core().push(Batch { resign: true, done: Some(done), ..batch });
        self.core().receive(&receiver).map_err(StoreError::backend)?
    }

    /// Has the writer call `act` after all earlier writes, while nothing is written.
    pub(crate) fn while_paused<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Core) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.while_paused_to_write(|core, _| act(core))
    }

    /// Calls `act` likewise, and carries out its writes before any other.
    pub(crate) fn while_paused_to_write<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Core, &mut Vec<Op>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let pause: writer::Pause = Box::new(move |core| {
            let mut ops = Vec::new();
            // The receiver waits below, so the channel is open and has space.
            let _ = sender.send(act(core, &mut ops));
            ops
        });
        self.commit(Batch { pause: Some(pause), ..Batch::default() })?;
        self.core().receive(&receiver).map_err(StoreError::backend)?
    }

    /// Fails where the writer calls this, which cannot wait for itself.
    pub(crate) fn check_not_in_callback(&self) -> Result<(), StoreError> {
        if self.core().queue().is_writer() { Err(StoreError::InCallback) } else { Ok(()) }
    }

    /// Calls `done` after all earlier writes, without a change.
    pub(crate) fn submit_nothing(
        &self,
        done: impl FnOnce(Result<Option<ChangeKind>, StoreError>) + Send + 'static,
    ) {
        let done = Box::new(|result: Result<Vec<Option<Change>>, StoreError>| done(result.map(|_| None)));
        self.core().push(Batch::new(Vec::new(), done));
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
        self.core().push(Batch::new(vec![op], done));
    }
}

/// Refuses a database that this program cannot open, without changing a byte of it; returns its
/// format.
fn accept(engine: &Engine, layout: &Layout, path: &Path, options: &StoreOptions) -> Result<u32, StoreError> {
    let format = check_format(engine, path, options.backend, layout.schema())?;
    if !options.set_aside_other_policy {
        check_policies(engine, layout)?;
    }
    check_shapes(engine, layout, options.keep_unread_versions)?;
    engine.accept()?;
    Ok(format)
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
