//! The tables of closed databases.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, and none uses all of it"
)]

use std::collections::BTreeMap;
use std::path::Path;

use netabase_store::StorageBackend;
use rapidhash::v3::{RapidSecrets, rapidhash_v3_micro_inline};

use crate::common::{Place, open_sled};

/// The entries of every table: by table and key.
pub(crate) type Tables = BTreeMap<(String, Vec<u8>), Vec<u8>>;

/// The first format whose tables have checksums.
const CHECKED_FORMAT: u32 = 5;

/// Returns the checksum of an entry.
pub(crate) fn checksum(table: &str, key: &[u8], value: &[u8]) -> [u8; 4] {
    let hash =
        |bytes: &[u8], seed| rapidhash_v3_micro_inline::<true, false>(bytes, &RapidSecrets::seed_cpp(seed));
    let hash = hash(value, hash(key, hash(table.as_bytes(), 0)));
    hash.to_be_bytes()[4..].try_into().unwrap()
}

/// Returns a value as it is stored.
pub(crate) fn seal(table: &str, key: &[u8], value: &[u8]) -> Vec<u8> {
    [value, &checksum(table, key, value)].concat()
}

/// Returns what the tables should hold, as the database says it.
fn tallies(tables: &Tables) -> Tables {
    let mut tallies = BTreeMap::<_, (u64, u64)>::new();
    for ((table, key), value) in tables {
        let (entries, sum) = tallies.entry(table.clone()).or_default();
        *entries += 1;
        *sum += u64::from(u32::from_be_bytes(checksum(table, key, value)));
    }
    let row = |(entries, sum): (u64, u64)| [entries.to_be_bytes(), sum.to_be_bytes()].concat();
    tallies
        .into_iter()
        .map(|(table, tally)| (("counts".to_owned(), table.into_bytes()), row(tally)))
        .collect()
}

/// Returns the tables as they are stored: of an earlier format without checksums.
pub(crate) fn stored(tables: &Tables, backend: StorageBackend) -> Tables {
    let meta = |key: &str| ("meta".to_owned(), key.as_bytes().to_vec());
    let format = tables
        .get(&meta("format"))
        .map(|format| format[..].try_into().map_or(CHECKED_FORMAT, u32::from_be_bytes));
    if format.is_some_and(|format| format >= CHECKED_FORMAT) {
        let sealed = tables.clone().into_iter().chain(tallies(tables)).map(|((table, key), value)| {
            let value = seal(&table, &key, &value);
            ((format!("5/{table}"), key), value)
        });
        let marker = (meta("format"), tables[&meta("format")].clone());
        return sealed.chain([marker]).collect();
    }
    let mut stored = tables.clone();
    if backend == StorageBackend::Sled {
        let mut counts = BTreeMap::<_, u64>::new();
        for (name, _) in tables.keys() {
            *counts.entry(name.clone()).or_default() += 1;
        }
        stored.extend(
            counts.into_iter().map(|(name, count)| {
                (("counts".to_owned(), name.into_bytes()), count.to_be_bytes().to_vec())
            }),
        );
    }
    stored
}

/// Returns the tables that a database of the present format has, whose checksums must be right.
fn unstored(stored: Tables) -> Tables {
    let (mut tables, mut found) = (Tables::new(), Tables::new());
    for ((table, key), value) in stored {
        let Some(table) = table.strip_prefix("5/").map(str::to_owned) else { continue };
        let (value, sum) = value.split_at(value.len() - 4);
        assert_eq!(sum, checksum(&table, &key, value), "{table} {key:?}");
        if table == "counts" && key.is_empty() {
            // The number of the last commit.
            continue;
        }
        let into = if table == "counts" { &mut found } else { &mut tables };
        into.insert((table, key), value.to_vec());
    }
    found.retain(|_, tally| tally[..8] != [0; 8]);
    assert_eq!(found, tallies(&tables), "what the tables hold");
    tables
}

/// Rewrites a closed database.
pub(crate) fn rewrite(place: &Place, edit: impl FnOnce(&mut Tables)) {
    rewrite_at(place.options.backend, &place.path(), edit);
}

/// Sets or removes an entry of a closed database.
pub(crate) fn set(backend: StorageBackend, path: &Path, table: &str, key: &[u8], value: Option<&[u8]>) {
    let entry = (table.to_owned(), key.to_vec());
    rewrite_at(backend, path, |tables| match value {
        Some(value) => drop(tables.insert(entry, value.to_vec())),
        None => drop(tables.remove(&entry)),
    });
}

/// Rewrites the closed database at `path`.
pub(crate) fn rewrite_at(backend: StorageBackend, path: &Path, edit: impl FnOnce(&mut Tables)) {
    match backend {
        StorageBackend::Redb => {
            use redb::{ReadableDatabase, ReadableTable, TableHandle};
            let database = redb::Database::open(path).unwrap();
            let reading = database.begin_read().unwrap();
            let names: Vec<_> = reading.list_tables().unwrap().map(|table| table.name().to_owned()).collect();
            let mut found = Tables::new();
            for name in &names {
                for entry in reading.open_table(RedbTable::new(name)).unwrap().iter().unwrap() {
                    let (key, value) = entry.unwrap();
                    found.insert((name.clone(), key.value().to_vec()), value.value().to_vec());
                }
            }
            let mut tables = unstored(found);
            edit(&mut tables);
            let writing = database.begin_write().unwrap();
            for name in &names {
                writing.delete_table(RedbTable::new(name)).unwrap();
            }
            insert_all(&writing, &stored(&tables, backend));
            writing.commit().unwrap();
        }
        StorageBackend::Sled => {
            let database = open_sled(path);
            let mut found = Tables::new();
            for entry in database.iter() {
                let (key, value) = entry.unwrap();
                let (name, key) = key[2..].split_at(u16::from_be_bytes([key[0], key[1]]).into());
                found.insert((String::from_utf8(name.to_vec()).unwrap(), key.to_vec()), value.to_vec());
            }
            // The number of the last commit stays, which a file beside the log says, too.
            let commit = found.get_key_value(&("5/counts".to_owned(), Vec::new()));
            let commit = commit.map(|(key, value)| (key.clone(), value.clone()));
            let mut tables = unstored(found);
            edit(&mut tables);
            database.clear().unwrap();
            for ((name, key), value) in stored(&tables, backend).into_iter().chain(commit) {
                let len = u16::try_from(name.len()).unwrap().to_be_bytes();
                database.insert([&len, name.as_bytes(), &key].concat(), value).unwrap();
            }
            database.flush().unwrap();
        }
        backend => panic!("{backend} keeps nothing"),
    }
}

type RedbTable<'a> = redb::TableDefinition<'a, &'static [u8], &'static [u8]>;

pub(crate) fn insert_all(writing: &redb::WriteTransaction, tables: &Tables) {
    for ((name, key), value) in tables {
        writing.open_table(RedbTable::new(name)).unwrap().insert(&key[..], &value[..]).unwrap();
    }
}
