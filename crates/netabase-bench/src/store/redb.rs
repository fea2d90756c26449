//! redb with the tables and bytes of `netabase_store`, as one would write it for these models
//! alone.
//!
//! A commit is durable by redb's default: the pages are written and flushed, then the new root.

use std::marker::PhantomData;
use std::path::Path;

use anyhow::Context;
use redb::{
    Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table,
    TableDefinition, WriteTransaction,
};

use super::bytes::{after, decode, encode, entry, key_length, primary};
use super::model::{Indexed, Message, room_key};
use super::system::{CACHE_BYTES, Store, Writes};

type Bytes = &'static [u8];

pub(super) struct Redb<M> {
    database: Database,
    records: String,
    indexes: Vec<String>,
    model: PhantomData<fn() -> M>,
}

impl<M: Indexed> Redb<M> {
    pub(super) fn open(directory: &Path) -> anyhow::Result<Self> {
        let database =
            Database::builder().set_cache_size(CACHE_BYTES).create(directory.join("bench.redb"))?;
        let opened = Self {
            database,
            records: format!("records/{}", M::NAME),
            indexes: M::INDEXES.iter().map(|index| format!("index/{}/{index}", M::NAME)).collect(),
            model: PhantomData,
        };
        let known = opened.database.begin_read()?.list_tables()?.next().is_some();
        if !known {
            let transaction = opened.database.begin_write()?;
            opened.write_tables(&transaction)?;
            transaction.commit()?;
        }
        Ok(opened)
    }

    fn write_tables<'a>(&self, transaction: &'a WriteTransaction) -> anyhow::Result<WriteTables<'a>> {
        let open = |name: &String| transaction.open_table(TableDefinition::new(name));
        let indexes = self.indexes.iter().map(open).collect::<Result<_, _>>()?;
        Ok(WriteTables { records: open(&self.records)?, indexes })
    }

    fn snapshot(&self) -> anyhow::Result<(ReadTransaction, ReadOnlyTable<Bytes, Bytes>)> {
        let transaction = self.database.begin_read()?;
        let records = transaction.open_table(TableDefinition::new(&self.records))?;
        Ok((transaction, records))
    }

    fn write(&self, write: impl FnOnce(&mut WriteTables<'_>) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let transaction = self.database.begin_write()?;
        write(&mut self.write_tables(&transaction)?)?;
        Ok(transaction.commit()?)
    }

    fn put(&self, records: &[M]) -> anyhow::Result<()> {
        self.write(|tables| records.iter().try_for_each(|record| tables.put(record)))
    }

    fn find(&self, index: usize, key: &[u8]) -> anyhow::Result<Vec<M>> {
        let (transaction, records) = self.snapshot()?;
        let name = self.indexes.get(index).context("no such index")?;
        let index: ReadOnlyTable<Bytes, Bytes> = transaction.open_table(TableDefinition::new(name))?;
        let mut found = Vec::new();
        for entry in index.range(key..after(key).as_slice())? {
            let (entry, _) = entry?;
            let record = records.get(primary(entry.value(), key).as_slice())?;
            found.push(decode(record.context("an entry of no record")?.value())?);
        }
        Ok(found)
    }
}

/// The tables in a transaction.
struct WriteTables<'a> {
    records: Table<'a, Bytes, Bytes>,
    indexes: Vec<Table<'a, Bytes, Bytes>>,
}

impl WriteTables<'_> {
    fn put<M: Indexed>(&mut self, record: &M) -> anyhow::Result<()> {
        let id = record.id().to_be_bytes();
        let old = self.records.insert(id.as_slice(), encode(record)?.as_slice())?;
        let new_keys = record.index_keys();
        let Some(old) = old else {
            for (index, key) in self.indexes.iter_mut().zip(new_keys) {
                let length = key_length(&key)?;
                index.insert(entry(key, id).as_slice(), length.as_slice())?;
            }
            return Ok(());
        };
        let old_keys = decode::<M>(old.value())?.index_keys();
        for ((index, old), new) in self.indexes.iter_mut().zip(old_keys).zip(new_keys) {
            if old != new {
                index.remove(entry(old, id).as_slice())?;
                let length = key_length(&new)?;
                index.insert(entry(new, id).as_slice(), length.as_slice())?;
            }
        }
        Ok(())
    }

    fn remove<M: Indexed>(&mut self, id: u64) -> anyhow::Result<()> {
        let id = id.to_be_bytes();
        let Some(old) = self.records.remove(id.as_slice())? else { return Ok(()) };
        let keys = decode::<M>(old.value())?.index_keys();
        for (index, key) in self.indexes.iter_mut().zip(keys) {
            index.remove(entry(key, id).as_slice())?;
        }
        Ok(())
    }
}

impl<M: Indexed> Writes<M> for Redb<M> {
    fn insert(&self, records: &[M]) -> anyhow::Result<()> {
        self.put(records)
    }

