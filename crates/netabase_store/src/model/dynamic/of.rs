//! The run-time schemas of typed definitions.

use std::sync::Arc;

use super::error::{SchemaError, SchemaProblem};
use super::model::{Field, Index, IndexKind, MergeRule, Model};
use super::schema::{Inner, NamedType, Schema, TypeBody, Types, Variant, VariantBody};
use super::shape::Shape;
use super::shape::by_fields::Absences;
use super::toml::positions;
use super::types::{Type, array};
use super::{definition, validate};
use crate::model::described::{BodySchema, FieldSchema, TypeSchema};
use crate::model::limits::MAX_TYPE_DEPTH;
use crate::model::schema::{DefinitionSchema, IndexSchema, ModelSchema, NetabaseDefinition};

impl Schema {
    /// Describes a typed definition, so that programs without its types can read its records.
    ///
    /// Fails with the first field whose type is not described ([`FieldType`](crate::FieldType)),
    /// and with the first secondary key that a function computes.
    ///
    /// ```
    /// use netabase_store::dynamic::Schema;
    /// use netabase_store::netabase_definition_module;
    ///
    /// #[netabase_definition_module(ChatDefinition, ChatKeys)]
    /// mod chat {
    ///     use netabase_store::{FieldType, NetabaseModel};
    ///     use serde::{Deserialize, Serialize};
    ///
    ///     #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    ///     #[netabase(ChatDefinition)]
    ///     pub struct Message {
    ///         #[primary_key]
    ///         pub id: u64,
    ///         #[secondary_key]
    ///         pub tags: Vec<String>,
    ///         pub place: Option<Place>,
    ///     }
    ///
    ///     #[derive(FieldType, Clone, Serialize, Deserialize)]
    ///     pub struct Place {
    ///         pub name: String,
    ///     }
    /// }
    ///
    /// let text = Schema::of::<chat::ChatDefinition>()?.to_toml();
    /// assert!(text.contains(r#"{ name = "place", type = "option<Place>" }"#));
    /// assert_eq!(Schema::from_toml(&text)?, Schema::of::<chat::ChatDefinition>()?);
    /// # Ok::<(), netabase_store::dynamic::SchemaError>(())
    /// ```
    pub fn of<D: NetabaseDefinition>() -> Result<Self, SchemaError> {
        Self::of_definition(D::SCHEMA)
    }

    /// Describes a definition by its schema, typed or not; see [`of`](Self::of).
    pub fn of_definition(definition: &'static DefinitionSchema) -> Result<Self, SchemaError> {
        match definition::schema_of(definition) {
            Some(schema) => Ok(schema),
            None => Self::of_models(definition, definition.models.iter().copied()),
        }
    }

    /// Describes the models of a definition that can be described, and returns the problems of the
    /// others.
    ///
    /// The schema has the definition's name, and lacks the models that are left out.
    pub fn of_described(
        definition: &'static DefinitionSchema,
    ) -> (Result<Self, SchemaError>, Vec<SchemaError>) {
        if let Some(schema) = definition::schema_of(definition) {
            return (Ok(schema), Vec::new());
        }
        let (mut described, mut left_out) = (Vec::new(), Vec::new());
        for model in definition.models {
            match Self::of_models(definition, std::iter::once(*model)) {
                Ok(_) => described.push(*model),
                Err(error) => left_out.push(error),
            }
        }
        (Self::of_models(definition, described.into_iter()), left_out)
    }

    fn of_models(
        definition: &'static DefinitionSchema,
        models: impl Iterator<Item = &'static ModelSchema>,
    ) -> Result<Self, SchemaError> {
        let mut describing = Describing::default();
        let models = models.map(|model| {
            let of_model = |error| SchemaError { model: Some(model.name.to_owned()), ..error };
            describing.model(model).map_err(of_model)
        });
        let mut models = models.collect::<Result<Vec<_>, _>>()?;
        let types = Arc::new(Types(describing.finish()));
        for model in &mut models {
            model.types = Arc::clone(&types);
        }
        validate::checked(Inner::new(definition.name, models, types))
    }
}

/// Describes only the fields of a typed model; returns `None` if they cannot be described.
pub(super) fn fields_of(model: &ModelSchema) -> Option<Model> {
    let mut describing = Describing::default();
    let fields = describing.fields(model.fields).ok()?;
    Some(Model {
        name: model.name.into(),
        version: model.version,
        policy: model.policy,
        lifetime: None,
        primary: Vec::new(),
        fields,
        indexes: Vec::new(),
        types: Arc::new(Types(describing.finish())),
    })
}

