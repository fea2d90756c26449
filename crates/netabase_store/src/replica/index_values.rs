//! Lists the distinct values of a secondary key without reading the records.

use super::Replica;
use crate::engine::Span;
use crate::error::{DamageError, StoreError};
use crate::model::key_range::after_prefix;
use crate::tables;

impl Replica<'_> {
    /// Returns whether there are any records of a model, by its name; none are of one that the
    /// schema does not have.
    ///
    /// Blocks on the disk where a page is not cached, for microseconds otherwise.
    ///
    /// A record that has expired counts until it is swept, at most a minute later; one that waits
    /// for its commit does not count yet.
    pub fn has_records(self, model: &str) -> Result<bool, StoreError> {
        let Some(tables) = self.core().layout().model(model) else { return Ok(false) };
        Ok(self.core().engine().snapshot()?.all(&tables.records)?.next().transpose()?.is_some())
    }

    /// Returns the first `limit` distinct values of a secondary key, as key bytes in their order;
    /// an empty list if the schema does not have the key.
    ///
    /// Blocks on the disk in proportion to the bytes read; in an async function use
    /// `spawn_blocking`.
    ///
    /// The call reads one entry per value, however many records have it. The value of an expired
    /// record counts until the record is swept, at most a minute later.
    ///
    /// ```
    /// # use netabase_store::{KeyField, NetabaseStore, netabase_definition_module};
    /// # #[netabase_definition_module(ChatDefinition, ChatKeys)]
    /// # mod chat {
    /// #     use netabase_store::NetabaseModel;
    /// #     use serde::{Deserialize, Serialize};
    /// #     #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    /// #     #[netabase(ChatDefinition)]
    /// #     pub struct Message { #[primary_key] pub id: u64, #[secondary_key] pub room: String }
    /// # }
    /// # use chat::*;
    /// let store = NetabaseStore::in_memory::<ChatDefinition>()?;
    /// for id in 0..100 {
    ///     let room = if id % 2 == 0 { "general" } else { "garden" };
    ///     store.open_tree::<Message>()?.put(&Message { id, room: room.into() })?;
    /// }
    /// let rooms = ["garden", "general"].map(|room| room.to_owned().to_key_bytes());
    /// assert_eq!(store.replica().index_values("Message", "room", 10)?, rooms);
    /// assert_eq!(store.replica().index_values("Message", "room", 1)?, rooms[..1]);
    /// # Ok::<(), netabase_store::StoreError>(())
    /// ```
    pub fn index_values(self, model: &str, index: &str, limit: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let tables = self.core().layout().model(model);
        let position = tables.and_then(|tables| tables.schema.indexes.iter().position(|of| of.name == index));
        let (Some(tables), Some(position)) = (tables, position) else { return Ok(Vec::new()) };
        let (table, snapshot) = (tables.index(position)?, self.core().engine().snapshot()?);
        let (mut values, mut start) = (Vec::new(), Some(Vec::new()));
        while let Some(from) = start.take().filter(|_| values.len() < limit) {
            let first = snapshot.range(table, Span { start: &from, end: None })?.next().transpose()?;
            let Some(entry) = first else { break };
            let damaged = || StoreError::Damage(DamageError::Table { table: table.as_str().to_owned() });
            let (value, _) = tables::split_entry(entry.key(), entry.value()).ok_or_else(damaged)?;
            // No value is the beginning of another one.
            start = after_prefix(value);
            values.push(value.to_vec());
        }
        Ok(values)
    }
}
