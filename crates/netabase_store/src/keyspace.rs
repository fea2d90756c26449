//! The records in the order of Kademlia's keyspace, for those who compare stores.
//!
//! A record's position is the SHA-256 of its key, by which Kademlia says which peers are close to it.
//! The table of positions follows from the records and changes in the same transaction.

use crate::engine::{Engine, Span, TableName};
use crate::envelope::{Envelope, FINGERPRINT_BYTES};
use crate::error::StoreError;
use crate::index_changes::IndexChanges;
use crate::migrate::for_each;
use crate::record_key::{POSITION_BYTES, RecordKey};
use crate::store::NetabaseStore;
use crate::tables::{self, Layout};

/// A signed record or tombstone, and where it is in the keyspace.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Placed {
    /// The SHA-256 of the key.
    pub position: [u8; POSITION_BYTES],
    /// The record.
    pub key: RecordKey,
    /// Which version of it is here, see [`Envelope::fingerprint`].
    pub fingerprint: [u8; FINGERPRINT_BYTES],
}

impl Placed {
    /// Reads an entry of the table of positions.
    pub(crate) fn parse(entry: &[u8], value: &[u8]) -> Option<Self> {
        let (position, key) = entry.split_first_chunk()?;
        let (key, fingerprint) = (RecordKey::parse(key).ok()?, value.try_into().ok()?);
        Some(Self { position: *position, key, fingerprint })
    }
}

impl NetabaseStore {
    /// Returns up to `limit` signed records and tombstones in the order of the keyspace, the first one at
    /// `from` or behind it.
    ///
    /// It reads what is committed: a version that waits for the disk is not in it yet. Records that have
    /// expired and were not swept yet are. Without an identity's or a peer's records it is empty.
    ///
    /// ```
    /// # use netabase_store::{NetabaseDefinition, NetabaseModel, NetabaseStore, netabase_definition_module};
    /// # #[netabase_definition_module(LibraryDefinition, LibraryKeys)]
    /// # mod library {
    /// #     use netabase_store::NetabaseModel;
    /// #     use serde::{Deserialize, Serialize};
    /// #     #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    /// #     #[netabase(LibraryDefinition)]
    /// #     pub struct Book { #[primary_key] pub isbn: String }
    /// # }
    /// # use library::*;
    /// use netabase_store::{SigningKey, StorageBackend, StoreOptions};
    ///
    /// let identity = Some(SigningKey::from_bytes(&[7; 32]));
    /// let options = StoreOptions { backend: StorageBackend::Memory, identity, ..StoreOptions::default() };
    /// let store = NetabaseStore::open_with("", Some(LibraryDefinition::SCHEMA), options)?;
    /// store.open_tree()?.put(&Book { isbn: "978-0-13-110362-7".into() })?;
    /// let placed = store.positions(&[0; 32], 10)?;
    /// assert_eq!(placed.len(), 1);
    /// assert_eq!(placed[0].position, placed[0].key.position());
    /// # Ok::<(), netabase_store::StoreError>(())
    /// ```
    pub fn positions(&self, from: &[u8; POSITION_BYTES], limit: usize) -> Result<Vec<Placed>, StoreError> {
        let snapshot = self.core().engine().snapshot()?;
        let mut placed = Vec::new();
        for entry in snapshot.range(&tables::POSITIONS, Span { start: from, end: None })? {
            if placed.len() == limit {
                break;
            }
            let entry = entry?;
            // `check` reports and repairs what is damaged.
            placed.extend(Placed::parse(entry.key(), entry.value()));
        }
        Ok(placed)
    }

    /// Returns how many signed records and tombstones there are, without reading them.
    pub fn positions_len(&self) -> Result<u64, StoreError> {
        self.core().engine().snapshot()?.len(&tables::POSITIONS)
    }
}

/// Makes the table of positions anew from the records. Nobody may be writing.
pub(crate) fn rebuild(engine: &Engine, layout: &Layout) -> Result<(), StoreError> {
    for_each(engine, &tables::POSITIONS, Span::ALL, |tables, entries| {
        entries.iter().try_for_each(|(entry, _)| tables.remove(&tables::POSITIONS, entry))
    })?;
    let of_whole_key = |key: &[u8]| RecordKey::parse(key).ok();
    // A record that is both live and deleted is read as live.
    place_all(engine, &tables::TOMBSTONES, of_whole_key)?;
    place_all(engine, &tables::FOREIGN, of_whole_key)?;
    let definition = layout.schema().map_or("", |schema| schema.name);
    layout.models().iter().try_for_each(|model| {
        place_all(engine, &model.records, |primary| model.schema.record_key(definition, primary).ok())
    })
}

fn place_all(
    engine: &Engine,
    table: &TableName,
    name: impl Fn(&[u8]) -> Option<RecordKey>,
) -> Result<(), StoreError> {
    for_each(engine, table, Span::ALL, |tables, entries| {
        let mut positions = IndexChanges::default();
        for (key, envelope) in entries {
            if let (Some(key), Ok(envelope)) = (name(key), Envelope::parse(envelope))
                && envelope.is_signed()
            {
                positions.push_position(&key, Some(envelope.fingerprint()));
            }
        }
        positions.flush(tables)
    })
}
