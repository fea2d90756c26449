//! Settings with a fixed set of values.

use clap::ValueEnum;
use netabase::{DhtMode, StorageBackend};
use serde_json::{Value, json};

use crate::config::{Given, Parse};

/// A backend that keeps its database on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
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

impl Parse for Backend {
    const EXPECTED: &'static str = "redb or sled";

    fn parse(given: &Given<'_>) -> Option<Self> {
        Self::from_str(given.text()?.trim(), false).ok()
    }

    fn json(&self) -> Value {
        json!(StorageBackend::from(*self).to_string())
    }
}

/// The role of the node in the distributed hash table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Store records for other nodes and answer them
    #[default]
    Server,
    /// Only ask other nodes
    Client,
}

impl From<Mode> for DhtMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Server => Self::Server,
            Mode::Client => Self::Client,
        }
    }
}

impl Parse for Mode {
    const EXPECTED: &'static str = "server or client";

    fn parse(given: &Given<'_>) -> Option<Self> {
        Self::from_str(given.text()?.trim(), false).ok()
    }

    fn json(&self) -> Value {
        json!(match self {
            Self::Server => "server",
            Self::Client => "client",
        })
    }
}
