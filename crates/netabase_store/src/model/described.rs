//! Descriptions of the types of fields, with which a typed program describes its records to others.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::marker::PhantomData;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::model::blob::Blob;
use crate::version::envelope::Author;

/// A type whose form serde's derives give, and which can be described without Rust.
///
/// Implemented for the integers, `bool`, `char`, `f32`, `f64`, `String`, `SystemTime`, `Duration`,
/// `Author`, `Blob`, and for `Option`, `Vec`, sets, maps, tuples, arrays and `Box` of these. Derive
/// it for the structs and enums that the fields of your models have, so that
/// [`Schema::of`](crate::model::dynamic::Schema::of) can describe them:
///
/// ```
/// use netabase_store::FieldType;
/// use netabase_store::schema::TypeSchema;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(FieldType, Clone, Serialize, Deserialize)]
/// enum Shape {
///     Point,
///     Circle { radius: f64 },
///     Polygon(Vec<(f64, f64)>),
/// }
///
/// assert!(matches!(<Option<Shape>>::TYPE, TypeSchema::Optional(TypeSchema::Named { name: "Shape", .. })));
/// ```
///
/// A type whose `Serialize`, `Deserialize`, `Ord` or `KeyField` differs from that of the derives
/// must not implement this trait: other programs would read its records as different values.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not described",
    note = "write #[derive(FieldType)] on your own struct or enum"
)]
pub trait FieldType {
    /// The description of the type's values.
    const TYPE: &'static TypeSchema;
}

