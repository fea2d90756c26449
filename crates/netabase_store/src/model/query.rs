//! Queries as plain data: the records of a model, their order and their number.

use std::fmt::{self, Debug};
use std::marker::PhantomData;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::model::key_range::{KeyRange, KeySpan};
use crate::model::schema::{
    DefinitionSchema, ModelSchema, NetabaseDefinition, NetabaseModel, PrimaryFields, SecondaryKey,
};
use crate::model::scope::Scope;
use crate::read::cursor::{Cursor, CursorError, QueryTag};

/// A query of the model `M`: for all records, or for those whose key `K` is in a range.
///
/// `K` is the type of the selected key, which orders the records; `()` is the order of primary
/// keys. A query is plain data, which can be kept, sent and compared: it is serialised as a
/// [`RawQuery`].
///
/// The macros generate a trait for each model, here `MessageQuery`, with a method for each key.
/// Bring it into scope along with the model:
///
/// ```
/// use netabase_store::{Query, netabase_definition_module};
///
/// #[netabase_definition_module(ChatDefinition, ChatKeys)]
/// mod chat {
///     use netabase_store::NetabaseModel;
///     use serde::{Deserialize, Serialize};
///
///     #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
///     #[netabase(ChatDefinition)]
///     #[secondary_key(name = "room_time", fields(room, sent_at))]
///     pub struct Message {
///         #[primary_key]
///         pub id: u64,
///         #[secondary_key]
///         pub room: String,
///         pub sent_at: u64,
///     }
/// }
/// use chat::*;
///
/// let by_id = Query::<Message>::new().id(100..200);
/// let latest = Query::<Message>::new().room_time(("general", 1_700_000_000..)).reverse().limit(10);
///
/// let raw = latest.raw();
/// assert_eq!((raw.model.as_str(), raw.index.as_deref(), raw.limit), ("Message", Some("room_time"), Some(10)));
/// assert_eq!(Query::try_from(raw)?, latest);
/// assert!(Query::<Message, MessageRoomSecondaryKey>::try_from(by_id.raw()).is_err());
/// # Ok::<(), netabase_store::query::QueryError>(())
/// ```
pub struct Query<M, K = ()> {
    pub(crate) parts: QueryParts,
    marker: PhantomData<fn() -> (M, K)>,
}

/// The content of a query, which does not depend on who answers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueryParts {
    pub(crate) span: KeySpan,
    pub(crate) reverse: bool,
    pub(crate) limit: Option<u64>,
    pub(crate) after: Option<Cursor>,
}

impl KeySpan {
    /// Returns the rest of the span after an entry, in the order of keys or in the opposite one.
    #[must_use]
    pub fn after_entry(&self, entry: &[u8], reverse: bool) -> Self {
        let Self { start, end } = self;
        if reverse {
            let end = end.as_deref().map_or(entry, |end| end.min(entry));
            return Self { start: start.clone(), end: Some(end.to_vec()) };
        }
        // The next possible key.
        let next = [entry, &[0]].concat();
        Self { start: next.max(start.clone()), end: end.clone() }
    }
}

/// A [`Query`] without its types, as programs send it to each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawQuery {
    /// The name of the definition.
    pub definition: String,
    /// The name of the model.
    pub model: String,
    /// The name of the index to ask; `None` asks for records by their primary keys.
    pub index: Option<String>,
    /// The keys that are asked for.
    pub span: KeySpan,
    /// Whether the last record comes first.
    pub reverse: bool,
    /// The most records to return.
    pub limit: Option<u64>,
    /// The end of the page before.
    pub after: Option<Cursor>,
}

/// The reason why a [`RawQuery`] is not the [`Query`] that was expected.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The query asks another definition.
    #[error("the query asks the definition `{found}`, not `{expected}`")]
    Definition {
        /// The definition in the query.
        found: String,
        /// The definition of the expected type.
        expected: &'static str,
    },
    /// The query asks for another model.
    #[error("the query asks for the model `{found}`, not `{expected}`")]
    Model {
        /// The model in the query.
        found: String,
        /// The model of the expected type.
        expected: &'static str,
    },
    /// The query asks by another key.
    #[error("the query asks by {}, not by {}", key_name(found.as_deref()), key_name(*expected))]
    Index {
        /// The index in the query; `None` is the primary key.
        found: Option<String>,
        /// The index of the expected type.
        expected: Option<&'static str>,
    },
    /// The query asks for a model that this program does not have.
    #[error("the query asks for the model `{model}`, which this program does not have")]
    UnknownModel {
        /// The model in the query.
        model: String,
    },
    /// The query's cursor is not a cursor, or belongs to another query.
    #[error(transparent)]
    Cursor(#[from] CursorError),
    /// The query asks by a secondary key that the model does not have in this program.
    #[error("the query asks `{model}` by the secondary key `{index}`, which this program does not have")]
    UnknownIndex {
        /// The model.
        model: &'static str,
        /// The index in the query.
        index: String,
    },
}

