//! Files and directories. In a browser every call here fails.

use std::fs::{self, DirBuilder};
use std::io;
use std::path::Path;

pub(crate) use std::fs::File;
pub(crate) use tempfile::NamedTempFile;

/// Opens a file to read it.
pub(crate) fn open(path: impl AsRef<Path>) -> io::Result<File> {
    File::open(path)
}

/// Creates a file to write it, empty also where there was one.
pub(crate) fn create(path: impl AsRef<Path>) -> io::Result<File> {
    File::create(path)
}

/// Creates a file of the owner's alone in `directory`, with a name that begins with `prefix`, and
/// removes it unless it gets a name of its own.
pub(crate) fn create_temporary(directory: &Path, prefix: &str) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix(prefix).tempfile_in(directory)
}

/// Puts a file under a name in place of any other.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)
}

/// Removes a file.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path)
}

/// Makes a directory that nobody but its owner reads, and those that it is in, unless they are
/// there.
pub(crate) fn create_private_directory(path: &Path) -> io::Result<()> {
    let mut directories = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut directories, 0o700);
    directories.recursive(true).create(path)
}
