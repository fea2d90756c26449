//! The tables of closed databases.

use std::collections::BTreeMap;

use netabase_store::StorageBackend;

use crate::common::{Place, open_sled};

/// The entries of every table: by table and key.
pub(crate) type Tables = BTreeMap<(String, Vec<u8>), Vec<u8>>;

/// Rewrites a closed database.
pub(crate) fn rewrite(place: &Place, edit: impl FnOnce(&mut Tables)) {
    match place.options.backend {
        StorageBackend::Redb => {
            use redb::{ReadableDatabase, ReadableTable, TableHandle};
            type Table<'a> = redb::TableDefinition<'a, &'static [u8], &'static [u8]>;
            let database = redb::Database::open(place.path()).unwrap();
            let reading = database.begin_read().unwrap();
            let names: Vec<_> = reading.list_tables().unwrap().map(|table| table.name().to_owned()).collect();
            let mut tables = Tables::new();
            for name in &names {
                for entry in reading.open_table(Table::new(name)).unwrap().iter().unwrap() {
                    let (key, value) = entry.unwrap();
                    tables.insert((name.clone(), key.value().to_vec()), value.value().to_vec());
                }
            }
            edit(&mut tables);
            let writing = database.begin_write().unwrap();
            for name in &names {
                writing.delete_table(Table::new(name)).unwrap();
            }
            for ((name, key), value) in &tables {
                writing.open_table(Table::new(name)).unwrap().insert(&key[..], &value[..]).unwrap();
            }
            writing.commit().unwrap();
        }
        StorageBackend::Sled => {
            let database = open_sled(&place.path());
            let mut tables = Tables::new();
            for entry in database.iter() {
                let (key, value) = entry.unwrap();
                let (name, key) = key[2..].split_at(u16::from_be_bytes([key[0], key[1]]).into());
                tables.insert((String::from_utf8(name.to_vec()).unwrap(), key.to_vec()), value.to_vec());
            }
            tables.retain(|(name, _), _| name != "counts");
            edit(&mut tables);
            let mut counts = BTreeMap::<_, u64>::new();
            for (name, _) in tables.keys() {
                *counts.entry(name.clone()).or_default() += 1;
            }
            let counts = counts.into_iter().map(|(name, count)| {
                (("counts".to_owned(), name.into_bytes()), count.to_be_bytes().to_vec())
            });
            tables.extend(counts.collect::<Vec<_>>());
            database.clear().unwrap();
            for ((name, key), value) in tables {
                let len = u16::try_from(name.len()).unwrap().to_be_bytes();
                database.insert([&len, name.as_bytes(), &key].concat(), value).unwrap();
            }
            database.flush().unwrap();
        }
        backend => panic!("{backend} keeps nothing"),
    }
}