/// Returns the shape of a typed model; the types of some fields may not be described.
pub(super) fn shape_of_typed(model: &ModelSchema) -> Shape {
    let mut describing = Describing::default();
    let types: Vec<_> = model.fields.iter().map(|field| describing.known_type(field)).collect();
    let stored = |field: &FieldSchema| field.aliases.first().copied().unwrap_or(field.name);
    let fields = model.fields.iter().zip(&types).map(|(field, ty)| (stored(field), ty.as_ref()));
    let named = describing.finish();
    let mut absences = Absences::of(&[], &named);
    for field in model.fields {
        // What is not described may be an option.
        let may_be_absent =
            field.default.is_some() || matches!(field.ty, None | Some(TypeSchema::Optional(_)));
        absences.add("", stored(field), may_be_absent, std::iter::empty());
    }
    Shape::new(fields, &named, absences)
}

/// The named types that were met.
#[derive(Default)]
struct Describing {
    met: Vec<Met>,
}

struct Met {
    path: &'static str,
    name: Arc<str>,
    /// The type comes after the types in it.
    body: Option<TypeBody>,
}

impl Describing {
    fn finish(self) -> Vec<NamedType> {
        let of = |Met { name, body, .. }: Met| body.map(|body| NamedType { name, body });
        self.met.into_iter().filter_map(of).collect()
    }

    fn model(&mut self, model: &ModelSchema) -> Result<Model, SchemaError> {
        let blobs: Vec<_> = model.blobs.split(',').collect();
        let mut fields = self.fields(model.fields)?;
        for field in &mut fields {
            field.blob = blobs.contains(&&*field.name);
        }
        let indexes = model.indexes.iter().map(|schema| {
            index(schema, &fields)
                .map_err(|problem| SchemaError { field: Some(schema.name.to_owned()), ..problem.into() })
        });
        let indexes = indexes.collect::<Result<_, _>>()?;
        Ok(Model {
            name: model.name.into(),
            version: model.version,
            policy: model.policy,
            lifetime: model.lifetime,
            primary: positions(model.primary_key, &fields)?,
            fields,
            indexes,
            types: Arc::default(),
        })
    }

    fn fields(&mut self, fields: &[FieldSchema]) -> Result<Vec<Field>, SchemaError> {
        let field = |schema: &FieldSchema| {
            let ty = self.field_type(schema).map_err(|error| {
                // Within a named type, the field of that is already named.
                let field = error.field.clone().unwrap_or_else(|| schema.name.to_owned());
                SchemaError { field: Some(field), ..error }
            })?;
            let merge = schema.merge.and_then(MergeRule::parse).unwrap_or_default();
            Ok(Field {
                name: schema.name.into(),
                ty,
                merge,
                blob: false,
                // An option is nothing anyway.
                default: schema.default.and_then(|json| json()).filter(|json| json != "null").map(Into::into),
                aliases: schema.aliases.iter().map(|alias| (*alias).into()).collect(),
            })
        };
        fields.iter().map(field).collect()
    }

    fn parts(&mut self, parts: &[FieldSchema]) -> Result<Vec<Type>, SchemaError> {
        parts.iter().map(|part| self.field_type(part)).collect()
    }

    fn field_type(&mut self, field: &FieldSchema) -> Result<Type, SchemaError> {
        let undescribed = || SchemaProblem::Undescribed { rust_type: field.rust_type.to_owned() };
        self.type_of(field.ty.ok_or_else(undescribed)?, 0)
    }

    /// Returns the type of a field, or `None` if it is not described.
    fn known_type(&mut self, field: &FieldSchema) -> Option<Type> {
        let met = self.met.len();
        let known = self.field_type(field).ok();
        if known.is_none() {
            self.met.truncate(met);
        }
        known
    }

