//! The files of large values. `docs/formats.md` describes them.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use bao_tree::io::sync::{ReadAt, WriteAt};
use parking_lot::{Condvar, Mutex};

use super::error::BlobError;
use super::tree::BLOB_GROUP_BYTES;
use crate::blobs::limits::MAX_OPEN_BLOBS;
use crate::model::blob::{Blob, BlobHash};
use crate::platform::files::{self, DirEntry, File, TempDir};

/// The directories inside.
const DIRECTORIES: [&str; 4] = ["added", "fetched", "partial", "temporary"];
/// The end of the name of an outboard.
pub(super) const TREE: &str = ".tree";
/// The ends of the names of the files of a blob that is not whole yet.
const DATA: &str = ".data";
const MAP: &str = ".map";

/// The directory with all files.
#[derive(Debug)]
pub(super) struct Directory {
    root: Root,
    open: Mutex<usize>,
    closed: Condvar,
    #[cfg(test)]
    pub(super) crash_after: std::sync::atomic::AtomicUsize,
    /// Names that were changed, from and to, and that a loss of power may still change back.
    #[cfg(test)]
    pub(super) renamed: Mutex<Vec<(PathBuf, PathBuf)>>,
}

#[derive(Debug)]
enum Root {
    At(PathBuf),
    /// Created with the first blob, and deleted with the store.
    Temporary(Mutex<Option<TempDir>>),
}

/// The source of a complete blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// This program has added it.
    Added,
    /// The blob came from peers, so `max_blob_bytes` counts it.
    Fetched,
}

/// The files of a blob.
#[derive(Debug, Clone)]
pub(super) struct Paths {
    pub(super) data: PathBuf,
    /// A blob of one group has none.
    pub(super) tree: PathBuf,
}

/// Names the files of a blob that is fetched. Each time that it is begun it is another one, so that
/// who still knows the files of one that was removed does not touch those of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PartId {
    pub(super) blob: Blob,
    pub(super) number: u64,
}

impl PartId {
    /// Takes apart the name of a map.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_suffix(MAP)?.split('-');
        let (hash, size) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let number = parts.next().map_or(Some(0), |number| number.parse().ok())?;
        parts.next().is_none().then_some(Self { blob: Blob { hash, size }, number })
    }
}

/// A blob's files may be open while this lives.
#[derive(Debug)]
pub(super) struct Slot<'a>(&'a Directory);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *self.0.open.lock() -= 1;
        self.0.closed.notify_one();
    }
}

impl Directory {
    pub(super) fn new(root: Option<PathBuf>) -> Self {
        Self {
            root: root.map_or_else(|| Root::Temporary(Mutex::default()), Root::At),
            open: Mutex::default(),
            closed: Condvar::new(),
            #[cfg(test)]
            crash_after: std::sync::atomic::AtomicUsize::new(usize::MAX),
            #[cfg(test)]
            renamed: Mutex::default(),
        }
    }

    /// Returns the directory if it exists.
    pub(super) fn existing(&self) -> Option<PathBuf> {
        match &self.root {
            Root::At(path) => files::is_directory(path).then(|| path.clone()),
            Root::Temporary(directory) => directory.lock().as_ref().map(|made| made.path().to_owned()),
        }
    }

    /// Returns the directory, and creates it if it does not exist.
    pub(super) fn make(&self) -> Result<PathBuf, BlobError> {
        let root = match &self.root {
            Root::At(path) => path.clone(),
            Root::Temporary(directory) => {
                let mut directory = directory.lock();
                if directory.is_none() {
                    let made = files::temporary_directory();
                    *directory =
                        Some(made.map_err(|error| BlobError::file(&files::temporary_place(), error))?);
                }
                directory.as_ref().map(|made| made.path().to_owned()).unwrap_or_default()
            }
        };
        if !files::is_directory(&root.join(DIRECTORIES[0])) {
            for name in DIRECTORIES.iter().rev() {
                let path = root.join(name);
                files::create_directories(&path).map_err(|error| BlobError::file(&path, error))?;
            }
            sync_directory(&root)?;
        }
        Ok(root)
    }

    fn root(&self) -> PathBuf {
        self.existing().unwrap_or_default()
    }

    pub(super) fn temporary(&self) -> Result<PathBuf, BlobError> {
        Ok(self.make()?.join("temporary"))
    }

    /// Returns the directory of whole blobs from a source.
    pub(super) fn of_source(&self, source: Source) -> PathBuf {
        self.root().join(match source {
            Source::Added => "added",
            Source::Fetched => "fetched",
        })
    }

    pub(super) fn of_partial(&self) -> PathBuf {
        self.root().join("partial")
    }

    pub(super) fn whole(&self, hash: &BlobHash, source: Source) -> Paths {
        let data = self.of_source(source).join(hash.to_string());
        Paths { tree: with_end(&data, TREE), data }
    }

    pub(super) fn partial(&self, id: &PartId) -> Paths {
        let name = self.partial_name(id);
        Paths { data: with_end(&name, DATA), tree: with_end(&name, TREE) }
    }

    pub(super) fn map(&self, id: &PartId) -> PathBuf {
        with_end(&self.partial_name(id), MAP)
    }

    fn partial_name(&self, id: &PartId) -> PathBuf {
        let PartId { blob, number } = id;
        let number = if *number == 0 { String::new() } else { format!("-{number}") };
        self.of_partial().join(format!("{}-{}{number}", blob.hash, blob.size))
    }

