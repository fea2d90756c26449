//! `netabase_store`, as a user would use it.

use std::path::Path;

use netabase_store::{NetabaseDefinition, NetabaseModel, NetabaseStore, StorageBackend, StoreOptions, Tree};

use super::model::{
    Message, MessagePrimaryKey, MessageQuery, MessageRoomSecondaryKey, MessageSerialSecondaryKey,
    StoreBenchDefinition,
};
use super::system::{CACHE_BYTES, Store, Writes};

pub(super) struct Ours<M> {
    store: NetabaseStore,
    tree: Tree<M>,
}

impl<M: NetabaseModel> Ours<M> {
    pub(super) fn open_redb(directory: &Path) -> anyhow::Result<Self> {
        Self::open(&directory.join("bench.redb"), StorageBackend::Redb)
    }

    pub(super) fn open_sled(directory: &Path) -> anyhow::Result<Self> {
        Self::open(&directory.join("bench.sled"), StorageBackend::Sled)
    }

    fn open(path: &Path, backend: StorageBackend) -> anyhow::Result<Self> {
        let options = StoreOptions { backend, cache_bytes: CACHE_BYTES, ..StoreOptions::default() };
        let store = NetabaseStore::open_with(path, Some(StoreBenchDefinition::SCHEMA), options)?;
        Ok(Self { tree: store.open_tree()?, store })
    }
}

impl<M: NetabaseModel> Writes<M> for Ours<M> {
    fn insert(&self, records: &[M]) -> anyhow::Result<()> {
        match records {
            [record] => self.tree.put(record)?,
            records => self.tree.put_many(records)?,
        }
        Ok(())
    }

    fn len(&self) -> anyhow::Result<u64> {
        Ok(self.tree.len()?)
    }
}

impl Store for Ours<Message> {
    fn update(&self, records: &[Message]) -> anyhow::Result<()> {
        Ok(self.tree.put_many(records)?)
    }

    fn remove(&self, ids: &[u64]) -> anyhow::Result<()> {
        let mut transaction = self.store.begin_write();
        for id in ids {
            transaction.remove(&MessagePrimaryKey(*id))?;
        }
        Ok(transaction.commit()?)
    }

    fn get(&self, id: u64) -> anyhow::Result<Option<Message>> {
        Ok(self.tree.get(&MessagePrimaryKey(id))?)
    }

    fn get_many(&self, ids: &[u64]) -> anyhow::Result<Vec<Option<Message>>> {
        let keys: Vec<_> = ids.iter().map(|id| MessagePrimaryKey(*id)).collect();
        Ok(self.tree.get_many(&keys)?)
    }

    fn find_serial(&self, serial: u64) -> anyhow::Result<Vec<Message>> {
        Ok(self.tree.find(MessageSerialSecondaryKey(serial))?)
    }

    fn find_room(&self, room: &str) -> anyhow::Result<Vec<Message>> {
        Ok(self.tree.find(MessageRoomSecondaryKey(room.to_owned()))?)
    }

    fn range(&self, start: u64, limit: usize) -> anyhow::Result<Vec<Message>> {
        let range = self.tree.query().id(start..).limit(limit.try_into()?);
        Ok(range.rows()?.collect::<Result<_, _>>()?)
    }

    fn scan(&self, each: &mut dyn FnMut(&Message)) -> anyhow::Result<()> {
        for message in self.tree.iter()? {
            each(&message?);
        }
        Ok(())
    }
}