fn key_name(index: Option<&str>) -> String {
    index.map_or_else(|| "the primary key".to_owned(), |index| format!("the secondary key `{index}`"))
}

/// A selection of a query of the model `M`: its primary key, a secondary key, or nothing (`()`).
///
/// The macros implement the trait.
pub trait QueryKey<M>: 'static {
    /// The position of the index in [`ModelSchema::indexes`]; `None` where primary keys are asked
    /// for.
    const POSITION: Option<usize>;

    /// Returns whether `bytes` are a complete key, and not only a prefix of one.
    fn is_whole(bytes: &[u8]) -> bool;
}

impl<M> QueryKey<M> for () {
    const POSITION: Option<usize> = None;

    fn is_whole(_: &[u8]) -> bool {
        false
    }
}

/// A query of the records of a model that has not selected a key yet.
///
/// The macros generate a trait for each model with a method for each key, such as `MessageQuery`
/// with `room` for a model `Message`; those methods call the ones here. The method of a key whose
/// name is one of `primary_key`, `secondary_key`, `reverse`, `limit`, `after`, `rows`, `page`,
/// `count`, `first`, `last`, `remove`, `watch`, `raw`, `new`, `keys`, `stream`, `collect` and
/// `options` has an underscore behind it.
///
/// A glob import of a definition module (`use chat::*`) imports this trait.
///
/// A query has one key: the results of these methods do not implement this trait.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has selected a key already",
    label = "a query asks by one key",
    note = "to ask by two fields, declare a key of both: `#[secondary_key(name = \"..\", fields(.., ..))]` on the model",
    note = "to narrow down what one key finds, filter the records that the query returns"
)]
pub trait Select: Sized {
    /// The model whose records are asked for.
    type Model: NetabaseModel;
    /// The same once a key of the type `K` is selected.
    type Selected<K>;

    /// Asks for the records whose primary keys are among `keys`, in their order.
    fn primary_key(
        self,
        keys: impl KeyRange<PrimaryFields<Self::Model>>,
    ) -> Self::Selected<<Self::Model as NetabaseModel>::PrimaryKey>;

    /// Asks for the records with a secondary key of the type `K` among `keys`, in their order.
    fn secondary_key<K: SecondaryKey<Model = Self::Model>>(
        self,
        keys: impl KeyRange<K::Fields>,
    ) -> Self::Selected<K>;
}

/// A query of the model `M` with any selected key.
///
/// The generated traits have their methods on all of these, so that the compiler finds the method
/// of a second key and reports the mistake.
#[doc(hidden)]
pub trait QueryOf<M> {}

impl<M, K> QueryOf<M> for Query<M, K> {}

impl<M: NetabaseModel> Query<M> {
    /// Asks for every record, in the order of primary keys.
    pub fn new() -> Self {
        Self::select(KeySpan::all())
    }
}

impl<M: NetabaseModel> Default for Query<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: NetabaseModel> Select for Query<M> {
    type Model = M;
    type Selected<K> = Query<M, K>;

    fn primary_key(self, keys: impl KeyRange<PrimaryFields<M>>) -> Query<M, M::PrimaryKey> {
        self.selecting(keys.span())
    }

    fn secondary_key<K: SecondaryKey<Model = M>>(self, keys: impl KeyRange<K::Fields>) -> Query<M, K> {
        self.selecting(keys.span())
    }
}

impl<M, K> Query<M, K> {
    fn select(span: KeySpan) -> Self {
        Self::of(QueryParts { span, reverse: false, limit: None, after: None })
    }

    fn of(parts: QueryParts) -> Self {
        Self { parts, marker: PhantomData }
    }

    /// Selects a key and keeps the other parts of the query.
    fn selecting<L>(self, span: KeySpan) -> Query<M, L> {
        Query::of(QueryParts { span, ..self.parts })
    }

    /// Asks for the records in the opposite order.
    #[must_use]
    pub fn reverse(mut self) -> Self {
        self.parts.reverse = !self.parts.reverse;
        self
    }

    /// Asks for at most `limit` records.
    #[must_use]
    pub fn limit(mut self, limit: u64) -> Self {
        self.parts.limit = Some(limit);
        self
    }

