//! The shapes of values: what tells, beside the version, whether two programs read the same bytes
//! as the same values.
//!
//! Payloads have their fields under tags, so that programs with other fields read what they know:
//! `by_fields` says what may differ. Earlier programs wrote fields in order without names. So two
//! fields that change places are taken for each other, and a field that is added takes the bytes of
//! the next one. A database keeps the shapes with which each version of a model was written.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use self::by_fields::Absences;
use super::definition::schema_of;
use super::model::Field;
use super::of::shape_of_typed;
use super::schema::{NamedType, TypeBody, VariantBody};
use super::types::Type;
use crate::model::limits::MAX_TYPE_DEPTH;
use crate::model::schema::{DefinitionSchema, ModelSchema};

pub(super) mod by_fields;

/// The fields of a model, with the structs and enums in them.
///
/// It is kept as JSON, whose types are those of `schema.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Shape {
    /// The names of the fields, as they make tags, and their types, or `None` where a type is not
    /// described.
    fields: Vec<(String, Option<String>)>,
    types: Vec<(String, Body)>,
    /// The fields that some of the programs did not have that wrote values, by their owners.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    lacking: BTreeSet<(String, String)>,
    /// What values may lack, or have under other names, in the present program; no database keeps
    /// it.
    #[serde(skip)]
    absences: Absences,
}

/// The parts of a struct or an enum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Body {
    /// A variant without parts.
    Unit,
    Tuple(Vec<String>),
    Struct(Vec<(String, String)>),
    Enum(Vec<(String, Body)>),
}

/// The first difference of two shapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    /// The place, such as ``field 1 of `Place` ``; of the model there is the number alone.
    pub(crate) place: String,
    /// What is there in the former shape and in the other one, or `None` if there is nothing.
    pub(crate) found: Option<String>,
    pub(crate) expected: Option<String>,
}

impl Shape {
    /// Returns the shape of each model of a definition.
    pub(crate) fn of_models(definition: &'static DefinitionSchema) -> Vec<Self> {
        let schema = schema_of(definition);
        let of = |model: &&'static ModelSchema| {
            let described = schema.as_ref().and_then(|schema| schema.model(model.name));
            described.map_or_else(
                || shape_of_typed(model),
                |model| {
                    let types = model.fields().iter().map(|field| (field.stored_name(), Some(&field.ty)));
                    let absences = Absences::of(model.fields(), &model.types.0);
                    Self::new(types, &model.types.0, absences)
                },
            )
        };
        definition.models.iter().map(of).collect()
    }

    /// Makes the shape of fields whose types are described, or not.
    pub(super) fn new<'a>(
        fields: impl Iterator<Item = (&'a str, Option<&'a Type>)>,
        types: &[NamedType],
        absences: Absences,
    ) -> Self {
        let text = |ty: &Type| ty.to_string();
        Self {
            fields: fields.map(|(name, ty)| (name.to_owned(), ty.map(text))).collect(),
            types: types.iter().map(|ty| (ty.name.to_string(), Body::of(&ty.body))).collect(),
            lacking: BTreeSet::new(),
            absences,
        }
    }

    /// Reads a shape that [`to_bytes`](Self::to_bytes) has written.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// Writes the shape as a database keeps it.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Returns the first difference because of which a program with the shape `other` would not
    /// read what was written by positions with this one, or would read wrong values.
    ///
    /// Fields and types may have other names, unless the name belongs to another field of the same
    /// struct: then they have changed places. An enum may have more variants at its end.
    pub(crate) fn difference(&self, other: &Self) -> Option<Difference> {
        let names = |shape: &Self| shape.types.iter().map(|(name, _)| Arc::from(&**name)).collect();
        let mut comparison =
            Comparison { shapes: [self, other], names: [names(self), names(other)], met: HashSet::new() };
        let sides = [self, other].map(|shape| {
            shape.fields.iter().map(|(name, ty)| (Some(&**name), ty.as_deref().map(Written::Text))).collect()
        });
        match comparison.products(&sides, Owner::Model) {
            Err(Unlike::Within(difference)) => Some(difference),
            Ok(()) | Err(Unlike::Here) => None,
        }
    }
}

