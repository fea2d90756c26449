//! Backups of a database in use, and their restoration.

use std::error::Error;
use std::ffi::OsString;
use std::io;
use std::ops::ControlFlow;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::admin::limits::{STEP_BYTES, STEP_ENTRIES};
use crate::admin::migrate::{Found, add_checksums, write_marker};
use crate::admin::progress::{OnProgress, Pace, Progress};
use crate::engine::{self, Engine, Snapshot, Sync, TableName};
use crate::error::{AdminError, OpenError, StoreError};
use crate::options::StorageBackend;
use crate::platform::files::{self, PartialName, TempDir, TempPath};
use crate::store::NetabaseStore;
use crate::tables;

/// The end of the name of a copy that is not complete.
const PARTIAL: &str = ".partial";
/// The random characters in its name, as many as `tempfile` has.
const RANDOM_CHARS: usize = 6;

impl NetabaseStore {
    /// Copies a snapshot of the store into a new file at `path`.
    ///
    /// Blocks in proportion to the size of the database; in an async function use `spawn_blocking`.
    ///
    /// The backup is a redb database, whatever the backend: [`NetabaseStore::restore`] makes a
    /// store of it, and [`NetabaseStore::open`] uses it in place. The backup has every record,
    /// version and change of one moment. Writers continue meanwhile; on sled, which has no
    /// snapshots, they wait. The file gets its name when it is complete and on the disk; before, it
    /// has a name in the same directory that ends in `.partial`, which the next opening of the
    /// store removes from its own directory if the program is killed
    /// ([`NetabaseStore::remove_partial_backups`] does from others). On Unix only its owner may
    /// read it. An identity kept in a file is not part of it, and neither are the values of blobs:
    /// [`BlobStore::backup`](crate::blob::BlobStore::backup) copies those.
    ///
    /// The call reads the whole database and keeps a few megabytes in memory. Fails with
    /// [`AdminError::Occupied`](crate::admin::AdminError::Occupied) if `path` exists, with
    /// [`AdminError::OwnFile`](crate::admin::AdminError::OwnFile) if the name is reserved for the
    /// store's own files, and with [`StoreError::File`] if the file cannot be written.
    ///
    /// ```
    /// # use netabase_store::{NetabaseStore, StorageBackend, netabase_definition_module};
    /// # #[netabase_definition_module(LibraryDefinition, LibraryKeys)]
    /// # mod library {
    /// #     use netabase_store::NetabaseModel;
    /// #     use serde::{Deserialize, Serialize};
    /// #     #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    /// #     #[netabase(LibraryDefinition)]
    /// #     pub struct Book { #[primary_key] pub isbn: String, pub title: String }
    /// # }
    /// # use library::*;
    /// # let directory = tempfile::tempdir()?;
    /// # let directory = directory.path();
    /// let store = NetabaseStore::open::<LibraryDefinition>(directory.join("books"))?;
    /// let book = Book { isbn: "978-0-13-110362-7".into(), title: "The C Programming Language".into() };
    /// store.open_tree()?.put(&book)?;
    /// store.backup(directory.join("backup"))?;
    ///
    /// NetabaseStore::restore(directory.join("backup"), directory.join("again"), StorageBackend::Redb)?;
    /// let again = NetabaseStore::open::<LibraryDefinition>(directory.join("again"))?;
    /// assert_eq!(again.open_tree::<Book>()?.get(&BookPrimaryKey(book.isbn.clone()))?, Some(book));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn backup(&self, path: impl AsRef<Path>) -> Result<(), StoreError> {
        self.backup_with(path, |_| ControlFlow::Continue(()))
    }

    /// Makes a backup as [`NetabaseStore::backup`] does, and calls `progress` at intervals.
    ///
    /// Blocks in proportion to the size of the database; in an async function use `spawn_blocking`.
    ///
    /// With [`ControlFlow::Break`] it ends with
    /// [`AdminError::Stopped`](crate::admin::AdminError::Stopped), and leaves nothing behind. The
    /// callback must not write to the store: on sled that fails with [`StoreError::InCallback`].
    pub fn backup_with(
        &self,
        path: impl AsRef<Path>,
        mut progress: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let core = self.core();
        let _held = if core.engine().has_snapshots() { None } else { Some(core.hold_writer()?) };
        let snapshot = core.whole_snapshot()?;
        let own = core.path();
        if let Some(own) = own.filter(|own| is_own_name(own, path.as_ref())) {
            return Err(
                AdminError::OwnFile { path: path.as_ref().to_owned(), database: own.to_owned() }.into()
            );
        }
        let target = Partial::file(path.as_ref(), own)?;
        copy(&snapshot, target.open(StorageBackend::Redb)?, &mut progress)?;
        target.persist()
    }

    /// Removes the files that interrupted backups of this store have left in `directory`.
    ///
    /// Opening the store does so for its own directory.
    pub fn remove_partial_backups(&self, directory: impl AsRef<Path>) {
        if let Some(path) = self.core().path() {
            remove_partial(path, directory.as_ref());
        }
    }

    /// Makes a database for `backend` at `path` of the backup in the file `backup`.
    ///
    /// Blocks in proportion to the size of the database; in an async function use `spawn_blocking`.
    ///
    /// The backup is only read, and every checksum in it is verified; a redb store that was closed
    /// is a backup, too. A restored database has the same records, versions and changes as the
    /// store had when the backup was made.
    ///
    /// The database appears at `path` when it is complete. Fails with
    /// [`AdminError::Occupied`](crate::admin::AdminError::Occupied) if
    /// `path` exists, with [`OpenError::NotADatabase`] if `backup` is no backup or a damaged one,
    /// with [`OpenError::UnknownFormat`] if it is one of a newer program, and with
    /// [`StoreError::Unsupported`] for a store in memory.
    pub fn restore(
        backup: impl AsRef<Path>,
        path: impl AsRef<Path>,
        backend: StorageBackend,
    ) -> Result<(), StoreError> {
        let (backup, path) = (backup.as_ref(), path.as_ref());
        match backend {
            StorageBackend::Redb => {
                let target = Partial::file(path, None)?;
                copy_verified(backup, &target.path)?;
                target.persist()
            }
            StorageBackend::Sled => {
                let target = Partial::directory(path)?;
                let verified = Partial::file(path, None)?;
                let mut snapshot = copy_verified(backup, &verified.path)?;
                if !Found::read(&snapshot)?.is_some_and(|found| found.is_checked) {
                    drop(snapshot);
                    // A backup of a format without checksums.
                    add_checksums(&verified.open(StorageBackend::Redb)?)?;
                    snapshot = Snapshot::of_file(&verified.path)?;
                }
                copy(&snapshot, target.open(backend)?, &mut |_| ControlFlow::Continue(()))?;
                target.persist()
            }
            StorageBackend::Memory => Err(StoreError::Unsupported { backend, what: "place to restore to" }),
        }
    }
}

