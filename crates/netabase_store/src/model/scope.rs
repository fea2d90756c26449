//! Scopes: sets of records that are replicated, followed or advertised together.

use serde::{Deserialize, Serialize};

use crate::model::merge;
use crate::model::schema::{DefinitionSchema, IndexKeys, NetabaseDefinition, NetabaseModel, SecondaryKey};
use crate::replica::sync_set::MODEL_TAG_BYTES;
use crate::version::envelope::Envelope;
use crate::version::record_key::RecordKey;

/// Records that are replicated or followed together: all of a definition, of a model, or with one
/// value of a secondary key.
///
/// A scope is plain data, which can be stored, sent and compared.
///
/// ```
/// use netabase_store::{Query, Scope, prefix, netabase_definition_module};
///
/// #[netabase_definition_module(ChatDefinition, ChatKeys)]
/// mod chat {
///     use netabase_store::NetabaseModel;
///     use serde::{Deserialize, Serialize};
///
///     #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
///     #[netabase(ChatDefinition)]
///     pub struct Message {
///         #[primary_key]
///         pub id: u64,
///         #[secondary_key]
///         pub room: String,
///     }
/// }
/// use chat::*;
///
/// let room = Scope::value(&MessageRoomSecondaryKey("general".into()));
/// assert!(Scope::model::<Message>().includes(&room));
/// assert!(Scope::definition::<ChatDefinition>().includes(&room));
///
/// // A query is in the scope of the one value that it asks for, or else in that of its model.
/// assert_eq!(Query::<Message>::new().room("general").scope(), room);
/// assert_eq!(Query::<Message>::new().room("a".."c").scope(), Scope::model::<Message>());
/// assert_eq!(Query::<Message>::new().room(prefix("general")).scope(), Scope::model::<Message>());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Scope {
    /// The name of the definition.
    pub definition: String,
    /// The part of its records.
    pub part: ScopePart,
}

/// The records of a definition that a [`Scope`] contains.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ScopePart {
    /// All of them.
    All,
    /// The records of one model, by its name.
    Model(String),
    /// The records of one model that have a value of a secondary key.
    Value {
        /// The model's name.
        model: String,
        /// The name of the secondary key.
        index: String,
        /// The bytes of the value, see [`KeyField`](crate::KeyField).
        key: Vec<u8>,
    },
}

impl Scope {
    /// The length of a [model's tag](crate::replica::Replica::model_tag), in bytes.
    pub const MODEL_TAG_BYTES: usize = MODEL_TAG_BYTES;

    /// Returns the scope of all records of a definition.
    pub fn definition<D: NetabaseDefinition>() -> Self {
        Self { definition: D::SCHEMA.name.to_owned(), part: ScopePart::All }
    }

    /// Returns the scope of a model.
    pub fn model<M: NetabaseModel>() -> Self {
        Self { definition: definition::<M>(), part: ScopePart::Model(M::SCHEMA.name.to_owned()) }
    }

    /// Returns the scope of one value of a secondary key, such as
    /// `MessageRoomSecondaryKey("general".into())`.
    pub fn value<K: SecondaryKey>(key: &K) -> Self {
        let schema = <K::Model as NetabaseModel>::SCHEMA;
        let index = schema.indexes.get(K::INDEX).map(|index| index.name).unwrap_or_default();
        Self::of_value(schema.name, &definition::<K::Model>(), index, key.to_key_bytes())
    }

    /// Returns the scopes of single models and values that a version of a record is in: that of its
    /// model first, then one for each value of its secondary keys, without repetitions.
    ///
    /// A tombstone has no values. A record that is of no model of `schema` is in none.
    ///
    /// ```
    /// # use netabase_store::{Envelope, RecordKey, Scope, netabase_definition_module};
    /// # use netabase_store::schema::EncodedRecord;
    /// # #[netabase_definition_module(ChatDefinition, ChatKeys)]
    /// # mod chat {
    /// #     use netabase_store::NetabaseModel;
    /// #     use serde::{Deserialize, Serialize};
    /// #     #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    /// #     #[netabase(ChatDefinition)]
    /// #     pub struct Message {
    /// #         #[primary_key]
    /// #         pub id: u64,
    /// #         #[secondary_key]
    /// #         pub tags: Vec<String>,
    /// #     }
    /// # }
    /// # use chat::*;
    /// use netabase_store::NetabaseDefinition;
    ///
    /// let message = Message { id: 1, tags: vec!["a".into(), "b".into(), "a".into()] };
    /// let envelope = Envelope::unsigned(&EncodedRecord::of(&message)?.payload);
    /// let key = RecordKey::of(&MessagePrimaryKey(1))?;
    /// let tag = |tag: &str| Scope::value(&MessageTagsSecondaryKey(tag.into()));
    /// let scopes = Scope::of_record(ChatDefinition::SCHEMA, &key, &envelope);
    /// assert_eq!(scopes, [Scope::model::<Message>(), tag("a"), tag("b")]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn of_record(schema: &DefinitionSchema, key: &RecordKey, envelope: &Envelope) -> Vec<Self> {
        let model = schema
            .model(key.model())
            .filter(|model| schema.name == key.definition() && model.policy == key.policy());
        let Some(model) = model else { return Vec::new() };
        let keys = if envelope.is_bundle() {
            merge::merged(model, key.primary_key(), envelope).1
        } else if envelope.is_tombstone() {
            IndexKeys::default()
        } else {
            model.keys_of(envelope.payload()).map(|keys| keys.secondary).unwrap_or_default()
        };
        let values = keys.iter().filter_map(|(position, key)| {
            let index = model.indexes.get(position)?;
            Some(Self::of_value(model.name, schema.name, index.name, key.to_vec()))
        });
        let part = ScopePart::Model(model.name.to_owned());
        let mut scopes = vec![Self { definition: schema.name.to_owned(), part }];
        scopes.extend(values);
        // The scope of a model comes before those of its values.
        scopes.sort_unstable();
        scopes.dedup();
        scopes
    }

    pub(crate) fn of_value(model: &str, definition: &str, index: &str, key: Vec<u8>) -> Self {
        let part = ScopePart::Value { model: model.to_owned(), index: index.to_owned(), key };
        Self { definition: definition.to_owned(), part }
    }

    /// Returns whether every record of `other` is in this scope, too.
    pub fn includes(&self, other: &Self) -> bool {
        self.definition == other.definition
            && match (&self.part, &other.part) {
                (ScopePart::All, _) => true,
                (ScopePart::Model(model), ScopePart::Value { model: other, .. }) => model == other,
                (part, other) => part == other,
            }
    }
}

fn definition<M: NetabaseModel>() -> String {
    <M::Definition as NetabaseDefinition>::SCHEMA.name.to_owned()
}
