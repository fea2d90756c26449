//! The storage backends that can be chosen on the command line.

use clap::ValueEnum;
use netabase::StorageBackend;

/// A backend that keeps its database on disk.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum Backend {
    /// One file, copy-on-write B-trees
    #[default]
    Redb,
    /// A directory with a log
    Sled,
}

impl From<Backend> for StorageBackend {
    fn from(backend: Backend) -> Self {
        match backend {
            Backend::Redb => Self::Redb,
            Backend::Sled => Self::Sled,
        }
    }
}
