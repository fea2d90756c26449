//! The address of the program that has a database open, in a small private file beside the
//! database.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::admin::limits::MAX_API_FILE_BYTES;
use crate::engine::holder;
use crate::platform::files;

/// The address at which a program serves the database that it has open, for other programs of the
/// same user: the content of the file `<database>.api`.
///
/// `netabase-http` writes it when it begins to serve and removes it at the end; commands of
/// `netabase` read it. A program that is killed leaves it behind: it counts only while the database
/// is [locked](crate::StoreError::Open(crate::OpenError::Locked)).
///
/// ```
/// use netabase_store::admin::ApiFile;
///
/// # let directory = tempfile::tempdir().unwrap();
/// # let database = directory.path().join("club.redb");
/// let api = ApiFile { url: "http://127.0.0.1:4080".into(), pid: std::process::id(), token: None };
/// let published = api.clone().publish(&database)?;
/// assert_eq!(ApiFile::read(&database), Some(api));
/// drop(published);
/// assert_eq!(ApiFile::read(&database), None);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiFile {
    /// The address of the HTTP interface.
    pub url: String,
    /// The process that serves it.
    pub pid: u32,
    /// The token that clients have to send, or `None`.
    pub token: Option<String>,
}

/// Removes the file when it is dropped.
#[derive(Debug)]
#[must_use = "the file is removed when this is dropped"]
pub struct PublishedApi {
    database: PathBuf,
    api: ApiFile,
}

impl ApiFile {
    /// Returns the path of the file of the database at `database`.
    pub fn path_beside(database: &Path) -> PathBuf {
        let mut path = database.as_os_str().to_owned();
        path.push(".api");
        path.into()
    }

    /// Reads the file of the database at `database`; `None` if the file does not exist or is
    /// damaged. Blocks on the disk.
    pub fn read(database: &Path) -> Option<Self> {
        let mut text = String::new();
        let file = files::open(Self::path_beside(database)).ok()?;
        file.take(MAX_API_FILE_BYTES).read_to_string(&mut text).ok()?;
        let value = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(' '));
            lines.find(|(found, _)| *found == name).map(|(_, value)| value.to_owned())
        };
        Some(Self { url: value("url")?, pid: value("pid")?.parse().ok()?, token: value("token") })
    }

    /// Reads the file of the database at `database`, if the program that has written it still has
    /// the database open. Trusts the file on systems that do not tell which process has a file
    /// open. Blocks on the disk.
    pub fn of_running(database: &Path) -> Option<Self> {
        let api = Self::read(database)?;
        match holder::holder(database) {
            Some(pid) => (pid == api.pid).then_some(api),
            None => (!holder::IS_KNOWN).then_some(api),
        }
    }

    /// Writes the file atomically, readable by its owner only, and replaces an existing one. Blocks
    /// on the disk.
    pub fn publish(self, database: &Path) -> io::Result<PublishedApi> {
        let path = Self::path_beside(database);
        let directory =
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Temporary files are private.
        let mut file = files::named_file_in(directory)?;
        writeln!(file, "url {}\npid {}", self.url, self.pid)?;
        if let Some(token) = &self.token {
            writeln!(file, "token {token}")?;
        }
        file.persist(path)?;
        Ok(PublishedApi { database: database.to_owned(), api: self })
    }
}

impl Drop for PublishedApi {
    fn drop(&mut self) {
        // Another program's file stays.
        if ApiFile::read(&self.database).as_ref() == Some(&self.api)
            && let Err(error) = files::remove(&ApiFile::path_beside(&self.database))
        {
            tracing::debug!(%error, "the file that says where the interface is cannot be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_private_and_is_removed_by_its_writer_alone() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("a database.redb");
        let api = |pid| ApiFile { url: "http://[::1]:4080".into(), pid, token: Some("a token".into()) };
        let first = api(1).publish(&database).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(ApiFile::path_beside(&database)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let second = api(2).publish(&database).unwrap();
        drop(first);
        assert_eq!(ApiFile::read(&database), Some(api(2)));
        drop(second);
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
    }

    #[test]
    fn what_is_no_such_file_says_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("db");
        for text in ["", "url http://localhost", "pid 7", "url x\npid many", "\u{0}"] {
            std::fs::write(ApiFile::path_beside(&database), text).unwrap();
            assert_eq!(ApiFile::read(&database), None, "{text:?}");
        }
    }
}
