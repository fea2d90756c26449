//! `native_db` as its documentation shows it, with the encoding that it has by default.
//!
//! It is on redb 2; a commit is durable by redb's default.

use std::path::Path;
use std::sync::LazyLock;

use native_db::{Builder, Database, Models, ToKey, native_db};
use native_model::{Model, native_model};
use serde::{Deserialize, Serialize};

use super::model::{self, Message};
use super::system::{CACHE_BYTES, Store, Writes};

#[derive(Debug, Serialize, Deserialize)]
#[native_model(id = 1, version = 1)]
#[native_db]
struct Row {
    #[primary_key]
    id: u64,
    #[secondary_key]
    room: String,
    #[secondary_key]
    serial: u64,
    sent_at: u64,
    body: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[native_model(id = 2, version = 1)]
#[native_db]
struct Wide {
    #[primary_key]
    id: u64,
    #[secondary_key]
    key_0: u64,
    #[secondary_key]
    key_1: u64,
    #[secondary_key]
    key_2: u64,
    #[secondary_key]
    key_3: u64,
    #[secondary_key]
    key_4: u64,
    #[secondary_key]
    key_5: u64,
    #[secondary_key]
    key_6: u64,
    #[secondary_key]
    key_7: u64,
    #[secondary_key]
    key_8: u64,
    #[secondary_key]
    key_9: u64,
    body: String,
}

static MODELS: LazyLock<anyhow::Result<Models>> = LazyLock::new(|| {
    let mut models = Models::new();
    models.define::<Row>()?;
    models.define::<Wide>()?;
    Ok(models)
});

impl From<Message> for Row {
    fn from(Message { id, room, serial, sent_at, body }: Message) -> Self {
        Self { id, room, serial, sent_at, body }
    }
}

impl From<Row> for Message {
    fn from(Row { id, room, serial, sent_at, body }: Row) -> Self {
        Self { id, room, serial, sent_at, body }
    }
}

impl From<model::Wide> for Wide {
    fn from(wide: model::Wide) -> Self {
        let [key_0, key_1, key_2, key_3, key_4, key_5, key_6, key_7, key_8, key_9] = wide.keys();
        let model::Wide { id, body, .. } = wide;
        Self { id, key_0, key_1, key_2, key_3, key_4, key_5, key_6, key_7, key_8, key_9, body }
    }
}

pub(super) struct NativeDb(Database<'static>);

impl NativeDb {
    pub(super) fn open(directory: &Path) -> anyhow::Result<Self> {
        let models = MODELS.as_ref().map_err(|error| anyhow::anyhow!("{error}"))?;
        let database =
            Builder::new().set_cache_size(CACHE_BYTES).create(models, directory.join("bench.native_db"))?;
        Ok(Self(database))
    }
}

impl Writes<Message> for NativeDb {
    fn insert(&self, records: &[Message]) -> anyhow::Result<()> {
        let transaction = self.0.rw_transaction()?;
        for record in records {
            transaction.insert(Row::from(record.clone()))?;
        }
        Ok(transaction.commit()?)
    }

    fn len(&self) -> anyhow::Result<u64> {
        Ok(self.0.r_transaction()?.len().primary::<Row>()?)
    }
}

impl Writes<model::Wide> for NativeDb {
    fn insert(&self, records: &[model::Wide]) -> anyhow::Result<()> {
        let transaction = self.0.rw_transaction()?;
        for record in records {
            transaction.insert(Wide::from(record.clone()))?;
        }
        Ok(transaction.commit()?)
    }

    fn len(&self) -> anyhow::Result<u64> {
        Ok(self.0.r_transaction()?.len().primary::<Wide>()?)
    }
}

impl Store for NativeDb {
    fn update(&self, records: &[Message]) -> anyhow::Result<()> {
        let transaction = self.0.rw_transaction()?;
        for record in records {
            transaction.upsert(Row::from(record.clone()))?;
        }
        Ok(transaction.commit()?)
    }

    fn remove(&self, ids: &[u64]) -> anyhow::Result<()> {
        let transaction = self.0.rw_transaction()?;
        for id in ids {
            let row: Option<Row> = transaction.get().primary(*id)?;
            if let Some(row) = row {
                transaction.remove(row)?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn get(&self, id: u64) -> anyhow::Result<Option<Message>> {
        let row: Option<Row> = self.0.r_transaction()?.get().primary(id)?;
        Ok(row.map(Message::from))
    }

    fn get_many(&self, ids: &[u64]) -> anyhow::Result<Vec<Option<Message>>> {
        let transaction = self.0.r_transaction()?;
        let get = |id: &u64| Ok(transaction.get().primary::<Row>(*id)?.map(Message::from));
        ids.iter().map(get).collect()
    }

    fn find_serial(&self, serial: u64) -> anyhow::Result<Vec<Message>> {
        let transaction = self.0.r_transaction()?;
        let scan = transaction.scan().secondary::<Row>(RowKey::serial)?;
        scan.range(serial..=serial)?.map(|row| Ok(row?.into())).collect()
    }

    fn find_room(&self, room: &str) -> anyhow::Result<Vec<Message>> {
        let transaction = self.0.r_transaction()?;
        let scan = transaction.scan().secondary::<Row>(RowKey::room)?;
        let room = room.to_owned();
        scan.range(room.clone()..=room)?.map(|row| Ok(row?.into())).collect()
    }

    fn range(&self, start: u64, limit: usize) -> anyhow::Result<Vec<Message>> {
        let transaction = self.0.r_transaction()?;
        let scan = transaction.scan().primary::<Row>()?;
        scan.range(start..)?.take(limit).map(|row| Ok(row?.into())).collect()
    }

    fn scan(&self, each: &mut dyn FnMut(&Message)) -> anyhow::Result<()> {
        let transaction = self.0.r_transaction()?;
        for row in transaction.scan().primary::<Row>()?.all()? {
            each(&row?.into());
        }
        Ok(())
    }
}