/// Copies the file of a backup byte by byte, and checks that it is a backup and undamaged.
fn copy_verified(backup: &Path, copy: &Path) -> Result<Snapshot, StoreError> {
    let not_a_backup = |source: Arc<dyn Error + Send + std::marker::Sync>| {
        let path = backup.to_owned();
        StoreError::Open(OpenError::NotADatabase { path, backend: StorageBackend::Redb, source })
    };
    let damaged = |why: &str| not_a_backup(Arc::new(io::Error::other(why)));
    // redb trusts its file, and panics on bytes that make no sense.
    let opened = catch_unwind(|| {
        let _nobody_writes = Snapshot::of_file(backup)?;
        files::copy(backup, copy).map_err(|error| StoreError::file(copy, error))?;
        if !engine::is_intact(copy)? {
            return Err(damaged("some of its bytes have changed"));
        }
        Snapshot::of_file(copy)
    });
    let snapshot = opened.unwrap_or_else(|_| Err(damaged("some of its bytes have changed")));
    let snapshot = snapshot.map_err(|error| match error {
        // The error is about the temporary copy, whose path the caller does not know.
        StoreError::Open(OpenError::NotADatabase { source, .. }) => not_a_backup(source),
        error => error,
    })?;
    let Some(found) = Found::read(&snapshot)? else {
        return Err(damaged("it does not say that it is a store"));
    };
    match found.format {
        0 => Err(damaged("its format number is damaged")),
        found if found > tables::FORMAT => {
            Err(StoreError::Open(OpenError::UnknownFormat { found, known: tables::FORMAT }))
        }
        _ => Ok(snapshot),
    }
}