    /// Asks for the records that come after a page, in the order of the query.
    ///
    /// The cursor must come from this query, with any limit; a store or peer refuses any other.
    #[must_use]
    pub fn after(mut self, cursor: Cursor) -> Self {
        self.parts.after = Some(cursor);
        self
    }
}

impl<M: NetabaseModel, K: QueryKey<M>> Query<M, K> {
    /// Returns the smallest scope that has all records of the query: that of one value of a
    /// secondary key if it asks for exactly that, or else that of the model.
    pub fn scope(&self) -> Scope {
        let span = &self.parts.span;
        match index::<M, K>() {
            Some(index) if K::is_whole(&span.start) && *span == KeySpan::prefix(span.start.clone()) => {
                Scope::of_value(M::SCHEMA.name, definition::<M>().name, index, span.start.clone())
            }
            _ => Scope::model::<M>(),
        }
    }

    /// Returns the tag that tells the query's cursors from others.
    pub(crate) fn tag(&self) -> QueryTag {
        let QueryParts { span, reverse, .. } = &self.parts;
        QueryTag::new(definition::<M>().name, M::SCHEMA.name, index::<M, K>(), span, *reverse)
    }

    /// Returns the query without its types.
    pub fn raw(&self) -> RawQuery {
        let QueryParts { span, reverse, limit, after } = self.parts.clone();
        RawQuery {
            definition: definition::<M>().name.to_owned(),
            model: M::SCHEMA.name.to_owned(),
            index: index::<M, K>().map(str::to_owned),
            span,
            reverse,
            limit,
            after,
        }
    }
}

fn definition<M: NetabaseModel>() -> &'static DefinitionSchema {
    <M::Definition as NetabaseDefinition>::SCHEMA
}

/// Returns the name of the index that is asked.
fn index<M: NetabaseModel, K: QueryKey<M>>() -> Option<&'static str> {
    let ModelSchema { indexes, .. } = M::SCHEMA;
    K::POSITION.and_then(|position| indexes.get(position)).map(|index| index.name)
}

impl<M: NetabaseModel, K: QueryKey<M>> TryFrom<RawQuery> for Query<M, K> {
    type Error = QueryError;

    fn try_from(raw: RawQuery) -> Result<Self, QueryError> {
        let RawQuery { definition: found, model, index: found_index, span, reverse, limit, after } = raw;
        let expected = definition::<M>().name;
        if found != expected {
            return Err(QueryError::Definition { found, expected });
        }
        if model != M::SCHEMA.name {
            return Err(QueryError::Model { found: model, expected: M::SCHEMA.name });
        }
        let expected = index::<M, K>();
        if found_index.as_deref() != expected {
            return Err(QueryError::Index { found: found_index, expected });
        }
        Ok(Self::of(QueryParts { span, reverse, limit, after }))
    }
}

impl<M: NetabaseModel, K: QueryKey<M>> Serialize for Query<M, K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.raw().serialize(serializer)
    }
}

impl<'de, M: NetabaseModel, K: QueryKey<M>> Deserialize<'de> for Query<M, K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        RawQuery::deserialize(deserializer)?.try_into().map_err(serde::de::Error::custom)
    }
}

impl<M, K> Clone for Query<M, K> {
    fn clone(&self) -> Self {
        Self::of(self.parts.clone())
    }
}

impl<M, K> PartialEq for Query<M, K> {
    fn eq(&self, other: &Self) -> bool {
        self.parts == other.parts
    }
}

impl<M, K> Eq for Query<M, K> {}

impl<M: NetabaseModel, K: QueryKey<M>> Debug for Query<M, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let QueryParts { span, reverse, limit, after } = &self.parts;
        f.debug_struct("Query")
            .field("model", &M::SCHEMA.name)
            .field("index", &index::<M, K>())
            .field("span", span)
            .field("reverse", reverse)
            .field("limit", limit)
            .field("after", after)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_after_an_entry_is_within_the_span() {
        let span = KeySpan { start: vec![5], end: Some(vec![8]) };
        let left = |entry: u8, reverse| span.after_entry(&[entry], reverse);
        let between = |start: &[u8], end: &[u8]| KeySpan { start: start.to_vec(), end: Some(end.to_vec()) };
        assert_eq!(left(2, false), span);
        assert_eq!(left(6, false), between(&[6, 0], &[8]));
        assert!(left(12, false).is_empty());
        assert_eq!(left(12, true), span);
        assert_eq!(left(6, true), between(&[5], &[6]));
        assert!(left(2, true).is_empty());
    }
}
