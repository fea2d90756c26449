//! Files and directories. In a browser every call fails.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::path::Path;

pub(crate) use std::fs::File;
pub(crate) use tempfile::NamedTempFile;

/// Opens a file for reading.
pub(crate) fn open(path: impl AsRef<Path>) -> io::Result<File> {
    File::open(path)
}

/// Creates a file for writing that only its owner can read, and truncates an existing one.
pub(crate) fn create(path: impl AsRef<Path>) -> io::Result<File> {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.write(true).create(true).truncate(true).open(path)
}

/// Creates a temporary file in `directory` that only its owner can read and whose name begins with
/// `prefix`. The file is removed unless it is renamed.
pub(crate) fn create_temporary(directory: &Path, prefix: &str) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix(prefix).tempfile_in(directory)
}

/// Renames a file, replacing any other.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)
}

/// Removes a file.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path)
}

/// Creates a directory that only its owner can read, with missing parent directories.
pub(crate) fn create_private_directory(path: &Path) -> io::Result<()> {
    let mut directories = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut directories, 0o700);
    directories.recursive(true).create(path)
}
