//! Asking the records of a tree.

use std::fmt;

use crate::changes::watch::{Watch, WatchFrom};
use crate::error::{DamageError, StoreError};
use crate::model::key_range::KeyRange;
use crate::model::query::{Query, QueryKey, QueryOf, QueryParts, Select};
use crate::model::schema::{NetabaseModel, PrimaryFields, SecondaryKey};
use crate::read::cursor::{Cursor, CursorError};
use crate::read::view::{Rows, Scan, View};

/// A [`Query`] of the records of a store or a snapshot; see [`Tree::query`](crate::Tree::query).
///
/// A key is selected by the methods of the generated trait, `MessageQuery` for a model `Message`,
/// or by those of [`Select`]. Without one, all records are asked in the order of their primary
/// keys.
///
/// A record that has several values of a multi-valued key is found once under each value asked for.
///
/// ```
/// # use netabase_store::{NetabaseModel, NetabaseStore, netabase_definition_module};
/// # #[netabase_definition_module(ChatDefinition, ChatKeys)]
/// # mod chat {
/// #     use netabase_store::NetabaseModel;
/// #     use serde::{Deserialize, Serialize};
/// #     #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
/// #     #[netabase(ChatDefinition)]
/// #     #[secondary_key(name = "room_time", fields(room, sent_at))]
/// #     pub struct Message { #[primary_key] pub id: u64, pub room: String, pub sent_at: u64 }
/// # }
/// # use chat::*;
/// let store = NetabaseStore::in_memory::<ChatDefinition>()?;
/// let messages = store.open_tree::<Message>()?;
/// for id in 0..10 {
///     messages.put(&Message { id, room: "general".into(), sent_at: 100 - id })?;
/// }
///
/// let newest = messages.query().room_time(("general", ..)).reverse().limit(3);
/// let ids = newest.rows()?.map(|row| Ok(row?.id)).collect::<Result<Vec<_>, netabase_store::StoreError>>()?;
/// assert_eq!(ids, [0, 1, 2]);
///
/// let page = messages.query().id(2..).limit(5).page()?;
/// let rest = messages.query().id(2..).after(page.next.unwrap()).page()?;
/// assert_eq!((page.records.len(), rest.records.len(), rest.next), (5, 3, None));
/// # Ok::<(), netabase_store::StoreError>(())
/// ```
#[must_use = "a query does nothing until it is asked, for example with `rows`"]
pub struct TreeQuery<M, K = ()> {
    view: View<M>,
    query: Query<M, K>,
}

/// A page of the records that a query finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<M> {
    /// The records, in the order of the query.
    pub records: Vec<M>,
    /// The start of the next page, for [`TreeQuery::after`], or `None` if this was the last one.
    ///
    /// The cursor stays valid after any write: the next page has the records that come after this
    /// one in the order of the query.
    pub next: Option<Cursor>,
    /// The number of records that were skipped because a later version of the program wrote them.
    pub skipped: u64,
    /// The number of records that were skipped because they are damaged or cannot be decoded;
    /// `check` lists them.
    pub unreadable: u64,
}

impl<M: NetabaseModel> TreeQuery<M> {
    pub(crate) fn new(view: View<M>) -> Self {
        Self { view, query: Query::new() }
    }
}

impl<M, K> QueryOf<M> for TreeQuery<M, K> {}

impl<M: NetabaseModel> Select for TreeQuery<M> {
    type Model = M;
    type Selected<K> = TreeQuery<M, K>;

    fn primary_key(self, keys: impl KeyRange<PrimaryFields<M>>) -> TreeQuery<M, M::PrimaryKey> {
        TreeQuery { view: self.view, query: self.query.primary_key(keys) }
    }

    fn secondary_key<K: SecondaryKey<Model = M>>(self, keys: impl KeyRange<K::Fields>) -> TreeQuery<M, K> {
        TreeQuery { view: self.view, query: self.query.secondary_key(keys) }
    }
}

impl<M: NetabaseModel, K: QueryKey<M>> TreeQuery<M, K> {
    pub(crate) fn with(view: View<M>, query: Query<M, K>) -> Self {
        Self { view, query }
    }

    /// Asks for the records in the opposite order.
    pub fn reverse(self) -> Self {
        Self { query: self.query.reverse(), ..self }
    }

    /// Asks for at most `limit` records.
    pub fn limit(self, limit: u64) -> Self {
        Self { query: self.query.limit(limit), ..self }
    }