    fn len(&self) -> anyhow::Result<u64> {
        Ok(self.snapshot()?.1.len()?)
    }
}

impl Store for Redb<Message> {
    fn update(&self, records: &[Message]) -> anyhow::Result<()> {
        self.put(records)
    }

    fn remove(&self, ids: &[u64]) -> anyhow::Result<()> {
        self.write(|tables| ids.iter().try_for_each(|id| tables.remove::<Message>(*id)))
    }

    fn get(&self, id: u64) -> anyhow::Result<Option<Message>> {
        let (_, records) = self.snapshot()?;
        let record = records.get(id.to_be_bytes().as_slice())?;
        record.map(|record| decode(record.value())).transpose()
    }

    fn get_many(&self, ids: &[u64]) -> anyhow::Result<Vec<Option<Message>>> {
        let (_, records) = self.snapshot()?;
        let get = |id: &u64| {
            let record = records.get(id.to_be_bytes().as_slice())?;
            record.map(|record| decode(record.value())).transpose()
        };
        ids.iter().map(get).collect()
    }

    fn find_serial(&self, serial: u64) -> anyhow::Result<Vec<Message>> {
        self.find(1, &serial.to_be_bytes())
    }

    fn find_room(&self, room: &str) -> anyhow::Result<Vec<Message>> {
        self.find(0, &room_key(room))
    }

    fn range(&self, start: u64, limit: usize) -> anyhow::Result<Vec<Message>> {
        let (_, records) = self.snapshot()?;
        let found = records.range(start.to_be_bytes().as_slice()..)?.take(limit);
        found.map(|entry| decode(entry?.1.value())).collect()
    }

    fn scan(&self, each: &mut dyn FnMut(&Message)) -> anyhow::Result<()> {
        for entry in self.snapshot()?.1.iter()? {
            each(&decode(entry?.1.value())?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use netabase_store::ModelVersion;
    use tempfile::TempDir;

    use super::super::model::{Messages, Wide, wide};
    use super::super::ours::Ours;
    use super::*;

    /// Everything in a table of a file that nobody has open.
    fn dump(directory: &Path, table: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
        let database = Database::open(directory.join("bench.redb")).unwrap();
        let transaction = database.begin_read().unwrap();
        let table: ReadOnlyTable<Bytes, Bytes> = transaction.open_table(TableDefinition::new(table)).unwrap();
        let entries = table.iter().unwrap().map(Result::unwrap);
        entries.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())).collect()
    }

    /// The same of a database of netabase's, without the checksum at the end of each value.
    fn dump_ours(directory: &Path, table: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut entries = dump(directory, &format!("5/{table}"));
        for (_, value) in &mut entries {
            value.truncate(value.len() - 4);
        }
        entries
    }

    #[test]
    fn netabase_has_written_the_same_entries() {
        let (theirs, ours) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let messages = Messages { count: 300 };
        let write = |store: &dyn Store| {
            let records: Vec<_> = (0..300).map(|n| messages.message(n)).collect();
            store.insert(&records).unwrap();
            store.update(&[messages.moved(1), messages.moved(2)]).unwrap();
            store.remove(&[messages.id(3)]).unwrap();
        };
        write(&Redb::<Message>::open(theirs.path()).unwrap());
        write(&Ours::<Message>::open_redb(ours.path()).unwrap());
        for table in ["index/Message/room", "index/Message/serial"] {
            let ours = dump_ours(ours.path(), table);
            assert_eq!(ours.len(), 299);
            assert!(ours == dump(theirs.path(), table), "{table}");
        }
        assert_records::<Message>(ours.path(), theirs.path());
    }

    /// Compares records, of which netabase has the values by fields.
    fn assert_records<M: Indexed + ModelVersion + Debug + PartialEq>(ours: &Path, theirs: &Path) {
        let table = format!("records/{}", M::NAME);
        let ours = dump_ours(ours, &table).into_iter().map(|(key, value)| {
            let record = netabase_store::schema::decode_payload::<M>(&value[1..]);
            (key, record.unwrap())
        });
        let theirs = dump(theirs, &table).into_iter().map(|(key, value)| (key, decode::<M>(&value).unwrap()));
        assert_eq!(ours.collect::<Vec<_>>(), theirs.collect::<Vec<_>>());
    }

    #[test]
    fn netabase_has_written_the_same_entries_with_ten_keys() {
        let (theirs, ours) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let records: Vec<_> = (0..300).map(wide).collect();
        Redb::open(theirs.path()).unwrap().insert(&records).unwrap();
        Ours::open_redb(ours.path()).unwrap().insert(&records).unwrap();
        let index = |index| format!("index/Wide/{index}");
        for table in Wide::INDEXES.iter().map(index) {
            assert!(dump_ours(ours.path(), &table) == dump(theirs.path(), &table), "{table}");
        }
        assert_records::<Wide>(ours.path(), theirs.path());
    }
}