    /// Waits until few enough blobs are open.
    pub(super) fn slot(&self) -> Slot<'_> {
        let mut open = self.open.lock();
        while *open >= MAX_OPEN_BLOBS {
            self.closed.wait(&mut open);
        }
        *open += 1;
        Slot(self)
    }

    /// Makes the names of new files durable.
    pub(super) fn sync(&self, directory: &Path) -> Result<(), BlobError> {
        self.step(directory)?;
        sync_directory(directory)?;
        #[cfg(test)]
        self.renamed.lock().retain(|(_, to)| to.parent() != Some(directory));
        Ok(())
    }

    /// Makes the content of a file durable.
    pub(super) fn sync_file(&self, path: &Path) -> Result<(), BlobError> {
        self.step(path)?;
        let file = files::open_to_write(path);
        file.and_then(|file| file.sync_all()).map_err(|error| BlobError::file(path, error))
    }

    /// Makes the content of a file durable, with the time at which a blob was added, in
    /// milliseconds since the Unix epoch.
    pub(super) fn touch(&self, path: &Path, millis: u64) -> Result<(), BlobError> {
        self.step(path)?;
        let file = files::open_to_write(path);
        let time = UNIX_EPOCH + Duration::from_millis(millis);
        let touched = file.and_then(|file| file.set_modified(time).and_then(|()| file.sync_all()));
        touched.map_err(|error| BlobError::file(path, error))
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> Result<(), BlobError> {
        self.step(to)?;
        files::rename(from, to).map_err(|error| BlobError::file(to, error))?;
        #[cfg(test)]
        self.renamed.lock().push((from.to_owned(), to.to_owned()));
        Ok(())
    }

    /// Gives the files of a blob, which are on the disk, the names of a complete one. The tree gets
    /// its name before the data, whose name marks the blob as complete.
    pub(super) fn move_whole(&self, blob: &Blob, from: &Paths, source: Source) -> Result<(), BlobError> {
        let (to, directory) = (self.whole(&blob.hash, source), self.of_source(source));
        // The file is missing if a crash has interrupted this function.
        if blob.size > BLOB_GROUP_BYTES && files::exists(&from.tree) {
            self.rename(&from.tree, &to.tree)?;
            self.sync(&directory)?;
        }
        self.rename(&from.data, &to.data)?;
        self.sync(&directory)
    }

    /// Removes the files of a whole blob, the data first.
    pub(super) fn remove_whole(&self, hash: &BlobHash, source: Source) -> Result<(), BlobError> {
        let paths = self.whole(hash, source);
        self.remove(&paths.data)?;
        self.remove(&paths.tree)
    }

    /// Removes a file, if it is there.
    pub(super) fn remove(&self, path: &Path) -> Result<(), BlobError> {
        self.step(path)?;
        match files::remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(BlobError::file(path, error)),
            _ => Ok(()),
        }
    }

    /// Ends here, in a test that lets the program end in the middle.
    #[cfg(test)]
    pub(super) fn step(&self, path: &Path) -> Result<(), BlobError> {
        use std::sync::atomic::Ordering;
        let left = self.crash_after.load(Ordering::Relaxed);
        if left == 0 {
            return Err(BlobError::file(path, io::Error::other("the program has ended here")));
        }
        self.crash_after.store(left - 1, Ordering::Relaxed);
        Ok(())
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "tests end here")]
    pub(super) fn step(&self, _: &Path) -> Result<(), BlobError> {
        Ok(())
    }
}

/// An open file that is read and written at any offset.
#[derive(Debug)]
pub(super) struct PlacedFile(File);

impl PlacedFile {
    /// Opens a file to read it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        files::open(path).map(Self)
    }

    /// Opens a file that is there to write it.
    pub(super) fn open_to_write(path: &Path) -> io::Result<Self> {
        files::open_to_write(path).map(Self)
    }

    /// Creates or truncates a file for writing.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        files::create(path).map(Self)
    }

    pub(super) fn file(&self) -> &File {
        &self.0
    }
}

impl ReadAt for PlacedFile {
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        files::read_at(&self.0, offset, out)
    }
}

impl WriteAt for PlacedFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        files::write_at(&self.0, offset, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The open files of a blob.
#[derive(Debug)]
pub(super) struct Files<'a> {
    pub(super) data: PlacedFile,
    /// Of a blob that is one group, the data once more, which is not read.
    pub(super) tree: PlacedFile,
    _slot: Slot<'a>,
}

impl Directory {
    /// Opens the files of a blob, or returns `None` if they do not exist.
    pub(super) fn open(&self, paths: &Paths, size: u64, write: bool) -> Result<Option<Files<'_>>, BlobError> {
        let slot = self.slot();
        let open = |path: &Path| match if write { files::open_to_change(path) } else { files::open(path) } {
            Ok(file) => Ok(Some(PlacedFile(file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(BlobError::file(path, error)),
        };
        let tree = if size > BLOB_GROUP_BYTES { &paths.tree } else { &paths.data };
        let (Some(data), Some(tree)) = (open(&paths.data)?, open(tree)?) else { return Ok(None) };
        Ok(Some(Files { data, tree, _slot: slot }))
    }
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// Returns the names of the files in a directory.
pub(super) fn names(directory: &Path) -> Result<Vec<String>, BlobError> {
    let failed = |error| BlobError::file(directory, error);
    let entries = match files::entries(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let name = |entry: io::Result<DirEntry>| entry.map(|entry| entry.file_name().into_string().ok());
    entries.filter_map(|entry| name(entry).transpose()).map(|name| name.map_err(failed)).collect()
}

fn sync_directory(directory: &Path) -> Result<(), BlobError> {
    files::sync_directory(directory).map_err(|error| BlobError::file(directory, error))
}