    /// Asks for the records that come after a page, in the order of the query.
    ///
    /// The cursor must come from the same query, with any limit; the calls that read fail with
    /// [`StoreError::Cursor`] otherwise.
    pub fn after(self, cursor: Cursor) -> Self {
        Self { query: self.query.after(cursor), ..self }
    }

    /// Returns the query itself, which can be kept and run again.
    pub fn into_query(self) -> Query<M, K> {
        self.query
    }

    /// Returns an iterator over the records, which reads them lazily.
    ///
    /// Blocks on the disk in proportion to the bytes read; in an async function use
    /// `spawn_blocking`.
    ///
    /// Its back yields the last of all matching records, not the last within the limit: use
    /// [`TreeQuery::reverse`] for the opposite order.
    pub fn rows(&self) -> Result<Rows<M>, StoreError> {
        self.view.rows(&scan(&self.query)?)
    }

    /// Returns the records, at most as many as the limit, and the cursor of the next page.
    ///
    /// Blocks on the disk in proportion to the bytes read; in an async function use
    /// `spawn_blocking`.
    ///
    /// A record that cannot be read is skipped and counted, so that the next page can always be
    /// reached; [`TreeQuery::rows`] yields an error for it.
    pub fn page(&self) -> Result<Page<M>, StoreError> {
        let mut rows = self.rows()?.keeping_last();
        let (mut records, mut unreadable) = (Vec::new(), 0);
        for record in rows.by_ref() {
            match record {
                Ok(record) => records.push(record),
                Err(
                    StoreError::Damage(DamageError::Record(_) | DamageError::Entry { .. })
                    | StoreError::Value(_),
                ) => {
                    unreadable += 1;
                }
                Err(error) => return Err(error),
            }
        }
        let next = if rows.has_more()? { rows.last_key() } else { None };
        let next = next.map(|key| self.query.tag().cursor(key));
        Ok(Page { records, next, skipped: rows.skipped(), unreadable })
    }

    /// Counts the records without reading them, or the index entries.
    ///
    /// Blocks on the disk in proportion to the bytes read; in an async function use
    /// `spawn_blocking`.
    ///
    /// Takes time in proportion to their number, except for all records of a model, whose number is
    /// stored. Expired records count until they are swept, at most a minute later. Records of a
    /// later version of the model count, too.
    pub fn count(&self) -> Result<u64, StoreError> {
        self.view.count(&scan(&self.query)?)
    }

    /// Returns the first record in the order of the query.
    ///
    /// Blocks on the disk in proportion to the bytes read; in an async function use
    /// `spawn_blocking`.
    pub fn first(&self) -> Result<Option<M>, StoreError> {
        self.rows()?.next().transpose()
    }

    /// Returns the last record in the order of the query, ignoring its limit.
    ///
    /// Blocks on the disk in proportion to the bytes read; in an async function use
    /// `spawn_blocking`.
    pub fn last(&self) -> Result<Option<M>, StoreError> {
        let scan = Scan { limit: None, ..scan(&self.query)? };
        self.view.rows(&scan)?.next_back().transpose()
    }

    /// Follows the changes of the records whose key is selected, ignoring order, limit and cursor.
    ///
    /// Blocks on the disk where a page is not cached, for microseconds otherwise.
    ///
    /// A record whose key changes is reported as inserted when the query begins to match it, and as
    /// removed when it no longer matches.
    pub fn watch(&self, from: WatchFrom) -> Result<Watch<M>, StoreError> {
        self.view
            .watch(Scan { index: K::POSITION, span: self.query.parts.span.clone(), ..Scan::default() }, from)
    }
}

/// Returns the entries that match a query; fails if its cursor is not one of its own.
pub(crate) fn scan<M: NetabaseModel, K: QueryKey<M>>(query: &Query<M, K>) -> Result<Scan, CursorError> {
    let QueryParts { span, reverse, limit, after } = &query.parts;
    let (reverse, limit) = (*reverse, *limit);
    let span = match after {
        Some(after) => span.after_entry(query.tag().entry(after)?, reverse),
        None => span.clone(),
    };
    Ok(Scan { index: K::POSITION, span, reverse, limit })
}

impl<M: NetabaseModel, K: QueryKey<M>> fmt::Debug for TreeQuery<M, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TreeQuery").field(&self.query).finish()
    }
}