/// Copies all tables into an empty database, and closes it.
fn copy(snapshot: &Snapshot, target: Engine, progress: &mut OnProgress<'_>) -> Result<(), StoreError> {
    let tables = snapshot.tables()?;
    let mut total = 0;
    for table in &tables {
        total += snapshot.len(table)?;
    }
    let mut progress = |at| progress(at);
    let mut pace = Pace::new(total, &mut progress);
    for table in &tables {
        copy_table(snapshot, table, &target, &mut pace)?;
    }
    // Earlier writes become durable with it.
    target.write(Sync::Now, write_marker)?;
    drop(target);
    pace.finish()
}

fn copy_table(
    snapshot: &Snapshot,
    table: &TableName,
    target: &Engine,
    pace: &mut Pace<'_>,
) -> Result<(), StoreError> {
    let mut entries = snapshot.all(table)?.peekable();
    while entries.peek().is_some() {
        target.write(Sync::Later, |tables| {
            let (mut count, mut bytes) = (0, 0);
            while count < STEP_ENTRIES && bytes < STEP_BYTES {
                let Some(entry) = entries.next() else { break };
                let entry = entry?;
                tables.insert(table, entry.key(), entry.value())?;
                count += 1;
                bytes += entry.key().len() + entry.value().len();
                pace.step()?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// A file or a directory that is not complete; it is deleted unless it is persisted.
struct Partial<'a> {
    /// The temporary path.
    path: PathBuf,
    kind: Kind,
    /// The final path, and its directory.
    target: &'a Path,
    directory: &'a Path,
}

enum Kind {
    File(TempPath),
    Directory(TempDir),
}

impl<'a> Partial<'a> {
    /// Makes a file, for a copy of the database `of`, if it is one.
    fn file(target: &'a Path, of: Option<&Path>) -> Result<Self, StoreError> {
        let directory = check_vacant(target)?;
        let mut prefix = prefix(target);
        if let Some(of) = of {
            prefix.push(format!("{}.", tag(of)));
        }
        let name = PartialName { prefix: &prefix, random_chars: RANDOM_CHARS, suffix: PARTIAL };
        let file = name.file_in(directory);
        let file = file.map_err(|error| StoreError::file(target, error))?.into_temp_path();
        Ok(Self { path: file.to_path_buf(), kind: Kind::File(file), target, directory })
    }

    fn directory(target: &'a Path) -> Result<Self, StoreError> {
        let parent = check_vacant(target)?;
        let name = PartialName { prefix: &prefix(target), random_chars: RANDOM_CHARS, suffix: PARTIAL };
        let directory = name.directory_in(parent);
        let directory = directory.map_err(|error| StoreError::file(target, error))?;
        let path = directory.path().to_path_buf();
        Ok(Self { path, kind: Kind::Directory(directory), target, directory: parent })
    }

    fn open(&self, backend: StorageBackend) -> Result<Engine, StoreError> {
        // The cache of the copy, which is only written.
        const CACHE_BYTES: usize = 32 * 1024 * 1024;
        let engine = match &self.kind {
            Kind::File(_) => Engine::open_own(&self.path, CACHE_BYTES)?,
            Kind::Directory(_) => Engine::open(backend, &self.path, CACHE_BYTES, 0)?,
        };
        engine.accept()?;
        Ok(engine)
    }

    /// Makes it durable, and gives it its name.
    fn persist(self) -> Result<(), StoreError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                StoreError::Admin(AdminError::Occupied { path: self.target.to_owned() })
            }
            _ => StoreError::file(self.target, error),
        };
        match self.kind {
            Kind::File(file) => {
                let written = files::open_to_write(&file);
                written.and_then(|file| file.sync_all()).map_err(failed)?;
                file.persist_noclobber(self.target).map_err(|error| failed(error.error))?;
            }
            Kind::Directory(directory) => {
                sync_directory(directory.path())?;
                check_vacant(self.target)?;
                files::rename(directory.path(), self.target).map_err(failed)?;
                // There is nothing to delete any more.
                let _ = directory.keep();
            }
        }
        sync_directory(self.directory)
    }
}

/// Names a database, among all whose backups may be in one directory.
fn tag(database: &Path) -> String {
    let path = files::canonical(database).unwrap_or_else(|_| database.to_owned());
    let hash = Sha256::digest(path.as_os_str().as_encoded_bytes());
    let (numbers, _) = hash.as_chunks::<8>();
    format!("{:016x}", numbers.first().copied().map_or(0, u64::from_be_bytes))
}

/// Returns whether `path` is, or may become, one of the files of the database at `own`.
fn is_own_name(own: &Path, path: &Path) -> bool {
    let place = |path: &Path| files::canonical(directory_of(path)).ok();
    let (Some(own_name), Some(name)) = (own.file_name(), path.file_name()) else { return false };
    let rest = name.as_encoded_bytes().strip_prefix(own_name.as_encoded_bytes());
    rest.is_some_and(|rest| rest.starts_with(b".")) && place(own) == place(path)
}

/// Removes from `directory` the files that interrupted backups of the database at `path`, and
/// restores to it, have left behind. The caller must have the database open, so that no backup is
/// in progress.
pub(crate) fn remove_partial(path: &Path, directory: &Path) {
    let (Some(name), Ok(entries)) = (path.file_name(), files::entries(directory)) else { return };
    let (name, tag) = (name.to_string_lossy(), format!(".{}", tag(path)));
    for entry in entries.map_while(Result::ok) {
        let file = entry.file_name();
        let of = file.to_str().and_then(|file| file.strip_suffix(PARTIAL)?.rsplit_once('.'));
        if of.is_none_or(|(of, random)| random.len() != RANDOM_CHARS || (of != name && !of.ends_with(&tag))) {
            continue;
        }
        let path = entry.path();
        let removed = match files::open(&path).and_then(|file| Ok((file.metadata()?.is_dir(), file))) {
            Ok((true, _)) => files::remove_directory(&path),
            // redb locks files that it writes: another container may have another database under
            // the same path.
            Ok((false, file)) if file.try_lock().is_err() => continue,
            Ok((false, _)) => files::remove(&path),
            Err(error) => Err(error),
        };
        match removed {
            Ok(()) => tracing::info!(path = %path.display(), "a copy that was not completed was removed"),
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "a copy that was not completed stays");
            }
        }
    }
}

/// Returns the parent directory of `path`; fails if `path` exists.
fn check_vacant(path: &Path) -> Result<&Path, StoreError> {
    match files::link_metadata(path) {
        Ok(_) => Err(StoreError::Admin(AdminError::Occupied { path: path.to_owned() })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(directory_of(path)),
        Err(error) => Err(StoreError::file(path, error)),
    }
}

pub(crate) fn directory_of(path: &Path) -> &Path {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

fn prefix(path: &Path) -> OsString {
    let mut prefix = path.file_name().unwrap_or_default().to_owned();
    prefix.push(".");
    prefix
}

/// Makes the names of a directory durable, where the system has a way to.
fn sync_directory(directory: &Path) -> Result<(), StoreError> {
    files::sync_directory(directory).map_err(|error| StoreError::file(directory, error))
}
