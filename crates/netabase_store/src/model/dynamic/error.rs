//! Errors of schemas, and of keys in JSON or text.

use std::fmt;

use thiserror::Error;

use crate::error::KeyError;
use crate::model::limits::{
    MAX_ARRAY_ITEMS, MAX_KEY_FIELDS, MAX_MODEL_VERSION, MAX_SCHEMA_BYTES, MAX_TUPLE_PARTS, MAX_TYPE_DEPTH,
};

/// The reason why a schema cannot be used, and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SchemaError {
    /// The line of the text, from 1, or `None` without a text.
    pub line: Option<usize>,
    /// The model, if it is in one.
    pub model: Option<String>,
    /// The named type, if it is in one.
    pub named_type: Option<String>,
    /// The field, the variant or the secondary key, if it is in one.
    pub field: Option<String>,
    /// The problem.
    pub problem: Box<SchemaProblem>,
}

impl From<SchemaProblem> for SchemaError {
    fn from(problem: SchemaProblem) -> Self {
        Self { line: None, model: None, named_type: None, field: None, problem: Box::new(problem) }
    }
}

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, model, named_type, field, problem } = self;
        let places = [
            line.map(|line| format!("line {line}")),
            model.as_ref().map(|model| format!("model `{model}`")),
            named_type.as_ref().map(|ty| format!("type `{ty}`")),
            field.as_ref().map(|field| format!("`{field}`")),
        ];
        let places = places.into_iter().flatten().collect::<Vec<_>>().join(", ");
        if places.is_empty() { write!(f, "{problem}") } else { write!(f, "{places}: {problem}") }
    }
}

impl std::error::Error for SchemaError {}