impl Body {
    fn of(body: &TypeBody) -> Self {
        match body {
            TypeBody::Struct(fields) => Self::of_fields(fields),
            TypeBody::Tuple(parts) => Self::of_parts(parts),
            TypeBody::Enum(variants) => {
                let body = |body: &VariantBody| match body {
                    VariantBody::Unit => Self::Unit,
                    VariantBody::Tuple(parts) => Self::of_parts(parts),
                    VariantBody::Struct(fields) => Self::of_fields(fields),
                };
                Self::Enum(
                    variants.iter().map(|variant| (variant.name.to_string(), body(&variant.body))).collect(),
                )
            }
        }
    }

    fn of_fields(fields: &[Field]) -> Self {
        Self::Struct(fields.iter().map(|field| (field.name.to_string(), field.ty.to_string())).collect())
    }

    fn of_parts(parts: &[Type]) -> Self {
        Self::Tuple(parts.iter().map(ToString::to_string).collect())
    }

    /// Returns the parts one after the other, as postcard writes them; an enum has none.
    fn parts(&self) -> Product<'_> {
        match self {
            Self::Unit | Self::Enum(_) => Vec::new(),
            Self::Tuple(parts) => parts.iter().map(|ty| (None, Some(Written::Text(ty)))).collect(),
            Self::Struct(fields) => {
                fields.iter().map(|(name, ty)| (Some(&**name), Some(Written::Text(ty)))).collect()
            }
        }
    }
}

/// A type, as the text of a shape or as a part of such a text.
#[derive(Debug, Clone)]
enum Written<'a> {
    Text(&'a str),
    Type(Type),
}

impl fmt::Display for Written<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Type(ty) => ty.fmt(f),
        }
    }
}

/// Parts that follow each other in the bytes, with their names if they have any; the type is `None`
/// where it is not described.
type Product<'a> = Vec<(Option<&'a str>, Option<Written<'a>>)>;

