//! fjall with a keyspace for each table of `netabase_store`, in its transactions of a single
//! writer.
//!
//! A transaction of its own is what an engine needs that sees its own writes. Each commit syncs the
//! journal (`PersistMode::SyncAll`). Nothing is compressed, as in the other systems.

use std::path::Path;

use anyhow::Context;
use fjall::{
    KeyspaceCreateOptions, PersistMode, Readable, SingleWriterTxDatabase, SingleWriterTxKeyspace,
    SingleWriterWriteTx as WriteTransaction, Snapshot,
};

use super::bytes::{after, decode, encode, entry, primary};
use super::model::{Indexed, Message, room_key};
use super::system::{CACHE_BYTES, Store, Writes};

pub(super) struct Fjall {
    database: SingleWriterTxDatabase,
    records: SingleWriterTxKeyspace,
    room: SingleWriterTxKeyspace,
    serial: SingleWriterTxKeyspace,
}

impl Fjall {
    pub(super) fn open(directory: &Path) -> anyhow::Result<Self> {
        let builder = SingleWriterTxDatabase::builder(directory.join("bench.fjall"));
        let database = builder.cache_size(u64::try_from(CACHE_BYTES)?).open()?;
        let keyspace = |name| database.keyspace(name, KeyspaceCreateOptions::default);
        Ok(Self {
            records: keyspace("records_message")?,
            room: keyspace("index_message_room")?,
            serial: keyspace("index_message_serial")?,
            database,
        })
    }

    fn indexes(&self) -> [&SingleWriterTxKeyspace; 2] {
        [&self.room, &self.serial]
    }

    fn write(
        &self,
        write: impl FnOnce(&mut WriteTransaction<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut transaction = self.database.write_tx().durability(Some(PersistMode::SyncAll));
        write(&mut transaction)?;
        Ok(transaction.commit()?)
    }

    fn put(&self, transaction: &mut WriteTransaction<'_>, message: &Message) -> anyhow::Result<()> {
        let id = message.id.to_be_bytes();
        let old = transaction.get(&self.records, id)?;
        let old = old.map(|old| decode::<Message>(&old)).transpose()?;
        transaction.insert(&self.records, id, encode(message)?);
        let mut old_keys = old.map(|old| old.index_keys()).into_iter().flatten();
        for (index, new) in self.indexes().into_iter().zip(message.index_keys()) {
            match old_keys.next() {
                Some(old) if old == new => continue,
                Some(old) => transaction.remove(index, entry(old, id)),
                None => {}
            }
            transaction.insert(index, entry(new, id), []);
        }
        Ok(())
    }

    fn delete(&self, transaction: &mut WriteTransaction<'_>, id: u64) -> anyhow::Result<()> {
        let id = id.to_be_bytes();
        let Some(old) = transaction.take(&self.records, id)? else { return Ok(()) };
        for (index, key) in self.indexes().into_iter().zip(decode::<Message>(&old)?.index_keys()) {
            transaction.remove(index, entry(key, id));
        }
        Ok(())
    }

    fn find(&self, index: &SingleWriterTxKeyspace, key: &[u8]) -> anyhow::Result<Vec<Message>> {
        let snapshot = self.database.read_tx();
        let mut found = Vec::new();
        for entry in snapshot.range(index, key..after(key).as_slice()) {
            let record = snapshot.get(&self.records, primary(&entry.key()?, key))?;
            found.push(decode(&record.context("an entry of no record")?)?);
        }
        Ok(found)
    }

    fn read(&self, snapshot: &Snapshot, id: u64) -> anyhow::Result<Option<Message>> {
        let record = snapshot.get(&self.records, id.to_be_bytes())?;
        record.map(|record| decode(&record)).transpose()
    }
}

impl Writes<Message> for Fjall {
    fn insert(&self, records: &[Message]) -> anyhow::Result<()> {
        self.update(records)
    }

    fn len(&self) -> anyhow::Result<u64> {
        Ok(u64::try_from(self.database.read_tx().len(&self.records)?)?)
    }
}

impl Store for Fjall {
    fn update(&self, records: &[Message]) -> anyhow::Result<()> {
        self.write(|transaction| records.iter().try_for_each(|record| self.put(transaction, record)))
    }

    fn remove(&self, ids: &[u64]) -> anyhow::Result<()> {
        self.write(|transaction| ids.iter().try_for_each(|id| self.delete(transaction, *id)))
    }

    fn get(&self, id: u64) -> anyhow::Result<Option<Message>> {
        let record = self.records.get(id.to_be_bytes())?;
        record.map(|record| decode(&record)).transpose()
    }

    fn get_many(&self, ids: &[u64]) -> anyhow::Result<Vec<Option<Message>>> {
        let snapshot = self.database.read_tx();
        ids.iter().map(|id| self.read(&snapshot, *id)).collect()
    }

    fn find_serial(&self, serial: u64) -> anyhow::Result<Vec<Message>> {
        self.find(&self.serial, &serial.to_be_bytes())
    }

    fn find_room(&self, room: &str) -> anyhow::Result<Vec<Message>> {
        self.find(&self.room, &room_key(room))
    }

    fn range(&self, start: u64, limit: usize) -> anyhow::Result<Vec<Message>> {
        let found = self.database.read_tx().range(&self.records, start.to_be_bytes()..).take(limit);
        found.map(|entry| decode(&entry.value()?)).collect()
    }

    fn scan(&self, each: &mut dyn FnMut(&Message)) -> anyhow::Result<()> {
        for entry in self.database.read_tx().iter(&self.records) {
            each(&decode(&entry.value()?)?);
        }
        Ok(())
    }
}