/// A problem of a schema.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SchemaProblem {
    /// The text is too long.
    #[error("the schema has {len} bytes, at most {MAX_SCHEMA_BYTES} are read")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// The text is no TOML, or has keys that a schema does not have.
    #[error("{message}")]
    Toml {
        /// The parser's error.
        message: String,
    },
    /// The schema has too many items of a kind.
    #[error("there are more than {limit} {what}: remove some, or move some to a definition of their own")]
    TooMany {
        /// The name of the items that are too many.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A definition or model has a name that record keys cannot hold.
    #[error(
        "`{name}` cannot be a name in record keys: write 1 to 64 of `A-Z`, `a-z`, `0-9`, `_`, `-`, `.`, and not `.` \
         or `..`"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// A field, variant, type or secondary key is not named like one.
    #[error("`{name}` is not a name: write letters, digits and `_`, at most 64 bytes, and no digit first")]
    Identifier {
        /// The name.
        name: String,
    },
    /// The name of a built-in type.
    #[error("`{name}` is the name of a built-in type: choose another one")]
    Reserved {
        /// The name.
        name: String,
    },
    /// A name is there twice.
    #[error("there are two {what} called `{name}`: rename one")]
    Duplicate {
        /// The kind of the items.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Two fields of a struct, or two variants, would be stored under the same tag.
    #[error(
        "`{name}` and `{other}` have the same tag, a short hash of the name, under which they would be stored: \
         rename one"
    )]
    SameTag {
        /// The name.
        name: String,
        /// The other one.
        other: String,
    },
    /// The default of a field is no value of its type.
    #[error("the default is no `{ty}`: {message}")]
    Default {
        /// The type of the field.
        ty: String,
        /// What is wrong.
        message: String,
    },
    /// The version is 0, or too high.
    #[error("versions are numbers from 1 to {MAX_MODEL_VERSION}: write `version = 1`")]
    Version,
    /// The policy is unknown.
    #[error("`{name}` is not a policy: write `open`, `owned` or `merged`")]
    Policy {
        /// The text in the schema.
        name: String,
    },
    /// The lifetime cannot be read.
    #[error(
        "`{text}` is not a lifetime: write a number from 1 and `s`, `m`, `h` or `d`, such as `30d`, up to 1000 years"
    )]
    Lifetime {
        /// The text in the schema.
        text: String,
    },
    /// A model has no primary key.
    #[error(
        "the model needs a primary key: write `primary_key = [\"id\"]`, with the fields that name a record"
    )]
    NoPrimaryKey,
    /// A key has too many fields.
    #[error("a key is made of at most {MAX_KEY_FIELDS} fields: put some into a named type")]
    KeyFields,
    /// A key is made of no fields.
    #[error("the key is made of nothing: name its fields in `fields = [..]`")]
    NoKeyFields,
    /// A key names a field that is not there.
    #[error("the model has no field `{name}`: name one of its fields")]
    UnknownField {
        /// The name.
        name: String,
    },
    /// A field is twice in a key.
    #[error("the field `{name}` is twice in the key: remove one")]
    RepeatedField {
        /// The name.
        name: String,
    },
    /// A field of a key has a type that cannot be part of a key.
    #[error(
        "`{name}` has the type `{ty}`, which cannot be part of a key: use numbers, bool, char, string, bytes, \
         author, times, `option`, `list`, `[u8; N]`, tuples of up to {MAX_KEY_FIELDS} and named types of these"
    )]
    NotAKey {
        /// The field.
        name: String,
        /// Its type.
        ty: String,
    },
    /// The values of a secondary key are ambiguous.
    #[error(
        "which values of `{ty}` are to be found is not clear: make it an `option` or a `list` of plain values"
    )]
    UnclearKey {
        /// The type of the field.
        ty: String,
    },
    /// An owned model's key does not start with its owner.
    #[error("the primary key of an owned model starts with its owner: make its first field an `author`")]
    NoOwner,
    /// A merged model has a unique key.
    #[error(
        "a key of a merged model cannot be unique, since its authors do not ask each other: remove `unique`"
    )]
    UniqueMerged,
    /// The merge rule is unknown.
    #[error("`{name}` is not a merge rule: write `lww`, `max`, `min`, `counter` or `set`")]
    Merge {
        /// The text in the schema.
        name: String,
    },
    /// A field has a merge rule, but the model is not merged.
    #[error("only merged models merge: write `policy = \"merged\"`, or remove `merge`")]
    NotMerged,
    /// A field of the primary key has a merge rule.
    #[error("the primary key is the same in whatever is merged: remove `merge`")]
    MergedKey,
    /// The merge rule is not for the type.
    #[error("`{ty}` cannot be merged by `{rule}`: {write}")]
    MergeType {
        /// The rule.
        rule: &'static str,
        /// The type.
        ty: String,
        /// The types that the rule can merge.
        write: &'static str,
    },
    /// A field is marked as naming blobs, but its type does not.
    #[error("`{ty}` names no blobs: use `blob`, `option<blob>` or `list<blob>`, or remove `blob = true`")]
    NotABlob {
        /// The type.
        ty: String,
    },
    /// The type cannot be read.
    #[error(
        "`{text}` is not a type, from byte {at} on: write for instance `u64`, `list<string>` or `(u8, bool)`"
    )]
    MalformedType {
        /// The text in the schema.
        text: String,
        /// The byte up to which it could be read.
        at: usize,
    },
    /// The type is not there.
    #[error(
        "there is no type `{name}`: declare it in `[[types]]`, or write a built-in one, such as `string`"
    )]
    UnknownType {
        /// The name.
        name: String,
    },
    /// The type nests too deeply.
    #[error("the type nests deeper than {MAX_TYPE_DEPTH} levels: declare a part of it in `[[types]]`")]
    TypeDepth,
    /// A tuple has too many parts, or none.
    #[error("a tuple has 1 to {MAX_TUPLE_PARTS} parts: declare a type with named fields in `[[types]]`")]
    TupleParts,
    /// An array has too many items, or none.
    #[error("an array has 1 to {MAX_ARRAY_ITEMS} items: write a `list` instead")]
    ArrayItems,
    /// A type has nothing, or several things at once.
    #[error("a type has either `fields`, `tuple` or `variants`: write one of them, with something in it")]
    TypeBody,
    /// A variant has several things at once.
    #[error("a variant has either `fields` or `tuple`: remove one")]
    VariantBody,
    /// The schema does not describe the type of a field.
    #[error(
        "the type `{rust_type}` is not described: write `#[derive(FieldType)]` on it, and no `#[serde(..)]` on the \
         field or the model that changes its form"
    )]
    Undescribed {
        /// The type, as the program has it.
        rust_type: String,
    },
    /// A key is computed by the program.
    #[error("the key is computed by `{function}`, which only the program has: make it a key of fields")]
    Computed {
        /// The function.
        function: String,
    },
    /// The program names a type by an alias.
    #[error(
        "the key `{source_text}` has the type `{ty}`: write `Option`, `Vec` and `BTreeSet` out, without an alias"
    )]
    AliasedKey {
        /// The source of the key.
        source_text: String,
        /// The type of the field.
        ty: String,
    },
    /// A type contains itself, so that its values would be infinite.
    #[error("the type contains itself, so that it has no values: put an `option` or a `list` in between")]
    Endless,
}

/// The reason why JSON, text or bytes are not a key of a model.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DynamicKeyError {
    /// The schema has no such model.
    #[error("the definition has no model `{model}`")]
    UnknownModel {
        /// The name.
        model: String,
    },
    /// The model has no such secondary key.
    #[error("the model `{model}` has no secondary key `{index}`")]
    UnknownIndex {
        /// The model.
        model: String,
        /// The name.
        index: String,
    },
    /// The value is not of the key's type.
    #[error("the key is {expected}, and this is not: {message}")]
    Value {
        /// The type of the key.
        expected: String,
        /// The parser's error.
        message: String,
    },
    /// Only strings and bytes have prefixes.
    #[error("the key is {expected}, which has no beginning: ask for one value, or for a range")]
    NoPrefix {
        /// The type of the key.
        expected: String,
    },
    /// The bytes are not a key.
    #[error("the bytes are not a key of this model")]
    Bytes(#[source] KeyError),
}
