//! Queries without types, as other programs send them, and the search for their records.

use std::fmt;

use crate::engine::Entry;
use crate::error::StoreError;
use crate::model::key_range::KeySpan;
use crate::model::query::{QueryError, RawQuery};
use crate::model::schema::{DefinitionSchema, ModelSchema};
use crate::read::cursor::{Cursor, QueryTag};
use crate::store::NetabaseStore;
use crate::tables;
use crate::version::envelope::Envelope;
use crate::version::record_key::RecordKey;

/// A [`RawQuery`] about a model that this program has.
///
/// ```
/// # use netabase_store::{NetabaseStore, Query, netabase_definition_module};
/// # use netabase_store::query::PageBounds;
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
/// store.open_tree::<Message>()?.put(&Message { id: 7, room: "general".into() })?;
///
/// let query = Query::<Message>::new().room("general").raw().resolve(store.schema().unwrap()).unwrap();
/// let mut found = Vec::new();
/// let bounds = PageBounds { entries: 100, bytes: 1024 * 1024 };
/// let end = query.page(&store, bounds, |_| true, |key, envelope| {
///     found.push((key.clone(), envelope));
///     true
/// })?;
/// assert!(end.is_last);
/// let (key, envelope) = &found[0];
/// assert_eq!(query.entries_of(key, envelope), [end.last.unwrap()]);
/// # Ok::<(), netabase_store::StoreError>(())
/// ```
#[derive(Clone)]
pub struct ResolvedQuery {
    definition: &'static DefinitionSchema,
    model: &'static ModelSchema,
    /// The position of the model in the schema.
    position: usize,
    /// The position of the index in the model.
    index: Option<usize>,
    /// The rest of the keys that were asked for.
    span: KeySpan,
    reverse: bool,
    limit: Option<u64>,
    /// The tag that tells this query's cursors from others.
    tag: QueryTag,
}

/// The limits of reading one page of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageBounds {
    /// The most entries that are looked at.
    pub entries: usize,
    /// The bytes of records after which reading ends; expired records count as well.
    pub bytes: usize,
}

/// The end of a page of records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageEnd {
    /// The last entry that was looked at and is done with, whether there was a record or not;
    /// [`ResolvedQuery::cursor`] makes it a cursor.
    pub last: Option<Vec<u8>>,
    /// Whether no page follows.
    pub is_last: bool,
}

impl RawQuery {
    /// Finds the query's model and index in a schema, and checks the cursor.
    pub fn resolve(&self, schema: &'static DefinitionSchema) -> Result<ResolvedQuery, QueryError> {
        if self.definition != schema.name {
            return Err(QueryError::Definition { found: self.definition.clone(), expected: schema.name });
        }
        let of_name = |(_, model): &(usize, &&ModelSchema)| model.name == self.model;
        let found = schema.models.iter().enumerate().find(of_name);
        let (position, model) =
            found.ok_or_else(|| QueryError::UnknownModel { model: self.model.clone() })?;
        let index = self.index.as_ref().map(|name| {
            let unknown = || QueryError::UnknownIndex { model: model.name, index: name.clone() };
            model.indexes.iter().position(|index| index.name == name).ok_or_else(unknown)
        });
        let tag = QueryTag::new(schema.name, model.name, self.index.as_deref(), &self.span, self.reverse);
        let span = match &self.after {
            Some(after) => self.span.after_entry(tag.entry(after)?, self.reverse),
            None => self.span.clone(),
        };
        let (index, reverse, limit) = (index.transpose()?, self.reverse, self.limit);
        Ok(ResolvedQuery { definition: schema, model, position, index, span, reverse, limit, tag })
    }
}

impl ResolvedQuery {
    /// Returns the same question for some of the entries, and at most `limit` records.
    #[must_use]
    pub fn narrowed(&self, span: KeySpan, limit: usize) -> Self {
        Self { span, limit: u64::try_from(limit).ok(), ..self.clone() }
    }