/// The form of a type's values.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum TypeSchema {
    /// A type without parts, by its name in `schema.toml`, such as `u64`.
    Simple(&'static str),
    /// A value or nothing.
    Optional(&'static TypeSchema),
    /// Any number of values.
    List(&'static TypeSchema),
    /// Values that are all different, in their order.
    Set(&'static TypeSchema),
    /// Keys and their values, in the order of the keys.
    Map(&'static TypeSchema, &'static TypeSchema),
    /// A set or a map without an order in memory: a `HashSet` or a `HashMap`.
    Hashed(&'static TypeSchema),
    /// One value of each type.
    Tuple(&'static [&'static TypeSchema]),
    /// A fixed number of values.
    Array(&'static TypeSchema, usize),
    /// A struct or an enum.
    #[non_exhaustive]
    Named {
        /// Its name.
        name: &'static str,
        /// Its name with its module, which distinguishes it from others of its name.
        path: &'static str,
        /// Returns the type's body. A function lets types contain themselves.
        body: fn() -> BodySchema,
    },
}

impl TypeSchema {
    /// Describes a struct or an enum; the derive macro calls it.
    #[doc(hidden)]
    pub const fn named(name: &'static str, path: &'static str, body: fn() -> BodySchema) -> Self {
        Self::Named { name, path, body }
    }
}

/// The order in which a model's own code writes the parts of a value, as far as the schema tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Order {
    /// The order follows from the value.
    Fixed,
    /// The order in some sets or maps does not follow from the value, and the schema tells which.
    Hashed,
    /// Nothing: some types are not described.
    Unknown,
}

impl Order {
    /// Says it of fields.
    pub(crate) fn of(fields: &[FieldSchema]) -> Self {
        Self::of_fields(fields, &mut Vec::new())
    }

    fn of_fields(fields: &[FieldSchema], met: &mut Vec<&'static str>) -> Self {
        let order = |field: &FieldSchema| field.ty.map_or(Self::Unknown, |ty| Self::of_type(ty, met));
        fields.iter().map(order).max().unwrap_or(Self::Fixed)
    }

    fn of_type(ty: &TypeSchema, met: &mut Vec<&'static str>) -> Self {
        match ty {
            TypeSchema::Simple(_) => Self::Fixed,
            TypeSchema::Optional(of)
            | TypeSchema::List(of)
            | TypeSchema::Set(of)
            | TypeSchema::Array(of, _) => Self::of_type(of, met),
            TypeSchema::Map(key, value) => Self::of_type(key, met).max(Self::of_type(value, met)),
            TypeSchema::Hashed(of) => Self::Hashed.max(Self::of_type(of, met)),
            TypeSchema::Tuple(parts) => {
                parts.iter().map(|part| Self::of_type(part, met)).max().unwrap_or(Self::Fixed)
            }
            // A type that contains itself adds nothing the second time.
            TypeSchema::Named { path, .. } if met.contains(path) => Self::Fixed,
            TypeSchema::Named { path, body, .. } => {
                met.push(path);
                Self::of_body(&body(), met)
            }
        }
    }

    fn of_body(body: &BodySchema, met: &mut Vec<&'static str>) -> Self {
        match body {
            BodySchema::Unit => Self::Fixed,
            BodySchema::Tuple(fields) | BodySchema::Struct(fields) => Self::of_fields(fields, met),
            BodySchema::Enum(variants) => {
                let order = |(_, body): &(&str, BodySchema)| Self::of_body(body, met);
                variants.iter().map(order).max().unwrap_or(Self::Fixed)
            }
        }
    }
}

/// The parts of a struct, an enum or a variant.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum BodySchema {
    /// No parts, which only variants may have.
    Unit,
    /// Fields that have numbers for names.
    Tuple(&'static [FieldSchema]),
    /// Fields with names.
    Struct(&'static [FieldSchema]),
    /// Variants, with their names.
    Enum(&'static [(&'static str, BodySchema)]),
}

/// A field of a model, a struct or a variant.
#[derive(Debug, Clone, Copy)]
pub struct FieldSchema {
    /// Its name.
    pub name: &'static str,
    /// Its type, as the program has it.
    pub rust_type: &'static str,
    /// The form of its values, or `None` if it is unknown: the type does not implement
    /// [`FieldType`], or the field or the struct has a `#[serde(..)]` attribute that changes its
    /// form.
    pub ty: Option<&'static TypeSchema>,
    /// The merge rule in a merged model, as in `#[merge(counter)]`, or `None`.
    pub merge: Option<&'static str>,
    /// Returns what the field is in a value without it, as JSON; `None` if it has no default. An
    /// option that is absent is nothing in any case.
    pub default: Option<fn() -> Option<String>>,
    /// The former names of the field, under which values may have it, too.
    pub aliases: &'static [&'static str],
}

/// Writes the default of a field; `None` if it cannot be written as JSON.
#[doc(hidden)]
pub fn default_json<T: Serialize>(default: fn() -> T) -> Option<String> {
    serde_json::to_string(&default()).ok()
}

/// Asks whether a type is described: the constant of the type itself hides that of [`Undescribed`].
#[doc(hidden)]
#[derive(Debug)]
pub struct Described<T>(PhantomData<T>);

impl<T: FieldType> Described<T> {
    /// The description.
    pub const TYPE: Option<&'static TypeSchema> = Some(T::TYPE);
}

/// The fallback for types without a description.
#[doc(hidden)]
pub trait Undescribed {
    /// Nothing.
    const TYPE: Option<&'static TypeSchema> = None;
}

impl<T> Undescribed for Described<T> {}

macro_rules! simple_types {
    ($($ty:ty => $name:literal),* $(,)?) => {$(
        impl FieldType for $ty {
            const TYPE: &'static TypeSchema = &TypeSchema::Simple($name);
        }
    )*};
}
simple_types!(
    bool => "bool", char => "char", str => "string", String => "string",
    u8 => "u8", u16 => "u16", u32 => "u32", u64 => "u64", u128 => "u128", usize => "u64",
    i8 => "i8", i16 => "i16", i32 => "i32", i64 => "i64", i128 => "i128", isize => "i64",
    f32 => "f32", f64 => "f64",
    SystemTime => "system_time", Duration => "duration", Author => "author", Blob => "blob",
);

macro_rules! container_types {
    ($([$($parameters:tt)*] $ty:ty => $schema:expr),* $(,)?) => {$(
        impl<$($parameters)*> FieldType for $ty {
            const TYPE: &'static TypeSchema = &$schema;
        }
    )*};
}
container_types!(
    [T: FieldType] Option<T> => TypeSchema::Optional(T::TYPE),
    [T: FieldType] Vec<T> => TypeSchema::List(T::TYPE),
    [T: FieldType] [T] => TypeSchema::List(T::TYPE),
    [T: FieldType] BTreeSet<T> => TypeSchema::Set(T::TYPE),
    [T: FieldType, S] HashSet<T, S> => TypeSchema::Hashed(&TypeSchema::Set(T::TYPE)),
    [K: FieldType, V: FieldType] BTreeMap<K, V> => TypeSchema::Map(K::TYPE, V::TYPE),
    [K: FieldType, V: FieldType, S] HashMap<K, V, S> =>
        TypeSchema::Hashed(&TypeSchema::Map(K::TYPE, V::TYPE)),
    [T: FieldType, const N: usize] [T; N] => TypeSchema::Array(T::TYPE, N),
);

impl<T: FieldType + ?Sized> FieldType for Box<T> {
    const TYPE: &'static TypeSchema = T::TYPE;
}

macro_rules! tuple_types {
    ($first:ident $($rest:ident)*) => {
        impl<$first: FieldType, $($rest: FieldType),*> FieldType for ($first, $($rest,)*) {
            const TYPE: &'static TypeSchema = &TypeSchema::Tuple(&[$first::TYPE, $($rest::TYPE),*]);
        }
        tuple_types!($($rest)*);
    };
    () => {};
}
tuple_types!(A B C D E F G H I J K L M N O P);
