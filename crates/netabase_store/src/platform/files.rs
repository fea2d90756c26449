//! Files and directories.
//!
//! Operations on an open [`File`] or an entry of a directory are methods of those. In a browser
//! every call here fails.
#![cfg_attr(
    not(all(feature = "blobs", feature = "sled")),
    allow(dead_code, reason = "features that are off need some of it")
)]

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, Metadata, OpenOptions, ReadDir};
use std::io;
use std::path::{Path, PathBuf};

#[cfg(feature = "blobs")]
pub(crate) use std::fs::DirEntry;
pub(crate) use std::fs::File;
pub(crate) use tempfile::{NamedTempFile, TempDir, TempPath};

/// Opens a file to read it.
pub(crate) fn open(path: impl AsRef<Path>) -> io::Result<File> {
    File::open(path)
}

/// Opens a file that is there to write it.
pub(crate) fn open_to_write(path: impl AsRef<Path>) -> io::Result<File> {
    OpenOptions::new().write(true).open(path)
}

/// Opens a file that is there to read and write it.
pub(crate) fn open_to_change(path: impl AsRef<Path>) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// Opens a file to read and write it, or creates an empty one that only its owner can read.
pub(crate) fn open_or_create(path: impl AsRef<Path>) -> io::Result<File> {
    private().read(true).write(true).create(true).truncate(false).open(path)
}

/// Creates a file that only its owner can read to write it, empty also where there was one.
pub(crate) fn create(path: impl AsRef<Path>) -> io::Result<File> {
    private().write(true).create(true).truncate(true).open(path)
}

/// Returns options under which a new file has the mode 0600, where the system has modes.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Reads bytes of a file from `offset` on into `out`; returns how many, 0 at the end.
pub(crate) fn read_at(file: &File, offset: u64, out: &mut [u8]) -> io::Result<usize> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_at(file, out, offset);
    #[cfg(windows)]
    return std::os::windows::fs::FileExt::seek_read(file, out, offset);
    #[cfg(not(any(unix, windows)))]
    {
        let _ = (file, offset, out);
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Writes some of `bytes` at `offset` of a file; returns how many.
pub(crate) fn write_at(file: &File, offset: u64, bytes: &[u8]) -> io::Result<usize> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::write_at(file, bytes, offset);
    #[cfg(windows)]
    return std::os::windows::fs::FileExt::seek_write(file, bytes, offset);
    #[cfg(not(any(unix, windows)))]
    {
        let _ = (file, offset, bytes);
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Returns the metadata of the target of a path.
pub(crate) fn metadata(path: &Path) -> io::Result<Metadata> {
    fs::metadata(path)
}

/// Returns the metadata of a path without following links.
pub(crate) fn link_metadata(path: &Path) -> io::Result<Metadata> {
    fs::symlink_metadata(path)
}

/// Returns whether anything is at a path, as far as it can be known.
pub(crate) fn exists(path: &Path) -> bool {
    path.exists()
}

/// Returns whether a directory is at a path, as far as it can be known.
pub(crate) fn is_directory(path: &Path) -> bool {
    path.is_dir()
}

/// Returns a path from the root, without links.
pub(crate) fn canonical(path: &Path) -> io::Result<PathBuf> {
    path.canonicalize()
}

/// Returns where a link leads.
#[cfg(target_os = "linux")]
pub(crate) fn link_target(path: &Path) -> io::Result<PathBuf> {
    path.read_link()
}

/// Returns the entries of a directory.
pub(crate) fn entries(directory: impl AsRef<Path>) -> io::Result<ReadDir> {
    fs::read_dir(directory)
}

/// Creates a directory and its parents, which only their owner can read.
pub(crate) fn create_directories(path: &Path) -> io::Result<()> {
    let mut directories = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut directories, 0o700);
    directories.recursive(true).create(path)
}

/// Copies the content of a file in place of that of one that is there. The mode is not copied.
pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    io::copy(&mut open(from)?, &mut create(to)?).map(drop)
}

/// Gives a file or a directory another name.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)
}

/// Removes a file.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path)
}

/// Removes a directory and everything in it.
pub(crate) fn remove_directory(path: &Path) -> io::Result<()> {
    fs::remove_dir_all(path)
}

/// Makes the names in a directory durable, where the system has a way to.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    if cfg!(unix) { open(directory)?.sync_all() } else { Ok(()) }
}

/// Makes a directory that is deleted when the returned value is dropped.
pub(crate) fn temporary_directory() -> io::Result<TempDir> {
    TempDir::new()
}

/// Returns where such directories are.
pub(crate) fn temporary_place() -> PathBuf {
    if cfg!(all(target_family = "wasm", target_os = "unknown")) {
        PathBuf::new()
    } else {
        std::env::temp_dir()
    }
}

/// Makes a file without a name, which is deleted with its handle.
pub(crate) fn temporary_file() -> io::Result<File> {
    tempfile::tempfile()
}

/// Makes such a file in `directory`.
pub(crate) fn temporary_file_in(directory: &Path) -> io::Result<File> {
    tempfile::tempfile_in(directory)
}

/// Makes a private file with a name in `directory`, which is removed when the returned value is
/// dropped.
pub(crate) fn named_file_in(directory: &Path) -> io::Result<NamedTempFile> {
    NamedTempFile::new_in(directory)
}

/// The names of files or directories that are not complete yet: random characters between a
/// beginning and an end.
pub(crate) struct PartialName<'a> {
    pub(crate) prefix: &'a OsStr,
    pub(crate) random_chars: usize,
    pub(crate) suffix: &'a str,
}

impl PartialName<'_> {
    fn builder(&self) -> tempfile::Builder<'_, '_> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(self.prefix).rand_bytes(self.random_chars).suffix(self.suffix);
        builder
    }

    /// Makes such a file in `directory`, which is removed when the returned value is dropped.
    pub(crate) fn file_in(&self, directory: &Path) -> io::Result<NamedTempFile> {
        self.builder().tempfile_in(directory)
    }

    /// Makes such a directory in `directory`, likewise.
    pub(crate) fn directory_in(&self, directory: &Path) -> io::Result<TempDir> {
        self.builder().tempdir_in(directory)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_created_is_its_owners() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        let others = at("others");
        fs::write(&others, "a backup").unwrap();
        fs::set_permissions(&others, fs::Permissions::from_mode(0o644)).unwrap();
        drop((create(at("created")).unwrap(), open_or_create(at("opened")).unwrap()));
        copy(&others, &at("copied")).unwrap();
        create_directories(&at("directory/below")).unwrap();
        for name in ["created", "opened", "copied", "directory", "directory/below"] {
            let mode = metadata(&at(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{name}: {mode:o}");
        }
        assert_eq!(fs::read_to_string(at("copied")).unwrap(), "a backup");
    }
}