/// What the bytes of a value are.
enum Form<'a> {
    Product(Product<'a>),
    Sum(&'a [(String, Body)]),
    Other(Type),
}

/// A comparison of a former shape with another one.
struct Comparison<'a> {
    shapes: [&'a Shape; 2],
    names: [Vec<Arc<str>>; 2],
    /// The pairs of named types that are the same, or are being compared.
    met: HashSet<(usize, usize)>,
}

/// Why two types are not the same: they are different, or something in them is.
enum Unlike {
    Here,
    Within(Difference),
}

/// What parts belong to.
#[derive(Clone, Copy)]
enum Owner<'a> {
    Model,
    Type(&'a str),
    /// A tuple or an array, which has no name: the difference is that of the field that has it.
    Unnamed,
}

impl<'a> Comparison<'a> {
    /// Compares fields or parts.
    fn products(&mut self, sides: &[Product<'a>; 2], owner: Owner<'_>) -> Result<(), Unlike> {
        let [former, other] = sides;
        let named = |side: &Product<'_>, name: &str| side.iter().any(|(field, _)| *field == Some(name));
        for place in 0..former.len().max(other.len()) {
            let pair = [former.get(place), other.get(place)];
            let unlike = match pair {
                [Some((name, ty)), Some((other_name, other_ty))] => {
                    let has_moved = match (name, other_name) {
                        (Some(name), Some(new)) if name != new => named(other, name) || named(former, new),
                        _ => false,
                    };
                    match (ty, other_ty) {
                        _ if has_moved => Err(Unlike::Here),
                        (Some(ty), Some(other)) => self.types([ty, other]),
                        // What is not described may be anything.
                        _ => Ok(()),
                    }
                }
                _ => Err(Unlike::Here),
            };
            match unlike {
                Ok(()) => {}
                Err(Unlike::Here) => {
                    let shown = pair.map(|part| part.map(|(name, ty)| shown(*name, ty.as_ref())));
                    return Err(difference("field", place, owner, shown));
                }
                within => return within,
            }
        }
        Ok(())
    }

    fn variants(&mut self, sides: [&'a [(String, Body)]; 2], of: &str) -> Result<(), Unlike> {
        let [former, other] = sides;
        let named = |side: &[(String, Body)], name: &str| side.iter().any(|(variant, _)| variant == name);
        for (place, (name, body)) in former.iter().enumerate() {
            let pair = [Some((name, body)), other.get(place).map(|(name, body)| (name, body))];
            let [_, Some((new, new_body))] = pair else {
                return Err(difference("variant", place, Owner::Type(of), [Some(name.clone()), None]));
            };
            if name != new && (named(other, name) || named(former, new)) {
                return Err(difference(
                    "variant",
                    place,
                    Owner::Type(of),
                    [Some(name.clone()), Some(new.clone())],
                ));
            }
            self.products(&[body.parts(), new_body.parts()], Owner::Type(&format!("{of}::{name}")))?;
        }
        Ok(())
    }

    fn types(&mut self, sides: [&Written<'_>; 2]) -> Result<(), Unlike> {
        let [former, other] = sides;
        let (Some(former), Some(other)) = (self.read(0, former), self.read(1, other)) else {
            return Err(Unlike::Here);
        };
        if let (Type::Named { position, .. }, Type::Named { position: new, .. }) = (&former, &other)
            && !self.met.insert((*position, *new))
        {
            return Ok(());
        }
        let of = match &former {
            Type::Named { name, .. } => Some(Arc::clone(name)),
            _ => None,
        };
        match (self.form(0, former), self.form(1, other)) {
            (Form::Product(former), Form::Product(other)) => {
                self.products(&[former, other], of.as_deref().map_or(Owner::Unnamed, Owner::Type))
            }
            (Form::Sum(former), Form::Sum(other)) => {
                self.variants([former, other], of.as_deref().unwrap_or_default())
            }
            (Form::Other(former), Form::Other(other)) => self.containers([&former, &other]),
            _ => Err(Unlike::Here),
        }
    }

    fn containers(&mut self, sides: [&Type; 2]) -> Result<(), Unlike> {
        let mut inner = |former: &Type, other: &Type| {
            self.types([&Written::Type(former.clone()), &Written::Type(other.clone())])
        };
        match sides {
            [Type::Optional(former), Type::Optional(other)]
            | [Type::List(former), Type::List(other)]
            | [Type::Set(former), Type::Set(other)] => inner(former, other),
            [Type::Map(key, value), Type::Map(other_key, other_value)] => {
                inner(key, other_key).and_then(|()| inner(value, other_value))
            }
            [former, other] if former == other => Ok(()),
            _ => Err(Unlike::Here),
        }
    }

    fn read(&self, side: usize, written: &Written<'_>) -> Option<Type> {
        match written {
            Written::Text(text) => Type::parse(text, self.names.get(side)?).ok(),
            Written::Type(ty) => Some(ty.clone()),
        }
    }

    /// Returns what the bytes of a type are: a product of one part is that part.
    fn form(&self, side: usize, mut ty: Type) -> Form<'a> {
        // A type that contains nothing but itself has no values.
        for _ in 0..MAX_TYPE_DEPTH {
            let parts: Product<'a> = match &ty {
                Type::Named { position, .. } => {
                    let body = self.shapes.get(side).and_then(|shape| shape.types.get(*position));
                    match body {
                        Some((_, Body::Enum(variants))) => return Form::Sum(variants),
                        Some((_, body)) => body.parts(),
                        None => return Form::Other(ty),
                    }
                }
                Type::Tuple(parts) => {
                    parts.iter().map(|part| (None, Some(Written::Type(part.clone())))).collect()
                }
                Type::Array(item, len) => {
                    std::iter::repeat_n((None, Some(Written::Type((**item).clone()))), *len).collect()
                }
                _ => return Form::Other(ty),
            };
            let only = match parts.as_slice() {
                [(_, Some(only))] => self.read(side, only),
                _ => return Form::Product(parts),
            };
            let Some(only) = only else { return Form::Other(ty) };
            ty = only;
        }
        Form::Other(ty)
    }
}

fn shown(name: Option<&str>, ty: Option<&Written<'_>>) -> String {
    match (name, ty) {
        (Some(name), Some(ty)) => format!("{name}: {ty}"),
        (Some(name), None) => name.to_owned(),
        (None, ty) => ty.map(ToString::to_string).unwrap_or_default(),
    }
}

fn difference(what: &str, place: usize, owner: Owner<'_>, [found, expected]: [Option<String>; 2]) -> Unlike {
    let place = match (owner, place + 1) {
        (Owner::Model, place) => format!("{what} {place}"),
        (Owner::Type(name), place) => format!("{what} {place} of `{name}`"),
        (Owner::Unnamed, _) => return Unlike::Here,
    };
    Unlike::Within(Difference { place, found, expected })
}
