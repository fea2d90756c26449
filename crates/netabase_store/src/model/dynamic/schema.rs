//! Definitions that are described at run time.

use std::sync::{Arc, OnceLock};

use super::error::DynamicKeyError;
#[cfg(feature = "toml")]
use super::error::SchemaError;
use super::model::{Field, Model};
use super::query::DynamicQuery;
use super::types::Type;
use crate::model::schema::DefinitionSchema;

/// A definition that is described at run time: models, and the structs and enums that their fields
/// have.
///
/// A `Schema` is always valid. Cloning is cheap.
///
/// ```
/// use netabase_store::dynamic::Schema;
///
/// let error = Schema::from_toml("name = \"Chat\"\n[[models]]\nname = \"Message\"\nfields = []").unwrap_err();
/// assert_eq!(error.line, Some(2));
/// assert_eq!(error.model.as_deref(), Some("Message"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) name: Arc<str>,
    pub(super) models: Vec<Model>,
    pub(super) types: Arc<Types>,
    /// The leaked definition, after the first call of [`definition`](Schema::definition).
    definition: OnceLock<&'static DefinitionSchema>,
}

impl Inner {
    pub(super) fn new(name: &str, models: Vec<Model>, types: Arc<Types>) -> Self {
        Self { name: name.into(), models, types, definition: OnceLock::new() }
    }
}

impl PartialEq for Inner {
    fn eq(&self, other: &Self) -> bool {
        let Self { name, models, types, definition: _ } = self;
        (name, models, types) == (&other.name, &other.models, &other.types)
    }
}

impl Eq for Inner {}

/// The named types of a schema.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Types(pub(super) Vec<NamedType>);

impl Types {
    pub(super) fn body(&self, position: usize) -> Option<&TypeBody> {
        self.0.get(position).map(|ty| &ty.body)
    }
}

/// A struct or an enum that fields can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedType {
    /// Its name.
    pub name: Arc<str>,
    /// The fields or variants.
    pub body: TypeBody,
}

/// The fields of a struct, or the variants of an enum.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TypeBody {
    /// A struct with named fields: an object in JSON.
    Struct(Vec<Field>),
    /// A tuple struct: a list in JSON, or its only part.
    Tuple(Vec<Type>),
    /// An enum.
    Enum(Vec<Variant>),
}

/// A variant of an enum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// Its name.
    pub name: Arc<str>,
    /// The fields.
    pub body: VariantBody,
}

/// The fields of a variant. In JSON a variant is `"Name"`, `{"Name":value}`, `{"Name":[..]}` or
/// `{"Name":{..}}`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum VariantBody {
    /// Nothing.
    Unit,
    /// Fields without names.
    Tuple(Vec<Type>),
    /// Fields with names.
    Struct(Vec<Field>),
}

impl VariantBody {
    /// Returns the types of the fields.
    pub(super) fn types(&self) -> impl Iterator<Item = &Type> {
        let (tuple, fields): (&[Type], &[Field]) = match self {
            Self::Unit => (&[], &[]),
            Self::Tuple(types) => (types, &[]),
            Self::Struct(fields) => (&[], fields),
        };
        tuple.iter().chain(fields.iter().map(|field| &field.ty))
    }
}

impl Schema {
    /// Reads a `schema.toml`, which `docs/schemas.md` describes.
    ///
    /// Fails with the first problem, its place, and what to write instead. The function needs the
    /// feature `toml`.
    #[cfg(feature = "toml")]
    pub fn from_toml(text: &str) -> Result<Self, SchemaError> {
        super::toml::parse(text)
    }

    /// Returns the name of the definition.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Returns the models, in their order.
    pub fn models(&self) -> &[Model] {
        &self.0.models
    }

    /// Finds a model by its name.
    pub fn model(&self, name: &str) -> Option<&Model> {
        self.models().iter().find(|model| &*model.name == name)
    }

    /// Returns the structs and enums that fields have.
    pub fn types(&self) -> &[NamedType] {
        &self.0.types.0
    }

    /// Returns the schema as stores and nodes take it.
    ///
    /// The definition lives as long as the program, like the schemas of Rust types. Each distinct
    /// schema has one, however often it is called; a program that keeps reading new schemas keeps
    /// all of them in memory.
    pub fn definition(&self) -> &'static DefinitionSchema {
        self.0.definition.get_or_init(|| super::definition::definition(self))
    }

    /// Asks for the records of a model.
    ///
    /// Fails with [`DynamicKeyError::UnknownModel`].
    pub fn query(&self, model: &str) -> Result<DynamicQuery<'_>, DynamicKeyError> {
        let found = self.model(model);
        let found = found.ok_or_else(|| DynamicKeyError::UnknownModel { model: model.to_owned() })?;
        Ok(DynamicQuery::new(self.name(), found))
    }
}
