//! The systems, behind one face.

use std::path::Path;

use clap::ValueEnum;

use super::fjall::Fjall;
use super::model::{Message, Wide};
use super::native_db::NativeDb;
use super::ours::Ours;
use super::redb::Redb;
use super::sled::Sled;
use super::sqlite::Sqlite;

/// How much memory each system may use as cache.
pub(super) const CACHE_BYTES: usize = 64 * 1024 * 1024;

/// What is measured, or what it is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum System {
    /// `netabase_store` on redb
    Netabase,
    /// `netabase_store` on sled
    NetabaseSled,
    /// redb with the tables and bytes of `netabase_store`, written by hand
    Redb,
    /// `native_db`
    #[value(name = "native_db")]
    NativeDb,
    /// `SQLite`
    Sqlite,
    /// sled, written by hand
    RawSled,
    /// fjall, written by hand
    Fjall,
}

impl System {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Netabase => super::OURS,
            Self::NetabaseSled => "netabase-sled",
            Self::Redb => super::REDB,
            Self::NativeDb => super::NATIVE_DB,
            Self::Sqlite => super::SQLITE,
            Self::RawSled => "raw-sled",
            Self::Fjall => "fjall",
        }
    }

    pub(super) fn is_on_sled(self) -> bool {
        matches!(self, Self::NetabaseSled | Self::RawSled)
    }

    /// Opens or creates the database in `directory`.
    pub(super) fn open(self, directory: &Path) -> anyhow::Result<Box<dyn Store>> {
        Ok(match self {
            Self::Netabase => Box::new(Ours::<Message>::open_redb(directory)?),
            Self::NetabaseSled => Box::new(Ours::<Message>::open_sled(directory)?),
            Self::Redb => Box::new(Redb::<Message>::open(directory)?),
            Self::NativeDb => Box::new(NativeDb::open(directory)?),
            Self::Sqlite => Box::new(Sqlite::open(directory)?),
            Self::RawSled => Box::new(Sled::open(directory)?),
            Self::Fjall => Box::new(Fjall::open(directory)?),
        })
    }

    /// Opens or creates a database of records with ten keys, where that is measured.
    pub(super) fn open_wide(self, directory: &Path) -> anyhow::Result<Box<dyn Writes<Wide>>> {
        Ok(match self {
            Self::Netabase => Box::new(Ours::<Wide>::open_redb(directory)?),
            Self::Redb => Box::new(Redb::<Wide>::open(directory)?),
            Self::NativeDb => Box::new(NativeDb::open(directory)?),
            Self::Sqlite => Box::new(Sqlite::open(directory)?),
            Self::NetabaseSled | Self::RawSled | Self::Fjall => {
                anyhow::bail!("{} is not measured with ten keys", self.name())
            }
        })
    }
}

/// A database of records of one model.
pub(super) trait Writes<M>: Send + Sync {
    /// Adds records in one transaction; it is durable when this returns.
    fn insert(&self, records: &[M]) -> anyhow::Result<()>;

    /// Returns how many records there are.
    fn len(&self) -> anyhow::Result<u64>;
}

/// A database of messages.
///
/// A read sees everything that was written before it, and decodes what it finds.
pub(super) trait Store: Writes<Message> {
    /// Replaces records, whatever they were, in one transaction; it is durable when this returns.
    fn update(&self, records: &[Message]) -> anyhow::Result<()>;

    /// Deletes records in one transaction; it is durable when this returns.
    fn remove(&self, ids: &[u64]) -> anyhow::Result<()>;

    fn get(&self, id: u64) -> anyhow::Result<Option<Message>>;

    /// Returns the record under each id, from one snapshot where there are snapshots.
    fn get_many(&self, ids: &[u64]) -> anyhow::Result<Vec<Option<Message>>>;

    fn find_serial(&self, serial: u64) -> anyhow::Result<Vec<Message>>;

    fn find_room(&self, room: &str) -> anyhow::Result<Vec<Message>>;

    /// Returns the first `limit` records from `start` on, in the order of their ids.
    fn range(&self, start: u64, limit: usize) -> anyhow::Result<Vec<Message>>;

    /// Calls `each` with every record, in the order of their ids.
    fn scan(&self, each: &mut dyn FnMut(&Message)) -> anyhow::Result<()>;
}
