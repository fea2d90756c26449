//! sled with a tree for each table of `netabase_store`, in its transactions over several trees.
//!
//! Each commit is followed by a flush, which sled shares between threads.

use std::path::Path;

use anyhow::Context;
use sled::transaction::{
    ConflictableTransactionError, TransactionError, TransactionResult, Transactional, TransactionalTree,
};
use sled::{Config, Db, Tree};

use super::bytes::{decode, encode, entry, primary};
use super::model::{Indexed, Message, room_key};
use super::system::{CACHE_BYTES, Store, Writes};

pub(super) struct Sled {
    database: Db,
    records: Tree,
    room: Tree,
    serial: Tree,
}

/// What the closure of a transaction returns.
type Attempt = Result<(), ConflictableTransactionError<anyhow::Error>>;

impl Sled {
    pub(super) fn open(directory: &Path) -> anyhow::Result<Self> {
        let config = Config::new().path(directory.join("bench.sled")).flush_every_ms(None);
        let database = config.cache_capacity(u64::try_from(CACHE_BYTES)?).open()?;
        Ok(Self {
            records: database.open_tree("records/Message")?,
            room: database.open_tree("index/Message/room")?,
            serial: database.open_tree("index/Message/serial")?,
            database,
        })
    }

    fn write(&self, write: impl Fn(&WriteTrees<'_>) -> Attempt) -> anyhow::Result<()> {
        let trees = (&self.records, &self.room, &self.serial);
        let written: TransactionResult<(), anyhow::Error> = trees
            .transaction(|(records, room, serial)| write(&WriteTrees { records, indexes: [room, serial] }));
        written.map_err(|error| match error {
            TransactionError::Abort(error) => error,
            TransactionError::Storage(error) => error.into(),
        })?;
        self.database.flush()?;
        Ok(())
    }

    fn find(&self, index: &Tree, key: &[u8]) -> anyhow::Result<Vec<Message>> {
        let mut found = Vec::new();
        for entry in index.scan_prefix(key).keys() {
            let record = self.records.get(primary(&entry?, key))?;
            found.push(decode(&record.context("an entry of no record")?)?);
        }
        Ok(found)
    }
}

/// The trees in a transaction.
struct WriteTrees<'a> {
    records: &'a TransactionalTree,
    indexes: [&'a TransactionalTree; 2],
}

impl WriteTrees<'_> {
    fn put(&self, message: &Message) -> Attempt {
        let id = message.id.to_be_bytes();
        let old = self.records.insert(&id, encode(message).map_err(abort)?)?;
        let old: Option<Message> = old.map(|old| decode(&old)).transpose().map_err(abort)?;
        let mut old_keys = old.map(|old| old.index_keys()).into_iter().flatten();
        for (index, new) in self.indexes.into_iter().zip(message.index_keys()) {
            match old_keys.next() {
                Some(old) if old == new => continue,
                Some(old) => drop(index.remove(entry(old, id))?),
                None => {}
            }
            index.insert(entry(new, id), &[])?;
        }
        Ok(())
    }

    fn remove(&self, id: u64) -> Attempt {
        let id = id.to_be_bytes();
        let Some(old) = self.records.remove(&id)? else { return Ok(()) };
        let old: Message = decode(&old).map_err(abort)?;
        for (index, key) in self.indexes.into_iter().zip(old.index_keys()) {
            index.remove(entry(key, id))?;
        }
        Ok(())
    }
}

fn abort(error: anyhow::Error) -> ConflictableTransactionError<anyhow::Error> {
    ConflictableTransactionError::Abort(error)
}

impl Writes<Message> for Sled {
    fn insert(&self, records: &[Message]) -> anyhow::Result<()> {
        self.update(records)
    }

    fn len(&self) -> anyhow::Result<u64> {
        Ok(u64::try_from(self.records.len())?)
    }
}

impl Store for Sled {
    fn update(&self, records: &[Message]) -> anyhow::Result<()> {
        self.write(|trees| records.iter().try_for_each(|record| trees.put(record)))
    }

    fn remove(&self, ids: &[u64]) -> anyhow::Result<()> {
        self.write(|trees| ids.iter().try_for_each(|id| trees.remove(*id)))
    }

    fn get(&self, id: u64) -> anyhow::Result<Option<Message>> {
        let record = self.records.get(id.to_be_bytes())?;
        record.map(|record| decode(&record)).transpose()
    }

    fn get_many(&self, ids: &[u64]) -> anyhow::Result<Vec<Option<Message>>> {
        ids.iter().map(|id| self.get(*id)).collect()
    }

    fn find_serial(&self, serial: u64) -> anyhow::Result<Vec<Message>> {
        self.find(&self.serial, &serial.to_be_bytes())
    }

    fn find_room(&self, room: &str) -> anyhow::Result<Vec<Message>> {
        self.find(&self.room, &room_key(room))
    }

    fn range(&self, start: u64, limit: usize) -> anyhow::Result<Vec<Message>> {
        let found = self.records.range(start.to_be_bytes()..).values().take(limit);
        found.map(|record| decode(&record?)).collect()
    }

    fn scan(&self, each: &mut dyn FnMut(&Message)) -> anyhow::Result<()> {
        for record in self.records.iter().values() {
            each(&decode(&record?)?);
        }
        Ok(())
    }
}