    /// Returns the name of the definition.
    pub fn definition(&self) -> &'static str {
        self.definition.name
    }

    /// Returns the model that is asked.
    pub fn model(&self) -> &'static ModelSchema {
        self.model
    }

    /// Returns the name of the index that is asked.
    pub fn index(&self) -> Option<&'static str> {
        self.index.and_then(|index| self.model.indexes.get(index)).map(|index| index.name)
    }

    /// Returns the entries that are left to be looked at.
    pub fn span(&self) -> &KeySpan {
        &self.span
    }

    /// Returns the cursor with which the query continues after an entry.
    pub fn cursor(&self, entry: &[u8]) -> Cursor {
        self.tag.cursor(entry)
    }

    /// Returns whether the last record comes first.
    pub fn is_reverse(&self) -> bool {
        self.reverse
    }

    /// Returns the most records that are asked for.
    pub fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Returns the key of the record that a primary key names; `None` if it is too long to.
    pub fn record_key(&self, primary: &[u8]) -> Option<RecordKey> {
        self.model.record_key(self.definition.name, primary).ok()
    }

    /// Returns whether a later version of the program wrote a record, so that its secondary keys
    /// are unknown here.
    pub fn is_newer(&self, envelope: &Envelope) -> bool {
        let version = crate::model::schema::payload_version(envelope.payload());
        !envelope.is_tombstone() && version.is_ok_and(|version| version > self.model.version)
    }

    /// Returns the entries by which a version of a record matches the query: an empty list if it
    /// does not match, several entries if it has several of the values.
    ///
    /// A bundle must have been merged.
    pub fn entries_of(&self, key: &RecordKey, envelope: &Envelope) -> Vec<Vec<u8>> {
        let mut entries = self.all_entries_of(key, envelope);
        entries.retain(|entry| self.span.contains(entry));
        entries.sort_unstable();
        entries.dedup();
        entries
    }

    fn all_entries_of(&self, key: &RecordKey, envelope: &Envelope) -> Vec<Vec<u8>> {
        if envelope.is_tombstone() {
            return Vec::new();
        }
        let primary = key.primary_key();
        let Some(index) = self.index else { return vec![primary.to_vec()] };
        let keys = self.model.keys_of(envelope.payload());
        let keys = keys.iter().flat_map(|keys| keys.secondary.iter());
        keys.filter(|(of, _)| *of == index).map(|(_, key)| [key, primary].concat()).collect()
    }

    /// Reads the records that answer the query, in its order, until `take` has no use for one, as
    /// many as are asked for are taken, or `bounds` are reached.
    ///
    /// Blocks on the disk in proportion to the bytes read; in an async function use
    /// `spawn_blocking`.
    ///
    /// Each record comes once for each of its entries, and is read only if `wants` says so. Damaged
    /// and expired records are skipped. Records from peers are seen as by
    /// [`NetabaseStore::envelope`]: it is committed first.
    pub fn page(
        &self,
        store: &NetabaseStore,
        bounds: PageBounds,
        mut wants: impl FnMut(&RecordKey) -> bool,
        mut take: impl FnMut(&RecordKey, Envelope) -> bool,
    ) -> Result<PageEnd, StoreError> {
        let core = store.core();
        let model = core.model(self.position)?;
        core.settle(model);
        // Asked before the snapshot is taken, too: the indexes may be built again in between.
        let was_stale = model.may_be_stale();
        let (snapshot, now) = (core.engine().snapshot()?, core.options().clock.unix_millis());
        let table = self.index.map_or(Ok(&model.records), |index| model.index(index))?;
        let verify =
            self.index.is_some() && (was_stale || model.may_be_stale() || !core.engine().has_snapshots());
        let mut entries = snapshot.range(table, (&self.span).into())?;
        let mut next = || if self.reverse { entries.next_back() } else { entries.next() };
        let (mut last, mut left, mut bytes) = (None, self.limit.unwrap_or(u64::MAX), 0_usize);
        for _ in 0..bounds.entries {
            // One at least, so that every page goes on.
            if left == 0 || (bytes > bounds.bytes && last.is_some()) {
                break;
            }
            let Some(entry) = next().transpose()? else { return Ok(PageEnd { last, is_last: true }) };
            let key = self.key_of(&entry);
            if key.as_ref().is_some_and(|key| !wants(key)) {
                last = Some(entry.key().to_vec());
                continue;
            }
            let envelope = match self.index {
                None => Envelope::parse(entry.value()).ok(),
                Some(_) => match tables::split_entry(entry.key(), entry.value()) {
                    Some((_, primary)) => {
                        snapshot.get_with(&model.records, primary, Envelope::parse)?.and_then(Result::ok)
                    }
                    None => None,
                },
            };
            bytes += envelope.as_ref().map_or(0, |envelope| envelope.as_bytes().len());
            let record = envelope.filter(|envelope| !envelope.is_expired(now) && !envelope.is_tombstone());
            let record = key.zip(record);
            let record = record.filter(|(key, envelope)| {
                !verify || self.all_entries_of(key, envelope).iter().any(|known| known == entry.key())
            });
            if let Some((key, envelope)) = record {
                if !take(&key, envelope) {
                    return Ok(PageEnd { last, is_last: false });
                }
                left -= 1;
            }
            last = Some(entry.key().to_vec());
        }
        let is_last = next().transpose()?.is_none();
        Ok(PageEnd { last, is_last })
    }

    fn key_of(&self, entry: &Entry) -> Option<RecordKey> {
        let primary = match self.index {
            None => entry.key(),
            Some(_) => tables::split_entry(entry.key(), entry.value())?.1,
        };
        self.record_key(primary)
    }
}

impl fmt::Debug for ResolvedQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { definition, model, position: _, index: _, span, reverse, limit, tag: _ } = self;
        f.debug_struct("ResolvedQuery")
            .field("definition", &definition.name)
            .field("model", &model.name)
            .field("index", &self.index())
            .field("span", span)
            .field("reverse", reverse)
            .field("limit", limit)
            .finish()
    }
}
