//! Models that are described at run time.

use std::sync::Arc;

use super::schema::Types;
use super::types::Type;
use crate::model::fields::tag;
use crate::version::record_key::WritePolicy;

/// A field of a model, of a struct or of a variant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: Arc<str>,
    /// Its type.
    pub ty: Type,
    /// The merge rule in a merged model; fields of structs and variants have none.
    pub merge: MergeRule,
    /// Whether the node keeps the blobs that the field of a model names.
    pub blob: bool,
    /// What the field is in a value without it, as JSON. An option that is absent is nothing in any
    /// case.
    pub default: Option<Arc<str>>,
    /// The former names of the field, under which values may have it, too.
    pub aliases: Vec<Arc<str>>,
}

impl Field {
    /// Returns whether values may have the field under a name.
    pub(super) fn is_called(&self, name: &str) -> bool {
        &*self.name == name || self.aliases.iter().any(|alias| &**alias == name)
    }

    /// Returns the name that makes the tag of a field of a model: the first of its former names, so
    /// that programs from before it was renamed read it, or its own.
    pub(super) fn stored_name(&self) -> &str {
        self.aliases.first().unwrap_or(&self.name)
    }

    /// Returns whether values may have the field under a tag.
    pub(super) fn has_tag(&self, found: u16) -> bool {
        tag(&self.name) == found || self.aliases.iter().any(|alias| tag(alias) == found)
    }

    /// Returns whether values may lack the field.
    pub(super) fn may_be_absent(&self) -> bool {
        self.default.is_some() || matches!(self.ty, Type::Optional(_))
    }
}

/// The rule by which several authors' contributions to a field are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum MergeRule {
    /// The latest contribution counts; the default, `lww`.
    #[default]
    Latest,
    /// The largest value counts.
    Max,
    /// The smallest value counts.
    Min,
    /// The values are added up.
    Counter,
    /// The sets are united.
    Set,
}

impl MergeRule {
    const ALL: [Self; 5] = [Self::Latest, Self::Max, Self::Min, Self::Counter, Self::Set];

    /// Returns its name, as `schema.toml` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Latest => "lww",
            Self::Max => "max",
            Self::Min => "min",
            Self::Counter => "counter",
            Self::Set => "set",
        }
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.name() == name)
    }
}

/// The number of keys that a secondary key has in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum IndexKind {
    /// One, the value of a field.
    Plain,
    /// One, unless the `option` is empty.
    Optional,
    /// One for each item of a `list` or a `set`.
    Many,
    /// One, of several fields.
    Compound,
}

/// A secondary key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// Its name.
    pub name: Arc<str>,
    /// The number of keys in a record.
    pub kind: IndexKind,
    /// Whether two records of this node may not have the same key.
    pub unique: bool,
    /// The positions of the fields that it is made of.
    pub(super) fields: Vec<usize>,
}

/// A model of a [`Schema`](super::Schema).
///
/// ```
/// use netabase_store::dynamic::Schema;
/// use serde_json::json;
///
/// let schema = Schema::from_toml(r#"
///     name = "Chat"
///     [[models]]
///     name = "Message"
///     primary_key = ["room", "id"]
///     fields = [{ name = "room", type = "string" }, { name = "id", type = "u64" }]
/// "#)?;
/// let message = schema.model("Message").unwrap();
/// let key = message.primary_key_from_json(&json!(["general", 7]))?;
/// assert_eq!(key, b"general\0\0\0\0\0\0\0\0\x07");
/// assert_eq!(message.primary_key_from_text(r#"["general",7]"#)?, key);
/// assert_eq!(message.primary_key_to_text(&key)?, r#"["general",7]"#);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    pub(super) name: Arc<str>,
    pub(super) version: u32,
    pub(super) policy: WritePolicy,
    pub(super) lifetime: Option<u64>,
    pub(super) fields: Vec<Field>,
    pub(super) primary: Vec<usize>,
    pub(super) indexes: Vec<Index>,
    pub(super) types: Arc<Types>,
}

impl Model {
    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the version that payloads start with.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Returns who may write its records.
    pub fn policy(&self) -> WritePolicy {
        self.policy
    }

    /// Returns the TTL of its records from their write or renewal, in milliseconds, or `None` if
    /// the store's options decide.
    pub fn lifetime(&self) -> Option<u64> {
        self.lifetime
    }

    /// Returns the fields, in the order in which payloads have them.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Returns the fields of the primary key, in its order.
    pub fn primary_key(&self) -> impl Iterator<Item = &Field> {
        self.of(&self.primary)
    }

    /// Returns the secondary keys.
    pub fn indexes(&self) -> &[Index] {
        &self.indexes
    }

    /// Finds a secondary key by its name.
    pub fn index(&self, name: &str) -> Option<&Index> {
        self.indexes.iter().find(|index| &*index.name == name)
    }

    /// Returns the fields that a secondary key is made of, in its order.
    pub fn index_fields(&self, index: &Index) -> impl Iterator<Item = &Field> {
        self.of(&index.fields)
    }

    fn of(&self, positions: &[usize]) -> impl Iterator<Item = &Field> {
        positions.iter().filter_map(|position| self.fields.get(*position))
    }

    /// Returns the types of the values that the primary key is made of.
    pub(super) fn primary_types(&self) -> Vec<&Type> {
        self.of(&self.primary).map(|field| &field.ty).collect()
    }

    /// Returns the types of the values that a secondary key is made of.
    pub(super) fn index_types(&self, index: &Index) -> Vec<&Type> {
        let types = self.of(&index.fields).map(|field| &field.ty);
        match index.kind {
            IndexKind::Plain | IndexKind::Compound => types.collect(),
            IndexKind::Optional | IndexKind::Many => types.filter_map(item).collect(),
        }
    }

    /// Returns the source of the index, as [`IndexSchema`](crate::schema::IndexSchema) has it.
    pub(super) fn source(&self, index: &Index) -> String {
        let names = self.of(&index.fields).map(|field| &*field.name).collect::<Vec<_>>().join(",");
        names
            + match index.kind {
                IndexKind::Plain | IndexKind::Compound => "",
                IndexKind::Optional => "?",
                IndexKind::Many => "*",
            }
    }

    /// Returns how the fields are merged, as [`ModelSchema`](crate::schema::ModelSchema) has it.
    pub(super) fn merge_text(&self) -> String {
        let merged = self.fields.iter().filter(|field| field.merge != MergeRule::Latest);
        merged.map(|field| format!("{}={}", field.name, field.merge.name())).collect::<Vec<_>>().join(",")
    }

    /// Returns the fields that name blobs, as [`ModelSchema`](crate::schema::ModelSchema) has it.
    pub(super) fn blobs_text(&self) -> String {
        let blobs = self.fields.iter().filter(|field| field.blob);
        blobs.map(|field| &*field.name).collect::<Vec<_>>().join(",")
    }
}

/// Returns the type of the values in an `option`, a `list` or a `set`.
fn item(ty: &Type) -> Option<&Type> {
    match ty {
        Type::Optional(item) | Type::List(item) | Type::Set(item) => Some(item),
        _ => None,
    }
}

impl IndexKind {
    /// Returns the number of keys of a field of a type, as the macro reads it off the type.
    pub(super) fn of(ty: &Type) -> Self {
        match ty {
            Type::Optional(_) => Self::Optional,
            Type::List(_) | Type::Set(_) => Self::Many,
            _ => Self::Plain,
        }
    }
}