    fn type_of(&mut self, schema: &TypeSchema, depth: usize) -> Result<Type, SchemaError> {
        if depth > MAX_TYPE_DEPTH {
            return Err(SchemaProblem::TypeDepth.into());
        }
        let mut inner = |schema: &TypeSchema| self.type_of(schema, depth + 1);
        Ok(match schema {
            TypeSchema::Simple(name) => Type::parse(name, &[])?,
            TypeSchema::Optional(of) => Type::Optional(Box::new(inner(of)?)),
            TypeSchema::List(item) => Type::list_of(inner(item)?),
            TypeSchema::Hashed(of) => inner(of)?,
            TypeSchema::Set(item) => Type::Set(Box::new(inner(item)?)),
            TypeSchema::Map(key, value) => Type::Map(Box::new(inner(key)?), Box::new(inner(value)?)),
            TypeSchema::Tuple(parts) => {
                Type::Tuple(parts.iter().map(|part| inner(part)).collect::<Result<_, _>>()?)
            }
            TypeSchema::Array(item, len) => array(inner(item)?, *len)?,
            TypeSchema::Named { name, path, body } => self.named(name, path, *body)?,
        })
    }

    fn named(
        &mut self,
        name: &str,
        path: &'static str,
        body: fn() -> BodySchema,
    ) -> Result<Type, SchemaError> {
        if let Some(position) = self.met.iter().position(|met| met.path == path) {
            let name = self.met.get(position).map(|met| Arc::clone(&met.name)).unwrap_or_default();
            return Ok(Type::Named { name, position });
        }
        validate::lengths(&[("types", self.met.len() + 1)])?;
        let (position, name) = (self.met.len(), self.free_name(name));
        self.met.push(Met { path, name: Arc::clone(&name), body: None });
        let of_type = |error: SchemaError| match error.named_type {
            // The error names the innermost type, which has to change.
            Some(_) => error,
            None => SchemaError { named_type: Some(name.to_string()), ..error },
        };
        let body = self.body(body()).map_err(of_type)?;
        if let Some(met) = self.met.get_mut(position) {
            met.body = Some(body);
        }
        Ok(Type::Named { name, position })
    }

    /// Returns the name, or one with a number if another type has it.
    fn free_name(&self, name: &str) -> Arc<str> {
        let is_free = |name: &String| !self.met.iter().any(|met| *met.name == **name);
        let mut numbered = (2..).map(|number| format!("{name}{number}"));
        let first = Some(name.to_owned()).filter(is_free);
        first.or_else(|| numbered.find(is_free)).unwrap_or_default().into()
    }

    fn body(&mut self, body: BodySchema) -> Result<TypeBody, SchemaError> {
        Ok(match body {
            BodySchema::Unit => return Err(SchemaProblem::TypeBody.into()),
            BodySchema::Tuple(parts) => TypeBody::Tuple(self.parts(parts)?),
            BodySchema::Struct(fields) => TypeBody::Struct(self.fields(fields)?),
            BodySchema::Enum(variants) => {
                let variants = variants.iter().map(|(name, body)| {
                    let body = match body {
                        BodySchema::Unit => VariantBody::Unit,
                        BodySchema::Tuple(parts) => VariantBody::Tuple(self.parts(parts)?),
                        BodySchema::Struct(fields) => VariantBody::Struct(self.fields(fields)?),
                        BodySchema::Enum(_) => return Err(SchemaProblem::VariantBody.into()),
                    };
                    Ok(Variant { name: (*name).into(), body })
                });
                TypeBody::Enum(variants.collect::<Result<_, SchemaError>>()?)
            }
        })
    }
}

/// Reads the source of an index.
fn index(schema: &IndexSchema, fields: &[Field]) -> Result<Index, SchemaProblem> {
    let source = schema.source;
    if let Some(function) = source.strip_prefix('=') {
        return Err(SchemaProblem::Computed { function: function.to_owned() });
    }
    let (names, kind) = match (source.strip_suffix('?'), source.strip_suffix('*')) {
        (Some(name), _) => (name, IndexKind::Optional),
        (_, Some(name)) => (name, IndexKind::Many),
        _ if source.contains(',') => (source, IndexKind::Compound),
        _ => (source, IndexKind::Plain),
    };
    let positions = positions(&names.split(',').collect::<Vec<_>>(), fields)?;
    let field = positions.first().and_then(|position| fields.get(*position));
    if let Some(field) = field.filter(|field| kind != IndexKind::Compound && IndexKind::of(&field.ty) != kind)
    {
        return Err(SchemaProblem::AliasedKey { source_text: source.to_owned(), ty: field.ty.to_string() });
    }
    Ok(Index { name: schema.name.into(), kind, unique: schema.unique, fields: positions })
}
